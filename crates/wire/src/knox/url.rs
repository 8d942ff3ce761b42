//! The parts of Go's `net/url` that Knox's behaviour rests on: percent-decoding, parsing, and writing a URL back.
//!
//! Used for request targets (redirects must name the same place Go names) and for SPIFFE ids in ACLs. Fragments are
//! checked but not kept; Go's error texts are not reproduced, because no client of Knox ever sees them.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// A parsed URL, decoded where Go decodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Url<'a> {
    /// Lower-cased; empty when there is none.
    pub(super) scheme: String,
    /// What follows `scheme:` when that is no path.
    pub(super) opaque: &'a [u8],
    /// User name and password, decoded.
    pub(super) user: Option<(Vec<u8>, Option<Vec<u8>>)>,
    /// `host[:port]`, decoded.
    pub(super) host: Vec<u8>,
    /// Decoded.
    pub(super) path: Cow<'a, [u8]>,
    /// The URL has a path but no `//`: the empty host is not written back.
    pub(super) omit_host: bool,
    /// As sent; `None` without a question mark.
    pub(super) query: Option<&'a [u8]>,
}

/// Whether a URL is what a client sent as a request target, or any reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A request target: an absolute URL or an absolute path.
    Request,
    /// Anything that `url.Parse` takes, fragments included.
    Reference,
}

impl<'a> Url<'a> {
    /// Parses as Go does; `None` where Go reports an error.
    pub(super) fn parse(raw: &'a [u8], origin: Origin) -> Option<Self> {
        let (raw, fragment) = match origin {
            Origin::Reference => cut(raw, b'#'),
            Origin::Request => (raw, None),
        };
        percent_decode(fragment.unwrap_or_default(), Plus::Literal)?;
        if raw.iter().any(u8::is_ascii_control) || (raw.is_empty() && origin == Origin::Request) {
            return None;
        }
        if raw == b"*" {
            return Some(Self { path: Cow::Borrowed(raw), ..Self::default() });
        }
        let (scheme, rest) = split_scheme(raw)?;
        let (rest, query) = cut(rest, b'?');
        Self { scheme, query, ..Self::default() }.with_hierarchy(rest, origin)
    }

    /// Fills in what stands between scheme and query.
    fn with_hierarchy(mut self, mut rest: &'a [u8], origin: Origin) -> Option<Self> {
        let has_scheme = !self.scheme.is_empty();
        if !rest.starts_with(b"/") {
            if has_scheme {
                self.opaque = rest;
                return Some(self);
            }
            let first_segment = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
            if origin == Origin::Request || first_segment.contains(&b':') {
                return None;
            }
        }
        let may_have_authority = has_scheme || (origin == Origin::Reference && !rest.starts_with(b"///"));
        if may_have_authority && rest.starts_with(b"//") {
            let end = rest[2..].iter().position(|byte| *byte == b'/').map_or(rest.len(), |at| at + 2);
            self.set_authority(&rest[2..end])?;
            rest = &rest[end..];
        } else if has_scheme {
            self.omit_host = true;
        }
        self.path = percent_decode(rest, Plus::Literal)?;
        Some(self)
    }

    fn set_authority(&mut self, authority: &[u8]) -> Option<()> {
        let (user, host) = match authority.iter().rposition(|byte| *byte == b'@') {
            Some(at) => (Some(&authority[..at]), &authority[at + 1..]),
            None => (None, authority),
        };
        self.host = parse_host(&self.scheme, host)?;
        if let Some(user) = user {
            self.user = Some(parse_user(user)?);
        }
        Some(())
    }

    /// Writes the URL back with another path, percent-encoded as Go encodes it; the query as it was sent.
    pub(super) fn with_path(&self, path: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(path.len() + self.host.len() + self.query.map_or(0, <[u8]>::len) + 16);
        if !self.scheme.is_empty() {
            out.extend_from_slice(self.scheme.as_bytes());
            out.push(b':');
        }
        if self.opaque.is_empty() {
            self.write_authority(&mut out, path);
            percent_encode(&mut out, path, keeps_in_path);
        } else {
            out.extend_from_slice(self.opaque);
        }
        if let Some(query) = self.query {
            out.push(b'?');
            out.extend_from_slice(query);
        }
        out
    }

    fn write_authority(&self, out: &mut Vec<u8>, path: &[u8]) {
        let has_authority = !self.host.is_empty() || self.user.is_some();
        if (self.scheme.is_empty() || self.omit_host) && !has_authority {
            return;
        }
        if has_authority || !path.is_empty() {
            out.extend_from_slice(b"//");
        }
        if let Some((name, password)) = &self.user {
            percent_encode(out, name, keeps_in_user);
            if let Some(password) = password {
                out.push(b':');
                percent_encode(out, password, keeps_in_user);
            }
            out.push(b'@');
        }
        percent_encode(out, &self.host, keeps_in_host);
    }
}

/// What a plus sign stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plus {
    /// Itself, as in paths.
    Literal,
    /// A space, as in forms and queries.
    Space,
}

