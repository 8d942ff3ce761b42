//! The contract suite on every store there is, and what only a database in a file can suffer.
#![allow(clippy::unwrap_used)]

use crate::{SqlStore, SqliteOptions};
use claviger_domain::{Generation, Incarnation, Prefix, Revision, VersionId};
use claviger_ports::suite::{self, CountingSealer, Fixture, Open, add_version, create, key_ref, version_row};
use claviger_ports::{CHANGES_KEPT, CommitOutcome, DamagedRow, GrantRow, Loaded, MemStore, Store, StoreError};
use futures::future::{FutureExt, ready};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Executor};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

mod sqlite {
    use super::*;

    async fn place() -> Open {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Arc::new(move || {
            let dir = Arc::clone(&dir);
            async move { Arc::new(SqlStore::open_sqlite(file(&dir)).await.unwrap()) as Arc<dyn Store> }.boxed()
        })
    }

    claviger_ports::store_suite!(place);
}

mod memory {
    use super::*;

    async fn place() -> Open {
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        Arc::new(move || ready(Arc::clone(&store)).boxed())
    }

    claviger_ports::store_suite!(place);
}

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("store.db")
}

async fn open(path: &Path) -> Fixture {
    let store: Arc<dyn Store> = Arc::new(SqlStore::open_sqlite(path).await.unwrap());
    Fixture { store, sealer: CountingSealer::default() }
}

async fn new_store(path: &Path) -> Fixture {
    let fixture = open(path).await;
    fixture.store.initialise(&suite::first_head(), &[]).await.unwrap();
    fixture
}

async fn raw(path: &Path, sql: &str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut conn = options.connect().await.unwrap();
    conn.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    conn.close().await.unwrap();
}

fn refusal(result: Result<SqlStore, StoreError>) -> StoreError {
    result.expect_err("the store must not open")
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0)
}

#[tokio::test]
async fn a_new_file_is_its_owners_only_and_uses_the_settings_that_keep_it_safe() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let f = new_store(&file(&dir)).await;
    f.done(&[create("a", 1)]).await;
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let store = SqlStore::open_sqlite(file(&dir)).await.unwrap();
    let mut writer = store.lease().await.unwrap();
    for (pragma, value) in [
        ("PRAGMA synchronous", 2),
        ("PRAGMA trusted_schema", 0),
        ("PRAGMA cell_size_check", 1),
        ("PRAGMA secure_delete", 1),
        ("PRAGMA foreign_keys", 0),
    ] {
        let seen: i64 = sqlx::query_scalar(pragma).fetch_one(writer.conn()).await.unwrap();
        assert_eq!(seen, value, "{pragma}");
    }
}

#[tokio::test]
async fn what_is_no_claviger_database_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = dir.path().join("foreign.db");
    raw(&foreign, "CREATE TABLE t (x); INSERT INTO t VALUES (1)").await;
    let marked = dir.path().join("marked.db");
    raw(&marked, "PRAGMA application_id = 77").await;
    let text = dir.path().join("notes.txt");
    fs::write(&text, "not a database at all\n".repeat(500)).unwrap();
    for path in [foreign, marked, text] {
        let before = fs::read(&path).unwrap();
        let error = refusal(SqlStore::open_sqlite(&path).await);
        assert!(matches!(&error, StoreError::Damaged(text) if text.contains("Claviger")), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before, "{}", path.display());
    }
    let missing = dir.path().join("no/such/folder.db");
    assert!(matches!(refusal(SqlStore::open_sqlite(missing).await), StoreError::Unavailable(_)));
    assert!(matches!(refusal(SqlStore::open_sqlite(dir.path()).await), StoreError::Unavailable(_)));
}

