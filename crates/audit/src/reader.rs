//! Reading a log, also while a server writes it: entries in either direction, following, and proofs.
//!
//! A reader of a running log may see an entry an instant before it is durable. It checks each
//! frame it gives out, but only [`crate::verify`] checks the log as a whole.

use crate::disk::read_optional;
use crate::error::AuditError;
use crate::frame::split_body;
use crate::layout::{Archive, CHECKPOINT, Cursor, Frame, Part};
use crate::merkle::{self, Hash};
use crate::note::{SignedCheckpoint, VerifierKey};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A read-only view of a log's folders.
#[derive(Debug)]
pub struct Reader {
    archive: Archive,
}

impl Reader {
    /// Opens the log in `dirs`: its main folder and, if there is one, the standby folder. Both must exist.
    ///
    /// # Errors
    /// `Io`, and `Corrupt` when a part's header is damaged or entries are missing between parts.
    pub fn open(dirs: &[impl AsRef<Path>]) -> Result<Self, AuditError> {
        let dirs: Vec<PathBuf> = dirs.iter().map(|dir| dir.as_ref().to_owned()).collect();
        Ok(Self { archive: Archive::scan(&dirs)? })
    }

    /// Looks at the folders again.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn refresh(&mut self) -> Result<(), AuditError> {
        self.archive = Archive::scan(&self.archive.dirs)?;
        Ok(())
    }

    /// Number of entries now.
    ///
    /// # Errors
    /// `Io` and `Corrupt`.
    pub fn size(&mut self) -> Result<u64, AuditError> {
        self.refresh()?;
        self.archive.size()
    }

    /// Index of the first entry that was not pruned.
    pub fn first(&self) -> u64 {
        self.archive.first
    }

    /// One entry.
    ///
    /// # Errors
    /// `Pruned`, `OutOfRange`, `Io`, `Corrupt`.
    pub fn entry(&mut self, index: u64) -> Result<Vec<u8>, AuditError> {
        if index < self.archive.first {
            return Err(AuditError::Pruned { index });
        }
        match self.entries(index).next() {
            Some(found) => Ok(found?.1),
            None => Err(AuditError::OutOfRange { index, size: self.size()? }),
        }
    }

    /// The entries from `from` (or the first kept one) on, with their indexes. The iterator is not fused: after `None`
    /// it gives what has been appended since.
    pub fn entries(&self, from: u64) -> Entries {
        let next = from.max(self.archive.first);
        Entries { archive: self.archive.parts_only(), cursor: None, held: VecDeque::new(), next }
    }

    /// The entries before `before`, latest first, with their indexes; `u64::MAX` begins at the end.
    ///
    /// # Errors
    /// `Io` and `Corrupt`.
    pub fn backwards(&mut self, before: u64) -> Result<Backwards, AuditError> {
        let size = self.size()?;
        Ok(Backwards { archive: self.archive.parts_only(), before: before.min(size), frames: Vec::new(), held: Vec::new() })
    }

    /// The first index for whose entry `is_before` is false, by binary search: entries must be ordered by it (for times,
    /// nearly so). The end of the log when there is none.
    ///
    /// # Errors
    /// `Io` and `Corrupt`.
    pub fn partition_point(&mut self, mut is_before: impl FnMut(&[u8]) -> bool) -> Result<u64, AuditError> {
        let (mut low, mut high) = (self.archive.first, self.size()?);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(&self.entry(middle)?) { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// The newest checkpoint file, verified; `None` before the first.
    ///
    /// # Errors
    /// `BadNote` when its signature is wrong, `Io`.
    pub fn checkpoint(&self, key: &VerifierKey) -> Result<Option<SignedCheckpoint>, AuditError> {
        let mut newest: Option<SignedCheckpoint> = None;
        for dir in &self.archive.dirs {
            let Some(note) = read_optional(&dir.join(CHECKPOINT))? else { continue };
            let signed = key.open(&String::from_utf8_lossy(&note))?;
            if newest.as_ref().is_none_or(|newest| signed.head().size > newest.head().size) {
                newest = Some(signed);
            }
        }
        Ok(newest)
    }

    /// The root of the first `size` entries.
    ///
    /// # Errors
    /// `OutOfRange`, `Pruned` when `size` is inside a pruned segment, `Io`, `Corrupt`.
    pub fn root(&mut self, size: u64) -> Result<Hash, AuditError> {
        self.check_size(size)?;
        self.archive.root(size)
    }

    /// The proof that entry `index` is in the tree of `size` entries, for [`merkle::verify_inclusion`].
    ///
    /// # Errors
    /// As for [`Self::root`].
    pub fn prove_inclusion(&mut self, index: u64, size: u64) -> Result<Vec<Hash>, AuditError> {
        if index >= size {
            return Err(AuditError::OutOfRange { index, size });
        }
        self.check_size(size)?;
        let archive = &mut self.archive;
        merkle::inclusion_path(index, size, &mut |first, height| archive.subtree(first, height))
    }

    /// The proof that the tree of `old` entries is a prefix of that of `new`, for [`merkle::verify_consistency`].
    ///
    /// # Errors
    /// As for [`Self::root`].
    pub fn prove_consistency(&mut self, old: u64, new: u64) -> Result<Vec<Hash>, AuditError> {
        if old > new {
            return Err(AuditError::OutOfRange { index: old, size: new });
        }
        self.check_size(new)?;
        let archive = &mut self.archive;
        merkle::consistency_path(old, new, &mut |first, height| archive.subtree(first, height))
    }

    fn check_size(&mut self, size: u64) -> Result<(), AuditError> {
        let held = self.size()?;
        if size > held {
            return Err(AuditError::OutOfRange { index: size, size: held });
        }
        Ok(())
    }
}

/// Entries in order. See [`Reader::entries`].
#[derive(Debug)]
pub struct Entries {
    archive: Archive,
    cursor: Option<Cursor>,
    /// Entries of the current frame that are still to come.
    held: VecDeque<Vec<u8>>,
    next: u64,
}

impl Iterator for Entries {
    type Item = Result<(u64, Vec<u8>), AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.held.is_empty()
            && let Err(error) = self.fill()
        {
            return Some(Err(error));
        }
        let entry = self.held.pop_front()?;
        let index = self.next;
        self.next += 1;
        Some(Ok((index, entry)))
    }
}

