//! Offline verification: recomputes the whole tree from the entries and checks every signed checkpoint against it.
//! Needs the folder and the public key, nothing else, and writes nothing.

use crate::disk::read_optional;
use crate::error::AuditError;
use crate::frame::{SEGMENT, SEGMENT_HEIGHT};
use crate::layout::{Archive, CHECKPOINT, Cursor, HISTORY, PRUNED, Tail, hashes_name};
use crate::merkle::{Frontier, Hash, sha256};
use crate::note::{Checkpoint, SignedCheckpoint, VerifierKey, split_history};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Number of entries of the log, pruned ones included.
    pub size: u64,
    /// Entries read and hashed.
    pub entries: u64,
    /// Entries before this index were pruned; a signed stub vouches for their tree.
    pub pruned_before: u64,
    /// Checkpoints whose signature and root were right.
    pub checkpoints: u64,
    /// Checkpoints inside the pruned range, whose signature was right and whose root can no longer be computed.
    pub unverifiable_checkpoints: u64,
    /// Entries behind the newest checkpoint: present, but not yet signed for.
    pub unsigned_tail: u64,
    /// Bytes of a write that was never acknowledged, behind the last entry.
    pub torn_tail_bytes: u64,
    /// Bytes of an unfinished checkpoint at the end of the history, as a crash leaves it; the next start cuts it off.
    pub torn_history_bytes: u64,
    /// The newest tree head that was verified.
    pub latest: Option<Checkpoint>,
    /// The first thing that is wrong; `None`: the log is whole.
    pub problem: Option<Problem>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.problem.is_none()
    }
}

