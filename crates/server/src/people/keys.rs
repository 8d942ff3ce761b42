//! One issuer's public keys, fetched when they are needed and kept for a while.
//!
//! # Guarantees
//! - The set is replaced as a whole: a key counts no longer than the issuer's answer says, or an hour when it gives none.
//! - Whatever tokens say, the issuer is asked at most once in ten seconds, and by one request at a time ▲.
//! - Keys are fetched from where the issuer's own metadata say, over its own roots, without following redirects.

use crate::outbound::{Outbound, OutboundError};
use claviger_authn::{KeySet, KeySetError, MAX_SET};
use claviger_domain::{Clock, Timestamp};
use parking_lot::Mutex;
use serde::Deserialize;
use std::sync::Arc;
use thiserror::Error;

/// After so many seconds the set is fetched again when it is next needed.
const FRESH: i64 = 600;
/// When the issuer does not answer, an older set goes on being used for so many seconds.
const BOUND: i64 = 3600;
/// Seconds between two attempts.
const PAUSE: i64 = 10;
/// Bytes of metadata that are read.
const MAX_METADATA: usize = 64 * 1024;

/// An issuer's keys.
pub(crate) struct IssuerKeys {
    issuer: String,
    outbound: Outbound,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Held while somebody fetches.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    kept: Option<(Arc<KeySet>, Timestamp)>,
    tried: Option<Timestamp>,
}

/// Why there are no keys.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum KeysError {
    /// It was not reached.
    #[error("the issuer's keys cannot be fetched: {0}")]
    Outbound(#[from] OutboundError),
    /// It answered something else.
    #[error("the issuer answered {0} where its {1} should be")]
    Status(u16, &'static str),
    /// Its metadata are none.
    #[error("the issuer's metadata are malformed")]
    Metadata,
    /// Its metadata are another issuer's.
    #[error("the issuer's metadata are another issuer's")]
    OtherIssuer,
    /// Its set is none.
    #[error(transparent)]
    Set(#[from] KeySetError),
    /// The last attempt failed a moment ago.
    #[error("the issuer's keys could not be fetched a moment ago")]
    JustTried,
}

/// What matters here of an issuer's metadata (OpenID Connect Discovery §3).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

impl IssuerKeys {
    pub(crate) fn new(issuer: String, outbound: Outbound, clock: Arc<dyn Clock>) -> Self {
        Self { issuer, outbound, clock, state: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    /// The keys by which to look at a token that names this one. Whether they have it is for the token to say.
    pub(crate) async fn for_token(&self, kid: Option<&str>) -> Result<Arc<KeySet>, KeysError> {
        if let Some(keys) = self.good_enough(kid) {
            return Ok(keys);
        }
        let _turn = self.fetching.lock().await;
        // Somebody else may have fetched them meanwhile.
        if let Some(keys) = self.good_enough(kid) {
            return Ok(keys);
        }
        let failure = match self.fetch().await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                self.state.lock().kept = Some((keys.clone(), self.clock.now()));
                return Ok(keys);
            }
            Err(failure) => failure,
        };
        tracing::warn!(issuer = %self.issuer, error = %failure, "an issuer's keys were not fetched");
        self.within_bound().ok_or(failure)
    }

    /// The kept keys, where there is no need to ask, or it is too early to ask again.
    fn good_enough(&self, kid: Option<&str>) -> Option<Arc<KeySet>> {
        let now = self.clock.now();
        let state = self.state.lock();
        let is_within = |at: Timestamp, seconds| at <= now && now < at.plus_seconds(seconds);
        let is_fresh = state.kept.as_ref().is_some_and(|(keys, at)| is_within(*at, FRESH) && keys.knows(kid));
        let is_early = state.tried.is_some_and(|at| is_within(at, PAUSE));
        let usable = state.kept.as_ref().filter(|(_, at)| is_within(*at, BOUND)).map(|(keys, _)| keys.clone());
        usable.filter(|_| is_fresh || is_early)
    }

    fn within_bound(&self) -> Option<Arc<KeySet>> {
        let now = self.clock.now();
        let kept = self.state.lock().kept.clone();
        kept.filter(|(_, at)| *at <= now && now < at.plus_seconds(BOUND)).map(|(keys, _)| keys)
    }

    async fn fetch(&self) -> Result<KeySet, KeysError> {
        let now = self.clock.now();
        {
            let mut state = self.state.lock();
            if state.tried.is_some_and(|at| at <= now && now < at.plus_seconds(PAUSE)) {
                return Err(KeysError::JustTried);
            }
            state.tried = Some(now);
        }
        let place = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let metadata = self.document(&place, "metadata", MAX_METADATA).await?;
        let metadata: Metadata = serde_json::from_slice(&metadata).map_err(|_| KeysError::Metadata)?;
        if metadata.issuer != self.issuer {
            return Err(KeysError::OtherIssuer);
        }
        Ok(KeySet::parse(&self.document(&metadata.jwks_uri, "key set", MAX_SET).await?)?)
    }

    async fn document(&self, url: &str, what: &'static str, most: usize) -> Result<bytes::Bytes, KeysError> {
        let fetched = self.outbound.get(url, &[], most).await?;
        match fetched.status.as_u16() {
            200 => Ok(fetched.body),
            status => Err(KeysError::Status(status, what)),
        }
    }
}
