//! Entry points for fuzzing: each takes any bytes and checks what must hold for all of them.
//!
//! They panic when an invariant is broken. Fuzz targets call them; the tests of this file run them on generated input.

use super::form::{Body, Poll};
use super::json::AclField;
use super::route::Routed;
use super::types::AccessEntry;
use super::{base64, form as forms, json as decoder, number, quote as quoting, route as router, types, validate};

const FORM: Option<&[u8]> = Some(b"application/x-www-form-urlencoded");

/// Form bodies: a field found is found in the order of declaration whatever else is there, and content types of any
/// form are survived.
pub fn form(data: &[u8]) {
    let [id, value] = forms::fields(FORM, None, Body::Whole(data), ["id", "data"]);
    let [value_first, id_second] = forms::fields(FORM, None, Body::Whole(data), ["data", "id"]);
    // The first declared field is missing from a spoiled form; the others never depend on the order.
    assert!(id.is_none() || id == id_second);
    assert!(value_first.is_none() || value_first == value);
    let [spoiled, kept] = forms::fields(FORM, Some(b"a;b"), Body::Whole(data), ["id", "data"]);
    assert!(spoiled.is_none() && kept == value);
    let _ = forms::fields(Some(data), None, Body::Whole(b"id=a"), ["id"]);
    assert_eq!(forms::query_value(Some(data), "id"), id_second);
}

/// Poll queries: only names that stand in the query are asked for.
pub fn poll(data: &[u8]) {
    let Poll::Changed(asked) = forms::poll(Some(data)) else {
        return;
    };
    assert!(!asked.is_empty());
    let separators = data.iter().filter(|byte| **byte == b'&').count();
    assert!(asked.len() <= separators + 1);
    assert!(asked.iter().all(|(name, value)| name.len() + value.len() <= data.len()));
}

/// JSON: whatever decodes can be encoded and decodes to the same again; the syntax check agrees with another parser.
pub fn json(data: &[u8]) {
    // serde_json stops at depth 128 and refuses bad UTF-8; below that the two must agree on what is JSON.
    if let Ok(text) = std::str::from_utf8(data)
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    {
        assert_eq!(decoder::check(data), Ok(()));
    }
    let _ = decoder::decode_access_field(data);
    if let Ok(acl) = decoder::decode_acl(data, AclField::Create) {
        assert_eq!(decoder::check(data), Ok(()));
        let mut text = Vec::new();
        if types::write_acl(&mut text, acl.iter().map(AccessEntry::as_ref)).is_ok() {
            assert_eq!(decoder::decode_acl(&text, AclField::Create), Ok(acl));
        }
    }
    let mut text = Vec::new();
    decoder::write_string(&mut text, data);
    assert_eq!(decoder::check(&text), Ok(()));
    assert!(text.iter().all(|byte| !b"<>&\n".contains(byte)));
}

/// Base64: encoding round trips, and an error's offset lies within the input.
pub fn base64(data: &[u8]) {
    let mut text = Vec::new();
    base64::encode_standard(&mut text, data);
    assert_eq!(base64::decode_standard(&text).as_deref(), Ok(data));
    for decoded in [base64::decode_standard(data), base64::decode_raw_url(data)] {
        match decoded {
            Ok(bytes) => assert!(bytes.len() <= data.len()),
            Err(error) => assert!(error.0 <= data.len()),
        }
    }
    // A line break between any two bytes changes nothing.
    let broken: Vec<u8> = text.iter().flat_map(|byte| [*byte, b'\n']).collect();
    assert_eq!(base64::decode_standard(&broken).as_deref(), Ok(data));
}

