//! Keys that the native API made or changed in ways that Knox does not know, as this surface shows them.

use super::{create, server, verdict};
use claviger_testkit::{Answer, Client, TestServer};
use serde_json::{Value, json};

fn native(client: &mut Client, method: &str, target: &str, body: &Value) -> Answer {
    let headers = [("Authorization", "Bearer alice-token"), ("Content-Type", "application/json")];
    let answer = client.request(method, target, &headers, body.to_string().as_bytes()).unwrap();
    assert!(answer.status < 300, "{method} {target}: {}", answer.text());
    answer
}

fn knox(client: &mut Client, method: &str, target: &str, form: &[(&str, &str)]) -> Answer {
    client.knox(method, target, "0ualice-token", form).unwrap()
}

fn both(server: &TestServer) -> (Client, Client) {
    (server.client().unwrap(), server.client().unwrap())
}

/// What Knox could not have made is not there: not in lists, polls, reads, ACLs, changes.
#[test]
fn ids_that_knox_could_not_have_made_do_not_exist() {
    let server = server("");
    let (mut n, mut k) = both(&server);
    create(&server, "plain", "YQ==", "[]");
    for id in ["a-b", "a.b", "team/db"] {
        native(&mut n, "POST", "/api/v1/keys", &json!({"id": id, "data": "YQ=="}));
    }
    assert_eq!(knox(&mut k, "GET", "/v0/keys/", &[]).json()["data"], json!(["plain"]));
    assert_eq!(knox(&mut k, "GET", "/v0/keys/?a-b=&a.b=&team/db=&plain=", &[]).json()["data"], json!(["plain"]));
    for id in ["a-b", "a.b"] {
        assert_eq!(verdict(&knox(&mut k, "GET", &format!("/v0/keys/{id}/"), &[])), (404, 4));
        assert_eq!(verdict(&knox(&mut k, "GET", &format!("/v0/keys/{id}/access/"), &[])), (404, 4));
        assert_eq!(verdict(&knox(&mut k, "DELETE", &format!("/v0/keys/{id}/"), &[])), (404, 4));
        assert_eq!(verdict(&knox(&mut k, "PUT", &format!("/v0/keys/{id}/access/"), &[("acl", "[]")])), (404, 4));
        assert_eq!(verdict(&knox(&mut k, "POST", &format!("/v0/keys/{id}/versions/"), &[("data", "YQ==")])), (404, 4));
    }
    assert_eq!(verdict(&knox(&mut k, "GET", "/v0/keys/team%2Fdb/", &[])), (404, 8));
}

/// A destroyed version is absent, from the hash too: Knox's clients see a key that never had it.
#[test]
fn destroyed_versions_are_absent() {
    let server = server("");
    let (mut n, mut k) = both(&server);
    create(&server, "k", "YQ==", "[]");
    let before = knox(&mut k, "GET", "/v0/keys/k/?status=\"Inactive\"", &[]).json()["data"].clone();
    let second = knox(&mut k, "POST", "/v0/keys/k/versions/", &[("data", "Yg==")]).json()["data"].to_string();
    let path = format!("/v0/keys/k/versions/{second}/");
    assert_eq!(verdict(&knox(&mut k, "PUT", &path, &[("status", "\"Inactive\"")])), (200, 0));
    native(&mut n, "PUT", &format!("/api/v1/keys/k/-/versions/{second}"), &json!({"state": "destroyed"}));
    assert_eq!(knox(&mut k, "GET", "/v0/keys/k/?status=\"Inactive\"", &[]).json()["data"], before);
    for status in ["Primary", "Active", "Inactive"] {
        let answer = knox(&mut k, "PUT", &path, &[("status", &format!("\"{status}\""))]);
        assert_eq!((verdict(&answer), &answer.json()["message"]), ((404, 3), &"Key version not found".into()), "{status}");
    }
}

