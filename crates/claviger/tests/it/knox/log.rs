//! Knox's own access log (§8): one line for each routed request, its exact members, and no secret in any of them.

use super::server;
use claviger_testkit::Client;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// A value that must stand in no line, and how it travels.
const SECRET: (&str, &str) = ("TopSecretValue", "VG9wU2VjcmV0VmFsdWU=");

fn lines(path: &Path, count: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let complete: Vec<_> = text.split_inclusive('\n').filter(|l| l.ends_with('\n')).map(|l| l.trim_end().to_owned()).collect();
        if complete.len() >= count {
            return complete;
        }
        assert!(Instant::now() < deadline, "{count} lines were expected:\n{text}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What differs from line to line.
struct Expected {
    code: u8,
    status: u16,
    method: &'static str,
    path: String,
    parameters: String,
    parsed: &'static str,
    /// `principal`, `fallback_principals`, `auth_type`, as they stand in the line.
    caller: (&'static str, &'static str, &'static str),
    message: &'static str,
    agent: &'static str,
}

const ALICE: (&str, &str, &str) = ("alice", "[\"alice\"]", "user");
const NOBODY: (&str, &str, &str) = ("", "null", "");

/// The whole line as it must be, byte for byte; what cannot be known is taken from the line after its form was checked.
fn whole(actual: &str, e: &Expected) -> String {
    let json: Value = serde_json::from_str(actual).unwrap();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let (id, at, host) = (text(&json["id"]), text(&json["@timestamp"]), text(&json["host"]));
    assert!(id.len() == 20 && id.bytes().all(|b| b.is_ascii_alphanumeric()), "{id}");
    assert!(at.len() >= 20 && at.ends_with('Z') && at.as_bytes()[10] == b'T', "{at}");
    let request = &json["payload"]["request"];
    let peer = text(&request["remote_addr"]);
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
    // TLS 1.3 (0x0304) and one of its suites (0x1301 to 0x1303).
    assert_eq!(request["tls_version"], 0x0304);
    let cipher = request["tls_cipher"].as_u64().unwrap();
    assert!((0x1301..=0x1303).contains(&cipher), "{cipher:x}");
    let resumed = request["tls_resumed"].as_bool().unwrap();
    let Expected { code, status, method, path, parameters, parsed, caller: (principal, all, auth), message, agent } = e;
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{{\"id\":\"{id}\",\"@timestamp\":\"{at}\",\"service\":\"svc\",\"host\":\"{host}\",\"version\":\"{version}\",\"payload\":{{\"type\":\"access\",\
         \"code\":{code},\"status_code\":{status},\"request\":{{\"method\":\"{method}\",\"path\":\"{path}\",\"parameters\":{parameters},\
         \"parsed_query_string\":{parsed},\"principal\":\"{principal}\",\"fallback_principals\":{all},\"auth_type\":\"{auth}\",\"request_uri\":\"\",\
         \"remote_addr\":\"{peer}\",\"tls_server\":\"localhost\",\"tls_cipher\":{cipher},\"tls_version\":772,\"tls_resumed\":{resumed},\
         \"tls_session_id\":null}},\"msg\":\"{message}\",\"userAgent\":\"{agent}\"}},\"payload_encoding\":\"JSON\"}}"
    )
}

fn ask(client: &mut Client, authorization: &str, method: &str, target: &str, form: &[(&str, &str)]) {
    client.knox(method, target, authorization, form).unwrap();
}

#[test]
fn every_routed_request_has_one_exact_line_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("knox.log");
    let server = server(&format!("[knox]\nlog = \"{}\"\nlog_service = \"svc\"\n", path.display()));
    let (mut client, mut both) = (server.client().unwrap(), super::connect(&server, "both"));
    let acl = r#"[{"type":"Service","id":"spiffe://dev.claviger/both","access":"Read"}]"#;
    let created =
        client.knox("POST", "/v0/keys/", "0ualice-token", &[("id", "k"), ("data", SECRET.1), ("acl", acl), ("other", "x")]).unwrap();
    let version = created.json()["data"].to_string();
    ask(&mut client, "0ualice-token", "GET", "/v0/keys/?k=a&b", &[]);
    ask(&mut client, "0ualice-token", "GET", "/v0/keys/", &[]);
    ask(&mut client, "0ualice-token", "GET", "/v0/keys/k/?status=\"Primary\"", &[]);
    ask(&mut client, "0ualice-token", "POST", "/v0/keys/k/versions/", &[("data", SECRET.1)]);
    ask(&mut client, "0ualice-token", "PUT", &format!("/v0/keys/k/versions/{version}/"), &[("status", "\"Primary\"")]);
    ask(&mut client, "0ualice-token", "PUT", "/v0/keys/k/access/", &[("acl", "[]")]);
    ask(&mut client, "0ualice-token", "GET", "/v0/keys/k/access/", &[]);
    ask(&mut both, "0thost1.x.com", "GET", "/v0/keys/k/", &[]);
    // Routed nowhere, and not routed at all: the first has a line, redirects and bare 405s have none.
    ask(&mut client, "0ualice-token", "GET", "/v0/keys", &[]);
    ask(&mut client, "0ualice-token", "GET", "/v0//keys/", &[]);
    ask(&mut client, "0ualice-token", "PATCH", "/v0/keys/k/", &[("data", SECRET.1)]);
    ask(&mut client, "0ubob-token", "DELETE", "/v0/keys/k/", &[]);
    ask(&mut client, "0uwrong-token", "POST", "/v0/keys/k/versions/", &[("data", SECRET.1)]);
    client.request("GET", "/v0/keys/a%20b/", &[("Authorization", "0ualice-token"), ("User-Agent", "Knox_Client/\"x\"")], b"").unwrap();
    ask(&mut client, "0ualice-token", "DELETE", "/v0/keys/k/", &[]);

    let row = |method, path: &str, parameters: &str| Expected {
        code: 0,
        status: 200,
        method,
        path: path.to_owned(),
        parameters: parameters.to_owned(),
        parsed: "null",
        caller: ALICE,
        message: "",
        agent: "unknown",
    };
    let key = r#"{"keyID":"k"}"#;
    let expected = [
        row("POST", "/v0/keys/", &format!(r#"{{"acl":"{}","data":"\u003cDATA\u003e","id":"k"}}"#, acl.replace('"', "\\\""))),
        Expected { parsed: r#"{"b":"","k":"a"}"#, ..row("GET", "/v0/keys/", r#"{"queryString":"k=a\u0026b"}"#) },
        Expected { parsed: "{}", ..row("GET", "/v0/keys/", r#"{"queryString":""}"#) },
        row("GET", "/v0/keys/k/", r#"{"keyID":"k","status":"\"Primary\""}"#),
        row("POST", "/v0/keys/k/versions/", r#"{"data":"\u003cDATA\u003e","keyID":"k"}"#),
        Expected {
            code: 11,
            status: 400,
            message: "Version must be Active to promote to Primary",
            ..row(
                "PUT",
                &format!("/v0/keys/k/versions/{version}/"),
                &format!(r#"{{"keyID":"k","status":"\"Primary\"","versionID":"{version}"}}"#),
            )
        },
        row("PUT", "/v0/keys/k/access/", r#"{"acl":"[]","keyID":"k"}"#),
        row("GET", "/v0/keys/k/access/", key),
        Expected {
            caller: (
                "host1.x.com",
                r#"["host1.x.com","spiffe://dev.claviger/both"]"#,
                "mux[mtls=\\u003emachine,spiffe-fallback=\\u003eservice]",
            ),
            ..row("GET", "/v0/keys/k/", key)
        },
        Expected { code: 8, status: 404, ..row("GET", "/v0/keys", "null") },
        Expected {
            code: 6,
            status: 403,
            caller: ("bob", "[\"bob\"]", "user"),
            message: "Principal bob not authorized to delete k",
            ..row("DELETE", "/v0/keys/k/", key)
        },
        Expected {
            code: 5,
            status: 401,
            caller: NOBODY,
            message: "auth: unknown token",
            ..row("POST", "/v0/keys/k/versions/", r#"{"data":"\u003cDATA\u003e","keyID":"k"}"#)
        },
        Expected {
            code: 4,
            status: 404,
            message: "No such key a b",
            agent: "Knox_Client/\\\"x\\\"",
            ..row("GET", "/v0/keys/a b/", r#"{"keyID":"a b"}"#)
        },
        row("DELETE", "/v0/keys/k/", key),
    ];
    let lines = lines(&path, expected.len());
    for (n, (line, expected)) in lines.iter().zip(&expected).enumerate() {
        assert_eq!(*line, whole(line, expected), "line {}", n + 1);
    }
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    let ids: std::collections::HashSet<_> = lines.iter().map(|l| &l[..30]).collect();
    assert_eq!(ids.len(), lines.len(), "every request has an id of its own");
    let text = lines.join("\n");
    for secret in [SECRET.0, SECRET.1, "VG9wU2Vj", "wrong-token", "alice-token"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[test]
fn members_that_are_empty_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("knox.log");
    let server = server(&format!("[knox]\nlog = \"{}\"\n", path.display()));
    ask(&mut server.client().unwrap(), "", "GET", "/v0/keys/", &[]);
    let line = lines(&path, 1).remove(0);
    assert!(!line.contains("\"service\""), "{line}");
    assert!(line.contains(r#""msg":"No matching authentication providers found""#), "{line}");
}
