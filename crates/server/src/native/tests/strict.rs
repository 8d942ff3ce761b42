//! What is malformed gets an error that names the part and changes nothing.

use super::*;

async fn world() -> World {
    let world = World::new().await;
    world.create("team/db", "s3cret").await;
    world.records();
    world
}

#[tokio::test]
async fn malformed_requests_name_the_part_and_change_nothing() {
    let world = world().await;
    let x = base64(b"x");
    let create = |rest: &str| format!(r#"{{"id":"team/new","data":"{x}"{rest}}}"#);
    let long_id = format!(r#"{{"id":"{}","data":"{x}"}}"#, "a".repeat(513));
    let ids = |n: usize| format!(r#"{{"ids":[{}]}}"#, (0..n).map(|i| format!("\"k{i}\"")).collect::<Vec<_>>().join(","));
    let table: Vec<(&str, String, String, &str)> = [
        // Paths.
        ("GET", "/keys//a", "", "path"),
        ("GET", "/keys/a/../b", "", "path"),
        ("GET", "/keys/a/%2e%2e/b", "", "path"),
        ("GET", "/keys/a%2fb", "", "path"),
        ("GET", "/keys/a%00", "", "path"),
        ("GET", "/keys/a%4", "", "path"),
        ("GET", "/keys/", "", "path"),
        ("GET", "/keys/a/-", "", "id"),
        ("GET", "/keys/-/data", "", "id"),
        ("GET", "/keys/a%20b", "", "id"),
        ("GET", "/keys/%C3%A9", "", "id"),
        ("DELETE", "/keys/a\\b", "", "id"),
        // Parameters.
        ("GET", "/keys?x=1", "", "x"),
        ("GET", "/keys?limit=1&limit=2", "", "limit"),
        ("GET", "/keys?limit=0", "", "limit"),
        ("GET", "/keys?limit=1001", "", "limit"),
        ("GET", "/keys?limit=%2B1", "", "limit"),
        ("GET", "/keys?cursor=%20", "", "cursor"),
        ("GET", "/keys?label=team", "", "label"),
        ("GET", "/keys?prefix=a%0a", "", "prefix"),
        ("GET", "/keys?prefix", "", "prefix"),
        ("GET", "/whoami?a=b", "", "a"),
        ("GET", "/keys/team/db/-/data?version=0", "", "version"),
        ("GET", "/keys/team/db/-/data?version=9223372036854775808", "", "version"),
        ("GET", "/keys/team/db/-/data?version=01", "", "version"),
        ("GET", "/keys/team/db/-/data?version=1&state=all", "", "version"),
        ("GET", "/keys/team/db/-/data?state=inactive", "", "state"),
        ("GET", "/keys/team/db/-/explain", "", "principal"),
        ("GET", "/keys/team/db/-/explain?principal=alice", "", "principal"),
        ("GET", "/keys/team/db/-/explain?principal=user_group:ops", "", "principal"),
        ("GET", "/keys/team/db/-/explain?principal=machine:m&group=ops", "", "group"),
        ("GET", "/keys/team/db/-/history?limit=65", "", "limit"),
        ("GET", "/prefix", "", "prefix"),
        ("GET", "/prefix?prefix=team", "", "prefix"),
        ("GET", "/reach?principal=user:a&prefix=team", "", "prefix"),
        ("GET", "/watch", "", "id"),
        ("GET", "/watch?id=a%20b", "", "id"),
        ("GET", "/watch?prefix=team", "", "prefix"),
        ("GET", "/watch?id=a&heartbeat=0", "", "heartbeat"),
        ("GET", "/watch?id=a&heartbeat=301", "", "heartbeat"),
        ("GET", "/watch?id=a&since=7", "", "since"),
        ("GET", "/audit?outcome=good", "", "outcome"),
        ("GET", "/audit?since=yesterday", "", "since"),
        ("GET", "/audit?before=-1", "", "before"),
        ("GET", "/audit?principal=alice", "", "principal"),
        // Bodies.
        ("POST", "/keys", "{", "body"),
        ("POST", "/keys", "[]", "body"),
        ("POST", "/keys", &create(",\"x\":1"), "x"),
        ("POST", "/keys", &create(",\"id\":\"b\""), "id"),
        ("POST", "/keys", r#"{"id":"team/new"}"#, "data"),
        ("POST", "/keys", r#"{"id":"team/new","data":""}"#, "data"),
        ("POST", "/keys", r#"{"id":"team/new","data":"eA"}"#, "data"),
        ("POST", "/keys", r#"{"id":"team/new","data":"eA==\n"}"#, "data"),
        ("POST", "/keys", r#"{"id":"team/new","data":"_w=="}"#, "data"),
        ("POST", "/keys", r#"{"id":"team/new","data":1}"#, "data"),
        ("POST", "/keys", &format!(r#"{{"id":"team/../b","data":"{x}"}}"#), "id"),
        ("POST", "/keys", &format!(r#"{{"id":"","data":"{x}"}}"#), "id"),
        ("POST", "/keys", &format!(r#"{{"id":"team/\u0000","data":"{x}"}}"#), "id"),
        ("POST", "/keys", &long_id, "id"),
        ("POST", "/keys", &create(",\"description\":\"a\\u0000b\""), "description"),
        ("POST", "/keys", &create(",\"labels\":{\"A\":\"1\"}"), "labels"),
        ("POST", "/keys", &create(",\"labels\":{\"a\":\"1\",\"a\":\"2\"}"), "labels"),
        ("POST", "/keys", &create(",\"max_lifetime\":0"), "max_lifetime"),
        ("POST", "/keys", &create(",\"max_lifetime\":4294967296"), "max_lifetime"),
        ("POST", "/keys", &create(",\"expires\":\"soon\""), "expires"),
        ("POST", "/keys", &create(",\"expires\":\"2020-01-01T00:00:00Z\""), "expires"),
        ("POST", "/keys", &create(",\"acl\":[{\"principal\":\"alice\",\"preset\":\"read\"}]"), "acl[0].principal"),
        ("POST", "/keys", &create(",\"acl\":[{\"principal\":\"user:a\"}]"), "acl[0]"),
        ("POST", "/keys", &create(",\"acl\":[{\"principal\":\"user:a\",\"preset\":\"none\"}]"), "acl"),
        ("POST", "/keys/team/db/-/versions", r#"{"data":"eA==","promote":"yes"}"#, "promote"),
        ("PUT", "/keys/team/db/-/versions/abc", r#"{"state":"primary"}"#, "version"),
        ("PUT", "/keys/team/db/-/versions/1", r#"{"state":"Primary"}"#, "state"),
        ("PATCH", "/keys/team/db", r#"{"descriptio":"x"}"#, "descriptio"),
        ("PATCH", "/keys/team/db", r#"{"labels":{"a":"1","a":"2"}}"#, "labels"),
        (
            "PUT",
            "/keys/team/db/-/acl",
            r#"{"grants":[{"principal":"user:a","preset":"read"},{"principal":"user:a","preset":"read"}]}"#,
            "grants",
        ),
        (
            "PATCH",
            "/keys/team/db/-/acl",
            r#"{"grants":[{"principal":"user:a","preset":"read"},{"principal":"user:a","preset":"none"}]}"#,
            "grants[1].principal",
        ),
        ("PATCH", "/keys/team/db/-/acl", r#"{"grants":[{"principal":"user:a","capabilities":["fly"]}]}"#, "grants[0].capabilities"),
        ("PUT", "/prefix?prefix=team/", r#"{"prefix":"other/","grants":[]}"#, "prefix"),
        ("POST", "/read", r#"{"ids":[]}"#, "ids"),
        ("POST", "/read", r#"{"ids":["a","b c"]}"#, "ids[1]"),
        ("POST", "/read", r#"{"ids":["a","a"]}"#, "ids[1]"),
        ("POST", "/read", &ids(1001), "ids"),
    ]
    .into_iter()
    .map(|(method, target, body, field)| (method, target.to_owned(), body.to_owned(), field))
    .collect();
    let before = world.engine.revision();
    for (method, target, body, field) in &table {
        let reply = world.call(ALICE, method, target, &[], body).await;
        assert_eq!(reply.problem(), format!("400 invalid {field}"), "{method} {target} {body}");
        let kept = world.records();
        assert_eq!(kept.len(), 1, "{method} {target}");
        assert_eq!((kept[0].outcome, kept[0].who.as_deref()), ("invalid", Some("alice")), "{method} {target}");
    }
    assert_eq!(world.engine.revision(), before, "something was changed");
}

#[tokio::test]
async fn malformed_headers_and_bodies_are_refused() {
    let world = world().await;
    let version = format!(r#"{{"data":"{}"}}"#, base64(b"x"));
    let json = ("Content-Type", "application/json");
    type Row<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, &'a str, &'a str);
    let table: [Row<'_>; 12] = [
        ("POST", "/keys/team/db/-/versions", vec![], &version, "content-type"),
        ("POST", "/keys/team/db/-/versions", vec![("Content-Type", "text/plain")], &version, "content-type"),
        ("POST", "/keys/team/db/-/versions", vec![json, json], &version, "content-type"),
        ("POST", "/keys/team/db/-/versions", vec![json, ("Content-Encoding", "gzip")], &version, "content-encoding"),
        ("DELETE", "/keys/team/db", vec![("If-Match", "*")], "", "if-match"),
        ("DELETE", "/keys/team/db", vec![("If-Match", "0-1")], "", "if-match"),
        ("DELETE", "/keys/team/db", vec![("If-Match", "\"0-1\""), ("If-Match", "\"0-1\"")], "", "if-match"),
        ("DELETE", "/keys/team/db", vec![("If-None-Match", "*")], "", "if-none-match"),
        ("GET", "/keys/team/db", vec![("If-Match", "\"0-1\"")], "", "if-match"),
        ("POST", "/keys", vec![json, ("If-Match", "\"0-1\"")], &version, "if-match"),
        ("GET", "/keys/team/db", vec![("Claviger-Min-Revision", "7")], "", "claviger-min-revision"),
        ("POST", "/keys/team/db/-/versions", vec![json], "", "body"),
    ];
    let before = world.engine.revision();
    for (method, target, headers, body, field) in &table {
        let reply = Reply::of(world.send(ALICE, method, target, headers, body.as_bytes()).await);
        assert_eq!(reply.problem(), format!("400 invalid {field}"), "{method} {target} {headers:?}");
    }
    let not_utf8 = Reply::of(world.send(ALICE, "POST", "/keys/team/db/-/versions", &[json], b"{\"data\":\"\xff\"}").await);
    assert_eq!(not_utf8.problem(), "400 invalid body");
    assert_eq!(world.get(NO_CREDENTIAL, "/openapi.json?a=b").await.problem(), "400 invalid a");
    let unwanted = world.call(ALICE, "GET", "/keys/team/db", &[], "{}").await;
    assert_eq!(unwanted.problem(), "413 too_large body");
    assert_eq!(world.engine.revision(), before);
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let world = world().await;
    let longest = base64(&vec![7; 64 << 10]);
    world.must(201, ALICE, "POST", "/keys", &format!(r#"{{"id":"team/big","data":"{longest}"}}"#)).await;
    let longer = base64(&vec![7; (64 << 10) + 1]);
    let reply = world.call(ALICE, "POST", "/keys", &[], &format!(r#"{{"id":"team/bigger","data":"{longer}"}}"#)).await;
    assert_eq!(reply.problem(), "400 invalid data");
    let huge = "x".repeat(4 << 20);
    for (method, target) in [("POST", "/keys"), ("POST", "/read"), ("PATCH", "/keys/team/db/-/acl"), ("DELETE", "/keys/team/db")] {
        assert_eq!(world.call(ALICE, method, target, &[], &huge).await.problem(), "413 too_large body", "{method} {target}");
    }
    assert_eq!(world.call(NO_CREDENTIAL, "POST", "/keys", &[], &huge).await.problem(), "401 unauthenticated");
}

#[tokio::test(start_paused = true)]
async fn a_demanded_revision_is_waited_for_and_not_for_ever() {
    let world = world().await;
    let now = world.engine.revision();
    let seen = world.call(ALICE, "GET", "/keys/team/db", &[("Claviger-Min-Revision", &now.to_string())], "").await;
    assert_eq!(seen.status, 200);
    world.records();
    let begun = tokio::time::Instant::now();
    let late = claviger_domain::Revision { number: 999, ..now }.to_string();
    let late = world.call(ALICE, "GET", "/keys/team/db", &[("Claviger-Min-Revision", &late)], "").await;
    assert_eq!(late.problem(), "503 unavailable");
    assert!(!late.header("Retry-After").is_empty());
    assert_eq!(begun.elapsed().as_secs(), 2);
    assert_eq!(world.records()[0].outcome, "failed");
    let next = now.next().to_string();
    let awaited = [("Claviger-Min-Revision", next.as_str())];
    let (read, _) = tokio::join!(world.call(ALICE, "GET", "/keys/team/db", &awaited, ""), async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        world.must(200, ALICE, "PATCH", "/keys/team/db", r#"{"description":"d"}"#).await
    });
    assert_eq!(read.json()["description"], "d");
}
