//! The canonical bytes of what rows authenticate: one encoding per value, and no other bytes decode.
//!
//! Each starts with a format byte. Numbers are big endian; lengths and counts are LEB128 in the shortest form; text is its
//! length and UTF-8. Decoding refuses everything that encoding would not have made: longer forms, unknown codes and flags,
//! labels out of order, bytes left over.

use crate::{Head, Malformation, Tombstone};
use claviger_domain::{
    Acl, Capabilities, Created, Generation, Grant, Incarnation, KeyId, KeyKind, KeyMeta, KeyPolicy, KeyRef, Labels, Prefix, PrefixGrant,
    Principal, Revision, Rules, Timestamp, Version, VersionId, VersionState, Versions,
};
use claviger_ports::{DigestDelta, LogCheckpoint};
use std::sync::Arc;

mod approval;
pub use approval::deed_hash;
#[cfg(test)]
pub(crate) use approval::tests as approval_tests;

type Result<T> = std::result::Result<T, Malformation>;

/// A value with canonical bytes.
pub(crate) trait Canonical: Sized {
    /// The first byte, unless [`Canonical::format`] says otherwise.
    const FORMAT: u8;

    /// The first byte of this value.
    fn format(&self) -> u8 {
        Self::FORMAT
    }

    /// Appends everything after the format byte.
    fn write(&self, out: &mut Writer);

    /// Reads what [`Canonical::write`] wrote.
    fn read(from: &mut Reader<'_>) -> Result<Self>;

    /// Reads an older format.
    fn read_older(format: u8, _: &mut Reader<'_>) -> Result<Self> {
        Err(Malformation::Format(format))
    }

    /// The canonical bytes.
    fn encode(&self) -> Box<[u8]> {
        let mut out = Writer(Vec::with_capacity(256));
        out.byte(self.format());
        self.write(&mut out);
        out.0.into_boxed_slice()
    }

    /// The value of canonical bytes.
    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut from = Reader(bytes);
        let value = match from.byte()? {
            format if format == Self::FORMAT => Self::read(&mut from)?,
            other => Self::read_older(other, &mut from)?,
        };
        if from.0.is_empty() { Ok(value) } else { Err(Malformation::Trailing) }
    }
}

/// Format 1 is that of secrets that have no more than the first fields, and of no other keys. Format 2 has those fields and
/// then sections: a count, and for each its number, its length and its bytes, in ascending order of the numbers. A section
/// stands there only if it says something; one that this program does not know is refused, since it may restrict the key.
impl Canonical for KeyMeta {
    const FORMAT: u8 = 2;

    fn format(&self) -> u8 {
        if self.kind.is_read() && self.sections().is_empty() { 1 } else { Self::FORMAT }
    }

