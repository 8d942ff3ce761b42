//! The composition root: from a checked configuration to a running server, and down again.

use crate::app::App;
use crate::callers::Callers;
use crate::command::Emergency;
use crate::config::Config;
use crate::emergency::{self, EmergencyAuthority};
use crate::health::Health;
use crate::http::Shutdown;
use crate::hygiene::Hardened;
use crate::knox::{Knox, KnoxLog};
use crate::listen::{Identity, Listener, ListenerConfig, Protocols, Security, Serving, TlsHandle, serve};
use crate::metrics::Metrics;
use crate::native::{Native, NativeParts};
use crate::native::{SHARE_RULE, Sharing};
use crate::people::People;
use crate::people::github::Github;
use crate::{retention, webhook};
use anyhow::{Context, Result, bail};
use claviger_audit::{Alerts, AuditLog, Checkpoint, Durability, LineSink, LogConfig, LogKey, Reader, Recorder, SinkTarget};
use claviger_authn::{BREAK_GLASS_GROUP, MachineCertificates, Roots, TokenTable, TrustBundles, Verifiers};
use claviger_crypto::{FileRoot, KeyRing, RootOfTrust};
use claviger_domain::audit::{Action, Outcome, Record};
use claviger_domain::{
    Acl, Caller, Capabilities, Capability, Clock, Prefix, Preset, Principal, RequestId, Revision, SystemClock, Timestamp,
};
use claviger_engine::{Engine, Precondition, StartReport, Started};
use claviger_ports::Store;
use claviger_store::SqlStore;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often expired shares are looked for. An expired one is not given out, swept or not.
const SWEEP: Duration = Duration::from_secs(60);

/// Name of the audit log's signing key and origin.
const LOG_NAME: &str = "claviger-audit";
/// Bytes of lines that may wait for a sink.
const SINK_BOUND: usize = 8 << 20;
/// Records at the log's end that a start looks through at most for those of changes; usually the last start's record comes
/// first. Some 0.5 s.
const RECONCILED: u64 = 1 << 20;
/// What is newer than the oldest of these records by this much has its own record among them, unless that was lost.
const DISORDER: Duration = Duration::from_secs(60);
/// Records from which the alerts learn who reads what.
const LEARNED: u64 = 100_000;

/// Makes root, store and first grants of a production server.
///
/// # Errors
/// When something is there already, or cannot be made; then what was made is named.
pub async fn initialise(config: &Config, admins: &[Principal], knox_rule: bool) -> Result<()> {
    if config.has_store() {
        bail!("{} is there already; a store is prepared once", config.store.display());
    }
    for file in [&config.store, &config.root, &config.audit.folder] {
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
    }
    let root = prepare_root(&config.root).context("the root of trust")?;
    // The store has its name only when it is whole: an attempt that was cut off is taken up again by the next.
    let wanted = config.store.clone();
    let config = Config { store: unfinished(&config.store), ..config.clone() };
    let store = SqlStore::open_sqlite(&config.store).await?;
    if store.head().await?.is_none() {
        claviger_engine::initialise(&store, &[&root], SystemClock.now()).await?;
    }
    store.close().await;
    let opened = Opened::open(&config).await?;
    let admin = Preset::Admin.capabilities();
    let acl = admins.iter().fold(Acl::default(), |acl, p| acl.set(p.clone(), admin));
    // Who breaks the glass can give rights to others, which is seen, and reads nothing by that alone.
    let emergency = Capabilities::of([Capability::List, Capability::Admin]);
    let acl = acl.set(Principal::UserGroup(BREAK_GLASS_GROUP.into()), emergency);
    let caller = Caller::system("init", RequestId(u128::from_be_bytes(claviger_crypto::random())));
    let everywhere = Prefix::parse("")?;
    opened.engine.change_prefix(&caller, "server", &everywhere, Some((acl, knox_rule)), Precondition::Any).await?;
    opened.close().await;
    finish_store(&config.store, &wanted)
}

/// The name that something has until it is whole.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".preparing");
    path.with_file_name(name)
}

/// Opens the root, or makes one; its folder appears with the key in it.
fn prepare_root(folder: &Path) -> Result<FileRoot> {
    if folder.exists() {
        let made = folder.join("root.key").exists();
        return Ok(if made { FileRoot::open(folder)? } else { FileRoot::create(folder)? });
    }
    let fresh = unfinished(folder);
    if fresh.exists() {
        // An earlier attempt's: nothing was ever sealed under it, since that comes after the renaming.
        std::fs::remove_dir_all(&fresh).with_context(|| format!("removing {}", fresh.display()))?;
    }
    FileRoot::create(&fresh)?;
    rename(&fresh, folder)?;
    Ok(FileRoot::open(folder)?)
}

