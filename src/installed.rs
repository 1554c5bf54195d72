//! Finds what `make setup` installs: the nats-server program and the ONNX Runtime library.
//!
//! Search order: the flag or environment variable, then the `.caudal` folder above the program or in the current
//! directory, then the system.

use std::path::{Path, PathBuf};

use clap::Args;

/// Paths given by the user; they override the search.
#[derive(Args, Clone, Debug, Default)]
pub struct Parts {
    /// The nats-server program
    #[arg(long, env = "CAUDAL_NATS_SERVER", value_name = "FILE", global = true, hide_short_help = true)]
    pub nats_server: Option<PathBuf>,
    /// ONNX Runtime's shared library
    #[arg(long, env = "ORT_DYLIB_PATH", value_name = "FILE", global = true, hide_short_help = true)]
    pub onnxruntime: Option<PathBuf>,
    /// Directories searched for nats-server
    #[arg(long = "search-path", env = "PATH", hide = true, global = true)]
    pub search_path: Option<std::ffi::OsString>,
}

/// The command that installs what is missing.
pub const REMEDY: &str = "run `make setup`";

impl Parts {
    /// The nats-server program, if one is found.
    #[must_use]
    pub fn find_nats_server(&self) -> Option<PathBuf> {
        if let Some(named) = &self.nats_server {
            return Some(named.clone());
        }
        let on_path = self.search_path.iter().flat_map(std::env::split_paths).map(|folder| folder.join("nats-server"));
        installed("bin/nats-server").into_iter().chain(on_path).find(|candidate| candidate.is_file())
    }

    /// The ONNX Runtime library, if one is found.
    #[must_use]
    pub fn find_onnxruntime(&self) -> Option<PathBuf> {
        if let Some(named) = &self.onnxruntime {
            return Some(named.clone());
        }
        let system = ["/usr/local/lib", "/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
        let system = system.into_iter().map(|folder| Path::new(folder).join("libonnxruntime.so"));
        installed("lib/libonnxruntime.so").into_iter().chain(system).find(|candidate| candidate.is_file())
    }
}

/// `.caudal/<part>` in the folders above the program and in the current directory.
fn installed(part: &str) -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let above = program.iter().flat_map(|program| program.ancestors().skip(1)).map(Path::to_path_buf);
    let here = std::env::current_dir().ok();
    above.chain(here).map(|folder| folder.join(".caudal").join(part)).collect()
}
