//! What is done to PDFs after they were made, in the worker: they may be anybody's, and reading one can take more memory or
//! stack than a process has.

mod assemble;
mod info;
mod lock;
mod split;

use std::fs;

use lopdf::Document;
use tokio::time::Instant;

use super::protocol::{Done, Fault, FinishJob, Reply};
use super::usage::Usage;
use assemble::Source;

/// Files of one answer.
const MOST_PIECES: usize = 1000;

/// Why nothing came of it.
type Rejected = (Fault, String);

/// Finishes the files `N.pdf` of the job's folder, counted from 0, as `done-N.pdf`, or `done-N_P.pdf` for part P of it.
pub(super) fn finish(job: &FinishJob, usage: &Usage) -> Reply {
    let (began, cpu) = (Instant::now(), usage.cpu_ms());
    let mut work = Work { job, left: job.largest_output, pages: 0, files: Vec::new() };
    match work.run() {
        Ok(()) => Reply::Done(Done {
            ms_load: 0,
            ms_save: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            ms_cpu: usage.cpu_ms().saturating_sub(cpu),
            rss: usage.resident(),
            pages: work.pages,
            files: work.files,
        }),
        Err((fault, why)) => Reply::Rejected { fault, why },
    }
}

/// What is being made of a job.
struct Work<'w> {
    job: &'w FinishJob,
    /// Bytes that may still be written.
    left: u64,
    pages: u32,
    files: Vec<String>,
}

impl Work<'_> {
    fn run(&mut self) -> Result<(), Rejected> {
        let job = self.job;
        if job.finish.merge && job.count > 1 {
            let sources = (0..job.count).map(|number| self.read(number)).collect::<Result<Vec<_>, _>>()?;
            let parts: Vec<_> = sources.iter().map(|source| (source, source.pages.clone())).collect();
            let merged = self.assembled(&parts)?;
            drop(sources);
            return match job.finish.split {
                None => self.write(0, None, merged),
                Some(_) => self.split(0, &Source::of(merged, [0; 32])),
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

    fn read(&self, number: usize) -> Result<Source, Rejected> {
        let file = fs::read(self.job.folder.join(format!("{number}.pdf")));
        let file = file.map_err(|error| (Fault::PdfUnreadable, error.to_string()))?;
        Source::read(number, &file)
    }

    fn assembled(&mut self, parts: &[(&Source, Vec<lopdf::ObjectId>)]) -> Result<Document, Rejected> {
        let pages = parts.iter().map(|(_, pages)| pages.len()).sum::<usize>();
        self.pages = self.pages.saturating_add(u32::try_from(pages).unwrap_or(u32::MAX));
        if self.pages > self.job.most_pages {
            let why = format!("the result has {} pages, at most {} are allowed", self.pages, self.job.most_pages);
            return Err((Fault::TooLarge, why));
        }
        Ok(assemble::assemble(parts))
    }

    fn split(&mut self, number: usize, source: &Source) -> Result<(), Rejected> {
        let Some(split) = &self.job.finish.split else { return Ok(()) };
        let pieces = split::pieces(split, &source.pages).map_err(|why| (Fault::PagesMissing, why))?;
        if self.files.len() + pieces.len() > MOST_PIECES {
            let why = format!("it would be split into more than {MOST_PIECES} files");
            return Err((Fault::TooLarge, why));
        }
        // Pages of a merged file were counted when it was made.
        self.pages = if self.job.finish.merge { 0 } else { self.pages };
        let one = pieces.len() == 1;
        for (part, pages) in pieces.into_iter().enumerate() {
            let piece = self.assembled(&[(source, pages)])?;
            self.write(number, (!one).then_some(part), piece)?;
        }
        Ok(())
    }

    fn write(&mut self, number: usize, part: Option<usize>, mut document: Document) -> Result<(), Rejected> {
        info::write(&self.job.finish.info, &mut document);
        if let Some(lock) = &self.job.finish.lock {
            lock::close(lock, &mut document)?;
        }
        let mut bytes = Vec::new();
        document.save_to(&mut bytes).map_err(|error| (Fault::PdfUnreadable, error.to_string()))?;
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            (Fault::TooLarge, format!("the result has more than {} bytes, which is the limit", self.job.largest_output))
        })?;
        let part = part.map(|part| format!("_{part}")).unwrap_or_default();
        let name = format!("done-{number}{part}.pdf");
        fs::write(self.job.folder.join(&name), bytes).map_err(|error| (Fault::PdfUnreadable, error.to_string()))?;
        self.files.push(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
