//! The node agent: what keeps one machine's secrets at hand, and gives them only to the users and groups that may have them.
//!
//! [`knox_folder`] is Knox's cache folder as Knox's own client, daemon and command share it.
//!
//! What it deliberately does not do: it holds no certificate authority and no database, and it can obtain nothing that the
//! machine's own certificate could not.

pub mod agent;
pub mod cache;
pub mod config;
pub mod entry;
#[doc(hidden)]
pub mod fuzz;
pub mod knox_folder;
mod knox_keeper;
pub mod local;
pub mod persist;
pub mod policy;
mod program_pages;
pub mod reads;
pub mod root;
pub mod serve;
pub mod status;
pub mod sync;
pub mod table;
pub mod times;
