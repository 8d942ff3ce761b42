//! Closed loops: each connection has one request in flight and sends the next when it is answered.
//!
//! # Guarantees
//! Every answer's status, and its length when one is given, is checked. Only answers that arrive
//! inside the measured window count; connecting and warming up do not.

use std::io::Write as _;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use mio::{Events, Poll, Token};

use crate::connection::{Connection, State};
use crate::report::{Latencies, cpu_time};
use crate::requests::{Requests, What};
use crate::response::{Framing, parse_head};
use crate::tls::Peer;
use crate::{Server, seconds};

/// How long all connections together may take to come up.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Most connections opened at once: what fits into a usual backlog of a listening socket.
const MOST_CONNECTIONS: usize = 1024;

/// Options of the mode.
#[derive(Args)]
pub(crate) struct Closed {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    what: What,
    /// Connections, each with one request in flight.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Seconds measured.
    #[arg(long, value_parser = seconds, default_value = "5")]
    duration: Duration,
    /// Send exactly so many requests instead, all of them measured; `--duration` and `--warmup` have no effect.
    #[arg(long)]
    count: Option<u64>,
    /// Seconds of the same load before the measured ones.
    #[arg(long, value_parser = seconds, default_value = "1")]
    warmup: Duration,
    /// Threads among which the connections are shared out.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// A status that counts as right; may be repeated.
    #[arg(long = "status", default_values_t = [200])]
    statuses: Vec<u16>,
    /// Length that each body must have, in bytes.
    #[arg(long)]
    length: Option<usize>,
    /// Open a new connection for every request.
    #[arg(long)]
    churn: bool,
    /// First number put in place of `{n}`. Each connection counts in steps of the number of connections: no number comes
    /// twice, and of a list of targets whose length is a multiple of that number each connection has a part of its own.
    #[arg(long, default_value_t = 0)]
    first_number: u64,
}

/// Runs the load and prints its report.
pub(crate) fn run(arguments: &Closed) -> anyhow::Result<()> {
    println!("{}", measure(arguments)?);
    Ok(())
}

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const DONE: u8 = 2;

/// What all threads share.
struct Run<'a> {
    arguments: &'a Closed,
    peer: Peer,
    requests: Requests,
    phase: AtomicU8,
    /// Connections that have had their first answer.
    up: AtomicUsize,
    /// Connections that have sent their share of `--count` and had all answers.
    finished: AtomicUsize,
}

fn measure(arguments: &Closed) -> anyhow::Result<serde_json::Value> {
    ensure!((1..=MOST_CONNECTIONS).contains(&arguments.connections), "between 1 and {MOST_CONNECTIONS} connections");
    let peer = Peer::new(&arguments.server)?;
    let requests = Requests::new(&arguments.what, &peer.authority, &arguments.server.headers)?;
    let run = Run { arguments, peer, requests, phase: AtomicU8::new(WARMING), up: AtomicUsize::new(0), finished: AtomicUsize::new(0) };
    ensure!(arguments.count.is_none_or(|count| count >= arguments.connections as u64), "fewer requests than connections");
    let threads = arguments.threads.clamp(1, arguments.connections);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|index| {
                let run = &run;
                scope.spawn(move || {
                    let latencies = Worker::new(run, index, threads).and_then(Worker::work);
                    // A thread that failed ends the run for all.
                    run.phase.store(DONE, Ordering::Relaxed);
                    latencies
                })
            })
            .collect();
        let conducted = run.conduct();
        run.phase.store(DONE, Ordering::Relaxed);
        let mut all = Latencies::new()?;
        for worker in workers {
            let Ok(latencies) = worker.join() else {
                bail!("a load thread panicked");
            };
            all.add(&latencies?)?;
        }
        let (window, cpu) = conducted?;
        Ok(all.report(arguments.connections, window, cpu))
    })
}

