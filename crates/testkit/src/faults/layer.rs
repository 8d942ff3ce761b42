//! Builds, loads and commands the I/O layer.

use crate::faults::journal::{self, Loss, Lost};
use crate::faults::random::Random;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const SOURCE: &str = include_str!("../../native/faultfs.c");
/// Places in the control file; `faultfs.c` has the same.
const LYING: u64 = 24;
const ONLY: u64 = 64;
const FOLDER: u64 = 128;
const CONTROL_SIZE: usize = 2048;

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Writes, truncations, allocations.
    Writes,
    /// `fsync` and `fdatasync`, of files and folders.
    Syncs,
    /// Names made, changed and removed.
    Names,
}

/// An order to fail.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// Which calls count.
    pub class: Class,
    /// With what.
    pub errno: i32,
    /// How many calls pass first.
    pub after: u32,
    /// How many fail then.
    pub times: u32,
    /// Only files whose path contains this; at most 60 bytes. Empty: all.
    pub only: &'static str,
}

/// The layer for one server: where its journal is and how it is told what to do.
///
/// # Assumptions
/// The watched folder is on the file system of the temporary folder: removed files are kept by a second name there.
pub struct FaultLayer {
    library: PathBuf,
    folder: TempDir,
    control: File,
}

impl FaultLayer {
    /// In the place of an errno: the program is killed where the call would fail.
    pub const KILL: i32 = 100_000;

    /// Builds the library where that was not done yet, and makes an empty journal.
    ///
    /// # Errors
    /// When there is no C compiler or the folder cannot be written.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("graves"))?;
        let control = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(folder.path().join("control"))?;
        control.write_all_at(&[0; CONTROL_SIZE], 0)?;
        Ok(Self { library: library()?, folder, control })
    }

    /// What a program needs in its environment to run on the layer.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.display().to_string();
        vec![("LD_PRELOAD".into(), text(&self.library)), ("CLAVIGER_FAULTS".into(), text(self.folder.path()))]
    }

    /// Watches the files below a folder that are opened from now on.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn watch(&self, folder: &Path) -> Result<()> {
        let mut bytes = folder.display().to_string().into_bytes();
        bytes.push(0);
        ensure!(bytes.len() <= CONTROL_SIZE - FOLDER as usize, "the folder's name is too long");
        Ok(self.control.write_all_at(&bytes, FOLDER)?)
    }

    /// Lets calls fail; replaces an earlier order and counts anew.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn fail(&self, failure: Failure) -> Result<()> {
        self.calm()?;
        let mut only = [0; (FOLDER - ONLY) as usize];
        only[..failure.only.len()].copy_from_slice(failure.only.as_bytes());
        self.control.write_all_at(&only, ONLY)?;
        let class: u32 = match failure.class {
            Class::Writes => 1,
            Class::Syncs => 2,
            Class::Names => 4,
        };
        self.numbers(4, &[failure.after, class, failure.errno.cast_unsigned(), 0, 0])?;
        // Last, since this is what the layer looks at.
        self.numbers(0, &[failure.times])
    }

    /// All is well again.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn calm(&self) -> Result<()> {
        self.numbers(0, &[0])
    }

    /// How many calls have failed since [`FaultLayer::fail`].
    ///
    /// # Errors
    /// When the control file cannot be read.
    pub fn failed(&self) -> Result<u32> {
        let mut bytes = [0; 4];
        self.control.read_exact_at(&mut bytes, 20)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Lets syncs succeed without meaning it, as some disks do.
    ///
    /// # Errors
    /// When the control file cannot be written.
    pub fn lie(&self, lying: bool) -> Result<()> {
        self.numbers(LYING, &[u32::from(lying)])
    }

    /// What a power cut leaves of the watched folder. The program must be dead.
    ///
    /// # Errors
    /// When the journal is not one, or the files cannot be changed.
    pub fn crash(&self, loss: Loss, random: &mut Random) -> Result<Lost> {
        let watched = self.watched()?;
        let lost = journal::take_back(self.folder.path(), &watched, loss, random)?;
        self.forget()?;
        Ok(lost)
    }

    /// Believes all that was written, as after the death of the program alone.
    ///
    /// # Errors
    /// When the journal cannot be emptied.
    pub fn forget(&self) -> Result<()> {
        let graves = self.folder.path().join("graves");
        std::fs::remove_dir_all(&graves)?;
        std::fs::create_dir(&graves)?;
        Ok(OpenOptions::new().write(true).create(true).truncate(true).open(self.folder.path().join("journal"))?.set_len(0)?)
    }

    fn watched(&self) -> Result<PathBuf> {
        let mut bytes = [0; CONTROL_SIZE - FOLDER as usize];
        self.control.read_exact_at(&mut bytes, FOLDER)?;
        let end = bytes.iter().position(|b| *b == 0).context("no folder is watched")?;
        Ok(PathBuf::from(std::str::from_utf8(&bytes[..end])?))
    }

    fn numbers(&self, at: u64, numbers: &[u32]) -> Result<()> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        Ok(self.control.write_all_at(&bytes, at)?)
    }
}

/// The built library, kept beside the test program.
fn library() -> Result<PathBuf> {
    let hash = SOURCE.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let folder = std::env::current_exe()?.parent().context("the test program has no folder")?.to_owned();
    let library = folder.join(format!("claviger-faultfs-{hash:016x}.so"));
    if library.exists() {
        return Ok(library);
    }
    // Several tests may build it at once: each its own, and one name in the end.
    let work = tempfile::tempdir_in(&folder)?;
    let (source, built) = (work.path().join("faultfs.c"), work.path().join("faultfs.so"));
    std::fs::write(&source, SOURCE)?;
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let said = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"])
        .arg(&built)
        .arg(&source)
        .args(["-ldl", "-lpthread"])
        .output();
    let said = said.with_context(|| format!("running the C compiler `{compiler}`"))?;
    if !said.status.success() {
        bail!("the I/O layer does not compile: {}", String::from_utf8_lossy(&said.stderr));
    }
    std::fs::rename(&built, &library)?;
    Ok(library)
}