/// Something that is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file where it shows.
    pub path: PathBuf,
    /// The first entry concerned, when it can be told.
    pub index: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(index) = self.index {
            write!(f, ", entry {index}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl Problem {
    fn new(path: &Path, index: Option<u64>, what: impl Into<String>) -> Self {
        Self { path: path.into(), index, what: what.into() }
    }

    fn from_error(error: &AuditError, dir: &Path) -> Self {
        match error {
            AuditError::Corrupt { path, offset, why } => Self::new(path, None, format!("at byte {offset}: {why}")),
            other => Self::new(dir, None, other.to_string()),
        }
    }
}

/// Verifies the log in `dirs` (main folder, and standby folder if there is one) with its public key. May run beside a
/// server that appends.
///
/// # Errors
/// Only `Io`: that something could not be read. What is wrong with the log is in the report.
pub fn verify(dirs: &[impl AsRef<Path>], key: &VerifierKey) -> Result<Report, AuditError> {
    let dirs: Vec<PathBuf> = dirs.iter().map(|dir| dir.as_ref().to_owned()).collect();
    let mut check = Check { key, report: Report::default(), heads: BTreeMap::new(), tree: Frontier::default() };
    match check.run(&dirs) {
        Ok(()) => {}
        Err(Stop::Problem(problem)) => check.report.problem = Some(problem),
        Err(Stop::Error(error @ (AuditError::Io { .. } | AuditError::Full { .. }))) => return Err(error),
        Err(Stop::Error(error)) => {
            let dir = dirs.first().map_or(Path::new("."), PathBuf::as_path);
            check.report.problem = Some(Problem::from_error(&error, dir));
        }
    }
    Ok(check.report)
}

/// Why a verification ended early.
enum Stop {
    Problem(Problem),
    Error(AuditError),
}

impl From<AuditError> for Stop {
    fn from(error: AuditError) -> Self {
        Self::Error(error)
    }
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

struct Check<'a> {
    key: &'a VerifierKey,
    report: Report,
    /// The signed heads that wait for their size to be reached, and where each was found.
    heads: BTreeMap<u64, Vec<(Hash, PathBuf)>>,
    tree: Frontier,
}

impl Check<'_> {
    fn run(&mut self, dirs: &[PathBuf]) -> Result<(), Stop> {
        // Checkpoints first: a running server may add entries meanwhile, but never a checkpoint for what is not there.
        let stub = self.read_checkpoints(dirs)?;
        let archive = Archive::scan(dirs)?;
        self.check_pruned(&archive, stub.as_ref())?;
        self.walk(&archive)?;
        self.report.size = self.tree.size();
        if let Some((size, held)) = self.heads.first_key_value() {
            let what = format!("{} entries are there, a checkpoint was signed for {size}", self.tree.size());
            let path = held.first().map_or_else(|| dirs[0].clone(), |(_, path)| path.clone());
            return Err(Problem::new(&path, Some(self.tree.size()), what).into());
        }
        self.report.unsigned_tail = self.report.size - self.report.latest.map_or(0, |head| head.size);
        Ok(())
    }

    fn read_checkpoints(&mut self, dirs: &[PathBuf]) -> Result<Option<SignedCheckpoint>, Stop> {
        let mut stub: Option<SignedCheckpoint> = None;
        for dir in dirs {
            let path = dir.join(CHECKPOINT);
            if let Some(note) = read_text(&path)? {
                self.add_head(&path, &note)?;
            }
            let path = dir.join(PRUNED);
            if let Some(note) = read_text(&path)? {
                let signed = self.add_head(&path, &note)?;
                let is_stub = signed.extensions().iter().any(|line| line.starts_with("pruned "));
                if !is_stub || !signed.head().size.is_multiple_of(SEGMENT) {
                    return Err(Problem::new(&path, None, "the note does not say that entries were pruned").into());
                }
                let is_newer = stub.as_ref().is_none_or(|stub| stub.head().size < signed.head().size);
                stub = if is_newer { Some(signed) } else { stub };
            }
            let path = dir.join(HISTORY);
            let history = read_text(&path)?.unwrap_or_default();
            let (notes, rest) = split_history(&history);
            notes.iter().try_for_each(|note| self.add_head(&path, note).map(drop))?;
            if !rest.is_empty() && !unfinished(rest, self.key) {
                return Err(Problem::new(&path, None, "the last lines are no checkpoint of this log").into());
            }
            self.report.torn_history_bytes += rest.len() as u64;
        }
        Ok(stub)
    }

    fn add_head(&mut self, path: &Path, note: &str) -> Result<SignedCheckpoint, Stop> {
        let signed = self.key.open(note).map_err(|error| Problem::new(path, None, error.to_string()))?;
        let Checkpoint { size, root } = signed.head();
        self.heads.entry(size).or_default().push((root, path.into()));
        Ok(signed)
    }

    /// Takes the pruned segments' roots and checks that the signed stub vouches for them.
    fn check_pruned(&mut self, archive: &Archive, stub: Option<&SignedCheckpoint>) -> Result<(), Stop> {
        let first = stub.map_or(0, |stub| stub.head().size);
        self.report.pruned_before = first;
        self.meet_heads(0)?;
        for number in 0..first / SEGMENT {
            let Some(root) = archive.roots.get(number as usize) else {
                let what = format!("the root of pruned segment {number} is missing");
                return Err(Problem::new(&archive.dirs[0].join(crate::layout::ROOTS), Some(number * SEGMENT), what).into());
            };
            self.tree.push_subtree(SEGMENT_HEIGHT, *root);
            self.meet_heads((number + 1) * SEGMENT)?;
        }
        Ok(())
    }

    fn walk(&mut self, archive: &Archive) -> Result<(), Stop> {
        let origin = sha256(self.key.name().as_bytes());
        let last = archive.parts.len().saturating_sub(1);
        let mut segment = Vec::new();
        for (at, part) in archive.parts.iter().enumerate() {
            if part.limit <= self.report.pruned_before {
                continue;
            }
            if part.header.origin != origin {
                return Err(Problem::new(&part.path, None, "its header names another log").into());
            }
            let mut cursor = Cursor::open(part)?;
            while let Some(frame) = cursor.frame()? {
                for leaf in frame.leaves {
                    self.tree.push(leaf);
                    self.report.entries += 1;
                    segment.push(leaf);
                    self.meet_heads(self.tree.size())?;
                }
                if self.tree.size().is_multiple_of(SEGMENT) {
                    self.check_derived(archive, self.tree.size() / SEGMENT - 1, &segment)?;
                    segment.clear();
                }
            }
            if let Tail::Torn { bytes } = cursor.check_end(at == last)? {
                self.report.torn_tail_bytes = bytes;
            }
        }
        Ok(())
    }

    /// Checks the heads that were signed for the first `size` entries, which are in the tree now.
    fn meet_heads(&mut self, size: u64) -> Result<(), Stop> {
        while let Some(entry) = self.heads.first_entry()
            && *entry.key() <= size
        {
            let (signed_for, held) = entry.remove_entry();
            if signed_for < size {
                self.report.unverifiable_checkpoints += held.len() as u64;
                continue;
            }
            let root = self.tree.root();
            for (signed, path) in held {
                if signed != root {
                    let what = format!("the first {size} entries are not those of the signed checkpoint");
                    return Err(Problem::new(&path, None, what).into());
                }
                self.report.checkpoints += 1;
            }
            self.report.latest = Some(Checkpoint { size, root });
        }
        Ok(())
    }

    /// Checks the derived files of a finished segment, where they are there.
    fn check_derived(&self, archive: &Archive, number: u64, leaves: &[Hash]) -> Result<(), Stop> {
        let index = Some(number * SEGMENT);
        let root = crate::merkle::perfect_root(leaves);
        if archive.roots.get(number as usize).is_some_and(|held| *held != root) {
            let path = archive.dirs[0].join(crate::layout::ROOTS);
            return Err(Problem::new(&path, index, "the segment's root is not that of its entries").into());
        }
        for path in archive.dirs.iter().map(|dir| dir.join(hashes_name(number))) {
            let Some(bytes) = read_optional(&path)? else { continue };
            // Shorter: its writing was cut short; it is derived and may be.
            if bytes.len() == leaves.len() * 32 && bytes != leaves.as_flattened() {
                return Err(Problem::new(&path, index, "the hashes are not those of the entries").into());
            }
        }
        Ok(())
    }
}

/// Whether `rest` can be the beginning of a checkpoint of this log.
fn unfinished(rest: &str, key: &VerifierKey) -> bool {
    let origin = format!("{}\n", key.name());
    rest.starts_with(&origin) || origin.starts_with(rest)
}

fn read_text(path: &Path) -> Result<Option<String>, Stop> {
    let Some(bytes) = read_optional(path)? else { return Ok(None) };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        // A note's dash may be cut in the middle by a crash; only a history can end so.
        Err(error) if path.ends_with(HISTORY) && error.utf8_error().error_len().is_none() => {
            let valid = error.utf8_error().valid_up_to();
            let mut bytes = error.into_bytes();
            bytes.truncate(valid);
            Ok(String::from_utf8(bytes).ok())
        }
        Err(_) => Err(Problem::new(path, None, "not UTF-8").into()),
    }
}
