//! README.md and nats/README.md as a new user follows them: every `sh` block runs as printed, in its order, in one shell.
//!
//! The shell's folder has what the pages name: `config/`, `examples/` and the built program. The fixed addresses in print are
//! replaced by free ones, in the blocks and in the configs. A block that serves runs in the background, as in a terminal of
//! its own, until the next service but a worker's is started. A `python` block is a file, named by its first line. Blocks of
//! other languages (`console`, `toml`, `json`) are for reading.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::caudal::{TIMEOUT, checkout, descendants};

/// The addresses in print, in the configs too.
const ADDRESSES: [&str; 3] = ["127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:4222"];

/// Printed when a block has succeeded.
const END: &str = "-- end of block --";
/// Printed when a command fails, which ends the shell.
const FAILED: &str = "-- a command failed --";

struct Block {
    language: String,
    /// Line of the page, for messages.
    line: usize,
    text: String,
}

/// The fenced blocks of a page.
fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in page.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                open = true;
                found.push(Block { language: language.to_owned(), line: number + 1, text: String::new() });
            }
            None if open => {
                let block = found.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    found
}

/// A folder as a new user has it, and a shell in it.
struct Reader {
    folder: TempDir,
    addresses: Vec<(&'static str, String)>,
    shell: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    files: usize,
}

impl Drop for Reader {
    /// Ends the services of a test that failed.
    fn drop(&mut self) {
        for pid in self.shell.id().map(descendants).unwrap_or_default() {
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

impl Reader {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let addresses = free_addresses();
        for name in ["config", "examples"] {
            copy(&checkout().join(name), &folder.path().join(name), &addresses);
        }
        let program = folder.path().join("target/release/caudal");
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_caudal"), program).unwrap();
        let installed = checkout().join(".caudal");
        std::os::unix::fs::symlink(&installed, folder.path().join(".caudal")).unwrap();
        // An answer that is an error fails the block.
        std::fs::write(folder.path().join(".curlrc"), "fail-with-body\n").unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut shell = Command::new("bash")
            .current_dir(folder.path())
            .env("CURL_HOME", folder.path())
            .env("PYTHONPATH", installed.join("nats-py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
        Self { folder, addresses, shell, input, output: BufReader::new(output).lines(), files: 0 }
    }

    /// The shell ends at the first command that fails. Services keep its output open, so it says so.
    async fn prepare(&mut self) {
        self.source("the shell", &format!("set -eo pipefail; trap 'echo; echo \"{FAILED}\"' EXIT"), false).await;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the blocks of a page; what each `sh` block prints.
    async fn follow(&mut self, page: &str) -> Vec<String> {
        let text = std::fs::read_to_string(checkout().join(page)).unwrap();
        let mut printed = Vec::new();
        for block in blocks(&text) {
            let at = format!("{page}:{}", block.line);
            let text = with_addresses(&block.text, &self.addresses);
            match &*block.language {
                "sh" => printed.push(self.run(&at, &text).await),
                "python" => {
                    let name = text.strip_prefix("# ").and_then(|rest| rest.split(';').next());
                    std::fs::write(self.path(name.unwrap_or_else(|| panic!("{at}: no name"))), &text).unwrap();
                }
                "console" | "toml" | "json" | "rust" | "text" => {}
                other => panic!("{at}: {other:?} says neither that the block is run nor that it is not"),
            }
        }
        printed
    }

    async fn run(&mut self, at: &str, text: &str) -> String {
        let serves = text.contains("caudal serve");
        if serves && !text.contains("--role worker") {
            self.source(at, "kill $(jobs -p) 2>/dev/null || true; wait", false).await;
        }
        let background = if serves && !text.trim_end().ends_with('&') { " &" } else { "" };
        self.source(at, &format!("{}{background}\n", text.trim_end()), serves).await
    }

    /// Runs a script in the shell and returns what it prints. `serves`: also waits until a service is ready.
    async fn source(&mut self, at: &str, script: &str, serves: bool) -> String {
        self.files += 1;
        let file = self.path(&format!("block-{}.sh", self.files));
        std::fs::write(&file, script).unwrap();
        let line = format!("source {} </dev/null; echo; echo '{END}'\n", file.display());
        self.input.write_all(line.as_bytes()).await.unwrap();
        let mut printed = String::new();
        let (mut ended, mut ready) = (false, !serves);
        while !(ended && ready) {
            let line = tokio::time::timeout(TIMEOUT, self.output.next_line()).await;
            let line = match line {
                Ok(Ok(Some(line))) if line != FAILED => line,
                _ => self.fail(at, script, &printed),
            };
            ended |= line == END;
            ready |= line.starts_with("ready ");
            printed.push_str(&line);
            printed.push('\n');
        }
        printed
    }

    fn fail(&self, at: &str, script: &str, printed: &str) -> ! {
        let log = std::fs::read_to_string(self.path("log")).unwrap();
        panic!("{at}\n{script}\n{printed}\n{log}");
    }

    fn begins(&self, name: &str, magic: &[u8]) -> bool {
        std::fs::read(self.path(name)).is_ok_and(|bytes| bytes.starts_with(magic))
    }
}

/// Ports that were free a moment ago, all at once.
fn free_addresses() -> Vec<(&'static str, String)> {
    let listeners = ADDRESSES.map(|printed| (printed, std::net::TcpListener::bind("127.0.0.1:0").unwrap()));
    listeners.iter().map(|(printed, listener)| (*printed, listener.local_addr().unwrap().to_string())).collect()
}

fn with_addresses(text: &str, addresses: &[(&str, String)]) -> String {
    addresses.iter().fold(text.to_owned(), |text, (printed, free)| text.replace(printed, free))
}

fn copy(from: &Path, to: &Path, addresses: &[(&str, String)]) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target, addresses);
        } else if entry.path().extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            std::fs::write(target, with_addresses(&text, addresses)).unwrap();
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn every_block_of_the_pages_runs_as_printed() {
    let mut reader = Reader::new();
    reader.prepare().await;
    let printed = reader.follow("README.md").await.concat();
    let matches = printed.lines().find(|line| line.contains("\"matches\"")).expect("the search answers");
    let first = matches.split("\"report_id\":\"").nth(1).unwrap_or_default();
    assert!(first.starts_with("biscuit\""), "a crop finds its original first: {matches}");
    assert!(printed.contains("event: done"), "{printed}");
    for name in ["letter.pdf", "poster.pdf", "both.pdf", "letters/ada.pdf", "letters/alan.pdf", "letters/grace.pdf"] {
        assert!(reader.begins(name, b"%PDF-"), "{name}");
    }
    assert!(reader.begins("letter.docx", b"PK"));

    let printed = reader.follow("nats/README.md").await;
    let last = printed.last().unwrap();
    assert!(last.contains("done b'"), "{last}");
    // What the page says of a photo that is too long.
    std::fs::write(reader.path("long.jpg"), vec![0; (256 << 10) + 1]).unwrap();
    let printed = reader.source("nats/README.md", "python3 publish.py long.jpg", false).await;
    assert!(printed.contains("failed b'") && printed.contains("body_too_long"), "{printed}");
}

#[test]
fn a_page_is_cut_into_its_blocks() {
    let found = blocks("# A\n```sh\na\n\nb\n```\ntext\n```toml\n[x]\n```\n");
    let found: Vec<_> = found.iter().map(|block| (&*block.language, block.line, &*block.text)).collect();
    assert_eq!(found, [("sh", 2, "a\n\nb\n"), ("toml", 8, "[x]\n")]);
}
