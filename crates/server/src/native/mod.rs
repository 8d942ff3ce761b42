//! The native API, `/api/v1`: everything that the engine can do, over HTTP and JSON.
//!
//! [`ROUTES`] is the table of routes. A request is checked in one order: credential, path and method, query, headers,
//! body, then the engine asks for the right. It does not decide who may do what; the engine does.
//!
//! # Guarantees
//! - Each request leaves one audit record before its answer: the engine's (a bulk read one for each way in which keys
//!   ended), or one of this surface where no operation of the engine was reached. (A refused credential beyond the limit on failures is not written down.)
//! - Who may not know of a key gets the answer that a missing key gets, byte for byte except the request's id ▲.
//! - No answer with a secret may be stored by a cache; no error repeats a value that was sent.

mod approvals;
mod backstage;
mod data;
mod fingerprint;
#[doc(hidden)]
pub mod fuzz;
mod keys;
mod openapi;
mod prefixes;
mod problem;
mod request;
mod rights;
mod routes;
mod server;
mod session;
mod share;
mod status;
#[cfg(test)]
mod tests;
mod uses;
mod watch;

pub(crate) use approvals::info as approval_info;
pub use backstage::{AuditQuery, AuditState, Backstage, Vitals};
pub use openapi::openapi;
pub(crate) use request::authorization;
pub use routes::{Needs, Operation, Param, ROUTES, Route};
pub(crate) use server::as_recorded;
pub(crate) use share::RULE as SHARE_RULE;
pub use share::Sharing;

use crate::callers::{AuthFailure, Callers};
use crate::http::{Connection, Head, Request, RequestBody, Response, Shutdown};
use crate::people::People;
use bytes::Bytes;
use claviger_domain::audit::{Action, Outcome, Record, Subject};
use claviger_domain::{Approving, Caller, Clock, KeyId, RequestId, Revision};
use claviger_engine::{Engine, Error, Precondition, Verdict};
use claviger_wire::native::FieldError;
use futures::future::{BoxFuture, ready};
use problem::{Fault, Stop};
use request::Query;
use routes::{Caught, Routed, route};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use watch::OpenWatches;
use zeroize::Zeroizing;

/// The name of this surface in the audit log.
pub(crate) const SURFACE: &str = "native";
/// Bytes of body besides key data: a thousand ids, or some hundred grants.
const ROOM: usize = 1 << 20;
/// How long a request waits for the revision that it demands.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the surface is made of.
pub struct NativeParts {
    /// The application.
    pub engine: Arc<Engine>,
    /// Turns credentials into callers.
    pub callers: Arc<Callers>,
    /// How people log in.
    pub people: Arc<People>,
    /// The server's own state.
    pub back: Arc<dyn Backstage>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Bytes of data that one version may have at most.
    pub max_value: usize,
    /// Who may open shares.
    pub sharing: Sharing,
    /// Streams that one identity may have open.
    pub watches_per_identity: usize,
    /// Ends streams.
    pub shutdown: Shutdown,
}

/// The native API over the engine.
pub struct Native {
    parts: Arc<NativeParts>,
    open_watches: Arc<OpenWatches>,
    description: Bytes,
    /// What keys of fingerprints are derived from; of this process alone.
    fingerprint_secret: Zeroizing<[u8; 32]>,
}

/// One request being answered.
pub(crate) struct Ask<'a> {
    pub(crate) head: &'a Head,
    pub(crate) body: &'a [u8],
    pub(crate) connection: &'a Arc<Connection>,
    pub(crate) caller: &'a Caller,
    pub(crate) route: &'static Route,
    pub(crate) caught: Caught<'a>,
    pub(crate) query: Query,
    pub(crate) precondition: Precondition,
}

/// What a route gives.
pub(crate) type Answer = Result<Response, Stop>;

