//! What operators rely on: break-glass, check, reloads, the access callback, health, graceful stop, alerts.

use crate::{program, server, server_with};
use claviger_testkit::{Client, Credential, TestServer};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn claviger(server: &TestServer, args: &[&str]) -> Output {
    let env = server.env_all().iter().filter(|(k, _)| !k.contains("MACHINE") && !k.contains("SERVICE"));
    Command::new(program()).args(args).envs(env).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits for what comes with no promised delay; the bound only ends a test that would hang.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn create(server: &TestServer, id: &str, data: &str, acl: &str) {
    let created = server.client().unwrap().knox("POST", "/v0/keys/", &server.admin(), &[("id", id), ("data", data), ("acl", acl)]).unwrap();
    assert_eq!(created.status, 200, "{}", created.text());
}

/// A production configuration over a development server's files.
pub(crate) fn production_config(server: &TestServer) -> std::path::PathBuf {
    let dir = server.dir();
    let path = dir.join("production.toml");
    let d = dir.display();
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\ndata = \"{d}\"\n[tls]\ncertificate = \"{d}/server.pem\"\nprivate_key = \"{d}/server.key\"\n"
    );
    std::fs::write(&path, config).unwrap();
    path
}

#[test]
fn who_breaks_the_glass_administers_reads_nothing_and_is_recorded() {
    let server = server();
    create(&server, "db", "aGk=", "[]");
    let (config, out) = (production_config(&server), server.dir().join("emergency"));
    let made = Command::new(program())
        .args(["server", "break-glass", "--reason", "nobody is left", "--config"])
        .arg(&config)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let credential = Credential::from_files(&out.join("break-glass.pem"), &out.join("break-glass.key")).unwrap();
    let mut emergency = Client::connect(server.address(), Path::new(server.env("CLAVIGER_CA")), Some(credential)).unwrap();
    let read = emergency.request("GET", "/api/v1/keys/db/-/data", &[], b"").unwrap();
    assert_eq!(read.status, 403, "{}", read.text());
    let grant = br#"{"grants":[{"principal":"user:bob","preset":"admin"}]}"#;
    let granted = emergency.request("PATCH", "/api/v1/keys/db/-/acl", &[("Content-Type", "application/json")], grant).unwrap();
    assert_eq!(granted.status, 200, "{}", granted.text());
    until("the record", || {
        text(&claviger(&server, &["audit", "query", "--action", "break_glass", "--json"]).stdout).contains("nobody is left")
    });
    assert!(server.log().contains("the glass was broken"));
}

#[test]
fn the_glass_is_broken_only_into_private_files_and_names_who_the_kernel_says() {
    use std::os::unix::fs::PermissionsExt;
    let server = server();
    let (config, out) = (production_config(&server), server.dir().join("emergency"));
    std::fs::create_dir(&out).unwrap();
    let set_mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let (key, elsewhere) = (out.join("break-glass.key"), out.join("elsewhere"));
    let make = || {
        let mut command = Command::new(program());
        command.args(["--json", "server", "break-glass", "--reason", "a test", "--config"]).arg(&config).arg("--out").arg(&out);
        command.env("SUDO_USER", "somebody-else").output().unwrap()
    };
    set_mode(&out, 0o777);
    let refused = make();
    assert!(!refused.status.success() && text(&refused.stderr).contains("chmod go-w"), "{}", text(&refused.stderr));
    set_mode(&out, 0o755);
    std::fs::write(&key, "").unwrap();
    set_mode(&key, 0o666);
    std::os::unix::fs::symlink(&elsewhere, out.join("break-glass.pem")).unwrap();
    assert!(make().status.success());
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!elsewhere.exists());
    until("the record", || text(&claviger(&server, &["audit", "query", "--action", "break_glass", "--json"]).stdout).contains("a test"));
    assert!(server.log().contains(" made by uid ") && !server.log().contains("somebody-else"));
}

#[test]
fn check_finds_a_sound_store_sound_while_it_is_served() {
    let server = server();
    for i in 0..5 {
        create(&server, &format!("k{i}"), "aGk=", "[]");
    }
    let checked = Command::new(program()).args(["check", "--dir"]).arg(server.dir()).output().unwrap();
    assert!(checked.status.success(), "{}", text(&checked.stdout));
    assert!(text(&checked.stdout).contains("5 keys, 5 versions opened"), "{}", text(&checked.stdout));
}

#[test]
fn check_finds_nothing_beside_writers_who_make_and_delete_keys() {
    let server = server();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (server, done) = (&server, &done);
            scope.spawn(move || {
                let (mut client, admin) = (server.client().unwrap(), server.admin());
                let mut turn = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let id = format!("w{writer}_{}", turn % 7);
                    let made = client.knox("POST", "/v0/keys/", &admin, &[("id", &id), ("data", "aGk="), ("acl", "[]")]).unwrap();
                    assert_eq!(made.status, 200, "{}", made.text());
                    let gone = client.knox("DELETE", &format!("/v0/keys/{id}/"), &admin, &[]).unwrap();
                    assert_eq!(gone.status, 200, "{}", gone.text());
                    turn += 1;
                }
            });
        }
        let checks: Vec<_> = (0..5).map(|_| Command::new(program()).args(["check", "--dir"]).arg(server.dir()).output().unwrap()).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        for checked in checks {
            assert!(checked.status.success(), "{} {}", text(&checked.stdout), text(&checked.stderr));
        }
    });
}

