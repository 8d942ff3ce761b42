//! `claviger node start`: the agent's process.

use crate::failure::Failure;
use clap::Args;
use claviger_client::Settings;
use claviger_node::agent::{self, Agent, AgentError};
use claviger_node::cache::CacheError;
use claviger_node::config::{Config, Overrides};
use std::path::PathBuf;

/// Options of `node start`. The server's address and the machine's certificate may also come from the options and variables that the other
/// commands take, which then stand before those of the file.
#[derive(Args)]
pub(crate) struct Start {
    /// The agent's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/claviger-node/node.toml")]
    config: PathBuf,
    /// Listen on this socket instead of node.socket.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Keep the cache in this folder instead of node.cache.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Only check the configuration.
    #[arg(long)]
    check: bool,
}

impl Start {
    pub(crate) fn run(self, server: Settings) -> Result<u8, Failure> {
        let overrides = Overrides { socket: self.socket, cache: self.cache, server };
        let config = Config::read(&self.config, overrides).map_err(|e| Failure::usage(e.to_string()))?;
        if self.check {
            crate::output::line(&format!(
                "{} is in order: {} keys, {} servers",
                self.config.display(),
                config.registered.len(),
                config.endpoints.len()
            ))?;
            return Ok(0);
        }
        agent::log_to_stderr();
        let memory = agent::harden();
        let socket = config.socket.clone();
        let agent = Agent::build(config).map_err(failed)?;
        agent.run(memory, || eprintln!("serving on {}", socket.display())).map_err(failed)?;
        Ok(0)
    }
}

fn failed(error: AgentError) -> Failure {
    match &error {
        AgentError::Cache(CacheError::InUse(_) | CacheError::Open { .. } | CacheError::Root(_)) => Failure::usage(error.to_string()),
        _ => Failure::other(error.to_string()),
    }
}
