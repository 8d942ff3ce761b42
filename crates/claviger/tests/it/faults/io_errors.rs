//! A disk that fails: the Nth write, sync or change of a name, once or until it is repaired, below the store and below the
//! audit log, while the server works and while it starts.

use super::workload::{Keeper, Stopped};
use super::{CONFIG, audit_folder, check_log, database, read_log, rounds, server_on};
use anyhow::{Context, Result, bail, ensure};
use claviger_testkit::faults::{Class, Database, Failure, FaultLayer, Loss, Random};
use claviger_testkit::{Client, TestServer};
use std::time::{Duration, Instant};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// Until it is repaired.
const LASTING: u32 = 1_000_000;
/// Requests per case.
const STEPS: usize = 10;
/// How long a repaired server may take to notice. The audit log's longest pause between attempts is 5 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on a failing disk, and one client.
struct Case<'a> {
    layer: &'a FaultLayer,
    server: TestServer,
    keeper: Keeper,
    random: Random,
    log_read: u64,
    revision: i64,
    failed: u32,
    reconciled: usize,
}

impl<'a> Case<'a> {
    fn new(layer: &'a FaultLayer, mut random: Random) -> Self {
        let keeper = Keeper::new(0, random.fork());
        Self { layer, server: server_on(layer, CONFIG), keeper, random, log_read: 0, revision: 0, failed: 0, reconciled: 0 }
    }

    /// Works on a disk that fails, then on one that is repaired, then dies, starts again, and everything is compared.
    fn run(&mut self, failure: Failure) -> Result<()> {
        let admin = self.server.admin();
        let mut client = self.server.client()?;
        self.layer.fail(failure)?;
        for _ in 0..STEPS {
            if !self.step(&mut client, &admin)? && !self.keeper.try_settle(&mut client, &admin)? {
                break;
            }
        }
        self.failed += self.layer.failed()?;
        self.layer.calm()?;
        self.recover(&mut client, &admin)?;
        self.die_and_check()
    }

    fn step(&mut self, client: &mut Client, admin: &str) -> Result<bool> {
        match self.keeper.step(client, admin) {
            Ok(done) => Ok(done),
            Err(Stopped::Gone) => bail!("the connection broke; the server's log ends:\n{}", tail(&self.server.log())),
            Err(Stopped::Wrong(error)) => Err(error),
        }
    }

