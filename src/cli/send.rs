//! `caudal send`: sends a folder of files to a running service, resumably.
//!
//! Each file becomes one request, whatever is restarted meanwhile: a call that fails because the service is away is repeated under
//! the file's idempotency key. A journal beside the files lists those that were accepted and answered, so that a second run sends
//! only what is new, changed or failed. With `--save`, answers are stored, and a file whose answer is missing is sent again.

mod answers;
mod call_error;
mod journal;
mod media;
mod names;
mod patience;
mod target;
mod upload;

use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use futures_util::StreamExt;
use futures_util::stream;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::http_client::service_url;

use answers::Answers;
use call_error::NoService;
use journal::Journal;
use patience::Patience;
use target::{Target, Way};
use upload::Uploader;

#[derive(Args)]
pub struct SendArgs {
    /// Folder with the files, or a single file
    folder: PathBuf,
    /// Send each file's bytes into this open flow, in the bulk lane
    #[arg(long, value_name = "FLOW", conflicts_with = "route", required_unless_present = "route")]
    flow: Option<String>,
    /// Post each file to this route; `{name}` becomes the file's name without its extension
    #[arg(long, value_name = "PATH")]
    route: Option<String>,
    /// How a file is posted to the route
    #[arg(long, value_enum, default_value_t, requires = "route")]
    body: BodyKind,
    /// The form field that carries the file
    #[arg(long, default_value = "file", requires = "route")]
    field: String,
    /// Address of the service
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = service_url)]
    to: String,
    /// API key or token, if the service requires one
    #[arg(long, env = "CAUDAL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Store each answer in this folder, under the file's name with the extension of the answer's type
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Requests in flight at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// How long, in seconds, to keep trying while the service cannot be reached or is too busy
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(..=86_400))]
    patience: u32,
    /// Where to record what was sent [default: .caudal-send.jsonl in the folder]
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Print a summary as JSON instead of text
    #[arg(long)]
    json: bool,
}

/// The names are those of a route's `body` in the config.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum BodyKind {
    /// As a field of a multipart form, with the file's name
    #[default]
    Multipart,
    /// As the body itself, with the media type of its extension
    Raw,
}

impl SendArgs {
    /// # Errors
    /// If neither a flow nor a route is given.
    fn way(&self) -> anyhow::Result<Way> {
        Ok(match (&self.flow, &self.route, self.body) {
            (Some(flow), None, _) => Way::Flow(flow.clone()),
            (None, Some(path), BodyKind::Multipart) => Way::Form { path: path.clone(), field: self.field.clone() },
            (None, Some(path), BodyKind::Raw) => Way::Raw { path: path.clone() },
            _ => bail!("give either --flow or --route"),
        })
    }
}

/// The result of a run.
#[derive(Debug, Default, Serialize)]
struct Summary {
    sent: usize,
    skipped: usize,
    failed: Vec<Failure>,
}

#[derive(Debug, Serialize)]
struct Failure {
    file: String,
    why: String,
}

/// # Errors
/// If the folder or the journal cannot be used, or files would share a name. Files that fail are listed and are no error.
pub fn run(args: &SendArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    let summary = runtime.block_on(send(args))?;
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&summary)?)?;
    } else {
        for failure in &summary.failed {
            writeln!(out, "failed  {}  {}", failure.file, failure.why)?;
        }
        let Summary { sent, skipped, failed } = &summary;
        writeln!(out, "{sent} sent, {skipped} sent before, {} failed", failed.len())?;
    }
    Ok(if summary.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn send(args: &SendArgs) -> anyhow::Result<Summary> {
    let files = list(&args.folder)?;
    let target = Target::new(&args.to, args.way()?, args.token.as_deref())?;
    target.check_ids(&files)?;
    let answers = args.save.as_deref().map(|folder| Answers::open(folder, &args.folder, &files)).transpose()?;
    let journal_path = args.journal.clone().unwrap_or_else(|| beside(&args.folder));
    let journal = Journal::open(&journal_path, &target.describe())?;
    let (done, waiting): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| journal.has(file, answers.as_ref()));
    let mut summary = Summary { skipped: done.len(), ..Summary::default() };

    let bar = progress_bar(waiting.len());
    let patience = Patience::new(Duration::from_secs(args.patience.into()), &args.to, bar.clone());
    let uploader = Uploader { target: &target, patience, journal: RefCell::new(journal), answers: answers.as_ref() };
    let uploader = &uploader;
    let uploads = waiting.into_iter().map(|file| async move {
        let result = uploader.upload(&file).await;
        (file, result)
    });
    let mut uploads = stream::iter(uploads).buffer_unordered(usize::from(args.parallel));
    while let Some((file, result)) = uploads.next().await {
        match result {
            Ok(()) => summary.sent += 1,
            // Every other file would fail for the same reason.
            Err(error) if error.is::<NoService>() => {
                bar.finish_and_clear();
                return Err(error.context(format!("stopped after {} files", summary.sent)));
            }
            Err(error) => {
                let failure = Failure { file: file.display().to_string(), why: format!("{error:#}") };
                bar.println(format!("failed  {}  {}", failure.file, failure.why));
                summary.failed.push(failure);
                bar.set_message(format!("{} failed", summary.failed.len()));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    summary.failed.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(summary)
}

/// The files to send, sorted, without hidden files and subfolders.
fn list(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if folder.is_file() {
        return Ok(vec![folder.to_path_buf()]);
    }
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    if files.is_empty() {
        bail!("{} holds no files", folder.display());
    }
    files.sort();
    Ok(files)
}

fn beside(folder: &Path) -> PathBuf {
    let folder = if folder.is_file() { folder.parent().unwrap_or(Path::new(".")) } else { folder };
    folder.join(".caudal-send.jsonl")
}

fn progress_bar(files: usize) -> ProgressBar {
    let bar = ProgressBar::new(files as u64);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}  {per_sec}  {eta} left  {msg}")
        .expect("the template is a constant and valid");
    bar.set_style(style);
    // Keeps the remaining time current between two answers.
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
