//! People: from an ID token of a configured issuer to a session, and its end.
//!
//! The rules of tokens are `claviger_authn`'s; here are the issuers with their keys, and what a login needs besides.
//!
//! # Guarantees
//! - A session comes from a token of the very issuer that was named, that was never used before, and that answers a nonce of
//!   this process, or a login that this store sealed a ticket for (see [`claviger_authn::Logins`]).
//! - No session outlives `auth.session_minutes`, and no login `auth.session_total_hours`.

pub(crate) mod github;
pub(crate) mod keys;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::config::{IssuerConfig, PeopleConfig};
use crate::outbound::Outbound;
use anyhow::{Context, Result};
use claviger_authn::{
    JwtError, Logins, Names, OidcError, OidcRules, OnceError, Purpose, Session, Sessions, SessionsFull, Ticket, Unverified, nonce_digest,
};
use claviger_domain::{Clock, SecretBytes, Timestamp};
use keys::{IssuerKeys, KeysError};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use zeroize::Zeroizing;

/// How long one request to an issuer may take.
const ISSUER_TIMEOUT: Duration = Duration::from_secs(5);

/// All that is known of people.
pub struct People {
    issuers: Vec<Issuer>,
    names: Names,
    logins: Logins,
    /// Shared with those who look at credentials.
    pub(crate) sessions: Arc<Sessions>,
    session: Duration,
    clock: Arc<dyn Clock>,
}

/// One issuer, as it is asked and as it is published.
pub(crate) struct Issuer {
    pub(crate) rules: OidcRules,
    pub(crate) scopes: Vec<String>,
    pub(crate) prompt: Option<String>,
    /// Its own roots, where the configuration names some.
    pub(crate) ca_pem: Option<String>,
    pub(crate) loopback_http: bool,
    keys: IssuerKeys,
}

/// A session that was opened.
pub(crate) struct LoggedIn {
    pub(crate) token: Zeroizing<String>,
    pub(crate) session: Arc<Session>,
    pub(crate) ticket: String,
    /// The last moment to which renewals lead.
    pub(crate) until: Timestamp,
    pub(crate) subject: String,
    pub(crate) groups_left_out: usize,
}

/// Why no session is opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum LoginError {
    /// No such issuer is configured.
    #[error("there is no issuer of that name here")]
    NoIssuer,
    /// The token proves nobody.
    #[error(transparent)]
    Token(#[from] OidcError),
    /// It was used, or is not an answer to us.
    #[error(transparent)]
    Once(#[from] OnceError),
    /// The login that is to be renewed is over.
    #[error("the login has ended: log in again")]
    Over,
    /// There is no room.
    #[error(transparent)]
    Full(#[from] SessionsFull),
    /// The issuer's keys are not to be had.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl From<JwtError> for LoginError {
    fn from(error: JwtError) -> Self {
        Self::Token(error.into())
    }
}

impl People {
    /// The people of this configuration. `seed` is the barrier's for tickets.
    ///
    /// # Errors
    /// When an issuer's roots cannot be read.
    pub fn new(config: &PeopleConfig, seed: &SecretBytes, clock: Arc<dyn Clock>) -> Result<Self> {
        let issuers = config.issuers.iter().map(|issuer| Issuer::new(issuer, clock.clone())).collect::<Result<_>>()?;
        let logins = Logins::new(seed, clock.now());
        Ok(Self { issuers, names: config.names.clone(), logins, sessions: Arc::default(), session: config.session, clock })
    }

    /// The issuers, for those who want to log in.
    pub(crate) fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// A nonce for a login that begins now.
    pub(crate) fn nonce(&self) -> String {
        self.logins.nonce(self.clock.now())
    }

    /// Opens a session for whom `token` proves: by a login, or by renewing the login that a ticket stands for.
    pub(crate) async fn open(&self, issuer: &str, token: &[u8], ticket: Option<&str>) -> Result<LoggedIn, LoginError> {
        let issuer = self.issuers.iter().find(|i| &*i.rules.name == issuer).ok_or(LoginError::NoIssuer)?;
        let renewed = ticket.map(|ticket| self.still_running(issuer, ticket)).transpose()?;
        let unverified = Unverified::parse(token)?;
        let signed = unverified.signed();
        if !issuer.rules.algorithms.contains(&unverified.algorithm()) {
            return Err(JwtError::Algorithm.into());
        }
        let keys = issuer.keys.for_token(unverified.kid()).await?;
        let purpose = match &renewed {
            Some(ticket) => Purpose::Renewal { subject: &ticket.subject, nonce: ticket.nonce },
            None => Purpose::Login,
        };
        let now = self.clock.now();
        let proven = issuer.rules.prove(unverified, &keys, &self.names, purpose, now)?;
        match &renewed {
            Some(_) => self.logins.spend_renewal(signed, proven.issued, now)?,
            None => self.logins.spend(signed, proven.nonce.as_deref(), proven.issued, now)?,
        }
        let ticket = renewed.unwrap_or_else(|| Ticket {
            issuer: (issuer.rules.name.to_string(), issuer.rules.issuer.clone()),
            subject: proven.subject.clone(),
            at: now.0,
            login: format!("{:032x}", u128::from_be_bytes(claviger_crypto::random())),
            nonce: nonce_digest(proven.nonce.as_deref()),
        });
        let until = end_of(issuer, &ticket);
        let expires = now.plus_seconds(whole_seconds(self.session)).min(until);
        let (token, session) = self.sessions.open(proven.identity, issuer.rules.method, &ticket.login, expires, now)?;
        let groups_left_out = proven.groups_left_out;
        Ok(LoggedIn { token, session, ticket: self.logins.seal(&ticket), until, subject: proven.subject, groups_left_out })
    }

    /// Ends a login: its sessions, and their renewal.
    pub(crate) fn end(&self, session: &Session) {
        let longest = self.issuers.iter().map(|i| whole_seconds(i.rules.session_total)).max().unwrap_or(0);
        self.sessions.end(&session.login, self.clock.now().plus_seconds(longest));
    }

    /// The login of a ticket, if it is this issuer's and not over.
    fn still_running(&self, issuer: &Issuer, ticket: &str) -> Result<Ticket, LoginError> {
        let ticket = self.logins.open(ticket)?;
        let is_its = ticket.issuer == (issuer.rules.name.to_string(), issuer.rules.issuer.clone());
        let now = self.clock.now();
        if !is_its {
            return Err(OnceError::Ticket.into());
        }
        if now >= end_of(issuer, &ticket) || self.sessions.is_ended(&ticket.login) {
            return Err(LoginError::Over);
        }
        Ok(ticket)
    }
}

impl Issuer {
    fn new(config: &IssuerConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let needs_roots = config.rules.issuer.starts_with("https:");
        let place = || format!("auth.oidc.{}.ca, {}", config.rules.name, config.ca.display());
        let roots = needs_roots.then(|| std::fs::read_to_string(&config.ca)).transpose().with_context(place)?;
        let outbound = Outbound::new(roots.as_ref().map(String::as_bytes), ISSUER_TIMEOUT, config.loopback_http).with_context(place)?;
        Ok(Self {
            keys: IssuerKeys::new(config.rules.issuer.clone(), outbound, clock),
            rules: config.rules.clone(),
            scopes: config.scopes.clone(),
            prompt: config.prompt.clone(),
            ca_pem: roots.filter(|_| config.has_own_ca),
            loopback_http: config.loopback_http,
        })
    }
}

fn end_of(issuer: &Issuer, ticket: &Ticket) -> Timestamp {
    Timestamp(ticket.at).plus_seconds(whole_seconds(issuer.rules.session_total))
}

fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
