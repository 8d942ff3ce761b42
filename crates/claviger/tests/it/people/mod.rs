//! People log in at real providers: through a browser with PKCE, by the device flow, again and again, and out.

mod attacks;
mod knox;
mod provider;
mod table;

use crate::program;
use claviger_testkit::{Options, TestServer};
use provider::Provider;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A server at which people of some providers log in, and one person's home.
struct Site {
    server: TestServer,
    home: tempfile::TempDir,
}

impl Site {
    fn of(config: &str) -> Self {
        let options = Options { config: Some(config.to_owned()), ..Options::default() };
        Self { server: TestServer::start(program(), options).unwrap(), home: tempfile::tempdir().unwrap() }
    }

    fn at(provider: &Provider) -> Self {
        Self::of(&provider.section("corp", "device_flow = true"))
    }

    /// The command as the person runs it, with no other credential.
    fn claviger(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.home.path());
        command.env("CLAVIGER_ADDR", self.server.env("CLAVIGER_ADDR")).env("CLAVIGER_CA", self.server.env("CLAVIGER_CA"));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        said(self.claviger(arguments).output().unwrap())
    }

    /// `claviger login`, up to the address that it wants opened.
    fn begin(&self, arguments: &[&str]) -> Login {
        let mut child = self.claviger(&[&["login"], arguments].concat()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (mut seen, mut lines) = (String::new(), Vec::new());
        while !lines.iter().any(|line: &String| line.starts_with("  ")) {
            let mut line = String::new();
            if stderr.read_line(&mut line).unwrap() == 0 {
                break;
            }
            seen.push_str(&line);
            lines.push(line);
        }
        // The rest must not fill the pipe.
        let (sender, rest) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            let _ = sender.send(text);
        });
        let shown = lines.iter().find(|l| l.starts_with("  ")).map(|l| l.trim().to_owned()).unwrap_or_default();
        Login { child: Some(child), shown, seen, rest }
    }

    /// A whole login through a browser.
    fn log_in(&self, provider: &Provider, user: &str) {
        let login = self.begin(&["--no-browser"]);
        assert_eq!(provider.browse(&login.shown, user, "visit"), "200");
        let (code, out, err) = login.end();
        assert_eq!(code, 0, "{err}");
        assert!(out.starts_with(&format!("logged in as user:{user} by corp")), "{out}");
    }

    /// Ends the server and starts it again. It gets another port, which the person's file is told.
    fn restart(&mut self) {
        let before = self.server.address().to_string();
        self.server.terminate().unwrap();
        self.server.restart().unwrap();
        let text = std::fs::read_to_string(self.file()).unwrap();
        std::fs::write(self.file(), text.replace(&before, &self.server.address().to_string())).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.home.path().join(".local/state/claviger/sessions.json")
    }

    fn kept(&self) -> serde_json::Value {
        let all: serde_json::Value = serde_json::from_slice(&std::fs::read(self.file()).unwrap()).unwrap();
        all["sessions"].as_object().unwrap().values().next().unwrap().clone()
    }

    /// The records of this action, as the administrator finds them.
    fn records(&self, action: &str) -> Vec<serde_json::Value> {
        let target = format!("/api/v1/audit?action={action}&limit=50");
        let answer = self.server.client().unwrap().request("GET", &target, &[("Authorization", &self.server.bearer())], b"").unwrap();
        answer.json()["records"].as_array().unwrap().iter().map(|r| r["record"].clone()).collect()
    }
}

/// A `claviger login` under way; it ends with this.
struct Login {
    child: Option<Child>,
    /// The address or code that it shows.
    shown: String,
    seen: String,
    rest: mpsc::Receiver<String>,
}

