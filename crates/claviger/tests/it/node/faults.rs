//! Bad days of a machine: kills, a full disk, damage, two agents, and users who lay snares.

use super::stage::{Agent, PLAIN, Stage, in_the_name_of, until};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Pauses that are not evenly spread; printed with a failure by the caller.
fn pauses(seed: u64) -> impl Iterator<Item = Duration> {
    let mut state = seed | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Duration::from_micros(state % 40_000)
    })
}

/// Every restart finds each entry whole, as it was before or after a change; nothing is ever damaged or half removed.
#[test]
fn killed_at_any_moment_the_cache_is_whole() {
    let stage = Stage::new();
    let keys: Vec<String> = (0..12).map(|i| format!("k{i}")).collect();
    stage.create(&keys.iter().map(|key| (key.as_str(), "0")).collect::<Vec<_>>());
    let knox = format!("{PLAIN}[knox]\nenabled = true\nfolder = \"@/knox\"\n");
    let mut agent = stage.agent("a", &knox);
    agent.start();
    agent.write_list(&keys.concat_lines());
    for key in &keys {
        agent.waits_for(key, Some("0"));
    }
    // From here on all are on disk.
    agent.stop();
    agent.start();
    let seed = u64::from(std::process::id());
    let rounds = if std::env::var_os("CLAVIGER_TEST_LONG").is_some() { 150 } else { 15 };
    let mut values: BTreeMap<&str, u32> = keys.iter().map(|key| (key.as_str(), 0)).collect();
    for (round, pause) in pauses(seed).take(rounds).enumerate() {
        // Several changes on their way when it is killed.
        for key in keys.iter().skip(round % 3).step_by(4) {
            let value = values.get_mut(key.as_str()).unwrap();
            *value += 1;
            stage.rotate(key, &value.to_string());
        }
        std::thread::sleep(pause);
        agent.kill();
        if round % 3 == 0 {
            stage.outage();
        }
        agent.start();
        let status = agent.status();
        assert_eq!(status["notes"], serde_json::json!([]), "seed {seed}, round {round}");
        assert_eq!(status["registered"], 12, "seed {seed}, round {round}");
        if round % 3 == 0 {
            for (key, value) in &values {
                let found: u32 = agent.read(key).unwrap().parse().unwrap();
                assert!(found <= *value, "seed {seed}, round {round}: {key}");
            }
            stage.back();
        }
    }
    for (key, value) in &values {
        agent.waits_for(key, Some(&value.to_string()));
        until("Knox's file has it too", || {
            fs::read_to_string(agent.path("knox/v0/keys").join(key)).is_ok_and(|json| json.contains("Primary"))
        });
    }
    let is_half = |name: &str| name.ends_with(".new");
    until("no half-written file stays", || {
        !fs::read_dir(agent.path("cache")).unwrap().any(|file| is_half(&file.unwrap().file_name().to_string_lossy()))
    });
}

trait ConcatLines {
    fn concat_lines(&self) -> String;
}