/// Request targets: keys never hold a slash, and a redirect is a clean printable target that redirects no further.
pub fn route(data: &[u8]) {
    let (path, query) = router::split_target(data);
    for method in ["GET", "PUT", "POST", "CONNECT", "OPTIONS"] {
        match router::route(method, path, query) {
            Routed::Redirect { location } => {
                assert!(location.iter().all(|byte| !byte.is_ascii_control() && *byte != b' '));
                if path.starts_with(b"/") {
                    assert!(location.starts_with(b"/") && !location.starts_with(b"//"));
                    let (path, query) = router::split_target(&location);
                    let again = router::route(method, path, query);
                    assert!(!matches!(again, Routed::Redirect { .. } | Routed::BadTarget), "{again:?}");
                }
            }
            Routed::Read { key } | Routed::PutAccess { key } | Routed::AddVersion { key } | Routed::Acl { key } => {
                assert!(!key.is_empty() && !key.contains(&b'/'));
            }
            Routed::UpdateVersion { key, version } => {
                assert!(!key.is_empty() && !key.contains(&b'/'));
                assert!(!version.is_empty() && !version.contains(&b'/'));
            }
            Routed::BadTarget => {
                // A target that begins with a slash is bad only for a byte or an escape that is.
                let has_bad_byte = data.iter().any(|byte| byte.is_ascii_control() || *byte == b' ');
                let is_decodable = router::decoded_path(method, path).is_some();
                assert!(has_bad_byte || !is_decodable || !data.starts_with(b"/"));
            }
            _ => {}
        }
    }
}

/// Principals: any text is judged, and a prefix that passes ends in a slash.
pub fn principal(data: &[u8]) {
    let id = String::from_utf8_lossy(data);
    let rules = validate::PrincipalRules::default();
    for kind in [types::PrincipalType::Service, types::PrincipalType::ServicePrefix] {
        let verdict = validate::principal(kind, &id, rules);
        assert!(kind == types::PrincipalType::Service || verdict.is_err() || id.ends_with('/'));
    }
}

/// Numbers and quoting: a number that parses prints as its digits, and a quoted text is one line of printable text.
pub fn number(data: &[u8]) {
    if let Ok(number) = number::parse_uint(data) {
        let digits = String::from_utf8_lossy(data);
        let significant = digits.trim_start_matches('0');
        assert_eq!(number.to_string(), if significant.is_empty() { "0" } else { significant });
    }
    let quoted = quoting::quote(data);
    assert!(quoted.starts_with('"') && quoted.ends_with('"') && !quoted.contains(char::is_control));
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Bytes made of the tokens that matter to `parser`, mixed with any bytes.
    fn soup(tokens: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let token = proptest::sample::select(tokens).prop_map(|token| token.as_bytes().to_vec());
        let piece = prop_oneof![8 => token, 1 => vec(any::<u8>(), 0..3)];
        vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn forms_and_polls_survive_anything(
            data in soup(&["id", "data", "=", "&", ";", "%", "%4", "%41", "%zz", "+", "a", "\"", "; charset=", "\\"])
        ) {
            super::form(&data);
            super::poll(&data);
        }

        #[test]
        fn json_survives_anything(
            data in soup(&[
                "{", "}", "[", "]", ",", ":", "\"", "\"type\"", "\"id\"", "\"access\"", "\"User\"", "\"Read\"", "null",
                "tru", "true", "1", "-", "0", ".5", "e+", "\\u", "d800", "\\ud83d\\ude00", "\\", " ", "[{\"id\":",
            ])
        ) {
            super::json(&data);
        }

        #[test]
        fn base64_survives_anything(data in soup(&["YQ", "==", "=", "\n", "\r", "A", "-", "_", "/", "+", "YWFh"])) {
            super::base64(&data);
        }

        #[test]
        fn targets_survive_anything(
            data in soup(&[
                "/", "/v0/keys/", "..", ".", "%2e", "%2F", "%", "?", "\"", "access/", "versions/", "7", "K", "*",
                "http://", "h:80", "[::1]", "@", "#", "a%20b", ":",
            ])
        ) {
            super::route(&data);
        }

        #[test]
        fn principals_survive_anything(
            data in soup(&["spiffe", "://", "dom", "/", "%", "%41", "@", ":", "80", "[", "]", "::1", "%25", "#", "?"])
        ) {
            super::principal(&data);
        }

        #[test]
        fn numbers_survive_anything(data in soup(&["0", "9", "18446744073709551615", "-", "+", "_", "\u{ad}", "\t"])) {
            super::number(&data);
        }
    }
}