#[tokio::test]
async fn an_empty_file_is_taken_for_a_new_store() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(file(&dir), "").unwrap();
    new_store(&file(&dir)).await.done(&[create("a", 1)]).await;
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    new_store(&file(&dir)).await.store.close().await;
    raw(&file(&dir), "UPDATE schema_version SET version = 99").await;
    let error = refusal(SqlStore::open_sqlite(file(&dir)).await);
    assert_eq!(error, StoreError::TooNew { found: 99, known: crate::schema::NEWEST });
    assert!(error.to_string().contains("newer program"));
    raw(&file(&dir), &format!("UPDATE schema_version SET version = {}", crate::schema::NEWEST)).await;
    open(&file(&dir)).await;
}

#[tokio::test]
async fn a_store_of_the_first_schema_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    raw(&file(&dir), "PRAGMA application_id = 0x436c7667").await;
    raw(&file(&dir), include_str!("../migrations/1.sql")).await;
    raw(&file(&dir), "INSERT INTO grants (prefix, generation, epoch, revision, mac, body) VALUES ('p/', 3, 1, 7, x'09', x'08')").await;
    let f = new_store(&file(&dir)).await;
    let mut grants = Vec::new();
    let mut visit = |rows: Vec<Loaded>| {
        grants.extend(rows);
        Ok(())
    };
    f.store.load(0, &mut visit).await.unwrap();
    let prefix = Prefix::parse("p/").unwrap();
    let (body, mac) = (Box::from([8]), Box::from([9]));
    let row = GrantRow { prefix, incarnation: Incarnation(0), generation: Generation(3), body, mac };
    assert_eq!(grants, [Loaded::Grant(row, Revision { epoch: 1, number: 7 })]);
}

#[tokio::test]
async fn a_row_that_does_not_decode_is_delivered_as_damaged_and_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let f = new_store(&file(&dir)).await;
    f.done(&["good", "kind", "epoch", "version", "length"].map(|id| create(id, 1))).await;
    f.done(&[create("text", 1), create("gone", 1), suite::delete("gone", 1, 1)]).await;
    for sql in [
        "INSERT INTO grants (prefix, incarnation, generation, epoch, revision, mac, body) VALUES ('p/', 1, 3, -1, 7, x'09', x'08')",
        "UPDATE tombstones SET epoch = -1 WHERE key_id = 'gone'",
        "UPDATE keys SET kind = 999 WHERE id = 'kind'",
        "UPDATE keys SET epoch = -1 WHERE id = 'epoch'",
        "UPDATE versions SET version_id = 0 WHERE key_id = 'version'",
        "UPDATE versions SET data_len = data_len + 1 WHERE key_id = 'length'",
        "UPDATE versions SET key_id = CAST(x'61ff' AS TEXT) WHERE key_id = 'text'",
    ] {
        raw(&file(&dir), sql).await;
    }
    let mut found = Vec::new();
    let mut visit = |rows: Vec<Loaded>| {
        found.extend(rows.into_iter().map(|row| match row {
            Loaded::Key(row, _) => format!("key {}", row.id),
            Loaded::Version(version) => format!("version of {}", version.key.id),
            Loaded::Damaged(DamagedRow::Key(row, _)) => format!("damaged key {}", row.id),
            Loaded::Damaged(DamagedRow::Version(key, _)) => format!("damaged version of {}", key.id),
            Loaded::Damaged(DamagedRow::Grant(row, _)) => format!("damaged grants of {}", row.prefix),
            Loaded::Damaged(DamagedRow::Tombstone(row, _)) => format!("damaged tombstone of {}", row.key.id),
            Loaded::Damaged(DamagedRow::Other(what, _)) => format!("damaged {what}"),
            Loaded::Damaged(DamagedRow::Approval(row, _)) => format!("damaged approval {}", row.id),
            Loaded::Grant(..) | Loaded::Tombstone(..) | Loaded::Approval(..) => "other".to_owned(),
        }));
        Ok(())
    };
    f.store.load(1 << 20, &mut visit).await.unwrap();
    found.sort_unstable();
    let wanted = [
        "damaged a version",
        "damaged grants of p/",
        "damaged key epoch",
        "damaged key kind",
        "damaged tombstone of gone",
        "damaged version of length",
        "damaged version of version",
        "key good",
        "key length",
        "key text",
        "key version",
        "version of epoch",
        "version of good",
        "version of kind",
    ];
    assert_eq!(found, wanted);
    f.done(&["kind", "epoch", "version", "length"].map(|id| suite::delete(id, 1, 1))).await;
    f.done(&[create("kind", 2)]).await;
}

