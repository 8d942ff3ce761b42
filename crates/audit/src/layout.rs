//! The log as it lies on disk: which parts there are, how they join, and walking their frames.
//!
//! Read-only. A part created later cuts an earlier one off at its own first entry: what the earlier
//! one holds from there on was never acknowledged (its write had failed).

use crate::disk::read_optional;
use crate::error::AuditError;
use crate::frame::{self, FRAME_HEADER, FRAME_MAGIC, FrameHeader, PART_HEADER, PartHeader, SEGMENT, SEGMENT_HEIGHT};
use crate::merkle::{self, Hash};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub(crate) const CHECKPOINT: &str = "checkpoint";
pub(crate) const HISTORY: &str = "checkpoints.log";
pub(crate) const PRUNED: &str = "pruned";
pub(crate) const ROOTS: &str = "roots";
pub(crate) const PUBLIC_KEY: &str = "log.pub";

/// How much of a part is read at once.
const WINDOW: usize = 256 * 1024;

pub(crate) fn part_name(sequence: u64) -> String {
    format!("entries-{sequence:08}.log")
}

pub(crate) fn hashes_name(segment: u64) -> String {
    format!("hashes-{segment:08}")
}

/// A part of the log and where it ends for good.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) header: PartHeader,
    /// Its entries end before this index: its segment's end, or where a later part begins.
    pub(crate) limit: u64,
}

/// The parts and derived files in a log's folders at one moment.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    pub(crate) dirs: Vec<PathBuf>,
    /// Without gaps, in order.
    pub(crate) parts: Vec<Part>,
    /// Parts that hold nothing acknowledged.
    pub(crate) void: Vec<PathBuf>,
    /// The highest sequence number seen, void parts included.
    pub(crate) last_sequence: Option<u64>,
    /// Index of the first entry that was kept.
    pub(crate) first: u64,
    /// Roots of the segments from 0, as the file has them: not yet trusted.
    pub(crate) roots: Vec<Hash>,
    cached: Option<(u64, Vec<Hash>)>,
}

impl Archive {
    /// Reads the folders. The first folder is the main one.
    pub(crate) fn scan(dirs: &[PathBuf]) -> Result<Self, AuditError> {
        let mut found = Vec::new();
        for dir in dirs {
            find_parts(dir, &mut found)?;
        }
        found.sort_by_key(|(_, header)| header.sequence);
        let last_sequence = found.last().map(|(_, header)| header.sequence);
        let first = first_kept(dirs)?;
        let (parts, void) = join(found);
        let archive = Self { dirs: dirs.to_vec(), parts, void, last_sequence, first, roots: read_roots(dirs)?, cached: None };
        archive.check_joints()?;
        Ok(archive)
    }

    /// A copy to walk the parts with, without what only proofs need.
    pub(crate) fn parts_only(&self) -> Self {
        Self { dirs: self.dirs.clone(), parts: self.parts.clone(), first: self.first, ..Self::default() }
    }

    fn check_joints(&self) -> Result<(), AuditError> {
        let mut expected = self.first;
        for part in &self.parts {
            // A part that pruning has not got round to yet lies before the first kept entry.
            if part.limit <= self.first {
                continue;
            }
            if part.header.first != expected {
                let why = format!("entries {expected} to {} are missing before it", part.header.first);
                return Err(AuditError::corrupt(&part.path, 0, why));
            }
            expected = part.limit;
        }
        Ok(())
    }

    /// The part that holds `index`, or would.
    pub(crate) fn part_of(&self, index: u64) -> Option<&Part> {
        self.parts.iter().find(|part| part.header.first <= index && index < part.limit)
    }

    /// Number of entries, by walking the last part.
    pub(crate) fn size(&self) -> Result<u64, AuditError> {
        let Some(last) = self.parts.last() else { return Ok(self.first) };
        let mut cursor = Cursor::open(last)?;
        while cursor.skip()? {}
        Ok(cursor.next)
    }

    /// The root of the first `size` entries.
    pub(crate) fn root(&mut self, size: u64) -> Result<Hash, AuditError> {
        merkle::root(size, &mut |first, height| self.subtree(first, height))
    }

    /// The root of the perfect subtree of 2^height entries at `first`.
    pub(crate) fn subtree(&mut self, first: u64, height: u32) -> Result<Hash, AuditError> {
        if height < SEGMENT_HEIGHT {
            let leaves = self.leaves(first / SEGMENT)?;
            let within = (first % SEGMENT) as usize;
            let Some(range) = leaves.get(within..within + (1 << height)) else {
                return Err(AuditError::OutOfRange { index: first + (1 << height) - 1, size: self.size()? });
            };
            return Ok(merkle::perfect_root(range));
        }
        let mut tree = merkle::Frontier::default();
        for segment in first / SEGMENT..(first + (1 << height)) / SEGMENT {
            tree.push(self.segment_root(segment)?);
        }
        Ok(tree.root())
    }

