//! Use cases on one key: read, create, add a version, change a version's state, change metadata, delete.

use crate::approvals::{Cleared, needed_alone};
use crate::commit::Apply;
use crate::memory::{Entry, SealedVersion, Tables};
use crate::overlay::Ahead;
use crate::start::Engine;
use crate::{ApprovalProblem, Conflict, Error, Note, Refusal, Surface};
use claviger_crypto::{Tombstone, add, negate, random, version_of_import};
use claviger_domain::audit::{Action, Outcome, Record, RightsChange, Subject};
use claviger_domain::{
    Acl, Approving, Caller, Capabilities, Capability, Created, Deed, Generation, Grant, Incarnation, KeyId, KeyKind, KeyMeta, KeyPolicy,
    KeyRef, Labels, Permit, PrefixGrant, Preset, Principal, Revision, Rules, SecretBytes, Select, Timestamp, Transition, Version,
    VersionId, VersionState, Versions, authorize, cap, may_create, rules_difference,
};
use claviger_ports::{Change, DigestDelta, Effect, Expected, Sealed, Target, VersionRow, Write};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

/// Lost races that are retried inside before the caller is told.
const TRIES: usize = 64;

/// Destroyed versions whose records a key keeps.
const DESTROYED: usize = 64;

/// A key as read.
pub struct ReadKey {
    /// Its record.
    pub entry: Arc<Entry>,
    /// The versions asked for, oldest first, with their data.
    pub versions: Vec<(Version, SecretBytes)>,
}

impl ReadKey {
    fn version_ids(&self) -> Vec<VersionId> {
        self.versions.iter().map(|(v, _)| v.id).collect()
    }
}

/// Whose word allowed something, where it was not the grants.
pub(crate) type AllowedBy = Option<Arc<str>>;

/// A key to be made.
pub struct NewKey {
    /// Its id.
    pub id: KeyId,
    /// What it holds.
    pub kind: KeyKind,
    /// How it may be used.
    pub policy: KeyPolicy,
    /// The first version.
    pub first: NewVersion,
    /// Grants beside the creator's.
    pub acl: Acl,
    /// The administrators, where the site's creation policy admits the caller: that of his identities which it admits, and
    /// the owner whom it names. Empty where the grants decide; then the caller's default identity administers.
    pub owners: Vec<Principal>,
    /// In words.
    pub description: String,
    /// Labels.
    pub labels: Labels,
    /// Whether managing and using are different people's.
    pub separate_duties: bool,
    /// Hard lifetime of versions in seconds.
    pub max_lifetime: Option<u32>,
}

/// Where a version's data comes from.
pub enum Material {
    /// From the caller: the data of a secret.
    Given(SecretBytes),
    /// It is made inside, as keys that are used are.
    Generated,
    /// It was made elsewhere, and wrapped to the public key of [`Engine::import_key`].
    Wrapped(Vec<u8>),
}

impl Material {
    /// What a change that brings it is called: what comes from outside is told from what was made inside.
    fn action(&self, otherwise: Action) -> Action {
        if matches!(self, Self::Wrapped(_)) { Action::Import } else { otherwise }
    }

    /// The id of the version that it becomes.
    fn version_id(&self) -> VersionId {
        match self {
            Self::Wrapped(wrapped) => version_of_import(wrapped),
            Self::Given(_) | Self::Generated => new_version_id(),
        }
    }
}

/// A version's data, as it came or as it was made.
enum Data<'m> {
    Given(&'m SecretBytes),
    Made(SecretBytes),
}

impl Data<'_> {
    fn bytes(&self) -> &SecretBytes {
        match self {
            Self::Given(data) => data,
            Self::Made(data) => data,
        }
    }
}

/// A version to be added.
pub struct NewVersion {
    /// Its data.
    pub material: Material,
    /// When it stops being given out.
    pub expires: Option<Timestamp>,
}

/// What a change of a key did.
#[derive(Debug, Clone)]
pub struct Added {
    /// The key after the change.
    pub meta: KeyMeta,
    /// The change's revision.
    pub revision: Revision,
    /// The version concerned.
    pub version: Option<VersionId>,
}

/// Bytes of data that are fingerprinted for one answer: it takes about a second at most.
const FINGERPRINTED: usize = 16 << 20;

/// What a request on many keys reads.
struct Bulk {
    action: Action,
    select: Select,
    /// Bytes of data in one answer.
    whole: usize,
}

/// How one key of a bulk read ended.
struct End {
    outcome: Outcome,
    allowed_by: AllowedBy,
    /// Those that were given.
    versions: Vec<VersionId>,
}

impl End {
    fn ends_like(&self, other: &Self) -> bool {
        (self.outcome, &self.allowed_by) == (other.outcome, &other.allowed_by)
    }
}

/// What the caller believes the key to be; a change is refused when it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    Any,
    /// This incarnation and generation.
    Is(Incarnation, Generation),
}

impl Precondition {
    pub(crate) fn holds(self, incarnation: Incarnation, generation: Generation) -> bool {
        match self {
            Self::Any => true,
            Self::Is(i, g) => (i, g) == (incarnation, generation),
        }
    }
}

/// A change worked out on a key's present state.
pub(crate) struct Edit {
    pub(crate) meta: KeyMeta,
    pub(crate) added: Vec<VersionRow>,
    pub(crate) destroyed: Vec<VersionId>,
    pub(crate) version: Option<VersionId>,
    /// What others may have to agree to; none for what no rule can guard.
    pub(crate) deed: Option<Deed>,
}

