//! Knox's folder, kept by the agent and shared with Knox's own client and daemon.

use super::stage::{Agent, PLAIN, Stage, until};
use crate::knox::go::CLIENT;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

fn stage(modes: &str) -> (Stage, Agent) {
    let stage = Stage::new();
    let agent = stage.agent("a", &format!("{PLAIN}[knox]\nenabled = true\nmodes = \"{modes}\"\nfolder = \"@/knox\"\n"));
    (stage, agent)
}

/// Knox's client or daemon at work on the agent's folder; its standard output.
fn go(stage: &Stage, agent: &Agent, words: &[&str]) -> String {
    let client = CLIENT.as_deref().expect("`cargo xtask setup` installs Go");
    let mut command = Command::new(client);
    command.args(["-host", &stage.server.address().to_string(), "-folder"]).arg(agent.path("knox"));
    command.args(["-certificate", stage.server.env("CLAVIGER_MACHINE_CERT"), "-key", stage.server.env("CLAVIGER_MACHINE_KEY")]);
    let output = command.args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn knoxs_client_registers_reads_and_unregisters_as_with_its_own_daemon() {
    let (stage, mut agent) = stage("knox");
    stage.create(&[("app:a", "first"), ("app:b", "other")]);
    agent.start();
    let file = agent.path("knox/v0/keys/app:a");
    assert_eq!(go(&stage, &agent, &["register", "app:a"]), "first");
    assert_eq!(go(&stage, &agent, &["register", "app:b"]), "other");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!([mode(&file), mode(&agent.path("knox")), mode(&agent.path("knox/.registered"))], [0o666, 0o777, 0o666]);
    // Pushed: nobody polls or touches the list.
    stage.rotate("app:a", "second");
    until("the file has the new version", || go(&stage, &agent, &["get", "app:a"]) == "second");
    go(&stage, &agent, &["unregister", "app:b"]);
    until("the unregistered file is gone", || !agent.path("knox/v0/keys/app:b").exists());
    assert_eq!(go(&stage, &agent, &["get", "app:a"]), "second");
    until("the agent let go of it too", || agent.state("app:b") == "unregistered");
}

#[test]
fn knoxs_daemon_finds_nothing_to_do_beside_the_agent_and_each_takes_the_others_files() {
    let (stage, mut agent) = stage("knox");
    stage.create(&[("app:a", "first")]);
    agent.start();
    assert_eq!(go(&stage, &agent, &["register", "app:a"]), "first");
    // An inactive version counts in the hash, and an active one is given out.
    stage.rotate("app:a", "second");
    let old = crate::command_line::json(&stage.server, &["versions", "app:a"])["versions"][0]["id"].as_str().unwrap().to_owned();
    stage.run(&["deactivate", "app:a", &old]);
    until("the file has both changes", || {
        let json = fs::read_to_string(agent.path("knox/v0/keys/app:a")).unwrap();
        json.matches("\"status\"").count() == 1 && json.contains("c2Vjb25k")
    });
    assert_eq!(go(&stage, &agent, &["daemon"]), "", "the poll by the file's hash names nothing");
    // The daemon alone, then the agent again.
    agent.kill();
    stage.rotate("app:a", "third");
    assert_eq!(go(&stage, &agent, &["daemon"]), "app:a");
    assert_eq!(go(&stage, &agent, &["get", "app:a"]), "third");
    agent.start();
    agent.waits_for("app:a", Some("third"));
    stage.rotate("app:a", "fourth");
    until("the agent goes on", || go(&stage, &agent, &["get", "app:a"]) == "fourth");
    assert_eq!(go(&stage, &agent, &["daemon"]), "");
}

#[test]
fn an_emptied_or_half_written_list_takes_nothing_and_a_list_of_nothing_takes_all() {
    let (stage, mut agent) = stage("owner-only");
    stage.create(&[("app:alpha", "a"), ("app:beta", "b")]);
    agent.start();
    let list = agent.path("knox/.registered");
    let keys = agent.path("knox/v0/keys");
    let both = || ["app:alpha", "app:beta"].map(|key| keys.join(key).exists());
    agent.write_list("app:alpha\napp:beta\n");
    until("both are cached", || both() == [true, true]);
    assert_eq!(fs::metadata(agent.path("knox/v0/keys/app:alpha")).unwrap().mode() & 0o7777, 0o600);
    // Writers without the lock that never finish.
    for (torn, said) in [("", "the registration file is empty"), ("app:alpha\napp:be", "ends in the middle")] {
        fs::write(&list, torn).unwrap();
        until("the doubt is said", || agent.status()["problems"].to_string().contains(said));
        assert_eq!(both(), [true, true], "{torn:?}");
        assert_eq!((agent.read("app:alpha"), agent.read("app:beta")), (Ok("a".into()), Ok("b".into())));
    }
    // Not over a restart either, though nobody answers.
    fs::write(&list, "").unwrap();
    agent.stop();
    stage.outage();
    agent.start();
    until("the doubt is said again", || agent.status()["problems"].to_string().contains("the registration file is empty"));
    assert_eq!(both(), [true, true]);
    assert_eq!(agent.read("app:beta"), Ok("b".into()));
    stage.back();
    fs::write(&list, "app:alpha\n").unwrap();
    until("what is unregistered is gone", || both() == [true, false]);
    fs::write(&list, "\n").unwrap();
    until("an empty list that is meant takes the last", || both() == [false, false]);
}

#[test]
fn who_holds_the_lock_for_ever_holds_up_neither_a_new_value_nor_a_revocation() {
    let (stage, mut agent) = stage("knox");
    stage.create(&[("app:a", "first"), ("app:b", "b")]);
    agent.start();
    agent.write_list("app:a\napp:b\n");
    let file = |key: &str| agent.path("knox/v0/keys").join(key);
    until("both are cached", || file("app:a").exists() && file("app:b").exists());
    let held = fs::File::open(agent.path("knox/.registered")).unwrap();
    held.lock().unwrap();
    stage.run(&["acl", "revoke", "app:b", "machine:dev-machine"]);
    until("what was revoked is gone at once", || !file("app:b").exists());
    stage.rotate("app:a", "second");
    until("the new value comes after the lock's limit", || fs::read_to_string(file("app:a")).unwrap().contains("c2Vjb25k"));
    until("the holder is named", || {
        let said = agent.status()["problems"].to_string();
        said.contains("is locked by another process") && said.contains(&format!("process {}", std::process::id()))
    });
    drop(held);
    until("it is well again", || !agent.status()["problems"].to_string().contains("locked"));
}

#[test]
fn a_tink_key_has_its_keyset_and_what_is_no_keyset_is_not_cached() {
    let (stage, mut agent) = stage("owner-only");
    // A keyset of one AES-256-GCM key, as Knox's clients make it: {primary 7, key {type, 32 bytes, SYMMETRIC}, ENABLED, id 7, TINK}.
    let keyset = tink_keyset(7, 0x41);
    stage.create(&[("tink:aead:bad", "no keyset")]);
    let path = agent.path("keyset");
    fs::write(&path, &keyset).unwrap();
    stage.run(&["create", "tink:aead:good", "--from-file", path.to_str().unwrap(), "--acl", "machine:dev-machine=read"]);
    agent.start();
    agent.write_list("tink:aead:good\ntink:aead:bad\n");
    let json = || -> serde_json::Value {
        let text = fs::read_to_string(agent.path("knox/v0/keys/tink:aead:good")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    };
    use base64::Engine as _;
    let encoded = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    until("the keyset is there", || json()["tinkKeyset"] == encoded(&keyset));
    // Another version: the combined keyset has both keys, in the order of the versions.
    let second = tink_keyset(9, 0x42);
    fs::write(&path, &second).unwrap();
    stage.run(&["add", "tink:aead:good", "--promote", "--from-file", path.to_str().unwrap()]);
    let combined = [&[0x08, 9][..], &keyset[2..], &second[2..]].concat();
    until("the combined keyset is there", || json()["tinkKeyset"] == encoded(&combined));
    agent.waits_for("tink:aead:bad", Some("no keyset"));
    assert!(!agent.path("knox/v0/keys/tink:aead:bad").exists());
}

/// Protobuf by hand: a `Keyset` with one `AesGcmKey`.
fn tink_keyset(id: u8, fill: u8) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat();
    let aes = field(3, &[fill; 32]);
    let data = [field(1, b"type.googleapis.com/google.crypto.tink.AesGcmKey"), field(2, &aes), vec![0x18, 1]].concat();
    let key = [field(1, &data), vec![0x10, 1, 0x18, id, 0x20, 1]].concat();
    [vec![0x08, id], field(2, &key)].concat()
}
