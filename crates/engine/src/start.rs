//! From a store to a running engine: reading every row, checking each one's MAC and the sum over all of them.

use crate::approvals::Held;
use crate::commit::{Committer, Sealer};
use crate::epoch;
use crate::feed::Feed;
use crate::memory::{Entry, Granted, Grave, Memory, SealedVersion, Slot, Tables, Torn, Wreck};
use crate::{Conflict, Error};
use claviger_crypto::{CryptoError, Head, KeyRing, RootOfTrust, add, negate, random};
use claviger_domain::audit::{Action, Outcome, Record, Subject as AuditSubject};
use claviger_domain::{
    Acl, Clock, End, Ended, Generation, Grant, Incarnation, KeyId, RequestId, Revision, Rules, Timestamp, Version, VersionId, VersionState,
};
use claviger_ports::{
    ApprovalRow, AuditError, AuditSink, BarrierRow, Change, ChangeRow, CommitOutcome, DamagedRow, DigestDelta, Effect, Expected, GrantRow,
    HeadError, HeadRow, HeadSealer, KeyRow, Loaded, LoadedVersion, Store, StoreError, Target, TombstoneRow, Write,
};
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What a site may set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of data that one version may have at most.
    pub max_value: usize,
    /// Versions that one key may have at most.
    pub max_versions: usize,
    /// Bytes of data that one answer may have at most, of all its versions and keys together.
    pub max_answer: usize,
    /// Sealed data up to this many bytes is kept in memory; longer data is read from the store on each use.
    pub inline_limit: usize,
    /// Grants that every new key gets.
    pub default_grants: Vec<Grant>,
    /// Asked when the ACLs say no.
    pub policy: Option<crate::Policy>,
    /// Who is told what becomes of requests for approval, if anybody.
    pub notices: Option<mpsc::Sender<crate::Notice>>,
    /// Whether to start although rows were removed, added or rolled back behind Claviger's back.
    pub accept_tampering: bool,
    /// The newest epoch that is known beside the store, by the audit log: this start's is later.
    pub epoch_known: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_value: 1 << 20,
            max_versions: 1000,
            max_answer: 64 << 20,
            inline_limit: 64 << 10,
            default_grants: Vec::new(),
            policy: None,
            notices: None,
            accept_tampering: false,
            epoch_known: 0,
        }
    }
}

/// The application. Cheap to share; everything in it lives as long as the last handle.
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) ring: Arc<RwLock<Arc<KeyRing>>>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) queue: mpsc::Sender<crate::commit::Pending>,
    pub(crate) counts: Arc<crate::commit::Counts>,
    pub(crate) overlay: crate::overlay::Overlay,
    pub(crate) open_keys: crate::open::OpenKeys,
    /// Writers of one key take turns, so that they do not make each other start again.
    pub(crate) turns: Box<[tokio::sync::Mutex<()>]>,
    /// Rotations of the barrier take turns.
    rotation: Arc<tokio::sync::Mutex<()>>,
    /// Deletions of damaged keys take turns: the last one settles what the head counts too much.
    pub(crate) salvage: tokio::sync::Mutex<()>,
}

/// What a scan of every row found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Keys, versions and damage, as at a start.
    pub start: StartReport,
    /// Versions whose data was opened and is whole.
    pub versions: usize,
    /// Versions that do not open, or are missing, with the reason.
    pub bad_versions: Vec<(String, String)>,
}

/// Reads every row and opens every version without letting anyone see it. Changes nothing, and looks at one state of the
/// store, so that a server may write to it meanwhile.
///
/// # Errors
/// When the store cannot be read at all or its head does not authenticate.
pub async fn check(store: &dyn Store, ring: &KeyRing) -> Result<CheckReport, Error> {
    let mut loading = Loading::new(ring, usize::MAX);
    loading.opened = Some(Opened::default());
    let head = loading.read(store).await?;
    let Opened { whole, mut bad } = loading.opened.take().unwrap_or_default();
    let Contents { tables, report, unreadable, .. } = loading.finish(head);
    bad.extend(missing_versions(&tables));
    let bad = bad.into_iter().map(|(id, version, why)| (format!("{id} version {version}"), why));
    let bad_versions = unreadable.into_iter().map(|(id, why)| (format!("{id}: a version"), why)).chain(bad).collect();
    Ok(CheckReport { start: report, versions: whole, bad_versions })
}

/// What became of versions that were opened while they were loaded.
#[derive(Default)]
struct Opened {
    whole: usize,
    bad: Vec<BadVersion>,
}

fn missing_versions(tables: &Tables) -> Vec<BadVersion> {
    let entries = tables.keys.values().filter_map(|slot| if let Slot::Good(entry) = slot { Some(entry) } else { None });
    let missing = entries.flat_map(|entry| {
        let lost = |v: &&Version| v.state != VersionState::Destroyed && entry.sealed(v.id).is_none();
        entry.meta.versions.iter().filter(lost).map(|v| (entry.meta.id.clone(), v.id, MISSING.to_owned()))
    });
    missing.collect()
}

