//! The agent as a whole: configuration → built → running.
//!
//! A cache whose key cannot be had now is left as it is: the agent follows the server and serves what it is told, from memory alone, and takes the cache
//! in when the key comes.
//!
//! Threads: the main one follows the server and keeps the folders (disk work goes to a helper thread), `serve` answers on the socket, `reads-log` writes
//! the log of reads.

use crate::cache::{Cache, CacheError, Loaded, Opening, Waiting};
use crate::config::{Config, Endpoint};
use crate::knox_keeper::Keeper;
use crate::persist::{self, Pending};
use crate::reads::Reads;
use crate::root::NotNow;
use crate::serve;
use crate::status::Status;
use crate::sync::Sync;
use crate::table::Table;
use crate::times::{MachineTimes, Times};
use claviger_domain::Revision;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// How long the last step to disk may take when the agent stops.
const STOP: Duration = Duration::from_secs(5);
/// Between two looks for a key that cannot be had; each pause is twice the last one.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LONGEST_LOOK: Duration = Duration::from_secs(30);

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
    store: Store,
    socket: std::os::unix::net::UnixListener,
    reads: Reads,
}

/// The cache, with the place where the stream of changes goes on; or what waits for its key.
enum Store {
    Open(Arc<Cache>, Option<Revision>),
    Waiting(Waiting),
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
        let opening = Cache::open(&config.cache, &config.root)?;
        let table = Arc::new(Table::new(config.policy.clone(), config.max_offline, times));
        table.set_registered(config.registered.iter().cloned(), []);
        let now = table.times.wall();
        table.health(|health| health.offline_since = Some(now));
        let store = match opening {
            Opening::Open(cache, loaded) => Store::Open(cache, take_in(&table, loaded)),
            Opening::Waiting(waiting) => Store::Waiting(waiting),
        };
        let io = |step: String| move |source| AgentError::Io { step, source };
        let socket = serve::bind(&config.socket).map_err(io(format!("listening on {}", config.socket.display())))?;
        let reads = Reads::open(&config.reads_log, table.clone());
        let reads = reads.map_err(io(format!("opening the log of reads {} (node.reads_log)", config.reads_log.display())))?;
        Ok(Self { config, table, store, socket, reads })
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
        let Self { config, table, store, socket, reads } = self;
        let io = |step: &str| {
            let step = step.to_owned();
            move |source| AgentError::Io { step, source }
        };
        let mut terminate = signal(SignalKind::terminate()).map_err(io("listening to signals"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(io("listening to signals"))?;
        let keeper = config.knox.map(|knox| Keeper::new(knox, table.clone())).transpose().map_err(io("watching Knox's folder"))?;
        let root = match &store {
            Store::Open(cache, _) => cache.root.clone(),
            Store::Waiting(waiting) => waiting.reason.report(),
        };
        let status = Arc::new(Status::new(table.clone(), root, memory));
        serve::spawn(socket, table.clone(), status.clone(), config.admins, reads).map_err(io("starting to serve"))?;
        let is_shared = keeper.is_some();
        if let Some(keeper) = keeper {
            tokio::spawn(keeper.run());
        }
        let (pending, open) = (Arc::new(Pending::default()), Arc::new(OnceLock::new()));
        let running =
            Running { table: table.clone(), pending: pending.clone(), status, endpoints: config.endpoints, is_shared, open: open.clone() };
        tokio::spawn(running.run(store));
        ready();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop(&pending, open.get(), &table, &config.socket).await;
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

/// What follows the server and keeps the cache.
struct Running {
    table: Arc<Table>,
    pending: Arc<Pending>,
    status: Arc<Status>,
    endpoints: Vec<Endpoint>,
    is_shared: bool,
    /// The cache, once it is open.
    open: Arc<OnceLock<Arc<Cache>>>,
}

impl Running {
    /// Follows and keeps, for ever.
    async fn run(self, store: Store) {
        let (cache, since) = match store {
            Store::Open(cache, since) => (cache, since),
            Store::Waiting(waiting) => self.wait(waiting).await,
        };
        let _ = self.open.set(cache.clone());
        // Entries that were dropped at the start are off the index with the first step.
        self.pending.step(&self.table, since);
        tokio::spawn(self.sync(since).run());
        persist::run(self.pending, cache, self.table).await;
    }

    fn sync(&self, since: Option<Revision>) -> Sync {
        Sync::new(self.table.clone(), self.pending.clone(), self.endpoints.clone(), since, self.is_shared)
    }

    /// Follows without the cache until its key can be had; then takes in what the cache held. Where the stream goes on is the cache's place: what
    /// was told since then is told again, of the secrets that come from the cache as of the others.
    async fn wait(&self, mut waiting: Waiting) -> (Arc<Cache>, Option<Revision>) {
        let sync = tokio::spawn(self.sync(None).run());
        let (mut pause, mut next) = (FIRST_LOOK, Instant::now() + FIRST_LOOK);
        self.say(&waiting.reason);
        loop {
            tokio::select! {
                () = self.pending.came() => persist::refuse(&self.table, &waiting.reason.why),
                () = tokio::time::sleep_until(next) => {
                    let look = tokio::task::spawn_blocking(move || waiting.try_again()).await;
                    match look.expect("looking for a key does not panic") {
                        Opening::Open(cache, loaded) => {
                            sync.abort();
                            // It ends where it waits, which is never between two halves of a change.
                            let _ = sync.await;
                            self.table.health(|health| health.root = None);
                            self.status.set_root(cache.root.clone());
                            tracing::info!("the cache's key is there: the cache is taken in");
                            return (cache, join(&self.table, &self.pending, loaded));
                        }
                        Opening::Waiting(still) => waiting = still,
                    }
                    self.say(&waiting.reason);
                    pause = (pause * 2).min(LONGEST_LOOK);
                    next = Instant::now() + pause;
                }
            }
        }
    }

    fn say(&self, reason: &NotNow) {
        let is_news = self.table.health(|health| health.root.replace(reason.why.clone()).is_none_or(|before| before != reason.why));
        if is_news {
            tracing::warn!("the cache is left as it is, since its key cannot be had now: {}", reason.why);
        }
    }
}

/// What the cache held goes into the empty table; gives where the stream of changes goes on.
fn take_in(table: &Table, loaded: Loaded) -> Option<Revision> {
    let Loaded { entries, since, contact, registered, findings } = loaded;
    table.add_own(registered);
    for (entry, doubted) in entries {
        table.put(Arc::new(entry), doubted);
    }
    if let Some(contact) = contact.filter(|_| table.contact().is_none()) {
        table.set_contact(contact.brought_forward(&*table.times));
    }
    for finding in &findings {
        tracing::warn!("{finding}");
    }
    table.health(|health| health.findings.extend(findings));
    since
}

/// The same, where the server was followed meanwhile: what it told is newer, and what it said is gone does not come back.
fn join(table: &Table, pending: &Pending, mut loaded: Loaded) -> Option<Revision> {
    let (gone, refused) = table.health(|health| (health.gone.clone(), health.refused.clone()));
    let now = table.now();
    loaded.entries.retain(|(entry, _)| {
        if gone.contains_key(&entry.id) {
            pending.remove(&entry.id);
        }
        !gone.contains_key(&entry.id) && table.get(&entry.id).is_none()
    });
    for (entry, doubted) in &mut loaded.entries {
        *doubted = doubted.or(refused.contains_key(&entry.id).then_some(now));
    }
    take_in(table, loaded)
}

async fn stop(pending: &Pending, cache: Option<&Arc<Cache>>, table: &Table, socket: &PathBuf) {
    // If it is not ours any more it is another agent's, which has replaced it.
    let _ = std::fs::remove_file(socket);
    let Some(cache) = cache else { return };
    match tokio::time::timeout(STOP, persist::write_once(pending, cache, table)).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::error!("the last step to disk failed: {why}"),
        Err(_) => tracing::error!("the last step to disk took too long"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entry::tests::entry;
    use crate::policy::Policy;
    use crate::table::Gone;
    use crate::times::tests::TestTimes;
    use claviger_domain::{KeyId, Timestamp};

    #[test]
    fn a_cache_that_opens_late_brings_nothing_back_and_hides_nothing_newer() {
        let id = |text: &str| KeyId::parse(text).unwrap();
        let table = Table::new(Policy::default(), Duration::ZERO, Arc::new(TestTimes::new()));
        let pending = Pending::default();
        table.add_own([id("own-here")]);
        table.put(Arc::new(entry("newer", 9, b"new")), None);
        table.health(|health| {
            health.gone.insert(id("gone"), (Gone::Revoked, Revision { epoch: 1, number: 8 }));
            health.refused.insert(id("refused"), "denied".to_owned());
        });
        let names = ["newer", "gone", "refused", "untold"];
        let loaded = Loaded {
            entries: names.map(|name| (entry(name, 5, b"old"), None)).into(),
            since: Some(Revision { epoch: 1, number: 5 }),
            registered: vec![id("own-there")],
            ..Loaded::default()
        };
        assert_eq!(join(&table, &pending, loaded), Some(Revision { epoch: 1, number: 5 }));
        let value = |name| table.get(&id(name)).map(|held| held.entry.versions[0].data.expose().to_vec());
        assert_eq!((value("newer"), value("gone"), value("untold")), (Some(b"new".to_vec()), None, Some(b"old".to_vec())));
        assert!(table.get(&id("refused")).unwrap().doubted > Some(Timestamp(i64::MIN)), "it stays, and ages");
        assert_eq!(table.registered_by(&id("own-here")), table.registered_by(&id("own-there")));
    }
}
