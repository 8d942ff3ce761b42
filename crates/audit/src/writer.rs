//! The one thread that writes entries: takes all that waits, writes it as one frame, syncs, answers.
//!
//! Its states are few: it has an open part or none. Any failed write or sync abandons the part for
//! good. After a failed `fdatasync` the kernel may have dropped the very pages it could not write and
//! still show them as clean, so nothing in that file past the last successful sync is believed or
//! overwritten; whatever is not known to be durable is written again into a new part, which begins at
//! the first such entry and thereby cuts the old one off.

use crate::direct::{BLOCK, Direct};
use crate::disk::Disk;
use crate::error::AuditError;
use crate::frame::{FRAME_HEADER, PART_HEADER, PartHeader, SEGMENT, SEGMENT_HEIGHT, body_prefix, seal};
use crate::housekeeper::Job;
use crate::layout::part_name;
use crate::log::{Batch, Durability, LogConfig, Shared};
use crate::merkle::{Frontier, Hash, sha256};
use crate::note::Checkpoint;
use crate::recover::Recovered;
use crate::wake::Group;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Zeros behind the header of a part that was not prepared ahead.
const FIRST_REGION: u64 = 1 << 20;
/// By how much a part grows when its zeros are used up; doubles each time.
const GROW: (u64, u64) = (256 << 10, 4 << 20);
/// Largest file that is prepared ahead.
const MAX_SPARE: u64 = 256 << 20;
/// With less than this filled ahead, more is asked for.
const LOW: u64 = 512 << 10;
/// By how much at least.
const EXTENSION: u64 = 4 << 20;
/// First and longest pause between attempts while the log cannot be written.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A buffer that grew beyond this in one burst is not kept.
const KEEP_BUFFER: usize = 4 << 20;

/// The log's tree with the current segment apart.
#[derive(Debug, Default)]
pub(crate) struct SegmentedTree {
    base: Frontier,
    segment: Frontier,
    pub(crate) leaves: Vec<Hash>,
}

impl SegmentedTree {
    pub(crate) fn push_segment(&mut self, root: Hash) {
        self.base.push_subtree(SEGMENT_HEIGHT, root);
    }

    pub(crate) fn push(&mut self, leaf: Hash) {
        self.segment.push(leaf);
        self.leaves.push(leaf);
    }

    pub(crate) fn size(&self) -> u64 {
        self.base.size() + self.segment.size()
    }

    pub(crate) fn root(&self) -> Hash {
        self.base.root_with(&self.segment)
    }

    /// The root of the first `size` entries, if that is not before the current segment.
    pub(crate) fn root_at(&self, size: u64) -> Option<Hash> {
        let within = size.checked_sub(self.base.size())? as usize;
        let mut cut = Frontier::default();
        self.leaves.get(..within)?.iter().for_each(|leaf| cut.push(*leaf));
        Some(self.base.root_with(&cut))
    }

    /// Closes a full segment: its number, root and leaves.
    fn finish(&mut self) -> (u64, Hash, Vec<Hash>) {
        let number = self.base.size() / SEGMENT;
        let root = self.segment.root();
        self.push_segment(root);
        self.segment = Frontier::default();
        (number, root, std::mem::take(&mut self.leaves))
    }
}

/// The part that is being written.
#[derive(Debug)]
pub(crate) struct OpenPart {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) header: PartHeader,
    /// Index into the log's folders.
    pub(crate) dir: usize,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    /// Up to here the file is filled (with frames, then zeros): writing there changes no metadata.
    pub(crate) ready: u64,
    pub(crate) grow: u64,
    /// For durable writes, once it was found out whether they can be had.
    pub(crate) direct: Option<Direct>,
    pub(crate) direct_tried: bool,
    /// What the housekeeper answers when it has filled more.
    pub(crate) extending: Option<mpsc::Receiver<Result<u64, AuditError>>>,
}

