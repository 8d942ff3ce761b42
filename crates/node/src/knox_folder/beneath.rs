//! Files in folders where other local users may put what they like: opened relative to an open folder, never through a link,
//! and looked at before they are used.
//!
//! # Guarantees
//! - No symbolic link is followed below the folder that was opened by its path.
//! - Nothing is read, written or chmod-ed before the open file itself was seen to be a plain file (not a FIFO, device or folder)
//!   with one name: a second hard link could be somebody else's file.

use super::FolderError;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;
use std::path::Path;

/// Always: not inherited, not through a link, and no FIFO without a writer may hold us up.
const SAFE: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);

/// Opens the folder that the administrator named; its own path may go through links.
pub(super) fn open_root(path: &Path) -> Result<OwnedFd, FolderError> {
    match openat(CWD, path, OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty()) {
        Ok(folder) => Ok(folder),
        Err(Errno::NOENT) => Err(FolderError::Missing { path: path.to_owned() }),
        Err(error) => Err(FolderError::io("opening", path, error)),
    }
}

/// Opens a folder in `parent`; `path` is for messages.
pub(super) fn open_folder(parent: impl AsFd, name: &str, path: &Path) -> Result<Option<OwnedFd>, FolderError> {
    match openat(parent, name, SAFE | OFlags::DIRECTORY, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR) => {
            Err(FolderError::NotPlain { path: path.to_owned(), what: "is a link or a file where a folder belongs" })
        }
        Err(error) => Err(FolderError::io("opening", path, error)),
    }
}

/// Opens a plain file in `parent`, with what is known of it.
pub(super) fn open_file(parent: impl AsFd, name: &str, access: OFlags, path: &Path) -> Result<Option<(OwnedFd, Stat)>, FolderError> {
    let file = match openat(parent, name, SAFE | access, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(FolderError::NotPlain { path: path.to_owned(), what: "is a symbolic link" }),
        // A folder or a socket, or a FIFO that nobody reads.
        Err(Errno::ISDIR | Errno::NXIO) => return Err(FolderError::NotPlain { path: path.to_owned(), what: "is no plain file" }),
        Err(error) => return Err(FolderError::io("opening", path, error)),
    };
    let found = fstat(&file).map_err(|e| FolderError::io("looking at", path, e))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(FolderError::NotPlain { path: path.to_owned(), what: "is no plain file" });
    }
    if found.st_nlink > 1 {
        return Err(FolderError::NotPlain {
            path: path.to_owned(),
            what: "has a second name (a hard link), and may be somebody else's file",
        });
    }
    Ok(Some((file, found)))
}

/// Makes a file that was not there, with exactly this mode for now.
pub(super) fn create_file(parent: impl AsFd, name: &str, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = SAFE | OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
    let file = openat(parent, name, flags, mode)?;
    // The umask may have taken bits away.
    rustix::fs::fchmod(&file, mode)?;
    Ok(file)
}

/// Reads a file from its beginning, whatever its offset is.
pub(super) fn read_all(file: impl AsFd, most: usize) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, Errno> {
    let size = usize::try_from(fstat(&file)?.st_size).unwrap_or(usize::MAX);
    if size > most {
        return Ok(None);
    }
    let mut out = zeroize::Zeroizing::new(vec![0; size + 1]);
    let mut read = 0;
    while read < out.len() {
        match rustix::io::pread(&file, &mut out[read..], read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        // It grew while it was read.
        if read == out.len() {
            if read > most {
                return Ok(None);
            }
            let more = zeroize::Zeroizing::new([out.as_slice(), &vec![0; read.max(4096)]].concat());
            out = more;
        }
    }
    out.truncate(read);
    Ok(Some(out))
}

/// Writes all bytes at `offset`.
pub(super) fn write_all(file: impl AsFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(&file, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
