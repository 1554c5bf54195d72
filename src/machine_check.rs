//! What a start on this machine would not find: secrets, the certificate, the files of models. Only `caudal check` looks: a
//! process reads what its role needs when it starts.

use std::error::Error;
use std::path::Path;

use connectors::models::ModelSpec;
use gateway::Tls;
use gateway::spec::GatewaySpec;
use nats::NatsSpec;
use pipeline::KeyProblem;
use pipeline::spec::{Places, Problems, Secret, Section};

/// Sections that refer to secrets, and to files as a secret does.
const WITH_SECRETS: [&str; 3] = ["auth", "index", "telemetry"];

/// Reports secrets without a value.
pub fn secrets(root: &Section<'_>, problems: &mut Problems) {
    for (place, secret) in root.secrets(&WITH_SECRETS) {
        let Err(error) = secret.read() else { continue };
        let remedy = match secret {
            Secret::Env(name) => format!("export {name}, or check without this machine's secrets: --text-only"),
            Secret::File(_) => "give a file that this user may read, or check without it: --text-only".to_owned(),
        };
        problems.add(place, chain(&error), remedy);
    }
}

/// Reports credentials of the broker that cannot be read.
pub fn broker_keys(nats: &NatsSpec, places: &Places, problems: &mut Problems) {
    for (key, file) in [("credentials", &nats.credentials), ("nkey_seed_file", &nats.nkey_seed_file)] {
        if let Some(Err(error)) = file.as_ref().map(std::fs::File::open) {
            let message =
                format!("{key} {} cannot be read: {error}", file.as_deref().unwrap_or(Path::new("")).display());
            problems.add(
                places.of(key),
                message,
                "give a file that this user may read, or check without it: --text-only",
            );
        }
    }
}

/// Reports a certificate that cannot be used.
pub fn certificate(gateway: &GatewaySpec, problems: &mut Problems) {
    let Some(Err(error)) = gateway.service.tls.as_ref().map(Tls::open) else { return };
    let remedy = "give a certificate chain and its key, or check without these files: --text-only";
    problems.add(gateway.service_places.of("tls"), chain(&error), remedy);
}

/// The problem that a model's files are missing or unusable.
pub fn model(spec: &ModelSpec) -> Option<KeyProblem> {
    let error = connectors::models::check_files(spec, Path::new("")).err()?;
    let remedy = "put the files there, or check without them: --text-only".to_owned();
    Some(KeyProblem { key: "source", message: chain(&error), remedy })
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