impl ConcatLines for [String] {
    fn concat_lines(&self) -> String {
        self.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// A small file system for the cache; unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=96k,mode=0700", "none"]).arg(at).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Self(at)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn on_a_full_disk_secrets_are_served_and_removed_and_it_catches_up_when_there_is_room() {
    let stage = Stage::new();
    stage.create(&[("a", "first"), ("b", "going"), ("app:c", "knox")]);
    let mut agent = stage.agent("a", &format!("{PLAIN}[knox]\nenabled = true\nfolder = \"@/cache/knox\"\n"));
    let cache = agent.path("cache");
    let _disk = SmallDisk::mount(&cache);
    agent.start();
    agent.register("a");
    agent.register("b");
    agent.waits_for_list("cache/knox");
    fs::write(cache.join("knox/.registered"), "app:c\n").unwrap();
    agent.waits_for("app:c", Some("knox"));
    until("all is on disk", || agent.entries().len() == 3 && cache.join("knox/v0/keys/app:c").exists());
    let filler = cache.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
    stage.rotate("a", &"second".repeat(1000));
    stage.rotate("app:c", &"knox2".repeat(1000));
    stage.run(&["delete", "b", "--yes"]);
    agent.waits_for("a", Some(&"second".repeat(1000)));
    agent.waits_until_gone("b");
    until("it is said", || agent.status()["problems"].to_string().contains("the cache cannot be written"));
    until("Knox's folder too", || agent.status()["problems"].to_string().contains("Knox's folder"));
    assert!(fs::read_to_string(cache.join("knox/v0/keys/app:c")).unwrap().contains("a25veA=="), "the old file is whole");
    until("what is gone is gone from the full disk", || agent.entries().len() == 2);
    // Nobody can register now, and hears why.
    let (status, body) = agent.ask("PUT", "/v1/registered/x");
    assert!(status == 503 && body.contains("No space left"), "{body}");
    assert_eq!(agent.ask("DELETE", "/v1/registered/x").0, 503);
    drop(file);
    fs::remove_file(filler).unwrap();
    until("it has caught up", || agent.status()["problems"].as_array().unwrap().is_empty());
    agent.kill();
    stage.outage();
    agent.start();
    assert_eq!(agent.read("a"), Ok("second".repeat(1000)));
    assert_eq!(agent.read("b"), Err("not_found".into()));
}

#[test]
fn a_damaged_entry_is_fetched_again_and_said() {
    let stage = Stage::new();
    stage.create(&[("a", "value-of-a"), ("b", "value-of-b")]);
    let mut agent = stage.agent("a", PLAIN);
    agent.start();
    agent.register("a");
    agent.register("b");
    agent.stop();
    let damaged = agent.entries().remove(0);
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[50] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    stage.outage();
    agent.start();
    let answers = [agent.read("a"), agent.read("b")];
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    assert!(agent.status()["notes"].to_string().contains("is damaged: dropped, to be fetched again"));
    stage.back();
    agent.waits_for("a", Some("value-of-a"));
    agent.waits_for("b", Some("value-of-b"));
}

#[test]
fn a_second_agent_on_one_cache_or_socket_is_refused_with_the_remedy() {
    let stage = Stage::new();
    let mut first = stage.agent("first", PLAIN);
    first.start();
    let cache = PLAIN.replace("@/cache", &first.path("cache").display().to_string());
    let (code, said) = stage.agent("second", &cache).fails();
    assert!(code == 2 && said.contains("another agent uses the cache") && said.contains("node.cache"), "{code}: {said}");
    let socket = PLAIN.replace("@/socket", &first.socket().display().to_string());
    let (code, said) = stage.agent("third", &socket).fails();
    assert!(code == 1 && said.contains("another agent answers") && said.contains("node.socket"), "{code}: {said}");
    assert_eq!(first.status()["registered"], 0);
    // One that was killed leaves a socket and a lock file, which hold nobody up.
    first.kill();
    first.start();
}

/// Another user of the machine swaps what is in Knox's open folder for links to files that only root may touch.
#[test]
fn a_hostile_local_user_with_links_reaches_nothing_outside_knoxs_folder() {
    let stage = Stage::new();
    stage.create(&[("app:a", "0"), ("app:b", "x")]);
    let mut agent = stage.agent("a", &format!("{PLAIN}[knox]\nenabled = true\nmodes = \"knox\"\nfolder = \"@/knox\"\n"));
    agent.start();
    agent.waits_for_list("knox");
    fs::set_permissions(&agent.folder, fs::Permissions::from_mode(0o755)).unwrap();
    let (knox, victim, elsewhere) = (agent.path("knox"), agent.path("victim"), agent.path("elsewhere"));
    fs::write(&victim, "precious\n").unwrap();
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir_all(elsewhere.join("keys")).unwrap();
    fs::write(elsewhere.join("keys/app:a"), "precious").unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| in_the_name_of(4242, &[], || lay_snares(&knox, &victim, &elsewhere, &over)));
        for (round, pause) in pauses(7).take(40).enumerate() {
            std::thread::sleep(pause);
            if round % 4 == 0 {
                stage.rotate("app:a", &round.to_string());
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious\n");
    let found = fs::metadata(&victim).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o600, 0));
    assert_eq!(fs::read_to_string(elsewhere.join("keys/app:a")).unwrap(), "precious");
    assert_eq!(fs::read_dir(elsewhere.join("keys")).unwrap().count(), 1);
    // What was snared is said; once it is cleared the folder works again.
    assert_eq!(agent.status()["live"], true);
    for name in [".registered", "v0"] {
        let path = knox.join(name);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
    fs::write(knox.join("list"), "app:b\n").unwrap();
    fs::rename(knox.join("list"), knox.join(".registered")).unwrap();
    until("the folder works again", || fs::read_to_string(knox.join("v0/keys/app:b")).is_ok_and(|json| json.contains("eA==")));
}

fn lay_snares(knox: &Path, victim: &Path, elsewhere: &Path, over: &AtomicBool) {
    let list = knox.join(".registered");
    let clear = |path: &Path| {
        let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
    };
    // Each may lose its race; that is what races are.
    let mut round = 0_u32;
    while !over.load(Ordering::SeqCst) {
        round += 1;
        clear(&list);
        let _ = match round % 4 {
            0 => symlink(victim, &list),
            1 => fs::hard_link(victim, &list),
            2 => rustix::fs::mknodat(rustix::fs::CWD, &list, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).map_err(Into::into),
            _ => fs::write(&list, "app:a\napp:b\n"),
        };
        for name in fs::read_dir(knox).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if name.extension().is_some_and(|ending| ending == "tmp") {
                clear(&name);
                let _ = symlink(victim, &name);
            }
        }
        if round.is_multiple_of(8) {
            let _ = fs::rename(knox.join("v0"), knox.join(format!("old{round}")));
            let _ = symlink(elsewhere, knox.join("v0"));
        }
        if round % 8 == 4 {
            clear(&knox.join("v0"));
        }
        if round % 8 == 6 {
            let key = knox.join("v0/keys/app:a");
            clear(&key);
            let _ = symlink(victim, &key);
        }
        std::thread::yield_now();
    }
}

