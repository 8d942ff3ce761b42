//! `claviger export`: keys out of the store, encrypted to age recipients. Plaintext is written to nothing.
//!
//! The file is an age file (age-encryption.org/v1); what it decrypts to is described in `import/formats/bundle.rs` and the guide.

use crate::cli::Session;
use crate::commands::import::bundle::{Bundle, Data, Key, VERSION};
use crate::commands::ls::all_keys;
use crate::failure::{Failure, code_of_problem};
use crate::{ask, new_file, output};
use age::armor::{ArmoredWriter, Format};
use age::{Encryptor, Recipient, x25519};
use clap::Args;
use claviger_client::SecretItem;
use claviger_domain::{Clock, KeyId, SystemClock};
use claviger_wire::native::{KeyInfo, unix_to_rfc3339};
use rustix::termios::isatty;
use serde_json::json;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

/// Keys of one bulk read.
const AT_ONCE: usize = 1000;

/// Export the keys below a prefix, encrypted to age recipients.
///
/// The primary version of each key whose id starts with PREFIX, with description and labels; not its rights, nor its other versions. You
/// need `read` on each, and each read is in the audit log. If one cannot be read nothing is written, unless you say --readable-only.
///
/// The file can be opened by age itself, and read back with `claviger import age`. There is no way to export without a recipient.
#[derive(Args)]
pub(crate) struct Export {
    /// What the ids start with; empty for all keys that you may see.
    prefix: String,
    /// An age recipient (age1…) who can open the file; may be repeated.
    #[arg(long = "recipient", short = 'r', value_name = "RECIPIENT", value_parser = recipient)]
    recipients: Vec<x25519::Recipient>,
    /// A file with a recipient on each line; `#` begins a comment.
    #[arg(long, short = 'R', value_name = "FILE")]
    recipients_file: Vec<PathBuf>,
    /// Write to FILE (mode 0600), which is replaced as a whole, instead of standard output.
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write text (PEM) instead of bytes.
    #[arg(long, short = 'a')]
    armor: bool,
    /// Leave out what you may see and not read, and what has expired, and say so.
    #[arg(long)]
    readable_only: bool,
}

impl Export {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        let recipients = self.all_recipients()?;
        if self.output.is_none() && session.json {
            return Err(Failure::usage("with --json the file needs a place of its own").next("add --output FILE"));
        }
        if self.output.is_none() && !self.armor && isatty(io::stdout()) {
            return Err(Failure::usage("bytes are nothing for a terminal").next("add --armor, or --output FILE"));
        }
        let keys = list(session, &self.prefix).await?;
        let (bundle, left_out) = self.read(session, keys).await?;
        let sealed = seal(&bundle, &recipients, self.armor)?;
        match &self.output {
            Some(path) => new_file::replace(path, &sealed)?,
            None => output::raw(&sealed)?,
        }
        for (id, why) in &left_out {
            eprintln!("left out: {id}: {why}");
        }
        let exported = bundle.keys.len();
        match session.json {
            true => {
                let left_out: Vec<_> = left_out.iter().map(|(id, why)| json!({ "key": id, "why": why })).collect();
                let ids: Vec<_> = bundle.keys.iter().map(|k| &k.id).collect();
                output::json(&json!({ "output": self.output, "keys": ids, "recipients": recipients.len(), "left_out": left_out }))?;
            }
            false => eprintln!("exported {exported} keys to {} recipients", recipients.len()),
        }
        Ok(0)
    }

    fn all_recipients(&self) -> Result<Vec<x25519::Recipient>, Failure> {
        let mut all = self.recipients.clone();
        for path in &self.recipients_file {
            let bytes = ask::read_input(path)?;
            let shown = path.display();
            let text = std::str::from_utf8(&bytes).map_err(|_| Failure::usage(format!("--recipients-file: {shown} is no text")))?;
            for (nth, line) in text.lines().enumerate() {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let bad = |_| Failure::usage(format!("--recipients-file: line {} of {shown} is no age recipient (age1…)", nth + 1));
                all.push(recipient(line).map_err(bad)?);
            }
        }
        match all.is_empty() {
            true => Err(Failure::usage("an export needs a recipient; nothing is written in plaintext")
                .next("make an identity with `age-keygen -o FILE`, and give what it prints with --recipient")),
            false => Ok(all),
        }
    }

    /// What the keys have, and which were left out and why.
    async fn read(&self, session: &Session, keys: Vec<KeyInfo>) -> Result<(Bundle, Vec<(String, String)>), Failure> {
        let mut bundle =
            Bundle { claviger_export: VERSION, made: unix_to_rfc3339(SystemClock.now()), keys: Vec::with_capacity(keys.len()) };
        let mut left_out = Vec::new();
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() {
            let some: Vec<KeyInfo> = keys.by_ref().take(AT_ONCE).collect();
            let ids = some.iter().map(|k| KeyId::parse(&k.id)).collect::<Result<Vec<_>, _>>();
            let ids = ids.map_err(|e| Failure::other(format!("the server named a key that is none: {e}")))?;
            let read = session.client.bulk_read(&ids, None).await.map_err(|e| Failure::client(e, None))?;
            for (info, item) in some.into_iter().zip(read.items) {
                match exported(info, item) {
                    Ok(key) => bundle.keys.push(key),
                    Err((id, code)) if self.readable_only => left_out.push((id, code)),
                    Err((id, code)) => return Err(unreadable(&id, &code)),
                }
            }
        }
        Ok((bundle, left_out))
    }
}

