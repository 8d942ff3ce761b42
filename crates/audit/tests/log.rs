//! The log through its boundary: real folders, real files, real damage.
#![allow(clippy::unwrap_used, missing_docs)]

use claviger_audit::{AuditError, AuditLog, Checkpoint, Durability, Faults, LogConfig, LogKey, Reader, SEGMENT, State, merkle, verify};
use parking_lot::Mutex;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

const NAME: &str = "claviger.test/audit/1";

fn key() -> LogKey {
    LogKey::from_seed(NAME, &[42; 32]).unwrap()
}

fn config(dir: &Path) -> LogConfig {
    LogConfig { reserve: 1 << 20, ..LogConfig::new(dir) }
}

/// A log that signs nothing between open and close.
fn quiet(dir: &Path) -> LogConfig {
    LogConfig { checkpoint_interval: Duration::from_secs(3600), ..config(dir) }
}

fn open(config: LogConfig) -> AuditLog {
    AuditLog::open(config, key(), None).unwrap()
}

fn entry(n: u64) -> Vec<u8> {
    format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat((n % 40) as usize)).into_bytes()
}

/// Appends entries `from..to`, all in flight at once.
fn append_many(log: &AuditLog, from: u64, to: u64) {
    let appends: Vec<_> = (from..to).map(|n| log.append(entry(n))).collect();
    for (n, append) in (from..to).zip(appends) {
        assert_eq!(append.wait(), Ok(n));
    }
}

fn assert_holds(dirs: &[PathBuf], count: u64) {
    let reader = Reader::open(dirs).unwrap();
    let mut seen = 0;
    for found in reader.entries(0) {
        assert_eq!(found.unwrap(), (seen, entry(seen)));
        seen += 1;
    }
    assert_eq!(seen, count);
}

fn assert_whole(dirs: &[PathBuf], count: u64) {
    let report = verify(dirs, key().verifier()).unwrap();
    assert_eq!((report.problem.clone(), report.size), (None, count), "{report:?}");
}

/// Copies a folder's files, also while a log runs in it, whose temporary files may vanish meanwhile.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
        match fs::copy(file.path(), to.join(file.file_name())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => drop(other.unwrap()),
        }
    }
}

fn one(dir: &Path) -> Vec<PathBuf> {
    vec![dir.to_owned()]
}

/// Fails writes and syncs below a folder while armed, after letting some pass.
#[derive(Default)]
struct Trip {
    below: PathBuf,
    /// What the names of files begin with that are concerned.
    names: &'static str,
    kind: Mutex<Option<io::ErrorKind>>,
    writes_to_pass: AtomicI64,
    syncs_to_pass: AtomicI64,
    /// How many failures there are still to be; then all works again.
    failures: AtomicI64,
    hits: AtomicU64,
}

impl Trip {
    fn new(below: &Path) -> Arc<Self> {
        Arc::new(Self { below: below.into(), failures: i64::MAX.into(), ..Self::default() })
    }

    /// Only for the files of entries: the housekeeper's own writes come when they come.
    fn of_entries(below: &Path) -> Arc<Self> {
        Arc::new(Self { below: below.into(), names: "entries-", failures: i64::MAX.into(), ..Self::default() })
    }

    fn arm(&self, kind: io::ErrorKind) {
        *self.kind.lock() = Some(kind);
    }

    fn disarm(&self) {
        *self.kind.lock() = None;
    }

    fn trip(&self, path: &Path, to_pass: &AtomicI64) -> io::Result<()> {
        let Some(kind) = *self.kind.lock() else { return Ok(()) };
        let is_concerned = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(self.names.as_bytes()));
        if !path.starts_with(&self.below) || !is_concerned || to_pass.fetch_sub(1, SeqCst) > 0 || self.failures.fetch_sub(1, SeqCst) <= 0 {
            return Ok(());
        }
        self.hits.fetch_add(1, SeqCst);
        Err(kind.into())
    }
}

impl Faults for Trip {
    fn before_write(&self, path: &Path, _: u64, _: &[u8]) -> io::Result<()> {
        self.trip(path, &self.writes_to_pass)
    }

    fn before_sync(&self, path: &Path) -> io::Result<()> {
        self.trip(path, &self.syncs_to_pass)
    }
}

