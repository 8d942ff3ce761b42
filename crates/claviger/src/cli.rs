//! The command line as a whole: global options, the list of commands, and how each is started.

use crate::commands::*;
use crate::failure::{EXIT_CODES, Failure};
use crate::parse;
use crate::sessions::{KeptSession, Place};
use clap::{Args, Parser, Subcommand};
use claviger_client::{Client, Credentials, Settings};
use claviger_domain::{ApprovalId, Approving};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Keeps secrets and keys: reads, rotates, shares and audits them.
#[derive(Parser)]
#[command(name = "claviger", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Args)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Global {
    /// The server's URL [env: CLAVIGER_ADDR].
    #[arg(long, global = true, value_name = "URL")]
    addr: Option<String>,
    /// PEM file with the CA of the server's certificate; nothing else is trusted [env: CLAVIGER_CA].
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File with a bearer token [env: CLAVIGER_TOKEN has the token itself].
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "cert")]
    token_file: Option<PathBuf>,
    /// PEM file with your certificate [env: CLAVIGER_CERT].
    #[arg(long, global = true, value_name = "FILE", requires = "cert_key")]
    cert: Option<PathBuf>,
    /// PEM file with the certificate's private key [env: CLAVIGER_KEY].
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    cert_key: Option<PathBuf>,
    /// Which of the certificate's names to claim [env: CLAVIGER_MACHINE_NAME].
    #[arg(long, global = true, value_name = "NAME")]
    machine: Option<String>,
    /// How long one request may take, such as 30s.
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse::duration, default_value = "30s")]
    timeout: Duration,
    /// Print JSON instead of tables and sentences: one value, or one on each line where there is no end to wait for (watch;
    /// audit tail, query and export). Errors are JSON on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Where this takes the approval of others: ask for it, for this reason, instead of doing it. The reason is recorded.
    #[arg(long, global = true, value_name = "REASON", value_parser = parse::reason, conflicts_with = "approval")]
    pub(crate) ask: Option<String>,
    /// Do it by this approval, which was given for exactly this.
    #[arg(long, global = true, value_name = "ID", value_parser = parse::approval_id)]
    approval: Option<ApprovalId>,
}

#[derive(Subcommand)]
enum Command {
    /// Print a secret's value.
    Get(get::Get),
    /// Make a key; the value comes from standard input or a file.
    Create(create::Create),
    /// Add a version to a key.
    Add(add::Add),
    // What a command says of itself stands in its own file.
    Put(put::Put),
    Edit(edit::Edit),
    Diff(diff::Diff),
    #[command(subcommand)]
    Import(import::Import),
    Export(export::Export),
    Scan(scan::Scan),
    Share(share::Share),
    #[command(subcommand)]
    Generate(generate::Generate),
    Encrypt(using::encrypt::Encrypt),
    Decrypt(using::decrypt::Decrypt),
    Rewrap(using::rewrap::Rewrap),
    Sign(using::sign::Sign),
    Verify(using::verify::Verify),
    Hmac(using::hmac::Hmac),
    DataKey(using::data_key::DataKey),
    PublicKey(using::public_key::PublicKey),
    #[command(subcommand)]
    ImportKey(using::import_key::ImportKey),
    ExportKey(using::export_key::ExportKey),
    /// Make an active version the primary one.
    Promote(states::Promote),
    /// Stop giving out an active version.
    Deactivate(states::Deactivate),
    /// Give out an inactive version again.
    Reactivate(states::Reactivate),
    /// Erase an inactive version's value for ever.
    Destroy(states::Destroy),
    /// Delete a key with all its versions.
    Delete(delete::Delete),
    /// List a key's versions.
    Versions(versions::Versions),
    /// List the keys on which you have a right.
    Ls(ls::Ls),
    /// Show a key without its value.
    Info(info::Info),
    /// Change a key's description, labels or policy.
    Set(set::Set),
    /// Show and change rights on keys and prefixes.
    #[command(subcommand)]
    Acl(acl::Acl),
    /// Ask others to agree to what rules guard, and decide about what others ask.
    #[command(subcommand)]
    Approval(approval::Approval),
    /// List a key's earlier states.
    History(history::History),
    /// List what a principal can reach.
    Reach(reach::Reach),
    /// Follow changes as they happen.
    Watch(watch::Watch),
    /// Run a program with secrets, and keep them up to date.
    Run(run::Run),
    /// Read, verify and export the audit log.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Show and rotate what protects the store.
    #[command(subcommand)]
    Seal(seal::Seal),
    /// Show the server's state; exits with 1 when something needs somebody now.
    Status(status::Status),
    /// Log in at an issuer that the server names, in a browser.
    Login(login::Login),
    /// End your login at this server.
    Logout(logout::Logout),
    /// Show who the server takes you for.
    Whoami(whoami::Whoami),
    /// Print a completion script for a shell.
    Completions(completions::Completions),
    /// Print a manual page, or write all of them into a folder.
    Man(man::Man),
    /// Verify a whole store and its audit log from their files; changes nothing.
    #[cfg(feature = "server")]
    Check(check::Check),
    /// Check a server's configuration.
    #[command(subcommand)]
    #[cfg(feature = "server")]
    Config(config::Config),
    /// Run or prepare a server.
    #[cfg(feature = "server")]
    Server(server::Server),
    /// Knox's own command line, for `alias knox='claviger knox'`.
    Knox(knox::Knox),
    /// Keep this machine's secrets at hand: run the node agent, and ask it.
    #[command(subcommand)]
    Node(node::Node),
}

