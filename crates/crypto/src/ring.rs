//! The key ring: barrier keys by version, and the subkeys that do the work.
//!
//! A barrier key itself encrypts nothing. Each use has a subkey of its own by HKDF-Expand (RFC 5869 §2.3) with a label that
//! names the use and the version; extraction is left out since a barrier key is uniformly random already (§3.3).

use crate::once::random_key;
use crate::{CryptoError, Malformation, RootOfTrust, Tried, fields};
use aws_lc_rs::{hkdf, hmac};
use claviger_domain::{SecretBytes, Timestamp};
use claviger_ports::BarrierRow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The version whose subkeys never change over rotations: the set digest's and the audit log's.
const FIRST: u32 = 1;

/// The open barrier keys. The newest one seals; all of them open.
///
/// # Guarantees
/// Secrets are neither cloned nor shown, and are wiped when the last ring that holds them is dropped.
pub struct KeyRing {
    /// Ascending by version, never empty, the first one is [`FIRST`].
    barriers: Vec<Arc<Barrier>>,
    digest: hmac::Key,
}

/// One barrier key with its subkeys.
pub(crate) struct Barrier {
    pub(crate) version: u32,
    key: SecretBytes,
    /// Derives the keys that wrap data keys.
    pub(crate) wrap: hmac::Key,
    /// Authenticates rows.
    pub(crate) mac: hmac::Key,
    /// Derives the keys that seal heads.
    pub(crate) head: hmac::Key,
}

impl Barrier {
    fn new(version: u32, key: SecretBytes) -> Result<Self, CryptoError> {
        if key.len() != 32 {
            let why = Malformation::BarrierLength(key.len());
            return Err(CryptoError::Malformed { what: format!("barrier key {version}"), why });
        }
        let hmac_key = |usage| hmac::Key::new(hmac::HMAC_SHA256, &*subkey(&key, version, usage));
        Ok(Self { version, wrap: hmac_key("wrap"), mac: hmac_key("mac"), head: hmac_key("head"), key })
    }
}

/// HKDF's output length as its interface wants it.
struct Bytes32;

impl hkdf::KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

fn subkey(barrier: &SecretBytes, version: u32, usage: &str) -> Zeroizing<[u8; 32]> {
    let label = fields::long(&[b"claviger/barrier", &version.to_be_bytes(), usage.as_bytes()]);
    expand(barrier.expose(), &label)
}

/// One 32-byte key from a uniformly random one.
pub(crate) fn expand(key: &[u8], label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    let key = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key);
    let filled = key.expand(&[label], Bytes32).and_then(|okm| okm.fill(&mut *out));
    filled.expect("HKDF-SHA-256 gives up to 8160 bytes");
    out
}

impl KeyRing {
    /// Makes the first barrier key and has every root wrap it.
    ///
    /// # Errors
    /// [`CryptoError::NoRoots`]; [`CryptoError::NotWrapped`] when any root fails.
    pub async fn create(roots: &[&dyn RootOfTrust], now: Timestamp) -> Result<(Self, Vec<BarrierRow>), CryptoError> {
        let barrier = Barrier::new(FIRST, fresh())?;
        let rows = wrap(&barrier, roots, now).await?;
        Ok((Self::of(vec![Arc::new(barrier)]), rows))
    }

    /// Opens every barrier key with the first of `roots` that can.
    ///
    /// # Errors
    /// [`CryptoError::NoRootOpens`] names the roots that were tried and their answers; [`CryptoError::MissingBarrier`] when
    /// the first barrier key has no row.
    pub async fn open(rows: &[BarrierRow], roots: &[&dyn RootOfTrust]) -> Result<Self, CryptoError> {
        let mut by_version: BTreeMap<u32, Vec<&BarrierRow>> = BTreeMap::new();
        for row in rows {
            by_version.entry(row.version).or_default().push(row);
        }
        if !by_version.contains_key(&FIRST) {
            return Err(CryptoError::MissingBarrier { version: FIRST });
        }
        let mut barriers = Vec::with_capacity(by_version.len());
        for (version, rows) in by_version {
            // Nothing opens as version 0, since no root ever wrapped one: the first of the ring is FIRST.
            let key = unwrap(version, &rows, roots).await?;
            barriers.push(Arc::new(Barrier::new(version, key)?));
        }
        Ok(Self::of(barriers))
    }

