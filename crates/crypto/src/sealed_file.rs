//! Files that are encrypted where they lie, under a data key of their own that a used key wraps: no file has to fit into
//! memory, and the server sees nothing of it.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | `claviger-file-1` and a line feed |
//! | 2 + n | length, big endian, and the id of the key that wraps the data key |
//! | 2 + n | length, big endian, and the wrapped data key |
//! | 65,552 each | chunks: up to 65,536 bytes under AES-256-GCM, and the tag; only the last one is shorter |
//!
//! The data key has 32 bytes, encrypts this file only, and was wrapped with the associated data [`bound_to`] gives. A chunk's
//! nonce is its number, from 0, in 11 bytes, big endian, and one byte that is 1 for the last chunk (the STREAM construction:
//! Hoang, Reyhanitabar, Rogaway, Vizár 2015); its associated data is the first 16 bytes. So a chunk that is missing, moved,
//! doubled or cut off is refused, also at the end. What stands in the clear is not authenticated by itself: another id or
//! wrapped key does not give this data key. Rewrapping replaces the wrapped key and leaves the chunks alone.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use claviger_domain::{KeyId, SecretBytes};
use std::io::{self, Read, Write};
use thiserror::Error;
use zeroize::Zeroizing;

/// The first bytes.
pub const MAGIC: &[u8; 16] = b"claviger-file-1\n";
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;

/// Why a file is not encrypted or decrypted.
#[derive(Debug, Error)]
pub enum FileError {
    /// It does not begin as such a file does.
    #[error("this is no file that `claviger encrypt` made")]
    NoFile,
    /// It ends in its head, or its head is no head.
    #[error("the file's head is damaged or cut off")]
    Head,
    /// A chunk does not authenticate.
    #[error("the file is damaged at about byte {at} of its content: altered, cut off, or put together from several")]
    Damaged {
        /// Where the chunk begins.
        at: u64,
    },
    /// The data key has not 32 bytes.
    #[error("the data key that the file names is of another length than 32 bytes")]
    DataKey,
    /// More chunks than numbers.
    #[error("the file is too long")]
    TooLong,
    /// Reading failed.
    #[error("reading: {0}")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("writing: {0}")]
    Write(#[source] io::Error),
}

/// What stands before the chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHead {
    /// The key that wraps the data key.
    pub key: KeyId,
    /// The wrapped data key.
    pub wrapped: Vec<u8>,
}

impl FileHead {
    /// Reads a head; what follows it is left.
    ///
    /// # Errors
    /// [`FileError::NoFile`], [`FileError::Head`], [`FileError::Read`].
    pub fn read(from: &mut impl Read) -> Result<Self, FileError> {
        let mut magic = [0; MAGIC.len()];
        exactly(from, &mut magic).map_err(|e| if matches!(e, FileError::Head) { FileError::NoFile } else { e })?;
        match &magic == MAGIC {
            true => Self::read_rest(from),
            false => Err(FileError::NoFile),
        }
    }

    /// As [`FileHead::read`], behind the first bytes.
    ///
    /// # Errors
    /// [`FileError::Head`], [`FileError::Read`].
    pub fn read_rest(from: &mut impl Read) -> Result<Self, FileError> {
        let key = field(from)?;
        let key = std::str::from_utf8(&key).ok().and_then(|id| KeyId::parse(id).ok()).ok_or(FileError::Head)?;
        Ok(Self { key, wrapped: field(from)? })
    }

    /// Writes a head.
    ///
    /// # Errors
    /// [`FileError::Write`]; [`FileError::Head`] when the wrapped key has 64 KiB.
    pub fn write(&self, to: &mut impl Write) -> Result<(), FileError> {
        let Self { key, wrapped } = self;
        let mut head = MAGIC.to_vec();
        for part in [key.as_str().as_bytes(), wrapped] {
            head.extend_from_slice(&u16::try_from(part.len()).map_err(|_| FileError::Head)?.to_be_bytes());
            head.extend_from_slice(part);
        }
        to.write_all(&head).map_err(FileError::Write)
    }
}

/// The associated data with which a file's data key is wrapped: nothing else that was encrypted in this context opens as one.
#[must_use]
pub fn bound_to(context: &[u8]) -> Vec<u8> {
    [&MAGIC[..], context].concat()
}

/// Encrypts everything that `from` has, behind a head that was written. Gives the number of its bytes.
///
/// # Errors
/// [`FileError`]; what was written until then is no whole file.
pub fn encrypt(data_key: &SecretBytes, from: &mut impl Read, to: &mut impl Write) -> Result<u64, FileError> {
    let key = key(data_key)?;
    let (mut now, mut next) = (buffer(), buffer());
    let mut len = fill(from, &mut now[..CHUNK])?;
    let (mut number, mut total) = (0u64, 0u64);
    loop {
        // A full chunk is the last one where nothing follows.
        let following = if len == CHUNK { fill(from, &mut next[..CHUNK])? } else { 0 };
        let is_last = following == 0;
        let tag = key.seal_in_place_separate_tag(nonce(number, is_last), Aad::from(MAGIC), &mut now[..len]);
        let tag = tag.map_err(|_| FileError::TooLong)?;
        now[len..len + TAG].copy_from_slice(tag.as_ref());
        to.write_all(&now[..len + TAG]).map_err(FileError::Write)?;
        total += len as u64;
        if is_last {
            return Ok(total);
        }
        number = number.checked_add(1).ok_or(FileError::TooLong)?;
        std::mem::swap(&mut now, &mut next);
        len = following;
    }
}