/// What a command that talks to a server works with.
pub(crate) struct Session {
    /// The server.
    pub(crate) client: Client,
    /// Whether to print JSON.
    pub(crate) json: bool,
}

impl Cli {
    /// Runs the command; the value is the exit code.
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let Self { global, command } = self;
        match command {
            Command::Get(c) => online(global, async |s| c.run(s).await),
            Command::Create(c) => online(global, async |s| c.run(s).await),
            Command::Add(c) => online(global, async |s| c.run(s).await),
            Command::Put(c) => online(global, async |s| c.run(s).await),
            Command::Edit(c) => online(global, async |s| c.run(s).await),
            Command::Diff(c) => online(global, async |s| c.run(s).await),
            Command::Import(c) => online(global, async |s| c.run(s).await),
            Command::Export(c) => online(global, async |s| c.run(s).await),
            Command::Share(c) => online(global, async |s| c.run(s).await),
            Command::Scan(c) if c.is_offline() => c.install(global.json),
            Command::Scan(c) => online(global, async |s| c.run(s).await),
            Command::Generate(c) if c.has_target() => online(global, async |s| c.put(s).await),
            Command::Generate(c) => c.print(global.json),
            Command::Encrypt(c) => online(global, async |s| c.run(s).await),
            Command::Decrypt(c) => online(global, async |s| c.run(s).await),
            Command::Rewrap(c) => online(global, async |s| c.run(s).await),
            Command::Sign(c) => online(global, async |s| c.run(s).await),
            Command::Verify(c) => online(global, async |s| c.run(s).await),
            Command::Hmac(c) => online(global, async |s| c.run(s).await),
            Command::DataKey(c) => online(global, async |s| c.run(s).await),
            Command::PublicKey(c) => online(global, async |s| c.run(s).await),
            Command::ExportKey(c) => online(global, async |s| c.run(s).await),
            Command::ImportKey(using::import_key::ImportKey::Offline(c)) => c.run(global.json),
            Command::ImportKey(using::import_key::ImportKey::Online(c)) => online(global, async |s| c.run(s).await),
            Command::Promote(c) => online(global, async |s| c.run(s).await),
            Command::Deactivate(c) => online(global, async |s| c.run(s).await),
            Command::Reactivate(c) => online(global, async |s| c.run(s).await),
            Command::Destroy(c) => online(global, async |s| c.run(s).await),
            Command::Delete(c) => online(global, async |s| c.run(s).await),
            Command::Versions(c) => online(global, async |s| c.run(s).await),
            Command::Ls(c) => online(global, async |s| c.run(s).await),
            Command::Info(c) => online(global, async |s| c.run(s).await),
            Command::Set(c) => online(global, async |s| c.run(s).await),
            Command::Acl(c) => online(global, async |s| c.run(s).await),
            Command::Approval(approval::Approval::Ask(ask)) => ask.command(global)?.run(),
            Command::Approval(c) => online(global, async |s| c.run(s).await),
            Command::History(c) => online(global, async |s| c.run(s).await),
            Command::Reach(c) => online(global, async |s| c.run(s).await),
            Command::Watch(c) => online(global, async |s| c.run(s).await),
            Command::Run(c) => online(global, async |s| c.run(s).await),
            Command::Audit(audit::Audit::Offline(c)) => c.run(global.json),
            Command::Audit(audit::Audit::Online(c)) => online(global, async |s| c.run(s).await),
            Command::Seal(c) => online(global, async |s| c.run(s).await),
            Command::Status(c) => online(global, async |s| c.run(s).await),
            Command::Login(c) => at_server(global, async |s| c.run(s).await),
            Command::Logout(c) => at_server(global, async |s| c.run(s).await),
            Command::Whoami(c) => online(global, async |s| c.run(s).await),
            Command::Completions(c) => c.run(),
            Command::Man(c) => c.run(global.json),
            #[cfg(feature = "server")]
            Command::Check(c) => c.run(global.json),
            Command::Knox(c) => c.run(),
            #[cfg(feature = "server")]
            Command::Config(c) => c.run(global.json),
            #[cfg(feature = "server")]
            Command::Server(c) => c.run(global.json),
            Command::Node(c) => {
                let json = global.json;
                c.run(global.settings()?, json)
            }
        }
    }
}

