//! Commands that use a key without seeing it: what they read, how they ask, and what they print.

pub(crate) mod data_key;
pub(crate) mod decrypt;
pub(crate) mod encrypt;
pub(crate) mod export_key;
pub(crate) mod hmac;
pub(crate) mod import_key;
pub(crate) mod public_key;
pub(crate) mod rewrap;
pub(crate) mod sign;
pub(crate) mod verify;

use crate::ask::read_all;
use crate::cli::Session;
use crate::failure::{Code, Failure};
use crate::new_file::{self, Halt};
use crate::output;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use claviger_client::Using;
use claviger_crypto::sealed_file::{FileError, MAGIC};
use claviger_domain::{KeyId, VersionId};
use claviger_wire::native::{DecryptItem, ItemError, ResultItem, UseAnswer};
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Items of one request; more lines take several.
const TOGETHER: usize = 500;
/// Bytes of the items of one request, so that it stays below what any server takes.
const TOGETHER_BYTES: usize = 512 << 10;

/// What is to be worked on.
#[derive(Args)]
pub(crate) struct Input {
    /// Read FILE instead of standard input; `-` is standard input.
    #[arg(long = "in", value_name = "FILE")]
    from: Option<PathBuf>,
    /// Each line is an item of its own, and gives a line; many go into one request.
    #[arg(long)]
    lines: bool,
}

impl Input {
    /// Where to read from, and its name in messages.
    fn open(&self) -> Result<(Box<dyn Read>, String), Failure> {
        match self.from.as_deref().filter(|path| *path != Path::new("-")) {
            Some(path) => {
                let file = File::open(path).map_err(|e| Failure::usage(format!("cannot read {}: {e}", path.display())))?;
                Ok((Box::new(BufReader::new(file)), path.display().to_string()))
            }
            None => Ok((Box::new(io::stdin().lock()), "standard input".to_owned())),
        }
    }

    /// Everything, or each line without its end.
    fn items(&self) -> Result<Vec<Zeroizing<Vec<u8>>>, Failure> {
        let (from, name) = self.open()?;
        let all = read_all(from, &name)?;
        if !self.lines {
            return Ok(vec![all]);
        }
        let lines = all.strip_suffix(b"\n").unwrap_or(&all).split(|byte| *byte == b'\n');
        let items: Vec<_> = lines.map(|line| Zeroizing::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec())).collect();
        if all.is_empty() { Err(Failure::usage(format!("{name} has no line"))) } else { Ok(items) }
    }
}

/// What `claviger encrypt` made, in either form.
enum Sealed {
    /// A file of `encrypt --out`; its magic is read.
    File(Box<dyn Read>),
    /// Ciphertexts.
    Texts(Vec<DecryptItem>),
}

impl Input {
    /// Reads what is to be decrypted or rewrapped, with what it was bound to and the version to name.
    fn sealed(&self, context: &str, version: Option<VersionId>) -> Result<Sealed, Failure> {
        let (mut from, name) = self.open()?;
        let mut start = Vec::with_capacity(MAGIC.len());
        let read = from.by_ref().take(MAGIC.len() as u64).read_to_end(&mut start);
        read.map_err(|e| Failure::other(format!("reading {name}: {e}")))?;
        if start == MAGIC {
            return Ok(Sealed::File(from));
        }
        let all = read_all(Cursor::new(start).chain(from), &name)?;
        let lines = all.strip_suffix(b"\n").unwrap_or(&all).split(|byte| *byte == b'\n');
        let given: Vec<&[u8]> = if self.lines { lines.collect() } else { vec![&all] };
        let item = |(i, line): (usize, &&[u8])| {
            let ciphertext = STANDARD.encode(&*base64_of(line, &format!("item {}", i + 1))?);
            Ok(DecryptItem { ciphertext, aad: aad(context.as_bytes()), version: version.map(|v| v.to_string()) })
        };
        given.iter().enumerate().map(item).collect::<Result<_, _>>().map(Sealed::Texts)
    }
}

/// Base64 of what items are bound to.
fn aad(context: &[u8]) -> Option<String> {
    (!context.is_empty()).then(|| STANDARD.encode(context))
}

/// Has the server do one thing, which must succeed.
async fn one<B: Serialize>(session: &Session, id: &KeyId, using: Using, body: &B) -> Result<ResultItem, Failure> {
    let answer = session.client.use_key(id, using, body).await;
    Ok(answer.map_err(|e| Failure::client(e, Some(id.as_str())))?.items.into_iter().next().unwrap_or_default())
}

/// Bytes out of base64, around which there may be white space.
fn base64_of(text: &[u8], what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let bad = || Failure::usage(format!("{what} is not base64, as `claviger` prints it"));
    STANDARD.decode(text.trim_ascii()).map(Zeroizing::new).map_err(|_| bad())
}

