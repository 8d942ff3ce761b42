//! Keeping the table in step with the server: one stream of changes for all registered keys, then reads of what changed.
//!
//! # Guarantees
//! - After any break everything that happened meanwhile is taken in, or all is read anew.
//! - `deleted` and `revoked`, told by an event or an answer that carries its revision, take a secret off at once, before a read or a
//!   disk that is being waited for. Nothing else ever does: a plain refusal marks it, an outage leaves it.
//! - An answer that was on its way when a key was taken never brings it back.
//!
//! # Assumptions
//! The server tells a change's events in order of their revisions, and a read never shows less than its revision header says.

use crate::config::Endpoint;
use crate::entry::Entry;
use crate::persist::Pending;
use crate::table::{Gone, Table};
use crate::times::Contact;
use claviger_client::{Backoff, BulkRead, Client, Error, Event, SecretItem, Watch, WatchRequest};
use claviger_domain::{KeyId, Revision, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Keys of one read. Small, since the answer, its text and the values are in memory together for a moment.
const TOGETHER: usize = 50;
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Follows the server for one agent.
pub struct Sync {
    table: Arc<Table>,
    pending: Arc<Pending>,
    endpoints: Vec<Endpoint>,
    /// Which of them is next.
    turn: usize,
    backoff: Backoff,
    /// Where the stream goes on.
    since: Option<Revision>,
    /// The same as the cache's index has it: all up to it is in the entries.
    saved: Option<Revision>,
    /// The highest revision that was told.
    highest: Option<Revision>,
    /// What must be read, at this revision or later.
    wanted: BTreeMap<KeyId, Option<Revision>>,
    /// Not before this.
    read_at: Instant,
    /// When keys went, so that an older answer does not bring them back.
    gone: BTreeMap<KeyId, Revision>,
    /// With Knox's version hashes.
    hashed: bool,
}

/// A read on its way.
type Answer<'a> = Pin<Box<dyn Future<Output = (Vec<KeyId>, Result<BulkRead, Error>)> + Send + 'a>>;

/// Why a connection is over.
enum Over {
    /// It broke, or could not be made.
    Lost { error: String, pause: Duration },
    /// Other keys are registered now.
    Registered,
}

/// What the code of a refusal means for the copy.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Gone(Gone),
    /// It stays, and is not confirmed any more.
    Refused,
    /// It says nothing; to be asked again.
    NotNow,
}

fn meaning(code: &str) -> Meaning {
    match code {
        "deleted" => Meaning::Gone(Gone::Deleted),
        "revoked" => Meaning::Gone(Gone::Revoked),
        "denied" | "not_found" | "expired" | "invalid" => Meaning::Refused,
        _ => Meaning::NotNow,
    }
}

/// An answer, if it is one to the question: one item for each key, in order. A word about one key must not be taken for another's.
fn of_what_was_asked(ids: &[KeyId], read: BulkRead) -> Result<BulkRead, Error> {
    let asked = ids.iter().map(KeyId::as_str);
    match asked.eq(read.items.iter().map(|item| item.id.as_str())) {
        true => Ok(read),
        false => Err(Error::Malformed("the server's answer is about other keys than it was asked for".to_owned())),
    }
}

impl Sync {
    /// Ready to begin where the cache's entries end.
    #[must_use]
    pub fn new(table: Arc<Table>, pending: Arc<Pending>, endpoints: Vec<Endpoint>, since: Option<Revision>, hashed: bool) -> Self {
        Self {
            table,
            pending,
            endpoints,
            turn: 0,
            backoff: Backoff::new(Duration::from_millis(200), LONGEST_PAUSE),
            since,
            saved: since,
            highest: since,
            wanted: BTreeMap::new(),
            read_at: Instant::now(),
            gone: BTreeMap::new(),
            hashed,
        }
    }

