//! Approvals: which deeds other people must agree to, who may agree, and when a request has been agreed to.
//!
//! A rule stands on a key or a prefix and names operations, how many people must agree, and who they may be. All rules that
//! reach a deed must be satisfied. Nothing here stores, commits or reads a clock; the engine does, and asks these functions
//! again when a deed is carried out.

use crate::{Acl, Caller, Generation, Identity, Incarnation, KeyId, Prefix, Principal, Select, Timestamp, VersionId};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// Rules on one key or prefix at most.
pub const MAX_RULES: usize = 8;
/// Approvers that one rule names at most.
pub const MAX_APPROVERS: usize = 64;
/// People whom one rule demands at most.
pub const MAX_NEEDED: u8 = 16;
/// Seconds for which a request can be approved at least.
pub const SHORTEST: u32 = 60;
/// Seconds for which a request can be approved at most: 30 days.
pub const LONGEST: u32 = 30 * 24 * 3600;
/// Bytes of a reason or a comment at most.
pub const MAX_REASON: usize = 1024;

/// An operation that a rule can make depend on approval.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u16)]
pub enum Guarded {
    /// Reading the data of a key.
    Read = 1,
    /// Destroying a version.
    Destroy = 1 << 1,
    /// Deleting a key.
    Delete = 1 << 2,
    /// Changing rights: of a key, of a prefix, and the rules of approval themselves.
    Grant = 1 << 3,
    /// Making a version the primary one.
    Promote = 1 << 4,
    /// Taking out the material of a key that is used inside.
    Export = 1 << 5,
    /// Changing what protects the store: rotating the barrier. It is looked for on the empty prefix only.
    Root = 1 << 6,
}

impl Guarded {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 7] = [Self::Read, Self::Destroy, Self::Delete, Self::Grant, Self::Promote, Self::Export, Self::Root];

    /// The lower-case name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Destroy => "destroy",
            Self::Delete => "delete",
            Self::Grant => "grant",
            Self::Promote => "promote",
            Self::Export => "export",
            Self::Root => "root",
        }
    }

    /// The operation of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|g| g.name() == name)
    }
}

/// A set of guarded operations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct GuardedSet(u16);

impl GuardedSet {
    /// The set of `all`.
    pub fn of(all: impl IntoIterator<Item = Guarded>) -> Self {
        Self(all.into_iter().fold(0, |bits, g| bits | g as u16))
    }

    /// Whether `operation` is in the set.
    #[must_use]
    pub fn contains(self, operation: Guarded) -> bool {
        self.0 & operation as u16 != 0
    }

    /// Whether any of `others` is in the set.
    pub fn contains_any(self, others: impl IntoIterator<Item = Guarded>) -> bool {
        others.into_iter().any(|g| self.contains(g))
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members in writing order.
    pub fn iter(self) -> impl Iterator<Item = Guarded> {
        Guarded::ALL.into_iter().filter(move |g| self.contains(*g))
    }

    /// The set as stored; see [`GuardedSet::from_bits`].
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }

    /// The set of these bits, or nothing where a bit is unknown.
    #[must_use]
    pub fn from_bits(bits: u16) -> Option<Self> {
        (bits & !0x7f == 0).then_some(Self(bits))
    }
}

impl fmt::Display for GuardedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Guarded::name).collect();
        f.write_str(&names.join(","))
    }
}

/// Who must agree to what.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ApprovalRule {
    /// To which operations.
    pub operations: GuardedSet,
    /// How many different people.
    pub needed: u8,
    /// Users and groups of users.
    pub approvers: Arc<[Principal]>,
    /// Seconds after which a request is no longer carried out.
    pub expires_after: u32,
}

/// Why a rule is refused when it is written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    /// It guards nothing.
    #[error("a rule names at least one operation: read, destroy, delete, grant, promote, export, root")]
    GuardsNothing,
    /// It demands nobody, or too many.
    #[error("a rule demands 1 to {MAX_NEEDED} approvals, not {0}")]
    Needed(u8),
    /// It names nobody, or too many.
    #[error("a rule names 1 to {MAX_APPROVERS} approvers, not {0}")]
    Approvers(usize),
    /// An approver who is no person.
    #[error("`{0}` cannot approve: approvers are users and user groups, since one person must not count twice under machines' names")]
    NotPeople(Principal),
    /// An approver who is named twice.
    #[error("approver `{0}` stands twice")]
    Duplicate(Principal),
    /// An approver who could never match.
    #[error("approver: {0}")]
    Principal(#[from] crate::PrincipalError),
    /// More are needed than there are.
    #[error("{needed} approvals are demanded of {users} users; name more, or a group")]
    NeverSatisfied {
        /// Demanded.
        needed: u8,
        /// Named.
        users: usize,
    },
    /// Too short or too long.
    #[error("a request can be approved for {SHORTEST} seconds to 30 days, not for {0} seconds")]
    Lifetime(u32),
    /// Too many rules.
    #[error("a key or prefix has at most {MAX_RULES} rules, not {0}")]
    TooMany(usize),
}

