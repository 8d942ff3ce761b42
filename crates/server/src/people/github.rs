//! Who a token of Knox's `0u` is: a GitHub-compatible service is asked, and believed for a minute (contract knox §5).
//!
//! # Guarantees
//! - A token goes nowhere but to the configured service, and is kept as a digest only.
//! - Memory and questions are bounded: so many remembered, so many asked at once, each for so long.
//! - An outage proves nobody and is not remembered; a refusal is for ten seconds.

use crate::config::GithubConfig;
use crate::config::people::GITHUB;
use crate::outbound::{Fetched, Outbound, OutboundError};
use anyhow::{Context, Result};
use claviger_authn::{Names, Rejection, github};
use claviger_domain::{Clock, Identity, Timestamp};
use http::{HeaderValue, header};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Tokens that are remembered.
const REMEMBERED: usize = 4096;
/// Questions at once.
const AT_ONCE: usize = 16;
/// Seconds for which a refusal is remembered: guessing is no way to make us ask.
const REFUSAL_KEPT: i64 = 10;
/// Bytes of one answer.
const MAX_ANSWER: usize = 1 << 20;
/// Pages of a hundred organisations.
const MAX_PAGES: usize = 10;

type Verdict = Result<Identity, Rejection>;

/// The service, and what it said lately.
pub(crate) struct Github {
    base_url: String,
    outbound: Outbound,
    names: Names,
    timeout: Duration,
    kept_for: i64,
    clock: Arc<dyn Clock>,
    at_once: Semaphore,
    /// By digest under a key of this process.
    known: Mutex<HashMap<[u64; 2], (Verdict, Timestamp)>>,
    hashers: [RandomState; 2],
}

/// What was found, and until when it counts.
#[derive(Debug, Clone)]
pub(crate) struct LookedUp {
    pub(crate) verdict: Verdict,
    pub(crate) until: Timestamp,
    is_outage: bool,
}

impl LookedUp {
    /// Whether the service does not know the token.
    pub(crate) fn is_refusal(&self) -> bool {
        self.verdict.is_err() && !self.is_outage
    }

    /// Whether the service could not say: then this is no refusal of the token.
    pub(crate) fn is_outage(&self) -> bool {
        self.is_outage
    }
}

impl Github {
    /// The service of this configuration.
    ///
    /// # Errors
    /// When its roots cannot be read.
    pub(crate) fn new(config: &GithubConfig, names: Names, clock: Arc<dyn Clock>) -> Result<Self> {
        let needs_roots = config.base_url.starts_with("https:");
        let roots = needs_roots.then(|| std::fs::read(&config.ca)).transpose();
        let roots = roots.with_context(|| format!("reading {}", config.ca.display()))?;
        let outbound = Outbound::new(roots.as_deref(), config.timeout, config.loopback_http);
        Ok(Self {
            base_url: config.base_url.clone(),
            outbound: outbound.with_context(|| format!("auth.github.ca, {}", config.ca.display()))?,
            names,
            timeout: config.timeout,
            kept_for: i64::try_from(config.cache.as_secs()).unwrap_or(0),
            clock,
            at_once: Semaphore::new(AT_ONCE),
            known: Mutex::default(),
            hashers: [RandomState::new(), RandomState::new()],
        })
    }

    /// Who the token is. Not for anything that is no token of such a service.
    pub(crate) async fn look_up(&self, token: &[u8]) -> LookedUp {
        let digest = self.hashers.each_ref().map(|h| h.hash_one(token));
        if let Some(known) = self.known(digest) {
            return known;
        }
        let asked = async {
            let _place = self.at_once.acquire().await.map_err(|_| outage("it is being stopped"))?;
            self.ask(token).await
        };
        let verdict = tokio::time::timeout(self.timeout, asked).await.unwrap_or_else(|_| Err(outage("it took too long")));
        let now = self.clock.now();
        let is_outage = matches!(verdict, Err(Failure::Outage(_)));
        let (verdict, kept_for) = match verdict {
            Ok(identity) => (Ok(identity), self.kept_for),
            Err(Failure::Refused(why)) => (Err(why), REFUSAL_KEPT.min(self.kept_for)),
            Err(Failure::Outage(why)) => (Err(why), 0),
        };
        let until = now.plus_seconds(kept_for);
        self.keep(digest, &verdict, until, now);
        LookedUp { verdict, until, is_outage }
    }

