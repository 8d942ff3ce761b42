//! The cache's key in a file: beside the cache, where it hides nothing, or somewhere else that the administrator names, such as another disk
//! or a credential that systemd hands in.

use super::{Kept, Unfound, is_beside};
use crate::cache::Folder;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_crypto::LocalKey;
use claviger_domain::SecretBytes;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

const NAME: &str = "cache.key";
/// A credential may be a line of base64 or 32 bytes as they are.
const MOST: u64 = 256;

pub(super) fn make(folder: &Folder, elsewhere: Option<&Path>) -> Result<Kept, String> {
    // A file that the administrator gave, or of an earlier cache, is used as it is.
    if let (Some(path), Ok(key)) = (elsewhere, find(folder, elsewhere)) {
        let _ = path;
        return Ok(Kept { key, note: Vec::new() });
    }
    let key = LocalKey::generate();
    let line = Zeroizing::new(format!("{}\n", STANDARD.encode(key.expose())));
    match elsewhere {
        None => folder.replace(&[(NAME.to_owned(), line.as_bytes().into())]).map_err(|e| e.to_string())?,
        Some(path) => {
            let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let written = made.and_then(|mut file| file.write_all(line.as_bytes()).and_then(|()| file.sync_all()));
            written.map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(Kept { key, note: Vec::new() })
}

/// A file that the administrator named may be on a disk that is not there yet, or be put back: only the one beside the cache is ours to give up.
pub(super) fn find(folder: &Folder, elsewhere: Option<&Path>) -> Result<SecretBytes, Unfound> {
    let missing = || Unfound::Gone(format!("{} is missing", folder.path.join(NAME).display()));
    let (bytes, path, no_key): (_, _, fn(String) -> Unfound) = match elsewhere {
        None => {
            let read = folder.read(NAME).map_err(|e| Unfound::NotNow(e.to_string()))?;
            (read.ok_or_else(missing)?, folder.path.join(NAME), Unfound::Gone)
        }
        Some(path) => (read_private(path).map_err(Unfound::NotNow)?, path.to_owned(), Unfound::NotNow),
    };
    let decoded = std::str::from_utf8(&bytes).ok().and_then(|text| STANDARD.decode(text.trim()).ok());
    let key = decoded.unwrap_or_else(|| bytes.to_vec());
    match key.len() {
        32 => Ok(SecretBytes::new(key)),
        _ => Err(no_key(format!("{} has neither 32 bytes nor their base64", path.display()))),
    }
}

/// Reads a key that nobody else can read or replace.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let found = std::fs::metadata(path).map_err(failed)?;
    if !found.is_file() || found.len() > MOST {
        return Err(format!("{} is no key's file", path.display()));
    }
    if found.mode() & 0o077 != 0 {
        return Err(format!("{} has mode {:04o}: run `chmod 0600` on it", path.display(), found.mode() & 0o7777));
    }
    std::fs::read(path).map(Zeroizing::new).map_err(failed)
}

pub(super) fn promise(folder: &Path, elsewhere: Option<&Path>) -> String {
    match elsewhere.filter(|_| !is_beside(folder, elsewhere)) {
        None => "the cache's key lies in a file beside it: this is obfuscation and no protection; whoever can read the folder, or has the disk or a \
                 backup of it, reads every cached secret"
            .to_owned(),
        Some(path) => format!(
            "the cache's key lies in {}: a disk or backup stolen without that file stays closed, but whoever reads both, or is root here, reads every cached \
             secret",
            path.display()
        ),
    }
}
