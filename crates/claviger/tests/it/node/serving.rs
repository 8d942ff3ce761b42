//! Who gets what at the socket, through outages, restarts and revocations.

use super::stage::{PLAIN, Stage, ask, until};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

/// What another user of this machine is answered: the status line's code and the body.
fn as_user(user: u32, groups: &[u32], socket: &std::path::Path, path: &str) -> (u16, String) {
    let (status, _, body) = super::stage::in_the_name_of(user, groups, || ask(socket, "GET", path)).unwrap();
    (status, body)
}

#[test]
fn each_local_user_reads_what_the_rules_name_and_learns_of_nothing_else() {
    let stage = Stage::new();
    stage.create(&[("shop/pw", "value-of-shop"), ("ops/pw", "value-of-ops")]);
    let rules = "[node]\nsocket = \"@/socket\"\ncache = \"@/cache\"\nadmins = [5005]\n[root]\nkind = \"file\"\n[[secret]]\nid = \"shop/pw\"\nusers = [5001]\n[[secret]]\nid = \"ops/pw\"\nusers = [0]\n[[secret]]\nid = \"ops/*\"\ngroups = [6001]\n";
    let mut agent = stage.agent("a", rules);
    agent.start();
    agent.waits_for("ops/pw", Some("value-of-ops"));
    std::fs::set_permissions(&agent.folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let read = |user, groups: &[u32], key: &str| as_user(user, groups, &agent.socket(), &format!("/v1/secrets/{key}"));
    until("both are cached", || agent.status()["cached"] == 2);
    assert_eq!(read(5001, &[], "shop/pw"), (200, "value-of-shop".into()));
    assert_eq!(read(5002, &[6001, 7, 8], "ops/pw"), (200, "value-of-ops".into()));
    let nothing = read(5001, &[], "no/such");
    assert_eq!(nothing.0, 404);
    for (user, groups, key) in [(5001, &[][..], "ops/pw"), (5002, &[6002], "ops/pw"), (5002, &[6001], "shop/pw"), (5005, &[], "shop/pw")] {
        assert_eq!(read(user, groups, key), nothing, "{user} {groups:?} {key}");
    }
    // Root is no reader unless a rule says so, and names are for administrators.
    assert_eq!(agent.read("shop/pw"), Err("not_found".to_owned()));
    assert!(as_user(5001, &[], &agent.socket(), "/v1/status").1.contains("\"cached\":2"));
    assert!(!as_user(5001, &[], &agent.socket(), "/v1/status").1.contains("shop"));
    assert_eq!(as_user(5001, &[], &agent.socket(), "/v1/registered").0, 403);
    assert!(as_user(5005, &[], &agent.socket(), "/v1/registered").1.contains("shop/pw"));
    let log = || std::fs::read_to_string(agent.path("cache/reads.log")).unwrap();
    let line = |user: u32, outcome: &str| log().lines().any(|l| l.contains(&format!("\"user\":{user},")) && l.contains(outcome));
    until("a given read is logged", || line(5001, "\"key\":\"shop/pw\",\"outcome\":\"given\""));
    until("a refused read is logged", || line(5001, "\"key\":\"ops/pw\",\"outcome\":\"not_found\""));
    assert!(!log().contains("value-of") && !agent.log().contains("value-of"));
}

#[test]
fn requests_are_kept_alive_and_pipelined_and_nonsense_is_refused() {
    let stage = Stage::new();
    stage.create(&[("a", "value-of-a")]);
    let mut agent = stage.agent("a", PLAIN);
    agent.start().register("a");
    let mut stream = UnixStream::connect(agent.socket()).unwrap();
    let many = "GET /v1/secrets/a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500);
    stream.write_all(many.as_bytes()).unwrap();
    stream.write_all(b"GET /v1/secrets/a?all HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("\r\n\r\nvalue-of-a").count(), 500);
    assert!(text.ends_with("\"data\":\"dmFsdWUtb2YtYQ==\"}]}"), "{}", &text[text.len() - 300..]);
    for (wire, expected) in [
        ("hello\r\n\r\n", " 400 "),
        ("POST /v1/secrets/a HTTP/1.1\r\n\r\n", " 405 "),
        ("PUT /v1/registered/a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", " 413 "),
    ] {
        let mut stream = UnixStream::connect(agent.socket()).unwrap();
        stream.write_all(wire.as_bytes()).unwrap();
        let mut start = [0; 16];
        stream.read_exact(&mut start).unwrap();
        assert!(String::from_utf8_lossy(&start).contains(expected), "{wire}");
    }
    assert_eq!(agent.ask("PUT", "/v1/registered/a%20b").0, 400);
    assert_eq!(agent.ask("GET", "/nowhere").0, 404);
}

#[test]
fn an_outage_and_a_restart_in_it_are_lived_through_and_a_change_meanwhile_is_taken_in() {
    let stage = Stage::new();
    stage.create(&[("a", "first"), ("b", "stays")]);
    let mut agent = stage.agent("a", PLAIN);
    agent.start();
    agent.register("a");
    agent.register("b");
    agent.stop();
    stage.outage();
    // A restart, then a kill, while nobody answers.
    agent.start();
    assert_eq!((agent.read("a"), agent.read("b")), (Ok("first".into()), Ok("stays".into())));
    agent.kill();
    agent.start();
    assert_eq!(agent.read("a"), Ok("first".into()));
    until("the outage is said", || agent.status()["problems"].to_string().contains("changes are not followed"));
    assert_eq!(agent.status()["live"], false);
    stage.rotate("a", "second");
    stage.back();
    agent.waits_for("a", Some("second"));
    until("all is well", || agent.status()["problems"].as_array().unwrap().is_empty());
    // Pushed, within one connection.
    stage.rotate("a", "third");
    agent.waits_for("a", Some("third"));
}

#[test]
fn after_max_offline_copies_are_refused_and_kept_until_the_server_answers() {
    let stage = Stage::new();
    stage.create(&[("a", "value-of-a")]);
    let mut agent = stage.agent("a", &PLAIN.replace("[root]", "max_offline = \"1s\"\n[root]"));
    agent.start().register("a");
    stage.outage();
    until("it is too long ago", || agent.read("a") == Err("offline_too_long".to_owned()));
    let (_, body) = agent.ask("GET", "/v1/secrets/a");
    assert!(body.contains("node.max_offline") && !body.contains("value-of-a"), "{body}");
    assert!(agent.status()["problems"].to_string().contains("longer than max_offline"));
    // For who may not read it there is nothing to refuse.
    let other = as_user(9999, &[], &agent.socket(), "/v1/secrets/a");
    assert_eq!(other.0, 404);
    agent.kill();
    agent.start();
    assert_eq!(agent.read("a"), Err("offline_too_long".to_owned()));
    assert_eq!(agent.entries().len(), 1);
    stage.back();
    agent.waits_for("a", Some("value-of-a"));
}

#[test]
fn revoked_and_deleted_take_a_secret_off_at_once_and_after_an_absence() {
    let stage = Stage::new();
    stage.create(&[("kept", "k"), ("app:revoked", "r"), ("app:deleted", "d"), ("app:later_revoked", "lr"), ("app:later_deleted", "ld")]);
    let mut agent = stage.agent("a", &format!("{PLAIN}[knox]\nenabled = true\nfolder = \"@/knox\"\n"));
    agent.start();
    agent.register("kept");
    let keys = ["app:revoked", "app:deleted", "app:later_revoked", "app:later_deleted"];
    agent.write_list(&keys.map(|key| format!("{key}\n")).concat());
    let file = |key: &str| agent.path("knox/v0/keys").join(key);
    let files: Vec<_> = keys.iter().map(|key| file(key)).collect();
    until("all are cached", || files.iter().all(|file| file.exists()) && agent.entries().len() == 5);
    stage.run(&["acl", "revoke", "app:revoked", "machine:dev-machine"]);
    stage.run(&["delete", "app:deleted", "--yes"]);
    for key in ["app:revoked", "app:deleted"] {
        agent.waits_until_gone(key);
        until("its file is gone", || !file(key).exists());
    }
    until("their entries are gone", || agent.entries().len() == 3);
    assert_eq!((agent.state("app:revoked"), agent.state("app:deleted")), ("revoked".into(), "deleted".into()));
    // While the agent is away; an entry that is lost meanwhile does not make it forget how far it had heard.
    agent.kill();
    std::fs::remove_file(agent.entries().remove(0)).unwrap();
    stage.run(&["acl", "revoke", "app:later_revoked", "machine:dev-machine"]);
    stage.run(&["delete", "app:later_deleted", "--yes"]);
    agent.start();
    for (key, file) in [("app:later_revoked", &files[2]), ("app:later_deleted", &files[3])] {
        agent.waits_until_gone(key);
        until("its file is gone", || !file.exists());
    }
    until("no more than two entries are left", || agent.entries().len() <= 2);
    agent.waits_for("kept", Some("k"));
    // Given again, it comes back.
    stage.run(&["acl", "grant", "app:revoked", "machine:dev-machine", "read"]);
    agent.waits_for("app:revoked", Some("r"));
}

/// Descriptors are few here, so that it shows soon.
#[test]
fn a_local_user_who_opens_all_the_connections_he_can_keeps_nobody_out() {
    let stage = Stage::new();
    stage.create(&[("a", "value-of-a")]);
    let mut agent = stage.agent("a", PLAIN);
    agent.wrapper = ["prlimit", "--nofile=256:256"].map(str::to_owned).into();
    agent.start().register("a");
    std::fs::set_permissions(&agent.folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = agent.socket();
    let flood = |user| -> Vec<UnixStream> {
        super::stage::in_the_name_of(user, &[], || (0..300).map_while(|_| UnixStream::connect(&socket).ok()).collect())
    };
    let open = |streams: &[UnixStream]| {
        let is_open = |mut stream: &UnixStream| {
            stream.set_nonblocking(true).unwrap();
            stream.read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
        };
        streams.iter().filter(|stream| is_open(stream)).count()
    };
    // One whom no rule names, another one like him, and one who may read.
    let floods = [5001, 5002, 4242].map(flood);
    until("each is cut down to his share", || open(&floods[0]) + open(&floods[1]) == 19 && open(&floods[2]) == 38);
    assert_eq!((agent.status()["live"].clone(), agent.read("a")), (true.into(), Ok("value-of-a".into())));
    drop(floods);
    until("the places are free again", || super::stage::in_the_name_of(4242, &[], || ask(&socket, "GET", "/v1/secrets/a")).is_ok());
    // And the agent itself had what it needs.
    stage.rotate("a", "newer");
    agent.waits_for("a", Some("newer"));
    assert!(!agent.log().contains("accepting a connection"), "{}", agent.log());
}

#[test]
fn a_refused_certificate_takes_nothing() {
    let stage = Stage::new();
    stage.create(&[("a", "value-of-a")]);
    let mut agent = stage.agent("a", PLAIN);
    agent.start().register("a");
    agent.stop();
    // A certificate of nobody that the server knows: 401 on everything.
    let key = rcgen::KeyPair::generate().unwrap();
    let foreign = rcgen::CertificateParams::new(vec!["dev-machine".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(agent.path("foreign.pem"), foreign.pem()).unwrap();
    std::fs::write(agent.path("foreign.key"), key.serialize_pem()).unwrap();
    let text = std::fs::read_to_string(agent.path("node.toml")).unwrap();
    let line = |name: &str, file: &str| format!("{name} = \"{}\"", agent.path(file).display());
    let other: Vec<String> = text
        .lines()
        .map(|l| match l.split(" =").next().unwrap() {
            "certificate" => line("certificate", "foreign.pem"),
            "private_key" => line("private_key", "foreign.key"),
            _ => l.to_owned(),
        })
        .collect();
    std::fs::write(agent.path("node.toml"), other.join("\n")).unwrap();
    agent.start();
    until("the refusal is said", || agent.status()["problems"].to_string().contains("changes are not followed"));
    assert_eq!(agent.read("a"), Ok("value-of-a".into()));
    assert_eq!(agent.entries().len(), 1);
    // A renewed one is taken at the next connection, without a restart.
    std::fs::copy(stage.server.env("CLAVIGER_MACHINE_CERT"), agent.path("foreign.pem")).unwrap();
    std::fs::copy(stage.server.env("CLAVIGER_MACHINE_KEY"), agent.path("foreign.key")).unwrap();
    stage.rotate("a", "renewed");
    agent.waits_for("a", Some("renewed"));
}

#[test]
fn a_key_is_registered_once_and_leaves_with_its_registration() {
    let stage = Stage::new();
    stage.create(&[("a", "value-of-a")]);
    let mut agent = stage.agent("a", PLAIN);
    agent.start();
    let socket = agent.socket();
    let node = |arguments: &[&str]| {
        let mut command = crate::command_line::command(&stage.server, &[&["node"], arguments].concat());
        command.env("CLAVIGER_NODE_SOCKET", &socket);
        crate::command_line::finish(command, "")
    };
    assert_eq!(node(&["register", "a"]).1, "a is registered and cached\n");
    assert_eq!(node(&["list"]).1, "a\n");
    assert_eq!(node(&["get", "a"]), (0, "value-of-a".into(), String::new()));
    let (code, _, err) = node(&["register", "not/there"]);
    assert!(code == 3 && err.contains("the server refuses it") && err.contains("acl grant"), "{code}: {err}");
    let (code, out, _) = node(&["status"]);
    assert!(code == 1 && out.contains("refuses 1 of the registered keys: `not/there`") && out.contains("obfuscation"), "{code}: {out}");
    assert_eq!(node(&["unregister", "not/there"]).1, "not/there is unregistered\n");
    until("status is well again", || node(&["status"]).0 == 0);
    assert_eq!(node(&["unregister", "a"]).1, "a is unregistered\n");
    agent.waits_until_gone("a");
    until("the entry is gone", || agent.entries().is_empty());
    let (code, _, err) = node(&["get", "a"]);
    assert!(code == 3 && err.contains("none that you may read"), "{err}");
    assert_eq!(ask(&agent.socket(), "GET", "/v1/registered").unwrap().2, "[]");
    agent.stop();
    let (code, _, err) = node(&["get", "a"]);
    assert!(code == 7 && err.contains("no agent answers"), "{err}");
}
