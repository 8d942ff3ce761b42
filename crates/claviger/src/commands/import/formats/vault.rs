//! Vault: what `vault kv get -format=json` prints, of either version of the key-value engine, or a tree of paths with their fields as
//! export tools write it.

use super::{Read, Refused, bounded, text, tree};
use claviger_wire::parts::json::{Json, parse};

pub(crate) fn read(bytes: &[u8]) -> Read {
    let json = parse(text(bytes)?).map_err(|e| Refused::new(e.to_string()))?;
    let Json::Object(_) = &json else { return Err(Refused::new("it is no JSON object")) };
    let is_answer = json.member("request_id").and_then(Json::as_str).is_some() && json.member("data").is_some();
    if is_answer {
        return answer(&json);
    }
    let mut entries = tree::entries(&json, &[]);
    // A path may be one name, as in {"secret/app/db": {…}}; a slash at its end means a folder.
    for entry in &mut entries {
        entry.path = entry.path.iter().flat_map(|segment| segment.trim_matches('/').split('/').map(str::to_owned)).collect();
    }
    bounded(entries)
}

/// The fields of one secret. Version 2 has its versions' metadata beside them (`data.data`, `data.metadata`).
fn answer(json: &Json<'_>) -> Read {
    let missing = || Refused::new("the answer has no data");
    let data = json.member("data").ok_or_else(missing)?;
    let is_second = data.member("metadata").is_some_and(|m| m.member("version").is_some());
    let fields = if is_second { data.member("data").ok_or_else(missing)? } else { data };
    match fields {
        Json::Object(_) => bounded(tree::entries(fields, &[])),
        _ => Err(Refused::new("the answer is of a version that was deleted or destroyed: it has no data")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::fuzz::shown;
    use super::*;

    #[test]
    fn both_engines_answers_and_trees_are_read() {
        let second = br#"{"request_id": "x", "lease_id": "", "data": {"data": {"user": "a", "n": 1}, "metadata": {"version": 3, "destroyed": false}}}"#;
        assert_eq!(shown(&read(second).unwrap()), ["user=a", "n=1"]);
        let first = br#"{"request_id": "x", "lease_duration": 2764800, "data": {"data": "d", "metadata": "m"}, "warnings": null}"#;
        assert_eq!(shown(&read(first).unwrap()), ["data=d", "metadata=m"]);
        let tree = br#"{"app/db/": {"user": "a"}, "app": {"x/y": {"z": "b"}}, "data": {"k": "v"}}"#;
        assert_eq!(shown(&read(tree).unwrap()), ["app/db/user=a", "app/x/y/z=b", "data/k=v"]);
        let gone = br#"{"request_id": "x", "data": {"data": null, "metadata": {"version": 3, "deletion_time": "2026"}}}"#;
        assert!(read(gone).unwrap_err().0.contains("deleted"));
    }
}