    /// The root of a finished segment: from the `roots` file, else from its entries.
    pub(crate) fn segment_root(&mut self, segment: u64) -> Result<Hash, AuditError> {
        if let Some(root) = self.roots.get(segment as usize) {
            return Ok(*root);
        }
        if segment * SEGMENT < self.first {
            return Err(AuditError::Pruned { index: segment * SEGMENT });
        }
        let leaves = self.leaves_from_entries(segment)?;
        if leaves.len() as u64 != SEGMENT {
            return Err(AuditError::OutOfRange { index: (segment + 1) * SEGMENT - 1, size: self.size()? });
        }
        Ok(merkle::perfect_root(&leaves))
    }

    /// The leaf hashes of a segment, as many as there are.
    pub(crate) fn leaves(&mut self, segment: u64) -> Result<&[Hash], AuditError> {
        let cached = self.cached.as_ref().is_some_and(|(held, leaves)| *held == segment && leaves.len() as u64 == SEGMENT);
        if !cached {
            let leaves = match self.leaves_from_file(segment)? {
                Some(leaves) => leaves,
                None => self.leaves_from_entries(segment)?,
            };
            self.cached = Some((segment, leaves));
        }
        Ok(self.cached.as_ref().map_or(&[], |(_, leaves)| leaves))
    }

    /// The derived file, used only when it reproduces the segment's root.
    fn leaves_from_file(&self, segment: u64) -> Result<Option<Vec<Hash>>, AuditError> {
        let Some(root) = self.roots.get(segment as usize) else { return Ok(None) };
        for dir in &self.dirs {
            let Some(bytes) = read_optional(&dir.join(hashes_name(segment)))? else { continue };
            let (hashes, rest) = bytes.as_chunks::<32>();
            let whole = rest.is_empty() && hashes.len() as u64 == SEGMENT;
            if whole && merkle::perfect_root(hashes) == *root {
                return Ok(Some(hashes.to_vec()));
            }
        }
        Ok(None)
    }

    pub(crate) fn leaves_from_entries(&self, segment: u64) -> Result<Vec<Hash>, AuditError> {
        let (low, high) = (segment * SEGMENT, (segment + 1) * SEGMENT);
        if low < self.first {
            return Err(AuditError::Pruned { index: low });
        }
        let mut leaves = Vec::new();
        let last = self.parts.len().saturating_sub(1);
        for (at, part) in self.parts.iter().enumerate() {
            if part.limit <= low || part.header.first >= high {
                continue;
            }
            let mut cursor = Cursor::open(part)?;
            while let Some(frame) = cursor.frame()? {
                leaves.extend_from_slice(&frame.leaves);
            }
            cursor.check_end(at == last)?;
        }
        Ok(leaves)
    }
}

/// Adds the parts in `dir`.
fn find_parts(dir: &Path, found: &mut Vec<(PathBuf, PartHeader)>) -> Result<(), AuditError> {
    let listing = std::fs::read_dir(dir).map_err(|error| AuditError::io("listing", dir, &error))?;
    for item in listing {
        let item = item.map_err(|error| AuditError::io("listing", dir, &error))?;
        let name = item.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("entries-")?.strip_suffix(".log")?.parse::<u64>().ok());
        let Some(sequence) = number else { continue };
        let path = item.path();
        let header = match read_header(&path) {
            // Pruned between listing and opening.
            Err(error) if error.is_not_found() => continue,
            other => other?,
        };
        if header.sequence != sequence {
            return Err(AuditError::corrupt(&path, 48, "the file was renamed: its number is not the header's"));
        }
        found.push((path, header));
    }
    Ok(())
}

fn read_header(path: &Path) -> Result<PartHeader, AuditError> {
    let file = File::open(path).map_err(|error| AuditError::io("opening", path, &error))?;
    let mut block = [0; PART_HEADER];
    let length = read_up_to(&file, &mut block, 0).map_err(|error| AuditError::io("reading", path, &error))?;
    PartHeader::decode(&block[..length]).map_err(|why| AuditError::corrupt(path, 0, why))
}

/// Gives each part its limit and sets aside those that a later one replaces entirely.
fn join(found: Vec<(PathBuf, PartHeader)>) -> (Vec<Part>, Vec<PathBuf>) {
    let (mut parts, mut void) = (Vec::new(), Vec::new());
    let mut cut = u64::MAX;
    for (path, header) in found.into_iter().rev() {
        let limit = header.segment_end().min(cut);
        if header.first >= limit {
            void.push(path);
            continue;
        }
        cut = header.first;
        parts.push(Part { path, header, limit });
    }
    parts.reverse();
    (parts, void)
}

