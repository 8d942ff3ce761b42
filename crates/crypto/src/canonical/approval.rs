//! The canonical bytes of rules and of requests for approval, and the hash of an exact request.

use super::{Canonical, Reader, Result, Writer, principal_code, principal_of};
use crate::{Malformation, fields};
use aws_lc_rs::digest;
use claviger_domain::{
    Approval, ApprovalId, ApprovalRule, Deed, End, Ended, Generation, GuardedSet, Incarnation, Prefix, Principal, Rules, Select, VersionId,
    Vote,
};

impl Canonical for Approval {
    const FORMAT: u8 = 1;

    fn write(&self, out: &mut Writer) {
        // Destructured: a new field that is not authenticated would be a hole.
        let Self { id, generation, deed, standing, requester, reason, asked, expires, votes, end } = self;
        out.fixed(id.0);
        out.number(generation.0);
        out.deed(deed);
        out.fixed(standing.0.0);
        out.number(standing.1.0);
        out.principals(requester);
        out.text(reason);
        out.time(*asked);
        out.time(*expires);
        out.count(votes.len());
        votes.iter().for_each(|vote| out.vote(vote));
        out.flags([end.is_some()]);
        if let Some(End { how, at, by, comment }) = end {
            out.byte(ended_code(*how));
            out.time(*at);
            out.text(by);
            out.text(comment);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let id = ApprovalId(from.fixed()?);
        let generation = Generation(from.number()?);
        let deed = from.deed()?;
        let standing = (Incarnation(from.fixed()?), Generation(from.number()?));
        let requester = from.principals()?;
        let reason = from.text()?.into();
        let (asked, expires) = (from.time()?, from.time()?);
        let count = from.count(12)?;
        let votes = (0..count).map(|_| from.vote()).collect::<Result<_>>()?;
        let [has_ended] = from.flags()?;
        let end = if has_ended { Some(from.end()?) } else { None };
        Ok(Self { id, generation, deed, standing, requester, reason, asked, expires, votes, end })
    }
}

/// The SHA-256 of an exact request and of what its target was then: what approvers agree to, and what is compared again when
/// it is carried out.
#[must_use]
pub fn deed_hash(deed: &Deed, standing: (Incarnation, Generation)) -> [u8; 32] {
    let mut bytes = Writer(Vec::with_capacity(256));
    bytes.deed(deed);
    let (incarnation, generation) = (standing.0.0.to_be_bytes(), standing.1.0.to_be_bytes());
    let input = fields::long(&[b"claviger/approval/request", &bytes.0, &incarnation, &generation]);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, &input).as_ref());
    hash
}

fn ended_code(how: Ended) -> u8 {
    match how {
        Ended::Rejected => 1,
        Ended::Withdrawn => 2,
        Ended::Expired => 3,
        Ended::CarriedOut => 4,
        Ended::Void => 5,
    }
}

fn ended_of(code: u8) -> Result<Ended> {
    Ended::ALL.into_iter().find(|e| ended_code(*e) == code).ok_or(Malformation::Code { field: "end", code: code.into() })
}

impl Writer {
    pub(super) fn rules(&mut self, rules: &Rules) {
        self.count(rules.all().len());
        for ApprovalRule { operations, needed, approvers, expires_after } in rules.all() {
            self.0.extend_from_slice(&operations.bits().to_be_bytes());
            self.byte(*needed);
            self.principals(approvers);
            self.number(u64::from(*expires_after));
        }
    }

    fn principals(&mut self, principals: &[Principal]) {
        self.count(principals.len());
        for principal in principals {
            self.byte(principal_code(principal));
            self.text(principal.id());
        }
    }

    fn vote(&mut self, Vote { names, under, at, comment }: &Vote) {
        self.principals(names);
        self.principals(under);
        self.time(*at);
        self.text(comment);
    }

    fn deed(&mut self, deed: &Deed) {
        self.byte(deed_code(deed));
        match deed {
            Deed::Read { key, select } => {
                self.text(key.as_str());
                self.select(*select);
            }
            Deed::Export { key, version } => {
                self.text(key.as_str());
                self.select(version.map_or(Select::Primary, Select::One));
            }
            Deed::Promote { key, version } | Deed::Destroy { key, version } => {
                self.text(key.as_str());
                self.fixed(version.get());
            }
            Deed::Delete { key } => self.text(key.as_str()),
            Deed::ChangeRights { key, acl } => {
                self.text(key.as_str());
                self.acl(acl);
            }
            Deed::ChangeRules { key, rules } => {
                self.text(key.as_str());
                self.rules(rules);
            }
            Deed::ChangePrefix { prefix, grants } => {
                self.text(prefix.as_str());
                let any = grants.as_ref().is_some_and(|(_, any)| *any);
                self.flags([grants.is_some(), any]);
                if let Some((acl, _)) = grants {
                    self.acl(acl);
                }
            }
            Deed::ChangePrefixRules { prefix, rules } => {
                self.text(prefix.as_str());
                self.rules(rules);
            }
            Deed::RotateBarrier => {}
        }
    }

