//! Requests, read strictly: what has two meanings, or none, is refused with the name of the part that is wrong.
//!
//! Nothing here knows a route's meaning; no error repeats a value, only names and places.

use super::routes::Param;
use crate::http::{Head, Headers};
use claviger_domain::{Generation, Incarnation, Revision, SecretBytes, VersionId};
use claviger_engine::Precondition;
use claviger_wire::native::{FieldError, decode_base64};
use serde::Deserialize;
use smallvec::SmallVec;
use std::borrow::Cow;

type Checked<T> = Result<T, FieldError>;

fn bad<T>(field: &str, rule: impl ToString) -> Checked<T> {
    Err(FieldError::new(field, rule))
}

/// A request's path, decoded. It has no empty segments, no `.` and `..`, no control characters; and no escaped slash, so
/// that its segments are those that everybody on the way saw.
pub(crate) fn path(head: &Head) -> Checked<Cow<'_, str>> {
    let raw = &*head.path;
    let plain = !raw.contains(&b'%');
    let path = match plain {
        true => Cow::Borrowed(std::str::from_utf8(raw).or(bad("path", "must be UTF-8"))?),
        false => Cow::Owned(decode(raw, "path", b"/\\")?),
    };
    let Some(rest) = path.strip_prefix('/') else { return bad("path", "must start with `/`") };
    if rest.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return bad("path", "may not have empty segments, `.` or `..`, nor end with `/`");
    }
    if path.chars().any(char::is_control) {
        return bad("path", "may not contain control characters");
    }
    Ok(path)
}

/// Resolves percent escapes (RFC 3986 §2.1). Escapes of NUL and of the bytes in `never` are refused.
fn decode(raw: &[u8], field: &str, never: &[u8]) -> Checked<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digit = |i: usize| rest.get(i).and_then(|b| char::from(*b).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else { return bad(field, "`%` must be followed by two hexadecimal digits") };
        let byte = (high * 16 + low) as u8;
        if byte == 0 || never.contains(&byte) {
            return bad(field, "may not contain an escaped NUL, slash or backslash");
        }
        bytes.push(byte);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).or(bad(field, "must be UTF-8"))
}

/// A request's query, by the parameters that its route takes.
#[derive(Debug, Default)]
pub(crate) struct Query(SmallVec<[(&'static str, String); 2]>);

impl Query {
    pub(crate) fn parse(raw: Option<&[u8]>, params: &'static [Param]) -> Checked<Self> {
        let mut query = Self::default();
        for pair in raw.filter(|q| !q.is_empty()).into_iter().flat_map(|q| q.split(|b| *b == b'&')) {
            let (param, value) = one(pair, params)?;
            if !param.repeated && query.one(param.name).is_some() {
                return bad(param.name, "stands twice");
            }
            query.0.push((param.name, value));
        }
        match params.iter().find(|p| p.required && query.one(p.name).is_none()) {
            Some(missing) => bad(missing.name, "is missing"),
            None => Ok(query),
        }
    }

    /// The value of a parameter.
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter that may stand more than once.
    pub(crate) fn all<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q str> {
        self.0.iter().filter(move |(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    /// A whole number between `min` and `max`.
    pub(crate) fn number(&self, name: &'static str, min: u64, max: u64) -> Checked<Option<u64>> {
        let Some(text) = self.one(name) else { return Ok(None) };
        match decimal(text).filter(|n| (min..=max).contains(n)) {
            Some(number) => Ok(Some(number)),
            None => bad(name, format!("must be a whole number from {min} to {max}")),
        }
    }
}

fn one(pair: &[u8], params: &'static [Param]) -> Checked<(&'static Param, String)> {
    let at = pair.iter().position(|b| *b == b'=');
    let (name, value) = pair.split_at(at.unwrap_or(pair.len()));
    let Some(param) = params.iter().find(|p| p.name.as_bytes() == name) else {
        let known: Vec<_> = params.iter().map(|p| p.name).collect();
        let rule = if known.is_empty() {
            "no parameters are taken here".to_owned()
        } else {
            format!("unknown parameter; there are {}", known.join(", "))
        };
        return bad(&shown(&String::from_utf8_lossy(name)), rule);
    };
    let Some(value) = value.strip_prefix(b"=") else { return bad(param.name, "must be written NAME=VALUE") };
    if value.contains(&b'+') {
        return bad(param.name, "may not contain a bare `+`: write a space as %20 and a plus as %2B");
    }
    let value = decode(value, param.name, b"")?;
    match value.chars().any(char::is_control) {
        true => bad(param.name, "may not contain control characters"),
        false => Ok((param, value)),
    }
}

/// A name that a client made up, short enough to be given back.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// A number of digits alone: no sign, no leading zeros.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// A version's id.
pub(crate) fn version_id(text: &str) -> Checked<VersionId> {
    let rule = || FieldError::new("version", "must be a version's decimal id, from 1 to 2^63-1");
    decimal(text).and_then(VersionId::new).ok_or_else(rule)
}

/// The only value of a header field; none when it is absent.
pub(super) fn single<'h>(headers: &'h Headers, name: &'static str, field: &'static str) -> Checked<Option<&'h str>> {
    let Some(value) = single_bytes(headers, name, field)? else { return Ok(None) };
    std::str::from_utf8(value).map(Some).or(bad(field, "must be text"))
}

fn single_bytes<'h>(headers: &'h Headers, name: &'static str, field: &'static str) -> Checked<Option<&'h [u8]>> {
    let mut values = headers.get_all(name);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return bad(field, "stands twice");
    }
    Ok(Some(value))
}

/// The credential in a request's head. Two would be two callers.
pub(crate) fn authorization(headers: &Headers) -> Checked<Option<&[u8]>> {
    single_bytes(headers, "authorization", "authorization")
}

/// What the request expects its object to be.
pub(crate) fn if_match(headers: &Headers) -> Checked<Precondition> {
    let Some(text) = single(headers, "if-match", "if-match")? else { return Ok(Precondition::Any) };
    let parsed = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).and_then(etag);
    match parsed {
        Some((incarnation, generation)) => Ok(Precondition::Is(incarnation, generation)),
        None => bad("if-match", "must be one ETag in quotes, as an answer had it"),
    }
}

