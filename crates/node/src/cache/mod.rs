//! The encrypted cache: what outlives the agent's process.
//!
//! ```text
//! CACHE/            0700, of the agent's user alone
//! CACHE/lock        held by the one agent that uses the cache
//! CACHE/root        what keeps the cache's key, and for some kinds the wrapped key
//! CACHE/e-…         one sealed entry each; the name is a MAC of the key's id and tells nothing
//! CACHE/index       sealed: which entries there are, of which revision, and up to which revision changes were taken in
//! CACHE/contact     sealed: when the server was last heard
//! CACHE/registered  the agent's own list of keys, one on each line
//! ```
//!
//! # Guarantees
//! - A file is replaced as a whole and durably (temporary file, fsync, rename, fsync of the folder), entries before the index. Killed at
//!   any point, the next start finds each entry as it was before or after.
//! - What is read was sealed under this cache's key for this file: another file's bytes, a byte changed or cut off, are noticed. That
//!   entry is dropped and said; the others are served.
//! - A cache whose key cannot be had now is left as it is, and nothing in it is given out ([`Waiting`]).
//! - An entry older than the index says, or that the index does not have, is dropped: a removed secret does not come back with its file.
//!
//! # Not promised
//! Whoever can write here and puts *all* files back as they were brings back what they held then. It is given out only within `max_offline`
//! of the contact that those files tell of, and only until the server answers.

mod index;

pub use index::{Index, Indexed};

use crate::entry::Entry;
use crate::root::{self, NotNow, RootChoice, RootReport};
use crate::times::Contact;
use claviger_crypto::LocalKey;
use claviger_domain::{KeyId, Revision, Timestamp};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, flock, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use zeroize::Zeroizing;

const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);
const SAFE: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW);
/// From so many files on, one sync of the whole file system is cheaper than one for each file.
const MANY: usize = 8;
/// No file of a cache is larger: the largest value that a server keeps, many times.
const MOST: u64 = 256 << 20;

/// What is wrong with a cache.
#[derive(Debug, Error)]
pub enum CacheError {
    /// Another agent uses it.
    #[error("another agent uses the cache {}: stop it, or give this one another folder in node.cache", .0.display())]
    InUse(PathBuf),
    /// Others could read or replace what is in it.
    #[error("{} {problem}", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// What is so, and what to do.
        problem: String,
    },
    /// The key's root cannot be used.
    #[error(transparent)]
    Root(#[from] root::RootError),
    /// The system refused.
    #[error("{step} {}: {source}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

/// An open cache; nobody else has it.
pub struct Cache {
    folder: Folder,
    _lock: OwnedFd,
    key: LocalKey,
    /// What keeps the key.
    pub root: RootReport,
}

/// A folder of files that are replaced as wholes.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    dir: OwnedFd,
}

/// What a cache held.
#[derive(Default)]
pub struct Loaded {
    /// The entries that are whole, and since when each is doubted.
    pub entries: Vec<(Entry, Option<Timestamp>)>,
    /// Up to where changes were taken in.
    pub since: Option<Revision>,
    /// The last contact.
    pub contact: Option<Contact>,
    /// The agent's own list of registered keys.
    pub registered: Vec<KeyId>,
    /// What was dropped and why, in sentences.
    pub findings: Vec<String>,
}

/// One step of a cache to its next state.
#[derive(Default, Clone)]
pub struct Batch {
    /// Gone for good. These go first.
    pub remove: Vec<KeyId>,
    /// New or changed.
    pub put: Vec<Arc<Entry>>,
    /// The index after it.
    pub index: Option<Index>,
    /// The last contact.
    pub contact: Option<Contact>,
    /// The agent's own list.
    pub registered: Option<Vec<KeyId>>,
}

impl Batch {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { remove, put, index, contact, registered } = self;
        remove.is_empty() && put.is_empty() && index.is_none() && contact.is_none() && registered.is_none()
    }
}

/// A cache, open or not yet.
pub enum Opening {
    /// It is open, and this is all of it.
    Open(Arc<Cache>, Loaded),
    /// Its key cannot be had now.
    Waiting(Waiting),
}

/// A cache whose key cannot be had now. Nobody else has it, and it is as it was.
pub struct Waiting {
    folder: Folder,
    lock: OwnedFd,
    choice: RootChoice,
    /// What keeps the key, and why it cannot be had.
    pub reason: NotNow,
}

impl Waiting {
    /// Looks for the key again.
    #[must_use]
    pub fn try_again(self) -> Opening {
        let Self { folder, lock, choice, reason } = self;
        match Cache::open_folder(folder, lock, &choice) {
            Ok(opening) => opening,
            Err((folder, lock, error)) => {
                let reason = NotNow { why: error.to_string(), ..reason };
                Opening::Waiting(Self { folder, lock, choice, reason })
            }
        }
    }
}

