//! Flags as Go's `flag` package reads them: one dash or two, `-name=value` or `-name value`, switches alone or with `=true`, and an end at
//! the first argument that is no flag.

use std::collections::BTreeMap;

/// A flag that a command has.
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Switch,
    /// A text.
    Text,
}

/// Flags and arguments as given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    texts: BTreeMap<&'static str, String>,
    switches: BTreeMap<&'static str, bool>,
    /// What follows the flags.
    pub(super) arguments: Vec<String>,
}

/// Why flags are not understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misuse {
    /// `-h` or `-help`.
    HelpWanted,
    /// In Go's words.
    Wrong(String),
}

impl Given {
    /// The value of a flag; nothing when it is missing or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether a switch is on.
    pub(super) fn has(&self, name: &str) -> bool {
        self.switches.get(name).copied().unwrap_or(false)
    }
}

/// Reads a command's arguments.
pub(super) fn parse(known: &'static [Flag], arguments: &[String]) -> Result<Given, Misuse> {
    let mut given = Given::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.as_slice().first() {
        let Some(body) = argument.strip_prefix('-').filter(|body| !body.is_empty()) else { break };
        rest.next();
        if body == "-" {
            break;
        }
        let body = body.strip_prefix('-').unwrap_or(body);
        let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
        if name.is_empty() || name.starts_with('-') {
            return Err(Misuse::Wrong(format!("bad flag syntax: {argument}")));
        }
        let Some(flag) = known.iter().find(|flag| flag.name == name) else {
            let wants_help = matches!(name, "h" | "help");
            return Err(if wants_help { Misuse::HelpWanted } else { Misuse::Wrong(format!("flag provided but not defined: -{name}")) });
        };
        match flag.kind {
            Kind::Switch => {
                given.switches.insert(flag.name, switch(name, value)?);
            }
            Kind::Text => {
                let value = value.or_else(|| rest.next().map(String::as_str));
                let value = value.ok_or_else(|| Misuse::Wrong(format!("flag needs an argument: -{name}")))?;
                given.texts.insert(flag.name, value.to_owned());
            }
        }
    }
    given.arguments = rest.cloned().collect();
    Ok(given)
}

/// A switch's value, as Go's `strconv.ParseBool` reads it.
fn switch(name: &str, value: Option<&str>) -> Result<bool, Misuse> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(Misuse::Wrong(format!("invalid boolean value {other:?} for -{name}: parse error"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KNOWN: &[Flag] =
        &[Flag { name: "j", kind: Kind::Switch }, Flag { name: "v", kind: Kind::Text }, Flag { name: "key-template", kind: Kind::Text }];

    fn read(line: &str) -> Result<Given, Misuse> {
        parse(KNOWN, &line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        for line in ["-j -v 7 id", "--j --v=7 id", "-j=true -v=7 id", "-v 7 -j -- id", "-v 1 -v 7 -j=T id"] {
            let given = read(line).unwrap();
            assert!(given.has("j") && given.text("v") == Some("7") && given.arguments == ["id"], "{line}");
        }
        let given = read("id -j").unwrap();
        assert!(!given.has("j") && given.arguments == ["id", "-j"], "flags end at the first argument");
        assert_eq!(read("- -j").unwrap().arguments, ["-", "-j"]);
        assert_eq!(read("-v -j").unwrap().text("v"), Some("-j"), "a text flag takes what follows");
        assert_eq!(read("-v=").unwrap().text("v"), None);
        assert!(!read("-j=false").unwrap().has("j"));
        assert_eq!(read("--key-template T x").unwrap().text("key-template"), Some("T"));
    }

    #[test]
    fn what_is_not_understood_is_said_in_gos_words() {
        for (line, why) in [
            ("-x", "flag provided but not defined: -x"),
            ("--x=1", "flag provided but not defined: -x"),
            ("-v", "flag needs an argument: -v"),
            ("-j=perhaps", "invalid boolean value \"perhaps\" for -j: parse error"),
            ("---j", "bad flag syntax: ---j"),
            ("-=j", "bad flag syntax: -=j"),
        ] {
            assert_eq!(read(line), Err(Misuse::Wrong(why.to_owned())), "{line}");
        }
        assert_eq!(read("-h"), Err(Misuse::HelpWanted));
        assert_eq!(read("--help"), Err(Misuse::HelpWanted));
    }
}
