//! Changes: their effects, their conditions, their conflicts.

use super::*;
use serde_json::json;

async fn world() -> World {
    let world = World::new().await;
    world.create("team/db", "one").await;
    world
}

#[tokio::test]
async fn a_key_lives_from_creation_to_deletion() {
    let world = World::new().await;
    let body = json!({
        "id": "team/db:main", "data": base64(b"one"), "description": "the database", "labels": { "team": "payments" },
        "acl": [{ "principal": "user:bob", "preset": "read" }], "max_lifetime": 3600, "expires": "2027-01-15T08:00:10.5Z",
    });
    let created = world.must(201, ALICE, "POST", "/keys", &body.to_string()).await;
    assert_eq!(created.header("Location"), "/api/v1/keys/team/db:main");
    let key = created.json();
    assert_eq!(created.header("ETag"), format!("\"{}\"", key["etag"].as_str().unwrap()));
    assert_eq!((&key["kind"], &key["created_by"], &key["labels"]["team"]), (&json!("secret"), &json!("alice"), &json!("payments")));
    assert_eq!(key["versions"][0]["expires"], "2027-01-15T08:00:10.5Z");
    assert!(key["allowed"].as_array().unwrap().contains(&json!("admin")));
    assert_eq!(world.get(ALICE, "/keys/team/db%3Amain").await.json(), key);

    let updated = world.must(200, ALICE, "PATCH", "/keys/team/db:main", r#"{"description":"","labels":{},"max_lifetime":0}"#).await;
    assert_eq!(updated.header("ETag"), format!("\"{}\"", updated.json()["etag"].as_str().unwrap()));
    let key = world.get(BOB, "/keys/team/db:main").await.json();
    assert_eq!((&key["description"], &key["labels"], &key["max_lifetime"]), (&json!(""), &json!({}), &Value::Null));
    assert_eq!(key["etag"], updated.json()["etag"]);

    let deleted = world.must(200, ALICE, "DELETE", "/keys/team/db:main", "").await.json();
    assert_eq!(deleted.as_object().unwrap().keys().collect::<Vec<_>>(), ["revision"]);
    let gone = world.get(BOB, "/keys/team/db:main/-/data").await;
    assert_eq!(gone.problem(), "410 deleted");
    assert_eq!(gone.header("Claviger-Revision"), deleted["revision"].as_str().unwrap());
    assert_eq!(world.get(NOBODY, "/keys/team/db:main/-/data").await.problem(), "404 not_found");
}

#[tokio::test]
async fn versions_go_through_their_states() {
    let world = world().await;
    let first = world.get(ALICE, "/keys/team/db").await.json()["versions"][0]["id"].as_str().unwrap().to_owned();
    let add = |promote: bool| format!(r#"{{"data":"{}","promote":{promote}}}"#, base64(b"two"));
    let second =
        world.must(201, ALICE, "POST", "/keys/team/db/-/versions", &add(true)).await.json()["version"].as_str().unwrap().to_owned();
    let set = |id: &str, state: &str| (format!("/keys/team/db/-/versions/{id}"), format!(r#"{{"state":"{state}"}}"#));
    let steps = [
        (&second, "primary", "409 conflict"),
        (&first, "destroyed", "409 conflict"),
        (&first, "inactive", "200"),
        (&first, "primary", "409 conflict"),
        (&first, "active", "200"),
        (&first, "primary", "200"),
        (&second, "inactive", "200"),
        (&second, "destroyed", "200"),
        (&second, "active", "409 conflict"),
    ];
    for (id, state, expected) in steps {
        let (target, body) = set(id, state);
        let reply = world.call(ALICE, "PUT", &target, &[], &body).await;
        let got = if reply.status == 200 { "200".to_owned() } else { reply.problem() };
        assert_eq!(got, expected, "{state} {}", reply.text);
    }
    let (target, body) = set("12345", "inactive");
    assert_eq!(world.call(ALICE, "PUT", &target, &[], &body).await.problem(), "404 not_found");
    let states = world.get(ALICE, "/keys/team/db/-/versions").await.json();
    let states: Vec<_> = states["versions"].as_array().unwrap().iter().map(|v| v["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["primary", "destroyed"]);
    let history = world.get(ALICE, "/keys/team/db/-/history?limit=2").await.json();
    assert_eq!(history["entries"].as_array().unwrap().len(), 2);
    assert_eq!(history["entries"][0]["versions"][1]["state"], "inactive");
}

#[tokio::test]
async fn destroying_takes_admin_and_the_rest_write() {
    let world = world().await;
    let second = world.must(201, ALICE, "POST", "/keys/team/db/-/versions", r#"{"data":"eA=="}"#).await.json()["version"]
        .as_str()
        .unwrap()
        .to_owned();
    world.must(200, ALICE, "PATCH", "/keys/team/db/-/acl", r#"{"grants":[{"principal":"user:bob","preset":"write"}]}"#).await;
    let target = format!("/keys/team/db/-/versions/{second}");
    world.must(200, BOB, "PUT", &target, r#"{"state":"inactive"}"#).await;
    assert_eq!(world.call(BOB, "PUT", &target, &[], r#"{"state":"destroyed"}"#).await.problem(), "403 denied");
    for (method, target, body) in
        [("DELETE", "/keys/team/db", ""), ("PATCH", "/keys/team/db", "{}"), ("PUT", "/keys/team/db/-/acl", r#"{"grants":[]}"#)]
    {
        assert_eq!(world.call(BOB, method, target, &[], body).await.problem(), "403 denied", "{method} {target}");
    }
    assert_eq!(world.get(BOB, "/keys/team/db/-/history").await.problem(), "403 denied");
}

#[tokio::test]
async fn a_second_creation_is_a_conflict_and_foreign_prefixes_are_denied() {
    let world = world().await;
    let create = |id: &str| format!(r#"{{"id":"{id}","data":"eA=="}}"#);
    assert_eq!(world.call(ALICE, "POST", "/keys", &[], &create("team/db")).await.problem(), "409 conflict");
    assert_eq!(world.call(ALICE, "POST", "/keys", &[], &create("other/db")).await.problem(), "403 denied");
    assert_eq!(world.call(NOBODY, "POST", "/keys", &[], &create("team/db")).await.problem(), "403 denied");
}

#[tokio::test]
async fn a_change_with_an_old_etag_is_refused_and_one_with_the_present_one_is_made() {
    let world = world().await;
    let etag = || async { world.get(ALICE, "/keys/team/db").await.header("ETag").to_owned() };
    let old = etag().await;
    world.must(201, ALICE, "POST", "/keys/team/db/-/versions", r#"{"data":"eA=="}"#).await;
    let version = world.get(ALICE, "/keys/team/db").await.json()["versions"][1]["id"].as_str().unwrap().to_owned();
    let one = format!("/keys/team/db/-/versions/{version}");
    let changes = [
        ("PATCH", "/keys/team/db", r#"{"description":"x"}"#),
        ("POST", "/keys/team/db/-/versions", r#"{"data":"eQ=="}"#),
        ("PUT", one.as_str(), r#"{"state":"inactive"}"#),
        ("PUT", "/keys/team/db/-/acl", r#"{"grants":[{"principal":"user:carol","preset":"read"}]}"#),
        ("PATCH", "/keys/team/db/-/acl", r#"{"grants":[{"principal":"user:dave","preset":"read"}]}"#),
        ("DELETE", "/keys/team/db", ""),
    ];
    for (method, target, body) in changes {
        let before = world.engine.revision();
        let refused = world.call(ALICE, method, target, &[("If-Match", &old)], body).await;
        assert_eq!(refused.problem(), "412 conflict", "{method} {target}");
        assert_eq!(world.engine.revision(), before, "{method} {target}");
        let present = etag().await;
        let done = world.call(ALICE, method, target, &[("If-Match", &present)], body).await;
        assert!(done.status < 300, "{method} {target}: {}", done.text);
        assert!(world.engine.revision() > before);
    }
    // A new key of the same id is another one: its ETag has another incarnation.
    world.create("team/db", "again").await;
    assert_eq!(world.call(ALICE, "DELETE", "/keys/team/db", &[("If-Match", &old)], "").await.problem(), "412 conflict");
}

#[tokio::test]
async fn of_many_writers_with_one_etag_one_wins_and_without_it_all_do() {
    let world = world().await;
    let etag = world.get(ALICE, "/keys/team/db").await.header("ETag").to_owned();
    let add = |i: usize| {
        let headers = [("If-Match", etag.as_str())];
        let (world, body) = (&world, format!(r#"{{"data":"{}"}}"#, base64(&[i as u8])));
        async move { world.call(ALICE, "POST", "/keys/team/db/-/versions", &headers, &body).await.status }
    };
    let statuses = futures::future::join_all((0..16).map(add)).await;
    assert_eq!(statuses.iter().filter(|s| **s == 201).count(), 1);
    assert_eq!(statuses.iter().filter(|s| **s == 412).count(), 15);
    let free = |i: usize| {
        let (world, body) = (&world, format!(r#"{{"data":"{}"}}"#, base64(&[i as u8])));
        async move { world.call(ALICE, "POST", "/keys/team/db/-/versions", &[], &body).await.status }
    };
    let statuses = futures::future::join_all((0..16).map(free)).await;
    assert!(statuses.iter().all(|s| *s == 201));
    assert_eq!(world.get(ALICE, "/keys/team/db").await.json()["versions"].as_array().unwrap().len(), 18);
}

#[tokio::test]
async fn rights_are_replaced_edited_and_explained() {
    let world = world().await;
    let grants = |reply: Reply| {
        let json = reply.json();
        json["grants"].as_array().unwrap().iter().map(|g| g["principal"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let replace =
        r#"{"grants":[{"principal":"user:alice","preset":"admin"},{"principal":"user_group:bobs","capabilities":["list","read"]}]}"#;
    world.must(200, ALICE, "PUT", "/keys/team/db/-/acl", replace).await;
    assert_eq!(grants(world.get(BOB, "/keys/team/db/-/acl").await), ["user:alice", "user_group:bobs"]);
    assert_eq!(world.get(BOB, "/keys/team/db/-/data").await.status, 200);
    let edit = r#"{"grants":[{"principal":"user_group:bobs","preset":"none"},{"principal":"machine_prefix:web","preset":"read"},{"principal":"user:ghost","capabilities":[]}]}"#;
    world.must(200, ALICE, "PATCH", "/keys/team/db/-/acl", edit).await;
    assert_eq!(grants(world.get(ALICE, "/keys/team/db/-/acl").await), ["user:alice", "machine_prefix:web"]);
    assert_eq!(world.get(BOB, "/keys/team/db/-/data").await.problem(), "404 not_found");

    let why = world.get(ALICE, "/keys/team/db/-/explain?principal=machine:web1").await.json();
    assert_eq!((&why["principal"], &why["because"][0]["source"]), (&json!("machine:web1"), &json!("key")));
    assert!(why["allowed"].as_array().unwrap().contains(&json!("read")));
    let own = world.get(ALICE, "/keys/team/db/-/explain?principal=user:alice").await.json();
    assert_eq!(own["because"][1]["source"], "prefix:team/");
    let none = world.get(ALICE, "/keys/team/db/-/explain?principal=user:bob&group=bobs").await.json();
    assert_eq!((&none["allowed"], &none["because"]), (&json!([]), &json!([])));
    world.must(200, ALICE, "PATCH", "/keys/team/db/-/acl", r#"{"grants":[{"principal":"user:bob","preset":"read"}]}"#).await;
    assert_eq!(world.get(BOB, "/keys/team/db/-/explain?principal=user:bob").await.status, 200);
    assert_eq!(world.get(BOB, "/keys/team/db/-/explain?principal=user:alice").await.problem(), "403 denied");
}

#[tokio::test]
async fn where_duties_are_separate_nobody_helps_himself() {
    let world = World::new().await;
    world.must(201, ALICE, "POST", "/keys", r#"{"id":"team/hsm","data":"eA==","separate_duties":true}"#).await;
    assert_eq!(world.get(ALICE, "/keys/team/hsm/-/data").await.problem(), "403 denied");
    let himself = r#"{"grants":[{"principal":"user:alice","preset":"read"}]}"#;
    assert_eq!(world.call(ALICE, "PATCH", "/keys/team/hsm/-/acl", &[], himself).await.problem(), "403 denied");
    assert_eq!(
        world.call(ALICE, "PATCH", "/keys/team/hsm", &[], r#"{"separate_duties":false}"#).await.problem(),
        "400 invalid separate_duties"
    );
    world.must(200, ALICE, "PATCH", "/keys/team/hsm/-/acl", r#"{"grants":[{"principal":"user:bob","capabilities":["read"]}]}"#).await;
    assert_eq!(world.get(BOB, "/keys/team/hsm/-/data").await.status, 200);
}

#[tokio::test]
async fn prefix_grants_are_made_changed_and_removed_under_their_etags() {
    let world = World::new().await;
    let body = r#"{"prefix":"app:","grants":[{"principal":"user:bob","preset":"read"}],"any_user_creates":true}"#;
    assert_eq!(world.call(ALICE, "PUT", "/prefix?prefix=app:", &[], body).await.problem(), "403 denied");
    assert_eq!(world.get(ROOT, "/prefix?prefix=app:").await.problem(), "404 not_found");
    let made = world.call(ROOT, "PUT", "/prefix?prefix=app:", &[("If-Match", "\"0-0\"")], body).await;
    let etag = made.header("ETag").to_owned();
    assert!(made.status == 200 && etag.ends_with("-1\"") && etag != "\"0-1\"", "{etag}");
    let shown = world.get(ROOT, "/prefix?prefix=app:").await;
    assert_eq!((shown.header("ETag"), &shown.json()["any_user_creates"]), (etag.as_str(), &json!(true)));
    assert_eq!(world.call(ROOT, "PUT", "/prefix?prefix=app:", &[("If-Match", "\"0-0\"")], body).await.problem(), "412 conflict");
    world.must(201, NOBODY, "POST", "/keys", r#"{"id":"app:x","data":"eA=="}"#).await;
    assert_eq!(world.get(BOB, "/keys/app:x/-/data").await.status, 200);
    let list = world.get(ROOT, "/prefixes").await.json();
    let names: Vec<_> = list["prefixes"].as_array().unwrap().iter().map(|p| p["prefix"].as_str().unwrap()).collect();
    assert_eq!(names, ["", "app:", "team/"]);
    let himself =
        r#"{"prefix":"team/","grants":[{"principal":"user:alice","preset":"admin"},{"principal":"user_group:alices","preset":"read"}]}"#;
    assert_eq!(world.call(ALICE, "PUT", "/prefix?prefix=team/", &[], himself).await.problem(), "403 denied");
    assert_eq!(world.call(ROOT, "DELETE", "/prefix?prefix=app:", &[("If-Match", "\"0-7\"")], "").await.problem(), "412 conflict");
    assert_eq!(world.call(ROOT, "DELETE", "/prefix?prefix=app:", &[("If-Match", &etag)], "").await.status, 200);
    assert_eq!(world.call(ROOT, "DELETE", "/prefix?prefix=app:", &[], "").await.problem(), "404 not_found");
    assert_eq!(world.get(BOB, "/keys/app:x/-/data").await.problem(), "404 not_found");
}

#[tokio::test]
async fn the_seal_rotates_and_its_failure_is_said_and_recorded() {
    let world = World::new().await;
    assert_eq!(world.must(200, ROOT, "POST", "/seal/rotate", "").await.json()["barrier_version"], 1);
    world.back.broken.store(true, Ordering::SeqCst);
    world.records();
    assert_eq!(world.call(ROOT, "POST", "/seal/rotate", &[], "").await.problem(), "503 unavailable");
    let kept = world.records();
    assert_eq!((kept[0].action, kept[0].outcome, kept[0].reason.as_str()), ("rotate_barrier", "failed", "the root does not answer"));
}