impl ApprovalRule {
    /// Checks a rule that is to be written.
    ///
    /// # Errors
    /// [`RuleError`] says what is wrong with it.
    pub fn check(&self) -> Result<(), RuleError> {
        let Self { operations, needed, approvers, expires_after } = self;
        if operations.is_empty() {
            return Err(RuleError::GuardsNothing);
        }
        if !(1..=MAX_NEEDED).contains(needed) {
            return Err(RuleError::Needed(*needed));
        }
        if !(1..=MAX_APPROVERS).contains(&approvers.len()) {
            return Err(RuleError::Approvers(approvers.len()));
        }
        if !(SHORTEST..=LONGEST).contains(expires_after) {
            return Err(RuleError::Lifetime(*expires_after));
        }
        check_approvers(approvers, *needed)
    }

    /// Whether a vote that was given under these principals counts here.
    fn counts(&self, vote: &Vote) -> bool {
        self.approvers.iter().any(|approver| vote.under.contains(approver))
    }

    fn names(&self, caller: &Caller) -> bool {
        caller.identities().any(|i| self.approvers.iter().any(|a| a.matches(i)))
    }
}

fn check_approvers(approvers: &[Principal], needed: u8) -> Result<(), RuleError> {
    for (at, approver) in approvers.iter().enumerate() {
        approver.check()?;
        if !matches!(approver, Principal::User(_) | Principal::UserGroup(_)) {
            return Err(RuleError::NotPeople(approver.clone()));
        }
        if approvers[..at].contains(approver) {
            return Err(RuleError::Duplicate(approver.clone()));
        }
    }
    let has_group = approvers.iter().any(|a| matches!(a, Principal::UserGroup(_)));
    match has_group || approvers.len() >= usize::from(needed) {
        true => Ok(()),
        false => Err(RuleError::NeverSatisfied { needed, users: approvers.len() }),
    }
}

impl fmt::Display for ApprovalRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, needed, approvers, expires_after } = self;
        let approvers: Vec<_> = approvers.iter().map(ToString::to_string).collect();
        write!(f, "{operations}: {needed} of {} within {expires_after} s", approvers.join(", "))
    }
}

/// The rules of one key or prefix. Clones share them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Rules(Option<Arc<[ApprovalRule]>>);

impl Rules {
    /// Rules that are to be written.
    ///
    /// # Errors
    /// [`RuleError`] of the first that is wrong.
    pub fn new(rules: Vec<ApprovalRule>) -> Result<Self, RuleError> {
        if rules.len() > MAX_RULES {
            return Err(RuleError::TooMany(rules.len()));
        }
        rules.iter().try_for_each(ApprovalRule::check)?;
        Ok(Self((!rules.is_empty()).then(|| rules.into())))
    }

    /// The rules in order.
    #[must_use]
    pub fn all(&self) -> &[ApprovalRule] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.all() {
            [] => f.write_str("no rules"),
            all => f.write_str(&all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        }
    }
}

/// One exact request that others may have to agree to: all that the caller can choose about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Reading a key's data.
    Read {
        /// The key.
        key: KeyId,
        /// Which versions.
        select: Select,
    },
    /// Taking out the material of a version of a key that is used; of the primary one unless another is named.
    Export {
        /// The key.
        key: KeyId,
        /// The version.
        version: Option<VersionId>,
    },
    /// Making a version the primary one.
    Promote {
        /// The key.
        key: KeyId,
        /// The version.
        version: VersionId,
    },
    /// Destroying a version.
    Destroy {
        /// The key.
        key: KeyId,
        /// The version.
        version: VersionId,
    },
    /// Deleting a key.
    Delete {
        /// The key.
        key: KeyId,
    },
    /// Changing a key's rights.
    ChangeRights {
        /// The key.
        key: KeyId,
        /// The whole list after it.
        acl: Acl,
    },
    /// Changing a key's own rules.
    ChangeRules {
        /// The key.
        key: KeyId,
        /// All rules after it.
        rules: Rules,
    },
    /// Changing or removing the grants on a prefix. Removing them removes its rules, too.
    ChangePrefix {
        /// Where.
        prefix: Prefix,
        /// The list after it, and whether any user may create keys there; none where they are removed.
        grants: Option<(Acl, bool)>,
    },
    /// Changing the rules of a prefix.
    ChangePrefixRules {
        /// Where.
        prefix: Prefix,
        /// All rules after it.
        rules: Rules,
    },
    /// Making a new barrier key.
    RotateBarrier,
}

