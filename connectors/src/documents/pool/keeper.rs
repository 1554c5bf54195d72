//! Keeps the number of workers: one is started for each that left, slower and slower while they keep dying.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Shared;
use super::process::Worker;
use super::recycle::Reason;

/// That many abnormal ends in [`WINDOW`] are a crash loop.
const LOOP: usize = 5;
const WINDOW: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Abnormal ends of late, and how long to wait because of them.
#[derive(Default)]
struct Alarm {
    ends: VecDeque<Instant>,
    pause: Duration,
}

impl Alarm {
    fn note(&mut self, now: Instant) {
        self.ends.push_back(now);
        if self.ends.len() > LOOP {
            self.ends.pop_front();
        }
    }

    /// How long to wait before the next start: nothing, or twice as long as the last time.
    fn pause(&mut self, now: Instant) -> Duration {
        let looping =
            self.ends.len() == LOOP && self.ends.front().is_some_and(|first| now.duration_since(*first) < WINDOW);
        self.pause = match (looping, self.pause) {
            (false, _) => Duration::ZERO,
            (true, Duration::ZERO) => Duration::from_secs(1),
            (true, last) => (last * 2).min(LONGEST_PAUSE),
        };
        self.pause
    }
}

/// Starts a worker for each vacancy, one after the other, until the pool is closed.
pub(super) async fn keep(
    shared: Arc<Shared>,
    mut vacancies: mpsc::Receiver<Option<Reason>>,
    idle: mpsc::Sender<Worker>,
) {
    let mut alarm = Alarm::default();
    while let Some(reason) = vacancies.recv().await {
        if matches!(reason, Some(Reason::Crash)) {
            alarm.note(Instant::now());
        }
        loop {
            let pause = alarm.pause(Instant::now());
            shared.failing.store(!pause.is_zero(), Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            match Worker::start(&shared.config, shared.root.path(), &shared.spawner).await {
                Ok(worker) => {
                    shared.figures.born(worker.pid());
                    // There is room for as many as there can be.
                    drop(idle.send(worker).await);
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "a document worker did not start");
                    // One that does not even start will not do so a moment later.
                    alarm.ends.resize(LOOP, Instant::now());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_while_workers_die_and_end_when_they_live() {
        let start = Instant::now();
        let mut alarm = Alarm::default();
        for _ in 0..4 {
            alarm.note(start);
            assert_eq!(alarm.pause(start), Duration::ZERO);
        }
        let mut pauses = Vec::new();
        for _ in 0..7 {
            alarm.note(start);
            pauses.push(alarm.pause(start).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(alarm.pause(start + WINDOW), Duration::ZERO);
    }
}
