//! The local root of trust: 32 random bytes in a file that only its owner can read.
//!
//! It protects a database or backup that is stolen without the file, and nothing else: it is no HSM, does not encrypt the
//! file under a passphrase, and does not hide anything from this machine's root.
//!
//! A wrapped key is `[format 1][salt 32][ciphertext][tag 16]`.

use crate::once::{OnceKey, SALT, random_key};
use crate::ring::expand;
use crate::{RootError, RootOfTrust, fields, random};
use aws_lc_rs::{digest, hmac};
use base64::{Engine, prelude::BASE64_STANDARD};
use claviger_domain::SecretBytes;
use claviger_ports::Sealed;
use futures::future::BoxFuture;
use rustix::fs::OFlags;
use rustix::process::geteuid;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const FILE: &str = "root.key";
const FORMAT: u8 = 1;
/// The file's first words: what it is, and the format's number.
const TITLE: &str = "claviger-root-key 1";
/// More than a root key's file has. A larger file is none.
const MAX_FILE: u64 = 256;

/// A root key in a file of its own.
pub struct FileRoot {
    name: String,
    path: PathBuf,
    wrap: hmac::Key,
}

impl FileRoot {
    /// Makes a root key in the folder `dir`, which is made too when it is not there: `root.key`, mode 0600, in a folder of
    /// mode 0700. File and folder are on stable storage when this returns.
    ///
    /// # Errors
    /// [`RootError::Exists`] when there is a root key already, [`RootError::Permissions`] when an existing folder is open to
    /// others, [`RootError::Io`].
    pub fn create(dir: &Path) -> Result<Self, RootError> {
        make_folder(dir)?;
        check_folder(dir)?;
        let key = random_key();
        let path = dir.join(FILE);
        write_new(&path, render(&key).as_bytes())?;
        sync_folder(dir)?;
        Ok(Self::of(path, &key))
    }

    /// Opens the root key in the folder `dir`.
    ///
    /// # Errors
    /// [`RootError::Permissions`] when anyone but this user could read or replace it, [`RootError::Damaged`], [`RootError::Io`].
    pub fn open(dir: &Path) -> Result<Self, RootError> {
        check_folder(dir)?;
        let path = dir.join(FILE);
        let key = parse(&path, &read_checked(&path)?)?;
        Ok(Self::of(path, &key))
    }

    fn of(path: PathBuf, key: &[u8; 32]) -> Self {
        let subkey = |usage: &[u8]| expand(key, &fields::long(&[b"claviger/file-root", usage]));
        let id = u32::from_be_bytes(*subkey(b"name").first_chunk().expect("32 bytes"));
        Self { name: format!("file:{id:08x}"), path, wrap: hmac::Key::new(hmac::HMAC_SHA256, &*subkey(b"wrap")) }
    }

    pub(crate) fn wrap_with(&self, context: &[u8], key: &SecretBytes, salt: [u8; SALT]) -> Result<Sealed, RootError> {
        let mut header = [FORMAT; 1 + SALT];
        header[1..].copy_from_slice(&salt);
        let too_long = |_| RootError::Refused("the key to wrap is too long".to_owned());
        let sealed = OnceKey::derive(&self.wrap, &salt).seal(&header, &aad(context), key.expose()).map_err(too_long)?;
        Ok(Sealed(sealed))
    }

    fn unwrap_now(&self, context: &[u8], wrapped: &Sealed) -> Result<SecretBytes, RootError> {
        let (&[FORMAT], rest) = wrapped.0.split_first_chunk::<1>().ok_or(RootError::NotAuthentic)? else {
            return Err(RootError::NotAuthentic);
        };
        let (salt, sealed) = rest.split_first_chunk().ok_or(RootError::NotAuthentic)?;
        let mut key = OnceKey::derive(&self.wrap, salt).open(&aad(context), sealed).map_err(|_| RootError::NotAuthentic)?;
        Ok(SecretBytes::new(std::mem::take(&mut *key)))
    }

    /// A root of a known key.
    #[cfg(test)]
    pub(crate) fn of_known(key: &[u8; 32]) -> Self {
        Self::of(PathBuf::from("/nowhere/root.key"), key)
    }
}

impl RootOfTrust for FileRoot {
    fn name(&self) -> &str {
        &self.name
    }

