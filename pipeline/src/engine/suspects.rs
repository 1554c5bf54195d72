//! Suspects: events that were delivered again and again without ever failing here.
//!
//! A suspect perhaps kills the process, perhaps was only in flight beside one that does. It is worked on alone, with a note
//! in the broker that says so. An event found with two such notes has killed the process twice with nothing else in flight,
//! and is dead-lettered; its neighbours are not.

use bytes::Bytes;

use crate::names::{EventId, Token};
use crate::transport::{Transport, TransportError};

/// Deliveries beyond the attempts of the retry policy before an event is a suspect.
const GRACE: u32 = 2;

/// Times a suspect may be begun alone.
pub const CHANCES: u32 = 2;

/// Name of the record store with the notes.
const STORE: &str = "suspects";

/// What happens to a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It is worked on alone.
    Alone,
    /// It ends as a dead letter.
    DeadLetter,
}

/// Whether an event that was delivered so often is a suspect.
pub fn is_suspect(deliveries: u32, attempts: u32) -> bool {
    deliveries > attempts + GRACE
}

/// The treatment of a suspect that is now begun alone for the `times`-th time.
fn treatment(times: u32) -> Treatment {
    if times <= CHANCES { Treatment::Alone } else { Treatment::DeadLetter }
}

/// Adds a note that the suspect is about to be begun alone; returns what to do with it. The note is stored when this
/// returns.
///
/// # Errors
/// If the broker did not confirm the note: without it the suspect must not be begun.
pub async fn note(transport: &dyn Transport, event: &EventId) -> Result<Treatment, TransportError> {
    let store = Token::new(STORE).expect("a constant that is a token");
    let before = transport.get_record(&store, event).await?;
    let times = before.and_then(|note| std::str::from_utf8(&note.value).ok()?.parse::<u32>().ok()).unwrap_or(0) + 1;
    transport.put_record(&store, event, Bytes::from(times.to_string())).await?;
    Ok(treatment(times))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryTransport;

    #[test]
    fn an_event_is_a_suspect_after_all_attempts_and_the_grace() {
        assert!(!is_suspect(3 + GRACE, 3));
        assert!(is_suspect(3 + GRACE + 1, 3));
    }

    #[tokio::test]
    async fn a_suspect_has_two_chances_and_is_then_dead_lettered() {
        let (transport, event) = (MemoryTransport::default(), Token::new("e").unwrap());
        for expected in [Treatment::Alone, Treatment::Alone, Treatment::DeadLetter] {
            assert_eq!(note(&transport, &event).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn without_a_note_there_is_no_treatment() {
        let (transport, event) = (MemoryTransport::default(), Token::new("e").unwrap());
        transport.set_down(true);
        assert!(note(&transport, &event).await.is_err());
    }
}
