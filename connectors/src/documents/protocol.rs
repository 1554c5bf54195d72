//! Protocol between supervisor and worker: JSON messages, each preceded by its length in four bytes, big-endian.
//!
//! The channel is a socket pair, which the worker gets as its standard input. Its standard output is discarded, so
//! nothing that LibreOffice prints can mix with the messages. Messages carry paths; documents are never sent.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::sandbox::{Layers, Limits};
use super::sandbox_selftest::{Canary, SandboxLeak};
use pipeline::documents::{Finish, Format, Options};

/// Longest message, in bytes; a worker that sends a longer one is broken.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// The first message to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// The worker's own folder; it may write nowhere else.
    pub folder: PathBuf,
    /// Which engine.
    pub engine: Engine,
    /// The sandbox layers to apply.
    pub layers: Layers,
    /// Resource limits of the process.
    pub limits: Limits,
    /// What the self-test tries to reach.
    pub canary: Canary,
    /// Refuse to work if the self-test finds a leak.
    pub require_sandbox: bool,
}

/// Which engine a worker runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// LibreOffice, installed in this folder (the parent of `program`).
    LibreOffice(PathBuf),
    /// The test engine: does what its input says, to provoke failures.
    Test,
}

/// A request to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Convert a document.
    Convert(ConvertJob),
    /// Post-process PDFs: merge, split, set metadata, encrypt.
    Finish(FinishJob),
}

/// PDFs to post-process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FinishJob {
    /// Its folder, inside the worker's own. It holds `0.pdf` and so on; the worker writes `done-0.pdf`, or
    /// `done-0_0.pdf` and so on for parts.
    pub folder: PathBuf,
    /// Number of files.
    pub count: usize,
    /// What to do with them.
    pub finish: Finish,
    /// Limit of all results together, in bytes.
    pub largest_output: u64,
    /// Limit of pages of all results together.
    pub most_pages: u32,
}

/// A conversion.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConvertJob {
    /// Its folder, inside the worker's own. It holds `in.EXTENSION`; the worker writes `out.EXTENSION` or `page-N.png`.
    pub folder: PathBuf,
    /// Format of the document.
    pub from: Format,
    /// Format of the result.
    pub to: Format,
    /// Options of the conversion.
    pub options: Options,
    /// 1, or 2 after a worker crashed on the document.
    pub attempt: u32,
    /// Limit of the result, in bytes.
    pub largest_output: u64,
    /// Limit of pages of a PDF, or of images.
    pub most_pages: u32,
}

/// A message of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Reply {
    /// The engine is loaded and has converted a sample.
    Ready {
        /// Version of the engine.
        version: String,
        /// Resident memory, bytes.
        rss: u64,
        /// Sandbox layers that the kernel does not support, with the reason.
        missing: Vec<String>,
        /// What the self-test found open; empty unless `require_sandbox` is off.
        leaks: Vec<SandboxLeak>,
    },
    /// The sandbox leaks, so the engine was not loaded.
    Refused {
        /// What the self-test found open.
        leaks: Vec<SandboxLeak>,
        /// Sandbox layers that the kernel does not support, with the reason.
        missing: Vec<String>,
    },
    /// The engine could not be loaded.
    Broken {
        /// What is wrong and what to do.
        why: String,
    },
    /// The job succeeded; its results are verified.
    Done(JobResult),
    /// The document cannot be processed; the worker is ready for the next one.
    Rejected {
        /// Why.
        fault: DocumentFault,
        /// The message for the requester.
        why: String,
    },
}

/// Results of a job and what they cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobResult {
    /// Time of reading the document, in milliseconds.
    pub ms_load: u64,
    /// Time of writing the results, in milliseconds.
    pub ms_save: u64,
    /// CPU time of the job, all threads, in milliseconds (in steps of 10).
    pub ms_cpu: u64,
    /// Resident memory afterwards, bytes.
    pub rss: u64,
    /// Pages of a PDF, number of images, or 0 if the format has no pages.
    pub pages: u32,
    /// Names of the files in the job's folder, in order.
    pub files: Vec<String>,
}

/// Why a document cannot be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentFault {
    /// LibreOffice cannot read it, or cannot write it in the requested format.
    Unreadable,
    /// Encrypted, and no password was given.
    PasswordRequired,
    /// Encrypted, and the password is wrong.
    PasswordWrong,
    /// The PDF cannot be parsed.
    PdfUnreadable,
    /// The PDF is encrypted.
    PdfEncrypted,
    /// It does not have the requested pages.
    PagesMissing,
    /// The result would exceed the limit of bytes, pages or files.
    TooLarge,
    /// The password has characters that PDF does not allow.
    BadPassword,
}

/// Sends one message.
///
/// # Errors
/// If the other end is closed.
pub fn send<T: Serialize>(pipe: &mut impl Write, message: &T) -> io::Result<()> {
    pipe.write_all(&framed(message)?)
}

/// Waits for one message; `None` if the other end is closed.
///
/// # Errors
/// If the message is too long, truncated or not valid JSON of this type.
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

/// As [`receive`], for the supervisor. A closed end is an error here: a worker does not exit by itself.
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
    let length = u32::try_from(body).ok().filter(|_| body <= MAX_MESSAGE_BYTES);
    let length = length.ok_or_else(|| io::Error::other(format!("message of {body} bytes")))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

fn length(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(head) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("message of {length} bytes")));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_received_as_it_was_sent() {
        let mut wire = Vec::new();
        send(&mut wire, &Reply::Broken { why: "no".into() }).unwrap();
        let got: Option<Reply> = receive(&mut wire.as_slice()).unwrap();
        assert!(matches!(got, Some(Reply::Broken { why }) if why == "no"));
        assert!(receive::<Reply>(&mut [].as_slice()).unwrap().is_none());
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_memory_is_allocated() {
        let wire = [0xff, 0xff, 0xff, 0xff, 0];
        assert!(receive::<Reply>(&mut wire.as_slice()).is_err());
    }
}
