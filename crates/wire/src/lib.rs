//! JSON as others speak it: the native API and Knox's.

pub mod knox;
pub mod native;
