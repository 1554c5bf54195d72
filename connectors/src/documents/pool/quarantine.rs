//! Quarantine: refuses documents that crashed two workers, for a while.

use std::collections::HashMap;

use tokio::time::Instant;

use pipeline::documents::ConvertError;

/// Most documents in quarantine; the one that ends first makes room.
const MAX_DOCUMENTS: usize = 1024;

/// SHA-256 of a document.
pub(super) type Digest = [u8; 32];

/// Documents that are refused, each with the end of its quarantine and its error.
#[derive(Default)]
pub(super) struct Quarantine {
    documents: HashMap<Digest, (Instant, ConvertError)>,
}

impl Quarantine {
    /// Fails with the document's error if it is in quarantine.
    pub(super) fn check(&mut self, digest: &Digest, now: Instant) -> Result<(), ConvertError> {
        self.documents.retain(|_, (until, _)| *until > now);
        self.documents.get(digest).map_or(Ok(()), |(_, error)| Err(error.clone()))
    }

    /// Refuses a document with this error until then.
    pub(super) fn add(&mut self, digest: Digest, until: Instant, error: ConvertError) {
        if self.documents.len() >= MAX_DOCUMENTS {
            let oldest = self.documents.iter().min_by_key(|(_, (until, _))| *until).map(|(digest, _)| *digest);
            oldest.map(|digest| self.documents.remove(&digest));
        }
        self.documents.insert(digest, (until, error));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_document_is_refused_for_its_time_and_the_oldest_makes_room() {
        let start = Instant::now();
        let mut quarantine = Quarantine::default();
        let digest = |number: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&(number as u64).to_le_bytes());
            digest
        };
        for number in 0..=MAX_DOCUMENTS {
            let until = start + Duration::from_millis(1000 + number as u64);
            quarantine.add(digest(number), until, ConvertError::Busy);
        }
        assert_eq!(quarantine.documents.len(), MAX_DOCUMENTS);
        assert!(quarantine.check(&digest(0), start).is_ok());
        assert!(quarantine.check(&digest(MAX_DOCUMENTS), start).is_err());
        assert!(quarantine.check(&digest(MAX_DOCUMENTS), start + Duration::from_mins(1)).is_ok());
        assert!(quarantine.documents.is_empty(), "ended quarantines are removed");
    }
}
