//! A guide's blocks of commands, and whether what was said is what the guide says.

/// How a block is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// To be typed as it stands.
    Sh,
    /// Commands after `$ `, each followed by what it says.
    Console,
}

/// A block of commands, or one command of a console with what it says.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) kind: Kind,
    /// Where its first line stands, from 1.
    pub(super) line: usize,
    lines: Vec<String>,
}

/// The blocks of a guide that are for typing.
pub(super) fn blocks(guide: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Option<Block>> = None;
    for (number, line) in guide.lines().enumerate() {
        let fence = line.strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(language)) => {
                let kind = match language {
                    "sh" => Some(Kind::Sh),
                    "console" => Some(Kind::Console),
                    _ => None,
                };
                open = Some(kind.map(|kind| Block { kind, line: number + 2, lines: Vec::new() }));
            }
            (Some(_), Some(_)) => found.extend(open.take().flatten()),
            (Some(Some(block)), None) => block.lines.push(line.to_owned()),
            _ => {}
        }
    }
    found
}

impl Block {
    /// What is typed, line by line.
    pub(super) fn commands(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| match self.kind {
            Kind::Sh => Some(line.as_str()),
            Kind::Console => line.strip_prefix("$ "),
        })
    }

    /// A console's commands, each with what it says; any other block as a whole.
    pub(super) fn steps(self) -> Vec<Self> {
        if self.kind == Kind::Sh {
            return vec![self];
        }
        let mut steps: Vec<Self> = Vec::new();
        for (number, line) in self.lines.into_iter().enumerate() {
            match steps.last_mut() {
                Some(step) if !line.starts_with("$ ") => step.lines.push(line),
                _ => steps.push(Self { kind: self.kind, line: self.line + number, lines: vec![line] }),
            }
        }
        steps
    }

    /// The first line of the guide that was not said; if there is none, the numbers of the guide beside those that were
    /// said in their place.
    pub(super) fn compare(&self, said: &str) -> Result<Vec<(String, String)>, &str> {
        let mut numbers = Vec::new();
        if self.kind == Kind::Sh {
            return Ok(numbers);
        }
        let is_said = |line: &&String| !line.starts_with("$ ") && line.trim() != "…" && !line.trim().is_empty();
        for wanted in self.lines.iter().filter(is_said) {
            let shape_of_wanted = shape(wanted);
            let found = said.lines().find(|said| fits(&shape(said), &shape_of_wanted)).ok_or(wanted.as_str())?;
            numbers.extend(long_numbers(wanted).zip(long_numbers(found)).map(|(a, b)| (a.to_owned(), b.to_owned())));
        }
        Ok(numbers)
    }
}

/// Numbers of so many digits that they name a version.
fn long_numbers(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_digit()).filter(|digits| digits.len() >= 16)
}

/// Whether a line that was said is the guide's; `…` at the end of the guide's stands for the rest of the line.
fn fits(said: &str, wanted: &str) -> bool {
    match wanted.strip_suffix('…') {
        Some(start) => said.starts_with(start.trim_end()),
        None => said == wanted,
    }
}

/// A line without what differs from run to run: numbers, times, hexadecimal ids, widths of columns.
fn shape(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let is_id = word.len() >= 16 && word.bytes().all(|b| b.is_ascii_hexdigit());
        match is_id {
            true => "#".to_owned(),
            false => squeeze(word),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Runs of digits as one `#`.
fn squeeze(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    for character in word.chars() {
        match character.is_ascii_digit() {
            true if out.ends_with('#') => {}
            true => out.push('#'),
            false => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GUIDE: &str =
        "# T\n\n```sh\nset -x\n```\nWords.\n```console\n$ claviger ls\nKEY  VERSION\na/b  4711\n$ true\n```\n```toml\nx = 1\n```\n";

    #[test]
    fn blocks_to_type_are_found_with_their_lines() {
        let found = blocks(GUIDE);
        assert_eq!(found.iter().map(|b| (b.kind, b.line)).collect::<Vec<_>>(), [(Kind::Sh, 4), (Kind::Console, 8)]);
        assert_eq!(found[1].commands().collect::<Vec<_>>(), ["claviger ls", "true"]);
    }

    #[test]
    fn each_command_of_a_console_is_a_step_and_its_numbers_are_learned() {
        let guide = "```console\n$ add x\nversion 9134586399913752020 (revision 1.3)\n$ promote x 9134586399913752020\n```\n";
        let steps = blocks(guide).remove(0).steps();
        assert_eq!(steps.iter().map(|step| step.line).collect::<Vec<_>>(), [2, 4]);
        let learned = steps[0].compare("version 1234567890123456789 (revision 2.10)\n").unwrap();
        assert_eq!(learned, [("9134586399913752020".to_owned(), "1234567890123456789".to_owned())]);
    }

    #[test]
    fn what_differs_from_run_to_run_is_put_aside_and_nothing_else() {
        let block = &blocks(GUIDE)[1];
        assert_eq!(block.compare("KEY      VERSION\na/b      1\n"), Ok(vec![]));
        assert_eq!(block.compare("KEY VERSION\na/c 1\n"), Err("a/b  4711"));
        assert!(fits(&shape("request: 3aba9b849963f6c60000000000000020"), &shape("request: 00000000000000000000000000000001")));
        assert!(!fits(&shape("denied"), &shape("allowed")));
    }
}
