//! Starts the program, tells it of new values, passes signals on, and ends as it ends.
//!
//! # Guarantees
//! - Signals that end or steer a program reach it: TERM, INT, HUP, QUIT, USR1, USR2, WINCH.
//! - On a terminal the program stays in the foreground's process group: keys such as Ctrl-C and Ctrl-Z reach it from the
//!   terminal itself, once. Elsewhere it has a group of its own, and what is left of that group is ended with it on a
//!   restart.
//! - If we are killed, the program is sent TERM by the kernel (`orphan`).
//! - As process 1 of a container all orphans are reaped.
//! - A new value whose file cannot be written is kept and tried again until it can; until then the program has the last
//!   values, in all files and variables alike.
//!
//! # Assumptions
//! Nobody else in this process waits for the child.

use super::orphan;
use super::{FOLDER_VARIABLE, KeyChange, OnChange, OnRevoked, Plan, Update, Values, until};
use crate::failure::{Code, Failure};
use crate::memory::Folder;
use crate::output;
use claviger_client::Backoff;
use claviger_domain::{KeyId, SecretBytes};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpgrp, getpid, kill_process, kill_process_group, wait, waitpid};
use rustix::termios::tcgetpgrp;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::Instant;

/// What is passed on, and whether the terminal itself sends it to the foreground.
const FORWARDED: [(Signal, bool); 7] = [
    (Signal::TERM, false),
    (Signal::HUP, false),
    (Signal::USR1, false),
    (Signal::USR2, false),
    (Signal::INT, true),
    (Signal::QUIT, true),
    (Signal::WINCH, true),
];

/// Runs the program to its end; the value is the exit code.
pub(super) async fn supervise(plan: &Plan, folder: Option<&Folder>, values: Values, updates: Receiver<Update>) -> Result<u8, Failure> {
    let terminal = Terminal::find();
    let signals = Signals::listen(terminal).map_err(|e| Failure::other(format!("listening for signals: {e}")))?;
    supervise_with(plan, folder, values, updates, signals, terminal).await
}

/// The same with signals and terminal as the caller says.
async fn supervise_with(
    plan: &Plan,
    folder: Option<&Folder>,
    values: Values,
    updates: Receiver<Update>,
    signals: Signals,
    terminal: Terminal,
) -> Result<u8, Failure> {
    let mut supervisor = Supervisor { plan, folder, terminal, values, state: State::Ended(0), is_asked_to_end: false, unwritten: None };
    supervisor.write_files(&supervisor.values)?;
    supervisor.start()?;
    supervisor.run(signals, updates).await
}

/// Whether the program shares the terminal's foreground with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Terminal {
    Shared,
    None,
}

impl Terminal {
    fn find() -> Self {
        let foreground = std::fs::File::open("/dev/tty").ok().and_then(|tty| tcgetpgrp(tty).ok());
        if foreground == Some(getpgrp()) { Self::Shared } else { Self::None }
    }
}

/// A running program.
#[derive(Debug, Clone, Copy)]
struct Child {
    pid: Pid,
    has_own_group: bool,
}

enum State {
    Running(Child),
    /// It was told to end; at the deadline it is killed.
    Ending {
        child: Child,
        deadline: Instant,
        then: Then,
    },
    /// With this exit code.
    Ended(u8),
}

/// What follows when it has ended.
enum Then {
    Start(Vec<KeyChange>),
    Exit(Code),
    /// As it ended.
    Follow,
}

/// New values whose files could not be written yet.
struct Unwritten {
    changes: Vec<KeyChange>,
    values: Values,
    backoff: Backoff,
    due: Instant,
}

struct Supervisor<'a> {
    plan: &'a Plan,
    folder: Option<&'a Folder>,
    terminal: Terminal,
    /// The last good values, where they are needed again.
    values: Values,
    state: State,
    /// Whether somebody told the program to end: then no change starts it again.
    is_asked_to_end: bool,
    unwritten: Option<Unwritten>,
}

