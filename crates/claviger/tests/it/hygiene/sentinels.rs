//! Secrets that can be recognised wherever they turn up, and the search for them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;

/// Bytes of each piece that is searched for: enough to be nowhere by chance, few enough to find what is left of a secret.
const PIECE: usize = 16;
/// Pieces of one form of one secret.
const PIECES: usize = 64;
const FILTER_BITS: u32 = 20;

/// Random secrets of one run and all the forms in which they could be found.
pub(crate) struct Sentinels {
    pub(crate) secrets: Vec<Vec<u8>>,
    pieces: HashMap<[u8; PIECE], (usize, &'static str)>,
    /// Whether any piece may start with the four bytes that hash to an index.
    filter: Vec<bool>,
}

/// A piece of a secret that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hit {
    pub(crate) secret: usize,
    pub(crate) form: &'static str,
    pub(crate) offset: usize,
}

pub(crate) fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

/// Text of which every other character is one that JSON or a URL escapes.
fn text(len: usize) -> Vec<u8> {
    const SPECIAL: [&str; 12] = ["\"", "\\", "/", "<", ">", "&", "\n", "\t", "\u{1}", "é", "\u{2028}", "%"];
    let random = random(len);
    let pairs = random.chunks_exact(2).map(|pair| format!("{}{}", char::from(b'A' + pair[0] % 58), SPECIAL[usize::from(pair[1]) % 12]));
    pairs.collect::<String>().into_bytes()
}

impl Sentinels {
    /// `count` secrets of several kinds: short and long, bytes and text.
    pub(crate) fn new(count: usize) -> Self {
        let make = |nth: usize| match nth % 6 {
            0 => random(32),
            1 => text(64),
            2 => random(200),
            3 => text(3000),
            4 => random(10_000),
            _ => random(100_000),
        };
        Self::of((0..count).map(make).collect())
    }

    pub(crate) fn of(secrets: Vec<Vec<u8>>) -> Self {
        let mut pieces = HashMap::new();
        let mut filter = vec![false; 1 << FILTER_BITS];
        for (nth, secret) in secrets.iter().enumerate() {
            for (form, bytes) in forms(secret) {
                let stride = (bytes.len() / PIECES).max(PIECE);
                for piece in bytes.windows(PIECE).step_by(stride) {
                    filter[slot(piece)] = true;
                    pieces.entry(piece.try_into().unwrap()).or_insert((nth, form));
                }
            }
        }
        Self { secrets, pieces, filter }
    }

    /// Every piece in `bytes`.
    pub(crate) fn search(&self, bytes: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        const BLOCK: usize = 4096;
        for start in (0..bytes.len()).step_by(BLOCK) {
            let block = &bytes[start..(start + BLOCK + PIECE - 1).min(bytes.len())];
            // Most of a process is nothing; comparing is much faster than looking.
            if block.len() < PIECE || block == &[0; BLOCK + PIECE - 1][..block.len()] {
                continue;
            }
            for (at, window) in block.windows(PIECE).enumerate() {
                if self.filter[slot(window)]
                    && let Some((secret, form)) = self.pieces.get(window)
                {
                    hits.push(Hit { secret: *secret, form, offset: start + at });
                }
            }
        }
        hits
    }
}

fn slot(piece: &[u8]) -> usize {
    let start = u32::from_le_bytes([piece[0], piece[1], piece[2], piece[3]]);
    (start.wrapping_mul(0x9e37_79b1) >> (32 - FILTER_BITS)) as usize
}

/// A secret as it could lie somewhere. Of base64 the characters that depend on what stands around it are left out.
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex = |upper: bool| secret.iter().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect::<String>();
    let percent = |bytes: &[u8], upper: bool| {
        let one = |b: &u8| match (b.is_ascii_alphanumeric(), upper) {
            (true, _) => char::from(*b).to_string(),
            (false, true) => format!("%{b:02X}"),
            (false, false) => format!("%{b:02x}"),
        };
        bytes.iter().map(one).collect::<String>()
    };
    let plain64 = STANDARD.encode(secret);
    let mut forms = vec![
        ("raw", secret.to_vec()),
        ("hex", hex(false).into_bytes()),
        ("HEX", hex(true).into_bytes()),
        ("percent", percent(secret, false).into_bytes()),
        ("PERCENT", percent(secret, true).into_bytes()),
        ("percent of base64", percent(plain64.as_bytes(), false).into_bytes()),
        ("PERCENT of base64", percent(plain64.as_bytes(), true).into_bytes()),
    ];
    for (shift, name) in ["base64", "base64 +1", "base64 +2"].into_iter().enumerate() {
        let shifted = [&vec![0; shift], secret].concat();
        let encoded = [STANDARD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)];
        forms.extend(encoded.map(|text| {
            let inner = text.trim_end_matches('=').as_bytes();
            (name, inner[if shift == 0 { 0 } else { 4 }..inner.len() - 1].to_vec())
        }));
    }
    let text = String::from_utf8_lossy(secret);
    let json = serde_json::to_string(&text).unwrap();
    forms.push(("JSON", json.trim_matches('"').as_bytes().to_vec()));
    // As Go and Knox write it: more is escaped.
    let mut go = String::new();
    for c in json.trim_matches('"').chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' => go.push_str(&format!("\\u{:04x}", u32::from(c))),
            '/' => go.push_str("\\/"),
            c => go.push(c),
        }
    }
    forms.push(("JSON escaped more", go.into_bytes()));
    forms.push(("debug text", text.escape_debug().to_string().into_bytes()));
    forms.push(("debug bytes", secret.escape_ascii().to_string().into_bytes()));
    forms.push(("byte list", format!("{secret:?}").into_bytes()));
    forms
}

/// What was found, in few words: which forms, how often, of how many secrets.
pub(crate) fn summary(hits: &[Hit]) -> String {
    let mut forms: BTreeMap<&str, (usize, BTreeSet<usize>)> = BTreeMap::new();
    for hit in hits {
        let entry = forms.entry(hit.form).or_default();
        entry.0 += 1;
        entry.1.insert(hit.secret);
    }
    let lines = forms.iter().map(|(form, (count, secrets))| format!("{form}: {count} pieces of {} secrets", secrets.len()));
    lines.collect::<Vec<_>>().join("; ")
}

#[test]
fn every_form_of_a_secret_is_found_in_the_middle_of_other_bytes() {
    let sentinels = Sentinels::new(6);
    for (nth, secret) in sentinels.secrets.iter().enumerate() {
        for (form, bytes) in forms(secret) {
            for before in [0, 1, 4090, 10_000] {
                let around = [vec![b'x'; before], bytes.clone(), vec![0; 5000]].concat();
                let hits = sentinels.search(&around);
                assert!(hits.iter().any(|h| h.secret == nth), "{form} of secret {nth} after {before} bytes");
            }
        }
    }
    assert_eq!(sentinels.search(&random(1 << 20)), []);
}

#[test]
fn base64_is_found_at_every_alignment() {
    let sentinels = Sentinels::new(3);
    for secret in &sentinels.secrets {
        for before in 0..3 {
            let text = STANDARD.encode([&vec![7; before], secret.as_slice(), &[7; 5]].concat());
            assert!(!sentinels.search(text.as_bytes()).is_empty(), "{before}");
        }
    }
}
