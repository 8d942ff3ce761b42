//! What the `claviger server` commands do, each from arguments to exit.

use crate::config::{Config, LogConfig};
use crate::{dev, hygiene, run};
use anyhow::{Context, Result};
use claviger_authn::TokenTable;
use claviger_domain::Principal;
use std::path::Path;
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

/// Prepares a production store.
///
/// # Errors
/// Names the step that failed and the remedy.
pub fn init(file: &Path, admins: &[Principal], knox_rule: bool) -> Result<String> {
    let _ = hygiene::harden();
    let config = Config::load(file, std::env::vars(), false)?;
    runtime()?.block_on(run::initialise(&config, admins, knox_rule))?;
    let names: Vec<_> = admins.iter().map(ToString::to_string).collect();
    Ok(format!(
        "prepared {}\nadministrators of everything: {}\nback up {} apart from the database: both together are every secret, and without it none can be read",
        config.store.display(),
        names.join(", "),
        config.root.join("root.key").display()
    ))
}

/// Checks a configuration file, and that the files it names can be read.
///
/// # Errors
/// File, line and remedy of the first problem.
pub fn check_config(file: &Path) -> Result<String> {
    let config = Config::load(file, std::env::vars(), false)?;
    run::check_files(&config)?;
    Ok(format!("{} is good: {} addresses, store {}", file.display(), config.listen.len(), config.store.display()))
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

/// Makes an administrator's certificate for an hour, in `out`.
///
/// # Errors
/// Names the step that failed and the remedy.
pub fn break_glass(file: &Path, reason: &str, out: &Path) -> Result<String> {
    let _ = hygiene::harden();
    let config = Config::load(file, std::env::vars(), false)?;
    let name = runtime()?.block_on(run::break_glass(&config, reason, out))?;
    Ok(format!(
        "{name}: valid for one hour, in {0}/break-glass.pem and {0}/break-glass.key\nIt may list and administer everything the empty prefix grants to `user_group:claviger:break-glass`, and is recorded in the audit log.\nUse it with CLAVIGER_CERT and CLAVIGER_KEY, then delete both files.",
        out.display()
    ))
}

/// Where a store is.
pub enum Place<'a> {
    /// Where this configuration file says.
    Config(&'a Path),
    /// In a development server's folder.
    Dev(&'a Path),
}

/// Verifies a whole store and its audit log. The flag says whether all is well.
///
/// # Errors
/// When something cannot be read at all.
pub fn check(place: &Place<'_>) -> Result<(bool, String)> {
    use std::fmt::Write as _;
    let _ = hygiene::harden();
    let config = match place {
        Place::Config(file) => Config::load(file, std::env::vars(), false)?,
        Place::Dev(dir) => Config::dev(dir, None, std::env::vars())?,
    };
    let run::Checked { report, database, log, rolled_back } = runtime()?.block_on(run::check(&config))?;
    let mut text = String::new();
    let mut bad = |line: String| {
        let _ = writeln!(text, "BAD  {line}");
    };
    database.into_iter().for_each(|finding| bad(format!("database: {finding}")));
    report.start.damaged.iter().for_each(|(id, why)| bad(format!("key {id}: {why}")));
    report.start.damaged_others.iter().for_each(|(what, why)| bad(format!("{what}: {why}")));
    report.bad_versions.iter().for_each(|(id, why)| bad(format!("{id}: {why}")));
    if !report.start.digest_matches {
        bad("rows were removed, added or rolled back behind Claviger's back: the sum over all rows is not the head's".to_owned());
    }
    if let Some(known) = rolled_back {
        bad(format!(
            "the audit log knows revision {known} and the database ends at {}: the database was rolled back",
            report.start.revision
        ));
    }
    if let Some(problem) = &log.problem {
        bad(format!("audit log: {problem}"));
    }
    let good = text.is_empty();
    let _ = write!(
        text,
        "{} keys, {} versions opened, revision {}; audit log of {} entries, {} checkpoints",
        report.start.keys, report.versions, report.start.revision, log.size, log.checkpoints
    );
    Ok((good, text))
}
