//! The agent ends at each single step on its disk, or the power does, and what it left is whole.

use super::stage::{Agent, PLAIN, Stage, ask, until};
use claviger_testkit::faults::{Class, Failure, FaultLayer, Loss, Random};
use std::fs;
use std::process::{Command, Stdio};

const KEYS: [&str; 3] = ["app:a", "app:b", "app:c"];

/// An agent on a disk that is watched, which holds all keys.
fn agent_on(layer: &FaultLayer, stage: &Stage) -> Agent {
    let mut agent = stage.agent("a", &format!("{PLAIN}[knox]\nenabled = true\nfolder = \"@/knox\"\n"));
    agent.environment = layer.environment();
    layer.watch(&agent.folder).unwrap();
    agent.start();
    agent.write_list(&KEYS.map(|key| format!("{key}\n")).concat());
    for key in KEYS {
        agent.waits_for(key, None);
    }
    until("all is on disk", || agent.entries().len() == KEYS.len() && KEYS.iter().all(|key| in_knox(&agent, key).is_some()));
    agent
}

fn in_knox(agent: &Agent, key: &str) -> Option<String> {
    fs::read_to_string(agent.path("knox/v0/keys").join(key)).ok()
}

/// Without the server each secret is as it was before or after a change, and nothing is found damaged.
fn look(agent: &Agent, values: &[String], what: &str) {
    assert_eq!(agent.status()["notes"], serde_json::json!([]), "{what}");
    for key in KEYS {
        let found = agent.read(key).unwrap_or_else(|code| panic!("{what}: {key} is {code}"));
        assert!(values.contains(&found), "{what}: {key} is {found}");
        let knox = in_knox(agent, key).unwrap_or_else(|| panic!("{what}: Knox's {key} is gone"));
        assert!(knox.ends_with('}') || knox.ends_with("}\n"), "{what}: Knox's {key} is half: {knox}");
    }
}

/// Of one change of three keys, every write, sync and change of a name is once the last thing that the process does; then power goes, too.
#[test]
fn killed_at_each_step_of_a_change_and_without_power_nothing_is_lost_or_damaged() {
    let stage = Stage::new();
    stage.create(&KEYS.map(|key| (key, "0")));
    let layer = FaultLayer::new().unwrap();
    let mut random = Random::seeded("steps of the agent");
    let mut agent = agent_on(&layer, &stage);
    let mut values = vec!["0".to_owned()];
    let (mut deaths, mut lost) = (0, 0);
    let step = if std::env::var_os("CLAVIGER_TEST_LONG").is_some() { 1 } else { 4 };
    for (class, name) in [(Class::Names, "names"), (Class::Syncs, "syncs"), (Class::Writes, "writes")] {
        for after in (0..40).step_by(step) {
            let what = format!("{name}, step {after}");
            let value = format!("{name}-{after}");
            values.push(value.clone());
            layer.fail(Failure { class, errno: FaultLayer::KILL, after, times: 1, only: "" }).unwrap();
            KEYS.iter().for_each(|key| stage.rotate(key, &value));
            // In memory first; what is left for the disk is done when it stops, or it dies of it.
            let has_come = |agent: &Agent| {
                KEYS.iter().all(|key| {
                    let asked = ask(&agent.socket(), "GET", &format!("/v1/secrets/{key}"));
                    asked.is_ok_and(|(_, _, body)| body == value)
                })
            };
            until("it ends, or all has come", || agent.child.as_mut().unwrap().try_wait().unwrap().is_some() || has_come(&agent));
            let mut child = agent.child.take().unwrap();
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).stderr(Stdio::null()).status();
            let ended = !child.wait().unwrap().success();
            deaths += u32::from(ended);
            layer.calm().unwrap();
            let loss = *random.pick(&[Loss::Everything, Loss::Tail, Loss::Sectors]);
            let taken = layer.crash(loss, &mut random).unwrap();
            lost += taken.pieces + taken.names;
            stage.outage();
            agent.start();
            look(&agent, &values, &format!("{what}, {loss:?}"));
            stage.back();
            for key in KEYS {
                agent.waits_for(key, Some(&value));
            }
            if !ended {
                break;
            }
        }
    }
    println!("{deaths} deaths, {lost} pieces and names were lost");
    assert!(deaths > 5 && lost > 0, "{deaths} deaths, {lost} lost: the layer was not there");
}

/// What was taken off is off the disk when it is said to be, and no power cut brings it back.
#[test]
fn a_power_cut_brings_nothing_back_that_was_taken_off() {
    let stage = Stage::new();
    stage.create(&KEYS.map(|key| (key, "0")));
    let layer = FaultLayer::new().unwrap();
    let mut random = Random::seeded("power of the agent");
    let mut agent = agent_on(&layer, &stage);
    // From here on all that stands is durable.
    agent.stop();
    layer.forget().unwrap();
    agent.start();
    stage.run(&["acl", "revoke", "app:a", "machine:dev-machine"]);
    stage.run(&["delete", "app:b", "--yes"]);
    ["app:a", "app:b"].iter().for_each(|key| agent.waits_until_gone(key));
    for key in ["app:a", "app:b"] {
        until("Knox's file is gone", || in_knox(&agent, key).is_none());
    }
    until("the entries are gone", || agent.entries().len() == 1);
    // It ends what it has begun; what it has not synced by then goes.
    agent.stop();
    layer.crash(Loss::Everything, &mut random).unwrap();
    stage.outage();
    assert_eq!((in_knox(&agent, "app:a"), in_knox(&agent, "app:b")), (None, None));
    agent.start();
    assert_eq!((agent.read("app:a"), agent.read("app:b")), (Err("not_found".into()), Err("not_found".into())));
    assert_eq!(agent.read("app:c"), Ok("0".into()));
}
