//! The change feed: every committed change in revision order, handed to those who follow the key or a prefix of it.
//!
//! # Guarantees
//! A subscription sees every change in its scope after its start, in order, or is told that it was cut off. Publishing
//! costs what the followers of the changed keys cost, not what all followers cost.

use claviger_domain::{Acl, ApprovalId, KeyId, KeyMeta, Prefix, PrefixGrant, Revision};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::Notify;

/// Events remembered for those who come back.
const REMEMBERED: usize = 16_384;
/// Changes of rights remembered, also when other events have driven them out: without them nobody who was away for long
/// learns what a prefix's grant gave him no more.
const RIGHTS_REMEMBERED: usize = 4_096;
/// Events that may wait for one follower before it is cut off.
const BACKLOG: usize = 4_096;

/// One committed change.
#[derive(Debug)]
pub struct Event {
    /// Its place in the order.
    pub revision: Revision,
    /// The action's name.
    pub what: &'static str,
    /// What it changed.
    pub subject: Subject,
}

/// What an event changed, with its state before and after.
#[derive(Debug)]
pub enum Subject {
    /// A key.
    Key {
        /// Its id.
        id: KeyId,
        /// Before; none when it was created.
        before: Option<KeyState>,
        /// After; none when it was deleted.
        after: Option<KeyState>,
        /// The grants on prefixes that covered it then.
        grants: Vec<Arc<PrefixGrant>>,
    },
    /// Rights below a prefix.
    Prefix {
        /// Where.
        prefix: Prefix,
        /// Before.
        before: Option<Arc<PrefixGrant>>,
        /// After.
        after: Option<Arc<PrefixGrant>>,
    },
    /// A request for approval, which nobody follows here.
    Approval(ApprovalId),
}

/// What an event remembers of a key: enough to judge who is told what. Never its data, not even sealed: thousands of events
/// are kept, and a destroyed version must not live on in them.
#[derive(Debug)]
pub struct KeyState {
    /// Its own list.
    pub acl: Acl,
    /// Whether managing and using are different people's.
    pub separate_duties: bool,
    /// Whether its data is read, and not used inside.
    pub is_read: bool,
    /// Its incarnation and generation.
    pub etag: (u64, u64),
}

/// What a follower is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A key that he may see changed.
    Changed {
        /// The key.
        id: KeyId,
        /// When.
        revision: Revision,
        /// Its incarnation and generation now.
        etag: (u64, u64),
        /// The action's name.
        what: &'static str,
    },
    /// A key that he could read or use is gone.
    Deleted {
        /// The key.
        id: KeyId,
        /// When.
        revision: Revision,
    },
    /// He can no longer read this key, or no longer use it at all.
    Revoked {
        /// The key.
        id: KeyId,
        /// When.
        revision: Revision,
    },
    /// He fell behind, or what he asked for is no longer remembered: read everything again, then follow from here.
    Compacted {
        /// The present revision.
        revision: Revision,
    },
}

/// What a follower follows.
#[derive(Debug, Clone, Default)]
pub struct WatchScope {
    /// Single keys.
    pub ids: Vec<KeyId>,
    /// All keys below these.
    pub prefixes: Vec<Prefix>,
}

impl Event {
    fn changes_rights(&self) -> bool {
        match &self.subject {
            Subject::Key { before: Some(before), after: Some(after), .. } => {
                before.acl != after.acl || before.separate_duties != after.separate_duties
            }
            Subject::Key { .. } | Subject::Approval(_) => false,
            Subject::Prefix { .. } => true,
        }
    }
}

impl KeyState {
    pub(crate) fn of(meta: &KeyMeta) -> Self {
        let KeyMeta { acl, separate_duties, kind, incarnation, generation, .. } = meta;
        Self { acl: acl.clone(), separate_duties: *separate_duties, is_read: kind.is_read(), etag: (incarnation.0, generation.0) }
    }
}

