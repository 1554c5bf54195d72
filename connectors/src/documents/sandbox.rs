//! What holds a worker: its own namespaces without a network, Landlock, seccomp, resource limits, no privileges.
//!
//! Everything is applied by the worker to itself, once, before the engine is loaded and while it has one thread. The
//! engine is taken to be compromised: it may compute, read program files and fonts, and write in its own folder. Each layer
//! can be left out alone, which is how the tests show what it is good for. What the kernel does not offer is reported, and
//! [`selftest`](super::selftest) says whether the rest is enough.

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

use super::kit;

/// Which layers are on; all of them, but for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Layers {
    /// The profile that follows no links and runs no macros.
    pub profile: bool,
    /// An environment of four fixed variables.
    pub environment: bool,
    /// User, network and IPC namespaces.
    pub namespaces: bool,
    /// Landlock: files and TCP.
    pub landlock: bool,
    /// The filter of system calls.
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

/// Bounds of a worker process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Address space on top of what the program itself has mapped, in bytes. An engine with all its modules uses 1 GiB.
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

/// Where a worker may reach.
pub struct Reach {
    /// Read and write.
    pub own: PathBuf,
    /// Read: the engine.
    pub office: Option<PathBuf>,
}

/// Read by the engine and the loader: libraries, fonts, locales, configuration of both, and two devices.
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

/// Dies with the parent, which must be the process `parent`. A change of credentials forgets the wish, so it is made
/// before and after.
///
/// # Errors
/// If the parent is gone already.
pub fn die_with(parent: u32) -> std::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let now = getppid().map(|pid: Pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) { Ok(()) } else { Err(std::io::Error::other("the supervisor is gone")) }
}

/// Applies `layers` to this process for good. Returns what the kernel did not offer, each with the reason.
///
/// # Errors
/// If the supervisor died meanwhile.
pub fn enter(layers: Layers, limits: Limits, reach: &Reach, parent: u32) -> std::io::Result<Vec<String>> {
    let mut missing = Vec::new();
    let mut note = |layer: &str, outcome: Result<(), String>| {
        if let Err(why) = outcome {
            missing.push(format!("{layer}: {why}"));
        }
    };
    if layers.limits {
        note("limits", bound(limits));
    }
    if layers.namespaces {
        note("namespaces", namespaces());
    }
    die_with(parent)?;
    if layers != Layers::NONE {
        note("no_new_privs", rustix::thread::set_no_new_privs(true).map_err(|error| error.to_string()));
        note("capabilities", drop_capabilities());
    }
    if layers.landlock {
        note("landlock", landlock(reach));
    }
    if layers.seccomp {
        note("seccomp", seccomp());
    }
    Ok(missing)
}

/// Limits and priority. Being killed first when memory is short protects the supervisor.
fn bound(limits: Limits) -> Result<(), String> {
    let mapped = mapped_bytes().unwrap_or(0);
    let bounds = [
        (Resource::As, mapped.saturating_add(limits.address_space)),
        (Resource::Fsize, limits.file_size),
        (Resource::Nofile, limits.files),
        (Resource::Core, 0),
    ];
    for (resource, most) in bounds {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
            .map_err(|error| format!("{resource:?}: {error}"))?;
    }
    std::fs::write("/proc/self/oom_score_adj", "500").map_err(|error| format!("oom_score_adj: {error}"))?;
    rustix::process::nice(5).map(drop).map_err(|error| format!("nice: {error}"))
}

/// Size of the address space now: an allocator may have reserved much of it without using any.
fn mapped_bytes() -> Option<u64> {
    super::usage::kibibytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmSize:")
}

/// A user namespace makes the others possible without privileges; the user stays the same in it.
fn namespaces() -> Result<(), String> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    kit::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWIPC)
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

/// Files by path, no TCP, no signals or abstract sockets out of the sandbox. What an older kernel lacks of this is lacking,
/// but without files it does not count.
fn landlock(reach: &Reach) -> Result<(), String> {
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
    let readable = READABLE.iter().map(PathBuf::from).chain(reach.office.clone()).filter(|path| path.exists());
    let applied = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(VERSION))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(VERSION)))
        .and_then(|rules| rules.scope(Scope::from_all(VERSION)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(readable, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules([&reach.own], write)))
        .and_then(|rules| rules.restrict_self())
        .map_err(|error| error.to_string())?;
    match applied.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced => Err("the kernel enforces a part of it (Linux 6.12 has all)".into()),
        RulesetStatus::NotEnforced => Err("the kernel does not have it (Linux 5.13 or newer)".into()),
    }
}

/// Calls that no conversion needs: any new socket, other processes, other programs, the kernel's larger surfaces.
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

/// Two calls that exist on one of the architectures only.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: [i64; 2] = [libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: [i64; 0] = [];

/// Denied calls fail with "not permitted". `clone` may make threads, not processes; `clone3` hides its flags behind a
/// pointer, so it is said not to exist, and the C library falls back to `clone`.
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
