//! The cache's index: what it has, so that what it should not have any more is noticed.

use crate::entry::{NoEntry, Reader, Writer};
use claviger_domain::{KeyId, Revision, Timestamp};
use zeroize::Zeroizing;

/// Which entries there are, and up to where changes were taken in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Index {
    /// Everything up to this revision is in the entries; nothing where that is not so.
    pub since: Option<Revision>,
    /// The entries.
    pub entries: Vec<Indexed>,
}

/// One entry of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexed {
    /// The key.
    pub id: KeyId,
    /// The revision that the entry has seen.
    pub seen: Revision,
    /// Since when the server refuses the key without saying that it is gone; the server's time.
    pub doubted: Option<Timestamp>,
}

const FORMAT: u8 = 2;

impl Index {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Writer(Zeroizing::new(Vec::with_capacity(32 + self.entries.len() * 64)));
        let put = |out: &mut Writer, revision: &Revision| {
            out.bytes(&revision.epoch.to_be_bytes());
            out.bytes(&revision.number.to_be_bytes());
        };
        out.bytes(&[FORMAT]);
        out.optional(self.since.as_ref(), put);
        out.bytes(&u32::try_from(self.entries.len()).unwrap_or(u32::MAX).to_be_bytes());
        for Indexed { id, seen, doubted } in &self.entries {
            out.field(id.as_str().as_bytes());
            put(&mut out, seen);
            out.optional(*doubted, |out, at| out.bytes(&at.0.to_be_bytes()));
        }
        out.0
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`NoEntry`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoEntry> {
        let mut from = Reader(bytes);
        if from.array()? != [FORMAT] {
            return Err(NoEntry);
        }
        let since = from.optional(Reader::revision)?;
        let count = from.number()?;
        let mut entries = Vec::with_capacity(count.min(100_000));
        for _ in 0..count {
            let id = KeyId::parse(from.text()?).map_err(|_| NoEntry)?;
            entries.push(Indexed { id, seen: from.revision()?, doubted: from.optional(Reader::time)? });
        }
        if from.0.is_empty() { Ok(Self { since, entries }) } else { Err(NoEntry) }
    }
}
