//! Who gives which names: several sources of people side by side, and no name that two of them could give ▲.
//!
//! Each source, an OpenID issuer or a GitHub-compatible service, puts a prefix of its own before the names of its users and
//! of its groups; one may have none. A name belongs to the source with the longest prefix that it begins with, and no other
//! source can give it.

use std::sync::Arc;
use thiserror::Error;

/// Claviger's own names begin so; no source gives them.
pub const RESERVED: &str = "claviger:";
/// Bytes that a name of a user or group has at most, prefix and all.
const MAX_NAME: usize = 256;

/// The prefixes of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefixes {
    /// The source, as the configuration calls it.
    pub source: Arc<str>,
    /// Before users' names.
    pub users: Arc<str>,
    /// Before groups' names.
    pub groups: Arc<str>,
}

/// Two sources that could give the same name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PrefixError {
    /// The same prefix twice.
    #[error("`{first}` and `{second}` could give the same {what}: set {what}_prefix so that each has its own, such as \"{second}:\"")]
    Same {
        /// `user` or `groups`.
        what: &'static str,
        /// One source.
        first: Arc<str>,
        /// The other.
        second: Arc<str>,
    },
    /// A prefix that is Claviger's.
    #[error("prefixes that start with `claviger:` are Claviger's own")]
    Reserved,
    /// Control characters, or too long.
    #[error("a prefix has at most 100 bytes and no control characters")]
    Malformed,
}

/// Why a source's name is no name here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// Empty, too long, or with control characters or spaces around it.
    #[error("the name is empty, longer than 256 bytes, or has control characters or spaces around it")]
    Malformed,
    /// It belongs to another source, or to Claviger.
    #[error("the name begins with a prefix that belongs to another source")]
    Foreign,
}

/// The prefixes of all sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(Arc<[Prefixes]>);

impl Names {
    /// The names of these sources.
    ///
    /// # Errors
    /// [`PrefixError`] when two could give the same name.
    pub fn new(sources: Vec<Prefixes>) -> Result<Self, PrefixError> {
        for (i, one) in sources.iter().enumerate() {
            for prefix in [&one.users, &one.groups] {
                if prefix.starts_with(RESERVED) {
                    return Err(PrefixError::Reserved);
                }
                if prefix.len() > 100 || prefix.chars().any(char::is_control) {
                    return Err(PrefixError::Malformed);
                }
            }
            for other in &sources[..i] {
                let same = |what| PrefixError::Same { what, first: other.source.clone(), second: one.source.clone() };
                if other.users == one.users {
                    return Err(same("user"));
                }
                if other.groups == one.groups {
                    return Err(same("groups"));
                }
            }
        }
        Ok(Self(sources.into()))
    }

    /// The user whom `source` calls `raw`.
    ///
    /// # Errors
    /// [`NameError`] says why that is nobody here.
    pub fn user(&self, source: &str, raw: &str) -> Result<Arc<str>, NameError> {
        self.name(source, raw, |p| &p.users)
    }

    /// The group that `source` calls `raw`.
    ///
    /// # Errors
    /// [`NameError`] says why there is no such group here.
    pub fn group(&self, source: &str, raw: &str) -> Result<Arc<str>, NameError> {
        self.name(source, raw, |p| &p.groups)
    }

    fn name(&self, source: &str, raw: &str, prefix: impl Fn(&Prefixes) -> &Arc<str>) -> Result<Arc<str>, NameError> {
        let mine = self.0.iter().find(|p| &*p.source == source).map(&prefix).ok_or(NameError::Foreign)?;
        let name = format!("{mine}{raw}");
        let is_plain = !raw.is_empty() && raw.trim() == raw && name.len() <= MAX_NAME && !name.chars().any(char::is_control);
        if !is_plain {
            return Err(NameError::Malformed);
        }
        let is_anothers = |other: &Arc<str>| other.len() > mine.len() && name.starts_with(&**other);
        let is_foreign = name.starts_with(RESERVED) || self.0.iter().map(&prefix).any(is_anothers);
        if is_foreign { Err(NameError::Foreign) } else { Ok(name.into()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn source(name: &str, users: &str, groups: &str) -> Prefixes {
        Prefixes { source: name.into(), users: users.into(), groups: groups.into() }
    }

    #[test]
    fn two_sources_need_different_prefixes() {
        assert!(Names::new(vec![source("a", "", ""), source("b", "b:", "b:")]).is_ok());
        let same = Names::new(vec![source("a", "", "a:"), source("b", "", "b:")]).unwrap_err();
        assert!(same.to_string().contains("user_prefix") && same.to_string().contains("\"b:\""), "{same}");
        assert!(Names::new(vec![source("a", "a:", ""), source("b", "b:", "")]).unwrap_err().to_string().contains("groups_prefix"));
        assert_eq!(Names::new(vec![source("a", "claviger:", "")]), Err(PrefixError::Reserved));
        assert_eq!(Names::new(vec![source("a", "a\n", "")]), Err(PrefixError::Malformed));
    }

    #[test]
    fn a_source_without_a_prefix_cannot_give_anothers_names_nor_claviger_s() {
        let names =
            Names::new(vec![source("main", "", ""), source("partner", "partner:", "partner:"), source("sub", "partner:x:", "y:")]).unwrap();
        assert_eq!(&*names.user("main", "alice").unwrap(), "alice");
        assert_eq!(&*names.user("partner", "alice").unwrap(), "partner:alice");
        assert_eq!(names.user("main", "partner:alice"), Err(NameError::Foreign));
        assert_eq!(names.user("partner", "x:alice"), Err(NameError::Foreign));
        assert_eq!(&*names.user("sub", "alice").unwrap(), "partner:x:alice");
        assert_eq!(names.group("main", "claviger:break-glass"), Err(NameError::Foreign));
        assert_eq!(names.group("main", "y:ops"), Err(NameError::Foreign));
        assert_eq!(names.user("nobody", "alice"), Err(NameError::Foreign));
        for bad in ["", " alice", "alice\u{7f}", "al\nice", &"x".repeat(300)] {
            assert_eq!(names.user("main", bad), Err(NameError::Malformed), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_name_is_given_by_two_sources(prefixes in prop::collection::vec("[ab:]{0,3}", 2..4), raws in prop::collection::vec("[ab:]{1,4}", 2..8)) {
            let sources = prefixes.iter().enumerate().map(|(i, p)| source(&i.to_string(), p, p)).collect();
            let Ok(names) = Names::new(sources) else { return Ok(()) };
            let mut given = std::collections::HashMap::new();
            for i in 0..prefixes.len() {
                for raw in &raws {
                    if let Ok(name) = names.group(&i.to_string(), raw) {
                        let first = *given.entry(name.clone()).or_insert(i);
                        prop_assert_eq!(first, i, "{} from two sources", name);
                    }
                }
            }
        }
    }
}
