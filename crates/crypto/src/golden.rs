//! Golden vectors of every stored format, from known keys and salts, and the sample values that other tests share.
//!
//! A failure here means that stores written before can no longer be read. To add a vector on purpose, take its line from
//! the failure's message.

#![allow(clippy::unwrap_used)]

use crate::{FileRoot, Head, KeyRing, Tombstone};
use claviger_domain::{
    Acl, Approval, ApprovalId, ApprovalRule, Caller, Capabilities, Capability, Created, Deed, End, Ended, Generation, Grant, Guarded,
    GuardedSet, Identity, Incarnation, KeyId, KeyKind, KeyMeta, KeyPolicy, KeyRef, Labels, Permit, Prefix, PrefixGrant, Preset, Principal,
    Proven, RequestId, Revision, Rules, SecretBytes, Timestamp, Version, VersionId, VersionState, Versions, Vote, authorize, cap,
};
use claviger_ports::{DigestDelta, LogCheckpoint};
use std::fmt::Write;
use std::sync::Arc;

fn acl() -> Acl {
    let grant = |p: Principal, capabilities| Grant { principal: p, capabilities };
    Acl::new(vec![
        grant(Principal::User("alice".into()), Preset::Admin.capabilities()),
        grant(Principal::UserGroup("ops".into()), Preset::Write.capabilities()),
        grant(Principal::Machine("web1".into()), Preset::Read.capabilities()),
        grant(Principal::MachinePrefix("web".into()), Capabilities::of([Capability::List])),
        grant(Principal::Service("spiffe://example.org/a".into()), Preset::Read.capabilities()),
        grant(Principal::ServicePrefix("spiffe://example.org/b/".into()), Capabilities::of([Capability::Read])),
    ])
    .unwrap()
}

/// A key with something in every field.
pub(crate) fn key_meta(id: &str, incarnation: u64) -> KeyMeta {
    let version = |id, state, expires: Option<i64>| Version {
        id: VersionId::new(id).unwrap(),
        state,
        created: Timestamp(1_000_000_000),
        expires: expires.map(Timestamp),
    };
    KeyMeta {
        id: KeyId::parse(id).unwrap(),
        incarnation: Incarnation(incarnation),
        generation: Generation(300),
        kind: KeyKind::Secret,
        policy: KeyPolicy::default(),
        acl: acl(),
        versions: Versions::new(vec![
            version(5, VersionState::Primary, None),
            version(6, VersionState::Active, Some(-1)),
            version(7, VersionState::Inactive, None),
            version(i64::MAX as u64, VersionState::Destroyed, Some(i64::MAX)),
        ])
        .unwrap(),
        separate_duties: true,
        max_lifetime: Some(86_400),
        description: "the database's password".into(),
        rules: Rules::default(),
        labels: Labels::new([("team".to_owned(), "payments".to_owned()), ("env".to_owned(), "prod".to_owned())]).unwrap(),
        created: Created { at: Timestamp(1_700_000_000_000_000_000), by: "alice".into() },
    }
}

/// Of the second format: with a policy.
fn used_key() -> KeyMeta {
    let policy =
        KeyPolicy { exportable: true, convergent: true, min_version: VersionId::new(5), rsa_bits: Some(3072), template: Some("T".into()) };
    KeyMeta { kind: KeyKind::Aes256Gcm, policy, ..key_meta("team/aes", 8) }
}

pub(crate) fn prefix_grant() -> PrefixGrant {
    PrefixGrant { incarnation: Incarnation(0x0102_0304_0506_0708), ..first_prefix_grant() }
}

/// Of the first format.
fn first_prefix_grant() -> PrefixGrant {
    let prefix = Prefix::parse("team/").unwrap();
    PrefixGrant {
        prefix,
        acl: acl(),
        any_user_creates: true,
        rules: Rules::default(),
        incarnation: Incarnation(0),
        generation: Generation(2),
    }
}

/// Of the third format: with rules.
fn ruled_prefix_grant() -> PrefixGrant {
    PrefixGrant { rules: rules(), ..prefix_grant() }
}

pub(crate) fn rules() -> Rules {
    let approvers = ["user:bob", "user_group:security"].map(|p| p.parse().unwrap());
    let operations = GuardedSet::of([Guarded::Delete, Guarded::Grant]);
    Rules::new(vec![ApprovalRule { operations, needed: 2, approvers: approvers.into(), expires_after: 86_400 }]).unwrap()
}

