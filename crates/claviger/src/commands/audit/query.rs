//! `claviger audit query`: records by what they are about, newest first.

use super::record;
use crate::cli::Session;
use crate::failure::Failure;
use crate::{output, parse};
use clap::Args;
use claviger_client::AuditQuery;
use claviger_domain::{Clock, SystemClock};
use claviger_wire::native::AuditItem;

/// Options of `audit query`.
#[derive(Args)]
pub(crate) struct Query {
    /// About this key.
    #[arg(long)]
    key: Option<String>,
    /// By this principal, TYPE:ID.
    #[arg(long)]
    principal: Option<String>,
    /// With this action, such as read or change_rights.
    #[arg(long)]
    action: Option<String>,
    /// With this outcome, such as denied.
    #[arg(long)]
    outcome: Option<String>,
    /// Not older than this: a time, or a duration back from now.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// At most this many records.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

impl Query {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { key, principal, action, outcome, since, limit } = self;
        let since = since.map(|t| since_time(&t)).transpose()?;
        let query = AuditQuery { key, principal, action, outcome, since, ..AuditQuery::default() };
        let records = fetch(session, query, limit).await?;
        match session.json {
            true => records.iter().try_for_each(output::json_line)?,
            false => record::table(&records).print()?,
        }
        Ok(0)
    }
}

/// The moment of a `--since`.
pub(super) fn since_time(text: &str) -> Result<String, Failure> {
    parse::past_moment(text, SystemClock.now()).map_err(|e| Failure::usage(format!("--since: {e}")))
}

/// Up to `limit` records, page after page, newest first.
pub(super) async fn fetch(session: &Session, mut query: AuditQuery, limit: usize) -> Result<Vec<AuditItem>, Failure> {
    let mut records = Vec::new();
    while records.len() < limit {
        query.limit = Some(u32::try_from(limit - records.len()).unwrap_or(1000).min(1000));
        let page = session.client.audit(&query).await.map_err(|e| Failure::client(e, None))?;
        records.extend(page.records);
        query.before = page.next;
        if query.before.is_none() {
            break;
        }
    }
    records.truncate(limit);
    Ok(records)
}
