//! The floor's server, and its own lines.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::Bench;
use super::figure::Figure;
use super::load::{Closed, Load, Peer};
use crate::dev::Server;

/// Body of the floor when there is nothing to compare it with: about that of a Knox key.
const USUAL_SIZE: u64 = 512;
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running floor.
pub(super) struct Floor {
    /// Ends the process when dropped.
    _server: Server,
    pub(super) peer: Peer,
}

impl Floor {
    /// Starts a floor that answers with bodies of `size` bytes.
    pub(super) fn start(bench: &Bench, size: u64) -> anyhow::Result<Self> {
        let folder = bench.subfolder("floor")?;
        let mut command = Command::new(bench.programs.join("xtask-floor"));
        command.args(["--size", &size.to_string(), "--dir"]).arg(&folder);
        let mut server = Server::start(&mut command, folder.join("log"))?;
        let url = wait_until_ready(&mut server)?;
        let peer = peer(&folder, url, server.pid());
        Ok(Self { _server: server, peer })
    }
}

fn wait_until_ready(server: &mut Server) -> anyhow::Result<String> {
    let begun = Instant::now();
    loop {
        let said = server.said();
        // Only a whole line: the port may be half written.
        let ready = said.strip_prefix("ready ").and_then(|it| it.split_once('\n'));
        if let Some((url, _)) = ready {
            return Ok(url.to_owned());
        }
        server.check_alive()?;
        ensure!(begun.elapsed() < START_LIMIT, "the floor is not ready");
        thread::sleep(Duration::from_millis(5));
    }
}

fn peer(folder: &Path, url: String, pid: u32) -> Peer {
    Peer {
        url,
        ca: folder.join("ca.pem"),
        identity: Some((folder.join("client.pem"), folder.join("client.key"))),
        headers: Vec::new(),
        pid,
        metrics: None,
    }
}

/// The figures of the floor alone.
pub(super) fn figures(bench: &Bench, name: &str, connections: usize) -> anyhow::Result<Vec<Figure>> {
    let floor = Floor::start(bench, USUAL_SIZE)?;
    let rounds: Vec<Closed> =
        (0..bench.rounds).map(|_| floor.peer.closed(bench, &Load::reads("/", connections, USUAL_SIZE))).collect::<anyhow::Result<_>>()?;
    absolute(name, &rounds)
}

/// Absolute figures of closed loops; every line about requests has them.
pub(super) fn absolute(name: &str, rounds: &[Closed]) -> anyhow::Result<Vec<Figure>> {
    let figure = |what: &str, unit, pick: fn(&Closed) -> f64| {
        let values: Vec<f64> = rounds.iter().map(pick).collect();
        Figure::new(format!("{name}/{what}"), unit, &values)
    };
    let mut figures = vec![
        figure("requests", "1/s", |it| it.requests_per_second)?,
        figure("server-cpu", "µs/request", |it| it.server_cpu_us)?,
        figure("generator-cpu", "µs/request", |it| it.generator_cpu_us)?,
        figure("p50", "µs", |it| it.p50_us)?,
        figure("p99", "µs", |it| it.p99_us)?,
        figure("resident", "MiB", |it| it.server_resident_mib)?,
    ];
    let fsyncs: Vec<f64> = rounds.iter().filter_map(|it| Some(it.counted?.audit_fsyncs)).collect();
    if !fsyncs.is_empty() {
        figures.push(Figure::new(format!("{name}/audit-fsyncs"), "per answer", &fsyncs)?);
    }
    Ok(figures)
}
