//! Someone edits the store's files while the server is down. Whatever he does, the server says so at the start, or answers
//! for the key concerned with an error that names it; no wrong secret is ever served.

use super::{CONFIG, audit_folder, database, rounds};
use anyhow::{Context, Result, bail, ensure};
use claviger_testkit::TestServer;
use claviger_testkit::faults::{Database, Random};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tempfile::TempDir;

/// How tampering must show.
#[derive(Debug, Clone, Copy)]
enum Shows {
    /// The server does not start, and its last words contain this.
    AtStart(&'static str),
    /// These keys answer an error naming them; all others are right.
    InKeys(&'static [&'static str]),
    /// The server's log contains this; all keys are right.
    InLog(&'static str),
}
use Shows::{AtStart, InKeys, InLog};

const ROWS: Shows = AtStart("behind Claviger's back");

/// What is done, in SQL, with `old` an earlier copy and `other` another server's store, and how it must show.
const TABLE: &[(&str, &str, Shows)] = &[
    ("meta of another key", "UPDATE keys SET meta = (SELECT meta FROM keys WHERE id = 'beta') WHERE id = 'alpha'", InKeys(&["alpha"])),
    (
        "meta and mac of another key",
        "UPDATE keys SET (meta, mac) = (SELECT meta, mac FROM keys WHERE id = 'beta') WHERE id = 'alpha'",
        ROWS,
    ),
    (
        "an older, wider ACL under the present mac",
        "UPDATE keys SET meta = (SELECT meta FROM old.keys WHERE id = 'beta') WHERE id = 'beta'",
        InKeys(&["beta"]),
    ),
    ("empty meta", "UPDATE keys SET meta = x'' WHERE id = 'alpha'", InKeys(&["alpha"])),
    ("another generation", "UPDATE keys SET generation = generation + 1 WHERE id = 'alpha'", InKeys(&["alpha"])),
    ("another incarnation", "UPDATE keys SET incarnation = incarnation + 1 WHERE id = 'alpha'", InKeys(&["alpha"])),
    ("a kind that is none", "UPDATE keys SET kind = 999 WHERE id = 'alpha'", InKeys(&["alpha"])),
    ("an epoch that is none", "UPDATE keys SET epoch = -1 WHERE id = 'alpha'", InKeys(&["alpha"])),
    ("a version's length", "UPDATE versions SET data_len = data_len + 1 WHERE key_id = 'beta'", InKeys(&["beta"])),
    ("a version that is none", "UPDATE versions SET version_id = 0 WHERE key_id = 'beta'", InKeys(&["beta"])),
    ("another kind", "UPDATE keys SET kind = kind + 1 WHERE id = 'alpha'", InKeys(&["alpha"])),
    (
        "a rollback beside a row whose mac is damaged",
        "UPDATE keys SET mac = zeroblob(length(mac)) WHERE id = 'alpha'; INSERT OR REPLACE INTO keys SELECT * FROM old.keys WHERE id = 'beta'",
        ROWS,
    ),
    (
        "a rollback beside a row whose contents are damaged",
        "UPDATE keys SET meta = zeroblob(length(meta)) WHERE id = 'alpha'; INSERT OR REPLACE INTO keys SELECT * FROM old.keys WHERE id = 'beta'",
        ROWS,
    ),
    (
        "a rollback beside a version that is gone",
        "DELETE FROM versions WHERE key_id = 'alpha'; INSERT OR REPLACE INTO keys SELECT * FROM old.keys WHERE id = 'beta'",
        ROWS,
    ),
    ("no mac", "UPDATE keys SET mac = zeroblob(length(mac)) WHERE id = 'alpha'", InKeys(&["alpha"])),
    ("renamed key", "UPDATE keys SET id = 'omega' WHERE id = 'alpha'", ROWS),
    ("changed data", "UPDATE versions SET data = CAST(zeroblob(5) || substr(data, 6) AS BLOB) WHERE key_id = 'beta'", InKeys(&["beta"])),
    (
        "data of another key",
        "UPDATE versions SET (data, data_len, data_tag) = (SELECT data, data_len, data_tag FROM versions WHERE key_id = 'beta') WHERE key_id = 'gamma'",
        InKeys(&["gamma"]),
    ),
    (
        "data key of another key",
        "UPDATE versions SET wrapped_key = (SELECT wrapped_key FROM versions WHERE key_id = 'beta') WHERE key_id = 'gamma'",
        InKeys(&["gamma"]),
    ),
    (
        "data and data key of another key",
        "UPDATE versions SET (wrapped_key, data, data_len, data_tag) = (SELECT wrapped_key, data, data_len, data_tag FROM versions WHERE key_id = 'beta') WHERE key_id = 'gamma'",
        InKeys(&["gamma"]),
    ),
    (
        "two versions' data swapped",
        "UPDATE versions AS v SET (wrapped_key, data, data_len, data_tag) = (SELECT wrapped_key, data, data_len, data_tag FROM versions WHERE key_id = 'alpha' AND version_id <> v.version_id ORDER BY version_id LIMIT 1) WHERE key_id = 'alpha'",
        InKeys(&["alpha"]),
    ),
    (
        "a version row under another key",
        "UPDATE versions SET key_id = 'gamma', incarnation = (SELECT incarnation FROM keys WHERE id = 'gamma') WHERE key_id = 'beta'",
        InKeys(&["beta"]),
    ),
    ("deleted key row", "DELETE FROM keys WHERE id = 'beta'", ROWS),
    (
        "deleted key with all of it",
        "DELETE FROM keys WHERE id = 'beta'; DELETE FROM versions WHERE key_id = 'beta'; DELETE FROM history WHERE key_id = 'beta'",
        ROWS,
    ),
    ("deleted version rows", "DELETE FROM versions WHERE key_id = 'alpha'", InKeys(&["alpha"])),
    (
        "one deleted version row",
        "DELETE FROM versions WHERE key_id = 'alpha' AND version_id = (SELECT min(version_id) FROM versions WHERE key_id = 'alpha')",
        InKeys(&["alpha"]),
    ),
    ("key row of an older copy", "INSERT OR REPLACE INTO keys SELECT * FROM old.keys WHERE id = 'beta'", ROWS),
    (
        "key row of the history",
        "UPDATE keys SET (generation, meta, mac) = (SELECT generation, meta, mac FROM history WHERE key_id = 'beta' ORDER BY revision LIMIT 1) WHERE id = 'beta'",
        ROWS,
    ),
    (
        "key row of an older copy, with its change taken back",
        "INSERT OR REPLACE INTO keys SELECT * FROM old.keys WHERE id = 'beta'; DELETE FROM changes WHERE target = 'beta' AND revision > (SELECT max(revision) FROM old.changes)",
        ROWS,
    ),
    (
        "deleted key brought back from an older copy",
        "INSERT INTO keys SELECT * FROM old.keys WHERE id = 'zeta'; INSERT INTO versions SELECT * FROM old.versions WHERE key_id = 'zeta'",
        ROWS,
    ),
    (
        "the same without its tombstone",
        "INSERT INTO keys SELECT * FROM old.keys WHERE id = 'zeta'; INSERT INTO versions SELECT * FROM old.versions WHERE key_id = 'zeta'; DELETE FROM tombstones",
        ROWS,
    ),
    (
        "key of another store",
        "INSERT INTO keys SELECT * FROM other.keys WHERE id = 'foreign'; INSERT INTO versions SELECT * FROM other.versions WHERE key_id = 'foreign'",
        ROWS,
    ),
    ("key of another store in the place of one", "INSERT OR REPLACE INTO keys SELECT * FROM other.keys WHERE id = 'beta'", ROWS),
    (
        "version of another store",
        "INSERT INTO versions SELECT 'beta', (SELECT incarnation FROM keys WHERE id = 'beta'), version_id, wrapped_key, data_len, data_tag, data FROM other.versions WHERE key_id = 'foreign'",
        ROWS,
    ),
    ("removed tombstone", "DELETE FROM tombstones", ROWS),
    ("tombstone of another store", "INSERT INTO tombstones SELECT * FROM other.tombstones", ROWS),
    ("removed grant", "DELETE FROM \"grants\"", ROWS),
    ("edited grant", "UPDATE \"grants\" SET body = CAST(substr(body, 1, length(body) - 1) || x'7f' AS BLOB)", InLog("do not count")),
    (
        "grant under another prefix",
        "INSERT INTO \"grants\" SELECT 'alpha:', generation, epoch, revision, mac, body, incarnation FROM \"grants\"",
        ROWS,
    ),
    ("grant of another store", "INSERT OR REPLACE INTO \"grants\" SELECT * FROM other.\"grants\"", ROWS),
    (
        "head of an older copy",
        "UPDATE head SET (epoch, revision, commit_id, sealed) = (SELECT epoch, revision, commit_id, sealed FROM old.head)",
        AtStart("roll"),
    ),
    ("a larger revision in the head", "UPDATE head SET revision = revision + 1", AtStart("head")),
    ("another commit id in the head", "UPDATE head SET commit_id = zeroblob(16)", AtStart("head")),
    ("no head", "DELETE FROM head", AtStart("store")),
    (
        "head of another store",
        "UPDATE head SET (epoch, revision, commit_id, sealed) = (SELECT epoch, revision, commit_id, sealed FROM other.head)",
        AtStart("head"),
    ),
    ("no barrier key", "DELETE FROM barrier", AtStart("barrier")),
    ("barrier key of another store", "UPDATE barrier SET wrapped = (SELECT wrapped FROM other.barrier)", AtStart("barrier")),
];

/// A store, an earlier copy of it and another server's, and what each key must say.
struct Scene {
    server: TestServer,
    now: Copy,
    old: Copy,
    other: Copy,
    /// The versions' data of each key, oldest first.
    truth: BTreeMap<&'static str, Vec<String>>,
}

/// Database and audit log as they were at one moment.
struct Copy(TempDir);

impl Copy {
    /// Of a server that is down.
    fn of(server: &TestServer) -> Result<Self> {
        let copy = Self(tempfile::tempdir()?);
        std::fs::copy(database(server), copy.0.path().join("claviger.db"))?;
        std::fs::create_dir(copy.0.path().join("audit"))?;
        copy_files(&audit_folder(server), &copy.0.path().join("audit"))?;
        Ok(copy)
    }

