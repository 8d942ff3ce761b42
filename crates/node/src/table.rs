//! What the agent holds in memory, and what it says of itself. The one place that its threads share.
//!
//! # Guarantees
//! - Who may not read a key is told the same as for a key that is not here.
//! - A copy that the server has not confirmed for `max_offline` is not given out; it stays, for the server may confirm it again.
//! - What is explicitly gone is out of here before anything else is done about it.

use crate::cache::Indexed;
use crate::config::MOST_KEYS;
use crate::entry::Entry;
use crate::policy::{Policy, Readers};
use crate::times::{Age, Contact, Times};
use claviger_domain::{KeyId, Revision, Timestamp};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// A secret that is held.
pub struct Held {
    /// Its state.
    pub entry: Arc<Entry>,
    /// Since when the server refuses it without saying that it is gone; the server's time.
    pub doubted: Option<Timestamp>,
    readers: Readers,
}

/// What became of a local read.
pub enum Reading {
    /// It may be given out.
    Here {
        /// The secret.
        held: Arc<Held>,
        /// The server's time now, by which versions expire.
        now: Timestamp,
        /// How long the server is out of reach, where it is.
        offline: Option<Duration>,
    },
    /// It is too long since the server confirmed it.
    TooOld(Duration),
    /// The machine's clock shows a time before the last contact.
    ClockIsWrong,
    /// It is not here, or not for this reader.
    NotHere,
}

/// How a key went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// It was deleted.
    Deleted,
    /// The machine may no longer read it.
    Revoked,
}

impl Gone {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Revoked => "revoked",
        }
    }
}

/// Told when the agent's own list is durable, or why it is not.
pub(crate) type Saved = oneshot::Sender<Result<(), String>>;

/// What is registered, by where it comes from.
#[derive(Default)]
struct Registry {
    configured: BTreeSet<KeyId>,
    own: BTreeSet<KeyId>,
    knox: BTreeSet<KeyId>,
    /// Who waits for the own list to be durable.
    waiting: Vec<Saved>,
}

/// How the agent fares.
#[derive(Debug, Default, Clone)]
pub struct Health {
    /// Whether changes are being followed.
    pub is_live: bool,
    /// The server that was tried last.
    pub endpoint: String,
    /// Since when it is not live, by the machine's clock.
    pub offline_since: Option<Timestamp>,
    /// Why, in a sentence.
    pub error: Option<String>,
    /// Keys that the server refuses, each with the problem's code.
    pub refused: BTreeMap<KeyId, String>,
    /// Keys that are explicitly gone.
    pub gone: BTreeMap<KeyId, (Gone, Revision)>,
    /// What was found damaged at the start.
    pub findings: Vec<String>,
    /// Why the cache's key cannot be had.
    pub root: Option<String>,
    /// Why the cache is not written.
    pub disk: Option<String>,
    /// What is wrong with Knox's folder.
    pub knox: Option<String>,
}

/// Counters of local reads.
#[derive(Debug, Default)]
pub struct Counters {
    /// Reads that were answered with a secret.
    pub given: AtomicU64,
    /// Reads that were refused or found nothing.
    pub refused: AtomicU64,
    /// Lines that the log of reads did not take.
    pub unlogged: AtomicU64,
    /// Reads that have no line of their own in it, since their user's were too many.
    pub summed: AtomicU64,
}

/// Everything that is held.
pub struct Table {
    held: RwLock<HashMap<KeyId, Arc<Held>>>,
    contact: RwLock<Option<Contact>>,
    registry: Mutex<Registry>,
    health: Mutex<Health>,
    /// Counters of local reads.
    pub counters: Counters,
    /// Moves with each change of what is held.
    pub held_moved: watch::Sender<u64>,
    /// Moves with each change of what is registered.
    pub registry_moved: watch::Sender<u64>,
    policy: Policy,
    max_offline: Duration,
    /// The machine's clocks.
    pub times: Arc<dyn Times>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(policy: Policy, max_offline: Duration, times: Arc<dyn Times>) -> Self {
        Self {
            held: RwLock::default(),
            contact: RwLock::default(),
            registry: Mutex::default(),
            health: Mutex::default(),
            counters: Counters::default(),
            held_moved: watch::Sender::new(0),
            registry_moved: watch::Sender::new(0),
            policy,
            max_offline,
            times,
        }
    }

