//! The client against a server with canned answers, over real TLS.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod canned;

use canned::{Canned, Reply, problem};
use claviger_client::{Client, Config, Credentials, Error, Event, Renew, Settings, WatchRequest, Which};
use claviger_domain::{KeyId, SecretBytes, VersionId};
use claviger_wire::native::CreateKey;
use std::time::Duration;

fn config(server: &Canned, change: impl FnOnce(&mut Settings)) -> Config {
    let mut settings = Settings { addr: Some(server.url.clone()), ca: Some(server.file("ca.pem")), ..Settings::default() };
    settings.token = Some("t0ken".to_owned().into());
    change(&mut settings);
    settings.resolve().unwrap()
}

fn client(server: &Canned) -> Client {
    Client::new(config(server, |_| ())).unwrap()
}

fn id(text: &str) -> KeyId {
    KeyId::parse(text).unwrap()
}

/// A session that is renewed once, or not at all.
struct Once {
    token: std::sync::Mutex<&'static str>,
    can: bool,
}

impl Renew for Once {
    fn token(&self) -> zeroize::Zeroizing<String> {
        self.token.lock().unwrap().to_string().into()
    }

    fn renew<'a>(&'a self, refused: &'a str) -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        assert_eq!(refused, "old");
        *self.token.lock().unwrap() = if self.can { "new" } else { "old" };
        let renewed = if self.can { Ok(()) } else { Err("the provider refused".to_owned()) };
        Box::pin(std::future::ready(renewed))
    }
}

#[tokio::test]
async fn a_session_that_is_over_is_renewed_for_requests_and_streams_and_told_when_it_cannot_be() {
    let server = Canned::start(|r, _| match (r.head.contains("Authorization: Bearer new\r\n"), r.line.contains("/watch")) {
        (false, _) => problem(401, "unauthenticated", "there is no such session"),
        (true, false) => Reply::Json(200, DATA.to_owned()),
        (true, true) => {
            let frame = "id: 1.9\nevent: ready\ndata: {\"revision\":\"1.9\"}\n\n";
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
            Reply::Raw(vec![head, format!("{:x}\r\n{frame}\r\n", frame.len())])
        }
    });
    let client = |can| {
        let mut config = config(&server, |settings| settings.token = None);
        config.credentials = Credentials::Session(std::sync::Arc::new(Once { token: std::sync::Mutex::new("old"), can }));
        Client::new(config).unwrap()
    };
    client(true).read(&id("db/pw"), &Which::Live, None).await.unwrap();
    assert_eq!(server.requests().len(), 2, "refused, then with the new token");
    let mut watch = client(true).watch(WatchRequest { ids: vec![id("db/pw")], ..WatchRequest::default() });
    assert!(matches!(watch.next().await, Event::Ready { .. }), "nobody hears of the renewal");
    let over = client(false).read(&id("db/pw"), &Which::Live, None).await.unwrap_err();
    assert!(matches!(&over, Error::SessionOver(why) if why == "the provider refused"), "{over}");
    assert_eq!(server.requests().len(), 5, "it is not tried again");
}

const DATA: &str = r#"{"id":"db/pw","etag":"00ab-3","revision":"1.7","versions":[
    {"id":"5","state":"active","created":"2026-01-01T00:00:00Z","data":"b2xk"},
    {"id":"7","state":"primary","created":"2026-01-02T00:00:00Z","data":"aHVudGVyMg=="}]}"#;

#[tokio::test]
async fn a_secret_is_read_with_the_token_over_one_connection() {
    let server = Canned::start(|_, _| Reply::Json(200, DATA.to_owned()));
    let client = client(&server);
    for _ in 0..3 {
        let secret = client.read(&id("db/pw"), &Which::Live, None).await.unwrap();
        assert_eq!(secret.primary().unwrap().data.expose(), b"hunter2");
        assert_eq!(secret.revision.to_string(), "1.7");
    }
    let which = Which::Version(VersionId::new(5).unwrap());
    client.read(&id("db/pw"), &which, claviger_domain::Revision::parse("1.7")).await.unwrap();
    let requests = server.requests();
    assert!(requests.iter().all(|r| r.connection == 0 && r.head.contains("Authorization: Bearer t0ken\r\n") && !r.certified));
    assert_eq!(requests[0].line, "GET /api/v1/keys/db/pw/-/data");
    assert_eq!(requests[3].line, "GET /api/v1/keys/db/pw/-/data?version=5");
    assert!(requests[3].head.contains("Claviger-Min-Revision: 1.7\r\n"));
}

