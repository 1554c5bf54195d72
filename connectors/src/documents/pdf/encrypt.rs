//! PDF encryption: passwords and AES-256 (ISO 32000-2, 7.6, security handler of revision 6).

use std::collections::BTreeMap;
use std::sync::Arc;

use lopdf::encryption::crypt_filters::{Aes256CryptFilter, CryptFilter};
use lopdf::{Document, EncryptionState, EncryptionVersion, Object, Permissions, StringFormat};
use pipeline::documents::Lock;

use super::super::protocol::DocumentFault;

/// The standard's name of the only crypt filter.
const FILTER: &[u8] = b"StdCF";

/// Encrypts the whole document.
///
/// # Errors
/// If a password has characters that are not allowed.
pub(super) fn encrypt(lock: &Lock, document: &mut Document) -> Result<(), (DocumentFault, String)> {
    if !document.trailer.has(b"ID") {
        let part = || Object::String(rand::random::<[u8; 16]>().to_vec(), StringFormat::Hexadecimal);
        document.trailer.set("ID", vec![part(), part()]);
    }
    // The first version with this encryption.
    document.version = "2.0".into();
    let filter: Arc<dyn CryptFilter> = Arc::new(Aes256CryptFilter);
    let key: [u8; 32] = rand::random();
    let state = EncryptionState::try_from(EncryptionVersion::V5 {
        encrypt_metadata: true,
        crypt_filters: BTreeMap::from([(FILTER.to_vec(), filter)]),
        file_encryption_key: &key,
        stream_filter: FILTER.to_vec(),
        string_filter: FILTER.to_vec(),
        owner_password: if lock.owner.is_empty() { &lock.user } else { &lock.owner },
        user_password: &lock.user,
        permissions: Permissions::all(),
    });
    let state = state.map_err(|why| (DocumentFault::BadPassword, format!("the password cannot be used: {why}")))?;
    document
        .encrypt(&state)
        .map_err(|why| (DocumentFault::PdfUnreadable, format!("the PDF could not be encrypted: {why}")))
}
