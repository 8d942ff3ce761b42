//! Running the load generator and reading what it found.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::metrics::{Counters, Metrics};
use super::{Bench, process};
use crate::shell;

/// Where to send load and as whom.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) url: String,
    pub(super) ca: PathBuf,
    /// Client certificate and key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    pub(super) headers: Vec<String>,
    /// The server process, whose CPU time is read.
    pub(super) pid: u32,
    /// Where the server's own counters are, if it has any.
    pub(super) metrics: Option<Metrics>,
}

/// What a closed loop sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load<'a> {
    pub(super) method: &'a str,
    pub(super) targets: Targets<'a>,
    pub(super) body: Option<&'a str>,
    pub(super) connections: usize,
    /// Length that each answer must have.
    pub(super) length: Option<u64>,
    /// Exactly so many requests, instead of as many as fit into the bench's window.
    pub(super) count: Option<u64>,
}

/// One target for all requests, or a file of targets that are used in turn.
#[derive(Clone, Copy, Debug)]
pub(super) enum Targets<'a> {
    One(&'a str),
    File(&'a Path),
}

impl<'a> Load<'a> {
    /// Reads of one target whose answers have `length` bytes.
    pub(super) fn reads(target: &'a str, connections: usize, length: u64) -> Self {
        Self { method: "GET", targets: Targets::One(target), body: None, connections, length: Some(length), count: None }
    }

    fn arguments(&self, bench: &Bench, command: &mut Command) {
        let Self { method, targets, body, connections, length, count } = *self;
        command.args(["--method", method, "--connections", &connections.to_string()]);
        match targets {
            Targets::One(target) => command.args(["--target", target]),
            Targets::File(path) => command.arg("--targets").arg(path),
        };
        if let Some(body) = body {
            command.args(["--body", body]);
        }
        if let Some(length) = length {
            command.args(["--length", &length.to_string()]);
        }
        match count {
            Some(count) => command.args(["--count", &count.to_string()]),
            None => command
                .args(["--warmup", &bench.warmup.as_secs_f64().to_string()])
                .args(["--duration", &bench.window.as_secs_f64().to_string()]),
        };
    }
}

/// What one closed loop found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    /// Requests that were answered.
    pub(super) requests: f64,
    pub(super) requests_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) server_cpu_us: f64,
    pub(super) generator_cpu_us: f64,
    /// Resident memory of the server at the end of the run.
    pub(super) server_resident_mib: f64,
    /// What the server counted meanwhile, for each request; `None` where it does not count.
    pub(super) counted: Option<PerRequest>,
}

/// The server's counters, shared out among the requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PerRequest {
    pub(super) audit_fsyncs: f64,
    pub(super) store_commits: f64,
}

/// An answer to a single request.
pub(super) struct Answer {
    pub(super) status: u64,
    pub(super) length: u64,
    pub(super) body: String,
    /// When the request was sent and the answer was there, on the machine's monotonic clock.
    pub(super) sent_ns: u64,
    pub(super) answered_ns: u64,
}

impl Peer {
    fn command(&self, bench: &Bench, mode: &str) -> Command {
        let mut command = Command::new(bench.programs.join("xtask-load"));
        command.args([mode, "--url", &self.url, "--ca"]).arg(&self.ca);
        if let Some((cert, key)) = &self.identity {
            command.arg("--cert").arg(cert).arg("--key").arg(key);
        }
        for header in &self.headers {
            command.args(["--header", header]);
        }
        command
    }

    /// Runs a closed loop.
    ///
    /// # Errors
    /// A wrong answer, or a server that ends.
    pub(super) fn closed(&self, bench: &Bench, load: &Load<'_>) -> anyhow::Result<Closed> {
        let mut command = self.command(bench, "closed");
        load.arguments(bench, &mut command);
        let mut before = None;
        let report = watched(&mut command, || {
            before = Some((process::cpu_time(self.pid)?, self.counters()?));
            Ok(())
        })?;
        let (cpu, counted) = (process::cpu_time(self.pid)?, self.counters()?);
        let (cpu_before, counted_before) = before.context("the load generator never began to measure")?;
        let cpu_us = cpu.saturating_sub(cpu_before).as_secs_f64() * 1e6;
        let closed = Closed::new(&report, cpu_us, process::resident(self.pid)?)?;
        Ok(Closed { counted: counted.zip(counted_before).map(|(after, before)| closed.shared_out(&after, &before)), ..closed })
    }

