//! Lets a person change a value in his own editor, with nothing on a disk.
//!
//! # Guarantees
//! - The value lies in one file in a folder of mode 0700 on a file system that lives in memory (tmpfs), or nowhere: without such a
//!   place, or where swap could carry it to a disk unencrypted, the editor is not started.
//! - The folder is the editor's alone and its `TMPDIR`, so what editors write beside a file or into the place for temporary files
//!   (backups, swap files) lies there too, and goes with it. Vim and Neovim are told to keep no swap, undo or history file.
//! - The folder is removed when the editor has ended, also after Ctrl-C, SIGTERM and SIGHUP.
//!
//! # Not promised
//! What an editor writes elsewhere on its own account: registers, histories, plugins, crash reports. And after `kill -9` of this
//! program the folder stays until the machine restarts.

use crate::failure::Failure;
use crate::memory::Folder;
use claviger_domain::SecretBytes;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind, signal};
use zeroize::Zeroizing;

/// Longer values are refused by every server.
const MAX_VALUE: u64 = 64 << 20;
/// How long an editor has to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(2);

/// A value after the editor, and the folder in which it still lies.
pub(crate) struct Edited {
    /// The value.
    pub(crate) data: SecretBytes,
    folder: Folder,
    file: PathBuf,
}

/// How the value is shown to the editor.
pub(crate) struct Editing<'a> {
    /// The command that asks, for messages.
    pub(crate) command: &'static str,
    /// What the file is called.
    pub(crate) name: &'a str,
    /// What it has at first.
    pub(crate) start: &'a [u8],
    /// Whether swap is no matter.
    pub(crate) allow_swap: bool,
}

impl Edited {
    /// Leaves the file where it is and says so: what somebody typed is not lost because a server was away.
    pub(crate) fn keep(self, failure: Failure) -> Failure {
        let Self { folder, file, .. } = self;
        folder.keep();
        let shown = file.display();
        failure.also(format!(
            "your text is kept in memory: `claviger put KEY --file {shown}` uses it; remove {} afterwards",
            file.parent().unwrap_or(&file).display()
        ))
    }
}

impl Editing<'_> {
    /// Starts the editor (`VISUAL`, `EDITOR`, or vi) and waits for it.
    ///
    /// A single line loses the line break that editors put behind it, unless it had one before; other text is taken as it is.
    ///
    /// # Errors
    /// No place in memory, swap on a disk, an editor that fails or is ended: then there is nothing to use.
    pub(crate) async fn run(&self) -> Result<Edited, Failure> {
        let swap = if self.allow_swap { None } else { open_swap() };
        if let Some(swap) = swap {
            return Err(Failure::other(format!("swap on {swap} could carry the value to a disk, unencrypted"))
                .next("turn swap off or encrypt it, use --file or standard input, or say --allow-swap if that is no matter"));
        }
        let folder = Folder::make(self.command, None).map_err(|f| f.next("mount a tmpfs at /dev/shm, or use --file or standard input"))?;
        let file = folder.path().join(file_name(self.name));
        self.write(&file).map_err(|e| Failure::other(format!("writing {}: {e}", file.display())))?;
        let ended = edit(&file, folder.path()).await?;
        if !ended.success() {
            return Err(Failure::other(format!("the editor failed ({ended}); nothing was changed")));
        }
        let mut bytes = read(&file)?;
        if takes_line_break(self.start, &bytes) {
            bytes.pop();
        }
        Ok(Edited { data: SecretBytes::new(std::mem::take(&mut *bytes)), folder, file })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(self.start)
    }
}

/// Whether the line break at the end is the editor's.
fn takes_line_break(before: &[u8], after: &[u8]) -> bool {
    let is_one_line = after.ends_with(b"\n") && after.iter().filter(|b| **b == b'\n').count() == 1;
    let had_none = !before.is_empty() && !before.ends_with(b"\n");
    after.ends_with(b"\n") && !before.ends_with(b"\n") && (is_one_line || had_none)
}

