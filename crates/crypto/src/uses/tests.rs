//! Uses through their boundary: what is bound to what, and that each refusal has its own name.

#![allow(clippy::unwrap_used)]

use super::ciphertext::{HEAD, RSA_HEAD};
use super::*;
use crate::golden::{key_meta, permit_for};
use crate::{check_imported, generate};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use claviger_domain::{Incarnation, KeyId};
use proptest::prelude::*;

fn ring() -> KeyRing {
    KeyRing::of_known(&[[1; 32]])
}

fn key(id: &str, incarnation: u64) -> KeyRef {
    KeyRef { id: KeyId::parse(id).unwrap(), incarnation: Incarnation(incarnation) }
}

fn version(n: u64) -> VersionId {
    VersionId::new(n).unwrap()
}

/// A version of known material, opened.
fn open(key: &KeyRef, kind: KeyKind, policy: &KeyPolicy, n: u64, material: &[u8]) -> UseKey {
    let ring = ring();
    let row = ring.seal_version(key, kind, version(n), &SecretBytes::new(material.to_vec())).unwrap();
    ring.open_for_use(key, kind, policy, version(n), (&row.wrapped_key, &row.data)).unwrap()
}

fn aes(id: &str, incarnation: u64, n: u64) -> UseKey {
    open(&key(id, incarnation), KeyKind::Aes256Gcm, &KeyPolicy::default(), n, &[7; 32])
}

fn convergent(id: &str, n: u64) -> UseKey {
    open(&key(id, 1), KeyKind::Aes256Gcm, &KeyPolicy { convergent: true, ..KeyPolicy::default() }, n, &[7; 32])
}

fn of_kind(kind: KeyKind, policy: &KeyPolicy) -> UseKey {
    open(&key("team/k", 1), kind, policy, 5, generate(kind, policy).unwrap().expose())
}

