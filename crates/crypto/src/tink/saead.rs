//! AES-GCM in segments, of which a stream of any length can be encrypted and read as it comes.
//!
//! `[header length 24][salt 16][nonce prefix 7]`, then segments of ciphertext and tag. All have the key's segment size but the
//! last, which is shorter or equal; the first one is shorter by the header. The AES key is HKDF-SHA-256 of the key, the salt and the
//! associated data; a segment's nonce is `[nonce prefix 7][number, four bytes big endian][1 if it is the last]`, so segments
//! can neither be left out, swapped nor cut off. There is no prefix for any key: the right one is found by the first segment.

use super::proto::{self, Writer};
use super::set::Set;
use super::template::random_bytes;
use super::{Key, Keyset, TinkError, aead, ec, hkdf};
use crate::random;
use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use claviger_domain::SecretBytes;
use zeroize::Zeroizing;

pub(super) const TYPE_URL: &str = "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey";

const TAG: usize = 16;
const NONCE_PREFIX: usize = 7;
const DERIVED: usize = 16;
/// Length of the header, which is also its first byte.
const HEADER: usize = 1 + DERIVED + NONCE_PREFIX;
/// No segment is larger than this: a decryptor buffers one.
const LARGEST_SEGMENT: usize = 16 << 20;

/// Encryption of streams.
pub struct StreamingAead(Set<Streaming>);

struct Streaming {
    key: SecretBytes,
    segment: usize,
}

/// Segments under way: the stream's key and where it stands.
struct Segments {
    key: LessSafeKey,
    nonce_prefix: [u8; NONCE_PREFIX],
    number: u32,
}

/// Encrypts one stream.
pub struct Encryptor {
    segments: Segments,
    /// Plaintext of the segment under way. The last segment is known only at the end.
    buffer: Zeroizing<Vec<u8>>,
    /// Its whole length: less in the first segment.
    room: usize,
    segment: usize,
}

/// Decrypts one stream.
pub struct Decryptor {
    state: State,
    buffer: Vec<u8>,
}

enum State {
    /// The keys that it may be; one is chosen by the first segment.
    Choosing {
        candidates: Vec<Candidate>,
    },
    Running {
        key_id: u32,
        segments: Segments,
        segment: usize,
    },
    /// A segment did not authenticate: nothing of the stream is good.
    Failed,
}

struct Candidate {
    key_id: u32,
    key: SecretBytes,
    segment: usize,
    associated_data: Vec<u8>,
}

impl StreamingAead {
    /// Of a keyset of AES-GCM-HKDF streaming keys.
    ///
    /// # Errors
    /// [`TinkError::Unsupported`] or [`TinkError::BadKey`], which name the key; [`TinkError::PrimaryNotEnabled`].
    pub fn new(keyset: &Keyset) -> Result<Self, TinkError> {
        Set::new(keyset, parse).map(Self)
    }

    /// Begins to encrypt a stream with the primary key; the header is appended to `out`.
    ///
    /// # Errors
    /// [`TinkError::Crypto`] when AWS-LC fails.
    pub fn encryptor(&self, associated_data: &[u8], out: &mut Vec<u8>) -> Result<Encryptor, TinkError> {
        let Streaming { key, segment } = &self.0.primary().primitive;
        let mut header: [u8; HEADER] = random();
        header[0] = HEADER as u8;
        let segments = Segments::new(key, &header, associated_data)?;
        out.extend_from_slice(&header);
        let buffer = Zeroizing::new(Vec::with_capacity(segment - TAG));
        Ok(Encryptor { segments, buffer, room: segment - HEADER - TAG, segment: *segment })
    }

    /// Begins to decrypt a stream.
    #[must_use]
    pub fn decryptor(&self, associated_data: &[u8]) -> Decryptor {
        let candidate = |entry: &super::set::Entry<Streaming>| Candidate {
            key_id: entry.id,
            key: SecretBytes::new(entry.primitive.key.expose().to_vec()),
            segment: entry.primitive.segment,
            associated_data: associated_data.to_vec(),
        };
        let candidates = self.0.entries().iter().map(candidate).collect();
        Decryptor { state: State::Choosing { candidates }, buffer: Vec::new() }
    }

    /// Encrypts a whole stream.
    ///
    /// # Errors
    /// [`TinkError::TooLong`] beyond 2^32 segments.
    pub fn encrypt(&self, plain: &[u8], associated_data: &[u8]) -> Result<Vec<u8>, TinkError> {
        let mut out = Vec::new();
        let mut encryptor = self.encryptor(associated_data, &mut out)?;
        encryptor.update(plain, &mut out)?;
        encryptor.finish(&mut out)?;
        Ok(out)
    }

