//! Keysets and primitives as their users see them. Google's own library is asked in `tests/tink.rs`.
#![allow(clippy::unwrap_used)]

use super::keyset::{Key, Keyset, OutputPrefix, Status};
use super::*;
use claviger_domain::SecretBytes;
use proptest::prelude::*;

/// A keyset of `template` in which the versions' states are as said: the first is the primary.
fn keyset(template: Template, versions: usize) -> Keyset {
    let parts: Vec<Keyset> = (0..versions).map(|_| template.generate(&[]).unwrap()).collect();
    Keyset::merge(parts.into_iter().enumerate().map(|(n, part)| (n == 0, part))).unwrap()
}

fn copy(keyset: &Keyset) -> Keyset {
    Keyset::parse(keyset.encode().expose()).unwrap()
}

/// The same keyset with another primary key.
fn promoted(keyset: &Keyset, nth: usize) -> Keyset {
    let copy = copy(keyset);
    let id = copy.keys()[nth].id();
    let Ok(again) = Keyset::new(id, into_keys(copy)) else { panic!("its id is there once") };
    again
}

fn into_keys(keyset: Keyset) -> Vec<Key> {
    let copy = |key: &Key| Key {
        type_url: key.type_url.clone(),
        value: SecretBytes::new(key.value.expose().to_vec()),
        material: key.material,
        status: key.status,
        id: key.id,
        prefix: key.prefix,
    };
    keyset.keys().iter().map(copy).collect()
}

fn changed(keyset: &Keyset, change: impl Fn(&mut Key)) -> Keyset {
    let mut keys = into_keys(copy(keyset));
    keys.iter_mut().for_each(change);
    Keyset::new(keyset.primary_id(), keys).unwrap()
}

#[test]
fn every_template_has_its_name_its_ids_and_its_family() {
    for template in Template::ALL {
        assert_eq!(Template::by_name(template.name()), Some(template));
        let keyset = template.generate(&[]).unwrap();
        assert_eq!(keyset.family(), Some(template.family()));
        assert_eq!(keyset.keys().len(), 1);
        assert_eq!(keyset.primary_id(), keyset.keys()[0].id());
        assert_ne!(keyset.primary_id(), 0);
        assert_eq!(family_of_id(&format!("{}x", template.family().id_prefix())), Some(template.family()));
        assert_eq!(copy(&keyset).encode().expose(), keyset.encode().expose());
    }
    assert!(Template::ALL.is_sorted_by_key(|template| template.name()));
    assert_eq!(Template::by_name("tink_aead_aes128_gcm"), None);
    assert_eq!(family_of_id("tink:prf:x"), None);
    assert_eq!(family_of_id("x:tink:aead:"), None);
}

#[test]
fn a_new_key_takes_no_id_that_is_taken() {
    // All ids but a few cannot be given; that an id is drawn again is seen by a set that grows.
    let mut taken = Vec::new();
    for _ in 0..200 {
        let id = Template::AeadAes128Gcm.generate(&taken).unwrap().primary_id();
        assert!(!taken.contains(&id));
        taken.push(id);
    }
}

#[test]
fn a_merged_keyset_has_the_first_key_of_each_version_in_order() {
    let parts: Vec<Keyset> = (0..3).map(|_| Template::MacHmacSha512.generate(&[]).unwrap()).collect();
    let ids: Vec<u32> = parts.iter().map(Keyset::primary_id).collect();
    let merged = Keyset::merge(parts.into_iter().zip([false, true, false]).map(|(part, primary)| (primary, part))).unwrap();
    assert_eq!(merged.keys().iter().map(Key::id).collect::<Vec<_>>(), ids);
    assert_eq!(merged.primary_id(), ids[1]);
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let part = || Template::MacHmacSha512.generate(&[]).unwrap();
    assert_eq!(Keyset::merge([(false, part())]).unwrap_err(), TinkError::NotOnePrimaryVersion);
    assert_eq!(Keyset::merge([(true, part()), (true, part())]).unwrap_err(), TinkError::NotOnePrimaryVersion);
    assert_eq!(Keyset::merge([]).unwrap_err(), TinkError::NotOnePrimaryVersion);
    let one = part();
    let id = one.primary_id();
    assert_eq!(Keyset::merge([(true, copy(&one)), (false, one)]).unwrap_err(), TinkError::TwoPrimaries(id));
}

