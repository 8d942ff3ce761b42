//! `claviger run`: a program with secrets in its environment or in files, kept up to date while it runs.
//!
//! Three parts: `follow` learns of new values, `files` holds them where only memory holds them, `supervise` starts, tells
//! and ends the program. Between the first and the last is a channel, so that the last is tested without a server.
//!
//! # Guarantees
//! - The program is never ended because a server fails: it keeps what it has. Only an explicit event or answer that a
//!   key was deleted, or that the right to read it was taken, can end it, and only if `--on-revoked stop` asks for that.
//! - Between the first read and the watch no change is lost: the watch begins at the revision of the read.
//! - The exit code is the program's own.
//!
//! # Not promised
//! The environment of a program can be read by its own user and root, and is inherited by what it starts; files are
//! better. A copy of the values stays in this process's memory, for restarts while no server answers; no other process of
//! the user may look into it. If this process is killed by SIGKILL the kernel sends the program TERM; what ignores TERM, what
//! the program itself has started, and a program that gains privileges when it is run (set-user-ID) run on alone. The files
//! then stay until they are removed.

mod follow;
mod orphan;
mod supervise;

use crate::cli::Session;
use crate::failure::Failure;
use crate::memory::Folder;
use crate::parse;
use clap::{Args, ValueEnum};
use claviger_domain::{KeyId, SecretBytes};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The variable that names the folder of the files.
const FOLDER_VARIABLE: &str = "CLAVIGER_FILES";

/// Options of `run`.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("secrets").required(true).multiple(true))]
pub(crate) struct Run {
    /// Give the key's primary value as environment variable NAME; may be repeated.
    #[arg(long = "env", value_name = "NAME=KEY", value_parser = env_binding, group = "secrets")]
    env: Vec<(String, KeyId)>,
    /// Give it as file PATH, relative to the folder that $CLAVIGER_FILES names; it is readable by the user only and held
    /// in memory only; may be repeated.
    #[arg(long = "file", value_name = "PATH=KEY", value_parser = file_binding, group = "secrets")]
    files: Vec<(PathBuf, KeyId)>,
    /// What to do when a value changes: restart, signal (SIGHUP) or signal:NAME after rewriting the files, rewrite only
    /// the files, or ignore. By default restart if there is any --env, and else rewrite.
    #[arg(long, value_name = "ACTION", value_parser = on_change)]
    on_change: Option<OnChange>,
    /// What to do when a key is deleted or may no longer be read.
    #[arg(long, value_name = "ACTION", default_value = "keep")]
    on_revoked: OnRevoked,
    /// How long a program may take to end before it is killed.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse::duration)]
    grace: Duration,
    /// Where the folder of the files is made; it must be held in memory. By default $XDG_RUNTIME_DIR or /dev/shm.
    #[arg(long, value_name = "DIR", requires = "files")]
    dir: Option<PathBuf>,
    /// Leave CLAVIGER_TOKEN in the program's environment. By default it is taken out: the program gets what it needs, not
    /// all that you may.
    #[arg(long)]
    pass_token: bool,
    /// Say nothing about changes.
    #[arg(short, long)]
    quiet: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What to do when a value changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnChange {
    Restart,
    Signal(Signal),
    Rewrite,
    Ignore,
}

/// What to do when a key is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnRevoked {
    /// Go on with the last values.
    Keep,
    /// End the program.
    Stop,
}

/// What is to be done, resolved: nothing is read or started yet.
#[derive(Debug, Clone)]
struct Plan {
    command: Vec<OsString>,
    env: Vec<(String, KeyId)>,
    files: Vec<(PathBuf, KeyId)>,
    on_change: OnChange,
    on_revoked: OnRevoked,
    grace: Duration,
    pass_token: bool,
    quiet: bool,
}

/// Values by their keys; wiped when dropped.
#[derive(Debug, Default)]
struct Values(BTreeMap<KeyId, SecretBytes>);

/// One key's change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyChange {
    id: String,
    revision: String,
}

/// What the follower tells the supervisor.
#[derive(Debug)]
enum Update {
    /// Some values changed; these are the new ones.
    Changed(Vec<KeyChange>, Values),
    /// The key was deleted.
    Deleted(KeyChange),
    /// The right to read it was taken.
    Revoked(KeyChange),
    /// Something that a person may want to know; nothing is to be done.
    Note(String),
}

