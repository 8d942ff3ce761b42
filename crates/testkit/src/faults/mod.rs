//! Bad days on purpose: disks that lose what was not synced, fail or lie, databases that someone edited.
//!
//! The I/O layer itself is C (`native/faultfs.c`), loaded into the server by `LD_PRELOAD`; here is what drives it and what
//! takes back, with the server dead, whatever the layer saw written and not synced.

mod database;
mod journal;
mod layer;
mod random;

pub use database::Database;
pub use journal::{Loss, Lost};
pub use layer::{Class, Failure, FaultLayer};
pub use random::Random;