/// Where a rule stands, as seen from what a deed changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RulePlace {
    /// On it.
    Own,
    /// On a prefix of it.
    Above,
    /// On something below it.
    Below,
}

/// What a deed is done to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeedTarget<'a> {
    /// A key.
    Key(&'a KeyId),
    /// A prefix.
    Prefix(&'a Prefix),
    /// The store as a whole.
    System,
}

impl fmt::Display for DeedTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => f.write_str(id.as_str()),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::System => f.write_str("the store"),
        }
    }
}

impl Deed {
    /// What it is done to.
    #[must_use]
    pub fn target(&self) -> DeedTarget<'_> {
        match self {
            Self::Read { key, .. }
            | Self::Export { key, .. }
            | Self::Promote { key, .. }
            | Self::Destroy { key, .. }
            | Self::Delete { key }
            | Self::ChangeRights { key, .. }
            | Self::ChangeRules { key, .. } => DeedTarget::Key(key),
            Self::ChangePrefix { prefix, .. } | Self::ChangePrefixRules { prefix, .. } => DeedTarget::Prefix(prefix),
            Self::RotateBarrier => DeedTarget::System,
        }
    }

    /// The name by which people and programs call it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Export { .. } => "export",
            Self::Promote { .. } => "promote",
            Self::Destroy { .. } => "destroy",
            Self::Delete { .. } => "delete",
            Self::ChangeRights { .. } => "change_rights",
            Self::ChangeRules { .. } => "change_rules",
            Self::ChangePrefix { .. } => "change_prefix",
            Self::ChangePrefixRules { .. } => "change_prefix_rules",
            Self::RotateBarrier => "rotate_barrier",
        }
    }

    /// Whether a rule that stands at `place` has a say in it. This is the one table of which rule guards what ▲.
    #[must_use]
    pub fn is_guarded_by(&self, rule: &ApprovalRule, place: RulePlace) -> bool {
        use Guarded::{Delete, Destroy, Export, Grant, Promote, Read, Root};
        let (guards, own) = (rule.operations, place == RulePlace::Own);
        match self {
            Self::Read { .. } => guards.contains(Read),
            // Who exports reads, and more.
            Self::Export { .. } => guards.contains_any([Export, Read]),
            Self::Promote { .. } => guards.contains(Promote),
            Self::Destroy { .. } => guards.contains(Destroy),
            // Who deletes a key destroys all versions of it, and who makes one of its name again chooses the primary version and
            // the rights: so a rule about those guards the deletion, too. And it takes the key's own rules away.
            Self::Delete { .. } => own || guards.contains_any([Delete, Destroy, Grant, Promote]),
            Self::ChangeRights { .. } => guards.contains(Grant),
            // A rule guards itself, whatever else it guards.
            Self::ChangeRules { .. } => own || guards.contains(Grant),
            // Rules below have a say: grants on a prefix are grants on what is below.
            Self::ChangePrefix { grants: Some(_), .. } => guards.contains(Grant),
            Self::ChangePrefix { grants: None, .. } => own || guards.contains(Grant),
            // Rules add up, so none below is weaker for it.
            Self::ChangePrefixRules { .. } => own || (place == RulePlace::Above && guards.contains(Grant)),
            Self::RotateBarrier => own && guards.contains(Root),
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { key, select: Select::One(version) } => write!(f, "read version {version} of `{key}`"),
            Self::Read { key, select: Select::Primary } => write!(f, "read the primary version of `{key}`"),
            Self::Read { key, select: Select::Active } => write!(f, "read the primary and active versions of `{key}`"),
            Self::Read { key, select: Select::All } => write!(f, "read all versions of `{key}`"),
            Self::Export { key, version: Some(version) } => write!(f, "export the material of version {version} of `{key}`"),
            Self::Export { key, version: None } => write!(f, "export the material of the primary version of `{key}`"),
            Self::Promote { key, version } => write!(f, "promote version {version} of `{key}`"),
            Self::Destroy { key, version } => write!(f, "destroy version {version} of `{key}`"),
            Self::Delete { key } => write!(f, "delete `{key}`"),
            Self::ChangeRights { key, .. } => write!(f, "change the rights on `{key}`"),
            Self::ChangeRules { key, .. } => write!(f, "change the approval rules of `{key}`"),
            Self::ChangePrefix { prefix, grants: Some(_) } => write!(f, "change the grants on `{prefix}*`"),
            Self::ChangePrefix { prefix, grants: None } => write!(f, "remove the grants and rules on `{prefix}*`"),
            Self::ChangePrefixRules { prefix, .. } => write!(f, "change the approval rules on `{prefix}*`"),
            Self::RotateBarrier => f.write_str("rotate the barrier key"),
        }
    }
}