#[tokio::test]
async fn a_last_row_whose_id_is_no_text_takes_out_itself_only() {
    let dir = tempfile::tempdir().unwrap();
    let f = new_store(&file(&dir)).await;
    let ids: Vec<_> = (0..1100).map(|i| format!("k{i:04}")).collect();
    f.done(&ids.iter().map(|id| create(id, 1)).collect::<Vec<_>>()).await;
    for (id, bytes) in [("k1023", "6b31303233ff"), ("k1099", "6b31303939ff")] {
        raw(&file(&dir), &format!("UPDATE keys SET id = CAST(x'{bytes}' AS TEXT) WHERE id = '{id}'")).await;
        raw(&file(&dir), &format!("UPDATE versions SET key_id = CAST(x'{bytes}' AS TEXT) WHERE key_id = '{id}'")).await;
    }
    let (mut keys, mut versions, mut damaged) = (0, 0, Vec::new());
    let mut visit = |rows: Vec<Loaded>| {
        for row in rows {
            match row {
                Loaded::Key(..) => keys += 1,
                Loaded::Version(_) => versions += 1,
                Loaded::Damaged(DamagedRow::Other(what, _)) => damaged.push(what),
                other => panic!("{other:?}"),
            }
        }
        Ok(())
    };
    f.store.load(0, &mut visit).await.unwrap();
    assert_eq!((keys, versions, damaged), (1098, 1098, ["a key", "a key", "a version", "a version"].map(String::from).to_vec()));
}

#[tokio::test]
async fn old_changes_are_given_up_in_small_steps_and_the_newest_stay() {
    const OLD: u64 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let f = open(&file(&dir)).await;
    f.store.initialise(&suite::head_at(CHANGES_KEPT + OLD), &[]).await.unwrap();
    let made = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) \
         INSERT INTO changes SELECT 1 + i / 10, i, 'a', 'put', 'b', zeroblob(16), 0 FROM n",
        OLD + 5000
    );
    raw(&file(&dir), &made).await;
    // Servers that were started anew after every ten changes.
    f.sealer.epoch.store(10_000, std::sync::atomic::Ordering::Relaxed);
    let oldest = async || f.store.changes(Revision::default(), 1).await.unwrap()[0].revision.number;
    let mut seen = vec![oldest().await];
    for round in 0..30 {
        f.done(&(0..50).map(|i| create(&format!("k{round}/{i}"), 1)).collect::<Vec<_>>()).await;
        let now = oldest().await;
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    }
    assert!(seen.windows(2).all(|pair| pair[1] - pair[0] <= 1024), "{seen:?}");
    let kept = f.head().await.revision.number - seen.last().unwrap();
    assert!((CHANGES_KEPT..CHANGES_KEPT + 256).contains(&kept), "{kept} {seen:?}");
}

