//! A right is given and taken again and again, while two readers ask without a pause: one on a connection that stays
//! open, one on a new connection each time. How long after the taking was *sent* does each hear its first refusal?
//!
//! # Guarantees
//! A reader that was still let in by a request sent *after* the taking was acknowledged is counted as stale: that
//! would be a wrong answer, however fast the refusal comes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::Server;
use crate::blocking::Client;
use crate::report::{Latencies, monotonic_ns};
use crate::requests::{Requests, What};
use crate::tls::Peer;

/// Longest wait for a reader to notice.
const PATIENCE: Duration = Duration::from_secs(10);

/// Options of the mode.
#[derive(Args)]
pub(crate) struct Flip {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    what: What,
    /// A header line of the one who gives and takes; may be repeated. He shows no certificate.
    #[arg(long = "change-header")]
    change_headers: Vec<String>,
    /// Method of giving and taking.
    #[arg(long, default_value = "PUT")]
    change_method: String,
    /// Target of giving and taking.
    #[arg(long)]
    change_target: String,
    /// Body that gives.
    #[arg(long)]
    give: String,
    /// Body that takes.
    #[arg(long)]
    take: String,
    /// Status of a reader that is let in.
    #[arg(long, default_value_t = 200)]
    allowed: u16,
    /// Status of a reader that is refused.
    #[arg(long, default_value_t = 403)]
    refused: u16,
    /// How often the right is taken.
    #[arg(long, default_value_t = 300)]
    rounds: usize,
}

/// What readers are answered.
#[derive(Clone, Copy)]
struct Statuses {
    allowed: u16,
    refused: u16,
}

/// One exchange of a reader.
struct Seen {
    sent: u64,
    answered: u64,
    status: u16,
}

/// What a reader found over all rounds.
struct Reader {
    name: &'static str,
    seen: Receiver<anyhow::Result<Seen>>,
    latencies: Latencies,
    stale: u64,
}

/// Runs all rounds and prints `{"rounds", "open": {…}, "new": {…}, "change": {…}}`.
pub(crate) fn run(arguments: &Flip) -> anyhow::Result<()> {
    println!("{}", measure(arguments)?);
    Ok(())
}

fn measure(arguments: &Flip) -> anyhow::Result<Value> {
    let peer = Peer::new(&arguments.server)?;
    let mut request = Vec::new();
    Requests::new(&arguments.what, &peer.authority, &arguments.server.headers)?.write(0, &mut request);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (mut senders, mut readers) = (Vec::new(), Vec::new());
        for name in ["open", "new"] {
            let (sender, seen) = mpsc::channel();
            senders.push((sender, name == "open"));
            readers.push(Reader { name, seen, latencies: Latencies::new()?, stale: 0 });
        }
        for (sender, keeps) in senders {
            let (peer, request, stop) = (&peer, &request, &stop);
            scope.spawn(move || read_on(peer, request, keeps, stop, &sender));
        }
        let outcome = rounds(arguments, &peer, &mut readers);
        stop.store(true, Ordering::Relaxed);
        let change = outcome?;
        let report = |reader: &Reader| {
            let mut report = reader.latencies.summary();
            report["stale"] = json!(reader.stale);
            report
        };
        Ok(json!({ "rounds": arguments.rounds, "open": report(&readers[0]), "new": report(&readers[1]), "change": change.summary() }))
    })
}

/// Asks until told to stop; each answer goes to the conductor.
fn read_on(peer: &Peer, request: &[u8], keeps: bool, stop: &AtomicBool, sender: &Sender<anyhow::Result<Seen>>) {
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let mut ask = || {
            let sent = monotonic_ns();
            let mut client = match kept.take() {
                Some(client) => client,
                None => Client::open(peer)?,
            };
            let (head, _) = client.exchange(request)?;
            kept = keeps.then_some(client);
            Ok(Seen { sent, answered: monotonic_ns(), status: head.status })
        };
        let seen = ask();
        let has_failed = seen.is_err();
        if sender.send(seen).is_err() || has_failed {
            return;
        }
    }
}

