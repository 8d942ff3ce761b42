//! Logins, renewals and logouts over the routes, at an issuer on this machine.

use super::*;
use crate::people::testing::Provider;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_authn::{Algorithm, Names, OidcRules, Prefixes};
use serde_json::json;
use std::time::Duration;

fn issuer(name: &'static str, provider: &Provider) -> crate::config::IssuerConfig {
    crate::config::IssuerConfig {
        rules: OidcRules {
            name: name.into(),
            method: format!("oidc:{name}").leak(),
            issuer: provider.url.clone(),
            client_id: "claviger".into(),
            algorithms: Algorithm::ALL.to_vec(),
            skew: Duration::from_secs(30),
            user_claim: vec!["preferred_username".into()],
            groups_claim: Some(vec!["groups".into()]),
            device_flow: false,
            session_total: Duration::from_secs(3600),
        },
        scopes: vec!["openid".into()],
        prompt: None,
        ca: "/nowhere".into(),
        has_own_ca: false,
        loopback_http: true,
    }
}

fn config(issuers: Vec<crate::config::IssuerConfig>) -> PeopleConfig {
    let prefixes = |i: &crate::config::IssuerConfig| {
        let prefix = if &*i.rules.name == "corp" { String::new() } else { format!("{}:", i.rules.name) };
        Prefixes { source: i.rules.name.clone(), users: prefix.as_str().into(), groups: prefix.as_str().into() }
    };
    let names = Names::new(issuers.iter().map(prefixes).collect()).unwrap();
    PeopleConfig { issuers, github: None, names, session: Duration::from_secs(900) }
}

/// A world with one issuer, `corp`.
async fn world() -> (World, Provider) {
    let provider = Provider::start().await;
    let world = World::with_people(Arc::new(MemStore::new()), &config(vec![issuer("corp", &provider)])).await;
    world.records();
    (world, provider)
}

impl World {
    async fn nonce(&self) -> String {
        self.get(NO_CREDENTIAL, "/login").await.json()["nonce"].as_str().unwrap().to_owned()
    }

    fn claims(&self, provider: &Provider, nonce: &str) -> Value {
        let now = self.clock.now().0 / 1_000_000_000;
        json!({
            "iss": provider.url, "aud": "claviger", "sub": "s-1", "exp": now + 600, "iat": now, "nonce": nonce,
            "preferred_username": "alice", "groups": ["ops"],
        })
    }

