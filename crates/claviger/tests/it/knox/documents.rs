//! The documents name tests, files and settings; those must be there.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn document(name: &str) -> String {
    std::fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names of all functions in the sources below `folder`.
fn functions(folder: &Path, found: &mut HashSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_test_that_a_document_names_exists() {
    let mut found = HashSet::new();
    functions(&root().join("crates"), &mut found);
    let text = document("past-holes.md") + &document("compatibility.md");
    let is_test =
        |name: &&str| name.matches('_').count() > 3 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let named: Vec<_> = quoted(&text).filter(is_test).collect();
    assert!(named.len() > 40, "{named:?}");
    let missing: Vec<_> = named.into_iter().filter(|n| !found.contains(*n)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_scenario_that_a_document_names_exists() {
    for name in ["past-holes.md", "compatibility.md"] {
        let text = document(name);
        for file in quoted(&text).filter(|q| q.ends_with(".txt") && !q.contains('*')) {
            assert!(root().join("crates/claviger/tests/data/knox").join(file).exists(), "{name}: {file}");
        }
    }
}

/// `[section] field = default`: the fields stand in the configuration's reference, and the server takes the values.
#[test]
fn every_setting_of_the_compatibility_table_is_known_to_the_server() {
    let text = document("compatibility.md");
    let reference = claviger_server::config::reference();
    let mut seen = 0;
    for setting in quoted(&text).filter(|q| q.starts_with('[') && q.contains("] ")) {
        let (section, fields) = setting.trim_start_matches('[').split_once("] ").unwrap();
        let of_section = reference.split(&format!("## `[{section}]`")).nth(1).unwrap_or_else(|| panic!("{setting}: no such section"));
        let of_section = of_section.split("\n## ").next().unwrap();
        for field in fields.split(", ").filter(|f| *f != "…") {
            let name = field.split(" = ").next().unwrap();
            assert!(of_section.contains(&format!("| `{name}`<br>")), "{setting}: `{name}` is no field of [{section}]");
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen}");
}
