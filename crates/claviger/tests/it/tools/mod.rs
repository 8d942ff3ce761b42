//! The commands that make values, put them in, compare, find and move them, against a real server.

mod compare;
mod export;
mod generate;
mod import;
mod put;
mod scan;
mod share;
pub(crate) mod terminal;

use claviger_testkit::TestServer;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file of a test in the server's folder, which goes with it.
fn file(server: &TestServer, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = server.dir().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// A script that can be started.
fn script(server: &TestServer, name: &str, text: &str) -> PathBuf {
    let path = file(server, name, format!("#!/bin/sh\nset -e\n{text}"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}
