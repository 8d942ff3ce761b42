//! The JSON answer of every routed request (§2): six members, always all of them, and a final newline.
//!
//! Answers are written straight into a byte vector, without an intermediate tree, because the read answer is the hot
//! path. HTTP status, headers and framing belong to the caller; the two headers every answer carries are
//! [`HEADERS`].

use super::base64::encode_standard;
use super::json::write_string;
use super::text;
use super::types::{EntryRef, InvalidType, VersionStatus, write_acl};

/// Headers of every routed response, errors included.
pub const HEADERS: [(&str, &str); 2] = [("Content-Type", "application/json"), ("X-Content-Type-Options", "nosniff")];

/// The `code` member. Clients decide by it, and by its pairing with the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// Success.
    Ok = 0,
    /// Internal error; the client retries on this code, three attempts in all.
    Internal = 1,
    /// Creation of a key that exists.
    KeyExists = 2,
    /// No such version.
    NoSuchVersion = 3,
    /// No such key.
    NoSuchKey = 4,
    /// No provider accepted the caller.
    Unauthenticated = 5,
    /// The caller may not do this.
    Unauthorized = 6,
    /// Never sent by the reference.
    NotImplemented = 7,
    /// No such route.
    RouteNotFound = 8,
    /// Creation without an id.
    NoKeyId = 9,
    /// Creation without data.
    NoKeyData = 10,
    /// A parameter is missing or malformed.
    BadRequestData = 11,
    /// Creation with an id Knox does not allow.
    BadKeyFormat = 12,
    /// An ACL entry names an impossible principal.
    BadPrincipal = 13,
}

impl Code {
    /// Every code, in order of its number.
    pub const ALL: [Self; 14] = [
        Self::Ok,
        Self::Internal,
        Self::KeyExists,
        Self::NoSuchVersion,
        Self::NoSuchKey,
        Self::Unauthenticated,
        Self::Unauthorized,
        Self::NotImplemented,
        Self::RouteNotFound,
        Self::NoKeyId,
        Self::NoKeyData,
        Self::BadRequestData,
        Self::BadKeyFormat,
        Self::BadPrincipal,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The one HTTP status that goes with the code.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Internal => 500,
            Self::NoSuchVersion | Self::NoSuchKey | Self::RouteNotFound => 404,
            Self::Unauthenticated => 401,
            Self::Unauthorized => 403,
            Self::NotImplemented => 501,
            Self::KeyExists | Self::NoKeyId | Self::NoKeyData | Self::BadRequestData | Self::BadKeyFormat | Self::BadPrincipal => 400,
        }
    }
}

/// The server's host name, escaped once for all answers.
#[derive(Debug, Clone)]
pub struct HostName {
    json: Box<[u8]>,
}

impl HostName {
    /// Prepares a host name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut json = Vec::with_capacity(name.len() + 2);
        write_string(&mut json, name.as_bytes());
        Self { json: json.into_boxed_slice() }
    }
}

/// One version in a read answer.
#[derive(Clone, Copy)]
pub struct VersionAnswer<'a> {
    /// Version id; passes 2^53.
    pub id: u64,
    /// The secret. Empty data is written as `null`, as the reference does.
    pub data: &'a [u8],
    /// State.
    pub status: VersionStatus,
    /// Time of creation, nanoseconds since 1970.
    pub ts: i64,
}

/// A read answer: the versions already filtered, in insertion order. The ACL is always written as `[]`.
#[derive(Clone, Copy)]
pub struct KeyAnswer<'a, V> {
    /// Key id.
    pub id: &'a str,
    /// Versions to show; iterated twice, once to size the answer.
    pub versions: V,
    /// Hash over *all* versions of the key.
    pub hash: &'a str,
}

/// The members that every answer shares. Each method appends one whole answer to `out`.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Who answers.
    pub host: &'a HostName,
    /// When, nanoseconds since 1970.
    pub ts: i64,
}

