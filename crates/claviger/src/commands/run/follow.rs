//! Learns of new values from a server: one bulk read, then a watch from that read's revision.
//!
//! # Guarantees
//! - Whatever the server does, what is known stays: a read that fails, in whole or for some keys, is tried again until it
//!   succeeds, and meanwhile the watch is listened to.
//! - A key is gone when the server says so in as many words, in an event or in an answer: deleted or revoked. (Of a right
//!   that was taken today's server tells in events only.) Any other refusal, such as unavailable or denied, takes nothing
//!   away. It is told once.

use super::{KeyChange, Update, Values};
use crate::failure::{Code, Failure, NOT_FOUND, code_of_problem};
use claviger_client::{Backoff, Change, Client, Event, SecretItem, Watch, WatchRequest};
use claviger_domain::{KeyId, Revision, SecretBytes};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

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
    refused: Vec<Refused>,
    revision: Option<Revision>,
}

/// A key whose value was not given.
struct Refused {
    id: String,
    meaning: Meaning,
    failure: Failure,
}

/// What an item's refusal says about the key.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Deleted,
    Revoked,
    /// It may well be given a moment later.
    NotNow,
    /// The server has the key in hand, and will say when that changes.
    Nothing,
}

/// A primary version's value, and its name.
struct Primary {
    identity: String,
    value: SecretBytes,
}

/// The first read: every key must have a value.
pub(super) async fn begin(client: &Client, ids: &[KeyId]) -> Result<(Values, Position), Failure> {
    let Reading { read, refused, revision } = read(client, ids, None).await?;
    if let Some(first) = refused.into_iter().next() {
        return Err(first.failure);
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
        let id = item.id.clone();
        let meaning = item.outcome.as_ref().map_or_else(|code| meaning(code), |_| Meaning::Nothing);
        match primary(item) {
            Ok(found) => reading.read.push(found),
            Err(failure) => reading.refused.push(Refused { id, meaning, failure }),
        }
    }
    Ok(reading)
}

fn meaning(code: &str) -> Meaning {
    match code {
        "deleted" => Meaning::Deleted,
        "revoked" => Meaning::Revoked,
        "denied" | "not_found" | "expired" => Meaning::Nothing,
        // Also what a later server may say: a change must not be forgotten because its read failed.
        _ => Meaning::NotNow,
    }
}

