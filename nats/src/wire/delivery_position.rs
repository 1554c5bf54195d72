//! What the reply subject of a delivered message says, and what is answered on it.

use std::time::Duration;

use bytes::Bytes;

/// Where a message stands, parsed from `$JS.ACK.…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Deliveries of this message so far, this one included.
    pub delivered: u64,
    /// Position in the stream.
    pub stream_sequence: u64,
    /// Position among the deliveries of the consumer.
    pub consumer_sequence: u64,
    /// Messages the consumer has not delivered yet.
    pub pending: u64,
}

impl Position {
    /// Reads a reply subject, of either form: 9 tokens, or 11 and more with domain and account.
    pub fn parse(reply: &str) -> Option<Self> {
        let numbers = reply.strip_prefix("$JS.ACK.")?;
        // Stream and consumer come before the numbers; the newer form has domain and account before them.
        let names = if numbers.split('.').count() >= 9 { 4 } else { 2 };
        let mut numbers = numbers.split('.').skip(names).map(str::parse);
        let mut number = || numbers.next()?.ok();
        let (delivered, stream_sequence, consumer_sequence) = (number()?, number()?, number()?);
        let _time = number()?;
        Some(Self { delivered, stream_sequence, consumer_sequence, pending: number()? })
    }
}

/// Forget the message.
pub const ACK: Bytes = Bytes::from_static(b"+ACK");
/// The message is still being worked on: its clock starts anew.
pub const PROGRESS: Bytes = Bytes::from_static(b"+WPI");
/// Deliver the message again at once.
pub const NAK: Bytes = Bytes::from_static(b"-NAK");

/// Deliver the message again after `delay`. The broker passes over the reason; whoever watches the words to it does not.
pub fn nak_after(delay: Duration, reason: &str) -> Bytes {
    serde_json::json!({ "delay": delay.as_nanos() as u64, "reason": reason })
        .to_string()
        .replacen('{', "-NAK {", 1)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let position = Position { delivered: 2, stream_sequence: 30, consumer_sequence: 4, pending: 5 };
        assert_eq!(Position::parse("$JS.ACK.EV-f.bulk.2.30.4.1700000000.5"), Some(position));
        assert_eq!(Position::parse("$JS.ACK.hub.hash.EV-f.bulk.2.30.4.1700000000.5"), Some(position));
        assert_eq!(Position::parse("$JS.ACK.hub.hash.EV-f.bulk.2.30.4.1700000000.5.random"), Some(position));
        assert_eq!(Position::parse("$JS.ACK.EV-f.bulk.x.30.4.1.5"), None);
        assert_eq!(Position::parse("_INBOX.1"), None);
    }

    #[test]
    fn a_delay_is_in_nanoseconds() {
        assert_eq!(
            nak_after(Duration::from_millis(2), "stage \"x\""),
            r#"-NAK {"delay":2000000,"reason":"stage \"x\""}"#
        );
    }
}