#[test]
fn concurrent_appends_are_all_there_in_order_and_provable() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(config(dir.path()));
    let mut indexes: Vec<(u64, Vec<u8>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let log = &log;
                scope.spawn(move || {
                    let mut last = None;
                    (0..100)
                        .map(|n| {
                            let entry = format!("{thread}:{n}").into_bytes();
                            let index = log.append_blocking(&entry).unwrap();
                            assert!(last < Some(index), "a thread's entries keep their order");
                            last = Some(index);
                            (index, entry)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    indexes.sort();
    let seen = log.metrics().snapshot();
    assert_eq!((seen.appends, log.size()), (800, 800));
    assert!(seen.fsyncs <= 800 && seen.groups <= 800 && seen.sync_p50 > Duration::ZERO);
    log.close();
    let head = log.latest_checkpoint();
    assert_eq!(head.size, 800);

    let mut reader = Reader::open(&log.dirs()).unwrap();
    let found: Vec<_> = reader.entries(0).map(Result::unwrap).collect();
    assert_eq!(found, indexes);
    let mut reversed: Vec<_> = reader.backwards(u64::MAX).unwrap().map(Result::unwrap).collect();
    reversed.reverse();
    assert_eq!(reversed, indexes);
    let part: Vec<_> = reader.backwards(500).unwrap().take(3).map(|found| found.unwrap().0).collect();
    assert_eq!(part, [499, 498, 497]);
    assert_eq!(reader.root(800).unwrap(), head.root);
    for (index, entry) in indexes.iter().step_by(37) {
        let path = reader.prove_inclusion(*index, 800).unwrap();
        assert!(merkle::verify_inclusion(&merkle::leaf_hash(entry), *index, 800, &path, &head.root));
        let path = reader.prove_consistency(*index, 800).unwrap();
        let old = reader.root(*index).unwrap();
        assert!(merkle::verify_consistency(*index, &old, 800, &head.root, &path));
    }
    assert_eq!(reader.checkpoint(log.verifier()).unwrap().unwrap().head(), head);
    assert_whole(&log.dirs(), 800);
}

#[test]
fn a_log_goes_on_after_a_clean_close_with_the_same_tree() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = merkle::Frontier::default();
    for round in 0..4u64 {
        let log = open(config(dir.path()));
        assert_eq!(log.latest_checkpoint(), Checkpoint { size: round * 50, root: expected.root() });
        append_many(&log, round * 50, round * 50 + 50);
        (round * 50..round * 50 + 50).for_each(|n| expected.push(merkle::leaf_hash(&entry(n))));
        let file = fs::metadata(dir.path().join("entries-00000000.log")).unwrap();
        assert!(file.len() > 64 * 1024, "zeros are kept ahead while it is open");
        log.close();
        assert_eq!(log.health().state, State::Closed);
        assert_eq!(log.append_blocking("late"), Err(AuditError::Closed));
    }
    assert_holds(&one(dir.path()), 200);
    assert_whole(&one(dir.path()), 200);
}

#[test]
fn what_is_not_allowed_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = config(dir.path());
    small.queue_bytes = 0;
    small.extra_sync_delay = Duration::from_millis(800);
    let log = open(small);
    assert_eq!(log.append_blocking(""), Err(AuditError::EntrySize { len: 0 }));
    assert_eq!(log.append_blocking(vec![b'x'; 65_537]), Err(AuditError::EntrySize { len: 65_537 }));
    let again = AuditLog::open(config(dir.path()), key(), None);
    assert!(matches!(again, Err(AuditError::Locked { .. })));
    // The first is being written, one more fits the smallest bound, the third does not.
    let first = log.append(vec![b'a'; 65_536]);
    std::thread::sleep(Duration::from_millis(400));
    let second = log.append(vec![b'b'; 65_536]);
    assert_eq!(log.append_blocking(vec![b'c'; 65_536]), Err(AuditError::Overloaded));
    assert_eq!((first.wait(), second.wait()), (Ok(0), Ok(1)));
    assert!(log.metrics().snapshot().sync_p50 >= Duration::from_millis(700), "the added delay counts");
    drop(log);
    let stranger = LogKey::from_seed(NAME, &[1; 32]).unwrap();
    assert!(matches!(AuditLog::open(config(dir.path()), stranger, None), Err(AuditError::Foreign { .. })));
}

#[test]
fn checkpoints_are_signed_while_entries_arrive_and_never_ahead_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(LogConfig { checkpoint_interval: Duration::from_millis(20), ..config(dir.path()) });
    append_many(&log, 0, 10);
    let deadline = Instant::now() + Duration::from_secs(20);
    while log.latest_checkpoint().size < 10 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(Reader::open(&log.dirs()).unwrap().root(10).unwrap(), log.latest_checkpoint().root);
    assert_whole(&log.dirs(), 10);
}

/// Groups of a few entries; returns the end of each frame and the entries up to there.
fn log_of_frames(dir: &Path, frames: u64) -> Vec<(u64, u64)> {
    let log = open(quiet(dir));
    let part = dir.join("entries-00000000.log");
    let mut ends = vec![(4096, 0)];
    for n in 0..frames {
        log.append_blocking(entry(n)).unwrap();
        let bytes = fs::read(&part).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
        ends.push((end, n + 1));
    }
    copy(dir, &dir.join("../killed"));
    ends
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off_and_all_before_it_survives() {
    let top = tempfile::tempdir().unwrap();
    let ends = log_of_frames(&top.path().join("log"), 12);
    let killed = top.path().join("killed");
    let whole = fs::read(killed.join("entries-00000000.log")).unwrap();
    let (low, high) = (ends[10].0 as usize, ends[12].0 as usize);
    for cut in low..=high {
        let survivors = ends.iter().rfind(|(end, _)| *end as usize <= cut).unwrap().1;
        for zeros_follow in [false, true] {
            let copied = top.path().join(format!("cut-{cut}-{zeros_follow}"));
            copy(&killed, &copied);
            let mut torn = whole[..cut].to_vec();
            torn.resize(if zeros_follow { whole.len() } else { cut }, 0);
            fs::write(copied.join("entries-00000000.log"), torn).unwrap();
            let log = open(quiet(&copied));
            assert_eq!(log.size(), survivors, "cut at {cut}");
            append_many(&log, survivors, survivors + 2);
            log.close();
            assert_holds(&one(&copied), survivors + 2);
            assert_whole(&one(&copied), survivors + 2);
            fs::remove_dir_all(copied).unwrap();
        }
    }
}

#[test]
fn damage_before_the_last_frame_is_corruption_not_a_torn_tail() {
    let top = tempfile::tempdir().unwrap();
    let ends = log_of_frames(&top.path().join("log"), 6);
    let killed = top.path().join("killed");
    for place in ends[2].0..ends[3].0 {
        for damage in [0x00, 0xff] {
            let path = killed.join("entries-00000000.log");
            let good = fs::read(&path).unwrap();
            let mut bad = good.clone();
            if bad[place as usize] == damage {
                continue;
            }
            bad[place as usize] = damage;
            fs::write(&path, &bad).unwrap();
            let opened = AuditLog::open(quiet(&killed), key(), None);
            assert!(matches!(opened, Err(AuditError::Corrupt { .. })), "byte {place}: {opened:?}");
            assert!(!verify(&one(&killed), key().verifier()).unwrap().is_whole());
            fs::write(&path, &good).unwrap();
        }
    }
    // A whole frame wiped out, header and all.
    let path = killed.join("entries-00000000.log");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0; (ends[3].0 - ends[2].0) as usize], ends[2].0).unwrap();
    let opened = AuditLog::open(quiet(&killed), key(), None);
    assert!(matches!(opened, Err(AuditError::Corrupt { .. })), "{opened:?}");
}

