//! Closed loops on a Unix socket: each connection has one request in flight and sends the next when it is answered.
//!
//! Every answer's status and body length are checked. Connecting and warming up do not count.

use std::io::{ErrorKind, Read as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use mio::net::UnixStream;
use mio::{Events, Interest, Poll, Token};

use crate::report::{Latencies, cpu_time};
use crate::seconds;

/// Options of the mode.
#[derive(Args)]
pub(crate) struct Unix {
    /// The socket.
    #[arg(long)]
    socket: PathBuf,
    /// What to ask for; `{n}` becomes a number below `--numbers`.
    #[arg(long)]
    target: String,
    /// How many numbers there are for `{n}`.
    #[arg(long, default_value_t = 1)]
    numbers: usize,
    /// Connections, each with one request in flight.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Length that each body must have.
    #[arg(long)]
    length: usize,
    /// Seconds measured.
    #[arg(long, value_parser = seconds, default_value = "5")]
    duration: Duration,
    /// Seconds of the same load before.
    #[arg(long, value_parser = seconds, default_value = "1")]
    warmup: Duration,
}

struct Connection {
    stream: UnixStream,
    next: usize,
    sent: Instant,
    read: Vec<u8>,
}

/// Runs the load and prints its report.
pub(crate) fn run(arguments: &Unix) -> anyhow::Result<()> {
    let requests: Vec<Vec<u8>> = (0..arguments.numbers)
        .map(|n| format!("GET {} HTTP/1.1\r\nHost: agent\r\n\r\n", arguments.target.replace("{n}", &n.to_string())).into_bytes())
        .collect();
    let mut poll = Poll::new()?;
    let mut connections = (0..arguments.connections).map(|n| connect(arguments, &poll, n)).collect::<anyhow::Result<Vec<_>>>()?;
    for connection in &mut connections {
        connection.send(&requests)?;
    }
    let begin = Instant::now() + arguments.warmup;
    let end = begin + arguments.duration;
    let (mut latencies, mut cpu) = (Latencies::new()?, None);
    let mut events = Events::with_capacity(1024);
    println!("measuring");
    loop {
        poll.poll(&mut events, Some(Duration::from_secs(10)))?;
        ensure!(!events.is_empty(), "no answer within 10 s");
        for event in &events {
            let connection = &mut connections[event.token().0];
            while connection.take_answer(arguments.length)? {
                let now = Instant::now();
                if connection.sent >= begin && now < end {
                    latencies.record(now - connection.sent);
                }
                connection.send(&requests)?;
            }
        }
        let now = Instant::now();
        if now >= begin {
            cpu.get_or_insert_with(cpu_time);
        }
        if now >= end {
            let used = cpu_time().saturating_sub(cpu.unwrap_or_default());
            println!("{}", latencies.report(arguments.connections, arguments.duration, used));
            return Ok(());
        }
    }
}

fn connect(arguments: &Unix, poll: &Poll, n: usize) -> anyhow::Result<Connection> {
    let mut stream = UnixStream::connect(&arguments.socket).with_context(|| format!("connecting to {}", arguments.socket.display()))?;
    poll.registry().register(&mut stream, Token(n), Interest::READABLE)?;
    Ok(Connection { stream, next: n, sent: Instant::now(), read: Vec::with_capacity(16 << 10) })
}

impl Connection {
    fn send(&mut self, requests: &[Vec<u8>]) -> anyhow::Result<()> {
        self.sent = Instant::now();
        self.next = (self.next + 1) % requests.len();
        // A request is far smaller than a socket's buffer, which is empty when none is in flight.
        Ok(self.stream.write_all(&requests[self.next])?)
    }

    /// Whether the whole answer is there; it is taken then. False when more must come.
    fn take_answer(&mut self, length: usize) -> anyhow::Result<bool> {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => anyhow::bail!("the agent closed a connection"),
            Ok(n) => self.read.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let Some(head) = self.read.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(false) };
        if self.read.len() < head + 4 + length {
            return Ok(false);
        }
        ensure!(self.read.starts_with(b"HTTP/1.1 200 "), "a wrong answer: {}", String::from_utf8_lossy(&self.read[..head]));
        ensure!(self.read.len() == head + 4 + length, "a body of another length");
        self.read.clear();
        Ok(true)
    }
}
