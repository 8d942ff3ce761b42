//! The program of the demo: a shell loop that says its password, at its start and whenever it is told of a change.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::stage::{Actor, Stage, quoted};
use crate::dev;

/// How long it may take to say what it should.
const PATIENCE: Duration = Duration::from_secs(20);

/// `wait` returns at once when a signal comes, which `sleep` in the foreground would not.
const SCRIPT: &str = r#"say() { echo "process $$ has the password $(cat "$CLAVIGER_FILES/password")"; }
trap say HUP
say
while :; do sleep 1 & wait $!; done"#;

/// The program under `claviger run`.
pub(super) struct Program {
    child: Child,
    /// Its lines, each with the moment at which it came.
    lines: Receiver<(Instant, String)>,
}

impl Program {
    /// Starts it as the machine, with the key's value in a file.
    pub(super) fn start(stage: &Stage, key: &str) -> anyhow::Result<Self> {
        let binding = format!("password={key}");
        let arguments = ["run", "--file", &binding, "--on-change", "signal", "--", "sh", "-c", SCRIPT];
        println!(
            "  machine$ claviger run --file {} --on-change signal -- sh -c {}",
            quoted(&binding),
            quoted(SCRIPT).replace('\n', "\n    ")
        );
        let mut child = stage.command(Actor::Machine, &arguments)?.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("its output is piped")?;
        let (sender, lines) = mpsc::channel();
        // It ends when the program and whatever it started have closed their output.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// Waits until it says `value`; returns when that was.
    pub(super) fn wait_for(&mut self, value: &str) -> anyhow::Result<Instant> {
        loop {
            let (at, line) = self.lines.recv_timeout(PATIENCE).with_context(|| format!("the program does not say `{value}`"))?;
            println!("  program: {line}");
            if line.ends_with(value) {
                return Ok(at);
            }
        }
    }

    /// Ends it, and `claviger run` with it.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        dev::terminate(&self.child)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // After a failed step it still runs. `claviger run` passes the signal on; to be killed would leave its program alone.
        if matches!(self.child.try_wait(), Ok(None)) && dev::terminate(&self.child).is_ok() {
            let _ = self.child.wait();
        }
    }
}
