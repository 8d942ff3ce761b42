//! Rules on source files, and which crates have none worth the name.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::rules::{LEAST_CODE_LINES, MOST_LINES, TEXTS, Text, Within};
use super::scrub::code_only;

/// Folders with our code, from the workspace's root; those not there yet count as empty.
const FOLDERS: &[&str] = &["crates", "xtask", "fuzz"];

/// A source file.
pub(super) struct File {
    /// From the workspace's root.
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// Reads all Rust files of the workspace, in order of their paths.
pub(super) fn read_all(root: &Path) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = FOLDERS.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = open.pop() {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))?;
                let path = path.strip_prefix(root).unwrap_or(&path).to_owned();
                files.push(File { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Findings about files.
pub(super) fn check_all(files: &[File]) -> Vec<String> {
    files.iter().flat_map(check).collect()
}

fn check(file: &File) -> Vec<String> {
    let path = file.path.display();
    let mut findings = Vec::new();
    if !file.text.starts_with("//!") {
        findings.push(format!("{path}:1: does not open with `//!`, what it is for"));
    }
    let lines = file.text.lines().count();
    if lines > MOST_LINES {
        findings.push(format!("{path}: {lines} lines; {MOST_LINES} is the most: look for the hidden module"));
    }
    let code = code_only(&file.text);
    for rule in TEXTS.iter().filter(|rule| !is_exempt(file, rule)) {
        let text = match rule.within {
            Within::Everything => file.text.as_str(),
            Within::Code => code.as_str(),
            Within::ShippedCode => before_tests(&code),
        };
        let hits = text.lines().enumerate().filter(|it| it.1.contains(rule.text));
        findings.extend(hits.map(|(at, _)| format!("{path}:{}: `{}`: {}", at + 1, rule.text, rule.why)));
    }
    findings
}

fn is_exempt(file: &File, rule: &Text) -> bool {
    let is_test_file =
        file.path.components().any(|part| ["tests", "tests.rs", "benches", "examples", "fuzz"].iter().any(|it| part.as_os_str() == *it));
    let is_allowed = rule.allowed_in.iter().any(|folder| file.path.starts_with(folder));
    is_allowed || (is_test_file && rule.within == Within::ShippedCode)
}

/// Our files end with their tests, so what ships stands before the first line that begins them.
fn before_tests(code: &str) -> &str {
    let begin = code
        .match_indices("#[cfg(test)]")
        .map(|(at, _)| at)
        // `#[cfg(test)] mod tests;` in its own file, or an item for tests, is not the end.
        .find(|at| {
            let after = code[*at + "#[cfg(test)]".len()..].trim_start();
            let opens = after.find(['{', ';']).map(|at| after.as_bytes()[at]);
            after.starts_with("mod ") && opens == Some(b'{')
        });
    &code[..begin.unwrap_or(code.len())]
}

/// Findings about crates without real code: `folders` are names and folders of all crates.
pub(super) fn check_empty(folders: &[(String, PathBuf)], files: &[File]) -> Vec<String> {
    folders
        .iter()
        .filter_map(|(name, folder)| {
            let sources = folder.join("src");
            let lines: usize = files.iter().filter(|file| file.path.starts_with(&sources)).map(|file| code_lines(&file.text)).sum();
            (lines < LEAST_CODE_LINES).then(|| format!("crate `{name}` is empty ({lines} lines of code): make it when it has code"))
        })
        .collect()
}

fn code_lines(text: &str) -> usize {
    let code = code_only(text);
    code.lines().filter(|line| !line.trim().is_empty()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.to_owned() }
    }

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&file(path, text))
    }

    #[test]
    fn an_orderly_file_has_no_findings() {
        let text = "//! What it is for.\n\nfn f() {} // no dbg!() here\n";
        assert_eq!(findings("crates/store/src/lib.rs", text), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_does_not_say_what_it_is_for_is_found() {
        assert_eq!(findings("crates/store/src/a.rs", "fn f() {}\n").len(), 1);
    }

    #[test]
    fn a_file_that_is_too_long_is_found() {
        let text = format!("//! Long.\n{}", "fn f() {}\n".repeat(MOST_LINES));
        let findings = findings("crates/store/src/a.rs", &text);
        assert!(findings[0].contains("1201 lines"), "{findings:?}");
    }

    #[test]
    fn unfinished_code_is_found_with_its_line() {
        let text = concat!("//! A.\nfn f() {\n    to", "do!()\n}\n");
        let findings = findings("crates/store/src/a.rs", text);
        assert!(findings[0].starts_with("crates/store/src/a.rs:3: "), "{findings:?}");
    }

    #[test]
    fn plaintext_is_exposed_only_where_that_is_allowed() {
        let text = "//! A.\nfn f() { s.expose(); }\n";
        assert_eq!(findings("crates/store/src/a.rs", text).len(), 1);
        assert_eq!(findings("crates/crypto/src/a.rs", text).len(), 0);
        assert_eq!(findings("crates/store/tests/a.rs", text).len(), 0);
        assert_eq!(findings("crates/store/examples/a.rs", text).len(), 0);
        let in_test = "//! A.\n#[cfg(test)]\nmod tests {\n fn f() { s.expose(); }\n}\n";
        assert_eq!(findings("crates/store/src/a.rs", in_test).len(), 0);
    }

    #[test]
    fn a_test_item_before_the_end_does_not_hide_what_follows() {
        let text = "//! A.\n#[cfg(test)]\nmod tests;\nfn f() { s.expose(); }\n";
        assert_eq!(findings("crates/store/src/a.rs", text).len(), 1);
        let text = "//! A.\n#[cfg(test)]\nuse x;\nfn f() { s.expose(); }\n";
        assert_eq!(findings("crates/store/src/a.rs", text).len(), 1);
    }

    #[test]
    fn paths_of_one_machine_are_found_in_comments_too() {
        let text = format!("//! See {}x.\n", concat!("/root", "/"));
        assert_eq!(findings("crates/store/src/a.rs", &text).len(), 1);
    }

    #[test]
    fn a_crate_of_comments_is_empty() {
        let folders = [("claviger-x".to_owned(), PathBuf::from("crates/x"))];
        let only_words = [file("crates/x/src/lib.rs", "//! Much.\n// To come.\n")];
        assert_eq!(check_empty(&folders, &only_words).len(), 1);
        let text = "pub fn f() {\n}\n".repeat(LEAST_CODE_LINES);
        let real = [file("crates/x/src/lib.rs", &text)];
        assert_eq!(check_empty(&folders, &real), Vec::<String>::new());
    }
}
