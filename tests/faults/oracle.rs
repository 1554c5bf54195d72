//! The oracle: mints what is sent, treats every acknowledged id as owed, and compares what became of it.
//!
//! Payloads follow from serial numbers, so that any altered byte shows. A request without an answer is *unknown*: it may
//! have a result or none. What is counted is read from outside: over HTTP, and from the broker's streams.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::outside::{Broker, Sent};
use crate::pictures::Numbers;
use crate::world::{LOOK, PATIENCE, Process};

/// Requests about results at once.
const ASKED_AT_ONCE: usize = 8;

/// Bytes that travel inside their event.
const SHORT: usize = 1000;
/// Bytes that become a claim.
const LONG: usize = 300_000;

/// How an event must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// In an answer.
    Done,
    /// In this answer, byte for byte.
    Answer(Vec<u8>),
    /// In a failure of this code.
    Failed(&'static str),
}

/// What went wrong; all zero is what every fault must end in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Owed and not ended.
    pub lost: usize,
    /// Terminal results beyond the first of a request.
    pub duplicate: usize,
    /// Terminal results of requests that were refused or never made.
    pub spurious: usize,
    /// Ended otherwise than the payload says.
    pub corrupt: usize,
}

/// What became of a request over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Owed, under this id.
    Accepted(String),
    /// Refused, with the pause to make.
    Refused { status: u16, retry_after: Option<u64> },
    /// No answer came, or one that promises nothing.
    Unknown,
}

/// See the module.
#[derive(Default)]
pub struct Oracle {
    /// By id.
    pub owed: BTreeMap<String, (u64, Want)>,
    /// Ids that may have a result.
    unknown: BTreeSet<String>,
    /// Requests without an answer, whose ids nobody was told.
    pub nameless: usize,
    /// Ids that must have none.
    refused: BTreeSet<String>,
    minted: u64,
}

impl Oracle {
    /// An oracle of one of several clients, whose serial numbers begin there.
    pub fn starting_at(minted: u64) -> Self {
        Self { minted, ..Self::default() }
    }

    /// Takes over what another client is owed.
    pub fn join(&mut self, other: Self) {
        self.owed.extend(other.owed);
        self.unknown.extend(other.unknown);
        self.refused.extend(other.refused);
        self.nameless += other.nameless;
    }

    /// The next serial number.
    pub fn mint(&mut self) -> u64 {
        self.minted += 1;
        self.minted
    }

    /// Notes a reply of the gateway.
    pub fn note(&mut self, serial: u64, want: Want, replied: (Option<String>, Reply)) -> Reply {
        let (id, reply) = replied;
        match (&reply, id) {
            (Reply::Accepted(id), _) => {
                self.owed.insert(id.clone(), (serial, want));
            }
            (Reply::Refused { .. }, Some(id)) => {
                self.refused.insert(id);
            }
            (Reply::Unknown, Some(id)) => {
                self.unknown.insert(id);
            }
            (Reply::Unknown, None) => self.nameless += 1,
            (Reply::Refused { .. }, None) => {}
        }
        reply
    }

    /// Sends digests to be made over HTTP, some at once.
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

    /// Sends digests of long bodies to be made, one after the other.
    pub async fn post_long(&mut self, process: &Process, flow: &str, count: usize) {
        for _ in 0..count {
            let serial = self.mint();
            let bytes = payload(serial, LONG);
            let want = digest_of(&bytes);
            let replied = ask(process.post(&format!("/v1/flows/{flow}")).body(bytes)).await;
            self.note(serial, want, replied);
        }
    }

    /// Sends digests until so many more were accepted.
    pub async fn post_until_accepted(&mut self, process: &Process, flow: &str, count: usize) {
        let target = self.owed.len() + count;
        let deadline = Instant::now() + PATIENCE;
        while self.owed.len() < target {
            self.post_digests(process, flow, (target - self.owed.len()).min(ASKED_AT_ONCE), ASKED_AT_ONCE).await;
            assert!(Instant::now() < deadline, "{} of {target} accepted", self.owed.len());
        }
    }

    /// Publishes a digest to be made past the gateway; the id is the oracle's own, and an unknown fate is asked for again.
    pub async fn send_digest(&mut self, broker: &Broker, flow: &str) -> Sent {
        let bytes = payload(self.minted + 1, SHORT);
        self.send(broker, flow, bytes, &[], None).await
    }

    /// What [`send_digest`](Self::send_digest) sent and is owed, to be sent again.
    pub fn sent(&self) -> Vec<(String, Vec<u8>)> {
        self.owed.iter().map(|(id, (serial, _))| (id.clone(), payload(*serial, SHORT))).collect()
    }