impl WatchScope {
    /// Sorted, nothing twice, and no prefix below another.
    fn in_order(mut self) -> Self {
        self.ids.sort_unstable();
        self.ids.dedup();
        self.prefixes.sort_unstable();
        // What is below a prefix follows it at once.
        self.prefixes.dedup_by(|next, kept| next.as_str().starts_with(kept.as_str()));
        self
    }

    fn covers(&self, id: &KeyId) -> bool {
        self.ids.binary_search(id).is_ok() || self.has_prefix_of(id.as_str())
    }

    /// Whether one of the prefixes covers `text`. The last that is not after it is the only one that can.
    fn has_prefix_of(&self, text: &str) -> bool {
        let after = self.prefixes.partition_point(|p| p.as_str() <= text);
        after > 0 && text.starts_with(self.prefixes[after - 1].as_str())
    }

    fn concerns(&self, event: &Event) -> bool {
        match &event.subject {
            Subject::Key { id, .. } => self.covers(id),
            Subject::Prefix { prefix, .. } => self.meets(prefix),
            Subject::Approval(_) => false,
        }
    }

    /// Whether something in it is below `prefix`, or may be.
    fn meets(&self, prefix: &Prefix) -> bool {
        let id = self.ids.get(self.ids.partition_point(|id| id.as_str() < prefix.as_str()));
        let below = self.prefixes.get(self.prefixes.partition_point(|p| p < prefix));
        id.is_some_and(|id| prefix.covers(id))
            || below.is_some_and(|p| p.as_str().starts_with(prefix.as_str()))
            || self.has_prefix_of(prefix.as_str())
    }
}

/// Whether one is below the other.
fn is_related(one: &Prefix, other: &Prefix) -> bool {
    one.as_str().starts_with(other.as_str()) || other.as_str().starts_with(one.as_str())
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    cut_off: bool,
}

#[derive(Default)]
struct Slot {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Index {
    by_id: HashMap<KeyId, Vec<Arc<Slot>>>,
    by_prefix: HashMap<Prefix, Vec<Arc<Slot>>>,
    all: usize,
    recent: VecDeque<Arc<Event>>,
    rights: VecDeque<Arc<Event>>,
    /// Changes of rights up to and including this revision may no longer be in `rights`.
    rights_forgotten: Revision,
    /// Events up to and including this revision are no longer in `recent`.
    forgotten: Revision,
    /// What the store had when memory was read. Of its epoch nothing later is known here: what another start, of another copy of the
    /// store, numbered on in it never happened here.
    origin: Revision,
    latest: Revision,
}

/// Who follows what, and the last events.
#[derive(Default)]
pub(crate) struct Feed(Mutex<Index>);

/// One follower's place in the feed. Dropping it ends the following.
pub struct Subscription {
    feed: Arc<Feed>,
    slot: Arc<Slot>,
    scope: WatchScope,
    started: Revision,
}

impl Feed {
    /// A feed of a store that had `origin`, which continues after `revision`: the same, or its number in a later epoch.
    pub(crate) fn starting_at(origin: Revision, revision: Revision) -> Self {
        Self(Mutex::new(Index { origin, forgotten: origin, rights_forgotten: origin, latest: revision, ..Index::default() }))
    }

    /// Whether a follower who was told of everything up to `since` was told it of this store and no copy of it.
    pub(crate) fn is_of_this_history(&self, since: Revision) -> bool {
        self.0.lock().is_of_this_history(since)
    }

    /// Hands events to their followers, in order.
    pub(crate) fn publish(&self, events: Vec<Event>) {
        let mut index = self.0.lock();
        for event in events {
            index.publish(Arc::new(event));
        }
    }

    /// Forgets everything and cuts everyone off: memory was read anew.
    pub(crate) fn compact(&self, revision: Revision) {
        let mut index = self.0.lock();
        index.recent.clear();
        index.rights.clear();
        index.origin = revision;
        index.forgotten = revision;
        index.rights_forgotten = revision;
        index.latest = revision;
        for slot in index.by_id.values().chain(index.by_prefix.values()).flatten() {
            slot.cut_off();
        }
    }

    pub(crate) fn followers(&self) -> usize {
        self.0.lock().all
    }