impl Cache {
    /// Opens the cache in `path`, which is made if it is missing, and reads all of it.
    ///
    /// # Errors
    /// [`CacheError`]. Damage is no error: what is damaged is dropped and told in [`Loaded::findings`].
    pub fn open(path: &Path, choice: &RootChoice) -> Result<Opening, CacheError> {
        let folder = Folder::open(path)?;
        let lock = folder.lock()?;
        folder.remove_temporary()?;
        Self::open_folder(folder, lock, choice).map_err(|(_, _, error)| error)
    }

    fn open_folder(folder: Folder, lock: OwnedFd, choice: &RootChoice) -> Result<Opening, (Folder, OwnedFd, CacheError)> {
        let mut loaded = Loaded::default();
        let (key, root) = match root::open(&folder, choice, &mut loaded.findings) {
            Ok(Ok(here)) => here,
            Ok(Err(reason)) => return Ok(Opening::Waiting(Waiting { folder, lock, choice: choice.clone(), reason })),
            Err(error) => return Err((folder, lock, error)),
        };
        let cache = Self { folder, _lock: lock, key, root };
        match cache.load(&mut loaded) {
            Ok(()) => Ok(Opening::Open(Arc::new(cache), loaded)),
            Err(error) => Err((cache.folder, cache._lock, error)),
        }
    }

    fn load(&self, loaded: &mut Loaded) -> Result<(), CacheError> {
        let mut names: HashSet<String> = self.folder.names()?.into_iter().filter(|name| name.starts_with("e-")).collect();
        let index = self.read_sealed("index", &[b"index"], Index::from_bytes, &mut loaded.findings)?;
        loaded.contact = self.read_sealed("contact", &[b"contact"], Contact::from_bytes, &mut loaded.findings)?;
        loaded.registered = self.read_registered()?;
        let index = index.unwrap_or_default();
        for Indexed { id, seen, doubted } in &index.entries {
            let name = self.entry_name(id);
            let was_there = names.remove(&name);
            let found = match was_there {
                true => self.read_sealed(&name, &[b"entry", id.as_str().as_bytes()], Entry::from_bytes, &mut loaded.findings)?,
                false => None,
            };
            match found {
                Some(entry) if entry.id == *id && entry.seen >= *seen => loaded.entries.push((entry, *doubted)),
                Some(_) => {
                    loaded
                        .findings
                        .push(format!("the cached copy of `{id}` is an older one than the index knows: dropped, to be fetched again"));
                    self.folder.remove(&name)?;
                }
                None if was_there => {
                    loaded.findings.push(format!("the cached copy of `{id}` is damaged: dropped, to be fetched again"));
                    self.folder.remove(&name)?;
                }
                None => loaded.findings.push(format!("the cached copy of `{id}` is missing: to be fetched again")),
            }
        }
        // Whatever the index does not have is a file of before a removal, or of another key's time.
        for name in names {
            self.folder.remove(&name)?;
        }
        // Kept although an entry may be missing, which is read anew anyway: without it the server would not tell what was revoked meanwhile.
        loaded.since = index.since;
        Ok(())
    }

    fn read_sealed<T, E>(
        &self,
        name: &str,
        place: &[&[u8]],
        parse: impl FnOnce(&[u8]) -> Result<T, E>,
        findings: &mut Vec<String>,
    ) -> Result<Option<T>, CacheError> {
        let Some(sealed) = self.folder.read(name)? else { return Ok(None) };
        let parsed = self.key.open(place, &sealed).ok().and_then(|plain| parse(plain.expose()).ok());
        if parsed.is_none() && !name.starts_with("e-") {
            findings.push(format!("{} is damaged or was not written by this cache: dropped", self.folder.path.join(name).display()));
        }
        Ok(parsed)
    }

    fn read_registered(&self) -> Result<Vec<KeyId>, CacheError> {
        let bytes = self.folder.read("registered")?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.split_ascii_whitespace().filter_map(|word| KeyId::parse(word).ok()).collect())
    }

    /// Makes one step durable.
    ///
    /// # Errors
    /// What stood before still stands, except that removed entries may be gone already. The step can be made again.
    pub fn write(&self, batch: &Batch) -> Result<(), CacheError> {
        let Batch { remove, put, index, contact, registered } = batch;
        for id in remove {
            self.folder.remove(&self.entry_name(id))?;
        }
        let seal = |entry: &Arc<Entry>| {
            let place: [&[u8]; 2] = [b"entry", entry.id.as_str().as_bytes()];
            (self.entry_name(&entry.id), self.key.seal(&place, &entry.to_bytes()))
        };
        for some in put.chunks(64) {
            self.folder.replace(&some.iter().map(seal).collect::<Vec<_>>())?;
        }
        let mut last = Vec::new();
        if let Some(index) = index {
            last.push(("index".to_owned(), self.key.seal(&[b"index"], &index.to_bytes())));
        }
        if let Some(contact) = contact {
            last.push(("contact".to_owned(), self.key.seal(&[b"contact"], &contact.to_bytes())));
        }
        if let Some(registered) = registered {
            let lines: String = registered.iter().map(|id| format!("{id}\n")).collect();
            last.push(("registered".to_owned(), lines.into_bytes().into()));
        }
        self.folder.replace(&last)
    }

    fn entry_name(&self, id: &KeyId) -> String {
        let name = u128::from_be_bytes(self.key.name(id.as_str().as_bytes()));
        format!("e-{name:032x}")
    }
}

