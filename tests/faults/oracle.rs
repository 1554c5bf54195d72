//! Invariant checker: makes the ids and payloads that are sent, and checks that every accepted event ended exactly once
//! with the right answer.
//!
//! Payloads are computed from serial numbers, so that any altered byte is detected. A request without an answer is
//! *unknown*: it may have a result or none. Results are read from outside: over HTTP and from the broker's streams.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::broker_client::{Broker, Sent};
use crate::cluster::{POLL_INTERVAL, Process, TIMEOUT};
use crate::test_images::Numbers;

/// Concurrent requests.
const CONCURRENCY: usize = 8;

/// Length of a body that is sent inline.
const SHORT: usize = 1000;
/// Length of a body that is stored as a claim.
const LONG: usize = 300_000;

/// How an event is expected to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// With any answer.
    Done,
    /// With exactly this answer.
    Answer(Vec<u8>),
    /// With a failure of this code.
    Failed(&'static str),
}

/// Violated invariants, counted. All must be zero after every fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    /// Accepted events that have not ended.
    pub lost: usize,
    /// Terminal results beyond the first of a request.
    pub duplicate: usize,
    /// Terminal results of requests that were refused or never made.
    pub spurious: usize,
    /// Requests with another result than expected.
    pub corrupt: usize,
}

/// The gateway's reply to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Accepted under this id: the event must end.
    Accepted(String),
    /// Refused, with the Retry-After header in seconds.
    Refused { status: u16, retry_after: Option<u64> },
    /// No answer, or one that leaves open whether the request was accepted.
    Unknown,
}

/// Records what was sent and accepted, and checks the results.
#[derive(Default)]
pub struct Oracle {
    /// Accepted events, each with its serial number and expected end, by id.
    pub accepted: BTreeMap<String, (u64, Want)>,
    /// Ids of requests that may have a result or none.
    unknown: BTreeSet<String>,
    /// Requests without an answer; their ids are not known.
    pub unanswered: usize,
    /// Ids of refused requests: they must have no result.
    refused: BTreeSet<String>,
    /// The last serial number.
    minted: u64,
}

impl Oracle {
    /// The oracle of one of several clients; its serial numbers start after `minted`.
    pub fn starting_at(minted: u64) -> Self {
        Self { minted, ..Self::default() }
    }

    /// Adds the records of another client.
    pub fn join(&mut self, other: Self) {
        self.accepted.extend(other.accepted);
        self.unknown.extend(other.unknown);
        self.refused.extend(other.refused);
        self.unanswered += other.unanswered;
    }

    /// The next serial number.
    pub fn mint(&mut self) -> u64 {
        self.minted += 1;
        self.minted
    }

    /// Records a reply of the gateway.
    pub fn note(&mut self, serial: u64, want: Want, replied: (Option<String>, Reply)) -> Reply {
        let (id, reply) = replied;
        match (&reply, id) {
            (Reply::Accepted(id), _) => {
                self.accepted.insert(id.clone(), (serial, want));
            }
            (Reply::Refused { .. }, Some(id)) => {
                self.refused.insert(id);
            }
            (Reply::Unknown, Some(id)) => {
                self.unknown.insert(id);
            }
            (Reply::Unknown, None) => self.unanswered += 1,
            (Reply::Refused { .. }, None) => {}
        }
        reply
    }

    /// Posts requests for digests, `at_once` of them concurrently.
    pub async fn post_digests(&mut self, process: &Process, flow: &str, count: usize, at_once: usize) -> Vec<Reply> {
        let serials: Vec<u64> = (0..count).map(|_| self.mint()).collect();
        let path = format!("/v1/flows/{flow}");
        let sent = serials.into_iter().map(|serial| {
            let request = process.post(&path).body(payload(serial, length_of(serial)));
            async move { (serial, ask(request).await) }
        });
        let replied: Vec<_> = futures_util::stream::iter(sent).buffer_unordered(at_once).collect().await;
        let wanted = |serial| digest_of(&payload(serial, length_of(serial)));
        replied.into_iter().map(|(serial, reply)| self.note(serial, wanted(serial), reply)).collect()
    }

