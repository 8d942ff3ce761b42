//! One audit record as JSON. The bytes are what the log hashes, so this form never changes for records already written.
//!
//! Written by hand because it runs for every request; it never sees key data, since a [`Record`] has none ▲. A record that
//! is longer than an entry may be becomes several (see `parts`). Texts that others choose are cut, since nothing that is
//! asked, however long its names, may go unrecorded ▲.

mod parts;

pub(crate) use parts::encode_parts;

use claviger_domain::audit::{Record, Subject};
use claviger_domain::{Caller, Civil, Grant, Identity, Timestamp};
use std::io::Write;

/// Bytes of a reason, and of a key's id as asked for. Ids of keys and prefixes are shorter.
const TEXT: usize = 1024;
/// Bytes of a principal's or an identity's id: what a grant may have.
const NAME: usize = claviger_domain::MAX_PRINCIPAL;
/// Bytes that a person's groups may take.
const GROUPS: usize = 8 * 1024;

/// Encodes a record as one JSON object without a line break, however long.
#[must_use]
pub fn encode(record: &Record<'_>) -> Vec<u8> {
    write(record, &Share::whole(record))
}

/// What of a record's lists stands in one entry.
#[derive(Clone, Copy)]
struct Share<'r> {
    subjects: &'r [Subject<'r>],
    old: &'r [Grant],
    new: &'r [Grant],
    /// Which part it is, and of how many.
    part: Option<(usize, usize)>,
}

impl<'r> Share<'r> {
    fn whole(record: &Record<'r>) -> Self {
        let (old, new) = record.rights.map_or((&[][..], &[][..]), |change| (change.old.grants(), change.new.grants()));
        Self { subjects: record.subjects, old, new, part: None }
    }
}

