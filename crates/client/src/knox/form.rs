//! Bodies and queries of `application/x-www-form-urlencoded`, and segments of a path.

use crate::buffer::Buffer;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Pairs, in memory that is wiped: a value may be a secret.
#[derive(Default)]
pub(super) struct Form(Buffer);

impl Form {
    /// Adds a pair.
    pub(super) fn with(mut self, name: &str, value: &[u8]) -> Self {
        let mut encoded = Buffer::with_capacity(name.len() + value.len() * 3 / 2 + 2);
        if self.0.len() > 0 {
            encoded.push(b"&");
        }
        put(&mut encoded, name.as_bytes());
        encoded.push(b"=");
        put(&mut encoded, value);
        self.0.push(encoded.bytes());
        self
    }

    /// The encoded pairs.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// As Go's `url.QueryEscape`: a space becomes `+`, all but unreserved characters `%XX`.
fn put(out: &mut Buffer, raw: &[u8]) {
    for byte in raw {
        match byte {
            b' ' => out.push(b"+"),
            byte if is_unreserved(*byte) => out.push(&[*byte]),
            byte => out.push(&escape(*byte)),
        }
    }
}

/// One segment of a path: `:` may stand as it is, and a slash may not.
pub(super) fn segment(raw: &str) -> String {
    let mut out = Vec::with_capacity(raw.len());
    for byte in raw.bytes() {
        match byte {
            b':' => out.push(byte),
            byte if is_unreserved(byte) => out.push(byte),
            byte => out.extend(escape(byte)),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)
}

fn escape(byte: u8) -> [u8; 3] {
    [b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_encoded_as_go_does() {
        let form = Form::default().with("a b", b"=&+/\"").with("k:1", "ü~".as_bytes()).with("", b"");
        assert_eq!(form.bytes(), b"a+b=%3D%26%2B%2F%22&k%3A1=%C3%BC~&=");
        assert_eq!(Form::default().bytes(), b"");
    }

    #[test]
    fn a_segment_stays_one() {
        assert_eq!(segment("tink:aead:a_1"), "tink:aead:a_1");
        assert_eq!(segment("a/b?c#d%20 \"ü"), "a%2Fb%3Fc%23d%2520%20%22%C3%BC");
    }
}
