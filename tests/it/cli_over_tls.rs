//! The commands `send` and `dead` against a service with TLS and an API key.

use std::process::Output;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;

use crate::caudal::{Caudal, Folder, program};
use crate::test_images::{jpeg, scene};

const KEY: &str = "door-key-51d9c7f0a2b84e36";

const CONFIG: &str = r#"
[auth.key.door]
key   = { env = "DOOR_KEY" }
admin = true

[model.photo]
source = "builtin:descriptor"

[[route]]
path = "/describe/{name}"
flow = "describe"
body = { raw = true }

[flow.describe]
open = true

[[flow.describe.stage]]
use = "decode"

[[flow.describe.stage]]
use   = "embed"
model = "photo"

[[flow.describe.stage]]
use = "respond"
"#;

/// Starts a service with a self-signed certificate and an API key.
async fn serve_tls() -> Caudal {
    let folder = Folder::new();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(file("cert.pem"), cert.pem()).unwrap();
    std::fs::write(file("key.pem"), signing_key.serialize_pem()).unwrap();
    let tls = format!("[service]\ntls = {{ cert = {:?}, key = {:?} }}\n", file("cert.pem"), file("key.pem"));
    std::fs::write(file("secure.toml"), format!("{tls}{CONFIG}")).unwrap();
    let config = file("secure.toml");
    Caudal::serve_with(folder, &[&config], &[("DOOR_KEY", KEY)]).await
}

async fn run(caudal: &Caudal, args: &[&str], trusted: bool, key: &str) -> Output {
    let mut command = program();
    command.args(args).args(["--json", "--to", &caudal.base]).env("CAUDAL_TOKEN", key);
    if trusted {
        command.env("SSL_CERT_FILE", caudal.file("cert.pem"));
    }
    command.output().await.unwrap()
}

#[tokio::test]
async fn commands_reach_a_service_behind_tls_and_a_key() {
    let caudal = serve_tls().await;
    assert!(caudal.base.starts_with("https://"), "{}", caudal.base);
    let photos = tempfile::tempdir().unwrap();
    std::fs::write(photos.path().join("a.jpg"), jpeg(&scene(1, 320, 240), 85)).unwrap();
    let photos = photos.path().display().to_string();
    let send = ["send", &photos, "--route", "/describe/{name}", "--body", "raw"];
    let printed = |output: &Output| String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned();
    for (trusted, key) in [(false, KEY), (true, "another")] {
        let sent = run(&caudal, &send, trusted, key).await;
        assert_eq!(sent.status.code(), Some(1), "{}", printed(&sent));
    }
    let sent = run(&caudal, &send, true, KEY).await;
    assert!(sent.status.success(), "{}", printed(&sent));
    assert_eq!(serde_json::from_slice::<Value>(&sent.stdout).unwrap()["sent"], 1);
    assert!(!run(&caudal, &["dead", "list"], true, "another").await.status.success());
    let listed = run(&caudal, &["dead", "list"], true, KEY).await;
    assert!(listed.status.success(), "{}", printed(&listed));
    assert_eq!(serde_json::from_slice::<Value>(&listed.stdout).unwrap(), Value::Array(Vec::new()));
}
