//! Where a request's body ends: the rules of RFC 9112 §6, as hyper 1.12 applies them or stricter. No I/O.
//!
//! This file is the one that a smuggled request would have to get past; the table in its tests and the differential
//! test in `fuzz` say what it does.

use bytes::BytesMut;

use super::head::{Head, Version};
use super::refusal::Refusal;

/// Bytes of chunk extensions in one body; hyper's limit too.
const EXTENSION_LIMIT: usize = 16 * 1024;
/// Bytes of trailers; hyper allows twice as much.
const TRAILER_LIMIT: usize = 8 * 1024;
/// Trailer fields.
const TRAILER_FIELDS: usize = 100;
/// The longest length hyper takes.
const LONGEST: u64 = u64::MAX - 2;

/// How the body of a request is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
}

impl Framing {
    /// How many bytes of body the client says it sends.
    pub(crate) fn announced(self) -> Option<u64> {
        match self {
            Self::Length(length) => Some(length),
            Self::Chunked => None,
        }
    }
}

/// What a head says about the message and the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) framing: Framing,
    /// Whether the client allows another request on the connection.
    pub(crate) keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
}

/// Reads the plan out of a head, or refuses what could be framed in two ways.
pub(crate) fn plan(head: &Head) -> Result<Plan, Refusal> {
    let is_11 = head.version == Version::Http11;
    let (mut length, mut encodings, mut hosts) = (None, 0_u32, 0_u32);
    let (mut closes, mut keeps, mut expects_continue) = (false, is_11, false);
    for (name, value) in head.headers.iter() {
        // By length first: nearly all names are passed over without being compared.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => hosts += 1,
            6 if name.eq_ignore_ascii_case(b"expect") => expects_continue = value.eq_ignore_ascii_case(b"100-continue"),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                closes |= has_token(value, b"close");
                keeps |= has_token(value, b"keep-alive");
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let value = digits(value).filter(|value| *value <= LONGEST).ok_or(Refusal::MalformedHead)?;
                if length.replace(value).is_some_and(|before| before != value) {
                    return Err(Refusal::MalformedHead);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let is_chunked = value.eq_ignore_ascii_case(b"chunked");
                encodings += 1;
                if !is_chunked || encodings > 1 || !is_11 {
                    return Err(Refusal::MalformedHead);
                }
            }
            _ => {}
        }
    }
    if is_11 && hosts != 1 || hosts > 1 {
        return Err(Refusal::HostHeader);
    }
    let framing = match (encodings, length) {
        (0, length) => Framing::Length(length.unwrap_or(0)),
        (_, None) => Framing::Chunked,
        (_, Some(_)) => return Err(Refusal::MalformedHead),
    };
    let expects_continue = expects_continue && is_11 && framing != Framing::Length(0);
    Ok(Plan { framing, keep_alive: keeps && !closes, expects_continue })
}

/// Only digits: no sign, no list, no space.
fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether a comma-separated list has a token. A value that is not plain text has none, as in hyper.
fn has_token(value: &[u8], token: &[u8]) -> bool {
    let is_text = value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e));
    is_text && value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

/// Undoes chunked coding (RFC 9112 §7.1), state by state as hyper does.
#[derive(Debug)]
pub(crate) struct Chunks {
    state: State,
    remaining: u64,
    extensions: usize,
    trailers: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Size,
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    LineStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

impl Chunks {
    pub(crate) fn new() -> Self {
        Self { state: State::Start, remaining: 0, extensions: 0, trailers: Vec::new() }
    }

