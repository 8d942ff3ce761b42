//! `claviger set`: a key's description, labels and policy.

use crate::cli::Session;
use crate::commands::states::show_change;
use crate::failure::{Code, Failure};
use crate::parse;
use clap::Args;
use claviger_domain::KeyId;
use claviger_wire::native::{Changed, UpdateKey};
use std::collections::BTreeMap;

/// How often a change that somebody else overtook is made again.
const ROUNDS: usize = 5;

/// Options of `set`.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct Set {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// What the key is for.
    #[arg(long, group = "change")]
    description: Option<String>,
    /// Add or change a label; may be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse::label, group = "change")]
    labels: Vec<(String, String)>,
    /// Remove a label; may be repeated.
    #[arg(long = "remove-label", value_name = "NAME", group = "change")]
    remove_labels: Vec<String>,
    /// No version is given out longer than this, such as 90d.
    #[arg(long, value_name = "DURATION", value_parser = parse::lifetime, group = "change")]
    max_lifetime: Option<u32>,
    /// Versions have no hard lifetime any more.
    #[arg(long, group = "change", conflicts_with = "max_lifetime")]
    no_max_lifetime: bool,
    /// The oldest version that is still used: those added before it neither decrypt nor verify. `none` removes the minimum.
    #[arg(long, value_name = "VERSION", group = "change")]
    min_version: Option<String>,
    /// Managing and using it are different people's, for ever.
    #[arg(long, group = "change")]
    separate_duties: bool,
}

impl Set {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let changed = match self.labels.is_empty() && self.remove_labels.is_empty() {
            true => self.update(session, None, None).await?,
            false => self.with_labels(session).await?,
        };
        show_change(session, &changed, &format!("{}: changed", self.id))
    }

    /// The server replaces all labels at once: the new set is made from the present one, and made again if that changed.
    async fn with_labels(&self, session: &Session) -> Result<Changed, Failure> {
        let mut round = 1;
        loop {
            let key = session.client.key(&self.id).await.map_err(|e| Failure::client(e, Some(self.id.as_str())))?;
            let labels = edited(key.labels, &self.labels, &self.remove_labels);
            match self.update(session, Some(labels), Some(&key.etag)).await {
                Err(failure) if failure.code == Code::Conflict && round < ROUNDS => round += 1,
                done => return done,
            }
        }
    }

    async fn update(&self, session: &Session, labels: Option<BTreeMap<String, String>>, etag: Option<&str>) -> Result<Changed, Failure> {
        let max_lifetime = if self.no_max_lifetime { Some(0) } else { self.max_lifetime };
        let separate_duties = self.separate_duties.then_some(true);
        let change = UpdateKey {
            description: self.description.clone(),
            labels,
            max_lifetime,
            separate_duties,
            min_version: self.min_version.clone(),
        };
        session.client.update(&self.id, &change, etag).await.map_err(|e| Failure::client(e, Some(self.id.as_str())))
    }
}

fn edited(mut labels: BTreeMap<String, String>, set: &[(String, String)], remove: &[String]) -> BTreeMap<String, String> {
    labels.retain(|name, _| !remove.contains(name));
    labels.extend(set.iter().cloned());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_removed_changed_and_added() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let before = BTreeMap::from([pair("a", "1"), pair("b", "2"), pair("c", "3")]);
        let after = edited(before, &[pair("b", "9"), pair("d", "4")], &["a".to_owned()]);
        assert_eq!(after, BTreeMap::from([pair("b", "9"), pair("c", "3"), pair("d", "4")]));
    }
}
