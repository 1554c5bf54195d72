//! Documents that killed two workers, refused for a while.

use std::collections::HashMap;

use tokio::time::Instant;

use pipeline::documents::ConvertError;

/// Documents that are remembered; the oldest makes room.
const MOST: usize = 1024;

/// SHA-256 of a document.
pub(super) type Digest = [u8; 32];

/// What is refused, with the answer it got.
#[derive(Default)]
pub(super) struct Quarantine {
    held: HashMap<Digest, (Instant, ConvertError)>,
}

impl Quarantine {
    /// The answer to a document that is held.
    pub(super) fn check(&mut self, digest: &Digest, now: Instant) -> Result<(), ConvertError> {
        self.held.retain(|_, (until, _)| *until > now);
        self.held.get(digest).map_or(Ok(()), |(_, error)| Err(error.clone()))
    }

    /// Refuses a document with this answer, until then.
    pub(super) fn hold(&mut self, digest: Digest, until: Instant, error: ConvertError) {
        if self.held.len() >= MOST {
            let oldest = self.held.iter().min_by_key(|(_, (until, _))| *until).map(|(digest, _)| *digest);
            oldest.map(|digest| self.held.remove(&digest));
        }
        self.held.insert(digest, (until, error));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_document_is_held_for_its_time_and_the_oldest_makes_room() {
        let start = Instant::now();
        let mut quarantine = Quarantine::default();
        let digest = |number: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&(number as u64).to_le_bytes());
            digest
        };
        for number in 0..=MOST {
            let until = start + Duration::from_millis(1000 + number as u64);
            quarantine.hold(digest(number), until, ConvertError::Busy);
        }
        assert_eq!(quarantine.held.len(), MOST);
        assert!(quarantine.check(&digest(0), start).is_ok());
        assert!(quarantine.check(&digest(MOST), start).is_err());
        assert!(quarantine.check(&digest(MOST), start + Duration::from_mins(1)).is_ok());
        assert!(quarantine.held.is_empty(), "what is over is forgotten");
    }
}
