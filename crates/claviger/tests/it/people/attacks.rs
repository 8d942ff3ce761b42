//! Two providers at once, one of them hostile; and browsers that come back with what is not theirs.

use super::Site;
use super::provider::Provider;
use std::io::{Read, Write};
use std::net::TcpStream;

fn two() -> (Provider, Provider, Site) {
    let (corp, partner) = (Provider::start(), Provider::start());
    let config = corp.section("corp", "") + &partner.section("partner", "user_prefix = \"partner:\"\ngroups_prefix = \"partner:\"");
    let site = Site::of(&config);
    (corp, partner, site)
}

/// Asks the program's own page as a browser would; the answer whole.
fn visit(url: &str) -> String {
    let (host, target) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(format!("GET /{target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The value of a parameter.
fn parameter<'u>(url: &'u str, name: &str) -> &'u str {
    let start = url.find(&format!("{name}=")).unwrap_or_else(|| panic!("{name} in {url}")) + name.len() + 1;
    url[start..].split('&').next().unwrap()
}

/// A nonce of the server's.
pub(super) fn nonce(site: &Site) -> String {
    let answer = site.server.client().unwrap().request("GET", "/api/v1/login", &[], b"").unwrap();
    answer.json()["nonce"].as_str().unwrap().to_owned()
}

/// What alice gets from her provider for a program of her own.
pub(super) fn id_token(provider: &Provider, client: &str, nonce: &str) -> String {
    let (verifier, challenge) = ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    let redirect = "http%3A%2F%2F127.0.0.1%3A9%2Fcallback";
    let url = format!(
        "{}/auth?response_type=code&client_id={client}&redirect_uri={redirect}&scope=openid%20profile&state=s&nonce={nonce}\
         &code_challenge={challenge}&code_challenge_method=S256",
        provider.issuer
    );
    let landed = provider.browse(&url, "alice", "print");
    let form = format!(
        "grant_type=authorization_code&code={}&redirect_uri={redirect}&client_id={client}&code_verifier={verifier}",
        parameter(&landed, "code")
    );
    let answer = provider.ask("POST", "/token", &[("Content-Type", "application/x-www-form-urlencoded")], form.as_bytes());
    answer.json()["id_token"].as_str().unwrap().to_owned()
}

#[test]
fn of_two_issuers_one_is_chosen_and_their_people_have_different_names() {
    let (corp, partner, site) = two();
    let (code, _, err) = site.run(&["login"]);
    assert!(code == 2 && err.contains("corp, partner") && err.contains("--issuer"), "{err}");
    let (code, _, err) = site.run(&["login", "--issuer", "other"]);
    assert!(code == 2 && err.contains("corp, partner"), "{err}");
    partner.set_groups("alice", "ops,corp-admins");
    for (name, provider, who) in [("corp", &corp, "user:alice"), ("partner", &partner, "user:partner:alice")] {
        let login = site.begin(&["--no-browser", "--issuer", name]);
        assert_eq!(provider.browse(&login.shown, "alice", "visit"), "200");
        let (code, out, err) = login.end();
        assert!(code == 0 && out.contains(&format!("logged in as {who} by {name}")), "{out}{err}");
    }
    let out = site.run(&["whoami"]).1;
    assert!(out.contains("partner:ops,partner:corp-admins") && !out.contains(" ops"), "{out}");
}

#[test]
fn a_code_of_one_issuer_in_the_answer_to_another_is_not_redeemed() {
    let (corp, partner, site) = two();
    // The victim means to log in at `corp`. The attacker gets a code of `partner` to the victim's own state: by its `iss` it is
    // seen before the code goes anywhere.
    let login = site.begin(&["--no-browser", "--issuer", "corp"]);
    let elsewhere = login.shown.replace(&corp.issuer, &partner.issuer);
    let mixed = partner.browse(&elsewhere, "mallory", "print");
    assert_eq!(parameter(&mixed, "state"), parameter(&login.shown, "state"));
    assert!(visit(&mixed).starts_with("HTTP/1.1 200"));
    let (code, _, err) = login.end();
    assert!(code == 5 && err.contains("another login (iss)"), "{err}");

    // Without `iss`, or with a forged one, the code goes to `corp` alone, which never gave it out.
    let login = site.begin(&["--no-browser", "--issuer", "corp"]);
    let mixed = partner.browse(&login.shown.replace(&corp.issuer, &partner.issuer), "mallory", "print");
    let bare = mixed.split("&iss=").next().unwrap().to_owned();
    assert!(visit(&bare).starts_with("HTTP/1.1 200"));
    let (code, _, err) = login.end();
    assert!(code == 5 && err.contains("another login (no iss)"), "{err}");
    let login = site.begin(&["--no-browser", "--issuer", "corp"]);
    let mixed = partner.browse(&login.shown.replace(&corp.issuer, &partner.issuer), "mallory", "print");
    let forged = format!("{}&iss={}", mixed.split("&iss=").next().unwrap(), corp.issuer.replace(':', "%3A").replace('/', "%2F"));
    assert!(visit(&forged).starts_with("HTTP/1.1 200"));
    let (code, _, err) = login.end();
    assert!(code == 5 && err.contains("invalid_grant"), "{err}");
    assert!(!site.file().exists());
}

#[test]
fn another_logins_state_or_a_foreign_page_ends_nothing_and_leads_nowhere() {
    let provider = Provider::start();
    let site = Site::at(&provider);
    let login = site.begin(&["--no-browser"]);
    let page = parameter(&login.shown, "redirect_uri").to_owned();
    let other = site.begin(&["--no-browser"]);
    let others_answer = provider.browse(&other.shown, "mallory", "print");
    // The attacker's whole answer, sent to the victim's port: a login in the attacker's name, were it taken.
    let fixed = format!("{page}?{}", others_answer.split_once('?').unwrap().1);
    for url in [fixed, format!("{page}?code=x&state="), format!("{page}?next=https://evil.example"), page.replace("/callback", "/")] {
        let answer = visit(&url);
        assert!(answer.starts_with("HTTP/1.1 4") && !answer.contains("ocation:") && !answer.contains("evil"), "{url}: {answer}");
    }
    assert_eq!(provider.browse(&login.shown, "alice", "visit"), "200");
    let (code, out, err) = login.end();
    assert!(code == 0 && out.contains("user:alice"), "{out}{err}");
    // An answer that was taken is taken once: nobody listens any more.
    assert!(TcpStream::connect(page.strip_prefix("http://").unwrap().split('/').next().unwrap()).is_err());
    assert_eq!(provider.browse(&other.shown, "bob", "visit"), "200");
    assert!(other.end().1.contains("user:bob"));
}

#[test]
fn an_id_token_for_another_client_or_seen_before_opens_no_session() {
    let provider = Provider::start();
    let site = Site::at(&provider);
    let nonce = || nonce(&site);
    let id_token = |client: &str, nonce: &str| id_token(&provider, client, nonce);
    let open = |token: &str| {
        let body = serde_json::json!({ "issuer": "corp", "id_token": token }).to_string();
        let json = [("Content-Type", "application/json")];
        site.server.client().unwrap().request("POST", "/api/v1/session", &json, body.as_bytes()).unwrap()
    };
    let refused = |token: &str, why: &str| {
        let answer = open(token);
        assert!(answer.status == 401 && answer.text().contains(why), "{why}: {}", answer.text());
    };
    refused(&id_token("another", &nonce()), "another client");
    refused(&id_token("claviger", "of-my-own"), "nonce was not given out");
    let good = id_token("claviger", &nonce());
    // Its bytes with another algorithm in front, and unsigned.
    let (_, claims_and_signature) = good.split_once('.').unwrap();
    let none = "eyJhbGciOiJub25lIn0";
    refused(&format!("{none}.{claims_and_signature}"), "algorithm");
    refused(&format!("{none}.{}.", claims_and_signature.split('.').next().unwrap()), "algorithm");
    let session = open(&good);
    assert_eq!(session.status, 201, "{}", session.text());
    refused(&good, "used before");
    let outcomes: Vec<_> = site.records("login").iter().map(|r| r["outcome"].as_str().unwrap().to_owned()).collect();
    assert_eq!(outcomes, ["unauthenticated", "ok", "unauthenticated", "unauthenticated", "unauthenticated", "unauthenticated"]);

    // Every form of no credential and of a wrong one at the routes of people.
    let ask = |method: &str, target: &str, token: Option<&str>| {
        let bearer = token.map(|t| format!("Bearer {t}"));
        let headers: Vec<_> = bearer.iter().map(|b| ("Authorization", b.as_str())).collect();
        site.server.client().unwrap().request(method, target, &headers, b"").unwrap().status
    };
    let token = session.json()["token"].as_str().unwrap().to_owned();
    for wrong in [None, Some("x"), Some(good.as_str()), Some(&token[..46])] {
        assert_eq!(ask("DELETE", "/api/v1/session", wrong), 401, "{wrong:?}");
        assert_eq!(ask("GET", "/api/v1/keys", wrong), 401, "{wrong:?}");
    }
    assert_eq!(ask("GET", "/api/v1/login", Some("x")), 200);
    assert_eq!(ask("DELETE", "/api/v1/session", Some(site.server.env("CLAVIGER_TOKEN"))), 400, "no session");
    assert_eq!(ask("DELETE", "/api/v1/session", Some(&token)), 200);
    assert_eq!(ask("DELETE", "/api/v1/session", Some(&token)), 401);
}

#[test]
fn a_server_that_names_another_issuer_than_before_is_not_followed_there() {
    let (corp, evil) = (Provider::start(), Provider::start());
    let before = Site::at(&corp);
    before.log_in(&corp, "alice");
    assert_eq!(before.run(&["logout"]).0, 0);
    // One of another configuration, which the person's file takes for the same.
    let site = Site::at(&evil);
    let known = std::fs::read_to_string(before.file().with_extension("issuers")).unwrap();
    std::fs::create_dir_all(site.file().parent().unwrap()).unwrap();
    let same = known.replace(&before.server.address().to_string(), &site.server.address().to_string());
    let file = rustix::fs::open(
        site.file().with_extension("issuers"),
        rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
        rustix::fs::Mode::from_raw_mode(0o600),
    );
    std::fs::File::from(file.unwrap()).write_all(same.as_bytes()).unwrap();

    let refused = |arguments: &[&str], says: &[&str]| {
        let login = site.begin(&[&["--no-browser"], arguments].concat());
        assert!(!login.shown.starts_with("https://"), "no address is shown: {}", login.shown);
        let (code, out, err) = login.end();
        assert!(code == 5 && out.is_empty() && says.iter().all(|text| err.contains(text)), "{err}");
        assert!(!site.file().exists());
    };
    refused(&[], &[&corp.issuer, &evil.issuer, "--accept-issuer"]);
    refused(&["--issuer", "corp"], &[&corp.issuer, &evil.issuer]);
    refused(&["--issuer-url", &corp.issuer], &["which you demand", &evil.issuer]);
    // Who knows better says so.
    for (arguments, is_new) in [(&["--no-browser", "--accept-issuer"][..], true), (&["--no-browser"], false)] {
        let login = site.begin(arguments);
        assert_eq!(evil.browse(&login.shown, "alice", "visit"), "200");
        let (code, _, err) = login.end();
        assert_eq!((code, err.contains("another issuer will be refused")), (0, is_new), "{err}");
    }
    let login = before.begin(&["--no-browser", "--issuer-url", &corp.issuer]);
    assert_eq!(corp.browse(&login.shown, "alice", "visit"), "200");
    assert_eq!(login.end().0, 0);
}