impl OpenPart {
    /// Takes what the housekeeper has filled; waits for it only when `needed` lies behind what is ready, since two must not
    /// fill the same region.
    fn take_extension(&mut self, needed: u64) {
        let Some(answer) = &self.extending else { return };
        let filled = match answer.try_recv() {
            Ok(filled) => filled,
            Err(mpsc::TryRecvError::Empty) if needed <= self.ready => return,
            Err(_) => answer.recv().unwrap_or(Ok(self.ready)),
        };
        self.extending = None;
        // A failure shows again when the writer fills by itself, and is dealt with there.
        self.ready = filled.unwrap_or(self.ready).max(self.ready);
    }

    /// Has more filled in good time, if the segment's remaining entries will need it.
    fn ask_for_more(&mut self, size: u64, jobs: &mpsc::Sender<Job>) {
        let left = self.ready.saturating_sub(self.offset);
        let entries = size.saturating_sub(self.header.first).max(1);
        let needed = self.offset / entries * (SEGMENT - size % SEGMENT);
        let is_time =
            self.direct.is_some() && self.extending.is_none() && left < LOW && left < needed && self.ready.is_multiple_of(BLOCK as u64);
        if is_time {
            let (reply, answer) = mpsc::channel();
            let to = self.ready + needed.next_multiple_of(EXTENSION).clamp(EXTENSION, MAX_SPARE / 4);
            // Where nobody answers, the writer fills by itself.
            let _ = jobs.send(Job::Extend { path: self.path.clone(), from: self.ready, to, reply });
            self.extending = Some(answer);
        }
    }
}

/// A frame that is not known to be durable, or not yet in the tree.
struct Pending {
    bytes: Vec<u8>,
    leaves: Vec<Hash>,
    first: u64,
}

impl Pending {
    fn end(&self) -> u64 {
        self.first + self.leaves.len() as u64
    }

    /// Takes off what exceeds `room` entries.
    fn split(&mut self, room: u64) -> Option<Self> {
        if self.leaves.len() as u64 <= room {
            return None;
        }
        let kept = FRAME_HEADER + body_prefix(&self.bytes[FRAME_HEADER..], room as usize);
        let mut bytes = vec![0; FRAME_HEADER];
        bytes.extend_from_slice(&self.bytes[kept..]);
        self.bytes.truncate(kept);
        let leaves = self.leaves.split_off(room as usize);
        Some(Self { bytes, leaves, first: self.first + room })
    }
}

/// Fails the group if the writer does not get to complete it.
struct InFlight(Arc<Group>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.complete(Err(AuditError::Closed));
    }
}

/// Lets a group grow for a moment before it is committed.
///
/// A commit costs some 60 µs of CPU whatever its size. On a fast disk with many callers it would be over before the next
/// request is, so that groups stay small and the CPU is spent on commits; on a slow one, two halves of the callers would
/// take turns and everyone wait for two syncs. So a group is worth waiting for as many entries as come in [`Gather::SPAN`]
/// (or, where a sync takes long, for all), but never for more than were here lately: a caller that is alone never waits.
#[derive(Debug)]
struct Gather {
    /// Entries of the last group.
    completed: usize,
    /// When its commit began.
    begun: Instant,
    last_sync: Duration,
    /// Entries per second, lately.
    rate: f64,
}

impl Gather {
    const SPAN: Duration = Duration::from_micros(200);
    /// A sync that takes longer is worth more than the wait for everyone.
    const SLOW: Duration = Duration::from_millis(1);
    fn new() -> Self {
        Self { completed: 0, begun: Instant::now(), last_sync: Duration::ZERO, rate: 0.0 }
    }

    /// What to wait for, with so many waiting when the last group was answered.
    fn plan(&self, waiting: usize) -> Plan {
        let (now, here) = (Instant::now(), self.completed + waiting);
        if self.last_sync > Self::SLOW {
            // While halves take turns the rate is that of one half: all that were here are waited for, as long as they keep
            // coming back.
            let gap = self.last_sync / 12;
            return Plan { wanted: here.max(1), gap, next: now + gap * 2, last: now + self.last_sync / 3, seen: waiting };
        }
        let span = Self::SPAN.max(self.last_sync.mul_f32(1.1));
        let wanted = (self.rate * span.as_secs_f64()) as usize;
        let until = (now + self.last_sync / 8).max(self.begun + Self::SPAN);
        Plan { wanted: wanted.clamp(1, here.max(1)), gap: Duration::ZERO, next: until, last: until, seen: waiting }
    }

