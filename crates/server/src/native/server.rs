//! Routes about the server itself: who one is, its state, its seal, its audit log.

use super::keys::limit;
use super::request::decimal;
use super::{Answer, Ask, AuditQuery, Native, SURFACE, answer};
use claviger_domain::audit::{Action, Outcome};
use claviger_domain::{Caller, Identity, Prefix, Principal, Proven, Timestamp};
use claviger_engine::Error;
use claviger_wire::native::{FieldError, IdentityInfo, SealStatus, WhoAmI, rfc3339_to_unix, unix_to_rfc3339};

impl Native {
    pub(crate) async fn whoami(&self, ask: &Ask<'_>) -> Answer {
        self.note(ask, Action::Request, Outcome::Ok, "whoami").await?;
        let header = super::authorization(&ask.head.headers)?;
        let session_expires = self.parts.callers.session(header).map(|session| unix_to_rfc3339(session.expires));
        Ok(answer(200, &WhoAmI { identities: ask.caller.proven().iter().map(identity).collect(), session_expires }))
    }

    pub(crate) async fn show_status(&self, ask: &Ask<'_>) -> Answer {
        self.require_root(ask, Action::Status).await?;
        let back = &self.parts.back;
        let status = super::status::status(&self.parts.engine, back.seal_status(), back.vitals());
        self.note(ask, Action::Status, Outcome::Ok, "").await?;
        Ok(answer(200, &status))
    }

    pub(crate) async fn rotate_seal(&self, ask: &Ask<'_>) -> Answer {
        Ok(answer(200, &self.rotated(ask, ask.caller).await?))
    }

    /// Rotates the barrier for `caller`, who is the asking one with or without an approval.
    pub(crate) async fn rotated(&self, ask: &Ask<'_>, caller: &Caller) -> Result<SealStatus, Error> {
        self.require_root(ask, Action::RotateBarrier).await?;
        let by = match self.engine().clear_rotation(caller, SURFACE).await {
            Ok(by) => by,
            Err(asked @ Error::Asked(_)) => return Err(asked),
            Err(error) => return Err(self.refused(ask, Action::RotateBarrier, error).await),
        };
        match self.parts.back.rotate().await {
            Ok(seal) => {
                let by = if by.is_empty() { by } else { format!("; {by}") };
                let kept = self.note(ask, Action::RotateBarrier, Outcome::Ok, &format!("barrier key {}{by}", seal.barrier_version)).await;
                kept.map_err(|unkept| Error::Unrecorded { revision: self.engine().revision(), why: unkept.to_string() })?;
                Ok(seal)
            }
            Err(error) => Err(self.refused(ask, Action::RotateBarrier, error).await),
        }
    }

    /// Recorded before it is looked at, so that the page can hold its own record.
    pub(crate) async fn query_audit(&self, ask: &Ask<'_>) -> Answer {
        let query = audit_query(ask)?;
        self.require_root(ask, Action::AuditQuery).await?;
        self.note(ask, Action::AuditQuery, Outcome::Ok, "").await?;
        let page = self.parts.back.audit_query(query).await;
        let page = page.map_err(|why| Error::Unavailable(format!("the audit log cannot be searched: {why}")))?;
        Ok(answer(200, &page))
    }

    /// Whether the caller administers everything; a refusal is recorded.
    async fn require_root(&self, ask: &Ask<'_>, action: Action) -> Result<(), Error> {
        let everything = Prefix::parse("").expect("the empty prefix is one");
        match self.engine().require_prefix_admin(ask.caller, &everything) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.refused(ask, action, error).await),
        }
    }

    async fn refused(&self, ask: &Ask<'_>, action: Action, error: Error) -> Error {
        match self.note(ask, action, error.outcome(), &error.to_string()).await {
            Ok(()) => error,
            Err(unkept) => unkept,
        }
    }
}

pub(crate) fn identity(proven: &Proven) -> IdentityInfo {
    let groups = match &proven.identity {
        Identity::User { groups, .. } => groups.iter().map(|g| g.to_string()).collect(),
        _ => Vec::new(),
    };
    let (kind, id) = (proven.identity.type_name().to_owned(), proven.identity.id().to_owned());
    IdentityInfo { r#type: kind, id, groups, method: proven.method.to_owned() }
}

fn audit_query(ask: &Ask<'_>) -> Result<AuditQuery, FieldError> {
    let text = |name: &str| ask.query.one(name).map(str::to_owned);
    let principal = text("principal");
    if let Some(principal) = &principal {
        principal.parse::<Principal>().map_err(|e| FieldError::new("principal", e))?;
    }
    let outcome = text("outcome");
    if outcome.as_deref().is_some_and(|name| OUTCOMES.iter().all(|o| o.name() != name)) {
        return Err(FieldError::new("outcome", format!("must be one of {}", OUTCOMES.map(Outcome::name).join(", "))));
    }
    let before = |text: &str| decimal(text).ok_or_else(|| FieldError::new("before", "must be the `next` of an earlier page"));
    let since = ask.query.one("since").map(|text| rfc3339_to_unix(text, "since")).transpose()?;
    Ok(AuditQuery {
        key: text("key"),
        principal,
        action: text("action"),
        outcome,
        since: since.map(as_recorded),
        before: ask.query.one("before").map(before).transpose()?,
        limit: limit(ask, 100, 1000)?,
    })
}

const OUTCOMES: [Outcome; 8] = [
    Outcome::Ok,
    Outcome::Unauthenticated,
    Outcome::Denied,
    Outcome::NotFound,
    Outcome::Conflict,
    Outcome::Invalid,
    Outcome::RateLimited,
    Outcome::Failed,
];

/// A moment as audit records write it: always nine digits of fraction, so that texts sort as times do.
pub(crate) fn as_recorded(at: Timestamp) -> String {
    const SECOND: i64 = 1_000_000_000;
    let fraction = at.0.rem_euclid(SECOND);
    let whole = unix_to_rfc3339(Timestamp(at.0 - fraction));
    format!("{}.{fraction:09}Z", whole.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_sort_as_records_do() {
        assert_eq!(as_recorded(Timestamp(951_782_400_000_000_000)), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(as_recorded(Timestamp(1_500_000_001)), "1970-01-01T00:00:01.500000001Z");
    }
}
