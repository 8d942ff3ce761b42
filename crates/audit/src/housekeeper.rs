//! The second thread: checkpoints, finished segments, the spare file, the reserve, pruning. Nothing here may delay a
//! commit, and nothing here is needed for one: all it writes is derived or can be made again.

use crate::disk::{Disk, read_optional};
use crate::error::AuditError;
use crate::frame::{SEGMENT, SEGMENT_HEIGHT};
use crate::layout::{Archive, CHECKPOINT, HISTORY, PRUNED, ROOTS, hashes_name};
use crate::log::{LogConfig, Shared, Spare};
use crate::merkle::{Frontier, Hash};
use crate::note::{Checkpoint, LogKey, split_history};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

/// How often space is looked at.
const TICK: Duration = Duration::from_secs(2);

pub(crate) enum Job {
    /// Sign this head; `keep`: in the history too.
    Checkpoint {
        head: Checkpoint,
        keep: bool,
    },
    /// Keep a finished segment's hashes and root, and cut the zeros off its (last) part.
    Finish {
        number: u64,
        root: Hash,
        leaves: Vec<Hash>,
        part: Option<(PathBuf, u64)>,
    },
    /// Fill a file with zeros for the next part.
    Prepare {
        dir: PathBuf,
        length: u64,
    },
    /// Fill more of the part that is being written, behind what is filled already. Nothing else writes there meanwhile.
    Extend {
        path: PathBuf,
        from: u64,
        to: u64,
        reply: mpsc::Sender<Result<u64, AuditError>>,
    },
    Prune {
        before: u64,
        reply: mpsc::Sender<Result<u64, AuditError>>,
    },
    Stop,
}

pub(crate) struct Housekeeper {
    shared: Arc<Shared>,
    config: Arc<LogConfig>,
    disk: Disk,
    key: LogKey,
    inbox: mpsc::Receiver<Job>,
    last_kept: Option<Instant>,
    last_look: Instant,
}

impl Housekeeper {
    pub(crate) fn new(shared: Arc<Shared>, config: Arc<LogConfig>, disk: Disk, key: LogKey, inbox: mpsc::Receiver<Job>) -> Self {
        Self { shared, config, disk, key, inbox, last_kept: None, last_look: Instant::now() }
    }

