//! The baseline: one LibreOffice process per document, as in a service that runs `soffice` from its request handler.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::Instant;

use super::process_tree::cpu_of_ended_children;
use super::samples::Sample;
use crate::statistics::millis;

/// Exit status of soffice after it created its profile: it must be started again.
const RESTART_STATUS: i32 = 81;
/// Maximum number of starts per document.
const MAX_STARTS: usize = 3;

/// Measured speed of conversion.
pub struct ConversionRate {
    pub per_second: f64,
    pub mean_ms: f64,
    /// Seconds of CPU time per document.
    pub cpu: f64,
}

/// A LibreOffice installation, with a folder for profiles and documents.
pub struct Soffice {
    pub program: PathBuf,
    pub folder: PathBuf,
}

impl Soffice {
    /// Converts numbered documents, each in its own process, `lanes` at a time, each lane with a warm profile. Every
    /// PDF is checked.
    pub async fn convert(&self, sample: Sample, documents: &[(u64, Vec<u8>)], lanes: usize) -> ConversionRate {
        for lane in 0..lanes {
            let (number, document) = &documents[0];
            let _ = self.one(lane, *number, document).await;
        }
        let (begun, before) = (Instant::now(), cpu_of_ended_children());
        let of_lane = |lane: usize| async move {
            let mut made = Vec::new();
            for (number, document) in documents.iter().skip(lane).step_by(lanes) {
                let begun = Instant::now();
                let pdf = self.one(lane, *number, document).await;
                made.push((*number, millis(begun.elapsed()), pdf));
            }
            made
        };
        let made = futures_util::future::join_all((0..lanes).map(of_lane)).await.concat();
        let took = begun.elapsed().as_secs_f64();
        let cpu = cpu_of_ended_children() - before;
        for (number, _, pdf) in &made {
            sample.check(*number, pdf).unwrap_or_else(|why| panic!("soffice, {}: {why}", sample.name));
        }
        let count = made.len() as f64;
        let mean_ms = made.iter().map(|(_, took, _)| took).sum::<f64>() / count;
        ConversionRate { per_second: count / took, mean_ms, cpu: cpu / count }
    }

    async fn one(&self, lane: usize, number: u64, document: &[u8]) -> Vec<u8> {
        let input = self.folder.join(format!("{lane}-{number}.docx"));
        std::fs::write(&input, document).unwrap();
        let profile = self.folder.join(format!("profile-{lane}"));
        for _ in 0..MAX_STARTS {
            if self.run(&profile, &input).await != Some(RESTART_STATUS) {
                break;
            }
        }
        let output = input.with_extension("pdf");
        let pdf = std::fs::read(&output).unwrap_or_else(|error| panic!("{}: {error}", output.display()));
        std::fs::remove_file(output).unwrap();
        pdf
    }

    async fn run(&self, profile: &Path, input: &Path) -> Option<i32> {
        let mut command = Command::new(&self.program);
        command.arg("--headless").arg(format!("-env:UserInstallation=file://{}", profile.display()));
        command.args(["--convert-to", "pdf", "--outdir"]).arg(&self.folder).arg(input);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).status().await.unwrap();
        status.code()
    }
}
