//! All writing to disk goes through here, so that tests can make any write or sync fail.
//!
//! Reading does not: damage is tested by damaging real files.

use crate::direct::BLOCK;
use crate::error::AuditError;
use rustix::fs::OFlags;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// How many zeros are written at once when a region is filled ahead.
const ZERO_SLICE: usize = 1 << 20;

/// A test's hand on the disk: called before each write and sync; an error is returned in its place.
///
/// Production code passes none.
pub trait Faults: Send + Sync {
    /// Before `bytes` are written at `offset` of `path`.
    ///
    /// # Errors
    /// What the write shall fail with.
    fn before_write(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Before `path` is synced.
    ///
    /// # Errors
    /// What the sync shall fail with.
    fn before_sync(&self, path: &Path) -> io::Result<()>;
}

/// The writing side of the file system.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    faults: Option<Arc<dyn Faults>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("faults", &self.faults.is_some()).finish()
    }
}

impl Disk {
    pub(crate) fn new(faults: Option<Arc<dyn Faults>>) -> Self {
        Self { faults }
    }

    /// Creates or empties `path`, readable by owner and group only.
    pub(crate) fn create(&self, path: &Path) -> Result<File, AuditError> {
        self.checked_write(path, 0, &[])
            .and_then(|()| OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o640).open(path))
            .map_err(|error| AuditError::io("creating", path, &error))
    }

    pub(crate) fn write_at(&self, file: &File, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), AuditError> {
        self.checked_write(path, offset, bytes)
            .and_then(|()| file.write_all_at(bytes, offset))
            .map_err(|error| AuditError::io("writing", path, &error))
    }

    /// Writes through a handle that is opened for synchronous writes: durable when this returns.
    pub(crate) fn write_durably(&self, file: &File, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), AuditError> {
        self.checked_write(path, offset, bytes)
            .and_then(|()| self.checked_sync(path))
            .and_then(|()| file.write_all_at(bytes, offset))
            .map_err(|error| AuditError::io("writing", path, &error))
    }

    /// Appends durably: two appends that a crash could tear would leave damage between whole lines, which nobody could
    /// tell from tampering.
    pub(crate) fn append(&self, path: &Path, bytes: &[u8]) -> Result<(), AuditError> {
        let opened = self.checked_write(path, 0, bytes).and_then(|()| {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
            file.write_all(bytes).map(|()| file)
        });
        let file = opened.map_err(|error| AuditError::io("appending to", path, &error))?;
        self.sync_data(&file, path)
    }

    pub(crate) fn sync_data(&self, file: &File, path: &Path) -> Result<(), AuditError> {
        self.checked_sync(path).and_then(|()| file.sync_data()).map_err(|error| AuditError::io("syncing", path, &error))
    }

    pub(crate) fn sync_all(&self, file: &File, path: &Path) -> Result<(), AuditError> {
        self.checked_sync(path).and_then(|()| file.sync_all()).map_err(|error| AuditError::io("syncing", path, &error))
    }

    /// Makes created, renamed and removed names of a folder durable.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<(), AuditError> {
        self.checked_sync(dir).and_then(|()| File::open(dir)?.sync_all()).map_err(|error| AuditError::io("syncing", dir, &error))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), AuditError> {
        std::fs::rename(from, to).map_err(|error| AuditError::io("renaming", from, &error))
    }

    /// Removes a file; that it is not there is no error.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), AuditError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(AuditError::io("removing", path, &error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn set_len(&self, file: &File, path: &Path, length: u64) -> Result<(), AuditError> {
        file.set_len(length).map_err(|error| AuditError::io("truncating", path, &error))
    }

    /// Replaces the content of `path` in one step: after a crash it is the old or the new, never a mixture.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), AuditError> {
        let fresh = path.with_extension("new");
        let file = self.create(&fresh)?;
        self.write_at(&file, &fresh, 0, bytes)?;
        self.sync_all(&file, &fresh)?;
        self.rename(&fresh, path)
    }

    /// Reserves blocks for the first `length` bytes; `false` where the file system cannot.
    pub(crate) fn allocate(&self, file: &File, path: &Path, length: u64) -> Result<bool, AuditError> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        let outcome = self.checked_write(path, 0, &[]);
        let outcome = outcome.and_then(|()| match fallocate(file, FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(error) => Err(error.into()),
        });
        outcome.map_err(|error| AuditError::io("reserving space in", path, &error))
    }

    /// Fills a new file with `length` zeros past the page cache, which then neither holds them nor has to write them out;
    /// through it where the file system cannot do otherwise. The caller syncs.
    pub(crate) fn zero_all(&self, file: &File, path: &Path, length: u64) -> Result<(), AuditError> {
        let whole = length / BLOCK as u64 * BLOCK as u64;
        match Self::open_direct(path) {
            Some(direct) => {
                self.zero_directly(&direct, path, 0, whole)?;
                self.zero(file, path, whole, length)
            }
            None => self.zero(file, path, 0, length),
        }
    }

    /// Fills a file that others append to with zeros from one block's start to another's, durably.
    pub(crate) fn extend(&self, path: &Path, from: u64, to: u64) -> Result<(), AuditError> {
        let unsupported = || AuditError::io("opening", path, &io::ErrorKind::Unsupported.into());
        let direct = Self::open_direct(path).ok_or_else(unsupported)?;
        self.zero_directly(&direct, path, from, to)?;
        self.sync_data(&direct, path)
    }

    fn open_direct(path: &Path) -> Option<File> {
        let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
        OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
    }

    fn zero_directly(&self, direct: &File, path: &Path, from: u64, to: u64) -> Result<(), AuditError> {
        let room = vec![0; ZERO_SLICE + BLOCK];
        let aligned = room.as_ptr().align_offset(BLOCK);
        let mut at = from;
        while at < to {
            let slice = usize::try_from(to - at).map_or(ZERO_SLICE, |rest| rest.min(ZERO_SLICE));
            self.write_at(direct, path, at, &room[aligned..aligned + slice])?;
            at += slice as u64;
        }
        Ok(())
    }

    /// Writes zeros from `from` to `to`, so that later writes there change no metadata. The caller syncs.
    pub(crate) fn zero(&self, file: &File, path: &Path, from: u64, to: u64) -> Result<(), AuditError> {
        let zeros = vec![0; ZERO_SLICE.min((to.saturating_sub(from)) as usize)];
        let mut at = from;
        while at < to {
            // Synced between slices: one large burst would make a commit that runs meanwhile wait for all of it.
            if at > from {
                self.sync_data(file, path)?;
            }
            let length = ((to - at) as usize).min(ZERO_SLICE);
            self.write_at(file, path, at, &zeros[..length])?;
            at += length as u64;
        }
        Ok(())
    }

    fn checked_write(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.before_write(path, offset, bytes))
    }

    fn checked_sync(&self, path: &Path) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.before_sync(path))
    }
}

/// Bytes that an unprivileged process can still write in the file system of `dir`; `None` when it does not say.
pub(crate) fn free_space(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The whole content of a file, `None` when there is none.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, AuditError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(AuditError::io("reading", path, &error)),
    }
}
