//! What the system could write of a process's memory: core dumps and swap.

use crate::{program, server};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Starts a program in `dir` that may leave cores as large as it likes.
fn start(dir: &Path, program: &str, args: &[&str], env: &[(&str, &str)]) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited 2>/dev/null; exec \"$0\" \"$@\"", program]).args(args);
    command.current_dir(dir).envs(env.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Sends SIGABRT, which ends a program as its own `abort` does. (Rust's handler for stack overflows lets a SIGSEGV from
/// outside pass once.)
fn crash(mut child: Child) -> ExitStatus {
    super::image::signal(child.id(), "ABRT");
    child.wait().unwrap()
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until `child` is the program itself and no longer the shell, and has set itself up.
fn wait_for_program(child: &Child, program: &Path) {
    let executable = format!("/proc/{}/exe", child.id());
    wait_until(|| std::fs::read_link(&executable).is_ok_and(|path| path == program));
}

fn assert_no_core(dir: &Path, status: ExitStatus, what: &str) {
    assert_eq!(status.signal(), Some(6), "{what}");
    assert!(!status.core_dumped(), "{what} left a core");
    let names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|n| n.to_string_lossy().starts_with("core")), "{what}: {names:?}");
}

#[test]
fn a_process_that_holds_secrets_leaves_no_core_when_it_crashes() {
    let other = tempfile::tempdir().unwrap();
    let sleep = start(other.path(), "sleep", &["100"], &[]);
    wait_until(|| std::fs::read_to_string(format!("/proc/{}/comm", sleep.id())).is_ok_and(|name| name.trim() == "sleep"));
    if !crash(sleep).core_dumped() {
        println!("no program leaves cores on this system, so that ours leave none proves little");
    }

    let dir = tempfile::tempdir().unwrap();
    let program = program().canonicalize().unwrap();
    let name = program.to_str().unwrap();
    let server = start(dir.path(), name, &["server", "--dev", "--dir", "dev"], &[]);
    wait_until(|| dir.path().join("dev/dev.env").exists());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_ascii_whitespace().nth(4), Some("0"), "{core}");
    assert_no_core(dir.path(), crash(server), "the server");
}

#[test]
fn a_command_that_holds_secrets_leaves_no_core_when_it_crashes() {
    let running = server();
    let env: Vec<_> = running.env_all().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let dir = tempfile::tempdir().unwrap();
    let program = program().canonicalize().unwrap();
    let watch = start(dir.path(), program.to_str().unwrap(), &["watch", "--prefix", ""], &env);
    wait_for_program(&watch, &program);
    std::thread::sleep(Duration::from_millis(300));
    assert_no_core(dir.path(), crash(watch), "watch");
}

#[test]
fn status_says_whether_memory_is_locked() {
    let running = server();
    let mut client = running.client().unwrap();
    let answer = client.request("GET", "/api/v1/status", &[("Authorization", &running.bearer())], b"").unwrap();
    let said = answer.json()["memory"].as_str().unwrap().to_owned();
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid().unwrap())).unwrap();
    let locked = status.lines().find_map(|l| l.strip_prefix("VmLck:")).unwrap();
    let is_locked = !locked.trim().starts_with("0 ");
    assert_eq!(said.contains("memory is locked and never swapped"), is_locked, "{said}; {locked}");
    assert_eq!(said.contains("memory is not locked: "), !is_locked, "{said}; {locked}");
    assert!(said.starts_with("core dumps are forbidden"), "{said}");
}