/// The size in the `pruned` stub. Its signature is checked by those who have the key.
fn first_kept(dirs: &[PathBuf]) -> Result<u64, AuditError> {
    let mut first = 0;
    for dir in dirs {
        let path = dir.join(PRUNED);
        let Some(bytes) = read_optional(&path)? else { continue };
        let text = str::from_utf8(&bytes).map_err(|_| AuditError::corrupt(&path, 0, "not UTF-8"))?;
        let note = crate::note::parse_note(text).map_err(|error| AuditError::corrupt(&path, 0, error.to_string()))?;
        first = first.max(note.head.size);
    }
    Ok(first)
}

fn read_roots(dirs: &[PathBuf]) -> Result<Vec<Hash>, AuditError> {
    let mut longest = Vec::new();
    for dir in dirs {
        let bytes = read_optional(&dir.join(ROOTS))?.unwrap_or_default();
        // A rest of less than a hash is an append cut short by a crash.
        let roots = bytes.as_chunks::<32>().0;
        if roots.len() > longest.len() {
            longest = roots.to_vec();
        }
    }
    Ok(longest)
}

/// A frame that was checked.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) first: u64,
    pub(crate) leaves: Vec<Hash>,
    pub(crate) body: Vec<u8>,
}

/// What lies behind the last valid frame of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing but zeros.
    Clean,
    /// Bytes of a write that was never acknowledged.
    Torn {
        /// From the last frame's end to the last byte that is not zero.
        bytes: u64,
    },
}

