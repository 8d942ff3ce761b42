//! Use cases that look at many keys or at one key's past: list, search, poll, watch, explain, reach, history.

use crate::feed::{Subscription, WatchScope};
use crate::keys::{AllowedBy, permitted};
use crate::memory::{Slot, Tables};
use crate::start::Engine;
use crate::{Entry, Error, Note, Surface};
use claviger_domain::audit::{Action, Subject};
use claviger_domain::{Caller, Capabilities, Capability, Grant, Identity, KeyId, KeyMeta, Prefix, RequestId, Revision, cap, explain};
use std::ops::Bound;
use std::sync::Arc;

/// Keys looked at under one hold of the memory's lock.
pub(crate) const STEP: usize = 1000;

/// Who may know: everyone who is authenticated, where an imitated protocol forces that, or those with a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disclosure {
    /// Everyone (contract knox §4.1, §4.5).
    Everyone,
    /// Who has a right.
    Permitted,
}

/// Which keys a listing wants.
#[derive(Debug, Clone, Default)]
pub struct Pattern {
    /// Ids start with this text.
    pub prefix: String,
    /// All of these labels with these values.
    pub labels: Vec<(String, String)>,
    /// Only ids after this one.
    pub after: Option<KeyId>,
}

/// One listed key.
#[derive(Debug)]
pub struct Listed {
    /// The key.
    pub entry: Arc<Entry>,
    /// What the caller may do with it.
    pub allowed: Capabilities,
}

/// A page of a listing.
#[derive(Debug)]
pub struct KeyPage {
    /// In order of ids.
    pub keys: Vec<Listed>,
    /// Where the next page starts; none after the last.
    pub next: Option<KeyId>,
    /// The revision that the page shows at least.
    pub revision: Revision,
}

/// A key that a principal reaches.
pub type Reached = Listed;

impl Pattern {
    fn wants(&self, meta: &KeyMeta) -> bool {
        self.labels.iter().all(|(name, value)| meta.labels.find(name) == Some(value))
    }
}

/// Whether a question about `asked` is one about `mine`: made up with other groups it would be about what others are given.
fn is_within(asked: &Identity, mine: &Identity) -> bool {
    match (asked, mine) {
        (Identity::User { name, groups }, Identity::User { name: my_name, groups: my_groups }) => {
            name == my_name && groups.iter().all(|g| my_groups.contains(g))
        }
        _ => asked == mine,
    }
}

/// The next keys of a pattern that `caller` has a right on, at most `limit`, looking at no more than [`STEP`].
/// Returns where to go on, if there may be more.
fn step(
    tables: &Tables,
    pattern: &Pattern,
    after: Option<&KeyId>,
    caller: &Caller,
    limit: usize,
    found: &mut Vec<Listed>,
) -> Option<KeyId> {
    let from = match after {
        Some(id) => Bound::Excluded(id.as_str()),
        None => Bound::Included(pattern.prefix.as_str()),
    };
    let below = tables.order.range::<str, _>((from, Bound::Unbounded)).take_while(|id| id.as_str().starts_with(&pattern.prefix));
    for (looked, id) in below.enumerate() {
        if let Some(Slot::Good(entry)) = tables.keys.get(id)
            && pattern.wants(&entry.meta)
        {
            let allowed = tables.permits(caller, entry);
            if !allowed.is_empty() {
                found.push(Listed { entry: entry.clone(), allowed });
            }
        }
        if found.len() == limit || looked + 1 == STEP {
            return Some(id.clone());
        }
    }
    None
}

/// The ids after `after` that are wanted, looking at no more than [`STEP`]. Returns where to go on, if there may be more.
fn ids_step(tables: &Tables, after: Option<&KeyId>, wanted: impl Fn(&Tables, &KeyId) -> bool, found: &mut Vec<KeyId>) -> Option<KeyId> {
    let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_str()));
    let mut last = None;
    let mut looked = 0;
    for id in tables.order.range::<str, _>((from, Bound::Unbounded)).take(STEP) {
        if wanted(tables, id) {
            found.push(id.clone());
        }
        (last, looked) = (Some(id), looked + 1);
    }
    last.filter(|_| looked == STEP).cloned()
}

impl Engine {
    async fn search(&self, pattern: &Pattern, caller: &Caller, limit: usize) -> KeyPage {
        let mut keys = Vec::new();
        let mut next = pattern.after.clone();
        loop {
            next = self.memory.read(|t| step(t, pattern, next.as_ref(), caller, limit, &mut keys));
            if next.is_none() || keys.len() >= limit {
                return KeyPage { keys, next, revision: self.revision() };
            }
            tokio::task::yield_now().await;
        }
    }

