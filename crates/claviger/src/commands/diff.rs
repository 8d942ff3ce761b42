//! `claviger diff`: what differs between two versions of a key, without showing either.

use crate::cli::Session;
use crate::failure::{Code, Failure};
use crate::{output, parse};
use clap::Args;
use claviger_client::{SecretVersion, Which};
use claviger_domain::{KeyId, VersionId};
use claviger_wire::parts::{Part, Parts};
use serde::Serialize;
use similar::{Algorithm, DiffOp, capture_diff_slices};
use std::collections::BTreeMap;

/// Texts of more lines are compared as a whole.
const MOST_LINES: usize = 20_000;

/// Tell what differs between two versions of a key, without showing them.
///
/// Without versions the two newest that are not destroyed are compared, the older first. Values are never shown, nor their sizes unless
/// you say --sizes. Of JSON the members that were changed, got another type (such as 1 and "1"), added or removed are named by their JSON pointers, of a dotenv file the names,
/// of other text the lines by their numbers; so what is secret about a name or the number of lines is shown.
///
/// The exit code is 0 when they are equal and 1 when they differ. You need `read`, and both reads are in the audit log.
#[derive(Args)]
pub(crate) struct Diff {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// The version to compare.
    #[arg(value_parser = parse::version_id, requires = "to")]
    from: Option<VersionId>,
    /// The version to compare it with.
    #[arg(value_parser = parse::version_id)]
    to: Option<VersionId>,
    /// Show how many bytes each has.
    #[arg(long)]
    sizes: bool,
}

/// How two values differ.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Difference {
    equal: bool,
    /// members, names, lines or whole.
    compared_by: &'static str,
    changed: Vec<String>,
    /// Members of JSON with the same text, which are a string in one of the two.
    retyped: Vec<String>,
    added: Vec<String>,
    removed: Vec<String>,
}

#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    from: Version<'a>,
    to: Version<'a>,
    #[serde(flatten)]
    difference: &'a Difference,
}

#[derive(Serialize)]
struct Version<'a> {
    version: &'a str,
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
}

impl Diff {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { id, from, to, sizes } = self;
        let (from, to) = match (from, to) {
            (Some(from), Some(to)) => (from, to),
            _ => newest_two(session, &id).await?,
        };
        let (old, new) = (read(session, &id, from).await?, read(session, &id, to).await?);
        let difference = compare(old.data.expose(), new.data.expose());
        let version = |v: &SecretVersion| -> String { format!("{} ({})", v.id, v.state) };
        if session.json {
            let shown = |v: &'_ SecretVersion| sizes.then_some(v.data.len());
            let from = Version { version: &old.id, state: &old.state, bytes: shown(&old) };
            let to = Version { version: &new.id, state: &new.state, bytes: shown(&new) };
            let printed = output::json(&Shown { id: id.as_str(), from, to, difference: &difference });
            return Failure::verdict(u8::from(!difference.equal), printed);
        }
        let mut text =
            vec![format!("{id}: {} and {} {}", version(&old), version(&new), if difference.equal { "are equal" } else { "differ" })];
        if sizes {
            text.push(format!("sizes: {} and {} bytes", old.data.len(), new.data.len()));
        }
        text.extend(difference.sentences());
        Failure::verdict(u8::from(!difference.equal), text.iter().try_for_each(|line| output::line(line)))
    }
}

async fn newest_two(session: &Session, id: &KeyId) -> Result<(VersionId, VersionId), Failure> {
    let versions = session.client.versions(id).await.map_err(|e| Failure::client(e, Some(id.as_str())))?.versions;
    let kept: Vec<VersionId> = versions.iter().filter(|v| v.state != "destroyed").filter_map(|v| parse::version_id(&v.id).ok()).collect();
    match kept[..] {
        [.., from, to] => Ok((from, to)),
        _ => Err(Failure::new(Code::NotFound, format!("`{id}` has no two versions to compare"))),
    }
}

async fn read(session: &Session, id: &KeyId, version: VersionId) -> Result<SecretVersion, Failure> {
    let mut secret = session.client.read(id, &Which::Version(version), None).await.map_err(|e| Failure::client(e, Some(id.as_str())))?;
    let missing = || Failure::new(Code::NotFound, format!("version {version} of `{id}` is not given out: it may have expired"));
    secret.versions.pop().ok_or_else(missing)
}

fn compare(old: &[u8], new: &[u8]) -> Difference {
    let equal = old == new;
    match (Parts::of(old), Parts::of(new)) {
        (Parts::Members(old), Parts::Members(new)) => by_name("members", equal, old, new),
        (Parts::Names(old), Parts::Names(new)) => by_name("names", equal, old, new),
        (Parts::Bytes, _) | (_, Parts::Bytes) => whole(equal),
        // All others are text.
        _ => by_lines(equal, &String::from_utf8_lossy(old), &String::from_utf8_lossy(new)),
    }
}

fn whole(equal: bool) -> Difference {
    Difference { equal, compared_by: "whole", changed: Vec::new(), retyped: Vec::new(), added: Vec::new(), removed: Vec::new() }
}

