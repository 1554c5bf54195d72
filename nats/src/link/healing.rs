//! Watches which streams refuse writes: tells other processes and the log, and restarts a broker of our own as soon as
//! its disk has room.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use bytes::Bytes;
use futures_util::StreamExt;
use pipeline::TransportError;
use tokio::time::Instant;

use crate::link::broker::Broker;
use crate::link::stream_health::Refusal;
use crate::server::Restarter;
use crate::wire::subjects;

/// Interval between two looks at the streams while any refuses.
const INTERVAL: Duration = Duration::from_secs(1);
/// Shortest and longest time between two restarts of the broker; it doubles while they do not help.
const RESTART_INTERVAL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// Begins to watch. `restarter`: of the broker, if it is our own.
pub async fn watch(broker: &Arc<Broker>, restarter: Option<Restarter>) -> Result<(), TransportError> {
    let client = broker.publishing.client();
    let mut reports = client.subscribe(subjects::REFUSING_STREAMS).await.map_err(TransportError::unavailable)?;
    let watch = Watch { broker: Arc::clone(broker), restarter, logged: BTreeSet::new(), pace: Pace::default() };
    broker.tasks.spawn(watch.run());
    let listening = Arc::clone(broker);
    broker.tasks.spawn(async move {
        loop {
            let report = tokio::select! {
                report = reports.next() => report,
                () = listening.stop.cancelled() => return,
            };
            let Some(report) = report else { return };
            if let Some(stream) = subjects::parse_refusing_stream(&report.subject) {
                listening.health.refused(stream, Refusal::Reported);
            }
        }
    });
    Ok(())
}

struct Watch {
    broker: Arc<Broker>,
    restarter: Option<Restarter>,
    /// Streams that the log has named.
    logged: BTreeSet<String>,
    pace: Pace,
}

impl Watch {
    async fn run(mut self) {
        let mut established = self.broker.publishing.established.clone();
        established.mark_unchanged();
        loop {
            let any = self.broker.health.any_refusing();
            tokio::select! {
                () = self.broker.stop.cancelled() => return,
                changed = established.changed() => match changed {
                    Ok(()) => self.broker.health.reset(),
                    Err(_) => return,
                },
                () = self.broker.health.began() => {}
                () = tokio::time::sleep(INTERVAL), if any => {}
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let health = &self.broker.health;
        health.forget_old(self.restarter.is_some());
        let refusing = health.refusing();
        self.logged.retain(|stream| refusing.iter().any(|(name, _)| name == stream));
        let client = self.broker.publishing.client();
        // What is said while nobody listens is heard later, when it may not be true.
        let is_connected = client.connection_state() == State::Connected;
        for (stream, refusal) in refusing.iter().filter(|(_, refusal)| *refusal != Refusal::Reported) {
            if self.logged.insert(stream.clone()) {
                self.log(stream, *refusal);
            }
            if *refusal == Refusal::Silent && is_connected {
                // Others must know, because one of them may have to restart the broker. A lost report is repeated.
                let _ = client.publish(subjects::refusing_subject(stream), Bytes::new()).await;
            }
        }
        // A server that is starting is not there yet, however long it takes.
        if is_connected {
            self.heal(&refusing).await;
        }
    }

    /// Tells the operator what to do, once for each time that a stream begins to refuse.
    fn log(&self, stream: &str, refusal: Refusal) {
        match (&self.restarter, refusal) {
            (_, Refusal::Answered) => tracing::error!(
                stream,
                "the broker has no room for this stream: free disk space there, or raise max_file"
            ),
            (Some(restarter), _) => tracing::error!(
                stream,
                folder = %restarter.directory().display(),
                "a write to this stream failed and it refuses every other: free disk space; the broker is then restarted"
            ),
            (None, _) => tracing::error!(
                stream,
                "a write to this stream failed and it refuses every other: free disk space on the broker's machine, then \
                 restart nats-server, which refuses until it is restarted"
            ),
        }
    }

    async fn heal(&mut self, refusing: &[(String, Refusal)]) {
        let Some(restarter) = self.restarter.clone() else { return };
        // What is answered heals by itself.
        let stuck: Vec<&str> = refusing
            .iter()
            .filter(|(_, refusal)| *refusal != Refusal::Answered)
            .map(|(stream, _)| stream.as_str())
            .collect();
        if stuck.is_empty() {
            return;
        }
        let asked = restarter.clone();
        let Ok(Some(free)) = tokio::task::spawn_blocking(move || asked.room()).await else { return };
        if self.pace.admits() {
            let streams = stuck.join(", ");
            tracing::warn!(
                streams,
                free_bytes = free,
                "restarting nats-server: it refuses writes although there is room"
            );
            restarter.restart();
        }
    }
}

/// Limits how often the broker is restarted.
#[derive(Default)]
struct Pace {
    last: Option<(Instant, Duration)>,
}

impl Pace {
    /// Whether the broker may be restarted now; if so, counts that it is.
    fn admits(&mut self) -> bool {
        let now = Instant::now();
        let interval = match self.last {
            None => RESTART_INTERVAL.0,
            Some((at, interval)) if now < at + interval => return false,
            // The last restart helped for a while.
            Some((at, interval)) if now > at + 4 * interval => RESTART_INTERVAL.0,
            Some((_, interval)) => (interval * 2).min(RESTART_INTERVAL.1),
        };
        self.last = Some((now, interval));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn restarts_that_do_not_help_become_rare() {
        let mut pace = Pace::default();
        assert!(pace.admits() && !pace.admits());
        let mut admitted = 0;
        for _ in 0..3_600 {
            tokio::time::advance(Duration::from_secs(1)).await;
            admitted += u32::from(pace.admits());
        }
        // 5, 10, 20, … 300 s apart.
        assert!((10..=18).contains(&admitted), "{admitted}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_that_helped_the_next_comes_at_once() {
        let mut pace = Pace::default();
        assert!(pace.admits());
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert!(pace.admits());
        tokio::time::advance(RESTART_INTERVAL.0).await;
        assert!(pace.admits());
    }
}
