//! The key hierarchy: a root of trust wraps barrier keys, a barrier key wraps one data key per version, a data key seals
//! that version's data. Also the MACs of rows, the set digest over them, the sealed head, and the local root of trust.
//!
//! Everything is bound to its place: no ciphertext and no MAC is good for another purpose, key, incarnation, kind or version.
//! Nothing here talks to a network or a database, reads a clock, or decides who may do what; it asks for the permit:
//!
//! ```compile_fail,E0308
//! use claviger_crypto::{CryptoError, KeyRing};
//! use claviger_domain::{KeyKind, KeyRef, SecretBytes};
//! use claviger_ports::VersionRow;
//! fn no_permit_no_plaintext(ring: &KeyRing, key: &KeyRef, row: &VersionRow) -> Result<SecretBytes, CryptoError> {
//!     ring.open_version(key, KeyKind::Secret, row.version, &row.wrapped_key, &row.data)
//! }
//! ```
//!
//! A permit for something else than reading does not do either:
//!
//! ```compile_fail,E0308
//! use claviger_crypto::{CryptoError, KeyRing};
//! use claviger_domain::{KeyKind, Permit, SecretBytes, cap};
//! use claviger_ports::VersionRow;
//! fn to_write_is_not_to_read(ring: &KeyRing, permit: &Permit<cap::Write>, row: &VersionRow) -> Result<SecretBytes, CryptoError> {
//!     ring.open_version(permit, KeyKind::Secret, row.version, &row.wrapped_key, &row.data)
//! }
//! ```
//!
//! The same holds for the use of a key: who may encrypt with it has no permit to decrypt.
//!
//! ```compile_fail,E0308
//! use claviger_crypto::{UseError, UseKey};
//! use claviger_domain::{Permit, SecretBytes, cap};
//! fn to_encrypt_is_not_to_decrypt(key: &UseKey, permit: &Permit<cap::Encrypt>, sealed: &[u8]) -> Result<SecretBytes, UseError> {
//!     key.decrypt(permit, sealed, b"")
//! }
//! ```
//!
//! ```compile_fail,E0277
//! use claviger_crypto::{Message, Scheme, UseError, UseKey};
//! use claviger_domain::{Permit, cap};
//! fn to_read_is_not_to_verify(key: &UseKey, permit: &Permit<cap::Read>, signature: &[u8]) -> Result<bool, UseError> {
//!     key.verify(permit, &Scheme::default(), Message::Whole(b""), signature)
//! }
//! ```
//!
//! With the right one it compiles:
//!
//! ```
//! use claviger_crypto::{CryptoError, KeyRing};
//! use claviger_domain::{KeyKind, Permit, SecretBytes, cap};
//! use claviger_ports::VersionRow;
//! fn read(ring: &KeyRing, permit: &Permit<cap::Read>, row: &VersionRow) -> Result<SecretBytes, CryptoError> {
//!     ring.open_version(permit, KeyKind::Secret, row.version, &row.wrapped_key, &row.data)
//! }
//! ```

mod canonical;
mod digest;
mod error;
mod fields;
mod file_root;
pub mod fuzz;
#[cfg(test)]
mod golden;
mod head;
pub mod hygiene;
mod local;
mod material;
mod once;
mod ring;
mod root;
mod rows;
pub mod sealed_file;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
pub mod tink;
mod uses;
mod version;

pub use canonical::deed_hash;
pub use digest::{add, negate};
pub use error::{CryptoError, Malformation, Tried};
pub use file_root::FileRoot;
pub use head::Head;
pub use local::{LocalKey, NotSealedHere};
pub use material::{MaterialError, check_imported, generate};
pub use once::random;
pub use ring::KeyRing;
pub use root::{RootError, RootOfTrust};
pub use rows::Tombstone;
pub use uses::{
    Form, Hash, ImportError, ImportKey, ImportTarget, Jwk, Message, Padding, PublicKey, Scheme, UseError, UseKey, incarnation_named,
    version_named, version_of_import, wrap_for_import,
};