const MISSING: &str = "its data is missing";

/// A version that does not open or is not there, with the reason.
type BadVersion = (KeyId, VersionId, String);

/// Opens every version of every good key, and gives those that do not open or are not there.
async fn bad_versions(store: &dyn Store, ring: &KeyRing, tables: &Tables) -> Result<Vec<BadVersion>, Error> {
    let mut bad = Vec::new();
    for slot in tables.keys.values() {
        let Slot::Good(entry) = slot else { continue };
        let alive = entry.meta.versions.iter().filter(|v| v.state != VersionState::Destroyed);
        for version in alive {
            let key = entry.meta.key_ref();
            let opened = match store.version(&key, version.id).await {
                Ok(Some((wrapped, data))) => {
                    ring.check_version(&key, entry.meta.kind, version.id, &wrapped, &data).map_err(|e| e.to_string())
                }
                Ok(None) => Err(MISSING.to_owned()),
                Err(StoreError::Damaged(why)) => Err(why),
                Err(other) => return Err(other.into()),
            };
            if let Err(why) = opened {
                bad.push((key.id, version.id, why));
            }
        }
    }
    Ok(bad)
}

/// What was found at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartReport {
    /// Keys that are served.
    pub keys: usize,
    /// Keys whose record does not authenticate, with the reason.
    pub damaged: Vec<(String, String)>,
    /// Prefix grants and tombstones whose record does not authenticate, with the reason. They do not count.
    pub damaged_others: Vec<(String, String)>,
    /// Whether the sums over all rows are those that the head has, a damaged MAC over undamaged contents aside.
    pub digest_matches: bool,
    /// Whether more was done to the store than damage: rows were removed, added or rolled back. Nothing is served then.
    pub tampered: bool,
    /// The head's revision.
    pub revision: Revision,
}

/// A running engine and what was found at its start.
pub struct Started {
    /// The engine.
    pub engine: Arc<Engine>,
    /// The findings.
    pub report: StartReport,
    /// The task that commits; it ends, and has closed the store, when the last engine handle is gone.
    pub committer: tokio::task::JoinHandle<()>,
}

/// Prepares an empty store: makes the barrier key and the first head.
///
/// # Errors
/// [`Error::Conflict`] when the store has a head already.
pub async fn initialise(store: &dyn Store, roots: &[&dyn RootOfTrust], now: Timestamp) -> Result<KeyRing, Error> {
    if store.head().await?.is_some() {
        return Err(Error::Conflict(Conflict::Exists));
    }
    let (ring, barriers) = KeyRing::create(roots, now).await?;
    let revision = Revision { epoch: 1, number: 0 };
    let head = ring.seal_head(&Head { revision, commit_id: random(), digest: DigestDelta::default(), checkpoint: None });
    store.initialise(&head, &barriers).await?;
    Ok(ring)
}

pub(crate) struct Contents {
    pub(crate) tables: Tables,
    pub(crate) report: StartReport,
    /// The head that the store had.
    pub(crate) head: Head,
    /// The sums over the rows as they stand.
    sum: DigestDelta,
    /// Keys of version rows that cannot be read, with the reason.
    unreadable: Vec<(KeyId, String)>,
}

impl Wreck {
    /// Of a key whose record is whole and whose versions are not.
    fn torn(entry: Arc<Entry>, why: &str) -> Self {
        Self {
            why: why.into(),
            standing: (entry.meta.incarnation, entry.meta.generation),
            stands: entry.counted(),
            excess: DigestDelta::default(),
            entry: Some(entry),
            claimed: Acl::default(),
            claimed_rules: Rules::default(),
        }
    }

    /// Of a record that is damaged itself.
    fn of(standing: (Incarnation, Generation), stands: DigestDelta, why: &str) -> Self {
        Self {
            why: why.into(),
            standing,
            stands,
            excess: DigestDelta::default(),
            entry: None,
            claimed: Acl::default(),
            claimed_rules: Rules::default(),
        }
    }
}