/// Runs the editor until it ends; what would end this program ends the editor first.
async fn edit(file: &Path, folder: &Path) -> Result<ExitStatus, Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure::other(format!("listening for signals: {e}")));
    // The terminal sends these to the editor too, which decides what they mean.
    let (mut interrupt, mut quit) = (listen(SignalKind::interrupt())?, listen(SignalKind::quit())?);
    let (mut terminate, mut hangup) = (listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    let mut child = start(file, folder)?;
    loop {
        tokio::select! {
            ended = child.wait() => return ended.map_err(|e| Failure::other(format!("waiting for the editor: {e}"))),
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
            () = either(&mut terminate, &mut hangup) => {
                end(&mut child).await;
                return Err(Failure::other("ended by a signal; nothing was changed"));
            }
        }
    }
}

/// Asks the editor to end, and ends it where it does not.
async fn end(child: &mut Child) {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(id) = id {
        // If it cannot be told it has ended.
        let _ = kill_process(id, Signal::TERM);
    }
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

async fn either(one: &mut unix::Signal, other: &mut unix::Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// The shell reads the editor's own arguments, as with git; the file is never part of what it reads.
fn start(file: &Path, folder: &Path) -> Result<Child, Failure> {
    let editor = chosen(["VISUAL", "EDITOR"].map(std::env::var_os));
    let name = editor.to_string_lossy().into_owned();
    // `exec`, so that the process that is ended by a signal is the editor.
    let mut script = OsString::from("exec ");
    script.push(&editor);
    script.push(" \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg("sh").args(quieted(&name)).arg(file).env("TMPDIR", folder);
    command.spawn().map_err(|e| Failure::other(format!("starting the editor `{name}`: {e}")))
}

fn chosen(set: [Option<OsString>; 2]) -> OsString {
    set.into_iter().flatten().find(|v| !v.is_empty()).unwrap_or_else(|| "vi".into())
}

/// Options with which an editor keeps nothing that it would write elsewhere.
fn quieted(editor: &str) -> &'static [&'static str] {
    let named = editor.split_whitespace().next().unwrap_or_default();
    let path = program(named);
    let is_vim = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name == "vim" || name == "nvim" || name.starts_with("vim.")
    };
    match is_vim(&path) || is_vim(Path::new(named)) {
        true => &["-n", "-i", "NONE", "-c", "set noundofile nobackup nowritebackup"],
        false => &[],
    }
}

/// What a name starts: `vi` is Vim on most systems, by one link or several.
fn program(name: &str) -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = match name.contains('/') {
        true => Some(PathBuf::from(name)),
        false => std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file()),
    };
    found.and_then(|path| fs::canonicalize(path).ok()).unwrap_or_else(|| name.into())
}

/// A file name in which nothing can be taken for something else; editors choose their colours by its end.
fn file_name(key: &str) -> String {
    let last = key.rsplit(['/', ':']).next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    let name: String = last.chars().map(plain).take(100).collect();
    match name.trim_start_matches(['.', '-']) {
        "" => "value".to_owned(),
        name => name.to_owned(),
    }
}

