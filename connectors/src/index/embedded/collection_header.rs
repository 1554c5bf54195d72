//! The header file of an embedded collection: its model, vector length, and which shard folder is live.
//!
//! The file is written before the first point and names the shard's folder, so replacing the file atomically replaces
//! the shard. Writing: temporary file, sync, rename, sync of the folder; a reader sees the old text or the new.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pipeline::Space;
use serde::{Deserialize, Serialize};

const FILE: &str = "collection.json";
const SHARD_PREFIX: &str = "shard-";

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CollectionHeader {
    /// The model whose vectors the collection holds.
    pub(super) fingerprint: String,
    /// Length of its vectors.
    pub(super) dim: usize,
    /// Number of the live shard folder.
    pub(super) generation: u64,
    /// Whether it may hold points with a tenant; set before the first one is stored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) tenants: bool,
}

impl CollectionHeader {
    pub(super) fn new(space: &Space) -> Self {
        Self { fingerprint: space.fingerprint.clone(), dim: space.dim, generation: 0, tenants: false }
    }

    pub(super) fn space(&self) -> Space {
        Space { fingerprint: self.fingerprint.clone(), dim: self.dim }
    }

    /// The live shard's folder.
    pub(super) fn shard(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{SHARD_PREFIX}{}", self.generation))
    }

    /// `None` if the folder holds no collection: the process ended while it was being created.
    pub(super) fn read(directory: &Path) -> io::Result<Option<Self>> {
        match fs::read(directory.join(FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let temporary = directory.join(format!("{FILE}.new"));
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&temporary, directory.join(FILE))?;
        File::open(directory)?.sync_all()
    }

    /// Removes shard folders other than the live one: leftovers of an interrupted rebuild.
    pub(super) fn sweep(&self, directory: &Path) -> io::Result<()> {
        let live = self.shard(directory);
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let is_shard = entry.file_name().to_str().is_some_and(|name| name.starts_with(SHARD_PREFIX));
            if is_shard && entry.path() != live {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_written_and_only_its_shard_survives() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(CollectionHeader::read(directory.path()).unwrap(), None);
        let header =
            CollectionHeader { generation: 3, ..CollectionHeader::new(&Space { fingerprint: "f".into(), dim: 4 }) };
        header.write(directory.path()).unwrap();
        assert_eq!(CollectionHeader::read(directory.path()).unwrap(), Some(header.clone()));
        for generation in 2..5 {
            fs::create_dir(directory.path().join(format!("shard-{generation}"))).unwrap();
        }
        header.sweep(directory.path()).unwrap();
        assert!(header.shard(directory.path()).is_dir());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        fs::write(directory.path().join(FILE), "{").unwrap();
        assert!(CollectionHeader::read(directory.path()).is_err());
    }
}
