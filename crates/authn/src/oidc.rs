//! OpenID Connect (Core 1.0 §3.1.3.7, §12.2): which ID tokens of one issuer prove whom.
//!
//! Pure: fetching keys, remembering what was used, and opening sessions are the server's.

use crate::jwks::KeySet;
use crate::jwt::{Algorithm, Claims, JwtError, Unverified};
use crate::names::{NameError, Names};
use claviger_domain::{Identity, Timestamp};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Seconds after its issue in which a token must be shown: a login takes no longer, and what is remembered against replay
/// need not be kept for longer.
pub const FRESH: Duration = Duration::from_secs(300);
/// Groups that one person has at most.
const MAX_GROUPS: usize = 1000;

type Groups = Arc<[Arc<str>]>;

/// Where a claim lies: the names of the members that lead to it.
pub type ClaimPath = Vec<String>;

/// One issuer's rules.
#[derive(Debug, Clone)]
pub struct OidcRules {
    /// The issuer, as the configuration calls it.
    pub name: Arc<str>,
    /// `oidc:NAME`: how its people are proven, as logged.
    pub method: &'static str,
    /// What `iss` must be, byte for byte.
    pub issuer: String,
    /// What `aud` must be, and `azp` where it is there.
    pub client_id: String,
    /// The algorithms that it signs with.
    pub algorithms: Vec<Algorithm>,
    /// How far its clock and ours may disagree.
    pub skew: Duration,
    /// The claim that has the user's name.
    pub user_claim: ClaimPath,
    /// The claim that has his groups: a text or a list of texts.
    pub groups_claim: Option<ClaimPath>,
    /// Whether a login's token may lack the nonce, as tokens of the device flow do with most providers.
    pub device_flow: bool,
    /// For how long after a login sessions are renewed.
    pub session_total: Duration,
}

/// What a token is shown for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// A login. Whether its nonce is one of ours is the caller's to check.
    Login,
    /// A renewal of this person's login.
    Renewal {
        /// `sub` at the login.
        subject: &'a str,
        /// Digest of the nonce at the login.
        nonce: [u8; 16],
    },
}

/// Who a token proves, by its issuer's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcLogin {
    /// The person.
    pub identity: Identity,
    /// `sub`: whom the issuer means, whatever he is called.
    pub subject: String,
    /// The nonce, where there is one.
    pub nonce: Option<String>,
    /// When the token was issued.
    pub issued: Timestamp,
    /// Groups that belong to another source, or are no names, and were left out.
    pub groups_left_out: usize,
}

/// Why a token proves nobody. The texts hold nothing that the token's maker chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OidcError {
    /// Its form, key or signature.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// `iss` is missing or another.
    #[error("the token is another issuer's")]
    Issuer,
    /// `aud` is missing, another, or more than this client.
    #[error("the token is meant for another client")]
    Audience,
    /// `azp` is another.
    #[error("the token was issued to another client")]
    AuthorizedParty,
    /// A time that must be there is missing or no time.
    #[error("the token does not say clearly when it was issued and when it ends")]
    NoTime,
    /// `exp` is over.
    #[error("the token has expired")]
    Expired,
    /// `iat`, `nbf` or `auth_time` is to come.
    #[error("the token is from the future: compare the clocks of this server and of the issuer")]
    Future,
    /// Issued too long ago to be a login's.
    #[error("the token was issued more than five minutes ago")]
    Stale,
    /// The person logged in too long ago.
    #[error("the login is older than sessions may become: log in again")]
    TooOld,
    /// No `sub`, or another person's.
    #[error("the token names no subject, or another one than at the login")]
    Subject,
    /// The nonce is missing or another.
    #[error("the token's nonce is missing or another")]
    Nonce,
    /// The claim with the name is missing or no text.
    #[error("the token lacks the claim that has the user's name")]
    NoUser,
    /// The name is an e-mail address that the issuer has not verified.
    #[error("the token's e-mail address is not marked as verified")]
    UnverifiedEmail,
    /// The name is no name here.
    #[error("the user's name: {0}")]
    User(NameError),
    /// The claim with the groups is of another form.
    #[error("the claim that has the groups is neither a text nor a list of up to 1,000 texts")]
    Groups,
}

impl OidcRules {
    /// Whom `token` proves.
    ///
    /// # Errors
    /// [`OidcError`]: the first rule that it breaks.
    pub fn prove(
        &self,
        token: Unverified<'_>,
        keys: &KeySet,
        names: &Names,
        purpose: Purpose<'_>,
        now: Timestamp,
    ) -> Result<OidcLogin, OidcError> {
        let claims = token.verify(keys, &self.algorithms)?;
        self.check_parties(&claims)?;
        let issued = self.check_times(&claims, now)?;
        let subject = claims.text("sub").filter(|s| !s.is_empty() && s.len() <= 255).ok_or(OidcError::Subject)?;
        let nonce = self.nonce(&claims, purpose, subject)?;
        let user = names.user(&self.name, self.user(&claims)?).map_err(OidcError::User)?;
        let (groups, groups_left_out) = self.groups(&claims, names)?;
        let identity = Identity::User { name: user, groups };
        Ok(OidcLogin { identity, subject: subject.to_owned(), nonce: nonce.map(str::to_owned), issued, groups_left_out })
    }