/// Percent-decodes, borrowing when there is nothing to decode. `None` for a percent sign without two hexadecimal
/// digits.
pub(super) fn percent_decode(raw: &[u8], plus: Plus) -> Option<Cow<'_, [u8]>> {
    let first = match plus {
        Plus::Literal => memchr::memchr(b'%', raw),
        Plus::Space => memchr::memchr2(b'%', b'+', raw),
    };
    let Some(first) = first else {
        return Some(Cow::Borrowed(raw));
    };
    let mut out = Vec::with_capacity(raw.len());
    out.extend_from_slice(&raw[..first]);
    let mut rest = &raw[first..];
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'%' => {
                let [high, low, after @ ..] = rest else { return None };
                out.push(hex(*high)? << 4 | hex(*low)?);
                rest = after;
            }
            b'+' if plus == Plus::Space => out.push(b' '),
            _ => out.push(*byte),
        }
    }
    Some(Cow::Owned(out))
}

fn percent_encode(out: &mut Vec<u8>, raw: &[u8], keeps: fn(u8) -> bool) {
    for byte in raw {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(byte) || keeps(*byte) {
            out.push(*byte);
        } else {
            let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 0xf)]);
        }
    }
}

fn keeps_in_path(byte: u8) -> bool {
    b"$&+,/:;=@".contains(&byte)
}

fn keeps_in_user(byte: u8) -> bool {
    b"$&+,;=".contains(&byte)
}

fn keeps_in_host(byte: u8) -> bool {
    b"!$&'()*+,;=:[]<>\"".contains(&byte)
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn cut(raw: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(separator, raw) {
        Some(at) => (&raw[..at], Some(&raw[at + 1..])),
        None => (raw, None),
    }
}

/// Splits `scheme:rest`; without a valid scheme everything is rest. `None` when a colon comes first.
fn split_scheme(raw: &[u8]) -> Option<(String, &[u8])> {
    let end = raw.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"+-.".contains(byte)));
    match end {
        Some(0) if raw[0] == b':' => None,
        Some(end) if raw[end] == b':' && raw[0].is_ascii_alphabetic() => {
            let scheme = raw[..end].iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect();
            Some((scheme, &raw[end + 1..]))
        }
        _ => Some((String::new(), raw)),
    }
}

fn parse_user(raw: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let is_valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(byte);
    if !raw.iter().all(is_valid) {
        return None;
    }
    let (name, password) = cut(raw, b':');
    let name = percent_decode(name, Plus::Literal)?.into_owned();
    let password = match password {
        Some(password) => Some(percent_decode(password, Plus::Literal)?.into_owned()),
        None => None,
    };
    Some((name, password))
}

/// `host[:port]`, decoded. Brackets hold an IPv6 address, with or without a zone, and nothing else.
fn parse_host(scheme: &str, raw: &[u8]) -> Option<Vec<u8>> {
    match raw.iter().rposition(|byte| *byte == b'[') {
        Some(0) => return parse_bracketed_host(raw),
        Some(_) => return None,
        None => {}
    }
    // Go insists on a single colon only for http and https.
    let is_web = matches!(scheme, "http" | "https");
    let is_colon = |byte: &u8| *byte == b':';
    let port = if is_web { raw.iter().position(is_colon) } else { raw.iter().rposition(is_colon) };
    if port.is_some_and(|at| !is_optional_port(&raw[at..])) {
        return None;
    }
    decode_host(raw, Escapes::NonAscii)
}

fn parse_bracketed_host(raw: &[u8]) -> Option<Vec<u8>> {
    let end = raw.iter().rposition(|byte| *byte == b']')?;
    let port = &raw[end + 1..];
    if !is_optional_port(port) {
        return None;
    }
    let inner = &raw[1..end];
    let name = match memchr::memmem::find(inner, b"%25") {
        Some(zone) => {
            let mut name = decode_host(&inner[..zone], Escapes::NonAscii)?;
            name.extend(decode_host(&inner[zone..], Escapes::HostBytes)?);
            name
        }
        None => decode_host(inner, Escapes::NonAscii)?,
    };
    is_ipv6(&name).then(|| [b"[", name.as_slice(), b"]", port].concat())
}

fn is_ipv6(name: &[u8]) -> bool {
    let (address, zone) = cut(name, b'%');
    let is_address = std::str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
    is_address && zone.is_none_or(|zone| !zone.is_empty())
}

fn is_optional_port(raw: &[u8]) -> bool {
    match raw {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// What may be percent-encoded in a host, besides the percent sign itself.
#[derive(Clone, Copy, PartialEq)]
enum Escapes {
    /// Bytes above ASCII (a host).
    NonAscii,
    /// Bytes that a host may hold anyhow, and the space (a zone).
    HostBytes,
}

fn decode_host(raw: &[u8], escapes: Escapes) -> Option<Vec<u8>> {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || keeps_in_host(byte);
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            if byte.is_ascii() && !may_stand(*byte) {
                return None;
            }
            out.push(*byte);
            continue;
        }
        let [high, low, after @ ..] = rest else { return None };
        let decoded = hex(*high)? << 4 | hex(*low)?;
        let allowed = match escapes {
            Escapes::NonAscii => !decoded.is_ascii(),
            Escapes::HostBytes => decoded == b' ' || may_stand(decoded),
        };
        if !allowed && decoded != b'%' {
            return None;
        }
        out.push(decoded);
        rest = after;
    }
    Some(out)
}
