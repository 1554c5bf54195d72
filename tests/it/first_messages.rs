//! What the program says to somebody who has not used it before.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use crate::caudal::{Caudal, Folder, TIMEOUT, program};
use crate::test_images::{jpeg, scene};

async fn run(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = program();
    command.args(args).env_remove("CAUDAL_TOKEN").envs(variables.iter().copied());
    tokio::time::timeout(TIMEOUT, command.output()).await.expect("it ends").unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that a command fails with this exit code and says all of this.
async fn assert_fails(args: &[&str], code: i32, said: &[&str]) -> String {
    let output = run(args, &[]).await;
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{text}");
    for word in said {
        assert!(text.contains(word), "{word}: {text}");
    }
    text
}

#[tokio::test]
async fn a_command_without_its_subcommand_prints_help() {
    for (args, known) in [(&[][..], "serve"), (&["dead"][..], "retry")] {
        let output = run(args, &[]).await;
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("Usage:") && text.contains(known), "{text}");
        assert!(!text.contains("office-worker"), "{text}");
    }
}

#[tokio::test]
async fn help_says_what_a_number_of_a_dead_letter_is() {
    for command in ["show", "retry", "drop"] {
        let output = run(&["dead", command, "--help"], &[]).await;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("<NUMBER>") && text.contains("caudal dead list"), "{text}");
    }
}

#[tokio::test]
async fn an_address_to_listen_on_has_a_host_and_a_port() {
    for (listen, said) in [("8080", "127.0.0.1:8080"), ("localhost", "localhost:8080"), ("[::1]", "[::1]:8080")] {
        assert_fails(&["serve", "--listen", listen], 2, &["--listen", listen, said]).await;
    }
}

#[tokio::test]
async fn an_address_of_a_service_has_a_scheme() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.jpg"), "x").unwrap();
    let folder = folder.path().to_str().unwrap();
    for command in [&["send", folder, "--route", "/x"][..], &["dead", "list"]] {
        for (to, said) in [("localhost:8080", "http://localhost:8080"), ("127.0.0.1:1", "https://"), ("ftp://h", "ftp")]
        {
            assert_fails(&[command, &["--to", to]].concat(), 2, &["--to", to, said]).await;
        }
    }
}

#[tokio::test]
async fn a_wrong_broker_program_is_named_with_the_reason() {
    let folder = Folder::new();
    let data = folder.path().join("data");
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    let odd = folder.path().join("odd");
    std::fs::write(&odd, "no program either").unwrap();
    std::fs::set_permissions(&odd, std::fs::Permissions::from_mode(0o755)).unwrap();
    // An earlier run has left a log.
    let caudal = Caudal::serve(folder, &["config/petalert.toml"]).await;
    let _folder = caudal.kill().await;
    for (server, why) in [
        ("/nowhere/nats-server", "No such file"),
        ("/tmp", "not a file"),
        (plain.to_str().unwrap(), "not executable"),
        (odd.to_str().unwrap(), "ended at start"),
        ("/bin/true", "is it nats-server?"),
    ] {
        let args = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
        let output = run(&args, &[("CAUDAL_NATS_SERVER", server)]).await;
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(server) && text.contains(why) && !text.contains("Starting"), "{server}: {text}");
    }
}

/// A folder with some files to send.
fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..20 {
        std::fs::write(folder.path().join(format!("p{number}.jpg")), jpeg(&scene(number, 64, 64), 85)).unwrap();
    }
    folder
}

#[tokio::test]
async fn sending_to_a_service_that_is_not_there_stops_at_the_first_file() {
    let folder = files();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let args = ["send", folder.path().to_str().unwrap(), "--route", "/embeddings/generate", "--to", &to];
    let text = assert_fails(&args, 1, &["no service answers", &to, "--to"]).await;
    assert!(!text.contains(".jpg") && text.lines().count() == 2, "{text}");
    assert_fails(&["dead", "list", "--to", &to], 1, &["no service answers", &to, "--to"]).await;
}

#[tokio::test]
async fn sending_without_the_right_key_stops_at_the_first_file() {
    let keys = [("CAUDAL_KEY_SHELTER", "shelter-key-5d0c1f4b"), ("CAUDAL_KEY_OPERATOR", "operator-key-77aa01c9")];
    let configs = ["config/petalert.toml", "config/keys.toml"];
    let caudal = Caudal::serve_with(Folder::new(), &configs, &keys).await;
    let folder = files();
    let folder = folder.path().to_str().unwrap();
    let send = ["send", folder, "--route", "/embeddings/generate", "--to", &caudal.base];
    for token in [&[][..], &["--token", "wrong"]] {
        let text = assert_fails(&[&send[..], token].concat(), 1, &["--token", "CAUDAL_TOKEN"]).await;
        assert!(!text.contains(".jpg"), "{text}");
        assert_fails(&[&["dead", "list", "--to", &caudal.base][..], token].concat(), 1, &["--token"]).await;
    }
    let output = run(&send, &[("CAUDAL_TOKEN", "shelter-key-5d0c1f4b")]).await;
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn a_healthy_service_logs_no_warning() {
    let caudal = Caudal::serve(Folder::new(), &[]).await;
    let photo = jpeg(&scene(1, 320, 240), 85);
    for path in ["/embeddings/index/r1", "/embeddings/search_image", "/embeddings/generate"] {
        assert_eq!(caudal.post_file(path, photo.clone()).await.status(), 200);
    }
    let args: [&str; 0] = [];
    // A kill and a restart over the same data are no reason for one either.
    let caudal = caudal.restart(&args).await;
    assert_eq!(caudal.post_file("/embeddings/search_image", photo).await.status(), 200);
    let log = caudal.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}
