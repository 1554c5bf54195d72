//! The broker's disk is full, or the claim store is at its limit: requests are refused, no accepted event is lost, and
//! the service recovers when there is space.
//!
//! The disk is a small tmpfs in a mount namespace of the process under test. Where the system does not allow such
//! namespaces, only the claim store is tested.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tokio::process::Command;

use crate::broker_client::Broker;
use crate::cluster::{Cluster, GATEWAY, Process, eventually, send};
use crate::oracle::{Oracle, Reply, Violations};

/// Size of the disk.
const DISK: &str = "24m";

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
    fn fill(&self) -> PathBuf {
        let filler = self.data.join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        let block = vec![0; 1 << 12];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        filler
    }
}

fn can_mount(folder: &Path) -> bool {
    let probe = ["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"];
    std::process::Command::new("unshare").args(probe).arg(folder).output().is_ok_and(|done| done.status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_reported_and_no_accepted_event_is_lost() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    if !can_mount(cluster.folder()) {
        eprintln!("not tested: this system does not allow mounting a tmpfs");
        return;
    }
    let small_disk = SmallDiskGateway::start(&cluster).await.unwrap_or_else(|| panic!("{}", cluster.log("gateway")));
    let process = &small_disk.process;
    let worker = cluster.start_joining(&small_disk.data, "worker", "worker", &[]).await;
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(process, "work", 20).await;
    let filler = small_disk.fill();
    let mut refused = 0;
    eventually("readiness names the broker", || async {
        let (status, text) = process.ready().await;
        status == 503 && text.contains("broker")
    })
    .await;
    for _ in 0..2 {
        let replies = oracle.post_digests(process, "work", 4, 4).await;
        refused += replies.iter().filter(|reply| !matches!(reply, Reply::Accepted(_))).count();
    }
    assert!(refused >= 1, "no request was refused: the disk was not full");
    assert_eq!(oracle.unanswered, 0, "requests without an answer");
    assert_eq!(process.get("/health").send().await.unwrap().status(), 200);

    std::fs::remove_file(filler).unwrap();
    // A broker that could not write must be restarted: its memory and its disk disagree.
    send(process.broker(), Signal::KILL);
    eventually("readiness comes back", || async { process.ready().await.0 == 200 }).await;
    oracle.post_until_accepted(process, "work", 20).await;
    let broker = Broker::open(&small_disk.data).await;
    assert_eq!(oracle.verdict(process, &broker).await, Violations::default(), "{}", cluster.log("gateway"));
    drop(worker);
}

/// The claim store is full: bodies that do not fit are refused, stored ones are processed, and that frees space.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_over_the_claim_store_limit_are_refused_and_stored_ones_are_processed() {
    let cluster = Cluster::new("tests/faults/flows.toml", &["nats.claims_max_bytes=1MiB"]);
    let gateway = cluster.start_gateway().await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    // One in 16 is long: eight bodies of 300 kB, of which three fit.
    let replies = oracle.post_digests(&gateway, "work", 128, 4).await;
    let accepted = replies.iter().filter(|reply| matches!(reply, Reply::Accepted(_))).count();
    assert_eq!(accepted, 128 - 5, "the claim store accepted more or fewer bodies than fit");
    let worker = cluster.start_beside("worker", "worker", &[]).await;
    assert_eq!(oracle.verdict(&gateway, &broker).await, Violations::default(), "{}", cluster.log("worker"));
    eventually("bodies are dropped", || async { broker.messages("BLOB").await == 0 }).await;
    let replies = oracle.post_digests(&gateway, "work", 16, 1).await;
    assert!(replies.iter().all(|reply| matches!(reply, Reply::Accepted(_))), "{replies:?}");
    assert_eq!(oracle.verdict(&gateway, &broker).await, Violations::default());
    drop(worker);
}
