//! Disk limits of the embedded index: free space below which nothing is written, and the size of its log.

use std::path::Path;

use pipeline::BoxError;
use rustix::fs::statvfs;

/// Disk limits of an embedded index.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Free bytes of the file system below which nothing is written: qdrant-edge maps files that grow, and a write into
    /// a mapped file on a full disk kills the process.
    pub free_bytes: u64,
    /// Size of a collection's write-ahead log from which on it is rebuilt, if the log is also a multiple of the points.
    pub log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { free_bytes: 256 << 20, log_bytes: 256 << 20 }
    }
}

impl Limits {
    /// Fails if `growth` more bytes would leave too little free space.
    pub(super) fn check_free_space(&self, path: &Path, growth: u64) -> Result<(), BoxError> {
        let status = statvfs(path)?;
        let free = status.f_bavail.saturating_mul(status.f_frsize);
        let needed = self.free_bytes.saturating_add(growth);
        if free >= needed {
            return Ok(());
        }
        let path = path.display();
        Err(format!("only {free} bytes are free under {path}, the index needs {needed}: free some space").into())
    }
}
