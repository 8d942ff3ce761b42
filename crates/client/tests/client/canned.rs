//! A server that gives canned answers over real TLS, for tests of whatever speaks the native API.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// One request as the server saw it.
#[derive(Debug, Clone)]
pub struct Received {
    /// Method and target, such as `GET /api/v1/status`.
    pub line: String,
    /// The whole head.
    pub head: String,
    /// The body.
    pub body: String,
    /// Which connection it came on, counted from zero.
    pub connection: usize,
    /// Whether the client showed a certificate of this server's CA.
    pub certified: bool,
}

/// What the server does about a request.
pub enum Reply {
    /// A status and JSON, with a length.
    Json(u16, String),
    /// These bytes, each piece written by itself; then the connection stays open.
    Raw(Vec<String>),
    /// The same, and the connection is closed.
    RawThenClose(Vec<String>),
}

/// A running server; it ends with the value.
pub struct Canned {
    /// Its URL.
    pub url: String,
    /// A folder with `ca.pem`, `client.pem`, `client.key`.
    pub dir: tempfile::TempDir,
    requests: Arc<Mutex<Vec<Received>>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Canned {
    /// Starts a server that answers by `handler`, which is also told how many requests came before.
    pub fn start(handler: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(identities(&dir)));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).unwrap()
        };
        let requests = Arc::new(Mutex::new(Vec::new()));
        runtime.spawn(accept(listener, acceptor, Arc::new(handler), requests.clone()));
        Self { url, dir, requests, runtime: Some(runtime) }
    }

    /// A file of the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Received> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Canned {
    fn drop(&mut self) {
        // Tests are asynchronous themselves, where waiting for the end is not allowed.
        self.runtime.take().unwrap().shutdown_background();
    }
}

fn identities(dir: &tempfile::TempDir) -> ServerConfig {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let leaf = |names: &[&str]| {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
        (CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap(), key)
    };
    let (server, server_key) = leaf(&["127.0.0.1", "localhost"]);
    let (client, client_key) = leaf(&["web1.example.org"]);
    std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    std::fs::write(dir.path().join("client.pem"), client.pem()).unwrap();
    std::fs::write(dir.path().join("client.key"), client_key.serialize_pem()).unwrap();

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).allow_unauthenticated().build().unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![server.der().clone()];
    let key = PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap()
}

type Handler = dyn Fn(&Received, usize) -> Reply + Send + Sync;

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, handler: Arc<Handler>, requests: Arc<Mutex<Vec<Received>>>) {
    for connection in 0.. {
        let Ok((tcp, _)) = listener.accept().await else { return };
        let (acceptor, handler, requests) = (acceptor.clone(), handler.clone(), requests.clone());
        tokio::spawn(async move {
            // What a client does to us is its test's business.
            serve(tcp, acceptor, handler, requests, connection).await.ok();
        });
    }
}

async fn serve(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    handler: Arc<Handler>,
    requests: Arc<Mutex<Vec<Received>>>,
    connection: usize,
) -> std::io::Result<()> {
    let mut stream = acceptor.accept(tcp).await?;
    let certified = stream.get_ref().1.peer_certificates().is_some();
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).map_or(0, |n| n.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        let received = Received { line, head, body: String::from_utf8(body).unwrap(), connection, certified };
        let before = {
            let mut all = requests.lock().unwrap();
            all.push(received.clone());
            all.len() - 1
        };
        let (pieces, close) = match handler(&received, before) {
            Reply::Json(status, json) => {
                let kind = if status < 400 { "application/json" } else { "application/problem+json" };
                let head = format!("HTTP/1.1 {status} Canned\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", json.len());
                (vec![format!("{head}Claviger-Revision: 1.9\r\n\r\n{json}")], false)
            }
            Reply::Raw(pieces) => (pieces, false),
            Reply::RawThenClose(pieces) => (pieces, true),
        };
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await?;
            stream.flush().await?;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if close {
            return stream.shutdown().await;
        }
    }
}

/// A problem as the server writes it.
pub fn problem(status: u16, code: &str, detail: &str) -> Reply {
    let json = format!(r#"{{"code":"{code}","title":"t","status":{status},"detail":"{detail}","request_id":"r1"}}"#);
    Reply::Json(status, json)
}
