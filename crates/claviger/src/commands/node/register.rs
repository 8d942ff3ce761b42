//! `claviger node register`, `unregister`, `list`: what the agent keeps.

use super::{Which, failed};
use crate::failure::{Code, Failure};
use crate::{output, parse};
use clap::Args;
use claviger_domain::KeyId;
use claviger_node::local::LocalAgent;
use claviger_node::status::{KeyReport, Report};
use std::time::{Duration, Instant};

/// Options of `node register`. Only administrators of the agent may.
#[derive(Args)]
pub(crate) struct Register {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// How long to wait until it is cached; 0s does not wait.
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, default_value = "10s")]
    wait: Duration,
    #[command(flatten)]
    which: Which,
}

/// Options of `node unregister`. Only administrators of the agent may.
#[derive(Args)]
pub(crate) struct Unregister {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    #[command(flatten)]
    which: Which,
}

/// Options of `node list`. Only administrators of the agent may.
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
}

impl Register {
    pub(crate) fn run(self, json: bool) -> Result<u8, Failure> {
        let Self { id, wait, which } = self;
        let agent = which.agent();
        agent.ask("PUT", &format!("/v1/registered/{id}")).map_err(failed)?;
        let state = wait_until_cached(&agent, &id, wait)?;
        match json {
            true => output::json(&serde_json::json!({ "id": id.as_str(), "state": state }))?,
            false => output::line(&format!("{id} is registered and {state}"))?,
        }
        Ok(0)
    }
}

/// The key's state once it is cached, or when the time is over.
fn wait_until_cached(agent: &LocalAgent, id: &KeyId, wait: Duration) -> Result<String, Failure> {
    let begun = Instant::now();
    loop {
        let answer = agent.ask("GET", "/v1/status").map_err(failed)?;
        let report: Report =
            serde_json::from_slice(&answer.body).map_err(|e| Failure::other(format!("the agent's status is of another version: {e}")))?;
        let key: Option<KeyReport> = report.keys.into_iter().flatten().find(|key| key.id == id.as_str());
        let state = key.as_ref().map_or_else(|| "not cached yet".to_owned(), |key| key.state.clone());
        let refused = key.and_then(|key| key.refused);
        match (state.as_str(), refused) {
            ("cached", _) => return Ok(state),
            (_, Some(code)) => {
                let said = format!("`{id}` is registered, and the server refuses it to this machine: {code}");
                return Err(Failure::new(Code::NotFound, said)
                    .next("it is fetched as soon as the machine may read it; `claviger acl grant` gives the right"));
            }
            _ if wait.is_zero() => return Ok(state),
            _ if begun.elapsed() >= wait => {
                let said = format!("`{id}` is registered, and was not cached within {} s", wait.as_secs());
                return Err(Failure::new(Code::Unavailable, said).next("`claviger node status` says what is wrong"));
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

impl Unregister {
    pub(crate) fn run(self, json: bool) -> Result<u8, Failure> {
        let Self { id, which } = self;
        let answer = which.agent().ask("DELETE", &format!("/v1/registered/{id}")).map_err(failed)?;
        let left: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let others: Vec<&str> = left["registered_by"].as_array().into_iter().flatten().filter_map(|by| by.as_str()).collect();
        match (json, others.is_empty()) {
            (true, _) => output::json(&left)?,
            (false, true) => output::line(&format!("{id} is unregistered"))?,
            (false, false) => output::line(&format!("{id} is off the agent's own list, and still registered by {}", others.join(" and ")))?,
        }
        Ok(0)
    }
}

impl List {
    pub(crate) fn run(self, json: bool) -> Result<u8, Failure> {
        let answer = self.which.agent().ask("GET", "/v1/registered").map_err(failed)?;
        let ids: Vec<String> =
            serde_json::from_slice(&answer.body).map_err(|e| Failure::other(format!("the agent's list is of another version: {e}")))?;
        if json {
            return output::json(&ids).map(|()| 0);
        }
        ids.iter().try_for_each(|id| output::line(id))?;
        Ok(0)
    }
}
