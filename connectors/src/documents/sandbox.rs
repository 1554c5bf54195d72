//! The sandbox of a worker: namespaces without a network, Landlock, a seccomp filter, resource limits, no privileges.
//!
//! The worker applies it to itself, once, before it loads LibreOffice and while it has one thread. LibreOffice is
//! assumed to be compromised: it may compute, read program files and fonts, and write in its own folder. Each layer can
//! be turned off by itself, which is how the tests show what it does. Layers that the kernel does not support are
//! reported, and [`sandbox_selftest`](super::sandbox_selftest) checks whether the others are enough.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use serde::{Deserialize, Serialize};

use super::libreofficekit;

/// Which layers are on; all of them, except in tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Layers {
    /// The user profile that fetches no links and runs no macros.
    pub profile: bool,
    /// An environment of four fixed variables.
    pub environment: bool,
    /// User, network and IPC namespaces.
    pub namespaces: bool,
    /// Landlock: files, TCP, signals and abstract sockets.
    pub landlock: bool,
    /// The seccomp filter of system calls.
    pub seccomp: bool,
    /// Resource limits and low priority.
    pub limits: bool,
}

impl Default for Layers {
    fn default() -> Self {
        Self { profile: true, environment: true, namespaces: true, landlock: true, seccomp: true, limits: true }
    }
}

impl Layers {
    /// No layer at all.
    pub const NONE: Self =
        Self { profile: false, environment: false, namespaces: false, landlock: false, seccomp: false, limits: false };
}

/// Resource limits of a worker process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Address space beyond what the program itself has mapped, in bytes. LibreOffice with all its modules uses 1 GiB.
    pub address_space: u64,
    /// Largest file, in bytes.
    pub file_size: u64,
    /// Open files.
    pub files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { address_space: 2 << 30, file_size: 64 << 20, files: 256 }
    }
}

/// Folders that a worker may use.
pub struct AllowedPaths {
    /// The worker's own folder: read and write.
    pub own: PathBuf,
    /// LibreOffice: read.
    pub office: Option<PathBuf>,
}

/// Paths that LibreOffice and the loader read: libraries, fonts, locales, configuration, and two devices.
const READABLE: [&str; 15] = [
    "/usr/lib",
    "/usr/lib64",
    "/usr/share",
    "/usr/local/share/fonts",
    "/lib",
    "/lib64",
    "/etc/fonts",
    "/etc/libreoffice",
    "/etc/ld.so.cache",
    "/etc/papersize",
    "/var/cache/fontconfig",
    "/var/lib/libreoffice",
    "/var/spool/libreoffice",
    "/dev/urandom",
    "/dev/null",
];

/// Has the kernel kill this process when its parent, the process `parent`, ends. A change of credentials clears the
/// setting, so it is made before and after.
///
/// # Errors
/// If the parent has ended already.
pub fn die_with_parent(parent: u32) -> std::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let now = getppid().map(|pid: Pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) { Ok(()) } else { Err(std::io::Error::other("the supervisor is gone")) }
}

/// Applies `layers` to this process; they cannot be removed. Returns the layers that the kernel does not support, each
/// with the reason.
///
/// # Errors
/// If the supervisor ended meanwhile.
pub fn enter(layers: Layers, limits: Limits, paths: &AllowedPaths, parent: u32) -> std::io::Result<Vec<String>> {
    let mut missing = Vec::new();
    let mut note = |layer: &str, outcome: Result<(), String>| {
        if let Err(why) = outcome {
            missing.push(format!("{layer}: {why}"));
        }
    };
    if layers.limits {
        note("limits", apply_limits(limits));
    }
    if layers.namespaces {
        note("namespaces", namespaces());
    }
    die_with_parent(parent)?;
    if layers != Layers::NONE {
        note("no_new_privs", rustix::thread::set_no_new_privs(true).map_err(|error| error.to_string()));
        note("capabilities", drop_capabilities());
    }
    if layers.landlock {
        note("landlock", landlock(paths));
    }
    if layers.seccomp {
        note("seccomp", seccomp());
    }
    Ok(missing)
}

