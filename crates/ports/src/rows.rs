//! Rows as the application hands them to a store. What is secret in them is sealed; what is not is authenticated.

use claviger_domain::{ApprovalId, Generation, Incarnation, KeyId, KeyRef, Prefix, RequestId, Revision, Timestamp, VersionId};
use std::fmt;

/// Ciphertext. A store carries it and owns no key to it ▲.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub Box<[u8]>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// What a write adds to the keyed sums over all rows: two numbers modulo 2^256, little-endian. The first sums keys, grants and
/// tombstones, the second versions: a version's row that is lost or damaged must not hide that a right was rolled back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DigestDelta(pub [u8; 64]);

impl Default for DigestDelta {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl DigestDelta {
    /// The sum over keys, grants and tombstones.
    #[must_use]
    pub fn rows(&self) -> &[u8] {
        &self.0[..32]
    }

    /// What of it is in the sum over versions.
    #[must_use]
    pub fn only_versions(mut self) -> Self {
        self.0[..32].fill(0);
        self
    }

    /// The sum over versions.
    #[must_use]
    pub fn versions(&self) -> &[u8] {
        &self.0[32..]
    }
}

/// Everything about one key except its data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRow {
    /// Its name; primary key of the table.
    pub id: KeyId,
    /// Which key of this name.
    pub incarnation: Incarnation,
    /// Which change of it; with the incarnation this is what `replace_if` compares.
    pub generation: Generation,
    /// [`claviger_domain::KeyKind::code`].
    pub kind: u8,
    /// The canonical bytes of the metadata.
    pub meta: Box<[u8]>,
    /// Authenticates `meta`.
    pub mac: Box<[u8]>,
}

/// One version's data and the data key it is sealed under.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionRow {
    /// Whose.
    pub key: KeyRef,
    /// Which.
    pub version: VersionId,
    /// The data key, wrapped by the barrier key.
    pub wrapped_key: Sealed,
    /// The data under the data key; the last 16 bytes are the cipher's tag.
    pub data: Sealed,
}

/// Rights below a prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantRow {
    /// Where; primary key of the table.
    pub prefix: Prefix,
    /// Which grant of this prefix.
    pub incarnation: Incarnation,
    /// Which change of it.
    pub generation: Generation,
    /// The canonical bytes of the grant.
    pub body: Box<[u8]>,
    /// Authenticates `body`.
    pub mac: Box<[u8]>,
}

/// Remembers a deleted key and who could read it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TombstoneRow {
    /// Which key; primary key of the table together.
    pub key: KeyRef,
    /// Canonical bytes: when, by whom, the last ACL.
    pub body: Box<[u8]>,
    /// Authenticates `body`.
    pub mac: Box<[u8]>,
}

/// A request for approval and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApprovalRow {
    /// Its name; primary key of the table.
    pub id: ApprovalId,
    /// Which change of it.
    pub generation: Generation,
    /// The canonical bytes of the request, its votes and its end.
    pub body: Box<[u8]>,
    /// Authenticates `body`.
    pub mac: Box<[u8]>,
}

/// One barrier key as wrapped by one root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BarrierRow {
    /// Which barrier key; with `root` the table's primary key.
    pub version: u32,
    /// The name of the root that wraps it.
    pub root: String,
    /// The wrapped key.
    pub wrapped: Sealed,
    /// When it was made.
    pub created: Timestamp,
}

/// The one row that every commit replaces under its lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeadRow {
    /// The last committed revision.
    pub revision: Revision,
    /// Random, new with every commit: tells whether a commit whose answer was lost took place.
    pub commit_id: [u8; 16],
    /// Set digest, last audit checkpoint and copies of the fields above, sealed.
    pub sealed: Sealed,
}

/// A committed change, for the feed and for reconciling the audit log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeRow {
    /// Its place in the order.
    pub revision: Revision,
    /// Key id, or prefix followed by `*`, or `approval` and its id.
    pub target: String,
    /// The action's name.
    pub what: String,
    /// The caller's name.
    pub actor: String,
    /// The request.
    pub request_id: RequestId,
    /// When.
    pub at: Timestamp,
}

/// One row as [`crate::Store::load`] delivers it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Loaded {
    /// A key.
    Key(KeyRow, Revision),
    /// A version.
    Version(LoadedVersion),
    /// A prefix grant.
    Grant(GrantRow, Revision),
    /// A tombstone.
    Tombstone(TombstoneRow, Revision),
    /// A request for approval.
    Approval(ApprovalRow, Revision),
    /// A row that cannot be read whole.
    Damaged(DamagedRow),
}

/// A row of which a column holds what was never written, with what is wrong with it. It is no reason not to load the others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DamagedRow {
    /// A key's, as far as it can be read: for what it counts, and to replace it. Nothing in it can be believed.
    Key(KeyRow, String),
    /// A version's.
    Version(KeyRef, String),
    /// A prefix grant's, which counts as it stands.
    Grant(GrantRow, String),
    /// A tombstone's, which counts as it stands.
    Tombstone(TombstoneRow, String),
    /// A request for approval, which counts as it stands.
    Approval(ApprovalRow, String),
    /// One that does not even say whose it is or what it holds; the first text names its kind.
    Other(String, String),
}

/// A version as loaded: large data stays in the database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadedVersion {
    /// Whose.
    pub key: KeyRef,
    /// Which.
    pub version: VersionId,
    /// The wrapped data key.
    pub wrapped_key: Sealed,
    /// Length of the sealed data in bytes.
    pub data_len: u64,
    /// The sealed data's last 16 bytes (all of them when shorter).
    pub data_tag: Box<[u8]>,
    /// The sealed data, unless longer than was asked for.
    pub data: Option<Sealed>,
}