fn encrypt(with: &UseKey, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, UseError> {
    let KeyRef { id, incarnation } = with.key();
    with.encrypt(&permit_for(id.as_str(), incarnation.0), &SecretBytes::new(plain.to_vec()), aad)
}

fn decrypt(with: &UseKey, sealed: &[u8], aad: &[u8]) -> Result<Vec<u8>, UseError> {
    let KeyRef { id, incarnation } = with.key();
    with.decrypt(&permit_for(id.as_str(), incarnation.0), sealed, aad).map(|plain| plain.expose().to_vec())
}

#[test]
fn a_ciphertext_names_its_key_and_version_and_opens_with_them_only() {
    let made = aes("team/k", 7, 5);
    let sealed = encrypt(&made, b"hunter2", b"row 1").unwrap();
    assert_eq!(sealed.len(), HEAD + 7 + 16);
    let named = version_named(made.key(), KeyKind::Aes256Gcm, &KeyPolicy::default(), &sealed);
    assert_eq!((named, incarnation_named(&made.key().id, &sealed)), (Ok(Some(version(5))), Some(Incarnation(7))));
    assert_eq!(decrypt(&made, &sealed, b"row 1").unwrap(), b"hunter2");
    assert_eq!(decrypt(&made, &sealed, b"row 2"), Err(UseError::NotAuthentic));
    assert_eq!(decrypt(&made, &sealed, b""), Err(UseError::NotAuthentic));
    assert_eq!(decrypt(&aes("team/other", 7, 5), &sealed, b"row 1"), Err(UseError::OtherKey));
    assert_eq!(decrypt(&aes("team/k", 8, 5), &sealed, b"row 1"), Err(UseError::OtherIncarnation));
    assert_eq!(decrypt(&aes("team/k", 7, 6), &sealed, b"row 1"), Err(UseError::OtherVersion));
}

#[test]
fn what_a_ciphertext_says_of_itself_is_authenticated_too() {
    // All keys here have the same material, so only the associated data tells them apart.
    let sealed = encrypt(&aes("team/k", 7, 5), b"x", b"").unwrap();
    let other = |id: &str, incarnation, n| {
        let like = encrypt(&aes(id, incarnation, n), b"x", b"").unwrap();
        let mut forged = sealed.clone();
        forged[2..34].copy_from_slice(&like[2..34]);
        decrypt(&aes(id, incarnation, n), &forged, b"")
    };
    assert_eq!(other("team/k", 7, 5).unwrap(), b"x");
    for (id, incarnation, n) in [("team/o", 7, 5), ("team/k", 8, 5), ("team/k", 7, 6)] {
        assert_eq!(other(id, incarnation, n), Err(UseError::NotAuthentic), "{id} {incarnation} {n}");
    }
}

#[test]
fn every_cut_and_every_flipped_bit_is_refused() {
    let made = aes("team/k", 7, 5);
    let sealed = encrypt(&made, b"hunter2", b"a").unwrap();
    for len in 0..sealed.len() {
        let wanted = if len < HEAD + 16 { UseError::Truncated } else { UseError::NotAuthentic };
        assert_eq!(decrypt(&made, &sealed[..len], b"a"), Err(wanted), "{len}");
    }
    assert!(decrypt(&made, &[&sealed[..], &[0]].concat(), b"a").is_err());
    for bit in 0..sealed.len() * 8 {
        let mut altered = sealed.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let error = decrypt(&made, &altered, b"a").unwrap_err();
        match bit / 8 {
            0 => assert!(matches!(error, UseError::Format | UseError::OtherKey)),
            2..18 => assert_eq!(error, UseError::OtherKey),
            18..26 => assert_eq!(error, UseError::OtherIncarnation),
            26..34 => assert!(matches!(error, UseError::OtherVersion | UseError::NotAuthentic)),
            _ => assert_eq!(error, UseError::NotAuthentic),
        }
    }
}

#[test]
fn another_implementation_opens_a_ciphertext() {
    use ::hmac::{Hmac, Mac};
    let sealed = encrypt(&aes("team/k", 7, 5), b"hunter2", b"row 1").unwrap();
    let long = |fields: &[&[u8]]| -> Vec<u8> { fields.iter().flat_map(|f| [&(f.len() as u32).to_be_bytes()[..], f].concat()).collect() };
    let mac = |key: &[u8], input: &[u8]| -> [u8; 32] {
        let mut mac = <Hmac<sha2::Sha256> as ::hmac::KeyInit>::new_from_slice(key).unwrap();
        mac.update(input);
        mac.finalize().into_bytes().into()
    };
    // HKDF-Expand of one block, then the key of the message.
    let subkey = mac(&[7; 32], &[&long(&[b"claviger/use", b"encrypt"])[..], &[1]].concat());
    let message_key = mac(&subkey, &long(&[b"claviger/once", &sealed[34..66]]));
    let aad = long(&[b"claviger/encrypt", &[1], &7u64.to_be_bytes(), &5u64.to_be_bytes(), b"team/k", b"row 1"]);
    let oracle = Aes256Gcm::new_from_slice(&message_key).unwrap();
    let plain = oracle.decrypt(&[0; 12].into(), Payload { msg: &sealed[66..], aad: &aad }).unwrap();
    assert_eq!(plain, b"hunter2");
}

fn rsa(id: &str, incarnation: u64, n: u64) -> UseKey {
    static MATERIAL: std::sync::LazyLock<SecretBytes> = std::sync::LazyLock::new(|| generate(KeyKind::Rsa, &rsa_policy()).unwrap());
    open(&key(id, incarnation), KeyKind::Rsa, &rsa_policy(), n, MATERIAL.expose())
}

fn rsa_policy() -> KeyPolicy {
    KeyPolicy { rsa_bits: Some(2048), ..KeyPolicy::default() }
}

#[test]
fn what_an_rsa_key_encrypts_names_its_key_and_version_too() {
    let made = rsa("team/k", 7, 5);
    let sealed = encrypt(&made, b"hunter2", b"row 1").unwrap();
    assert_eq!(sealed.len(), RSA_HEAD + 256);
    assert_eq!(version_named(made.key(), KeyKind::Rsa, &rsa_policy(), &sealed), Ok(Some(version(5))));
    assert_eq!(decrypt(&made, &sealed, b"row 1").unwrap(), b"hunter2");
    assert_eq!(decrypt(&made, &sealed, b"row 2"), Err(UseError::NotForThisKey));
    assert_eq!(decrypt(&made, &sealed, b""), Err(UseError::NotForThisKey));
    // All have the same material here, so what is told comes from the name, and what is refused from the label.
    for (id, incarnation, n, why) in
        [("team/o", 7, 5, UseError::OtherKey), ("team/k", 8, 5, UseError::OtherIncarnation), ("team/k", 7, 6, UseError::OtherVersion)]
    {
        let other = rsa(id, incarnation, n);
        assert_eq!(decrypt(&other, &sealed, b"row 1"), Err(why));
        let like = encrypt(&other, b"x", b"row 1").unwrap();
        let forged = [&like[..RSA_HEAD], &sealed[RSA_HEAD..]].concat();
        assert_eq!(decrypt(&other, &forged, b"row 1"), Err(UseError::NotForThisKey), "{id} {incarnation} {n}");
    }
    assert_eq!(encrypt(&made, &[7; 190], b"").map(|sealed| sealed.len()), Ok(RSA_HEAD + 256));
    assert_eq!(encrypt(&made, &[7; 191], b""), Err(UseError::RsaTooLong(190)));
}

#[test]
fn an_rsa_key_decrypts_bare_oaep_of_others_and_no_form_passes_for_another() {
    use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
    let made = rsa("team/k", 7, 5);
    let PublicKey::Single { der, .. } = made.public_key().unwrap() else { panic!() };
    let theirs = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(&der).unwrap()).unwrap();
    let seal = |label: Option<&[u8]>| {
        let mut bare = vec![0; 256];
        theirs.encrypt(&OAEP_SHA256_MGF1SHA256, b"hunter2", &mut bare, label).unwrap();
        bare
    };
    let named = |sealed: &[u8]| version_named(made.key(), KeyKind::Rsa, &rsa_policy(), sealed);
    for label in [&b""[..], b"label"] {
        let bare = seal((!label.is_empty()).then_some(label));
        assert_eq!((named(&bare), decrypt(&made, &bare, label).unwrap()), (Ok(None), b"hunter2".to_vec()));
        assert_eq!(decrypt(&made, &bare, b"other"), Err(UseError::NotForThisKey));
    }
    // Cut out of the form that names its key, it is no bare one: the label is another.
    let sealed = encrypt(&made, b"hunter2", b"").unwrap();
    assert_eq!(decrypt(&made, &sealed[RSA_HEAD..], b""), Err(UseError::NotForThisKey));
    for len in (0..sealed.len()).filter(|len| *len != 256) {
        let wanted = UseError::RsaLength { bytes: len, named: RSA_HEAD + 256, bare: 256 };
        assert_eq!(decrypt(&made, &sealed[..len], b""), Err(wanted), "{len}");
    }
    // What another kind of key made says so.
    let foreign = |sealed: &[u8]| (named(sealed), decrypt(&made, sealed, b""));
    let of_aes = encrypt(&aes("team/o", 7, 5), b"x", b"").unwrap();
    assert_eq!(foreign(&of_aes), (Err(UseError::OtherKey), Err(UseError::OtherKey)));
    assert_eq!(decrypt(&aes("team/o", 7, 5), &sealed, b""), Err(UseError::OtherKey));
    assert_eq!(decrypt(&aes("team/k", 9, 5), &sealed, b""), Err(UseError::OtherIncarnation));
    assert_eq!(decrypt(&aes("team/k", 7, 5), b"a password", b""), Err(UseError::Format));
}

