//! Knox's cache folder (contract knox §12): the registration list, its lock, and one file for each cached key.
//!
//! ```text
//! /var/lib/knox               0700, or 0777 as in Knox; temporary files `.RANDOM.KEYID.tmp` (0600) during a write
//! /var/lib/knox/.registered   0600, or 0666: key ids, one on each line
//! /var/lib/knox/v0/keys       0700, or 0777
//! /var/lib/knox/v0/keys/ID    0600, or 0666: the key's JSON
//! ```
//!
//! Two kinds of program use it. A *client* (`register`, `unregister`, `get` from the cache) [opens](KnoxFolder::open) what is
//! there; the *keeper* (the node agent) [creates](KnoxFolder::keep) and mends it.
//!
//! # Guarantees
//! - The list changes only under its lock, in place: whoever watches the inode goes on hearing of it. At no moment of a change of
//!   ours is the file empty or an id cut, even if this process is killed in it.
//! - A cached key is replaced as a whole, durably, or not at all; one that was removed stays removed, through a power cut too.
//! - Links are never followed below the folder, and only plain files with one name are touched (`beneath`).
//!
//! # Not promised
//! With [`Modes::Knox`] any local user can read, remove and replace every cached key, put an older copy back, register any key
//! that the machine may read, and hold the lock: those modes are that promise's absence. What they cannot do is lead this program to
//! a file outside the folder. A client takes only files of root, of the folder's owner, or of its own user for cached keys.

mod beneath;
mod cached_key;
mod error;
mod registration;

pub use cached_key::{BadKey, CachedKey, CachedVersion};
pub use error::FolderError;
pub use registration::{Doubt, Listed, SETTLE, Unregistering, Verdict};

use claviger_domain::KeyId;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, fstat, renameat, statat, unlinkat};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Where Knox's clients look.
pub const DEFAULT_PATH: &str = "/var/lib/knox";
const REGISTERED: &str = ".registered";
/// Between two attempts to get the lock, as in Knox.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// After which an attempt to get the lock is given up, as in Knox.
pub const LOCK_LIMIT: Duration = Duration::from_secs(10);
/// A list of 100,000 ids of the usual length.
const MOST_LIST: usize = 16 << 20;
/// The largest answer of a server in base64.
const MOST_KEY: usize = 128 << 20;
/// How long a temporary file of a process that was killed is left alone: it may be another one's, at work.
const STALE: Duration = Duration::from_secs(60);

/// Who may use the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Modes {
    /// Its owner and root: 0700 and 0600.
    #[default]
    OwnerOnly,
    /// Everyone, for reading and writing, as in Knox: 0777 and 0666.
    Knox,
}

impl Modes {
    const fn folder(self) -> Mode {
        match self {
            Self::OwnerOnly => Mode::RWXU,
            Self::Knox => Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO),
        }
    }

    const fn file(self) -> Mode {
        match self {
            Self::OwnerOnly => PRIVATE,
            Self::Knox => Mode::from_raw_mode(0o666),
        }
    }
}

const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);
const PERMISSIONS: u32 = 0o7777;

/// The folder, open.
#[derive(Debug)]
pub struct KnoxFolder {
    path: PathBuf,
    root: OwnedFd,
    modes: Modes,
    owner: u32,
}

/// The registration list, locked; dropping it lets the lock go.
#[derive(Debug)]
pub struct Registrations {
    path: PathBuf,
    file: OwnedFd,
}

