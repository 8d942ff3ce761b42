//! A sink for lines that others encode (ECS, Knox's own format): to a file or standard output, without ever making the
//! caller wait. It is a convenience beside the Merkle log, not a part of it: a line may be lost, and then it says so.

use parking_lot::{Condvar, Mutex};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkTarget {
    /// A file, appended to, created with mode 0640.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// Writes lines from a thread of its own.
///
/// # Guarantees
/// [`Self::line`] never blocks on I/O. Lines keep their order. What does not fit the bound, or cannot be written, is
/// dropped, counted, and logged.
#[derive(Debug)]
pub struct LineSink {
    shared: Arc<Shared>,
    bound: usize,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Waiting>,
    work: Condvar,
    written: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    lines: u64,
    /// Lines dropped since the writer last looked.
    dropped: u64,
    reopen: bool,
    closing: bool,
}

impl LineSink {
    /// Opens the target; at most `bound` bytes wait to be written.
    ///
    /// # Errors
    /// That the file cannot be opened or the thread not be started.
    pub fn open(target: SinkTarget, bound: usize) -> io::Result<Self> {
        let output = target.open()?;
        let shared = Arc::new(Shared::default());
        let worker = Worker { target, output, shared: shared.clone() };
        let thread = std::thread::Builder::new().name("audit-sink".into()).spawn(move || worker.run())?;
        Ok(Self { shared, bound, thread: Some(thread) })
    }

    /// Queues one line (without its line break); `false` when there is no room and it was dropped.
    pub fn line(&self, line: impl AsRef<[u8]>) -> bool {
        let line = line.as_ref();
        let mut waiting = self.shared.state.lock();
        if waiting.bytes.len() + line.len() + 1 > self.bound {
            waiting.dropped += 1;
            self.shared.dropped.fetch_add(1, Relaxed);
            return false;
        }
        let was_empty = waiting.bytes.is_empty();
        waiting.bytes.extend_from_slice(line);
        waiting.bytes.push(b'\n');
        waiting.lines += 1;
        drop(waiting);
        if was_empty {
            self.shared.work.notify_one();
        }
        true
    }

    /// Opens the file anew, by its name: call it on SIGHUP or after a rename.
    pub fn reopen(&self) {
        self.shared.state.lock().reopen = true;
        self.shared.work.notify_one();
    }

    /// Lines written.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Relaxed)
    }

    /// Lines dropped, for lack of room or because writing failed.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }
}

impl Drop for LineSink {
    /// Writes what waits, then ends the thread.
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

enum Output {
    File(File),
    Stdout,
}

impl SinkTarget {
    fn open(&self) -> io::Result<Output> {
        match self {
            Self::Stdout => Ok(Output::Stdout),
            Self::File(path) => OpenOptions::new().append(true).create(true).mode(0o640).open(path).map(Output::File),
        }
    }
}

impl Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all(bytes),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
        }
    }
}

struct Worker {
    target: SinkTarget,
    output: Output,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(mut self) {
        let mut taken = Waiting::default();
        while self.take(&mut taken) {
            if taken.dropped > 0 {
                tracing::warn!(dropped = taken.dropped, "the audit line sink had no room and dropped {} lines", taken.dropped);
            }
            if taken.reopen {
                match self.target.open() {
                    Ok(output) => self.output = output,
                    Err(error) => tracing::error!(%error, "reopening the audit line sink: {error}"),
                }
            }
            self.write(&taken);
        }
    }

    /// Waits for work and swaps it into `taken`, whose buffer is used again; `false` at the end.
    fn take(&self, taken: &mut Waiting) -> bool {
        taken.bytes.clear();
        (taken.lines, taken.dropped, taken.reopen, taken.closing) = (0, 0, false, false);
        let mut waiting = self.shared.state.lock();
        while waiting.bytes.is_empty() && !waiting.reopen {
            if waiting.closing {
                return false;
            }
            self.shared.work.wait(&mut waiting);
        }
        std::mem::swap(&mut *waiting, taken);
        waiting.closing = taken.closing;
        true
    }

    fn write(&mut self, taken: &Waiting) {
        match self.output.write(&taken.bytes) {
            Ok(()) => drop(self.shared.written.fetch_add(taken.lines, Relaxed)),
            Err(error) => {
                self.shared.dropped.fetch_add(taken.lines, Relaxed);
                tracing::error!(%error, lines = taken.lines, "writing to the audit line sink: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_arrive_in_order_and_a_reopened_file_gets_the_later_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let sink = LineSink::open(SinkTarget::File(path.clone()), 1 << 20).unwrap();
        (0..100).for_each(|n| assert!(sink.line(n.to_string())));
        while sink.written() < 100 {
            std::thread::yield_now();
        }
        let moved = dir.path().join("audit.jsonl.1");
        std::fs::rename(&path, &moved).unwrap();
        sink.reopen();
        while !path.exists() {
            std::thread::yield_now();
        }
        assert!(sink.line("later"));
        drop(sink);
        let want: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(std::fs::read_to_string(moved).unwrap(), want);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "later\n");
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let sink = LineSink::open(SinkTarget::File(dir.path().join("a")), 8).unwrap();
        assert!(!sink.line("too long for it"));
        assert_eq!(sink.dropped(), 1);
        let failing = LineSink::open(SinkTarget::File("/dev/full".into()), 100).unwrap();
        assert!(failing.line("x"));
        while failing.dropped() == 0 {
            std::thread::yield_now();
        }
        assert_eq!((failing.written(), failing.dropped()), (0, 1));
    }
}
