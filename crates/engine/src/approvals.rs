//! Approvals: the gate before every guarded deed, and what people do with requests for approval.
//!
//! Which rule guards what, who may agree and when it is enough stands in `claviger_domain`; here it is asked of what stands,
//! stored, used once, and recorded.
//!
//! # Guarantees
//! - A guarded deed takes place only with an approval for exactly it, on the generation of its target that was asked about,
//!   with the votes that the rules in force *then* demand ▲.
//! - A change and the use of its approval are one commit. Before a read's answer leaves, the use is durable. Either way an
//!   approval is used once ▲.
//!
//! # Assumptions
//! That somebody is in a group is known when he shows it: a vote is as good as the groups that its voter had then.

use crate::commit::Apply;
use crate::keys::ReadKey;
use crate::memory::{Slot, Tables};
use crate::prefixes::PrefixEdit;
use crate::start::Engine;
use crate::{ApprovalProblem, Error, Needed, Note, Precondition, RightsEdit, Surface};
use claviger_crypto::{add, deed_hash, negate, random};
use claviger_domain::audit::{Action, Outcome, Record, RightsChange, Subject};
use claviger_domain::{
    Approval, ApprovalId, ApprovalRule, Approving, Caller, Capabilities, Capability, Deed, DeedTarget, End, Ended, Generation, Incarnation,
    KeyId, Prefix, RequestId, Revision, RulePlace, Rules, Timestamp, Transition, acl_difference, cap, is_reason, names_of,
    rules_difference,
};
use claviger_ports::{ApprovalRow, DigestDelta, Effect, Expected, Target, Write};
use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Requests that wait at once, in all and of one requester.
const OPEN: usize = 1024;
const OPEN_OF_ONE: usize = 64;
/// Requests of one requester within an hour, whatever became of them: each is kept for a while, and told to everybody who listens.
const LATELY: usize = 256;
const HOUR: i64 = 3_600_000_000_000;
/// Ended requests that are kept; the oldest go.
const ENDED: usize = 1024;
/// Bytes that a request has at most, so that thousands of them fit into memory.
const LARGEST: usize = 64 << 10;
/// Lost races that are retried inside before the caller is told.
const TRIES: usize = 64;

/// A request for approval as memory has it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) approval: Approval,
    /// What its row adds to the set digest.
    pub(crate) digest: DigestDelta,
    pub(crate) revision: Revision,
}

/// A request for approval as it is shown to who may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownApproval {
    /// The request and its votes.
    pub approval: Approval,
    /// What approvers agree to: the hash of the exact request and of what its target was.
    pub hash: [u8; 32],
    /// The rules that guard it now, and how many of the approvals that each demands there are.
    pub rules: Vec<(ApprovalRule, usize)>,
    /// Where it stands.
    pub state: &'static str,
    /// What it would change in what stands now, line by line. Never data ▲.
    pub changes: Vec<String>,
    /// The revision of its last change.
    pub revision: Revision,
}

/// Something that people want to hear of at once.
#[derive(Debug, Clone)]
pub struct Notice {
    /// `asked`, `approved`, `rejected`, `withdrawn`, `expired`, `carried_out` or `bypassed`.
    pub what: &'static str,
    /// When.
    pub at: Timestamp,
    /// Who did it.
    pub by: String,
    /// To what; for what bypassed approvals there is no request.
    pub about: Result<Box<ShownApproval>, String>,
}

/// What an approver says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Approve,
    /// No, which ends the request.
    Reject,
}

/// What carrying out a request gave.
pub enum Ran {
    /// Data.
    Read(ReadKey),
    /// Material.
    Exported(crate::Exported),
    /// A change, at this revision.
    Changed(Revision),
    /// Nothing yet: rotating the barrier takes the roots, which the engine does not have. The caller does it, with the approval.
    Rotate,
}

/// Rules with the prefix that each stands on; without one it is the key's own.
pub type PlacedRules = Vec<(Option<Prefix>, ApprovalRule)>;

/// What lets a deed pass.
pub(crate) enum Cleared {
    /// No rule guards it.
    Free,
    /// Rules do, and the glass was broken.
    Broken(String),
    /// An approval.
    By(Box<Used>),
}

/// The use of an approval, worked out and not committed yet.
pub(crate) struct Used {
    pub(crate) after: Held,
    pub(crate) row: ApprovalRow,
    /// What the set digest gains.
    pub(crate) gained: DigestDelta,
    before: Generation,
    reason: String,
}

impl Cleared {
    /// Makes a write rest on it; the second value is what memory will show.
    pub(crate) fn attach(&self, write: Write) -> (Write, Option<Held>) {
        match self {
            Self::Free | Self::Broken(_) => (write, None),
            Self::By(used) => {
                let digest = add(write.digest, used.gained);
                (Write { uses: Some(Box::new(used.row.clone())), digest, ..write }, Some(used.after.copy()))
            }
        }
    }

    /// What the deed's record says of it.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Free => "",
            Self::Broken(reason) => reason,
            Self::By(used) => &used.reason,
        }
    }
}

impl Held {
    fn copy(&self) -> Self {
        Self { approval: self.approval.clone(), digest: self.digest, revision: self.revision }
    }
}

impl Tables {
    /// The rules that a key has of its own.
    pub(crate) fn own_rules(&self, id: &KeyId) -> Rules {
        match self.keys.get(id) {
            Some(Slot::Good(entry) | Slot::Doubtful(entry)) => entry.meta.rules.clone(),
            Some(Slot::Damaged(wreck)) => wreck.entry.as_ref().map_or_else(|| wreck.claimed_rules.clone(), |e| e.meta.rules.clone()),
            None => Rules::default(),
        }
    }

