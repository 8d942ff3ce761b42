//! The access callback: a local program, behind a Unix socket, that is asked when the ACLs say no (contract knox §7).
//!
//! One connection per question: one JSON line out, one JSON line back, `{"allow":true}` or `{"allow":false}`. It is handed
//! the key's record and never its data, unlike in the reference.

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
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER)).read_line(&mut answer).await?;
    Ok(serde_json::from_str::<Answer>(&answer)?.allow)
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

fn record(key: &KeyMeta) -> serde_json::Value {
    let acl: Vec<_> = key
        .acl
        .grants()
        .iter()
        .map(|g| json!({ "principal": g.principal.to_string(), "capabilities": g.capabilities.to_string() }))
        .collect();
    let versions: Vec<_> = key.versions.iter().map(|v| json!({ "id": v.id.get(), "status": v.state.name(), "ts": v.created.0 })).collect();
    json!({ "id": key.id.as_str(), "acl": acl, "versions": versions })
}
