//! The ids that files get from their names, and files that would share one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use pipeline::MAX_TOKEN_BYTES;

/// What stands for a file's id in the path of a route.
pub const PLACE: &str = "{name}";

/// The file's name without extension as an id; characters that an id cannot have become `-`.
pub fn token(file: &Path) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' };
    stem(file).chars().map(safe).take(MAX_TOKEN_BYTES).collect()
}

/// The file's name without extension.
pub fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Checks that no two files become the same id in a route's path.
///
/// # Errors
/// If some do: all of them, and what to do.
pub fn check_ids(path: &str, files: &[PathBuf]) -> anyhow::Result<()> {
    if !path.contains(PLACE) {
        return Ok(());
    }
    let Some(shared) = shared(files, token) else { return Ok(()) };
    bail!(
        "these files would have the same id in {path}:\n{shared}rename them: an id is the name without its extension, at most \
         {MAX_TOKEN_BYTES} characters, with - for all but A-Z a-z 0-9 _ -"
    );
}

/// The files that share a name, one line per name; `None` if all differ.
pub fn shared(files: &[PathBuf], name_of: impl Fn(&Path) -> String) -> Option<String> {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        let file_name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        by_name.entry(name_of(file)).or_default().push(file_name);
    }
    by_name.retain(|_, files| files.len() > 1);
    let lines: String = by_name.iter().map(|(name, files)| format!("  {name}: {}\n", files.join(", "))).collect();
    (!lines.is_empty()).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(|name| Path::new("photos").join(name)).collect()
    }

    #[test]
    fn all_files_that_share_an_id_are_listed() {
        let long = "x".repeat(MAX_TOKEN_BYTES);
        let (one, two) = (format!("{long}1.jpg"), format!("{long}2.jpg"));
        let files = files(&["a b.jpg", "a-b.jpg", "cat.jpg", "cat.png", "cat.webp", "dog.jpg", &one, &two]);
        let error = check_ids("/photos/{name}", &files).unwrap_err().to_string();
        for line in
            ["  a-b: a b.jpg, a-b.jpg\n", "  cat: cat.jpg, cat.png, cat.webp\n", &format!("  {long}: {one}, {two}\n")]
        {
            assert!(error.contains(line), "{error}");
        }
        assert!(!error.contains("dog") && error.contains("rename them"), "{error}");
    }

    #[test]
    fn names_that_differ_and_routes_without_a_name_pass() {
        check_ids("/photos/{name}", &files(&["a_b.jpg", "a-b.jpg"])).unwrap();
        check_ids("/photos", &files(&["a.jpg", "a.png"])).unwrap();
    }
}
