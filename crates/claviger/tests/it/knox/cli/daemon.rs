//! `knox daemon`, `knox register` and reads from the cache: the folder as Knox's clients find it.

use super::{Stage, eventually, mode, text};
use claviger_crypto::tink::Keyset;
use claviger_node::knox_folder::CachedKey;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A daemon at work; it is killed with the value.
struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    fn start(stage: &Stage, modes: &str) -> Self {
        let mut command = stage.as_machine(&["daemon"]);
        command.env("KNOX_FOLDER_MODES", modes).env("KNOX_MACHINE_AUTH", "dev-machine");
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), log.clone());
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| *kept.lock().unwrap() += &format!("{line}\n")));
        let daemon = Self { child, log };
        daemon.says("Update of keys completed");
        daemon
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log has `what`; the part behind it.
    fn says(&self, what: &str) -> String {
        eventually(what, || self.log().split_once(what).map(|(_, rest)| rest.to_owned()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn touch(stage: &Stage) {
    let list = stage.folder().join(".registered");
    std::fs::File::options().write(true).open(list).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
}

fn cached(stage: &Stage, id: &str) -> Option<CachedKey> {
    std::fs::read(stage.folder().join("v0/keys").join(id)).ok().map(|bytes| CachedKey::parse(&bytes).unwrap())
}

#[test]
fn a_registered_key_is_cached_kept_up_to_date_and_removed_when_it_is_unregistered() {
    let stage = Stage::new();
    let first = stage.create_for_machine("cli:kept", b"hunter2");
    let daemon = Daemon::start(&stage, "knox");

    let registered = stage.as_machine(&["register", "-g", "-k", "cli:kept", "-t", "30"]).output().unwrap();
    assert!(registered.status.success(), "{}{}", text(&registered.stderr), daemon.log());
    let path = stage.folder().join("v0/keys/cli:kept");
    let shown = text(&registered.stdout);
    let in_file = std::fs::read_to_string(&path).unwrap();
    let with_path = format!("{},\"path\":\"{}\"}}", in_file.strip_suffix('}').unwrap(), path.display());
    assert_eq!(shown, with_path, "the file's content and where it is, without a line break");

    // The layout and the modes of §12.
    assert_eq!(std::fs::read_to_string(stage.folder().join(".registered")).unwrap(), "cli:kept\n");
    for (name, wanted) in [("", 0o777), (".registered", 0o666), ("v0/keys", 0o777), ("v0/keys/cli:kept", 0o666)] {
        assert_eq!(mode(&stage.folder().join(name)), wanted, "{name}");
    }

    // A rotation reaches the cache at the next touch of the list, and `get` takes it from there, without a server.
    stage.alice(&["add", "cli:kept"], b"swordfish");
    touch(&stage);
    eventually("the second version", || cached(&stage, "cli:kept").filter(|key| key.versions.len() == 2));
    let mut offline = stage.knox(&["get", "cli:kept"]);
    offline.env("KNOX_HOST", "127.0.0.1:1");
    assert_eq!(text(&offline.output().unwrap().stdout), "hunter2");
    let mut other = stage.knox(&["get", "-v", &first, "-j", "cli:kept"]);
    other.env("KNOX_HOST", "127.0.0.1:1");
    assert!(text(&other.output().unwrap().stdout).ends_with(&format!("\"path\":\"{}\"}}", path.display())));
    let mut network = stage.knox(&["get", "-n", "cli:kept"]);
    network.env("KNOX_HOST", "127.0.0.1:1").env("KNOX_USER_AUTH", "alice-token");
    assert_eq!(network.output().unwrap().status.code(), Some(1), "-n asks the server");

    let gone = stage.as_machine(&["unregister", "cli:kept"]).output().unwrap();
    assert_eq!((text(&gone.stdout).as_str(), gone.status.code()), ("Unregistered key successfully\n", Some(0)));
    eventually("the copy is removed", || (!path.exists()).then_some(()));
}

/// Nobody touches the list here, and ten minutes are longer than any patience.
#[test]
fn a_change_is_cached_at_once_where_the_server_tells_of_it_and_a_refused_key_stays_all_the_same() {
    let stage = Stage::new();
    stage.create_for_machine("cli:pushed", b"hunter2");
    let daemon = Daemon::start(&stage, "owner-only");
    std::fs::write(stage.folder().join(".registered"), "cli:pushed\n").unwrap();
    eventually("the first version", || cached(&stage, "cli:pushed"));
    stage.alice(&["add", "cli:pushed"], b"swordfish");
    eventually("the second version", || cached(&stage, "cli:pushed").filter(|key| key.versions.len() == 2));
    let updates = || daemon.log().matches("Update of keys completed").count();
    let before = updates();
    stage.alice(&["access", "-n", "-M", "cli:pushed", "dev-machine"], b"");
    eventually("it has asked again", || (updates() > before).then_some(()));
    assert!(cached(&stage, "cli:pushed").is_some(), "as Knox has it: {}", daemon.log());
}

#[test]
fn the_folder_is_its_owners_only_unless_the_old_modes_are_asked_for() {
    let stage = Stage::new();
    stage.create_for_machine("cli:mine", b"hunter2");
    let _daemon = Daemon::start(&stage, "owner-only");
    let registered = stage.as_machine(&["register", "-g", "-k", "cli:mine", "-t", "30s"]).output().unwrap();
    assert!(registered.status.success(), "{}", text(&registered.stderr));
    for (name, wanted) in [("", 0o700), (".registered", 0o600), ("v0/keys", 0o700), ("v0/keys/cli:mine", 0o600)] {
        assert_eq!(mode(&stage.folder().join(name)), wanted, "{name}");
    }
}

#[test]
fn outages_refusals_and_deleted_keys_leave_the_copy() {
    let mut stage = Stage::new();
    for id in ["cli:stays", "cli:deleted", "cli:refused"] {
        stage.create_for_machine(id, b"hunter2");
    }
    let daemon = Daemon::start(&stage, "owner-only");
    std::fs::write(stage.folder().join(".registered"), "cli:stays\ncli:deleted cli:refused\tcli:never\n").unwrap();
    for id in ["cli:stays", "cli:deleted", "cli:refused"] {
        eventually(id, || cached(&stage, id));
    }
    daemon.says("Keys not found on server: [cli:never]");
    stage.alice(&["delete", "cli:deleted"], b"");
    stage.alice(&["access", "-n", "-M", "cli:refused", "dev-machine"], b"");
    let version = text(&stage.alice(&["add", "cli:refused"], b"fresh"));
    assert!(version.contains("Added key version"));
    touch(&stage);
    daemon.says("error processing key: Error getting key cli:refused: Unsuccessful authorization.");
    stage.server.kill();
    touch(&stage);
    daemon.says("Failed to update keys: ");
    for id in ["cli:stays", "cli:deleted", "cli:refused"] {
        assert_eq!(cached(&stage, id).unwrap().versions.len(), 1, "{id}");
    }
}

#[test]
fn a_tink_key_is_cached_with_its_combined_keyset_and_other_data_under_such_an_id_is_not() {
    let stage = Stage::new();
    stage.alice(&["create", "--key-template", "TINK_AEAD_AES128_GCM", "tink:aead:k"], b"");
    stage.alice(&["add", "--key-template", "TINK_AEAD_AES128_GCM", "tink:aead:k"], b"");
    stage.alice(&["create", "tink:aead:bytes"], b"no keyset");
    for id in ["tink:aead:k", "tink:aead:bytes"] {
        stage.alice(&["access", "-r", "-M", id, "dev-machine"], b"");
    }
    let daemon = Daemon::start(&stage, "owner-only");
    let list = stage.home.path().join("ids");
    std::fs::write(&list, "tink:aead:bytes\ntink:aead:k\n").unwrap();
    let registered = stage.as_machine(&["register", "-f", list.to_str().unwrap()]).output().unwrap();
    assert_eq!((registered.stdout.len(), registered.status.code()), (0, Some(0)));
    assert!(text(&registered.stderr).starts_with("Successfully registered keys [tink:aead:bytes tink:aead:k]"));
    let key = eventually("the keyset", || cached(&stage, "tink:aead:k"));
    let handed_out = stage.alice(&["get", "-n", "--tink-keyset", "tink:aead:k"], b"");
    assert_eq!(key.tink_keyset.as_ref().unwrap().expose(), handed_out);
    assert_eq!(Keyset::parse(&handed_out).unwrap().keys().len(), 2);
    daemon.says("error processing key: Error getting key tink:aead:bytes: unexpected error reading tink keyset");
    assert!(cached(&stage, "tink:aead:bytes").is_none());
    assert!(!daemon.log().contains("no keyset"), "data is not repeated");
}

#[test]
fn registering_with_a_timeout_says_what_it_waited_for_and_register_r_replaces_the_list() {
    let stage = Stage::new();
    // A folder that nobody keeps.
    std::fs::create_dir(stage.folder()).unwrap();
    let run = |arguments: &[&str]| stage.as_machine(arguments).output().unwrap();
    let list = || std::fs::read_to_string(stage.folder().join(".registered")).unwrap();
    let timed_out = run(&["register", "-g", "-k", "cli:a", "-t", "100ms"]);
    let file = stage.folder().join("v0/keys/cli:a").display().to_string();
    assert_eq!(
        (text(&timed_out.stderr), timed_out.status.code()),
        (
            format!(
                "Error getting key from daemon (hit timeout after 100ms seconds); check knox logs for details \
                 (most recent error: open {file}: no such file or directory)\n"
            ),
            Some(1)
        )
    );
    assert_eq!(list(), "cli:a\n", "it stays registered");
    run(&["register", "-k", "cli:b"]);
    assert_eq!(list(), "cli:a\ncli:b\n");
    run(&["register", "-r", "-k", "cli:c"]);
    assert_eq!(list(), "cli:c\n");
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    let before = inode(&stage.folder().join(".registered"));
    let emptied = run(&["register", "-r"]);
    assert_eq!((text(&emptied.stderr).as_str(), emptied.status.code()), ("Successfully unregistered all keys.\n", Some(0)));
    assert_eq!(list().split_whitespace().count(), 0);
    assert_eq!(inode(&stage.folder().join(".registered")), before, "rewritten in place: daemons watch the inode");
}

#[test]
fn the_daemon_ends_at_sigterm_with_success() {
    let stage = Stage::new();
    let mut daemon = Daemon::start(&stage, "owner-only");
    Command::new("kill").args(["-TERM", &daemon.child.id().to_string()]).status().unwrap();
    assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
}

#[test]
fn knoxs_file_client_in_go_finds_its_command_and_its_file() {
    let Some(client) = crate::knox::go::CLIENT.as_deref() else {
        eprintln!("skipped: there is no `go` on the path, so Knox's file client was not tried");
        return;
    };
    let stage = Stage::new();
    stage.create_for_machine("cli:go", b"hunter2");
    stage.alice(&["add", "cli:go"], b"swordfish");
    let _daemon = Daemon::start(&stage, "knox");
    // The environment and the path of our own command, in which `knox` is the link.
    let ours = stage.as_machine(&[]);
    let mut command = Command::new(client);
    command.env_clear().envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("PATH", Path::new(ours.get_program()).parent().unwrap()).args(["-file", "cli:go"]);
    command.args(["-certificate", stage.server.env("CLAVIGER_MACHINE_CERT"), "-key", stage.server.env("CLAVIGER_MACHINE_KEY")]);
    let output = command.output().unwrap();
    assert_eq!(text(&output.stdout), "hunter2", "{}", text(&output.stderr));
}
