//! Knox's surface over the wire: golden exchanges, traps, what must never happen, and real clients in Go.
//! Sections (§) are those of the Knox contract that the server is built from.

mod beside_native;
mod cli;
mod credentials;
mod documents;
pub(crate) mod go;
mod golden;
mod log;
mod matrix;
mod never;
mod scenario;
mod traps;

use claviger_testkit::{Client, Options, TestServer};
use credentials::Certificates;

/// The users of these tests. Unlike the administrator, none of them has
/// a right that his grants on a key do not give.
pub(crate) const PEOPLE: &str = r#"
[[dev.user]]
name = "alice"
token = "alice-token"
[[dev.user]]
name = "bob"
token = "bob-token"
[[dev.user]]
name = "carol"
groups = ["ops", "night"]
token = "carol-token"
"#;

/// A server with [`PEOPLE`], more configuration, and a limit on failures that tests do not reach.
pub(crate) fn server(more: &str) -> TestServer {
    let environment = vec![("CLAVIGER__AUTH__FAILURES_BURST".to_owned(), "100000".to_owned())];
    TestServer::start(crate::program(), Options { config: Some(format!("{PEOPLE}\n{more}")), environment }).unwrap()
}

/// A connection with a certificate of [`Certificates::of`].
pub(crate) fn connect(server: &TestServer, certificate: &str) -> Client {
    Certificates::new(server).connect(server, certificate).unwrap()
}

/// Status and code of an answer; 0 where there is no JSON.
pub(crate) fn verdict(answer: &claviger_testkit::Answer) -> (u16, i64) {
    (answer.status, answer.json()["code"].as_i64().unwrap_or(0))
}

/// Creates a key as alice and gives the id of its first version.
pub(crate) fn create(server: &TestServer, id: &str, data: &str, acl: &str) -> String {
    let answer = server.client().unwrap().knox("POST", "/v0/keys/", "0ualice-token", &[("id", id), ("data", data), ("acl", acl)]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"].to_string()
}
