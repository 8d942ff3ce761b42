//! Knox's own audit log line (§8), for sites whose tools read it. Ours is another record; this one is derived.
//!
//! The form alone is here: what is logged and when is decided elsewhere. A parameter named `data` is always replaced,
//! so no caller can put a secret into a line by mistake.

use super::base64::encode_standard;
use super::envelope::{Code, write_separated, write_u64};
use super::json::write_string;
use claviger_domain::{Civil, Timestamp};

/// One line. Borrowed text may be any bytes; it is escaped as in answers.
#[derive(Debug, Clone)]
pub struct AuditLine<'a> {
    /// Twenty random alphanumeric characters.
    pub id: &'a str,
    /// When the line is written, nanoseconds since 1970.
    pub timestamp: i64,
    /// Name of the service; left out when empty.
    pub service: &'a str,
    /// Host name; left out when empty.
    pub host: &'a str,
    /// Version of the server; left out when empty.
    pub version: &'a str,
    /// The answer's code; the HTTP status is the one that belongs to it.
    pub code: Code,
    /// What was asked.
    pub request: Request<'a>,
    /// The answer's message, empty on success.
    pub message: &'a [u8],
    /// `User-Agent` header; an empty one is logged as `unknown`.
    pub user_agent: &'a [u8],
}

/// The `request` member.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Method as sent.
    pub method: &'a str,
    /// Decoded path.
    pub path: &'a [u8],
    /// Declared fields that were found, in any order; `None` for a path that has no route.
    pub parameters: Option<&'a [(&'a str, &'a [u8])]>,
    /// Pairs of the list route, in any order, names unique; `None` for every other route.
    pub parsed_query: Option<&'a [(&'a [u8], &'a [u8])]>,
    /// Id of the default principal, empty when unauthenticated.
    pub principal: &'a str,
    /// Ids of all collected principals; `None` when unauthenticated.
    pub fallback_principals: Option<&'a [&'a str]>,
    /// As [`auth_type`] makes it, empty when unauthenticated.
    pub auth_type: &'a str,
    /// Peer address.
    pub remote_addr: &'a str,
    /// What TLS says; all zero values without TLS.
    pub tls: Tls<'a>,
}

/// The TLS members of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tls<'a> {
    /// SNI.
    pub server: &'a str,
    /// Number of the cipher suite.
    pub cipher: u16,
    /// Number of the protocol version.
    pub version: u16,
    /// Whether the session was resumed.
    pub resumed: bool,
    /// `tls-unique` of TLS 1.2; `None` on 1.3.
    pub unique: Option<&'a [u8]>,
}

/// The `auth_type` of a caller from its (provider, kind) pairs: the kind (`user`, `machine`, `service`) alone, or
/// `mux[provider=>kind,…]` when there are several.
#[must_use]
pub fn auth_type(principals: &[(&str, &str)]) -> String {
    match principals {
        [] => String::new(),
        [(_, kind)] => (*kind).to_owned(),
        several => {
            let parts: Vec<_> = several.iter().map(|(provider, kind)| format!("{provider}=>{kind}")).collect();
            format!("mux[{}]", parts.join(","))
        }
    }
}

impl AuditLine<'_> {
    /// Appends the line with its final newline.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        write_string(out, self.id.as_bytes());
        out.extend_from_slice(b",\"@timestamp\":\"");
        out.extend_from_slice(rfc3339_nanos(self.timestamp).as_bytes());
        out.push(b'"');
        for (name, value) in [("service", self.service), ("host", self.host), ("version", self.version)] {
            if !value.is_empty() {
                member(out, name, value.as_bytes());
            }
        }
        out.extend_from_slice(b",\"payload\":{\"type\":\"access\"");
        number(out, "code", u64::from(self.code.number()));
        number(out, "status_code", u64::from(self.code.http_status()));
        out.extend_from_slice(b",\"request\":");
        self.request.write(out);
        member(out, "msg", self.message);
        let agent = if self.user_agent.is_empty() { b"unknown" } else { self.user_agent };
        member(out, "userAgent", agent);
        out.extend_from_slice(b"},\"payload_encoding\":\"JSON\"}\n");
    }
}

impl Request<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"method\":");
        write_string(out, self.method.as_bytes());
        member(out, "path", self.path);
        name(out, "parameters");
        let parameters = self.parameters.map(|pairs| pairs.iter().map(|(name, value)| (name.as_bytes(), scrubbed(name, value))));
        write_map(out, parameters);
        name(out, "parsed_query_string");
        write_map(out, self.parsed_query.map(|pairs| pairs.iter().copied()));
        member(out, "principal", self.principal.as_bytes());
        name(out, "fallback_principals");
        match self.fallback_principals {
            None => out.extend_from_slice(b"null"),
            Some(ids) => {
                out.push(b'[');
                write_separated(out, ids, |out, id| write_string(out, id.as_bytes()));
                out.push(b']');
            }
        }
        member(out, "auth_type", self.auth_type.as_bytes());
        member(out, "request_uri", b"");
        member(out, "remote_addr", self.remote_addr.as_bytes());
        self.tls.write(out);
        out.push(b'}');
    }
}

