//! One-way network partition: what a worker sends to the broker is lost, what the broker sends arrives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

use crate::broker_client::{Broker, address};
use crate::cluster::{Cluster, eventually};
use crate::oracle::{Oracle, Violations};

/// Requests before the partition, and as many after it.
const BEFORE: usize = 20;
/// Requests whose answers are lost in the partition.
const LOST: usize = 10;

/// A TCP proxy between a client and the broker that can drop what the client sends.
struct LossyProxy {
    address: String,
    dropping: AtomicBool,
    /// Bytes dropped.
    lost: AtomicU64,
    /// Ends all connections.
    cut: broadcast::Sender<()>,
}

impl LossyProxy {
    async fn to(broker: String) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cut = broadcast::Sender::new(1);
        let proxy = Arc::new(Self { address, dropping: AtomicBool::new(false), lost: AtomicU64::new(0), cut });
        let serving = Arc::clone(&proxy);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(broker) = TcpStream::connect(&broker).await else { continue };
                let (proxy, mut cut) = (Arc::clone(&serving), serving.cut.subscribe());
                tokio::spawn(async move {
                    let (from_client, mut to_client) = client.into_split();
                    let (mut from_broker, to_broker) = broker.into_split();
                    tokio::select! {
                        () = proxy.forward(from_client, to_broker) => {}
                        _ = tokio::io::copy(&mut from_broker, &mut to_client) => {}
                        _ = cut.recv() => {}
                    }
                });
            }
        });
        proxy
    }

    async fn forward(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if self.dropping.load(Ordering::Relaxed) {
                self.lost.fetch_add(length as u64, Ordering::Relaxed);
            } else if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }

    /// From now on drops what the client sends.
    fn lose(&self) {
        self.dropping.store(true, Ordering::Relaxed);
    }

    /// Ends all connections and forwards everything on new ones.
    fn heal(&self) {
        self.dropping.store(false, Ordering::Relaxed);
        let _ = self.cut.send(());
    }
}

/// The worker still receives events, but its results and acknowledgements are lost; another worker answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_messages_are_lost_causes_no_loss_and_no_duplicate() {
    let cluster = Cluster::new("tests/faults/flows.toml", &[]);
    let gateway = cluster.start_gateway().await;
    let proxy = LossyProxy::to(address(&cluster.data().join("nats"))).await;
    let url = format!("nats.url=nats://{}", proxy.address);
    let partitioned = cluster.start_beside("partitioned", "worker", &["--flows", "work", "--set", &url]).await;
    let broker = Broker::open(&cluster.data()).await;
    let mut oracle = Oracle::default();
    oracle.post_until_accepted(&gateway, "work", BEFORE).await;
    eventually("the worker answers", || async { broker.ends().await.len() == BEFORE }).await;
    proxy.lose();
    oracle.post_until_accepted(&gateway, "work", LOST).await;
    eventually("the partitioned worker has some of them", || async {
        partitioned.metric("caudal_flow_in_flight_events").await >= 1.0
    })
    .await;
    let other = cluster.start_beside("other", "worker", &["--flows", "work"]).await;
    eventually("the other worker answers", || async { broker.ends().await.len() == BEFORE + LOST }).await;
    proxy.heal();
    eventually("the partitioned worker has none left", || async {
        partitioned.metric("caudal_flow_in_flight_events").await == 0.0
    })
    .await;
    assert!(proxy.lost.load(Ordering::Relaxed) > 0, "the proxy dropped nothing");
    assert!(broker.redeliveries("work").await >= 1, "nothing was redelivered");
    oracle.post_until_accepted(&gateway, "work", BEFORE).await;
    assert_eq!(oracle.verdict(&gateway, &broker).await, Violations::default(), "{}", cluster.log("partitioned"));
    drop(other);
}
