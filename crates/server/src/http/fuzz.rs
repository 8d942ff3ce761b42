//! The HTTP/1 front held against hyper's: the same bytes must never be read as two different lists of requests.
//!
//! [`stream`] turns arbitrary bytes into request streams that are nearly valid and full of smuggling forms;
//! [`disagreement`] is the judge. Both are for a property test here and for a fuzz target elsewhere; the server uses
//! neither.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Connection, Front, Head, Limits, Refusal, Request, RequestBody, Response, Service, Shutdown};

/// The longest target that `http::Uri` takes.
const LONGEST_URI: usize = 65_534;

/// A request as one of the two delivered it.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: Vec<u8>,
    /// The whole body.
    pub body: Bytes,
}

impl fmt::Debug for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} [{}]", self.method, self.target.escape_ascii(), self.body.escape_ascii())
    }
}

const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "get", "X-Y", "CONNECT", "PO ST"];
const TARGETS: &[&str] = &[
    "/",
    "/v0/keys/",
    "/v0/keys/a/?status=\"Inactive\"",
    "/a?b=c&d",
    "/a#b?c",
    "/a?b#c",
    "http://h/p?q",
    "http://h?q",
    "http://h:1",
    "https://[::1]/",
    "//a//b",
    "/%2e%2e/\u{e9}",
    "*",
    "h:1",
    "/{|}<>\\^`",
    "",
    "?",
    "/a b",
];
/// How many of the targets are well-formed.
const PLAIN_TARGETS: usize = 12;
const VERSIONS: &[&str] = &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 "];
const LINE_ENDS: &[&str] = &["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", "\n\r", " \r\n", "\0\r\n"];
const HEADERS: &[&str] = &[
    "Host: a",
    "Host: a",
    "Connection: close",
    "Connection: keep-alive",
    "connection: x,Close",
    "Content-Length: 0",
    "Content-Length: 3",
    "Content-Length: 5",
    "content-length:5",
    "Content-Length: 12",
    "Content-Length: 05",
    "Content-Length: +5",
    "Content-Length: 5, 5",
    "Content-Length: 5,6",
    "Content-Length: 0x5",
    "Content-Length: 5 ",
    "Content-Length: 5\u{b}",
    "Content-Length : 5",
    "Content-Length:",
    "Content-Length: 99999999999999999999",
    "Content-Length: 18446744073709551615",
    "Content_Length: 5",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked",
    "transfer-encoding: CHUNKED",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip,chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: chunked\t",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding:\u{b}chunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding:",
    "Transfer_Encoding: chunked",
    " Transfer-Encoding: chunked",
    "Expect: 100-continue",
    "Upgrade: h2c",
    "TE: trailers",
    "X: y\r\n folded",
    "X: y\r\n\tfolded",
    ": nameless",
    "X",
    "X: \u{e9}",
    "X: a\rb",
    "X: a\0b",
];
const BODIES: &[&str] = &[
    "",
    "abc",
    "hello",
    "hello world!",
    "0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;ext=\"1\"\r\nhello\r\n00\r\n\r\n",
    "5 \t\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5\nhello\n0\n\n",
    "5\rhello\r0\r\r",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    "0\r\nA: b\n\r\n\r\n",
    "0\r\nA: b\n\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
    "0\r\nContent-Length: 5\r\n\r\n",
    "0\r\n: b\r\n\r\n",
    "0\n\r\n",
    "fffffffffffffffff\r\n",
    "ffffffffffffffff\r\nabc",
    "1;a\nb\r\nx\r\n0\r\n\r\n",
    "1\r\nx\r\n1;\r\ny\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\n",
    "\n\n",
];

/// Makes a stream of one to four requests out of arbitrary bytes: mostly well-formed parts, chosen and damaged as the
/// bytes say. The same bytes always give the same stream.
pub fn stream(data: &[u8]) -> Vec<u8> {
    let mut choices = Choices(data);
    let mut out = Vec::new();
    for _ in 0..=choices.below(4) {
        request(&mut choices, &mut out);
    }
    // Half of the streams stay as they were made.
    for _ in 0..choices.below(6).saturating_sub(2) {
        damage(&mut choices, &mut out);
    }
    out
}

