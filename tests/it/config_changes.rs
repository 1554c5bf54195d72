//! One data folder, many configs: every service starts, and no event that waits is lost.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::caudal::{Caudal, Folder, TIMEOUT, program};
use crate::test_images::{jpeg, scene};

/// Flows that answer with what they get, one for each name, with bounds on their backlogs.
fn echo(flows: &[(&str, u32, &str)]) -> String {
    flows
        .iter()
        .map(|(name, events, bytes)| {
            format!(
                "[flow.{name}]\nopen = true\nbacklog = {{ events = {events}, bytes = \"{bytes}\" }}\n\
                 [[flow.{name}.stage]]\nuse = \"respond\"\n"
            )
        })
        .collect()
}

/// A service of this config whose events wait: it runs no flow.
async fn gateway(folder: Folder, config: &str) -> Caudal {
    serve(folder, config, &["--role", "gateway", "--set", "nats.listen=127.0.0.1:0"]).await
}

async fn serve(folder: Folder, config: &str, args: &[&str]) -> Caudal {
    let file = folder.path().join("service.toml");
    std::fs::write(&file, config).unwrap();
    let file = file.to_str().unwrap().to_owned();
    Caudal::serve(folder, &[&[file.as_str()][..], args].concat()).await
}

/// Sends an event to an open flow, and returns its request.
async fn send(caudal: &Caudal, flow: &str, body: &str) -> String {
    let request = caudal.client.post(caudal.url(&format!("/v1/flows/{flow}"))).header("prefer", "respond-async");
    let response = request.header("content-type", "text/plain").body(body.to_owned()).send().await.unwrap();
    assert_eq!(response.status(), 202, "{}", caudal.log());
    response.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn ten_configs_over_one_folder_lose_no_event_and_start() {
    let configs: [&[(&str, u32, &str)]; 10] = [
        &[("a", 100, "1 GiB"), ("b", 100, "1 GiB")],
        // More flows, and one that is renamed.
        &[("a", 100, "1 GiB"), ("c", 100, "1 GiB"), ("d", 100, "1 GiB"), ("e", 100, "8 GiB")],
        // Bounds down to less than waits.
        &[("a", 3, "1 MiB"), ("c", 1, "64 KiB")],
        &[("b", 100, "64 GiB")],
        &[("f", 100, "1 GiB"), ("g", 100, "1 GiB"), ("h", 100, "1 GiB")],
        &[("a", 1000, "4 GiB"), ("b", 2, "1 MiB")],
        &[("i", 100, "1 GiB")],
        &[("i", 2, "1 GiB"), ("j", 100, "1 GiB")],
        &[("k", 100, "1 GiB"), ("a", 20, "1 GiB"), ("e", 5, "1 MiB")],
        &[("l", 100, "1 GiB")],
    ];
    let mut folder = Folder::new();
    let mut sent = Vec::new();
    for config in configs {
        let caudal = gateway(folder, &echo(config)).await;
        for (flow, _, _) in config.iter().filter(|(_, events, _)| *events > 10) {
            for number in 0..5 {
                sent.push((send(&caudal, flow, &format!("{flow}{number}")).await, format!("{flow}{number}")));
            }
        }
        folder = caudal.stop().await;
    }
    let all: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"].map(|f| (f, 1, "1 MiB")).to_vec();
    let caudal = serve(folder, &echo(&all), &[]).await;
    for (request, body) in &sent {
        assert_eq!(caudal.result(request).await["status"], "done", "{}", caudal.log());
        let answer = caudal.get(&format!("/v1/requests/{request}/result")).await.text().await.unwrap();
        assert_eq!(&answer, body);
    }
    assert!(sent.len() > 60, "{}", sent.len());
}

#[tokio::test]
async fn the_default_service_and_then_one_of_its_configs_share_a_folder() {
    let caudal = Caudal::serve(Folder::new(), &[]).await;
    let photo = jpeg(&scene(1, 320, 240), 85);
    assert_eq!(caudal.post_file("/embeddings/index/r1", photo.clone()).await.status(), 200);
    let folder = caudal.stop().await;
    let caudal = Caudal::serve(folder, &["config/petalert.toml"]).await;
    let found: Value = caudal.post_file("/embeddings/search_image", photo).await.json().await.unwrap();
    assert!(found.to_string().contains("r1"), "{found}");
    assert!(caudal.log().contains("removed the empty queue of a flow that is not declared"), "{}", caudal.log());
    let folder = caudal.stop().await;
    Caudal::serve(folder, &["config/gendoc.toml"]).await.stop().await;
}

/// `caudal prune` of this config over a folder of a service that has stopped.
async fn prune(folder: &Folder, config: &str, args: &[&str]) -> Output {
    let file = folder.path().join("prune.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = program();
    command.arg("prune").arg(file).arg("--data-dir").arg(folder.path().join("data")).args(args);
    tokio::time::timeout(TIMEOUT, command.output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn prune_keeps_waiting_events_unless_their_flow_is_named() {
    let caudal = gateway(Folder::new(), &echo(&[("old", 10, "1 MiB"), ("idle", 10, "1 MiB")])).await;
    send(&caudal, "old", "x").await;
    let folder = caudal.stop().await;
    let new = echo(&[("new", 10, "1 MiB")]);
    let text = |output: &Output| String::from_utf8_lossy(&[&*output.stdout, &output.stderr].concat()).into_owned();
    let wrong = prune(&folder, &new, &["--with-events", "olt"]).await;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong).contains("idle, old"), "{}", text(&wrong));
    let first = prune(&folder, &new, &[]).await;
    assert!(first.status.success(), "{}", text(&first));
    assert!(text(&first).contains("removed  idle"), "{}", text(&first));
    assert!(text(&first).contains("kept     old  1 events") && text(&first).contains("--with-events old"));
    let second = prune(&folder, &new, &["--with-events", "old"]).await;
    assert!(text(&second).contains("removed  old  1 events"), "{}", text(&second));
    assert!(text(&prune(&folder, &new, &[]).await).contains("0 queues"));
}

/// What a start fails with.
async fn failure(folder: &Folder, args: &[&str]) -> String {
    let mut command = program();
    command.arg("serve").args(args).args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join("data"));
    let output = tokio::time::timeout(TIMEOUT, command.output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_disk_limit_that_old_queues_exceed_names_them_and_the_remedy() {
    let caudal = gateway(Folder::new(), &echo(&[("old", 10, "64 GiB")])).await;
    send(&caudal, "old", "x").await;
    let folder = caudal.stop().await;
    let file = folder.path().join("new.toml");
    std::fs::write(&file, echo(&[("new", 10, "32 GiB")])).unwrap();
    let text = failure(&folder, &[file.to_str().unwrap(), "--set", "nats.max_file=80 GiB"]).await;
    for said in ["EV-old (not declared, 1 events) 64 GiB", "EV-new 32 GiB", "80 GiB", "max_file", "caudal prune"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[tokio::test]
async fn a_worker_with_an_index_of_its_own_refuses_flows_of_others() {
    let folder = Folder::new();
    let worker = ["config/petalert.toml", "--role", "worker", "--set", "nats.url=nats://127.0.0.1:1"];
    let text = failure(&folder, &worker).await;
    for said in ["index-photo, look-alikes, report", "url", "--flows", "kind = \"embedded\""] {
        assert!(text.contains(said), "{said}: {text}");
    }
    // The same for a process of any role that joins a broker of others.
    let text = failure(&folder, &["config/petalert.toml", "--set", "nats.url=nats://127.0.0.1:1"]).await;
    assert!(text.contains("index-photo"), "{text}");
    // These would get as far as the broker, which is not there.
    for args in [&["--flows", "describe"][..], &["--set", "index.kind=embedded"]] {
        let text = failure(&folder, &[&worker[..], args].concat()).await;
        assert!(text.contains("the broker at nats://127.0.0.1:1"), "{text}");
    }
}

/// The two processes of README.md.
#[tokio::test]
async fn a_worker_takes_flows_without_the_index_and_the_first_process_finds_photos() {
    let first =
        ["config/petalert.toml", "--flows", "index-photo,look-alikes,report", "--set", "nats.listen=127.0.0.1:0"];
    let first = Caudal::serve(Folder::new(), &first).await;
    let nats = crate::broker_client::address(&first.data_dir().join("nats"));
    let (url, seed) = (format!("nats.url=nats://{nats}"), first.data_dir().join("nats/caudal.nk"));
    let seed = format!("nats.nkey_seed_file={}", seed.display());
    let worker = ["config/petalert.toml", "--role", "worker", "--flows", "describe", "--set", &url, "--set", &seed];
    let _worker = Caudal::serve(Folder::new(), &worker).await;
    let photo = jpeg(&scene(1, 320, 240), 85);
    assert_eq!(first.post_file("/embeddings/index/r1", photo.clone()).await.status(), 200);
    let found: Value = first.post_file("/embeddings/search_image", photo.clone()).await.json().await.unwrap();
    assert!(found.to_string().contains("r1"), "{found}");
    let vector = tokio::time::timeout(Duration::from_secs(30), first.post_file("/embeddings/generate", photo)).await;
    assert_eq!(vector.unwrap().status(), 200);
}
