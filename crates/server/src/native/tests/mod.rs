//! The surface over a real engine on a store in memory, with an audit log that can be read and can fail.
#![allow(clippy::unwrap_used)]

mod evidence;
mod people;
mod reads;
mod resets;
mod routes;
mod standing;
mod strict;
mod uses;
mod watching;
mod writes;

use super::{AuditQuery, AuditState, Backstage, Native, NativeParts, Vitals};
use crate::callers::Callers;
use crate::config::PeopleConfig;
use crate::http::{Connection, Head, Request, RequestBody, Response, ResponseBody, Shutdown};
use crate::people::People;
use bytes::Bytes;
use claviger_authn::{StaticUser, TokenTable};
use claviger_crypto::{RootError, RootOfTrust};
use claviger_domain::audit::Record;
use claviger_domain::{Acl, Caller, Clock, Grant, Prefix, Preset, RequestId, SecretBytes, Timestamp};
use claviger_engine::{Engine, Error, Precondition, Settings};
use claviger_ports::{AuditError, AuditSink, LogCheckpoint, MemStore, Sealed, Store};
use claviger_wire::native::{AuditPage, SealStatus};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

/// Tokens: an administrator of everything, a user with some rights, one without any, and one who may do nothing but be.
pub(super) const ROOT: &str = "tok-root";
pub(super) const ALICE: &str = "tok-alice";
pub(super) const BOB: &str = "tok-bob";
pub(super) const NOBODY: &str = "tok-nobody";
pub(super) const NO_CREDENTIAL: &str = "";

/// A kept audit record.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) action: &'static str,
    pub(super) outcome: &'static str,
    pub(super) reason: String,
    pub(super) who: Option<String>,
    pub(super) keys: Vec<String>,
    pub(super) request: String,
    pub(super) all: String,
}

#[derive(Default)]
pub(super) struct Sink {
    pub(super) kept: Mutex<Vec<Kept>>,
    pub(super) full: AtomicBool,
}

impl AuditSink for Sink {
    fn append(&self, record: &Record<'_>) -> BoxFuture<'static, Result<(), AuditError>> {
        if self.full.load(Ordering::SeqCst) {
            return futures::future::ready(Err(AuditError::Full)).boxed();
        }
        self.kept.lock().push(Kept {
            action: record.action.name(),
            outcome: record.outcome.name(),
            reason: record.reason.to_owned(),
            who: record.caller.map(|c| c.name().to_owned()),
            keys: record.subjects.iter().map(|s| s.key.to_owned()).collect(),
            request: record.request_id.to_string(),
            all: format!("{record:?}"),
        });
        futures::future::ready(Ok(())).boxed()
    }

    fn checkpoint(&self) -> Option<LogCheckpoint> {
        None
    }
}

/// Wraps by writing the context before the key: enough for tests of what stands above.
struct OpenRoot;

impl RootOfTrust for OpenRoot {
    fn name(&self) -> &str {
        "open"
    }

    fn promise(&self) -> String {
        "nothing".to_owned()
    }

    fn wrap<'a>(&'a self, context: &'a [u8], key: &'a SecretBytes) -> BoxFuture<'a, Result<Sealed, RootError>> {
        futures::future::ready(Ok(Sealed([context, key.expose()].concat().into()))).boxed()
    }

    fn unwrap<'a>(&'a self, context: &'a [u8], wrapped: &'a Sealed) -> BoxFuture<'a, Result<SecretBytes, RootError>> {
        let key = wrapped.0.strip_prefix(context).map(|key| SecretBytes::new(key.to_vec()));
        futures::future::ready(key.ok_or(RootError::NotAuthentic)).boxed()
    }
}

/// A clock that stands until it is moved.
pub(super) struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

impl Hand {
    pub(super) fn forward(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }
}

/// The server's other half.
#[derive(Default)]
pub(super) struct Back {
    pub(super) asked: Mutex<Vec<AuditQuery>>,
    barrier: AtomicU32,
    pub(super) broken: AtomicBool,
}

