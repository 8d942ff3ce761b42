//! Every route of both surfaces: what it needs in plain terms, and a request that tries it.

use super::oracle::Need;
use super::people::Asked;
use claviger_wire::knox::route::{Routed, route, split_target};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Where a request aims.
pub(super) struct Place {
    /// The key.
    pub(super) id: String,
    /// One of its versions.
    pub(super) version: String,
    /// Something that the used key `…-aes` encrypted.
    pub(super) sealed: String,
    /// A prefix that only this key's cell uses.
    pub(super) prefix: String,
    /// An id that is free.
    pub(super) fresh: String,
    /// `principal=…` and `group=…` about the caller himself.
    pub(super) himself: String,
    /// The key's own list of rights, as it is.
    pub(super) acl: Value,
}

/// What must be made ready before a request that should succeed, or put right after it did.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    None,
    /// A version to promote.
    ActiveVersion,
    /// A version to destroy.
    InactiveVersion,
    /// The key is gone.
    KeyGone,
    /// The prefix's grant is gone.
    PrefixGone,
}

/// A route, or one of the things that a route does where they need different rights.
pub(super) struct Row {
    pub(super) method: &'static str,
    /// As the surface's own description writes it.
    pub(super) path: &'static str,
    pub(super) what: &'static str,
    pub(super) need: Need,
    pub(super) care: Care,
    /// Whether it is about one key or prefix; the others are tried once per caller.
    pub(super) each: bool,
    pub(super) ask: fn(&Place) -> Asked,
}

const fn row(method: &'static str, path: &'static str, what: &'static str, need: Need, ask: fn(&Place) -> Asked) -> Row {
    Row { method, path, what, need, care: Care::None, each: true, ask }
}

const fn once(method: &'static str, path: &'static str, what: &'static str, need: Need, ask: fn(&Place) -> Asked) -> Row {
    Row { each: false, ..row(method, path, what, need, ask) }
}

const fn caring(care: Care, row: Row) -> Row {
    Row { care, ..row }
}

fn key(place: &Place, tail: &str) -> String {
    format!("/api/v1/keys/{}{tail}", place.id)
}

/// A used key beside the key, with the same rights.
fn used(place: &Place, kind: &str, tail: &str) -> String {
    format!("/api/v1/keys/{}-{kind}/-/{tail}", place.id)
}

fn use_it(place: &Place, kind: &str, tail: &str, item: Value) -> Asked {
    Asked::json("POST", used(place, kind, tail), json!({ "items": [item] }))
}

fn knox(place: &Place, tail: &str) -> String {
    format!("/v0/keys/{}/{tail}", place.id)
}

/// Base64 of what every key here holds.
pub(super) const SECRET: &str = "c2VudGluZWwtb2YtdGhlLW1hdHJpeA==";
const MORE: &str = "bW9yZQ==";

/// An approval that was never asked for. What there is to those that were, `approvals` tries.
const APPROVAL: &str = "/api/v1/approvals/0123456789abcdef";

use Need::{
    AnyOf, AnyRight, Concerned, Creation, Identity, KnoxAccess, KnoxAnyone, KnoxCreation, KnoxRight, Nothing, PrefixAdmin, Right,
    RootAdmin, Shown,
};

