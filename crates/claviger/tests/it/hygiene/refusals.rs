//! Requests with secrets that are refused: no answer, log line or record repeats them.

use super::load::Work;
use super::sentinels::{Sentinels, summary};
use super::{assert_clean, assert_outputs_clean, may_read_memory, talkative};
use claviger_testkit::Answer;
use std::time::Duration;
use tempfile::TempDir;

#[test]
fn no_error_repeats_a_secret() {
    let outputs = TempDir::new().unwrap();
    let server = talkative(outputs.path());
    let sentinels = Sentinels::new(6);
    let work = Work::new(&server, sentinels.secrets.clone());
    let mut client = server.client().unwrap();
    let first = "aGVsbG8=";
    assert_eq!(work.form("POST", "/v0/keys/".into(), &[("id", "taken"), ("data", first)]).send(&mut client).0, 200);
    assert_eq!(work.json("POST", "/api/v1/keys".into(), format!(r#"{{"id":"taken/too","data":"{first}"}}"#)).send(&mut client).0, 201);
    let mut answers = Vec::new();
    for secret in &sentinels.secrets {
        let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, secret);
        let text = String::from_utf8_lossy(secret).into_owned();
        let quoted = serde_json::to_string(&text).unwrap();
        let form = |target: &str, fields: &[(&str, &str)]| work.form("POST", target.to_owned(), fields);
        let json = |target: &str, body: String| work.json("POST", target.to_owned(), body);
        let asks = [
            form("/v0/keys/", &[("id", "taken"), ("data", &base64)]),
            form("/v0/keys/", &[("id", "no id"), ("data", &base64)]),
            form("/v0/keys/", &[("data", &base64)]),
            form("/v0/keys/", &[("id", "new"), ("data", &text)]),
            form("/v0/keys/", &[("id", "new"), ("data", &base64), ("acl", "{")]),
            form("/v0/keys/", &[("id", "new"), ("data", &base64)]).with_authorization("0tnobody"),
            form("/v0/keys/", &[("id", "new"), ("data", &base64)]).with_authorization(""),
            form("/v0/keys/none/versions/", &[("data", &base64)]),
            form("/v0/keys/taken/versions/", &[("data", &text)]),
            form("/v0/nowhere/", &[("data", &base64)]),
            json("/api/v1/keys", format!(r#"{{"id":"taken/too","data":"{base64}"}}"#)),
            json("/api/v1/keys", format!(r#"{{"id":"a//b","data":"{base64}"}}"#)),
            json("/api/v1/keys", format!(r#"{{"id":"new","data":{quoted}}}"#)),
            json("/api/v1/keys", format!(r#"{{"id":"new","data":{{"value":{quoted}}}}}"#)),
            json("/api/v1/keys", format!(r#"{{"id":"new","data":"{base64}","more":{quoted}}}"#)),
            json("/api/v1/keys", format!(r#"{{"id":"new","data":"{base64}","data":{quoted}}}"#)),
            json("/api/v1/keys", format!(r#"{{"id":"new","data":"{base64}","expires":{quoted}}}"#)),
            json("/api/v1/keys", format!(r#"{{"id":"new","data":"{base64}"#)),
            json("/api/v1/keys", format!(r#"{{"id":"new","data":"{base64}"}}"#)).with_authorization("Bearer wrong"),
            json("/api/v1/keys/none/-/versions", format!(r#"{{"data":"{base64}"}}"#)),
            json("/api/v1/keys/taken/too/-/versions", format!(r#"{{"data":{quoted}}}"#)),
            json("/api/v1/nowhere", format!(r#"{{"data":"{base64}"}}"#)),
        ];
        for ask in asks {
            let mut client = server.client().unwrap();
            let (status, body) = ask.send(&mut client);
            assert!(status >= 400, "{status} {}", String::from_utf8_lossy(&body));
            answers.push(body);
        }
        answers.extend(malformed(&server, &base64).into_iter().map(|a| [format!("{:?}", a.headers).into_bytes(), a.body].concat()));
    }
    for answer in &answers {
        let hits = sentinels.search(answer);
        assert!(hits.is_empty(), "{}: {}", summary(&hits), String::from_utf8_lossy(answer));
    }
    assert_outputs_clean(&server, outputs.path(), &sentinels);
    if may_read_memory(&server) {
        assert_clean(&server, &sentinels, Duration::from_secs(4), "after refusals");
    }
}

/// What the front refuses before there is a request.
fn malformed(server: &claviger_testkit::TestServer, secret: &str) -> Vec<Answer> {
    let short = &secret[..secret.len().min(4000)];
    let requests = [
        format!("POST /v0/keys/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{short}\r\n"),
        format!("POST /v0/keys/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1, {short}\r\n\r\n"),
        format!("POST /v0/keys/ HTTP/1.1\r\nHost: x\r\nX-Secret: {short}\x01\r\n\r\n"),
        format!("POST /v0/keys/ HTTP/1.1\r\nHost: x\r\nAuthorization {short}\r\n\r\n"),
    ];
    let refused = |request: String| {
        let mut client = server.client().unwrap();
        client.send(request.as_bytes()).unwrap();
        let answer = client.answer(false).unwrap();
        assert!(answer.status >= 400, "{}", answer.status);
        answer
    };
    requests.map(refused).into()
}
