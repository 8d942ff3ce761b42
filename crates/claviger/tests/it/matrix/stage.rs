//! The grants and keys of the situations, as they are set up on a server, and what an answer means.

use super::oracle::{ADMIN, Entry, Need, READ, Verdict};
use super::people::{Asked, Me, Person, Voice};
use super::routes::{Care, Place, Row, SECRET};
use super::situations::{Situation, entry};
use claviger_testkit::{Answer, TestServer};
use serde_json::{Value, json};

/// Entries as the native API writes them.
pub(super) fn wire(entries: &[Entry]) -> Vec<Value> {
    entries.iter().map(|e| json!({ "principal": e.to, "capabilities": e.rights })).collect()
}

/// Writes the grants of a prefix.
pub(super) fn put_prefix(prefix: &str, entries: &[Entry], any_user_creates: bool) -> Asked {
    let body = json!({ "prefix": prefix, "grants": wire(entries), "any_user_creates": any_user_creates });
    Asked::json("PUT", format!("/api/v1/prefix?prefix={prefix}"), body)
}

/// Writes what all situations have in common: one administrator of everything and one of all the keys, and that not any
/// user may create (which a development server starts with).
pub(super) fn set_up_everything(admin: &mut Voice) -> Vec<(String, Vec<Entry>)> {
    let lists = [
        ("", vec![entry("user:admin", ADMIN), entry("user:root", ADMIN)]),
        ("m:", vec![entry("user:lead", ADMIN)]),
        ("m/", vec![entry("user:lead", ADMIN)]),
    ];
    let write = |(prefix, list): (&str, Vec<Entry>)| {
        admin.must(&put_prefix(prefix, &list, false));
        (prefix.to_owned(), list)
    };
    lists.into_iter().map(write).collect()
}

impl Situation {
    /// The prefix right above the keys of the situation that has this number.
    pub(super) fn prefix(&self, number: usize) -> String {
        let d = self.delimiter;
        format!("m{d}{number}{d}")
    }

    /// Writes the situation's prefix grants, and gives them.
    pub(super) fn set_up(&self, number: usize, admin: &mut Voice) -> Vec<(String, Vec<Entry>)> {
        let prefix = self.prefix(number);
        let mut written = Vec::new();
        if !self.on_prefix.is_empty() || self.any_user_creates {
            admin.must(&put_prefix(&prefix, &self.on_prefix, self.any_user_creates));
            written.push((prefix.clone(), self.on_prefix.clone()));
        }
        for (tail, entry) in &self.elsewhere {
            let looks_like = match *tail {
                "key:" => format!("{prefix}{tail}"),
                _ => format!("{}{tail}", prefix.trim_end_matches(self.delimiter)),
            };
            admin.must(&put_prefix(&looks_like, std::slice::from_ref(entry), false));
            written.push((looks_like, vec![entry.clone()]));
        }
        written
    }

    /// Makes the key of one caller.
    pub(super) fn place(&self, number: usize, person: &Person, admin: &mut Voice) -> Place {
        let above = format!("{}{}{}", self.prefix(number), person.name, self.delimiter);
        let mut place = Place {
            id: format!("{above}key"),
            version: String::new(),
            sealed: String::new(),
            fresh: format!("{above}new"),
            prefix: above,
            himself: himself(person),
            acl: Value::Array([wire(&self.on_key), wire(&[self.admins_entry()])].concat()),
        };
        admin.must(&put_prefix(&place.prefix, &[entry("user:keeper", &["list"])], false));
        self.make_key(&mut place, admin);
        place
    }

    fn admins_entry(&self) -> Entry {
        entry("user:admin", if self.separate { &["list", "admin"] } else { ADMIN })
    }

    /// Creates the place's key.
    pub(super) fn make_key(&self, place: &mut Place, admin: &mut Voice) {
        let former = self.formerly.map(|who| entry(who, READ));
        let acl = [wire(&self.on_key), wire(former.as_slice())].concat();
        let body = json!({ "id": place.id, "data": SECRET, "acl": acl, "separate_duties": self.separate });
        let made = admin.must(&Asked::json("POST", "/api/v1/keys", body));
        place.version = made["versions"][0]["id"].as_str().unwrap().to_owned();
        if let Some(who) = self.formerly {
            let grants = json!([{ "principal": who, "preset": "none" }]);
            admin.must(&Asked::json("PATCH", format!("/api/v1/keys/{}/-/acl", place.id), json!({ "grants": grants })));
        }
    }

    /// Creates the keys beside the place's key that are used, with the same rights.
    pub(super) fn make_used_keys(&self, place: &mut Place, admin: &mut Voice) {
        let acl = wire(&self.on_key);
        for (name, kind, policy) in
            [("aes", "aes256-gcm", json!({ "exportable": true })), ("ed", "ed25519", json!({})), ("mac", "hmac", json!({}))]
        {
            let id = format!("{}-{name}", place.id);
            let body = json!({ "id": id, "kind": kind, "policy": policy, "acl": acl, "separate_duties": self.separate });
            admin.must(&Asked::json("POST", "/api/v1/keys", body));
        }
        // Cut off: that is said to who may decrypt, and to nobody else.
        place.sealed = "AQE=".to_owned();
    }

    /// Makes ready what a request needs to succeed; gives the version that it should be about.
    pub(super) fn make_ready(&self, care: Care, place: &Place, admin: &mut Voice) -> Option<String> {
        if !matches!(care, Care::ActiveVersion | Care::InactiveVersion) {
            return None;
        }
        let versions = format!("/api/v1/keys/{}/-/versions", place.id);
        let added = admin.must(&Asked::json("POST", &*versions, json!({ "data": SECRET })));
        let version = added["version"].as_str().unwrap().to_owned();
        if care == Care::InactiveVersion {
            admin.must(&Asked::json("PUT", format!("{versions}/{version}"), json!({ "state": "inactive" })));
        }
        Some(version)
    }

