//! The vocabulary of Claviger and its pure rules: keys and their versions, who may do what, who is asking, audit records.
//!
//! Nothing here performs I/O, reads a clock, is asynchronous, or knows how a value looks on a wire or in a table.

mod access;
mod acl;
mod approval;
pub mod audit;
mod caller;
mod capability;
mod id;
mod key;
mod kind;
mod principal;
mod revision;
mod secret;
mod spiffe;
mod version;

pub use access::{Denied, ExternalAllow, Permit, PrefixRights, authorize, explain, may_create, permits, permits_by};
pub use acl::{Acl, AclError, AclTooLong, Grant, MAX_GRANTED_BYTES, MAX_GRANTS, RightsError, check_rights_change};
pub use approval::{
    Approval, ApprovalId, ApprovalRule, Approving, Deed, DeedTarget, End, Ended, Guarded, GuardedSet, LONGEST, MAX_APPROVERS, MAX_NEEDED,
    MAX_REASON, MAX_RULES, RuleError, RulePlace, Rules, SHORTEST, Vote, VoteError, acl_difference, is_reason, names_of, rules_difference,
};
pub use caller::{BREAK_GLASS, Caller, Proven, RequestId};
pub use capability::{Capabilities, Capability, Preset, cap};
pub use id::{Incarnation, KeyId, KeyIdError, Prefix, PrefixError};
pub use key::{Created, Generation, KeyMeta, KeyRef, Labels, MetaError, PrefixGrant};
pub use kind::{KeyKind, KeyPolicy, PolicyError, Unusable};
pub use principal::{Identity, MAX_PRINCIPAL, Principal, PrincipalError};
pub use revision::{Civil, Clock, Revision, SystemClock, Timestamp};
pub use secret::SecretBytes;
pub use spiffe::{SpiffeId, SpiffeIdError, TrustDomain};
pub use version::{Select, Transition, Version, VersionError, VersionId, VersionState, Versions};