fn request(choices: &mut Choices<'_>, out: &mut Vec<u8>) {
    // Most requests are plain in their first line and line ends, so that the parse gets as far as the framing.
    let is_plain = choices.below(8) != 0;
    let line_end = |choices: &mut Choices<'_>| if is_plain { "\r\n" } else { choices.pick(LINE_ENDS) };
    let method = if is_plain { choices.pick(&METHODS[..4]) } else { choices.pick(METHODS) };
    let target = if is_plain { choices.pick(&TARGETS[..PLAIN_TARGETS]) } else { choices.pick(TARGETS) };
    let version = if is_plain { choices.pick(&VERSIONS[..4]) } else { choices.pick(VERSIONS) };
    out.extend_from_slice(format!("{method} {target} {version}").as_bytes());
    out.extend_from_slice(line_end(choices).as_bytes());
    if is_plain {
        out.extend_from_slice(b"Host: a\r\n");
    }
    let (framing, body) = if is_plain { matching(choices) } else { ("", choices.pick(BODIES)) };
    out.extend_from_slice(framing.as_bytes());
    for _ in 0..choices.below(4) {
        // Of a plain request's further headers most are harmless.
        let header = if is_plain && choices.below(5) != 0 { "X: y" } else { choices.pick(HEADERS) };
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(line_end(choices).as_bytes());
    }
    out.extend_from_slice(line_end(choices).as_bytes());
    out.extend_from_slice(body.as_bytes());
}

/// A framing header and a body that may go together.
fn matching(choices: &mut Choices<'_>) -> (&'static str, &'static str) {
    match choices.below(4) {
        0 => ("", ""),
        1 => ("Content-Length: 5\r\n", "hello"),
        2 if choices.below(2) == 0 => ("Transfer-Encoding: chunked\r\n", choices.pick(BODIES)),
        2 => ("Transfer-Encoding: chunked\r\n", choices.pick(&BODIES[4..8])),
        _ => ("Content-Length: 12\r\n", choices.pick(BODIES)),
    }
}

/// Changes, removes, doubles or adds one byte.
fn damage(choices: &mut Choices<'_>, out: &mut Vec<u8>) {
    const BYTES: &[u8] = b"\r\n \t\0:;,+-0123456789afAFx\"\x0b\x0c\x7f\x80\xff/?#%";
    let at = usize::from(choices.next()) << 8 | usize::from(choices.next());
    let Some(at) = at.checked_rem(out.len()) else { return };
    let byte = BYTES[choices.below(BYTES.len())];
    match choices.below(4) {
        0 => out[at] = byte,
        1 => drop(out.remove(at)),
        2 => out.insert(at, out[at]),
        _ => out.insert(at, byte),
    }
}

/// Bytes read as decisions; zeros after their end.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.next()) % end
    }

    fn pick<'t>(&mut self, table: &[&'t str]) -> &'t str {
        table[self.below(table.len())]
    }
}

/// Feeds the same bytes to this front (whole, and in pieces of 1, 2 and 7 bytes) and to hyper, and says how they
/// disagree, if they do.
///
/// # Guarantees
///
/// `None` means: what this front delivered is the beginning of what hyper delivered, except that it may end with one
/// request whose target hyper does not take (see the module's list of what is looser).
pub fn disagreement(bytes: &[u8]) -> Option<String> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => return Some(format!("no runtime: {error}")),
    };
    let whole = runtime.block_on(ours(bytes, usize::MAX));
    for step in [1, 2, 7] {
        let pieces = runtime.block_on(ours(bytes, step));
        if pieces != whole {
            return Some(format!("in pieces of {step} {pieces:?}, whole {whole:?}"));
        }
    }
    let hypers = runtime.block_on(hypers(bytes));
    compare(&whole, &hypers).map(|what| format!("{what}: ours {whole:?}, hyper's {hypers:?}"))
}

fn compare(ours: &[Delivered], hypers: &[Delivered]) -> Option<String> {
    for (index, mine) in ours.iter().enumerate() {
        let Some(theirs) = hypers.get(index) else {
            let is_extension = !is_uri(&mine.target);
            return (!is_extension).then(|| format!("request {index} was refused by hyper"));
        };
        // `http::Uri` drops a fragment; Go's server, whose clients are served here, does not know one in requests.
        let target = mine.target.split(|byte| *byte == b'#').next().unwrap_or_default();
        if (&mine.method, target, &mine.body) != (&theirs.method, &theirs.target, &theirs.body) {
            return Some(format!("request {index} differs"));
        }
    }
    None
}

fn is_uri(target: &[u8]) -> bool {
    target.len() <= LONGEST_URI && http::Uri::try_from(target).is_ok()
}