/// A grant that is no level of Knox's shows as the highest that it contains, and the ACL is not changed from here.
#[test]
fn rights_that_knox_cannot_express_are_shown_lower_and_not_overwritten() {
    let server = server("");
    let (mut n, mut k) = both(&server);
    create(&server, "k", "YQ==", "[]");
    let grants = json!({"grants": [
        {"principal": "user:alice", "capabilities": ["list", "read", "encrypt", "decrypt", "sign", "verify", "write", "admin"]},
        {"principal": "user:bob", "capabilities": ["list", "read", "admin"]},
        {"principal": "user:carol", "capabilities": ["list"]},
    ]});
    native(&mut n, "PUT", "/api/v1/keys/k/-/acl", &grants);
    let acl = knox(&mut k, "GET", "/v0/keys/k/access/", &[]).json()["data"].clone();
    assert!(acl.as_array().unwrap().iter().all(|e| e["id"] != "carol"), "{acl}");
    let change = [("acl", r#"[{"type":"User","id":"x","access":"Read"}]"#)];
    let refused = knox(&mut k, "PUT", "/v0/keys/k/access/", &change);
    assert_eq!(verdict(&refused), (400, 11), "{}", refused.text());
    assert_eq!(knox(&mut k, "GET", "/v0/keys/k/access/", &[]).json()["data"], acl);
}

/// Where duties are separate, who administers does not read, and the ACL is not changed from here.
#[test]
fn keys_of_separate_duties_are_not_edited_from_here() {
    let server = server("");
    let (mut n, mut k) = both(&server);
    native(&mut n, "POST", "/api/v1/keys", &json!({"id": "k", "data": "YQ==", "separate_duties": true}));
    assert_eq!(verdict(&knox(&mut k, "GET", "/v0/keys/k/", &[])), (403, 6));
    let refused = knox(&mut k, "PUT", "/v0/keys/k/access/", &[("acl", r#"[{"type":"User","id":"bob","access":"Read"}]"#)]);
    assert_eq!(verdict(&refused), (400, 11), "{}", refused.text());
}

/// A version past its lifetime is not given out, and the refusal has no sentence that makes daemons forget the key.
#[test]
fn versions_past_their_lifetime_are_not_given_out() {
    let server = server("");
    let (mut n, mut k) = both(&server);
    native(&mut n, "POST", "/api/v1/keys", &json!({"id": "k", "data": "YQ==", "max_lifetime": 1}));
    assert_eq!(verdict(&knox(&mut k, "GET", "/v0/keys/k/", &[])), (200, 0));
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let refused = knox(&mut k, "GET", "/v0/keys/k/", &[]);
    assert_eq!(verdict(&refused), (403, 6), "{}", refused.text());
    assert!(refused.json()["data"].is_null());
    assert!(!refused.text().contains("not authorized") && !refused.text().contains("does not exist"), "{}", refused.text());
}

/// A key that is used, not read, looks as if nobody had the right to read it, and as if nobody had the right to give it a version.
#[test]
fn keys_that_are_used_are_never_read() {
    let server = server("");
    let (mut n, mut k) = both(&server);
    create(&server, "plain", "YQ==", "[]");
    native(&mut n, "POST", "/api/v1/keys", &json!({"id": "used", "kind": "hmac", "policy": {"exportable": true}}));
    assert_eq!(knox(&mut k, "GET", "/v0/keys/", &[]).json()["data"], json!(["plain", "used"]));
    for status in ["", "?status=\"Primary\"", "?status=\"Inactive\""] {
        let answer = knox(&mut k, "GET", &format!("/v0/keys/used/{status}"), &[]);
        assert_eq!(verdict(&answer), (403, 6), "{status}");
        assert!(answer.json()["data"].is_null() || answer.json()["data"] == "", "{}", answer.text());
    }
    let added = knox(&mut k, "POST", "/v0/keys/used/versions/", &[("data", "YQ==")]);
    assert_eq!(verdict(&added), (400, 11), "{}", added.text());
    native(&mut n, "POST", "/api/v1/keys/used/-/hmac", &json!({"items": [{"message": "YQ=="}]}));
}