    fn put_database(&self, server: &TestServer) -> Result<()> {
        for name in ["claviger.db", "claviger.db-wal", "claviger.db-shm"] {
            // The latter two are there only after a kill.
            let _ = std::fs::remove_file(server.dir().join(name));
        }
        std::fs::copy(self.0.path().join("claviger.db"), database(server))?;
        Ok(())
    }

    fn put_log(&self, server: &TestServer) -> Result<()> {
        std::fs::remove_dir_all(audit_folder(server))?;
        std::fs::create_dir(audit_folder(server))?;
        copy_files(&self.0.path().join("audit"), &audit_folder(server))
    }

    fn put(&self, server: &TestServer) -> Result<()> {
        self.put_database(server)?;
        self.put_log(server)
    }

    fn path(&self) -> String {
        self.0.path().join("claviger.db").display().to_string()
    }
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for item in std::fs::read_dir(from)? {
        let item = item?;
        if item.file_name() != "reserve" {
            std::fs::copy(item.path(), to.join(item.file_name()))?;
        }
    }
    Ok(())
}

fn form(server: &TestServer, method: &str, path: &str, fields: &[(&str, &str)]) -> Result<serde_json::Value> {
    let answer = server.client()?.knox(method, path, &server.admin(), fields)?;
    ensure!(answer.status == 200, "{method} {path}: {}", answer.text());
    Ok(answer.json()["data"].clone())
}

fn create(server: &TestServer, id: &str, data: &str) -> Result<()> {
    let acl = r#"[{"type":"Machine","id":"host","access":"Write"}]"#;
    form(server, "POST", "/v0/keys/", &[("id", id), ("data", data), ("acl", acl)]).map(drop)
}

fn new_server() -> TestServer {
    crate::server_with(CONFIG)
}

impl Scene {
    fn new() -> Result<Self> {
        let mut other = new_server();
        create(&other, "foreign", "Zm9yZWlnbg==")?;
        create(&other, "beta", "b3RoZXI=")?;
        create(&other, "dead", "ZGVhZA==")?;
        form(&other, "DELETE", "/v0/keys/dead/", &[])?;
        other.terminate()?;
        let mut server = new_server();
        let large = "QUJD".repeat(3000);
        let truth = BTreeMap::from([
            ("alpha", vec!["YTE=".to_owned(), "YTI=".to_owned()]),
            ("beta", vec!["YmV0YQ==".to_owned()]),
            ("gamma", vec!["Z2FtbWE=".to_owned()]),
            ("large", vec![large]),
        ]);
        for (id, data) in &truth {
            create(&server, id, &data[0])?;
        }
        create(&server, "zeta", "emV0YQ==")?;
        server.terminate()?;
        let old = Copy::of(&server)?;
        server.restart()?;
        Self::change(&server)?;
        server.terminate()?;
        Ok(Self { now: Copy::of(&server)?, old, other: Copy::of(&other)?, truth, server })
    }

