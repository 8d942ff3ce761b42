//! Forms and queries as Go's `net/http` and `net/url` read them (§1, §4.1, §4.3).
//!
//! A form is read in one pass that keeps only the fields a route declares, so a body of ten million separators costs
//! no memory. Nothing is copied unless it is percent-encoded. There is no limit on the number of pairs: Go's newer
//! default of 10,000 would make a large poll return ids that were not asked for.
//!
//! What it does not do: multipart, JSON bodies, and reading the body itself.

use std::borrow::Cow;
use std::collections::HashMap;

use super::url::{Plus, percent_decode};

/// Largest body that is still read as a form, in bytes.
pub const MAX_BODY: usize = 10_485_760;

/// The body of a request, as far as it could be read.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// All of it. More than [`MAX_BODY`] bytes count as [`Body::Unreadable`].
    Whole(&'a [u8]),
    /// Too long, cut off, or not readable for another reason: every field is missing.
    Unreadable,
}

/// A value of a form, decoded. May be a secret in base64; do not log it.
pub type Value<'a> = Cow<'a, [u8]>;

/// Reads the fields that a POST or PUT route declares, in their declared order.
///
/// `content_type` is the first `Content-Type` header, if any. `query` is the raw query of the target: no field is
/// taken from it, but a malformed one spoils the form, as in Go.
///
/// # Guarantees
/// The first value of a repeated field wins. Pairs that do not parse are dropped, and when there was any such pair (or
/// a malformed query or content type parameter), the *first declared* field is missing whatever was sent; the others
/// are taken from what parsed.
#[must_use]
pub fn fields<'a, const N: usize>(
    content_type: Option<&[u8]>,
    query: Option<&[u8]>,
    body: Body<'a>,
    names: [&str; N],
) -> [Option<Value<'a>>; N] {
    let mut values = [const { None }; N];
    let body = match body {
        Body::Whole(body) if body.len() <= MAX_BODY => body,
        _ => return values,
    };
    let media_type = media_type(content_type.unwrap_or_default());
    if media_type == MediaType::Other {
        return values;
    }
    let mut parsed = media_type == MediaType::Form && pairs(query.unwrap_or_default()).all(|pair| pair.is_ok());
    for pair in pairs(body) {
        let Ok((name, value)) = pair else {
            parsed = false;
            continue;
        };
        if let Some(slot) = names.iter().position(|wanted| wanted.as_bytes() == &*name) {
            values[slot].get_or_insert(value);
        }
    }
    if !parsed && let Some(first) = values.first_mut() {
        *first = None;
    }
    values
}

/// The first value of `name` in a query; pairs that do not parse are skipped. `None` when it is absent.
#[must_use]
pub fn query_value<'a>(query: Option<&'a [u8]>, name: &str) -> Option<Value<'a>> {
    let mut parsed = pairs(query.unwrap_or_default()).flatten();
    parsed.find(|(found, _)| **found == *name.as_bytes()).map(|(_, value)| value)
}

/// What `GET /v0/keys/` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Poll<'a> {
    /// No usable pair: every key id.
    All,
    /// Those of these ids whose hash differs from the value given. Never answer with an id that is not in here.
    Changed(HashMap<Value<'a>, Value<'a>>),
}

/// Reads the query of `GET /v0/keys/`: the last value of a repeated id wins, pairs that do not parse are dropped.
#[must_use]
pub fn poll(query: Option<&[u8]>) -> Poll<'_> {
    let query = query.unwrap_or_default();
    let count = memchr::memchr_iter(b'&', query).count() + 1;
    // A pair of a real poll is longer than 16 bytes; the cap keeps `&&&…` from reserving a table for nothing.
    let mut asked = HashMap::with_capacity(count.min(query.len() / 16 + 1));
    asked.extend(pairs(query).flatten());
    if asked.is_empty() { Poll::All } else { Poll::Changed(asked) }
}

/// A pair that is dropped: it holds a semicolon or a broken percent escape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BadPair;

