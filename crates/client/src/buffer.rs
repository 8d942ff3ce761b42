//! A growing buffer that wipes what it leaves behind. A plain `Vec` leaves a copy of a secret in the heap each time it
//! grows.

use std::io;
use zeroize::Zeroizing;

/// Bytes that are wiped when the buffer grows or is dropped.
#[derive(Default)]
pub(crate) struct Buffer(Zeroizing<Vec<u8>>);

impl Buffer {
    /// An empty buffer that takes `capacity` bytes without growing.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Appends `more`.
    pub(crate) fn push(&mut self, more: &[u8]) {
        self.reserve(more.len());
        self.0.extend_from_slice(more);
    }

    /// Appends `n` zeros and gives them out to be written over; [`Buffer::truncate`] takes back what was not used.
    pub(crate) fn grow(&mut self, n: usize) -> &mut [u8] {
        self.reserve(n);
        let start = self.0.len();
        self.0.resize(start + n, 0);
        &mut self.0[start..]
    }

    /// Keeps the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Removes the first `n` bytes.
    pub(crate) fn consume(&mut self, n: usize) {
        let rest = self.0.len() - n;
        self.0.copy_within(n.., 0);
        self.0[rest..].fill(0);
        self.0.truncate(rest);
    }

    fn reserve(&mut self, more: usize) {
        let needed = self.0.len() + more;
        if needed <= self.0.capacity() {
            return;
        }
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(self.0.capacity() * 2)));
        larger.extend_from_slice(&self.0);
        // The old allocation is wiped here, as `Zeroizing` drops it.
        self.0 = larger;
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_growing_and_consuming() {
        let mut buffer = Buffer::with_capacity(4);
        for chunk in ["hello ", "wide ", "world"] {
            buffer.push(chunk.as_bytes());
        }
        buffer.consume(6);
        assert_eq!(buffer.bytes(), b"wide world");
        buffer.grow(3).copy_from_slice(b"xyz");
        buffer.truncate(11);
        assert_eq!(buffer.bytes(), b"wide worldx");
    }
}