    fn promise(&self) -> String {
        format!(
            "the store's keys are wrapped by the key in `{}`: a database or backup stolen without that file stays closed, but whoever \
             reads both, or is root on this machine, reads every secret",
            self.path.display()
        )
    }

    fn wrap<'a>(&'a self, context: &'a [u8], key: &'a SecretBytes) -> BoxFuture<'a, Result<Sealed, RootError>> {
        Box::pin(async move { self.wrap_with(context, key, random()) })
    }

    fn unwrap<'a>(&'a self, context: &'a [u8], wrapped: &'a Sealed) -> BoxFuture<'a, Result<SecretBytes, RootError>> {
        Box::pin(async move { self.unwrap_now(context, wrapped) })
    }
}

impl std::fmt::Debug for FileRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileRoot({})", self.name)
    }
}

fn aad(context: &[u8]) -> Vec<u8> {
    fields::long(&[b"claviger/file-root/wrap", context])
}

/// The file's one line: title, base64 of the key, checksum.
pub(crate) fn render(key: &[u8; 32]) -> Zeroizing<String> {
    let mut line = Zeroizing::new(String::with_capacity(MAX_FILE as usize));
    line.push_str(TITLE);
    line.push(' ');
    BASE64_STANDARD.encode_string(key, &mut line);
    line.push(' ');
    line.push_str(&checksum(key));
    line.push('\n');
    line
}

/// The key of a file's contents. Only what [`render`] writes is read, so a mistyped or cut copy is noticed.
pub(crate) fn parse(path: &Path, contents: &[u8]) -> Result<Zeroizing<[u8; 32]>, RootError> {
    let damaged = |why| RootError::Damaged { path: path.to_owned(), why };
    let text = std::str::from_utf8(contents).map_err(|_| damaged("is not text"))?;
    let rest = text.strip_prefix(TITLE).ok_or(damaged("is no root key of format 1"))?;
    let line = rest.strip_suffix('\n').ok_or(damaged("is cut off"))?;
    let (encoded, sum) = line.strip_prefix(' ').and_then(|l| l.split_once(' ')).ok_or(damaged("is cut off"))?;

    let mut buffer = Zeroizing::new([0; 64]);
    let len = BASE64_STANDARD.decode_slice(encoded, &mut *buffer).map_err(|_| damaged("holds no base64"))?;
    let mut key = Zeroizing::new([0; 32]);
    if len != key.len() {
        return Err(damaged("holds a key of another length than 32 bytes"));
    }
    key.copy_from_slice(&buffer[..len]);
    if sum != checksum(&key) { Err(damaged("has a wrong checksum")) } else { Ok(key) }
}

/// Against slips only, not against attackers: 32 bits that tell nothing to those who cannot read the file anyway.
fn checksum(key: &[u8; 32]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"claviger/file-root/checksum");
    context.update(key);
    let sum = context.finish();
    sum.as_ref().iter().take(4).map(|b| format!("{b:02x}")).collect()
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> RootError {
    let path = path.to_owned();
    move |why| RootError::Io { path: path.clone(), why: why.to_string() }
}

fn make_folder(dir: &Path) -> Result<(), RootError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(io_error(dir)),
    }
}

fn check_folder(dir: &Path) -> Result<(), RootError> {
    let found = fs::symlink_metadata(dir).map_err(io_error(dir))?;
    let is_plain = found.is_dir();
    check(dir, &Found { is_plain, owner: found.uid(), mode: found.mode() & 0o7777 }, &Wanted { noun: "folder", others: 0o077, mode: 0o700 })
}

fn check_file(path: &Path, found: &fs::Metadata) -> Result<(), RootError> {
    let is_plain = found.is_file();
    check(path, &Found { is_plain, owner: found.uid(), mode: found.mode() & 0o7777 }, &Wanted { noun: "file", others: 0o7177, mode: 0o600 })
}

/// What stands at a path. `is_plain`: a file or folder as wanted, not a symbolic link or something else.
struct Found {
    is_plain: bool,
    owner: u32,
    mode: u32,
}

struct Wanted {
    noun: &'static str,
    /// Bits that may not be set.
    others: u32,
    /// The mode that the remedy sets.
    mode: u32,
}