    pub(crate) fn set_prefix_rules(&mut self, prefix: &Prefix, rules: &Rules) {
        match rules.is_empty() {
            true => drop(self.prefix_rules.remove(prefix)),
            false => drop(self.prefix_rules.insert(prefix.clone(), rules.clone())),
        }
    }

    /// Whether any prefix of `id` has rules.
    pub(crate) fn has_rules_above(&self, id: &KeyId) -> bool {
        !self.prefix_rules.is_empty() && id.prefixes().any(|p| self.prefix_rules.contains_key(p))
    }

    /// The rules that guard a deed, given those of the key that it is done to, if it is one.
    pub(crate) fn guarding(&self, deed: &Deed, own: &Rules) -> Vec<ApprovalRule> {
        let (mut all, mut seen): (Vec<ApprovalRule>, HashSet<ApprovalRule>) = Default::default();
        let mut take = |rules: &Rules, place| {
            for rule in rules.all().iter().filter(|rule| deed.is_guarded_by(rule, place)) {
                if seen.insert(rule.clone()) {
                    all.push(rule.clone());
                }
            }
        };
        match deed.target() {
            DeedTarget::Key(id) => {
                take(own, RulePlace::Own);
                id.prefixes().filter_map(|p| self.prefix_rules.get(p)).for_each(|rules| take(rules, RulePlace::Above));
            }
            DeedTarget::Prefix(prefix) => {
                for (other, rules) in &self.prefix_rules {
                    if let Some(place) = place(other, prefix) {
                        take(rules, place);
                    }
                }
                let from = self.ruled.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
                from.take_while(|id| prefix.covers(id)).for_each(|id| take(&self.own_rules(id), RulePlace::Below));
            }
            DeedTarget::System => self.prefix_rules.get("").into_iter().for_each(|rules| take(rules, RulePlace::Own)),
        }
        all
    }

    /// The rules that guard a deed as its target stands.
    fn guarding_now(&self, deed: &Deed) -> Vec<ApprovalRule> {
        let own = match deed.target() {
            DeedTarget::Key(id) => self.own_rules(id),
            DeedTarget::Prefix(_) | DeedTarget::System => Rules::default(),
        };
        self.guarding(deed, &own)
    }

    /// What a deed's target is, for comparison with what it was when approval was asked for.
    fn standing_of(&self, target: DeedTarget<'_>, barrier: u32) -> (Incarnation, Generation) {
        match target {
            DeedTarget::Key(id) => match self.keys.get(id) {
                Some(Slot::Good(entry) | Slot::Doubtful(entry)) => (entry.meta.incarnation, entry.meta.generation),
                Some(Slot::Damaged(wreck)) => wreck.standing,
                None => crate::prefixes::NOTHING,
            },
            DeedTarget::Prefix(prefix) => {
                self.grants.get(prefix).map_or(crate::prefixes::NOTHING, |g| (g.grant.incarnation, g.grant.generation))
            }
            DeedTarget::System => (Incarnation(0), Generation(u64::from(barrier))),
        }
    }

    /// Whether `caller` administers what a deed is done to.
    fn administers(&self, caller: &Caller, target: DeedTarget<'_>) -> bool {
        let everything = Prefix::parse("").ok();
        let rights = match target {
            DeedTarget::Key(id) => self.find_for(caller, id.as_str()).ok().map(|entry| self.permits(caller, entry)),
            DeedTarget::Prefix(prefix) => Some(self.prefix_rights(caller, prefix)),
            DeedTarget::System => everything.map(|p| self.prefix_rights(caller, &p)),
        };
        rights.is_some_and(|r| r.contains(Capability::Admin))
    }

    /// Whether `caller` may see a request: who asked, who may decide, who administers its target. Nobody else learns of it ▲.
    fn may_see(&self, caller: &Caller, held: &Held) -> bool {
        held.approval.is_requested_by(caller) || self.is_over(caller, &held.approval.deed)
    }

    /// Whether `caller` may decide about a deed, or administers its target.
    fn is_over(&self, caller: &Caller, deed: &Deed) -> bool {
        let is_approver = || {
            let rules = self.guarding_now(deed);
            caller.identities().any(|i| rules.iter().flat_map(|r| r.approvers.iter()).any(|a| a.matches(i)))
        };
        self.administers(caller, deed.target()) || is_approver()
    }

    /// Whether `caller`, who may see a request, may also see what its target is now: who asked may have lost his rights since ▲.
    fn may_see_target(&self, caller: &Caller, deed: &Deed) -> bool {
        let rights = || match deed.target() {
            DeedTarget::Key(id) => self.find_for(caller, id.as_str()).ok().map(|entry| self.permits(caller, entry)).unwrap_or_default(),
            DeedTarget::Prefix(_) | DeedTarget::System => Capabilities::NONE,
        };
        let is_by_its_rights = || match deed {
            Deed::Read { .. } | Deed::Export { .. } | Deed::Promote { .. } | Deed::Destroy { .. } => !rights().is_empty(),
            _ => rights().contains(Capability::List),
        };
        self.is_over(caller, deed) || is_by_its_rights()
    }

