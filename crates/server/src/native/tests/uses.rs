//! Keys that are used, over HTTP: what a request may hold, and that each item ends on its own.

use super::*;
use serde_json::json;

/// A plaintext that must show up nowhere but in its own answer.
const SECRET: &str = "SENTINEL-hunter2";

async fn world() -> World {
    let world = World::new().await;
    for (id, kind) in [("aes", "aes256-gcm"), ("mac", "hmac"), ("p256", "ecdsa-p256"), ("ed", "ed25519")] {
        world.must(201, ALICE, "POST", "/keys", &json!({ "id": format!("team/{id}"), "kind": kind }).to_string()).await;
    }
    world.records();
    world
}

async fn sealed(world: &World) -> String {
    let body = json!({ "items": [{ "plaintext": base64(SECRET.as_bytes()), "aad": base64(b"row") }] });
    let made = world.must(200, ALICE, "POST", "/keys/team/aes/-/encrypt", &body.to_string()).await.json();
    made["items"][0]["ciphertext"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_request_has_one_to_a_thousand_items_and_each_says_what_it_is() {
    let world = world().await;
    let many = |n: usize| json!({ "items": vec![json!({ "message": "eA==" }); n] });
    for (path, body, problem) in [
        ("mac/-/hmac", many(0), "400 invalid items"),
        ("mac/-/hmac", many(1001), "400 invalid items"),
        ("ed/-/sign", json!({ "items": [{}] }), "400 invalid items[0]"),
        ("ed/-/sign", json!({ "items": [{ "message": "eA==" }, { "message": "eA==", "digest": "eA==" }] }), "400 invalid items[1]"),
        ("ed/-/sign", json!({ "items": [{ "message": "no base64" }] }), "400 invalid items[0].message"),
        ("ed/-/sign", json!({ "items": [{ "message": "eA==" }], "padding": "none" }), "400 invalid padding"),
        ("p256/-/sign", json!({ "items": [{ "message": "eA==" }], "hash": "sha-1" }), "400 invalid hash"),
        ("p256/-/sign", json!({ "items": [{ "digest": base64(&[7; 20]) }] }), "400 invalid digest"),
        ("p256/-/sign", json!({ "items": [{ "message": "eA==" }], "form": "ber" }), "400 invalid form"),
        ("aes/-/data-key", json!({ "items": [{ "bytes": 65_535 }] }), "400 invalid items[0].bytes"),
        ("aes/-/decrypt", json!({ "items": [{ "ciphertext": "eA==", "version": "0" }] }), "400 invalid items[0].version"),
        ("aes/-/sign", json!({ "items": [{ "message": "eA==" }] }), "400 invalid kind"),
    ] {
        let reply = world.call(ALICE, "POST", &format!("/keys/team/{path}"), &[], &body.to_string()).await;
        assert_eq!(reply.problem(), problem, "{path} {body}");
        assert_eq!(world.records().len(), 1, "{path} {body}");
    }
    let reply = world.must(200, ALICE, "POST", "/keys/team/mac/-/hmac", &many(1000).to_string()).await;
    assert_eq!(reply.json()["items"].as_array().unwrap().len(), 1000);
    assert_eq!(world.records().len(), 1);
}

#[tokio::test]
async fn an_item_that_is_refused_harms_no_other_and_no_record_has_a_byte_of_any() {
    let world = world().await;
    let sealed = sealed(&world).await;
    let item = |ciphertext: &str, aad: &[u8]| json!({ "ciphertext": ciphertext, "aad": base64(aad) });
    // A plaintext that is sent by mistake is one of them.
    let items = [item(&sealed, b"row"), item(&base64(SECRET.as_bytes()), b"row"), item(&sealed, b"other"), item(&sealed[..40], b"row")];
    let reply = world.must(200, ALICE, "POST", "/keys/team/aes/-/decrypt", &json!({ "items": items }).to_string()).await;
    assert_eq!(reply.header("Cache-Control"), "no-store");
    let answers = reply.json()["items"].as_array().unwrap().clone();
    assert_eq!(answers[0]["plaintext"], base64(SECRET.as_bytes()));
    for (answer, why) in answers[1..].iter().zip(["no ciphertext", "does not authenticate", "too short"]) {
        assert!(answer["error"]["detail"].as_str().unwrap().contains(why), "{answer}");
        assert_eq!((&answer["error"]["code"], answer.get("plaintext")), (&"invalid".into(), None));
    }
    for wrong in &items[1..] {
        let one = json!({ "items": [wrong] }).to_string();
        let reply = world.call(ALICE, "POST", "/keys/team/aes/-/decrypt", &[], &one).await;
        assert_eq!(reply.problem(), "400 invalid ciphertext");
        assert!(!reply.text.contains("SENTINEL"), "{}", reply.text);
    }
    let records = world.records();
    assert_eq!(records.len(), 5, "one for each request");
    for record in records {
        let is_clean = [SECRET, &base64(SECRET.as_bytes()), &sealed[..40]].iter().all(|part| !record.all.contains(part));
        assert!(is_clean, "{}", record.all);
        // Not even a number that stands for a byte of it.
        assert!(!record.reason.contains(&SECRET.as_bytes()[0].to_string()), "{}", record.reason);
    }
}

#[tokio::test]
async fn a_right_below_a_prefix_uses_what_is_below_it_and_nothing_else() {
    let world = world().await;
    let sealed = sealed(&world).await;
    let ask =
        async |use_: &str, key: &str, body: Value| world.call(BOB, "POST", &format!("/keys/{key}/-/{use_}"), &[], &body.to_string()).await;
    let encrypt = json!({ "items": [{ "plaintext": "eA==" }] });
    let decrypt = json!({ "items": [{ "ciphertext": sealed, "aad": base64(b"row") }] });
    let missing = ask("encrypt", "team/none", encrypt.clone()).await;
    assert_eq!(ask("encrypt", "team/aes", encrypt.clone()).await.problem(), missing.problem(), "a stranger is told nothing");

    let grant =
        json!({ "prefix": "team/", "grants": [{ "principal": "user:bob", "capabilities": ["encrypt"] }], "any_user_creates": false });
    world.must(200, ROOT, "PUT", "/prefix?prefix=team/", &grant.to_string()).await;
    assert_eq!(ask("encrypt", "team/aes", encrypt.clone()).await.status, 200);
    assert_eq!(ask("decrypt", "team/aes", decrypt.clone()).await.problem(), "403 denied");
    assert_eq!(ask("rewrap", "team/aes", decrypt).await.status, 200);
    assert_eq!(ask("hmac", "team/mac", json!({ "items": [{ "message": "eA==" }] })).await.problem(), "403 denied");
    assert_eq!(ask("export", "team/aes", Value::Null).await.status, 413, "no body is taken");
    assert_eq!(world.call(BOB, "POST", "/keys/team/aes/-/export", &[], "").await.problem(), "403 denied");
}