impl Contents {
    /// Where the sum over versions is wrong: looks for those that are damaged or missing. Their keys are damaged then, and the
    /// others can be served. Where none is, versions were added.
    async fn blame(&mut self, store: &dyn Store, ring: &KeyRing) -> Result<(), Error> {
        if self.sum.versions() == self.head.digest.versions() {
            return Ok(());
        }
        let bad = bad_versions(store, ring, &self.tables).await?;
        let bad = bad.into_iter().map(|(id, version, why)| (id, format!("version {version}: {why}")));
        let bad: Vec<_> = std::mem::take(&mut self.unreadable).into_iter().chain(bad).collect();
        for (id, why) in bad {
            let entry = match self.tables.keys.get(&id) {
                Some(Slot::Good(entry)) => entry.clone(),
                // Its record is damaged, too, and it is told of already.
                Some(Slot::Damaged(_)) => {
                    self.tables.torn.keys.insert(id);
                    continue;
                }
                Some(Slot::Doubtful(_)) | None => continue,
            };
            let wreck = Wreck::torn(entry, &why);
            self.tables.keys.insert(id.clone(), Slot::Damaged(Arc::new(wreck)));
            self.tables.damaged.insert(id.clone());
            self.report.keys -= 1;
            self.report.damaged.push((id.to_string(), why));
            self.tables.torn.keys.insert(id);
        }
        // Where no key can be blamed, versions were added.
        self.report.tampered |= self.tables.torn.keys.is_empty();
        self.tables.torn.excess = self.excess().only_versions();
        Ok(())
    }

    fn is_as_written(&self) -> bool {
        self.sum == self.head.digest
    }

    /// Shows the head's number in the epoch in which it was sealed anew.
    fn reached(&mut self, revision: Revision) {
        self.report.revision = revision;
        self.tables.revision = revision;
    }

    /// Begins the start's epoch, and gives the revision up to which followers have been told of this store's history. Where the store takes
    /// nothing at present, the first commit begins the epoch.
    async fn begin_epoch(&mut self, store: &dyn Store, sealer: &Sealer) -> Revision {
        let found = self.head.revision;
        match store.reseal(sealer).await {
            Ok(()) => self.reached(found.in_epoch(sealer.epoch(found))),
            Err(error) => tracing::warn!(%error, "the store does not take a new epoch yet; its next change begins it"),
        }
        found
    }

    /// What the head counts beyond the rows as they stand.
    fn excess(&self) -> DigestDelta {
        add(self.head.digest, negate(self.sum))
    }

    /// Makes what is left the truth: from now on the head has the sums of the rows as they stand, so that the next start needs
    /// no leave for it. It is recorded before it is done.
    pub(crate) async fn accept(&mut self, store: &dyn Store, sealer: &Sealer, now: Timestamp) -> Result<(), Error> {
        if self.is_as_written() {
            return Ok(());
        }
        let StartReport { keys, damaged, damaged_others, revision, .. } = &self.report;
        let (damaged, others) = (damaged.len(), damaged_others.len());
        let reason = format!(
            "rows were removed, added or rolled back behind Claviger's back; the {keys} keys that are left, beside {damaged} damaged ones and {others} other damaged rows, count from now on as what was written"
        );
        tracing::error!("{reason}");
        let request = RequestId(u128::from_be_bytes(random()));
        let bare = Record::new(now, request, "server", Action::AcceptTampering, Outcome::Ok);
        sealer.audit.append(&Record { reason: &reason, head: Some(*revision), ..bare }).await?;
        self.void_approvals(store, sealer, now).await?;
        store.reseal(&Baseline { sealer, seen: self.head.commit_id, sum: self.sum }).await?;
        self.reached(self.head.revision.in_epoch(sealer.epoch(self.head.revision)));
        self.tables.torn = Torn::default();
        for slot in self.tables.keys.values_mut() {
            if let Slot::Damaged(wreck) = slot {
                Arc::make_mut(wreck).excess = DigestDelta::default();
            }
        }
        self.tables.damaged_grants.values_mut().for_each(|wreck| wreck.excess = DigestDelta::default());
        Ok(())
    }

    /// Ends all requests for approval that have not ended: one that was carried out, rejected or taken back may be an older row
    /// that was put in its place ▲. Before the head is resealed, so that a start which is killed here does all of it again.
    async fn void_approvals(&mut self, store: &dyn Store, sealer: &Sealer, now: Timestamp) -> Result<(), Error> {
        let ring = sealer.ring.read().clone();
        let voided: Vec<_> = self.tables.approvals.values().filter_map(|held| Voided::of(held, &ring, now)).collect();
        if voided.is_empty() {
            return Ok(());
        }
        let writes: Vec<_> = voided.iter().map(|v| v.write.clone()).collect();
        let outcomes = store.commit(&writes, sealer).await?;
        let attempt = sealer.last.lock().take().filter(|attempt| attempt.before == self.head.revision);
        let revisions: Vec<_> = outcomes.into_iter().filter_map(CommitOutcome::revision).collect();
        let (Some(attempt), Some(last), true) = (attempt, revisions.last(), revisions.len() == voided.len()) else {
            return Err(Error::Internal("the store was written to since its rows were read; start again".to_owned()));
        };
        (self.head.commit_id, self.head.revision) = (attempt.commit_id, *last);
        for (Voided { write, held }, revision) in voided.into_iter().zip(revisions) {
            self.sum = add(self.sum, write.digest);
            self.head.digest = add(self.head.digest, write.digest);
            let id = held.approval.id;
            let name = format!("approval {id}");
            let subjects = [AuditSubject { key: &name, versions: &[] }];
            let bare = Record::new(now, write.change.request_id, "server", Action::AcceptTampering, Outcome::Ok);
            let reason = "the request is void: nobody knows whether it was carried out";
            sealer.audit.append(&Record { subjects: &subjects, reason, revision: Some(revision), ..bare }).await?;
            self.tables.approvals.insert(id, Arc::new(Held { revision, ..held }));
        }
        Ok(())
    }
}

