//! A record as one line of the Elastic Common Schema, for sites that collect logs in that form.

use claviger_domain::Caller;
use claviger_domain::audit::{Outcome, Record};
use serde_json::{Map, Value, json};

/// Encodes a record, of which `entry` is what stands in the log, or a part of it, as one ECS JSON object without a line break.
#[must_use]
pub fn encode_ecs(record: &Record<'_>, entry: &[u8]) -> Vec<u8> {
    let own: Value = serde_json::from_slice(entry).unwrap_or(Value::Null);
    let outcome = if record.outcome == Outcome::Ok { "success" } else { "failure" };
    let mut line = Map::new();
    line.insert("@timestamp".into(), own["time"].clone());
    line.insert("ecs".into(), json!({ "version": "8.11" }));
    line.insert(
        "event".into(),
        json!({
            "kind": "event", "category": ["iam"], "dataset": "claviger.audit", "provider": record.surface,
            "action": record.action.name(), "outcome": outcome, "reason": own["reason"].as_str().unwrap_or_default(), "id": own["request"],
        }),
    );
    if let Some(who) = record.caller.and_then(Caller::default_identity) {
        line.insert("user".into(), json!({ "name": who.id(), "roles": [who.type_name()] }));
    }
    if let Some(address) = record.address {
        line.insert("source".into(), json!({ "ip": address.to_string() }));
    }
    // What ECS has no field for stands in our own namespace.
    line.insert("claviger".into(), own);
    serde_json::to_vec(&Value::Object(line)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use claviger_domain::audit::{Action, Subject};
    use claviger_domain::{RequestId, Timestamp};

    #[test]
    fn a_line_has_the_schemas_fields_and_ours() {
        let record = Record {
            at: Timestamp(0),
            request_id: RequestId(1),
            caller: None,
            address: Some("10.0.0.1".parse().unwrap()),
            surface: "knox",
            action: Action::Read,
            subjects: &[Subject { key: "a", versions: &[] }],
            outcome: Outcome::Denied,
            reason: "no",
            revision: None,
            rights: None,
            allowed_by: None,
            head: None,
        };
        let line: Value = serde_json::from_slice(&encode_ecs(&record, &crate::record::encode(&record))).unwrap();
        assert_eq!(line["event"]["outcome"], "failure");
        assert_eq!(line["source"]["ip"], "10.0.0.1");
        assert_eq!(line["claviger"]["keys"][0]["id"], "a");
        assert_eq!(line["@timestamp"], "1970-01-01T00:00:00.000000000Z");
    }
}
