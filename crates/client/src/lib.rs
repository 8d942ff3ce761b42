//! The client library of the native API: mutual TLS or a token, retry with jitter, and a watch that never loses its place.
//!
//! [`Client`] has one method for each route of `/api/v1`; [`Watch`] follows changes; [`oidc`] is how a person logs in. What it deliberately does not do: it
//! keeps no cache, trusts no roots but those it is given, follows no redirect, and logs nothing. Secrets come out as
//! [`claviger_domain::SecretBytes`], and the buffers they passed through are wiped.
//!
//! # Guarantees
//! - Only requests that can be repeated without harm are repeated after they may have reached the server.
//! - Every future may be dropped at any point; a connection in the middle of an answer is then closed and not used again.

mod api;
mod backoff;
mod buffer;
mod client;
mod config;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod http;
pub mod knox;
pub mod oidc;
mod request;
mod secret;
mod sse;
mod tls;
mod uses;
mod watch;

pub use api::{AuditQuery, BulkRead, KeysQuery, Ran, ReachQuery, Which};
pub use backoff::Backoff;
pub use client::Client;
pub use config::{Address, Config, ConfigError, Credentials, NotAName, Renew, Settings};
pub use error::Error;
pub use secret::{Secret, SecretItem, SecretVersion};
pub use uses::Using;
pub use watch::{Change, Event, Watch, WatchRequest};
