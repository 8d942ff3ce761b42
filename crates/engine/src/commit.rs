//! Group commit: writes that wait together commit together, become visible in revision order, and are then answered.

use crate::approvals::Held;
use crate::feed::{Event, KeyState, Subject};
use crate::memory::{Entry, Granted, Grave, Memory, Slot};
use crate::start::{Contents, Engine, load_and_blame, record_lost};
use crate::{Conflict, Error};
use claviger_crypto::{Head, KeyRing, Tombstone, add, random};
use claviger_domain::{ApprovalId, Clock, KeyId, Prefix, PrefixGrant, Revision};
use claviger_ports::{AuditSink, ChangeRow, CommitOutcome, DigestDelta, HeadError, HeadRow, HeadSealer, Store, StoreError, Write};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Pause after the first attempt to find out what became of a commit; each further one is twice as long, since each attempt
/// reads the whole store.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Writes taken into one commit at most. Larger batches gain nothing and make the last one wait.
const BATCH: usize = 256;

/// What memory does when a write has taken place. The entry's revision is filled in then.
pub(crate) enum Apply {
    Put(Box<Entry>),
    Delete(Box<Tombstone>),
    PutGrant(Box<PrefixGrant>, DigestDelta),
    DeleteGrant(Prefix),
    PutApproval(Box<Held>),
    DropApproval(ApprovalId),
}

/// A write on its way, and who waits for it.
pub(crate) struct Pending {
    pub(crate) write: Write,
    pub(crate) apply: Apply,
    /// The approval that it rests on, as it is afterwards.
    pub(crate) uses: Option<Held>,
    pub(crate) done: Waiter,
}

/// Makes heads: the callback that the store is handed.
pub(crate) struct Sealer {
    pub(crate) ring: Arc<RwLock<Arc<KeyRing>>>,
    pub(crate) audit: Arc<dyn AuditSink>,
    /// This start's epoch. All that it commits is numbered in it.
    pub(crate) epoch: u64,
    /// The last head that was made: by it a commit whose answer was lost is found in the store.
    pub(crate) last: Mutex<Option<Attempt>>,
}

/// A head on its way into the store.
#[derive(Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) commit_id: [u8; 16],
    /// The revision of the head that it replaces.
    pub(crate) before: Revision,
}

impl HeadSealer for Sealer {
    fn epoch(&self, current: Revision) -> u64 {
        self.epoch.max(current.epoch)
    }

    fn advance(&self, current: &HeadRow, gained: &[DigestDelta]) -> Result<HeadRow, HeadError> {
        self.seal_next(current, |sum| gained.iter().fold(sum, |sum, g| add(sum, *g)), gained.len() as u64)
    }
}

impl Sealer {
    /// The head `writes` writes after `current`, with the sums that `digest` makes of its.
    pub(crate) fn seal_next(
        &self,
        current: &HeadRow,
        digest: impl Fn(DigestDelta) -> DigestDelta,
        writes: u64,
    ) -> Result<HeadRow, HeadError> {
        let ring = self.ring.read().clone();
        let head = ring.open_head(current).map_err(|e| HeadError(e.to_string()))?;
        let commit_id = random();
        *self.last.lock() = Some(Attempt { commit_id, before: head.revision });
        Ok(ring.seal_head(&Head {
            revision: Revision { epoch: self.epoch(head.revision), number: head.revision.number + writes },
            commit_id,
            digest: digest(head.digest),
            checkpoint: self.audit.checkpoint().or(head.checkpoint),
        }))
    }
}

/// The task that commits. Ends when the engine is dropped.
pub(crate) struct Committer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) sealer: Sealer,
    pub(crate) memory: Arc<Memory>,
    pub(crate) feed: Arc<crate::feed::Feed>,
    pub(crate) inline_limit: usize,
    pub(crate) accept_tampering: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) queue: mpsc::Receiver<Pending>,
    pub(crate) counts: Arc<Counts>,
}

/// What has been committed since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    commits: AtomicU64,
    writes: AtomicU64,
    in_doubt: AtomicBool,
}

/// What has been committed since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitCounts {
    /// Transactions.
    pub commits: u64,
    /// Changes in them.
    pub writes: u64,
}

/// Who waits for a change.
type Waiter = oneshot::Sender<Result<Revision, Error>>;

/// A commit of which the store did not say what became.
struct Doubt {
    /// Its changes in their order, and who waits for each; nobody any more after the first attempt to find out.
    tried: Vec<(ChangeRow, Option<Waiter>)>,
    /// Its head; none when it came to none, and wrote nothing.
    attempt: Option<Attempt>,
    /// What the store said.
    error: StoreError,
    /// Not to be asked about before.
    next: Instant,
    pause: Duration,
}

