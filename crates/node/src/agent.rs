//! The agent as a whole: configuration → built → running.
//!
//! Threads: the main one follows the server and keeps the folders (disk work goes to a helper thread), `serve` answers on the socket, `reads-log` writes
//! the log of reads.

use crate::cache::{Cache, CacheError, Loaded};
use crate::config::Config;
use crate::knox_keeper::Keeper;
use crate::persist::{self, Pending};
use crate::reads::Reads;
use crate::root::RootReport;
use crate::serve;
use crate::status::Status;
use crate::sync::Sync;
use crate::table::Table;
use crate::times::{MachineTimes, Times};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

/// How long the last step to disk may take when the agent stops.
const STOP: Duration = Duration::from_secs(5);

/// Why an agent does not run.
#[derive(Debug, Error)]
pub enum AgentError {
    /// Its cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The system refused something.
    #[error("{step}: {source}")]
    Io {
        /// What.
        step: String,
        /// Its words.
        source: std::io::Error,
    },
}

/// An agent with everything open, before it follows or serves.
pub struct Agent {
    config: Config,
    table: Arc<Table>,
    cache: Arc<Cache>,
    loaded: Option<claviger_domain::Revision>,
    root: RootReport,
    socket: std::os::unix::net::UnixListener,
    reads: Reads,
}

impl Agent {
    /// Opens the cache, the socket and the log of reads.
    ///
    /// # Errors
    /// [`AgentError`]; nothing of another agent is touched.
    pub fn build(config: Config) -> Result<Self, AgentError> {
        Self::build_with(config, Arc::new(MachineTimes::new()))
    }

    /// The same with other clocks.
    ///
    /// # Errors
    /// As [`Agent::build`].
    pub fn build_with(config: Config, times: Arc<dyn Times>) -> Result<Self, AgentError> {
        let (cache, loaded) = Cache::open(&config.cache, &config.root)?;
        let table = Arc::new(Table::new(config.policy.clone(), config.max_offline, times));
        let since = fill(&table, &config, loaded);
        let io = |step: String| move |source| AgentError::Io { step, source };
        let socket = serve::bind(&config.socket).map_err(io(format!("listening on {}", config.socket.display())))?;
        let reads = Reads::open(&config.reads_log, table.clone());
        let reads = reads.map_err(io(format!("opening the log of reads {} (node.reads_log)", config.reads_log.display())))?;
        let root = cache.root.clone();
        Ok(Self { config, table, cache: Arc::new(cache), loaded: since, root, socket, reads })
    }

    /// Follows and serves until SIGTERM or SIGINT. `memory` says whether memory is locked; `ready` is called when programs are served.
    ///
    /// # Errors
    /// A thread cannot be started, or signals not be heard.
    pub fn run(self, memory: String, ready: impl FnOnce()) -> Result<(), AgentError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .thread_keep_alive(Duration::from_secs(2))
            .build();
        let runtime = runtime.map_err(|source| AgentError::Io { step: "starting".to_owned(), source })?;
        runtime.block_on(self.run_here(memory, ready))
    }

    async fn run_here(self, memory: String, ready: impl FnOnce()) -> Result<(), AgentError> {
        let Self { config, table, cache, loaded, root, socket, reads } = self;
        let io = |step: &str| {
            let step = step.to_owned();
            move |source| AgentError::Io { step, source }
        };
        let mut terminate = signal(SignalKind::terminate()).map_err(io("listening to signals"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(io("listening to signals"))?;
        let keeper = config.knox.map(|knox| Keeper::new(knox, table.clone())).transpose().map_err(io("watching Knox's folder"))?;
        let pending = Arc::new(Pending::default());
        // Entries that were dropped at the start are off the index with the first step.
        pending.step(&table, loaded);
        let status = Arc::new(Status::new(table.clone(), root, memory));
        serve::spawn(socket, table.clone(), status, config.admins, reads).map_err(io("starting to serve"))?;
        let is_shared = keeper.is_some();
        if let Some(keeper) = keeper {
            tokio::spawn(keeper.run());
        }
        tokio::spawn(persist::run(pending.clone(), cache.clone(), table.clone()));
        tokio::spawn(Sync::new(table.clone(), pending.clone(), config.endpoints, loaded, is_shared).run());
        ready();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop(&pending, &cache, &table, &config.socket).await;
        Ok(())
    }
}

/// Keeps the process's memory out of swap, core files and debuggers, as far as it may; the sentence says how far. First of all.
#[must_use]
pub fn harden() -> String {
    claviger_crypto::hygiene::harden().said
}

/// Writes what happens to standard error, where the journal takes it.
pub fn log_to_stderr() {
    use tracing_subscriber::filter::LevelFilter;
    // A second subscriber in one process is a test's affair.
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .with_max_level(LevelFilter::INFO)
        .try_init();
}

/// What the cache held goes into the table; gives where the stream of changes goes on.
fn fill(table: &Table, config: &Config, loaded: Loaded) -> Option<claviger_domain::Revision> {
    let Loaded { entries, since, contact, registered, findings } = loaded;
    table.set_registered(config.registered.iter().cloned(), registered);
    for (entry, doubted) in entries {
        table.put(Arc::new(entry), doubted);
    }
    if let Some(contact) = contact {
        table.set_contact(contact.brought_forward(&*table.times));
    }
    let now = table.times.wall();
    for finding in &findings {
        tracing::warn!("{finding}");
    }
    table.health(|health| {
        health.findings = findings;
        health.offline_since = Some(now);
    });
    since
}

async fn stop(pending: &Pending, cache: &Arc<Cache>, table: &Table, socket: &PathBuf) {
    // If it is not ours any more it is another agent's, which has replaced it.
    let _ = std::fs::remove_file(socket);
    match tokio::time::timeout(STOP, persist::write_once(pending, cache, table)).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::error!("the last step to disk failed: {why}"),
        Err(_) => tracing::error!("the last step to disk took too long"),
    }
}
