//! Every way in which an ID token can be wrong, with tokens that are signed here.
#![allow(clippy::unwrap_used)]

use crate::jwks::{KeySet, KeySetError};
use crate::jwt::{Algorithm, JwtError, MAX_TOKEN, Unverified};
use crate::jwt_testing::{SIGNERS, Signer, encode, set};
use crate::login::nonce_digest;
use crate::names::{NameError, Names, Prefixes};
use crate::oidc::{OidcError, OidcLogin, OidcRules, Purpose};
use claviger_domain::{Identity, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;

/// Now, in seconds.
const T: i64 = 1_800_000_000;

fn rules() -> OidcRules {
    OidcRules {
        name: "corp".into(),
        method: "oidc:corp",
        issuer: "https://idp.example".into(),
        client_id: "claviger".into(),
        algorithms: Algorithm::ALL.to_vec(),
        skew: Duration::from_secs(30),
        user_claim: vec!["preferred_username".into()],
        groups_claim: Some(vec!["groups".into()]),
        device_flow: false,
        session_total: Duration::from_secs(12 * 3600),
    }
}

fn names() -> Names {
    let prefixes = |source: &str, prefix: &str| Prefixes { source: source.into(), users: prefix.into(), groups: prefix.into() };
    Names::new(vec![prefixes("corp", ""), prefixes("partner", "partner:")]).unwrap()
}

fn keys() -> KeySet {
    set(&SIGNERS.iter().map(Signer::jwk).collect::<Vec<_>>())
}

fn claims() -> Value {
    json!({
        "iss": "https://idp.example", "aud": "claviger", "sub": "1234", "exp": T + 3600, "iat": T - 5, "nonce": "n1",
        "preferred_username": "alice", "groups": ["ops", "dev"],
    })
}

/// The claims with one changed; null takes it away.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn prove_for(rules: &OidcRules, token: &str, purpose: Purpose<'_>) -> Result<OidcLogin, OidcError> {
    let now = Timestamp(T * 1_000_000_000);
    rules.prove(Unverified::parse(token.as_bytes())?, &keys(), &names(), purpose, now)
}

fn prove(token: &str) -> Result<OidcLogin, OidcError> {
    prove_for(&rules(), token, Purpose::Login)
}

fn es256(claims: &Value) -> String {
    Signer::of(Algorithm::Es256).sign(claims)
}

#[test]
fn a_right_token_of_each_algorithm_proves_its_person() {
    for signer in &*SIGNERS {
        let login = prove(&signer.sign(&claims())).unwrap();
        let groups = ["ops", "dev"].map(Into::into);
        assert_eq!(login.identity, Identity::User { name: "alice".into(), groups: groups.into() }, "{:?}", signer.algorithm);
        assert_eq!(
            (login.subject.as_str(), login.nonce.as_deref(), login.issued),
            ("1234", Some("n1"), Timestamp((T - 5) * 1_000_000_000))
        );
    }
}

#[test]
fn each_wrong_claim_is_refused_by_its_name() {
    use OidcError as E;
    let table: Vec<(&str, Value, OidcError)> = vec![
        ("iss", json!(null), E::Issuer),
        ("iss", json!("https://evil.example"), E::Issuer),
        ("iss", json!("https://idp.example/"), E::Issuer),
        ("iss", json!("HTTPS://idp.example"), E::Issuer),
        ("iss", json!(["https://idp.example"]), E::Issuer),
        ("aud", json!(null), E::Audience),
        ("aud", json!("another"), E::Audience),
        ("aud", json!([]), E::Audience),
        ("aud", json!(["claviger", "another"]), E::Audience),
        ("aud", json!(["another"]), E::Audience),
        ("aud", json!({"claviger": 1}), E::Audience),
        ("azp", json!("another"), E::AuthorizedParty),
        ("azp", json!(["claviger"]), E::AuthorizedParty),
        ("exp", json!(null), E::NoTime),
        ("exp", json!("1900000000"), E::NoTime),
        ("exp", json!(-1), E::NoTime),
        ("exp", json!(1e300), E::NoTime),
        ("exp", json!(T - 30), E::Expired),
        ("exp", json!(T - 3600), E::Expired),
        ("iat", json!(null), E::NoTime),
        ("iat", json!("soon"), E::NoTime),
        ("iat", json!(T + 31), E::Future),
        ("iat", json!(T - 331), E::Stale),
        ("nbf", json!(T + 31), E::Future),
        ("nbf", json!("now"), E::NoTime),
        ("auth_time", json!(T + 31), E::Future),
        ("auth_time", json!(T - 12 * 3600 - 31), E::TooOld),
        ("auth_time", json!([]), E::NoTime),
        ("nonce", json!(null), E::Nonce),
        ("nonce", json!(7), E::Nonce),
        ("sub", json!(null), E::Subject),
        ("sub", json!(""), E::Subject),
        ("sub", json!("x".repeat(256)), E::Subject),
        ("sub", json!(1234), E::Subject),
        ("preferred_username", json!(null), E::NoUser),
        ("preferred_username", json!(["alice"]), E::NoUser),
        ("preferred_username", json!(""), E::User(NameError::Malformed)),
        ("preferred_username", json!("al\nice"), E::User(NameError::Malformed)),
        ("preferred_username", json!("partner:alice"), E::User(NameError::Foreign)),
        ("preferred_username", json!("claviger:root"), E::User(NameError::Foreign)),
        ("groups", json!({"ops": true}), E::Groups),
        ("groups", json!(["ops", 7]), E::Groups),
        ("groups", json!(vec!["g"; 1001]), E::Groups),
    ];
    for (name, value, expected) in table {
        assert_eq!(prove(&es256(&with(name, value.clone()))).unwrap_err(), expected, "{name} = {value}");
    }
}