    /// The remembered changes of rights after `since` that concern `scope`, and whether they are all that there were.
    pub(crate) fn rights_since(&self, scope: &WatchScope, since: Revision) -> (Vec<Arc<Event>>, bool) {
        let index = self.0.lock();
        let remembered = index.rights.iter().filter(|e| e.revision > since && scope.concerns(e)).cloned().collect();
        (remembered, since >= index.rights_forgotten)
    }

    /// Follows `scope` from after `since` (or from now). Memory shows changes a moment before they come here: who has read at
    /// `shown` has missed nothing.
    pub(crate) fn subscribe(self: &Arc<Self>, scope: WatchScope, since: Option<Revision>, shown: Revision) -> Subscription {
        let scope = scope.in_order();
        let slot = Arc::new(Slot::default());
        let mut index = self.0.lock();
        let started = index.latest;
        if let Some(since) = since {
            index.replay(&slot, &scope, since, shown);
        }
        index.register(&slot, &scope);
        Subscription { feed: self.clone(), slot, scope, started }
    }
}

impl Index {
    fn publish(&mut self, event: Arc<Event>) {
        self.latest = event.revision;
        self.remember(event.clone());
        match &event.subject {
            Subject::Key { id, .. } => {
                let of_id = self.by_id.get(id).into_iter().flatten();
                let of_prefixes = id.prefixes().filter_map(|p| self.by_prefix.get(p)).flatten();
                of_id.chain(of_prefixes).for_each(|slot| slot.push(&event));
            }
            // Rights below a prefix can change what any follower of keys there may see; such changes are rare.
            Subject::Prefix { prefix, .. } => {
                let of_ids = self.by_id.iter().filter(|(id, _)| prefix.covers(id)).map(|(_, slots)| slots);
                let of_prefixes = self.by_prefix.iter().filter(|(p, _)| is_related(p, prefix)).map(|(_, slots)| slots);
                of_ids.chain(of_prefixes).flatten().for_each(|slot| slot.push(&event));
            }
            Subject::Approval(_) => {}
        }
    }

    fn remember(&mut self, event: Arc<Event>) {
        if event.changes_rights() {
            self.rights.push_back(event.clone());
            if self.rights.len() > RIGHTS_REMEMBERED
                && let Some(oldest) = self.rights.pop_front()
            {
                self.rights_forgotten = oldest.revision;
            }
        }
        self.recent.push_back(event);
        if self.recent.len() > REMEMBERED
            && let Some(oldest) = self.recent.pop_front()
        {
            self.forgotten = oldest.revision;
        }
    }

    /// Epochs of starts before the last are not known, nor whether they were this store's.
    fn is_of_this_history(&self, since: Revision) -> bool {
        let is_of_origin = since.epoch == self.origin.epoch && since <= self.origin;
        is_of_origin || since.epoch == self.latest.epoch
    }

    fn replay(&self, slot: &Slot, scope: &WatchScope, since: Revision, shown: Revision) {
        let known = since >= self.forgotten && since <= self.latest.max(shown) && self.is_of_this_history(since);
        if !known {
            return slot.cut_off();
        }
        let missed = self.recent.iter().filter(|e| e.revision > since);
        missed.filter(|e| scope.concerns(e)).for_each(|event| slot.push(event));
    }

    fn register(&mut self, slot: &Arc<Slot>, scope: &WatchScope) {
        self.all += 1;
        for id in &scope.ids {
            self.by_id.entry(id.clone()).or_default().push(slot.clone());
        }
        for prefix in &scope.prefixes {
            self.by_prefix.entry(prefix.clone()).or_default().push(slot.clone());
        }
    }

    fn unregister(&mut self, slot: &Arc<Slot>, scope: &WatchScope) {
        self.all -= 1;
        for id in &scope.ids {
            remove_from(&mut self.by_id, id, slot);
        }
        for prefix in &scope.prefixes {
            remove_from(&mut self.by_prefix, prefix, slot);
        }
    }
}

fn remove_from<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Vec<Arc<Slot>>>, key: &K, slot: &Arc<Slot>) {
    let Some(slots) = map.get_mut(key) else { return };
    slots.retain(|s| !Arc::ptr_eq(s, slot));
    if slots.is_empty() {
        map.remove(key);
    }
}

