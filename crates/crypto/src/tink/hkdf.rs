//! HKDF (RFC 5869) for one key of 16 or 32 bytes.

use super::TinkError;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA-256.
pub(super) fn sha256(secret: &[u8], salt: &[u8], info: &[u8], length: usize) -> Result<Zeroizing<Vec<u8>>, TinkError> {
    let mut out = Zeroizing::new(vec![0; length]);
    Salt::new(HKDF_SHA256, salt).extract(secret).expand(&[info], Length(length))?.fill(&mut out)?;
    Ok(out)
}