/// A request for approval that is void now.
struct Voided {
    write: Write,
    held: Held,
}

impl Voided {
    /// None where it has ended already.
    fn of(old: &Held, ring: &KeyRing, now: Timestamp) -> Option<Self> {
        if old.approval.end.is_some() {
            return None;
        }
        let end = End { how: Ended::Void, at: now, by: "claviger".into(), comment: "the store was changed; ask anew".into() };
        let approval = old.approval.changed(|a| a.end = Some(end));
        let row = ring.seal_approval(&approval);
        let (digest, request_id) = (ring.digest_approval(&row), RequestId(u128::from_be_bytes(random())));
        let write = Write {
            target: Target::Approval(approval.id),
            expected: Expected::At(Incarnation(approval.id.0), old.approval.generation),
            effect: Effect::PutApproval(row),
            uses: None,
            digest: add(digest, negate(old.digest)),
            change: Change { what: Action::AcceptTampering.name(), actor: "claviger".to_owned(), request_id, at: now },
        };
        Some(Self { write, held: Held { approval, digest, revision: old.revision } })
    }
}

/// Seals a head with the sums of the rows as they stand.
struct Baseline<'a> {
    sealer: &'a Sealer,
    /// The commit id of the state that was summed.
    seen: [u8; 16],
    sum: DigestDelta,
}

impl HeadSealer for Baseline<'_> {
    fn epoch(&self, current: Revision) -> u64 {
        self.sealer.epoch(current)
    }

    fn advance(&self, current: &HeadRow, gained: &[DigestDelta]) -> Result<HeadRow, HeadError> {
        let is_seen = current.commit_id == self.seen && gained.is_empty();
        if !is_seen {
            return Err(HeadError("the store was written to since its rows were summed; start again".to_owned()));
        }
        self.sealer.seal_next(current, |_| self.sum, 0)
    }
}

/// Damaged rows that are tried out against the sum at most; each has as many forms as there are barrier keys.
const TRIED: usize = 10;

/// A row that does not authenticate: what it counts as it stands, and what it would count were only its MAC damaged.
struct Suspect {
    /// Whose row it is, where it can be replaced.
    of: Option<Target>,
    stands: DigestDelta,
    as_it_was: Vec<DigestDelta>,
}

/// Combinations that are tried at most; each costs some 100 ns. Beyond it nothing is explained.
const COMBINATIONS: u32 = 1 << 18;

/// Which suspects count as they were before their MAC was damaged, and what, so that the sum over rows becomes `wanted`: last
/// ones first. None where nothing explains it. Takes one of `left` for each combination it looks at.
fn explain<'s>(sum: DigestDelta, suspects: &'s [Suspect], wanted: DigestDelta, left: &mut u32) -> Option<Vec<(&'s Suspect, DigestDelta)>> {
    if sum.rows() == wanted.rows() {
        return Some(Vec::new());
    }
    *left = left.checked_sub(1)?;
    let (first, rest) = suspects.split_first()?;
    let without = add(sum, negate(first.stands));
    explain(sum, rest, wanted, left).or_else(|| {
        first.as_it_was.iter().find_map(|was| {
            let mut others = explain(add(without, *was), rest, wanted, left)?;
            others.push((first, *was));
            Some(others)
        })
    })
}

struct Loading<'a> {
    ring: &'a KeyRing,
    inline_limit: usize,
    /// Ids as they came, which is nearly in order.
    ids: Vec<KeyId>,
    damaged: Vec<(KeyId, String)>,
    others: Vec<(String, String)>,
    unreadable: Vec<(KeyId, String)>,
    suspects: Vec<Suspect>,
    tables: Tables,
    digest: DigestDelta,
    /// Whether versions are opened as they come, and their data dropped.
    opened: Option<Opened>,
}

/// Reads the whole store as it is to be served: as [`load`], and keys whose versions are lost or damaged are damaged.
pub(crate) async fn load_and_blame(store: &dyn Store, ring: &KeyRing, inline_limit: usize) -> Result<Contents, Error> {
    let mut loading = Loading::new(ring, inline_limit);
    let head = loading.read(store).await?;
    let mut contents = loading.finish(head);
    contents.blame(store, ring).await?;
    Ok(contents)
}

