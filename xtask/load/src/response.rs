//! HTTP/1.1 answers as far as the bench needs them: a head, then a body by Content-Length or chunks.
//!
//! It is lenient where leniency costs nothing and refuses what it does not know: an answer without
//! a length that is not chunked is an error, since it would end only with the connection.

use anyhow::{Context as _, bail};

/// How the body of an answer is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
}

/// The parts of an answer's head that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Bytes of the head, blank line included.
    pub(crate) length: usize,
    pub(crate) framing: Framing,
}

/// Parses a head at the start of `bytes`; `None` when it is not all there yet.
pub(crate) fn parse_head(bytes: &[u8]) -> anyhow::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes).context("the server's answer is not HTTP")? else {
        return Ok(None);
    };
    let status = response.code.context("an answer without a status")?;
    let mut framing = None;
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value)?;
            framing = Some(Framing::Length(text.trim().parse()?));
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Some(Framing::Chunked);
        }
    }
    let has_no_body = status == 204 || status == 304;
    let framing = match framing {
        _ if has_no_body => Framing::Length(0),
        Some(framing) => framing,
        None => bail!("an answer with status {status} has neither a length nor chunks"),
    };
    Ok(Some(Head { status, length, framing }))
}

/// A chunked body as it arrives.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    expect: Expect,
}

#[derive(Debug, Default)]
enum Expect {
    /// A line with the size of the next chunk.
    #[default]
    Size,
    /// So many more bytes of the chunk.
    Data(usize),
    /// The line end after a chunk.
    DataEnd,
    /// Trailer lines up to a blank one.
    Trailer,
    Done,
}

impl Chunks {
    /// Moves what it can from `input` to `output`; true when the body has ended.
    ///
    /// # Errors
    /// A chunk size that is no hexadecimal number.
    pub(crate) fn feed(&mut self, input: &mut Vec<u8>, output: &mut Vec<u8>) -> anyhow::Result<bool> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.expect {
                Expect::Done => break,
                Expect::Data(left) => {
                    let taken = left.min(rest.len());
                    output.extend_from_slice(&rest[..taken]);
                    at += taken;
                    if taken < left {
                        self.expect = Expect::Data(left - taken);
                        break;
                    }
                    self.expect = Expect::DataEnd;
                }
                Expect::Size | Expect::DataEnd | Expect::Trailer => {
                    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                        break;
                    };
                    let line = rest[..end].trim_ascii();
                    self.line(line)?;
                    at += end + 1;
                }
            }
        }
        input.drain(..at);
        Ok(matches!(self.expect, Expect::Done))
    }

    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        self.expect = match self.expect {
            Expect::Size => match chunk_size(line)? {
                0 => Expect::Trailer,
                size => Expect::Data(size),
            },
            Expect::Trailer if line.is_empty() => Expect::Done,
            Expect::Trailer => Expect::Trailer,
            _ => Expect::Size,
        };
        Ok(())
    }
}

fn chunk_size(line: &[u8]) -> anyhow::Result<usize> {
    let text = std::str::from_utf8(line)?;
    let size = text.split(';').next().unwrap_or_default().trim();
    usize::from_str_radix(size, 16).with_context(|| format!("`{size}` is no chunk size"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_head_is_parsed_only_when_it_is_complete() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        assert_eq!(parse_head(&whole[..30]).unwrap(), None);
        let head = parse_head(whole).unwrap().unwrap();
        assert_eq!((head.status, head.framing), (200, Framing::Length(5)));
        assert_eq!(&whole[head.length..], b"hello");
    }

    #[test]
    fn an_answer_that_ends_only_with_the_connection_is_refused() {
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse_head(b"SSH-2.0-OpenSSH\r\n").is_err());
        let empty = parse_head(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert_eq!(empty.unwrap().framing, Framing::Length(0));
    }

    #[test]
    fn chunks_are_joined_however_they_are_cut() {
        let whole = b"5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nA: b\r\n\r\n";
        for cut in 0..whole.len() {
            let (mut chunks, mut output) = (Chunks::default(), Vec::new());
            let mut input = whole[..cut].to_vec();
            assert!(!chunks.feed(&mut input, &mut output).unwrap());
            input.extend_from_slice(&whole[cut..]);
            assert!(chunks.feed(&mut input, &mut output).unwrap());
            assert_eq!(output, b"hello, world");
        }
    }

    #[test]
    fn a_chunk_size_that_is_no_number_is_an_error() {
        let mut input = b"zz\r\n".to_vec();
        assert!(Chunks::default().feed(&mut input, &mut Vec::new()).is_err());
    }
}
