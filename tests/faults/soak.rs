//! Soak test (`make soak`): random faults for SOAK_SECONDS. The seed is printed; SOAK_SEED repeats it.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::broker_client::Broker;
use crate::cluster::{Cluster, Process, eventually, send};
use crate::oracle::{Oracle, Violations};
use crate::test_images::Numbers;

/// Events sent per fault; fewer while the broker is down.
const EVENTS_PER_FAULT: usize = 40;
/// Faults between two checks of the results.
const FAULTS_PER_CHECK: usize = 8;

const POINTS: [&str; 7] = ["submitted", "fetched", "work", "outcome", "noted", "acknowledged", "dropped"];

/// A fault to inject.
#[derive(Clone, Copy, Debug)]
enum Injection {
    KillBroker,
    StopBroker,
    KillWorker,
    StopWorker,
    KillAtPoint(&'static str, u32),
    KillAll,
}

impl Injection {
    fn random(numbers: &mut Numbers) -> Self {
        let mut below = |most: u64| numbers.next() % most;
        match below(8) {
            0 => Self::KillBroker,
            1 => Self::StopBroker,
            2 => Self::KillWorker,
            3 => Self::StopWorker,
            4 => Self::KillAll,
            _ => Self::KillAtPoint(POINTS[below(POINTS.len() as u64) as usize], 1 + below(20) as u32),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "make soak sets the test's length in the environment")]
fn number_of(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A gateway with its broker, and two workers.
struct Service<'w> {
    cluster: &'w Cluster,
    gateway: Process,
    workers: Vec<Process>,
}

const WORKERS: [&str; 2] = ["one", "two"];

impl<'w> Service<'w> {
    async fn start(cluster: &'w Cluster) -> Self {
        let gateway = cluster.start_gateway().await;
        let mut workers = Vec::new();
        for name in WORKERS {
            workers.push(cluster.start_beside(name, "worker", &["--flows", "work"]).await);
        }
        Self { cluster, gateway, workers }
    }

    /// Injects a fault while events arrive, and restarts what died.
    async fn inject(self, injection: Injection, pause: Duration, oracle: &mut Oracle) -> Self {
        let worker = usize::from(pause.as_millis().is_multiple_of(2));
        match injection {
            Injection::KillBroker | Injection::StopBroker => {
                let broker = self.gateway.broker();
                send(broker, if matches!(injection, Injection::KillBroker) { Signal::KILL } else { Signal::STOP });
                oracle.post_digests(&self.gateway, "work", EVENTS_PER_FAULT / 4, 4).await;
                tokio::time::sleep(pause).await;
                if matches!(injection, Injection::StopBroker) {
                    send(broker, Signal::CONT);
                }
            }
            Injection::KillWorker => send(self.workers[worker].pid, Signal::KILL),
            Injection::StopWorker => {
                self.workers[worker].signal(Signal::STOP);
                oracle.post_digests(&self.gateway, "work", EVENTS_PER_FAULT, 4).await;
                tokio::time::sleep(pause).await;
                self.workers[worker].signal(Signal::CONT);
            }
            Injection::KillAtPoint(point, times) => {
                self.cluster.arm(point, "*", times);
                oracle.post_digests(&self.gateway, "work", EVENTS_PER_FAULT, 4).await;
            }
            Injection::KillAll => {
                oracle.post_digests(&self.gateway, "work", EVENTS_PER_FAULT, 4).await;
                let Self { cluster, gateway, workers } = self;
                gateway.kill().await;
                drop(workers);
                return Self::start(cluster).await;
            }
        }
        self.restart_dead().await
    }

    /// Restarts the processes that died.
    async fn restart_dead(mut self) -> Self {
        if self.gateway.is_dead() {
            let Self { cluster, gateway, workers } = self;
            gateway.wait_for_exit().await;
            drop(workers);
            return Self::start(cluster).await;
        }
        for (name, worker) in WORKERS.iter().zip(&mut self.workers) {
            if worker.is_dead() {
                *worker = self.cluster.start_beside(name, "worker", &["--flows", "work"]).await;
            }
        }
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs for minutes; use make soak"]
async fn random_faults_lose_nothing() {
    let seed = number_of("SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let length = Duration::from_secs(number_of("SOAK_SECONDS").unwrap_or(300));
    eprintln!("SOAK_SEED={seed} SOAK_SECONDS={}", length.as_secs());
    let mut numbers = Numbers(seed);
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let mut service = Service::start(&cluster).await;
    let mut oracle = Oracle::default();
    let begun = Instant::now();
    let mut done = 0;
    while begun.elapsed() < length {
        for _ in 0..FAULTS_PER_CHECK {
            let injection = Injection::random(&mut numbers);
            let pause = Duration::from_millis(numbers.next() % 4_000);
            eprintln!("{:>6.1} s  {injection:?}, {} ms", begun.elapsed().as_secs_f64(), pause.as_millis());
            service = service.inject(injection, pause, &mut oracle).await;
            done += 1;
        }
        let _ = std::fs::remove_file(cluster.folder().join("arm"));
        service = service.restart_dead().await;
        eventually("the service recovers", || async { service.gateway.ready().await.0 == 200 }).await;
        let broker = Broker::open(&cluster.data()).await;
        let violations = oracle.verdict(&service.gateway, &broker).await;
        let accepted = oracle.accepted.len();
        eprintln!("{:>6.1} s  {done} faults, {accepted} accepted: {violations:?}", begun.elapsed().as_secs_f64());
        assert_eq!(violations, Violations::default(), "SOAK_SEED={seed}, after {done} faults");
        assert_eq!(broker.messages("DEAD").await, 0, "SOAK_SEED={seed}");
    }
    assert!(done > 0);
}
