//! Approvals on a real server: the whole way of a request, every way round it, races, kills, a database that is edited.

mod escalation;
mod life;
mod races;
mod tampering;

use claviger_testkit::{Answer, Client, Options, TestServer};
use serde_json::{Value, json};

/// What every key here holds, and its base64.
const SECRET: &str = "sentinel-of-the-approvals";

/// Requesters and approvers. The limit on failures is lifted: most of what is asked here fails.
const CONFIG: &str = r#"
[auth]
failures_burst = 100000
[[dev.user]]
name = "alice"
token = "alice-token"
[[dev.user]]
name = "bob"
token = "bob-token"
[[dev.user]]
name = "carol"
token = "carol-token"
[[dev.user]]
name = "sam"
groups = ["security"]
token = "sam-token"
[[dev.user]]
name = "eve"
token = "eve-token"
[[dev.user]]
name = "root"
token = "root-token"
"#;

fn base64() -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, SECRET)
}

/// A server, and one connection.
struct Stage {
    server: TestServer,
    client: Client,
}

impl Stage {
    /// `root` administers everything, `alice` what is below `team/` and `team:`.
    fn new() -> Self {
        Self::with("")
    }

    fn with(more: &str) -> Self {
        let config = format!("{CONFIG}{more}");
        let server = TestServer::start(crate::program(), Options { config: Some(config), ..Options::default() }).unwrap();
        let client = server.client().unwrap();
        let mut stage = Self { server, client };
        let admin = stage.server.bearer();
        for (prefix, who) in [("", &["user:admin", "user:root"][..]), ("team/", &["user:alice"]), ("team:", &["user:alice"])] {
            let mut grants: Vec<_> = who.iter().map(|p| json!({ "principal": p, "preset": "admin" })).collect();
            if prefix.is_empty() {
                grants.push(json!({ "principal": "user_group:claviger:break-glass", "capabilities": ["list", "admin"] }));
            }
            let body = json!({ "prefix": prefix, "grants": grants });
            let answer = stage.send(&admin, "PUT", &format!("/api/v1/prefix?prefix={prefix}"), &[], Some(body));
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        stage
    }

    fn send(&mut self, authorization: &str, method: &str, target: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        send(&mut self.client, authorization, method, target, headers, body)
    }

    fn ask(&mut self, who: &str, method: &str, target: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        let authorization = format!("Bearer {who}-token");
        self.send(&authorization, method, &format!("/api/v1{target}"), headers, body)
    }

    /// Asks, and what does not succeed is a mistake of the test.
    fn must(&mut self, who: &str, method: &str, target: &str, body: Option<Value>) -> Value {
        let answer = self.ask(who, method, target, &[], body);
        assert!((200..300).contains(&answer.status), "{who} {method} {target}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// A key of alice's with an active second version, whose id is given.
    fn key(&mut self, id: &str) -> String {
        self.must("alice", "POST", "/keys", Some(json!({ "id": id, "data": base64() })));
        let added = self.must("alice", "POST", &format!("/keys/{id}/-/versions"), Some(json!({ "data": base64() })));
        added["version"].as_str().unwrap().to_owned()
    }

    fn rule(&mut self, id: &str, operations: &[&str], needed: u8, approvers: &[&str]) {
        let rules = json!({ "rules": [rule(operations, needed, approvers)] });
        self.must("alice", "PUT", &format!("/keys/{id}/-/rules"), Some(rules));
    }

    /// Asks for approval, and gives its id and hash.
    fn file(&mut self, who: &str, method: &str, target: &str, body: Option<Value>) -> (String, String) {
        let answer = self.ask(who, method, target, &[("Claviger-Ask", "it must be")], body);
        assert_eq!(answer.status, 202, "{who} {method} {target}: {}", answer.text());
        let word = |name: &str| answer.json()[name].as_str().unwrap().to_owned();
        (word("id"), word("hash"))
    }

    fn approve(&mut self, who: &str, (id, hash): &(String, String)) -> Answer {
        self.ask(who, "POST", &format!("/approvals/{id}/-/approve"), &[], Some(json!({ "hash": hash })))
    }

    fn run(&mut self, who: &str, id: &str) -> Answer {
        self.ask(who, "POST", &format!("/approvals/{id}/-/run"), &[], None)
    }

    fn state(&mut self, who: &str, id: &str) -> String {
        self.must(who, "GET", &format!("/approvals/{id}"), None)["state"].as_str().unwrap().to_owned()
    }

    /// The reasons of the audit records with this action, newest first.
    fn recorded(&mut self, action: &str) -> Vec<Value> {
        let admin = self.server.bearer();
        let answer = self.send(&admin, "GET", &format!("/api/v1/audit?action={action}"), &[], None);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["records"].as_array().unwrap().clone()
    }
}

fn rule(operations: &[&str], needed: u8, approvers: &[&str]) -> Value {
    json!({ "operations": operations, "needed": needed, "approvers": approvers })
}

fn send(client: &mut Client, authorization: &str, method: &str, target: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
    let mut all = headers.to_vec();
    all.push(("Authorization", authorization));
    let bytes = body.map(|b| serde_json::to_vec(&b).unwrap()).unwrap_or_default();
    if !bytes.is_empty() {
        all.push(("Content-Type", "application/json"));
    }
    client.request(method, target, &all, &bytes).unwrap_or_else(|e| panic!("{method} {target}: {e:#}"))
}

/// An answer in two words.
fn said(answer: &Answer) -> String {
    match answer.json()["code"].as_str() {
        Some(code) => format!("{} {code}", answer.status),
        None => answer.status.to_string(),
    }
}