async fn revision_read(path: &Path) -> Revision {
    let store = SqlStore::open_sqlite_for_reading(path).await.unwrap();
    let head = store.head().await.unwrap().unwrap();
    let loaded = store.load(u64::MAX, &mut |_| Ok(())).await.unwrap();
    assert_eq!(loaded, head);
    let refused = store.commit(&[create("z", 1)], &CountingSealer::default()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    store.close().await;
    head.revision
}

fn contents(dir: &TempDir) -> Vec<Option<Vec<u8>>> {
    ["store.db", "store.db-wal"].iter().map(|name| fs::read(dir.path().join(name)).ok()).collect()
}

#[tokio::test]
async fn a_store_opened_for_reading_is_not_changed_by_it_in_any_state() {
    let dir = tempfile::tempdir().unwrap();
    let missing = refusal(SqlStore::open_sqlite_for_reading(file(&dir)).await);
    assert!(matches!(missing, StoreError::Unavailable(_)) && !file(&dir).exists());
    let f = new_store(&file(&dir)).await;
    f.done(&[create("a", 1)]).await;
    // While its server writes, and holds the lock.
    let before = contents(&dir);
    let mut lock = sqlx::sqlite::SqliteConnectOptions::new().filename(file(&dir)).connect().await.unwrap();
    lock.execute("BEGIN IMMEDIATE").await.unwrap();
    assert_eq!(revision_read(&file(&dir)).await.number, 1);
    lock.execute("ROLLBACK").await.unwrap();
    lock.close().await.unwrap();
    assert_eq!(contents(&dir), before);
    // As a kill leaves it: the last commit is in the write-ahead log only.
    let crashed = tempfile::tempdir().unwrap();
    for name in ["store.db", "store.db-wal"] {
        fs::copy(dir.path().join(name), crashed.path().join(name)).unwrap();
    }
    let before = contents(&crashed);
    assert_eq!(revision_read(&file(&crashed)).await.number, 1);
    assert_eq!(contents(&crashed), before);
    // Closed cleanly.
    f.store.close().await;
    let before = contents(&dir);
    assert!(before[1].is_none());
    assert_eq!(revision_read(&file(&dir)).await.number, 1);
    assert_eq!(contents(&dir)[0], before[0]);
    raw(&file(&dir), "UPDATE schema_version SET version = 1").await;
    let older = refusal(SqlStore::open_sqlite_for_reading(file(&dir)).await);
    assert!(older.to_string().contains("start this program's server"), "{older}");
    raw(&file(&dir), "PRAGMA application_id = 5").await;
    assert!(matches!(refusal(SqlStore::open_sqlite_for_reading(file(&dir)).await), StoreError::Damaged(_)));
}

/// Makes a file unchangeable even for root, until it is dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn new(path: &Path) -> Option<Self> {
        let frozen = Self(path.to_owned());
        let how = if is_root() {
            Command::new("chattr").arg("+i").arg(path).status()
        } else {
            Command::new("chmod").arg("a-w").arg(path).status()
        };
        how.is_ok_and(|status| status.success()).then_some(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = if is_root() {
            Command::new("chattr").arg("-i").arg(&self.0).status()
        } else {
            Command::new("chmod").arg("u+w").arg(&self.0).status()
        };
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    new_store(&file(&dir)).await.store.close().await;
    let Some(frozen) = Frozen::new(&file(&dir)) else {
        println!("skipped: this file system cannot make a file unchangeable");
        return;
    };
    let error = refusal(SqlStore::open_sqlite(file(&dir)).await);
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    drop(frozen);
    open(&file(&dir)).await.done(&[create("a", 1)]).await;
}

/// Copies a store's files as they are at this moment: what a killed process leaves.
fn snapshot(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        fs::copy(name(from), name(to)).unwrap();
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_at_any_commit() {
    let dir = tempfile::tempdir().unwrap();
    let f = new_store(&file(&dir)).await;
    f.done(&[create("a", 1), create("b", 1)]).await;
    for from in 1..30 {
        f.done(&[add_version("a", 1, from), add_version("b", 1, from)]).await;
        let copy = dir.path().join(format!("copy{from}.db"));
        snapshot(&file(&dir), &copy);
        let killed = open(&copy).await;
        let (head, contents) = suite::load(&*killed.store, 0).await.unwrap();
        assert_eq!(head, f.head().await);
        assert_eq!((contents.generation("a"), contents.generation("b")), (Some(from + 1), Some(from + 1)));
    }
}

#[tokio::test]
async fn a_torn_write_ahead_log_leaves_whole_commits_only() {
    let dir = tempfile::tempdir().unwrap();
    let f = new_store(&file(&dir)).await;
    f.done(&[create("a", 1), create("b", 1)]).await;
    for from in 1..12 {
        f.done(&[add_version("a", 1, from), add_version("b", 1, from)]).await;
    }
    let log = fs::read(dir.path().join("store.db-wal")).unwrap();
    let mut seen = Vec::new();
    for part in 6..=10 {
        for odd in [0, 1, 2077] {
            let copy = dir.path().join(format!("torn{part}-{odd}.db"));
            snapshot(&file(&dir), &copy);
            fs::write(format!("{}-wal", copy.display()), &log[..log.len() * part / 10 - odd]).unwrap();
            let torn = open(&copy).await;
            let (head, contents) = suite::load(&*torn.store, 0).await.unwrap();
            let generation = contents.generation("a").unwrap();
            assert_eq!(contents.generation("b"), Some(generation));
            assert_eq!(contents.versions.len() as u64, 2 * generation);
            assert_eq!(head.revision.number, 2 * generation);
            let _ = suite::sum_of(&head);
            torn.done(&[add_version("a", 1, generation), add_version("b", 1, generation)]).await;
            seen.push(generation);
        }
    }
    assert!(seen.iter().min() < seen.iter().max(), "the cuts were at different commits: {seen:?}");
}

#[tokio::test]
async fn a_store_dropped_without_close_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut left_open = Vec::new();
    for round in 1..10 {
        let f = open(&file(&dir)).await;
        if round == 1 {
            f.store.initialise(&suite::first_head(), &[]).await.unwrap();
            f.done(&[create("a", 1)]).await;
        }
        f.done(&[add_version("a", 1, round)]).await;
        if round % 2 == 0 {
            // Never dropped: its connections stay open beside the next ones.
            left_open.push(f);
        }
    }
    let f = open(&file(&dir)).await;
    assert_eq!(suite::load(&*f.store, 0).await.unwrap().1.generation("a"), Some(10));
}

#[tokio::test]
async fn a_commit_whose_caller_goes_away_took_place_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let f = new_store(&file(&dir)).await;
    f.done(&[create("a", 1), create("b", 1)]).await;
    let mut known = 1;
    for polls in 0..120 {
        let batch = [add_version("a", 1, known), add_version("b", 1, known)];
        let mut commit = f.store.commit(&batch, &f.sealer);
        for _ in 0..polls % 24 {
            if futures::poll!(&mut commit).is_ready() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_micros(30)).await;
        }
        drop(commit);
        let head = f.head().await;
        let (loaded, contents) = suite::load(&*f.store, 0).await.unwrap();
        assert_eq!(loaded, head, "what head says is final");
        known = contents.generation("a").unwrap();
        assert_eq!(contents.generation("b"), Some(known));
        assert_eq!(head.revision.number, known * 2);
    }
}

