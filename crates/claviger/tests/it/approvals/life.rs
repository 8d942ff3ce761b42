//! The whole way of a request: asked, seen, decided, carried out once, recorded.

use super::{Stage, base64, rule, said};
use claviger_testkit::{Client, Credential};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// What a rule guards, on its own keys: the request, whether it is a read, and what it leaves behind.
fn deeds(version: &str) -> Vec<(&'static str, &'static str, String, Option<serde_json::Value>)> {
    vec![
        ("read", "GET", "/-/data?state=primary".to_owned(), None),
        ("promote", "PUT", format!("/-/versions/{version}"), Some(json!({ "state": "primary" }))),
        ("change_rights", "PUT", "/-/acl".to_owned(), Some(json!({ "grants": [{ "principal": "user:eve", "preset": "read" }] }))),
        ("change_rights", "PATCH", "/-/acl".to_owned(), Some(json!({ "grants": [{ "principal": "user:eve", "preset": "read" }] }))),
        ("change_rules", "PUT", "/-/rules".to_owned(), Some(json!({ "rules": [] }))),
        ("delete", "DELETE", String::new(), None),
    ]
}

#[test]
fn every_guarded_deed_is_refused_asked_for_approved_and_done_once_in_both_ways() {
    let mut s = Stage::new();
    for (n, repeated) in [true, false].into_iter().enumerate() {
        for (i, _) in deeds("1").iter().enumerate() {
            let id = format!("team/k{n}{i}");
            let version = s.key(&id);
            let (operation, method, tail, body) = deeds(&version).swap_remove(i);
            s.rule(&id, &["read", "promote", "grant", "delete", "destroy"], 2, &["user:bob", "user:carol", "user_group:security"]);
            let target = format!("/keys/{id}{tail}");

            let refused = s.ask("alice", method, &target, &[], body.clone());
            assert_eq!(said(&refused), "403 needs_approval", "{operation}");
            assert!(!refused.text().contains(&base64()) && refused.text().contains("--ask"), "{}", refused.text());
            let asked = s.file("alice", method, &target, body.clone());
            let shown = s.must("bob", "GET", &format!("/approvals/{}", asked.0), None);
            assert_eq!((shown["operation"].as_str(), shown["state"].as_str()), (Some(operation), Some("open")));
            assert_eq!(shown["requester"], "user:alice");
            assert!(!shown["changes"].as_array().unwrap().is_empty(), "{shown}");

            let early = s.ask("alice", method, &target, &[("Claviger-Approval", &asked.0)], body.clone());
            assert_eq!(said(&early), "403 needs_approval", "{operation}");
            assert_eq!(s.approve("bob", &asked).status, 200);
            assert_eq!(said(&s.run("alice", &asked.0)), "403 needs_approval", "{operation}: one of two");
            assert_eq!(s.approve("sam", &asked).status, 200);
            assert_eq!(s.state("alice", &asked.0), "approved");
            // Nobody else carries it out, not even who approved.
            assert_eq!(said(&s.run("bob", &asked.0)), "404 not_found", "{operation}");

            let done = match repeated {
                true => s.ask("alice", method, &target, &[("Claviger-Approval", &asked.0)], body.clone()),
                false => s.run("alice", &asked.0),
            };
            assert_eq!(done.status, 200, "{operation}: {}", done.text());
            assert_eq!(done.text().contains(&base64()), operation == "read", "{operation}");
            let again = match repeated {
                true => s.ask("alice", method, &target, &[("Claviger-Approval", &asked.0)], body),
                false => s.run("alice", &asked.0),
            };
            assert!(again.status == 409 || again.status == 410, "{operation}: {}", again.text());
            assert!(!again.text().contains(&base64()));
        }
    }
}

