//! JSON as Go's `encoding/json` writes and reads it, for the little of it that Knox's requests carry.
//!
//! Reading is two passes, as in Go: [`check`] goes over the whole text first, so a syntax error anywhere wins over a
//! wrong type; the decoders then walk text known to be well-formed. Neither pass recurses, numbers are never
//! converted, and nesting is capped at Go's depth, so hostile input costs time and memory in proportion to its length.
//!
//! What it does not do: decode into anything but access entries, or keep unknown members.

use std::borrow::Cow;

use super::base64::{CorruptInput, decode_raw_url};
use super::quote::quote_byte;
use super::types::{AccessEntry, AccessLevel, InvalidType, PrincipalType};

/// Go refuses text nested deeper than this many arrays and objects.
const MAX_DEPTH: usize = 10_000;

/// Why a text did not decode. Displays exactly as Go's decoder does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text ended inside a value, or is empty.
    #[error("unexpected end of JSON input")]
    UnexpectedEnd,
    /// A byte that may not stand where it does; includes nesting that is too deep.
    #[error("invalid character {} {context}", quote_byte(*.byte))]
    InvalidCharacter {
        /// The byte; a space when the text ended inside a literal or number, as Go has it.
        byte: u8,
        /// What the decoder was doing.
        context: &'static str,
    },
    /// Well-formed, but of the wrong JSON type for the whole value or an array element.
    #[error("json: cannot unmarshal {value} into Go value of type {target}")]
    WrongType {
        /// The JSON type found.
        value: &'static str,
        /// Name of the Go type.
        target: &'static str,
    },
    /// An `id` member that is no string.
    #[error("json: cannot unmarshal {value} into Go struct field Access.id of type string")]
    WrongIdType {
        /// The JSON type found.
        value: &'static str,
    },
    /// An `access` member that is none of the four words.
    #[error(transparent)]
    Invalid(#[from] InvalidType),
}

/// Why an `access` field did not decode (§4.6 step 1). The text is what the client must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccessFieldError {
    /// Neither JSON nor base64url; the base64 text wins.
    #[error(transparent)]
    Base64(#[from] CorruptInput),
    /// Base64url of something that does not decode as an entry.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// Which variable an ACL is decoded into: only the Go type's name in an error text depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AclField {
    /// The `acl` field of creation.
    Create,
    /// The `acl` field of put access.
    PutAccess,
}

/// Decodes an ACL: an array of entries, or `null` for none.
///
/// # Errors
/// [`JsonError`]; the first one in Go's order of precedence.
pub fn decode_acl(text: &[u8], field: AclField) -> Result<Vec<AccessEntry>, JsonError> {
    check(text)?;
    let mut cursor = Cursor { text, at: 0 };
    match cursor.peek() {
        b'n' => Ok(Vec::new()),
        b'[' => decode_elements(cursor),
        first => {
            let target = match field {
                AclField::Create => "knox.ACL",
                AclField::PutAccess => "[]knox.Access",
            };
            Err(JsonError::WrongType { value: type_name(first), target })
        }
    }
}

/// Decodes one access entry: an object, or `null` for an entry of defaults.
///
/// # Errors
/// [`JsonError`], likewise.
pub fn decode_entry(text: &[u8]) -> Result<AccessEntry, JsonError> {
    check(text)?;
    let mut late = None;
    let entry = decode_checked_entry(&mut Cursor { text, at: 0 }, &mut late)?;
    late.map_or(Ok(entry), Err)
}

/// Decodes the `access` field of put access: an entry in JSON, else base64url without padding of one.
///
/// # Errors
/// [`AccessFieldError`]: what the second attempt failed with; the first one's text is never shown.
pub fn decode_access_field(text: &[u8]) -> Result<AccessEntry, AccessFieldError> {
    if let Ok(entry) = decode_entry(text) {
        return Ok(entry);
    }
    Ok(decode_entry(&decode_raw_url(text)?)?)
}

