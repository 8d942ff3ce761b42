//! One request to a provider over a connection of its own: HTTPS, or plain HTTP to this machine where the server says that
//! its provider is there. No redirects, no cookies. What is sent and what comes back is wiped.

use super::OidcError;
use crate::buffer::Buffer;
use crate::config::Address;
use crate::http::{Body, Connection, Head};
use crate::request::push_encoded;
use crate::tls;
use rustls_pki_types::CertificateDer;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 1 << 20;

/// What a provider may be reached by.
pub(super) struct Web {
    tls: TlsConnector,
    loopback_http: bool,
}

/// Where a request goes: a host, a path, perhaps a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    address: Address,
    is_https: bool,
    path: String,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Buffer,
}

impl Url {
    pub(super) fn parse(text: &str, loopback_http: bool) -> Result<Self, OidcError> {
        let bad = || OidcError::Url(text.chars().filter(|c| !c.is_control()).take(200).collect());
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let is_plain = |c: char| c.is_ascii_graphic() && c != '#' && c != '"' && c != '<' && c != '>';
        if !text.chars().all(is_plain) {
            return Err(bad());
        }
        let is_https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(bad()),
        };
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let whole = if is_https || has_port { authority.to_owned() } else { format!("{authority}:80") };
        let address: Address = format!("https://{whole}").parse().map_err(|_| bad())?;
        let is_here = address.host == "localhost" || address.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let is_allowed = is_https || (loopback_http && is_here);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if is_allowed { Ok(Self { address, is_https, path }) } else { Err(bad()) }
    }
}

impl Web {
    /// A client that trusts these roots and no others.
    pub(super) fn new(roots: Vec<CertificateDer<'static>>, loopback_http: bool) -> Result<Self, OidcError> {
        let tls = tls::with_roots(roots).map_err(|e| OidcError::Roots(e.to_string()))?;
        Ok(Self { tls: TlsConnector::from(Arc::new(tls)), loopback_http })
    }

    pub(super) async fn get(&self, url: &str) -> Result<Answer, OidcError> {
        self.send("GET", url, None).await
    }

    /// Posts a form.
    pub(super) async fn post(&self, url: &str, fields: &[(&str, &str)]) -> Result<Answer, OidcError> {
        let mut form = Zeroizing::new(String::with_capacity(4096));
        for (name, value) in fields {
            if !form.is_empty() {
                form.push('&');
            }
            form.push_str(name);
            form.push('=');
            push_encoded(value, &mut form);
        }
        self.send("POST", url, Some(&form)).await
    }

    async fn send(&self, method: &str, url: &str, form: Option<&str>) -> Result<Answer, OidcError> {
        let url = Url::parse(url, self.loopback_http)?;
        let wire = encode(method, &url, form);
        let place = url.address.to_string();
        let exchange = async {
            match url.is_https {
                true => exchange(Connection::open(&url.address, &self.tls).await?, &wire).await,
                false => exchange(Connection::over(plain(&url.address).await?, place.clone()), &wire).await,
            }
        };
        match tokio::time::timeout(LIMIT, exchange).await {
            Ok(answered) => answered,
            Err(_) => Err(OidcError::Web(crate::Error::Timeout { address: place, limit: LIMIT })),
        }
    }
}

async fn plain(address: &Address) -> Result<TcpStream, OidcError> {
    let refused = |reason: String| OidcError::Web(crate::Error::Connect { address: address.to_string(), reason });
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|e| refused(e.to_string()))?;
    // `localhost` is what a resolver says it is.
    let is_here = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
    if is_here { Ok(stream) } else { Err(refused("plain HTTP, and not this machine".to_owned())) }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(mut connection: Connection<S>, wire: &Buffer) -> Result<Answer, OidcError> {
    connection.send(wire).await?;
    let (head, mut body): (Head, Body) = connection.head().await?;
    let mut whole = Buffer::with_capacity(16 * 1024);
    while connection.more(&mut body, &mut whole).await? {
        if whole.len() > MAX_ANSWER {
            return Err(OidcError::Answer("it is longer than 1 MiB"));
        }
    }
    Ok(Answer { status: head.status, body: whole })
}

fn encode(method: &str, url: &Url, form: Option<&str>) -> Buffer {
    let body = form.unwrap_or_default();
    let mut wire = Buffer::with_capacity(512 + url.path.len() + body.len());
    let mut put = |parts: &[&str]| parts.iter().for_each(|part| wire.push(part.as_bytes()));
    let host = url.address.to_string();
    put(&[method, " ", &url.path, " HTTP/1.1\r\nHost: ", &host, "\r\nAccept: application/json\r\nConnection: close\r\n"]);
    if form.is_some() {
        let length = body.len().to_string();
        put(&["Content-Type: application/x-www-form-urlencoded\r\nContent-Length: ", &length, "\r\n"]);
    }
    put(&["\r\n", body]);
    wire
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_https_is_asked_and_plain_http_on_this_machine_by_leave() {
        for (url, loopback_http, expected) in [
            ("https://idp.example", false, Some("idp.example:443/")),
            ("https://idp.example:8443/realms/x?a=b", false, Some("idp.example:8443/realms/x?a=b")),
            ("https://idp.example?a=b", false, Some("idp.example:443/?a=b")),
            ("http://127.0.0.1:8080/x", true, Some("127.0.0.1:8080/x")),
            ("http://localhost/x", true, Some("localhost:80/x")),
            ("http://[::1]:8080/x", true, Some("[::1]:8080/x")),
            ("http://127.0.0.1:8080/x", false, None),
            ("http://idp.example/", true, None),
            ("http://127.0.0.1.evil.example/", true, None),
            ("https://u@idp.example/", false, None),
            ("https://idp.example/#x", false, None),
            ("https://idp.example/a b", false, None),
            ("https://idp.example/a\r\nX: y", false, None),
            ("javascript://x", true, None),
            ("idp.example", true, None),
        ] {
            let found = Url::parse(url, loopback_http).ok().map(|u| format!("{}{}", u.address, u.path));
            assert_eq!(found.as_deref(), expected, "{url:?} {loopback_http}");
        }
    }
}
