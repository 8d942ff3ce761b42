//! Reading: data, many keys' data, lists, reach, the server's own state.

use super::*;
use claviger_wire::native::{BulkAnswer, KeyData};
use serde_json::json;

fn data(reply: &Reply) -> Vec<(String, String)> {
    let key: KeyData = serde_json::from_str(&reply.text).unwrap();
    key.versions.into_iter().map(|v| (v.state, v.data)).collect()
}

#[tokio::test]
async fn data_is_given_as_asked_and_is_what_the_wire_type_writes() {
    let world = World::new().await;
    world
        .must(
            201,
            ALICE,
            "POST",
            "/keys",
            &json!({ "id": "team/db:x.y-z_1", "data": base64(&[0, 255, 1]), "max_lifetime": 100 }).to_string(),
        )
        .await;
    let key = "/keys/team/db:x.y-z_1";
    world.must(201, ALICE, "POST", &format!("{key}/-/versions"), r#"{"data":"dHdv"}"#).await;
    let third = world.must(201, ALICE, "POST", &format!("{key}/-/versions"), r#"{"data":"dGhyZWU="}"#).await.json();
    let third = third["version"].as_str().unwrap();
    world.must(200, ALICE, "PUT", &format!("{key}/-/versions/{third}"), r#"{"state":"inactive"}"#).await;
    let pair = |s: &str, d: &str| (s.to_owned(), d.to_owned());
    let (primary, active, inactive) = (pair("primary", "AP8B"), pair("active", "dHdv"), pair("inactive", "dGhyZWU="));
    let table = [
        ("", vec![primary.clone(), active.clone()]),
        ("?state=primary", vec![primary.clone()]),
        ("?state=active", vec![primary.clone(), active.clone()]),
        ("?state=all", vec![primary, active, inactive.clone()]),
        (&format!("?version={third}"), vec![inactive]),
    ];
    for (query, expected) in table {
        let reply = world.get(ALICE, &format!("{key}/-/data{query}")).await;
        assert_eq!(data(&reply), expected, "{query}");
        let typed: KeyData = serde_json::from_str(&reply.text).unwrap();
        assert_eq!(serde_json::to_string(&typed).unwrap(), reply.text, "not as serde writes it");
        assert_eq!(reply.header("Cache-Control"), "no-store");
        assert_eq!(reply.header("ETag"), format!("\"{}\"", typed.etag));
        assert_eq!(reply.header("Claviger-Revision"), world.engine.revision().to_string());
    }
    let missing = world.get(ALICE, &format!("{key}/-/data?version=4711")).await;
    assert_eq!(missing.problem(), "404 not_found");
}

/// The buffer's size is asserted where it is filled.
#[tokio::test]
async fn buffers_with_secrets_do_not_grow() {
    let world = World::new().await;
    let id = format!("team/{}", "k".repeat(500));
    let body = json!({ "id": id, "data": base64(&[7; 40_000]), "max_lifetime": u32::MAX, "expires": "2027-02-02T02:02:02.123456789Z" });
    world.must(201, ALICE, "POST", "/keys", &body.to_string()).await;
    for size in 1..20 {
        world.must(201, ALICE, "POST", &format!("/keys/{id}/-/versions"), &json!({ "data": base64(&vec![7; size]) }).to_string()).await;
    }
    world.must(200, ALICE, "GET", &format!("/keys/{id}/-/data?state=all"), "").await;
    world.must(200, ALICE, "POST", "/read", &json!({ "ids": [id, "team/missing"] }).to_string()).await;
}

#[tokio::test]
async fn a_version_past_its_lifetime_is_not_given_out() {
    let world = World::new().await;
    world.must(201, ALICE, "POST", "/keys", r#"{"id":"team/short","data":"eA==","max_lifetime":60}"#).await;
    assert_eq!(world.get(ALICE, "/keys/team/short/-/data").await.status, 200);
    world.clock.forward(60);
    assert_eq!(world.get(ALICE, "/keys/team/short/-/data").await.problem(), "403 expired");
    let bulk = world.must(200, ALICE, "POST", "/read", r#"{"ids":["team/short"]}"#).await.json();
    assert_eq!(bulk["items"][0]["error"], "expired");
}

#[tokio::test]
async fn a_thousand_keys_are_read_at_once_each_with_its_own_result() {
    let world = World::new().await;
    for i in 0..990 {
        world.create(&format!("team/k{i}"), &format!("value {i}")).await;
    }
    world.create("team/gone", "x").await;
    world.must(200, ALICE, "PATCH", "/keys/team/k0/-/acl", r#"{"grants":[{"principal":"user:bob","capabilities":["list"]}]}"#).await;
    world.must(200, ALICE, "PATCH", "/keys/team/k1/-/acl", r#"{"grants":[{"principal":"user:bob","preset":"read"}]}"#).await;
    world.must(200, ALICE, "DELETE", "/keys/team/gone", "").await;
    let mut ids: Vec<_> = (0..990).rev().map(|i| format!("team/k{i}")).collect();
    ids.extend((0..9).map(|i| format!("team/missing{i}")));
    ids.push("team/gone".to_owned());
    assert_eq!(ids.len(), 1000);
    let body = json!({ "ids": ids }).to_string();
    world.records();
    let reply = world.must(200, ALICE, "POST", "/read", &body).await;
    let answer: BulkAnswer = serde_json::from_str(&reply.text).unwrap();
    assert_eq!(serde_json::to_string(&answer).unwrap(), reply.text, "not as serde writes it");
    assert_eq!(answer.items.iter().map(|i| i.id.clone()).collect::<Vec<_>>(), ids, "the order of the request");
    assert_eq!(answer.items[0].data.as_ref().unwrap().versions[0].data, base64(b"value 989"));
    let errors: Vec<_> = answer.items[990..].iter().map(|i| i.error.as_deref().unwrap()).collect();
    assert_eq!(errors, [vec!["not_found"; 9], vec!["deleted"]].concat());
    assert_eq!(reply.header("Cache-Control"), "no-store");
    assert_eq!(reply.header("Claviger-Revision"), world.engine.revision().to_string());
    let kept = world.records();
    let kept: Vec<_> = kept.iter().map(|k| (k.action, k.outcome, k.keys.len())).collect();
    assert_eq!(kept, [("bulk_read", "ok", 990), ("bulk_read", "not_found", 10)]);

    let reply = world.must(200, BOB, "POST", "/read", r#"{"ids":["team/k0","team/k1","team/k2","team/k9999"]}"#).await.json();
    let codes: Vec<_> = reply["items"].as_array().unwrap().iter().map(|i| i["error"].as_str().unwrap_or("data")).collect();
    assert_eq!(codes, ["denied", "data", "not_found", "not_found"]);
}

#[tokio::test(start_paused = true)]
async fn each_key_that_a_bulk_read_is_refused_counts_against_the_caller_whether_it_exists_or_not() {
    let world = World::new().await;
    for i in 0..1000 {
        world.create(&format!("team/k{i}"), "x").await;
    }
    let body = |name: &str, count| json!({ "ids": (0..count).map(|i| format!("team/{name}{i}")).collect::<Vec<_>>() }).to_string();
    let waited = async |token: &str, body: String| {
        let before = tokio::time::Instant::now();
        world.must(200, token, "POST", "/read", &body).await;
        before.elapsed().as_millis()
    };
    assert!(waited(BOB, body("k", 200)).await < 50, "a daemon that lost some rights is not slowed down");
    assert!(waited(BOB, body("k", 1000)).await >= 5000);
    // Were these told apart by the time they take, one could find out which keys exist.
    assert!(waited(NOBODY, body("missing", 1000)).await >= 5000);
    assert!(waited(ALICE, body("k", 1000)).await < 50, "who may read is not slowed down");
}

#[tokio::test]
async fn lists_are_paged_filtered_and_hold_only_what_one_may_see() {
    let world = World::new().await;
    for i in 0..25 {
        let body = json!({ "id": format!("team/k{i:02}"), "data": "eA==", "labels": { "odd": (i % 2).to_string(), "all": "a=b c" } });
        world.must(201, ALICE, "POST", "/keys", &body.to_string()).await;
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = world.get(ALICE, &format!("/keys?limit=10{cursor}")).await.json();
        seen.extend(page["keys"].as_array().unwrap().iter().map(|k| k["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (0..25).map(|i| format!("team/k{i:02}")).collect::<Vec<_>>());
    let count = |reply: Reply| reply.json()["keys"].as_array().unwrap().len();
    assert_eq!(count(world.get(ALICE, "/keys?label=odd=1").await), 12);
    assert_eq!(count(world.get(ALICE, "/keys?label=odd=1&label=all%3Da%3Db%20c&prefix=team/k1").await), 5);
    assert_eq!(count(world.get(ALICE, "/keys?prefix=te").await), 25);
    assert_eq!(count(world.get(ALICE, "/keys?prefix=x").await), 0);
    assert_eq!(count(world.get(NOBODY, "/keys").await), 0);
    world.must(200, ALICE, "PATCH", "/keys/team/k07/-/acl", r#"{"grants":[{"principal":"user:bob","preset":"read"}]}"#).await;
    let page = world.get(BOB, "/keys?limit=1").await.json();
    assert_eq!((&page["keys"][0]["id"], &page["next"]), (&json!("team/k07"), &json!("team/k07")));
    assert_eq!(count(world.get(BOB, "/keys?limit=1&cursor=team/k07").await), 0);

    let reach = world.get(ROOT, "/reach?principal=user:bob").await.json();
    assert_eq!(reach["keys"].as_array().unwrap().len(), 1);
    assert_eq!((&reach["keys"][0]["id"], &reach["principal"]), (&json!("team/k07"), &json!("user:bob")));
    let page = world.get(ALICE, "/reach?principal=user:alice&prefix=team/&limit=20").await.json();
    assert_eq!((page["keys"].as_array().unwrap().len(), &page["next"]), (20, &json!("team/k19")));
    let rest = world.get(ALICE, "/reach?principal=user:alice&prefix=team/&limit=20&cursor=team/k19").await.json();
    assert_eq!((rest["keys"].as_array().unwrap().len(), &rest["next"]), (5, &Value::Null));
    assert_eq!(world.get(ALICE, "/reach?principal=user:bob").await.problem(), "403 denied");
}

#[tokio::test]
async fn the_server_says_who_one_is_and_how_it_is() {
    let world = World::new().await;
    world.create("team/db", "x").await;
    let me = world.get(BOB, "/whoami").await.json();
    assert_eq!(me, json!({ "identities": [{ "type": "user", "id": "bob", "groups": ["bobs"], "method": "token" }] }));
    let status = world.get(ROOT, "/status").await.json();
    assert_eq!((&status["keys"], &status["memory"], &status["uptime_seconds"]), (&json!(1), &json!("locked"), &json!(7)));
    assert_eq!((&status["audit_entries"], &status["audit_signed"]), (&json!(12), &json!(10)));
    assert_eq!(status["revision"], world.engine.revision().to_string());
    assert_eq!((&status["problems"], &status["damaged_keys"], &status["audit_state"]), (&json!([]), &json!(0), &json!("healthy")));
    world.back.broken.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(world.get(ROOT, "/status").await.json()["problems"][0]["code"], "audit_disk_full");
    let document = world.get(NO_CREDENTIAL, "/openapi.json").await.json();
    assert_eq!(document, crate::native::openapi());
}

#[tokio::test]
async fn audit_queries_reach_the_log_as_asked() {
    let world = World::new().await;
    let target = "/audit?key=team/db&principal=user:alice&action=read&outcome=denied&since=2027-01-01T01:00:00%2B01:00&before=17&limit=5";
    assert_eq!(world.get(ROOT, target).await.status, 200);
    assert_eq!(world.get(ROOT, "/audit").await.status, 200);
    let text = |t: &str| Some(t.to_owned());
    let expected = AuditQuery {
        key: text("team/db"),
        principal: text("user:alice"),
        action: text("read"),
        outcome: text("denied"),
        since: text("2027-01-01T00:00:00.000000000Z"),
        before: Some(17),
        limit: 5,
    };
    assert_eq!(*world.back.asked.lock(), [expected, AuditQuery { limit: 100, ..AuditQuery::default() }]);
    world.back.broken.store(true, Ordering::SeqCst);
    assert_eq!(world.get(ROOT, "/audit").await.problem(), "503 unavailable");
    assert_eq!(world.get(ALICE, "/audit").await.problem(), "403 denied");
    assert_eq!(world.back.asked.lock().len(), 3, "a refused query is not run");
}
