//! What answers on the clients' address: each request goes to the surface whose path it names.

use crate::callers::Callers;
use crate::http::{Connection, Head, Refusal, Request, Response, Service};
use crate::knox::Knox;
use crate::metrics::{Metrics, SurfaceLabel};
use crate::native::{self, Native};
use claviger_audit::WakeRelay;
use claviger_domain::audit::{Action, Outcome, Record, Subject};
use claviger_domain::{Clock, RequestId};
use claviger_engine::Engine;
use claviger_wire::knox::route::redirected;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The surfaces that are on, and what they share.
pub(crate) struct App {
    pub(crate) knox: Option<Knox>,
    pub(crate) native: Option<Native>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) callers: Arc<Callers>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl App {
    /// Where a request goes. Everything that is not the native API's is Knox's where Knox is on, since Knox answers
    /// unknown paths too; and paths that lead out of the native API, which it redirects to what they mean.
    fn surface(&self, head: &Head) -> SurfaceLabel {
        let native = self.native.is_some() && is_native(&head.path, self.knox.is_some());
        match (native, &self.knox) {
            (true, _) => SurfaceLabel::Native,
            (false, Some(_)) => SurfaceLabel::Knox,
            (false, None) => SurfaceLabel::Other,
        }
    }

    async fn nowhere(&self, request: &Request) -> Response {
        let target: String = String::from_utf8_lossy(&request.head.path).chars().take(512).collect();
        let id = self.callers.request_id();
        let nothing = || Response::text(404, "there is nothing here; see /api/v1\n");
        if self.callers.anonymous(&request.connection).is_err() {
            // A flood of these is not written down one by one.
            return nothing();
        }
        match self.record(id, request.connection.peer.ip(), &target, Outcome::NotFound, "no surface is configured there").await {
            true => nothing(),
            false => Response::text(503, "the audit log cannot be written\n"),
        }
    }

    async fn record(&self, request_id: RequestId, address: IpAddr, target: &str, outcome: Outcome, reason: &str) -> bool {
        let bare = Record::new(self.clock.now(), request_id, "server", Action::Request, outcome);
        let record = Record { address: Some(address), subjects: &[Subject { key: target, versions: &[] }], reason, ..bare };
        self.engine.note(&record).await.is_ok()
    }
}

/// Whether a path is the native API's. With Knox beside it, `/api/../v0/keys/` is not; what is unclean and stays within is
/// the native API's to refuse, whether Knox is on or off.
fn is_native(path: &[u8], knox_is_on: bool) -> bool {
    let is_below = |path: &[u8]| path.starts_with(b"/api/") || path == b"/api";
    is_below(path) && (!knox_is_on || redirected(path).is_none_or(|clean| is_below(&clean)))
}

impl Service for App {
    fn body_limit(&self, head: &Head) -> usize {
        match (self.surface(head), &self.native, &self.knox) {
            (SurfaceLabel::Native, Some(native), _) => native.body_limit(head),
            (SurfaceLabel::Knox, _, Some(knox)) => knox.body_limit(),
            _ => 0,
        }
    }

    async fn may_send(&self, head: &Head, connection: &Connection) -> bool {
        match self.surface(head) {
            SurfaceLabel::Native => {
                native::authorization(&head.headers).is_ok_and(|header| self.callers.is_proven_native(connection, header))
            }
            SurfaceLabel::Knox => self.callers.is_proven_knox(connection, head.headers.get("authorization")).await,
            _ => false,
        }
    }

    async fn call(&self, request: Request) -> Response {
        let surface = self.surface(&request.head);
        let begun = self.metrics.begin(surface);
        let response = match (surface, &self.native, &self.knox) {
            // Each surface boxes its rarer routes itself, so that no connection's task is as large as its widest request.
            (SurfaceLabel::Native, Some(native), _) => native.handle(request).await,
            (SurfaceLabel::Knox, _, Some(knox)) => knox.handle(request).await,
            _ => Box::pin(self.nowhere(&request)).await,
        };
        self.metrics.answered(surface, response.status, begun);
        response
    }

    fn refused(&self, _: &Connection, why: Refusal) -> Response {
        self.metrics.refused(why);
        why.answer()
    }

    fn worker_started(&self) {
        tokio::spawn(WakeRelay::default());
    }

    fn handshake_failed(&self, peer: SocketAddr, error: &io::Error) {
        self.metrics.handshake_failed();
        tracing::debug!(%peer, %error, "a TLS handshake failed");
    }

    fn turned_away(&self, _: SocketAddr) {
        self.metrics.turned_away();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_out_of_the_native_api_is_not_its_own() {
        for path in
            ["/api", "/api/v1", "/api/v1/keys/a", "/api/", "/api/v1/keys/%zz", "/api//v1/keys", "/api/v1/./keys", "/api/v1/x/%2e%2e/keys"]
        {
            assert!(is_native(path.as_bytes(), true), "{path}");
        }
        for path in ["/api/../v0/keys/", "/api/%2e%2e/v0/keys/", "/api/%2E./v0/keys/", "/api/v1/../..", "/api/../apis"] {
            assert!(!is_native(path.as_bytes(), true), "{path}");
            assert!(is_native(path.as_bytes(), false), "{path}");
        }
        for path in ["/apis", "/v0/keys/", "//api/v1", "/"] {
            assert!(!is_native(path.as_bytes(), true) && !is_native(path.as_bytes(), false), "{path}");
        }
    }
}