#[test]
fn signed_entries_that_are_missing_are_corruption() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(config(dir.path()));
    append_many(&log, 0, 5);
    drop(log);
    let path = dir.path().join("entries-00000000.log");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let opened = AuditLog::open(config(dir.path()), key(), None);
    assert!(matches!(opened, Err(AuditError::Corrupt { .. })), "{opened:?}");
    fs::remove_file(&path).unwrap();
    let opened = AuditLog::open(config(dir.path()), key(), None);
    assert!(matches!(opened, Err(AuditError::Corrupt { .. })), "{opened:?}");
    let report = verify(&one(dir.path()), key().verifier()).unwrap();
    assert!(report.problem.unwrap().what.contains("a checkpoint was signed for 5"));
}

#[test]
fn a_flipped_bit_in_any_file_is_found_by_verify() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..2 {
        let log = open(config(dir.path()));
        append_many(&log, round * 3, round * 3 + 3);
        drop(log);
    }
    assert_whole(&one(dir.path()), 6);
    for name in ["entries-00000000.log", "checkpoint", "checkpoints.log"] {
        let path = dir.path().join(name);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, &bad).unwrap();
            let report = verify(&one(dir.path()), key().verifier()).unwrap();
            assert!(!report.is_whole() || report.torn_history_bytes > 0, "{name} byte {at}: {report:?}");
        }
        fs::write(&path, &good).unwrap();
    }
}

