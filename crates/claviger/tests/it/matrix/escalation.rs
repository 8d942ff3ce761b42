//! Known ways to more rights than one has, each tried on a real server. After each it is made sure that nobody reads
//! what he could not read before.

use super::oracle::{ADMIN, READ};
use super::people::{ALICE, Asked, BOTH, CAROL, CONFIG, LEAD, MACHINE, Me, Person, SERVICE_PERSON, Voice};
use super::routes::SECRET;
use super::situations::entry;
use super::{none_of, stage, table};
use claviger_testkit::{Answer, Options, TestServer};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const MORE_PEOPLE: &str = r#"
[[dev.user]]
name = "mallory"
groups = ["ops"]
token = "mallory-token"
[[dev.user]]
name = "bob"
token = "bob-token"
[[dev.user]]
name = "warden"
groups = ["security"]
token = "warden-token"
[keys]
default_grants = ["user_group:security=read"]
"#;

const fn person(name: &'static str, is: &'static [Me], native: &'static str, knox: &'static str) -> Person {
    Person { name, who: "", is, native, knox, certificate: super::people::Certificate::None }
}

const MALLORY: Person = person("mallory", &[Me::User("mallory", &["ops"])], "Bearer mallory-token", "0umallory-token");
const BOB: Person = person("bob", &[Me::User("bob", &[])], "Bearer bob-token", "0ubob-token");
const WARDEN: Person = person("warden", &[Me::User("warden", &["security"])], "Bearer warden-token", "0uwarden-token");

/// All whom the attempts are made by, and `admin`.
const ATTACKERS: [Person; 9] = [MALLORY, BOB, WARDEN, ALICE, CAROL, LEAD, MACHINE, SERVICE_PERSON, BOTH];

/// Who must never read what, whatever was attempted: the administrators of keys whose duties are separate, and those
/// without a right.
const NEVER: [(&str, &[&str]); 2] = [
    ("duty", &["mallory", "alice", "carol", "lead", "machine", "service", "both"]),
    ("team", &["mallory", "alice", "carol", "machine", "service", "both"]),
];

/// One attempt: by whom, what, with which more header fields, and what must come of it.
struct Attempt {
    by: &'static str,
    asked: Asked,
    headers: Vec<(&'static str, String)>,
    answer: &'static str,
}

fn try_to(by: &'static str, asked: Asked, answer: &'static str) -> Attempt {
    Attempt { by, asked, headers: Vec::new(), answer }
}

impl Attempt {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

struct Trial {
    server: TestServer,
    voices: BTreeMap<&'static str, Voice>,
    since: String,
    rows: Vec<(String, String)>,
    wrong: Vec<String>,
}

/// An answer in two words: the native surface's status and code, or Knox's.
fn said(answer: &Answer) -> String {
    let json = answer.json();
    match &json["code"] {
        Value::String(code) => format!("{} {code}", answer.status),
        Value::Number(code) => format!("{}/{code}", answer.status),
        _ => answer.status.to_string(),
    }
}

impl Trial {
    fn new() -> Self {
        let server = crate::server_with(&format!("{CONFIG}{MORE_PEOPLE}"));
        let mut voices: BTreeMap<_, _> = ATTACKERS.iter().map(|p| (p.name, Voice::of(p, &server))).collect();
        voices.insert("admin", Voice::admin(&server));
        let mut trial = Self { server, voices, since: String::new(), rows: Vec::new(), wrong: Vec::new() };
        trial.since = trial.admin(&Asked::new("GET", "/api/v1/status"))["revision"].as_str().unwrap().to_owned();
        trial.set_up();
        trial
    }

