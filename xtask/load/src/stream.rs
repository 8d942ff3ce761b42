//! Many server-sent-event streams, and when each event arrived on them.
//!
//! Times are on the machine's monotonic clock, which the process that causes the events reads too;
//! so the difference needs no message between them. A stream that the server ends is counted, not
//! an error: being cut off may be what a run is about.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use mio::{Events, Poll, Token};
use serde_json::{Value, json};

use crate::connection::{Connection, State};
use crate::report::monotonic_ns;
use crate::requests::{Requests, What};
use crate::response::{Chunks, Framing, parse_head};
use crate::tls::Peer;
use crate::{Server, seconds};

/// Streams that may be in their handshake at once, so that no backlog overflows.
const OPENING_AT_ONCE: usize = 64;
/// How long the server may be silent while streams are being opened.
const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// Options of the mode.
#[derive(Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    what: What,
    /// Streams to open; each takes a file descriptor.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// The type of the events that count; others, such as heartbeats, may repeat an id.
    #[arg(long, default_value = "message")]
    event: String,
    /// Seconds to listen, from the moment all streams are open.
    #[arg(long, value_parser = seconds, default_value = "5")]
    duration: Duration,
}

/// Opens the streams, prints `measuring`, listens, and prints the report.
pub(crate) fn run(arguments: &Watch) -> anyhow::Result<()> {
    let mut listener = Listener::new(arguments)?;
    listener.open_all()?;
    println!("measuring");
    std::io::stdout().flush()?;
    let end = Instant::now() + arguments.duration;
    while Instant::now() < end {
        listener.turn(end.saturating_duration_since(Instant::now()))?;
    }
    println!("{}", listener.report());
    Ok(())
}

struct Listener<'a> {
    arguments: &'a Watch,
    peer: Peer,
    requests: Requests,
    poll: Poll,
    events: Events,
    streams: Vec<Option<Stream>>,
    open: usize,
    closed: usize,
    /// Arrival times of each event id, one per stream.
    arrivals: BTreeMap<String, Vec<u64>>,
}

impl<'a> Listener<'a> {
    fn new(arguments: &'a Watch) -> anyhow::Result<Self> {
        let peer = Peer::new(&arguments.server)?;
        let requests = Requests::new(&arguments.what, &peer.authority, &arguments.server.headers)?;
        Ok(Self {
            arguments,
            peer,
            requests,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            streams: Vec::new(),
            open: 0,
            closed: 0,
            arrivals: BTreeMap::new(),
        })
    }

    fn open_all(&mut self) -> anyhow::Result<()> {
        let mut request = Vec::new();
        let mut progress = Instant::now();
        while self.open + self.closed < self.arguments.streams {
            let settled = self.open + self.closed;
            while self.streams.len() < self.arguments.streams && self.streams.len() < settled + OPENING_AT_ONCE {
                let token = Token(self.streams.len());
                self.requests.write(token.0 as u64, &mut request);
                let mut connection = Connection::open(&self.peer, self.poll.registry(), token)?;
                connection.send(&request)?;
                self.streams.push(Some(Stream::new(connection)));
            }
            self.turn(Duration::from_millis(100))?;
            if self.open + self.closed > settled {
                progress = Instant::now();
            }
            ensure!(progress.elapsed() < OPEN_LIMIT, "only {} of {} streams opened", self.open, self.arguments.streams);
        }
        ensure!(self.closed == 0, "the server ended streams while others opened");
        Ok(())
    }

    /// Waits for news, at most `limit`, and takes them in.
    fn turn(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.poll.poll(&mut self.events, Some(limit)).context("waiting for events")?;
        let now = monotonic_ns();
        for event in &self.events {
            let place = &mut self.streams[event.token().0];
            let Some(stream) = place else { continue };
            let was_open = stream.is_open;
            let state = stream.advance(&self.arguments.event, |id| {
                self.arrivals.entry(id.to_owned()).or_default().push(now);
            })?;
            self.open += usize::from(stream.is_open && !was_open);
            if state == State::Closed {
                self.closed += 1;
                self.open -= usize::from(stream.is_open);
                if let Some(stream) = place.take() {
                    stream.connection.close(self.poll.registry());
                }
            }
        }
        Ok(())
    }

