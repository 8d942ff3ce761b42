//! `tests/data/knox-cli.transcript`: commands, and what they print where. `CLAVIGER_UPDATE=1` writes it anew.
//!
//! A line `$ WHO knox ARGUMENTS <<< INPUT` is a command; standard output follows, then lines of standard error behind `! `, then the
//! exit code in brackets. A `\` at the end of standard output stands for a last line without a line break. What differs from run to run
//! has a name: long numbers `{V1}`, `{V2}`…, hashes `{HASH}`, folders. Commands may use the names.

use super::{Stage, text, with_input};
use std::path::Path;
use std::process::{Command, Output};

/// What the names of numbers stand for in this run.
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    /// `text` with what differs from run to run replaced by names.
    fn hide(&mut self, text: &str) -> String {
        let mut shown = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
            let length = rest[start..].find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len() - start);
            let word = &rest[start..start + length];
            shown.push_str(&rest[..start]);
            shown.push_str(&self.name_of(word));
            rest = &rest[start + length..];
        }
        shown + rest
    }

    fn name_of(&mut self, word: &str) -> String {
        let is_number = word.len() >= 15 && word.bytes().all(|byte| byte.is_ascii_digit());
        if word.len() == 64 {
            return "{HASH}".to_owned();
        }
        if !is_number {
            return word.to_owned();
        }
        let known = self.0.iter().position(|number| number == word);
        let nth = known.unwrap_or_else(|| {
            self.0.push(word.to_owned());
            self.0.len() - 1
        });
        format!("{{V{}}}", nth + 1)
    }

    /// The same backwards.
    fn reveal(&self, text: &str) -> String {
        self.0.iter().enumerate().fold(text.to_owned(), |text, (nth, number)| text.replace(&format!("{{V{}}}", nth + 1), number))
    }
}

/// Words separated by blanks; single quotes keep blanks.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate().flat_map(|(nth, part)| match nth % 2 {
        1 => vec![part.to_owned()],
        _ => part.split_whitespace().map(str::to_owned).collect(),
    });
    parts.collect()
}

fn run(stage: &Stage, names: &Names, line: &str) -> Output {
    let (line, input) = line.split_once(" <<< ").unwrap_or((line, ""));
    let words = words(&names.reveal(&line.replace("{FOLDER}", &stage.folder().display().to_string())));
    let [who, knox, arguments @ ..] = words.as_slice() else { panic!("no command: {line}") };
    assert_eq!(knox, "knox", "{line}");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command: Command = match who.as_str() {
        "alice" | "bob" => stage.as_user(&format!("{who}-token"), &arguments),
        "stranger" => stage.as_user("wrong-token", &arguments),
        "machine" => stage.as_machine(&arguments),
        "nobody" => stage.knox(&arguments),
        _ => panic!("who is {who}?"),
    };
    command.current_dir(stage.home.path());
    with_input(command, input.replace("\\n", "\n").as_bytes())
}

/// The whole file, played again.
fn play(stage: &Stage, file: &str) -> String {
    let mut names = Names::default();
    let mut played = String::new();
    for line in file.lines() {
        if line.starts_with('#') {
            played.push_str(&format!("{}{line}\n", if played.is_empty() || played.ends_with("\n\n") { "" } else { "\n" }));
            continue;
        }
        let Some(command) = line.strip_prefix("$ ") else { continue };
        let output = run(stage, &names, command);
        let mut show = |bytes: &[u8]| {
            let shown = text(bytes).replace(&stage.folder().display().to_string(), "{FOLDER}");
            let shown = shown.replace(&stage.server.address().to_string(), "{HOST}");
            names.hide(&shown)
        };
        let (stdout, stderr) = (show(&output.stdout), show(&output.stderr));
        played.push_str(&format!("{line}\n{stdout}"));
        if !stdout.is_empty() && !stdout.ends_with('\n') {
            played.push_str("\\\n");
        }
        stderr.lines().for_each(|line| played.push_str(&format!("! {line}\n")));
        played.push_str(&format!("[{}]\n\n", output.status.code().unwrap()));
    }
    played
}

#[test]
fn every_command_prints_what_knoxs_prints_where_it_prints_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/knox-cli.transcript");
    let file = std::fs::read_to_string(&path).unwrap();
    let stage = Stage::new();
    std::fs::write(stage.home.path().join("acl.json"), r#"[{"type":"Machine","id":"m1","access":"Read"}]"#).unwrap();
    std::fs::write(stage.home.path().join("bad.json"), r#"[{"type":"Machine","id":"m1","access":"read"}]"#).unwrap();
    std::fs::write(stage.home.path().join("ids"), "cli:a\n\tcli:b\n").unwrap();
    let played = play(&stage, &file);
    if std::env::var_os("CLAVIGER_UPDATE").is_some() {
        std::fs::write(&path, played).unwrap();
        return;
    }
    assert_eq!(played, file, "CLAVIGER_UPDATE=1 writes it anew");
}
