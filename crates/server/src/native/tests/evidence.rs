//! What is left behind: records without secrets, and answers that may not be stored.

use super::*;

const SENTINEL: &str = "SENTINEL-9f2c1";

#[tokio::test]
async fn no_secret_reaches_a_record_or_a_problem() {
    let world = World::new().await;
    let secret = base64(SENTINEL.as_bytes());
    let good = format!(r#"{{"id":"team/db","data":"{secret}"}}"#);
    let mut replies = vec![
        world.call(NOBODY, "POST", "/keys", &[], &good).await,
        world.call(NO_CREDENTIAL, "POST", "/keys", &[], &good).await,
        world.call(ALICE, "POST", "/keys", &[("Content-Type", "text/plain")], &good).await,
    ];
    world.must(201, ALICE, "POST", "/keys", &good).await;
    let bodies = [
        good.clone(),
        good.replace("team/db", "not an id"),
        good.replace('}', ",\"x\":1}"),
        good.replace('}', ""),
        format!(r#"{{"id":"team/x","data":"{SENTINEL}"}}"#),
        format!(r#"{{"id":"team/x","data":{{"{SENTINEL}":1}}}}"#),
        format!(r#"{{"id":"team/x","data":["{secret}"]}}"#),
        format!(r#"{{"id":"team/x","data":"{secret}","promote":"{SENTINEL}"}}"#),
        format!(r#"{{"id":"team/x","data":"{secret}","separate_duties":"{SENTINEL}"}}"#),
        format!(r#"{{"id":"team/x","data":"{secret}","expires":"{SENTINEL}"}}"#),
        format!(r#"{{"id":"team/x","data":"{secret}","labels":{{"a":{{"{SENTINEL}":1}}}}}}"#),
        format!("\"{secret}\""),
        secret.clone(),
    ];
    for body in &bodies {
        replies.push(world.call(ALICE, "POST", "/keys", &[], body).await);
        replies.push(world.call(ALICE, "POST", "/keys/team/db/-/versions", &[], body).await);
    }
    for reply in &replies {
        assert!(reply.status >= 400, "{}", reply.text);
        let all = reply.without_request_id();
        assert!(!all.contains(SENTINEL) && !all.contains(&secret), "{all}");
    }
    world.must(201, ALICE, "POST", "/keys/team/db/-/versions", &format!(r#"{{"data":"{secret}","promote":true}}"#)).await;
    assert!(world.get(ALICE, "/keys/team/db/-/data").await.text.contains(&secret), "the test would notice nothing");
    world.must(200, ALICE, "POST", "/read", r#"{"ids":["team/db"]}"#).await;
    world.get(ALICE, "/keys/team/db/-/history").await;
    let kept = world.records();
    assert!(kept.len() > replies.len());
    for record in kept {
        let all = &record.all;
        assert!(!all.contains(SENTINEL) && !all.contains(&secret), "{all}");
        assert!(![ROOT, ALICE, BOB, NOBODY].iter().any(|token| all.contains(token)), "{all}");
    }
}

#[tokio::test]
async fn names_that_a_client_made_up_are_not_written_down() {
    let world = World::new().await;
    world.records();
    let reply = world.get(ALICE, &format!("/keys?{SENTINEL}=1")).await;
    assert_eq!(reply.problem(), format!("400 invalid {SENTINEL}"));
    assert!(!world.records()[0].all.contains(SENTINEL));
}

#[tokio::test]
async fn a_wrong_token_is_not_repeated() {
    let world = World::new().await;
    world.records();
    let reply = world.get(SENTINEL, "/whoami").await;
    assert_eq!(reply.problem(), "401 unauthenticated");
    assert!(!reply.text.contains(SENTINEL) && !world.records()[0].all.contains(SENTINEL));
}

#[tokio::test]
async fn each_request_has_an_id_of_its_own_that_the_record_has_too() {
    let world = World::new().await;
    world.records();
    let first = world.get(ALICE, "/whoami").await;
    let second = world.get(ALICE, "/keys/team/x").await;
    let kept = world.records();
    assert_eq!(kept[0].request, first.header("Claviger-Request-Id"));
    assert_eq!(kept[1].request, second.header("Claviger-Request-Id"));
    assert_ne!(kept[0].request, kept[1].request);
}