impl Answer<'_> {
    /// Success of §4.3.
    pub fn key<'v, V>(&self, out: &mut Vec<u8>, key: KeyAnswer<'_, V>)
    where
        V: IntoIterator<Item = VersionAnswer<'v>> + Clone,
    {
        let KeyAnswer { id, versions, hash } = key;
        let size: usize = versions.clone().into_iter().map(|v| v.data.len().div_ceil(3) * 4 + 96).sum();
        out.reserve(size + id.len() + hash.len() + self.host.json.len() + 128);
        self.success(out, |out| {
            out.extend_from_slice(b"{\"id\":");
            write_string(out, id.as_bytes());
            out.extend_from_slice(b",\"acl\":[],\"versions\":[");
            write_separated(out, versions, write_version);
            out.extend_from_slice(b"],\"hash\":");
            write_string(out, hash.as_bytes());
            out.push(b'}');
        });
    }

    /// Success of §4.1: an array of ids, `[]` when there are none.
    pub fn key_ids<'i>(&self, out: &mut Vec<u8>, ids: impl IntoIterator<Item = &'i str>) {
        self.success(out, |out| {
            out.push(b'[');
            write_separated(out, ids, |out, id| write_string(out, id.as_bytes()));
            out.push(b']');
        });
    }

    /// Success of §4.2 and §4.7: the id of the new version, as a number.
    pub fn version_id(&self, out: &mut Vec<u8>, id: u64) {
        self.success(out, |out| write_u64(out, id));
    }

    /// Success without data (§4.4, §4.6, §4.8).
    pub fn null(&self, out: &mut Vec<u8>) {
        self.success(out, |out| out.extend_from_slice(b"null"));
    }

    /// Success of §4.5.
    ///
    /// # Errors
    /// [`InvalidType`] when an entry can not be encoded; nothing is then appended. (The reference sends an empty 200.)
    pub fn acl<'e>(&self, out: &mut Vec<u8>, entries: impl IntoIterator<Item = EntryRef<'e>>) -> Result<(), InvalidType> {
        let start = out.len();
        let mut written = Ok(());
        self.success(out, |out| written = write_acl(out, entries));
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    /// A failure, to be sent with `code`'s HTTP status. A sentence that would make daemons forget the key is broken
    /// up, should a caller have planted it in an id (see [`text::defused`]).
    pub fn error(&self, out: &mut Vec<u8>, code: Code, message: &[u8]) {
        self.begin(out, b"{\"status\":\"error\",\"code\":", code);
        let safe = text::defused(message);
        write_string(out, safe.as_deref().unwrap_or(message));
        out.extend_from_slice(b",\"data\":null}\n");
    }

    fn success(&self, out: &mut Vec<u8>, write_data: impl FnOnce(&mut Vec<u8>)) {
        self.begin(out, b"{\"status\":\"ok\",\"code\":", Code::Ok);
        out.extend_from_slice(b"\"\",\"data\":");
        write_data(out);
        out.extend_from_slice(b"}\n");
    }

    /// Everything up to the value of `message`.
    fn begin(&self, out: &mut Vec<u8>, start: &[u8], code: Code) {
        out.extend_from_slice(start);
        write_u64(out, u64::from(code.number()));
        out.extend_from_slice(b",\"host\":");
        out.extend_from_slice(&self.host.json);
        out.extend_from_slice(b",\"ts\":");
        write_i64(out, self.ts);
        out.extend_from_slice(b",\"message\":");
    }
}

fn write_version(out: &mut Vec<u8>, version: VersionAnswer<'_>) {
    let VersionAnswer { id, data, status, ts } = version;
    out.extend_from_slice(b"{\"id\":");
    write_u64(out, id);
    if data.is_empty() {
        out.extend_from_slice(b",\"data\":null");
    } else {
        out.extend_from_slice(b",\"data\":\"");
        encode_standard(out, data);
        out.push(b'"');
    }
    out.extend_from_slice(b",\"status\":\"");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b"\",\"ts\":");
    write_i64(out, ts);
    out.push(b'}');
}

/// Writes items with commas between them.
pub(super) fn write_separated<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

