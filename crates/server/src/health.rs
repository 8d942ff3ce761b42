//! Health and metrics, on an address of their own, in plain HTTP.

use crate::http::{Connection, Head, Method, Refusal, Request, Response, Service};
use crate::metrics::Metrics;
use claviger_audit::{AuditLog, State};
use claviger_engine::Engine;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Answers `/healthz` (the process runs), `/readyz` (it serves) and `/metrics`.
pub(crate) struct Health {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: Arc<AuditLog>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) stopping: Arc<AtomicBool>,
}

impl Health {
    fn ready(&self) -> Response {
        if self.stopping.load(Ordering::Relaxed) {
            return Response::text(503, "stopping\n");
        }
        if self.engine.is_in_doubt() {
            return Response::text(503, "the store does not say what became of a change; changes are refused\n");
        }
        match self.log.health().state {
            State::Failed(_) | State::Closed => Response::text(503, "the audit log cannot be written; secrets are not served\n"),
            State::Healthy | State::DiskFull | State::Standby => Response::text(200, "ready\n"),
        }
    }
}

impl Service for Health {
    fn body_limit(&self, _: &Head) -> usize {
        0
    }

    async fn call(&self, request: Request) -> Response {
        if !matches!(request.head.method, Method::Get | Method::Head) {
            return Response::text(405, "only GET and HEAD\n").with_header("Allow", "GET, HEAD");
        }
        match request.head.path.as_ref() {
            b"/healthz" => Response::text(200, "ok\n"),
            b"/readyz" => self.ready(),
            b"/metrics" => Response::new(200)
                .with_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
                .with_body(self.metrics.text()),
            _ => Response::text(404, "try /healthz, /readyz or /metrics\n"),
        }
    }

    fn refused(&self, _: &Connection, why: Refusal) -> Response {
        why.answer()
    }
}
