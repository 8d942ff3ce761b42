//! From taking a right to the first refusal, on a connection that stays open and on new ones.

use anyhow::{Context as _, ensure};

use super::Bench;
use super::figure::{Figure, Goal};
use super::load::Change;
use super::server::{Claviger, form};

const KEY: &str = "bench:revoke";
const DATA: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
const ROUNDS: usize = 300;
const MOST_MS: f64 = 20.0;
/// The readers are refused far more often than an address may be.
const UNLIMITED: &[(&str, &str)] = &[("CLAVIGER__AUTH__FAILURES_BURST", "4000000000"), ("CLAVIGER__AUTH__FAILURES_PER_SECOND", "1000000")];

/// The figures of the line. Times begin when the revocation is sent.
pub(super) fn figures(bench: &Bench, name: &str) -> anyhow::Result<Vec<Figure>> {
    let claviger = Claviger::start_with(bench, UNLIMITED)?;
    claviger.create_key(bench, KEY, DATA)?;
    let access = |level: &str| {
        let entry = serde_json::json!({"type": "Machine", "id": claviger.machine, "access": level});
        form(&[("access", &entry.to_string())])
    };
    let (give, take) = (access("Read"), access("None"));
    let target = format!("/v0/keys/{KEY}/access/");
    let change = Change { target: &target, give: &give, take: &take, rounds: bench.repetitions(ROUNDS) };
    let report = claviger.machine()?.flip(bench, &format!("/v0/keys/{KEY}/"), &claviger.administrator()?, &change)?;
    let millis = |who: &str, what: &str| {
        let value = report[who][what].as_f64();
        value.map(|micros| micros / 1e3).with_context(|| format!("the report has no `{who}`.`{what}`"))
    };
    for who in ["open", "new"] {
        let stale = report[who]["stale"].as_u64().unwrap_or(u64::MAX);
        ensure!(stale == 0, "{stale} reads were let in though they were sent after the revocation was acknowledged");
    }
    let p99 = |suffix: &str, who: &str| Figure::new(format!("{name}{suffix}"), "ms p99", &[millis(who, "p99_us")?]);
    Ok(vec![
        p99("", "open")?.with_goal(Goal::AtMost(MOST_MS)),
        p99("/new-connections", "new")?.with_goal(Goal::AtMost(MOST_MS)),
        Figure::new(format!("{name}/p50"), "ms", &[millis("open", "p50_us")?])?,
        Figure::new(format!("{name}/new-connections/p50"), "ms", &[millis("new", "p50_us")?])?,
        p99("/acknowledged", "change")?,
    ])
}