impl Entries {
    /// The next entry, waiting for it: looks every `interval`, and gives `None` once `stop` is set.
    pub fn wait(&mut self, interval: Duration, stop: &AtomicBool) -> Option<Result<(u64, Vec<u8>), AuditError>> {
        loop {
            if let Some(found) = self.next() {
                return Some(found);
            }
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            std::thread::sleep(interval);
        }
    }

    /// Reads the next frame; leaves nothing held when the log ends here for now.
    fn fill(&mut self) -> Result<(), AuditError> {
        // A part may turn out to be ended by a later one: each turn of this loop moves on by a part.
        loop {
            if self.cursor.as_ref().is_none_or(Cursor::at_limit) && !self.enter_part()? {
                return Ok(());
            }
            let Some(cursor) = &mut self.cursor else { return Ok(()) };
            if let Some(frame) = cursor.frame()? {
                self.hold(frame);
                if self.held.is_empty() {
                    continue;
                }
                return Ok(());
            }
            if cursor.at_limit() {
                continue;
            }
            if !self.was_ended_by_later_part()? {
                return Ok(());
            }
        }
    }

    fn hold(&mut self, frame: Frame) {
        let skipped = self.next.saturating_sub(frame.first) as usize;
        let entries = split_body(&frame.body).unwrap_or_default();
        self.held = entries.into_iter().skip(skipped).map(<[u8]>::to_vec).collect();
    }

    /// Opens the part that holds `next`; `false` when there is none yet.
    fn enter_part(&mut self) -> Result<bool, AuditError> {
        let mut part = self.archive.part_of(self.next).cloned();
        if part.is_none() {
            self.archive = Archive::scan(&self.archive.dirs)?;
            part = self.archive.part_of(self.next).cloned();
        }
        let Some(part) = part else { return Ok(false) };
        let mut cursor = Cursor::open(&part)?;
        cursor.seek(self.next)?;
        self.cursor = Some(cursor);
        Ok(true)
    }

    /// At a part's last frame: whether a later part goes on from here, so that this one is at its limit.
    fn was_ended_by_later_part(&mut self) -> Result<bool, AuditError> {
        self.archive = Archive::scan(&self.archive.dirs)?;
        let (next, dirs) = (self.next, &self.archive.dirs);
        let Some(cursor) = &mut self.cursor else { return Ok(false) };
        // Its first entry may lie before `next`: what was read here since was never acknowledged.
        let goes_on = |part: &Part| part.header.sequence > cursor.sequence() && part.header.first <= next;
        if self.archive.parts.iter().any(goes_on) {
            cursor.set_limit(next);
            return Ok(true);
        }
        if self.archive.parts.iter().any(|part| part.header.first > next) {
            let why = format!("entry {next} cannot be read, but later ones follow");
            return Err(AuditError::corrupt(dirs.first().map_or(Path::new(""), PathBuf::as_path), 0, why));
        }
        Ok(false)
    }
}

/// Entries in reverse. See [`Reader::backwards`].
#[derive(Debug)]
pub struct Backwards {
    archive: Archive,
    /// The entry before this one is next.
    before: u64,
    /// The current part and its frames: (offset, index of the first entry), to be taken from the end.
    frames: Vec<(u64, u64)>,
    /// Entries of the current frame still to come, to be taken from the end.
    held: Vec<Vec<u8>>,
}

impl Iterator for Backwards {
    type Item = Result<(u64, Vec<u8>), AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.held.is_empty()
            && let Err(error) = self.fill()
        {
            self.before = self.archive.first;
            return Some(Err(error));
        }
        let entry = self.held.pop()?;
        self.before -= 1;
        Some(Ok((self.before, entry)))
    }
}

impl Backwards {
    fn fill(&mut self) -> Result<(), AuditError> {
        if self.before <= self.archive.first {
            return Ok(());
        }
        let index = self.before - 1;
        let missing = AuditError::OutOfRange { index, size: self.before };
        let part = self.archive.part_of(index).cloned().ok_or(missing.clone())?;
        let mut cursor = Cursor::open(&part)?;
        while self.frames.last().is_some_and(|(_, first)| *first > index || *first < part.header.first) {
            self.frames.pop();
        }
        if self.frames.is_empty() {
            self.frames = frames_until(&mut cursor, index)?;
        }
        let (offset, first) = self.frames.pop().ok_or(missing.clone())?;
        cursor.jump(offset, first);
        let frame = cursor.frame()?.ok_or_else(|| cursor.damage("no valid frame"))?;
        let count = (self.before - frame.first) as usize;
        let entries = split_body(&frame.body).unwrap_or_default();
        self.held = entries.into_iter().take(count).map(<[u8]>::to_vec).collect();
        Ok(())
    }
}

/// Where the frames of a part begin, up to the one that holds `index`.
fn frames_until(cursor: &mut Cursor, index: u64) -> Result<Vec<(u64, u64)>, AuditError> {
    let mut frames = Vec::new();
    while cursor.next <= index {
        let place = (cursor.offset, cursor.next);
        if !cursor.skip()? {
            return Err(cursor.damage("no valid frame"));
        }
        frames.push(place);
    }
    Ok(frames)
}