    fn write(&self, out: &mut Writer) {
        // Destructured: a new field that is not authenticated would be a hole. What is ignored here is in the sections.
        let Self {
            id,
            incarnation,
            generation,
            kind,
            acl,
            versions,
            separate_duties,
            max_lifetime,
            description,
            labels,
            created,
            policy: _,
            rules: _,
        } = self;
        out.text(id.as_str());
        out.fixed(incarnation.0);
        out.number(generation.0);
        out.byte(kind.code());
        out.flags([*separate_duties, max_lifetime.is_some()]);
        if let Some(seconds) = max_lifetime {
            out.number(u64::from(*seconds));
        }
        out.text(description);
        out.created(created);
        out.labels(labels);
        out.acl(acl);
        out.versions(versions);
        if self.format() == Self::FORMAT {
            out.sections(&self.sections());
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let mut meta = read_key(from)?;
        for (number, body) in from.sections()? {
            let mut body = Reader(body);
            match number {
                POLICY => meta.policy = body.policy()?,
                RULES => meta.rules = body.rules()?,
                other => return Err(Malformation::Code { field: "section", code: other.into() }),
            }
            if !body.0.is_empty() {
                return Err(Malformation::Trailing);
            }
        }
        if meta.format() == Self::FORMAT { Ok(meta) } else { Err(Malformation::NotShortest) }
    }

    fn read_older(format: u8, from: &mut Reader<'_>) -> Result<Self> {
        let meta = match format {
            1 => read_key(from)?,
            other => return Err(Malformation::Format(other)),
        };
        if meta.kind.is_read() { Ok(meta) } else { Err(Malformation::Code { field: "kind", code: meta.kind.code().into() }) }
    }
}

/// The section of a key's policy.
const POLICY: u8 = 1;
/// The section of its rules of approval.
const RULES: u8 = 2;

trait Sections {
    /// Numbers and bodies of the sections that say something, ascending.
    fn sections(&self) -> Vec<(u8, Vec<u8>)>;
}

impl Sections for KeyMeta {
    fn sections(&self) -> Vec<(u8, Vec<u8>)> {
        let mut all = Vec::new();
        if self.policy != KeyPolicy::default() {
            let mut body = Writer(Vec::new());
            body.policy(&self.policy);
            all.push((POLICY, body.0));
        }
        if !self.rules.is_empty() {
            let mut body = Writer(Vec::new());
            body.rules(&self.rules);
            all.push((RULES, body.0));
        }
        all
    }
}

/// The fields of both formats; what the sections hold is as it is without them.
fn read_key(from: &mut Reader<'_>) -> Result<KeyMeta> {
    let id = from.key_id()?;
    let incarnation = Incarnation(from.fixed()?);
    let generation = Generation(from.number()?);
    let kind = from.byte()?;
    let kind = KeyKind::from_code(kind).ok_or(Malformation::Code { field: "kind", code: kind.into() })?;
    let [separate_duties, has_lifetime] = from.flags()?;
    let max_lifetime = if has_lifetime { Some(from.number_u32("max_lifetime")?) } else { None };
    let description = from.text()?.into();
    let created = from.created()?;
    let labels = from.labels()?;
    let acl = from.acl()?;
    let versions = from.versions()?;
    let (policy, rules) = (KeyPolicy::default(), Rules::default());
    Ok(KeyMeta {
        id,
        incarnation,
        generation,
        kind,
        policy,
        acl,
        versions,
        separate_duties,
        max_lifetime,
        description,
        rules,
        labels,
        created,
    })
}

/// Format 3 is that of grants with rules of approval, and of no others. Of those without, format 1 has no incarnation: it is
/// that of grants whose incarnation is 0.
impl Canonical for PrefixGrant {
    const FORMAT: u8 = 3;

    fn format(&self) -> u8 {
        match (self.rules.is_empty(), self.incarnation) {
            (false, _) => Self::FORMAT,
            (true, Incarnation(0)) => 1,
            (true, _) => 2,
        }
    }

    fn write(&self, out: &mut Writer) {
        let Self { prefix, acl, any_user_creates, rules, incarnation, generation } = self;
        out.text(prefix.as_str());
        if self.format() != 1 {
            out.fixed(incarnation.0);
        }
        out.number(generation.0);
        out.flags([*any_user_creates]);
        out.acl(acl);
        if self.format() == Self::FORMAT {
            out.rules(rules);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let prefix = Prefix::parse(from.text()?)?;
        let incarnation = Incarnation(from.fixed()?);
        let grant = read_grant(prefix, incarnation, from)?;
        match from.rules()? {
            none if none.is_empty() => Err(Malformation::Code { field: "rules", code: 0 }),
            rules => Ok(PrefixGrant { rules, ..grant }),
        }
    }

    fn read_older(format: u8, from: &mut Reader<'_>) -> Result<Self> {
        match format {
            1 => read_grant(Prefix::parse(from.text()?)?, Incarnation(0), from),
            2 => {
                let prefix = Prefix::parse(from.text()?)?;
                match from.fixed()? {
                    0 => Err(Malformation::Code { field: "incarnation", code: 0 }),
                    incarnation => read_grant(prefix, Incarnation(incarnation), from),
                }
            }
            other => Err(Malformation::Format(other)),
        }
    }
}

fn read_grant(prefix: Prefix, incarnation: Incarnation, from: &mut Reader<'_>) -> Result<PrefixGrant> {
    let generation = Generation(from.number()?);
    let [any_user_creates] = from.flags()?;
    Ok(PrefixGrant { prefix, acl: from.acl()?, any_user_creates, rules: Rules::default(), incarnation, generation })
}

impl Canonical for Tombstone {
    const FORMAT: u8 = 1;

