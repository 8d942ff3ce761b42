//! Reading one key: Claviger against the floor with a body of the same size.
//!
//! Each read is a whole one: certificate verified, ACL checked, version opened, its audit record
//! durable before the answer.

use anyhow::ensure;

use super::Bench;
use super::figure::{Figure, Goal};
use super::floor::{Floor, absolute};
use super::load::{Closed, Load, Peer};
use super::server::Claviger;

const KEY: &str = "bench:read";
/// Base64 of a secret of 32 bytes.
const DATA: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const MOST_CPU: f64 = 1.5;
const MOST_P99: f64 = 3.0;
/// Seconds that an answer takes whose fsync takes 2 ms.
const SLOW_ANSWER: f64 = 0.0022;

/// The figures of a read line; `least_requests` is the goal for the ratio of requests per second.
pub(super) fn figures(bench: &Bench, name: &str, connections: usize, least_requests: f64) -> anyhow::Result<Vec<Figure>> {
    let claviger = Claviger::start(bench)?;
    let (machine, target, length) = readable(bench, &claviger)?;
    let floor = Floor::start(bench, length)?;
    let pairs = bench.in_turn(
        || floor.peer.closed(bench, &Load::reads("/", connections, length)),
        || machine.closed(bench, &Load::reads(&target, connections, length)),
    )?;
    judge(bench, name, &pairs, least_requests)
}

/// The figures of the line whose fsyncs are slow: what the connections allow is one answer each per 2 ms and a tenth.
pub(super) fn slow_fsync_figures(bench: &Bench, name: &str, connections: usize) -> anyhow::Result<Vec<Figure>> {
    let claviger = Claviger::start_with(bench, &[("CLAVIGER__AUDIT__TEST_SYNC_DELAY_US", "2000")])?;
    let (machine, target, length) = readable(bench, &claviger)?;
    let load = Load::reads(&target, connections, length);
    let rounds: Vec<Closed> = (0..bench.rounds).map(|_| machine.closed(bench, &load)).collect::<anyhow::Result<_>>()?;
    let allowed = connections as f64 / SLOW_ANSWER;
    let shares: Vec<f64> = rounds.iter().map(|it| it.requests_per_second / allowed).collect();
    let mut figures = vec![Figure::new(name, "of allowed", &shares)?.with_goal(Goal::AtLeast(0.80))];
    figures.extend(absolute(name, &rounds)?);
    Ok(figures)
}

/// Makes the key and reads it once: who reads it, its target, and the length of each answer.
fn readable(bench: &Bench, claviger: &Claviger) -> anyhow::Result<(Peer, String, u64)> {
    claviger.create_key(bench, KEY, DATA)?;
    let target = format!("/v0/keys/{KEY}/");
    let machine = claviger.machine()?;
    let answer = machine.once(bench, "GET", &target, None)?;
    ensure!(answer.status == 200 && answer.body.contains(DATA), "the first read of the key has status {}", answer.status);
    Ok((machine, target, answer.length))
}

/// Ratios with their goals, then the absolute figures of both sides.
fn judge(bench: &Bench, name: &str, pairs: &[(Closed, Closed)], least_requests: f64) -> anyhow::Result<Vec<Figure>> {
    let ratio = |what: &str, pick: fn(&Closed) -> f64| {
        let ratios: Vec<f64> = pairs.iter().map(|(floor, claviger)| pick(claviger) / pick(floor)).collect();
        Figure::new(format!("{name}{what}"), "of floor", &ratios)
    };
    let mut figures = vec![
        ratio("", |it| it.requests_per_second)?.with_goal_where(
            Goal::AtLeast(least_requests),
            bench.disk.is_fast(),
            "fdatasync p50 < 0.1 ms",
        ),
        ratio("/cpu-ratio", |it| it.server_cpu_us)?.with_goal(Goal::AtMost(MOST_CPU)),
        ratio("/p99-ratio", |it| it.p99_us)?.with_goal(Goal::AtMost(MOST_P99)),
    ];
    let (floors, clavigers): (Vec<Closed>, Vec<Closed>) = pairs.iter().copied().unzip();
    figures.extend(absolute(name, &clavigers)?);
    figures.extend(absolute(&format!("{name}/floor"), &floors)?);
    Ok(figures)
}
