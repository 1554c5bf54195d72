//! A headless Chromium driven over WebDriver (W3C Recommendation, JSON over HTTP).

use std::process::Stdio;

use base64::Engine as _;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::caudal::{TIMEOUT, descendants, plain_client};

/// The JSON key of an element reference, fixed by the WebDriver specification.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Chromium without a screen and without background network requests.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
];

/// A browser with one page. Dropping it ends the browser and its driver.
pub struct Browser {
    client: Client,
    session: String,
    driver: Child,
    _profile: TempDir,
}

impl Drop for Browser {
    /// Kills the whole process tree: chromedriver's children do not end with it.
    fn drop(&mut self) {
        for pid in self.driver.id().map(descendants).unwrap_or_default() {
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

impl Browser {
    /// Starts a driver on a free port and a browser with an empty profile.
    pub async fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver is installed by `make setup`");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next_line().await.unwrap().expect("chromedriver prints its port");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        let profile = TempDir::new().unwrap();
        let mut args: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
        args.push(format!("--user-data-dir={}", profile.path().display()));
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": { "args": args } } } });
        let client = plain_client();
        let base = format!("http://127.0.0.1:{port}/session");
        let started: Value = client.post(&base).json(&wanted).send().await.unwrap().json().await.unwrap();
        let id = started["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no browser: {started}"));
        Self { session: format!("{base}/{id}"), client, driver, _profile: profile }
    }

    pub async fn open(&self, url: &str) {
        self.post("url", json!({ "url": url })).await.unwrap();
    }

    /// Waits for an element that matches, and returns the first.
    pub async fn find(&self, css: &str) -> String {
        let wanted = json!({ "using": "css selector", "value": css });
        let poll = async {
            loop {
                if let Ok(found) = self.post("element", wanted.clone()).await {
                    return found[ELEMENT].as_str().unwrap().to_owned();
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, poll).await.unwrap_or_else(|_| panic!("never on the page: {css}"))
    }

    pub async fn text(&self, element: &str) -> String {
        let answer = self.get(&format!("element/{element}/text")).await;
        answer.as_str().unwrap().to_owned()
    }

    /// Selects files in a file input, as a user would.
    pub async fn choose_files(&self, css: &str, paths: &[String]) {
        let input = self.find(css).await;
        self.post(&format!("element/{input}/value"), json!({ "text": paths.join("\n") })).await.unwrap();
    }

    /// Runs a script on the page and returns its result.
    pub async fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({ "script": script, "args": [] })).await.unwrap()
    }

    /// Waits until a script returns true.
    pub async fn until(&self, script: &str) {
        let poll = async {
            while self.run(script).await != Value::Bool(true) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, poll).await.unwrap_or_else(|_| panic!("never true on the page: {script}"))
    }

    /// A screenshot of the page as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        let answer = self.get("screenshot").await;
        base64::engine::general_purpose::STANDARD.decode(answer.as_str().unwrap()).unwrap()
    }

    async fn post(&self, command: &str, body: Value) -> Result<Value, Value> {
        let request = self.client.post(format!("{}/{command}", self.session)).json(&body);
        let response = request.send().await.unwrap();
        let succeeded = response.status().is_success();
        let mut answer: Value = response.json().await.unwrap();
        if succeeded { Ok(answer["value"].take()) } else { Err(answer["value"].take()) }
    }

    async fn get(&self, command: &str) -> Value {
        let response = self.client.get(format!("{}/{command}", self.session)).send().await.unwrap();
        let mut answer: Value = response.json().await.unwrap();
        answer["value"].take()
    }
}
