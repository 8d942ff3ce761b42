//! Files that commands write: whole, or not at all.

use crate::failure::Failure;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why nothing whole was written.
pub(crate) enum Halt {
    /// The output took no more.
    Writing(io::Error),
    /// Something else.
    Failed(Failure),
}

/// Replaces a file by these bytes; see [`replace_with`].
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    replace_with(path, |to| to.write_all(bytes).map_err(Halt::Writing))
}

/// Puts what `write` writes in the file's place (mode 0600) when it is whole and on the disk: a reader never sees half of it, and what
/// stood there stays until then. Until then it has no name either, where the file system can do that, so that it is gone with this
/// process however that ends. What is no file, such as a pipe or a device, is written to as it is.
pub(crate) fn replace_with<T>(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<T, Halt>) -> Result<T, Failure> {
    let halted = |halt| match halt {
        Halt::Writing(error) => not_written(path, &error),
        Halt::Failed(failure) => failure,
    };
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let mut there = OpenOptions::new().write(true).open(path).map_err(|e| not_written(path, &e))?;
        return write(&mut there).map_err(halted);
    }
    if path.file_name().is_none() {
        return Err(Failure::usage(format!("{} is no file", path.display())));
    }
    let mut new = NewFile::beside(path).map_err(|e| not_written(path, &e))?;
    let done = write(&mut new.file).map_err(halted)?;
    new.take_place(path).map_err(|e| not_written(path, &e))?;
    Ok(done)
}

/// Puts these bytes in the place of whatever has this name (mode 0600), as [`replace_with`] does for files. A link is not followed.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = NewFile::beside(path)?;
    new.file.write_all(bytes)?;
    new.take_place(path)
}

fn not_written(path: &Path, error: &io::Error) -> Failure {
    Failure::other(format!("writing {}: {error}", path.display()))
}

/// A file in the making, readable by its owner alone.
struct NewFile {
    file: File,
    /// Its name for the moment before it takes its place, or from the start where there are no files without a name.
    name: PathBuf,
    is_named: bool,
}

impl NewFile {
    fn beside(to: &Path) -> io::Result<Self> {
        let mut name = to.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let name = to.with_file_name(name);
        let folder = to.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        if let Some(file) = nameless(folder) {
            return Ok(Self { file, name, is_named: false });
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name)?;
        Ok(Self { file, name, is_named: true })
    }

    fn take_place(&mut self, to: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        if !self.is_named {
            rustix::fs::linkat(CWD, self.by_number(), CWD, &self.name, AtFlags::SYMLINK_FOLLOW)?;
            self.is_named = true;
        }
        std::fs::rename(&self.name, to)?;
        self.is_named = false;
        Ok(())
    }

    fn by_number(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.is_named {
            // Half a file is no file.
            let _ = std::fs::remove_file(&self.name);
        }
    }
}

/// A file that no folder lists. None where the file system has none, or where it could not be named later.
fn nameless(folder: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR).ok().map(File::from)?;
    Path::new("/proc/self/fd").exists().then_some(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_fails_leaves_no_file_and_the_old_one_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "old").unwrap();
        let failed = replace_with(&path, |to| {
            to.write_all(b"half").unwrap();
            Err::<(), _>(Halt::Failed(Failure::other("no")))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        replace_with(&path, |to| to.write_all(b"new").map_err(Halt::Writing)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_written_has_no_name_until_it_is_whole_or_one_that_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let listed = || std::fs::read_dir(folder.path()).unwrap().count();
        for by_name in [false, true] {
            let mut new = NewFile::beside(&path).unwrap();
            if by_name {
                new.file = OpenOptions::new().write(true).create_new(true).open(&new.name).unwrap();
                new.is_named = true;
            }
            assert_eq!(listed(), usize::from(new.is_named));
            drop(new);
            assert_eq!(listed(), 0);
        }
    }

    #[test]
    fn a_pipe_or_device_is_written_to_and_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read_to_string(pipe).unwrap()
        });
        replace_with(&pipe, |to| to.write_all(b"through").map_err(Halt::Writing)).unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert!(!std::fs::metadata(&pipe).unwrap().is_file());
        let full = replace_with(Path::new("/dev/full"), |to| to.write_all(b"x").map_err(Halt::Writing)).unwrap_err();
        assert!(full.what().starts_with("writing /dev/full: "), "{}", full.what());
    }
}