    /// Puts right what a request that succeeded has undone.
    pub(super) fn put_right(&self, care: Care, place: &mut Place, admin: &mut Voice) {
        match care {
            Care::KeyGone => self.make_key(place, admin),
            Care::PrefixGone => drop(admin.must(&put_prefix(&place.prefix, &[entry("user:keeper", &["list"])], false))),
            Care::None | Care::ActiveVersion | Care::InactiveVersion => {}
        }
    }
}

/// `principal=…` and `group=…` about somebody; of several identities the first.
pub(super) fn himself(person: &Person) -> String {
    match person.is.first() {
        Some(Me::User(name, groups)) => {
            format!("principal=user:{name}") + &groups.iter().map(|g| format!("&group={g}")).collect::<String>()
        }
        Some(Me::Machine(name)) => format!("principal=machine:{name}"),
        Some(Me::Service(id)) => format!("principal=service:{id}"),
        None => "principal=user:nobody".to_owned(),
    }
}

/// An answer without what differs between any two: the request's id, the time, and the server's name for the moment.
pub(super) fn without_request(answer: &Answer) -> (u16, Vec<(String, String)>, Value) {
    let differs = |name: &str| ["claviger-request-id", "date"].iter().any(|d| name.eq_ignore_ascii_case(d));
    let headers = answer.headers.iter().filter(|(name, _)| !differs(name)).cloned().collect();
    let mut body = answer.json();
    if let Some(object) = body.as_object_mut() {
        object.remove("request_id");
        object.remove("ts");
    }
    let body = if body.is_null() { Value::String(answer.text()) } else { body };
    (answer.status, headers, body)
}

/// What came of a request. `missing` is the answer to the same about a key that does not exist.
///
/// # Errors
/// An answer that means nothing of what the oracle knows.
pub(super) fn verdict(row: &Row, place: &Place, answer: &Answer, missing: impl FnOnce() -> Answer) -> Result<Verdict, String> {
    let found = match row.is_knox() {
        true => of_knox(row, place, answer),
        false => of_native(row, place, answer, missing),
    };
    let verdict = found.ok_or_else(|| format!("{} {}", answer.status, answer.text()))?;
    let betrays = answer.text().contains(SECRET);
    match (verdict, row.what.starts_with("read")) {
        (Verdict::Allowed, true) if !betrays => Err("allowed, and without the secret".to_owned()),
        (Verdict::Allowed, true) => Ok(verdict),
        _ if betrays => Err(format!("{verdict:?} and yet the secret")),
        _ => Ok(verdict),
    }
}

fn of_knox(row: &Row, place: &Place, answer: &Answer) -> Option<Verdict> {
    let json = answer.json();
    Some(match (answer.status, json["code"].as_i64()?) {
        (200, 0) if row.need == Need::KnoxAnyone && row.what == "poll" => {
            if json["data"].as_array()?.iter().any(|id| *id == place.id) {
                Verdict::Allowed
            } else {
                Verdict::NoKey
            }
        }
        (200, 0) => Verdict::Allowed,
        (401, 5) => Verdict::Unproven,
        (403, 6) => Verdict::Denied,
        (404, 4 | 8) => Verdict::NoKey,
        (400, 11) if row.need == Need::KnoxAccess => Verdict::Inexpressible,
        _ => return None,
    })
}

fn of_native(row: &Row, place: &Place, answer: &Answer, missing: impl FnOnce() -> Answer) -> Option<Verdict> {
    let json = answer.json();
    Some(match (answer.status, json["code"].as_str()) {
        (200, _) if row.path == "/api/v1/read" => match (&json["items"][0]["data"], json["items"][0]["error"].as_str()) {
            (Value::Object(_), None) => Verdict::Allowed,
            (Value::Null, Some("denied")) => Verdict::Denied,
            (Value::Null, Some("not_found")) => Verdict::Hidden,
            _ => return None,
        },
        (200, _) if row.path == "/api/v1/fingerprints" => match (&json["items"][0]["prints"][0], json["items"][0]["error"].as_str()) {
            (Value::Object(_), None) => Verdict::Allowed,
            (Value::Null, Some("denied")) => Verdict::Denied,
            (Value::Null, Some("not_found")) => Verdict::Hidden,
            _ => return None,
        },
        (200, _) if row.need == Need::Shown => {
            let hidden = json["keys"].as_array()?.iter().all(|k| k["id"] != place.id);
            if hidden { Verdict::Hidden } else { Verdict::Allowed }
        }
        (200 | 201, _) => Verdict::Allowed,
        // Who may decrypt is told what is wrong with a ciphertext.
        (400, Some("invalid")) if json["field"] == "ciphertext" => Verdict::Allowed,
        (401, Some("unauthenticated")) => Verdict::Unproven,
        (403, Some("denied")) => Verdict::Denied,
        (404, Some("not_found")) if without_request(answer) == without_request(&missing()) => Verdict::Hidden,
        _ => return None,
    })
}

/// The rights that an answer says the caller has; `create` means nothing on a key.
pub(super) fn allowed_in(json: &Value) -> Option<Vec<String>> {
    let of_list = &json["keys"][0]["allowed"];
    let list = if of_list.is_array() { of_list } else { &json["allowed"] };
    let mut names: Vec<_> = list.as_array()?.iter().filter_map(|v| v.as_str()).filter(|n| *n != "create").map(str::to_owned).collect();
    names.sort_unstable();
    Some(names)
}

/// A server with the people of these tests.
pub(super) fn server() -> TestServer {
    crate::server_with(super::people::CONFIG)
}