#[tokio::test]
async fn after_a_commit_of_unknown_outcome_the_head_is_settled_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqlStore::open_sqlite(file(&dir)).await.unwrap();
    store.initialise(&suite::first_head(), &[]).await.unwrap();
    // A reader stays open, or the writer, closing as the last one, would move the log into the database.
    let mut reader = store.reader().await.unwrap();
    let _: i64 = sqlx::query_scalar("SELECT opened FROM schema_version").fetch_one(&mut *reader).await.unwrap();
    let log = || fs::read(dir.path().join("store.db-wal")).unwrap();
    let before = log();
    store.head().await.unwrap();
    assert!(log() == before, "a head that is known is only read");
    let lost = store.lease().await.unwrap().finish::<()>(Err(StoreError::Unknown("the disk did not answer".to_owned())));
    assert!(matches!(lost, Err(StoreError::Unknown(_))));
    assert!(store.head().await.unwrap().is_some());
    let settled = log();
    assert!(settled.len() > before.len() && settled.starts_with(&before), "a new commit stands where the lost one was");
    let opened: i64 = sqlx::query_scalar("SELECT opened FROM schema_version").fetch_one(&mut *reader).await.unwrap();
    assert_eq!(opened, 2);
    store.head().await.unwrap();
    assert!(log() == settled, "once is enough");
    let commit = store.commit(&[create("a", 1)], &CountingSealer::default()).await.unwrap();
    assert_eq!(commit, [CommitOutcome::Done(Revision { epoch: 1, number: 1 })]);
}

