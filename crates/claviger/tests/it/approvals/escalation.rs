//! Ways round an approval, each tried on a real server. After each it is made sure that nobody has read what is guarded, and
//! that nothing of it has changed.

use super::{SECRET, Stage, base64, rule, said};
use serde_json::{Value, json};

/// A guarded key, and what it must stay.
struct Fort {
    stage: Stage,
    version: String,
    before: Value,
    wrong: Vec<String>,
}

impl Fort {
    /// `alice` administers and may read `team/db`; two of bob, carol and the group `security` must agree to everything.
    fn new(id: &str) -> Self {
        let mut stage = Stage::new();
        let version = stage.key(id);
        let all = ["read", "destroy", "delete", "grant", "promote", "export"];
        stage.rule(id, &all, 2, &["user:bob", "user:carol", "user_group:security"]);
        let mut fort = Self { stage, version, before: Value::Null, wrong: Vec::new() };
        fort.before = fort.present(id);
        fort
    }

    fn present(&mut self, id: &str) -> Value {
        let mut info = self.stage.must("alice", "GET", &format!("/keys/{id}"), None);
        for changing in ["etag", "revision", "description"] {
            info.as_object_mut().unwrap().remove(changing);
        }
        let rules = self.stage.must("alice", "GET", &format!("/keys/{id}/-/rules"), None);
        let acl = self.stage.must("alice", "GET", &format!("/keys/{id}/-/acl"), None);
        json!([info, rules, acl])
    }

    /// One attempt; what comes of it, and whether it gave the secret away.
    fn attempt(&mut self, idea: &Idea, headers: &[(&str, &str)], expected: &str) {
        let Idea { what, who, method, target, body, .. } = idea;
        let answer = self.stage.ask(who, method, target, headers, body.clone());
        let found = said(&answer);
        if found != expected {
            self.wrong.push(format!("{what} {headers:?}: expected {expected}, got {found} {}", answer.text()));
        }
        if answer.text().contains(&base64()) || answer.text().contains(SECRET) {
            self.wrong.push(format!("{what}: the secret was given away"));
        }
    }

    fn unchanged(&mut self, id: &str, idea: &str) {
        let now = self.present(id);
        if now != self.before {
            self.wrong.push(format!("{idea}: changed to {now}"));
        }
    }
}

/// A way round, by whom, and what must come of it.
struct Idea {
    what: &'static str,
    who: &'static str,
    method: &'static str,
    target: String,
    body: Option<Value>,
    expected: &'static str,
}

