//! Why a call to the service failed, and whether that passes.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use anyhow::anyhow;
use reqwest::{Response, StatusCode};
use serde_json::Value;
use tokio_rustls::rustls;

use crate::http_client::UNAUTHORIZED;

/// Why a call failed.
#[derive(Debug)]
pub enum CallError {
    /// The service was not reached, or its answer broke off, or a proxy did not reach it. It may have done what it was asked.
    Unreachable(anyhow::Error),
    /// The service cannot take the call now.
    Busy {
        why: String,
        /// When the service asks to be called again.
        retry_after: Option<Duration>,
    },
    /// The service refused the call, and would again.
    Refused { status: StatusCode, why: String },
    /// No call of this run would succeed.
    Fatal(NoService),
    /// The failure is on this side, or concerns the request itself.
    Other(anyhow::Error),
}

/// Why no file can be sent, and what to do about it.
#[derive(Debug)]
pub struct NoService(pub String);

impl std::fmt::Display for NoService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for NoService {}

impl From<reqwest::Error> for CallError {
    fn from(error: reqwest::Error) -> Self {
        let stays = error.is_builder() || error.is_redirect() || is_tls(&error);
        if stays { Self::Other(error.into()) } else { Self::Unreachable(error.into()) }
    }
}

impl From<anyhow::Error> for CallError {
    fn from(error: anyhow::Error) -> Self {
        let passes = error.downcast_ref::<reqwest::Error>().is_some_and(|cause| !is_tls(cause));
        if passes { Self::Unreachable(error) } else { Self::Other(error) }
    }
}

impl From<CallError> for anyhow::Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unreachable(why) | CallError::Other(why) => why,
            CallError::Fatal(why) => why.into(),
            CallError::Busy { why, .. } | CallError::Refused { why, .. } => anyhow!(why),
        }
    }
}

/// Whether the two sides do not agree on TLS, for example on a certificate: waiting does not change that.
fn is_tls(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<rustls::Error>() {
            return true;
        }
        // An I/O error does not name what it wraps as its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = wrapped.map_or_else(|| error.source(), |wrapped| Some(wrapped));
    }
    false
}

/// The response, if it is a success.
///
/// # Errors
/// The service's problem detail, sorted by whether another call can succeed.
pub async fn checked(response: Response) -> Result<Response, CallError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let problem = response.json::<Value>().await.ok();
    let why = problem.as_ref().map_or_else(|| format!("the service answered {status}"), sentence);
    if status == StatusCode::UNAUTHORIZED {
        return Err(CallError::Fatal(NoService(format!("{why}: {UNAUTHORIZED}"))));
    }
    if !is_passing(status) {
        return Err(CallError::Refused { status, why });
    }
    // A proxy whose service is away says so in words of its own.
    if status.is_server_error() && problem.is_none() && seconds.is_none() {
        return Err(CallError::Unreachable(anyhow!(why)));
    }
    Err(CallError::Busy { why, retry_after: seconds.map(Duration::from_secs) })
}

/// A problem document as a sentence.
pub fn sentence(problem: &Value) -> String {
    let text = |key: &str| problem[key].as_str().unwrap_or("?").to_owned();
    format!("{} ({}, status {})", text("detail"), text("code"), problem["status"])
}

/// Timeout, too early, too many, and what a full service or a proxy without a service answers.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn statuses_that_pass_are_those_of_a_busy_service_or_a_proxy() {
        let passing = |status: &u16| is_passing(StatusCode::from_u16(*status).unwrap());
        let passes: Vec<u16> = (400..=599).filter(passing).collect();
        assert_eq!(passes, [408, 425, 429, 502, 503, 504]);
    }

    /// What a call to a server that answers with these bytes and closes the connection fails with.
    async fn failure(answer: &'static [u8]) -> CallError {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = async {
            let (mut stream, mut request) = (listener.accept().await.unwrap().0, Vec::new());
            // What is not read would reset the connection.
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            stream.write_all(answer).await.unwrap();
        };
        let client = crate::http_client::to_service(None).unwrap();
        let call = async {
            let response = checked(client.get(url).send().await?).await?;
            Ok(response.bytes().await?)
        };
        let ((), result): ((), Result<_, CallError>) = tokio::join!(server, call);
        result.unwrap_err()
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_passes() {
        for cut in [&b""[..], b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"] {
            let error = failure(cut).await;
            assert!(matches!(error, CallError::Unreachable(_)), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_proxy_without_a_service_passes_and_a_refusal_does_not() {
        let error = failure(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(error, CallError::Unreachable(_)), "{error:?}");
        let error = failure(b"HTTP/1.1 503 Full\r\nretry-after: 3\r\ncontent-length: 0\r\n\r\n").await;
        let asked = Duration::from_secs(3);
        assert!(matches!(error, CallError::Busy { retry_after: Some(after), .. } if after == asked));
        let error = failure(b"HTTP/1.1 415 Unsupported\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(error, CallError::Refused { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_speak_tls_does_not_pass() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        let server = async {
            let (mut stream, mut hello) = (listener.accept().await.unwrap().0, Vec::new());
            stream.read_buf(&mut hello).await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            // The client has read the answer once it closes the connection.
            while stream.read_buf(&mut hello).await.is_ok_and(|count| count > 0) {}
        };
        let client = crate::http_client::to_service(None).unwrap();
        let ((), result) = tokio::join!(server, client.get(url).send());
        let error = CallError::from(result.unwrap_err());
        assert!(matches!(error, CallError::Other(_)), "{error:?}");
    }

    #[tokio::test]
    async fn a_refused_connection_passes_and_a_bad_address_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let client = crate::http_client::to_service(None).unwrap();
        let error = CallError::from(client.get(format!("http://{address}/")).send().await.unwrap_err());
        assert!(matches!(error, CallError::Unreachable(_)), "{error:?}");
        let error = CallError::from(client.get("not an address").send().await.unwrap_err());
        assert!(matches!(error, CallError::Other(_)), "{error:?}");
    }
}
