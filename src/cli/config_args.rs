//! Config files and `--set` overrides on the command line, the same for every command that reads a config.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pipeline::spec::Sources;

use crate::assembly;
use crate::extras::Extras;
use crate::plan::{self, Plan, Scope};

/// Exit code for a config with problems, so that scripts can tell it from a failure at run time.
pub const EXIT_CONFIG: u8 = 3;

/// Config files and overrides.
#[derive(clap::Args, Clone, Debug)]
pub struct ConfigArgs {
    /// Config files, merged in order; without one the built-in default serves everything
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Override one key, for example `--set limits.enabled=false`; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// The shipped configs, so that the program works alone.
const BUILT_IN: [(&str, &str); 3] = [
    ("caudal.toml", include_str!("../../config/caudal.toml")),
    ("gendoc.toml", include_str!("../../config/gendoc.toml")),
    ("petalert.toml", include_str!("../../config/petalert.toml")),
];

impl ConfigArgs {
    /// The texts to load: included files before those that include them, overrides last.
    ///
    /// # Errors
    /// If a file cannot be read, or includes itself.
    pub fn sources(&self) -> anyhow::Result<Sources> {
        let mut sources = Sources::default();
        if self.files.is_empty() {
            add_built_in("caudal.toml", &mut sources)?;
        }
        for file in &self.files {
            add_file(file, &mut sources, 0)?;
        }
        for assignment in &self.overrides {
            sources.add_override(assignment);
        }
        Ok(sources)
    }

    /// The plan of a command that works with it, and its texts. `None` if the config has problems, which are printed: the
    /// command then ends with [`EXIT_CONFIG`].
    ///
    /// # Errors
    /// As of [`sources`](Self::sources).
    pub fn load(&self, extras: &Extras) -> anyhow::Result<Option<(Plan, Sources)>> {
        let sources = self.sources()?;
        match plan::load(&sources, &assembly::operator_kinds(extras), Scope::Text) {
            Ok(plan) => Ok(Some((plan, sources))),
            Err(problems) => {
                writeln!(std::io::stderr(), "{}", problems.render(&sources, false))?;
                Ok(None)
            }
        }
    }
}

/// Includes within includes, at most: deeper ones are taken for a circle.
const DEEPEST_INCLUDE: usize = 8;

fn add_file(file: &Path, sources: &mut Sources, depth: usize) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    anyhow::ensure!(depth < DEEPEST_INCLUDE, "{} includes itself", file.display());
    for included in plan::includes(&text) {
        add_file(&plan::beside(file, &included), sources, depth + 1)?;
    }
    sources.add(file.display().to_string(), &text);
    Ok(())
}

fn add_built_in(name: &str, sources: &mut Sources) -> anyhow::Result<()> {
    let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name).with_context(|| format!("no built-in {name}"))?;
    for included in plan::includes(text) {
        add_built_in(&included, sources)?;
    }
    sources.add(format!("{name} (built in)"), text);
    Ok(())
}
