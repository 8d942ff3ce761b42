//! The named parts of a value: members of JSON, names of a dotenv file.
//!
//! Values are kept as they came; who needs to look into one (to compare versions, to import a file, to find a value in a working tree)
//! does it here, strictly and within bounds. No error ever repeats what was read ▲.

pub mod dotenv;
#[doc(hidden)]
pub mod fuzz;
pub mod json;

use zeroize::Zeroizing;

/// A named part of a value.
pub struct Part {
    /// A JSON pointer (RFC 6901), or a name of a dotenv file.
    pub name: String,
    /// Its text: a string without its quotes and escapes, anything else as it stands.
    pub text: Zeroizing<String>,
    /// Whether it is a string; of JSON the number `1` is none, and `"1"` is one.
    pub is_string: bool,
}

/// What a value is made of.
pub enum Parts {
    /// A JSON object or array, by its leaves.
    Members(Vec<Part>),
    /// A dotenv file, by its names.
    Names(Vec<Part>),
    /// Text.
    Text,
    /// Bytes that are no text.
    Bytes,
}

impl Parts {
    /// Looks into a value.
    ///
    /// Dotenv is recognised with care, since what is taken for a name is shown: two assignments at least, each of something that is no
    /// mere padding. A token in base64 with its `=` behind it is none.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(value) else { return Self::Bytes };
        if text.trim_start().starts_with(['{', '['])
            && let Ok(json) = json::parse(text)
        {
            return Self::Members(json.leaves());
        }
        match dotenv::parse(text) {
            Ok(all) if all.len() > 1 && all.iter().all(|part| !part.text.trim_matches('=').is_empty()) => Self::Names(all),
            _ => Self::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(value: &str) -> String {
        match Parts::of(value.as_bytes()) {
            Parts::Members(all) => format!("members {}", all.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(" ")),
            Parts::Names(all) => format!("names {}", all.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(" ")),
            Parts::Text => "text".to_owned(),
            Parts::Bytes => "bytes".to_owned(),
        }
    }

    #[test]
    fn values_are_looked_into_where_they_have_names() {
        for (value, expected) in [
            (r#"{"user": "a", "db": {"port": 5432, "hosts": ["x", "y"]}}"#, "members /user /db/port /db/hosts/0 /db/hosts/1"),
            (r#"["a", {}]"#, "members /0"),
            (r#"{"a": 1, "a": 2}"#, "text"),
            ("A=1\nB=2\n", "names A B"),
            ("hunter2", "text"),
            (r#""hunter2""#, "text"),
        ] {
            assert_eq!(names(value), expected, "{value}");
        }
        assert!(matches!(Parts::of(&[0xff, 0xfe]), Parts::Bytes));
    }

    #[test]
    fn no_secret_is_taken_for_a_name() {
        for value in ["c2VjcmV0=", "c2VjcmV0==\n", "c2VjcmV0=\nbW9yZQ==\n", "MFRGG===\nMFRGG===", "token=", "a=b"] {
            assert_eq!(names(value), "text", "{value}");
        }
    }
}