    /// Decrypts a whole stream.
    ///
    /// # Errors
    /// [`TinkError::NotAuthentic`].
    pub fn decrypt(&self, ciphertext: &[u8], associated_data: &[u8]) -> Result<super::Opened, TinkError> {
        let mut plain = Zeroizing::new(Vec::with_capacity(ciphertext.len()));
        let mut decryptor = self.decryptor(associated_data);
        decryptor.update(ciphertext, &mut plain)?;
        let key_id = decryptor.finish(&mut plain)?;
        Ok(super::Opened { key_id, plain: SecretBytes::new(std::mem::take(&mut *plain)) })
    }
}

impl Encryptor {
    /// Takes the next bytes of the stream; ciphertext that is ready is appended to `out`.
    ///
    /// # Errors
    /// [`TinkError::TooLong`] beyond 2^32 segments.
    pub fn update(&mut self, mut plain: &[u8], out: &mut Vec<u8>) -> Result<(), TinkError> {
        while !plain.is_empty() {
            if self.buffer.len() == self.room {
                self.segments.seal(&mut self.buffer, false, out)?;
                self.room = self.segment - TAG;
            }
            let (now, later) = plain.split_at(plain.len().min(self.room - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            plain = later;
        }
        Ok(())
    }

    /// Ends the stream. What lacks this end does not decrypt.
    ///
    /// # Errors
    /// As [`Encryptor::update`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), TinkError> {
        self.segments.seal(&mut self.buffer, true, out)
    }
}

impl Decryptor {
    /// Takes the next bytes of the stream; plaintext that is ready is appended to `out`. It is genuine as far as it goes,
    /// but only [`Decryptor::finish`] tells that nothing is missing.
    ///
    /// # Errors
    /// [`TinkError::NotAuthentic`], also for every later call.
    pub fn update(&mut self, mut ciphertext: &[u8], out: &mut Vec<u8>) -> Result<(), TinkError> {
        loop {
            self.run(false, out)?;
            if ciphertext.is_empty() {
                return Ok(());
            }
            // One byte more than a segment shows that the segment is not the last one.
            let room = self.segment()? + 1 - self.buffer.len();
            let (now, later) = ciphertext.split_at(ciphertext.len().min(room));
            self.buffer.extend_from_slice(now);
            ciphertext = later;
        }
    }

    /// Ends the stream: the id of the key that it was encrypted with.
    ///
    /// # Errors
    /// [`TinkError::NotAuthentic`] also where the stream's end is missing.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<u32, TinkError> {
        self.run(true, out)?;
        match self.state {
            State::Running { key_id, .. } => Ok(key_id),
            State::Choosing { .. } | State::Failed => Err(TinkError::NotAuthentic),
        }
    }