/// After a failed fsync the commit's frames are in the log, but SQLite goes on as if they were not: `path` is brought
/// into that state, where a crash would bring the commit to life.
#[tokio::test]
async fn a_lost_commit_does_not_come_to_life_after_its_head_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let (source, path) = (dir.path().join("source.db"), file(&dir));
    let log = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    let f = new_store(&source).await;
    let told = f.head().await;
    snapshot(&source, &path);
    f.done(&[create("lost", 1)]).await;
    let mut held = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    let _: i64 = sqlx::query_scalar("SELECT revision FROM head").fetch_one(&mut held).await.unwrap();
    fs::write(log(&path), fs::read(log(&source)).unwrap()).unwrap();

    let crashed_before = dir.path().join("before.db");
    snapshot(&path, &crashed_before);
    assert_eq!(open(&crashed_before).await.head().await.revision.number, 1, "the lost commit is only waiting for a crash");

    let store = SqlStore::open_sqlite(&path).await.unwrap();
    assert_eq!(store.head().await.unwrap().as_ref(), Some(&told));
    let crashed_after = dir.path().join("after.db");
    snapshot(&path, &crashed_after);
    assert_eq!(open(&crashed_after).await.head().await, told);
}

#[tokio::test]
async fn a_closed_store_answers_that_it_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let f = new_store(&file(&dir)).await;
    f.store.close().await;
    assert!(matches!(f.store.head().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(f.store.commit(&[create("a", 1)], &f.sealer).await, Err(StoreError::Unavailable(_))));
    assert!(!dir.path().join("store.db-wal").exists(), "the log was moved into the database");
    f.store.close().await;
}

#[tokio::test]
async fn another_process_in_the_way_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let f = new_store(&file(&dir)).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file(&dir));
    let mut other = options.connect().await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let release = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        other.execute("ROLLBACK").await.unwrap();
    };
    let batch = [create("a", 1)];
    let (outcome, ()) = futures::future::join(f.commit(&batch), release).await;
    assert!(outcome[0].revision().is_some());
}

/// Writes keys until one does not fit, and checks that this one left nothing. Returns how many fit.
async fn fill(f: &Fixture, from: u64) -> u64 {
    for i in from.. {
        let before = f.head().await;
        let mut batch = [create(&format!("fill{i}"), 1), add_version(&format!("fill{i}"), 1, 1)];
        if let claviger_ports::Effect::PutKey { added, .. } = &mut batch[1].effect {
            *added = vec![version_row(&format!("fill{i}"), 1, 2, 60_000)];
        }
        match f.store.commit(&batch, &f.sealer).await {
            Ok(outcomes) => assert!(outcomes.iter().all(|outcome| outcome.revision().is_some())),
            Err(error) => {
                assert!(matches!(error, StoreError::Full(_)), "{error}");
                assert_eq!(f.head().await, before, "the head is as it was");
                assert_whole(f, i).await;
                return i;
            }
        }
    }
    unreachable!("no space is endless")
}

