//! A network between a worker and its broker that loses what goes one way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

use crate::oracle::{Counts, Oracle};
use crate::outside::{Broker, address};
use crate::world::{World, eventually};

/// Requests answered before, and those whose answers are lost.
const BEFORE: usize = 20;
const LOST: usize = 10;

/// Stands between a client and the broker; can lose what the client says.
struct Link {
    address: String,
    deaf: AtomicBool,
    lost: AtomicU64,
    cut: broadcast::Sender<()>,
}

impl Link {
    async fn to(broker: String) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cut = broadcast::Sender::new(1);
        let link = Arc::new(Self { address, deaf: AtomicBool::new(false), lost: AtomicU64::new(0), cut });
        let serving = Arc::clone(&link);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(broker) = TcpStream::connect(&broker).await else { continue };
                let (link, mut cut) = (Arc::clone(&serving), serving.cut.subscribe());
                tokio::spawn(async move {
                    let (hear, say) = client.into_split();
                    let (mut answers, questions) = broker.into_split();
                    let mut say = say;
                    tokio::select! {
                        () = link.pass(hear, questions) => {}
                        _ = tokio::io::copy(&mut answers, &mut say) => {}
                        _ = cut.recv() => {}
                    }
                });
            }
        });
        link
    }

    async fn pass(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if self.deaf.load(Ordering::Relaxed) {
                self.lost.fetch_add(length as u64, Ordering::Relaxed);
            } else if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }

    /// What is said from now on is lost.
    fn lose(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    /// Ends all connections, and loses nothing on the next ones.
    fn heal(&self) {
        self.deaf.store(false, Ordering::Relaxed);
        let _ = self.cut.send(());
    }
}

/// F12: events still come, results and acknowledgements are lost; another worker answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_nobody_hears_does_no_harm() {
    let world = World::new("tests/faults/flows.toml", &[]);
    let gateway = world.start_gateway().await;
    let link = Link::to(address(&world.data().join("nats"))).await;
    let url = format!("nats.url=nats://{}", link.address);
    let unheard = world.start_beside("unheard", "worker", &["--flows", "work", "--set", &url]).await;
    let broker = Broker::open(&world.data()).await;
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(&gateway, "work", BEFORE).await;
    eventually("it answers", || async { broker.ends().await.len() == BEFORE }).await;
    link.lose();
    oracle.post_until_accepted(&gateway, "work", LOST).await;
    eventually("it has some of them", || async { unheard.metric("caudal_flow_in_flight_events").await >= 1.0 }).await;
    let other = world.start_beside("other", "worker", &["--flows", "work"]).await;
    eventually("the other answers", || async { broker.ends().await.len() == BEFORE + LOST }).await;
    link.heal();
    eventually("it has nothing left", || async { unheard.metric("caudal_flow_in_flight_events").await == 0.0 }).await;
    assert!(link.lost.load(Ordering::Relaxed) > 0, "nothing was lost");
    assert!(broker.redeliveries("work").await >= 1, "nothing was delivered again");
    oracle.post_until_accepted(&gateway, "work", BEFORE).await;
    assert_eq!(oracle.verdict(&gateway, &broker).await, Counts::default(), "{}", world.log("unheard"));
    drop(other);
}
