//! Clients that change keys and remember, outside the server, what they were told. Each key has one client, so what a key
//! may be is exact: the state after the last acknowledged change, or that after the one whose answer never came.

use super::{Deed, Logged};
use anyhow::{Context, Result, bail, ensure};
use claviger_testkit::faults::Random;
use claviger_testkit::{Answer, Client, TestServer};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Keys of one client.
const KEYS: usize = 5;
/// A key with so many versions is deleted before long.
const VERSIONS: usize = 8;

/// What is granted and taken away.
const ACCESS: [&str; 4] = ["Read", "Write", "Admin", "None"];

#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    /// None: given by the server in an answer that never came.
    id: Option<u64>,
    /// As sent: base64.
    data: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Key {
    versions: Vec<Version>,
    /// Grants besides the creator's.
    acl: BTreeMap<String, &'static str>,
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Create { data: String },
    Add { data: String },
    Status { version: u64, to: &'static str },
    Access { who: String, access: &'static str },
    Delete,
}

/// One client's keys, and what it knows of them.
pub(super) struct Keeper {
    name: usize,
    random: Random,
    keys: BTreeMap<String, Option<Key>>,
    /// Sent, and not answered with success: it may have happened.
    in_doubt: Option<(String, Change)>,
    /// Answered with success since the last check of the log.
    told: Vec<Deed>,
    made: u64,
    /// Answers of any kind, and those that were no success.
    pub(super) answers: usize,
    pub(super) refusals: Vec<String>,
}

impl Keeper {
    pub(super) fn new(name: usize, random: Random) -> Self {
        let keys = (0..KEYS).map(|k| (format!("c{name}:k{k}"), None)).collect();
        Self { name, random, keys, in_doubt: None, told: Vec::new(), made: 0, answers: 0, refusals: Vec::new() }
    }

    /// Works until it is told to stop or the server is gone. Refusals are an error here.
    pub(super) fn work(&mut self, server: &TestServer, stop: &AtomicBool) -> Result<()> {
        let Ok(mut client) = server.client() else { return Ok(()) };
        let admin = server.admin();
        while !stop.load(Ordering::Relaxed) {
            match self.step(&mut client, &admin) {
                Ok(true) => {}
                Ok(false) => bail!("refused: {}", self.refusals.last().map_or("", String::as_str)),
                // The server is gone: whether it did what was asked for is to be seen.
                Err(Stopped::Gone) => return Ok(()),
                Err(Stopped::Wrong(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// One request. False: the server refused it, and whether it happened is not known.
    pub(super) fn step(&mut self, client: &mut Client, admin: &str) -> Result<bool, Stopped> {
        let ids: Vec<String> = self.keys.keys().cloned().collect();
        let id = self.random.pick(&ids).clone();
        if self.random.below(4) == 0 {
            return self.read(client, admin, &id);
        }
        let change = self.choose(&id);
        self.in_doubt = Some((id.clone(), change.clone()));
        let answer = send(client, admin, &id, &change).map_err(|_| Stopped::Gone)?;
        self.answers += 1;
        if answer.status != 200 {
            self.note_refusal(&answer)?;
            return Ok(false);
        }
        let version = answer.json()["data"].as_u64();
        let state = self.keys.get_mut(&id).expect("it was picked from the keys");
        apply(state, &change, version);
        self.told.push(deed(&id, &change, version));
        self.in_doubt = None;
        Ok(true)
    }

    fn read(&mut self, client: &mut Client, admin: &str, id: &str) -> Result<bool, Stopped> {
        let answer = client.knox("GET", &format!("/v0/keys/{id}/?status=\"Inactive\""), admin, &[]).map_err(|_| Stopped::Gone)?;
        self.answers += 1;
        let known = &self.keys[id];
        let as_expected = match known {
            Some(key) if answer.status == 200 => versions(&answer).map_err(Stopped::Wrong)? == key.versions,
            None if answer.status == 404 => true,
            // A change in doubt is settled by `settle`, before anything else is asked.
            _ if answer.status >= 500 => {
                self.note_refusal(&answer)?;
                return Ok(false);
            }
            _ => false,
        };
        if !as_expected {
            return Err(Stopped::Wrong(anyhow::anyhow!("`{id}` was read as {} {}, and was {known:?}", answer.status, answer.text())));
        }
        let outcome = if known.is_some() { "ok" } else { "not_found" };
        self.told.push(("read".into(), id.to_owned(), 0, outcome.into()));
        Ok(true)
    }

    /// Only a failure of the server's own, with a sentence, is a refusal that this client's requests may get.
    fn note_refusal(&mut self, answer: &Answer) -> Result<(), Stopped> {
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        if answer.status != 500 || answer.json()["code"] != 1 || message.len() < 10 {
            return Err(Stopped::Wrong(anyhow::anyhow!("an unclear refusal: {} {}", answer.status, answer.text())));
        }
        self.refusals.push(message);
        Ok(())
    }

    fn choose(&mut self, id: &str) -> Change {
        self.made += 1;
        // Unique, so that a version whose id is not known can be told by it; sometimes too large for one page.
        let size = *self.random.pick(&[8, 40, 400, 9000]);
        let data = encode(&format!("{}-{}-{}", self.name, self.made, "x".repeat(size)));
        let Some(key) = &self.keys[id] else { return Change::Create { data } };
        let version = |status: &str| key.versions.iter().filter(|v| v.status == status).filter_map(|v| v.id).collect::<Vec<_>>();
        let (active, inactive) = (version("Active"), version("Inactive"));
        let to = |random: &mut Random, of: &[u64], to| Change::Status { version: *random.pick(of), to };
        match self.random.below(12) {
            0 => Change::Delete,
            _ if key.versions.len() >= VERSIONS => Change::Delete,
            1..=3 if !active.is_empty() => to(&mut self.random, &active, "Primary"),
            4..=5 if !active.is_empty() => to(&mut self.random, &active, "Inactive"),
            6 if !inactive.is_empty() => to(&mut self.random, &inactive, "Active"),
            7..=8 => {
                let who = format!("host{}", self.random.below(4));
                let access = *self.random.pick(&ACCESS);
                Change::Access { who, access }
            }
            _ => Change::Add { data },
        }
    }

    /// Compares what the server has with what it may have, and takes over what it has.
    pub(super) fn settle(&mut self, client: &mut Client, admin: &str) -> Result<()> {
        ensure!(self.try_settle(client, admin)?, "a key cannot be read: {:?}", self.refusals.last());
        Ok(())
    }

    /// As [`Keeper::settle`]; false when a read is refused, which leaves what is known as it was.
    pub(super) fn try_settle(&mut self, client: &mut Client, admin: &str) -> Result<bool> {
        let mut found = Vec::new();
        for id in self.keys.keys().cloned().collect::<Vec<_>>() {
            match observe(client, admin, &id)? {
                Observed::Key(key) => found.push(key),
                Observed::Refused(answer) => {
                    self.note_refusal(&answer).map_err(Stopped::into_error)?;
                    return Ok(false);
                }
            }
        }
        for ((id, state), found) in self.keys.iter_mut().zip(found) {
            let mut possible = vec![state.clone()];
            if let Some((_, change)) = self.in_doubt.as_ref().filter(|(doubtful, _)| doubtful == id) {
                let mut after = state.clone();
                apply(&mut after, change, None);
                possible.push(after);
            }
            ensure!(
                possible.iter().any(|p| fits(p.as_ref(), found.as_ref())),
                "`{id}` is {found:?}, and may be one of {possible:?}; in doubt: {:?}",
                self.in_doubt
            );
            *state = found;
        }
        self.in_doubt = None;
        Ok(true)
    }

    /// Every answer of success has its record.
    pub(super) fn check_records(&mut self, logged: &Logged) -> Result<usize> {
        let mut wanted: BTreeMap<Deed, usize> = BTreeMap::new();
        let told = std::mem::take(&mut self.told);
        let count = told.len();
        told.into_iter().for_each(|deed| *wanted.entry(deed).or_default() += 1);
        for (deed, times) in wanted {
            let recorded = logged.deeds.get(&deed).copied().unwrap_or(0);
            ensure!(recorded >= times, "{deed:?} was acknowledged {times} times and is recorded {recorded} times");
        }
        Ok(count)
    }
}

/// Why a client cannot go on.
pub(super) enum Stopped {
    /// The connection broke.
    Gone,
    /// The server said something that it must not.
    Wrong(anyhow::Error),
}

impl Stopped {
    pub(super) fn into_error(self) -> anyhow::Error {
        match self {
            Self::Gone => anyhow::anyhow!("the connection broke"),
            Self::Wrong(error) => error,
        }
    }
}

fn send(client: &mut Client, admin: &str, id: &str, change: &Change) -> Result<Answer> {
    let quoted = |text: &str| format!("\"{text}\"");
    match change {
        Change::Create { data } => client.knox("POST", "/v0/keys/", admin, &[("id", id), ("data", data)]),
        Change::Add { data } => client.knox("POST", &format!("/v0/keys/{id}/versions/"), admin, &[("data", data)]),
        Change::Status { version, to } => {
            client.knox("PUT", &format!("/v0/keys/{id}/versions/{version}/"), admin, &[("status", &quoted(to))])
        }
        Change::Access { who, access } => {
            let entry = format!(r#"{{"type":"Machine","id":"{who}","access":"{access}"}}"#);
            client.knox("PUT", &format!("/v0/keys/{id}/access/"), admin, &[("access", &entry)])
        }
        Change::Delete => client.knox("DELETE", &format!("/v0/keys/{id}/"), admin, &[]),
    }
}

/// The change as the log has it.
fn deed(id: &str, change: &Change, version: Option<u64>) -> Deed {
    let (action, version) = match change {
        Change::Create { .. } => ("create", version.unwrap_or(0)),
        Change::Add { .. } => ("add_version", version.unwrap_or(0)),
        Change::Status { version, to: "Primary" } => ("promote", *version),
        Change::Status { version, to: "Inactive" } => ("deactivate", *version),
        Change::Status { version, .. } => ("reactivate", *version),
        Change::Access { .. } => ("change_rights", 0),
        Change::Delete => ("delete", 0),
    };
    (action.into(), id.into(), version, "ok".into())
}

fn apply(state: &mut Option<Key>, change: &Change, id: Option<u64>) {
    let version = |status, data: &str| Version { id, data: data.to_owned(), status };
    match (change, &mut *state) {
        (Change::Create { data }, _) => *state = Some(Key { versions: vec![version("Primary", data)], acl: BTreeMap::new() }),
        (Change::Delete, _) => *state = None,
        (_, None) => {}
        (Change::Add { data }, Some(key)) => key.versions.push(version("Active", data)),
        (Change::Status { version, to }, Some(key)) => {
            for held in &mut key.versions {
                if held.id == Some(*version) {
                    held.status = to;
                } else if *to == "Primary" && held.status == "Primary" {
                    held.status = "Active";
                }
            }
        }
        (Change::Access { who, access: "None" }, Some(key)) => drop(key.acl.remove(who)),
        (Change::Access { who, access }, Some(key)) => drop(key.acl.insert(who.clone(), access)),
    }
}

/// Equal, where a version id that never reached the client is any.
fn fits(possible: Option<&Key>, found: Option<&Key>) -> bool {
    let (Some(possible), Some(found)) = (possible, found) else { return possible.is_none() && found.is_none() };
    let same = |(p, f): (&Version, &Version)| p.id.is_none_or(|id| f.id == Some(id)) && p.data == f.data && p.status == f.status;
    possible.acl == found.acl && possible.versions.len() == found.versions.len() && possible.versions.iter().zip(&found.versions).all(same)
}

/// What a look at a key showed.
enum Observed {
    /// The key, or that there is none.
    Key(Option<Key>),
    /// Nothing.
    Refused(Answer),
}

/// A key as the server has it.
fn observe(client: &mut Client, admin: &str, id: &str) -> Result<Observed> {
    let read = client.knox("GET", &format!("/v0/keys/{id}/?status=\"Inactive\""), admin, &[])?;
    match read.status {
        200 => {}
        404 => return Ok(Observed::Key(None)),
        _ => return Ok(Observed::Refused(read)),
    }
    let acl = client.knox("GET", &format!("/v0/keys/{id}/access/"), admin, &[])?;
    if acl.status != 200 {
        return Ok(Observed::Refused(acl));
    }
    let mut key = Key { versions: versions(&read)?, acl: BTreeMap::new() };
    for entry in acl.json()["data"].as_array().context("no ACL")? {
        if entry["type"] == "Machine" {
            let access = entry["access"].as_str().unwrap_or_default();
            let access = ["Read", "Write", "Admin"].into_iter().find(|a| *a == access).context("an unknown access")?;
            key.acl.insert(entry["id"].as_str().unwrap_or_default().to_owned(), access);
        }
    }
    Ok(Observed::Key(Some(key)))
}

fn versions(read: &Answer) -> Result<Vec<Version>> {
    let json = read.json();
    let listed = json["data"]["versions"].as_array().context("no versions")?;
    listed
        .iter()
        .map(|v| {
            let status = v["status"].as_str().unwrap_or_default();
            let status = ["Primary", "Active", "Inactive"].into_iter().find(|s| *s == status).context("an unknown status")?;
            Ok(Version { id: v["id"].as_u64(), data: v["data"].as_str().unwrap_or_default().to_owned(), status })
        })
        .collect()
}

/// Standard base64.
fn encode(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
