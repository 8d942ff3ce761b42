//! The one place where the engine's errors become Knox's codes and texts (contract knox §4).

use claviger_domain::{Identity, Transition, VersionError, VersionState};
use claviger_engine::{Conflict, Error, Refusal};
use claviger_wire::knox::envelope::Code;
use claviger_wire::knox::text::{self, Act};

/// A refusal on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Knox's code; the HTTP status belongs to it.
    pub code: Code,
    /// The `message` member.
    pub message: Vec<u8>,
}

impl Reply {
    pub(crate) fn new(code: Code, message: impl Into<Vec<u8>>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn bad_data(message: impl ToString) -> Self {
        Self::new(Code::BadRequestData, message.to_string())
    }
}

impl From<claviger_wire::knox::validate::Refusal> for Reply {
    fn from(refusal: claviger_wire::knox::validate::Refusal) -> Self {
        Self { code: refusal.code, message: refusal.message }
    }
}

/// What was attempted, on which key, and by whom: what the texts name.
pub(crate) struct Attempted<'a> {
    pub(crate) principal: &'a str,
    pub(crate) act: Act,
    pub(crate) key: &'a [u8],
}

impl Attempted<'_> {
    /// The answer to an engine's error on a single-key route.
    pub(crate) fn reply(&self, error: Error) -> Reply {
        match error {
            Error::NotFound(_) | Error::Deleted { .. } => Reply::new(Code::NoSuchKey, text::no_such_key(self.key)),
            Error::NoVersion { .. } => Reply::new(Code::NoSuchVersion, text::NO_SUCH_VERSION),
            // What is used and not read looks as if its caller lacked the right: Knox has no word for it.
            Error::Denied(Refusal::Unseen | Refusal::Lacks(_) | Refusal::UsedNotRead(_)) => {
                Reply::new(Code::Unauthorized, text::not_authorized(self.principal.as_bytes(), self.act, self.key))
            }
            Error::Denied(other) => Reply::new(Code::Unauthorized, other.to_string()),
            // Knox's protocol has no way to ask: the text says which has.
            Error::NeedsApproval(_) | Error::Approval(_) | Error::Asked(_) => {
                Reply::new(Code::Unauthorized, format!("{error}, on Claviger's native API"))
            }
            Error::Invalid { field: "principal", rule } => Reply::new(Code::BadPrincipal, rule),
            Error::Invalid { rule, .. } => Reply::bad_data(rule),
            Error::AnswerTooLarge { .. } => Reply::bad_data(error),
            Error::Version(other) => Reply::bad_data(other),
            Error::Conflict(Conflict::Exists) => Reply::new(Code::KeyExists, text::key_exists(self.key)),
            Error::Conflict(Conflict::Changed) => Reply::new(Code::Internal, text::LOST_RACE),
            // Knox's callers may know of every key.
            Error::Unseen(error) => self.reply(*error),
            Error::Policy(why) => Reply::new(Code::Internal, text::callback_failed(&why)),
            other => Reply::new(Code::Internal, other.to_string()),
        }
    }

    /// The answer to an engine's error on a change of a version's status: Knox names the rule of the target state.
    pub(crate) fn reply_to_transition(&self, error: Error, wanted: Transition) -> Reply {
        let rule = match wanted {
            Transition::Promote => text::PROMOTE_NEEDS_ACTIVE,
            Transition::Reactivate => text::PRIMARY_NOT_DEMOTED,
            Transition::Deactivate | Transition::Destroy => text::DEMOTE_NEEDS_ACTIVE,
        };
        match error {
            // A destroyed version is absent on this surface.
            Error::Version(VersionError::Unknown(_) | VersionError::WrongState { from: VersionState::Destroyed, .. }) => {
                Reply::new(Code::NoSuchVersion, text::NO_SUCH_VERSION)
            }
            // The reference checks "to Inactive from Primary" by the same rule as any other state that is not Active.
            Error::Version(VersionError::WrongState { .. }) => Reply::bad_data(rule),
            other => self.reply(other),
        }
    }
}

/// The id by which messages call the caller's default principal.
pub(crate) fn principal_name(identity: Option<&Identity>) -> &str {
    identity.map_or("", Identity::id)
}