/// The native surface.
pub(super) const NATIVE: &[Row] = &[
    row("GET", "/api/v1/keys", "list", Shown, |p| Asked::new("GET", format!("/api/v1/keys?prefix={}", p.id))),
    row("POST", "/api/v1/keys", "create", Creation, |p| Asked::json("POST", "/api/v1/keys", json!({ "id": p.fresh, "data": MORE }))),
    row("GET", "/api/v1/keys/{id}", "show", AnyRight, |p| Asked::new("GET", key(p, ""))),
    row("PATCH", "/api/v1/keys/{id}", "describe", Right("admin"), |p| Asked::json("PATCH", key(p, ""), json!({ "description": "x" }))),
    row("GET", "/api/v1/keys/{id}/-/data", "read", Right("read"), |p| Asked::new("GET", key(p, "/-/data?state=all"))),
    row("GET", "/api/v1/keys/{id}/-/data", "read one version", Right("read"), |p| {
        Asked::new("GET", key(p, &format!("/-/data?version={}", p.version)))
    }),
    row("POST", "/api/v1/read", "read many", Right("read"), |p| Asked::json("POST", "/api/v1/read", json!({ "ids": [p.id] }))),
    row("POST", "/api/v1/fingerprints", "fingerprint", Right("read"), |p| {
        Asked::json("POST", "/api/v1/fingerprints", json!({ "ids": [p.id] }))
    }),
    row("POST", "/api/v1/keys/{id}/-/encrypt", "encrypt", Right("encrypt"), |p| {
        use_it(p, "aes", "encrypt", json!({ "plaintext": SECRET }))
    }),
    row("POST", "/api/v1/keys/{id}/-/decrypt", "decrypt", Right("decrypt"), |p| {
        use_it(p, "aes", "decrypt", json!({ "ciphertext": p.sealed }))
    }),
    row("POST", "/api/v1/keys/{id}/-/rewrap", "rewrap", Right("encrypt"), |p| {
        use_it(p, "aes", "rewrap", json!({ "ciphertext": p.sealed }))
    }),
    row("POST", "/api/v1/keys/{id}/-/data-key", "make a data key", Right("encrypt"), |p| use_it(p, "aes", "data-key", json!({}))),
    row("POST", "/api/v1/keys/{id}/-/sign", "sign", Right("sign"), |p| use_it(p, "ed", "sign", json!({ "message": MORE }))),
    row("POST", "/api/v1/keys/{id}/-/hmac", "authenticate", Right("sign"), |p| use_it(p, "mac", "hmac", json!({ "message": MORE }))),
    row("POST", "/api/v1/keys/{id}/-/verify", "verify", AnyOf("verify", "sign"), |p| {
        use_it(p, "ed", "verify", json!({ "message": MORE, "signature": MORE }))
    }),
    row("GET", "/api/v1/keys/{id}/-/public", "public key", AnyRight, |p| Asked::new("GET", used(p, "ed", "public"))),
    row("POST", "/api/v1/keys/{id}/-/export", "export", Right("read"), |p| Asked::new("POST", used(p, "aes", "export"))),
    once("GET", "/api/v1/import-key", "key to import by", Identity, |_| Asked::new("GET", "/api/v1/import-key")),
    row("GET", "/api/v1/keys/{id}/-/versions", "list versions", AnyRight, |p| Asked::new("GET", key(p, "/-/versions"))),
    row("POST", "/api/v1/keys/{id}/-/versions", "add a version", Right("write"), |p| {
        Asked::json("POST", key(p, "/-/versions"), json!({ "data": MORE }))
    }),
    row("POST", "/api/v1/keys/{id}/-/versions", "add and promote", Right("write"), |p| {
        Asked::json("POST", key(p, "/-/versions"), json!({ "data": SECRET, "promote": true }))
    }),
    caring(
        Care::ActiveVersion,
        row("PUT", "/api/v1/keys/{id}/-/versions/{vid}", "promote", Right("write"), |p| {
            Asked::json("PUT", key(p, &format!("/-/versions/{}", p.version)), json!({ "state": "primary" }))
        }),
    ),
    caring(
        Care::InactiveVersion,
        row("PUT", "/api/v1/keys/{id}/-/versions/{vid}", "destroy", Right("admin"), |p| {
            Asked::json("PUT", key(p, &format!("/-/versions/{}", p.version)), json!({ "state": "destroyed" }))
        }),
    ),
    row("GET", "/api/v1/keys/{id}/-/acl", "show rights", Right("list"), |p| Asked::new("GET", key(p, "/-/acl"))),
    row("PUT", "/api/v1/keys/{id}/-/acl", "replace rights", Right("admin"), |p| {
        Asked::json("PUT", key(p, "/-/acl"), json!({ "grants": p.acl }))
    }),
    row("PATCH", "/api/v1/keys/{id}/-/acl", "change rights", Right("admin"), |p| {
        Asked::json("PATCH", key(p, "/-/acl"), json!({ "grants": [{ "principal": "user:absent", "preset": "none" }] }))
    }),
    row("GET", "/api/v1/keys/{id}/-/explain", "explain oneself", AnyRight, |p| {
        Asked::new("GET", key(p, &format!("/-/explain?{}", p.himself)))
    }),
    row("GET", "/api/v1/keys/{id}/-/explain", "explain another", Right("admin"), |p| {
        Asked::new("GET", key(p, "/-/explain?principal=user:another"))
    }),
    row("GET", "/api/v1/keys/{id}/-/history", "history", Right("admin"), |p| Asked::new("GET", key(p, "/-/history"))),
    caring(Care::KeyGone, row("DELETE", "/api/v1/keys/{id}", "delete", Right("admin"), |p| Asked::new("DELETE", key(p, "")))),
    row("GET", "/api/v1/prefix", "show a prefix", PrefixAdmin, |p| Asked::new("GET", format!("/api/v1/prefix?prefix={}", p.prefix))),
    row("PUT", "/api/v1/prefix", "replace a prefix", PrefixAdmin, |p| {
        let grants = json!([{ "principal": "user:keeper", "capabilities": ["list"] }]);
        Asked::json("PUT", format!("/api/v1/prefix?prefix={}", p.prefix), json!({ "prefix": p.prefix, "grants": grants }))
    }),
    row("PUT", "/api/v1/prefix/rules", "replace a prefix's rules", PrefixAdmin, |p| {
        Asked::json("PUT", format!("/api/v1/prefix/rules?prefix={}", p.prefix), json!({ "rules": [] }))
    }),
    caring(
        Care::PrefixGone,
        row("DELETE", "/api/v1/prefix", "remove a prefix", PrefixAdmin, |p| {
            Asked::new("DELETE", format!("/api/v1/prefix?prefix={}", p.prefix))
        }),
    ),
    row("GET", "/api/v1/reach", "reach below a prefix", PrefixAdmin, |p| {
        Asked::new("GET", format!("/api/v1/reach?principal=user:another&prefix={}", p.prefix))
    }),
    once("GET", "/api/v1/reach", "reach of everything", RootAdmin, |_| Asked::new("GET", "/api/v1/reach?principal=user:another&limit=1")),
    once("GET", "/api/v1/prefixes", "list prefixes", Identity, |_| Asked::new("GET", "/api/v1/prefixes")),
    once("GET", "/api/v1/watch", "watch", Identity, |p| Asked::new("GET", format!("/api/v1/watch?prefix=&id={}&heartbeat=1", p.id))),
    once("GET", "/api/v1/audit", "search the audit log", RootAdmin, |_| Asked::new("GET", "/api/v1/audit?limit=1")),
    once("GET", "/api/v1/status", "status", RootAdmin, |_| Asked::new("GET", "/api/v1/status")),
    once("POST", "/api/v1/seal/rotate", "rotate the barrier", RootAdmin, |_| Asked::new("POST", "/api/v1/seal/rotate")),
    row("GET", "/api/v1/keys/{id}/-/rules", "show rules", Right("list"), |p| Asked::new("GET", key(p, "/-/rules"))),
    row("PUT", "/api/v1/keys/{id}/-/rules", "replace rules", Right("admin"), |p| {
        Asked::json("PUT", key(p, "/-/rules"), json!({ "rules": [] }))
    }),
    once("GET", "/api/v1/approvals", "list approvals", Identity, |_| Asked::new("GET", "/api/v1/approvals")),
    once("GET", "/api/v1/approvals/{id}", "show an approval", Concerned, |_| Asked::new("GET", APPROVAL)),
    once("POST", "/api/v1/approvals/{id}/-/approve", "approve", Concerned, |_| {
        Asked::json("POST", format!("{APPROVAL}/-/approve"), json!({ "hash": "0".repeat(64) }))
    }),
    once("POST", "/api/v1/approvals/{id}/-/reject", "reject", Concerned, |_| {
        Asked::json("POST", format!("{APPROVAL}/-/reject"), json!({ "hash": "0".repeat(64) }))
    }),
    once("POST", "/api/v1/approvals/{id}/-/withdraw", "withdraw", Concerned, |_| {
        Asked::json("POST", format!("{APPROVAL}/-/withdraw"), json!({}))
    }),
    once("POST", "/api/v1/approvals/{id}/-/run", "carry out", Concerned, |_| Asked::new("POST", format!("{APPROVAL}/-/run"))),
    once("GET", "/api/v1/whoami", "who am I", Identity, |_| Asked::new("GET", "/api/v1/whoami")),
    once("GET", "/api/v1/openapi.json", "the API's description", Nothing, |_| Asked::new("GET", "/api/v1/openapi.json")),
];

