//! A person's sessions, one for each server, in a file that is his alone; and their renewal.
//!
//! # Guarantees
//! - The file is made with mode 0600 in a folder with 0700, and replaced as a whole. One that others can read, or that is
//!   somebody else's, a link or no file, is not used ▲: the command says so and stops.
//! - Programs that renew at the same time wait for each other, since a provider may take a refresh token once.
//!
//! A system's keyring is not used: what it keeps is for whoever is logged in on the desktop or holds the kernel session, and
//! on the servers where this program runs there is usually neither.

mod known;
mod renew;

pub(crate) use known::KnownIssuers;
pub(crate) use renew::{KeptSession, Place, renewed, seconds_left};

use crate::failure::{Code, Failure};
use claviger_wire::native::{LoginIssuer, SessionInfo};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::geteuid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of the file that are read.
const MAX_FILE: u64 = 4 << 20;

/// One server's session.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Where the person logged in.
    pub(crate) issuer: LoginIssuer,
    /// Who he is, `user:NAME`.
    pub(crate) principal: String,
    /// The session's token.
    pub(crate) token: String,
    /// RFC 3339.
    pub(crate) expires: String,
    /// What renews it, with a new ID token.
    pub(crate) ticket: String,
    /// RFC 3339.
    pub(crate) renewable_until: String,
    /// What the provider gives a new ID token for.
    pub(crate) refresh_token: Option<String>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.token.zeroize();
        self.ticket.zeroize();
        self.refresh_token.zeroize();
    }
}

impl Kept {
    /// What a server gave for an ID token of this issuer.
    pub(crate) fn new(issuer: LoginIssuer, given: SessionInfo, refresh_token: Option<String>) -> Self {
        let SessionInfo { token, expires, ticket, renewable_until, identity } = given;
        Self { issuer, principal: format!("{}:{}", identity.r#type, identity.id), token, expires, ticket, renewable_until, refresh_token }
    }
}

/// The file's content.
#[derive(Default, Serialize, Deserialize)]
struct Content {
    /// By the server's host and port.
    sessions: BTreeMap<String, Kept>,
}

/// The file, held against other programs until this is dropped.
pub(crate) struct Held {
    path: PathBuf,
    content: Content,
    _lock: File,
}

impl Held {
    /// Opens the file for a change, and waits for whoever changes it now. It may be missing.
    pub(crate) fn open() -> Result<Self, Failure> {
        let path = place()?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let failed = |e: io::Error| Failure::other(format!("making {}: {e}", folder.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let lock_path = path.with_extension("lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = rustix::fs::open(&lock_path, flags, Mode::from_raw_mode(0o600));
        let lock = lock.map_err(|e| Failure::other(format!("opening {}: {e}", lock_path.display())))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|e| Failure::other(format!("locking {}: {e}", lock_path.display())))?;
        Ok(Self { content: read(&path)?.unwrap_or_default(), path, _lock: lock.into() })
    }

    /// The session at a server.
    pub(crate) fn at(&self, server: &str) -> Option<&Kept> {
        self.content.sessions.get(server)
    }

    /// Keeps a session, durably.
    pub(crate) fn keep(&mut self, server: &str, kept: Kept) -> Result<(), Failure> {
        self.content.sessions.insert(server.to_owned(), kept);
        self.write()
    }

    /// Forgets a session, durably; the last one takes the file with it.
    pub(crate) fn forget(&mut self, server: &str) -> Result<(), Failure> {
        self.content.sessions.remove(server);
        if !self.content.sessions.is_empty() {
            return self.write();
        }
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::other(format!("removing {}: {e}", self.path.display()))),
            _ => Ok(()),
        }
    }

    fn write(&self) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(&self.content).map(Zeroizing::new);
        let text = text.map_err(|e| Failure::other(format!("the sessions as JSON: {e}")))?;
        replace(&self.path, &text).map_err(|e| Failure::other(format!("writing {}: {e}", self.path.display())))
    }
}

/// The session at a server, without waiting for others. None when there is none.
pub(crate) fn look(server: &str) -> Result<Option<Kept>, Failure> {
    let Ok(path) = place() else { return Ok(None) };
    Ok(read(&path)?.and_then(|mut content: Content| content.sessions.remove(server)))
}

/// `CLAVIGER_SESSIONS`, or `claviger/sessions.json` in the folder for state (XDG base directories).
fn place() -> Result<PathBuf, Failure> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = variable("CLAVIGER_SESSIONS") {
        return Ok(path);
    }
    let state = variable("XDG_STATE_HOME").filter(|p| p.is_absolute()).or_else(|| Some(variable("HOME")?.join(".local/state")));
    let state = state.ok_or_else(|| Failure::usage("neither CLAVIGER_SESSIONS, XDG_STATE_HOME nor HOME says where sessions are kept"));
    Ok(state?.join("claviger/sessions.json"))
}