#[test]
fn destroying_and_prefixes_and_the_barrier_are_guarded_too() {
    let mut s = Stage::new();
    let version = s.key("team/db");
    s.must("alice", "PUT", &format!("/keys/team/db/-/versions/{version}"), Some(json!({ "state": "inactive" })));
    let rules = json!({ "rules": [rule(&["destroy", "grant"], 1, &["user:bob"])] });
    s.must("alice", "PUT", "/prefix/rules?prefix=team/", Some(rules));
    let root_rules = json!({ "rules": [rule(&["root"], 1, &["user:bob"])] });
    s.must("root", "PUT", "/prefix/rules?prefix=", Some(root_rules));
    let grants = json!({ "prefix": "team/", "grants": [{ "principal": "user:alice", "preset": "admin" }, { "principal": "user:eve", "preset": "read" }] });
    for (who, method, target, body) in [
        ("alice", "PUT", format!("/keys/team/db/-/versions/{version}"), Some(json!({ "state": "destroyed" }))),
        ("alice", "PUT", "/prefix?prefix=team/".to_owned(), Some(grants)),
        ("alice", "PUT", "/prefix/rules?prefix=team/".to_owned(), Some(json!({ "rules": [] }))),
        ("root", "POST", "/seal/rotate".to_owned(), None),
    ] {
        assert_eq!(said(&s.ask(who, method, &target, &[], body.clone())), "403 needs_approval", "{target}");
        let asked = s.file(who, method, &target, body);
        assert_eq!(s.approve("bob", &asked).status, 200);
        let done = s.run(who, &asked.0);
        assert_eq!(done.status, 200, "{target}: {}", done.text());
        assert_eq!(s.state(who, &asked.0), "carried_out");
    }
    let info = s.must("root", "GET", "/prefix?prefix=team/", None);
    assert!(info["grants"].to_string().contains("user:eve") && info["rules"].is_null(), "{info}");
}

#[test]
fn a_key_that_changed_meanwhile_is_asked_about_anew() {
    let mut s = Stage::new();
    let version = s.key("team/db");
    s.rule("team/db", &["delete", "promote"], 1, &["user:bob"]);
    let asked = s.file("alice", "DELETE", "/keys/team/db", None);
    assert_eq!(s.approve("bob", &asked).status, 200);
    // Any change will do, also one that no rule guards.
    s.must("alice", "PATCH", "/keys/team/db", Some(json!({ "description": "another" })));
    assert_eq!(s.state("alice", &asked.0), "stale");
    assert_eq!(said(&s.run("alice", &asked.0)), "409 approval");
    assert_eq!(said(&s.approve("bob", &asked)), "409 approval");
    assert_eq!(s.ask("alice", "GET", "/keys/team/db", &[], None).status, 200);
    // And an approval for one thing is none for another.
    let promote = format!("/keys/team/db/-/versions/{version}");
    let asked = s.file("alice", "PUT", &promote, Some(json!({ "state": "primary" })));
    assert_eq!(s.approve("bob", &asked).status, 200);
    let other = s.ask("alice", "DELETE", "/keys/team/db", &[("Claviger-Approval", &asked.0)], None);
    assert_eq!(said(&other), "409 approval");
    let unguarded = s.ask("alice", "PATCH", "/keys/team/db", &[("Claviger-Approval", &asked.0)], Some(json!({ "description": "x" })));
    assert_eq!(said(&unguarded), "400 invalid");
    assert_eq!(s.run("alice", &asked.0).status, 200);
}

#[test]
fn who_has_nothing_to_do_with_a_request_learns_nothing_of_it() {
    let mut s = Stage::new();
    s.key("team/db");
    s.rule("team/db", &["delete"], 1, &["user:bob"]);
    let asked = s.file("alice", "DELETE", "/keys/team/db", None);
    for (who, sees) in [("alice", true), ("bob", true), ("root", true), ("carol", false), ("eve", false)] {
        let one = s.ask(who, "GET", &format!("/approvals/{}", asked.0), &[], None);
        let list = s.must(who, "GET", "/approvals", None)["approvals"].as_array().unwrap().len();
        assert_eq!((one.status == 200, list), (sees, usize::from(sees)), "{who}");
        if !sees {
            let missing = s.ask(who, "GET", "/approvals/0123456789abcdef", &[], None);
            let plain = |a: &claviger_testkit::Answer| {
                let mut json = a.json();
                json.as_object_mut().unwrap().remove("request_id");
                (a.status, json)
            };
            assert_eq!(plain(&one), plain(&missing), "{who}");
            assert_eq!(said(&s.approve(who, &asked)), "404 not_found");
        }
    }
    assert_eq!(said(&s.approve("root", &asked)), "403 denied", "who administers is no approver for it");
}

