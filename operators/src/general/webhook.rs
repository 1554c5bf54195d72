//! `use = "webhook"`: sends the result, or the failure, to the URL that the client gave.
//!
//! Delivery is at least once: an event that is redelivered, after a crash or because the receiver's response was lost,
//! is sent again with the same `Caudal-Request`, so that the receiver can deduplicate. The [`WebhookCaller`] decides which
//! hosts may be called and how. Calls that may be retried are retried by the flow's `retry`.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use pipeline::documents::file_extension;
use pipeline::webhook::{CallError, FAILED_PARAM, WEBHOOK_PARAM, Webhook, WebhookCall, WebhookCaller};
use pipeline::{
    Body, BoxError, Content, Emits, Envelope, Event, Fault, Need, Operator, OperatorKind, OperatorSpec, Output,
    Payload, PayloadKind, Rejection, Services, StageTypes, parse_message,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// `use = "webhook"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<WebhookSpec>("webhook", "sends the result, or the failure, to the URL that the client gave");

/// The keys of a `webhook` stage: none.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSpec {}

impl OperatorSpec for WebhookSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes, PayloadKind::Json], gives: Emits::Nothing }
    }

    // Batches of one event (the default): a call that fails must not repeat the others of its batch.

    fn needs(&self) -> Vec<Need> {
        vec![Need::of::<dyn WebhookCaller>()]
    }

    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        let caller = services.get::<dyn WebhookCaller>()?;
        Ok(Box::new(Deliver { caller }))
    }
}

/// Shares the caller with the other instances.
struct Deliver {
    caller: Arc<dyn WebhookCaller>,
}

#[async_trait]
impl Operator for Deliver {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        let delivered = join_all(batch.iter().map(|event| self.deliver(event))).await;
        let mut failed = None;
        for (event, outcome) in batch.iter().zip(delivered) {
            match outcome {
                Ok(()) => {}
                Err(CallError::Refused(why)) => out.reject(event, why),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), |error| Err(Fault::retry(error)))
    }
}

impl Deliver {
    async fn deliver(&self, event: &Event) -> Result<(), CallError> {
        match call_of(event).map_err(CallError::Refused)? {
            Some(call) => self.caller.call(call).await,
            None => Ok(()),
        }
    }
}

/// The call to make for an event; `None` for a failure without an `error_url`.
fn call_of(event: &Event) -> Result<Option<WebhookCall>, Rejection> {
    let envelope = &event.envelope;
    let webhook: Webhook = param(envelope, WEBHOOK_PARAM)?.ok_or_else(|| {
        let detail = format!("parameter {WEBHOOK_PARAM:?} is missing; it holds the URL to send the result to");
        Rejection::new(400, "missing_parameter", detail)
    })?;
    let request = webhook.request.or_else(|| envelope.request.clone()).unwrap_or_else(|| envelope.id.clone());
    let call_with = |method, url, file_name, media_type, body| WebhookCall {
        method,
        url,
        headers: webhook.headers,
        request: request.clone(),
        file_name,
        media_type,
        body,
    };
    let Some(why) = param::<Rejection>(envelope, FAILED_PARAM)? else {
        let (media_type, body) = result_of(&event.payload)?;
        let file_name = format!("{request}.{}", file_extension(&media_type));
        return Ok(Some(call_with(webhook.method, webhook.url, Some(file_name), media_type, body)));
    };
    let text = json!({"status": why.status, "message": why.detail, "code": why.code}).to_string();
    let report = |url| call_with(webhook.error_method, url, None, "application/json".into(), text.into());
    Ok(webhook.error_url.map(report))
}

/// A parameter that is a JSON object; `None` if it is missing.
fn param<T: DeserializeOwned>(envelope: &Envelope, name: &str) -> Result<Option<T>, Rejection> {
    let Some(value) = envelope.params.get(name) else { return Ok(None) };
    let read = T::deserialize(value);
    read.map(Some)
        .map_err(|why| Rejection::new(400, "bad_parameter", format!("parameter {name:?}: {}", parse_message(&why))))
}

