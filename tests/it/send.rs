//! `caudal send`: each file of a folder is sent once, failures are listed, answers are saved.

use std::io::{Cursor, Write};
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::caudal::{Caudal, Folder, program};
use crate::test_images::{jpeg, scene};

async fn send(caudal: &Caudal, folder: &Path) -> (Option<i32>, Value) {
    let output = program()
        .arg("send")
        .arg(folder)
        .args(["--route", "/embeddings/index/{name}", "--to", &caudal.base, "--json"])
        .output()
        .await
        .unwrap();
    let summary = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code(), summary)
}

#[tokio::test]
async fn a_folder_is_sent_once_and_failures_are_listed() {
    let caudal = Caudal::petalert().await;
    let folder = tempfile::tempdir().unwrap();
    for number in 0..5 {
        std::fs::write(folder.path().join(format!("p{number}.jpg")), jpeg(&scene(number, 320, 240), 85)).unwrap();
    }
    std::fs::write(folder.path().join("page.jpg"), "<html></html>").unwrap();

    let (code, summary) = send(&caudal, folder.path()).await;
    assert_eq!(code, Some(1));
    assert_eq!(summary["sent"], 5);
    assert!(summary["failed"][0]["file"].as_str().unwrap().ends_with("page.jpg"));
    assert!(summary["failed"][0]["why"].as_str().unwrap().contains("HTML"), "{summary}");

    // After the bad file is replaced, only that file is sent.
    std::fs::write(folder.path().join("page.jpg"), jpeg(&scene(9, 320, 240), 85)).unwrap();
    let (code, summary) = send(&caudal, folder.path()).await;
    assert_eq!(code, Some(0));
    assert_eq!((summary["sent"].as_u64(), summary["skipped"].as_u64()), (Some(1), Some(5)));
}

const KEY: &str = "press-key-3c0b6a55e7d14f8e";

/// Fills DOCX templates and answers them as DOCX, without a conversion.
const FILL_CONFIG: &str = r#"
[auth.key.press]
key = { env = "PRESS_KEY" }

[[route]]
path   = "/templates/{name}"
method = "PUT"
flow   = "put"
body   = { raw = true }

[[route]]
path = "/templates/{name}/fill"
flow = "fill"
body = { raw = true, types = ["application/json"] }

[[flow.put.stage]]
use    = "template"
action = "put"

[[flow.put.stage]]
use = "respond"

[[flow.fill.stage]]
use = "fill"

[[flow.fill.stage]]
use = "respond"
"#;

