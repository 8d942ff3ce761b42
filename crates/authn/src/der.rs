//! Reads DER (X.690) one element at a time, as far as certificates need it: lengths are minimal and tags one byte long.

use claviger_domain::Timestamp;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;

/// The two bits of a tag byte that tell its class.
pub(crate) const CLASS_BITS: u8 = 0xc0;
/// The class of tags whose meaning depends on where they stand.
pub(crate) const CONTEXT_SPECIFIC: u8 = 0x80;
/// The bit of a tag byte that says that elements are inside.
pub(crate) const CONSTRUCTED: u8 = 0x20;

/// The bytes are not what they must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What is left to read.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element's tag and contents.
    pub(crate) fn element(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let [tag, first, rest @ ..] = self.0 else { return Err(Malformed) };
        let is_long_tag = tag & 0x1f == 0x1f;
        if is_long_tag {
            return Err(Malformed);
        }
        let (length, rest) = length(*first, rest)?;
        let (contents, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok((*tag, contents))
    }

    /// The contents of the next element, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        match self.element()? {
            (found, contents) if found == tag => Ok(contents),
            _ => Err(Malformed),
        }
    }

    /// The contents of the next element if it has this tag; otherwise nothing is read.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        if self.0.first() == Some(&tag) { self.expect(tag).map(Some) } else { Ok(None) }
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// The contents of the one element that `bytes` are.
pub(crate) fn only(bytes: &[u8], tag: u8) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(bytes);
    let contents = reader.expect(tag)?;
    reader.end()?;
    Ok(contents)
}

fn length(first: u8, rest: &[u8]) -> Result<(usize, &[u8]), Malformed> {
    if first < 0x80 {
        return Ok((usize::from(first), rest));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=3).contains(&count) {
        return Err(Malformed);
    }
    let (digits, rest) = rest.split_at_checked(count).ok_or(Malformed)?;
    let length = digits.iter().fold(0, |sum, d| sum << 8 | usize::from(*d));
    let is_minimal = digits[0] != 0 && length >= 0x80;
    if is_minimal { Ok((length, rest)) } else { Err(Malformed) }
}

/// A UTCTime or GeneralizedTime as RFC 5280 §4.1.2.5 allows it: seconds are there, and it ends with `Z`.
pub(crate) fn time(reader: &mut Reader<'_>) -> Result<Timestamp, Malformed> {
    let (tag, text) = reader.element()?;
    let year_digits = match tag {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return Err(Malformed),
    };
    let digits = text.strip_suffix(b"Z").ok_or(Malformed)?;
    if digits.len() != year_digits + 10 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let number = |part: &[u8]| part.iter().fold(0, |sum, d| sum * 10 + i64::from(d - b'0'));
    let (year, rest) = digits.split_at(year_digits);
    let year = match (tag, number(year)) {
        (UTC_TIME, short) if short < 50 => 2000 + short,
        (UTC_TIME, short) => 1900 + short,
        (_, long) => long,
    };
    let field = |i: usize| number(&rest[2 * i..2 * i + 2]);
    let (month, day, hour, minute, second) = (field(0), field(1), field(2), field(3), field(4));
    let is_real = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !is_real {
        return Err(Malformed);
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Ok(Timestamp(0).plus_seconds(seconds))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years start in March here, so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let before_the_month = (153 * month + 2) / 5;
    let epoch = 719_468;
    365 * year + leap_days + before_the_month + day - 1 - epoch
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(tag: u8, text: &str) -> Option<i64> {
        let bytes = [&[tag, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        time(&mut Reader::new(&bytes)).ok().map(|t| t.0 / 1_000_000_000)
    }

    #[test]
    fn times_are_read_as_the_profile_allows_them() {
        assert_eq!(parse(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(parse(UTC_TIME, "000229120000Z"), Some(951_825_600));
        assert_eq!(parse(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(parse(UTC_TIME, "500101000000Z"), Some(-631_152_000));
        assert_eq!(parse(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(parse(GENERALIZED_TIME, "20260301000000Z"), Some(1_772_323_200));
        assert_eq!(parse(GENERALIZED_TIME, "99991231235959Z"), Some(i64::MAX / 1_000_000_000));
        for bad in ["7001010000Z", "700101000000", "701301000000Z", "700100000000Z", "700101240000Z", "700101006000Z", "7001010000 0Z"] {
            assert_eq!(parse(UTC_TIME, bad), None, "{bad}");
        }
        assert_eq!(parse(INTEGER, "700101000000Z"), None);
    }

    #[test]
    fn lengths_must_be_minimal_and_within_the_bytes() {
        let read = |bytes: &[u8]| Reader::new(bytes).element().map(|(_, c)| c.len());
        assert_eq!(read(&[0x04, 1, 9]), Ok(1));
        assert_eq!(read(&[&[0x04, 0x81, 0x80][..], &[0; 0x80]].concat()), Ok(0x80));
        for bad in [&[][..], &[4], &[4, 1], &[4, 0x80], &[4, 0x81, 1, 0], &[4, 0x82, 0, 0x80], &[4, 0x84, 0, 0, 0, 1], &[0x1f, 1, 0]] {
            assert_eq!(read(bad), Err(Malformed), "{bad:?}");
        }
    }
}