    /// Gives and takes a right; see the generator's `flip`.
    pub(super) fn flip(&self, bench: &Bench, target: &str, changer: &Self, change: &Change<'_>) -> anyhow::Result<Value> {
        let mut command = self.command(bench, "flip");
        command.args(["--target", target, "--change-target", change.target]);
        command.args(["--give", change.give, "--take", change.take, "--rounds", &change.rounds.to_string()]);
        for header in &changer.headers {
            command.args(["--change-header", header]);
        }
        Ok(serde_json::from_str(shell::read(&mut command)?.trim())?)
    }

    /// Opens event streams, calls `listening` when all are open, and returns what arrived when.
    pub(super) fn watch(
        &self,
        bench: &Bench,
        target: &str,
        streams: usize,
        duration: Duration,
        listening: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Value> {
        let mut command = self.command(bench, "watch");
        command.args(["--target", target, "--streams", &streams.to_string(), "--event", "changed"]);
        command.args(["--duration", &duration.as_secs_f64().to_string()]);
        watched(&mut command, listening)
    }

    /// Sends one request.
    pub(super) fn once(&self, bench: &Bench, method: &str, target: &str, body: Option<&str>) -> anyhow::Result<Answer> {
        let answers = self.series(bench, method, Targets::One(target), body, 1, Duration::ZERO)?;
        answers.into_iter().next().context("no answer")
    }

    /// Sends `count` requests on one connection, one after another, with a pause after each.
    pub(super) fn series(
        &self,
        bench: &Bench,
        method: &str,
        targets: Targets<'_>,
        body: Option<&str>,
        count: usize,
        pause: Duration,
    ) -> anyhow::Result<Vec<Answer>> {
        let mut command = self.command(bench, "once");
        command.args(["--method", method, "--count", &count.to_string(), "--pause", &pause.as_secs_f64().to_string()]);
        match targets {
            Targets::One(target) => command.args(["--target", target]),
            Targets::File(path) => command.arg("--targets").arg(path),
        };
        if let Some(body) = body {
            command.args(["--body", body]);
        }
        shell::read(&mut command)?.lines().map(Answer::parse).collect()
    }

    fn counters(&self) -> anyhow::Result<Option<Counters>> {
        self.metrics.as_ref().map(Metrics::read).transpose()
    }
}

/// Runs a closed loop on a Unix socket.
pub(super) fn unix(bench: &Bench, socket: &Path, target: &str, numbers: u64, connections: usize, length: u64) -> anyhow::Result<Value> {
    let mut command = Command::new(bench.programs.join("xtask-load"));
    command.arg("unix").arg("--socket").arg(socket).args(["--target", target, "--numbers", &numbers.to_string()]);
    command.args(["--connections", &connections.to_string(), "--length", &length.to_string()]);
    command.args(["--warmup", &bench.warmup.as_secs_f64().to_string(), "--duration", &bench.window.as_secs_f64().to_string()]);
    watched(&mut command, || Ok(()))
}

/// Runs many node agents of one configuration, calls `revoke` when all hold their keys, and returns when each key left each of them.
pub(super) fn nodes(
    bench: &Bench,
    config: &Path,
    folder: &Path,
    nodes: usize,
    revoke: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Value> {
    let mut command = Command::new(bench.programs.join("xtask-load"));
    command.arg("nodes").arg("--config").arg(config).arg("--folder").arg(folder).args(["--nodes", &nodes.to_string()]);
    watched(&mut command, revoke)
}

/// How a right is given and taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'a> {
    pub(super) target: &'a str,
    pub(super) give: &'a str,
    pub(super) take: &'a str,
    pub(super) rounds: usize,
}

impl Answer {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let report: Value = serde_json::from_str(line)?;
        let number = |name: &str| report[name].as_u64().with_context(|| format!("the answer has no `{name}`"));
        Ok(Self {
            status: number("status")?,
            length: number("length")?,
            body: report["body"].as_str().unwrap_or_default().to_owned(),
            sent_ns: number("sent_ns")?,
            answered_ns: number("answered_ns")?,
        })
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("an answer with status {} that is no JSON", self.status))
    }
}

