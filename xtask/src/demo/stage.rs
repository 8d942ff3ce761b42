//! Commands of `claviger` as different callers give them, shown with what they say.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::dev::Environment;

/// Who gives a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Actor {
    /// By the development token.
    Administrator,
    /// By a machine certificate.
    Machine,
    /// By the certificate of a service.
    Service,
}

/// How a command must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    Well,
    /// Denied, or told that there is no such thing: that depends on whether the caller may know of the key.
    Refused,
}

impl Ends {
    /// The exit codes that fit.
    fn codes(self) -> &'static [i32] {
        match self {
            Self::Well => &[0],
            Self::Refused => &[3, 4],
        }
    }
}

/// The program, and the settings of all callers.
pub(super) struct Stage {
    claviger: PathBuf,
    environment: Environment,
}

/// A command's standard input, which is a secret's value.
pub(super) struct Input<'a> {
    stage: &'a Stage,
    text: &'static str,
}

impl Actor {
    fn name(self) -> &'static str {
        match self {
            Self::Administrator => "administrator",
            Self::Machine => "machine",
            Self::Service => "stranger",
        }
    }
}

impl Stage {
    pub(super) fn new(claviger: &Path, environment: Environment) -> Self {
        Self { claviger: claviger.to_owned(), environment }
    }

    /// A command of this caller: of the surroundings it has none of Claviger's settings but those of the demo.
    pub(super) fn command(&self, actor: Actor, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.claviger);
        command.args(arguments).stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CLAVIGER_")) {
            command.env_remove(name);
        }
        let mut set = |name: &str, from: &str| {
            command.env(name, self.environment.value(from)?);
            anyhow::Ok(())
        };
        set("CLAVIGER_ADDR", "CLAVIGER_ADDR")?;
        set("CLAVIGER_CA", "CLAVIGER_CA")?;
        match actor {
            Actor::Administrator => set("CLAVIGER_TOKEN", "CLAVIGER_TOKEN")?,
            Actor::Machine => {
                set("CLAVIGER_CERT", "CLAVIGER_MACHINE_CERT")?;
                set("CLAVIGER_KEY", "CLAVIGER_MACHINE_KEY")?;
            }
            Actor::Service => {
                set("CLAVIGER_CERT", "CLAVIGER_SERVICE_CERT")?;
                set("CLAVIGER_KEY", "CLAVIGER_SERVICE_KEY")?;
            }
        }
        Ok(command)
    }

    /// The next command reads this.
    pub(super) fn input(&self, text: &'static str) -> Input<'_> {
        Input { stage: self, text }
    }

    /// Shows a command and what it says.
    ///
    /// # Errors
    /// It does not end as it should.
    pub(super) fn say(&self, actor: Actor, arguments: &[&str], ends: Ends) -> anyhow::Result<()> {
        show(actor, arguments, None);
        let output = self.command(actor, arguments)?.output()?;
        show_output(&output);
        check(arguments, &output, ends)
    }

    /// The same for one that must end well, without showing it; returns what it says.
    pub(super) fn quietly(&self, actor: Actor, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(actor, arguments)?.output()?;
        if !output.status.success() {
            show_output(&output);
        }
        check(arguments, &output, Ends::Well)?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Shows a command that must end well; returns the moment at which it said its first line, which it says when the
    /// server has acknowledged.
    pub(super) fn timed(&self, actor: Actor, arguments: &[&str]) -> anyhow::Result<Instant> {
        show(actor, arguments, None);
        let mut child = self.command(actor, arguments)?.stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stdout.take().context("its output is piped")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        let acknowledged = Instant::now();
        print!("  {line}");
        let status = child.wait()?;
        ensure!(status.success(), "`claviger {}` failed ({status})", arguments.join(" "));
        Ok(acknowledged)
    }
}

impl Input<'_> {
    /// As [`Stage::say`].
    pub(super) fn say(&self, actor: Actor, arguments: &[&str], ends: Ends) -> anyhow::Result<()> {
        let output = self.output(actor, arguments)?;
        check(arguments, &output, ends)
    }

    /// As [`Input::say`] for one that must end well, and what it says is JSON.
    pub(super) fn hear(&self, actor: Actor, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = self.output(actor, arguments)?;
        check(arguments, &output, Ends::Well)?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn output(&self, actor: Actor, arguments: &[&str]) -> anyhow::Result<Output> {
        show(actor, arguments, Some(self.text));
        let mut command = self.stage.command(actor, arguments)?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("its input is piped")?;
        stdin.write_all(self.text.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        show_output(&output);
        Ok(output)
    }
}

/// A command as one would type it.
fn show(actor: Actor, arguments: &[&str], input: Option<&str>) {
    let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
    let input = input.map(|text| format!("printf {text} | ")).unwrap_or_default();
    println!("  {}$ {input}claviger {}", actor.name(), words.join(" "));
}

/// A word as a shell needs it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-:=".contains(&byte));
    if is_plain && !word.is_empty() { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn show_output(output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        String::from_utf8_lossy(text).lines().for_each(|line| println!("  {line}"));
    }
}

fn check(arguments: &[&str], output: &Output, ends: Ends) -> anyhow::Result<()> {
    let fits = output.status.code().is_some_and(|code| ends.codes().contains(&code));
    if !fits {
        bail!("`claviger {}` ended with {} instead of exit code {:?}", arguments.join(" "), output.status, ends.codes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_a_shell_takes_them() {
        assert_eq!(quoted("demo/db-password"), "demo/db-password");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