/// A device that is not there yet, a disk that is not mounted: the cache outlives it, and nothing is given out of it meanwhile.
#[test]
fn a_cache_whose_key_cannot_be_had_is_kept_and_taken_in_when_the_key_comes() {
    let stage = Stage::new();
    stage.create(&[("a", "of-the-cache"), ("revoked", "r"), ("untouched", "u")]);
    let mut agent = stage.agent("a", &PLAIN.replace("kind = \"file\"", "kind = \"file\"\nfile = \"@/key\""));
    agent.start();
    ["a", "revoked", "untouched"].iter().for_each(|key| agent.register(key));
    agent.stop();
    let (key, away) = (agent.path("key"), agent.path("key.away"));
    let say = |agent: &Agent| until("it is said", || agent.status()["problems"].to_string().contains("its key cannot be had now"));
    // Without key and server there is nothing to give out.
    stage.outage();
    fs::rename(&key, &away).unwrap();
    agent.start();
    say(&agent);
    assert_eq!((agent.read("a"), agent.entries().len()), (Err("not_found".to_owned()), 3));
    agent.stop();
    assert_eq!(agent.entries().len(), 3, "neither is anything written or removed");
    agent.start();
    fs::rename(&away, &key).unwrap();
    agent.waits_for("a", Some("of-the-cache"));
    agent.stop();
    // Without the key and with the server: what is asked for is fetched, and held in memory.
    fs::rename(&key, &away).unwrap();
    stage.back();
    agent.start();
    let (code, said) = agent.ask("PUT", "/v1/registered/a");
    assert!(code == 503 && said.contains("cannot be had now"), "{said}");
    agent.waits_for("a", Some("of-the-cache"));
    stage.rotate("a", "newer");
    agent.waits_for("a", Some("newer"));
    stage.run(&["acl", "revoke", "revoked", "machine:dev-machine"]);
    assert_eq!(agent.entries().len(), 3);
    fs::rename(&away, &key).unwrap();
    agent.waits_until_gone("revoked");
    agent.waits_for("untouched", Some("u"));
    assert_eq!(agent.read("a"), Ok("newer".into()));
    until("all is on disk", || agent.entries().len() == 2);
    until("all is well", || agent.status()["problems"].as_array().unwrap().is_empty());
    agent.stop();
    stage.outage();
    agent.start();
    assert_eq!((agent.read("a"), agent.read("untouched")), (Ok("newer".into()), Ok("u".into())));
    assert_eq!((agent.read("revoked"), agent.status()["notes"].clone()), (Err("not_found".to_owned()), serde_json::json!([])));
}

/// Not an agent's own business, but what it promises: its process shows no secret to others of the same user.
#[test]
fn the_process_cannot_be_dumped_or_read_by_its_own_user() {
    let stage = Stage::new();
    let mut agent: Agent = stage.agent("a", PLAIN);
    agent.start();
    let status = fs::read_to_string(format!("/proc/{}/status", agent.child.as_ref().unwrap().id())).unwrap();
    let locked: u64 = status.lines().find_map(|l| l.strip_prefix("VmLck:")).unwrap().trim().trim_end_matches(" kB").trim().parse().unwrap();
    assert!(locked > 0, "memory is locked where the tests run as root");
    assert!(agent.status()["memory"].as_str().unwrap().contains("core dumps are forbidden"));
}