fn etag(text: &str) -> Option<(Incarnation, Generation)> {
    let (incarnation, generation) = text.split_once('-')?;
    let hex = incarnation == "0" || (incarnation.len() == 16 && incarnation.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    let incarnation = if hex { u64::from_str_radix(incarnation, 16).ok()? } else { return None };
    Some((Incarnation(incarnation), Generation(decimal(generation)?)))
}

/// The revision that the server must have seen before it answers.
pub(crate) fn min_revision(headers: &Headers) -> Checked<Option<Revision>> {
    const NAME: &str = "claviger-min-revision";
    match single(headers, NAME, NAME)? {
        None => Ok(None),
        Some(text) => match Revision::parse(text) {
            Some(revision) => Ok(Some(revision)),
            None => bad(NAME, "must be a revision such as 1.42"),
        },
    }
}

/// A body of JSON.
///
/// The text holds secrets. It is given up as it came: the allocator of a server wipes what is freed.
pub(crate) fn json<'b, T: Deserialize<'b>>(headers: &Headers, body: &'b [u8]) -> Checked<T> {
    let kind = single(headers, "content-type", "content-type")?.unwrap_or_default();
    if !is_json(kind) {
        return bad("content-type", "must be application/json");
    }
    if single(headers, "content-encoding", "content-encoding")?.is_some() {
        return bad("content-encoding", "bodies are taken as they are only");
    }
    // Serde would take a list for a struct.
    let first = body.iter().find(|b| !matches!(b, b' ' | b'\t' | b'\r' | b'\n'));
    if first != Some(&b'{') {
        return bad("body", "must be a JSON object");
    }
    serde_json::from_slice(body).map_err(|error| refused_json(&error, body))
}

fn is_json(kind: &str) -> bool {
    let mut parts = kind.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|t| t.eq_ignore_ascii_case("application/json"));
    is_json && parts.all(|p| p.eq_ignore_ascii_case("charset=utf-8"))
}