    /// Publishes bytes with headers; what must become of them, where that is not their digest.
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
        let deadline = Instant::now() + PATIENCE;
        loop {
            match broker.send(flow, &id, bytes.clone(), headers).await {
                Sent::Unknown if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
                Sent::Unknown => {
                    self.unknown.insert(id);
                    return Sent::Unknown;
                }
                Sent::Accepted => {
                    self.owed.insert(id, (serial, want));
                    return Sent::Accepted;
                }
                refused @ Sent::Refused(_) => {
                    self.refused.insert(id);
                    return refused;
                }
            }
        }
    }

    /// Notes a request whose answer was waited for: it has a result that nobody owes any more.
    pub fn answered(&mut self, response: &Response) {
        let id = response.headers().get("caudal-request").and_then(|id| id.to_str().ok());
        self.unknown.extend(id.map(str::to_owned));
    }

    /// Says what an event of this serial number must answer, where that is known only later.
    pub fn want(&mut self, serial: u64, want: Want) {
        self.owed.values_mut().filter(|(of, _)| *of == serial).for_each(|(_, wanted)| *wanted = want.clone());
    }

    /// Waits until everything owed has ended, or nothing more can come, and counts what is wrong.
    pub async fn verdict(&self, process: &Process, broker: &Broker) -> Counts {
        self.settle(process, broker).await;
        let mut counts = Counts::default();
        let ends = broker.ends().await;
        counts.duplicate = ends.values().map(|count| *count as usize - 1).sum();
        let strangers = ends.keys().filter(|id| !self.owed.contains_key(*id) && !self.unknown.contains(*id));
        let (refused, nameless): (Vec<&String>, Vec<&String>) = strangers.partition(|id| self.refused.contains(*id));
        counts.spurious = refused.len() + nameless.len().saturating_sub(self.nameless);
        let ended = self.owed.iter().map(|(id, (_, want))| how_it_ended(process, id, want));
        let mut ended = futures_util::stream::iter(ended).buffer_unordered(ASKED_AT_ONCE);
        while let Some(right) = ended.next().await {
            match right {
                None => counts.lost += 1,
                Some(false) => counts.corrupt += 1,
                Some(true) => {}
            }
        }
        counts
    }

    /// Waits until everything owed has ended and nothing waits, or until nothing waits and nobody is at work.
    async fn settle(&self, process: &Process, broker: &Broker) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let waiting = broker.waiting().await;
            let at_work = process.metric("caudal_flow_in_flight_events").await;
            let ends = broker.ends().await;
            let open = self.owed.keys().filter(|id| !ends.contains_key(*id)).count();
            if waiting == 0 && (open == 0 || at_work == 0.0) {
                return;
            }
            assert!(Instant::now() < deadline, "not quiet: {waiting} wait, {at_work} at work, {open} open");
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Sends a request to be done later and says what became of it.
pub async fn ask(request: RequestBuilder) -> (Option<String>, Reply) {
    let Ok(response) = request.header("prefer", "respond-async").send().await else { return (None, Reply::Unknown) };
    let text = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let (id, retry_after) = (text("caudal-request"), text("retry-after"));
    let status = response.status();
    let Ok(body) = response.bytes().await else { return (id, Reply::Unknown) };
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let reply = match id.clone() {
        Some(id) if status.is_success() => Reply::Accepted(id),
        // "Cannot keep requests right now": whether it kept this one is not said.
        _ if problem["code"] == "broker_unavailable" => Reply::Unknown,
        _ => {
            let retry_after = retry_after.and_then(|seconds| seconds.parse().ok());
            Reply::Refused { status: status.as_u16(), retry_after }
        }
    };
    (id, reply)
}

/// Length of a payload: most are short, some too long to travel inside their event.
fn length_of(serial: u64) -> usize {
    if serial.is_multiple_of(16) { LONG } else { SHORT }
}

/// Bytes that follow from a serial number.
pub fn payload(serial: u64, length: usize) -> Vec<u8> {
    let mut numbers = Numbers(serial);
    (0..length.div_ceil(8)).flat_map(|_| numbers.next().to_le_bytes()).take(length).collect()
}

/// What the operator `digest` answers.
pub fn digest_of(bytes: &[u8]) -> Want {
    let sha256: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Want::Answer(json!({ "sha256": sha256, "length": bytes.len() }).to_string().into_bytes())
}

/// Whether a request ended as it must; `None` if it has not ended.
async fn how_it_ended(process: &Process, id: &str, want: &Want) -> Option<bool> {
    let path = format!("/v1/requests/{id}/result");
    let deadline = Instant::now() + PATIENCE;
    let (status, body, problem) = loop {
        let response = process.get(&path).send().await.unwrap();
        let status = response.status();
        let body = response.bytes().await.unwrap();
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        if problem["code"] != "broker_unavailable" || Instant::now() > deadline {
            break (status, body, problem);
        }
        tokio::time::sleep(LOOK).await;
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
