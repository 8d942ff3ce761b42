//! Secrets as the client hands them out: decoded, and wiped when dropped.

use crate::Error;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_domain::{Revision, SecretBytes};
use claviger_wire::native::{BulkItem, KeyData, VersionData};
use zeroize::Zeroizing;

/// A key's data.
#[derive(Debug)]
pub struct Secret {
    /// The key's id.
    pub id: String,
    /// What `If-Match` compares: the key's incarnation and generation.
    pub etag: String,
    /// The revision of its last change.
    pub revision: Revision,
    /// The versions asked for, oldest first.
    pub versions: Vec<SecretVersion>,
    /// Knox's version hash, where it was asked for.
    pub hash: Option<String>,
}

/// One version with its data.
#[derive(Debug)]
pub struct SecretVersion {
    /// Decimal id.
    pub id: String,
    /// primary, active or inactive.
    pub state: String,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339; from then on it is not given out.
    pub expires: Option<String>,
    /// The value.
    pub data: SecretBytes,
}

/// One key of a bulk read.
#[derive(Debug)]
pub struct SecretItem {
    /// The id asked for.
    pub id: String,
    /// Its data, or the code of the problem for which it was not given.
    pub outcome: Result<Secret, String>,
    /// When the key was deleted, with the code `deleted`.
    pub deleted_at: Option<Revision>,
}

impl Secret {
    /// The primary version; absent when it has expired.
    #[must_use]
    pub fn primary(&self) -> Option<&SecretVersion> {
        self.versions.iter().find(|v| v.state == "primary")
    }

    /// Names the value that [`Secret::primary`] has: equal as long as that is the same version of the same key, also
    /// across rights changes; different after a key was deleted and made again.
    #[must_use]
    pub fn primary_identity(&self) -> Option<String> {
        let incarnation = self.etag.split('-').next().unwrap_or_default();
        self.primary().map(|v| format!("{incarnation}/{}", v.id))
    }
}

impl TryFrom<KeyData> for Secret {
    type Error = Error;

    fn try_from(wire: KeyData) -> Result<Self, Error> {
        let KeyData { id, etag, revision, versions, hash } = wire;
        let revision = parse_revision(&revision)?;
        let versions = versions.into_iter().map(SecretVersion::try_from).collect::<Result<_, _>>()?;
        Ok(Self { id, etag, revision, versions, hash })
    }
}

impl TryFrom<VersionData> for SecretVersion {
    type Error = Error;

    fn try_from(wire: VersionData) -> Result<Self, Error> {
        let VersionData { id, state, created, expires, data } = wire;
        let text = Zeroizing::new(data);
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3 + 3));
        STANDARD.decode_vec(text.as_bytes(), &mut bytes).map_err(|_| Error::Malformed(format!("version {id} is not base64")))?;
        Ok(Self { id, state, created, expires, data: SecretBytes::new(std::mem::take(&mut *bytes)) })
    }
}

impl TryFrom<BulkItem> for SecretItem {
    type Error = Error;

    fn try_from(wire: BulkItem) -> Result<Self, Error> {
        let BulkItem { id, data, error, revision } = wire;
        let deleted_at = revision.as_deref().map(parse_revision).transpose()?;
        let outcome = match (data, error) {
            (Some(data), None) => Ok(Secret::try_from(data)?),
            (None, Some(code)) => Err(code),
            _ => return Err(Error::Malformed(format!("the item of `{id}` needs either data or an error"))),
        };
        Ok(Self { id, outcome, deleted_at })
    }
}

/// Base64 with padding, as requests carry values.
pub(crate) fn encode(data: &SecretBytes) -> String {
    STANDARD.encode(data.expose())
}

pub(crate) fn parse_revision(text: &str) -> Result<Revision, Error> {
    Revision::parse(text).ok_or_else(|| Error::Malformed("a revision is not EPOCH.NUMBER".to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn data(etag: &str, versions: &[(&str, &str, &str)]) -> KeyData {
        let version = |&(id, state, data): &(&str, &str, &str)| VersionData {
            id: id.to_owned(),
            state: state.to_owned(),
            created: String::new(),
            expires: None,
            data: data.to_owned(),
        };
        KeyData { id: "a".into(), etag: etag.into(), revision: "1.2".into(), versions: versions.iter().map(version).collect(), hash: None }
    }

    #[test]
    fn the_primary_is_found_and_decoded() {
        let secret = Secret::try_from(data("00ab-3", &[("1", "active", "b2xk"), ("2", "primary", "aHVudGVyMg==")])).unwrap();
        assert_eq!(secret.primary().unwrap().data.expose(), b"hunter2");
        assert_eq!(secret.primary_identity().unwrap(), "00ab/2");
        assert!(!format!("{secret:?}").contains("hunter2"));
    }

    #[test]
    fn bad_base64_is_named_without_the_value() {
        let error = Secret::try_from(data("00ab-3", &[("7", "primary", "hunter2!")])).unwrap_err().to_string();
        assert!(error.contains("version 7") && !error.contains("hunter2"), "{error}");
    }
}
