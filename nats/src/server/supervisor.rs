//! State of the child process, shared by the thread that runs it and by its owner.
//!
//! The child is reaped under the same lock under which it is signalled, so that no signal ever reaches another process
//! that got the same id.

use std::process::{Child, Command, ExitStatus};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// State of the child process.
#[derive(Default)]
pub struct Supervisor {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pid: Option<Pid>,
    stopping: bool,
    /// The child was asked to end so that another one is started.
    restarting: bool,
}

impl Supervisor {
    /// The child's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.lock().pid.map(|pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Ends the child, by SIGKILL if `kill` and by SIGTERM otherwise. It is not restarted.
    pub fn stop(&self, kill: bool) {
        let mut state = self.lock();
        state.stopping = true;
        if let Some(pid) = state.pid {
            // `pid` is cleared when the child is reaped, so this is still its id.
            let _ = kill_process(pid, if kill { Signal::KILL } else { Signal::TERM });
        }
        self.changed.notify_all();
    }

    /// Ends the child, so that the thread starts another one. A child that was asked before is killed.
    pub fn restart(&self) {
        let mut state = self.lock();
        let Some(pid) = state.pid.filter(|_| !state.stopping) else { return };
        let _ = kill_process(pid, if state.restarting { Signal::KILL } else { Signal::TERM });
        state.restarting = true;
    }

    /// Whether the child that has ended was asked to, by [`restart`](Self::restart).
    pub fn take_restarting(&self) -> bool {
        std::mem::take(&mut self.lock().restarting)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the child was asked to end.
    pub fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Waits, but not longer than until [`stop`](Self::stop). Returns whether the server is still wanted.
    pub fn pause(&self, time: Duration) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, time, |state| !state.stopping);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !state.stopping
    }

    /// Starts a child; `None` after [`stop`](Self::stop).
    pub fn spawn(&self, command: &mut Command) -> std::io::Result<Option<Child>> {
        let mut state = self.lock();
        if state.stopping {
            return Ok(None);
        }
        let child = command.spawn()?;
        state.pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Some(child))
    }

    /// Waits for the child's end and reaps it.
    pub fn reap(&self, child: &mut Child) -> std::io::Result<ExitStatus> {
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(pid), ended), Err(rustix::io::Errno::INTR)) {}
        }
        let mut state = self.lock();
        state.pid = None;
        child.wait()
    }

    /// Reaps the child if it has ended.
    pub fn reap_if_ended(&self, child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
        let mut state = self.lock();
        let status = child.try_wait()?;
        if status.is_some() {
            state.pid = None;
        }
        Ok(status)
    }
}
