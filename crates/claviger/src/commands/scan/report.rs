//! What was found, put together and printed. There is no value to print.

use super::search::{Hit, Place};
use super::{Format, Origin, Wanted};
use crate::failure::Failure;
use crate::output;
use serde::Serialize;
use serde_json::{Value, json};

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Found {
    /// The file.
    pub(super) path: String,
    /// From 1.
    pub(super) line: u64,
    /// The commit that brought it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commit: Option<String>,
    /// The key.
    pub(super) key: String,
    /// Its version.
    pub(super) version: String,
    /// The part of the value; empty for the whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) part: String,
    /// How it is written there.
    pub(super) form: String,
}

/// All findings.
#[derive(Default)]
pub(super) struct Report {
    found: Vec<Found>,
}

impl Report {
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Adds what was found at a place, the widest first: what lies within another finding of the same version says nothing new, and of
    /// a value's lines the first in a file stands for all.
    pub(super) fn add(&mut self, place: &Place, mut hits: Vec<Hit>, origins: &[Origin]) {
        hits.sort_by_key(|hit| std::cmp::Reverse(hit.length));
        let mut kept: Vec<Hit> = Vec::new();
        for hit in hits {
            let origin = &origins[hit.print];
            let is_same = |other: &Hit| {
                let of = &origins[other.print];
                (&of.key, &of.version) == (&origin.key, &origin.version)
            };
            let is_within = |other: &Hit| other.at <= hit.at && hit.at + hit.length <= other.at + other.length;
            let is_further_line = |other: &Hit| origin.part.starts_with("line ") && origins[other.print].part.starts_with("line ");
            if !kept.iter().any(|other| is_same(other) && (is_within(other) || is_further_line(other))) {
                kept.push(hit);
            }
        }
        kept.sort_by_key(|hit| hit.at);
        self.found.extend(kept.into_iter().map(|hit| {
            let Origin { key, version, part, form } = &origins[hit.print];
            Found {
                path: place.path.clone(),
                line: hit.line,
                commit: place.commit.clone(),
                key: key.clone(),
                version: version.clone(),
                part: part.clone(),
                form: form.clone(),
            }
        }));
    }

    pub(super) fn show(
        &self,
        format: Format,
        wanted: &Wanted,
        bytes: u64,
        unread: &[(String, String)],
        verbose: bool,
    ) -> Result<(), Failure> {
        for (path, why) in unread {
            eprintln!("{}", output::clean(&format!("not searched: {path}: {why}")));
        }
        match format {
            Format::Json => output::json(&self.to_json(wanted, bytes, unread)),
            Format::Sarif => output::json(&self.to_sarif()),
            Format::Text => self.print(wanted, bytes, verbose),
        }
    }

    fn print(&self, wanted: &Wanted, bytes: u64, verbose: bool) -> Result<(), Failure> {
        for found in &self.found {
            output::line(&found.sentence())?;
        }
        if verbose {
            for left in &wanted.left_out {
                let text = |name: &str| left[name].as_str().unwrap_or_default().to_owned();
                let part = if text("part").is_empty() { String::new() } else { format!(" {}", text("part")) };
                eprintln!(
                    "{}",
                    output::clean(&format!("not looked for: {} version {}{part}: {}", text("key"), text("version"), text("why")))
                );
            }
        }
        let left_out =
            if wanted.left_out.is_empty() { String::new() } else { format!(", {} values or parts left out", wanted.left_out.len()) };
        eprintln!("searched {bytes} bytes for values of {} keys{left_out}: {} found", wanted.keys, self.found.len());
        Ok(())
    }

    fn to_json(&self, wanted: &Wanted, bytes: u64, unread: &[(String, String)]) -> Value {
        let unread: Vec<_> = unread.iter().map(|(path, why)| json!({ "path": path, "why": why })).collect();
        json!({ "found": self.found, "keys": wanted.keys, "bytes": bytes, "left_out": wanted.left_out, "not_searched": unread })
    }

    /// SARIF 2.1.0 (OASIS), as code hosts take it.
    fn to_sarif(&self) -> Value {
        let result = |found: &Found| {
            json!({
                "ruleId": "stored-secret",
                "level": "error",
                "message": { "text": found.sentence() },
                "locations": [{ "physicalLocation": {
                    "artifactLocation": { "uri": uri(&found.path) },
                    "region": { "startLine": found.line },
                } }],
                "partialFingerprints": { "claviger/v1": format!("{}@{}#{}", found.key, found.version, found.part) },
            })
        };
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": {
                    "name": "claviger",
                    "version": env!("CARGO_PKG_VERSION"),
                    "rules": [{ "id": "stored-secret", "shortDescription": { "text": "A secret that Claviger keeps stands in a file." } }],
                } },
                "results": self.found.iter().map(result).collect::<Vec<_>>(),
            }],
        })
    }
}

impl Found {
    fn sentence(&self) -> String {
        let Self { path, line, commit, key, version, part, form } = self;
        let part = if part.is_empty() { String::new() } else { format!(", {part}") };
        let form = if form == "raw" { String::new() } else { format!(", as {form}") };
        let commit = commit.as_ref().map_or_else(String::new, |id| format!(" in commit {id}"));
        format!("{path}:{line}: {key} version {version}{part}{form}{commit}")
    }
}

/// A path as a relative reference (RFC 3986 §4.2).
fn uri(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_within_others_and_further_lines_are_one() {
        let origin = |key: &str, part: &str| Origin { key: key.into(), version: "1".into(), part: part.into(), form: "raw".into() };
        let origins = [origin("a", ""), origin("a", "/x"), origin("b", ""), origin("a", "line 2"), origin("a", "line 3")];
        let hit = |print, at, length, line| Hit { print, at, length, line };
        let mut report = Report::default();
        report.add(
            &Place::default(),
            vec![hit(1, 15, 8, 2), hit(0, 10, 20, 1), hit(2, 15, 8, 2), hit(3, 50, 9, 5), hit(4, 60, 9, 6)],
            &origins,
        );
        let told: Vec<_> = report.found.iter().map(|f| format!("{}{}:{}", f.key, f.part, f.line)).collect();
        assert_eq!(told, ["a:1", "b:2", "aline 2:5"]);
        assert_eq!(uri("a b/ä#.txt"), "a%20b/%C3%A4%23.txt");
    }
}
