//! Entry points for fuzzers: each takes arbitrary bytes and panics when a decoder breaks its promise. They also run as
//! property tests.

use crate::canonical::Canonical;
use crate::file_root;
use crate::once::Header;
use crate::{Head, Tombstone};
use claviger_domain::{Approval, KeyMeta, PrefixGrant};
use std::path::Path;

/// A key's metadata: what decodes encodes to the same bytes.
pub fn key_meta(bytes: &[u8]) {
    is_canonical::<KeyMeta>(bytes);
}

/// A prefix grant, likewise.
pub fn prefix_grant(bytes: &[u8]) {
    is_canonical::<PrefixGrant>(bytes);
}

/// A tombstone, likewise.
pub fn tombstone(bytes: &[u8]) {
    is_canonical::<Tombstone>(bytes);
}

/// A request for approval, likewise.
pub fn approval(bytes: &[u8]) {
    is_canonical::<Approval>(bytes);
}

/// A head's plaintext, likewise.
pub fn head(bytes: &[u8]) {
    is_canonical::<Head>(bytes);
}

/// The clear part of what a barrier key has sealed: what splits joins to the same bytes.
pub fn header(bytes: &[u8]) {
    if let Ok((header, rest)) = Header::split(bytes) {
        assert_eq!([&header.bytes()[..], rest].concat(), bytes, "a header has one form");
    }
}

/// The file of the local root: what reads is the line that would be written.
pub fn root_file(bytes: &[u8]) {
    if let Ok(key) = file_root::parse(Path::new("root.key"), bytes) {
        assert_eq!(file_root::render(&key).as_bytes(), bytes, "a root key's file has one form");
    }
}

/// A Tink keyset: what reads is written in one form, and every primitive takes it or names what is wrong.
pub fn tink_keyset(bytes: &[u8]) {
    crate::tink::fuzz::keyset(bytes);
}

/// What a used key encrypts: the clear part joins to the same bytes.
pub fn ciphertext(bytes: &[u8]) {
    let id = claviger_domain::KeyId::parse("fuzz").expect("an id");
    crate::uses::fuzz_ciphertext(&claviger_domain::KeyRef { id, incarnation: claviger_domain::Incarnation(7) }, bytes);
}

/// Wrapped material that nobody wrapped.
pub fn import(bytes: &[u8]) {
    static RING: std::sync::LazyLock<crate::KeyRing> = std::sync::LazyLock::new(|| crate::KeyRing::of_fixed([7; 32]));
    crate::uses::fuzz_import(&RING, bytes);
}

/// An encrypted file that nobody encrypted.
pub fn sealed_file(bytes: &[u8]) {
    let mut from = bytes;
    if crate::sealed_file::FileHead::read(&mut from).is_ok() {
        let mut out = Vec::new();
        let key = claviger_domain::SecretBytes::new(vec![7; 32]);
        let opened = crate::sealed_file::decrypt(&key, &mut from, &mut out);
        assert!(opened.is_err() && out.is_empty(), "nobody encrypted this");
    }
}

fn is_canonical<T: Canonical>(bytes: &[u8]) {
    if let Ok(value) = T::decode(bytes) {
        assert_eq!(&*value.encode(), bytes, "only canonical bytes decode");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::approval_tests::any_approval;
    use crate::canonical::tests::{any_grant, any_meta, any_tombstone};
    use proptest::prelude::*;

    /// Good bytes with a few changes get further into a decoder than random ones.
    fn mutate(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        bytes
    }

    fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_break_a_decoder(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let with_format = [&[1], &bytes[..]].concat();
            for target in [key_meta, prefix_grant, tombstone, approval, head, header, root_file, ciphertext, import, sealed_file] {
                target(&bytes);
                target(&with_format);
            }
        }

        #[test]
        fn nearly_good_bytes_never_break_a_decoder(
            meta in any_meta(), grant in any_grant(), stone in any_tombstone(), asked in any_approval(), key: [u8; 32], changes in changes(),
        ) {
            key_meta(&mutate(meta.encode().into(), &changes));
            prefix_grant(&mutate(grant.encode().into(), &changes));
            tombstone(&mutate(stone.encode().into(), &changes));
            approval(&mutate(asked.encode().into(), &changes));
            head(&mutate(crate::golden::head().encode().into(), &changes));
            root_file(&mutate(file_root::render(&key).as_bytes().to_vec(), &changes));
        }
    }
}
