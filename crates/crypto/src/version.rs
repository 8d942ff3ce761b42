//! Versions: data under a data key of its own, and that data key under a barrier key.
//!
//! `wrapped_key` is `[format 1][barrier version u32][salt 32][ciphertext 32][tag 16]`, `data` is `[ciphertext][tag 16]`.

use crate::fields::Fields;
use crate::once::{Header, OnceKey, random_key};
use crate::{CryptoError, KeyRing, random};
use claviger_domain::{KeyKind, KeyRef, Permit, SecretBytes, VersionId, cap};
use claviger_ports::{Sealed, VersionRow};
use zeroize::Zeroizing;

/// A version's place: what both of its ciphertexts are bound to.
pub(crate) struct Place<'a> {
    pub(crate) key: &'a KeyRef,
    pub(crate) kind: KeyKind,
    pub(crate) version: VersionId,
}

impl Place<'_> {
    fn aad(&self, purpose: &[u8]) -> Fields {
        let Self { key, kind, version } = self;
        let id = key.id.as_str().as_bytes();
        Fields::of(&[purpose, &[kind.code()], &key.incarnation.0.to_be_bytes(), &version.get().to_be_bytes(), id])
    }

    fn data_key_aad(&self) -> Fields {
        self.aad(b"claviger/data-key")
    }

    fn data_aad(&self) -> Fields {
        self.aad(b"claviger/data")
    }

    fn describe(&self) -> String {
        format!("version {} of key `{}`", self.version, self.key.id)
    }
}

impl KeyRing {
    /// Seals a new version's data under a fresh data key.
    ///
    /// # Errors
    /// [`CryptoError::TooLong`] beyond 64 GiB.
    pub fn seal_version(&self, key: &KeyRef, kind: KeyKind, version: VersionId, data: &SecretBytes) -> Result<VersionRow, CryptoError> {
        let data_key = random_key();
        self.seal_version_with(&Place { key, kind, version }, data, &data_key, random())
    }

    fn seal_version_with(
        &self,
        place: &Place<'_>,
        data: &SecretBytes,
        data_key: &[u8; 32],
        salt: [u8; 32],
    ) -> Result<VersionRow, CryptoError> {
        let too_long = |_| CryptoError::TooLong { what: place.describe() };
        let barrier = self.newest();
        let header = Header { barrier: barrier.version, salt }.bytes();
        let wrapping_key = OnceKey::derive(&barrier.wrap, &salt);
        let wrapped_key = wrapping_key.seal(&header, place.data_key_aad().as_ref(), data_key).map_err(too_long)?;
        let data = OnceKey::new(data_key).seal(&[], place.data_aad().as_ref(), data.expose()).map_err(too_long)?;
        let key = place.key.clone();
        Ok(VersionRow { key, version: place.version, wrapped_key: Sealed(wrapped_key), data: Sealed(data) })
    }

    /// Opens a version of the permit's key.
    ///
    /// The permit names the key that the cipher is told: with a permit for another key, or another incarnation of it, or
    /// with another kind or version id than it was sealed for, nothing opens ▲.
    ///
    /// # Errors
    /// [`CryptoError::Tampered`], [`CryptoError::UnknownBarrier`] or [`CryptoError::Malformed`].
    pub fn open_version(
        &self,
        permit: &Permit<cap::Read>,
        kind: KeyKind,
        version: VersionId,
        wrapped_key: &Sealed,
        data: &Sealed,
    ) -> Result<SecretBytes, CryptoError> {
        self.open_at(&Place { key: permit.key(), kind, version }, wrapped_key, data)
    }

    /// Whether a version would open, without letting anyone see it: for checking a whole store.
    ///
    /// # Errors
    /// As [`KeyRing::open_version`].
    pub fn check_version(
        &self,
        key: &KeyRef,
        kind: KeyKind,
        version: VersionId,
        wrapped_key: &Sealed,
        data: &Sealed,
    ) -> Result<(), CryptoError> {
        self.open_at(&Place { key, kind, version }, wrapped_key, data).map(drop)
    }