impl Supervisor<'_> {
    async fn run(mut self, mut signals: Signals, mut updates: Receiver<Update>) -> Result<u8, Failure> {
        loop {
            let deadline = match &self.state {
                State::Ended(code) => return Ok(*code),
                State::Running(_) => None,
                State::Ending { deadline, .. } => Some(*deadline),
            };
            let again = self.unwritten.as_ref().map(|u| u.due);
            tokio::select! {
                biased;
                Some(()) = signals.child.recv() => self.reap()?,
                Some(received) = signals.received.recv() => self.pass_on(received),
                () = until(deadline) => self.kill(),
                () = until(again) => self.write_unwritten(),
                // When the follower is gone the program runs on with what it has.
                Some(update) = updates.recv() => self.update(update)?,
            }
        }
    }

    /// Takes notice of ended children.
    fn reap(&mut self) -> Result<(), Failure> {
        let (State::Running(child) | State::Ending { child, .. }) = &self.state else { return Ok(()) };
        let Some(code) = ended(child.pid) else { return Ok(()) };
        match std::mem::replace(&mut self.state, State::Ended(code)) {
            State::Ending { then: Then::Start(changes), child, .. } => {
                child.end_group();
                self.start()?;
                self.tell(&changes, "child restarted");
            }
            State::Ending { then: Then::Exit(code), .. } => self.state = State::Ended(code as u8),
            State::Ending { then: Then::Follow, .. } | State::Running(_) | State::Ended(_) => {}
        }
        Ok(())
    }

    /// Passes a signal on, as if it had been sent to the program.
    fn pass_on(&mut self, signal: Signal) {
        // Without a terminal that both have heard it from, who interrupts us means the program.
        let interrupts = matches!(signal, Signal::INT | Signal::QUIT) && self.terminal == Terminal::None;
        let asks_to_end = signal == Signal::TERM || interrupts;
        self.is_asked_to_end |= asks_to_end;
        match &mut self.state {
            State::Running(child) => child.signal(signal),
            State::Ending { child, then, .. } => {
                child.signal(signal);
                if asks_to_end || signal == Signal::INT {
                    *then = Then::Follow;
                }
            }
            State::Ended(_) => {}
        }
    }

    fn update(&mut self, update: Update) -> Result<(), Failure> {
        match update {
            Update::Changed(changes, values) => self.change(changes, values),
            Update::Deleted(change) => self.gone(&change, "was deleted", Code::NotFound),
            Update::Revoked(change) => self.gone(&change, "may no longer be read", Code::Denied),
            Update::Note(note) => self.say(&note),
        }
        Ok(())
    }

    /// New values: files first, so that whoever is told finds them. Together with earlier ones that still wait.
    fn change(&mut self, mut changes: Vec<KeyChange>, mut values: Values) {
        if self.plan.on_change == OnChange::Ignore {
            return self.tell(&changes, "ignored");
        }
        // Found out only at the restart, it would end a program that runs well.
        for (_, id) in self.plan.env.iter().filter(|(_, id)| values.get(id).is_some_and(has_nul)).collect::<Vec<_>>() {
            self.say(&format!("{}; the program keeps the last value", no_variable(id).what()));
            changes.retain(|c| c.id != id.as_str());
            values.0.remove(id);
        }
        if changes.is_empty() {
            return;
        }
        let backoff = || Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let first = || Unwritten { changes: Vec::new(), values: Values::default(), backoff: backoff(), due: Instant::now() };
        let mut unwritten = self.unwritten.take().unwrap_or_else(first);
        newest(&mut unwritten.changes, changes);
        unwritten.values.merge(values);
        self.write(unwritten);
    }

    fn write_unwritten(&mut self) {
        if let Some(unwritten) = self.unwritten.take() {
            self.write(unwritten);
        }
    }

    fn write(&mut self, mut unwritten: Unwritten) {
        let Err(failure) = self.write_files(&unwritten.values) else {
            return self.written(unwritten.changes, unwritten.values);
        };
        if unwritten.backoff.is_fresh() {
            self.say(&format!("{}; the program keeps the last values, trying again", failure.what()));
        }
        unwritten.due = Instant::now() + unwritten.backoff.next_wait();
        self.unwritten = Some(unwritten);
    }

    fn written(&mut self, changes: Vec<KeyChange>, values: Values) {
        match self.plan.on_change {
            OnChange::Restart => {
                self.values.merge(values);
                self.restart(changes);
            }
            OnChange::Signal(signal) => {
                self.tell(&changes, &format!("files rewritten, child told by signal {}", signal.as_raw()));
                if let State::Running(child) = &self.state {
                    child.signal(signal);
                }
            }
            OnChange::Rewrite | OnChange::Ignore => self.tell(&changes, "files rewritten"),
        }
    }

    /// Asks the program to end, to be started again with the values of then.
    fn restart(&mut self, changes: Vec<KeyChange>) {
        match &mut self.state {
            State::Running(_) if self.is_asked_to_end => {}
            State::Running(_) => self.end(Then::Start(changes)),
            State::Ending { then: Then::Start(earlier), .. } => newest(earlier, changes),
            State::Ending { .. } | State::Ended(_) => {}
        }
    }

    fn gone(&mut self, change: &KeyChange, what: &str, code: Code) {
        let stops = self.plan.on_revoked == OnRevoked::Stop;
        let then = if stops { "child stopped" } else { "the program keeps the last value" };
        self.say(&format!("{} {what} (revision {}), {then}", change.id, change.revision));
        match &mut self.state {
            State::Running(_) if stops => self.end(Then::Exit(code)),
            State::Ending { then, .. } if stops => *then = Then::Exit(code),
            _ => {}
        }
    }

    /// TERM now, KILL after the grace period.
    fn end(&mut self, then: Then) {
        let State::Running(child) = self.state else { return };
        // It may have ended by itself, which we have not been told yet: then this is its end, and it is not started again.
        if let Some(code) = ended(child.pid) {
            self.state = State::Ended(code);
            return;
        }
        child.signal(Signal::TERM);
        // One that is stopped hears of it only when it goes on.
        child.signal(Signal::CONT);
        self.state = State::Ending { child, deadline: Instant::now() + self.plan.grace, then };
    }

    fn kill(&mut self) {
        if let State::Ending { child, deadline, .. } = &mut self.state {
            child.signal(Signal::KILL);
            *deadline = Instant::now() + self.plan.grace.max(Duration::from_secs(1));
        }
    }

    fn start(&mut self) -> Result<(), Failure> {
        let mut command = self.command()?;
        let has_own_group = self.terminal == Terminal::None;
        if has_own_group {
            command.process_group(0);
        }
        orphan::never(&mut command);
        self.state = match command.spawn() {
            Ok(child) => State::Running(Child { pid: Pid::from_child(&child), has_own_group }),
            Err(e) => {
                let name = self.plan.command[0].to_string_lossy();
                eprintln!("claviger run: cannot run {}: {e}", output::clean(&name));
                State::Ended(if e.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
            }
        };
        if self.plan.on_change != OnChange::Restart {
            // The values have done their work.
            self.values = Values::default();
        }
        Ok(())
    }

    fn command(&self) -> Result<Command, Failure> {
        let (program, arguments) = self.plan.command.split_first().ok_or_else(|| Failure::usage("there is no program to run"))?;
        let mut command = Command::new(program);
        command.args(arguments);
        if !self.plan.pass_token {
            command.env_remove("CLAVIGER_TOKEN");
        }
        if let Some(folder) = self.folder {
            command.env(FOLDER_VARIABLE, folder.path());
        }
        for (name, id) in &self.plan.env {
            let value = self.values.get(id);
            if value.is_some_and(has_nul) {
                return Err(no_variable(id));
            }
            command.env(name, OsStr::from_bytes(value.map_or(&[][..], |v| v.expose())));
        }
        Ok(command)
    }

    /// All or, as far as the system allows, none: what there is no room for is found out before anything is replaced.
    fn write_files(&self, values: &Values) -> Result<(), Failure> {
        let Some(folder) = self.folder else { return Ok(()) };
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |e: io::Error| Failure::other(format!("writing the file `{path}`: {e}"))
        };
        let mut staged = Vec::new();
        for (path, id) in &self.plan.files {
            let Some(value) = values.get(id) else { continue };
            staged.push((path, folder.stage(path, value).map_err(failed(path))?));
        }
        staged.iter().try_for_each(|(path, file)| file.publish().map_err(failed(path)))
    }

    fn tell(&self, changes: &[KeyChange], done: &str) {
        for change in changes {
            self.say(&format!("{} changed (revision {}), {done}", change.id, change.revision));
        }
    }

    fn say(&self, sentence: &str) {
        if !self.plan.quiet {
            eprintln!("claviger run: {}", output::clean(sentence));
        }
    }
}

