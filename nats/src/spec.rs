//! The section `[nats]`: where the broker is or how the private server is run, and the bounds of each stream.
//!
//! Deserialising has no side effects; [`NatsSpec::check`] reports keys that contradict each other, with their places.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pipeline::LedgerLimits;
use pipeline::spec::{ByteSize, Places, Problems};
use serde::Deserialize;

use crate::access::{Access, Auth};
use crate::sync_interval::SyncInterval;

/// Adds a problem: the key, the message and the remedy.
type Report<'a> = dyn FnMut(&str, String, &str) + 'a;

/// `[nats]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsSpec {
    /// Address of a running broker, for example `nats://host:4222` (several, separated by commas). Absent: a private
    /// nats-server is started and dies with this process.
    pub url: Option<String>,
    /// Credentials file (JWT and seed) for `url`.
    pub credentials: Option<PathBuf>,
    /// File with the nkey seed of a user, for `url`.
    pub nkey_seed_file: Option<PathBuf>,
    /// Address at which the private server listens. Absent: loopback, any free port, for this process only.
    pub listen: Option<SocketAddr>,
    /// Address at which the private server listens for MQTT 3.1.1. Absent: it does not.
    pub mqtt: Option<SocketAddr>,
    /// How long acknowledged messages of the private server may stay in the page cache before an fsync: `"1s"`, another
    /// interval, or `"always"` for an fsync before every acknowledgement.
    pub sync: SyncInterval,
    /// Disk that all streams of the private server may reserve. Absent: only each stream's own bound counts.
    pub max_file: Option<ByteSize>,
    /// Memory that the private server may use for streams in memory; also bounds its heap.
    pub max_mem: ByteSize,
    /// Replicas of every stream, each on another server of a cluster: 1, 3 or 5.
    pub replicas: usize,
    /// Age at which results expire.
    pub results_max_age_hours: u64,
    /// Bytes of all results; when full, the oldest are dropped.
    pub results_max_bytes: ByteSize,
    /// Age at which bodies in the object store expire. Must be longer than the longest wait in a queue.
    pub claims_max_age_hours: u64,
    /// Bytes of all bodies in the object store; when full, further bodies are refused.
    pub claims_max_bytes: ByteSize,
    /// Time after which a body without an event is orphaned and removed. Must be longer than the longest upload.
    pub claims_orphaned_after_s: u64,
    /// Age at which dead letters expire.
    pub dead_max_age_hours: u64,
    /// Bytes of all dead letters; when full, the oldest are dropped.
    pub dead_max_bytes: ByteSize,
    /// Bytes of all records; when full, further records are refused.
    pub records_max_bytes: ByteSize,
    /// Age at which the ledger forgets an event that ended.
    pub ledger_max_age_hours: u64,
    /// Ended events that the ledger remembers; beyond that, the oldest are forgotten early. About 50 bytes of memory
    /// each.
    pub ledger_max_events: usize,
}

/// Clients ask for a result within a day or not at all.
const RESULTS_MAX_AGE_HOURS: u64 = 24;
/// A body is needed while its event waits, and afterwards by its dead letter.
const CLAIMS_MAX_AGE_HOURS: u64 = DEAD_MAX_AGE_HOURS;
/// An upload takes minutes at most, whichever time limits the gateway is given.
const CLAIMS_ORPHANED_AFTER_S: u64 = 3600;
/// People look at dead letters at least once a month.
const DEAD_MAX_AGE_HOURS: u64 = 30 * 24;
/// Streams are on disk; only consumers of results are in memory, a few KB each.
const MAX_MEM: ByteSize = ByteSize::mib(256);

impl Default for NatsSpec {
    fn default() -> Self {
        Self {
            url: None,
            credentials: None,
            nkey_seed_file: None,
            listen: None,
            mqtt: None,
            sync: SyncInterval::default(),
            max_file: None,
            max_mem: MAX_MEM,
            replicas: 1,
            results_max_age_hours: RESULTS_MAX_AGE_HOURS,
            results_max_bytes: ByteSize::mib(2 << 10),
            claims_max_age_hours: CLAIMS_MAX_AGE_HOURS,
            claims_max_bytes: ByteSize::mib(8 << 10),
            claims_orphaned_after_s: CLAIMS_ORPHANED_AFTER_S,
            dead_max_age_hours: DEAD_MAX_AGE_HOURS,
            dead_max_bytes: ByteSize::mib(1 << 10),
            records_max_bytes: ByteSize::mib(1 << 10),
            ledger_max_age_hours: RESULTS_MAX_AGE_HOURS,
            ledger_max_events: LedgerLimits::default().events,
        }
    }
}

impl NatsSpec {
    /// Reports keys that contradict each other, and values that are not allowed.
    pub fn check(&self, places: &Places, problems: &mut Problems) {
        let mut report = |key: &str, message: String, remedy: &str| problems.add(places.of(key), message, remedy);
        match self.url {
            Some(_) => self.check_own_broker(&mut report),
            None => self.check_private_server(&mut report),
        }
        if self.credentials.is_some() && self.nkey_seed_file.is_some() {
            report("nkey_seed_file", "both credentials and nkey_seed_file are given".into(), "keep one of them");
        }
        if ![1, 3, 5].contains(&self.replicas) {
            report("replicas", format!("replicas is {}", self.replicas), "give 1, 3 or 5");
        }
        self.check_ages(&mut report);
    }

