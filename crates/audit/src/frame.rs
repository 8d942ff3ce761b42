//! The bytes of a part file: a header block, then frames. Pure encoding and checking, no I/O.
//!
//! ```text
//! part   = header block of 4096 bytes, frames, zeros
//! header = "CLVAUDIT" version:u32 log2(segment):u32 origin-hash:32 sequence:u64 first:u64 salt:16 digest:16
//! frame  = magic:4 body-length:u32 count:u32 0:u32 first:u64 durable:u64 digest:16 body
//! body   = (length:u32 entry)*                                     all integers little-endian
//! ```
//!
//! A frame's digest covers the part's salt, the frame's place in the file, its header and the leaf
//! hashes of its entries, and so every byte of it: a frame is valid only where it was written.
//! The salt is random, so that nobody who can choose an entry's text can make one that reads as a
//! frame. `durable` says how many entries of the log were known to be on disk when the frame was
//! made: a valid frame after damage proves that the damaged place had been acknowledged.

use crate::merkle::{Hash, leaf_hash, sha256};

/// Entries per segment: a perfect subtree of height 16.
pub const SEGMENT: u64 = 1 << SEGMENT_HEIGHT;
pub(crate) const SEGMENT_HEIGHT: u32 = 16;
/// Longest entry, in bytes.
pub const MAX_ENTRY: usize = 64 * 1024;
/// Size of the header block; frames never share a disk block with it.
pub(crate) const PART_HEADER: usize = 4096;
/// Size of a frame's header.
pub(crate) const FRAME_HEADER: usize = 48;
/// Longest body of a frame; a larger length field is damage.
pub(crate) const MAX_BODY: usize = 64 * 1024 * 1024;

const PART_MAGIC: &[u8; 8] = b"CLVAUDIT";
const FORMAT_VERSION: u32 = 1;
/// Not UTF-8, so that it cannot occur in a JSON entry.
pub(crate) const FRAME_MAGIC: [u8; 4] = [0xf5, b'C', b'F', 0xff];
const FRAME_PURPOSE: &[u8] = b"claviger audit frame 1\n";

/// What the header block of a part says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartHeader {
    /// SHA-256 of the log's name.
    pub(crate) origin: Hash,
    /// Order of creation; a later part cuts an earlier one off at its own first entry.
    pub(crate) sequence: u64,
    /// Index of the first entry.
    pub(crate) first: u64,
    /// Random, part of every frame's digest.
    pub(crate) salt: [u8; 16],
}

impl PartHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(PART_HEADER);
        block.extend_from_slice(PART_MAGIC);
        block.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        block.extend_from_slice(&SEGMENT_HEIGHT.to_le_bytes());
        block.extend_from_slice(&self.origin);
        block.extend_from_slice(&self.sequence.to_le_bytes());
        block.extend_from_slice(&self.first.to_le_bytes());
        block.extend_from_slice(&self.salt);
        let digest = sha256(&block);
        block.extend_from_slice(&digest[..16]);
        block.resize(PART_HEADER, 0);
        block
    }

    /// The header in `block`, or why it is none.
    pub(crate) fn decode(block: &[u8]) -> Result<Self, &'static str> {
        let mut fields = Fields(block);
        let short = "the header block is cut short";
        if block.len() < PART_HEADER {
            return Err(short);
        }
        if fields.take::<8>() != Some(*PART_MAGIC) {
            return Err("not an audit log file");
        }
        let (version, height) = (fields.u32().ok_or(short)?, fields.u32().ok_or(short)?);
        let origin = fields.take::<32>().ok_or(short)?;
        let (sequence, first) = (fields.u64().ok_or(short)?, fields.u64().ok_or(short)?);
        let salt = fields.take::<16>().ok_or(short)?;
        if block[80..96] != crate::merkle::sha256(&block[..80])[..16] {
            return Err("the header's digest is wrong");
        }
        if version != FORMAT_VERSION || height != SEGMENT_HEIGHT {
            return Err("written by another format version");
        }
        if block[96..PART_HEADER].iter().any(|byte| *byte != 0) {
            return Err("the header block is not zero behind the header");
        }
        Ok(Self { origin, sequence, first, salt })
    }

    /// The index at which the part's segment ends.
    pub(crate) fn segment_end(&self) -> u64 {
        (self.first / SEGMENT + 1) * SEGMENT
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) body: usize,
    pub(crate) count: u32,
    pub(crate) first: u64,
    pub(crate) durable: u64,
    digest: [u8; 16],
}

impl FrameHeader {
    /// The header in `bytes`, if it is plausible; only [`check`] says that it is true.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.take::<4>()? != FRAME_MAGIC {
            return None;
        }
        let (body, count, zero) = (fields.u32()? as usize, fields.u32()?, fields.u32()?);
        let (first, durable) = (fields.u64()?, fields.u64()?);
        let digest = fields.take::<16>()?;
        let smallest = count as usize * 5;
        let plausible = zero == 0
            && count > 0
            && u64::from(count) <= SEGMENT
            && (smallest..=MAX_BODY).contains(&body)
            && durable <= first
            && first.checked_add(u64::from(count)).is_some();
        plausible.then_some(Self { body, count, first, durable, digest })
    }

    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// Writes the header into the first [`FRAME_HEADER`] bytes of `frame`, whose body is in place, for `offset` in the
