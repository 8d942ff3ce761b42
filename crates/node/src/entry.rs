//! One secret as the agent holds it, and its bytes in the sealed cache.
//!
//! The bytes are canonical and length-prefixed; they are read only after the cipher has vouched for them, and still whatever does not
//! fit is refused.

use crate::knox_folder::{CachedKey, CachedVersion};
use claviger_client::Secret;
use claviger_domain::{KeyId, Revision, SecretBytes, Timestamp, VersionState};
use claviger_wire::native::rfc3339_to_unix;
use zeroize::Zeroizing;

/// A secret's last known state.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub id: KeyId,
    /// The key's incarnation and generation.
    pub etag: String,
    /// The revision of the key's last change.
    pub revision: Revision,
    /// The revision that the server had reached when it answered: what was told up to it is in here.
    pub seen: Revision,
    /// Knox's version hash.
    pub hash: Option<String>,
    /// Primary and active versions, oldest first.
    pub versions: Vec<EntryVersion>,
}

/// One version.
#[derive(Debug)]
pub struct EntryVersion {
    /// Its id.
    pub id: u64,
    /// Primary or active.
    pub state: VersionState,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is not given out.
    pub expires: Option<Timestamp>,
    /// The value.
    pub data: SecretBytes,
}

/// Bytes or an answer that are no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no entry of this cache's format")]
pub struct NoEntry;

const FORMAT: u8 = 2;

impl Entry {
    /// The entry that an answer makes; `seen` is the revision that the answer shows at least.
    ///
    /// # Errors
    /// [`NoEntry`] when the answer is of another kind than this agent knows.
    pub fn of(secret: Secret, seen: Revision) -> Result<Self, NoEntry> {
        let Secret { id, etag, revision, versions, hash } = secret;
        let id = KeyId::parse(&id).map_err(|_| NoEntry)?;
        let time = |text: &str| rfc3339_to_unix(text, "time").map_err(|_| NoEntry);
        let versions = versions.into_iter().map(|v| {
            Ok(EntryVersion {
                id: v.id.parse().map_err(|_| NoEntry)?,
                state: state_of(&v.state)?,
                created: time(&v.created)?,
                expires: v.expires.as_deref().map(time).transpose()?,
                data: v.data,
            })
        });
        let versions = versions.collect::<Result<_, NoEntry>>()?;
        // A read may show more than the header says, never less.
        Ok(Self { id, etag, revision, seen: seen.max(revision), hash, versions })
    }

    /// The primary version, unless it has expired at `now`.
    #[must_use]
    pub fn primary_at(&self, now: Timestamp) -> Option<&EntryVersion> {
        self.live_at(now).find(|version| version.state == VersionState::Primary)
    }

    /// The versions that are given out at `now`.
    pub fn live_at(&self, now: Timestamp) -> impl Iterator<Item = &EntryVersion> {
        self.versions.iter().filter(move |version| version.expires.is_none_or(|end| now < end))
    }

    /// The key as Knox's cache has it; nothing where it cannot have it.
    #[must_use]
    pub fn to_knox(&self, now: Timestamp, tink_keyset: Option<SecretBytes>) -> Option<CachedKey> {
        let hash = self.hash.clone().filter(|hash| !hash.is_empty() && self.id.is_knox())?;
        let version = |v: &EntryVersion| CachedVersion {
            id: v.id,
            data: SecretBytes::new(v.data.expose().to_vec()),
            status: if v.state == VersionState::Primary { "Primary" } else { "Active" }.to_owned(),
            created: v.created.0,
        };
        let versions = self.live_at(now).map(version).collect();
        Some(CachedKey { id: self.id.to_string(), versions, hash, tink_keyset })
    }

    /// The entry's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let Self { id, etag, revision, seen, hash, versions } = self;
        let room = 128 + id.as_str().len() + etag.len() + versions.iter().map(|v| 48 + v.data.len()).sum::<usize>();
        let mut out = Writer(Zeroizing::new(Vec::with_capacity(room + hash.as_ref().map_or(0, String::len))));
        out.bytes(&[FORMAT]);
        out.field(id.as_str().as_bytes());
        out.field(etag.as_bytes());
        for revision in [revision, seen] {
            out.bytes(&revision.epoch.to_be_bytes());
            out.bytes(&revision.number.to_be_bytes());
        }
        out.optional(hash.as_deref().map(str::as_bytes), |out, hash| out.field(hash));
        out.bytes(&length(versions.len()));
        for EntryVersion { id, state, created, expires, data } in versions {
            out.bytes(&id.to_be_bytes());
            out.bytes(&[u8::from(*state == VersionState::Primary)]);
            out.bytes(&created.0.to_be_bytes());
            out.optional(*expires, |out, at| out.bytes(&at.0.to_be_bytes()));
            out.field(data.expose());
        }
        out.0
    }

    /// Reads an entry's bytes.
    ///
    /// # Errors
    /// [`NoEntry`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoEntry> {
        let mut from = Reader(bytes);
        if from.array::<1>()? != [FORMAT] {
            return Err(NoEntry);
        }
        let id = KeyId::parse(from.text()?).map_err(|_| NoEntry)?;
        let etag = from.text()?.to_owned();
        let (revision, seen) = (from.revision()?, from.revision()?);
        let hash = from.optional(|from| from.text().map(str::to_owned))?;
        let count = from.number()?;
        let mut versions = Vec::with_capacity(count.min(1000));
        for _ in 0..count {
            let id = u64::from_be_bytes(from.array()?);
            let state = match from.array()? {
                [0] => VersionState::Active,
                [1] => VersionState::Primary,
                _ => return Err(NoEntry),
            };
            let (created, expires) = (from.time()?, from.optional(Reader::time)?);
            versions.push(EntryVersion { id, state, created, expires, data: SecretBytes::new(from.field()?.to_vec()) });
        }
        if from.0.is_empty() { Ok(Self { id, etag, revision, seen, hash, versions }) } else { Err(NoEntry) }
    }
}