/// Reads the file, if it is there and this user's alone.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    let refused = |why: String, next: String| Failure::new(Code::Usage, format!("{} is not used: {why}", path.display())).next(next);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file: File = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => file.into(),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => return Err(refused("it is a link".to_owned(), format!("remove it: `rm {}`", path.display()))),
        Err(e) => return Err(Failure::usage(format!("cannot read {}: {e}", path.display()))),
    };
    let found = file.metadata().map_err(|e| Failure::usage(format!("cannot look at {}: {e}", path.display())))?;
    let me = geteuid().as_raw();
    if !found.is_file() {
        return Err(refused("it is no file".to_owned(), "set CLAVIGER_SESSIONS to a path of your own".to_owned()));
    }
    if found.uid() != me {
        return Err(refused(format!("it belongs to user {}, and you are {me}", found.uid()), "log in as yourself".to_owned()));
    }
    if found.mode() & 0o077 != 0 {
        let why = format!("it has mode {:04o}, so others can read your sessions", found.mode() & 0o7777);
        return Err(refused(why, format!("run `claviger logout` after `chmod 600 {}`, and log in again", path.display())));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(16 << 10));
    let read = file.take(MAX_FILE).read_to_end(&mut text);
    read.map_err(|e| Failure::usage(format!("cannot read {}: {e}", path.display())))?;
    let malformed = |_| refused("it is not what this program wrote".to_owned(), "remove it and log in again".to_owned());
    serde_json::from_slice(&text).map(Some).map_err(malformed)
}

/// Puts `bytes` durably in the file's place, mode 0600, never through a link.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    // The lock is held, so that nobody else makes a file of this name; an older one is a crash's.
    let beside = path.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file: File = rustix::fs::open(&beside, flags, Mode::from_raw_mode(0o600))?.into();
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Content;
    use super::replace;
    use crate::failure::Failure;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    fn read(path: &Path) -> Result<Option<Content>, Failure> {
        super::read(path)
    }

    #[test]
    fn the_file_is_private_and_one_that_others_can_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.json");
        assert!(read(&path).unwrap().is_none());
        fs::write(&path, "open to all").unwrap();
        replace(&path, br#"{"sessions":{}}"#).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(read(&path).unwrap().is_some());
        for mode in [0o640, 0o604, 0o660, 0o666, 0o644] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(read(&path).err().unwrap().what().contains("others can read"), "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let link = dir.path().join("link.json");
        symlink(&path, &link).unwrap();
        assert!(read(&link).err().unwrap().what().contains("link"));
        assert!(read(dir.path()).err().unwrap().what().contains("no file"));
        fs::write(&path, "{").unwrap();
        assert!(read(&path).err().unwrap().what().contains("not what this program wrote"));
    }

    #[test]
    fn a_link_in_the_place_of_the_file_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (dir.path().join("sessions.json"), dir.path().join("elsewhere"));
        fs::write(&elsewhere, "untouched").unwrap();
        symlink(&elsewhere, &path).unwrap();
        symlink(&elsewhere, path.with_extension("new")).unwrap();
        replace(&path, b"{}").unwrap();
        assert_eq!(fs::read(&elsewhere).unwrap(), b"untouched");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }
}
