//! What the I/O layer's journal says, and taking back what was not synced.
//!
//! The model is POSIX's, no kinder: content is durable after the file's own sync, a name after its folder's. Between two
//! syncs each sector of 512 bytes may have any of the contents it has had, and the length any that it has had. After a
//! failed sync what it did not write is clean to the system: a later sync makes it durable only where its page was written
//! again.

use crate::faults::random::Random;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

/// Which of the writes that were not synced are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All.
    Everything,
    /// All after a random moment.
    Tail,
    /// Each sector by itself a random number of the last ones; the names after a random moment.
    Sectors,
}

/// What was taken back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Pieces of writes, of a sector at most.
    pub pieces: usize,
    /// Files whose length was changed back.
    pub lengths: usize,
    /// Names.
    pub names: usize,
}

/// A part of one write in one sector, and what it replaced.
#[derive(Debug, Clone)]
struct Piece {
    at: usize,
    offset: u64,
    old: Vec<u8>,
}

/// Everything about one file since its last sync, in the order in which it happened.
#[derive(Debug, Default)]
struct Unsynced {
    pieces: Vec<Piece>,
    /// The length before a change, and when.
    lengths: Vec<(usize, u64)>,
    /// Pieces that a sync should have written and did not.
    given_up: Vec<Piece>,
}

#[derive(Debug)]
enum Name {
    Made(PathBuf),
    Moved { inode: u64, replaced: u64, from: PathBuf, to: PathBuf },
    Removed { inode: u64, path: PathBuf },
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<u64, Unsynced>,
    names: Vec<(usize, Name)>,
    records: usize,
}

/// Takes back what `loss` says, in the folder `watched`; `home` has the journal and the graves.
pub(super) fn take_back(home: &Path, watched: &Path, loss: Loss, random: &mut Random) -> Result<Lost> {
    let bytes = std::fs::read(home.join("journal"))?;
    let state = State::read(&bytes)?;
    let graves = home.join("graves");
    let mut paths = HashMap::new();
    find_files(&graves, &mut paths)?;
    find_files(watched, &mut paths)?;
    let cut = if loss == Loss::Everything { 0 } else { random.below(state.records as u64 + 1) as usize };
    let mut lost = Lost::default();
    let mut inodes: Vec<_> = state.files.keys().copied().collect();
    inodes.sort_unstable();
    for inode in inodes {
        // A file without a name was never more than a temporary one.
        let Some(path) = paths.get(&inode) else { continue };
        state.files[&inode].take_back(path, loss, cut, random, &mut lost)?;
    }
    for (at, name) in state.names.iter().rev() {
        if *at >= cut {
            lost.names += usize::from(name.take_back(&graves)?);
        }
    }
    drop_shared_memory(watched)?;
    Ok(lost)
}

