//! `use = "respond"`: sends the payload to the client as the response of the request.
//!
//! JSON is sent unchanged, bytes with their media type, a vector as `{"embedding", "dim", "model"}`. Images are
//! rejected: a stage before this one must encode them to bytes.

use async_trait::async_trait;
use pipeline::{
    Batching, BoxError, Content, Emits, Event, Fault, Operator, OperatorKind, OperatorSpec, Output, Payload,
    PayloadKind, Services, StageTypes, take_kind,
};
use serde::Deserialize;

use super::vector_json::vector_content;

/// `use = "respond"`.
pub const KIND: OperatorKind =
    OperatorKind::of::<RespondSpec>("respond", "sends the payload as the response of the request");

/// A response takes a few microseconds, so batches only save wake-ups.
const DEFAULT_BATCH: usize = 64;

/// The keys of a `respond` stage: none.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RespondSpec {}

impl OperatorSpec for RespondSpec {
    fn types(&self) -> StageTypes {
        StageTypes { takes: &[PayloadKind::Bytes, PayloadKind::Json, PayloadKind::Vector], gives: Emits::Nothing }
    }

    fn batching(&self) -> Batching {
        Batching::greedy(DEFAULT_BATCH)
    }

    fn answers(&self) -> bool {
        true
    }

    fn build(&self, _: &Services) -> Result<Box<dyn Operator>, BoxError> {
        Ok(Box::new(Respond))
    }
}

struct Respond;

#[async_trait]
impl Operator for Respond {
    async fn process(&mut self, batch: Vec<Event>, out: &mut Output) -> Result<(), Fault> {
        for (event, content) in take_kind(batch, out, content_of) {
            out.respond(&event, content);
        }
        Ok(())
    }
}

/// The payload as the client receives it; `None` for kinds that cannot be sent.
fn content_of(payload: &Payload) -> Option<Content> {
    match payload {
        Payload::Bytes(content) => Some(content.clone()),
        Payload::Json(value) => Some(Content::json(value)),
        Payload::Vector(vector) => Some(vector_content(vector)),
        Payload::Image(_) | Payload::Parts(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_doubles::{image_of_colour, vector};
    use pipeline::testing::run;
    use pipeline::{Body, Params};
    use serde_json::json;
    use std::sync::Arc;

    fn text(content: &Content) -> &str {
        let Body::Inline(bytes) = &content.body else { panic!("{content:?}") };
        std::str::from_utf8(bytes).unwrap()
    }

    async fn answers(payloads: Vec<Payload>) -> pipeline::testing::ProbeResult {
        let mut operator = RespondSpec {}.build(&Services::default()).unwrap();
        run(operator.as_mut(), Params::new(), payloads).await
    }

    #[tokio::test]
    async fn json_and_bytes_are_sent_unchanged() {
        let pdf = Payload::Bytes(Content::inline("application/pdf", "%PDF-"));
        let ran = answers(vec![Payload::json(json!({"indexed": true})), pdf]).await;
        let sent: Vec<_> = ran.responded.iter().map(|(_, content)| (&*content.media_type, text(content))).collect();
        assert_eq!(sent, [("application/json", r#"{"indexed":true}"#), ("application/pdf", "%PDF-")]);
    }

    #[tokio::test]
    async fn the_numbers_of_a_vector_are_short_and_read_back_the_same() {
        let values = [0.1_f32, -1.0 / 3.0, 1e-9, 0.0];
        let ran = answers(vec![Payload::Vector(Arc::new(vector(&values)))]).await;
        let answer = text(&ran.responded[0].1);
        assert!(answer.starts_with(r#"{"embedding":[0.1,-0.33333334,"#), "{answer}");
        assert!(answer.ends_with(r#"],"dim":4,"model":"photo"}"#), "{answer}");
        let parsed: serde_json::Value = serde_json::from_str(answer).unwrap();
        let back: Vec<f32> = serde_json::from_value(parsed["embedding"].clone()).unwrap();
        assert_eq!(back, values);
    }

    #[tokio::test]
    async fn an_image_is_rejected() {
        let ran = answers(vec![Payload::Image(Arc::new(image_of_colour([1, 2, 3])))]).await;
        assert!(ran.responded.is_empty());
        assert_eq!(ran.rejected[0].1.status, 415);
        assert!(!RespondSpec {}.types().takes.contains(&PayloadKind::Image));
    }
}
