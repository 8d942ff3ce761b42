//! Values and answers from the person or program in front.

use crate::failure::Failure;
use clap::Args;
use claviger_domain::SecretBytes;
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longer values are refused by every server.
const MAX_VALUE: u64 = 64 << 20;

/// Where a value comes from.
#[derive(Args)]
pub(crate) struct ValueSource {
    /// Read the value from FILE instead of standard input; `-` is standard input.
    #[arg(long, visible_alias = "file", value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Leave out one line break at the value's end.
    #[arg(long)]
    trim_newline: bool,
}

impl ValueSource {
    /// Whether it is standard input, by not having been told otherwise.
    pub(crate) fn is_default(&self) -> bool {
        self.from_file.is_none()
    }

    /// Reads the value. On a terminal it is asked for without showing it.
    pub(crate) fn read(&self) -> Result<SecretBytes, Failure> {
        let file = self.from_file.as_deref().filter(|p| *p != Path::new("-"));
        let mut value = match file {
            Some(path) => read_file(path)?,
            None if isatty(io::stdin()) => return Ok(SecretBytes::new(std::mem::take(&mut *ask_hidden("value: ")?))),
            None => read_all(io::stdin().lock(), "standard input")?,
        };
        if value.is_empty() {
            let name = file.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
            return Err(Failure::usage(format!("{name} has no value: it is empty"))
                .next("give it as in `printf hunter2 | claviger create KEY`, or with --from-file; nothing was changed"));
        }
        let ends_with_newline = value.ends_with(b"\n");
        if ends_with_newline && self.trim_newline {
            let end = value.strip_suffix(b"\r\n").or_else(|| value.strip_suffix(b"\n")).map_or(0, <[u8]>::len);
            value.truncate(end);
        } else if ends_with_newline && file.is_none() {
            eprintln!("note: the value ends with a line break, as `echo` adds one; --trim-newline leaves it out");
        }
        Ok(SecretBytes::new(std::mem::take(&mut *value)))
    }
}

/// Asks for a value twice on a terminal that shows neither.
pub(crate) fn ask_twice() -> Result<SecretBytes, Failure> {
    let mut value = ask_hidden("value: ")?;
    if value.is_empty() {
        return Err(Failure::usage("there is no value: nothing was typed").next("nothing was changed; try again"));
    }
    match *ask_hidden("once more: ")? == *value {
        true => Ok(SecretBytes::new(std::mem::take(&mut *value))),
        false => Err(Failure::usage("the two are not the same").next("nothing was changed; try again")),
    }
}

/// Whether somebody sits in front.
pub(crate) fn is_interactive() -> bool {
    isatty(io::stdin())
}

/// A whole file, or standard input for `-`.
pub(crate) fn read_input(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    match path == Path::new("-") {
        true => read_all(io::stdin().lock(), "standard input"),
        false => read_file(path),
    }
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let shown = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|e| Failure::usage(format!("cannot read {shown}: {e}")))?;
    read_all(file, &shown)
}

pub(crate) fn read_all(source: impl Read, name: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut value = Zeroizing::new(Vec::with_capacity(64 << 10));
    let read = source.take(MAX_VALUE + 1).read_to_end(&mut value);
    let n = read.map_err(|e| Failure::other(format!("reading {name}: {e}")))?;
    match n as u64 > MAX_VALUE {
        true => Err(Failure::usage(format!("{name} has more than 64 MiB"))),
        false => Ok(value),
    }
}

/// Asks for one line that the terminal does not show.
fn ask_hidden(prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    hidden_line(|| {
        eprint!("{prompt}");
        io::stderr().flush()
    })
}

/// Reads one line that the terminal does not show. `ask` says what is wanted; it is called when nothing is shown any more, so that who
/// answers at once is neither seen nor missed.
pub(crate) fn hidden_line(ask: impl FnOnce() -> io::Result<()>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |e: io::Error| Failure::other(format!("asking on the terminal: {e}"));
    let before = tcgetattr(io::stdin()).map_err(|e| failed(e.into()))?;
    let _hidden = Hidden::new(before).map_err(failed)?;
    ask().map_err(failed)?;
    let line = typed_line(io::stdin().lock()).map_err(failed)?;
    eprintln!();
    line.ok_or_else(|| Failure::other("nothing was done"))
}

/// One line, key by key; nothing if it was broken off with Ctrl-C. The terminal does not edit the line, since it would
/// also turn Ctrl-C into a signal, and then nobody would switch its echo on again.
fn typed_line(mut keys: impl Read) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    const CTRL_C: u8 = 0x03;
    const CTRL_D: u8 = 0x04;
    const BACKSPACE: [u8; 2] = [0x08, 0x7f];
    let mut line = Zeroizing::new(Vec::with_capacity(4096));
    let mut key = Zeroizing::new([0]);
    while keys.read(&mut *key)? == 1 {
        match key[0] {
            CTRL_C => return Ok(None),
            b'\n' | CTRL_D => break,
            byte if BACKSPACE.contains(&byte) => remove_last_character(&mut line),
            byte => line.push(byte),
        }
    }
    Ok(Some(line))
}

fn remove_last_character(line: &mut Vec<u8>) {
    let continues = |byte: u8| byte & 0xc0 == 0x80;
    while line.pop().is_some_and(continues) {}
}

/// Shows nothing of what is typed, as long as it lives.
struct Hidden(Termios);

impl Hidden {
    fn new(before: Termios) -> io::Result<Self> {
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // If this fails the terminal is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Lets a person confirm what cannot be taken back; a program must have said `--yes`.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !isatty(io::stdin()) || !isatty(io::stderr()) {
        return Err(Failure::usage(format!("{question} This cannot be taken back")).next("add --yes if you mean it"));
    }
    eprint!("{question} This cannot be taken back. Type yes: ");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|e| Failure::other(format!("asking on the terminal: {e}")))?;
    match line.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::other("nothing was done")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_typed_line_can_be_corrected_and_broken_off() {
        let typed = |keys: &str| typed_line(keys.as_bytes()).unwrap().map(|line| String::from_utf8(line.to_vec()).unwrap());
        assert_eq!(typed("hunter2\nrest").as_deref(), Some("hunter2"));
        assert_eq!(typed("hu\u{e9}\u{7f}\u{8}\u{7f}\u{7f}x\n").as_deref(), Some("x"));
        assert_eq!(typed("abc\u{4}").as_deref(), Some("abc"));
        assert_eq!(typed("abc\u{3}\n"), None);
    }
}
