//! Sends one file as one request and waits for its result, retrying while the service answers 429 or 503.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use super::answers::Answers;
use super::media::type_of;
use crate::http_client;

/// Where the files go.
pub struct Target {
    client: Client,
    base: String,
    way: Way,
}

/// How a file becomes a request.
pub enum Way {
    /// The file's bytes, to an open flow.
    Flow(String),
    /// As a field of a multipart form, to a route.
    Form {
        /// Path of the route; `{name}` stands for the file's name without extension.
        path: String,
        /// Name of the form field.
        field: String,
    },
    /// The file's bytes, to a route.
    Raw {
        /// Path of the route; `{name}` stands for the file's name without extension.
        path: String,
    },
}

/// Attempts while the service answers that it is full.
const OFFERS: u32 = 20;

/// Longest pause between two attempts, whatever `Retry-After` says.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Longest wait for the result of an accepted file.
const RESULT_PATIENCE: Duration = Duration::from_secs(600);

impl Target {
    /// A service and how it gets the files, with its API key or token if it needs one.
    ///
    /// # Errors
    /// If the token has characters that a header value cannot have.
    pub fn new(base: &str, way: Way, token: Option<&str>) -> anyhow::Result<Self> {
        let client = http_client::to_service(token)?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), way })
    }

    /// The target's name in the journal.
    pub fn describe(&self) -> String {
        match &self.way {
            Way::Flow(flow) => format!("{}/v1/flows/{flow}", self.base),
            Way::Form { path, .. } | Way::Raw { path } => format!("{}{path}", self.base),
        }
    }

    async fn post(&self, file: &Path) -> anyhow::Result<Response> {
        let bytes = Bytes::from(tokio::fs::read(file).await.context("cannot read it")?);
        let media_type = type_of(file);
        let url = |path: &str| format!("{}{}", self.base, path.replace("{name}", &token(file)));
        let raw = |url: String| self.client.post(url).header("content-type", media_type).body(bytes.clone());
        let request = || -> anyhow::Result<RequestBuilder> {
            let request = match &self.way {
                Way::Flow(flow) => raw(format!("{}/v1/flows/{flow}?lane=bulk", self.base)),
                Way::Raw { path } => raw(url(path)),
                Way::Form { path, field } => {
                    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    let part = Part::stream(bytes.clone()).file_name(name).mime_str(media_type)?;
                    self.client.post(url(path)).multipart(Form::new().part(field.clone(), part))
                }
            };
            Ok(request.header("prefer", "respond-async"))
        };
        patiently(request).await
    }

    async fn get(&self, path: &str) -> anyhow::Result<Response> {
        patiently(|| Ok(self.client.get(format!("{}{path}", self.base)))).await
    }
}

/// Sends one file and waits for its terminal result. Returns the name of the stored answer, if answers are stored.
///
/// # Errors
/// The service's problem detail if it refuses the file or fails on it.
pub async fn upload(target: &Target, file: &Path, answers: Option<&Answers>) -> anyhow::Result<Option<String>> {
    let mut answer = target.post(file).await?;
    if answer.status() == StatusCode::ACCEPTED {
        let accepted: Value = answer.json().await.context("the answer is not JSON")?;
        let id = accepted["id"].as_str().context("the answer has no id")?.to_owned();
        tokio::time::timeout(RESULT_PATIENCE, wait(target, &id))
            .await
            .with_context(|| format!("request {id} has no result after {} s", RESULT_PATIENCE.as_secs()))??;
        if answers.is_none() {
            return Ok(None);
        }
        answer = target.get(&format!("/v1/requests/{id}/result")).await?;
    }
    match answers {
        Some(answers) => Ok(Some(answers.store(file, answer).await?)),
        None => Ok(None),
    }
}

/// Polls the request's status until it is terminal, with growing pauses.
async fn wait(target: &Target, id: &str) -> anyhow::Result<()> {
    let mut pause = Duration::from_millis(20);
    loop {
        let response = target.get(&format!("/v1/requests/{id}")).await?;
        let request: Value = response.json().await.context("the answer is not JSON")?;
        match request["status"].as_str() {
            Some("done") => return Ok(()),
            Some("failed") => bail!(sentence(&request["error"])),
            Some("cancelled") => bail!("it was cancelled"),
            _ => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Sends the request until it succeeds, as long as the answer is 429 or 503 and attempts are left.
async fn patiently(request: impl Fn() -> anyhow::Result<RequestBuilder>) -> anyhow::Result<Response> {
    for _ in 0..OFFERS {
        let response = request()?.send().await?;
        match response.status() {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                tokio::time::sleep(retry_after(&response)).await;
            }
            status if status.is_success() => return Ok(response),
            _ => bail!(problem(response).await),
        }
    }
    bail!("the service was still full after {OFFERS} attempts")
}

async fn problem(response: Response) -> String {
    let status = response.status();
    match response.json::<Value>().await {
        Ok(problem) => sentence(&problem),
        Err(_) => format!("the service answered {status}"),
    }
}

fn sentence(problem: &Value) -> String {
    let text = |key: &str| problem[key].as_str().unwrap_or("?").to_owned();
    format!("{} ({}, status {})", text("detail"), text("code"), problem["status"])
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1)).min(LONGEST_PAUSE)
}

/// The file's name without extension as an id; characters that an id cannot have become `-`.
fn token(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' };
    stem.chars().map(safe).take(pipeline::MAX_TOKEN_BYTES).collect()
}
