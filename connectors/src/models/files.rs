//! The files of a model directory: which one is the model, what it refers to, and what they hash to.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use pipeline::Digest;
use sha2::{Digest as _, Sha256};

use super::ModelError;

/// Where the image model lies in the layouts people publish. The image half of a dual encoder comes first: the whole of it
/// would want text as well.
const CANDIDATES: [&str; 4] = ["vision_model.onnx", "onnx/vision_model.onnx", "model.onnx", "onnx/model.onnx"];

/// What a checkout without Git LFS has in place of a large file.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// A model's file and all that belongs to it.
#[derive(Debug)]
pub(super) struct ModelFiles {
    /// The `.onnx` file.
    pub(super) path: PathBuf,
    /// Over the file and its external data.
    pub(super) digest: Digest,
}

/// Finds the model file in `directory` and hashes it with its external data.
pub(super) fn open(directory: &Path, file: Option<&Path>) -> Result<ModelFiles, ModelError> {
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
        .map_err(|error| wrong(format!("this is no complete ONNX file ({error}): fetch it again")))?;
    let mut hash = Sha256::new();
    hash_file(&mut hash, &path).map_err(unreadable)?;
    for location in data {
        let part =
            beside(&path, &location).ok_or_else(|| wrong(format!("its data file {location:?} lies elsewhere")))?;
        hash_file(&mut hash, &part)
            .map_err(|error| wrong(format!("its data file {location:?} is unreadable ({error})")))?;
    }
    Ok(ModelFiles { path, digest: Digest(hash.finalize().into()) })
}

fn find(directory: &Path) -> Result<PathBuf, ModelError> {
    let found = CANDIDATES.iter().map(|name| directory.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| ModelError::File {
        path: directory.to_path_buf(),
        why: format!("no model found here; looked for {}, name another with `file`", CANDIDATES.join(", ")),
    })
}

fn refuse_pointer(reader: &mut BufReader<File>) -> Result<(), String> {
    let mut head = Vec::new();
    let read = reader.by_ref().take(LFS_POINTER.len() as u64).read_to_end(&mut head);
    read.and_then(|_| reader.rewind()).map_err(|error| format!("the model file cannot be read ({error})"))?;
    if head == LFS_POINTER {
        return Err("this is a Git LFS pointer, not the model: run `git lfs pull` in its repository".into());
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

/// The files that hold the tensors of models above 2 GB: `ModelProto.graph.initializer.external_data["location"]`, each
/// once. Tensors are skipped, not read, so that the size of the model does not matter.
fn external_data<R: Read + Seek>(reader: &mut R, length: u64) -> io::Result<Vec<String>> {
    const GRAPH: u64 = 7;
    const INITIALIZER: u64 = 5;
    const EXTERNAL_DATA: u64 = 13;
    let mut locations: Vec<String> = Vec::new();
    let mut model = Message { reader, end: length };
    while let Some(graph) = model.next(GRAPH)? {
        let mut graph = Message { reader: &mut *model.reader, end: graph };
        while let Some(tensor) = graph.next(INITIALIZER)? {
            let mut tensor = Message { reader: &mut *graph.reader, end: tensor };
            while let Some(end) = tensor.next(EXTERNAL_DATA)? {
                let location = location_of(Message { reader: &mut *tensor.reader, end })?;
                tensor.reader.seek(SeekFrom::Start(end))?;
                if let Some(location) = location.filter(|location| !locations.contains(location)) {
                    locations.push(location);
                }
            }
        }
    }
    Ok(locations)
}

/// The value of a `StringStringEntryProto` whose key is `location`.
fn location_of<R: Read + Seek>(mut entry: Message<'_, R>) -> io::Result<Option<String>> {
    let mut texts = Vec::new();
    for field in [1, 2] {
        let Some(end) = entry.next(field)? else { return Ok(None) };
        texts.push(entry.text(end)?);
    }
    let value = texts.pop();
    Ok(value.filter(|_| texts.pop().is_some_and(|key| key == "location")))
}

/// A protobuf message between the reader's position and `end`.
struct Message<'r, R> {
    reader: &'r mut R,
    end: u64,
}

impl<R: Read + Seek> Message<'_, R> {
    /// Goes to the next length-delimited field of this number and returns where it ends; skips all others.
    fn next(&mut self, wanted: u64) -> io::Result<Option<u64>> {
        const VARINT: u64 = 0;
        const FIXED_64: u64 = 1;
        const DELIMITED: u64 = 2;
        const FIXED_32: u64 = 5;
        while self.reader.stream_position()? < self.end {
            let key = self.varint()?;
            let skip = match key & 7 {
                VARINT => {
                    self.varint()?;
                    0
                }
                FIXED_64 => 8,
                FIXED_32 => 4,
                DELIMITED => self.varint()?,
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "an impossible field")),
            };
            let end = self.reader.stream_position()?.checked_add(skip).filter(|end| *end <= self.end);
            let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
            if key >> 3 == wanted && key & 7 == DELIMITED {
                return Ok(Some(end));
            }
            self.reader.seek(SeekFrom::Start(end))?;
        }
        Ok(None)
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.reader.read_exact(&mut byte)?;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "a number of more than 64 bits"))
    }

    fn text(&mut self, end: u64) -> io::Result<String> {
        /// Keys and file names; anything longer is neither.
        const LONGEST: u64 = 4096;
        let length = end - self.reader.stream_position()?;
        if length > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a file name of more than 4096 bytes"));
        }
        let mut bytes = vec![0; length as usize];
        self.reader.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a file name that is no text"))
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

    /// A model of one tensor that lies in `location`.
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
            assert!(open(directory.path(), None).unwrap_err().to_string().contains("elsewhere"), "{location}");
        }
    }

    #[test]
    fn what_is_no_model_is_said_plainly() {
        let directory = tempfile::tempdir().unwrap();
        let error = |file: Option<&Path>| open(directory.path(), file).unwrap_err().to_string();
        assert!(error(None).contains("onnx/vision_model.onnx"));
        assert!(error(Some(Path::new("other.onnx"))).contains("cannot be read"));
        let model = directory.path().join("model.onnx");
        std::fs::write(&model, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n").unwrap();
        assert!(error(None).contains("git lfs pull"));
        let whole = external("x");
        std::fs::write(&model, &whole[..whole.len() - 5]).unwrap();
        assert!(error(None).contains("no complete ONNX file"));
        std::fs::write(&model, [0xff; 40]).unwrap();
        assert!(error(None).contains("no complete ONNX file"));
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
