//! The load generator of the bench: HTTP/1.1 over (mutual) TLS, in closed loops or on many event
//! streams, in a process of its own.
//!
//! It shares two cores with the server it measures, so it is written to cost little: plain epoll,
//! one receive and one send per request, requests built once. It deliberately knows nothing of
//! Claviger, except in `nodes`, which runs the node agent's own code: who starts it says what to send and what a right answer looks like. A single wrong
//! answer ends the run with an error, since figures about wrong answers mean nothing.
//!
//! On standard output it writes `measuring` when all connections are up and warm, and at the end
//! one line of JSON.

mod blocking;
mod closed;
mod connection;
mod flip;
mod nodes;
mod once;
mod report;
mod requests;
mod response;
mod stream;
mod tls;
mod unix;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// The command line.
#[derive(Parser)]
#[command(about = "Load over mutual TLS, and what came of it as one line of JSON")]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Keeps one request in flight on each of N connections for a fixed time.
    Closed(closed::Closed),
    /// Opens N server-sent-event streams and reports when each event arrived on them.
    Watch(stream::Watch),
    /// Sends single requests on one connection and prints status, length, body and times of each.
    Once(once::Once),
    /// Gives and takes a right in turn, and reports how soon readers are refused.
    Flip(flip::Flip),
    /// Keeps one request in flight on each of N connections to a Unix socket for a fixed time.
    Unix(unix::Unix),
    /// Runs N node agents without sockets, and reports when each key left each of them.
    Nodes(nodes::Nodes),
    /// Prints the name that a client certificate carries: its first DNS name, else its common name.
    Name {
        /// Certificate file, PEM.
        #[arg(long)]
        cert: PathBuf,
    },
}

/// Where the server is and what the client shows it.
#[derive(Args, Clone)]
struct Server {
    /// `https://host:port` of the server.
    #[arg(long)]
    url: String,
    /// File with the authorities that may sign the server's certificate, PEM.
    #[arg(long)]
    ca: PathBuf,
    /// Client certificate chain, PEM.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Private key of the client certificate, PEM.
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// A header line sent with every request, such as `Authorization: …`; may be repeated.
    #[arg(long = "header")]
    headers: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().mode {
        Mode::Closed(arguments) => closed::run(&arguments),
        Mode::Watch(arguments) => stream::run(&arguments),
        Mode::Once(arguments) => once::run(&arguments),
        Mode::Flip(arguments) => flip::run(&arguments),
        Mode::Unix(arguments) => unix::run(&arguments),
        Mode::Nodes(arguments) => nodes::run(&arguments),
        Mode::Name { cert } => {
            println!("{}", tls::name_in_certificate(&cert)?);
            Ok(())
        }
    }
}

/// Parses a number of seconds, fractions allowed.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
