//! The job folder that supervisor and worker share: the supervisor writes documents into it and reads results from it.
//!
//! The sandbox lets a compromised worker do anything in this folder, symbolic links included. So the supervisor opens
//! nothing by path: each step starts from an open folder (`openat`) and follows no link.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, mkdirat, open, openat};

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Nonblocking, since opening a named pipe would block otherwise.
const READ: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);
const NEW: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);

/// The folder of a worker's jobs, opened before the worker was started.
#[derive(Clone)]
pub(super) struct JobFolder(Arc<OwnedFd>);

impl JobFolder {
    /// Creates the folder.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        std::fs::create_dir(path)?;
        Ok(Self(Arc::new(open(path, FOLDER, Mode::empty())?)))
    }

    /// Creates the folder of one job and writes the documents into it.
    pub(super) async fn write(&self, job: &str, files: Vec<(String, Bytes)>) -> io::Result<()> {
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

    /// Reads results: regular files in the job's folder, no more than `max_bytes` together.
    pub(super) async fn read(&self, job: &str, names: Vec<String>, max_bytes: u64) -> io::Result<Vec<Bytes>> {
        self.blocking(job, move |jobs, job| {
            let folder = jobs.folder(job)?;
            let mut left = max_bytes;
            let mut files = Vec::with_capacity(names.len());
            for name in names {
                let bytes = read_file(&folder, &name, left)?;
                left -= bytes.len() as u64;
                files.push(bytes.into());
            }
            Ok(files)
        })
        .await
    }

    /// Removes the folder of one job and everything in it.
    pub(super) async fn remove(&self, job: &str) -> io::Result<()> {
        // By file descriptor, not by path. The standard library does not follow a link in the last step.
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

fn read_file(folder: &OwnedFd, name: &str, left: u64) -> io::Result<Vec<u8>> {
    if name.contains('/') {
        return Err(io::Error::other(format!("a worker returned the file name {name:?}")));
    }
    let file = File::from(openat(folder, name, READ, Mode::empty())?);
    let about = file.metadata()?;
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    if about.is_file() && about.len() <= left && file.take(left + 1).read_to_end(&mut bytes)? as u64 <= left {
        return Ok(bytes);
    }
    Err(io::Error::other(format!("{name:?} is not a regular file of at most {left} bytes")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    async fn jobs() -> (tempfile::TempDir, JobFolder) {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("secret"), "secret").unwrap();
        let jobs = JobFolder::create(&place.path().join("jobs")).unwrap();
        jobs.write("1", vec![("in.txt".into(), Bytes::from("hello"))]).await.unwrap();
        (place, jobs)
    }

    async fn read(jobs: &JobFolder, name: &str) -> Option<Vec<Bytes>> {
        jobs.read("1", vec![name.into()], 5).await.ok()
    }

    #[tokio::test]
    async fn files_are_read_up_to_the_limit() {
        let (place, jobs) = jobs().await;
        assert_eq!(read(&jobs, "in.txt").await.unwrap(), ["hello"]);
        assert_eq!(
            jobs.read("1", vec!["in.txt".into(), "in.txt".into()], 9).await.ok(),
            None,
            "the limit is for all files together"
        );
        std::fs::write(place.path().join("jobs/1/long"), "longer").unwrap();
        assert_eq!(read(&jobs, "long").await, None);
        jobs.remove("1").await.unwrap();
        assert!(!place.path().join("jobs/1").exists());
    }

    #[tokio::test]
    async fn links_are_never_followed_whatever_they_replace() {
        let (place, jobs) = jobs().await;
        let folder = place.path().join("jobs/1");
        symlink("../../secret", folder.join("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("pipe"), Mode::RUSR).unwrap();
        for name in ["link", "../../secret", "pipe", "."] {
            assert_eq!(read(&jobs, name).await, None, "{name}");
        }
        std::fs::rename(&folder, place.path().join("jobs/away")).unwrap();
        symlink(place.path(), &folder).unwrap();
        assert_eq!(read(&jobs, "secret").await, None);
        jobs.remove("1").await.unwrap();
        assert!(place.path().join("secret").exists() && !folder.is_symlink());
        // Also if the folder of all jobs itself is replaced.
        std::fs::rename(place.path().join("jobs"), place.path().join("moved")).unwrap();
        symlink(place.path(), place.path().join("jobs")).unwrap();
        jobs.write("2", vec![("in.txt".into(), Bytes::new())]).await.unwrap();
        assert!(place.path().join("moved/2/in.txt").exists() && !place.path().join("2").exists());
    }
}