    fn select(&mut self, select: Select) {
        match select {
            Select::Primary => self.byte(1),
            Select::Active => self.byte(2),
            Select::All => self.byte(3),
            Select::One(version) => {
                self.byte(4);
                self.fixed(version.get());
            }
        }
    }
}

fn deed_code(deed: &Deed) -> u8 {
    match deed {
        Deed::Read { .. } => 1,
        Deed::Promote { .. } => 2,
        Deed::Destroy { .. } => 3,
        Deed::Delete { .. } => 4,
        Deed::ChangeRights { .. } => 5,
        Deed::ChangeRules { .. } => 6,
        Deed::ChangePrefix { .. } => 7,
        Deed::ChangePrefixRules { .. } => 8,
        Deed::RotateBarrier => 9,
        Deed::Export { .. } => 10,
    }
}

impl Reader<'_> {
    /// Rules, whatever their contents: what was good when it was written is enforced as it stands.
    pub(super) fn rules(&mut self) -> Result<Rules> {
        let count = self.count(5)?;
        let rules = (0..count).map(|_| self.rule()).collect::<Result<_>>()?;
        Ok(Rules::new(rules)?)
    }

    fn rule(&mut self) -> Result<ApprovalRule> {
        let bits = u16::from_be_bytes(self.array()?);
        let operations = GuardedSet::from_bits(bits).ok_or(Malformation::Code { field: "operations", code: bits.into() })?;
        let needed = self.byte()?;
        let approvers = self.principals()?.into_vec().into();
        Ok(ApprovalRule { operations, needed, approvers, expires_after: self.number_u32("expires_after")? })
    }

    fn principals(&mut self) -> Result<Box<[Principal]>> {
        let count = self.count(2)?;
        let one = |_| {
            let code = self.byte()?;
            principal_of(code, self.text()?)
        };
        (0..count).map(one).collect()
    }

    fn vote(&mut self) -> Result<Vote> {
        let (names, under) = (self.principals()?, self.principals()?);
        Ok(Vote { names, under, at: self.time()?, comment: self.text()?.into() })
    }

    fn end(&mut self) -> Result<End> {
        let how = ended_of(self.byte()?)?;
        Ok(End { how, at: self.time()?, by: self.text()?.into(), comment: self.text()?.into() })
    }

    fn prefix(&mut self) -> Result<Prefix> {
        Ok(Prefix::parse(self.text()?)?)
    }

    fn version_of(&mut self) -> Result<VersionId> {
        let raw = self.fixed()?;
        VersionId::new(raw).ok_or(Malformation::Code { field: "version id", code: raw })
    }

    fn deed(&mut self) -> Result<Deed> {
        Ok(match self.byte()? {
            1 => Deed::Read { key: self.key_id()?, select: self.select()? },
            2 => Deed::Promote { key: self.key_id()?, version: self.version_of()? },
            3 => Deed::Destroy { key: self.key_id()?, version: self.version_of()? },
            4 => Deed::Delete { key: self.key_id()? },
            5 => Deed::ChangeRights { key: self.key_id()?, acl: self.acl()? },
            6 => Deed::ChangeRules { key: self.key_id()?, rules: self.rules()? },
            7 => Deed::ChangePrefix { prefix: self.prefix()?, grants: self.grants()? },
            8 => Deed::ChangePrefixRules { prefix: self.prefix()?, rules: self.rules()? },
            9 => Deed::RotateBarrier,
            10 => Deed::Export { key: self.key_id()?, version: self.exported()? },
            other => return Err(Malformation::Code { field: "deed", code: other.into() }),
        })
    }

    fn grants(&mut self) -> Result<Option<(claviger_domain::Acl, bool)>> {
        match self.flags()? {
            [true, any] => Ok(Some((self.acl()?, any))),
            [false, false] => Ok(None),
            [false, true] => Err(Malformation::Code { field: "grants", code: 2 }),
        }
    }

    fn exported(&mut self) -> Result<Option<VersionId>> {
        match self.select()? {
            Select::Primary => Ok(None),
            Select::One(version) => Ok(Some(version)),
            Select::Active | Select::All => Err(Malformation::Code { field: "export", code: 0 }),
        }
    }

    fn select(&mut self) -> Result<Select> {
        Ok(match self.byte()? {
            1 => Select::Primary,
            2 => Select::Active,
            3 => Select::All,
            4 => Select::One(self.version_of()?),
            other => return Err(Malformation::Code { field: "select", code: other.into() }),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::canonical::tests::{any_acl, any_id, any_prefix, any_principal, any_text};
    use claviger_domain::Timestamp;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn any_version() -> impl Strategy<Value = VersionId> {
        (1..=i64::MAX as u64).prop_filter_map("an id", VersionId::new)
    }

    fn any_rule() -> impl Strategy<Value = ApprovalRule> {
        let people = prop::collection::btree_set("[a-z]{1,5}", 1..4);
        (1u16..0x80, 1u8..16, people, 60u32..99_999).prop_map(|(bits, needed, people, expires_after)| ApprovalRule {
            operations: GuardedSet::from_bits(bits).unwrap(),
            needed,
            approvers: people.iter().map(|p| Principal::UserGroup(p.as_str().into())).collect(),
            expires_after,
        })
    }

    pub(crate) fn any_rules() -> impl Strategy<Value = Rules> {
        prop::collection::vec(any_rule(), 0..3).prop_map(|rules| Rules::new(rules).unwrap())
    }

    fn any_deed() -> impl Strategy<Value = Deed> {
        let select = prop_oneof![Just(Select::Primary), Just(Select::Active), Just(Select::All), any_version().prop_map(Select::One)];
        prop_oneof![
            (any_id(), select).prop_map(|(key, select)| Deed::Read { key, select }),
            (any_id(), any_version()).prop_map(|(key, version)| Deed::Promote { key, version }),
            (any_id(), prop::option::of(any_version())).prop_map(|(key, version)| Deed::Export { key, version }),
            (any_id(), any_version()).prop_map(|(key, version)| Deed::Destroy { key, version }),
            any_id().prop_map(|key| Deed::Delete { key }),
            (any_id(), any_acl()).prop_map(|(key, acl)| Deed::ChangeRights { key, acl }),
            (any_id(), any_rules()).prop_map(|(key, rules)| Deed::ChangeRules { key, rules }),
            (any_prefix(), prop::option::of((any_acl(), any::<bool>()))).prop_map(|(prefix, grants)| Deed::ChangePrefix { prefix, grants }),
            (any_prefix(), any_rules()).prop_map(|(prefix, rules)| Deed::ChangePrefixRules { prefix, rules }),
            Just(Deed::RotateBarrier),
        ]
    }

    fn any_vote() -> impl Strategy<Value = Vote> {
        let names = || prop::collection::vec(any_principal(), 0..3);
        (names(), names(), any::<i64>(), any_text()).prop_map(|(names, under, at, comment)| Vote {
            names: names.into(),
            under: under.into(),
            at: Timestamp(at),
            comment: comment.into(),
        })
    }

    pub(crate) fn any_approval() -> impl Strategy<Value = Approval> {
        let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<i64>(), any::<i64>());
        let end = (prop::sample::select(&Ended::ALL[..]), any::<i64>(), any_text(), any_text());
        let end = end.prop_map(|(how, at, by, comment)| End { how, at: Timestamp(at), by: by.into(), comment: comment.into() });
        let votes = prop::collection::vec(any_vote(), 0..3);
        (numbers, any_deed(), prop::collection::vec(any_principal(), 1..3), any_text(), votes, prop::option::of(end)).prop_map(
            |((id, generation, incarnation, of, asked, expires), deed, requester, reason, votes, end)| Approval {
                id: ApprovalId(id),
                generation: Generation(generation),
                deed,
                standing: (Incarnation(incarnation), Generation(of)),
                requester: requester.into(),
                reason: reason.into(),
                asked: Timestamp(asked),
                expires: Timestamp(expires),
                votes,
                end,
            },
        )
    }

    #[test]
    fn each_part_of_a_request_changes_its_hash() {
        let key = |id: &str| claviger_domain::KeyId::parse(id).unwrap();
        let version = |n| VersionId::new(n).unwrap();
        let deeds = [
            Deed::Delete { key: key("a") },
            Deed::Delete { key: key("b") },
            Deed::Promote { key: key("a"), version: version(1) },
            Deed::Promote { key: key("a"), version: version(2) },
            Deed::Destroy { key: key("a"), version: version(1) },
            Deed::Read { key: key("a"), select: Select::Active },
            Deed::Export { key: key("a"), version: None },
            Deed::Export { key: key("a"), version: Some(version(1)) },
            Deed::Read { key: key("a"), select: Select::One(version(1)) },
            Deed::ChangeRights { key: key("a"), acl: Default::default() },
            Deed::ChangeRules { key: key("a"), rules: Rules::default() },
            Deed::ChangePrefix { prefix: Prefix::parse("a/").unwrap(), grants: None },
            Deed::ChangePrefix { prefix: Prefix::parse("a/").unwrap(), grants: Some(Default::default()) },
            Deed::RotateBarrier,
        ];
        let standings = [(1, 1), (1, 2), (2, 1)].map(|(i, g)| (Incarnation(i), Generation(g)));
        let all: Vec<_> = deeds.iter().flat_map(|deed| standings.map(|s| deed_hash(deed, s))).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    proptest! {
        #[test]
        fn approvals_read_as_they_are_written(approval in any_approval()) {
            prop_assert_eq!(Approval::decode(&approval.encode()), Ok(approval));
        }
    }
}
