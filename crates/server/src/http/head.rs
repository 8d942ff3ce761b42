//! A request's line and header fields, parsed once, kept as the bytes that came.
//!
//! Paths and queries are not decoded here: each surface has its own rules for that.

use std::fmt;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::refusal::Refusal;

/// Most header fields of a request; hyper's default too.
const MAX_HEADERS: usize = 100;
/// Longest header name; hyper's limit too.
const MAX_NAME: usize = 65_535;

/// Request line and header fields.
#[derive(Clone)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The path, undecoded, as it came; starts with `/`, or is `*`.
    pub path: Bytes,
    /// What follows the first `?`, undecoded; `Some("")` for a bare `?`.
    pub query: Option<Bytes>,
    /// The protocol version.
    pub version: Version,
    /// The header fields.
    pub headers: Headers,
    method_name: Bytes,
}

/// A request's method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `PATCH`
    Patch,
    /// `OPTIONS`
    Options,
    /// Any other token; [`Head::method_name`] has it.
    Other,
}

/// A request's protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

/// Header fields in the order they came, as ranges of one buffer.
#[derive(Clone)]
pub struct Headers {
    bytes: Bytes,
    fields: SmallVec<[Field; 12]>,
}

/// Where a field lies in the buffer. Offsets fit `u32` because heads are limited to far less.
#[derive(Clone, Copy)]
struct Field {
    name: (u32, u32),
    value: (u32, u32),
}

impl Head {
    /// The method as the client wrote it.
    pub fn method_name(&self) -> &[u8] {
        &self.method_name
    }

    /// Bytes that it holds.
    pub(crate) fn size(&self) -> usize {
        self.headers.bytes.len() + self.headers.len() * size_of::<Field>()
    }

    /// A head made of its parts, as if a client had sent it over HTTP/1.1; `None` when it would be refused. `target`
    /// and values are taken as they are. For tests and for calls that come from inside.
    pub fn build(method: &str, target: &str, headers: &[(&str, &str)]) -> Option<Self> {
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = BytesMut::from(text.as_bytes());
        match parse(&mut bytes, usize::MAX) {
            Ok(Some(head)) if bytes.is_empty() => Some(head),
            _ => None,
        }
    }

    /// The head of an HTTP/2 request. `:authority` stands in for a missing `Host`.
    pub(crate) fn from_http2(parts: &http::request::Parts) -> Self {
        let mut text = BytesMut::with_capacity(512);
        let method_name = append(&mut text, parts.method.as_str().as_bytes());
        let path = append(&mut text, parts.uri.path().as_bytes());
        let query = parts.uri.query().map(|query| append(&mut text, query.as_bytes()));
        let mut fields = SmallVec::new();
        let mut field = |name: &[u8], value: &[u8]| {
            let name = append(&mut text, name);
            let value = append(&mut text, value);
            fields.push(Field { name, value });
        };
        for (name, value) in &parts.headers {
            field(name.as_str().as_bytes(), value.as_bytes());
        }
        if let (Some(authority), false) = (parts.uri.authority(), parts.headers.contains_key(http::header::HOST)) {
            field(b"host", authority.as_str().as_bytes());
        }
        let bytes = text.freeze();
        Self {
            method: Method::of(parts.method.as_str().as_bytes()),
            path: slice(&bytes, path),
            query: query.map(|query| slice(&bytes, query)),
            version: Version::Http2,
            method_name: slice(&bytes, method_name),
            headers: Headers { bytes, fields },
        }
    }
}

impl fmt::Debug for Head {
    /// No query and no header values: both can hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Method {
    fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"PATCH" => Self::Patch,
            b"OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }
}

impl Headers {
    /// The first value of a field; names compare without case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// All values of a field, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter_map(move |(other, value)| other.eq_ignore_ascii_case(name.as_bytes()).then_some(value))
    }

    /// All fields, names as the client wrote them.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (self.range(field.name), self.range(field.value)))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    fn range(&self, (start, end): (u32, u32)) -> &[u8] {
        &self.bytes[start as usize..end as usize]
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| String::from_utf8_lossy(name))).finish()
    }
}

