//! `claviger generate token`: random bytes as text, with a prefix and a checksum by which programs can find and check it.

use super::{Into, Made};
use crate::failure::Failure;
use crate::random::Random;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

/// Characters of a checksum: 62^6 is the first power beyond 2^32.
const CHECKSUM: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Random bytes as text, for machines.
#[derive(Args)]
pub(crate) struct Options {
    /// Random bytes.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(8..=4096))]
    bytes: u16,
    /// How they are written.
    #[arg(long, default_value = "base64url")]
    format: Format,
    /// Text before it, such as `acme_`, by which scanners tell whose token it is.
    #[arg(long, default_value = "", hide_default_value = true, value_parser = prefix)]
    prefix: String,
    /// Append the CRC-32 (IEEE 802.3) of all that stands before, as six characters of 0-9A-Za-z: a mistyped or invented token
    /// can be told without asking anybody. It adds nothing that is secret.
    #[arg(long)]
    checksum: bool,
    #[command(flatten)]
    pub(super) to: Into,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Hex,
    Base64url,
}

impl Options {
    pub(super) fn make(&self) -> Result<Made, Failure> {
        let bytes = Random::new().bytes(self.bytes.into())?;
        Ok(Made::text(self.write(&bytes), f64::from(self.bytes) * 8.0))
    }

    fn write(&self, bytes: &[u8]) -> Zeroizing<String> {
        let mut token = Zeroizing::new(String::with_capacity(self.prefix.len() + bytes.len() * 2 + CHECKSUM));
        token.push_str(&self.prefix);
        match self.format {
            Format::Base64url => URL_SAFE_NO_PAD.encode_string(bytes, &mut token),
            Format::Hex => bytes.iter().flat_map(|b| [b >> 4, b & 15]).for_each(|n| token.extend(char::from_digit(n.into(), 16))),
        }
        if self.checksum {
            let sum = checksum(&token);
            token.push_str(&sum);
        }
        token
    }
}

/// The checksum of a token's beginning, highest digit first.
fn checksum(text: &str) -> String {
    let mut left = crc32fast::hash(text.as_bytes());
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(left % 62) as usize];
        left /= 62;
    }
    digits.iter().copied().map(char::from).collect()
}

fn prefix(text: &str) -> Result<String, String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    match text.len() <= 64 && text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("a prefix has up to 64 of the characters A-Z a-z 0-9 _ - .".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(format: Format, prefix: &str, checksum: bool) -> String {
        let to = Into { into: None, promote: false, expires: None };
        Options { bytes: 8, format, prefix: prefix.to_owned(), checksum, to }.write(&[0, 1, 2, 3, 250, 251, 252, 253]).to_string()
    }

    #[test]
    fn tokens_are_written_as_asked() {
        assert_eq!(token(Format::Hex, "", false), "00010203fafbfcfd");
        assert_eq!(token(Format::Base64url, "acme_", false), "acme_AAECA_r7_P0");
        let summed = token(Format::Hex, "a_", true);
        assert_eq!(summed, format!("a_00010203fafbfcfd{}", checksum("a_00010203fafbfcfd")));
        assert_eq!(summed.len(), 2 + 16 + CHECKSUM);
    }

    #[test]
    fn a_checksum_is_crc32_in_base62() {
        // The CRC's own check value: 0xcbf43926 of "123456789".
        let back = checksum("123456789").bytes().fold(0_u64, |sum, b| sum * 62 + BASE62.iter().position(|c| *c == b).unwrap_or(99) as u64);
        assert_eq!(back, 0xcbf4_3926);
        assert_eq!(checksum("").len(), CHECKSUM);
    }

    #[test]
    fn a_prefix_is_plain() {
        assert!(prefix("acme_live-1.").is_ok());
        for bad in ["a b", "ä", "a/b", "a\n"] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
    }
}