fn write(record: &Record<'_>, share: &Share<'_>) -> Vec<u8> {
    let Record { at, request_id, caller, address, surface, action, subjects: _, outcome, reason, revision, rights, head, allowed_by } =
        record;
    let mut out = Json(Vec::with_capacity(384));
    out.raw(r#"{"time":""#);
    out.time(*at);
    out.raw(r#"","request":""#);
    out.hex128(request_id.0);
    out.raw(r#"","who":"#);
    out.who(*caller);
    if let Some(reason) = caller.and_then(Caller::system_reason) {
        out.raw(r#","system":"#);
        out.string(reason);
    }
    if let Some(address) = address {
        out.raw(r#","address":""#);
        out.display(address);
        out.raw("\"");
    }
    out.raw(r#","surface":"#);
    out.string(surface);
    out.raw(r#","action":""#);
    out.raw(action.name());
    out.raw(r#"","keys":"#);
    out.list(share.subjects.iter(), Json::subject);
    out.raw(r#","outcome":""#);
    out.raw(outcome.name());
    out.raw("\"");
    if !reason.is_empty() {
        out.raw(r#","reason":"#);
        out.cut(reason, TEXT);
    }
    if let Some(by) = allowed_by {
        out.raw(r#","allowed_by":"#);
        out.cut(by, TEXT);
    }
    if let Some(revision) = revision {
        out.raw(r#","revision":""#);
        out.display(revision);
        out.raw("\"");
    }
    if let Some(head) = head {
        out.raw(r#","head":""#);
        out.display(head);
        out.raw("\"");
    }
    if rights.is_some() {
        out.raw(r#","rights":{"old":"#);
        out.list(share.old.iter(), Json::grant);
        out.raw(r#","new":"#);
        out.list(share.new.iter(), Json::grant);
        out.raw("}");
    }
    if let Some((n, of)) = share.part {
        out.raw(r#","part":{"n":"#);
        out.number(n as u64);
        out.raw(r#","of":"#);
        out.number(of as u64);
        out.raw("}");
    }
    out.raw("}");
    out.0
}

/// The bytes that something takes.
fn length(write: impl FnOnce(&mut Json)) -> usize {
    let mut out = Json(Vec::new());
    write(&mut out);
    out.0.len()
}

/// `text`, or as much of its beginning as `most` bytes hold.
fn beginning(text: &str, most: usize) -> &str {
    if text.len() <= most { text } else { &text[..text.floor_char_boundary(most)] }
}

/// A JSON text being written.
struct Json(Vec<u8>);

impl Json {
    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    fn display(&mut self, value: &impl std::fmt::Display) {
        // Writing to a vector cannot fail.
        let _ = write!(self.0, "{value}");
    }

    fn string(&mut self, text: &str) {
        self.0.push(b'"');
        self.escaped(text);
        self.0.push(b'"');
    }

    /// As [`Self::string`], of a text that others choose: beyond `most` bytes three dots stand for the rest.
    fn cut(&mut self, text: &str, most: usize) {
        let begin = beginning(text, most);
        self.0.push(b'"');
        self.escaped(begin);
        if begin.len() < text.len() {
            self.raw("…");
        }
        self.0.push(b'"');
    }

    fn escaped(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut from = 0;
        for (i, byte) in bytes.iter().enumerate() {
            if !matches!(byte, b'"' | b'\\' | 0..=0x1f | 0x7f) {
                continue;
            }
            self.0.extend_from_slice(&bytes[from..i]);
            let _ = write!(self.0, "\\u{byte:04x}");
            from = i + 1;
        }
        self.0.extend_from_slice(&bytes[from..]);
    }

    fn hex128(&mut self, value: u128) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = (0..32).rev().map(|i| DIGITS[(value >> (4 * i)) as usize & 15]);
        self.0.extend(digits);
    }

    fn list<T>(&mut self, items: impl Iterator<Item = T>, mut one: impl FnMut(&mut Self, T)) {
        self.0.push(b'[');
        for (i, item) in items.enumerate() {
            if i > 0 {
                self.0.push(b',');
            }
            one(self, item);
        }
        self.0.push(b']');
    }

    fn who(&mut self, caller: Option<&Caller>) {
        let proven = caller.map(Caller::proven).unwrap_or_default();
        self.list(proven.iter(), |out, p| {
            out.raw(r#"{"type":""#);
            out.raw(p.identity.type_name());
            out.raw(r#"","id":"#);
            out.cut(p.identity.id(), NAME);
            if let Identity::User { groups, .. } = &p.identity
                && !groups.is_empty()
            {
                out.groups(groups);
            }
            out.raw(r#","how":"#);
            out.string(p.method);
            out.raw("}");
        });
    }

    /// The groups, or the first of them and how many more there are.
    fn groups(&mut self, groups: &[std::sync::Arc<str>]) {
        let mut taken = 0;
        let fits = |g: &&std::sync::Arc<str>| {
            taken += length(|out| out.cut(g, TEXT)) + 1;
            taken <= GROUPS
        };
        // Almost always all: that is found out without writing them.
        let all_fit = groups.iter().map(|g| g.len() * 6 + 3).sum::<usize>() <= GROUPS;
        let count = if all_fit { groups.len() } else { groups.iter().take_while(fits).count() };
        self.raw(r#","groups":"#);
        self.list(groups[..count].iter(), |out, g| out.cut(g, TEXT));
        if count < groups.len() {
            self.raw(r#","more_groups":"#);
            self.number((groups.len() - count) as u64);
        }
    }

    fn subject(&mut self, subject: &Subject<'_>) {
        self.raw(r#"{"id":"#);
        self.cut(subject.key, TEXT);
        self.raw(r#","versions":"#);
        self.list(subject.versions.iter(), |out, v| {
            out.0.push(b'"');
            out.number(v.get());
            out.0.push(b'"');
        });
        self.raw("}");
    }

    fn grant(&mut self, grant: &Grant) {
        let Grant { principal, capabilities } = grant;
        self.raw(r#"{"principal":"#);
        self.cut(&principal.to_string(), principal.type_name().len() + 1 + NAME);
        self.raw(r#","may":""#);
        self.display(capabilities);
        self.raw(r#""}"#);
    }

    fn number(&mut self, mut n: u64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.0.extend_from_slice(&digits[at..]);
    }

    fn padded(&mut self, n: u32, width: usize) {
        let mut digits = [b'0'; 10];
        let mut rest = n;
        for slot in digits[..width].iter_mut().rev() {
            *slot = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.0.extend_from_slice(&digits[..width]);
    }

    /// RFC 3339 in UTC with nine digits of a second, so that texts order as times do.
    fn time(&mut self, at: Timestamp) {
        let Civil { year, month, day, hour, minute, second, nanos } = at.civil();
        let year = u32::try_from(year).unwrap_or(0);
        for (n, width, after) in
            [(year, 4, b'-'), (month, 2, b'-'), (day, 2, b'T'), (hour, 2, b':'), (minute, 2, b':'), (second, 2, b'.'), (nanos, 9, b'Z')]
        {
            self.padded(n, width);
            self.0.push(after);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use claviger_domain::audit::{Action, Outcome, RightsChange};
    use claviger_domain::{Acl, Preset, Proven, RequestId, Revision, VersionId};
    use std::sync::Arc;

    #[test]
    fn a_record_is_one_json_object_with_everything_in_it() {
        let identity = Identity::User { name: "al\"ice\n".into(), groups: Arc::from([Arc::from("ops")]) };
        let caller = Caller::new(Arc::from([Proven { identity, method: "token" }]), RequestId(0xab), Some("::1".parse().unwrap())).unwrap();
        let versions = [VersionId::new(9_000_000_000_000_000_001).unwrap()];
        let new = Acl::default().set("user:bob".parse().unwrap(), Preset::Read.capabilities());
        let record = Record {
            at: Timestamp(1_795_344_987_385_876_162),
            request_id: caller.request_id,
            caller: Some(&caller),
            address: caller.address,
            surface: "knox",
            action: Action::ChangeRights,
            subjects: &[Subject { key: "svc:db", versions: &versions }],
            outcome: Outcome::Ok,
            reason: "",
            revision: Some(Revision { epoch: 1, number: 7 }),
            rights: Some(RightsChange { old: &Acl::default(), new: &new }),
            allowed_by: None,
            head: Some(Revision { epoch: 1, number: 9 }),
        };
        let text = String::from_utf8(encode(&record)).unwrap();
        let expected = concat!(
            r#"{"time":"2026-11-22T10:56:27.385876162Z","request":"000000000000000000000000000000ab","#,
            r#""who":[{"type":"user","id":"al\u0022ice\u000a","groups":["ops"],"how":"token"}],"address":"::1","surface":"knox","#,
            r#""action":"change_rights","keys":[{"id":"svc:db","versions":["9000000000000000001"]}],"outcome":"ok","revision":"1.7","head":"1.9","#,
            r#""rights":{"old":[],"new":[{"principal":"user:bob","may":"list,read,encrypt,decrypt,sign,verify"}]}}"#
        );
        assert_eq!(text, expected);
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn times_are_calendar_times() {
        let time = |t: i64| {
            let mut out = Json(Vec::new());
            out.time(Timestamp(t));
            String::from_utf8(out.0).unwrap()
        };
        assert_eq!(time(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(time(951_782_400_000_000_000), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(time(4_107_542_399_999_999_999), "2100-02-28T23:59:59.999999999Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59.999999999Z");
    }
}
