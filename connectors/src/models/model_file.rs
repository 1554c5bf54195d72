//! The model file of a directory: which file it is, and its SHA-256 with external data files included.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};

use pipeline::Digest;
use sha2::{Digest as _, Sha256};

use super::error::ModelError;
use super::external_data::external_data;

/// Where published layouts have the image model. The image half of a dual encoder comes first: the whole model would
/// need text as well.
const CANDIDATES: [&str; 4] = ["vision_model.onnx", "onnx/vision_model.onnx", "model.onnx", "onnx/model.onnx"];

/// How the file starts that a checkout without Git LFS has in place of a large file.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// A model file and its hash.
#[derive(Debug)]
pub(super) struct ModelFile {
    /// The `.onnx` file.
    pub(super) path: PathBuf,
    /// SHA-256 of the file, followed by its external data files.
    pub(super) digest: Digest,
}

/// Finds the model file in `directory` and hashes it with its external data.
pub(super) fn open(directory: &Path, file: Option<&Path>) -> Result<ModelFile, ModelError> {
    let path = match file {
        Some(file) => directory.join(file),
        None => find(directory)?,
    };
    let wrong = |why: String| ModelError::File { path: path.clone(), why };
    let unreadable = |error: io::Error| wrong(format!("the model file cannot be read ({error})"));
    let reader = File::open(&path).map_err(unreadable)?;
    let length = reader.metadata().map_err(unreadable)?.len();
    let mut reader = BufReader::new(reader);
    refuse_pointer(&mut reader).map_err(&wrong)?;
    let data = external_data(&mut reader, length)
        .map_err(|error| wrong(format!("not a complete ONNX file ({error}): fetch it again")))?;
    let mut hash = Sha256::new();
    hash_file(&mut hash, &path).map_err(unreadable)?;
    for location in data {
        let part = beside(&path, &location)
            .ok_or_else(|| wrong(format!("its data file {location:?} is outside the model directory")))?;
        hash_file(&mut hash, &part)
            .map_err(|error| wrong(format!("its data file {location:?} is unreadable ({error})")))?;
    }
    Ok(ModelFile { path, digest: Digest(hash.finalize().into()) })
}

fn find(directory: &Path) -> Result<PathBuf, ModelError> {
    let found = CANDIDATES.iter().map(|name| directory.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| ModelError::File {
        path: directory.to_path_buf(),
        why: format!("no model file found; looked for {}, name another with `file`", CANDIDATES.join(", ")),
    })
}

fn refuse_pointer(reader: &mut BufReader<File>) -> Result<(), String> {
    let mut head = Vec::new();
    let read = reader.by_ref().take(LFS_POINTER.len() as u64).read_to_end(&mut head);
    read.and_then(|_| reader.rewind()).map_err(|error| format!("the model file cannot be read ({error})"))?;
    if head == LFS_POINTER {
        return Err("a Git LFS pointer, not the model: run `git lfs pull` in its repository".into());
    }
    Ok(())
}

/// The path of a data file, if it stays inside the model's folder.
fn beside(model: &Path, location: &str) -> Option<PathBuf> {
    let inside = Path::new(location).components().all(|part| matches!(part, Component::Normal(_)));
    (inside && !location.is_empty()).then(|| model.with_file_name(location))
}

fn hash_file(hash: &mut Sha256, path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        hash.update(&chunk[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(field: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![field << 3 | 2, u8::try_from(payload.len()).unwrap()];
        bytes.extend_from_slice(payload);
        bytes
    }

    /// A model with one tensor, stored in the file `location`.
    fn external(location: &str) -> Vec<u8> {
        let entry = [chunk(1, b"location"), chunk(2, location.as_bytes())].concat();
        let other = [chunk(1, b"offset"), chunk(2, b"0")].concat();
        let tensor = [chunk(8, b"weight"), chunk(13, &other), chunk(13, &entry)].concat();
        let graph = [chunk(2, b"graph"), chunk(5, &tensor), chunk(5, &tensor)].concat();
        [vec![1 << 3, 8], chunk(7, &graph)].concat()
    }

    #[test]
    fn external_data_belongs_to_the_hash() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("model.onnx"), external("model.onnx_data")).unwrap();
        let data = directory.path().join("model.onnx_data");
        std::fs::write(&data, [1, 2, 3]).unwrap();
        let before = open(directory.path(), None).unwrap().digest;
        let expected = Sha256::digest([external("model.onnx_data"), vec![1, 2, 3]].concat());
        assert_eq!(before, Digest(expected.into()));
        std::fs::write(&data, [1, 2, 4]).unwrap();
        assert_ne!(open(directory.path(), None).unwrap().digest, before);
        std::fs::remove_file(&data).unwrap();
        assert!(open(directory.path(), None).unwrap_err().to_string().contains("model.onnx_data"));
    }

    #[test]
    fn data_files_outside_the_directory_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        for location in ["/etc/passwd", "../secret", ""] {
            std::fs::write(directory.path().join("model.onnx"), external(location)).unwrap();
            assert!(
                open(directory.path(), None).unwrap_err().to_string().contains("outside the model directory"),
                "{location}"
            );
        }
    }

    #[test]
    fn a_file_that_is_no_model_is_refused_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let error = |file: Option<&Path>| open(directory.path(), file).unwrap_err().to_string();
        assert!(error(None).contains("onnx/vision_model.onnx"));
        assert!(error(Some(Path::new("other.onnx"))).contains("cannot be read"));
        let model = directory.path().join("model.onnx");
        std::fs::write(&model, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n").unwrap();
        assert!(error(None).contains("git lfs pull"));
        let whole = external("x");
        std::fs::write(&model, &whole[..whole.len() - 5]).unwrap();
        assert!(error(None).contains("not a complete ONNX file"));
        std::fs::write(&model, [0xff; 40]).unwrap();
        assert!(error(None).contains("not a complete ONNX file"));
    }

    #[test]
    fn the_image_half_of_a_dual_encoder_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("onnx")).unwrap();
        for name in ["onnx/model.onnx", "onnx/vision_model.onnx"] {
            std::fs::write(directory.path().join(name), [1 << 3, 8]).unwrap();
        }
        assert!(open(directory.path(), None).unwrap().path.ends_with("onnx/vision_model.onnx"));
    }
}