    /// A ring with one more barrier key, which seals from now on, and that key's rows. Older ones stay for opening.
    ///
    /// # Errors
    /// As [`KeyRing::create`]; `self` is unchanged in any case.
    pub async fn rotate(&self, roots: &[&dyn RootOfTrust], now: Timestamp) -> Result<(Self, Vec<BarrierRow>), CryptoError> {
        let next = self.version().checked_add(1).expect("four billion rotations do not happen");
        let barrier = Barrier::new(next, fresh())?;
        let rows = wrap(&barrier, roots, now).await?;
        let barriers = self.barriers.iter().cloned().chain([Arc::new(barrier)]).collect();
        Ok((Self::of(barriers), rows))
    }

    /// Rows by which another root can open everything that this ring opens: how a root is added beside the present ones.
    ///
    /// # Errors
    /// [`CryptoError::NotWrapped`].
    pub async fn wrap_for(&self, root: &dyn RootOfTrust, now: Timestamp) -> Result<Vec<BarrierRow>, CryptoError> {
        let mut rows = Vec::new();
        for barrier in &self.barriers {
            rows.extend(wrap(barrier, &[root], now).await?);
        }
        Ok(rows)
    }

    /// The barrier key that seals.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.newest().version
    }

    /// All barrier keys, oldest first.
    pub fn versions(&self) -> impl Iterator<Item = u32> {
        self.barriers.iter().map(|b| b.version)
    }

    /// The audit log's Ed25519 seed, 32 bytes. It comes from the first barrier key and stays the same over rotations.
    #[must_use]
    pub fn audit_seed(&self) -> SecretBytes {
        let first = &self.barriers[0];
        SecretBytes::new(subkey(&first.key, first.version, "audit").to_vec())
    }

    /// The Ed25519 seed, 32 bytes, of the authority that signs emergency certificates: whoever can open the barrier can
    /// make it, and nobody else. It stays the same over rotations.
    #[must_use]
    pub fn break_glass_seed(&self) -> SecretBytes {
        let first = &self.barriers[0];
        SecretBytes::new(subkey(&first.key, first.version, "break-glass").to_vec())
    }

    /// The seed, 32 bytes, of the key that authenticates the tickets by which people's logins are renewed. It stays the same
    /// over rotations, since a login does.
    #[must_use]
    pub fn login_seed(&self) -> SecretBytes {
        let first = &self.barriers[0];
        SecretBytes::new(subkey(&first.key, first.version, "login").to_vec())
    }

    /// A subkey of one barrier key, for what needs it seldom.
    pub(crate) fn subkey_of(&self, barrier: u32, usage: &str) -> Option<Zeroizing<[u8; 32]>> {
        self.barrier(barrier).map(|barrier| subkey(&barrier.key, barrier.version, usage))
    }

    /// A ring of one known key, for fuzzing.
    pub(crate) fn of_fixed(key: [u8; 32]) -> Self {
        Self::of(vec![Arc::new(Barrier::new(FIRST, SecretBytes::new(key.to_vec())).expect("32 bytes"))])
    }

    fn of(barriers: Vec<Arc<Barrier>>) -> Self {
        // Only from the first barrier key: over a rotation the sum of all rows' hashes must not change.
        let digest = hmac::Key::new(hmac::HMAC_SHA256, &*subkey(&barriers[0].key, barriers[0].version, "digest"));
        Self { barriers, digest }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Barrier> {
        self.barriers.iter().map(|b| &**b)
    }

    pub(crate) fn newest(&self) -> &Barrier {
        self.barriers.last().expect("a ring has at least the first barrier key")
    }

    pub(crate) fn barrier(&self, version: u32) -> Option<&Barrier> {
        // Newest first: nearly everything is sealed with the newest.
        self.barriers.iter().rev().find(|b| b.version == version).map(|b| &**b)
    }

    pub(crate) fn digest_subkey(&self) -> &hmac::Key {
        &self.digest
    }

    /// A ring of known keys, numbered from 1.
    #[cfg(test)]
    pub(crate) fn of_known(keys: &[[u8; 32]]) -> Self {
        let barrier = |(version, key): (u32, &[u8; 32])| Arc::new(Barrier::new(version, SecretBytes::new(key.to_vec())).expect("32 bytes"));
        Self::of((1..).zip(keys).map(barrier).collect())
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions: Vec<_> = self.versions().collect();
        write!(f, "KeyRing(barrier keys {versions:?})")
    }
}

