//! Answers, and their heads as HTTP/1 writes them.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use smallvec::SmallVec;

use super::date;
use super::head::Version;

/// What a service answers.
///
/// `Date`, `Content-Length`, `Transfer-Encoding` and `Connection` are the front's to write.
#[derive(Debug)]
pub struct Response {
    /// Status code, 200..=599.
    pub status: u16,
    /// Header fields, in the order they are sent.
    pub headers: SmallVec<[(&'static str, HeaderText); 6]>,
    /// The body. To `HEAD`, 204 and 304 none is sent.
    pub body: ResponseBody,
    /// Close the connection afterwards.
    pub close: bool,
}

/// The value of a response's header field. Control characters in it are sent as `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderText {
    /// Text, often static.
    Text(Cow<'static, str>),
    /// Bytes, such as a part of the request.
    Bytes(Bytes),
}

/// A stream of body parts; each is sent at once.
pub type BodyStream = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// A response's body.
pub enum ResponseBody {
    /// None; `Content-Length: 0`.
    Empty,
    /// All of it.
    Full(Bytes),
    /// Parts as they come, such as server-sent events. It is dropped when the client closes the connection, does not
    /// read for [`super::Limits::write_stall`], or the server shuts down.
    Stream(BodyStream),
}

impl Response {
    /// A response without headers or body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: SmallVec::new(), body: ResponseBody::Empty, close: false }
    }

    /// A plain-text response.
    pub fn text(status: u16, text: &'static str) -> Self {
        Self::new(status).with_header("Content-Type", "text/plain; charset=utf-8").with_body(Bytes::from_static(text.as_bytes()))
    }

    /// The same with one more header field.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<HeaderText>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same with this body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = ResponseBody::Full(body.into());
        self
    }

    /// The same with a streamed body.
    #[must_use]
    pub fn with_stream(mut self, stream: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        self.body = ResponseBody::Stream(Box::pin(stream));
        self
    }

    /// The first value of a header field.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name))?;
        Some(value.as_bytes())
    }
}

impl HeaderText {
    /// The value's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl From<&'static str> for HeaderText {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for HeaderText {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<Bytes> for HeaderText {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl fmt::Debug for ResponseBody {
    /// Only the kind and length: bodies hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// Whether a status never has a body (RFC 9110 §6.4.1).
pub(crate) fn is_bodiless(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

/// Whether a byte may stand in a header value.
fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A value that is safe to send: one that tried to end its line does not.
pub(crate) fn safe_value(value: &[u8]) -> Cow<'_, [u8]> {
    if value.iter().all(|byte| is_value_byte(*byte)) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(value.iter().map(|byte| if is_value_byte(*byte) { *byte } else { b'?' }).collect())
}

/// Appends a response's head. `keep` is whether the connection stays open.
pub(crate) fn append_head(out: &mut Vec<u8>, response: &Response, version: Version, keep: bool) {
    append_status_line(out, response.status, version);
    for (name, value) in &response.headers {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(&safe_value(value.as_bytes()));
        out.extend_from_slice(b"\r\n");
    }
    if !is_bodiless(response.status) {
        append_length(out, &response.body, version);
    }
    match (keep, version) {
        (false, _) => out.extend_from_slice(b"Connection: close\r\nDate: "),
        (true, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\nDate: "),
        (true, _) => out.extend_from_slice(b"Date: "),
    }
    date::append(out);
    out.extend_from_slice(b"\r\n\r\n");
}

fn append_status_line(out: &mut Vec<u8>, status: u16, version: Version) {
    if status == 200 && version != Version::Http10 {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    let known = http::StatusCode::from_u16(status).ok();
    let reason = known.and_then(|status| status.canonical_reason()).unwrap_or("Unknown");
    out.extend_from_slice(if version == Version::Http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn append_length(out: &mut Vec<u8>, body: &ResponseBody, version: Version) {
    let length = match body {
        ResponseBody::Empty => 0,
        ResponseBody::Full(bytes) => bytes.len(),
        // HTTP/1.0 has no chunks: the end of the connection ends the body.
        ResponseBody::Stream(_) if version == Version::Http10 => return,
        ResponseBody::Stream(_) => return out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    };
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends one chunk (RFC 9112 §7.1). An empty part is nothing, since an empty chunk would end the body.
pub(crate) fn append_chunk(out: &mut Vec<u8>, part: &[u8]) {
    if part.is_empty() {
        return;
    }
    let digits = (usize::BITS - part.len().leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        let digit = (part.len() >> (4 * place)) & 15;
        out.push(b"0123456789abcdef"[digit]);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(part);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(response: &Response, version: Version, keep: bool) -> String {
        let mut out = Vec::new();
        append_head(&mut out, response, version, keep);
        let text = String::from_utf8(out).expect("ascii");
        let (before, date) = text.split_once("Date: ").expect("a date");
        assert_eq!(date.len(), 29 + 4);
        before.to_owned()
    }

    #[test]
    fn heads_are_written_as_the_body_needs() {
        let json = Response::new(200).with_header("Content-Type", "application/json").with_body("{}\n");
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3\r\n";
        assert_eq!(head(&json, Version::Http11, true), expected);
        let expected = "HTTP/1.0 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: keep-alive\r\n";
        assert_eq!(head(&Response::new(405), Version::Http10, true), expected);
        let stream = Response::new(200).with_stream(futures::stream::empty());
        let expected = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n";
        assert_eq!(head(&stream, Version::Http11, false), expected);
        assert_eq!(head(&stream, Version::Http10, false), "HTTP/1.0 200 OK\r\nConnection: close\r\n");
        assert_eq!(head(&Response::new(204), Version::Http11, true), "HTTP/1.1 204 No Content\r\n");
        assert_eq!(head(&Response::new(599), Version::Http11, true), "HTTP/1.1 599 Unknown\r\nContent-Length: 0\r\n");
    }

    #[test]
    fn a_value_cannot_end_its_line() {
        let response = Response::new(301).with_header("Location", Bytes::from_static(b"/a\r\nX: y\x00\x7f\"b\"\t"));
        assert!(head(&response, Version::Http11, true).contains("Location: /a??X: y??\"b\"\t\r\n"));
    }

    #[test]
    fn chunks_have_hexadecimal_sizes_and_empty_parts_are_left_out() {
        for (length, size) in [(1, "1"), (15, "f"), (16, "10"), (255, "ff"), (4096, "1000")] {
            let mut out = Vec::new();
            append_chunk(&mut out, &vec![b'x'; length]);
            assert_eq!(out, format!("{size}\r\n{}\r\n", "x".repeat(length)).as_bytes());
        }
        let mut out = Vec::new();
        append_chunk(&mut out, b"");
        assert!(out.is_empty());
    }
}