impl Folder {
    fn open(path: &Path) -> Result<Self, CacheError> {
        use std::os::unix::fs::DirBuilderExt;
        let failed = |step, source| CacheError::Io { step, path: path.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| failed("creating", e))?;
        let dir = openat(CWD, path, OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty()).map_err(|e| failed("opening", e.into()))?;
        let found = fstat(&dir).map_err(|e| failed("looking at", e.into()))?;
        let me = rustix::process::geteuid().as_raw();
        let open = |problem| CacheError::Open { path: path.to_owned(), problem };
        if found.st_uid != me {
            return Err(open(format!("belongs to user {}, and the agent runs as {me}: name a folder of the agent's own", found.st_uid)));
        }
        if found.st_mode & 0o077 != 0 {
            return Err(open(format!("has mode {:04o}, so that others could use it: run `chmod 0700` on it", found.st_mode & 0o7777)));
        }
        Ok(Self { path: path.to_owned(), dir })
    }

    fn lock(&self) -> Result<OwnedFd, CacheError> {
        let flags = SAFE | OFlags::CREATE | OFlags::RDWR;
        let file = openat(&self.dir, "lock", flags, PRIVATE).map_err(|e| self.failed("opening", "lock", e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(Errno::AGAIN) => Err(CacheError::InUse(self.path.clone())),
            Err(error) => Err(self.failed("locking", "lock", error)),
        }
    }

    pub(crate) fn failed(&self, step: &'static str, name: &str, error: Errno) -> CacheError {
        CacheError::Io { step, path: self.path.join(name), source: error.into() }
    }

    fn names(&self) -> Result<Vec<String>, CacheError> {
        let list = || -> Result<Vec<String>, Errno> {
            let mut names = Vec::new();
            for entry in Dir::read_from(&self.dir)? {
                names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
            }
            Ok(names)
        };
        list().map_err(|e| self.failed("listing", "", e))
    }

    /// What a killed process left: each has its name with `.new`.
    fn remove_temporary(&self) -> Result<(), CacheError> {
        for name in self.names()?.iter().filter(|name| name.ends_with(".new")) {
            self.remove(name)?;
        }
        Ok(())
    }

    pub(crate) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, CacheError> {
        use std::io::Read;
        let file = match openat(&self.dir, name, SAFE | OFlags::RDONLY, Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.failed("opening", name, error)),
        };
        let size = file.metadata().map_or(0, |found| found.len()).min(MOST);
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1));
        let read = file.take(MOST).read_to_end(&mut bytes);
        read.map_err(|source| CacheError::Io { step: "reading", path: self.path.join(name), source })?;
        Ok(Some(bytes))
    }

    /// Removes a file if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), CacheError> {
        match unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed("removing", name, error)),
        }
    }

    /// Replaces files, each as a whole, and all of them durably.
    pub(crate) fn replace(&self, files: &[(String, Box<[u8]>)]) -> Result<(), CacheError> {
        let together = files.len() >= MANY;
        for (name, bytes) in files {
            self.write_new(name, bytes, !together)?;
        }
        if together {
            rustix::fs::syncfs(&self.dir).map_err(|e| self.failed("syncing", "", e))?;
        }
        for (name, _) in files {
            renameat(&self.dir, temporary(name), &self.dir, name.as_str()).map_err(|e| self.failed("renaming", name, e))?;
        }
        rustix::fs::fsync(&self.dir).map_err(|e| self.failed("syncing", "", e))
    }

    fn write_new(&self, name: &str, bytes: &[u8], sync: bool) -> Result<(), CacheError> {
        use std::io::Write;
        let temporary = temporary(name);
        let flags = SAFE | OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY;
        let file = openat(&self.dir, temporary.as_str(), flags, PRIVATE).map_err(|e| self.failed("creating", &temporary, e))?;
        let mut file = std::fs::File::from(file);
        let written = file.write_all(bytes).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
        written.map_err(|source| {
            // A full disk wants the space back.
            let _ = unlinkat(&self.dir, temporary.as_str(), AtFlags::empty());
            CacheError::Io { step: "writing", path: self.path.join(name), source }
        })
    }
}

fn temporary(name: &str) -> String {
    format!("{name}.new")
}

#[cfg(test)]
mod tests;