/// Parses the head at the start of `buffer`, of at most `limit` bytes, and takes it out; `None` when more bytes are
/// needed.
///
/// # Errors
///
/// The refusal to answer with; the buffer is then left as it is.
pub(crate) fn parse(buffer: &mut BytesMut, limit: usize) -> Result<Option<Head>, Refusal> {
    let mut space = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(buffer, &mut space) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooManyHeaders),
        Err(httparse::Error::Version) => return Err(Refusal::Version),
        Err(_) => return Err(Refusal::MalformedHead),
    };
    if length > limit {
        return Err(Refusal::HeadTooLarge);
    }
    let (Some(name), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Refusal::MalformedHead);
    };
    let base = buffer.as_ptr() as usize;
    let range = |part: &[u8]| -> (u32, u32) {
        let start = part.as_ptr() as usize - base;
        (start as u32, (start + part.len()) as u32)
    };
    let method = Method::of(name.as_bytes());
    if name == "CONNECT" {
        return Err(Refusal::Method);
    }
    let (path, query) = split_target(target.as_bytes(), method)?;
    let mut fields = SmallVec::new();
    for header in request.headers.iter() {
        if header.name.len() >= MAX_NAME {
            return Err(Refusal::MalformedHead);
        }
        // An empty value points at the buffer too, so its range is valid.
        fields.push(Field { name: range(header.name.as_bytes()), value: range(header.value) });
    }
    let name = range(name.as_bytes());
    let path = path.map(range);
    let query = query.map(range);
    let version = if minor == 1 { Version::Http11 } else { Version::Http10 };
    let bytes = buffer.split_to(length).freeze();
    Ok(Some(Head {
        method,
        path: path.map_or(Bytes::from_static(b"/"), |path| slice(&bytes, path)),
        query: query.map(|query| slice(&bytes, query)),
        version,
        method_name: slice(&bytes, name),
        headers: Headers { bytes, fields },
    }))
}

/// A target's path (`None` for the empty path of an absolute form) and query.
type Target<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// Splits a request target (RFC 9112 §3.2): origin form, absolute form, or `*` for `OPTIONS`.
fn split_target(target: &[u8], method: Method) -> Result<Target<'_>, Refusal> {
    let rest = match target {
        [b'/', ..] => target,
        b"*" if method == Method::Options => return Ok((Some(target), None)),
        _ => after_authority(target).ok_or(Refusal::MalformedHead)?,
    };
    let (path, query) = match memchr::memchr(b'?', rest) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    Ok(((!path.is_empty()).then_some(path), query))
}

/// What follows `http://authority`; the authority itself is not used, but must be one, without user information.
fn after_authority(target: &[u8]) -> Option<&[u8]> {
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
    })?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let plausible = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    let is_valid = authority.iter().all(plausible) && http::uri::Authority::try_from(authority).is_ok();
    is_valid.then_some(rest)
}

fn slice(bytes: &Bytes, (start, end): (u32, u32)) -> Bytes {
    bytes.slice(start as usize..end as usize)
}