    fn check_own_broker(&self, report: &mut Report<'_>) {
        for (key, set) in [("listen", self.listen.is_some()), ("mqtt", self.mqtt.is_some())] {
            if set {
                let message = format!("{key} is for the private server, but url names another broker");
                report(key, message, "remove one of the two");
            }
        }
    }

    fn check_private_server(&self, report: &mut Report<'_>) {
        for (key, set) in
            [("credentials", self.credentials.is_some()), ("nkey_seed_file", self.nkey_seed_file.is_some())]
        {
            if set {
                report(key, format!("{key} is for a broker at url, but url is absent"), "add url");
            }
        }
        if self.replicas > 1 {
            let message = format!("replicas is {}, but the private server is one server", self.replicas);
            report("replicas", message, "set url to a cluster, or leave replicas out");
        }
    }

    fn check_ages(&self, report: &mut Report<'_>) {
        if self.claims_max_age_hours < self.dead_max_age_hours {
            let (claims, dead) = (self.claims_max_age_hours, self.dead_max_age_hours);
            let message =
                format!("claims_max_age_hours is {claims}, but dead letters need their bodies for {dead} hours");
            report("claims_max_age_hours", message, "raise it, or lower dead_max_age_hours");
        }
        if self.claims_orphaned_after_s == 0 {
            let message =
                "claims_orphaned_after_s is 0, which would remove bodies before their event is submitted".to_owned();
            report("claims_orphaned_after_s", message, "give more seconds than the longest upload takes");
        }
        for (key, hours) in [
            ("results_max_age_hours", self.results_max_age_hours),
            ("claims_max_age_hours", self.claims_max_age_hours),
            ("dead_max_age_hours", self.dead_max_age_hours),
            ("ledger_max_age_hours", self.ledger_max_age_hours),
        ] {
            if hours == 0 {
                report(key, format!("{key} is 0, which would mean that nothing expires"), "give at least 1");
            }
        }
    }

    /// The broker named by `url`; `None` asks for the private server.
    #[must_use]
    pub fn access(&self) -> Option<Access> {
        let url = self.url.clone()?;
        let auth = match (&self.credentials, &self.nkey_seed_file) {
            (Some(file), _) => Auth::Credentials(file.clone()),
            (None, Some(file)) => Auth::NkeySeed(file.clone()),
            (None, None) => Auth::None,
        };
        Some(Access { url, auth })
    }

    /// Bounds of the streams.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let hours = |hours: u64| Duration::from_secs(hours.saturating_mul(3600));
        Limits {
            replicas: self.replicas,
            results_max_age: hours(self.results_max_age_hours),
            results_max_bytes: self.results_max_bytes,
            claims_max_age: hours(self.claims_max_age_hours),
            claims_max_bytes: self.claims_max_bytes,
            claims_orphaned_after: Duration::from_secs(self.claims_orphaned_after_s),
            dead_max_age: hours(self.dead_max_age_hours),
            dead_max_bytes: self.dead_max_bytes,
            records_max_bytes: self.records_max_bytes,
            ledger: LedgerLimits { events: self.ledger_max_events.max(1), age: hours(self.ledger_max_age_hours) },
        }
    }
}

/// Bounds of the streams that all flows share.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Replicas of every stream.
    pub replicas: usize,
    /// Age at which results expire.
    pub results_max_age: Duration,
    /// Bytes of results; when full, the oldest are dropped.
    pub results_max_bytes: ByteSize,
    /// Age at which bodies in the object store expire.
    pub claims_max_age: Duration,
    /// Bytes of bodies; when full, further bodies are refused.
    pub claims_max_bytes: ByteSize,
    /// Time after which a body without an event is orphaned and removed.
    pub claims_orphaned_after: Duration,
    /// Age at which dead letters expire.
    pub dead_max_age: Duration,
    /// Bytes of dead letters; when full, the oldest are dropped.
    pub dead_max_bytes: ByteSize,
    /// Bytes of records; when full, further records are refused.
    pub records_max_bytes: ByteSize,
    /// Bounds of the ledger.
    pub ledger: LedgerLimits,
}

impl Default for Limits {
    fn default() -> Self {
        NatsSpec::default().limits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(spec: &NatsSpec) -> usize {
        let mut problems = Problems::default();
        spec.check(&Places::default(), &mut problems);
        problems.sorted().len()
    }

    #[test]
    fn a_private_server_is_the_default() {
        let spec = NatsSpec::default();
        assert!(spec.access().is_none());
        assert_eq!(problems(&spec), 0);
    }

    #[test]
    fn keys_of_the_private_server_beside_a_url_are_reported() {
        let spec = NatsSpec {
            url: Some("nats://elsewhere:4222".into()),
            listen: Some("127.0.0.1:4222".parse().unwrap()),
            replicas: 2,
            ..NatsSpec::default()
        };
        assert_eq!(problems(&spec), 2);
    }

    #[test]
    fn credentials_without_a_url_are_reported() {
        assert_eq!(problems(&NatsSpec { credentials: Some("me.creds".into()), ..NatsSpec::default() }), 1);
    }

    #[test]
    fn bodies_that_expire_before_their_dead_letters_are_reported() {
        assert_eq!(problems(&NatsSpec { claims_max_age_hours: 1, ..NatsSpec::default() }), 1);
    }

    #[test]
    fn an_age_of_zero_is_reported() {
        assert_eq!(problems(&NatsSpec { results_max_age_hours: 0, ..NatsSpec::default() }), 1);
    }
}
