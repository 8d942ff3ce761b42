//! Group commit: writes that wait together commit together, become visible in revision order, and are then answered.

use crate::feed::{Event, Subject};
use crate::memory::{Entry, Granted, Grave, Memory, Slot};
use crate::start::{Contents, Engine, load_and_blame};
use crate::{Conflict, Error};
use claviger_crypto::{Head, KeyRing, Tombstone, add, random};
use claviger_domain::{Clock, KeyId, Prefix, PrefixGrant, Revision};
use claviger_ports::{AuditSink, CommitOutcome, DigestDelta, HeadError, HeadRow, HeadSealer, Store, StoreError, Write};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Pause between attempts to find out what became of a commit.
const RETRY: Duration = Duration::from_millis(250);

/// Writes taken into one commit at most. Larger batches gain nothing and make the last one wait.
const BATCH: usize = 256;

/// What memory does when a write has taken place. The entry's revision is filled in then.
pub(crate) enum Apply {
    Put(Box<Entry>),
    Delete(Box<Tombstone>),
    PutGrant(Box<PrefixGrant>, DigestDelta),
    DeleteGrant(Prefix),
}

/// A write on its way, and who waits for it.
pub(crate) struct Pending {
    pub(crate) write: Write,
    pub(crate) apply: Apply,
    pub(crate) done: oneshot::Sender<Result<Revision, Error>>,
}

/// Makes heads: the callback that the store is handed.
pub(crate) struct Sealer {
    pub(crate) ring: Arc<RwLock<Arc<KeyRing>>>,
    pub(crate) audit: Arc<dyn AuditSink>,
}

impl HeadSealer for Sealer {
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
        Ok(ring.seal_head(&Head {
            revision: Revision { number: head.revision.number + writes, ..head.revision },
            commit_id: random(),
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
}

/// What has been committed since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitCounts {
    /// Transactions.
    pub commits: u64,
    /// Changes in them.
    pub writes: u64,
}

impl Committer {
    pub(crate) async fn run(mut self) {
        let mut waiting = Vec::with_capacity(BATCH);
        // Whether memory is known to be what the store has.
        let mut settled = true;
        loop {
            let received = self.queue.recv_many(&mut waiting, BATCH);
            let count = if settled { Ok(received.await) } else { tokio::time::timeout(RETRY, received).await };
            if count == Ok(0) {
                break;
            }
            settled = settled || self.reload().await;
            let batch = std::mem::take(&mut waiting);
            if settled {
                settled = self.commit(batch).await;
            } else {
                refuse(batch);
            }
        }
        self.store.close().await;
    }

    /// False when what it did is not known.
    async fn commit(&self, batch: Vec<Pending>) -> bool {
        if batch.is_empty() {
            return true;
        }
        let (writes, rest): (Vec<_>, Vec<_>) = batch.into_iter().map(|p| (p.write, (p.apply, p.done))).unzip();
        let outcomes = match self.store.commit(&writes, &self.sealer).await {
            Ok(outcomes) => outcomes,
            Err(error) => return self.fail(rest, &error).await,
        };
        self.counts.commits.fetch_add(1, Ordering::Relaxed);
        self.counts.writes.fetch_add(writes.len() as u64, Ordering::Relaxed);
        let mut events = Vec::with_capacity(rest.len());
        let mut answers = Vec::with_capacity(rest.len());
        self.memory.write(|tables| {
            for ((write, (apply, done)), outcome) in writes.iter().zip(rest).zip(outcomes) {
                let answer = match outcome {
                    CommitOutcome::Conflict => Err(Error::Conflict(Conflict::Changed)),
                    CommitOutcome::Done(revision) => {
                        events.push(apply_to(tables, apply, revision, write.change.what, self.inline_limit));
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
        true
    }

    /// Answers a batch that failed. The callers do not wait for more than one attempt to find out what became of it.
    async fn fail(&self, rest: Vec<(Apply, oneshot::Sender<Result<Revision, Error>>)>, error: &StoreError) -> bool {
        tracing::error!(%error, "a commit of {} changes failed", rest.len());
        let settled = !matches!(error, StoreError::Unknown(_)) || self.reload().await;
        for (_, done) in rest {
            let _ = done.send(Err(error.clone().into()));
        }
        settled
    }

    /// After a commit of unknown outcome only the store knows what is true: memory is read anew. False when that fails;
    /// until it succeeds memory serves what was known before, and nothing is committed.
    async fn reload(&self) -> bool {
        match self.load().await {
            Ok(loaded) if !loaded.report.tampered || self.accept_tampering => {
                self.memory.write(|tables| *tables = loaded.tables);
                self.feed.compact();
                tracing::info!(revision = %loaded.report.revision, "what became of the commit is known");
                true
            }
            Ok(_) => {
                tracing::error!("rows of the store were changed behind Claviger's back; nothing is committed any more");
                false
            }
            Err(error) => {
                tracing::error!(%error, "what became of a commit is not known yet");
                false
            }
        }
    }
}

impl Committer {
    async fn load(&self) -> Result<Contents, Error> {
        let ring = self.sealer.ring.read().clone();
        let contents = load_and_blame(&*self.store, &ring, self.inline_limit).await?;
        if self.accept_tampering {
            contents.accept(&*self.store, &self.sealer, self.clock.now()).await?;
        }
        Ok(contents)
    }
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
            let mut entry = Entry { revision, ..*entry };
            entry.slim(inline_limit);
            let after = Arc::new(entry);
            let before = good(tables, &id);
            tables.put(id.clone(), Slot::Good(after.clone()));
            Subject::Key { id, before, after: Some(after) }
        }
        Apply::Delete(tombstone) => {
            let id = tombstone.key.id.clone();
            let before = good(tables, &id);
            tables.remove(&id);
            tables.graves.insert(id.clone(), Arc::new(Grave { tombstone: *tombstone, revision }));
            Subject::Key { id, before, after: None }
        }
        Apply::PutGrant(grant, digest) => {
            let after = Arc::new(*grant);
            let before = tables.grants.insert(after.prefix.clone(), Granted { grant: after.clone(), digest });
            Subject::Prefix { prefix: after.prefix.clone(), before: before.map(|g| g.grant), after: Some(after) }
        }
        Apply::DeleteGrant(prefix) => {
            let before = tables.grants.remove(&prefix).map(|g| g.grant);
            Subject::Prefix { prefix, before, after: None }
        }
    };
    Event { revision, what, subject }
}

fn good(tables: &crate::memory::Tables, id: &KeyId) -> Option<Arc<Entry>> {
    tables.find(id.as_str()).ok().cloned()
}

impl Engine {
    /// How much was committed since the start.
    #[must_use]
    pub fn commit_counts(&self) -> CommitCounts {
        CommitCounts { commits: self.counts.commits.load(Ordering::Relaxed), writes: self.counts.writes.load(Ordering::Relaxed) }
    }

    /// Hands a write to the committer and waits until it is durable and visible.
    pub(crate) async fn submit(&self, write: Write, apply: Apply) -> Result<Revision, Error> {
        if self.audit.is_short_of_space() {
            let why = "the audit log has only its reserve left, which is kept for reads; nothing was changed: free some space first";
            return Err(Error::Full(why.to_owned()));
        }
        let (done, answer) = oneshot::channel();
        let stopped = || Error::Unavailable("the server is shutting down; nothing was changed".to_owned());
        self.queue.send(Pending { write, apply, done }).await.map_err(|_| stopped())?;
        answer
            .await
            .map_err(|_| Error::Unavailable("the server stopped before the change was confirmed; read before you repeat it".to_owned()))?
    }
}
