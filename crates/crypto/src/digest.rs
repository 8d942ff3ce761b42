//! The set digest: two sums, modulo 2^256, of a keyed hash of every row: one of what rules (keys, grants, tombstones,
//! requests for approval), one
//! of what is kept (versions).
//!
//! Adding and removing a row are an addition and a subtraction, in any order. Without the key nobody can find rows whose
//! hashes sum to the same number; for the same reason the sum itself is kept sealed, in the head.

use crate::KeyRing;
use crate::fields;
use claviger_domain::{KeyMeta, KeyRef, VersionId};
use claviger_ports::{ApprovalRow, DigestDelta, GrantRow, KeyRow, Sealed, TombstoneRow};

/// Bytes of one sum.
const LANE: usize = 32;

/// `a + b`, each sum modulo 2^256.
#[must_use]
pub fn add(a: DigestDelta, b: DigestDelta) -> DigestDelta {
    let mut sum = DigestDelta::default();
    let mut carry = 0;
    for (at, out) in sum.0.iter_mut().enumerate() {
        if at % LANE == 0 {
            carry = 0;
        }
        let total = u16::from(a.0[at]) + u16::from(b.0[at]) + carry;
        *out = total.to_le_bytes()[0];
        carry = total >> 8;
    }
    sum
}

/// `-d`, each sum modulo 2^256: what a write adds when it takes a row away.
#[must_use]
pub fn negate(d: DigestDelta) -> DigestDelta {
    let one = std::array::from_fn(|i| u8::from(i % LANE == 0));
    add(DigestDelta(d.0.map(|b| !b)), DigestDelta(one))
}

/// Which of the two sums a row counts in.
#[derive(Clone, Copy)]
enum Sum {
    Rows = 0,
    Versions = 1,
}

impl KeyRing {
    /// What a key's row counts. The row's MAC stands for its contents, so check it (by `open_key`) before counting a loaded row.
    #[must_use]
    pub fn digest_key(&self, row: &KeyRow) -> DigestDelta {
        let incarnation = row.incarnation.0.to_be_bytes();
        self.element(Sum::Rows, &[b"claviger/digest/key", row.id.as_str().as_bytes(), &incarnation, &row.mac])
    }

    /// What a version's row counts. `data_tag` is the sealed data's last 16 bytes: with the data key, which `wrapped_key`
    /// fixes, only one text has this tag that anyone without the data key could come up with.
    #[must_use]
    pub fn digest_version(&self, key: &KeyRef, version: VersionId, wrapped_key: &Sealed, data_len: u64, data_tag: &[u8]) -> DigestDelta {
        self.element(
            Sum::Versions,
            &[
                b"claviger/digest/version",
                key.id.as_str().as_bytes(),
                &key.incarnation.0.to_be_bytes(),
                &version.get().to_be_bytes(),
                &wrapped_key.0,
                &data_len.to_be_bytes(),
                data_tag,
            ],
        )
    }

    /// What a prefix grant's row counts; see [`KeyRing::digest_key`].
    #[must_use]
    pub fn digest_grant(&self, row: &GrantRow) -> DigestDelta {
        self.element(Sum::Rows, &[b"claviger/digest/grant", row.prefix.as_str().as_bytes(), &row.mac])
    }

    /// What a tombstone counts; see [`KeyRing::digest_key`].
    #[must_use]
    pub fn digest_tombstone(&self, row: &TombstoneRow) -> DigestDelta {
        let incarnation = row.key.incarnation.0.to_be_bytes();
        self.element(Sum::Rows, &[b"claviger/digest/tombstone", row.key.id.as_str().as_bytes(), &incarnation, &row.mac])
    }

    /// What the row of a request for approval counts; see [`KeyRing::digest_key`].
    #[must_use]
    pub fn digest_approval(&self, row: &ApprovalRow) -> DigestDelta {
        self.element(Sum::Rows, &[b"claviger/digest/approval", &row.id.0.to_be_bytes(), &row.mac])
    }

    /// What a key's row would count if its MAC had been damaged and its contents had not: one answer per barrier key that
    /// could have made it. A sum that is right with one of them shows that nothing else was changed.
    #[must_use]
    pub fn digest_key_as_it_was(&self, row: &KeyRow) -> Vec<DigestDelta> {
        // Of the columns only the incarnation counts beside the MAC; the contents name it too. An id that differs is no damage:
        // the row was moved.
        let incarnation = crate::canonical::Canonical::decode(&row.meta).map_or(row.incarnation, |meta: KeyMeta| meta.incarnation);
        self.macs(crate::rows::KEY, &row.meta).map(|mac| self.digest_key(&KeyRow { mac, incarnation, ..row.clone() })).collect()
    }

    /// As [`KeyRing::digest_key_as_it_was`], for a prefix grant.
    #[must_use]
    pub fn digest_grant_as_it_was(&self, row: &GrantRow) -> Vec<DigestDelta> {
        self.macs(crate::rows::GRANT, &row.body).map(|mac| self.digest_grant(&GrantRow { mac, ..row.clone() })).collect()
    }

    /// As [`KeyRing::digest_key_as_it_was`], for a tombstone.
    #[must_use]
    pub fn digest_tombstone_as_it_was(&self, row: &TombstoneRow) -> Vec<DigestDelta> {
        self.macs(crate::rows::TOMBSTONE, &row.body).map(|mac| self.digest_tombstone(&TombstoneRow { mac, ..row.clone() })).collect()
    }

    /// As [`KeyRing::digest_key_as_it_was`], for a request for approval.
    #[must_use]
    pub fn digest_approval_as_it_was(&self, row: &ApprovalRow) -> Vec<DigestDelta> {
        self.macs(crate::rows::APPROVAL, &row.body).map(|mac| self.digest_approval(&ApprovalRow { mac, ..row.clone() })).collect()
    }

    fn element(&self, sum: Sum, fields: &[&[u8]]) -> DigestDelta {
        let mut element = DigestDelta::default();
        let lane = sum as usize * LANE;
        element.0[lane..lane + LANE].copy_from_slice(&fields::mac(self.digest_subkey(), fields));
        element
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Sums = ([u8; 32], [u8; 32]);

    fn delta((rows, versions): Sums) -> DigestDelta {
        let mut both = DigestDelta::default();
        both.0[..LANE].copy_from_slice(&rows);
        both.0[LANE..].copy_from_slice(&versions);
        both
    }

    fn sum(all: &[Sums]) -> DigestDelta {
        all.iter().fold(DigestDelta::default(), |s, d| add(s, delta(*d)))
    }

    #[test]
    fn each_sum_carries_through_its_bytes_and_wraps_around() {
        let most = delta(([0xff; 32], [0; 32]));
        let one = delta((std::array::from_fn(|i| u8::from(i == 0)), [0; 32]));
        assert_eq!(add(most, one), DigestDelta::default());
        assert_eq!(negate(one), most);
        assert_eq!(negate(DigestDelta::default()), DigestDelta::default());
    }

    proptest! {
        #[test]
        fn sums_do_not_depend_on_the_order(all in prop::collection::vec(any::<Sums>(), 0..9), turn in 0usize..9) {
            let mut other = all.clone();
            other.rotate_left(turn % all.len().max(1));
            other.reverse();
            prop_assert_eq!(sum(&all), sum(&other));
        }

        #[test]
        fn what_is_taken_away_cancels(kept: Sums, gone: Sums) {
            let both = sum(&[kept, gone]);
            prop_assert_eq!(add(both, negate(delta(gone))), delta(kept));
        }
    }
}