impl Login {
    fn end(mut self) -> (i32, String, String) {
        let (code, out, _) = said(self.child.take().unwrap().wait_with_output().unwrap());
        (code, out, self.seen.clone() + &self.rest.recv_timeout(Duration::from_secs(20)).unwrap())
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn said(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_person_logs_in_through_a_browser_works_and_logs_out() {
    let provider = Provider::start();
    provider.set_groups("alice", "ops,dev");
    let site = Site::at(&provider);
    let (code, _, err) = site.run(&["whoami"]);
    assert!(code == 5 && err.contains("claviger login"), "{err}");
    site.log_in(&provider, "alice");

    let (code, out, err) = site.run(&["whoami"]);
    assert!(code == 0 && out.contains("user:alice") && out.contains("oidc:corp") && out.contains("ops,dev"), "{out}{err}");
    assert!(out.contains("session until"), "{out}");
    let mode = std::fs::metadata(site.file()).unwrap().mode() & 0o7777;
    let folder = std::fs::metadata(site.file().parent().unwrap()).unwrap().mode() & 0o7777;
    assert_eq!((mode, folder), (0o600, 0o700));

    let login = site.records("login").remove(0);
    assert_eq!(login["outcome"], "ok");
    assert!(login.to_string().contains("oidc:corp") && login.to_string().contains("alice"), "{login}");

    let kept = site.kept();
    let secrets = ["token", "ticket", "refresh_token"].map(|name| kept[name].as_str().unwrap().to_owned());
    assert_eq!(site.run(&["logout"]).0, 0);
    assert!(!site.file().exists());
    let refused =
        site.server.client().unwrap().request("GET", "/api/v1/whoami", &[("Authorization", &format!("Bearer {}", secrets[0]))], b"");
    assert_eq!(refused.unwrap().status, 401, "the session is over at the server");
    let form = format!("grant_type=refresh_token&client_id=claviger&refresh_token={}", secrets[2]);
    let spent = provider.ask("POST", "/token", &[("Content-Type", "application/x-www-form-urlencoded")], form.as_bytes());
    assert_eq!((spent.status, spent.json()["error"].as_str()), (400, Some("invalid_grant")), "and at the provider");
    assert_eq!(site.records("logout").len(), 1);
    assert_eq!(site.run(&["logout"]), (0, format!("there was no login at {}\n", site.server.address()), String::new()));

    let log = site.server.log();
    let records = format!("{:?}{:?}{:?}", site.records("login"), site.records("request"), site.records("logout"));
    for secret in &secrets {
        assert!(!log.contains(secret) && !records.contains(secret.as_str()), "a token was written down");
    }
}

#[test]
fn a_session_is_renewed_by_itself_after_a_restart_and_with_the_groups_of_now() {
    let provider = Provider::start();
    provider.set_groups("alice", "ops");
    let mut site = Site::at(&provider);
    site.log_in(&provider, "alice");
    let before = site.kept();
    provider.set_groups("alice", "dev");
    assert!(site.run(&["whoami"]).1.contains("ops"), "until the renewal it is the session's own");
    // A restart ends all sessions, and not the logins.
    site.restart();
    let (code, out, err) = site.run(&["whoami"]);
    assert!(code == 0 && out.contains("dev") && !out.contains("ops"), "{out}{err}");
    let after = site.kept();
    assert!(after["token"] != before["token"] && after["refresh_token"] != before["refresh_token"]);
    assert_eq!(site.records("renew_session")[0]["outcome"], "ok");

    // Many programs at once renew once: a provider that turns refresh tokens over takes each one only once.
    site.restart();
    let all: Vec<_> = (0..6).map(|_| site.claviger(&["whoami"]).spawn().unwrap()).collect();
    for child in all {
        let (code, _, err) = said(child.wait_with_output().unwrap());
        assert_eq!(code, 0, "{err}");
    }
    assert_eq!(site.records("renew_session").len(), 2);
    assert_eq!(site.run(&["logout"]).0, 0);
}

#[test]
fn logout_ends_the_login_at_the_server_where_its_session_is_over_already() {
    let provider = Provider::start();
    let mut site = Site::at(&provider);
    site.log_in(&provider, "alice");
    let before = site.kept();
    // The session ends, and what renews it does not.
    site.restart();
    let (code, out, err) = site.run(&["logout"]);
    assert!(code == 0 && out.starts_with("logged out"), "{out}{err}");
    assert!(!site.file().exists());
    let ended = site.records("logout");
    assert!(ended.len() == 1 && ended[0]["outcome"] == "ok", "{ended:?}");
    let form = format!("grant_type=refresh_token&client_id=claviger&refresh_token={}", before["refresh_token"].as_str().unwrap());
    let spent = provider.ask("POST", "/token", &[("Content-Type", "application/x-www-form-urlencoded")], form.as_bytes());
    assert_eq!(spent.json()["error"], "invalid_grant");
}

#[test]
fn the_device_flow_logs_in_from_a_browser_elsewhere() {
    let provider = Provider::start();
    let site = Site::at(&provider);
    let login = site.begin(&["--device"]);
    let code = login.shown.clone();
    assert!(login.seen.contains(&format!("{}/device", provider.issuer)), "{}", login.seen);
    let place = format!("{}/device?user_code={code}", provider.issuer);
    assert_eq!(provider.browse(&place, "bob", "visit"), "done");
    let (code, out, err) = login.end();
    assert!(code == 0 && out.contains("user:bob"), "{out}{err}");
    assert!(site.run(&["whoami"]).1.contains("user:bob"));
}

#[test]
fn who_refuses_at_the_provider_is_not_logged_in() {
    let provider = Provider::start();
    let site = Site::at(&provider);
    let login = site.begin(&["--no-browser"]);
    assert_eq!(provider.browse(&login.shown, "alice", "deny"), "200");
    let (code, _, err) = login.end();
    assert!(code == 5 && err.contains("access_denied"), "{err}");
    assert!(!site.file().exists());
}

#[test]
fn keys_are_rotated_and_clocks_disagree_a_little() {
    let provider = Provider::with(&[("ALG", "RS256")]);
    let site = Site::of(&provider.section("corp", "clock_skew_seconds = 60"));
    site.log_in(&provider, "alice");
    // The server asks again at most once in ten seconds, so the rotation is seen by one that has not asked yet.
    provider.rotate();
    let other = Site::of(&provider.section("corp", "clock_skew_seconds = 60"));
    other.log_in(&provider, "alice");
    for seconds in [50, -50] {
        provider.shift_clock(seconds);
        other.log_in(&provider, "alice");
    }
    provider.shift_clock(120);
    let login = other.begin(&["--no-browser"]);
    provider.browse(&login.shown, "alice", "visit");
    let (code, _, err) = login.end();
    assert!(code == 5 && err.contains("from the future"), "{err}");
    // Behind: its tokens, of ten minutes, have expired before they were issued.
    provider.shift_clock(-700);
    let login = other.begin(&["--no-browser"]);
    provider.browse(&login.shown, "alice", "visit");
    let (code, _, err) = login.end();
    assert!(code == 5 && (err.contains("expired") || err.contains("five minutes")), "{err}");
}

#[test]
fn a_file_that_others_can_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let provider = Provider::start();
    let site = Site::at(&provider);
    site.log_in(&provider, "alice");
    std::fs::set_permissions(site.file(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, out, err) = site.run(&["whoami"]);
    assert!(code == 2 && out.is_empty() && err.contains("others can read your sessions"), "{err}");
    let login = site.begin(&["--no-browser"]);
    assert!(!login.shown.starts_with("https://"), "nobody logs in for nothing: {}", login.shown);
    let (code, _, err) = login.end();
    assert!(code == 2 && err.contains("others can read your sessions"), "{err}");
}