/// The name of a request for approval. Random, not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ApprovalId(pub u64);

impl ApprovalId {
    /// The id as [`fmt::Display`] writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex { u64::from_str_radix(text, 16).ok().map(Self) } else { None }
    }
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a request says about approvals.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Approving {
    /// Nothing: what takes approval is refused.
    #[default]
    Plain,
    /// It asks for approval instead of doing it, for this reason.
    Ask(Arc<str>),
    /// It rests on this approval.
    With(ApprovalId),
}

/// One person's agreement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vote {
    /// All names that he proved or could have proven, his user's name first.
    pub names: Box<[Principal]>,
    /// The approvers of rules, users and groups, that reached him.
    pub under: Box<[Principal]>,
    /// When.
    pub at: Timestamp,
    /// What he said about it.
    pub comment: Box<str>,
}

/// How a request for approval ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ended {
    /// An approver said no.
    Rejected,
    /// The requester took it back.
    Withdrawn,
    /// Its time ran out.
    Expired,
    /// It was carried out: it is never used again.
    CarriedOut,
    /// The store was changed behind Claviger's back, so nobody knows whether it was carried out already.
    Void,
}

impl Ended {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Rejected, Self::Withdrawn, Self::Expired, Self::CarriedOut, Self::Void];

    /// The name in answers and the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
            Self::CarriedOut => "carried_out",
            Self::Void => "void",
        }
    }
}

/// The end of a request for approval.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// How.
    pub how: Ended,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: Box<str>,
    /// What he said about it.
    pub comment: Box<str>,
}

/// A request for approval and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Approval {
    /// Its name.
    pub id: ApprovalId,
    /// Which change of it.
    pub generation: Generation,
    /// The exact request.
    pub deed: Deed,
    /// Incarnation and generation of its target when it was asked: on any other it is not carried out ▲.
    pub standing: (Incarnation, Generation),
    /// All names that the requester proved or could have proven, the default one first.
    pub requester: Box<[Principal]>,
    /// Why he wants it.
    pub reason: Box<str>,
    /// When he asked.
    pub asked: Timestamp,
    /// When it can no longer be carried out.
    pub expires: Timestamp,
    /// Who agreed, in order.
    pub votes: Vec<Vote>,
    /// Its end, if it has ended.
    pub end: Option<End>,
}

/// Why somebody cannot vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum VoteError {
    /// He asked for it himself, or shares an identity with who did.
    #[error("you asked for it, or come with an identity of who did: somebody else must decide")]
    OwnRequest,
    /// No rule in force names him.
    #[error("no rule that is in force names you as an approver of this")]
    NoApprover,
    /// He has agreed already.
    #[error("you have approved it already; each person counts once")]
    VotedBefore,
    /// Too many have agreed for one more to be written down.
    #[error("it has as many approvals as can be kept")]
    Full,
    /// It has ended.
    #[error("it is over: {}", .0.name())]
    Ended(Ended),
}

/// Nanoseconds by which a clock may be set back before what was asked for is taken for a wrong clock's: an hour.
const SKEW: i64 = 3_600_000_000_000;

/// Votes of one request at most: as many as all rules together can demand, and some.
const MAX_VOTES: usize = 64;

impl Approval {
    /// How it has ended by `now`, if it has. One that was asked for in the future, by a clock that was wrong then or is now, has:
    /// it would last longer than its rule gives it.
    #[must_use]
    pub fn ended(&self, now: Timestamp) -> Option<Ended> {
        let is_from_the_future = self.asked.0.saturating_sub(now.0) > SKEW;
        match &self.end {
            Some(end) => Some(end.how),
            None => (now >= self.expires || is_from_the_future).then_some(Ended::Expired),
        }
    }

    /// From when on it is not carried out, where these rules guard it: a rule that gives less time counts from the moment it is
    /// set, as in all else.
    #[must_use]
    pub fn expires_by(&self, rules: &[ApprovalRule]) -> Timestamp {
        let each = rules.iter().map(|rule| self.asked.0.saturating_add(i64::from(rule.expires_after) * 1_000_000_000));
        Timestamp(each.fold(self.expires.0, i64::min))
    }

