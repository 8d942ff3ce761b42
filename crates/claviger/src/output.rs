//! Printing: tables for people, JSON for programs. What others chose the text of cannot steer the terminal.

use crate::failure::Failure;
use serde::Serialize;
use std::io::{self, Write};

/// Rows under headings, each column as wide as its widest cell.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|h| (*h).to_owned()).collect()] }
    }

    /// Names and values, without headings.
    pub(crate) fn plain() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.rows.push(cells.iter().map(|c| clean(c)).collect());
    }

    /// Prints the table; one that has only headings says nothing but them.
    pub(crate) fn print(&self) -> Result<(), Failure> {
        text(&self.render())
    }

    fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
        }
        out
    }
}

/// Prints one line.
pub(crate) fn line(line: &str) -> Result<(), Failure> {
    text(&format!("{}\n", clean(line)))
}

/// Prints a value as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let shown = serde_json::to_string_pretty(value).map_err(|e| Failure::other(format!("as JSON: {e}")))?;
    text(&format!("{shown}\n"))
}

/// Prints a value as JSON on one line.
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    let shown = serde_json::to_string(value).map_err(|e| Failure::other(format!("as JSON: {e}")))?;
    text(&format!("{shown}\n"))
}

/// Writes bytes as they are.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Failure::output(&e))
}

fn text(text: &str) -> Result<(), Failure> {
    raw(text.as_bytes())
}

/// Text without control characters, which could move the cursor or hide what stands before.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The same with line breaks kept.
pub(crate) fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let mut table = Table::new(&["ID", "STATE"]);
        table.row(["db/password", "primary"]);
        table.row(["é", ""]);
        assert_eq!(table.render(), "ID           STATE\ndb/password  primary\né\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(clean_lines("a\nb\u{7}"), "a\nb\u{fffd}");
    }
}