#[test]
fn the_access_callback_is_asked_when_the_acl_says_no_and_sees_no_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let asked = std::thread::spawn(move || {
        let mut questions = Vec::new();
        for answer in ["{\"allow\":true}\n", "{\"allow\":false}\n", "garbage\n"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            questions.push(line);
        }
        questions
    });
    let server = server_with(&format!("[knox]\naccess_callback_socket = \"{}\"\n", path.display()));
    create(&server, "db", "c2VjcmV0LXZhbHVl", "[]");
    let mut machine = server.machine().unwrap();
    let statuses = [(); 3].map(|()| {
        let answer = machine.knox("GET", "/v0/keys/db/", "0tdev-machine", &[]).unwrap();
        let json = answer.json();
        (answer.status, json["code"].as_i64().unwrap(), json["message"].as_str().unwrap().to_owned())
    });
    assert_eq!((statuses[0].0, statuses[0].1), (200, 0));
    assert_eq!((statuses[1].0, statuses[1].1), (403, 6));
    assert_eq!((statuses[2].0, statuses[2].1), (500, 1));
    assert!(statuses[2].2.starts_with("Recovered from panic in access callback: "), "{}", statuses[2].2);
    for question in asked.join().unwrap() {
        assert!(question.contains(r#""access_type":"Read""#) && question.contains("dev-machine"), "{question}");
        assert!(!question.contains("secret-value") && !question.contains("c2VjcmV0"), "{question}");
    }
}

#[test]
fn a_new_certificate_is_served_without_a_restart_and_a_bad_one_is_not() {
    let server = server();
    let dir = server.dir();
    let open = server.client().unwrap();
    for (content, wanted) in [("no certificate", "stays as it was"), ("", "was read again")] {
        let good = std::fs::read(dir.join("machine.pem")).unwrap();
        let key = std::fs::read(dir.join("machine.key")).unwrap();
        match content.is_empty() {
            true => {
                std::fs::write(dir.join("server.key"), &key).unwrap();
                std::fs::write(dir.join("server.pem"), &good).unwrap();
            }
            false => std::fs::write(dir.join("server.pem"), content).unwrap(),
        }
        until(wanted, || server.log().contains(&format!("the server certificate {wanted}")));
    }
    drop(open);
    // The machine's certificate names no `localhost`: a client that checks names is refused now.
    until("the new certificate", || server.client().is_err());
}

#[test]
fn roots_that_are_taken_away_end_what_they_proved_on_open_connections() {
    let server = server();
    create(&server, "db", "aGk=", r#"[{"type":"Machine","id":"dev-machine","access":"Read"}]"#);
    let mut machine = server.machine().unwrap();
    let mut read = || machine.knox("GET", "/v0/keys/db/", "0tdev-machine", &[]).unwrap().status;
    assert_eq!(read(), 200);
    // Another authority takes the place of the old one.
    let other = TestServer::start(program(), claviger_testkit::Options::default()).unwrap();
    std::fs::copy(other.dir().join("ca.pem"), server.dir().join("ca.pem")).unwrap();
    until("the refusal", || read() == 401);
}

#[test]
fn health_readiness_and_metrics_have_an_address_of_their_own() {
    let server = server();
    create(&server, "svc:db_pw_unlikely", "aGk=", "[]");
    let fetch = |path: &str| {
        let address = server.env("CLAVIGER_METRICS").trim_start_matches("http://").to_owned();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        answer
    };
    assert!(fetch("/healthz").starts_with("HTTP/1.1 200"));
    assert!(fetch("/readyz").starts_with("HTTP/1.1 200"));
    assert!(fetch("/v0/keys/").starts_with("HTTP/1.1 404"));
    let metrics = fetch("/metrics");
    assert!(metrics.contains("claviger_requests_total{surface=\"knox\",status=\"2xx\"} 1"), "{metrics}");
    for word in ["svc:db_pw_unlikely", "dev-machine", "admin", "127.0.0.1"] {
        assert!(!metrics.contains(word), "metrics name {word}");
    }
}

#[test]
fn a_first_read_is_an_event_in_the_log() {
    let server = server();
    create(&server, "db", "aGk=", r#"[{"type":"Machine","id":"dev-machine","access":"Read"}]"#);
    let mut machine = server.machine().unwrap();
    for _ in 0..3 {
        assert_eq!(machine.knox("GET", "/v0/keys/db/", "0tdev-machine", &[]).unwrap().status, 200);
    }
    let alerts = text(&claviger(&server, &["audit", "query", "--action", "alert", "--json"]).stdout);
    assert_eq!(alerts.matches("first read by this caller").count(), 1, "{alerts}");
}

#[test]
fn static_users_and_weak_key_files_are_refused_in_production() {
    let server = server();
    let config = production_config(&server);
    let check = |config: &Path| Command::new(program()).args(["config", "check"]).arg(config).output().unwrap();
    assert!(check(&config).status.success());
    let with_user = server.dir().join("user.toml");
    std::fs::write(&with_user, std::fs::read_to_string(&config).unwrap() + "[[dev.user]]\nname = \"x\"\n").unwrap();
    let refused = check(&with_user);
    assert!(!refused.status.success() && text(&refused.stderr).contains("--dev"), "{}", text(&refused.stderr));

    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(server.dir().join("root/root.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let started = Command::new(program()).args(["server", "--config"]).arg(&config).output().unwrap();
    assert!(!started.status.success());
    assert!(text(&started.stderr).contains("chmod"), "{}", text(&started.stderr));
}
