//! A raw HTTP/1.1 client over TLS: what a test writes is what the server gets, byte for byte.

use anyhow::{Context, Result, bail};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A client certificate chain and its key.
pub struct Credential {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credential {
    /// Reads PEM files.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn from_files(chain: &Path, key: &Path) -> Result<Self> {
        Self::from_pem(&std::fs::read(chain)?, &std::fs::read(key)?)
    }

    /// Reads PEM texts.
    ///
    /// # Errors
    /// When they are no PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { chain, key: PrivateKeyDer::from_pem_slice(key)? })
    }
}

/// One open connection.
pub struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    unread: Vec<u8>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header fields as sent.
    pub headers: Vec<(String, String)>,
    /// Body, chunked coding removed.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body as text, with bad bytes replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Client {
    /// Connects and shakes hands, offering HTTP/1.1.
    ///
    /// # Errors
    /// When the handshake fails; the server's certificate is verified against `ca`.
    pub fn connect(address: SocketAddr, ca: &Path, credential: Option<Credential>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca)? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?.with_root_certificates(roots);
        let mut config = match credential {
            Some(Credential { chain, key }) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)?;
        Ok(self.stream.flush()?)
    }

    /// Sends a request and reads its answer. `target` goes out as it is.
    ///
    /// # Errors
    /// When the connection breaks or the answer is no HTTP.
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes)?;
        self.answer(method == "HEAD")
    }

    /// Sends a Knox request: `Authorization` and a form, percent-encoded here.
    ///
    /// # Errors
    /// As for [`Client::request`].
    pub fn knox(&mut self, method: &str, target: &str, authorization: &str, form: &[(&str, &str)]) -> Result<Answer> {
        let encode = |text: &str| {
            text.bytes()
                .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
                .collect::<String>()
        };
        let body = form.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect::<Vec<_>>().join("&");
        let mut headers = Vec::new();
        if !authorization.is_empty() {
            headers.push(("Authorization", authorization));
        }
        if !form.is_empty() {
            headers.push(("Content-Type", "application/x-www-form-urlencoded"));
        }
        self.request(method, target, &headers, body.as_bytes())
    }

    /// Reads one answer.
    ///
    /// # Errors
    /// When the connection breaks or the answer is no HTTP.
    pub fn answer(&mut self, to_head: bool) -> Result<Answer> {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            self.more()?;
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok()).context("no status line")?;
        let headers: Vec<_> = lines.filter_map(|l| l.split_once(": ")).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if to_head {
            return Ok(answer);
        }
        answer.body = match (answer.header("content-length"), answer.header("transfer-encoding")) {
            (Some(length), _) => self.take(length.parse()?)?,
            (None, Some(_)) => self.chunks()?,
            (None, None) => Vec::new(),
        };
        Ok(answer)
    }

    /// Reads what has come, at least one byte: for streams.
    ///
    /// # Errors
    /// When the connection ends or nothing comes in time.
    pub fn more(&mut self) -> Result<()> {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer)? {
            0 => bail!("the server closed the connection; unread: {:?}", String::from_utf8_lossy(&self.unread)),
            n => self.unread.extend_from_slice(&buffer[..n]),
        }
        Ok(())
    }

    /// What has been read and not yet taken as an answer.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Whether the server closes the connection now, without sending more.
    pub fn is_closed(&mut self) -> bool {
        let mut one = [0; 1];
        matches!(self.stream.read(&mut one), Ok(0)) || self.stream.sock.take_error().is_ok_and(|e| e.is_some())
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.unread.len() < length {
            self.more()?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(at) = self.unread.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.more()?;
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line()?, 16)?;
            body.extend(self.take(size)?);
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}
