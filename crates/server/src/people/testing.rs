//! An issuer on this machine, for tests: metadata, keys that can be changed, tokens signed as they are asked for, and a
//! GitHub-compatible service.
#![allow(clippy::unwrap_used)]

use super::github::Github;
use crate::config::GithubConfig;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_authn::{Names, Prefixes};
use claviger_domain::Clock;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A running one; it ends with the test's runtime.
pub(crate) struct Provider {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    url: String,
    keys: Mutex<Vec<(&'static str, Ed25519KeyPair)>>,
    /// Public keys besides, which a test signs with by itself.
    others: Mutex<Vec<Value>>,
    /// What the metadata name as issuer, where that is not the truth.
    claims_to_be: Mutex<Option<String>>,
    down: AtomicBool,
    asked: AtomicUsize,
    /// Answers of the GitHub-compatible half, by target and token.
    github: Mutex<Vec<(String, String, u16, String)>>,
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            url: url.clone(),
            keys: Mutex::new(vec![("one", Ed25519KeyPair::generate().unwrap())]),
            others: Mutex::default(),
            claims_to_be: Mutex::default(),
            down: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
            github: Mutex::default(),
        });
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        Self { url, shared }
    }

    /// Signs with the newest key.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let keys = self.shared.keys.lock();
        let (kid, key) = keys.last().unwrap();
        let signed = format!("{}.{}", encode(json!({ "alg": "EdDSA", "kid": kid }).to_string()), encode(claims.to_string()));
        format!("{signed}.{}", encode(key.sign(signed.as_bytes())))
    }

    /// Publishes a key of the test's own.
    pub(crate) fn publish(&self, jwk: Value) {
        self.shared.others.lock().push(jwk);
    }

    /// Adds a key, and takes the earlier ones away or not.
    pub(crate) fn rotate(&self, kid: &'static str, keep_old: bool) {
        let mut keys = self.shared.keys.lock();
        if !keep_old {
            keys.clear();
        }
        keys.push((kid, Ed25519KeyPair::generate().unwrap()));
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }

    pub(crate) fn claim_to_be(&self, issuer: &str) {
        *self.shared.claims_to_be.lock() = Some(issuer.to_owned());
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// What asks this service about users' tokens; their names begin with `prefix`.
    pub(crate) fn github(&self, prefix: &str, cache: u64, clock: Arc<dyn Clock>) -> Github {
        let config = GithubConfig {
            base_url: self.url.clone(),
            ca: "/nowhere".into(),
            loopback_http: true,
            timeout: Duration::from_secs(5),
            cache: Duration::from_secs(cache),
        };
        let names = Names::new(vec![Prefixes { source: "github".into(), users: prefix.into(), groups: prefix.into() }]).unwrap();
        Github::new(&config, names, clock).unwrap()
    }

    /// What a GitHub-compatible service answers to this token.
    pub(crate) fn answer_github(&self, target: &str, token: &str, status: u16, body: &str) {
        let mut answers = self.shared.github.lock();
        answers.retain(|(t, k, ..)| (t.as_str(), k.as_str()) != (target, token));
        answers.push((target.to_owned(), token.to_owned(), status, body.to_owned()));
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    shared.asked.fetch_add(1, Ordering::SeqCst);
    if shared.down.load(Ordering::SeqCst) {
        return;
    }
    let head = String::from_utf8(head).unwrap();
    let (status, link, body) = shared.answer(&head);
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{link}Content-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
}

impl Shared {
    fn answer(&self, head: &str) -> (u16, String, String) {
        let target = head.split(' ').nth(1).unwrap();
        let token = head.lines().find_map(|l| l.to_ascii_lowercase().starts_with("authorization: bearer ").then(|| l[22..].to_owned()));
        let url = &self.url;
        match target {
            "/.well-known/openid-configuration" => {
                let issuer = self.claims_to_be.lock().clone().unwrap_or_else(|| url.clone());
                (200, String::new(), json!({ "issuer": issuer, "jwks_uri": format!("{url}/keys") }).to_string())
            }
            "/keys" => {
                let jwk = |(kid, key): &(&str, Ed25519KeyPair)| json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": encode(key.public_key().as_ref()) });
                let all: Vec<_> = self.keys.lock().iter().map(jwk).chain(self.others.lock().iter().cloned()).collect();
                (200, String::new(), json!({ "keys": all }).to_string())
            }
            _ => {
                let answers = self.github.lock();
                let of = |wanted: &str| answers.iter().find(|(t, k, ..)| t == wanted && Some(k) == token.as_ref());
                let Some((_, _, status, body)) = of(target) else { return (404, String::new(), "{}".to_owned()) };
                let page = target.rsplit_once("&page=").map_or(1, |(_, n)| n.parse::<u32>().unwrap()) + 1;
                let base = target.split("&page=").next().unwrap();
                let next = format!("{base}&page={page}");
                let link = of(&next).map(|_| format!("Link: <{url}{next}>; rel=\"next\"\r\n")).unwrap_or_default();
                (*status, link, body.clone())
            }
        }
    }
}