    /// Follows, for ever.
    pub async fn run(mut self) {
        let mut registry = self.table.registry_moved.subscribe();
        loop {
            registry.mark_unchanged();
            let registered = self.table.registered();
            self.drop_unregistered(&registered);
            if registered.is_empty() {
                // The sender lives as long as the table.
                let _ = registry.changed().await;
                continue;
            }
            let over = self.follow_once(&registered, &mut registry).await;
            let Over::Lost { error, pause } = over else { continue };
            self.lost(error);
            self.turn += 1;
            let pause = pause.max(self.backoff.next_wait());
            // A newly registered key does not wait for a server that is away.
            let _ = tokio::time::timeout(pause, registry.changed()).await;
        }
    }

    /// One connection, from its certificates to its end.
    async fn follow_once(&mut self, registered: &BTreeSet<KeyId>, registry: &mut tokio::sync::watch::Receiver<u64>) -> Over {
        let endpoint = &self.endpoints[self.turn % self.endpoints.len()];
        self.table.health(|health| health.endpoint.clone_from(&endpoint.addr));
        let client =
            match endpoint.client_config().map_err(|e| e.to_string()).and_then(|config| Client::new(config).map_err(|e| e.to_string())) {
                Ok(client) => client,
                Err(error) => return Over::Lost { error, pause: Duration::ZERO },
            };
        let request =
            WatchRequest { ids: registered.iter().cloned().collect(), since: self.since, signs_of_life: true, ..WatchRequest::default() };
        let mut watch = client.watch(request);
        let mut answer: Option<Answer<'_>> = None;
        let mut is_ready = false;
        loop {
            if answer.is_none() && is_ready && Instant::now() >= self.read_at {
                answer = self.ask(&client);
            }
            let is_waiting_to_read = answer.is_none() && is_ready && !self.wanted.is_empty();
            tokio::select! {
                biased;
                event = watch.next() => {
                    if let Err(over) = self.heard(event, registered, &client, &mut is_ready) {
                        return over;
                    }
                    self.heard_more(&mut watch, registered, &client, &mut is_ready);
                }
                (ids, read) = async { answer.as_mut().expect("guarded").await }, if answer.is_some() => {
                    answer = None;
                    if let Err(over) = self.take(&ids, read, &client) {
                        return over;
                    }
                }
                () = tokio::time::sleep_until(self.read_at), if is_waiting_to_read => {}
                _ = registry.changed() => return Over::Registered,
            }
        }
    }

    /// All events that are there already: what changed together is read together.
    fn heard_more(&mut self, watch: &mut Watch, registered: &BTreeSet<KeyId>, client: &Client, is_ready: &mut bool) {
        while let Some(event) = watch.try_next() {
            if matches!(event, Event::Lost { .. }) {
                // The next connection goes on where this one was.
                return;
            }
            // Only a loss is over.
            let _ = self.heard(event, registered, client, is_ready);
        }
    }

    fn heard(&mut self, event: Event, registered: &BTreeSet<KeyId>, client: &Client, is_ready: &mut bool) -> Result<(), Over> {
        match event {
            Event::Ready { revision } => {
                *is_ready = true;
                self.is_live(client);
                self.want_missing(registered);
                self.reached(revision);
            }
            Event::Alive { revision } => {
                self.is_live(client);
                self.reached(revision);
            }
            Event::Changed(change) => {
                self.is_live(client);
                if let Ok(id) = KeyId::parse(&change.id) {
                    self.changed(&id, change.revision);
                }
            }
            Event::Deleted(change) => self.told_gone(&change.id, change.revision, Gone::Deleted, client),
            Event::Revoked(change) => self.told_gone(&change.id, change.revision, Gone::Revoked, client),
            Event::Compacted { revision } => {
                self.is_live(client);
                self.begin_anew(registered, revision);
                // All agents hear it together.
                self.read_at = Instant::now() + self.backoff.next_wait();
            }
            Event::Lost { error, retry_in } => return Err(Over::Lost { error: error.to_string(), pause: retry_in }),
        }
        Ok(())
    }

