//! Use cases on a key's rights.

use crate::keys::{Added, Edit, Precondition, permitted};
use crate::query::Disclosure;
use crate::start::Engine;
use crate::{Entry, Error, Note, Surface};
use claviger_domain::audit::{Action, Subject};
use claviger_domain::{Acl, Caller, Capabilities, Deed, KeyMeta, MAX_GRANTS, Principal, cap};
use std::sync::Arc;

/// A change of an ACL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RightsEdit {
    /// The list is replaced.
    Replace(Acl),
    /// Entries are set one after the other; an empty set removes.
    Set(Vec<(Principal, Capabilities)>),
}

impl RightsEdit {
    /// Refuses more entries than a list can have: applying them takes time that grows with the square of their number.
    fn check_length(&self) -> Result<(), Error> {
        match self {
            Self::Set(entries) if entries.len() > MAX_GRANTS => {
                Err(Error::invalid("grants", format!("one change has at most {MAX_GRANTS} entries, this one has {}", entries.len())))
            }
            Self::Set(_) | Self::Replace(_) => Ok(()),
        }
    }

    /// The list after the change.
    #[must_use]
    pub fn apply(&self, acl: &Acl) -> Acl {
        match self {
            Self::Replace(new) => new.clone(),
            Self::Set(entries) => entries.iter().fold(acl.clone(), |acl, (p, c)| acl.set(p.clone(), *c)),
        }
    }
}

impl Engine {
    /// A key's record with its rights.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn rights(&self, caller: &Caller, surface: Surface, id: &str, disclosure: Disclosure) -> Result<Arc<Entry>, Error> {
        let subjects = [Subject { key: id, versions: &[] }];
        let note = Note { caller, surface, action: Action::ShowRights, subjects: &subjects };
        let found = self.memory.read(|t| match disclosure {
            Disclosure::Everyone => t.find(id).cloned(),
            Disclosure::Permitted => permitted::<cap::List>(t, caller, id).map(|(entry, _)| entry),
        });
        match found {
            Ok(entry) => self.done(&note, Some(entry.revision), None).await.map(|()| entry),
            Err(error) => Err(self.refuse(&note, error).await),
        }
    }

    /// Changes a key's rights. `allowed` is a surface's own rule about the list before and after.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn change_rights(
        &self,
        caller: &Caller,
        surface: Surface,
        id: &str,
        edit: &RightsEdit,
        precondition: Precondition,
        allowed: impl Fn(&KeyMeta, &Acl) -> Result<(), Error>,
    ) -> Result<Added, Error> {
        self.edit::<cap::Admin>(caller, surface, Action::ChangeRights, id, precondition, |entry| {
            edit.check_length()?;
            let acl = edit.apply(&entry.meta.acl);
            allowed(&entry.meta, &acl)?;
            let meta = KeyMeta { acl, ..entry.meta.clone() };
            entry.meta.check_rights(&meta, caller)?;
            let deed = Deed::ChangeRights { key: meta.id.clone(), acl: meta.acl.clone() };
            Ok((meta != entry.meta).then(|| Edit { deed: Some(deed), ..Edit::meta(meta) }))
        })
        .await
    }
}
