//! `claviger scan`: stored values in a working tree, in what is about to be committed, or in a repository's history.
//!
//! It is given fingerprints, never values (`claviger_wire::fingerprint`), and shows where something was found, never what.

mod git;
mod hook;
mod report;
mod search;
mod tree;

use crate::cli::Session;
use crate::commands::ls::all_keys;
use crate::failure::{Code, Failure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use claviger_domain::KeyId;
use claviger_wire::fingerprint::{FingerprintKey, Index, Print};
use claviger_wire::native::{Fingerprint, Fingerprints};
use report::Report;
use search::{Place, Searcher};
use std::path::PathBuf;

/// Keys that are asked for in one request.
const AT_ONCE: usize = 1000;

/// Find stored values in files and in git's history, without ever holding them.
///
/// The server gives keyed fingerprints of the values that you may read (each is in the audit log as `fingerprint`): as they are, in
/// base64, hexadecimal, URL- and JSON-escaped, and of their members, names and lines. The files are searched here. What is found is told
/// by file, line, commit, key and version; never the value. Values that are short or easily guessed are left out, and named with --verbose.
///
/// Without --git or --staged the files below PATH are searched: not such as .gitignore leaves out (unless --no-ignore), and never through
/// links. Files of any size and kind are read; contents of archives, Git LFS and submodules are not.
///
/// Exit codes for CI: 0 nothing found, 1 found, any other: it could not be told.
#[derive(Args)]
pub(crate) struct Scan {
    /// The file, folder or repository.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Search every version of every file, every commit's and tag's message in the repository's history, from all branches and tags.
    #[arg(long)]
    git: bool,
    /// Search what is about to be committed.
    #[arg(long, conflicts_with = "git")]
    staged: bool,
    /// Search files that .gitignore leaves out, too.
    #[arg(long, conflicts_with_all = ["git", "staged"])]
    no_ignore: bool,
    /// Only look for values of keys that start with this.
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// How to print it; --json is the same as --format json.
    #[arg(long, default_value = "text")]
    format: Format,
    /// Name the values that have no fingerprint, and why.
    #[arg(long, short = 'v')]
    verbose: bool,
    /// Install a pre-commit hook that runs `claviger scan --staged`; another hook is never overwritten.
    #[arg(long, conflicts_with_all = ["git", "staged", "no_ignore", "verbose"])]
    install_hook: bool,
}

/// How findings are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each.
    Text,
    /// One JSON value.
    Json,
    /// SARIF 2.1.0, for code hosts.
    Sarif,
}

/// A print's own key, version and part.
struct Origin {
    key: String,
    version: String,
    part: String,
    form: String,
}

/// What is looked for.
struct Wanted {
    index: Index,
    origins: Vec<Origin>,
    keys: usize,
    left_out: Vec<serde_json::Value>,
}

impl Scan {
    /// Whether no server is needed.
    pub(crate) fn is_offline(&self) -> bool {
        self.install_hook
    }

    /// Installs the hook.
    pub(crate) fn install(self, json: bool) -> Result<u8, Failure> {
        hook::install(&self.path, json)
    }

    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        // 1 is for what was found.
        self.search(session).await.map_err(|failure| failure.instead_of_other(Code::Unavailable))
    }

    async fn search(&self, session: &Session) -> Result<u8, Failure> {
        if !self.path.exists() {
            return Err(Failure::usage(format!("{} does not exist", self.path.display())));
        }
        let wanted = wanted(session, &self.prefix).await?;
        let mut report = Report::default();
        let mut searcher = Searcher::new(&wanted.index);
        let mut on_found = |place: &Place, found: Vec<search::Hit>| report.add(place, found, &wanted.origins);
        if self.git {
            git::history(&self.path, &mut searcher, &mut on_found)?;
        } else if self.staged {
            git::staged(&self.path, &mut searcher, &mut on_found)?;
        } else {
            tree::walk(&self.path, !self.no_ignore, &mut searcher, &mut on_found)?;
        }
        let (bytes, unread) = (searcher.bytes, std::mem::take(&mut searcher.unread));
        let format = if session.json { Format::Json } else { self.format };
        let shown = report.show(format, &wanted, bytes, &unread, self.verbose);
        let code = match (report.is_empty(), unread.is_empty()) {
            (false, _) => 1,
            (true, true) => 0,
            (true, false) => Code::Unavailable as u8,
        };
        Failure::verdict(code, shown)
    }
}

/// The fingerprints of all secrets below a prefix that may be read.
async fn wanted(session: &Session, prefix: &str) -> Result<Wanted, Failure> {
    let mut ids = readable(session, prefix).await?;
    let mut collected = Collected::default();
    while !ids.is_empty() {
        let some: Vec<KeyId> = ids.drain(..ids.len().min(AT_ONCE)).collect();
        let asked = session.client.fingerprints(&some, collected.session.as_deref()).await;
        let again = collected.take(asked.map_err(|e| Failure::client(e, None))?)?;
        if again.len() == some.len() {
            return Err(Failure::new(Code::Unavailable, "the server gives no fingerprints of some keys"));
        }
        ids.extend(again);
    }
    let key = collected.key.map_or_else(|| FingerprintKey::new([0; 32]), FingerprintKey::new);
    let Collected { prints, origins, keys, left_out, .. } = collected;
    Ok(Wanted { index: Index::new(key, prints), origins, keys, left_out })
}

async fn readable(session: &Session, prefix: &str) -> Result<Vec<KeyId>, Failure> {
    let keys = all_keys(session, Some(prefix.to_owned()), Vec::new()).await?;
    let may_read = keys.iter().filter(|key| key.kind == "secret" && key.allowed.iter().any(|right| right == "read"));
    Ok(may_read.filter_map(|key| KeyId::parse(&key.id).ok()).collect())
}

/// Fingerprints as they come.
#[derive(Default)]
struct Collected {
    session: Option<String>,
    key: Option<[u8; 32]>,
    prints: Vec<Print>,
    origins: Vec<Origin>,
    keys: usize,
    left_out: Vec<serde_json::Value>,
}

impl Collected {
    /// Takes an answer; gives back the keys that did not fit into it.
    fn take(&mut self, answer: Fingerprints) -> Result<Vec<KeyId>, Failure> {
        let malformed = || Failure::new(Code::Unavailable, "the server's fingerprints are malformed");
        let key = STANDARD.decode(&answer.key).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).ok_or_else(malformed)?;
        if self.key.is_some_and(|before| before != key) {
            return Err(Failure::new(Code::Unavailable, "the server restarted meanwhile and has another key").next("try again"));
        }
        (self.key, self.session) = (Some(key), Some(answer.session));
        let mut again = Vec::new();
        for item in answer.items {
            match item.error.as_deref() {
                Some("ask_again") => again.push(KeyId::parse(&item.id).map_err(|_| malformed())?),
                Some(why) => self.left_out.push(serde_json::json!({ "key": item.id, "version": "", "part": "", "why": why })),
                None => self.keys += 1,
            }
            for left in item.left_out {
                self.left_out.push(serde_json::json!({ "key": item.id, "version": left.version, "part": left.part, "why": left.why }));
            }
            for Fingerprint { version, part, form, length, head, tail, mac } in item.prints {
                let mac = STANDARD.decode(mac).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(malformed)?;
                self.prints.push(Print { length, head, tail, mac });
                self.origins.push(Origin { key: item.id.clone(), version, part, form });
            }
        }
        Ok(again)
    }
}
