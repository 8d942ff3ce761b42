//! Entry points for fuzzers; they also run as property tests.

use super::{Aead, DeterministicAead, HybridDecrypt, HybridEncrypt, Keyset, Mac, Signer, StreamingAead, Verifier};

/// Any bytes as a keyset: what reads has one form, is written as it was read up to the order of fields, and every primitive
/// either takes it or names what is wrong.
pub(crate) fn keyset(bytes: &[u8]) {
    let Ok(keyset) = Keyset::parse(bytes) else { return };
    let written = keyset.encode();
    let again = Keyset::parse(written.expose()).expect("what is written is read");
    assert_eq!(again.encode().expose(), written.expose(), "a keyset has one form");
    assert_eq!(again.primary_id(), keyset.primary_id());
    use_all(&keyset);
    if let Ok(public) = keyset.public() {
        let written = public.encode();
        Keyset::parse(written.expose()).expect("a public keyset is a keyset");
        use_all(&public);
    }
}

/// Opens with every primitive that takes the keyset, and checks what is made anew.
fn use_all(keyset: &Keyset) {
    let noise = [1; 200];
    if let Ok(aead) = Aead::new(keyset) {
        assert!(aead.decrypt(&noise, b"").is_err());
        let made = aead.encrypt(b"plain", b"data").expect("it is short");
        assert_eq!(aead.decrypt(&made, b"data").expect("it was just made").plain.expose(), b"plain");
    }
    if let Ok(daead) = DeterministicAead::new(keyset) {
        let made = daead.encrypt(b"plain", b"data").expect("it is short");
        assert_eq!(daead.decrypt(&made, b"data").expect("it was just made").plain.expose(), b"plain");
    }
    if let Ok(mac) = Mac::new(keyset) {
        assert!(mac.verify(&mac.compute(b"message"), b"message").is_ok());
    }
    if let (Ok(signer), Ok(verifier)) = (Signer::new(keyset), Verifier::new(keyset)) {
        let made = signer.sign(b"message").expect("the key was accepted");
        assert!(verifier.verify(&made, b"message").is_ok());
    }
    if let (Ok(encrypt), Ok(decrypt)) = (HybridEncrypt::new(keyset), HybridDecrypt::new(keyset)) {
        let made = encrypt.encrypt(b"plain", b"context").expect("the key was accepted");
        assert_eq!(decrypt.decrypt(&made, b"context").expect("it was just made").plain.expose(), b"plain");
    }
    if let Ok(saead) = StreamingAead::new(keyset) {
        assert!(saead.decrypt(&noise, b"").is_err());
        let made = saead.encrypt(&noise, b"data").expect("it is short");
        assert_eq!(saead.decrypt(&made, b"data").expect("it was just made").plain.expose(), noise);
    }
}
