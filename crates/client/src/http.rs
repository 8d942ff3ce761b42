//! HTTP/1.1 as a client needs it, over one TLS connection: one request, one answer, then the next (RFC 9112).
//!
//! It is small because it must wipe what it reads, which pooled buffers of a general client do not. It has no pipelining,
//! upgrades, redirects, or trailers that anyone sees.

use crate::Error;
use crate::buffer::Buffer;
use crate::config::Address;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const MAX_HEAD: usize = 64 * 1024;
const MAX_CHUNK_LINE: usize = 4 * 1024;
/// A thousand values of a bulk read at the usual limit fit; what is longer is an error, not an allocation.
const MAX_BODY: usize = 1 << 30;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// One connection. It may be used again only after a whole answer was read.
pub(crate) struct Connection<S = TlsStream<TcpStream>> {
    stream: S,
    ahead: Buffer,
    address: String,
}

/// An answer's head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    keep_alive: bool,
}

/// What of a body is still to come.
#[derive(Debug)]
enum Rest {
    Length(usize),
    Chunked { left: usize, first: bool },
    UntilClose,
    Nothing,
}

/// The body of the answer that is being read.
#[derive(Debug)]
pub(crate) struct Body(Rest);

impl Head {
    /// The value of a header, which is named in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl Connection {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// [`Error::Connect`], [`Error::Tls`] or [`Error::Timeout`]; nothing of a request was sent.
    pub(crate) async fn open(address: &Address, tls: &TlsConnector) -> Result<Self, Error> {
        let shown = address.to_string();
        let connect = Self::connect(address, tls, &shown);
        match tokio::time::timeout(CONNECT_LIMIT, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(Error::Timeout { address: shown, limit: CONNECT_LIMIT }),
        }
    }

