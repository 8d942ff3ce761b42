//! From the start of the process until the server is ready, and the memory it has then.
//!
//! The store's files are in the page cache, as they are after an upgrade or a restart.

use super::figure::{Figure, Goal};
use super::server::Claviger;
use super::{Bench, process, stores};

/// What a start may take.
pub(super) struct Goals {
    pub(super) ms: f64,
    pub(super) mb: f64,
}

/// The figures of a start with `keys` keys; none means a store that was prepared and is empty.
pub(super) fn figures(bench: &Bench, name: &str, keys: u64, goals: &Goals) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let folder = match keys {
        0 => {
            let folder = bench.subfolder("empty")?;
            let first = Claviger::open(bench, &folder, &[])?;
            figures.push(Figure::new(format!("{name}/first-ever"), "ms", &[millis(&first)])?);
            first.stop()?;
            folder
        }
        keys => stores::with_keys(bench, keys)?,
    };
    let (mut times, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let claviger = Claviger::open(bench, &folder, &[])?;
        times.push(millis(&claviger));
        sizes.push(process::resident(claviger.pid())? as f64 / 1e6);
        claviger.stop()?;
    }
    figures.insert(0, Figure::new(name, "ms", &times)?.with_goal(Goal::AtMost(goals.ms)));
    figures.insert(1, Figure::new(format!("{name}/resident"), "MB", &sizes)?.with_goal(Goal::AtMost(goals.mb)));
    Ok(figures)
}

fn millis(claviger: &Claviger) -> f64 {
    claviger.ready_after.as_secs_f64() * 1e3
}
