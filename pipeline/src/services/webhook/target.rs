//! The webhook of a request: where the requester wants the result sent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::caller::{Method, WebhookCaller};
use crate::fault::Rejection;
use crate::names::RequestId;

/// The parameter that holds a [`Webhook`] as JSON.
pub const WEBHOOK_PARAM: &str = "webhook";

/// The parameter of an event that is about a failure: the [`Rejection`] as JSON.
pub const FAILED_PARAM: &str = "failed";

/// Where a requester wants the result sent. It has no `Debug`: addresses and headers hold secrets of the receiver.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Address that gets the result.
    pub url: String,
    /// Method of that call.
    #[serde(default)]
    pub method: Method,
    /// Address that gets a failure; without it a failure is not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_url: Option<String>,
    /// Method of that call.
    #[serde(default)]
    pub error_method: Method,
    /// Headers of both calls, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The request that the result belongs to, where another event carries the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
}

impl Webhook {
    /// Checks addresses and headers against what `caller` allows, as far as that needs no network.
    ///
    /// # Errors
    /// What is wrong with an address or a header, for the requester.
    pub fn check(&self, caller: &dyn WebhookCaller) -> Result<(), Rejection> {
        caller.check_url(&self.url)?;
        self.error_url.as_deref().map_or(Ok(()), |url| caller.check_url(url))?;
        caller.check_headers(&self.headers)
    }
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
