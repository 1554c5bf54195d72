//! The broker's disk is full, or the claim store is at its limit: requests are refused, no accepted event is lost, and
//! the service recovers by itself when there is space.
//!
//! The disk is a small tmpfs in a mount namespace of the process under test.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;

use crate::broker_client::Broker;
use crate::cluster::{Cluster, GATEWAY, Process, eventually};
use crate::oracle::{Oracle, Reply, Violations};

/// Size of the disk: with room for what the load stores while it heals.
const DISK: &str = "64m";
/// A request that cannot be stored is refused within this time.
const REFUSAL_LIMIT: Duration = Duration::from_millis(100);

/// A gateway whose broker stores its data on a small disk, and the path of that data as seen from the test.
struct SmallDiskGateway {
    process: Process,
    data: PathBuf,
}

impl SmallDiskGateway {
    /// `None` if the process does not start.
    async fn start(cluster: &Cluster) -> Option<Self> {
        std::fs::create_dir_all(cluster.data()).unwrap();
        let mounted = r#"mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@""#;
        let plain = cluster.command("gateway", &GATEWAY);
        let plain = plain.as_std();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", mounted, DISK]).arg(cluster.data());
        command.arg(plain.get_program()).args(plain.get_args());
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(plain.get_current_dir().unwrap()).kill_on_drop(true);
        let process = Process::spawn(&mut command, &cluster.folder().join("gateway.log")).await.ok()?;
        let seen = format!("/proc/{}/root{}", process.pid, cluster.data().display());
        Some(Self { process, data: seen.into() })
    }

    /// Fills the rest of the disk with a file, and returns its path.
    async fn fill(&self) -> PathBuf {
        let filler = self.data.join("filler");
        let path = filler.clone();
        let filled = tokio::task::spawn_blocking(move || {
            let mut file = std::fs::File::create(path).unwrap();
            let block = vec![0; 1 << 12];
            while std::io::Write::write_all(&mut file, &block).is_ok() {}
        });
        filled.await.unwrap();
        filler
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_under_load_is_reported_and_heals_by_itself() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let small_disk = SmallDiskGateway::start(&cluster).await.unwrap_or_else(|| {
        panic!("does this system allow to mount a tmpfs in a user namespace?\n{}", cluster.log("gateway"))
    });
    let process = &small_disk.process;
    let worker = cluster.start_joining(&small_disk.data, "worker", "worker", &[]).await;
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(process, "work", 20).await;
    let broker_pid = process.broker();
    assert_eq!(process.metric("caudal_broker_stream_writable").await, streams(process).await);

    let filler = post_while(&mut oracle, process, small_disk.fill()).await;
    let told = eventually("readiness names the queue's stream", || async {
        let (status, text) = process.ready().await;
        status == 503 && text.contains("stream EV-work")
    });
    post_while(&mut oracle, process, told).await;
    assert!(process.metric("caudal_broker_stream_writable").await < streams(process).await);
    for _ in 0..3 {
        let begun = Instant::now();
        let replies = oracle.post_digests(process, "work", 1, 1).await;
        assert!(matches!(replies[..], [Reply::Refused { status: 503, .. } | Reply::Unknown]), "{replies:?}");
        assert!(begun.elapsed() < REFUSAL_LIMIT, "a refusal took {:?}", begun.elapsed());
    }
    assert_eq!(process.get("/health").send().await.unwrap().status(), 200);
    assert_eq!(process.broker(), broker_pid, "the broker was restarted although there is no room");

    std::fs::remove_file(filler).unwrap();
    let healed = eventually("readiness comes back", || async { process.ready().await.0 == 200 });
    post_while(&mut oracle, process, healed).await;
    assert_ne!(process.broker(), broker_pid, "the disk was not full: no stream refused");
    oracle.post_until_accepted(process, "work", 20).await;
    let broker = Broker::open(&small_disk.data).await;
    assert_eq!(oracle.verdict(process, &broker).await, Violations::default(), "{}", cluster.log("gateway"));
    assert_eq!(oracle.unanswered, 0, "requests without an answer");
    drop(worker);
}

/// A test of these tests: readiness that asks the canary only is detected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_by_the_canary_alone_is_detected() {
    for (bug, expected) in [(None, 503), (Some("canary-only"), 200)] {
        let mut cluster = Cluster::new("tests/faults/flows.toml", &[]);
        if let Some(bug) = bug {
            cluster = cluster.with_bug(bug);
        }
        let small_disk = SmallDiskGateway::start(&cluster).await.unwrap();
        let process = &small_disk.process;
        let worker = cluster.start_joining(&small_disk.data, "worker", "worker", &[]).await;
        let mut oracle = Oracle::default();
        small_disk.fill().await;
        let told = eventually("a stream refuses", || async {
            process.metric("caudal_broker_stream_writable").await < streams(process).await
        });
        post_while(&mut oracle, process, told).await;
        let ready = eventually("readiness is checked again", || async { process.ready().await.0 == expected });
        post_while(&mut oracle, process, ready).await;
        drop(worker);
    }
}

/// Number of streams of which the metrics tell.
async fn streams(process: &Process) -> f64 {
    let text = process.get("/metrics").send().await.unwrap().text().await.unwrap();
    text.lines().filter(|line| line.starts_with("caudal_broker_stream_writable{")).count() as f64
}

/// Posts requests until `done` is.
async fn post_while<T>(oracle: &mut Oracle, process: &Process, done: impl Future<Output = T>) -> T {
    let mut done = pin!(done);
    loop {
        let round = oracle.post_digests(process, "work", 16, 4);
        let (_, result) = tokio::join!(round, async { futures_util::poll!(&mut done) });
        if let std::task::Poll::Ready(result) = result {
            return result;
        }
    }
}

/// The claim store is full: bodies that do not fit are refused, stored ones are processed, and that frees space.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_over_the_claim_store_limit_are_refused_and_stored_ones_are_processed() {
    let cluster = Cluster::new("tests/faults/flows.toml", &["nats.claims_max_bytes=1MiB"]);
    let gateway = cluster.start_gateway().await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    // One in 16 is long: eight bodies of 300 kB, of which two fit into three quarters of the store.
    let replies = oracle.post_digests(&gateway, "work", 128, 4).await;
    let accepted = replies.iter().filter(|reply| matches!(reply, Reply::Accepted(_))).count();
    assert_eq!(accepted, 128 - 6, "the claim store accepted more or fewer bodies than fit");
    let worker = cluster.start_beside("worker", "worker", &[]).await;
    assert_eq!(oracle.verdict(&gateway, &broker).await, Violations::default(), "{}", cluster.log("worker"));
    eventually("bodies are dropped", || async { broker.messages("BLOB").await == 0 }).await;
    let replies = oracle.post_digests(&gateway, "work", 16, 1).await;
    assert!(replies.iter().all(|reply| matches!(reply, Reply::Accepted(_))), "{replies:?}");
    assert_eq!(oracle.verdict(&gateway, &broker).await, Violations::default());
    drop(worker);
}

/// Results need the same store as the bodies of requests: it keeps room for them, so that what was accepted ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_claim_store_has_room_for_the_results_of_what_was_accepted() {
    let cluster = Cluster::new("tests/faults/refused_writes.toml", &["nats.claims_max_bytes=1MiB"]);
    let process = cluster.start().await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    // Each has a body of 300 kB and a result of the same size.
    oracle.post_copies(&process, "copy", 6).await;
    assert!((2..6).contains(&oracle.accepted.len()), "{} of 6 accepted", oracle.accepted.len());
    assert_eq!(oracle.verdict(&process, &broker).await, Violations::default(), "{}", cluster.log("all"));
}
