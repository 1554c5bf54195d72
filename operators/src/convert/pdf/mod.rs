//! What is done to PDFs after the engine: merged, split, described, locked, in this order.

mod assemble;
mod info;
mod lock;
mod split;

use bytes::Bytes;
use lopdf::Document;
use pipeline::Rejection;

pub use info::Info;
pub use lock::{LONGEST as LONGEST_PASSWORD, Lock};
pub use split::Split;

use assemble::Source;

/// What shall be done to PDFs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finish {
    /// Several become one.
    pub merge: bool,
    /// One becomes several, or some pages of it.
    pub split: Option<Split>,
    /// What it says of itself.
    pub info: Info,
    /// Who may open it.
    pub lock: Option<Lock>,
}

/// A PDF with its name without the extension.
pub type Named = (String, Bytes);

impl Finish {
    /// Does it all.
    ///
    /// # Errors
    /// 422 if something is no PDF that can be taken apart, or has no page of those that are asked for.
    pub fn apply(&self, files: Vec<Named>) -> Result<Vec<Named>, Rejection> {
        let files = if self.merge && files.len() > 1 { vec![merged(&files)?] } else { files };
        let files = match &self.split {
            None => files,
            Some(split) => {
                let pieces: Result<Vec<_>, _> = files.into_iter().map(|file| pieces(split, file)).collect();
                pieces?.into_iter().flatten().collect()
            }
        };
        if self.info.is_empty() && self.lock.is_none() {
            return Ok(files);
        }
        files.into_iter().map(|(name, file)| Ok((name.clone(), self.sealed(&name, &file)?.into()))).collect()
    }

    fn sealed(&self, name: &str, file: &[u8]) -> Result<Vec<u8>, Rejection> {
        let mut document = Source::read(name, file)?.document;
        self.info.write(&mut document);
        if let Some(lock) = &self.lock {
            lock.close(&mut document)?;
        }
        written(&mut document)
    }
}

/// Some pages of a PDF, first and last of each range counted from 1.
///
/// # Errors
/// 422 if this is no PDF that can be taken apart, or has no such pages.
pub fn pick(name: &str, file: Bytes, ranges: Vec<(u32, u32)>) -> Result<Bytes, Rejection> {
    let split = Split::Ranges { ranges, unify: true };
    let mut picked = pieces(&split, (name.to_owned(), file))?;
    picked.pop().map(|(_, file)| file).ok_or_else(|| Rejection::internal("no page was picked"))
}

/// All pages, under the name of the first.
fn merged(files: &[Named]) -> Result<Named, Rejection> {
    let sources: Vec<Source> = files.iter().map(|(name, file)| Source::read(name, file)).collect::<Result<_, _>>()?;
    let parts: Vec<_> = sources.iter().map(|source| (source, source.pages.clone())).collect();
    Ok((files[0].0.clone(), written(&mut assemble::assemble(&parts)?)?.into()))
}

/// `letter_0`, `letter_1`, …; a name of its own for one alone would say nothing.
fn pieces(split: &Split, (name, file): Named) -> Result<Vec<Named>, Rejection> {
    let source = Source::read(&name, &file)?;
    let pieces = split.pieces(&source.pages).map_err(|why| Rejection::unusable("pages_missing", why))?;
    let one = pieces.len() == 1;
    let named = |(number, ranges): (usize, Vec<Vec<_>>)| {
        let parts: Vec<_> = ranges.into_iter().map(|pages| (&source, pages)).collect();
        let piece = written(&mut assemble::assemble(&parts)?)?;
        Ok((if one { name.clone() } else { format!("{name}_{number}") }, piece.into()))
    };
    pieces.into_iter().enumerate().map(named).collect()
}

fn written(document: &mut Document) -> Result<Vec<u8>, Rejection> {
    let mut bytes = Vec::new();
    document.save_to(&mut bytes).map_err(|why| Rejection::internal(format!("a PDF was not written: {why}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
