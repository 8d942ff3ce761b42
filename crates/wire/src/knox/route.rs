//! From a request target to a route (§1, routing), as Go's HTTP server and Knox's router decide it together.
//!
//! The path is percent-decoded first; cleaning and matching both work on the decoded path. Nothing is authenticated
//! here: the caller of [`route`] must still authenticate everything but [`Routed::BadTarget`],
//! [`Routed::ServerOptions`], [`Routed::Redirect`] and [`Routed::MethodNotAllowed`], which the reference answers
//! without looking at the caller.

use std::borrow::Cow;
use std::ops::Range;

use super::url::{Origin, Plus, Url, percent_decode};

/// Every route lies below this.
const PREFIX: &[u8] = b"/v0/keys/";

/// Where a request goes. Keys and versions are decoded path segments: any bytes but a slash, not yet validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routed<'a> {
    /// The target is no URL: plain-text `400 Bad Request`, connection closed, before any routing.
    BadTarget,
    /// `OPTIONS *`: an empty 200 from the HTTP server itself.
    ServerOptions,
    /// The path has `//`, `.` or `..`: 301, no body, no authentication, no audit line.
    Redirect {
        /// Value of the `Location` header: cleaned path, query as it was sent. Printable bytes, never a line break.
        location: Vec<u8>,
    },
    /// A known path with another method: bare 405, empty body.
    MethodNotAllowed,
    /// After authentication: 404, code 8, empty message.
    NotFound,
    /// `GET /v0/keys/`: list or poll.
    List,
    /// `POST /v0/keys/`.
    Create,
    /// `GET /v0/keys/{key}/`.
    Read {
        /// The key id asked for.
        key: Cow<'a, [u8]>,
    },
    /// `DELETE /v0/keys/{key}/`.
    Delete {
        /// The key id asked for.
        key: Cow<'a, [u8]>,
    },
    /// `GET /v0/keys/{key}/access/`.
    Acl {
        /// The key id asked for.
        key: Cow<'a, [u8]>,
    },
    /// `PUT /v0/keys/{key}/access/`.
    PutAccess {
        /// The key id asked for.
        key: Cow<'a, [u8]>,
    },
    /// `POST /v0/keys/{key}/versions/`.
    AddVersion {
        /// The key id asked for.
        key: Cow<'a, [u8]>,
    },
    /// `PUT /v0/keys/{key}/versions/{version}/`.
    UpdateVersion {
        /// The key id asked for.
        key: Cow<'a, [u8]>,
        /// The version id asked for, still to go through [`super::number::parse_uint`].
        version: Cow<'a, [u8]>,
    },
}

/// Splits a raw request target at its first question mark, into path and query as [`route`] wants them.
#[must_use]
pub fn split_target(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

/// Routes a request by its method and target as they stand in the request line.
///
/// `path` is the raw target up to its first `?` (so for the absolute form it includes scheme and host), `query` what
/// follows it, `None` when there is no question mark.
#[must_use]
pub fn route<'a>(method: &str, path: &'a [u8], query: Option<&[u8]>) -> Routed<'a> {
    // A raw space can not occur in a request line's target; Go would read a bad protocol version behind it.
    let is_bad = |byte: &u8| byte.is_ascii_control() || *byte == b' ';
    if path.iter().any(is_bad) || query.unwrap_or_default().iter().any(is_bad) {
        return Routed::BadTarget;
    }
    if path == b"*" && query.is_none() && method == "OPTIONS" {
        return Routed::ServerOptions;
    }
    if path.starts_with(b"/") {
        return route_origin_form(method, path, query);
    }
    route_other_form(method, path, query)
}

/// The decoded path that a routed request has in the audit log. `None` for targets that [`route`] calls bad.
#[must_use]
pub fn decoded_path<'a>(method: &str, path: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    if path.starts_with(b"/") {
        return percent_decode(path, Plus::Literal);
    }
    parse_other_form(method, path, None, |url| Cow::Owned(url.path.clone().into_owned()))
}

/// The path to which [`route`] would redirect a raw path; `None` where it is clean, or does not decode.
#[must_use]
pub fn redirected(path: &[u8]) -> Option<Vec<u8>> {
    cleaned(&percent_decode(path, Plus::Literal)?)
}