    /// As [`Approval::ended`], where these rules guard it.
    #[must_use]
    pub fn ended_by(&self, rules: &[ApprovalRule], now: Timestamp) -> Option<Ended> {
        self.ended(now).or_else(|| (now >= self.expires_by(rules)).then_some(Ended::Expired))
    }

    /// The request with the votes of others than `caller`: who comes now with a name that a voter had gave that vote himself.
    #[must_use]
    pub fn with_votes_of_others(&self, caller: &Caller) -> Self {
        let names = names_of(caller);
        let mut others = self.clone();
        others.votes.retain(|vote| !vote.names.iter().any(|v| names.iter().any(|n| may_be_one(v, n))));
        others
    }

    /// Whether `caller` is who asked: the deed is carried out by nobody else.
    #[must_use]
    pub fn is_requested_by(&self, caller: &Caller) -> bool {
        caller.default_identity().is_some_and(|i| self.requester.first() == Some(&i.principal()))
    }

    /// Whether `caller` could have asked for it by a name of his own: of a machine any that its certificate allows. For limits.
    #[must_use]
    pub fn counts_for(&self, caller: &Caller) -> bool {
        self.requester.first().is_some_and(|first| names_of(caller).iter().any(|name| may_be_one(first, name)))
    }

    /// Whether `caller` comes with any identity of who asked, under whatever spelling.
    #[must_use]
    pub fn shares_identity_with_requester(&self, caller: &Caller) -> bool {
        let names = names_of(caller);
        self.requester.iter().any(|r| names.iter().any(|n| may_be_one(r, n)))
    }

    /// Whether `caller` may decide about it by one of `rules`, which are those in force that guard the deed.
    ///
    /// # Errors
    /// [`VoteError`] says why not.
    pub fn may_decide(&self, rules: &[ApprovalRule], caller: &Caller, now: Timestamp) -> Result<(), VoteError> {
        if let Some(how) = self.ended_by(rules, now) {
            return Err(VoteError::Ended(how));
        }
        // The requester first: that he is an approver, too, must not tempt him to look for the reason elsewhere.
        if self.shares_identity_with_requester(caller) {
            return Err(VoteError::OwnRequest);
        }
        if !rules.iter().any(|rule| rule.names(caller)) {
            return Err(VoteError::NoApprover);
        }
        Ok(())
    }

    /// The vote of `caller` for it.
    ///
    /// # Errors
    /// [`VoteError`] says why he has none.
    pub fn vote(&self, rules: &[ApprovalRule], caller: &Caller, now: Timestamp, comment: &str) -> Result<Vote, VoteError> {
        self.may_decide(rules, caller, now)?;
        let names = names_of(caller);
        let is_known = |vote: &Vote| vote.names.iter().any(|v| names.iter().any(|n| may_be_one(v, n)));
        if self.votes.iter().any(is_known) {
            return Err(VoteError::VotedBefore);
        }
        if self.votes.len() >= MAX_VOTES {
            return Err(VoteError::Full);
        }
        let mut under: Vec<Principal> = Vec::new();
        for approver in rules.iter().flat_map(|rule| rule.approvers.iter()) {
            if !under.contains(approver) && caller.identities().any(|i| approver.matches(i)) {
                under.push(approver.clone());
            }
        }
        Ok(Vote { names: names.into(), under: under.into(), at: now, comment: comment.into() })
    }

    /// How many approvals `rule` has of those it demands: votes count that were given under an approver whom the rule, as it
    /// is now, still names.
    #[must_use]
    pub fn votes_for(&self, rule: &ApprovalRule) -> usize {
        self.votes.iter().filter(|vote| rule.counts(vote)).count()
    }

    /// Whether all of `rules` have what they demand.
    #[must_use]
    pub fn satisfies(&self, rules: &[ApprovalRule]) -> bool {
        rules.iter().all(|rule| self.votes_for(rule) >= usize::from(rule.needed))
    }

    /// The request after a change, one generation on.
    #[must_use]
    pub fn changed(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut after = Self { generation: self.generation.next(), ..self.clone() };
        change(&mut after);
        after
    }
}

