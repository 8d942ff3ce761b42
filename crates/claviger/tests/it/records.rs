//! Requests whose records are long: whatever is asked, it is answered as the contract says, and what was done or refused
//! stands in the log.

use crate::knox::{PEOPLE, create, verdict};
use claviger_audit::{Reader, VerifierKey, verify};
use claviger_testkit::{Answer, Client, Options, TestServer};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

fn server() -> TestServer {
    TestServer::start(crate::program(), Options { config: Some(PEOPLE.to_owned()), ..Options::default() }).unwrap()
}

fn native(client: &mut Client, token: &str, method: &str, target: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let (headers, body) = if body.is_null() { (&headers[..1], String::new()) } else { (&headers[..], body.to_string()) };
    client.request(method, &format!("/api/v1{target}"), headers, body.as_bytes()).unwrap()
}

/// All records of the log, which verifies.
pub(crate) fn records(server: &TestServer) -> Vec<Value> {
    let folder = server.dir().join("audit");
    let mut reader = Reader::open(&[&folder]).unwrap();
    let size = reader.size().unwrap();
    let read = reader.entries(0).map(Result::unwrap).take_while(|(index, _)| *index < size);
    let records = read.map(|(_, bytes)| serde_json::from_slice(&bytes).unwrap()).collect();
    let key = VerifierKey::parse(&std::fs::read_to_string(folder.join("log.pub")).unwrap()).unwrap();
    assert!(verify(&[folder], &key).unwrap().is_whole());
    records
}

/// The records of one action, their parts joined: how many parts, and the keys.
fn of<'r>(records: &'r [Value], action: &str) -> (usize, Vec<&'r str>) {
    let mine: Vec<_> = records.iter().filter(|r| r["action"] == action && r["outcome"] == "ok").collect();
    let keys = mine.iter().flat_map(|r| r["keys"].as_array().unwrap()).map(|k| k["id"].as_str().unwrap());
    (mine.len(), keys.collect())
}

/// Makes keys as alice over several connections, so that commits are shared.
fn create_all(server: &TestServer, ids: &[String]) {
    std::thread::scope(|scope| {
        for ids in ids.chunks(ids.len().div_ceil(24)) {
            scope.spawn(move || {
                let mut client = server.client().unwrap();
                for id in ids {
                    let form = [("id", id.as_str()), ("data", "YQ=="), ("acl", "[]")];
                    assert_eq!(verdict(&client.knox("POST", "/v0/keys/", "0ualice-token", &form).unwrap()), (200, 0));
                }
            });
        }
    });
}

#[test]
fn polls_bulk_reads_and_watches_of_many_keys_are_answered_and_recorded_whole() {
    let mut server = server();
    let poll: Vec<_> = (0..14_000).map(|n| format!("svc:{n:031}")).collect();
    let long: Vec<_> = (0..500).map(|n| format!("long:{n:0507}")).collect();
    create_all(&server, &[poll.clone(), long.clone()].concat());
    let mut client = server.client().unwrap();
    let answer = client.knox("GET", &format!("/v0/keys/?{}", poll.join("&")), "0ualice-token", &[]).unwrap();
    assert_eq!(answer.json()["data"].as_array().map(Vec::len), Some(14_000), "{}", answer.text());
    let missing = (0..500).map(|n| format!("miss:{n:0507}"));
    let ids: Vec<_> = long.iter().cloned().chain(missing).collect();
    let answer = native(&mut client, "alice-token", "POST", "/read", &json!({ "ids": ids }));
    assert_eq!((answer.status, answer.json()["items"].as_array().map(Vec::len)), (200, Some(1000)), "{}", answer.text());
    let mut target = String::from("/watch?heartbeat=300");
    (0..10_000).for_each(|n| write!(target, "&id=watched/{n:060}").unwrap());
    let head = format!("GET /api/v1{target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice-token\r\n\r\n");
    client.send(head.as_bytes()).unwrap();
    while !String::from_utf8_lossy(client.unread()).contains("\r\n\r\n") {
        client.more().unwrap();
    }
    assert!(String::from_utf8_lossy(client.unread()).starts_with("HTTP/1.1 200"), "{}", String::from_utf8_lossy(client.unread()));
    drop(client);
    server.terminate().unwrap();
    let records = records(&server);
    let (parts, keys) = of(&records, "poll");
    assert!(parts > 1 && keys.len() == 14_000);
    assert_eq!(of(&records, "bulk_read").1, long);
    let refused = records.iter().filter(|r| r["action"] == "bulk_read" && r["outcome"] == "not_found");
    assert_eq!(refused.map(|r| r["keys"].as_array().unwrap().len()).sum::<usize>(), 500);
    let (parts, keys) = of(&records, "watch");
    assert!(parts > 10 && keys.len() == 10_000);
}

