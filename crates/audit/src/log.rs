//! The front of the log: configuration, appending, health. The work is done by two threads, the
//! [`crate::writer`] (commits) and the [`crate::housekeeper`] (everything that must not delay one).

use crate::disk::{Disk, Faults, free_space};
use crate::error::AuditError;
use crate::frame::{FRAME_HEADER, MAX_ENTRY, push_entry};
use crate::housekeeper::{Housekeeper, Job};
use crate::layout::Archive;
use crate::merkle::{Hash, leaf_hash};
use crate::metrics::Metrics;
use crate::note::{Checkpoint, LogKey, VerifierKey};
use crate::recover::{lock_folder, recover};
use crate::wake::{AppendFuture, Group};
use crate::writer::Writer;
use parking_lot::{Condvar, Mutex};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// When an append counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// `fdatasync` has returned for it. Nothing acknowledged is lost by a crash or power cut.
    Fsync,
    /// It was handed to the operating system, which is told to write it out after at most this time. A killed process
    /// loses nothing; a power cut or a crash of the kernel may lose the acknowledged entries of up to this interval.
    Interval(Duration),
}

/// How the log is to run.
#[derive(Clone)]
pub struct LogConfig {
    /// The main folder, on a local disk; created when it is missing.
    pub dir: PathBuf,
    /// A folder, on another disk, where the log goes on when the main one cannot be written.
    pub standby: Option<PathBuf>,
    /// When an append counts as done.
    pub durability: Durability,
    /// Most bytes that may wait to be written; beyond it appends are refused with `Overloaded`.
    pub queue_bytes: usize,
    /// Bytes held back in the main folder, given up when the disk is full so that reads can go on for a while.
    /// 0 holds back nothing.
    pub reserve: u64,
    /// How often a checkpoint is signed while entries arrive.
    pub checkpoint_interval: Duration,
    /// How often a checkpoint also goes to the history (besides at open and close).
    pub history_interval: Duration,
    /// Added to each `fdatasync` of a commit; for measurements only.
    pub extra_sync_delay: Duration,
    /// For tests only.
    pub faults: Option<Arc<dyn Faults>>,
}

impl fmt::Debug for LogConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogConfig")
            .field("dir", &self.dir)
            .field("standby", &self.standby)
            .field("durability", &self.durability)
            .field("queue_bytes", &self.queue_bytes)
            .field("reserve", &self.reserve)
            .finish_non_exhaustive()
    }
}

impl LogConfig {
    /// The defaults for a log in `dir`: fsync, 16 MiB of queue, 64 MiB of reserve, a checkpoint per second.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            standby: None,
            durability: Durability::Fsync,
            queue_bytes: 16 << 20,
            reserve: 64 << 20,
            checkpoint_interval: Duration::from_secs(1),
            history_interval: Duration::from_secs(60),
            extra_sync_delay: Duration::ZERO,
            faults: None,
        }
    }

    /// The folders, the main one first.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        std::iter::once(self.dir.clone()).chain(self.standby.clone()).collect()
    }
}

/// How the log fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// All is well.
    Healthy,
    /// The disk is full: appends still succeed in the space that is left; changes should be refused (507).
    DiskFull,
    /// The main folder failed; entries go to the standby folder.
    Standby,
    /// Appends fail. Each append after a back-off tries again.
    Failed(AuditError),
    /// The log was closed.
    Closed,
}

/// State and remaining space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// How the log fares.
    pub state: State,
    /// Bytes that are still held back or, once they were given up, left of them.
    pub free_reserve: u64,
}

/// What waits for the next commit.
pub(crate) struct Batch {
    /// Room for a frame's header, then its body.
    pub(crate) bytes: Vec<u8>,
    pub(crate) leaves: Vec<Hash>,
    pub(crate) group: Arc<Group>,
}

impl Batch {
    pub(crate) fn new(mut bytes: Vec<u8>, mut leaves: Vec<Hash>) -> Self {
        bytes.clear();
        bytes.resize(FRAME_HEADER, 0);
        leaves.clear();
        Self { bytes, leaves, group: Arc::default() }
    }
}