/// `/path?query`: nearly every request.
fn route_origin_form<'a>(method: &str, path: &'a [u8], query: Option<&[u8]>) -> Routed<'a> {
    let Some(path) = percent_decode(path, Plus::Literal) else {
        return Routed::BadTarget;
    };
    match cleaned(&path) {
        Some(clean) => Routed::Redirect { location: Url { query, ..Url::default() }.with_path(&clean) },
        None => match_path(method, path),
    }
}

/// `http://host/path`, CONNECT's `host:port`, and `*`.
fn route_other_form<'a>(method: &str, path: &[u8], query: Option<&[u8]>) -> Routed<'a> {
    let routed = parse_other_form(method, path, query, |url| match cleaned(&url.path) {
        Some(clean) => Routed::Redirect { location: url.with_path(&clean) },
        None => match_path(method, Cow::Owned(url.path.clone().into_owned())),
    });
    routed.unwrap_or(Routed::BadTarget)
}

fn parse_other_form<T>(method: &str, path: &[u8], query: Option<&[u8]>, then: impl FnOnce(&Url<'_>) -> T) -> Option<T> {
    let is_authority = method == "CONNECT";
    let mut target = if is_authority { b"http://".to_vec() } else { Vec::new() };
    target.extend_from_slice(path);
    if let Some(query) = query {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    let mut url = Url::parse(&target, Origin::Request)?;
    if is_authority {
        url.scheme.clear();
    }
    Some(then(&url))
}

/// The path that `path` should have been: rooted, without empty, `.` and `..` segments, with its trailing slash if it
/// had one. `None` when it is clean already.
fn cleaned(path: &[u8]) -> Option<Vec<u8>> {
    if is_clean(path) {
        return None;
    }
    let mut clean = Vec::with_capacity(path.len() + 2);
    for segment in path.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => clean.truncate(clean.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
            _ => {
                clean.push(b'/');
                clean.extend_from_slice(segment);
            }
        }
    }
    if path.ends_with(b"/") || clean.is_empty() {
        clean.push(b'/');
    }
    Some(clean)
}

fn is_clean(path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(b"/") else {
        return false;
    };
    if rest.is_empty() {
        return true;
    }
    let rest = rest.strip_suffix(b"/").unwrap_or(rest);
    rest.split(|byte| *byte == b'/').all(|segment| !matches!(segment, b"" | b"." | b".."))
}

/// What a path names, its variable segments as ranges: a decoded path is owned, so they must be cut out of it.
enum Place {
    Keys,
    Key(Range<usize>),
    Access(Range<usize>),
    Versions(Range<usize>),
    Version(Range<usize>, Range<usize>),
}

impl Place {
    /// Finds the place of a clean, decoded path; `None` for a path that has no route.
    fn of(path: &[u8]) -> Option<Self> {
        let rest = path.strip_prefix(PREFIX)?;
        if rest.is_empty() {
            return Some(Self::Keys);
        }
        let mut segments = rest.strip_suffix(b"/")?.split(|byte| *byte == b'/');
        let key = PREFIX.len()..PREFIX.len() + segments.next()?.len();
        match (segments.next(), segments.next(), segments.next()) {
            (None, ..) => Some(Self::Key(key)),
            (Some(b"access"), None, _) => Some(Self::Access(key)),
            (Some(b"versions"), None, _) => Some(Self::Versions(key)),
            (Some(b"versions"), Some(version), None) => {
                let end = path.len() - 1;
                Some(Self::Version(key, end - version.len()..end))
            }
            _ => None,
        }
    }
}

/// Matches a clean, decoded path and a method.
fn match_path<'a>(method: &str, path: Cow<'a, [u8]>) -> Routed<'a> {
    let Some(place) = Place::of(&path) else {
        return Routed::NotFound;
    };
    match (method, place) {
        ("GET", Place::Keys) => Routed::List,
        ("POST", Place::Keys) => Routed::Create,
        ("GET", Place::Key(key)) => Routed::Read { key: slice(path, key) },
        ("DELETE", Place::Key(key)) => Routed::Delete { key: slice(path, key) },
        ("GET", Place::Access(key)) => Routed::Acl { key: slice(path, key) },
        ("PUT", Place::Access(key)) => Routed::PutAccess { key: slice(path, key) },
        ("POST", Place::Versions(key)) => Routed::AddVersion { key: slice(path, key) },
        ("PUT", Place::Version(key, version)) => Routed::UpdateVersion { version: slice(path.clone(), version), key: slice(path, key) },
        _ => Routed::MethodNotAllowed,
    }
}