/// SQLite's index of its log is memory that happens to have a file; a power cut takes it.
fn drop_shared_memory(folder: &Path) -> Result<()> {
    for item in std::fs::read_dir(folder)? {
        let path = item?.path();
        if path.to_string_lossy().ends_with("-shm") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn find_files(folder: &Path, found: &mut HashMap<u64, PathBuf>) -> Result<()> {
    for item in std::fs::read_dir(folder)? {
        let item = item?;
        let meta = item.metadata()?;
        if meta.is_dir() {
            find_files(&item.path(), found)?;
        } else if meta.is_file() {
            found.insert(meta.ino(), item.path());
        }
    }
    Ok(())
}

impl State {
    fn read(bytes: &[u8]) -> Result<Self> {
        let mut state = Self::default();
        let mut rest = Fields(bytes);
        // The last record may be torn: then what it announces did not happen.
        while !rest.0.is_empty() {
            if state.take(&mut rest)?.is_none() {
                break;
            }
            state.records += 1;
        }
        Ok(state)
    }

    fn take(&mut self, fields: &mut Fields<'_>) -> Result<Option<()>> {
        let at = self.records;
        let Some(tag) = fields.bytes(1) else { return Ok(None) };
        let tag = tag[0];
        Ok(match tag {
            b'W' => fields.change().map(|change| self.change(at, change)),
            b'S' => fields.number().map(|inode| self.synced(inode)),
            b'O' => fields.range().map(|(inode, from, to)| self.files.entry(inode).or_default().written_through(from, to)),
            b'F' => fields.number().map(|inode| self.files.entry(inode).or_default().give_up()),
            b'C' => fields.path().map(|path| self.names.push((at, Name::Made(path)))),
            b'R' => fields.moved().map(|name| self.names.push((at, name))),
            b'U' => fields.removed().map(|name| self.names.push((at, name))),
            b'A' => {
                let synced: Vec<u64> = self.files.keys().copied().collect();
                synced.into_iter().for_each(|inode| self.synced(inode));
                Some(())
            }
            b'D' => fields.path().map(|folder| self.names.retain(|(_, name)| name.path().parent() != Some(&folder))),
            other => bail!("no such record in the journal: {other}"),
        })
    }

    fn change(&mut self, at: usize, Change { inode, offset, length, old_length, old }: Change) {
        let file = self.files.entry(inode).or_default();
        file.lengths.push((at, old_length));
        // A truncation reaches to the old end, whatever it says.
        let end = if length > 1 << 30 { offset + old.len() as u64 } else { offset + length };
        file.rewrite(offset, end);
        let mut from = offset;
        while from < end {
            let to = end.min((from / SECTOR + 1) * SECTOR);
            let mut piece = vec![0; (to - from) as usize];
            let known = &old[old.len().min((from - offset) as usize)..old.len().min((to - offset) as usize)];
            piece[..known.len()].copy_from_slice(known);
            file.pieces.push(Piece { at, offset: from, old: piece });
            from = to;
        }
    }

    fn synced(&mut self, inode: u64) {
        let given_up = self.files.remove(&inode).map(|file| file.given_up).unwrap_or_default();
        if !given_up.is_empty() {
            self.files.insert(inode, Unsynced { given_up, ..Unsynced::default() });
        }
    }
}

impl Unsynced {
    /// A synchronous write makes its own range durable, and the length that it needs, but nothing else.
    fn written_through(&mut self, from: u64, to: u64) {
        let outside = |p: &Piece| p.offset < from || p.offset + p.old.len() as u64 > to;
        self.pieces.retain(outside);
        self.given_up.retain(outside);
        self.lengths.iter_mut().for_each(|(_, length)| *length = to.max(*length));
    }

    fn give_up(&mut self) {
        self.given_up.append(&mut self.pieces);
    }

    /// Pages that are written again are dirty again, with all that is in them.
    fn rewrite(&mut self, from: u64, to: u64) {
        let (first, last) = (from / PAGE, to.max(from + 1).div_ceil(PAGE));
        let (again, still): (Vec<_>, Vec<_>) = self.given_up.drain(..).partition(|p| (first..last).contains(&(p.offset / PAGE)));
        self.given_up = still;
        self.pieces.splice(0..0, again);
    }

    fn take_back(&self, path: &Path, loss: Loss, cut: usize, random: &mut Random, lost: &mut Lost) -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(path).with_context(|| path.display().to_string())?;
        let now = file.metadata()?.len();
        let length = self.length_after(now, loss, cut, random);
        if length != now {
            lost.lengths += 1;
        }
        // A longer file first, so that what was cut off can be put back.
        file.set_len(now.max(length))?;
        let mut sectors: BTreeMap<u64, Vec<&Piece>> = BTreeMap::new();
        for piece in self.given_up.iter().chain(&self.pieces) {
            sectors.entry(piece.offset / SECTOR).or_default().push(piece);
        }
        for pieces in sectors.values() {
            let kept = match loss {
                Loss::Everything => 0,
                Loss::Tail => pieces.iter().take_while(|p| p.at < cut).count(),
                Loss::Sectors => random.below(pieces.len() as u64 + 1) as usize,
            };
            for piece in pieces[kept..].iter().rev() {
                put_back(&file, piece, now.max(length))?;
                lost.pieces += 1;
            }
        }
        Ok(file.set_len(length)?)
    }

    fn length_after(&self, now: u64, loss: Loss, cut: usize, random: &mut Random) -> u64 {
        let kept = match loss {
            Loss::Everything => 0,
            Loss::Tail => self.lengths.iter().take_while(|(at, _)| *at < cut).count(),
            Loss::Sectors => random.below(self.lengths.len() as u64 + 1) as usize,
        };
        self.lengths.get(kept).map_or(now, |(_, length)| *length)
    }
}

fn put_back(file: &File, piece: &Piece, end: u64) -> Result<()> {
    let length = end.saturating_sub(piece.offset).min(piece.old.len() as u64) as usize;
    Ok(file.write_all_at(&piece.old[..length], piece.offset)?)
}

impl Name {
    /// The name that is durable when its folder is.
    fn path(&self) -> &Path {
        match self {
            Self::Made(path) | Self::Moved { to: path, .. } | Self::Removed { path, .. } => path,
        }
    }

    /// Whether there was something to take back.
    fn take_back(&self, graves: &Path) -> Result<bool> {
        let inode_at = |path: &Path| std::fs::symlink_metadata(path).ok().map(|m| m.ino());
        let raise =
            |inode: u64, path: &Path| std::fs::hard_link(graves.join(inode.to_string()), path).with_context(|| path.display().to_string());
        match self {
            Self::Made(path) => Ok(std::fs::remove_file(path).is_ok()),
            Self::Removed { inode, path } if inode_at(path).is_none() => raise(*inode, path).map(|()| true),
            Self::Removed { .. } => Ok(false),
            Self::Moved { inode, replaced, from, to } if inode_at(to) == Some(*inode) => {
                std::fs::rename(to, from)?;
                if *replaced != 0 {
                    raise(*replaced, to)?;
                }
                Ok(true)
            }
            Self::Moved { .. } => Ok(false),
        }
    }
}

struct Change {
    inode: u64,
    offset: u64,
    length: u64,
    old_length: u64,
    old: Vec<u8>,
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes(&mut self, n: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn sized(&mut self) -> Option<Vec<u8>> {
        let n = u32::from_le_bytes(self.bytes(4)?.try_into().ok()?);
        self.bytes(n as usize).map(<[u8]>::to_vec)
    }

    fn path(&mut self) -> Option<PathBuf> {
        Some(PathBuf::from(String::from_utf8(self.sized()?).ok()?))
    }

    fn change(&mut self) -> Option<Change> {
        let (inode, offset, length, old_length) = (self.number()?, self.number()?, self.number()?, self.number()?);
        Some(Change { inode, offset, length, old_length, old: self.sized()? })
    }

    fn range(&mut self) -> Option<(u64, u64, u64)> {
        let (inode, from, length) = (self.number()?, self.number()?, self.number()?);
        Some((inode, from, from + length))
    }

    fn moved(&mut self) -> Option<Name> {
        let (inode, replaced) = (self.number()?, self.number()?);
        Some(Name::Moved { inode, replaced, from: self.path()?, to: self.path()? })
    }

    fn removed(&mut self) -> Option<Name> {
        Some(Name::Removed { inode: self.number()?, path: self.path()? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::faults::layer::{Class, Failure, FaultLayer};
    use std::process::{Command, Stdio};

    /// Runs a Python-free little program on the layer: `dd`, which writes and syncs as it is told.
    struct Bench {
        layer: FaultLayer,
        folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let bench = Self { layer: FaultLayer::new().unwrap(), folder: tempfile::tempdir().unwrap() };
            bench.layer.watch(bench.folder.path()).unwrap();
            bench
        }

        fn dd(&self, arguments: &str) -> bool {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("head -c 8192 /dev/zero | tr '\\0' x | exec dd iflag=fullblock {arguments}")]);
            command.current_dir(self.folder.path()).envs(self.layer.environment()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().unwrap().success()
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn crash(&self) -> Lost {
            self.layer.crash(Loss::Everything, &mut Random::new(1)).unwrap()
        }
    }

    #[test]
    fn a_write_without_a_sync_is_lost_and_one_with_it_stays() {
        let bench = Bench::new();
        std::fs::write(bench.path("f"), vec![b'o'; 8192]).unwrap();
        assert!(bench.dd("of=f bs=512 count=4 seek=2 conv=notrunc"));
        assert_eq!(bench.crash().pieces, 4);
        assert_eq!(std::fs::read(bench.path("f")).unwrap(), vec![b'o'; 8192]);
        assert!(bench.dd("of=f bs=512 count=4 seek=2 conv=notrunc,fsync"));
        assert_eq!(bench.crash(), Lost::default());
        assert_eq!(std::fs::read(bench.path("f")).unwrap()[1024..3072], vec![b'x'; 2048]);
    }

    #[test]
    fn a_new_name_is_lost_without_its_folders_sync() {
        let bench = Bench::new();
        assert!(bench.dd("of=new bs=512 count=1 conv=fsync"));
        assert!(bench.path("new").exists());
        assert_eq!(bench.crash().names, 1);
        assert!(!bench.path("new").exists());
    }

    #[test]
    fn truncation_and_growth_are_taken_back() {
        let bench = Bench::new();
        std::fs::write(bench.path("f"), vec![b'o'; 3000]).unwrap();
        assert!(bench.dd("of=f bs=512 count=16"));
        assert_eq!(std::fs::metadata(bench.path("f")).unwrap().len(), 8192);
        bench.crash();
        assert_eq!(std::fs::read(bench.path("f")).unwrap(), vec![b'o'; 3000]);
    }

    #[test]
    fn what_a_failed_sync_did_not_write_stays_unwritten() {
        let bench = Bench::new();
        std::fs::write(bench.path("f"), vec![b'o'; 8192]).unwrap();
        bench.layer.fail(Failure { class: Class::Syncs, errno: 5, after: 0, times: 1, only: "/f" }).unwrap();
        assert!(!bench.dd("of=f bs=512 count=1 conv=notrunc,fsync"));
        assert_eq!(bench.layer.failed().unwrap(), 1);
        // Another page is written and synced: that does not help the first.
        assert!(bench.dd("of=f bs=512 count=1 seek=8 conv=notrunc,fsync"));
        bench.crash();
        let after = std::fs::read(bench.path("f")).unwrap();
        assert_eq!((after[0], after[4096]), (b'o', b'x'));
    }

    #[test]
    fn a_synchronous_write_stays_and_others_of_the_file_do_not() {
        let bench = Bench::new();
        std::fs::write(bench.path("f"), vec![b'o'; 8192]).unwrap();
        assert!(bench.dd("of=f bs=512 count=1 seek=15 conv=notrunc"));
        assert!(bench.dd("of=f bs=512 count=2 seek=20 conv=notrunc oflag=dsync"));
        bench.crash();
        let after = std::fs::read(bench.path("f")).unwrap();
        assert_eq!(after[..8192], vec![b'o'; 8192]);
        assert_eq!(after[8192..], [vec![0; 2048], vec![b'x'; 1024]].concat());
    }

    #[test]
    fn each_sector_has_some_content_that_it_had() {
        let bench = Bench::new();
        std::fs::write(bench.path("f"), vec![b'o'; 8192]).unwrap();
        assert!(bench.dd("of=f bs=512 count=16 conv=notrunc"));
        bench.layer.crash(Loss::Sectors, &mut Random::new(3)).unwrap();
        let after = std::fs::read(bench.path("f")).unwrap();
        let whole = after.chunks(512).all(|s| s.iter().all(|b| *b == s[0]));
        assert!(whole && after.contains(&b'o') && after.contains(&b'x'));
    }
}
