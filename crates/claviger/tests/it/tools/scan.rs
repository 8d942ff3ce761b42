//! `claviger scan`.

use super::{script, shown};
use crate::command_line::{as_machine, command, done, finish, newest, with_input};
use crate::server;
use claviger_testkit::TestServer;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const TOKEN: &str = "acme_k3J9x0Qz-7LmP2";

/// A server with some secrets, and a folder to search.
fn stage() -> (TestServer, PathBuf) {
    let server = server();
    with_input(&server, &["put", "ci/token"], TOKEN);
    with_input(&server, &["put", "db/config"], r#"{"user": "app", "password": "S3cr3t/of\"db-1"}"#);
    with_input(&server, &["put", "db/weak"], "password");
    let folder = server.dir().join("work");
    std::fs::create_dir(&folder).unwrap();
    (server, folder)
}

fn scan(server: &TestServer, arguments: &[&str]) -> (i32, Value) {
    let (code, out, err) = finish(command(server, &[&["scan", "--json"], arguments].concat()), "");
    let found: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {out}{err}"));
    (code, found)
}

/// The findings, as `path:line key part form`.
fn told(found: &Value) -> Vec<String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let one = |f: &Value| {
        format!(
            "{}:{} {} {} {}",
            text(&f["path"]).rsplit("work/").next().unwrap(),
            f["line"],
            text(&f["key"]),
            text(&f["part"]),
            text(&f["form"])
        )
    };
    found["found"].as_array().unwrap().iter().map(one).collect()
}

/// Git with nothing of this machine's settings.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(["-c", "init.defaultBranch=main", "-c", "commit.gpgSign=false"]).args(arguments);
    for (name, value) in [("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_SYSTEM", "/dev/null"), ("GIT_TERMINAL_PROMPT", "0")] {
        command.env(name, value);
    }
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@example.org");
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn commit(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    git(folder, &["add", "-A"]);
    git(folder, &["commit", "-q", "-m", "a change"]);
    git(folder, &["rev-parse", "HEAD"])
}

#[test]
fn values_are_found_in_files_in_every_form_and_never_shown() {
    let (server, folder) = stage();
    let write = |name: &str, content: &[u8]| std::fs::write(folder.join(name), content).unwrap();
    write("clean.txt", b"acme_k3J9x0Qz-7LmP3 password app\n");
    assert_eq!(scan(&server, &[shown(&folder)]).0, 0);

    write("a.env", format!("x\ny\nTOKEN={TOKEN}\n").as_bytes());
    write("auth.txt", b"Authorization: Basic dTphY21lX2szSjl4MFF6LTdMbVAy\n");
    write("config.yaml", b"db: 'S3cr3t/of\"db-1'\n");
    write("url", b"?p=S3cr3t%2Fof%22db-1");
    let mut binary = vec![0_u8; 5 << 20];
    binary.extend_from_slice(TOKEN.as_bytes());
    write("image.bin", &binary);
    std::os::unix::fs::symlink(folder.join("a.env"), folder.join("link")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap().success());
    let (code, found) = scan(&server, &[shown(&folder)]);
    assert_eq!(code, 1);
    let expected = [
        "a.env:3 ci/token  raw",
        "auth.txt:1 ci/token  base64",
        "config.yaml:1 db/config /password raw",
        "image.bin:1 ci/token  raw",
        "url:1 db/config /password url",
    ];
    assert_eq!(told(&found), expected);
    assert_eq!(found["found"][0]["version"], newest(&server, "ci/token").as_str());
    let weak = found["left_out"].as_array().unwrap().iter().find(|l| l["key"] == "db/weak").unwrap();
    assert_eq!(weak["why"], "low_entropy");

    let (code, out, err) = finish(command(&server, &["scan", shown(&folder), "-v"]), "");
    assert!(code == 1 && out.lines().count() == 5 && out.contains("a.env:3: ci/token version "), "{out}");
    assert!(err.contains("not looked for: db/weak version ") && err.contains("5 found"), "{err}");
    let (_, sarif, _) = finish(command(&server, &["scan", shown(&folder), "--format", "sarif"]), "");
    let sarif: Value = serde_json::from_str(&sarif).unwrap();
    let first = &sarif["runs"][0]["results"][0];
    assert_eq!((&sarif["version"], &first["locations"][0]["physicalLocation"]["region"]["startLine"]), (&"2.1.0".into(), &3.into()));
    for text in [out, err, found.to_string(), sarif.to_string(), server.log()] {
        assert!(!text.contains(TOKEN) && !text.contains("S3cr3t"), "{text}");
    }
    let (_, found) = scan(&server, &[shown(&folder), "--prefix", "db/"]);
    assert_eq!(found["found"].as_array().unwrap().len(), 2);
    let records = done(&server, &["audit", "query", "--json", "--action", "fingerprint", "--key", "ci/token"]);
    assert!(records.lines().count() >= 3, "{records}");
}

