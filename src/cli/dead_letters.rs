//! `caudal dead`: lists, shows, retries and drops dead letters of a running service.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;

use crate::http_client::{self, service_url};

#[derive(Args)]
pub struct DeadArgs {
    #[command(subcommand)]
    command: Option<DeadCommand>,
    /// Address of the service
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = service_url, global = true)]
    to: String,
    /// API key or token, if the service requires one
    #[arg(long, env = "CAUDAL_TOKEN", hide_env_values = true, global = true)]
    token: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

impl DeadArgs {
    /// Whether no subcommand was given.
    pub fn is_bare(&self) -> bool {
        self.command.is_none()
    }
}

#[derive(Subcommand)]
enum DeadCommand {
    /// List dead letters, oldest first
    List {
        /// Only those of this flow
        #[arg(long)]
        flow: Option<String>,
    },
    /// Show one dead letter with its parameters and payload
    Show {
        /// Its number, the first column of `caudal dead list`
        #[arg(value_name = "NUMBER")]
        id: u64,
    },
    /// Retry the given dead letters, each as a new request
    Retry {
        /// Their numbers, the first column of `caudal dead list`
        #[arg(required = true, value_name = "NUMBER")]
        ids: Vec<u64>,
    },
    /// Delete the given dead letters
    Drop {
        /// Their numbers, the first column of `caudal dead list`
        #[arg(required = true, value_name = "NUMBER")]
        ids: Vec<u64>,
    },
}

/// # Errors
/// The problem that the service answers, or that it cannot be reached.
pub fn run(args: &DeadArgs) -> anyhow::Result<ExitCode> {
    let command = args.command.as_ref().context("give one of list, show, retry, drop")?;
    tokio::runtime::Runtime::new()?.block_on(execute(args, command))?;
    Ok(ExitCode::SUCCESS)
}

async fn execute(args: &DeadArgs, command: &DeadCommand) -> anyhow::Result<()> {
    let client = http_client::to_service(args.token.as_deref())?;
    let service = Service { client, base: args.to.trim_end_matches('/').to_owned() };
    match command {
        DeadCommand::List { flow } => list(&service, flow.as_deref(), args.json).await,
        DeadCommand::Show { id } => {
            let letter = service.call(Method::GET, &format!("/{id}")).await?;
            print(&serde_json::to_string_pretty(&letter)?)
        }
        DeadCommand::Retry { ids } => {
            for id in ids {
                let started = service.call(Method::POST, &format!("/{id}/retry")).await?;
                if args.json {
                    print(&started.to_string())?;
                } else {
                    print(&format!("{id} is now request {}", started["id"].as_str().unwrap_or("?")))?;
                }
            }
            Ok(())
        }
        DeadCommand::Drop { ids } => {
            for id in ids {
                service.call(Method::DELETE, &format!("/{id}")).await?;
            }
            Ok(())
        }
    }
}

/// Prints all pages, as a JSON list or one line per dead letter.
async fn list(service: &Service, flow: Option<&str>, json: bool) -> anyhow::Result<()> {
    let flow = flow.map(|flow| format!("&flow={flow}")).unwrap_or_default();
    let mut all = Vec::new();
    let mut from = 0;
    loop {
        let mut page = service.call(Method::GET, &format!("?from={from}{flow}")).await?;
        if let Value::Array(letters) = page["dead_letters"].take() {
            all.extend(letters);
        }
        match page["next"].as_u64() {
            Some(next) => from = next,
            None => break,
        }
    }
    if json {
        return print(&serde_json::to_string_pretty(&all)?);
    }
    for letter in &all {
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let cause = &letter["cause"];
        print(&format!(
            "{:>6}  {}  {}/{}  {}: {}",
            letter["id"],
            text(&letter["time"]),
            text(&letter["flow"]),
            text(&letter["stage"]),
            text(&cause["code"]),
            text(&cause["detail"]),
        ))?;
    }
    print(&format!("{} dead letters", all.len()))
}

struct Service {
    client: Client,
    base: String,
}

impl Service {
    async fn call(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}/v1/dead-letters{path}", self.base);
        let response =
            self.client.request(method, &url).send().await.with_context(|| http_client::unreachable(&self.base))?;
        if response.status() == StatusCode::UNAUTHORIZED {
            bail!("{}: {}", problem(response).await, http_client::UNAUTHORIZED);
        }
        if !response.status().is_success() {
            bail!(problem(response).await);
        }
        let text = response.text().await?;
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text).context("the answer is not JSON")? })
    }
}

async fn problem(response: Response) -> String {
    let status = response.status();
    match response.json::<Value>().await {
        Ok(problem) => problem["detail"].as_str().unwrap_or("no reason given").to_owned(),
        Err(_) => format!("the service answered {status}"),
    }
}

fn print(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
