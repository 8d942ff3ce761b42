//! Rows whose contents are not secret but must not be altered: keys' metadata, prefix grants, tombstones.
//!
//! A MAC is `[format 1][barrier version u32][HMAC-SHA-256 32]` over purpose and canonical bytes. These name the row (id and
//! incarnation, or prefix), so a row is good in its own place only; columns beside them are compared when a row is opened.

use crate::canonical::Canonical;
use crate::{CryptoError, KeyRing, Malformation, fields};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use claviger_domain::{Acl, Approval, Created, KeyMeta, KeyRef, PrefixGrant, Rules};
use claviger_ports::{ApprovalRow, GrantRow, KeyRow, TombstoneRow};

const FORMAT: u8 = 1;
pub(crate) const KEY: &[u8] = b"claviger/row/key";
pub(crate) const GRANT: &[u8] = b"claviger/row/grant";
pub(crate) const TOMBSTONE: &[u8] = b"claviger/row/tombstone";
pub(crate) const APPROVAL: &[u8] = b"claviger/row/approval";

/// A deleted key: which, who could read it last, when and by whom it was deleted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tombstone {
    /// Which key.
    pub key: KeyRef,
    /// Its last ACL: former readers are told of the deletion.
    pub acl: Acl,
    /// When and by whom it was deleted.
    pub deleted: Created,
}

impl KeyRing {
    /// A key's row.
    #[must_use]
    pub fn seal_key(&self, meta: &KeyMeta) -> KeyRow {
        let bytes = meta.encode();
        let mac = self.mac(KEY, &bytes);
        let KeyMeta { id, incarnation, generation, kind, .. } = meta;
        KeyRow { id: id.clone(), incarnation: *incarnation, generation: *generation, kind: kind.code(), meta: bytes, mac }
    }

    /// Verifies a key's row and reads its metadata.
    ///
    /// # Errors
    /// [`CryptoError::Tampered`], [`CryptoError::Mismatch`], [`CryptoError::UnknownBarrier`] or [`CryptoError::Malformed`].
    pub fn open_key(&self, row: &KeyRow) -> Result<KeyMeta, CryptoError> {
        let what = || format!("the row of key `{}`", row.id);
        let meta: KeyMeta = self.verified(KEY, &row.meta, &row.mac, what)?;
        let columns = [
            ("id", meta.id == row.id),
            ("incarnation", meta.incarnation == row.incarnation),
            ("generation", meta.generation == row.generation),
            ("kind", meta.kind.code() == row.kind),
        ];
        check_columns(&columns, what)?;
        Ok(meta)
    }

    /// The grants and rules of approval that a key's row claims to have, although it does not authenticate: whoever can write to
    /// the database can put anything there. The grants are good for nothing but deciding who is told that the key is damaged.
    #[must_use]
    pub fn claimed(row: &KeyRow) -> Option<(Acl, Rules)> {
        KeyMeta::decode(&row.meta).ok().map(|meta| (meta.acl, meta.rules))
    }

    /// A prefix grant's row.
    #[must_use]
    pub fn seal_grant(&self, grant: &PrefixGrant) -> GrantRow {
        let body = grant.encode();
        let mac = self.mac(GRANT, &body);
        GrantRow { prefix: grant.prefix.clone(), incarnation: grant.incarnation, generation: grant.generation, body, mac }
    }

    /// Verifies a prefix grant's row and reads it.
    ///
    /// # Errors
    /// As [`KeyRing::open_key`].
    pub fn open_grant(&self, row: &GrantRow) -> Result<PrefixGrant, CryptoError> {
        let what = || format!("the row of prefix `{}`", row.prefix);
        let grant: PrefixGrant = self.verified(GRANT, &row.body, &row.mac, what)?;
        let columns = [
            ("prefix", grant.prefix == row.prefix),
            ("incarnation", grant.incarnation == row.incarnation),
            ("generation", grant.generation == row.generation),
        ];
        check_columns(&columns, what)?;
        Ok(grant)
    }

    /// A tombstone's row.
    #[must_use]
    pub fn seal_tombstone(&self, tombstone: &Tombstone) -> TombstoneRow {
        let body = tombstone.encode();
        let mac = self.mac(TOMBSTONE, &body);
        TombstoneRow { key: tombstone.key.clone(), body, mac }
    }

