//! F18: the disk under the broker is full. Nothing is promised that cannot be kept, and all goes on when there is room.
//!
//! The disk is a small tmpfs in a mount namespace of the process under test. Where the system allows no such namespace, the
//! store of bodies with a small bound, which needs none, is all that is tested.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tokio::process::Command;

use crate::oracle::{Counts, Oracle, Reply};
use crate::outside::Broker;
use crate::world::{GATEWAY, Process, World, eventually, send};

/// Size of the disk.
const DISK: &str = "24m";

/// A gateway whose broker has a disk of its own, and that folder as it is seen from here.
struct Cramped {
    process: Process,
    data: PathBuf,
}

impl Cramped {
    /// `None` where nothing may be mounted.
    async fn start(world: &World) -> Option<Self> {
        std::fs::create_dir_all(world.data()).unwrap();
        let mounted = r#"mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@""#;
        let plain = world.command("gateway", &GATEWAY);
        let plain = plain.as_std();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", mounted, DISK]).arg(world.data());
        command.arg(plain.get_program()).args(plain.get_args());
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(plain.get_current_dir().unwrap()).kill_on_drop(true);
        let process = Process::spawn(&mut command, &world.folder().join("gateway.log")).await.ok()?;
        let seen = format!("/proc/{}/root{}", process.pid, world.data().display());
        Some(Self { process, data: seen.into() })
    }

    /// Fills what is left of the disk.
    fn fill(&self) -> PathBuf {
        let filler = self.data.join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        let block = vec![0; 1 << 12];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        filler
    }
}

fn may_mount(folder: &Path) -> bool {
    let probe = ["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"];
    std::process::Command::new("unshare").args(probe).arg(folder).output().is_ok_and(|done| done.status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_admitted_and_nothing_accepted_is_lost() {
    let world = World::new("tests/faults/flows.toml", &[]);
    if !may_mount(world.folder()) {
        eprintln!("not tested: no disk can be mounted here");
        return;
    }
    let cramped = Cramped::start(&world).await.unwrap_or_else(|| panic!("{}", world.log("gateway")));
    let process = &cramped.process;
    let worker = world.start_joining(&cramped.data, "worker", "worker", &[]).await;
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(process, "work", 20).await;
    let filler = cramped.fill();
    let mut turned_away = 0;
    eventually("readiness names the broker", || async {
        let (status, text) = process.ready().await;
        status == 503 && text.contains("broker")
    })
    .await;
    for _ in 0..2 {
        let replies = oracle.post_digests(process, "work", 4, 4).await;
        turned_away += replies.iter().filter(|reply| !matches!(reply, Reply::Accepted(_))).count();
    }
    assert!(turned_away >= 1, "the disk was not full");
    assert_eq!(oracle.nameless, 0, "every request was answered");
    assert_eq!(process.get("/health").send().await.unwrap().status(), 200);

    std::fs::remove_file(filler).unwrap();
    // A broker that could not write must be started again: what it holds in memory is not what it has on disk.
    send(process.broker(), Signal::KILL);
    eventually("readiness comes back", || async { process.ready().await.0 == 200 }).await;
    oracle.post_until_accepted(process, "work", 20).await;
    let broker = Broker::open(&cramped.data).await;
    assert_eq!(oracle.verdict(process, &broker).await, Counts::default(), "{}", world.log("gateway"));
    drop(worker);
}

/// The store of bodies is full: what does not fit is refused, what was kept is done, and then there is room again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_do_not_fit_are_refused_and_those_kept_are_done() {
    let world = World::new("tests/faults/flows.toml", &["nats.claims_max_bytes=1MiB"]);
    let gateway = world.start_gateway().await;
    let broker = Broker::open(&world.data()).await;
    let mut oracle = Oracle::default();
    // One in 16 is long: eight bodies of 300 kB, of which three fit.
    let replies = oracle.post_digests(&gateway, "work", 128, 4).await;
    let kept = replies.iter().filter(|reply| matches!(reply, Reply::Accepted(_))).count();
    assert_eq!(kept, 128 - 5, "the store took another number of bodies than fit");
    let worker = world.start_beside("worker", "worker", &[]).await;
    assert_eq!(oracle.verdict(&gateway, &broker).await, Counts::default(), "{}", world.log("worker"));
    eventually("bodies are dropped", || async { broker.messages("BLOB").await == 0 }).await;
    let replies = oracle.post_digests(&gateway, "work", 16, 1).await;
    assert!(replies.iter().all(|reply| matches!(reply, Reply::Accepted(_))), "{replies:?}");
    assert_eq!(oracle.verdict(&gateway, &broker).await, Counts::default());
    drop(worker);
}
