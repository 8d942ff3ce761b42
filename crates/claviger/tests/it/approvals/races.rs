//! Many at once: whatever comes between, a request is carried out once, and never after it was taken back.

use super::{Stage, base64, send};
use serde_json::json;
use std::sync::{Arc, Barrier};

/// Does the same from `count` connections at once, and gives the statuses.
fn at_once(s: &Stage, count: usize, each: impl Fn(usize, &mut claviger_testkit::Client) -> u16 + Send + Sync + 'static) -> Vec<u16> {
    let (each, barrier) = (Arc::new(each), Arc::new(Barrier::new(count)));
    let threads: Vec<_> = (0..count)
        .map(|n| {
            let (each, barrier, mut client) = (each.clone(), barrier.clone(), s.server.client().unwrap());
            std::thread::spawn(move || {
                barrier.wait();
                each(n, &mut client)
            })
        })
        .collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

fn successes(statuses: &[u16]) -> usize {
    statuses.iter().filter(|s| **s == 200).count()
}

fn ready(s: &mut Stage, id: &str, method: &str, tail: &str, body: Option<serde_json::Value>) -> (String, String) {
    s.key(id);
    s.rule(id, &["read", "delete", "grant"], 1, &["user:bob", "user:carol"]);
    let asked = s.file("alice", method, &format!("/keys/{id}{tail}"), body);
    assert_eq!(s.approve("bob", &asked).status, 200);
    asked
}

#[test]
fn of_many_who_carry_one_request_out_one_does() {
    let mut s = Stage::new();
    for round in 0..4 {
        let id = format!("team/k{round}");
        let (asked, repeated) = match round {
            0 | 1 => (ready(&mut s, &id, "GET", "/-/data?state=primary", None), round == 1),
            _ => (
                ready(&mut s, &id, "PUT", "/-/acl", Some(json!({ "grants": [{ "principal": "user:eve", "preset": "read" }] }))),
                round == 3,
            ),
        };
        let (approval, is_read) = (asked.0.clone(), round < 2);
        let statuses = at_once(&s, 12, move |n, client| {
            let header = [("Claviger-Approval", approval.as_str())];
            let (method, target, headers, body) = match (repeated || n % 2 == 0, is_read) {
                (false, _) => ("POST", format!("/api/v1/approvals/{approval}/-/run"), &[][..], None),
                (true, true) => ("GET", format!("/api/v1/keys/{id}/-/data?state=primary"), &header[..], None),
                (true, false) => {
                    let body = json!({ "grants": [{ "principal": "user:eve", "preset": "read" }] });
                    ("PUT", format!("/api/v1/keys/{id}/-/acl"), &header[..], Some(body))
                }
            };
            let answer = send(client, "Bearer alice-token", method, &target, headers, body);
            assert!(answer.status == 200 || !answer.text().contains(&base64()), "{}", answer.text());
            answer.status
        });
        assert_eq!(successes(&statuses), 1, "{statuses:?}");
        assert_eq!(s.state("alice", &asked.0), "carried_out");
    }
}

#[test]
fn a_request_is_carried_out_or_taken_back_and_never_both() {
    let mut s = Stage::new();
    for round in 0..8 {
        let asked = ready(&mut s, &format!("team/k{round}"), "DELETE", "", None);
        let (id, hash) = asked.clone();
        let statuses = at_once(&s, 6, move |n, client| {
            let (who, what, body) = match n % 3 {
                0 => ("alice", "run", None),
                1 => ("alice", "withdraw", Some(json!({}))),
                _ => ("carol", "reject", Some(json!({ "hash": hash }))),
            };
            send(client, &format!("Bearer {who}-token"), "POST", &format!("/api/v1/approvals/{id}/-/{what}"), &[], body).status
        });
        assert_eq!(successes(&statuses), 1, "{statuses:?}");
        let (ran, state) = (statuses.iter().step_by(3).any(|s| *s == 200), s.state("alice", &asked.0));
        assert_eq!(ran, state == "carried_out", "{statuses:?} {state}");
        let is_gone = s.ask("alice", "GET", &format!("/keys/team/k{round}"), &[], None).status != 200;
        assert_eq!(is_gone, ran, "{statuses:?}");
    }
}

#[test]
fn a_change_of_the_key_and_the_carrying_out_do_not_both_happen_on_one_state() {
    let mut s = Stage::new();
    for round in 0..8 {
        let id = format!("team/k{round}");
        let asked = ready(&mut s, &id, "DELETE", "", None);
        let approval = asked.0.clone();
        let key = id.clone();
        let statuses = at_once(&s, 4, move |n, client| match n % 2 {
            0 => send(client, "Bearer alice-token", "POST", &format!("/api/v1/approvals/{approval}/-/run"), &[], None).status,
            _ => {
                let body = json!({ "description": format!("changed by {n}") });
                send(client, "Bearer alice-token", "PATCH", &format!("/api/v1/keys/{key}"), &[], Some(body)).status
            }
        });
        // Deleted: then no change came before it. Or a change came first, and the approval is stale.
        let deleted = statuses.iter().step_by(2).filter(|s| **s == 200).count();
        let changed = statuses.iter().skip(1).step_by(2).filter(|s| **s == 200).count();
        assert!((deleted == 1 && changed == 0) || (deleted == 0 && changed > 0), "{statuses:?}");
    }
}

#[test]
fn many_approvers_at_once_are_each_counted_once() {
    let mut s = Stage::new();
    s.key("team/db");
    s.rule("team/db", &["delete"], 3, &["user:bob", "user:carol", "user:sam"]);
    let asked = s.file("alice", "DELETE", "/keys/team/db", None);
    let (id, hash) = asked.clone();
    let statuses = at_once(&s, 12, move |n, client| {
        let who = ["bob", "carol", "sam"][n % 3];
        let body = json!({ "hash": hash });
        send(client, &format!("Bearer {who}-token"), "POST", &format!("/api/v1/approvals/{id}/-/approve"), &[], Some(body)).status
    });
    assert_eq!(successes(&statuses), 3, "{statuses:?}");
    let shown = s.must("alice", "GET", &format!("/approvals/{}", asked.0), None);
    assert_eq!((shown["votes"].as_array().unwrap().len(), &shown["state"]), (3, &json!("approved")));
}

#[test]
fn a_kill_neither_loses_an_approval_nor_carries_it_out_twice() {
    let mut s = Stage::new();
    for round in 0..6 {
        let id = format!("team/k{round}");
        let asked = ready(&mut s, &id, "PUT", "/-/acl", Some(json!({ "grants": [{ "principal": "user:eve", "preset": "read" }] })));
        let mut client = s.server.client().unwrap();
        let request = format!(
            "POST /api/v1/approvals/{}/-/run HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer alice-token\r\nContent-Length: 0\r\n\r\n",
            asked.0
        );
        client.send(request.as_bytes()).unwrap();
        // Some rounds are killed before it is done, some after.
        if round % 2 == 1 {
            std::thread::yield_now();
            let _ = client.more();
        }
        s.server.kill();
        s.server.restart().unwrap();
        s.client = s.server.client().unwrap();
        let state = s.state("alice", &asked.0);
        let acl = s.must("root", "GET", &format!("/keys/{id}/-/acl"), None).to_string();
        match state.as_str() {
            "carried_out" => assert!(acl.contains("user:eve"), "used and not done"),
            "approved" => {
                assert!(!acl.contains("user:eve"), "done and not used");
                assert_eq!(s.run("alice", &asked.0).status, 200);
            }
            other => panic!("{other}"),
        }
        assert_eq!(s.run("alice", &asked.0).status, 409, "never twice");
    }
}
