//! The Knox protocol (server HTTP API v0) as pure functions on bytes.
//!
//! Everything here is what Knox's clients can observe: how a request target is routed, how a form and the JSON inside
//! it are read, which text an error carries, and the exact bytes of an answer. The reference is a Go program, so much
//! of "exact" means "as Go's standard library does it"; those rules live in [`base64`], [`form`], [`json`],
//! [`number`], [`quote`] and the private `url`, each checked against vectors that Go itself printed (`tests/data`).
//!
//! What it deliberately does not do: no I/O, no clock, no authentication, no authorization, no storage, and no
//! conversion to the domain's types. Section numbers in these files ("§4.6") are those of the Knox contract.
//!
//! Text from clients is bytes (`&[u8]`), not `str`: Go strings need not be UTF-8, and an id that is not must still be
//! named in the message of its 404.

pub mod audit_line;
pub mod base64;
pub mod envelope;
pub mod form;
pub mod fuzz;
pub mod hash;
pub mod json;
pub mod number;
mod printable;
pub mod quote;
pub mod route;
pub mod site_rule;
pub mod text;
pub mod types;
mod url;
pub mod validate;
