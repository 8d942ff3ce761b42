//! Rules of approval and requests for it, as JSON.

use super::{Changed, ExportedKey, FieldError, KeyData, SealStatus, unix_to_rfc3339};
use claviger_domain::{ApprovalRule, Guarded, GuardedSet, Principal, Rules, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Seconds for which a request can be approved, where a rule does not say.
const ONE_DAY: u32 = 86_400;

fn one_day() -> u32 {
    ONE_DAY
}

/// A rule: so many of these people must agree to these operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleEntry {
    /// Any of read, destroy, delete, grant, promote, export, root.
    pub operations: Vec<String>,
    /// How many different people, 1 to 16.
    pub needed: u8,
    /// `user:NAME` or `user_group:NAME`, 1 to 64 of them.
    pub approvers: Vec<String>,
    /// Seconds after which a request is no longer carried out, 60 to 2,592,000; a day unless given.
    #[serde(default = "one_day")]
    pub expires_after: u32,
}

/// All rules of a key or prefix.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RulesBody {
    /// At most eight.
    pub rules: Vec<RuleEntry>,
}

/// A rule and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlacedRule {
    /// `key` or `prefix:PREFIX`.
    pub source: String,
    /// The rule.
    pub rule: RuleEntry,
}

/// The rules that reach a key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RuleList {
    /// Its own first; all of them must be satisfied.
    pub rules: Vec<PlacedRule>,
}

/// A rule that guards a request now, and how far it is satisfied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleState {
    /// The rule.
    pub rule: RuleEntry,
    /// Approvals that count for it.
    pub given: usize,
}

/// One person's approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VoteInfo {
    /// Who.
    pub by: String,
    /// When.
    pub at: String,
    /// What he said about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndInfo {
    /// rejected, withdrawn, expired, carried_out or void.
    pub how: String,
    /// By whom.
    pub by: String,
    /// When.
    pub at: String,
    /// What he said about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// A request for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalInfo {
    /// Its id.
    pub id: String,
    /// What is asked for: read, export, promote, destroy, delete, change_rights, change_rules, change_prefix, change_prefix_rules,
    /// rotate_barrier.
    pub operation: String,
    /// A key, a prefix with a `*` behind it, or `the store`.
    pub target: String,
    /// The request in words.
    pub summary: String,
    /// What it would change in what stands now, a line each: `+` comes, `-` goes, `~` becomes something else. Never data. Nothing
    /// for who asked and may not see that any more.
    pub changes: Vec<String>,
    /// SHA-256 of the exact request and of its target's generation: what is approved.
    pub hash: String,
    /// open, approved, stale (its target has changed since), rejected, withdrawn, expired, carried_out, or void (the store was
    /// changed behind the server's back).
    pub state: String,
    /// Who asked.
    pub requester: String,
    /// Why.
    pub reason: String,
    /// When.
    pub asked: String,
    /// From when on it is no longer carried out, by the rules as they are now.
    pub expires: String,
    /// The rules that guard it now.
    pub rules: Vec<RuleState>,
    /// Who agreed.
    pub votes: Vec<VoteInfo>,
    /// How it ended, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<EndInfo>,
    /// The revision of its last change.
    pub revision: String,
}

/// The requests that the caller may see, newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ApprovalList {
    /// The requests.
    pub approvals: Vec<ApprovalInfo>,
}

/// A decision about a request.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The hash of what you looked at; needed to approve and to reject.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// What there is to say about it, at most 1,024 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// What carrying out a request gave: one of these.
#[derive(Default, Deserialize, Serialize, ToSchema)]
pub struct RunAnswer {
    /// Of a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Changed>,
    /// Of a read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<KeyData>,
    /// Of an export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exported: Option<ExportedKey>,
    /// Of a rotation of the barrier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<SealStatus>,
}

/// Rules as JSON.
#[must_use]
pub fn rule_entries(rules: &Rules) -> Vec<RuleEntry> {
    rules.all().iter().map(rule_entry).collect()
}

/// A rule as JSON.
#[must_use]
pub fn rule_entry(rule: &ApprovalRule) -> RuleEntry {
    RuleEntry {
        operations: rule.operations.iter().map(|g| g.name().to_owned()).collect(),
        needed: rule.needed,
        approvers: rule.approvers.iter().map(ToString::to_string).collect(),
        expires_after: rule.expires_after,
    }
}

/// Checked rules.
///
/// # Errors
/// [`FieldError`] names the rule and what is wrong with it.
pub fn parse_rules(entries: &[RuleEntry]) -> Result<Rules, FieldError> {
    let one = |(i, entry): (usize, &RuleEntry)| {
        let rule = parse_rule(entry, &format!("rules[{i}]"))?;
        rule.check().map_err(|e| FieldError::new(format!("rules[{i}]"), e))?;
        Ok(rule)
    };
    let rules = entries.iter().enumerate().map(one).collect::<Result<_, FieldError>>()?;
    Rules::new(rules).map_err(|e| FieldError::new("rules", e))
}

