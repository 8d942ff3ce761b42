//! `claviger put`: a value into a key, whatever the value comes from and whether the key exists or not.

use crate::ask::{self, ValueSource};
use crate::cli::Session;
use crate::deposit::Deposit;
use crate::editor::Editing;
use crate::failure::Failure;
use crate::parse;
use clap::Args;
use claviger_domain::{Clock, KeyId, SystemClock};

/// Put a value into a key, whether it exists or not: asked for, from a file, a pipe or an editor.
///
/// A key that does not exist is created; one that does gets a new version, which is primary at once unless you say --no-promote.
/// The version that was primary stays active, so programs that hold it go on.
///
/// On a terminal the value is asked for twice without being shown. Otherwise it comes from standard input, from --file, or from an
/// editor (VISUAL, EDITOR) that works on a file in memory: nothing is written to a disk, and where there is no such place the editor
/// is not started. What an editor keeps elsewhere on its own account, such as histories, is its own affair; Vim is told not to.
#[derive(Args)]
pub(crate) struct Put {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    #[command(flatten)]
    value: ValueSource,
    /// Type the value in an editor.
    #[arg(long, short = 'e', conflicts_with_all = ["from_file", "trim_newline"])]
    editor: bool,
    /// Start the editor although unencrypted swap could take what is in memory to a disk.
    #[arg(long, requires = "editor")]
    allow_swap: bool,
    /// Only add the version; `claviger promote` makes it primary later.
    #[arg(long)]
    no_promote: bool,
    /// When the version stops being given out: a time, or a duration from now.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// What the key is for, if it is a new one.
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// Only if the key exists and its ETag still is this.
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

impl Put {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { id, value, editor, allow_swap, no_promote, expires, description, if_match } = self;
        let expires =
            expires.map(|t| parse::moment(&t, SystemClock.now())).transpose().map_err(|e| Failure::usage(format!("--expires: {e}")))?;
        let deposit = Deposit { promote: !no_promote, expires, description, if_match, ..Deposit::default() };
        if editor {
            return typed(session, &id, &deposit, allow_swap).await;
        }
        let data = if value.is_default() && ask::is_interactive() { ask::ask_twice()? } else { value.read()? };
        deposit.place(session, &id, &data).await?.show(session.json)?;
        Ok(0)
    }
}

async fn typed(session: &Session, id: &KeyId, deposit: &Deposit, allow_swap: bool) -> Result<u8, Failure> {
    let edited = Editing { command: "put", name: id.as_str(), start: b"", allow_swap }.run().await?;
    if edited.data.is_empty() {
        return Err(Failure::usage("there is no value: the editor left the file empty").next("nothing was changed; try again"));
    }
    match deposit.place(session, id, &edited.data).await {
        Ok(placed) => placed.show(session.json)?,
        Err(failure) => return Err(edited.keep(failure)),
    }
    Ok(0)
}
