//! Mistakes in a config are all found, each with its line and what to do.

use crate::support::read_flows;
use pipeline::spec::{Problems, Sources};
use pipeline::testing::kinds;
use serde::Deserialize;

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

#[test]
fn limits_under_which_no_event_could_be_done_are_refused() {
    let stage = "[[flow.f.stage]]\nuse = \"noop\"\n";
    let text = problems(&format!("[flow.f]\nack_wait_ms = 0\n{stage}timeout_ms = 0\n"));
    for expected in ["ack_wait_ms is 0", "timeout_ms of noop is 0", "test.toml:5:"] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

/// A section whose key `colour` was called `color` before.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paint {
    colour: String,
}

/// Reads `[paint]` from two files.
fn read_paint(first: &str, second: &str) -> (Option<Paint>, Problems, String) {
    let mut sources = Sources::default();
    sources.add("first.toml", first);
    sources.add("second.toml", second);
    let mut problems = Problems::default();
    let mut section = sources.parse(&mut problems).root.take_section("paint", &mut problems).unwrap();
    section.renamed("color", "colour", &mut problems);
    let paint = section.read(&mut problems);
    let text = problems.render(&sources, false);
    (paint, problems, text)
}

#[test]
fn a_renamed_key_works_and_warns_with_its_file_and_line() {
    let (paint, problems, text) = read_paint("[paint]\n", "[paint]\n# as it was\ncolor = \"red\"\n");
    assert_eq!(paint, Some(Paint { colour: "red".into() }));
    assert!(problems.is_empty(), "{text}");
    for expected in ["warning: `color` is now called `colour`", "second.toml:3:1", "still works in this release"] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn a_renamed_key_and_the_new_one_in_two_files_are_a_warning_and_the_later_file_counts() {
    let (paint, problems, text) = read_paint("[paint]\ncolor = \"red\"\n", "[paint]\ncolour = \"blue\"\n");
    assert!(problems.is_empty() && paint == Some(Paint { colour: "blue".into() }), "{text}");
    assert!(text.contains("warning: `color` and `colour` are both set") && text.contains("first.toml:2:1"), "{text}");
    let (paint, ..) = read_paint("[paint]\ncolour = \"blue\"\n", "[paint]\ncolor = \"red\"\n");
    assert_eq!(paint, Some(Paint { colour: "red".into() }));
}