/// What serde says of a body, without the values that it repeats: `invalid type: string "…", expected …`.
fn refused_json(error: &serde_json::Error, body: &[u8]) -> FieldError {
    let place = format!("line {} column {}", error.line(), error.column());
    if !error.is_data() {
        return FieldError::new("body", format!("is no JSON in UTF-8: wrong or cut off at {place}"));
    }
    let text = error.to_string();
    let text = text.strip_suffix(&format!(" at {place}")).unwrap_or(&text);
    let expected = text.rsplit_once("expected ").map_or("something else", |(_, e)| e);
    let named = |start: &str| text.strip_prefix(start).and_then(|t| t.split_once('`')).map(|(name, _)| shown(name));
    if let Some(name) = named("missing field `") {
        return FieldError::new(name, "is missing");
    }
    if let Some(name) = named("duplicate field `") {
        return FieldError::new(name, "stands twice, or one of its members does");
    }
    if let Some(name) = named("unknown field `") {
        return FieldError::new(name, format!("is no member here; expected {expected}"));
    }
    let field = member_at(body, error.line(), error.column());
    FieldError::new(field.unwrap_or_else(|| "body".to_owned()), format!("has the wrong type: expected {expected} ({place})"))
}

/// The outermost member that a place in a JSON text lies in. Everything before the place is known to be well formed.
fn member_at(body: &[u8], line: usize, column: usize) -> Option<String> {
    let start: usize = body.split(|b| *b == b'\n').take(line.checked_sub(1)?).map(|l| l.len() + 1).sum();
    let before = body.get(..(start + column).min(body.len()))?;
    let (mut depth, mut in_string, mut escaped, mut from) = (0, false, false, 0);
    let (mut last, mut member) = (None, None);
    for (i, byte) in before.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' if in_string => {
                in_string = false;
                last = Some(from..i);
            }
            b'"' => {
                in_string = true;
                from = i + 1;
            }
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b':' if depth == 1 => member = last.clone(),
            _ => {}
        }
    }
    member.map(|range| shown(&String::from_utf8_lossy(&before[range])))
}

