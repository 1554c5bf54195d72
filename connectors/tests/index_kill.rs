//! Durability of the embedded index under `kill -9`: every answered write is found afterwards.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests may panic, and read the environment")]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use connectors::index::{EmbeddedIndex, Limits};
use pipeline::{Nearest, Point, Space, VectorIndex};
use support::Noise;
use uuid::Uuid;

const DIRECTORY: &str = "CAUDAL_TEST_KILL_DIRECTORY";
const ROUND: &str = "CAUDAL_TEST_KILL_ROUND";
const DIM: usize = 48;
/// Concurrent writers of the victim.
const WRITERS: u64 = 6;

fn space() -> Space {
    Space { fingerprint: "model".into(), dim: DIM }
}

/// The vector depends on the number only, the field on the round that wrote it last.
fn point(number: u64, round: u64) -> Point {
    let fields = serde_json::Map::from_iter([("round".to_string(), round.into())]);
    Point { id: Uuid::from_u64_pair(9, number), values: Noise::new(number).unit(DIM), fields }
}

fn open(directory: &std::path::Path) -> EmbeddedIndex {
    EmbeddedIndex::open(directory, Limits { free_bytes: 0, ..Limits::default() }).unwrap()
}

/// The process that is killed: writes forever and prints each answered write. Run by the test below.
#[test]
#[ignore = "run by the other test, in a process of its own"]
fn victim() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    // The parent has the other end: if it ends, this process ends too.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let index = std::sync::Arc::new(open(std::path::Path::new(&directory)));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let index = std::sync::Arc::clone(&index);
                tokio::spawn(async move {
                    for step in 0.. {
                        // Some numbers of earlier rounds are written again: replacing must lose nothing either.
                        let number =
                            if step % 4 == 3 { step / 4 * WRITERS } else { (round * 100_000 + step) * WRITERS };
                        let number = number + writer;
                        index.upsert("photos", &space(), vec![point(number, round)]).await.unwrap();
                        println!("stored {number}");
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

fn start(directory: &std::path::Path, round: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "victim", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lets the victim store at least `enough` points, kills it and returns the numbers that it printed as stored.
fn kill_after(directory: &std::path::Path, round: u64, enough: usize) -> Vec<u64> {
    let mut victim = start(directory, round);
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let mut stored = Vec::new();
    for line in lines {
        let Ok(line) = line else { break };
        // The kill may have truncated the last line.
        let Some((_, number)) = line.split_once("stored ") else { continue };
        stored.push(number.parse().unwrap());
        if stored.len() == enough {
            victim.kill().unwrap();
        }
    }
    victim.wait().unwrap();
    assert!(stored.len() >= enough, "the victim stopped by itself after {}", stored.len());
    stored
}

#[test]
fn every_answered_write_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut stored = BTreeSet::new();
    for (round, enough) in [(1, 1), (2, 40), (3, 133), (4, 310)] {
        let answered = kill_after(directory.path(), round, enough);
        stored.extend(answered.iter().copied());
        runtime.block_on(async {
            let index = open(directory.path());
            for number in &stored {
                let found = index.search("photos", &space(), Nearest::to(&point(*number, 0).values, 1)).await.unwrap();
                assert_eq!(found[0].id, point(*number, 0).id, "round {round}: point {number} is lost");
                assert!(found[0].score > 0.999);
            }
            for number in answered {
                let found = index.search("photos", &space(), Nearest::to(&point(number, 0).values, 1)).await.unwrap();
                assert_eq!(found[0].fields["round"], round, "round {round}: point {number} is an older one");
            }
            let all = index.search("photos", &space(), Nearest::to(&point(0, 0).values, 10_000)).await.unwrap();
            let ids: BTreeSet<Uuid> = all.iter().map(|hit| hit.id).collect();
            assert_eq!(ids.len(), all.len(), "a point is stored twice");
            index.close().await;
        });
    }
}
