//! Stores with many keys, made through the API as anybody would, and kept for the next run.
//!
//! They lie beside the other cached things, named by a stamp of the code that decides what a store looks like; a store
//! of another stamp is removed.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Bench;
use super::server::Claviger;
use crate::shell;

/// Ids of the keys: `{n}` counts from 0.
const ID: &str = "bench:k{n}";
/// Base64 of a secret of 32 bytes.
const DATA: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// What decides how a store is written.
const SOURCES: &[&str] = &["crates/store/migrations", "crates/crypto/src", "crates/audit/src/frame.rs", "crates/audit/src/layout.rs"];
/// The file whose presence says that all keys are there.
const COMPLETE: &str = "complete";

/// The id of key number `n`.
pub(super) fn id(n: usize) -> String {
    ID.replace("{n}", &n.to_string())
}

/// A folder with a development server's store of `keys` keys, which no server uses.
pub(super) fn with_keys(bench: &Bench, keys: u64) -> anyhow::Result<PathBuf> {
    let shelf = shell::cache()?.join("bench");
    let kind = format!("store-{keys}-");
    let folder = shelf.join(format!("{kind}{:016x}", stamp()?));
    if folder.join(COMPLETE).is_file() {
        return Ok(folder);
    }
    remove_all(&shelf, &kind)?;
    fs::create_dir_all(&folder)?;
    println!("  making a store of {keys} keys (once)");
    let claviger = Claviger::open(bench, &folder, &[])?;
    claviger.create_keys(bench, ID, DATA, keys)?;
    claviger.stop()?;
    fs::write(folder.join(COMPLETE), "")?;
    Ok(folder)
}

fn remove_all(shelf: &Path, kind: &str) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(shelf) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(kind) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// A number that changes with the form of a store.
fn stamp() -> anyhow::Result<u64> {
    let mut hasher = DefaultHasher::new();
    (ID, DATA).hash(&mut hasher);
    for source in SOURCES {
        hash_files(&shell::root().join(source), &mut hasher)?;
    }
    Ok(hasher.finish())
}

fn hash_files(path: &Path, hasher: &mut DefaultHasher) -> anyhow::Result<()> {
    if path.is_file() {
        fs::read(path)?.hash(hasher);
        return Ok(());
    }
    let entries = fs::read_dir(path).with_context(|| format!("reading `{}`", path.display()))?;
    let mut inside = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    inside.sort();
    inside.iter().try_for_each(|path| hash_files(path, hasher))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_stamp_is_the_same_until_a_source_changes() {
        assert_eq!(stamp().unwrap(), stamp().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let hash = |text: &str| {
            fs::write(dir.path().join("a"), text).unwrap();
            let mut hasher = DefaultHasher::new();
            hash_files(dir.path(), &mut hasher).unwrap();
            hasher.finish()
        };
        assert_ne!(hash("1"), hash("2"));
    }

    #[test]
    fn stores_of_another_stamp_are_removed_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["store-1-a", "store-10-a", "store-1-b"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        remove_all(dir.path(), "store-1-").unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["store-10-a"]);
    }
}
