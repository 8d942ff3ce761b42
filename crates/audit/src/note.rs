//! Signed checkpoints: C2SP `signed-note`, `tlog-checkpoint` and the verifier-key form, with Ed25519.
//!
//! One name serves as the checkpoint's origin and as the key's name. Extension lines of a checkpoint
//! are kept and signed but not interpreted, save `pruned`.

use crate::error::AuditError;
use crate::merkle::{Hash, sha256};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::fmt;

/// The C2SP signature type of a plain Ed25519 note signature.
const ED25519_TYPE: u8 = 1;
/// Longest note that is looked at, in bytes.
const MAX_NOTE: usize = 64 * 1024;
/// A signature line begins with an em dash (U+2014) and a space.
const SIGNATURE_MARK: &str = "\u{2014} ";

/// A tree head: what a checkpoint says of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Number of entries.
    pub size: u64,
    /// RFC 6962 root of those entries.
    pub root: Hash,
}

/// A checkpoint whose signature was made or verified here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    head: Checkpoint,
    extensions: Vec<String>,
    note: String,
}

impl SignedCheckpoint {
    /// The signed tree head.
    pub fn head(&self) -> Checkpoint {
        self.head
    }

    /// The extension lines.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// The whole note as it is written to the file.
    pub fn note(&self) -> &str {
        &self.note
    }
}

/// The log's signing key. Its `Debug` shows the name only.
pub struct LogKey {
    pair: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogKey").field("name", &self.verifier.name).finish_non_exhaustive()
    }
}

impl LogKey {
    /// The key `name` (also the checkpoints' origin) from an Ed25519 seed (RFC 8032 §5.1.5 private key).
    ///
    /// # Errors
    /// `BadNote` when the name is empty or has spaces, control characters or `+` (C2SP signed-note).
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, AuditError> {
        check_name(name)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| AuditError::BadNote("the seed is no key"))?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| AuditError::BadNote("the key's size"))?;
        Ok(Self { pair, verifier: VerifierKey { name: name.into(), public } })
    }

    /// The public half.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs `head` with extension lines (each without line breaks, not empty).
    pub fn sign(&self, head: Checkpoint, extensions: &[String]) -> SignedCheckpoint {
        let mut note = format!("{}\n{}\n{}\n", self.verifier.name, head.size, BASE64.encode(head.root));
        for line in extensions {
            note.push_str(line);
            note.push('\n');
        }
        let mut signature = self.verifier.id().to_vec();
        signature.extend_from_slice(self.pair.sign(note.as_bytes()).as_ref());
        let line = format!("\n{SIGNATURE_MARK}{} {}\n", self.verifier.name, BASE64.encode(signature));
        note.push_str(&line);
        SignedCheckpoint { head, extensions: extensions.to_vec(), note }
    }
}

/// The log's public key: all that is needed to verify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

impl fmt::Display for VerifierKey {
    /// `name+hash+key` as in C2SP signed-note.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519_TYPE];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), BASE64.encode(key))
    }
}