    /// Posts requests for digests of large bodies, one after another.
    pub async fn post_long(&mut self, process: &Process, flow: &str, count: usize) {
        for _ in 0..count {
            let serial = self.mint();
            let bytes = payload(serial, LONG);
            let want = digest_of(&bytes);
            let replied = ask(process.post(&format!("/v1/flows/{flow}")).body(bytes)).await;
            self.note(serial, want, replied);
        }
    }

    /// Posts large bodies, one after another, whose results are the bodies.
    pub async fn post_copies(&mut self, process: &Process, flow: &str, count: usize) {
        for _ in 0..count {
            let serial = self.mint();
            let bytes = payload(serial, LONG);
            let replied = ask(process.post(&format!("/v1/flows/{flow}")).body(bytes.clone())).await;
            self.note(serial, Want::Answer(bytes), replied);
        }
    }

    /// Posts requests for digests until `count` more were accepted.
    pub async fn post_until_accepted(&mut self, process: &Process, flow: &str, count: usize) {
        let target = self.accepted.len() + count;
        let deadline = Instant::now() + TIMEOUT;
        while self.accepted.len() < target {
            self.post_digests(process, flow, (target - self.accepted.len()).min(CONCURRENCY), CONCURRENCY).await;
            assert!(Instant::now() < deadline, "{} of {target} accepted", self.accepted.len());
        }
    }

    /// Publishes an event for a digest directly to the broker. An unconfirmed publish is repeated with the same id.
    pub async fn send_digest(&mut self, broker: &Broker, flow: &str) -> Sent {
        let bytes = payload(self.minted + 1, SHORT);
        self.send(broker, flow, bytes, &[], None).await
    }

    /// The accepted events of [`send_digest`](Self::send_digest), to be sent again.
    pub fn sent(&self) -> Vec<(String, Vec<u8>)> {
        self.accepted.iter().map(|(id, (serial, _))| (id.clone(), payload(*serial, SHORT))).collect()
    }