/// There are `count` filling keys, each with both versions, and nothing else.
async fn assert_whole(f: &Fixture, count: u64) {
    let (head, contents) = suite::load(&*f.store, 0).await.unwrap();
    assert_eq!(contents.keys.len() as u64, count);
    assert_eq!(contents.versions.len() as u64, 2 * count);
    assert_eq!(head.revision.number, 2 * count);
    assert_eq!(f.store.changes(Revision::default(), 100_000).await.unwrap().len() as u64, 2 * count);
    let (_, data) = f.store.version(&key_ref("fill0", 1), VersionId::new(2).unwrap()).await.unwrap().unwrap();
    assert_eq!(data, version_row("fill0", 1, 2, 60_000).data);
}

#[tokio::test]
async fn a_store_at_its_limit_is_full_whole_and_readable_and_goes_on_when_it_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let limited = SqliteOptions { max_pages: Some(300), ..SqliteOptions::new(file(&dir)) };
    let store: Arc<dyn Store> = Arc::new(SqlStore::open_sqlite_with(limited).await.unwrap());
    store.initialise(&suite::first_head(), &[]).await.unwrap();
    let f = Fixture { store, sealer: CountingSealer::default() };
    let count = fill(&f, 0).await;
    assert!(count > 3, "{count}");
    assert_eq!(fill(&f, count).await, count, "full once more, still whole");
    f.store.close().await;
    let raised = open(&file(&dir)).await;
    raised.done(&[create("more", 1)]).await;
    assert_eq!(raised.head().await.revision.number, 2 * count + 1);
}

/// A file system of 2 MiB, gone when dropped.
struct TinyDisk(TempDir);

impl TinyDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = is_root()
            && Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(dir.path()).status().is_ok_and(|s| s.success());
        mounted.then_some(Self(dir))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_stops_writes_only_and_they_go_on_when_space_is_back() {
    let Some(disk) = TinyDisk::mount() else {
        println!("skipped: mounting a small file system needs root");
        return;
    };
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 700 << 10]).unwrap();
    let path = disk.0.path().join("store.db");
    let f = new_store(&path).await;
    let count = fill(&f, 0).await;
    assert!(count > 3, "{count}");
    assert_eq!(fill(&f, count).await, count);
    let reopened = open(&path).await;
    assert_whole(&reopened, count).await;
    assert!(matches!(reopened.store.commit(&[create("x", 1)], &f.sealer).await, Err(StoreError::Full(_)) | Ok(_)));
    let before = f.head().await.revision.number;
    fs::remove_file(&ballast).unwrap();
    for (place, fixture) in [&f, &reopened].into_iter().enumerate() {
        fixture.done(&[create(&format!("after{place}"), 1)]).await;
    }
    assert_eq!(f.head().await.revision.number, before + 2);
    f.store.close().await;
}

