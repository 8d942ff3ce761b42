//! `claviger create`: a new key with its first value.

use crate::ask::ValueSource;
use crate::cli::Session;
use crate::failure::Failure;
use crate::{output, parse};
use clap::Args;
use claviger_domain::{Clock, KeyId, KeyKind, SystemClock};
use claviger_wire::native::{CreateKey, GrantEntry, KeyPolicy};

/// Options of `create`.
#[derive(Args)]
pub(crate) struct Create {
    /// The key to make.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// What it is: a secret, which programs read, or a key that Claviger makes and that is used without being seen.
    #[arg(long, value_name = "KIND", default_value = "secret", value_parser = parse::kind)]
    kind: KeyKind,
    /// Its material may leave, by `export-key`. Cannot be changed later; not for a secret.
    #[arg(long)]
    exportable: bool,
    /// The same plaintext with the same --context always gives the same ciphertext, so that it can be searched for, and
    /// everybody can see which are equal. Cannot be changed later; aes256-gcm only.
    #[arg(long)]
    convergent: bool,
    /// Bits of an RSA key.
    #[arg(long, value_name = "BITS")]
    rsa_bits: Option<u16>,
    /// The template of a tink key, such as TINK_AEAD_AES256_GCM.
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    #[command(flatten)]
    value: ValueSource,
    /// Who else may what: TYPE:ID=RIGHTS, with RIGHTS one of read, write, admin, or an exact set such as list,read or
    /// only:read. May be repeated. You become its administrator in any case.
    #[arg(long, value_name = "GRANT", value_parser = parse::grant)]
    acl: Vec<GrantEntry>,
    /// What the key is for.
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// A label for finding it; may be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse::label)]
    labels: Vec<(String, String)>,
    /// Managing and using it are different people's, for ever.
    #[arg(long)]
    separate_duties: bool,
    /// No version is given out longer than this, such as 90d.
    #[arg(long, value_name = "DURATION", value_parser = parse::lifetime)]
    max_lifetime: Option<u32>,
    /// When the first version stops being given out: a time, or a duration from now.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
}

impl Create {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { id, kind, exportable, convergent, rsa_bits, template, value, acl, .. } = self;
        let Self { description, labels, separate_duties, max_lifetime, expires, .. } = self;
        let expires =
            expires.map(|t| parse::moment(&t, SystemClock.now())).transpose().map_err(|e| Failure::usage(format!("--expires: {e}")))?;
        let data = if kind.is_read() { Some(value.read()?) } else { None };
        let policy = KeyPolicy { exportable, convergent, min_version: None, rsa_bits, template };
        let request = CreateKey {
            id: id.to_string(),
            kind: (!kind.is_read()).then(|| kind.name().to_owned()),
            policy: (policy != KeyPolicy::default()).then_some(policy),
            data: None,
            wrapped: None,
            acl,
            description,
            labels: labels.into_iter().collect(),
            separate_duties,
            max_lifetime,
            expires,
        };
        let made = session.client.create(request, data.as_ref()).await.map_err(|e| Failure::client(e, Some(id.as_str())))?;
        match session.json {
            true => output::json(&made)?,
            false => {
                let version = made.versions.first().map_or("?", |v| v.id.as_str());
                output::line(&format!("created {id}, version {version} (revision {})", made.revision))?;
            }
        }
        Ok(0)
    }
}