/// Gives a prepared store its name.
fn finish_store(prepared: &Path, store: &Path) -> Result<()> {
    let mut log = prepared.as_os_str().to_owned();
    log.push("-wal");
    if Path::new(&log).exists() {
        bail!("{} was not closed cleanly; run the same command again", prepared.display());
    }
    rename(prepared, store)
}

/// Renames durably, within one folder.
fn rename(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let renamed = std::fs::rename(from, to).and_then(|()| std::fs::File::open(folder)?.sync_all());
    renamed.with_context(|| format!("renaming {} to {}", from.display(), to.display()))
}

/// Store, root, log and engine, open.
pub(crate) struct Opened {
    pub(crate) engine: Arc<Engine>,
    pub(crate) log: Arc<AuditLog>,
    pub(crate) root: Arc<dyn RootOfTrust>,
    pub(crate) report: StartReport,
    emergency_root: String,
    login_seed: claviger_domain::SecretBytes,
    sinks: Vec<Arc<LineSink>>,
    committer: tokio::task::JoinHandle<()>,
}

impl Opened {
    /// Opens everything that holds state, in the order in which each vouches for the next: the root opens the barrier,
    /// the barrier the head, the head names the checkpoint that the log must reach.
    pub(crate) async fn open(config: &Config) -> Result<Self> {
        let root: Arc<dyn RootOfTrust> = Arc::new(FileRoot::open(&config.root).context("opening the root of trust")?);
        if !config.has_store() {
            bail!("there is no store at {}; run `claviger server init --admin TYPE:ID` first", config.store.display());
        }
        let store: Arc<dyn Store> =
            Arc::new(SqlStore::open_sqlite(&config.store).await.with_context(|| format!("opening {}", config.store.display()))?);
        let ring = KeyRing::open(&store.barriers().await?, &[&*root]).await.context("opening the barrier")?;
        let head = store.head().await?.context("the store was never prepared; run `claviger server init`")?;
        let head = ring.open_head(&head).context("checking the store's head")?;
        let seed = ring.audit_seed();
        let seed = seed.expose().try_into().context("the audit key's size")?;
        let key = LogKey::from_seed(LOG_NAME, seed)?;
        let must_reach = head.checkpoint.map(|c| Checkpoint { size: c.size, root: c.root });
        let log = Arc::new(AuditLog::open(log_config(config), key, must_reach).context(opening(config))?);
        let (recorder, sinks) = recorder(config, &log)?;
        let emergency_root = EmergencyAuthority::of(&ring)?.root_pem()?;
        let login_seed = ring.login_seed();
        let alerts = Arc::new(Alerts::new(Arc::new(recorder), config.audit.alerts));
        learn_readers(&alerts, &log)?;
        let Recorded { requests, after, since, epoch } = recorded_changes(&log, head.revision)?;
        let settings = claviger_engine::Settings { notices: notices(config)?, epoch_known: epoch, ..config.keys.clone() };
        let Started { engine, report, committer } = Engine::start(settings, store, alerts.clone(), ring, Arc::new(SystemClock)).await?;
        for (id, why) in &report.damaged {
            tracing::error!(key.id = %id, %why, "the record of `{id}` is damaged and is not served");
        }
        for (what, why) in &report.damaged_others {
            tracing::error!(%why, "{what} do not authenticate and do not count");
        }
        if !report.digest_matches {
            tracing::error!("rows of the store were changed behind Claviger's back; run `claviger check`");
        }
        let found = engine.reconcile(&requests, after, since).await?;
        if found > 0 {
            tracing::warn!("{found} committed changes had no audit record after a crash; they are recorded now");
        }
        Ok(Self { engine, log, root, report, emergency_root, login_seed, sinks, committer })
    }

    /// Ends cleanly: all commits done, the log signed.
    pub(crate) async fn close(self) {
        drop(self.engine);
        if tokio::time::timeout(Duration::from_secs(10), self.committer).await.is_err() {
            tracing::warn!("closing the store took too long");
        }
        self.log.close();
        drop(self.sinks);
    }
}

