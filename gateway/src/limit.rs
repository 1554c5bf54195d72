//! Rate limits per client and class: a token bucket (GCRA) for each.
//!
//! A client is whoever was let in, else an address. At most [`MAX_KEYS`] are remembered for each class; when all of them
//! are busy, newcomers share one bucket.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
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
use crate::spec::{Classes, Rate};

/// Clients remembered per class.
const MAX_KEYS: usize = 16_384;

/// Least time between two sweeps of the remembered clients.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);

/// The bucket of clients for which there is no room.
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

/// What is left to a client, for the headers of the answer.
#[derive(Clone, Debug)]
pub struct Allowed {
    policy: String,
    left: String,
}

impl Allowed {
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
    /// What is left, which is nothing, and 429 with the seconds until the next one is free.
    pub fn admit(&self, client: Client) -> (Allowed, Result<(), Problem>) {
        match self.limiter.check_key(&self.key(client)) {
            Ok(snapshot) => (self.allowed(snapshot.remaining_burst_capacity(), None), Ok(())),
            Err(refusal) => {
                let wait = refusal.wait_time_from(self.clock.now()).as_secs_f64().ceil().max(1.0) as u64;
                (self.allowed(0, Some(wait)), Err(self.refusal(wait)))
            }
        }
    }

    fn refusal(&self, wait: u64) -> Problem {
        let (count, seconds) = (self.rate.count, self.rate.period.as_secs());
        let detail = format!("at most {count} requests per {seconds} s are taken from one client ({})", self.name);
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).with_retry_after(wait)
    }

    /// `wait` is until the next request is free; without it, the time until all are is given.
    fn allowed(&self, left: u32, wait: Option<u64>) -> Allowed {
        let (name, count, period) = (&self.name, self.rate.count.get(), self.rate.period);
        let used = count.saturating_sub(left);
        let full = || (period.as_secs_f64() * f64::from(used) / f64::from(count)).ceil() as u64;
        let reset = wait.unwrap_or_else(full);
        let policy = format!("\"{name}\";q={count};w={}", period.as_secs());
        Allowed { policy, left: format!("\"{name}\";r={left};t={reset}") }
    }

    fn key(&self, client: Client) -> Client {
        if self.limiter.len() < self.max_keys {
            return client;
        }
        self.sweep();
        if self.limiter.len() < self.max_keys { client } else { OVERFLOW }
    }

    /// Forgets clients whose bucket is full again. Costs a walk over all of them, hence seldom.
    pub fn sweep(&self) {
        let Ok(mut swept) = self.swept.try_lock() else { return };
        if swept.is_none_or(|at| at.elapsed() >= SWEEP_PERIOD) {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
            *swept = Some(Instant::now());
        }
    }
}

/// Answers a request within its route's limit.
pub async fn limited<F>(limit: Option<Arc<ClientLimit>>, caller: Caller, handle: impl FnOnce(Caller) -> F) -> Response
where
    F: Future<Output = Result<Response, Problem>>,
{
    let Some(limit) = limit else { return handle(caller).await.into_response() };
    let (allowed, admitted) = limit.admit(caller.client());
    let answered = match admitted {
        Ok(()) => handle(caller).await,
        Err(problem) => Err(problem),
    };
    let mut response = answered.into_response();
    allowed.write(response.headers_mut());
    response
}

/// The limits of the classes.
pub struct ClassLimits(HashMap<String, Arc<ClientLimit>>);

impl ClassLimits {
    pub fn new(classes: &Classes) -> Self {
        Self(classes.iter().map(|(name, rate)| (name.to_owned(), Arc::new(ClientLimit::new(name, rate)))).collect())
    }

    /// The limit of a class; every class that a checked config names has one.
    pub fn of(&self, class: &str) -> Option<Arc<ClientLimit>> {
        self.0.get(class).cloned()
    }

    /// Forgets clients that rest.
    pub fn sweep(&self) {
        self.0.values().for_each(|limit| limit.sweep());
    }
}