    /// Takes what it can use out of `input`, hands each run of data to `data`, and says whether the body has ended.
    pub(crate) fn decode(&mut self, input: &mut BytesMut, mut data: impl FnMut(&[u8])) -> Result<bool, Refusal> {
        let mut at = 0;
        while at < input.len() && self.state != State::End {
            if self.state == State::Data {
                let run = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(input.len() - at);
                data(&input[at..at + run]);
                at += run;
                self.remaining -= run as u64;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(input[at])?;
                at += 1;
            }
        }
        bytes::Buf::advance(input, at);
        Ok(self.state == State::End)
    }

    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::Start | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.size_digit(byte),
            (State::Size | State::SizeSpace, b'\t' | b' ') => Ok(State::SizeSpace),
            (State::Size | State::SizeSpace, b';') => Ok(State::Extension),
            (State::Size | State::SizeSpace | State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, byte) if byte != b'\n' => self.extension(),
            (State::SizeLf, b'\n') if self.remaining == 0 => Ok(State::LineStart),
            (State::SizeLf, b'\n') => Ok(State::Data),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Start),
            (State::LineStart, b'\r') => self.trailer(byte, State::EndLf),
            (State::Trailer, b'\r') => self.trailer(byte, State::TrailerLf),
            (State::LineStart | State::Trailer, byte) if byte != b'\n' => self.trailer(byte, State::Trailer),
            (State::TrailerLf, b'\n') => self.trailer(byte, State::LineStart),
            (State::EndLf, b'\n') => self.trailer(byte, State::End).and_then(|state| self.check_trailers(state)),
            _ => Err(Refusal::MalformedBody),
        }
    }

    fn size_digit(&mut self, byte: u8) -> Result<State, Refusal> {
        let digit = char::from(byte).to_digit(16).ok_or(Refusal::MalformedBody)?;
        let shifted = self.remaining.checked_mul(16).ok_or(Refusal::MalformedBody)?;
        self.remaining = shifted + u64::from(digit);
        Ok(State::Size)
    }

    fn extension(&mut self) -> Result<State, Refusal> {
        self.extensions += 1;
        if self.extensions >= EXTENSION_LIMIT { Err(Refusal::MalformedBody) } else { Ok(State::Extension) }
    }

    fn trailer(&mut self, byte: u8, next: State) -> Result<State, Refusal> {
        if self.trailers.len() >= TRAILER_LIMIT {
            return Err(Refusal::MalformedBody);
        }
        self.trailers.push(byte);
        Ok(next)
    }

    /// Trailers are dropped, but malformed ones are refused, because hyper refuses them.
    fn check_trailers(&mut self, state: State) -> Result<State, Refusal> {
        let mut fields = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
        match httparse::parse_headers(&self.trailers, &mut fields) {
            Ok(httparse::Status::Complete((length, _))) if length == self.trailers.len() => Ok(state),
            _ => Err(Refusal::MalformedBody),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plan_of(version: &str, headers: &str) -> Result<Plan, Refusal> {
        let text = format!("POST / HTTP/{version}\r\n{headers}\r\n");
        plan(&super::super::head::parse(&mut BytesMut::from(text.as_bytes()), 1 << 20).unwrap().unwrap())
    }

    #[test]
    fn a_request_has_one_framing_or_is_refused() {
        let length = |length| Ok(Framing::Length(length));
        let bad = Err(Refusal::MalformedHead);
        let cases = [
            ("", length(0)),
            ("Content-Length: 5\r\n", length(5)),
            ("Content-Length:   005  \r\n", length(5)),
            ("Content-Length: 5\r\ncontent-length: 5\r\n", length(5)),
            ("Content-Length: 5\r\nContent-Length: 05\r\n", length(5)),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", bad),
            ("Content-Length: 5, 5\r\n", bad),
            ("Content-Length: +5\r\n", bad),
            ("Content-Length: -5\r\n", bad),
            ("Content-Length: 0x5\r\n", bad),
            ("Content-Length: 5 5\r\n", bad),
            ("Content-Length:\r\n", bad),
            ("Content-Length: 18446744073709551616\r\n", bad),
            ("Content-Length: 18446744073709551615\r\n", bad),
            ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
            ("transfer-encoding: ChunkeD\r\n", Ok(Framing::Chunked)),
            ("Transfer-Encoding: xchunked\r\n", bad),
            ("Transfer-Encoding: chunked, identity\r\n", bad),
            ("Transfer-Encoding: identity\r\n", bad),
            ("Transfer-Encoding: gzip, chunked\r\n", bad),
            ("Transfer-Encoding: chunked, chunked\r\n", bad),
            ("Transfer-Encoding: \"chunked\"\r\n", bad),
            ("Transfer-Encoding:\r\n", bad),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", bad),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", bad),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", bad),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", bad),
        ];
        for (headers, expected) in cases {
            let found = plan_of("1.1", &format!("Host: a\r\n{headers}")).map(|plan| plan.framing);
            assert_eq!(found, expected, "{headers}");
        }
        assert_eq!(plan_of("1.0", "Transfer-Encoding: chunked\r\n").unwrap_err(), Refusal::MalformedHead);
    }

    #[test]
    fn exactly_one_host_is_needed_from_version_1_1() {
        assert_eq!(plan_of("1.1", "").unwrap_err(), Refusal::HostHeader);
        assert_eq!(plan_of("1.1", "Host: a\r\nHost: a\r\n").unwrap_err(), Refusal::HostHeader);
        assert_eq!(plan_of("1.0", "Host: a\r\nHost: b\r\n").unwrap_err(), Refusal::HostHeader);
        plan_of("1.1", "Host:\r\n").unwrap();
        plan_of("1.0", "").unwrap();
    }

    #[test]
    fn the_connection_header_decides_about_keeping_it() {
        let cases = [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: Keep-Alive, CLOSE\r\n", false),
            ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", false),
            ("1.1", "Connection: closed\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: keep-alive\r\n", true),
            ("1.0", "Connection: x, Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ];
        for (version, headers, keep) in cases {
            let host = if version == "1.1" { "Host: a\r\n" } else { "" };
            assert_eq!(plan_of(version, &format!("{host}{headers}")).unwrap().keep_alive, keep, "{version} {headers}");
        }
    }

    #[test]
    fn continue_is_expected_only_for_a_body_on_1_1() {
        let cases = [
            ("1.1", "Content-Length: 1\r\nExpect: 100-Continue\r\n", true),
            ("1.1", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", true),
            ("1.1", "Content-Length: 0\r\nExpect: 100-continue\r\n", false),
            ("1.1", "Content-Length: 1\r\nExpect: other\r\n", false),
            ("1.0", "Content-Length: 1\r\nExpect: 100-continue\r\n", false),
        ];
        for (version, headers, expected) in cases {
            let plan = plan_of(version, &format!("Host: a\r\n{headers}")).unwrap();
            assert_eq!(plan.expects_continue, expected, "{version} {headers}");
        }
    }

    /// The decoded body and what is left, or `None` when refused. Fed whole and byte by byte, which must agree.
    fn unchunk(text: &[u8]) -> Option<(Vec<u8>, bool, Vec<u8>)> {
        let feed = |pieces: Vec<&[u8]>| {
            let (mut chunks, mut body, mut input) = (Chunks::new(), Vec::new(), BytesMut::new());
            let mut ended = false;
            for piece in pieces {
                input.extend_from_slice(piece);
                ended = chunks.decode(&mut input, |data| body.extend_from_slice(data)).ok()?;
            }
            Some((body, ended, input.to_vec()))
        };
        let whole = feed(vec![text]);
        assert_eq!(whole, feed(text.chunks(1).collect()), "{}", text.escape_ascii());
        whole
    }

    #[test]
    fn chunked_bodies_are_decoded_or_refused_like_hyper_does() {
        let complete: &[(&[u8], &[u8], &[u8])] = &[
            (b"0\r\n\r\n", b"", b""),
            (b"3\r\nabc\r\n0\r\n\r\nGET", b"abc", b"GET"),
            (b"003 \t;a=\"b\"\r\nabc\r\n1\r\nd\r\n00;x\r\n\r\n", b"abcd", b""),
            (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789", b""),
            (b"1\r\nx\r\n0\r\nTrailer: y\r\nZ:\r\n\r\nrest", b"x", b"rest"),
        ];
        for (text, body, rest) in complete {
            assert_eq!(unchunk(text), Some((body.to_vec(), true, rest.to_vec())), "{}", text.escape_ascii());
        }
        let refused: &[&[u8]] = &[
            b"\r\n",
            b"+3\r\nabc",
            b"-3\r\n",
            b"0x3\r\nabc",
            b" 3\r\nabc",
            b";3\r\n",
            b"3\nabc",
            b"3 3\r\n",
            b"3\rabc",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n0",
            b"3\r\nabc\r0",
            b"g\r\n",
            b"1;a\nb\r\n",
            b"11111111111111111\r\n",
            b"0\r\n\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\nA b\r\n\r\n",
            b"0\r\n: b\r\n\r\n",
            b"0\r\nA: \x00\r\n\r\n",
            b"0\r\nA: b\r\r\n",
        ];
        for text in refused {
            assert_eq!(unchunk(text), None, "{}", text.escape_ascii());
        }
        let (body, ended, _) = unchunk(b"5\r\nabc").unwrap();
        assert_eq!((&body[..], ended), (&b"abc"[..], false));
    }

    #[test]
    fn extensions_and_trailers_are_limited() {
        let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(EXTENSION_LIMIT));
        assert_eq!(unchunk(extension.as_bytes()), None);
        let trailer = format!("0\r\nA: {}\r\n\r\n", "e".repeat(TRAILER_LIMIT));
        assert_eq!(unchunk(trailer.as_bytes()), None);
        let many = format!("0\r\n{}\r\n", "A:b\r\n".repeat(TRAILER_FIELDS + 1));
        assert_eq!(unchunk(many.as_bytes()), None);
    }
}