#[test]
fn what_is_no_keyset_is_refused_by_name() {
    let good = Template::AeadAes256Gcm.generate(&[7]).unwrap().encode();
    for cut in 0..good.len() {
        assert!(Keyset::parse(&good.expose()[..cut]).is_err(), "cut at {cut}");
    }
    for (bytes, why) in [
        (&b""[..], "it has no key"),
        (b"hunter2", "no Tink keyset"),
        (b"\x08\x01", "it has no key"),
        (b"\x12\x00", "a key without data"),
        (b"\x12\x02\x0a\x00", "does not say its kind"),
        (b"\x12\x05\x0a\x03\x0a\x01x", "unknown status"),
        (b"\x12\x07\x0a\x03\x0a\x01x\x10\x01", "unknown output prefix"),
        (b"\x12\x09\x0a\x03\x0a\x01\xff\x10\x01\x20\x01", "not UTF-8"),
        (b"\x08\x07\x12\x0b\x0a\x03\x0a\x01x\x10\x01\x18\x05\x20\x01", "no key with the id 7"),
        (b"\x12\x09\x0a\x05\x0a\x01x\x18\x09\x10\x01", "unknown kind of key material"),
    ] {
        let refused = Keyset::parse(bytes).unwrap_err().to_string();
        assert!(refused.contains(why), "{bytes:x?}: {refused}");
    }
}

#[test]
fn nothing_shows_a_key() {
    let keyset = Template::AeadAes256Gcm.generate(&[]).unwrap();
    let key = &keyset.keys()[0].value.expose()[2..];
    let shown = format!("{keyset:?} {:?}", Mac::new(&keyset).err());
    assert!(!shown.contains(&format!("{:?}", &key[..8])) && shown.contains("SecretBytes("), "{shown}");
}

/// What is done with a keyset to some bytes and their associated data.
type Operation<T> = fn(&Keyset, &[u8], &[u8]) -> Result<T, TinkError>;

/// Encrypts with each key of a keyset in turn; all of them, and no other keyset, decrypt.
fn encryption(template: Template, encrypt: Operation<Vec<u8>>, decrypt: Operation<Opened>) {
    let keyset = keyset(template, 3);
    for (nth, plain) in [&b""[..], b"hunter2", &[7; 5000]].into_iter().enumerate() {
        let made = encrypt(&promoted(&keyset, nth), plain, b"about").unwrap();
        let opened = decrypt(&keyset, &made, b"about").unwrap();
        assert_eq!(opened.plain.expose(), plain);
        assert_eq!(opened.key_id, keyset.keys()[nth].id());
        if template.family() != Family::StreamingAead {
            assert_eq!(key_id_of(&made), Some(opened.key_id));
        }
        assert_eq!(decrypt(&keyset, &made, b"other").unwrap_err(), TinkError::NotAuthentic);
        assert_eq!(decrypt(&self::keyset(template, 2), &made, b"about").unwrap_err(), TinkError::NotAuthentic);
        for at in [0, 1, 4, 5, 20, made.len() / 2, made.len() - 1] {
            let mut altered = made.clone();
            altered[at] ^= 1;
            assert_eq!(decrypt(&keyset, &altered, b"about").unwrap_err(), TinkError::NotAuthentic, "byte {at}");
        }
        for cut in (0..made.len()).step_by(made.len() / 60 + 1) {
            assert_eq!(decrypt(&keyset, &made[..cut], b"about").unwrap_err(), TinkError::NotAuthentic, "cut at {cut}");
        }
    }
    let disabled = changed(&keyset, |key| {
        if key.id != keyset.primary_id() {
            key.status = Status::Disabled;
        }
    });
    let made = encrypt(&promoted(&keyset, 1), b"x", b"").unwrap();
    assert_eq!(decrypt(&disabled, &made, b"").unwrap_err(), TinkError::NotAuthentic);
    let unusable = changed(&keyset, |key| key.status = Status::Destroyed);
    assert_eq!(encrypt(&unusable, b"x", b"").unwrap_err(), TinkError::PrimaryNotEnabled(keyset.primary_id()));
}