fn log_config(config: &Config) -> LogConfig {
    let audit = &config.audit;
    LogConfig {
        standby: audit.standby.clone(),
        durability: audit.interval.map_or(Durability::Fsync, Durability::Interval),
        reserve: audit.reserve,
        extra_sync_delay: audit.extra_sync_delay,
        ..LogConfig::new(&audit.folder)
    }
}

fn recorder(config: &Config, log: &Arc<AuditLog>) -> Result<(Recorder, Vec<Arc<LineSink>>)> {
    let open = |target: SinkTarget| LineSink::open(target, SINK_BOUND).map(Arc::new);
    let plain = config.audit.stdout.then(|| open(SinkTarget::Stdout)).transpose()?;
    let ecs = config.audit.ecs.clone().map(|path| open(SinkTarget::File(path))).transpose().context("opening the ECS sink")?;
    let sinks = plain.iter().chain(&ecs).cloned().collect();
    Ok((Recorder::new(log.clone(), plain, ecs), sinks))
}

/// Lets the alerts learn from the log's newest records, beside the start.
fn learn_readers(alerts: &Arc<Alerts>, log: &AuditLog) -> Result<()> {
    let reader = Reader::open(&log.dirs())?;
    let size = log.size();
    let from = size.saturating_sub(LEARNED).max(reader.first());
    let alerts = alerts.clone();
    let learn = move || alerts.learn(reader.entries(from).map_while(Result::ok).take_while(|(i, _)| *i < size).map(|(_, entry)| entry));
    std::thread::Builder::new().name("learn-readers".to_owned()).spawn(learn).context("starting a thread")?;
    Ok(())
}

/// What the log says of changes, from its end back to the last start, which reconciled all before it.
pub(crate) struct Recorded {
    /// Requests whose change has its record.
    pub(crate) requests: HashSet<RequestId>,
    /// Changes up to this one were reconciled.
    pub(crate) after: Revision,
    /// Changes made before this moment are not told by these records.
    pub(crate) since: Timestamp,
    /// The newest epoch that they name.
    pub(crate) epoch: u64,
}

/// The members of a record that matter here.
#[derive(serde::Deserialize)]
pub(crate) struct Recalled<'a> {
    time: &'a str,
    request: &'a str,
    action: &'a str,
    outcome: &'a str,
    revision: Option<&'a str>,
    /// The store's revision when the record was made.
    head: Option<&'a str>,
    part: Option<Part>,
}

/// Which part of a record an entry is, where the record is longer than an entry.
#[derive(serde::Deserialize)]
struct Part {
    n: u64,
    of: u64,
}

impl<'a> Recalled<'a> {
    /// The record in an entry of the log, where it is one that this program reads.
    pub(crate) fn read(entry: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(entry).ok()
    }

    /// The newest revision that it names.
    pub(crate) fn newest(&self) -> Option<Revision> {
        self.revision.and_then(Revision::parse).max(self.head.and_then(Revision::parse))
    }

    /// Whether it is a change's own record. One that merely saw a key names the key's revision too, and a change that was
    /// reported as failed may have been committed all the same.
    ///
    /// Of a record in parts the last one tells, since a crash may have left only the first ones.
    pub(crate) fn tells_of_change(&self) -> bool {
        let is_change = Action::CHANGES.iter().any(|action| action.name() == self.action);
        let is_all = self.part.as_ref().is_none_or(|part| part.n == part.of);
        self.outcome == Outcome::Ok.name() && is_change && is_all
    }

    pub(crate) fn at(&self) -> Option<Timestamp> {
        let at = time::OffsetDateTime::parse(self.time, &time::format_description::well_known::Rfc3339).ok()?;
        i64::try_from(at.unix_timestamp_nanos()).ok().map(Timestamp)
    }
}

