//! Which local users and groups may read which secret: pure rules.
//!
//! Nobody may but whom a rule names, not even root: root can take any process's memory, but a program that runs as root by habit need not be handed every
//! secret of the machine.

use claviger_domain::KeyId;

/// Keys that a rule is about: one id, or all that begin with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// One key.
    Exact(KeyId),
    /// All whose ids begin with this; written with a `*` at its end.
    Beginning(String),
}

impl Pattern {
    /// Reads an id, or a beginning and `*`.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.strip_suffix('*') {
            None if text.contains('*') => Err("`*` may stand at the end only".to_owned()),
            None => KeyId::parse(text).map(Self::Exact).map_err(|e| e.to_string()),
            Some(beginning) if beginning.contains('*') => Err("`*` may stand at the end only".to_owned()),
            Some(beginning) => Ok(Self::Beginning(beginning.to_owned())),
        }
    }

    /// The one key.
    #[must_use]
    pub fn exact(&self) -> Option<&KeyId> {
        match self {
            Self::Exact(id) => Some(id),
            Self::Beginning(_) => None,
        }
    }

    fn matches(&self, id: &KeyId) -> bool {
        match self {
            Self::Exact(exact) => exact == id,
            Self::Beginning(beginning) => id.as_str().starts_with(beginning),
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// About which keys.
    pub pattern: Pattern,
    /// Users who may read them.
    pub users: Vec<u32>,
    /// Groups whose members may.
    pub groups: Vec<u32>,
}

/// All rules; each adds to the others.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    /// Whom they name, for whatever key.
    named: Readers,
}

/// Who may read one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readers {
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Policy {
    /// These rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut policy = Self { rules, named: Readers::default() };
        policy.named = policy.readers_where(|_| true);
        policy
    }

    /// Whether some rule names this user or one of these groups.
    #[must_use]
    pub fn names(&self, user: u32, groups: &[u32]) -> bool {
        self.named.admit(user, groups)
    }

    /// Who may read `id`.
    #[must_use]
    pub fn readers(&self, id: &KeyId) -> Readers {
        self.readers_where(|pattern| pattern.matches(id))
    }

    fn readers_where(&self, counts: impl Fn(&Pattern) -> bool) -> Readers {
        let mut readers = Readers::default();
        for rule in self.rules.iter().filter(|rule| counts(&rule.pattern)) {
            readers.users.extend_from_slice(&rule.users);
            readers.groups.extend_from_slice(&rule.groups);
        }
        for list in [&mut readers.users, &mut readers.groups] {
            list.sort_unstable();
            list.dedup();
        }
        readers
    }
}

impl Readers {
    /// Whether a user with these groups may read.
    #[must_use]
    pub fn admit(&self, user: u32, groups: &[u32]) -> bool {
        self.users.binary_search(&user).is_ok() || groups.iter().any(|group| self.groups.binary_search(group).is_ok())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rule(pattern: &str, users: &[u32], groups: &[u32]) -> Rule {
        Rule { pattern: Pattern::parse(pattern).unwrap(), users: users.to_vec(), groups: groups.to_vec() }
    }

    #[test]
    fn only_who_is_named_may_read_and_rules_add_up() {
        let policy = Policy::new(vec![rule("shop/*", &[10], &[]), rule("shop/pw", &[11], &[5]), rule("*", &[99], &[])]);
        let table = [
            ("shop/pw", 10, &[][..], true),
            ("shop/pw", 11, &[], true),
            ("shop/pw", 12, &[4, 5], true),
            ("shop/pw", 12, &[4], false),
            ("shop/other", 11, &[5], false),
            ("shop/other", 99, &[], true),
            ("shopping", 10, &[], false),
            ("shop/pw", 0, &[0], false),
        ];
        for (id, user, groups, expected) in table {
            assert_eq!(policy.readers(&KeyId::parse(id).unwrap()).admit(user, groups), expected, "{id} {user} {groups:?}");
        }
        assert!(policy.names(99, &[]) && policy.names(12, &[4, 5]) && !policy.names(12, &[4]) && !policy.names(0, &[0]));
        assert!(!Policy::default().readers(&KeyId::parse("a").unwrap()).admit(0, &[0]));
    }
}
