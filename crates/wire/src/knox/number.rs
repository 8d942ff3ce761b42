//! Version ids in paths: decimal `uint64` with Go's error texts (§4.8 step 2).

use super::quote::quote;

/// Why a text is not a decimal `uint64`. Displays as Go's `*strconv.NumError` does, the raw text quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseUintError {
    /// Empty, or a byte that is no digit (signs and underscores included).
    #[error("strconv.ParseUint: parsing {}: invalid syntax", quote(.0))]
    Syntax(Vec<u8>),
    /// More than 2^64 − 1. Found before a bad byte further right, as in Go.
    #[error("strconv.ParseUint: parsing {}: value out of range", quote(.0))]
    Range(Vec<u8>),
}

/// Reads a decimal `uint64`; leading zeros are allowed.
///
/// # Errors
/// [`ParseUintError`], whose text is what the client must see.
pub fn parse_uint(raw: &[u8]) -> Result<u64, ParseUintError> {
    if raw.is_empty() {
        return Err(ParseUintError::Syntax(Vec::new()));
    }
    let mut value = 0_u64;
    for byte in raw {
        if !byte.is_ascii_digit() {
            return Err(ParseUintError::Syntax(raw.to_vec()));
        }
        let digit = u64::from(byte - b'0');
        let next = value.checked_mul(10).and_then(|tens| tens.checked_add(digit));
        value = next.ok_or_else(|| ParseUintError::Range(raw.to_vec()))?;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_largest_id_passes_and_the_next_is_out_of_range() {
        assert_eq!(parse_uint(b"18446744073709551615"), Ok(u64::MAX));
        let error = parse_uint(b"18446744073709551616").unwrap_err();
        assert_eq!(error.to_string(), "strconv.ParseUint: parsing \"18446744073709551616\": value out of range");
    }

    #[test]
    fn a_bad_text_is_quoted_in_its_error() {
        let error = parse_uint(b"-1\"\xff").unwrap_err();
        assert_eq!(error.to_string(), r#"strconv.ParseUint: parsing "-1\"\xff": invalid syntax"#);
    }
}
