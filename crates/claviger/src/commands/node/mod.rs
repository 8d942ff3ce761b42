//! `claviger node …`: the agent that keeps this machine's secrets at hand, and what programs and people ask of it.

mod get;
mod register;
mod start;
mod status;

use crate::failure::{Code, Failure};
use clap::{Args, Subcommand};
use claviger_client::Settings;
use claviger_node::config::DEFAULT_SOCKET;
use claviger_node::local::{LocalAgent, LocalError};
use std::path::PathBuf;

/// The commands of the node agent.
#[derive(Subcommand)]
pub(crate) enum Node {
    /// Run the agent: keep this machine's registered secrets in an encrypted cache, and serve them on a Unix socket.
    Start(start::Start),
    /// Show how the agent fares; exits with 1 when something needs somebody now.
    Status(status::Status),
    /// Print a secret's value from the agent's cache.
    Get(get::Get),
    /// Register a key with the agent, and wait until it is cached.
    Register(register::Register),
    /// Take a key off the agent's own list; its copy goes too.
    Unregister(register::Unregister),
    /// List the keys that are registered with the agent.
    List(register::List),
}

/// Which agent to ask.
#[derive(Args)]
pub(crate) struct Which {
    /// The agent's socket.
    #[arg(long, value_name = "PATH", env = "CLAVIGER_NODE_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

impl Node {
    /// Runs the command; `server` is what flags and environment say of the server, which only `start` uses.
    pub(crate) fn run(self, server: Settings, json: bool) -> Result<u8, Failure> {
        match self {
            Self::Start(c) => c.run(server),
            Self::Status(c) => c.run(json),
            Self::Get(c) => c.run(json),
            Self::Register(c) => c.run(json),
            Self::Unregister(c) => c.run(json),
            Self::List(c) => c.run(json),
        }
    }
}

impl Which {
    fn agent(&self) -> LocalAgent {
        LocalAgent::new(&self.socket)
    }
}

/// A local request that failed.
fn failed(error: LocalError) -> Failure {
    let said = error.to_string();
    let LocalError::Refused(problem) = error else {
        let next = "is it running? `systemctl status claviger-node`; another socket is named with --socket";
        return Failure::new(Code::Unavailable, said).next(next);
    };
    let code = match problem.code.as_str() {
        "not_found" => Code::NotFound,
        "denied" => Code::Denied,
        "invalid" => Code::Invalid,
        _ => Code::Unavailable,
    };
    let failure = Failure::new(code, said);
    match code {
        Code::NotFound => failure.next("as an administrator of the agent, `claviger node status` shows which keys are registered and cached; who may read them stands in its configuration"),
        Code::Unavailable => failure.next("`claviger node status` says what is wrong"),
        _ => failure,
    }
}
