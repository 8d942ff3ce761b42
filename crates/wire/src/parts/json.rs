//! JSON whose members have one name each, and whose numbers stay as they were written.

use super::Part;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt;
use thiserror::Error;
use zeroize::Zeroizing;

/// Objects and arrays within each other at most.
const DEEPEST: usize = 32;
/// Bytes of all pointers of a text together at most: a name stands in the pointer of each thing below it, so that without this a megabyte
/// could have a hundred gigabytes of them.
const MOST_POINTERS: usize = 16 << 20;

/// A JSON value.
pub enum Json<'a> {
    /// An object, its members in their order.
    Object(Vec<(String, Json<'a>)>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// A string, without its escapes.
    String(Zeroizing<String>),
    /// A number, `true`, `false` or `null`, as written.
    Plain(&'a str),
}

/// Why a text is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JsonError {
    /// It is no JSON, or ends too early.
    #[error("no JSON from line {line}, column {column} on")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// An object has two members of one name.
    #[error("an object {} has a member twice", place(pointer))]
    Twice {
        /// Where the object is.
        pointer: String,
    },
    /// Too many levels.
    #[error("more than {DEEPEST} objects and arrays lie within each other")]
    TooDeep,
    /// Names so long, above so much, that to name it all would fill the memory.
    #[error("the names of its members, each with those above it, have more than 16 MiB")]
    TooLong,
}

fn place(pointer: &str) -> String {
    if pointer.is_empty() { "at the top".to_owned() } else { format!("at {pointer}") }
}

/// Reads a text.
///
/// # Errors
/// [`JsonError`], which names a place and repeats nothing.
pub fn parse(text: &str) -> Result<Json<'_>, JsonError> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|e| syntax(&e))?;
    value(raw, "", DEEPEST, &mut { MOST_POINTERS })
}

fn syntax(error: &serde_json::Error) -> JsonError {
    JsonError::Syntax { line: error.line(), column: error.column() }
}

/// `room` is for the pointers that are still to come.
fn value<'a>(raw: &'a RawValue, pointer: &str, depth: usize, room: &mut usize) -> Result<Json<'a>, JsonError> {
    let text = raw.get();
    *room = room.checked_sub(pointer.len()).ok_or(JsonError::TooLong)?;
    let deeper = || depth.checked_sub(1).ok_or(JsonError::TooDeep);
    match text.as_bytes().first() {
        Some(b'{') => {
            let Members(members) = serde_json::from_str(text).map_err(|e| syntax(&e))?;
            let mut seen = HashSet::with_capacity(members.len());
            if !members.iter().all(|(name, _)| seen.insert(name.as_str())) {
                return Err(JsonError::Twice { pointer: pointer.to_owned() });
            }
            let depth = deeper()?;
            let member = |(name, raw): (String, &'a RawValue)| {
                let inner = value(raw, &pointer_to(pointer, &name), depth, room)?;
                Ok((name, inner))
            };
            members.into_iter().map(member).collect::<Result<_, _>>().map(Json::Object)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|e| syntax(&e))?;
            let depth = deeper()?;
            let item = |(i, raw)| value(raw, &format!("{pointer}/{i}"), depth, room);
            items.into_iter().enumerate().map(item).collect::<Result<_, _>>().map(Json::Array)
        }
        Some(b'"') => serde_json::from_str(text).map(|s: String| Json::String(Zeroizing::new(s))).map_err(|e| syntax(&e)),
        _ => Ok(Json::Plain(text)),
    }
}

/// RFC 6901 §3.
fn pointer_to(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

impl<'a> Json<'a> {
    /// The member of this name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Json<'a>> {
        let Self::Object(members) = self else { return None };
        members.iter().find(|(n, _)| n == name).map(|(_, inner)| inner)
    }

    /// The items of an array.
    #[must_use]
    pub fn items(&self) -> Option<&[Json<'a>]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// A string's text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The text of a string, or of a number or word as written; nothing of objects and arrays.
    #[must_use]
    pub fn scalar(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::Plain(text) => Some(text),
            Self::Object(_) | Self::Array(_) => None,
        }
    }

    /// All that is neither object nor array, by its pointer, in order. Empty ones of those are not among them.
    #[must_use]
    pub fn leaves(&self) -> Vec<Part> {
        let mut leaves = Vec::new();
        self.collect(String::new(), &mut leaves);
        leaves
    }

    fn collect(&self, pointer: String, leaves: &mut Vec<Part>) {
        match self {
            Self::Object(members) => members.iter().for_each(|(name, inner)| inner.collect(pointer_to(&pointer, name), leaves)),
            Self::Array(items) => items.iter().enumerate().for_each(|(i, inner)| inner.collect(format!("{pointer}/{i}"), leaves)),
            Self::String(text) => leaves.push(Part { name: pointer, text: text.clone(), is_string: true }),
            Self::Plain(text) => leaves.push(Part { name: pointer, text: Zeroizing::new((*text).to_owned()), is_string: false }),
        }
    }
}

/// An object's members, also such of the same name.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Each)
    }
}

struct Each;

impl<'de> Visitor<'de> for Each {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry().map_err(A::Error::custom)? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn leaves_have_pointers_and_numbers_stay_as_written() {
        let text = r#"{"a/b": {"~": "x\ny"}, "n": 12345678901234567890.50, "none": null, "list": [true, []]}"#;
        let leaves: Vec<_> = parse(text).unwrap().leaves().into_iter().map(|p| (p.name, p.text.to_string())).collect();
        let expected = [("/a~1b/~0", "x\ny"), ("/n", "12345678901234567890.50"), ("/none", "null"), ("/list/0", "true")]
            .map(|(n, t)| (n.to_owned(), t.to_owned()));
        assert_eq!(leaves, expected);
    }

    #[test]
    fn a_long_name_above_many_things_does_not_fill_the_memory() {
        // Half a megabyte whose pointers would have 32 GiB.
        let text = format!("{{\"{}\": [{}0]}}", "n".repeat(256 << 10), "0,".repeat(128 << 10));
        assert_eq!(parse(&text).map(drop), Err(JsonError::TooLong));
        let plain = format!("{{\"name\": [{}0]}}", "0,".repeat(128 << 10));
        assert_eq!(parse(&plain).unwrap().leaves().len(), (128 << 10) + 1);
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place_and_not_its_text() {
        for text in ["", "{\"hunter2\": }", "{\"hunter2\" \"x\"}", "[1,]", "{\"a\": 1} x", "\"hunter2", "{\"a\": 01}", "nul"] {
            let error = parse(text).map(drop).unwrap_err();
            assert!(matches!(error, JsonError::Syntax { .. }) && !error.to_string().contains("hunter2"), "{text}: {error}");
        }
        assert_eq!(parse(r#"{"a": {"b": 1, "b": 1}}"#).map(drop), Err(JsonError::Twice { pointer: "/a".into() }));
        assert_eq!(
            parse(&"[".repeat(DEEPEST + 1).chars().chain("]".repeat(DEEPEST + 1).chars()).collect::<String>()).map(drop),
            Err(JsonError::TooDeep)
        );
        assert!(parse(&format!("{}1{}", "[".repeat(DEEPEST), "]".repeat(DEEPEST))).is_ok());
    }
}
