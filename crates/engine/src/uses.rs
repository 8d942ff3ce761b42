//! Use cases of keys that are used, not read: encrypt, decrypt, rewrap, sign, verify, authenticate, make data keys.
//!
//! A request does one or many things with one key. It has one permit and one record; each thing has its own result.
//!
//! | use | right | version |
//! |---|---|---|
//! | encrypt, data key | `encrypt` | the primary one |
//! | decrypt | `decrypt` | the one that the ciphertext names, if it is primary or active and not below the minimum |
//! | rewrap | `encrypt`: nobody sees the plaintext | from that one to the primary one |
//! | sign, hmac | `sign` | the primary one |
//! | verify | `verify` or `sign` | the one that is named, or any that is primary or active |
//! | public key | any right on the key | all that are primary or active |
//! | export | `read`, of a key that was made exportable | the primary one, or the one that is named |

use crate::approvals::Cleared;
use crate::keys::{choose, permitted};
use crate::start::Engine;
use crate::{Entry, Error, Note, Refusal, Surface};
use claviger_crypto::{Hash, ImportKey, KeyRing, Message, PublicKey, Scheme, UseError, UseKey, incarnation_named, version_named};
use claviger_domain::audit::{Action, Outcome, Record, Subject};
use claviger_domain::{
    Caller, Deed, KeyId, KeyKind, KeyMeta, Permit, SecretBytes, Select, Unusable, Version, VersionId, VersionState, cap,
};
use claviger_ports::Sealed;
use std::sync::Arc;

/// Versions that are tried where what is checked does not name its own.
const TRIED: usize = 16;

/// Things done in one go; then others get their turn.
const STRETCH: usize = 16;

/// What is said of a ciphertext of a deleted key.
const DELETED: &str = "this was encrypted with an earlier key of this name, which was deleted: without a backup it is lost";

/// Who uses which key, through which surface.
#[derive(Debug, Clone, Copy)]
pub struct Using<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// Through which surface.
    pub surface: Surface,
    /// The key's id as asked for.
    pub id: &'a str,
}

/// Something to be encrypted.
pub struct Plain {
    /// The plaintext.
    pub plain: SecretBytes,
    /// What it is bound to.
    pub aad: Vec<u8>,
}

/// Something to be decrypted or rewrapped.
pub struct Cipher {
    /// The ciphertext.
    pub sealed: Vec<u8>,
    /// What it is bound to.
    pub aad: Vec<u8>,
    /// The version, where the ciphertext does not name it.
    pub version: Option<VersionId>,
}

/// Something to be signed.
pub struct Document {
    /// The message, or its digest.
    pub message: Vec<u8>,
    /// Whether it is the digest.
    pub is_digest: bool,
}

/// Something to be checked.
pub struct Proof {
    /// What was signed.
    pub document: Document,
    /// The signature or code.
    pub proof: Vec<u8>,
    /// The version that made it, if known.
    pub version: Option<VersionId>,
}

/// A data key to be made.
pub struct DataKey {
    /// Its length.
    pub bytes: usize,
    /// What it is bound to.
    pub aad: Vec<u8>,
}

/// What came of one thing, and the version that did it.
#[derive(Debug)]
pub struct Done<T> {
    /// The version.
    pub version: VersionId,
    /// The version before, where one was replaced by rewrapping.
    pub before: Option<VersionId>,
    /// The result.
    pub value: T,
}

/// Each thing's own end.
pub type Each<T> = Vec<Result<Done<T>, Error>>;

/// What the check of a proof found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// The version that it holds for; none where it holds for none.
    pub holds_for: Option<VersionId>,
}

/// A version's public half.
#[derive(Debug)]
pub struct PublicVersion {
    /// The version.
    pub version: Version,
    /// Its public half.
    pub public: PublicKey,
}

