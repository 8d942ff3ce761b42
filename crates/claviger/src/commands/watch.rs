//! `claviger watch`: changes as they happen, one line each, until it is stopped.

use crate::cli::Session;
use crate::failure::Failure;
use crate::{output, parse};
use clap::Args;
use claviger_client::{Change, Event, WatchRequest};
use claviger_domain::{KeyId, Prefix, Revision};
use serde::Serialize;

/// Options of `watch`. Without keys and prefixes everything visible is followed.
#[derive(Args)]
pub(crate) struct Watch {
    /// A key to follow; may be repeated.
    #[arg(long = "id", value_name = "KEY", value_parser = parse::key_id)]
    ids: Vec<KeyId>,
    /// A prefix to follow; may be repeated.
    #[arg(long = "prefix", value_name = "PREFIX", value_parser = parse::prefix)]
    prefixes: Vec<Prefix>,
    /// Also what changed after this revision.
    #[arg(long, value_name = "REVISION", value_parser = parse::revision)]
    since: Option<Revision>,
}

/// An event as `--json` shows it, one line each.
#[derive(Serialize)]
struct Shown<'a> {
    event: &'a str,
    revision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<&'a str>,
}

impl Watch {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { ids, prefixes, since } = self;
        let prefixes = if ids.is_empty() && prefixes.is_empty() { Prefix::parse("").into_iter().collect() } else { prefixes };
        let mut watch = session.client.watch(WatchRequest { ids, prefixes, since, ..WatchRequest::default() });
        loop {
            match watch.next().await {
                Event::Ready { revision } => show(session, "ready", revision, None)?,
                Event::Alive { .. } => {}
                Event::Compacted { revision } => show(session, "compacted", revision, None)?,
                Event::Changed(change) => show(session, "changed", change.revision, Some(&change))?,
                Event::Deleted(change) => show(session, "deleted", change.revision, Some(&change))?,
                Event::Revoked(change) => show(session, "revoked", change.revision, Some(&change))?,
                Event::Lost { error, retry_in } if error.is_transient() => {
                    eprintln!("claviger watch: {}; again in {} ms", output::clean(&error.to_string()), retry_in.as_millis());
                }
                Event::Lost { error, .. } => return Err(Failure::client(error, None)),
            }
        }
    }
}

fn show(session: &Session, event: &str, revision: Revision, change: Option<&Change>) -> Result<(), Failure> {
    let id = change.map(|c| c.id.as_str());
    let what = change.and_then(|c| c.what.as_deref());
    if session.json {
        let etag = change.and_then(|c| c.etag.as_deref());
        return output::json_line(&Shown { event, revision: revision.to_string(), id, etag, what });
    }
    let revision = revision.to_string();
    output::line(format!("{revision:<20}  {event:<9}  {}  {}", id.unwrap_or(""), what.unwrap_or("")).trim_end())
}