/// Reads the records of changes; the log must not know more than the database, whose head is given.
pub(crate) fn recorded_changes(log: &AuditLog, head: Revision) -> Result<Recorded> {
    let mut recorded = Recorded { requests: HashSet::new(), after: Revision::default(), since: Timestamp(i64::MIN), epoch: 0 };
    let (mut newest, mut looked_at) = (None, 0);
    let mut reader = Reader::open(&log.dirs())?;
    // Before the first record that is kept there were others, of which nothing is known any more.
    let pruned = Some(reader.first()).filter(|first| *first > 0);
    for entry in reader.backwards(u64::MAX)? {
        let (index, entry) = entry?;
        // Not one of ours to read: it is no record of a change.
        let Some(record) = Recalled::read(&entry) else { continue };
        let revision = record.revision.and_then(Revision::parse);
        newest = newest.max(record.newest());
        if let (true, Some(revision)) = (record.action == Action::Start.name(), revision) {
            recorded.after = revision;
            break;
        }
        if record.tells_of_change() {
            recorded.requests.extend(u128::from_str_radix(record.request, 16).map(RequestId));
        }
        looked_at += 1;
        let ends = looked_at >= RECONCILED || pruned == Some(index);
        if let (true, Some(at)) = (ends, record.at()) {
            let margin = i64::try_from(DISORDER.as_nanos()).unwrap_or(i64::MAX);
            recorded.since = Timestamp(at.0.saturating_add(margin));
            break;
        }
    }
    if let Some(newest) = newest.filter(|newest| is_beyond(*newest, head)) {
        bail!(
            "the audit log knows revision {newest} and the database ends at {head}: the database was rolled back to an older state; restore a newer copy"
        );
    }
    recorded.epoch = newest.map_or(0, |newest| newest.epoch);
    Ok(recorded)
}

/// Whether the log's newest revision is one that a database with this head does not have. A start that changed nothing is no loss: it gives the
/// same number a new epoch.
pub(crate) fn is_beyond(newest: Revision, head: Revision) -> bool {
    newest > head && newest.number != head.number
}

/// A running server.
pub struct Server {
    /// Where clients connect, with the ports that were taken.
    pub addresses: Vec<SocketAddr>,
    /// Where health and metrics are, if anywhere.
    pub metrics_address: Option<SocketAddr>,
    /// What was found when the store was opened.
    pub report: StartReport,
    shutdown: Shutdown,
    stopping: Arc<AtomicBool>,
    serving: Vec<Serving>,
    opened: Opened,
    reloader: Arc<Reloader>,
    /// What the files in force looked like before they were read.
    seen: Stamps,
    app: Arc<App>,
    signals: Signals,
}

/// The signals that the server follows. They are caught from the start's beginning: one that comes between "ready" and the
/// loop that waits for it would end the process on the spot.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        let [terminate, interrupt, hang_up] = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self { terminate: terminate?, interrupt: interrupt?, hang_up: hang_up? })
    }
}

