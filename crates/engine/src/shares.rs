//! Opening a share: reading a key with a token instead of a right, and using a view up first.
//!
//! # Guarantees
//! - A view is used up durably before its data leaves: of many who open at once as many get it as there are views, also over crashes ▲.
//!   A crash between the two loses a view; it never gives one twice.
//! - A wrong token, a share that has expired or was used up, and one that never was look alike, and use nothing up.

use crate::keys::choose;
use crate::start::Engine;
use crate::{Entry, Error, Note, Precondition, Select, Surface};
use claviger_domain::audit::{Action, Subject};
use claviger_domain::{
    Caller, Deed, ExternalAllow, KeyId, KeyMeta, Labels, Permit, RequestId, Revision, SecretBytes, VersionId, authorize, cap,
};
use std::ops::Bound;
use std::sync::Arc;

/// Lost races for a view that are tried again.
const TRIES: usize = 200;
/// Expired shares that are removed at once.
const SWEPT: usize = 1000;

/// What a share's key must be.
#[derive(Debug, Clone, Copy)]
pub struct ShareRule {
    /// What its id begins with.
    pub prefix: &'static str,
    /// The label with the number of views left.
    pub views: &'static str,
}

/// A share that was opened.
pub struct OpenedShare {
    /// What the token was good for.
    pub data: SecretBytes,
    /// Views that are left.
    pub left: u32,
}

impl ShareRule {
    /// The views that are left, if this is a share: a secret of that name with the label and an end.
    fn views_left(&self, meta: &KeyMeta) -> Option<u32> {
        let is_share = meta.id.as_str().starts_with(self.prefix) && meta.kind.is_read() && !meta.separate_duties;
        let has_end = meta.versions.primary().end_of_life(meta.max_lifetime).is_some();
        let views = meta.labels.find(self.views)?.parse().ok().filter(|views| *views > 0)?;
        (is_share && has_end).then_some(views)
    }
}

impl Engine {
    /// Opens a share for whoever shows its token. `redeem` gives what the stored value holds for that token, if it is the right one.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is nothing to open; any failure to use a view up. The refusal is recorded as well.
    pub async fn open_share(
        &self,
        caller: &Caller,
        surface: Surface,
        rule: ShareRule,
        id: &KeyId,
        redeem: impl Fn(&SecretBytes) -> Option<SecretBytes>,
    ) -> Result<OpenedShare, Error> {
        let note = |subjects| Note { caller, surface, action: Action::OpenShare, subjects };
        match self.take_view(caller, surface, rule, id, redeem).await {
            Ok((opened, version, revision)) => {
                let versions = [version];
                let subjects = [Subject { key: id.as_str(), versions: &versions }];
                self.done_by(&note(&subjects), Some(revision), None, Some("the share's token")).await?;
                Ok(opened)
            }
            Err(error) => Err(self.refuse(&note(&[Subject::key(id)]), error).await),
        }
    }

