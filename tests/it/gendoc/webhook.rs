//! Webhooks: they receive the result or the problem of a request, if their host is on the allow list.

use reqwest::Response;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::fixtures::{docx, gendoc, problem_of, put};
use crate::caudal::Caudal;

/// An HTTP server that receives webhook calls.
struct Receiver(TcpListener);

impl Receiver {
    async fn listen() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.0.local_addr().unwrap())
    }

    /// The head and body of the next call, which is answered with 200.
    async fn next_call(&self) -> (String, Vec<u8>) {
        let (mut stream, _) = tokio::time::timeout(crate::caudal::TIMEOUT, self.0.accept()).await.unwrap().unwrap();
        let (mut got, mut buffer) = (Vec::new(), [0; 65_536]);
        loop {
            let count = stream.read(&mut buffer).await.unwrap();
            got.extend_from_slice(&buffer[..count]);
            let Some(end) = got.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&got[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let body = got[end + 4..].to_vec();
            if body.len() == length.parse::<usize>().unwrap() {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                return (head, body);
            }
            assert!(count > 0, "the connection ended early");
        }
    }
}

async fn render_for(caudal: &Caudal, context: Value, headers: &[(&str, String)]) -> Response {
    let mut request = caudal.client.post(caudal.url("/templates/letter/render")).json(&context);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_webhook_receives_the_result_or_the_problem() {
    let receiver = Receiver::listen().await;
    let allow = ["--set", "webhook.allow=[\"127.0.0.1/32:*\"]", "--set", "webhook.insecure_http=true"];
    let caudal = gendoc(&allow).await;
    put(&caudal, "letter", docx(&["Dear {{ name }}"])).await;
    let hooks = [
        ("gotenberg-webhook-url", receiver.url("/done")),
        ("gotenberg-webhook-error-url", receiver.url("/failed")),
        ("gotenberg-webhook-extra-http-headers", r#"{"X-Mark": "m1"}"#.to_owned()),
    ];
    let answer = render_for(&caudal, json!({ "name": "Ada" }), &hooks).await;
    assert_eq!(answer.status(), 204);
    let request = answer.headers()["caudal-request"].to_str().unwrap().to_owned();
    let (head, body) = receiver.next_call().await;
    assert!(head.starts_with("post /done http/1.1"), "{head}");
    for line in ["content-type: application/pdf", "x-mark: m1", &format!("caudal-request: {request}")] {
        assert!(head.lines().any(|sent| sent == line), "{line:?} is not in {head}");
    }
    assert!(body.starts_with(b"%PDF-"));

    assert_eq!(render_for(&caudal, json!({}), &hooks).await.status(), 204);
    let (head, body) = receiver.next_call().await;
    assert!(head.starts_with("post /failed"), "{head}");
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(422), &json!("undefined_variable")));
    // Without an error URL, the failure can still be read from the request resource.
    let own = render_for(&caudal, json!({}), &[("caudal-webhook-url", receiver.url("/done"))]).await;
    assert_eq!(own.status(), 202);
    let accepted: Value = own.json().await.unwrap();
    assert_eq!(caudal.result(accepted["id"].as_str().unwrap()).await["status"], "failed");
}

#[tokio::test]
async fn a_webhook_host_outside_the_allow_list_is_refused() {
    let receiver = Receiver::listen().await;
    let caudal = gendoc(&[]).await;
    let form = Form::new().part("files", Part::bytes(docx(&["x"])).file_name("a.docx"));
    let request = caudal.client.post(caudal.url("/forms/libreoffice/convert")).multipart(form);
    let answer = request.header("gotenberg-webhook-url", receiver.url("/x")).send().await.unwrap();
    let status = answer.status().as_u16();
    assert!(matches!(status, 400 | 403), "{status}");
    let (code, _) = problem_of(answer, status).await;
    assert!(code.starts_with("webhook"), "{code}");
}