/// Knox's surface.
pub(super) const KNOX: &[Row] = &[
    once("GET", "/v0/keys/", "list", Identity, |_| Asked::new("GET", "/v0/keys/")),
    row("GET", "/v0/keys/", "poll", KnoxAnyone, |p| Asked::new("GET", format!("/v0/keys/?{}=", p.id))),
    row("POST", "/v0/keys/", "create", KnoxCreation, |p| Asked::form("POST", "/v0/keys/", &[("id", &p.fresh), ("data", MORE)])),
    row("GET", "/v0/keys/{key}/", "read", KnoxRight("read"), |p| Asked::new("GET", knox(p, "?status=\"Inactive\""))),
    row("GET", "/v0/keys/{key}/access/", "show rights", KnoxAnyone, |p| Asked::new("GET", knox(p, "access/"))),
    row("PUT", "/v0/keys/{key}/access/", "change rights", KnoxAccess, |p| {
        Asked::form("PUT", knox(p, "access/"), &[("access", r#"{"type":"User","id":"absent","access":"None"}"#)])
    }),
    row("POST", "/v0/keys/{key}/versions/", "add a version", KnoxRight("write"), |p| {
        Asked::form("POST", knox(p, "versions/"), &[("data", MORE)])
    }),
    caring(
        Care::ActiveVersion,
        row("PUT", "/v0/keys/{key}/versions/{version}/", "promote", KnoxRight("write"), |p| {
            Asked::form("PUT", knox(p, &format!("versions/{}/", p.version)), &[("status", "\"Primary\"")])
        }),
    ),
    caring(Care::KeyGone, row("DELETE", "/v0/keys/{key}/", "delete", KnoxRight("admin"), |p| Asked::new("DELETE", knox(p, "")))),
];

/// All rows of both surfaces.
pub(super) fn all() -> impl Iterator<Item = &'static Row> {
    NATIVE.iter().chain(KNOX)
}

impl Row {
    pub(super) fn is_knox(&self) -> bool {
        self.path.starts_with("/v0/")
    }

    /// The row's name in failures and tables.
    pub(super) fn title(&self) -> String {
        format!("`{} {}` {}", self.method, self.path, self.what)
    }
}

/// Somewhere to aim at where only the route matters.
pub(super) fn anywhere() -> Place {
    Place {
        id: "m:x:key".to_owned(),
        version: "1".to_owned(),
        sealed: MORE.to_owned(),
        prefix: "m:x:".to_owned(),
        fresh: "m:x:new".to_owned(),
        himself: "principal=user:alice".to_owned(),
        acl: json!([]),
    }
}

/// Routes of which each request needs something that is good once, or that answer each time with something new. They are
/// tried, by everybody, in the tests of people's logins, which write their own part of the table.
const ELSEWHERE: [&str; 6] = [
    "GET /api/v1/login",
    "POST /api/v1/session",
    "DELETE /api/v1/session",
    // Shares are off unless configured; `tools/share.rs` tries them with no credential, a wrong token and the right one.
    "GET /api/v1/share",
    "GET /api/v1/share.js",
    "POST /api/v1/share/open",
];

/// The native routes that have rows, and those that the served description has.
pub(super) fn native_routes(described: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
    let rows = NATIVE.iter().map(|r| format!("{} {}", r.method, r.path)).chain(ELSEWHERE.map(str::to_owned)).collect();
    let paths = described["paths"].as_object().unwrap();
    let methods = |(path, item): (&String, &Value)| {
        item.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())).collect::<Vec<_>>()
    };
    (rows, paths.iter().flat_map(methods).collect())
}