/// part with `salt`.
pub(crate) fn seal(frame: &mut [u8], salt: &[u8; 16], offset: u64, first: u64, durable: u64, leaves: &[Hash]) {
    let body = frame.len() - FRAME_HEADER;
    let header = &mut frame[..FRAME_HEADER];
    header[..4].copy_from_slice(&FRAME_MAGIC);
    header[4..8].copy_from_slice(&(body as u32).to_le_bytes());
    header[8..12].copy_from_slice(&(leaves.len() as u32).to_le_bytes());
    header[12..16].fill(0);
    header[16..24].copy_from_slice(&first.to_le_bytes());
    header[24..32].copy_from_slice(&durable.to_le_bytes());
    let digest = frame_digest(salt, offset, header, leaves);
    header[32..].copy_from_slice(&digest);
}

fn frame_digest(salt: &[u8; 16], offset: u64, header: &[u8], leaves: &[Hash]) -> [u8; 16] {
    let mut input = Vec::with_capacity(96 + leaves.len() * 32);
    input.extend_from_slice(FRAME_PURPOSE);
    input.extend_from_slice(salt);
    input.extend_from_slice(&offset.to_le_bytes());
    input.extend_from_slice(&header[..32]);
    input.extend_from_slice(leaves.as_flattened());
    let mut digest = [0; 16];
    digest.copy_from_slice(&sha256(&input)[..16]);
    digest
}

/// The leaf hashes of a frame's entries, if the frame is whole and belongs at `offset` of the part with `salt`.
pub(crate) fn check(salt: &[u8; 16], offset: u64, header: &FrameHeader, raw: &[u8], body: &[u8]) -> Option<Vec<Hash>> {
    let entries = split_body(body)?;
    if entries.len() != header.count as usize || body.len() != header.body {
        return None;
    }
    let leaves: Vec<Hash> = entries.into_iter().map(leaf_hash).collect();
    (frame_digest(salt, offset, raw, &leaves) == header.digest).then_some(leaves)
}

/// The entries of a body, if their lengths cover it exactly.
pub(crate) fn split_body(body: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || length > MAX_ENTRY {
            return None;
        }
        let (entry, behind) = behind.split_at_checked(length)?;
        entries.push(entry);
        rest = behind;
    }
    Some(entries)
}

/// Appends an entry to a body.
pub(crate) fn push_entry(body: &mut Vec<u8>, entry: &[u8]) {
    body.extend_from_slice(&(entry.len() as u32).to_le_bytes());
    body.extend_from_slice(entry);
}

/// How many bytes the first `count` entries of a body made here take.
pub(crate) fn body_prefix(body: &[u8], count: usize) -> usize {
    let mut at = 0;
    for _ in 0..count {
        let Some(length) = body[at..].first_chunk::<4>() else { break };
        at += 4 + u32::from_le_bytes(*length) as usize;
    }
    at
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn sealed(entries: &[Vec<u8>], salt: &[u8; 16], offset: u64) -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEADER];
        entries.iter().for_each(|entry| push_entry(&mut frame, entry));
        let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        seal(&mut frame, salt, offset, 10, 10, &leaves);
        frame
    }

    fn opens(frame: &[u8], salt: &[u8; 16], offset: u64) -> bool {
        let Some((raw, body)) = frame.split_at_checked(FRAME_HEADER) else { return false };
        FrameHeader::decode(raw).is_some_and(|header| check(salt, offset, &header, raw, body).is_some())
    }

    #[test]
    fn a_part_header_survives_the_round_trip_and_no_bit_flip() {
        let header = PartHeader { origin: [3; 32], sequence: 4, first: 65_537, salt: [5; 16] };
        let block = header.encode();
        assert_eq!(PartHeader::decode(&block), Ok(header));
        assert_eq!(header.segment_end(), 131_072);
        for bit in 0..block.len() * 8 {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(PartHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_bit_flip_and_every_cut_of_a_frame_is_noticed() {
        let frame = sealed(&[b"{\"a\":1}".to_vec(), b"{}".to_vec()], &[1; 16], 4096);
        assert!(opens(&frame, &[1; 16], 4096));
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&flipped, &[1; 16], 4096), "bit {bit}");
        }
        for cut in 0..frame.len() {
            assert!(!opens(&frame[..cut], &[1; 16], 4096), "cut {cut}");
        }
    }

    #[test]
    fn a_frame_is_valid_only_in_its_own_place() {
        let frame = sealed(&[b"{}".to_vec()], &[1; 16], 4096);
        assert!(!opens(&frame, &[2; 16], 4096));
        assert!(!opens(&frame, &[1; 16], 4097));
    }

    proptest! {
        #[test]
        fn frames_survive_the_round_trip(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..20)) {
            let frame = sealed(&entries, &[9; 16], 77);
            prop_assert!(opens(&frame, &[9; 16], 77));
            let body = &frame[FRAME_HEADER..];
            prop_assert_eq!(split_body(body).unwrap(), entries.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(body_prefix(body, entries.len()), body.len());
        }

        #[test]
        fn any_bytes_are_parsed_or_refused_without_panic(mut data in prop::collection::vec(any::<u8>(), 0..400), magic: bool) {
            if magic && data.len() >= 4 {
                data[..4].copy_from_slice(&FRAME_MAGIC);
            }
            crate::fuzz::fuzz_frame(&data);
            crate::fuzz::fuzz_checkpoint(&data);
        }
    }
}
