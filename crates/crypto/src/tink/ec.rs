//! Points and numbers of P-256 as Tink's messages have them.

use zeroize::Zeroizing;

/// Length of a coordinate and of a private key.
pub(super) const COORDINATE: usize = 32;
/// Length of an uncompressed point: `04`, x, y.
pub(super) const POINT: usize = 1 + 2 * COORDINATE;
/// EllipticCurveType NIST_P256 of common.proto.
pub(super) const NIST_P256: u32 = 2;
/// HashType SHA256 of common.proto.
pub(super) const SHA256: u32 = 3;

/// A big-endian number in exactly 32 bytes: writers differ in leading zeros.
pub(super) fn fixed(number: &[u8]) -> Option<Zeroizing<[u8; COORDINATE]>> {
    let start = number.len().saturating_sub(COORDINATE);
    let (zeros, number) = number.split_at(start);
    let mut fixed = Zeroizing::new([0; COORDINATE]);
    fixed[COORDINATE - number.len()..].copy_from_slice(number);
    zeros.iter().all(|byte| *byte == 0).then_some(fixed)
}

/// The uncompressed form (SEC 1 §2.3.3).
pub(super) fn point(x: &[u8], y: &[u8]) -> Option<[u8; POINT]> {
    let mut point = [4; POINT];
    point[1..][..COORDINATE].copy_from_slice(&*fixed(x)?);
    point[1 + COORDINATE..].copy_from_slice(&*fixed(y)?);
    Some(point)
}

/// The coordinates of an uncompressed point.
pub(super) fn coordinates(point: &[u8]) -> Option<(&[u8], &[u8])> {
    match point {
        [4, rest @ ..] if rest.len() == 2 * COORDINATE => Some(rest.split_at(COORDINATE)),
        _ => None,
    }
}