/// Knox's routes by name; nothing for what reaches no route. A new variant does not compile until it is named here, and
/// then it needs a row.
fn knox_route(routed: &Routed<'_>) -> Option<&'static str> {
    Some(match routed {
        Routed::BadTarget | Routed::ServerOptions | Routed::Redirect { .. } | Routed::MethodNotAllowed | Routed::NotFound => return None,
        Routed::List => "List",
        Routed::Create => "Create",
        Routed::Read { .. } => "Read",
        Routed::Delete { .. } => "Delete",
        Routed::Acl { .. } => "Acl",
        Routed::PutAccess { .. } => "PutAccess",
        Routed::AddVersion { .. } => "AddVersion",
        Routed::UpdateVersion { .. } => "UpdateVersion",
    })
}

/// All that [`knox_route`] names.
const KNOX_ROUTES: [&str; 8] = ["Acl", "AddVersion", "Create", "Delete", "List", "PutAccess", "Read", "UpdateVersion"];

#[test]
fn every_knox_route_has_a_row() {
    let routed = |row: &Row| {
        let asked = (row.ask)(&anywhere());
        let (path, query) = split_target(asked.target.as_bytes());
        knox_route(&route(asked.method, path, query)).unwrap_or_else(|| panic!("{} goes nowhere", row.title()))
    };
    assert_eq!(KNOX.iter().map(routed).collect::<BTreeSet<_>>(), BTreeSet::from(KNOX_ROUTES));
}