/// Key data out of a body's member. Both forms are wiped when they are dropped.
pub(crate) fn secret(text: String) -> Checked<SecretBytes> {
    let text = SecretBytes::new(text.into_bytes());
    let data = SecretBytes::new(decode_base64(text.expose(), "data")?);
    if data.is_empty() { bad("data", "a value has at least one byte") } else { Ok(data) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use claviger_wire::native::{AddVersion, CreateKey};

    fn head(target: &str, headers: &[(&str, &str)]) -> Head {
        Head::build("GET", target, headers).unwrap()
    }

    #[test]
    fn paths_that_could_be_read_in_two_ways_are_refused() {
        for bad in [
            "//",
            "/a//b",
            "/a/../b",
            "/a/.",
            "/a/",
            "/a/%2e%2e/b",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%00",
            "/a%",
            "/a%2",
            "/a%zz",
            "/%ff",
            "/a%0ab",
        ] {
            assert_eq!(path(&head(bad, &[])).unwrap_err().field, "path", "{bad}");
        }
        assert_eq!(path(&head("/a/b:c%3Ad", &[])).unwrap(), "/a/b:c:d");
    }

    const PARAMS: &[Param] = &[Param::once("limit", ""), Param::many("label", ""), Param::needed("principal", "")];

    #[test]
    fn queries_are_read_strictly() {
        let parse = |q: &str| Query::parse(Some(q.as_bytes()), PARAMS);
        let table = [
            ("principal=a&x=1", "x"),
            ("principal=a&Limit=1", "Limit"),
            ("principal=a&limit=1&limit=1", "limit"),
            ("principal=a&limit", "limit"),
            ("principal=a&label=a+b", "label"),
            ("principal=a&label=%", "label"),
            ("principal=a&label=%00", "label"),
            ("principal=a&label=%0a", "label"),
            ("principal=a&label=%ff", "label"),
            ("principal=a&", ""),
            ("limit=1", "principal"),
            ("", "principal"),
        ];
        for (query, field) in table {
            assert_eq!(parse(query).unwrap_err().field, field, "{query}");
        }
        let query = parse("label=a%3D1&principal=&label=b=2&limit=10").unwrap();
        assert_eq!(query.all("label").collect::<Vec<_>>(), ["a=1", "b=2"]);
        assert_eq!((query.one("principal"), query.number("limit", 1, 10)), (Some(""), Ok(Some(10))));
        for bad in ["0", "11", "+1", "01", "1.0", "", "99999999999999999999"] {
            let query = Query::parse(Some(format!("principal=a&limit={bad}").replace('+', "%2B").as_bytes()), PARAMS).unwrap();
            assert_eq!(query.number("limit", 1, 10).unwrap_err().field, "limit", "{bad}");
        }
    }

    #[test]
    fn etags_are_read_as_they_were_written() {
        let read = |text: &str| if_match(&head("/", &[("If-Match", text)]).headers);
        assert_eq!(read("\"00000000000000ff-7\""), Ok(Precondition::Is(Incarnation(255), Generation(7))));
        assert_eq!(read("\"0-0\""), Ok(Precondition::Is(Incarnation(0), Generation(0))));
        for bad in [
            "*",
            "00000000000000ff-7",
            "W/\"00000000000000ff-7\"",
            "\"ff-7\"",
            "\"00000000000000FF-7\"",
            "\"00000000000000ff-07\"",
            "\"00000000000000ff\"",
            "",
            "\"0-1\", \"0-2\"",
        ] {
            assert_eq!(read(bad).unwrap_err().field, "if-match", "{bad}");
        }
        let twice = head("/", &[("If-Match", "\"0-1\""), ("If-Match", "\"0-1\"")]);
        assert!(if_match(&twice.headers).is_err());
    }

    fn create(body: &str) -> FieldError {
        let head = head("/", &[("Content-Type", "application/json")]);
        json::<CreateKey>(&head.headers, body.as_bytes()).unwrap_err()
    }

    #[test]
    fn json_errors_name_the_member_and_never_repeat_a_value() {
        let table = [
            ("", "body"),
            ("[\"a\",\"SENTINEL\"]", "body"),
            ("{\"id\":\"a\",\"data\":\"SENTINEL\"", "body"),
            ("{\"id\":\"a\",\"data\":\"SENTINEL\"} x", "body"),
            ("{\"data\":\"SENTINEL\"}", "id"),
            ("{\"id\":\"a\",\"data\":\"SENTINEL\",\"datum\":\"SENTINEL\"}", "datum"),
            ("{\"id\":\"a\",\"data\":\"SENTINEL\",\"data\":\"SENTINEL\"}", "data"),
            ("{\"id\":\"a\",\"data\":{\"SENTINEL\":1}}", "data"),
            ("{\"id\":\"a\",\n \"data\":\"eA==\",\"separate_duties\":\"SENTINEL, expected SENTINEL\"}", "separate_duties"),
            ("{\"id\":\"a\",\"data\":\"\",\"max_lifetime\":-1}", "max_lifetime"),
            ("{\"id\":\"a\",\"data\":\"\",\"acl\":[{\"principal\":\"SENTINEL\",\"x\":1}]}", "x"),
            ("{\"id\":\"a\",\"data\":\"\",\"acl\":[{\"principal\":{\"a\":\"SENTINEL\"}}]}", "acl"),
            ("{\"id\":\"a\",\"data\":\"\",\"labels\":{\"a\":\"1\",\"a\":\"SENTINEL\"}}", "labels"),
        ];
        for (body, field) in table {
            let error = create(body);
            assert_eq!(error.field, field, "{body}: {error}");
            assert!(!error.to_string().contains("SENTINEL"), "{error}");
        }
        let utf8 = json::<AddVersion>(&head("/", &[("Content-Type", "application/json")]).headers, b"{\"data\":\"\xff\"}").unwrap_err();
        assert_eq!(utf8.field, "body");
    }

    #[test]
    fn bodies_are_json_and_say_so() {
        let read = |headers: &[(&str, &str)]| {
            json::<AddVersion>(&head("/", headers).headers, b"{\"data\":\"eA==\"}").map(drop).map_err(|e| e.field)
        };
        for good in ["application/json", "Application/JSON; charset=UTF-8"] {
            assert_eq!(read(&[("Content-Type", good)]), Ok(()));
        }
        for bad in ["text/json", "application/json; charset=latin1", "application/jsonx", ""] {
            assert_eq!(read(&[("Content-Type", bad)]), Err("content-type".to_owned()), "{bad}");
        }
        assert_eq!(read(&[]), Err("content-type".to_owned()));
        assert_eq!(read(&[("Content-Type", "application/json"), ("Content-Encoding", "gzip")]), Err("content-encoding".to_owned()));
    }

    #[test]
    fn data_is_strict_base64_and_not_empty() {
        assert_eq!(secret("eA==".into()).unwrap().expose(), b"x");
        for bad in ["", "eA", "eA=", "eB==", "eA==\n", "e A=", "eA==eA==", "-_8="] {
            let error = secret(bad.into()).unwrap_err();
            assert_eq!(error.field, "data", "{bad}");
        }
    }
}
