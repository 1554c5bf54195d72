//! Sends a result to the address that its requester gave.
//!
//! Calls are made at least once: an event that comes again, after a crash or because the receiver's answer was lost, is sent
//! again with the same `Caudal-Request`, by which a receiver can tell. Who may be called, and over what, is the
//! [`Caller`]'s business; a receiver that asks for another attempt gets one by the flow's own `retry`.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use pipeline::documents::Format;
use pipeline::webhook::{Call, CallError, Caller, FAILED_PARAM, WEBHOOK_PARAM, Webhook};
use pipeline::{
    Body, BoxError, Content, Ends, Envelope, Event, Fault, Gives, Need, Operator, OperatorKind, OperatorSpec, Output,
    Payload, PayloadKind, Rejection, Services,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// `use = "webhook"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<WebhookSpec>("webhook", "sends the result, or the failure, to the address its requester gave");

/// The keys of a `webhook` stage: none.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSpec {}

impl OperatorSpec for WebhookSpec {
    fn ends(&self) -> Ends {
        Ends { takes: &[PayloadKind::Bytes, PayloadKind::Json], gives: Gives::Nothing }
    }

    // One event at a time (the default): a call that fails must not repeat the calls beside it.

    fn needs(&self) -> Vec<Need> {
        vec![Need::of::<dyn Caller>()]
    }

    fn build(&self, services: &Services) -> Result<Box<dyn Operator>, BoxError> {
        let caller = services.get::<dyn Caller>()?;
        Ok(Box::new(Deliver { caller }))
    }
}

/// Shares the caller with every other instance.
struct Deliver {
    caller: Arc<dyn Caller>,
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

/// The call that an event asks for; `None` for a failure that nobody wants to hear of.
fn call_of(event: &Event) -> Result<Option<Call>, Rejection> {
    let envelope = &event.envelope;
    let webhook: Webhook = param(envelope, WEBHOOK_PARAM)?.ok_or_else(|| {
        let detail = format!("parameter {WEBHOOK_PARAM:?} is missing, it names who gets the result");
        Rejection::new(400, "missing_parameter", detail)
    })?;
    let request = webhook.request.or_else(|| envelope.request.clone()).unwrap_or_else(|| envelope.id.clone());
    let about = |method, url, file_name, media_type, body| Call {
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
        let file_name = format!("{request}.{}", extension(&media_type));
        return Ok(Some(about(webhook.method, webhook.url, Some(file_name), media_type, body)));
    };
    let text = json!({"status": why.status, "message": why.detail, "code": why.code}).to_string();
    let told = |url| about(webhook.error_method, url, None, "application/json".into(), text.into());
    Ok(webhook.error_url.map(told))
}

/// A parameter that is an object of its own; `None` where it is missing.
fn param<T: DeserializeOwned>(envelope: &Envelope, name: &str) -> Result<Option<T>, Rejection> {
    let Some(value) = envelope.params.get(name) else { return Ok(None) };
    let read = T::deserialize(value);
    read.map(Some).map_err(|why| Rejection::new(400, "bad_parameter", format!("parameter {name:?}: {why}")))
}

/// The result's type and bytes.
fn result_of(payload: &Payload) -> Result<(String, Bytes), Rejection> {
    match payload {
        Payload::Json(value) => Ok(("application/json".into(), value.to_string().into())),
        Payload::Bytes(Content { media_type, body: Body::Inline(bytes) }) => {
            Ok((media_type.to_string(), bytes.clone()))
        }
        // The engine fetches what travels as a claim before the stage runs.
        Payload::Bytes(_) => Err(Rejection::internal("the result was not fetched")),
        other => {
            let detail = format!("a webhook takes bytes or json, not {}", other.kind());
            Err(Rejection::unsupported("payload_kind", detail))
        }
    }
}

/// The usual extension of a file of this type.
fn extension(media_type: &str) -> &'static str {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let document = || Format::ALL.into_iter().find(|format| format.media_type() == essence).map(Format::extension);
    match essence.as_str() {
        "application/json" => "json",
        "application/zip" => "zip",
        "image/jpeg" => "jpg",
        _ => document().unwrap_or("bin"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::{image_of_colour, vector};
    use pipeline::Params;
    use pipeline::testing::{Ran, run, run_events};
    use pipeline::webhook::Method;
    use serde_json::Value;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    /// Takes every call and keeps it; addresses say what else it does: `busy` fails, `gone` refuses.
    #[derive(Default)]
    struct CallerThatProvokes {
        calls: Mutex<Vec<Call>>,
    }

    #[async_trait]
    impl Caller for CallerThatProvokes {
        fn check_url(&self, _: &str) -> Result<(), Rejection> {
            Ok(())
        }

        fn check_headers(&self, _: &BTreeMap<String, String>) -> Result<(), Rejection> {
            Ok(())
        }

        async fn call(&self, call: Call) -> Result<(), CallError> {
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

    async fn deliver(events: Vec<(Params, Payload)>) -> (Ran, Vec<Call>) {
        let caller = Arc::new(CallerThatProvokes::default());
        let services = Services::default().offer::<dyn Caller>(caller.clone());
        let ran = run_events(WebhookSpec {}.build(&services).unwrap().as_mut(), events).await;
        let calls = std::mem::take(&mut *caller.calls.lock().unwrap());
        (ran, calls)
    }

    fn to(url: &str) -> Params {
        params(json!({"url": url}), None)
    }

    #[tokio::test]
    async fn a_result_goes_to_its_address_as_a_file() {
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
    async fn a_failure_goes_to_the_other_address_or_to_nobody() {
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
    async fn a_receiver_that_refuses_costs_its_event_and_one_that_is_busy_brings_it_back() {
        let events = vec![(to("https://gone.example/"), pdf()), (to("https://a.example/"), pdf())];
        let (ran, calls) = deliver(events).await;
        assert!(ran.fault.is_none() && calls.len() == 2);
        assert_eq!(ran.rejected.len(), 1);
        assert_eq!((ran.rejected[0].0, &*ran.rejected[0].1.code), (0, "webhook_refused"));
        let (ran, _) = deliver(vec![(to("https://busy.example/"), pdf())]).await;
        assert!(matches!(ran.fault, Some(Fault::Retry(_))) && ran.rejected.is_empty());
    }

    #[tokio::test]
    async fn a_repeat_is_the_same_call() {
        let caller = Arc::new(CallerThatProvokes::default());
        let services = Services::default().offer::<dyn Caller>(caller.clone());
        let mut operator = WebhookSpec {}.build(&services).unwrap();
        for _ in 0..2 {
            run(operator.as_mut(), to("https://a.example/"), vec![pdf()]).await;
        }
        let calls = caller.calls.lock().unwrap();
        assert_eq!((calls[0].request.as_str(), &calls[0].body), (calls[1].request.as_str(), &calls[1].body));
    }

    #[tokio::test]
    async fn what_names_no_receiver_is_refused_and_calls_nobody() {
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
    fn a_file_has_the_extension_of_its_type() {
        for (media_type, expected) in [
            ("application/pdf", "pdf"),
            ("Text/HTML; charset=utf-8", "html"),
            ("application/zip", "zip"),
            ("application/vnd.oasis.opendocument.text", "odt"),
            ("application/x-unknown", "bin"),
            ("", "bin"),
        ] {
            assert_eq!(extension(media_type), expected, "{media_type}");
        }
    }

    #[test]
    fn it_is_not_built_without_somebody_who_calls() {
        assert!(WebhookSpec {}.build(&Services::default()).is_err());
    }
}
