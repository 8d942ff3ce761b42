//! Go's `%q`: how the reference shows foreign bytes inside an error text (strconv.Quote).
//!
//! Only the double-quoted form with printable Unicode left as it is; no ASCII-only and no raw-string form.

use super::printable::PRINTABLE;

/// Quotes `raw` as Go's `strconv.Quote` does. The result is always valid UTF-8: a byte that is not part of valid
/// UTF-8 becomes `\xNN`.
#[must_use]
pub fn quote(raw: &[u8]) -> String {
    let mut out = String::with_capacity(raw.len() + 2);
    out.push('"');
    push_quoted(&mut out, raw);
    out.push('"');
    out
}

/// The text between the quotes.
fn push_quoted(out: &mut String, raw: &[u8]) {
    for chunk in raw.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_char(out, c);
        }
        for byte in chunk.invalid() {
            push_hex(out, "\\x", u32::from(*byte), 2);
        }
    }
}

/// Shows one byte of a JSON text as the Go decoder does in `invalid character …`: in single quotes, the byte taken as
/// the code point of the same number.
#[must_use]
pub fn quote_byte(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        _ => {
            let mut out = String::from("'");
            push_char(&mut out, char::from(byte));
            out.push('\'');
            out
        }
    }
}

fn push_char(out: &mut String, c: char) {
    match c {
        '"' | '\\' => out.extend(['\\', c]),
        _ if is_printable(c) => out.push(c),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        '\0'..' ' | '\x7f' => push_hex(out, "\\x", u32::from(c), 2),
        _ if u32::from(c) < 0x1_0000 => push_hex(out, "\\u", u32::from(c), 4),
        _ => push_hex(out, "\\U", u32::from(c), 8),
    }
}

fn push_hex(out: &mut String, prefix: &str, value: u32, digits: u32) {
    out.push_str(prefix);
    for position in (0..digits).rev() {
        let nibble = (value >> (4 * position)) & 0xf;
        out.push(char::from_digit(nibble, 16).expect("a value masked to four bits is a hexadecimal digit"));
    }
}

/// Go's `strconv.IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space, as of Unicode 15.
fn is_printable(c: char) -> bool {
    let code = u32::from(c);
    match code {
        0x20..=0x7e => true,
        0..=0xff => code >= 0xa1 && code != 0xad,
        _ => {
            let after = PRINTABLE.partition_point(|(first, _)| *first <= code);
            after > 0 && code <= PRINTABLE[after - 1].1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_text_is_left_alone_and_the_rest_is_escaped() {
        assert_eq!(quote("aé世 z".as_bytes()), "\"aé世 z\"");
        assert_eq!(quote(b"\"\\\n\x01\x7f\xff"), r#""\"\\\n\x01\x7f\xff""#);
        assert_eq!(quote("\u{ad}\u{2028}\u{e0001}".as_bytes()), r#""\u00ad\u2028\U000e0001""#);
    }

    #[test]
    fn a_byte_is_shown_as_the_code_point_of_its_number() {
        assert_eq!(quote_byte(b'\''), r"'\''");
        assert_eq!(quote_byte(b'"'), "'\"'");
        assert_eq!(quote_byte(0xb6), "'¶'");
        assert_eq!(quote_byte(0x80), r"'\u0080'");
        assert_eq!(quote_byte(b'\n'), r"'\n'");
    }
}