    fn report(&mut self) -> Value {
        let events: Vec<Value> = self.arrivals.iter_mut().map(|(id, times)| summary(id, times)).collect();
        json!({
            "streams": self.open,
            "closed": self.closed,
            "events": events,
        })
    }
}

/// First, median, 99th percentile and last arrival of one event, in monotonic nanoseconds.
fn summary(id: &str, times: &mut [u64]) -> Value {
    times.sort_unstable();
    let at = |permille: usize| times.get((times.len() * permille / 1000).min(times.len() - 1));
    json!({
        "id": id,
        "arrivals": times.len(),
        "first_ns": times.first(),
        "p50_ns": at(500),
        "p99_ns": at(990),
        "last_ns": times.last(),
    })
}

/// One event stream.
struct Stream {
    connection: Connection,
    is_open: bool,
    chunks: Chunks,
    events: EventIds,
}

impl Stream {
    fn new(connection: Connection) -> Self {
        Self { connection, is_open: false, chunks: Chunks::default(), events: EventIds::default() }
    }

    /// Takes in what came, and calls `arrived` with the id of each complete event of the type.
    fn advance(&mut self, event: &str, arrived: impl FnMut(&str)) -> anyhow::Result<State> {
        let state = self.connection.receive()?;
        let received = &mut self.connection.received;
        if !self.is_open {
            let Some(head) = parse_head(received)? else {
                return Ok(state);
            };
            if head.status != 200 || head.framing != Framing::Chunked {
                bail!("no event stream but an answer with status {}", head.status);
            }
            received.drain(..head.length);
            self.is_open = true;
        }
        let has_ended = self.chunks.feed(received, &mut self.events.text)?;
        self.events.take(event, arrived);
        Ok(if has_ended { State::Closed } else { state })
    }
}

/// Finds the ids in the text of an event stream (WHATWG HTML, section 9.2.6).
#[derive(Default)]
struct EventIds {
    text: Vec<u8>,
    id: Option<String>,
    /// The event's type; without one it is a `message`.
    kind: Option<String>,
}

impl EventIds {
    fn take(&mut self, event: &str, mut arrived: impl FnMut(&str)) {
        let mut at = 0;
        while let Some(length) = self.text[at..].iter().position(|byte| *byte == b'\n') {
            let line = self.text[at..at + length].trim_ascii_end();
            let text = |value: &[u8]| Some(String::from_utf8_lossy(value).trim().to_owned());
            if line.is_empty() {
                let counts = self.kind.take().as_deref().unwrap_or("message") == event;
                if let Some(id) = self.id.take().filter(|_| counts) {
                    arrived(&id);
                }
            } else if let Some(id) = line.strip_prefix(b"id:") {
                self.id = text(id);
            } else if let Some(kind) = line.strip_prefix(b"event:") {
                self.kind = text(kind);
            }
            at += length + 1;
        }
        self.text.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_when_its_blank_line_has_come() {
        let mut events = EventIds::default();
        let mut ids = Vec::new();
        events.text.extend_from_slice(b": hello\n\nid: 1-7\ndata: {}\n");
        events.take("message", |id| ids.push(id.to_owned()));
        assert!(ids.is_empty());
        events.text.extend_from_slice(b"\r\nevent: ping\nid: 1-7\n\nid:1-8\n\n");
        events.take("message", |id| ids.push(id.to_owned()));
        assert_eq!(ids, ["1-7", "1-8"]);
        assert!(events.text.is_empty());
    }

    #[test]
    fn a_summary_has_the_order_statistics() {
        let mut times: Vec<u64> = (1..=1000).rev().collect();
        let summary = summary("9", &mut times);
        assert_eq!(summary["arrivals"], 1000);
        assert_eq!(summary["first_ns"], 1);
        assert_eq!(summary["p50_ns"], 501);
        assert_eq!(summary["p99_ns"], 991);
        assert_eq!(summary["last_ns"], 1000);
    }
}
