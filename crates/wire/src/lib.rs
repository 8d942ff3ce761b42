//! JSON as others speak it: the native API and Knox's; and the named parts of values.

pub mod fingerprint;
pub mod knox;
pub mod native;
pub mod parts;
pub mod share;
