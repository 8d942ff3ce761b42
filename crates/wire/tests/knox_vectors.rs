//! The Knox readers and writers against what Go's standard library says, line by line.
//!
//! The files in `tests/data` are printed by the Go program `tests/go/vectors` (the command stands in its head). Inputs
//! are base64, because they need not be UTF-8. Every line of a file is judged, and a failure shows all that differ.
#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_wire::knox::base64::{decode_raw_url, decode_standard};
use claviger_wire::knox::form::{Body, Poll, fields, poll, query_value};
use claviger_wire::knox::json::{AclField, decode_access_field, decode_acl, write_string};
use claviger_wire::knox::number::parse_uint;
use claviger_wire::knox::quote::quote;
use claviger_wire::knox::route::{Routed, route, split_target};
use claviger_wire::knox::types::{AccessEntry, PrincipalType};
use claviger_wire::knox::validate::{BadPrincipal, PrincipalRules, principal};
use serde_json::{Value, json};

/// Runs `judge` on every line of a vector file; it returns (what we say, what Go says) for each thing compared.
fn check(file: &str, judge: impl Fn(&Value) -> Vec<(Value, Value)>) {
    let path = format!("{}/tests/data/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut wrong = Vec::new();
    for line in text.lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        for (ours, gos) in judge(&vector) {
            if ours != gos {
                let shown: String = line.chars().take(300).collect();
                wrong.push(format!("{shown}\n  ours: {ours}\n  Go's: {gos}"));
            }
        }
    }
    assert!(text.lines().count() > 100, "{file} is nearly empty");
    assert!(wrong.is_empty(), "{} of {file} differ:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

/// A member that is base64, decoded; empty when absent.
fn bytes(vector: &Value, member: &str) -> Vec<u8> {
    STANDARD.decode(vector[member].as_str().unwrap_or_default()).unwrap()
}

fn encoded(raw: impl AsRef<[u8]>) -> Value {
    json!(STANDARD.encode(raw))
}

/// The text of an error, empty for success, as the vectors have it.
fn text_of<T, E: std::fmt::Display>(result: &Result<T, E>) -> Value {
    json!(result.as_ref().err().map(E::to_string).unwrap_or_default())
}

#[test]
fn base64_is_read_as_go_reads_it() {
    check("base64.jsonl", |vector| {
        let input = bytes(vector, "in");
        let (standard, url) = (decode_standard(&input), decode_raw_url(&input));
        vec![
            (text_of(&standard), vector["std_error"].clone()),
            (text_of(&url), vector["url_error"].clone()),
            (json!(standard.ok().map(encoded)), vector["std"].clone()),
            (json!(url.ok().map(encoded)), vector["url"].clone()),
        ]
    });
}

#[test]
fn numbers_and_quoted_texts_are_gos() {
    check("number.jsonl", |vector| {
        let input = bytes(vector, "in");
        let number = parse_uint(&input);
        vec![
            (encoded(text_of(&number).as_str().unwrap()), vector["error"].clone()),
            (json!(number.ok().map(|n| n.to_string())), vector["number"].clone()),
            (encoded(quote(&input)), vector["quoted"].clone()),
        ]
    });
}

fn entries(entries: &[AccessEntry]) -> Value {
    let shown = |entry: &AccessEntry| {
        let kind = match entry.kind {
            PrincipalType::Unknown => "unknown",
            PrincipalType::Missing => "missing",
            known => known.as_str().unwrap(),
        };
        json!({"type": kind, "id": entry.id, "access": entry.access.as_str()})
    };
    entries.iter().map(shown).collect()
}

#[test]
fn access_entries_decode_and_fail_as_in_go() {
    check("json.jsonl", |vector| {
        let input = bytes(vector, "in");
        let create = decode_acl(&input, AclField::Create);
        let put = decode_acl(&input, AclField::PutAccess);
        let access = decode_access_field(&input);
        vec![
            (text_of(&create), vector["create_error"].clone()),
            (text_of(&put), vector["put_error"].clone()),
            (text_of(&access), vector["access_error"].clone()),
            (json!(create.ok().map(|acl| entries(&acl))), vector["acl"].clone()),
            (json!(access.ok().map(|entry| entries(&[entry]))), vector["access"].clone()),
        ]
    });
}

#[test]
fn strings_are_escaped_as_in_go() {
    check("string.jsonl", |vector| {
        let mut out = Vec::new();
        write_string(&mut out, &bytes(vector, "in"));
        vec![(encoded(out), vector["json"].clone())]
    });
}

#[test]
fn forms_give_the_fields_that_go_gives() {
    check("form.jsonl", |vector| {
        let (content_type, query, body) = (bytes(vector, "type"), bytes(vector, "query"), bytes(vector, "body"));
        let [id, data] = fields(Some(&content_type), Some(&query), Body::Whole(&body), ["id", "data"]);
        vec![(json!(id.map(encoded)), vector["id"].clone()), (json!(data.map(encoded)), vector["data"].clone())]
    });
}

#[test]
fn queries_give_the_values_that_go_gives() {
    check("query.jsonl", |vector| {
        let input = bytes(vector, "in");
        let last: serde_json::Map<_, _> = match poll(Some(&input)) {
            Poll::All => serde_json::Map::new(),
            Poll::Changed(asked) => asked.into_iter().map(|(name, value)| (STANDARD.encode(name), encoded(value))).collect(),
        };
        let status = query_value(Some(&input), "status");
        vec![(Value::Object(last), vector["last"].clone()), (json!(status.map(encoded)), vector["status"].clone())]
    });
}

/// Status, `Location` and route as the Go server answers them.
fn answered(routed: Routed<'_>) -> (&'static str, Option<Vec<u8>>, Option<String>) {
    let to = |name: &str, parts: &[&[u8]]| {
        let parts = parts.iter().map(|part| format!(" {}", STANDARD.encode(part)));
        ("200", None, Some(name.to_owned() + &parts.collect::<String>()))
    };
    match routed {
        Routed::BadTarget => ("400", None, None),
        Routed::ServerOptions => ("200", None, None),
        Routed::Redirect { location } => ("301", Some(location), None),
        Routed::MethodNotAllowed => ("405", None, None),
        Routed::NotFound => ("404", None, None),
        Routed::List => to("list", &[]),
        Routed::Create => to("create", &[]),
        Routed::Read { key } => to("read", &[&key]),
        Routed::Delete { key } => to("delete", &[&key]),
        Routed::Acl { key } => to("acl", &[&key]),
        Routed::PutAccess { key } => to("put_access", &[&key]),
        Routed::AddVersion { key } => to("add_version", &[&key]),
        Routed::UpdateVersion { key, version } => to("update_version", &[&key, &version]),
    }
}

#[test]
fn targets_are_routed_as_gos_server_routes_them() {
    check("route.jsonl", |vector| {
        let target = bytes(vector, "target");
        let (path, query) = split_target(&target);
        let (status, location, routed) = answered(route(vector["method"].as_str().unwrap(), path, query));
        vec![
            (json!(status), vector["status"].clone()),
            (json!(location.map(encoded)), vector["location"].clone()),
            (json!(routed), vector["route"].clone()),
        ]
    });
}

#[test]
fn spiffe_ids_are_judged_as_gos_url_parser_judges_them() {
    check("spiffe.jsonl", |vector| {
        let input = bytes(vector, "in");
        let Ok(id) = std::str::from_utf8(&input) else {
            return vec![]; // JSON decoding has made every id valid UTF-8 before it is judged.
        };
        let verdict = principal(PrincipalType::Service, id, PrincipalRules::default());
        let is_spiffe = verdict.is_ok();
        // The largest minimum that a prefix of this URL still meets is its number of components.
        let meets = |least: usize| {
            let rules = PrincipalRules { min_prefix_components: least, ..PrincipalRules::default() };
            principal(PrincipalType::ServicePrefix, id, rules) != Err(BadPrincipal::TooShort)
        };
        let components = vector["components"].as_u64().unwrap() as usize;
        let mut judged = vec![(json!(is_spiffe), vector["spiffe"].clone())];
        if is_spiffe && id.ends_with('/') {
            judged.push((json!([meets(components), meets(components + 1)]), json!([true, false])));
        }
        judged
    });
}
