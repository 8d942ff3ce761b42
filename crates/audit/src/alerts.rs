//! Events that an administrator should look at, found in the records as they are made: a reader's first read of a key,
//! a burst of denials, a mass read. Each is a record of its own in the same log.
//!
//! Memory is bounded: beyond its bounds something may go unalerted, and nothing is ever held up.

use claviger_domain::audit::{Action, Outcome, Record, Subject};
use claviger_domain::{Caller, Timestamp};
use claviger_ports::{AuditError, AuditSink, LogCheckpoint};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Length of the windows in which denials and reads are counted.
const WINDOW: i64 = 60;
const SHARDS: usize = 64;
/// Pairs of reader and key that one shard remembers.
const REMEMBERED: usize = 32_768;
/// Callers whose windows one shard remembers.
const CALLERS: usize = 1_024;

/// When to alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlertLimits {
    /// Whether a first read of a key is an event.
    pub first_read: bool,
    /// Denials of one caller within a minute; 0 for never.
    pub denials: u32,
    /// Different keys read by one caller within a minute; 0 for never.
    pub mass_read: u32,
}

impl Default for AlertLimits {
    fn default() -> Self {
        Self { first_read: true, denials: 20, mass_read: 500 }
    }
}

/// A sink that watches what it passes on.
pub struct Alerts {
    inner: Arc<dyn AuditSink>,
    limits: AlertLimits,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    /// Until the past has been learned, nobody is called a first-time reader.
    learned: AtomicBool,
}

/// A record on its way.
type Kept = BoxFuture<'static, Result<(), AuditError>>;

#[derive(Default)]
struct Shard {
    readers: HashSet<u64>,
    denials: HashMap<u64, Denials>,
    reads: HashMap<u64, Reads>,
}

#[derive(Default)]
struct Denials {
    since: i64,
    count: u32,
}

#[derive(Default)]
struct Reads {
    since: i64,
    keys: HashSet<u64>,
    alerted: bool,
}

