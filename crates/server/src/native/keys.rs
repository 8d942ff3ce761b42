//! Routes on one key and on lists of keys, without their data and rights.

use super::request::{secret, version_id};
use super::{Answer, Ask, Native, SURFACE, answer, quoted};
use claviger_domain::{Acl, KeyId, KeyMeta, Labels, Revision, Timestamp, Transition, VersionId, permits};
use claviger_engine::{Added, Material, NewKey, NewVersion, Pattern};
use claviger_wire::native::{
    AddVersion, Changed, CreateKey, FieldError, History, HistoryEntry, KeyPage, SetState, UpdateKey, VersionList, acl_entries,
    decode_base64, etag, key_info, kind_and_policy, parse_acl, rfc3339_to_unix, version_info,
};
use std::collections::BTreeMap;

impl Native {
    pub(crate) async fn list_keys(&self, ask: &Ask<'_>) -> Answer {
        let pattern =
            Pattern { prefix: ask.query.one("prefix").unwrap_or_default().to_owned(), labels: labels_wanted(ask)?, after: cursor(ask)? };
        let page = self.engine().list(ask.caller, SURFACE, &pattern, limit(ask, 100, 1000)?).await?;
        let keys = page.keys.iter().map(|l| key_info(&l.entry.meta, l.entry.revision, l.allowed)).collect();
        let next = page.next.map(|id| id.to_string());
        let body = KeyPage { keys, next, revision: page.revision.to_string() };
        Ok(answer(200, &body).with_header("Claviger-Revision", body.revision))
    }

    pub(crate) async fn create_key(&self, ask: &Ask<'_>) -> Answer {
        let new = self.new_key(ask.json()?)?;
        let Added { meta, revision, .. } = self.engine().create(ask.caller, SURFACE, new).await?;
        let covering = self.engine().covering(&meta.id);
        let body = key_info(&meta, revision, permits(ask.caller, &meta, &covering));
        let location = format!("{}/keys/{}", super::routes::BASE, meta.id);
        Ok(answer(201, &body).with_header("ETag", quoted(&body.etag)).with_header("Location", location))
    }

    fn new_key(&self, body: CreateKey) -> Result<NewKey, FieldError> {
        let CreateKey { id, kind, policy, data, wrapped, acl, description, labels, separate_duties, max_lifetime, expires } = body;
        // First of all, so that it is wiped whatever else is wrong.
        let material = material(data, wrapped)?;
        let (kind, policy) = kind_and_policy(kind.as_deref(), policy)?;
        Ok(NewKey {
            id: KeyId::parse(&id).map_err(|e| FieldError::new("id", e))?,
            kind,
            policy,
            first: NewVersion { material, expires: self.expiry(expires)? },
            acl: if acl.is_empty() { Acl::default() } else { parse_acl(&acl, "acl")? },
            owners: Vec::new(),
            description,
            labels: checked_labels(labels)?,
            separate_duties,
            max_lifetime,
        })
    }

    pub(crate) async fn show_key(&self, ask: &Ask<'_>) -> Answer {
        let found = self.engine().inspect(ask.caller, SURFACE, ask.key()?.as_str()).await?;
        let body = key_info(&found.entry.meta, found.entry.revision, found.allowed);
        Ok(seen(answer(200, &body), &body.etag, found.entry.revision))
    }

    pub(crate) async fn update_key(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let UpdateKey { description, labels, max_lifetime, separate_duties, min_version: minimum } = ask.json()?;
        let minimum = min_version(minimum.as_deref())?;
        let labels = labels.map(checked_labels).transpose()?;
        let change = |old: &KeyMeta| {
            let mut new = old.clone();
            if let Some(text) = &description {
                KeyMeta::check_description(text)?;
                new.description = text.as_str().into();
            }
            if let Some(labels) = &labels {
                new.labels = labels.clone();
            }
            if let Some(seconds) = max_lifetime {
                new.max_lifetime = (seconds > 0).then_some(seconds);
            }
            new.policy.min_version = minimum.unwrap_or(old.policy.min_version);
            new.separate_duties = separate_duties.unwrap_or(old.separate_duties);
            Ok(new)
        };
        let added = self.engine().change_meta(ask.caller, SURFACE, id.as_str(), ask.precondition, change).await?;
        Ok(changed(200, &added))
    }

    pub(crate) async fn delete_key(&self, ask: &Ask<'_>) -> Answer {
        let revision = self.engine().delete(ask.caller, SURFACE, ask.key()?.as_str(), ask.precondition).await?;
        Ok(answer(200, &Changed { etag: None, revision: revision.to_string(), version: None }))
    }

    pub(crate) async fn list_versions(&self, ask: &Ask<'_>) -> Answer {
        let found = self.engine().inspect(ask.caller, SURFACE, ask.key()?.as_str()).await?;
        let meta = &found.entry.meta;
        let body = VersionList { versions: meta.versions.iter().map(|v| version_info(v, meta.max_lifetime)).collect() };
        Ok(seen(answer(200, &body), &etag(meta), found.entry.revision))
    }

