//! The part of HTTP/1.1 that the socket speaks (RFC 9112): requests without bodies, kept alive and pipelined, so that
//! `curl --unix-socket` works and a reader of many secrets pays one round trip.
//!
//! It is strict: what it does not know ends the connection, since nobody in between needs to be tolerated.

/// Longest head.
pub(crate) const MOST_HEAD: usize = 8 * 1024;
const MOST_HEADERS: usize = 32;

/// One request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'b> {
    pub(crate) method: &'b str,
    pub(crate) path: &'b str,
    pub(crate) query: &'b str,
    /// Whether the connection goes on after the answer.
    pub(crate) keeps_alive: bool,
}

/// Why what came is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It is not HTTP/1.1, or is cut wrongly.
    Syntax,
    /// Its head is too long.
    TooLong,
    /// It has a body.
    Body,
}

/// The request at the start of `bytes` and its length; nothing if it is not whole yet.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Request<'_>, usize)>, Bad> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MOST_HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() < MOST_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Bad::TooLong),
        Err(_) => return Err(Bad::Syntax),
    };
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else { return Err(Bad::Syntax) };
    let mut keeps_alive = version == 1;
    for header in head.headers.iter() {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("transfer-encoding") || (header.name.eq_ignore_ascii_case("content-length") && value != b"0") {
            return Err(Bad::Body);
        }
        if header.name.eq_ignore_ascii_case("connection") {
            keeps_alive &= !value.eq_ignore_ascii_case(b"close");
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some((Request { method, path, query, keeps_alive }, length)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requests_are_taken_one_after_the_other() {
        let wire = b"GET /v1/secrets/a?all HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.0\r\n\r\n";
        let (first, length) = parse(wire).unwrap().unwrap();
        assert_eq!(first, Request { method: "GET", path: "/v1/secrets/a", query: "all", keeps_alive: true });
        let (second, rest) = parse(&wire[length..]).unwrap().unwrap();
        assert_eq!((second.path, second.keeps_alive, length + rest), ("/b", false, wire.len()));
        assert!(parse(&wire[..20]).unwrap().is_none());
    }

    #[test]
    fn bodies_nonsense_and_endless_heads_are_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MOST_HEAD));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(40));
        let table = [
            ("PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", Bad::Body),
            ("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", Bad::Body),
            ("GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello", Bad::Body),
            ("hello\r\n\r\n", Bad::Syntax),
            ("GET / HTTP/3\r\n\r\n", Bad::Syntax),
            (&long, Bad::TooLong),
            (&many, Bad::TooLong),
        ];
        for (wire, expected) in table {
            assert_eq!(parse(wire.as_bytes()).unwrap_err(), expected, "{wire:.60}");
        }
    }
}