/// The result's type and bytes.
fn result_of(payload: &Payload) -> Result<(String, Bytes), Rejection> {
    match payload {
        Payload::Json(value) => Ok(("application/json".into(), value.to_string().into())),
        Payload::Bytes(Content { media_type, body: Body::Inline(bytes) }) => {
            Ok((media_type.to_string(), bytes.clone()))
        }
        // The engine fetches claims before the stage runs.
        Payload::Bytes(_) => Err(Rejection::internal("the result was not fetched")),
        other => {
            let detail = format!("a webhook sends bytes or JSON, not {}", other.kind());
            Err(Rejection::unsupported("payload_kind", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_doubles::{image_of_colour, vector};
    use pipeline::Params;
    use pipeline::testing::{ProbeResult, run, run_events};
    use pipeline::webhook::Method;
    use serde_json::Value;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    /// Records every call. The host `busy` fails, the host `gone` refuses.
    #[derive(Default)]
    struct CallerThatProvokes {
        calls: Mutex<Vec<WebhookCall>>,
    }

    #[async_trait]
    impl WebhookCaller for CallerThatProvokes {
        fn check_url(&self, _: &str) -> Result<(), Rejection> {
            Ok(())
        }

        fn check_headers(&self, _: &BTreeMap<String, String>) -> Result<(), Rejection> {
            Ok(())
        }

        async fn call(&self, call: WebhookCall) -> Result<(), CallError> {
            let url = call.url.clone();
            self.calls.lock().unwrap().push(call);
            match url.as_str() {
                "https://busy.example/" => Err(CallError::Failed("answered 503".into())),
                "https://gone.example/" => Err(CallError::Refused(Rejection::new(502, "webhook_refused", "410"))),
                _ => Ok(()),
            }
        }
    }

    fn params(webhook: Value, failed: Option<Value>) -> Params {
        let failed = failed.map(|why| (FAILED_PARAM.to_owned(), why));
        [(WEBHOOK_PARAM.to_owned(), webhook)].into_iter().chain(failed).collect()
    }

    fn pdf() -> Payload {
        Payload::Bytes(Content::inline("application/pdf", "%PDF-"))
    }

    async fn deliver(events: Vec<(Params, Payload)>) -> (ProbeResult, Vec<WebhookCall>) {
        let caller = Arc::new(CallerThatProvokes::default());
        let services = Services::default().offer::<dyn WebhookCaller>(caller.clone());
        let ran = run_events(WebhookSpec {}.build(&services).unwrap().as_mut(), events).await;
        let calls = std::mem::take(&mut *caller.calls.lock().unwrap());
        (ran, calls)
    }

    fn to(url: &str) -> Params {
        params(json!({"url": url}), None)
    }

    #[tokio::test]
    async fn a_result_goes_to_its_url_as_a_file() {
        let webhook = json!({
            "url": "https://a.example/r", "method": "PUT", "error_url": "https://a.example/e", "headers": {"X-Key": "k"}
        });
        let events =
            vec![(params(webhook.clone(), None), pdf()), (params(webhook, None), Payload::json(json!({"n": 1})))];
        let (ran, calls) = deliver(events).await;
        assert!(ran.fault.is_none() && ran.rejected.is_empty() && ran.emitted.is_empty() && ran.responded.is_empty());
        let sent: Vec<_> = calls.iter().map(|call| (&*call.url, call.method, &*call.media_type, &*call.body)).collect();
        assert_eq!(
            sent,
            [
                ("https://a.example/r", Method::Put, "application/pdf", &b"%PDF-"[..]),
                ("https://a.example/r", Method::Put, "application/json", &br#"{"n":1}"#[..]),
            ]
        );
        assert_eq!(calls[0].file_name.as_deref(), Some("event-0.pdf"));
        assert_eq!(calls[1].file_name.as_deref(), Some("event-1.json"));
        assert_eq!((calls[0].request.as_str(), &*calls[0].headers["X-Key"]), ("event-0", "k"));
    }

    #[tokio::test]
    async fn a_failure_goes_to_the_error_url_if_there_is_one() {
        let why = json!({"status": 422, "code": "template_data", "detail": "a field is missing"});
        let both = json!({"url": "https://a.example/r", "error_url": "https://a.example/e", "error_method": "PATCH"});
        let events = vec![
            (params(both, Some(why.clone())), Payload::json(json!(null))),
            (params(json!({"url": "https://a.example/r"}), Some(why)), Payload::json(json!(null))),
        ];
        let (ran, calls) = deliver(events).await;
        assert!(ran.fault.is_none() && ran.rejected.is_empty());
        assert_eq!(calls.len(), 1);
        assert_eq!(
            (&*calls[0].url, calls[0].method, &calls[0].file_name),
            ("https://a.example/e", Method::Patch, &None)
        );
        let text = r#"{"status":422,"message":"a field is missing","code":"template_data"}"#;
        assert_eq!((&*calls[0].media_type, &*calls[0].body), ("application/json", text.as_bytes()));
    }

    #[tokio::test]
    async fn a_result_of_another_request_keeps_its_name() {
        let (_, calls) =
            deliver(vec![(params(json!({"url": "https://a.example/", "request": "r1"}), None), pdf())]).await;
        assert_eq!((calls[0].request.as_str(), calls[0].file_name.as_deref()), ("r1", Some("r1.pdf")));
    }

    #[tokio::test]
    async fn a_refused_call_rejects_only_its_own_event() {
        let events = vec![(to("https://gone.example/"), pdf()), (to("https://a.example/"), pdf())];
        let (ran, calls) = deliver(events).await;
        assert!(ran.fault.is_none() && calls.len() == 2);
        assert_eq!(ran.rejected.len(), 1);
        assert_eq!((ran.rejected[0].0, &*ran.rejected[0].1.code), (0, "webhook_refused"));
    }

    #[tokio::test]
    async fn a_failed_call_is_retried() {
        let (ran, _) = deliver(vec![(to("https://busy.example/"), pdf())]).await;
        assert!(matches!(ran.fault, Some(Fault::Retry(_))) && ran.rejected.is_empty());
    }

    #[tokio::test]
    async fn a_repeat_is_the_same_call() {
        let caller = Arc::new(CallerThatProvokes::default());
        let services = Services::default().offer::<dyn WebhookCaller>(caller.clone());
        let mut operator = WebhookSpec {}.build(&services).unwrap();
        for _ in 0..2 {
            run(operator.as_mut(), to("https://a.example/"), vec![pdf()]).await;
        }
        let calls = caller.calls.lock().unwrap();
        assert_eq!((calls[0].request.as_str(), &calls[0].body), (calls[1].request.as_str(), &calls[1].body));
    }

    #[tokio::test]
    async fn an_event_without_a_valid_webhook_is_rejected_and_makes_no_call() {
        let webhook = || json!({"url": "https://a.example/"});
        let events = vec![
            (Params::new(), pdf()),
            (params(json!("https://a.example/"), None), pdf()),
            (params(json!({"url": "https://a.example/", "method": "DELETE"}), None), pdf()),
            (params(webhook(), Some(json!("no"))), pdf()),
            (params(webhook(), None), Payload::Image(Arc::new(image_of_colour([1, 2, 3])))),
            (params(webhook(), None), Payload::Vector(Arc::new(vector(&[1.0])))),
        ];
        let (ran, calls) = deliver(events).await;
        let refused: Vec<_> = ran.rejected.iter().map(|(place, why)| (*place, why.status)).collect();
        assert_eq!(refused, [(0, 400), (1, 400), (2, 400), (3, 400), (4, 415), (5, 415)]);
        assert!(ran.fault.is_none() && calls.is_empty());
    }

    #[test]
    fn it_is_not_built_without_a_caller() {
        assert!(WebhookSpec {}.build(&Services::default()).is_err());
    }
}