    fn set_up(&mut self) {
        self.admin(&stage::put_prefix("", &[entry("user:admin", ADMIN), entry("user:root", ADMIN)], false));
        for d in ["/", ":"] {
            self.admin(&stage::put_prefix(&format!("free{d}"), &[], true));
            self.admin(&stage::put_prefix(&format!("team{d}"), &[entry("user:lead", ADMIN), entry("user:alice", &["create"])], false));
            self.admin(&stage::put_prefix(&format!("duty{d}"), &[entry("user:carol", ADMIN)], false));
            let manage: &[&str] = &["list", "admin"];
            let managers =
                ["user:mallory", "machine:dev-machine", "service:spiffe://dev.claviger/service", "service:spiffe://dev.claviger/both"];
            let mut grants: Vec<_> = managers.map(|m| entry(m, manage)).to_vec();
            grants.push(entry("user:bob", READ));
            self.make(&format!("duty{d}db"), &stage::wire(&grants), true);
            let team = [entry("user:bob", READ), entry("user:carol", &["list"]), entry("machine:dev-machine", &["write"])];
            self.make(&format!("team{d}db"), &stage::wire(&team), false);
        }
    }

    fn make(&mut self, id: &str, acl: &[Value], separate: bool) -> Value {
        self.admin(&Asked::json("POST", "/api/v1/keys", json!({ "id": id, "data": SECRET, "acl": acl, "separate_duties": separate })))
    }

    fn admin(&mut self, asked: &Asked) -> Value {
        self.voice("admin").must(asked)
    }

    fn voice(&mut self, name: &str) -> &mut Voice {
        self.voices.get_mut(name).unwrap()
    }

    /// Makes the attempts of one idea, then looks whether anyone has gained from them.
    fn idea(&mut self, idea: &str, attempts: Vec<Attempt>) {
        let mut answers: Vec<String> = Vec::new();
        for Attempt { by, asked, headers, answer } in attempts {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let found = self.voice(by).ask_with(&asked, &headers);
            let found_said = said(&found);
            if found_said != answer {
                self.wrong.push(format!("{idea}: {by}, {asked:?} {headers:?}: expected {answer}, got {found_said} {}", found.text()));
            }
            if !answers.contains(&found_said) {
                answers.push(found_said);
            }
        }
        self.nobody_gained(idea);
        self.rows.push((idea.to_owned(), answers.join(", ")));
    }

    fn nobody_gained(&mut self, idea: &str) {
        for (name, never) in NEVER {
            for by in never {
                // The prefix's administrator may read a key whose duties are not separate.
                let ids = [format!("{name}/db"), format!("{name}:db")];
                let many = Asked::json("POST", "/api/v1/read", json!({ "ids": ids }));
                let tries = [many, read(&ids[0]), read(&ids[1]), Asked::new("GET", format!("/v0/keys/{}/", ids[1]))];
                for asked in tries {
                    let answer = self.voice(by).ask(&asked);
                    if answer.text().contains(SECRET) {
                        self.wrong.push(format!("{idea}: afterwards {by} reads {ids:?}"));
                    }
                }
            }
        }
    }

    /// The key's ETag and its first version.
    fn state(&mut self, id: &str) -> (String, String) {
        let info = self.admin(&Asked::new("GET", format!("/api/v1/keys/{id}")));
        (format!("\"{}\"", info["etag"].as_str().unwrap()), info["versions"][0]["id"].as_str().unwrap().to_owned())
    }

