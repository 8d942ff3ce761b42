//! The password grant of OAuth 2 (RFC 6749 §4.3), for sites whose `knox login` uses it.

use super::form::Form;
use crate::buffer::Buffer;
use crate::config::{Address, Config, ConfigError};
use crate::http::Connection;
use crate::{Error, tls};
use std::str::FromStr;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// Where a site gives tokens for passwords: an `https` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginAddress {
    /// The host, which must prove itself as every server.
    pub address: Address,
    target: String,
}

impl FromStr for LoginAddress {
    type Err = ConfigError;

    fn from_str(url: &str) -> Result<Self, ConfigError> {
        let bad = || ConfigError::Address(url.chars().take(200).collect());
        let rest = url.strip_prefix("https://").ok_or_else(bad)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let target = if path.is_empty() { "/" } else { path };
        let address = format!("https://{authority}").parse().map_err(|_| bad())?;
        if is_plain { Ok(Self { address, target: target.to_owned() }) } else { Err(bad()) }
    }
}

/// Asks for a token; the answer's HTTP status and body, whatever it is. `config` is for `login`'s address.
///
/// # Errors
/// [`Error`]: no answer came.
pub async fn password_grant(
    config: Config,
    login: &LoginAddress,
    client_id: &str,
    user: &str,
    password: &[u8],
) -> Result<(u16, Zeroizing<Vec<u8>>), Error> {
    let tls = TlsConnector::from(Arc::new(tls::client_config(&config)?));
    let pairs = [("client_id", client_id.as_bytes()), ("grant_type", b"password"), ("password", password), ("username", user.as_bytes())];
    let form = pairs.iter().fold(Form::default(), |form, (name, value)| form.with(name, value));
    let mut wire = Buffer::with_capacity(512 + form.bytes().len());
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        login.target,
        login.address,
        form.bytes().len()
    );
    wire.push(head.as_bytes());
    wire.push(form.bytes());
    let answered = async {
        let mut connection = Connection::open(&login.address, &tls).await?;
        connection.send(&wire).await?;
        let (head, mut body) = connection.head().await?;
        let whole = connection.whole(&mut body).await?;
        Ok((head.status, Zeroizing::new(whole.bytes().to_vec())))
    };
    let limit = config.timeout;
    let timeout = || Error::Timeout { address: login.address.to_string(), limit };
    tokio::time::timeout(limit, answered).await.map_err(|_| timeout())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_login_address_is_an_https_url_with_a_path() {
        let login: LoginAddress = "https://auth.example.org/oauth/token?x=1".parse().unwrap();
        assert_eq!((login.address.to_string().as_str(), login.target.as_str()), ("auth.example.org:443", "/oauth/token?x=1"));
        assert_eq!("https://[::1]:99".parse::<LoginAddress>().unwrap().target, "/");
        for bad in ["", "http://h/token", "https:///token", "https://u@h/", "https://h/a b", "https://h/a\r\nX: y", "https://h/#f"] {
            assert!(bad.parse::<LoginAddress>().is_err(), "{bad:?}");
        }
    }
}
