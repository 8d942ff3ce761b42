//! A full disk: a small file system of its own for store and audit log, in a mount namespace of the server's own.

use super::{CONFIG, check_log, read_log};
use claviger_testkit::{Answer, Client, Options, TestServer};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Room for everything at first, and little beyond.
const SIZE: &str = "96m";
const PATIENCE: Duration = Duration::from_secs(60);

/// A server whose store and log are in a file system that the test can fill.
struct Small {
    server: TestServer,
    mount: tempfile::TempDir,
    _script: tempfile::TempDir,
}

impl Small {
    /// None where mounting is not allowed; the reason is printed.
    fn start() -> Option<Self> {
        let tried = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/tmp"]).output();
        match tried {
            Ok(done) if done.status.success() => {}
            Ok(done) => {
                println!("skipped: no file system can be mounted here: {}", String::from_utf8_lossy(&done.stderr).trim());
                return None;
            }
            Err(error) => {
                println!("skipped: `unshare` cannot be run: {error}");
                return None;
            }
        }
        let (mount, script) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (at, program) = (mount.path().display(), crate::program().display());
        let text = format!(
            "#!/bin/sh\nexec unshare -m sh -c 'mount -t tmpfs -o size={SIZE} none \"{at}\" && exec \"{program}\" \"$@\"' sh \"$@\"\n"
        );
        let path = script.path().join("small");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = format!("[store]\npath = \"{at}/claviger.db\"\n{CONFIG}folder = \"{at}/audit\"\n");
        let server = TestServer::start(&path, Options { config: Some(config), environment: Vec::new() }).unwrap();
        Some(Self { server, mount, _script: script })
    }

    /// The file system as seen from outside.
    fn inside(&self) -> PathBuf {
        let mount = self.mount.path().strip_prefix("/").unwrap();
        Path::new("/proc").join(self.server.pid().unwrap().to_string()).join("root").join(mount)
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.inside().join("filler")).unwrap();
        for size in [1 << 20, 64 << 10, 4 << 10, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.inside().join("filler")).unwrap();
    }

    fn add(&self, client: &mut Client) -> Answer {
        client.knox("POST", "/v0/keys/k/versions/", &self.server.admin(), &[("data", &"QUJD".repeat(2000))]).unwrap()
    }

    fn read(&self, client: &mut Client) -> Answer {
        client.knox("GET", "/v0/keys/k/", &self.server.admin(), &[]).unwrap()
    }

    fn create_natively(&self, client: &mut Client, id: &str) -> Answer {
        let headers = [("Authorization", self.server.bearer()), ("Content-Type", "application/json".to_owned())];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        client.request("POST", "/api/v1/keys", &headers, format!(r#"{{"id":"{id}","data":"aGk="}}"#).as_bytes()).unwrap()
    }
}

/// A refusal that says what is wrong.
fn is_clearly_full(answer: &Answer) -> bool {
    let json = answer.json();
    let message = json["message"].as_str().unwrap_or_default();
    answer.status == 500 && json["code"] == 1 && (message.contains("full") || message.contains("space"))
}

#[test]
fn on_a_full_disk_writes_are_refused_reads_go_on_for_the_reserve_and_room_heals_all() {
    let Some(small) = Small::start() else { return };
    let mut client = small.server.client().unwrap();
    let created = client.knox("POST", "/v0/keys/", &small.server.admin(), &[("id", "k"), ("data", "aGk=")]).unwrap();
    assert_eq!(created.status, 200, "{}", created.text());
    small.fill();

    // What was reserved ahead may still take some.
    let mut kept = 0;
    let refused = loop {
        small.fill();
        let answer = small.add(&mut client);
        if answer.status != 200 {
            break answer;
        }
        kept += 1;
        assert!(kept < 2000, "the disk is full and writes go on");
    };
    assert!(is_clearly_full(&refused), "{} {}", refused.status, refused.text());
    let natively = small.create_natively(&mut client, "n");
    assert_eq!(natively.status, 507, "{}", natively.text());
    assert_eq!(natively.json()["code"], "storage_full", "{}", natively.text());

    // Reads go on, and writes stay refused, as long as there is room for the records of reads.
    let (mut reads, mut writes) = (0, 0);
    let refused = loop {
        small.fill();
        let answer = small.read(&mut client);
        if answer.status != 200 {
            break answer;
        }
        reads += 1;
        if reads % 50 == 0 && small.add(&mut client).status == 200 {
            writes += 1;
        }
        assert!(reads < 100_000, "the disk is full and the log goes on");
    };
    assert!(is_clearly_full(&refused), "{} {}", refused.status, refused.text());
    println!("full disk: {kept} writes and {reads} reads after it was full, {writes} writes among the latter");
    assert!(reads >= 50, "only {reads} reads went on");
    assert_eq!(writes, 0, "writes took the room that is kept for reads");

    // Room again: all works again, without a restart.
    small.free();
    let deadline = Instant::now() + PATIENCE;
    while small.add(&mut client).status != 200 {
        assert!(Instant::now() < deadline, "there is room and writes are refused: {}", small.add(&mut client).text());
        std::thread::sleep(Duration::from_millis(50));
    }
    let natively = small.create_natively(&mut client, "n2");
    assert_eq!(natively.status, 201, "{}", natively.text());
    let read = client.knox("GET", "/v0/keys/k/?status=\"Inactive\"", &small.server.admin(), &[]).unwrap();
    // A write that was refused because its record found no room may have been made all the same.
    assert!(read.json()["data"]["versions"].as_array().unwrap().len() >= kept + 2, "the first, those kept, and one more");

    let folder = small.inside().join("audit");
    check_log(&folder).unwrap();
    let logged = read_log(&folder, 0).unwrap();
    let recorded = logged.deeds[&("read".to_owned(), "k".to_owned(), 0, "ok".to_owned())];
    assert!(recorded > reads, "{reads} reads were answered and {recorded} are recorded");
    while !folder.join("reserve").exists() {
        assert!(Instant::now() < deadline, "the reserve was not taken back");
        std::thread::sleep(Duration::from_millis(50));
    }
}