impl<'a> Loading<'a> {
    fn new(ring: &'a KeyRing, inline_limit: usize) -> Self {
        Self {
            ring,
            inline_limit,
            ids: Vec::new(),
            damaged: Vec::new(),
            others: Vec::new(),
            unreadable: Vec::new(),
            suspects: Vec::new(),
            tables: Tables::default(),
            digest: DigestDelta::default(),
            opened: None,
        }
    }

    /// Takes every row of the store, and gives the head that belongs to them.
    async fn read(&mut self, store: &dyn Store) -> Result<Head, Error> {
        let (ring, inline_limit) = (self.ring, self.inline_limit as u64);
        let mut visit = |rows: Vec<Loaded>| {
            rows.into_iter().for_each(|row| self.take(row));
            Ok::<(), StoreError>(())
        };
        Ok(ring.open_head(&store.load(inline_limit, &mut visit).await?)?)
    }

    fn take(&mut self, row: Loaded) {
        match row {
            Loaded::Key(row, revision) => {
                let digest = self.ring.digest_key(&row);
                self.digest = add(self.digest, digest);
                let slot = match self.ring.open_key(&row) {
                    Ok(meta) => {
                        if !meta.rules.is_empty() {
                            self.tables.ruled.insert(row.id.clone());
                        }
                        Slot::Good(Arc::new(Entry { meta, revision, born: Revision::default(), digest, sealed: Vec::with_capacity(1) }))
                    }
                    Err(why) => return self.take_damaged(row, digest, why.to_string()),
                };
                self.ids.push(row.id.clone());
                self.tables.keys.insert(row.id, slot);
            }
            Loaded::Damaged(DamagedRow::Key(row, why)) => {
                let digest = self.ring.digest_key(&row);
                self.digest = add(self.digest, digest);
                self.take_damaged(row, digest, why);
            }
            Loaded::Damaged(DamagedRow::Version(key, why)) => self.unreadable.push((key.id, why)),
            Loaded::Damaged(DamagedRow::Other(what, why)) => self.others.push((what, why)),
            Loaded::Version(version) => self.take_version(version),
            Loaded::Grant(row, _) => {
                let stands = self.ring.digest_grant(&row);
                self.digest = add(self.digest, stands);
                match self.ring.open_grant(&row) {
                    Ok(grant) => {
                        self.tables.set_prefix_rules(&row.prefix, &grant.rules);
                        self.tables.grants.insert(row.prefix, Granted { grant: Arc::new(grant), digest: stands });
                    }
                    Err(why) => self.take_damaged_grant(row, stands, why.to_string()),
                }
            }
            Loaded::Tombstone(row, revision) => {
                let stands = self.ring.digest_tombstone(&row);
                self.digest = add(self.digest, stands);
                match self.ring.open_tombstone(&row) {
                    Ok(tombstone) => self.bury(tombstone, revision),
                    Err(why) => self.take_damaged_tombstone(&row, stands, why.to_string()),
                }
            }
            Loaded::Approval(row, revision) => {
                let digest = self.ring.digest_approval(&row);
                self.digest = add(self.digest, digest);
                match self.ring.open_approval(&row) {
                    Ok(approval) => drop(self.tables.approvals.insert(row.id, Arc::new(Held { approval, digest, revision }))),
                    Err(why) => self.take_damaged_approval(&row, digest, why.to_string()),
                }
            }
            Loaded::Damaged(DamagedRow::Approval(row, why)) => {
                let stands = self.ring.digest_approval(&row);
                self.digest = add(self.digest, stands);
                self.take_damaged_approval(&row, stands, why);
            }
            Loaded::Damaged(DamagedRow::Grant(row, why)) => {
                let stands = self.ring.digest_grant(&row);
                self.digest = add(self.digest, stands);
                self.take_damaged_grant(row, stands, why);
            }
            Loaded::Damaged(DamagedRow::Tombstone(row, why)) => {
                let stands = self.ring.digest_tombstone(&row);
                self.digest = add(self.digest, stands);
                self.take_damaged_tombstone(&row, stands, why);
            }
        }
    }

    fn take_damaged_grant(&mut self, row: GrantRow, stands: DigestDelta, why: String) {
        if let Some(rules) = KeyRing::claimed_prefix_rules(&row) {
            self.tables.set_prefix_rules(&row.prefix, &rules);
        }
        let as_it_was = self.ring.digest_grant_as_it_was(&row);
        self.suspects.push(Suspect { of: Some(Target::Prefix(row.prefix.clone())), stands, as_it_was });
        self.others.push((format!("the grants of prefix `{}`", row.prefix), why.clone()));
        let wreck = Wreck::of((row.incarnation, row.generation), stands, &why);
        self.tables.damaged_grants.insert(row.prefix, wreck);
    }

