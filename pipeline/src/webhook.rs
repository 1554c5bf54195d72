//! Webhooks: where a result is sent once it is made, and what sends it, as a trait.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::fault::{BoxError, Rejection};
use crate::names::RequestId;

/// The parameter that holds a [`Webhook`] as JSON.
pub const WEBHOOK_PARAM: &str = "webhook";

/// The parameter of an event that is about a failure: the [`Rejection`] as JSON.
pub const FAILED_PARAM: &str = "failed";

/// How a call is made: the methods that carry a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the words of HTTP")]
pub enum Method {
    #[default]
    Post,
    Put,
    Patch,
}

/// Where a requester wants the result. It prints nothing: addresses and headers hold secrets of the receiver.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Gets the result.
    pub url: String,
    /// How it gets the result.
    #[serde(default)]
    pub method: Method,
    /// Gets the failure; where there is none, nobody is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_url: Option<String>,
    /// How it gets the failure.
    #[serde(default)]
    pub error_method: Method,
    /// Sent with both, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The request that the result belongs to, where the event is not that request's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
}

impl Webhook {
    /// Whether `caller` would call it, as far as can be told without asking the network.
    ///
    /// # Errors
    /// What is wrong with an address or a header, for the requester.
    pub fn check(&self, caller: &dyn Caller) -> Result<(), Rejection> {
        caller.check_url(&self.url)?;
        self.error_url.as_deref().map_or(Ok(()), |url| caller.check_url(url))?;
        caller.check_headers(&self.headers)
    }
}

/// One call to make.
#[derive(Clone)]
pub struct Call {
    /// How.
    pub method: Method,
    /// Where.
    pub url: String,
    /// Further headers, by name.
    pub headers: BTreeMap<String, String>,
    /// The request it is about: the same in every repeat, so that a receiver can tell one.
    pub request: RequestId,
    /// The name of the body as a file, where it is one.
    pub file_name: Option<String>,
    /// The body's type.
    pub media_type: String,
    /// The body.
    pub body: Bytes,
}

/// Why a call was not taken.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It may not be made, or the receiver wants no repeat of it.
    #[error(transparent)]
    Refused(Rejection),
    /// The receiver did not answer, or asked to be called again later.
    #[error("the receiver took no call")]
    Failed(#[source] BoxError),
}

/// Calls addresses that requesters name, within what the config allows. No error holds an address beyond its host.
#[async_trait]
pub trait Caller: Send + Sync {
    /// Whether `url` may be called, as far as can be told without asking the network.
    ///
    /// # Errors
    /// 400 `webhook_url` if it is malformed, 403 `webhook_not_allowed` if the config does not allow it.
    fn check_url(&self, url: &str) -> Result<(), Rejection>;

    /// Whether these headers may be sent.
    ///
    /// # Errors
    /// 400 `webhook_header` with the header's name and the reason.
    fn check_headers(&self, headers: &BTreeMap<String, String>) -> Result<(), Rejection>;

    /// Makes one call; when it returns, the receiver has taken it. A repeat is sent again.
    ///
    /// # Errors
    /// As [`CallError`] says; [`check_url`](Self::check_url) and [`check_headers`](Self::check_headers) are part of it.
    async fn call(&self, call: Call) -> Result<(), CallError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_said_is_a_post_and_nothing_else() {
        let webhook: Webhook = serde_json::from_value(json!({"url": "https://a.example/"})).unwrap();
        assert!(webhook.method == Method::Post && webhook.error_method == Method::Post && webhook.error_url.is_none());
        let text = json!({"url": "https://a.example/", "method": "POST", "error_method": "POST"});
        assert_eq!(serde_json::to_value(&webhook).unwrap(), text);
    }

    #[test]
    fn other_methods_and_unknown_words_are_refused() {
        for wrong in [json!({"url": "u", "method": "GET"}), json!({"url": "u", "headres": {}}), json!("u"), json!({})] {
            assert!(serde_json::from_value::<Webhook>(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
