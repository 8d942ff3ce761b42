//! How a person logs in at an OpenID provider from a command line: a public client by RFC 8252, with the authorization code
//! and PKCE (RFC 7636, S256) or the device flow (RFC 8628); refreshing and revoking (RFC 7009) what came of it.
//!
//! Own code over the client's own wiping connections: it is a handful of forms, and what passes through them is secret. The
//! ID token that comes out is the server's to verify; here only what ties it to this very login is compared.
//!
//! # Guarantees
//! - All endpoints come from the metadata of the one issuer that the Claviger server named, fetched from that issuer: an
//!   answer of one provider is never sent to another ▲ (RFC 9700 §4.4).
//! - The nonce of the ID token and, where the provider sends it, the `iss` of its answer (RFC 9207) are this login's.

mod device;
mod loopback;
mod web;

pub use device::{Device, DeviceCode};
pub use loopback::{Landed, Loopback};

pub(crate) use loopback::fuzz as fuzz_landing;

use crate::request::Target;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_wire::native::LoginIssuer;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use std::path::Path;
use thiserror::Error;
use web::{Answer, Web};
use zeroize::{Zeroize, Zeroizing};

/// Where the roots of the public web are kept, where the server names none for an issuer.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why a login at a provider failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OidcError {
    /// A URL that is not asked.
    #[error("`{0}` is no URL that is asked: providers are reached by HTTPS")]
    Url(String),
    /// The roots to trust are of no use.
    #[error("the provider's CA: {0}")]
    Roots(String),
    /// No answer.
    #[error(transparent)]
    Web(#[from] crate::Error),
    /// An answer that is none.
    #[error("the provider's answer is malformed: {0}")]
    Answer(&'static str),
    /// The provider's metadata are another issuer's.
    #[error("the provider's metadata are another issuer's: do not log in there")]
    OtherIssuer,
    /// The provider does not do what is needed.
    #[error("the provider has no {0}")]
    Unsupported(&'static str),
    /// The provider refused (RFC 6749 §5.2).
    #[error("the provider refused: {0}")]
    Refused(String),
    /// What came back belongs to another login.
    #[error("the answer belongs to another login ({0}): begin again")]
    Mixed(&'static str),
    /// Nobody came back in time.
    #[error("nobody logged in within the time there was")]
    TimedOut,
    /// Listening or asking the system failed.
    #[error("{0}")]
    System(String),
}

/// The metadata that matter here (OpenID Connect Discovery §3, RFC 8414 §2).
#[derive(Debug, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: String,
    device_authorization_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    code_challenge_methods_supported: Option<Vec<String>>,
}

/// A provider, as its metadata describe it.
pub struct Provider {
    issuer: LoginIssuer,
    metadata: Metadata,
    web: Web,
}

/// What a provider gave.
pub struct Tokens {
    /// For the Claviger server.
    pub id_token: Zeroizing<String>,
    /// For the next ones; a provider may give a new one each time.
    pub refresh_token: Option<Zeroizing<String>>,
}

/// One login by the authorization code, from the request to its answer.
pub struct Attempt {
    /// Where the person logs in.
    pub url: String,
    state: Zeroizing<String>,
    verifier: Zeroizing<String>,
    nonce: String,
    redirect: String,
}

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: Option<String>,
    refresh_token: Option<String>,
}

impl Drop for TokenAnswer {
    fn drop(&mut self) {
        self.id_token.zeroize();
        self.refresh_token.zeroize();
    }
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
    error_description: Option<String>,
}

impl Provider {
    /// Fetches the provider's metadata.
    ///
    /// # Errors
    /// [`OidcError`]; above all when they are not this issuer's.
    pub async fn discover(issuer: LoginIssuer) -> Result<Self, OidcError> {
        let web = Web::new(roots(&issuer)?, issuer.loopback_http)?;
        let place = format!("{}/.well-known/openid-configuration", issuer.issuer.trim_end_matches('/'));
        let answer = web.get(&place).await?;
        let metadata: Metadata = match answer.status {
            200 => parse(&answer)?,
            _ => return Err(OidcError::Answer("there are no metadata below its issuer identifier")),
        };
        if metadata.issuer != issuer.issuer {
            return Err(OidcError::OtherIssuer);
        }
        Ok(Self { issuer, metadata, web })
    }

    /// Begins a login whose answer comes to `redirect`.
    ///
    /// # Errors
    /// [`OidcError::Unsupported`], or no random bytes.
    pub fn attempt(&self, redirect: String, nonce: &str) -> Result<Attempt, OidcError> {
        let endpoint = self.metadata.authorization_endpoint.as_deref().ok_or(OidcError::Unsupported("authorization endpoint"))?;
        let has_s256 = self.metadata.code_challenge_methods_supported.as_ref().is_none_or(|all| all.iter().any(|m| m == "S256"));
        if !has_s256 {
            return Err(OidcError::Unsupported("PKCE with S256"));
        }
        web::Url::parse(endpoint, self.issuer.loopback_http)?;
        let (state, verifier) = (random()?, random()?);
        let challenge = URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()));
        let target = if endpoint.contains('?') { Target::going_on(endpoint) } else { Target::new(endpoint) };
        let url = target
            .with("response_type", "code")
            .with("client_id", &self.issuer.client_id)
            .with("redirect_uri", &redirect)
            .with("scope", &self.issuer.scopes.join(" "))
            .with("state", &state)
            .with("nonce", nonce)
            .with("code_challenge", &challenge)
            .with("code_challenge_method", "S256")
            // A login at the provider that is older than a login here may become is done anew.
            .with("max_age", &self.issuer.session_total.to_string())
            .with_some("prompt", self.issuer.prompt.as_deref())
            .build();
        Ok(Attempt { url, state, verifier, nonce: nonce.to_owned(), redirect })
    }

    /// Redeems what came to the redirect.
    ///
    /// # Errors
    /// [`OidcError::Mixed`] when it is not this attempt's or another issuer's; what the provider refuses.
    pub async fn redeem(&self, attempt: &Attempt, landed: &Landed) -> Result<Tokens, OidcError> {
        if *landed.state != *attempt.state {
            return Err(OidcError::Mixed("state"));
        }
        match &landed.iss {
            Some(iss) if *iss != self.metadata.issuer => return Err(OidcError::Mixed("iss")),
            None if self.metadata.authorization_response_iss_parameter_supported => return Err(OidcError::Mixed("no iss")),
            _ => {}
        }
        let code = landed.outcome.as_ref().map_err(|refusal| OidcError::Refused(refusal.clone()))?;
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", &attempt.redirect),
            ("client_id", &self.issuer.client_id),
            ("code_verifier", &attempt.verifier),
        ];
        let tokens = self.tokens(&fields).await?;
        self.check(&tokens.id_token, Some(&attempt.nonce))?;
        Ok(tokens)
    }

    /// Gets a new ID token for a refresh token.
    ///
    /// # Errors
    /// What the provider refuses; then the login is over.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens, OidcError> {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh_token), ("client_id", &self.issuer.client_id)];
        let tokens = self.tokens(&fields).await?;
        self.check(&tokens.id_token, None)?;
        Ok(tokens)
    }

    /// Revokes a refresh token, and with it what came of it. False when the provider has no place for that.
    ///
    /// # Errors
    /// When it was not reached or does not do it.
    pub async fn revoke(&self, refresh_token: &str) -> Result<bool, OidcError> {
        let Some(endpoint) = &self.metadata.revocation_endpoint else { return Ok(false) };
        let fields = [("token", refresh_token), ("token_type_hint", "refresh_token"), ("client_id", &self.issuer.client_id)];
        let answer = self.web.post(endpoint, &fields).await?;
        match answer.status {
            200 => Ok(true),
            _ => Err(refusal(&answer)),
        }
    }

    async fn tokens(&self, fields: &[(&str, &str)]) -> Result<Tokens, OidcError> {
        let answer = self.web.post(&self.metadata.token_endpoint, fields).await?;
        if answer.status != 200 {
            return Err(refusal(&answer));
        }
        Tokens::read(&answer)
    }

    /// Compares what ties an ID token to this login. It came from the token endpoint itself, over TLS (Core §3.1.3.7, 6), and
    /// the server verifies it: a look at its claims is enough here.
    fn check(&self, id_token: &str, nonce: Option<&str>) -> Result<(), OidcError> {
        #[derive(Deserialize)]
        struct Seen {
            iss: Option<String>,
            nonce: Option<String>,
        }
        let claims = id_token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).map(Zeroizing::new);
        let seen: Option<Seen> = claims.and_then(|claims| serde_json::from_slice(&claims).ok());
        let seen = seen.ok_or(OidcError::Answer("its ID token is none"))?;
        if seen.iss.as_deref() != Some(&self.metadata.issuer) {
            return Err(OidcError::Mixed("issuer of the ID token"));
        }
        if nonce.is_some() && seen.nonce.as_deref() != nonce {
            return Err(OidcError::Mixed("nonce of the ID token"));
        }
        Ok(())
    }
}