pub(crate) struct Queue {
    pub(crate) batch: Batch,
    /// The writer sleeps and wants to be woken.
    pub(crate) idle: bool,
    /// It sleeps until so many entries wait, for a moment: see the writer's `Gather`.
    pub(crate) wanted: usize,
    pub(crate) closing: bool,
    /// After a failure: until when appends are refused without another attempt, and why.
    pub(crate) refuse: Option<(Instant, AuditError)>,
}

/// A file full of zeros, ready to become the next part.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) length: u64,
}

/// What the front, the writer and the housekeeper share.
pub(crate) struct Shared {
    pub(crate) queue: Mutex<Queue>,
    pub(crate) work: Condvar,
    pub(crate) metrics: Metrics,
    pub(crate) checkpoint: Mutex<Checkpoint>,
    pub(crate) durable: AtomicU64,
    pub(crate) spare: Mutex<Option<Spare>>,
    pub(crate) reserve: Reserve,
    pub(crate) failed: Mutex<Option<AuditError>>,
    pub(crate) full: AtomicBool,
    pub(crate) on_standby: AtomicBool,
}

/// A file whose only use is the space it takes.
#[derive(Debug)]
pub(crate) struct Reserve {
    dir: PathBuf,
    size: u64,
    held: AtomicBool,
}

impl Reserve {
    fn path(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    /// Takes the space. A file system that cannot reserve gets none: writing zeros might be compressed away.
    pub(crate) fn hold(&self, disk: &Disk) -> Result<(), AuditError> {
        if self.size == 0 || self.held.load(Ordering::SeqCst) {
            return Ok(());
        }
        let path = self.path();
        let file = disk.create(&path)?;
        let outcome = disk.allocate(&file, &path, self.size);
        if outcome != Ok(true) {
            disk.remove(&path)?;
        }
        self.held.store(outcome?, Ordering::SeqCst);
        Ok(())
    }

    /// Gives the space up; whether there was any.
    pub(crate) fn release(&self, disk: &Disk) -> bool {
        self.held.swap(false, Ordering::SeqCst) && disk.remove(&self.path()).is_ok()
    }

    fn left(&self) -> u64 {
        if self.held.load(Ordering::SeqCst) { self.size } else { free_space(&self.dir).unwrap_or(0).min(self.size) }
    }

    /// Whether there is room for the reserve and as much again.
    pub(crate) fn has_room(&self) -> bool {
        free_space(&self.dir).is_none_or(|free| free > self.size.saturating_mul(2).max(8 << 20))
    }
}

/// An append-only Merkle log, open for writing.
///
/// # Guarantees
/// Entries have consecutive indexes in the order in which they were appended. An append completes only when its entry
/// and all before it are durable (see [`Durability`]). Only one process can have a folder open.
///
/// # Errors
/// When neither folder can be written, appends fail, and go on failing without delay until an attempt (at most one per
/// back-off of 100 ms to 5 s) succeeds.
pub struct AuditLog {
    shared: Arc<Shared>,
    config: Arc<LogConfig>,
    jobs: mpsc::Sender<Job>,
    verifier: VerifierKey,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog").field("dir", &self.config.dir).field("size", &self.size()).finish_non_exhaustive()
    }
}