#[tokio::test]
async fn keys_that_did_not_fit_into_a_bulk_answer_are_asked_for_again() {
    let server = Canned::start(|_, before| {
        let data = |key: &str| format!(r#"{{"id":"{key}","data":{}}}"#, DATA.replace("db/pw", key));
        let again = |key: &str| format!(r#"{{"id":"{key}","error":"ask_again"}}"#);
        let items = match before {
            0 => [data("a"), again("b"), r#"{"id":"c","error":"denied"}"#.to_owned(), again("d")].join(","),
            1 => [data("b"), again("d")].join(","),
            2 => again("d"),
            _ => String::new(),
        };
        Reply::Json(200, format!(r#"{{"items":[{items}]}}"#))
    });
    let read = client(&server).bulk_read(&["a", "b", "c", "d"].map(id), None).await.unwrap();
    let ends: Vec<_> =
        read.items.iter().map(|i| (i.id.as_str(), i.outcome.as_ref().map(|s| s.id.as_str()).map_err(String::as_str))).collect();
    // A server that gives nothing more is not asked for ever.
    assert_eq!(ends, [("a", Ok("a")), ("b", Ok("b")), ("c", Err("denied")), ("d", Err("ask_again"))]);
    let bodies: Vec<_> = server.requests().into_iter().map(|r| r.body).collect();
    assert_eq!(bodies, [r#"{"ids":["a","b","c","d"]}"#, r#"{"ids":["b","d"]}"#, r#"{"ids":["d"]}"#]);
}

#[tokio::test]
async fn a_certificate_is_shown_and_a_machine_name_claimed() {
    let server = Canned::start(|_, _| Reply::Json(200, r#"{"identities":[]}"#.to_owned()));
    let certified = config(&server, |s| {
        (s.token, s.machine) = (None, Some("web1.example.org".to_owned()));
        (s.cert, s.key) = (Some(server.file("client.pem")), Some(server.file("client.key")));
    });
    Client::new(certified).unwrap().whoami().await.unwrap();
    let request = &server.requests()[0];
    assert!(request.certified && request.head.contains("Authorization: Machine web1.example.org\r\n"));
}

#[tokio::test]
async fn a_server_of_another_ca_is_not_trusted() {
    let (server, other) = (Canned::start(|_, _| Reply::Raw(vec![])), Canned::start(|_, _| Reply::Raw(vec![])));
    let wrong = config(&server, |s| s.ca = Some(other.file("ca.pem")));
    let error = Client::new(wrong).unwrap().whoami().await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn chunked_answers_are_read_however_they_are_cut() {
    let (a, b) = DATA.split_at(100);
    let whole = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{a}\r\n{:x};x=y\r\n{b}\r\n0\r\nT: v\r\n\r\n",
        a.len(),
        b.len()
    );
    for size in [1, 7, 50, 10_000] {
        let pieces: Vec<_> = whole.as_bytes().chunks(size).map(|c| String::from_utf8(c.to_vec()).unwrap()).collect();
        let server = Canned::start(move |_, _| Reply::Raw(pieces.clone()));
        let client = client(&server);
        for _ in 0..2 {
            let secret = client.read(&id("db/pw"), &Which::Live, None).await.unwrap();
            assert_eq!(secret.versions.len(), 2);
        }
        assert!(server.requests().iter().all(|r| r.connection == 0), "pieces of {size}");
    }
}

#[tokio::test]
async fn reads_are_repeated_and_changes_are_not() {
    let unavailable = || problem(503, "unavailable", "starting");
    let server = Canned::start(move |r, _| match r.line.as_str() {
        "POST /api/v1/keys" => unavailable(),
        _ if r.connection < 2 => Reply::RawThenClose(vec!["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_owned()]),
        _ => Reply::Json(200, DATA.to_owned()),
    });
    let client = client(&server);
    assert!(client.read(&id("db/pw"), &Which::Live, None).await.is_ok());
    assert_eq!(server.requests().len(), 3);

    let request: CreateKey = serde_json::from_str(r#"{"id":"a","data":""}"#).unwrap();
    let error = client.create(request, Some(&SecretBytes::new(b"v".to_vec()))).await.unwrap_err();
    assert_eq!(error.code(), Some("unavailable"));
    assert_eq!(server.requests().len(), 4);
    assert!(server.requests()[3].body.contains(r#""data":"dg==""#));
}

#[tokio::test]
async fn a_problem_keeps_its_code_and_words() {
    let server = Canned::start(|_, n| match n {
        0 => problem(403, "denied", "user:a lacks the right to read"),
        _ => Reply::Json(418, "short and stout".to_owned()),
    });
    let client = client(&server);
    let error = client.key(&id("a")).await.unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (Some("denied"), "user:a lacks the right to read"));
    assert_eq!(client.key(&id("a")).await.unwrap_err().code(), Some("invalid"));
}

#[tokio::test]
async fn a_malformed_answer_is_told_without_what_it_held() {
    let server = Canned::start(|_, _| Reply::Json(200, r#"{"id":"a","etag":"e","revision":"1.1","versions":"hunter2"}"#.to_owned()));
    let error = client(&server).read(&id("a"), &Which::Live, None).await.unwrap_err();
    assert!(matches!(error, Error::Malformed(_)));
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn nobody_there_is_told_after_a_few_attempts() {
    let server = Canned::start(|_, _| Reply::Raw(vec![]));
    let config = config(&server, |s| s.addr = Some("https://127.0.0.1:1".to_owned()));
    let error = Client::new(config).unwrap().whoami().await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }) && error.is_transient());
}

#[tokio::test]
async fn a_slow_server_is_given_up() {
    let server = Canned::start(|_, _| Reply::Raw(vec![]));
    let config = Config { timeout: Duration::from_millis(100), attempts: 1, ..config(&server, |_| ()) };
    assert!(matches!(Client::new(config).unwrap().whoami().await, Err(Error::Timeout { .. })));
}

fn stream(frames: &[&str]) -> Vec<String> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    std::iter::once(head).chain(frames.iter().map(|f| format!("{:x}\r\n{f}\r\n", f.len()))).collect()
}

#[tokio::test]
async fn a_watch_goes_on_from_the_last_revision_after_a_break() {
    let server = Canned::start(|_, n| match n {
        0 => Reply::RawThenClose(stream(&[
            "id: 1.5\nevent: ready\ndata: {\"revision\":\"1.5\"}\n\n",
            "event: heartbeat\ndata: {}\n\n",
            "id: 1.6\nevent: changed\ndata: {\"id\":\"db/pw\",\"revision\":\"1.6\",\"what\":\"promote\"}\n\n",
        ])),
        1 => problem(503, "unavailable", "restarting"),
        _ => Reply::Raw(stream(&[
            "id: 1.9\nevent: compacted\ndata: {\"revision\":\"1.9\"}\n\n",
            "id: 1.10\nevent: revoked\ndata: {\"id\":\"db/pw\",\"revision\":\"1.10\"}\n\n",
        ])),
    });
    let mut watch = client(&server).watch(WatchRequest { ids: vec![id("db/pw")], ..WatchRequest::default() });
    assert!(matches!(watch.next().await, Event::Ready { .. }));
    assert!(matches!(watch.next().await, Event::Changed(c) if c.id == "db/pw"));
    assert!(matches!(watch.next().await, Event::Lost { error: Error::Broken { .. }, .. }));
    assert!(matches!(watch.next().await, Event::Lost { error: Error::Refused { .. }, .. }));
    assert!(matches!(watch.next().await, Event::Compacted { revision } if revision.number == 9));
    assert!(matches!(watch.next().await, Event::Revoked(c) if c.revision.number == 10));
    let lines: Vec<_> = server.requests().into_iter().map(|r| r.line).collect();
    assert_eq!(lines[0], "GET /api/v1/watch?id=db/pw&heartbeat=15");
    assert!(lines[1..].iter().all(|l| l.contains("since=1.6")), "{lines:?}");
}

#[tokio::test]
async fn a_watch_without_heartbeats_is_given_up() {
    let server = Canned::start(|_, _| Reply::Raw(stream(&[])));
    let mut watch = client(&server).watch(WatchRequest { heartbeat: Duration::from_secs(1), ..WatchRequest::default() });
    let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap();
    assert!(matches!(event, Event::Lost { error: Error::Broken { reason, .. }, .. } if reason.contains("heartbeat")));
}
