//! Free space of the file system that holds the server's store.

use std::path::Path;

use rustix::fs::statvfs;
use rustix::process::geteuid;

/// What the server needs for its files before it can report its port and create its streams.
pub const START_BYTES: u64 = 4 << 20;
/// Free space at which a server that met a full disk is restarted; of a small file system, a part of it is enough.
const ROOM_BYTES: u64 = 64 << 20;
/// The part of a small file system.
const ROOM_SHARE: u64 = 20;

/// Size of a file system in bytes.
#[derive(Clone, Copy, Debug)]
pub struct DiskSpace {
    /// Bytes that this user may still write.
    pub free: u64,
    /// All bytes.
    pub total: u64,
}

impl DiskSpace {
    /// The file system of `path`.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let status = statvfs(path)?;
        // Blocks reserved for root are free for root alone.
        let free = if geteuid().is_root() { status.f_bfree } else { status.f_bavail };
        let bytes = |blocks: u64| blocks.saturating_mul(status.f_frsize);
        Ok(Self { free: bytes(free), total: bytes(status.f_blocks) })
    }

    /// Whether there is room to go on: little space that is filled again at once would end in a restart every time.
    pub fn has_room(self) -> bool {
        self.free >= ROOM_BYTES.min(self.total / ROOM_SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_system_has_room_with_a_twentieth_of_it() {
        assert!(DiskSpace { free: 2 << 20, total: 24 << 20 }.has_room());
        assert!(!DiskSpace { free: 1 << 20, total: 24 << 20 }.has_room());
    }

    #[test]
    fn a_large_file_system_has_room_with_64_mebibytes() {
        assert!(DiskSpace { free: 64 << 20, total: 1 << 40 }.has_room());
        assert!(!DiskSpace { free: 63 << 20, total: 1 << 40 }.has_room());
    }

    #[test]
    fn the_file_system_of_the_temporary_folder_is_read() {
        let space = DiskSpace::of(&std::env::temp_dir()).unwrap();
        assert!(space.total >= space.free && space.total > 0);
    }
}
