//! One connection that waits: a request goes out, its answer comes back. For preparing and for timing single
//! exchanges, where one at a time is the point.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::{ClientConnection, StreamOwned};

use crate::response::{Chunks, Framing, Head, parse_head};
use crate::tls::Peer;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A connection, kept alive between exchanges.
pub(crate) struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Client {
    /// Connects; the handshake takes place with the first exchange.
    pub(crate) fn open(peer: &Peer) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(peer.address).with_context(|| format!("connecting to {}", peer.address))?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.set_nodelay(true)?;
        let tls = ClientConnection::new(peer.config.clone(), peer.name.clone())?;
        Ok(Self { stream: StreamOwned::new(tls, socket) })
    }

    /// Sends a request and waits for the whole answer.
    ///
    /// # Errors
    /// The connection ends, or what comes is not HTTP.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> anyhow::Result<(Head, Vec<u8>)> {
        self.stream.write_all(request)?;
        let (mut input, mut output) = (Vec::new(), Vec::new());
        let mut chunks = Chunks::default();
        let mut head = None;
        loop {
            if head.is_none() {
                head = parse_head(&input)?;
                input.drain(..head.map_or(0, |head: Head| head.length));
            }
            if let Some(head) = head {
                let is_complete = match head.framing {
                    Framing::Chunked => chunks.feed(&mut input, &mut output)?,
                    Framing::Length(length) => {
                        output.append(&mut input);
                        output.len() >= length
                    }
                };
                if is_complete {
                    return Ok((head, output));
                }
            }
            let mut buffer = [0; 16 * 1024];
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                bail!("the server closed the connection before its answer was complete");
            }
            input.extend_from_slice(&buffer[..count]);
        }
    }
}
