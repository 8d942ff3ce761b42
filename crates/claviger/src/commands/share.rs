//! `claviger share`: a value for somebody else by a link that opens a limited number of times.
//!
//! What is shared is encrypted here; the server keeps a ciphertext, and the link's key stays behind the `#` of its address.

use crate::ask::ValueSource;
use crate::cli::Session;
use crate::commands::ls::all_keys;
use crate::failure::{Code, Failure};
use crate::output::{self, Table};
use crate::random::Random;
use crate::{ask, parse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use claviger_client::Which;
use claviger_domain::{Clock, KeyId, SecretBytes, SystemClock};
use claviger_wire::native::{CreateKey, KeyInfo};
use claviger_wire::share::{MOST_BYTES, MOST_VIEWS, PAGE, PREFIX, ShareKey, VIEWS, parse_fragment};
use rustix::termios::isatty;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use zeroize::Zeroizing;

/// The longest life of a share.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// Share a value by a link that can be opened a limited number of times.
///
/// The value is a key's primary version, or what is typed, piped in or read with --from-file. It is encrypted here; the server stores a
/// ciphertext that it cannot read, and what opens it is the part of the link behind the `#`, which is never sent to a server. Whoever has
/// the link can open it, so send it to one person. Opening takes a click (or `claviger share open`): programs that look at links in chats
/// use no view up.
///
/// The server must have `[share] enabled = true`; with `anonymous = true` the link opens in a browser and without a credential, otherwise
/// only with `claviger share open` by who can prove who he is. You need the right to create keys below `shares/`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Share {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    new: New,
}

#[derive(Args)]
struct New {
    /// The key whose primary version is shared; without it, or as `-`, the value is asked for.
    #[arg(value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    value: ValueSource,
    /// How long the link lives at most, up to 30d.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = life)]
    expires: Duration,
    /// How many times it can be opened, up to 100.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_VIEWS)))]
    views: u32,
}

#[derive(Subcommand)]
enum Other {
    /// Open a link, which uses a view up. The link comes as an argument, or from standard input as `-`.
    Open(Open),
    /// List your shares that were not used up.
    List,
    /// Take a share back: its link opens nothing any more.
    Revoke(Revoke),
}

#[derive(Args)]
struct Open {
    /// The link.
    url: String,
}

#[derive(Args)]
struct Revoke {
    /// The share's id, as `claviger share list` shows it, or its link.
    share: String,
}

impl Share {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        match self.other {
            None => self.new.make(session).await,
            Some(Other::Open(open)) => open.run(session).await,
            Some(Other::List) => list(session).await,
            Some(Other::Revoke(revoke)) => revoke.run(session).await,
        }
    }
}

impl New {
    async fn make(self, session: &Session) -> Result<u8, Failure> {
        let plain = self.plain(session).await?;
        if plain.len() > MOST_BYTES {
            return Err(Failure::invalid(format!("a share has at most {} KiB", MOST_BYTES >> 10)));
        }
        let random = Random::new();
        let id: String = random.bytes(16)?.iter().map(|b| format!("{b:02x}")).collect();
        let bytes = random.bytes(32)?;
        let key = <[u8; 32]>::try_from(bytes.as_slice()).map(ShareKey::new).map_err(|_| Failure::other("the random generator failed"))?;
        let sealed = key.seal(&id, &plain).ok_or_else(|| Failure::other("the cipher library could not encrypt"))?;
        drop(plain);
        let made = self.store(session, &id, &sealed).await?;
        let link = Zeroizing::new(format!("{}{PAGE}#{id}.{}", session.client.origin(), *key.text()));
        let expires = made.versions.into_iter().next().and_then(|v| v.expires).unwrap_or_default();
        if session.json {
            output::json(&serde_json::json!({ "id": id, "url": *link, "expires": expires, "views": self.views }))?;
            return Ok(0);
        }
        output::raw(link.as_bytes())?;
        output::raw(b"\n")?;
        eprintln!(
            "opens {} time{}, until {expires}; `claviger share revoke {id}` takes it back",
            self.views,
            if self.views == 1 { "" } else { "s" }
        );
        Ok(0)
    }

    async fn plain(&self, session: &Session) -> Result<SecretBytes, Failure> {
        let Some(name) = self.key.as_deref().filter(|name| *name != "-") else {
            return if self.value.is_default() && ask::is_interactive() { ask::ask_twice() } else { self.value.read() };
        };
        if !self.value.is_default() {
            return Err(Failure::usage("give either a key or --from-file"));
        }
        let key = parse::key_id(name).map_err(|e| Failure::usage(format!("`{name}` is no key: {e}")))?;
        let read = session.client.read(&key, &Which::Primary, None).await.map_err(|e| Failure::client(e, Some(name)))?;
        let expired = || Failure::new(Code::NotFound, format!("the primary version of `{name}` has expired"));
        read.versions.into_iter().next().map(|v| v.data).ok_or_else(expired)
    }

    async fn store(&self, session: &Session, id: &str, sealed: &SecretBytes) -> Result<KeyInfo, Failure> {
        let seconds = i64::try_from(self.expires.as_secs()).unwrap_or(i64::MAX);
        let expires = claviger_wire::native::unix_to_rfc3339(SystemClock.now().plus_seconds(seconds));
        let request = CreateKey {
            id: format!("{PREFIX}{id}"),
            kind: None,
            policy: None,
            wrapped: None,
            data: None,
            acl: Vec::new(),
            description: "a share".to_owned(),
            labels: BTreeMap::from([(VIEWS.to_owned(), self.views.to_string())]),
            separate_duties: false,
            max_lifetime: None,
            expires: Some(expires),
        };
        session.client.create(request, Some(sealed)).await.map_err(|e| match e.code() {
            Some("denied") => Failure::client(e, None)
                .next("who administers `shares/` lets you with `claviger acl grant --prefix shares/ user:YOU only:create`"),
            _ => Failure::client(e, None),
        })
    }
}

