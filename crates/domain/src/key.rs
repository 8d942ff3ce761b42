//! A key's record: everything about it except its data.

use crate::{
    Acl, Caller, Capabilities, Incarnation, KeyId, KeyKind, KeyPolicy, PolicyError, Prefix, RightsError, Rules, Timestamp, Unusable,
    Version, VersionError, VersionId, VersionState, Versions,
};
use std::collections::BTreeMap;
use thiserror::Error;

/// Counts the changes of one incarnation of a key, from 1. With the incarnation it is the ETag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Generation(pub u64);

impl Generation {
    /// A new key's first generation.
    pub const FIRST: Self = Self(1);

    /// The following generation.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Names one incarnation of a key: what associated data and permits are bound to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KeyRef {
    /// The id.
    pub id: KeyId,
    /// The incarnation.
    pub incarnation: Incarnation,
}

/// When and by whom a key was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Created {
    /// When.
    pub at: Timestamp,
    /// The creator's name.
    pub by: Box<str>,
}

/// Free names and values for finding keys; checked by [`Labels::new`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Labels(BTreeMap<Box<str>, Box<str>>);

/// Why metadata is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetaError {
    /// A label's name or value breaks the rule.
    #[error(
        "label `{0}`: names have 1 to 63 characters of a-z, 0-9, `.`, `-`, `_`, `/`, values at most 256 bytes without control characters"
    )]
    BadLabel(String),
    /// More than 64 labels.
    #[error("a key has at most 64 labels, not {0}")]
    TooManyLabels(usize),
    /// More than 1024 bytes of description, or a control character in it.
    #[error("a description has at most 1024 bytes and no control characters")]
    BadDescription,
    /// A lifetime of zero.
    #[error("a maximum lifetime is at least one second")]
    BadLifetime,
    /// Separate duties cannot be taken back: whoever could would then help himself.
    #[error("separate duties cannot be switched off; delete the key and make a new one")]
    DutiesStay,
    /// The policy does not fit the kind or the versions.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The versions would break their rule.
    #[error(transparent)]
    Versions(#[from] VersionError),
    /// The rights would break the rule of separate duties.
    #[error(transparent)]
    Rights(#[from] RightsError),
}

impl Labels {
    /// Checks labels.
    ///
    /// # Errors
    /// [`MetaError::BadLabel`] or [`MetaError::TooManyLabels`].
    pub fn new(labels: impl IntoIterator<Item = (String, String)>) -> Result<Self, MetaError> {
        let mut all = BTreeMap::new();
        for (name, value) in labels {
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_' | b'/');
            let good_name = (1..=63).contains(&name.len()) && name.bytes().all(legal);
            let good_value = value.len() <= 256 && !value.chars().any(char::is_control);
            if !good_name || !good_value {
                return Err(MetaError::BadLabel(name.chars().take(64).collect()));
            }
            all.insert(name.into_boxed_str(), value.into_boxed_str());
        }
        match all.len() {
            n if n > 64 => Err(MetaError::TooManyLabels(n)),
            _ => Ok(Self(all)),
        }
    }

    /// The labels in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of one label.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|v| &**v)
    }
}

/// A key without its data. Plain fields: any combination of valid parts is a valid record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyMeta {
    /// Its name.
    pub id: KeyId,
    /// Which key of this name.
    pub incarnation: Incarnation,
    /// Which change of it.
    pub generation: Generation,
    /// What it holds.
    pub kind: KeyKind,
    /// How it may be used.
    pub policy: KeyPolicy,
    /// Who may do what.
    pub acl: Acl,
    /// Its versions.
    pub versions: Versions,
    /// Whether managing and using are different people's.
    pub separate_duties: bool,
    /// Seconds after which any version stops being given out.
    pub max_lifetime: Option<u32>,
    /// What it is for, in words.
    pub description: Box<str>,
    /// Which operations on it take others' approval, beside what its prefixes demand.
    pub rules: Rules,
    /// For finding it.
    pub labels: Labels,
    /// Its origin.
    pub created: Created,
}

impl KeyMeta {
    /// The incarnation's name.
    #[must_use]
    pub fn key_ref(&self) -> KeyRef {
        KeyRef { id: self.id.clone(), incarnation: self.incarnation }
    }

    /// Checks a description.
    ///
    /// # Errors
    /// [`MetaError::BadDescription`].
    pub fn check_description(text: &str) -> Result<(), MetaError> {
        let bad = text.len() > 1024 || text.chars().any(char::is_control);
        if bad { Err(MetaError::BadDescription) } else { Ok(()) }
    }