    fn write(&self, out: &mut Writer) {
        let Self { key: KeyRef { id, incarnation }, acl, deleted } = self;
        out.text(id.as_str());
        out.fixed(incarnation.0);
        out.created(deleted);
        out.acl(acl);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let key = KeyRef { id: from.key_id()?, incarnation: Incarnation(from.fixed()?) };
        let deleted = from.created()?;
        Ok(Self { key, acl: from.acl()?, deleted })
    }
}

/// Format 1 has an epoch of 32 bits, as stores had until each start had one of its own.
impl Canonical for Head {
    const FORMAT: u8 = 2;

    fn format(&self) -> u8 {
        if u32::try_from(self.revision.epoch).is_ok() { 1 } else { Self::FORMAT }
    }

    fn write(&self, out: &mut Writer) {
        let Self { revision: Revision { epoch, number }, commit_id, digest, checkpoint } = self;
        match u32::try_from(*epoch) {
            Ok(short) => out.0.extend_from_slice(&short.to_be_bytes()),
            Err(_) => out.fixed(*epoch),
        }
        out.fixed(*number);
        out.0.extend_from_slice(commit_id);
        out.0.extend_from_slice(&digest.0);
        out.flags([checkpoint.is_some()]);
        if let Some(LogCheckpoint { size, root }) = checkpoint {
            out.fixed(*size);
            out.0.extend_from_slice(root);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let epoch = from.fixed()?;
        match u32::try_from(epoch) {
            // It would be the same head in other bytes.
            Ok(_) => Err(Malformation::Code { field: "epoch", code: epoch }),
            Err(_) => read_head(epoch, from),
        }
    }

    fn read_older(format: u8, from: &mut Reader<'_>) -> Result<Self> {
        match format {
            1 => read_head(u32::from_be_bytes(from.array()?).into(), from),
            other => Err(Malformation::Format(other)),
        }
    }
}

fn read_head(epoch: u64, from: &mut Reader<'_>) -> Result<Head> {
    let revision = Revision { epoch, number: from.fixed()? };
    let commit_id = from.array()?;
    let digest = DigestDelta(from.array()?);
    let [has_checkpoint] = from.flags()?;
    let checkpoint = match has_checkpoint {
        true => Some(LogCheckpoint { size: from.fixed()?, root: from.array()? }),
        false => None,
    };
    Ok(Head { revision, commit_id, digest, checkpoint })
}

/// Appends parts of values.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn fixed(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    fn time(&mut self, Timestamp(nanoseconds): Timestamp) {
        self.0.extend_from_slice(&nanoseconds.to_be_bytes());
    }

