//! Learns of new values from a server: one bulk read, then a watch from that read's revision.
//!
//! # Guarantees
//! Whatever the server does, what is known stays: a failed read is tried again until it succeeds, and an item that is
//! refused in it counts for nothing, since only the watch's own events say that a key is gone.

use super::{KeyChange, Update, Values};
use crate::failure::{Code, Failure, code_of_problem};
use claviger_client::{Backoff, Change, Client, Event, SecretItem, Watch, WatchRequest};
use claviger_domain::{KeyId, Revision, SecretBytes};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// What is known of each key's value without holding it: see `Secret::primary_identity`.
pub(super) type Known = BTreeMap<KeyId, String>;

/// From where to follow.
pub(super) struct Position {
    known: Known,
    revision: Option<Revision>,
}

/// One read of all keys, some of which may be refused.
struct Reading {
    read: Vec<(KeyId, Primary)>,
    refused: Vec<Failure>,
    revision: Option<Revision>,
}

/// A primary version's value, and its name.
struct Primary {
    identity: String,
    value: SecretBytes,
}

/// The first read: every key must have a value.
pub(super) async fn begin(client: &Client, ids: &[KeyId]) -> Result<(Values, Position), Failure> {
    let Reading { read, refused, revision } = read(client, ids, None).await?;
    if let Some(failure) = refused.into_iter().next() {
        return Err(failure);
    }
    let (mut values, mut known) = (BTreeMap::new(), Known::new());
    for (id, Primary { identity, value }) in read {
        known.insert(id.clone(), identity);
        values.insert(id, value);
    }
    match ids.iter().find(|id| !values.contains_key(*id)) {
        Some(missing) => Err(Failure::other(format!("the server's answer has nothing about `{missing}`"))),
        None => Ok((Values(values), Position { known, revision })),
    }
}

async fn read(client: &Client, ids: &[KeyId], min: Option<Revision>) -> Result<Reading, Failure> {
    let bulk = client.bulk_read(ids, min).await.map_err(|e| Failure::client(e, None))?;
    let mut reading = Reading { read: Vec::new(), refused: Vec::new(), revision: bulk.revision };
    for item in bulk.items {
        match primary(item) {
            Ok(found) => reading.read.push(found),
            Err(failure) => reading.refused.push(failure),
        }
    }
    Ok(reading)
}

fn primary(item: SecretItem) -> Result<(KeyId, Primary), Failure> {
    let id = item.id;
    let secret = item.outcome.map_err(|code| {
        Failure::new(code_of_problem(&code), format!("cannot read `{id}`: {}", code.replace('_', " ")))
            .next(format!("`claviger acl explain {id} TYPE:ID` says why; `claviger whoami` says who you are"))
    })?;
    let expired = || {
        Failure::other(format!("`{id}` has no primary version that is given out: it has expired"))
            .next(format!("add one with `claviger add {id} --promote`"))
    };
    let identity = secret.primary_identity().ok_or_else(expired)?;
    let value = secret.versions.into_iter().find(|v| v.state == "primary").ok_or_else(expired)?.data;
    let key = KeyId::parse(&id).map_err(|e| Failure::other(format!("the server's answer names `{id}`: {e}")))?;
    Ok((key, Primary { identity, value }))
}

/// Follows until nobody listens.
pub(super) async fn follow(client: Client, ids: Vec<KeyId>, position: Position, updates: Sender<Update>) {
    let Position { known, revision } = position;
    let watch = client.watch(WatchRequest { ids: ids.clone(), since: revision, ..WatchRequest::default() });
    let is_gapless = revision.is_some();
    let follower = Follower { client, ids, known, watch, updates, is_lost: false };
    // The error says only that the supervisor is gone, and then so are we.
    let _ = follower.run(is_gapless).await;
}

/// Nobody listens any more.
struct Gone;

struct Follower {
    client: Client,
    ids: Vec<KeyId>,
    known: Known,
    watch: Watch,
    updates: Sender<Update>,
    /// Whether a break was told and its end not yet.
    is_lost: bool,
}

impl Follower {
    async fn run(mut self, mut is_gapless: bool) -> Result<(), Gone> {
        loop {
            match self.watch.next().await {
                Event::Ready { .. } => {
                    self.found_again().await?;
                    // Without a revision to begin at, what changed between read and watch shows only in another read.
                    if !std::mem::replace(&mut is_gapless, true) {
                        self.refresh(Vec::new()).await?;
                    }
                }
                Event::Compacted { .. } => self.refresh(Vec::new()).await?,
                Event::Changed(change) => self.changed(change).await?,
                Event::Deleted(change) => self.send(Update::Deleted(told(&change))).await?,
                Event::Revoked(change) => self.send(Update::Revoked(told(&change))).await?,
                Event::Lost { error, .. } => self.lost(&error.to_string()).await?,
            }
        }
    }