impl Child {
    /// Sends a signal to the program alone, as whoever sent it to us meant it. It may be a zombie, never another process,
    /// since only we reap it.
    fn signal(self, signal: Signal) {
        // It can fail only because the program has just ended, which is noticed by itself.
        let _ = match self.has_own_group && signal == Signal::KILL {
            true => kill_process_group(self.pid, signal),
            false => kill_process(self.pid, signal),
        };
    }

    /// Ends what a program left behind in its group, which may hold its ports and the old values.
    fn end_group(self) {
        if self.has_own_group {
            // Usually there is nothing left.
            let _ = kill_process_group(self.pid, Signal::TERM);
        }
    }
}

fn has_nul(value: &SecretBytes) -> bool {
    value.expose().contains(&0)
}

fn no_variable(id: &KeyId) -> Failure {
    Failure::invalid(format!("the value of `{id}` has a NUL byte, which no environment variable can carry")).next("give it with --file")
}

/// Adds changes to earlier ones, of which those of the same keys are passed.
fn newest(earlier: &mut Vec<KeyChange>, mut changes: Vec<KeyChange>) {
    earlier.retain(|e| changes.iter().all(|c| c.id != e.id));
    earlier.append(&mut changes);
}

/// The exit code of `child` if it has ended. As process 1 this reaps all others too.
fn ended(child: Pid) -> Option<u8> {
    if !getpid().is_init() {
        return waitpid(Some(child), WaitOptions::NOHANG).ok().flatten().map(|(_, status)| exit_code(status));
    }
    let mut code = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == child {
            code = Some(exit_code(status));
        }
    }
    code
}

