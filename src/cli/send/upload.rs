//! Sends one file as one request, and waits for its result.
//!
//! A file whose request is accepted already, in this run or an earlier one, is not sent: its result is asked for.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use reqwest::{Response, StatusCode};
use serde_json::Value;

use super::answers::Answers;
use super::call_error::{CallError, sentence};
use super::journal::{Entry, Journal};
use super::patience::Patience;
use super::target::{Sending, Target};

/// Longest wait for the result of an accepted file.
const RESULT_PATIENCE: Duration = Duration::from_secs(600);

/// How often a file is sent if the service keeps losing its request or its result.
const MOST_ROUNDS: u32 = 4;

/// How the files of one run are sent.
pub struct Uploader<'a> {
    pub target: &'a Target,
    pub patience: Patience,
    pub journal: RefCell<Journal>,
    /// The folder for answers, if they are stored.
    pub answers: Option<&'a Answers>,
}

/// The service's answer to a post.
enum Posted {
    /// It has accepted the file as this request.
    Accepted(String),
    /// It has answered at once; the name of the stored answer, if answers are stored.
    Answered(Option<String>),
}

impl Uploader<'_> {
    /// Sends one file, waits for its terminal result and records it in the journal.
    ///
    /// # Errors
    /// The service's problem detail if it refuses the file or fails on it.
    pub async fn upload(&self, file: &Path) -> anyhow::Result<()> {
        let entry = self.journal.borrow().entry(file).context("cannot read it")?;
        let mut rounds = 1;
        let saved = loop {
            let error = match self.round(file, &entry).await {
                Ok(saved) => break saved,
                Err(error) => error,
            };
            let CallError::Refused { status, .. } = &error else { return Err(error.into()) };
            let is_accepted = self.journal.borrow().request(&entry).is_some();
            match *status {
                // The service does not know the request. Under the same key it cannot become two.
                StatusCode::NOT_FOUND if is_accepted => self.journal.borrow_mut().forget(&entry),
                // The request has ended, and its result is gone.
                StatusCode::GONE => self.journal.borrow_mut().ended(&entry)?,
                _ => return Err(error.into()),
            }
            if rounds == MOST_ROUNDS {
                return Err(anyhow::Error::from(error).context(format!("its result was lost {MOST_ROUNDS} times")));
            }
            rounds += 1;
        };
        self.journal.borrow_mut().answered(entry, saved)
    }

    /// Sends the file, unless it is accepted already, and waits for its result. Returns the name of the stored answer.
    async fn round(&self, file: &Path, entry: &Entry) -> Result<Option<String>, CallError> {
        let known = self.journal.borrow().request(entry);
        let id = match known {
            Some(id) => id,
            None => match self.post(file, entry).await? {
                Posted::Accepted(id) => {
                    self.journal.borrow_mut().accepted(entry, &id)?;
                    id
                }
                Posted::Answered(saved) => return Ok(saved),
            },
        };
        tokio::time::timeout(RESULT_PATIENCE, self.wait(entry, &id))
            .await
            .with_context(|| format!("request {id} has no result after {} s", RESULT_PATIENCE.as_secs()))??;
        if self.answers.is_none() {
            return Ok(None);
        }
        let path = format!("/v1/requests/{id}/result");
        self.patience.call(async || self.store(file, self.target.get(&path).await?).await).await
    }

    async fn post(&self, file: &Path, entry: &Entry) -> Result<Posted, CallError> {
        let bytes = Bytes::from(tokio::fs::read(file).await.context("cannot read it")?);
        let key = {
            let journal = self.journal.borrow();
            let round = journal.round(entry);
            self.target.key(&Sending { journal: journal.id(), file, bytes: &bytes, round })
        };
        let post = async || {
            let answer = self.target.post(file, bytes.clone(), &key).await?;
            if answer.status() != StatusCode::ACCEPTED {
                return Ok(Posted::Answered(self.store(file, answer).await?));
            }
            let id = json(answer).await?["id"].as_str().context("the answer has no id")?.to_owned();
            Ok(Posted::Accepted(id))
        };
        self.patience.call(post).await
    }

    /// Polls the request's status until it is terminal, with growing pauses.
    async fn wait(&self, entry: &Entry, id: &str) -> Result<(), CallError> {
        let path = format!("/v1/requests/{id}");
        let mut pause = Duration::from_millis(20);
        loop {
            let request = self.patience.call(async || json(self.target.get(&path).await?).await).await?;
            let why = match request["status"].as_str() {
                Some("done") => return Ok(()),
                Some("failed") => Some(sentence(&request["error"])),
                Some("cancelled") => Some("it was cancelled".to_owned()),
                _ => None,
            };
            if let Some(why) = why {
                self.journal.borrow_mut().ended(entry)?;
                return Err(CallError::Other(anyhow!(why)));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Stores an answer, if answers are stored, and returns its name.
    async fn store(&self, file: &Path, answer: Response) -> Result<Option<String>, CallError> {
        match self.answers {
            Some(answers) => Ok(Some(answers.store(file, answer).await?)),
            None => Ok(None),
        }
    }
}

/// The answer as JSON. One that breaks off is told from one that is not JSON.
async fn json(answer: Response) -> Result<Value, CallError> {
    let bytes = answer.bytes().await?;
    Ok(serde_json::from_slice(&bytes).context("the answer is not JSON")?)
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressBar;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::target::Way;
    use super::*;

    const ACCEPTED: &str = r#"202 {"id":"r"}"#;
    const DONE: &str = r#"200 {"status":"done"}"#;
    const FAILED: &str = r#"200 {"status":"failed","error":{"code":"no_pixels","detail":"bad","status":422}}"#;

    /// A folder with one file, sent to a service that gives scripted answers.
    struct Case {
        folder: TempDir,
        listener: TcpListener,
    }

    impl Case {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("a.jpg"), "pixels").unwrap();
            Self { folder, listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
        }

        /// A run that sends the file and gets these answers, each a status and a body; an empty one closes the connection.
        /// Returns the result and the calls: method, path and key.
        async fn run(&self, accepted: Option<&str>, answers: &[&str]) -> (anyhow::Result<()>, Vec<[String; 3]>) {
            let base = format!("http://{}", self.listener.local_addr().unwrap());
            let target = Target::new(&base, Way::Raw { path: "/photos".into() }, None).unwrap();
            let mut journal = Journal::open(&self.folder.path().join("journal"), &target.describe()).unwrap();
            let file = self.folder.path().join("a.jpg");
            if let Some(id) = accepted {
                journal.accepted(&journal.entry(&file).unwrap(), id).unwrap();
            }
            let patience = Patience::new(Duration::from_secs(60), &base, ProgressBar::hidden());
            let uploader = Uploader { target: &target, patience, journal: RefCell::new(journal), answers: None };
            let serve = async {
                let mut calls = Vec::new();
                for answer in answers {
                    calls.push(self.answer(answer).await);
                }
                calls
            };
            tokio::join!(uploader.upload(&file), serve)
        }

        async fn answer(&self, answer: &str) -> [String; 3] {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            let mut request = Vec::new();
            let is_whole = |request: &[u8]| match request.starts_with(b"POST") {
                true => request.ends_with(b"\r\n\r\npixels"),
                false => request.ends_with(b"\r\n\r\n"),
            };
            while !is_whole(&request) {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            if let Some((status, body)) = answer.split_once(' ') {
                let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}", body.len());
                stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
            }
            let text = String::from_utf8(request).unwrap();
            let key = text.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).unwrap_or_default();
            let mut words = text.split(' ').map(str::to_owned);
            [words.next().unwrap(), words.next().unwrap(), key.to_owned()]
        }
    }

    #[tokio::test]
    async fn a_post_without_an_answer_is_repeated_under_its_key() {
        let case = Case::new().await;
        let (result, calls) = case.run(None, &["", ACCEPTED, "", DONE]).await;
        result.unwrap();
        assert_eq!(calls[0][0], "POST");
        assert!(calls[0] == calls[1] && !calls[0][2].is_empty(), "{calls:?}");
    }

    #[tokio::test]
    async fn a_file_that_was_accepted_before_is_asked_for_and_not_sent() {
        let case = Case::new().await;
        let (result, calls) = case.run(Some("early"), &[DONE]).await;
        result.unwrap();
        assert_eq!(calls[0][..2], ["GET", "/v1/requests/early"]);
    }

    #[tokio::test]
    async fn a_lost_request_is_sent_under_its_key_and_then_under_another() {
        let case = Case::new().await;
        let (result, calls) = case.run(Some("lost"), &["404 {}", "410 {}", ACCEPTED, DONE]).await;
        result.unwrap();
        let methods: Vec<&str> = calls.iter().map(|call| &*call[0]).collect();
        assert_eq!(methods, ["GET", "POST", "POST", "GET"]);
        assert_ne!(calls[1][2], calls[2][2]);
    }

    #[tokio::test]
    async fn a_file_that_failed_is_a_new_request_in_the_next_run() {
        let case = Case::new().await;
        let (result, first) = case.run(None, &[ACCEPTED, FAILED]).await;
        assert!(result.unwrap_err().to_string().contains("no_pixels"));
        let (result, second) = case.run(None, &[ACCEPTED, DONE]).await;
        result.unwrap();
        assert_ne!(first[0][2], second[0][2]);
    }

    #[tokio::test]
    async fn a_result_that_is_lost_again_and_again_is_an_error() {
        let case = Case::new().await;
        let (result, _) = case.run(None, &["410 {}"; 4]).await;
        assert!(format!("{:#}", result.unwrap_err()).contains("lost 4 times"));
    }

    #[tokio::test]
    async fn a_route_that_does_not_exist_is_an_error_at_once() {
        let case = Case::new().await;
        let (result, calls) = case.run(None, &["404 {}"]).await;
        result.unwrap_err();
        assert_eq!(calls.len(), 1);
    }
}