/// Material that left.
pub struct Exported {
    /// The key's record.
    pub entry: Arc<Entry>,
    /// The version.
    pub version: Version,
    /// Its material.
    pub material: SecretBytes,
}

/// One thing of a request.
trait Thing {
    /// What one of the key's versions should have made: where that says which, only that one is asked.
    fn made(&self) -> Option<&[u8]> {
        None
    }
}

impl Thing for Plain {}
impl Thing for DataKey {}
impl Thing for Document {}
impl Thing for Vec<u8> {}

impl Thing for Cipher {
    fn made(&self) -> Option<&[u8]> {
        Some(&self.sealed)
    }
}

impl Thing for Proof {
    fn made(&self) -> Option<&[u8]> {
        Some(&self.proof)
    }
}

/// A request being answered.
struct Task<'e, C: cap::Kind> {
    engine: &'e Engine,
    ring: Arc<KeyRing>,
    entry: Arc<Entry>,
    permit: Permit<C>,
    open: Vec<Arc<UseKey>>,
    used: Vec<VersionId>,
}

impl Document {
    fn message(&self) -> Message<'_> {
        if self.is_digest { Message::Digest(&self.message) } else { Message::Whole(&self.message) }
    }
}

impl Engine {
    /// Encrypts with the primary version.
    ///
    /// # Errors
    /// The refusal of the whole request, which is recorded as well; each item has its own.
    pub async fn encrypt(&self, using: &Using<'_>, items: &[Plain]) -> Result<Each<Vec<u8>>, Error> {
        let task = self.task::<cap::Encrypt>(using, Action::Encrypt).await?;
        let primary = |meta: &KeyMeta, _: &Plain| self.primary(meta).map(|version| vec![version]);
        let encrypt = |permit: &Permit<cap::Encrypt>, keys: &[Arc<UseKey>], item: &Plain| {
            first(keys, |key| key.encrypt(permit, &item.plain, &item.aad))
        };
        self.each(task, using, Action::Encrypt, items, primary, encrypt).await
    }

    /// Makes data keys, each in the clear and encrypted with the primary version.
    ///
    /// # Errors
    /// As [`Engine::encrypt`].
    pub async fn data_keys(&self, using: &Using<'_>, items: &[DataKey]) -> Result<Each<(SecretBytes, Vec<u8>)>, Error> {
        let task = self.task::<cap::Encrypt>(using, Action::DataKey).await?;
        let primary = |meta: &KeyMeta, _: &DataKey| self.primary(meta).map(|version| vec![version]);
        let make = |permit: &Permit<cap::Encrypt>, keys: &[Arc<UseKey>], item: &DataKey| {
            first(keys, |key| key.data_key(permit, item.bytes, &item.aad))
        };
        self.each(task, using, Action::DataKey, items, primary, make).await
    }

    /// Decrypts with the version that each ciphertext names.
    ///
    /// # Errors
    /// As [`Engine::encrypt`].
    pub async fn decrypt(&self, using: &Using<'_>, items: &[Cipher]) -> Result<Each<SecretBytes>, Error> {
        let task = self.task::<cap::Decrypt>(using, Action::Decrypt).await?;
        let decrypt = |permit: &Permit<cap::Decrypt>, keys: &[Arc<UseKey>], item: &Cipher| {
            first(keys, |key| key.decrypt(permit, &item.sealed, &item.aad))
        };
        self.each(task, using, Action::Decrypt, items, |meta, item| self.maker(meta, item), decrypt).await
    }