/// Starts a server. `tokens` are a development server's users; `hardened` is what [`crate::hygiene::harden`] could do.
///
/// # Errors
/// Names the step that failed; nothing is served then.
pub async fn start(config: &Config, tokens: Option<TokenTable>, hardened: Hardened) -> Result<Server> {
    let signals = Signals::catch().context("catching signals")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // Files are read once, before anything is opened; one that changes from here on is read again as any other change.
    let files = Files::of(config);
    let (tls, mut verifiers) = files.read()?;
    let opened = Opened::open(config).await?;
    let roots = RootFiles { emergency: Some(opened.emergency_root.clone()), ..files.roots };
    verifiers.break_glass = roots.break_glass()?;
    let people = Arc::new(People::new(&config.auth.people, &opened.login_seed, clock.clone())?);
    let github = github(config, &clock)?;
    let callers = Callers::new(verifiers, config.auth.machine_names, tokens.map(Arc::new), config.auth.denials, clock.clone());
    let callers = Arc::new(callers.with_people(people.sessions.clone(), github));
    let shutdown = Shutdown::new();
    let stopping = Arc::new(AtomicBool::new(false));
    let mut sinks = opened.sinks.clone();
    let knox = config.knox.as_ref().map(|k| {
        let sink = k
            .log
            .clone()
            .map(|path| LineSink::open(SinkTarget::File(path), SINK_BOUND).map(Arc::new))
            .transpose()
            .context("opening Knox's log")?;
        sinks.extend(sink.clone());
        let log = sink.map(|sink| KnoxLog::new(sink, k.log_service.clone(), config.name.clone()));
        anyhow::Ok(Knox::new(opened.engine.clone(), callers.clone(), clock.clone(), &config.name, k, log))
    });
    let knox = knox.transpose()?;
    let metrics = Arc::new(Metrics::new(&opened.engine, &opened.log, &sinks));
    let back = Arc::new(crate::backstage::Backstage {
        engine: opened.engine.clone(),
        log: opened.log.clone(),
        root: opened.root.clone(),
        metrics: metrics.clone(),
        hardened,
        report: opened.report.clone(),
        sinks: sinks.clone(),
        retention_days: config.audit.retention_days,
    });
    let native = config.native.then(|| {
        Native::new(NativeParts {
            engine: opened.engine.clone(),
            callers: callers.clone(),
            people,
            back,
            clock: clock.clone(),
            max_value: config.keys.max_value,
            sharing: config.sharing,
            watches_per_identity: config.watches_per_identity,
            shutdown: shutdown.clone(),
        })
    });
    let app = Arc::new(App { knox, native, engine: opened.engine.clone(), callers: callers.clone(), metrics: metrics.clone(), clock });
    // The next start relies on the revision: all changes up to it have their records before this one.
    let mut reason = format!("claviger {} at revision {}", env!("CARGO_PKG_VERSION"), opened.report.revision);
    let StartReport { damaged, digest_matches, .. } = &opened.report;
    if !damaged.is_empty() || !digest_matches {
        let sum = if *digest_matches { "is right" } else { "is wrong: rows were changed behind Claviger's back" };
        reason.push_str(&format!("; {} keys are damaged and not served; the sum over all rows {sum}", damaged.len()));
    }
    note(&app, Action::Start, &reason, Some(opened.report.revision)).await?;
    let bind = |name: &str, address: SocketAddr, security, workers| {
        Listener::bind(&ListenerConfig { name: name.into(), address, security }, workers)
    };
    let clients = config.listen.iter().map(|a| bind("clients", *a, Security::Tls, config.threads)).collect::<Result<Vec<_>, _>>()?;
    let addresses = clients.iter().map(Listener::address).collect();
    let mut serving = vec![serve(clients, Some(tls.clone()), app.clone(), config.limits.clone(), shutdown.clone())?];
    let mut metrics_address = None;
    if let Some(address) = config.metrics {
        let listener = bind("metrics", address, Security::Plain, 1)?;
        metrics_address = Some(listener.address());
        let health = Arc::new(Health { metrics, log: opened.log.clone(), engine: opened.engine.clone(), stopping: stopping.clone() });
        serving.push(serve(vec![listener], None, health, config.limits.clone(), shutdown.clone())?);
    }
    let (files, seen) = (files.paths, files.stamps);
    let reloader = Arc::new(Reloader { config: config.clone(), roots, files, callers, tls, sinks, generation: AtomicU64::new(1) });
    let report = opened.report.clone();
    Ok(Server { addresses, metrics_address, report, shutdown, stopping, serving, opened, reloader, seen, app, signals })
}