impl KnoxFolder {
    /// The folder as a client uses it.
    ///
    /// # Errors
    /// [`FolderError::Missing`] when there is none.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let root = beneath::open_root(path)?;
        let found = fstat(&root).map_err(|e| FolderError::io("looking at", path, e))?;
        let is_open_to_all = found.st_mode & 0o002 != 0;
        let modes = if is_open_to_all { Modes::Knox } else { Modes::OwnerOnly };
        Ok(Self { path: path.to_owned(), root, modes, owner: found.st_uid })
    }

    /// The folder as its keeper uses it: what is missing is made, modes are mended, and temporary files of processes that were
    /// killed are removed.
    ///
    /// # Errors
    /// It belongs to somebody who is neither root nor this user, or cannot be made.
    pub fn keep(path: &Path, modes: Modes) -> Result<Self, FolderError> {
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| FolderError::Io { step: "creating", path: path.to_owned(), source })?;
        let mut folder = Self { modes, ..Self::open(path)? };
        let me = rustix::process::geteuid().as_raw();
        if folder.owner != me && folder.owner != 0 {
            return Err(FolderError::Untrusted { path: path.to_owned(), owner: folder.owner });
        }
        folder.mend_mode(&folder.root, modes.folder(), path)?;
        folder.owner = me;
        folder.make_keys()?;
        drop(folder.open_list()?);
        folder.remove_stale()?;
        Ok(folder)
    }

    /// Whether its path still leads to it.
    #[must_use]
    pub fn is_still_there(&self) -> bool {
        let (Ok(open), Ok(found)) = (fstat(&self.root), rustix::fs::stat(&self.path)) else { return false };
        (open.st_dev, open.st_ino) == (found.st_dev, found.st_ino)
    }

    /// The folder's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a key's file is.
    #[must_use]
    pub fn key_path(&self, id: &str) -> PathBuf {
        self.keys_path().join(id)
    }

    /// Where the registration list is.
    #[must_use]
    pub fn list_path(&self) -> PathBuf {
        self.path.join(REGISTERED)
    }

    fn keys_path(&self) -> PathBuf {
        self.path.join("v0/keys")
    }

    /// Locks the registration list, waiting up to [`LOCK_LIMIT`]. It is made if it is missing and this user may.
    ///
    /// # Errors
    /// [`FolderError::Locked`] names the process that holds it.
    pub fn lock(&self) -> Result<Registrations, FolderError> {
        let begun = Instant::now();
        loop {
            match self.try_lock()? {
                Some(locked) => return Ok(locked),
                None if begun.elapsed() >= LOCK_LIMIT => return Err(self.locked()),
                None => std::thread::sleep(LOCK_PAUSE),
            }
        }
    }

    /// Locks the list if nobody else has.
    ///
    /// # Errors
    /// The list cannot be opened.
    pub fn try_lock(&self) -> Result<Option<Registrations>, FolderError> {
        let path = self.list_path();
        // The file may be replaced between opening and locking; a lock on a file that nobody finds any more is none.
        for _ in 0..100 {
            let file = self.open_list()?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(FolderError::io("locking", &path, error)),
            }
            let locked = fstat(&file).map_err(|e| FolderError::io("looking at", &path, e))?;
            let found = statat(&self.root, REGISTERED, AtFlags::SYMLINK_NOFOLLOW);
            if found.is_ok_and(|found| (found.st_dev, found.st_ino) == (locked.st_dev, locked.st_ino)) {
                return Ok(Some(Registrations { path, file }));
            }
        }
        Ok(None)
    }

    /// Why [`KnoxFolder::lock`] gives up.
    #[must_use]
    pub fn locked(&self) -> FolderError {
        let inode = statat(&self.root, REGISTERED, AtFlags::SYMLINK_NOFOLLOW).map(|found| found.st_ino);
        let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
        FolderError::Locked { path: self.list_path(), holder: inode.ok().and_then(|inode| lock_holder(&locks, inode)) }
    }

    /// A cached key; nothing when it is not cached.
    ///
    /// # Errors
    /// [`FolderError::Damaged`], or [`FolderError::Untrusted`] when somebody else put it there.
    pub fn read_key(&self, id: &KeyId) -> Result<Option<CachedKey>, FolderError> {
        let path = self.key_path(id.as_str());
        let Some(bytes) = self.read_key_file(id)? else { return Ok(None) };
        let damaged = |problem| FolderError::Damaged { path: path.clone(), problem };
        let key = CachedKey::parse(&bytes).map_err(damaged)?;
        if key.id == id.as_str() { Ok(Some(key)) } else { Err(damaged(BadKey::OtherKey)) }
    }

    /// The bytes of a cached key's file.
    ///
    /// # Errors
    /// As [`KnoxFolder::read_key`], except that the content is not looked at.
    pub fn read_key_file(&self, id: &KeyId) -> Result<Option<Zeroizing<Vec<u8>>>, FolderError> {
        let path = self.key_path(id.as_str());
        let name = file_name(id)?;
        let Some(keys) = self.open_keys()? else { return Ok(None) };
        let Some((file, found)) = beneath::open_file(&keys, name, OFlags::RDONLY, &path)? else { return Ok(None) };
        self.check_owner(found.st_uid, &path)?;
        match beneath::read_all(&file, MOST_KEY) {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => Err(FolderError::TooLarge { path, most: MOST_KEY }),
            Err(error) => Err(FolderError::io("reading", &path, error)),
        }
    }

    /// The names of all cached keys; what cannot be an id of Knox's is passed over.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn cached_ids(&self) -> Result<Vec<KeyId>, FolderError> {
        let path = self.keys_path();
        let Some(keys) = self.open_keys()? else { return Ok(Vec::new()) };
        let names = names(&keys).map_err(|e| FolderError::io("listing", &path, e))?;
        let mut ids: Vec<_> = names.iter().filter_map(|name| KeyId::parse(name).ok()).filter(KeyId::is_knox).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Replaces a cached key's file. Only the keeper does this.
    ///
    /// # Errors
    /// The file is as it was.
    pub fn write_key(&self, id: &KeyId, json: &[u8]) -> Result<(), FolderError> {
        let path = self.key_path(id.as_str());
        let name = file_name(id)?;
        let keys = self.make_keys()?;
        let temporary = temporary_name(id);
        let failed = |step, error| FolderError::io(step, &path, error);
        // In the folder itself, as in Knox; in its own modes only when it is whole.
        let file = beneath::create_file(&self.root, &temporary, PRIVATE).map_err(|e| failed("creating a file for", e))?;
        let write = || -> Result<(), Errno> {
            beneath::write_all(&file, json, 0)?;
            rustix::fs::fchmod(&file, self.modes.file())?;
            rustix::fs::fdatasync(&file)?;
            renameat(&self.root, temporary.as_str(), &keys, name)?;
            rustix::fs::fsync(&keys)
        };
        write().map_err(|error| {
            // It may be full, and then this gives space back; if it fails the next start does it.
            let _ = unlinkat(&self.root, temporary.as_str(), AtFlags::empty());
            failed("writing", error)
        })
    }

    /// Removes a cached key's file; whether there was one.
    ///
    /// # Errors
    /// It is still there, or may be again after a power cut.
    pub fn remove_key(&self, id: &KeyId) -> Result<bool, FolderError> {
        let path = self.key_path(id.as_str());
        let name = file_name(id)?;
        let Some(keys) = self.open_keys()? else { return Ok(false) };
        match unlinkat(&keys, name, AtFlags::empty()) {
            // What was taken off must not come back with the power.
            Ok(()) => rustix::fs::fsync(&keys).map(|()| true).map_err(|e| FolderError::io("syncing the folder of", &path, e)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(FolderError::io("removing", &path, error)),
        }
    }

    fn open_keys(&self) -> Result<Option<OwnedFd>, FolderError> {
        let Some(v0) = self.open_child(&self.root, "v0", &self.path.join("v0"))? else { return Ok(None) };
        self.open_child(&v0, "keys", &self.keys_path())
    }

    fn open_child(&self, parent: impl AsFd, name: &str, path: &Path) -> Result<Option<OwnedFd>, FolderError> {
        let Some(folder) = beneath::open_folder(parent, name, path)? else { return Ok(None) };
        let found = fstat(&folder).map_err(|e| FolderError::io("looking at", path, e))?;
        self.check_owner(found.st_uid, path)?;
        Ok(Some(folder))
    }

    fn make_keys(&self) -> Result<OwnedFd, FolderError> {
        let v0 = self.make_child(&self.root, "v0", &self.path.join("v0"))?;
        self.make_child(&v0, "keys", &self.keys_path())
    }

    fn make_child(&self, parent: impl AsFd, name: &str, path: &Path) -> Result<OwnedFd, FolderError> {
        match rustix::fs::mkdirat(&parent, name, self.modes.folder()) {
            Ok(()) => rustix::fs::fsync(&parent).map_err(|e| FolderError::io("syncing the folder of", path, e))?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(FolderError::io("creating", path, error)),
        }
        let folder = self.open_child(parent, name, path)?.ok_or_else(|| FolderError::io("opening", path, Errno::NOENT))?;
        self.mend_mode(&folder, self.modes.folder(), path)?;
        Ok(folder)
    }

    /// Sets the mode of what is ours; somebody else's is left alone.
    fn mend_mode(&self, file: impl AsFd, mode: Mode, path: &Path) -> Result<(), FolderError> {
        let found = fstat(&file).map_err(|e| FolderError::io("looking at", path, e))?;
        let is_mine = found.st_uid == rustix::process::geteuid().as_raw();
        if !is_mine || found.st_mode & PERMISSIONS == mode.as_raw_mode() {
            return Ok(());
        }
        rustix::fs::fchmod(file, mode).map_err(|e| FolderError::io("setting the mode of", path, e))
    }

    fn check_owner(&self, owner: u32, path: &Path) -> Result<(), FolderError> {
        let me = rustix::process::geteuid().as_raw();
        match [0, me, self.owner].contains(&owner) {
            true => Ok(()),
            false => Err(FolderError::Untrusted { path: path.to_owned(), owner }),
        }
    }

    /// Opens the list, which is made if it is missing.
    fn open_list(&self) -> Result<OwnedFd, FolderError> {
        let path = self.list_path();
        for _ in 0..100 {
            if let Some((file, found)) = beneath::open_file(&self.root, REGISTERED, OFlags::RDWR, &path)? {
                if self.modes == Modes::OwnerOnly {
                    self.check_owner(found.st_uid, &path)?;
                }
                self.mend_list_mode(&file, &path)?;
                return Ok(file);
            }
            match beneath::create_file(&self.root, REGISTERED, self.modes.file()) {
                Ok(file) => {
                    rustix::fs::fsync(&self.root).map_err(|e| FolderError::io("syncing the folder of", &path, e))?;
                    return Ok(file);
                }
                // Somebody else was first.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(FolderError::io("creating", &path, error)),
            }
        }
        Err(FolderError::io("opening", &path, Errno::AGAIN))
    }

    /// A list is opened to all only if it is one: where everyone may put files, this could be a private file of ours that somebody
    /// had a second name for, and that has only this name left.
    fn mend_list_mode(&self, file: &OwnedFd, path: &Path) -> Result<(), FolderError> {
        if self.modes == Modes::Knox {
            let bytes = read_list(file, path)?;
            let listed = Listed::parse(&bytes);
            if listed.doubt == Some(Doubt::Garbled) || !listed.unusable.is_empty() {
                return Ok(());
            }
        }
        self.mend_mode(file, self.modes.file(), path)
    }

    fn remove_stale(&self) -> Result<(), FolderError> {
        let found = names(&self.root).map_err(|e| FolderError::io("listing", &self.path, e))?;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        let me = rustix::process::geteuid().as_raw();
        for name in found.iter().filter(|name| name.starts_with('.') && name.ends_with(".tmp")) {
            let Ok(file) = statat(&self.root, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let age = now.saturating_sub(file.st_mtime);
            if file.st_uid == me && age > STALE.as_secs().cast_signed() {
                // If it stays it costs only space.
                let _ = unlinkat(&self.root, name.as_str(), AtFlags::empty());
            }
        }
        Ok(())
    }
}

impl Registrations {
    /// What the list says now.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self) -> Result<Listed, FolderError> {
        Ok(Listed::parse(&read_list(&self.file, &self.path)?))
    }

    /// Replaces the list in place. Whoever watches the file hears of it, also when nothing changes.
    ///
    /// # Errors
    /// The list may be longer than wanted, but no id of either list is lost or cut, unless the disk itself fails.
    pub fn write(&mut self, listed: &Listed) -> Result<(), FolderError> {
        let failed = |step, error| FolderError::io(step, &self.path, error);
        let bytes = listed.to_bytes();
        let old = usize::try_from(fstat(&self.file).map_err(|e| failed("looking at", e))?.st_size).unwrap_or(0);
        // Over the old list first, filled up with line breaks, and only then is the end cut off: emptied first, a kill or a full
        // disk would leave an empty list.
        let mut padded = bytes.clone();
        padded.resize(old.max(bytes.len()), b'\n');
        beneath::write_all(&self.file, &padded, 0).map_err(|e| failed("writing", e))?;
        rustix::fs::ftruncate(&self.file, bytes.len() as u64).map_err(|e| failed("shortening", e))?;
        rustix::fs::fdatasync(&self.file).map_err(|e| failed("syncing", e))
    }
}

