//! The head: what every commit replaces. It is encrypted since the changes of the set digest would tell rows' hashes.
//!
//! `sealed` is `[format 1][barrier version u32][salt 32][ciphertext][tag 16]`. The salt is random rather than the commit id, so
//! that the cipher's safety does not hang on a caller never sealing two heads of one commit id.

use crate::canonical::Canonical;
use crate::fields::Fields;
use crate::once::{Header, OnceKey};
use crate::{CryptoError, KeyRing, random};
use claviger_domain::Revision;
use claviger_ports::{DigestDelta, HeadRow, LogCheckpoint, Sealed};

const PURPOSE: &[u8] = b"claviger/head";
const WHAT: &str = "the head";

/// The state of the store after a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The last committed revision.
    pub revision: Revision,
    /// Random, new with every commit.
    pub commit_id: [u8; 16],
    /// The sum of all rows' keyed hashes.
    pub digest: DigestDelta,
    /// The state of the audit log that the commit knew of.
    pub checkpoint: Option<LogCheckpoint>,
}

impl KeyRing {
    /// Seals a head.
    #[must_use]
    pub fn seal_head(&self, head: &Head) -> HeadRow {
        self.seal_head_with(head, random())
    }

    pub(crate) fn seal_head_with(&self, head: &Head, salt: [u8; 32]) -> HeadRow {
        let barrier = self.newest();
        let header = Header { barrier: barrier.version, salt }.bytes();
        let key = OnceKey::derive(&barrier.head, &salt);
        let sealed = key.seal(&header, aad().as_ref(), &head.encode()).expect("a head is short");
        HeadRow { revision: head.revision, commit_id: head.commit_id, sealed: Sealed(sealed) }
    }

    /// Opens a head and checks that the columns beside it say the same.
    ///
    /// # Errors
    /// [`CryptoError::Tampered`], [`CryptoError::Mismatch`], [`CryptoError::UnknownBarrier`] or [`CryptoError::Malformed`].
    pub fn open_head(&self, row: &HeadRow) -> Result<Head, CryptoError> {
        let malformed = |why| CryptoError::Malformed { what: WHAT.to_owned(), why };
        let (header, sealed) = Header::split(&row.sealed.0).map_err(malformed)?;
        let Some(barrier) = self.barrier(header.barrier) else {
            return Err(CryptoError::UnknownBarrier { what: WHAT.to_owned(), version: header.barrier });
        };
        let tampered = |_| CryptoError::Tampered { what: WHAT.to_owned(), barrier: header.barrier };
        let plain = OnceKey::derive(&barrier.head, &header.salt).open(aad().as_ref(), sealed).map_err(tampered)?;
        let head = Head::decode(&plain).map_err(malformed)?;
        let mismatch = |column| CryptoError::Mismatch { what: WHAT.to_owned(), column };
        match (head.revision == row.revision, head.commit_id == row.commit_id) {
            (true, true) => Ok(head),
            (false, _) => Err(mismatch("revision")),
            (_, false) => Err(mismatch("commit_id")),
        }
    }
}

fn aad() -> Fields {
    Fields::of(&[PURPOSE])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Malformation;
    use crate::golden::head;
    use proptest::prelude::*;

    fn ring() -> KeyRing {
        KeyRing::of_known(&[[1; 32], [2; 32]])
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_named() {
        let ring = ring();
        let row = ring.seal_head(&head());
        for bit in 0..row.sealed.0.len() * 8 {
            let mut altered = row.clone();
            altered.sealed.0[bit / 8] ^= 1 << (bit % 8);
            let is_named = match ring.open_head(&altered).unwrap_err() {
                CryptoError::Malformed { why: Malformation::Format(_), .. } => bit < 8,
                CryptoError::UnknownBarrier { .. } => (8..40).contains(&bit),
                CryptoError::Tampered { what, barrier: 2 } => bit >= 40 && what == "the head",
                _ => false,
            };
            assert!(is_named, "bit {bit}");
        }
    }

    #[test]
    fn columns_that_contradict_the_seal_are_named() {
        let ring = ring();
        let row = ring.seal_head(&head());
        let moved = HeadRow { revision: row.revision.next(), ..row.clone() };
        assert_eq!(ring.open_head(&moved), Err(CryptoError::Mismatch { what: "the head".into(), column: "revision" }));
        let renamed = HeadRow { commit_id: [0; 16], ..row };
        assert_eq!(ring.open_head(&renamed), Err(CryptoError::Mismatch { what: "the head".into(), column: "commit_id" }));
    }

    #[test]
    fn a_head_sealed_twice_shows_nothing_in_common() {
        let (a, b) = (ring().seal_head(&head()), ring().seal_head(&head()));
        assert_ne!(a.sealed.0[37..], b.sealed.0[37..]);
    }

    #[test]
    fn a_head_outlives_a_rotation_and_names_a_barrier_key_that_is_missing() {
        let old = KeyRing::of_known(&[[1; 32]]);
        assert_eq!(ring().open_head(&old.seal_head(&head())), Ok(head()));
        let missing = CryptoError::UnknownBarrier { what: "the head".into(), version: 2 };
        assert_eq!(old.open_head(&ring().seal_head(&head())), Err(missing));
    }

    proptest! {
        #[test]
        fn any_head_round_trips(epoch: u64, number: u64, commit_id: [u8; 16], sums: ([u8; 32], [u8; 32]), log: Option<(u64, [u8; 32])>) {
            let checkpoint = log.map(|(size, root)| LogCheckpoint { size, root });
            let mut digest = DigestDelta::default();
            digest.0[..32].copy_from_slice(&sums.0);
            digest.0[32..].copy_from_slice(&sums.1);
            let head = Head { revision: Revision { epoch, number }, commit_id, digest, checkpoint };
            prop_assert_eq!(ring().open_head(&ring().seal_head(&head)), Ok(head));
        }
    }
}