impl Native {
    /// The surface.
    pub fn new(parts: NativeParts) -> Self {
        let description = serde_json::to_vec_pretty(&openapi()).expect("the document is a tree of maps with string keys");
        Self {
            parts: Arc::new(parts),
            open_watches: Arc::default(),
            description: description.into(),
            fingerprint_secret: fingerprint::secret(),
        }
    }

    /// The most bytes of body a request may have.
    pub fn body_limit(&self, head: &Head) -> usize {
        let Ok(path) = request::path(head) else { return 0 };
        match route(head.method, &path) {
            Routed::To(route, _) => self.limit(route),
            _ => 0,
        }
    }

    fn limit(&self, route: &Route) -> usize {
        match route.request {
            Some("CreateKey" | "AddVersion" | "Encrypt" | "Decrypt" | "Sign" | "Verify" | "Hmac") => {
                self.parts.max_value.div_ceil(3) * 4 + ROOM
            }
            Some(_) => ROOM,
            None => 0,
        }
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request) -> Response {
        let id = self.parts.callers.request_id();
        let response = match self.routed(&request, id).await {
            Ok(response) => response,
            Err(fault) => fault.respond(id),
        };
        response.with_header("Claviger-Request-Id", id.to_string())
    }

    async fn routed(&self, request: &Request, id: RequestId) -> Result<Response, Fault> {
        let Request { head, connection, .. } = request;
        let path = request::path(head);
        let routed = path.as_deref().map(|path| route(head.method, path)).map_err(Clone::clone);
        if let Ok(Routed::To(route @ Route { needs: Needs::Nothing, .. }, _)) = routed {
            return Box::pin(self.open_to_all(route, request, id)).await;
        }
        let header = match authorization(&head.headers) {
            Ok(header) => header,
            Err(error) => return Err(self.two_credentials(error, head, connection, id).await),
        };
        let caller = match self.parts.callers.native(connection, header, id) {
            Ok(caller) => caller,
            Err(failure) => return Err(self.unproven(&failure, head, connection, id).await),
        };
        let caller = match approvals::approving(&head.headers) {
            Ok(approving) => caller.approving(approving),
            Err(error) => return Err(self.invalid(head, connection, &caller, error).await),
        };
        let (route, caught) = match routed {
            Ok(Routed::To(route, caught)) => (route, caught),
            Ok(Routed::Nowhere) => return Err(self.refuse(head, connection, &caller, "no such path", Fault::no_route()).await),
            Ok(Routed::OtherMethods(allowed)) => {
                return Err(self.refuse(head, connection, &caller, "wrong method", Fault::wrong_method(&allowed)).await);
            }
            Err(error) => return Err(self.invalid(head, connection, &caller, error).await),
        };
        let RequestBody::Complete(body) = &request.body else {
            return Err(self.refuse(head, connection, &caller, "the body is too large", Fault::too_large(self.limit(route))).await);
        };
        match self.checked(head, body, connection, &caller, route, caught).await {
            Ok(response) => Ok(response),
            Err((Stop::Fault(fault), _)) => Err(fault),
            Err((Stop::Invalid(error), _)) => Err(self.invalid(head, connection, &caller, error).await),
            Err((Stop::Engine(Error::Asked(shown)), _)) => Ok(approvals::asked(&shown)),
            Err((Stop::Engine(error), conditional)) => {
                // Missing keys count as hidden ones do: the time that an answer takes must not tell them apart ▲.
                if matches!(error, Error::Denied(_) | Error::NotFound(_))
                    && let Some(pause) = self.parts.callers.refused(&caller)
                {
                    Box::pin(tokio::time::sleep(pause)).await;
                }
                if matches!(error, Error::Internal(_) | Error::Damaged { .. }) {
                    tracing::error!(%error, request = %id, "a request failed by the server's fault");
                }
                Err(Fault::of(&error, conditional))
            }
        }
    }