/// Decrypts everything that follows a head that was read. Gives the number of bytes.
///
/// # Guarantees
/// No byte is written that was not authenticated. That the end is the end is known when this returns `Ok`, and not before.
///
/// # Errors
/// [`FileError`] says where the file is damaged.
pub fn decrypt(data_key: &SecretBytes, from: &mut impl Read, to: &mut impl Write) -> Result<u64, FileError> {
    let key = key(data_key)?;
    let (mut now, mut next) = (buffer(), buffer());
    let mut len = fill(from, &mut now)?;
    let (mut number, mut total) = (0u64, 0u64);
    loop {
        let following = if len == CHUNK + TAG { fill(from, &mut next)? } else { 0 };
        let is_last = following == 0;
        let damaged = FileError::Damaged { at: total };
        let Ok(plain) = key.open_in_place(nonce(number, is_last), Aad::from(MAGIC), &mut now[..len]) else { return Err(damaged) };
        to.write_all(plain).map_err(FileError::Write)?;
        total += plain.len() as u64;
        if is_last {
            return Ok(total);
        }
        number = number.checked_add(1).ok_or(FileError::TooLong)?;
        std::mem::swap(&mut now, &mut next);
        len = following;
    }
}

fn key(data_key: &SecretBytes) -> Result<LessSafeKey, FileError> {
    let bytes: &[u8; 32] = data_key.expose().try_into().map_err(|_| FileError::DataKey)?;
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| FileError::DataKey)?))
}

/// Safe since a data key encrypts one file, and no two chunks of it have one number.
fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(nonce)
}

fn buffer() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(vec![0; CHUNK + TAG])
}

/// Reads until the buffer is full or the source ends.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize, FileError> {
    let mut len = 0;
    while len < buffer.len() {
        match from.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FileError::Read(error)),
        }
    }
    Ok(len)
}

fn exactly(from: &mut impl Read, buffer: &mut [u8]) -> Result<(), FileError> {
    if fill(from, buffer)? == buffer.len() { Ok(()) } else { Err(FileError::Head) }
}

fn field(from: &mut impl Read) -> Result<Vec<u8>, FileError> {
    let mut len = [0; 2];
    exactly(from, &mut len)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(len))];
    exactly(from, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn data_key(byte: u8) -> SecretBytes {
        SecretBytes::new(vec![byte; 32])
    }

    fn head() -> FileHead {
        FileHead { key: KeyId::parse("team/files").unwrap(), wrapped: vec![5; 130] }
    }

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        assert_eq!(encrypt(&data_key(7), &mut &*plain, &mut out).unwrap(), plain.len() as u64);
        out
    }

    fn opened(sealed: &[u8]) -> Result<Vec<u8>, FileError> {
        let mut out = Vec::new();
        decrypt(&data_key(7), &mut &*sealed, &mut out).map(|_| out)
    }

    #[test]
    fn files_of_every_length_around_a_chunk_come_back() {
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5] {
            let plain: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let sealed = sealed(&plain);
            assert_eq!(sealed.len(), len + len.div_ceil(CHUNK).max(1) * TAG, "{len}");
            assert_eq!(opened(&sealed).unwrap(), plain, "{len}");
            let mut out = Vec::new();
            assert!(decrypt(&data_key(8), &mut &*sealed, &mut out).is_err() && out.is_empty());
        }
    }

    #[test]
    fn a_file_cut_off_put_together_or_added_to_is_refused() {
        let sealed = sealed(&vec![1; 3 * CHUNK + 5]);
        let part = CHUNK + TAG;
        let chunks: Vec<&[u8]> = sealed.chunks(part).collect();
        let refused = |parts: &[&[u8]]| assert!(matches!(opened(&parts.concat()), Err(FileError::Damaged { .. })));
        refused(&chunks[..3]);
        refused(&chunks[1..]);
        refused(&[chunks[1], chunks[0], chunks[2], chunks[3]]);
        refused(&[chunks[0], chunks[0], chunks[1], chunks[2], chunks[3]]);
        refused(&[chunks[0], chunks[2], chunks[3]]);
        refused(&[&sealed, chunks[3]]);
        refused(&[&sealed, &[0]]);
        refused(&[]);
        for len in [1, TAG, part - 1, part, part + 1, sealed.len() - 1] {
            refused(&[&sealed[..len]]);
        }
        // The last chunk of another length of the same file, which has the same number.
        let mut shorter = Vec::new();
        encrypt(&data_key(7), &mut &vec![1; CHUNK][..], &mut shorter).unwrap();
        refused(&[&shorter, chunks[1], chunks[2], chunks[3]]);
        assert!(matches!(opened(&[&sealed[..2 * part], &[0; 9]].concat()), Err(FileError::Damaged { at }) if at == 2 * CHUNK as u64));
    }

    #[test]
    fn a_head_is_read_as_it_was_written_or_refused() {
        let mut bytes = Vec::new();
        head().write(&mut bytes).unwrap();
        bytes.extend_from_slice(b"rest");
        let mut from = &bytes[..];
        assert_eq!(FileHead::read(&mut from).unwrap(), head());
        assert_eq!(from, b"rest");
        for len in 0..bytes.len() - 4 {
            let error = FileHead::read(&mut &bytes[..len]).unwrap_err();
            assert_eq!(matches!(error, FileError::NoFile), len < 16, "{len}");
        }
        assert!(matches!(FileHead::read(&mut &b"something else, and longer"[..]), Err(FileError::NoFile)));
        let long = FileHead { wrapped: vec![0; 1 << 16], ..head() };
        assert!(matches!(long.write(&mut Vec::new()), Err(FileError::Head)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_give_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            crate::fuzz::sealed_file(&bytes);
            let mut all = MAGIC.to_vec();
            all.extend(bytes);
            crate::fuzz::sealed_file(&all);
        }
    }
}