    /// A request as `to` sees it; nobody in particular sees it whole.
    fn shown(&self, held: &Held, to: Option<&Caller>, barrier: u32, now: Timestamp) -> ShownApproval {
        let rules = self.guarding_now(&held.approval.deed);
        let approval = Approval { expires: held.approval.expires_by(&rules), ..held.approval.clone() };
        let is_stale = self.standing_of(approval.deed.target(), barrier) != approval.standing;
        let state = match approval.ended(now) {
            Some(how) => how.name(),
            None if is_stale => "stale",
            None if approval.satisfies(&rules) => "approved",
            None => "open",
        };
        let sees_target = to.is_none_or(|caller| self.may_see_target(caller, &approval.deed));
        let changes = if sees_target && approval.end.is_none() { self.changes(&approval.deed, barrier) } else { Vec::new() };
        let rules = if sees_target { rules } else { Vec::new() };
        let rules = rules.into_iter().map(|rule| (rule.clone(), approval.votes_for(&rule))).collect();
        let hash = deed_hash(&approval.deed, approval.standing);
        ShownApproval { approval, hash, rules, state, changes, revision: held.revision }
    }

    /// What a deed would change in what stands, line by line.
    fn changes(&self, deed: &Deed, barrier: u32) -> Vec<String> {
        match deed.target() {
            DeedTarget::Key(id) => match self.find(id.as_str()) {
                Ok(entry) => changes_of_key(deed, &entry.meta),
                Err(why) => vec![why.to_string()],
            },
            DeedTarget::Prefix(prefix) => changes_of_prefix(deed, self.grants.get(prefix).map(|g| &*g.grant)),
            DeedTarget::System => vec![format!("~ barrier key: {barrier} -> {}", barrier + 1)],
        }
    }
}

/// Where rules on `other` stand, seen from `prefix`.
fn place(other: &Prefix, prefix: &Prefix) -> Option<RulePlace> {
    match (other == prefix, prefix.as_str().starts_with(other.as_str()), other.as_str().starts_with(prefix.as_str())) {
        (true, ..) => Some(RulePlace::Own),
        (_, true, _) => Some(RulePlace::Above),
        (.., true) => Some(RulePlace::Below),
        _ => None,
    }
}

fn changes_of_key(deed: &Deed, meta: &claviger_domain::KeyMeta) -> Vec<String> {
    let version = |id: claviger_domain::VersionId| match meta.versions.find(id) {
        Some(v) => format!("version {id} ({})", v.state.name()),
        None => format!("version {id} (gone)"),
    };
    match deed {
        Deed::Read { .. } => vec![format!("  the data of `{}` is given to who asks; nothing changes", meta.id)],
        Deed::Export { .. } => vec![format!("  the material of `{}` is given to who asks, and can be used outside from then on", meta.id)],
        Deed::Promote { version: new, .. } => {
            vec![format!("- primary: {}", version(meta.versions.primary().id)), format!("+ primary: {}", version(*new))]
        }
        Deed::Destroy { version: gone, .. } => vec![format!("- the data of {}, for ever", version(*gone))],
        Deed::Delete { .. } => {
            let versions = format!("- `{}` with {} versions, for ever", meta.id, meta.versions.len());
            let rights = acl_difference(&meta.acl, &claviger_domain::Acl::default());
            std::iter::once(versions).chain(rights).chain(rules_difference(&meta.rules, &Rules::default())).collect()
        }
        Deed::ChangeRights { acl, .. } => acl_difference(&meta.acl, acl),
        Deed::ChangeRules { rules, .. } => rules_difference(&meta.rules, rules),
        Deed::ChangePrefix { .. } | Deed::ChangePrefixRules { .. } | Deed::RotateBarrier => Vec::new(),
    }
}

fn changes_of_prefix(deed: &Deed, grant: Option<&claviger_domain::PrefixGrant>) -> Vec<String> {
    let old = grant.map(|g| g.acl.clone()).unwrap_or_default();
    let old_rules = grant.map(|g| g.rules.clone()).unwrap_or_default();
    let opened = grant.is_some_and(|g| g.any_user_creates);
    match deed {
        Deed::ChangePrefix { grants, .. } => {
            let (acl, any) = grants.clone().unwrap_or_default();
            let mut lines = acl_difference(&old, &acl);
            if opened != any {
                lines.push(format!("~ any user creates: {opened} -> {any}"));
            }
            if grants.is_none() {
                lines.extend(rules_difference(&old_rules, &Rules::default()));
            }
            lines
        }
        Deed::ChangePrefixRules { rules, .. } => rules_difference(&old_rules, rules),
        _ => Vec::new(),
    }
}

/// The gate.
impl Engine {
    /// Lets a deed pass, or says why not: files a request where the caller asks for approval, and takes the approval that he
    /// names otherwise. `own` are the rules of the key that it is done to, as the deed was worked out on.
    pub(crate) async fn clear(
        &self,
        caller: &Caller,
        surface: Surface,
        deed: Deed,
        standing: (Incarnation, Generation),
        own: &Rules,
    ) -> Result<Cleared, Error> {
        let rules = self.memory.read(|t| t.guarding(&deed, own));
        if rules.is_empty() && *caller.approval() == Approving::Plain {
            return Ok(Cleared::Free);
        }
        // Boxed: the rarer case must not make every change's future larger.
        Box::pin(self.clear_guarded(caller, surface, deed, standing, rules)).await
    }

    async fn clear_guarded(
        &self,
        caller: &Caller,
        surface: Surface,
        deed: Deed,
        standing: (Incarnation, Generation),
        rules: Vec<ApprovalRule>,
    ) -> Result<Cleared, Error> {
        match caller.approval() {
            _ if caller.system_reason().is_some() => Ok(Cleared::Free),
            Approving::With(id) => self.used(caller, *id, &deed, standing, &rules).map(|used| Cleared::By(Box::new(used))),
            Approving::Ask(_) if rules.is_empty() => Err(needs_none()),
            Approving::Ask(reason) => Err(self.file(caller, surface, deed, standing, &rules, reason).await),
            Approving::Plain if caller.breaks_glass() => {
                let rules: Vec<_> = rules.iter().map(ToString::to_string).collect();
                Ok(Cleared::Broken(format!("break-glass bypassed approval to {deed}, which needs {}", rules.join("; "))))
            }
            Approving::Plain => Err(needed(&deed, rules)),
        }
    }