/// The service that knows the tokens of Knox's `0u`, where one is configured.
fn github(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Arc<Github>>> {
    let people = &config.auth.people;
    let github = people.github.as_ref().map(|github| Github::new(github, people.names.clone(), clock.clone()));
    Ok(github.transpose()?.map(Arc::new))
}

/// Where `break-glass` leaves its notes.
fn notes(config: &Config) -> PathBuf {
    config.store.with_file_name("break-glass")
}

/// Makes an emergency certificate from the root and the barrier alone; a server may be running.
///
/// # Errors
/// When the root does not open the barrier, or files cannot be written.
pub(crate) async fn break_glass(config: &Config, reason: &str, out: &Path) -> Result<Emergency> {
    let (store, ring) = open_ring(config).await?;
    store.close().await;
    EmergencyAuthority::of(&ring)?.make(reason, &notes(config), out)
}

/// What [`check`] found.
pub(crate) struct Checked {
    /// Rows and versions.
    pub report: claviger_engine::CheckReport,
    /// What the database engine's own check says.
    pub database: Vec<String>,
    /// The audit log.
    pub log: claviger_audit::Report,
    /// A revision that the log knows and the database, which is older, does not.
    pub rolled_back: Option<Revision>,
}

/// The newest revision that the log's last records name.
fn newest_recorded(dirs: &[PathBuf]) -> Result<Option<Revision>> {
    let mut newest = None;
    for entry in Reader::open(dirs)?.backwards(u64::MAX)?.take(1000) {
        let (_, entry) = entry?;
        let Some(record) = Recalled::read(&entry) else { continue };
        newest = newest.max(record.newest());
    }
    Ok(newest)
}

/// Reads and verifies every row, every version and the whole audit log; changes nothing. A server may be running.
///
/// # Errors
/// When something cannot be read at all.
pub(crate) async fn check(config: &Config) -> Result<Checked> {
    let dirs: Vec<_> = std::iter::once(config.audit.folder.clone()).chain(config.audit.standby.clone()).collect();
    // The log first: what it knows by now, the database must have when it is read after it.
    let recorded = newest_recorded(&dirs)?;
    let (store, ring) = open_ring(config).await?;
    let database = store.raw_check(true).await?;
    let report = claviger_engine::check(&store, &ring).await?;
    store.close().await;
    let rolled_back = recorded.filter(|newest| is_beyond(*newest, report.start.revision));
    let seed = ring.audit_seed();
    let key = LogKey::from_seed(LOG_NAME, seed.expose().try_into().context("the audit key's size")?)?;
    let log = claviger_audit::verify(&dirs, key.verifier())?;
    Ok(Checked { report, database, log, rolled_back })
}

async fn open_ring(config: &Config) -> Result<(SqlStore, KeyRing)> {
    let root = FileRoot::open(&config.root).context("opening the root of trust")?;
    if !config.has_store() {
        bail!("there is no store at {}", config.store.display());
    }
    let store = SqlStore::open_sqlite_for_reading(&config.store).await.with_context(|| format!("opening {}", config.store.display()))?;
    let ring = KeyRing::open(&store.barriers().await?, &[&root]).await.context("opening the barrier")?;
    Ok((store, ring))
}

async fn note(app: &App, action: Action, reason: &str, revision: Option<Revision>) -> Result<()> {
    let bare = Record::new(app.clock.now(), app.callers.request_id(), "server", action, Outcome::Ok);
    let record = Record { reason, revision, ..bare };
    app.engine.note(&record).await.context("writing to the audit log")
}

/// How often it is looked for requests for approval that have run out.
const SWEEP_APPROVALS: Duration = Duration::from_secs(30);

/// Where the engine tells what becomes of requests for approval, if anybody is to hear of it.
fn notices(config: &Config) -> Result<Option<tokio::sync::mpsc::Sender<claviger_engine::Notice>>> {
    if config.webhooks.urls.is_empty() {
        return Ok(None);
    }
    let (notices, heard) = webhook::channel();
    webhook::start(&config.webhooks, heard).context("approvals.webhooks")?;
    Ok(Some(notices))
}

/// What goes before the reason why the audit log does not open.
fn opening(config: &Config) -> &'static str {
    match config.audit.standby {
        None => "opening the audit log",
        // Entries that were acknowledged may lie in either, so neither is passed over.
        Some(_) => {
            "opening the audit log (`audit.folder` and `audit.standby` must both be there at a start; only when the standby's disk is lost for \
             good, take `audit.standby` out of the configuration)"
        }
    }
}

/// Removes audit records older than so many days. That is recorded before, so that it cannot happen without a record.
async fn prune(app: &App, log: &Arc<AuditLog>, watch: &retention::Watch, days: u32) -> Result<()> {
    let kept_from = watch.kept_from(app.clock.now(), days).map_err(anyhow::Error::msg)?;
    let reader = log.clone();
    let old = tokio::task::spawn_blocking(move || retention::removable(&reader, kept_from)).await??;
    let Some(old) = old else { return Ok(()) };
    let reason = format!("records {} to {} are older than {days} days and are removed", old.start, old.end - 1);
    tracing::info!("audit log: {reason}");
    note(app, Action::Prune, &reason, None).await?;
    let log = log.clone();
    tokio::task::spawn_blocking(move || log.prune(old.end)).await??;
    Ok(())
}

impl Server {
    /// Serves until SIGTERM or SIGINT; reloads certificates, roots and log files on SIGHUP and when the files change.
    ///
    /// # Errors
    /// When signals cannot be had.
    pub async fn run_until_signal(mut self) -> Result<()> {
        let mut look = tokio::time::interval(Duration::from_secs(1));
        let tasks: Vec<_> = self.retain().into_iter().chain(self.sweep_shares()).chain([self.sweep()]).collect();
        loop {
            tokio::select! {
                _ = self.signals.terminate.recv() => break,
                _ = self.signals.interrupt.recv() => break,
                _ = self.signals.hang_up.recv() => {
                    self.reloader.reopen_sinks();
                    self.reloader.reload();
                }
                _ = look.tick() => {
                    self.record_emergencies().await;
                    let now = stamps(&self.reloader.files);
                    if now != self.seen {
                        self.seen = now;
                        self.reloader.reload();
                    }
                }
            }
        }
        tracing::info!("stopping");
        for task in tasks {
            task.abort();
            // It holds what the stop waits for. That it was ended is no news.
            let _ = task.await;
        }
        self.stop().await;
        Ok(())
    }

