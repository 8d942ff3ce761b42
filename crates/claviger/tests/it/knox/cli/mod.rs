//! Knox's command line, `claviger knox`, against the real server: what it prints where, and its exit codes.

mod daemon;
mod login;
mod tink;
mod transcript;
mod wire;

// The client's own tests use more of it.
#[allow(dead_code, unreachable_pub)]
#[path = "../../../../../client/tests/client/canned.rs"]
mod canned;

use super::server;
use claviger_testkit::TestServer;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A server, a cache folder and a home of one test.
pub(super) struct Stage {
    pub(super) server: TestServer,
    home: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        Self { server: server(""), home: tempfile::tempdir().unwrap() }
    }

    /// The cache folder, which nobody has made yet.
    fn folder(&self) -> PathBuf {
        self.home.path().join("knox")
    }

    /// `knox`, by a link of that name, with nothing in its environment but where the server and the cache are.
    fn knox(&self, arguments: &[&str]) -> Command {
        let link = self.home.path().join("knox-link/knox");
        if !link.exists() {
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(crate::program(), &link).unwrap();
        }
        let mut command = Command::new(link);
        command.env_clear().env("HOME", self.home.path()).env("KNOX_FOLDER", self.folder());
        command.env("KNOX_HOST", self.server.address().to_string()).env("KNOX_CA", self.server.env("CLAVIGER_CA"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn as_user(&self, token: &str, arguments: &[&str]) -> Command {
        let mut command = self.knox(arguments);
        command.env("KNOX_USER_AUTH", token);
        command
    }

    /// With the development server's machine certificate.
    fn as_machine(&self, arguments: &[&str]) -> Command {
        let mut command = self.knox(arguments);
        command.env("KNOX_CERT", self.server.env("CLAVIGER_MACHINE_CERT")).env("KNOX_KEY", self.server.env("CLAVIGER_MACHINE_KEY"));
        command
    }

    /// What alice's command prints; it must succeed.
    fn alice(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = with_input(self.as_user("alice-token", arguments), input);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        output.stdout
    }

    /// Makes a key as alice, which the development machine may read; the id of its version.
    fn create_for_machine(&self, id: &str, value: &[u8]) -> String {
        let said = text(&self.alice(&["create", id], value));
        self.alice(&["access", "-r", "-M", id, "dev-machine"], b"");
        said.trim().rsplit(' ').next().unwrap().to_owned()
    }
}

fn with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have ended without reading.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Looks until `found` is there.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn claviger_knox_and_a_link_named_knox_are_the_same() {
    let stage = Stage::new();
    let by_link = stage.knox(&["version"]).output().unwrap();
    let mut command = Command::new(crate::program());
    let by_name = command.args(["knox", "version"]).output().unwrap();
    assert_eq!((text(&by_link.stdout), by_link.status.code()), (text(&by_name.stdout), by_name.status.code()));
    assert!(text(&by_link.stdout).starts_with("Knox CLI version "), "{}", text(&by_link.stderr));
}

#[test]
fn our_own_settings_do_where_knoxs_are_not_set() {
    let stage = Stage::new();
    stage.create_for_machine("cli:own", b"hunter2");
    let ours = |more: &[(&str, &str)]| {
        let mut command = Command::new(crate::program());
        command.env_clear().args(["knox", "get", "-n", "cli:own"]).stdin(Stdio::null());
        command.env("CLAVIGER_ADDR", stage.server.env("CLAVIGER_ADDR")).env("CLAVIGER_CA", stage.server.env("CLAVIGER_CA"));
        command.envs(more.iter().copied()).output().unwrap()
    };
    let by_token = ours(&[("CLAVIGER_TOKEN", "alice-token")]);
    assert_eq!(text(&by_token.stdout), "hunter2", "{}", text(&by_token.stderr));
    let certificate =
        [("CLAVIGER_CERT", stage.server.env("CLAVIGER_MACHINE_CERT")), ("CLAVIGER_KEY", stage.server.env("CLAVIGER_MACHINE_KEY"))];
    let by_machine = ours(&certificate);
    assert_eq!(text(&by_machine.stdout), "hunter2", "{}", text(&by_machine.stderr));
    let nobody = ours(&[]);
    assert_eq!(
        (text(&nobody.stderr).as_str(), nobody.status.code()),
        ("Error getting key: No authentication data given. Use 'knox login' or set KNOX_USER_AUTH or KNOX_MACHINE_AUTH\n", Some(1))
    );
}

#[test]
fn a_service_is_the_one_of_its_certificate() {
    let stage = Stage::new();
    stage.alice(&["create", "cli:service"], b"hunter2");
    let acl = text(&stage.alice(&["acl", "cli:service"], b""));
    assert_eq!(acl, "{\"type\":\"User\",\"id\":\"alice\",\"access\":\"Admin\"}\n");
    let as_service = |more: &[(&str, &str)]| {
        let mut command = stage.knox(&["get", "cli:service"]);
        command.env("KNOX_CERT", stage.server.env("CLAVIGER_SERVICE_CERT")).env("KNOX_KEY", stage.server.env("CLAVIGER_SERVICE_KEY"));
        command.envs(more.iter().copied()).output().unwrap()
    };
    let refused = as_service(&[("KNOX_SERVICE_AUTH", "1")]);
    let said = text(&refused.stderr);
    assert!(said.contains("attempted auth types: [service]\nthe server said: ") && refused.status.code() == Some(1), "{said}");
    let name = said.split_whitespace().find(|word| word.starts_with("spiffe://")).unwrap().to_owned();
    stage.alice(&["access", "-r", "-S", "cli:service", &name], b"");
    for more in [&[("KNOX_SERVICE_AUTH", "1")][..], &[]] {
        assert_eq!(text(&as_service(more).stdout), "hunter2");
    }
}

#[test]
fn a_server_that_does_not_prove_itself_gets_no_token() {
    let stage = Stage::new();
    let mut stranger = stage.as_user("alice-token", &["keys"]);
    stranger.env("KNOX_CA", stage.server.env("CLAVIGER_MACHINE_CERT"));
    let refused = stranger.output().unwrap();
    assert!(text(&refused.stderr).starts_with("Error getting keys: no trusted connection"), "{}", text(&refused.stderr));
    let mut named = stage.as_user("alice-token", &["keys"]);
    named.env("KNOX_SERVER_NAME", "knox");
    assert!(named.output().unwrap().status.success(), "the development server's certificate is for `knox` too");
    let mut misnamed = stage.as_user("alice-token", &["keys"]);
    misnamed.env("KNOX_SERVER_NAME", "other.example.org");
    assert_eq!(misnamed.output().unwrap().status.code(), Some(1));
}

#[test]
fn without_a_cache_registering_fetches_at_once_or_says_that_there_is_none() {
    let stage = Stage::new();
    stage.create_for_machine("cli:none", b"hunter2");
    let run = |arguments: &[&str]| {
        let mut command = stage.as_machine(arguments);
        command.env("KNOX_NO_CACHE", "1").output().unwrap()
    };
    let fetched = run(&["register", "-g", "-k", "cli:none"]);
    assert!(text(&fetched.stdout).starts_with("{\"id\":\"cli:none\",\"acl\":[],\"versions\":["), "{}", text(&fetched.stderr));
    assert!(!text(&fetched.stdout).contains("\"path\""));
    let said = run(&["register", "-k", "cli:none"]);
    assert_eq!((text(&said.stdout).as_str(), said.status.code()), ("Cannot Register in No Cache mode\n", Some(0)));
    assert_eq!(run(&["unregister", "cli:none"]).status.code(), Some(1));
    assert!(!stage.folder().exists());
}