impl Run {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let dir = self.dir.clone();
        let plan = self.plan()?;
        let ids: Vec<KeyId> = plan.ids().into_iter().collect();
        let (values, position) = follow::begin(&session.client, &ids).await?;
        let folder = match plan.files.is_empty() {
            true => None,
            false => Some(Folder::make("run", dir.as_deref()).map_err(|f| f.next("give one with --dir, mount a tmpfs, or use --env"))?),
        };
        let (updates, received) = mpsc::channel(16);
        // Only now: the program starts without waiting for the watch.
        let follower = tokio::spawn(follow::follow(session.client.clone(), ids, position, updates));
        let ended = supervise::supervise(&plan, folder.as_ref(), values, received).await;
        follower.abort();
        ended
    }

    fn plan(self) -> Result<Plan, Failure> {
        let default = if self.env.is_empty() { OnChange::Rewrite } else { OnChange::Restart };
        let on_change = self.on_change.unwrap_or(default);
        if self.files.is_empty() && matches!(on_change, OnChange::Signal(_) | OnChange::Rewrite) {
            return Err(Failure::usage("--on-change signal and rewrite need --file: the environment of a running program cannot change")
                .next("use --on-change restart, or give the values with --file"));
        }
        let Self { command, env, files, on_revoked, grace, pass_token, quiet, .. } = self;
        Ok(Plan { command, env, files, on_change, on_revoked, grace, pass_token, quiet })
    }
}

impl Plan {
    fn ids(&self) -> BTreeSet<KeyId> {
        self.env.iter().map(|(_, id)| id).chain(self.files.iter().map(|(_, id)| id)).cloned().collect()
    }
}

impl Values {
    /// Takes over what is new; what it replaces is wiped.
    fn merge(&mut self, new: Self) {
        self.0.extend(new.0);
    }

    fn get(&self, id: &KeyId) -> Option<&SecretBytes> {
        self.0.get(id)
    }
}

/// Waits until then; without a time, for ever.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn env_binding(text: &str) -> Result<(String, KeyId), String> {
    let (name, id) = text.split_once('=').ok_or("write NAME=KEY, such as PGPASSWORD=db/pw")?;
    let first_ok = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first_ok || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(format!("`{name}` is no name of an environment variable"));
    }
    Ok((name.to_owned(), parse::key_id(id)?))
}

fn file_binding(text: &str) -> Result<(PathBuf, KeyId), String> {
    let (path, id) = text.rsplit_once('=').ok_or("write PATH=KEY, such as pgpass=db/pw")?;
    let path = Path::new(path);
    let stays_inside = path.components().all(|c| matches!(c, Component::Normal(_))) && path.file_name().is_some();
    if !stays_inside {
        return Err(format!(
            "`{}` must be relative, without `..`: it is made inside the folder that ${FOLDER_VARIABLE} names",
            path.display()
        ));
    }
    Ok((path.to_owned(), parse::key_id(id)?))
}

fn on_change(text: &str) -> Result<OnChange, String> {
    match text {
        "restart" => Ok(OnChange::Restart),
        "signal" => Ok(OnChange::Signal(Signal::HUP)),
        "rewrite" => Ok(OnChange::Rewrite),
        "ignore" => Ok(OnChange::Ignore),
        _ => match text.strip_prefix("signal:") {
            Some(name) => signal(name)
                .map(OnChange::Signal)
                .ok_or_else(|| format!("`{name}` is none of HUP, INT, QUIT, TERM, USR1, USR2, WINCH, CONT")),
            None => Err("write restart, signal, signal:NAME, rewrite or ignore".to_owned()),
        },
    }
}

fn signal(name: &str) -> Option<Signal> {
    Some(match name.strip_prefix("SIG").unwrap_or(name) {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "TERM" => Signal::TERM,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "WINCH" => Signal::WINCH,
        "CONT" => Signal::CONT,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bindings_name_a_variable_or_a_file_inside_the_folder() {
        assert_eq!(env_binding("PG_PW=db/pw").unwrap().0, "PG_PW");
        for bad in ["PG_PW", "=db/pw", "1A=db/pw", "A B=db/pw", "A=", "A=a//b"] {
            assert!(env_binding(bad).is_err(), "{bad}");
        }
        assert_eq!(file_binding("tls/key.pem=web/key").unwrap().0, Path::new("tls/key.pem"));
        for bad in ["x", "/etc/x=a", "../x=a", "a/../../x=a", "=a", ".=a", "x=a//b"] {
            assert!(file_binding(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn actions_are_parsed() {
        assert_eq!(on_change("signal"), Ok(OnChange::Signal(Signal::HUP)));
        assert_eq!(on_change("signal:SIGUSR1"), Ok(OnChange::Signal(Signal::USR1)));
        assert_eq!(on_change("restart"), Ok(OnChange::Restart));
        assert!(on_change("signal:KILL").is_err() && on_change("reboot").is_err());
    }
}