fn state_of(name: &str) -> Result<VersionState, NoEntry> {
    match name {
        "primary" => Ok(VersionState::Primary),
        "active" => Ok(VersionState::Active),
        _ => Err(NoEntry),
    }
}

/// Four bytes; what has more items than they count is refused long before, by the size of an answer.
fn length(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes()
}

/// Lays out the bytes of this crate's sealed files.
pub(crate) struct Writer(pub(crate) Zeroizing<Vec<u8>>);

impl Writer {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn field(&mut self, bytes: &[u8]) {
        self.bytes(&length(bytes.len()));
        self.bytes(bytes);
    }

    pub(crate) fn optional<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.bytes(&[u8::from(value.is_some())]);
        if let Some(value) = value {
            put(self, value);
        }
    }
}

/// Takes them apart.
pub(crate) struct Reader<'b>(pub(crate) &'b [u8]);

impl<'b> Reader<'b> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], NoEntry> {
        let (first, rest) = self.0.split_first_chunk().ok_or(NoEntry)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn number(&mut self) -> Result<usize, NoEntry> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| NoEntry)
    }

    pub(crate) fn field(&mut self) -> Result<&'b [u8], NoEntry> {
        let length = self.number()?;
        let (field, rest) = self.0.split_at_checked(length).ok_or(NoEntry)?;
        self.0 = rest;
        Ok(field)
    }

    pub(crate) fn text(&mut self) -> Result<&'b str, NoEntry> {
        std::str::from_utf8(self.field()?).map_err(|_| NoEntry)
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, NoEntry> {
        Ok(Timestamp(i64::from_be_bytes(self.array()?)))
    }

    pub(crate) fn revision(&mut self) -> Result<Revision, NoEntry> {
        Ok(Revision { epoch: u64::from_be_bytes(self.array()?), number: u64::from_be_bytes(self.array()?) })
    }

    pub(crate) fn optional<T>(&mut self, take: impl FnOnce(&mut Self) -> Result<T, NoEntry>) -> Result<Option<T>, NoEntry> {
        match self.array()? {
            [0] => Ok(None),
            [1] => take(self).map(Some),
            _ => Err(NoEntry),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// An entry with one primary version.
    pub(crate) fn entry(id: &str, number: u64, value: &[u8]) -> Entry {
        let revision = Revision { epoch: 1, number };
        let version = EntryVersion {
            id: number,
            state: VersionState::Primary,
            created: Timestamp(7),
            expires: None,
            data: SecretBytes::new(value.to_vec()),
        };
        Entry {
            id: KeyId::parse(id).unwrap(),
            etag: "00ab-1".into(),
            revision,
            seen: revision,
            hash: Some("c9".into()),
            versions: vec![version],
        }
    }

    #[test]
    fn an_entry_comes_back_from_its_bytes_and_from_no_part_of_them() {
        let mut before = entry("shop/pw", 7, b"hunter2");
        before.versions[0].expires = Some(Timestamp(9));
        let bytes = before.to_bytes();
        let after = Entry::from_bytes(&bytes).unwrap();
        assert_eq!(after.to_bytes(), bytes);
        assert_eq!(after.versions[0].data.expose(), b"hunter2");
        for end in 0..bytes.len() {
            assert!(Entry::from_bytes(&bytes[..end]).is_err(), "{end}");
        }
        assert!(Entry::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_version_is_given_out_until_it_expires() {
        let mut entry = entry("a", 1, b"x");
        entry.versions[0].expires = Some(Timestamp(100));
        assert!(entry.primary_at(Timestamp(99)).is_some() && entry.primary_at(Timestamp(100)).is_none());
        assert_eq!(entry.to_knox(Timestamp(100), None).unwrap().versions.len(), 0);
    }

    #[test]
    fn what_knox_could_not_have_is_not_in_its_cache() {
        assert!(entry("shop/pw", 1, b"x").to_knox(Timestamp(0), None).is_none());
        let key = entry("shop:pw", 1, b"x").to_knox(Timestamp(0), None).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&key.to_json(None)),
            r#"{"id":"shop:pw","acl":[],"versions":[{"id":1,"data":"eA==","status":"Primary","ts":7}],"hash":"c9"}"#
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_entry_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            crate::fuzz::entry(&bytes);
            crate::fuzz::entry(&[&[FORMAT], &bytes[..]].concat());
        }
    }
}
