//! One file, one request: posted, waited for, retried as long as the service asks for patience.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::multipart::{Form, Part};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;

/// Where the files go.
pub struct Target {
    client: Client,
    base: String,
    way: Way,
}

enum Way {
    Flow(String),
    Route { path: String, field: String },
}

/// How often a file is offered again when the service says it is full.
const OFFERS: u32 = 20;

/// Longest pause between two offers, whatever the service asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Longest wait for the result of an accepted file.
const RESULT_PATIENCE: Duration = Duration::from_secs(600);

impl Target {
    /// A target from the command line.
    ///
    /// # Errors
    /// If neither a flow nor a route is given.
    pub fn new(base: &str, flow: Option<&str>, route: Option<&str>, field: &str) -> anyhow::Result<Self> {
        let way = match (flow, route) {
            (Some(flow), None) => Way::Flow(flow.to_owned()),
            (None, Some(path)) => Way::Route { path: path.to_owned(), field: field.to_owned() },
            _ => bail!("give either --flow or --route"),
        };
        let client = Client::builder().connect_timeout(Duration::from_secs(5)).build()?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), way })
    }

    /// The target as the journal names it.
    pub fn describe(&self) -> String {
        match &self.way {
            Way::Flow(flow) => format!("{}/v1/flows/{flow}", self.base),
            Way::Route { path, .. } => format!("{}{path}", self.base),
        }
    }

    async fn post(&self, file: &Path) -> anyhow::Result<Response> {
        let bytes = tokio::fs::read(file).await.context("cannot read it")?;
        let media_type = media_type(file);
        let request = match &self.way {
            Way::Flow(flow) => {
                let url = format!("{}/v1/flows/{flow}?lane=bulk", self.base);
                self.client.post(url).header("content-type", media_type).body(bytes)
            }
            Way::Route { path, field } => {
                let url = format!("{}{}", self.base, path.replace("{name}", &token(file)));
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let part = Part::bytes(bytes).file_name(name).mime_str(media_type)?;
                self.client.post(url).multipart(Form::new().part(field.clone(), part))
            }
        };
        Ok(request.header("prefer", "respond-async").send().await?)
    }
}

/// Sends one file and waits for its terminal result.
///
/// # Errors
/// The service's own words if it refuses the file or fails on it.
pub async fn upload(target: &Target, file: &Path) -> anyhow::Result<()> {
    for _ in 0..OFFERS {
        let response = target.post(file).await?;
        let status = response.status();
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            tokio::time::sleep(retry_after(&response)).await;
            continue;
        }
        if status != StatusCode::ACCEPTED {
            return if status.is_success() { Ok(()) } else { bail!(problem(response).await) };
        }
        let accepted: Value = response.json().await.context("the answer is not JSON")?;
        let id = accepted["id"].as_str().context("the answer has no id")?.to_owned();
        return tokio::time::timeout(RESULT_PATIENCE, wait(target, &id))
            .await
            .with_context(|| format!("request {id} has no result after {} s", RESULT_PATIENCE.as_secs()))?;
    }
    bail!("the service stayed full after {OFFERS} offers")
}

/// Asks for the request's status until it is terminal, ever less often.
async fn wait(target: &Target, id: &str) -> anyhow::Result<()> {
    let url = format!("{}/v1/requests/{id}", target.base);
    let mut pause = Duration::from_millis(20);
    loop {
        let response = target.client.get(&url).send().await?;
        if !response.status().is_success() {
            bail!(problem(response).await);
        }
        let request: Value = response.json().await.context("the answer is not JSON")?;
        match request["status"].as_str() {
            Some("done") => return Ok(()),
            Some("failed") => bail!(sentence(&request["error"])),
            Some("cancelled") => bail!("it was cancelled"),
            _ => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

async fn problem(response: Response) -> String {
    let status = response.status();
    match response.json::<Value>().await {
        Ok(problem) => sentence(&problem),
        Err(_) => format!("the service answered {status}"),
    }
}

fn sentence(problem: &Value) -> String {
    let text = |key: &str| problem[key].as_str().unwrap_or("?").to_owned();
    format!("{} ({}, status {})", text("detail"), text("code"), problem["status"])
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1)).min(LONGEST_PAUSE)
}

/// The file's name without its extension, as an id: what an id cannot hold becomes `-`.
fn token(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' };
    stem.chars().map(safe).take(pipeline::MAX_TOKEN_BYTES).collect()
}

fn media_type(file: &Path) -> &'static str {
    let extension = file.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match extension.as_str() {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "txt" | "md" => "text/plain",
        "csv" => "text/csv",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        _ => "application/octet-stream",
    }
}
