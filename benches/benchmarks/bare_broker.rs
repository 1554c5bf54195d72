//! A bare nats-server for the baselines.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::caudal::checkout;

/// A nats-server with JetStream, its own folder, and the settings of Caudal's private broker. Dropping it stops it.
pub struct Broker {
    pub url: String,
    child: Child,
    _folder: TempDir,
}

impl Broker {
    pub fn start() -> Self {
        Self::start_with("1s")
    }

    /// Starts a broker with this `sync_interval`.
    pub fn start_with(sync: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let ports: PathBuf = folder.path().into();
        let config = format!(
            "listen: \"127.0.0.1:-1\"\nports_file_dir: \"{0}\"\nmax_payload: 2MB\njetstream {{ store_dir: \"{0}/js\", sync_interval: \"{1}\" }}\n",
            ports.display(),
            sync
        );
        let file = folder.path().join("nats.conf");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(checkout().join(".caudal/bin/nats-server"))
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ports_file = ports.join(format!("nats-server_{}.ports", child.id()));
        let url = loop {
            let text = std::fs::read_to_string(&ports_file).unwrap_or_default();
            if let Ok(ports) = serde_json::from_str::<serde_json::Value>(&text) {
                break ports["nats"][0].as_str().unwrap().to_owned();
            }
            std::thread::yield_now();
        };
        Self { url, child, _folder: folder }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