    fn take_damaged_tombstone(&mut self, row: &TombstoneRow, stands: DigestDelta, why: String) {
        self.suspects.push(Suspect { of: None, stands, as_it_was: self.ring.digest_tombstone_as_it_was(row) });
        self.others.push((format!("the tombstone of `{}`", row.key.id), why));
    }

    /// Nothing is carried out on a damaged request: it is as if it had never been asked.
    fn take_damaged_approval(&mut self, row: &ApprovalRow, stands: DigestDelta, why: String) {
        self.suspects.push(Suspect { of: None, stands, as_it_was: self.ring.digest_approval_as_it_was(row) });
        self.others.push((format!("the request for approval {}", row.id), why));
    }

    fn take_damaged(&mut self, row: KeyRow, stands: DigestDelta, why: String) {
        let as_it_was = self.ring.digest_key_as_it_was(&row);
        self.suspects.push(Suspect { of: Some(Target::Key(row.id.clone())), stands, as_it_was });
        let (claimed, claimed_rules) = KeyRing::claimed(&row).unwrap_or_default();
        if !claimed_rules.is_empty() {
            self.tables.ruled.insert(row.id.clone());
        }
        let wreck = Wreck { claimed, claimed_rules, ..Wreck::of((row.incarnation, row.generation), stands, &why) };
        self.damaged.push((row.id.clone(), why));
        self.ids.push(row.id.clone());
        self.tables.damaged.insert(row.id.clone());
        self.tables.keys.insert(row.id, Slot::Damaged(Arc::new(wreck)));
    }

    fn take_version(&mut self, mut row: LoadedVersion) {
        let digest = self.ring.digest_version(&row.key, row.version, &row.wrapped_key, row.data_len, &row.data_tag);
        self.digest = add(self.digest, digest);
        let entry = match self.tables.keys.get_mut(&row.key.id) {
            Some(Slot::Good(entry)) => entry,
            Some(Slot::Damaged(wreck)) if wreck.standing.0 == row.key.incarnation => {
                let wreck = Arc::make_mut(wreck);
                wreck.stands = add(wreck.stands, digest);
                return;
            }
            _ => return,
        };
        // Nobody else holds it yet.
        let Some(entry) = Arc::get_mut(entry).filter(|e| e.meta.incarnation == row.key.incarnation) else { return };
        if let Some(opened) = &mut self.opened
            && let Some(data) = row.data.take()
        {
            match self.ring.check_version(&row.key, entry.meta.kind, row.version, &row.wrapped_key, &data) {
                Ok(()) => opened.whole += 1,
                Err(why) => opened.bad.push((row.key.id.clone(), row.version, why.to_string())),
            }
        }
        entry.sealed.push(Arc::new(SealedVersion { version: row.version, wrapped_key: row.wrapped_key, data: row.data, digest }));
    }

    fn bury(&mut self, tombstone: claviger_crypto::Tombstone, revision: Revision) {
        let id = tombstone.key.id.clone();
        let later = self.tables.graves.get(&id).is_some_and(|g| g.revision > revision);
        if !later {
            self.tables.graves.insert(id, Arc::new(Grave { tombstone, revision, born: Revision::default() }));
        }
    }

    fn finish(mut self, head: Head) -> Contents {
        for slot in self.tables.keys.values_mut() {
            if let Slot::Good(entry) = slot
                && let Some(entry) = Arc::get_mut(entry)
            {
                entry.slim(self.inline_limit);
            }
        }
        self.suspects.truncate(TRIED);
        let explained = explain(self.digest, &self.suspects, head.digest, &mut { COMBINATIONS });
        let rows_match = explained.is_some();
        for (suspect, was) in explained.into_iter().flatten() {
            if let Some(wreck) = suspect.of.as_ref().and_then(|target| self.tables.wreck_mut(target)) {
                wreck.excess = add(was, negate(suspect.stands));
            }
        }
        let versions_match = self.digest.versions() == head.digest.versions();
        let report = StartReport {
            keys: self.ids.len() - self.damaged.len(),
            damaged: self.damaged.iter().map(|(id, why)| (id.to_string(), why.clone())).collect(),
            damaged_others: self.others,
            digest_matches: rows_match && versions_match,
            tampered: !rows_match,
            revision: head.revision,
        };
        self.tables.revision = head.revision;
        self.tables.order = self.ids.into_iter().collect();
        Contents { tables: self.tables, report, head, sum: self.digest, unreadable: self.unreadable }
    }
}