impl Alerts {
    /// Watches the records on their way to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn AuditSink>, limits: AlertLimits) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { inner, limits, hasher: RandomState::new(), shards, learned: AtomicBool::new(false) }
    }

    /// Learns who read what from earlier entries of the log. Until this has been called there are no first reads.
    pub fn learn(&self, entries: impl Iterator<Item = Vec<u8>>) {
        for entry in entries {
            let record: Value = serde_json::from_slice(&entry).unwrap_or_default();
            let read = matches!(record["action"].as_str(), Some("read" | "bulk_read")) && record["outcome"] == "ok";
            let (Some(who), Some(keys)) = (record["who"][0]["id"].as_str(), record["keys"].as_array().filter(|_| read)) else { continue };
            // Older records name keys of a bulk read that were refused too, without versions.
            let given = keys.iter().filter(|k| k["versions"].as_array().is_some_and(|v| !v.is_empty()));
            for id in given.filter_map(|k| k["id"].as_str()) {
                self.is_new(who, id);
            }
        }
        self.learned.store(true, Ordering::Release);
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }

    /// Whether this reader was never seen reading this key; from now on it was.
    fn is_new(&self, who: &str, key: &str) -> bool {
        let pair = self.hasher.hash_one((who, key));
        let mut shard = self.shard(pair).lock();
        // A full shard calls nobody new any more.
        !shard.readers.contains(&pair) && shard.readers.len() < REMEMBERED && shard.readers.insert(pair)
    }

    /// Forgets that this reader was seen reading this key.
    fn forget(&self, who: &str, key: &str) {
        let pair = self.hasher.hash_one((who, key));
        self.shard(pair).lock().readers.remove(&pair);
    }

    fn observe(&self, record: &Record<'_>, kept: &mut Kept) {
        let who = record.caller.and_then(Caller::default_identity).map(|i| i.id());
        match (record.outcome, record.action) {
            (Outcome::Ok, Action::Read | Action::BulkRead) => self.observe_read(record, who.unwrap_or_default(), kept),
            (Outcome::Denied | Outcome::Unauthenticated, _) => self.observe_denial(record, who),
            _ => {}
        }
    }

    fn observe_read(&self, record: &Record<'_>, who: &str, kept: &mut Kept) {
        let given = || record.subjects.iter().filter(|s| !s.versions.is_empty());
        if self.limits.first_read && self.learned.load(Ordering::Acquire) {
            let new: Vec<Subject<'_>> = given().filter(|s| self.is_new(who, s.key)).copied().collect();
            // Without its record the answer does not leave, so nobody has read anything yet.
            if !new.is_empty() && is_refused(kept) {
                new.iter().for_each(|s| self.forget(who, s.key));
            } else if !new.is_empty() {
                self.alert(record, &new, "first read by this caller");
            }
        }
        if self.limits.mass_read > 0 && self.is_mass_read(record.at, who, given().map(|s| s.key)) {
            if is_refused(kept) {
                let caller = self.hasher.hash_one(who);
                self.shard(caller).lock().reads.remove(&caller);
                return;
            }
            let reason = format!("mass read: more than {} different keys within {WINDOW} s", self.limits.mass_read);
            self.alert(record, &[], &reason);
        }
    }

    fn is_mass_read<'k>(&self, at: Timestamp, who: &str, keys: impl Iterator<Item = &'k str>) -> bool {
        let caller = self.hasher.hash_one(who);
        let mut shard = self.shard(caller).lock();
        if shard.reads.len() >= CALLERS && !shard.reads.contains_key(&caller) {
            shard.reads.retain(|_, r| is_open(r.since, at));
        }
        let reads = shard.reads.entry(caller).or_default();
        if !is_open(reads.since, at) {
            *reads = Reads { since: at.0, ..Reads::default() };
        }
        if reads.alerted {
            return false;
        }
        reads.keys.extend(keys.map(|k| self.hasher.hash_one(k)));
        if reads.keys.len() <= self.limits.mass_read as usize {
            return false;
        }
        *reads = Reads { since: reads.since, alerted: true, ..Reads::default() };
        true
    }

    fn observe_denial(&self, record: &Record<'_>, who: Option<&str>) {
        if self.limits.denials == 0 {
            return;
        }
        // Who is not proven is told apart by his address.
        let caller = self.hasher.hash_one((who, who.is_none().then_some(record.address)));
        let mut shard = self.shard(caller).lock();
        if shard.denials.len() >= CALLERS && !shard.denials.contains_key(&caller) {
            shard.denials.retain(|_, d| is_open(d.since, record.at));
        }
        let denials = shard.denials.entry(caller).or_default();
        if !is_open(denials.since, record.at) {
            *denials = Denials { since: record.at.0, count: 0 };
        }
        let before = denials.count;
        // One request can be refused for many keys.
        denials.count = before.saturating_add(u32::try_from(record.subjects.len().max(1)).unwrap_or(u32::MAX));
        let reached = before < self.limits.denials && denials.count >= self.limits.denials;
        drop(shard);
        if reached {
            let reason = format!("at least {} denials within {WINDOW} s", self.limits.denials);
            self.alert(record, record.subjects, &reason);
        }
    }

    fn alert(&self, cause: &Record<'_>, subjects: &[Subject<'_>], reason: &str) {
        let alert = Record { action: Action::Alert, outcome: Outcome::Ok, subjects, reason, revision: None, rights: None, ..*cause };
        // Queued behind its cause; if it cannot be kept, its cause could not either, and that is reported.
        drop(self.inner.append(&alert));
        if !reason.starts_with("first read") {
            tracing::warn!(request.id = %cause.request_id, "alert: {reason}");
        }
    }
}

/// Whether the log has refused a record at once.
fn is_refused(kept: &mut Kept) -> bool {
    let Some(outcome) = kept.as_mut().now_or_never() else { return false };
    let is_refused = outcome.is_err();
    *kept = Box::pin(ready(outcome));
    is_refused
}

fn is_open(since: i64, at: Timestamp) -> bool {
    (0..WINDOW * 1_000_000_000).contains(&at.0.saturating_sub(since)) && since != 0
}

impl AuditSink for Alerts {
    fn append(&self, record: &Record<'_>) -> Kept {
        let mut kept = self.inner.append(record);
        self.observe(record, &mut kept);
        kept
    }

    fn checkpoint(&self) -> Option<LogCheckpoint> {
        self.inner.checkpoint()
    }