    /// Moves ciphertexts to the primary version; nobody sees a plaintext.
    ///
    /// # Errors
    /// As [`Engine::encrypt`].
    pub async fn rewrap(&self, using: &Using<'_>, items: &[Cipher]) -> Result<Each<Vec<u8>>, Error> {
        let task = self.task::<cap::Encrypt>(using, Action::Rewrap).await?;
        let both = |meta: &KeyMeta, item: &Cipher| Ok([vec![self.primary(meta)?], self.maker(meta, item)?].concat());
        let rewrap = |permit: &Permit<cap::Encrypt>, keys: &[Arc<UseKey>], item: &Cipher| {
            let Some((new, old)) = keys.split_first() else { return Err(Error::Internal("no version was opened".into())) };
            let done = first(old, |old| new.rewrap(permit, old, &item.sealed, &item.aad))?;
            Ok(Done { version: new.version(), before: Some(done.version), ..done })
        };
        self.each(task, using, Action::Rewrap, items, both, rewrap).await
    }

    /// Signs with the primary version.
    ///
    /// # Errors
    /// As [`Engine::encrypt`].
    pub async fn sign(&self, using: &Using<'_>, scheme: &Scheme, items: &[Document]) -> Result<Each<Vec<u8>>, Error> {
        let task = self.task::<cap::Sign>(using, Action::Sign).await?;
        let primary = |meta: &KeyMeta, _: &Document| self.primary(meta).map(|version| vec![version]);
        let sign =
            |permit: &Permit<cap::Sign>, keys: &[Arc<UseKey>], item: &Document| first(keys, |key| key.sign(permit, scheme, item.message()));
        self.each(task, using, Action::Sign, items, primary, sign).await
    }

    /// Makes message authentication codes with the primary version.
    ///
    /// # Errors
    /// As [`Engine::encrypt`].
    pub async fn hmac(&self, using: &Using<'_>, hash: Option<Hash>, items: &[Vec<u8>]) -> Result<Each<Vec<u8>>, Error> {
        let task = self.task::<cap::Sign>(using, Action::Hmac).await?;
        let primary = |meta: &KeyMeta, _: &Vec<u8>| self.primary(meta).map(|version| vec![version]);
        let make = |permit: &Permit<cap::Sign>, keys: &[Arc<UseKey>], item: &Vec<u8>| first(keys, |key| key.mac(permit, hash, item));
        self.each(task, using, Action::Hmac, items, primary, make).await
    }

    /// Checks signatures, or message authentication codes: by the version that is named, or by those that are primary or active.
    ///
    /// # Errors
    /// As [`Engine::encrypt`].
    pub async fn verify(&self, using: &Using<'_>, scheme: &Scheme, items: &[Proof]) -> Result<Each<Check>, Error> {
        let Using { caller, id, .. } = using;
        // Whoever may sign may check what was signed.
        let signs = self.memory.read(|t| permitted::<cap::Verify>(t, caller, id).is_err() && permitted::<cap::Sign>(t, caller, id).is_ok());
        match signs {
            true => self.verify_by::<cap::Sign>(using, scheme, items).await,
            false => self.verify_by::<cap::Verify>(using, scheme, items).await,
        }
    }

    async fn verify_by<C: cap::Verifies>(&self, using: &Using<'_>, scheme: &Scheme, items: &[Proof]) -> Result<Each<Check>, Error> {
        let task = self.task::<C>(using, Action::Verify).await?;
        let candidates = |meta: &KeyMeta, item: &Proof| self.candidates(meta, item.version);
        let verify = |permit: &Permit<C>, keys: &[Arc<UseKey>], item: &Proof| {
            for key in keys {
                if key.verify(permit, scheme, item.document.message(), &item.proof).map_err(item_error)? {
                    return Ok(Done { version: key.version(), before: None, value: Check { holds_for: Some(key.version()) } });
                }
            }
            let version = keys.first().map(|key| key.version()).ok_or_else(|| Error::Internal("no version was opened".into()))?;
            Ok(Done { version, before: None, value: Check { holds_for: None } })
        };
        self.each(task, using, Action::Verify, items, candidates, verify).await
    }

