//! `claviger import-key`: material that was made elsewhere comes in, wrapped so that nobody between sees it.

use super::{base64_of, written};
use crate::ask::read_all;
use crate::cli::Session;
use crate::commands::states::show_change;
use crate::failure::{Code, Failure};
use crate::new_file::Halt;
use crate::{output, parse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use claviger_audit::VerifierKey;
use claviger_crypto::{ImportTarget, check_imported, wrap_for_import};
use claviger_domain::{KeyId, KeyKind, KeyPolicy as Policy, SecretBytes};
use claviger_wire::native::{CreateKey, ImportKey as Published, KeyPolicy};
use std::fs::File;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Bring in a key that was made elsewhere.
///
/// `show` prints the public key that the server publishes, with a statement of its age that the audit log has signed. `wrap`
/// wraps material to it, on any machine and without a server. `send` makes the key, or adds a version to it.
#[derive(Subcommand)]
pub(crate) enum ImportKey {
    #[command(flatten)]
    Offline(Offline),
    #[command(flatten)]
    Online(Online),
}

/// What needs no server.
#[derive(Subcommand)]
pub(crate) enum Offline {
    /// Wrap material for a key.
    Wrap(Wrap),
}

/// What asks the server.
#[derive(Subcommand)]
pub(crate) enum Online {
    /// Print the public key to wrap to, and its signed statement, as JSON.
    Show,
    /// Send wrapped material.
    Send(Send),
}

/// Options of `wrap`.
#[derive(Args)]
pub(crate) struct Wrap {
    /// The key that it will be. What is wrapped for one key is no other's.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// The key's kind.
    #[arg(long, value_name = "KIND", value_parser = parse::kind)]
    kind: KeyKind,
    /// The key is, or will be, exportable. Without this it comes in only where it can never leave.
    #[arg(long)]
    exportable: bool,
    /// What `import-key show` printed.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// The audit log's public key, as it was given to you once: with it you know that the server's key is no stranger's.
    #[arg(long, value_name = "FILE")]
    log_key: Option<PathBuf>,
    /// The material: the bytes themselves for aes256-gcm and hmac, PKCS#8 in DER or PEM for keys with a public half, a keyset in Tink's
    /// binary form for tink.
    #[arg(long = "in", value_name = "FILE")]
    from: PathBuf,
    /// Where to write what is sent.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Options of `send`.
#[derive(Args)]
pub(crate) struct Send {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    id: KeyId,
    /// What `import-key wrap` wrote.
    #[arg(long = "in", value_name = "FILE")]
    from: PathBuf,
    /// Make the key, of this kind; otherwise a version is added.
    #[arg(long, value_name = "KIND", value_parser = parse::kind)]
    create: Option<KeyKind>,
    /// The new key is exportable, as it was wrapped for.
    #[arg(long, requires = "create")]
    exportable: bool,
    /// Bits of a new RSA key.
    #[arg(long, value_name = "BITS", requires = "create")]
    rsa_bits: Option<u16>,
    /// The template of a new tink key.
    #[arg(long, value_name = "NAME", requires = "create")]
    template: Option<String>,
    /// The new aes256-gcm key gives equal ciphertexts for equal plaintexts in one context.
    #[arg(long, requires = "create")]
    convergent: bool,
    /// Make the added version the primary one in the same change.
    #[arg(long, conflicts_with = "create")]
    promote: bool,
}

impl Offline {
    pub(crate) fn run(self, json: bool) -> Result<u8, Failure> {
        let Self::Wrap(Wrap { id, kind, exportable, to, log_key, from, out }) = self;
        let published: Published = serde_json::from_slice(&file(&to)?)
            .map_err(|_| Failure::usage(format!("{} is not what `claviger import-key show` printed", to.display())))?;
        match &log_key {
            Some(path) => check_signature(&published, path)?,
            None => eprintln!("note: without --log-key nobody vouches that {} is your server's", to.display()),
        }
        let material = material(kind, &from)?;
        let target = ImportTarget { id: &id, kind, exportable };
        let wrapped = wrap_for_import(&published.statement, &target, &material).map_err(|e| Failure::usage(e.to_string()))?;
        written(&out, |file| file.write_all(&wrapped).map_err(Halt::Writing))?;
        if json {
            output::json(&serde_json::json!({ "id": id.as_str(), "kind": kind.name(), "barrier_version": published.barrier_version }))?;
        }
        Ok(0)
    }
}

impl Online {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        match self {
            Self::Show => {
                let key = session.client.import_key().await.map_err(|e| Failure::client(e, None))?;
                output::json(&key)?;
                Ok(0)
            }
            Self::Send(send) => send.run(session).await,
        }
    }
}

impl Send {
    async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { id, from, create, exportable, rsa_bits, template, convergent, promote } = self;
        let wrapped = file(&from)?;
        let failed = |e| Failure::client(e, Some(id.as_str()));
        let Some(kind) = create else {
            let changed = session.client.import_version(&id, &wrapped, promote).await.map_err(failed)?;
            let version = changed.version.clone().unwrap_or_default();
            return show_change(session, &changed, &format!("{id}: imported version {version}"));
        };
        let policy = KeyPolicy { exportable, rsa_bits, template, convergent, ..KeyPolicy::default() };
        let request: CreateKey = serde_json::from_value(serde_json::json!({
            "id": id.as_str(), "kind": kind.name(), "policy": policy, "wrapped": STANDARD.encode(&*wrapped),
        }))
        .map_err(|e| Failure::other(format!("as JSON: {e}")))?;
        let made = session.client.create(request, None).await.map_err(failed)?;
        match session.json {
            true => output::json(&made)?,
            false => output::line(&format!("imported {id} (revision {})", made.revision))?,
        }
        Ok(0)
    }
}