    /// Answers a route that takes no credential.
    async fn open_to_all(&self, route: &'static Route, request: &Request, id: RequestId) -> Result<Response, Fault> {
        match route.operation {
            Operation::LoginMethods => self.login_methods(route, request, id).await,
            Operation::CreateSession => self.create_session(route, request, id).await,
            Operation::SharePage | Operation::ShareScript => self.share_page(route, request, id).await,
            Operation::OpenShare => self.open_share(route, request, id).await,
            _ => self.describe(route, request, id).await,
        }
    }

    async fn describe(&self, route: &Route, request: &Request, id: RequestId) -> Result<Response, Fault> {
        let Request { head, connection, .. } = request;
        self.parts.callers.anonymous(connection).map_err(|limited| Fault::from(&limited))?;
        let checked = Query::parse(head.query.as_deref(), route.query);
        let (outcome, reason) = if checked.is_ok() { (Outcome::Ok, "") } else { (Outcome::Invalid, "no parameters are taken") };
        self.note_request(head, connection, id, None, outcome, reason).await?;
        match checked {
            Ok(_) => Ok(Response::new(200).with_header("Content-Type", "application/json").with_body(self.description.clone())),
            Err(error) => Err(Fault::invalid(error)),
        }
    }

    /// Reads what all routes have in common, then answers. With an error comes whether the request was conditional.
    async fn checked(
        &self,
        head: &Head,
        body: &[u8],
        connection: &Arc<Connection>,
        caller: &Caller,
        route: &'static Route,
        caught: Caught<'_>,
    ) -> Result<Response, (Stop, bool)> {
        let read = || {
            let query = Query::parse(head.query.as_deref(), route.query)?;
            let precondition = request::if_match(&head.headers)?;
            if precondition != Precondition::Any && !route.conditional {
                return Err(FieldError::new("if-match", "is not taken here"));
            }
            if route.conditional && head.headers.get("if-none-match").is_some() {
                return Err(FieldError::new("if-none-match", "is not taken here; use If-Match"));
            }
            if *caller.approval() != Approving::Plain && !route.takes_approval() {
                return Err(FieldError::new("claviger-ask", "this is nothing that others could have to approve; repeat it without"));
            }
            if route.request.is_none() && !body.is_empty() {
                return Err(FieldError::new("body", "no body is taken here"));
            }
            Ok((Ask { head, body, connection, caller, route, caught, query, precondition }, request::min_revision(&head.headers)?))
        };
        let (ask, min) = read().map_err(|e| (Stop::from(e), false))?;
        let conditional = ask.precondition != Precondition::Any;
        if let Some(min) = min {
            self.wait_for(&ask, min).await.map_err(|stop| (stop, conditional))?;
        }
        // The others are boxed: the rarer route must not make every request's future as large as the widest.
        match route.operation {
            Operation::ReadData => self.read_data(&ask).await,
            Operation::Encrypt => Box::pin(self.encrypt(&ask)).await,
            _ => self.rarer(&ask).await,
        }
        .map_err(|stop| (stop, conditional))
    }

