//! Requests to the outside: one, over a connection of its own, to a URL that the configuration or a provider names.
//!
//! HTTPS, or plain HTTP to this machine where that is allowed. No redirects: what an answer names is not where a request
//! goes. No proxies, cookies or retries.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What this client may reach, and for how long it waits.
#[derive(Clone)]
pub(crate) struct Outbound {
    tls: Option<TlsConnector>,
    timeout: Duration,
    loopback_http: bool,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    uri: Uri,
    host: String,
    port: u16,
    is_https: bool,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// Status and reason, such as `404 Not Found`.
    pub(crate) status: http::StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer. Nothing of what was sent is in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum OutboundError {
    /// Not a URL that is asked.
    #[error("{0}")]
    Url(&'static str),
    /// The roots are of no use.
    #[error("{0}")]
    Roots(String),
    /// No connection.
    #[error("no connection to {0}: {1}")]
    Connect(String, String),
    /// It broke.
    #[error("{0} did not answer in HTTP: {1}")]
    Broken(String, String),
    /// It took too long.
    #[error("{0} did not answer within {1} ms")]
    Timeout(String, u128),
    /// The answer is longer than was asked for.
    #[error("{0} answered with more than {1} bytes")]
    TooLong(String, usize),
}

impl Url {
    /// A URL of a host, a path and nothing else; plain HTTP only to this machine and where `loopback_http` says so.
    pub(crate) fn parse(text: &str, loopback_http: bool) -> Result<Self, OutboundError> {
        let bad = |rule| Err(OutboundError::Url(rule));
        let Ok(uri) = text.parse::<Uri>() else { return bad("must be a URL, such as https://login.example.com") };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return bad("must be a URL that starts with https://");
        };
        if authority.as_str().contains('@') || uri.query().is_some() || text.contains('#') {
            return bad("must be a URL without user, query and fragment");
        }
        let is_https = match scheme {
            "https" => true,
            "http" => false,
            _ => return bad("must start with https://"),
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return bad("must name a host");
        }
        let is_here = matches!(host.as_str(), "127.0.0.1" | "::1" | "localhost");
        let is_allowed = is_https || (loopback_http && is_here);
        if !is_allowed {
            return bad("must start with https://; plain http is for 127.0.0.1, [::1] and localhost, where loopback_http = true allows it");
        }
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Ok(Self { host, port, is_https, uri })
    }

    /// Host and port, for messages.
    fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl Outbound {
    /// A client that trusts the certificates of this PEM text and no others; without one it speaks plain HTTP only.
    pub(crate) fn new(roots: Option<&[u8]>, timeout: Duration, loopback_http: bool) -> Result<Self, OutboundError> {
        let tls = roots.map(connector).transpose()?;
        Ok(Self { tls, timeout, loopback_http })
    }

    /// Fetches `url`.
    ///
    /// # Errors
    /// [`OutboundError`]; an answer of any status is one.
    pub(crate) async fn get(
        &self,
        url: &str,
        headers: &[(header::HeaderName, HeaderValue)],
        most: usize,
    ) -> Result<Fetched, OutboundError> {
        let url = Url::parse(url, self.loopback_http).or_else(|e| self.with_query(url).ok_or(e))?;
        self.send(Method::GET, &url, headers, Bytes::new(), most).await
    }

    /// The URL with its query, where what comes before it is allowed.
    fn with_query(&self, text: &str) -> Option<Url> {
        let (bare, query) = text.split_once('?')?;
        let url = Url::parse(bare, self.loopback_http).ok()?;
        let uri = format!("{bare}?{query}").parse().ok().filter(|_| !query.contains('#'))?;
        Some(Url { uri, ..url })
    }

    /// Sends one request.
    ///
    /// # Errors
    /// As [`Outbound::get`].
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: &[(header::HeaderName, HeaderValue)],
        body: Bytes,
        most: usize,
    ) -> Result<Fetched, OutboundError> {
        let work = async {
            let request = request(method, url, headers, body)?;
            match self.connect(url).await? {
                Stream::Tls(stream) => exchange(url, request, stream, most).await,
                Stream::Plain(stream) => exchange(url, request, stream, most).await,
            }
        };
        let late = |_| OutboundError::Timeout(url.place(), self.timeout.as_millis());
        tokio::time::timeout(self.timeout, work).await.map_err(late)?
    }

    async fn connect(&self, url: &Url) -> Result<Stream, OutboundError> {
        let refused = |why: String| OutboundError::Connect(url.place(), why);
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(|e| refused(e.to_string()))?;
        stream.set_nodelay(true).map_err(|e| refused(e.to_string()))?;
        if !url.is_https {
            // `localhost` is what a resolver says it is.
            let is_here = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
            return if is_here { Ok(Stream::Plain(stream)) } else { Err(refused("plain HTTP, and not this machine".to_owned())) };
        }
        let tls = self.tls.as_ref().ok_or_else(|| refused("no roots to trust".to_owned()))?;
        let name = ServerName::try_from(url.host.clone()).map_err(|e| refused(e.to_string()))?;
        let stream = tls.connect(name, stream).await.map_err(|e| refused(e.to_string()))?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

enum Stream {
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    Plain(TcpStream),
}

fn connector(pem: &[u8]) -> Result<TlsConnector, OutboundError> {
    let bad = |why: String| OutboundError::Roots(why);
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|e| bad(format!("not PEM: {e}")))?;
    // A system's bundle may hold what rustls does not take; one good root is enough to go on.
    let (taken, _) = roots.add_parsable_certificates(certificates);
    if taken == 0 {
        return Err(bad("there is no certificate of an authority in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|e| bad(e.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn request(
    method: Method,
    url: &Url,
    headers: &[(header::HeaderName, HeaderValue)],
    body: Bytes,
) -> Result<Request<Full<Bytes>>, OutboundError> {
    let target = url.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let host = url.uri.authority().map_or("", http::uri::Authority::as_str);
    let mut request = Request::builder().method(method).uri(target).header(header::HOST, host);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request = request.header(header::USER_AGENT, concat!("claviger/", env!("CARGO_PKG_VERSION"))).header(header::CONNECTION, "close");
    request.body(Full::new(body)).map_err(|e| OutboundError::Broken(url.place(), e.to_string()))
}

async fn exchange<S>(url: &Url, request: Request<Full<Bytes>>, stream: S, most: usize) -> Result<Fetched, OutboundError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |e: hyper::Error| OutboundError::Broken(url.place(), e.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let receive = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let (parts, mut incoming) = response.into_parts();
        let mut body = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            if body.len() + data.len() > most {
                return Err(OutboundError::TooLong(url.place(), most));
            }
            body.extend_from_slice(&data);
        }
        Ok(Fetched { status: parts.status, headers: parts.headers, body: body.freeze() })
    };
    // The connection's other half runs beside it, and ends with it.
    tokio::pin!(connection, receive);
    let mut is_over = false;
    loop {
        tokio::select! {
            fetched = &mut receive => return fetched,
            _ = &mut connection, if !is_over => is_over = true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_https_is_asked_and_plain_http_on_this_machine_by_leave() {
        for (url, loopback_http, expected) in [
            ("https://idp.example", false, true),
            ("https://idp.example:8443/realms/x", false, true),
            ("https://[2001:db8::1]/", false, true),
            ("http://127.0.0.1:8080/x", true, true),
            ("http://[::1]:8080", true, true),
            ("http://localhost:1", true, true),
            ("http://127.0.0.1:8080/x", false, false),
            ("http://idp.example", true, false),
            ("http://127.0.0.1.evil.example", true, false),
            ("http://127.0.0.1@evil.example/", true, false),
            ("https://u:p@idp.example", false, false),
            ("https://idp.example/?x=1", false, false),
            ("https://idp.example/#x", false, false),
            ("ftp://idp.example", true, false),
            ("file:///etc/passwd", true, false),
            ("//idp.example", true, false),
            ("idp.example", true, false),
            ("https://", true, false),
            ("", true, false),
        ] {
            assert_eq!(Url::parse(url, loopback_http).is_ok(), expected, "{url} {loopback_http}");
        }
    }
}