    /// As [`Engine::clear`], for what no rule can guard: who asks for approval of it, or names one, does not mean it.
    pub(crate) fn clear_unguarded(&self, caller: &Caller) -> Result<(), Error> {
        match caller.approval() {
            Approving::Plain => Ok(()),
            Approving::Ask(_) => Err(needs_none()),
            Approving::With(_) => Err(ApprovalProblem::OtherRequest.into()),
        }
    }

    /// As [`Engine::clear`], for a change that comes to none: there is nothing to approve, and no approval is used up by it.
    pub(crate) fn clear_nothing(&self, caller: &Caller) -> Result<(), Error> {
        match caller.approval() {
            Approving::Plain => Ok(()),
            Approving::Ask(_) => Err(Error::invalid("claviger-ask", "this would change nothing; there is nothing to approve")),
            Approving::With(id) => match self.visible(caller, *id)?.approval.ended(self.now()) {
                Some(how) => Err(ApprovalProblem::Ended(how).into()),
                None => Err(ApprovalProblem::Stale.into()),
            },
        }
    }

    /// Whether a rule guards `deed`, done to a key with these rules of its own.
    pub(crate) fn is_guarded(&self, deed: &Deed, own: &Rules) -> bool {
        self.memory.read(|t| !t.guarding(deed, own).is_empty())
    }

    /// Rotating the barrier: the gate for the surface, which has the roots. The approval's use is durable when it returns.
    ///
    /// # Errors
    /// Any of [`Error`]; nothing is recorded.
    pub async fn clear_rotation(&self, caller: &Caller, surface: Surface) -> Result<String, Error> {
        let standing = (Incarnation(0), Generation(u64::from(self.ring().version())));
        let cleared = self.clear(caller, surface, Deed::RotateBarrier, standing, &Rules::default()).await?;
        if let Cleared::By(used) = &cleared {
            self.consume(caller, used).await?;
        }
        self.tell_of_clearance(caller, surface, &Deed::RotateBarrier, &cleared).await?;
        Ok(cleared.reason().to_owned())
    }

    /// The use of an approval, if it is good for this.
    fn used(
        &self,
        caller: &Caller,
        id: ApprovalId,
        deed: &Deed,
        standing: (Incarnation, Generation),
        rules: &[ApprovalRule],
    ) -> Result<Used, Error> {
        let held = self.visible(caller, id)?;
        let approval = &held.approval.with_votes_of_others(caller);
        if !approval.is_requested_by(caller) {
            return Err(ApprovalProblem::NotRequester.into());
        }
        if let Some(how) = approval.ended_by(rules, self.now()) {
            return Err(ApprovalProblem::Ended(how).into());
        }
        // The whole deed is compared; its hash names it to people.
        if approval.deed != *deed {
            return Err(ApprovalProblem::OtherRequest.into());
        }
        if approval.standing != standing {
            return Err(ApprovalProblem::Stale.into());
        }
        if !approval.satisfies(rules) {
            let missing = rules.iter().filter(|r| approval.votes_for(r) < usize::from(r.needed));
            let missing: Vec<_> = missing.map(|r| format!("{} of {r}", approval.votes_for(r))).collect();
            return Err(ApprovalProblem::Wanting(missing.join("; ")).into());
        }
        let end = End { how: Ended::CarriedOut, at: self.now(), by: caller.name().into(), comment: "".into() };
        let after = held.approval.changed(|a| a.end = Some(end));
        let (row, after, gained) = self.sealed_approval(after, held.digest);
        let voters: Vec<_> = approval.votes.iter().filter_map(|v| v.names.first()).map(ToString::to_string).collect();
        let reason = format!("by {}, approved by {}", named(approval), voters.join(", "));
        Ok(Used { after, row, gained, before: approval.generation, reason })
    }

    /// Makes the use of an approval durable by itself, for what changes nothing else in the store.
    pub(crate) async fn consume(&self, caller: &Caller, used: &Used) -> Result<Revision, Error> {
        let id = used.row.id;
        let write = Write {
            target: Target::Approval(id),
            expected: Expected::At(Incarnation(id.0), used.before),
            effect: Effect::PutApproval(used.row.clone()),
            uses: None,
            digest: used.gained,
            change: self.change(caller, Action::UseApproval),
        };
        // Somebody was faster: it was used, rejected or withdrawn.
        self.submit(write, Apply::PutApproval(Box::new(used.after.copy()))).await.map_err(|error| match error {
            Error::Conflict(_) => match self.memory.read(|t| t.approvals.get(&id).and_then(|h| h.approval.ended(self.now()))) {
                Some(how) => ApprovalProblem::Ended(how).into(),
                None => error,
            },
            other => other,
        })
    }

