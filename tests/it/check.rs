//! `caudal check` and `caudal doctor`; the shipped configs are valid.

use serde_json::Value;

use crate::caudal::{checkout, program};

const FIVE_MISTAKES: &str = r#"
[service]
listn = "127.0.0.1:8080"

[model.photo]
source = "builtin:descriptor"

[[route]]
path = "/embeddings/generate"
flow = "descibe"
body = { multipart = "file", max_bytes = "10 MB" }

[flow.describe]
[[flow.describe.stage]]
use = "decode"

[[flow.describe.stage]]
use   = "embed"
model = "foto"

[[flow.describe.stage]]
use = "split"
part = "photo"
"#;

#[tokio::test]
async fn five_mistakes_are_five_problems_with_line_column_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.toml");
    std::fs::write(&file, FIVE_MISTAKES).unwrap();
    let output = program().args(["check", "--json"]).arg(&file).output().await.unwrap();
    assert_eq!(output.status.code(), Some(3));
    let problems: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let lines: Vec<u64> = problems.iter().map(|problem| problem["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [3, 10, 11, 19, 22], "{problems:#?}");
    for problem in &problems {
        assert_eq!(problem["file"], file.display().to_string());
        assert!(problem["column"].as_u64().unwrap() >= 1);
        assert!(!problem["remedy"].as_str().unwrap().is_empty(), "{problem}");
    }
    let text = program().arg("check").arg(&file).output().await.unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    for (line, what) in [(3, "listn"), (10, "descibe"), (11, "10 MB"), (19, "foto"), (22, "split takes parts")] {
        assert!(text.contains(&format!("wrong.toml:{line}:")), "{text}");
        assert!(text.contains(what), "{what}: {text}");
    }
    assert!(text.ends_with("5 problems\n"), "{text}");
}

#[tokio::test]
async fn the_shipped_configs_have_no_problems() {
    for entry in std::fs::read_dir(checkout().join("config")).unwrap() {
        let file = entry.unwrap().path();
        let keys = [("CAUDAL_KEY_SHELTER", "one"), ("CAUDAL_KEY_OPERATOR", "two")];
        let output = program().arg("check").arg(&file).envs(keys).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let is_service = !file.ends_with("keys.toml");
        assert!(!is_service || !String::from_utf8_lossy(&output.stdout).contains("warning"), "{output:?}");
    }
    let built_in = program().arg("check").current_dir("/").output().await.unwrap();
    assert!(built_in.status.success(), "{}", String::from_utf8_lossy(&built_in.stdout));
}

#[tokio::test]
async fn an_override_is_checked_like_a_file() {
    let output = program().args(["check", "--set", "service.listen=5"]).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("--set service.listen=5"), "{text}");
}

#[tokio::test]
async fn doctor_reports_versions_and_remedies() {
    let output = program().args(["doctor", "--json"]).output().await.unwrap();
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let find = |name: &str| findings.iter().find(|finding| finding["part"] == name).unwrap();
    assert!(find("nats-server")["version"].as_str().unwrap().contains("2.15"));
    assert!(find("onnxruntime")["version"].as_str().unwrap().starts_with("1."));
    assert!(find("libreoffice")["version"].as_str().unwrap().contains('.'));
    assert_eq!(output.status.code(), Some(0));

    let missing = program().args(["doctor", "--json", "--nats-server", "/nowhere"]).output().await.unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let findings: Vec<Value> = serde_json::from_slice(&missing.stdout).unwrap();
    let broker = findings.iter().find(|finding| finding["part"] == "nats-server").unwrap();
    assert!(broker["remedy"].as_str().unwrap().contains("make setup"));
}

/// `caudal check` of a config, with more arguments.
async fn check(config: &str, args: &[&str]) -> std::process::Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("service.toml");
    std::fs::write(&file, config).unwrap();
    program().arg("check").args(args).arg(&file).output().await.unwrap()
}

