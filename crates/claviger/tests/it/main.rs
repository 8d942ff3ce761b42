//! The integration tests: real servers, real clients, one binary. Modules mirror what is tested.
#![allow(clippy::unwrap_used)]

mod approvals;
mod command_line;
mod faults;
mod front;
mod hygiene;
mod knox;
mod matrix;
mod node;
mod operation;
mod people;
mod records;
mod smoke;
mod tools;
mod using;

use claviger_testkit::{Options, TestServer};
use std::path::Path;

/// The program under test.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_claviger"))
}

/// A development server of its own for one test.
fn server() -> TestServer {
    TestServer::start(program(), Options::default()).unwrap()
}

/// The same with a configuration file.
fn server_with(config: &str) -> TestServer {
    TestServer::start(program(), Options { config: Some(config.to_owned()), ..Options::default() }).unwrap()
}
