//! Dotenv files, as far as the many programs that read them agree. What they read differently is refused, with its line.
//!
//! ```text
//! # a comment
//! NAME=value to the end of the line   # a comment
//! export NAME='as it is, $ and \ too'
//! NAME="with \n \r \t \" \\ \$, also
//! on several lines"
//! ```

use super::Part;
use std::collections::HashSet;
use thiserror::Error;
use zeroize::Zeroizing;

/// Characters of a name at most.
const LONGEST_NAME: usize = 128;

/// Why a file is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {why}")]
pub struct DotenvError {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: Wrong,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Wrong {
    /// Neither blank nor a comment, and no name with `=` behind it.
    #[error("it is no NAME=VALUE")]
    NoAssignment,
    /// The name was given a value above.
    #[error("its name stands twice")]
    Twice,
    /// A quote without its end.
    #[error("the quote has no end")]
    Unterminated,
    /// Something follows a closing quote.
    #[error("something stands behind the closing quote")]
    AfterQuote,
    /// Some programs put another variable's value here.
    #[error("it has a `$` or a backtick that some programs expand and others do not; put the value into single quotes, or escape it")]
    Expansion,
    /// Some programs take quotes and backslashes in an unquoted value away, others keep them.
    #[error("it has a quote or backslash in a value without quotes, which programs read differently; put the value into single quotes")]
    Unquoted,
    /// A backslash before something that has no meaning there.
    #[error("it has an escape other than \\n \\r \\t \\\" \\\\ \\$ \\`")]
    Escape,
    /// A character that no text has.
    #[error("it has a control character")]
    Control,
}

/// Reads a file's assignments, in their order.
///
/// # Errors
/// [`DotenvError`], which names a line and repeats nothing of it.
pub fn parse(text: &str) -> Result<Vec<Part>, DotenvError> {
    let mut reader = Reader { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let mut parts = Vec::new();
    let mut seen = HashSet::new();
    while !reader.rest.is_empty() {
        let line = reader.line;
        let part = reader.line_or_more().map_err(|why| DotenvError { line, why })?;
        if let Some(part) = part {
            if !seen.insert(part.name.clone()) {
                return Err(DotenvError { line, why: Wrong::Twice });
            }
            parts.push(part);
        }
    }
    Ok(parts)
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    /// One assignment with all its lines, or a line without one.
    fn line_or_more(&mut self) -> Result<Option<Part>, Wrong> {
        let blank = self.rest.lines().next().unwrap_or_default().trim();
        if blank.is_empty() || blank.starts_with('#') {
            self.rest_of_line();
            return Ok(None);
        }
        self.skip_spaces();
        if let Some(after) = self.rest.strip_prefix("export").filter(|after| after.starts_with([' ', '\t'])) {
            self.rest = after;
            self.skip_spaces();
        }
        let name = self.name()?;
        self.skip_spaces();
        self.rest = self.rest.strip_prefix('=').ok_or(Wrong::NoAssignment)?;
        self.skip_spaces();
        let text = match self.rest.chars().next() {
            Some('\'') => self.single_quoted()?,
            Some('"') => self.double_quoted()?,
            _ => return self.unquoted().map(|text| Some(Part { name, text, is_string: true })),
        };
        self.nothing_more()?;
        Ok(Some(Part { name, text, is_string: true }))
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn name(&mut self) -> Result<String, Wrong> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts_well || name.len() > LONGEST_NAME {
            return Err(Wrong::NoAssignment);
        }
        self.rest = rest;
        Ok(name.to_owned())
    }

    fn rest_of_line(&mut self) -> &'a str {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.strip_prefix('\n').unwrap_or(rest);
        self.line += 1;
        line.strip_suffix('\r').unwrap_or(line)
    }

    fn unquoted(&mut self) -> Result<Zeroizing<String>, Wrong> {
        let line = self.rest_of_line();
        let is_comment = |(at, _): &(usize, &str)| *at == 0 || line[..*at].ends_with([' ', '\t']);
        let end = line.match_indices('#').find(is_comment).map_or(line.len(), |(at, _)| at);
        let text = line[..end].trim();
        let wrong = |c: char| match c {
            '\'' | '"' | '\\' => Some(Wrong::Unquoted),
            '$' | '`' => Some(Wrong::Expansion),
            c if c.is_control() && c != '\t' => Some(Wrong::Control),
            _ => None,
        };
        text.chars().find_map(wrong).map_or_else(|| Ok(Zeroizing::new(text.to_owned())), Err)
    }

    fn single_quoted(&mut self) -> Result<Zeroizing<String>, Wrong> {
        let inner = &self.rest[1..];
        let (text, rest) = inner.split_once('\'').ok_or(Wrong::Unterminated)?;
        self.take(text, rest)?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    fn double_quoted(&mut self) -> Result<Zeroizing<String>, Wrong> {
        let inner = &self.rest[1..];
        let mut text = Zeroizing::new(String::with_capacity(inner.len().min(1 << 16)));
        let mut chars = inner.char_indices();
        loop {
            let (at, c) = chars.next().ok_or(Wrong::Unterminated)?;
            match c {
                '"' => {
                    self.take(&inner[..at], &inner[at + 1..])?;
                    return Ok(text);
                }
                '\\' => text.push(match chars.next().map(|(_, c)| c) {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some(c @ ('"' | '\\' | '$' | '`')) => c,
                    _ => return Err(Wrong::Escape),
                }),
                '$' | '`' => return Err(Wrong::Expansion),
                c => text.push(c),
            }
        }
    }

    /// Goes on behind a quoted text.
    fn take(&mut self, text: &str, rest: &'a str) -> Result<(), Wrong> {
        if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            return Err(Wrong::Control);
        }
        self.line += text.matches('\n').count();
        self.rest = rest;
        Ok(())
    }

    fn nothing_more(&mut self) -> Result<(), Wrong> {
        let line = self.rest_of_line();
        let after = line.trim_start();
        let is_comment = after.starts_with('#') && after.len() < line.len();
        if after.is_empty() || is_comment { Ok(()) } else { Err(Wrong::AfterQuote) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().map(|p| (p.name, p.text.to_string())).collect()
    }

    #[test]
    fn files_are_read_as_programs_agree() {
        let text = "\u{feff}# a comment\r\n\nA=1\r\n export B = two words # comment\nC='as $it \\ is'\nD=\"a\\n\\\"b\\\"\\\\\\$\" # x\nE=\nF=a#b\nG='1\n2'\nH=x=y==\n_i.j-k=1";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "as $it \\ is"),
            ("D", "a\n\"b\"\\$"),
            ("E", ""),
            ("F", "a#b"),
            ("G", "1\n2"),
            ("H", "x=y=="),
            ("_i.j-k", "1"),
        ];
        assert_eq!(read(text), expected.map(|(n, t)| (n.to_owned(), t.to_owned())));
    }