/// A DOCX template with the variable `name`.
fn letter() -> Vec<u8> {
    let rels = "application/vnd.openxmlformats-package.relationships+xml";
    let main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml";
    let package = "http://schemas.openxmlformats.org/package/2006";
    let office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument";
    let word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main";
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in [
        (
            "[Content_Types].xml",
            format!(
                "<Types xmlns=\"{package}/content-types\"><Default Extension=\"rels\" ContentType=\"{rels}\"/>\
                 <Override PartName=\"/word/document.xml\" ContentType=\"{main}\"/></Types>"
            ),
        ),
        (
            "_rels/.rels",
            format!(
                "<Relationships xmlns=\"{package}/relationships\"><Relationship Id=\"r1\" Type=\"{office}\" \
                 Target=\"word/document.xml\"/></Relationships>"
            ),
        ),
        (
            "word/document.xml",
            format!(
                "<w:document xmlns:w=\"{word}\"><w:body><w:p><w:r><w:t>Dear {{{{ name }}}}</w:t></w:r></w:p></w:body>\
                 </w:document>"
            ),
        ),
    ] {
        writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// The document XML of a filled letter.
fn text(document: &Path) -> String {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(document).unwrap()).unwrap();
    std::io::read_to_string(archive.by_name("word/document.xml").unwrap()).unwrap()
}

async fn fill(caudal: &Caudal, contexts: &Path, answers: &Path, key: &str) -> Output {
    let mut command = program();
    command.arg("send").arg(contexts).args(["--route", "/templates/letter/fill", "--body", "raw", "--save"]);
    command.arg(answers).args(["--to", &caudal.base, "--json"]).env("CAUDAL_TOKEN", key).output().await.unwrap()
}

/// The numbers of sent and skipped files, and the failures. Checks that the key is not in the output.
fn counts(output: &Output) -> (u64, u64, Vec<Value>) {
    let printed = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    assert!(!printed.contains(KEY), "{printed}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{printed}"));
    let failed = summary["failed"].as_array().unwrap().clone();
    assert_eq!(output.status.code(), Some(i32::from(!failed.is_empty())), "{summary}");
    (summary["sent"].as_u64().unwrap(), summary["skipped"].as_u64().unwrap(), failed)
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = std::fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn contexts_become_documents_and_a_second_run_sends_only_missing_ones() {
    let folder = Folder::new();
    let config = folder.path().join("press.toml");
    std::fs::write(&config, FILL_CONFIG).unwrap();
    let caudal = Caudal::serve_with(Folder::new(), &[config.to_str().unwrap()], &[("PRESS_KEY", KEY)]).await;
    let put = caudal.client.put(caudal.url("/templates/letter")).bearer_auth(KEY).body(letter()).send().await.unwrap();
    assert_eq!(put.status(), 200, "{}", put.text().await.unwrap());
    let (contexts, answers) = (folder.path().join("contexts"), folder.path().join("documents"));
    std::fs::create_dir(&contexts).unwrap();
    let write = |name: &str, context: Value| std::fs::write(contexts.join(name), context.to_string()).unwrap();
    write("ann.json", json!({ "name": "Ann" }));
    write("bob.json", json!({ "name": "Bob" }));
    write("nobody.json", json!({ "title": "Dr" }));

    let refused = fill(&caudal, &contexts, &answers, "no such key").await;
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("status 401"), "{refused:?}");

    let (sent, skipped, failed) = counts(&fill(&caudal, &contexts, &answers, KEY).await);
    assert_eq!((sent, skipped, failed.len()), (2, 0, 1));
    assert!(failed[0]["file"].as_str().unwrap().ends_with("nobody.json"), "{failed:?}");
    let why = failed[0]["why"].as_str().unwrap();
    assert!(why.contains("{{ name }}") && why.contains("undefined_variable, status 422"), "{why}");
    assert_eq!(names(&answers), ["ann.docx", "bob.docx"]);
    assert!(text(&answers.join("ann.docx")).contains("Dear Ann"));

    // Only the failed one is sent again; then also one whose answer file was deleted.
    let (sent, skipped, failed) = counts(&fill(&caudal, &contexts, &answers, KEY).await);
    assert_eq!((sent, skipped, failed.len()), (0, 2, 1));
    write("nobody.json", json!({ "name": "Cy" }));
    std::fs::remove_file(answers.join("bob.docx")).unwrap();
    let (sent, skipped, failed) = counts(&fill(&caudal, &contexts, &answers, KEY).await);
    assert_eq!((sent, skipped, failed.len()), (2, 1, 0));
    assert_eq!(names(&answers), ["ann.docx", "bob.docx", "nobody.docx"]);
    assert!(text(&answers.join("nobody.docx")).contains("Dear Cy"));
}

#[tokio::test]
async fn files_that_share_a_name_and_answers_that_overwrite_files_are_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let contexts = folder.path().join("contexts");
    std::fs::create_dir(&contexts).unwrap();
    std::fs::write(contexts.join("a.json"), "{}").unwrap();
    let refused = async |route: &str, save: &Path| {
        let mut command = program();
        command.arg("send").arg(&contexts).args(["--route", route, "--to", "http://127.0.0.1:9", "--save"]).arg(save);
        let output = command.output().await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let why = refused("/x", &contexts).await;
    assert!(why.contains("choose another folder"), "{why}");
    std::fs::write(contexts.join("a.txt"), "{}").unwrap();
    let why = refused("/x", &folder.path().join("answers")).await;
    assert!(why.contains("would have the same name"), "{why}");
    // Under a route with the file's name, other characters do not tell files apart either. All are listed.
    for name in ["b c.json", "b-c.json", "b_c.json"] {
        std::fs::write(contexts.join(name), "{}").unwrap();
    }
    let why = refused("/x/{name}", &folder.path().join("answers")).await;
    assert!(why.contains("a: a.json, a.txt\n") && why.contains("b-c: b c.json, b-c.json\n"), "{why}");
    assert!(why.contains("rename them") && !why.contains("b_c"), "{why}");
    assert_eq!(names(&contexts), ["a.json", "a.txt", "b c.json", "b-c.json", "b_c.json"]);
}