    /// Everything is to be read at `revision`, which is not before any that was told: the watch takes nothing from a server that is behind.
    fn begin_anew(&mut self, registered: &BTreeSet<KeyId>, revision: Revision) {
        self.highest = Some(revision);
        self.wanted = registered.iter().map(|id| (id.clone(), Some(revision))).collect();
        self.since = Some(revision);
    }

    fn told_gone(&mut self, id: &str, revision: Revision, how: Gone, client: &Client) {
        self.is_live(client);
        if let Ok(id) = KeyId::parse(id) {
            self.is_gone(&id, revision, how);
        }
    }

    /// Everything is to be read that is registered and not here, or refused so far; without a place to go on from, everything.
    fn want_missing(&mut self, registered: &BTreeSet<KeyId>) {
        let refused: BTreeSet<_> = self.table.health(|health| health.refused.keys().cloned().collect());
        for id in registered {
            let is_held = self.table.get(id).is_some() && !refused.contains(id);
            if self.since.is_none() || !is_held {
                self.wanted.entry(id.clone()).or_insert(None);
            }
        }
    }

    /// All up to `revision` was told.
    fn reached(&mut self, revision: Revision) {
        self.since = Some(revision);
        self.highest = self.highest.max(Some(revision));
        self.save_place();
    }

    /// The cache's index may name the place once everything up to it is in the entries.
    fn save_place(&mut self) {
        if self.wanted.is_empty() && self.saved != self.since {
            let is_first = self.saved.is_none();
            self.saved = self.since;
            // Written with the next change, or soon by the contact's step; the first one at once.
            if is_first {
                self.pending.step(&self.table, self.saved);
            }
        }
    }

    fn changed(&mut self, id: &KeyId, revision: Revision) {
        self.highest = self.highest.max(Some(revision));
        if !self.has_seen(id, revision) {
            let min = self.wanted.entry(id.clone()).or_insert(None);
            *min = (*min).max(Some(revision));
        }
    }

    /// Whether what is held of a key is of this revision or later, in the order of this server. An event from before the place that the stream
    /// has reached is told by a restored server only, of its own past; what was seen in another one proves nothing then.
    fn has_seen(&self, id: &KeyId, revision: Revision) -> bool {
        let is_comparable = self.since.is_none_or(|since| revision > since);
        is_comparable && self.table.get(id).is_some_and(|held| held.entry.seen >= revision)
    }

    /// Takes a key off that an event ends, unless what is held is newer than its end.
    fn is_gone(&mut self, id: &KeyId, revision: Revision, how: Gone) {
        match self.has_seen(id, revision) {
            true => self.highest = self.highest.max(Some(revision)),
            false => self.take_off(id, revision, how),
        }
    }

    fn take_off(&mut self, id: &KeyId, revision: Revision, how: Gone) {
        self.highest = self.highest.max(Some(revision));
        let last = self.gone.entry(id.clone()).or_insert(revision);
        *last = (*last).max(revision);
        // Told before the table moves, so that whoever follows the table knows why.
        self.table.health(|health| {
            health.gone.insert(id.clone(), (how, revision));
            health.refused.remove(id);
        });
        self.wanted.remove(id);
        if !self.table.remove(id) {
            return;
        }
        self.pending.remove(id);
        self.pending.step(&self.table, self.saved);
        tracing::info!(key.id = %id, %revision, "`{id}` is {}: taken off this machine", how.name());
    }

    fn drop_unregistered(&mut self, registered: &BTreeSet<KeyId>) {
        self.wanted.retain(|id, _| registered.contains(id));
        self.table.health(|health| {
            health.refused.retain(|id, _| registered.contains(id));
            health.gone.retain(|id, _| registered.contains(id));
        });
        let unregistered: Vec<_> =
            self.table.all().iter().map(|held| held.entry.id.clone()).filter(|id| !registered.contains(id)).collect();
        for id in &unregistered {
            self.table.remove(id);
            self.pending.remove(id);
        }
        if !unregistered.is_empty() {
            self.pending.step(&self.table, self.saved);
        }
        // The agent's own list may be what changed.
        self.pending.touch();
    }