    /// Without a restart, all works again.
    fn recover(&mut self, client: &mut Client, admin: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut done = 0;
        while done < 4 {
            ensure!(Instant::now() < deadline, "the disk is repaired and the server still refuses: {:?}", self.keeper.refusals.last());
            if !self.keeper.try_settle(client, admin)? {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            done += usize::from(self.step(client, admin)?);
        }
        Ok(())
    }

    fn die_and_check(&mut self) -> Result<()> {
        self.server.kill();
        self.crash()?;
        self.server.restart()?;
        self.check()
    }

    fn check(&mut self) -> Result<()> {
        self.keeper.settle(&mut self.server.client()?, &self.server.admin())?;
        let logged = read_log(&audit_folder(&self.server), self.log_read)?;
        self.keeper.check_records(&logged)?;
        let mut database = Database::open(&database(&self.server))?;
        let changes = database.texts(&format!("SELECT epoch || '.' || revision FROM changes WHERE revision > {}", self.revision))?;
        database.close()?;
        for change in &changes {
            ensure!(logged.changes.contains(change), "change {change} has no record");
        }
        self.revision += i64::try_from(changes.len())?;
        self.log_read = logged.end;
        self.reconciled += logged.reconciled;
        Ok(())
    }

    fn finish(self, what: &str) {
        check_log(&audit_folder(&self.server)).unwrap();
        let log = self.server.log();
        assert!(!log.contains("panicked") && !log.contains("behind Claviger's back"), "{}", tail(&log));
        let refusals = self.keeper.refusals.len();
        println!("{what}: {} calls failed, {refusals} refusals, {} records made at a start", self.failed, self.reconciled);
        assert!(self.failed > 0, "nothing failed, so the layer was not there");
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn failures(only: &'static str, points: u32) -> Vec<Failure> {
    let kinds = [(Class::Writes, EIO), (Class::Writes, ENOSPC), (Class::Syncs, EIO), (Class::Syncs, ENOSPC), (Class::Names, ENOSPC)];
    let mut all = Vec::new();
    for (class, errno) in kinds {
        for after in 0..points {
            for times in [1, LASTING] {
                all.push(Failure { class, errno, after, times, only });
            }
        }
    }
    all
}

/// The server works, and the disk below a part of its files fails.
fn while_it_works(what: &str, only: &'static str) {
    let random = Random::seeded(what);
    let layer = FaultLayer::new().unwrap();
    let mut case = Case::new(&layer, random);
    for failure in failures(only, rounds(4) as u32) {
        case.run(failure).with_context(|| format!("{failure:?}")).unwrap();
    }
    case.finish(what);
}

#[test]
fn a_disk_that_fails_below_the_store_loses_nothing_acknowledged() {
    while_it_works("failing store", "/claviger.db");
}

#[test]
fn a_disk_that_fails_below_the_audit_log_loses_nothing_acknowledged() {
    while_it_works("failing audit log", "/audit");
}

#[test]
fn a_change_whose_record_could_not_be_written_is_recorded_by_the_next_start() {
    let layer = FaultLayer::new().unwrap();
    let mut case = Case::new(&layer, Random::seeded("lost record"));
    layer.fail(Failure { class: Class::Writes, errno: EIO, after: 0, times: LASTING, only: "/audit" }).unwrap();
    let (admin, mut client) = (case.server.admin(), case.server.client().unwrap());
    let created = client.knox("POST", "/v0/keys/", &admin, &[("id", "k"), ("data", "aGk=")]).unwrap();
    assert_eq!((created.status, created.json()["code"].as_i64()), (500, Some(1)), "{}", created.text());
    layer.calm().unwrap();
    // The record of a read names the change's revision too; it is no record of the change.
    let deadline = Instant::now() + PATIENCE;
    while client.knox("GET", "/v0/keys/k/", &admin, &[]).unwrap().status != 200 {
        assert!(Instant::now() < deadline, "the disk is repaired and the server still refuses");
        std::thread::sleep(Duration::from_millis(20));
    }
    case.server.kill();
    case.server.restart().unwrap();
    case.check().unwrap();
    assert_eq!(case.reconciled, 1);
    // Once is enough.
    case.server.terminate().unwrap();
    case.server.restart().unwrap();
    case.server.kill();
    case.server.restart().unwrap();
    case.check().unwrap();
    assert_eq!(case.reconciled, 1);
    let read = case.server.client().unwrap().knox("GET", "/v0/keys/k/", &admin, &[]).unwrap();
    assert_eq!(read.status, 200, "{}", read.text());
}

impl Case<'_> {
    /// A start on a disk that fails, or during which the server is killed. False: it was refused.
    fn start_with(&mut self, failure: Failure) -> Result<bool> {
        let admin = self.server.admin();
        let mut client = self.server.client()?;
        for _ in 0..STEPS {
            self.step(&mut client, &admin)?;
        }
        self.server.kill();
        self.crash()?;
        self.layer.fail(failure)?;
        let started = self.server.restart();
        self.failed += self.layer.failed()?;
        self.layer.calm()?;
        if let Err(error) = &started {
            let text = format!("{error:#}");
            let said = text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or_default();
            let is_clear = said.contains("audit") || said.contains("claviger.db") || said.contains("store");
            let is_killed = failure.errno == FaultLayer::KILL && text.contains("signal: 9");
            ensure!(is_killed || (is_clear && !text.contains("panicked")), "a start that does not say what failed: {}", tail(&text));
        }
        self.server.kill();
        self.crash()?;
        self.server.restart()?;
        self.check()?;
        Ok(started.is_ok())
    }

    /// Works until it is killed at one of its calls.
    fn work_until_killed(&mut self, failure: Failure) -> Result<()> {
        let admin = self.server.admin();
        let mut client = self.server.client()?;
        self.layer.fail(failure)?;
        for _ in 0..10 * STEPS {
            match self.keeper.step(&mut client, &admin) {
                Ok(true) => {}
                Ok(false) => bail!("refused: {:?}", self.keeper.refusals.last()),
                Err(Stopped::Gone) => break,
                Err(Stopped::Wrong(error)) => return Err(error),
            }
        }
        self.failed += self.layer.failed()?;
        self.layer.calm()?;
        self.die_and_check()
    }

    fn crash(&mut self) -> Result<()> {
        let loss = *self.random.pick(&[Loss::Everything, Loss::Tail, Loss::Sectors]);
        self.layer.crash(loss, &mut self.random).map(drop)
    }
}

#[test]
fn a_disk_that_fails_during_a_start_is_named_and_the_next_start_is_a_good_one() {
    let random = Random::seeded("failing start");
    let layer = FaultLayer::new().unwrap();
    let mut case = Case::new(&layer, random);
    let mut refused = 0;
    for only in ["/claviger.db", "/audit"] {
        for failure in failures(only, rounds(3) as u32) {
            let started = case.start_with(failure).with_context(|| format!("{failure:?}")).unwrap();
            refused += usize::from(!started);
        }
    }
    println!("failing start: {refused} starts were refused");
    case.finish("failing start");
}

/// Every call of a class, one after the other, as the place of a kill.
fn kills(points: u32) -> impl Iterator<Item = Failure> {
    let classes = [Class::Writes, Class::Syncs, Class::Names];
    let kill = |class, after| Failure { class, errno: FaultLayer::KILL, after, times: 1, only: "" };
    (0..points).flat_map(move |after| classes.map(|class| kill(class, after)))
}

#[test]
fn a_kill_at_any_write_sync_or_rename_of_a_start_leaves_what_was_acknowledged() {
    let random = Random::seeded("killed start");
    let layer = FaultLayer::new().unwrap();
    let mut case = Case::new(&layer, random);
    let mut killed = 0;
    for failure in kills(rounds(16) as u32) {
        let started = case.start_with(failure).with_context(|| format!("{failure:?}")).unwrap();
        killed += usize::from(!started);
    }
    println!("killed start: {killed} starts were killed");
    case.finish("killed start");
}

#[test]
fn a_kill_at_any_write_sync_or_rename_of_the_work_leaves_what_was_acknowledged() {
    let random = Random::seeded("killed at work");
    let layer = FaultLayer::new().unwrap();
    let mut case = Case::new(&layer, random);
    for failure in kills(rounds(12) as u32).filter(|f| f.class != Class::Names) {
        case.work_until_killed(failure).with_context(|| format!("{failure:?}")).unwrap();
    }
    case.finish("killed at work");
}
