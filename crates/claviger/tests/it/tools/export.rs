//! `claviger export`, and `claviger import age` which reads it back.

use super::{file, shown};
use crate::command_line::{as_machine, command, done, finish, json, with_input};
use crate::server;
use claviger_testkit::TestServer;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// An identity in a file, and its recipient.
fn identity(server: &TestServer, name: &str) -> (PathBuf, String) {
    let path = server.dir().join(name);
    // Made by age itself.
    assert!(Command::new("age-keygen").arg("-o").arg(&path).stderr(Stdio::null()).status().unwrap().success());
    let text = std::fs::read_to_string(&path).unwrap();
    let recipient = text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned();
    (path, recipient)
}

/// Standard output of age itself.
fn age(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("age").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn an_export_is_opened_by_age_and_read_back() {
    let server = server();
    with_input(&server, &["create", "shop/pw", "--description", "the database", "--label", "env=prod"], "hunter2-sentinel");
    let bytes = file(&server, "bytes", [0, 255, 10]);
    with_input(&server, &["put", "shop/bytes", "--file", shown(&bytes), "--expires", "30d"], "");
    with_input(&server, &["put", "other"], "x");
    let (path, recipient) = identity(&server, "identity");
    let (second, other) = identity(&server, "second");
    let recipients = file(&server, "recipients", format!("# both of us\n\n{recipient}\n{other}\n"));
    for armor in [&[][..], &["--armor"]] {
        let sealed = server.dir().join("export.age");
        let made = json(&server, &[&["export", "shop/", "-R", shown(&recipients), "-o", shown(&sealed)], armor].concat());
        assert_eq!((&made["keys"], &made["recipients"]), (&serde_json::json!(["shop/bytes", "shop/pw"]), &2.into()));
        let raw = std::fs::read(&sealed).unwrap();
        assert_eq!(raw.starts_with(b"-----BEGIN AGE"), !armor.is_empty());
        assert!(!String::from_utf8_lossy(&raw).contains("hunter2"));
        for identity in [&path, &second] {
            let plain: Value = serde_json::from_slice(&age(&["-d", "-i", shown(identity), shown(&sealed)])).unwrap();
            let key = &plain["keys"][1];
            assert_eq!((&plain["claviger_export"], &key["id"], &key["labels"]["env"]), (&1.into(), &"shop/pw".into(), &"prod".into()));
            assert_eq!(key["data"], "aHVudGVyMi1zZW50aW5lbA==");
        }
        let prefix = if armor.is_empty() { "back/" } else { "armored/" };
        done(&server, &["import", "age", shown(&sealed), "-i", shown(&second), "--prefix", prefix]);
        assert_eq!(done(&server, &["get", &format!("{prefix}shop/pw")]), "hunter2-sentinel");
        let info = json(&server, &["info", &format!("{prefix}shop/pw")]);
        assert_eq!((&info["description"], &info["labels"]["env"]), (&"the database".into(), &"prod".into()));
        let end = |key: &str| json(&server, &["info", key])["versions"][0]["expires"].as_str().unwrap().to_owned();
        assert_eq!(end(&format!("{prefix}shop/bytes")), end("shop/bytes"), "what was to expire still does");
    }
    let sealed = server.dir().join("export.age");
    let again = json(&server, &["import", "age", shown(&sealed), "-i", shown(&path), "--prefix", "back/"]);
    assert!(again["keys"].as_array().unwrap().iter().all(|row| row["what"] == "left"), "{again}");
    let reads = done(&server, &["audit", "query", "--action", "bulk_read", "--key", "shop/bytes"]);
    assert!(reads.lines().count() > 2, "each read is recorded: {reads}");
}

#[test]
fn what_age_itself_encrypted_is_read() {
    let server = server();
    let (path, recipient) = identity(&server, "identity");
    let bundle =
        r#"{"claviger_export":1,"made":"x","keys":[{"id":"a/b","version":"1","created":"x","description":"","labels":{},"data":"aGk="}]}"#;
    let plain = file(&server, "bundle.json", bundle);
    let sealed = file(&server, "bundle.age", age(&["-a", "-r", &recipient, shown(&plain)]));
    done(&server, &["import", "age", shown(&sealed), "-i", shown(&path)]);
    assert_eq!(done(&server, &["get", "a/b"]), "hi");

    let (stranger, _) = identity(&server, "stranger");
    for (identity, content, code, why) in [
        (&stranger, std::fs::read(&sealed).unwrap(), 8, "none of these identities"),
        (&path, std::fs::read(&sealed).unwrap()[..300].to_vec(), 8, "damaged"),
        (&path, b"hunter2".to_vec(), 8, "no age file"),
        (&sealed, std::fs::read(&sealed).unwrap(), 2, "no age identities"),
    ] {
        let bad = file(&server, "bad.age", content);
        let (found, _, err) = finish(command(&server, &["import", "age", shown(&bad), "-i", shown(identity)]), "");
        assert!(found == code && err.contains(why) && !err.contains("hunter2") && !err.contains("AGE-SECRET"), "{why}: {found} {err}");
    }
}

#[test]
fn nothing_is_written_without_a_recipient_or_without_the_right_to_read_it_all() {
    let server = server();
    with_input(&server, &["create", "shop/a", "--acl", "machine:dev-machine=list,read"], "one");
    with_input(&server, &["create", "shop/b", "--acl", "machine:dev-machine=only:list"], "two");
    let out = server.dir().join("out.age");
    let (path, recipient) = identity(&server, "identity");
    let secret_key = std::fs::read_to_string(&path).unwrap().lines().last().unwrap().to_owned();
    for (arguments, code, why) in [
        (&["export", "shop/", "-o", shown(&out)][..], 2, "needs a recipient"),
        (&["export", "shop/", "-o", shown(&out), "-r", "age1nonsense"], 2, "no age recipient"),
        (&["export", "shop/", "-o", shown(&out), "-r", &secret_key], 2, "give its recipient"),
        (&["export", "nothing/", "-o", shown(&out), "-r", &recipient], 3, "no key"),
        (&["export", "shop/", "-r", &recipient, "--json"], 2, "--output"),
    ] {
        let (found, printed, err) = finish(command(&server, arguments), "");
        assert!(found == code && printed.is_empty() && err.contains(why) && !out.exists(), "{why}: {found} {err}");
    }
    let arguments = ["export", "shop/", "-r", &recipient, "-o", shown(&out)];
    let (code, _, err) = finish(as_machine(&server, &arguments), "");
    assert!(code == 4 && err.contains("shop/b") && !out.exists(), "{code} {err}");
    let (code, _, err) = finish(as_machine(&server, &[&arguments[..], &["--readable-only"]].concat()), "");
    assert!(code == 0 && err.contains("left out: shop/b: denied") && out.exists(), "{code} {err}");
}
