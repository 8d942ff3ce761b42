//! Secrets as other tools write them down, and what each would be here. Nothing of our program is used, so that fuzzers reach it.
//!
//! # Guarantees
//! - A file is read whole or refused whole; no error repeats a value ▲.
//! - What is read is bounded: bytes after unpacking, entries, levels, aliases.

pub(crate) mod bundle;
pub(crate) mod dotenv;
pub(crate) mod kubernetes;
pub(crate) mod onepassword;
pub(crate) mod tree;
pub(crate) mod vault;

#[cfg(test)]
mod fuzz;

use claviger_domain::SecretBytes;
use std::collections::BTreeMap;

/// Bytes of a file, or of what it unpacks to.
pub(crate) const MOST_BYTES: u64 = 64 << 20;
/// Entries of a file.
const MOST_ENTRIES: usize = 100_000;

/// One secret of a file.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its name there: segments from the outermost in.
    pub(crate) path: Vec<String>,
    /// Its value, or why it can be none here.
    pub(crate) value: Result<SecretBytes, &'static str>,
    /// A new key's description.
    pub(crate) description: String,
    /// A new key's labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// When the value stops being given out (RFC 3339).
    pub(crate) expires: Option<String>,
}

/// Why a file is not taken: where, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) String);

impl Refused {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

type Read = Result<Vec<Entry>, Refused>;

/// What reads a format.
pub(crate) type Reader = fn(&[u8]) -> Read;

impl Entry {
    fn new(path: &[&str], value: Result<SecretBytes, &'static str>) -> Self {
        let path = path.iter().map(|segment| (*segment).to_owned()).collect();
        Self { path, value, description: String::new(), labels: BTreeMap::new(), expires: None }
    }

    fn text(path: &[&str], text: &str) -> Self {
        Self::new(path, Ok(SecretBytes::new(text.as_bytes().to_vec())))
    }
}

fn text(bytes: &[u8]) -> Result<&str, Refused> {
    let text = std::str::from_utf8(bytes).map_err(|e| Refused::new(format!("it is no UTF-8 from byte {} on", e.valid_up_to())))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn bounded(entries: Vec<Entry>) -> Read {
    match entries.len() > MOST_ENTRIES {
        true => Err(Refused::new(format!("it has more than {MOST_ENTRIES} entries"))),
        false => Ok(entries),
    }
}
