//! Keyed fingerprints of values: who has them finds the values in files and never holds one.
//!
//! The server makes them under a key that lives as long as the session; the client slides over files. A fingerprint says how long a
//! value is and has three sums of it: two short ones of its first and last eight bytes, which filter, and an HMAC over all of it, which
//! decides.
//!
//! # Guarantees
//! - What is found has the value's HMAC-SHA-256 to 128 bits: it is the value.
//! - The value, in a form that was fingerprinted, is found wherever it stands.
//!
//! # Not promised
//! Who holds fingerprints *and* their key can try guesses, as with any keyed sum, and can try the first and the last eight bytes by
//! themselves against 20 and 12 bits. So they are given only to who may read the value anyway, and what is easily guessed has none.

use crate::parts::Parts;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::collections::{BTreeMap, HashMap, HashSet};
use zeroize::Zeroizing;

/// Bytes of a window, and of the shortest value that is fingerprinted.
pub const WINDOW: usize = 8;
/// Longer values are left out.
pub const LONGEST: usize = 1 << 20;
/// Named parts or lines of one value that are fingerprinted.
pub const MOST_PARTS: usize = 256;
/// Characters of a part's name that are told.
const LONGEST_NAME: usize = 256;
const HEAD_BITS: u32 = 20;
const TAIL_BITS: u32 = 12;
/// Lines shorter than this are parts of nothing in particular.
const SHORTEST_LINE: usize = 16;

/// What fingerprints are made and compared with.
pub struct FingerprintKey {
    bytes: Zeroizing<[u8; 32]>,
    head: u64,
    tail: u64,
    mac: hmac::Key,
}

/// The fingerprint of one form of a value or of a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Print {
    /// How many bytes it has in this form.
    pub length: u32,
    /// 20 bits of its first eight bytes.
    pub head: u32,
    /// 12 bits of its last eight bytes.
    pub tail: u32,
    /// 16 bytes of an HMAC-SHA-256 over all of it.
    pub mac: [u8; 16],
}

/// A print with what it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// A member, a name, `line N`; empty for the whole value.
    pub part: String,
    /// How it is written: raw, base64, base64url, hex, HEX, url, json.
    pub form: &'static str,
    /// The print.
    pub print: Print,
}

/// Why something has no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// Fewer than eight bytes.
    TooShort,
    /// So few different characters, or a mere word or number: guessed easily, and found everywhere.
    LowEntropy,
    /// More than 1 MiB.
    TooLong,
    /// Beyond the first 256 parts of a value, or a version beyond what one answer may say of a key.
    TooMany,
}

impl LeftOut {
    /// The name in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::LowEntropy => "low_entropy",
            Self::TooLong => "too_long",
            Self::TooMany => "too_many",
        }
    }
}

/// All fingerprints of one value, and the parts that have none.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Prints {
    /// Those that were made.
    pub made: Vec<Named>,
    /// Parts without one; the empty name is the whole value.
    pub left_out: Vec<(String, LeftOut)>,
}

impl FingerprintKey {
    /// A key of 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let derived = |label: &str| hmac::sign(&root, label.as_bytes());
        let number = |label: &str| derived(label).as_ref().iter().take(8).fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte)) | 1;
        Self {
            head: number("claviger fingerprint head"),
            tail: number("claviger fingerprint tail"),
            mac: hmac::Key::new(hmac::HMAC_SHA256, derived("claviger fingerprint mac").as_ref()),
            bytes: Zeroizing::new(bytes),
        }
    }

    /// The key of a session: the same for the same secret, session and caller, and no other.
    #[must_use]
    pub fn of_session(secret: &[u8; 32], session: &[u8; 16], caller: &str) -> Self {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
        context.update(b"claviger fingerprint session");
        context.update(session);
        context.update(caller.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        Self::new(bytes)
    }

    /// The key itself, for who is to compare.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The print of something of at least [`WINDOW`] bytes.
    fn print(&self, text: &[u8]) -> Option<Print> {
        let (first, last) = (text.first_chunk::<WINDOW>()?, text.last_chunk::<WINDOW>()?);
        let length = u32::try_from(text.len()).ok()?;
        Some(Print {
            length,
            head: short_sum(self.head, *first, HEAD_BITS),
            tail: short_sum(self.tail, *last, TAIL_BITS),
            mac: self.mac(text),
        })
    }

    fn mac(&self, text: &[u8]) -> [u8; 16] {
        let tag = hmac::sign(&self.mac, text);
        let mut short = [0; 16];
        short.copy_from_slice(&tag.as_ref()[..16]);
        short
    }

    /// Fingerprints a value: as it is without white space around it, its named parts, and of text without names its longer lines; each in
    /// all its forms.
    #[must_use]
    pub fn prints(&self, value: &[u8]) -> Prints {
        let mut prints = Prints::default();
        if value.len() > LONGEST {
            prints.left_out.push((String::new(), LeftOut::TooLong));
            return prints;
        }
        let mut seen = HashSet::new();
        let value = value.trim_ascii();
        self.add(&mut prints, &mut seen, "", value);
        let parts = parts_of(value);
        for (part, text) in parts.iter().take(MOST_PARTS) {
            self.add(&mut prints, &mut seen, part, text.trim_ascii());
        }
        if let Some((part, _)) = parts.get(MOST_PARTS) {
            prints.left_out.push((part.clone(), LeftOut::TooMany));
        }
        prints
    }

    fn add(&self, prints: &mut Prints, seen: &mut HashSet<Print>, part: &str, text: &[u8]) {
        if let Err(why) = is_worth(text) {
            prints.left_out.push((part.to_owned(), why));
            return;
        }
        for (form, written) in forms(text) {
            if let Some(print) = self.print(&written).filter(|print| seen.insert(print.clone())) {
                prints.made.push(Named { part: part.to_owned(), form, print });
            }
        }
    }
}

