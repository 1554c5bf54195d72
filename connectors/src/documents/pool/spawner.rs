//! Starts worker processes from a thread that lives as long as the pool.
//!
//! The kernel kills a worker when the *thread* that started it ends (parent-death signal), and threads of the runtime
//! may end at any time.

use std::io;
use std::process::Stdio;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

type SpawnRequest = (Command, oneshot::Sender<io::Result<Child>>);

/// The sender of requests to the thread. When it is dropped, the thread ends and every worker with it.
pub(super) struct Spawner(mpsc::Sender<SpawnRequest>);

impl Spawner {
    /// Starts the thread. Call it inside a runtime.
    pub(super) fn start() -> io::Result<Self> {
        let (sender, mut requests) = mpsc::channel::<SpawnRequest>(4);
        let runtime = Handle::current();
        std::thread::Builder::new().name("office-spawner".into()).spawn(move || {
            let _inside = runtime.enter();
            while let Some((mut command, answer)) = requests.blocking_recv() {
                drop(answer.send(command.spawn()));
            }
        })?;
        Ok(Self(sender))
    }

    /// Starts `command`.
    pub(super) async fn spawn(&self, mut command: Command) -> io::Result<Child> {
        command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let gone = || io::Error::other("the thread that starts workers has ended");
        let (answer, answered) = oneshot::channel();
        self.0.send((command, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}