impl Run<'_> {
    /// Takes the threads through warm-up and window; returns the window's length and the CPU time
    /// that this process used in it.
    fn conduct(&self) -> anyhow::Result<(Duration, Duration)> {
        if self.arguments.count.is_some() {
            return self.conduct_counted();
        }
        let begun = Instant::now();
        while self.up.load(Ordering::Relaxed) < self.arguments.connections {
            if self.is_done() {
                bail!("stopped by a failure");
            }
            ensure!(begun.elapsed() < CONNECT_LIMIT, "not all connections came up");
            thread::sleep(Duration::from_millis(2));
        }
        thread::sleep(self.arguments.warmup);
        println!("measuring");
        std::io::stdout().flush()?;
        let (start, cpu) = (Instant::now(), cpu_time());
        if !self.is_done() {
            self.phase.store(MEASURING, Ordering::Relaxed);
            thread::sleep(self.arguments.duration);
        }
        self.phase.store(DONE, Ordering::Relaxed);
        Ok((start.elapsed(), cpu_time().saturating_sub(cpu)))
    }

    /// As [`Run::conduct`], but until all requests of `--count` are answered.
    fn conduct_counted(&self) -> anyhow::Result<(Duration, Duration)> {
        println!("measuring");
        std::io::stdout().flush()?;
        let (start, cpu) = (Instant::now(), cpu_time());
        self.phase.compare_exchange(WARMING, MEASURING, Ordering::Relaxed, Ordering::Relaxed).ok();
        while self.finished.load(Ordering::Relaxed) < self.arguments.connections && !self.is_done() {
            thread::sleep(Duration::from_millis(2));
        }
        Ok((start.elapsed(), cpu_time().saturating_sub(cpu)))
    }

    /// The number after `number` on the same connection, unless `--count` ends before it.
    fn number_after(&self, number: u64) -> Option<u64> {
        let next = number + self.arguments.connections as u64;
        let end = self.arguments.count.map(|count| self.arguments.first_number + count);
        end.is_none_or(|end| next < end).then_some(next)
    }

    fn is_done(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == DONE
    }

    /// Length of the complete and right answer at the start of `bytes`, or `None` until it is there.
    fn check(&self, bytes: &[u8]) -> anyhow::Result<Option<usize>> {
        let Some(head) = parse_head(bytes)? else {
            return Ok(None);
        };
        let Framing::Length(length) = head.framing else {
            bail!("a chunked answer, where one with a length was expected");
        };
        let end = head.length + length;
        if bytes.len() < end {
            return Ok(None);
        }
        if !self.arguments.statuses.contains(&head.status) {
            let body = String::from_utf8_lossy(&bytes[head.length..end]);
            let body: String = body.chars().take(200).collect();
            bail!("an answer with status {}: {body}", head.status);
        }
        if let Some(expected) = self.arguments.length {
            ensure!(length == expected, "a body of {length} bytes instead of {expected}");
        }
        Ok(Some(end))
    }
}

struct Slot {
    connection: Connection,
    sent: Instant,
    has_answered: bool,
    /// Number of the request that is in flight.
    number: u64,
}

/// One thread with its share of the connections.
struct Worker<'a> {
    run: &'a Run<'a>,
    poll: Poll,
    slots: Vec<Slot>,
    latencies: Latencies,
    request: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(run: &'a Run<'a>, index: usize, threads: usize) -> anyhow::Result<Self> {
        let mut worker = Self { run, poll: Poll::new()?, slots: Vec::new(), latencies: Latencies::new()?, request: Vec::new() };
        for at in (index..run.arguments.connections).step_by(threads) {
            let slot = worker.open(Token(at / threads), run.arguments.first_number + at as u64)?;
            worker.slots.push(slot);
        }
        Ok(worker)
    }

    fn open(&mut self, token: Token, number: u64) -> anyhow::Result<Slot> {
        let mut connection = Connection::open(&self.run.peer, self.poll.registry(), token)?;
        self.run.requests.write(number, &mut self.request);
        connection.send(&self.request)?;
        Ok(Slot { connection, sent: Instant::now(), has_answered: false, number })
    }

    fn work(mut self) -> anyhow::Result<Latencies> {
        let mut events = Events::with_capacity(1024);
        while !self.run.is_done() {
            self.poll.poll(&mut events, Some(Duration::from_millis(50))).context("waiting for answers")?;
            for event in &events {
                self.advance(event.token())?;
            }
        }
        Ok(self.latencies)
    }

    /// Takes in what came on one connection, and sends its next request when it is answered.
    fn advance(&mut self, token: Token) -> anyhow::Result<()> {
        let slot = &mut self.slots[token.0];
        let state = slot.connection.receive()?;
        let Some(end) = self.run.check(&slot.connection.received)? else {
            ensure!(state == State::Open, "the server closed a connection with a request in flight");
            return Ok(());
        };
        ensure!(slot.connection.received.len() == end, "bytes after the answer that nobody asked for");
        slot.connection.received.clear();
        if self.run.phase.load(Ordering::Relaxed) == MEASURING {
            self.latencies.record(slot.sent.elapsed());
        }
        if !slot.has_answered {
            slot.has_answered = true;
            self.run.up.fetch_add(1, Ordering::Relaxed);
        }
        let Some(number) = self.run.number_after(slot.number) else {
            self.run.finished.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        if self.run.arguments.churn {
            return self.replace(token, number);
        }
        ensure!(state == State::Open, "the server closed a connection that was to be kept");
        self.run.requests.write(number, &mut self.request);
        slot.number = number;
        slot.sent = Instant::now();
        slot.connection.send(&self.request)
    }

    /// Puts a new connection in the place of an answered one.
    fn replace(&mut self, token: Token, number: u64) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut fresh = self.open(token, number)?;
        // The handshake is part of what a request on a new connection costs.
        fresh.sent = started;
        fresh.has_answered = true;
        let answered = std::mem::replace(&mut self.slots[token.0], fresh);
        answered.connection.close(self.poll.registry());
        Ok(())
    }
}