#[test]
fn a_rolled_back_or_replaced_log_is_refused() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("log");
    let log = open(config(&dir));
    append_many(&log, 0, 5);
    drop(log);
    let old = top.path().join("old");
    copy(&dir, &old);
    let log = open(config(&dir));
    append_many(&log, 5, 9);
    log.close();
    let remembered = log.latest_checkpoint();
    drop(log);
    let rolled_back = |opened: Result<AuditLog, AuditError>| matches!(opened, Err(AuditError::RolledBack { expected: 9, .. }));
    assert!(rolled_back(AuditLog::open(config(&old), key(), Some(remembered))));
    // The same length, another history.
    let forked = open(config(&old));
    append_many(&forked, 5, 6);
    (0..10).for_each(|_| drop(forked.append_blocking("another")));
    drop(forked);
    assert!(rolled_back(AuditLog::open(config(&old), key(), Some(remembered))));
    let log = AuditLog::open(config(&dir), key(), Some(remembered)).unwrap();
    append_many(&log, 9, 10);
    drop(log);
    AuditLog::open(config(&dir), key(), Some(remembered)).unwrap();
}

#[test]
fn segments_are_finished_pruned_and_their_derived_files_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = one(dir.path());
    let log = open(config(dir.path()));
    let total = 2 * SEGMENT + 500;
    let mut at = 0;
    while at < total {
        append_many(&log, at, (at + 7_000).min(total));
        at = (at + 7_000).min(total);
    }
    let middle = Checkpoint { size: SEGMENT + 77, root: Reader::open(&dirs).unwrap().root(SEGMENT + 77).unwrap() };
    log.close();
    let head = log.latest_checkpoint();
    drop(log);
    assert_holds(&dirs, total);
    assert_whole(&dirs, total);
    assert_eq!(fs::metadata(dir.path().join("roots")).unwrap().len(), 64);
    assert_eq!(fs::metadata(dir.path().join("hashes-00000001")).unwrap().len(), SEGMENT * 32);

    // Derived files may vanish or lie: the log is the entries.
    fs::remove_file(dir.path().join("hashes-00000000")).unwrap();
    fs::write(dir.path().join("hashes-00000001"), vec![1; SEGMENT as usize * 32]).unwrap();
    let mut reader = Reader::open(&dirs).unwrap();
    for index in [0, SEGMENT - 1, SEGMENT, 2 * SEGMENT - 1, 2 * SEGMENT, total - 1] {
        let path = reader.prove_inclusion(index, total).unwrap();
        assert!(merkle::verify_inclusion(&merkle::leaf_hash(&entry(index)), index, total, &path, &head.root), "{index}");
    }
    assert!(!verify(&dirs, key().verifier()).unwrap().is_whole());
    fs::remove_file(dir.path().join("hashes-00000001")).unwrap();
    fs::write(dir.path().join("roots"), [9; 64]).unwrap();
    assert!(!verify(&dirs, key().verifier()).unwrap().is_whole());
    let log = AuditLog::open(config(dir.path()), key(), Some(middle)).unwrap();
    assert_whole(&dirs, total);

    assert_eq!(log.prune(SEGMENT - 1), Ok(0));
    assert_eq!(log.prune(SEGMENT + 5), Ok(SEGMENT));
    assert_eq!(log.first_kept(), Ok(SEGMENT));
    append_many(&log, total, total + 3);
    drop(log);
    let report = verify(&dirs, key().verifier()).unwrap();
    assert_eq!((report.problem, report.size, report.pruned_before), (None, total + 3, SEGMENT));
    assert_eq!(report.entries, total + 3 - SEGMENT);
    let mut reader = Reader::open(&dirs).unwrap();
    assert_eq!(reader.entry(5), Err(AuditError::Pruned { index: 5 }));
    assert_eq!(reader.entry(SEGMENT), Ok(entry(SEGMENT)));
    assert_eq!(reader.partition_point(|found| found < &entry(0)[..5]).unwrap(), SEGMENT);
    let path = reader.prove_inclusion(SEGMENT + 1, total).unwrap();
    assert!(merkle::verify_inclusion(&merkle::leaf_hash(&entry(SEGMENT + 1)), SEGMENT + 1, total, &path, &head.root));
    assert!(matches!(reader.prove_inclusion(3, total), Err(AuditError::Pruned { .. })));

    // A log that lost its roots after pruning, or whose stub lies, is not whole; a good one opens again.
    let roots = fs::read(dir.path().join("roots")).unwrap();
    let mut lying = roots.clone();
    lying[3] ^= 1;
    fs::write(dir.path().join("roots"), &lying).unwrap();
    assert!(!verify(&dirs, key().verifier()).unwrap().is_whole());
    assert!(AuditLog::open(config(dir.path()), key(), None).is_err());
    fs::write(dir.path().join("roots"), &roots).unwrap();
    let log = AuditLog::open(config(dir.path()), key(), Some(middle)).unwrap();
    assert_eq!(log.prune(u64::MAX), Ok(2 * SEGMENT));
    append_many(&log, total + 3, total + 5);
    drop(log);
    assert_whole(&dirs, total + 5);
}