    /// Verifies a tombstone's row and reads it.
    ///
    /// # Errors
    /// As [`KeyRing::open_key`].
    pub fn open_tombstone(&self, row: &TombstoneRow) -> Result<Tombstone, CryptoError> {
        let what = || format!("the tombstone of key `{}`", row.key.id);
        let tombstone: Tombstone = self.verified(TOMBSTONE, &row.body, &row.mac, what)?;
        let columns = [("id", tombstone.key.id == row.key.id), ("incarnation", tombstone.key.incarnation == row.key.incarnation)];
        check_columns(&columns, what)?;
        Ok(tombstone)
    }

    /// The rules that a prefix's row claims to have, although it does not authenticate. A rule that is enforced for nothing
    /// does less harm than one that is not.
    #[must_use]
    pub fn claimed_prefix_rules(row: &GrantRow) -> Option<Rules> {
        PrefixGrant::decode(&row.body).ok().map(|grant| grant.rules)
    }

    /// The row of a request for approval.
    #[must_use]
    pub fn seal_approval(&self, approval: &Approval) -> ApprovalRow {
        let body = approval.encode();
        let mac = self.mac(APPROVAL, &body);
        ApprovalRow { id: approval.id, generation: approval.generation, body, mac }
    }

    /// Verifies the row of a request for approval and reads it.
    ///
    /// # Errors
    /// As [`KeyRing::open_key`].
    pub fn open_approval(&self, row: &ApprovalRow) -> Result<Approval, CryptoError> {
        let what = || format!("the row of approval {}", row.id);
        let approval: Approval = self.verified(APPROVAL, &row.body, &row.mac, what)?;
        let columns = [("id", approval.id == row.id), ("generation", approval.generation == row.generation)];
        check_columns(&columns, what)?;
        Ok(approval)
    }

    fn mac(&self, purpose: &[u8], body: &[u8]) -> Box<[u8]> {
        mac_under(self.newest(), purpose, body)
    }

    /// The MACs that each barrier key would make of a row.
    pub(crate) fn macs(&self, purpose: &[u8], body: &[u8]) -> impl Iterator<Item = Box<[u8]>> {
        self.all().map(move |barrier| mac_under(barrier, purpose, body))
    }

    /// Verifies before it parses: bytes that are not ours reach no decoder.
    fn verified<T: Canonical>(&self, purpose: &[u8], body: &[u8], mac: &[u8], what: impl Fn() -> String) -> Result<T, CryptoError> {
        let malformed = |why| CryptoError::Malformed { what: what(), why };
        let (version, given) = split_mac(mac).map_err(malformed)?;
        let Some(barrier) = self.barrier(version) else {
            return Err(CryptoError::UnknownBarrier { what: what(), version });
        };
        let wanted = fields::mac(&barrier.mac, &[purpose, body]);
        if verify_slices_are_equal(&wanted, given).is_err() {
            return Err(CryptoError::Tampered { what: what(), barrier: version });
        }
        T::decode(body).map_err(malformed)
    }
}

fn split_mac(mac: &[u8]) -> Result<(u32, &[u8; 32]), Malformation> {
    match mac {
        [] => Err(Malformation::Truncated),
        [FORMAT, rest @ ..] => {
            let (version, rest) = rest.split_first_chunk().ok_or(Malformation::Truncated)?;
            let (given, rest) = rest.split_first_chunk().ok_or(Malformation::Truncated)?;
            if rest.is_empty() { Ok((u32::from_be_bytes(*version), given)) } else { Err(Malformation::Trailing) }
        }
        [format, ..] => Err(Malformation::Format(*format)),
    }
}

fn mac_under(barrier: &crate::ring::Barrier, purpose: &[u8], body: &[u8]) -> Box<[u8]> {
    let mut mac = [FORMAT; 37];
    mac[1..5].copy_from_slice(&barrier.version.to_be_bytes());
    mac[5..].copy_from_slice(&fields::mac(&barrier.mac, &[purpose, body]));
    Box::new(mac)
}