    pub(crate) fn open_at(&self, place: &Place<'_>, wrapped_key: &Sealed, data: &Sealed) -> Result<SecretBytes, CryptoError> {
        let malformed = |why| CryptoError::Malformed { what: place.describe(), why };
        let (header, sealed_key) = Header::split(&wrapped_key.0).map_err(malformed)?;
        let Some(barrier) = self.barrier(header.barrier) else {
            return Err(CryptoError::UnknownBarrier { what: place.describe(), version: header.barrier });
        };
        let tampered = |_| CryptoError::Tampered { what: place.describe(), barrier: barrier.version };

        let mut data_key = Zeroizing::new([0; 32]);
        let wrapping_key = OnceKey::derive(&barrier.wrap, &header.salt);
        wrapping_key.open_into(place.data_key_aad().as_ref(), sealed_key, &mut *data_key).map_err(tampered)?;
        let mut plain = OnceKey::new(&data_key).open(place.data_aad().as_ref(), &data.0).map_err(tampered)?;
        Ok(SecretBytes::new(std::mem::take(&mut *plain)))
    }

    /// A sealed version of known keys, for the golden vectors.
    #[cfg(test)]
    pub(crate) fn seal_known(&self, key: &KeyRef, version: VersionId, data: &[u8], data_key: &[u8; 32], salt: [u8; 32]) -> VersionRow {
        let place = Place { key, kind: KeyKind::Secret, version };
        self.seal_version_with(&place, &SecretBytes::new(data.to_vec()), data_key, salt).expect("short")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Malformation;
    use crate::golden::{key_meta, permit};
    use aes_gcm::Aes256Gcm;
    use aes_gcm::aead::{Aead, KeyInit, Payload};
    use claviger_domain::{Incarnation, KeyId};
    use proptest::prelude::*;

    fn ring() -> KeyRing {
        KeyRing::of_known(&[[1; 32], [2; 32]])
    }

    fn key(id: &str, incarnation: u64) -> KeyRef {
        KeyRef { id: KeyId::parse(id).unwrap(), incarnation: Incarnation(incarnation) }
    }

    fn id(n: u64) -> VersionId {
        VersionId::new(n).unwrap()
    }

    fn sealed(data: &[u8]) -> VersionRow {
        ring().seal_version(&key("team/db", 7), KeyKind::Secret, id(5), &SecretBytes::new(data.to_vec())).unwrap()
    }

    fn open(ring: &KeyRing, row: &VersionRow) -> Result<SecretBytes, CryptoError> {
        ring.open_version(&permit("team/db", 7), KeyKind::Secret, id(5), &row.wrapped_key, &row.data)
    }

    #[test]
    fn a_version_opens_in_its_place_only() {
        let row = sealed(b"hunter2");
        let ring = ring();
        assert_eq!(open(&ring, &row).unwrap().expose(), b"hunter2");
        for (name, incarnation, version) in [("team/dc", 7, 5), ("team/db", 8, 5), ("team/db", 7, 6), ("team", 7, 5)] {
            let permit = permit(name, incarnation);
            let why = ring.open_version(&permit, KeyKind::Secret, id(version), &row.wrapped_key, &row.data).unwrap_err();
            assert_eq!(why, CryptoError::Tampered { what: format!("version {version} of key `{name}`"), barrier: 2 });
        }
    }

    #[test]
    fn both_ciphertexts_are_bound_to_kind_key_incarnation_and_version_on_their_own() {
        // The wrapped key would shield the data from being moved; that each is bound by itself is checked here.
        let (here, there) = (key("a", 1), key("b", 1));
        let at = |key, version: u64| Place { key, kind: KeyKind::Secret, version: id(version) };
        let aad = at(&here, 1).data_aad();
        assert_eq!(aad.as_ref()[4 + 13..][..5], [0, 0, 0, 1, KeyKind::Secret.code()]);
        let sealed = OnceKey::new(&[9; 32]).seal(&[], aad.as_ref(), b"x").unwrap();
        let again = key("a", 2);
        for other in [at(&there, 1).data_aad(), at(&here, 2).data_aad(), at(&again, 1).data_aad(), at(&here, 1).data_key_aad()] {
            assert!(OnceKey::new(&[9; 32]).open(other.as_ref(), &sealed).is_err());
        }
        let mut other_kind = aad.as_ref().to_vec();
        other_kind[4 + 13 + 4] ^= 1;
        assert!(OnceKey::new(&[9; 32]).open(&other_kind, &sealed).is_err());
        assert!(OnceKey::new(&[9; 32]).open(aad.as_ref(), &sealed).is_ok());
    }

    #[test]
    fn another_implementation_opens_the_data() {
        let row = ring().seal_known(&key("team/db", 7), id(5), b"hunter2", &[3; 32], [4; 32]);
        let mut aad = Vec::new();
        for field in [&b"claviger/data"[..], &[1], &7u64.to_be_bytes(), &5u64.to_be_bytes(), b"team/db"] {
            aad.extend_from_slice(&(field.len() as u32).to_be_bytes());
            aad.extend_from_slice(field);
        }
        let oracle = Aes256Gcm::new_from_slice(&[3; 32]).unwrap();
        let plain = oracle.decrypt(&[0; 12].into(), Payload { msg: &row.data.0, aad: &aad }).unwrap();
        assert_eq!(plain, b"hunter2");
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_named() {
        let row = sealed(b"hunter2");
        let ring = ring();
        for bit in 0..row.wrapped_key.0.len() * 8 {
            let mut altered = row.clone();
            altered.wrapped_key.0[bit / 8] ^= 1 << (bit % 8);
            let named = match open(&ring, &altered).unwrap_err() {
                CryptoError::Malformed { why: Malformation::Format(_), .. } => bit < 8,
                CryptoError::UnknownBarrier { what, .. } => (8..40).contains(&bit) && what == "version 5 of key `team/db`",
                CryptoError::Tampered { what, barrier: 2 } => bit >= 40 && what == "version 5 of key `team/db`",
                _ => false,
            };
            assert!(named, "bit {bit}");
        }
        for bit in 0..row.data.0.len() * 8 {
            let mut altered = row.clone();
            altered.data.0[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open(&ring, &altered), Err(CryptoError::Tampered { barrier: 2, .. })), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let row = sealed(b"hunter2");
        for len in 0..row.wrapped_key.0.len() {
            let cut = VersionRow { wrapped_key: Sealed(row.wrapped_key.0[..len].into()), ..row.clone() };
            assert!(open(&ring(), &cut).is_err(), "wrapped key cut at {len}");
        }
        for len in 0..row.data.0.len() {
            let cut = VersionRow { data: Sealed(row.data.0[..len].into()), ..row.clone() };
            assert!(open(&ring(), &cut).is_err(), "data cut at {len}");
        }
        let longer = VersionRow { wrapped_key: Sealed([&row.wrapped_key.0[..], &[0]].concat().into()), ..row };
        assert!(open(&ring(), &longer).is_err());
    }

    #[test]
    fn a_barrier_key_of_another_number_opens_nothing() {
        let row = sealed(b"hunter2");
        let mut old = row.clone();
        old.wrapped_key.0[4] = 1;
        assert!(matches!(open(&ring(), &old), Err(CryptoError::Tampered { barrier: 1, .. })));
        let one = KeyRing::of_known(&[[1; 32]]);
        let what = "version 5 of key `team/db`".to_owned();
        assert_eq!(open(&one, &row).unwrap_err(), CryptoError::UnknownBarrier { what, version: 2 });
        let before = one.seal_version(&key("team/db", 7), KeyKind::Secret, id(5), &SecretBytes::new(vec![1])).unwrap();
        assert_eq!(open(&ring(), &before).unwrap().expose(), [1]);
    }

    #[test]
    fn the_same_data_is_sealed_differently_each_time() {
        let (a, b) = (sealed(b"same"), sealed(b"same"));
        assert_ne!(a.data, b.data);
        assert_ne!(a.wrapped_key.0[5..37], b.wrapped_key.0[5..37]);
    }

    #[test]
    fn errors_do_not_show_what_is_sealed() {
        let row = sealed(b"hunter2");
        assert!(!format!("{row:?} {:?} {:?}", open(&ring(), &row), key_meta("a", 1)).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn any_data_round_trips(data in prop::collection::vec(any::<u8>(), 0..5000)) {
            let row = sealed(&data);
            prop_assert_eq!(row.data.0.len(), data.len() + 16);
            prop_assert_eq!(row.wrapped_key.0.len(), 85);
            let opened = open(&ring(), &row).unwrap();
            prop_assert_eq!(opened.expose(), &data[..]);
        }

        #[test]
        fn bytes_moved_between_two_versions_open_nothing(a in prop::collection::vec(any::<u8>(), 0..50), b in prop::collection::vec(any::<u8>(), 0..50)) {
            let (a, b) = (sealed(&a), sealed(&b));
            let mixed = VersionRow { data: b.data, ..a };
            prop_assert!(open(&ring(), &mixed).is_err());
        }
    }
}