    /// Starts the task that deletes expired shares, where there are shares.
    fn sweep_shares(&self) -> Option<tokio::task::JoinHandle<()>> {
        if self.reloader.config.sharing == Sharing::Off {
            return None;
        }
        let app = self.app.clone();
        Some(tokio::spawn(async move {
            loop {
                if let Err(error) = app.engine.expire_shares(SHARE_RULE, app.callers.request_id()).await {
                    tracing::warn!(%error, "expired shares are deleted later");
                }
                tokio::time::sleep(SWEEP).await;
            }
        }))
    }

    /// Starts the task that removes old audit records, where the configuration wants that.
    fn retain(&self) -> Option<tokio::task::JoinHandle<()>> {
        let days = self.reloader.config.audit.retention_days?;
        let (app, log) = (self.app.clone(), self.opened.log.clone());
        Some(tokio::spawn(async move {
            let watch = match retention::Watch::begin(&log, app.clock.now()) {
                Ok(watch) => watch,
                Err(error) => return tracing::error!(%error, "old audit records are kept"),
            };
            loop {
                tokio::time::sleep(retention::EVERY).await;
                if let Err(error) = prune(&app, &log, &watch, days).await {
                    tracing::error!(error = format!("{error:#}"), "old audit records are kept");
                }
            }
        }))
    }

    /// Starts the task that writes down which requests for approval have run out.
    fn sweep(&self) -> tokio::task::JoinHandle<()> {
        let app = self.app.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_APPROVALS).await;
                if let Err(error) = app.engine.sweep_approvals().await {
                    tracing::warn!(%error, "requests for approval that have run out are not written down yet");
                }
            }
        })
    }

    /// Turns the notes that `break-glass` left into audit records.
    async fn record_emergencies(&self) {
        for (file, note) in emergency::waiting(&notes(&self.reloader.config)) {
            let reason = format!("certificate {} made by {}: {}", note.name, note.by, note.reason);
            tracing::warn!("the glass was broken: {reason}");
            match self::note(&self.app, Action::BreakGlass, &reason, None).await {
                // A note that cannot be removed is recorded again, which is loud and harmless.
                Ok(()) => drop(std::fs::remove_file(&file)),
                Err(error) => tracing::error!(error = format!("{error:#}"), "break-glass is not recorded yet"),
            }
        }
    }

    /// Stops: no new connections, requests under way end, commits are done, the log is signed.
    pub async fn stop(self) {
        let Self { shutdown, stopping, serving, opened, app, reloader, .. } = self;
        stopping.store(true, Ordering::Relaxed);
        shutdown.start();
        let joined = tokio::task::spawn_blocking(move || serving.into_iter().for_each(Serving::join)).await;
        if joined.is_err() {
            tracing::error!("a worker thread ended badly");
        }
        if let Err(error) = note(&app, Action::Stop, "", None).await {
            tracing::error!(%error, "the stop was not recorded");
        }
        drop(app);
        drop(reloader);
        opened.close().await;
    }
}

/// The files with roots of trust for callers.
#[derive(Clone)]
struct RootFiles {
    machines: Vec<PathBuf>,
    bundles: Vec<(claviger_domain::TrustDomain, PathBuf)>,
    /// The emergency authority's certificate, which comes from the barrier and not from a file.
    emergency: Option<String>,
}

impl RootFiles {
    fn of(config: &Config) -> Self {
        Self { emergency: None, machines: config.auth.machine_roots.clone(), bundles: config.auth.trust_bundles.clone() }
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.machines.clone().into_iter().chain(self.bundles.clone().into_iter().map(|(_, path)| path))
    }

    fn read(&self, generation: u64) -> Result<Verifiers> {
        let mut pem = Vec::new();
        for path in &self.machines {
            pem.extend(read(path)?);
            pem.push(b'\n');
        }
        let from = self.machines.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
        let machines = if self.machines.is_empty() { None } else { Some(MachineCertificates::new(Roots::from_pem(&from, &pem)?)) };
        let mut bundles = BTreeMap::new();
        for (domain, path) in &self.bundles {
            bundles.insert(domain.clone(), Roots::from_pem(&path.display().to_string(), &read(path)?)?);
        }
        let services = if bundles.is_empty() { None } else { Some(TrustBundles::new(bundles)) };
        Ok(Verifiers { machines, services, break_glass: self.break_glass()?, generation })
    }