impl Tokens {
    fn read(answer: &Answer) -> Result<Self, OidcError> {
        let mut found: TokenAnswer = parse(answer)?;
        let id_token = found.id_token.take().ok_or(OidcError::Answer("it has no ID token; the client needs the scope openid"))?;
        Ok(Self { id_token: Zeroizing::new(id_token), refresh_token: found.refresh_token.take().map(Zeroizing::new) })
    }
}

/// What the provider says of its refusal, without control characters and not without end.
fn refusal(answer: &Answer) -> OidcError {
    match serde_json::from_slice::<ErrorAnswer>(answer.body.bytes()) {
        Ok(ErrorAnswer { error, error_description }) => OidcError::Refused(told(&error, error_description.as_deref())),
        Err(_) => OidcError::Refused(format!("status {}", answer.status)),
    }
}

/// An error and its description, as they may be shown.
fn told(error: &str, description: Option<&str>) -> String {
    let text = description.map_or_else(|| error.to_owned(), |description| format!("{error}: {description}"));
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

fn parse<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T, OidcError> {
    serde_json::from_slice(answer.body.bytes()).map_err(|_| OidcError::Answer("it is not the JSON that it should be"))
}

fn roots(issuer: &LoginIssuer) -> Result<Vec<CertificateDer<'static>>, OidcError> {
    let pem = match &issuer.ca {
        Some(pem) => pem.clone().into_bytes(),
        None if issuer.issuer.starts_with("http:") => return Ok(Vec::new()),
        None => std::fs::read(Path::new(SYSTEM_ROOTS)).map_err(|e| OidcError::Roots(format!("reading {SYSTEM_ROOTS}: {e}")))?,
    };
    let found = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect::<Vec<_>>();
    if found.is_empty() { Err(OidcError::Roots("there is no certificate in it".to_owned())) } else { Ok(found) }
}