    /// The public halves of the primary and the active versions, oldest first. Any right on the key is enough.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn public_keys(&self, using: &Using<'_>) -> Result<(Arc<Entry>, Vec<PublicVersion>), Error> {
        let Using { caller, surface, id } = *using;
        let subjects = [Subject { key: id, versions: &[] }];
        let note = Note { caller, surface, action: Action::PublicKey, subjects: &subjects };
        match self.public_unrecorded(caller, id).await {
            Ok((entry, public)) => {
                let versions: Vec<_> = public.iter().map(|p| p.version.id).collect();
                let subjects = [Subject { key: id, versions: &versions }];
                self.done(&Note { subjects: &subjects, ..note }, Some(entry.revision), None).await?;
                Ok((entry, public))
            }
            Err(error) => Err(self.refuse(&note, error).await),
        }
    }

    async fn public_unrecorded(&self, caller: &Caller, id: &str) -> Result<(Arc<Entry>, Vec<PublicVersion>), Error> {
        let entry = self.memory.read(|t| {
            let entry = t.find_for(caller, id)?;
            if t.permits(caller, entry).is_empty() { Err(Error::Denied(Refusal::Unseen)) } else { Ok(entry.clone()) }
        })?;
        let now = self.now();
        let mut all = Vec::new();
        for version in entry.meta.versions.iter().filter(|v| entry.meta.usable(v.id, now).is_ok()) {
            let key = self.open_version(&entry, version.id, &self.ring()).await?;
            all.push(PublicVersion { version: *version, public: key.public_key().map_err(item_error)? });
        }
        Ok((entry, all))
    }

    /// A version's material, of a key that was made exportable. A rule may make that depend on approval.
    ///
    /// # Errors
    /// Any of [`Error`]; the refusal is recorded as well.
    pub async fn export(&self, using: &Using<'_>, version: Option<VersionId>) -> Result<Exported, Error> {
        let Using { caller, surface, id } = *using;
        let subjects = [Subject { key: id, versions: &[] }];
        let note = Note { caller, surface, action: Action::Export, subjects: &subjects };
        match self.export_unrecorded(using, version).await {
            Ok((exported, allowed_by, cleared)) => {
                let versions = [exported.version.id];
                let subjects = [Subject { key: id, versions: &versions }];
                let (note, revision) = (Note { subjects: &subjects, ..note }, exported.entry.revision);
                let deed = Deed::Export { key: exported.entry.meta.id.clone(), version };
                self.done_cleared(&note, revision, None, allowed_by.as_deref(), "", (Some(&deed), &cleared)).await?;
                Ok(exported)
            }
            Err(error) => Err(self.refuse(&note, error).await),
        }
    }

    async fn export_unrecorded(
        &self,
        using: &Using<'_>,
        version: Option<VersionId>,
    ) -> Result<(Exported, crate::keys::AllowedBy, Cleared), Error> {
        let Using { caller, surface, id } = *using;
        let (entry, permit) = self.permit::<cap::Read>(caller, id).await?;
        let KeyMeta { kind, policy, incarnation, generation, rules, .. } = &entry.meta;
        if kind.is_read() {
            return Err(Error::invalid("kind", "a secret is read, not exported"));
        }
        if !policy.exportable {
            return Err(Error::Denied(Refusal::NotExportable));
        }
        let deed = Deed::Export { key: entry.meta.id.clone(), version };
        let cleared = self.clear(caller, surface, deed, (*incarnation, *generation), rules).await?;
        let select = version.map_or(Select::Primary, Select::One);
        let chosen = choose(&entry.meta, select, self.now())?;
        let version = *chosen.first().ok_or_else(|| Error::Internal("no version was chosen".into()))?;
        let (wrapped, data) = self.sealed_of(&entry, version.id).await?;
        let material = self.ring().export(&permit, *kind, policy, version.id, (&wrapped, &data)).map_err(|e| damaged(&entry, &e))?;
        if let Cleared::By(used) = &cleared {
            Box::pin(self.consume(caller, used)).await?;
            self.check_unchanged(&entry)?;
        }
        Ok((Exported { entry, version, material }, permit.allowed_by().cloned(), cleared))
    }

    /// The public key that imported material is wrapped to.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the store or the log does not answer.
    pub async fn import_key(&self, caller: &Caller, surface: Surface) -> Result<ImportKey, Error> {
        let note = Note { caller, surface, action: Action::ImportKey, subjects: &[] };
        let ring = self.ring();
        let barriers = match self.store.barriers().await {
            Ok(barriers) => barriers,
            Err(error) => return Err(self.refuse(&note, error.into()).await),
        };
        let created = barriers.iter().find(|row| row.version == ring.version()).map(|row| row.created);
        self.done(&note, Some(self.revision()), None).await?;
        Ok(ring.import_key(created.unwrap_or_else(|| self.now())))
    }

    /// What all uses begin with: the key and the permit.
    async fn task<C: cap::Kind>(&self, using: &Using<'_>, action: Action) -> Result<Task<'_, C>, Error> {
        let Using { caller, surface, id } = *using;
        let found = self.permit::<C>(caller, id).await.and_then(|(entry, permit)| {
            // No use of a key takes approval, and none is given for it.
            self.clear_unguarded(caller)?;
            match entry.meta.kind.is_read() {
                true => Err(Error::invalid("kind", "a secret is read, not used; make a key of another kind for that")),
                false => Ok((entry, permit)),
            }
        });
        match found {
            Ok((entry, permit)) => Ok(Task { engine: self, ring: self.ring(), entry, permit, open: Vec::new(), used: Vec::new() }),
            Err(error) => {
                let subjects = [Subject { key: id, versions: &[] }];
                Err(self.refuse(&Note { caller, surface, action, subjects: &subjects }, error).await)
            }
        }
    }

    /// What all uses have in common: each item with the versions that it needs, then one record, durable before the answer ▲.
    async fn each<C: cap::Kind, I: Thing, T>(
        &self,
        mut task: Task<'_, C>,
        using: &Using<'_>,
        action: Action,
        items: &[I],
        needs: impl Fn(&KeyMeta, &I) -> Result<Vec<VersionId>, Error>,
        work: impl Fn(&Permit<C>, &[Arc<UseKey>], &I) -> Result<Done<T>, Error>,
    ) -> Result<Each<T>, Error> {
        let is_slow = matches!(task.entry.meta.kind, KeyKind::Rsa | KeyKind::EcdsaP384 | KeyKind::Tink);
        let mut ends: Each<T> = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let end = match needs(&task.entry.meta, item) {
                Ok(versions) => task.one(&versions, item, &work).await,
                Err(error) => Err(error),
            };
            ends.push(end);
            if i % STRETCH == STRETCH - 1 || (is_slow && i + 1 < items.len()) {
                tokio::task::yield_now().await;
            }
        }
        let Task { entry, permit, used, .. } = task;
        let failed = ends.iter().filter(|end| end.is_err()).count();
        let first = ends.iter().find_map(|end| end.as_ref().err());
        let (outcome, reason) = match first {
            None if items.len() == 1 => (Outcome::Ok, String::new()),
            None => (Outcome::Ok, format!("{} items", items.len())),
            Some(error) if failed == items.len() => (error.outcome(), format!("{failed} items: {error}")),
            Some(error) => (Outcome::Ok, format!("{} items, {failed} of them refused; the first: {error}", items.len())),
        };
        let subjects = [Subject { key: using.id, versions: &used }];
        let note = Note { caller: using.caller, surface: using.surface, action, subjects: &subjects };
        let record = note.record(self, outcome, &reason, Some(entry.revision), None);
        self.audit.append(&Record { allowed_by: permit.allowed_by().map(|by| &**by), ..record }).await?;
        Ok(ends)
    }

    /// The version that makes things.
    fn primary(&self, meta: &KeyMeta) -> Result<VersionId, Error> {
        Ok(meta.usable(meta.versions.primary().id, self.now())?.id)
    }

    /// The versions that may have made a ciphertext.
    fn maker(&self, meta: &KeyMeta, item: &Cipher) -> Result<Vec<VersionId>, Error> {
        match version_named(&meta.key_ref(), meta.kind, &meta.policy, &item.sealed) {
            Ok(Some(named)) if item.version.is_some_and(|asked| asked != named) => Err(item_error(UseError::OtherVersion)),
            Ok(Some(named)) => Ok(vec![meta.usable(named, self.now())?.id]),
            Ok(None) => self.candidates(meta, item.version),
            Err(UseError::OtherIncarnation) if self.was_deleted(&meta.id, &item.sealed) => Err(Error::invalid("ciphertext", DELETED)),
            Err(other) => Err(item_error(other)),
        }
    }

    /// Whether a ciphertext names the last key of this id that was deleted here. Who has such a ciphertext knows that there was one: its
    /// incarnation is a random number of 64 bits. What is said of all others does not depend on what was deleted.
    fn was_deleted(&self, id: &KeyId, sealed: &[u8]) -> bool {
        let named = incarnation_named(id, sealed);
        named.is_some() && self.memory.read(|t| t.graves.get(id).map(|grave| grave.tombstone.key.incarnation)) == named
    }

    /// The versions to try: the one asked for, or the primary one and then the active ones, newest first.
    fn candidates(&self, meta: &KeyMeta, asked: Option<VersionId>) -> Result<Vec<VersionId>, Error> {
        let now = self.now();
        if let Some(version) = asked {
            return Ok(vec![meta.usable(version, now)?.id]);
        }
        let primary = meta.versions.primary().id;
        let others = meta.versions.iter().rev().map(|v| v.id).filter(|id| *id != primary);
        let usable: Vec<_> = std::iter::once(primary).chain(others).filter(|id| meta.usable(*id, now).is_ok()).collect();
        match usable.len() {
            0 => Err(meta.usable(primary, now).map_or_else(Error::from, |_| Error::Internal("no version".into()))),
            n if n > TRIED => {
                let rule =
                    format!("must be given here: this key has {n} versions that are primary or active, and at most {TRIED} are tried");
                Err(Error::invalid("version", rule))
            }
            _ => Ok(usable),
        }
    }

    /// A version's sealed parts, from memory or from the store.
    async fn sealed_of(&self, entry: &Entry, version: VersionId) -> Result<(Sealed, Sealed), Error> {
        let missing = || damaged(entry, &format!("the data of version {version} is missing"));
        let sealed = entry.sealed(version).ok_or_else(missing)?;
        match &sealed.data {
            Some(data) => Ok((sealed.wrapped_key.clone(), data.clone())),
            None => Box::pin(self.stored(&entry.meta.key_ref(), version)).await,
        }
    }

    /// A version's material, opened now or earlier.
    async fn open_version(&self, entry: &Entry, version: VersionId, ring: &KeyRing) -> Result<Arc<UseKey>, Error> {
        let key = entry.meta.key_ref();
        if let Some(open) = self.open_keys.find(&key, version) {
            return Ok(open);
        }
        let (wrapped, data) = self.sealed_of(entry, version).await?;
        let KeyMeta { kind, policy, .. } = &entry.meta;
        let open = ring.open_for_use(&key, *kind, policy, version, (&wrapped, &data)).map_err(|e| damaged(entry, &e))?;
        let open = Arc::new(open);
        self.open_keys.keep(&open);
        // It may have been destroyed while it was opened; then who destroyed it did not find it there.
        let is_gone = self.memory.read(|t| !t.find(key.id.as_str()).is_ok_and(|e| lives(&e.meta, &open)));
        if is_gone {
            self.open_keys.forget(|other| other.key() == open.key() && other.version() == open.version());
        }
        Ok(open)
    }
}

