//! Running the load generator and reading what it found.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

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
}

/// What one closed loop found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) requests_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) server_cpu_us: f64,
    pub(super) generator_cpu_us: f64,
    /// Resident memory of the server at the end of the run.
    pub(super) server_resident_mib: f64,
}

/// An answer to a single request.
pub(super) struct Answer {
    pub(super) status: u64,
    pub(super) length: u64,
    pub(super) body: String,
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

    /// Reads `target` on `connections` connections and checks that each body has `length` bytes.
    pub(super) fn closed(&self, bench: &Bench, target: &str, connections: usize, length: u64) -> anyhow::Result<Closed> {
        let mut command = self.command(bench, "closed");
        command
            .args(["--target", target, "--length", &length.to_string()])
            .args(["--connections", &connections.to_string()])
            .args(["--warmup", &bench.warmup.as_secs_f64().to_string()])
            .args(["--duration", &bench.window.as_secs_f64().to_string()]);
        let mut before = None;
        let report = watched(&mut command, || {
            before = Some(process::cpu_time(self.pid)?);
            Ok(())
        })?;
        let after = process::cpu_time(self.pid)?;
        let before = before.context("the load generator never began to measure")?;
        let cpu_us = after.saturating_sub(before).as_secs_f64() * 1e6;
        Closed::new(&report, cpu_us, process::resident(self.pid)?)
    }

    /// Sends one request.
    pub(super) fn once(&self, bench: &Bench, method: &str, target: &str, body: Option<&str>) -> anyhow::Result<Answer> {
        let mut command = self.command(bench, "once");
        command.args(["--method", method, "--target", target]);
        if let Some(body) = body {
            command.args(["--body", body]);
        }
        let report: Value = serde_json::from_str(shell::read(&mut command)?.trim())?;
        Ok(Answer {
            status: report["status"].as_u64().context("no status")?,
            length: report["length"].as_u64().context("no length")?,
            body: report["body"].as_str().unwrap_or_default().to_owned(),
        })
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
            requests_per_second: get("requests_per_second")?,
            p50_us: get("p50_us")?,
            p99_us: get("p99_us")?,
            server_cpu_us: server_cpu_us / requests,
            generator_cpu_us: get("generator_cpu_us_per_request")?,
            server_resident_mib: resident as f64 / 1_048_576.0,
        })
    }
}

/// The name in a client certificate.
pub(super) fn name_in(bench: &Bench, certificate: &std::path::Path) -> anyhow::Result<String> {
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
        assert_eq!(closed.server_cpu_us, 7.0);
        assert_eq!(closed.server_resident_mib, 3.0);
        assert!(Closed::new(&serde_json::json!({"requests": 0}), 1.0, 0).is_err());
    }
}