/// All names of a caller: a user's first, since those are persons.
#[must_use]
pub fn names_of(caller: &Caller) -> Vec<Principal> {
    let mut names: Vec<Principal> = Vec::new();
    for identity in caller.all_his_names() {
        let name = identity.principal();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Whether two names can be the same party's: equal, or spellings of one machine.
fn may_be_one(a: &Principal, b: &Principal) -> bool {
    let reaches = |principal: &Principal, name: &Principal| identity_of(name).is_some_and(|i| crate::acl::could_reach(principal, &i));
    a == b || reaches(a, b) || reaches(b, a)
}

fn identity_of(name: &Principal) -> Option<Identity> {
    match name {
        Principal::User(name) => Some(Identity::User { name: name.clone(), groups: Arc::from([]) }),
        Principal::Machine(name) => Some(Identity::Machine { name: name.clone() }),
        Principal::Service(id) => Some(Identity::Service { id: id.clone() }),
        Principal::UserGroup(_) | Principal::MachinePrefix(_) | Principal::ServicePrefix(_) => None,
    }
}

/// The lines that show how a list of rights changes: `+` what comes, `-` what goes, `~` what becomes something else.
#[must_use]
pub fn acl_difference(old: &Acl, new: &Acl) -> Vec<String> {
    let mut lines = Vec::new();
    for grant in old.grants() {
        let now = new.entry(&grant.principal);
        if now.is_empty() {
            lines.push(format!("- {}: {}", grant.principal, grant.capabilities));
        } else if now != grant.capabilities {
            lines.push(format!("~ {}: {} -> {now}", grant.principal, grant.capabilities));
        }
    }
    let comes = new.grants().iter().filter(|grant| old.entry(&grant.principal).is_empty());
    lines.extend(comes.map(|grant| format!("+ {}: {}", grant.principal, grant.capabilities)));
    lines
}

/// The lines that show how rules change.
#[must_use]
pub fn rules_difference(old: &Rules, new: &Rules) -> Vec<String> {
    let goes = old.all().iter().filter(|rule| !new.all().contains(rule)).map(|rule| format!("- rule {rule}"));
    let comes = new.all().iter().filter(|rule| !old.all().contains(rule)).map(|rule| format!("+ rule {rule}"));
    goes.chain(comes).collect()
}

/// Whether text can be a reason or comment. Marks that turn around or hide what stands beside them cannot be in one: who decides
/// must see what is there. Those that join letters are part of some scripts.
#[must_use]
pub fn is_reason(text: &str) -> bool {
    text.len() <= MAX_REASON && !text.chars().any(|c| c.is_control() || is_hidden(c))
}

fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Proven, RequestId};
    use proptest::prelude::*;

    fn user(name: &str, groups: &[&str]) -> Identity {
        Identity::User { name: name.into(), groups: groups.iter().map(|g| Arc::from(*g)).collect() }
    }

    fn caller(identities: &[Identity]) -> Caller {
        let proven = identities.iter().map(|identity| Proven { identity: identity.clone(), method: "token" }).collect();
        Caller::new(proven, RequestId(1), None).unwrap()
    }

    fn person(name: &str) -> Caller {
        caller(&[user(name, &[])])
    }

    fn rule(operations: &[Guarded], needed: u8, approvers: &[&str]) -> ApprovalRule {
        ApprovalRule {
            operations: GuardedSet::of(operations.iter().copied()),
            needed,
            approvers: approvers.iter().map(|a| a.parse().unwrap()).collect(),
            expires_after: 3600,
        }
    }

    fn asked_by(requester: &Caller) -> Approval {
        Approval {
            id: ApprovalId(7),
            generation: Generation::FIRST,
            deed: Deed::Delete { key: KeyId::parse("team/db").unwrap() },
            standing: (Incarnation(1), Generation(3)),
            requester: names_of(requester).into(),
            reason: "".into(),
            asked: Timestamp(0),
            expires: Timestamp(100),
            votes: Vec::new(),
            end: None,
        }
    }

    fn with_vote(approval: &Approval, rules: &[ApprovalRule], voter: &Caller) -> Approval {
        let vote = approval.vote(rules, voter, Timestamp(1), "").unwrap();
        approval.changed(|a| a.votes.push(vote))
    }

    #[test]
    fn a_rule_that_nobody_could_satisfy_or_that_names_no_people_is_refused() {
        let good = rule(&[Guarded::Read], 2, &["user:a", "user:b"]);
        assert_eq!(good.check(), Ok(()));
        let bad = [
            rule(&[], 1, &["user:a"]),
            rule(&[Guarded::Read], 0, &["user:a"]),
            rule(&[Guarded::Read], 17, &["user_group:a"]),
            rule(&[Guarded::Read], 1, &[]),
            rule(&[Guarded::Read], 2, &["user:a"]),
            rule(&[Guarded::Read], 1, &["user:a", "user:a"]),
            rule(&[Guarded::Read], 1, &["machine:a"]),
            rule(&[Guarded::Read], 1, &["service:spiffe://d/a"]),
            ApprovalRule { expires_after: 59, ..good.clone() },
            ApprovalRule { expires_after: LONGEST + 1, ..good.clone() },
        ];
        for bad in bad {
            assert!(bad.check().is_err(), "{bad}");
        }
        assert_eq!(rule(&[Guarded::Read], 9, &["user_group:a"]).check(), Ok(()));
        assert_eq!(Rules::new(vec![good; MAX_RULES + 1]), Err(RuleError::TooMany(MAX_RULES + 1)));
        assert!(Rules::new(Vec::new()).unwrap().is_empty());
    }

    #[test]
    fn the_requester_decides_nothing_under_any_of_his_names() {
        let machine = |name: &str| Identity::Machine { name: name.into() };
        let rules = [rule(&[Guarded::Delete], 1, &["user:alice", "user:bob", "user_group:sec"])];
        let alice = caller(&[user("alice", &["sec"]), machine("host1")]).with_other_names(Arc::from([user("al", &[])]));
        let approval = asked_by(&alice);
        for proxy in [
            caller(&[user("alice", &[])]),
            caller(&[user("bob", &[]), machine("host1")]),
            caller(&[user("bob", &[]), machine("HOST1.")]),
            caller(&[user("bob", &[]), user("al", &[])]),
            caller(&[user("bob", &[])]).with_other_names(Arc::from([machine("host1")])),
        ] {
            assert_eq!(approval.vote(&rules, &proxy, Timestamp(1), ""), Err(VoteError::OwnRequest));
        }
        assert!(approval.vote(&rules, &person("bob"), Timestamp(1), "").is_ok());
        assert_eq!(approval.vote(&rules, &person("eve"), Timestamp(1), ""), Err(VoteError::NoApprover));
    }

    #[test]
    fn each_person_counts_once_under_whatever_names_and_groups() {
        let rules = [rule(&[Guarded::Delete], 2, &["user:bob", "user_group:sec", "user:robert"])];
        let bob = caller(&[user("bob", &["sec"]), user("robert", &[])]);
        let once = with_vote(&asked_by(&person("alice")), &rules, &bob);
        assert_eq!(once.votes_for(&rules[0]), 1);
        for again in [person("bob"), person("robert"), bob] {
            assert_eq!(once.vote(&rules, &again, Timestamp(1), ""), Err(VoteError::VotedBefore));
        }
        assert!(!once.satisfies(&rules));
        assert!(with_vote(&once, &rules, &caller(&[user("carol", &["sec"])])).satisfies(&rules));
    }

    #[test]
    fn a_vote_counts_only_while_the_rule_names_its_voter() {
        let before = [rule(&[Guarded::Delete], 1, &["user:bob", "user_group:sec"])];
        let by_bob = with_vote(&asked_by(&person("alice")), &before, &person("bob"));
        let by_carol = with_vote(&asked_by(&person("alice")), &before, &caller(&[user("carol", &["sec"])]));
        let after = [rule(&[Guarded::Delete], 1, &["user_group:sec"])];
        assert!(by_bob.satisfies(&before) && !by_bob.satisfies(&after));
        assert!(by_carol.satisfies(&before) && by_carol.satisfies(&after));
    }

    #[test]
    fn all_rules_that_reach_a_deed_must_be_satisfied() {
        let rules = [rule(&[Guarded::Delete], 1, &["user:bob"]), rule(&[Guarded::Delete], 2, &["user:carol", "user:dave", "user:bob"])];
        let one = with_vote(&asked_by(&person("alice")), &rules, &person("bob"));
        assert!(!one.satisfies(&rules));
        assert!(with_vote(&one, &rules, &person("dave")).satisfies(&rules));
        assert!(one.satisfies(&[]));
    }

    #[test]
    fn what_has_ended_takes_no_votes() {
        let rules = [rule(&[Guarded::Delete], 1, &["user:bob"])];
        let approval = asked_by(&person("alice"));
        assert_eq!(approval.vote(&rules, &person("bob"), Timestamp(100), ""), Err(VoteError::Ended(Ended::Expired)));
        for how in Ended::ALL {
            let end = End { how, at: Timestamp(1), by: "x".into(), comment: "".into() };
            let over = approval.changed(|a| a.end = Some(end));
            assert_eq!(over.vote(&rules, &person("bob"), Timestamp(1), ""), Err(VoteError::Ended(how)));
        }
    }

    #[test]
    fn a_clock_that_is_set_back_or_was_ahead_gives_no_more_time() {
        let hour = 3_600_000_000_000;
        let asked = Approval { asked: Timestamp(5 * hour), expires: Timestamp(7 * hour), ..asked_by(&person("alice")) };
        for (now, ended) in [(3, true), (4, false), (5, false), (6, false), (7, true)] {
            assert_eq!(asked.ended(Timestamp(now * hour)).is_some(), ended, "{now}");
        }
        let forgotten = asked.changed(|a| a.end = Some(End { how: Ended::Rejected, at: Timestamp(0), by: "x".into(), comment: "".into() }));
        assert_eq!(forgotten.ended(Timestamp(0)), Some(Ended::Rejected));
    }

    #[test]
    fn which_rule_guards_what() {
        let key = || KeyId::parse("team/db").unwrap();
        let prefix = || Prefix::parse("team/").unwrap();
        let version = VersionId::new(1).unwrap();
        let deeds = [
            Deed::Read { key: key(), select: Select::Active },
            Deed::Promote { key: key(), version },
            Deed::Destroy { key: key(), version },
            Deed::Delete { key: key() },
            Deed::ChangeRights { key: key(), acl: Acl::default() },
            Deed::ChangeRules { key: key(), rules: Rules::default() },
            Deed::ChangePrefix { prefix: prefix(), grants: Some((Acl::default(), false)) },
            Deed::ChangePrefix { prefix: prefix(), grants: None },
            Deed::ChangePrefixRules { prefix: prefix(), rules: Rules::default() },
            Deed::RotateBarrier,
        ];
        // For each deed, in order: the operations of which a rule on the target, on a prefix of it, and below it guards it.
        let table = [
            ["read", "read", "read"],
            ["promote", "promote", "promote"],
            ["destroy", "destroy", "destroy"],
            ["read,destroy,delete,grant,promote,export,root", "destroy,delete,grant,promote", "destroy,delete,grant,promote"],
            ["grant", "grant", "grant"],
            ["read,destroy,delete,grant,promote,export,root", "grant", "grant"],
            ["grant", "grant", "grant"],
            ["read,destroy,delete,grant,promote,export,root", "grant", "grant"],
            ["read,destroy,delete,grant,promote,export,root", "grant", ""],
            ["root", "", ""],
        ];
        for (deed, expected) in deeds.iter().zip(table) {
            for (place, expected) in [RulePlace::Own, RulePlace::Above, RulePlace::Below].into_iter().zip(expected) {
                let guarding = Guarded::ALL.into_iter().filter(|g| deed.is_guarded_by(&rule(&[*g], 1, &["user:a"]), place));
                assert_eq!(GuardedSet::of(guarding).to_string(), expected, "{deed} {place:?}");
            }
        }
    }

    #[test]
    fn differences_say_what_comes_goes_and_changes() {
        use crate::{Capabilities, Capability};
        let entry = |acl: Acl, who: &str, c: Capability| acl.set(who.parse().unwrap(), Capabilities::of([c]));
        let old = entry(entry(Acl::default(), "user:a", Capability::Read), "user:b", Capability::List);
        let new = entry(entry(Acl::default(), "user:a", Capability::Admin), "user:c", Capability::Read);
        assert_eq!(acl_difference(&old, &new), ["~ user:a: read -> admin", "- user:b: list", "+ user:c: read"]);
        let some = Rules::new(vec![rule(&[Guarded::Read], 1, &["user:a"])]).unwrap();
        assert_eq!(rules_difference(&some, &Rules::default()), ["- rule read: 1 of user:a within 3600 s"]);
        assert!(rules_difference(&some, &some).is_empty());
    }

    proptest! {
        #[test]
        fn whoever_votes_in_whatever_order_only_different_others_satisfy_a_rule(order in prop::collection::vec(0usize..5, 0..12), needed in 1u8..4) {
            let rules = [rule(&[Guarded::Delete], needed, &["user_group:sec"])];
            let people: Vec<Caller> = (0..5).map(|n| caller(&[user(&format!("p{n}"), &["sec"])])).collect();
            let mut approval = asked_by(&people[0]);
            for n in &order {
                if let Ok(vote) = approval.vote(&rules, &people[*n], Timestamp(1), "") {
                    approval = approval.changed(|a| a.votes.push(vote));
                }
            }
            let others: std::collections::BTreeSet<_> = order.iter().filter(|n| **n != 0).collect();
            prop_assert_eq!(approval.votes.len(), others.len());
            prop_assert_eq!(approval.satisfies(&rules), others.len() >= usize::from(needed));
        }

        #[test]
        fn ids_read_as_they_are_written(id: u64) {
            prop_assert_eq!(ApprovalId::parse(&ApprovalId(id).to_string()), Some(ApprovalId(id)));
        }
    }
}