/// As shells have it.
fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|c| u8::try_from(c & 0xff).ok()).unwrap_or(1)
}

/// The signals that come to us. Those that the terminal sends to the whole foreground are kept from ending us, and passed
/// on only where there is no terminal.
struct Signals {
    child: tokio::signal::unix::Signal,
    received: Receiver<Signal>,
}

impl Signals {
    fn listen(terminal: Terminal) -> io::Result<Self> {
        let child = signal(SignalKind::child())?;
        let (sender, received) = mpsc::channel(16);
        for (which, from_terminal) in FORWARDED {
            let mut stream = signal(SignalKind::from_raw(which.as_raw()))?;
            let passes = !(from_terminal && terminal == Terminal::Shared);
            let sender = sender.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    if passes && sender.send(which).await.is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { child, received })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::sync::mpsc::Sender;

    /// A program under supervision, with the test in the place of server and user.
    struct Supervised {
        updates: Sender<Update>,
        signals: Sender<Signal>,
        dir: tempfile::TempDir,
        ended: tokio::task::JoinHandle<Result<u8, Failure>>,
    }

    fn id() -> KeyId {
        KeyId::parse("db/pw").unwrap()
    }

    fn values(value: &str) -> Values {
        Values([(id(), SecretBytes::new(value.as_bytes().to_vec()))].into())
    }

    fn change() -> Vec<KeyChange> {
        vec![KeyChange { id: "db/pw".into(), revision: "1.7".into() }]
    }

    /// Runs a script that finds the value in `$PW` and in `$CLAVIGER_FILES/pw`, and its scratch folder in `$1`.
    fn start(script: &str, change: impl FnOnce(&mut Plan)) -> Supervised {
        let dir = tempfile::tempdir().unwrap();
        let mut plan = Plan {
            command: ["sh", "-c", script, "sh", dir.path().to_str().unwrap()].map(Into::into).to_vec(),
            env: vec![("PW".into(), id())],
            files: vec![("pw".into(), id())],
            on_change: OnChange::Restart,
            on_revoked: OnRevoked::Keep,
            grace: Duration::from_secs(20),
            pass_token: false,
            quiet: false,
        };
        change(&mut plan);
        let (updates, received_updates) = mpsc::channel(8);
        let (signals, received) = mpsc::channel(8);
        let ended = tokio::spawn(async move {
            let folder = Folder::make("run", None).unwrap();
            let signals = Signals { child: signal(SignalKind::child()).unwrap(), received };
            supervise_with(&plan, Some(&folder), values("one"), received_updates, signals, Terminal::None).await
        });
        Supervised { updates, signals, dir, ended }
    }

    impl Supervised {
        /// Waits until the script has written `text` to the file `log`.
        async fn logged(&self, text: &str) {
            let path = self.dir.path().join("log");
            for _ in 0..2000 {
                if std::fs::read_to_string(&path).is_ok_and(|log| log == text) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("the log is {:?}, not {text:?}", std::fs::read_to_string(&path));
        }

        async fn code(self) -> u8 {
            self.ended.await.unwrap().unwrap()
        }
    }

    const LOG_AND_WAIT: &str = r#"echo "$PW $(cat "$CLAVIGER_FILES/pw")" >> "$1/log"; while :; do sleep 0.05; done"#;

    #[tokio::test]
    async fn the_programs_exit_code_is_ours() {
        assert_eq!(start("exit 7", |_| ()).code().await, 7);
        assert_eq!(start("kill -KILL $$", |_| ()).code().await, 128 + 9);
        assert_eq!(start("", |p| p.command = vec!["/nowhere/program".into()]).code().await, 127);
        assert_eq!(start("", |p| p.command = vec!["/etc/passwd".into()]).code().await, 126);
    }

    #[tokio::test]
    async fn values_come_as_variable_and_as_a_private_file() {
        let run = start(
            r#"echo "$PW $(cat "$CLAVIGER_FILES/pw") $(stat -c %a "$CLAVIGER_FILES" "$CLAVIGER_FILES/pw" | tr "\n" " ")${CLAVIGER_TOKEN-none}" > "$1/log""#,
            |_| (),
        );
        run.logged("one one 700 400 none\n").await;
        assert_eq!(run.code().await, 0);
    }

    #[tokio::test]
    async fn a_change_restarts_the_program_with_the_new_value() {
        let run = start(LOG_AND_WAIT, |_| ());
        run.logged("one one\n").await;
        run.updates.send(Update::Changed(change(), values("two"))).await.unwrap();
        run.logged("one one\ntwo two\n").await;
        run.signals.send(Signal::TERM).await.unwrap();
        assert_eq!(run.code().await, 128 + 15);
    }

    #[tokio::test]
    async fn a_rotation_to_a_value_that_no_variable_can_carry_does_not_end_the_program() {
        let run = start(LOG_AND_WAIT, |_| ());
        run.logged("one one\n").await;
        run.updates.send(Update::Changed(change(), values("t\0o"))).await.unwrap();
        run.updates.send(Update::Changed(change(), values("three"))).await.unwrap();
        run.logged("one one\nthree three\n").await;
        run.signals.send(Signal::TERM).await.unwrap();
        assert_eq!(run.code().await, 128 + 15);
    }

    #[tokio::test]
    async fn who_does_not_end_in_time_is_killed_and_restarted_with_the_newest_value() {
        let run = start(&format!("trap '' TERM; {LOG_AND_WAIT}"), |p| p.grace = Duration::from_millis(300));
        run.logged("one one\n").await;
        run.updates.send(Update::Changed(change(), values("two"))).await.unwrap();
        run.updates.send(Update::Changed(change(), values("three"))).await.unwrap();
        run.logged("one one\nthree three\n").await;
        run.signals.send(Signal::USR1).await.unwrap();
        assert_eq!(run.code().await, 128 + 10);
    }

    #[tokio::test]
    async fn a_signal_tells_of_rewritten_files() {
        let script = format!(r#"trap 'echo "told $(cat "$CLAVIGER_FILES/pw")" >> "$1/log"' USR1; {LOG_AND_WAIT}"#);
        let run = start(&script, |p| p.on_change = OnChange::Signal(Signal::USR1));
        run.logged("one one\n").await;
        run.updates.send(Update::Changed(change(), values("two"))).await.unwrap();
        run.logged("one one\ntold two\n").await;
        run.signals.send(Signal::TERM).await.unwrap();
        assert_eq!(run.code().await, 128 + 15);
    }

    #[tokio::test]
    async fn a_rotation_whose_file_cannot_be_written_is_made_up_for_as_soon_as_it_can() {
        // A folder in the file's place stands for a full disk.
        let blocked = r#"if [ ! -e "$1/log" ]; then rm -f "$CLAVIGER_FILES/pw"; mkdir "$CLAVIGER_FILES/pw"; fi
            echo "$PW $(ls -A "$CLAVIGER_FILES")" >> "$1/log"; echo "$CLAVIGER_FILES" > "$1/where"; while :; do sleep 0.05; done"#;
        let run = start(blocked, |_| ());
        run.logged("one pw\n").await;
        run.updates.send(Update::Changed(change(), values("two"))).await.unwrap();
        run.updates.send(Update::Changed(change(), values("three"))).await.unwrap();
        run.updates.send(Update::Note("both were taken".into())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let folder = std::fs::read_to_string(run.dir.path().join("where")).unwrap();
        let file = Path::new(folder.trim()).join("pw");
        assert_eq!(std::fs::read_dir(folder.trim()).unwrap().count(), 1, "nothing half written stays");
        std::fs::remove_dir(&file).unwrap();
        run.logged("one pw\nthree pw\n").await;
        assert_eq!(std::fs::read(&file).unwrap(), b"three");
        run.signals.send(Signal::TERM).await.unwrap();
        assert_eq!(run.code().await, 128 + 15);
    }

    #[tokio::test]
    async fn files_are_rewritten_without_a_word() {
        let script = r#"echo ready > "$1/log"; while [ "$(cat "$CLAVIGER_FILES/pw")" != two ]; do sleep 0.02; done"#;
        let run = start(script, |p| p.on_change = OnChange::Rewrite);
        run.logged("ready\n").await;
        run.updates.send(Update::Changed(change(), values("two"))).await.unwrap();
        assert_eq!(run.code().await, 0);
    }

    #[tokio::test]
    async fn signals_reach_the_program_and_its_answer_is_kept() {
        let script = r#"trap 'echo usr1 >> "$1/log"' USR1; trap 'exit 3' INT; echo ready > "$1/log"; while :; do sleep 0.02; done"#;
        let run = start(script, |_| ());
        run.logged("ready\n").await;
        // Not SIGHUP: where the tests run under nohup, a shell cannot trap it.
        run.signals.send(Signal::USR1).await.unwrap();
        run.logged("ready\nusr1\n").await;
        run.signals.send(Signal::INT).await.unwrap();
        assert_eq!(run.code().await, 3);
    }

    #[tokio::test]
    async fn a_program_told_to_end_is_not_started_again() {
        let script = r#"trap 'echo term >> "$1/log"; sleep 0.3; exit 5' TERM; echo ready > "$1/log"; while :; do sleep 0.02; done"#;
        let run = start(script, |_| ());
        run.logged("ready\n").await;
        run.signals.send(Signal::TERM).await.unwrap();
        run.logged("ready\nterm\n").await;
        run.updates.send(Update::Changed(change(), values("two"))).await.unwrap();
        assert_eq!(run.code().await, 5);
    }

    #[tokio::test]
    async fn a_lost_key_or_server_ends_nothing_unless_asked() {
        let gone = || KeyChange { id: "db/pw".into(), revision: "1.8".into() };
        let run = start(LOG_AND_WAIT, |_| ());
        run.logged("one one\n").await;
        run.updates.send(Update::Note("the server is gone".into())).await.unwrap();
        run.updates.send(Update::Revoked(gone())).await.unwrap();
        run.updates.send(Update::Deleted(gone())).await.unwrap();
        let Supervised { updates, signals, ended, dir } = run;
        drop(updates);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!ended.is_finished());
        signals.send(Signal::TERM).await.unwrap();
        assert_eq!(ended.await.unwrap().unwrap(), 128 + 15);
        drop(dir);

        for (update, code) in [(Update::Revoked(gone()), Code::Denied), (Update::Deleted(gone()), Code::NotFound)] {
            let run = start(LOG_AND_WAIT, |p| p.on_revoked = OnRevoked::Stop);
            run.logged("one one\n").await;
            run.updates.send(update).await.unwrap();
            assert_eq!(run.code().await, code as u8);
        }
    }

    fn plan(script: &str) -> Plan {
        Plan {
            command: ["sh", "-c", script].map(Into::into).to_vec(),
            env: vec![("PW".into(), id())],
            files: vec![],
            on_change: OnChange::Restart,
            on_revoked: OnRevoked::Keep,
            grace: Duration::from_secs(1),
            pass_token: false,
            quiet: true,
        }
    }

    fn supervisor(plan: &Plan, values: Values) -> Supervisor<'_> {
        let state = State::Ended(0);
        Supervisor { plan, folder: None, terminal: Terminal::None, values, state, is_asked_to_end: false, unwritten: None }
    }

    #[test]
    fn a_program_that_has_ended_by_itself_is_not_started_again_by_a_change() {
        let plan = plan("exit 7");
        let mut supervisor = supervisor(&plan, values("one"));
        supervisor.start().unwrap();
        let State::Running(child) = supervisor.state else { panic!() };
        let stat = format!("/proc/{}/stat", child.pid.as_raw_nonzero());
        while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
            std::thread::sleep(Duration::from_millis(1));
        }
        supervisor.restart(change());
        assert!(matches!(supervisor.state, State::Ended(7)), "its end has not been told to us yet");
    }

    #[test]
    fn a_program_that_is_interrupted_without_a_terminal_is_not_started_again_by_a_change() {
        let plan = plan("trap '' INT; while :; do sleep 0.05; done");
        let mut supervisor = supervisor(&plan, values("one"));
        supervisor.start().unwrap();
        supervisor.pass_on(Signal::INT);
        supervisor.restart(change());
        let State::Running(child) = supervisor.state else { panic!("it was told to end and is left to do so") };
        child.signal(Signal::KILL);
        while ended(child.pid).is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_value_that_no_variable_can_carry_is_refused_by_name() {
        let nul = Values([(id(), SecretBytes::new(vec![b'a', 0]))].into());
        let plan = plan("true");
        let supervisor = supervisor(&plan, nul);
        let failure = supervisor.command().unwrap_err();
        assert!(failure.code == Code::Invalid && failure.what().contains("db/pw"));
    }
}