impl<C: cap::Kind> Task<'_, C> {
    async fn one<I: Thing, T>(
        &mut self,
        versions: &[VersionId],
        item: &I,
        work: impl Fn(&Permit<C>, &[Arc<UseKey>], &I) -> Result<Done<T>, Error>,
    ) -> Result<Done<T>, Error> {
        let mut keys = Vec::with_capacity(versions.len());
        for version in versions {
            keys.push(self.open(*version).await?);
        }
        let asleep = match item.made() {
            Some(made) if !keys.iter().any(|key| key.could_have_made(made)) => self.maker_out_of_use(made).await?,
            _ => None,
        };
        if let Some(why) = asleep {
            return Err(why.into());
        }
        let done = work(&self.permit, &keys, item)?;
        for version in done.before.into_iter().chain([done.version]) {
            if !self.used.contains(&version) {
                self.used.push(version);
            }
        }
        Ok(done)
    }

    async fn open(&mut self, version: VersionId) -> Result<Arc<UseKey>, Error> {
        if let Some(open) = self.open.iter().find(|open| open.version() == version) {
            return Ok(open.clone());
        }
        let open = self.engine.open_version(&self.entry, version, &self.ring).await?;
        self.open.push(open.clone());
        Ok(open)
    }

    /// Whether an inactive version of a `tink` key made this: then that is the reason that it does not decrypt.
    async fn maker_out_of_use(&mut self, made: &[u8]) -> Result<Option<Unusable>, Error> {
        if self.entry.meta.kind != KeyKind::Tink {
            return Ok(None);
        }
        let entry = self.entry.clone();
        let now = self.engine.now();
        let asleep = entry.meta.versions.iter().rev().filter(|v| v.state != VersionState::Destroyed);
        for version in asleep.filter(|v| entry.meta.usable(v.id, now).is_err()).take(TRIED) {
            if self.open(version.id).await?.could_have_made(made) {
                return Ok(entry.meta.usable(version.id, now).err());
            }
        }
        Ok(None)
    }
}

