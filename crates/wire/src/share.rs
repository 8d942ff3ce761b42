//! One-time share links: what both ends of one must agree on.
//!
//! A share is a key below [`PREFIX`] whose value is a ciphertext, with the label [`VIEWS`] and an end of life. The link has its id and a
//! random key behind the `#`, which no browser and no client sends. Of that key two things are derived: what opens the ciphertext, and a
//! token. The value begins with the token's hash; only who shows the token is given the ciphertext, and that is one view.
//!
//! # Guarantees
//! - The server never holds what opens a share. Who reads its database, or has every right on the key, has a ciphertext.
//! - Knowing a share's id, as from a list or a log, is not enough to use a view up.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{constant_time, digest, hkdf};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_domain::SecretBytes;
use zeroize::Zeroizing;

/// What the ids of shares begin with.
pub const PREFIX: &str = "shares/";
/// The label that has the number of views left.
pub const VIEWS: &str = "claviger-share-views";
/// Views that a share may have.
pub const MOST_VIEWS: u32 = 100;
/// Bytes that a share may have.
pub const MOST_BYTES: usize = 64 << 10;
/// Where the page is that opens shares.
pub const PAGE: &str = "/api/v1/share";
/// Bytes of a token, its hash, and a link's key.
const KEY: usize = 32;

/// A link's key.
pub struct ShareKey(Zeroizing<[u8; KEY]>);

impl ShareKey {
    /// A key of random bytes.
    #[must_use]
    pub fn new(random: [u8; KEY]) -> Self {
        Self(Zeroizing::new(random))
    }

    /// A key as a link has it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
        Some(Self(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }

    /// The key as a link has it.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(*self.0))
    }

    /// What is shown to be given the ciphertext.
    #[must_use]
    pub fn token(&self) -> Zeroizing<[u8; KEY]> {
        self.derive(b"claviger share token")
    }

    /// The value of the key that is the share.
    #[must_use]
    pub fn seal(&self, id: &str, plain: &SecretBytes) -> Option<SecretBytes> {
        let mut sealed = Zeroizing::new(plain.expose().to_vec());
        self.cipher()?.seal_in_place_append_tag(nonce(), aad(id), &mut *sealed).ok()?;
        let mut value = hash(&*self.token()).to_vec();
        value.extend_from_slice(&sealed);
        Some(SecretBytes::new(value))
    }

    /// What was shared; nothing where the ciphertext is another share's or was changed.
    #[must_use]
    pub fn open(&self, id: &str, sealed: &[u8]) -> Option<SecretBytes> {
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let length = self.cipher()?.open_in_place(nonce(), aad(id), &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(SecretBytes::new(std::mem::take(&mut *bytes)))
    }

    fn cipher(&self) -> Option<LessSafeKey> {
        let key = self.derive(b"claviger share key");
        UnboundKey::new(&AES_256_GCM, &*key).ok().map(LessSafeKey::new)
    }

    /// HKDF-SHA-256 (RFC 5869) without a salt.
    fn derive(&self, info: &[u8]) -> Zeroizing<[u8; KEY]> {
        let mut out = Zeroizing::new([0; KEY]);
        let random = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&*self.0);
        random.expand(&[info], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut *out)).expect("32 bytes are one hash's length");
        out
    }
}

/// Always the same: each key seals one message.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn aad(id: &str) -> Aad<Vec<u8>> {
    Aad::from([b"claviger share ", id.as_bytes()].concat())
}

fn hash(token: &[u8]) -> [u8; KEY] {
    let mut out = [0; KEY];
    out.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
    out
}

/// The ciphertext of a share's value, for who shows its token.
#[must_use]
pub fn redeem<'v>(value: &'v [u8], token: &[u8]) -> Option<&'v [u8]> {
    let (expected, sealed) = value.split_first_chunk::<KEY>()?;
    constant_time::verify_slices_are_equal(expected, &hash(token)).ok()?;
    Some(sealed)
}

/// The id and key of a link's fragment, `ID.KEY`.
#[must_use]
pub fn parse_fragment(fragment: &str) -> Option<(String, ShareKey)> {
    let (id, key) = fragment.split_once('.')?;
    let is_id = id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    Some((id.to_owned(), ShareKey::parse(key)?)).filter(|_| is_id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_shared_is_opened_with_the_link_and_nothing_else() {
        let (key, other) = (ShareKey::new([1; 32]), ShareKey::new([2; 32]));
        let value = key.seal("a", &SecretBytes::new(b"hunter2".to_vec())).unwrap();
        assert!(redeem(value.expose(), &*other.token()).is_none() && redeem(&value.expose()[..20], &*key.token()).is_none());
        let sealed = redeem(value.expose(), &*key.token()).unwrap();
        assert_eq!(key.open("a", sealed).unwrap().expose(), b"hunter2");
        assert!(key.open("b", sealed).is_none() && other.open("a", sealed).is_none() && key.open("a", &sealed[1..]).is_none());
        assert!(!value.expose().windows(7).any(|w| w == b"hunter2") && !value.expose().windows(32).any(|w| w == key.token().as_slice()));
    }

    #[test]
    fn links_are_read_strictly() {
        let id = "0123456789abcdef0123456789abcdef";
        let key = ShareKey::new([7; 32]);
        let (found, again) = parse_fragment(&format!("{id}.{}", *key.text())).unwrap();
        assert_eq!((found.as_str(), again.text()), (id, key.text()));
        for bad in ["", ".", id, &format!("{id}.short"), &format!("x.{}", *key.text()), &format!("{id}.{}=", *key.text())] {
            assert!(parse_fragment(bad).is_none(), "{bad}");
        }
    }
}
