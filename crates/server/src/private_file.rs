//! Files that hold a private key or a token: readable by this user alone, replaced as a whole, in folders that nobody else
//! can write to.
//!
//! An existing file's mode means nothing here: a new one takes its place. So does it take a symbolic link's place, instead
//! of writing to where that leads.

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Makes the folder if it is missing, for this user alone.
///
/// # Errors
/// It cannot be made, or others could put files of theirs in the place of ours.
pub(crate) fn folder(path: &Path) -> Result<()> {
    let shown = path.display();
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("creating {shown}"))?;
    let found = std::fs::metadata(path).with_context(|| format!("looking at {shown}"))?;
    let me = geteuid().as_raw();
    if found.uid() != me && found.uid() != 0 {
        bail!("{shown} belongs to user {}, who could replace what is written there; name a folder of user {me}", found.uid());
    }
    if found.mode() & 0o022 != 0 {
        bail!(
            "{shown} has mode {:04o}, so others could replace what is written there; run `chmod go-w {shown}`, or name another folder",
            found.mode() & 0o7777
        );
    }
    Ok(())
}

/// Puts `bytes` durably into the file, which then has mode 0600 whatever stood there before.
///
/// # Errors
/// Nothing has changed then.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes).with_context(|| format!("writing {}", path.display()))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(name), Some(folder)) = (path.file_name(), path.parent()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let unguessable = u64::from_ne_bytes(claviger_crypto::random());
    let beside = folder.join(format!(".{}.{unguessable:016x}", name.to_string_lossy()));
    // Never through a link, and never into a file that somebody has open already: `create_new` is O_EXCL.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // If this fails too, the error below says enough.
        let _ = std::fs::remove_file(&beside);
    }
    written.and_then(|()| File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.sync_all())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_private_whatever_stood_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (dir.path().join("break-glass.key"), dir.path().join("elsewhere"));
        let check = |what: &str| {
            write(&path, b"secret").unwrap();
            let found = fs::symlink_metadata(&path).unwrap();
            assert!(found.is_file() && found.mode() & 0o7777 == 0o600, "{what}: {:o}", found.mode());
            assert_eq!(fs::read(&path).unwrap(), b"secret");
        };
        check("nothing");
        fs::write(&path, "open to all").unwrap();
        set_mode(&path, 0o666);
        let open_already = File::open(&path).unwrap();
        check("a file that others may read");
        assert_eq!(io::read_to_string(open_already).unwrap(), "open to all");
        fs::remove_file(&path).unwrap();
        fs::write(&elsewhere, "untouched").unwrap();
        symlink(&elsewhere, &path).unwrap();
        check("a link");
        assert_eq!(fs::read(&elsewhere).unwrap(), b"untouched");
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::create_dir_all(path.join("in the way")).unwrap();
        assert!(write(&path, b"secret").unwrap_err().to_string().contains("key"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("a/b");
        folder(&made).unwrap();
        assert_eq!(fs::metadata(&made).unwrap().mode() & 0o7777, 0o700);
        for mode in [0o755, 0o750] {
            set_mode(&made, mode);
            folder(&made).unwrap();
        }
        for mode in [0o777, 0o770, 0o1777, 0o702] {
            set_mode(&made, mode);
            let said = folder(&made).unwrap_err().to_string();
            assert!(said.contains("chmod go-w"), "{mode:o}: {said}");
        }
    }
}
