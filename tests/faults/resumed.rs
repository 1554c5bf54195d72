//! An event stream survives its connections and its gateways: cut at any byte and resumed anywhere, it is the same stream.
//!
//! No worker runs: the test itself stores the results, as any program may, so that it decides what comes when.

use reqwest::{Response, StatusCode, header};
use tokio::sync::watch;

use crate::oracle::{Reply, ask};
use crate::outside::{Broker, Stored};
use crate::pictures::Numbers;
use crate::world::{Process, World, eventually};

/// Data events of the request.
const EVENTS: u32 = 1_400;
/// Times that the client's connection is cut.
const CUTS: u64 = 50;
/// The cuts between which one gateway is dead.
const DEAD: std::ops::Range<u64> = 18..30;
/// How far the results are ahead of the client: sometimes it reads what is stored, sometimes what comes.
const AHEAD: u32 = 40;

/// An event stream as it was read: whole events, byte for byte, and the ids they gave.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    ids: Vec<u32>,
    ended: bool,
}

impl Seen {
    /// Takes over the whole events of what a connection brought; what was cut off is dropped, as every client does.
    fn take(&mut self, text: &[u8]) {
        let mut rest = text;
        while let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") {
            let (event, more) = rest.split_at(end + 2);
            rest = more;
            // Heartbeats are no part of any event.
            let event = std::str::from_utf8(event).unwrap().trim_start_matches(": hb\n");
            let id = event.strip_prefix("id: ").and_then(|event| event.lines().next()).unwrap();
            self.ids.push(id.parse().unwrap());
            self.ended |= event.contains("\nevent: done\n");
            self.bytes.extend(event.as_bytes());
        }
    }

    /// Reads one connection to its end, or until so many bytes came.
    async fn read(&mut self, mut response: Response, most: usize) {
        let mut text = Vec::new();
        while text.len() < most {
            // A connection that breaks is one more cut.
            let Ok(Some(chunk)) = response.chunk().await else { break };
            text.extend_from_slice(&chunk);
        }
        text.truncate(most);
        self.take(&text);
    }
}

/// The stream of a request, after what was seen; `None` if the gateway is not there.
async fn open(gateway: &Process, id: &str, seen: &Seen) -> Option<Response> {
    let mut request = gateway.get(&format!("/v1/requests/{id}/events"));
    if let Some(last) = seen.ids.last() {
        request = request.header("last-event-id", *last);
    }
    request.send().await.ok()
}

/// Stores the results of a request, never far ahead of the client.
async fn store_results(broker: Broker, id: String, mut read: watch::Receiver<u32>) {
    let mut numbers = Numbers(7);
    for ordinal in 1..=EVENTS {
        read.wait_for(|seen| ordinal <= seen + AHEAD).await.unwrap();
        let length = numbers.next() % 900;
        let text: String = (0..length).map(|_| char::from(b' ' + (numbers.next() % 95) as u8)).collect();
        let text = format!("{ordinal}\r\nid: 9\n\n\u{2028}{text}");
        broker.put_result(&id, "work", Stored { kind: "data", ordinal, text: &text }).await;
    }
    read.wait_for(|seen| EVENTS <= seen + AHEAD).await.unwrap();
    broker.put_result(&id, "work", Stored { kind: "done", ordinal: EVENTS + 1, text: "the end" }).await;
}

/// An SSE client is cut and resumed fifty times across two gateways, one of which is killed and started again meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_cut_fifty_times_is_the_stream_that_was_not_cut() {
    let world = World::new("tests/faults/flows.toml", &[]);
    let first = world.start_gateway().await;
    let mut second = Some(world.start_beside("second", "gateway", &[]).await);
    let broker = Broker::open(&world.data()).await;
    let (_, reply) = ask(first.post("/v1/flows/work").body("x")).await;
    let Reply::Accepted(id) = reply else { panic!("{reply:?}") };

    let mut uncut = Seen::default();
    let whole = open(&first, &id, &uncut).await.unwrap();
    let uncut = tokio::spawn(async move {
        uncut.read(whole, usize::MAX).await;
        uncut
    });
    let (progress, read) = watch::channel(0);
    let storing = tokio::spawn(store_results(broker, id.clone(), read));

    let mut seen = Seen::default();
    let mut numbers = Numbers(1);
    let (mut cuts, mut resumed_at_second) = (0, 0);
    while cuts < CUTS {
        if cuts == DEAD.end && second.is_none() {
            second = Some(world.start_beside("second", "gateway", &[]).await);
        }
        let gateway = second.as_ref().filter(|_| cuts % 2 == 0).unwrap_or(&first);
        resumed_at_second += u32::from(!std::ptr::eq(gateway, &first));
        let response = open(gateway, &id, &seen).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        // About a fiftieth of the stream, most often ending within an event.
        let most = 8_000 + numbers.next() as usize % 5_000;
        if cuts == DEAD.start {
            let killed = second.take().unwrap();
            let reading = seen.read(response, usize::MAX);
            tokio::join!(reading, killed.kill());
        } else {
            seen.read(response, most).await;
        }
        assert!(!seen.ended, "the stream ended before its last cut");
        progress.send_replace(*seen.ids.last().unwrap());
        cuts += 1;
    }
    progress.send_replace(EVENTS);
    let last = open(second.as_ref().unwrap(), &id, &seen).await.unwrap();
    seen.read(last, usize::MAX).await;

    storing.await.unwrap();
    let uncut = uncut.await.unwrap();
    assert!(uncut.ended && seen.ended);
    assert!(seen.ids.iter().copied().eq(0..=EVENTS + 1), "each once, in order: {:?}", seen.ids);
    assert!(seen.bytes == uncut.bytes, "{} bytes beside {}", seen.bytes.len(), uncut.bytes.len());
    assert!(resumed_at_second >= 15, "{resumed_at_second}");
    for gateway in [&first, second.as_ref().unwrap()] {
        eventually("nothing can follow", || async {
            open(gateway, &id, &seen).await.unwrap().status() == StatusCode::NO_CONTENT
        })
        .await;
        let again = gateway.get(&format!("/v1/requests/{id}/events")).header(header::ACCEPT, "text/event-stream");
        let mut replayed = Seen::default();
        replayed.read(again.send().await.unwrap(), usize::MAX).await;
        assert!(replayed.bytes == uncut.bytes, "the history is the stream");
    }
}