#[test]
fn one_failed_sync_or_write_costs_no_entry_and_goes_on_in_a_new_part() {
    for (writes, syncs) in [(0, 1000), (1000, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let trip = Trip::of_entries(dir.path());
        let log = open(LogConfig { faults: Some(trip.clone()), ..quiet(dir.path()) });
        append_many(&log, 0, 10);
        trip.writes_to_pass.store(writes, SeqCst);
        trip.syncs_to_pass.store(syncs, SeqCst);
        trip.failures.store(1, SeqCst);
        trip.arm(io::ErrorKind::Other);
        append_many(&log, 10, 20);
        trip.disarm();
        assert_eq!(trip.hits.load(SeqCst), 1);
        append_many(&log, 20, 30);
        assert_eq!(log.health().state, State::Healthy);
        assert_eq!(log.metrics().snapshot().failovers, 1);
        assert!(log.metrics().snapshot().last_error.is_some());
        assert!(dir.path().join("entries-00000001.log").exists());
        let killed = dir.path().join("killed");
        copy(dir.path(), &killed);
        assert_eq!(open(quiet(&killed)).size(), 30);
        drop(log);
        assert_holds(&one(dir.path()), 30);
        assert_whole(&one(dir.path()), 30);
        assert_holds(&one(&killed), 30);
    }
}

#[test]
fn a_lasting_failure_refuses_appends_and_heals_when_the_disk_does() {
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        let dir = tempfile::tempdir().unwrap();
        let trip = Trip::new(dir.path());
        let log = open(LogConfig { faults: Some(trip.clone()), ..quiet(dir.path()) });
        append_many(&log, 0, 10);
        trip.arm(kind);
        let failed = log.append_blocking(entry(99)).unwrap_err();
        assert_eq!(failed.is_full(), kind == io::ErrorKind::StorageFull, "{failed}");
        assert!(matches!(log.health().state, State::Failed(_)));
        let hits = trip.hits.load(SeqCst);
        assert!(log.append_blocking(entry(99)).is_err());
        assert_eq!(trip.hits.load(SeqCst), hits, "refused at once, without touching the disk");
        trip.disarm();
        let deadline = Instant::now() + Duration::from_secs(20);
        while log.append_blocking(entry(10)).is_err() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(10));
        }
        append_many(&log, 11, 20);
        assert!(matches!(log.health().state, State::Healthy | State::DiskFull));
        drop(log);
        assert_holds(&one(dir.path()), 20);
        assert_whole(&one(dir.path()), 20);
        let log = open(quiet(dir.path()));
        append_many(&log, 20, 25);
    }
}

#[test]
fn the_standby_folder_takes_over_and_both_make_one_log() {
    let top = tempfile::tempdir().unwrap();
    let (main, standby) = (top.path().join("main"), top.path().join("standby"));
    let dirs = vec![main.clone(), standby.clone()];
    let trip = Trip::new(&main);
    let with_standby = |faults| LogConfig { standby: Some(standby.clone()), faults, ..config(&main) };
    let log = open(with_standby(Some(trip.clone() as Arc<dyn Faults>)));
    append_many(&log, 0, 10);
    trip.arm(io::ErrorKind::Other);
    append_many(&log, 10, 20);
    assert_eq!(log.health().state, State::Standby);
    append_many(&log, 20, 30);
    log.close();
    let head = log.latest_checkpoint();
    assert_eq!(head.size, 30);
    drop(log);
    assert_holds(&dirs, 30);
    assert_whole(&dirs, 30);

    let log = AuditLog::open(with_standby(None), key(), Some(head)).unwrap();
    assert_eq!(log.health().state, State::Standby);
    append_many(&log, 30, 40);
    drop(log);
    assert_holds(&dirs, 40);
    assert_whole(&dirs, 40);
    // Without the standby folder its entries are missed, not forgotten.
    let alone = AuditLog::open(config(&main), key(), Some(head));
    assert!(matches!(alone, Err(AuditError::Corrupt { .. })), "{alone:?}");
    assert!(Reader::open(&[&main]).unwrap().size().unwrap() < 30);
}

/// A disk that is full as long as the reserve is held.
struct FullUntilReserveIsGone {
    dir: PathBuf,
    armed: AtomicBool,
}