fn check(path: &Path, found: &Found, wanted: &Wanted) -> Result<(), RootError> {
    let me = geteuid().as_raw();
    let shown = path.display();
    let refuse = |found: String, remedy: String| Err(RootError::Permissions { path: path.to_owned(), found, remedy });
    if !found.is_plain {
        return refuse(format!("is not a plain {} (a symbolic link?)", wanted.noun), format!("put the {} itself there", wanted.noun));
    }
    if found.owner != me {
        return refuse(
            format!("belongs to user {}, and this program runs as user {me}", found.owner),
            format!("run the command as that user, or `chown {me} {shown}` if the server shall run as user {me}"),
        );
    }
    if found.mode & wanted.others != 0 {
        return refuse(format!("has mode {:04o}, so others could use it", found.mode), format!("run `chmod {:o} {shown}`", wanted.mode));
    }
    Ok(())
}

/// Looks before it opens, since opening a pipe would wait; and again at what it opened, since the look is not the open.
fn read_checked(path: &Path) -> Result<Zeroizing<Vec<u8>>, RootError> {
    check_file(path, &fs::symlink_metadata(path).map_err(io_error(path))?)?;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(io_error(path))?;
    check_file(path, &file.metadata().map_err(io_error(path))?)?;
    // With room for all of it: a growing buffer would leave copies behind.
    let mut contents = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 2));
    file.take(MAX_FILE + 1).read_to_end(&mut contents).map_err(io_error(path))?;
    Ok(contents)
}

fn write_new(path: &Path, contents: &[u8]) -> Result<(), RootError> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => return Err(RootError::Exists(path.to_owned())),
        opened => opened.map_err(io_error(path))?,
    };
    let written = file.write_all(contents).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a key helps nobody and would bar the next attempt. If this fails too, the error below says enough.
        let _ = fs::remove_file(path);
    }
    written.map_err(io_error(path))
}

