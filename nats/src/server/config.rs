//! The generated config of the private server, and the files around it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use pipeline::spec::ByteSize;

use super::keys::Keys;
use crate::connection::INBOX_PREFIX;
use crate::names;
use crate::spec::NatsSpec;

/// Heap of the server beside streams in memory: indexes, deduplication tables, clients.
const HEAP: u64 = 256 << 20;
/// Larger than the largest message, so that a refusal is ours and does not cost the connection.
const MAX_PAYLOAD: &str = "2MB";

/// `data_dir/nats`.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("nats")
}

/// The config file.
pub fn file(directory: &Path) -> PathBuf {
    directory.join("server.conf")
}

/// The lock file of the store.
pub fn lock_file(directory: &Path) -> PathBuf {
    directory.join("lock")
}

/// The server's own log.
pub fn log_file(directory: &Path) -> PathBuf {
    directory.join("nats.log")
}

/// 127.0.0.1.
pub fn loopback() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

/// An address at which a server that listens on `ip` can be reached from here.
pub fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => loopback(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// What `GOMEMLIMIT` should say.
pub fn memory_limit(spec: &NatsSpec) -> String {
    format!("{}MiB", (spec.max_mem.0 + HEAP) >> 20)
}

/// The text of the config. `port` pins the port of an earlier start; without it, and without `listen`, any free one.
pub fn text(spec: &NatsSpec, directory: &Path, keys: &Keys, max_file: ByteSize, port: Option<u16>) -> String {
    let listen = match (spec.listen, port) {
        (Some(listen), Some(port)) => SocketAddr::new(listen.ip(), port).to_string(),
        (Some(listen), None) if listen.port() == 0 => format!("{}:-1", host(listen.ip())),
        (Some(listen), None) => listen.to_string(),
        (None, Some(port)) => SocketAddr::new(loopback(), port).to_string(),
        (None, None) => format!("{}:-1", loopback()),
    };
    let path = |name: &str| quoted(&directory.join(name));
    let mut text = String::new();
    let _ = writeln!(text, "# Generated at every start; changes are lost.");
    let _ = writeln!(text, "server_name: \"caudal\"");
    let _ = writeln!(text, "listen: \"{listen}\"");
    let _ = writeln!(text, "ports_file_dir: {}", quoted(directory));
    let _ = writeln!(text, "pid_file: {}", path("nats.pid"));
    let _ = writeln!(text, "log_file: {}", path("nats.log"));
    let _ = writeln!(text, "log_size_limit: 16MB");
    let _ = writeln!(text, "max_payload: {MAX_PAYLOAD}");
    let _ = writeln!(text, "jetstream {{");
    let _ = writeln!(text, "  store_dir: {}", path("jetstream"));
    let _ = writeln!(text, "  max_mem: {}", spec.max_mem.0);
    let _ = writeln!(text, "  max_file: {}", spec.max_file.unwrap_or(max_file).0);
    let _ = writeln!(text, "  sync_interval: \"{}\"", spec.sync.as_str());
    let _ = writeln!(text, "  limits {{ duplicate_window: \"10m\", default_max_consumers: 2000 }}");
    let _ = writeln!(text, "}}");
    if let Some(mqtt) = spec.mqtt {
        let _ = writeln!(text, "mqtt {{ listen: \"{mqtt}\" }}");
    }
    users(&mut text, keys);
    text
}

fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// This process may do everything; publishers may send events and read results; MQTT devices may not touch the API.
fn users(text: &mut String, keys: &Keys) {
    let results = names::RESULTS;
    let publish: Vec<String> = [
        "ev.>".to_owned(),
        format!("$JS.API.STREAM.INFO.{results}"),
        format!("$JS.API.STREAM.MSG.GET.{results}"),
        format!("$JS.API.DIRECT.GET.{results}"),
        format!("$JS.API.DIRECT.GET.{results}.>"),
        format!("$JS.API.CONSUMER.CREATE.{results}"),
        format!("$JS.API.CONSUMER.CREATE.{results}.>"),
        format!("$JS.API.CONSUMER.INFO.{results}.>"),
        format!("$JS.API.CONSUMER.DELETE.{results}.>"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{results}.>"),
        format!("$JS.FC.{results}.>"),
        format!("$JS.ACK.{results}.>"),
    ]
    .map(|subject| format!("\"{subject}\""))
    .to_vec();
    let _ = writeln!(text, "authorization {{ users: [");
    let _ = writeln!(text, "  {{ nkey: {} }}", keys.own);
    let _ = writeln!(
        text,
        "  {{ nkey: {}, permissions: {{ publish: [{}], subscribe: [\"_INBOX.>\", \"res.>\", \"dead.>\"] }} }}",
        keys.publisher,
        publish.join(", ")
    );
    if let Some(password) = &keys.mqtt {
        let _ = writeln!(
            text,
            "  {{ user: mqtt, password: \"{password}\", permissions: {{ \
             publish: {{ deny: [\"$JS.>\", \"$SYS.>\", \"res.>\", \"dead.>\", \"rec.>\", \"blob.>\", \"canary.>\", \"cancel.>\", \"ledger\"] }}, \
             subscribe: {{ deny: [\"$JS.>\", \"$SYS.>\", \"_INBOX.>\", \"{INBOX_PREFIX}.>\", \"rec.>\", \"blob.>\"] }} }} }}"
        );
    }
    let _ = writeln!(text, "] }}");
}

/// A path as a string of the config's language.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys { own: "UOWN".into(), publisher: "UPUB".into(), mqtt: None }
    }

    fn listen_line(spec: &NatsSpec, port: Option<u16>) -> String {
        let text = text(spec, Path::new("/d"), &keys(), ByteSize::mib(1), port);
        text.lines().find(|line| line.starts_with("listen")).unwrap().to_owned()
    }

    #[test]
    fn the_port_is_any_then_pinned() {
        let mut spec = NatsSpec::default();
        assert_eq!(listen_line(&spec, None), "listen: \"127.0.0.1:-1\"");
        assert_eq!(listen_line(&spec, Some(4333)), "listen: \"127.0.0.1:4333\"");
        spec.listen = Some("0.0.0.0:4222".parse().unwrap());
        assert_eq!(listen_line(&spec, None), "listen: \"0.0.0.0:4222\"");
        spec.listen = Some("[::1]:0".parse().unwrap());
        assert_eq!(listen_line(&spec, None), "listen: \"[::1]:-1\"");
        assert_eq!(listen_line(&spec, Some(4333)), "listen: \"[::1]:4333\"");
    }

    #[test]
    fn a_path_cannot_end_its_string() {
        assert_eq!(quoted(Path::new("/a\"b\\c")), r#""/a\"b\\c""#);
    }
}
