//! The broker refuses to store in one stream for a while: what was accepted waits where it is, and ends once the stream
//! stores again. Nothing fails, nothing is delivered again, and no request is accepted that is not recorded.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::StatusCode;
use tokio::time::Instant;

use crate::broker_client::Broker;
use crate::cluster::{Cluster, Process, eventually, form};
use crate::oracle::{Oracle, Violations};
use crate::test_images::{jpeg, scene};

/// Events accepted before the refusal.
const EVENTS: usize = 12;
/// Interval between two requests while the stream refuses.
const REQUEST_INTERVAL: Duration = Duration::from_millis(500);
/// Deliveries without an end that make an event a suspect, which needs a record to be begun.
const DELIVERIES_OF_SUSPECT: usize = 6;

/// What the broker refuses to store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    Results,
    Ledger,
    Records,
    Claims,
    DurableEdge,
}

const ALL: [Store; 5] = [Store::Results, Store::Ledger, Store::Records, Store::Claims, Store::DurableEdge];

impl Store {
    fn stream(self) -> &'static str {
        match self {
            Self::Results => "RES",
            Self::Ledger => "LEDGER",
            Self::Records => "OWN",
            Self::Claims => "BLOB",
            Self::DurableEdge => "EV-parted--second",
        }
    }

    /// The metric that says that events wait. A full queue behind a durable edge is no outage: the places of the part
    /// before it stay occupied.
    fn metric(self) -> &'static str {
        match self {
            Self::DurableEdge => "caudal_flow_in_flight_events",
            _ => "caudal_flow_waits_for_storage_events",
        }
    }

    /// A flow whose events cannot end without a write to this store.
    fn flow(self) -> &'static str {
        match self {
            Self::Results | Self::Ledger | Self::Records => "small",
            Self::Claims => "copy",
            Self::DurableEdge => "parted",
        }
    }
}

/// A gateway and a worker whose broker refuses to store in one stream.
struct Refusal {
    store: Store,
    cluster: Cluster,
    gateway: Process,
    broker: Broker,
    oracle: Oracle,
}

impl Refusal {
    /// Accepts events, starts the worker, and makes the broker refuse before the worker begins.
    async fn begin(store: Store, bug: Option<&'static str>) -> (Self, Process) {
        let mut cluster = Cluster::new("tests/faults/refused_writes.toml", &[]);
        if let Some(bug) = bug {
            cluster = cluster.with_bug(bug);
        }
        let gateway = cluster.start_gateway().await;
        let broker = Broker::open(&cluster.data()).await;
        let mut oracle = Oracle::default();
        if store == Store::Records {
            // Consumers are created by the first worker.
            cluster.start_beside("first", "worker", &[]).await.kill().await;
        }
        match store {
            Store::Claims => oracle.post_copies(&gateway, store.flow(), EVENTS).await,
            _ => oracle.post_until_accepted(&gateway, store.flow(), EVENTS).await,
        }
        if store == Store::Records {
            for _ in 0..DELIVERIES_OF_SUSPECT {
                broker.hand_back(store.flow(), EVENTS).await;
            }
        }
        let hold = cluster.folder().join("hold");
        std::fs::write(&hold, "").unwrap();
        let worker = cluster.start_beside("worker", "worker", &[]).await;
        // Not earlier: whoever starts declares the streams as they must be.
        broker.refuse(store.stream()).await;
        std::fs::remove_file(hold).unwrap();
        (Self { store, cluster, gateway, broker, oracle }, worker)
    }

    /// Waits until a worker waits.
    async fn happens(&self, worker: &Process) {
        let what = format!("{:?}: a write waits", self.store);
        eventually(&what, || async { worker.metric(self.store.metric()).await > 0.0 }).await;
    }

    /// Posts requests for so long, and checks that nothing ends.
    async fn last(&mut self, time: Duration, worker: &Process) {
        let (store, flow) = (self.store, self.store.flow());
        self.happens(worker).await;
        let ends_at = Instant::now() + time;
        while Instant::now() < ends_at {
            self.oracle.post_digests(&self.gateway, "small", 1, 1).await;
            tokio::time::sleep(REQUEST_INTERVAL).await;
        }
        assert!(worker.metric(store.metric()).await > 0.0, "{store:?}: no write waits");
        let queued = self.broker.messages(&format!("EV-{flow}")).await as usize;
        assert!(queued >= EVENTS, "{store:?}: {queued} of {EVENTS} events are in the queue");
    }

