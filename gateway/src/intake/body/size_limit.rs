//! Enforces the size limits of bodies: against `Content-Length` before a byte is read, and against the bytes that come.

use std::borrow::Cow;

use pipeline::spec::ByteSize;

use crate::problem::Problem;

/// Checks the announced length of a body that may have `max_bytes`; `shown` is the route's own limit, for the message.
///
/// # Errors
/// 413 if it is longer.
pub fn check_announced(length: u64, max_bytes: u64, shown: ByteSize) -> Result<(), Problem> {
    if length <= max_bytes {
        return Ok(());
    }
    let detail = format!("the body has {length} bytes: this route takes at most {shown} ({} bytes)", shown.0);
    Err(Problem::too_large(detail))
}

/// Counts the bytes of a body, or of a part of it, against its limit.
pub struct SizeLimit {
    /// What is limited, for the message: `the body`, `part "photo"`.
    what: Cow<'static, str>,
    max_bytes: u64,
    read: u64,
}

impl SizeLimit {
    pub fn new(what: impl Into<Cow<'static, str>>, max_bytes: u64) -> Self {
        Self { what: what.into(), max_bytes, read: 0 }
    }

    /// Counts more bytes.
    ///
    /// # Errors
    /// 413 once they are too many.
    pub fn add(&mut self, bytes: usize) -> Result<(), Problem> {
        self.read += bytes as u64;
        if self.read <= self.max_bytes {
            return Ok(());
        }
        let most = ByteSize(self.max_bytes);
        Err(Problem::too_large(format!("{} is longer than {most}, the most that is taken here", self.what)))
    }

    /// Bytes counted so far.
    pub fn read(&self) -> u64 {
        self.read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_may_have_exactly_its_limit() {
        let mut limit = SizeLimit::new("the body", 10);
        limit.add(4).unwrap();
        limit.add(6).unwrap();
        assert_eq!(limit.add(1).unwrap_err().status().as_u16(), 413);
    }

    #[test]
    fn the_message_names_what_is_too_large_and_the_limit() {
        let problem = SizeLimit::new("part \"photo\"", 1 << 20).add(2 << 20).unwrap_err();
        let text = problem.to_string();
        assert!(text.contains("part \"photo\"") && text.contains("1 MiB"), "{text}");
    }

    #[test]
    fn an_announced_length_is_refused_before_it_comes() {
        check_announced(10, 10, ByteSize(10)).unwrap();
        assert_eq!(check_announced(11, 10, ByteSize(10)).unwrap_err().status().as_u16(), 413);
    }
}