#[test]
fn what_lies_within_the_skew_or_is_written_otherwise_is_taken() {
    let table = [
        ("exp", json!(T - 29)),
        ("exp", json!(T as f64 + 0.5)),
        ("iat", json!(T + 30)),
        ("iat", json!(T - 330)),
        ("nbf", json!(T + 30)),
        ("auth_time", json!(T - 12 * 3600)),
        ("aud", json!(["claviger"])),
        ("azp", json!("claviger")),
        ("groups", json!("ops")),
    ];
    for (name, value) in table {
        prove(&es256(&with(name, value.clone()))).unwrap_or_else(|e| panic!("{name} = {value}: {e}"));
    }
    for none in [json!(null), json!([])] {
        let Identity::User { groups, .. } = prove(&es256(&with("groups", none))).unwrap().identity else { unreachable!() };
        assert!(groups.is_empty());
    }
}

#[test]
fn the_header_chooses_neither_the_algorithm_nor_the_key() {
    use JwtError as J;
    let es = Signer::of(Algorithm::Es256);
    let (ed, rs) = (Signer::of(Algorithm::EdDsa), Signer::of(Algorithm::Rs256));
    let body = claims();
    let header = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid });
    let unsigned = |alg: &str| format!("{}.{}.", encode(header(alg, "es256").to_string()), encode(body.to_string()));
    // The public key, taken as a shared secret: the oldest trick.
    let hmac_with_public_key = {
        let signed = format!("{}.{}", encode(header("HS256", "rs").to_string()), encode(body.to_string()));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, rs.jwk()["n"].as_str().unwrap().as_bytes());
        format!("{signed}.{}", encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes())))
    };
    let stranger = Signer::new(Algorithm::Es256, "es256");
    let brings_its_key = {
        let mut header = header("ES256", "mine");
        header["jwk"] = stranger.jwk();
        header["jku"] = "https://evil.example/keys".into();
        stranger.sign_as(&header, &body)
    };
    let table = [
        (unsigned("none"), J::Algorithm),
        (unsigned("None"), J::Algorithm),
        (unsigned(""), J::Algorithm),
        (unsigned("ES256"), J::Signature),
        (hmac_with_public_key, J::Algorithm),
        (es.sign_as(&header("HS512", "es256"), &body), J::Algorithm),
        (es.sign_as(&header("RS512", "es256"), &body), J::Algorithm),
        (es.sign_as(&header("es256", "es256"), &body), J::Algorithm),
        (es.sign_as(&header("ES384", "es256"), &body), J::UnknownKey),
        (rs.sign_as(&header("PS256", "rs"), &body), J::UnknownKey),
        (es.sign_as(&header("ES256", "ed"), &body), J::UnknownKey),
        (ed.sign_as(&header("ES256", "es256"), &body), J::Signature),
        (es.sign_as(&header("ES256", "unheard-of"), &body), J::UnknownKey),
        (stranger.sign(&body), J::Signature),
        (brings_its_key, J::UnknownKey),
        (es.sign_as(&json!({"alg": "ES256", "kid": "es256", "crit": ["exp"]}), &body), J::OtherKind),
        (es.sign_as(&json!({"alg": "ES256", "kid": "es256", "crit": []}), &body), J::OtherKind),
        (es.sign_as(&json!({"alg": "ES256", "kid": "es256", "typ": "at+jwt"}), &body), J::OtherKind),
        (es.sign_as(&json!({"alg": "ES256", "kid": "es256", "typ": "logout+jwt"}), &body), J::OtherKind),
        (es.sign_as(&json!({"alg": "ES256", "kid": "es256", "cty": "JWT"}), &body), J::OtherKind),
        (es.sign_as(&json!({"alg": ["ES256"], "kid": "es256"}), &body), J::Malformed),
        (es.sign_as(&json!({"kid": "es256"}), &body), J::Malformed),
        (es.sign_as(&json!("ES256"), &body), J::Malformed),
    ];
    for (i, (token, expected)) in table.into_iter().enumerate() {
        assert_eq!(prove(&token).unwrap_err(), OidcError::Jwt(expected), "row {i}");
    }
}

