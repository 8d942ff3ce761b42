//! Opening a log for writing: finds out what was acknowledged, cuts off what was not, refuses what does not add up.

use crate::disk::{Disk, read_optional};
use crate::error::AuditError;
use crate::frame::SEGMENT;
use crate::layout::{Archive, CHECKPOINT, Cursor, HISTORY, PRUNED, PUBLIC_KEY, Part, ROOTS, Tail};
use crate::log::LogConfig;
use crate::merkle::{Hash, sha256};
use crate::note::{Checkpoint, LogKey, VerifierKey, split_history};
use crate::writer::{OpenPart, SegmentedTree};
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The most that a crash tears off a history: it is synced after each note.
const TORN_HISTORY: usize = 1024;

/// What the writer goes on with.
pub(crate) struct Recovered {
    pub(crate) tree: SegmentedTree,
    pub(crate) part: Option<OpenPart>,
    pub(crate) next_sequence: u64,
}

/// Creates the folders and takes the writer's lock, which lasts as long as the file is open.
pub(crate) fn lock_folder(config: &LogConfig) -> Result<Vec<File>, AuditError> {
    config.dirs().iter().map(|dir| lock_one(dir)).collect()
}

fn lock_one(dir: &Path) -> Result<File, AuditError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o750).create(dir);
    made.map_err(|error| AuditError::io("creating", dir, &error))?;
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|error| AuditError::io("opening", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AuditError::Locked { dir: dir.into() }),
        Err(TryLockError::Error(error)) => Err(AuditError::io("locking", &path, &error)),
    }
}

/// Reads the log as it was left and makes it ready to go on.
pub(crate) fn recover(config: &LogConfig, disk: &Disk, key: &LogKey, min_checkpoint: Option<Checkpoint>) -> Result<Recovered, AuditError> {
    let dirs = config.dirs();
    own_folder(disk, &config.dir, key)?;
    clear_leftovers(disk, &dirs)?;
    let mut archive = Archive::scan(&dirs)?;
    check_owner(&archive, key)?;
    // Frames of a killed process may be in the page cache only; from here on they count as durable.
    let last = archive.parts.last().cloned();
    let file = last.as_ref().map(|part| open_and_sync(disk, part)).transpose()?;

    let known = latest_checkpoint(&dirs, key.verifier())?;
    // Roots behind the newest checkpoint are vouched for by nobody: made again from the entries.
    let vouched = known.map_or(0, |head| head.size).max(archive.first) / SEGMENT;
    archive.roots.truncate(vouched as usize);
    let mut tree = rebuild(&mut archive)?;
    if let Some(head) = known
        && check_against(&mut archive, &tree, head).is_err()
    {
        archive.roots.truncate((archive.first / SEGMENT) as usize);
        tree = rebuild(&mut archive)?;
        check_against(&mut archive, &tree, head)?;
    }
    check_memory(&mut archive, &tree, min_checkpoint)?;

    let part = match last.zip(file) {
        Some((part, file)) => resume(disk, &dirs, part, file)?,
        None => None,
    };
    keep_roots(disk, config, &mut archive, tree.size() / SEGMENT)?;
    // What a later part replaced, and what a pruning that was interrupted had left.
    let pruned = archive.parts.iter().filter(|part| part.limit <= archive.first).map(|part| &part.path);
    for useless in archive.void.iter().chain(pruned) {
        disk.remove(useless)?;
    }
    trim_histories(disk, &dirs, key.verifier())?;
    Ok(Recovered { tree, part, next_sequence: archive.last_sequence.map_or(0, |last| last + 1) })
}

/// Writes the public key into a new log's folder, or checks that it is the same.
fn own_folder(disk: &Disk, dir: &Path, key: &LogKey) -> Result<(), AuditError> {
    let path = dir.join(PUBLIC_KEY);
    let Some(bytes) = read_optional(&path)? else {
        return disk.replace(&path, format!("{}\n", key.verifier()).as_bytes());
    };
    let held = VerifierKey::parse(&String::from_utf8_lossy(&bytes))?;
    if held == *key.verifier() {
        return Ok(());
    }
    Err(AuditError::Foreign { path, why: format!("its key is `{held}`, not `{}`", key.verifier()) })
}

/// Removes files that were never part of the log.
fn clear_leftovers(disk: &Disk, dirs: &[PathBuf]) -> Result<(), AuditError> {
    for dir in dirs {
        let listing = std::fs::read_dir(dir).map_err(|error| AuditError::io("listing", dir, &error))?;
        for item in listing.flatten() {
            let name = item.file_name();
            let Some(name) = name.to_str() else { continue };
            if name == "spare" || name == "reserve" || name.ends_with(".new") {
                disk.remove(&item.path())?;
            }
        }
    }
    Ok(())
}