#[test]
fn aead_keysets_encrypt_with_the_primary_and_decrypt_with_all() {
    for template in [Template::AeadAes128Gcm, Template::AeadAes256Gcm] {
        encryption(template, |k, p, a| Aead::new(k)?.encrypt(p, a), |k, c, a| Aead::new(k)?.decrypt(c, a));
    }
}

#[test]
fn deterministic_keysets_encrypt_with_the_primary_and_decrypt_with_all() {
    let encrypt = |k: &Keyset, p: &[u8], a: &[u8]| DeterministicAead::new(k)?.encrypt(p, a);
    encryption(Template::DaeadAes256Siv, encrypt, |k, c, a| DeterministicAead::new(k)?.decrypt(c, a));
    let keyset = keyset(Template::DaeadAes256Siv, 1);
    assert_eq!(encrypt(&keyset, b"same", b"a").unwrap(), encrypt(&keyset, b"same", b"a").unwrap());
    assert_ne!(encrypt(&keyset, b"same", b"a").unwrap(), encrypt(&keyset, b"same", b"b").unwrap());
}

#[test]
fn hybrid_keysets_encrypt_to_the_public_key_and_decrypt_with_all() {
    let encrypt = |k: &Keyset, p: &[u8], a: &[u8]| HybridEncrypt::new(&k.public()?)?.encrypt(p, a);
    encryption(Template::HybridEciesP256, encrypt, |k, c, a| HybridDecrypt::new(k)?.decrypt(c, a));
}

#[test]
fn streaming_keysets_encrypt_with_the_primary_and_decrypt_with_all() {
    for template in [Template::SaeadAes128Gcm4Kb, Template::SaeadAes128Gcm1Mb] {
        encryption(template, |k, p, a| StreamingAead::new(k)?.encrypt(p, a), |k, c, a| StreamingAead::new(k)?.decrypt(c, a));
    }
}

#[test]
fn the_synthetic_iv_is_that_of_another_implementation() {
    // RFC 5297 has vectors for 32-byte keys and several associated data; for this size RustCrypto is the oracle.
    use aes_siv::KeyInit as _;
    for (plain, data) in
        [(&b""[..], &b""[..]), (b"x", b"about"), (&[7; 15], b""), (&[8; 16], b"a"), (&[9; 17], &[1; 100]), (&[3; 1000], b"b")]
    {
        let key: [u8; 64] = std::array::from_fn(|n| n as u8 ^ plain.len() as u8);
        let mut oracle = aes_siv::siv::Aes256Siv::new(&key.into());
        let wanted = oracle.encrypt([data], plain).unwrap();
        let ours = super::daead::AesSiv::new(&key).unwrap();
        assert_eq!(ours.seal(plain, data).unwrap(), wanted);
        assert_eq!(ours.open(&wanted, data).unwrap().expose(), plain);
    }
}

