//! Entry points for fuzzers, one per parser. Each also runs as a unit test on random input.

use crate::{AlertLimits, Alerts, frame, note};
use claviger_domain::audit::Record;
use claviger_ports::{AuditSink, LogCheckpoint};
use futures::future::BoxFuture;
use std::sync::Arc;

/// Parses `data` as a part's header and, behind it, as a frame; checks what the parser promises.
pub fn fuzz_frame(data: &[u8]) {
    let _ = frame::PartHeader::decode(data);
    let Some((header, body)) = data.split_at_checked(frame::FRAME_HEADER) else { return };
    let Some(parsed) = frame::FrameHeader::decode(header) else { return };
    if let Some(entries) = frame::split_body(body) {
        let total: usize = entries.iter().map(|entry| entry.len() + 4).sum();
        assert_eq!(total, body.len(), "entries cover the body exactly");
    }
    let _ = frame::check(&[0; 16], 0, &parsed, header, body);
}

/// Parses `data` as a signed checkpoint and as a history of them.
pub fn fuzz_checkpoint(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = note::parse_note(text);
    let (notes, rest) = note::split_history(text);
    let taken: usize = notes.iter().map(|note| note.len()).sum();
    assert!(taken + rest.len() <= text.len(), "a history is never longer than its text");
}

/// Parses `data` as a verifier key; what parses is written back the same.
pub fn fuzz_verifier_key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = note::VerifierKey::parse(text) {
        assert_eq!(note::VerifierKey::parse(&key.to_string()).as_ref(), Ok(&key));
    }
}

/// Learns who read what from `data` as an entry of the log.
pub fn fuzz_learn(data: &[u8]) {
    Alerts::new(Arc::new(Nowhere), AlertLimits::default()).learn(std::iter::once(data.to_vec()));
}

struct Nowhere;

impl AuditSink for Nowhere {
    fn append(&self, _: &Record<'_>) -> BoxFuture<'static, Result<(), claviger_ports::AuditError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn checkpoint(&self) -> Option<LogCheckpoint> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_of_any_form_are_learned_or_passed_over_without_panic(
            who in "(null|1|\\[\\]|\\[(1|\\{\\}|\\{\"id\":(\"a\"|1|\"\\\\u00e4\"|\"\\\\ud800\")\\})\\])",
            keys in "(null|\\[\\]|\\{\\}|\\[(1|\\{\\}|\\{\"id\":(\"k\"|\\[\\])\\})\\])",
            action in "(\"read\"|\"bulk_read\"|\"create\"|1|null)",
            end in "(\\}|,|)",
        ) {
            fuzz_learn(format!(r#"{{"who":{who},"keys":{keys},"action":{action},"outcome":"ok"{end}"#).as_bytes());
        }
    }
}
