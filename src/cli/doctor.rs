//! `caudal doctor`: what is installed, in which version, and the command that installs what is missing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;
use connectors::documents::OfficeSpec;
use serde::Serialize;

use crate::installed::{Parts, REMEDY};

#[derive(Args)]
pub struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// The state of one dependency.
#[derive(Serialize)]
struct Finding {
    part: &'static str,
    /// What needs it.
    needed_for: &'static str,
    path: Option<PathBuf>,
    version: Option<String>,
    /// What is wrong; `None` if nothing is.
    problem: Option<String>,
    /// The command to run; `None` if nothing is wrong.
    remedy: Option<String>,
}

/// # Errors
/// If standard output is closed.
pub fn run(args: &DoctorArgs, parts: &Parts) -> anyhow::Result<ExitCode> {
    let findings = [broker(parts), inference(parts), office()];
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&findings)?)?;
    } else {
        for finding in &findings {
            write_finding(&mut out, finding)?;
        }
    }
    let healthy = findings.iter().all(|finding| finding.problem.is_none());
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_finding(out: &mut impl Write, finding: &Finding) -> std::io::Result<()> {
    let path = finding.path.as_deref().map_or("-".into(), |path| path.display().to_string());
    let Some(problem) = &finding.problem else {
        let version = finding.version.as_deref().unwrap_or("?");
        return writeln!(out, "ok       {:<12} {version:<10} {path}", finding.part);
    };
    writeln!(out, "missing  {:<12} for {}: {problem}", finding.part, finding.needed_for)?;
    writeln!(out, "         {}", finding.remedy.as_deref().unwrap_or(REMEDY))
}

fn finding(
    part: &'static str,
    needed_for: &'static str,
    path: Option<PathBuf>,
    probe: impl FnOnce(&Path) -> Result<String, String>,
) -> Finding {
    let probed = match &path {
        None => Err("not found".into()),
        Some(path) => probe(path),
    };
    let remedy = probed.is_err().then(|| REMEDY.to_owned());
    let (version, problem) = match probed {
        Ok(version) => (Some(version), None),
        Err(problem) => (None, Some(problem)),
    };
    Finding { part, needed_for, path, version, problem, remedy }
}

fn broker(parts: &Parts) -> Finding {
    finding("nats-server", "the private broker", parts.find_nats_server(), |path| {
        let output = Command::new(path).arg("--version").output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().rsplit_once('v').map(|(_, version)| version.to_owned()).ok_or_else(|| "it prints no version".into())
    })
}

fn inference(parts: &Parts) -> Finding {
    finding("onnxruntime", "models", parts.find_onnxruntime(), |path| {
        connectors::models::runtime::load(path).map(|info| info.version).map_err(|error| error.to_string())
    })
}

fn office() -> Finding {
    let spec = OfficeSpec::default();
    let path = spec.find().ok();
    finding("libreoffice", "documents", path, |_| {
        let program = spec.path.join("program/soffice.bin");
        let output = Command::new(program).arg("--version").output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        // `LibreOffice 7.4.7.2 40(Build:2)`
        text.split_whitespace().nth(1).map(str::to_owned).ok_or_else(|| "it prints no version".into())
    })
}