    pub(crate) async fn add_version(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let AddVersion { data, wrapped, expires, promote } = ask.json()?;
        let new = NewVersion { material: material(data, wrapped)?, expires: self.expiry(expires)? };
        let added = self.engine().add_version(ask.caller, SURFACE, id.as_str(), &new, promote, ask.precondition).await?;
        Ok(changed(201, &added))
    }

    pub(crate) async fn set_state(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let version = version_id(ask.caught.version)?;
        let SetState { state } = ask.json()?;
        let to = match state.as_str() {
            "primary" => Transition::Promote,
            "active" => Transition::Reactivate,
            "inactive" => Transition::Deactivate,
            "destroyed" => Transition::Destroy,
            _ => return Err(FieldError::new("state", "must be primary, active, inactive or destroyed").into()),
        };
        let added = self.engine().transition(ask.caller, SURFACE, id.as_str(), version, to, ask.precondition).await?;
        Ok(changed(200, &added))
    }

    pub(crate) async fn history(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let limit = limit(ask, 64, 64)?;
        let past = self.engine().history(ask.caller, SURFACE, id.as_str(), u32::try_from(limit).unwrap_or(64)).await?;
        let entry = |(meta, replaced): &(KeyMeta, Revision)| HistoryEntry {
            etag: etag(meta),
            replaced_at: replaced.to_string(),
            versions: meta.versions.iter().map(|v| version_info(v, meta.max_lifetime)).collect(),
            grants: acl_entries(&meta.acl),
        };
        Ok(answer(200, &History { entries: past.iter().map(entry).collect() }))
    }

    /// A version's end, which must be yet to come.
    fn expiry(&self, text: Option<String>) -> Result<Option<Timestamp>, FieldError> {
        let Some(text) = text else { return Ok(None) };
        let at = rfc3339_to_unix(&text, "expires")?;
        if at <= self.parts.clock.now() { Err(FieldError::new("expires", "must lie in the future")) } else { Ok(Some(at)) }
    }
}

/// A version's data as it was given, if it was.
fn material(data: Option<String>, wrapped: Option<String>) -> Result<Material, FieldError> {
    match (data.map(secret).transpose()?, wrapped) {
        (Some(data), None) => Ok(Material::Given(data)),
        (None, Some(wrapped)) => Ok(Material::Wrapped(decode_base64(wrapped.as_bytes(), "wrapped")?)),
        (None, None) => Ok(Material::Generated),
        (Some(_), Some(_)) => Err(FieldError::new("wrapped", "give either `data` or `wrapped`")),
    }
}

/// A change of the minimum version: none, its removal, or a version.
fn min_version(text: Option<&str>) -> Result<Option<Option<VersionId>>, FieldError> {
    let bad = |_| FieldError::new("min_version", "must be a version's decimal id, or `none`");
    match text {
        None => Ok(None),
        Some("none") => Ok(Some(None)),
        Some(id) => version_id(id).map(|id| Some(Some(id))).map_err(bad),
    }
}

/// The answer to a change of a key.
pub(crate) fn changed(status: u16, added: &Added) -> crate::http::Response {
    let etag = etag(&added.meta);
    let header = quoted(&etag);
    let body = Changed { etag: Some(etag), revision: added.revision.to_string(), version: added.version.map(|v: VersionId| v.to_string()) };
    answer(status, &body).with_header("ETag", header)
}

/// An answer that shows an object at a revision.
pub(crate) fn seen(response: crate::http::Response, etag: &str, revision: Revision) -> crate::http::Response {
    response.with_header("ETag", quoted(etag)).with_header("Claviger-Revision", revision.to_string())
}

/// The key after which a page starts.
pub(crate) fn cursor(ask: &Ask<'_>) -> Result<Option<KeyId>, FieldError> {
    let bad = |_| FieldError::new("cursor", "must be the `next` of an earlier page");
    ask.query.one("cursor").map(KeyId::parse).transpose().map_err(bad)
}

/// How many entries a page has.
pub(crate) fn limit(ask: &Ask<'_>, usual: u64, max: u64) -> Result<usize, FieldError> {
    let limit = ask.query.number("limit", 1, max)?.unwrap_or(usual);
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

fn labels_wanted(ask: &Ask<'_>) -> Result<Vec<(String, String)>, FieldError> {
    let bad = || FieldError::new("label", "must be written NAME=VALUE");
    let pair = |text: &str| text.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())).ok_or_else(bad);
    ask.query.all("label").map(pair).collect()
}

fn checked_labels(labels: BTreeMap<String, String>) -> Result<Labels, FieldError> {
    Labels::new(labels).map_err(|e| FieldError::new("labels", e))
}
