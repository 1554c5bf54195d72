//! Starts processes from a thread that lives as long as the pool.
//!
//! A worker is killed by the kernel when the *thread* that started it ends, and threads of the runtime come and go.

use std::io;
use std::process::Stdio;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

type Order = (Command, oneshot::Sender<io::Result<Child>>);

/// The thread's letter box; when it is dropped, the thread ends and every worker with it.
pub(super) struct Spawner(mpsc::Sender<Order>);

impl Spawner {
    /// Starts the thread, inside a runtime.
    pub(super) fn start() -> io::Result<Self> {
        let (orders, mut inbox) = mpsc::channel::<Order>(4);
        let runtime = Handle::current();
        std::thread::Builder::new().name("office-spawner".into()).spawn(move || {
            let _inside = runtime.enter();
            while let Some((mut command, answer)) = inbox.blocking_recv() {
                drop(answer.send(command.spawn()));
            }
        })?;
        Ok(Self(orders))
    }

    /// Starts `command`.
    pub(super) async fn spawn(&self, mut command: Command) -> io::Result<Child> {
        command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let gone = || io::Error::other("the thread that starts workers is gone");
        let (answer, answered) = oneshot::channel();
        self.0.send((command, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}