/// Multiply and shift: of a random odd factor the upper bits of the product are a universal hash (Dietzfelbinger and others, 1997).
#[inline]
fn short_sum(factor: u64, window: [u8; WINDOW], bits: u32) -> u32 {
    (u64::from_le_bytes(window).wrapping_mul(factor) >> (64 - bits)) as u32
}

fn parts_of(value: &[u8]) -> Vec<(String, Zeroizing<Vec<u8>>)> {
    let owned = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
    match Parts::of(value) {
        Parts::Members(parts) | Parts::Names(parts) => parts.into_iter().map(|part| (shortened(part.name), owned(&part.text))).collect(),
        Parts::Bytes => Vec::new(),
        Parts::Text => {
            let text = String::from_utf8_lossy(value);
            let lines: Vec<_> = text.lines().enumerate().collect();
            let is_worth_it = |line: &str| line.trim().len() >= SHORTEST_LINE && !line.trim().starts_with("-----");
            let long = lines.iter().filter(|(_, line)| lines.len() > 1 && is_worth_it(line));
            long.map(|(nth, line)| (format!("line {}", nth + 1), owned(line))).collect()
        }
    }
}

/// A part's name, which each of its prints repeats.
fn shortened(name: String) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    }
}

/// Whether something is hard enough to guess, and unlikely enough to stand somewhere by chance.
fn is_worth(text: &[u8]) -> Result<(), LeftOut> {
    if text.len() < WINDOW {
        return Err(LeftOut::TooShort);
    }
    let different = text.iter().collect::<HashSet<_>>().len();
    let is_number = text.iter().all(|b| b.is_ascii_digit() || b".,:-+/ ".contains(b));
    let letters = |is_case: fn(&u8) -> bool| text.iter().all(|b| is_case(b) || b" _-./:@,".contains(b));
    let is_word = letters(u8::is_ascii_lowercase) || letters(u8::is_ascii_uppercase) || {
        let (first, rest) = (text[0], &text[1..]);
        first.is_ascii_uppercase() && rest.iter().all(|b| b.is_ascii_lowercase() || b" _-./:@,".contains(b))
    };
    let is_easy = different < 5 || is_number && text.len() < 16 || is_word && text.len() < 20;
    if is_easy { Err(LeftOut::LowEntropy) } else { Ok(()) }
}

/// How a value may be written in a file. Forms that are as another are left out by their prints.
fn forms(text: &[u8]) -> Vec<(&'static str, Zeroizing<Vec<u8>>)> {
    let mut forms = vec![("raw", Zeroizing::new(text.to_vec()))];
    let mut add = |form, written: String| forms.push((form, Zeroizing::new(written.into_bytes())));
    for shift in 0..3 {
        // Within a longer text in base64 a value begins at one of three places; the characters at its ends depend on what is beside it.
        let mut shifted = Zeroizing::new(vec![0; shift]);
        shifted.extend_from_slice(text);
        let skip = [0, 2, 3][shift];
        let whole = shifted.len() / 3 * 4;
        let cut = |encoded: String| encoded.get(skip..whole).unwrap_or_default().to_owned();
        add("base64", cut(STANDARD.encode(&*shifted)));
        add("base64url", cut(URL_SAFE_NO_PAD.encode(&*shifted)));
    }
    let hex =
        |digits: &[u8; 16]| -> String { text.iter().flat_map(|b| [b >> 4, b & 15]).map(|n| char::from(digits[usize::from(n)])).collect() };
    add("hex", hex(b"0123456789abcdef"));
    add("HEX", hex(b"0123456789ABCDEF"));
    let escaped = |b: &u8| match b {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(*b).to_string(),
        _ => format!("%{b:02X}"),
    };
    let url: String = text.iter().map(escaped).collect();
    add("url", url.replace("%20", "+"));
    add("url", url);
    if let Ok(text) = std::str::from_utf8(text) {
        let quoted = serde_json::to_string(text).unwrap_or_default();
        let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
        add("json", inner.replace('/', "\\/"));
        add("json", inner.to_owned());
    }
    forms
}