impl Faults for FullUntilReserveIsGone {
    fn before_write(&self, _: &Path, _: u64, _: &[u8]) -> io::Result<()> {
        let full = self.armed.load(SeqCst) && self.dir.join("reserve").exists();
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn before_sync(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_reserve_is_given_up_when_the_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(FullUntilReserveIsGone { dir: dir.path().into(), armed: false.into() });
    let log = open(LogConfig { faults: Some(faults.clone()), ..config(dir.path()) });
    append_many(&log, 0, 5);
    assert_eq!((log.health().state, log.health().free_reserve), (State::Healthy, 1 << 20));
    assert_eq!(fs::metadata(dir.path().join("reserve")).unwrap().len(), 1 << 20);
    faults.armed.store(true, SeqCst);
    append_many(&log, 5, 10);
    assert_eq!(log.health().state, State::DiskFull);
    assert!(!dir.path().join("reserve").exists());
    faults.armed.store(false, SeqCst);
    let deadline = Instant::now() + Duration::from_secs(20);
    while log.health().state != State::Healthy {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(dir.path().join("reserve").exists(), "taken back when there is room");
    drop(log);
    assert_whole(&one(dir.path()), 10);
}

#[test]
fn an_interval_acknowledges_before_the_sync_and_a_failed_one_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let trip = Trip::new(dir.path());
    let weak = Durability::Interval(Duration::from_millis(200));
    let log = open(LogConfig { durability: weak, faults: Some(trip.clone()), ..quiet(dir.path()) });
    for n in 0..200 {
        append_many(&log, n * 5, n * 5 + 5);
    }
    let syncs = log.metrics().snapshot().fsyncs;
    assert!(syncs < 200, "{syncs}");
    trip.failures.store(1, SeqCst);
    trip.writes_to_pass.store(1000, SeqCst);
    trip.arm(io::ErrorKind::Other);
    append_many(&log, 1000, 1010);
    let deadline = Instant::now() + Duration::from_secs(20);
    while log.size() < 1010 || log.metrics().snapshot().failovers == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((trip.hits.load(SeqCst), log.metrics().snapshot().failovers), (1, 1));
    append_many(&log, 1010, 1020);
    drop(log);
    assert_holds(&one(dir.path()), 1020);
    assert_whole(&one(dir.path()), 1020);
}

/// Writes as (offset, what stood there before).
type Writes = Vec<(u64, Vec<u8>)>;

/// A disk that loses power: remembers what was written since each file's last sync.
#[derive(Default)]
struct PowerCut {
    unsynced: Mutex<BTreeMap<PathBuf, Writes>>,
    syncs_left: AtomicI64,
    dead: AtomicBool,
}

impl Faults for PowerCut {
    fn before_write(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.dead.load(SeqCst) {
            return Err(io::ErrorKind::Other.into());
        }
        let mut before = vec![0; bytes.len()];
        if let Ok(file) = fs::File::open(path) {
            let mut got = 0;
            while let Ok(n @ 1..) = file.read_at(&mut before[got..], offset + got as u64) {
                got += n;
            }
        }
        self.unsynced.lock().entry(path.into()).or_default().push((offset, before));
        Ok(())
    }

    fn before_sync(&self, path: &Path) -> io::Result<()> {
        if self.dead.load(SeqCst) || self.syncs_left.fetch_sub(1, SeqCst) <= 0 {
            self.dead.store(true, SeqCst);
            return Err(io::ErrorKind::Other.into());
        }
        self.unsynced.lock().remove(path);
        Ok(())
    }
}

#[test]
fn a_power_cut_that_drops_any_unsynced_sectors_loses_nothing_acknowledged() {
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..60 {
        let dir = tempfile::tempdir().unwrap();
        let cut = Arc::new(PowerCut { syncs_left: i64::MAX.into(), ..PowerCut::default() });
        let log = open(LogConfig { faults: Some(cut.clone()), ..quiet(dir.path()) });
        cut.syncs_left.store(1 + round % 15, SeqCst);
        let mut acknowledged = 0;
        'alive: loop {
            assert!(acknowledged < 1000, "nothing is acknowledged without a sync");
            let appends: Vec<_> = (0..1 + next() % 8).map(|n| log.append(entry(acknowledged + n))).collect();
            for append in appends {
                match append.wait() {
                    Ok(index) => acknowledged = index + 1,
                    Err(_) => break 'alive,
                }
            }
        }
        drop(log);
        for (path, writes) in std::mem::take(&mut *cut.unsynced.lock()) {
            let Ok(file) = fs::OpenOptions::new().write(true).open(&path) else { continue };
            for (offset, before) in writes.into_iter().rev() {
                for (at, sector) in before.chunks(512).enumerate() {
                    if next() % 2 == 0 {
                        file.write_all_at(sector, offset + at as u64 * 512).unwrap();
                    }
                }
            }
        }
        let log = open(quiet(dir.path()));
        assert!(log.size() >= acknowledged, "round {round}: {} of {acknowledged}", log.size());
        let kept = log.size();
        append_many(&log, kept, kept + 3);
        drop(log);
        let entries: Vec<_> = Reader::open(&one(dir.path())).unwrap().entries(0).map(Result::unwrap).collect();
        (0..acknowledged).for_each(|n| assert_eq!(entries[n as usize], (n, entry(n))));
        assert_whole(&one(dir.path()), kept + 3);
    }
}

#[test]
fn a_reader_follows_a_log_that_is_being_written_even_across_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let trip = Trip::new(dir.path());
    let log = open(LogConfig { faults: Some(trip.clone()), ..quiet(dir.path()) });
    let mut follower = Reader::open(&log.dirs()).unwrap().entries(0);
    assert!(follower.next().is_none());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..40 {
                append_many(&log, n * 10, n * 10 + 10);
                if n == 20 {
                    trip.failures.store(1, SeqCst);
                    trip.arm(io::ErrorKind::Other);
                }
            }
        });
        for n in 0..400 {
            let found = follower.wait(Duration::from_millis(1), &stop).unwrap().unwrap();
            assert_eq!(found, (n, entry(n)));
        }
    });
    stop.store(true, SeqCst);
    assert!(follower.wait(Duration::from_millis(1), &stop).is_none());
    assert_eq!(trip.hits.load(SeqCst), 1);
}

