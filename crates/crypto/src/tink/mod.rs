//! Tink keysets: reading and writing them, making keys by template, merging versions, and the primitives over a keyset.
//!
//! A keyset is Google Tink's form of "a key with versions": some keys, one of them primary. Knox keeps each version of a
//! `tink:` key as a keyset of one key, and hands out the merged one; the kind `tink` does the same inside. What is written
//! here Tink's own libraries read, and the other way round, checked in both directions (`tests/tink.rs`).
//!
//! It has what the nine [`Template`]s need, nothing more: a keyset with other kinds of keys is read, merged and described,
//! but not used ([`TinkError::Unsupported`]). Formats are those of Tink's wire format description
//! (<https://developers.google.com/tink/wire-format>) and its protobuf messages.
//!
//! # Guarantees
//! - Reading is strict: unknown fields, repeated single fields, numbers in a longer form than needed and unknown
//!   enumerators are refused, since what is not understood could restrict a key.
//! - Key material lies in [`SecretBytes`](claviger_domain::SecretBytes) or inside AWS-LC, and is wiped.
//! - Keys that are not enabled are never used.

mod aead;
mod daead;
mod ec;
mod error;
pub(crate) mod fuzz;
mod hkdf;
mod hybrid;
mod keyset;
mod mac;
mod proto;
mod saead;
mod set;
mod signature;
mod template;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

pub use aead::Aead;
pub use daead::DeterministicAead;
pub use error::TinkError;
pub use hybrid::{HybridDecrypt, HybridEncrypt};
pub use keyset::{Key, Keyset, Material, OutputPrefix, Status};
pub use mac::Mac;
pub use saead::{Decryptor, Encryptor, StreamingAead};
pub use set::{Opened, key_id_of};
pub use signature::{Signer, Verifier};
pub use template::{Family, Template, family_of_id};
