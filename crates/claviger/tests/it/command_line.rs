//! The command line against a real server: what a person does in a day.

use crate::{program, server, server_with};
use claviger_testkit::TestServer;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// The command as the administrator starts it.
pub(crate) fn command(server: &TestServer, arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    for name in ["CLAVIGER_ADDR", "CLAVIGER_CA", "CLAVIGER_TOKEN"] {
        command.env(name, server.env(name));
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The command as the machine `dev-machine` starts it.
pub(crate) fn as_machine(server: &TestServer, arguments: &[&str]) -> Command {
    let mut command = command(server, arguments);
    command.env_remove("CLAVIGER_TOKEN");
    command.env("CLAVIGER_CERT", server.env("CLAVIGER_MACHINE_CERT")).env("CLAVIGER_KEY", server.env("CLAVIGER_MACHINE_KEY"));
    command
}

/// Exit code, standard output and standard error.
pub(crate) fn finish(mut command: Command, input: &str) -> (i32, String, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that reads nothing may be gone already.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Standard output of a command that succeeds.
pub(crate) fn done(server: &TestServer, arguments: &[&str]) -> String {
    with_input(server, arguments, "")
}

pub(crate) fn with_input(server: &TestServer, arguments: &[&str], input: &str) -> String {
    let (code, out, err) = finish(command(server, arguments), input);
    assert_eq!(code, 0, "{arguments:?}: {err}");
    out
}

pub(crate) fn json(server: &TestServer, arguments: &[&str]) -> Value {
    serde_json::from_str(&done(server, &[arguments, &["--json"]].concat())).unwrap()
}

/// The id of the newest version.
pub(crate) fn newest(server: &TestServer, key: &str) -> String {
    json(server, &["versions", key])["versions"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_secret_lives_through_all_its_states() {
    let server = server();
    let made = with_input(&server, &["create", "db/pw", "--description", "the database", "--label", "env=prod"], "one");
    assert!(made.starts_with("created db/pw, version "), "{made}");
    let first = newest(&server, "db/pw");
    assert_eq!(done(&server, &["get", "db/pw"]), "one");
    assert_eq!(finish(command(&server, &["create", "db/pw"]), "x").0, 6, "it exists");

    with_input(&server, &["add", "db/pw"], "two");
    assert_eq!(done(&server, &["get", "db/pw"]), "one");
    let second = newest(&server, "db/pw");
    done(&server, &["promote", "db/pw", &second]);
    assert_eq!(done(&server, &["get", "db/pw"]), "two");
    assert_eq!(done(&server, &["get", "db/pw", "--version", &first]), "one");

    done(&server, &["deactivate", "db/pw", &first]);
    done(&server, &["reactivate", "db/pw", &first]);
    assert_eq!(finish(command(&server, &["destroy", "db/pw", &first, "--yes"]), "").0, 6, "an active version is not destroyed");
    done(&server, &["deactivate", "db/pw", &first]);
    done(&server, &["destroy", "db/pw", &first, "--yes"]);
    assert!(done(&server, &["versions", "db/pw"]).contains("destroyed"));
    assert_eq!(done(&server, &["get", "db/pw", "--all"]).lines().count(), 1);

    done(&server, &["set", "db/pw", "--label", "tier=1", "--remove-label", "env", "--max-lifetime", "90d"]);
    let info = json(&server, &["info", "db/pw"]);
    assert_eq!((&info["labels"]["tier"], info["labels"].get("env"), &info["max_lifetime"]), (&"1".into(), None, &7_776_000.into()));
    assert!(done(&server, &["ls", "db/", "--label", "tier=1"]).contains("the database"));
    assert!(!done(&server, &["ls", "--label", "tier=2"]).contains("db/pw"));
    assert!(done(&server, &["history", "db/pw"]).lines().count() > 5);

    done(&server, &["delete", "db/pw", "--yes"]);
    assert_eq!(finish(command(&server, &["get", "db/pw"]), "").0, 3);
}

#[test]
fn rights_are_granted_explained_and_taken() {
    let server = server();
    with_input(&server, &["create", "db/pw"], "one");
    let (code, _, err) = finish(as_machine(&server, &["get", "db/pw"]), "");
    assert_eq!(code, 3, "what one has no right on looks like nothing: {err}");

    done(&server, &["acl", "grant", "db/pw", "machine:dev-machine", "list,read"]);
    assert_eq!(finish(as_machine(&server, &["get", "db/pw"]), "").1, "one");
    let (code, _, err) = finish(as_machine(&server, &["delete", "db/pw", "--yes"]), "");
    assert!(code == 4 && err.contains("claviger acl explain db/pw"), "{err}");
    assert!(done(&server, &["acl", "explain", "db/pw", "machine:dev-machine"]).contains("list,read"));
    assert!(done(&server, &["reach", "machine:dev-machine"]).contains("db/pw"));

    done(&server, &["acl", "revoke", "db/pw", "machine:dev-machine"]);
    assert_eq!(finish(as_machine(&server, &["get", "db/pw"]), "").0, 3);
    assert!(!done(&server, &["acl", "show", "db/pw"]).contains("dev-machine"));

    done(&server, &["acl", "grant", "--prefix", "db/", "machine:dev-machine", "read"]);
    done(&server, &["acl", "grant", "--prefix", "db/", "user:bob", "admin"]);
    assert_eq!(finish(as_machine(&server, &["get", "db/pw"]), "").1, "one");
    let (code, found, _) = finish(command(&server, &["acl", "lint"]), "");
    assert!(code == 1 && found.contains("admin-and-read") && found.contains("user:bob"), "{found}");
    done(&server, &["acl", "any-user-creates", "db/", "on"]);
    assert!(done(&server, &["acl", "show", "--prefix", "db/"]).contains("(any user)"));
    done(&server, &["acl", "any-user-creates", "db/", "off"]);
    for principal in ["user:bob", "machine:dev-machine"] {
        done(&server, &["acl", "revoke", "--prefix", "db/", principal]);
    }
    assert!(!done(&server, &["acl", "show", "--prefixes"]).contains("db/"));
}

#[test]
fn the_server_and_its_log_tell_what_was_done() {
    let server = server();
    with_input(&server, &["create", "db/pw", "--acl", "machine:dev-machine=read"], "hunter2-sentinel");
    finish(as_machine(&server, &["get", "db/pw"]), "");
    finish(as_machine(&server, &["delete", "db/pw", "--yes"]), "");

    assert!(finish(as_machine(&server, &["whoami"]), "").1.contains("machine:dev-machine"));
    assert_eq!(json(&server, &["status"])["keys"], 1);
    let before = json(&server, &["seal", "status"])["barrier_version"].as_u64().unwrap();
    assert_eq!(json(&server, &["seal", "rotate"])["barrier_version"].as_u64().unwrap(), before + 1);
    assert_eq!(done(&server, &["get", "db/pw"]), "hunter2-sentinel");

    assert!(done(&server, &["audit", "query", "--outcome", "denied"]).contains("machine:dev-machine"));
    assert!(done(&server, &["audit", "tail", "-n", "5"]).lines().count() == 6);
    let reads = json(&server, &["audit", "reach", "machine:dev-machine", "--since", "1h"]);
    assert_eq!(reads["keys"]["db/pw"]["reads"], 1);

    let folder = server.dir().join("audit");
    let folder = folder.to_str().unwrap();
    let exported = done(&server, &["audit", "export", folder]);
    assert!(exported.lines().all(|l| serde_json::from_str::<Value>(l).is_ok_and(|r| r["record"]["time"].is_string())));
    assert!(!exported.contains("hunter2") && !server.log().contains("hunter2"));
    let report = json(&server, &["audit", "verify", folder]);
    assert_eq!((&report["whole"], report["entries"].as_u64().unwrap() >= 8), (&true.into(), true));
    let mut proof = json(&server, &["audit", "prove", "--index", "0", folder]);
    assert_eq!(proof["index"], 0);
    let (path, key) = (server.dir().join("proof.json"), server.dir().join("audit/log.pub"));
    let verify = ["audit", "verify", "--proof", path.to_str().unwrap(), "--public-key", key.to_str().unwrap()];
    std::fs::write(&path, proof.to_string()).unwrap();
    let checked = json(&server, &verify);
    assert_eq!((&checked["proven"], checked["record"]["action"].is_string()), (&true.into(), true));
    assert!(done(&server, &verify).contains("this is record 0 of"));
    proof["index"] = 1.into();
    std::fs::write(&path, proof.to_string()).unwrap();
    let (code, out, _) = finish(command(&server, &verify), "");
    assert!(code == 1 && out.contains("WRONG"), "{code} {out}");
}

/// A running command whose standard output is read line by line.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// The exit code and what was said on standard error.
    fn end(mut self) -> (i32, String) {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code().unwrap(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed leaves it running.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_rotation_reaches_a_running_program_and_a_stopped_server_does_not_end_it() {
    // It comes back at the same address.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = server_with(&format!("[server]\nlisten = [\"127.0.0.1:{port}\"]\n"));
    with_input(&server, &["create", "db/pw", "--acl", "machine:dev-machine=read"], "one");
    let script = r#"trap 'exit 7' TERM; echo "$PW $(cat "$CLAVIGER_FILES/pw")"; while :; do sleep 0.02; done"#;
    let arguments = ["run", "--env", "PW=db/pw", "--file", "pw=db/pw", "--on-revoked", "stop", "--", "sh", "-c", script];
    let mut run = Running::start(as_machine(&server, &arguments));
    assert_eq!(run.line(), "one one");
    with_input(&server, &["add", "db/pw", "--promote"], "two");
    assert_eq!(run.line(), "two two");

    server.terminate().unwrap();
    server.restart().unwrap();
    with_input(&server, &["add", "db/pw", "--promote"], "three");
    assert_eq!(run.line(), "three three");

    done(&server, &["acl", "revoke", "db/pw", "machine:dev-machine"]);
    let (code, said) = run.end();
    assert_eq!(code, 4, "{said}");
    assert!(
        said.contains("db/pw changed (revision ") && said.contains("child restarted") && said.contains("may no longer be read"),
        "{said}"
    );
}

#[test]
fn a_watch_tells_what_happens_as_it_happens() {
    let server = server();
    let mut watch = Running::start(command(&server, &["watch", "--prefix", "db/", "--json"]));
    let next = |watch: &mut Running| serde_json::from_str::<Value>(&watch.line()).unwrap();
    assert_eq!(next(&mut watch)["event"], "ready");
    with_input(&server, &["create", "db/pw"], "one");
    with_input(&server, &["create", "other"], "one");
    done(&server, &["delete", "db/pw", "--yes"]);
    let created = next(&mut watch);
    assert_eq!((&created["event"], &created["id"], &created["what"]), (&"changed".into(), &"db/pw".into(), &"create".into()));
    assert_eq!(next(&mut watch)["event"], "deleted");
    watch.signal("-TERM");
}

#[test]
fn every_command_gives_one_json_value_and_errors_as_json_too() {
    let server = server();
    let dir = |name: &str| server.dir().join(name).to_str().unwrap().to_owned();
    let (log, root, config, out) = (dir("audit"), dir(""), dir("claviger.toml"), dir("emergency"));
    let d = root.trim_end_matches('/');
    let fresh = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\ndata = \"{d}/fresh\"\n[tls]\ncertificate = \"{d}/server.pem\"\nprivate_key = \"{d}/server.key\"\n"
    );
    std::fs::write(&config, fresh).unwrap();
    let one = |arguments: &[&str], input: &str| -> Value {
        let (code, out, err) = finish(command(&server, &[&["--json"], arguments].concat()), input);
        assert!(code == 0 || arguments[..2] == ["acl", "lint"], "{arguments:?}: {err}");
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {out}"))
    };
    one(&["create", "db/pw"], "one");
    let added = one(&["add", "db/pw"], "two")["version"].as_str().unwrap().to_owned();
    for arguments in [
        &["promote", "db/pw", &added][..],
        &["get", "db/pw"],
        &["get", "db/pw", "--output", &dir("value")],
        &["get", "db/pw", "--all"],
        &["versions", "db/pw"],
        &["ls"],
        &["info", "db/pw"],
        &["set", "db/pw", "--description", "x"],
        &["acl", "show", "db/pw"],
        &["acl", "grant", "db/pw", "user:bob", "read"],
        &["acl", "explain", "db/pw", "user:bob"],
        &["acl", "revoke", "db/pw", "user:bob"],
        &["acl", "lint"],
        &["history", "db/pw"],
        &["reach", "user:bob"],
        &["audit", "reach", "user:bob", "--since", "1h"],
        &["audit", "verify", &log],
        &["audit", "prove", "--index", "0", &log],
        &["seal", "status"],
        &["seal", "rotate"],
        &["status"],
        &["whoami"],
        &["check", "--dir", d],
        &["config", "check", &config],
        &["config", "reference"],
        &["server", "init", "--config", &config, "--admin", "user:alice"],
        &["server", "break-glass", "--config", &config, "--reason", "a test", "--out", &out],
        &["delete", "db/pw", "--yes"],
    ] {
        one(arguments, "");
    }
    for (arguments, code) in [
        (&["get", "nothing"][..], "not_found"),
        (&["delete", "db/pw"], "usage"),
        (&["frobnicate"], "usage"),
        (&["server", "init"], "usage"),
        (&["config", "check", "/nowhere"], "usage"),
        (&["server", "--config", "/nowhere"], "usage"),
        (&["server", "init", "--config", &config, "--admin", "user:alice"], "other"),
        (&["check", "--dir", "/nowhere"], "other"),
        (&["audit", "verify", "/nowhere"], "usage"),
    ] {
        let (exit, out, err) = finish(command(&server, &[&["--json"], arguments].concat()), "");
        let said: Value = serde_json::from_str(&err).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {err}"));
        assert_eq!((&said["error"]["code"], out.as_str()), (&code.into(), ""), "{arguments:?}");
        assert!(exit != 0 && said["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{arguments:?}: {err}");
    }
}
