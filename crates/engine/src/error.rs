//! The one error of the application. Each surface turns it into an answer in one place of its own.

use claviger_crypto::CryptoError;
use claviger_domain::audit::Outcome;
use claviger_domain::{
    AclTooLong, ApprovalRule, Capability, Denied, Ended, KeyKind, MetaError, PolicyError, Revision, RightsError, RuleError, Unusable,
    VersionError, VoteError,
};
use claviger_ports::{AuditError, StoreError};
use thiserror::Error;

/// Why an operation was not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// There is no such thing.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The key was deleted, and the caller could read it before: he may be told so, and that he may drop his copies.
    #[error("key `{id}` was deleted at revision {revision}")]
    Deleted {
        /// The key.
        id: String,
        /// When.
        revision: Revision,
    },
    /// There is no such version of a key that the caller may use.
    #[error("key `{id}` has no version {version}")]
    NoVersion {
        /// The key.
        id: String,
        /// The version as asked for.
        version: String,
    },
    /// The caller may not.
    #[error("{0}")]
    Denied(Refusal),
    /// Someone else was first.
    #[error("{0}")]
    Conflict(Conflict),
    /// The request breaks a rule.
    #[error("{field}: {rule}")]
    Invalid {
        /// Which member or parameter.
        field: &'static str,
        /// Which rule, and what to do.
        rule: String,
    },
    /// The versions asked for are more than one answer holds.
    #[error(
        "the versions asked for have more than {max} bytes together, the most that one answer may have here (`max_answer` in the configuration): ask for the primary version alone, or for one at a time"
    )]
    AnswerTooLarge {
        /// What an answer may have.
        max: usize,
    },
    /// This key of a bulk read did not fit beside those before it.
    #[error("the answer is full; ask for this key again")]
    AnswerFull,
    /// Rules demand the approval of others.
    #[error("{0}")]
    NeedsApproval(Box<Needed>),
    /// Approval was asked for, as the request said, and nothing else was done.
    #[error("approval {} was asked for; nothing is changed until it is given", .0.approval.id)]
    Asked(Box<crate::ShownApproval>),
    /// Something about an approval stands in the way.
    #[error(transparent)]
    Approval(#[from] ApprovalProblem),
    /// A version's state does not allow the change.
    #[error(transparent)]
    Version(VersionError),
    /// A version is not used any more.
    #[error("{0}")]
    Unusable(Unusable),
    /// The stored row of this key does not authenticate or decode.
    #[error(
        "the stored record of `{id}` is damaged ({why}); run `claviger check`, and restore a backup or have an administrator of the empty prefix delete it"
    )]
    Damaged {
        /// The key.
        id: String,
        /// What failed.
        why: String,
    },
    /// A dependency does not answer; nothing was changed unless the text says so.
    #[error("{0}")]
    Unavailable(String),
    /// The change was committed, and its audit record could not be kept after that.
    #[error(
        "the change is in force at revision {revision}, but its audit record is not durable yet ({why}); do not repeat it: the next start makes up for the record"
    )]
    Unrecorded {
        /// The change's revision.
        revision: Revision,
        /// What the audit log says.
        why: String,
    },
    /// The site's policy was to decide, and did not.
    #[error("the access callback failed: {0}")]
    Policy(String),
    /// This went wrong with a key of which the caller may not know: where the protocol allows it, it looks like
    /// [`Error::NotFound`] ▲.
    #[error("{0}")]
    Unseen(Box<Self>),
    /// No space is left for data or for the audit log.
    #[error("{0}")]
    Full(String),
    /// Too much at once.
    #[error("too many requests; try again later")]
    RateLimited,
    /// A mistake of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What needs approval, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// The deed in words.
    pub deed: String,
    /// The rules that demand it.
    pub rules: Vec<ApprovalRule>,
}

impl std::fmt::Display for Needed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rules: Vec<_> = self.rules.iter().map(ToString::to_string).collect();
        write!(
            f,
            "to {} needs approval by others ({}); nothing was done: ask for it with `--ask REASON` on the command line, or the header Claviger-Ask",
            self.deed,
            rules.join("; ")
        )
    }
}

/// What about an approval stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApprovalProblem {
    /// It is over.
    #[error("the approval is {}, and is not used again; ask anew", .0.name())]
    Ended(Ended),
    /// Its target has changed since.
    #[error("what the approval was asked for has changed since; look at it again and ask anew")]
    Stale,
    /// It is for something else.
    #[error("the approval is for another request than this one; nothing was done")]
    OtherRequest,
    /// Not enough people have agreed, by the rules as they are now.
    #[error("the approval is not complete, there are {0}")]
    Wanting(String),
    /// Somebody else asked for it.
    #[error("only who asked for the approval can do this")]
    NotRequester,
    /// The caller cannot vote.
    #[error("{0}")]
    Vote(VoteError),
    /// The caller looked at something else.
    #[error("the hash is not that of this request; look at it again")]
    OtherHash,
    /// Too many wait.
    #[error("{0} {1} requests for approval waiting, which is the most; withdraw some, or wait until they are decided")]
    TooMany(&'static str, usize),
    /// One person has asked for too many within an hour.
    #[error("you have asked for {0} approvals within the last hour, which is the most; ask again later")]
    TooOften(usize),
}