    /// What changed together is read together.
    async fn changed(&mut self, first: Change) -> Result<(), Gone> {
        let mut changes = vec![first];
        while let Some(event) = self.watch.try_next() {
            match event {
                Event::Changed(change) => changes.push(change),
                Event::Deleted(change) => self.send(Update::Deleted(told(&change))).await?,
                Event::Revoked(change) => self.send(Update::Revoked(told(&change))).await?,
                Event::Lost { error, .. } => self.lost(&error.to_string()).await?,
                Event::Ready { .. } => self.found_again().await?,
                Event::Compacted { .. } => {}
            }
        }
        self.refresh(changes).await
    }

    /// Reads all values at the changes' revision or later, and tells of those that are new. What is refused stays as it
    /// was: other keys' changes must not wait for it.
    async fn refresh(&mut self, changes: Vec<Change>) -> Result<(), Gone> {
        let min = changes.iter().map(|c| c.revision).max();
        let Some(Reading { read, revision, .. }) = self.read_patiently(min).await? else { return Ok(()) };
        let (mut told, mut values) = (Vec::new(), BTreeMap::new());
        for (id, primary) in new_values(&mut self.known, read) {
            let of_key = changes.iter().rev().find(|c| c.id == id.as_str()).map(|c| c.revision).or(revision);
            told.push(KeyChange { id: id.to_string(), revision: of_key.map_or_else(|| "unknown".to_owned(), |r| r.to_string()) });
            values.insert(id, primary);
        }
        match told.is_empty() {
            true => Ok(()),
            false => self.send(Update::Changed(told, Values(values))).await,
        }
    }

    /// Reads until the server answers; a refusal of the whole request is told and left at that.
    async fn read_patiently(&mut self, min: Option<Revision>) -> Result<Option<Reading>, Gone> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        loop {
            match read(&self.client, &self.ids, min).await {
                Ok(reading) => {
                    self.found_again().await?;
                    return Ok(Some(reading));
                }
                Err(failure) if failure.code == Code::Unavailable => {
                    self.lost(failure.what()).await?;
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                Err(failure) => {
                    self.send(Update::Note(format!("{}; the program keeps the last values", failure.what()))).await?;
                    return Ok(None);
                }
            }
        }
    }

    async fn lost(&mut self, why: &str) -> Result<(), Gone> {
        match std::mem::replace(&mut self.is_lost, true) {
            true => Ok(()),
            false => self.send(Update::Note(format!("{why}; the program keeps the last values, trying again"))).await,
        }
    }

    async fn found_again(&mut self) -> Result<(), Gone> {
        match std::mem::replace(&mut self.is_lost, false) {
            true => self.send(Update::Note("the server answers again".to_owned())).await,
            false => Ok(()),
        }
    }

    async fn send(&self, update: Update) -> Result<(), Gone> {
        self.updates.send(update).await.map_err(|_| Gone)
    }
}

fn told(change: &Change) -> KeyChange {
    KeyChange { id: change.id.clone(), revision: change.revision.to_string() }
}

/// The values that are others than the known ones, which are known from now on.
fn new_values(known: &mut Known, read: Vec<(KeyId, Primary)>) -> Vec<(KeyId, SecretBytes)> {
    let mut is_new =
        |(id, primary): &(KeyId, Primary)| known.insert(id.clone(), primary.identity.clone()).as_ref() != Some(&primary.identity);
    read.into_iter().filter(|item| is_new(item)).map(|(id, primary)| (id, primary.value)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_another_value_counts_as_a_change_and_what_is_not_read_stays_known() {
        let id = |text: &str| KeyId::parse(text).unwrap();
        let read = |pairs: &[(&str, &str)]| {
            let one = |&(key, name): &(&str, &str)| (id(key), Primary { identity: name.to_owned(), value: SecretBytes::new(vec![]) });
            pairs.iter().map(one).collect::<Vec<_>>()
        };
        let mut known = Known::from([(id("a"), "i/1".to_owned()), (id("b"), "i/1".to_owned())]);
        let mut new =
            |pairs: &[(&str, &str)]| new_values(&mut known, read(pairs)).into_iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>();
        let none: [&str; 0] = [];
        assert_eq!(new(&[("a", "i/1"), ("b", "i/1")]), none);
        assert_eq!(new(&[("a", "i/2")]), ["a"]);
        assert_eq!(new(&[("a", "i/2"), ("b", "i/1")]), none);
        assert_eq!(new(&[("a", "j/2"), ("b", "j/1")]), ["a", "b"], "made again after a deletion");
    }
}
