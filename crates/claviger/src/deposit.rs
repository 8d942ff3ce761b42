//! Putting a value into a key, whether there is one already or not: what `put`, `edit`, `generate` and `import` share.

use crate::cli::Session;
use crate::failure::{Code, Failure};
use crate::output;
use claviger_client::Error;
use claviger_domain::{KeyId, SecretBytes};
use claviger_wire::native::{Changed, CreateKey, KeyInfo};
use serde::Serialize;
use std::collections::BTreeMap;

/// How a value goes into its key.
#[derive(Debug, Default, Clone)]
pub(crate) struct Deposit {
    /// Whether a version of a key that exists becomes primary at once.
    pub(crate) promote: bool,
    /// RFC 3339 time of the version's end.
    pub(crate) expires: Option<String>,
    /// A new key's description.
    pub(crate) description: String,
    /// A new key's labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// The ETag that the key must have; there must be a key then.
    pub(crate) if_match: Option<String>,
}

/// What became of a value.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Placed {
    /// The key.
    pub(crate) id: String,
    /// `created` or `added`.
    pub(crate) done: &'static str,
    /// The value's version.
    pub(crate) version: String,
    /// primary or active.
    pub(crate) state: &'static str,
    /// The change's revision.
    pub(crate) revision: String,
}

impl Deposit {
    /// Makes the key with this value, or adds a version to the one that there is.
    ///
    /// # Errors
    /// As the server refuses. Nothing was changed then, but for a connection that broke, as the failure says.
    pub(crate) async fn place(&self, session: &Session, id: &KeyId, data: &SecretBytes) -> Result<Placed, Failure> {
        let failed = |e| Failure::client(e, Some(id.as_str()));
        if self.if_match.is_some() || exists(session, id).await? {
            return self.add(session, id, data).await.map_err(failed);
        }
        match self.create(session, id, data).await {
            Ok(made) => Ok(created(made)),
            // Made by somebody else since we looked; or there all the time, for others.
            Err(error) if error.code() == Some("conflict") => match exists(session, id).await? {
                true => self.add(session, id, data).await.map_err(failed),
                false => Err(Failure::client(error, Some(id.as_str()))
                    .next(format!("`{id}` is a key on which you have no right; its administrator can grant you `write`"))),
            },
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes the key.
    pub(crate) async fn create(&self, session: &Session, id: &KeyId, data: &SecretBytes) -> Result<KeyInfo, Error> {
        let request = CreateKey {
            id: id.to_string(),
            kind: None,
            policy: None,
            data: None,
            wrapped: None,
            acl: Vec::new(),
            description: self.description.clone(),
            labels: self.labels.clone(),
            separate_duties: false,
            max_lifetime: None,
            expires: self.expires.clone(),
        };
        session.client.create(request, Some(data)).await
    }

    /// Adds a version.
    pub(crate) async fn add(&self, session: &Session, id: &KeyId, data: &SecretBytes) -> Result<Placed, Error> {
        let added = session.client.add_version(id, Some(data), self.expires.clone(), self.promote, self.if_match.as_deref()).await?;
        let Changed { revision, version, .. } = added;
        let state = if self.promote { "primary" } else { "active" };
        Ok(Placed { id: id.to_string(), done: "added", version: version.unwrap_or_default(), state, revision })
    }
}

/// What the creation of a key says of its value.
pub(crate) fn created(made: KeyInfo) -> Placed {
    let version = made.versions.into_iter().next().map(|v| v.id).unwrap_or_default();
    Placed { id: made.id, done: "created", version, state: "primary", revision: made.revision }
}

impl Placed {
    /// Says what was done, and never the value.
    pub(crate) fn show(&self, json: bool) -> Result<(), Failure> {
        let Self { id, done, version, state, revision } = self;
        match json {
            true => output::json(self),
            false if *done == "created" => output::line(&format!("created {id}, version {version} (revision {revision})")),
            false => output::line(&format!("{id}: added version {version}, {state} (revision {revision})")),
        }
    }
}

/// Whether there is such a key for the caller to see.
async fn exists(session: &Session, id: &KeyId) -> Result<bool, Failure> {
    match session.client.key(id).await.map_err(|e| Failure::client(e, Some(id.as_str()))) {
        Ok(_) => Ok(true),
        Err(failure) if failure.code == Code::NotFound => Ok(false),
        Err(failure) => Err(failure),
    }
}
