//! One audit record as a line for people. Records are JSON of any later server too: what is missing is left out.

use crate::output::Table;
use claviger_wire::native::AuditItem;
use serde_json::Value;

/// Records as a table, in the order given.
pub(super) fn table<'a>(items: impl IntoIterator<Item = &'a AuditItem>) -> Table {
    let mut table = Table::new(&["INDEX", "TIME", "OUTCOME", "WHO", "ACTION", "KEYS", "REASON"]);
    for AuditItem { index, record } in items {
        let cell = |name: &str| record[name].as_str().unwrap_or("").to_owned();
        table.row([&index.to_string(), &cell("time"), &cell("outcome"), &who(record), &action(record), &shown(record), &cell("reason")]);
    }
    table
}

/// All identities of a record, `TYPE:ID`.
fn who(record: &Value) -> String {
    let one = |w: &Value| Some(format!("{}:{}", w["type"].as_str()?, w["id"].as_str()?));
    let all: Vec<_> = record["who"].as_array().into_iter().flatten().filter_map(one).collect();
    match (all.is_empty(), record["system"].as_str()) {
        (true, Some(system)) => format!("({system})"),
        (true, None) => "(nobody)".to_owned(),
        (false, _) => all.join(" "),
    }
}

/// What was done; of a record that takes several entries, which of them this is.
fn action(record: &Value) -> String {
    let action = record["action"].as_str().unwrap_or("");
    match (record["part"]["n"].as_u64(), record["part"]["of"].as_u64()) {
        (Some(n), Some(of)) => format!("{action} ({n}/{of})"),
        _ => action.to_owned(),
    }
}

/// A record's keys, each with its versions.
pub(super) fn keys(record: &Value) -> impl Iterator<Item = &Value> {
    record["keys"].as_array().into_iter().flatten()
}

fn shown(record: &Value) -> String {
    let ids: Vec<_> = keys(record).filter_map(|k| k["id"].as_str()).collect();
    match &ids[..] {
        [first, second, third, rest @ ..] if !rest.is_empty() => format!("{first} {second} {third} and {} more", rest.len()),
        few => few.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_record_is_read_whatever_it_lacks() {
        let record = json!({"who": [{"type": "user", "id": "a"}, {"type": "machine", "id": "m"}], "keys": [{"id": "x", "versions": []}]});
        assert_eq!((who(&record), shown(&record)), ("user:a machine:m".to_owned(), "x".to_owned()));
        assert_eq!((who(&json!({})), shown(&json!({}))), ("(nobody)".to_owned(), String::new()));
        let many = json!({"keys": [{"id": "a"}, {"id": "b"}, {"id": "c"}, {"id": "d"}, {"id": "e"}]});
        assert_eq!(shown(&many), "a b c and 2 more");
        let part = json!({"action": "poll", "part": {"n": 2, "of": 13}});
        assert_eq!((action(&part), action(&json!({"action": "read"}))), ("poll (2/13)".to_owned(), "read".to_owned()));
    }
}