impl ApprovalProblem {
    /// Whether it is about the state of things rather than about who asks.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Ended(_) | Self::Stale | Self::OtherRequest | Self::OtherHash => true,
            Self::Vote(why) => matches!(why, VoteError::Ended(_) | VoteError::VotedBefore | VoteError::Full),
            Self::Wanting(_) | Self::NotRequester | Self::TooMany(..) | Self::TooOften(_) => false,
        }
    }
}

/// Why a caller may not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// He has no right at all on the key; where the protocol allows it this looks like [`Error::NotFound`] ▲.
    #[error("no right on this key")]
    Unseen,
    /// He lacks a right.
    #[error("you lack the right to {} here", .0.name())]
    Lacks(Capability),
    /// No creation rule covers him and the id.
    #[error("you may not create keys here; an administrator can grant `create` on a prefix of this id")]
    Create,
    /// The key's material is used, not read ▲.
    #[error("this key is of the kind {}, which is used and not read: ask for an operation with it instead", .0.name())]
    UsedNotRead(KeyKind),
    /// The key was made so that its material never leaves ▲.
    #[error("this key is not exportable: that was decided when it was made, for ever")]
    NotExportable,
    /// A rule about rights forbids it.
    #[error(transparent)]
    Rights(RightsError),
    /// The version that is asked for has passed its lifetime.
    #[error("the version has reached the end of its lifetime; add and promote a new one")]
    Expired,
}

/// What stood in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Conflict {
    /// The name is taken.
    #[error("it exists already")]
    Exists,
    /// It is not in the state that the caller expected.
    #[error("it has changed since; read it again and repeat the change")]
    Changed,
}

impl Error {
    /// How the audit log calls it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NotFound(_) | Self::NoVersion { .. } | Self::Deleted { .. } => Outcome::NotFound,
            Self::Denied(_) | Self::NeedsApproval(_) => Outcome::Denied,
            Self::Asked(_) => Outcome::Ok,
            Self::Approval(ApprovalProblem::TooMany(..) | ApprovalProblem::TooOften(_)) => Outcome::RateLimited,
            Self::Approval(problem) if problem.is_conflict() => Outcome::Conflict,
            Self::Approval(_) => Outcome::Denied,
            Self::Conflict(_) => Outcome::Conflict,
            Self::Invalid { .. } | Self::AnswerTooLarge { .. } | Self::AnswerFull | Self::Version(_) | Self::Unusable(_) => {
                Outcome::Invalid
            }
            Self::RateLimited => Outcome::RateLimited,
            Self::Unseen(error) => error.outcome(),
            Self::Damaged { .. } | Self::Unavailable(_) | Self::Unrecorded { .. } | Self::Policy(_) | Self::Full(_) | Self::Internal(_) => {
                Outcome::Failed
            }
        }
    }

    pub(crate) fn invalid(field: &'static str, rule: impl ToString) -> Self {
        Self::Invalid { field, rule: rule.to_string() }
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Self::Denied(match denied {
            Denied::Unseen => Refusal::Unseen,
            Denied::Lacks(capability) => Refusal::Lacks(capability),
        })
    }
}

impl From<AuditError> for Error {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Full => Self::Full(error.to_string()),
            AuditError::Io(_) | AuditError::Closed => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_) => Self::Full(error.to_string()),
            StoreError::Damaged(_) | StoreError::Head(_) => Self::Internal(error.to_string()),
            StoreError::Unavailable(_) | StoreError::Unknown(_) | StoreError::TooNew { .. } => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<CryptoError> for Error {
    fn from(error: CryptoError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<VersionError> for Error {
    fn from(error: VersionError) -> Self {
        Self::Version(error)
    }
}

impl From<RightsError> for Error {
    fn from(error: RightsError) -> Self {
        Self::Denied(Refusal::Rights(error))
    }
}

impl From<RuleError> for Error {
    fn from(error: RuleError) -> Self {
        Self::invalid("rules", error)
    }
}

impl From<AclTooLong> for Error {
    fn from(error: AclTooLong) -> Self {
        match error {
            AclTooLong::Principal(_) => Self::invalid("principal", error),
            AclTooLong::Grants(_) | AclTooLong::Bytes(_) => Self::invalid("grants", error),
        }
    }
}

impl From<MetaError> for Error {
    fn from(error: MetaError) -> Self {
        match error {
            MetaError::Versions(e) => e.into(),
            MetaError::Rights(e) => e.into(),
            MetaError::Policy(e) => Self::invalid(policy_field(&e), e),
            MetaError::BadLabel(_) | MetaError::TooManyLabels(_) => Self::invalid("labels", error),
            MetaError::BadDescription => Self::invalid("description", error),
            MetaError::BadLifetime => Self::invalid("max_lifetime", error),
            MetaError::DutiesStay => Self::invalid("separate_duties", error),
        }
    }
}

/// The member that a policy's rule is about.
fn policy_field(error: &PolicyError) -> &'static str {
    match error {
        PolicyError::OfSecret => "kind",
        PolicyError::Convergent => "convergent",
        PolicyError::RsaBits => "rsa_bits",
        PolicyError::Template => "template",
        PolicyError::MinVersion => "min_version",
    }
}
