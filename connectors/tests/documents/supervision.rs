//! Workers that die, hang, talk nonsense or grow: what the pool makes of it, and that nothing is left.

use std::time::Duration;

use connectors::documents::Reason;
use pipeline::documents::{ConvertError, Format};
use rustix::process::{Pid, Signal, kill_process};

use crate::samples;
use crate::world::{World, alive, eventually, running, text};

#[tokio::test(flavor = "multi_thread")]
async fn every_document_comes_back_as_itself() {
    let world = World::office(|config| {
        config.workers = 2;
        config.queue = 100;
        config.recycle.jobs = 20;
    })
    .await;
    let convert = |number: u32| {
        let world = &world;
        async move {
            let (mark, other) = (format!("Mark{number}End"), format!("Mark{}End", number ^ 1));
            let got = world.convert(&samples::letter(&mark), Format::Docx, Format::Pdf).await.unwrap();
            let text = text(&got.files[0]);
            assert!(text.contains(&mark) && !text.contains(&other), "{text}");
        }
    };
    futures_util::future::join_all((0..8).map(|client| async move {
        for number in 0..10 {
            convert(client * 10 + number).await;
        }
    }))
    .await;
    assert_eq!(world.pool.figures().done, 80);
    assert!(world.pool.figures().restarts[&Reason::Jobs] >= 2, "workers were replaced meanwhile");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_costs_nobody_the_answer() {
    let world = World::office(|_| {}).await;
    let processes = world.workers(2).await;
    let long: String = (0..3000).map(|line| samples::paragraph(&format!("Line {line} of a long text"))).collect();
    let input = samples::docx(&long, "");
    let kill = async {
        eventually(|| processes.iter().any(|pid| has_job(*pid))).await;
        let busy = *processes.iter().find(|pid| has_job(**pid)).unwrap();
        kill_process(Pid::from_raw(busy.cast_signed()).unwrap(), Signal::KILL).unwrap();
        busy
    };
    let (converted, killed) = tokio::join!(world.convert(&input, Format::Docx, Format::Pdf), kill);
    assert!(text(&converted.unwrap().files[0]).contains("Line2999of"));
    assert!(!alive(killed));
    let figures = world.pool.figures();
    assert_eq!((figures.retried, figures.restarts[&Reason::Crash]), (1, 1));
    world.workers(2).await;
    world.close().await;
}

/// Whether a worker has a document, by its folder, which its environment names.
fn has_job(pid: u32) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let names = String::from_utf8_lossy(&environment).into_owned();
    let folder = names.split('\0').find_map(|entry| entry.strip_prefix("TMPDIR=")).unwrap_or("/nowhere/tmp").to_owned();
    let jobs = std::path::Path::new(&folder).with_file_name("jobs");
    std::fs::read_dir(jobs).is_ok_and(|mut entries| entries.next().is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_kills_two_workers_is_refused_and_others_are_not() {
    for word in ["abort", "garbage", "leave", "half"] {
        let world = World::fake(|_| {}).await;
        let error = world.say(word, 60_000).await.unwrap_err();
        assert!(matches!(error, ConvertError::EngineCrashed { attempts: 2, .. }), "{word}: {error}");
        assert_eq!((error.code(), error.status(), error.retryable()), ("engine_crashed", 500, false));
        let restarts = world.pool.figures().restarts[&Reason::Crash];
        assert_eq!(restarts, 2, "{word}");
        assert_eq!(world.say(word, 60_000).await.unwrap_err().code(), "engine_crashed");
        assert_eq!(world.pool.figures().restarts[&Reason::Crash], 2, "no third worker was spent on {word}");
        assert_eq!(world.say("echo", 60_000).await.unwrap().files[0], "echo");
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_that_does_not_come_again_is_not_seen() {
    let world = World::fake(|_| {}).await;
    assert_eq!(world.say("abort-once", 60_000).await.unwrap().files[0], "abort-once");
    assert_eq!(world.pool.figures().retried, 1);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_while_idle_is_no_documents_fault() {
    let world = World::fake(|_| {}).await;
    for pid in world.workers(2).await {
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
        eventually(|| !running(pid)).await;
    }
    assert_eq!(world.say("abort-once", 60_000).await.unwrap().files[0], "abort-once", "both attempts were left");
    let figures = world.pool.figures();
    assert_eq!((figures.retried, figures.restarts[&Reason::Crash]), (1, 3));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_workers_that_die_without_having_been_of_use_are_a_crash_loop() {
    let world = World::fake(|_| {}).await;
    for word in ["abort", "garbage", "leave"] {
        world.workers(2).await;
        for _ in 0..2 {
            assert_eq!(world.say("echo", 60_000).await.unwrap().files[0], "echo");
        }
        assert_eq!(world.say(word, 60_000).await.unwrap_err().code(), "engine_crashed");
    }
    world.workers(2).await;
    assert_eq!(world.pool.figures().restarts[&Reason::Crash], 6);
    assert!(!world.pool.failing());
    for word in ["half", "abort\nagain", "abort\nand again"] {
        assert_eq!(world.say(word, 60_000).await.unwrap_err().code(), "engine_crashed");
    }
    eventually(|| world.pool.failing()).await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_never_answers_is_gone_at_the_deadline() {
    let world = World::fake(|config| config.job_timeout = Duration::from_millis(500)).await;
    let before = world.workers(2).await;
    let error = world.say("silent", 60_000).await.unwrap_err();
    assert!(matches!(error, ConvertError::Timeout { after } if after >= Duration::from_millis(500)), "{error}");
    assert_eq!((error.status(), error.retryable()), (504, false));
    assert_eq!(before.iter().filter(|pid| alive(**pid)).count(), 1, "the stopped one is gone when the answer comes");
    assert_eq!(world.say("echo", 60_000).await.unwrap().files[0], "echo");
    assert_eq!(world.pool.figures().restarts[&Reason::Timeout], 1);
    let error = world.say("silent", 200).await.unwrap_err();
    assert_eq!(error.code(), "conversion_timeout", "the request's own deadline counts too");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_or_in_vain_is_told() {
    let world = World::fake(|config| {
        config.queue = 1;
        config.job_timeout = Duration::from_secs(2);
    })
    .await;
    let holding = world.say("silent", 60_000);
    let others = async {
        eventually(|| world.pool.figures().busy == 1).await;
        let (waits, refused) = tokio::join!(world.say("echo", 300), world.say("echo", 300));
        (waits.unwrap_err(), refused.unwrap_err())
    };
    let (held, (waited, refused)) = tokio::join!(holding, others);
    assert_eq!(held.unwrap_err().code(), "conversion_timeout");
    let mut codes = [(waited.code(), waited.status()), (refused.code(), refused.status())];
    codes.sort_unstable();
    assert_eq!(codes, [("busy", 503), ("queue_full", 429)]);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_replaced_when_they_have_grown_or_done_enough() {
    let world = World::fake(|config| config.recycle.jobs = 5).await;
    let first = world.workers(2).await;
    world.say("grow", 60_000).await.unwrap();
    assert_eq!(world.pool.figures().restarts[&Reason::Memory], 1);
    for _ in 0..30 {
        world.say("echo", 60_000).await.unwrap();
    }
    assert!(world.pool.figures().restarts[&Reason::Jobs] >= 3);
    assert!(first.iter().all(|pid| !alive(*pid)), "replaced workers are gone");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_leaves_lying_about_goes_with_it() {
    let world = World::fake(|_| {}).await;
    for _ in 0..5 {
        world.say("litter", 60_000).await.unwrap();
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_die_with_a_pool_that_is_dropped() {
    let world = World::fake(|_| {}).await;
    let processes = world.workers(2).await;
    tokio::spawn(async move { drop(world.pool) }).await.unwrap();
    for pid in processes {
        eventually(|| !alive(pid)).await;
    }
}
