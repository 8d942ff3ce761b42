//! The server goes back to an older state, or there are two of it, and nobody misses what differs.

use super::stage::{MACHINE, PLAIN, Stage, until};
use crate::command_line::{command, json};
use claviger_testkit::TestServer;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Epoch and number of the revision that a key had at last.
fn revision(server: &TestServer, key: &str) -> (u64, u64) {
    let info = json(server, &["info", key]);
    let (epoch, number) = info["revision"].as_str().unwrap().split_once('.').unwrap();
    (epoch.parse().unwrap(), number.parse().unwrap())
}

impl Stage {
    fn restart(&mut self) {
        self.server.restart().unwrap();
        self.back();
    }
}

/// The old history's revisions are given out again before anybody looks: with one order for both, nobody would notice.
#[test]
fn after_a_restore_the_agent_and_a_watch_are_told_of_all_that_differs() {
    let mut stage = Stage::new();
    let keys = ["kept", "changed", "revoked", "deleted", "lost"];
    stage.create(&keys[..4].iter().map(|key| (*key, "of-the-backup")).collect::<Vec<_>>());
    let mut agent = stage.agent("a", PLAIN);
    agent.start();
    stage.server.terminate().unwrap();
    let backup = stage.folder.path().join("backup");
    stage.server.back_up(&backup).unwrap();
    stage.restart();
    // What the backup does not have.
    stage.create(&[("lost", "never-restored")]);
    stage.rotate("changed", "lost-value");
    stage.rotate("kept", "lost-value");
    keys.iter().for_each(|key| agent.register(key));
    agent.waits_for("kept", Some("lost-value"));
    stage.rotate("changed", "last-lost-value");
    agent.waits_for("changed", Some("last-lost-value"));
    let told = revision(&stage.server, "changed");
    // Nothing is left that the cache has not.
    agent.stop();
    stage.outage();
    stage.server.terminate().unwrap();
    stage.server.put_back(&backup).unwrap();
    stage.restart();
    stage.outage();
    stage.run(&["acl", "revoke", "revoked", "machine:dev-machine"]);
    stage.run(&["delete", "deleted", "--yes"]);
    stage.rotate("changed", "of-the-new-history");
    for i in 0.. {
        stage.rotate("changed", &format!("filler-{i}"));
        if revision(&stage.server, "changed").1 > told.1 + 1 {
            break;
        }
    }
    stage.rotate("changed", "of-the-new-history");
    let now = revision(&stage.server, "changed");
    assert!(now.0 > told.0, "the restored server has an epoch of its own: {now:?} after {told:?}\n{}", stage.server.log());

    let since = format!("{}.{}", told.0, told.1);
    let mut watch =
        command(&stage.server, &["watch", "--id", "changed", "--id", "deleted", "--since", &since]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut events = || lines.next().unwrap().split_ascii_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((events(), events()), (vec!["deleted".into(), "deleted".into()], vec!["compacted".into()]));
    assert_eq!(events(), ["ready"]);
    watch.kill().unwrap();
    watch.wait().unwrap();

    // Before it hears of the server the agent gives out what it last knew.
    agent.start();
    assert_eq!(agent.read("changed"), Ok("last-lost-value".into()));
    stage.back();
    agent.waits_for("changed", Some("of-the-new-history"));
    agent.waits_for("kept", Some("of-the-backup"));
    agent.waits_until_gone("revoked");
    agent.waits_until_gone("deleted");
    // It was never deleted: there it never was. A plain refusal takes nothing, and the copy ages.
    until("the refusal is said", || agent.state("lost") == "doubted");
    stage.rotate("kept", "pushed");
    agent.waits_for("kept", Some("pushed"));
    // And the place is kept.
    agent.stop();
    agent.start();
    agent.waits_for("kept", Some("pushed"));
    assert_eq!(agent.status()["notes"], serde_json::json!([]));
}

/// One server was cloned, the clone is used, and an agent comes back to the first one.
#[test]
fn a_server_that_is_behind_gives_nothing_back_that_was_taken_and_takes_nothing() {
    let mut stage = Stage::new();
    stage.create(&[("app:taken", "t"), ("app:kept", "k"), ("app:deleted-there", "d")]);
    stage.server.kill();
    stage.server.restart().unwrap();
    let ahead = stage.server.start_copy().unwrap();
    let run = |server: &TestServer, arguments: &[&str], input: &str| {
        let (code, _, err) = crate::command_line::finish(command(server, arguments), input);
        assert_eq!(code, 0, "{arguments:?}: {err}");
    };
    stage.relay.set_target(Some(ahead.address()));
    let mut agent = stage.agent("a", PLAIN);
    agent.start();
    ["app:taken", "app:kept", "app:deleted-there"].iter().for_each(|key| agent.register(key));
    run(&ahead, &["acl", "revoke", "app:taken", "machine:dev-machine"], "");
    run(&ahead, &["add", "app:kept", "--promote"], "newer");
    agent.waits_until_gone("app:taken");
    agent.waits_for("app:kept", Some("newer"));
    // The one that is behind has its own history meanwhile, and gets further in it.
    stage.run(&["delete", "app:deleted-there", "--yes"]);
    for i in 0..5 {
        stage.rotate("app:kept", &format!("older-{i}"));
    }
    assert!(revision(&stage.server, "app:kept").1 > revision(&ahead, "app:kept").1);
    let look = |agent: &super::stage::Agent| {
        assert_eq!(agent.read("app:taken"), Err("not_found".to_owned()));
        assert_eq!((agent.read("app:kept"), agent.read("app:deleted-there")), (Ok("newer".into()), Ok("d".into())));
    };
    stage.back();
    until("the agent says that it is behind", || agent.status()["problems"].to_string().contains("is behind"));
    look(&agent);
    // Also after a restart with that one alone.
    agent.kill();
    agent.start();
    until("the agent says that it is behind", || agent.status()["problems"].to_string().contains("is behind"));
    look(&agent);
    stage.relay.set_target(Some(ahead.address()));
    run(&ahead, &["add", "app:kept", "--promote"], "newest");
    agent.waits_for("app:kept", Some("newest"));
    until("all is well", || agent.status()["live"] == true);
}

/// Backups, restores and kills in the middle of a start: no revision is ever given to two changes, and the agent ends where the server is.
#[test]
fn no_revision_is_given_out_twice_however_often_a_server_is_restored_and_killed() {
    let mut stage = Stage::new();
    stage.create(&[("k", "0")]);
    let mut agent = stage.agent("a", PLAIN);
    agent.start().register("k");
    let backup = stage.folder.path().join("backup");
    let mut given: HashMap<(u64, u64), String> = HashMap::new();
    let rounds = if std::env::var_os("CLAVIGER_TEST_LONG").is_some() { 30 } else { 4 };
    let mut seed = u64::from(std::process::id()) | 1;
    println!("seed {seed}");
    for round in 0..rounds {
        for change in 0..2 {
            let value = format!("{round}-{change}");
            stage.rotate("k", &value);
            let revision = revision(&stage.server, "k");
            assert_eq!(given.insert(revision, value), None, "round {round}: {revision:?} was given out before");
        }
        if round % 3 == 0 {
            stage.server.kill();
            let _ = std::fs::remove_dir_all(&backup);
            stage.server.back_up(&backup).unwrap();
        } else {
            stage.server.kill();
            stage.server.put_back(&backup).unwrap();
        }
        for _ in 0..3 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut start = Command::new(crate::program());
            start
                .args(["server", "--dev", "--dir"])
                .arg(stage.server.dir())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut child = start.spawn().unwrap();
            std::thread::sleep(Duration::from_micros((seed >> 33) % 60_000));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        stage.restart();
    }
    stage.rotate("k", "the-end");
    assert_eq!(given.insert(revision(&stage.server, "k"), "the-end".into()), None);
    agent.waits_for("k", Some("the-end"));
    stage.run(&["acl", "revoke", "k", MACHINE.trim_end_matches("=read")]);
    agent.waits_until_gone("k");
}