#[test]
fn only_a_key_made_convergent_converges_and_only_in_a_context() {
    let plain = aes("team/k", 1, 5);
    assert_ne!(encrypt(&plain, b"x", b"c").unwrap(), encrypt(&plain, b"x", b"c").unwrap());
    let key = convergent("team/k", 5);
    let sealed = encrypt(&key, b"x", b"c").unwrap();
    assert_eq!(sealed, encrypt(&key, b"x", b"c").unwrap());
    assert_eq!(decrypt(&key, &sealed, b"c").unwrap(), b"x");
    for (other, plain, aad) in [(&key, "y", "c"), (&key, "x", "d"), (&key, "", "xc"), (&convergent("team/k", 6), "x", "c")] {
        assert_ne!(sealed[34..66], encrypt(other, plain.as_bytes(), aad.as_bytes()).unwrap()[34..66].to_vec()[..], "{plain} {aad}");
    }
    assert_eq!(encrypt(&key, b"x", b""), Err(UseError::NoContext));
}

#[test]
fn rewrapping_gives_the_new_version_the_same_plaintext() {
    let (old, new) = (aes("team/k", 7, 5), aes("team/k", 7, 6));
    let sealed = encrypt(&old, b"hunter2", b"a").unwrap();
    let permit = permit_for("team/k", 7);
    let fresh = new.rewrap(&permit, &old, &sealed, b"a").unwrap();
    assert_eq!(decrypt(&new, &fresh, b"a").unwrap(), b"hunter2");
    assert_eq!(new.rewrap(&permit, &old, &sealed, b"b"), Err(UseError::NotAuthentic));
    assert_eq!(new.rewrap(&permit_for("team/k", 8), &old, &sealed, b"a"), Err(UseError::WrongPermit));
    assert_eq!(new.rewrap(&permit, &aes("team/o", 7, 5), &sealed, b"a"), Err(UseError::WrongPermit));
}