/// The first of `keys` that does it. The error is the last one's: all of them are tried only where they cannot be told apart.
fn first<T>(keys: &[Arc<UseKey>], work: impl Fn(&UseKey) -> Result<T, UseError>) -> Result<Done<T>, Error> {
    let mut last = Error::Internal("no version was opened".into());
    for key in keys {
        match work(key) {
            Ok(value) => return Ok(Done { version: key.version(), before: None, value }),
            Err(error) => last = item_error(error),
        }
    }
    Err(last)
}

/// Whether a version is still one of the key's.
fn lives(meta: &KeyMeta, open: &UseKey) -> bool {
    let is_this = meta.key_ref() == *open.key();
    is_this && meta.versions.find(open.version()).is_some_and(|v| v.state != VersionState::Destroyed)
}

fn damaged(entry: &Entry, why: &impl ToString) -> Error {
    Error::Damaged { id: entry.meta.id.to_string(), why: why.to_string() }
}

/// An item's refusal by the member that is at fault.
fn item_error(error: UseError) -> Error {
    let field = match &error {
        UseError::Kind { .. } => "kind",
        UseError::Truncated
        | UseError::Format
        | UseError::RsaLength { .. }
        | UseError::OtherKey
        | UseError::OtherIncarnation
        | UseError::OtherVersion
        | UseError::NotAuthentic
        | UseError::NotForThisKey => "ciphertext",
        UseError::NoContext => "aad",
        UseError::TooLong | UseError::RsaTooLong(_) => "plaintext",
        UseError::Scheme(_) => "scheme",
        UseError::Digest { .. } => "digest",
        UseError::Tink(_) | UseError::WrongPermit | UseError::Material => return Error::Internal(error.to_string()),
    };
    Error::invalid(field, error)
}

impl From<Unusable> for Error {
    fn from(why: Unusable) -> Self {
        Self::Unusable(why)
    }
}