#[test]
fn an_issuer_s_own_list_of_algorithms_is_kept() {
    let rules = OidcRules { algorithms: vec![Algorithm::Es256], ..rules() };
    prove_for(&rules, &es256(&claims()), Purpose::Login).unwrap();
    for signer in SIGNERS.iter().filter(|s| s.algorithm != Algorithm::Es256) {
        let refused = prove_for(&rules, &signer.sign(&claims()), Purpose::Login).unwrap_err();
        assert_eq!(refused, OidcError::Jwt(JwtError::Algorithm), "{:?}", signer.algorithm);
    }
}

#[test]
fn a_token_of_another_form_is_refused() {
    use JwtError as J;
    let good = es256(&claims());
    let mut parts: Vec<_> = good.split('.').map(str::to_owned).collect();
    let of = |parts: &[String]| parts.join(".");
    let long = es256(&with("padding", json!("x".repeat(MAX_TOKEN))));
    parts[2].push('=');
    let padded = of(&parts);
    parts[2] = good.split('.').next_back().unwrap().to_owned();
    let last = parts[2].pop().unwrap();
    // 64 bytes leave two bits over: another letter with the same upper bits would be the same signature.
    let another = if last == 'A' { 'B' } else { char::from(last as u8 + 1) };
    parts[2].push(another);
    let (malleable, cut) = (of(&parts), of(&parts[..2]));
    let array = Signer::of(Algorithm::Es256).sign(&json!([claims()]));
    for (token, expected) in [
        (String::new(), J::Malformed),
        (cut, J::Malformed),
        ("..".to_owned(), J::Malformed),
        (format!("{good}.x"), J::Malformed),
        ("a.b.c.d.e".to_owned(), J::Encrypted),
        (format!(" {good}"), J::Malformed),
        (format!("{good}\n"), J::Malformed),
        (padded, J::Malformed),
        (malleable, J::Malformed),
        (array, J::Malformed),
        (long, J::TooLong),
    ] {
        assert_eq!(prove(&token).unwrap_err(), OidcError::Jwt(expected), "{token}");
    }
}

#[test]
fn any_changed_byte_breaks_a_token() {
    for signer in &*SIGNERS {
        let good = signer.sign(&claims());
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone().into_bytes();
            bad[at] = if bad[at] == b'Q' { b'R' } else { b'Q' };
            assert!(prove(std::str::from_utf8(&bad).unwrap()).is_err(), "{:?} at {at}", signer.algorithm);
        }
    }
}

#[test]
fn a_renewal_is_the_same_persons_and_of_the_same_login() {
    let renewal = |subject, nonce: &str| Purpose::Renewal { subject, nonce: nonce_digest(Some(nonce)) };
    let (same, bare) = (es256(&claims()), es256(&with("nonce", json!(null))));
    for token in [&same, &bare] {
        prove_for(&rules(), token, renewal("1234", "n1")).unwrap();
        assert_eq!(prove_for(&rules(), token, renewal("9999", "n1")).unwrap_err(), OidcError::Subject);
    }
    assert_eq!(prove_for(&rules(), &same, renewal("1234", "n2")).unwrap_err(), OidcError::Nonce);
}

#[test]
fn a_login_without_a_nonce_needs_the_device_flow_to_be_allowed() {
    let bare = es256(&with("nonce", json!(null)));
    assert_eq!(prove(&bare).unwrap_err(), OidcError::Nonce);
    let rules = OidcRules { device_flow: true, ..rules() };
    assert_eq!(prove_for(&rules, &bare, Purpose::Login).unwrap().nonce, None);
}

