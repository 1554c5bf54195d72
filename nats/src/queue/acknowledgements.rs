//! The messages by which a worker answers a delivery: acknowledgement, progress, negative acknowledgement.

use std::time::Duration;

use bytes::Bytes;

/// The event has ended: remove it from the queue.
pub const ACK: Bytes = Bytes::from_static(b"+ACK");
/// The event is still being worked on: restart its `ack_wait`.
pub const PROGRESS: Bytes = Bytes::from_static(b"+WPI");
/// Redeliver the event at once.
pub const NAK: Bytes = Bytes::from_static(b"-NAK");

/// Redeliver the event after `delay`. The broker ignores the reason; it is for people who watch these messages.
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
    fn a_delay_is_in_nanoseconds() {
        assert_eq!(
            nak_after(Duration::from_millis(2), "stage \"x\""),
            r#"-NAK {"delay":2000000,"reason":"stage \"x\""}"#
        );
    }
}