/// What became of a doubtful commit.
enum Verdict {
    /// It stands; each of its changes took place or was a conflict.
    Stands(Vec<CommitOutcome>),
    /// It did not take place.
    Fell,
    /// Somebody else has written since.
    Unclear,
}

impl Committer {
    pub(crate) async fn run(mut self) {
        let mut waiting = Vec::with_capacity(BATCH);
        // While there is one, memory is not known to be what the store has, and nothing is committed.
        let mut doubt = None;
        loop {
            let received = self.queue.recv_many(&mut waiting, BATCH);
            let count = match &doubt {
                None => Ok(received.await),
                Some(Doubt { next, .. }) => tokio::time::timeout_at(*next, received).await,
            };
            if count == Ok(0) {
                break;
            }
            if let Some(open) = doubt.take() {
                doubt = self.settle(open).await;
            }
            let batch = std::mem::take(&mut waiting);
            match &doubt {
                Some(_) => refuse(batch),
                None => {
                    if let Some(open) = self.commit(batch).await {
                        doubt = self.settle(open).await;
                    }
                }
            }
        }
        self.store.close().await;
    }

    /// Commits a batch and answers it, unless it is not known what became of it.
    async fn commit(&self, batch: Vec<Pending>) -> Option<Doubt> {
        if batch.is_empty() {
            return None;
        }
        let (writes, rest): (Vec<_>, Vec<_>) = batch.into_iter().map(|p| (p.write, (p.apply, p.uses, p.done))).unzip();
        self.sealer.last.lock().take();
        let outcomes = match self.store.commit(&writes, &self.sealer).await {
            Ok(outcomes) => outcomes,
            Err(error) => return self.fail(&writes, rest, error),
        };
        self.counts.commits.fetch_add(1, Ordering::Relaxed);
        self.counts.writes.fetch_add(writes.len() as u64, Ordering::Relaxed);
        let mut events = Vec::with_capacity(rest.len());
        let mut answers = Vec::with_capacity(rest.len());
        self.memory.write(|tables| {
            for ((write, (apply, uses, done)), outcome) in writes.iter().zip(rest).zip(outcomes) {
                let answer = match outcome {
                    CommitOutcome::Conflict => Err(Error::Conflict(Conflict::Changed)),
                    CommitOutcome::Done(revision) => {
                        events.push(apply_to(tables, apply, revision, write.change.what, self.inline_limit));
                        if let Some(held) = uses {
                            tables.approvals.insert(held.approval.id, Arc::new(Held { revision, ..held }));
                        }
                        Ok(revision)
                    }
                };
                answers.push((done, answer));
            }
        });
        self.feed.publish(events);
        for (done, answer) in answers {
            // A caller that has gone away does not need the answer; its change stands.
            let _ = done.send(answer);
        }
        None
    }

    /// Answers a batch that failed. Where it is not known what became of it, nothing that it touches is served any more: a
    /// right that it took away may be gone.
    fn fail(&self, writes: &[Write], rest: Vec<(Apply, Option<Held>, Waiter)>, error: StoreError) -> Option<Doubt> {
        tracing::error!(%error, "a commit of {} changes failed", rest.len());
        let (applies, waiters): (Vec<_>, Vec<_>) = rest.into_iter().map(|(apply, _, done)| (apply, done)).unzip();
        if !matches!(error, StoreError::Unknown(_)) {
            for done in waiters {
                let _ = done.send(Err(error.clone().into()));
            }
            return None;
        }
        self.memory.write(|tables| {
            writes.iter().for_each(|write| tables.doubt(&write.target));
            for apply in applies {
                if let Apply::Put(entry) = apply {
                    tables.doubt_making(*entry);
                }
            }
        });
        self.counts.in_doubt.store(true, Ordering::Release);
        let tried = writes.iter().map(|write| write.change_row(Revision::default())).zip(waiters.into_iter().map(Some)).collect();
        Some(Doubt { tried, attempt: self.sealer.last.lock().take(), error, next: Instant::now(), pause: PAUSE })
    }

