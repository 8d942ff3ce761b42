//! The device flow (RFC 8628): the person types a code in a browser somewhere else, and the program asks until it is done.

use super::{ErrorAnswer, OidcError, Provider, Tokens, parse, refusal, told};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// RFC 8628 §3.2: between two questions, unless the provider says otherwise.
const INTERVAL: u64 = 5;
/// RFC 8628 §3.5: what `slow_down` adds, for good.
const SLOWER: Duration = Duration::from_secs(5);
/// No provider is asked more often, or waited for longer between two questions.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);

/// A login that has begun.
pub struct Device {
    /// What the person is told.
    pub code: DeviceCode,
    device_code: Zeroizing<String>,
    interval: Duration,
    until: Instant,
    nonce: String,
}

/// What a person needs for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCode {
    /// What to type.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// Where, with the code filled in already.
    pub verification_uri_complete: Option<String>,
    /// For how long.
    pub expires_in: Duration,
}

#[derive(Deserialize)]
struct Begun {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

/// What an answer to a question means.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Ask again after the same time.
    Wait,
    /// Ask again, and more rarely from now on.
    Slower,
    /// It is over.
    Failed(String),
}

impl Provider {
    /// Begins a login.
    ///
    /// # Errors
    /// [`OidcError::Unsupported`], and what the provider refuses.
    pub async fn begin_device(&self, nonce: &str) -> Result<Device, OidcError> {
        let endpoint = self.metadata.device_authorization_endpoint.as_deref().ok_or(OidcError::Unsupported("device flow"))?;
        let scope = self.issuer.scopes.join(" ");
        // The nonce is no parameter of RFC 8628; providers that know it put it into the ID token, the others ignore it.
        let answer = self.web.post(endpoint, &[("client_id", &self.issuer.client_id), ("scope", &scope), ("nonce", nonce)]).await?;
        if answer.status != 200 {
            return Err(refusal(&answer));
        }
        let begun: Begun = parse(&answer)?;
        let expires_in = Duration::from_secs(begun.expires_in.min(3600));
        Ok(Device {
            device_code: Zeroizing::new(begun.device_code),
            interval: Duration::from_secs(begun.interval.unwrap_or(INTERVAL)).clamp(LEAST, MOST),
            until: Instant::now() + expires_in,
            nonce: nonce.to_owned(),
            code: DeviceCode {
                user_code: begun.user_code,
                verification_uri: begun.verification_uri,
                verification_uri_complete: begun.verification_uri_complete,
                expires_in,
            },
        })
    }

    /// Asks until the person is done.
    ///
    /// # Errors
    /// [`OidcError::TimedOut`] when the code has expired; what the provider refuses.
    pub async fn finish_device(&self, mut device: Device) -> Result<Tokens, OidcError> {
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", &device.device_code.clone()),
            ("client_id", &self.issuer.client_id),
        ];
        loop {
            tokio::time::sleep(device.interval).await;
            if Instant::now() >= device.until {
                return Err(OidcError::TimedOut);
            }
            let answer = match self.web.post(&self.metadata.token_endpoint, &fields).await {
                Ok(answer) if answer.status == 200 => {
                    let tokens = Tokens::read(&answer)?;
                    // With most providers a token of this flow has no nonce; a foreign one is another login's.
                    let has_nonce = self.check(&tokens.id_token, Some(&device.nonce));
                    return match has_nonce {
                        Err(OidcError::Mixed(_)) if lacks_nonce(&tokens.id_token) => self.check(&tokens.id_token, None).map(|()| tokens),
                        checked => checked.map(|()| tokens),
                    };
                }
                Ok(answer) => answer,
                // RFC 8628 §3.5: a connection that breaks is no end; ask more rarely.
                Err(OidcError::Web(error)) if error.is_transient() => {
                    device.interval = (device.interval * 2).min(MOST);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match serde_json::from_slice::<ErrorAnswer>(answer.body.bytes()).map(|e| next(&e)) {
                Ok(Next::Wait) => {}
                Ok(Next::Slower) => device.interval = (device.interval + SLOWER).min(MOST),
                Ok(Next::Failed(why)) => return Err(OidcError::Refused(why)),
                Err(_) => return Err(refusal(&answer)),
            }
        }
    }
}

fn next(answer: &ErrorAnswer) -> Next {
    match answer.error.as_str() {
        "authorization_pending" => Next::Wait,
        "slow_down" => Next::Slower,
        other => Next::Failed(told(other, answer.error_description.as_deref())),
    }
}

fn lacks_nonce(id_token: &str) -> bool {
    use base64::Engine as _;
    let claims = id_token.split('.').nth(1).and_then(|p| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(p).ok());
    let claims: Option<serde_json::Map<String, serde_json::Value>> = claims.and_then(|c| serde_json::from_slice(&c).ok());
    claims.is_some_and(|claims| !claims.contains_key("nonce"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pending_and_slow_down_are_no_end() {
        let of = |error: &str| next(&ErrorAnswer { error: error.to_owned(), error_description: None });
        assert_eq!(of("authorization_pending"), Next::Wait);
        assert_eq!(of("slow_down"), Next::Slower);
        for end in ["expired_token", "access_denied", "invalid_grant", "", "authorization_pending "] {
            assert_eq!(of(end), Next::Failed(end.to_owned()));
        }
    }
}
