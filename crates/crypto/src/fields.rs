//! Injective inputs for ciphers and MACs: each field is preceded by its length, so two different lists of fields never give
//! the same bytes ▲. The first field is always a purpose.

use aws_lc_rs::hmac;

/// Purpose, kind, incarnation, version id and a key id of 512 bytes, each with its length, take 573 bytes.
const ROOM: usize = 640;

/// Fields laid out on the stack, since associated data is made twice per read.
pub(crate) struct Fields {
    bytes: [u8; ROOM],
    len: usize,
}

impl Fields {
    /// Lays out short fields. They are made by this crate and bounded by `KeyId`'s 512 bytes.
    pub(crate) fn of(fields: &[&[u8]]) -> Self {
        let mut all = Self { bytes: [0; ROOM], len: 0 };
        for field in fields {
            all.push(&length(field));
            all.push(field);
        }
        all
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }
}

impl AsRef<[u8]> for Fields {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The same layout for fields of any length.
pub(crate) fn long(fields: &[&[u8]]) -> Vec<u8> {
    let mut all = Vec::with_capacity(fields.iter().map(|f| 4 + f.len()).sum());
    for field in fields {
        all.extend_from_slice(&length(field));
        all.extend_from_slice(field);
    }
    all
}

/// HMAC-SHA-256 over the same layout.
pub(crate) fn mac(key: &hmac::Key, fields: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for field in fields {
        context.update(&length(field));
        context.update(field);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

fn length(field: &[u8]) -> [u8; 4] {
    // Nothing here nears 4 GiB: metadata is bounded by the server's request size. Saturation would break injectivity only beyond.
    u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slices(fields: &[Vec<u8>]) -> Vec<&[u8]> {
        fields.iter().map(Vec::as_slice).collect()
    }

    fn some() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(0u8..3, 0..5), 0..5)
    }

    proptest! {
        #[test]
        fn two_lists_of_fields_give_the_same_bytes_only_when_they_are_the_same(a in some(), b in some()) {
            let (x, y) = (slices(&a), slices(&b));
            let (one, other) = (Fields::of(&x), Fields::of(&y));
            prop_assert_eq!(one.as_ref() == other.as_ref(), a == b);
            prop_assert_eq!(long(&x), one.as_ref());
        }

        #[test]
        fn the_streamed_mac_is_the_mac_of_the_layout(a in some()) {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
            let whole = hmac::sign(&key, &long(&slices(&a)));
            prop_assert_eq!(&mac(&key, &slices(&a))[..], whole.as_ref());
        }
    }
}
