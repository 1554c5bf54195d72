//! Memory and CPU time of a process and all its descendants.

use std::fs::read_to_string;

use crate::caudal::{descendants, resident};

/// `/proc` counts CPU time in hundredths of a second.
const TICKS: f64 = 100.0;

/// Resident memory of a process tree, in MiB.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    /// RSS: shared pages are counted for each process.
    pub resident: u64,
    /// PSS: shared pages are divided among the processes.
    pub proportional: u64,
    pub processes: usize,
}

impl Memory {
    pub fn of(pid: u32) -> Self {
        let tree = descendants(pid);
        Self {
            resident: tree.iter().map(|pid| resident(*pid)).sum::<u64>() >> 20,
            proportional: tree.iter().map(|pid| proportional_kib(*pid)).sum::<u64>() >> 10,
            processes: tree.len(),
        }
    }

    /// The maximum of each field.
    pub fn max(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            proportional: self.proportional.max(other.proportional),
            processes: self.processes.max(other.processes),
        }
    }
}

/// PSS in KiB; 0 if the process has ended.
fn proportional_kib(pid: u32) -> u64 {
    let text = read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}

/// Seconds of CPU time of a process tree so far, including processes that have ended and were waited for.
pub fn cpu(pid: u32) -> f64 {
    descendants(pid).iter().map(|pid| ticks(*pid, 4)).sum::<f64>() / TICKS
}

/// Seconds of CPU time of this program's ended children.
pub fn cpu_of_ended_children() -> f64 {
    let pid = std::process::id();
    (ticks(pid, 4) - ticks(pid, 2)) / TICKS
}

/// The sum of the first `fields` of: user time, system time, and both of ended children, in ticks.
fn ticks(pid: u32, fields: usize) -> f64 {
    let text = read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is the program's name in parentheses and may contain anything.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().skip(11).take(fields).filter_map(|ticks| ticks.parse::<f64>().ok()).sum()
}