fn idea(
    what: &'static str,
    who: &'static str,
    (method, target): (&'static str, impl Into<String>),
    body: impl Into<Option<Value>>,
    expected: &'static str,
) -> Idea {
    Idea { what, who, method, target: target.into(), body: body.into(), expected }
}

#[test]
fn nothing_goes_round_an_approval() {
    let mut f = Fort::new("team/db");
    let version = f.version.clone();
    let key = "/keys/team/db";
    let (acl, rules, one) = (format!("{key}/-/acl"), format!("{key}/-/rules"), format!("{key}/-/versions/{version}"));
    let grants = |who: &str| json!({ "grants": [{ "principal": who, "preset": "admin" }] });
    let none = json!({ "rules": [] });
    let weak = json!({ "rules": [rule(&["read"], 1, &["user:eve"])] });
    let more = json!({ "rules": [rule(&["read", "delete", "grant"], 1, &["user:bob", "user:eve"])] });
    let needs = "403 needs_approval";
    let on_prefix = |prefix: &str, who: &[&str]| {
        let grants: Vec<_> = who.iter().map(|p| json!({ "principal": p, "preset": "admin" })).collect();
        json!({ "prefix": prefix, "grants": grants })
    };
    let opened = json!({ "prefix": "team/", "grants": [{ "principal": "user:alice", "preset": "admin" }], "any_user_creates": true });
    let (team, all) = ("/prefix?prefix=team/", "/prefix?prefix=");
    let ideas = [
        idea("reading", "alice", ("GET", format!("{key}/-/data")), None, needs),
        idea("reading one version", "alice", ("GET", format!("{key}/-/data?version={version}")), None, needs),
        idea("reading all versions", "alice", ("GET", format!("{key}/-/data?state=all")), None, needs),
        idea("promoting", "alice", ("PUT", &*one), json!({ "state": "primary" }), needs),
        idea(
            "promoting as it is added",
            "alice",
            ("POST", format!("{key}/-/versions")),
            json!({ "data": "bmV3", "promote": true }),
            "400 invalid",
        ),
        idea("deleting", "alice", ("DELETE", key), None, needs),
        idea("making it again over itself", "alice", ("POST", "/keys"), json!({ "id": "team/db", "data": "bmV3" }), "409 conflict"),
        idea("replacing its rights", "alice", ("PUT", &*acl), grants("user:eve"), needs),
        idea("adding a right", "alice", ("PATCH", &*acl), grants("user:eve"), needs),
        idea("taking a right", "alice", ("PATCH", &*acl), json!({ "grants": [{ "principal": "user:alice", "preset": "none" }] }), needs),
        idea("taking the rule away", "alice", ("PUT", &*rules), none, needs),
        idea("making the rule weaker", "alice", ("PUT", &*rules), weak, needs),
        idea("adding approvers", "alice", ("PUT", &*rules), more, needs),
        idea("granting on the prefix above", "alice", ("PUT", team), on_prefix("team/", &["user:alice", "user:eve"]), needs),
        idea("granting on the empty prefix", "root", ("PUT", all), on_prefix("", &["user:root", "user:eve"]), needs),
        idea("letting anybody create below", "alice", ("PUT", team), opened, needs),
        idea("removing the grants above", "alice", ("DELETE", team), None, needs),
        idea("being nobody", "eve", ("GET", format!("{key}/-/data")), None, "404 not_found"),
        idea("administering from above", "root", ("GET", format!("{key}/-/data")), None, needs),
        idea("deleting from above", "root", ("DELETE", key), None, needs),
    ];
    let (missing, both) = ([("Claviger-Approval", "0123456789abcdef")], [("Claviger-Approval", "0123456789abcdef"), ("Claviger-Ask", "x")]);
    for idea in &ideas {
        f.attempt(idea, &[], idea.expected);
        // An approval that is not there, and one that is no id, open nothing either.
        if idea.expected == needs {
            f.attempt(idea, &missing, "404 not_found");
            f.attempt(idea, &[("Claviger-Approval", "yes")], "400 invalid");
            f.attempt(idea, &both, "400 invalid");
        }
        f.unchanged("team/db", idea.what);
    }

    // In a bulk read the others are given.
    f.stage.must("alice", "POST", "/keys", Some(json!({ "id": "team/open", "data": "b3Blbg==" })));
    let many = f.stage.ask("alice", "POST", "/read", &[], Some(json!({ "ids": ["team/db", "team/open"] })));
    let items = many.json()["items"].clone();
    assert_eq!((&items[0]["error"], items[1]["data"].is_object()), (&json!("needs_approval"), true), "{items}");
    assert!(!many.text().contains(&base64()));
    assert!(!f.stage.must("alice", "GET", &format!("{key}/-/history"), None).to_string().contains(&base64()));
    f.unchanged("team/db", "reading many, and the history");

    // What is asked for with a header that nothing here takes is not done.
    for asked in [
        idea("asking where nothing can be asked", "alice", ("PATCH", key), json!({ "description": "x" }), ""),
        idea("asking to create", "alice", ("POST", "/keys"), json!({ "id": "team/more", "data": "eA==" }), ""),
        idea("asking to read many", "alice", ("POST", "/read"), json!({ "ids": ["team/db"] }), ""),
    ] {
        f.attempt(&asked, &[("Claviger-Ask", "x")], "400 invalid");
    }
    assert_eq!(f.stage.ask("alice", "GET", "/keys/team/more", &[], None).status, 404);
    let free = f.stage.ask("alice", "DELETE", "/keys/team/open", &[("Claviger-Ask", "x")], None);
    assert_eq!(said(&free), "400 invalid", "what needs no approval is not done while it is asked about");
    assert_eq!(f.stage.ask("alice", "GET", "/keys/team/open", &[], None).status, 200);
    assert!(f.wrong.is_empty(), "{}", f.wrong.join("\n"));
}

#[test]
fn a_vote_is_worth_what_the_rules_in_force_say() {
    let mut f = Fort::new("team/db");
    let s = &mut f.stage;
    let asked = s.file("alice", "GET", "/keys/team/db/-/data", None);
    // Oneself, twice, a stranger, an approver who looked at something else.
    assert_eq!(said(&s.approve("alice", &asked)), "403 denied");
    assert_eq!(said(&s.approve("eve", &asked)), "404 not_found");
    assert_eq!(said(&s.approve("bob", &(asked.0.clone(), "0".repeat(64)))), "409 approval");
    assert_eq!(s.approve("bob", &asked).status, 200);
    assert_eq!(said(&s.approve("bob", &asked)), "409 approval");
    assert_eq!(said(&s.run("alice", &asked.0)), "403 needs_approval");
    // The same person does not become two through a group: sam is in `security` only, and counts once.
    assert_eq!(s.approve("sam", &asked).status, 200);
    assert_eq!(said(&s.approve("sam", &asked)), "409 approval");

    // bob is taken out of the rule, which both others agree to; his vote for the reading counts no more, and the key has changed.
    let fewer = json!({ "rules": [rule(&["read", "delete", "grant"], 2, &["user:carol", "user_group:security", "user:dave"])] });
    let change = s.file("alice", "PUT", "/keys/team/db/-/rules", Some(fewer));
    for who in ["carol", "sam"] {
        assert_eq!(s.approve(who, &change).status, 200);
    }
    assert_eq!(s.run("alice", &change.0).status, 200);
    assert_eq!(said(&s.run("alice", &asked.0)), "409 approval");
    let anew = s.file("alice", "GET", "/keys/team/db/-/data", None);
    assert_eq!(said(&s.approve("bob", &anew)), "404 not_found");

    // A rule on the prefix, made after the votes, has its say, too: all must be satisfied.
    for who in ["carol", "sam"] {
        assert_eq!(s.approve(who, &anew).status, 200);
    }
    assert_eq!(s.state("alice", &anew.0), "approved");
    s.must("alice", "PUT", "/prefix/rules?prefix=team/", Some(json!({ "rules": [rule(&["read"], 1, &["user:bob"])] })));
    assert_eq!(s.state("alice", &anew.0), "open");
    assert_eq!(said(&s.run("alice", &anew.0)), "403 needs_approval");
    assert_eq!(s.approve("bob", &anew).status, 200);
    assert!(s.run("alice", &anew.0).text().contains(&base64()));
}

#[test]
fn who_lost_his_right_carries_nothing_out() {
    let mut f = Fort::new("team/db");
    let s = &mut f.stage;
    s.must(
        "alice",
        "POST",
        "/keys",
        Some(json!({ "id": "team/own", "data": base64(), "acl": [{ "principal": "user:eve", "preset": "admin" }] })),
    );
    s.rule("team/own", &["read", "delete"], 1, &["user:bob"]);
    let asked = s.file("eve", "GET", "/keys/team/own/-/data", None);
    assert_eq!(s.approve("bob", &asked).status, 200);
    s.must("alice", "PATCH", "/keys/team/own/-/acl", Some(json!({ "grants": [{ "principal": "user:eve", "preset": "none" }] })));
    assert!(matches!(s.run("eve", &asked.0).status, 403 | 404));
}

#[test]
fn knoxs_surface_refuses_what_is_guarded_and_says_how_to_ask() {
    let mut f = Fort::new("team:db");
    let version = f.version.clone();
    for (method, target, form) in [
        ("GET", "/v0/keys/team:db/".to_owned(), vec![]),
        ("DELETE", "/v0/keys/team:db/".to_owned(), vec![]),
        ("PUT", "/v0/keys/team:db/access/".to_owned(), vec![("access", r#"{"type":"User","id":"eve","access":"Admin"}"#)]),
        ("PUT", format!("/v0/keys/team:db/versions/{version}/"), vec![("status", "\"Primary\"")]),
    ] {
        let answer = f.stage.client.knox(method, &target, "0ualice-token", &form).unwrap();
        let json = answer.json();
        assert_eq!((answer.status, json["code"].as_i64()), (403, Some(6)), "{method} {target}: {}", answer.text());
        let message = json["message"].as_str().unwrap();
        assert!(message.contains("approval") && message.contains("--ask"), "{message}");
        for trap in ["User or machine not authorized", "Key identifer does not exist", "Key identifier does not exist"] {
            assert!(!message.contains(trap), "{message}");
        }
        assert!(!answer.text().contains(&base64()));
    }
    f.unchanged("team:db", "by Knox's surface");
    assert!(f.wrong.is_empty(), "{}", f.wrong.join("\n"));
}