#[test]
fn an_address_of_e_mail_names_somebody_only_where_it_is_verified() {
    let rules = OidcRules { user_claim: vec!["email".into()], ..rules() };
    let mut claims = with("email", json!("alice@example.com"));
    let mut ask = |verified: Value| {
        claims["email_verified"] = verified;
        prove_for(&rules, &es256(&claims), Purpose::Login).map(|login| login.identity.id().to_owned())
    };
    assert_eq!(ask(json!(true)).unwrap(), "alice@example.com");
    for not in [json!(false), json!("true"), json!(1), json!(null)] {
        assert_eq!(ask(not.clone()).unwrap_err(), OidcError::UnverifiedEmail, "{not}");
    }
}

#[test]
fn groups_can_lie_deep_and_those_of_others_are_left_out() {
    let rules = OidcRules { groups_claim: Some(vec!["realm_access".into(), "roles".into()]), ..rules() };
    let claims = with("realm_access", json!({"roles": ["ops", "partner:admins", "claviger:break-glass", ""]}));
    let login = prove_for(&rules, &es256(&claims), Purpose::Login).unwrap();
    let Identity::User { groups, .. } = login.identity else { unreachable!() };
    assert_eq!((groups.len(), &*groups[0], login.groups_left_out), (1, "ops", 3));
    let none = OidcRules { groups_claim: None, ..rules };
    let Identity::User { groups, .. } = prove_for(&none, &es256(&claims), Purpose::Login).unwrap().identity else { unreachable!() };
    assert!(groups.is_empty());
}

#[test]
fn a_token_that_names_no_key_is_taken_only_where_one_key_can_have_made_it() {
    let es = Signer::of(Algorithm::Es256);
    let nameless = es.sign_as(&json!({ "alg": "ES256" }), &claims());
    let ask = |keys: &KeySet| Unverified::parse(nameless.as_bytes()).unwrap().verify(keys, &Algorithm::ALL).map(drop);
    assert_eq!(ask(&keys()), Ok(()), "the other keys are of other kinds");
    let second = Signer::new(Algorithm::Es256, "second");
    assert_eq!(ask(&set(&[es.jwk(), second.jwk()])), Err(JwtError::NoKeyName));
    assert_eq!(ask(&set(&[Signer::of(Algorithm::EdDsa).jwk()])), Err(JwtError::UnknownKey));
}

#[test]
fn keys_that_are_not_for_verifying_are_passed_over() {
    let es = Signer::of(Algorithm::Es256);
    let changed = |name: &str, value: Value| {
        let mut jwk = es.jwk();
        jwk[name] = value;
        jwk
    };
    let parse = |jwk: Value| KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes());
    parse(changed("alg", Value::Null)).unwrap();
    parse(changed("key_ops", json!(["verify"]))).unwrap();
    for (name, value) in [
        ("use", json!("enc")),
        ("key_ops", json!(["sign"])),
        ("alg", json!("HS256")),
        ("alg", json!("none")),
        ("kty", json!("oct")),
        ("kty", json!("RSA")),
        ("crv", json!("secp256k1")),
        ("x", json!("AAAA")),
        ("y", Value::Null),
        ("d", json!("c2VjcmV0")),
    ] {
        assert_eq!(parse(changed(name, value.clone())), Err(KeySetError::NoKey), "{name} = {value}");
    }
    for bad in ["", "[]", "{}", r#"{"keys":{}}"#] {
        assert_eq!(KeySet::parse(bad.as_bytes()), Err(KeySetError::Malformed), "{bad}");
    }
    let weak = json!({ "kty": "RSA", "kid": "w", "n": encode([0xff_u8; 128]), "e": "AQAB" });
    let signed = Signer::of(Algorithm::Rs256).sign_as(&json!({ "alg": "RS256", "kid": "w" }), &claims());
    let verdict = Unverified::parse(signed.as_bytes()).unwrap().verify(&set(&[weak]), &Algorithm::ALL);
    assert_eq!(verdict, Err(JwtError::Signature), "1,024 bits are no key");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn arbitrary_tokens_and_key_sets_prove_nobody(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[A-Za-z0-9_.{}\":,-]{0,200}") {
        for bytes in [&bytes[..], text.as_bytes()] {
            crate::fuzz::token(bytes);
        }
    }
}