/// A small generator; the same bits are flipped in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Uses everything of a store that may be damaged. What fails must say so; what comes back is for the MACs to judge.
async fn use_all(path: &Path) -> Result<(), StoreError> {
    let store = SqlStore::open_sqlite(path).await?;
    let sealer = CountingSealer::default();
    let mut rows = 0;
    let mut visit = |chunk: Vec<_>| {
        rows += chunk.len();
        Ok(())
    };
    let results = [
        store.head().await.map(drop),
        store.load(1 << 20, &mut visit).await.map(drop),
        store.history(&key_ref("key3", 4), 100).await.map(drop),
        store.version(&key_ref("key3", 4), VersionId::new(1).unwrap()).await.map(drop),
        store.changes(Revision::default(), 1000).await.map(drop),
        store.barriers().await.map(drop),
        store.commit(&[create("new", 1), add_version("key3", 4, 2)], &sealer).await.map(drop),
        store.raw_check(true).await.map(drop),
    ];
    store.close().await;
    results.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_never_panic_and_are_called_damage() {
    let dir = tempfile::tempdir().unwrap();
    let f = new_store(&file(&dir)).await;
    let keys: Vec<_> = (0..60).map(|i| create(&format!("key{i}"), i + 1)).collect();
    f.done(&keys).await;
    f.done(&(0..60).map(|i| add_version(&format!("key{i}"), i + 1, 1)).collect::<Vec<_>>()).await;
    f.store.close().await;
    let sound = fs::read(file(&dir)).unwrap();
    let copy = dir.path().join("flipped.db");
    let (mut dice, mut noticed) = (Dice(0x9e37_79b9_7f4a_7c15), 0);
    for round in 0..150 {
        let mut bytes = sound.clone();
        for _ in 0..=round % 20 {
            let at = if round % 3 == 0 { dice.below(4096) } else { dice.below(bytes.len()) };
            bytes[at] ^= 1 << dice.below(8);
        }
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", copy.display()));
        }
        fs::write(&copy, bytes).unwrap();
        // A task of its own, so that a panic is seen as such.
        let path = copy.clone();
        match tokio::spawn(async move { use_all(&path).await }).await.expect("no panic") {
            Ok(()) => {}
            Err(StoreError::Unknown(text)) => panic!("round {round}: damage is not doubt: {text}"),
            Err(_) => noticed += 1,
        }
    }
    assert!(noticed > 30, "only {noticed} of 150 damaged files were noticed by the store itself");
}

#[tokio::test]
async fn the_raw_check_is_content_with_a_sound_file_and_finds_a_damaged_page() {
    let dir = tempfile::tempdir().unwrap();
    let f = new_store(&file(&dir)).await;
    f.done(&(0..300).map(|i| create(&format!("key{i}"), i + 1)).collect::<Vec<_>>()).await;
    f.store.close().await;
    let store = SqlStore::open_sqlite(file(&dir)).await.unwrap();
    assert_eq!(store.raw_check(true).await, Ok(Vec::new()));
    assert_eq!(store.raw_check(false).await, Ok(Vec::new()));
    store.close().await;
    let mut bytes = fs::read(file(&dir)).unwrap();
    let (start, end) = (bytes.len() / 2 / 4096 * 4096, bytes.len() / 2 / 4096 * 4096 + 300);
    bytes[start..end].fill(0xff);
    fs::write(file(&dir), bytes).unwrap();
    let store = SqlStore::open_sqlite(file(&dir)).await.unwrap();
    let findings = store.raw_check(true).await;
    assert!(matches!(&findings, Ok(list) if !list.is_empty()) || matches!(findings, Err(StoreError::Damaged(_))), "{findings:?}");
}

#[tokio::test]
async fn a_destroyed_versions_bytes_leave_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let f = new_store(&file(&dir)).await;
    let mut batch = [create("a", 1)];
    let marker = b"the sealed bytes that must go".as_slice();
    if let claviger_ports::Effect::PutKey { added, .. } = &mut batch[0].effect {
        added[0].data = claviger_ports::Sealed(marker.into());
    }
    f.done(&batch).await;
    let holds = || fs::read(file(&dir)).unwrap().windows(marker.len()).any(|window| window == marker);
    f.store.close().await;
    assert!(holds());
    let f = open(&file(&dir)).await;
    let mut destroy = [add_version("a", 1, 1)];
    if let claviger_ports::Effect::PutKey { destroyed, .. } = &mut destroy[0].effect {
        *destroyed = vec![VersionId::new(1).unwrap()];
    }
    f.done(&destroy).await;
    f.store.close().await;
    assert!(!holds());
}

#[tokio::test]
async fn old_history_leaves_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let f = new_store(&file(&dir)).await;
    f.done(&[create("a", 1)]).await;
    for from in 1..200 {
        f.done(&[add_version("a", 1, from)]).await;
    }
    let store = SqlStore::open_sqlite(file(&dir)).await.unwrap();
    let mut writer = store.lease().await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM history").fetch_one(writer.conn()).await.unwrap();
    assert!((64..80).contains(&rows), "{rows}");
}