impl Backstage for Back {
    fn seal_status(&self) -> SealStatus {
        let barrier_version = self.barrier.load(Ordering::SeqCst);
        SealStatus { barrier_version, barrier_versions: vec![barrier_version], roots: vec!["open".into()], promise: "nothing".into() }
    }

    fn rotate(&self) -> BoxFuture<'_, Result<SealStatus, Error>> {
        if self.broken.load(Ordering::SeqCst) {
            return futures::future::ready(Err(Error::Unavailable("the root does not answer".into()))).boxed();
        }
        self.barrier.fetch_add(1, Ordering::SeqCst);
        futures::future::ready(Ok(self.seal_status())).boxed()
    }

    fn vitals(&self) -> Vitals {
        let audit = if self.broken.load(Ordering::SeqCst) { AuditState::DiskFull } else { AuditState::Healthy };
        Vitals { audit, ..Vitals::healthy() }
    }

    fn audit_query(&self, query: AuditQuery) -> BoxFuture<'_, Result<AuditPage, String>> {
        self.asked.lock().push(query);
        let page =
            if self.broken.load(Ordering::SeqCst) { Err("torn".to_owned()) } else { Ok(AuditPage { records: Vec::new(), next: None }) };
        futures::future::ready(page).boxed()
    }
}

pub(super) struct World {
    pub(super) native: Native,
    pub(super) engine: Arc<Engine>,
    pub(super) audit: Arc<Sink>,
    pub(super) back: Arc<Back>,
    pub(super) clock: Arc<Hand>,
    pub(super) shutdown: Shutdown,
    callers: AtomicU32,
}

