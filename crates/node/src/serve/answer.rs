//! The answers of the socket, written into one buffer that is wiped.

use crate::entry::EntryVersion;
use crate::table::Held;
use claviger_domain::Timestamp;
use claviger_wire::native::{Problem, push_base64, unix_to_rfc3339};
use serde::Serialize;
use std::io::Write as _;
use std::time::Duration;
use zeroize::Zeroizing;

/// Bytes to be sent.
pub(crate) type Out = Zeroizing<Vec<u8>>;

/// A refusal: status, code, sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) u16, pub(crate) &'static str, pub(crate) String);

impl Refusal {
    /// The same whether there is no such secret, it is not registered, or it is not for this reader.
    pub(crate) fn not_found() -> Self {
        Self(404, "not_found", "there is no such secret here, or none that you may read".to_owned())
    }
}

/// Appends a secret's value as it is.
pub(crate) fn value(out: &mut Out, held: &Held, version: &EntryVersion, offline: Option<Duration>) {
    let data = version.data.expose();
    head(out, 200, "application/octet-stream", data.len(), |out| {
        // Writing to memory cannot fail.
        let _ = write!(out, "Claviger-Version: {}\r\nClaviger-Revision: {}\r\n", version.id, held.entry.revision);
        push_offline(out, offline);
    });
    out.extend_from_slice(data);
}

/// Appends all versions that are given out, as the native API writes a key's data.
pub(crate) fn versions(out: &mut Out, held: &Held, now: Timestamp, offline: Option<Duration>) {
    let entry = &held.entry;
    let room: usize = entry.versions.iter().map(|v| 200 + v.data.len().div_ceil(3) * 4).sum();
    let mut json = Zeroizing::new(Vec::with_capacity(200 + entry.id.as_str().len() + room));
    // Ids, tags, revisions and times need no escapes.
    let _ = write!(json, r#"{{"id":"{}","etag":"{}","revision":"{}","versions":["#, entry.id, entry.etag, entry.revision);
    for (i, version) in entry.live_at(now).enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let created = unix_to_rfc3339(version.created);
        let _ = write!(json, r#"{comma}{{"id":"{}","state":"{}","created":"{created}""#, version.id, version.state.name());
        if let Some(end) = version.expires {
            let _ = write!(json, r#","expires":"{}""#, unix_to_rfc3339(end));
        }
        json.extend_from_slice(br#","data":""#);
        push_base64(&mut json, version.data.expose());
        json.extend_from_slice(br#""}"#);
    }
    json.extend_from_slice(b"]}");
    head(out, 200, "application/json", json.len(), |out| push_offline(out, offline));
    out.extend_from_slice(&json);
}

/// Appends something that is no secret.
pub(crate) fn json(out: &mut Out, status: u16, body: &impl Serialize) {
    let body = serde_json::to_vec(body).expect("what is said of the agent is maps with text keys");
    head(out, status, "application/json", body.len(), |_| {});
    out.extend_from_slice(&body);
}

/// Appends a refusal.
pub(crate) fn refusal(out: &mut Out, Refusal(status, code, detail): &Refusal) {
    let title = reason(*status).to_owned();
    let problem =
        Problem { code: (*code).to_owned(), title, status: *status, detail: detail.clone(), field: None, request_id: "local".to_owned() };
    let body = serde_json::to_vec(&problem).expect("a problem is a map of text");
    head(out, *status, "application/problem+json", body.len(), |_| {});
    out.extend_from_slice(&body);
}

fn head(out: &mut Out, status: u16, content_type: &str, length: usize, more: impl FnOnce(&mut Out)) {
    // So that no half of a secret stays behind where the buffer grew.
    out.reserve(256 + length);
    let reason = reason(status);
    let _ = write!(
        out,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n"
    );
    more(out);
    out.extend_from_slice(b"\r\n");
}

fn push_offline(out: &mut Out, offline: Option<Duration>) {
    if let Some(offline) = offline {
        let _ = write!(out, "Claviger-Offline: {}\r\n", offline.as_secs());
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}