fn check_owner(archive: &Archive, key: &LogKey) -> Result<(), AuditError> {
    let origin = sha256(key.verifier().name().as_bytes());
    match archive.parts.iter().find(|part| part.header.origin != origin) {
        Some(part) => Err(AuditError::Foreign { path: part.path.clone(), why: "its header names another log".into() }),
        None => Ok(()),
    }
}

fn open_and_sync(disk: &Disk, part: &Part) -> Result<File, AuditError> {
    let file = OpenOptions::new().read(true).write(true).open(&part.path);
    let file = file.map_err(|error| AuditError::io("opening", &part.path, &error))?;
    disk.sync_all(&file, &part.path)?;
    Ok(file)
}

/// The newest signed head in the folders. The pruned stub counts.
fn latest_checkpoint(dirs: &[PathBuf], verifier: &VerifierKey) -> Result<Option<Checkpoint>, AuditError> {
    let mut latest: Option<Checkpoint> = None;
    let mut consider = |head: Checkpoint| {
        if latest.is_none_or(|latest| head.size > latest.size) {
            latest = Some(head);
        }
    };
    for dir in dirs {
        for name in [CHECKPOINT, PRUNED] {
            let path = dir.join(name);
            let Some(bytes) = read_optional(&path)? else { continue };
            let signed = verifier.open(&String::from_utf8_lossy(&bytes));
            consider(signed.map_err(|error| AuditError::corrupt(&path, 0, error.to_string()))?.head());
        }
        let history = read_optional(&dir.join(HISTORY))?.unwrap_or_default();
        let history = String::from_utf8_lossy(&history);
        let (notes, _) = split_history(&history);
        notes.last().and_then(|note| verifier.open(note).ok()).into_iter().for_each(|signed| consider(signed.head()));
    }
    Ok(latest)
}

/// The tree from the finished segments' roots and the current segment's entries.
fn rebuild(archive: &mut Archive) -> Result<SegmentedTree, AuditError> {
    let mut tree = SegmentedTree::default();
    let current = match archive.parts.last() {
        Some(part) => part.header.first / SEGMENT,
        None => archive.first / SEGMENT,
    };
    for number in 0..current {
        let root = archive.segment_root(number)?;
        tree.push_segment(root);
    }
    if !archive.parts.is_empty() {
        let leaves = archive.leaves_from_entries(current)?;
        leaves.into_iter().for_each(|leaf| tree.push(leaf));
    }
    Ok(tree)
}

/// The log must contain what it signed.
fn check_against(archive: &mut Archive, tree: &SegmentedTree, head: Checkpoint) -> Result<(), AuditError> {
    let path = archive.parts.last().map_or_else(|| archive.dirs[0].clone(), |part| part.path.clone());
    if tree.size() < head.size {
        let why = format!("{} entries are there, {} were signed for", tree.size(), head.size);
        return Err(AuditError::corrupt(&path, 0, why));
    }
    if root_at(archive, tree, head.size)?.is_some_and(|root| root != head.root) {
        return Err(AuditError::corrupt(&path, 0, format!("the first {} entries are not those signed for", head.size)));
    }
    Ok(())
}

/// The log must contain what the caller remembers.
fn check_memory(archive: &mut Archive, tree: &SegmentedTree, min: Option<Checkpoint>) -> Result<(), AuditError> {
    let Some(min) = min else { return Ok(()) };
    let refuse = |found: String| Err(AuditError::RolledBack { expected: min.size, found });
    if tree.size() < min.size {
        return refuse(format!("the log has only {}", tree.size()));
    }
    match root_at(archive, tree, min.size)? {
        Some(root) if root != min.root => refuse("whose root differs".into()),
        _ => Ok(()),
    }
}