/// What this front delivers.
async fn ours(bytes: &[u8], step: usize) -> Vec<Delivered> {
    let recorder = Arc::new(Recorder::default());
    let front = Front::new(recorder.clone(), Limits::default(), Shutdown::new());
    let connection = Connection::new(([127, 0, 0, 1], 1).into(), "fuzz".into(), None);
    super::serve_http1(Pieces { bytes: bytes.to_vec(), at: 0, step }, connection, front).await;
    std::mem::take(&mut recorder.0.lock())
}

/// What hyper delivers.
async fn hypers(bytes: &[u8]) -> Vec<Delivered> {
    let delivered = Arc::new(Mutex::new(Vec::new()));
    let recorder = delivered.clone();
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let recorder = recorder.clone();
        async move {
            let (parts, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
                let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
                recorder.lock().push(Delivered { method: parts.method.to_string(), target: target.into_bytes(), body: body.to_bytes() });
            }
            Ok::<_, Infallible>(http::Response::new(Full::<Bytes>::default()))
        }
    });
    let io = TokioIo::new(Pieces { bytes: bytes.to_vec(), at: 0, step: usize::MAX });
    let mut builder = hyper::server::conn::http1::Builder::new();
    // Else the end of the input, which is here from the start, would cancel requests.
    builder.half_close(true);
    let _ = builder.serve_connection(io, service).await;
    std::mem::take(&mut delivered.lock())
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Delivered>>);

impl Service for Recorder {
    fn body_limit(&self, _: &Head) -> usize {
        usize::MAX
    }

    async fn call(&self, request: Request) -> Response {
        let RequestBody::Complete(body) = request.body else { return Response::new(413) };
        let mut target = request.head.path.to_vec();
        if let Some(query) = &request.head.query {
            target.push(b'?');
            target.extend_from_slice(query);
        }
        let method = String::from_utf8_lossy(request.head.method_name()).into_owned();
        self.0.lock().push(Delivered { method, target, body });
        Response::new(200)
    }

    fn refused(&self, _: &Connection, why: Refusal) -> Response {
        why.answer()
    }
}

/// A connection whose input is all there, and ends; output is dropped.
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let count = self.step.min(out.remaining()).min(self.bytes.len() - self.at);
        out.put_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn both(bytes: &[u8]) -> (Vec<Delivered>, Vec<Delivered>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { (ours(bytes, usize::MAX).await, hypers(bytes).await) })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

        #[test]
        fn hyper_and_this_front_never_frame_the_same_bytes_differently(
            data in proptest::collection::vec(any::<u8>(), 0..96)
        ) {
            let bytes = stream(&data);
            if let Some(what) = disagreement(&bytes) {
                prop_assert!(false, "{what}\non {}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn the_generated_streams_are_worth_comparing() {
        // A generator whose streams are all refused at once would prove nothing.
        let mut random = 7_u64;
        let mut counts = [0; 5];
        let mut bodies = 0;
        for _ in 0..500 {
            let data: Vec<u8> = (0..64)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (random >> 56) as u8
                })
                .collect();
            let (mine, _) = both(&stream(&data));
            counts[mine.len().min(4)] += 1;
            bodies += mine.iter().filter(|request| !request.body.is_empty()).count();
        }
        assert!(counts[1..].iter().sum::<usize>() > 200, "{counts:?}");
        assert!(counts[2..].iter().sum::<usize>() > 50, "{counts:?}");
        assert!(bodies > 100, "{bodies}");
    }

    #[test]
    fn the_judge_sees_a_different_framing() {
        let request = |body: &'static str| Delivered { method: "GET".into(), target: b"/".to_vec(), body: body.into() };
        assert_eq!(compare(&[request("a")], &[request("a"), request("b")]), None);
        assert!(compare(&[request("a")], &[request("b")]).is_some());
        assert!(compare(&[request("a"), request("a")], &[request("a")]).is_some());
        let quoted = Delivered { target: b"/?a=\"b\"".to_vec(), ..request("") };
        assert_eq!(compare(&[quoted], &[]), None);
    }

    #[test]
    fn plain_requests_are_delivered_by_both() {
        let bytes = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\n\
            PUT /b?c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: x\r\n\r\n\
            GET /d HTTP/1.1\nHost: a\n\n";
        let (mine, theirs) = both(bytes);
        assert_eq!(mine.len(), 3);
        assert_eq!(mine, theirs);
    }
}
