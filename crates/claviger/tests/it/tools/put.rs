//! `claviger put` and `claviger edit`.

use super::terminal::Terminal;
use super::{file, script, shown};
use crate::command_line::{as_machine, command, done, finish, json, with_input};
use crate::server;
use claviger_testkit::TestServer;
use std::path::Path;
use std::process::Command;

/// A command with this editor.
fn with_editor(server: &TestServer, editor: &str, arguments: &[&str]) -> Command {
    let mut command = command(server, arguments);
    command.env("EDITOR", editor);
    command
}

#[test]
fn put_creates_a_key_or_adds_a_version_that_counts_at_once() {
    let server = server();
    let made = with_input(&server, &["put", "db/pw", "--description", "the database"], "one");
    assert!(made.starts_with("created db/pw, version "), "{made}");
    let first = json(&server, &["info", "db/pw"])["etag"].as_str().unwrap().to_owned();
    let added = with_input(&server, &["put", "db/pw"], "two");
    assert!(added.contains("db/pw: added version ") && added.contains(", primary (revision "), "{added}");
    assert_eq!(done(&server, &["get", "db/pw"]), "two");
    let path = file(&server, "value", "three\n");
    let waiting = with_input(&server, &["put", "db/pw", "--file", shown(&path), "--trim-newline", "--no-promote"], "");
    assert!(waiting.contains(", active (revision "), "{waiting}");
    assert_eq!(done(&server, &["get", "db/pw"]), "two");
    assert_eq!(json(&server, &["info", "db/pw"])["description"], "the database");
    assert_eq!(done(&server, &["get", "db/pw", "--all"]).lines().count(), 3);

    let (code, _, err) = finish(command(&server, &["put", "db/pw", "--if-match", &first]), "four");
    assert_eq!(code, 6, "{err}");
    let (code, _, err) = finish(command(&server, &["put", "new", "--if-match", &first]), "four");
    assert_eq!(code, 3, "{err}");
    let (code, _, err) = finish(command(&server, &["put", "db/pw"]), "");
    assert!(code == 2 && err.contains("nothing was changed"), "{err}");
    assert_eq!(done(&server, &["get", "db/pw"]), "two");
}

#[test]
fn who_may_create_but_not_see_a_key_is_told_that_it_is_there() {
    let server = server();
    with_input(&server, &["put", "apps/x"], "one");
    done(&server, &["acl", "grant", "--prefix", "apps/", "machine:dev-machine", "only:create"]);
    let (code, out, _) = finish(as_machine(&server, &["put", "apps/y"]), "mine");
    assert!(code == 0 && out.starts_with("created apps/y"), "{out}");
    let (code, _, err) = finish(as_machine(&server, &["put", "apps/x"]), "mine");
    assert!(code == 6 && err.contains("no right"), "{err}");
    assert_eq!(done(&server, &["get", "apps/x"]), "one");
}

#[test]
fn a_value_is_asked_for_twice_and_never_shown() {
    let server = server();
    let type_in = |first: &str, second: &str| {
        let mut terminal = Terminal::start(command(&server, &["put", "db/pw"]));
        terminal.wait_for("value: ");
        terminal.press(first);
        if !second.is_empty() {
            terminal.wait_for("once more: ");
            terminal.press(second);
        }
        terminal.end()
    };
    let (code, seen) = type_in("hunter2\r", "hunter2\r");
    assert!(code == 0 && seen.contains("created db/pw") && !seen.contains("hunter2"), "{seen}");
    assert_eq!(done(&server, &["get", "db/pw"]), "hunter2");
    let (code, seen) = type_in("hunter3\r", "hunter4\r");
    assert!(code == 2 && seen.contains("not the same") && !seen.contains("hunter"), "{seen}");
    let (code, seen) = type_in("hunter3\u{3}", "");
    assert!(code == 1 && seen.contains("nothing was done"), "{seen}");
    let (code, seen) = type_in("\r", "");
    assert!(code == 2 && seen.contains("no value"), "{seen}");
    assert_eq!(done(&server, &["get", "db/pw", "--all"]).lines().count(), 1);
}

/// Notes where it was started and leaves a backup beside the file, as editors do, then replaces the file by another.
const CAREFUL: &str = r#"
folder=$(dirname "$1")
echo "$1 $(stat -f -c %T "$folder") $(stat -c %a "$folder") $(stat -c %a "$1") $TMPDIR" > "$NOTES"
cp "$1" "$1~"
printf 'typed\n' > "$folder/new"
cat "$1" >> "$folder/new"
mv "$folder/new" "$1"
"#;