    pub(crate) fn run(mut self) {
        loop {
            let outcome = match self.inbox.recv_timeout(TICK) {
                Ok(Job::Checkpoint { head, keep }) => self.checkpoint(head, keep),
                Ok(Job::Finish { number, root, leaves, part }) => self.finish(number, root, &leaves, part),
                Ok(Job::Prepare { dir, length }) => self.prepare(&dir, length),
                Ok(Job::Extend { path, from, to, reply }) => {
                    let filled = self.disk.extend(&path, from, to).map(|()| to);
                    let outcome = filled.as_ref().map(drop).map_err(Clone::clone);
                    let _ = reply.send(filled);
                    outcome
                }
                Ok(Job::Prune { before, reply }) => {
                    let _ = reply.send(self.prune(before));
                    Ok(())
                }
                Err(mpsc::RecvTimeoutError::Timeout) => Ok(()),
                Ok(Job::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
            };
            // Not only when idle: under load there is always a job.
            if let Err(error) = outcome.and_then(|()| self.look_at_space()) {
                self.shared.full.fetch_or(error.is_full(), Ordering::SeqCst);
                self.shared.report(&error);
            }
        }
        if let Some(spare) = self.shared.spare.lock().take() {
            let _ = self.disk.remove(&spare.path);
        }
    }

    fn checkpoint(&mut self, head: Checkpoint, keep: bool) -> Result<(), AuditError> {
        let signed = self.key.sign(head, &[]);
        // What the entries' durability promises does not depend on the files below.
        *self.shared.checkpoint.lock() = head;
        self.shared.metrics.checkpoints.fetch_add(1, Ordering::Relaxed);
        let is_due = self.last_kept.is_none_or(|last| last.elapsed() >= self.config.history_interval);
        let mut outcome = Ok(());
        for dir in self.config.dirs() {
            outcome = self.disk.replace(&dir.join(CHECKPOINT), signed.note().as_bytes());
            if outcome.is_ok() && (keep || is_due) {
                outcome = self.disk.append(&dir.join(HISTORY), format!("{}\n", signed.note()).as_bytes());
                self.last_kept = Some(Instant::now());
            }
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn finish(&self, number: u64, root: Hash, leaves: &[Hash], part: Option<(PathBuf, u64)>) -> Result<(), AuditError> {
        if let Some((path, end)) = part {
            let dir = path.parent().unwrap_or(&self.config.dir);
            let hashes = dir.join(hashes_name(number));
            let file = self.disk.create(&hashes)?;
            self.disk.write_at(&file, &hashes, 0, leaves.as_flattened())?;
            let file = OpenOptions::new().write(true).open(&path);
            let file = file.map_err(|error| AuditError::io("opening", &path, &error))?;
            self.disk.set_len(&file, &path, end)?;
        }
        let path = self.config.dir.join(ROOTS);
        let held = read_optional(&path)?.unwrap_or_default().len() as u64;
        // With a gap before it the root would stand for another segment; the next start writes them all.
        if held == number * 32 { self.disk.append(&path, &root) } else { Ok(()) }
    }

    fn prepare(&self, dir: &Path, length: u64) -> Result<(), AuditError> {
        let path = dir.join("spare");
        if self.shared.spare.lock().is_some() {
            return Ok(());
        }
        let file = self.disk.create(&path)?;
        let filled = self.disk.allocate(&file, &path, length).and_then(|_| self.disk.zero_all(&file, &path, length));
        if let Err(error) = filled.and_then(|()| self.disk.sync_all(&file, &path)) {
            self.disk.remove(&path)?;
            return Err(error);
        }
        *self.shared.spare.lock() = Some(Spare { file, path, length });
        Ok(())
    }

    /// Takes the reserve back when there is room again.
    fn look_at_space(&mut self) -> Result<(), AuditError> {
        if self.last_look.elapsed() < TICK {
            return Ok(());
        }
        self.last_look = Instant::now();
        if self.shared.full.load(Ordering::SeqCst) && self.shared.reserve.has_room() {
            self.shared.reserve.hold(&self.disk)?;
            self.shared.full.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    fn prune(&self, before: u64) -> Result<u64, AuditError> {
        let dirs = self.config.dirs();
        let mut archive = Archive::scan(&dirs)?;
        let latest = *self.shared.checkpoint.lock();
        // A segment counts as finished once an entry of the next one is signed for: its part is closed then.
        let segments = before.min(latest.size.saturating_sub(1)) / SEGMENT;
        let first = segments * SEGMENT;
        if first <= archive.first {
            return Ok(archive.first);
        }
        let finished = latest.size / SEGMENT;
        let roots = (0..finished).map(|number| archive.segment_root(number)).collect::<Result<Vec<_>, _>>()?;
        // The stub must not sign what a changed `roots` file says.
        if archive.root(latest.size)? != latest.root {
            return Err(AuditError::corrupt(&self.config.dir.join(ROOTS), 0, "the roots do not give the checkpoint"));
        }
        self.write_stub(&roots, segments)?;
        self.remove_before(&archive, first)?;
        Ok(first)
    }

    fn write_stub(&self, roots: &[Hash], segments: u64) -> Result<(), AuditError> {
        let mut tree = Frontier::default();
        roots.iter().take(segments as usize).for_each(|root| tree.push_subtree(SEGMENT_HEIGHT, *root));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let head = Checkpoint { size: tree.size(), root: tree.root() };
        let stub = self.key.sign(head, &[format!("pruned {now}")]);
        self.disk.replace(&self.config.dir.join(ROOTS), roots.as_flattened())?;
        self.disk.replace(&self.config.dir.join(PRUNED), stub.note().as_bytes())?;
        self.disk.sync_dir(&self.config.dir)
    }

    fn remove_before(&self, archive: &Archive, first: u64) -> Result<(), AuditError> {
        for part in archive.parts.iter().filter(|part| part.limit <= first) {
            self.disk.remove(&part.path)?;
        }
        for dir in &archive.dirs {
            for segment in archive.first / SEGMENT..first / SEGMENT {
                self.disk.remove(&dir.join(hashes_name(segment)))?;
            }
            self.trim_history(&dir.join(HISTORY), first)?;
        }
        Ok(())
    }

    /// Drops checkpoints that can no longer be recomputed. A note that does not verify stays: it is evidence.
    fn trim_history(&self, path: &Path, first: u64) -> Result<(), AuditError> {
        let Some(bytes) = read_optional(path)? else { return Ok(()) };
        let Ok(text) = str::from_utf8(&bytes) else { return Ok(()) };
        let (notes, _) = split_history(text);
        let kept = notes.into_iter().filter(|note| self.key.verifier().open(note).map_or(true, |signed| signed.head().size >= first));
        let kept: String = kept.map(|note| format!("{note}\n")).collect();
        self.disk.replace(path, kept.as_bytes())
    }
}