    fn known(&self, digest: [u64; 2]) -> Option<LookedUp> {
        let now = self.clock.now();
        let known = self.known.lock();
        let (verdict, until) = known.get(&digest).filter(|(_, until)| now < *until)?;
        // Set back clocks make nothing last longer than it may.
        let is_sane = *until <= now.plus_seconds(self.kept_for.max(REFUSAL_KEPT));
        is_sane.then(|| LookedUp { verdict: verdict.clone(), until: *until, is_outage: false })
    }

    fn keep(&self, digest: [u64; 2], verdict: &Verdict, until: Timestamp, now: Timestamp) {
        if until <= now {
            return;
        }
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED {
            known.retain(|_, (_, until)| now < *until);
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(digest, (verdict.clone(), until));
    }

    async fn ask(&self, token: &[u8]) -> Result<Identity, Failure> {
        let user = self.page("/user", token).await?;
        let login = github::login(&user.body).ok_or_else(|| outage("its answer names no user"))?;
        let mut organisations = Vec::new();
        let mut target = "/user/orgs?per_page=100".to_owned();
        for page in 2..=MAX_PAGES + 1 {
            let answer = self.page(&target, token).await?;
            let found = github::organisations(&answer.body).ok_or_else(|| outage("its answer names no organisations"))?;
            let is_last = !has_next(&answer);
            organisations.extend(found);
            if is_last {
                break;
            }
            if page > MAX_PAGES {
                tracing::warn!("a user is in more than 1,000 organisations: the others do not count");
            }
            target = format!("/user/orgs?per_page=100&page={page}");
        }
        let identity = github::identity(&self.names, GITHUB, &login, &organisations);
        identity.map_err(|why| Failure::Refused(Rejection::LookUp(format!("auth: the user's name: {why}").into())))
    }

    async fn page(&self, target: &str, token: &[u8]) -> Result<Fetched, Failure> {
        let mut bearer = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).map_err(|_| outage("the token fits no header"))?;
        bearer.set_sensitive(true);
        let headers = [(header::AUTHORIZATION, bearer), (header::ACCEPT, HeaderValue::from_static("application/json"))];
        let fetched = self.outbound.get(&format!("{}{target}", self.base_url), &headers, MAX_ANSWER).await.map_err(failed)?;
        match fetched.status.as_u16() {
            200 => Ok(fetched),
            // Knox's words, with the status as HTTP writes it.
            status => {
                let why = Rejection::LookUp(format!("API request returned status: {}", fetched.status).into());
                // Only what is about the token is a refusal; a limit or a fault there says nothing of it.
                Err(if matches!(status, 401 | 404) { Failure::Refused(why) } else { Failure::Outage(why) })
            }
        }
    }
}

enum Failure {
    Refused(Rejection),
    Outage(Rejection),
}

fn failed(error: OutboundError) -> Failure {
    tracing::warn!(%error, "looking a user up failed");
    outage("it did not answer")
}

fn outage(why: &str) -> Failure {
    Failure::Outage(Rejection::LookUp(format!("auth: the service that knows this token could not say whose it is: {why}").into()))
}

/// RFC 8288: whether there is a page after this one. Where it lies is not followed: pages are numbered.
fn has_next(answer: &Fetched) -> bool {
    let links = answer.headers.get_all(header::LINK).iter().filter_map(|v| v.to_str().ok());
    links.flat_map(|v| v.split(',')).any(|link| link.contains("rel=\"next\""))
}