impl VerifierKey {
    /// Parses the C2SP form `name+hash+key`; surrounding white space is ignored.
    ///
    /// # Errors
    /// `BadNote` with what is wrong.
    pub fn parse(text: &str) -> Result<Self, AuditError> {
        let mut fields = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(AuditError::BadNote("a verifier key is name+hash+key"));
        };
        check_name(name)?;
        let key = BASE64.decode(key).map_err(|_| AuditError::BadNote("the verifier key is not base64"))?;
        let Some((&ED25519_TYPE, public)) = key.split_first() else {
            return Err(AuditError::BadNote("the verifier key is not an Ed25519 key"));
        };
        let public = public.try_into().map_err(|_| AuditError::BadNote("the verifier key's size"))?;
        let parsed = Self { name: name.into(), public };
        if hex::encode(parsed.id()) != id {
            return Err(AuditError::BadNote("the verifier key's hash does not match"));
        }
        Ok(parsed)
    }

    /// Whether `signature` is the log's of `text`, which is no checkpoint: what the log's key signs begins with what it is.
    #[must_use]
    pub fn has_signed(&self, text: &str, signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.public).verify(text.as_bytes(), signature).is_ok()
    }

    /// The name, which is the origin line of the checkpoints it signs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256(name ‖ 0x0A ‖ 0x01 ‖ key), the first four bytes.
    fn id(&self) -> [u8; 4] {
        let input = [self.name.as_bytes(), &[b'\n', ED25519_TYPE], &self.public].concat();
        let hash = sha256(&input);
        [hash[0], hash[1], hash[2], hash[3]]
    }

    /// Parses a signed checkpoint and verifies its origin and signature. Signatures of other keys are ignored.
    ///
    /// # Errors
    /// `BadNote` with what is wrong.
    pub fn open(&self, note: &str) -> Result<SignedCheckpoint, AuditError> {
        let parsed = parse_note(note)?;
        if parsed.origin != self.name {
            return Err(AuditError::BadNote("the checkpoint is of another log"));
        }
        let verified = parsed.signatures.iter().any(|line| self.signed(parsed.text, line));
        if !verified {
            return Err(AuditError::BadNote("no valid signature of the log's key"));
        }
        let extensions = parsed.extensions.iter().map(|line| (*line).to_owned()).collect();
        Ok(SignedCheckpoint { head: parsed.head, extensions, note: note.to_owned() })
    }

    fn signed(&self, text: &str, line: &SignatureLine<'_>) -> bool {
        let Some((id, signature)) = line.bytes.split_at_checked(4) else { return false };
        line.name == self.name
            && id == self.id()
            && UnparsedPublicKey::new(&ED25519, self.public).verify(text.as_bytes(), signature).is_ok()
    }
}

fn check_name(name: &str) -> Result<(), AuditError> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.len() > 256 || name.contains(bad) {
        return Err(AuditError::BadNote("a log's name has 1 to 256 bytes without spaces and `+`"));
    }
    Ok(())
}

/// A checkpoint note taken apart, nothing verified.
pub(crate) struct ParsedNote<'a> {
    pub(crate) origin: &'a str,
    pub(crate) head: Checkpoint,
    extensions: Vec<&'a str>,
    text: &'a str,
    signatures: Vec<SignatureLine<'a>>,
}

struct SignatureLine<'a> {
    name: &'a str,
    bytes: Vec<u8>,
}

/// Parses the C2SP tlog-checkpoint in a signed note.
pub(crate) fn parse_note(note: &str) -> Result<ParsedNote<'_>, AuditError> {
    if note.len() > MAX_NOTE || note.contains(|c: char| c.is_control() && c != '\n') {
        return Err(AuditError::BadNote("too long or with control characters"));
    }
    let split = note.find("\n\n").ok_or(AuditError::BadNote("no signature block"))?;
    let (text, signatures) = (&note[..=split], &note[split + 2..]);
    let mut lines = text[..split].split('\n');
    let origin = lines.next().filter(|line| !line.is_empty()).ok_or(AuditError::BadNote("no origin line"))?;
    let size = lines.next().and_then(decimal).ok_or(AuditError::BadNote("the tree size is no number"))?;
    let root = lines
        .next()
        .and_then(|line| BASE64.decode(line).ok())
        .and_then(|bytes| Hash::try_from(bytes).ok())
        .ok_or(AuditError::BadNote("the root is no hash in base64"))?;
    let signatures = parse_signatures(signatures)?;
    Ok(ParsedNote { origin, head: Checkpoint { size, root }, extensions: lines.collect(), text, signatures })
}

fn parse_signatures(block: &str) -> Result<Vec<SignatureLine<'_>>, AuditError> {
    let block = block.strip_suffix('\n').ok_or(AuditError::BadNote("the signature line has no end"))?;
    block
        .split('\n')
        .map(|line| {
            let (name, bytes) = line.strip_prefix(SIGNATURE_MARK)?.split_once(' ')?;
            Some(SignatureLine { name, bytes: BASE64.decode(bytes).ok()? })
        })
        .collect::<Option<_>>()
        .ok_or(AuditError::BadNote("a malformed signature line"))
}

