//! `make bench`: throughput, latency and memory, each measured beside its baseline in one run, as medians of
//! alternating rounds.
//!
//! `cargo bench --bench benchmarks -- engine gateway auth idle images documents overload durability` runs some of them.
//! Nothing else should run on the machine.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and fails by panicking")]

#[path = "../../tests/it/caudal.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod caudal;
#[path = "../../tests/it/test_images.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod test_images;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod auth_overhead;
mod bare_broker;
mod documents;
mod durability;
mod engine;
mod gateway;
mod idle_streams;
mod images;
mod load_generator;
mod overload;
mod statistics;

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
    if wanted("auth") {
        runtime.block_on(auth_overhead::run());
    }
    if wanted("idle") {
        runtime.block_on(idle_streams::run());
    }
    if wanted("images") {
        runtime.block_on(images::run());
    }
    if wanted("documents") {
        runtime.block_on(documents::run());
    }
    if wanted("overload") {
        runtime.block_on(overload::run());
    }
    if wanted("durability") {
        runtime.block_on(durability::run());
    }
}