#[test]
fn ignored_files_are_left_out_unless_they_are_wanted_and_old_versions_are_found() {
    let (server, folder) = stage();
    git(&folder, &["init", "-q"]);
    std::fs::write(folder.join(".gitignore"), "*.log\n").unwrap();
    std::fs::write(folder.join("x.log"), TOKEN).unwrap();
    assert_eq!(scan(&server, &[shown(&folder)]).0, 0);
    assert_eq!(scan(&server, &[shown(&folder), "--no-ignore"]).0, 1);
    let old = newest(&server, "ci/token");
    with_input(&server, &["put", "ci/token"], "acme_another-0ne-of-7");
    done(&server, &["deactivate", "ci/token", &old]);
    let (code, found) = scan(&server, &[shown(&folder.join("x.log"))]);
    assert_eq!((code, &found["found"][0]["version"]), (1, &old.as_str().into()));
    done(&server, &["destroy", "ci/token", &old, "--yes"]);
    assert_eq!(scan(&server, &[shown(&folder.join("x.log"))]).0, 0, "a destroyed version is unknown");
}

#[test]
fn a_file_that_is_named_by_a_link_is_searched_and_what_is_no_file_is_no_clean_one() {
    let (server, folder) = stage();
    std::fs::write(folder.join("real"), TOKEN).unwrap();
    std::os::unix::fs::symlink("real", folder.join("link")).unwrap();
    let (code, found) = scan(&server, &[shown(&folder.join("link"))]);
    assert_eq!((code, told(&found)), (1, vec!["link:1 ci/token  raw".to_owned()]));
    assert_eq!(finish(command(&server, &["scan", "/dev/null"]), "").0, 2);
}

#[test]
fn only_what_one_may_read_is_fingerprinted() {
    let (server, folder) = stage();
    std::fs::write(folder.join("a"), format!("{TOKEN} S3cr3t/of\"db-1")).unwrap();
    done(&server, &["acl", "grant", "ci/token", "machine:dev-machine", "list,read"]);
    done(&server, &["acl", "grant", "db/config", "machine:dev-machine", "only:list"]);
    let (code, out, _) = finish(as_machine(&server, &["scan", shown(&folder), "--json"]), "");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, told(&found)), (1, vec!["a:1 ci/token  raw".to_owned()]));
    let ask = r#"{"ids":["ci/token","db/config","db/weak"]}"#;
    let mut machine = server.machine().unwrap();
    let answer = machine.request("POST", "/api/v1/fingerprints", &[("Content-Type", "application/json")], ask.as_bytes()).unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let errors: Vec<_> = body["items"].as_array().unwrap().iter().map(|i| i["error"].as_str().unwrap_or("none")).collect();
    assert_eq!(errors, ["none", "denied", "not_found"]);
}

#[test]
fn history_is_searched_packed_or_not_with_the_commit_that_brought_it() {
    let (server, folder) = stage();
    git(&folder, &["init", "-q"]);
    commit(&folder, "README", "nothing\n");
    let brought = commit(&folder, "conf/my file.env", format!("a\nT={TOKEN}\n"));
    commit(&folder, "conf/my file.env", "a\n");
    let found_in_history = || {
        let (code, found) = scan(&server, &[shown(&folder), "--git"]);
        let f = &found["found"][0];
        assert_eq!(
            (code, &f["path"], &f["line"], &f["commit"]),
            (1, &"conf/my file.env".into(), &2.into(), &brought.as_str().into()),
            "{found}"
        );
        found["found"].as_array().unwrap().len()
    };
    assert_eq!(scan(&server, &[shown(&folder)]).0, 0, "it is not in the tree any more");
    assert_eq!(found_in_history(), 1);
    git(&folder, &["gc", "-q", "--prune=now"]);
    git(&folder, &["pack-refs", "--all"]);
    assert_eq!(found_in_history(), 1);

    // What only a merge has, on another branch; a message of a commit and of a tag.
    git(&folder, &["checkout", "-q", "-b", "side", "HEAD~1"]);
    commit(&folder, "side", "side\n");
    git(&folder, &["checkout", "-q", "main"]);
    git(&folder, &["merge", "-q", "--no-ff", "--no-commit", "side"]);
    let merged = commit(&folder, "evil", "p=S3cr3t%2Fof%22db-1\n");
    git(&folder, &["commit", "-q", "--allow-empty", "-m", &format!("uses {TOKEN}")]);
    git(&folder, &["tag", "-a", "v1", "-m", &format!("with {TOKEN}")]);
    // Settings of the repository that would leave out the merge, or what is beside the folder.
    git(&folder, &["config", "log.diffMerges", "combined"]);
    git(&folder, &["config", "diff.relative", "true"]);
    let (_, found) = scan(&server, &[shown(&folder.join("conf")), "--git"]);
    let mut all = told(&found);
    all.sort();
    let (message, tag) = (all[0].clone(), all.last().unwrap().clone());
    assert!(message.starts_with("(message):") && tag.starts_with("refs/tags/v1:"), "{all:?}");
    let evil = found["found"].as_array().unwrap().iter().find(|f| f["path"] == "evil").unwrap();
    assert_eq!((evil["commit"].as_str(), all.len()), (Some(merged.as_str()), 4), "{all:?}");
}