#[test]
fn rejecting_and_withdrawing_end_a_request_and_everything_is_recorded() {
    let mut s = Stage::new();
    s.key("team/db");
    s.rule("team/db", &["delete"], 1, &["user:bob", "user:carol"]);
    let first = s.file("alice", "DELETE", "/keys/team/db", None);
    assert_eq!(s.approve("bob", &first).status, 200);
    let no = s.ask("carol", "POST", &format!("/approvals/{}/-/reject", first.0), &[], Some(json!({ "hash": first.1, "comment": "why?" })));
    assert_eq!(no.json()["state"], "rejected");
    let second = s.file("alice", "DELETE", "/keys/team/db", None);
    assert_eq!(s.approve("bob", &second).status, 200);
    assert_eq!(said(&s.ask("bob", "POST", &format!("/approvals/{}/-/withdraw", second.0), &[], Some(json!({})))), "403 denied");
    assert_eq!(s.ask("alice", "POST", &format!("/approvals/{}/-/withdraw", second.0), &[], Some(json!({}))).status, 200);
    for (id, _) in [&first, &second] {
        assert_eq!(said(&s.run("alice", id)), "409 approval");
    }
    let third = s.file("alice", "DELETE", "/keys/team/db", None);
    assert_eq!(s.approve("carol", &third).status, 200);
    assert_eq!(s.run("alice", &third.0).status, 200);
    for (action, asked, who) in [
        ("ask_approval", &third, "alice"),
        ("approve", &third, "carol"),
        ("reject_approval", &first, "carol"),
        ("withdraw_approval", &second, "alice"),
        ("use_approval", &third, "alice"),
        ("delete", &third, "alice"),
    ] {
        let records = s.recorded(action);
        let tells = |r: &serde_json::Value| {
            let words = [asked.0.as_str(), asked.1.as_str(), who];
            r["record"]["outcome"] == "ok" && words.iter().all(|word| r.to_string().contains(word))
        };
        assert!(records.iter().any(tells), "{action}: {records:?}");
    }
}

#[test]
fn who_breaks_the_glass_passes_and_everybody_hears_of_it() {
    let mut s = Stage::new();
    s.key("team/db");
    s.rule("team/db", &["delete", "grant"], 2, &["user:bob", "user:carol"]);
    let (config, out) = (crate::operation::production_config(&s.server), s.server.dir().join("emergency"));
    let made = Command::new(crate::program())
        .args(["server", "break-glass", "--reason", "nobody is left", "--config"])
        .arg(&config)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let credential = Credential::from_files(&out.join("break-glass.pem"), &out.join("break-glass.key")).unwrap();
    let mut emergency = Client::connect(s.server.address(), Path::new(s.server.env("CLAVIGER_CA")), Some(credential)).unwrap();
    let grants = br#"{"grants":[{"principal":"user:eve","preset":"read"}]}"#;
    let changed = emergency.request("PATCH", "/api/v1/keys/team/db/-/acl", &[("Content-Type", "application/json")], grants).unwrap();
    assert_eq!(changed.status, 200, "{}", changed.text());
    let alerts = s.recorded("alert");
    assert!(alerts.iter().any(|r| r.to_string().contains("bypassed approval")), "{alerts:?}");
    let changes = s.recorded("change_rights");
    assert!(changes[0].to_string().contains("bypassed approval"), "{changes:?}");
    assert!(s.server.log().contains("bypassed approval"));
}