fn check_columns(columns: &[(&'static str, bool)], what: impl Fn() -> String) -> Result<(), CryptoError> {
    match columns.iter().find(|(_, is_equal)| !is_equal) {
        Some((column, _)) => Err(CryptoError::Mismatch { what: what(), column }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::canonical::approval_tests::any_approval;
    use crate::canonical::tests::{any_grant, any_meta, any_tombstone};
    use crate::golden::{key_meta, prefix_grant, tombstone};
    use ::hmac::{Hmac, KeyInit, Mac};
    use claviger_domain::{Generation, Incarnation, KeyId, Prefix};
    use proptest::prelude::*;
    use sha2::Sha256;

    fn ring() -> KeyRing {
        KeyRing::of_known(&[[1; 32], [2; 32]])
    }

    fn is_named(error: &CryptoError, name: &str) -> bool {
        match error {
            CryptoError::Tampered { what, .. } | CryptoError::UnknownBarrier { what, .. } => what.contains(name),
            CryptoError::Malformed { what, why: Malformation::Format(_) } => what.contains(name),
            _ => false,
        }
    }

    fn flips(bytes: &[u8]) -> impl Iterator<Item = Box<[u8]>> {
        (0..bytes.len() * 8).map(|bit| {
            let mut altered: Box<[u8]> = bytes.into();
            altered[bit / 8] ^= 1 << (bit % 8);
            altered
        })
    }

    #[test]
    fn every_flipped_bit_of_a_row_is_noticed_and_named() {
        let ring = ring();
        let row = ring.seal_key(&key_meta("team/db", 7));
        let metas = flips(&row.meta).map(|meta| KeyRow { meta, ..row.clone() });
        let macs = flips(&row.mac).map(|mac| KeyRow { mac, ..row.clone() });
        assert!(metas.chain(macs).all(|r| is_named(&ring.open_key(&r).unwrap_err(), "the row of key `team/db`")));

        let row = ring.seal_grant(&prefix_grant());
        let bodies = flips(&row.body).map(|body| GrantRow { body, ..row.clone() });
        let macs = flips(&row.mac).map(|mac| GrantRow { mac, ..row.clone() });
        assert!(bodies.chain(macs).all(|r| is_named(&ring.open_grant(&r).unwrap_err(), "the row of prefix `team/`")));

        let row = ring.seal_tombstone(&tombstone());
        let bodies = flips(&row.body).map(|body| TombstoneRow { body, ..row.clone() });
        let macs = flips(&row.mac).map(|mac| TombstoneRow { mac, ..row.clone() });
        assert!(bodies.chain(macs).all(|r| is_named(&ring.open_tombstone(&r).unwrap_err(), "the tombstone of key `team/old`")));
    }

    #[test]
    fn a_column_that_contradicts_the_bytes_is_noticed_and_named() {
        let ring = ring();
        let row = ring.seal_key(&key_meta("team/db", 7));
        for (column, altered) in [
            ("id", KeyRow { id: KeyId::parse("team/dc").unwrap(), ..row.clone() }),
            ("incarnation", KeyRow { incarnation: Incarnation(8), ..row.clone() }),
            ("generation", KeyRow { generation: Generation(99), ..row.clone() }),
            ("kind", KeyRow { kind: 9, ..row.clone() }),
        ] {
            let what = format!("the row of key `{}`", altered.id);
            assert_eq!(ring.open_key(&altered), Err(CryptoError::Mismatch { what, column }));
        }
        let row = ring.seal_grant(&prefix_grant());
        for (column, altered) in [
            ("prefix", GrantRow { prefix: Prefix::parse("a/").unwrap(), ..row.clone() }),
            ("incarnation", GrantRow { incarnation: Incarnation(99), ..row.clone() }),
            ("generation", GrantRow { generation: Generation(99), ..row.clone() }),
        ] {
            let what = format!("the row of prefix `{}`", altered.prefix);
            assert_eq!(ring.open_grant(&altered), Err(CryptoError::Mismatch { what, column }));
        }
        let mut row = ring.seal_tombstone(&tombstone());
        row.key.incarnation = Incarnation(8);
        let what = "the tombstone of key `team/old`".to_owned();
        assert_eq!(ring.open_tombstone(&row), Err(CryptoError::Mismatch { what, column: "incarnation" }));
    }

    #[test]
    fn a_mac_is_good_for_one_kind_of_row() {
        let ring = ring();
        let row = ring.seal_key(&key_meta("team/db", 7));
        let grant = GrantRow {
            prefix: Prefix::parse("").unwrap(),
            incarnation: Incarnation(1),
            generation: Generation(1),
            body: row.meta,
            mac: row.mac,
        };
        assert!(matches!(ring.open_grant(&grant), Err(CryptoError::Tampered { .. })));
    }

    #[test]
    fn rows_of_an_older_barrier_key_stay_good_and_a_missing_one_is_named() {
        let old = KeyRing::of_known(&[[1; 32]]);
        let meta = key_meta("team/db", 7);
        assert_eq!(ring().open_key(&old.seal_key(&meta)).as_ref(), Ok(&meta));
        let what = "the row of key `team/db`".to_owned();
        assert_eq!(old.open_key(&ring().seal_key(&meta)), Err(CryptoError::UnknownBarrier { what, version: 2 }));
    }

    #[test]
    fn another_implementation_makes_the_same_mac_and_digest() {
        let ring = ring();
        let row = ring.seal_key(&key_meta("team/db", 7));
        let layout = |fields: &[&[u8]]| fields.iter().flat_map(|f| [&(f.len() as u32).to_be_bytes()[..], f].concat()).collect::<Vec<u8>>();
        let oracle = |key: &[u8], bytes: &[u8]| -> [u8; 32] {
            Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(bytes).finalize().into_bytes().into()
        };
        let subkey = |barrier: u8, version: u8, usage: &[u8]| {
            let label = layout(&[b"claviger/barrier", &[0, 0, 0, version], usage]);
            oracle(&[barrier; 32], &[&label[..], &[1]].concat())
        };
        assert_eq!(row.mac[..5], [1, 0, 0, 0, 2]);
        assert_eq!(row.mac[5..], oracle(&subkey(2, 2, b"mac"), &layout(&[b"claviger/row/key", &row.meta])));
        let element = layout(&[b"claviger/digest/key", b"team/db", &7u64.to_be_bytes(), &row.mac]);
        assert_eq!(ring.digest_key(&row).rows(), oracle(&subkey(1, 1, b"digest"), &element));
    }

    #[test]
    fn each_part_of_a_row_changes_its_digest() {
        let ring = ring();
        let (a, b) = (ring.seal_key(&key_meta("a", 1)), ring.seal_key(&key_meta("b", 1)));
        assert_ne!(ring.digest_key(&a), ring.digest_key(&b));
        assert_ne!(ring.digest_key(&a), ring.digest_key(&KeyRow { incarnation: Incarnation(2), ..a.clone() }));
        assert_ne!(ring.digest_key(&a), ring.digest_key(&KeyRow { mac: b.mac.clone(), ..a.clone() }));

        let key = key_meta("a", 1).key_ref();
        let version = |n, wrapped: u8, len, tag: u8| {
            let id = claviger_domain::VersionId::new(n).unwrap();
            ring.digest_version(&key, id, &claviger_ports::Sealed(Box::new([wrapped; 85])), len, &[tag; 16])
        };
        let all = [version(1, 1, 1, 1), version(2, 1, 1, 1), version(1, 2, 1, 1), version(1, 1, 2, 1), version(1, 1, 1, 2)];
        let grant = ring.seal_grant(&prefix_grant());
        let stone = ring.seal_tombstone(&tombstone());
        let others = [ring.digest_grant(&grant), ring.digest_tombstone(&stone), ring.digest_key(&a)];
        let distinct: std::collections::BTreeSet<_> = all.iter().chain(&others).map(|d| d.0).collect();
        assert_eq!(distinct.len(), 8);
    }

    proptest! {
        #[test]
        fn rows_round_trip(meta in any_meta(), grant in any_grant(), tombstone in any_tombstone(), approval in any_approval()) {
            let ring = ring();
            prop_assert_eq!(ring.open_approval(&ring.seal_approval(&approval)), Ok(approval));
            prop_assert_eq!(ring.open_key(&ring.seal_key(&meta)), Ok(meta));
            prop_assert_eq!(ring.open_grant(&ring.seal_grant(&grant)), Ok(grant));
            prop_assert_eq!(ring.open_tombstone(&ring.seal_tombstone(&tombstone)), Ok(tombstone));
        }

        #[test]
        fn foreign_macs_never_verify(mac in prop::collection::vec(any::<u8>(), 0..60)) {
            let ring = ring();
            let row = KeyRow { mac: mac.into(), ..ring.seal_key(&key_meta("a", 1)) };
            prop_assert!(ring.open_key(&row).is_err());
        }
    }
}
