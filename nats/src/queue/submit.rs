//! Stores an event in the queue of its flow.

use pipeline::{Envelope, Submission, SubmitAck, Token, TransportError};

use crate::link::broker::Broker;
use crate::link::publish::{OutgoingMessage, PublishFailure, admit, publish};
use crate::wire::cloud_event;
use crate::wire::payload;
use crate::wire::subjects;

/// Stores an event. Events with the same id within ten minutes are stored once.
pub async fn submit(broker: &Broker, submission: Submission) -> Result<SubmitAck, TransportError> {
    let envelope = &submission.envelope;
    let flow = broker.flow(&envelope.flow)?;
    let refused = |failure: PublishFailure| failure.of_flow(&envelope.flow);
    admit(broker, flow.stream()).map_err(refused)?;
    if envelope.request.is_some() {
        // Its result could not be stored.
        admit(broker, subjects::RESULTS).map_err(refused)?;
    }
    let subject = match &flow.topology.order_by {
        None => flow.subject(envelope.lane).clone(),
        Some(parameter) => subjects::keyed_subject(&flow.name, envelope.lane, &order_key(envelope, parameter)),
    };
    let encoded = payload::encode(&submission.payload)?;
    let build = || {
        let headers = cloud_event::encode_headers(envelope, &encoded)?;
        Ok(OutgoingMessage { subject: subject.clone(), headers, payload: encoded.bytes.clone() })
    };
    match publish(broker, &broker.publishing, build).await {
        // If our first send was not confirmed, the duplicate that the broker reports may be that one.
        Ok(confirmation) if confirmation.duplicate && !confirmation.repeated => Ok(SubmitAck::Duplicate),
        Ok(_) => Ok(SubmitAck::Stored),
        Err(failure) => Err(refused(failure)),
    }
}

/// The value of the ordering parameter as a subject token; a digest if the value is not a valid token. An event without
/// the parameter has its own id as key.
fn order_key(envelope: &Envelope, parameter: &str) -> Token {
    let text = match envelope.params.get(parameter) {
        None => return envelope.id.clone(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let digest = |_| Token::new("key").unwrap_or_else(|_| Token::random()).child(&text, 0);
    Token::new(&text).unwrap_or_else(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::FlowName;

    fn key_of(value: serde_json::Value) -> Token {
        let mut envelope = Envelope::new(FlowName::new("f").unwrap(), Token::new("e1").unwrap());
        envelope.params.insert("device".into(), value);
        order_key(&envelope, "device")
    }

    #[test]
    fn a_value_that_is_a_token_is_the_key() {
        assert_eq!(key_of("camera-1".into()).as_str(), "camera-1");
    }

    #[test]
    fn a_number_is_its_own_key() {
        assert_eq!(key_of(7.into()).as_str(), "7");
    }

    #[test]
    fn a_value_that_is_not_a_token_has_always_the_same_digest() {
        assert_eq!(key_of("b c".into()), key_of("b c".into()));
        assert_ne!(key_of("b c".into()), key_of("b d".into()));
    }

    #[test]
    fn a_value_with_a_wildcard_does_not_reach_the_subject() {
        assert!(!key_of(">".into()).as_str().contains('>'));
    }

    #[test]
    fn an_event_without_the_parameter_is_ordered_by_its_id() {
        let envelope = Envelope::new(FlowName::new("f").unwrap(), Token::new("e1").unwrap());
        assert_eq!(order_key(&envelope, "device"), envelope.id);
    }
}
