//! `claviger generate`: passwords, passphrases, tokens and key pairs, shown once or put into a key without being shown.

mod keypair;
mod passphrase;
mod password;
mod token;

use crate::cli::Session;
use crate::deposit::{Deposit, Placed};
use crate::failure::Failure;
use crate::{output, parse};
use clap::{Args, Subcommand};
use claviger_domain::{Clock, KeyId, SecretBytes, SystemClock};
use rustix::termios::isatty;
use serde_json::{Map, Value, json};
use std::io;
use zeroize::Zeroizing;

/// Make a password, passphrase, token or key pair.
///
/// What is made is printed, or with --into put straight into a key, so that nobody sees it. Nothing is written anywhere else.
/// Every choice is uniform, from the cipher library's generator; how hard the result is to guess is said in bits of entropy on
/// standard error, or in --json.
#[derive(Subcommand)]
pub(crate) enum Generate {
    Password(password::Options),
    Passphrase(passphrase::Options),
    Token(token::Options),
    Keypair(keypair::Options),
}

/// Where it goes.
#[derive(Args, Clone)]
struct Into {
    /// Put it into this key instead of printing it: a new key, or a version of one that exists.
    #[arg(long = "into", value_name = "KEY", value_parser = parse::key_id)]
    into: Option<KeyId>,
    /// With --into, of a key that exists: make it the primary version in the same change.
    #[arg(long, requires = "into")]
    promote: bool,
    /// With --into: when the version stops being given out, a time or a duration from now.
    #[arg(long, requires = "into", value_name = "TIME")]
    expires: Option<String>,
}

/// Something that was made.
struct Made {
    secret: SecretBytes,
    /// How hard it is to guess, in bits; key pairs have none to speak of.
    entropy: Option<f64>,
    /// What may be shown beside it, by name.
    public: Vec<(&'static str, String)>,
}

impl Generate {
    /// Whether a server is needed.
    pub(crate) fn has_target(&self) -> bool {
        self.target().into.is_some()
    }

    fn target(&self) -> &Into {
        match self {
            Self::Password(o) => &o.to,
            Self::Passphrase(o) => &o.to,
            Self::Token(o) => &o.to,
            Self::Keypair(o) => &o.to,
        }
    }

    fn make(&self) -> Result<Made, Failure> {
        match self {
            Self::Password(o) => o.make(),
            Self::Passphrase(o) => o.make(),
            Self::Token(o) => o.make(),
            Self::Keypair(o) => o.make(),
        }
    }

    /// Makes it and prints it.
    pub(crate) fn print(&self, json: bool) -> Result<u8, Failure> {
        let Made { secret, entropy, public } = self.make()?;
        if json {
            let text = std::str::from_utf8(secret.expose()).map_err(|_| Failure::other("what was made is no text"))?;
            let mut shown = Map::from_iter([("value".to_owned(), json!(text))]);
            describe(&mut shown, entropy, public);
            output::json(&shown)?;
            return Ok(0);
        }
        output::raw(secret.expose())?;
        if isatty(io::stdout()) && !secret.expose().ends_with(b"\n") {
            output::raw(b"\n")?;
        }
        for (_, text) in &public {
            output::raw(text.as_bytes())?;
        }
        say_entropy(entropy);
        Ok(0)
    }

    /// Makes it and puts it into its key.
    pub(crate) async fn put(self, session: &Session) -> Result<u8, Failure> {
        let Into { into, promote, expires } = self.target().clone();
        let id = into.ok_or_else(|| Failure::usage("--into names no key"))?;
        let expires =
            expires.map(|t| parse::moment(&t, SystemClock.now())).transpose().map_err(|e| Failure::usage(format!("--expires: {e}")))?;
        let Made { secret, entropy, public } = self.make()?;
        let placed = Deposit { promote, expires, ..Deposit::default() }.place(session, &id, &secret).await?;
        drop(secret);
        show_placed(&placed, entropy, public, session.json)?;
        Ok(0)
    }
}

fn show_placed(placed: &Placed, entropy: Option<f64>, public: Vec<(&'static str, String)>, json: bool) -> Result<(), Failure> {
    if json {
        let Ok(Value::Object(mut shown)) = serde_json::to_value(placed) else { return Err(Failure::other("as JSON")) };
        describe(&mut shown, entropy, public);
        return output::json(&shown);
    }
    placed.show(false)?;
    for (_, text) in &public {
        output::raw(text.as_bytes())?;
    }
    say_entropy(entropy);
    Ok(())
}

fn describe(shown: &mut Map<String, Value>, entropy: Option<f64>, public: Vec<(&'static str, String)>) {
    if let Some(bits) = entropy {
        shown.insert("entropy_bits".to_owned(), json!((bits * 10.0).floor() / 10.0));
    }
    shown.extend(public.into_iter().map(|(name, text)| (name.to_owned(), json!(text.trim_end()))));
}

/// On standard error, so that `$(claviger generate …)` is the value alone. Rounded down: it must not promise more than there is.
fn say_entropy(entropy: Option<f64>) {
    if let Some(bits) = entropy {
        eprintln!("entropy: {:.0} bits", bits.floor());
    }
}

/// Text that grows without leaving pieces of itself behind.
fn text_of(length: usize, mut next: impl FnMut() -> Result<char, Failure>) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(length * 4));
    for _ in 0..length {
        text.push(next()?);
    }
    Ok(text)
}

impl Made {
    /// Text without anything public beside it.
    fn text(mut text: Zeroizing<String>, entropy: f64) -> Self {
        Self { secret: SecretBytes::new(std::mem::take(&mut *text).into_bytes()), entropy: Some(entropy), public: Vec::new() }
    }
}
