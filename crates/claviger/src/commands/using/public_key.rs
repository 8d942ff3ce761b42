//! `claviger public-key`: what others verify with, or encrypt to.

use crate::cli::Session;
use crate::failure::{Code, Failure};
use crate::{output, parse};
use clap::Args;
use claviger_domain::{KeyId, VersionId};

/// Print a key's public half as PEM: of the primary version, or of one that is named.
#[derive(Args)]
pub(crate) struct PublicKey {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// This version.
    #[arg(long, value_name = "VERSION", value_parser = parse::version_id)]
    version: Option<VersionId>,
    /// All primary and active versions as a JSON Web Key Set.
    #[arg(long, conflicts_with = "version")]
    jwks: bool,
}

impl PublicKey {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { id, version, jwks } = self;
        let public = session.client.public_keys(&id).await.map_err(|e| Failure::client(e, Some(id.as_str())))?;
        if jwks {
            let keys: Vec<_> = public.keys.iter().filter_map(|key| key.jwk.as_ref()).collect();
            output::json(&serde_json::json!({ "keys": keys }))?;
            return Ok(0);
        }
        if session.json {
            output::json(&public)?;
            return Ok(0);
        }
        let wanted = version.map(|v| v.to_string());
        let is_wanted = |key: &&claviger_wire::native::PublicVersion| match &wanted {
            Some(version) => key.version == *version,
            None => key.state == "primary",
        };
        let missing = || Failure::new(Code::NotFound, "no version in use is that one").next(format!("claviger versions {id}"));
        let key = public.keys.iter().find(is_wanted).ok_or_else(missing)?;
        match (&key.pem, &key.keyset) {
            (Some(pem), _) => output::raw(pem.as_bytes())?,
            (None, Some(keyset)) => output::line(keyset)?,
            (None, None) => return Err(Failure::other("the server's answer has not what was asked for")),
        }
        Ok(0)
    }
}