impl Edit {
    pub(crate) fn meta(meta: KeyMeta) -> Self {
        Self { meta, added: Vec::new(), destroyed: Vec::new(), version: None, deed: None }
    }
}

impl Engine {
    /// Reads a key's data.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn read(&self, caller: &Caller, surface: Surface, id: &str, select: Select) -> Result<ReadKey, Error> {
        match self.open(caller, id, select, self.settings.max_answer, Some(surface)).await {
            Ok((read, allowed_by, cleared)) => {
                let versions = read.version_ids();
                let subjects = [Subject { key: id, versions: &versions }];
                let note = Note { caller, surface, action: Action::Read, subjects: &subjects };
                match cleared {
                    Cleared::Free => self.done_by(&note, Some(read.entry.revision), None, allowed_by.as_deref()).await?,
                    by => {
                        let deed = Deed::Read { key: read.entry.meta.id.clone(), select };
                        let (revision, by) = (read.entry.revision, (Some(&deed), &by));
                        Box::pin(self.done_cleared(&note, revision, None, allowed_by.as_deref(), "", by)).await?;
                    }
                }
                Ok(read)
            }
            Err(error) => {
                let subjects = [Subject { key: id, versions: &[] }];
                Err(Box::pin(self.refuse(&Note { caller, surface, action: Action::Read, subjects: &subjects }, error)).await)
            }
        }
    }

    /// Reads many keys' data, as many as fit into one answer; the others' error is [`Error::AnswerFull`], the first one's
    /// never. One record tells of those that were given, and one more of those that were refused for each
    /// way in which they were: a record's outcome is that of all its keys.
    ///
    /// # Errors
    /// Only the audit log's failure; each key has its own result.
    pub async fn bulk_read(&self, caller: &Caller, surface: Surface, ids: &[String]) -> Result<Vec<Result<ReadKey, Error>>, Error> {
        self.read_each(caller, surface, ids, &Bulk { action: Action::BulkRead, select: Select::Active, whole: self.settings.max_answer })
            .await
    }

    /// As [`Engine::bulk_read`], of all versions that are not destroyed, for who is to be given fingerprints of them.
    ///
    /// # Errors
    /// Only the audit log's failure; each key has its own result.
    pub async fn read_to_fingerprint(
        &self,
        caller: &Caller,
        surface: Surface,
        ids: &[String],
    ) -> Result<Vec<Result<ReadKey, Error>>, Error> {
        let whole = self.settings.max_answer.min(FINGERPRINTED);
        self.read_each(caller, surface, ids, &Bulk { action: Action::Fingerprint, select: Select::All, whole }).await
    }

    async fn read_each(
        &self,
        caller: &Caller,
        surface: Surface,
        ids: &[String],
        bulk: &Bulk,
    ) -> Result<Vec<Result<ReadKey, Error>>, Error> {
        let mut answers = Vec::with_capacity(ids.len());
        let mut ends = Vec::with_capacity(ids.len());
        let mut room = bulk.whole;
        for id in ids {
            let (answer, end) = match self.open_within(caller, id, bulk, &mut room).await {
                Ok((read, allowed_by)) => {
                    let versions = read.version_ids();
                    (Ok(read), End { outcome: Outcome::Ok, allowed_by, versions })
                }
                Err(error) => {
                    let outcome = error.outcome();
                    (Err(error), End { outcome, allowed_by: None, versions: Vec::new() })
                }
            };
            answers.push(answer);
            ends.push(end);
        }
        self.record_bulk(caller, surface, bulk.action, ids, &ends).await?;
        Ok(answers)
    }

    /// A key of a bulk read, within the room that is left; none is left once one did not fit.
    async fn open_within(&self, caller: &Caller, id: &str, bulk: &Bulk, room: &mut usize) -> Result<(ReadKey, AllowedBy), Error> {
        if *room == 0 {
            self.permit::<cap::Read>(caller, id).await?;
            return Err(Error::AnswerFull);
        }
        // What needs approval is read alone.
        let opened = self.open(caller, id, bulk.select, *room, None).await;
        match opened {
            Ok((read, allowed_by, _)) => {
                *room -= read.versions.iter().map(|(_, data)| data.len()).sum::<usize>();
                Ok((read, allowed_by))
            }
            Err(Error::AnswerTooLarge { .. }) if *room < bulk.whole => {
                *room = 0;
                Err(Error::AnswerFull)
            }
            Err(error) => Err(error),
        }
    }

    /// Records a bulk read, and waits until that is durable.
    async fn record_bulk(&self, caller: &Caller, surface: Surface, action: Action, ids: &[String], ends: &[End]) -> Result<(), Error> {
        let mut alike: Vec<(&End, Vec<Subject<'_>>)> = Vec::new();
        for (key, end) in ids.iter().zip(ends) {
            let subject = Subject { key, versions: &end.versions };
            match alike.iter_mut().find(|(first, _)| first.ends_like(end)) {
                Some((_, subjects)) => subjects.push(subject),
                None => alike.push((end, vec![subject])),
            }
        }
        let reason = format!("asked for with others, {} in all", ids.len());
        let records = alike.iter().map(|(End { outcome, allowed_by, .. }, subjects)| {
            let (reason, revision) = if *outcome == Outcome::Ok { ("", Some(self.revision())) } else { (reason.as_str(), None) };
            let note = Note { caller, surface, action, subjects };
            let record = note.record(self, *outcome, reason, revision, None);
            self.audit.append(&Record { allowed_by: allowed_by.as_deref(), ..record })
        });
        // All are queued before the first is awaited, so that they share a sync.
        let kept: Vec<_> = records.collect();
        for record in kept {
            record.await?;
        }
        Ok(())
    }

    /// Everything of a read except its record, and whose word allowed it where the grants did not.
    /// Its data may have `room` bytes. Where `alone` names the surface of a read of this key alone, it may rest on an approval,
    /// which is used up, durably, when this returns.
    async fn open(
        &self,
        caller: &Caller,
        id: &str,
        select: Select,
        mut room: usize,
        alone: Option<Surface>,
    ) -> Result<(ReadKey, AllowedBy, Cleared), Error> {
        let (entry, permit) = self.permit::<cap::Read>(caller, id).await?;
        if !entry.meta.kind.is_read() {
            return Err(Error::Denied(Refusal::UsedNotRead(entry.meta.kind)));
        }
        let cleared = self.clear_read(caller, &entry, select, alone).await?;
        let chosen = choose(&entry.meta, select, self.now())?;
        let ring = self.ring();
        let mut versions = Vec::with_capacity(chosen.len());
        for version in chosen {
            let damaged = |why: String| Error::Damaged { id: id.to_owned(), why };
            let sealed = entry.sealed(version.id).ok_or_else(|| damaged(format!("the data of version {} is missing", version.id)))?;
            let open = |wrapped: &Sealed, data: &Sealed| {
                ring.open_version(&permit, entry.meta.kind, version.id, wrapped, data).map_err(|e| damaged(e.to_string()))
            };
            let plain = match &sealed.data {
                Some(data) => open(&sealed.wrapped_key, data)?,
                None => {
                    let (wrapped, data) = Box::pin(self.stored(permit.key(), version.id)).await?;
                    open(&wrapped, &data)?
                }
            };
            // Found out as it goes: the length of what is not in memory is not known before.
            room = room.checked_sub(plain.len()).ok_or(Error::AnswerTooLarge { max: self.settings.max_answer })?;
            versions.push((version, plain));
        }
        if let Cleared::By(used) = &cleared {
            Box::pin(self.consume(caller, used)).await?;
            self.check_unchanged(&entry)?;
        }
        Ok((ReadKey { entry, versions }, permit.allowed_by().cloned(), cleared))
    }

    /// The gate before a read. Nearly always there is no rule, so that must cost next to nothing.
    async fn clear_read(&self, caller: &Caller, entry: &Entry, select: Select, alone: Option<Surface>) -> Result<Cleared, Error> {
        let meta = &entry.meta;
        let is_ruled = !meta.rules.is_empty() || self.memory.read(|t| t.has_rules_above(&meta.id));
        let is_plain = *caller.approval() == Approving::Plain;
        if !is_ruled && (is_plain || alone.is_none()) {
            return Ok(Cleared::Free);
        }
        let deed = Deed::Read { key: meta.id.clone(), select };
        match alone {
            Some(surface) => Box::pin(self.clear(caller, surface, deed, (meta.incarnation, meta.generation), &meta.rules)).await,
            None => match self.memory.read(|t| t.guarding(&deed, &meta.rules)) {
                rules if rules.is_empty() => Ok(Cleared::Free),
                rules => Err(needed_alone(&deed, rules)),
            },
        }
    }

    /// Whether a key is what it was when a read began that rests on an approval.
    pub(crate) fn check_unchanged(&self, entry: &Entry) -> Result<(), Error> {
        let (id, read) = (&entry.meta.id, (entry.meta.incarnation, entry.meta.generation));
        let now = self.memory.read(|t| t.find(id.as_str()).map(|e| (e.meta.incarnation, e.meta.generation)))?;
        if now == read { Ok(()) } else { Err(ApprovalProblem::Stale.into()) }
    }

    pub(crate) async fn stored(&self, key: &KeyRef, version: VersionId) -> Result<(Sealed, Sealed), Error> {
        let missing = || Error::Damaged { id: key.id.to_string(), why: format!("the data of version {version} is missing") };
        self.store.version(key, version).await?.ok_or_else(missing)
    }

    /// Makes a key. The creator becomes its administrator.
    ///
    /// # Errors
    /// [`Conflict::Exists`], [`Refusal::Create`], or a rule that the key breaks.
    pub async fn create(&self, caller: &Caller, surface: Surface, new: NewKey) -> Result<Added, Error> {
        let id = new.id.clone();
        let subjects = [Subject::key(&id)];
        let action = new.first.material.action(Action::Create);
        let note = Note { caller, surface, action, subjects: &subjects };
        match self.create_unrecorded(caller, action, new).await {
            Ok(added) => {
                let versions: Vec<_> = added.version.into_iter().collect();
                let subjects = [Subject { key: id.as_str(), versions: &versions }];
                let rights = RightsChange { old: &Acl::default(), new: &added.meta.acl };
                self.done(&Note { subjects: &subjects, ..note }, Some(added.revision), Some(rights)).await?;
                Ok(added)
            }
            Err(error) => Err(self.refuse(&note, error).await),
        }
    }

    /// Whether `caller` may create `id` at all: for surfaces whose protocol checks this before anything else.
    #[must_use]
    pub fn may_create(&self, caller: &Caller, id: &KeyId) -> bool {
        self.memory.read(|t| may_create(caller, id, t.covering(id)))
    }

    async fn create_unrecorded(&self, caller: &Caller, action: Action, new: NewKey) -> Result<Added, Error> {
        self.clear_unguarded(caller)?;
        let allowed = !new.owners.is_empty() || self.may_create(caller, &new.id);
        if !allowed {
            return Err(Error::Denied(Refusal::Create));
        }
        let (meta, version) = self.new_meta(caller, &new)?;
        let data = self.material(&new.first.material, &meta).await?;
        let ring = self.ring();
        let row = ring.seal_key(&meta);
        let data = ring.seal_version(&meta.key_ref(), meta.kind, version, data.bytes())?;
        let key_digest = ring.digest_key(&row);
        let sealed = sealed_version(&ring, &data);
        let write = Write {
            target: Target::Key(meta.id.clone()),
            expected: Expected::Absent,
            digest: add(key_digest, sealed.digest),
            effect: Effect::PutKey { row, added: vec![data], destroyed: Vec::new() },
            uses: None,
            change: self.change(caller, action),
        };
        let entry = Entry {
            meta: meta.clone(),
            revision: Revision::default(),
            born: Revision::default(),
            digest: key_digest,
            sealed: vec![Arc::new(sealed)],
        };
        let _turn = self.turn(meta.id.as_str()).await;
        // Again: the right may have been revoked during the wait.
        if new.owners.is_empty() && !self.may_create(caller, &new.id) {
            return Err(Error::Denied(Refusal::Create));
        }
        match self.memory.read(|t| t.find(meta.id.as_str()).map(drop)) {
            Err(Error::NotFound(_)) => {}
            Err(unsure @ Error::Unavailable(_)) => return Err(unsure),
            Ok(()) | Err(_) => return Err(Error::Conflict(Conflict::Exists)),
        }
        let revision = self.submit(write, Apply::Put(Box::new(entry))).await.map_err(|e| match e {
            Error::Conflict(_) => Error::Conflict(Conflict::Exists),
            other => other,
        })?;
        Ok(Added { meta, revision, version: Some(version) })
    }

    fn new_meta(&self, caller: &Caller, new: &NewKey) -> Result<(KeyMeta, VersionId), Error> {
        KeyMeta::check_description(&new.description)?;
        new.policy.check(new.kind).map_err(claviger_domain::MetaError::from)?;
        if new.max_lifetime == Some(0) {
            return Err(claviger_domain::MetaError::BadLifetime.into());
        }
        let creator = caller.default_identity().ok_or(Error::Denied(Refusal::Create))?.principal();
        let manage =
            if new.separate_duties { Capabilities::of([Capability::List, Capability::Admin]) } else { Preset::Admin.capabilities() };
        let administer = |acl: Acl| match new.owners.as_slice() {
            [] => acl.set(creator.clone(), manage),
            owners => owners.iter().fold(acl, |acl, owner| acl.set(owner.clone(), manage)),
        };
        let administers = |g: &&Grant| g.capabilities.contains(Capability::Admin);
        let by_default = |acl: Acl, g: &Grant| acl.set(g.principal.clone(), if administers(&g) { manage } else { g.capabilities });
        let acl = self.settings.default_grants.iter().fold(administer(new.acl.clone()), by_default);
        acl.check_length()?;
        if new.separate_duties {
            // What makes administrators is no grant of the creator's to himself.
            let own = self.settings.default_grants.iter().filter(administers).fold(administer(Acl::default()), by_default);
            claviger_domain::check_rights_change(caller, &own, &acl)?;
        }
        let now = self.now();
        let version = new.first.material.version_id();
        let first = Version { id: version, state: VersionState::Primary, created: now, expires: new.first.expires };
        let meta = KeyMeta {
            id: new.id.clone(),
            incarnation: new_incarnation(),
            generation: Generation::FIRST,
            kind: new.kind,
            policy: new.policy.clone(),
            acl,
            versions: Versions::new(vec![first])?,
            separate_duties: new.separate_duties,
            max_lifetime: new.max_lifetime,
            description: new.description.as_str().into(),
            rules: Rules::default(),
            labels: new.labels.clone(),
            created: Created { at: now, by: caller.name().into() },
        };
        Ok((meta, version))
    }

    /// Adds an active version, or a primary one with `promote`.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn add_version(
        &self,
        caller: &Caller,
        surface: Surface,
        id: &str,
        new: &NewVersion,
        promote: bool,
        precondition: Precondition,
    ) -> Result<Added, Error> {
        let subjects = [Subject { key: id, versions: &[] }];
        let action = new.material.action(Action::AddVersion);
        let note = Note { caller, surface, action, subjects: &subjects };
        let (made_for, data) = match self.material_for(caller, id, &new.material).await {
            Ok(made) => made,
            Err(error) => return Err(self.refuse(&note, error).await),
        };
        self.edit::<cap::Write>(caller, surface, action, id, precondition, |entry| {
            // A key that was made anew meanwhile may be of another kind.
            if !entry.meta.takes_material_of(&made_for.meta) {
                return Err(Error::Conflict(Conflict::Changed));
            }
            if entry.meta.versions.living() >= self.settings.max_versions {
                let most = self.settings.max_versions;
                let rule = format!("a key has at most {most} versions that are not destroyed; destroy old ones, or raise `max_versions`");
                return Err(Error::invalid("versions", rule));
            }
            let version = new.material.version_id();
            if let (Material::Wrapped(_), Some(known)) = (&new.material, entry.meta.versions.find(version)) {
                let rule = format!("was brought in before: it is version {version} of this key, which is {}", known.state.name());
                return Err(Error::invalid("wrapped", rule));
            }
            let added =
                entry.meta.versions.forget_destroyed(DESTROYED, entry.meta.policy.min_version).add(version, self.now(), new.expires)?;
            let versions = if promote { added.apply(version, Transition::Promote)? } else { added };
            let row = self.ring().seal_version(&entry.meta.key_ref(), entry.meta.kind, version, data.bytes())?;
            let meta = KeyMeta { versions, ..entry.meta.clone() };
            let deed = promote.then(|| Deed::Promote { key: meta.id.clone(), version });
            Ok(Some(Edit { added: vec![row], version: Some(version), deed, ..Edit::meta(meta) }))
        })
        .await
    }

    /// The data of a new version of a key, and the key that it is for.
    async fn material_for<'m>(&self, caller: &Caller, id: &str, material: &'m Material) -> Result<(Arc<Entry>, Data<'m>), Error> {
        // The right first: strangers must not keep the server busy with making keys.
        let (entry, _) = self.permit::<cap::Write>(caller, id).await?;
        let data = self.material(material, &entry.meta).await?;
        Ok((entry, data))
    }

    /// The data of a new version of a key.
    async fn material<'m>(&self, material: &'m Material, key: &KeyMeta) -> Result<Data<'m>, Error> {
        let KeyMeta { id, kind, policy, .. } = key;
        let kind = *kind;
        match material {
            Material::Wrapped(_) if kind.is_read() => Err(Error::invalid("wrapped", "a secret's data is given as `data`")),
            Material::Wrapped(wrapped) => {
                let material = self.ring().unwrap_import(id, kind, policy, wrapped).map_err(|e| Error::invalid("wrapped", e))?;
                Ok(Data::Made(material))
            }
            Material::Given(data) if kind.is_read() => self.check_size(data).map(|()| Data::Given(data)),
            Material::Given(_) => {
                let rule = format!("the material of a key of the kind {} is made inside; leave `data` out", kind.name());
                Err(Error::invalid("data", rule))
            }
            Material::Generated if kind.is_read() => Err(Error::invalid("data", "is missing: a secret's data is given")),
            Material::Generated => {
                let policy = policy.clone();
                // Away from the threads that answer: a long RSA key takes a second.
                let made = tokio::task::spawn_blocking(move || claviger_crypto::generate(kind, &policy)).await;
                made.map_err(|e| Error::Internal(e.to_string()))?.map(Data::Made).map_err(|error| {
                    let field = if error == claviger_crypto::MaterialError::NoTemplate { "template" } else { "kind" };
                    Error::invalid(field, error)
                })
            }
        }
    }

    /// Changes a version's state. Destroying takes the right to administer, the others the right to write.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn transition(
        &self,
        caller: &Caller,
        surface: Surface,
        id: &str,
        version: VersionId,
        to: Transition,
        precondition: Precondition,
    ) -> Result<Added, Error> {
        let change = |entry: &Entry| {
            let versions = entry.meta.versions.apply(version, to)?;
            let destroyed = if to == Transition::Destroy { vec![version] } else { Vec::new() };
            let key = entry.meta.id.clone();
            let deed = match to {
                Transition::Promote => Some(Deed::Promote { key, version }),
                Transition::Destroy => Some(Deed::Destroy { key, version }),
                Transition::Deactivate | Transition::Reactivate => None,
            };
            let meta = KeyMeta { versions, ..entry.meta.clone() };
            meta.check_min_version()?;
            Ok(Some(Edit { destroyed, version: Some(version), deed, ..Edit::meta(meta) }))
        };
        let action = match to {
            Transition::Promote => Action::Promote,
            Transition::Deactivate => Action::Deactivate,
            Transition::Reactivate => Action::Reactivate,
            Transition::Destroy => Action::Destroy,
        };
        match to {
            Transition::Destroy => {
                let added = self.edit::<cap::Admin>(caller, surface, action, id, precondition, change).await?;
                self.open_keys.forget(|open| open.version() == version && *open.key() == added.meta.key_ref());
                Ok(added)
            }
            _ => self.edit::<cap::Write>(caller, surface, action, id, precondition, change).await,
        }
    }

    /// Changes description, labels and policy: `change` works them out on the present record.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn change_meta(
        &self,
        caller: &Caller,
        surface: Surface,
        id: &str,
        precondition: Precondition,
        change: impl Fn(&KeyMeta) -> Result<KeyMeta, Error>,
    ) -> Result<Added, Error> {
        self.edit::<cap::Admin>(caller, surface, Action::ChangeMeta, id, precondition, |entry| {
            let meta = change(&entry.meta)?;
            // Only what this operation is for may differ: versions, rights and identity have operations of their own.
            let meta = KeyMeta {
                acl: entry.meta.acl.clone(),
                rules: entry.meta.rules.clone(),
                versions: entry.meta.versions.clone(),
                id: entry.meta.id.clone(),
                incarnation: entry.meta.incarnation,
                kind: entry.meta.kind,
                policy: KeyPolicy { min_version: meta.policy.min_version, ..entry.meta.policy.clone() },
                ..meta
            };
            if meta.policy.min_version != entry.meta.policy.min_version {
                meta.policy.check(meta.kind).map_err(claviger_domain::MetaError::from)?;
                meta.check_min_version()?;
            }
            entry.meta.check_rights(&meta, caller)?;
            Ok((meta != entry.meta).then(|| Edit::meta(meta)))
        })
        .await
    }

    /// Deletes a key. Its id is free at once; its former readers are told. One that is damaged takes an administrator of
    /// everything.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn delete(&self, caller: &Caller, surface: Surface, id: &str, precondition: Precondition) -> Result<Revision, Error> {
        let subjects = [Subject { key: id, versions: &[] }];
        let note = Note { caller, surface, action: Action::Delete, subjects: &subjects };
        match self.delete_unrecorded(caller, surface, id, precondition).await {
            Ok((revision, acl, allowed_by, (deed, cleared))) => {
                self.open_keys.forget(|open| open.key().id.as_str() == id);
                let rights = RightsChange { old: &acl, new: &Acl::default() };
                let by = (Some(&deed), &cleared);
                self.done_cleared(&note, revision, Some(rights), allowed_by.as_deref(), "", by).await?;
                Ok(revision)
            }
            Err(Error::Damaged { why, .. }) if precondition == Precondition::Any => self.delete_damaged(&note, &why).await,
            Err(error) => Err(self.refuse(&note, error).await),
        }
    }

    async fn delete_unrecorded(
        &self,
        caller: &Caller,
        surface: Surface,
        id: &str,
        precondition: Precondition,
    ) -> Result<(Revision, Acl, AllowedBy, (Deed, Cleared)), Error> {
        self.permit::<cap::Admin>(caller, id).await?;
        let _turn = self.turn(id).await;
        self.overlay.settle(id).await;
        for _ in 0..TRIES {
            let (entry, permit) = self.permit::<cap::Admin>(caller, id).await?;
            let meta = &entry.meta;
            if !precondition.holds(meta.incarnation, meta.generation) {
                return Err(Error::Conflict(Conflict::Changed));
            }
            let deed = Deed::Delete { key: meta.id.clone() };
            let cleared = self.clear(caller, surface, deed.clone(), (meta.incarnation, meta.generation), &meta.rules).await?;
            let last = (&meta.acl, meta.separate_duties);
            let (write, tombstone) = self.burial(caller, permit.key().clone(), meta.generation, last, entry.counted());
            match self.submit_cleared(write, Apply::Delete(Box::new(tombstone)), &cleared).await {
                Ok(revision) => return Ok((revision, meta.acl.clone(), permit.allowed_by().cloned(), (deed, cleared))),
                Err(Error::Conflict(_)) if precondition == Precondition::Any => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict(Conflict::Changed))
    }

    /// The write that deletes a key, and the tombstone it leaves; who read it by a prefix is told of the deletion too. `last` is
    /// the key's own list and whether its duties are separate, `counted` what the head counts for its rows.
    pub(crate) fn burial(
        &self,
        caller: &Caller,
        key: KeyRef,
        generation: Generation,
        last: (&Acl, bool),
        counted: DigestDelta,
    ) -> (Write, Tombstone) {
        let covering = self.memory.read(|t| t.covering_now(&key.id));
        let deleted = Created { at: self.now(), by: caller.name().into() };
        let tombstone = Tombstone { key, acl: last_rights(last.0, last.1, &covering), deleted };
        let ring = self.ring();
        let row = ring.seal_tombstone(&tombstone);
        let write = Write {
            target: Target::Key(tombstone.key.id.clone()),
            expected: Expected::At(tombstone.key.incarnation, generation),
            digest: add(ring.digest_tombstone(&row), negate(counted)),
            effect: Effect::DeleteKey(row),
            uses: None,
            change: self.change(caller, Action::Delete),
        };
        (write, tombstone)
    }

    /// The common way of every change of a key: authorize, work out, seal, commit, record. A change that is worked out to
    /// be none is a success at the present revision.
    pub(crate) async fn edit<C: cap::Kind>(
        &self,
        caller: &Caller,
        surface: Surface,
        action: Action,
        id: &str,
        precondition: Precondition,
        work: impl Fn(&Entry) -> Result<Option<Edit>, Error>,
    ) -> Result<Added, Error> {
        match self.edit_unrecorded::<C>(caller, surface, action, id, precondition, work).await {
            Ok((added, before, allowed_by, (deed, cleared))) => {
                let versions: Vec<_> = added.version.into_iter().collect();
                let subjects = [Subject { key: id, versions: &versions }];
                let changed = before.meta.acl != added.meta.acl;
                let rights = changed.then_some(RightsChange { old: &before.meta.acl, new: &added.meta.acl });
                let note = Note { caller, surface, action, subjects: &subjects };
                if added.meta.generation == before.meta.generation {
                    // Nothing was committed: without its record this is a failure like any other.
                    let record = note.record(self, Outcome::Ok, "", Some(added.revision), None);
                    self.note(&Record { allowed_by: allowed_by.as_deref(), ..record }).await?;
                } else {
                    let ruled = rules_difference(&before.meta.rules, &added.meta.rules).join("; ");
                    let by = (deed.as_ref(), &cleared);
                    self.done_cleared(&note, added.revision, rights, allowed_by.as_deref(), &ruled, by).await?;
                }
                Ok(added)
            }
            Err(error) => {
                let subjects = [Subject { key: id, versions: &[] }];
                Err(self.refuse(&Note { caller, surface, action, subjects: &subjects }, error).await)
            }
        }
    }

    async fn edit_unrecorded<C: cap::Kind>(
        &self,
        caller: &Caller,
        surface: Surface,
        action: Action,
        id: &str,
        precondition: Precondition,
        work: impl Fn(&Entry) -> Result<Option<Edit>, Error>,
    ) -> Result<(Added, Arc<Entry>, AllowedBy, (Option<Deed>, Cleared)), Error> {
        // Before the turn, so that strangers cannot queue up for it; and again under it.
        self.permit::<C>(caller, id).await?;
        for _ in 0..TRIES {
            let turn = self.turn(id).await;
            let mut ahead = self.overlay.ahead(id);
            let built = ahead.as_ref().and_then(|ahead| self.build_on::<C>(ahead, caller, id, precondition, &work));
            let (before, edit, key, allowed_by) = match built {
                Some((before, edit, key)) => (before, edit, key, None),
                None => {
                    // Nobody is refused, or told that nothing changed, by what does not stand yet.
                    if let Some(ahead) = ahead.take() {
                        ahead.settled().await;
                    }
                    let (before, permit) = self.permit::<C>(caller, id).await?;
                    if !precondition.holds(before.meta.incarnation, before.meta.generation) {
                        return Err(Error::Conflict(Conflict::Changed));
                    }
                    let Some(edit) = work(&before)? else {
                        self.clear_nothing(caller)?;
                        let added = Added { meta: before.meta.clone(), revision: before.revision, version: None };
                        return Ok((added, before, permit.allowed_by().cloned(), (None, Cleared::Free)));
                    };
                    (before, edit, permit.key().clone(), permit.allowed_by().cloned())
                }
            };
            let (version, deed) = (edit.version, edit.deed.clone());
            let cleared = match (&deed, ahead.take()) {
                // What rests on an approval is worked out on what stands.
                (Some(deed), Some(unsettled)) if self.is_guarded(deed, &before.meta.rules) || *caller.approval() != Approving::Plain => {
                    drop(turn);
                    unsettled.settled().await;
                    continue;
                }
                (deed, built_on) => {
                    ahead = built_on;
                    self.clear_edit(caller, surface, action, deed.clone(), &before).await?
                }
            };
            let (write, entry) = self.prepare(caller, action, &before, edit, &key).await?;
            let meta = entry.meta.clone();
            let on_its_way = self.overlay.begin(entry.copy(), ahead.as_ref());
            let (write, uses) = cleared.attach(write);
            let answer = self.enqueue(write, Apply::Put(Box::new(entry)), uses).await?;
            drop(turn);
            match answer.await {
                Ok(revision) => {
                    on_its_way.arrived();
                    return Ok((Added { meta, revision, version }, before, allowed_by, (deed, cleared)));
                }
                Err(Error::Conflict(_)) if precondition == Precondition::Any => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict(Conflict::Changed))
    }

    /// The gate before a change of a key.
    async fn clear_edit(
        &self,
        caller: &Caller,
        surface: Surface,
        action: Action,
        deed: Option<Deed>,
        before: &Entry,
    ) -> Result<Cleared, Error> {
        let meta = &before.meta;
        let Some(deed) = deed else { return self.clear_unguarded(caller).map(|()| Cleared::Free) };
        let is_addition = matches!(action, Action::AddVersion | Action::Import);
        if is_addition && !caller.breaks_glass() && self.is_guarded(&deed, &meta.rules) {
            // Nobody can agree to data that he must not see; and a version that is there has a name.
            let rule = format!("to promote a version of `{}` needs approval: add it without promoting it, then ask to promote it", meta.id);
            return Err(Error::invalid("promote", rule));
        }
        if is_addition && *caller.approval() != Approving::Plain {
            return self.clear_unguarded(caller).map(|()| Cleared::Free);
        }
        Box::pin(self.clear(caller, surface, deed, (meta.incarnation, meta.generation), &meta.rules)).await
    }

    /// A change worked out on what is on its way to the key; none where that does not allow it, or comes to no change.
    fn build_on<C: cap::Kind>(
        &self,
        ahead: &Ahead,
        caller: &Caller,
        id: &str,
        precondition: Precondition,
        work: impl Fn(&Entry) -> Result<Option<Edit>, Error>,
    ) -> Option<(Arc<Entry>, Edit, KeyRef)> {
        let meta = &ahead.entry.meta;
        // What stands must allow it, too: a right that is only on its way is no right yet.
        let permit = self.memory.read(|t| {
            permitted::<C>(t, caller, id).ok()?;
            authorize::<C>(caller, meta, t.covering(&meta.id), None).ok()
        })?;
        if !precondition.holds(meta.incarnation, meta.generation) {
            return None;
        }
        let edit = work(&ahead.entry).ok()??;
        Some((ahead.entry.clone(), edit, permit.key().clone()))
    }

    /// Seals an edit into a write, and the entry that memory will show.
    async fn prepare(&self, caller: &Caller, action: Action, before: &Entry, edit: Edit, key: &KeyRef) -> Result<(Write, Entry), Error> {
        let Edit { meta, added, destroyed, version: _, deed: _ } = edit;
        let meta = KeyMeta { generation: before.meta.generation.next(), ..meta };
        if meta.acl != before.meta.acl {
            meta.acl.check_length()?;
        }
        let ring = self.ring();
        let row = ring.seal_key(&meta);
        let digest = ring.digest_key(&row);
        let mut delta = add(digest, negate(before.digest));
        let mut sealed = Vec::with_capacity(before.sealed.len() + added.len());
        for old in &before.sealed {
            if destroyed.contains(&old.version) {
                delta = add(delta, negate(old.digest));
            } else {
                sealed.push(self.served_again(&before.meta, &meta, old, key).await?);
            }
        }
        for row in &added {
            let new = sealed_version(&ring, row);
            delta = add(delta, new.digest);
            sealed.push(Arc::new(new));
        }
        let write = Write {
            target: Target::Key(meta.id.clone()),
            expected: Expected::At(before.meta.incarnation, before.meta.generation),
            effect: Effect::PutKey { row, added, destroyed },
            uses: None,
            digest: delta,
            change: self.change(caller, action),
        };
        Ok((write, Entry { meta, revision: Revision::default(), born: Revision::default(), digest, sealed }))
    }

    /// A version that becomes active again has its data in the store only; it is brought back to memory. Large data of one
    /// that was active all along is not in memory either, and stays where it is.
    async fn served_again(
        &self,
        before: &KeyMeta,
        after: &KeyMeta,
        old: &Arc<SealedVersion>,
        key: &KeyRef,
    ) -> Result<Arc<SealedVersion>, Error> {
        let is_in = |meta: &KeyMeta, state| meta.versions.find(old.version).is_some_and(|v| v.state == state);
        let comes_back = is_in(before, VersionState::Inactive) && is_in(after, VersionState::Active);
        if !comes_back || old.data.is_some() {
            return Ok(old.clone());
        }
        let (_, data) = self.stored(key, old.version).await?;
        Ok(Arc::new(SealedVersion { data: Some(data), ..(**old).clone() }))
    }

    pub(crate) fn change(&self, caller: &Caller, action: Action) -> Change {
        Change { what: action.name(), actor: caller.name().to_owned(), request_id: caller.request_id, at: self.now() }
    }

    pub(crate) async fn turn(&self, id: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        let stripe = usize::try_from(hash % self.turns.len() as u64).unwrap_or(0);
        self.turns[stripe].lock().await
    }

    fn check_size(&self, data: &SecretBytes) -> Result<(), Error> {
        let max = self.settings.max_value;
        match data.len() {
            n if n > max => Err(Error::invalid(
                "data",
                format!(
                    "a value has at most {max} bytes here, this one has {n}; `max_value` in the configuration raises that, up to 10 MiB"
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Finds a key for a caller and asks whether he may.
pub(crate) fn permitted<C: cap::Kind>(tables: &Tables, caller: &Caller, id: &str) -> Result<(Arc<Entry>, Permit<C>), Error> {
    let entry = tables.find_for(caller, id)?;
    let permit = authorize::<C>(caller, &entry.meta, tables.covering(&entry.meta.id), None)?;
    Ok((entry.clone(), permit))
}

/// Everyone who has a right on a key, by its own list or by a prefix, in one list: a tombstone's, which must not change its
/// mind when grants on prefixes do.
fn last_rights(acl: &Acl, separate_duties: bool, covering: &[Arc<PrefixGrant>]) -> Acl {
    let uses_nothing = |c: Capabilities| separate_duties && c.contains(Capability::Admin);
    let worth = |c: Capabilities| if uses_nothing(c) { c.minus(Capabilities::USE) } else { c };
    let more = covering.iter().flat_map(|p| p.acl.grants()).map(|grant| Grant {
        principal: grant.principal.clone(),
        capabilities: worth(grant.capabilities).minus(Capabilities::of([Capability::Create])),
    });
    acl.united(more)
}

/// The versions a reader gets. What has passed its lifetime is never among them ▲.
pub(crate) fn choose(meta: &KeyMeta, select: Select, now: Timestamp) -> Result<Vec<Version>, Error> {
    use VersionState::{Active, Destroyed, Primary};
    let alive = |v: &Version| v.end_of_life(meta.max_lifetime).is_none_or(|end| now < end);
    if let Select::One(id) = select {
        let missing = || Error::NoVersion { id: meta.id.to_string(), version: id.to_string() };
        let version = meta.versions.find(id).filter(|v| v.state != Destroyed).ok_or_else(missing)?;
        return if alive(version) { Ok(vec![*version]) } else { Err(Error::Denied(Refusal::Expired)) };
    }
    if !alive(meta.versions.primary()) {
        return Err(Error::Denied(Refusal::Expired));
    }
    let wanted = |v: &&Version| match select {
        Select::Primary => v.state == Primary,
        Select::Active => matches!(v.state, Primary | Active),
        Select::All | Select::One(_) => v.state != Destroyed,
    };
    Ok(meta.versions.iter().filter(wanted).filter(|v| alive(v)).copied().collect())
}

fn sealed_version(ring: &claviger_crypto::KeyRing, row: &VersionRow) -> SealedVersion {
    SealedVersion {
        version: row.version,
        wrapped_key: row.wrapped_key.clone(),
        digest: digest_version(ring, row),
        data: Some(row.data.clone()),
    }
}

fn digest_version(ring: &claviger_crypto::KeyRing, row: &VersionRow) -> DigestDelta {
    let data = &row.data.0;
    let tag = &data[data.len().saturating_sub(16)..];
    ring.digest_version(&row.key, row.version, &row.wrapped_key, data.len() as u64, tag)
}

/// A random incarnation; 0 is that of what has none.
pub(crate) fn new_incarnation() -> Incarnation {
    Incarnation(u64::from_be_bytes(random()).max(1))
}

/// A random version id; a key's versions are checked for uniqueness when it is added.
fn new_version_id() -> VersionId {
    loop {
        let raw = u64::from_be_bytes(random()) >> 1;
        if let Some(id) = VersionId::new(raw) {
            return id;
        }
    }
}