/// A decimal number without sign or leading zeros.
fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    if canonical { text.parse().ok() } else { None }
}

/// Splits a history of notes into the notes and what is left over of an unfinished one at the end.
pub(crate) fn split_history(text: &str) -> (Vec<&str>, &str) {
    let mut notes = Vec::new();
    let mut rest = text;
    while let Some(end) = note_end(rest) {
        notes.push(&rest[..end]);
        rest = rest[end..].strip_prefix('\n').unwrap_or(&rest[end..]);
    }
    (notes, rest)
}

/// The length of the first complete note in `text`: up to the end of its signature lines.
fn note_end(text: &str) -> Option<usize> {
    let mut end = text.find("\n\n")? + 2;
    let start = end;
    while text[end..].starts_with(SIGNATURE_MARK) {
        end += text[end..].find('\n')? + 1;
    }
    (end > start).then_some(end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn key() -> LogKey {
        LogKey::from_seed("claviger.example/audit/1", &[7; 32]).unwrap()
    }

    fn head(size: u64) -> Checkpoint {
        Checkpoint { size, root: [size as u8; 32] }
    }

    #[test]
    fn a_signed_checkpoint_opens_with_the_exported_key() {
        let key = key();
        let exported = VerifierKey::parse(&key.verifier().to_string()).unwrap();
        let signed = key.sign(head(42), &["pruned 1".into()]);
        let opened = exported.open(signed.note()).unwrap();
        assert_eq!(opened, signed);
        assert!(signed.note().starts_with("claviger.example/audit/1\n42\n"));
        assert!(signed.note().contains("\n\n\u{2014} claviger.example/audit/1 "));
    }

    #[test]
    fn the_key_of_the_c2sp_text_is_read_and_written_the_same() {
        // RFC 8032 §7.1 test 1: the public key of the seed.
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = LogKey::from_seed("example.com/log", &seed.try_into().unwrap()).unwrap();
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(hex::encode(key.verifier().public), public);
        let text = key.verifier().to_string();
        assert_eq!(VerifierKey::parse(&text).unwrap(), *key.verifier());
        assert!(VerifierKey::parse(&text.replace("log+", "lag+")).is_err());
    }

    #[test]
    fn every_changed_character_of_a_note_is_refused() {
        let key = key();
        let note = key.sign(head(1000), &[]).note().to_owned();
        for at in (0..note.len()).filter(|at| note.is_char_boundary(*at) && note.as_bytes()[*at].is_ascii()) {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(key.verifier().open(&changed).is_err(), "byte {at}: {changed}");
        }
        let stranger = LogKey::from_seed("claviger.example/audit/1", &[8; 32]).unwrap();
        assert!(stranger.verifier().open(&note).is_err());
    }

    #[test]
    fn a_history_is_split_into_its_notes_and_an_unfinished_rest() {
        let key = key();
        let notes: Vec<String> = (0..5).map(|n| key.sign(head(n), &[]).note().to_owned()).collect();
        let history: String = notes.iter().map(|note| format!("{note}\n")).collect();
        for cut in (0..=history.len()).filter(|cut| history.is_char_boundary(*cut)) {
            let (found, rest) = split_history(&history[..cut]);
            assert!(found.iter().zip(&notes).all(|(found, note)| found == note), "{cut}");
            let whole: usize = found.iter().map(|note| note.len()).sum();
            assert!(whole + rest.len() <= cut && cut <= whole + rest.len() + found.len());
        }
        assert_eq!(split_history(&history), (notes.iter().map(String::as_str).collect(), ""));
    }

    #[test]
    fn names_that_break_the_form_are_refused() {
        for name in ["", "a b", "a+b", "a\nb", &"x".repeat(257)] {
            assert!(LogKey::from_seed(name, &[1; 32]).is_err(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_without_panic(text in ".{0,200}") {
            crate::fuzz::fuzz_checkpoint(text.as_bytes());
            crate::fuzz::fuzz_verifier_key(text.as_bytes());
        }
    }
}
