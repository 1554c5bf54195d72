//! Memory and CPU time of this process, read from `/proc` files that are opened before the sandbox applies.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Milliseconds in a clock tick of `/proc`: 100 a second on every architecture.
const MS_PER_TICK: u64 = 10;

/// The open files.
pub(super) struct ProcessUsage {
    status: File,
    stat: File,
}

impl ProcessUsage {
    /// Opens the files of this process.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { status: File::open("/proc/self/status")?, stat: File::open("/proc/self/stat")? })
    }

    /// Resident memory in bytes; 0 if it cannot be read.
    pub(super) fn resident(&self) -> u64 {
        kibibytes(&read(&self.status), "VmRSS:").unwrap_or(0)
    }

    /// CPU time of all threads so far, in milliseconds.
    pub(super) fn cpu_ms(&self) -> u64 {
        let text = read(&self.stat);
        // The second field is the program's name in parentheses and may contain spaces and parentheses.
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>()
            * MS_PER_TICK
    }
}

fn read(file: &File) -> String {
    let mut buffer = [0; 4096];
    let length = file.read_at(&mut buffer, 0).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// The value of a line such as `VmRSS:   1234 kB`, in bytes.
pub(super) fn kibibytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_cpu_time_are_plausible() {
        let usage = ProcessUsage::open().unwrap();
        assert!(usage.resident() > 100_000);
        assert!(usage.cpu_ms() < 3_600_000);
        assert_eq!(kibibytes("VmSize:\t  12 kB\nVmRSS:\t 3 kB\n", "VmRSS:"), Some(3072));
    }
}
