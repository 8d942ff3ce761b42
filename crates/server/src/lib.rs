//! Claviger's server: surfaces, TLS, configuration, health, shutdown.

mod app;
mod backstage;
mod callback;
pub mod callers;
pub mod command;
pub mod config;
pub mod dev;
mod emergency;
#[doc(hidden)]
pub mod fuzz;
mod health;
pub mod http;
pub use claviger_crypto::hygiene;
pub mod knox;
pub mod listen;
mod metrics;
pub mod native;
mod outbound;
pub mod people;
mod private_file;
mod retention;
mod run;
mod webhook;

pub use run::{Server, initialise, start};