#[test]
fn a_permit_for_another_key_uses_nothing_even_when_the_material_is_open() {
    let made = aes("team/k", 7, 5);
    let sealed = encrypt(&made, b"x", b"").unwrap();
    for (id, incarnation) in [("team/o", 7), ("team/k", 8)] {
        assert_eq!(made.decrypt(&permit_for(id, incarnation), &sealed, b"").map(drop), Err(UseError::WrongPermit));
        let mac = of_kind(KeyKind::Hmac, &KeyPolicy::default());
        assert_eq!(mac.mac(&permit_for(id, incarnation), None, b"m"), Err(UseError::WrongPermit));
        let sign = permit_for::<cap::Sign>(id, incarnation);
        assert_eq!(mac.verify(&sign, &Scheme::default(), Message::Whole(b"m"), b""), Err(UseError::WrongPermit));
    }
}

#[test]
fn each_kind_signs_in_each_scheme_and_the_signature_is_of_that_message_key_and_scheme() {
    let rsa = KeyPolicy { rsa_bits: Some(2048), ..KeyPolicy::default() };
    let plain = KeyPolicy::default();
    let form = |form| Scheme { form: Some(form), ..Scheme::default() };
    let padded = |padding, hash| Scheme { padding: Some(padding), hash: Some(hash), form: None };
    let schemes = [
        (KeyKind::EcdsaP256, &plain, form(Form::Der)),
        (KeyKind::EcdsaP256, &plain, form(Form::Raw)),
        (KeyKind::EcdsaP384, &plain, form(Form::Der)),
        (KeyKind::EcdsaP384, &plain, form(Form::Raw)),
        (KeyKind::Ed25519, &plain, Scheme::default()),
        (KeyKind::Rsa, &rsa, padded(Padding::Pss, Hash::Sha256)),
        (KeyKind::Rsa, &rsa, padded(Padding::Pss, Hash::Sha384)),
        (KeyKind::Rsa, &rsa, padded(Padding::Pkcs1v15, Hash::Sha512)),
    ];
    let (sign, check) = (permit_for::<cap::Sign>("team/k", 1), permit_for::<cap::Verify>("team/k", 1));
    for (kind, policy, scheme) in schemes {
        let (key, other) = (of_kind(kind, policy), of_kind(kind, policy));
        let signature = key.sign(&sign, &scheme, Message::Whole(b"message")).unwrap();
        let holds = |key: &UseKey, scheme: &Scheme, message: &[u8], signature: &[u8]| {
            key.verify(&check, scheme, Message::Whole(message), signature).unwrap()
        };
        assert!(holds(&key, &scheme, b"message", &signature), "{kind:?} {scheme:?}");
        assert!(!holds(&key, &scheme, b"massage", &signature));
        assert!(!holds(&other, &scheme, b"message", &signature));
        assert!(!holds(&key, &scheme, b"message", &signature[1..]));
        assert!(!holds(&key, &scheme, b"message", b""));
        for (other_kind, _, other_scheme) in schemes {
            let differs = other_kind == kind && other_scheme != scheme;
            assert!(!differs || !holds(&key, &other_scheme, b"message", &signature), "{scheme:?} as {other_scheme:?}");
        }
        // Whoever may sign may check, and a digest is the message's.
        assert!(key.verify(&sign, &scheme, Message::Whole(b"message"), &signature).unwrap());
        let hash = match kind {
            KeyKind::Ed25519 => continue,
            KeyKind::EcdsaP384 => Hash::Sha384,
            _ => scheme.hash.unwrap_or(Hash::Sha256),
        };
        let algorithm = match hash {
            Hash::Sha256 => &aws_lc_rs::digest::SHA256,
            Hash::Sha384 => &aws_lc_rs::digest::SHA384,
            Hash::Sha512 => &aws_lc_rs::digest::SHA512,
        };
        let digest = aws_lc_rs::digest::digest(algorithm, b"message");
        assert!(key.verify(&check, &scheme, Message::Digest(digest.as_ref()), &signature).unwrap());
        let signed = key.sign(&sign, &scheme, Message::Digest(digest.as_ref())).unwrap();
        assert!(holds(&key, &scheme, b"message", &signed));
        let short = key.sign(&sign, &scheme, Message::Digest(&digest.as_ref()[1..]));
        assert_eq!(short, Err(UseError::Digest { hash: hash.name(), bytes: digest.as_ref().len() }));
    }
}

