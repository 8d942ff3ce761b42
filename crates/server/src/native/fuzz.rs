//! Entry points for fuzzers: each takes bytes from outside and must return, whatever they are.

use super::request::{Query, if_match, json, min_revision, path};
use super::routes::{BASE, ROUTES, Routed, route};
use crate::http::{Head, Method};
use claviger_domain::Principal;
use claviger_wire::native::{
    AclBody, AddVersion, AskFingerprints, BulkRead, CreateKey, CreateSession, Decision, Decrypt, Encrypt, FieldError, Hmac, MakeDataKeys,
    OpenShare, PrefixInfo, RulesBody, SetState, Sign, UpdateKey, Verify, acl_entries, parse_acl, rfc3339_to_unix, unix_to_rfc3339,
};
use serde::Deserialize;

/// Reads `target` as a request's target, by every route that its path could be.
///
/// # Panics
/// When a path is accepted that could be read in two ways, or a pattern loses a part of it.
pub fn target(target: &str) {
    let Some(head) = Head::build("GET", target, &[]) else { return };
    let Ok(path) = path(&head) else { return };
    assert!(path.split('/').skip(1).all(|segment| !matches!(segment, "" | "." | "..")), "{path:?}");
    for method in [Method::Get, Method::Put, Method::Post] {
        if let Routed::To(route, caught) = route(method, &path) {
            let again = format!("{BASE}{}", route.pattern.replace("{id}", caught.id).replace("{vid}", caught.version));
            assert_eq!(again, *path);
        }
    }
    for route in ROUTES {
        let _ = Query::parse(head.query.as_deref(), route.query);
    }
}

/// Reads `value` as the conditions that a request's header fields make.
pub fn conditions(value: &str) {
    let Some(head) = Head::build("GET", "/", &[("If-Match", value), ("Claviger-Min-Revision", value)]) else { return };
    let _ = (if_match(&head.headers), min_revision(&head.headers));
}

/// Reads `bytes` as every kind of body.
///
/// # Panics
/// When an error repeats `secret` otherwise than as the name of a member that is not known.
pub fn body(bytes: &[u8], secret: &str) {
    fn read<'b, T: Deserialize<'b>>(head: &Head, bytes: &'b [u8]) -> Option<FieldError> {
        json::<T>(&head.headers, bytes).err()
    }
    let head = Head::build("POST", "/", &[("Content-Type", "application/json")]).expect("a head like this is well formed");
    let errors = [
        read::<CreateKey>(&head, bytes),
        read::<AclBody>(&head, bytes),
        read::<PrefixInfo>(&head, bytes),
        read::<AskFingerprints>(&head, bytes),
        read::<BulkRead>(&head, bytes),
        read::<CreateSession>(&head, bytes),
        read::<AddVersion>(&head, bytes),
        read::<UpdateKey>(&head, bytes),
        read::<SetState>(&head, bytes),
        read::<RulesBody>(&head, bytes),
        read::<Decision>(&head, bytes),
        read::<OpenShare>(&head, bytes),
        read::<Encrypt<'_>>(&head, bytes),
        read::<Decrypt>(&head, bytes),
        read::<MakeDataKeys>(&head, bytes),
        read::<Sign>(&head, bytes),
        read::<Verify>(&head, bytes),
        read::<Hmac>(&head, bytes),
    ];
    for error in errors.into_iter().flatten().filter(|e| !e.rule.starts_with("is no member here")) {
        assert!(!error.to_string().contains(secret), "{error}");
    }
}

/// Reads `text` as a principal, `TYPE:ID`, and as a moment.
///
/// # Panics
/// When what was read is not read again from how it is shown.
pub fn words(text: &str) {
    if let Ok(principal) = text.parse::<Principal>() {
        assert_eq!(principal.to_string().parse().ok(), Some(principal));
    }
    if let Ok(at) = rfc3339_to_unix(text, "expires") {
        assert_eq!(rfc3339_to_unix(&unix_to_rfc3339(at), "expires").ok(), Some(at));
    }
}

/// Reads `bytes` as the entries of an ACL.
///
/// # Panics
/// When an ACL that was read is another one when it is shown and read again.
pub fn acl(bytes: &[u8]) {
    let Ok(body) = serde_json::from_slice::<AclBody>(bytes) else { return };
    if let Ok(acl) = parse_acl(&body.grants, "grants") {
        assert_eq!(parse_acl(&acl_entries(&acl), "grants").ok(), Some(acl));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: &str = "SENTINEL";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn targets_never_panic(text in "/api/v1(/(keys|a|-|data|versions|acl|\\.\\.?|%2[efEF]|%|%00|watch|1|:)?){0,6}(\\?((prefix|id|limit|x)?(=|%|%41|&|\\+|a|1){0,4}){0,4})?") {
            target(&text);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,80}") {
            target(&format!("/{text}"));
            conditions(&text);
            words(&text);
            conditions(&format!("\"{text}\""));
        }

        #[test]
        fn principals_and_moments_never_panic(
            principal in "(user|user_group|machine|machine_prefix|service|service_prefix|x):(spiffe://(a\\.b|A)?/?[a-z/.]{0,6}|\\PC{0,12})",
            moment in "(19|20|22|99)[0-9]{2}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?(Z|z|[+-][0-2][0-9]:[0-6][0-9])?",
        ) {
            words(&principal);
            words(&moment);
        }

        #[test]
        fn acls_never_panic(
            entries in prop::collection::vec(("(user|machine_prefix|service|service_prefix|x):(spiffe://a/[a-z/]{0,4}|[a-z\"ä]{0,6})", "(preset|capabilities|x)", "(\"(read|write|admin|none)\"|\\[(\"(list|read|sign|x)\",?)?\\]|1)"), 0..4),
        ) {
            let entries: Vec<_> = entries.iter().map(|(principal, name, value)| format!(r#"{{"principal":"{principal}","{name}":{value}}}"#)).collect();
            acl(format!(r#"{{"grants":[{}]}}"#, entries.join(",")).as_bytes());
        }

        #[test]
        fn arbitrary_bodies_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            body(&bytes, SECRET);
            acl(&bytes);
        }

        #[test]
        fn bodies_with_secrets_in_wrong_places_do_not_give_them_back(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ":", ",", "\n", "\"id\"", "\"data\"", "\"acl\"", "\"ids\"", "\"labels\"", "\"SENTINEL\"", "\"SENTINEL, expected SENTINEL\"",
                "\"SENTINEL at line 1 column 2\"", "\"\\\"SENTINEL\"", "1", "-1", "1e999", "true", "null", "\"principal\"", "\"grants\"", "\"prefix\"", "\"items\"", "\"plaintext\"",
                "\"aad\"", "\"message\"", "\"bytes\"",
            ]), 0..14),
            head in prop::sample::select(vec!["", "{\"id\":", "{\"data\":\"SENTINEL\",\"id\":", "{\"separate_duties\":", "{\"max_lifetime\":", "{\"ids\":[",
                "{\"items\":[{\"plaintext\":\"SENTINEL\",\"aad\":", "{\"items\":[{\"message\":", "{\"items\":[{\"bytes\":"]),
        ) {
            let text = format!("{head}{}", parts.concat());
            body(text.as_bytes(), SECRET);
        }
    }
}