#[test]
fn a_hostile_repository_runs_nothing_and_a_broken_one_is_no_clean_one() {
    let (server, folder) = stage();
    git(&folder, &["init", "-q"]);
    let brought = commit(&folder, "a.txt", format!("{TOKEN}\n"));
    let trap = script(&server, "trap", &format!("touch {}\n", shown(&server.dir().join("sprung"))));
    for (name, value) in
        [("core.fsmonitor", shown(&trap)), ("diff.external", shown(&trap)), ("diff.x.textconv", shown(&trap)), ("core.pager", shown(&trap))]
    {
        git(&folder, &["config", name, value]);
    }
    std::fs::write(folder.join(".gitattributes"), "* diff=x\n").unwrap();
    std::fs::write(folder.join("--output=sprung"), TOKEN).unwrap();
    Command::new("git").arg("-C").arg(&folder).args(["-c", "core.fsmonitor=false", "add", "-A"]).status().unwrap();
    assert_eq!(scan(&server, &[shown(&folder), "--git"]).0, 1);
    let (code, found) = scan(&server, &[shown(&folder), "--staged"]);
    assert_eq!((code, told(&found)), (1, vec!["--output=sprung:1 ci/token  raw".to_owned()]));
    assert!(!server.dir().join("sprung").exists());

    let object = git(&folder, &["rev-parse", &format!("{brought}:a.txt")]);
    std::fs::remove_file(folder.join(".git/objects").join(&object[..2]).join(&object[2..])).unwrap();
    let (code, out, err) = finish(command(&server, &["scan", shown(&folder), "--git"]), "");
    assert!(code > 1 || code == 1 && out.contains("--output"), "{code} {out} {err}");
    assert!(err.contains("not searched: a.txt"), "{err}");
    let (code, _, err) = finish(command(&server, &["scan", "/proc/self", "--git"]), "");
    assert!(code == 2 && err.contains("git:"), "{code} {err}");
    assert_eq!(finish(command(&server, &["scan", "/nowhere"]), "").0, 2);
    assert_eq!(finish(command(&server, &["scan", shown(&folder), "--addr", "https://127.0.0.1:1"]), "").0, 7);
}

#[test]
fn a_commit_with_a_secret_is_refused_by_the_hook_which_overwrites_no_other() {
    let (server, folder) = stage();
    git(&folder, &["init", "-q"]);
    let said = done(&server, &["scan", shown(&folder), "--install-hook"]);
    assert!(said.contains("hooks/pre-commit: installed"), "{said}");
    assert!(done(&server, &["scan", shown(&folder), "--install-hook"]).contains("there already"));
    let commit = |content: &str| {
        std::fs::write(folder.join("a.txt"), content).unwrap();
        git(&folder, &["add", "-A"]);
        let mut git = command(&server, &[]);
        let path = format!("{}:{}", crate::program().parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("git");
        command.envs(git.env("PATH", path).get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.arg("-C").arg(&folder).args(["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x"]);
        command.output().unwrap()
    };
    let refused = commit(TOKEN);
    let said = String::from_utf8_lossy(&refused.stdout).into_owned() + &String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("a.txt:1: ci/token version ") && !said.contains(TOKEN), "{said}");
    assert!(commit("nothing").status.success());

    let hook = folder.join(".git/hooks/pre-commit");
    std::fs::OpenOptions::new().append(true).open(&hook).unwrap().write_all(b"# mine\n").unwrap();
    let before = std::fs::read(&hook).unwrap();
    let (code, _, err) = finish(command(&server, &["scan", shown(&folder), "--install-hook"]), "");
    assert!(code == 6 && err.contains("another hook"), "{err}");
    assert_eq!(std::fs::read(&hook).unwrap(), before);
}