    /// Lets the broker store again, and waits until everything has ended.
    async fn end(self, worker: Process) -> Seen {
        self.broker.store_again(self.store.stream()).await;
        let violations = self.oracle.verdict(&self.gateway, &self.broker).await;
        let dead_letters = self.broker.messages("DEAD").await;
        let handed_back_by_test =
            if self.store == Store::Records { (EVENTS * DELIVERIES_OF_SUSPECT) as u64 } else { 0 };
        let redeliveries = self.broker.redeliveries(self.store.flow()).await - handed_back_by_test;
        drop(worker);
        Seen { store: self.store, violations, dead_letters, redeliveries }
    }
}

/// What a refusal did.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    store: Store,
    violations: Violations,
    dead_letters: u64,
    redeliveries: u64,
}

/// Refuses to store in each of the stores at once, each in a service of its own.
async fn refuse_for(time: Duration) {
    let refusals = ALL.map(|store| async move {
        let (mut refusal, worker) = Refusal::begin(store, None).await;
        refusal.last(time, &worker).await;
        refusal.end(worker).await
    });
    for seen in join_all(refusals).await {
        let store = seen.store;
        let nothing = Seen { store, violations: Violations::default(), dead_letters: 0, redeliveries: 0 };
        assert_eq!(seen, nothing, "refused for {time:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_for_5_s_ends_afterwards() {
    refuse_for(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_for_30_s_ends_afterwards() {
    refuse_for(Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_for_75_s_ends_afterwards() {
    refuse_for(Duration::from_secs(75)).await;
}

/// A test of these tests: a refusal that counts as a fault of the event is detected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_counts_as_a_fault_is_detected() {
    let (refusal, worker) = Refusal::begin(Store::Results, Some("refusal-is-a-fault")).await;
    eventually("the events are given up", || async { refusal.broker.messages("DEAD").await as usize >= EVENTS }).await;
    let seen = refusal.end(worker).await;
    assert!(seen.dead_letters > 0 && seen.redeliveries > 0, "{seen:?}");
}

/// SIGTERM while results are refused: the process ends in time, and the next one stores them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_stopped_while_results_are_refused_hands_its_events_back() {
    let (refusal, worker) = Refusal::begin(Store::Results, None).await;
    refusal.happens(&worker).await;
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.wait_for_exit().await.success(), "{}", refusal.cluster.log("worker"));
    let hold = refusal.cluster.folder().join("hold");
    std::fs::write(&hold, "").unwrap();
    let next = refusal.cluster.start_beside("next", "worker", &[]).await;
    refusal.broker.refuse(Store::Results.stream()).await;
    std::fs::remove_file(hold).unwrap();
    refusal.happens(&next).await;
    let Refusal { cluster, gateway, broker, oracle, store } = refusal;
    broker.store_again(store.stream()).await;
    assert_eq!(oracle.verdict(&gateway, &broker).await, Violations::default(), "{}", cluster.log("next"));
    assert_eq!(broker.messages("DEAD").await, 0);
}

/// Records of clients: a report whose record is refused is not accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_whose_record_is_refused_is_not_accepted() {
    let cluster = Cluster::new("config/petalert.toml", &[]);
    let process = cluster.start().await;
    let broker = Broker::open(&cluster.data()).await;
    let report = async |number| {
        let form = form("photo", jpeg(&scene(number, 96, 72), 90)).text("report", "{}");
        process.post("/reports").multipart(form).send().await.unwrap().status()
    };
    assert_eq!(report(1).await, StatusCode::CREATED);
    broker.refuse("RECORDS").await;
    assert_eq!(report(2).await, StatusCode::SERVICE_UNAVAILABLE);
    broker.store_again("RECORDS").await;
    assert_eq!(report(3).await, StatusCode::CREATED);
    eventually("both reports end", || async { broker.ends().await.len() == 2 && broker.waiting().await == 0 }).await;
}