type Pair<'a> = (Value<'a>, Value<'a>);

/// The pairs of a form or query, empty ones left out.
fn pairs(text: &[u8]) -> impl Iterator<Item = Result<Pair<'_>, BadPair>> {
    // Looking once for what makes a pair special saves scanning each pair of the usual case, a long poll.
    let has_semicolon = memchr::memchr(b';', text).is_some();
    let is_encoded = memchr::memchr2(b'%', b'+', text).is_some();
    Split { rest: Some(text) }.filter(|pair| !pair.is_empty()).map(move |pair| {
        if has_semicolon && memchr::memchr(b';', pair).is_some() {
            return Err(BadPair);
        }
        let (name, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        if !is_encoded {
            return Ok((Cow::Borrowed(name), Cow::Borrowed(value)));
        }
        let name = percent_decode(name, Plus::Space).ok_or(BadPair)?;
        let value = percent_decode(value, Plus::Space).ok_or(BadPair)?;
        Ok((name, value))
    })
}

/// The parts of a text between ampersands.
struct Split<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Split<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let (part, rest) = match memchr::memchr(b'&', rest) {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        self.rest = rest;
        Some(part)
    }
}

/// What a `Content-Type` says about a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MediaType {
    /// A urlencoded form.
    Form,
    /// A urlencoded form with parameters that do not parse: read, but spoiled.
    SpoiledForm,
    /// Anything else, nothing included: there are no fields.
    Other,
}

/// Reads a content type with the leniency of Go's `mime.ParseMediaType`.
fn media_type(raw: &[u8]) -> MediaType {
    let text = String::from_utf8_lossy(raw);
    let (base, parameters) = match text.find(';') {
        Some(at) => text.split_at(at),
        None => (&*text, ""),
    };
    let is_form = base.trim().chars().map(lowered).eq("application/x-www-form-urlencoded".chars());
    if is_form { parameters_of_form(parameters) } else { MediaType::Other }
}

/// Go's lower-casing as far as it can reach ASCII letters.
fn lowered(c: char) -> char {
    match c {
        '\u{130}' => 'i',
        '\u{212a}' => 'k',
        _ => c.to_ascii_lowercase(),
    }
}

/// Two values for one parameter make Go forget the type itself; other faults only spoil the form.
fn parameters_of_form(text: &str) -> MediaType {
    let mut seen: HashMap<String, Cow<'_, str>> = HashMap::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((name, value, after)) = parameter(rest) else {
            return if rest.trim() == ";" { MediaType::Form } else { MediaType::SpoiledForm };
        };
        let name = name.to_ascii_lowercase();
        if seen.get(&name).is_some_and(|earlier| *earlier != value) {
            return MediaType::Other;
        }
        seen.insert(name, value);
        rest = after.trim_start();
    }
    MediaType::Form
}

/// `; name=value` at the start of `text`, and what follows it.
fn parameter(text: &str) -> Option<(&str, Cow<'_, str>, &str)> {
    let (name, rest) = token(text.strip_prefix(';')?.trim_start());
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    if name.is_empty() {
        return None;
    }
    if let Some(rest) = rest.strip_prefix('"') {
        let (value, rest) = quoted(rest)?;
        return Some((name, Cow::Owned(value), rest));
    }
    let (value, rest) = token(rest);
    (!value.is_empty()).then_some((name, Cow::Borrowed(value), rest))
}

fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_graphic() && !is_special(c);
    text.split_at(text.find(|c| !is_token(c)).unwrap_or(text.len()))
}

/// The rest of a quoted string. A backslash escapes only the specials of RFC 2045; before anything else it is meant.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\r' | '\n' => return None,
            '\\' if text[at + 1..].starts_with(is_special) => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    None
}

