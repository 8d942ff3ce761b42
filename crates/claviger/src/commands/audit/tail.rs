//! `claviger audit tail`: the newest records, oldest of them first.

use super::record;
use crate::cli::Session;
use crate::failure::Failure;
use crate::output;
use clap::Args;
use claviger_client::AuditQuery;
use claviger_wire::native::AuditItem;
use std::time::Duration;

/// Options of `audit tail`.
#[derive(Args)]
pub(crate) struct Tail {
    /// How many records, 1 to 1,000.
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    lines: u32,
    /// Go on with new records as they come.
    #[arg(short, long)]
    follow: bool,
}

impl Tail {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let mut last = show(session, self.lines, None).await?;
        if !self.follow {
            return Ok(0);
        }
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            last = show(session, 1000, last).await?;
        }
    }
}

/// Shows up to `limit` records, or all behind `after`, and gives the index of the last one shown.
async fn show(session: &Session, limit: u32, after: Option<u64>) -> Result<Option<u64>, Failure> {
    let mut query = AuditQuery { limit: Some(limit), ..AuditQuery::default() };
    let mut fresh: Vec<AuditItem> = Vec::new();
    loop {
        let page = session.client.audit(&query).await.map_err(|e| Failure::client(e, None))?;
        let reached = page.records.iter().any(|r| after.is_none_or(|a| r.index <= a));
        fresh.extend(page.records.into_iter().filter(|r| after.is_none_or(|a| r.index > a)));
        query.before = page.next;
        // One request can leave many entries: what one page does not hold is on the next.
        if reached || query.before.is_none() {
            break;
        }
    }
    fresh.sort_by_key(|r| r.index);
    if session.json {
        fresh.iter().try_for_each(output::json_line)?;
    } else if !fresh.is_empty() || after.is_none() {
        record::table(&fresh).print()?;
    }
    Ok(fresh.last().map(|r| r.index).or(after).or(Some(0)))
}