/// Appends `raw` as a JSON string with Go's escapes: `<`, `>`, `&`, U+2028 and U+2029 as `\u…`, and `\ufffd` for every
/// byte that is not part of valid UTF-8.
pub fn write_string(out: &mut Vec<u8>, raw: &[u8]) {
    out.push(b'"');
    for chunk in raw.utf8_chunks() {
        write_valid(out, chunk.valid().as_bytes());
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.push(b'"');
}

/// Copies runs of plain bytes, escaping what is between them.
fn write_valid(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| MAY_NEED_ESCAPE[usize::from(*byte)]) {
        let (plain, from) = rest.split_at(at);
        out.extend_from_slice(plain);
        rest = &from[write_escape(out, from)..];
    }
    out.extend_from_slice(rest);
}

/// Bytes that end a run of plain text: controls, five ASCII characters, and the lead byte of U+2028.
const MAY_NEED_ESCAPE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'&' as usize] = true;
    table[0xe2] = true;
    table
};

/// Writes what stands at the start of `text`, escaped if need be, and returns its length there.
fn write_escape(out: &mut Vec<u8>, text: &[u8]) -> usize {
    match *text {
        [0xe2, 0x80, last @ (0xa8 | 0xa9), ..] => {
            out.extend_from_slice(if last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            return 3;
        }
        [byte @ (b'"' | b'\\'), ..] => out.extend_from_slice(&[b'\\', byte]),
        [b'\x08', ..] => out.extend_from_slice(b"\\b"),
        [b'\x0c', ..] => out.extend_from_slice(b"\\f"),
        [b'\n', ..] => out.extend_from_slice(b"\\n"),
        [b'\r', ..] => out.extend_from_slice(b"\\r"),
        [b'\t', ..] => out.extend_from_slice(b"\\t"),
        [byte, ..] if byte < 0x80 => {
            let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 0xf)]);
        }
        [byte, ..] => out.push(byte),
        [] => return 0,
    }
    1
}

/// Checks that `text` is exactly one well-formed JSON value.
///
/// # Errors
/// [`JsonError::UnexpectedEnd`] or [`JsonError::InvalidCharacter`], as Go's scanner reports them.
pub fn check(text: &[u8]) -> Result<(), JsonError> {
    Checker { text, at: 0, open: Vec::new() }.document()
}

/// What surrounds the current value.
#[derive(Clone, Copy, PartialEq)]
enum Container {
    Array,
    Object,
}

struct Checker<'a> {
    text: &'a [u8],
    at: usize,
    open: Vec<Container>,
}

