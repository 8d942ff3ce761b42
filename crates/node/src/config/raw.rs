//! The configuration as written. Unknown members are refused; what each does is told in `docs/guides/node-agent.md`.

use claviger_client::Settings;
use serde::Deserialize;
use std::path::PathBuf;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    pub(super) node: Node,
    pub(super) server: Server,
    pub(super) root: Root,
    pub(super) knox: Knox,
    pub(super) secret: Vec<Secret>,
}

/// What flags and environment say instead of the file.
#[derive(Default)]
pub struct Overrides {
    /// The socket.
    pub socket: Option<PathBuf>,
    /// The cache's folder.
    pub cache: Option<PathBuf>,
    /// The server.
    pub server: Settings,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Node {
    pub(super) socket: Option<PathBuf>,
    pub(super) cache: Option<PathBuf>,
    pub(super) max_offline: Option<String>,
    pub(super) reads_log: Option<PathBuf>,
    pub(super) admins: Vec<Account>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Server {
    pub(super) endpoints: Vec<String>,
    pub(super) ca: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) private_key: Option<PathBuf>,
    pub(super) machine: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Root {
    pub(super) kind: Option<String>,
    pub(super) tpm: Option<PathBuf>,
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Knox {
    pub(super) enabled: bool,
    pub(super) folder: Option<PathBuf>,
    pub(super) modes: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secret {
    pub(super) id: String,
    #[serde(default)]
    pub(super) users: Vec<Account>,
    #[serde(default)]
    pub(super) groups: Vec<Account>,
}

/// A user or group by its number or name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Account {
    Number(u32),
    Name(String),
}

impl Raw {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Place and problem, in the parser's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }
}
