//! Suspects: events that were delivered again and again without ever failing here.
//!
//! A suspect perhaps kills the process, perhaps was only in flight beside one that does. It is processed alone, with a note
//! in the broker that names the process that began it. The process withdraws its note when it settles the event or hands it
//! back, so a note whose process is gone stands for a death. An event with two of them has killed the process twice with no
//! other event of its flow in flight, and is dead-lettered; its neighbours are not.

use bytes::Bytes;

use crate::incarnation::Incarnation;
use crate::names::{EventId, Token};
use crate::transport::{Transport, TransportError};

/// Deliveries beyond the attempts of the retry policy before an event is a suspect.
const GRACE: u32 = 2;

/// Deaths after which a suspect is given up.
const CHANCES: u32 = 2;

/// Notes of one suspect, at most; beyond them the oldest is forgotten. There are never more than two of processes that are
/// gone.
const MOST_NOTES: usize = 16;

/// Name of the record store with the notes: for each suspect the processes that have begun it, separated by spaces.
const STORE: &str = "caudal-suspects";

/// What happens to a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It is processed alone.
    Alone,
    /// It ends as a dead letter.
    DeadLetter {
        /// Processes that died while they processed it alone.
        deaths: u32,
    },
}

/// Whether an event that was delivered so often is a suspect.
pub fn is_suspect(deliveries: u32, attempts: u32) -> bool {
    deliveries > attempts + GRACE
}

/// Notes that this process is about to begin the suspect alone; returns what to do with it. The note is stored when this
/// returns [`Treatment::Alone`].
///
/// # Errors
/// If the broker did not confirm the note: without it the suspect must not be begun.
pub async fn begin(
    transport: &dyn Transport,
    process: &Incarnation,
    event: &EventId,
) -> Result<Treatment, TransportError> {
    let own = process.announced(transport).await?;
    loop {
        let mut notes = Notes::read(transport, event).await?;
        notes.processes.retain(|noted| noted != own);
        let deaths = notes.deaths(transport).await?;
        if deaths >= CHANCES {
            return Ok(Treatment::DeadLetter { deaths });
        }
        notes.processes.push(own.clone());
        if notes.replace(transport, event).await? {
            return Ok(Treatment::Alone);
        }
    }
}

/// Withdraws the note of this process, because it lives and has handed the event back.
///
/// # Errors
/// If the broker did not confirm it: the note would count as a death once this process ends.
pub async fn withdraw(transport: &dyn Transport, process: &Incarnation, event: &EventId) -> Result<(), TransportError> {
    loop {
        let mut notes = Notes::read(transport, event).await?;
        if !notes.processes.contains(process.id()) {
            return Ok(());
        }
        notes.processes.retain(|noted| noted != process.id());
        if notes.replace(transport, event).await? {
            return Ok(());
        }
    }
}

/// The notes of one suspect, as they were read.
struct Notes {
    /// The processes that have begun it alone, oldest first; each once.
    processes: Vec<Token>,
    revision: u64,
}

impl Notes {
    async fn read(transport: &dyn Transport, event: &EventId) -> Result<Self, TransportError> {
        let record = transport.get_record(&store(), event).await?;
        let revision = record.as_ref().map_or(0, |record| record.revision);
        let text = record.map(|record| String::from_utf8_lossy(&record.value).into_owned()).unwrap_or_default();
        Ok(Self { processes: text.split(' ').filter_map(|noted| Token::new(noted).ok()).collect(), revision })
    }

    /// Processes that are gone.
    async fn deaths(&self, transport: &dyn Transport) -> Result<u32, TransportError> {
        let mut deaths = 0;
        for noted in &self.processes {
            deaths += u32::from(!transport.is_alive(noted).await?);
        }
        Ok(deaths)
    }

    /// Stores them unless they were changed meanwhile; returns whether it did.
    async fn replace(&self, transport: &dyn Transport, event: &EventId) -> Result<bool, TransportError> {
        let newest = &self.processes[self.processes.len().saturating_sub(MOST_NOTES)..];
        let text = newest.iter().map(Token::as_str).collect::<Vec<_>>().join(" ");
        transport.replace_record(&store(), event, self.revision, Bytes::from(text)).await
    }
}

fn store() -> Token {
    Token::new(STORE).expect("a constant that is a token")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryTransport;

    /// Begins the suspect in a process of its own, which dies if it does not withdraw its note.
    async fn begin_and(transport: &MemoryTransport, withdraws: bool) -> Treatment {
        let (process, event) = (Incarnation::default(), Token::new("e").unwrap());
        let treatment = begin(transport, &process, &event).await.unwrap();
        if withdraws {
            withdraw(transport, &process, &event).await.unwrap();
        }
        treatment
    }

    #[test]
    fn an_event_is_a_suspect_after_all_attempts_and_the_grace() {
        assert!(!is_suspect(3 + GRACE, 3));
        assert!(is_suspect(3 + GRACE + 1, 3));
    }

    #[tokio::test]
    async fn a_suspect_is_given_up_after_two_deaths() {
        let transport = MemoryTransport::default();
        for expected in [Treatment::Alone, Treatment::Alone, Treatment::DeadLetter { deaths: 2 }] {
            assert_eq!(begin_and(&transport, false).await, expected);
        }
    }

    #[tokio::test]
    async fn a_process_that_hands_it_back_has_not_died() {
        let transport = MemoryTransport::default();
        for _ in 0..10 {
            assert_eq!(begin_and(&transport, true).await, Treatment::Alone);
        }
    }

    #[tokio::test]
    async fn a_process_that_lives_has_not_died() {
        let (transport, event) = (MemoryTransport::default(), Token::new("e").unwrap());
        let processes: Vec<Incarnation> = (0..10).map(|_| Incarnation::default()).collect();
        for process in &processes {
            assert_eq!(begin(&transport, process, &event).await.unwrap(), Treatment::Alone);
        }
    }

    #[tokio::test]
    async fn a_process_that_begins_it_again_has_not_died() {
        let (transport, process, event) =
            (MemoryTransport::default(), Incarnation::default(), Token::new("e").unwrap());
        for _ in 0..10 {
            assert_eq!(begin(&transport, &process, &event).await.unwrap(), Treatment::Alone);
        }
    }

    #[tokio::test]
    async fn without_a_note_there_is_no_treatment() {
        let (transport, event) = (MemoryTransport::default(), Token::new("e").unwrap());
        transport.set_down(true);
        assert!(begin(&transport, &Incarnation::default(), &event).await.is_err());
    }
}
