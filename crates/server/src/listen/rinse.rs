//! A socket that rinses the TLS layer's input buffer.
//!
//! rustls decrypts each record in the buffer it was read into and keeps that buffer as long as the connection, so an idle
//! connection would hold the plaintext of its last request. It lends the unused part of that buffer to each read. When
//! nothing is there to be read, everything before has been decrypted and handed on, except at most the beginning of a
//! record: so whatever plaintext there is lies in the part that is lent, and is overwritten here.
//!
//! It is correct for any reader, since the bytes of a buffer that a read did not fill are nobody's.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that overwrites the buffer of a read for which there is nothing yet.
#[derive(Debug)]
pub(super) struct Rinsed<I> {
    io: I,
    /// Whether anything was read since the buffer was last overwritten.
    is_stained: bool,
}

impl<I> Rinsed<I> {
    pub(super) fn new(io: I) -> Self {
        Self { io, is_stained: false }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Rinsed<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if polled.is_ready() {
            this.is_stained = true;
        } else if this.is_stained {
            let spare = buf.initialize_unfilled();
            spare.fill(0);
            // Keeps the compiler from dropping the writes.
            std::hint::black_box(&*spare);
            this.is_stained = false;
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Rinsed<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::AsyncWriteExt;

    fn read(io: &mut Rinsed<tokio::io::DuplexStream>, buffer: &mut [u8]) -> Option<usize> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut buf = ReadBuf::new(buffer);
        match Pin::new(io).poll_read(&mut cx, &mut buf) {
            Poll::Ready(result) => result.map(|()| Some(buf.filled().len())).unwrap(),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn a_buffer_is_overwritten_once_when_nothing_more_is_there() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut rinsed = Rinsed::new(far);
        let mut buffer = *b"untouched";
        assert_eq!((read(&mut rinsed, &mut buffer), &buffer), (None, b"untouched"));
        near.write_all(b"secret").await.unwrap();
        assert_eq!((read(&mut rinsed, &mut buffer), &buffer), (Some(6), b"secrethed"));
        assert_eq!((read(&mut rinsed, &mut buffer[2..]), &buffer), (None, b"se\0\0\0\0\0\0\0"));
        buffer = *b"untouched";
        assert_eq!((read(&mut rinsed, &mut buffer), &buffer), (None, b"untouched"));
    }
}