pub(crate) fn approval() -> Approval {
    let key = KeyId::parse("team/db").unwrap();
    let bob = || Principal::User("bob".into());
    let vote = Vote { names: [bob()].into(), under: [bob()].into(), at: Timestamp(11), comment: "go ahead".into() };
    Approval {
        id: ApprovalId(0x0123_4567_89ab_cdef),
        generation: Generation(3),
        deed: Deed::ChangeRights { key, acl: acl() },
        standing: (Incarnation(7), Generation(300)),
        requester: [Principal::User("alice".into())].into(),
        reason: "she joins the team".into(),
        asked: Timestamp(10),
        expires: Timestamp(20),
        votes: vec![vote],
        end: Some(End { how: Ended::CarriedOut, at: Timestamp(12), by: "alice".into(), comment: "".into() }),
    }
}

pub(crate) fn tombstone() -> Tombstone {
    let key = KeyRef { id: KeyId::parse("team/old").unwrap(), incarnation: Incarnation(9) };
    Tombstone { key, acl: acl(), deleted: Created { at: Timestamp(5), by: "bob".into() } }
}

pub(crate) fn head() -> Head {
    Head {
        revision: Revision { epoch: 2, number: 77 },
        commit_id: [0xc0; 16],
        digest: DigestDelta([0xd1; 64]),
        checkpoint: Some(LogCheckpoint { size: 1234, root: [0xee; 32] }),
    }
}

/// A head of a start that has an epoch of its own.
fn later_head() -> Head {
    Head { revision: Revision { epoch: 1_795_557_856_123_456, number: 78 }, ..head() }
}

/// A permit to read a key, from the one function that makes permits.
pub(crate) fn permit(id: &str, incarnation: u64) -> Permit<cap::Read> {
    permit_for(id, incarnation)
}

/// A permit for anything else.
pub(crate) fn permit_for<C: cap::Kind>(id: &str, incarnation: u64) -> Permit<C> {
    let identity = Identity::User { name: "alice".into(), groups: Arc::from([]) };
    let caller = Caller::new(Arc::from([Proven { identity, method: "token" }]), RequestId(1), None).unwrap();
    // Alice administers too, and would read nothing where duties are separate.
    let meta = KeyMeta { separate_duties: false, ..key_meta(id, incarnation) };
    authorize(&caller, &meta, [], None).unwrap()
}

fn ring() -> KeyRing {
    KeyRing::of_known(&[[0x11; 32], [0x22; 32]])
}

