//! What the command line sends, and what it tries again (contract knox §10), seen by a server with canned answers.

use super::canned::{Canned, Received, Reply};
use super::{text, with_input};
use std::process::{Command, Output, Stdio};

fn knox(server: &Canned, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(crate::program());
    command.env_clear().arg("knox").args(arguments).stdin(Stdio::null()).env("KNOX_USER_AUTH", "t0ken").env("KNOX_NO_CACHE", "1");
    command.env("KNOX_HOST", server.url.trim_start_matches("https://")).env("KNOX_CA", server.file("ca.pem"));
    with_input(command, input.as_bytes())
}

fn envelope(code: i64, message: &str, data: &str) -> String {
    let status = if code == 0 { "ok" } else { "error" };
    format!(r#"{{"status":"{status}","code":{code},"host":"h","ts":1,"message":"{message}","data":{data}}}"#)
}

#[test]
fn requests_have_what_knoxs_client_sends() {
    let key = r#"{"id":"a:1","acl":[],"versions":[{"id":5,"data":"aHVudGVyMg==","status":"Primary","ts":1}],"hash":"h"}"#;
    let server = Canned::start(move |received: &Received, _| {
        let data = if received.line.contains("/a:1/") && received.line.starts_with("GET") { key } else { "18446744073709551615" };
        Reply::Json(200, envelope(0, "", data))
    });
    assert_eq!(
        text(&knox(&server, &["create", "a:1"], "hunter2+/?").stdout),
        "Reading from stdin...\nCreated key with initial version 18446744073709551615\n"
    );
    knox(&server, &["add", "a:1"], "x");
    knox(&server, &["promote", "a:1", "5"], "");
    assert_eq!(text(&knox(&server, &["get", "a:1"], "").stdout), "hunter2");
    knox(&server, &["get", "-a", "a:1"], "");
    knox(&server, &["versions", "a:1"], "");
    knox(&server, &["access", "-r", "-U", "a:1", "bob&co"], "");
    knox(&server, &["delete", "a:1"], "");
    knox(&server, &["keys", "b", "a:1"], "");
    let seen: Vec<_> = server.requests().iter().map(|r| (r.line.clone(), r.body.clone())).collect();
    let expected = [
        ("POST /v0/keys/", "acl=%5B%5D&data=aHVudGVyMisvPw%3D%3D&id=a%3A1"),
        ("POST /v0/keys/a:1/versions/", "data=eA%3D%3D"),
        ("PUT /v0/keys/a:1/versions/5/", "status=%22Primary%22"),
        ("GET /v0/keys/a:1/", ""),
        ("GET /v0/keys/a:1/?status=%22Inactive%22", ""),
        ("GET /v0/keys/a:1/?status=%22Active%22", ""),
        (
            "PUT /v0/keys/a:1/access/",
            "acl=%5B%7B%22type%22%3A%22User%22%2C%22id%22%3A%22bob%5Cu0026co%22%2C%22access%22%3A%22Read%22%7D%5D",
        ),
        ("DELETE /v0/keys/a:1/", ""),
        ("GET /v0/keys/?a%3A1=NONE&b=NONE", ""),
    ];
    assert_eq!(seen.iter().map(|(line, body)| (line.as_str(), body.as_str())).collect::<Vec<_>>(), expected);
    for request in server.requests() {
        assert!(request.head.contains("\r\nAuthorization: 0ut0ken\r\n") && request.head.contains("\r\nUser-Agent: Knox_Client/"));
        assert_eq!(request.head.contains("Content-Type: application/x-www-form-urlencoded"), !request.body.is_empty(), "{}", request.line);
    }
}

#[test]
fn only_a_failure_inside_the_server_is_tried_again_three_times_in_all() {
    let twice = Canned::start(|_, before| match before {
        0 | 1 => Reply::Json(500, envelope(1, "lost race", "null")),
        _ => Reply::Json(200, envelope(0, "", "7")),
    });
    let output = knox(&twice, &["add", "k"], "x");
    assert_eq!(text(&output.stdout), "Reading from stdin...\nAdded key version 7\n", "{}", text(&output.stderr));
    let bodies: Vec<_> = twice.requests().iter().map(|r| r.body.clone()).collect();
    assert_eq!(bodies, ["data=eA%3D%3D"; 3], "a write is repeated with its body");

    for (status, body, attempts, said) in [
        (500, envelope(1, "store is down", "null"), 3, "Error getting keys: store is down\n"),
        (500, envelope(11, "no", "null"), 1, "Error getting keys: no\n"),
        (503, "busy".to_owned(), 1, "Error getting keys: the answer (HTTP status 503) is none of a Knox server\n"),
        (429, envelope(0, "", "[]"), 1, "Error getting keys: the answer (HTTP status 429) is none of a Knox server\n"),
        (404, envelope(8, "", "null"), 1, "Error getting keys: the server refused with code 8 and no explanation\n"),
    ] {
        let server = Canned::start(move |_, _| Reply::Json(status, body.clone()));
        let output = knox(&server, &["keys"], "");
        assert_eq!((text(&output.stderr).as_str(), output.status.code(), server.requests().len()), (said, Some(1), attempts));
    }
}

#[test]
fn an_incomplete_key_is_refused_and_nothing_of_it_is_shown() {
    for data in [
        r#"{"id":"","acl":[],"versions":[],"hash":"h"}"#,
        r#"{"id":"k","acl":null,"versions":[],"hash":"h"}"#,
        r#"{"id":"k","acl":[],"versions":[{"id":1,"data":"hunter2!","status":"Primary","ts":1}],"hash":"h"}"#,
        r#""hunter2""#,
        "null",
    ] {
        let server = Canned::start(move |_, _| Reply::Json(200, envelope(0, "", data)));
        let output = knox(&server, &["get", "k"], "");
        assert_eq!(
            (text(&output.stderr).as_str(), output.stdout.len(), output.status.code()),
            ("Error getting key: invalid key content for the remote key\n", 0, Some(1))
        );
    }
}

#[test]
fn text_from_a_server_does_not_steer_the_terminal() {
    let server = Canned::start(|_, _| Reply::Json(400, envelope(11, r"a\u001b[2Jb", "null")));
    assert!(!text(&knox(&server, &["keys"], "").stderr).contains('\u{1b}'));
}