    /// Checks that the minimum version is one of its versions, and that the primary one is not refused for it.
    ///
    /// # Errors
    /// [`PolicyError::MinVersion`].
    pub fn check_min_version(&self) -> Result<(), MetaError> {
        let Some(min) = self.policy.min_version else { return Ok(()) };
        let good = self.versions.find(min).is_some() && !self.is_below_minimum(self.versions.primary().id);
        if good { Ok(()) } else { Err(PolicyError::MinVersion.into()) }
    }

    /// Whether material that was made for `other`, this key or an earlier one of its name, is good for this key too.
    #[must_use]
    pub fn takes_material_of(&self, other: &Self) -> bool {
        let made = |key: &Self| (key.kind, key.policy.exportable, key.policy.rsa_bits, key.policy.template.clone());
        made(self) == made(other)
    }

    /// Whether `version` was added before the minimum version.
    #[must_use]
    pub fn is_below_minimum(&self, version: VersionId) -> bool {
        let place = |id| self.versions.iter().position(|v| v.id == id);
        self.policy.min_version.is_some_and(|min| place(version) < place(min))
    }

    /// The version of this id, if it may be used at `now`.
    ///
    /// # Errors
    /// [`Unusable`] names the version and says what to do.
    pub fn usable(&self, version: VersionId, now: Timestamp) -> Result<&Version, Unusable> {
        let found = self.versions.find(version).ok_or(Unusable::Unknown(version))?;
        match found.state {
            VersionState::Destroyed => return Err(Unusable::Destroyed(version)),
            VersionState::Inactive => return Err(Unusable::Inactive(version)),
            VersionState::Primary | VersionState::Active => {}
        }
        if let Some(minimum) = self.policy.min_version.filter(|_| self.is_below_minimum(version)) {
            return Err(Unusable::BelowMinimum { version, minimum });
        }
        let has_ended = found.end_of_life(self.max_lifetime).is_some_and(|end| now >= end);
        if has_ended { Err(Unusable::Expired(version)) } else { Ok(found) }
    }

    /// Checks a change of rights, from `self` to `new`, by `caller`.
    ///
    /// # Errors
    /// [`MetaError::DutiesStay`], or [`MetaError::Rights`] where duties are, or become, separate.
    pub fn check_rights(&self, new: &Self, caller: &Caller) -> Result<(), MetaError> {
        if self.separate_duties && !new.separate_duties {
            return Err(MetaError::DutiesStay);
        }
        if new.separate_duties {
            crate::check_rights_change(caller, &self.acl, &new.acl)?;
        }
        let become_separate = new.separate_duties && !self.separate_duties;
        // Whoever separates the duties may not keep both, by whatever entries: afterwards he could not grant himself either.
        match new.acl.reaching(caller).find(|g| become_separate && !g.capabilities.intersection(Capabilities::USE).is_empty()) {
            Some(g) => Err(RightsError::AdminAndUse(g.principal.clone(), g.capabilities.intersection(Capabilities::USE)).into()),
            None => Ok(()),
        }
    }
}

/// Rights on all keys below a prefix, and who may create there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrefixGrant {
    /// Where.
    pub prefix: Prefix,
    /// Who may do what; `create` is the right to make keys.
    pub acl: Acl,
    /// Whether every authenticated user may create keys here (Knox's rule).
    pub any_user_creates: bool,
    /// Which operations on what is below take others' approval.
    pub rules: Rules,
    /// Which grant of this prefix: random, so that one that was removed and made again is told from it. 0 in grants of the
    /// first format, which had none.
    pub incarnation: Incarnation,
    /// Which change of it.
    pub generation: Generation,
}

impl PrefixGrant {
    /// Checks a change of a prefix's rights by `caller`: nobody raises his own ▲, or prefixes would be the way round
    /// separate duties.
    ///
    /// # Errors
    /// [`RightsError::SelfGrant`].
    pub fn check_change(old: &Acl, new: &Acl, caller: &Caller) -> Result<(), RightsError> {
        crate::acl::check_no_self_grant(caller, old, new)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn labels_are_checked() {
        let label = |k: &str, v: &str| Labels::new([(k.to_owned(), v.to_owned())]);
        assert_eq!(label("team", "payments").unwrap().find("team"), Some("payments"));
        for (k, v) in [("", "x"), ("Team", "x"), ("a b", "x"), ("a", "x\ny")] {
            assert!(label(k, v).is_err(), "{k} {v}");
        }
        let many = (0..65).map(|i| (format!("l{i}"), String::new()));
        assert_eq!(Labels::new(many), Err(MetaError::TooManyLabels(65)));
    }
}
