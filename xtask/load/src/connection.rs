//! One non-blocking TLS connection, driven by readiness events.
//!
//! It moves bytes and knows nothing of HTTP. Sockets are registered once, edge-triggered, for both
//! directions; a read that fills less than was offered has drained the socket, which saves the
//! second receive that would only say so.

use std::io::{self, Read, Write};

use anyhow::Context as _;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::ClientConnection;

use crate::tls::Peer;

/// Bytes offered to each receive; answers of the bench fit in one.
const RECEIVE: usize = 16 * 1024;

/// What a pump of the connection ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// More may come.
    Open,
    /// The peer has closed its side.
    Closed,
}

pub(crate) struct Connection {
    socket: TcpStream,
    tls: ClientConnection,
    /// Decrypted bytes that the caller has not consumed yet.
    pub(crate) received: Vec<u8>,
}

impl Connection {
    /// Begins to connect; what is sent before the handshake ends goes out after it.
    pub(crate) fn open(peer: &Peer, registry: &Registry, token: Token) -> anyhow::Result<Self> {
        let mut socket = TcpStream::connect(peer.address).with_context(|| format!("connecting to {}", peer.address))?;
        let _ = socket.set_nodelay(true);
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        let mut tls = ClientConnection::new(peer.config.clone(), peer.name.clone())?;
        tls.set_buffer_limit(None);
        Ok(Self { socket, tls, received: Vec::with_capacity(RECEIVE) })
    }

    /// Queues `bytes` and sends what the socket takes now.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.tls.writer().write_all(bytes)?;
        self.flush()
    }

    /// Sends what is queued, until the socket is full.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if is_not_ready(&error) => break,
                Err(error) => return Err(error).context("sending"),
            }
        }
        Ok(())
    }

    /// Receives all that has come, decrypts it into `received`, and answers the handshake.
    pub(crate) fn receive(&mut self) -> anyhow::Result<State> {
        loop {
            let (count, drained) = {
                let mut socket = Counting { socket: &mut self.socket, drained: false };
                match self.tls.read_tls(&mut socket) {
                    Ok(count) => (count, socket.drained),
                    Err(error) if is_not_ready(&error) => break,
                    Err(error) => return Err(error).context("receiving"),
                }
            };
            let plain = self.tls.process_new_packets()?.plaintext_bytes_to_read();
            if plain > 0 {
                let start = self.received.len();
                self.received.resize(start + plain, 0);
                self.tls.reader().read_exact(&mut self.received[start..])?;
            }
            if count == 0 {
                return Ok(State::Closed);
            }
            if drained {
                break;
            }
        }
        if self.tls.wants_write() {
            self.flush()?;
        }
        Ok(State::Open)
    }

    /// Says goodbye without waiting for an answer, and leaves the event loop.
    pub(crate) fn close(mut self, registry: &Registry) {
        self.tls.send_close_notify();
        let _ = self.flush();
        let _ = registry.deregister(&mut self.socket);
    }
}

/// Notes whether a receive returned less than it was offered.
struct Counting<'a> {
    socket: &'a mut TcpStream,
    drained: bool,
}

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.read(buffer)?;
        self.drained = count < buffer.len();
        Ok(count)
    }
}

fn is_not_ready(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        // An edge that comes before the connect has finished.
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected | io::ErrorKind::Interrupted
    )
}
