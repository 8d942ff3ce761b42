//! The routes, each with the contract's order of checks.

use super::answers::{Attempted, Reply};
use super::{Ask, Knox, SURFACE, fields};
use claviger_domain::audit::Outcome;
use claviger_domain::{
    AclTooLong, Grant, Identity, KeyId, KeyKind, KeyMeta, KeyPolicy, Labels, MAX_GRANTS, Preset, Principal, Transition, Version, VersionId,
    VersionState,
};
use claviger_engine::{Disclosure, Error, Material, NewKey, NewVersion, Precondition, RightsEdit, Select};
use claviger_wire::knox::envelope::{Code, KeyAnswer, VersionAnswer};
use claviger_wire::knox::form::{self, Poll};
use claviger_wire::knox::hash::VersionHash;
use claviger_wire::knox::route::Routed;
use claviger_wire::knox::text::{self, Act};
use claviger_wire::knox::types::VersionStatus;
use claviger_wire::knox::{number, validate};

/// A JSON answer, or a refusal.
pub(crate) type Answered = Result<Vec<u8>, Reply>;

impl Knox {
    pub(crate) async fn answer(&self, ask: &Ask<'_>, routed: &Routed<'_>) -> Answered {
        match routed {
            Routed::Read { key } => self.read(ask, key).await,
            _ => Box::pin(self.rarer(ask, routed)).await,
        }
    }

    /// Boxed, so that a connection's task is as large as a read only.
    async fn rarer(&self, ask: &Ask<'_>, routed: &Routed<'_>) -> Answered {
        match routed {
            Routed::List => self.list(ask).await,
            Routed::Create => self.create(ask).await,
            Routed::Delete { key } => self.delete(ask, key).await,
            Routed::Acl { key } => self.show_acl(ask, key).await,
            Routed::PutAccess { key } => self.put_access(ask, key).await,
            Routed::AddVersion { key } => self.add_version(ask, key).await,
            Routed::UpdateVersion { key, version } => self.update_version(ask, key, version).await,
            Routed::Read { .. }
            | Routed::NotFound
            | Routed::BadTarget
            | Routed::ServerOptions
            | Routed::Redirect { .. }
            | Routed::MethodNotAllowed => self.refuse(ask, Outcome::NotFound, Reply::new(Code::RouteNotFound, text::ROUTE_NOT_FOUND)).await,
        }
    }