/// Makes the new names durable: the file's in its folder, and the folder's in its own.
fn sync_folder(dir: &Path) -> Result<(), RootError> {
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for folder in [dir, parent] {
        File::open(folder).and_then(|f| f.sync_all()).map_err(io_error(folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::suite;
    use futures::executor::block_on;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::TempDir;

    /// A folder that is gone after the test, and the root's folder in it.
    fn place() -> (TempDir, PathBuf) {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("root");
        (outer, dir)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_local_root_keeps_the_contract() {
        let ((_a, first), (_b, second)) = (place(), place());
        block_on(suite::check(&FileRoot::create(&first).unwrap(), &FileRoot::create(&second).unwrap()));
    }

    #[test]
    fn what_was_created_opens_again_and_is_private() {
        let (_outer, dir) = place();
        let made = FileRoot::create(&dir).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&dir), mode(&dir.join(FILE))), (0o700, 0o600));
        let wrapped = block_on(made.wrap(b"c", &SecretBytes::new(vec![7; 32]))).unwrap();
        let opened = FileRoot::open(&dir).unwrap();
        assert_eq!(opened.name(), made.name());
        assert_eq!(opened.name().len(), "file:00000000".len());
        assert_eq!(block_on(opened.unwrap(b"c", &wrapped)).unwrap().expose(), [7; 32]);
        assert!(made.promise().contains(dir.join(FILE).to_str().unwrap()));
    }

    #[test]
    fn a_root_key_is_never_overwritten() {
        let (_outer, dir) = place();
        let first = FileRoot::create(&dir).unwrap();
        assert_eq!(FileRoot::create(&dir).unwrap_err(), RootError::Exists(dir.join(FILE)));
        assert_eq!(FileRoot::open(&dir).unwrap().name(), first.name());
    }

    #[test]
    fn a_file_that_others_could_use_is_refused_with_the_remedy() {
        let (_outer, dir) = place();
        FileRoot::create(&dir).unwrap();
        let file = dir.join(FILE);
        for mode in [0o644, 0o640, 0o620, 0o604, 0o700, 0o4600] {
            set_mode(&file, mode);
            let said = FileRoot::open(&dir).unwrap_err().to_string();
            let shown = file.display();
            assert_eq!(said, format!("`{shown}` has mode {mode:04o}, so others could use it; run `chmod 600 {shown}`"));
        }
        for mode in [0o600, 0o400] {
            set_mode(&file, mode);
            assert!(FileRoot::open(&dir).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn a_folder_that_others_could_use_is_refused_with_the_remedy() {
        let (_outer, dir) = place();
        FileRoot::create(&dir).unwrap();
        for mode in [0o755, 0o750, 0o701, 0o720] {
            set_mode(&dir, mode);
            let shown = dir.display();
            let wanted = format!("`{shown}` has mode {mode:04o}, so others could use it; run `chmod 700 {shown}`");
            assert_eq!(FileRoot::open(&dir).unwrap_err().to_string(), wanted);
            fs::rename(dir.join(FILE), dir.join("away")).unwrap();
            assert_eq!(FileRoot::create(&dir).unwrap_err().to_string(), wanted);
            fs::rename(dir.join("away"), dir.join(FILE)).unwrap();
        }
    }

    #[test]
    fn symbolic_links_and_other_things_are_refused() {
        let (outer, dir) = place();
        FileRoot::create(&dir).unwrap();
        let link = outer.path().join("link");
        symlink(&dir, &link).unwrap();
        let said = FileRoot::open(&link).unwrap_err().to_string();
        assert_eq!(said, format!("`{}` is not a plain folder (a symbolic link?); put the folder itself there", link.display()));

        let file = dir.join(FILE);
        fs::rename(&file, dir.join("elsewhere")).unwrap();
        symlink(dir.join("elsewhere"), &file).unwrap();
        let said = FileRoot::open(&dir).unwrap_err().to_string();
        assert_eq!(said, format!("`{}` is not a plain file (a symbolic link?); put the file itself there", file.display()));
        assert_eq!(FileRoot::create(&dir).unwrap_err(), RootError::Exists(file.clone()));

        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(matches!(FileRoot::open(&dir), Err(RootError::Permissions { .. })));
    }

    #[test]
    fn another_owner_is_refused_with_the_remedy() {
        let me = geteuid().as_raw();
        let found = Found { is_plain: true, owner: me + 1, mode: 0o600 };
        let said = check(Path::new("/x/root.key"), &found, &Wanted { noun: "file", others: 0o7177, mode: 0o600 }).unwrap_err();
        let wanted = format!(
            "`/x/root.key` belongs to user {}, and this program runs as user {me}; run the command as that user, or `chown {me} /x/root.key` if the server shall run as user {me}",
            me + 1
        );
        assert_eq!(said.to_string(), wanted);
    }

    #[test]
    fn a_missing_file_is_named() {
        let (_outer, dir) = place();
        fs::create_dir(&dir).unwrap();
        set_mode(&dir, 0o700);
        assert!(matches!(FileRoot::open(&dir), Err(RootError::Io { path, .. }) if path == dir.join(FILE)));
    }

    #[test]
    fn every_damage_to_the_file_is_noticed() {
        let (_outer, dir) = place();
        FileRoot::create(&dir).unwrap();
        let file = dir.join(FILE);
        let good = fs::read(&file).unwrap();
        let damaged = |contents: &[u8]| {
            fs::write(&file, contents).unwrap();
            matches!(FileRoot::open(&dir), Err(RootError::Damaged { path, .. }) if path == file)
        };
        assert!((0..good.len()).all(|len| damaged(&good[..len])), "a cut");
        assert!(damaged(&[&good[..], b"\n"].concat()) && damaged(&[&good[..], &[b'x'; 500]].concat()), "an addition");
        for bit in 0..good.len() * 8 {
            let mut altered = good.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(damaged(&altered), "bit {bit}");
        }
        fs::write(&file, &good).unwrap();
        assert!(FileRoot::open(&dir).is_ok());
    }

    #[test]
    fn a_wrong_checksum_is_said() {
        let line = render(&[1; 32]).replace(&checksum(&[1; 32]), &checksum(&[2; 32]));
        let said = parse(Path::new("/x/root.key"), line.as_bytes()).unwrap_err().to_string();
        assert_eq!(said, "`/x/root.key` has a wrong checksum; restore it from its backup");
    }

    #[test]
    fn debug_shows_the_name_only() {
        let root = FileRoot::of_known(&[7; 32]);
        assert_eq!(format!("{root:?}"), format!("FileRoot({})", root.name()));
    }
}