impl Tls<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        member(out, "tls_server", self.server.as_bytes());
        number(out, "tls_cipher", u64::from(self.cipher));
        number(out, "tls_version", u64::from(self.version));
        name(out, "tls_resumed");
        out.extend_from_slice(if self.resumed { b"true" } else { b"false" });
        name(out, "tls_session_id");
        match self.unique {
            None => out.extend_from_slice(b"null"),
            Some(unique) => {
                out.push(b'"');
                encode_standard(out, unique);
                out.push(b'"');
            }
        }
    }
}

fn scrubbed<'v>(name: &str, value: &'v [u8]) -> &'v [u8] {
    if name == "data" { b"<DATA>" } else { value }
}

/// `,"name":`
fn name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn member(out: &mut Vec<u8>, label: &str, value: &[u8]) {
    name(out, label);
    write_string(out, value);
}

fn number(out: &mut Vec<u8>, label: &str, value: u64) {
    name(out, label);
    write_u64(out, value);
}

/// An object with its names sorted, as Go writes a map; `null` for none.
fn write_map<'m>(out: &mut Vec<u8>, pairs: Option<impl Iterator<Item = (&'m [u8], &'m [u8])>>) {
    let Some(pairs) = pairs else {
        out.extend_from_slice(b"null");
        return;
    };
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_unstable_by_key(|(name, _)| *name);
    out.push(b'{');
    write_separated(out, pairs, |out, (name, value)| {
        write_string(out, name);
        out.push(b':');
        write_string(out, value);
    });
    out.push(b'}');
}

/// RFC 3339 in UTC with as many digits of the second's fraction as it has, none if it has none.
fn rfc3339_nanos(timestamp: i64) -> String {
    let Civil { year, month, day, hour, minute, second, nanos } = Timestamp(timestamp).civil();
    let fraction = format!(".{nanos:09}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn line<'a>() -> AuditLine<'a> {
        AuditLine {
            id: "AbCdEfGhIjKlMnOpQrSt",
            timestamp: 1_500_000_000_120_000_000,
            service: "",
            host: "vm",
            version: "",
            code: Code::Ok,
            request: Request {
                method: "POST",
                path: b"/v0/keys/",
                parameters: Some(&[("id", b"k:1"), ("data", b"c2VjcmV0"), ("acl", b"[]")]),
                parsed_query: None,
                principal: "alice",
                fallback_principals: Some(&["alice"]),
                auth_type: "user",
                remote_addr: "127.0.0.1:5",
                tls: Tls { server: "knox", cipher: 4865, version: 772, resumed: false, unique: None },
            },
            message: b"",
            user_agent: b"",
        }
    }

    fn written(line: &AuditLine<'_>) -> String {
        let mut out = Vec::new();
        line.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_has_the_members_of_the_contract_and_never_the_data() {
        let expected = concat!(
            r#"{"id":"AbCdEfGhIjKlMnOpQrSt","@timestamp":"2017-07-14T02:40:00.12Z","host":"vm","payload":{"type":"access","#,
            r#""code":0,"status_code":200,"request":{"method":"POST","path":"/v0/keys/","#,
            r#""parameters":{"acl":"[]","data":"\u003cDATA\u003e","id":"k:1"},"parsed_query_string":null,"#,
            r#""principal":"alice","fallback_principals":["alice"],"auth_type":"user","request_uri":"","#,
            r#""remote_addr":"127.0.0.1:5","tls_server":"knox","tls_cipher":4865,"tls_version":772,"tls_resumed":false,"#,
            r#""tls_session_id":null},"msg":"","userAgent":"unknown"},"payload_encoding":"JSON"}"#,
            "\n"
        );
        assert_eq!(written(&line()), expected);
    }

    #[test]
    fn an_unauthenticated_request_without_a_route_has_nulls() {
        let mut line = line();
        line.code = Code::RouteNotFound;
        line.request.parameters = None;
        line.request.parsed_query = Some(&[(b"b", b"2"), (b"a", b"1")]);
        line.request.fallback_principals = None;
        line.request.tls.unique = Some(&[1, 2, 3]);
        let shown = written(&line);
        for part in [
            "\"code\":8,\"status_code\":404",
            "\"parameters\":null,\"parsed_query_string\":{\"a\":\"1\",\"b\":\"2\"}",
            "\"fallback_principals\":null",
            "\"tls_session_id\":\"AQID\"",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }

    #[test]
    fn several_principals_are_a_mux() {
        assert_eq!(auth_type(&[]), "");
        assert_eq!(auth_type(&[("github", "user")]), "user");
        let two = [("mtls", "machine"), ("spiffe-fallback", "service")];
        assert_eq!(auth_type(&two), "mux[mtls=>machine,spiffe-fallback=>service]");
    }

    #[test]
    fn times_are_written_as_go_writes_them() {
        assert_eq!(rfc3339_nanos(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339_nanos(-1), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(rfc3339_nanos(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339_nanos(1_795_345_065_947_974_117), "2026-11-22T10:57:45.947974117Z");
    }
}
