//! A terminal as a person has one: what a program writes to it, and keys that are pressed.

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A program on a terminal of its own.
pub(crate) struct Terminal {
    master: File,
    child: Child,
    /// All that was written to it, with what the terminal itself echoed.
    pub(crate) seen: String,
}

impl Terminal {
    /// Starts `command` with all three streams on a new terminal.
    pub(crate) fn start(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Self { master: master.into(), child, seen: String::new() }
    }

    /// Waits until `text` was written once more.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let from = self.seen.len();
        while !self.seen[from..].contains(text) {
            assert!(self.read(), "it ended before `{text}`: {}", self.seen);
        }
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end; the exit code.
    pub(crate) fn end(mut self) -> (i32, String) {
        while self.read() {}
        let status: ExitStatus = self.child.wait().unwrap();
        (status.code().unwrap(), std::mem::take(&mut self.seen))
    }

    /// Takes what has been written; false when nobody has the terminal open any more (EIO).
    fn read(&mut self) -> bool {
        let mut bytes = [0; 1024];
        match self.master.read(&mut bytes) {
            Ok(n) if n > 0 => self.seen.push_str(&String::from_utf8_lossy(&bytes[..n])),
            Ok(_) | Err(_) => return false,
        }
        true
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that failed leaves it running.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
