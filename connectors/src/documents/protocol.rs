//! What supervisor and worker say to each other: JSON with its length in front, four bytes, big end first.
//!
//! One socket pair, which the worker has as its standard input; its standard output goes nowhere, so that nothing the
//! engine prints can get between two messages. Documents never travel here, only paths.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::sandbox::{Layers, Limits};
use super::selftest::Hole;
use pipeline::documents::{Finish, Format, Options};

/// Longest message, in bytes; a longer one is not from a worker in its right mind.
const LONGEST: usize = 64 << 10;

/// The first message to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The worker's own folder; it may write nowhere else.
    pub folder: PathBuf,
    /// Which engine.
    pub engine: Engine,
    /// What holds the engine.
    pub layers: Layers,
    /// Bounds of the process.
    pub limits: Limits,
    /// What the self-test reaches for.
    pub canary: Canary,
    /// Refuse to work while the self-test finds a hole.
    pub insist: bool,
}

/// Which engine a worker runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// LibreOffice, installed in this folder (the parent of `program`).
    LibreOffice(PathBuf),
    /// Does what its input says, for tests of the supervisor.
    Fake,
}

/// Things outside the sandbox that a worker must not reach.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Canary {
    /// Somebody listens there while the worker starts.
    pub address: SocketAddr,
    /// A folder with a file `secret` that the worker must not read, and in which it must not write.
    pub folder: PathBuf,
}

/// What a worker is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Make another document of one.
    Convert(Job),
    /// Merge, split, describe, lock.
    Finish(FinishJob),
}

/// PDFs to finish.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FinishJob {
    /// Its folder, inside the worker's own: holds `0.pdf` and so on, gets `done-0.pdf` or `done-0_0.pdf` and so on.
    pub folder: PathBuf,
    /// How many files.
    pub count: usize,
    /// What is done to them.
    pub finish: Finish,
    /// All output together, in bytes.
    pub largest_output: u64,
    /// Most pages of all results together.
    pub most_pages: u32,
}

/// A conversion to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its folder, inside the worker's own: holds `in.EXTENSION`, gets `out.EXTENSION` or `page-N.png`.
    pub folder: PathBuf,
    /// What it is.
    pub from: Format,
    /// What it shall become.
    pub to: Format,
    /// How.
    pub options: Options,
    /// 1, or 2 after a worker died of it.
    pub attempt: u32,
    /// Largest output file, in bytes.
    pub largest_output: u64,
    /// Most pages of a PDF, and most pictures.
    pub most_pages: u32,
}

/// What a worker says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Reply {
    /// The engine is loaded and has converted a sample.
    Ready {
        /// Of the engine.
        version: String,
        /// Resident memory, bytes.
        rss: u64,
        /// Layers of the sandbox that the kernel does not offer, with the reason.
        missing: Vec<String>,
        /// What the self-test found open; empty unless `insist` is off.
        holes: Vec<Hole>,
    },
    /// The sandbox leaks, so the engine was not loaded.
    Refused {
        /// What the self-test found open.
        holes: Vec<Hole>,
        /// Layers that are not there, with the reason.
        missing: Vec<String>,
    },
    /// The engine could not be loaded.
    Broken {
        /// What is wrong and what to do.
        why: String,
    },
    /// Converted and verified.
    Done(Done),
    /// The document is at fault; the worker is well.
    Rejected {
        /// Which way.
        fault: Fault,
        /// What the engine said.
        why: String,
    },
}

/// What a conversion came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// Reading, in milliseconds.
    pub ms_load: u64,
    /// Writing, in milliseconds.
    pub ms_save: u64,
    /// Processor time of the job, all threads, in milliseconds (to 10).
    pub ms_cpu: u64,
    /// Resident memory afterwards, bytes.
    pub rss: u64,
    /// Pages of a PDF, number of pictures, or 0 where the format has no pages.
    pub pages: u32,
    /// Names of the files in the job's folder, in order.
    pub files: Vec<String>,
}

/// How a document is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The engine does not read it, or does not write it as asked.
    Unreadable,
    /// Encrypted, no password given.
    PasswordRequired,
    /// Encrypted, wrong password.
    PasswordWrong,
    /// No PDF that can be taken apart.
    PdfUnreadable,
    /// A PDF behind a password.
    PdfEncrypted,
    /// It has not the pages that are asked for.
    PagesMissing,
    /// More bytes, pages or files than are made.
    TooLarge,
    /// A password that none can be.
    BadPassword,
}

/// Sends one message.
///
/// # Errors
/// If the other end is gone.
pub fn send<T: Serialize>(pipe: &mut impl Write, message: &T) -> io::Result<()> {
    pipe.write_all(&framed(message)?)
}

/// Waits for one message; `None` when the other end has closed.
///
/// # Errors
/// If the message is too long, cut off or not understood.
pub fn receive<T: DeserializeOwned>(pipe: &mut impl Read) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match pipe.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut body = vec![0; length(head)?];
    pipe.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// As [`send`], for the supervisor.
pub(super) async fn send_async<T: Serialize>(pipe: &mut tokio::net::UnixStream, message: &T) -> io::Result<()> {
    pipe.write_all(&framed(message)?).await
}

/// As [`receive`], for the supervisor; an end is an error, since a worker does not leave by itself.
pub(super) async fn receive_async<T: DeserializeOwned>(pipe: &mut tokio::net::UnixStream) -> io::Result<T> {
    let mut head = [0; 4];
    pipe.read_exact(&mut head).await?;
    let mut body = vec![0; length(head)?];
    pipe.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

fn framed<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let body = frame.len() - 4;
    let length = u32::try_from(body).ok().filter(|_| body <= LONGEST);
    let length = length.ok_or_else(|| io::Error::other(format!("message of {body} bytes")))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

fn length(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(head) as usize;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("message of {length} bytes")));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_way() {
        let mut wire = Vec::new();
        send(&mut wire, &Reply::Broken { why: "no".into() }).unwrap();
        let got: Option<Reply> = receive(&mut wire.as_slice()).unwrap();
        assert!(matches!(got, Some(Reply::Broken { why }) if why == "no"));
        assert!(receive::<Reply>(&mut [].as_slice()).unwrap().is_none());
    }

    #[test]
    fn a_lying_length_is_refused_before_memory_is_taken() {
        let wire = [0xff, 0xff, 0xff, 0xff, 0];
        assert!(receive::<Reply>(&mut wire.as_slice()).is_err());
    }
}
