//! Base64 as Go's `encoding/base64` reads it, down to the byte offsets in its errors (§4.2 step 5, §4.6 step 1).
//!
//! Differences from a strict decoder: CR and LF are skipped anywhere, and non-zero bits after the last whole byte are
//! accepted. The common case goes through the `base64` crate; only what that refuses is read again by the slow path,
//! which knows Go's offsets.

use ::base64::Engine as _;
use ::base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use ::base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The input is not base64; the number is the offset Go reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("illegal base64 data at input byte {0}")]
pub struct CorruptInput(pub usize);

const STANDARD_ENGINE: GeneralPurpose = engine(&STANDARD, true);
const RAW_URL_ENGINE: GeneralPurpose = engine(&URL_SAFE, false);

const fn engine(alphabet: &Alphabet, padded: bool) -> GeneralPurpose {
    let mode = if padded { DecodePaddingMode::RequireCanonical } else { DecodePaddingMode::RequireNone };
    let config =
        GeneralPurposeConfig::new().with_encode_padding(padded).with_decode_allow_trailing_bits(true).with_decode_padding_mode(mode);
    GeneralPurpose::new(alphabet, config)
}

/// Decodes the standard alphabet with required padding. The result is a secret whenever the input is.
///
/// # Errors
/// [`CorruptInput`] with Go's offset.
pub fn decode_standard(input: &[u8]) -> Result<Vec<u8>, CorruptInput> {
    match STANDARD_ENGINE.decode(input) {
        Ok(data) => Ok(data),
        Err(_) => SlowDecoder { input, at: 0, url_safe: false, padded: true }.decode(),
    }
}

/// Decodes the URL-safe alphabet without padding; a `=` is an illegal character here.
///
/// # Errors
/// [`CorruptInput`] with Go's offset.
pub fn decode_raw_url(input: &[u8]) -> Result<Vec<u8>, CorruptInput> {
    match RAW_URL_ENGINE.decode(input) {
        Ok(data) => Ok(data),
        Err(_) => SlowDecoder { input, at: 0, url_safe: true, padded: false }.decode(),
    }
}

/// Appends `data` in the standard alphabet with padding.
pub fn encode_standard(out: &mut Vec<u8>, data: &[u8]) {
    let start = out.len();
    out.resize(start + data.len().div_ceil(3) * 4, b'=');
    STANDARD_ENGINE.encode_slice(data, &mut out[start..]).expect("the room made above is exactly what padded base64 needs");
}

/// Group by group, counting as Go counts.
struct SlowDecoder<'a> {
    input: &'a [u8],
    at: usize,
    url_safe: bool,
    padded: bool,
}

impl SlowDecoder<'_> {
    fn decode(mut self) -> Result<Vec<u8>, CorruptInput> {
        let mut data = Vec::with_capacity(self.input.len() / 4 * 3 + 3);
        while self.at < self.input.len() {
            self.group(&mut data)?;
        }
        Ok(data)
    }

    /// Reads up to four digits, and the padding when it comes.
    fn group(&mut self, data: &mut Vec<u8>) -> Result<(), CorruptInput> {
        let mut digits = [0_u8; 4];
        let mut count = 0;
        while count < digits.len() {
            let Some(byte) = self.next() else {
                return self.end_of_input(digits, count, data);
            };
            match self.digit(byte) {
                Some(digit) => {
                    digits[count] = digit;
                    count += 1;
                }
                None if is_line_break(byte) => {}
                None if byte == b'=' && self.padded => return self.padding(digits, count, data),
                None => return Err(CorruptInput(self.at - 1)),
            }
        }
        push_bytes(digits, count, data);
        Ok(())
    }

    /// The input ended inside a group of `count` digits.
    fn end_of_input(&self, digits: [u8; 4], count: usize, data: &mut Vec<u8>) -> Result<(), CorruptInput> {
        match count {
            0 => Ok(()),
            2 | 3 if !self.padded => {
                push_bytes(digits, count, data);
                Ok(())
            }
            _ => Err(CorruptInput(self.at - count)),
        }
    }

    /// The first pad of a group of `count` digits has been read.
    fn padding(&mut self, digits: [u8; 4], count: usize, data: &mut Vec<u8>) -> Result<(), CorruptInput> {
        if count < 2 {
            return Err(CorruptInput(self.at - 1));
        }
        if count == 2 {
            self.skip_line_breaks();
            match self.input.get(self.at) {
                None => return Err(CorruptInput(self.input.len())),
                // Go names the byte before the one that should have been the second pad.
                Some(byte) if *byte != b'=' => return Err(CorruptInput(self.at - 1)),
                Some(_) => self.at += 1,
            }
        }
        self.skip_line_breaks();
        if self.at < self.input.len() {
            return Err(CorruptInput(self.at));
        }
        push_bytes(digits, count, data);
        Ok(())
    }

    fn next(&mut self) -> Option<u8> {
        let byte = *self.input.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn skip_line_breaks(&mut self) {
        while self.input.get(self.at).copied().is_some_and(is_line_break) {
            self.at += 1;
        }
    }

    fn digit(&self, byte: u8) -> Option<u8> {
        match byte {
            b'A'..=b'Z' => Some(byte - b'A'),
            b'a'..=b'z' => Some(byte - b'a' + 26),
            b'0'..=b'9' => Some(byte - b'0' + 52),
            b'+' if !self.url_safe => Some(62),
            b'/' if !self.url_safe => Some(63),
            b'-' if self.url_safe => Some(62),
            b'_' if self.url_safe => Some(63),
            _ => None,
        }
    }
}

fn is_line_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// The `count - 1` whole bytes that `count` digits make.
fn push_bytes(digits: [u8; 4], count: usize, data: &mut Vec<u8>) {
    let [a, b, c, d] = digits;
    let bytes = [a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d];
    data.extend_from_slice(&bytes[..count - 1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_offsets_are_kept() {
        for (input, offset) in [("YQ=x", 2), ("YQ=", 3), ("YQ==x", 4), ("YWFhY", 4), ("YWF", 0), ("a-b_", 1)] {
            assert_eq!(decode_standard(input.as_bytes()), Err(CorruptInput(offset)), "{input}");
        }
        assert_eq!(CorruptInput(7).to_string(), "illegal base64 data at input byte 7");
    }

    #[test]
    fn line_breaks_and_trailing_bits_pass() {
        assert_eq!(decode_standard(b"\n"), Ok(vec![]));
        assert_eq!(decode_standard(b"Y\r\nR=\n=\r"), Ok(b"a".to_vec()));
        assert_eq!(decode_raw_url(b"Y\nR"), Ok(b"a".to_vec()));
        assert_eq!(decode_raw_url(b"YR=="), Err(CorruptInput(2)));
    }

    #[test]
    fn encoding_appends_padded_text() {
        let mut out = b"x".to_vec();
        encode_standard(&mut out, b"hello");
        encode_standard(&mut out, b"");
        assert_eq!(out, b"xaGVsbG8=");
    }
}