    /// Publishes an event directly to the broker. `want` is its expected end, by default the digest of `bytes`.
    pub async fn send(
        &mut self,
        broker: &Broker,
        flow: &str,
        bytes: Vec<u8>,
        headers: &[(&'static str, &str)],
        want: Option<Want>,
    ) -> Sent {
        let serial = self.mint();
        let id = format!("e{serial}");
        let want = want.unwrap_or_else(|| digest_of(&bytes));
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match broker.send(flow, &id, bytes.clone(), headers).await {
                Sent::Unknown if Instant::now() < deadline => tokio::time::sleep(POLL_INTERVAL).await,
                Sent::Unknown => {
                    self.unknown.insert(id);
                    return Sent::Unknown;
                }
                Sent::Accepted => {
                    self.accepted.insert(id, (serial, want));
                    return Sent::Accepted;
                }
                refused @ Sent::Refused(_) => {
                    self.refused.insert(id);
                    return refused;
                }
            }
        }
    }

    /// Records a request that was answered synchronously: its result is already checked and not spurious.
    pub fn note_answer(&mut self, response: &Response) {
        let id = response.headers().get("caudal-request").and_then(|id| id.to_str().ok());
        self.unknown.extend(id.map(str::to_owned));
    }

    /// Sets the expected end of the event with this serial number, if it becomes known only later.
    pub fn want(&mut self, serial: u64, want: Want) {
        self.accepted.values_mut().filter(|(of, _)| *of == serial).for_each(|(_, wanted)| *wanted = want.clone());
    }

    /// Waits until all events have ended or none is in progress, and counts the violations.
    pub async fn verdict(&self, process: &Process, broker: &Broker) -> Violations {
        self.settle(process, broker).await;
        let mut violations = Violations::default();
        let ends = broker.ends().await;
        violations.duplicate = ends.values().map(|count| *count as usize - 1).sum();
        let unexpected = ends.keys().filter(|id| !self.accepted.contains_key(*id) && !self.unknown.contains(*id));
        let (refused, unknown): (Vec<&String>, Vec<&String>) = unexpected.partition(|id| self.refused.contains(*id));
        violations.spurious = refused.len() + unknown.len().saturating_sub(self.unanswered);
        let ended = self.accepted.iter().map(|(id, (_, want))| ended_as_expected(process, id, want));
        let mut ended = futures_util::stream::iter(ended).buffer_unordered(CONCURRENCY);
        while let Some(right) = ended.next().await {
            match right {
                None => violations.lost += 1,
                Some(false) => violations.corrupt += 1,
                Some(true) => {}
            }
        }
        violations
    }

    /// Waits until the queues are empty and all accepted events have ended or none is in flight.
    async fn settle(&self, process: &Process, broker: &Broker) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let waiting = broker.waiting().await;
            let in_flight = process.metric("caudal_flow_in_flight_events").await;
            let ends = broker.ends().await;
            let open = self.accepted.keys().filter(|id| !ends.contains_key(*id)).count();
            if waiting == 0 && (open == 0 || in_flight == 0.0) {
                return;
            }
            if Instant::now() >= deadline {
                let queues = broker.describe_queues().await;
                panic!("not settled: {waiting} queued, {in_flight} in flight, {open} without a result\n{queues}");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Sends a request with `Prefer: respond-async` and classifies the reply.
pub async fn ask(request: RequestBuilder) -> (Option<String>, Reply) {
    let Ok(response) = request.header("prefer", "respond-async").send().await else { return (None, Reply::Unknown) };
    let text = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let (id, retry_after) = (text("caudal-request"), text("retry-after"));
    let status = response.status();
    let Ok(body) = response.bytes().await else { return (id, Reply::Unknown) };
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let reply = match id.clone() {
        Some(id) if status.is_success() => Reply::Accepted(id),
        // The broker did not confirm the event: it may be stored or not. Or it is stored, and this is not recorded yet.
        _ if problem["code"] == "broker_unavailable" || problem["code"] == "acceptance_not_recorded" => Reply::Unknown,
        _ => {
            let retry_after = retry_after.and_then(|seconds| seconds.parse().ok());
            Reply::Refused { status: status.as_u16(), retry_after }
        }
    };
    (id, reply)
}

/// Length of a payload: one in 16 is large enough for a claim.
fn length_of(serial: u64) -> usize {
    if serial.is_multiple_of(16) { LONG } else { SHORT }
}

/// The payload of a serial number.
pub fn payload(serial: u64, length: usize) -> Vec<u8> {
    let mut numbers = Numbers(serial);
    (0..length.div_ceil(8)).flat_map(|_| numbers.next().to_le_bytes()).take(length).collect()
}

/// The answer of the operator `digest`.
pub fn digest_of(bytes: &[u8]) -> Want {
    let sha256: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Want::Answer(json!({ "sha256": sha256, "length": bytes.len() }).to_string().into_bytes())
}

/// Whether a request ended as expected; `None` if it has not ended.
async fn ended_as_expected(process: &Process, id: &str, want: &Want) -> Option<bool> {
    let path = format!("/v1/requests/{id}/result");
    let deadline = Instant::now() + TIMEOUT;
    let (status, body, problem) = loop {
        let response = process.get(&path).send().await.unwrap();
        let status = response.status();
        let body = response.bytes().await.unwrap();
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        if problem["code"] != "broker_unavailable" || Instant::now() > deadline {
            break (status, body, problem);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    if status == StatusCode::NOT_FOUND || problem["code"] == "not_ended" {
        return None;
    }
    let right = match want {
        Want::Done => status.is_success(),
        Want::Answer(answer) => status.is_success() && body == answer,
        Want::Failed(code) => problem["code"] == *code,
    };
    if !right {
        eprintln!("{id} ended as {status}: {}", String::from_utf8_lossy(&body[..body.len().min(300)]));
    }
    Some(right)
}
