//! The committed table: its sections are written from what the server answered, and compared with the file.

use super::Cells;
use super::oracle::{Need, Verdict};
use super::people::{PROVEN, UNPROVEN};
use super::routes::{self, Row};
use super::situations::{self, NEAR_MISSES, TYPES};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Mutex;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/who-may-do-what.md");

const HEAD: &str = "# Who may do what

Written by the tests in `crates/claviger/tests/it/matrix` and `people/table.rs` from what a real server answered, after each answer was compared with
an oracle that knows the rules in words and shares no code with the server. Rewrite it with
`CLAVIGER_UPDATE=1 cargo test -p claviger --test it -- matrix people::table`; otherwise the tests compare. A difference in this file is a change of
who may do what: read it as such.

- **yes**: it is done. **403**: refused, and the caller may know that the key is there. **401**: nobody was proven.
- **unseen**: the native surface gives the very bytes that a missing key gets (but for the request's id), so that a caller without
  a right learns nothing; from lists the key is absent.
- **404** (Knox): Knox's clients cannot name the key. **400** (Knox): the list has rights that Knox cannot express, and is not edited.
- READ, WRITE and ADMIN are Knox's presets; each covers those before it. READ is list and every use: read, encrypt, decrypt, sign,
  verify. ADMIN on a prefix includes create.
";

/// The sections in order.
const SECTIONS: [&str; 5] = ["matrix", "once", "people", "unproven", "escalation"];

/// One test after the other reads or writes the file.
static TURN: Mutex<()> = Mutex::new(());

/// Compares a section with the file's, or writes it there.
pub(crate) fn check(section: &str, text: &str) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let file = std::fs::read_to_string(FILE).unwrap_or_default();
    let marks = |name: &str| (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->\n"));
    let part = |name: &str| {
        let (begin, end) = marks(name);
        file.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end)).map_or("", |(part, _)| part).to_owned()
    };
    if std::env::var_os("CLAVIGER_UPDATE").is_some_and(|v| v == "1") {
        let all = SECTIONS.iter().fold(HEAD.to_owned(), |all, name| {
            let (begin, end) = marks(name);
            let part = if *name == section { text.to_owned() } else { part(name) };
            format!("{all}\n{begin}{part}{end}")
        });
        std::fs::write(FILE, all).unwrap();
        return;
    }
    assert!(file.starts_with(HEAD), "the head of docs/who-may-do-what.md is not what the tests say");
    let first = text.lines().zip(part(section).lines().map(str::to_owned)).find(|(is, was)| is != was);
    assert!(
        part(section) == text,
        "section `{section}` of docs/who-may-do-what.md is not what the server does; rewrite it with CLAVIGER_UPDATE=1 and look at the difference; first: {first:?}"
    );
}

/// A Markdown table.
fn table(out: &mut String, heads: &[String], rows: impl IntoIterator<Item = Vec<String>>) {
    let _ = writeln!(out, "| {} |", heads.join(" | "));
    let _ = writeln!(out, "|{}", "---|".repeat(heads.len()));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
}

fn heads(first: &[&str], more: impl IntoIterator<Item = String>) -> Vec<String> {
    first.iter().map(|s| (*s).to_owned()).chain(more).collect()
}

/// What a route asks for, in words.
fn needs(need: Need) -> String {
    match need {
        Need::Nothing => "nothing".to_owned(),
        Need::Identity => "an identity".to_owned(),
        Need::AnyRight | Need::Shown => "any right on the key".to_owned(),
        Need::Right(right) | Need::KnoxRight(right) => format!("`{right}`"),
        Need::AnyOf(one, other) => format!("`{one}` or `{other}`"),
        Need::Creation => "`create` on a prefix, or its rule".to_owned(),
        Need::PrefixAdmin => "`admin` on the prefix or a shorter one".to_owned(),
        Need::RootAdmin => "`admin` on the empty prefix".to_owned(),
        Need::KnoxAnyone => "an identity (contract §§4.1, 4.5)".to_owned(),
        Need::KnoxAccess => "`admin`, and a list that Knox can express".to_owned(),
        Need::Concerned => "to have asked, to be an approver, or `admin` on its target".to_owned(),
        Need::KnoxCreation => "a user, and `create` on a prefix or its rule".to_owned(),
    }
}

/// What came of a cell; a dash where there is none.
fn sign(cells: &Cells, situation: &str, person: &'static str, row: &Row) -> String {
    let verdict: Option<&Verdict> = cells.get(&(situation.to_owned(), person, row.title()));
    verdict.map_or("–", |v| v.sign()).to_owned()
}

fn each(knox: bool) -> impl Iterator<Item = &'static Row> {
    routes::all().filter(move |r| r.each && r.is_knox() == knox)
}

/// The sections on single keys and prefixes.
pub(super) fn matrix(cells: &Cells) -> String {
    let mut out = String::from("## The callers\n\n");
    let people = PROVEN.iter().map(|p| vec![p.name.to_owned(), p.who.to_owned()]);
    table(&mut out, &heads(&["caller", "is"], []), people);
    rights(
        &mut out,
        cells,
        "key",
        "What a right on the key allows",
        "The caller is the user `alice`, whose only right is the one above the column.",
    );
    let on_prefix = "The same, with the right on the prefix right above the key; rows about a prefix act on a longer one.";
    rights(&mut out, cells, "prefix", "What a right on a prefix of the key's id allows", on_prefix);
    reach(&mut out, cells);
    duties(&mut out, cells);
    let _ = writeln!(out, "\n{} cells were tried and compared.", cells.len());
    out
}

