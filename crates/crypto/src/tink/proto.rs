//! As much of protobuf's wire format as Tink's messages need: varints and length-delimited fields.

use super::TinkError;
use zeroize::Zeroizing;

/// One field's value.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// A `uint32` or an enumerator.
    pub(super) fn number(self) -> Result<u32, TinkError> {
        match self {
            Self::Varint(value) => u32::try_from(value).map_err(|_| TinkError::Malformed("a number beyond 32 bits")),
            Self::Bytes(_) => Err(TinkError::Malformed("bytes where a number belongs")),
        }
    }

    /// `bytes`, or a message's encoding.
    pub(super) fn bytes(self) -> Result<&'a [u8], TinkError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) => Err(TinkError::Malformed("a number where bytes belong")),
        }
    }

    /// `string`.
    pub(super) fn text(self) -> Result<&'a str, TinkError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| TinkError::Malformed("a text that is not UTF-8"))
    }
}

/// What a message is told of a field that it does not know.
pub(super) const UNKNOWN: TinkError = TinkError::Malformed("a field that this program does not know");

/// Walks through a message's fields. A field other than `repeated` comes at most once.
pub(super) fn read<'a>(
    mut bytes: &'a [u8],
    repeated: Option<u32>,
    mut each: impl FnMut(u32, Value<'a>) -> Result<(), TinkError>,
) -> Result<(), TinkError> {
    let mut seen = 0_u64;
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = u32::try_from(tag >> 3).ok().filter(|field| (1..64).contains(field)).ok_or(UNKNOWN)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            2 => Value::Bytes(delimited(&mut bytes)?),
            _ => return Err(UNKNOWN),
        };
        if Some(field) != repeated && seen & (1 << field) != 0 {
            return Err(TinkError::Malformed("a field that comes twice"));
        }
        seen |= 1 << field;
        each(field, value)?;
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, TinkError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(CUT)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            let is_shortest = *byte != 0 || shift == 0;
            return if is_shortest { Ok(value) } else { Err(TinkError::Malformed("a number in a longer form than needed")) };
        }
    }
    Err(TinkError::Malformed("a number beyond 64 bits"))
}

fn delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], TinkError> {
    let length = usize::try_from(varint(bytes)?).map_err(|_| CUT)?;
    let (value, rest) = bytes.split_at_checked(length).ok_or(CUT)?;
    *bytes = rest;
    Ok(value)
}

const CUT: TinkError = TinkError::Malformed("it ends too early");

/// A message under way. Fields are written in the order of their numbers, and what has its default is left out, as all of
/// Tink's libraries do.
pub(super) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    /// Room for `capacity` bytes, so that no outgrown buffer with key material stays behind.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    pub(super) fn number(mut self, field: u32, value: u32) -> Self {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(u64::from(value));
        }
        self
    }

    pub(super) fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        if !value.is_empty() {
            self.put(field, value);
        }
        self
    }

    /// A message, which is there even when it is empty.
    pub(super) fn message(mut self, field: u32, value: &[u8]) -> Self {
        self.put(field, value);
        self
    }

    pub(super) fn done(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    fn put(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn numbers(bytes: &[u8]) -> Result<Vec<(u32, u64)>, TinkError> {
        let mut found = Vec::new();
        read(bytes, Some(2), |field, value| {
            found.push((
                field,
                match value {
                    Value::Varint(n) => n,
                    Value::Bytes(b) => b.len() as u64,
                },
            ));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn what_is_written_is_read() {
        let message = Writer::with_capacity(64).number(1, 0).number(1, 300).bytes(2, b"").bytes(2, b"abc").message(2, b"").done();
        assert_eq!(*message, b"\x08\xac\x02\x12\x03abc\x12\x00");
        assert_eq!(numbers(&message).unwrap(), [(1, 300), (2, 3), (2, 0)]);
        let large = Writer::with_capacity(64).number(9, u32::MAX).done();
        assert_eq!(numbers(&large).unwrap(), [(9, u64::from(u32::MAX))]);
    }

    #[test]
    fn other_forms_are_refused_by_name() {
        for (bytes, why) in [
            (&b"\x08"[..], "ends too early"),
            (b"\x12\x02a", "ends too early"),
            (b"\x08\x80", "ends too early"),
            (b"\x08\x81\x00", "longer form"),
            (b"\x88\x00\x01", "longer form"),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "beyond 64"),
            (b"\x08\x01\x08\x01", "twice"),
            (b"\x00\x01", "does not know"),
            (b"\x0d\x00\x00\x00\x00", "does not know"),
            (b"\x0b\x0c", "does not know"),
            (b"\x80\x04\x01", "does not know"),
        ] {
            let refused = numbers(bytes).unwrap_err().to_string();
            assert!(refused.contains(why), "{bytes:x?}: {refused}");
        }
        assert_eq!(numbers(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").unwrap(), [(1, u64::MAX)]);
    }
}