impl Engine {
    /// Loads the store and starts committing.
    ///
    /// # Errors
    /// When the store cannot be read, or rows were removed, added or rolled back (unless the settings accept that).
    pub async fn start(
        settings: Settings,
        store: Arc<dyn Store>,
        audit: Arc<dyn AuditSink>,
        ring: KeyRing,
        clock: Arc<dyn Clock>,
    ) -> Result<Started, Error> {
        let mut contents = load_and_blame(&*store, &ring, settings.inline_limit).await?;
        if contents.report.tampered && !settings.accept_tampering {
            return Err(Error::Internal(
                "rows were removed from the store, added to it or rolled back behind Claviger's back; look with `claviger check`, restore a backup, or save what is left with `store.accept_tampering`".to_owned(),
            ));
        }
        let ring = Arc::new(RwLock::new(Arc::new(ring)));
        let last = contents.head.revision.epoch.max(settings.epoch_known);
        let epoch = epoch::of_start(last, clock.now(), u64::from_be_bytes(random()));
        let sealer = Sealer { ring: ring.clone(), audit: audit.clone(), epoch, last: Mutex::default() };
        let origin = if settings.accept_tampering && !contents.is_as_written() {
            contents.accept(&*store, &sealer, clock.now()).await?;
            // What followers were told of need not be what is left.
            contents.tables.revision
        } else {
            contents.begin_epoch(&*store, &sealer).await
        };
        let Contents { tables, report, .. } = contents;
        let feed = Arc::new(Feed::starting_at(origin, tables.revision));
        let memory = Arc::new(Memory::default());
        memory.write(|t| *t = tables);
        let counts = Arc::new(crate::commit::Counts::default());
        let (queue, receiver) = mpsc::channel(4096);
        let committer = Committer {
            store: store.clone(),
            sealer,
            memory: memory.clone(),
            feed: feed.clone(),
            inline_limit: settings.inline_limit,
            accept_tampering: settings.accept_tampering,
            clock: clock.clone(),
            queue: receiver,
            counts: counts.clone(),
        };
        let committer = tokio::spawn(committer.run());
        let turns = (0..1024).map(|_| tokio::sync::Mutex::new(())).collect();
        let engine = Arc::new(Self {
            settings,
            clock,
            store,
            audit,
            ring,
            memory,
            feed,
            queue,
            counts,
            turns,
            rotation: Arc::default(),
            overlay: Default::default(),
            open_keys: Default::default(),
            salvage: tokio::sync::Mutex::default(),
        });
        Ok(Started { engine, report, committer })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn ring(&self) -> Arc<KeyRing> {
        self.ring.read().clone()
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The revision that memory shows.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.memory.revision()
    }

    /// How many keys there are, damaged ones included.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.memory.read(|t| t.keys.len())
    }

    /// How many keys are damaged and not served, and the first ids of them.
    #[must_use]
    pub fn damaged_keys(&self, most: usize) -> (usize, Vec<String>) {
        self.memory.read(|t| (t.damaged.len(), t.damaged.iter().take(most).map(ToString::to_string).collect()))
    }

    /// How many streams follow changes.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.feed.followers()
    }

    /// The barrier keys that are open, and the one that new data is wrapped by.
    #[must_use]
    pub fn barrier_versions(&self) -> (u32, Vec<u32>) {
        let ring = self.ring();
        (ring.version(), ring.versions().collect())
    }

    /// Makes a new barrier key and uses it for everything sealed from now on; older ones stay for opening.
    ///
    /// # Errors
    /// When a root does not wrap it or the store does not keep it; then the old one stays in use.
    pub async fn rotate_barrier(&self, roots: &[&dyn RootOfTrust]) -> Result<Vec<BarrierRow>, Error> {
        let turn = self.rotation.clone().lock_owned().await;
        self.adopt_barriers(roots).await?;
        let (ring, added) = self.ring().rotate(roots, self.now()).await.map_err(unavailable)?;
        let rotation = Rotation { store: self.store.clone(), ring: self.ring.clone(), audit: self.audit.clone(), now: self.now() };
        let (done, answer) = oneshot::channel();
        // Not given up when the caller goes away: the store would have a key that the ring does not.
        tokio::spawn(async move {
            let kept = rotation.keep(ring, added).await;
            drop(turn);
            if let Err(Ok(added)) = done.send(kept) {
                rotation.record(&added).await;
            }
        });
        answer.await.map_err(|_| Error::Unavailable("the server stopped before the rotation was confirmed".to_owned()))?
    }

    /// Takes barrier keys into use that the store has and the ring has not: an earlier rotation's whose outcome was unknown.
    async fn adopt_barriers(&self, roots: &[&dyn RootOfTrust]) -> Result<(), Error> {
        let rows = settled_barriers(&*self.store).await?;
        let is_newer = rows.iter().any(|row| row.version > self.ring().version());
        if is_newer {
            *self.ring.write() = Arc::new(KeyRing::open(&rows, roots).await.map_err(unavailable)?);
        }
        Ok(())
    }

    /// Records changes that are in the store and whose audit record was lost, by a crash between commit and record or by a
    /// log that could not be written. `recorded` are requests whose change has its record; changes up to `after`, or made
    /// before `since`, are not asked about.
    ///
    /// # Errors
    /// When the store or the log fail.
    pub async fn reconcile(&self, recorded: &HashSet<RequestId>, after: Revision, since: Timestamp) -> Result<usize, Error> {
        let mut found = 0;
        let mut from = after;
        loop {
            let page = self.store.changes(from, 1000).await?;
            let Some(last) = page.last() else { return Ok(found) };
            from = last.revision;
            let lost = page.iter().filter(|change| change.at >= since && !recorded.contains(&change.request_id));
            // All are queued before the first is awaited, so that they share syncs.
            let kept: Vec<_> = lost.map(|change| record_lost(&*self.audit, self.now(), change)).collect();
            found += kept.len();
            for record in kept {
                record.await?;
            }
        }
    }
}