/// An answer, read to its end unless it is a stream.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) response: Response,
    pub(super) text: String,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::on(Arc::new(MemStore::new())).await
    }

    pub(super) async fn on(store: Arc<dyn Store>) -> Self {
        Self::with_people(store, &PeopleConfig::default()).await
    }

    /// With these issuers.
    pub(super) async fn with_people(store: Arc<dyn Store>, people: &PeopleConfig) -> Self {
        let clock = Arc::new(Hand(AtomicI64::new(1_800_000_000_000_000_000)));
        let audit = Arc::new(Sink::default());
        let ring = claviger_engine::initialise(&*store, &[&OpenRoot], clock.now()).await.unwrap();
        let settings = Settings { max_value: 64 << 10, ..Settings::default() };
        let started = Engine::start(settings, store, audit.clone(), ring, clock.clone()).await.unwrap();
        let engine = started.engine;
        let (back, shutdown) = (Arc::new(Back::default()), Shutdown::new());
        let people = Arc::new(People::new(people, &SecretBytes::new(vec![7; 32]), clock.clone()).unwrap());
        let callers = Callers::with_tokens_at(tokens(), clock.clone()).with_people(people.sessions.clone(), None);
        let native = Native::new(NativeParts {
            engine: engine.clone(),
            callers: Arc::new(callers),
            people,
            back: back.clone(),
            clock: clock.clone(),
            max_value: 64 << 10,
            sharing: Default::default(),
            watches_per_identity: 8,
            shutdown: shutdown.clone(),
        });
        let world = Self { native, engine, audit, back, clock, shutdown, callers: AtomicU32::new(0) };
        world.grant("", "user:root", Preset::Admin).await;
        world.grant("team/", "user:alice", Preset::Admin).await;
        world
    }

    /// A prefix grant as the server's operator makes it.
    pub(super) async fn grant(&self, prefix: &str, principal: &str, preset: Preset) {
        let acl = Acl::new(vec![Grant { principal: principal.parse().unwrap(), capabilities: preset.capabilities() }]).unwrap();
        let system = Caller::system("test", RequestId(0));
        self.engine.change_prefix(&system, "test", &Prefix::parse(prefix).unwrap(), Some((acl, false)), Precondition::Any).await.unwrap();
    }

    /// Sends a request from an address of its own, so that failures do not count together.
    pub(super) async fn send(&self, token: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let n = self.callers.fetch_add(1, Ordering::SeqCst);
        let address = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        let connection = Connection::new((address, 1).into(), "test".into(), None);
        let bearer = format!("Bearer {token}");
        let mut all = headers.to_vec();
        if token != NO_CREDENTIAL {
            all.push(("Authorization", &bearer));
        }
        let head = Head::build(method, &format!("/api/v1{target}"), &all).unwrap();
        let fits = body.len() <= self.native.body_limit(&head);
        let body = if fits { RequestBody::Complete(Bytes::copy_from_slice(body)) } else { RequestBody::TooLarge };
        self.native.handle(Request { head, body, connection }).await
    }

    pub(super) async fn call(&self, token: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut headers = headers.to_vec();
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "Content-Type") {
            headers.push(("Content-Type", "application/json"));
        }
        Reply::of(self.send(token, method, target, &headers, body.as_bytes()).await)
    }

    pub(super) async fn get(&self, token: &str, target: &str) -> Reply {
        self.call(token, "GET", target, &[], "").await
    }

    /// As [`World::call`] without further headers; panics when the answer has another status.
    pub(super) async fn must(&self, status: u16, token: &str, method: &str, target: &str, body: &str) -> Reply {
        let reply = self.call(token, method, target, &[], body).await;
        assert_eq!(reply.status, status, "{method} {target}: {}", reply.text);
        reply
    }

    /// Makes a key of alice's, with `data` as text.
    pub(super) async fn create(&self, id: &str, data: &str) -> Reply {
        self.must(201, ALICE, "POST", "/keys", &format!(r#"{{"id":"{id}","data":"{}"}}"#, base64(data.as_bytes()))).await
    }

    /// What was recorded since this was last called.
    pub(super) fn records(&self) -> Vec<Kept> {
        std::mem::take(&mut self.audit.kept.lock())
    }
}

impl Reply {
    fn of(response: Response) -> Self {
        let text = match &response.body {
            ResponseBody::Full(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            ResponseBody::Empty | ResponseBody::Stream(_) => String::new(),
        };
        Self { status: response.status, response, text }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.response.header(name).map_or("", |v| std::str::from_utf8(v).unwrap())
    }

    /// `STATUS code field`, where there is a field.
    pub(super) fn problem(&self) -> String {
        assert_eq!(self.header("Content-Type"), "application/problem+json", "{}", self.text);
        let json = self.json();
        assert_eq!(json["status"], self.status);
        assert_eq!(json["request_id"], self.header("Claviger-Request-Id"));
        let field = json["field"].as_str().map(|f| format!(" {f}")).unwrap_or_default();
        format!("{} {}{field}", self.status, json["code"].as_str().unwrap())
    }

    /// Everything of the answer except what differs with every request.
    pub(super) fn without_request_id(&self) -> String {
        let id = self.header("Claviger-Request-Id").to_owned();
        assert_eq!(id.len(), 32);
        let headers: Vec<_> =
            self.response.headers.iter().map(|(n, v)| format!("{n}: {}", String::from_utf8_lossy(v.as_bytes()))).collect();
        format!("{} {headers:?} {}", self.status, self.text).replace(&id, "ID")
    }
}

/// No issuers.
pub(super) fn nobody(clock: Arc<Hand>) -> Arc<People> {
    Arc::new(People::new(&PeopleConfig::default(), &SecretBytes::new(vec![7; 32]), clock).unwrap())
}

fn tokens() -> TokenTable {
    let user = |name: &str, token: &str| StaticUser {
        name: name.into(),
        groups: vec![format!("{name}s")],
        token: token.as_bytes().to_vec().into(),
    };
    TokenTable::new(vec![user("root", ROOT), user("alice", ALICE), user("bob", BOB), user("nobody", NOBODY)]).unwrap()
}

pub(super) fn base64(data: &[u8]) -> String {
    let mut out = Vec::new();
    claviger_wire::native::push_base64(&mut out, data);
    String::from_utf8(out).unwrap()
}