impl Slot {
    fn push(&self, event: &Arc<Event>) {
        let mut queue = self.queue.lock();
        // The same event can arrive by an id and by a prefix.
        let again = queue.events.back().is_some_and(|last| Arc::ptr_eq(last, event));
        if queue.cut_off || again {
            return;
        }
        if queue.events.len() >= BACKLOG {
            queue.cut_off = true;
            queue.events.clear();
        } else {
            queue.events.push_back(event.clone());
        }
        drop(queue);
        self.wake.notify_one();
    }

    fn cut_off(&self) {
        let mut queue = self.queue.lock();
        queue.cut_off = true;
        queue.events = VecDeque::new();
        drop(queue);
        self.wake.notify_one();
    }
}

impl Subscription {
    /// The revision at which the following began.
    #[must_use]
    pub fn started(&self) -> Revision {
        self.started
    }

    /// What was asked for.
    #[must_use]
    pub fn scope(&self) -> &WatchScope {
        &self.scope
    }

    /// The revision up to which the follower has been given everything; none while something waits for it.
    #[must_use]
    pub fn caught_up(&self) -> Option<Revision> {
        // Events are queued under the index's lock, so what is published and not queued cannot be.
        let index = self.feed.0.lock();
        let queue = self.slot.queue.lock();
        (queue.events.is_empty() && !queue.cut_off).then_some(index.latest)
    }