    /// Records a refusal that never reached the engine, and gives it back.
    async fn refuse<T>(&self, ask: &Ask<'_>, outcome: Outcome, reply: Reply) -> Result<T, Reply> {
        let address = ask.caller.address.unwrap_or(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let reason = String::from_utf8_lossy(&reply.message);
        self.record_request(ask.caller.request_id, Some(ask.caller), address, outcome, &reason, ask.head).await?;
        Err(reply)
    }

    /// As [`Knox::refuse`], for the first of a route's field checks that failed.
    async fn checked<T>(&self, ask: &Ask<'_>, checked: Result<T, Reply>) -> Result<T, Reply> {
        match checked {
            Ok(value) => Ok(value),
            Err(reply) => {
                let outcome = if reply.code == Code::Unauthorized { Outcome::Denied } else { Outcome::Invalid };
                Box::pin(self.refuse(ask, outcome, reply)).await
            }
        }
    }

    fn disclosure(&self) -> Disclosure {
        if self.list_readable_only { Disclosure::Permitted } else { Disclosure::Everyone }
    }

    /// §4.1
    async fn list(&self, ask: &Ask<'_>) -> Answered {
        let ids = match form::poll(ask.head.query.as_deref()) {
            Poll::All => self.engine.list_ids(ask.caller, SURFACE, self.disclosure(), KeyId::is_knox).await,
            Poll::Changed(asked) => {
                let pairs = asked.iter().filter_map(|(id, hash)| Some((seen(id)?, hash.as_ref())));
                let differs = |meta: &KeyMeta, hash: &[u8]| version_hash(meta).as_bytes().as_slice() != hash;
                self.engine.poll(ask.caller, SURFACE, self.disclosure(), pairs, differs).await
            }
        };
        let ids = ids.map_err(|e| Reply::new(Code::Internal, e.to_string()))?;
        let mut json = Vec::with_capacity(128 + ids.len() * 48);
        self.answer_now().key_ids(&mut json, ids.iter().map(KeyId::as_str));
        Ok(json)
    }

    /// §4.2, in the order of the 2025 server; services may create where the site's policy names them (§6.5).
    async fn create(&self, ask: &Ask<'_>) -> Answered {
        let wanted = self.checked(ask, self.wanted_key(ask)).await?;
        let (id, new) = wanted;
        let attempted = Attempted { principal: ask.principal(), act: Act::Write, key: id.as_str().as_bytes() };
        let added = self.engine.create(ask.caller, SURFACE, new).await.map_err(|e| match e {
            Error::Denied(claviger_engine::Refusal::Create) => Reply::new(Code::Unauthorized, not_a_creator(ask.principal())),
            other => attempted.reply(other),
        })?;
        self.version_answer(added.version)
    }

    fn wanted_key(&self, ask: &Ask<'_>) -> Result<(KeyId, NewKey), Reply> {
        let is_user = Self::is_user(ask.caller);
        if !is_user && self.creators.is_empty() {
            return Err(Reply::new(Code::Unauthorized, text::must_be_user(ask.principal().as_bytes())));
        }
        let [id, data, acl] = ask.fields(["id", "data", "acl"]);
        let id = id.ok_or_else(|| Reply::new(Code::NoKeyId, text::missing_parameter("id")))?;
        let owners = if is_user { Vec::new() } else { self.owners(ask, &id)?.into() };
        if data.as_ref().is_none_or(|d| d.is_empty()) {
            fields::data(data.clone(), Code::NoKeyData)?;
        }
        let given = fields::given_acl(acl)?;
        let data = fields::data(data, Code::NoKeyData)?;
        let creator = owners.first().cloned().or_else(|| Some(ask.caller.default_identity()?.principal()));
        let creator = creator.ok_or_else(|| Reply::new(Code::Unauthorized, text::must_be_user(b"")))?;
        let creator = fields::entry(&Grant { principal: creator, capabilities: Preset::Admin.capabilities() });
        let defaults = self.engine.settings().default_grants.iter().map(fields::entry);
        let acl = validate::new_key(&id, given, creator, defaults, self.principal_rules())?;
        if acl.len() > MAX_GRANTS {
            return Err(Reply::bad_data(AclTooLong::Grants(acl.len())));
        }
        let bad_id = || Reply::new(Code::BadKeyFormat, text::bad_key_id(&id));
        let id = KeyId::parse(std::str::from_utf8(&id).map_err(|_| bad_id())?).map_err(|_| bad_id())?;
        let new = NewKey {
            id: id.clone(),
            kind: KeyKind::Secret,
            policy: KeyPolicy::default(),
            first: NewVersion { material: Material::Given(data), expires: None },
            acl: fields::acl(&acl),
            owners,
            description: String::new(),
            labels: Labels::default(),
            separate_duties: false,
            max_lifetime: None,
        };
        Ok((id, new))
    }

    /// The administrators that the site's creation policy gives a service's key: the service that it admits, whatever other
    /// identity the caller goes by first, and the owner (§6.5).
    fn owners(&self, ask: &Ask<'_>, id: &[u8]) -> Result<[Principal; 2], Reply> {
        let fits = |c: &&crate::config::ServiceCreator, service: &str| {
            id.starts_with(c.key_prefix.as_bytes()) && service.starts_with(&c.service_prefix)
        };
        let admitted = |identity: &Identity| match identity {
            Identity::Service { id } => self.creators.iter().find(|c| fits(c, id)).map(|c| [identity.principal(), c.owner.clone()]),
            _ => None,
        };
        let found = ask.caller.identities().find_map(admitted);
        found.ok_or_else(|| Reply::new(Code::Unauthorized, not_a_creator(ask.principal())))
    }

    /// §4.3
    async fn read(&self, ask: &Ask<'_>, key: &[u8]) -> Answered {
        let filter = self.checked(ask, ask.status_filter()).await?;
        let select = match filter {
            VersionStatus::Primary => Select::Primary,
            VersionStatus::Active => Select::Active,
            VersionStatus::Inactive => Select::All,
        };
        let attempted = Attempted { principal: ask.principal(), act: Act::Read, key };
        let id = self.known(ask, key).await?;
        let read = self.engine.read(ask.caller, SURFACE, id, select).await.map_err(|e| attempted.reply(e))?;
        let versions = read.versions.iter().filter_map(|(v, data)| {
            let status = status(v)?;
            Some(VersionAnswer { id: v.id.get(), data: data.expose(), status, ts: v.created.0 })
        });
        let size: usize = read.versions.iter().map(|(_, data)| data.len() * 4 / 3 + 128).sum();
        let mut json = Vec::with_capacity(320 + size);
        let hash = version_hash(&read.entry.meta);
        self.answer_now().key(&mut json, KeyAnswer { id, versions, hash: hash.as_str() });
        Ok(json)
    }

    /// §4.4
    async fn delete(&self, ask: &Ask<'_>, key: &[u8]) -> Answered {
        let attempted = Attempted { principal: ask.principal(), act: Act::Delete, key };
        let id = self.known(ask, key).await?;
        self.engine.delete(ask.caller, SURFACE, id, Precondition::Any).await.map_err(|e| attempted.reply(e))?;
        self.null_answer()
    }

    /// §4.5: everyone who is authenticated may see an ACL; people use it to find an administrator.
    async fn show_acl(&self, ask: &Ask<'_>, key: &[u8]) -> Answered {
        let attempted = Attempted { principal: ask.principal(), act: Act::Read, key };
        let id = self.known(ask, key).await?;
        let entry = self.engine.rights(ask.caller, SURFACE, id, Disclosure::Everyone).await.map_err(|e| attempted.reply(e))?;
        let mut json = Vec::with_capacity(512);
        let entries = entry.meta.acl.grants().iter().filter_map(fields::shown);
        self.answer_now().acl(&mut json, entries).map_err(|e| Reply::new(Code::Internal, e.to_string()))?;
        Ok(json)
    }

    /// §4.6
    async fn put_access(&self, ask: &Ask<'_>, key: &[u8]) -> Answered {
        let [access, acl] = ask.fields(["access", "acl"]);
        let changes = self.checked(ask, fields::access_changes(access, acl)).await?;
        let attempted = Attempted { principal: ask.principal(), act: Act::UpdateAccess, key };
        let id = self.known(ask, key).await?;
        let entries = changes.iter().filter_map(|e| Some((fields::principal(e)?, fields::capabilities(e.access)))).collect();
        let allowed = |meta: &KeyMeta, after: &claviger_domain::Acl| {
            if let Err(refusal) = validate::put_access(&changes, self.principal_rules()) {
                return Err(Error::Invalid { field: "principal", rule: String::from_utf8_lossy(&refusal.message).into_owned() });
            }
            self.editable(meta, after)
        };
        let edit = RightsEdit::Set(entries);
        self.engine.change_rights(ask.caller, SURFACE, id, &edit, Precondition::Any, allowed).await.map_err(|e| attempted.reply(e))?;
        self.null_answer()
    }

    /// What Knox's clients cannot express they must not overwrite, and a site may want a last administrator kept.
    fn editable(&self, before: &KeyMeta, after: &claviger_domain::Acl) -> Result<(), Error> {
        let refuse = |rule: &str| Err(Error::Invalid { field: "acl", rule: rule.to_owned() });
        let expressible = before.acl.grants().iter().all(|g| g.capabilities.as_preset().is_some());
        if before.separate_duties || !expressible {
            return refuse("the ACL has grants that Knox cannot express; change it with `claviger acl`");
        }
        let administered =
            |acl: &claviger_domain::Acl| acl.grants().iter().any(|g| g.capabilities.contains(claviger_domain::Capability::Admin));
        if self.keep_last_admin && administered(&before.acl) && !administered(after) {
            return refuse("the change would leave the key without an administrator");
        }
        Ok(())
    }

    /// §4.7
    async fn add_version(&self, ask: &Ask<'_>, key: &[u8]) -> Answered {
        let [data] = ask.fields(["data"]);
        let data = self.checked(ask, fields::data(data, Code::BadRequestData)).await?;
        let attempted = Attempted { principal: ask.principal(), act: Act::Write, key };
        let id = self.known(ask, key).await?;
        let new = NewVersion { material: Material::Given(data), expires: None };
        let added =
            self.engine.add_version(ask.caller, SURFACE, id, &new, false, Precondition::Any).await.map_err(|e| attempted.reply(e))?;
        self.version_answer(added.version)
    }

    /// §4.8
    async fn update_version(&self, ask: &Ask<'_>, key: &[u8], version: &[u8]) -> Answered {
        let [status] = ask.fields(["status"]);
        let wanted = self.checked(ask, wanted_transition(status, version)).await?;
        let attempted = Attempted { principal: ask.principal(), act: Act::Write, key };
        let id = self.known(ask, key).await?;
        let (transition, version) = wanted;
        let changed = self.engine.transition(ask.caller, SURFACE, id, version, transition, Precondition::Any).await;
        changed.map_err(|e| attempted.reply_to_transition(e, transition))?;
        self.null_answer()
    }

    /// A key id that this surface may see; any other does not exist for it (404 before 403).
    async fn known<'k>(&self, ask: &Ask<'_>, key: &'k [u8]) -> Result<&'k str, Reply> {
        match seen(key) {
            Some(id) => Ok(id),
            None => Box::pin(self.refuse(ask, Outcome::NotFound, Reply::new(Code::NoSuchKey, text::no_such_key(key)))).await,
        }
    }

    fn version_answer(&self, version: Option<VersionId>) -> Answered {
        let mut json = Vec::with_capacity(160);
        self.answer_now().version_id(&mut json, version.map_or(0, VersionId::get));
        Ok(json)
    }

    fn null_answer(&self) -> Answered {
        let mut json = Vec::with_capacity(160);
        self.answer_now().null(&mut json);
        Ok(json)
    }
}

fn not_a_creator(principal: &str) -> String {
    format!("Principal {principal} is not authorized to create keys")
}

/// An id as text, where it is one that this surface sees.
fn seen(key: &[u8]) -> Option<&str> {
    validate::is_key_id(key).then(|| std::str::from_utf8(key).ok()).flatten()
}

fn wanted_transition(status: fields::Field<'_>, version: &[u8]) -> Result<(Transition, VersionId), Reply> {
    let transition = fields::transition(status)?;
    let raw = number::parse_uint(version).map_err(Reply::bad_data)?;
    // An id that no version can have is looked up like any other, and not found after the key and the caller's right
    // were checked. The largest id stands for all of those; ids are random, so it is nobody's.
    let none_has_it = VersionId::new(i64::MAX as u64).expect("2^63-1 is in range");
    Ok((transition, VersionId::new(raw).unwrap_or(none_has_it)))
}

/// A version's state in Knox's words; destroyed versions are absent on this surface and from its hash.
pub(crate) fn status(version: &Version) -> Option<VersionStatus> {
    match version.state {
        VersionState::Primary => Some(VersionStatus::Primary),
        VersionState::Active => Some(VersionStatus::Active),
        VersionState::Inactive => Some(VersionStatus::Inactive),
        VersionState::Destroyed => None,
    }
}

/// The hash that a poll compares.
pub(crate) fn version_hash(meta: &KeyMeta) -> VersionHash {
    VersionHash::of(meta.versions.iter().filter_map(|v| Some((v.id.get(), status(v)?))))
}
