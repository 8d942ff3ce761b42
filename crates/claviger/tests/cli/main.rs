//! The command as others start it, against a server with canned answers over real TLS.

#![allow(clippy::unwrap_used, unreachable_pub)]

// The client's own tests use more of it.
#[allow(dead_code)]
#[path = "../../../client/tests/client/canned.rs"]
mod canned;

use canned::{Canned, Received, Reply, problem};
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The program with nothing in its environment but what the server needs.
fn claviger(server: &Canned, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("CLAVIGER_ADDR", &server.url).env("CLAVIGER_CA", server.file("ca.pem")).env("CLAVIGER_TOKEN", "t0ken");
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(server: &Canned, arguments: &[&str]) -> Output {
    claviger(server, arguments).output().unwrap()
}

fn run_with_input(server: &Canned, arguments: &[&str], input: &str) -> Output {
    let mut child = claviger(server, arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn data(version: &str, base64: &str) -> String {
    format!(
        r#"{{"id":"db/pw","etag":"00ab-3","revision":"1.7","versions":[{{"id":"{version}","state":"primary","created":"2026-01-02T00:00:00Z","data":"{base64}"}}]}}"#
    )
}

fn items(version: &str, base64: &str) -> Reply {
    Reply::Json(200, format!(r#"{{"items":[{{"id":"db/pw","data":{}}}]}}"#, data(version, base64)))
}

#[test]
fn get_prints_the_value_and_nothing_else() {
    let server = Canned::start(|_, _| Reply::Json(200, data("7", "aHVudGVyMg==")));
    let output = run(&server, &["get", "db/pw"]);
    assert_eq!((text(&output.stdout), text(&output.stderr), output.status.code()), ("hunter2".into(), String::new(), Some(0)));
    assert_eq!(server.requests()[0].line, "GET /api/v1/keys/db/pw/-/data?state=primary");

    let json: serde_json::Value = serde_json::from_slice(&run(&server, &["get", "--json", "db/pw"]).stdout).unwrap();
    assert_eq!(json["versions"][0]["data"], "aHVudGVyMg==");

    let file = server.file("value");
    let output = run(&server, &["get", "db/pw", "--output", file.to_str().unwrap()]);
    assert!(output.stdout.is_empty() && std::fs::read(&file).unwrap() == b"hunter2");
}

#[test]
fn create_takes_the_value_from_standard_input_and_never_echoes_it() {
    let info = r#"{"id":"db/pw","kind":"secret","etag":"00ab-1","revision":"1.8","description":"","labels":{},"separate_duties":false,
        "created":"2026-01-01T00:00:00Z","created_by":"a","versions":[],"allowed":[]}"#;
    let server = Canned::start(move |_, _| Reply::Json(201, info.to_owned()));
    let arguments = ["create", "db/pw", "--acl", "user:bob=read", "--label", "env=prod", "--max-lifetime", "90d", "--trim-newline"];
    let output = run_with_input(&server, &arguments, "hunter2\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!text(&output.stdout).contains("hunter2"));
    let sent: serde_json::Value = serde_json::from_str(&server.requests()[0].body).unwrap();
    assert_eq!(sent["data"], "aHVudGVyMg==");
    assert_eq!(
        (&sent["acl"][0]["preset"], &sent["labels"]["env"], &sent["max_lifetime"]),
        (&"read".into(), &"prod".into(), &7_776_000.into())
    );

    let output = run_with_input(&server, &["create", "db/pw"], "hunter2\n");
    assert!(text(&output.stderr).contains("ends with a line break"));
    assert!(server.requests()[1].body.contains("aHVudGVyMgo="));
}

#[test]
fn failures_have_their_code_and_a_next_step() {
    let server = Canned::start(|r: &Received, _| match r.line.rsplit('/').next().unwrap() {
        "denied" => problem(403, "denied", "user:a lacks the right to list"),
        "missing" => problem(404, "not_found", "there is no such key"),
        "versionless" => problem(404, "not_found", "there is no version 5"),
        "anonymous" => problem(401, "unauthenticated", "no credential"),
        "taken" => problem(409, "conflict", "it exists"),
        _ => problem(400, "invalid", "no"),
    });
    for (key, code, step) in [
        ("denied", 4, "acl explain denied"),
        ("missing", 3, "claviger ls"),
        ("versionless", 3, "claviger versions versionless"),
        ("anonymous", 5, "CLAVIGER_TOKEN"),
        ("taken", 6, "claviger info"),
    ] {
        let output = run(&server, &["info", key]);
        assert_eq!(output.status.code(), Some(code), "{key}");
        assert!(text(&output.stderr).contains(step) && output.stdout.is_empty(), "{}", text(&output.stderr));
    }
    let error: serde_json::Value = serde_json::from_slice(&run(&server, &["info", "denied", "--json"]).stderr).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["request_id"]), (&"denied".into(), &"r1".into()));

    assert_eq!(run(&server, &["info", "a//b"]).status.code(), Some(2));
    assert_eq!(run(&server, &["destroy", "a", "7"]).status.code(), Some(2), "not without --yes");
    assert_eq!(run(&server, &["info", "x", "--addr", "https://127.0.0.1:1"]).status.code(), Some(7));
    let empty = run(&server, &["create", "x"]);
    assert!(empty.status.code() == Some(2) && text(&empty.stderr).contains("printf hunter2 |"), "{}", text(&empty.stderr));
    let unreadable = run(&server, &["info", "x", "--ca", "/nowhere"]);
    assert!(unreadable.status.code() == Some(2) && text(&unreadable.stderr).contains("next: "), "{}", text(&unreadable.stderr));
    let unset = claviger(&server, &["info", "x"]).env_remove("CLAVIGER_ADDR").output().unwrap();
    assert!(unset.status.code() == Some(2) && text(&unset.stderr).contains("dev.env"));
    assert_eq!(run(&server, &["destroy", "a", "7", "--yes"]).status.code(), Some(8));
}

#[test]
fn a_prefix_grant_keeps_the_others_and_their_etag() {
    let server = Canned::start(|r, _| match r.line.starts_with("GET") {
        true => Reply::Json(
            200,
            r#"{"prefix":"team/","grants":[{"principal":"user:a","preset":"read"}],"any_user_creates":true,"etag":"0-4"}"#.into(),
        ),
        false => Reply::Json(200, r#"{"revision":"1.9"}"#.into()),
    });
    let output = run(&server, &["acl", "grant", "--prefix", "team/", "user:b", "list,admin"]);
    assert_eq!(text(&output.stdout), "prefix `team/`: granted user:b=list,admin (revision 1.9)\n", "{}", text(&output.stderr));
    let put = &server.requests()[1];
    assert_eq!(put.line, "PUT /api/v1/prefix?prefix=team/");
    assert!(put.head.contains("If-Match: \"0-4\"\r\n"));
    let body: serde_json::Value = serde_json::from_str(&put.body).unwrap();
    assert_eq!(body["grants"].as_array().unwrap().len(), 2);
    assert_eq!((&body["any_user_creates"], body.get("etag")), (&true.into(), None));
}

fn stream(frames: &[&str]) -> Reply {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    Reply::Raw(std::iter::once(head).chain(frames.iter().map(|f| format!("{:x}\r\n{f}\r\n", f.len()))).collect())
}

const READY: &str = "id: 1.9\nevent: ready\ndata: {\"revision\":\"1.9\"}\n\n";
const CHANGED: &str = "id: 1.10\nevent: changed\ndata: {\"id\":\"db/pw\",\"revision\":\"1.10\",\"what\":\"promote\"}\n\n";

#[test]
fn run_restarts_its_program_with_the_rotated_value() {
    let server = Canned::start(|r, _| match r.line.as_str() {
        "POST /api/v1/read" if r.head.contains("Claviger-Min-Revision: 1.10") => items("8", "dHdv"),
        "POST /api/v1/read" => items("7", "b25l"),
        _ => stream(&[READY, CHANGED]),
    });
    let script = r#"echo "$PW ${CLAVIGER_TOKEN-none}"; [ "$PW" = two ] && exit 9; sleep 60 & wait"#;
    let output = run(&server, &["run", "--env", "PW=db/pw", "--", "sh", "-c", script]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("one none\ntwo none\n", Some(9)), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "claviger run: db/pw changed (revision 1.10), child restarted\n");
    let watch = server.requests().into_iter().find(|r| r.line.contains("/watch")).unwrap();
    assert!(watch.line.contains("since=1.9"), "from the revision of the read: {}", watch.line);
}

#[test]
fn a_refused_key_does_not_keep_another_keys_change_from_the_program() {
    let item = |id: &str, version: &str, base64: &str| format!(r#"{{"id":"{id}","data":{}}}"#, data(version, base64).replace("db/pw", id));
    let server = Canned::start(move |r, _| match r.line.as_str() {
        "POST /api/v1/read" if r.head.contains("Claviger-Min-Revision") => {
            Reply::Json(200, format!(r#"{{"items":[{{"id":"a","error":"denied"}},{}]}}"#, item("db/pw", "8", "dHdv")))
        }
        "POST /api/v1/read" => Reply::Json(200, format!(r#"{{"items":[{},{}]}}"#, item("a", "1", "b25l"), item("db/pw", "7", "b25l"))),
        _ => stream(&[READY, "event: revoked\ndata: {\"id\":\"a\",\"revision\":\"1.9\"}\n\n", CHANGED]),
    });
    let script = r#"echo "$A $PW"; [ "$PW" = two ] && exit 0; sleep 60 & wait"#;
    let output = run(&server, &["run", "--env", "PW=db/pw", "--env", "A=a", "--", "sh", "-c", script]);
    assert_eq!(text(&output.stdout), "one one\none two\n", "{}", text(&output.stderr));
    assert!(text(&output.stderr).starts_with("claviger run: a may no longer be read (revision 1.9), the program keeps the last value\n"));
}

const COMPACTED: &str = "event: compacted\ndata: {\"revision\":\"1.12\"}\n\n";

/// A program under `run` whose server first gives the value, then tells `compacted`, then answers the read by `code`.
fn after_compacted(code: &'static str, arguments: &[&str]) -> Output {
    let server = Canned::start(move |r, before| match (r.line.as_str(), before) {
        ("POST /api/v1/read", 0) => items("7", "b25l"),
        ("POST /api/v1/read", _) => {
            let body = format!(r#"{{"items":[{{"id":"db/pw","error":"{code}"}}]}}"#);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
            Reply::Raw(vec![format!("{head}Claviger-Revision: 1.12\r\n\r\n{body}")])
        }
        _ => stream(&[READY, COMPACTED, COMPACTED]),
    });
    let script = r#"trap 'exit 0' TERM; i=0; while [ $i -lt 100 ]; do sleep 0.02; i=$((i+1)); done; exit 9"#;
    run(&server, &[&["run", "--env", "PW=db/pw"], arguments, &["--", "sh", "-c", script]].concat())
}

#[test]
fn a_key_that_was_deleted_unseen_ends_the_program_if_asked_and_any_other_refusal_does_not() {
    let output = after_compacted("deleted", &["--on-revoked", "stop"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "claviger run: db/pw was deleted (revision 1.12), child stopped\n");
    assert_eq!(after_compacted("revoked", &["--on-revoked", "stop"]).status.code(), Some(4));
    let output = after_compacted("deleted", &[]);
    assert_eq!((output.status.code(), text(&output.stderr).lines().count()), (Some(9), 1), "told once: {}", text(&output.stderr));
    for code in ["unavailable", "denied", "not_found"] {
        let output = after_compacted(code, &["--on-revoked", "stop"]);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(9), String::new()), "{code}");
    }
}

#[test]
fn a_change_that_cannot_be_read_yet_is_read_later() {
    let reads = std::sync::atomic::AtomicUsize::new(0);
    let server = Canned::start(move |r, _| match r.line.as_str() {
        "POST /api/v1/read" => match reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => items("7", "b25l"),
            1 => Reply::Json(200, r#"{"items":[{"id":"db/pw","error":"unavailable"}]}"#.into()),
            2 => problem(401, "unauthenticated", "roots are being changed"),
            _ => items("8", "dHdv"),
        },
        _ => stream(&[READY, CHANGED]),
    });
    let script = r#"echo "$PW"; [ "$PW" = two ] && exit 9; sleep 60 & wait"#;
    let output = run(&server, &["run", "--env", "PW=db/pw", "--", "sh", "-c", script]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("one\ntwo\n", Some(9)), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("db/pw changed (revision 1.10), child restarted"), "{}", text(&output.stderr));
}

#[test]
fn a_server_that_says_compacted_over_and_over_is_not_read_without_a_pause() {
    let server = Canned::start(|r, _| match r.line.as_str() {
        "POST /api/v1/read" => items("7", "b25l"),
        _ => {
            let Reply::Raw(pieces) = stream(&[READY, COMPACTED]) else { unreachable!() };
            Reply::RawThenClose(pieces)
        }
    });
    let output = run(&server, &["run", "--quiet", "--env", "PW=db/pw", "--", "sleep", "3"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let requests = server.requests().len();
    assert!(requests < 25, "{requests} requests in three seconds");
}

#[test]
fn run_passes_signals_on_and_outlives_the_servers_failures() {
    let server = Canned::start(|r, _| match r.line.as_str() {
        "POST /api/v1/read" => items("7", "b25l"),
        _ => problem(503, "unavailable", "restarting"),
    });
    let script = r#"trap 'exit 3' USR1; cat "$CLAVIGER_FILES/pw"; echo " ready"; while :; do sleep 0.02; done"#;
    let arguments = ["run", "--file", "pw=db/pw", "--", "sh", "-c", script];
    let mut child = claviger(&server, &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let watches = || server.requests().iter().filter(|r| r.line.contains("/watch")).count();
    let begun = Instant::now();
    while watches() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it stopped trying");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(child.try_wait().unwrap(), None);
    let sent = Command::new("kill").args(["-USR1", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("one ready\n", Some(3)));
    assert_eq!(text(&output.stderr).lines().count(), 1, "one line for all attempts: {}", text(&output.stderr));
}

#[test]
fn a_program_does_not_outlive_a_run_that_is_killed() {
    let server = Canned::start(|r, _| match r.line.as_str() {
        "POST /api/v1/read" => items("7", "b25l"),
        _ => stream(&[READY]),
    });
    let ended = server.file("ended");
    let script = format!(r#"trap 'echo told > "{}"; exit' TERM; echo $$; while :; do sleep 0.02; done"#, ended.display());
    let arguments = ["run", "--env", "PW=db/pw", "--", "sh", "-c", &script];
    let mut child = claviger(&server, &arguments).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = Instant::now();
    while std::fs::read_to_string(&ended).unwrap_or_default() != "told\n" {
        assert!(begun.elapsed() < Duration::from_secs(20), "it runs on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn run_does_not_start_without_its_values() {
    let server = Canned::start(|_, _| Reply::Json(200, r#"{"items":[{"id":"db/pw","error":"denied"}]}"#.into()));
    let output = run(&server, &["run", "--env", "PW=db/pw", "--", "echo", "started"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(4), String::new()));
    assert!(text(&output.stderr).contains("acl explain db/pw"));
}

#[test]
fn status_exits_with_one_when_something_needs_somebody() {
    let status = |problems: &str| {
        format!(
            r#"{{"version":"1","revision":"1.9","keys":4,"damaged_keys":1,"problems":[{problems}],"warnings":[],"audit_entries":9,
            "seal":{{"barrier_version":1,"barrier_versions":[1],"roots":[],"promise":"p"}},"audit_signed":9,"audit_first":0,
            "audit_state":"disk_full","audit_reserve":1048576,"sink_lines_dropped":0,"memory":"m","uptime_seconds":1}}"#
        )
    };
    let bad = r#"{"code":"audit_disk_full","detail":"the audit log's disk is full"}"#;
    for (problems, code) in [(bad, 1), ("", 0)] {
        let body = status(problems);
        let server = Canned::start(move |_, _| Reply::Json(200, body.clone()));
        let output = run(&server, &["status"]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        let said = text(&output.stdout);
        assert_eq!(said.starts_with("BAD   the audit log's disk is full\n"), code == 1, "{said}");
        assert!(said.contains("4, and 1 damaged") && said.contains("disk full: 9 entries") && said.contains("1 MiB in reserve"), "{said}");
        assert_eq!(run(&server, &["--json", "status"]).status.code(), Some(code));
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    let server = Canned::start(|_, _| Reply::Raw(vec![]));
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&run(&server, &["completions", shell]).stdout).contains("claviger"));
    }
}
