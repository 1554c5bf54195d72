//! The memory of a process is divided at load, and what does not fit is named with its line.

use pipeline::spec::{ByteSize, FlowSpec, Problems, memory_budget};
use pipeline::testing::kinds;

use crate::support::read_flows;

fn divided(budget: ByteSize, toml: &str) -> (Vec<FlowSpec>, memory_budget::MemoryShares, Problems) {
    let mut flows = read_flows(toml, &kinds()).unwrap();
    let mut problems = Problems::default();
    let shares = memory_budget::divide(budget, &mut flows, &mut problems);
    (flows, shares, problems)
}

const TWO: &str = "[[flow.f.stage]]\nuse = \"noop\"\nqueue = { bytes = \"60 MiB\" }\n[[flow.f.stage]]\nuse = \"noop\"\nname = \"b\"\n";

#[test]
fn queues_that_name_no_bytes_share_what_the_others_leave() {
    let (flows, shares, problems) = divided(ByteSize::mib(400), TWO);
    assert!(problems.is_empty());
    let bytes: Vec<ByteSize> = flows[0].stages.iter().map(|stage| stage.settings.queue.bytes()).collect();
    assert_eq!(bytes, [ByteSize::mib(60), ByteSize::mib(40)]);
    assert_eq!(flows[0].delivery_bytes, ByteSize::mib(25));
    assert_eq!((shares.pixels, shares.bodies), (ByteSize::mib(100), ByteSize::mib(50)));
}

#[test]
fn queues_larger_than_the_budget_are_refused_with_their_line() {
    let (.., problems) = divided(ByteSize::mib(200), TWO);
    let problems = problems.sorted();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.contains("61 MiB together, but of memory = 200 MiB they get a quarter, 50 MiB"));
    assert!(problems[0].remedy.contains("at least 244 MiB"));
}
