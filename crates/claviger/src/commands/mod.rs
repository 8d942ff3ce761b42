//! One file per command, with its options, its work and its tests.

pub(crate) mod acl;
pub(crate) mod add;
pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod edit;
pub(crate) mod generate;
pub(crate) mod get;
pub(crate) mod history;
pub(crate) mod info;
pub(crate) mod ls;
pub(crate) mod put;
pub(crate) mod reach;
pub(crate) mod run;
pub(crate) mod seal;
pub(crate) mod server;
pub(crate) mod set;
pub(crate) mod states;
pub(crate) mod status;
pub(crate) mod versions;
pub(crate) mod watch;
pub(crate) mod whoami;