impl Closed {
    fn new(report: &Value, server_cpu_us: f64, resident: u64) -> anyhow::Result<Self> {
        let get = |name: &str| {
            let value = report[name].as_f64();
            value.with_context(|| format!("the load generator's report has no `{name}`"))
        };
        let requests = get("requests")?;
        ensure!(requests > 0.0, "no request was answered");
        Ok(Self {
            requests,
            requests_per_second: get("requests_per_second")?,
            p50_us: get("p50_us")?,
            p99_us: get("p99_us")?,
            server_cpu_us: server_cpu_us / requests,
            generator_cpu_us: get("generator_cpu_us_per_request")?,
            server_resident_mib: resident as f64 / 1_048_576.0,
            counted: None,
        })
    }

    /// The counters are read a moment outside the window on both sides, which adds about one part in a thousand.
    fn shared_out(&self, after: &Counters, before: &Counters) -> PerRequest {
        let per_request = |after: u64, before: u64| after.saturating_sub(before) as f64 / self.requests;
        PerRequest {
            audit_fsyncs: per_request(after.audit_fsyncs, before.audit_fsyncs),
            store_commits: per_request(after.store_commits, before.store_commits),
        }
    }
}

/// The name in a client certificate.
pub(super) fn name_in(bench: &Bench, certificate: &Path) -> anyhow::Result<String> {
    let mut command = Command::new(bench.programs.join("xtask-load"));
    command.args(["name", "--cert"]).arg(certificate);
    Ok(shell::read(&mut command)?.trim().to_owned())
}

/// Runs the generator, calls `measuring` when it begins to measure, and returns its report.
fn watched(command: &mut Command, mut measuring: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Value> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| format!("starting `{}`", shell::show(command)))?;
    let output = child.stdout.take().context("its output is piped")?;
    let mut report = None;
    for line in BufReader::new(output).lines() {
        match line?.as_str() {
            "measuring" => measuring()?,
            line => report = Some(serde_json::from_str(line)?),
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "the load generator failed ({status})");
    report.context("the load generator gave no report")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_moment_of_measuring_and_the_report_are_told_apart() {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo measuring; echo '{"requests": 4}'"#]);
        let mut calls = 0;
        let report = watched(&mut command, || {
            calls += 1;
            Ok(())
        });
        assert_eq!(report.unwrap()["requests"], 4);
        assert_eq!(calls, 1);
    }

    #[test]
    fn a_generator_that_fails_is_an_error() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo measuring; exit 1"]);
        assert!(watched(&mut command, || Ok(())).is_err());
    }

    #[test]
    fn cpu_is_shared_out_among_requests() {
        let report = serde_json::json!({
            "requests": 100, "requests_per_second": 50.0, "p50_us": 1.0, "p99_us": 2.0,
            "generator_cpu_us_per_request": 3.0,
        });
        let closed = Closed::new(&report, 700.0, 3 << 20).unwrap();
        let before = Counters { audit_fsyncs: 10, store_commits: 1 };
        let counted = closed.shared_out(&Counters { audit_fsyncs: 60, store_commits: 1 }, &before);
        assert_eq!(counted, PerRequest { audit_fsyncs: 0.5, store_commits: 0.0 });
        assert_eq!(closed.server_cpu_us, 7.0);
        assert_eq!(closed.server_resident_mib, 3.0);
        assert!(Closed::new(&serde_json::json!({"requests": 0}), 1.0, 0).is_err());
    }
}