    /// Records that an approval was used or bypassed, and tells of it. The deed's own record is another.
    pub(crate) async fn tell_of_clearance(&self, caller: &Caller, surface: Surface, deed: &Deed, cleared: &Cleared) -> Result<(), Error> {
        let target = deed.target().to_string();
        let subjects = [Subject { key: &target, versions: &[] }];
        match cleared {
            Cleared::Free => Ok(()),
            Cleared::Broken(reason) => {
                tracing::error!("{} (by {})", reason, caller.name());
                self.notify(caller, "bypassed", Err(reason.clone()));
                let note = Note { caller, surface, action: Action::Alert, subjects: &subjects };
                Ok(self.audit.append(&note.record(self, Outcome::Ok, reason, None, None)).await?)
            }
            Cleared::By(used) => {
                let note = Note { caller, surface, action: Action::UseApproval, subjects: &subjects };
                let reason = format!("{}: {deed} {}", used.after.approval.id, used.reason);
                let kept = self.audit.append(&note.record(self, Outcome::Ok, &reason, Some(self.revision()), None));
                self.tell_of(caller, "carried_out", &used.after);
                Ok(kept.await?)
            }
        }
    }

    fn sealed_approval(&self, approval: Approval, before: DigestDelta) -> (ApprovalRow, Held, DigestDelta) {
        let ring = self.ring();
        let row = ring.seal_approval(&approval);
        let digest = ring.digest_approval(&row);
        (row, Held { approval, digest, revision: Revision::default() }, add(digest, negate(before)))
    }

    /// Files a request for approval. That is what was asked for, and still the deed was not done: so it is an [`Error`].
    async fn file(
        &self,
        caller: &Caller,
        surface: Surface,
        deed: Deed,
        standing: (Incarnation, Generation),
        rules: &[ApprovalRule],
        reason: &str,
    ) -> Error {
        match self.file_unrecorded(caller, deed, standing, rules, reason).await {
            Ok(held) => {
                let text = format!("{}: {}: {reason}", named(&held.approval), held.approval.deed);
                match self.record_of(caller, surface, Action::AskApproval, &held, &text).await {
                    Ok(()) => {
                        self.tell_of(caller, "asked", &held);
                        Error::Asked(Box::new(self.show(&held, Some(caller))))
                    }
                    Err(error) => error,
                }
            }
            Err(error) => error,
        }
    }

    async fn file_unrecorded(
        &self,
        caller: &Caller,
        deed: Deed,
        standing: (Incarnation, Generation),
        rules: &[ApprovalRule],
        reason: &str,
    ) -> Result<Held, Error> {
        if reason.is_empty() || !is_reason(reason) {
            return Err(Error::invalid("claviger-ask", "a reason has 1 to 1024 bytes and no control characters"));
        }
        let now = self.now();
        let _turn = self.turn("approvals").await;
        self.check_open(caller, now)?;
        let shortest = rules.iter().map(|rule| rule.expires_after).min().unwrap_or(claviger_domain::SHORTEST);
        let approval = Approval {
            id: ApprovalId(u64::from_be_bytes(random())),
            generation: Generation::FIRST,
            deed,
            standing,
            requester: names_of(caller).into(),
            reason: reason.into(),
            asked: now,
            expires: Timestamp(now.0.saturating_add(i64::from(shortest) * 1_000_000_000)),
            votes: Vec::new(),
            end: None,
        };
        self.put(caller, Action::AskApproval, Expected::Absent, approval, DigestDelta::default()).await
    }

    fn check_open(&self, caller: &Caller, now: Timestamp) -> Result<(), Error> {
        let (all, own, lately) = self.memory.read(|t| {
            let is_open = |h: &&Arc<Held>| h.approval.ended(now).is_none();
            let own = || t.approvals.values().filter(|h| h.approval.counts_for(caller));
            let lately = own().filter(|h| now.0.saturating_sub(h.approval.asked.0) < HOUR).count();
            (t.approvals.values().filter(is_open).count(), own().filter(is_open).count(), lately)
        });
        match (all >= OPEN, own >= OPEN_OF_ONE, lately >= LATELY) {
            (false, false, false) => Ok(()),
            (_, true, _) => Err(ApprovalProblem::TooMany("you have", OPEN_OF_ONE).into()),
            (_, _, true) => Err(ApprovalProblem::TooOften(LATELY).into()),
            (true, ..) => Err(ApprovalProblem::TooMany("there are", OPEN).into()),
        }
    }

    async fn put(
        &self,
        caller: &Caller,
        action: Action,
        expected: Expected,
        approval: Approval,
        before: DigestDelta,
    ) -> Result<Held, Error> {
        let id = approval.id;
        let (row, held, digest) = self.sealed_approval(approval, before);
        if row.body.len() > LARGEST {
            let rule = format!("what is to be approved may have {LARGEST} bytes, this has {}; make the change in parts", row.body.len());
            return Err(Error::invalid("claviger-ask", rule));
        }
        let effect = Effect::PutApproval(row);
        let write = Write { target: Target::Approval(id), expected, effect, uses: None, digest, change: self.change(caller, action) };
        let revision = self.submit(write, Apply::PutApproval(Box::new(held.copy()))).await?;
        Ok(Held { revision, ..held })
    }
}

/// What people do with requests.
impl Engine {
    /// The requests that `caller` may see, newest first; only those that have not ended unless `all`.
    ///
    /// # Errors
    /// The audit log's failure.
    pub async fn approvals(&self, caller: &Caller, surface: Surface, all: bool) -> Result<Vec<ShownApproval>, Error> {
        let (barrier, now) = (self.ring().version(), self.now());
        let mut seen: Vec<_> = self.memory.read(|t| {
            let is_open = |h: &Held| h.approval.ended_by(&t.guarding_now(&h.approval.deed), now).is_none();
            let wanted = t.approvals.values().filter(|h| all || is_open(h));
            wanted.filter(|h| t.may_see(caller, h)).map(|h| t.shown(h, Some(caller), barrier, now)).collect()
        });
        seen.sort_by_key(|s| std::cmp::Reverse(s.approval.asked));
        let note = Note { caller, surface, action: Action::ShowApproval, subjects: &[] };
        self.done(&note, Some(self.revision()), None).await?;
        Ok(seen)
    }