/// Runs a command that talks to a server, on one thread. Without another credential the session of that server is used,
/// if there is one.
fn online(global: Global, command: impl AsyncFnOnce(&Session) -> Result<u8, Failure>) -> Result<u8, Failure> {
    let (json, mut config) = (global.json, global.config()?);
    let runtime = runtime()?;
    runtime.block_on(async {
        if matches!(config.credentials, Credentials::Nothing)
            && let Some(kept) = KeptSession::find(Place::of(&config)).await?
        {
            config.credentials = Credentials::Session(Arc::new(kept));
        }
        let client = Client::new(config).map_err(|e| Failure::client(e, None))?;
        command(&Session { client, json }).await
    })
}

/// What a command works with that logs in or out.
pub(crate) struct AtServer {
    /// The server.
    pub(crate) place: Place,
    /// Whether to print JSON.
    pub(crate) json: bool,
}

/// Runs a command that is about one's login at a server, without any credential.
fn at_server(global: Global, command: impl AsyncFnOnce(&AtServer) -> Result<u8, Failure>) -> Result<u8, Failure> {
    let json = global.json;
    let place = Place::of(&global.config()?);
    runtime()?.block_on(command(&AtServer { place, json }))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| Failure::other(format!("starting: {e}")))
}

impl Global {
    /// The settings, checked.
    fn config(self) -> Result<claviger_client::Config, Failure> {
        let timeout = self.timeout;
        let approving = match (&self.ask, self.approval) {
            (Some(reason), _) => Approving::Ask(Arc::from(reason.as_str())),
            (None, Some(id)) => Approving::With(id),
            (None, None) => Approving::Plain,
        };
        let mut config = self.settings()?.resolve().map_err(|e| Failure::client(e.into(), None))?;
        (config.timeout, config.approving) = (timeout, approving);
        Ok(config)
    }

    /// The environment, with what flags say instead. A flag for one kind of credential puts the other kind aside.
    fn settings(self) -> Result<Settings, Failure> {
        let mut settings = Settings::from_env();
        settings.addr = self.addr.or(settings.addr);
        settings.ca = self.ca.or(settings.ca);
        settings.machine = self.machine.or(settings.machine);
        if let Some(path) = self.token_file {
            settings.token = Some(read_token(&path)?);
            (settings.cert, settings.key) = (None, None);
        }
        if self.cert.is_some() {
            (settings.token, settings.cert, settings.key) = (None, self.cert, self.cert_key);
        }
        Ok(settings)
    }
}

fn read_token(path: &std::path::Path) -> Result<Zeroizing<String>, Failure> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|e| Failure::usage(format!("--token-file: cannot read {}: {e}", path.display())))?;
    Ok(Zeroizing::new(text.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_exit_codes_stand_in_the_help() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("3  not found,") && help.contains("5  not authenticated"));
    }
}