impl AuditLog {
    /// Opens the log in the configured folders or begins one, and starts its threads. A tail that was never
    /// acknowledged is cut off; `min_checkpoint` is what the caller remembers of the log.
    ///
    /// # Errors
    /// `Locked`, `Foreign` (another key or log), `Corrupt` (acknowledged entries damaged or missing), `RolledBack` (the
    /// log is shorter than `min_checkpoint` or differs from it), `Full` and `Io`.
    pub fn open(config: LogConfig, key: LogKey, min_checkpoint: Option<Checkpoint>) -> Result<Self, AuditError> {
        let config = Arc::new(config);
        let disk = Disk::new(config.faults.clone());
        let lock = lock_folder(&config)?;
        let recovered = recover(&config, &disk, &key, min_checkpoint)?;
        let head = Checkpoint { size: recovered.tree.size(), root: recovered.tree.root() };
        let shared = Arc::new(Shared::new(&config, head));
        if let Err(error) = shared.reserve.hold(&disk) {
            shared.full.store(error.is_full(), Ordering::SeqCst);
            shared.report(&error);
        }
        let (jobs, inbox) = mpsc::channel();
        let verifier = key.verifier().clone();
        let housekeeper = Housekeeper::new(shared.clone(), config.clone(), disk.clone(), key, inbox);
        let mut writer = Writer::new(shared.clone(), config.clone(), disk, recovered, jobs.clone(), verifier.name());
        writer.begin()?;
        let housekeeper = spawn("audit-keeper", &config.dir, move || housekeeper.run())?;
        let _ = jobs.send(Job::Checkpoint { head, keep: true });
        let writer = spawn("audit-writer", &config.dir, move || {
            writer.run();
            let _ = housekeeper.join();
            drop(lock);
        })?;
        Ok(Self { shared, config, jobs, verifier, writer: Mutex::new(Some(writer)) })
    }

    /// Queues an entry (1 byte to [`MAX_ENTRY`]) and returns at once. The entry is copied.
    pub fn append(&self, entry: impl AsRef<[u8]>) -> AppendFuture {
        let entry = entry.as_ref();
        if entry.is_empty() || entry.len() > MAX_ENTRY {
            return self.refuse(AuditError::EntrySize { len: entry.len() });
        }
        self.enqueue(entry.len(), self.config.queue_bytes, std::iter::once((entry, leaf_hash(entry))))
    }

    /// Queues several entries at once: they get consecutive indexes and are written together. The future is that of all,
    /// and gives the last one's index.
    pub fn append_all(&self, entries: &[Vec<u8>]) -> AppendFuture {
        let misfit = entries.iter().map(Vec::len).find(|len| !(1..=MAX_ENTRY).contains(len));
        if let Some(len) = misfit.or(entries.is_empty().then_some(0)) {
            return self.refuse(AuditError::EntrySize { len });
        }
        let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let length = entries.iter().map(|entry| entry.len() + 4).sum::<usize>();
        // Whatever the bound, one record finds room when little else waits.
        self.enqueue(length, self.config.queue_bytes.max(length * 2), entries.iter().map(Vec::as_slice).zip(leaves))
    }