    /// Begins the next read.
    fn ask<'a>(&self, client: &'a Client) -> Option<Answer<'a>> {
        let ids: Vec<KeyId> = self.wanted.keys().take(TOGETHER).cloned().collect();
        if ids.is_empty() {
            return None;
        }
        let (min, hashed) = (self.highest, self.hashed);
        Some(Box::pin(async move {
            let read = if hashed { client.bulk_read_hashed(&ids, min).await } else { client.bulk_read(&ids, min).await };
            (ids, read)
        }))
    }

    fn take(&mut self, ids: &[KeyId], read: Result<BulkRead, Error>, client: &Client) -> Result<(), Over> {
        let BulkRead { items, revision } = match read.and_then(|read| of_what_was_asked(ids, read)) {
            Ok(read) => read,
            // The certificate may be old: the next connection reads the files anew.
            Err(error) if error.code() == Some("unauthenticated") => {
                return Err(Over::Lost { error: error.to_string(), pause: Duration::ZERO });
            }
            Err(error) => {
                self.table.health(|health| health.error = Some(error.to_string()));
                self.pause_reads();
                return Ok(());
            }
        };
        self.is_live(client);
        // A server that names no revision vouches for none.
        let shown = revision.unwrap_or_default();
        let mut is_behind = false;
        for (id, item) in ids.iter().zip(items) {
            is_behind |= !self.take_item(id, item, shown);
        }
        if is_behind {
            self.pause_reads();
        }
        self.save_place();
        self.pending.step(&self.table, self.saved);
        Ok(())
    }

    /// Takes one key's answer; false when it must be asked again.
    fn take_item(&mut self, id: &KeyId, item: SecretItem, shown: Revision) -> bool {
        // Unregistered or gone meanwhile.
        let Some(min) = self.wanted.get(id).copied() else { return true };
        let is_of_before_the_end = self.gone.get(id).is_some_and(|gone| *gone > shown);
        let is_of_before_the_change = min.is_some_and(|min| min > shown);
        let code = match item.outcome {
            _ if is_of_before_the_end || is_of_before_the_change => return false,
            Ok(secret) => match Entry::of(secret, shown).ok().filter(|entry| entry.id == *id) {
                Some(entry) => {
                    self.has(entry);
                    return true;
                }
                None => "malformed".to_owned(),
            },
            Err(code) => code,
        };
        match meaning(&code) {
            Meaning::Gone(how) => {
                self.wanted.remove(id);
                // The answer is newer than what is held, whatever its revision.
                self.take_off(id, item.deleted_at.unwrap_or(shown).max(shown), how);
                true
            }
            Meaning::Refused => {
                self.wanted.remove(id);
                self.refused(id, code);
                true
            }
            Meaning::NotNow => {
                self.table.health(|health| health.refused.insert(id.clone(), code));
                false
            }
        }
    }

    fn has(&mut self, entry: Entry) {
        let entry = Arc::new(entry);
        self.wanted.remove(&entry.id);
        self.gone.remove(&entry.id);
        self.table.health(|health| {
            health.refused.remove(&entry.id);
            health.gone.remove(&entry.id);
        });
        self.pending.put(entry.clone());
        self.table.put(entry, None);
    }

    fn refused(&mut self, id: &KeyId, code: String) {
        let now = self.table.now();
        if self.table.doubt(id, now) {
            tracing::warn!(key.id = %id, code, "the server refuses `{id}` without saying that it is gone: the copy stays for max_offline");
        }
        self.table.health(|health| health.refused.insert(id.clone(), code));
    }

    fn pause_reads(&mut self) {
        self.read_at = Instant::now() + self.backoff.next_wait();
    }

    fn is_live(&self, client: &Client) {
        let server = client.server_time().map(|(time, at)| {
            let since_1970 = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default() + at.elapsed();
            Timestamp(i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX))
        });
        let times = &*self.table.times;
        self.table.set_contact(Contact::now(server.unwrap_or_else(|| times.wall()), times));
        let was_away = self.table.health(|health| {
            let was_away = !std::mem::replace(&mut health.is_live, true);
            (health.offline_since, health.error) = (None, None);
            was_away
        });
        if was_away {
            self.pending.touch();
            tracing::info!("following the server's changes");
        }
    }

    fn lost(&self, error: String) {
        let now = self.table.times.wall();
        // Each reason once, not with every attempt.
        let is_news = self.table.health(|health| {
            health.offline_since.get_or_insert(now);
            health.is_live = false;
            health.error.replace(error.clone()).is_none_or(|before| before != error)
        });
        if is_news {
            tracing::warn!("{error}; copies are given out meanwhile");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entry::tests::entry;
    use crate::policy::Policy;
    use crate::times::tests::TestTimes;
    use claviger_client::{Secret, SecretVersion};
    use claviger_domain::SecretBytes;

    fn id(text: &str) -> KeyId {
        KeyId::parse(text).unwrap()
    }

    fn at(number: u64) -> Revision {
        Revision { epoch: 1, number }
    }

    fn sync() -> Sync {
        let table = Arc::new(Table::new(Policy::default(), Duration::ZERO, Arc::new(TestTimes::new())));
        Sync::new(table, Arc::default(), Vec::new(), Some(at(5)), false)
    }

    fn given(name: &str, revision: u64) -> SecretItem {
        let version = SecretVersion {
            id: "1".into(),
            state: "primary".into(),
            created: "2026-01-01T00:00:00Z".into(),
            expires: None,
            data: SecretBytes::new(b"x".to_vec()),
        };
        let secret = Secret { id: name.into(), etag: "e-1".into(), revision: at(revision), versions: vec![version], hash: None };
        SecretItem { id: name.into(), outcome: Ok(secret), deleted_at: None }
    }

    fn refused(name: &str, code: &str) -> SecretItem {
        SecretItem { id: name.into(), outcome: Err(code.into()), deleted_at: None }
    }

    #[tokio::test]
    async fn only_an_explicit_answer_says_that_a_key_is_gone() {
        assert_eq!((meaning("deleted"), meaning("revoked")), (Meaning::Gone(Gone::Deleted), Meaning::Gone(Gone::Revoked)));
        for code in ["denied", "not_found", "expired", "unavailable", "internal", "ask_again", "unauthenticated", "of-the-future"] {
            let mut sync = sync();
            sync.table.put(Arc::new(entry("a", 5, b"x")), None);
            sync.changed(&id("a"), at(7));
            sync.take_item(&id("a"), refused("a", code), at(9));
            assert!(sync.table.get(&id("a")).is_some(), "{code}");
        }
        for code in ["deleted", "revoked"] {
            let mut sync = sync();
            sync.table.put(Arc::new(entry("a", 5, b"x")), None);
            sync.changed(&id("a"), at(7));
            assert!(sync.take_item(&id("a"), refused("a", code), at(9)));
            assert!(sync.table.get(&id("a")).is_none(), "{code}");
        }
    }

    #[tokio::test]
    async fn an_answer_of_before_a_keys_end_does_not_bring_it_back() {
        let mut sync = sync();
        sync.table.put(Arc::new(entry("a", 5, b"x")), None);
        sync.changed(&id("a"), at(7));
        sync.is_gone(&id("a"), at(9), Gone::Revoked);
        assert!(sync.take_item(&id("a"), given("a", 7), at(8)));
        assert!(sync.table.get(&id("a")).is_none());
        // Given again later.
        sync.changed(&id("a"), at(12));
        assert!(!sync.take_item(&id("a"), given("a", 7), at(8)), "an answer of before is asked for again");
        assert!(sync.take_item(&id("a"), given("a", 7), at(12)));
        assert!(sync.table.get(&id("a")).is_some());
    }

    #[tokio::test]
    async fn an_end_that_is_told_again_does_not_take_what_was_given_since() {
        let mut sync = sync();
        sync.table.put(Arc::new(entry("a", 12, b"x")), None);
        sync.is_gone(&id("a"), at(9), Gone::Deleted);
        assert!(sync.table.get(&id("a")).is_some());
        sync.is_gone(&id("a"), at(13), Gone::Deleted);
        assert!(sync.table.get(&id("a")).is_none());
    }

    #[test]
    fn an_answer_about_other_keys_or_fewer_is_none() {
        let read = |items| of_what_was_asked(&["a", "b"].map(id), BulkRead { items, revision: Some(at(9)) });
        assert!(read(vec![given("a", 7), refused("b", "denied")]).is_ok());
        assert!(read(vec![refused("b", "revoked"), given("a", 7)]).is_err());
        assert!(read(vec![given("a", 7)]).is_err() && read(Vec::new()).is_err());
    }

    /// A restored server's changes are of a later epoch; what it says of its past is not.
    #[tokio::test]
    async fn what_a_restored_server_says_is_gone_is_taken_though_more_was_seen_of_it_before() {
        let of_restored = |number| Revision { epoch: 2, number };
        let names = BTreeSet::from(["answered", "told-in-the-gap", "told-later"].map(id));
        let mut sync = sync();
        sync.reached(at(100));
        for name in ["answered", "told-in-the-gap", "told-later"] {
            sync.table.put(Arc::new(entry(name, 100, b"x")), None);
        }
        sync.is_gone(&id("told-in-the-gap"), at(40), Gone::Deleted);
        assert!(sync.table.get(&id("told-in-the-gap")).is_none());
        sync.begin_anew(&names, of_restored(50));
        assert!(sync.take_item(&id("answered"), refused("answered", "revoked"), of_restored(50)));
        assert!(sync.table.get(&id("answered")).is_none());
        assert!(sync.take_item(&id("told-later"), refused("told-later", "denied"), of_restored(50)));
        assert!(sync.table.get(&id("told-later")).is_some(), "a plain refusal takes nothing here either");
        sync.changed(&id("told-later"), of_restored(59));
        assert!(sync.wanted.contains_key(&id("told-later")), "a change is read anew");
        sync.is_gone(&id("told-later"), of_restored(60), Gone::Revoked);
        assert!(sync.table.get(&id("told-later")).is_none());
    }

    #[tokio::test]
    async fn a_key_that_went_is_taken_in_again_from_a_restored_server_that_gives_it_and_not_from_one_that_is_behind() {
        let of_restored = Revision { epoch: 2, number: 50 };
        let mut sync = sync();
        sync.table.put(Arc::new(entry("a", 5, b"x")), None);
        sync.is_gone(&id("a"), at(90), Gone::Deleted);
        sync.wanted.insert(id("a"), None);
        assert!(!sync.take_item(&id("a"), given("a", 7), at(89)), "an older answer is asked for again");
        assert!(sync.table.get(&id("a")).is_none());
        sync.begin_anew(&BTreeSet::from([id("a")]), of_restored);
        assert!(sync.take_item(&id("a"), given("a", 7), of_restored), "it is not asked for again for ever");
        assert!(sync.table.get(&id("a")).is_some());
    }

    #[tokio::test]
    async fn the_saved_place_waits_for_what_is_still_to_be_read() {
        let mut sync = sync();
        sync.changed(&id("a"), at(7));
        sync.reached(at(8));
        assert_eq!((sync.since, sync.saved), (Some(at(8)), Some(at(5))));
        assert!(sync.take_item(&id("a"), given("a", 7), at(8)));
        sync.save_place();
        assert_eq!(sync.saved, Some(at(8)));
    }

    #[tokio::test]
    async fn a_change_that_is_held_already_is_not_read_again() {
        let mut sync = sync();
        sync.table.put(Arc::new(entry("a", 12, b"x")), None);
        sync.changed(&id("a"), at(12));
        assert!(sync.wanted.is_empty());
        sync.changed(&id("a"), at(13));
        assert_eq!(sync.wanted[&id("a")], Some(at(13)));
    }
}