impl Open {
    async fn run(self, session: &Session) -> Result<u8, Failure> {
        let piped;
        let url = if self.url == "-" {
            piped = ask::read_input(std::path::Path::new("-"))?;
            std::str::from_utf8(&piped).unwrap_or_default().trim()
        } else {
            self.url.as_str()
        };
        let (id, key) = parse_link(url, &session.client.origin())?;
        let token = Zeroizing::new(STANDARD.encode(*key.token()));
        let opened = session.client.open_share(&id, &token).await.map_err(|e| match e.code() {
            Some("not_found") => Failure::client(e, None)
                .next("it was opened already, has expired, was taken back, or shares are off on this server; ask for a new one"),
            _ => Failure::client(e, None),
        })?;
        let sealed = STANDARD.decode(&opened.data).map_err(|_| Failure::other("the server's answer is malformed"))?;
        let plain = key.open(&id, &sealed).ok_or_else(|| Failure::other("what the server has does not decrypt: it was changed there"))?;
        if session.json {
            let data = Zeroizing::new(STANDARD.encode(plain.expose()));
            output::json(&serde_json::json!({ "data": *data, "views_left": opened.views_left }))?;
            return Ok(0);
        }
        output::raw(plain.expose())?;
        if isatty(io::stdout()) {
            output::raw(b"\n")?;
        }
        Ok(0)
    }
}

/// A link's id and key. A link of another server is refused: it would be asked with this one's credential.
fn parse_link(url: &str, origin: &str) -> Result<(String, ShareKey), Failure> {
    let broken = || {
        Failure::usage("this is no share's link, or not all of it")
            .next("copy the whole link, with all that is behind the `#`; a shell needs quotes around it")
    };
    let (address, fragment) = url.split_once('#').ok_or_else(broken)?;
    let server = address.strip_suffix(PAGE).ok_or_else(broken)?;
    if server.trim_end_matches('/') != origin {
        return Err(Failure::usage("this link is of another server than the one that is configured")
            .next("set --addr and --ca to that server, if you know it"));
    }
    parse_fragment(fragment).ok_or_else(broken)
}

async fn list(session: &Session) -> Result<u8, Failure> {
    let keys = all_keys(session, Some(PREFIX.to_owned()), Vec::new()).await?;
    let shares: Vec<_> = keys.into_iter().filter_map(shown).collect();
    if session.json {
        output::json(&serde_json::json!({ "shares": shares }))?;
        return Ok(0);
    }
    let mut table = Table::new(&["SHARE", "VIEWS LEFT", "EXPIRES", "MADE BY"]);
    for share in &shares {
        let text = |name: &str| share[name].as_str().unwrap_or_default().to_owned();
        table.row([&text("id"), &text("views_left"), &text("expires"), &text("made_by")]);
    }
    table.print()?;
    Ok(0)
}

/// A share without its ciphertext.
fn shown(key: KeyInfo) -> Option<serde_json::Value> {
    let views = key.labels.get(VIEWS)?;
    let expires = key.versions.into_iter().find(|v| v.state == "primary").and_then(|v| v.expires)?;
    let id = key.id.strip_prefix(PREFIX)?;
    Some(serde_json::json!({ "id": id, "views_left": views, "expires": expires, "made_by": key.created_by }))
}

impl Revoke {
    async fn run(self, session: &Session) -> Result<u8, Failure> {
        let of_link = self.share.split_once('#').and_then(|(_, fragment)| parse_fragment(fragment)).map(|(id, _)| id);
        let id = of_link.unwrap_or_else(|| self.share.trim_start_matches(PREFIX).to_owned());
        let key = KeyId::parse(&format!("{PREFIX}{id}")).map_err(|e| Failure::usage(format!("this is no share's id: {e}")))?;
        let gone = session.client.delete(&key, None).await.map_err(|e| {
            let failure = Failure::client(e, None);
            let is_missing = failure.code == Code::NotFound;
            if is_missing {
                failure.next("it was used up, has expired, or is not yours; `claviger share list` lists yours")
            } else {
                failure
            }
        })?;
        match session.json {
            true => output::json(&gone)?,
            false => output::line(&format!("{id}: taken back (revision {})", gone.revision))?,
        }
        Ok(0)
    }
}

fn life(text: &str) -> Result<Duration, String> {
    match parse::duration(text)? {
        zero if zero.as_secs() == 0 => Err("a share lives at least a second".to_owned()),
        long if long > LONGEST => Err("a share lives 30d at most".to_owned()),
        life => Ok(life),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn links_of_other_servers_and_halves_of_links_are_refused() {
        let key = ShareKey::new([7; 32]);
        let link = |server: &str| format!("{server}{PAGE}#0123456789abcdef0123456789abcdef.{}", *key.text());
        let origin = "https://keys.example:9000";
        assert_eq!(parse_link(&link(origin), origin).unwrap().0, "0123456789abcdef0123456789abcdef");
        for bad in [&link("https://other.example:9000"), "https://keys.example:9000/api/v1/share", "x", &link(origin)[..80], ""] {
            let failure = parse_link(bad, origin).map(drop).unwrap_err();
            assert!(failure.code == Code::Usage && !failure.what().contains("share#"), "{bad}");
        }
    }

    #[test]
    fn lives_are_bounded() {
        assert!(life("30d").is_ok() && life("31d").is_err() && life("0s").is_err() && life("1").is_err());
    }
}
