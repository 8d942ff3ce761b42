//! Real servers, raw clients and settable clocks for Claviger's tests. Nothing here is used outside tests.

mod client;
mod clock;
pub mod faults;
mod server;

pub use client::{Answer, Client, Credential};
pub use clock::TestClock;
pub use server::{Options, TestServer};