    async fn take_view(
        &self,
        caller: &Caller,
        surface: Surface,
        rule: ShareRule,
        id: &KeyId,
        redeem: impl Fn(&SecretBytes) -> Option<SecretBytes>,
    ) -> Result<(OpenedShare, VersionId, Revision), Error> {
        let missing = || Error::NotFound("a share that can be opened with this".to_owned());
        for _ in 0..TRIES {
            let entry = match self.memory.read(|t| t.find(id.as_str()).cloned()) {
                Ok(entry) => entry,
                Err(unsure @ Error::Unavailable(_)) => return Err(unsure),
                Err(_) => return Err(missing()),
            };
            let views = rule.views_left(&entry.meta).ok_or_else(missing)?;
            let word = ExternalAllow { by: Arc::from("the share's token") };
            let permit = authorize::<cap::Read>(caller, &entry.meta, [], Some(&word)).map_err(|_| missing())?;
            let (version, value) = self.open_primary(&entry, &permit).await?.ok_or_else(missing)?;
            let data = redeem(&value).ok_or_else(missing)?;
            drop(value);
            // What others must agree to does not go round them by a link ▲.
            let deeds = [Deed::Read { key: id.clone(), select: Select::Primary }, Deed::Delete { key: id.clone() }];
            if deeds.iter().any(|deed| self.is_guarded(deed, &entry.meta.rules)) {
                let rule = format!("to read or delete below `{}` needs approval, so no link opens there", rule.prefix);
                return Err(Error::invalid("id", rule));
            }
            let left = views - 1;
            match self.use_view(caller.request_id, surface, rule, &entry.meta, left).await {
                Ok(revision) => return Ok((OpenedShare { data, left }, version, revision)),
                // Somebody was faster; there may be another view.
                Err(Error::Conflict(_) | Error::NotFound(_) | Error::Deleted { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unavailable("too many open this share at once; try again".to_owned()))
    }

    /// The primary version's data; nothing where it has expired.
    async fn open_primary(&self, entry: &Entry, permit: &Permit<cap::Read>) -> Result<Option<(VersionId, SecretBytes)>, Error> {
        let Ok(chosen) = choose(&entry.meta, Select::Primary, self.now()) else { return Ok(None) };
        let Some(version) = chosen.first().map(|v| v.id) else { return Ok(None) };
        let damaged = |why: String| Error::Damaged { id: entry.meta.id.to_string(), why };
        let inline = entry.sealed(version).and_then(|sealed| Some((sealed.wrapped_key.clone(), sealed.data.clone()?)));
        let (wrapped, data) = match inline {
            Some(both) => both,
            None => Box::pin(self.stored(permit.key(), version)).await?,
        };
        let opened = self.ring().open_version(permit, entry.meta.kind, version, &wrapped, &data);
        opened.map(|plain| Some((version, plain))).map_err(|e| damaged(e.to_string()))
    }

    /// Leaves one view less, or nothing of the share, if it still is what it was.
    async fn use_view(&self, request: RequestId, surface: Surface, rule: ShareRule, meta: &KeyMeta, left: u32) -> Result<Revision, Error> {
        let system = Caller::system("a share was opened", request);
        let precondition = Precondition::Is(meta.incarnation, meta.generation);
        if left == 0 {
            return self.delete(&system, surface, meta.id.as_str(), precondition).await;
        }
        let fewer = |old: &KeyMeta| Ok(KeyMeta { labels: relabelled(&old.labels, rule.views, &left.to_string())?, ..old.clone() });
        self.change_meta(&system, surface, meta.id.as_str(), precondition, fewer).await.map(|changed| changed.revision)
    }

    /// Deletes shares that have expired, some at a time; how many.
    ///
    /// # Errors
    /// The first failure to delete one.
    pub async fn expire_shares(&self, rule: ShareRule, request: RequestId) -> Result<usize, Error> {
        let now = self.now();
        let expired: Vec<(KeyId, Precondition)> = self.memory.read(|t| {
            let below = t
                .order
                .range::<str, _>((Bound::Included(rule.prefix), Bound::Unbounded))
                .take_while(|id| id.as_str().starts_with(rule.prefix));
            // What others must agree to delete is deleted by nobody else, whatever it is labelled as ▲.
            let is_free = |e: &&Arc<Entry>| t.guarding(&Deed::Delete { key: e.meta.id.clone() }, &e.meta.rules).is_empty();
            let entries = below.filter_map(|id| t.find(id.as_str()).ok());
            let is_over = |e: &&Arc<Entry>| rule.views_left(&e.meta).is_some() && choose(&e.meta, Select::Primary, now).is_err();
            let named = |e: &Arc<Entry>| (e.meta.id.clone(), Precondition::Is(e.meta.incarnation, e.meta.generation));
            entries.filter(is_over).filter(is_free).map(named).take(SWEPT).collect()
        });
        let system = Caller::system("a share expired", request);
        for (id, precondition) in &expired {
            match self.delete(&system, "server", id.as_str(), *precondition).await {
                Ok(_) | Err(Error::Conflict(_) | Error::NotFound(_) | Error::Deleted { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(expired.len())
    }
}

/// Labels with one changed.
fn relabelled(old: &Labels, name: &str, value: &str) -> Result<Labels, Error> {
    let kept = old.iter().filter(|(n, _)| *n != name).map(|(n, v)| (n.to_owned(), v.to_owned()));
    Ok(Labels::new(kept.chain([(name.to_owned(), value.to_owned())]))?)
}