    /// Queues entries of `length` bytes together, and their leaves, which are hashed already: outside the lock and while the
    /// writer waits for the disk. The future is that of the last one.
    fn enqueue<'a>(&self, length: usize, bound: usize, entries: impl Iterator<Item = (&'a [u8], Hash)>) -> AppendFuture {
        let mut queue = self.shared.queue.lock();
        if let Some(error) = queue.refusal(length, bound) {
            drop(queue);
            return self.refuse(error);
        }
        let batch = &mut queue.batch;
        for (entry, leaf) in entries {
            push_entry(&mut batch.bytes, entry);
            batch.leaves.push(leaf);
        }
        let (group, last) = (batch.group.clone(), batch.leaves.len() as u64 - 1);
        let enough = queue.batch.leaves.len() >= queue.wanted;
        let wake = enough && std::mem::take(&mut queue.idle);
        drop(queue);
        if wake {
            self.shared.work.notify_one();
        }
        AppendFuture::queued(group, last)
    }

    /// [`Self::append`] and wait on this thread; not for use inside an async runtime.
    ///
    /// # Errors
    /// As for the future.
    pub fn append_blocking(&self, entry: impl AsRef<[u8]>) -> Result<u64, AuditError> {
        self.append(entry).wait()
    }

    fn refuse(&self, error: AuditError) -> AppendFuture {
        self.shared.metrics.refused.fetch_add(1, Ordering::Relaxed);
        AppendFuture::refused(error)
    }

    /// Number of durable entries.
    pub fn size(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// The newest checkpoint: durable entries all, at most about a checkpoint interval old.
    pub fn latest_checkpoint(&self) -> Checkpoint {
        *self.shared.checkpoint.lock()
    }

    /// The public key that verifies the log.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// State and remaining space.
    pub fn health(&self) -> Health {
        Health { state: self.shared.state(), free_reserve: self.shared.reserve.left() }
    }

    /// Whether the disk was found full and has not been found roomy since.
    pub fn is_short_of_space(&self) -> bool {
        self.shared.full.load(Ordering::SeqCst)
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// The log's folders, for [`crate::Reader::open`].
    pub fn dirs(&self) -> Vec<PathBuf> {
        self.config.dirs()
    }

    /// Removes the entries of all whole segments before `index`, keeps their roots and leaves a signed stub. Returns
    /// the index of the first entry kept. The current segment always stays. Blocks while files are written.
    ///
    /// # Errors
    /// `Corrupt` when the roots do not add up to the newest checkpoint (then nothing is removed), `Io`, `Closed`.
    pub fn prune(&self, index: u64) -> Result<u64, AuditError> {
        let (reply, answer) = mpsc::channel();
        self.jobs.send(Job::Prune { before: index, reply }).map_err(|_| AuditError::Closed)?;
        answer.recv().map_err(|_| AuditError::Closed)?
    }

    /// Index of the first entry that was not pruned.
    ///
    /// # Errors
    /// `Io` and `Corrupt` from reading the folder.
    pub fn first_kept(&self) -> Result<u64, AuditError> {
        Ok(Archive::scan(&self.dirs())?.first)
    }

    /// Commits what waits, signs a last checkpoint and stops the threads. Later appends are refused. Also done on drop.
    pub fn close(&self) {
        self.shared.queue.lock().closing = true;
        self.shared.work.notify_one();
        if let Some(writer) = self.writer.lock().take() {
            let _ = writer.join();
        }
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn spawn(name: &str, dir: &Path, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, AuditError> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(body);
    thread.map_err(|error| AuditError::io("starting a thread for", dir, &error))
}

impl Queue {
    /// Why an entry of `length` bytes cannot be queued, if so.
    fn refusal(&mut self, length: usize, bound: usize) -> Option<AuditError> {
        if self.closing {
            return Some(AuditError::Closed);
        }
        if let Some((until, error)) = &self.refuse {
            if Instant::now() < *until {
                return Some(error.clone());
            }
            self.refuse = None;
        }
        (self.batch.bytes.len() + length + 4 > bound.max(MAX_ENTRY * 2)).then_some(AuditError::Overloaded)
    }
}

impl Shared {
    fn new(config: &LogConfig, head: Checkpoint) -> Self {
        let batch = Batch::new(Vec::new(), Vec::new());
        let reserve = Reserve { dir: config.dir.clone(), size: config.reserve, held: AtomicBool::new(false) };
        Self {
            queue: Mutex::new(Queue { batch, idle: false, wanted: 1, closing: false, refuse: None }),
            work: Condvar::new(),
            metrics: Metrics::default(),
            checkpoint: Mutex::new(head),
            durable: AtomicU64::new(head.size),
            spare: Mutex::new(None),
            reserve,
            failed: Mutex::new(None),
            full: AtomicBool::new(false),
            on_standby: AtomicBool::new(false),
        }
    }

    fn state(&self) -> State {
        if self.queue.lock().closing {
            return State::Closed;
        }
        if let Some(error) = self.failed.lock().clone() {
            return State::Failed(error);
        }
        if self.full.load(Ordering::SeqCst) {
            return State::DiskFull;
        }
        if self.on_standby.load(Ordering::SeqCst) { State::Standby } else { State::Healthy }
    }

    pub(crate) fn report(&self, error: &AuditError) {
        self.metrics.note_error(error);
        tracing::error!(error = %error, "the audit log met an error: {error}");
    }
}