    /// A row that was found out otherwise.
    fn found(&mut self, idea: &str, answers: &str, good: bool) {
        if !good {
            self.wrong.push(format!("{idea}: not so"));
        }
        self.rows.push((idea.to_owned(), answers.to_owned()));
    }
}

fn key(id: &str, tail: &str) -> String {
    format!("/api/v1/keys/{id}{tail}")
}

fn read(id: &str) -> Asked {
    Asked::new("GET", key(id, "/-/data"))
}

fn grant(id: &str, to: &str, rights: &[&'static str]) -> Asked {
    Asked::json("PATCH", key(id, "/-/acl"), json!({ "grants": stage::wire(&[entry(to, rights)]) }))
}

fn create(id: &str) -> Asked {
    Asked::json("POST", "/api/v1/keys", json!({ "id": id, "data": "eA==" }))
}

fn create_separate(id: &str, to: &str, rights: &[&'static str]) -> Asked {
    let acl = stage::wire(&[entry(to, rights)]);
    Asked::json("POST", "/api/v1/keys", json!({ "id": id, "data": SECRET, "acl": acl, "separate_duties": true }))
}

fn knox_access(id: &str, kind: &str, name: &str, access: &str) -> Asked {
    let entry = json!({ "type": kind, "id": name, "access": access }).to_string();
    Asked::form("PUT", format!("/v0/keys/{id}/access/"), &[("access", &entry)])
}

const DENIED: &str = "403 denied";
const UNSEEN: &str = "404 not_found";
const INVALID: &str = "400 invalid";

/// Attempts to grant `read` on the keys with separate duties.
fn granting(trial: &mut Trial, idea: &str, by: &'static str, to: &[&str]) {
    let attempts = to.iter().flat_map(|to| ["duty/db", "duty:db"].map(|id| try_to(by, grant(id, to, &["read"]), DENIED))).collect();
    trial.idea(idea, attempts);
}

/// To oneself, in all the ways in which one can be named.
fn granting_to_oneself(trial: &mut Trial) {
    let mut every = |idea: &str, by: &'static str, to: &[&str]| granting(trial, idea, by, to);
    every("an administrator of a key with separate duties grants himself `read`", "mallory", &["user:mallory"]);
    every("… grants it to his group", "mallory", &["user_group:ops"]);
    every(
        "… as a machine, to itself or to a prefix of its name",
        "machine",
        &["machine:dev-machine", "machine_prefix:dev-", "machine_prefix:d"],
    );
    every(
        "… as a machine, to itself in letters that its certificate also allows",
        "machine",
        &["machine:DEV-machine", "machine:dev-machine.", "machine_prefix:DEV-M"],
    );
    let renamed = |asked: Asked, header: &str, answer| try_to("machine", asked, answer).with("Authorization", header);
    trial.idea(
        "… and goes by that name",
        vec![
            renamed(read("duty/db"), "Machine DEV-machine", UNSEEN),
            renamed(read("duty/db"), "Machine dev-machine.", UNSEEN),
            renamed(Asked::new("GET", "/v0/keys/duty:db/"), "0tDEV-machine", "403/6"),
        ],
    );
    let mut every = |idea: &str, by: &'static str, to: &[&str]| granting(trial, idea, by, to);
    let service = &["service:spiffe://dev.claviger/service", "service_prefix:spiffe://dev.claviger/"];
    every("… as a service, to itself or to a prefix of its SPIFFE ID", "service", service);
    every(
        "… as one of his identities, to another of them",
        "both",
        &["machine:dev-both", "machine_prefix:dev-b", "service_prefix:spiffe://dev.claviger/"],
    );
    every(
        "… as administrator of the prefix above, to himself or his groups",
        "carol",
        &["user:carol", "user_group:ops", "user_group:night"],
    );
    lists_with_oneself(trial);
}

/// The same in other ways than by a plain entry.
fn lists_with_oneself(trial: &mut Trial) {
    let hidden =
        |to: &str| try_to("both", grant("duty/db", to, &["read"]), "401 unauthenticated").with("Authorization", "Machine dev-other");
    trial.idea(
        "… hides one of his identities behind a wrong name, and grants to that one",
        vec![hidden("machine:dev-both"), hidden("machine_prefix:dev-b")],
    );
    let all = |grants: &[super::oracle::Entry]| Asked::json("PUT", key("duty/db", "/-/acl"), json!({ "grants": stage::wire(grants) }));
    trial.idea(
        "… replaces the whole list by one with himself, or hides the entry among others",
        vec![
            try_to("mallory", all(&[entry("user:mallory", READ)]), DENIED),
            try_to(
                "mallory",
                all(&[entry("user:bob", READ), entry("user_group:ops", &["decrypt"]), entry("user:mallory", &["list", "admin"])]),
                DENIED,
            ),
            try_to("carol", all(&[entry("user:bob", READ), entry("user:carol", &["list"])]), DENIED),
        ],
    );
    trial.idea(
        "… adds any other right to his own entry",
        ["write", "encrypt", "decrypt", "sign", "verify", "create"]
            .map(|r| try_to("mallory", grant("duty/db", "user:mallory", &["list", "admin", r]), DENIED))
            .into(),
    );
    trial.idea(
        "… gives `admin` and a use to one principal",
        vec![
            try_to("mallory", grant("duty/db", "user:friend", &["admin", "read"]), DENIED),
            try_to("mallory", grant("duty/db", "user:friend", ADMIN), DENIED),
        ],
    );
    let switch_off = Asked::json("PATCH", key("duty/db", ""), json!({ "separate_duties": false }));
    trial.idea(
        "… switches separate duties off",
        vec![
            try_to("mallory", switch_off.clone(), INVALID),
            try_to("carol", switch_off.clone(), INVALID),
            try_to("admin", switch_off, INVALID),
        ],
    );
    let etag = trial.state("duty/db").0;
    let by_etag = |tag: &str, answer| try_to("mallory", grant("duty/db", "user:mallory", &["read"]), answer).with("If-Match", tag);
    trial.idea(
        "… with the right ETag, a stale one, or one that matches all",
        vec![by_etag(&etag, DENIED), by_etag("\"0-1\"", "412 conflict"), by_etag("*", INVALID)],
    );
}

fn prefixes(trial: &mut Trial) {
    let put = |prefix: &str, to: &str, rights: &[&'static str]| stage::put_prefix(prefix, &[entry(to, rights)], false);
    trial.idea(
        "an administrator of a prefix grants himself or his groups rights on a longer one",
        vec![
            try_to("carol", put("duty/db/", "user:carol", READ), DENIED),
            try_to("carol", put("duty/sub/", "user_group:ops", &["read"]), DENIED),
            try_to("carol", put("duty:", "user_group:night", &["read"]), DENIED),
        ],
    );
    trial.idea(
        "… writes to a prefix that is not his: shorter, beside his own, or with another delimiter",
        ["", "dut/", "team/", "duty/../team/", "dutyx/"]
            .map(|p| {
                let answer = if p.contains("..") { INVALID } else { DENIED };
                try_to("carol", put(p, "user:friend", ADMIN), answer)
            })
            .into(),
    );
    let manages = [entry("user:warden", &["list", "admin"])];
    trial.admin(&stage::put_prefix("calm/", &manages, false));
    trial.idea(
        "… may not create, and lets any user create",
        vec![
            try_to("warden", stage::put_prefix("calm/", &manages, true), DENIED),
            try_to("warden", stage::put_prefix("calm/sub/", &[], true), DENIED),
            try_to("warden", create("calm/x"), DENIED),
        ],
    );
    trial.idea(
        "a query names one prefix and the body another",
        vec![try_to("carol", Asked { target: "/api/v1/prefix?prefix=duty/".to_owned(), ..put("team/", "user:friend", ADMIN) }, INVALID)],
    );
    strangers_prefixes(trial);
}

/// Prefixes of those who have no right on them.
fn strangers_prefixes(trial: &mut Trial) {
    let put = |prefix: &str, to: &str, rights: &[&'static str]| stage::put_prefix(prefix, &[entry(to, rights)], false);
    trial.idea(
        "somebody without a right on a prefix writes, removes or shows it, with and without If-Match, there or not",
        ["", "team/", "team/none/", "nowhere/"]
            .iter()
            .flat_map(|p| {
                let at = format!("/api/v1/prefix?prefix={p}");
                [
                    try_to("mallory", put(p, "user:mallory", ADMIN), DENIED),
                    try_to("mallory", put(p, "user:mallory", ADMIN), DENIED).with("If-Match", "\"0-1\""),
                    try_to("mallory", Asked::new("DELETE", &*at), DENIED),
                    try_to("mallory", Asked::new("GET", &*at), DENIED),
                ]
            })
            .collect(),
    );
    trial.idea(
        "somebody creates a key under another's prefix, there or not: the answer does not tell",
        vec![
            try_to("mallory", create("team/new"), DENIED),
            try_to("mallory", create("team/db"), DENIED),
            try_to("mallory", create("new"), DENIED),
            try_to("mallory", Asked::form("POST", "/v0/keys/", &[("id", "team:new"), ("data", "eA==")]), "403/6"),
            try_to("mallory", Asked::form("POST", "/v0/keys/", &[("id", "team:db"), ("data", "eA==")]), "403/6"),
            try_to("machine", create("free/m"), DENIED),
            try_to("service", Asked::form("POST", "/v0/keys/", &[("id", "free:s"), ("data", "eA==")]), "403/6"),
        ],
    );
    trial.idea(
        "somebody who may only create looks at the keys that are there",
        ["", "/-/data", "/-/versions", "/-/acl", "/-/history", "/-/explain?principal=user:alice"]
            .map(|tail| try_to("alice", Asked::new("GET", key("team/db", tail)), UNSEEN))
            .into(),
    );
    let listed = trial.voice("alice").must(&Asked::new("GET", "/api/v1/keys?prefix=team"));
    trial.found("… and lists them", "an empty list", listed["keys"] == json!([]));
}

fn knox(trial: &mut Trial) {
    let whole = |acl: &str| Asked::form("PUT", "/v0/keys/duty:db/access/", &[("acl", acl)]);
    trial.idea(
        "an administrator edits the list of a key with separate duties through Knox",
        vec![
            try_to("mallory", knox_access("duty:db", "User", "mallory", "Read"), "400/11"),
            try_to("mallory", knox_access("duty:db", "UserGroup", "ops", "Admin"), "400/11"),
            try_to("mallory", knox_access("duty:db", "User", "friend", "Admin"), "400/11"),
            try_to("mallory", whole(r#"[{"type":"User","id":"mallory","access":"Admin"}]"#), "400/11"),
            try_to("both", knox_access("duty:db", "Machine", "dev-both", "Read"), "400/11"),
            try_to("carol", knox_access("duty:db", "User", "carol", "Read"), "400/11"),
        ],
    );
    trial.idea(
        "a reader, a writer and a stranger edit a list through Knox",
        vec![
            try_to("bob", knox_access("team:db", "User", "bob", "Admin"), "403/6"),
            try_to("bob", knox_access("duty:db", "User", "bob", "Admin"), "403/6"),
            try_to("machine", knox_access("team:db", "MachinePrefix", "d", "Admin"), "403/6"),
            try_to("mallory", Asked::form("PUT", "/v0/keys/team:db%2Faccess/", &[("acl", "[]")]), "403/6"),
        ],
    );
    trial.idea(
        "a key's list has rights that Knox cannot express, and its administrator edits it there",
        vec![try_to("admin", knox_access("team:db", "User", "friend", "Read"), "400/11")],
    );
    let destroy = |id: &str, version: &str| Asked::json("PUT", key(id, &format!("/-/versions/{version}")), json!({ "state": "destroyed" }));
    let version = trial.state("team/db").1;
    trial.idea(
        "a writer reads, deletes, destroys, or grants",
        vec![
            try_to("machine", read("team/db"), DENIED),
            try_to("machine", Asked::new("DELETE", key("team/db", "")), DENIED),
            try_to("machine", Asked::new("DELETE", "/v0/keys/team:db/"), "403/6"),
            try_to("machine", destroy("team/db", &version), DENIED),
            try_to("machine", grant("team/db", "machine:dev-machine", READ), DENIED),
            try_to("machine", Asked::new("GET", "/v0/keys/team:db/"), "403/6"),
        ],
    );
}

/// Names and paths that could mean something else to another part of the server.
fn spelling(trial: &mut Trial) {
    let get = |target: &str, answer| try_to("mallory", Asked::new("GET", target), answer);
    trial.idea(
        "a path that another part could read in another way",
        vec![
            get("/api/v1/keys/team%2fdb/-/data", INVALID),
            get("/api/v1/keys/team%2Fdb", INVALID),
            get("/api/v1/keys/free/x/../../team/db/-/data", INVALID),
            get("/api/v1/keys/free/x/%2e%2e/%2e%2e/team/db/-/data", INVALID),
            get("/api/v1/keys/free//team/db", INVALID),
            get("/api/v1/keys/team/db/%2d/data", UNSEEN),
            get("/api/v1/keys/team/db/-/data/-/data", UNSEEN),
            get("/api/v1/keys/team/db%00/-/data", INVALID),
            get("/api/v1/keys/team/db/-/data?version=1&version=2", INVALID),
            get("/v0/keys/team%2Fdb/", "404/8"),
            get("/v0/keys/team:db/?status=%22Active%22", "403/6"),
            get("/v0/keys/team:db%2Fversions/", "405"),
        ],
    );
    let as_header = |header: &str, answer| try_to("alice", Asked::new("GET", "/api/v1/whoami"), answer).with("Authorization", header);
    trial.idea(
        "other letters in ids and credentials",
        vec![
            get("/api/v1/keys/TEAM/DB/-/data", UNSEEN),
            get("/api/v1/keys/Team/db/-/data", UNSEEN),
            get("/v0/keys/TEAM:DB/", "404/4"),
            as_header("bearer bob-token", "401 unauthenticated"),
            as_header("Bearer BOB-TOKEN", "401 unauthenticated"),
            as_header("Bearer  bob-token", "401 unauthenticated"),
            as_header("Machine claviger:break-glass", "401 unauthenticated"),
        ],
    );
    let etag = trial.state("team/db").0;
    let conditional = |asked: Asked, tag: &str, answer| try_to("mallory", asked, answer).with("If-Match", tag);
    let mut attempts = Vec::new();
    for id in ["team/db", "team/none"] {
        for tag in ["\"0-1\"", etag.as_str()] {
            attempts.push(conditional(Asked::new("DELETE", key(id, "")), tag, UNSEEN));
            attempts.push(conditional(grant(id, "user:mallory", READ), tag, UNSEEN));
            attempts.push(conditional(Asked::json("PATCH", key(id, ""), json!({ "description": "x" })), tag, UNSEEN));
            attempts.push(conditional(Asked::json("POST", key(id, "/-/versions"), json!({ "data": "eA==" })), tag, UNSEEN));
        }
    }
    attempts.push(try_to("bob", grant("team/db", "user:bob", ADMIN), DENIED).with("If-Match", &*etag));
    attempts.push(try_to("bob", Asked::new("DELETE", key("team/db", "")), DENIED).with("If-Match", "\"0-1\""));
    trial.idea("If-Match on a key that one may not know of, whether it is there or not, or may not change", attempts);
}

/// What comes with a key's creation, and what a key leaves behind.
fn creation(trial: &mut Trial) {
    let owners = Asked::json("POST", "/api/v1/keys", json!({ "id": "free/o", "data": "eA==", "owners": ["user:mallory"] }));
    trial.idea(
        "a creator gives his groups, or a member of `default_grants` himself, a use of a key with separate duties",
        vec![
            try_to("mallory", create_separate("free/a", "user_group:ops", &["read"]), DENIED),
            try_to("mallory", create_separate("free/a", "user:friend", ADMIN), DENIED),
            try_to("warden", create_separate("free/a", "user:bob", READ), DENIED),
            try_to("mallory", owners, INVALID),
        ],
    );
    trial.idea(
        "a creator lists himself as a reader: he is the administrator, and no more",
        vec![try_to("mallory", create_separate("free/a", "user:mallory", ADMIN), "201"), try_to("mallory", read("free/a"), DENIED)],
    );
    trial.admin(&stage::put_prefix("both/", &[entry("user:mallory", &["create"]), entry("user_group:ops", READ)], false));
    trial.idea(
        "… or reads by a grant on the prefix what he has created and administers",
        vec![try_to("mallory", create_separate("both/a", "user:friend", &["write"]), "201"), try_to("mallory", read("both/a"), DENIED)],
    );
    let duties = |id: &str| Asked::json("PATCH", key(id, ""), json!({ "separate_duties": true }));
    trial.idea(
        "duties are made separate while one principal administers and uses",
        vec![try_to("mallory", create("free/b"), "201"), try_to("mallory", duties("free/b"), DENIED)],
    );
    let manager = [entry("user:mallory", &["list", "admin"]), entry("user_group:ops", READ)];
    trial.make("free/d", &stage::wire(&manager), false);
    trial.idea("… or while who separates them uses the key through a group", vec![try_to("mallory", duties("free/d"), DENIED)]);
    let old = trial.make("free/c", &stage::wire(&[entry("user:bob", READ)]), false);
    let (tag, version) = (format!("\"{}\"", old["etag"].as_str().unwrap()), old["versions"][0]["id"].as_str().unwrap().to_owned());
    trial.admin(&Asked::new("DELETE", "/api/v1/keys/free/c"));
    trial.idea(
        "a former reader asks for a deleted key: he is told that it is gone",
        vec![try_to("bob", read("free/c"), "410 deleted"), try_to("alice", read("free/c"), UNSEEN)],
    );
    trial.idea(
        "a deleted key's id is used again: neither do old readers return nor is anything of the old key there",
        vec![
            try_to("mallory", create("free/c"), "201"),
            try_to("bob", read("free/c"), UNSEEN),
            try_to("mallory", Asked::new("GET", key("free/c", &format!("/-/data?version={version}"))), UNSEEN),
            try_to("mallory", Asked::new("DELETE", key("free/c", "")), "412 conflict").with("If-Match", tag),
        ],
    );
    let past = trial.voice("mallory").must(&Asked::new("GET", "/api/v1/keys/free/c/-/history"));
    trial.found("… nor in its history", "an empty list", past["entries"] == json!([]));
    let text = trial.voice("mallory").must(&Asked::new("GET", "/api/v1/keys/free/c/-/data?state=all")).to_string();
    trial.found("… nor in its data", "the new data alone", !text.contains(SECRET) && text.contains("eA=="));
}

/// What shows more than one key, or more than data.
fn round_about(trial: &mut Trial) {
    let about = |id: &str, query: &str| Asked::new("GET", key(id, &format!("/-/explain?{query}")));
    trial.idea(
        "history, explanations and lists of rights without the right to them",
        vec![
            try_to("bob", Asked::new("GET", key("team/db", "/-/history")), DENIED),
            try_to("mallory", Asked::new("GET", key("team/db", "/-/history")), UNSEEN),
            try_to("mallory", about("team/db", "principal=user:mallory"), UNSEEN),
            try_to("bob", about("team/db", "principal=user:lead"), DENIED),
            try_to("machine", Asked::new("GET", key("team/db", "/-/acl")), DENIED),
            try_to("mallory", Asked::new("GET", key("team/db", "/-/acl")), UNSEEN),
        ],
    );
    trial.idea(
        "who may list a key asks about himself as a member of a group that he is not in, to learn of others' prefix rights",
        vec![
            try_to("bob", about("duty/db", "principal=user:bob&group=ops"), DENIED),
            try_to("carol", about("team/db", "principal=user:carol&group=ops&group=admins"), DENIED),
        ],
    );
    let reach = |query: &str| Asked::new("GET", format!("/api/v1/reach?principal=user:bob{query}"));
    trial.idea(
        "an administrator of one prefix asks for reach outside it",
        vec![
            try_to("lead", reach("&prefix=duty/"), DENIED),
            try_to("lead", reach(""), DENIED),
            try_to("lead", reach("&prefix="), DENIED),
            try_to("bob", reach("&prefix=team/"), DENIED),
        ],
    );
    let inside = |page: &Value| page["keys"].as_array().unwrap().iter().all(|k| k["id"].as_str().unwrap().starts_with("team/"));
    let pages = ["", "&cursor=a", "&cursor=duty/a", "&cursor=zz"].map(|c| trial.voice("lead").must(&reach(&format!("&prefix=team/{c}"))));
    trial.found("… by a cursor from elsewhere", "only keys below the prefix", pages.iter().all(inside));
    let pages = ["", "?prefix=team", "?prefix=duty", "?cursor=duty/a", "?prefix=team&cursor=a"]
        .map(|q| trial.voice("alice").must(&Asked::new("GET", format!("/api/v1/keys{q}"))));
    trial.found(
        "somebody without a right lists keys by text, prefix and cursor",
        "empty lists",
        pages.iter().all(|p| p["keys"] == json!([])),
    );
    let many = trial.voice("alice").must(&Asked::json("POST", "/api/v1/read", json!({ "ids": ["team/db", "team/none", "duty/db"] })));
    let errors: Vec<_> = many["items"].as_array().unwrap().iter().map(|i| i["error"].clone()).collect();
    trial.found("… reads many keys at once, there or not", "each `not_found`", errors == ["not_found"; 3]);
    servers_own(trial);
}

/// The server's own routes, and streams.
fn servers_own(trial: &mut Trial) {
    trial.idea(
        "administrators of keys and of prefixes use the server's own routes",
        ["mallory", "lead", "carol", "bob"]
            .iter()
            .flat_map(|by| {
                [("GET", "/api/v1/audit"), ("GET", "/api/v1/status"), ("POST", "/api/v1/seal/rotate")]
                    .map(|(method, target)| try_to(by, Asked::new(method, target), DENIED))
            })
            .collect(),
    );
    trial.admin(&Asked::json("POST", "/api/v1/keys/team/db/-/versions", json!({ "data": SECRET })));
    let target = format!("/api/v1/watch?id=team/db&id=duty/db&prefix=team/&prefix=duty/&since={}&heartbeat=1", trial.since);
    let follow = |person: &Person| Voice::of(person, &trial.server).follow(&target, |text| text.contains("event: heartbeat"));
    let (stranger, reader) = (follow(&ALICE), follow(&BOB));
    let told = |text: &str| text.contains("team/db") || text.contains("duty/db");
    trial.found(
        "… follows single keys and prefixes, from before they were made",
        "nothing but `ready` and `heartbeat`",
        !told(&stranger) && told(&reader),
    );
    let polled = trial.voice("alice").must(&Asked::new("GET", "/v0/keys/?team:db=x&duty:db=x&team:none=x"));
    let mut ids: Vec<_> = polled["data"].as_array().unwrap().iter().map(Value::to_string).collect();
    ids.sort_unstable();
    trial.found(
        "… polls by Knox, as the contract has it",
        "the ids of those that are there, and no more",
        ids == ["\"duty:db\"", "\"team:db\""],
    );
}

#[test]
fn no_known_way_to_more_rights_works() {
    let mut trial = Trial::new();
    granting_to_oneself(&mut trial);
    prefixes(&mut trial);
    knox(&mut trial);
    spelling(&mut trial);
    creation(&mut trial);
    round_about(&mut trial);
    let reserved = "[[dev.user]]\nname = \"x\"\ngroups = [\"claviger:break-glass\"]\ntoken = \"t\"\n";
    let started = TestServer::start(crate::program(), Options { config: Some(reserved.to_owned()), ..Options::default() });
    let refused = started.err().is_some_and(|e| e.to_string().contains("Claviger's own"));
    trial.found("a user is put into a group whose name starts with `claviger:`", "the server does not start", refused);
    none_of(&trial.wrong);
    table::check("escalation", &table::escalation(&trial.rows));
}