fn rights(out: &mut String, cells: &Cells, place: &str, title: &str, text: &str) {
    let sets = situations::sets();
    for (surface, knox) in [("native", false), ("Knox", true)] {
        let _ = writeln!(out, "\n## {title}: {surface} surface\n\n{text}\n");
        let columns = heads(&["route", "does", "needs", "none"], sets.iter().map(|(name, _)| name.clone()));
        let lines = each(knox).map(|row| {
            let mut line =
                vec![format!("`{} {}`", row.method, row.path), row.what.to_owned(), needs(row.need), sign(cells, "no grant", "alice", row)];
            line.extend(sets.iter().map(|(name, _)| sign(cells, &format!("{place}: user:alice {name}"), "alice", row)));
            line
        });
        table(out, &columns, lines);
    }
}

/// Whom an entry reaches: who can read by it.
fn reach(out: &mut String, cells: &Cells) {
    let _ = writeln!(
        out,
        "\n## Whom an entry reaches\n\nWho reads the key (`GET /api/v1/keys/{{id}}/-/data` and `GET /v0/keys/{{key}}/`) when the entry stands on it.\n"
    );
    let is_read = |r: &&Row| r.what == "read";
    let columns = heads(&["entry"], PROVEN.iter().map(|p| p.name.to_owned()));
    let reaching = TYPES.iter().map(|to| (format!("key: {to} READ"), format!("{to} READ")));
    let missing = NEAR_MISSES.iter().map(|to| (format!("near miss: {to} ADMIN"), format!("{to} ADMIN")));
    let others =
        ["no grant", "READ until it was taken away", "rights of one caller from many entries"].map(|s| (s.to_owned(), s.to_owned()));
    let lines = reaching.chain(missing).chain(others).map(|(situation, shown)| {
        let mut line = vec![format!("`{shown}`")];
        line.extend(PROVEN.iter().map(|p| {
            let signs: BTreeSet<_> = routes::all().filter(is_read).map(|r| sign(cells, &situation, p.name, r) == "yes").collect();
            assert_eq!(signs.len(), 1, "the surfaces do not agree about {situation}");
            if signs.contains(&true) { "yes".to_owned() } else { "–".to_owned() }
        }));
        line
    });
    table(out, &columns, lines);
}

/// Keys whose managing and using are different people's.
fn duties(out: &mut String, cells: &Cells) {
    let _ = writeln!(
        out,
        "\n## Separate duties\n\nOn such keys sets are exact, who administers, from wherever, uses nothing, and nobody grants to himself (see the last table). Knox's\nclients may use them and never edit their rights.\n"
    );
    let shown = ["read", "add a version", "promote", "destroy", "show rights", "change rights", "delete"];
    let rows: Vec<&Row> = routes::all().filter(|r| r.each && shown.contains(&r.what)).collect();
    let label = |r: &&Row| if r.is_knox() { format!("Knox: {}", r.what) } else { r.what.to_owned() };
    let columns = heads(&["grants", "caller"], rows.iter().map(label));
    let situations: Vec<_> = situations::all().into_iter().filter(|s| s.separate).collect();
    let mut lines = Vec::new();
    for situation in &situations {
        for person in &PROVEN {
            let concerned = situation.on_key.iter().chain(&situation.on_prefix).any(|e| super::oracle::is_about(e, person));
            let everywhere = ["root", "lead"].contains(&person.name) && situation.name.ends_with("no grant");
            if concerned || everywhere {
                let mut line = vec![situation.name.trim_start_matches("separate duties: ").to_owned(), person.name.to_owned()];
                line.extend(rows.iter().map(|r| sign(cells, &situation.name, person.name, r)));
                lines.push(line);
            }
        }
    }
    table(out, &columns, lines);
}

/// The section on routes that are about no single key.
pub(super) fn once(rows: &[(String, Need, Vec<String>)]) -> String {
    let mut out = String::from(
        "## Routes that are about no single key\n\nWhat they show is limited to what the caller may see; each list was compared with the oracle's.\n\n",
    );
    let lines = rows.iter().map(|(row, need, signs)| [row.clone(), needs(*need)].into_iter().chain(signs.iter().cloned()).collect());
    table(&mut out, &heads(&["route", "needs"], PROVEN.iter().map(|p| p.name.to_owned())), lines);
    out
}

/// The section on people's logins.
pub(crate) fn people(rows: &[(&str, &str, String)]) -> String {
    let mut out = String::from(
        "## Logging in and out\n\nAt a server with one issuer, a real provider. What an ID token may say is tried in `tests/it/people`.\n\n",
    );
    let lines = rows.iter().map(|(route, with, found)| vec![format!("`{route}`"), (*with).to_owned(), found.clone()]);
    table(&mut out, &heads(&["route", "with", "answer"], []), lines);
    out
}

/// The section on those who prove nothing.
pub(super) fn unproven(refused: &BTreeSet<String>) -> String {
    let mut out = String::from(
        "## Who proves nothing\n\nEvery route below answers each of these with 401, and the same bytes whether the key exists or not:\n\n",
    );
    for person in &UNPROVEN {
        let _ = writeln!(out, "- {}: {}", person.name, person.who);
    }
    out.push('\n');
    for row in refused {
        let _ = writeln!(out, "- {row}");
    }
    out
}

/// The section on attempts to gain rights.
pub(super) fn escalation(rows: &[(String, String)]) -> String {
    let mut out = String::from(
        "## Ways to more rights that do not work\n\n`mallory` is in the group `ops`. Each attempt was made on a real server, which gave the answers on the right; afterwards it was made sure that the attempt gained nothing.\n\n",
    );
    table(&mut out, &heads(&["attempt", "answers"], []), rows.iter().map(|(idea, answers)| vec![idea.clone(), answers.clone()]));
    out
}