fn parse_rule(entry: &RuleEntry, field: &str) -> Result<ApprovalRule, FieldError> {
    let operation = |name: &String| {
        let all = || Guarded::ALL.map(Guarded::name).join(", ");
        let unknown = || FieldError::new(format!("{field}.operations"), format!("`{name}` is no operation; there are {}", all()));
        Guarded::from_name(name).ok_or_else(unknown)
    };
    let approver = |text: &String| text.parse::<Principal>().map_err(|e| FieldError::new(format!("{field}.approvers"), e));
    Ok(ApprovalRule {
        operations: GuardedSet::of(entry.operations.iter().map(operation).collect::<Result<Vec<_>, _>>()?),
        needed: entry.needed,
        approvers: entry.approvers.iter().map(approver).collect::<Result<Vec<_>, _>>()?.into(),
        expires_after: entry.expires_after,
    })
}

/// A request as JSON; where it stands and what it would change is the application's to say.
pub struct ApprovalParts<'a> {
    /// The request.
    pub approval: &'a claviger_domain::Approval,
    /// Its hash.
    pub hash: &'a [u8; 32],
    /// The rules that guard it, with the approvals that count.
    pub rules: &'a [(ApprovalRule, usize)],
    /// Where it stands.
    pub state: &'a str,
    /// What it would change.
    pub changes: &'a [String],
    /// Its revision.
    pub revision: claviger_domain::Revision,
}

/// A request for approval as JSON.
#[must_use]
pub fn approval_info(parts: &ApprovalParts<'_>) -> ApprovalInfo {
    let ApprovalParts { approval, hash, rules, state, changes, revision } = parts;
    let name = |names: &[Principal]| names.first().map(ToString::to_string).unwrap_or_default();
    let time = |at: Timestamp| unix_to_rfc3339(at);
    ApprovalInfo {
        id: approval.id.to_string(),
        operation: approval.deed.name().to_owned(),
        target: approval.deed.target().to_string(),
        summary: approval.deed.to_string(),
        changes: changes.to_vec(),
        hash: hex(&hash[..]),
        state: (*state).to_owned(),
        requester: name(&approval.requester),
        reason: approval.reason.to_string(),
        asked: time(approval.asked),
        expires: time(approval.expires),
        rules: rules.iter().map(|(rule, given)| RuleState { rule: rule_entry(rule), given: *given }).collect(),
        votes: approval.votes.iter().map(|v| VoteInfo { by: name(&v.names), at: time(v.at), comment: v.comment.to_string() }).collect(),
        end: approval.end.as_ref().map(|end| EndInfo {
            how: end.how.name().to_owned(),
            by: end.by.to_string(),
            at: time(end.at),
            comment: end.comment.to_string(),
        }),
        revision: revision.to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The hash that a decision names.
///
/// # Errors
/// [`FieldError`] where it is none.
pub fn parse_hash(text: &str) -> Result<[u8; 32], FieldError> {
    let bad = || FieldError::new("hash", "must be the 64 hexadecimal digits that the request is shown with");
    let is_hex = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hex {
        return Err(bad());
    }
    let mut hash = [0; 32];
    for (i, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(operations: &[&str], needed: u8, approvers: &[&str]) -> RuleEntry {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        RuleEntry { operations: words(operations), needed, approvers: words(approvers), expires_after: 3600 }
    }

    #[test]
    fn rules_round_trip_and_bad_ones_are_named() {
        let good = [entry(&["read", "delete"], 2, &["user:a", "user_group:sec"])];
        assert_eq!(rule_entries(&parse_rules(&good).unwrap()), good);
        let field = |bad: RuleEntry| parse_rules(&[good[0].clone(), bad]).unwrap_err().field;
        assert_eq!(field(entry(&["fly"], 1, &["user:a"])), "rules[1].operations");
        assert_eq!(field(entry(&["read"], 1, &["ghost:a"])), "rules[1].approvers");
        assert_eq!(field(entry(&["read"], 1, &["machine:a"])), "rules[1]");
        assert_eq!(field(entry(&["read"], 0, &["user:a"])), "rules[1]");
        assert_eq!(parse_rules(&vec![good[0].clone(); 9]).unwrap_err().field, "rules");
    }

    #[test]
    fn a_hash_has_one_form() {
        let hash: [u8; 32] = std::array::from_fn(|i| (i * 7) as u8);
        assert_eq!(parse_hash(&hex(&hash)), Ok(hash));
        for bad in ["", "00", &"0".repeat(63), &"G".repeat(64), &"A".repeat(64), &"ä".repeat(32)] {
            assert!(parse_hash(bad).is_err(), "{bad}");
        }
    }
}
