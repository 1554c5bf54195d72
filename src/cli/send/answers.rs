//! The folder for answers: one file per sent file, renamed into place once complete.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use futures_util::StreamExt;
use reqwest::{Response, header};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::media::extension_of;
use super::names::{shared, stem};

/// The folder.
pub struct Answers {
    folder: PathBuf,
}

impl Answers {
    /// Opens the folder for the answers to `files`, creating it if it is missing.
    ///
    /// # Errors
    /// If it cannot be created, is the folder that is sent, or the answers to two files would have the same name.
    pub fn open(folder: &Path, sent: &Path, files: &[PathBuf]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let of_files = if sent.is_file() { sent.parent().unwrap_or(Path::new("")) } else { sent };
        let of_files = if of_files.as_os_str().is_empty() { Path::new(".") } else { of_files };
        if folder.canonicalize()? == of_files.canonicalize()? {
            bail!("answers in {} could overwrite the files that are sent: choose another folder", folder.display());
        }
        if let Some(shared) = shared(files, stem) {
            bail!(
                "the answers to these files would have the same name:\n{shared}rename them: the extension does not count"
            );
        }
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// Whether an answer of this name exists.
    pub fn has(&self, name: &str) -> bool {
        self.folder.join(name).is_file()
    }

    /// Streams the answer to a file to disk and returns its name: the file's, with the extension of the answer's type. The
    /// answer has that name only once it is complete and synced.
    ///
    /// # Errors
    /// If the answer ends early or cannot be written.
    pub async fn store(&self, file: &Path, answer: Response) -> anyhow::Result<String> {
        let media_type = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let extension = extension_of(media_type.unwrap_or_default());
        let name = format!("{}.{extension}", stem(file));
        let part = self.folder.join(format!(".{name}.part"));
        let written = async {
            let mut whole = File::create(&part).await.with_context(|| format!("cannot write {}", part.display()))?;
            let mut pieces = answer.bytes_stream();
            while let Some(piece) = pieces.next().await {
                whole.write_all(&piece.context("the answer broke off")?).await?;
            }
            whole.flush().await?;
            whole.sync_all().await?;
            tokio::fs::rename(&part, self.folder.join(&name))
                .await
                .with_context(|| format!("cannot store {name} in {}", self.folder.display()))
        };
        if let Err(error) = written.await {
            let _ = tokio::fs::remove_file(&part).await;
            return Err(error);
        }
        Ok(name)
    }
}