fn unavailable(error: CryptoError) -> Error {
    Error::Unavailable(error.to_string())
}

/// The barrier rows as they will stay: asking for the head settles a commit of unknown outcome first.
async fn settled_barriers(store: &dyn Store) -> Result<Vec<BarrierRow>, StoreError> {
    store.head().await?;
    store.barriers().await
}

/// A rotation's last steps, which nobody can interrupt.
struct Rotation {
    store: Arc<dyn Store>,
    ring: Arc<RwLock<Arc<KeyRing>>>,
    audit: Arc<dyn AuditSink>,
    now: Timestamp,
}

impl Rotation {
    async fn keep(&self, ring: KeyRing, added: Vec<BarrierRow>) -> Result<Vec<BarrierRow>, Error> {
        if let Err(error) = self.store.add_barriers(&added).await {
            if !matches!(error, StoreError::Unknown(_)) {
                return Err(error.into());
            }
            let rows = settled_barriers(&*self.store).await?;
            if !added.iter().all(|row| rows.contains(row)) {
                return Err(error.into());
            }
        }
        *self.ring.write() = Arc::new(ring);
        Ok(added)
    }

    /// Records a rotation whose caller has gone away.
    async fn record(&self, added: &[BarrierRow]) {
        let version = added.first().map_or(0, |row| row.version);
        let reason = format!("barrier key {version}; who asked for it did not wait for the answer");
        let request = RequestId(u128::from_be_bytes(random()));
        let bare = Record::new(self.now, request, "server", Action::RotateBarrier, Outcome::Ok);
        if let Err(error) = self.audit.append(&Record { reason: &reason, ..bare }).await {
            tracing::error!(%error, "{reason}; it is not recorded");
        }
    }
}

/// Records a change that stands without a record of its own.
pub(crate) fn record_lost(audit: &dyn AuditSink, now: Timestamp, change: &ChangeRow) -> BoxFuture<'static, Result<(), AuditError>> {
    let reason = format!("{} by {} was committed and its record was lost", change.what, change.actor);
    let subjects = [AuditSubject { key: &change.target, versions: &[] }];
    let bare = Record::new(now, change.request_id, "server", Action::Reconcile, Outcome::Ok);
    audit.append(&Record { subjects: &subjects, reason: &reason, revision: Some(change.revision), ..bare })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn element(n: u8) -> DigestDelta {
        let mut element = DigestDelta::default();
        element.0[..32].fill(n);
        element
    }

    fn suspects(forms: u8) -> Vec<Suspect> {
        let suspect = |n: u8| Suspect { of: None, stands: element(n), as_it_was: (1..=forms).map(|f| element(100 + n * 7 + f)).collect() };
        (0..10).map(suspect).collect()
    }

    #[test]
    fn damaged_macs_explain_a_sum_and_nothing_else_does() {
        let all = suspects(2);
        let sum = all.iter().fold(DigestDelta::default(), |sum, s| add(sum, s.stands));
        let one_mended = add(add(sum, negate(all[3].stands)), all[3].as_it_was[1]);
        let found = explain(sum, &all, one_mended, &mut { COMBINATIONS }).unwrap();
        assert_eq!(found.iter().map(|(s, was)| (s.stands, *was)).collect::<Vec<_>>(), [(all[3].stands, all[3].as_it_was[1])]);
        let removed_row = add(sum, DigestDelta([0x5a; 64]));
        assert!(explain(sum, &all, removed_row, &mut { COMBINATIONS }).is_none());
    }

    #[test]
    fn what_takes_too_many_combinations_is_not_explained() {
        let all = suspects(9);
        let mut left = COMBINATIONS;
        assert!(explain(DigestDelta::default(), &all, DigestDelta([0x5a; 64]), &mut left).is_none());
        assert_eq!(left, 0);
    }
}
