//! Rate limits per client and class: a token bucket (GCRA) for each.
//!
//! A client is an authenticated caller, else an address. Each class has at most [`MAX_KEYS`] buckets; when all of them
//! are in use, new clients share one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use crate::identity::caller::{Caller, Client};
use crate::problem::Problem;
use crate::spec::{AUTH, LimitsSpec, Rate, RateClasses};

/// Clients with a bucket of their own, per class.
const MAX_KEYS: usize = 16_384;

/// Least time between two sweeps of the buckets.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// The shared bucket of clients for which there is no room.
const OVERFLOW: Client = Client::Network(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

type Limiter = RateLimiter<Client, DefaultKeyedStateStore<Client>, DefaultClock, StateInformationMiddleware>;

/// The limit of one class, or of one route.
pub struct ClientLimit {
    name: String,
    rate: Rate,
    clock: DefaultClock,
    limiter: Limiter,
    max_keys: usize,
    swept: Mutex<Option<Instant>>,
}

/// The rate-limit headers of an answer: what is left to its client.
#[derive(Clone, Debug)]
pub struct RateLimitHeaders {
    policy: String,
    left: String,
}

impl RateLimitHeaders {
    /// Writes `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers).
    pub fn write(&self, headers: &mut HeaderMap) {
        for (name, value) in [("ratelimit-policy", &self.policy), ("ratelimit", &self.left)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

impl ClientLimit {
    pub fn new(name: &str, rate: Rate) -> Self {
        Self::bounded(name, rate, MAX_KEYS)
    }

    fn bounded(name: &str, rate: Rate, max_keys: usize) -> Self {
        let between = (rate.period / rate.count.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(between).expect("a period above zero").allow_burst(rate.count);
        let limiter = RateLimiter::keyed(quota).with_middleware::<StateInformationMiddleware>();
        Self { name: name.to_owned(), rate, limiter, clock: DefaultClock::default(), max_keys, swept: Mutex::new(None) }
    }

    /// Counts one request of a client.
    ///
    /// # Errors
    /// 429 with the seconds until the next request is free; the headers come with it.
    pub fn admit(&self, client: Client) -> (RateLimitHeaders, Result<(), Problem>) {
        match self.limiter.check_key(&self.key(client)) {
            Ok(snapshot) => (self.headers(snapshot.remaining_burst_capacity(), None), Ok(())),
            Err(refusal) => {
                let wait = refusal.wait_time_from(self.clock.now()).as_secs_f64().ceil().max(1.0) as u64;
                (self.headers(0, Some(wait)), Err(self.refusal(wait)))
            }
        }
    }

    fn refusal(&self, wait: u64) -> Problem {
        let (count, seconds) = (self.rate.count, self.rate.period.as_secs());
        let detail = format!("a client may send at most {count} requests per {seconds} s ({})", self.name);
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).with_retry_after(wait)
    }

    /// `wait` is the time until the next request is free; without it, the time until all are free is given.
    fn headers(&self, left: u32, wait: Option<u64>) -> RateLimitHeaders {
        let (name, count, period) = (&self.name, self.rate.count.get(), self.rate.period);
        let used = count.saturating_sub(left);
        let full = || (period.as_secs_f64() * f64::from(used) / f64::from(count)).ceil() as u64;
        let reset = wait.unwrap_or_else(full);
        let policy = format!("\"{name}\";q={count};w={}", period.as_secs());
        RateLimitHeaders { policy, left: format!("\"{name}\";r={left};t={reset}") }
    }

    fn key(&self, client: Client) -> Client {
        if self.limiter.len() < self.max_keys {
            return client;
        }
        self.sweep();
        if self.limiter.len() < self.max_keys { client } else { OVERFLOW }
    }

    /// Drops buckets that are full again. Walks over all of them, hence rarely.
    pub fn sweep(&self) {
        let Ok(mut swept) = self.swept.try_lock() else { return };
        if swept.is_none_or(|at| at.elapsed() >= SWEEP_PERIOD) {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
            *swept = Some(Instant::now());
        }
    }
}

/// Handles a request within its route's limit, and writes the limit's headers to the answer.
pub async fn limited<F>(limit: Option<Arc<ClientLimit>>, caller: Caller, handle: impl FnOnce(Caller) -> F) -> Response
where
    F: Future<Output = Result<Response, Problem>>,
{
    let Some(limit) = limit else { return handle(caller).await.into_response() };
    let (headers, admitted) = limit.admit(caller.client());
    let answered = match admitted {
        Ok(()) => handle(caller).await,
        Err(problem) => Err(problem),
    };
    let mut response = answered.into_response();
    headers.write(response.headers_mut());
    response
}

/// All rate limits that routes share.
pub struct RateLimits {
    classes: HashMap<String, Arc<ClientLimit>>,
    /// Failed authentications, by address.
    pub failures: ClientLimit,
}

impl RateLimits {
    pub fn new(limits: &LimitsSpec) -> Self {
        let classes = limits.classes.iter();
        let classes = classes.map(|(name, rate)| (name.to_owned(), Arc::new(ClientLimit::new(name, rate))));
        let failures = limits.classes.rate(AUTH).or_else(|| RateClasses::default().rate(AUTH));
        let failures = ClientLimit::new(AUTH, failures.expect("the class is built in"));
        Self { classes: classes.collect(), failures }
    }

    /// The limit of a class; every class that a checked config names has one.
    pub fn of_class(&self, class: &str) -> Option<Arc<ClientLimit>> {
        self.classes.get(class).cloned()
    }

    /// Drops buckets that are full again.
    pub fn sweep(&self) {
        self.classes.values().for_each(|limit| limit.sweep());
        self.failures.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(max_keys: usize) -> ClientLimit {
        ClientLimit::bounded("test", "2/hour".parse().unwrap(), max_keys)
    }

    fn client(text: &str) -> Client {
        Client::of_address(text.parse().unwrap())
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let limit = limit(100);
        let admit = |address: &str| limit.admit(client(address)).1;
        for address in ["2001:db8::1", "2001:db8::2"] {
            admit(address).unwrap();
        }
        assert_eq!(admit("2001:db8::ffff:1").unwrap_err().status().as_u16(), 429);
        admit("2001:db8:0:1::1").unwrap();
    }

    #[test]
    fn each_ipv4_address_has_its_own_bucket_in_either_notation() {
        let limit = limit(100);
        let admit = |address: &str| limit.admit(client(address)).1;
        admit("10.0.0.1").unwrap();
        admit("::ffff:10.0.0.1").unwrap();
        assert!(admit("10.0.0.1").is_err());
        admit("10.0.0.2").unwrap();
    }

    #[test]
    fn the_headers_say_what_is_left() {
        let limit = limit(100);
        let shown = |(headers, _): (RateLimitHeaders, _)| format!("{} {}", headers.policy, headers.left);
        assert_eq!(shown(limit.admit(client("10.0.0.1"))), "\"test\";q=2;w=3600 \"test\";r=1;t=1800");
        assert_eq!(shown(limit.admit(client("10.0.0.1"))), "\"test\";q=2;w=3600 \"test\";r=0;t=3600");
        assert_eq!(shown(limit.admit(client("10.0.0.1"))), "\"test\";q=2;w=3600 \"test\";r=0;t=1800");
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let limit = limit(3);
        let address = |i: u32| Client::of_address(Ipv4Addr::from(0x0a00_0000 + i).into());
        let admitted = (0..100).filter(|i| limit.admit(address(*i)).1.is_ok()).count();
        assert_eq!(admitted, 3 + 2, "three buckets of their own, and one for the others");
        assert!(limit.limiter.len() <= 4);
    }
}