/// Gives and takes; returns how long the taking took to be acknowledged.
fn rounds(arguments: &Flip, peer: &Peer, readers: &mut [Reader]) -> anyhow::Result<Latencies> {
    let changer = Server { cert: None, key: None, headers: arguments.change_headers.clone(), ..arguments.server.clone() };
    let changer = Peer::new(&changer)?;
    let build = |body: &str| -> anyhow::Result<Vec<u8>> {
        let what = What {
            method: arguments.change_method.clone(),
            target: arguments.change_target.clone(),
            targets: None,
            body: Some(body.to_owned()),
        };
        let mut request = Vec::new();
        Requests::new(&what, &peer.authority, &arguments.change_headers)?.write(0, &mut request);
        Ok(request)
    };
    let (give, take) = (build(&arguments.give)?, build(&arguments.take)?);
    let mut client = Client::open(&changer)?;
    let mut change = |request: &[u8]| -> anyhow::Result<(u64, u64)> {
        let sent = monotonic_ns();
        let (head, body) = client.exchange(request)?;
        ensure!(head.status < 300, "the change was answered with status {}: {}", head.status, String::from_utf8_lossy(&body));
        Ok((sent, monotonic_ns()))
    };
    let statuses = Statuses { allowed: arguments.allowed, refused: arguments.refused };
    let mut acknowledged = Latencies::new()?;
    for _ in 0..arguments.rounds {
        let (_, given) = change(&give)?;
        for reader in readers.iter_mut() {
            reader.wait_until_allowed(statuses, given)?;
        }
        let (sent, taken) = change(&take)?;
        acknowledged.record(Duration::from_nanos(taken - sent));
        for reader in readers.iter_mut() {
            reader.wait_until_refused(statuses, sent, taken)?;
        }
    }
    Ok(acknowledged)
}

impl Reader {
    fn next(&self) -> anyhow::Result<Seen> {
        self.seen.recv_timeout(PATIENCE).with_context(|| format!("the reader `{}` fell silent", self.name))?
    }

    /// Until a request that was sent after `given` is let in.
    fn wait_until_allowed(&mut self, statuses: Statuses, given: u64) -> anyhow::Result<()> {
        loop {
            let seen = self.next()?;
            if seen.sent < given {
                continue;
            }
            if seen.status == statuses.allowed {
                return Ok(());
            }
            bail!("the reader `{}` was answered with status {} though the right was given", self.name, seen.status);
        }
    }

    /// Until the first refusal after the taking was sent; answers before it are checked.
    fn wait_until_refused(&mut self, statuses: Statuses, sent: u64, taken: u64) -> anyhow::Result<()> {
        loop {
            let seen = self.next()?;
            if seen.status == statuses.refused && seen.answered > sent {
                self.latencies.record(Duration::from_nanos(seen.answered - sent));
                return Ok(());
            }
            ensure!(seen.status == statuses.allowed, "the reader `{}` was answered with status {}", self.name, seen.status);
            self.stale += u64::from(seen.sent > taken);
            ensure!(seen.answered < sent + u64::try_from(PATIENCE.as_nanos())?, "the reader `{}` is never refused", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const STATUSES: Statuses = Statuses { allowed: 200, refused: 403 };

    fn reader(seen: &[(u64, u64, u16)]) -> Reader {
        let (sender, receiver) = mpsc::channel();
        for (sent, answered, status) in seen {
            sender.send(Ok(Seen { sent: *sent, answered: *answered, status: *status })).unwrap();
        }
        Reader { name: "test", seen: receiver, latencies: Latencies::new().unwrap(), stale: 0 }
    }

    #[test]
    fn a_refusal_is_timed_from_the_sending_and_late_admissions_are_stale() {
        // Taken: sent at 100, acknowledged at 200. The second read was sent in between, the third after it.
        let mut reader = reader(&[(90, 110, 200), (150, 210, 200), (201, 250, 200), (251, 1_100, 403)]);
        reader.wait_until_refused(STATUSES, 100, 200).unwrap();
        assert_eq!(reader.stale, 1);
        assert_eq!(reader.latencies.summary()["count"], 1);
        assert_eq!(reader.latencies.summary()["max_us"], 1.0);
    }

    #[test]
    fn an_answer_that_is_neither_ends_the_run() {
        assert!(reader(&[(110, 120, 500)]).wait_until_refused(STATUSES, 100, 105).is_err());
        assert!(reader(&[(50, 120, 403), (106, 120, 403)]).wait_until_allowed(STATUSES, 105).is_err());
        assert!(reader(&[(50, 120, 403), (106, 120, 200)]).wait_until_allowed(STATUSES, 105).is_ok());
    }
}
