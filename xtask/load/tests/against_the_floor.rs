//! The load generator as a process against the floor: right answers are counted, wrong ones end the run.
//!
//! No figure is checked; how fast either is depends on the machine.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

const SIZE: usize = 300;

struct Floor {
    dir: TempDir,
    url: String,
}

/// Starts a floor in this process; it ends with it.
fn floor() -> Floor {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let path = dir.path().to_owned();
    thread::spawn(move || {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            xtask_floor::run(listener, SIZE, &path).await
        })
    });
    while !std::fs::read_to_string(dir.path().join("client.key")).is_ok_and(|key| key.contains("END")) {
        thread::yield_now();
    }
    Floor { dir, url }
}

impl Floor {
    fn load(&self, mode: &str, more: &[&str]) -> Output {
        let file = |name: &str| Path::join(self.dir.path(), name);
        Command::new(env!("CARGO_BIN_EXE_xtask-load"))
            .args([mode, "--url", &self.url])
            .arg("--ca")
            .arg(file("ca.pem"))
            .arg("--cert")
            .arg(file("client.pem"))
            .arg("--key")
            .arg(file("client.key"))
            .args(more)
            .output()
            .unwrap()
    }
}

fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn a_closed_loop_counts_right_answers() {
    let more = "--connections 8 --threads 2 --duration 0.5 --warmup 0.1 --length 300";
    let report = report(&floor().load("closed", &more.split(' ').collect::<Vec<_>>()));
    assert_eq!(report["connections"], 8);
    assert!(report["requests"].as_u64().unwrap() > 0);
    assert!(report["p99_us"].as_f64() >= report["p50_us"].as_f64());
}

#[test]
fn as_many_requests_as_asked_for_are_sent_and_counted() {
    let more = "--connections 8 --count 101";
    let report = report(&floor().load("closed", &more.split(' ').collect::<Vec<_>>()));
    assert_eq!(report["requests"], 101);
}

#[test]
fn single_requests_get_a_line_each() {
    let output = floor().load("once", &["--count", "3"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let times: Vec<u64> = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["sent_ns"].as_u64().unwrap()).collect();
    assert!(times.len() == 3 && times.is_sorted());
}

#[test]
fn a_new_connection_for_every_request_works_too() {
    let more = "--connections 2 --duration 0.5 --warmup 0.1 --churn";
    let report = report(&floor().load("closed", &more.split(' ').collect::<Vec<_>>()));
    assert!(report["requests"].as_u64().unwrap() > 0);
}

#[test]
fn a_wrong_length_ends_the_run_with_an_error() {
    let more = "--connections 1 --duration 0.2 --warmup 0 --length 299";
    let output = floor().load("closed", &more.split(' ').collect::<Vec<_>>());
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("a body of 300 bytes instead of 299"), "{errors}");
}

#[test]
fn a_wrong_status_ends_the_run_with_an_error() {
    let more = "--connections 1 --duration 0.2 --warmup 0 --status 201";
    let output = floor().load("closed", &more.split(' ').collect::<Vec<_>>());
    assert!(!output.status.success());
}

#[test]
fn one_request_shows_status_and_body() {
    let report = report(&floor().load("once", &["--method", "POST", "--body", "id=a"]));
    assert_eq!(report["status"], 200);
    assert_eq!(report["length"], SIZE);
}

#[test]
fn the_floor_refuses_a_client_without_a_certificate() {
    let floor = floor();
    let output = Command::new(env!("CARGO_BIN_EXE_xtask-load"))
        .args(["once", "--url", &floor.url])
        .arg("--ca")
        .arg(floor.dir.path().join("ca.pem"))
        .output()
        .unwrap();
    assert!(!output.status.success());
}

#[test]
fn what_is_no_event_stream_is_not_counted_as_one() {
    let output = floor().load("watch", &["--streams", "2", "--duration", "0.1"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("no event stream"), "{errors}");
}

#[test]
fn the_name_in_the_floor_certificate_is_found() {
    let floor = floor();
    let output =
        Command::new(env!("CARGO_BIN_EXE_xtask-load")).args(["name", "--cert"]).arg(floor.dir.path().join("client.pem")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "bench-client");
}
