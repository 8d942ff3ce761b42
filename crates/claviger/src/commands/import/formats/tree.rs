//! A JSON object: strings, numbers and words are values, objects within it lead deeper.

use super::{Entry, Read, Refused, bounded, text};
use claviger_domain::SecretBytes;
use claviger_wire::parts::json::{Json, parse};

pub(crate) fn read(bytes: &[u8]) -> Read {
    let json = parse(text(bytes)?).map_err(|e| Refused::new(e.to_string()))?;
    let Json::Object(_) = json else { return Err(Refused::new("it is no JSON object")) };
    bounded(entries(&json, &[]))
}

/// The entries of an object below `path`.
pub(super) fn entries(json: &Json<'_>, path: &[&str]) -> Vec<Entry> {
    let mut found = Vec::new();
    collect(json, &mut path.to_vec(), &mut found);
    found
}

fn collect<'j>(json: &'j Json<'_>, path: &mut Vec<&'j str>, found: &mut Vec<Entry>) {
    let value = match json {
        Json::Object(members) if members.is_empty() => Err("an empty object has no value"),
        Json::Object(members) => {
            for (name, inner) in members {
                path.push(name);
                collect(inner, path, found);
                path.pop();
            }
            return;
        }
        Json::Array(_) => Err("an array has no names for its items; put it in by hand"),
        Json::Plain("null") => Err("it is null"),
        Json::String(text) => Ok(SecretBytes::new(text.as_bytes().to_vec())),
        Json::Plain(text) => Ok(SecretBytes::new(text.as_bytes().to_vec())),
    };
    found.push(Entry::new(path, value));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::fuzz::shown;
    use super::*;

    #[test]
    fn objects_lead_deeper_and_what_has_no_name_is_refused_by_itself() {
        let found = read(br#"{"db": {"user": "a", "port": 5432.0}, "on": true, "none": null, "list": [1], "empty": {}}"#).unwrap();
        assert_eq!(shown(&found), ["db/user=a", "db/port=5432.0", "on=true", "none!", "list!", "empty!"]);
        for bad in ["[]", "1", "", "{\"hunter2\": 1, \"hunter2\": 2}", "{\"a\": hunter2}"] {
            let why = read(bad.as_bytes()).unwrap_err().0;
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
