//! Makes the event that calls a webhook, for every request that came with one.

use serde_json::json;

use super::target::{FAILED_PARAM, WEBHOOK_PARAM};
use crate::completion::{Completion, CompletionHook, FollowUp};
use crate::envelope::{Envelope, Params};
use crate::payload::Payload;

/// The [`CompletionHook`] of webhooks: a request with the parameter [`WEBHOOK_PARAM`] gets an event with its result, or with
/// its failure in [`FAILED_PARAM`].
pub struct WebhookFollowUp;

impl CompletionHook for WebhookFollowUp {
    fn name(&self) -> &'static str {
        WEBHOOK_PARAM
    }

    fn follow_up(&self, request: &Envelope, completion: Completion<'_>) -> Option<FollowUp> {
        // The event has an id of its own; the receiver gets the request's.
        let mut webhook = request.params.get(WEBHOOK_PARAM)?.clone();
        if let Some(webhook) = webhook.as_object_mut() {
            webhook.insert("request".into(), json!(request.request));
        }
        let mut params = Params::from([(WEBHOOK_PARAM.to_owned(), webhook)]);
        let payload = match completion {
            Completion::Done(content) => Payload::Bytes(content.clone()),
            Completion::Failed(cause) => {
                params.insert(FAILED_PARAM.into(), json!(cause));
                Payload::json(json!({}))
            }
        };
        Some(FollowUp { params, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Rejection;
    use crate::names::Token;
    use crate::payload::Content;

    fn request(params: serde_json::Value) -> Envelope {
        let id = Token::new("r1").unwrap();
        let params = serde_json::from_value(params).unwrap();
        Envelope { request: Some(id.clone()), params, ..Envelope::new(Token::new("test").unwrap(), id) }
    }

    #[test]
    fn a_request_without_a_webhook_has_no_follow_up() {
        let content = Content::inline("text/plain", "x");
        assert!(WebhookFollowUp.follow_up(&request(json!({ "n": 1 })), Completion::Done(&content)).is_none());
    }

    #[test]
    fn a_result_travels_with_the_webhook_and_the_name_of_its_request() {
        let content = Content::inline("text/plain", "x");
        let request = request(json!({ "webhook": { "url": "https://a.example/" }, "n": 1 }));
        let FollowUp { params, payload } = WebhookFollowUp.follow_up(&request, Completion::Done(&content)).unwrap();
        assert_eq!(json!(params), json!({ "webhook": { "url": "https://a.example/", "request": "r1" } }));
        assert!(matches!(payload, Payload::Bytes(content) if &*content.media_type == "text/plain"));
    }

    #[test]
    fn a_failure_travels_as_a_parameter() {
        let cause = Rejection::unusable("template_data", "a field is missing");
        let request = request(json!({ "webhook": { "url": "https://a.example/" } }));
        let FollowUp { params, .. } = WebhookFollowUp.follow_up(&request, Completion::Failed(&cause)).unwrap();
        assert_eq!(params[FAILED_PARAM], json!(cause));
    }
}