#[test]
fn a_message_authentication_code_is_checked_whole() {
    let key = of_kind(KeyKind::Hmac, &KeyPolicy::default());
    let (sign, check) = (permit_for::<cap::Sign>("team/k", 1), permit_for::<cap::Verify>("team/k", 1));
    for hash in Hash::ALL {
        let code = key.mac(&sign, Some(hash), b"message").unwrap();
        let scheme = Scheme { hash: Some(hash), ..Scheme::default() };
        let holds = |message: &[u8], code: &[u8]| key.verify(&check, &scheme, Message::Whole(message), code).unwrap();
        assert!(holds(b"message", &code) && !holds(b"massage", &code) && !holds(b"message", &code[..16]));
    }
    assert_eq!(key.mac(&sign, None, b"m"), key.mac(&sign, Some(Hash::Sha256), b"m"));
}

#[test]
fn each_kind_refuses_what_it_does_not_do() {
    let policy = |kind| match kind {
        KeyKind::Rsa => KeyPolicy { rsa_bits: Some(2048), ..KeyPolicy::default() },
        KeyKind::Tink => KeyPolicy { template: Some("TINK_DSIG_ED25519".into()), ..KeyPolicy::default() },
        _ => KeyPolicy::default(),
    };
    for kind in KeyKind::ALL.into_iter().filter(|kind| !kind.is_read()) {
        let key = of_kind(kind, &policy(kind));
        let sealed = encrypt(&key, b"x", b"");
        let signed = key.sign(&permit_for("team/k", 1), &Scheme::default(), Message::Whole(b"m"));
        let mac = key.mac(&permit_for("team/k", 1), None, b"m");
        let refused = |what: &Result<Vec<u8>, UseError>| matches!(what, Err(UseError::Kind { kind: k, .. }) if *k == kind);
        let wanted =
            [!matches!(kind, KeyKind::Aes256Gcm | KeyKind::Rsa), !(kind.is_asymmetric() || kind == KeyKind::Tink), kind != KeyKind::Hmac];
        assert_eq!([refused(&sealed), refused(&signed), refused(&mac)], wanted, "{kind:?}");
        assert_eq!(key.public_key().is_ok(), kind.is_asymmetric() || kind == KeyKind::Tink, "{kind:?}");
    }
}

