//! The traps of the contract (§1, §2, §4.1), which would pass every other test: each has one of its own.

use super::{create, server, verdict};
use claviger_testkit::{Answer, TestServer};
use std::fmt::Write as _;

/// Knox's largest body that is still read, in bytes.
const MOST: usize = 10_485_760;

/// Trap 1 (§1): the Go client writes the quotes of a status filter into the request line as they are.
#[test]
fn raw_quotes_in_the_request_line_are_read() {
    let server = server("");
    let first = create(&server, "k", "YQ==", "[]");
    let mut client = server.client().unwrap();
    for status in ["Primary", "Active", "Inactive"] {
        client
            .send(format!("GET /v0/keys/k/?status=\"{status}\" HTTP/1.1\r\nHost: knox\r\nAuthorization: 0ualice-token\r\n\r\n").as_bytes())
            .unwrap();
        let answer = client.answer(false).unwrap();
        assert_eq!(verdict(&answer), (200, 0), "{}", answer.text());
        assert_eq!(answer.json()["data"]["versions"][0]["id"].to_string(), first);
    }
}

/// The request line of a poll of `count` keys with hashes of 64 digits, as the contract measured it.
fn poll(count: usize) -> String {
    let mut target = String::from("/v0/keys/?");
    for n in 0..count {
        write!(target, "{}k{n:08}={}", if n == 0 { "" } else { "&" }, "0".repeat(64)).unwrap();
    }
    target
}

fn ask_poll(server: &TestServer, count: usize) -> (usize, Answer) {
    let target = poll(count);
    let answer = server.client().unwrap().knox("GET", &target, "0ualice-token", &[]).unwrap();
    (target.len(), answer)
}