    /// Who issued it, and to whom. A token that is meant for others as well is not taken: they could show it here.
    fn check_parties(&self, claims: &Claims) -> Result<(), OidcError> {
        if claims.text("iss") != Some(&self.issuer) {
            return Err(OidcError::Issuer);
        }
        let is_ours = |value: &Value| value.as_str() == Some(&self.client_id);
        match claims.at(&["aud"]) {
            Some(Value::Array(all)) if !all.is_empty() && all.iter().all(is_ours) => {}
            Some(one) if is_ours(one) => {}
            _ => return Err(OidcError::Audience),
        }
        match claims.at(&["azp"]) {
            Some(party) if !is_ours(party) => Err(OidcError::AuthorizedParty),
            _ => Ok(()),
        }
    }

    fn check_times(&self, claims: &Claims, now: Timestamp) -> Result<Timestamp, OidcError> {
        let skew = seconds(self.skew);
        let optional = |name| match claims.moment(name) {
            None if claims.has(name) => Err(OidcError::NoTime),
            moment => Ok(moment),
        };
        let expires = claims.moment("exp").ok_or(OidcError::NoTime)?;
        let issued = claims.moment("iat").ok_or(OidcError::NoTime)?;
        let (not_before, authenticated) = (optional("nbf")?, optional("auth_time")?);
        if now >= expires.plus_seconds(skew) {
            return Err(OidcError::Expired);
        }
        let latest = now.plus_seconds(skew);
        if issued > latest || not_before.is_some_and(|t| t > latest) || authenticated.is_some_and(|t| t > latest) {
            return Err(OidcError::Future);
        }
        if now > issued.plus_seconds(skew + seconds(FRESH)) {
            return Err(OidcError::Stale);
        }
        if authenticated.is_some_and(|t| now > t.plus_seconds(skew + seconds(self.session_total))) {
            return Err(OidcError::TooOld);
        }
        Ok(issued)
    }

    fn nonce<'c>(&self, claims: &'c Claims, purpose: Purpose<'_>, subject: &str) -> Result<Option<&'c str>, OidcError> {
        let nonce = claims.text("nonce");
        if claims.has("nonce") && nonce.is_none() {
            return Err(OidcError::Nonce);
        }
        match purpose {
            Purpose::Login if nonce.is_none() && !self.device_flow => Err(OidcError::Nonce),
            Purpose::Login => Ok(nonce),
            Purpose::Renewal { subject: wanted, .. } if subject != wanted => Err(OidcError::Subject),
            // A refreshed token has no nonce, or the login's (Core §12.2).
            Purpose::Renewal { nonce: wanted, .. } if nonce.is_some_and(|n| digest16(n.as_bytes()) != wanted) => Err(OidcError::Nonce),
            Purpose::Renewal { .. } => Ok(nonce),
        }
    }

    /// The user's name. An address of e-mail is the person's only where the issuer says so: with some, anybody writes there
    /// what he likes.
    fn user<'c>(&self, claims: &'c Claims) -> Result<&'c str, OidcError> {
        let is_email = self.user_claim.last().is_some_and(|name| name == "email");
        let is_verified = claims.at(&["email_verified"]) == Some(&Value::Bool(true));
        if is_email && !is_verified {
            return Err(OidcError::UnverifiedEmail);
        }
        claims.at(&self.user_claim).and_then(Value::as_str).ok_or(OidcError::NoUser)
    }

    /// The groups. A claim that is not there means none: fewer rights, never more.
    fn groups(&self, claims: &Claims, names: &Names) -> Result<(Groups, usize), OidcError> {
        let value = self.groups_claim.as_ref().and_then(|path| claims.at(path));
        let texts: Vec<&str> = match value {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(all)) if all.len() <= MAX_GROUPS => {
                all.iter().map(Value::as_str).collect::<Option<_>>().ok_or(OidcError::Groups)?
            }
            Some(_) => return Err(OidcError::Groups),
        };
        let named: Vec<_> = texts.iter().filter_map(|raw| names.group(&self.name, raw).ok()).collect();
        let left_out = texts.len() - named.len();
        Ok((named.into(), left_out))
    }
}

/// The first half of SHA-256: enough to tell nonces and tokens apart that nobody can choose twice.
pub(crate) fn digest16(bytes: &[u8]) -> [u8; 16] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref()[..16].try_into().expect("SHA-256 has 32 bytes")
}

pub(crate) fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