/// Fingerprints made ready to be looked for.
pub struct Index {
    key: FingerprintKey,
    prints: Vec<Print>,
    /// A bit for each head that some print has.
    heads: Vec<u64>,
    by_head: HashMap<u32, Vec<u32>>,
    longest: usize,
}

/// Where a print was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// The first byte, counted from the beginning of what was searched.
    pub at: usize,
    /// Which of the index's prints, in the order in which they were given.
    pub print: usize,
}

impl Index {
    /// An index of prints made with `key`.
    #[must_use]
    pub fn new(key: FingerprintKey, prints: Vec<Print>) -> Self {
        let mut heads = vec![0; 1 << (HEAD_BITS - 6)];
        let mut by_head: HashMap<u32, Vec<u32>> = HashMap::new();
        for (nth, print) in prints.iter().enumerate() {
            let head = print.head & ((1 << HEAD_BITS) - 1);
            heads[(head >> 6) as usize] |= 1 << (head & 63);
            // Prints come in pages of thousands: there are never 2^32.
            by_head.entry(head).or_default().push(nth as u32);
        }
        let longest = prints.iter().map(|p| p.length as usize).max().unwrap_or(WINDOW).max(WINDOW);
        Self { key, prints, heads, by_head, longest }
    }

    /// Bytes of the longest print: what pieces of a longer text must overlap by, less one.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Bytes of a print.
    #[must_use]
    pub fn length(&self, print: usize) -> u64 {
        self.prints.get(print).map_or(0, |print| print.length.into())
    }

    /// Finds all prints that begin before `until` in `bytes`.
    pub fn find(&self, bytes: &[u8], until: usize, mut found: impl FnMut(Match)) {
        let factor = self.key.head;
        for (at, window) in bytes.windows(WINDOW).take(until).enumerate() {
            let mut eight = [0; WINDOW];
            eight.copy_from_slice(window);
            let head = short_sum(factor, eight, HEAD_BITS);
            if self.heads[(head >> 6) as usize] >> (head & 63) & 1 == 1 {
                self.compare(bytes, at, head, &mut found);
            }
        }
    }

