//! Entry points for fuzzers: each takes what a disk, a local user or a file may hold and must return, whatever it is.

use crate::entry::Entry;
use crate::knox_folder::{CachedKey, Listed};
use crate::times::Contact;

/// Reads `bytes` as an entry of the cache, and as the record of the last contact.
///
/// # Panics
/// When what was read is written in another way.
pub fn entry(bytes: &[u8]) {
    if let Ok(entry) = Entry::from_bytes(bytes) {
        assert_eq!(&entry.to_bytes()[..], bytes);
    }
    let _ = Contact::from_bytes(bytes);
}

/// Reads `bytes` as Knox's registration list and as a cached key's file.
///
/// # Panics
/// When a list is not the same after it was written and read again.
pub fn knox_files(bytes: &[u8]) {
    let listed = Listed::parse(bytes);
    assert_eq!(Listed::parse(&listed.to_bytes()).ids, listed.ids);
    if let Ok(key) = CachedKey::parse(bytes) {
        let again = CachedKey::parse(&key.to_json(None));
        assert!(again.is_ok_and(|again| again.id == key.id && again.versions.len() == key.versions.len()));
    }
}

/// Reads `text` as a configuration, up to its check.
pub fn configuration(text: &str) {
    use crate::config::{Accounts, Config, Overrides, Raw};
    if let Ok(raw) = Raw::parse(text) {
        // Refusal is as good an end as any.
        let _ = Config::resolve(raw, Overrides::default(), &Accounts::default());
    }
}

/// Reads `bytes` as what a local program sends.
///
/// # Panics
/// When a request is longer than what came.
pub fn request(bytes: &[u8]) {
    if let Ok(Some((_, length))) = crate::serve::request::parse(bytes) {
        assert!(length <= bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_request_a_list_a_key_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,300}") {
            for bytes in [&bytes[..], text.as_bytes(), &[b"GET /v1/secrets/", &bytes[..], b" HTTP/1.1\r\n\r\n"].concat()] {
                super::request(bytes);
                super::knox_files(bytes);
            }
        }
    }
}
