//! `kill -9` at any moment, with a disk that keeps everything and with one that keeps only what was synced.

use super::workload::Keeper;
use super::{CONFIG, audit_folder, check_log, database, read_log, rounds, server_on};
use anyhow::{Context, Result, ensure};
use claviger_testkit::TestServer;
use claviger_testkit::faults::{Database, FaultLayer, Loss, Random};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CLIENTS: usize = 4;

/// Clients and server of a loop, and how far the log has been read.
struct Loop {
    server: TestServer,
    clients: Vec<Keeper>,
    random: Random,
    log_read: u64,
    revision: i64,
    acknowledged: usize,
    reconciled: usize,
}

impl Loop {
    fn new(server: TestServer, mut random: Random) -> Self {
        let clients = (0..CLIENTS).map(|name| Keeper::new(name, random.fork())).collect();
        Self { server, clients, random, log_read: 0, revision: 0, acknowledged: 0, reconciled: 0 }
    }

    /// All clients work for a while, then the server dies.
    fn work_and_kill(&mut self) -> Result<()> {
        let stop = AtomicBool::new(false);
        let pause = Duration::from_micros(self.random.below(120_000));
        let Self { server, clients, .. } = self;
        let pid = server.pid().context("no server")?;
        std::thread::scope(|scope| {
            let (server, stop) = (&*server, &stop);
            let working: Vec<_> = clients.iter_mut().map(|client| scope.spawn(move || client.work(server, stop))).collect();
            std::thread::sleep(pause);
            let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
            stop.store(true, Ordering::Relaxed);
            for client in working {
                client.join().expect("a client does not panic")?;
            }
            ensure!(killed?.success(), "the server was not there to be killed: {}", server.log());
            Ok(())
        })?;
        server.kill();
        Ok(())
    }

    /// Starts the server again and compares everything with what was acknowledged.
    fn restart_and_check(&mut self) -> Result<()> {
        let Self { server, clients, log_read, .. } = self;
        server.restart()?;
        // All at once, so that their reads share the log's syncs.
        std::thread::scope(|scope| {
            let server = &*server;
            let settling: Vec<_> =
                clients.iter_mut().map(|known| scope.spawn(move || known.settle(&mut server.client()?, &server.admin()))).collect();
            settling.into_iter().try_for_each(|known| known.join().expect("a client does not panic"))
        })?;
        let folder = audit_folder(server);
        let logged = read_log(&folder, *log_read)?;
        for known in clients {
            self.acknowledged += known.check_records(&logged)?;
        }
        let mut database = Database::open(&database(server))?;
        let changes = database.texts(&format!("SELECT epoch || '.' || revision FROM changes WHERE revision > {}", self.revision))?;
        for change in &changes {
            ensure!(logged.changes.contains(change), "change {change} has no record");
        }
        self.revision += i64::try_from(changes.len())?;
        // Closed while the server has it open: that must not disturb it, and does not empty the write-ahead log.
        database.close()?;
        self.reconciled += logged.reconciled;
        *log_read = logged.end;
        Ok(())
    }

    fn finish(mut self, what: &str) {
        check_log(&audit_folder(&self.server)).unwrap();
        self.server.terminate().unwrap();
        let log = self.server.log();
        assert!(!log.contains("behind Claviger's back") && !log.contains("panicked"), "{log}");
        println!("{what}: {} acknowledged answers, {} changes whose record was made at the start", self.acknowledged, self.reconciled);
        assert!(self.acknowledged > 0 && self.revision > 0);
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9_at_any_moment() {
    let random = Random::seeded("kill -9");
    let mut test = Loop::new(crate::server_with(CONFIG), random);
    for round in 0..rounds(200) {
        test.work_and_kill().and_then(|()| test.restart_and_check()).with_context(|| format!("round {round}")).unwrap();
    }
    test.finish("kill -9");
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_that_takes_everything_unsynced() {
    let mut random = Random::seeded("power cut");
    let layer = FaultLayer::new().unwrap();
    let mut losses = random.fork();
    let mut test = Loop::new(server_on(&layer, CONFIG), random);
    let mut lost = 0;
    for round in 0..rounds(60) {
        let loss = *losses.pick(&[Loss::Everything, Loss::Tail, Loss::Sectors]);
        let mut run = || {
            test.work_and_kill()?;
            lost += layer.crash(loss, &mut losses)?.pieces;
            test.restart_and_check()
        };
        run().with_context(|| format!("round {round}, {loss:?}")).unwrap();
    }
    println!("power cut: {lost} pieces of writes were lost");
    assert!(lost > 0, "the layer saw no write that was not synced, so it was not there");
    test.finish("power cut");
}

#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    // The test's own test: were the layer blind, everything would survive this too.
    let layer = FaultLayer::new().unwrap();
    let mut server = server_on(&layer, CONFIG);
    layer.lie(true).unwrap();
    let created = server.client().unwrap().knox("POST", "/v0/keys/", &server.admin(), &[("id", "k"), ("data", "aGk=")]).unwrap();
    assert_eq!(created.status, 200);
    server.kill();
    layer.crash(Loss::Everything, &mut Random::new(1)).unwrap();
    layer.lie(false).unwrap();
    server.restart().unwrap();
    let read = server.client().unwrap().knox("GET", "/v0/keys/k/", &server.admin(), &[]).unwrap();
    assert_eq!(read.status, 404, "{}", read.text());
}

#[test]
fn a_first_start_that_was_killed_is_made_good_by_the_next() {
    let mut random = Random::seeded("first start");
    for round in 0..rounds(40) {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("dev");
        let config = folder.path().join("claviger.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let start = || {
            let mut command = Command::new(crate::program());
            command.args(["server", "--dev", "--dir"]).arg(&dir).arg("--config").arg(&config);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let mut first = start();
        std::thread::sleep(Duration::from_micros(random.below(150_000)));
        first.kill().unwrap();
        first.wait().unwrap();
        // A file that says "ready" may be the killed one's.
        let _ = std::fs::remove_file(dir.join("dev.env"));
        let mut second = start();
        while !dir.join("dev.env").exists() {
            if second.try_wait().unwrap().is_some() {
                let said = second.wait_with_output().unwrap();
                panic!("round {round}: the next start ended: {}", String::from_utf8_lossy(&said.stderr));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        second.kill().unwrap();
        second.wait().unwrap();
    }
}