    fn is_short_of_space(&self) -> bool {
        self.inner.is_short_of_space()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use claviger_domain::{Identity, Proven, RequestId, VersionId};

    #[derive(Default)]
    struct Told(Mutex<Vec<String>>, AtomicBool);

    impl AuditSink for Told {
        fn append(&self, record: &Record<'_>) -> Kept {
            if record.action != Action::Alert && self.1.load(Ordering::Relaxed) {
                return Box::pin(ready(Err(AuditError::Full)));
            }
            if record.action == Action::Alert {
                self.0.lock().push(format!("{} {}", record.reason, record.subjects.len()));
            }
            Box::pin(async { Ok(()) })
        }

        fn checkpoint(&self) -> Option<LogCheckpoint> {
            None
        }
    }

    fn caller(name: &str) -> Caller {
        let identity = Identity::User { name: name.into(), groups: Arc::from([]) };
        Caller::new(Arc::from([Proven { identity, method: "token" }]), RequestId(1), None).unwrap()
    }

    fn send(alerts: &Alerts, caller: &Caller, key: &str, outcome: Outcome, seconds: i64) {
        let versions = [VersionId::new(1).unwrap()];
        let subjects = [Subject { key, versions: if outcome == Outcome::Ok { &versions } else { &[] } }];
        let record = Record {
            at: Timestamp(seconds * 1_000_000_000),
            request_id: RequestId(1),
            caller: Some(caller),
            address: None,
            surface: "knox",
            action: Action::Read,
            subjects: &subjects,
            outcome,
            reason: "",
            revision: None,
            rights: None,
            allowed_by: None,
            head: None,
        };
        drop(alerts.append(&record));
    }

    fn alerts(limits: AlertLimits) -> (Alerts, Arc<Told>) {
        let kept = Arc::new(Told::default());
        (Alerts::new(kept.clone(), limits), kept)
    }

    #[test]
    fn a_first_read_is_told_once_and_only_after_the_past_was_learned() {
        let (alerts, kept) = alerts(AlertLimits::default());
        send(&alerts, &caller("a"), "before", Outcome::Ok, 1);
        let past = br#"{"action":"read","outcome":"ok","who":[{"id":"a"}],"keys":[{"id":"known","versions":["1"]},{"id":"refused","versions":[]}]}"#;
        alerts.learn([past.to_vec(), b"no json".to_vec()].into_iter());
        for (who, key) in [("a", "known"), ("a", "refused"), ("a", "new"), ("a", "new"), ("b", "new")] {
            send(&alerts, &caller(who), key, Outcome::Ok, 2);
        }
        assert_eq!(*kept.0.lock(), ["first read by this caller 1"; 3]);
    }

    #[test]
    fn a_read_whose_record_the_log_refuses_is_no_first_read_and_the_next_one_is() {
        let (alerts, kept) = alerts(AlertLimits::default());
        alerts.learn(std::iter::empty());
        kept.1.store(true, Ordering::Relaxed);
        send(&alerts, &caller("a"), "k", Outcome::Ok, 1);
        assert!(kept.0.lock().is_empty());
        kept.1.store(false, Ordering::Relaxed);
        send(&alerts, &caller("a"), "k", Outcome::Ok, 1);
        assert_eq!(*kept.0.lock(), ["first read by this caller 1"]);
    }

    #[test]
    fn a_mass_read_whose_records_the_log_refuses_does_not_hide_the_true_one() {
        let (alerts, kept) = alerts(AlertLimits { mass_read: 2, first_read: false, ..AlertLimits::default() });
        for is_refusing in [true, false] {
            kept.1.store(is_refusing, Ordering::Relaxed);
            for key in ["a", "b", "c"] {
                send(&alerts, &caller("a"), key, Outcome::Ok, 1);
            }
        }
        assert_eq!(*kept.0.lock(), ["mass read: more than 2 different keys within 60 s 0"]);
    }

    #[test]
    fn a_burst_of_denials_is_told_once_per_window() {
        let (alerts, kept) = alerts(AlertLimits { denials: 3, ..AlertLimits::default() });
        for seconds in [100, 101, 102, 103, 104] {
            send(&alerts, &caller("a"), "k", Outcome::Denied, seconds);
        }
        for seconds in [200, 290, 380] {
            send(&alerts, &caller("a"), "k", Outcome::Denied, seconds);
        }
        assert_eq!(*kept.0.lock(), ["at least 3 denials within 60 s 1"]);
    }

    #[test]
    fn each_key_that_a_bulk_read_is_refused_is_a_denial() {
        let (alerts, kept) = alerts(AlertLimits { denials: 20, ..AlertLimits::default() });
        let ids: Vec<_> = (0..1000).map(|n| format!("k{n}")).collect();
        let subjects: Vec<_> = ids.iter().map(|key| Subject { key, versions: &[] }).collect();
        let caller = caller("prober");
        let bare = Record::new(Timestamp(1_000_000_000), RequestId(1), "native", Action::BulkRead, Outcome::Denied);
        for _ in 0..3 {
            drop(alerts.append(&Record { caller: Some(&caller), subjects: &subjects, ..bare }));
        }
        assert_eq!(*kept.0.lock(), ["at least 20 denials within 60 s 1000"]);
    }

    #[test]
    fn a_mass_read_counts_different_keys() {
        let (alerts, kept) = alerts(AlertLimits { mass_read: 3, first_read: false, ..AlertLimits::default() });
        for key in ["a", "a", "a", "a", "b", "c"] {
            send(&alerts, &caller("x"), key, Outcome::Ok, 100);
        }
        assert!(kept.0.lock().is_empty());
        for key in ["d", "e", "f"] {
            send(&alerts, &caller("x"), key, Outcome::Ok, 101);
        }
        assert_eq!(*kept.0.lock(), ["mass read: more than 3 different keys within 60 s 0"]);
    }
}