    fn break_glass(&self) -> Result<Option<MachineCertificates>> {
        let emergency = self.emergency.as_ref().map(|pem| Roots::from_pem("the emergency authority", pem.as_bytes())).transpose()?;
        Ok(emergency.map(MachineCertificates::new))
    }
}

/// When each file was last changed, and which file it is.
type Stamps = Vec<Option<(SystemTime, u64, u64)>>;

fn stamps(files: &[PathBuf]) -> Stamps {
    use std::os::unix::fs::MetadataExt;
    let stamp = |path: &PathBuf| std::fs::metadata(path).ok().and_then(|m| Some((m.modified().ok()?, m.len(), m.ino())));
    files.iter().map(stamp).collect()
}

/// The files with certificates and roots that a configuration names, as they were before they were read.
struct Files<'a> {
    config: &'a Config,
    roots: RootFiles,
    paths: Vec<PathBuf>,
    stamps: Stamps,
}

impl<'a> Files<'a> {
    fn of(config: &'a Config) -> Self {
        let roots = RootFiles::of(config);
        let paths = roots.paths().chain([config.certificate.clone(), config.private_key.clone()]).collect::<Vec<_>>();
        let stamps = stamps(&paths);
        Self { config, roots, paths, stamps }
    }

    fn read(&self) -> Result<(TlsHandle, Verifiers)> {
        let tls = TlsHandle::new(read_identity(self.config)?, Protocols::Http2AndHttp1)?;
        Ok((tls, self.roots.read(1)?))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn read_identity(config: &Config) -> Result<Identity> {
    let identity = Identity::from_pem(&read(&config.certificate)?, &read(&config.private_key)?);
    identity.with_context(|| format!("{} and {}", config.certificate.display(), config.private_key.display()))
}

/// Reads the files that a configuration names, as the server would.
///
/// # Errors
/// Names the file and what is wrong with it.
pub(crate) fn check_files(config: &Config) -> Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    People::new(&config.auth.people, &claviger_domain::SecretBytes::new(vec![0; 32]), clock.clone())?;
    github(config, &clock)?;
    Files::of(config).read().map(drop)
}

/// Puts changed files in force while the server runs.
struct Reloader {
    config: Config,
    roots: RootFiles,
    files: Vec<PathBuf>,
    callers: Arc<Callers>,
    tls: TlsHandle,
    sinks: Vec<Arc<LineSink>>,
    generation: AtomicU64,
}

impl Reloader {
    /// A file that cannot be used leaves what was in force.
    fn reload(&self) {
        match read_identity(&self.config).and_then(|identity| Ok(self.tls.replace(identity)?)) {
            Ok(()) => tracing::info!("the server certificate was read again"),
            Err(error) => tracing::error!(error = format!("{error:#}"), "the server certificate stays as it was"),
        }
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        match self.roots.read(generation) {
            Ok(verifiers) => {
                self.callers.replace_verifiers(verifiers);
                tracing::info!("roots of trust for callers were read again");
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "roots of trust for callers stay as they were"),
        }
    }

    fn reopen_sinks(&self) {
        self.sinks.iter().for_each(|sink| sink.reopen());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_older_than_its_log_when_a_change_is_missing_and_not_when_it_was_only_started() {
        let of = |epoch, number| Revision { epoch, number };
        assert!(is_beyond(of(1, 8), of(1, 7)) && is_beyond(of(3, 8), of(1, 7)) && is_beyond(of(3, 6), of(2, 7)));
        assert!(!is_beyond(of(1, 7), of(1, 7)) && !is_beyond(of(1, 7), of(2, 7)) && !is_beyond(of(1, 6), of(2, 7)));
        // The log knows of starts on this state that changed nothing.
        assert!(!is_beyond(of(3, 7), of(1, 7)));
    }

    #[test]
    fn a_change_whose_record_lacks_its_last_parts_counts_as_not_recorded() {
        let tells = |rest: &str| {
            let text = format!(r#"{{"time":"t","request":"1","action":"change_rights","outcome":"ok"{rest}}}"#);
            serde_json::from_str::<Recalled<'_>>(&text).is_ok_and(|r| r.tells_of_change())
        };
        assert!(tells("") && tells(r#","part":{"n":3,"of":3}"#));
        assert!(!tells(r#","part":{"n":2,"of":3}"#));
    }
}