    /// Reads memory anew where it is time, and says what became of the commit. Gives the doubt back where that is not known
    /// yet; whoever waits is told so then, and does not wait for another attempt.
    async fn settle(&self, mut doubt: Doubt) -> Option<Doubt> {
        if Instant::now() < doubt.next {
            return Some(doubt);
        }
        let failed = match self.find_out(&doubt).await {
            Ok((loaded, verdict)) => {
                tracing::info!(revision = %loaded.report.revision, "what became of the commit is known");
                let revision = loaded.report.revision;
                self.memory.write(|tables| *tables = loaded.tables);
                self.feed.compact(revision);
                self.counts.in_doubt.store(false, Ordering::Release);
                self.answer(doubt, verdict).await;
                return None;
            }
            Err(failed) => failed,
        };
        tracing::error!(error = %failed, "what became of a commit is not known yet");
        for waiter in doubt.tried.iter_mut().filter_map(|(_, waiter)| waiter.take()) {
            let _ = waiter.send(Err(doubt.error.clone().into()));
        }
        doubt.next = Instant::now() + doubt.pause;
        doubt.pause = (doubt.pause * 2).min(LONGEST_PAUSE);
        Some(doubt)
    }

    async fn find_out(&self, doubt: &Doubt) -> Result<(Contents, Verdict), Error> {
        let ring = self.sealer.ring.read().clone();
        let mut contents = load_and_blame(&*self.store, &ring, self.inline_limit).await?;
        if contents.report.tampered && !self.accept_tampering {
            return Err(Error::Internal("rows of the store were changed behind Claviger's back; nothing is committed any more".to_owned()));
        }
        let verdict = self.judge(doubt, &contents.head).await?;
        if self.accept_tampering {
            contents.accept(&*self.store, &self.sealer, self.clock.now()).await?;
        }
        Ok((contents, verdict))
    }

    async fn judge(&self, doubt: &Doubt, head: &Head) -> Result<Verdict, Error> {
        let Some(Attempt { commit_id, before }) = doubt.attempt else { return Ok(Verdict::Fell) };
        if commit_id == head.commit_id {
            let limit = u32::try_from(doubt.tried.len()).unwrap_or(u32::MAX);
            let changes = self.store.changes(before, limit).await?;
            return Ok(Verdict::Stands(outcomes(doubt.tried.iter().map(|(row, _)| row), &changes)));
        }
        Ok(if head.revision == before { Verdict::Fell } else { Verdict::Unclear })
    }

    async fn answer(&self, doubt: Doubt, verdict: Verdict) {
        let Doubt { tried, error, .. } = doubt;
        match verdict {
            Verdict::Stands(outcomes) => {
                for ((row, waiter), outcome) in tried.into_iter().zip(outcomes) {
                    let answer = outcome.revision().ok_or(Error::Conflict(Conflict::Changed));
                    match (waiter, answer) {
                        (Some(waiter), answer) => drop(waiter.send(answer)),
                        (None, Ok(revision)) => self.record(&ChangeRow { revision, ..row }).await,
                        (None, Err(_)) => {}
                    }
                }
            }
            Verdict::Fell => {
                let why = format!("the store failed, and nothing was changed: {error}");
                tried.into_iter().filter_map(|(_, waiter)| waiter).for_each(|w| drop(w.send(Err(Error::Unavailable(why.clone())))));
            }
            Verdict::Unclear => {
                tried.into_iter().filter_map(|(_, waiter)| waiter).for_each(|w| drop(w.send(Err(error.clone().into()))));
            }
        }
    }

    /// Records a change that stands and that its caller was not told of: his own record says that it failed.
    async fn record(&self, change: &ChangeRow) {
        if let Err(error) = record_lost(&*self.sealer.audit, self.clock.now(), change).await {
            tracing::error!(%error, "a change at {} has no record; the next start makes one", change.revision);
        }
    }
}

/// How each change of a commit that stands ended, by what the change table says: those that took place are in it, in order.
fn outcomes<'a>(tried: impl Iterator<Item = &'a ChangeRow>, changes: &[ChangeRow]) -> Vec<CommitOutcome> {
    let mut done = changes.iter().peekable();
    tried
        .map(|row| {
            let is_it = |change: &&ChangeRow| **change == ChangeRow { revision: change.revision, ..row.clone() };
            done.next_if(is_it).map_or(CommitOutcome::Conflict, |change| CommitOutcome::Done(change.revision))
        })
        .collect()
}

/// Answers changes that are not tried.
fn refuse(batch: Vec<Pending>) {
    for Pending { done, .. } in batch {
        let why = "the store does not say what became of an earlier change; nothing was changed, try again later";
        let _ = done.send(Err(Error::Unavailable(why.to_owned())));
    }
}

