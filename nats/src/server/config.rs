//! The generated config of the private server, and the files around it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use pipeline::spec::ByteSize;

use crate::server::keys::Keys;
use crate::spec::NatsSpec;
use crate::wire::subjects::{self, INBOX_PREFIX};

/// Heap of the server in addition to streams in memory: indexes, deduplication tables, clients.
const HEAP: u64 = 256 << 20;
/// More than the largest message, so that our own checks or the stream refuse a message that is too large. The server
/// closes the connection of a client that exceeds this.
const MAX_PAYLOAD: &str = "2MB";
/// Disk for all streams, unless `[nats] max_file` bounds it: every stream has a bound of its own. The sum of those that are
/// declared now would be too little, because queues of an earlier config keep theirs.
const NO_LIMIT: ByteSize = ByteSize(1 << 60);

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

/// An address at which this machine reaches a server that listens on `ip`.
pub fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => loopback(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Value of `GOMEMLIMIT`, the memory limit of the Go runtime.
pub fn memory_limit(spec: &NatsSpec) -> String {
    format!("{}MiB", (spec.max_mem.0 + HEAP) >> 20)
}

/// The text of the config. `port` is the port of an earlier start; without it and without `listen`, the server takes
/// any free port.
pub fn text(spec: &NatsSpec, directory: &Path, keys: &Keys, port: Option<u16>) -> String {
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
    let _ = writeln!(text, "  max_file: {}", spec.max_file.unwrap_or(NO_LIMIT).0);
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

/// Writes the users and their permissions: this process may do everything; publishers may publish events, read
/// results and look up what they may read, with inboxes under any prefix; MQTT devices have no access to the API.
fn users(text: &mut String, keys: &Keys) {
    let results = subjects::RESULTS;
    let publish: Vec<String> = [
        "ev.>".to_owned(),
        // Limits and usage. Client libraries ask whether JetStream is there before they use it.
        "$JS.API.INFO".to_owned(),
        // Names and subjects only. Client libraries look up the stream of a subject before they subscribe.
        "$JS.API.STREAM.NAMES".to_owned(),
        format!("$JS.API.STREAM.INFO.{results}"),
        format!("$JS.API.STREAM.MSG.GET.{results}"),
        format!("$JS.API.DIRECT.GET.{results}"),
        format!("$JS.API.DIRECT.GET.{results}.>"),
        format!("$JS.API.CONSUMER.CREATE.{results}"),
        format!("$JS.API.CONSUMER.CREATE.{results}.>"),
        format!("$JS.API.CONSUMER.INFO.{results}.>"),
        format!("$JS.API.CONSUMER.LIST.{results}"),
        format!("$JS.API.CONSUMER.NAMES.{results}"),
        format!("$JS.API.CONSUMER.DELETE.{results}.>"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{results}.>"),
        format!("$JS.FC.{results}.>"),
        format!("$JS.ACK.{results}.>"),
    ]
    .map(|subject| format!("\"{subject}\""))
    .to_vec();
    let _ = writeln!(text, "authorization {{ users: [");
    let _ = writeln!(text, "  {{ nkey: {} }}", keys.own);
    let inboxes = format!("{INBOX_PREFIX}.>");
    let _ = writeln!(
        text,
        "  {{ nkey: {}, permissions: {{ publish: [{}], subscribe: {{ deny: [{}] }} }} }}",
        keys.publisher,
        publish.join(", "),
        list(&[SERVER_API, OWN_SUBJECTS, UNREAD_SUBJECTS, &[&inboxes]])
    );
    if let Some(password) = &keys.mqtt {
        let _ = writeln!(
            text,
            "  {{ user: mqtt, password: \"{password}\", permissions: {{ publish: {{ deny: [{}] }}, \
             subscribe: {{ deny: [{}] }} }} }}",
            list(&[SERVER_API, OWN_SUBJECTS, STORED_SUBJECTS]),
            list(&[SERVER_API, OWN_SUBJECTS, &["_INBOX.>", &inboxes]])
        );
    }
    let _ = writeln!(text, "] }}");
}

/// The servers' own interfaces.
const SERVER_API: &[&str] = &["$JS.>", "$SYS.>"];
/// What publishers may not read besides: others' events, devices' sessions, and what the service tells itself.
const UNREAD_SUBJECTS: &[&str] = &["ev.>", "$MQTT.>", "canary.>", "cancel.>", "ledger", "refusing.*"];
/// What only the service itself reads and writes: questions whether a process lives, bodies and records.
const OWN_SUBJECTS: &[&str] = &["alive.>", "blob.>", "own.>", "rec.>"];
/// What only the service writes.
const STORED_SUBJECTS: &[&str] = &["canary.>", "cancel.>", "closed.>", "dead.>", "ledger", "refusing.*", "res.>"];

fn list(groups: &[&[&str]]) -> String {
    groups.concat().iter().map(|subject| format!("\"{subject}\"")).collect::<Vec<_>>().join(", ")
}

/// A path as a quoted string of the config's syntax.
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
        let text = text(spec, Path::new("/d"), &keys(), port);
        text.lines().find(|line| line.starts_with("listen")).unwrap().to_owned()
    }

    fn spec(listen: &str) -> NatsSpec {
        NatsSpec { listen: Some(listen.parse().unwrap()), ..NatsSpec::default() }
    }

    #[test]
    fn without_listen_the_first_port_is_any_free_one() {
        assert_eq!(listen_line(&NatsSpec::default(), None), "listen: \"127.0.0.1:-1\"");
    }

    #[test]
    fn the_port_of_an_earlier_start_is_used_again() {
        assert_eq!(listen_line(&NatsSpec::default(), Some(4333)), "listen: \"127.0.0.1:4333\"");
    }

    #[test]
    fn listen_names_address_and_port() {
        assert_eq!(listen_line(&spec("0.0.0.0:4222"), None), "listen: \"0.0.0.0:4222\"");
    }

    #[test]
    fn port_0_of_listen_is_any_free_one_and_then_stays_the_same() {
        let spec = spec("[::1]:0");
        assert_eq!(listen_line(&spec, None), "listen: \"[::1]:-1\"");
        assert_eq!(listen_line(&spec, Some(4333)), "listen: \"[::1]:4333\"");
    }

    #[test]
    fn a_server_on_every_address_is_reached_over_loopback() {
        assert_eq!(reachable("0.0.0.0".parse().unwrap()), loopback());
        assert_eq!(reachable("10.0.0.7".parse().unwrap()).to_string(), "10.0.0.7");
    }

    #[test]
    fn mqtt_devices_may_write_none_of_the_service_s_own_subjects() {
        let spec = NatsSpec { mqtt: Some("127.0.0.1:1883".parse().unwrap()), ..NatsSpec::default() };
        let keys = Keys { mqtt: Some("secret".into()), ..keys() };
        let text = text(&spec, Path::new("/d"), &keys, None);
        let user = text.lines().find(|line| line.contains("user: mqtt")).unwrap();
        let (publish, subscribe) = user.split_once("subscribe:").unwrap();
        let first_token = |subjects: &str| subjects.split('.').next().unwrap().to_owned();
        let alive = subjects::alive_subject(&pipeline::Token::random());
        let own = [&*alive, subjects::BLOB_SUBJECTS, subjects::OWN_RECORD_SUBJECTS, subjects::RECORD_SUBJECTS];
        for subjects in own {
            let denied = format!("\"{}.>\"", first_token(subjects));
            assert!(publish.contains(&denied) && subscribe.contains(&denied), "{subjects}");
        }
        for subjects in [subjects::RESULT_SUBJECTS, subjects::DEAD_LETTER_SUBJECTS, subjects::CANARY_SUBJECT] {
            assert!(publish.contains(&format!("\"{}.>\"", first_token(subjects))), "{subjects}");
        }
        assert!(publish.contains(&format!("\"{}\"", subjects::LEDGER_SUBJECT)));
    }

    #[test]
    fn a_path_cannot_end_its_string() {
        assert_eq!(quoted(Path::new("/a\"b\\c")), r#""/a\"b\\c""#);
    }
}