/// Trap 2 (§1, §4.1): a poll of 14,000 keys is a megabyte of request line.
#[test]
fn a_poll_of_fourteen_thousand_keys_is_answered() {
    let server = server("");
    create(&server, "k00000000", "YQ==", "[]");
    create(&server, "k00013999", "YQ==", "[]");
    create(&server, "k00014000", "YQ==", "[]");
    let (length, answer) = ask_poll(&server, 14_000);
    assert!(length > 1_000_000, "{length}");
    assert_eq!(verdict(&answer), (200, 0), "{}", answer.text());
    let mut ids: Vec<String> = answer.json()["data"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    ids.sort();
    assert_eq!(ids, ["k00000000", "k00013999"], "all that differ and were asked for, and no other");
}

/// Polls between the sizes at which common HTTP stacks give up (§1: 65,534 bytes of URI, 417 KB of head) pass.
#[test]
fn polls_of_every_size_below_the_limit_are_answered() {
    let server = server("");
    create(&server, "k00000000", "YQ==", "[]");
    for count in [1, 800, 900, 5_700, 10_001] {
        let (_, answer) = ask_poll(&server, count);
        assert_eq!(answer.json()["data"], serde_json::json!(["k00000000"]), "{count}: {}", answer.text());
    }
}

/// §4.1: 20,000 keys are too much, and the answer is a plain 431 that closes the connection.
#[test]
fn a_poll_of_twenty_thousand_keys_gets_a_plain_431() {
    let server = server("");
    let (length, answer) = ask_poll(&server, 20_000);
    assert!(length > 1_450_000, "{length}");
    assert_eq!(answer.status, 431);
    assert!(answer.header("content-type").unwrap_or_default().starts_with("text/plain"), "{:?}", answer.headers);
    assert!(!answer.text().starts_with('{'), "{}", answer.text());
    assert_eq!(verdict(&server.client().unwrap().knox("GET", "/v0/keys/", "0ualice-token", &[]).unwrap()), (200, 0));
}

/// §1: a client certificate is asked for, never required and never judged in the handshake: what is wrong with it is
/// told in JSON.
#[test]
fn bad_client_certificates_get_a_json_401_and_no_alert() {
    let server = server("");
    for (certificate, authorization) in [
        ("none", ""),
        ("none", "0thost1.x.com"),
        ("foreign", ""),
        ("foreign", "0thost1.x.com"),
        ("expired", "0thost1.x.com"),
        ("server-usage", "0sx"),
        ("foreign-service", "0sx"),
    ] {
        let answer = super::connect(&server, certificate).knox("GET", "/v0/keys/", authorization, &[]).unwrap();
        assert_eq!(verdict(&answer), (401, 5), "{certificate} {authorization}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

/// A create request whose body has exactly `length` bytes: a field that no route declares fills it up.
fn body_of(length: usize, id: &str) -> Vec<u8> {
    let mut body = format!("id={id}&data=YQ==&filler=").into_bytes();
    body.resize(length, b'x');
    body
}

fn send_body(server: &TestServer, body: &[u8]) -> Answer {
    let headers = [("Authorization", "0ualice-token"), ("Content-Type", "application/x-www-form-urlencoded")];
    server.client().unwrap().request("POST", "/v0/keys/", &headers, body).unwrap()
}

/// §1: exactly 10,485,760 bytes pass; one more and the first declared field is missing.
#[test]
fn a_body_of_ten_mebibytes_passes_and_one_byte_more_does_not() {
    let server = server("");
    let answer = send_body(&server, &body_of(MOST, "full"));
    assert_eq!(verdict(&answer), (200, 0), "{}", answer.text());
    let answer = send_body(&server, &body_of(MOST + 1, "over"));
    assert_eq!((verdict(&answer), &answer.json()["message"]), ((400, 9), &"Missing parameter 'id'".into()));
    let read = server.client().unwrap().knox("GET", "/v0/keys/over/", "0ualice-token", &[]).unwrap();
    assert_eq!(verdict(&read), (404, 4));
}

/// §1: a body that is a little too long leaves the connection usable; one that is much too long closes it.
#[test]
fn only_a_body_that_is_much_too_long_closes_the_connection() {
    let server = server("");
    let small = send_body(&server, &body_of(MOST + 2048, "over"));
    assert_eq!((verdict(&small), small.header("connection")), ((400, 9), None));
    let head = format!(
        "POST /v0/keys/ HTTP/1.1\r\nHost: knox\r\nAuthorization: 0ualice-token\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
        MOST + (1 << 20)
    );
    let mut client = server.client().unwrap();
    client.send(head.as_bytes()).unwrap();
    // The server may stop reading before all is sent; what counts is its answer.
    let _ = client.send(&body_of(MOST + (1 << 20), "over"));
    let large = client.answer(false).unwrap();
    assert_eq!((verdict(&large), large.header("connection")), ((400, 9), Some("close")));
}

/// §5, §10: clients try what they have in turn, so a token that has expired comes before each use of a good certificate. The
/// limit on failures, here as a site has it, stops the guesses and not the machine.
#[test]
fn a_stale_token_before_a_good_certificate_locks_no_machine_out() {
    let server = crate::server_with("[auth]\nfailures_burst = 3\n");
    let mut one = server.machine().unwrap();
    for _ in 0..12 {
        let mut fresh = server.machine().unwrap();
        for client in [&mut one, &mut fresh] {
            assert_eq!(verdict(&client.knox("GET", "/v0/keys/?k=", "0ustale", &[]).unwrap()), (401, 5));
            let answer = client.knox("GET", "/v0/keys/?k=", "0tdev-machine", &[]).unwrap();
            assert_eq!(verdict(&answer), (200, 0), "{}", answer.text());
        }
    }
}

/// §1: a form whose length is not said ahead, as Go's client sends a body that it streams.
#[test]
fn a_chunked_form_is_read() {
    let server = server("");
    let mut client = server.client().unwrap();
    let head = "POST /v0/keys/ HTTP/1.1\r\nHost: knox\r\nAuthorization: 0ualice-token\r\nAccept-Encoding: gzip\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}b\r\nid=k&data=Y\r\n3\r\nQ==\r\n0\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(verdict(&client.answer(false).unwrap()), (200, 0));
    // An empty one is a request without fields, and leaves the connection usable.
    client.send(format!("{head}0\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(verdict(&client.answer(false).unwrap()), (400, 9));
    let read = client.knox("GET", "/v0/keys/k/", "0ualice-token", &[]).unwrap();
    assert_eq!((verdict(&read), read.header("content-encoding")), ((200, 0), None));
}

/// §3 and §14 keep 2: ids of versions are JSON numbers beyond 2^53 and at most 2^63-1, in the digits of an integer.
#[test]
fn version_ids_are_whole_numbers_that_floats_cannot_hold() {
    let server = server("");
    let ids: Vec<u64> = (0..20).map(|n| create(&server, &format!("k{n}"), "YQ==", "[]").parse().unwrap()).collect();
    assert!(ids.iter().all(|id| i64::try_from(*id).is_ok()), "{ids:?}");
    assert!(ids.iter().any(|id| *id > 1 << 53), "{ids:?}");
}

/// With `[keys] max_value` at Knox's size, a value that nearly fills the largest body is kept and read back whole.
#[test]
fn a_value_that_fills_the_largest_body_is_kept() {
    let server = server("[keys]\nmax_value = 10485760\n");
    let head = b"id=big&data=".to_vec();
    // Base64 of zero bytes is all `A`, which a form does not encode.
    let digits = (MOST - head.len()) / 4 * 4;
    let body = [head, vec![b'A'; digits]].concat();
    let answer = send_body(&server, &body);
    assert_eq!(verdict(&answer), (200, 0), "{}", answer.text());
    let read = server.client().unwrap().knox("GET", "/v0/keys/big/", "0ualice-token", &[]).unwrap();
    assert_eq!(read.json()["data"]["versions"][0]["data"].as_str().unwrap().len(), digits);
}

/// The default limit is lower, and says so with the code for bad data.
#[test]
fn a_value_above_the_configured_limit_is_refused() {
    let server = server("[keys]\nmax_value = 8\n");
    let mut client = server.client().unwrap();
    let ask = |client: &mut claviger_testkit::Client, data: &str| {
        client.knox("POST", "/v0/keys/", "0ualice-token", &[("id", "k"), ("data", data)]).unwrap()
    };
    assert_eq!(verdict(&ask(&mut client, "MTIzNDU2Nzg5")), (400, 11));
    assert_eq!(verdict(&ask(&mut client, "MTIzNDU2Nzg=")), (200, 0));
}
