//! temporary
#![allow(clippy::unwrap_used, missing_docs, dead_code)]
#[path = "../it/knox/mod.rs"]
mod knox;
use claviger_testkit::{Options, TestServer};
use std::path::Path;
fn program() -> &'static Path { Path::new(env!("CARGO_BIN_EXE_claviger")) }
fn server() -> TestServer { TestServer::start(program(), Options::default()).unwrap() }
fn server_with(config: &str) -> TestServer {
    TestServer::start(program(), Options { config: Some(config.to_owned()), ..Options::default() }).unwrap()
}