#[test]
fn macs_of_all_prefixes_verify_by_their_key() {
    for prefix in [OutputPrefix::Tink, OutputPrefix::Legacy, OutputPrefix::Raw, OutputPrefix::Crunchy] {
        let keyset = changed(&keyset(Template::MacHmacSha512, 3), |key| key.prefix = prefix);
        let mac = Mac::new(&keyset).unwrap();
        for nth in 0..3 {
            let code = Mac::new(&promoted(&keyset, nth)).unwrap().compute(b"message");
            assert_eq!(code.len(), 32 + if prefix == OutputPrefix::Raw { 0 } else { 5 });
            assert_eq!(mac.verify(&code, b"message"), Ok(keyset.keys()[nth].id()));
            assert_eq!(mac.verify(&code, b"massage"), Err(TinkError::NotAuthentic));
            assert_eq!(mac.verify(&code[..code.len() - 1], b"message"), Err(TinkError::NotAuthentic));
            assert_eq!(mac.verify(b"", b"message"), Err(TinkError::NotAuthentic));
        }
    }
}

#[test]
fn signatures_verify_by_private_and_public_keysets() {
    for template in [Template::DsigEcdsaP256, Template::DsigEd25519] {
        for prefix in [OutputPrefix::Tink, OutputPrefix::Legacy, OutputPrefix::Raw, OutputPrefix::Crunchy] {
            let keyset = changed(&keyset(template, 2), |key| key.prefix = prefix);
            let public = keyset.public().unwrap();
            assert!(public.keys().iter().all(|key| key.material() == Material::AsymmetricPublic));
            for nth in 0..2 {
                let signature = Signer::new(&promoted(&keyset, nth)).unwrap().sign(b"message").unwrap();
                for keyset in [&keyset, &copy(&public)] {
                    let verifier = Verifier::new(keyset).unwrap();
                    assert_eq!(verifier.verify(&signature, b"message"), Ok(keyset.keys()[nth].id()));
                    assert_eq!(verifier.verify(&signature, b"massage"), Err(TinkError::NotAuthentic));
                    assert_eq!(verifier.verify(&signature[..signature.len() - 1], b"message"), Err(TinkError::NotAuthentic));
                }
            }
            assert!(Signer::new(&public).is_err());
        }
    }
    assert!(keyset(Template::AeadAes128Gcm, 1).public().is_err());
}

#[test]
fn a_keyset_of_one_purpose_serves_no_other() {
    for template in Template::ALL {
        let keyset = keyset(template, 1);
        let family = template.family();
        assert_eq!(Aead::new(&keyset).is_ok(), family == Family::Aead);
        assert_eq!(Mac::new(&keyset).is_ok(), family == Family::Mac);
        assert_eq!(Signer::new(&keyset).is_ok(), family == Family::Signature);
        assert_eq!(Verifier::new(&keyset).is_ok(), family == Family::Signature);
        assert_eq!(HybridEncrypt::new(&keyset).is_ok(), family == Family::Hybrid);
        assert_eq!(HybridDecrypt::new(&keyset).is_ok(), family == Family::Hybrid);
        assert_eq!(DeterministicAead::new(&keyset).is_ok(), family == Family::DeterministicAead);
        assert_eq!(StreamingAead::new(&keyset).is_ok(), family == Family::StreamingAead);
    }
    let aead = keyset(Template::AeadAes128Gcm, 1);
    let refused = Mac::new(&aead).err().unwrap().to_string();
    assert!(refused.contains("a `AesGcmKey` is no key for message authentication codes"), "{refused}");
}

#[test]
fn keys_that_do_not_fit_together_are_refused() {
    let (a, b) = (keyset(Template::DsigEcdsaP256, 1), keyset(Template::DsigEcdsaP256, 1));
    // The private number of one key with the public point of another: signatures would leak the number.
    let (at_a, at_b) = (a.keys()[0].value.expose(), b.keys()[0].value.expose());
    let mixed = [&at_a[..at_a.len() - 32], &at_b[at_b.len() - 32..]].concat();
    let mixed = changed(&a, |key| key.value = SecretBytes::new(mixed.clone()));
    assert!(matches!(Signer::new(&mixed).err(), Some(TinkError::BadKey { .. })));
    let hybrid = keyset(Template::HybridEciesP256, 1);
    let mut value = hybrid.keys()[0].value.expose().to_vec();
    *value.last_mut().unwrap() ^= 1;
    let mixed = changed(&hybrid, |key| key.value = SecretBytes::new(value.clone()));
    assert!(matches!(HybridDecrypt::new(&mixed).err(), Some(TinkError::BadKey { .. })));
    let ed25519 = keyset(Template::DsigEd25519, 1);
    let mut value = ed25519.keys()[0].value.expose().to_vec();
    value[5] ^= 1;
    let mixed = changed(&ed25519, |key| key.value = SecretBytes::new(value.clone()));
    assert!(matches!(Signer::new(&mixed).err(), Some(TinkError::BadKey { .. })));
}