#[test]
fn tasks_of_a_runtime_await_their_appends() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(open(config(dir.path())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let indexes = runtime.block_on(async {
        tokio::spawn(claviger_audit::WakeRelay::default());
        let tasks: Vec<_> = (0..64)
            .map(|n| {
                let log = log.clone();
                tokio::spawn(async move {
                    let mut indexes = Vec::new();
                    for _ in 0..20 {
                        indexes.push(log.append(entry(n)).await.unwrap());
                    }
                    indexes
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all.sort_unstable();
        all
    });
    assert_eq!(indexes, (0..64 * 20).collect::<Vec<_>>());
    let seen = log.metrics().snapshot();
    assert!(seen.groups < seen.appends / 4, "tasks that wait together commit together: {seen:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_entries_in_any_groups_come_back_after_reopening(
        sessions in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 1..2000), 0..20), 1..4)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut all: Vec<Vec<u8>> = Vec::new();
        for session in sessions {
            let log = open(config(dir.path()));
            prop_assert_eq!(log.size(), all.len() as u64);
            let appends: Vec<_> = session.iter().map(|entry| log.append(entry)).collect();
            for append in appends {
                append.wait().unwrap();
            }
            all.extend(session);
        }
        let mut reader = Reader::open(&one(dir.path())).unwrap();
        let found: Vec<Vec<u8>> = reader.entries(0).map(|found| found.unwrap().1).collect();
        prop_assert_eq!(&found, &all);
        let leaves: Vec<_> = all.iter().map(|entry| merkle::leaf_hash(entry)).collect();
        let mut tree = merkle::Frontier::default();
        leaves.iter().for_each(|leaf| tree.push(*leaf));
        prop_assert_eq!(reader.root(all.len() as u64).unwrap(), tree.root());
        prop_assert!(verify(&one(dir.path()), key().verifier()).unwrap().is_whole());
    }
}

#[test]
fn a_full_main_disk_sends_entries_to_the_standby_folder_until_the_next_segment() {
    let top = tempfile::tempdir().unwrap();
    let (main, standby) = (top.path().join("main"), top.path().join("standby"));
    let dirs = vec![main.clone(), standby.clone()];
    let trip = Trip::new(&main);
    let log = open(LogConfig { standby: Some(standby.clone()), faults: Some(trip.clone()), ..config(&main) });
    append_many(&log, 0, 10);
    trip.arm(io::ErrorKind::StorageFull);
    append_many(&log, 10, 20);
    assert_eq!(log.health().state, State::DiskFull);
    trip.disarm();
    let mut at = 20;
    while at < SEGMENT + 10 {
        append_many(&log, at, (at + 9_000).min(SEGMENT + 10));
        at = (at + 9_000).min(SEGMENT + 10);
    }
    drop(log);
    let parts = |dir: &Path| {
        let names = fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("entries-")).count()
    };
    assert!(parts(&main) >= 2, "the next segment is in the main folder again");
    assert_eq!(parts(&standby), 1);
    assert_holds(&dirs, SEGMENT + 10);
    assert_whole(&dirs, SEGMENT + 10);
}

#[test]
fn an_unfinished_note_in_the_history_is_cut_off_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let history = dir.path().join("checkpoints.log");
    let log = open(config(dir.path()));
    append_many(&log, 0, 3);
    drop(log);
    let whole = fs::read(&history).unwrap();
    for cut in [1, 5, 60, 150] {
        fs::write(&history, &whole[..whole.len() - cut]).unwrap();
        let report = verify(&one(dir.path()), key().verifier()).unwrap();
        assert!(report.is_whole(), "{cut}: {report:?}");
        drop(open(config(dir.path())));
        let report = verify(&one(dir.path()), key().verifier()).unwrap();
        assert_eq!((report.problem, report.torn_history_bytes), (None, 0), "{cut}");
    }
    fs::write(&history, "something else\n").unwrap();
    assert!(!verify(&one(dir.path()), key().verifier()).unwrap().is_whole());
}

