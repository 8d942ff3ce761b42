//! A private folder in memory, and files in it that are replaced as a whole.

use crate::failure::Failure;
use claviger_domain::SecretBytes;
use rustix::fs::statfs;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// `f_type` of file systems that live in memory (statfs(2)). Their pages may still be swapped out where there is swap.
const MEMORY_ONLY: [u32; 2] = [
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
];

/// A folder of mode 0700 in memory; removed with all it holds when dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// The command that it is for.
    command: &'static str,
}

impl Folder {
    /// Makes a folder for `command` in `parent`, or where the system keeps such things.
    ///
    /// # Errors
    /// No place that is held in memory.
    pub(crate) fn make(command: &'static str, parent: Option<&Path>) -> Result<Self, Failure> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|v| !v.is_empty()).map(PathBuf::from);
        let candidates = match parent {
            Some(given) => vec![given.to_owned()],
            None => runtime.into_iter().chain([PathBuf::from("/dev/shm")]).collect(),
        };
        let place = candidates.iter().find(|p| is_in_memory(p)).ok_or_else(|| nowhere(&candidates))?;
        let path = place.join(format!("claviger-{command}-{}-{:08x}", std::process::id(), distinct()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|e| Failure::other(format!("making {}: {e}", path.display())))?;
        Ok(Self { path, command })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it where it is, with what it holds.
    pub(crate) fn keep(mut self) -> PathBuf {
        // An empty path is none to remove.
        std::mem::take(&mut self.path)
    }

    /// Writes `value` beside the file `name`, readable by the user only. Nobody sees it before [`Staged::publish`].
    pub(crate) fn stage(&self, name: &Path, value: &SecretBytes) -> io::Result<Staged> {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            DirBuilder::new().mode(0o700).recursive(true).create(parent)?;
        }
        let mut beside = path.clone().into_os_string();
        beside.push(format!(".{:08x}.new", distinct()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&beside)?;
        // From here on it is removed whatever happens: half a secret would also keep the space that the whole one lacks.
        let staged = Staged { beside: beside.into(), path };
        file.write_all(value.expose())?;
        Ok(staged)
    }
}

/// A value that is written whole but not yet in its place; removed when dropped.
#[derive(Debug)]
pub(crate) struct Staged {
    beside: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// Puts it in its place; whoever reads sees the old value or the new one.
    pub(crate) fn publish(&self) -> io::Result<()> {
        std::fs::rename(&self.beside, &self.path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After `publish` it is not there any more.
        let _ = std::fs::remove_file(&self.beside);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let Self { path, command } = &*self;
        if path.as_os_str().is_empty() {
            return;
        }
        if let Err(e) = std::fs::remove_dir_all(path) {
            eprintln!("claviger {command}: secrets are left in {}: {e}", path.display());
        }
    }
}

fn is_in_memory(path: &Path) -> bool {
    // The field's type differs between architectures, the number does not.
    statfs(path).is_ok_and(|s| MEMORY_ONLY.contains(&(s.f_type as u32)))
}

fn nowhere(candidates: &[PathBuf]) -> Failure {
    let tried: Vec<_> = candidates.iter().map(|p| p.display().to_string()).collect();
    Failure::other(format!("no folder for the files: {} is not held in memory (tmpfs)", tried.join(" or ")))
}

/// A number that this process has not used before. Names need not be secret: the folder is private.
fn distinct() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9) ^ now
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_are_private_replaced_as_a_whole_and_gone_at_the_end() {
        let folder = Folder::make("run", None).unwrap();
        let path = folder.path().to_owned();
        assert_eq!(mode(&path), 0o700);
        for value in ["one", "two"] {
            folder.stage(Path::new("tls/key"), &SecretBytes::new(value.as_bytes().to_vec())).unwrap().publish().unwrap();
            let file = path.join("tls/key");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), value);
            assert_eq!((mode(&file), mode(&path.join("tls"))), (0o400, 0o700));
        }
        assert_eq!(std::fs::read_dir(path.join("tls")).unwrap().count(), 1);
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_that_is_kept_stays() {
        let path = Folder::make("edit", None).unwrap().keep();
        assert!(path.is_dir());
        std::fs::remove_dir(path).unwrap();
    }

    #[test]
    fn what_cannot_be_put_in_its_place_leaves_nothing_behind() {
        let folder = Folder::make("run", None).unwrap();
        std::fs::create_dir(folder.path().join("key")).unwrap();
        let staged = folder.stage(Path::new("key"), &SecretBytes::new(b"one".to_vec())).unwrap();
        assert!(staged.publish().is_err());
        drop(staged);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_on_a_disk_is_refused() {
        assert!(Folder::make("run", Some(Path::new("/proc"))).is_err());
        assert!(Folder::make("run", Some(Path::new("/nowhere"))).is_err());
    }
}
