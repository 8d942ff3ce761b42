//! A Knox client's poll: which of these keys have changed?

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::figure::{Figure, Goal};
use super::load::{Closed, Load, Peer, Targets};
use super::server::Claviger;
use super::{Bench, stores};

/// Keys in the store.
const STORED: u64 = 100_000;
/// Keys that are asked about: one in ten.
const ASKED: usize = 1_000;
const CONNECTIONS: usize = 8;
const MOST_CPU_US: f64 = 1_000.0;

/// The figures of the line: all hashes are right, so that the answer is that nothing has changed.
pub(super) fn figures(bench: &Bench, name: &str) -> anyhow::Result<Vec<Figure>> {
    let folder = stores::with_keys(bench, STORED)?;
    let claviger = Claviger::open(bench, &folder, &[])?;
    let machine = claviger.machine()?;
    let file = bench.subfolder("poll")?.join("target");
    fs::write(&file, poll(bench, &machine, &file)?)?;
    let targets = Targets::File(&file);
    let answer = machine.series(bench, "GET", targets, None, 1, Duration::ZERO)?.pop().context("no answer")?;
    let changed = answer.json()?["data"].as_array().map(Vec::len);
    ensure!(answer.status == 200 && changed == Some(0), "the first poll has status {} and names {changed:?} keys", answer.status);
    let load = Load { method: "GET", targets, body: None, connections: CONNECTIONS, length: Some(answer.length), count: None };
    let rounds: Vec<Closed> = (0..bench.rounds).map(|_| machine.closed(bench, &load)).collect::<anyhow::Result<_>>()?;
    claviger.stop()?;
    let figure = |suffix: &str, unit, pick: fn(&Closed) -> f64| {
        let values: Vec<f64> = rounds.iter().map(pick).collect();
        Figure::new(format!("{name}{suffix}"), unit, &values)
    };
    Ok(vec![
        figure("", "µs CPU/poll", |it| it.server_cpu_us)?.with_goal(Goal::AtMost(MOST_CPU_US)),
        figure("/polls", "1/s", |it| it.requests_per_second)?,
        figure("/p99", "µs", |it| it.p99_us)?,
    ])
}

/// The target of a poll with the hashes that the keys have.
fn poll(bench: &Bench, machine: &Peer, scratch: &std::path::Path) -> anyhow::Result<String> {
    let ids: Vec<String> = (0..ASKED).map(|n| stores::id(n * 97 % 100_000)).collect();
    let reads: Vec<String> = ids.iter().map(|id| format!("/v0/keys/{id}/")).collect();
    fs::write(scratch, reads.join("\n"))?;
    let answers = machine.series(bench, "GET", Targets::File(scratch), None, ASKED, Duration::ZERO)?;
    let mut pairs = Vec::with_capacity(ASKED);
    for (id, answer) in ids.iter().zip(answers) {
        let body = answer.json()?;
        let hash = body["data"]["hash"].as_str().with_context(|| format!("`{id}` has no hash: status {}", answer.status))?;
        pairs.push(format!("{id}={hash}"));
    }
    Ok(format!("/v0/keys/?{}", pairs.join("&")))
}