    /// Waits for the next event. `None` means that the follower was cut off and the subscription has ended.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            {
                let mut queue = self.slot.queue.lock();
                if queue.cut_off {
                    return None;
                }
                if let Some(event) = queue.events.pop_front() {
                    if queue.events.is_empty() {
                        // An idle follower keeps no buffer: there may be ten thousand of them.
                        queue.events = VecDeque::new();
                    }
                    return Some(event);
                }
            }
            self.slot.wake.notified().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.0.lock().unregister(&self.slot, &self.scope);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn event(number: u64, id: &str) -> Event {
        let subject = Subject::Key { id: KeyId::parse(id).unwrap(), before: None, after: None, grants: Vec::new() };
        Event { revision: Revision { epoch: 1, number }, what: "create", subject }
    }

    fn scope(ids: &[&str], prefixes: &[&str]) -> WatchScope {
        WatchScope {
            ids: ids.iter().map(|i| KeyId::parse(i).unwrap()).collect(),
            prefixes: prefixes.iter().map(|p| Prefix::parse(p).unwrap()).collect(),
        }
    }

    async fn numbers(s: &mut Subscription, n: usize) -> Vec<u64> {
        let mut seen = Vec::new();
        for _ in 0..n {
            seen.push(s.next().await.unwrap().revision.number);
        }
        seen
    }

    #[tokio::test]
    async fn a_follower_sees_its_keys_in_order_and_once() {
        let feed = Arc::new(Feed::starting_at(Revision { epoch: 1, number: 0 }, Revision { epoch: 1, number: 0 }));
        let mut s = feed.subscribe(scope(&["a/x"], &["a/"]), None, Revision::default());
        feed.publish(vec![event(1, "a/x"), event(2, "b"), event(3, "a/y")]);
        assert_eq!(s.caught_up(), None);
        assert_eq!(numbers(&mut s, 2).await, [1, 3]);
        assert_eq!(s.caught_up().unwrap().number, 3);
        assert!(s.slot.queue.lock().events.is_empty());
    }

    #[tokio::test]
    async fn who_comes_back_gets_what_he_missed_or_is_told_that_it_is_gone() {
        let feed = Arc::new(Feed::starting_at(Revision { epoch: 1, number: 10 }, Revision { epoch: 1, number: 10 }));
        feed.publish((11..20).map(|n| event(n, "a")).collect());
        let mut s = feed.subscribe(scope(&["a"], &[]), Some(Revision { epoch: 1, number: 17 }), Revision::default());
        assert_eq!(numbers(&mut s, 2).await, [18, 19]);
        let mut old = feed.subscribe(scope(&["a"], &[]), Some(Revision { epoch: 1, number: 9 }), Revision::default());
        assert!(old.next().await.is_none());
        let mut future = feed.subscribe(scope(&["a"], &[]), Some(Revision { epoch: 1, number: 20 }), Revision::default());
        assert!(future.next().await.is_none());
    }

    /// Copies of one store, each started on, restored and started again; followers who saw one of them and come to another. Whoever is not cut
    /// off has seen exactly what came before what he is told next.
    #[tokio::test]
    async fn nobody_goes_on_from_what_was_told_of_another_copy() {
        struct Copy {
            stored: Vec<(Revision, u64)>,
            running: Option<Arc<Feed>>,
            epoch: u64,
        }
        struct Place {
            since: Revision,
            saw: Vec<(Revision, u64)>,
        }
        let last = |stored: &[(Revision, u64)]| stored.last().map_or(Revision { epoch: 1, number: 0 }, |(at, _)| *at);
        for seed in 1..=200_u64 {
            let mut random = seed;
            let mut below = |n: usize| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(random >> 33).unwrap() % n
            };
            let (mut copies, mut places, mut clock) = (vec![Copy { stored: Vec::new(), running: None, epoch: 1 }], Vec::new(), 10_i64);
            let (mut went_on, mut content) = (0, 0);
            for _ in 0..300 {
                clock += i64::try_from(below(3)).unwrap();
                let which = below(copies.len());
                match below(6) {
                    0 => {
                        let copy = &mut copies[which];
                        let (origin, now) = (last(&copy.stored).in_epoch(copy.epoch), claviger_domain::Timestamp(clock * 1000));
                        clock += 1;
                        copy.epoch = crate::epoch::of_start(copy.epoch, now, 0);
                        copy.running = Some(Arc::new(Feed::starting_at(origin, origin.in_epoch(copy.epoch))));
                    }
                    1 if copies.len() < 6 => {
                        let Copy { stored, epoch, .. } = &copies[which];
                        let backup = Copy { stored: stored.clone(), running: None, epoch: *epoch };
                        copies.push(backup);
                    }
                    2 | 3 => {
                        let copy = &mut copies[which];
                        let Some(feed) = &copy.running else { continue };
                        content += 1;
                        let at = Revision { epoch: copy.epoch, number: last(&copy.stored).number + 1 };
                        copy.stored.push((at, content));
                        let subject = Subject::Key { id: KeyId::parse("a").unwrap(), before: None, after: None, grants: Vec::new() };
                        feed.publish(vec![Event { revision: at, what: "create", subject }]);
                    }
                    4 => {
                        let copy = &copies[which];
                        if copy.running.is_some() {
                            let since = last(&copy.stored).in_epoch(copy.epoch);
                            places.push(Place { since, saw: copy.stored.clone() });
                        }
                    }
                    _ => {
                        let (Some(feed), false) = (&copies[which].running, places.is_empty()) else { continue };
                        let Place { since, saw } = &places[below(places.len())];
                        let mut follower = feed.subscribe(scope(&["a"], &[]), Some(*since), Revision::default());
                        let mut told = Vec::new();
                        while follower.caught_up().is_none() {
                            match follower.next().await {
                                Some(event) => told.push(event.revision),
                                None => break,
                            }
                        }
                        if follower.caught_up().is_some() {
                            went_on += 1;
                            let stored = &copies[which].stored;
                            assert!(stored.starts_with(saw), "seed {seed}: {since} of {saw:?} went on in {stored:?}");
                            assert_eq!(told, stored[saw.len()..].iter().map(|(at, _)| *at).collect::<Vec<_>>(), "seed {seed}: {since}");
                        }
                    }
                }
            }
            assert!(went_on > 0, "seed {seed}: nobody ever went on");
        }
    }

    #[tokio::test]
    async fn after_memory_was_read_anew_following_goes_on_from_what_it_shows() {
        let revision = |number| Revision { epoch: 1, number };
        let feed = Arc::new(Feed::starting_at(revision(10), revision(10)));
        let mut s = feed.subscribe(scope(&["a"], &[]), None, Revision::default());
        // Revision 11 was committed, and is known from the store only.
        feed.compact(revision(11));
        assert!(s.next().await.is_none());
        let mut missed = feed.subscribe(scope(&["a"], &[]), Some(revision(10)), Revision::default());
        assert!(missed.next().await.is_none(), "who has not heard of 11 is told that he missed something");
        let mut resumed = feed.subscribe(scope(&["a"], &[]), Some(revision(11)), Revision::default());
        assert_eq!(resumed.caught_up(), Some(revision(11)), "who was told to read at 11 is not cut off again");
        feed.publish(vec![event(12, "a")]);
        assert_eq!(numbers(&mut resumed, 1).await, [12]);
    }

    #[test]
    fn a_scope_knows_what_concerns_it() {
        let scope = scope(&["b", "a/x", "c/d/e"], &["team/", "a/b/", "team/sub/", "z:"]).in_order();
        assert_eq!(scope.prefixes.iter().map(Prefix::as_str).collect::<Vec<_>>(), ["a/b/", "team/", "z:"]);
        let covered = |id: &str| scope.covers(&KeyId::parse(id).unwrap());
        assert!(["b", "a/x", "a/b/c", "team/x", "team/sub/x", "z:1"].into_iter().all(covered));
        assert!(!["a", "a/y", "a/bb", "teams", "c/d", "zz", "0"].into_iter().any(covered));
        let met = |prefix: &str| scope.meets(&Prefix::parse(prefix).unwrap());
        assert!(["", "a/", "a/b/", "a/b/c/", "c/", "c/d/", "team/sub/sub/", "z:y:"].into_iter().all(met));
        assert!(!["a/c/", "b/", "c/e/", "d:", "tea/", "zz/"].into_iter().any(met));
    }

    #[test]
    fn a_change_of_rights_is_remembered_longer_than_others() {
        let feed = Arc::new(Feed::starting_at(Revision::default(), Revision::default()));
        let taken = |number, prefix| {
            let subject = Subject::Prefix { prefix: Prefix::parse(prefix).unwrap(), before: None, after: None };
            Event { revision: Revision { epoch: 1, number }, what: "change_prefix", subject }
        };
        feed.publish(vec![taken(1, "a/"), taken(2, "b/")]);
        feed.publish((3..=REMEMBERED as u64 + 3).map(|n| event(n, "a/x")).collect());
        let known = |since| feed.rights_since(&scope(&["a/x"], &[]), Revision { epoch: 1, number: since });
        assert_eq!((known(0).0.len(), known(0).1), (1, true));
        assert_eq!(known(1).0.len(), 0);
        feed.publish((0..RIGHTS_REMEMBERED as u64).map(|n| taken(REMEMBERED as u64 + 4 + n, "b/")).collect());
        assert_eq!((known(0).0.len(), known(0).1), (0, false));
    }

    #[tokio::test]
    async fn who_read_what_is_being_published_is_not_cut_off() {
        let revision = |number| Revision { epoch: 1, number };
        let feed = Arc::new(Feed::starting_at(revision(10), revision(10)));
        let mut s = feed.subscribe(scope(&["a"], &[]), Some(revision(11)), revision(11));
        feed.publish(vec![event(11, "b"), event(12, "a")]);
        assert_eq!(numbers(&mut s, 1).await, [12]);
    }

    #[tokio::test]
    async fn a_slow_follower_is_cut_off_and_leaves_nothing_behind() {
        let feed = Arc::new(Feed::starting_at(Revision::default(), Revision::default()));
        let mut s = feed.subscribe(scope(&["a"], &[]), None, Revision::default());
        feed.publish((1..=BACKLOG as u64 + 1).map(|n| event(n, "a")).collect());
        assert!(s.next().await.is_none());
        drop(s);
        assert_eq!(feed.followers(), 0);
        assert!(feed.0.lock().by_id.is_empty());
    }
}
