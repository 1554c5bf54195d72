//! SSE resumption: a stream cut at any byte and resumed with Last-Event-ID, at this gateway or another, is identical to
//! the uncut stream.
//!
//! No worker runs. The test publishes the results itself, to control when they arrive.

use reqwest::{Response, StatusCode, header};
use tokio::sync::watch;

use crate::broker_client::{Broker, ResultMessage};
use crate::cluster::{Cluster, Process, eventually};
use crate::oracle::{Reply, ask};
use crate::test_images::Numbers;

/// Data events in the stream.
const EVENTS: u32 = 1_400;
/// Number of times the client's connection is cut.
const CUTS: u64 = 50;
/// The second gateway is dead during these cuts.
const DEAD: std::ops::Range<u64> = 18..30;
/// How far results are ahead of the client, so that it reads both stored and new results.
const AHEAD: u32 = 40;

/// What a client has read of an event stream: complete events as bytes, and their ids.
#[derive(Default)]
struct Transcript {
    bytes: Vec<u8>,
    ids: Vec<u32>,
    ended: bool,
}

impl Transcript {
    /// Appends the complete events of a connection; an incomplete last event is discarded, as SSE clients do.
    fn append(&mut self, text: &[u8]) {
        let mut rest = text;
        while let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") {
            let (event, more) = rest.split_at(end + 2);
            rest = more;
            // Heartbeat comments may precede an event.
            let event = std::str::from_utf8(event).unwrap().trim_start_matches(": hb\n");
            let id = event.strip_prefix("id: ").and_then(|event| event.lines().next()).unwrap();
            self.ids.push(id.parse().unwrap());
            self.ended |= event.contains("\nevent: done\n");
            self.bytes.extend(event.as_bytes());
        }
    }

    /// Reads a connection to its end, or the first `most` bytes.
    async fn read(&mut self, mut response: Response, most: usize) {
        let mut text = Vec::new();
        while text.len() < most {
            // A broken connection counts as a cut.
            let Ok(Some(chunk)) = response.chunk().await else { break };
            text.extend_from_slice(&chunk);
        }
        text.truncate(most);
        self.append(&text);
    }
}

/// Opens the event stream of a request after the last event read; `None` if the gateway does not answer.
async fn open(gateway: &Process, id: &str, transcript: &Transcript) -> Option<Response> {
    let mut request = gateway.get(&format!("/v1/requests/{id}/events"));
    if let Some(last) = transcript.ids.last() {
        request = request.header("last-event-id", *last);
    }
    request.send().await.ok()
}

/// Publishes the results of a request, at most [`AHEAD`] ahead of the client.
async fn publish_results(broker: Broker, id: String, mut read: watch::Receiver<u32>) {
    let mut numbers = Numbers(7);
    for ordinal in 1..=EVENTS {
        read.wait_for(|read| ordinal <= read + AHEAD).await.unwrap();
        let length = numbers.next() % 900;
        let text: String = (0..length).map(|_| char::from(b' ' + (numbers.next() % 95) as u8)).collect();
        let text = format!("{ordinal}\r\nid: 9\n\n\u{2028}{text}");
        broker.put_result(&id, "work", ResultMessage { kind: "data", ordinal, text: &text }).await;
    }
    read.wait_for(|read| EVENTS <= read + AHEAD).await.unwrap();
    broker.put_result(&id, "work", ResultMessage { kind: "done", ordinal: EVENTS + 1, text: "the end" }).await;
}

/// Reads the stream with [`CUTS`] cuts, at the two gateways in turn, and then to its end. The second gateway is killed and
/// restarted meanwhile. Returns what was read and how often the client resumed at the second gateway.
async fn read_with_cuts(
    cluster: &Cluster,
    first: &Process,
    second: &mut Option<Process>,
    id: &str,
    progress: &watch::Sender<u32>,
) -> (Transcript, u32) {
    let mut resumed = Transcript::default();
    let mut numbers = Numbers(1);
    let mut resumed_at_second = 0;
    for cut in 0..CUTS {
        if cut == DEAD.end && second.is_none() {
            *second = Some(cluster.start_beside("second", "gateway", &[]).await);
        }
        let gateway = second.as_ref().filter(|_| cut % 2 == 0).unwrap_or(first);
        resumed_at_second += u32::from(!std::ptr::eq(gateway, first));
        let response = open(gateway, id, &resumed).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        // About a fiftieth of the stream; most cuts are within an event.
        let most = 8_000 + numbers.next() as usize % 5_000;
        if cut == DEAD.start {
            let killed = second.take().unwrap();
            let reading = resumed.read(response, usize::MAX);
            tokio::join!(reading, killed.kill());
        } else {
            resumed.read(response, most).await;
        }
        assert!(!resumed.ended, "the stream ended before its last cut");
        progress.send_replace(*resumed.ids.last().unwrap());
    }
    progress.send_replace(EVENTS);
    let last = open(second.as_ref().unwrap(), id, &resumed).await.unwrap();
    resumed.read(last, usize::MAX).await;
    (resumed, resumed_at_second)
}

/// Checks an ended stream at a gateway: resuming after its last event answers 204, and a replay is the same stream.
async fn check_ended_stream(gateway: &Process, id: &str, whole: &Transcript) {
    eventually("the ended stream answers 204", || async {
        open(gateway, id, whole).await.unwrap().status() == StatusCode::NO_CONTENT
    })
    .await;
    let again = gateway.get(&format!("/v1/requests/{id}/events")).header(header::ACCEPT, "text/event-stream");
    let mut replayed = Transcript::default();
    replayed.read(again.send().await.unwrap(), usize::MAX).await;
    assert!(replayed.bytes == whole.bytes, "a replay differs from the stream");
}

/// A client is cut and resumed fifty times across two gateways, one of which is killed and restarted meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_cut_fifty_times_equals_the_uncut_stream() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let first = cluster.start_gateway().await;
    let mut second = Some(cluster.start_beside("second", "gateway", &[]).await);
    let broker = Broker::open(&cluster.data()).await;
    let (_, reply) = ask(first.post("/v1/flows/work").body("x")).await;
    let Reply::Accepted(id) = reply else { panic!("{reply:?}") };

    let mut uncut = Transcript::default();
    let whole = open(&first, &id, &uncut).await.unwrap();
    let uncut = tokio::spawn(async move {
        uncut.read(whole, usize::MAX).await;
        uncut
    });
    let (progress, read) = watch::channel(0);
    let publishing = tokio::spawn(publish_results(broker, id.clone(), read));
    let (resumed, resumed_at_second) = read_with_cuts(&cluster, &first, &mut second, &id, &progress).await;

    publishing.await.unwrap();
    let uncut = uncut.await.unwrap();
    assert!(uncut.ended && resumed.ended);
    assert!(resumed.ids.iter().copied().eq(0..=EVENTS + 1), "not each id once and in order: {:?}", resumed.ids);
    assert!(resumed.bytes == uncut.bytes, "resumed {} bytes, uncut {}", resumed.bytes.len(), uncut.bytes.len());
    assert!(resumed_at_second >= 15, "{resumed_at_second}");
    for gateway in [&first, second.as_ref().unwrap()] {
        check_ended_stream(gateway, &id, &resumed).await;
    }
}
