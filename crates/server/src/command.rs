//! What the `claviger server` commands do, each from arguments to exit.

use crate::config::{Config, LogConfig};
use crate::{dev, hygiene, run};
use anyhow::{Context, Result};
use claviger_authn::TokenTable;
use claviger_domain::Principal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Runs a production server until it is told to stop.
///
/// # Errors
/// Names the step that failed and the remedy.
pub fn serve(file: &Path) -> Result<()> {
    let hardened = hygiene::harden();
    let config = Config::load(file, std::env::vars(), false)?;
    log_to_stderr(&config.log);
    runtime()?.block_on(async {
        let server = run::start(&config, None, hardened).await?;
        announce(&server);
        server.run_until_signal().await
    })
}

/// Runs a development server in `dir`, making whatever it lacks.
///
/// # Errors
/// Names the step that failed and the remedy.
pub fn serve_dev(dir: &Path, file: Option<&Path>) -> Result<()> {
    let hardened = hygiene::harden();
    let config = Config::dev(dir, file, std::env::vars())?;
    log_to_stderr(&config.log);
    dev::withdraw_env(dir);
    dev::prepare(dir)?;
    let tokens = TokenTable::new(dev::users(dir, &config.dev_users)?).context("static users")?;
    runtime()?.block_on(async {
        if !config.has_store() {
            run::initialise(&config, &[Principal::User(dev::ADMIN.into())], true).await?;
        }
        let server = run::start(&config, Some(tokens), hardened).await?;
        let address = server.addresses.first().copied().context("no address was bound")?;
        dev::write_env(dir, address, server.metrics_address)?;
        announce(&server);
        tracing::warn!("this is a development server: its authority and tokens lie in {}", dir.display());
        server.run_until_signal().await?;
        dev::withdraw_env(dir);
        Ok(())
    })
}

/// A store that was prepared.
#[derive(Debug, serde::Serialize)]
pub struct Prepared {
    /// The database.
    pub store: PathBuf,
    /// Who got all rights on everything.
    pub administrators: Vec<String>,
    /// The key without which nothing in the store can be read.
    pub root_key: PathBuf,
}

/// Prepares a production store.
///
/// # Errors
/// Names the step that failed and the remedy.
pub fn init(file: &Path, admins: &[Principal], knox_rule: bool) -> Result<Prepared> {
    let _ = hygiene::harden();
    let config = Config::load(file, std::env::vars(), false)?;
    runtime()?.block_on(run::initialise(&config, admins, knox_rule))?;
    let administrators = admins.iter().map(ToString::to_string).collect();
    Ok(Prepared { administrators, root_key: config.root.join("root.key"), store: config.store })
}

/// A configuration that is good.
#[derive(Debug, serde::Serialize)]
pub struct GoodConfig {
    /// The file.
    pub file: PathBuf,
    /// Where clients will connect.
    pub listen: Vec<SocketAddr>,
    /// The database.
    pub store: PathBuf,
}

/// Checks a configuration file, and that the files it names can be read.
///
/// # Errors
/// File, line and remedy of the first problem.
pub fn check_config(file: &Path) -> Result<GoodConfig> {
    let config = Config::load(file, std::env::vars(), false)?;
    run::check_files(&config)?;
    Ok(GoodConfig { file: file.to_owned(), listen: config.listen, store: config.store })
}

fn announce(server: &run::Server) {
    let addresses: Vec<_> = server.addresses.iter().map(ToString::to_string).collect();
    tracing::info!(keys = server.report.keys, revision = %server.report.revision, "serving on {}", addresses.join(", "));
}

/// The runtime of everything that is no client connection: commits, the store, signals.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .thread_name("claviger")
        .build()
        .context("starting the runtime")
}

fn log_to_stderr(config: &LogConfig) {
    let filter: Targets = config.filter.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // A second subscriber in one process is a test's affair.
    let _ = if config.json { registry.with(layer.json()).try_init() } else { registry.with(layer.with_target(false)).try_init() };
}

/// An administrator's certificate for an emergency.
#[derive(Debug, serde::Serialize)]
pub struct Emergency {
    /// The name in it, which is in the records of all its requests.
    pub name: String,
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// For how long it is valid.
    pub valid_seconds: i64,
}

/// Makes an administrator's certificate for an hour, in `out`.
///
/// # Errors
/// Names the step that failed and the remedy.
pub fn break_glass(file: &Path, reason: &str, out: &Path) -> Result<Emergency> {
    let _ = hygiene::harden();
    let config = Config::load(file, std::env::vars(), false)?;
    runtime()?.block_on(run::break_glass(&config, reason, out))
}

/// Where a store is.
pub enum Place<'a> {
    /// Where this configuration file says.
    Config(&'a Path),
    /// In a development server's folder.
    Dev(&'a Path),
}

/// What [`check`] found.
#[derive(Debug, serde::Serialize)]
pub struct Checked {
    /// Whether all is well.
    pub good: bool,
    /// What is not, each in a sentence.
    pub findings: Vec<String>,
    /// Keys whose record is whole.
    pub keys: usize,
    /// Versions whose data was opened and is whole.
    pub versions: usize,
    /// The database's revision.
    pub revision: String,
    /// Entries of the audit log.
    pub audit_entries: u64,
    /// Its signed checkpoints that hold.
    pub audit_checkpoints: u64,
}

/// Verifies a whole store and its audit log.
///
/// # Errors
/// When something cannot be read at all.
pub fn check(place: &Place<'_>) -> Result<Checked> {
    let _ = hygiene::harden();
    let config = match place {
        Place::Config(file) => Config::load(file, std::env::vars(), false)?,
        Place::Dev(dir) => Config::dev(dir, None, std::env::vars())?,
    };
    let run::Checked { report, database, log, rolled_back } = runtime()?.block_on(run::check(&config))?;
    let mut findings: Vec<String> = database.into_iter().map(|finding| format!("database: {finding}")).collect();
    findings.extend(report.start.damaged.iter().map(|(id, why)| format!("key {id}: {why}")));
    findings.extend(report.start.damaged_others.iter().map(|(what, why)| format!("{what}: {why}")));
    findings.extend(report.bad_versions.iter().map(|(id, why)| format!("{id}: {why}")));
    if !report.start.digest_matches {
        findings.push("rows were removed, added or rolled back behind Claviger's back: the sum over all rows is not the head's".to_owned());
    }
    findings.extend(rolled_back.map(|known| {
        let end = report.start.revision;
        format!("the audit log knows revision {known} and the database ends at {end}: the database was rolled back")
    }));
    findings.extend(log.problem.iter().map(|problem| format!("audit log: {problem}")));
    Ok(Checked {
        good: findings.is_empty(),
        findings,
        keys: report.start.keys,
        versions: report.versions,
        revision: report.start.revision.to_string(),
        audit_entries: log.size,
        audit_checkpoints: log.checkpoints,
    })
}