fn primary(item: SecretItem) -> Result<(KeyId, Primary), Failure> {
    let id = item.id;
    let secret = item.outcome.map_err(|code| {
        let kind = code_of_problem(&code);
        Failure::new(kind, format!("cannot read `{id}`: {}", code.replace('_', " "))).next(match kind {
            Code::NotFound => NOT_FOUND.to_owned(),
            Code::Unavailable => "try again in a moment; `claviger status` or the server's log says more".to_owned(),
            _ => format!("`claviger acl explain {id} TYPE:ID` says why; `claviger whoami` says who you are"),
        })
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
    let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    let follower = Follower {
        client,
        ids,
        known,
        watch,
        updates,
        gone: BTreeSet::new(),
        unreadable: BTreeSet::new(),
        unread: None,
        backoff,
        is_lost: false,
    };
    // The error says only that the supervisor is gone, and then so are we.
    let _ = follower.run(is_gapless).await;
}

/// Nobody listens any more.
struct Gone;

/// A read that is due, and the changes that it is to show.
struct Unread {
    changes: Vec<Change>,
    due: Instant,
}

struct Follower {
    client: Client,
    ids: Vec<KeyId>,
    known: Known,
    watch: Watch,
    updates: Sender<Update>,
    /// Keys whose end was told.
    gone: BTreeSet<String>,
    /// Keys that the last read did not give, for reasons that may pass.
    unreadable: BTreeSet<String>,
    unread: Option<Unread>,
    backoff: Backoff,
    /// Whether a break was told and its end not yet.
    is_lost: bool,
}

impl Follower {
    async fn run(mut self, mut is_gapless: bool) -> Result<(), Gone> {
        loop {
            let due = self.unread.as_ref().map(|u| u.due);
            tokio::select! {
                // All events that are there before a read: what changed together is read together.
                biased;
                event = self.watch.next() => self.heard(event, &mut is_gapless).await?,
                () = super::until(due) => self.refresh().await?,
            }
        }
    }

    async fn heard(&mut self, event: Event, is_gapless: &mut bool) -> Result<(), Gone> {
        match event {
            Event::Ready { .. } => {
                self.found_again().await?;
                // Without a revision to begin at, what changed between read and watch shows only in another read.
                if !std::mem::replace(is_gapless, true) {
                    self.want(Vec::new(), Duration::ZERO);
                }
            }
            Event::Compacted { .. } => {
                // All followers hear it together, and a server may say it again and again.
                let wait = self.backoff.next_wait();
                self.want(Vec::new(), wait);
            }
            Event::Changed(change) => {
                self.gone.remove(&change.id);
                self.want(vec![change], Duration::ZERO);
            }
            Event::Deleted(change) => self.ended(told(&change), Update::Deleted).await?,
            Event::Revoked(change) => self.ended(told(&change), Update::Revoked).await?,
            Event::Alive { .. } => {}
            Event::Lost { error, .. } => self.lost(&error.to_string()).await?,
        }
        Ok(())
    }

    /// Wants a read that shows these changes, after this time or when another one is due before.
    fn want(&mut self, changes: Vec<Change>, wait: Duration) {
        let due = Instant::now() + wait;
        let unread = self.unread.get_or_insert(Unread { changes: Vec::new(), due });
        unread.due = unread.due.min(due);
        unread.changes.retain(|earlier| changes.iter().all(|c| c.id != earlier.id));
        unread.changes.extend(changes);
    }

    /// Reads all values at the changes' revision or later.
    async fn refresh(&mut self) -> Result<(), Gone> {
        let Some(Unread { changes, .. }) = self.unread.take() else { return Ok(()) };
        match read(&self.client, &self.ids, changes.iter().map(|c| c.revision).max()).await {
            Ok(reading) => {
                self.found_again().await?;
                self.take(reading, changes).await
            }
            Err(failure) => {
                self.lost(failure.what()).await?;
                let wait = self.backoff.next_wait();
                self.want(changes, wait);
                Ok(())
            }
        }
    }

    /// Tells of values that are new and of keys that are gone. Other keys' changes do not wait for what is refused.
    async fn take(&mut self, reading: Reading, changes: Vec<Change>) -> Result<(), Gone> {
        let Reading { read, refused, revision } = reading;
        let revision_of = |id: &str| {
            let of_key = changes.iter().find(|c| c.id == id).map(|c| c.revision).or(revision);
            of_key.map_or_else(|| "unknown".to_owned(), |r| r.to_string())
        };
        let (mut told, mut values) = (Vec::new(), BTreeMap::new());
        self.gone.retain(|id| read.iter().all(|(given, _)| given.as_str() != id));
        for (id, value) in new_values(&mut self.known, read) {
            told.push(KeyChange { id: id.to_string(), revision: revision_of(id.as_str()) });
            values.insert(id, value);
        }
        if !told.is_empty() {
            self.send(Update::Changed(told, Values(values))).await?;
        }
        let mut not_now = BTreeSet::new();
        for Refused { id, meaning, failure } in refused {
            let change = KeyChange { revision: revision_of(&id), id };
            match meaning {
                Meaning::Deleted => self.ended(change, Update::Deleted).await?,
                Meaning::Revoked => self.ended(change, Update::Revoked).await?,
                Meaning::NotNow => {
                    if failure.code != Code::Unavailable && !self.unreadable.contains(&change.id) {
                        self.send(Update::Note(format!("{}; the program keeps the last value, trying again", failure.what()))).await?;
                    }
                    not_now.insert(change.id);
                }
                Meaning::Nothing => {}
            }
        }
        if !not_now.is_empty() {
            let wait = self.backoff.next_wait();
            self.want(changes.iter().filter(|c| not_now.contains(&c.id)).cloned().collect(), wait);
        }
        self.unreadable = not_now;
        Ok(())
    }

    async fn ended(&mut self, change: KeyChange, how: fn(KeyChange) -> Update) -> Result<(), Gone> {
        match self.gone.insert(change.id.clone()) {
            true => self.send(how(change)).await,
            false => Ok(()),
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
    fn only_an_explicit_answer_says_that_a_key_is_gone() {
        assert_eq!((meaning("deleted"), meaning("revoked")), (Meaning::Deleted, Meaning::Revoked));
        for code in ["denied", "not_found", "expired"] {
            assert_eq!(meaning(code), Meaning::Nothing, "{code}");
        }
        for code in ["unavailable", "rate_limited", "internal", "ask_again", "of-the-future"] {
            assert_eq!(meaning(code), Meaning::NotNow, "{code}");
        }
    }

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
