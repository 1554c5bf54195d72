//! Random faults for as long as one likes: `make soak`. The seed is printed, and given back by `SOAK_SEED`.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::oracle::{Counts, Oracle};
use crate::outside::Broker;
use crate::pictures::Numbers;
use crate::world::{Process, World, eventually, send};

/// Events sent between two faults.
const BETWEEN: usize = 40;
/// Faults between two verdicts.
const FAULTS: usize = 8;

const POINTS: [&str; 7] = ["submitted", "fetched", "work", "outcome", "noted", "acknowledged", "dropped"];

/// What can happen to a service and its workers.
#[derive(Clone, Copy, Debug)]
enum Harm {
    KillBroker,
    StopBroker,
    KillWorker,
    StopWorker,
    KillAtPoint(&'static str, u32),
    KillAll,
}

impl Harm {
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

#[expect(clippy::disallowed_methods, reason = "a test is told its length by the environment")]
fn number_of(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A gateway with its broker, and two workers beside it.
struct Service<'w> {
    world: &'w World,
    gateway: Process,
    workers: Vec<Process>,
}

const WORKERS: [&str; 2] = ["one", "two"];

impl<'w> Service<'w> {
    async fn start(world: &'w World) -> Self {
        let gateway = world.start_gateway().await;
        let mut workers = Vec::new();
        for name in WORKERS {
            workers.push(world.start_beside(name, "worker", &["--flows", "work"]).await);
        }
        Self { world, gateway, workers }
    }

    /// Does harm while events come in, and makes it good.
    async fn suffer(self, harm: Harm, pause: Duration, oracle: &mut Oracle) -> Self {
        let worker = usize::from(pause.as_millis().is_multiple_of(2));
        match harm {
            Harm::KillBroker | Harm::StopBroker => {
                let broker = self.gateway.broker();
                send(broker, if matches!(harm, Harm::KillBroker) { Signal::KILL } else { Signal::STOP });
                oracle.post_digests(&self.gateway, "work", BETWEEN / 4, 4).await;
                tokio::time::sleep(pause).await;
                if matches!(harm, Harm::StopBroker) {
                    send(broker, Signal::CONT);
                }
            }
            Harm::KillWorker => send(self.workers[worker].pid, Signal::KILL),
            Harm::StopWorker => {
                self.workers[worker].signal(Signal::STOP);
                oracle.post_digests(&self.gateway, "work", BETWEEN, 4).await;
                tokio::time::sleep(pause).await;
                self.workers[worker].signal(Signal::CONT);
            }
            Harm::KillAtPoint(point, times) => {
                self.world.arm(point, "*", times);
                oracle.post_digests(&self.gateway, "work", BETWEEN, 4).await;
            }
            Harm::KillAll => {
                oracle.post_digests(&self.gateway, "work", BETWEEN, 4).await;
                let Self { world, gateway, workers } = self;
                gateway.kill().await;
                drop(workers);
                return Self::start(world).await;
            }
        }
        self.mend().await
    }

    /// Starts again what died.
    async fn mend(mut self) -> Self {
        if self.gateway.is_dead() {
            let Self { world, gateway, workers } = self;
            gateway.died().await;
            drop(workers);
            return Self::start(world).await;
        }
        for (name, worker) in WORKERS.iter().zip(&mut self.workers) {
            if worker.is_dead() {
                *worker = self.world.start_beside(name, "worker", &["--flows", "work"]).await;
            }
        }
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "as long as one likes: make soak"]
async fn random_faults_lose_nothing() {
    let seed = number_of("SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let length = Duration::from_secs(number_of("SOAK_SECONDS").unwrap_or(300));
    eprintln!("SOAK_SEED={seed} SOAK_SECONDS={}", length.as_secs());
    let mut numbers = Numbers(seed);
    let world = World::new("tests/faults/flows.toml", &[]);
    let mut service = Service::start(&world).await;
    let mut oracle = Oracle::default();
    let begun = Instant::now();
    let mut done = 0;
    while begun.elapsed() < length {
        for _ in 0..FAULTS {
            let harm = Harm::random(&mut numbers);
            let pause = Duration::from_millis(numbers.next() % 4_000);
            eprintln!("{:>6.1} s  {harm:?}, {} ms", begun.elapsed().as_secs_f64(), pause.as_millis());
            service = service.suffer(harm, pause, &mut oracle).await;
            done += 1;
        }
        let _ = std::fs::remove_file(world.folder().join("arm"));
        service = service.mend().await;
        eventually("the service recovers", || async { service.gateway.ready().await.0 == 200 }).await;
        let broker = Broker::open(&world.data()).await;
        let counts = oracle.verdict(&service.gateway, &broker).await;
        let owed = oracle.owed.len();
        eprintln!("{:>6.1} s  {done} faults, {owed} owed: {counts:?}", begun.elapsed().as_secs_f64());
        assert_eq!(counts, Counts::default(), "SOAK_SEED={seed}, after {done} faults");
        assert_eq!(broker.messages("DEAD").await, 0, "SOAK_SEED={seed}");
    }
    assert!(done > 0);
}