/// One line per vector: a name and hex.
fn vectors() -> String {
    let ring = ring();
    let meta = key_meta("team/db", 7);
    let key = ring.seal_key(&meta);
    let (first, grant) = (ring.seal_grant(&first_prefix_grant()), ring.seal_grant(&prefix_grant()));
    let stone = ring.seal_tombstone(&tombstone());
    let version = ring.seal_known(&meta.key_ref(), VersionId::new(5).unwrap(), b"hunter2", &[0x33; 32], [0x44; 32]);
    let (data_len, tag) = (version.data.0.len() as u64, version.data.0.last_chunk::<16>().unwrap());
    let root = FileRoot::of_known(&[0x55; 32]);
    let wrapped = root.wrap_with(b"context", &SecretBytes::new(vec![0x66; 32]), [0x77; 32]).unwrap();
    let seed = ring.audit_seed();
    let old = KeyRing::of_known(&[[0x11; 32]]);
    let used = ring.seal_key(&used_key());
    let ruled_key = ring.seal_key(&KeyMeta { rules: rules(), ..key_meta("team/db", 7) });
    let (ruled, asked) = (ring.seal_grant(&ruled_prefix_grant()), ring.seal_approval(&approval()));
    let lines: [(&str, &[u8]); 32] = [
        ("key.meta", &key.meta),
        ("key.mac", &key.mac),
        ("key.digest", &ring.digest_key(&key).0),
        ("key.2.meta", &used.meta),
        ("key.2.mac", &used.mac),
        ("key.ruled.meta", &ruled_key.meta),
        ("key.ruled.mac", &ruled_key.mac),
        ("grant.body", &first.body),
        ("grant.mac", &first.mac),
        ("grant.digest", &ring.digest_grant(&first).0),
        ("grant.2.body", &grant.body),
        ("grant.2.mac", &grant.mac),
        ("grant.2.digest", &ring.digest_grant(&grant).0),
        ("grant.3.body", &ruled.body),
        ("grant.3.mac", &ruled.mac),
        ("grant.3.digest", &ring.digest_grant(&ruled).0),
        ("approval.body", &asked.body),
        ("approval.mac", &asked.mac),
        ("approval.digest", &ring.digest_approval(&asked).0),
        ("approval.hash", &crate::deed_hash(&approval().deed, approval().standing)),
        ("tombstone.body", &stone.body),
        ("tombstone.mac", &stone.mac),
        ("tombstone.digest", &ring.digest_tombstone(&stone).0),
        ("version.wrapped_key", &version.wrapped_key.0),
        ("version.data", &version.data.0),
        ("version.digest", &ring.digest_version(&version.key, version.version, &version.wrapped_key, data_len, tag).0),
        ("head.sealed", &ring.seal_head_with(&head(), [0x88; 32]).sealed.0),
        ("head.sealed.barrier1", &old.seal_head_with(&Head { checkpoint: None, ..head() }, [0x88; 32]).sealed.0),
        ("head.2.sealed", &ring.seal_head_with(&later_head(), [0x88; 32]).sealed.0),
        ("audit.seed", seed.expose()),
        ("file_root.name", root_name(&root).as_bytes()),
        ("file_root.wrapped", &wrapped.0),
    ];
    let mut text = String::new();
    for (name, bytes) in lines {
        writeln!(text, "{name} {}", hex::encode(bytes)).unwrap();
    }
    write!(text, "{}", *crate::file_root::render(&[0x55; 32])).unwrap();
    text
}

fn root_name(root: &FileRoot) -> &str {
    crate::RootOfTrust::name(root)
}

#[test]
fn stored_formats_have_not_changed() {
    let wanted = include_str!("../tests/data/golden.txt");
    let made = vectors();
    if std::env::var_os("CLAVIGER_UPDATE").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/golden.txt"), &made).unwrap();
        return;
    }
    for (made, wanted) in made.lines().zip(wanted.lines()) {
        assert_eq!(made, wanted);
    }
    assert_eq!(made, wanted);
}

#[test]
fn golden_bytes_open() {
    let field = |name: &str| {
        let lines = include_str!("../tests/data/golden.txt").lines();
        let line = lines.filter_map(|l| l.split_once(' ')).find(|(n, _)| *n == name);
        hex::decode(line.unwrap().1).unwrap().into_boxed_slice()
    };
    let ring = ring();
    let meta = key_meta("team/db", 7);
    let row = claviger_ports::KeyRow { meta: field("key.meta"), mac: field("key.mac"), ..ring.seal_key(&meta) };
    assert_eq!(ring.open_key(&row), Ok(meta));
    let used = claviger_ports::KeyRow { meta: field("key.2.meta"), mac: field("key.2.mac"), ..ring.seal_key(&used_key()) };
    assert_eq!(ring.open_key(&used), Ok(used_key()));
    for (name, grant) in [("grant", first_prefix_grant()), ("grant.2", prefix_grant())] {
        let (body, mac) = (field(&format!("{name}.body")), field(&format!("{name}.mac")));
        assert_eq!(ring.open_grant(&claviger_ports::GrantRow { body, mac, ..ring.seal_grant(&grant) }), Ok(grant));
    }
    let (wrapped, data) = (claviger_ports::Sealed(field("version.wrapped_key")), claviger_ports::Sealed(field("version.data")));
    let opened = ring.open_version(&permit("team/db", 7), KeyKind::Secret, VersionId::new(5).unwrap(), &wrapped, &data);
    assert_eq!(opened.unwrap().expose(), b"hunter2");
    for (name, head) in [("head.sealed", head()), ("head.2.sealed", later_head())] {
        let sealed = claviger_ports::Sealed(field(name));
        let row = claviger_ports::HeadRow { revision: head.revision, commit_id: head.commit_id, sealed };
        assert_eq!(ring.open_head(&row), Ok(head));
    }
}