#[test]
fn a_public_key_is_the_same_in_both_its_forms_and_checks_what_the_key_signs() {
    let rsa = KeyPolicy { rsa_bits: Some(2048), ..KeyPolicy::default() };
    for (kind, policy, members) in [
        (KeyKind::EcdsaP256, KeyPolicy::default(), &["crv", "x", "y"][..]),
        (KeyKind::EcdsaP384, KeyPolicy::default(), &["crv", "x", "y"]),
        (KeyKind::Ed25519, KeyPolicy::default(), &["crv", "x"]),
        (KeyKind::Rsa, rsa, &["n", "e"]),
    ] {
        let PublicKey::Single { der, jwk } = of_kind(kind, &policy).public_key().unwrap() else { panic!("{kind:?}") };
        assert_eq!(jwk.members.iter().map(|(name, _)| *name).collect::<Vec<_>>(), members);
        use base64::Engine;
        let number = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
        for (name, value) in jwk.members.iter().filter(|(name, _)| *name != "crv") {
            let number = number(value);
            assert!(der.windows(number.len()).any(|part| part == number), "{kind:?} {name}");
        }
        let pem = public::pem(&der);
        assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n") && pem.lines().all(|line| line.len() <= 64));
    }
}

#[test]
fn tink_keys_of_each_template_are_used_in_their_own_way() {
    use crate::tink::{Family, Template};
    for template in Template::ALL {
        let policy = KeyPolicy { template: Some(template.name().into()), ..KeyPolicy::default() };
        let material = generate(KeyKind::Tink, &policy).unwrap();
        assert_eq!(check_imported(KeyKind::Tink, &policy, &material), Ok(()));
        let key = open(&key("team/k", 1), KeyKind::Tink, &policy, 5, material.expose());
        let (sign, check) = (permit_for::<cap::Sign>("team/k", 1), permit_for::<cap::Verify>("team/k", 1));
        let holds = |proof: &[u8]| key.verify(&check, &Scheme::default(), Message::Whole(b"m"), proof).unwrap();
        match template.family() {
            Family::Mac | Family::Signature => {
                let is_mac = template.family() == Family::Mac;
                let made = if is_mac { key.mac(&sign, None, b"m") } else { key.sign(&sign, &Scheme::default(), Message::Whole(b"m")) };
                let made = made.unwrap();
                assert!(holds(&made) && !holds(&made[1..]) && key.could_have_made(&made), "{template:?}");
            }
            _ => {
                let sealed = encrypt(&key, b"x", b"a").unwrap();
                assert_eq!(decrypt(&key, &sealed, b"a").unwrap(), b"x", "{template:?}");
                assert_eq!(decrypt(&key, &sealed, b"b"), Err(UseError::NotAuthentic), "{template:?}");
            }
        }
        let has_public = matches!(template.family(), Family::Signature | Family::Hybrid);
        assert_eq!(key.public_key().is_ok(), has_public, "{template:?}");
    }
}

#[test]
fn only_an_exportable_key_is_exported() {
    let ring = ring();
    let row = ring.seal_version(&key("team/k", 1), KeyKind::Hmac, version(5), &SecretBytes::new(vec![9; 32])).unwrap();
    let export = |exportable| {
        let policy = KeyPolicy { exportable, ..KeyPolicy::default() };
        let permit = permit_for("team/k", 1);
        ring.export(&permit, KeyKind::Hmac, &policy, version(5), (&row.wrapped_key, &row.data)).map(|m| m.expose().to_vec())
    };
    assert_eq!((export(true), export(false)), (Ok(vec![9; 32]), Err(CryptoError::NotExportable)));
}

#[test]
fn nothing_shows_a_key() {
    let key = aes("team/k", 7, 5);
    assert_eq!(format!("{key:?}"), "UseKey(version 5 of team/k)");
    assert!(!format!("{:?}", key_meta("team/k", 7)).contains("[7, 7"));
}

proptest! {
    #[test]
    fn any_message_comes_back(plain in prop::collection::vec(any::<u8>(), 0..3000), aad in prop::collection::vec(any::<u8>(), 1..200)) {
        for key in [aes("team/k", 7, 5), convergent("team/k", 5)] {
            let sealed = encrypt(&key, &plain, &aad).unwrap();
            prop_assert_eq!(decrypt(&key, &sealed, &aad).unwrap(), plain.clone());
        }
    }

    #[test]
    fn any_bytes_are_refused_by_name(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decrypt(&aes("team/k", 7, 5), &bytes, b"").is_err());
        let mut like = vec![1];
        like.extend(bytes);
        prop_assert!(decrypt(&aes("team/k", 7, 5), &like, b"").is_err());
    }
}
