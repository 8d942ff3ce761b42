//! What an import would do: a pure decision from what the file has and what stands, made before anything is changed.

use super::formats::Entry;
use crate::failure::Code;
use claviger_domain::{KeyId, Prefix, SecretBytes};
use std::collections::{BTreeMap, HashMap};

/// What a key holds already.
pub(super) enum Standing {
    /// There is none, as far as the caller may know.
    Missing,
    /// There is one; what it is now, and its values that are given out.
    Present(Present),
    /// There is one, which cannot be compared, and why.
    Opaque(&'static str),
}

pub(super) struct Present {
    pub(super) etag: String,
    /// The primary version's, unless it has expired.
    pub(super) primary: Option<SecretBytes>,
    /// Those of the other active versions.
    pub(super) active: Vec<SecretBytes>,
    /// Whether the caller may write it; not known before it matters.
    pub(super) may_write: bool,
}

/// What to do with a key that exists with another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Existing {
    /// Refuse it; the others are imported.
    Refuse,
    /// Leave it as it is.
    Leave,
    /// Add the file's value as a new version.
    Update,
}

/// What is done with one entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Create,
    /// Add a version to the key that has this ETag.
    Change {
        etag: String,
    },
    /// Nothing is to be done, and why.
    Leave(&'static str),
    Refuse {
        code: Code,
        why: String,
    },
}

/// An entry with its place here.
pub(super) struct Planned {
    /// The key's id, or what it would be if it could be one.
    pub(super) name: String,
    pub(super) id: Option<KeyId>,
    pub(super) entry: Entry,
    pub(super) step: Step,
}

/// The ids that entries get below `prefix`; none where they are refused already.
pub(super) fn place(entries: Vec<Entry>, prefix: &Prefix) -> Vec<Planned> {
    let planned: Vec<Planned> = entries.into_iter().map(|entry| place_one(entry, prefix)).collect();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for it in planned.iter().filter(|it| it.id.is_some()) {
        *times.entry(it.name.clone()).or_default() += 1;
    }
    let twice = |mut it: Planned| {
        if times.get(&it.name).is_some_and(|n| *n > 1) {
            (it.id, it.step) = (None, refuse("two entries of the file would be this key"));
        }
        it
    };
    planned.into_iter().map(twice).collect()
}

fn place_one(entry: Entry, prefix: &Prefix) -> Planned {
    let name = format!("{prefix}{}", entry.path.join("/"));
    let named = match &entry.value {
        Err(why) => Err(refuse(why)),
        Ok(value) if value.is_empty() => Err(refuse("it is empty")),
        Ok(_) => KeyId::parse(&name).map_err(|e| refuse(&e.to_string())),
    };
    match named {
        Ok(id) => Planned { name, id: Some(id), entry, step: Step::Create },
        Err(step) => Planned { name, id: None, entry, step },
    }
}

fn refuse(why: &str) -> Step {
    Step::Refuse { code: Code::Invalid, why: why.to_owned() }
}

/// Decides for those that have an id.
pub(super) fn decide(planned: &mut [Planned], standing: &HashMap<KeyId, Standing>, existing: Existing, promote: bool) {
    for it in planned {
        if let (Some(id), Ok(value)) = (&it.id, &it.entry.value) {
            it.step = standing.get(id).map_or(Step::Create, |standing| decide_one(standing, value, existing, promote));
        }
    }
}

fn decide_one(standing: &Standing, value: &SecretBytes, existing: Existing, promote: bool) -> Step {
    let present = match standing {
        Standing::Missing => return Step::Create,
        Standing::Opaque(why) => return Step::Refuse { code: Code::Denied, why: (*why).to_owned() },
        Standing::Present(present) => present,
    };
    let is_value = |other: &SecretBytes| other.expose() == value.expose();
    if present.primary.as_ref().is_some_and(is_value) {
        return Step::Leave("it has this value");
    }
    if !promote && present.active.iter().any(is_value) {
        return Step::Leave("an active version has this value");
    }
    match existing {
        Existing::Refuse => Step::Refuse { code: Code::Conflict, why: "it has another value (--existing says what then)".to_owned() },
        Existing::Leave => Step::Leave("it has another value"),
        Existing::Update if !present.may_write => Step::Refuse { code: Code::Denied, why: "you lack the right to write it".to_owned() },
        Existing::Update => Step::Change { etag: present.etag.clone() },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(path: &str, value: Result<&str, &'static str>) -> Entry {
        let value = value.map(|text| SecretBytes::new(text.as_bytes().to_vec()));
        Entry {
            path: path.split('/').map(str::to_owned).collect(),
            value,
            description: String::new(),
            labels: BTreeMap::new(),
            expires: None,
        }
    }

    fn present(primary: Option<&str>, active: &[&str], may_write: bool) -> Standing {
        let secret = |text: &str| SecretBytes::new(text.as_bytes().to_vec());
        let active = active.iter().map(|text| secret(text)).collect();
        Standing::Present(Present { etag: "e".into(), primary: primary.map(secret), active, may_write })
    }

    fn steps(standing: Standing, existing: Existing, promote: bool) -> Step {
        let mut planned = place(vec![entry("k", Ok("new"))], &Prefix::parse("p/").unwrap());
        decide(&mut planned, &HashMap::from([(KeyId::parse("p/k").unwrap(), standing)]), existing, promote);
        planned.remove(0).step
    }

    #[test]
    fn names_that_cannot_be_keys_are_refused_one_by_one() {
        let entries = vec![
            entry("ok", Ok("x")),
            entry("a b", Ok("x")),
            entry("a//b", Ok("x")),
            entry("empty", Ok("")),
            entry("none", Err("it is null")),
            entry("twice", Ok("x")),
            entry("twice", Ok("y")),
        ];
        let planned = place(entries, &Prefix::parse("p/").unwrap());
        let refused: Vec<_> = planned.iter().map(|p| (p.name.as_str(), matches!(p.step, Step::Refuse { .. }), p.id.is_some())).collect();
        let expected = [
            ("p/ok", false, true),
            ("p/a b", true, false),
            ("p/a//b", true, false),
            ("p/empty", true, false),
            ("p/none", true, false),
            ("p/twice", true, false),
            ("p/twice", true, false),
        ];
        assert_eq!(refused, expected);
    }

    #[test]
    fn what_stands_decides() {
        use Existing::{Leave, Refuse, Update};
        let change = Step::Change { etag: "e".into() };
        let is_refused = |step: Step, code: Code| matches!(step, Step::Refuse { code: c, .. } if c == code);
        assert_eq!(steps(Standing::Missing, Refuse, true), Step::Create);
        assert_eq!(steps(present(Some("new"), &[], false), Refuse, true), Step::Leave("it has this value"));
        assert!(is_refused(steps(present(Some("old"), &["new"], true), Refuse, true), Code::Conflict));
        assert_eq!(steps(present(Some("old"), &[], true), Leave, true), Step::Leave("it has another value"));
        assert_eq!(steps(present(Some("old"), &["new"], true), Update, true), change);
        assert_eq!(steps(present(Some("old"), &["new"], true), Update, false), Step::Leave("an active version has this value"));
        assert_eq!(steps(present(None, &[], true), Update, true), change, "an expired value is another one");
        assert!(is_refused(steps(present(Some("old"), &[], false), Update, true), Code::Denied));
        assert!(is_refused(steps(Standing::Opaque("no"), Update, true), Code::Denied));
    }
}
