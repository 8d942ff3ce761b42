//! Answers with key data. The hot path: one buffer of the right size, written once.

use super::request::version_id;
use super::{Answer, Ask, Native, SURFACE, json_answer, problem::Fault, quoted};
use crate::knox::version_hash;
use claviger_domain::{KeyId, Timestamp};
use claviger_engine::{Error, ReadKey, Select};
use claviger_wire::native::{BulkRead, FieldError, etag, push_base64, unix_to_rfc3339};
use std::collections::HashSet;
use std::fmt::Write as _;

/// Keys of one bulk read at most.
const MANY: usize = 1000;

impl Native {
    /// A key's data. The revision in the header is one from which a watch misses nothing of what was read.
    pub(crate) async fn read_data(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let select = wanted(ask)?;
        let revision = self.engine().revision();
        let read = self.engine().read(ask.caller, SURFACE, id.as_str(), select).await?;
        let etag = etag(&read.entry.meta);
        let room = size(&read);
        let mut json = Vec::with_capacity(room);
        push_key(&mut json, &read, &etag, false);
        debug_assert!(json.len() <= room, "{} bytes in room for {room}", json.len());
        let response = json_answer(200, json).with_header("ETag", quoted(&etag));
        Ok(response.with_header("Claviger-Revision", revision.to_string()))
    }

    /// Many keys' data, each with its own result.
    pub(crate) async fn read_many(&self, ask: &Ask<'_>) -> Answer {
        let BulkRead { ids, knox_hash } = many(ask)?;
        let revision = self.engine().revision();
        let results = self.engine().bulk_read(ask.caller, SURFACE, &ids).await?;
        let refused = results.iter().filter(|r| matches!(r, Err(Error::Denied(_) | Error::NotFound(_)))).count();
        if let Some(pause) = self.parts.callers.refused_for(ask.caller, refused) {
            tokio::time::sleep(pause).await;
        }
        let room = |r: &Result<ReadKey, _>| r.as_ref().map_or(128, size);
        let room = 16 + ids.iter().zip(&results).map(|(id, r)| 32 + id.len() + room(r)).sum::<usize>();
        let mut json = Vec::with_capacity(room);
        json.extend_from_slice(b"{\"items\":[");
        for (i, (id, result)) in ids.iter().zip(&results).enumerate() {
            json.extend_from_slice(if i == 0 { b"{\"id\":" } else { b",{\"id\":" });
            push_plain(&mut json, id);
            match result {
                Ok(read) => {
                    json.extend_from_slice(b",\"data\":");
                    push_key(&mut json, read, &etag(&read.entry.meta), knox_hash);
                }
                Err(error) => {
                    json.extend_from_slice(b",\"error\":");
                    push_plain(&mut json, Fault::of(error, false).code());
                    if let Error::Deleted { revision, .. } = error {
                        json.extend_from_slice(b",\"revision\":");
                        push_plain(&mut json, &revision.to_string());
                    }
                }
            }
            json.push(b'}');
        }
        json.extend_from_slice(b"]}");
        debug_assert!(json.len() <= room, "{} bytes in room for {room}", json.len());
        Ok(json_answer(200, json).with_header("Claviger-Revision", revision.to_string()))
    }
}

fn wanted(ask: &Ask<'_>) -> Result<Select, FieldError> {
    match (ask.query.one("version"), ask.query.one("state")) {
        (Some(_), Some(_)) => Err(FieldError::new("version", "give either `version` or `state`")),
        (Some(text), None) => version_id(text).map(Select::One),
        (None, None | Some("active")) => Ok(Select::Active),
        (None, Some("primary")) => Ok(Select::Primary),
        (None, Some("all")) => Ok(Select::All),
        (None, Some(_)) => Err(FieldError::new("state", "must be primary, active or all")),
    }
}

fn many(ask: &Ask<'_>) -> Result<BulkRead, FieldError> {
    let wanted: BulkRead = ask.json()?;
    ids_of(&wanted.ids)?;
    Ok(wanted)
}

/// Checks the ids of a request on many keys.
pub(super) fn ids_of(ids: &[String]) -> Result<(), FieldError> {
    if !(1..=MANY).contains(&ids.len()) {
        return Err(FieldError::new("ids", format!("must be 1 to {MANY} ids, not {}", ids.len())));
    }
    let mut seen = HashSet::with_capacity(ids.len());
    for (i, id) in ids.iter().enumerate() {
        KeyId::parse(id).map_err(|e| FieldError::new(format!("ids[{i}]"), e))?;
        if !seen.insert(id) {
            return Err(FieldError::new(format!("ids[{i}]"), "stands twice"));
        }
    }
    Ok(())
}

/// Bytes that a key's JSON takes at most, so that no half of a secret is left behind by a growing buffer.
pub(super) fn size(read: &ReadKey) -> usize {
    240 + read.entry.meta.id.as_str().len() + read.versions.iter().map(|(_, data)| 192 + data.len().div_ceil(3) * 4).sum::<usize>()
}

/// Appends text that needs no escaping: ids, states, times.
fn push_plain(json: &mut Vec<u8>, text: &str) {
    debug_assert!(text.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\'));
    json.push(b'"');
    json.extend_from_slice(text.as_bytes());
    json.push(b'"');
}

fn push_time(json: &mut Vec<u8>, name: &str, at: Timestamp) {
    json.extend_from_slice(name.as_bytes());
    push_plain(json, &unix_to_rfc3339(at));
}

/// Appends a key as `KeyData` has it.
pub(super) fn push_key(json: &mut Vec<u8>, read: &ReadKey, etag: &str, with_hash: bool) {
    let meta = &read.entry.meta;
    json.extend_from_slice(b"{\"id\":");
    push_plain(json, meta.id.as_str());
    json.extend_from_slice(b",\"etag\":");
    push_plain(json, etag);
    let mut text = String::with_capacity(32);
    // Writing to a string cannot fail.
    let _ = write!(text, "{}", read.entry.revision);
    json.extend_from_slice(b",\"revision\":");
    push_plain(json, &text);
    json.extend_from_slice(b",\"versions\":[");
    for (i, (version, data)) in read.versions.iter().enumerate() {
        json.extend_from_slice(if i == 0 { b"{\"id\":" } else { b",{\"id\":" });
        push_plain(json, itoa::Buffer::new().format(version.id.get()));
        json.extend_from_slice(b",\"state\":");
        push_plain(json, version.state.name());
        push_time(json, ",\"created\":", version.created);
        if let Some(end) = version.end_of_life(meta.max_lifetime) {
            push_time(json, ",\"expires\":", end);
        }
        json.extend_from_slice(b",\"data\":\"");
        push_base64(json, data.expose());
        json.extend_from_slice(b"\"}");
    }
    json.push(b']');
    if with_hash {
        json.extend_from_slice(b",\"hash\":");
        push_plain(json, version_hash(meta).as_str());
    }
    json.push(b'}');
}
