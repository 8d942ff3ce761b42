//! A site's own rules for the principals that ACL entries name: what Knox's principal validators are for (§7).

use super::types::PrincipalType;

/// One rule about the ids of one type of principal. It comes after the fixed rules of §6.3, with which it cannot do away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteRule {
    /// The type that it is about.
    pub kind: PrincipalType,
    /// An id must fit one of these; when there are none, any does.
    pub allow: Vec<Pattern>,
    /// An id must fit none of these.
    pub forbid: Vec<Pattern>,
    /// The `message` of the refusal.
    pub error: Box<str>,
}

/// What an id can look like: `*` stands for any run of characters, everything else for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl SiteRule {
    /// Whether an entry may name this principal.
    #[must_use]
    pub fn permits(&self, kind: PrincipalType, id: &str) -> bool {
        let fits = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(id));
        kind != self.kind || ((self.allow.is_empty() || fits(&self.allow)) && !fits(&self.forbid))
    }
}

impl Pattern {
    /// The pattern of this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether the whole of `id` fits. Letters count as they are, like in the comparison of principals.
    #[must_use]
    pub fn matches(&self, id: &str) -> bool {
        let Some((first, others)) = self.0.split_once('*') else { return *id == *self.0 };
        let Some(mut rest) = id.strip_prefix(first) else { return false };
        let (between, last) = others.rsplit_once('*').unwrap_or(("", others));
        for part in between.split('*') {
            // The first place is as good as any: what follows has the most left to look in.
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, id, fits) in [
            ("web", "web", true),
            ("web", "web1", false),
            ("web", "Web", false),
            ("*", "", true),
            ("*", "anything/at:all", true),
            ("web*", "web", true),
            ("web*", "aweb", false),
            ("*.x.com", "a.x.com", true),
            ("*.x.com", "a.x.com.", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*bc*bc", "abc", false),
            ("**", "é", true),
            ("*é*", "aéb", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(id), fits, "{pattern} {id}");
        }
    }

    #[test]
    fn a_rule_is_about_its_own_type_only() {
        let rule = |allow: &[&str], forbid: &[&str]| SiteRule {
            kind: PrincipalType::Machine,
            allow: allow.iter().map(|p| Pattern::new(p)).collect(),
            forbid: forbid.iter().map(|p| Pattern::new(p)).collect(),
            error: "no".into(),
        };
        let both = rule(&["*.x.com"], &["test*"]);
        assert!(both.permits(PrincipalType::Machine, "a.x.com"));
        assert!(!both.permits(PrincipalType::Machine, "a.y.com"));
        assert!(!both.permits(PrincipalType::Machine, "test.x.com"));
        assert!(both.permits(PrincipalType::User, "a.y.com"));
        assert!(rule(&[], &["test*"]).permits(PrincipalType::Machine, "a.y.com"));
    }
}