/// 32 random bytes as text: more than anybody guesses.
fn random() -> Result<Zeroizing<String>, OidcError> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(&mut *bytes).map_err(|_| OidcError::System("the system gives no random bytes".to_owned()))?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes)))
}

/// SHA-256 by the TLS library's provider, the one there is.
fn sha256(bytes: &[u8]) -> Vec<u8> {
    use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let hash = TLS13_AES_128_GCM_SHA256.tls13().map(|suite| suite.common.hash_provider);
    hash.map(|hash| hash.hash(bytes).as_ref().to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(super) fn provider(metadata: serde_json::Value) -> Provider {
        let issuer = LoginIssuer {
            name: "corp".into(),
            issuer: "https://idp.example".into(),
            client_id: "claviger".into(),
            scopes: vec!["openid".into(), "profile".into()],
            prompt: Some("consent".into()),
            device_flow: true,
            session_total: 3600,
            ca: None,
            loopback_http: false,
        };
        let mut all = serde_json::json!({
            "issuer": "https://idp.example",
            "authorization_endpoint": "https://idp.example/auth",
            "token_endpoint": "https://idp.example/token",
        });
        all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        Provider { issuer, metadata: serde_json::from_value(all).unwrap(), web: Web::new(Vec::new(), false).unwrap() }
    }

    #[test]
    fn the_challenge_is_the_one_of_rfc_7636() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes())), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn a_request_has_what_binds_its_answer_and_no_two_are_alike() {
        let provider = provider(serde_json::json!({}));
        let attempt = provider.attempt("http://127.0.0.1:1/callback".into(), "n").unwrap();
        for part in [
            "https://idp.example/auth?response_type=code&client_id=claviger",
            "redirect_uri=http://127.0.0.1:1/callback",
            "scope=openid%20profile",
            "nonce=n",
            "code_challenge_method=S256",
            "max_age=3600",
            "prompt=consent",
        ] {
            assert!(attempt.url.contains(part), "{part}: {}", attempt.url);
        }
        assert!(!attempt.url.contains(&**attempt.verifier));
        let other = provider.attempt("http://127.0.0.1:1/callback".into(), "n").unwrap();
        assert!(attempt.state != other.state && attempt.verifier != other.verifier && attempt.state != attempt.verifier);
    }

    #[test]
    fn a_provider_without_s256_is_not_used() {
        let provider = provider(serde_json::json!({ "code_challenge_methods_supported": ["plain"] }));
        assert!(matches!(provider.attempt("http://127.0.0.1:1/callback".into(), "n"), Err(OidcError::Unsupported(_))));
    }

    #[tokio::test]
    async fn an_answer_of_another_login_or_issuer_is_not_redeemed() {
        let says_iss = serde_json::json!({ "authorization_response_iss_parameter_supported": true });
        let landed = |attempt: &Attempt, iss: Option<&str>| Landed {
            state: attempt.state.clone(),
            iss: iss.map(str::to_owned),
            outcome: Ok(Zeroizing::new("code".to_owned())),
        };
        for (metadata, iss) in
            [(serde_json::json!({}), Some("https://evil.example")), (says_iss.clone(), None), (says_iss, Some("https://idp.example/"))]
        {
            let provider = provider(metadata);
            let attempt = provider.attempt("http://127.0.0.1:1/callback".into(), "n").unwrap();
            // Nothing is sent: there is nobody at that address.
            assert!(matches!(provider.redeem(&attempt, &landed(&attempt, iss)).await, Err(OidcError::Mixed(_))), "{iss:?}");
            let other = provider.attempt("http://127.0.0.1:1/callback".into(), "n").unwrap();
            assert!(matches!(
                provider.redeem(&attempt, &landed(&other, Some("https://idp.example"))).await,
                Err(OidcError::Mixed("state"))
            ));
        }
    }

    #[test]
    fn an_id_token_of_another_login_is_not_passed_on() {
        let provider = provider(serde_json::json!({}));
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let good = token(r#"{"iss":"https://idp.example","nonce":"n"}"#);
        provider.check(&good, Some("n")).unwrap();
        provider.check(&good, None).unwrap();
        for bad in [
            r#"{"iss":"https://idp.example","nonce":"m"}"#,
            r#"{"iss":"https://idp.example"}"#,
            r#"{"nonce":"n"}"#,
            "{",
            r#"{"iss":"https://evil.example","nonce":"n"}"#,
        ] {
            assert!(provider.check(&token(bad), Some("n")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_cannot_steer_the_terminal() {
        let shown = told("access_denied", Some("no\u{1b}[2J way\n"));
        assert_eq!(shown, "access_denied: no[2J way");
        assert!(told(&"x".repeat(1000), None).len() == 300);
    }
}
