//! Entry points for fuzzers of what the server reads besides requests: its configuration, the access callback's answers,
//! notes of broken glass, and records of its own log. Each takes bytes from outside and must return, whatever they are.

use crate::config::Config;
use crate::run::Recalled;
use crate::{callback, emergency};
use std::path::Path;

/// Reads `text` as a configuration, once as it stands and once as a development server's.
///
/// # Panics
/// When an error does not name its place.
pub fn configuration(text: &str) {
    for dev in [false, true] {
        if let Err(error) = Config::parse(Path::new("fuzz.toml"), text, std::iter::empty(), dev) {
            assert!(error.place.starts_with("fuzz.toml"), "{error}");
        }
    }
    // A field of the environment is a name and a value.
    if let Some((name, value)) = text.split_once('=') {
        let _ = Config::parse(Path::new("fuzz.toml"), "", std::iter::once((name.to_owned(), value.to_owned())), false);
    }
}

/// Reads `line` as an access callback's answer.
///
/// # Panics
/// When something else than the one permission permits.
pub fn callback_answer(line: &str) {
    if callback::answer(line).is_ok_and(|allow| allow) {
        let bare: String = line.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        assert!(bare.ends_with(":true}"), "{line}");
    }
}

/// Reads `bytes` as a note that `break-glass` left.
pub fn break_glass_note(bytes: &[u8]) {
    if let Some(note) = emergency::Note::read(bytes) {
        assert_eq!(serde_json::to_vec(&note).ok().and_then(|bytes| emergency::Note::read(&bytes)), Some(note));
    }
}

/// Reads `entry` as a record of the audit log, as a start does.
pub fn recalled(entry: &[u8]) {
    if let Some(record) = Recalled::read(entry) {
        let _ = (record.tells_of_change(), record.at(), record.newest());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIGURATION: &str = "[server]\nlisten = [\"127.0.0.1:0\"]\n[tls]\ncertificate = \"c.pem\"\nprivate_key = \"k.pem\"\n";
    const RECORD: &str =
        r#"{"time":"2027-01-15T08:00:00.000000001Z","request":"00ff","action":"create","outcome":"ok","revision":"1.2","head":"1.3"}"#;

    /// `good` with a part replaced: such get further into a parser than random ones.
    fn changed(good: &str, at: prop::sample::Index, length: usize, with: &str) -> String {
        let mut bytes = good.as_bytes().to_vec();
        let at = at.index(bytes.len());
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, with.bytes());
        String::from_utf8_lossy(&bytes).into_owned()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,80}") {
            configuration(&text);
            callback_answer(&text);
            break_glass_note(text.as_bytes());
            recalled(text.as_bytes());
        }

        #[test]
        fn configurations_never_panic(
            at in any::<prop::sample::Index>(),
            length in 0usize..20,
            with in "(\\[(limits|auth|knox|keys|log|audit|dev\\.user|\\[knox\\.service_creator\\])\\]?\n|[a-z_]{1,8} ?= ?|\"|ä|-?[0-9]{1,20}|\\{|\\}|\\[|\\]|\n){0,6}",
        ) {
            configuration(&changed(CONFIGURATION, at, length, &with));
        }

        #[test]
        fn answers_notes_and_records_never_panic(at in any::<prop::sample::Index>(), length in 0usize..12, with in "[ -~ä]{0,8}") {
            callback_answer(&changed(r#"{"allow":true}"#, at, length, &with));
            break_glass_note(changed(r#"{"name":"a.break-glass.claviger","reason":"b","by":"c"}"#, at, length, &with).as_bytes());
            recalled(changed(RECORD, at, length, &with).as_bytes());
        }
    }
}
