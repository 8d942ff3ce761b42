//! The application: what can be done with keys, by whom, and in which order it becomes visible.
//!
//! Every operation takes a [`Caller`], asks the domain whether it is allowed, and returns only
//! when its audit record is durable ▲. Nothing here knows HTTP, SQL or Kubernetes.

mod approvals;
mod commit;
mod epoch;
mod error;
mod feed;
mod keys;
mod memory;
mod open;
mod overlay;
mod policy;
mod prefixes;
mod query;
mod rights;
mod salvage;
mod shares;
mod start;
mod telling;
#[cfg(test)]
mod tests;
mod uses;

pub use approvals::{Notice, PlacedRules, Ran, ShownApproval, Verdict};
pub use claviger_domain::Select;
pub use commit::CommitCounts;
pub use error::{ApprovalProblem, Conflict, Error, Needed, Refusal};
pub use feed::{Event, KeyState, Subject as EventSubject, Subscription, Told, WatchScope};
pub use keys::{Added, Material, NewKey, NewVersion, Precondition, ReadKey};
pub use memory::Entry;
pub use policy::{AccessPolicy, Policy, Question};
pub use prefixes::PrefixEdit;
pub use query::{Disclosure, KeyPage, Listed, Pattern, Reached};
pub use rights::RightsEdit;
pub use shares::{OpenedShare, ShareRule};
pub use start::{CheckReport, Engine, Settings, StartReport, Started, check, initialise};
pub use telling::Telling;
pub use uses::{Check, Cipher, DataKey, Document, Done, Each, Exported, Plain, Proof, PublicVersion, Using};

use claviger_domain::audit::{Action, Outcome, Record, RightsChange, Subject};
use claviger_domain::{Caller, Revision};

/// Which surface a request came through, for the audit log: `native`, `knox`, `server`.
pub type Surface = &'static str;

/// What an operation knows of itself for its audit record.
pub(crate) struct Note<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) surface: Surface,
    pub(crate) action: Action,
    pub(crate) subjects: &'a [Subject<'a>],
}

impl Note<'_> {
    fn record<'r>(
        &'r self,
        engine: &Engine,
        outcome: Outcome,
        reason: &'r str,
        revision: Option<Revision>,
        rights: Option<RightsChange<'r>>,
    ) -> Record<'r> {
        Record {
            caller: Some(self.caller),
            address: self.caller.address,
            subjects: self.subjects,
            reason,
            revision,
            rights,
            head: Some(engine.revision()),
            ..Record::new(engine.now(), self.caller.request_id, self.surface, self.action, outcome)
        }
    }
}

impl Engine {
    /// Records that an operation was done, and waits until that is durable.
    pub(crate) async fn done(&self, note: &Note<'_>, revision: Option<Revision>, rights: Option<RightsChange<'_>>) -> Result<(), Error> {
        self.done_by(note, revision, rights, None).await
    }

    /// As [`Engine::done`], where it was not the grants that allowed it.
    pub(crate) async fn done_by(
        &self,
        note: &Note<'_>,
        revision: Option<Revision>,
        rights: Option<RightsChange<'_>>,
        allowed_by: Option<&str>,
    ) -> Result<(), Error> {
        let kept = self.audit.append(&Record { allowed_by, ..note.record(self, Outcome::Ok, "", revision, rights) });
        kept.await.map_err(|unkept| match revision {
            // It was committed before this record could be made, and must not look as if it were not.
            Some(revision) if Action::CHANGES.contains(&note.action) => Error::Unrecorded { revision, why: unkept.to_string() },
            _ => unkept.into(),
        })
    }

    /// Records a refusal and gives it back, or the audit log's own failure.
    pub(crate) async fn refuse(&self, note: &Note<'_>, error: Error) -> Error {
        // It has a record of its own.
        if matches!(error, Error::Asked(_)) {
            return error;
        }
        let reason = error.to_string();
        let kept = self.audit.append(&note.record(self, error.outcome(), &reason, None, None));
        match kept.await {
            Ok(()) => error,
            Err(unkept) => unkept.into(),
        }
    }

    /// Records something that is no operation of the engine: a refused request, a start, an alert.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the log cannot be written.
    pub async fn note(&self, record: &Record<'_>) -> Result<(), Error> {
        Ok(self.audit.append(&Record { head: Some(self.revision()), ..*record }).await?)
    }
}