#[test]
fn a_stream_may_come_in_any_pieces_and_of_keys_with_different_segments() {
    let small = Template::SaeadAes128Gcm4Kb.generate(&[]).unwrap();
    let large = Template::SaeadAes128Gcm1Mb.generate(&[]).unwrap();
    let both = Keyset::merge([(true, copy(&large)), (false, copy(&small))]).unwrap();
    let reader = StreamingAead::new(&both).unwrap();
    // Around the first segment's room for plaintext (4096 - 24 - 16), and around two segments' (4096 - 16 more).
    for length in [0_usize, 1, 4055, 4056, 4057, 8135, 8136, 8137, 20_000] {
        let plain: Vec<u8> = (0..length).map(|n| n as u8).collect();
        for (writer, id) in [(&small, small.primary_id()), (&large, large.primary_id())] {
            let made = StreamingAead::new(writer).unwrap().encrypt(&plain, b"about").unwrap();
            let segments = if id == small.primary_id() { (length + 24).div_ceil(4080).max(1) } else { 1 };
            assert_eq!(made.len(), 24 + length + 16 * segments, "{length}");
            for piece in [1, 7, 4096, 4097, 1 << 20] {
                let (mut out, mut decryptor) = (Vec::new(), reader.decryptor(b"about"));
                made.chunks(piece).for_each(|piece| decryptor.update(piece, &mut out).unwrap());
                assert_eq!(decryptor.finish(&mut out), Ok(id));
                assert_eq!(out, plain);
            }
        }
    }
}

#[test]
fn a_stream_without_its_end_or_with_segments_out_of_place_is_refused() {
    let keyset = keyset(Template::SaeadAes128Gcm4Kb, 1);
    let saead = StreamingAead::new(&keyset).unwrap();
    let made = saead.encrypt(&[7; 12_000], b"").unwrap();
    let segments: Vec<&[u8]> = made.chunks(4096).collect();
    assert_eq!(segments.len(), 3);
    for order in [&[0, 1][..], &[0], &[0, 2, 1], &[1, 0, 2], &[0, 2], &[0, 1, 1, 2], &[0, 1, 2, 2]] {
        let stream: Vec<u8> = order.iter().flat_map(|n| segments[*n]).copied().collect();
        assert_eq!(saead.decrypt(&stream, b"").unwrap_err(), TinkError::NotAuthentic, "{order:?}");
    }
    let mut decryptor = saead.decryptor(b"");
    let mut out = Vec::new();
    let mut altered = made.clone();
    altered[5000] ^= 1;
    assert_eq!(decryptor.update(&altered, &mut out), Err(TinkError::NotAuthentic));
    assert_eq!(out.len(), 4096 - 24 - 16, "the first segment was good");
    assert_eq!(decryptor.update(b"more", &mut out), Err(TinkError::NotAuthentic));
    assert_eq!(decryptor.finish(&mut out), Err(TinkError::NotAuthentic));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz::keyset(&bytes);
    }

    #[test]
    fn nearly_good_keysets_never_break_a_primitive(
        nth in 0..Template::ALL.len(), versions in 1..3_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = keyset(Template::ALL[nth], versions).encode().expose().to_vec();
        for (at, value) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        fuzz::keyset(&bytes);
    }
}