    #[cold]
    fn compare(&self, bytes: &[u8], at: usize, head: u32, found: &mut impl FnMut(Match)) {
        let mut sums: BTreeMap<u32, [u8; 16]> = BTreeMap::new();
        for nth in self.by_head.get(&head).into_iter().flatten() {
            let print = &self.prints[*nth as usize];
            let Some(text) = bytes.get(at..at + print.length as usize) else { continue };
            let Some(last) = text.last_chunk::<WINDOW>() else { continue };
            if short_sum(self.key.tail, *last, TAIL_BITS) != print.tail {
                continue;
            }
            let sum = *sums.entry(print.length).or_insert_with(|| self.key.mac(text));
            if sum == print.mac {
                found(Match { at, print: *nth as usize });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn key() -> FingerprintKey {
        FingerprintKey::new([7; 32])
    }

    /// What of `value` is found in `text`: part, form and place.
    fn found(value: &str, text: &str) -> Vec<(String, &'static str, usize)> {
        let made = key().prints(value.as_bytes()).made;
        let index = Index::new(key(), made.iter().map(|n| n.print.clone()).collect());
        let mut hits = Vec::new();
        index.find(text.as_bytes(), text.len(), |m| hits.push((made[m.print].part.clone(), made[m.print].form, m.at)));
        hits
    }

    const VALUE: &str = "k3J\"9/x0Q z?7";

    #[test]
    fn a_value_is_found_in_every_form() {
        assert_eq!(found(VALUE, &format!("a={VALUE};")), [(String::new(), "raw", 2)]);
        for (form, text) in [
            ("json", r#"{"p":"k3J\"9/x0Q z?7"}"#),
            ("json", r#"{"p":"k3J\"9\/x0Q z?7"}"#),
            ("url", "?p=k3J%229%2Fx0Q%20z%3F7&"),
            ("url", "?p=k3J%229%2Fx0Q+z%3F7&"),
            ("hex", "0x6b334a22392f783051207a3f37."),
            ("HEX", "6B334A22392F783051207A3F37"),
        ] {
            assert_eq!(found(VALUE, text).first().map(|f| f.1), Some(form), "{text}");
        }
        for before in ["", "u", "us", "use", "user"] {
            for after in ["", ":", "::", ":::"] {
                let text = STANDARD.encode(format!("{before}{VALUE}{after}"));
                assert!(found(VALUE, &text).iter().any(|f| f.1 == "base64"), "{before}|{after}");
            }
        }
        assert_eq!(found(&format!("\n{VALUE}\n"), VALUE).len(), 1, "white space around it is no part of it");
        assert_eq!(found(VALUE, "k3J\"9/x0Q z?8 k3J\"9/x0Q z?"), []);
    }

    #[test]
    fn named_parts_and_long_lines_are_found_by_themselves() {
        let json = r#"{"user": "alice", "password": "S3cr3t-of-1", "n": 5432}"#;
        assert_eq!(found(json, "pw: S3cr3t-of-1"), [("/password".to_owned(), "raw", 4)]);
        assert_eq!(found("A=plain\nTOKEN=abcDEF123456\n", "abcDEF123456").first().unwrap().0, "TOKEN");
        let pem =
            "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n-----END PRIVATE KEY-----\n";
        assert_eq!(found(pem, "x BKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj").first().unwrap().0, "line 3");
        assert_eq!(found(pem, "-----BEGIN PRIVATE KEY-----"), []);
    }

    #[test]
    fn what_is_guessed_easily_has_no_print() {
        for (text, expected) in [
            ("hunter2", Err(LeftOut::TooShort)),
            ("password", Err(LeftOut::LowEntropy)),
            ("Production", Err(LeftOut::LowEntropy)),
            ("db.internal.example", Err(LeftOut::LowEntropy)),
            ("aaaaaaaaaaaaaaaaaaaaaa1", Err(LeftOut::LowEntropy)),
            ("2026-11-24", Err(LeftOut::LowEntropy)),
            ("hunter2-hunter3", Ok(())),
            ("correcthorsebatterystaple", Ok(())),
            ("k3J9x0Qz", Ok(())),
        ] {
            assert_eq!(is_worth(text.as_bytes()), expected, "{text}");
        }
        let long = vec![b'x'; LONGEST + 1];
        assert_eq!(key().prints(&long).left_out, [(String::new(), LeftOut::TooLong)]);
        let many: String = (0..MOST_PARTS + 5).map(|n| format!("a line with the number {n}\n")).collect();
        let left_out = key().prints(many.as_bytes()).left_out;
        assert_eq!(left_out, [(format!("line {}", MOST_PARTS + 1), LeftOut::TooMany)]);
        assert_eq!(key().prints(br#"{"short": "x1"}"#).left_out, [("/short".to_owned(), LeftOut::TooShort)]);
    }

    #[test]
    fn another_sessions_prints_say_nothing() {
        let session = |session: u8, caller: &str| FingerprintKey::of_session(&[1; 32], &[session; 16], caller);
        let prints = |key: &FingerprintKey| key.prints(VALUE.as_bytes()).made;
        assert_eq!(prints(&session(1, "user:a")), prints(&session(1, "user:a")));
        for other in [session(2, "user:a"), session(1, "user:b")] {
            let mine: HashSet<_> = prints(&session(1, "user:a")).into_iter().map(|n| n.print.mac).collect();
            assert!(prints(&other).iter().all(|n| !mine.contains(&n.print.mac)));
        }
        assert!(!format!("{:?}", prints(&key())).contains("k3J"));
    }

    proptest! {
        #[test]
        fn a_value_is_found_wherever_it_stands(before in ".{0,40}", value in "[a-zA-Z0-9]{3}[!-~]{9,40}", after in ".{0,40}", step in 1_usize..64) {
            prop_assume!(is_worth(value.as_bytes()).is_ok());
            let text = format!("{before}{value}{after}");
            let print = key().print(value.as_bytes()).unwrap();
            let index = Index::new(key(), vec![print]);
            let mut whole = Vec::new();
            index.find(text.as_bytes(), text.len(), |m| whole.push(m.at));
            prop_assert!(whole.contains(&before.len()));
            // In pieces that overlap the same is found.
            let mut pieces = Vec::new();
            for from in (0..text.len()).step_by(step) {
                let piece = &text.as_bytes()[from..(from + step + index.longest() - 1).min(text.len())];
                index.find(piece, step, |m| pieces.push(from + m.at));
            }
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn any_value_is_fingerprinted_within_bounds(value in prop::collection::vec(any::<u8>(), 0..200), text in prop::collection::vec(any::<u8>(), 0..200)) {
            let made = key().prints(&value).made;
            prop_assert!(made.len() <= (MOST_PARTS + 1) * 16);
            Index::new(key(), made.into_iter().map(|n| n.print).collect()).find(&text, text.len(), |_| {});
        }
    }
}
