//! The routes by which people log in and out, with everything that can be shown there: their part of the committed table of who
//! may do what.

use super::Site;
use super::attacks::{id_token, nonce};
use super::provider::Provider;
use serde_json::{Value, json};

/// What was asked, with what, and what came of it.
type Row = (&'static str, &'static str, String);

struct Stage {
    site: Site,
    rows: Vec<Row>,
}

impl Stage {
    /// Asks with a credential or none, and writes down what was answered; the answer's body.
    fn ask(&mut self, route: &'static str, with: &'static str, bearer: Option<&str>, body: Option<&Value>) -> Value {
        let (method, target) = route.split_once(' ').unwrap();
        let bearer = bearer.map(|token| format!("Bearer {token}"));
        let mut headers: Vec<_> = bearer.iter().map(|b| ("Authorization", b.as_str())).collect();
        let body = body.map(|b| serde_json::to_vec(b).unwrap()).unwrap_or_default();
        if !body.is_empty() {
            headers.push(("Content-Type", "application/json"));
        }
        let answer = self.site.server.client().unwrap().request(method, target, &headers, &body).unwrap();
        let json = answer.json();
        let code = json["code"].as_str().map(|code| format!(" {code}")).unwrap_or_default();
        self.rows.push((route, with, format!("{}{code}", answer.status)));
        json
    }
}

#[test]
fn the_routes_of_logins_and_sessions_do_for_each_credential_what_the_table_says() {
    const METHODS: &str = "GET /api/v1/login";
    const OPEN: &str = "POST /api/v1/session";
    const END: &str = "DELETE /api/v1/session";
    const USE: &str = "GET /api/v1/keys";
    let (provider, other) = (Provider::start(), Provider::start());
    let site = Site::at(&provider);
    let (administrator, first) = (site.server.env("CLAVIGER_TOKEN").to_owned(), nonce(&site));
    let (good, foreign) = (id_token(&provider, "claviger", &first), id_token(&other, "claviger", &nonce(&site)));
    let another_client = id_token(&provider, "another", &nonce(&site));
    let (own_nonce, renewal) = (id_token(&provider, "claviger", "of-my-own"), id_token(&provider, "claviger", &nonce(&site)));
    let of_corp = |token: &str| json!({ "issuer": "corp", "id_token": token });
    let mut s = Stage { site, rows: Vec::new() };

    s.ask(METHODS, "nothing", None, None);
    s.ask(METHODS, "an unknown token", Some("x"), None);
    s.ask(OPEN, "nothing", None, None);
    s.ask(OPEN, "the administrator's token and no ID token", Some(&administrator), Some(&json!({ "issuer": "corp" })));
    s.ask(OPEN, "something that is no ID token", None, Some(&of_corp("x.y.z")));
    s.ask(OPEN, "an ID token, and an issuer that is not configured", None, Some(&json!({ "issuer": "x", "id_token": good })));
    s.ask(OPEN, "an ID token of another issuer", None, Some(&of_corp(&foreign)));
    s.ask(OPEN, "an ID token for another client", None, Some(&of_corp(&another_client)));
    s.ask(OPEN, "an ID token with a nonce that the server did not give", None, Some(&of_corp(&own_nonce)));
    let forged = json!({ "issuer": "corp", "id_token": renewal, "ticket": "x" });
    s.ask(OPEN, "an ID token and a ticket that the server did not give", None, Some(&forged));
    let session = s.ask(OPEN, "an ID token of the issuer, for this client, with the server's nonce", None, Some(&of_corp(&good)));
    s.ask(OPEN, "the same ID token again", None, Some(&of_corp(&good)));
    let token = session["token"].as_str().unwrap().to_owned();
    s.ask(USE, "the session's token", Some(&token), None);
    s.ask(USE, "the ID token itself", Some(&good), None);
    s.ask(USE, "the session's ticket", session["ticket"].as_str(), None);
    s.ask(END, "nothing", None, None);
    s.ask(END, "an unknown token", Some("x"), None);
    s.ask(END, "the ID token itself", Some(&good), None);
    s.ask(END, "the administrator's token, which is no session's", Some(&administrator), None);
    s.ask(END, "the session's token", Some(&token), None);
    s.ask(END, "the same token again", Some(&token), None);
    s.ask(USE, "the token of the session that was ended", Some(&token), None);

    let done: Vec<_> = s.rows.iter().filter(|(.., found)| found.starts_with('2')).map(|(route, with, _)| (*route, *with)).collect();
    let expected = [
        (METHODS, "nothing"),
        (METHODS, "an unknown token"),
        (OPEN, "an ID token of the issuer, for this client, with the server's nonce"),
        (USE, "the session's token"),
        (END, "the session's token"),
    ];
    assert_eq!(done, expected);
    crate::matrix::table::check("people", &crate::matrix::table::people(&s.rows));
}