fn slice(path: Cow<'_, [u8]>, range: Range<usize>) -> Cow<'_, [u8]> {
    match path {
        Cow::Borrowed(path) => Cow::Borrowed(&path[range]),
        Cow::Owned(path) => Cow::Owned(path[range].to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed<'a>(method: &str, target: &'a str) -> Routed<'a> {
        let (path, query) = split_target(target.as_bytes());
        route(method, path, query)
    }

    fn redirect(location: &str) -> Routed<'static> {
        Routed::Redirect { location: location.as_bytes().to_vec() }
    }

    #[test]
    fn every_route_is_found() {
        let key = || Cow::Borrowed(&b"K"[..]);
        assert_eq!(routed("GET", "/v0/keys/?a=b"), Routed::List);
        assert_eq!(routed("POST", "/v0/keys/"), Routed::Create);
        assert_eq!(routed("GET", "/v0/keys/K/?status=\"Inactive\""), Routed::Read { key: key() });
        assert_eq!(routed("DELETE", "/v0/keys/K/"), Routed::Delete { key: key() });
        assert_eq!(routed("GET", "/v0/keys/K/access/"), Routed::Acl { key: key() });
        assert_eq!(routed("PUT", "/v0/keys/K%2Faccess/"), Routed::PutAccess { key: key() });
        assert_eq!(routed("POST", "/v0/keys/K/versions/"), Routed::AddVersion { key: key() });
        let version = Cow::Borrowed(&b"7"[..]);
        assert_eq!(routed("PUT", "/v0/keys/K/versions/7/"), Routed::UpdateVersion { key: key(), version });
        assert_eq!(routed("GET", "/v0/keys/a%20b/"), Routed::Read { key: Cow::Borrowed(b"a b") });
    }

    #[test]
    fn the_trailing_slash_is_mandatory() {
        for target in ["/v0/keys", "/v0/keys/K", "/v0/keys/K/access", "/v0/keys/K/versions/7", "/v0/", "/"] {
            assert_eq!(routed("GET", target), Routed::NotFound, "{target}");
        }
        assert_eq!(routed("GET", "/v0/keys/K/other/"), Routed::NotFound);
        assert_eq!(routed("PUT", "/v0/keys/K/access/7/"), Routed::NotFound);
        assert_eq!(routed("PUT", "/v0/keys/K/versions/7/8/"), Routed::NotFound);
    }

    #[test]
    fn a_known_path_with_another_method_is_a_bare_405() {
        for method in ["HEAD", "OPTIONS", "PATCH", "get", ""] {
            for target in ["/v0/keys/", "/v0/keys/K/", "/v0/keys/K/access/", "/v0/keys/K/versions/7/"] {
                assert_eq!(routed(method, target), Routed::MethodNotAllowed, "{method} {target}");
            }
        }
        assert_eq!(routed("PUT", "/v0/keys/K/versions/"), Routed::MethodNotAllowed);
        assert_eq!(routed("GET", "/v0/keys/access/"), Routed::Read { key: Cow::Borrowed(b"access") });
    }

    #[test]
    fn dirty_paths_are_redirected_with_their_query() {
        assert_eq!(routed("GET", "/v0//keys/"), redirect("/v0/keys/"));
        assert_eq!(routed("GET", "/v0/keys/a%2F%2Fb/?status=\"x\""), redirect("/v0/keys/a/b/?status=\"x\""));
        assert_eq!(routed("PATCH", "/v0/keys/%2e%2e/x?"), redirect("/v0/x?"));
        assert_eq!(routed("GET", "/v0/keys/a%20b/./"), redirect("/v0/keys/a%20b/"));
        assert_eq!(routed("GET", "/../.."), redirect("/"));
    }

    #[test]
    fn other_forms_of_target_are_handled_as_go_does() {
        assert_eq!(routed("OPTIONS", "*"), Routed::ServerOptions);
        assert_eq!(routed("GET", "*"), redirect("/%2A"));
        assert_eq!(routed("GET", "http://h/v0/keys/"), Routed::List);
        assert_eq!(routed("GET", "HTTP://u:p@h:1/a//b?q"), redirect("http://u:p@h:1/a/b?q"));
        assert_eq!(routed("CONNECT", "h:443"), redirect("//h:443/"));
        for target in ["", "v0/keys/", "/v0/keys/%zz/", "/v0/keys/%4", "/a b", "/a\n", "/x?\x7f", "http://[::1/", ":x"] {
            assert_eq!(routed("GET", target), Routed::BadTarget, "{target:?}");
        }
    }
}
