//! Every route with no credential, a stranger's, and the right one.

use super::*;
use crate::native::routes::{ROUTES, method_name};
use crate::native::{Needs, Operation};

/// How a route is tried: its target and body, who is right, and what a stranger gets.
struct Row {
    target: &'static str,
    body: String,
    right: &'static str,
    stranger: &'static str,
}

/// Rules that bob alone has a say in.
const RULES: &str = r#"{"rules":[{"operations":["delete"],"needed":1,"approvers":["user:bob"]}]}"#;

/// What rows name before it is there.
struct Made {
    sealed: String,
    version: String,
    approval: String,
    hash: String,
}

/// One row per route; the compiler sees that none is forgotten.
fn row(operation: Operation, made: &Made) -> (Row, String) {
    use Operation as O;
    let data = base64(b"a value");
    let of = |target: &'static str, body: &str, right, stranger| Row { target, body: body.to_owned(), right, stranger };
    let key = |target, body| of(target, body, ALICE, "404 not_found");
    let row = match operation {
        O::ListKeys => of("/keys?prefix=team/", "", ALICE, "nothing"),
        O::CreateKey => of("/keys", &format!(r#"{{"id":"team/new","data":"{data}"}}"#), ALICE, "403 denied"),
        O::ShowKey => key("/keys/team/db", ""),
        O::UpdateKey => key("/keys/team/db", r#"{"description":"new"}"#),
        O::DeleteKey => key("/keys/team/db", ""),
        O::ReadData => key("/keys/team/db/-/data", ""),
        O::Encrypt => key("/keys/team/db-aes/-/encrypt", &format!(r#"{{"items":[{{"plaintext":"{data}"}}]}}"#)),
        O::Decrypt => key("/keys/team/db-aes/-/decrypt", r#"{"items":[{"ciphertext":"SEALED"}]}"#),
        O::Rewrap => key("/keys/team/db-aes/-/rewrap", r#"{"items":[{"ciphertext":"SEALED"}]}"#),
        O::DataKeys => key("/keys/team/db-aes/-/data-key", r#"{"items":[{}]}"#),
        O::Sign => key("/keys/team/db-ed/-/sign", &format!(r#"{{"items":[{{"message":"{data}"}}]}}"#)),
        O::Hmac => key("/keys/team/db-mac/-/hmac", &format!(r#"{{"items":[{{"message":"{data}"}}]}}"#)),
        O::Verify => key("/keys/team/db-ed/-/verify", &format!(r#"{{"items":[{{"message":"{data}","signature":"{data}"}}]}}"#)),
        O::ShowPublic => key("/keys/team/db-ed/-/public", ""),
        O::Export => key("/keys/team/db-aes/-/export", ""),
        O::ShowImportKey => of("/import-key", "", ALICE, "nothing"),
        O::ListVersions => key("/keys/team/db/-/versions", ""),
        O::AddVersion => key("/keys/team/db/-/versions", &format!(r#"{{"data":"{data}"}}"#)),
        O::SetState => key("/keys/team/db/-/versions/VERSION", r#"{"state":"primary"}"#),
        O::ShowAcl => key("/keys/team/db/-/acl", ""),
        O::ReplaceAcl => key("/keys/team/db/-/acl", r#"{"grants":[{"principal":"user:alice","preset":"admin"}]}"#),
        O::EditAcl => key("/keys/team/db/-/acl", r#"{"grants":[{"principal":"user:bob","preset":"read"}]}"#),
        O::Explain => key("/keys/team/db/-/explain?principal=user:bob", ""),
        O::History => key("/keys/team/db/-/history", ""),
        O::Fingerprint => of("/fingerprints", r#"{"ids":["team/db"]}"#, ALICE, "nothing"),
        O::ReadMany => of("/read", r#"{"ids":["team/db"]}"#, ALICE, "nothing"),
        O::ListPrefixes => of("/prefixes", "", ALICE, "nothing"),
        O::ShowPrefix => of("/prefix?prefix=team/", "", ALICE, "403 denied"),
        O::ReplacePrefix => {
            of("/prefix?prefix=team/", r#"{"prefix":"team/","grants":[{"principal":"user:alice","preset":"admin"}]}"#, ROOT, "403 denied")
        }
        O::DeletePrefix => of("/prefix?prefix=team/", "", ALICE, "403 denied"),
        O::Reach => of("/reach?principal=user:alice&prefix=team/", "", ALICE, "403 denied"),
        O::Watch => of("/watch?prefix=team/", "", ALICE, "stream"),
        O::QueryAudit => of("/audit", "", ROOT, "403 denied"),
        O::ShowStatus => of("/status", "", ROOT, "403 denied"),
        O::RotateSeal => of("/seal/rotate", "", ROOT, "403 denied"),
        O::ShowRules => key("/keys/team/db/-/rules", ""),
        O::ReplaceRules => key("/keys/team/db/-/rules", RULES),
        O::ReplacePrefixRules => of("/prefix/rules?prefix=team/", RULES, ALICE, "403 denied"),
        O::ListApprovals => of("/approvals", "", ALICE, "nothing"),
        O::ShowApproval => of("/approvals/APPROVAL", "", BOB, "404 not_found"),
        O::Approve => of("/approvals/APPROVAL/-/approve", r#"{"hash":"HASH"}"#, BOB, "404 not_found"),
        O::Reject => of("/approvals/APPROVAL/-/reject", r#"{"hash":"HASH"}"#, BOB, "404 not_found"),
        O::Withdraw => of("/approvals/APPROVAL/-/withdraw", r#"{"comment":"later"}"#, ALICE, "404 not_found"),
        O::RunApproval => of("/approvals/APPROVAL/-/run", "", ALICE, "404 not_found"),
        O::WhoAmI => of("/whoami", "", ALICE, "nothing"),
        O::LoginMethods => of("/login", "", ALICE, "nothing"),
        O::SharePage | O::ShareScript | O::OpenShare => unreachable!("`share` tries these, which are off unless configured"),
        O::CreateSession | O::EndSession => unreachable!("`people` tries these, which need tokens that are good once"),
        O::Describe => of("/openapi.json", "", ALICE, "nothing"),
    };
    let target = row.target.replace("VERSION", &made.version).replace("APPROVAL", &made.approval);
    let body = row.body.replace("HASH", &made.hash).replace("SEALED", &made.sealed);
    (Row { body, ..row }, target)
}

/// Routes that `people` tries.
fn takes_used_tokens(operation: Operation) -> bool {
    use Operation as O;
    matches!(operation, O::CreateSession | O::EndSession | O::SharePage | O::ShareScript | O::OpenShare)
}

/// A world with a key that has an active second version, and another whose deletion alice has asked bob to approve;
/// and with keys that are used, and something that one of them encrypted.
async fn world(operation: Operation) -> (World, Made) {
    let world = World::new().await;
    world.create("team/db", "s3cret").await;
    let added = world.must(201, ALICE, "POST", "/keys/team/db/-/versions", &format!(r#"{{"data":"{}"}}"#, base64(b"s3cret"))).await;
    let version = added.json()["version"].as_str().unwrap().to_owned();
    for (id, kind, policy) in [("db-aes", "aes256-gcm", r#"{"exportable":true}"#), ("db-ed", "ed25519", "{}"), ("db-mac", "hmac", "{}")] {
        let body = format!(r#"{{"id":"team/{id}","kind":"{kind}","policy":{policy}}}"#);
        world.must(201, ALICE, "POST", "/keys", &body).await;
    }
    let body = format!(r#"{{"items":[{{"plaintext":"{}"}}]}}"#, base64(b"s3cret"));
    let sealed = world.must(200, ALICE, "POST", "/keys/team/db-aes/-/encrypt", &body).await.json();
    world.create("team/guarded", "s3cret").await;
    world.must(200, ALICE, "PUT", "/keys/team/guarded/-/rules", RULES).await;
    let asked = world.call(ALICE, "DELETE", "/keys/team/guarded", &[("Claviger-Ask", "it is old")], "").await;
    assert_eq!(asked.status, 202, "{}", asked.text);
    let word = |name: &str| asked.json()[name].as_str().unwrap().to_owned();
    let sealed = sealed["items"][0]["ciphertext"].as_str().unwrap().to_owned();
    let made = Made { sealed, version, approval: word("id"), hash: word("hash") };
    if operation == Operation::RunApproval {
        let (target, body) = (format!("/approvals/{}/-/approve", made.approval), format!(r#"{{"hash":"{}"}}"#, made.hash));
        world.must(200, BOB, "POST", &target, &body).await;
    }
    world.records();
    (world, made)
}

#[tokio::test]
async fn every_route_needs_a_credential_refuses_strangers_and_serves_the_right_one() {
    for route in ROUTES.iter().filter(|route| !takes_used_tokens(route.operation)) {
        let (world, made) = world(route.operation).await;
        let (row, target) = row(route.operation, &made);
        let before = world.engine.revision();
        let name = format!("{} {target}", method_name(route.method));

        let anonymous = world.call(NO_CREDENTIAL, method_name(route.method), &target, &[], &row.body).await;
        if route.needs == Needs::Nothing {
            assert_eq!(anonymous.status, 200, "{name}");
        } else {
            assert_eq!(anonymous.problem(), "401 unauthenticated", "{name}");
            assert_eq!(anonymous.header("WWW-Authenticate"), "Bearer");
        }
        let wrong = world.call("tok-of-nobody", method_name(route.method), &target, &[], &row.body).await;
        assert_eq!(wrong.status, anonymous.status, "{name}");
        let kept = world.records();
        assert_eq!(kept.len(), 2, "{name}");
        assert!(kept.iter().all(|k| k.who.is_none() && k.action == "request" && k.keys[0].starts_with("/api/v1/")), "{name}: {kept:?}");

        let stranger = world.call(NOBODY, method_name(route.method), &target, &[], &row.body).await;
        match row.stranger {
            "nothing" => assert!(
                stranger.status == 200 && !stranger.text.contains("s3cret") && !stranger.text.contains(&base64(b"s3cret")),
                "{name}"
            ),
            "stream" => assert!(matches!(stranger.response.body, ResponseBody::Stream(_)), "{name}"),
            refusal => assert_eq!(stranger.problem(), refusal, "{name}"),
        }
        assert_eq!(world.records().len(), 1, "{name}");
        assert_eq!(world.engine.revision(), before, "{name}: a stranger changed something");

        let right = world.call(row.right, method_name(route.method), &target, &[], &row.body).await;
        assert_eq!(right.status, route.status, "{name}: {}", right.text);
        assert_eq!(right.header("Claviger-Request-Id").len(), 32, "{name}");
        let kept = world.records();
        // What is carried out has a record of its own beside the approval's use.
        assert_eq!(kept.len(), 1 + usize::from(route.operation == Operation::RunApproval), "{name}");
        assert_eq!((kept[0].outcome, kept[0].request.as_str()), ("ok", right.header("Claviger-Request-Id")), "{name}");
        if route.needs != Needs::Nothing {
            assert_eq!(right.header("Cache-Control"), "no-store", "{name}");
        }
    }
}

#[tokio::test]
async fn no_route_answers_when_its_record_cannot_be_kept() {
    for route in ROUTES.iter().filter(|route| !takes_used_tokens(route.operation)) {
        let (world, made) = world(route.operation).await;
        let (row, target) = row(route.operation, &made);
        world.audit.full.store(true, Ordering::SeqCst);
        for token in [row.right, NOBODY, NO_CREDENTIAL] {
            let before = (world.engine.revision(), world.back.seal_status().barrier_version);
            let reply = world.call(token, method_name(route.method), &target, &[], &row.body).await;
            let changed = before != (world.engine.revision(), world.back.seal_status().barrier_version);
            let expected = if changed { "500 unrecorded" } else { "507 storage_full" };
            assert_eq!(reply.problem(), expected, "{:?} {token}", route.operation);
        }
    }
}

#[tokio::test]
async fn a_key_that_one_may_not_know_of_looks_like_a_missing_one() {
    let of_keys = ROUTES.iter().filter(|r| r.pattern.contains("{id}"));
    let mut tried = 0;
    for route in of_keys {
        let (world, made) = world(route.operation).await;
        let (row, hidden) = row(route.operation, &made);
        let missing = hidden.replacen("team/db", "team/dc", 1).replace(&made.approval, "0123456789abcdef");
        let hidden = world.call(NOBODY, method_name(route.method), &hidden, &[], &row.body).await;
        let missing = world.call(NOBODY, method_name(route.method), &missing, &[], &row.body).await;
        assert_eq!(hidden.without_request_id(), missing.without_request_id(), "{:?}", route.operation);
        let kept = world.records();
        // Of approvals nobody but who is concerned learns anything, and the log has who that is.
        let hidden = if route.pattern.starts_with("/approvals") { "not_found" } else { "denied" };
        assert_eq!((kept[0].outcome, kept[1].outcome), (hidden, "not_found"), "the log knows the difference");
        tried += 1;
    }
    assert!(tried >= 12);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused_and_recorded() {
    let world = World::new().await;
    assert_eq!(world.get(ALICE, "/nothing").await.problem(), "404 not_found");
    assert_eq!(world.get(NO_CREDENTIAL, "/nothing").await.problem(), "401 unauthenticated");
    let wrong = world.call(ALICE, "DELETE", "/keys", &[], "").await;
    assert_eq!((wrong.problem().as_str(), wrong.header("Allow")), ("405 method_not_allowed", "GET, POST"));
    assert_eq!(world.call(ALICE, "HEAD", "/whoami", &[], "").await.status, 405);
    assert_eq!(world.call(ALICE, "POST", "/openapi.json", &[], "").await.status, 405);
    let outcomes: Vec<_> = world.records().iter().map(|k| format!("{} {}", k.action, k.outcome)).collect();
    assert_eq!(
        outcomes[outcomes.len() - 5..],
        ["request not_found", "request unauthenticated", "request invalid", "request invalid", "request invalid"]
    );
}

#[tokio::test]
async fn a_burst_of_failures_is_limited_and_not_written_down() {
    let world = World::new().await;
    let connection = Connection::new(([10, 9, 9, 9], 1).into(), "test".into(), None);
    world.records();
    let mut last = None;
    for _ in 0..40 {
        let head = Head::build("GET", "/api/v1/whoami", &[("Authorization", "Bearer wrong")]).unwrap();
        let request = Request { head, body: RequestBody::Complete(Bytes::new()), connection: connection.clone() };
        last = Some(Reply::of(world.native.handle(request).await));
    }
    let last = last.unwrap();
    assert_eq!(last.problem(), "429 rate_limited");
    assert!(last.header("Retry-After").parse::<u64>().unwrap() >= 1);
    let kept = world.records();
    assert!(kept.len() < 40 && kept.iter().all(|k| k.outcome == "unauthenticated"), "{}", kept.len());
}

#[tokio::test]
async fn the_description_is_given_to_anybody_but_not_without_end() {
    let world = World::new().await;
    let connection = Connection::new(([10, 9, 9, 9], 1).into(), "test".into(), None);
    let ask = |target: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", &*bearer)];
        let head = Head::build("GET", target, if token.is_empty() { &[] } else { &headers }).unwrap();
        world.native.handle(Request { head, body: RequestBody::Complete(Bytes::new()), connection: connection.clone() })
    };
    assert_eq!(ask("/api/v1/openapi.json", "").await.status, 200);
    for _ in 0..40 {
        ask("/api/v1/openapi.json", "").await;
    }
    world.records();
    assert_eq!(ask("/api/v1/openapi.json", "").await.status, 429);
    assert!(world.records().is_empty());
    assert_eq!(ask("/api/v1/whoami", ALICE).await.status, 200, "who shows a token is not kept out");
}

#[tokio::test]
async fn two_credentials_are_refused_whichever_comes_first() {
    let world = World::new().await;
    let bearer = format!("Bearer {NOBODY}");
    let reply = world.call(ALICE, "GET", "/whoami", &[("Authorization", &bearer)], "").await;
    assert_eq!(reply.problem(), "400 invalid authorization");
    let kept = world.records().pop().unwrap();
    assert_eq!((kept.outcome, kept.who), ("invalid", None));
    assert!(!kept.all.contains(NOBODY) && !kept.all.contains(ALICE));
}
