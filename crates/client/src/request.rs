//! One request as the client sends it, and the parts of its target.

use crate::buffer::Buffer;
use claviger_domain::{Approving, Revision};
use serde::Serialize;

/// One request.
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// Path and query, already encoded.
    pub(crate) target: String,
    pub(crate) body: Option<Buffer>,
    pub(crate) if_match: Option<String>,
    pub(crate) min_revision: Option<Revision>,
    /// Whether repeating it after it may have been carried out does no harm.
    pub(crate) repeatable: bool,
    pub(crate) accept: &'static str,
}

impl Request {
    /// A request without a body; only `GET` is repeatable.
    pub(crate) fn new(method: &'static str, target: impl Into<String>) -> Self {
        let repeatable = method == "GET";
        Self { method, target: target.into(), body: None, if_match: None, min_revision: None, repeatable, accept: "application/json" }
    }

    /// With `body` as JSON.
    pub(crate) fn json(mut self, body: &impl Serialize) -> Self {
        let mut buffer = Buffer::with_capacity(256);
        serde_json::to_writer(&mut buffer, body).expect("wire types are maps with string keys, and memory takes all bytes");
        self.body = Some(buffer);
        self
    }

    /// With the condition that the ETag still is this.
    pub(crate) fn if_match(mut self, etag: Option<&str>) -> Self {
        self.if_match = etag.map(str::to_owned);
        self
    }

    /// Answered only by a server that has seen `revision`.
    pub(crate) fn min_revision(mut self, revision: Option<Revision>) -> Self {
        self.min_revision = revision;
        self
    }

    /// Head and body on the wire. It carries the credential and perhaps a secret, so it is a wiping buffer.
    pub(crate) fn encode(&self, host: &str, authorization: Option<&str>, approving: &Approving) -> Buffer {
        let body = self.body.as_ref().map_or(&[][..], Buffer::bytes);
        let mut wire = Buffer::with_capacity(512 + self.target.len() + body.len());
        let mut put = |parts: &[&str]| parts.iter().for_each(|part| wire.push(part.as_bytes()));
        put(&[self.method, " ", &self.target, " HTTP/1.1\r\nHost: ", host, "\r\nAccept: ", self.accept, "\r\n"]);
        if let Some(value) = authorization {
            put(&["Authorization: ", value, "\r\n"]);
        }
        if let Some(etag) = &self.if_match {
            put(&["If-Match: \"", etag, "\"\r\n"]);
        }
        match approving {
            Approving::Plain => {}
            Approving::Ask(reason) => put(&["Claviger-Ask: ", reason, "\r\n"]),
            Approving::With(id) => put(&["Claviger-Approval: ", &id.to_string(), "\r\n"]),
        }
        if let Some(revision) = self.min_revision {
            put(&["Claviger-Min-Revision: ", &revision.to_string(), "\r\n"]);
        }
        if self.body.is_some() {
            put(&["Content-Type: application/json\r\nContent-Length: ", &body.len().to_string(), "\r\n"]);
        } else if self.method != "GET" {
            put(&["Content-Length: 0\r\n"]);
        }
        put(&["\r\n"]);
        wire.push(body);
        wire
    }
}

/// A target that grows parameter by parameter.
pub(crate) struct Target {
    text: String,
    separator: char,
}

impl Target {
    pub(crate) fn new(path: impl Into<String>) -> Self {
        Self { text: path.into(), separator: '?' }
    }

    /// A target that has a query already.
    pub(crate) fn going_on(target: impl Into<String>) -> Self {
        Self { text: target.into(), separator: '&' }
    }

    /// Adds a parameter.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.text.push(self.separator);
        self.separator = '&';
        self.text.push_str(name);
        self.text.push('=');
        push_encoded(value, &mut self.text);
        self
    }

    /// Adds a parameter if there is a value.
    pub(crate) fn with_some(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds the parameter once for each value.
    pub(crate) fn with_each<S: AsRef<str>>(self, name: &str, values: &[S]) -> Self {
        values.iter().fold(self, |target, value| target.with(name, value.as_ref()))
    }

    pub(crate) fn build(self) -> String {
        self.text
    }
}

/// RFC 3986 §2.3: everything but unreserved characters is encoded; `/` and `:` may stand in a query as they are.
pub(crate) fn push_encoded(value: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => out.push(char::from(byte)),
            _ => out.extend(['%', char::from(HEX[usize::from(byte >> 4)]), char::from(HEX[usize::from(byte & 15)])]),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parameters_are_encoded() {
        let target = Target::new("/api/v1/keys").with("prefix", "a/b:").with("label", "x=ü &").with_some("cursor", None).build();
        assert_eq!(target, "/api/v1/keys?prefix=a/b:&label=x%3D%C3%BC%20%26");
    }

    #[test]
    fn a_request_has_what_it_needs_and_nothing_else() {
        let request = Request::new("PUT", "/x").json(&["v"]).if_match(Some("00-1")).min_revision(Revision::parse("1.7"));
        let with = Approving::With(claviger_domain::ApprovalId(7));
        let wire = String::from_utf8(request.encode("h:1", Some("Bearer t"), &with).bytes().to_vec()).unwrap();
        assert_eq!(
            wire,
            "PUT /x HTTP/1.1\r\nHost: h:1\r\nAccept: application/json\r\nAuthorization: Bearer t\r\nIf-Match: \"00-1\"\r\n\
             Claviger-Approval: 0000000000000007\r\nClaviger-Min-Revision: 1.7\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n[\"v\"]"
        );
        let get = |approving| String::from_utf8(Request::new("GET", "/y").encode("h:1", None, &approving).bytes().to_vec()).unwrap();
        assert_eq!(get(Approving::Plain), "GET /y HTTP/1.1\r\nHost: h:1\r\nAccept: application/json\r\n\r\n");
        let asked = "GET /y HTTP/1.1\r\nHost: h:1\r\nAccept: application/json\r\nClaviger-Ask: why\r\n\r\n";
        assert_eq!(get(Approving::Ask("why".into())), asked);
        assert!(Request::new("GET", "/y").repeatable && !Request::new("DELETE", "/y").repeatable);
    }
}