fn by_name(compared_by: &'static str, equal: bool, old: Vec<Part>, new: Vec<Part>) -> Difference {
    let mut before: BTreeMap<String, Part> = old.into_iter().map(|part| (part.name.clone(), part)).collect();
    let (mut changed, mut retyped, mut added) = (Vec::new(), Vec::new(), Vec::new());
    for part in new {
        match before.remove(&part.name) {
            None => added.push(part.name),
            Some(old) if *old.text != *part.text => changed.push(part.name),
            Some(old) if old.is_string != part.is_string => retyped.push(part.name),
            Some(_) => {}
        }
    }
    Difference { equal, compared_by, changed, retyped, added, removed: before.into_keys().collect() }
}

/// By line numbers: of the new value for what was changed or added, of the old one for what was removed.
fn by_lines(equal: bool, old: &str, new: &str) -> Difference {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let one_line = old.len() < 2 && new.len() < 2;
    if equal || one_line || old.len().max(new.len()) > MOST_LINES {
        return whole(equal);
    }
    let mut found = Difference { compared_by: "lines", ..whole(equal) };
    let lines = |from: usize, count: usize| (from + 1..=from + count).map(|n| n.to_string());
    for op in capture_diff_slices(Algorithm::Myers, &old, &new) {
        match op {
            DiffOp::Equal { .. } => {}
            DiffOp::Insert { new_index, new_len, .. } => found.added.extend(lines(new_index, new_len)),
            DiffOp::Delete { old_index, old_len, .. } => found.removed.extend(lines(old_index, old_len)),
            DiffOp::Replace { old_index, old_len, new_index, new_len } => {
                let both = old_len.min(new_len);
                found.changed.extend(lines(new_index, both));
                found.added.extend(lines(new_index + both, new_len - both));
                found.removed.extend(lines(old_index + both, old_len - both));
            }
        }
    }
    found
}

impl Difference {
    fn sentences(&self) -> Vec<String> {
        let Self { equal, compared_by, changed, retyped, added, removed } = self;
        let what = |verb: &str, names: &[String]| (!names.is_empty()).then(|| format!("{compared_by} {verb}: {}", names.join(" ")));
        let retyped = what("with the same text and another type (a string, and no string)", retyped);
        let told = [what("changed", changed), retyped, what("added", added), what("removed", removed)];
        let told: Vec<String> = told.into_iter().flatten().collect();
        // What is compared leaves these out, so nothing more can be said.
        let beside = match *compared_by {
            "members" => "their order, spaces and escapes, or empty objects and arrays",
            "names" => "their order, quotes, spaces or comments",
            "lines" => "how they end",
            _ => return told,
        };
        match told.is_empty() && !equal {
            true => vec![format!("all {compared_by} have the same values; what differs is {beside}")],
            false => told,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(old: &str, new: &str) -> String {
        let found = compare(old.as_bytes(), new.as_bytes());
        let Difference { equal, compared_by, changed, retyped, added, removed } = &found;
        assert_eq!(*equal, old == new);
        let retyped = if retyped.is_empty() { String::new() } else { format!(" type:{}", retyped.join(",")) };
        format!("{compared_by} ~{}{retyped} +{} -{}", changed.join(","), added.join(","), removed.join(","))
    }

    #[test]
    fn what_differs_is_named_and_never_shown() {
        for (old, new, expected) in [
            (r#"{"a": 1, "b": {"c": "x"}, "d": 0}"#, r#"{"b": {"c": "y", "e": 1}, "a": 1}"#, "members ~/b/c +/b/e -/d"),
            (r#"{"a": 1}"#, r#"{ "a": 1 }"#, "members ~ + -"),
            ("A=1\nB=2\n", "B=3\nC=1\n", "names ~B +C -A"),
            ("one\ntwo\nthree", "one\n2\nthree\nfour", "lines ~2 +4 -"),
            ("one\ntwo\nthree", "one\nthree", "lines ~ + -2"),
            ("hunter2", "hunter3", "whole ~ + -"),
            ("same\ntext", "same\ntext", "whole ~ + -"),
            (r#"{"a": 1}"#, "hunter2", "whole ~ + -"),
            (r#"{"a": 1, "b": "null"}"#, r#"{"a": "1", "b": null}"#, "members ~ type:/a,/b + -"),
            (r#"{"a": 1}"#, r#"{"a": "2"}"#, "members ~/a + -"),
        ] {
            assert_eq!(told(old, new), expected, "{old} {new}");
        }
        assert_eq!(compare(&[0xff, 1], b"text"), whole(false));
        for (old, new, expected) in [
            (
                r#"{"a": 1}"#,
                r#"{"a":1}"#,
                "all members have the same values; what differs is their order, spaces and escapes, or empty objects",
            ),
            (r#"{"a": 1, "b": {}}"#, r#"{"a": 1, "b": []}"#, "all members have the same values; what differs is their order, spaces"),
            (r#"{"a": 1}"#, r#"{"a": "1"}"#, "members with the same text and another type (a string, and no string): /a"),
            ("A=1\nB=2\n", "B=2\nA='1'\n", "all names have the same values; what differs is their order, quotes"),
            ("one\ntwo", "one\r\ntwo", "all lines have the same values; what differs is how they end"),
        ] {
            let told = compare(old.as_bytes(), new.as_bytes()).sentences();
            assert!(told.len() == 1 && told[0].starts_with(expected), "{old} {new}: {told:?}");
        }
    }
}
