//! The access callback: a local program, behind a Unix socket, that is asked when the ACLs say no (contract knox §7).
//!
//! One connection per question: one JSON line out, one JSON line back, `{"allow":true}` or `{"allow":false}`. It is handed
//! the key's record and never its data, unlike in the reference.

use crate::knox;
use claviger_domain::{Capability, KeyMeta};
use claviger_engine::{AccessPolicy, Policy, Question};
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Bytes of answer that are read at most.
const ANSWER: u64 = 4096;

struct Socket {
    path: PathBuf,
    timeout: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    allow: bool,
}

/// The policy behind the socket at `path`; an answer that takes longer than `timeout` is none.
pub(crate) fn policy(path: PathBuf, timeout: Duration) -> Policy {
    Policy(Arc::new(Socket { path, timeout }))
}

impl AccessPolicy for Socket {
    fn ask(&self, question: Question<'_>) -> BoxFuture<'static, Result<bool, String>> {
        let (line, path, timeout) = (line(question), self.path.clone(), self.timeout);
        Box::pin(async move {
            let asked = tokio::time::timeout(timeout, exchange(path, line)).await;
            asked.map_err(|_| format!("no answer within {} ms", timeout.as_millis()))?.map_err(|e| e.to_string())
        })
    }
}

async fn exchange(path: PathBuf, line: String) -> std::io::Result<bool> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(line.as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER)).read_line(&mut line).await?;
    answer(&line)
}

/// What one line of answer says.
pub(crate) fn answer(line: &str) -> std::io::Result<bool> {
    Ok(serde_json::from_str::<Answer>(line)?.allow)
}

fn line(question: Question<'_>) -> String {
    let Question { key, caller, wanted } = question;
    let access = match wanted {
        Capability::Write => "Write",
        Capability::Admin => "Admin",
        _ => "Read",
    };
    let principals: Vec<_> = caller.identities().map(|i| json!({ "id": i.id(), "type": i.type_name() })).collect();
    let mut line = json!({ "key": record(key), "principals": principals, "access_type": access }).to_string();
    line.push('\n');
    line
}

/// The key as Knox writes it, but for the data: `null`, as Knox writes none. Whoever may do nothing that Knox has a word for
/// and versions that are destroyed are left out, as on Knox's surface.
fn record(key: &KeyMeta) -> serde_json::Value {
    let entry = |g| {
        let shown = knox::shown(g)?;
        Some(json!({ "type": shown.kind.as_str(), "id": shown.id, "access": shown.access.as_str() }))
    };
    let version = |v| {
        let status = knox::status(v)?;
        Some(json!({ "id": v.id.get(), "data": null, "status": status.as_str(), "ts": v.created.0 }))
    };
    let acl: Vec<_> = key.acl.grants().iter().filter_map(entry).collect();
    let versions: Vec<_> = key.versions.iter().filter_map(version).collect();
    json!({ "id": key.id.as_str(), "acl": acl, "versions": versions, "hash": knox::version_hash(key).as_str() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use claviger_domain::{
        Acl, Caller, Capabilities, Created, Generation, Identity, Incarnation, KeyId, KeyKind, KeyPolicy, Labels, Preset, Proven,
        RequestId, Timestamp, Version, VersionId, VersionState, Versions,
    };

    #[test]
    fn the_callback_is_asked_about_a_key_as_knox_writes_it() {
        let version = |id, state| Version { id: VersionId::new(id).unwrap(), state, created: Timestamp(7), expires: None };
        let states = [(1, VersionState::Primary), (2, VersionState::Active), (3, VersionState::Inactive), (4, VersionState::Destroyed)];
        let acl = Acl::default().set("user_group:ops".parse().unwrap(), Preset::Write.capabilities());
        let key = KeyMeta {
            id: KeyId::parse("k:1").unwrap(),
            incarnation: Incarnation(1),
            generation: Generation::FIRST,
            kind: KeyKind::Secret,
            policy: KeyPolicy::default(),
            acl: acl.set("machine:m".parse().unwrap(), Capabilities::of([Capability::List])),
            versions: Versions::new(states.map(|(id, state)| version(id, state)).to_vec()).unwrap(),
            separate_duties: false,
            max_lifetime: None,
            description: "".into(),
            rules: claviger_domain::Rules::default(),
            labels: Labels::default(),
            created: Created { at: Timestamp(0), by: "x".into() },
        };
        let identity = Identity::Service { id: "spiffe://d/s".into() };
        let caller = Caller::new(Arc::from([Proven { identity, method: "spiffe" }]), RequestId(1), None).unwrap();
        let asked = line(Question { key: &key, caller: &caller, wanted: Capability::Admin });
        assert!(asked.ends_with("}\n"));
        let asked: serde_json::Value = serde_json::from_str(&asked).unwrap();
        let version = |id, status| json!({ "id": id, "data": null, "status": status, "ts": 7 });
        let expected = json!({
            "key": {
                "id": "k:1",
                "acl": [{ "type": "UserGroup", "id": "ops", "access": "Write" }],
                "versions": [version(1, "Primary"), version(2, "Active"), version(3, "Inactive")],
                "hash": "e92b80d2ee5ab0f63d286728dc9849450b7cf439c2c2718d3bac632a510fd50c",
            },
            "principals": [{ "id": "spiffe://d/s", "type": "service" }],
            "access_type": "Admin",
        });
        assert_eq!(asked, expected);
    }
}
