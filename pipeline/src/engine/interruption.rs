//! An interruption of something that is read from the broker: says when to log its beginning and its end, each once.

use std::time::Duration;

use tokio::time::Instant;

/// Whether a reading works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interruption {
    /// It works, or has not been tried yet.
    #[default]
    None,
    /// It has failed since then.
    Since(Instant),
}

impl Interruption {
    /// An attempt failed; whether it is the first one.
    pub fn begin(&mut self, now: Instant) -> bool {
        let begins = *self == Self::None;
        if begins {
            *self = Self::Since(now);
        }
        begins
    }

    /// An attempt succeeded; how long the interruption lasted, if there was one.
    pub fn end(&mut self, now: Instant) -> Option<Duration> {
        match std::mem::take(self) {
            Self::None => None,
            Self::Since(since) => Some(now - since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_failure_begins_it() {
        let (mut interruption, now) = (Interruption::default(), Instant::now());
        assert!(interruption.begin(now));
        assert!(!interruption.begin(now + Duration::from_secs(1)));
    }

    #[test]
    fn its_end_tells_how_long_it_lasted_once() {
        let (mut interruption, now) = (Interruption::default(), Instant::now());
        interruption.begin(now);
        interruption.begin(now + Duration::from_secs(1));
        assert_eq!(interruption.end(now + Duration::from_secs(2)), Some(Duration::from_secs(2)));
        assert_eq!(interruption.end(now + Duration::from_secs(3)), None);
    }

    #[test]
    fn a_success_without_a_failure_ends_nothing() {
        assert_eq!(Interruption::default().end(Instant::now()), None);
    }
}