impl Checker<'_> {
    fn document(mut self) -> Result<(), JsonError> {
        loop {
            let complete = self.begin_value()?;
            if complete && self.end_values()? {
                return Ok(());
            }
        }
    }

    /// Reads a scalar, an empty container, or the beginning of a container up to its first value. Tells whether a
    /// value is complete.
    fn begin_value(&mut self) -> Result<bool, JsonError> {
        match self.next_token()? {
            byte @ b'{' => {
                self.push(byte, Container::Object)?;
                if self.next_is(b'}') {
                    self.open.pop();
                    return Ok(true);
                }
                self.object_key()?;
                Ok(false)
            }
            byte @ b'[' => {
                self.push(byte, Container::Array)?;
                if self.next_is(b']') {
                    self.open.pop();
                    return Ok(true);
                }
                Ok(false)
            }
            b'"' => self.string().map(|()| true),
            byte @ (b'-' | b'0'..=b'9') => self.number(byte).map(|()| true),
            b't' => self.literal([
                (b'r', "in literal true (expecting 'r')"),
                (b'u', "in literal true (expecting 'u')"),
                (b'e', "in literal true (expecting 'e')"),
            ]),
            b'f' => self.literal([
                (b'a', "in literal false (expecting 'a')"),
                (b'l', "in literal false (expecting 'l')"),
                (b's', "in literal false (expecting 's')"),
                (b'e', "in literal false (expecting 'e')"),
            ]),
            b'n' => self.literal([
                (b'u', "in literal null (expecting 'u')"),
                (b'l', "in literal null (expecting 'l')"),
                (b'l', "in literal null (expecting 'l')"),
            ]),
            byte => Err(invalid(byte, "looking for beginning of value")),
        }
    }

    /// After a complete value: closes containers until another value must follow (`false`) or the text is done.
    fn end_values(&mut self) -> Result<bool, JsonError> {
        loop {
            let Some(container) = self.open.last().copied() else {
                return match self.skip_space() {
                    None => Ok(true),
                    Some(byte) => Err(invalid(byte, "after top-level value")),
                };
            };
            match (container, self.next_token()?) {
                (Container::Array, b',') => return Ok(false),
                (Container::Object, b',') => return self.object_key().map(|()| false),
                (Container::Array, b']') | (Container::Object, b'}') => {
                    self.open.pop();
                }
                (Container::Array, byte) => return Err(invalid(byte, "after array element")),
                (Container::Object, byte) => return Err(invalid(byte, "after object key:value pair")),
            }
        }
    }

    fn push(&mut self, byte: u8, container: Container) -> Result<(), JsonError> {
        self.open.push(container);
        if self.open.len() > MAX_DEPTH {
            return Err(invalid(byte, "exceeded max depth"));
        }
        Ok(())
    }

    /// A member name and its colon.
    fn object_key(&mut self) -> Result<(), JsonError> {
        match self.next_token()? {
            b'"' => self.string()?,
            byte => return Err(invalid(byte, "looking for beginning of object key string")),
        }
        match self.next_token()? {
            b':' => Ok(()),
            byte => Err(invalid(byte, "after object key")),
        }
    }

    /// The rest of a string after its opening quote.
    fn string(&mut self) -> Result<(), JsonError> {
        loop {
            let byte = *self.text.get(self.at).ok_or(JsonError::UnexpectedEnd)?;
            self.at += 1;
            match byte {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                0..0x20 => return Err(invalid(byte, "in string literal")),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        match self.take_or_space() {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => Ok(()),
            b'u' => (0..4).try_for_each(|_| match self.take_or_space() {
                byte if byte.is_ascii_hexdigit() => Ok(()),
                byte => Err(invalid(byte, "in \\u hexadecimal character escape")),
            }),
            byte => Err(invalid(byte, "in string escape code")),
        }
    }

    /// The rest of a number after its first byte.
    fn number(&mut self, first: u8) -> Result<(), JsonError> {
        let mut first = first;
        if first == b'-' {
            first = self.digit("in numeric literal")?;
        }
        if first != b'0' {
            self.digits();
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn digit(&mut self, context: &'static str) -> Result<u8, JsonError> {
        match self.take_or_space() {
            byte if byte.is_ascii_digit() => Ok(byte),
            byte => Err(invalid(byte, context)),
        }
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn literal<const N: usize>(&mut self, rest: [(u8, &'static str); N]) -> Result<bool, JsonError> {
        for (expected, context) in rest {
            match self.take_or_space() {
                byte if byte == expected => {}
                byte => return Err(invalid(byte, context)),
            }
        }
        Ok(true)
    }

    /// The next byte. At the end of the text a space, which is how Go finishes a scan: so `tru` is reported as an
    /// invalid space, not as an early end.
    fn take_or_space(&mut self) -> u8 {
        let byte = self.text.get(self.at).copied().unwrap_or(b' ');
        self.at += 1;
        byte
    }

    fn skip_space(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !is_space(*byte) {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// The next byte that is no space, consumed.
    fn next_token(&mut self) -> Result<u8, JsonError> {
        let byte = self.skip_space().ok_or(JsonError::UnexpectedEnd)?;
        self.at += 1;
        Ok(byte)
    }

    /// Consumes `wanted` if it comes next.
    fn next_is(&mut self, wanted: u8) -> bool {
        let found = self.skip_space() == Some(wanted);
        if found {
            self.at += 1;
        }
        found
    }
}

fn invalid(byte: u8, context: &'static str) -> JsonError {
    JsonError::InvalidCharacter { byte, context }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A place in text that [`check`] has passed; its methods rely on that for the tokens they skip, not for safety.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The next byte that is no space; NUL at the end, which no well-formed text has outside strings.
    fn peek(&mut self) -> u8 {
        while self.text.get(self.at).copied().is_some_and(is_space) {
            self.at += 1;
        }
        self.text.get(self.at).copied().unwrap_or(0)
    }

    /// Consumes the next byte that is no space.
    fn take(&mut self) -> u8 {
        let byte = self.peek();
        self.at += 1;
        byte
    }

    /// Consumes one whole value and returns its text without the space around it.
    fn value(&mut self) -> &'a [u8] {
        match self.peek() {
            b'"' => self.string(),
            b'{' | b'[' => self.container(),
            _ => {
                let start = self.at;
                while !matches!(self.text.get(self.at), None | Some(b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n')) {
                    self.at += 1;
                }
                &self.text[start..self.at]
            }
        }
    }

    /// Consumes a string and returns it with its quotes.
    fn string(&mut self) -> &'a [u8] {
        self.peek();
        let start = self.at.min(self.text.len());
        self.at += 1;
        while let Some(byte) = self.text.get(self.at) {
            self.at += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                break;
            }
        }
        self.at = self.at.min(self.text.len());
        &self.text[start..self.at]
    }

    fn container(&mut self) -> &'a [u8] {
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                b'"' => {
                    self.string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                0 => break,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                break;
            }
        }
        &self.text[start..self.at]
    }
}

fn decode_elements(mut cursor: Cursor<'_>) -> Result<Vec<AccessEntry>, JsonError> {
    let mut entries = Vec::new();
    // Go keeps the first wrong type and goes on, so that a bad `access` further right is what it reports.
    let mut late = None;
    cursor.take();
    if cursor.peek() == b']' {
        return Ok(entries);
    }
    loop {
        entries.push(decode_checked_entry(&mut cursor, &mut late)?);
        if cursor.take() != b',' {
            return late.map_or(Ok(entries), Err);
        }
    }
}

/// Decodes the value at the cursor. `late` takes the first error that Go would report only at the end.
fn decode_checked_entry(cursor: &mut Cursor<'_>, late: &mut Option<JsonError>) -> Result<AccessEntry, JsonError> {
    let mut entry = AccessEntry::default();
    match cursor.peek() {
        b'{' => decode_members(cursor, &mut entry, late)?,
        b'n' => {
            cursor.value();
        }
        first => {
            late.get_or_insert(JsonError::WrongType { value: type_name(first), target: "knox.Access" });
            cursor.value();
        }
    }
    Ok(entry)
}

fn decode_members(cursor: &mut Cursor<'_>, entry: &mut AccessEntry, late: &mut Option<JsonError>) -> Result<(), JsonError> {
    cursor.take();
    if cursor.peek() == b'}' {
        cursor.take();
        return Ok(());
    }
    loop {
        let name = unquote(cursor.string());
        cursor.take();
        let value = cursor.value();
        match Member::named(&name) {
            Some(Member::Type) => entry.kind = PrincipalType::from_json(value),
            Some(Member::Id) => decode_id(value, &mut entry.id, late),
            Some(Member::Access) => entry.access = AccessLevel::from_json(value)?,
            None => {}
        }
        if cursor.take() != b',' {
            return Ok(());
        }
    }
}

/// `null` leaves the id as it was, a wrong type as well (and is reported in the end).
fn decode_id(value: &[u8], id: &mut String, late: &mut Option<JsonError>) {
    match value.first().copied().unwrap_or(0) {
        b'"' => *id = unquote(value).into_owned(),
        b'n' => {}
        first => {
            late.get_or_insert(JsonError::WrongIdType { value: type_name(first) });
        }
    }
}

/// The members of an access entry.
enum Member {
    Type,
    Id,
    Access,
}

impl Member {
    /// Finds a member by name as Go does: under simple case folding, by which `ſ` is an `s`.
    fn named(name: &str) -> Option<Self> {
        let is = |wanted: &str| name.chars().map(fold).eq(wanted.chars());
        if is("type") {
            Some(Self::Type)
        } else if is("id") {
            Some(Self::Id)
        } else if is("access") {
            Some(Self::Access)
        } else {
            None
        }
    }
}

/// Simple case folding as far as it can reach ASCII letters.
fn fold(c: char) -> char {
    match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => c.to_ascii_lowercase(),
    }
}

/// How Go names the JSON type that begins with `first`.
fn type_name(first: u8) -> &'static str {
    match first {
        b'{' => "object",
        b'[' => "array",
        b'"' => "string",
        b't' | b'f' => "bool",
        _ => "number",
    }
}

/// The text of a checked JSON string, given with its quotes. Lone surrogates and bytes that are not UTF-8 become
/// U+FFFD.
fn unquote(quoted: &[u8]) -> Cow<'_, str> {
    let inner = quoted.strip_prefix(b"\"").unwrap_or(quoted);
    let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
    match std::str::from_utf8(inner) {
        Ok(text) if !text.contains('\\') => Cow::Borrowed(text),
        _ => Cow::Owned(unescape(inner)),
    }
}

fn unescape(inner: &[u8]) -> String {
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while !rest.is_empty() {
        let plain = rest.iter().position(|byte| *byte == b'\\').unwrap_or(rest.len());
        push_lossy(&mut text, &rest[..plain]);
        rest = &rest[plain..];
        if rest.is_empty() {
            break;
        }
        let (c, length) = unescape_one(rest);
        text.push(c);
        rest = rest.get(length..).unwrap_or_default();
    }
    text
}

/// One U+FFFD for each byte that is not part of valid UTF-8, where Rust's own lossy conversion would merge some.
fn push_lossy(text: &mut String, raw: &[u8]) {
    for chunk in raw.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
}

/// The character of the escape at the start of `text`, and the escape's length.
fn unescape_one(text: &[u8]) -> (char, usize) {
    let c = match text.get(1) {
        Some(b'b') => '\x08',
        Some(b'f') => '\x0c',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unescape_code_point(text),
        Some(byte) => char::from(*byte),
        None => char::REPLACEMENT_CHARACTER,
    };
    (c, 2)
}

/// `\uXXXX`, or two of them when they make a surrogate pair.
fn unescape_code_point(text: &[u8]) -> (char, usize) {
    let first = code_unit(text).unwrap_or(0xfffd);
    if let Some(c) = char::from_u32(first) {
        return (c, 6);
    }
    let second = code_unit(text.get(6..).unwrap_or_default()).unwrap_or(0);
    if first < 0xdc00 && (0xdc00..0xe000).contains(&second) {
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (char::REPLACEMENT_CHARACTER, 6)
}

/// The number in `\uXXXX` at the start of `text`.
fn code_unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_no_op_forms_of_access_decode_to_an_empty_entry() {
        // `bnVsbA` and `e30` are base64url of `null` and `{}`.
        for text in ["null", "{}", "bnVsbA", "e30", " { } ", "e3\n0"] {
            assert_eq!(decode_access_field(text.as_bytes()), Ok(AccessEntry::default()), "{text}");
        }
    }

    #[test]
    fn the_base64_text_wins_unless_base64_decodes() {
        let text = |field: &str| decode_access_field(field.as_bytes()).unwrap_err().to_string();
        assert_eq!(text(r#"{"type":"User","id":"a","access":"Foo"}"#), "illegal base64 data at input byte 0");
        assert_eq!(text(""), "unexpected end of JSON input");
        assert_eq!(text("true"), "invalid character '¶' looking for beginning of value");
        assert_eq!(text("ab="), "illegal base64 data at input byte 2");
    }

    #[test]
    fn depth_is_limited_without_recursion() {
        let deep = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert_eq!(check(&deep(MAX_DEPTH)), Ok(()));
        let error = check(&deep(MAX_DEPTH + 1)).unwrap_err();
        assert_eq!(error.to_string(), "invalid character '[' exceeded max depth");
    }

    #[test]
    fn strings_are_written_with_gos_escapes() {
        let mut out = Vec::new();
        write_string(&mut out, b"<a>&\"\\\n\x01\x7f\xe2\x80\xa8\xe2\x82\xac\xe2\x82\xff");
        let expected = "\"\\u003ca\\u003e\\u0026\\\"\\\\\\n\\u0001\x7f\\u2028€\\ufffd\\ufffd\\ufffd\"";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
