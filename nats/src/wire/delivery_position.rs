//! Delivery count and sequence numbers of a delivered message, parsed from its reply subject `$JS.ACK.…`.

/// Counters that the broker puts into the reply subject of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryPosition {
    /// Deliveries of this message so far, this one included.
    pub delivered: u64,
    /// Position in the stream.
    pub stream_sequence: u64,
    /// Position among the deliveries of the consumer.
    pub consumer_sequence: u64,
    /// Messages the consumer has not delivered yet.
    pub pending: u64,
}

impl DeliveryPosition {
    /// Parses a reply subject in either form: 9 tokens, or 11 and more with domain and account.
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

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: DeliveryPosition =
        DeliveryPosition { delivered: 2, stream_sequence: 30, consumer_sequence: 4, pending: 5 };

    #[test]
    fn the_short_form_is_parsed() {
        assert_eq!(DeliveryPosition::parse("$JS.ACK.EV-f.bulk.2.30.4.1700000000.5"), Some(POSITION));
    }

    #[test]
    fn the_form_with_domain_and_account_is_parsed() {
        assert_eq!(DeliveryPosition::parse("$JS.ACK.hub.hash.EV-f.bulk.2.30.4.1700000000.5"), Some(POSITION));
    }

    #[test]
    fn a_further_token_at_the_end_is_ignored() {
        assert_eq!(DeliveryPosition::parse("$JS.ACK.hub.hash.EV-f.bulk.2.30.4.1700000000.5.random"), Some(POSITION));
    }

    #[test]
    fn a_count_that_is_no_number_is_refused() {
        assert_eq!(DeliveryPosition::parse("$JS.ACK.EV-f.bulk.x.30.4.1.5"), None);
    }

    #[test]
    fn a_reply_with_too_few_numbers_is_refused() {
        assert_eq!(DeliveryPosition::parse("$JS.ACK.EV-f.bulk.2.30.4.1700000000"), None);
    }

    #[test]
    fn an_inbox_is_not_a_delivery() {
        assert_eq!(DeliveryPosition::parse("_INBOX.1"), None);
    }
}