/// Walks the frames of one part.
#[derive(Debug)]
pub(crate) struct Cursor {
    file: File,
    path: PathBuf,
    header: PartHeader,
    limit: u64,
    /// Where the next frame begins.
    pub(crate) offset: u64,
    /// The index of its first entry.
    pub(crate) next: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Cursor {
    pub(crate) fn open(part: &Part) -> Result<Self, AuditError> {
        let file = File::open(&part.path).map_err(|error| AuditError::io("opening", &part.path, &error))?;
        Ok(Self {
            file,
            path: part.path.clone(),
            header: part.header,
            limit: part.limit,
            offset: PART_HEADER as u64,
            next: part.header.first,
            window: Vec::new(),
            window_at: 0,
        })
    }

    /// Whether the part's end by its segment or a later part was reached.
    pub(crate) fn at_limit(&self) -> bool {
        self.next >= self.limit
    }

    /// The part's place in the order of creation.
    pub(crate) fn sequence(&self) -> u64 {
        self.header.sequence
    }

    /// Goes to a frame found earlier.
    pub(crate) fn jump(&mut self, offset: u64, next: u64) {
        (self.offset, self.next) = (offset, next);
    }

    /// Lets a later part end this one.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// The next frame, checked; `None` at the limit and where no valid frame follows.
    pub(crate) fn frame(&mut self) -> Result<Option<Frame>, AuditError> {
        if self.at_limit() {
            return Ok(None);
        }
        if let Some(frame) = self.try_frame()? {
            return self.advance(frame).map(Some);
        }
        // The window may hold what a running writer has completed since.
        self.window.clear();
        match self.try_frame()? {
            Some(frame) => self.advance(frame).map(Some),
            None => Ok(None),
        }
    }

    /// Steps over the next frame on its header's word; `false` where [`Self::frame`] gives `None`.
    pub(crate) fn skip(&mut self) -> Result<bool, AuditError> {
        if self.at_limit() {
            return Ok(false);
        }
        let mut header = self.header_at(self.offset)?;
        if header.is_none() {
            self.window.clear();
            header = self.header_at(self.offset)?;
        }
        let Some((header, _)) = header.filter(|(header, _)| self.in_sequence(header)) else { return Ok(false) };
        let end = self.offset + (FRAME_HEADER + header.body) as u64;
        // The last frame of a part is believed only after a look at all of it: it may be torn.
        let last = self.header_at(end)?.is_none();
        if last {
            return Ok(self.frame()?.is_some());
        }
        (self.offset, self.next) = (end, header.end());
        Ok(true)
    }

    /// Steps over frames until the next one holds `index`.
    pub(crate) fn seek(&mut self, index: u64) -> Result<(), AuditError> {
        while !self.at_limit() {
            let Some((header, _)) = self.header_at(self.offset)? else { return Ok(()) };
            if !self.in_sequence(&header) || header.end() > index {
                return Ok(());
            }
            (self.offset, self.next) = (self.offset + (FRAME_HEADER + header.body) as u64, header.end());
        }
        Ok(())
    }

    fn advance(&mut self, (frame, length): (Frame, usize)) -> Result<Frame, AuditError> {
        let end = frame.first + frame.leaves.len() as u64;
        if end > self.limit {
            return Err(self.damage("a frame reaches over the end of its part"));
        }
        self.offset += length as u64;
        self.next = end;
        Ok(frame)
    }

    fn in_sequence(&self, header: &FrameHeader) -> bool {
        header.first == self.next
    }

    fn try_frame(&mut self) -> Result<Option<(Frame, usize)>, AuditError> {
        let checked = self.checked_at(self.offset)?;
        Ok(checked.and_then(|(header, leaves, body)| {
            let length = FRAME_HEADER + header.body;
            self.in_sequence(&header).then_some((Frame { first: header.first, leaves, body }, length))
        }))
    }

    fn header_at(&mut self, offset: u64) -> Result<Option<(FrameHeader, [u8; FRAME_HEADER])>, AuditError> {
        let bytes = self.read(offset, FRAME_HEADER)?;
        Ok(bytes.first_chunk::<FRAME_HEADER>().and_then(|raw| Some((FrameHeader::decode(raw)?, *raw))))
    }

    /// The valid frame at `offset`, wherever in the sequence it belongs.
    #[allow(clippy::type_complexity)]
    fn checked_at(&mut self, offset: u64) -> Result<Option<(FrameHeader, Vec<Hash>, Vec<u8>)>, AuditError> {
        let Some((header, raw)) = self.header_at(offset)? else { return Ok(None) };
        let salt = self.header.salt;
        let body = self.read(offset + FRAME_HEADER as u64, header.body)?;
        let Some(leaves) = frame::check(&salt, offset, &header, &raw, body) else { return Ok(None) };
        Ok(Some((header, leaves, body.to_vec())))
    }

    /// Up to `length` bytes at `offset`, fewer at the file's end.
    fn read(&mut self, offset: u64, length: usize) -> Result<&[u8], AuditError> {
        let start = offset.wrapping_sub(self.window_at) as usize;
        let held = offset >= self.window_at && start.saturating_add(length) <= self.window.len();
        if held {
            return Ok(&self.window[start..start + length]);
        }
        self.window.resize(length.max(WINDOW), 0);
        let got = read_up_to(&self.file, &mut self.window, offset).map_err(|error| AuditError::io("reading", &self.path, &error))?;
        self.window.truncate(got);
        self.window_at = offset;
        Ok(&self.window[..length.min(got)])
    }

    /// After the last frame: checks that the part ended where it may, and what lies behind.
    ///
    /// # Errors
    /// `Corrupt` when acknowledged entries are damaged or missing: the part must reach its limit unless it is the last,
    /// and no valid frame behind the end may say that what should be there had been durable.
    pub(crate) fn check_end(&mut self, last: bool) -> Result<Tail, AuditError> {
        if self.at_limit() {
            return Ok(Tail::Clean);
        }
        if !last {
            return Err(self.damage("the part ends early"));
        }
        let rest = self.rest()?;
        if rest.is_empty() {
            return Ok(Tail::Clean);
        }
        for at in magics(&rest) {
            let behind = self.checked_at(self.offset + at as u64)?;
            if behind.is_some_and(|(header, ..)| header.durable > self.next) {
                self.window.clear();
                if self.try_frame()?.is_some() {
                    // A running writer completed it after it was looked at.
                    return Ok(Tail::Clean);
                }
                return Err(self.damage("no valid frame, but later ones follow that were written after it was durable"));
            }
        }
        Ok(Tail::Torn { bytes: rest.len() as u64 })
    }

    /// The bytes behind the last frame, up to the last that is not zero. Normally none: what was filled ahead, which may be
    /// hundreds of MiB, passes through one window.
    fn rest(&self) -> Result<Vec<u8>, AuditError> {
        let (mut rest, mut window, mut at) = (Vec::new(), vec![0; WINDOW], self.offset);
        loop {
            let got = read_up_to(&self.file, &mut window, at).map_err(|error| AuditError::io("reading", &self.path, &error))?;
            if got == 0 {
                return Ok(rest);
            }
            if let Some(last) = window[..got].iter().rposition(|byte| *byte != 0) {
                rest.resize((at - self.offset) as usize, 0);
                rest.extend_from_slice(&window[..=last]);
            }
            at += got as u64;
        }
    }

    pub(crate) fn damage(&self, why: &str) -> AuditError {
        AuditError::corrupt(&self.path, self.offset, format!("{why} (entry {})", self.next))
    }
}

/// Where a frame might begin in `bytes`.
fn magics(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    bytes.windows(FRAME_MAGIC.len()).enumerate().filter(|(_, four)| **four == FRAME_MAGIC).map(|(at, _)| at)
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