/// How items make requests.
struct Batch<'a> {
    session: &'a Session,
    id: &'a KeyId,
    using: Using,
}

impl Batch<'_> {
    /// Asks for all items, in as many requests as it takes. `body` makes a request of some of them.
    async fn ask<I, B: Serialize>(
        &self,
        mut items: Vec<I>,
        size: impl Fn(&I) -> usize,
        body: impl Fn(Vec<I>) -> B,
    ) -> Result<UseAnswer, Failure> {
        let mut answer = UseAnswer { items: Vec::with_capacity(items.len()) };
        let is_one = items.len() == 1;
        while !items.is_empty() {
            let count = together(items.iter().map(&size));
            let rest = items.split_off(count);
            let some = std::mem::replace(&mut items, rest);
            let asked = self.session.client.use_key(self.id, self.using, &body(some)).await;
            match asked {
                Ok(some) => answer.items.extend(some.items),
                // One line of several, alone in its request.
                Err(claviger_client::Error::Refused { problem, .. }) if !is_one && count == 1 && is_about_an_item(&problem.code) => {
                    let error = ItemError { code: problem.code, detail: problem.detail, field: problem.field };
                    answer.items.push(ResultItem { error: Some(error), ..ResultItem::default() });
                }
                Err(error) => return Err(Failure::client(error, Some(self.id.as_str()))),
            }
        }
        Ok(answer)
    }
}

/// How many of the next items go into one request.
fn together(sizes: impl Iterator<Item = usize>) -> usize {
    let sums = sizes.scan(0, |sum, size| {
        *sum += size;
        Some(*sum)
    });
    sums.take(TOGETHER).take_while(|sum| *sum <= TOGETHER_BYTES).count().max(1)
}

fn is_about_an_item(code: &str) -> bool {
    matches!(code, "invalid" | "version_unusable")
}

/// Prints what came of each item: as JSON, or `shown` of it on a line. The exit code says whether all was done.
fn print(session: &Session, answer: &UseAnswer, shown: impl Fn(&ResultItem) -> Result<(), Failure>) -> Result<u8, Failure> {
    if session.json {
        output::json(answer)?;
    }
    let mut refused = 0;
    for (i, item) in answer.items.iter().enumerate() {
        match &item.error {
            Some(error) if !session.json => {
                refused += 1;
                eprintln!("claviger: item {}: {}", i + 1, output::clean(&error.detail));
            }
            Some(_) => refused += 1,
            None if session.json => {}
            None => shown(item)?,
        }
    }
    Ok(if refused == 0 { 0 } else { Code::Invalid as u8 })
}

fn text(member: Option<&String>) -> Result<&str, Failure> {
    member.map(String::as_str).ok_or_else(|| Failure::other("the server's answer has not what was asked for"))
}

/// The result of the only item; one that was refused is the whole answer's failure.
fn only(answer: &UseAnswer) -> Result<&ResultItem, Failure> {
    answer.items.first().ok_or_else(|| Failure::other("the server's answer has not what was asked for"))
}

/// Writes what came of the one item into a file. What JSON tells is told on standard error: standard output may be the file.
fn put(session: &Session, answer: &UseAnswer, out: &Path, bytes: &[u8]) -> Result<u8, Failure> {
    written(out, |to| to.write_all(bytes).map_err(Halt::Writing))?;
    if session.json {
        let version = answer.items.first().and_then(|item| item.version.as_ref());
        eprintln!("{}", serde_json::json!({ "bytes": bytes.len(), "version": version }));
    }
    Ok(0)
}

/// Runs `write` on standard output for `-`, or on a file that takes the named one's place when all is written.
fn written<T>(to: &Path, write: impl FnOnce(&mut dyn Write) -> Result<T, Halt>) -> Result<T, Failure> {
    if to != Path::new("-") {
        return new_file::replace_with(to, write);
    }
    let mut out = io::stdout().lock();
    let done = write(&mut out).and_then(|done| out.flush().map(|()| done).map_err(Halt::Writing));
    done.map_err(|halt| match halt {
        Halt::Writing(error) => Failure::output(&error),
        Halt::Failed(failure) => failure,
    })
}

fn of_file(error: FileError) -> Failure {
    Failure::other(error.to_string())
}

/// Why a file was not encrypted or decrypted to its end.
fn halt(error: FileError) -> Halt {
    match error {
        FileError::Write(why) => Halt::Writing(why),
        other => Halt::Failed(of_file(other)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_are_items_and_without_that_everything_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in");
        std::fs::write(&path, "a\r\n\nb\n").unwrap();
        let items = |lines| {
            let input = Input { from: Some(path.clone()), lines };
            input.items().unwrap().iter().map(|i| String::from_utf8(i.to_vec()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(items(true), ["a", "", "b"]);
        assert_eq!(items(false), ["a\r\n\nb\n"]);
    }
}