    /// Reads a secret for a local user.
    #[must_use]
    pub fn read(&self, id: &str, user: u32, groups: &[u32]) -> Reading {
        let found = self.held.read().get(id).cloned();
        let Some(held) = found.filter(|held| held.readers.admit(user, groups)) else { return Reading::NotHere };
        let Some(contact) = *self.contact.read() else { return Reading::TooOld(Duration::MAX) };
        let now = contact.server_time(&*self.times);
        let age = match contact.age(&*self.times) {
            Age::Known(age) => age,
            Age::Unknown(_) => return Reading::ClockIsWrong,
        };
        let since_doubt = held.doubted.map(|since| Duration::from_nanos(u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0)));
        // Doubt is counted by the server's clock, which may have been set back meanwhile; the time without the server is not.
        let unconfirmed = since_doubt.unwrap_or_default().max(age);
        if unconfirmed > self.max_offline {
            return Reading::TooOld(unconfirmed);
        }
        // A heartbeat every 15 s, and a stream that is given up after two and a half of them.
        let offline = Some(age).filter(|age| *age > Duration::from_secs(45));
        Reading::Here { held, now, offline }
    }

    /// Whether a rule names this user or one of these groups, for whatever key.
    #[must_use]
    pub fn names(&self, user: u32, groups: &[u32]) -> bool {
        self.policy.names(user, groups)
    }

    /// Puts a secret in place; what it replaces is wiped when its last reader is done.
    pub fn put(&self, entry: Arc<Entry>, doubted: Option<Timestamp>) {
        let readers = self.policy.readers(&entry.id);
        let held = Arc::new(Held { doubted, readers, entry });
        self.held.write().insert(held.entry.id.clone(), held);
        self.move_held();
    }

    /// Takes a secret off; whether it was there.
    pub fn remove(&self, id: &KeyId) -> bool {
        let was_there = self.held.write().remove(id).is_some();
        self.move_held();
        was_there
    }

    /// Marks a secret that the server refuses without saying that it is gone; whether that is new.
    pub fn doubt(&self, id: &KeyId, since: Timestamp) -> bool {
        let Some(held) = self.get(id).filter(|held| held.doubted.is_none()) else { return false };
        self.put(held.entry.clone(), Some(since));
        true
    }

    /// A secret, whoever asks: for the agent itself.
    #[must_use]
    pub fn get(&self, id: &KeyId) -> Option<Arc<Held>> {
        self.held.read().get(id).cloned()
    }

    /// All secrets, in the order of their ids.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Held>> {
        let mut all: Vec<_> = self.held.read().values().cloned().collect();
        all.sort_unstable_by(|a, b| a.entry.id.cmp(&b.entry.id));
        all
    }

    /// What the cache's index says of all secrets.
    #[must_use]
    pub fn indexed(&self) -> Vec<Indexed> {
        let of = |held: &Arc<Held>| Indexed { id: held.entry.id.clone(), seen: held.entry.seen, doubted: held.doubted };
        self.held.read().values().map(of).collect()
    }

    fn move_held(&self) {
        self.held_moved.send_modify(|moves| *moves += 1);
    }

    /// The last contact.
    #[must_use]
    pub fn contact(&self) -> Option<Contact> {
        *self.contact.read()
    }

    /// The server was heard.
    pub fn set_contact(&self, contact: Contact) {
        *self.contact.write() = Some(contact);
    }

    /// The server's time now, as far as it is known.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.contact().map_or_else(|| self.times.wall(), |contact| contact.server_time(&*self.times))
    }

    /// All registered keys.
    #[must_use]
    pub fn registered(&self) -> BTreeSet<KeyId> {
        let registry = self.registry.lock();
        registry.configured.iter().chain(&registry.own).chain(&registry.knox).cloned().collect()
    }

    /// Where a key is registered: `configuration`, `agent`, `knox`.
    #[must_use]
    pub fn registered_by(&self, id: &KeyId) -> Vec<&'static str> {
        let registry = self.registry.lock();
        let sources = [("configuration", &registry.configured), ("agent", &registry.own), ("knox", &registry.knox)];
        sources.into_iter().filter(|(_, ids)| ids.contains(id)).map(|(name, _)| name).collect()
    }

    /// The lists that hold before anything changes them.
    pub fn set_registered(&self, configured: impl IntoIterator<Item = KeyId>, own: impl IntoIterator<Item = KeyId>) {
        let mut registry = self.registry.lock();
        registry.configured = configured.into_iter().collect();
        registry.own = own.into_iter().collect();
    }

    /// Adds to the agent's own list what the cache has of it.
    pub fn add_own(&self, ids: impl IntoIterator<Item = KeyId>) {
        self.registry.lock().own.extend(ids);
        self.registry_moved.send_modify(|moves| *moves += 1);
    }

    /// What Knox's list registers; how many of it are left out. A server follows so many keys for one agent and refuses more, and then none would be
    /// followed: where every user may write the list, that is not theirs to bring about. What is held or was registered before is left out last.
    pub fn set_knox_registered(&self, mut ids: BTreeSet<KeyId>) -> usize {
        let mut registry = self.registry.lock();
        let wanted = ids.len();
        let room = MOST_KEYS.saturating_sub(registry.configured.union(&registry.own).count());
        if wanted > room {
            let held = self.held.read();
            let (known, new): (BTreeSet<_>, BTreeSet<_>) =
                ids.into_iter().partition(|id| registry.knox.contains(id) || held.contains_key(id));
            ids = known.into_iter().chain(new).take(room).collect();
        }
        let left_out = wanted - ids.len();
        if registry.knox != ids {
            registry.knox = ids;
            self.registry_moved.send_modify(|moves| *moves += 1);
        }
        left_out
    }

    /// Registers a key on the agent's own list, or takes it off; the receiver hears when that is durable.
    pub fn change_own(&self, id: &KeyId, wanted: bool) -> oneshot::Receiver<Result<(), String>> {
        let (sender, receiver) = oneshot::channel();
        let mut registry = self.registry.lock();
        let _ = if wanted { registry.own.insert(id.clone()) } else { registry.own.remove(id) };
        registry.waiting.push(sender);
        self.registry_moved.send_modify(|moves| *moves += 1);
        receiver
    }

    /// The agent's own list, and who waits for it to be durable; nothing when nobody does.
    pub(crate) fn take_own(&self) -> Option<(Vec<KeyId>, Vec<Saved>)> {
        let mut registry = self.registry.lock();
        let waiting = std::mem::take(&mut registry.waiting);
        (!waiting.is_empty()).then(|| (registry.own.iter().cloned().collect(), waiting))
    }

    /// The own list could not be written: it is to be with the next step.
    pub(crate) fn own_is_unsaved(&self) {
        self.registry.lock().waiting.push(oneshot::channel().0);
    }

    /// Looks at or changes what is known of the agent's health.
    pub fn health<T>(&self, look: impl FnOnce(&mut Health) -> T) -> T {
        look(&mut self.health.lock())
    }

    /// Counts one read.
    pub fn count(&self, was_given: bool) {
        let counter = if was_given { &self.counters.given } else { &self.counters.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How long a copy is given out without the server.
    #[must_use]
    pub fn max_offline(&self) -> Duration {
        self.max_offline
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entry::tests::entry;
    use crate::policy::{Pattern, Rule};
    use crate::times::tests::TestTimes;

    fn table(times: &Arc<TestTimes>) -> Table {
        let rule = Rule { pattern: Pattern::parse("shop/*").unwrap(), users: vec![10], groups: vec![5] };
        let table = Table::new(Policy::new(vec![rule]), Duration::from_secs(3600), times.clone());
        table.put(Arc::new(entry("shop/pw", 7, b"x")), None);
        table
    }

    fn verdict(reading: &Reading) -> &'static str {
        match reading {
            Reading::Here { offline: None, .. } => "here",
            Reading::Here { .. } => "here, offline",
            Reading::TooOld(_) => "too old",
            Reading::ClockIsWrong => "clock",
            Reading::NotHere => "not here",
        }
    }

    #[test]
    fn who_may_not_read_is_told_the_same_as_of_what_is_not_there() {
        let times = Arc::new(TestTimes::new());
        let table = table(&times);
        table.set_contact(Contact::now(times.wall(), &*times));
        for (id, user, groups, expected) in [
            ("shop/pw", 10, &[][..], "here"),
            ("shop/pw", 11, &[5], "here"),
            ("shop/pw", 11, &[6], "not here"),
            ("shop/none", 10, &[], "not here"),
        ] {
            assert_eq!(verdict(&table.read(id, user, groups)), expected, "{id} {user}");
        }
    }

    #[test]
    fn a_copy_is_given_out_for_max_offline_and_again_after_the_next_contact() {
        let times = Arc::new(TestTimes::new());
        let table = table(&times);
        assert_eq!(verdict(&table.read("shop/pw", 10, &[])), "too old", "nothing was ever confirmed");
        table.set_contact(Contact::now(times.wall(), &*times));
        for (passed, expected) in [(30, "here"), (3570, "here, offline"), (1, "too old"), (100_000, "too old")] {
            times.pass(passed);
            assert_eq!(verdict(&table.read("shop/pw", 10, &[])), expected, "{passed}");
            times.set_wall(-500_000);
        }
        table.set_contact(Contact::now(Timestamp(0), &*times));
        assert_eq!(verdict(&table.read("shop/pw", 10, &[])), "here");
    }

    #[test]
    fn a_key_that_the_server_refuses_lasts_for_max_offline_too_though_the_server_is_there() {
        let times = Arc::new(TestTimes::new());
        let table = table(&times);
        let id = KeyId::parse("shop/pw").unwrap();
        table.set_contact(Contact::now(times.wall(), &*times));
        assert!(table.doubt(&id, times.wall()) && !table.doubt(&id, times.wall()));
        for (passed, expected) in [(3600, "here"), (1, "too old")] {
            times.pass(passed);
            table.set_contact(Contact::now(times.wall(), &*times));
            assert_eq!(verdict(&table.read("shop/pw", 10, &[])), expected);
        }
    }

    #[test]
    fn a_server_whose_clock_is_set_back_does_not_make_a_refused_key_last_without_it() {
        let times = Arc::new(TestTimes::new());
        let table = table(&times);
        table.set_contact(Contact::now(times.wall().plus_seconds(86_400 * 365), &*times));
        table.doubt(&KeyId::parse("shop/pw").unwrap(), table.now());
        table.set_contact(Contact::now(times.wall(), &*times));
        times.pass(3601);
        assert_eq!(verdict(&table.read("shop/pw", 10, &[])), "too old");
    }

    #[test]
    fn a_list_of_more_keys_than_a_server_follows_leaves_out_what_nobody_holds() {
        let table = table(&Arc::new(TestTimes::new()));
        let id = |text: &str| KeyId::parse(text).unwrap();
        table.set_registered([id("a_configured")], [id("an_own")]);
        table.put(Arc::new(entry("zz_held", 7, b"x")), None);
        assert_eq!(table.set_knox_registered(BTreeSet::from([id("zz_before")])), 0);
        let flood = (0..MOST_KEYS).map(|i| id(&format!("flood{i}"))).chain([id("zz_held"), id("zz_before")]);
        assert_eq!(table.set_knox_registered(flood.collect()), 4);
        let registered = table.registered();
        assert_eq!(registered.len(), MOST_KEYS);
        for kept in ["a_configured", "an_own", "zz_held", "zz_before"] {
            assert!(registered.contains(&id(kept)), "{kept}");
        }
    }

    #[test]
    fn after_a_reboot_with_a_clock_of_before_nothing_is_given_out() {
        let times = Arc::new(TestTimes::new());
        let table = table(&times);
        table.set_contact(Contact::now(times.wall(), &*times));
        times.reboot(5);
        times.set_wall(-86_400);
        table.set_contact(table.contact().unwrap().brought_forward(&*times));
        assert_eq!(verdict(&table.read("shop/pw", 10, &[])), "clock");
    }
}
