//! Knox's surface, `/v0` (contract knox): every route, code, text and order of checks, for clients of 2025 and 2026.
//!
//! The forms themselves are in `claviger_wire::knox`; here they meet callers and the engine.

mod answers;
mod fields;
mod log;
mod routes;

pub use answers::Reply;
pub(crate) use fields::shown;
pub use log::KnoxLog;
pub(crate) use routes::{status, version_hash};

use crate::callers::{AuthFailure, Callers};
use crate::config::{KnoxConfig, ServiceCreator};
use crate::http::{Connection, Head, Request, RequestBody, Response};
use bytes::Bytes;
use claviger_domain::audit::{Action, Outcome, Record, Subject};
use claviger_domain::{Caller, Clock, RequestId};
use claviger_engine::Engine;
use claviger_wire::knox::envelope::{self, Answer, Code, HostName};
use claviger_wire::knox::form::{Body, MAX_BODY};
use claviger_wire::knox::route::{Routed, route};
use claviger_wire::knox::site_rule::SiteRule;
use claviger_wire::knox::validate::{PrincipalRules, Strictness};
use std::sync::Arc;

/// The name of this surface in the audit log.
pub(crate) const SURFACE: &str = "knox";

/// Knox's API over the engine.
pub struct Knox {
    engine: Arc<Engine>,
    callers: Arc<Callers>,
    clock: Arc<dyn Clock>,
    host: HostName,
    rules: Rules,
    creators: Vec<ServiceCreator>,
    list_readable_only: bool,
    keep_last_admin: bool,
    /// The site's own header fields of every routed answer.
    response_headers: Vec<(&'static str, Bytes)>,
    log: Option<KnoxLog>,
}

/// The site's rules for principals, as its configuration has them.
struct Rules {
    strictness: Strictness,
    min_service_path: usize,
    site: Vec<SiteRule>,
}

/// One request being answered.
pub(crate) struct Ask<'a> {
    pub(crate) head: &'a Head,
    pub(crate) body: Body<'a>,
    pub(crate) caller: &'a Caller,
}

impl Knox {
    /// The surface with a site's settings.
    pub fn new(
        engine: Arc<Engine>,
        callers: Arc<Callers>,
        clock: Arc<dyn Clock>,
        host: &str,
        config: &KnoxConfig,
        log: Option<KnoxLog>,
    ) -> Self {
        Self {
            engine,
            callers,
            clock,
            host: HostName::new(host),
            rules: Rules { strictness: config.strictness, min_service_path: config.min_service_path, site: config.principal_rules.clone() },
            creators: config.creators.clone(),
            list_readable_only: config.list_readable_only,
            keep_last_admin: config.keep_last_admin,
            response_headers: config.response_headers.iter().map(|(name, value)| (*name, value.clone().into())).collect(),
            log,
        }
    }

