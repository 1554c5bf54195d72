//! Compares the documents that `fill` makes with those of docxtpl, the Python library that it is compatible with.
//!
//! The templates are built here, one for each feature of the language. Each is filled by `fill` and by docxtpl itself
//! (installed by `scripts/setup.py --test`), and `oracle.py` reads both documents: text by paragraph, formatting by
//! run, tables with spans, merges and colours, images with their sizes, links, headers, footers, footnotes, properties.
//! Behaviour where docxtpl is wrong is tested in `src/documents/fill/tests.rs` instead.

#![expect(clippy::unwrap_used, reason = "a failed step ends the test")]

mod cases;
mod package;

use std::path::{Path, PathBuf};
use std::process::Command;

use operators::documents::fill::{FillError, Options, Template, Undefined};
use serde_json::{Value, json};

/// One template with its data.
pub struct Case {
    name: &'static str,
    template: Vec<u8>,
    data: Value,
    autoescape: bool,
    /// Facts that are not compared; the reason is stated at the case.
    except: &'static [&'static str],
}

fn fill(case: &Case) -> Result<Vec<u8>, FillError> {
    // docxtpl prints missing variables as blank.
    let options = Options { autoescape: case.autoescape, undefined: Undefined::Blank, ..Options::default() };
    let template = Template::compile(case.template.clone().into(), &options);
    template.and_then(|template| template.render(&case.data))
}

fn write(folder: &Path, case: &Case, found: &mut Vec<String>) {
    let ours = match fill(case) {
        Ok(ours) => ours,
        Err(why) => return found.push(format!("{}\n    ours    {why:?}", case.name)),
    };
    let folder = folder.join(case.name);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("template.docx"), &case.template).unwrap();
    std::fs::write(folder.join("data.json"), case.data.to_string()).unwrap();
    std::fs::write(folder.join("options.json"), json!({"autoescape": case.autoescape}).to_string()).unwrap();
    std::fs::write(folder.join("ours.docx"), ours).unwrap();
}

fn ask_docxtpl(folder: &Path) -> Value {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed: PathBuf = here.join("../.caudal/docxtpl");
    assert!(installed.join("docxtpl").is_dir(), "docxtpl is not installed: run `python3 scripts/setup.py --test`");
    let asked = Command::new("python3")
        .arg(here.join("tests/docxtpl/oracle.py"))
        .arg(folder)
        .env("PYTHONPATH", installed)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    serde_json::from_slice(&asked.stdout).unwrap()
}

/// Lists the differences, one readable line each.
fn differences(path: &str, theirs: &Value, ours: &Value, except: &[&str], found: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys.into_iter().filter(|key| !except.contains(&key.as_str())) {
                let missing = Value::Null;
                let (a, b) = (a.get(key).unwrap_or(&missing), b.get(key).unwrap_or(&missing));
                differences(&format!("{path}/{key}"), a, b, except, found);
            }
        }
        _ if theirs != ours => found.push(format!("{path}\n    docxtpl {theirs}\n    ours    {ours}")),
        _ => {}
    }
}

#[test]
fn documents_are_those_of_docxtpl() {
    let folder = std::env::temp_dir().join(format!("caudal-docxtpl-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    let cases = cases::all();
    let mut found = Vec::new();
    cases.iter().for_each(|case| write(&folder, case, &mut found));
    let answer = ask_docxtpl(&folder);
    for case in &cases {
        let facts = &answer[case.name];
        if !facts["theirs"]["word/document.xml"].is_object() {
            found.push(format!("{} was not compared", case.name));
        }
        differences(case.name, &facts["theirs"], &facts["ours"], case.except, &mut found);
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

#[test]
fn the_comparison_sees_a_difference() {
    let (a, b) = (json!({"p": {"x": [1], "y": 2}}), json!({"p": {"x": [2], "y": 2, "z": 3}}));
    let mut found = Vec::new();
    differences("", &a, &b, &[], &mut found);
    assert_eq!(found.len(), 2, "{found:?}");
}
