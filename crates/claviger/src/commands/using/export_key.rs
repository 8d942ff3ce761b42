//! `claviger export-key`: material out of a key that was made exportable.

use super::{base64_of, written};
use crate::cli::Session;
use crate::failure::Failure;
use crate::new_file::Halt;
use crate::parse;
use clap::Args;
use claviger_domain::{KeyId, VersionId};
use std::path::PathBuf;

/// Export the material of a key that was made with --exportable: the bytes themselves for aes256-gcm and hmac, PKCS#8 in DER
/// for keys with a public half, a keyset for tink.
#[derive(Args)]
pub(crate) struct ExportKey {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// This version instead of the primary one.
    #[arg(long, value_name = "VERSION", value_parser = parse::version_id)]
    version: Option<VersionId>,
    /// Where to write it, readable by you alone; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl ExportKey {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { id, version, out } = self;
        let exported = session.client.export_key(&id, version).await.map_err(|e| Failure::client(e, Some(id.as_str())))?;
        let material = base64_of(exported.material.as_bytes(), "the server's material")?;
        written(&out, |to| to.write_all(&material).map_err(Halt::Writing))?;
        // Standard output may be the material.
        match session.json {
            true => eprintln!("{}", serde_json::json!({ "id": exported.id, "kind": exported.kind, "version": exported.version })),
            false => eprintln!("exported version {} of {id}", exported.version),
        }
        Ok(0)
    }
}
