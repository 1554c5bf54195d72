//! `make bench`: every figure beside what it is compared with, in one run on one machine, medians of alternating rounds.
//!
//! `cargo bench --bench figures -- engine gateway guarded idle images documents pressure durability` runs some of them.
//! Nothing else should run meanwhile.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints what it measured, or stops")]

#[path = "../../tests/it/caudal.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod caudal;
#[path = "../../tests/it/pictures.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod pictures;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod broker;
mod documents;
mod durability;
mod engine;
mod gateway;
mod guarded;
mod idle;
mod images;
mod load;
mod numbers;
mod pressure;

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|one| one == name);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if wanted("engine") {
        runtime.block_on(engine::run());
    }
    if wanted("gateway") {
        runtime.block_on(gateway::run());
    }
    if wanted("guarded") {
        runtime.block_on(guarded::run());
    }
    if wanted("idle") {
        runtime.block_on(idle::run());
    }
    if wanted("images") {
        runtime.block_on(images::run());
    }
    if wanted("documents") {
        runtime.block_on(documents::run());
    }
    if wanted("pressure") {
        runtime.block_on(pressure::run());
    }
    if wanted("durability") {
        runtime.block_on(durability::run());
    }
}
