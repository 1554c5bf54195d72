//! Computes `Retry-After` of a flow that is full: the time until its backlog is worked off, and a random part more, so
//! that clients that were refused together do not come back together. (`door/rate_limit.rs` has the one of rate limits.)

/// Seconds if nothing better is known.
pub const DEFAULT: u64 = 5;

/// Bounds in seconds: some clients ignore values above 60.
const BOUNDS: std::ops::RangeInclusive<u64> = 1..=60;

/// Seconds for a flow whose backlog has not moved for as long as the rate looks back.
const STALLED: f64 = 30.0;

/// The random part is at most this share of the wait.
const SPREAD: f64 = 0.25;

/// Seconds until a flow with this many waiting events has worked them off, at a rate in events per second: `None` if it
/// is unknown, 0 while the backlog does not move.
pub fn seconds(waiting: u64, rate: Option<f64>) -> u64 {
    spread(until_drained(waiting, rate), rand::random())
}

fn until_drained(waiting: u64, rate: Option<f64>) -> f64 {
    match rate {
        Some(rate) if rate > 0.0 => waiting as f64 / rate,
        Some(_) => STALLED,
        None => DEFAULT as f64,
    }
}

/// `random` is from 0 to 1.
fn spread(seconds: f64, random: f64) -> u64 {
    let spread = seconds * (1.0 + SPREAD * random);
    (spread.ceil() as u64).clamp(*BOUNDS.start(), *BOUNDS.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_time_in_which_the_backlog_drains() {
        assert_eq!(until_drained(100, Some(10.0)), 10.0);
    }

    #[test]
    fn a_backlog_that_does_not_move_has_a_fixed_pause() {
        assert_eq!(until_drained(100, Some(0.0)), STALLED);
    }

    #[test]
    fn an_unknown_rate_has_the_default() {
        assert_eq!(until_drained(100, None), DEFAULT as f64);
    }

    #[test]
    fn clients_are_spread_over_a_quarter_of_the_wait() {
        assert_eq!((spread(20.0, 0.0), spread(20.0, 1.0)), (20, 25));
    }

    #[test]
    fn it_stays_within_what_clients_heed() {
        assert_eq!((spread(0.01, 0.0), spread(86_400.0, 0.0)), (1, 60));
    }
}
