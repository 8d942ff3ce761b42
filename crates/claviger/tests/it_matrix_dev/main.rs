#![allow(clippy::unwrap_used)]
#[path = "../it/matrix/mod.rs"]
mod matrix;
use claviger_testkit::{Options, TestServer};
use std::path::Path;
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_claviger"))
}
fn server_with(config: &str) -> TestServer {
    TestServer::start(program(), Options { config: Some(config.to_owned()), ..Options::default() }).unwrap()
}
