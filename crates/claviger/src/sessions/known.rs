//! The issuers at which a person has logged in, remembered for each server.
//!
//! The server says where its people log in, and the person types his password there. So what it said at the first login is written
//! down beside the sessions, and another answer is refused until the person takes it. Nothing in it is secret; it outlives logouts.

use super::{Held, place, read, replace};
use crate::failure::{Code, Failure};
use claviger_wire::native::LoginIssuer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What tells one issuer from another, to who logs in there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Its identifier, a URL.
    issuer: String,
    /// What it calls this client.
    client_id: String,
}

/// The issuers of one server, by the names that it gives them.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct KnownIssuers(BTreeMap<String, Known>);

/// The file's content.
#[derive(Default, Serialize, Deserialize)]
struct Content {
    /// By the server's host and port.
    servers: BTreeMap<String, KnownIssuers>,
}

impl Known {
    fn of(issuer: &LoginIssuer) -> Self {
        Self { issuer: issuer.issuer.clone(), client_id: issuer.client_id.clone() }
    }
}

impl KnownIssuers {
    /// Those of a server; none where nobody logged in.
    pub(crate) fn of(server: &str) -> Result<Self, Failure> {
        let Ok(path) = place() else { return Ok(Self::default()) };
        let content: Content = read(&beside(&path))?.unwrap_or_default();
        Ok({ content.servers }.remove(server).unwrap_or_default())
    }

    /// Whether to log in at what the server calls so now: at what is known, at the first issuer of all, or at one of a name that
    /// was never used and that the person named himself.
    pub(crate) fn check(&self, server: &str, issuer: &LoginIssuer, is_named: bool) -> Result<(), Failure> {
        let (Self(known), now) = (self, Known::of(issuer));
        let name = &issuer.name;
        let before = match known.get(name) {
            Some(known) if *known == now => return Ok(()),
            Some(other) => format!("`{name}` was {} (client `{}`)", other.issuer, other.client_id),
            None if known.is_empty() || is_named || known.values().any(|k| *k == now) => return Ok(()),
            None => format!("people logged in at {}", known.values().map(|k| k.issuer.as_str()).collect::<Vec<_>>().join(" and ")),
        };
        let why = format!(
            "{server} names another issuer than at your last login: {before}, and now `{name}` is {} (client `{}`)",
            now.issuer, now.client_id
        );
        let next = "type no password there before its administrator has told you so; then `claviger login --accept-issuer`";
        Err(Failure::new(Code::Unauthenticated, why).next(next))
    }
}

impl Held {
    /// Remembers where a person has logged in, durably. True where it is something new.
    pub(crate) fn remember(&self, server: &str, issuer: &LoginIssuer) -> Result<bool, Failure> {
        let path = beside(&self.path);
        let mut content: Content = read(&path)?.unwrap_or_default();
        let known = content.servers.entry(server.to_owned()).or_default();
        if known.0.insert(issuer.name.clone(), Known::of(issuer)) == Some(Known::of(issuer)) {
            return Ok(false);
        }
        let text = serde_json::to_vec_pretty(&content).map_err(|e| Failure::other(format!("the known issuers as JSON: {e}")))?;
        replace(&path, &text).map_err(|e| Failure::other(format!("writing {}: {e}", path.display())))?;
        Ok(true)
    }
}

fn beside(sessions: &Path) -> std::path::PathBuf {
    sessions.with_extension("issuers")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn issuer(name: &str, url: &str, client: &str) -> LoginIssuer {
        let text = serde_json::json!({
            "name": name, "issuer": url, "client_id": client, "scopes": [], "device_flow": false, "session_total": 1,
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn what_a_server_says_of_its_issuer_is_believed_once() {
        let first = issuer("corp", "https://login.example.com", "claviger");
        let nobody = KnownIssuers::default();
        assert!(nobody.check("s:1", &first, false).is_ok());
        let known = KnownIssuers([("corp".to_owned(), Known::of(&first))].into());
        for (other, is_named, is_taken) in [
            (first.clone(), false, true),
            (issuer("corp", "https://evil.example", "claviger"), false, false),
            (issuer("corp", "https://evil.example", "claviger"), true, false),
            (issuer("corp", "https://login.example.com", "another"), true, false),
            // The same by another name, another that is slipped in, and one that the person asked for.
            (issuer("main", "https://login.example.com", "claviger"), false, true),
            (issuer("main", "https://evil.example", "claviger"), false, false),
            (issuer("partner", "https://partner.example", "claviger"), true, true),
        ] {
            let found = known.check("s:1", &other, is_named);
            assert_eq!(found.is_ok(), is_taken, "{other:?} {is_named}");
            if let Err(failure) = found {
                assert!(failure.what().contains("https://login.example.com"), "{}", failure.what());
            }
        }
    }
}