    /// A group of `count` entries is committed now.
    fn begin(&mut self, count: usize) {
        let now = Instant::now();
        let since = now.duration_since(self.begun).as_secs_f64().max(1e-6);
        self.rate += (count as f64 / since - self.rate) / 4.0;
        (self.begun, self.completed) = (now, count);
    }
}

/// How long a group may grow.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// So many entries are enough.
    wanted: usize,
    /// Each look at the queue that finds new entries allows this much more time…
    gap: Duration,
    /// …after the next look,
    next: Instant,
    /// but not beyond this.
    last: Instant,
    /// Entries that the last look found.
    seen: usize,
}

impl Plan {
    /// A look at the queue: whether to wait on for more than the `waiting` entries.
    fn goes_on(&mut self, now: Instant, waiting: usize) -> bool {
        if now >= self.next && now < self.last && waiting > self.seen {
            self.next = (now + self.gap).min(self.last);
            self.seen = waiting;
        }
        waiting < self.wanted && self.wanted > 1 && now < self.next
    }
}

enum Work {
    Commit(Batch),
    /// Something is due by time.
    Due,
    Close,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    config: Arc<LogConfig>,
    disk: Disk,
    jobs: mpsc::Sender<Job>,
    dirs: Vec<PathBuf>,
    origin: Hash,
    part: Option<OpenPart>,
    next_sequence: u64,
    tree: SegmentedTree,
    /// Entries written, entries known to be durable.
    size: u64,
    synced: u64,
    pending: Vec<Pending>,
    unsynced_since: Option<Instant>,
    checkpointed: u64,
    last_checkpoint: Instant,
    spare_asked: bool,
    /// The main folder failed for another reason than space: it is not tried again before the next start.
    main_broken: bool,
    back_off: Duration,
    gather: Gather,
    spare_buffers: (Vec<u8>, Vec<Hash>),
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        config: Arc<LogConfig>,
        disk: Disk,
        recovered: Recovered,
        jobs: mpsc::Sender<Job>,
        name: &str,
    ) -> Self {
        let Recovered { tree, part, next_sequence } = recovered;
        let size = tree.size();
        Self {
            dirs: config.dirs(),
            origin: sha256(name.as_bytes()),
            part,
            next_sequence,
            tree,
            size,
            synced: size,
            pending: Vec::new(),
            unsynced_since: None,
            checkpointed: size,
            last_checkpoint: Instant::now(),
            spare_asked: false,
            main_broken: false,
            back_off: BACK_OFF.0,
            gather: Gather::new(),
            spare_buffers: Default::default(),
            shared,
            config,
            disk,
            jobs,
        }
    }

    /// Makes sure that there is a part to write to.
    pub(crate) fn begin(&mut self) -> Result<(), AuditError> {
        if self.part.is_none() {
            self.open_next_part().or_else(|error| self.fail_over(error))?;
        }
        let on_standby = self.part.as_ref().is_some_and(|part| part.dir > 0);
        self.shared.on_standby.store(on_standby, Ordering::SeqCst);
        Ok(())
    }

    pub(crate) fn run(mut self) {
        let _closed = CloseOnExit(self.shared.clone());
        loop {
            match self.next_work() {
                Work::Commit(batch) => self.commit(batch),
                Work::Due => {}
                Work::Close => break,
            }
            self.do_what_is_due();
        }
        self.close();
    }

    fn next_work(&mut self) -> Work {
        let deadline = self.deadline();
        let shared = self.shared.clone();
        let mut queue = shared.queue.lock();
        let mut plan = self.gather.plan(queue.batch.leaves.len());
        loop {
            let waiting = queue.batch.leaves.len();
            let gathering = plan.goes_on(Instant::now(), waiting);
            if waiting > 0 && (!gathering || queue.closing) {
                self.gather.begin(waiting);
                let (bytes, leaves) = std::mem::take(&mut self.spare_buffers);
                return Work::Commit(std::mem::replace(&mut queue.batch, Batch::new(bytes, leaves)));
            }
            if queue.closing {
                return Work::Close;
            }
            queue.idle = true;
            queue.wanted = if gathering { plan.wanted } else { 1 };
            let alarm = if gathering { Some(plan.next) } else { deadline };
            let timed_out = match alarm {
                Some(alarm) => shared.work.wait_until(&mut queue, alarm).timed_out(),
                None => {
                    shared.work.wait(&mut queue);
                    false
                }
            };
            queue.idle = false;
            if timed_out && !gathering && queue.batch.leaves.is_empty() {
                return Work::Due;
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let checkpoint = (self.size > self.checkpointed).then(|| self.last_checkpoint + self.config.checkpoint_interval);
        let sync = match self.config.durability {
            Durability::Interval(interval) => self.unsynced_since.map(|since| since + interval),
            Durability::Fsync => None,
        };
        checkpoint.into_iter().chain(sync).min()
    }

    fn commit(&mut self, batch: Batch) {
        let Batch { bytes, leaves, group } = batch;
        let group = InFlight(group);
        let (first, count, length) = (self.size, leaves.len() as u64, bytes.len() as u64);
        let outcome = self.store_all(Pending { bytes, leaves, first });
        let metrics = &self.shared.metrics;
        if outcome.is_ok() {
            metrics.appends.fetch_add(count, Ordering::Relaxed);
            metrics.groups.fetch_add(1, Ordering::Relaxed);
            metrics.bytes.fetch_add(length, Ordering::Relaxed);
        } else {
            metrics.refused.fetch_add(count, Ordering::Relaxed);
        }
        self.note_outcome(outcome.as_ref().err());
        group.0.complete(outcome.map(|()| first));
        self.absorb();
    }

    /// Writes a group, in two frames or more where it crosses a segment's end.
    fn store_all(&mut self, frame: Pending) -> Result<(), AuditError> {
        let mut rest = Some(frame);
        while let Some(mut frame) = rest.take() {
            self.finish_full_segment()?;
            rest = frame.split(SEGMENT - self.size % SEGMENT);
            self.store(frame)?;
        }
        Ok(())
    }

    fn store(&mut self, frame: Pending) -> Result<(), AuditError> {
        let end = frame.end();
        self.pending.push(frame);
        let outcome = self.write_last().or_else(|error| self.fail_over(error));
        match outcome {
            Ok(()) => self.size = end,
            // It will be reported as failed, so it must not turn up later.
            Err(_) => drop(self.pending.pop()),
        }
        self.shared.durable.store(self.synced, Ordering::Release);
        outcome
    }

    fn write_last(&mut self) -> Result<(), AuditError> {
        if self.part.is_none() {
            self.open_next_part()?;
        }
        let begun = Instant::now();
        if self.write_pending(self.pending.len() - 1)? {
            return self.synced_by_write(begun);
        }
        let since = *self.unsynced_since.get_or_insert_with(Instant::now);
        match self.config.durability {
            Durability::Interval(interval) if since.elapsed() < interval => Ok(()),
            _ => self.sync(),
        }
    }

    /// Writes a pending frame at the end of the part. `true` means that it, and all before it, are durable.
    fn write_pending(&mut self, at: usize) -> Result<bool, AuditError> {
        let Self { part: Some(part), pending, disk, shared, synced, config, .. } = self else {
            return Err(AuditError::Closed);
        };
        let frame = &mut pending[at];
        let end = part.offset + frame.bytes.len() as u64;
        if config.durability == Durability::Fsync && !part.direct_tried {
            part.direct_tried = true;
            let room = Direct::end(part.offset, 1) <= part.ready;
            part.direct = if room { Direct::open(disk, &part.path, &part.file, part.offset) } else { None };
        }
        part.take_extension(Direct::end(part.offset, frame.bytes.len()));
        if Direct::end(part.offset, frame.bytes.len()) > part.ready {
            let from = part.ready.max(part.offset);
            let to = (end + part.grow).next_multiple_of(BLOCK as u64);
            match disk.zero(&part.file, &part.path, from, to) {
                Ok(()) => part.ready = to,
                // There may still be room for the frame itself.
                Err(error) if error.is_full() => shared.full.store(true, Ordering::SeqCst),
                Err(error) => return Err(error),
            }
            part.grow = (part.grow * 2).min(GROW.1);
            if part.ready < Direct::end(part.offset, frame.bytes.len()) {
                // The disk is full: what room is left need not end at a block's end.
                part.direct = None;
            } else if part.direct.is_some() {
                disk.sync_data(&part.file, &part.path)?;
            }
        }
        seal(&mut frame.bytes, &part.header.salt, part.offset, frame.first, *synced, &frame.leaves);
        let durable = match &mut part.direct {
            Some(direct) => {
                direct.write(disk, &part.path, part.offset, &frame.bytes)?;
                true
            }
            None => {
                disk.write_at(&part.file, &part.path, part.offset, &frame.bytes)?;
                false
            }
        };
        part.offset = end;
        Ok(durable)
    }

    fn synced_by_write(&mut self, begun: Instant) -> Result<(), AuditError> {
        if !self.config.extra_sync_delay.is_zero() {
            std::thread::sleep(self.config.extra_sync_delay);
        }
        self.gather.last_sync = begun.elapsed();
        self.shared.metrics.count_sync(self.gather.last_sync);
        self.synced = self.pending.last().map_or(self.size, Pending::end);
        self.unsynced_since = None;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), AuditError> {
        let Some(part) = &self.part else { return Ok(()) };
        let start = Instant::now();
        self.disk.sync_data(&part.file, &part.path)?;
        if !self.config.extra_sync_delay.is_zero() {
            std::thread::sleep(self.config.extra_sync_delay);
        }
        self.gather.last_sync = start.elapsed();
        self.shared.metrics.count_sync(self.gather.last_sync);
        self.synced = self.pending.last().map_or(self.size, Pending::end);
        self.unsynced_since = None;
        Ok(())
    }

    /// Brings written frames into the tree and lets go of those that are durable.
    fn absorb(&mut self) {
        for frame in &self.pending {
            if frame.first >= self.tree.size() {
                frame.leaves.iter().for_each(|leaf| self.tree.push(*leaf));
            }
        }
        let synced = self.synced;
        let durable = self.pending.iter().take_while(|frame| frame.end() <= synced).count();
        for frame in self.pending.drain(..durable) {
            if frame.bytes.capacity() <= KEEP_BUFFER {
                self.spare_buffers = (frame.bytes, frame.leaves);
            }
        }
    }

    /// At a segment's end: hands the finished segment to the housekeeper and lets the next frame open a new part.
    fn finish_full_segment(&mut self) -> Result<(), AuditError> {
        self.absorb();
        if (self.tree.leaves.len() as u64) < SEGMENT {
            return Ok(());
        }
        self.sync_or_fail_over()?;
        let (number, root, leaves) = self.tree.finish();
        let part = self.part.take().map(|part| (part.path, part.offset));
        let _ = self.jobs.send(Job::Finish { number, root, leaves, part });
        self.spare_asked = false;
        Ok(())
    }

    /// Makes all that was written durable. In a failed state that is an error.
    fn sync_or_fail_over(&mut self) -> Result<(), AuditError> {
        if self.synced == self.size {
            return Ok(());
        }
        let outcome = match self.part {
            Some(_) => self.sync(),
            None => Err(self.shared.failed.lock().clone().unwrap_or(AuditError::Closed)),
        };
        let outcome = outcome.or_else(|error| self.fail_over(error));
        self.shared.durable.store(self.synced, Ordering::Release);
        self.absorb();
        outcome
    }

    /// Opens the next part where the log should be: in the main folder unless that is broken.
    fn open_next_part(&mut self) -> Result<(), AuditError> {
        let dir = usize::from(self.main_broken && self.dirs.len() > 1);
        self.part = Some(self.create_part(dir)?);
        self.shared.on_standby.store(dir > 0, Ordering::SeqCst);
        Ok(())
    }

    /// Makes an empty part that begins at the first entry not known to be durable.
    fn create_part(&mut self, dir: usize) -> Result<OpenPart, AuditError> {
        let mut salt = [0; 16];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| AuditError::Io {
            op: "asking for random bytes for",
            path: self.dirs[dir].clone(),
            kind: std::io::ErrorKind::Other,
            message: "the generator failed".into(),
        })?;
        let header = PartHeader { origin: self.origin, sequence: self.next_sequence, first: self.synced, salt };
        // Never used again, even when what follows fails half-way.
        self.next_sequence += 1;
        let path = self.dirs[dir].join(part_name(header.sequence));
        let (file, unnamed, ready) = self.blank_file(dir, &path)?;
        if let Err(error) = self.name_part(dir, &file, &unnamed, &path, &header) {
            // On a full disk what it takes may be all there is. After the rename there is nothing to remove.
            let _ = self.disk.remove(&unnamed);
            return Err(error);
        }
        Ok(OpenPart {
            file,
            path,
            header,
            dir,
            offset: PART_HEADER as u64,
            ready,
            grow: GROW.0,
            direct: None,
            direct_tried: false,
            extending: None,
        })
    }

    /// Turns a blank file into a part: the name appears only once the header is on disk.
    fn name_part(&self, dir: usize, file: &File, unnamed: &Path, path: &Path, header: &PartHeader) -> Result<(), AuditError> {
        self.disk.write_at(file, unnamed, 0, &header.encode())?;
        self.disk.sync_all(file, unnamed)?;
        self.disk.rename(unnamed, path)?;
        self.disk.sync_dir(&self.dirs[dir])
    }

    /// A file of zeros that is not a part yet: the spare one, or a new small one.
    fn blank_file(&self, dir: usize, target: &Path) -> Result<(File, PathBuf, u64), AuditError> {
        let here = |spare: &mut crate::log::Spare| spare.path.parent() == Some(&self.dirs[dir]);
        if let Some(spare) = self.shared.spare.lock().take_if(here) {
            return Ok((spare.file, spare.path, spare.length));
        }
        let path = target.with_extension("new");
        let file = self.disk.create(&path)?;
        match self.disk.zero(&file, &path, 0, FIRST_REGION) {
            Ok(()) => Ok((file, path, FIRST_REGION)),
            Err(error) if error.is_full() => Ok((file, path, PART_HEADER as u64)),
            Err(error) => Err(error),
        }
    }

    /// After a failed write: goes on in a new part, in the other folder or the same, with all that is not durable.
    fn fail_over(&mut self, cause: AuditError) -> Result<(), AuditError> {
        self.shared.report(&cause);
        let failed_dir = self.part.take().map_or(0, |part| part.dir);
        let mut relieved = false;
        if cause.is_full() {
            self.shared.full.store(true, Ordering::SeqCst);
            relieved = self.shared.reserve.release(&self.disk);
        } else if failed_dir == 0 && self.dirs.len() > 1 {
            self.main_broken = true;
        }
        let mut error = cause;
        for dir in self.fail_over_order(failed_dir, relieved) {
            match self.continue_in(dir) {
                Ok(()) => {
                    self.shared.metrics.failovers.fetch_add(1, Ordering::Relaxed);
                    self.shared.on_standby.store(dir > 0, Ordering::SeqCst);
                    tracing::warn!(dir = %self.dirs[dir].display(), "the audit log goes on in a new part");
                    return Ok(());
                }
                Err(next) => {
                    self.part = None;
                    self.shared.report(&next);
                    error = next;
                }
            }
        }
        Err(error)
    }

    /// The folders to try: where the reserve has just made room first, otherwise the other one first.
    fn fail_over_order(&self, failed: usize, relieved: bool) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.dirs.len()).collect();
        let last = |dir: &usize| (*dir == failed) != relieved;
        order.sort_by_key(last);
        order
    }

    fn continue_in(&mut self, dir: usize) -> Result<(), AuditError> {
        self.part = Some(self.create_part(dir)?);
        let synced = self.synced;
        let start = self.pending.partition_point(|frame| frame.first < synced);
        for at in start..self.pending.len() {
            self.write_pending(at)?;
        }
        // Also after direct writes: the part may have fallen back to buffered ones among them.
        if start < self.pending.len() { self.sync() } else { Ok(()) }
    }

    /// Keeps state and back-off in step with the last outcome.
    fn note_outcome(&mut self, error: Option<&AuditError>) {
        let Some(error) = error else {
            if self.back_off > BACK_OFF.0 || self.shared.failed.lock().is_some() {
                *self.shared.failed.lock() = None;
                self.back_off = BACK_OFF.0;
            }
            return;
        };
        *self.shared.failed.lock() = Some(error.clone());
        self.shared.queue.lock().refuse = Some((Instant::now() + self.back_off, error.clone()));
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
    }

    fn do_what_is_due(&mut self) {
        self.ask_for_spare();
        if let Some(part) = &mut self.part {
            part.ask_for_more(self.size, &self.jobs);
        }
        let now = Instant::now();
        let sync_due = match (self.config.durability, self.unsynced_since) {
            (Durability::Interval(interval), Some(since)) => now >= since + interval,
            _ => false,
        };
        if sync_due {
            self.sync_in_background();
        }
        let due = self.size > self.checkpointed && now >= self.last_checkpoint + self.config.checkpoint_interval;
        if due {
            self.checkpoint(false);
        }
    }

    /// A sync that nobody waits for.
    fn sync_in_background(&mut self) {
        let outcome = self.sync_or_fail_over();
        if let Err(error) = outcome {
            self.note_outcome(Some(&error));
            // Try again after a pause, not at once.
            self.unsynced_since = Some(Instant::now());
        }
    }

    fn checkpoint(&mut self, keep: bool) {
        self.last_checkpoint = Instant::now();
        if self.synced < self.size {
            self.sync_in_background();
        }
        // Never a word about entries that might be lost.
        if self.synced == self.tree.size() {
            self.checkpointed = self.synced;
            let head = Checkpoint { size: self.synced, root: self.tree.root() };
            let _ = self.jobs.send(Job::Checkpoint { head, keep });
        }
    }

    /// Lets the next part be prepared in good time, as large as this one will probably be.
    fn ask_for_spare(&mut self) {
        let Some(part) = &self.part else { return };
        let entries = self.size - part.header.first;
        let is_time = !self.spare_asked && self.size % SEGMENT > SEGMENT / 8 && entries > 0;
        if is_time {
            let length = (part.offset * SEGMENT / entries / 100 * 105).clamp(FIRST_REGION, MAX_SPARE);
            let dir = self.dirs[part.dir].clone();
            self.spare_asked = true;
            let _ = self.jobs.send(Job::Prepare { dir, length });
        }
    }

    fn close(&mut self) {
        if self.size > 0 {
            self.checkpoint(true);
        }
        if let Some(part) = self.part.take()
            && self.synced == self.size
        {
            let trimmed = self.disk.set_len(&part.file, &part.path, part.offset);
            if let Err(error) = trimmed.and_then(|()| self.disk.sync_all(&part.file, &part.path)) {
                self.shared.report(&error);
            }
        }
        let _ = self.jobs.send(Job::Stop);
    }
}

