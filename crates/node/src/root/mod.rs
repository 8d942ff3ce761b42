//! What keeps the cache's key, and what that promises.
//!
//! `CACHE/root` has one line: title, kind, and what the kind needs to find or unwrap the key. A cache stays with the kind that it was made with
//! until the configuration names another one. When its key is gone for good, or the line leads to another cache's, the cache starts anew: it
//! holds nothing that the server does not have. When the key merely cannot be had now (a device that is not there yet, a file that may not be
//! read, a keyring without room) the cache is left as it is.

mod file;
mod keyring;
mod tpm;

use crate::cache::{CacheError, Folder};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_crypto::LocalKey;
use claviger_domain::SecretBytes;
use std::path::{Path, PathBuf};
use thiserror::Error;

const TITLE: &str = "claviger-cache-root 1";

/// Kinds of roots, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootKind {
    /// The machine's TPM.
    Tpm,
    /// The kernel's keyring of the agent's user.
    Keyring,
    /// A file.
    File,
}

impl Unfound {
    fn why(self) -> String {
        match self {
            Self::Gone(why) | Self::NotNow(why) => why,
        }
    }
}

impl NotNow {
    /// What `status` says meanwhile.
    #[must_use]
    pub fn report(&self) -> RootReport {
        let said = format!(
            "the cache's key is kept by {} and cannot be had now: the cache is left as it is, and nothing in it is given out",
            self.kind.name()
        );
        RootReport { kind: self.kind, said }
    }
}

impl RootKind {
    /// All kinds, the best first.
    pub const ALL: [Self; 3] = [Self::Tpm, Self::Keyring, Self::File];

    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tpm => "tpm",
            Self::Keyring => "keyring",
            Self::File => "file",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What the configuration wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RootChoice {
    /// This kind, or the best there is.
    pub kind: Option<RootKind>,
    /// The TPM's device, or the socket of a software TPM; else the kernel's resource manager.
    pub tpm: Option<PathBuf>,
    /// The key's file, where it is not to lie beside the cache.
    pub file: Option<PathBuf>,
}

/// What keeps the key, for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootReport {
    /// The kind.
    pub kind: RootKind,
    /// What that promises, in a sentence, and why it is nothing better.
    pub said: String,
}

/// A root that cannot be used.
#[derive(Debug, Error)]
#[error("the cache's key cannot be kept in {}: {why}", kind.name())]
pub struct RootError {
    /// Which kind.
    pub kind: RootKind,
    /// Why.
    pub why: String,
}

/// Why a key is not found.
#[derive(Debug, PartialEq, Eq)]
enum Unfound {
    /// It is gone for good, or another cache's.
    Gone(String),
    /// It may be there later.
    NotNow(String),
}

/// A key that cannot be had now.
#[derive(Debug, Clone)]
pub struct NotNow {
    /// What keeps it.
    pub kind: RootKind,
    /// Why.
    pub why: String,
}

/// A key, and what finds it again.
struct Kept {
    key: SecretBytes,
    /// Stands in `CACHE/root`.
    note: Vec<u8>,
}

/// The cache's key, or that it cannot be had now and the cache stays as it is.
pub(crate) type Root = Result<(LocalKey, RootReport), NotNow>;

/// The cache's key: the one it has, or a fresh one.
pub(crate) fn open(folder: &Folder, choice: &RootChoice, findings: &mut Vec<String>) -> Result<Root, CacheError> {
    if let Some((kind, note)) = recorded(folder)? {
        if choice.kind.is_none_or(|wanted| wanted == kind) {
            let found = find(kind, folder, choice, &note);
            match found.and_then(|key| LocalKey::new(&key).ok_or_else(|| Unfound::Gone("its key has a wrong length".to_owned()))) {
                Ok(key) => return Ok(Ok((key, report(kind, folder, choice, &[])))),
                Err(Unfound::NotNow(why)) => return Ok(Err(NotNow { kind, why })),
                Err(Unfound::Gone(why)) => findings.push(format!("the cache could not be opened, so its secrets are fetched again: {why}")),
            }
        } else {
            findings.push(format!("the cache's key moves from {} to another root, so its secrets are fetched again", kind.name()));
        }
    }
    let (kind, kept, missed) = make_best(folder, choice)?;
    let line = format!("{TITLE} {} {}\n", kind.name(), STANDARD.encode(&kept.note));
    folder.replace(&[("root".to_owned(), line.into_bytes().into())])?;
    let key = LocalKey::new(&kept.key).ok_or_else(|| RootError { kind, why: "its key has a wrong length".to_owned() })?;
    Ok(Ok((key, report(kind, folder, choice, &missed))))
}

