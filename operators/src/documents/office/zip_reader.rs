//! Strict ZIP reader: rejects any package that another program could read differently.
//!
//! The central directory and the local headers must agree; entries may not overlap, repeat a name (case-insensitively)
//! or leave the package; nothing may precede the first or follow the last record. Sizes are counted while inflating and
//! never trusted from the directory. ZIP64 is rejected: no package within the limits needs it.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use pipeline::Rejection;

use super::limits::Limits;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_LENGTH: usize = 22;
const ZIP64_LOCATOR: u32 = 0x0706_4b50;
const ZIP64_LOCATOR_LENGTH: usize = 20;
const LOCAL_LENGTH: usize = 30;
const CENTRAL_LENGTH: usize = 46;

const ENCRYPTED: u16 = 1;
const STRONGLY_ENCRYPTED: u16 = 1 << 6;
const DESCRIPTOR: u16 = 1 << 3;
const MASKED_HEADERS: u16 = 1 << 13;

const MODE_TYPE: u32 = 0o170_000;
const MODE_SYMLINK: u32 = 0o120_000;
const MADE_BY_UNIX: u16 = 3;

/// How an entry is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Stored,
    Deflate,
}

/// One entry of a package.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path within the package: relative, with `/`, never leaving it.
    pub name: String,
    pub(super) method: Method,
    pub(super) crc: u32,
    /// As the directory declares; only compared with the inflated length.
    pub(super) size: u32,
    pub(super) header_at: usize,
    /// Compressed bytes within the package.
    pub(super) data: Range<usize>,
    /// DOS time and date, unchanged.
    pub(super) modified: u32,
}

impl Entry {
    /// Compressed length in bytes.
    #[must_use]
    pub fn packed_length(&self) -> usize {
        self.data.len()
    }

    /// Whether it is a folder entry.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.name.ends_with('/')
    }
}

/// 422 for a package that is damaged or contradicts itself.
pub(super) fn corrupt(detail: impl std::fmt::Display) -> Rejection {
    Rejection::unusable("package_corrupt", format!("the package is damaged: {detail}; save the document again"))
}

fn unsafe_package(detail: impl std::fmt::Display) -> Rejection {
    Rejection::unusable("package_unsafe", format!("the package is not safe: {detail}; save the document again"))
}

/// Reads the directory and compares every entry with its local header.
pub(super) fn directory(bytes: &Bytes, limits: &Limits) -> Result<Vec<Entry>, Rejection> {
    let (count, range) = end_record(bytes)?;
    if count > limits.parts {
        let detail = format!("the package has {count} parts; the limit is {}", limits.parts);
        return Err(Rejection::unusable("too_many_parts", detail));
    }
    let mut entries = Vec::with_capacity(count);
    let mut at = range.start;
    for _ in 0..count {
        let (entry, next) = central_entry(bytes, at, range.end)?;
        entries.push(entry);
        at = next;
    }
    if at != range.end {
        return Err(corrupt("its directory has more entries than it declares"));
    }
    distinct_names(&entries)?;
    apart(&entries, range.start)?;
    Ok(entries)
}

/// Reads the end record: number of entries and range of the directory.
fn end_record(bytes: &[u8]) -> Result<(usize, Range<usize>), Rejection> {
    let missing =
        || corrupt("it does not end with the end record of a ZIP file, so it is truncated or has trailing data");
    let at = bytes.len().checked_sub(END_LENGTH).ok_or_else(missing)?;
    if u32_at(bytes, at) != Some(END) || u16_at(bytes, at + 20) != Some(0) {
        return Err(missing());
    }
    let locator = at.checked_sub(ZIP64_LOCATOR_LENGTH).and_then(|at| u32_at(bytes, at));
    let field = |offset| u16_at(bytes, at + offset).unwrap_or(u16::MAX);
    let (size, offset) = (u32_at(bytes, at + 12).unwrap_or(u32::MAX), u32_at(bytes, at + 16).unwrap_or(u32::MAX));
    if locator == Some(ZIP64_LOCATOR) || field(10) == u16::MAX || size == u32::MAX || offset == u32::MAX {
        return Err(unsafe_package("it is a ZIP64 file"));
    }
    if field(4) != 0 || field(6) != 0 || field(8) != field(10) {
        return Err(unsafe_package("it is one of several volumes"));
    }
    let (size, offset) = (size as usize, offset as usize);
    if offset.checked_add(size) != Some(at) {
        return Err(corrupt("its directory is not where its end record declares it"));
    }
    Ok((usize::from(field(10)), offset..at))
}

