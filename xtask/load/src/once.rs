//! One request, one answer: how the bench prepares what it then measures.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};

use crate::Server;
use crate::requests::{Requests, What};
use crate::response::{Chunks, Framing, Head, parse_head};
use crate::tls::Peer;

/// Options of the mode.
#[derive(Args)]
pub(crate) struct Once {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    what: What,
}

/// Sends the request and prints `{"status", "length", "body"}`, whatever the status.
pub(crate) fn run(arguments: &Once) -> anyhow::Result<()> {
    println!("{}", exchange(&arguments.server, &arguments.what)?);
    Ok(())
}

fn exchange(server: &Server, what: &What) -> anyhow::Result<Value> {
    let peer = Peer::new(server)?;
    let requests = Requests::new(what, &peer.authority, &server.headers)?;
    let mut request = Vec::new();
    requests.write(0, &mut request);

    let socket = TcpStream::connect(peer.address).with_context(|| format!("connecting to {}", peer.address))?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let tls = ClientConnection::new(peer.config.clone(), peer.name.clone())?;
    let mut stream = StreamOwned::new(tls, socket);
    stream.write_all(&request)?;
    let (head, body) = read_answer(&mut stream)?;
    Ok(json!({
        "status": head.status,
        "length": body.len(),
        "body": String::from_utf8_lossy(&body),
    }))
}

fn read_answer(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> anyhow::Result<(Head, Vec<u8>)> {
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
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            bail!("the server closed the connection before its answer was complete");
        }
        input.extend_from_slice(&buffer[..count]);
    }
}
