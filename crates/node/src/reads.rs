//! The local log of reads: who on this machine read what.
//!
//! One JSON line for the first read of a key by a user and process, and one more when that goes on in a later minute, with the number of
//! reads since the line before; refusals likewise. Two files, the newer one up to 8 MiB.
//!
//! # Promised, and not
//! A line is handed over before the answer leaves, and written within moments. It is not synced, and it does not hold the answer up: a
//! crash of the machine may lose the last lines, and a full disk loses lines, which `status` counts. The server's own audit log has, durably, what this machine
//! fetched.

use crate::serve::Peer;
use claviger_domain::{KeyId, Timestamp};
use claviger_wire::native::unix_to_rfc3339;
use serde::Serialize;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::table::Table;
use std::sync::atomic::Ordering;

/// For so long further reads of the same are counted, not written.
const WINDOW: Duration = Duration::from_secs(60);
/// Readers that are remembered. Beyond it lines come more often, never less.
const MOST: usize = 4096;
const MOST_BYTES: u64 = 8 << 20;
const WAITING: usize = 1024;

/// One line.
#[derive(Serialize)]
struct Line {
    time: String,
    user: u32,
    process: i32,
    /// The program's name when the line was made; the process chooses it itself.
    program: String,
    key: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// Reads of the same since the line before.
    reads: u64,
}

#[derive(PartialEq, Eq, Hash)]
struct Reader {
    user: u32,
    process: i32,
    key: String,
    outcome: &'static str,
}

struct Seen {
    since: Instant,
    reads: u64,
}

/// Where reads are noted. It belongs to the serving thread.
pub struct Reads {
    seen: HashMap<Reader, Seen>,
    lines: SyncSender<String>,
    table: Arc<Table>,
}

impl Reads {
    /// A log in the file at `path`; its writer is a thread of its own.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path, table: Arc<Table>) -> std::io::Result<Self> {
        let file = open(path)?;
        let (lines, waiting) = sync_channel(WAITING);
        let writer = Writer { path: path.to_owned(), file, table: table.clone() };
        std::thread::Builder::new().name("reads-log".to_owned()).stack_size(64 << 10).spawn(move || writer.run(&waiting))?;
        Ok(Self { seen: HashMap::new(), lines, table })
    }

    /// Notes a read.
    pub fn note(&mut self, peer: &Peer, key: &str, outcome: &'static str, version: Option<u64>) {
        // What is no id is not repeated into a log.
        let key = KeyId::parse(key).map_or_else(|_| "(no key id)".to_owned(), |id| id.to_string());
        let reader = Reader { user: peer.user, process: peer.process, key, outcome };
        let now = Instant::now();
        let reads = match self.seen.get_mut(&reader) {
            Some(seen) if now.duration_since(seen.since) < WINDOW => {
                seen.reads += 1;
                return;
            }
            Some(seen) => {
                seen.since = now;
                std::mem::take(&mut seen.reads) + 1
            }
            None => 1,
        };
        self.write(&reader, version, reads);
        if self.seen.len() >= MOST {
            self.forget(now);
        }
        self.seen.entry(reader).or_insert(Seen { since: now, reads: 0 });
    }

    fn forget(&mut self, now: Instant) {
        self.seen.retain(|_, seen| now.duration_since(seen.since) < WINDOW);
        if self.seen.len() >= MOST {
            self.seen.clear();
        }
    }

    fn write(&self, reader: &Reader, version: Option<u64>, reads: u64) {
        let Reader { user, process, key, outcome } = reader;
        let program = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        let time = unix_to_rfc3339(Timestamp(self.table.times.wall().0));
        let line = Line {
            time,
            user: *user,
            process: *process,
            program: program.trim_end().to_owned(),
            key: key.clone(),
            outcome,
            version,
            reads,
        };
        let line = serde_json::to_string(&line).expect("a line is a map of text and numbers");
        if self.lines.try_send(line).is_err() {
            self.table.counters.unlogged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    table: Arc<Table>,
}

impl Writer {
    fn run(mut self, lines: &Receiver<String>) {
        for line in lines {
            if self.write(&line).is_err() {
                self.table.counters.unlogged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn write(&mut self, line: &str) -> std::io::Result<()> {
        if self.file.metadata()?.len() > MOST_BYTES {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            std::fs::rename(&self.path, older)?;
            self.file = open(&self.path)?;
        }
        self.file.write_all(format!("{line}\n").as_bytes())
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    OpenOptions::new().create(true).append(true).mode(0o640).custom_flags(no_follow).open(path)
}
