//! External data of ONNX models: the files that hold the tensors of models above 2 GB.
//!
//! Reads the protobuf message field by field (onnx.proto3) and skips tensors, so the size of the model does not matter.

use std::io::{self, Read, Seek, SeekFrom};

/// The names of the data files: `ModelProto.graph.initializer.external_data["location"]`, each once.
///
/// # Errors
/// If the first `length` bytes of `reader` are not a complete protobuf message.
pub(super) fn external_data<R: Read + Seek>(reader: &mut R, length: u64) -> io::Result<Vec<String>> {
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
    /// Moves to the next length-delimited field with this number and returns where it ends. Skips all others.
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
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown wire type")),
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
        /// Keys and file names are shorter.
        const LONGEST: u64 = 4096;
        let length = end - self.reader.stream_position()?;
        if length > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a file name of more than 4096 bytes"));
        }
        let mut bytes = vec![0; length as usize];
        self.reader.read_exact(&mut bytes)?;
        String::from_utf8(bytes)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a file name that is not UTF-8"))
    }
}