#[test]
fn verify_beside_a_running_writer_finds_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(LogConfig { checkpoint_interval: Duration::from_millis(5), history_interval: Duration::ZERO, ..config(dir.path()) });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..150 {
                append_many(&log, n * 3, n * 3 + 3);
            }
            done.store(true, SeqCst);
        });
        while !done.load(SeqCst) {
            let report = verify(&log.dirs(), log.verifier()).unwrap();
            assert!(report.is_whole(), "{report:?}");
        }
    });
    drop(log);
    let report = verify(&one(dir.path()), key().verifier()).unwrap();
    assert!(report.checkpoints > 3 && report.unsigned_tail == 0, "{report:?}");
}

#[test]
fn pruning_does_not_sign_for_roots_that_were_changed() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(config(dir.path()));
    let mut at = 0;
    while at < SEGMENT + 5 {
        append_many(&log, at, (at + 9_000).min(SEGMENT + 5));
        at = (at + 9_000).min(SEGMENT + 5);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while log.latest_checkpoint().size < SEGMENT + 5 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    let roots = dir.path().join("roots");
    let good = fs::read(&roots).unwrap();
    fs::write(&roots, [1; 32]).unwrap();
    assert!(matches!(log.prune(SEGMENT), Err(AuditError::Corrupt { .. })));
    fs::write(&roots, good).unwrap();
    assert_eq!(log.prune(SEGMENT), Ok(SEGMENT));
    drop(log);
    assert_whole(&one(dir.path()), SEGMENT + 5);
}

#[test]
fn unsynced_frames_behind_a_torn_one_are_dropped_and_never_come_back() {
    let top = tempfile::tempdir().unwrap();
    let (dir, killed, again) = (top.path().join("log"), top.path().join("killed"), top.path().join("again"));
    let weak = |dir: &Path| LogConfig { durability: Durability::Interval(Duration::from_secs(3600)), ..quiet(dir) };
    let log = open(weak(&dir));
    for n in 0..6 {
        log.append_blocking(format!("entry {n}")).unwrap();
    }
    copy(&dir, &killed);
    drop(log);
    // The frames are equally long; the third is torn, those behind it are whole, none was promised.
    let length = 48 + 4 + "entry 0".len() as u64;
    let part = |dir: &Path| dir.join("entries-00000000.log");
    let file = fs::OpenOptions::new().write(true).open(part(&killed)).unwrap();
    file.write_all_at(b"torn", 4096 + 2 * length + 50).unwrap();
    let log = open(weak(&killed));
    assert_eq!(log.size(), 2);
    assert_eq!(log.append_blocking("again 2"), Ok(2));
    copy(&killed, &again);
    drop(log);
    let log = open(weak(&again));
    assert_eq!(log.size(), 3, "what was dropped must not follow the frame that took the torn one's place");
    drop(log);
    assert_eq!(Reader::open(&one(&again)).unwrap().entry(2), Ok(b"again 2".to_vec()));
    assert_whole(&one(&again), 3);
}

#[test]
fn entries_appended_together_are_consecutive_also_over_the_end_of_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(quiet(dir.path()));
    append_many(&log, 0, SEGMENT - 2);
    let together: Vec<_> = (SEGMENT - 2..SEGMENT + 3).map(entry).collect();
    assert_eq!(log.append_all(&together).wait(), Ok(SEGMENT + 2));
    assert!(matches!(log.append_all(&[]).wait(), Err(AuditError::EntrySize { len: 0 })));
    let too_long = [entry(0), vec![b'x'; claviger_audit::MAX_ENTRY + 1]];
    assert!(matches!(log.append_all(&too_long).wait(), Err(AuditError::EntrySize { .. })), "all or none");
    log.close();
    assert_holds(&one(dir.path()), SEGMENT + 3);
    assert_whole(&one(dir.path()), SEGMENT + 3);
}