/// What is to be wrapped. Whether it is a key of the kind is found out before it is sent anywhere.
fn material(kind: KeyKind, path: &Path) -> Result<SecretBytes, Failure> {
    let mut bytes = file(path)?;
    let is_pem = kind.is_asymmetric() && bytes.trim_ascii_start().starts_with(b"-----BEGIN");
    let material = if is_pem { pkcs8_of_pem(&bytes).unwrap_or_default() } else { std::mem::take(&mut *bytes) };
    let material = SecretBytes::new(material);
    let bits: &[Option<u16>] = if kind == KeyKind::Rsa { &[Some(2048), Some(3072), Some(4096)] } else { &[None] };
    let check = |rsa_bits: &Option<u16>| check_imported(kind, &Policy { rsa_bits: *rsa_bits, ..Policy::default() }, &material).err();
    let wrong = bits.iter().map(check).reduce(Option::and).flatten();
    match wrong {
        // A keyset is judged by its key's template, which the server knows.
        Some(_) if kind == KeyKind::Tink => Ok(material),
        None => Ok(material),
        Some(error) => {
            let failure = Failure::usage(format!("{}: {error}", path.display()));
            let help = "`openssl pkcs8 -topk8 -nocrypt` makes PKCS#8 of other forms of private keys";
            Err(if kind.is_asymmetric() { failure.next(help) } else { failure })
        }
    }
}

/// The DER in a PEM file of one unencrypted PKCS#8 private key (RFC 7468 §10).
fn pkcs8_of_pem(text: &[u8]) -> Option<Vec<u8>> {
    let inside = text.trim_ascii().strip_prefix(b"-----BEGIN PRIVATE KEY-----")?.strip_suffix(b"-----END PRIVATE KEY-----")?;
    let base64: Zeroizing<Vec<u8>> = Zeroizing::new(inside.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect());
    STANDARD.decode(&*base64).ok()
}

fn file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let shown = path.display().to_string();
    let file = File::open(path).map_err(|e| Failure::usage(format!("cannot read {shown}: {e}")))?;
    read_all(file, &shown)
}

/// Whether the audit log has signed the statement by which is wrapped.
fn check_signature(published: &Published, log_key: &Path) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(&file(log_key)?).into_owned();
    let key = VerifierKey::parse(&text).map_err(|e| Failure::usage(format!("{}: {e}", log_key.display())))?;
    let signature = base64_of(published.signature.as_bytes(), "the statement's signature")?;
    match key.has_signed(&published.statement, &signature) {
        true => Ok(()),
        false => Err(Failure::new(Code::Other, "the statement is not signed by this audit log's key: nothing was wrapped")
            .next("ask whoever keeps the server which is the right public key; somebody may stand between you and it")),
    }
}