#[test]
fn a_change_of_rights_is_refused_for_its_length_or_in_force_and_recorded() {
    let mut server = server();
    create(&server, "k", "YQ==", "[]");
    let mut client = server.client().unwrap();
    let knox = |client: &mut Client, acl: &str| client.knox("PUT", "/v0/keys/k/access/", "0ualice-token", &[("acl", acl)]).unwrap();
    let one = |id: &str| format!(r#"[{{"type":"Machine","id":"{id}","access":"Read"}}]"#);
    let refused = knox(&mut client, &one(&"m".repeat(100_000)));
    assert_eq!(verdict(&refused), (400, 13), "{}", refused.text());
    assert!(refused.text().contains("at most 2048 bytes"), "{}", refused.text());
    let acl = client.knox("GET", "/v0/keys/k/access/", "0ualice-token", &[]).unwrap();
    assert!(!acl.text().contains("mmmm"), "a refused grant is in force");
    let grants = |count: usize| {
        let grant = |n| json!({ "principal": format!("machine:host-{n:04}.example.com"), "preset": "read" });
        let admin = json!({ "principal": "user:alice", "preset": "admin" });
        json!({ "grants": std::iter::once(admin).chain((1..count).map(grant)).collect::<Vec<_>>() })
    };
    let refused = native(&mut client, "alice-token", "PUT", "/keys/k/-/acl", &grants(4097));
    assert_eq!((refused.status, &refused.json()["field"]), (400, &json!("grants")), "{}", refused.text());
    let changed = native(&mut client, "alice-token", "PUT", "/keys/k/-/acl", &grants(4096));
    assert_eq!(changed.status, 200, "{}", changed.text());
    // As many entries as a body holds: refused at once, and not after minutes of comparing them with each other.
    let entries: Vec<_> = (0..100_000).map(|n| format!(r#"{{"type":"User","id":"u{n}","access":"Read"}}"#)).collect();
    let many = format!("[{}]", entries.join(","));
    let begun = Instant::now();
    for (method, target, form) in [
        ("PUT", "/v0/keys/k/access/", &[("acl", many.as_str())][..]),
        ("POST", "/v0/keys/", &[("id", "other"), ("data", "YQ=="), ("acl", &many)]),
    ] {
        let refused = client.knox(method, target, "0ualice-token", form).unwrap();
        assert_eq!(verdict(&refused), (400, 11), "{}", refused.text());
        assert!(refused.text().contains("at most 4096"), "{}", refused.text());
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let refused = knox(&mut client, &one("one-more"));
    assert_eq!(verdict(&refused), (400, 11), "{}", refused.text());
    assert_eq!(verdict(&client.knox("DELETE", "/v0/keys/k/", "0ualice-token", &[]).unwrap()), (200, 0));
    server.terminate().unwrap();
    let records = records(&server);
    for (action, list) in [("change_rights", "new"), ("delete", "old")] {
        let parts: Vec<_> = records.iter().filter(|r| r["action"] == action && r["outcome"] == "ok").collect();
        assert!(parts.len() > 1 && parts.iter().all(|p| p["keys"][0]["id"] == "k"), "{action}");
        assert_eq!(parts.iter().map(|p| p["rights"][list].as_array().unwrap().len()).sum::<usize>(), 4096, "{action}");
    }
}

#[test]
fn a_refusal_with_a_long_text_is_answered_by_the_contract_and_recorded() {
    let mut server = server();
    create(&server, "k", "YQ==", "[]");
    let mut client = server.client().unwrap();
    let mut ask = |method: &str, target: &str, form: &[(&str, &str)]| verdict(&client.knox(method, target, "0ualice-token", form).unwrap());
    let dashes = "-".repeat(70_000);
    assert_eq!(ask("POST", "/v0/keys/", &[("id", &dashes), ("data", "YQ=="), ("acl", "[]")]), (400, 12));
    assert_eq!(ask("GET", &format!("/v0/keys/{}/", "k".repeat(80_000)), &[]), (404, 4));
    assert_eq!(ask("GET", &format!("/v0/keys/{}/", "%20".repeat(80_000)), &[]), (404, 4));
    assert_eq!(ask("PUT", &format!("/v0/keys/k/versions/{}/", "1".repeat(70_000)), &[("status", "\"Primary\"")]), (400, 11));
    server.terminate().unwrap();
    let refused = records(&server).iter().filter(|r| r["surface"] == "knox" && r["outcome"] != "ok").count();
    assert_eq!(refused, 4);
}
