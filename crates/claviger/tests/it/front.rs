//! What the front promises before anybody is proven: limits that reach only who earned them, and one surface per path.

use super::{server, server_with};

#[test]
fn a_probe_without_a_credential_does_not_lock_out_who_has_one() {
    let server = server();
    let admin = server.admin();
    let mut probe = server.client().unwrap();
    for _ in 0..25 {
        assert_eq!(probe.knox("GET", "/v0/keys/", "", &[]).unwrap().status, 401);
        assert!(matches!(probe.request("GET", "/api/v1/whoami", &[], b"").unwrap().status, 401 | 429));
    }
    assert_eq!(server.client().unwrap().knox("GET", "/v0/keys/", &admin, &[]).unwrap().status, 200);
    let bearer = server.bearer();
    assert_eq!(server.client().unwrap().request("GET", "/api/v1/whoami", &[("Authorization", &bearer)], b"").unwrap().status, 200);
}

#[test]
fn a_path_that_leads_out_of_the_native_api_is_redirected_whoever_asks() {
    let server = server();
    let admin = server.admin();
    for target in ["/api/../v0/keys/", "/api/%2e%2e/v0/keys/", "/api/v1/..//../v0/keys/"] {
        let answer = server.client().unwrap().knox("GET", target, &admin, &[]).unwrap();
        assert_eq!((answer.status, answer.header("location")), (301, Some("/v0/keys/")), "{target}");
    }
}

#[test]
fn large_bodies_are_answered_in_order_and_read_only_of_who_is_proven() {
    let server = server_with("[auth]\nfailures_burst = 1000\n");
    let admin = server.admin();
    let head = |credential: &str, length: usize| {
        let kind = "Content-Type: application/x-www-form-urlencoded";
        format!("POST /v0/keys/ HTTP/1.1\r\nHost: a\r\nAuthorization: {credential}\r\n{kind}\r\nContent-Length: {length}\r\n\r\n")
    };
    // A credential that proves nobody is refused as such, whatever follows, and before it has come.
    let mut client = server.client().unwrap();
    client.send(head("0uwrong", 10_485_760).as_bytes()).unwrap();
    let answer = client.answer(false).unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_i64()), (401, Some(5)));
    // A little more than is read of such keeps the connection.
    let mut client = server.client().unwrap();
    for _ in 0..2 {
        client.send(head("0uwrong", 20_000).as_bytes()).unwrap();
        client.send(&[b'x'; 20_000]).unwrap();
        assert_eq!(client.answer(false).unwrap().json()["message"], "auth: unknown token");
    }
    // Who is proven is read, from his first request on.
    let mut client = server.client().unwrap();
    let body = format!("id=large&data={}", "YWJj".repeat(50_000));
    client.send(head(&admin, body.len()).as_bytes()).unwrap();
    client.send(body.as_bytes()).unwrap();
    assert_eq!(client.answer(false).unwrap().status, 200);
}

#[test]
fn bare_answers_of_knox_do_not_fill_the_log() {
    let server = server();
    let mut stranger = server.client().unwrap();
    for (method, target, status) in [("PATCH", "/v0/keys/", 405), ("GET", "/v0//x", 301)].repeat(100) {
        assert_eq!(stranger.knox(method, target, "", &[]).unwrap().status, status);
    }
    let kept = super::records::records(&server).iter().filter(|record| record["action"] == "request").count();
    assert!((1..100).contains(&kept), "{kept} of 200 were written down");
}