    /// The answer in the making. Not asynchronous itself: an asynchronous function would hold all of them beneath the one that it
    /// waits for, and so deep a stack is not overwritten.
    fn rarer<'a>(&'a self, ask: &'a Ask<'_>) -> BoxFuture<'a, Answer> {
        match ask.route.operation {
            Operation::ReadData => Box::pin(self.read_data(ask)),
            Operation::ReadMany => Box::pin(self.read_many(ask)),
            Operation::Fingerprint => Box::pin(self.fingerprint(ask)),
            Operation::Encrypt => Box::pin(self.encrypt(ask)),
            Operation::Decrypt => Box::pin(self.decrypt(ask)),
            Operation::Rewrap => Box::pin(self.rewrap(ask)),
            Operation::DataKeys => Box::pin(self.data_keys(ask)),
            Operation::Sign => Box::pin(self.sign(ask)),
            Operation::Hmac => Box::pin(self.hmac(ask)),
            Operation::Verify => Box::pin(self.verify(ask)),
            Operation::ShowPublic => Box::pin(self.show_public(ask)),
            Operation::Export => Box::pin(self.export(ask)),
            Operation::ShowImportKey => Box::pin(self.show_import_key(ask)),
            Operation::ListKeys => Box::pin(self.list_keys(ask)),
            Operation::CreateKey => Box::pin(self.create_key(ask)),
            Operation::ShowKey => Box::pin(self.show_key(ask)),
            Operation::UpdateKey => Box::pin(self.update_key(ask)),
            Operation::DeleteKey => Box::pin(self.delete_key(ask)),
            Operation::ListVersions => Box::pin(self.list_versions(ask)),
            Operation::AddVersion => Box::pin(self.add_version(ask)),
            Operation::SetState => Box::pin(self.set_state(ask)),
            Operation::History => Box::pin(self.history(ask)),
            Operation::ShowAcl => Box::pin(self.show_acl(ask)),
            Operation::ReplaceAcl | Operation::EditAcl => Box::pin(self.change_acl(ask)),
            Operation::Explain => Box::pin(self.explain(ask)),
            Operation::Reach => Box::pin(self.reach(ask)),
            Operation::ListPrefixes => Box::pin(self.list_prefixes(ask)),
            Operation::ShowPrefix => Box::pin(self.show_prefix(ask)),
            Operation::ReplacePrefix => Box::pin(self.replace_prefix(ask)),
            Operation::DeletePrefix => Box::pin(self.delete_prefix(ask)),
            Operation::Watch => Box::pin(self.watch(ask)),
            Operation::QueryAudit => Box::pin(self.query_audit(ask)),
            Operation::ShowStatus => Box::pin(self.show_status(ask)),
            Operation::RotateSeal => Box::pin(self.rotate_seal(ask)),
            Operation::WhoAmI => Box::pin(self.whoami(ask)),
            Operation::ShowRules => Box::pin(self.show_rules(ask)),
            Operation::ReplaceRules => Box::pin(self.replace_rules(ask)),
            Operation::ReplacePrefixRules => Box::pin(self.replace_prefix_rules(ask)),
            Operation::ListApprovals => Box::pin(self.list_approvals(ask)),
            Operation::ShowApproval => Box::pin(self.show_approval(ask)),
            Operation::Approve => Box::pin(self.decide(ask, Verdict::Approve)),
            Operation::Reject => Box::pin(self.decide(ask, Verdict::Reject)),
            Operation::Withdraw => Box::pin(self.withdraw(ask)),
            Operation::RunApproval => Box::pin(self.run_approval(ask)),
            Operation::EndSession => Box::pin(self.end_session(ask)),
            Operation::Describe
            | Operation::LoginMethods
            | Operation::CreateSession
            | Operation::SharePage
            | Operation::ShareScript
            | Operation::OpenShare => Box::pin(ready(Err(Fault::no_route().into()))),
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.parts.engine
    }

    async fn wait_for(&self, ask: &Ask<'_>, revision: Revision) -> Result<(), Stop> {
        let Err(error) = self.engine().reached(revision, PATIENCE).await else { return Ok(()) };
        let fault = Fault::of(&error, false);
        Err(self.refuse(ask.head, ask.connection, ask.caller, "the demanded revision did not come", fault).await.into())
    }

    async fn unproven(&self, failure: &AuthFailure, head: &Head, connection: &Connection, id: RequestId) -> Fault {
        let fault = Fault::from(failure);
        let AuthFailure::Unauthenticated(why) = failure else {
            // A flood of failures is not written down one by one; the metrics count it.
            return fault;
        };
        match self.note_request(head, connection, id, None, fault.outcome(), why).await {
            Ok(()) => fault,
            Err(unkept) => unkept,
        }
    }

    async fn two_credentials(&self, error: FieldError, head: &Head, connection: &Connection, id: RequestId) -> Fault {
        if let Err(limited) = self.parts.callers.anonymous(connection) {
            return Fault::from(&limited);
        }
        match self.note_request(head, connection, id, None, Outcome::Invalid, "two credentials").await {
            Ok(()) => Fault::invalid(error),
            Err(unkept) => unkept,
        }
    }

    async fn invalid(&self, head: &Head, connection: &Connection, caller: &Caller, error: FieldError) -> Fault {
        let reason = format!("the request breaks a rule about {}", known_part(&error.field));
        self.refuse(head, connection, caller, &reason, Fault::invalid(error)).await
    }

    /// Records a refusal that never reached the engine, and gives it back.
    async fn refuse(&self, head: &Head, connection: &Connection, caller: &Caller, reason: &str, fault: Fault) -> Fault {
        match self.note_request(head, connection, caller.request_id, Some(caller), fault.outcome(), reason).await {
            Ok(()) => fault,
            Err(unkept) => unkept,
        }
    }

    /// Records a request that reached no operation of the engine, by its path.
    async fn note_request(
        &self,
        head: &Head,
        connection: &Connection,
        request_id: RequestId,
        caller: Option<&Caller>,
        outcome: Outcome,
        reason: &str,
    ) -> Result<(), Fault> {
        let path: String = String::from_utf8_lossy(&head.path).chars().take(512).collect();
        let subjects = [Subject { key: &path, versions: &[] }];
        let bare = Record::new(self.parts.clock.now(), request_id, SURFACE, Action::Request, outcome);
        let record = Record { caller, address: Some(connection.peer.ip()), subjects: &subjects, reason, ..bare };
        self.engine().note(&record).await.map_err(|e| Fault::of(&e, false))
    }

    /// Records an operation that is this surface's own.
    pub(crate) async fn note(&self, ask: &Ask<'_>, action: Action, outcome: Outcome, reason: &str) -> Result<(), Error> {
        let bare = Record::new(self.parts.clock.now(), ask.caller.request_id, SURFACE, action, outcome);
        self.engine().note(&Record { caller: Some(ask.caller), address: ask.caller.address, reason, ..bare }).await
    }
}

