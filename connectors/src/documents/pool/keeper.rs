//! Keeps the number of workers: one is started for each that left, slower and slower while they die without having
//! converted anything.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Shared;
use super::process::Worker;

/// A place for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vacancy {
    /// It is new, or its worker was of use.
    Ordinary,
    /// Its worker died before it had converted anything: a sign that the next will too.
    Fruitless,
}

/// That many fruitless ends in [`WINDOW`] are a crash loop.
const LOOP: usize = 5;
const WINDOW: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Fruitless ends of late, and how long to wait because of them.
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

    /// One that does not even start will not do so a moment later.
    fn cannot_start(&mut self, now: Instant) {
        self.ends = [now; LOOP].into();
    }

    /// Until when workers count as dying one after the other.
    fn looping(&self, now: Instant) -> Option<Instant> {
        let first = self.ends.front().filter(|_| self.ends.len() == LOOP);
        first.map(|first| *first + WINDOW).filter(|until| now < *until)
    }

    /// How long to wait before the next start: nothing, or twice as long as the last time.
    fn pause(&mut self, now: Instant) -> Duration {
        self.pause = match (self.looping(now), self.pause) {
            (None, _) => Duration::ZERO,
            (Some(_), Duration::ZERO) => Duration::from_secs(1),
            (Some(_), last) => (last * 2).min(LONGEST_PAUSE),
        };
        self.pause
    }
}

/// Starts a worker for each vacancy, one after the other, until the pool is closed.
pub(super) async fn keep(shared: Arc<Shared>, mut vacancies: mpsc::Receiver<Vacancy>, idle: mpsc::Sender<Worker>) {
    let mut alarm = Alarm::default();
    while let Some(vacancy) = vacancies.recv().await {
        if vacancy == Vacancy::Fruitless {
            alarm.note(Instant::now());
        }
        loop {
            let now = Instant::now();
            *shared.failing.lock().unwrap_or_else(PoisonError::into_inner) = alarm.looping(now);
            tokio::time::sleep(alarm.pause(now)).await;
            match Worker::start(&shared.config, shared.root.path(), &shared.spawner).await {
                Ok(worker) => {
                    shared.figures.born(worker.pid());
                    // There is room for as many as there can be.
                    drop(idle.send(worker).await);
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "a document worker did not start");
                    alarm.cannot_start(Instant::now());
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
        assert_eq!(alarm.looping(start), Some(start + WINDOW));
        // However long it goes on.
        let mut now = start;
        for _ in 0..20 {
            alarm.cannot_start(now);
            assert_eq!(alarm.pause(now), LONGEST_PAUSE);
            now += LONGEST_PAUSE;
        }
        alarm.ends = [start; LOOP].into();
        assert_eq!((alarm.looping(start + WINDOW), alarm.pause(start + WINDOW)), (None, Duration::ZERO));
    }
}