pub(super) fn write_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn write_i64(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::knox::types::{AccessEntry, AccessLevel, PrincipalType};

    fn written(write: impl FnOnce(&Answer<'_>, &mut Vec<u8>)) -> String {
        let host = HostName::new("vm");
        let mut out = Vec::new();
        write(&Answer { host: &host, ts: 1_795_345_065_947_974_117 }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_wire_sample_of_the_contract_is_reproduced() {
        let version =
            VersionAnswer { id: 2_799_019_145_226_080_063, data: b"hello", status: VersionStatus::Primary, ts: 1_795_344_987_385_876_162 };
        let hash = "c94acbf7f768dee7edb1f99cbbe2376250875674f748f26d996690b7c78e7b7e";
        let answer = written(|answer, out| answer.key(out, KeyAnswer { id: "k:1", versions: [version], hash }));
        assert_eq!(
            answer,
            concat!(
                r#"{"status":"ok","code":0,"host":"vm","ts":1795345065947974117,"message":"","data":{"id":"k:1","acl":[],"#,
                r#""versions":[{"id":2799019145226080063,"data":"aGVsbG8=","status":"Primary","ts":1795344987385876162}],"#,
                r#""hash":"c94acbf7f768dee7edb1f99cbbe2376250875674f748f26d996690b7c78e7b7e"}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn empty_data_is_null() {
        let version = VersionAnswer { id: u64::MAX, data: b"", status: VersionStatus::Inactive, ts: -3 };
        let answer = written(|answer, out| {
            answer.key(out, KeyAnswer { id: "k", versions: [version, version].iter().copied(), hash: "h" });
        });
        let one = r#"{"id":18446744073709551615,"data":null,"status":"Inactive","ts":-3}"#;
        assert!(answer.contains(&format!("\"versions\":[{one},{one}]")), "{answer}");
    }

    #[test]
    fn the_other_answers_have_all_six_members() {
        let head = |code: u8, status: &str| {
            format!("{{\"status\":\"{status}\",\"code\":{code},\"host\":\"vm\",\"ts\":1795345065947974117,\"message\":")
        };
        let ok = head(0, "ok");
        assert_eq!(written(|a, out| a.null(out)), format!("{ok}\"\",\"data\":null}}\n"));
        assert_eq!(written(|a, out| a.version_id(out, 7)), format!("{ok}\"\",\"data\":7}}\n"));
        assert_eq!(written(|a, out| a.key_ids(out, [])), format!("{ok}\"\",\"data\":[]}}\n"));
        assert_eq!(written(|a, out| a.key_ids(out, ["a", "b<"])), format!("{ok}\"\",\"data\":[\"a\",\"b\\u003c\"]}}\n"));
        assert_eq!(
            written(|a, out| a.error(out, Code::NoSuchKey, b"No such key \xff&")),
            format!("{}\"No such key \\ufffd\\u0026\",\"data\":null}}\n", head(4, "error"))
        );
    }

    #[test]
    fn an_acl_that_can_not_be_encoded_appends_nothing() {
        let good = AccessEntry { kind: PrincipalType::Machine, id: "m".into(), access: AccessLevel::Read };
        let shown = written(|a, out| a.acl(out, [good.as_ref()]).unwrap());
        assert!(shown.ends_with("\"data\":[{\"type\":\"Machine\",\"id\":\"m\",\"access\":\"Read\"}]}\n"), "{shown}");
        let bad = AccessEntry::default();
        assert_eq!(written(|a, out| assert!(a.acl(out, [good.as_ref(), bad.as_ref()]).is_err())), "");
    }

    #[test]
    fn no_error_ever_carries_a_forbidden_sentence() {
        for phrase in text::FORBIDDEN {
            let answer = written(|a, out| a.error(out, Code::NoSuchKey, &text::no_such_key(phrase.as_bytes())));
            assert!(!answer.contains(phrase), "{answer}");
        }
    }

    #[test]
    fn codes_and_statuses_are_the_pairs_of_the_contract() {
        let pairs = Code::ALL.map(|code| (code.http_status(), code.number()));
        let expected = [
            (200, 0),
            (500, 1),
            (400, 2),
            (404, 3),
            (404, 4),
            (401, 5),
            (403, 6),
            (501, 7),
            (404, 8),
            (400, 9),
            (400, 10),
            (400, 11),
            (400, 12),
            (400, 13),
        ];
        assert_eq!(pairs, expected);
    }
}
