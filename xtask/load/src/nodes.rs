//! Many node agents in one process: their real table, cache and following of changes, without their sockets. Reports when each key left each of them.
//!
//! Each has a connection and a cache folder of its own. That they share one machine with the server makes the figure worse, not better.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use claviger_node::cache::{Cache, Opening};
use claviger_node::config::{Accounts, Config, Overrides, Raw};
use claviger_node::persist::{self, Pending};
use claviger_node::policy::Policy;
use claviger_node::sync::Sync;
use claviger_node::table::Table;
use claviger_node::times::MachineTimes;
use serde_json::json;

use crate::report::monotonic_ns;
use crate::seconds;

const SETTLE_LIMIT: Duration = Duration::from_secs(120);

/// Options of the mode.
#[derive(Args)]
pub(crate) struct Nodes {
    /// Configuration of one node; its cache folder becomes one of many.
    #[arg(long)]
    config: PathBuf,
    /// Folder of all caches.
    #[arg(long)]
    folder: PathBuf,
    /// How many nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// How long the keys may take to go.
    #[arg(long, value_parser = seconds, default_value = "60")]
    limit: Duration,
}

/// What one node saw: key, and when it was off its memory and off its disk.
type Seen = tokio::sync::mpsc::UnboundedSender<(String, u64, u64)>;

/// Starts the nodes, says `measuring` when all hold all keys, and reports when all keys are gone.
pub(crate) fn run(arguments: &Nodes) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    runtime.block_on(run_all(arguments))
}

async fn run_all(arguments: &Nodes) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&arguments.config)?;
    let raw = Raw::parse(&text).map_err(anyhow::Error::msg)?;
    let config = Config::resolve(raw, Overrides::default(), &Accounts::default())?;
    let (seen, mut all_seen) = tokio::sync::mpsc::unbounded_channel();
    let mut tables = Vec::new();
    for n in 0..arguments.nodes {
        tables.push(start(arguments, &config, n, seen.clone())?);
    }
    let begun = Instant::now();
    while tables.iter().any(|table| table.all().len() < config.registered.len()) {
        ensure!(begun.elapsed() < SETTLE_LIMIT, "not all nodes hold all keys");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("measuring");
    let expected = arguments.nodes * config.registered.len();
    let mut times: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for _ in 0..expected {
        let next = tokio::time::timeout(arguments.limit, all_seen.recv()).await;
        let (key, memory, disk) = next.context("some keys did not go")?.context("the nodes ended")?;
        times.entry(key).or_default().push((memory, disk));
    }
    println!("{}", json!({ "gone": times }));
    Ok(())
}

fn start(arguments: &Nodes, config: &Config, n: usize, seen: Seen) -> anyhow::Result<Arc<Table>> {
    let Opening::Open(cache, loaded) = Cache::open(&arguments.folder.join(n.to_string()), &config.root)? else {
        anyhow::bail!("the key of a node's cache cannot be had");
    };
    let table = Arc::new(Table::new(Policy::default(), config.max_offline, Arc::new(MachineTimes::new())));
    table.set_registered(config.registered.iter().cloned(), loaded.registered);
    let pending = Arc::new(Pending::default());
    tokio::spawn(Sync::new(table.clone(), pending.clone(), config.endpoints.clone(), loaded.since, false).run());
    tokio::spawn(watch(table.clone(), pending, cache, seen));
    Ok(table)
}

/// Writes each step to disk, and tells when a key was off memory and then off disk.
async fn watch(table: Arc<Table>, pending: Arc<Pending>, cache: Arc<Cache>, seen: Seen) {
    let mut moved = table.held_moved.subscribe();
    let mut told = std::collections::BTreeSet::new();
    loop {
        let gone: Vec<String> = table.health(|health| health.gone.keys().map(ToString::to_string).collect());
        let news: Vec<String> = gone.into_iter().filter(|key| told.insert(key.clone())).collect();
        let memory = monotonic_ns();
        if let Err(why) = persist::write_once(&pending, &cache, &table).await {
            eprintln!("a node's disk: {why}");
            return;
        }
        let disk = monotonic_ns();
        for key in news {
            // The receiver ends with the run.
            let _ = seen.send((key, memory, disk));
        }
        if moved.changed().await.is_err() {
            return;
        }
    }
}
