//! Every route with no credential, the wrong one, a stranger's and the right one.

use super::{create, server, verdict};
use claviger_testkit::{Client, TestServer};
use claviger_wire::knox::route::{Routed, route};

/// What a credential gets.
type Verdict = (u16, i64);

/// One route: method, path (`VERSION` stands for a version's id), form, and the answers to no credential, a wrong one, a
/// stranger without grant, and an administrator of the key.
struct Row {
    route: &'static str,
    method: &'static str,
    path: &'static str,
    form: &'static [(&'static str, &'static str)],
    answers: [Verdict; 4],
}

const NOBODY: Verdict = (401, 5);
const OK: Verdict = (200, 0);
const FORBIDDEN: Verdict = (403, 6);
const BARE: fn(u16) -> [Verdict; 4] = |status| [(status, 0); 4];

fn rows() -> Vec<Row> {
    let row = |route, method, path, form, answers| Row { route, method, path, form, answers };
    vec![
        row("BadTarget", "GET", "/v0/keys/%zz/", &[], BARE(400)),
        row("ServerOptions", "OPTIONS", "*", &[], BARE(200)),
        row("Redirect", "GET", "/v0//keys/", &[], BARE(301)),
        row("MethodNotAllowed", "PATCH", "/v0/keys/k/", &[], BARE(405)),
        row("NotFound", "GET", "/v0/keys", &[], [NOBODY, NOBODY, (404, 8), (404, 8)]),
        // §4.1: any authenticated principal.
        row("List", "GET", "/v0/keys/", &[], [NOBODY, NOBODY, OK, OK]),
        // §4.2: any user; the matrix asks for an id that exists, so nobody makes one.
        row("Create", "POST", "/v0/keys/", &[("id", "k"), ("data", "YQ==")], [NOBODY, NOBODY, (400, 2), (400, 2)]),
        row("Read", "GET", "/v0/keys/k/", &[], [NOBODY, NOBODY, FORBIDDEN, OK]),
        // §4.5: any authenticated principal.
        row("Acl", "GET", "/v0/keys/k/access/", &[], [NOBODY, NOBODY, OK, OK]),
        row("PutAccess", "PUT", "/v0/keys/k/access/", &[("acl", "[]")], [NOBODY, NOBODY, FORBIDDEN, OK]),
        row("AddVersion", "POST", "/v0/keys/k/versions/", &[("data", "YQ==")], [NOBODY, NOBODY, FORBIDDEN, OK]),
        row("UpdateVersion", "PUT", "/v0/keys/k/versions/VERSION/", &[("status", "\"Primary\"")], [NOBODY, NOBODY, FORBIDDEN, (400, 11)]),
        row("Delete", "DELETE", "/v0/keys/k/", &[], [NOBODY, NOBODY, FORBIDDEN, OK]),
    ]
}

macro_rules! routes {
    ($($name:ident),* $(,)?) => {
        /// Every route's name.
        const ROUTES: &[&str] = &[$(stringify!($name)),*];

        /// A route's name. A new variant does not compile here until it is named below, and then needs a row.
        fn name(routed: &Routed<'_>) -> &'static str {
            match routed { $(Routed::$name { .. } => stringify!($name)),* }
        }
    };
}

routes! {
    BadTarget, ServerOptions, Redirect, MethodNotAllowed, NotFound, List, Create, Read, Delete, Acl, PutAccess, AddVersion, UpdateVersion,
}

#[test]
fn every_route_has_a_row_that_leads_to_it() {
    let rows = rows();
    let mut led_to: Vec<_> = rows.iter().map(|r| name(&route(r.method, r.path.as_bytes(), None))).collect();
    assert_eq!(led_to, rows.iter().map(|r| r.route).collect::<Vec<_>>());
    let mut routes = ROUTES.to_vec();
    led_to.sort_unstable();
    routes.sort_unstable();
    assert_eq!(led_to, routes);
}

fn ask(client: &mut Client, row: &Row, authorization: &str, version: &str) -> Verdict {
    let answer = client.knox(row.method, &row.path.replace("VERSION", version), authorization, row.form).unwrap();
    verdict(&answer)
}

fn check(server: &TestServer, kind: &str, callers: [(&str, &str); 4]) {
    let acl = r#"[{"type":"Machine","id":"dev-machine","access":"Admin"},{"type":"Service","id":"spiffe://dev.claviger/service","access":"Admin"}]"#;
    let version = create(server, "k", "YQ==", acl);
    for row in rows() {
        for ((certificate, authorization), expected) in callers.into_iter().zip(row.answers) {
            // §4.2: only users create; that is refused before the id is looked at.
            let expected = if kind != "user" && row.route == "Create" && expected == (400, 2) { FORBIDDEN } else { expected };
            // A bad target closes the connection, so each has its own.
            let mut client = super::connect(server, certificate);
            assert_eq!(
                ask(&mut client, &row, authorization, &version),
                expected,
                "{kind}: {} as {certificate} {authorization:?}",
                row.route
            );
        }
    }
}

#[test]
fn users_get_what_the_table_says() {
    check(&server(""), "user", [("none", ""), ("none", "0uwrong"), ("none", "0ubob-token"), ("none", "0ualice-token")]);
}

#[test]
fn machines_get_what_the_table_says() {
    check(&server(""), "machine", [("machine", ""), ("machine", "0tother"), ("host1", "0thost1.x.com"), ("machine", "0tdev-machine")]);
}

#[test]
fn services_get_what_the_table_says() {
    check(&server(""), "service", [("service", ""), ("foreign-service", "0sx"), ("ci", "0sx"), ("service", "0sx")]);
}