    fn number(&mut self, mut number: u64) {
        while number > 0x7f {
            self.byte(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.byte(number.to_le_bytes()[0]);
    }

    fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn flags<const N: usize>(&mut self, flags: [bool; N]) {
        self.byte(flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
    }

    fn created(&mut self, Created { at, by }: &Created) {
        self.time(*at);
        self.text(by);
    }

    fn labels(&mut self, labels: &Labels) {
        self.count(labels.len());
        for (name, value) in labels.iter() {
            self.text(name);
            self.text(value);
        }
    }

    fn acl(&mut self, acl: &Acl) {
        self.count(acl.grants().len());
        for Grant { principal, capabilities } in acl.grants() {
            self.byte(principal_code(principal));
            self.text(principal.id());
            self.0.extend_from_slice(&capabilities.bits().to_be_bytes());
        }
    }

    fn sections(&mut self, sections: &[(u8, Vec<u8>)]) {
        self.count(sections.len());
        for (number, body) in sections {
            self.byte(*number);
            self.count(body.len());
            self.0.extend_from_slice(body);
        }
    }

    fn policy(&mut self, KeyPolicy { exportable, convergent, min_version, rsa_bits, template }: &KeyPolicy) {
        self.flags([*exportable, *convergent, min_version.is_some(), rsa_bits.is_some(), template.is_some()]);
        if let Some(version) = min_version {
            self.fixed(version.get());
        }
        if let Some(bits) = rsa_bits {
            self.number(u64::from(*bits));
        }
        if let Some(template) = template {
            self.text(template);
        }
    }

    fn versions(&mut self, versions: &Versions) {
        self.count(versions.len());
        for Version { id, state, created, expires } in versions.iter() {
            self.fixed(id.get());
            self.byte(state_code(*state) | if expires.is_some() { EXPIRES } else { 0 });
            self.time(*created);
            if let Some(expires) = expires {
                self.time(*expires);
            }
        }
    }
}

/// In a version's state byte: a time of expiry follows.
const EXPIRES: u8 = 0x80;

fn state_code(state: VersionState) -> u8 {
    match state {
        VersionState::Primary => 1,
        VersionState::Active => 2,
        VersionState::Inactive => 3,
        VersionState::Destroyed => 4,
    }
}

fn state_of(code: u8) -> Result<VersionState> {
    match code {
        1 => Ok(VersionState::Primary),
        2 => Ok(VersionState::Active),
        3 => Ok(VersionState::Inactive),
        4 => Ok(VersionState::Destroyed),
        _ => Err(Malformation::Code { field: "state", code: code.into() }),
    }
}

fn principal_code(principal: &Principal) -> u8 {
    match principal {
        Principal::User(_) => 1,
        Principal::UserGroup(_) => 2,
        Principal::Machine(_) => 3,
        Principal::MachinePrefix(_) => 4,
        Principal::Service(_) => 5,
        Principal::ServicePrefix(_) => 6,
    }
}

fn principal_of(code: u8, id: &str) -> Result<Principal> {
    let id = Arc::from(id);
    match code {
        1 => Ok(Principal::User(id)),
        2 => Ok(Principal::UserGroup(id)),
        3 => Ok(Principal::Machine(id)),
        4 => Ok(Principal::MachinePrefix(id)),
        5 => Ok(Principal::Service(id)),
        6 => Ok(Principal::ServicePrefix(id)),
        _ => Err(Malformation::Code { field: "principal", code: code.into() }),
    }
}

/// Takes parts of values off the front.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Malformation::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    fn byte(&mut self) -> Result<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn fixed(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn time(&mut self) -> Result<Timestamp> {
        Ok(Timestamp(i64::from_be_bytes(self.array()?)))
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = 0u64;
        for place in 0..10 {
            let byte = self.byte()?;
            let is_last = byte < 0x80;
            let ends_in_zero = is_last && byte == 0 && place > 0;
            let overflows = place == 9 && byte > 1;
            if ends_in_zero || overflows {
                return Err(Malformation::NotShortest);
            }
            number |= u64::from(byte & 0x7f) << (7 * place);
            if is_last {
                return Ok(number);
            }
        }
        Err(Malformation::NotShortest)
    }

    fn number_u32(&mut self, field: &'static str) -> Result<u32> {
        let number = self.number()?;
        u32::try_from(number).map_err(|_| Malformation::Code { field, code: number })
    }

    /// A count of things that take at least `least` bytes each: one that cannot be true reserves no memory.
    fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.number()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.0.len() / least => Ok(count),
            _ => Err(Malformation::Truncated),
        }
    }

