//! The set digest: the sum, modulo 2^256, of a keyed hash of every row.
//!
//! Adding and removing a row are an addition and a subtraction, in any order. Without the key nobody can find rows whose
//! hashes sum to the same number; for the same reason the sum itself is kept sealed, in the head.

use crate::KeyRing;
use crate::fields;
use claviger_domain::{KeyRef, VersionId};
use claviger_ports::{DigestDelta, GrantRow, KeyRow, Sealed, TombstoneRow};

/// `a + b` modulo 2^256.
#[must_use]
pub fn add(a: DigestDelta, b: DigestDelta) -> DigestDelta {
    let mut sum = [0; 32];
    let mut carry = 0;
    for (out, (x, y)) in sum.iter_mut().zip(a.0.into_iter().zip(b.0)) {
        let total = u16::from(x) + u16::from(y) + carry;
        *out = total.to_le_bytes()[0];
        carry = total >> 8;
    }
    DigestDelta(sum)
}

/// `-d` modulo 2^256: what a write adds when it takes a row away.
#[must_use]
pub fn negate(d: DigestDelta) -> DigestDelta {
    let one = std::array::from_fn(|i| u8::from(i == 0));
    add(DigestDelta(d.0.map(|b| !b)), DigestDelta(one))
}

impl KeyRing {
    /// What a key's row counts. The row's MAC stands for its contents, so check it (by `open_key`) before counting a loaded row.
    #[must_use]
    pub fn digest_key(&self, row: &KeyRow) -> DigestDelta {
        let incarnation = row.incarnation.0.to_be_bytes();
        self.element(&[b"claviger/digest/key", row.id.as_str().as_bytes(), &incarnation, &row.mac])
    }

    /// What a version's row counts. `data_tag` is the sealed data's last 16 bytes: with the data key, which `wrapped_key`
    /// fixes, only one text has this tag that anyone without the data key could come up with.
    #[must_use]
    pub fn digest_version(&self, key: &KeyRef, version: VersionId, wrapped_key: &Sealed, data_len: u64, data_tag: &[u8]) -> DigestDelta {
        self.element(&[
            b"claviger/digest/version",
            key.id.as_str().as_bytes(),
            &key.incarnation.0.to_be_bytes(),
            &version.get().to_be_bytes(),
            &wrapped_key.0,
            &data_len.to_be_bytes(),
            data_tag,
        ])
    }

    /// What a prefix grant's row counts; see [`KeyRing::digest_key`].
    #[must_use]
    pub fn digest_grant(&self, row: &GrantRow) -> DigestDelta {
        self.element(&[b"claviger/digest/grant", row.prefix.as_str().as_bytes(), &row.mac])
    }

    /// What a tombstone counts; see [`KeyRing::digest_key`].
    #[must_use]
    pub fn digest_tombstone(&self, row: &TombstoneRow) -> DigestDelta {
        let incarnation = row.key.incarnation.0.to_be_bytes();
        self.element(&[b"claviger/digest/tombstone", row.key.id.as_str().as_bytes(), &incarnation, &row.mac])
    }

    fn element(&self, fields: &[&[u8]]) -> DigestDelta {
        DigestDelta(fields::mac(self.digest_subkey(), fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ZERO: DigestDelta = DigestDelta([0; 32]);

    fn sum(all: &[[u8; 32]]) -> DigestDelta {
        all.iter().fold(ZERO, |s, d| add(s, DigestDelta(*d)))
    }

    #[test]
    fn sums_carry_through_all_bytes_and_wrap_around() {
        let most = DigestDelta([0xff; 32]);
        let one = DigestDelta(std::array::from_fn(|i| u8::from(i == 0)));
        assert_eq!(add(most, one), ZERO);
        assert_eq!(negate(one), most);
        assert_eq!(negate(ZERO), ZERO);
    }

    proptest! {
        #[test]
        fn sums_do_not_depend_on_the_order(all in prop::collection::vec(any::<[u8; 32]>(), 0..9), turn in 0usize..9) {
            let mut other = all.clone();
            other.rotate_left(turn % all.len().max(1));
            other.reverse();
            prop_assert_eq!(sum(&all), sum(&other));
        }

        #[test]
        fn what_is_taken_away_cancels(kept: [u8; 32], gone: [u8; 32]) {
            let both = sum(&[kept, gone]);
            prop_assert_eq!(add(both, negate(DigestDelta(gone))), DigestDelta(kept));
        }
    }
}