fn is_special(c: char) -> bool {
    "()<>@,;:\\\"/[]?=".contains(c)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FORM: Option<&[u8]> = Some(b"application/x-www-form-urlencoded");

    fn read(content_type: Option<&[u8]>, query: &str, body: &str) -> Vec<Option<String>> {
        let body = Body::Whole(body.as_bytes());
        let values = fields(content_type, Some(query.as_bytes()), body, ["id", "data"]);
        values.into_iter().map(|value| value.map(|v| String::from_utf8(v.into_owned()).unwrap())).collect()
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_first_value_wins_and_encodings_are_undone() {
        assert_eq!(read(FORM, "", "id=a&id=b&data=x%2By+z"), [some("a"), some("x+y z")]);
        assert_eq!(read(FORM, "id=q", "data"), [None, some("")]);
    }

    #[test]
    fn a_form_that_does_not_parse_lacks_only_its_first_declared_field() {
        for body in ["id=a&data=b&x=%zz", "id=a&data=b&x;y", "id=a&data=b&%4"] {
            assert_eq!(read(FORM, "", body), [None, some("b")], "{body}");
        }
        assert_eq!(read(FORM, "a;b", "id=a&data=b"), [None, some("b")]);
        assert_eq!(read(FORM, "", "id=a&data=b;c"), [None, None]);
    }

    #[test]
    fn only_the_urlencoded_type_has_fields() {
        let with = |text: &'static str| read(Some(text.as_bytes()), "", "id=a&data=b");
        let all = [some("a"), some("b")];
        for text in ["application/x-www-form-urlencoded; charset=utf-8", " Application/X-WWW-form-urlencoded ;"] {
            assert_eq!(with(text), all, "{text}");
        }
        assert_eq!(with("application/x-www-form-urlencoded; =bad"), [None, some("b")]);
        for text in ["application/json", "", "multipart/form-data", "application/x-www-form-urlencoded; a=1; a=2"] {
            assert_eq!(with(text), [None, None], "{text}");
        }
        assert_eq!(read(None, "", "id=a&data=b"), [None, None]);
    }

    #[test]
    fn a_body_of_exactly_ten_mebibytes_passes_and_one_more_byte_loses_every_field() {
        let mut body = b"id=a&data=".to_vec();
        body.resize(MAX_BODY, b'x');
        let ids = |body: &[u8]| fields(FORM, None, Body::Whole(body), ["id", "data"]).map(|value| value.is_some());
        assert_eq!(ids(&body), [true, true]);
        body.push(b'x');
        assert_eq!(ids(&body), [false, false]);
        assert_eq!(fields(FORM, None, Body::Unreadable, ["id"]), [None]);
    }

    #[test]
    fn a_query_value_is_the_first_that_parses() {
        assert_eq!(query_value(Some(b"status=%zz&status=\"Active\"&status=x"), "status").unwrap(), &b"\"Active\""[..]);
        assert_eq!(query_value(Some(b"status"), "status").unwrap(), &b""[..]);
        assert_eq!(query_value(Some(b"Status=x"), "status"), None);
        assert_eq!(query_value(None, "status"), None);
    }

    #[test]
    fn a_query_without_a_usable_pair_lists_all() {
        for query in [None, Some(""), Some("&&"), Some("%zz"), Some("k=a;b")] {
            assert_eq!(poll(query.map(str::as_bytes)), Poll::All, "{query:?}");
        }
    }

    #[test]
    fn a_poll_takes_the_last_value_and_an_empty_name() {
        let Poll::Changed(asked) = poll(Some(b"a=1&a=2&=&b&%zz=1&c=%41")) else { panic!("a poll") };
        let mut asked: Vec<_> = asked.iter().map(|(id, hash)| (&**id, &**hash)).collect();
        asked.sort_unstable();
        assert_eq!(asked, [(&b""[..], &b""[..]), (b"a", b"2"), (b"b", b""), (b"c", b"A")]);
    }

    #[test]
    fn a_poll_of_twenty_thousand_ids_has_no_limit() {
        let query: String = (0..20_000).map(|n| format!("key:{n}={n:064x}&")).collect();
        let Poll::Changed(asked) = poll(Some(query.as_bytes())) else { panic!("a poll") };
        assert_eq!(asked.len(), 20_000);
    }
}