#[test]
fn an_editor_works_in_a_private_folder_in_memory_that_goes_with_it() {
    let server = server();
    let editor = script(&server, "editor", CAREFUL);
    let notes = server.dir().join("notes");
    let run = |arguments: &[&str]| {
        let mut command = with_editor(&server, shown(&editor), arguments);
        command.env("NOTES", &notes);
        let (code, out, err) = finish(command, "");
        let noted = std::fs::read_to_string(&notes).unwrap();
        let [file, system, folder_mode, file_mode, temporary] = noted.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{noted}") };
        let folder = Path::new(file).parent().unwrap();
        assert_eq!((system, folder_mode, file_mode, temporary), ("tmpfs", "700", "600", shown(folder)));
        assert!(file.ends_with("/pw") && !folder.exists(), "{file}");
        (code, out, err)
    };
    let (code, out, err) = run(&["put", "db/pw", "--editor"]);
    assert!(code == 0 && out.starts_with("created db/pw"), "{err}");
    assert_eq!(done(&server, &["get", "db/pw"]), "typed", "an editor's line break is no part of one line");
    let (code, out, err) = run(&["edit", "db/pw"]);
    assert!(code == 0 && out.contains("added version") && out.contains("primary"), "{err}");
    assert_eq!(done(&server, &["get", "db/pw"]), "typed\ntyped");
    let (code, _, err) = run(&["edit", "db/pw", "--no-promote"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(done(&server, &["get", "db/pw"]), "typed\ntyped");
    for shell in [r#"sed -i s/typed/written/ "#, "sh -c 'printf written >\"$1\"' x"] {
        let (code, _, err) = finish(with_editor(&server, shell, &["edit", "db/pw"]), "");
        assert_eq!(code, 0, "an editor may have arguments: {err}");
    }
    assert_eq!(done(&server, &["get", "db/pw"]), "written");
}

#[test]
fn an_edit_that_changes_nothing_or_fails_adds_nothing() {
    let server = server();
    with_input(&server, &["put", "db/pw"], "one");
    let etag = || json(&server, &["info", "db/pw"])["etag"].clone();
    let before = etag();
    for (editor, code, told) in [
        ("true", 0, "unchanged"),
        ("touch", 0, "unchanged"),
        ("false", 1, "the editor failed"),
        ("sh -c 'echo two > \"$1\"; exit 3' x", 1, "nothing was changed"),
        ("sh -c 'kill -9 $$' x", 1, "nothing was changed"),
        ("/nowhere/editor", 1, "nothing was changed"),
        ("sh -c ': > \"$1\"' x", 2, "empty"),
        ("rm", 1, "nothing was changed"),
        ("sh -c 'ln -sf /etc/hostname \"$1\"' x", 1, "nothing was changed"),
    ] {
        let (found, out, err) = finish(with_editor(&server, editor, &["edit", "db/pw"]), "");
        assert!(found == code && format!("{out}{err}").contains(told), "{editor}: {found} {out}{err}");
        assert_eq!(etag(), before, "{editor}");
    }
    let (_, out, _) = finish(with_editor(&server, "true", &["edit", "db/pw", "--json"]), "");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["done"], "unchanged");
}

#[test]
fn a_change_that_somebody_else_made_meanwhile_is_not_lost_and_neither_is_yours() {
    let server = server();
    with_input(&server, &["put", "db/pw"], "one");
    let editor =
        script(&server, "editor", &format!("printf theirs | {} put db/pw >/dev/null\nprintf mine > \"$1\"\n", crate::program().display()));
    let (code, out, err) = finish(with_editor(&server, shown(&editor), &["edit", "db/pw"]), "");
    assert!(code == 6 && out.is_empty(), "{code} {out} {err}");
    assert_eq!(done(&server, &["get", "db/pw"]), "theirs");
    let kept = err.split("--file ").nth(1).unwrap().split('`').next().unwrap();
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "mine");
    std::fs::remove_dir_all(Path::new(kept).parent().unwrap()).unwrap();
    assert!(!err.contains("mine") && !err.contains("theirs"));
}

#[test]
fn no_editor_is_started_for_who_may_not_write_and_none_on_bytes() {
    let server = server();
    with_input(&server, &["create", "db/pw", "--acl", "machine:dev-machine=list,read"], "one");
    let mut command = as_machine(&server, &["edit", "db/pw"]);
    command.env("EDITOR", "sh -c 'echo it runs >&2; echo two > \"$1\"' x");
    let (code, _, err) = finish(command, "");
    assert!(code == 4 && !err.contains("it runs") && err.contains("acl explain"), "{err}");
    let path = file(&server, "bytes", [0, 159, 146, 150]);
    with_input(&server, &["put", "db/bytes", "--file", shown(&path)], "");
    let (code, _, err) = finish(with_editor(&server, "true", &["edit", "db/bytes"]), "");
    assert!(code == 8 && err.contains("no text"), "{err}");
}

#[test]
fn a_signal_ends_the_editor_and_leaves_nothing_in_memory() {
    let server = server();
    with_input(&server, &["put", "db/pw"], "one");
    let notes = server.dir().join("notes");
    let editor =
        script(&server, "editor", "echo \"$1\" > \"$NOTES.new\"; mv \"$NOTES.new\" \"$NOTES\"; echo two > \"$1\"; exec sleep 60\n");
    let mut command = with_editor(&server, shown(&editor), &["edit", "db/pw"]);
    let mut child = command.env("NOTES", &notes).spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !notes.exists() {
        assert!(std::time::Instant::now() < deadline, "the editor did not start");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let noted = std::fs::read_to_string(&notes).unwrap();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(!Path::new(noted.trim()).parent().unwrap().exists());
    assert_eq!(done(&server, &["get", "db/pw"]), "one");
}
