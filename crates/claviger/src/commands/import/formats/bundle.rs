//! What `claviger export` writes before it encrypts: one JSON object, version 1.
//!
//! ```json
//! {"claviger_export": 1, "made": "2026-11-24T12:00:00Z", "keys": [
//!   {"id": "shop/db-password", "version": "4291508750651556463", "created": "2026-11-01T08:00:00Z", "expires": "…",
//!    "description": "the database", "labels": {"env": "prod"}, "data": "aHVudGVyMg=="}]}
//! ```
//!
//! `data` is base64 with padding; `expires` may be missing. What a key's rights are is not in it: they belong to where it goes.

use super::{Entry, Read, Refused, bounded, text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_domain::SecretBytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The format's number.
pub(crate) const VERSION: u32 = 1;

/// A bundle of keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bundle {
    pub(crate) claviger_export: u32,
    /// RFC 3339.
    pub(crate) made: String,
    pub(crate) keys: Vec<Key>,
}

/// A key's primary version.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) version: String,
    /// RFC 3339.
    pub(crate) created: String,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<String>,
    pub(crate) description: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) data: Data,
}

/// Base64 of a value, wiped when dropped.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub(crate) struct Data(String);

impl Data {
    pub(crate) fn of(value: &SecretBytes) -> Self {
        Self(STANDARD.encode(value.expose()))
    }
}

pub(crate) fn read(bytes: &[u8]) -> Read {
    let bundle: Bundle = serde_json::from_str(text(bytes)?).map_err(|e| {
        Refused::new(format!("what it decrypts to is no bundle of `claviger export` from line {}, column {} on", e.line(), e.column()))
    })?;
    if bundle.claviger_export != VERSION {
        return Err(Refused::new(format!("it is a bundle of version {}; this program knows version {VERSION}", bundle.claviger_export)));
    }
    let entry = |key: Key| {
        let Key { id, description, labels, data, expires, .. } = key;
        let value = STANDARD.decode(data.0.as_bytes()).map(SecretBytes::new).map_err(|_| "its data is no base64");
        Entry { path: id.split('/').map(str::to_owned).collect(), value, description, labels, expires }
    };
    bounded(bundle.keys.into_iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::fuzz::shown;
    use super::*;

    #[test]
    fn bundles_are_read_strictly() {
        let key = |data: &str| {
            format!(r#"{{"id": "a/b", "version": "1", "created": "x", "description": "d", "labels": {{"l": "v"}}, "data": "{data}"}}"#)
        };
        let bundle = |version: u32, keys: &str| format!(r#"{{"claviger_export": {version}, "made": "x", "keys": [{keys}]}}"#);
        let found = read(bundle(1, &key("aHVudGVyMg==")).as_bytes()).unwrap();
        assert_eq!(shown(&found), ["a/b=hunter2"]);
        assert_eq!((found[0].description.as_str(), found[0].labels["l"].as_str()), ("d", "v"));
        assert!(read(bundle(2, "").as_bytes()).unwrap_err().0.contains("version 2"));
        assert_eq!(shown(&read(bundle(1, &key("hunter2!")).as_bytes()).unwrap()), ["a/b!"]);
        let odd = read(br#"{"claviger_export": 1, "made": "x", "keys": ["hunter2"]}"#).unwrap_err().0;
        assert!(!odd.contains("hunter2"), "{odd}");
    }
}
