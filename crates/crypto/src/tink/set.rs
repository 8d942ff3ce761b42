//! Choosing the key: by the prefix that Tink writes before what a key makes, and by trying those that write none.

use super::{Key, Keyset, OutputPrefix, Status, TinkError};
use claviger_domain::SecretBytes;

/// Length of the prefix of all kinds but RAW.
const PREFIX: usize = 5;

/// The id of the key that `output` says it was made with, in the form of TINK's prefix; `None` where it has no such
/// prefix. Nothing is authenticated by that: it is for messages such as "made with the inactive version …".
#[must_use]
pub fn key_id_of(output: &[u8]) -> Option<u32> {
    match output {
        [1, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// A plaintext, and which key it was encrypted with.
#[derive(Debug)]
pub struct Opened {
    /// The key's id.
    pub key_id: u32,
    /// The plaintext.
    pub plain: SecretBytes,
}

/// The enabled keys of a keyset, ready for use.
pub(super) struct Set<P> {
    entries: Vec<Entry<P>>,
    primary: usize,
}

/// One key, ready for use.
pub(super) struct Entry<P> {
    pub(super) id: u32,
    pub(super) kind: OutputPrefix,
    pub(super) prefix: Vec<u8>,
    pub(super) primitive: P,
}

impl<P> Set<P> {
    pub(super) fn new(keyset: &Keyset, make: impl Fn(&Key) -> Result<P, TinkError>) -> Result<Self, TinkError> {
        let enabled = keyset.keys().iter().filter(|key| key.status == Status::Enabled);
        let ready = |key: &Key| Ok(Entry { id: key.id, kind: key.prefix, prefix: prefix(key), primitive: make(key)? });
        let entries = enabled.map(ready).collect::<Result<Vec<_>, TinkError>>()?;
        let primary = entries.iter().position(|entry| entry.id == keyset.primary_id());
        Ok(Self { primary: primary.ok_or(TinkError::PrimaryNotEnabled(keyset.primary_id()))?, entries })
    }

    pub(super) fn primary(&self) -> &Entry<P> {
        &self.entries[self.primary]
    }

    pub(super) fn entries(&self) -> &[Entry<P>] {
        &self.entries
    }

    /// The first key for which `attempt` succeeds, and its result: those whose prefix `output` has, then those without.
    pub(super) fn find<T>(&self, output: &[u8], attempt: impl Fn(&Entry<P>, &[u8]) -> Option<T>) -> Result<(u32, T), TinkError> {
        let by_prefix = self.entries.iter().filter(|entry| !entry.prefix.is_empty() && output.starts_with(&entry.prefix));
        let raw = self.entries.iter().filter(|entry| entry.prefix.is_empty());
        by_prefix
            .chain(raw)
            .find_map(|entry| attempt(entry, &output[entry.prefix.len()..]).map(|found| (entry.id, found)))
            .ok_or(TinkError::NotAuthentic)
    }
}

impl<P> Entry<P> {
    /// The message that a MAC or signature is over: LEGACY's has a zero byte more.
    pub(super) fn message<'a>(&self, message: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
        match self.kind {
            OutputPrefix::Legacy => [message, &[0]].concat().into(),
            OutputPrefix::Tink | OutputPrefix::Raw | OutputPrefix::Crunchy => message.into(),
        }
    }

    /// `output` behind the prefix.
    pub(super) fn prefixed(&self, output: &[u8]) -> Vec<u8> {
        [&self.prefix, output].concat()
    }
}

fn prefix(key: &Key) -> Vec<u8> {
    let with = |first: u8| {
        let mut prefix = Vec::with_capacity(PREFIX);
        prefix.push(first);
        prefix.extend(key.id.to_be_bytes());
        prefix
    };
    match key.prefix {
        OutputPrefix::Raw => Vec::new(),
        OutputPrefix::Tink => with(1),
        OutputPrefix::Legacy | OutputPrefix::Crunchy => with(0),
    }
}