fn central_entry(bytes: &[u8], at: usize, end: usize) -> Result<(Entry, usize), Rejection> {
    let cut = || corrupt("its directory is truncated");
    let header = bytes.get(at..at + CENTRAL_LENGTH).filter(|_| at + CENTRAL_LENGTH <= end).ok_or_else(cut)?;
    let (word, long) = (|offset| u16_at(header, offset).unwrap_or(0), |offset| u32_at(header, offset).unwrap_or(0));
    if long(0) != CENTRAL {
        return Err(corrupt("its directory is not readable"));
    }
    let [name_length, extra_length, comment_length] = [28, 30, 32].map(|offset| usize::from(word(offset)));
    let name_at = at + CENTRAL_LENGTH;
    let next = name_at + name_length + extra_length + comment_length;
    let name = bytes.get(name_at..name_at + name_length).filter(|_| next <= end).ok_or_else(cut)?;
    let name = safe_name(name)?;
    let flags = word(8);
    if flags & (ENCRYPTED | STRONGLY_ENCRYPTED | MASKED_HEADERS) != 0 {
        return Err(Rejection::unusable(
            "package_encrypted",
            format!("part {name:?} is encrypted; save without a password"),
        ));
    }
    let mode = long(38) >> 16;
    if word(4) >> 8 == MADE_BY_UNIX && mode & MODE_TYPE == MODE_SYMLINK {
        return Err(unsafe_package(format_args!("part {name:?} is a symbolic link")));
    }
    let (compressed, size, header_at) = (long(20), long(24), long(42));
    let extra = &bytes[name_at + name_length..name_at + name_length + extra_length];
    if [compressed, size, header_at].contains(&u32::MAX) || has_zip64(extra) {
        return Err(unsafe_package(format_args!("part {name:?} has ZIP64 sizes")));
    }
    let method = match word(10) {
        0 => Method::Stored,
        8 => Method::Deflate,
        other => {
            return Err(unsafe_package(format_args!(
                "part {name:?} uses compression method {other}; only 0 and 8 are accepted"
            )));
        }
    };
    let header_at = header_at as usize;
    let crc = long(16);
    let entry = Entry { name, method, crc, size, header_at, data: 0..compressed as usize, modified: long(12) };
    Ok((located(bytes, entry, flags)?, next))
}

/// Compares an entry with its local header and finds its data.
fn located(bytes: &[u8], mut entry: Entry, flags: u16) -> Result<Entry, Rejection> {
    let name = &entry.name;
    let differs = || corrupt(format_args!("the directory and the header of part {name:?} differ"));
    let header = bytes.get(entry.header_at..entry.header_at.saturating_add(LOCAL_LENGTH)).ok_or_else(differs)?;
    let (word, long) = (|offset| u16_at(header, offset).unwrap_or(0), |offset| u32_at(header, offset).unwrap_or(0));
    let name_at = entry.header_at + LOCAL_LENGTH;
    let data_at = name_at + usize::from(word(26)) + usize::from(word(28));
    let data = data_at..data_at.saturating_add(entry.data.len());
    if long(0) != LOCAL || data.end > bytes.len() {
        return Err(differs());
    }
    let local_name = &bytes[name_at..name_at + usize::from(word(26))];
    let method = if entry.method == Method::Deflate { 8 } else { 0 };
    let same_kind = local_name == name.as_bytes() && word(6) == flags && word(8) == method;
    let sizes = (long(14), long(18) as usize, long(22));
    let sizes_agree = sizes == (entry.crc, entry.data.len(), entry.size);
    // With a data descriptor the sizes follow the data, and the header may have zeros.
    if !same_kind || !(sizes_agree || flags & DESCRIPTOR != 0 && sizes == (0, 0, 0)) {
        return Err(differs());
    }
    entry.data = data;
    Ok(entry)
}

/// The name of an entry: a relative path that does not leave the package.
fn safe_name(bytes: &[u8]) -> Result<String, Rejection> {
    let shown = || String::from_utf8_lossy(bytes).chars().take(80).collect::<String>();
    let name =
        std::str::from_utf8(bytes).map_err(|_| unsafe_package(format_args!("{:?} is not a UTF-8 name", shown())))?;
    let path = name.strip_suffix('/').unwrap_or(name);
    let escapes = path.split('/').any(|segment| matches!(segment, "" | "." | ".."));
    let odd = name.contains(|c: char| c.is_control() || matches!(c, '\\' | ':'));
    if escapes || odd || name.len() > 512 {
        return Err(unsafe_package(format_args!("part name {:?} leaves the package or is not a plain path", shown())));
    }
    Ok(name.to_owned())
}

fn has_zip64(mut extra: &[u8]) -> bool {
    while let (Some(id), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        if id == 1 {
            return true;
        }
        extra = extra.get(4 + usize::from(length)..).unwrap_or_default();
    }
    false
}

fn distinct_names(entries: &[Entry]) -> Result<(), Rejection> {
    let mut seen = HashSet::with_capacity(entries.len());
    for entry in entries {
        // Part names are case-insensitive (ECMA-376 part 2, 6.2.2).
        if !seen.insert(entry.name.to_ascii_lowercase()) {
            return Err(unsafe_package(format_args!("it has two parts named {:?}", entry.name)));
        }
    }
    Ok(())
}

/// Rejects entries that overlap, and data before the first entry.
fn apart(entries: &[Entry], directory_at: usize) -> Result<(), Rejection> {
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_by_key(|entry| entry.header_at);
    if order.first().map_or(directory_at, |entry| entry.header_at) != 0 {
        return Err(unsafe_package("it has data before its first part"));
    }
    let ends = order.iter().map(|entry| entry.data.end);
    let begins = order.iter().skip(1).map(|entry| entry.header_at).chain([directory_at]);
    for ((end, begin), entry) in ends.zip(begins).zip(&order) {
        if end > begin {
            return Err(unsafe_package(format_args!("part {:?} overlaps the next record", entry.name)));
        }
    }
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