    fn text(&mut self) -> Result<&'a str> {
        let len = self.count(1)?;
        let (text, rest) = self.0.split_at_checked(len).ok_or(Malformation::Truncated)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| Malformation::NotUtf8)
    }

    fn flags<const N: usize>(&mut self) -> Result<[bool; N]> {
        let bits = self.byte()?;
        if bits >> N != 0 {
            return Err(Malformation::Code { field: "flags", code: bits.into() });
        }
        Ok(std::array::from_fn(|i| bits >> i & 1 == 1))
    }

    fn key_id(&mut self) -> Result<KeyId> {
        Ok(KeyId::parse(self.text()?)?)
    }

    fn created(&mut self) -> Result<Created> {
        Ok(Created { at: self.time()?, by: self.text()?.into() })
    }

    fn labels(&mut self) -> Result<Labels> {
        let count = self.count(2)?;
        let mut all: Vec<(String, String)> = Vec::with_capacity(count);
        for _ in 0..count {
            let (name, value) = (self.text()?, self.text()?);
            if all.last().is_some_and(|(before, _)| before.as_str() >= name) {
                return Err(Malformation::LabelOrder);
            }
            all.push((name.to_owned(), value.to_owned()));
        }
        Ok(Labels::new(all)?)
    }

    fn acl(&mut self) -> Result<Acl> {
        let count = self.count(4)?;
        let mut grants = Vec::with_capacity(count);
        for _ in 0..count {
            let code = self.byte()?;
            let principal = principal_of(code, self.text()?)?;
            let bits = u16::from_be_bytes(self.array()?);
            let capabilities = Capabilities::from_bits(bits).ok_or(Malformation::Code { field: "capabilities", code: bits.into() })?;
            grants.push(Grant { principal, capabilities });
        }
        Ok(Acl::new(grants)?)
    }

    /// Numbers and bodies in ascending order.
    fn sections(&mut self) -> Result<Vec<(u8, &'a [u8])>> {
        let count = self.count(2)?;
        let mut all: Vec<(u8, &[u8])> = Vec::with_capacity(count);
        for _ in 0..count {
            let number = self.byte()?;
            let len = self.count(1)?;
            let (body, rest) = self.0.split_at_checked(len).ok_or(Malformation::Truncated)?;
            self.0 = rest;
            if all.last().is_some_and(|(before, _)| *before >= number) {
                return Err(Malformation::Code { field: "section", code: number.into() });
            }
            all.push((number, body));
        }
        Ok(all)
    }

    fn policy(&mut self) -> Result<KeyPolicy> {
        let [exportable, convergent, has_min, has_bits, has_template] = self.flags()?;
        let min_version = if has_min { Some(self.version_id()?) } else { None };
        let rsa_bits = match has_bits {
            true => {
                let bits = self.number()?;
                Some(u16::try_from(bits).map_err(|_| Malformation::Code { field: "rsa_bits", code: bits })?)
            }
            false => None,
        };
        let template = if has_template { Some(self.text()?.into()) } else { None };
        Ok(KeyPolicy { exportable, convergent, min_version, rsa_bits, template })
    }

    fn version_id(&mut self) -> Result<VersionId> {
        let raw = self.fixed()?;
        VersionId::new(raw).ok_or(Malformation::Code { field: "version id", code: raw })
    }

    fn versions(&mut self) -> Result<Versions> {
        let count = self.count(17)?;
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(self.version()?);
        }
        Ok(Versions::new(all)?)
    }

    fn version(&mut self) -> Result<Version> {
        let id = self.version_id()?;
        let code = self.byte()?;
        let state = state_of(code & !EXPIRES)?;
        let created = self.time()?;
        let expires = if code & EXPIRES == 0 { None } else { Some(self.time()?) };
        Ok(Version { id, state, created, expires })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::golden::key_meta;
    use claviger_domain::Capability;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    pub(crate) fn any_id() -> impl Strategy<Value = KeyId> {
        let alphabet: Vec<char> = ('a'..='z').chain('0'..='9').chain(['_', ':', '.', 'A']).collect();
        let segment = prop::collection::vec(prop::sample::select(alphabet), 1..9).prop_map(String::from_iter);
        prop::collection::vec(segment, 1..4).prop_filter_map("an id", |s| KeyId::parse(&s.join("/")).ok())
    }

    pub(crate) fn any_text() -> impl Strategy<Value = String> {
        prop::collection::vec(any::<char>(), 0..20).prop_map(String::from_iter)
    }

    pub(crate) fn any_principal() -> impl Strategy<Value = Principal> {
        (1u8..=6, any_text()).prop_map(|(code, id)| principal_of(code, &id).unwrap())
    }

    pub(crate) fn any_acl() -> impl Strategy<Value = Acl> {
        prop::collection::vec((any_principal(), 1u16..0x200), 0..6).prop_map(|entries| {
            entries.into_iter().fold(Acl::default(), |acl, (p, bits)| acl.set(p, Capabilities::from_bits(bits).unwrap()))
        })
    }

    fn any_versions() -> impl Strategy<Value = Versions> {
        let one = (1..=i64::MAX as u64, 2u8..=4, any::<i64>(), any::<Option<i64>>());
        (prop::collection::vec(one, 1..6), any::<prop::sample::Index>()).prop_filter_map("unique ids", |(all, primary)| {
            let primary = primary.index(all.len());
            let version = |(i, (id, state, created, expires)): (usize, (u64, u8, i64, Option<i64>))| Version {
                id: VersionId::new(id).unwrap(),
                state: if i == primary { VersionState::Primary } else { state_of(state).unwrap() },
                created: Timestamp(created),
                expires: expires.map(Timestamp),
            };
            Versions::new(all.into_iter().enumerate().map(version).collect()).ok()
        })
    }

    fn any_labels() -> impl Strategy<Value = Labels> {
        let label = (prop::sample::select(vec!["a", "team", "b/c", "x.y", "z-1"]), prop::sample::select(vec!["", "v", "ä"]));
        prop::collection::vec(label, 0..6).prop_map(|all| Labels::new(all.into_iter().map(|(k, v)| (k.into(), v.into()))).unwrap())
    }

    fn any_created() -> impl Strategy<Value = Created> {
        (any::<i64>(), any_text()).prop_map(|(at, by)| Created { at: Timestamp(at), by: by.into() })
    }

    fn any_policy() -> impl Strategy<Value = KeyPolicy> {
        let numbers = (any::<Option<u16>>(), prop::option::of(1..=i64::MAX as u64));
        (any::<bool>(), any::<bool>(), numbers, prop::option::of(any_text())).prop_map(
            |(exportable, convergent, (rsa_bits, min_version), template)| KeyPolicy {
                exportable,
                convergent,
                min_version: min_version.and_then(VersionId::new),
                rsa_bits,
                template: template.map(Into::into),
            },
        )
    }

    pub(crate) fn any_meta() -> impl Strategy<Value = KeyMeta> {
        let names = (any_id(), any::<u64>(), any::<u64>(), any::<bool>(), any::<Option<u32>>());
        let kind = (prop::sample::select(&KeyKind::ALL[..]), prop_oneof![Just(KeyPolicy::default()), any_policy()]);
        let kind = (kind, super::approval::tests::any_rules());
        (names, kind, any_acl(), any_versions(), any_text(), any_labels(), any_created()).prop_map(
            |(
                (id, incarnation, generation, separate_duties, max_lifetime),
                ((kind, policy), rules),
                acl,
                versions,
                description,
                labels,
                created,
            )| KeyMeta {
                id,
                incarnation: Incarnation(incarnation),
                generation: Generation(generation),
                kind,
                policy,
                acl,
                versions,
                separate_duties,
                max_lifetime,
                description: description.into(),
                rules,
                labels,
                created,
            },
        )
    }

    pub(crate) fn any_prefix() -> impl Strategy<Value = Prefix> {
        prop::option::of(any_id()).prop_map(|id| Prefix::parse(&id.map_or(String::new(), |id| format!("{id}/"))).unwrap())
    }

    pub(crate) fn any_grant() -> impl Strategy<Value = PrefixGrant> {
        let incarnation = prop_oneof![Just(0), any::<u64>()];
        let rules = super::approval::tests::any_rules();
        (any_prefix(), any_acl(), any::<bool>(), rules, incarnation, any::<u64>()).prop_map(
            |(prefix, acl, any_user_creates, rules, i, g)| PrefixGrant {
                prefix,
                acl,
                any_user_creates,
                rules,
                incarnation: Incarnation(i),
                generation: Generation(g),
            },
        )
    }

    pub(crate) fn any_tombstone() -> impl Strategy<Value = Tombstone> {
        (any_id(), any::<u64>(), any_acl(), any_created()).prop_map(|(id, n, acl, deleted)| Tombstone {
            key: KeyRef { id, incarnation: Incarnation(n) },
            acl,
            deleted,
        })
    }

    #[test]
    fn numbers_have_one_form() {
        for number in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::MAX >> 1, u64::MAX] {
            let mut out = Writer(Vec::new());
            out.number(number);
            assert_eq!(Reader(&out.0).number(), Ok(number));
        }
        for bad in [&[0x80, 0][..], &[0xff, 0x80, 0], &[0xff; 10], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2]] {
            assert_eq!(Reader(bad).number(), Err(Malformation::NotShortest), "{bad:?}");
        }
        assert_eq!(Reader(&[0x80]).number(), Err(Malformation::Truncated));
    }

    #[test]
    fn what_encoding_would_not_have_made_is_refused() {
        let labels = |all: &[(&str, &str)]| {
            let mut out = Writer(Vec::new());
            out.count(all.len());
            all.iter().for_each(|(k, v)| {
                out.text(k);
                out.text(v);
            });
            Reader(&out.0).labels().err()
        };
        assert_eq!(labels(&[("a", "1"), ("b", "2")]), None);
        assert_eq!(labels(&[("b", "1"), ("a", "2")]), Some(Malformation::LabelOrder));
        assert_eq!(labels(&[("a", "1"), ("a", "2")]), Some(Malformation::LabelOrder));
        assert!(matches!(labels(&[("A", "1")]), Some(Malformation::Meta(_))));
        assert_eq!(Reader(&[4]).flags::<2>(), Err(Malformation::Code { field: "flags", code: 4 }));
        assert_eq!(Reader(&[1, 7, 0, 0, 1]).acl().err(), Some(Malformation::Code { field: "principal", code: 7 }));
        assert!(matches!(Reader(&[1, 1, 0, 0, 0]).acl(), Err(Malformation::Acl(_))));
        assert_eq!(Reader(&[1, 1, 0, 2, 0]).acl(), Err(Malformation::Code { field: "capabilities", code: 0x200 }));
        assert!(matches!(Reader(&[0]).versions(), Err(Malformation::Versions(_))));
        assert_eq!(Reader(&[1, 0xff]).text(), Err(Malformation::NotUtf8));
    }

    #[test]
    fn a_count_that_cannot_be_true_reserves_no_memory() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(Reader(&huge).acl(), Err(Malformation::Truncated));
        assert_eq!(Reader(&huge).labels(), Err(Malformation::Truncated));
        assert_eq!(Reader(&huge).versions().err(), Some(Malformation::Truncated));
        assert_eq!(Reader(&huge).text(), Err(Malformation::Truncated));
    }

    #[test]
    fn every_field_of_a_key_is_in_its_bytes() {
        let one = key_meta("a", 1);
        let all: Vec<KeyMeta> = vec![
            one.clone(),
            KeyMeta { id: KeyId::parse("b").unwrap(), ..one.clone() },
            KeyMeta { incarnation: Incarnation(2), ..one.clone() },
            KeyMeta { generation: Generation(77), ..one.clone() },
            KeyMeta { kind: KeyKind::Hmac, ..one.clone() },
            KeyMeta { policy: KeyPolicy { exportable: true, ..KeyPolicy::default() }, ..one.clone() },
            KeyMeta { policy: KeyPolicy { convergent: true, ..KeyPolicy::default() }, ..one.clone() },
            KeyMeta { policy: KeyPolicy { min_version: VersionId::new(5), ..KeyPolicy::default() }, ..one.clone() },
            KeyMeta { policy: KeyPolicy { rsa_bits: Some(3072), ..KeyPolicy::default() }, ..one.clone() },
            KeyMeta { policy: KeyPolicy { template: Some("".into()), ..KeyPolicy::default() }, ..one.clone() },
            KeyMeta { rules: crate::golden::rules(), ..one.clone() },
            KeyMeta { acl: Acl::default(), ..one.clone() },
            KeyMeta { acl: one.acl.clone().set(Principal::Machine("z".into()), Capabilities::of([Capability::List])), ..one.clone() },
            KeyMeta { versions: one.versions.add(VersionId::new(99).unwrap(), Timestamp(9), None).unwrap(), ..one.clone() },
            KeyMeta { separate_duties: !one.separate_duties, ..one.clone() },
            KeyMeta { max_lifetime: None, ..one.clone() },
            KeyMeta { max_lifetime: Some(1), ..one.clone() },
            KeyMeta { description: "other".into(), ..one.clone() },
            KeyMeta { labels: Labels::default(), ..one.clone() },
            KeyMeta { created: Created { at: Timestamp(0), by: one.created.by.clone() }, ..one.clone() },
            KeyMeta { created: Created { at: one.created.at, by: "eve".into() }, ..one },
        ];
        let distinct: BTreeSet<_> = all.iter().map(Canonical::encode).collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn a_key_has_one_format() {
        let secret = key_meta("a", 1);
        let used = KeyMeta { kind: KeyKind::Hmac, ..secret.clone() };
        let (mut first, mut second) = (secret.encode().to_vec(), used.encode().to_vec());
        assert_eq!((first[0], second[0], second.last()), (1, 2, Some(&0)));
        // A secret in the second format, and a key that is used in the first.
        let kind_at = second.iter().zip(&first).skip(1).position(|(a, b)| a != b).unwrap() + 1;
        (first[kind_at], second[kind_at]) = (second[kind_at], first[kind_at]);
        assert_eq!(KeyMeta::decode(&first), Err(Malformation::Code { field: "kind", code: 4 }));
        assert_eq!(KeyMeta::decode(&second), Err(Malformation::NotShortest));
    }

    #[test]
    fn sections_are_known_whole_and_in_order() {
        let with = |sections: &[u8]| {
            let mut bytes = KeyMeta { kind: KeyKind::Hmac, ..key_meta("a", 1) }.encode().to_vec();
            bytes.pop();
            bytes.extend_from_slice(sections);
            KeyMeta::decode(&bytes).map(|meta| meta.policy)
        };
        assert_eq!(with(&[1, 1, 1, 1]), Ok(KeyPolicy { exportable: true, ..KeyPolicy::default() }));
        assert_eq!(with(&[1, 1, 2, 1, 0]), Err(Malformation::Trailing));
        assert_eq!(with(&[2, 1, 1, 1, 1, 1, 1]), Err(Malformation::Code { field: "section", code: 1 }));
        assert_eq!(with(&[1, 99, 1, 0]), Err(Malformation::Code { field: "section", code: 99 }));
        assert_eq!(with(&[1, 1, 9, 1]), Err(Malformation::Truncated));
    }

    #[test]
    fn codes_are_distinct_and_read_back() {
        let states = [VersionState::Primary, VersionState::Active, VersionState::Inactive, VersionState::Destroyed];
        assert!(states.iter().all(|s| state_of(state_code(*s)) == Ok(*s)));
        let types: BTreeMap<u8, &str> = (1..=6).map(|code| (code, principal_of(code, "x").unwrap().type_name())).collect();
        assert_eq!(types.values().collect::<BTreeSet<_>>().len(), 6);
        assert!((1..=6).all(|code| principal_code(&principal_of(code, "x").unwrap()) == code));
    }

    fn check<T: Canonical + PartialEq + std::fmt::Debug>(value: &T) {
        let bytes = value.encode();
        assert_eq!(T::decode(&bytes).as_ref(), Ok(value));
        for len in 0..bytes.len() {
            assert!(T::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
        assert_eq!(T::decode(&[&bytes[..], &[0]].concat()), Err(Malformation::Trailing));
    }

    proptest! {
        #[test]
        fn any_value_has_one_encoding(meta in any_meta(), grant in any_grant(), tombstone in any_tombstone()) {
            check(&meta);
            check(&grant);
            check(&tombstone);
        }
    }
}
