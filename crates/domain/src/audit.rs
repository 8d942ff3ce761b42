//! What the audit log records: one record for each request, allowed or not. Never key data ▲.

use crate::{Acl, Caller, KeyId, RequestId, Revision, Timestamp, VersionId};

/// What was attempted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Action {
    /// A key's data was asked for.
    Read,
    /// Several keys' data in one request.
    BulkRead,
    /// Fingerprints of several keys' data were asked for, by which it is found in files.
    Fingerprint,
    /// A share was opened, or tried to be.
    OpenShare,
    /// Something was encrypted with a key.
    Encrypt,
    /// Something was decrypted with a key.
    Decrypt,
    /// A ciphertext was moved to a key's primary version.
    Rewrap,
    /// Something was signed with a key.
    Sign,
    /// A signature or code was checked with a key.
    Verify,
    /// A message authentication code was made with a key.
    Hmac,
    /// A data key was made, and wrapped with a key.
    DataKey,
    /// A key's public halves were asked for.
    PublicKey,
    /// A used key's material left.
    Export,
    /// A key, or a version of one, came from outside, wrapped.
    Import,
    /// The public key that imported material is wrapped to was asked for.
    ImportKey,
    /// A key's metadata was asked for.
    Inspect,
    /// Key ids were listed or searched.
    List,
    /// Changed keys were asked for by their hashes.
    Poll,
    /// A stream of changes was opened.
    Watch,
    /// A key was made.
    Create,
    /// A key was deleted.
    Delete,
    /// A version was added.
    AddVersion,
    /// A version became primary.
    Promote,
    /// A version became inactive.
    Deactivate,
    /// A version became active again.
    Reactivate,
    /// A version's data key was erased.
    Destroy,
    /// An ACL was asked for.
    ShowRights,
    /// An ACL was changed.
    ChangeRights,
    /// Description, labels or policy were changed.
    ChangeMeta,
    /// A prefix's grants were asked for.
    ShowPrefix,
    /// A prefix's grants were changed.
    ChangePrefix,
    /// Earlier states of a key were asked for.
    History,
    /// The audit log was queried.
    AuditQuery,
    /// The server's status was asked for.
    Status,
    /// A person logged in and got a session, or tried to.
    Login,
    /// A person's session was renewed, or that was tried.
    RenewSession,
    /// A person ended a login.
    Logout,
    /// A request that reached no operation: no such route, malformed, refused before it was understood.
    Request,
    /// The server started.
    Start,
    /// The server stopped.
    Stop,
    /// The barrier key was rotated.
    RotateBarrier,
    /// An emergency administrator certificate was made.
    BreakGlass,
    /// A store was prepared.
    Init,
    /// A change found in the database whose record was missing.
    Reconcile,
    /// What is left of a store that was changed behind Claviger's back was accepted, as the configuration says.
    AcceptTampering,
    /// Records older than the retention were removed from the log.
    Prune,
    /// A key's own rules of approval were changed.
    ChangeRules,
    /// Approval was asked for.
    AskApproval,
    /// Requests for approval were listed or shown.
    ShowApproval,
    /// Somebody agreed to a request.
    Approve,
    /// Somebody said no to a request, which ended it.
    RejectApproval,
    /// Who asked took a request back.
    WithdrawApproval,
    /// A request ran out.
    ExpireApproval,
    /// What was approved was carried out: the approval is used up.
    UseApproval,
    /// A request that had ended long ago was removed.
    ForgetApproval,
    /// Something that an administrator should look at: first-time reader, burst of denials, mass read.
    Alert,
}

impl Action {
    /// Those that change the store: a record of one that says `ok` tells of a committed change.
    pub const CHANGES: [Self; 20] = [
        Self::Create,
        Self::Import,
        Self::Delete,
        Self::AddVersion,
        Self::Promote,
        Self::Deactivate,
        Self::Reactivate,
        Self::Destroy,
        Self::ChangeRights,
        Self::ChangeMeta,
        Self::ChangePrefix,
        Self::ChangeRules,
        Self::AskApproval,
        Self::Approve,
        Self::RejectApproval,
        Self::WithdrawApproval,
        Self::ExpireApproval,
        Self::UseApproval,
        Self::ForgetApproval,
        Self::Reconcile,
    ];

