//! Single requests, one after another on one connection: how the bench prepares what it then measures, and how it
//! causes events at moments that it knows.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::blocking::Client;
use crate::report::monotonic_ns;
use crate::requests::{Requests, What};
use crate::tls::Peer;
use crate::{Server, seconds};

/// Options of the mode.
#[derive(Args)]
pub(crate) struct Once {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    what: What,
    /// How many requests to send; each gets a line of its own.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Seconds between an answer and the next request.
    #[arg(long, value_parser = seconds, default_value = "0")]
    pause: Duration,
    /// First number put in place of `{n}`.
    #[arg(long, default_value_t = 0)]
    first_number: u64,
}

/// Sends the requests and prints for each `{"status", "length", "body", "sent_ns", "answered_ns"}`, whatever the
/// status. Times are on the machine's monotonic clock.
pub(crate) fn run(arguments: &Once) -> anyhow::Result<()> {
    let peer = Peer::new(&arguments.server)?;
    let requests = Requests::new(&arguments.what, &peer.authority, &arguments.server.headers)?;
    let mut client = Client::open(&peer)?;
    let mut request = Vec::new();
    for number in 0..arguments.count {
        if number > 0 {
            thread::sleep(arguments.pause);
        }
        requests.write(arguments.first_number + number, &mut request);
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", exchange(&mut client, &request)?)?;
        out.flush()?;
    }
    Ok(())
}

fn exchange(client: &mut Client, request: &[u8]) -> anyhow::Result<Value> {
    let sent = monotonic_ns();
    let (head, body) = client.exchange(request)?;
    Ok(json!({
        "status": head.status,
        "length": body.len(),
        "body": String::from_utf8_lossy(&body),
        "sent_ns": sent,
        "answered_ns": monotonic_ns(),
    }))
}
