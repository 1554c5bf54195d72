//! The folder that supervisor and worker share: documents go in, results come out.
//!
//! What holds the engine lets it do as it likes in there, links included. So nothing is opened by its path: each step is
//! taken from a folder that is open already, and none follows a link.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, mkdirat, open, openat};

/// Of files and folders.
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A pipe must not hold up who opens it.
const READ: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);
const NEW: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);

/// The folder of a worker's jobs, open since before there was a worker.
#[derive(Clone)]
pub(super) struct Jobs(Arc<OwnedFd>);

impl Jobs {
    /// Makes the folder.
    pub(super) fn make(path: &Path) -> io::Result<Self> {
        std::fs::create_dir(path)?;
        Ok(Self(Arc::new(open(path, FOLDER, Mode::empty())?)))
    }

    /// Makes the folder of one job and puts the documents there.
    pub(super) async fn put(&self, job: &str, files: Vec<(String, Bytes)>) -> io::Result<()> {
        self.blocking(job, move |jobs, job| {
            mkdirat(&*jobs.0, job, Mode::RWXU)?;
            let folder = jobs.folder(job)?;
            for (name, bytes) in files {
                File::from(openat(&folder, name, NEW, Mode::RUSR | Mode::WUSR)?).write_all(&bytes)?;
            }
            Ok(())
        })
        .await
    }

    /// Reads results: plain files of the job's folder, no more than `most` bytes together.
    pub(super) async fn take(&self, job: &str, names: Vec<String>, most: u64) -> io::Result<Vec<Bytes>> {
        self.blocking(job, move |jobs, job| {
            let folder = jobs.folder(job)?;
            let mut left = most;
            let mut files = Vec::with_capacity(names.len());
            for name in names {
                let bytes = read(&folder, &name, left)?;
                left -= bytes.len() as u64;
                files.push(bytes.into());
            }
            Ok(files)
        })
        .await
    }

    /// Removes the folder of one job with all that is in it.
    pub(super) async fn remove(&self, job: &str) -> io::Result<()> {
        // The folder by its number and not by its path; that the last step is no link is seen to by the library.
        self.blocking(job, |jobs, job| std::fs::remove_dir_all(format!("/proc/self/fd/{}/{job}", jobs.0.as_raw_fd())))
            .await
    }

    fn folder(&self, job: &str) -> io::Result<OwnedFd> {
        Ok(openat(&*self.0, job, FOLDER, Mode::empty())?)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        job: &str,
        work: impl FnOnce(&Self, &str) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (jobs, job) = (self.clone(), job.to_owned());
        tokio::task::spawn_blocking(move || work(&jobs, &job)).await.map_err(io::Error::other)?
    }
}

fn read(folder: &OwnedFd, name: &str, left: u64) -> io::Result<Vec<u8>> {
    if name.contains('/') {
        return Err(io::Error::other(format!("a worker named {name:?}")));
    }
    let file = File::from(openat(folder, name, READ, Mode::empty())?);
    let about = file.metadata()?;
    let mut bytes = Vec::new();
    // It may grow while it is read.
    if about.is_file() && about.len() <= left && file.take(left + 1).read_to_end(&mut bytes)? as u64 <= left {
        return Ok(bytes);
    }
    Err(io::Error::other(format!("{name:?} is no file of at most {left} bytes")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    async fn jobs() -> (tempfile::TempDir, Jobs) {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("secret"), "secret").unwrap();
        let jobs = Jobs::make(&place.path().join("jobs")).unwrap();
        jobs.put("1", vec![("in.txt".into(), Bytes::from("hello"))]).await.unwrap();
        (place, jobs)
    }

    async fn taken(jobs: &Jobs, name: &str) -> Option<Vec<Bytes>> {
        jobs.take("1", vec![name.into()], 5).await.ok()
    }

    #[tokio::test]
    async fn what_lies_there_is_read_within_bounds() {
        let (place, jobs) = jobs().await;
        assert_eq!(taken(&jobs, "in.txt").await.unwrap(), ["hello"]);
        assert_eq!(jobs.take("1", vec!["in.txt".into(), "in.txt".into()], 9).await.ok(), None, "of all together");
        std::fs::write(place.path().join("jobs/1/long"), "longer").unwrap();
        assert_eq!(taken(&jobs, "long").await, None);
        jobs.remove("1").await.unwrap();
        assert!(!place.path().join("jobs/1").exists());
    }

    #[tokio::test]
    async fn no_link_leads_out_whatever_it_replaces() {
        let (place, jobs) = jobs().await;
        let folder = place.path().join("jobs/1");
        symlink("../../secret", folder.join("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("pipe"), Mode::RUSR).unwrap();
        for name in ["link", "../../secret", "pipe", "."] {
            assert_eq!(taken(&jobs, name).await, None, "{name}");
        }
        std::fs::rename(&folder, place.path().join("jobs/away")).unwrap();
        symlink(place.path(), &folder).unwrap();
        assert_eq!(taken(&jobs, "secret").await, None);
        jobs.remove("1").await.unwrap();
        assert!(place.path().join("secret").exists() && !folder.is_symlink());
        // And of the folder itself.
        std::fs::rename(place.path().join("jobs"), place.path().join("moved")).unwrap();
        symlink(place.path(), place.path().join("jobs")).unwrap();
        jobs.put("2", vec![("in.txt".into(), Bytes::new())]).await.unwrap();
        assert!(place.path().join("moved/2/in.txt").exists() && !place.path().join("2").exists());
    }
}