    async fn connect(address: &Address, tls: &TlsConnector, shown: &str) -> Result<Self, Error> {
        let refused = |e: io::Error| Error::Connect { address: shown.to_owned(), reason: e.to_string() };
        let tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(refused)?;
        tcp.set_nodelay(true).map_err(refused)?;
        let stream = tls.connect(address.name.clone(), tcp).await.map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => Error::Tls { address: shown.to_owned(), reason: e.to_string() },
            _ => Error::Connect { address: shown.to_owned(), reason: format!("the TLS handshake broke off: {e}") },
        })?;
        Ok(Self::over(stream, shown.to_owned()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection over a stream that is open already.
    pub(crate) fn over(stream: S, address: String) -> Self {
        Self { stream, ahead: Buffer::with_capacity(8 * 1024), address }
    }

    /// Whether the other side still holds the connection open and has said nothing unasked.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let stream = &mut self.stream;
        let read = std::future::poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut byte);
            Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut buffer).is_pending())
        });
        self.ahead.len() == 0 && read.await
    }

    /// Sends a whole request.
    pub(crate) async fn send(&mut self, wire: &Buffer) -> Result<(), Error> {
        let written = async {
            self.stream.write_all(wire.bytes()).await?;
            self.stream.flush().await
        };
        written.await.map_err(|e| broken(&self.address, &e))
    }

    /// Reads the head of the answer; informational ones are passed over.
    pub(crate) async fn head(&mut self) -> Result<(Head, Body), Error> {
        loop {
            match parse_head(self.ahead.bytes())? {
                Some((head, body, length)) => {
                    self.ahead.consume(length);
                    if head.status >= 200 {
                        return Ok((head, body));
                    }
                }
                None if self.ahead.len() > MAX_HEAD => return Err(Error::Malformed("its head is longer than 64 KiB".to_owned())),
                None => self.fill().await?,
            }
        }
    }

    /// Appends the next part of the body to `out`; false at its end.
    pub(crate) async fn more(&mut self, body: &mut Body, out: &mut Buffer) -> Result<bool, Error> {
        loop {
            let Some(wanted) = self.wanted(body).await? else { return Ok(false) };
            if out.len() >= MAX_BODY {
                return Err(Error::Malformed("its body is longer than 1 GiB".to_owned()));
            }
            if self.ahead.len() == 0 && !self.fill_or_end(body).await? {
                return Ok(false);
            }
            let n = wanted.min(self.ahead.len());
            if n == 0 {
                continue;
            }
            out.push(&self.ahead.bytes()[..n]);
            self.ahead.consume(n);
            match &mut body.0 {
                Rest::Length(left) | Rest::Chunked { left, .. } => *left -= n,
                Rest::UntilClose | Rest::Nothing => {}
            }
            return Ok(true);
        }
    }

    /// Reads the whole body.
    pub(crate) async fn whole(&mut self, body: &mut Body) -> Result<Buffer, Error> {
        let mut out = match body.0 {
            Rest::Length(n) if n > MAX_BODY => return Err(Error::Malformed("its body is longer than 1 GiB".to_owned())),
            // What is announced is not yet there: a lie costs the liar's bytes, not our memory.
            Rest::Length(n) => Buffer::with_capacity(n.min(16 * 1024 * 1024)),
            _ => Buffer::with_capacity(16 * 1024),
        };
        while self.more(body, &mut out).await? {}
        Ok(out)
    }

    /// Whether another request may follow on this connection.
    pub(crate) fn reusable(&self, head: &Head, body: &Body) -> bool {
        let finished = matches!(body.0, Rest::Nothing | Rest::Length(0));
        head.keep_alive && finished && self.ahead.len() == 0
    }

    /// How many bytes of the body may be taken now; for chunked bodies this reads the next chunk's line.
    async fn wanted(&mut self, body: &mut Body) -> Result<Option<usize>, Error> {
        match &mut body.0 {
            Rest::Nothing | Rest::Length(0) => return Ok(None),
            Rest::UntilClose => return Ok(Some(usize::MAX)),
            Rest::Length(left) => return Ok(Some(*left)),
            Rest::Chunked { left, .. } if *left > 0 => return Ok(Some(*left)),
            Rest::Chunked { first, .. } => {
                let after_chunk = !std::mem::replace(first, false);
                if after_chunk && self.line().await? != b"" {
                    return Err(Error::Malformed("a chunk does not end where it says".to_owned()));
                }
            }
        }
        let size = chunk_size(&self.line().await?)?;
        if size > 0 {
            body.0 = Rest::Chunked { left: size, first: false };
            return Ok(Some(size));
        }
        while self.line().await? != b"" {}
        body.0 = Rest::Nothing;
        Ok(None)
    }

    async fn line(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            if let Some(end) = self.ahead.bytes().windows(2).position(|w| w == b"\r\n") {
                let line = self.ahead.bytes()[..end].to_vec();
                self.ahead.consume(end + 2);
                return Ok(line);
            }
            if self.ahead.len() > MAX_CHUNK_LINE {
                return Err(Error::Malformed("a chunk's line is too long".to_owned()));
            }
            self.fill().await?;
        }
    }

    /// Reads more; the end of the stream is an error unless the body lasts until then.
    async fn fill_or_end(&mut self, body: &mut Body) -> Result<bool, Error> {
        match self.read_some().await? {
            0 if matches!(body.0, Rest::UntilClose) => {
                body.0 = Rest::Nothing;
                Ok(false)
            }
            0 => Err(ended(&self.address)),
            _ => Ok(true),
        }
    }

    async fn fill(&mut self) -> Result<(), Error> {
        match self.read_some().await? {
            0 => Err(ended(&self.address)),
            _ => Ok(()),
        }
    }

    /// Reads what is there, up to one TLS record. Cancelling loses no byte: what was read is counted at once.
    async fn read_some(&mut self) -> Result<usize, Error> {
        let start = self.ahead.len();
        let space = self.ahead.grow(16 * 1024);
        let read = self.stream.read(space).await;
        self.ahead.truncate(start + read.as_ref().map_or(0, |n| *n));
        read.map_err(|e| broken(&self.address, &e))
    }
}