    /// The keys that match `pattern` and that `caller` has any right on.
    ///
    /// # Errors
    /// The audit log's failure.
    pub async fn list(&self, caller: &Caller, surface: Surface, pattern: &Pattern, limit: usize) -> Result<KeyPage, Error> {
        let page = self.search(pattern, caller, limit).await;
        self.done(&Note { caller, surface, action: Action::List, subjects: &[] }, Some(page.revision), None).await?;
        Ok(page)
    }

    /// All ids, as Knox lists them: everyone's, or only those that `caller` can read. `want` narrows by the id.
    ///
    /// # Errors
    /// The audit log's failure.
    pub async fn list_ids(
        &self,
        caller: &Caller,
        surface: Surface,
        disclosure: Disclosure,
        want: impl Fn(&KeyId) -> bool,
    ) -> Result<Vec<KeyId>, Error> {
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let wanted = |t: &Tables, id: &KeyId| want(id) && t.discloses(disclosure, caller, id);
            after = self.memory.read(|t| ids_step(t, after.as_ref(), wanted, &mut ids));
            if after.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.done(&Note { caller, surface, action: Action::List, subjects: &[] }, Some(self.revision()), None).await?;
        Ok(ids)
    }

    /// Which of the asked-for keys exist and differ, as `differs` judges with the value that came with each.
    ///
    /// # Errors
    /// The audit log's failure.
    pub async fn poll<'q>(
        &self,
        caller: &Caller,
        surface: Surface,
        disclosure: Disclosure,
        mut asked: impl Iterator<Item = (&'q str, &'q [u8])>,
        differs: impl Fn(&KeyMeta, &[u8]) -> bool,
    ) -> Result<Vec<KeyId>, Error> {
        let mut changed = Vec::new();
        loop {
            let part: Vec<_> = asked.by_ref().take(STEP).collect();
            self.memory.read(|t| {
                let hit = |(id, value): (&str, &[u8])| {
                    let entry = t.find(id).ok()?;
                    let told = differs(&entry.meta, value) && t.discloses(disclosure, caller, &entry.meta.id);
                    told.then(|| entry.meta.id.clone())
                };
                changed.extend(part.iter().copied().filter_map(hit));
            });
            if part.len() < STEP {
                break;
            }
            tokio::task::yield_now().await;
        }
        let subjects: Vec<_> = changed.iter().map(Subject::key).collect();
        self.done(&Note { caller, surface, action: Action::Poll, subjects: &subjects }, Some(self.revision()), None).await?;
        Ok(changed)
    }

    /// A key's record and what `caller` may do with it. Any right is enough.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn inspect(&self, caller: &Caller, surface: Surface, id: &str) -> Result<Listed, Error> {
        let subjects = [Subject { key: id, versions: &[] }];
        let note = Note { caller, surface, action: Action::Inspect, subjects: &subjects };
        let found = self.memory.read(|t| {
            let entry = t.find_for(caller, id)?;
            match t.permits(caller, entry) {
                none if none.is_empty() => Err(Error::Denied(crate::Refusal::Unseen)),
                allowed => Ok(Listed { entry: entry.clone(), allowed }),
            }
        });
        match found {
            Ok(listed) => self.done(&note, Some(listed.entry.revision), None).await.map(|()| listed),
            Err(error) => Err(self.refuse(&note, error).await),
        }
    }

    /// Why `subject` may do what on a key: each grant that reaches him, the prefix it stands on (none: the key itself),
    /// and what of it counts. Whoever has a right may ask about himself; about others, administrators.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn explain(
        &self,
        caller: &Caller,
        surface: Surface,
        id: &str,
        subject: &Caller,
    ) -> Result<Vec<(Option<Prefix>, Grant, Capabilities)>, Error> {
        let subjects = [Subject { key: id, versions: &[] }];
        let note = Note { caller, surface, action: Action::ShowRights, subjects: &subjects };
        let himself = subject.identities().all(|i| caller.identities().any(|mine| is_within(i, mine)));
        let why = self.memory.read(|t| {
            let entry = match himself {
                true => t
                    .find_for(caller, id)
                    .cloned()
                    .and_then(|e| if t.permits(caller, &e).is_empty() { Err(Error::Denied(crate::Refusal::Unseen)) } else { Ok(e) })?,
                false => permitted::<cap::Admin>(t, caller, id)?.0,
            };
            let all = explain(subject, &entry.meta, t.covering(&entry.meta.id));
            Ok(all.into_iter().map(|r| (r.prefix.cloned(), r.grant.clone(), r.counts)).collect::<Vec<_>>())
        });
        match why {
            Ok(why) => self.done(&note, Some(self.revision()), None).await.map(|()| why),
            Err(error) => Err(self.refuse(&note, error).await),
        }
    }

    /// What `subject` reaches below `pattern`; takes the right to administer the prefix asked about.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn reach(
        &self,
        caller: &Caller,
        surface: Surface,
        prefix: &Prefix,
        pattern: &Pattern,
        subject: &Caller,
        limit: usize,
    ) -> Result<KeyPage, Error> {
        let note = Note { caller, surface, action: Action::ShowRights, subjects: &[] };
        if let Err(error) = self.require_prefix_admin(caller, prefix) {
            return Err(self.refuse(&note, error).await);
        }
        let page = self.search(pattern, subject, limit).await;
        self.done(&note, Some(page.revision), None).await?;
        Ok(page)
    }

    /// A key's earlier records with the revision that replaced each, newest first. Takes the right to administer.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn history(&self, caller: &Caller, surface: Surface, id: &str, limit: u32) -> Result<Vec<(KeyMeta, Revision)>, Error> {
        let subjects = [Subject { key: id, versions: &[] }];
        let note = Note { caller, surface, action: Action::History, subjects: &subjects };
        match self.past(caller, id, limit).await {
            Ok((past, allowed_by)) => self.done_by(&note, Some(self.revision()), None, allowed_by.as_deref()).await.map(|()| past),
            Err(error) => Err(self.refuse(&note, error).await),
        }
    }

    async fn past(&self, caller: &Caller, id: &str, limit: u32) -> Result<(Vec<(KeyMeta, Revision)>, AllowedBy), Error> {
        let (_, permit) = self.permit::<cap::Admin>(caller, id).await?;
        let rows = self.store.history(permit.key(), limit).await?;
        let ring = self.ring();
        let open = |(row, replaced)| match ring.open_key(&row) {
            Ok(meta) => Ok((meta, replaced)),
            Err(why) => Err(Error::Damaged { id: id.to_owned(), why: why.to_string() }),
        };
        let past = rows.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok((past, permit.allowed_by().cloned()))
    }

    /// Follows changes in `scope` from after `since`, or from now.
    ///
    /// # Errors
    /// The audit log's failure.
    pub async fn watch(
        &self,
        caller: &Caller,
        surface: Surface,
        scope: WatchScope,
        since: Option<Revision>,
    ) -> Result<Subscription, Error> {
        let names: Vec<String> = scope.prefixes.iter().map(|p| format!("{p}*")).collect();
        let subjects: Vec<_> =
            scope.ids.iter().map(KeyId::as_str).chain(names.iter().map(String::as_str)).map(|key| Subject { key, versions: &[] }).collect();
        self.done(&Note { caller, surface, action: Action::Watch, subjects: &subjects }, Some(self.revision()), None).await?;
        Ok(self.feed.subscribe(scope, since, self.revision()))
    }

    /// When a key that `caller` had a right on was deleted, if there is no key of this id now: for those who follow it
    /// and were away. What it tells is covered by the record of the following.
    #[must_use]
    pub fn deleted_at(&self, caller: &Caller, id: &KeyId) -> Option<Revision> {
        self.memory.read(|t| match t.find_for(caller, id.as_str()) {
            Err(Error::Deleted { revision, .. }) => Some(revision),
            _ => None,
        })
    }

    /// Waits until memory shows `revision`, at most `patience`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not come.
    pub async fn reached(&self, revision: Revision, patience: std::time::Duration) -> Result<(), Error> {
        let wait = async {
            while self.revision() < revision {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        let late = |_| Error::Unavailable(format!("this server is at revision {} and has not seen {revision}; try again", self.revision()));
        tokio::time::timeout(patience, wait).await.map_err(late)
    }

    /// A caller made up to ask what someone could do; it never acts.
    #[must_use]
    pub fn hypothetical(identity: claviger_domain::Identity) -> Caller {
        let proven = claviger_domain::Proven { identity, method: "hypothetical" };
        Caller::new(Arc::from([proven]), RequestId(0), None).expect("one identity was given")
    }
}

impl Tables {
    fn discloses(&self, disclosure: Disclosure, caller: &Caller, id: &KeyId) -> bool {
        match disclosure {
            Disclosure::Everyone => true,
            Disclosure::Permitted => {
                self.find(id.as_str()).is_ok_and(|e| e.meta.kind.is_read() && self.permits(caller, e).contains(Capability::Read))
            }
        }
    }
}