    /// Opens the segments that lie whole in the buffer; with `is_end`, up to the last.
    fn run(&mut self, is_end: bool, out: &mut Vec<u8>) -> Result<(), TinkError> {
        while is_end || self.buffer.len() > self.segment()? {
            let opened = match std::mem::replace(&mut self.state, State::Failed) {
                State::Failed => None,
                State::Choosing { candidates } => candidates.iter().find_map(|candidate| candidate.begin(&self.buffer, is_end, out)),
                State::Running { key_id, mut segments, segment } => {
                    let (length, is_last) = first_of(&self.buffer, segment, is_end);
                    let opened = segments.open(&self.buffer[..length], is_last, out);
                    opened.ok().map(|()| (State::Running { key_id, segments, segment }, length))
                }
            };
            let (state, length) = opened.ok_or(TinkError::NotAuthentic)?;
            self.state = state;
            self.buffer.drain(..length);
            if self.buffer.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The size of segments; the largest that it may be while the key is not known.
    fn segment(&self) -> Result<usize, TinkError> {
        match &self.state {
            State::Choosing { candidates } => Ok(candidates.iter().map(|candidate| candidate.segment).max().unwrap_or(0)),
            State::Running { segment, .. } => Ok(*segment),
            State::Failed => Err(TinkError::NotAuthentic),
        }
    }
}

/// The length of the buffer's first segment, and whether it is the stream's last.
fn first_of(buffer: &[u8], segment: usize, is_end: bool) -> (usize, bool) {
    let length = segment.min(buffer.len());
    (length, is_end && length == buffer.len())
}

impl Candidate {
    /// Opens the first segment with this key, if it is the right one.
    fn begin(&self, buffer: &[u8], is_end: bool, out: &mut Vec<u8>) -> Option<(State, usize)> {
        let (length, is_last) = first_of(buffer, self.segment, is_end);
        let (header, first) = buffer[..length].split_first_chunk::<HEADER>()?;
        if usize::from(header[0]) != HEADER {
            return None;
        }
        let mut segments = Segments::new(&self.key, header, &self.associated_data).ok()?;
        segments.open(first, is_last, out).ok()?;
        Some((State::Running { key_id: self.key_id, segments, segment: self.segment }, length))
    }
}

impl Segments {
    fn new(key: &SecretBytes, header: &[u8; HEADER], associated_data: &[u8]) -> Result<Self, TinkError> {
        let (salt, nonce_prefix) = header[1..].split_first_chunk::<DERIVED>().ok_or(TinkError::Crypto)?;
        let derived = hkdf::sha256(key.expose(), salt, associated_data, DERIVED)?;
        let nonce_prefix = nonce_prefix.try_into().map_err(|_| TinkError::Crypto)?;
        Ok(Self { key: aead::aes_gcm(&derived).ok_or(TinkError::Crypto)?, nonce_prefix, number: 0 })
    }

    /// The next segment's nonce. It never repeats under this key: the number grows, and one last segment ends the stream.
    fn nonce(&mut self, is_last: bool) -> Result<Nonce, TinkError> {
        let mut nonce = [0; NONCE_LEN];
        nonce[..NONCE_PREFIX].copy_from_slice(&self.nonce_prefix);
        nonce[NONCE_PREFIX..][..4].copy_from_slice(&self.number.to_be_bytes());
        nonce[NONCE_LEN - 1] = u8::from(is_last);
        if !is_last {
            self.number = self.number.checked_add(1).ok_or(TinkError::TooLong)?;
        }
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// Appends the segment's ciphertext to `out`; the buffer is empty afterwards.
    fn seal(&mut self, plain: &mut Zeroizing<Vec<u8>>, is_last: bool, out: &mut Vec<u8>) -> Result<(), TinkError> {
        let nonce = self.nonce(is_last)?;
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::empty(), plain)?;
        out.extend_from_slice(plain);
        out.extend_from_slice(tag.as_ref());
        plain.clear();
        Ok(())
    }

    /// Appends the segment's plaintext to `out`; nothing when it is not genuine.
    fn open(&mut self, sealed: &[u8], is_last: bool, out: &mut Vec<u8>) -> Result<(), TinkError> {
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG>().ok_or(TinkError::NotAuthentic)?;
        let nonce = self.nonce(is_last)?;
        let start = out.len();
        out.resize(start + ciphertext.len(), 0);
        let opened = self.key.open_separate_gather(nonce, Aad::empty(), ciphertext, tag, &mut out[start..]);
        opened.map_err(|_| {
            out.truncate(start);
            TinkError::NotAuthentic
        })
    }
}

/// Reads AesGcmHkdfStreamingKey { version = 1, params = 2, key_value = 3 }, with params { ciphertext_segment_size = 1,
/// derived_key_size = 2, hkdf_hash_type = 3 }.
fn parse(key: &Key) -> Result<Streaming, TinkError> {
    if key.type_url != TYPE_URL {
        return Err(key.wrong_type("encryption of streams"));
    }
    let (params, bytes) = key.two_fields()?;
    let (mut segment, mut derived, mut hash) = (0, 0, 0);
    proto::read(params, None, |field, value| match field {
        1 => value.number().map(|it| segment = it),
        2 => value.number().map(|it| derived = it),
        3 => value.number().map(|it| hash = it),
        _ => Err(proto::UNKNOWN),
    })?;
    if (derived as usize, hash) != (DERIVED, ec::SHA256) {
        return Err(key.unsupported("streams other than of AES-128-GCM with HKDF-SHA-256"));
    }
    let segment = segment as usize;
    if bytes.len() < DERIVED || segment <= HEADER + TAG {
        return Err(key.bad("a streaming key has at least 16 bytes, and a segment room for its header"));
    }
    if segment > LARGEST_SEGMENT {
        return Err(key.unsupported("segments of more than 16 MiB"));
    }
    Ok(Streaming { key: SecretBytes::new(bytes.to_vec()), segment })
}

pub(super) fn new_key(segment: u32) -> Zeroizing<Vec<u8>> {
    let params = Writer::with_capacity(16).number(1, segment).number(2, DERIVED as u32).number(3, ec::SHA256).done();
    Writer::with_capacity(64).message(2, &params).bytes(3, &random_bytes(DERIVED)).done()
}
