//! Getting rid of a key whose record or versions are damaged, so that its name can be used again.
//!
//! Nothing is mended here: what does not authenticate is not believed, not even its grants.

use crate::approvals::Cleared;
use crate::commit::Apply;
use crate::memory::{Slot, Wreck};
use crate::start::Engine;
use crate::{Conflict, Error, Note, Surface};
use claviger_crypto::add;
use claviger_domain::audit::RightsChange;
use claviger_domain::{Acl, Caller, Deed, KeyId, KeyRef, Prefix, Revision};
use claviger_ports::DigestDelta;
use std::sync::Arc;

impl Engine {
    /// Deletes the damaged key that `note` names. Nobody knows any more who administered it, so it takes who administers
    /// everything. What the head counts for it beyond its rows as they stand goes with it, so that the sums are right again.
    pub(crate) async fn delete_damaged(&self, note: &Note<'_>, why: &str) -> Result<Revision, Error> {
        let id = note.subjects.first().map_or("", |subject| subject.key);
        match self.delete_damaged_unrecorded(note.caller, note.surface, id, why).await {
            Ok((revision, acl, deed, cleared)) => {
                let reason = format!("it was damaged: {why}");
                let rights = RightsChange { old: &acl, new: &Acl::default() };
                self.done_cleared(note, revision, Some(rights), None, &reason, (Some(&deed), &cleared)).await?;
                Ok(revision)
            }
            Err(error) => Err(self.refuse(note, error).await),
        }
    }

    async fn delete_damaged_unrecorded(
        &self,
        caller: &Caller,
        surface: Surface,
        id: &str,
        why: &str,
    ) -> Result<(Revision, Acl, Deed, Cleared), Error> {
        let everything = Prefix::parse("").map_err(|e| Error::Internal(e.to_string()))?;
        let damaged = |_| Error::Damaged { id: id.to_owned(), why: why.to_owned() };
        self.require_prefix_admin(caller, &everything).map_err(damaged)?;
        let (_salvage, _turn) = (self.salvage.lock().await, self.turn(id).await);
        self.require_prefix_admin(caller, &everything).map_err(damaged)?;
        let (id, wreck, torn) = self.wreck(id)?;
        let acl = wreck.entry.as_ref().map(|entry| entry.meta.acl.clone()).unwrap_or_default();
        let (incarnation, generation) = wreck.standing;
        let separate_duties = wreck.entry.as_ref().is_some_and(|entry| entry.meta.separate_duties);
        let deed = Deed::Delete { key: id.clone() };
        let own = self.memory.read(|t| t.own_rules(&id));
        let cleared = self.clear(caller, surface, deed.clone(), wreck.standing, &own).await?;
        let key = KeyRef { id, incarnation };
        let (write, tombstone) = self.burial(caller, key, generation, (&acl, separate_duties), add(wreck.counted(), torn));
        Ok((self.submit_cleared(write, Apply::Delete(Box::new(tombstone)), &cleared).await?, acl, deed, cleared))
    }

    /// What is damaged under this name; and, where it is the last key whose versions are, what the head counts for them beyond
    /// what is there.
    fn wreck(&self, id: &str) -> Result<(KeyId, Arc<Wreck>, DigestDelta), Error> {
        self.memory.read(|t| match t.keys.get_key_value(id) {
            Some((id, Slot::Damaged(wreck))) => {
                let is_last = t.torn.keys.len() == 1 && t.torn.keys.contains(id);
                Ok((id.clone(), wreck.clone(), if is_last { t.torn.excess } else { DigestDelta::default() }))
            }
            Some((_, Slot::Good(_) | Slot::Doubtful(_))) | None => Err(Error::Conflict(Conflict::Changed)),
        })
    }
}