    /// What the older copy does not have: a version, a revoked right, a deletion, and a head that names a newer checkpoint.
    fn change(server: &TestServer) -> Result<()> {
        let version = form(server, "POST", "/v0/keys/alpha/versions/", &[("data", "YTI=")])?;
        form(server, "PUT", &format!("/v0/keys/alpha/versions/{version}/"), &[("status", "\"Primary\"")])?;
        form(server, "PUT", "/v0/keys/beta/access/", &[("access", r#"{"type":"Machine","id":"host","access":"None"}"#)])?;
        form(server, "DELETE", "/v0/keys/zeta/", &[])?;
        let checkpoint = || std::fs::read_to_string(audit_folder(server).join("checkpoint"));
        let before = checkpoint()?;
        for access in ["Read", "Write", "Admin"].iter().cycle() {
            let entry = format!(r#"{{"type":"Machine","id":"other","access":"{access}"}}"#);
            let newer = checkpoint()? != before;
            form(server, "PUT", "/v0/keys/gamma/access/", &[("access", &entry)])?;
            if newer {
                break;
            }
        }
        Ok(())
    }

    fn tamper(&self, sql: &str) -> Result<()> {
        self.now.put(&self.server)?;
        let mut database = Database::open(&database(&self.server))?;
        database.execute(&format!("ATTACH '{}' AS old", self.old.path()))?;
        database.execute(&format!("ATTACH '{}' AS other", self.other.path()))?;
        for statement in sql.split("; ") {
            ensure!(database.execute(statement)? > 0, "nothing was tampered with by: {statement}");
        }
        database.close()
    }

    /// Starts the server and says what it did wrong, if anything.
    fn check(&mut self, shows: Shows) -> Result<()> {
        match (self.start()?, shows) {
            (Some(words), AtStart(expected)) => ensure!(words.contains(expected), "it refused, but said: {words}"),
            (Some(words), InKeys(_) | InLog(_)) => bail!("it did not start: {words}"),
            (None, InLog(expected)) => {
                let damaged = self.read_all()?;
                ensure!(
                    damaged.is_empty() && self.server.log().contains(expected),
                    "damaged are {damaged:?}; its log: {}",
                    self.server.log()
                );
            }
            (None, AtStart(_)) => bail!("it started; its log: {}", self.server.log()),
            (None, InKeys(ids)) => {
                let damaged = self.read_all()?;
                ensure!(damaged == ids, "damaged are {damaged:?}, expected {ids:?}");
                let bearer = self.server.bearer();
                let status = self.server.client()?.request("GET", "/api/v1/status", &[("Authorization", &bearer)], b"")?.json();
                let problem = status["problems"][0]["detail"].as_str().unwrap_or_default();
                ensure!(
                    status["damaged_keys"] == ids.len() && ids.iter().all(|id| problem.contains(id)),
                    "status does not tell of {ids:?}: {status}"
                );
            }
        }
        self.server.kill();
        Ok(())
    }

    /// The last words of a server that refused to start. A crash is an error.
    fn start(&mut self) -> Result<Option<String>> {
        let before = self.server.log().len();
        let Err(error) = self.server.restart() else { return Ok(None) };
        let words = self.server.log()[before..].to_owned();
        let error = error.to_string();
        ensure!(!error.contains("signal") && !words.contains("panicked"), "it crashed: {words}");
        ensure!(!error.contains("in time"), "it hung: {words}");
        let last = words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        ensure!(last.len() > 20, "it refused without a sentence: {words}");
        Ok(Some(last.to_owned()))
    }

    /// Reads every key; gives those that answer an error naming them, and fails for any other answer but the right one.
    fn read_all(&self) -> Result<Vec<String>> {
        let mut damaged = Vec::new();
        let mut client = self.server.client()?;
        let listed = form(&self.server, "GET", "/v0/keys/", &[])?;
        let listed: Vec<&str> = listed.as_array().context("no list")?.iter().filter_map(|id| id.as_str()).collect();
        let mut ids: Vec<&str> = self.truth.keys().copied().chain(listed).collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let answer = client.knox("GET", &format!("/v0/keys/{id}/?status=\"Inactive\""), &self.server.admin(), &[])?;
            let json = answer.json();
            let data: Vec<_> = json["data"]["versions"].as_array().into_iter().flatten().filter_map(|v| v["data"].as_str()).collect();
            match self.truth.get(id) {
                Some(expected) if answer.status == 200 => ensure!(data == *expected, "`{id}` is served as {data:?}"),
                // Under a new name in the store, or not there at all: only an outsider's row may change the list.
                Some(_) if answer.status == 404 && !self.lists(id)? => {}
                _ => {
                    let message = json["message"].as_str().unwrap_or_default();
                    let is_named = answer.status == 500 && message.contains(id) && message.contains("damaged");
                    ensure!(is_named, "`{id}` answers {} {}", answer.status, answer.text());
                    damaged.push(id.to_owned());
                }
            }
        }
        Ok(damaged)
    }

    fn lists(&self, id: &str) -> Result<bool> {
        Ok(form(&self.server, "GET", "/v0/keys/", &[])?.as_array().is_some_and(|ids| ids.iter().any(|i| i == id)))
    }
}

#[test]
fn every_edit_of_the_database_is_noticed() {
    let mut scene = Scene::new().unwrap();
    scene.now.put(&scene.server).unwrap();
    scene.check(InKeys(&[])).context("untouched").unwrap();
    let mut wrong = Vec::new();
    for (what, sql, shows) in TABLE {
        if let Err(error) = scene.tamper(sql).and_then(|()| scene.check(*shows)) {
            wrong.push(format!("{what}: {error:#}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_database_or_log_of_another_time_is_noticed() {
    let mut scene = Scene::new().unwrap();
    let server = &scene.server;
    scene.now.put_log(server).unwrap();
    scene.old.put_database(server).unwrap();
    scene.check(AtStart("rolled back")).context("an older database").unwrap();

    scene.now.put_database(&scene.server).unwrap();
    scene.old.put_log(&scene.server).unwrap();
    scene.check(AtStart("audit log")).context("an older log").unwrap();

    scene.now.put(&scene.server).unwrap();
    std::fs::remove_dir_all(audit_folder(&scene.server)).unwrap();
    scene.check(AtStart("audit log")).context("no log").unwrap();

    scene.now.put_database(&scene.server).unwrap();
    scene.other.put_log(&scene.server).unwrap();
    scene.check(AtStart("audit log")).context("another server's log").unwrap();

    scene.other.put_database(&scene.server).unwrap();
    scene.now.put_log(&scene.server).unwrap();
    scene.check(AtStart("barrier")).context("another server's database").unwrap();

    for keep in [0, 1, 4095, 4096, 5000] {
        scene.now.put(&scene.server).unwrap();
        let part = std::fs::OpenOptions::new().write(true).open(audit_folder(&scene.server).join("entries-00000000.log")).unwrap();
        part.set_len(keep).unwrap();
        scene.check(AtStart("audit log")).with_context(|| format!("a log cut off after {keep} bytes")).unwrap();
    }

    scene.now.put(&scene.server).unwrap();
    scene.check(InKeys(&[])).context("everything as it was").unwrap();
}

#[test]
fn a_lost_or_damaged_write_ahead_log_is_noticed() {
    let mut random = Random::seeded("write-ahead log");
    let mut scene = Scene::new().unwrap();
    scene.now.put(&scene.server).unwrap();
    scene.server.restart().unwrap();
    for data in ["YTM=", "YTQ="] {
        form(&scene.server, "POST", "/v0/keys/beta/versions/", &[("data", data)]).unwrap();
        scene.truth.get_mut("beta").unwrap().push(data.to_owned());
    }
    scene.server.kill();
    let wal = scene.server.dir().join("claviger.db-wal");
    let whole = std::fs::read(&wal).unwrap();
    let copy = Copy::of(&scene.server).unwrap();
    let put = |scene: &Scene, wal_now: &[u8]| {
        copy.put(&scene.server).unwrap();
        std::fs::write(&wal, wal_now).unwrap();
    };
    put(&scene, &whole);
    scene.check(InKeys(&[])).context("as the kill left it").unwrap();
    put(&scene, &[]);
    scene.check(AtStart("rolled back")).context("an empty write-ahead log").unwrap();
    let (mut refused, mut harmless) = (0, 0);
    for round in 0..rounds(30) {
        let mut damaged = whole.clone();
        let at = random.below(whole.len() as u64) as usize;
        damaged[at] ^= 1 << random.below(8);
        put(&scene, &damaged);
        match scene.start().unwrap() {
            Some(_) => refused += 1,
            None => {
                let bad = scene.read_all().with_context(|| format!("round {round}: byte {at} of {}", whole.len())).unwrap();
                harmless += usize::from(bad.is_empty());
            }
        }
        scene.server.kill();
    }
    println!("write-ahead log: {refused} starts refused, {harmless} harmless");
}

#[test]
fn flipped_bits_never_serve_a_wrong_secret() {
    let mut random = Random::seeded("flipped bits");
    let mut scene = Scene::new().unwrap();
    let (mut refused, mut damaged, mut harmless) = (0, 0, 0);
    for round in 0..rounds(120) {
        scene.now.put(&scene.server).unwrap();
        let file = std::fs::OpenOptions::new().read(true).write(true).open(database(&scene.server)).unwrap();
        let length = file.metadata().unwrap().len();
        let at = random.below(length);
        let bit = 1u8 << random.below(8);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ bit], at).unwrap();
        let run = |scene: &mut Scene| {
            Ok::<_, anyhow::Error>(match scene.start()? {
                Some(_) => None,
                None => Some(scene.read_all()?),
            })
        };
        let found = run(&mut scene).with_context(|| format!("round {round}: byte {at} of {length}, bit {bit:#x}")).unwrap();
        match found {
            None => refused += 1,
            Some(ids) if ids.is_empty() => harmless += 1,
            Some(_) => damaged += 1,
        }
        scene.server.kill();
    }
    println!("flipped bits: {refused} starts refused, {damaged} keys damaged, {harmless} harmless");
    assert!(refused + damaged > 0);
}
