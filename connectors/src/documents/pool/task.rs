//! A task of the pool: a conversion, or post-processing of PDFs.

use std::path::PathBuf;

use bytes::Bytes;
use pipeline::documents::{Conversion, Finishing};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::super::protocol::{ConvertJob, FinishJob, Request};
use super::config::PoolConfig;
use super::quarantine::Digest;

/// A conversion, or PDFs to post-process.
#[derive(Clone)]
pub(super) enum Task {
    Convert(Conversion),
    Finish(Finishing),
}

impl Task {
    pub(super) fn deadline(&self) -> Instant {
        match self {
            Self::Convert(conversion) => conversion.deadline,
            Self::Finish(finishing) => finishing.deadline,
        }
    }

    /// Tasks of one class take about the same time.
    pub(super) fn class(&self) -> &str {
        match self {
            Self::Convert(conversion) if conversion.class.is_empty() => conversion.to.extension(),
            Self::Convert(conversion) => &conversion.class,
            Self::Finish(_) => "finish",
        }
    }

    /// The input files with their names in the job's folder.
    pub(super) fn files(&self) -> Vec<(String, Bytes)> {
        match self {
            Self::Convert(conversion) => vec![(format!("in.{}", conversion.from), conversion.input.clone())],
            Self::Finish(finishing) => {
                let files = finishing.files.iter().enumerate();
                files.map(|(number, (_, file))| (format!("{number}.pdf"), file.clone())).collect()
            }
        }
    }

    /// SHA-256 of the input files and their names.
    pub(super) fn digest(&self) -> Digest {
        let mut hasher = Sha256::new();
        for (name, file) in self.files() {
            hasher.update(name);
            hasher.update(file.len().to_le_bytes());
            hasher.update(file);
        }
        hasher.finalize().into()
    }

    /// The request to a worker, with the job's `folder`.
    pub(super) fn request(&self, folder: PathBuf, attempt: u32, config: &PoolConfig) -> Request {
        let (largest_output, most_pages) = (config.largest_output, config.most_pages);
        match self {
            Self::Convert(conversion) => Request::Convert(ConvertJob {
                folder,
                from: conversion.from,
                to: conversion.to,
                options: conversion.options.clone(),
                attempt,
                largest_output,
                most_pages,
            }),
            Self::Finish(finishing) => Request::Finish(FinishJob {
                folder,
                count: finishing.files.len(),
                finish: finishing.finish.clone(),
                largest_output,
                most_pages,
            }),
        }
    }
}
