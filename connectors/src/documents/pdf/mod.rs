//! Post-processing of PDFs: merge, split, metadata and encryption.
//!
//! It runs in the worker, since the PDFs may come from anyone, and parsing one can exhaust the memory or stack of a
//! process.

mod document_info;
mod encrypt;
mod page_copy;
mod split;

use std::fs;

use lopdf::Document;
use tokio::time::Instant;

use self::document_info::set_document_info;
use self::encrypt::encrypt;
use self::page_copy::{SourcePdf, copy_pages};
use self::split::split_pages;
use super::process_usage::ProcessUsage;
use super::protocol::{DocumentFault, FinishJob, JobResult, Reply};

/// Most files of one result.
const MAX_FILES: usize = 1000;

/// Why the job failed: the fault, and the message for the requester.
type Rejection = (DocumentFault, String);

/// Processes the files `N.pdf` of the job's folder, counted from 0; writes `done-N.pdf`, or `done-N_P.pdf` for part P.
pub(super) fn finish(job: &FinishJob, usage: &ProcessUsage) -> Reply {
    let (began, cpu) = (Instant::now(), usage.cpu_ms());
    let mut run = FinishRun { job, bytes_left: job.largest_output, pages: 0, files: Vec::new() };
    match run.run() {
        Ok(()) => Reply::Done(JobResult {
            ms_load: 0,
            ms_save: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            ms_cpu: usage.cpu_ms().saturating_sub(cpu),
            rss: usage.resident(),
            pages: run.pages,
            files: run.files,
        }),
        Err((fault, why)) => Reply::Rejected { fault, why },
    }
}

/// A job in progress: what was written and what still may be.
struct FinishRun<'j> {
    job: &'j FinishJob,
    /// Bytes that may still be written.
    bytes_left: u64,
    pages: u32,
    files: Vec<String>,
}

impl FinishRun<'_> {
    fn run(&mut self) -> Result<(), Rejection> {
        let job = self.job;
        if job.finish.merge && job.count > 1 {
            let sources = (0..job.count).map(|number| self.read(number)).collect::<Result<Vec<_>, _>>()?;
            let parts: Vec<_> = sources.iter().map(|source| (source, source.pages.clone())).collect();
            let merged = self.copy_pages(&parts)?;
            drop(sources);
            return match job.finish.split {
                None => self.write(0, None, merged),
                Some(_) => self.split(0, &SourcePdf::of(merged, [0; 32])),
            };
        }
        for number in 0..job.count {
            let source = self.read(number)?;
            match job.finish.split {
                None => self.write(number, None, source.document)?,
                Some(_) => self.split(number, &source)?,
            }
        }
        Ok(())
    }

    fn read(&self, number: usize) -> Result<SourcePdf, Rejection> {
        let file = fs::read(self.job.folder.join(format!("{number}.pdf")));
        let file = file.map_err(|error| (DocumentFault::PdfUnreadable, error.to_string()))?;
        SourcePdf::read(number, &file)
    }

    fn copy_pages(&mut self, parts: &[(&SourcePdf, Vec<lopdf::ObjectId>)]) -> Result<Document, Rejection> {
        let pages = parts.iter().map(|(_, pages)| pages.len()).sum::<usize>();
        self.pages = self.pages.saturating_add(u32::try_from(pages).unwrap_or(u32::MAX));
        if self.pages > self.job.most_pages {
            let why = format!("the result has {} pages, at most {} are allowed", self.pages, self.job.most_pages);
            return Err((DocumentFault::TooLarge, why));
        }
        Ok(copy_pages(parts))
    }

    fn split(&mut self, number: usize, source: &SourcePdf) -> Result<(), Rejection> {
        let Some(split) = &self.job.finish.split else { return Ok(()) };
        let parts = split_pages(split, &source.pages).map_err(|why| (DocumentFault::PagesMissing, why))?;
        if self.files.len() + parts.len() > MAX_FILES {
            let why = format!("the result would have more than {MAX_FILES} files");
            return Err((DocumentFault::TooLarge, why));
        }
        // The pages of a merged file were counted when it was merged.
        self.pages = if self.job.finish.merge { 0 } else { self.pages };
        let one = parts.len() == 1;
        for (part, pages) in parts.into_iter().enumerate() {
            let document = self.copy_pages(&[(source, pages)])?;
            self.write(number, (!one).then_some(part), document)?;
        }
        Ok(())
    }

    fn write(&mut self, number: usize, part: Option<usize>, mut document: Document) -> Result<(), Rejection> {
        set_document_info(&self.job.finish.info, &mut document);
        if let Some(lock) = &self.job.finish.lock {
            encrypt(lock, &mut document)?;
        }
        let mut bytes = Vec::new();
        document.save_to(&mut bytes).map_err(|error| (DocumentFault::PdfUnreadable, error.to_string()))?;
        self.bytes_left = self.bytes_left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            (DocumentFault::TooLarge, format!("the result has more than {} bytes, the limit", self.job.largest_output))
        })?;
        let part = part.map(|part| format!("_{part}")).unwrap_or_default();
        let name = format!("done-{number}{part}.pdf");
        fs::write(self.job.folder.join(&name), bytes)
            .map_err(|error| (DocumentFault::PdfUnreadable, error.to_string()))?;
        self.files.push(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