/// Resource limits and priority. When memory is short, the kernel kills the worker first, which protects the
/// supervisor.
fn apply_limits(limits: Limits) -> Result<(), String> {
    let mapped = mapped_bytes().unwrap_or(0);
    let limits = [
        (Resource::As, mapped.saturating_add(limits.address_space)),
        (Resource::Fsize, limits.file_size),
        (Resource::Nofile, limits.files),
        (Resource::Core, 0),
    ];
    for (resource, most) in limits {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
            .map_err(|error| format!("{resource:?}: {error}"))?;
    }
    std::fs::write("/proc/self/oom_score_adj", "500").map_err(|error| format!("oom_score_adj: {error}"))?;
    rustix::process::nice(5).map(drop).map_err(|error| format!("nice: {error}"))
}

/// Current size of the address space: an allocator may have reserved much of it without using it.
fn mapped_bytes() -> Option<u64> {
    super::process_usage::kibibytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmSize:")
}

/// A user namespace allows the others without privileges; user and group ids stay the same in it.
fn namespaces() -> Result<(), String> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    libreofficekit::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWIPC)
        .map_err(|error| format!("unshare: {error}; allow unprivileged user namespaces"))?;
    let write = |file: &str, text: String| {
        std::fs::write(Path::new("/proc/self").join(file), text).map_err(|error| format!("{file}: {error}"))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{user} {user} 1"))?;
    write("gid_map", format!("{group} {group} 1"))
}

fn drop_capabilities() -> Result<(), String> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).map_err(|error| error.to_string())
}

/// Restricts files by path; forbids TCP, and signals and abstract sockets out of the sandbox. A kernel that supports
/// only a part of this enforces that part, and the rest is reported as missing.
fn landlock(paths: &AllowedPaths) -> Result<(), String> {
    const VERSION: ABI = ABI::V6;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write: BitFlags<AccessFs> = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let readable = READABLE.iter().map(PathBuf::from).chain(paths.office.clone()).filter(|path| path.exists());
    let applied = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(VERSION))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(VERSION)))
        .and_then(|rules| rules.scope(Scope::from_all(VERSION)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(readable, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules([&paths.own], write)))
        .and_then(|rules| rules.restrict_self())
        .map_err(|error| error.to_string())?;
    match applied.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced => Err("the kernel enforces a part of it (Linux 6.12 enforces all)".into()),
        RulesetStatus::NotEnforced => Err("the kernel does not support it (Linux 5.13 or newer does)".into()),
    }
}

/// System calls that no conversion needs: new sockets, other processes, other programs, large attack surfaces of the
/// kernel.
const DENIED: [i64; 44] = [
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_open_by_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_acct,
];

/// Two system calls that exist on x86-64 only.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: [i64; 2] = [libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: [i64; 0] = [];

/// Denied calls fail with `EPERM`. `clone` may create threads, not processes. `clone3` passes its flags by pointer,
/// where a filter cannot see them, so it fails with `ENOSYS` and the C library falls back to `clone`.
fn seccomp() -> Result<(), String> {
    let failed = |error: seccompiler::Error| error.to_string();
    let mut denied: BTreeMap<i64, Vec<SeccompRule>> =
        DENIED.into_iter().chain(DENIED_HERE).map(|call| (call, Vec::new())).collect();
    let thread = libc::CLONE_THREAD.unsigned_abs().into();
    let no_thread = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(thread), 0)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|error| error.to_string())?;
    denied.insert(libc::SYS_clone, vec![no_thread]);
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    for (calls, errno) in [(denied, libc::EPERM), (absent, libc::ENOSYS)] {
        let architecture =
            std::env::consts::ARCH.try_into().map_err(|error: seccompiler::BackendError| error.to_string())?;
        let program: BpfProgram =
            SeccompFilter::new(calls, SeccompAction::Allow, SeccompAction::Errno(errno.unsigned_abs()), architecture)
                .and_then(TryInto::try_into)
                .map_err(|error| error.to_string())?;
        seccompiler::apply_filter(&program).map_err(failed)?;
    }
    Ok(())
}
