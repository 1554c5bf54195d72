//! Supervision: workers that crash, hang, send garbage or grow; the pool survives and leaves nothing behind.

use std::time::Duration;

use connectors::documents::RestartReason;
use pipeline::documents::{ConvertError, Format};
use rustix::process::{Pid, Signal, kill_process};

use crate::samples;
use crate::test_pool::{TestPool, alive, eventually, running, text};

#[tokio::test(flavor = "multi_thread")]
async fn every_document_gets_its_own_result() {
    let pool = TestPool::with_libreoffice(|config| {
        config.workers = 2;
        config.queue = 100;
        config.recycle.jobs = 20;
    })
    .await;
    let convert = |number: u32| {
        let pool = &pool;
        async move {
            let (mark, other) = (format!("Mark{number}End"), format!("Mark{}End", number ^ 1));
            let got = pool.convert(&samples::letter(&mark), Format::Docx, Format::Pdf).await.unwrap();
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
    assert_eq!(pool.pool.metrics().done, 80);
    assert!(pool.pool.metrics().restarts[&RestartReason::Jobs] >= 2, "workers were replaced meanwhile");
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_during_a_conversion_is_replaced_and_the_document_converted() {
    let pool = TestPool::with_libreoffice(|_| {}).await;
    let processes = pool.workers(2).await;
    let long: String = (0..3000).map(|line| samples::paragraph(&format!("Line {line} of a long text"))).collect();
    let input = samples::docx(&long, "");
    let kill = async {
        eventually(|| processes.iter().any(|pid| has_job(*pid))).await;
        let busy = *processes.iter().find(|pid| has_job(**pid)).unwrap();
        kill_process(Pid::from_raw(busy.cast_signed()).unwrap(), Signal::KILL).unwrap();
        busy
    };
    let (converted, killed) = tokio::join!(pool.convert(&input, Format::Docx, Format::Pdf), kill);
    assert!(text(&converted.unwrap().files[0]).contains("Line2999of"));
    assert!(!alive(killed));
    let metrics = pool.pool.metrics();
    assert_eq!((metrics.retried, metrics.restarts[&RestartReason::Crash]), (1, 1));
    pool.workers(2).await;
    pool.close().await;
}

/// Whether a worker has a document. Its environment names its folder.
fn has_job(pid: u32) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let names = String::from_utf8_lossy(&environment).into_owned();
    let folder = names.split('\0').find_map(|entry| entry.strip_prefix("TMPDIR=")).unwrap_or("/nowhere/tmp").to_owned();
    let jobs = std::path::Path::new(&folder).with_file_name("jobs");
    std::fs::read_dir(jobs).is_ok_and(|mut entries| entries.next().is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_crashes_two_workers_is_refused_and_others_are_not() {
    for word in ["abort", "garbage", "leave", "half"] {
        let pool = TestPool::with_test_engine(|_| {}).await;
        let error = pool.command(word, 60_000).await.unwrap_err();
        assert!(matches!(error, ConvertError::EngineCrashed { attempts: 2, .. }), "{word}: {error}");
        assert_eq!((error.code(), error.status(), error.retryable()), ("engine_crashed", 500, false));
        let restarts = pool.pool.metrics().restarts[&RestartReason::Crash];
        assert_eq!(restarts, 2, "{word}");
        assert_eq!(pool.command(word, 60_000).await.unwrap_err().code(), "engine_crashed");
        assert_eq!(pool.pool.metrics().restarts[&RestartReason::Crash], 2, "no third worker crashed on {word}");
        assert_eq!(pool.command("echo", 60_000).await.unwrap().files[0], "echo");
        pool.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_that_does_not_repeat_is_hidden_by_the_retry() {
    let pool = TestPool::with_test_engine(|_| {}).await;
    assert_eq!(pool.command("abort-once", 60_000).await.unwrap().files[0], "abort-once");
    assert_eq!(pool.pool.metrics().retried, 1);
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_while_idle_is_blamed_on_no_document() {
    let pool = TestPool::with_test_engine(|_| {}).await;
    for pid in pool.workers(2).await {
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
        eventually(|| !running(pid)).await;
    }
    assert_eq!(
        pool.command("abort-once", 60_000).await.unwrap().files[0],
        "abort-once",
        "both attempts were still available"
    );
    let metrics = pool.pool.metrics();
    assert_eq!((metrics.retried, metrics.restarts[&RestartReason::Crash]), (1, 3));
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_workers_that_crash_before_their_first_job_are_a_crash_loop() {
    let pool = TestPool::with_test_engine(|_| {}).await;
    for word in ["abort", "garbage", "leave"] {
        pool.workers(2).await;
        for _ in 0..2 {
            assert_eq!(pool.command("echo", 60_000).await.unwrap().files[0], "echo");
        }
        assert_eq!(pool.command(word, 60_000).await.unwrap_err().code(), "engine_crashed");
    }
    pool.workers(2).await;
    assert_eq!(pool.pool.metrics().restarts[&RestartReason::Crash], 6);
    assert!(!pool.pool.is_crash_looping());
    for word in ["half", "abort\nagain", "abort\nand again"] {
        assert_eq!(pool.command(word, 60_000).await.unwrap_err().code(), "engine_crashed");
    }
    eventually(|| pool.pool.is_crash_looping()).await;
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_never_answers_is_killed_at_the_deadline() {
    let pool = TestPool::with_test_engine(|config| config.job_timeout = Duration::from_millis(500)).await;
    let before = pool.workers(2).await;
    let error = pool.command("silent", 60_000).await.unwrap_err();
    assert!(matches!(error, ConvertError::Timeout { after } if after >= Duration::from_millis(500)), "{error}");
    assert_eq!((error.status(), error.retryable()), (504, false));
    assert_eq!(
        before.iter().filter(|pid| alive(**pid)).count(),
        1,
        "the stopped worker is gone before the error is returned"
    );
    assert_eq!(pool.command("echo", 60_000).await.unwrap().files[0], "echo");
    assert_eq!(pool.pool.metrics().restarts[&RestartReason::Timeout], 1);
    let error = pool.command("silent", 200).await.unwrap_err();
    assert_eq!(error.code(), "conversion_timeout", "the request's deadline applies too");
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_too_long_and_a_full_queue_are_reported() {
    let pool = TestPool::with_test_engine(|config| {
        config.queue = 1;
        config.job_timeout = Duration::from_secs(2);
    })
    .await;
    let holding = pool.command("silent", 60_000);
    let others = async {
        eventually(|| pool.pool.metrics().busy == 1).await;
        let (waits, refused) = tokio::join!(pool.command("echo", 300), pool.command("echo", 300));
        (waits.unwrap_err(), refused.unwrap_err())
    };
    let (held, (waited, refused)) = tokio::join!(holding, others);
    assert_eq!(held.unwrap_err().code(), "conversion_timeout");
    let mut codes = [(waited.code(), waited.status()), (refused.code(), refused.status())];
    codes.sort_unstable();
    assert_eq!(codes, [("busy", 503), ("queue_full", 429)]);
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_replaced_when_they_have_grown_or_done_enough() {
    let pool = TestPool::with_test_engine(|config| config.recycle.jobs = 5).await;
    let first = pool.workers(2).await;
    pool.command("grow", 60_000).await.unwrap();
    assert_eq!(pool.pool.metrics().restarts[&RestartReason::Memory], 1);
    for _ in 0..30 {
        pool.command("echo", 60_000).await.unwrap();
    }
    assert!(pool.pool.metrics().restarts[&RestartReason::Jobs] >= 3);
    assert!(first.iter().all(|pid| !alive(*pid)), "replaced workers are gone");
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_left_by_a_worker_are_removed_with_it() {
    let pool = TestPool::with_test_engine(|_| {}).await;
    for _ in 0..5 {
        pool.command("litter", 60_000).await.unwrap();
    }
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_end_with_a_dropped_pool() {
    let pool = TestPool::with_test_engine(|_| {}).await;
    let processes = pool.workers(2).await;
    tokio::spawn(async move { drop(pool.pool) }).await.unwrap();
    for pid in processes {
        eventually(|| !alive(pid)).await;
    }
}