fn apply_to(tables: &mut crate::memory::Tables, apply: Apply, revision: Revision, what: &'static str, inline_limit: usize) -> Event {
    tables.revision = revision;
    let subject = match apply {
        Apply::Put(entry) => {
            let id = entry.meta.id.clone();
            let before = good(tables, &id);
            let born = before.as_ref().filter(|b| b.meta.incarnation == entry.meta.incarnation).map_or(revision, |b| b.born);
            let mut entry = Entry { revision, born, ..*entry };
            entry.slim(inline_limit);
            let after = KeyState::of(&entry.meta);
            tables.put(id.clone(), Slot::Good(Arc::new(entry)));
            let before = before.map(|b| KeyState::of(&b.meta));
            Subject::Key { grants: tables.covering_now(&id), id, before, after: Some(after) }
        }
        Apply::Delete(tombstone) => {
            let id = tombstone.key.id.clone();
            let before = good(tables, &id);
            // Of a record that cannot be read the tombstone knows who read it by a prefix.
            let state = || KeyState { acl: tombstone.acl.clone(), separate_duties: false, is_read: false, etag: (0, 0) };
            let as_told = tables.keys.contains_key(&id).then(state);
            tables.remove(&id);
            let known = tables.graves.get(&id).map(|g| g.born).or(before.as_ref().map(|b| b.born));
            let grave = Grave { tombstone: *tombstone, revision, born: known.unwrap_or_default() };
            tables.graves.insert(id.clone(), Arc::new(grave));
            let before = before.map(|b| KeyState::of(&b.meta)).or(as_told);
            Subject::Key { grants: tables.covering_now(&id), id, before, after: None }
        }
        Apply::PutGrant(grant, digest) => {
            let after = Arc::new(*grant);
            tables.damaged_grants.remove(&after.prefix);
            tables.set_prefix_rules(&after.prefix, &after.rules);
            let before = tables.grants.insert(after.prefix.clone(), Granted { grant: after.clone(), digest });
            Subject::Prefix { prefix: after.prefix.clone(), before: before.map(|g| g.grant), after: Some(after) }
        }
        Apply::DeleteGrant(prefix) => {
            tables.damaged_grants.remove(&prefix);
            tables.prefix_rules.remove(&prefix);
            let before = tables.grants.remove(&prefix).map(|g| g.grant);
            Subject::Prefix { prefix, before, after: None }
        }
        Apply::PutApproval(held) => {
            let id = held.approval.id;
            tables.approvals.insert(id, Arc::new(Held { revision, ..*held }));
            Subject::Approval(id)
        }
        Apply::DropApproval(id) => {
            tables.approvals.remove(&id);
            Subject::Approval(id)
        }
    };
    Event { revision, what, subject }
}

/// The record that stands, if it is whole.
fn good(tables: &crate::memory::Tables, id: &KeyId) -> Option<Arc<Entry>> {
    match tables.keys.get(id)? {
        Slot::Good(entry) | Slot::Doubtful(entry) => Some(entry.clone()),
        Slot::Damaged(wreck) => wreck.entry.clone(),
    }
}

impl Engine {
    /// How much was committed since the start.
    #[must_use]
    pub fn commit_counts(&self) -> CommitCounts {
        CommitCounts { commits: self.counts.commits.load(Ordering::Relaxed), writes: self.counts.writes.load(Ordering::Relaxed) }
    }

    /// Whether the store did not say what became of a commit: nothing is committed, and nothing that it touched is served.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.counts.in_doubt.load(Ordering::Acquire)
    }

    /// Hands a write to the committer and waits until it is durable and visible.
    pub(crate) async fn submit(&self, write: Write, apply: Apply) -> Result<Revision, Error> {
        self.enqueue(write, apply, None).await?.await
    }

    /// As [`Engine::submit`], for a change that rests on an approval or is free.
    pub(crate) async fn submit_cleared(&self, write: Write, apply: Apply, cleared: &crate::approvals::Cleared) -> Result<Revision, Error> {
        let (write, uses) = cleared.attach(write);
        self.enqueue(write, apply, uses).await?.await
    }

    /// Hands a write to the committer; what comes of it is the second result.
    pub(crate) async fn enqueue(
        &self,
        write: Write,
        apply: Apply,
        uses: Option<Held>,
    ) -> Result<impl Future<Output = Result<Revision, Error>> + use<>, Error> {
        if self.audit.is_short_of_space() {
            let why = "the audit log has only its reserve left, which is kept for reads; nothing was changed: free some space first";
            return Err(Error::Full(why.to_owned()));
        }
        let (done, answer) = oneshot::channel();
        let stopped = || Error::Unavailable("the server is shutting down; nothing was changed".to_owned());
        self.queue.send(Pending { write, apply, uses, done }).await.map_err(|_| stopped())?;
        let unconfirmed = "the server stopped before the change was confirmed; read before you repeat it";
        Ok(async move { answer.await.map_err(|_| Error::Unavailable(unconfirmed.to_owned()))? })
    }
}
