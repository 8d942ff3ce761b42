//! A server process and the `dev.env` of a development server, for the bench and the demo.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A server that ends with this value.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts the program; all it says goes to `log`.
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> anyhow::Result<Self> {
        let output = fs::File::create(&log)?;
        let errors = output.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("starting `{}`", crate::shell::show(command)))?;
        Ok(Self { child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as an operator would, and waits until it has ended.
    ///
    /// # Errors
    /// It does not end in time, or not well; it is killed then.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        // Ctrl-C reaches it too: then it has ended by itself, or is about to.
        if self.child.try_wait()?.is_none() {
            terminate(&self.child)?;
        }
        let begun = Instant::now();
        while begun.elapsed() < STOP_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the server ended badly ({status})");
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        anyhow::bail!("the server did not end within {STOP_LIMIT:?}")
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = fs::File::open(&self.log) {
            let _ = file.read_to_string(&mut text);
        }
        text
    }

    /// An error when it has ended, with the last it said.
    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join(" | ");
        anyhow::bail!("the server ended ({status}): {last}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of `dev.env`.
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// `KEY=value` lines of a shell, where values may be quoted and lines may begin with `export`.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| {
            let line = line.trim();
            let line = line.strip_prefix("export ").unwrap_or(line);
            let (name, value) = line.split_once('=')?;
            let value = value.trim_matches(['"', '\'']);
            (!name.starts_with('#')).then(|| (name.to_owned(), value.to_owned()))
        });
        Self(pairs.collect())
    }

    pub(crate) fn value(&self, name: &str) -> anyhow::Result<&str> {
        let value = self.0.get(name).map(String::as_str);
        value.with_context(|| format!("dev.env has no `{name}`"))
    }

    pub(crate) fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.value(name).map(PathBuf::from)
    }
}

/// Ends a process as an operator would.
///
/// # Errors
/// There is no such process.
pub(crate) fn terminate(child: &Child) -> anyhow::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the process has a number")?;
    Ok(kill_process(pid, Signal::TERM)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_environment_is_read_as_a_shell_would() {
        let text = "# dev\nCLAVIGER_ADDR=https://localhost:1\nexport CLAVIGER_TOKEN='a=b'\n\n";
        let environment = Environment::parse(text);
        assert_eq!(environment.value("CLAVIGER_ADDR").unwrap(), "https://localhost:1");
        assert_eq!(environment.value("CLAVIGER_TOKEN").unwrap(), "a=b");
        let error = environment.value("CLAVIGER_CA").unwrap_err();
        assert_eq!(error.to_string(), "dev.env has no `CLAVIGER_CA`");
    }

    #[test]
    fn a_server_that_ends_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such option; exit 2"]);
        let mut server = Server::start(&mut command, dir.path().join("log")).unwrap();
        let error = loop {
            if let Err(error) = server.check_alive() {
                break error.to_string();
            }
        };
        assert!(error.contains("exit status: 2"), "{error}");
        assert!(error.contains("no such option"), "{error}");
    }
}