fn append(text: &mut BytesMut, part: &[u8]) -> (u32, u32) {
    let start = text.len();
    text.extend_from_slice(part);
    (start as u32, text.len() as u32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse_text(text: &[u8]) -> Result<Option<Head>, Refusal> {
        parse(&mut BytesMut::from(text), 1 << 20)
    }

    #[test]
    fn a_target_is_split_at_the_first_question_mark_and_kept_raw() {
        let cases: [(&str, &str, Option<&str>); 9] = [
            ("/v0/keys/a/?status=\"Inactive\"", "/v0/keys/a/", Some("status=\"Inactive\"")),
            ("/a", "/a", None),
            ("/a?", "/a", Some("")),
            ("/a?b?c", "/a", Some("b?c")),
            ("/%zz/{}|\\^`<>\"#", "/%zz/{}|\\^`<>\"#", None),
            ("/é?ü", "/é", Some("ü")),
            ("http://knox:9000/v0/keys/?x", "/v0/keys/", Some("x")),
            ("HTTPS://[::1]:1", "/", None),
            ("http://h?q", "/", Some("q")),
        ];
        for (target, path, query) in cases {
            let head = Head::build("GET", target, &[]).unwrap_or_else(|| panic!("{target} was refused"));
            assert_eq!((&head.path[..], head.query.as_deref()), (path.as_bytes(), query.map(str::as_bytes)), "{target}");
        }
        assert_eq!(&Head::build("OPTIONS", "*", &[]).unwrap().path[..], b"*");
    }

    #[test]
    fn malformed_heads_are_refused_each_with_its_reason() {
        let cases: &[(&[u8], Refusal)] = &[
            (b"GET * HTTP/1.1\r\n\r\n", Refusal::MalformedHead),
            (b"GET a:1 HTTP/1.1\r\n\r\n", Refusal::MalformedHead),
            (b"GET http:// HTTP/1.1\r\n\r\n", Refusal::MalformedHead),
            (b"GET https://::1]/ HTTP/1.1\r\n\r\n", Refusal::MalformedHead),
            (b"GET http://u@h/ HTTP/1.1\r\n\r\n", Refusal::MalformedHead),
            (b"GET http://a\"b/ HTTP/1.1\r\n\r\n", Refusal::MalformedHead),
            (b"GET ftp://a/ HTTP/1.1\r\n\r\n", Refusal::MalformedHead),
            (b"CONNECT a:1 HTTP/1.1\r\n\r\n", Refusal::Method),
            (b"GET / HTTP/1.2\r\n\r\n", Refusal::Version),
            (b"PRI * HTTP/2.0\r\n\r\n", Refusal::Version),
            (b"GET  / HTTP/1.1\r\n\r\n", Refusal::MalformedHead),
            (b"GET / HTTP/1.1 \r\n\r\n", Refusal::MalformedHead),
            (b"GET /\x00 HTTP/1.1\r\n\r\n", Refusal::MalformedHead),
            (b"GET /\x7f HTTP/1.1\r\n\r\n", Refusal::MalformedHead),
            (b"GET /\xff HTTP/1.1\r\n\r\n", Refusal::MalformedHead),
            (b"G@T / HTTP/1.1\r\n\r\n", Refusal::MalformedHead),
            (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", Refusal::MalformedHead),
            (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", Refusal::MalformedHead),
            (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Refusal::MalformedHead),
            (b"GET / HTTP/1.1\r\nA: b\x00\r\n\r\n", Refusal::MalformedHead),
            (b"GET / HTTP/1.1\r\n: b\r\n\r\n", Refusal::MalformedHead),
            (b"GET / HTTP/1.1\r\nA\r\n\r\n", Refusal::MalformedHead),
            (b"\x16\x03\x01\x02\x00", Refusal::MalformedHead),
        ];
        for (text, why) in cases {
            assert_eq!(parse_text(text).unwrap_err(), *why, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn the_hundred_and_first_header_is_one_too_many() {
        let head = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert_eq!(parse_text(head(100).as_bytes()).unwrap().unwrap().headers.len(), 100);
        assert_eq!(parse_text(head(101).as_bytes()).unwrap_err(), Refusal::TooManyHeaders);
    }

    #[test]
    fn header_names_compare_without_case_and_values_lose_outer_space() {
        let head = parse_text(b"GET / HTTP/1.1\r\nAUTHorization: \t0u x \r\nA:\r\na: 2\r\n\r\n").unwrap().unwrap();
        assert_eq!(head.headers.get("authorization"), Some(&b"0u x"[..]));
        assert_eq!(head.headers.get_all("a").collect::<Vec<_>>(), [&b""[..], b"2"]);
        assert_eq!(head.headers.get("b"), None);
    }

    #[test]
    fn every_prefix_of_a_head_needs_more() {
        let text = b"POST /a?b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
        for end in 0..text.len() {
            assert!(parse_text(&text[..end]).unwrap().is_none(), "{end}");
        }
        let mut buffer = BytesMut::from(&b"GET / HTTP/1.0\r\n\r\nrest"[..]);
        assert_eq!(parse(&mut buffer, 18).unwrap().unwrap().version, Version::Http10);
        assert_eq!(&buffer[..], b"rest");
        let mut buffer = BytesMut::from(&b"GET / HTTP/1.0\r\n\r\nrest"[..]);
        assert_eq!(parse(&mut buffer, 17).unwrap_err(), Refusal::HeadTooLarge);
    }

    #[test]
    fn debug_output_holds_neither_query_nor_values() {
        let head = Head::build("GET", "/a?token=SENTINEL", &[("Authorization", "SENTINEL")]).unwrap();
        assert!(!format!("{head:?} {:?}", head.headers).contains("SENTINEL"));
    }
}
