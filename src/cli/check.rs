//! `caudal check`: every problem of a config with file, line, column and remedy. Needs no network.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;

use super::config_args::{ConfigArgs, EXIT_CONFIG};
use crate::assembly;
use crate::extras::Extras;
use crate::plan::{self, Scope};

#[derive(Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Check the text alone, without the files and secrets that it names on this machine
    #[arg(long)]
    text_only: bool,
    /// Print the problems as a JSON list
    #[arg(long)]
    json: bool,
}

/// # Errors
/// If a file cannot be read.
pub fn run(args: &CheckArgs, extras: &Extras) -> anyhow::Result<ExitCode> {
    let sources = args.config.sources()?;
    let scope = if args.text_only { Scope::Text } else { Scope::Machine };
    let loaded = plan::load(&sources, &assembly::operator_kinds(extras), scope);
    let mut out = std::io::stdout();
    let problems = match loaded {
        Ok(plan) if args.json => {
            writeln!(out, "{}", serde_json::to_string_pretty(&plan.warnings.located(&sources))?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Ok(plan) => {
            if !plan.warnings.warnings().is_empty() {
                writeln!(out, "{}\n", plan.warnings.render(&sources, out.is_terminal()))?;
            }
            writeln!(out, "{}", plan.summary())?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(problems) => problems,
    };
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&problems.located(&sources))?)?;
    } else {
        writeln!(out, "{}\n", problems.render(&sources, out.is_terminal()))?;
        let count = problems.sorted().len();
        writeln!(out, "{count} {}", if count == 1 { "problem" } else { "problems" })?;
    }
    Ok(ExitCode::from(EXIT_CONFIG))
}
