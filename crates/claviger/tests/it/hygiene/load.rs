//! Clients that write and read the sentinels over and over, on connections that stay open.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use claviger_testkit::{Client, TestServer};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What all clients share.
pub(crate) struct Work {
    pub(crate) admin: String,
    pub(crate) bearer: String,
    pub(crate) secrets: Vec<Vec<u8>>,
    pub(crate) stop: AtomicBool,
    pub(crate) answered: AtomicUsize,
}

/// One request, in any version of HTTP.
pub(crate) struct Ask {
    method: &'static str,
    target: String,
    authorization: String,
    content_type: Option<&'static str>,
    body: Vec<u8>,
}

impl Work {
    pub(crate) fn new(server: &TestServer, secrets: Vec<Vec<u8>>) -> Arc<Self> {
        let (admin, bearer) = (server.admin(), server.bearer());
        Arc::new(Self { admin, bearer, secrets, stop: AtomicBool::new(false), answered: AtomicUsize::new(0) })
    }

    /// The `step`th request of a client: reads, among them some writes and encryptions of the same secrets, on both surfaces.
    fn ask(&self, step: usize) -> Ask {
        let nth = step * 7 % self.secrets.len();
        let data = || STANDARD.encode(&self.secrets[nth]);
        match step % 8 {
            0 => self.form("POST", format!("/v0/keys/{}/versions/", knox(nth)), &[("data", &data())]),
            1 => self.json("POST", format!("/api/v1/keys/{}/-/versions", native(nth)), format!(r#"{{"data":"{}"}}"#, data())),
            2 => self.json("POST", "/api/v1/read".into(), format!(r#"{{"ids":["{}"]}}"#, native(nth))),
            3 | 5 => self.json("GET", format!("/api/v1/keys/{}/-/data?state=primary", native(nth)), String::new()),
            7 => self.json("POST", "/api/v1/keys/used/-/encrypt".into(), format!(r#"{{"items":[{{"plaintext":"{}"}}]}}"#, data())),
            _ => self.form("GET", format!("/v0/keys/{}/?status=%22Primary%22", knox(nth)), &[]),
        }
    }

    pub(crate) fn create_knox(&self, nth: usize) -> Ask {
        let data = STANDARD.encode(&self.secrets[nth]);
        let acl = r#"[{"type":"Machine","id":"dev-machine","access":"Read"}]"#;
        self.form("POST", "/v0/keys/".into(), &[("id", &knox(nth)), ("data", &data), ("acl", acl)])
    }

    pub(crate) fn create_native(&self, nth: usize) -> Ask {
        let data = STANDARD.encode(&self.secrets[nth]);
        self.json("POST", "/api/v1/keys".into(), format!(r#"{{"id":"{}","data":"{data}"}}"#, native(nth)))
    }

    /// The key that encrypts secrets.
    pub(crate) fn create_used(&self) -> Ask {
        self.json("POST", "/api/v1/keys".into(), r#"{"id":"used","kind":"aes256-gcm"}"#.into())
    }

    pub(crate) fn delete(&self, nth: usize) -> Ask {
        self.form("DELETE", format!("/v0/keys/{}/", knox(nth)), &[])
    }

    pub(crate) fn form(&self, method: &'static str, target: String, form: &[(&str, &str)]) -> Ask {
        let encode = |text: &str| {
            text.bytes()
                .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
                .collect::<String>()
        };
        let body = form.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect::<Vec<_>>().join("&");
        let content_type = (!form.is_empty()).then_some("application/x-www-form-urlencoded");
        Ask { method, target, authorization: self.admin.clone(), content_type, body: body.into_bytes() }
    }

    pub(crate) fn json(&self, method: &'static str, target: String, body: String) -> Ask {
        let content_type = (!body.is_empty()).then_some("application/json");
        Ask { method, target, authorization: self.bearer.clone(), content_type, body: body.into_bytes() }
    }
}

fn knox(nth: usize) -> String {
    format!("knox:{nth}")
}

fn native(nth: usize) -> String {
    format!("native/{nth}")
}

impl Ask {
    pub(crate) fn with_authorization(self, authorization: &str) -> Self {
        Self { authorization: authorization.to_owned(), ..self }
    }

    /// Sends it over HTTP/1.1 and gives back status and body.
    pub(crate) fn send(&self, client: &mut Client) -> (u16, Vec<u8>) {
        let mut headers = vec![("Authorization", self.authorization.as_str())];
        headers.extend(self.content_type.map(|c| ("Content-Type", c)));
        let answer = client.request(self.method, &self.target, &headers, &self.body).unwrap();
        (answer.status, answer.body)
    }

    fn into_http2(self) -> http::Request<Full<Bytes>> {
        let request = http::Request::builder()
            .method(self.method)
            .uri(format!("https://localhost{}", self.target))
            .header("authorization", self.authorization);
        let request = self.content_type.into_iter().fold(request, |r, c| r.header("content-type", c));
        request.body(Full::from(self.body)).unwrap()
    }
}

/// Works on one connection until told to stop; gives the connection back, open.
pub(crate) fn http1(mut client: Client, work: Arc<Work>, from: usize) -> std::thread::JoinHandle<Client> {
    std::thread::spawn(move || {
        for step in from.. {
            if work.stop.load(Ordering::Relaxed) {
                break;
            }
            let (status, body) = work.ask(step).send(&mut client);
            assert!(matches!(status, 200 | 201), "{status} {}", String::from_utf8_lossy(&body));
            work.answered.fetch_add(1, Ordering::Relaxed);
        }
        client
    })
}

pub(crate) type Http2 = SendRequest<Full<Bytes>>;

pub(crate) async fn connect_http2(server: &TestServer) -> Http2 {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(server.env("CLAVIGER_CA")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let stream =
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    sender
}

/// Works on one stream of a connection until told to stop.
pub(crate) async fn http2(mut sender: Http2, work: Arc<Work>, from: usize) {
    for step in from.. {
        if work.stop.load(Ordering::Relaxed) {
            break;
        }
        let answer = sender.send_request(work.ask(step).into_http2()).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(matches!(status, 200 | 201), "{status} {}", String::from_utf8_lossy(&body));
        work.answered.fetch_add(1, Ordering::Relaxed);
    }
}
