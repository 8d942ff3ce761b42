//! Reads something from its beginning to its end, in pieces that overlap, and tells what was found on which line.

use claviger_wire::fingerprint::Index;
use std::io::{self, Read};
use zeroize::Zeroizing;

/// Bytes that are searched at once.
const PIECE: usize = 4 << 20;
/// Findings in one file; a file of nothing else does not fill the memory.
const MOST_HITS: usize = 10_000;

/// Where something is read from.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// The path, from where the search began or the repository's root.
    pub(super) path: String,
    /// The commit that brought it.
    pub(super) commit: Option<String>,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    /// Which print.
    pub(super) print: usize,
    /// The first byte.
    pub(super) at: u64,
    /// Bytes.
    pub(super) length: u64,
    /// From 1.
    pub(super) line: u64,
}

/// Searches one thing after the other.
pub(super) struct Searcher<'i> {
    index: &'i Index,
    buffer: Zeroizing<Vec<u8>>,
    /// Bytes searched.
    pub(super) bytes: u64,
    /// What could not be read, and why.
    pub(super) unread: Vec<(String, String)>,
}

impl<'i> Searcher<'i> {
    pub(super) fn new(index: &'i Index) -> Self {
        Self { index, buffer: Zeroizing::new(vec![0; PIECE + index.longest()]), bytes: 0, unread: Vec::new() }
    }

    /// Searches all that `source` has.
    ///
    /// # Errors
    /// The source's.
    pub(super) fn search(&mut self, mut source: impl Read) -> io::Result<Vec<Hit>> {
        let overlap = self.index.longest() - 1;
        let (mut hits, mut filled, mut begins, mut line) = (Vec::new(), 0, 0_u64, 1_u64);
        loop {
            let read = fill(&mut source, &mut self.buffer[filled..])?;
            self.bytes += read as u64;
            filled += read;
            let is_last = filled < self.buffer.len();
            // What begins later is searched with the next piece, where it is whole.
            let until = if is_last { filled } else { filled - overlap };
            let piece = &self.buffer[..filled];
            let mut found = Vec::new();
            self.index.find(piece, until, |m| found.push((m.at, m.print)));
            let (mut counted, prints) = (0, self.index);
            for (at, print) in found.into_iter().take(MOST_HITS.saturating_sub(hits.len())) {
                line += newlines(&piece[counted..at]);
                counted = at;
                hits.push(Hit { print, at: begins + at as u64, length: prints.length(print), line });
            }
            line += newlines(&piece[counted..until]);
            if is_last {
                return Ok(hits);
            }
            self.buffer.copy_within(until..filled, 0);
            begins += until as u64;
            filled -= until;
        }
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').count() as u64
}

/// Reads until the buffer is full or nothing more comes.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use claviger_wire::fingerprint::FingerprintKey;

    #[test]
    fn what_lies_across_pieces_is_found_once_with_its_line() {
        let key = || FingerprintKey::new([3; 32]);
        let value = "k3J9x0Qz-and-more-of-it";
        let prints: Vec<_> = key().prints(value.as_bytes()).made.into_iter().filter(|n| n.form == "raw").map(|n| n.print).collect();
        let index = Index::new(key(), prints);
        let mut searcher = Searcher::new(&index);
        for at in [0, 5, PIECE - 5, PIECE, PIECE + index.longest() - 1, 2 * PIECE - 1] {
            let mut text = vec![b'x'; at];
            text.iter_mut().step_by(1000).for_each(|b| *b = b'\n');
            let line = 1 + newlines(&text);
            text.extend_from_slice(value.as_bytes());
            let hits = searcher.search(&*text).unwrap();
            assert_eq!(hits, [Hit { print: 0, at: at as u64, length: value.len() as u64, line }], "{at}");
        }
        assert!(searcher.search(&b"k3J9x0Qz-and-more-of-i"[..]).unwrap().is_empty());
        assert!(searcher.search(&b""[..]).unwrap().is_empty());
    }
}