fn read_list(file: &OwnedFd, path: &Path) -> Result<Zeroizing<Vec<u8>>, FolderError> {
    match beneath::read_all(file, MOST_LIST) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(FolderError::TooLarge { path: path.to_owned(), most: MOST_LIST }),
        Err(error) => Err(FolderError::io("reading", path, error)),
    }
}

/// The id as a file's name. Ids of Knox have neither slash nor dot.
fn file_name(id: &KeyId) -> Result<&str, FolderError> {
    let unnameable = |why| FolderError::Unnameable { id: id.to_string(), why };
    match id.as_str() {
        name if !id.is_knox() => Err(unnameable(if name.contains('/') { "it has a slash" } else { "Knox's clients know no `-` and `.`" })),
        name if temporary_name(id).len() > 255 || name.len() > 255 => Err(unnameable("a file's name has at most 255 bytes")),
        name => Ok(name),
    }
}

fn temporary_name(id: &KeyId) -> String {
    // Unguessable, or others could stand in the way.
    let mut random = [0; 8];
    let filled = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let random = if filled.is_ok() { u64::from_ne_bytes(random) } else { u64::from(std::process::id()) };
    format!(".{random:016x}.{id}.tmp")
}

fn names(folder: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(folder)? {
        // Names that are no text are nobody's keys.
        if let Ok(name) = entry?.file_name().to_str()
            && !matches!(name, "." | "..")
        {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

/// The process that holds a lock on the file with this inode, from `/proc/locks`: `1: FLOCK ADVISORY WRITE 708 00:19:1234 0 EOF`.
fn lock_holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().filter(|line| line.contains("FLOCK")).find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip_while(|word| *word != "WRITE").skip(1);
        let pid = words.next()?.parse().ok()?;
        let of = words.next()?.rsplit(':').next()?.parse::<u64>().ok()?;
        (of == inode).then_some(pid)
    })
}

#[cfg(test)]
mod tests;
