//! The version hash (§3): what a poll compares to learn that a key has changed.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

use super::types::VersionStatus;

/// Lower-case hexadecimal SHA-256 over a key's version ids and states. Not a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VersionHash([u8; 64]);

impl VersionHash {
    /// Hashes *all* versions of a key, given in any order.
    ///
    /// Ids of primary and active versions go in by (status, id), each as eight bytes little-endian; every inactive
    /// version then adds eight zero bytes, because the reference sizes its buffer for all versions and never trims it.
    #[must_use]
    pub fn of(versions: impl IntoIterator<Item = (u64, VersionStatus)>) -> Self {
        let mut versions: Vec<_> = versions.into_iter().map(|(id, status)| (status, id)).collect();
        versions.sort_unstable();
        let mut buffer = Vec::with_capacity(versions.len() * 8);
        for (status, id) in versions {
            let id = if status == VersionStatus::Inactive { 0 } else { id };
            buffer.extend_from_slice(&id.to_le_bytes());
        }
        Self::from_digest(digest(&SHA256, &buffer).as_ref())
    }

    fn from_digest(digest: &[u8]) -> Self {
        let mut hex = [b'0'; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(digest) {
            pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            pair[1] = b"0123456789abcdef"[usize::from(byte & 0xf)];
        }
        Self(hex)
    }

    /// The 64 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }

    /// The same, as bytes; a poll's value is compared with this.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for VersionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VersionHash({})", self.as_str())
    }
}

impl fmt::Display for VersionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::VersionStatus::{Active, Inactive, Primary};
    use super::*;

    #[test]
    fn the_golden_vectors_hold() {
        assert_eq!(VersionHash::of([(1, Primary)]).as_str(), "7c9fa136d4413fa6173637e883b6998d32e1d675f88cddff9dcbcf331820f4b8");
        assert_eq!(
            VersionHash::of([(1, Primary), (2, Active), (3, Inactive)]).as_str(),
            "e92b80d2ee5ab0f63d286728dc9849450b7cf439c2c2718d3bac632a510fd50c"
        );
        assert_eq!(
            VersionHash::of([(9_000_000_000_000_000_001, Primary), (5, Active), (4, Inactive), (3, Active)]).as_str(),
            "fd4fc49bd03e9875a4ab9902f2ec754c48cb0cd24be3fc8d2f5403d094bc63b4"
        );
    }

    #[test]
    fn the_order_given_does_not_matter_but_the_number_of_inactive_versions_does() {
        let one = VersionHash::of([(1, Primary), (2, Active), (3, Inactive)]);
        assert_eq!(one, VersionHash::of([(9, Inactive), (2, Active), (1, Primary)]));
        assert_ne!(one, VersionHash::of([(1, Primary), (2, Active)]));
    }
}