impl<'a> Ask<'a> {
    /// The key that the path names.
    pub(crate) fn key(&self) -> Result<KeyId, FieldError> {
        KeyId::parse(self.caught.id).map_err(|e| FieldError::new("id", e))
    }

    /// The body.
    pub(crate) fn json<T: Deserialize<'a>>(&self) -> Result<T, FieldError> {
        request::json(&self.head.headers, self.body)
    }
}

/// The part of a request that an error is about, when the name is ours; what a client made up is not written down.
fn known_part(field: &str) -> &str {
    const PARTS: &[&str] = &[
        "authorization",
        "path",
        "id",
        "ids",
        "session",
        "token",
        "version",
        "state",
        "body",
        "content-type",
        "content-encoding",
        "if-match",
        "if-none-match",
        "claviger-min-revision",
        "data",
        "acl",
        "grants",
        "description",
        "labels",
        "label",
        "expires",
        "max_lifetime",
        "separate_duties",
        "kind",
        "items",
        "hash",
        "padding",
        "form",
        "wrapped",
        "policy",
        "min_version",
        "promote",
        "prefix",
        "principal",
        "group",
        "cursor",
        "limit",
        "since",
        "heartbeat",
    ];
    let outermost = field.split(['[', '.']).next().unwrap_or_default();
    PARTS.iter().copied().find(|p| *p == outermost).unwrap_or("something that it may not have")
}

/// An answer of JSON. All are kept out of caches: what a caller may see can change at any moment.
pub(crate) fn json_answer(status: u16, json: impl Into<Bytes>) -> Response {
    Response::new(status).with_header("Content-Type", "application/json").with_header("Cache-Control", "no-store").with_body(json)
}

/// As [`json_answer`], of a wire type without secrets.
pub(crate) fn answer(status: u16, body: &impl Serialize) -> Response {
    json_answer(status, serde_json::to_vec(body).expect("wire types are maps with string keys"))
}

/// An ETag as its header field has it.
pub(crate) fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}