/// What the editor left; never through a link.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |e: io::Error| Failure::other(format!("reading what the editor wrote, {}: {e}; nothing was changed", path.display()));
    let file = open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(|e| failed(e.into()))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > MAX_VALUE {
        return Err(Failure::invalid("what the editor left is no file of at most 64 MiB; nothing was changed"));
    }
    let room = usize::try_from(metadata.len()).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(room + 1));
    file.take(MAX_VALUE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// A swap area whose disk would hold in the clear what is swapped out, if there is one.
fn open_swap() -> Option<String> {
    let table = fs::read_to_string("/proc/swaps").ok()?;
    let is_encrypted = |name: &str| {
        let uuid = fs::read_to_string(format!("/sys/block/{name}/dm/uuid"));
        uuid.is_ok_and(|uuid| uuid.starts_with("CRYPT-"))
    };
    first_open_swap(&table, |path| fs::canonicalize(path).ok(), is_encrypted)
}

/// Compressed memory (zram) reaches no disk; of device-mapper's only encrypted areas are safe.
fn first_open_swap(table: &str, real: impl Fn(&str) -> Option<PathBuf>, is_encrypted: impl Fn(&str) -> bool) -> Option<String> {
    let areas = table.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let is_safe = |area: &str| {
        let path = real(area).unwrap_or_else(|| area.into());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        path.starts_with("/dev") && (name.starts_with("zram") || name.starts_with("dm-") && is_encrypted(&name))
    };
    areas.into_iter().find(|area| !is_safe(area)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn swap_on_a_disk_is_seen_and_encrypted_swap_or_memory_is_none() {
        let swaps = |areas: &[&str]| {
            let head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".to_owned();
            let table = areas.iter().fold(head, |table, area| format!("{table}{area}\tpartition\t1\t0\t-2\n"));
            let real =
                |path: &str| Some(PathBuf::from(path.replace("/dev/mapper/swap", "/dev/dm-1").replace("/dev/mapper/lvm", "/dev/dm-2")));
            first_open_swap(&table, real, |name| name == "dm-1")
        };
        assert_eq!(swaps(&[]), None);
        assert_eq!(swaps(&["/dev/zram0", "/dev/mapper/swap"]), None);
        assert_eq!(swaps(&["/dev/zram0", "/dev/sda2"]).as_deref(), Some("/dev/sda2"));
        assert_eq!(swaps(&["/dev/mapper/lvm"]).as_deref(), Some("/dev/mapper/lvm"));
        assert_eq!(swaps(&["/swapfile"]).as_deref(), Some("/swapfile"));
        assert_eq!(swaps(&["/mnt/zram0"]).as_deref(), Some("/mnt/zram0"), "a file of that name");
    }

    #[test]
    fn the_line_break_that_editors_add_is_taken_off_and_no_other() {
        for (before, after, expected) in [
            ("", "hunter2\n", true),
            ("", "a\nb\n", false),
            ("", "hunter2", false),
            ("old", "new\n", true),
            ("old\n", "new\n", false),
            ("a\nb", "a\nc\n", true),
        ] {
            assert_eq!(takes_line_break(before.as_bytes(), after.as_bytes()), expected, "{before:?} {after:?}");
        }
    }

    #[test]
    fn names_of_files_are_plain() {
        for (key, name) in [("shop/config.json", "config.json"), ("a:b", "b"), ("a/..", "value"), ("x/-rf", "rf"), ("x/ä b", "__b")] {
            assert_eq!(file_name(key), name);
        }
    }

    #[test]
    fn the_editor_is_visual_then_editor_then_vi() {
        let chosen = |visual: Option<&str>, editor: Option<&str>| chosen([visual.map(Into::into), editor.map(Into::into)]);
        assert_eq!(chosen(Some("nano"), Some("ed")), "nano");
        assert_eq!(chosen(Some(""), Some("ed")), "ed");
        assert_eq!(chosen(None, None), "vi");
        assert!(quieted("/nowhere/vim -u NONE").contains(&"-n") && quieted("nano").is_empty() && quieted("").is_empty());
    }

    #[test]
    fn vi_that_is_vim_by_links_keeps_nothing_either() {
        let folder = std::env::temp_dir().join(format!("claviger-vi-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("vim.gtk3"), "").unwrap();
        fs::write(folder.join("busybox"), "").unwrap();
        for (link, to) in [("alternative", "vim.gtk3"), ("vi", "alternative"), ("ex", "busybox")] {
            std::os::unix::fs::symlink(folder.join(to), folder.join(link)).unwrap();
        }
        let options = |name: &str| quieted(&format!("{} -R", folder.join(name).display()));
        let told = [options("vi").contains(&"-n"), options("ex").is_empty()];
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(told, [true, true]);
    }
}
