//! Many writers at once: new versions, each durable in the store and in the audit log before it is answered.

use std::fs;
use std::path::{Path, PathBuf};

use super::Bench;
use super::figure::{Figure, Goal};
use super::floor::absolute;
use super::load::{Closed, Load, Targets};
use super::server::{Claviger, form};

const DATA: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const WRITERS: usize = 64;
/// Keys of each writer, written in turn, so that a key's versions stay as few as they are in life.
const KEYS_EACH: usize = 64;
const LEAST_WRITES: f64 = 5_000.0;
/// One store fsync for sixteen writes.
const MOST_COMMITS: f64 = 1.0 / 16.0;

/// The figures of the line: each writer on keys of its own, then all on the same key.
pub(super) fn figures(bench: &Bench, name: &str) -> anyhow::Result<Vec<Figure>> {
    let keys = WRITERS * KEYS_EACH;
    let claviger = Claviger::start_with(bench, &[("CLAVIGER__KEYS__MAX_VERSIONS", "1000000")])?;
    claviger.create_keys(bench, "bench:w{n}", DATA, keys as u64)?;
    claviger.create_key(bench, "bench:one", DATA)?;
    let folder = bench.subfolder("writers")?;
    let own = targets(&folder, "own", &(0..keys).map(|n| format!("bench:w{n}")).collect::<Vec<_>>())?;
    let one = targets(&folder, "one", &["bench:one".to_owned()])?;
    let own = rounds(bench, &claviger, &own)?;
    let one = rounds(bench, &claviger, &one)?;
    let figure = |suffix: &str, unit, rounds: &[Closed], pick: fn(&Closed) -> f64| {
        let values: Vec<f64> = rounds.iter().map(pick).collect();
        Figure::new(format!("{name}{suffix}"), unit, &values)
    };
    let commits = |it: &Closed| it.counted.map_or(f64::NAN, |counted| counted.store_commits);
    let mut figures = vec![
        figure("", "versions/s", &own, |it| it.requests_per_second)?.with_goal(Goal::AtLeast(LEAST_WRITES)),
        figure("/store-fsyncs", "per write", &own, commits)?.with_goal(Goal::AtMost(MOST_COMMITS)),
    ];
    figures.extend(absolute(name, &own)?);
    figures.push(figure("/one-key", "versions/s", &one, |it| it.requests_per_second)?);
    figures.push(figure("/one-key/store-fsyncs", "per write", &one, commits)?);
    Ok(figures)
}

fn rounds(bench: &Bench, claviger: &Claviger, targets: &Path) -> anyhow::Result<Vec<Closed>> {
    let body = form(&[("data", DATA)]);
    let targets = Targets::File(targets);
    let load = Load { method: "POST", targets, body: Some(&body), connections: WRITERS, length: None, count: None };
    let administrator = claviger.administrator()?;
    (0..bench.rounds).map(|_| administrator.closed(bench, &load)).collect()
}

fn targets(folder: &Path, name: &str, ids: &[String]) -> anyhow::Result<PathBuf> {
    let file = folder.join(name);
    let lines: Vec<String> = ids.iter().map(|id| format!("/v0/keys/{id}/versions/")).collect();
    fs::write(&file, lines.join("\n"))?;
    Ok(file)
}
