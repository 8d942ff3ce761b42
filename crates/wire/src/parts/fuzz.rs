//! Entry points for fuzzing: each takes any text and checks what must hold for all of them.

use super::{Parts, dotenv, json};

/// JSON: what is taken is what another parser takes, and no error repeats what was read.
///
/// # Panics
/// When that does not hold.
pub fn json(text: &str) {
    let reference = serde_json::from_str::<serde_json::Value>(text);
    match json::parse(text) {
        Ok(found) => {
            let count = reference.map_or(0, |value| leaves(&value));
            assert_eq!(found.leaves().len(), count, "what the two parsers found");
        }
        Err(json::JsonError::Syntax { line, column }) => assert!(line <= text.len() + 1 && column <= text.len() + 1),
        Err(_) => {}
    }
}

fn leaves(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Object(members) => members.values().map(leaves).sum(),
        serde_json::Value::Array(items) => items.iter().map(leaves).sum(),
        _ => 1,
    }
}

/// Dotenv: what is read can be written in single quotes or escapes and is read as the same again.
///
/// # Panics
/// When that does not hold.
pub fn dotenv(text: &str) {
    let lines = text.matches('\n').count() + 1;
    match dotenv::parse(text) {
        Ok(parts) => {
            let escaped = |text: &str| text.chars().map(escape).collect::<String>();
            let written: String = parts.iter().map(|p| format!("{}=\"{}\"\n", p.name, escaped(&p.text))).collect();
            let again = dotenv::parse(&written).unwrap_or_default();
            let pair = |p: &super::Part| (p.name.clone(), p.text.to_string());
            assert_eq!(again.iter().map(pair).collect::<Vec<_>>(), parts.iter().map(pair).collect::<Vec<_>>());
        }
        Err(error) => assert!((1..=lines).contains(&error.line)),
    }
}

fn escape(c: char) -> String {
    match c {
        '"' | '\\' | '$' | '`' => format!("\\{c}"),
        c => c.to_string(),
    }
}

/// Values of any bytes.
pub fn parts(value: &[u8]) {
    if let Parts::Names(all) = Parts::of(value) {
        assert!(all.len() > 1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            super::json(&text);
            super::dotenv(&text);
            super::parts(text.as_bytes());
        }

        #[test]
        fn text_like_json_is_read_or_refused(text in r#"([\[\]{},: "a1.\\]|"a"|"b":|null|1e5|\\u00e9){0,40}"#) {
            super::json(&text);
            super::parts(text.as_bytes());
        }

        #[test]
        fn text_like_dotenv_is_read_or_refused(text in r#"(A|B|=|'|"|\\|\\n|\$|#| |\t|\n|\r\n|export |x){0,40}"#) {
            super::dotenv(&text);
            super::parts(text.as_bytes());
        }
    }
}