fn fresh() -> SecretBytes {
    SecretBytes::new(random_key().to_vec())
}

/// What a root binds a wrapped barrier key to: every column of its row.
fn context(version: u32, root: &str, created: Timestamp) -> Vec<u8> {
    fields::long(&[b"claviger/barrier-key", &version.to_be_bytes(), root.as_bytes(), &created.0.to_be_bytes()])
}

async fn wrap(barrier: &Barrier, roots: &[&dyn RootOfTrust], now: Timestamp) -> Result<Vec<BarrierRow>, CryptoError> {
    let version = barrier.version;
    let mut rows = Vec::with_capacity(roots.len());
    for root in roots {
        let name = root.name().to_owned();
        match root.wrap(&context(version, &name, now), &barrier.key).await {
            Ok(wrapped) => rows.push(BarrierRow { version, root: name, wrapped, created: now }),
            Err(why) => return Err(CryptoError::NotWrapped { root: name, version, why }),
        }
    }
    if rows.is_empty() { Err(CryptoError::NoRoots) } else { Ok(rows) }
}

async fn unwrap(version: u32, rows: &[&BarrierRow], roots: &[&dyn RootOfTrust]) -> Result<SecretBytes, CryptoError> {
    let mut tried = Vec::new();
    for root in roots {
        let Some(row) = rows.iter().find(|r| r.root == root.name()) else { continue };
        match root.unwrap(&context(version, &row.root, row.created), &row.wrapped).await {
            Ok(key) => return Ok(key),
            Err(why) => tried.push(Tried { root: row.root.clone(), why }),
        }
    }
    let wrapped_by = rows.iter().map(|r| r.root.clone()).collect();
    Err(CryptoError::NoRootOpens { version, wrapped_by, tried })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{FileRoot, RootError};
    use ::hmac::{Hmac, KeyInit, Mac};
    use futures::executor::block_on;
    use sha2::Sha256;

    fn root() -> FileRoot {
        FileRoot::create(&tempfile::tempdir().unwrap().path().join("root")).unwrap()
    }

    #[test]
    fn another_implementation_derives_the_same_subkeys() {
        let key = SecretBytes::new((0..32).collect());
        let label = [&[0, 0, 0, 16][..], b"claviger/barrier", &[0, 0, 0, 4], &[0, 0, 0, 9], &[0, 0, 0, 4], b"wrap"].concat();
        let mut expand = Hmac::<Sha256>::new_from_slice(key.expose()).unwrap();
        expand.update(&label);
        expand.update(&[1]);
        let wanted: [u8; 32] = expand.finalize().into_bytes().into();
        assert_eq!(*subkey(&key, 9, "wrap"), wanted);
    }

    #[test]
    fn no_two_uses_or_versions_share_a_subkey() {
        let key = SecretBytes::new(vec![5; 32]);
        let uses = ["wrap", "mac", "digest", "head", "audit", "break-glass", "login", "import"];
        let all: std::collections::BTreeSet<_> = [1, 2].into_iter().flat_map(|v| uses.map(|u| *subkey(&key, v, u))).collect();
        assert_eq!(all.len(), 16);
    }

    #[test]
    fn a_rotation_keeps_the_digest_and_the_audit_seed_and_moves_the_rest() {
        let root = root();
        let (old, mut rows) = block_on(KeyRing::create(&[&root], Timestamp(1))).unwrap();
        let (new, more) = block_on(old.rotate(&[&root], Timestamp(2))).unwrap();
        rows.extend(more);
        let reopened = block_on(KeyRing::open(&rows, &[&root])).unwrap();
        assert_eq!((old.version(), new.version(), reopened.version()), (1, 2, 2));
        assert_eq!(reopened.versions().collect::<Vec<_>>(), [1, 2]);
        for ring in [&new, &reopened] {
            assert_eq!(ring.audit_seed().expose(), old.audit_seed().expose());
            let sum = |r: &KeyRing| fields::mac(r.digest_subkey(), &[b"x"]);
            assert_eq!(sum(ring), sum(&old));
        }
        assert_ne!(fields::mac(&new.newest().mac, &[b"x"]), fields::mac(&old.newest().mac, &[b"x"]));
    }

    #[test]
    fn a_root_is_changed_without_downtime() {
        let (first, second) = (root(), root());
        let (ring, mut rows) = block_on(KeyRing::create(&[&first], Timestamp(1))).unwrap();
        let (ring, more) = block_on(ring.rotate(&[&first], Timestamp(2))).unwrap();
        rows.extend(more);
        rows.extend(block_on(ring.wrap_for(&second, Timestamp(3))).unwrap());
        rows.retain(|r| r.root == second.name());
        let reopened = block_on(KeyRing::open(&rows, &[&second])).unwrap();
        assert_eq!(reopened.audit_seed().expose(), ring.audit_seed().expose());
        assert_eq!(reopened.versions().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn any_root_opens_even_when_another_one_fails() {
        let (first, second) = (root(), root());
        let (_, mut rows) = block_on(KeyRing::create(&[&first, &second], Timestamp(1))).unwrap();
        rows[0].wrapped.0[9] ^= 1;
        assert!(block_on(KeyRing::open(&rows, &[&first, &second])).is_ok());
        let why = block_on(KeyRing::open(&rows, &[&first])).unwrap_err();
        let tried = vec![Tried { root: first.name().to_owned(), why: RootError::NotAuthentic }];
        let wrapped_by = vec![first.name().to_owned(), second.name().to_owned()];
        assert_eq!(why, CryptoError::NoRootOpens { version: 1, wrapped_by, tried });
    }

    #[test]
    fn an_unconfigured_root_is_named() {
        let (first, second) = (root(), root());
        let (_, rows) = block_on(KeyRing::create(&[&first], Timestamp(1))).unwrap();
        let why = block_on(KeyRing::open(&rows, &[&second])).unwrap_err().to_string();
        let wanted =
            format!("no configured root of trust opens barrier key 1, which is wrapped by `{}`; none of these is configured", first.name());
        assert_eq!(why, wanted);
    }

    #[test]
    fn every_column_of_a_barrier_row_is_bound() {
        let root = root();
        let (ring, mut rows) = block_on(KeyRing::create(&[&root], Timestamp(1))).unwrap();
        rows.extend(block_on(ring.rotate(&[&root], Timestamp(1))).unwrap().1);
        let mut later = rows.clone();
        later[0].created = Timestamp(2);
        assert!(matches!(block_on(KeyRing::open(&later, &[&root])), Err(CryptoError::NoRootOpens { version: 1, .. })));
        let mut swapped = rows.clone();
        (swapped[0].version, swapped[1].version) = (2, 1);
        assert!(matches!(block_on(KeyRing::open(&swapped, &[&root])), Err(CryptoError::NoRootOpens { version: 1, .. })));
        let mut invented = rows.clone();
        invented.push(BarrierRow { version: 0, ..rows[0].clone() });
        assert!(matches!(block_on(KeyRing::open(&invented, &[&root])), Err(CryptoError::NoRootOpens { version: 0, .. })));
    }

    #[test]
    fn a_ring_needs_a_root_and_the_first_barrier_key() {
        let root = root();
        assert_eq!(block_on(KeyRing::create(&[], Timestamp(1))).unwrap_err(), CryptoError::NoRoots);
        assert_eq!(block_on(KeyRing::open(&[], &[&root])).unwrap_err(), CryptoError::MissingBarrier { version: 1 });
        let (ring, _) = block_on(KeyRing::create(&[&root], Timestamp(1))).unwrap();
        let (_, second) = block_on(ring.rotate(&[&root], Timestamp(2))).unwrap();
        assert_eq!(block_on(KeyRing::open(&second, &[&root])).unwrap_err(), CryptoError::MissingBarrier { version: 1 });
    }

    #[test]
    fn a_barrier_key_of_another_length_is_refused() {
        let root = root();
        let wrapped = block_on(root.wrap(&context(1, root.name(), Timestamp(1)), &SecretBytes::new(vec![1; 16]))).unwrap();
        let row = BarrierRow { version: 1, root: root.name().to_owned(), wrapped, created: Timestamp(1) };
        let why = block_on(KeyRing::open(&[row], &[&root])).unwrap_err();
        assert_eq!(why, CryptoError::Malformed { what: "barrier key 1".into(), why: Malformation::BarrierLength(16) });
    }

    #[test]
    fn debug_shows_versions_only() {
        assert_eq!(format!("{:?}", KeyRing::of_known(&[[1; 32], [2; 32]])), "KeyRing(barrier keys [1, 2])");
    }
}