    /// One request.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for who may not see it; the refusal is recorded as well.
    pub async fn approval(&self, caller: &Caller, surface: Surface, id: ApprovalId) -> Result<ShownApproval, Error> {
        let name = format!("approval {id}");
        let subjects = [Subject { key: &name, versions: &[] }];
        let note = Note { caller, surface, action: Action::ShowApproval, subjects: &subjects };
        match self.visible(caller, id) {
            Ok(held) => self.done(&note, Some(held.revision), None).await.map(|()| self.show(&held, Some(caller))),
            Err(error) => Err(self.refuse(&note, error).await),
        }
    }

    /// Agrees to a request, or rejects it. `hash` is that of what the caller saw.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn decide(
        &self,
        caller: &Caller,
        surface: Surface,
        id: ApprovalId,
        hash: &[u8; 32],
        verdict: Verdict,
        comment: &str,
    ) -> Result<ShownApproval, Error> {
        let action = match verdict {
            Verdict::Approve => Action::Approve,
            Verdict::Reject => Action::RejectApproval,
        };
        let work = |approval: &Approval| {
            if deed_hash(&approval.deed, approval.standing) != *hash {
                return Err(ApprovalProblem::OtherHash.into());
            }
            let (rules, standing) = self.memory.read(|t| {
                let standing = t.standing_of(approval.deed.target(), self.ring().version());
                (t.guarding_now(&approval.deed), standing)
            });
            let refused = |why| Error::from(ApprovalProblem::Vote(why));
            match verdict {
                Verdict::Approve => {
                    let vote = approval.vote(&rules, caller, self.now(), comment).map_err(refused)?;
                    if standing != approval.standing {
                        return Err(ApprovalProblem::Stale.into());
                    }
                    Ok(approval.changed(|a| a.votes.push(vote)))
                }
                Verdict::Reject => {
                    approval.may_decide(&rules, caller, self.now()).map_err(refused)?;
                    Ok(self.ended(approval, Ended::Rejected, caller, comment))
                }
            }
        };
        let what = if verdict == Verdict::Approve { "approved" } else { "rejected" };
        self.change_approval(caller, surface, id, (action, what), comment, work).await
    }

    /// Takes a request back. Only who asked can.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn withdraw(&self, caller: &Caller, surface: Surface, id: ApprovalId, comment: &str) -> Result<ShownApproval, Error> {
        let work = |approval: &Approval| match (approval.is_requested_by(caller), approval.ended(self.now())) {
            (false, _) => Err(ApprovalProblem::NotRequester.into()),
            (true, Some(how)) => Err(ApprovalProblem::Ended(how).into()),
            (true, None) => Ok(self.ended(approval, Ended::Withdrawn, caller, comment)),
        };
        self.change_approval(caller, surface, id, (Action::WithdrawApproval, "withdrawn"), comment, work).await
    }

    /// Carries out what was approved, exactly as it was asked for.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn run_approval(&self, caller: &Caller, surface: Surface, id: ApprovalId) -> Result<Ran, Error> {
        let name = format!("approval {id}");
        let subjects = [Subject { key: &name, versions: &[] }];
        let note = Note { caller, surface, action: Action::UseApproval, subjects: &subjects };
        let held = match self.visible(caller, id) {
            Ok(held) => held,
            Err(error) => return Err(self.refuse(&note, error).await),
        };
        let caller = &caller.clone().approving(Approving::With(id));
        let any = Precondition::Any;
        let changed = |added: crate::Added| Ran::Changed(added.revision);
        match held.approval.deed.clone() {
            Deed::Read { key, select } => Box::pin(self.read(caller, surface, key.as_str(), select)).await.map(Ran::Read),
            Deed::Export { key, version } => {
                let using = crate::Using { caller, surface, id: key.as_str() };
                Box::pin(self.export(&using, version)).await.map(Ran::Exported)
            }
            Deed::Promote { key, version } => {
                Box::pin(self.transition(caller, surface, key.as_str(), version, Transition::Promote, any)).await.map(changed)
            }
            Deed::Destroy { key, version } => {
                Box::pin(self.transition(caller, surface, key.as_str(), version, Transition::Destroy, any)).await.map(changed)
            }
            Deed::Delete { key } => Box::pin(self.delete(caller, surface, key.as_str(), any)).await.map(Ran::Changed),
            Deed::ChangeRights { key, acl } => {
                let edit = RightsEdit::Replace(acl);
                Box::pin(self.change_rights(caller, surface, key.as_str(), &edit, any, |_, _| Ok(()))).await.map(changed)
            }
            Deed::ChangeRules { key, rules } => Box::pin(self.change_rules(caller, surface, key.as_str(), &rules, any)).await.map(changed),
            Deed::ChangePrefix { prefix, grants } => {
                let done = Box::pin(self.change_prefix(caller, surface, &prefix, PrefixEdit::Grants(grants), any)).await;
                done.map(|(revision, _)| Ran::Changed(revision))
            }
            Deed::ChangePrefixRules { prefix, rules } => {
                let done = Box::pin(self.change_prefix(caller, surface, &prefix, PrefixEdit::Rules(rules), any)).await;
                done.map(|(revision, _)| Ran::Changed(revision))
            }
            Deed::RotateBarrier => Ok(Ran::Rotate),
        }
    }

    /// The rules that reach a key, its own first, each with the prefix that it stands on.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn rules(&self, caller: &Caller, surface: Surface, id: &str) -> Result<(Arc<crate::Entry>, PlacedRules), Error> {
        let subjects = [Subject { key: id, versions: &[] }];
        let note = Note { caller, surface, action: Action::ShowRights, subjects: &subjects };
        let found = self.memory.read(|t| {
            let (entry, _) = crate::keys::permitted::<cap::List>(t, caller, id)?;
            let own = entry.meta.rules.all().iter().map(|rule| (None, rule.clone()));
            let above = entry.meta.id.prefixes().filter_map(|p| t.prefix_rules.get_key_value(p));
            let above = above.flat_map(|(prefix, rules)| rules.all().iter().map(|rule| (Some(prefix.clone()), rule.clone())));
            let all = own.chain(above).collect();
            Ok((entry, all))
        });
        match found {
            Ok((entry, rules)) => self.done(&note, Some(entry.revision), None).await.map(|()| (entry, rules)),
            Err(error) => Err(self.refuse(&note, error).await),
        }
    }

    /// Changes a key's own rules.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn change_rules(
        &self,
        caller: &Caller,
        surface: Surface,
        id: &str,
        rules: &Rules,
        precondition: Precondition,
    ) -> Result<crate::Added, Error> {
        self.edit::<cap::Admin>(caller, surface, Action::ChangeRules, id, precondition, |entry| {
            let meta = claviger_domain::KeyMeta { rules: rules.clone(), ..entry.meta.clone() };
            let deed = Deed::ChangeRules { key: meta.id.clone(), rules: rules.clone() };
            Ok((meta != entry.meta).then(|| crate::keys::Edit { deed: Some(deed), ..crate::keys::Edit::meta(meta) }))
        })
        .await
    }

    /// Writes down which requests have run out, and forgets the oldest that have ended. For a task that calls it now and then:
    /// nothing rests on it, since what has run out is never carried out.
    ///
    /// # Errors
    /// The first failure of store or log.
    pub async fn sweep_approvals(&self) -> Result<(), Error> {
        let caller = Caller::system("approvals", RequestId(u128::from_be_bytes(random())));
        let now = self.now();
        let due: Vec<ApprovalId> = self.memory.read(|t| {
            let has_run_out = |approval: &Approval| approval.ended_by(&t.guarding_now(&approval.deed), now).is_some();
            let due = |h: &&Arc<Held>| h.approval.end.is_none() && has_run_out(&h.approval);
            t.approvals.values().filter(due).map(|h| h.approval.id).collect()
        });
        for id in due {
            let work = |approval: &Approval| match &approval.end {
                None => Ok(self.ended(approval, Ended::Expired, &caller, "")),
                Some(_) => Err(ApprovalProblem::Ended(Ended::Expired).into()),
            };
            let caller = fresh(&caller);
            match self.changed_approval(&caller, id, Action::ExpireApproval, &work).await {
                Ok(held) => {
                    let text = format!("{}: {}", named(&held.approval), held.approval.deed);
                    self.record_of(&caller, "server", Action::ExpireApproval, &held, &text).await?;
                    self.tell_of(&caller, "expired", &held);
                }
                // Somebody was faster.
                Err(Error::Approval(_) | Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.forget_approvals(&caller).await
    }

    async fn forget_approvals(&self, caller: &Caller) -> Result<(), Error> {
        let mut ended: Vec<Arc<Held>> = self.memory.read(|t| t.approvals.values().filter(|h| h.approval.end.is_some()).cloned().collect());
        ended.sort_by_key(|h| (h.approval.end.as_ref().map(|end| end.at), h.approval.id));
        let surplus = ended.len().saturating_sub(ENDED);
        for held in &ended[..surplus] {
            let (id, caller) = (held.approval.id, fresh(caller));
            let write = Write {
                target: Target::Approval(id),
                expected: Expected::At(Incarnation(id.0), held.approval.generation),
                effect: Effect::DropApproval,
                uses: None,
                digest: negate(held.digest),
                change: self.change(&caller, Action::ForgetApproval),
            };
            let revision = self.submit(write, Apply::DropApproval(id)).await?;
            let name = format!("approval {id}");
            let subjects = [Subject { key: &name, versions: &[] }];
            let note = Note { caller: &caller, surface: "server", action: Action::ForgetApproval, subjects: &subjects };
            self.done(&note, Some(revision), None).await?;
        }
        Ok(())
    }

    fn ended(&self, approval: &Approval, how: Ended, caller: &Caller, comment: &str) -> Approval {
        let end = End { how, at: self.now(), by: caller.name().into(), comment: comment.into() };
        approval.changed(|a| a.end = Some(end))
    }

    /// A change of a request by somebody who may see it.
    async fn change_approval(
        &self,
        caller: &Caller,
        surface: Surface,
        id: ApprovalId,
        (action, what): (Action, &'static str),
        comment: &str,
        work: impl Fn(&Approval) -> Result<Approval, Error>,
    ) -> Result<ShownApproval, Error> {
        let name = format!("approval {id}");
        let subjects = [Subject { key: &name, versions: &[] }];
        let note = Note { caller, surface, action, subjects: &subjects };
        let may = |approval: &Approval| {
            self.visible(caller, id)?;
            if !is_reason(comment) {
                return Err(Error::invalid("comment", "a comment has at most 1024 bytes and no control characters"));
            }
            work(approval)
        };
        match self.changed_approval(caller, id, action, &may).await {
            Ok(held) => {
                let text =
                    format!("{}: {}{}{comment}", named(&held.approval), held.approval.deed, if comment.is_empty() { "" } else { ": " });
                self.record_of(caller, surface, action, &held, &text).await?;
                self.tell_of(caller, what, &held);
                Ok(self.show(&held, Some(caller)))
            }
            Err(error) => Err(self.refuse(&note, error).await),
        }
    }

    async fn changed_approval(
        &self,
        caller: &Caller,
        id: ApprovalId,
        action: Action,
        work: &impl Fn(&Approval) -> Result<Approval, Error>,
    ) -> Result<Held, Error> {
        for _ in 0..TRIES {
            let held = self.memory.read(|t| t.approvals.get(&id).cloned()).ok_or_else(|| missing(id))?;
            let after = work(&held.approval)?;
            let expected = Expected::At(Incarnation(id.0), held.approval.generation);
            match self.put(caller, action, expected, after, held.digest).await {
                Err(Error::Conflict(_)) => {}
                other => return other,
            }
        }
        Err(Error::Conflict(crate::Conflict::Changed))
    }

    fn visible(&self, caller: &Caller, id: ApprovalId) -> Result<Arc<Held>, Error> {
        let found = self.memory.read(|t| t.approvals.get(&id).filter(|held| t.may_see(caller, held)).cloned());
        found.ok_or_else(|| missing(id))
    }

    fn show(&self, held: &Held, to: Option<&Caller>) -> ShownApproval {
        self.memory.read(|t| t.shown(held, to, self.ring().version(), self.now()))
    }

    async fn record_of(&self, caller: &Caller, surface: Surface, action: Action, held: &Held, reason: &str) -> Result<(), Error> {
        let target = held.approval.deed.target().to_string();
        let subjects = [Subject { key: &target, versions: &[] }];
        let note = Note { caller, surface, action, subjects: &subjects };
        let kept = self.audit.append(&note.record(self, Outcome::Ok, reason, Some(held.revision), None)).await;
        kept.map_err(|unkept| Error::Unrecorded { revision: held.revision, why: unkept.to_string() })
    }

    fn tell_of(&self, caller: &Caller, what: &'static str, held: &Held) {
        if self.settings.notices.is_some() {
            self.notify(caller, what, Ok(Box::new(self.show(held, None))));
        }
    }

    /// Hands a notice on without waiting: nothing is held up by who does not listen.
    fn notify(&self, caller: &Caller, what: &'static str, about: Result<Box<ShownApproval>, String>) {
        let Some(notices) = &self.settings.notices else { return };
        let notice = Notice { what, at: self.now(), by: caller.name().to_owned(), about };
        if let Err(mpsc::error::TrySendError::Full(_)) = notices.try_send(notice) {
            tracing::warn!("a notice that an approval was {what} is dropped: too many wait for the webhooks");
        }
    }

    /// Records that an operation was done, how it came to be allowed, and the use of an approval beside it.
    pub(crate) async fn done_cleared(
        &self,
        note: &Note<'_>,
        revision: Revision,
        rights: Option<RightsChange<'_>>,
        allowed_by: Option<&str>,
        reason: &str,
        (deed, cleared): (Option<&Deed>, &Cleared),
    ) -> Result<(), Error> {
        if let (Cleared::Free, "") = (cleared, reason) {
            return self.done_by(note, Some(revision), rights, allowed_by).await;
        }
        Box::pin(self.done_at_length(note, revision, rights, allowed_by, reason, (deed, cleared))).await
    }

    async fn done_at_length(
        &self,
        note: &Note<'_>,
        revision: Revision,
        rights: Option<RightsChange<'_>>,
        allowed_by: Option<&str>,
        reason: &str,
        (deed, cleared): (Option<&Deed>, &Cleared),
    ) -> Result<(), Error> {
        let text = match (reason, cleared.reason()) {
            (reason, "") => reason.to_owned(),
            ("", by) => by.to_owned(),
            (reason, by) => format!("{reason}; {by}"),
        };
        let record = note.record(self, Outcome::Ok, &text, Some(revision), rights);
        let kept = self.audit.append(&Record { allowed_by, ..record });
        // Queued before the first is awaited, so that both share a sync.
        let told = match deed {
            Some(deed) => self.tell_of_clearance(note.caller, note.surface, deed, cleared).await,
            None => Ok(()),
        };
        let unrecorded = |why: String| Error::Unrecorded { revision, why };
        kept.await.map_err(|unkept| unrecorded(unkept.to_string()))?;
        told.map_err(|unkept| unrecorded(unkept.to_string()))
    }
}

/// The same caller in another request: each change has a request of its own, by which a start finds its record.
fn fresh(caller: &Caller) -> Caller {
    let mut caller = caller.clone();
    caller.request_id = RequestId(u128::from_be_bytes(random()));
    caller
}

fn missing(id: ApprovalId) -> Error {
    Error::NotFound(format!("approval {id}"))
}

/// How the log names a request: by its id and its hash.
fn named(approval: &Approval) -> String {
    use std::fmt::Write as _;
    let mut text = format!("approval {} of request ", approval.id);
    for byte in deed_hash(&approval.deed, approval.standing) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn needed(deed: &Deed, rules: Vec<ApprovalRule>) -> Error {
    Error::NeedsApproval(Box::new(Needed { deed: deed.to_string(), rules }))
}

/// The refusal of a guarded read among others.
pub(crate) fn needed_alone(deed: &Deed, rules: Vec<ApprovalRule>) -> Error {
    needed(deed, rules)
}

fn needs_none() -> Error {
    Error::invalid("claviger-ask", "this needs no approval, and nothing was done; repeat it without asking")
}
