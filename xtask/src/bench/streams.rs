//! Event streams: how soon a commit has reached all of them, and what they cost while nothing happens.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::figure::{Figure, Goal};
use super::load::{Answer, Targets};
use super::server::Claviger;
use super::{Bench, process};

const KEY: &str = "bench:watched";
const DATA: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
const COMMITS: usize = 120;
/// Between one commit's answer and the next.
const PAUSE: Duration = Duration::from_millis(50);
const MOST_MS: f64 = 100.0;

/// All streams are of one machine.
const MANY_STREAMS: &[(&str, &str)] = &[("CLAVIGER__LIMITS__WATCHES_PER_IDENTITY", "1000000")];

/// After so long without a word the server has given back what it held for opening.
const SETTLE: Duration = Duration::from_secs(4);
const IDLE: Duration = Duration::from_secs(30);
const MOST_KB: f64 = 40.0;
const MOST_CPU: f64 = 2.0;
/// Files that a server opens besides its connections.
const OTHER_FILES: u64 = 200;

/// The figures of the line about arrival. A commit's time begins when it is sent and ends when the last stream has it.
pub(super) fn arrival(bench: &Bench, name: &str, streams: usize) -> anyhow::Result<Vec<Figure>> {
    let claviger = Claviger::start_with(bench, MANY_STREAMS)?;
    claviger.create_key(bench, KEY, DATA)?;
    let administrator = claviger.native_administrator()?;
    let (target, body) = (format!("/api/v1/keys/{KEY}/-/versions"), format!(r#"{{"data":"{DATA}"}}"#));
    let count = bench.repetitions(COMMITS);
    // Each commit may take as long again as the pause before it; then some time for the last arrivals.
    let duration = PAUSE * u32::try_from(count)? * 2 + Duration::from_secs(3);
    let mut commits = Vec::new();
    let report = claviger.native_machine()?.watch(bench, &watch_target(), streams, duration, || {
        commits = administrator.series(bench, "POST", Targets::One(&target), Some(&body), count, PAUSE)?;
        Ok(())
    })?;
    ensure!(report["closed"] == 0, "the server ended {} streams", report["closed"]);
    let mut millis = arrivals(&report, &commits, streams)?;
    millis.sort_by(f64::total_cmp);
    let acknowledged: Vec<f64> = commits.iter().map(|it| it.answered_ns.saturating_sub(it.sent_ns) as f64 / 1e6).collect();
    let at = |permille: usize| millis[(millis.len() * permille / 1000).min(millis.len() - 1)];
    Ok(vec![
        Figure::new(name, "ms p99", &[at(990)])?.with_goal(Goal::AtMost(MOST_MS)),
        Figure::new(format!("{name}/p50"), "ms", &[at(500)])?,
        Figure::new(format!("{name}/acknowledged"), "ms", &acknowledged)?,
        Figure::new(format!("{name}/commits"), "commits", &[count as f64])?,
    ])
}

fn watch_target() -> String {
    format!("/api/v1/watch?id={KEY}")
}

/// For each commit, milliseconds from its sending until the last stream had it.
fn arrivals(report: &Value, commits: &[Answer], streams: usize) -> anyhow::Result<Vec<f64>> {
    let events = report["events"].as_array().context("the report has no events")?;
    let by_id: BTreeMap<&str, &Value> = events.iter().filter_map(|event| Some((event["id"].as_str()?, event))).collect();
    commits.iter().map(|commit| arrival_of(commit, &by_id, streams)).collect()
}

fn arrival_of(commit: &Answer, events: &BTreeMap<&str, &Value>, streams: usize) -> anyhow::Result<f64> {
    ensure!(commit.status == 201, "a commit was answered with status {}: {}", commit.status, commit.body);
    let body = commit.json()?;
    let revision = body["revision"].as_str().context("a commit without a revision")?;
    let event = events.get(revision).with_context(|| format!("no stream had revision {revision}"))?;
    let arrived = event["arrivals"].as_u64().unwrap_or(0);
    ensure!(arrived == streams as u64, "revision {revision} arrived {arrived} times on {streams} streams");
    let last = event["last_ns"].as_u64().context("an event without a time")?;
    Ok(last.saturating_sub(commit.sent_ns) as f64 / 1e6)
}

/// The figures of the line about idle streams: memory of each, and CPU of the server while nothing happens.
pub(super) fn idle(bench: &Bench, name: &str, wanted: usize) -> anyhow::Result<Vec<Figure>> {
    let room = usize::try_from(bench.open_files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
    let streams = if bench.quick { wanted / 10 } else { wanted }.min(room);
    let claviger = Claviger::start_with(bench, MANY_STREAMS)?;
    claviger.create_key(bench, KEY, DATA)?;
    let pid = claviger.pid();
    let idle = if bench.quick { IDLE / 10 } else { IDLE };
    let before = process::resident(pid)?;
    let mut measured = None;
    let duration = SETTLE + idle + Duration::from_secs(1);
    let report = claviger.native_machine()?.watch(bench, &watch_target(), streams, duration, || {
        thread::sleep(SETTLE);
        let cpu = process::cpu_time(pid)?;
        thread::sleep(idle);
        measured = Some((process::cpu_time(pid)?.saturating_sub(cpu), process::resident(pid)?));
        Ok(())
    })?;
    ensure!(report["closed"] == 0, "the server ended {} streams", report["closed"]);
    let (cpu, after) = measured.context("the streams never opened")?;
    let each = after.saturating_sub(before) as f64 / 1e3 / streams as f64;
    let share = cpu.as_secs_f64() / idle.as_secs_f64() * 100.0;
    Ok(vec![
        Figure::new(name, "kB/stream", &[each])?.with_goal(Goal::AtMost(MOST_KB)),
        Figure::new(format!("{name}/server-cpu"), "% of a core", &[share])?.with_goal(Goal::AtMost(MOST_CPU)),
        Figure::new(format!("{name}/streams"), "streams", &[streams as f64])?,
        Figure::new(format!("{name}/resident"), "MB", &[after as f64 / 1e6])?,
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn commit(body: &str) -> Answer {
        Answer { status: 201, length: 0, body: body.to_owned(), sent_ns: 1_000_000, answered_ns: 2_000_000 }
    }

    #[test]
    fn an_arrival_counts_only_when_all_streams_have_it() {
        let report = json!({"events": [{"id": "1.7", "arrivals": 3, "last_ns": 5_500_000}]});
        let commits = [commit(r#"{"revision":"1.7"}"#)];
        assert_eq!(arrivals(&report, &commits, 3).unwrap(), [4.5]);
        assert!(arrivals(&report, &commits, 4).is_err());
        assert!(arrivals(&report, &[commit(r#"{"revision":"1.8"}"#)], 3).is_err());
    }
}