#[test]
fn the_command_line_asks_shows_decides_and_carries_out_and_chat_hears_of_it() {
    let hooks = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/services/x", hooks.local_addr().unwrap());
    let mut s = Stage::with(&format!("[approvals]\nwebhooks = [\"{url}\"]\nwebhook_loopback_http = true\n"));
    s.key("team/db");
    let claviger = |who: &str, args: &[&str]| {
        let mut command = Command::new(crate::program());
        command.args(args).env_clear().env("CLAVIGER_TOKEN", format!("{who}-token"));
        for name in ["CLAVIGER_ADDR", "CLAVIGER_CA"] {
            command.env(name, s.server.env(name));
        }
        let out = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
    };
    let done = |who: &str, args: &[&str]| {
        let (code, out, error) = claviger(who, args);
        assert_eq!(code, 0, "{args:?}: {out}{error}");
        out
    };
    done("alice", &["approval", "require", "team/db", "--operations", "read,delete", "--needed", "1", "--approver", "user:bob"]);
    assert!(done("alice", &["approval", "rules", "team/db"]).contains("user:bob"));
    let (code, _, error) = claviger("alice", &["get", "team/db"]);
    assert!(code == 4 && error.contains("needs approval") && error.contains("--ask"), "{error}");
    let asked = done("alice", &["get", "team/db", "--ask", "the database is down <!channel>"]);
    let id = asked.split_whitespace().nth(1).unwrap().to_owned();
    assert!(asked.contains("approval run") && !asked.contains(super::SECRET), "{asked}");
    assert!(done("bob", &["approval", "list"]).contains(&id));
    assert!(done("bob", &["approval", "approve", &id, "--yes", "--comment", "go"]).contains("approved by user:bob"));
    assert_eq!(done("alice", &["approval", "run", &id]), super::SECRET);
    assert_eq!(claviger("alice", &["approval", "run", &id]).0, 6);
    let asked = done("alice", &["--json", "approval", "ask", "--reason", "old", "--", "delete", "team/db", "--yes"]);
    let asked: serde_json::Value = serde_json::from_str(&asked).unwrap();
    let id = asked["id"].as_str().unwrap();
    done("bob", &["approval", "approve", id, "--hash", asked["hash"].as_str().unwrap()]);
    done("alice", &["delete", "team/db", "--yes", "--approval", id]);
    assert_eq!(claviger("alice", &["info", "team/db"]).0, 3);

    let mut heard = Vec::new();
    while heard.len() < 6 {
        let (mut stream, _) = hooks.accept().unwrap();
        heard.push(posted(&mut stream));
    }
    let events: Vec<_> = heard.iter().map(|h| h["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["asked", "approved", "carried_out", "asked", "approved", "carried_out"]);
    let text = heard[0]["text"].as_str().unwrap();
    assert!(
        text.contains("alice") && text.contains("&lt;!channel&gt;") && !heard.iter().any(|h| h.to_string().contains(super::SECRET)),
        "{text}"
    );
}

/// The JSON that a connection posts; it is answered.
fn posted(stream: &mut std::net::TcpStream) -> serde_json::Value {
    use std::io::{Read, Write};
    let (mut request, mut part) = (Vec::new(), [0; 4096]);
    let body = loop {
        let n = stream.read(&mut part).unwrap();
        assert!(n > 0, "the post ends early");
        request.extend_from_slice(&part[..n]);
        let text = String::from_utf8_lossy(&request);
        let Some((_, body)) = text.split_once("\r\n\r\n") else { continue };
        if let Ok(json) = serde_json::from_str(body) {
            break json;
        }
    };
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    body
}

#[test]
fn the_material_of_a_key_that_is_used_leaves_by_approval_once() {
    let mut s = Stage::new();
    s.must("alice", "POST", "/keys", Some(json!({ "id": "team/aes", "kind": "aes256-gcm", "policy": { "exportable": true } })));
    s.rule("team/aes", &["export"], 1, &["user:bob"]);
    let target = "/keys/team/aes/-/export";
    let refused = s.ask("alice", "POST", target, &[], None);
    assert_eq!(said(&refused), "403 needs_approval", "{}", refused.text());
    let asked = s.file("alice", "POST", target, None);
    assert_eq!(s.approve("bob", &asked).status, 200);
    let exported = s.run("alice", &asked.0);
    assert!(exported.status == 200 && exported.json()["exported"]["material"].is_string(), "{}", exported.text());
    assert_eq!(said(&s.run("alice", &asked.0)), "409 approval");
    assert_eq!(said(&s.ask("alice", "POST", target, &[("Claviger-Approval", &asked.0)], None)), "409 approval");
}