fn broken(address: &str, e: &io::Error) -> Error {
    // In TLS 1.3 a refused client certificate shows only at the first read.
    let tls = e.kind() == io::ErrorKind::InvalidData;
    let (address, reason) = (address.to_owned(), e.to_string());
    if tls { Error::Tls { address, reason } } else { Error::Broken { address, reason } }
}

fn ended(address: &str) -> Error {
    Error::Broken { address: address.to_owned(), reason: "the server closed it before the answer was whole".to_owned() }
}

fn chunk_size(line: &[u8]) -> Result<usize, Error> {
    let bad = || Error::Malformed("a chunk has no size".to_owned());
    let digits = line.split(|b| *b == b';').next().unwrap_or_default();
    let text = std::str::from_utf8(digits).map_err(|_| bad())?.trim_end();
    if text.is_empty() || text.len() > 8 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    usize::from_str_radix(text, 16).map_err(|_| bad())
}

/// The head at the start of `bytes`, its body's framing and its length; nothing if it is not whole yet.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, Body, usize)>, Error> {
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut slots);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(Error::Malformed(format!("no HTTP answer: {e}"))),
    };
    let status = parsed.code.unwrap_or_default();
    let text = |v: &[u8]| String::from_utf8_lossy(v).trim().to_owned();
    let headers: Vec<_> = parsed.headers.iter().map(|h| (h.name.to_ascii_lowercase(), text(h.value))).collect();
    let closes = headers.iter().any(|(n, v)| n == "connection" && v.to_ascii_lowercase().contains("close"));
    let rest = framing(status, &headers)?;
    let keep_alive = parsed.version == Some(1) && !closes && !matches!(rest, Rest::UntilClose);
    Ok(Some((Head { status, headers, keep_alive }, Body(rest), length)))
}

/// RFC 9112 §6.3, with both headers at once refused.
fn framing(status: u16, headers: &[(String, String)]) -> Result<Rest, Error> {
    let all = |name: &str| headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
    let (encodings, lengths) = (all("transfer-encoding"), all("content-length"));
    if status < 200 || status == 204 || status == 304 {
        return Ok(Rest::Nothing);
    }
    match (&encodings[..], &lengths[..]) {
        ([one], []) if one.eq_ignore_ascii_case("chunked") => Ok(Rest::Chunked { left: 0, first: true }),
        ([], [one]) if one.bytes().all(|b| b.is_ascii_digit()) => {
            one.parse().map(Rest::Length).map_err(|_| Error::Malformed("its length is no number".to_owned()))
        }
        ([], []) => Ok(Rest::UntilClose),
        _ => Err(Error::Malformed("it does not say clearly where its body ends".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(head: &str) -> Result<Option<(Head, Body, usize)>, Error> {
        parse_head(head.as_bytes())
    }

    #[test]
    fn heads_are_read_when_they_are_whole() {
        assert!(parse("HTTP/1.1 200 OK\r\nContent-Len").unwrap().is_none());
        let whole = "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nX-A: b\r\n\r\n";
        let (head, body, length) = parse(&format!("{whole}abc")).unwrap().unwrap();
        assert_eq!((head.status, head.header("x-a"), head.keep_alive), (404, Some("b"), true));
        assert!(matches!(body.0, Rest::Length(3)) && length == whole.len());
        let (head, ..) = parse("HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n").unwrap().unwrap();
        assert!(!head.keep_alive);
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for bad in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "Content-Length: 3\r\nContent-Length: 4",
            "Content-Length: -3",
            "Content-Length: 99999999999999999999999",
            "Transfer-Encoding: gzip, chunked",
        ] {
            assert!(parse(&format!("HTTP/1.1 200 OK\r\n{bad}\r\n\r\n")).is_err(), "{bad}");
        }
        assert!(parse("SSH-2.0-OpenSSH\r\n\r\n").is_err());
    }

    #[test]
    fn chunk_sizes_are_hexadecimal_and_short() {
        assert_eq!(chunk_size(b"1aF;name=value").unwrap(), 0x1af);
        for bad in [&b""[..], b"-1", b"0x10", b"123456789", b"zz", b"\xff"] {
            assert!(chunk_size(bad).is_err(), "{bad:?}");
        }
    }
}