    #[test]
    fn what_programs_read_differently_is_refused_with_its_line_and_not_its_text() {
        for (text, line, why) in [
            ("A=1\nhunter2", 2, Wrong::NoAssignment),
            ("=hunter2", 1, Wrong::NoAssignment),
            ("1A=hunter2", 1, Wrong::NoAssignment),
            ("A B=hunter2", 1, Wrong::NoAssignment),
            ("A='1\n2'\nB=2\nA=hunter2", 4, Wrong::Twice),
            ("A='hunter2", 1, Wrong::Unterminated),
            ("A=\"hunter2\n", 1, Wrong::Unterminated),
            ("A='x'hunter2", 1, Wrong::AfterQuote),
            ("A='x'#hunter2", 1, Wrong::AfterQuote),
            ("A=$hunter2", 1, Wrong::Expansion),
            ("A=\"${hunter2}\"", 1, Wrong::Expansion),
            ("A=`hunter2`", 1, Wrong::Expansion),
            ("A=hun\"ter2\"", 1, Wrong::Unquoted),
            ("A=\"hunter\\2\"", 1, Wrong::Escape),
            ("A=hunter\u{1}2", 1, Wrong::Control),
            ("A='hunter\u{0}2'", 1, Wrong::Control),
        ] {
            let error = parse(text).map(drop).unwrap_err();
            assert_eq!(error, DotenvError { line, why }, "{text}");
            assert!(!error.to_string().contains("hunter"), "{error}");
        }
    }
}