#[tokio::test]
async fn a_key_with_a_new_name_still_works_and_is_warned_of_with_its_line() {
    let config = "[office]\ninsist = false\n[flow.f]\nopen = true\n[[flow.f.stage]]\nuse = \"respond\"\n";
    let output = check(config, &["--json"]).await;
    assert_eq!(output.status.code(), Some(0));
    let warnings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((warnings.len(), &warnings[0]["severity"], &warnings[0]["line"]), (1, &"warning".into(), &2.into()));
    let text = String::from_utf8(check(config, &[]).await.stdout).unwrap();
    assert!(text.contains("require_sandbox") && text.contains("no problems"), "{text}");
}

#[tokio::test]
async fn an_index_kind_that_contradicts_its_keys_is_a_problem() {
    let output = check("[index]\nkind = \"embedded\"\nurl = \"http://127.0.0.1:6334\"\n", &[]).await;
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("url") && text.contains("qdrant"), "{text}");
}

/// A service without a mistake; `stage` is added to its first stage, `top` before everything.
fn service(top: &str, stage: &str) -> String {
    format!(
        "{top}\n[model.photo]\nsource = \"builtin:descriptor\"\n\n[[route]]\npath = \"/look\"\nflow = \"look\"\n\
         body = {{ raw = true }}\n\n[[flow.look.stage]]\nuse = \"decode\"\n{stage}\n\n[[flow.look.stage]]\n\
         use = \"embed\"\nmodel = \"photo\"\n\n[[flow.look.stage]]\nuse = \"respond\"\n"
    )
}

/// What is found in a config, each as message and remedy in one text.
async fn findings(config: &str, args: &[&str]) -> (Option<i32>, Vec<(String, String)>) {
    let output = check(config, &[&["--json"][..], args].concat()).await;
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let texts = found
        .iter()
        .map(|one| (text(&one["severity"]), format!("{} / {}", text(&one["message"]), text(&one["remedy"]))))
        .collect();
    (output.status.code(), texts)
}

/// Asserts that a config has exactly one problem, which says all of this.
async fn assert_one_problem(config: &str, args: &[&str], said: &[&str]) {
    let (code, found) = findings(config, args).await;
    assert_eq!((code, found.len()), (Some(3), 1), "{config}\n{found:#?}");
    for word in said {
        assert!(found[0].1.contains(word), "{word}: {found:?}");
    }
}

#[tokio::test]
async fn what_a_start_would_not_find_on_this_machine_is_found() {
    let cases: [(&str, &str, &[&str]); 9] = [
        ("[model.own]\nsource = \"models/absent\"", "", &["models/absent", "preprocessor_config.json"]),
        ("[service]\ntls = { cert = \"absent.pem\", key = \"absent.key\" }", "", &["absent.pem", "tls"]),
        ("[auth.key.shop]\nkey = { env = \"CAUDAL_TEST_ABSENT\" }", "", &["CAUDAL_TEST_ABSENT is not set", "export"]),
        ("[auth.key.shop]\nkey = { file = \"absent/key\" }", "", &["absent/key", "may read"]),
        (
            "[auth.jwt.login]\nalgorithm = \"HS256\"\nissuer = \"i\"\naudience = \"a\"\ntenant = \"t\"\n\
             secret = { env = \"CAUDAL_TEST_ABSENT\" }",
            "",
            &["CAUDAL_TEST_ABSENT"],
        ),
        (
            "[index]\nurl = \"http://127.0.0.1:6334\"\napi_key = { env = \"CAUDAL_TEST_ABSENT\" }",
            "",
            &["CAUDAL_TEST_ABSENT"],
        ),
        ("[telemetry]\nheaders = { a = { env = \"CAUDAL_TEST_ABSENT\" } }", "", &["CAUDAL_TEST_ABSENT"]),
        ("[nats]\nurl = \"nats://127.0.0.1:1\"\nnkey_seed_file = \"absent.nk\"", "", &["absent.nk", "nkey_seed_file"]),
        ("[nats]\nmax_file = \"1 GiB\"", "", &["1 GiB", "reserve", "backlog.bytes"]),
    ];
    for (top, stage, said) in cases {
        let config = service(top, stage);
        assert_one_problem(&config, &[], said).await;
        // The disk limit does not depend on the machine.
        let (code, _) = findings(&config, &["--text-only"]).await;
        assert_eq!(code == Some(0), !top.contains("max_file"), "{top}");
    }
}