    async fn open(&self, token: &str, ticket: Option<&str>) -> Reply {
        let body = json!({ "issuer": "corp", "id_token": token, "ticket": ticket }).to_string();
        self.call(NO_CREDENTIAL, "POST", "/session", &[], &body.replace(r#","ticket":null"#, "")).await
    }

    /// Logs alice in; gives token and ticket.
    async fn log_in(&self, provider: &Provider) -> (String, String) {
        let token = provider.sign(&self.claims(provider, &self.nonce().await));
        let reply = self.open(&token, None).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        let text = |name: &str| reply.json()[name].as_str().unwrap().to_owned();
        (text("token"), text("ticket"))
    }

    /// A token as the issuer gives it for a refresh token: no nonce.
    fn refreshed(&self, provider: &Provider, change: impl Fn(&mut Value)) -> String {
        let mut claims = self.claims(provider, "");
        claims.as_object_mut().unwrap().remove("nonce");
        change(&mut claims);
        provider.sign(&claims)
    }
}

#[tokio::test]
async fn a_login_is_a_session_and_its_record_names_issuer_and_person() {
    let (world, provider) = world().await;
    let methods = world.get(NO_CREDENTIAL, "/login").await;
    assert_eq!(methods.json()["issuers"][0]["client_id"], "claviger");
    assert_eq!(methods.header("Cache-Control"), "no-store");
    let (token, ticket) = world.log_in(&provider).await;
    let who = world.get(&token, "/whoami").await.json();
    assert_eq!(who["identities"], json!([{ "type": "user", "id": "alice", "groups": ["ops"], "method": "oidc:corp" }]));
    assert_eq!(who["session_expires"], "2027-01-15T08:15:00Z");
    let kept = world.records();
    let login = kept.iter().find(|k| k.action == "login").unwrap();
    assert_eq!((login.outcome, login.who.as_deref()), ("ok", Some("alice")));
    assert!(login.all.contains("oidc:corp") && login.reason.contains("subject `s-1`"), "{}", login.all);
    assert!(kept.iter().all(|k| !k.all.contains(&token) && !k.all.contains(&ticket)));
    // The grants of `user:alice` count for her.
    world.must(201, &token, "POST", "/keys", &format!(r#"{{"id":"team/x","data":"{}"}}"#, base64(b"v"))).await;
}

#[tokio::test]
async fn without_a_good_token_nobody_gets_a_session() {
    let (world, provider) = world().await;
    let nonce = world.nonce().await;
    let good = provider.sign(&world.claims(&provider, &nonce));
    let unknown = json!({ "issuer": "other", "id_token": good }).to_string();
    assert_eq!(world.call(NO_CREDENTIAL, "POST", "/session", &[], &unknown).await.problem(), "400 invalid issuer");
    for body in ["", "{}", r#"{"issuer":"corp"}"#, r#"{"issuer":"corp","id_token":"x","more":1}"#] {
        let reply = world.call(NO_CREDENTIAL, "POST", "/session", &[("Content-Type", "application/json")], body).await;
        assert_eq!(reply.status, 400, "{body}");
    }
    world.records();
    let mut table = vec![(good[..good.len() - 1].to_owned(), "malformed"), ("a.b.c".to_owned(), "malformed")];
    for (name, value, why) in [
        ("iss", json!("https://evil.example"), "another issuer"),
        ("aud", json!("other"), "another client"),
        ("exp", json!(1), "expired"),
        ("nonce", json!("made-up"), "nonce"),
        ("nonce", json!(null), "nonce"),
        ("preferred_username", json!("claviger:x"), "prefix"),
    ] {
        let mut claims = world.claims(&provider, &nonce);
        claims[name] = value;
        table.push((provider.sign(&claims), why));
    }
    for (token, why) in &table {
        let reply = world.open(token, None).await;
        assert_eq!(reply.problem(), "401 unauthenticated", "{why}");
        let kept = world.records();
        let record = kept.last().unwrap();
        assert_eq!((record.action, record.outcome, &record.who), ("login", "unauthenticated", &None), "{why}");
        assert!(record.reason.contains(why) && record.reason.starts_with("corp: "), "{why}: {}", record.reason);
        assert!(!record.all.contains(token.as_str()));
    }
    assert_eq!(world.open(&good, None).await.status, 201, "the failures have used nothing up");
    assert_eq!(world.open(&good, None).await.problem(), "401 unauthenticated", "a second session by the same token");
    let second = provider.sign(&world.claims(&provider, &nonce));
    assert_eq!(world.open(&second, None).await.problem(), "401 unauthenticated", "or by the same nonce");
}

#[tokio::test]
async fn a_session_ends_by_time_and_a_renewal_brings_the_groups_of_now() {
    let (world, provider) = world().await;
    let (token, ticket) = world.log_in(&provider).await;
    world.clock.forward(899);
    assert_eq!(world.get(&token, "/whoami").await.status, 200);
    world.clock.forward(1);
    assert_eq!(world.get(&token, "/whoami").await.problem(), "401 unauthenticated");
    let refreshed = world.refreshed(&provider, |claims| claims["groups"] = json!(["dev"]));
    let reply = world.open(&refreshed, Some(&ticket)).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let json = reply.json();
    assert_eq!(json["identity"]["groups"], json!(["dev"]));
    assert_eq!(world.get(json["token"].as_str().unwrap(), "/whoami").await.status, 200);
    assert_eq!(world.open(&refreshed, Some(&ticket)).await.problem(), "401 unauthenticated", "the same token again");
    assert!(world.records().iter().any(|k| k.action == "renew_session" && k.outcome == "ok" && k.who.as_deref() == Some("alice")));
}

#[tokio::test]
async fn a_renewal_needs_the_ticket_of_the_same_person_and_has_an_end() {
    let (world, provider) = world().await;
    let (_, ticket) = world.log_in(&provider).await;
    let refreshed = || world.refreshed(&provider, |claims| claims["jti"] = json!(world.engine.revision().to_string()));
    assert_eq!(world.open(&refreshed(), None).await.problem(), "401 unauthenticated", "without a ticket it is no login");
    let mut forged = ticket.clone();
    forged.insert(3, 'A');
    assert_eq!(world.open(&refreshed(), Some(&forged)).await.problem(), "401 unauthenticated");
    let other = world.refreshed(&provider, |claims| claims["sub"] = json!("s-2"));
    assert_eq!(world.open(&other, Some(&ticket)).await.problem(), "401 unauthenticated");
    world.clock.forward(3000);
    let reply = world.open(&refreshed(), Some(&ticket)).await;
    assert_eq!(reply.json()["expires"], reply.json()["renewable_until"], "no session outlives its login");
    world.clock.forward(600);
    let late = world.open(&refreshed(), Some(&ticket)).await;
    assert_eq!(late.problem(), "401 unauthenticated");
    assert!(late.text.contains("log in again"), "{}", late.text);
}

#[tokio::test]
async fn logout_ends_all_sessions_of_the_login_its_streams_and_its_renewal() {
    let (world, provider) = world().await;
    let (token, ticket) = world.log_in(&provider).await;
    let (other, _) = world.log_in(&provider).await;
    let renewed = world.open(&world.refreshed(&provider, |_| {}), Some(&ticket)).await.json()["token"].as_str().unwrap().to_owned();
    let stream = world.call(&renewed, "GET", "/watch?prefix=team/", &[], "").await;
    let ResponseBody::Stream(mut stream) = stream.response.body else { panic!("no stream") };
    use futures::StreamExt;
    assert!(stream.next().await.is_some(), "it is live");
    assert_eq!(world.call(ALICE, "DELETE", "/session", &[], "").await.problem(), "400 invalid authorization", "no session");
    assert_eq!(world.call(NO_CREDENTIAL, "DELETE", "/session", &[], "").await.problem(), "401 unauthenticated");
    assert_eq!(world.call(&token, "DELETE", "/session", &[], "").await.status, 200);
    assert!(stream.next().await.is_none(), "it ends with its session");
    for token in [&token, &renewed] {
        assert_eq!(world.get(token, "/whoami").await.problem(), "401 unauthenticated");
    }
    assert_eq!(world.get(&other, "/whoami").await.status, 200, "another login of the same person");
    let refreshed = world.refreshed(&provider, |claims| claims["jti"] = json!("later"));
    assert_eq!(world.open(&refreshed, Some(&ticket)).await.problem(), "401 unauthenticated");
    let kept = world.records();
    assert!(kept.iter().any(|k| k.action == "logout" && k.who.as_deref() == Some("alice")));
    assert!(kept.iter().any(|k| k.action == "watch" && k.outcome == "unauthenticated"), "the stream's end is recorded");
}

#[tokio::test]
async fn a_session_ends_on_a_connection_that_was_proven_by_it() {
    let (world, provider) = world().await;
    let (token, _) = world.log_in(&provider).await;
    let connection = Connection::new(([10, 9, 9, 9], 1).into(), "test".into(), None);
    let bearer = format!("Bearer {token}");
    let ask = || {
        let head = Head::build("GET", "/api/v1/whoami", &[("Authorization", &bearer)]).unwrap();
        world.native.handle(Request { head, body: RequestBody::Complete(Bytes::new()), connection: connection.clone() })
    };
    assert_eq!(ask().await.status, 200);
    world.clock.forward(900);
    for _ in 0..30 {
        assert_eq!(ask().await.status, 401, "an ended session is no guess, and locks nobody out");
    }
}

#[tokio::test]
async fn no_session_is_given_out_when_its_record_cannot_be_kept() {
    let (world, provider) = world().await;
    let token = provider.sign(&world.claims(&provider, &world.nonce().await));
    world.audit.full.store(true, Ordering::SeqCst);
    assert_eq!(world.open(&token, None).await.problem(), "507 storage_full");
    assert_eq!(world.open("a.b.c", None).await.problem(), "507 storage_full");
    assert_eq!(world.get(NO_CREDENTIAL, "/login").await.problem(), "507 storage_full");
    world.audit.full.store(false, Ordering::SeqCst);
    let (session, _) = world.log_in(&provider).await;
    world.audit.full.store(true, Ordering::SeqCst);
    assert_eq!(world.call(&session, "DELETE", "/session", &[], "").await.problem(), "507 storage_full");
    world.audit.full.store(false, Ordering::SeqCst);
    assert_eq!(world.get(&session, "/whoami").await.status, 401, "it is ended all the same");
}

#[tokio::test]
async fn one_issuers_token_is_nothing_at_another() {
    let (corp, partner) = (Provider::start().await, Provider::start().await);
    let issuers = vec![issuer("corp", &corp), issuer("partner", &partner)];
    let world = World::with_people(Arc::new(MemStore::new()), &config(issuers)).await;
    let at = async |name: &str, token: &str| {
        let body = json!({ "issuer": name, "id_token": token }).to_string();
        world.call(NO_CREDENTIAL, "POST", "/session", &[], &body).await
    };
    let of_partner = partner.sign(&world.claims(&partner, &world.nonce().await));
    assert_eq!(at("corp", &of_partner).await.problem(), "401 unauthenticated");
    let posing_as_corp = partner.sign(&world.claims(&corp, &world.nonce().await));
    for name in ["corp", "partner"] {
        assert_eq!(at(name, &posing_as_corp).await.problem(), "401 unauthenticated", "{name}");
    }
    let reply = at("partner", &of_partner).await.json();
    assert_eq!((&reply["identity"]["id"], &reply["identity"]["groups"][0]), (&json!("partner:alice"), &json!("partner:ops")));
    // Its ticket renews nothing of the other issuer's.
    let ticket = reply["ticket"].as_str().unwrap();
    let refreshed = world.refreshed(&corp, |_| {});
    assert_eq!(world.open(&refreshed, Some(ticket)).await.problem(), "401 unauthenticated");
}

#[tokio::test]
async fn an_issuer_that_cannot_be_asked_is_an_outage_and_no_refusal() {
    let (world, provider) = world().await;
    provider.set_down(true);
    let token = provider.sign(&world.claims(&provider, &world.nonce().await));
    assert_eq!(world.open(&token, None).await.problem(), "503 unavailable");
    provider.set_down(false);
    world.clock.forward(10);
    assert_eq!(world.open(&token, None).await.status, 201);
}

/// The other form of a signature on P-256: (r, n - s) verifies wherever (r, s) does, and everybody can make it.
fn other_form(signature: &[u8]) -> Vec<u8> {
    const N: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17,
        0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let mut other = signature.to_vec();
    let mut borrow = 0;
    for (place, n) in N.iter().enumerate().rev() {
        let difference = i16::from(*n) - i16::from(signature[32 + place]) - borrow;
        borrow = i16::from(difference < 0);
        other[32 + place] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    other
}

#[tokio::test]
async fn a_used_token_is_used_in_the_other_form_of_its_signature_too() {
    let provider = Provider::start().await;
    let with_device_flow = |mut issuer: crate::config::IssuerConfig| {
        issuer.rules.device_flow = true;
        issuer
    };
    let people = config(vec![with_device_flow(issuer("corp", &provider))]);
    let world = World::with_people(Arc::new(MemStore::new()), &people).await;
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    provider.publish(json!({ "kty": "EC", "crv": "P-256", "kid": "es", "x": encode(x), "y": encode(y) }));
    let mut claims = world.claims(&provider, "");
    claims.as_object_mut().unwrap().remove("nonce");
    let signed = format!("{}.{}", encode(br#"{"alg":"ES256","kid":"es"}"#), encode(claims.to_string().as_bytes()));
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    let token = |signature: &[u8]| format!("{signed}.{}", encode(signature));
    let first = world.open(&token(signature.as_ref()), None).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let ticket = first.json()["ticket"].as_str().unwrap().to_owned();
    let other = token(&other_form(signature.as_ref()));
    for ticket in [None, Some(&*ticket)] {
        let again = world.open(&other, ticket).await;
        assert_eq!(again.problem(), "401 unauthenticated", "{}", again.text);
        assert!(again.text.contains("used before"), "{}", again.text);
    }
}