    fn principal_rules(&self) -> PrincipalRules<'_> {
        let Rules { strictness, min_service_path, site } = &self.rules;
        PrincipalRules { strictness: *strictness, min_prefix_components: *min_service_path, site }
    }

    /// The most bytes of body a request may have: Knox's ten mebibytes.
    pub fn body_limit(&self) -> usize {
        MAX_BODY
    }

    /// Whether a request is this surface's to answer. Paths are cleaned before they are compared, so what looks like
    /// another surface's path can be ours.
    pub fn owns(head: &Head) -> bool {
        head.path.starts_with(b"/v0/") || head.path.as_ref() == b"/v0"
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request) -> Response {
        let id = self.callers.request_id();
        let Request { head, body, connection } = request;
        let method = std::str::from_utf8(head.method_name()).unwrap_or_default();
        let routed = route(method, &head.path, head.query.as_deref());
        let needs_no_caller =
            matches!(routed, Routed::BadTarget | Routed::ServerOptions | Routed::Redirect { .. } | Routed::MethodNotAllowed);
        if needs_no_caller {
            return Box::pin(self.unauthenticated_answer(&routed, &head, id, &connection)).await;
        }
        let body = match &body {
            RequestBody::Complete(bytes) => Body::Whole(bytes),
            RequestBody::TooLarge => Body::Unreadable,
        };
        let caller = match self.callers.knox(&connection, head.headers.get("authorization"), id).await {
            Ok(caller) => caller,
            Err(failure) => {
                let reply = Box::pin(self.unproven(failure, &head, id, connection.peer.ip())).await;
                self.logged(id, &head, body, &connection, &routed, None, reply.code, &reply.message);
                return self.respond_error(&reply);
            }
        };
        let ask = Ask { head: &head, body, caller: &caller };
        let answered = self.answer(&ask, &routed).await;
        if answered.as_ref().is_err_and(|reply| reply.code == Code::Unauthorized)
            && let Some(pause) = self.callers.refused(&caller)
        {
            Box::pin(tokio::time::sleep(pause)).await;
        }
        let (code, message) = answered.as_ref().map_or_else(|r| (r.code, r.message.as_slice()), |_| (Code::Ok, b"".as_slice()));
        self.logged(id, &head, body, &connection, &routed, Some(&caller), code, message);
        match answered {
            Ok(json) => self.json_response(200, json),
            Err(reply) => self.respond_error(&reply),
        }
    }

    /// What is answered without looking at the caller; Knox keeps no line of it, our audit log does.
    async fn unauthenticated_answer(&self, routed: &Routed<'_>, head: &Head, id: RequestId, connection: &Connection) -> Response {
        let (response, reason) = match routed {
            Routed::BadTarget => {
                let mut response = Response::text(400, "400 Bad Request");
                response.close = true;
                (response, "the target is no URL")
            }
            Routed::ServerOptions => (Response::new(200), "OPTIONS *"),
            Routed::Redirect { location } => {
                (Response::new(301).with_header("Location", Bytes::from(location.clone())), "redirected to the cleaned path")
            }
            _ => (Response::new(405), "the path does not take this method"),
        };
        let outcome = if response.status < 400 { Outcome::Ok } else { Outcome::Invalid };
        if self.callers.anonymous(connection).is_err() {
            // A flood of these is not written down one by one.
            return response;
        }
        match self.record_request(id, None, connection.peer.ip(), outcome, reason, head).await {
            Ok(()) => response,
            Err(reply) => self.respond_error(&reply),
        }
    }

    async fn unproven(&self, failure: AuthFailure, head: &Head, id: RequestId, address: std::net::IpAddr) -> Reply {
        let text = match failure {
            AuthFailure::Unauthenticated(text) => text,
            // A flood of failures is not written one by one; the metrics count it.
            AuthFailure::RateLimited { retry_after_seconds } => {
                return Reply::new(
                    Code::Unauthenticated,
                    format!("too many failed authentications from your address; try again in {retry_after_seconds} s"),
                );
            }
        };
        match self.record_request(id, None, address, Outcome::Unauthenticated, &text, head).await {
            Ok(()) => Reply::new(Code::Unauthenticated, text),
            Err(reply) => reply,
        }
    }

    /// Records a request that reached no operation.
    async fn record_request(
        &self,
        id: RequestId,
        caller: Option<&Caller>,
        address: std::net::IpAddr,
        outcome: Outcome,
        reason: &str,
        head: &Head,
    ) -> Result<(), Reply> {
        let target: String = String::from_utf8_lossy(&head.path).chars().take(512).collect();
        let bare = Record::new(self.clock.now(), id, SURFACE, Action::Request, outcome);
        let record = Record { caller, address: Some(address), subjects: &[Subject { key: &target, versions: &[] }], reason, ..bare };
        self.engine.note(&record).await.map_err(|e| Reply::new(Code::Internal, e.to_string()))
    }

    fn answer_now(&self) -> Answer<'_> {
        Answer { host: &self.host, ts: self.clock.now().0 }
    }

    fn respond_error(&self, reply: &Reply) -> Response {
        let mut json = Vec::with_capacity(160 + reply.message.len());
        self.answer_now().error(&mut json, reply.code, &reply.message);
        self.json_response(reply.code.http_status(), json)
    }

    fn json_response(&self, status: u16, json: Vec<u8>) -> Response {
        let response = Response::new(status).with_body(json).with_header("Cache-Control", "no-store");
        let response = envelope::HEADERS.into_iter().fold(response, |r, (name, value)| r.with_header(name, value));
        self.response_headers.iter().fold(response, |r, (name, value)| r.with_header(name, value.clone()))
    }
}