#[tokio::test]
async fn an_address_without_host_or_port_is_a_problem() {
    for (listen, said) in [("8080", "127.0.0.1:8080"), ("127.0.0.1", "127.0.0.1:8080"), (":80", "no host")] {
        let config = service(&format!("[service]\nlisten = \"{listen}\""), "");
        assert_one_problem(&config, &[], &[listen, said]).await;
    }
    assert_one_problem(&service("[nats]\nlisten = \"4222\"", ""), &[], &["127.0.0.1:4222"]).await;
}

#[tokio::test]
async fn an_unknown_name_that_resembles_a_known_one_is_asked_about() {
    for (top, stage, meant) in [
        ("[servcie]\nname = \"x\"", "", "`service`"),
        ("[service]\nlisten_on = \"127.0.0.1:1\"", "", "`listen`"),
        ("[service]\ntls = { cert = \"c\", kee = \"k\" }", "", "`key`"),
        ("", "worker = 3", "`workers`"),
        (
            "[limits.class.slow]\nrate = \"1/min\"\n[[route]]\npath = \"/b\"\nflow = \"look\"\nbody = { raw = true }\nclass = \"slwo\"",
            "",
            "`slow`",
        ),
        ("[[route]]\npath = \"/b\"\nflow = \"loook\"\nbody = { raw = true }", "", "`look`"),
    ] {
        assert_one_problem(&service(top, stage), &["--text-only"], &[&format!("did you mean {meant}?")]).await;
    }
    let config = service("", "").replace("\"embed\"", "\"embedd\"");
    assert_one_problem(&config, &[], &["did you mean `embed`?"]).await;
    let config = service("", "").replace("model = \"photo\"", "model = \"foto\"");
    assert_one_problem(&config, &[], &["did you mean `photo`?"]).await;
}

#[tokio::test]
async fn one_mistake_is_one_problem() {
    let good = service("", "");
    let once = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    for (config, said) in [
        ("[flow.f]\nopen = true\n[flow.f.stage]\nuse = \"respond\"\n".to_owned(), "double brackets"),
        (once("[[route]]", "[route]"), "[[route]]"),
        (once("[model.photo]", "[[model.photo]]"), "single brackets"),
        (once("[[flow.look.stage]]\nuse = \"decode\"", "[[flow.look.stage\nuse = \"decode\""), "TOML"),
        (once("body = { raw = true }", "body = { raw = true"), "TOML"),
        (once("path = \"/look\"", "path = \"/look"), "TOML"),
        (format!("[limits]\nconnections = [1, 2\n{good}"), "TOML"),
    ] {
        assert_one_problem(&config, &["--text-only"], &[said]).await;
    }
}

#[tokio::test]
async fn what_has_no_effect_is_a_warning() {
    let open = "[flow.f]\nopen = true\n[[flow.f.stage]]\nuse = \"decode\"\n";
    let echo = "[flow.f]\n[[flow.f.stage]]\nuse = \"respond\"\n";
    for (config, said) in [
        (service("[model.spare]\nsource = \"builtin:descriptor\"", ""), "no stage uses model \"spare\""),
        (open.to_owned(), "nobody takes the image"),
        (echo.to_owned(), "no route and no open flow"),
        (String::new(), "no route and no open flow"),
        (format!("{}\n{echo}", service("", "")), "no event reaches flow f"),
    ] {
        let (code, found) = findings(&config, &[]).await;
        assert_eq!((code, found.len()), (Some(0), 1), "{config}\n{found:#?}");
        assert!(found[0].0 == "warning" && found[0].1.contains(said), "{said}: {found:?}");
    }
    // Publishers may reach it, or another flow does.
    for config in [
        format!("{}\n{echo}", service("[nats]\nlisten = \"127.0.0.1:4222\"", "")),
        format!("{echo}[flow.g]\nopen = true\n[[flow.g.stage]]\nuse = \"publish\"\nflow = \"f\"\n"),
    ] {
        assert_eq!(findings(&config, &[]).await, (Some(0), Vec::new()), "{config}");
    }
}