    /// The name in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::BulkRead => "bulk_read",
            Self::Fingerprint => "fingerprint",
            Self::OpenShare => "open_share",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Rewrap => "rewrap",
            Self::Sign => "sign",
            Self::Verify => "verify",
            Self::Hmac => "hmac",
            Self::DataKey => "data_key",
            Self::PublicKey => "public_key",
            Self::Export => "export",
            Self::Import => "import",
            Self::ImportKey => "import_key",
            Self::Inspect => "inspect",
            Self::List => "list",
            Self::Poll => "poll",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::AddVersion => "add_version",
            Self::Promote => "promote",
            Self::Deactivate => "deactivate",
            Self::Reactivate => "reactivate",
            Self::Destroy => "destroy",
            Self::ShowRights => "show_rights",
            Self::ChangeRights => "change_rights",
            Self::ChangeMeta => "change_meta",
            Self::ShowPrefix => "show_prefix",
            Self::ChangePrefix => "change_prefix",
            Self::History => "history",
            Self::AuditQuery => "audit_query",
            Self::Status => "status",
            Self::Login => "login",
            Self::RenewSession => "renew_session",
            Self::Logout => "logout",
            Self::Request => "request",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::RotateBarrier => "rotate_barrier",
            Self::BreakGlass => "break_glass",
            Self::Init => "init",
            Self::Reconcile => "reconcile",
            Self::AcceptTampering => "accept_tampering",
            Self::Prune => "prune",
            Self::ChangeRules => "change_rules",
            Self::AskApproval => "ask_approval",
            Self::ShowApproval => "show_approval",
            Self::Approve => "approve",
            Self::RejectApproval => "reject_approval",
            Self::WithdrawApproval => "withdraw_approval",
            Self::ExpireApproval => "expire_approval",
            Self::UseApproval => "use_approval",
            Self::ForgetApproval => "forget_approval",
            Self::Alert => "alert",
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// Nobody was proven.
    Unauthenticated,
    /// The caller may not.
    Denied,
    /// There is no such thing, or the caller must not know.
    NotFound,
    /// Someone else was first.
    Conflict,
    /// The request breaks a rule.
    Invalid,
    /// Too many failures from there.
    RateLimited,
    /// Claviger could not.
    Failed,
}

impl Outcome {
    /// The name in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::RateLimited => "rate_limited",
            Self::Failed => "failed",
        }
    }
}

/// The rights before and after a change.
#[derive(Clone, Copy, Debug)]
pub struct RightsChange<'a> {
    /// Before.
    pub old: &'a Acl,
    /// After.
    pub new: &'a Acl,
}

/// One key of a record, with the versions that were given out or changed.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The key as asked for; text, since a refused request may name what is no key id.
    pub key: &'a str,
    /// The versions.
    pub versions: &'a [VersionId],
}

impl<'a> Subject<'a> {
    /// A key without versions.
    #[must_use]
    pub fn key(id: &'a KeyId) -> Self {
        Self { key: id.as_str(), versions: &[] }
    }
}

/// One record, borrowed from the request it tells of.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When.
    pub at: Timestamp,
    /// Which request.
    pub request_id: RequestId,
    /// Who; `None` when nobody was proven.
    pub caller: Option<&'a Caller>,
    /// From where.
    pub address: Option<std::net::IpAddr>,
    /// By which surface: `native`, `knox`, `server`, ….
    pub surface: &'static str,
    /// What.
    pub action: Action,
    /// On which keys.
    pub subjects: &'a [Subject<'a>],
    /// How it ended.
    pub outcome: Outcome,
    /// Why it ended so, or what else there is to say; empty when nothing.
    pub reason: &'a str,
    /// The revision that a change got, or that an answer is of.
    pub revision: Option<Revision>,
    /// For changes of rights.
    pub rights: Option<RightsChange<'a>>,
    /// Whose word allowed what the grants did not; `None` where they did.
    pub allowed_by: Option<&'a str>,
    /// The store's revision when the record was made: a database that is found before it was rolled back. The engine fills
    /// it in.
    pub head: Option<Revision>,
}

impl Record<'_> {
    /// A record that names nobody and nothing yet; what more there is to say is set beside it by `..Record::new(…)`.
    #[must_use]
    pub fn new(at: Timestamp, request_id: RequestId, surface: &'static str, action: Action, outcome: Outcome) -> Self {
        Self {
            at,
            request_id,
            caller: None,
            address: None,
            surface,
            action,
            subjects: &[],
            outcome,
            reason: "",
            revision: None,
            rights: None,
            allowed_by: None,
            head: None,
        }
    }
}
