//! `knox login` on a terminal, against a server that gives tokens for passwords.

use super::canned::{Canned, Received, Reply};
use super::{mode, text};
use crate::tools::terminal::Terminal;
use std::path::Path;
use std::process::{Command, Stdio};

const ANSWER: &str = r#"{"access_token":"token-of-alice","token_type":"bearer","expires_in":3600}"#;

fn knox(server: &Canned, home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(crate::program());
    command.env_clear().env("HOME", home).env("USER", "alice").arg("knox").args(arguments).stdin(Stdio::null());
    command.env("KNOX_LOGIN_URL", format!("{}/oauth/token", server.url)).env("KNOX_LOGIN_CLIENT_ID", "knox-cli");
    command.env("KNOX_HOST", server.url.trim_start_matches("https://")).env("KNOX_CA", server.file("ca.pem"));
    command
}

/// Logs in on a terminal with `password`; exit code and what was on the screen.
fn log_in(command: Command, password: &str) -> (i32, String) {
    let mut terminal = Terminal::start(command);
    terminal.wait_for("Please enter your password:");
    terminal.press(&format!("{password}\n"));
    terminal.end()
}

fn oauth(received: &Received, _: usize) -> Reply {
    match received.body.as_str() {
        "client_id=knox-cli&grant_type=password&password=pass+word%25&username=alice" => Reply::Json(200, ANSWER.to_owned()),
        _ if received.line.starts_with("POST") => Reply::Json(400, r#"{"error":"invalid_grant"}"#.to_owned()),
        _ => Reply::Json(200, r#"{"status":"ok","code":0,"host":"h","ts":1,"message":"","data":["a:1"]}"#.to_owned()),
    }
}

#[test]
fn a_password_is_exchanged_for_a_token_that_later_commands_use() {
    let (server, home) = (Canned::start(oauth), tempfile::tempdir().unwrap());
    let file = home.path().join(".knox_user_auth");
    // An older file that others may read is replaced, not written into.
    std::fs::write(&file, "{}").unwrap();
    let (code, seen) = log_in(knox(&server, home.path(), &["login"]), "pass word%");
    assert_eq!((code, seen.contains("pass word")), (0, false), "{seen}");
    assert_eq!((std::fs::read_to_string(&file).unwrap().as_str(), mode(&file)), (ANSWER, 0o600));
    let request = &server.requests()[0];
    assert_eq!(request.line, "POST /oauth/token");
    assert!(request.head.contains("Content-Type: application/x-www-form-urlencoded\r\n"), "{}", request.head);

    let output = knox(&server, home.path(), &["keys"]).output().unwrap();
    assert_eq!(text(&output.stdout), "a:1\n", "{}", text(&output.stderr));
    assert!(server.requests()[1].head.contains("\r\nAuthorization: 0utoken-of-alice\r\n"));
}

#[test]
fn a_wrong_password_changes_nothing() {
    let (server, home) = (Canned::start(oauth), tempfile::tempdir().unwrap());
    let (code, seen) = log_in(knox(&server, home.path(), &["login", "bob"]), "hunter2");
    assert!(code == 1 && seen.contains("Fail to authenticate: \"invalid_grant\"") && !seen.contains("hunter2"), "{seen}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    assert!(server.requests()[0].body.ends_with("&username=bob"));
}

#[test]
fn an_answer_without_a_token_is_not_saved_and_not_repeated() {
    for (status, body) in [(200, r#"{"secret":"hunter2"}"#), (200, "hunter2"), (500, ANSWER)] {
        let server = Canned::start(move |_, _| Reply::Json(status, body.to_owned()));
        let home = tempfile::tempdir().unwrap();
        let (code, seen) = log_in(knox(&server, home.path(), &["login"]), "x");
        let said = format!("Unexpected response from auth (HTTP status {status})");
        assert!(code == 1 && seen.contains(&said) && !seen.contains("hunter2") && !seen.contains("token-of"), "{seen}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_login_needs_a_terminal_and_a_server_that_proves_itself() {
    let (server, home) = (Canned::start(oauth), tempfile::tempdir().unwrap());
    let piped = knox(&server, home.path(), &["login"]).output().unwrap();
    assert_eq!(text(&piped.stdout), "Please enter your password:\n");
    assert_eq!(
        (text(&piped.stderr).as_str(), piped.status.code()),
        ("Problem getting password: inappropriate ioctl for device\n", Some(1))
    );
    let mut other = knox(&server, home.path(), &["login"]);
    other.env("KNOX_LOGIN_CA", server.file("client.pem"));
    let (code, seen) = log_in(other, "hunter2");
    assert!(code == 1 && seen.contains("Error connecting to auth: no trusted connection"), "{seen}");
    let mut plain = knox(&server, home.path(), &["login"]);
    plain.env("KNOX_LOGIN_URL", "http://127.0.0.1/token");
    let refused = plain.output().unwrap();
    assert!(text(&refused.stderr).starts_with("KNOX_LOGIN_URL must look like https://"), "{}", text(&refused.stderr));
    assert!(server.requests().is_empty(), "no password left");
}
