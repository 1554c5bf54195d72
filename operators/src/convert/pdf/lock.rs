//! Passwords of a PDF: AES with a key of 256 bits (ISO 32000-2, 7.6, security handler of revision 6).

use std::collections::BTreeMap;
use std::sync::Arc;

use lopdf::encryption::crypt_filters::{Aes256CryptFilter, CryptFilter};
use lopdf::{Document, EncryptionState, EncryptionVersion, Object, Permissions, StringFormat};
use pipeline::Rejection;

/// Bytes of a password: what is beyond them is cut off by readers.
pub const LONGEST: usize = 127;
/// The one filter, by the name that the standard gives it.
const FILTER: &[u8] = b"StdCF";

/// Passwords; one of them is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Opens the document; anybody can where it is empty.
    pub user: String,
    /// Opens it for every use; the user's where it is empty.
    pub owner: String,
}

impl Lock {
    /// Encrypts everything that is in the document.
    ///
    /// # Errors
    /// 400 if a password has characters that none may have.
    pub fn close(&self, document: &mut Document) -> Result<(), Rejection> {
        if !document.trailer.has(b"ID") {
            let part = || Object::String(rand::random::<[u8; 16]>().to_vec(), StringFormat::Hexadecimal);
            document.trailer.set("ID", vec![part(), part()]);
        }
        // Of the version that has this encryption.
        document.version = "2.0".into();
        let filter: Arc<dyn CryptFilter> = Arc::new(Aes256CryptFilter);
        let key: [u8; 32] = rand::random();
        let state = EncryptionState::try_from(EncryptionVersion::V5 {
            encrypt_metadata: true,
            crypt_filters: BTreeMap::from([(FILTER.to_vec(), filter)]),
            file_encryption_key: &key,
            stream_filter: FILTER.to_vec(),
            string_filter: FILTER.to_vec(),
            owner_password: if self.owner.is_empty() { &self.user } else { &self.owner },
            user_password: &self.user,
            permissions: Permissions::all(),
        });
        let unfit =
            |why: lopdf::Error| Rejection::new(400, "invalid_password", format!("a password is not usable: {why}"));
        document.encrypt(&state.map_err(unfit)?).map_err(|why| Rejection::internal(why.to_string()))
    }
}