fn unreadable(id: &str, code: &str) -> Failure {
    Failure::new(code_of_problem(code), format!("`{id}` cannot be read: {code}"))
        .next("nothing was written; get the right to read it, or leave out such keys with --readable-only")
}

/// A key's primary version; otherwise its id and why not.
fn exported(info: KeyInfo, item: SecretItem) -> Result<Key, (String, String)> {
    let KeyInfo { id, description, labels, .. } = info;
    match item.outcome {
        Err(code) => Err((id, code)),
        Ok(secret) => match secret.primary() {
            None => Err((id, "expired".to_owned())),
            Some(primary) => {
                let (version, created, expires) = (primary.id.clone(), primary.created.clone(), primary.expires.clone());
                Ok(Key { id, version, created, expires, description, labels, data: Data::of(&primary.data) })
            }
        },
    }
}

async fn list(session: &Session, prefix: &str) -> Result<Vec<KeyInfo>, Failure> {
    let keys = all_keys(session, Some(prefix.to_owned()), Vec::new()).await?;
    match keys.is_empty() {
        true => Err(Failure::new(crate::failure::Code::NotFound, format!("no key that you may see starts with `{prefix}`"))
            .next("`claviger ls` lists those you may see; nothing was written")),
        false => Ok(keys),
    }
}

/// The bundle's JSON goes straight into the cipher.
fn seal(bundle: &Bundle, recipients: &[x25519::Recipient], armor: bool) -> Result<Vec<u8>, Failure> {
    let failed = |e: io::Error| Failure::other(format!("encrypting: {e}"));
    let encryptor = Encryptor::with_recipients(recipients.iter().map(|r| r as &dyn Recipient));
    let encryptor = encryptor.map_err(|e| Failure::other(format!("encrypting: {e}")))?;
    let format = if armor { Format::AsciiArmor } else { Format::Binary };
    let armored = ArmoredWriter::wrap_output(Vec::new(), format).map_err(failed)?;
    let mut writer = encryptor.wrap_output(armored).map_err(failed)?;
    serde_json::to_writer(&mut writer, bundle).map_err(|e| Failure::other(format!("encrypting: {e}")))?;
    writer.finish().and_then(ArmoredWriter::finish).map_err(failed)
}

fn recipient(text: &str) -> Result<x25519::Recipient, String> {
    let hint = if text.starts_with("AGE-SECRET-KEY-") { "; that is a secret key: give its recipient" } else { "" };
    x25519::Recipient::from_str(text).map_err(|_| format!("it is no age recipient (age1…){hint}"))
}