/// However the writer ends, no append waits for it.
struct CloseOnExit(Arc<Shared>);

impl Drop for CloseOnExit {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.closing = true;
        let batch = std::mem::replace(&mut queue.batch, Batch::new(Vec::new(), Vec::new()));
        drop(queue);
        batch.group.complete(Err(AuditError::Closed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_slow_disk_all_that_were_here_are_waited_for_while_they_keep_coming_back() {
        let sync = Duration::from_millis(12);
        let gather = Gather { completed: 16, last_sync: sync, ..Gather::new() };
        let mut plan = gather.plan(16);
        let (begun, gap) = (plan.next - sync / 6, plan.gap);
        assert!(plan.goes_on(begun, 16), "the half that was answered is given time to come back");
        assert!(plan.goes_on(begun + gap * 2, 20), "and more time while it does");
        assert!(!plan.goes_on(begun + gap, 32), "but no more once all are here");
        assert!(!plan.goes_on(begun + gap * 3, 20), "or when nobody else came");
        let mut late = gather.plan(16);
        assert!(!late.goes_on(late.last, 31), "and never for long");
    }

    #[test]
    fn who_is_alone_never_waits() {
        for last_sync in [Duration::from_micros(80), Duration::from_millis(9)] {
            let gather = Gather { completed: 1, last_sync, ..Gather::new() };
            let mut plan = gather.plan(0);
            assert!(!plan.goes_on(Instant::now(), 1));
        }
    }
}
