//! Rate limits per client: a token bucket (GCRA) for each peer address of each route that declares one.
//!
//! The key is the peer's IP address, IPv6 by its /64, since a client owns all of one. At most [`MAX_KEYS`] addresses are
//! remembered; when all of them are busy, newcomers share one bucket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Duration;

use axum::http::StatusCode;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use crate::problem::Problem;
use crate::spec::Rate;

/// Addresses remembered per route.
const MAX_KEYS: usize = 16_384;

/// Least time between two sweeps of the remembered addresses.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// The bucket of clients for which there is no room.
const OVERFLOW: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The limit of one route.
pub struct ClientLimit {
    rate: Rate,
    clock: DefaultClock,
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    max_keys: usize,
    swept: Mutex<Option<Instant>>,
}

impl ClientLimit {
    pub fn new(rate: Rate) -> Self {
        Self::bounded(rate, MAX_KEYS)
    }

    fn bounded(rate: Rate, max_keys: usize) -> Self {
        let between = (rate.period / rate.count.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(between).expect("a period above zero").allow_burst(rate.count);
        let clock = DefaultClock::default();
        Self { rate, limiter: RateLimiter::keyed(quota), clock, max_keys, swept: Mutex::new(None) }
    }

    /// Counts one request of `peer`.
    ///
    /// # Errors
    /// 429 with the seconds until the next one is free.
    pub fn admit(&self, peer: IpAddr) -> Result<(), Problem> {
        let Err(refusal) = self.limiter.check_key(&self.key(peer)) else { return Ok(()) };
        let wait = refusal.wait_time_from(self.clock.now()).as_secs_f64().ceil().max(1.0) as u64;
        let detail = format!(
            "at most {} requests per {} s are taken from one client",
            self.rate.count,
            self.rate.period.as_secs()
        );
        Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).with_retry_after(wait))
    }

    fn key(&self, peer: IpAddr) -> IpAddr {
        let key = network_of(peer);
        if self.limiter.len() < self.max_keys {
            return key;
        }
        self.sweep();
        if self.limiter.len() < self.max_keys { key } else { OVERFLOW }
    }

    /// Forgets clients whose bucket is full again. Costs a walk over all of them, hence seldom.
    fn sweep(&self) {
        let Ok(mut swept) = self.swept.try_lock() else { return };
        if swept.is_none_or(|at| at.elapsed() >= SWEEP_PERIOD) {
            self.limiter.retain_recent();
            *swept = Some(Instant::now());
        }
    }
}

/// The part of an address that one client cannot change at will.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(max_keys: usize) -> ClientLimit {
        ClientLimit::bounded("2/hour".parse().unwrap(), max_keys)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_client_has_its_own_bucket_and_an_ipv6_network_is_one_client() {
        let limit = limit(100);
        for address in ["2001:db8::1", "2001:db8::2"] {
            limit.admit(ip(address)).unwrap();
        }
        assert_eq!(limit.admit(ip("2001:db8::ffff:1")).unwrap_err().status().as_u16(), 429);
        limit.admit(ip("2001:db8:0:1::1")).unwrap();
        limit.admit(ip("10.0.0.1")).unwrap();
        limit.admit(ip("::ffff:10.0.0.1")).unwrap();
        assert!(limit.admit(ip("10.0.0.1")).is_err());
    }

    #[test]
    fn the_memory_of_clients_is_bounded() {
        let limit = limit(3);
        let admitted = (0..100).filter(|i| limit.admit(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + i))).is_ok()).count();
        assert_eq!(admitted, 3 + 2, "three buckets of their own, and one for the others");
        assert!(limit.limiter.len() <= 4);
    }
}
