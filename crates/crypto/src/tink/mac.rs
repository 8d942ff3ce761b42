//! HMAC: `[prefix][tag]`.

use super::proto::{self, Writer};
use super::set::Set;
use super::template::random_bytes;
use super::{Key, Keyset, TinkError};
use aws_lc_rs::{constant_time, hmac};
use zeroize::Zeroizing;

pub(super) const TYPE_URL: &str = "type.googleapis.com/google.crypto.tink.HmacKey";

/// HashType of common.proto.
const SHA256: u32 = 3;
const SHA512: u32 = 4;
/// Tink takes no shorter ones.
const SHORTEST_KEY: usize = 16;
const SHORTEST_TAG: usize = 10;

/// Message authentication codes.
pub struct Mac(Set<Hmac>);

struct Hmac {
    key: hmac::Key,
    tag: usize,
}

impl Mac {
    /// Of a keyset of HMAC keys with SHA-256 or SHA-512.
    ///
    /// # Errors
    /// [`TinkError::Unsupported`] or [`TinkError::BadKey`], which name the key; [`TinkError::PrimaryNotEnabled`].
    pub fn new(keyset: &Keyset) -> Result<Self, TinkError> {
        Set::new(keyset, parse).map(Self)
    }

    /// The code of `message` by the primary key.
    #[must_use]
    pub fn compute(&self, message: &[u8]) -> Vec<u8> {
        let primary = self.0.primary();
        let tag = hmac::sign(&primary.primitive.key, &primary.message(message));
        primary.prefixed(&tag.as_ref()[..primary.primitive.tag])
    }

    /// The id of the key by which `code` is that of `message`.
    ///
    /// # Errors
    /// [`TinkError::NotAuthentic`].
    pub fn verify(&self, code: &[u8], message: &[u8]) -> Result<u32, TinkError> {
        let fits = |hmac: &Hmac, tag: &[u8], message: &[u8]| {
            let expected = hmac::sign(&hmac.key, message);
            constant_time::verify_slices_are_equal(&expected.as_ref()[..hmac.tag], tag).ok()
        };
        self.0.find(code, |entry, tag| fits(&entry.primitive, tag, &entry.message(message))).map(|(id, ())| id)
    }
}

/// Reads HmacKey { version = 1, params = 2 { hash = 1, tag_size = 2 }, key_value = 3 }.
fn parse(key: &Key) -> Result<Hmac, TinkError> {
    if key.type_url != TYPE_URL {
        return Err(key.wrong_type("message authentication codes"));
    }
    let (params, bytes) = key.two_fields()?;
    let (mut hash, mut tag) = (0, 0);
    proto::read(params, None, |field, value| match field {
        1 => value.number().map(|it| hash = it),
        2 => value.number().map(|it| tag = it),
        _ => Err(proto::UNKNOWN),
    })?;
    let (algorithm, longest) = match hash {
        SHA256 => (hmac::HMAC_SHA256, 32),
        SHA512 => (hmac::HMAC_SHA512, 64),
        _ => return Err(key.unsupported("HMAC with a hash other than SHA-256 and SHA-512")),
    };
    let tag = tag as usize;
    if bytes.len() < SHORTEST_KEY || !(SHORTEST_TAG..=longest).contains(&tag) {
        return Err(key.bad("an HMAC key has at least 16 bytes, and a tag 10 to its hash's length"));
    }
    Ok(Hmac { key: hmac::Key::new(algorithm, bytes), tag })
}

pub(super) fn new_key() -> Zeroizing<Vec<u8>> {
    let params = Writer::with_capacity(8).number(1, SHA512).number(2, 32).done();
    Writer::with_capacity(128).message(2, &params).bytes(3, &random_bytes(64)).done()
}