fn recorded(folder: &Folder) -> Result<Option<(RootKind, Vec<u8>)>, CacheError> {
    let Some(bytes) = folder.read("root")? else { return Ok(None) };
    let parse = |text: &str| {
        let (kind, note) = text.strip_prefix(TITLE)?.trim().split_once(' ').unwrap_or((text.strip_prefix(TITLE)?.trim(), ""));
        Some((RootKind::of(kind)?, STANDARD.decode(note.trim()).ok()?))
    };
    // A line that is none counts as no root: then the files that it sealed are dropped by the index that does not open.
    Ok(std::str::from_utf8(&bytes).ok().and_then(parse))
}

/// Makes a key of the wanted kind, or of the best one that works; says what did not.
fn make_best(folder: &Folder, choice: &RootChoice) -> Result<(RootKind, Kept, Vec<String>), CacheError> {
    let mut missed = Vec::new();
    let kinds = choice.kind.map_or_else(|| RootKind::ALL.to_vec(), |kind| vec![kind]);
    for kind in kinds {
        match make(kind, folder, choice) {
            Ok(kept) => return Ok((kind, kept, missed)),
            Err(why) if choice.kind.is_some() => return Err(RootError { kind, why }.into()),
            Err(why) => missed.push(format!("no {}: {why}", kind.name())),
        }
    }
    Err(RootError { kind: RootKind::File, why: missed.join("; ") }.into())
}

fn make(kind: RootKind, folder: &Folder, choice: &RootChoice) -> Result<Kept, String> {
    match kind {
        RootKind::Tpm => tpm::make(choice.tpm.as_deref()),
        RootKind::Keyring => keyring::make(),
        RootKind::File => file::make(folder, choice.file.as_deref()),
    }
}

fn find(kind: RootKind, folder: &Folder, choice: &RootChoice, note: &[u8]) -> Result<SecretBytes, Unfound> {
    match kind {
        RootKind::Tpm => tpm::find(choice.tpm.as_deref(), note),
        RootKind::Keyring => keyring::find(note),
        RootKind::File => file::find(folder, choice.file.as_deref()),
    }
}

fn report(kind: RootKind, folder: &Folder, choice: &RootChoice, missed: &[String]) -> RootReport {
    let said = match kind {
        RootKind::Tpm => tpm::PROMISE.to_owned(),
        RootKind::Keyring => keyring::PROMISE.to_owned(),
        RootKind::File => file::promise(&folder.path, choice.file.as_deref()),
    };
    let missed = if missed.is_empty() { String::new() } else { format!(" ({})", missed.join("; ")) };
    RootReport { kind, said: format!("{said}{missed}") }
}

/// Whether `file` lies in `folder` or below it, by whatever way its path leads there.
fn is_beside(folder: &Path, file: Option<&Path>) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    file.is_none_or(|file| real(file).starts_with(real(folder)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_beside_its_cache_is_told_as_obfuscation_by_whatever_path_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        std::fs::create_dir_all(cache.join("below")).unwrap();
        std::os::unix::fs::symlink(&cache, dir.path().join("link")).unwrap();
        for path in ["cache/k", "cache/below/k", "cache/below/../k", "link/k", "elsewhere"] {
            let key = dir.path().join(path);
            std::fs::write(&key, b"").unwrap();
            let is_obfuscation = file::promise(&cache, Some(&key)).contains("obfuscation");
            assert_eq!(is_obfuscation, path != "elsewhere", "{path}");
        }
    }
}
