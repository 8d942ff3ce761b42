//! A cached key as its file has it: the JSON that Knox's server sends, and for Tink keys the combined keyset beside it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_domain::SecretBytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// A key in the cache: what may be read of it, and the hash that a poll compares.
#[derive(Debug)]
pub struct CachedKey {
    /// Its id; also the file's name.
    pub id: String,
    /// Active and primary versions, oldest first.
    pub versions: Vec<CachedVersion>,
    /// The version hash.
    pub hash: String,
    /// The combined Tink keyset (binary), for ids that start with `tink:`.
    pub tink_keyset: Option<SecretBytes>,
}

/// One version.
#[derive(Debug)]
pub struct CachedVersion {
    /// Its id.
    pub id: u64,
    /// The value.
    pub data: SecretBytes,
    /// `Primary`, `Active` or `Inactive`.
    pub status: String,
    /// When it was made, in nanoseconds since 1970.
    pub created: i64,
}

/// A file that is no cached key. It says nothing of what the file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadKey {
    /// It is not the JSON of a key.
    #[error("it is not the JSON of a key")]
    Json,
    /// `id` or `hash` is empty, or `acl` or `versions` is missing or null.
    #[error("it lacks `id`, `hash`, `acl` or `versions`")]
    Incomplete,
    /// A version's data or the keyset is not base64.
    #[error("a value in it is not base64")]
    Base64,
    /// It is the file of another key.
    #[error("it is another key's")]
    OtherKey,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default)]
    id: String,
    #[serde(default)]
    acl: Option<Vec<serde_json::Value>>,
    #[serde(default)]
    versions: Option<Vec<WireVersion>>,
    #[serde(default)]
    hash: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(default, rename = "tinkKeyset", skip_serializing_if = "String::is_empty")]
    tink_keyset: String,
}

/// Empty data is `null`, as Go writes it.
#[derive(Serialize, Deserialize)]
struct WireVersion {
    id: u64,
    #[serde(default)]
    data: Option<String>,
    status: String,
    ts: i64,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.tink_keyset.zeroize();
        for version in self.versions.iter_mut().flatten() {
            version.data.zeroize();
        }
    }
}

impl CachedKey {
    /// Reads a file.
    ///
    /// # Errors
    /// [`BadKey`]; Knox's daemon deletes such a file and fetches it again.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadKey> {
        // The parser's message may quote the value.
        let mut wire: Wire = serde_json::from_slice(bytes).map_err(|_| BadKey::Json)?;
        let versions = wire.versions.take();
        let Some(versions) = versions.filter(|_| !wire.id.is_empty() && !wire.hash.is_empty() && wire.acl.is_some()) else {
            return Err(BadKey::Incomplete);
        };
        let versions = versions.into_iter().map(CachedVersion::from_wire).collect::<Result<_, _>>()?;
        let tink_keyset = match wire.tink_keyset.as_str() {
            "" => None,
            text => Some(decode(text)?),
        };
        Ok(Self { id: std::mem::take(&mut wire.id), versions, hash: std::mem::take(&mut wire.hash), tink_keyset })
    }

    /// The file's content; with `path` as `register -g` prints it, which no file has.
    #[must_use]
    pub fn to_json(&self, path: Option<&str>) -> Zeroizing<Vec<u8>> {
        let version = |v: &CachedVersion| WireVersion {
            id: v.id,
            data: Some(STANDARD.encode(v.data.expose())).filter(|text| !text.is_empty()),
            status: v.status.clone(),
            ts: v.created,
        };
        let wire = Wire {
            id: self.id.clone(),
            acl: Some(Vec::new()),
            versions: Some(self.versions.iter().map(version).collect()),
            hash: self.hash.clone(),
            path: path.unwrap_or_default().to_owned(),
            tink_keyset: self.tink_keyset.as_ref().map(|keyset| STANDARD.encode(keyset.expose())).unwrap_or_default(),
        };
        Zeroizing::new(serde_json::to_vec(&wire).expect("strings and numbers are always JSON"))
    }

    /// The primary version.
    #[must_use]
    pub fn primary(&self) -> Option<&CachedVersion> {
        self.versions.iter().find(|version| version.status == "Primary")
    }
}

impl CachedVersion {
    fn from_wire(mut wire: WireVersion) -> Result<Self, BadKey> {
        let text = Zeroizing::new(wire.data.take().unwrap_or_default());
        Ok(Self { id: wire.id, data: decode(&text)?, status: wire.status, created: wire.ts })
    }
}

fn decode(text: &str) -> Result<SecretBytes, BadKey> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3 + 3));
    STANDARD.decode_vec(text, &mut bytes).map_err(|_| BadKey::Base64)?;
    Ok(SecretBytes::new(std::mem::take(&mut *bytes)))
}

impl fmt::Display for CachedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FILE: &str = r#"{"id":"k:1","acl":[],"versions":[{"id":2799019145226080063,"data":"aGVsbG8=","status":"Primary","ts":1795344987385876162}],"hash":"c94acbf7"}"#;

    #[test]
    fn a_file_of_knox_comes_out_as_it_went_in() {
        let key = CachedKey::parse(FILE.as_bytes()).unwrap();
        assert_eq!(key.primary().unwrap().data.expose(), b"hello");
        assert_eq!(key.primary().unwrap().id, 2_799_019_145_226_080_063);
        assert_eq!(String::from_utf8_lossy(&key.to_json(None)), FILE);
        let with_path = String::from_utf8(key.to_json(Some("/var/lib/knox/v0/keys/k:1")).to_vec()).unwrap();
        assert!(with_path.ends_with(r#""hash":"c94acbf7","path":"/var/lib/knox/v0/keys/k:1"}"#), "{with_path}");
        assert!(!format!("{key:?}").contains("hello"));
    }

    #[test]
    fn empty_data_is_null_and_a_keyset_comes_last() {
        let file =
            r#"{"id":"tink:aead:a","acl":[],"versions":[{"id":1,"data":null,"status":"Active","ts":-3}],"hash":"h","tinkKeyset":"AAE="}"#;
        let key = CachedKey::parse(file.as_bytes()).unwrap();
        assert_eq!(key.tink_keyset.as_ref().unwrap().expose(), [0, 1]);
        assert_eq!(String::from_utf8_lossy(&key.to_json(None)), file);
    }

    #[test]
    fn what_is_incomplete_or_no_key_is_told_apart_and_never_quoted() {
        let table = [
            ("", BadKey::Json),
            ("hunter2", BadKey::Json),
            (r#"{"id":"","acl":[],"versions":[],"hash":"h"}"#, BadKey::Incomplete),
            (r#"{"id":"a","acl":null,"versions":[],"hash":"h"}"#, BadKey::Incomplete),
            (r#"{"id":"a","acl":[],"hash":"h"}"#, BadKey::Incomplete),
            (r#"{"id":"a","acl":[],"versions":[]}"#, BadKey::Incomplete),
            (r#"{"id":"a","acl":[],"versions":[{"id":1,"data":"hunter2!","status":"Primary","ts":1}],"hash":"h"}"#, BadKey::Base64),
        ];
        for (file, expected) in table {
            let error = CachedKey::parse(file.as_bytes()).unwrap_err();
            assert_eq!(error, expected, "{file}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