/// How many streams, or connections, each client has open, so that one cannot have them all.
#[derive(Default)]
pub struct Counts {
    open: Mutex<HashMap<Client, usize>>,
}

/// What a client has open; counted for as long as this is held.
pub struct Counted {
    counts: Arc<Counts>,
    clients: Vec<Client>,
}

impl Counts {
    /// Counts a stream for each of the given clients, or for none if one of them has too many.
    ///
    /// # Errors
    /// 429 naming the limit.
    pub fn open(self: &Arc<Self>, clients: Vec<(Client, usize)>) -> Result<Counted, Problem> {
        self.count(clients).map_err(|most| {
            let detail = format!("at most {most} event streams are open at once for one client: close one first");
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", detail)
                .with_retry_after(crate::problem::DEFAULT_RETRY_AFTER)
        })
    }

    /// Counts one more for each of the given clients, each with its limit, or for none.
    ///
    /// # Errors
    /// The limit of a client that has so many.
    pub fn count(self: &Arc<Self>, clients: Vec<(Client, usize)>) -> Result<Counted, usize> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (client, most) in &clients {
            if open.get(client).copied().unwrap_or_default() >= *most {
                return Err(*most);
            }
        }
        let clients: Vec<Client> = clients.into_iter().map(|(client, _)| client).collect();
        for client in &clients {
            *open.entry(*client).or_default() += 1;
        }
        Ok(Counted { counts: Arc::clone(self), clients })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.counts.open.lock().unwrap_or_else(PoisonError::into_inner);
        for client in &self.clients {
            if let Some(count) = open.get_mut(client) {
                *count -= 1;
                if *count == 0 {
                    open.remove(client);
                }
            }
        }
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
    fn each_client_has_its_own_bucket_and_an_ipv6_network_is_one_client() {
        let limit = limit(100);
        let admit = |address: &str| limit.admit(client(address)).1;
        for address in ["2001:db8::1", "2001:db8::2"] {
            admit(address).unwrap();
        }
        assert_eq!(admit("2001:db8::ffff:1").unwrap_err().status().as_u16(), 429);
        admit("2001:db8:0:1::1").unwrap();
        admit("10.0.0.1").unwrap();
        admit("::ffff:10.0.0.1").unwrap();
        assert!(admit("10.0.0.1").is_err());
    }

    #[test]
    fn what_is_left_is_told() {
        let limit = limit(100);
        let told = |(allowed, _): (Allowed, _)| format!("{} {}", allowed.policy, allowed.left);
        assert_eq!(told(limit.admit(client("10.0.0.1"))), "\"test\";q=2;w=3600 \"test\";r=1;t=1800");
        assert_eq!(told(limit.admit(client("10.0.0.1"))), "\"test\";q=2;w=3600 \"test\";r=0;t=3600");
        assert_eq!(told(limit.admit(client("10.0.0.1"))), "\"test\";q=2;w=3600 \"test\";r=0;t=1800");
    }

    #[test]
    fn the_memory_of_clients_is_bounded() {
        let limit = limit(3);
        let address = |i: u32| Client::of_address(Ipv4Addr::from(0x0a00_0000 + i).into());
        let admitted = (0..100).filter(|i| limit.admit(address(*i)).1.is_ok()).count();
        assert_eq!(admitted, 3 + 2, "three buckets of their own, and one for the others");
        assert!(limit.limiter.len() <= 4);
    }

    #[test]
    fn streams_are_counted_until_they_close() {
        let counts = Arc::<Counts>::default();
        let (ann, here) = (client("10.0.0.1"), client("10.0.0.2"));
        let first = counts.open(vec![(ann, 2), (here, 3)]).unwrap();
        let _second = counts.open(vec![(ann, 2), (here, 3)]).unwrap();
        assert!(counts.open(vec![(here, 3), (ann, 2)]).is_err());
        drop(first);
        drop(counts.open(vec![(ann, 2)]).unwrap());
        assert_eq!(counts.open.lock().unwrap().values().sum::<usize>(), 2);
    }
}