/// The root at `size`; `None` when pruning has made it unknowable (the signed stub then vouches for more).
fn root_at(archive: &mut Archive, tree: &SegmentedTree, size: u64) -> Result<Option<Hash>, AuditError> {
    if let Some(root) = tree.root_at(size) {
        return Ok(Some(root));
    }
    match archive.root(size) {
        Err(AuditError::Pruned { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// Goes on in the last part, unless its segment is full. A torn tail is cut off, durably, before anything is written.
fn resume(disk: &Disk, dirs: &[PathBuf], part: Part, file: File) -> Result<Option<OpenPart>, AuditError> {
    let mut cursor = Cursor::open(&part)?;
    while cursor.frame()?.is_some() {}
    if cursor.at_limit() {
        return Ok(None);
    }
    let tail = cursor.check_end(true)?;
    if let Tail::Torn { bytes } = tail {
        tracing::warn!(part = %part.path.display(), bytes, "cut an unacknowledged tail off the audit log");
        disk.set_len(&file, &part.path, cursor.offset)?;
        disk.sync_all(&file, &part.path)?;
    }
    let length = file.metadata().map_err(|error| AuditError::io("reading", &part.path, &error))?.len();
    let dir = dirs.iter().position(|dir| part.path.parent() == Some(dir)).unwrap_or(0);
    let (offset, ready) = (cursor.offset, length.max(cursor.offset));
    Ok(Some(OpenPart {
        file,
        path: part.path,
        header: part.header,
        dir,
        offset,
        ready,
        extending: None,
        grow: 256 << 10,
        direct: None,
        direct_tried: false,
    }))
}

/// Brings the `roots` file up to date: later starts then need not read those segments.
fn keep_roots(disk: &Disk, config: &LogConfig, archive: &mut Archive, finished: u64) -> Result<(), AuditError> {
    let roots = (0..finished).map(|number| archive.segment_root(number)).collect::<Result<Vec<_>, _>>()?;
    let path = config.dir.join(ROOTS);
    let held = read_optional(&path)?.unwrap_or_default();
    if held == roots.as_flattened() {
        return Ok(());
    }
    disk.replace(&path, roots.as_flattened())
}

/// Cuts a half-written note off the end of each history, so that the next one begins on its own line.
fn trim_histories(disk: &Disk, dirs: &[PathBuf], verifier: &VerifierKey) -> Result<(), AuditError> {
    for path in dirs.iter().map(|dir| dir.join(HISTORY)) {
        let Some(bytes) = read_optional(&path)? else { continue };
        let kept = whole_history(&bytes, verifier);
        if kept == bytes.len() {
            continue;
        }
        tracing::warn!(history = %path.display(), bytes = bytes.len() - kept, "cut a torn checkpoint off the history");
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.map_err(|error| AuditError::io("opening", &path, &error))?;
        disk.set_len(&file, &path, kept as u64)?;
        disk.sync_data(&file, &path)?;
    }
    Ok(())
}

/// Where a history's whole notes end. What a crash tore may lack its beginning or its middle and look like a note that does
/// not verify, so the last one or two may be cut off; more than a crash can tear stays, as evidence.
fn whole_history(bytes: &[u8], verifier: &VerifierKey) -> usize {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    };
    let (notes, rest) = split_history(text);
    let complete = text.len() - rest.len();
    let mut verified = 0;
    let mut at = 0;
    for note in notes {
        at += note.len();
        at += usize::from(text[at..].starts_with('\n'));
        if verifier.open(note).is_ok() {
            verified = at;
        }
    }
    if bytes.len() - verified <= TORN_HISTORY { verified } else { complete }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_torn_history_ends_with_its_last_whole_note_and_a_long_forgery_stays() {
        let key = LogKey::from_seed("claviger.example/audit/1", &[7; 32]).unwrap();
        let note = |size| format!("{}\n", key.sign(Checkpoint { size, root: [3; 32] }, &[]).note());
        let (first, second) = (note(1), note(2));
        let whole = |bytes: &[u8]| whole_history(bytes, key.verifier());
        assert_eq!(whole(b""), 0);
        assert_eq!(whole(first.as_bytes()), first.len());
        for cut in 1..second.len() {
            // The beginning is there, or the end behind zeros, or the text's middle is zeros: as sectors are lost.
            let mut torn = [&first, &second[..0]].concat().into_bytes();
            torn.extend_from_slice(&second.as_bytes()[..cut]);
            let expected = if cut + 1 == second.len() { torn.len() } else { first.len() };
            assert_eq!(whole(&torn), expected, "cut after {cut}");
            let mut zeros = [first.as_bytes(), second.as_bytes()].concat();
            zeros[first.len()..first.len() + cut].fill(0);
            assert_eq!(whole(&zeros), first.len(), "{cut} zeros");
        }
        let both = [first.as_bytes(), second.as_bytes()].concat();
        assert_eq!(whole(&both), both.len());
        let forged = second.replace("claviger", "cleviger").repeat(10);
        let kept = [first.as_bytes(), forged.as_bytes()].concat();
        assert_eq!(whole(&kept), kept.len());
    }
}
