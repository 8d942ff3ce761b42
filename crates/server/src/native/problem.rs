//! The one place where failures become answers (RFC 9457).
//!
//! A key that the caller may not know of and a key that does not exist get the same answer, byte for byte except the
//! request's id ▲. No text of an answer or of an audit record repeats what a client sent as data.

use crate::callers::AuthFailure;
use crate::http::Response;
use claviger_domain::audit::Outcome;
use claviger_domain::{RequestId, VersionError};
use claviger_engine::{ApprovalProblem, Conflict, Error, Refusal};
use claviger_wire::native::{FieldError, ItemError, Problem};

const NOT_FOUND: &str =
    "there is no such thing here, or you have no right to know of it; look at the spelling, or ask an administrator for a grant";

/// Why a route gives no answer of its own.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The request breaks a rule. Not recorded yet.
    Invalid(FieldError),
    /// The engine refused, and has recorded it.
    Engine(Error),
    /// Ready to be answered, and recorded.
    Fault(Fault),
}

impl From<FieldError> for Stop {
    fn from(error: FieldError) -> Self {
        Self::Invalid(error)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// An error answer in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    status: u16,
    code: &'static str,
    detail: String,
    field: Option<String>,
    header: Option<(&'static str, String)>,
}

impl Fault {
    fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), field: None, header: None }
    }

    fn with_header(self, name: &'static str, value: impl ToString) -> Self {
        Self { header: Some((name, value.to_string())), ..self }
    }

    /// The fault as one item of several has it.
    pub(crate) fn into_item(self) -> ItemError {
        ItemError { code: self.code.to_owned(), detail: self.detail, field: self.field }
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// A member or parameter breaks a rule.
    pub(crate) fn invalid(error: FieldError) -> Self {
        Self { field: Some(error.field), ..Self::new(400, "invalid", error.rule) }
    }

    /// No route has this path.
    pub(crate) fn no_route() -> Self {
        Self::new(404, "not_found", NOT_FOUND)
    }

    /// The path is there, but not for this method.
    pub(crate) fn wrong_method(allowed: &str) -> Self {
        Self::new(405, "method_not_allowed", format!("this path takes {allowed}")).with_header("Allow", allowed)
    }

    /// The body is longer than the route takes.
    pub(crate) fn too_large(limit: usize) -> Self {
        let fault = Self::new(413, "too_large", format!("the body may have at most {limit} bytes here; nothing was changed"));
        Self { field: Some("body".to_owned()), ..fault }
    }

    /// More data was asked for than one answer holds.
    fn answer_too_large(error: &Error) -> Self {
        Self { field: Some("state".to_owned()), ..Self::new(413, "too_large", error.to_string()) }
    }

    /// The caller has as many streams open as he may have.
    pub(crate) fn too_many_streams(limit: usize) -> Self {
        let detail = format!(
            "you have {limit} streams open, which is the most for one identity here; close some, or follow more keys and prefixes in each"
        );
        Self::new(429, "rate_limited", detail).with_header("Retry-After", 30)
    }

    /// A proof that was looked at by a route of its own, and does not count.
    pub(crate) fn unauthenticated(why: String) -> Self {
        Self::new(401, "unauthenticated", why).with_header("WWW-Authenticate", "Bearer")
    }

    /// Something outside that is needed does not answer.
    pub(crate) fn unavailable(why: String) -> Self {
        Self::new(503, "unavailable", why).with_header("Retry-After", 10)
    }

    /// There is no room for more.
    pub(crate) fn busy(why: String) -> Self {
        Self::new(429, "rate_limited", why).with_header("Retry-After", 60)
    }

    /// An answer for what the engine refused. `conditional` says that the request named the state it expects.
    pub(crate) fn of(error: &Error, conditional: bool) -> Self {
        match error {
            Error::NotFound(_) | Error::Denied(Refusal::Unseen) => Self::no_route(),
            Error::NoVersion { .. } | Error::Version(VersionError::Unknown(_)) => Self::new(404, "not_found", error.to_string()),
            Error::Deleted { revision, .. } => {
                Self::new(410, "deleted", format!("the key was deleted at revision {revision}; drop your copies of it"))
                    .with_header("Claviger-Revision", revision)
            }
            Error::Denied(Refusal::Expired) => Self::new(403, "expired", error.to_string()),
            Error::Denied(Refusal::NotExportable) => Self::new(403, "not_exportable", error.to_string()),
            Error::Denied(Refusal::UsedNotRead(_)) => Self::new(403, "used_not_read", error.to_string()),
            Error::Denied(_) => Self::new(403, "denied", error.to_string()),
            Error::NeedsApproval(_) | Error::Approval(ApprovalProblem::Wanting(_)) => Self::new(403, "needs_approval", error.to_string()),
            Error::Approval(problem) if problem.is_conflict() => Self::new(409, "approval", error.to_string()),
            Error::Approval(ApprovalProblem::TooMany(..) | ApprovalProblem::TooOften(_)) => {
                Self::new(429, "rate_limited", error.to_string()).with_header("Retry-After", 60)
            }
            Error::Approval(_) => Self::new(403, "denied", error.to_string()),
            // It is answered as what it is before it comes here; in a bulk answer nothing asks.
            Error::Asked(_) => Self::new(409, "approval", error.to_string()),
            Error::Conflict(Conflict::Exists) | Error::Version(_) => Self::new(409, "conflict", error.to_string()),
            Error::Conflict(Conflict::Changed) => Self::new(if conditional { 412 } else { 409 }, "conflict", error.to_string()),
            Error::Invalid { field, rule } => Self::invalid(FieldError::new(*field, rule)),
            Error::AnswerTooLarge { .. } => Self::answer_too_large(error),
            Error::AnswerFull => Self::new(413, "ask_again", error.to_string()),
            Error::Unusable(_) => Self::new(409, "version_unusable", error.to_string()),
            Error::Damaged { .. } => Self::new(500, "internal", error.to_string()),
            // No status of those that clients repeat a request on.
            Error::Unrecorded { revision, .. } => {
                Self::new(500, "unrecorded", error.to_string()).with_header("Claviger-Revision", revision)
            }
            Error::Unseen(_) => Self::of(&Error::Denied(Refusal::Unseen), conditional),
            Error::Unavailable(_) | Error::Policy(_) => Self::new(503, "unavailable", error.to_string()).with_header("Retry-After", 1),
            Error::Full(_) => Self::new(507, "storage_full", error.to_string()),
            Error::RateLimited => Self::new(429, "rate_limited", error.to_string()).with_header("Retry-After", 1),
            Error::Internal(_) => Self::new(500, "internal", "a mistake on the server's side; its log has more under the request's id"),
        }
    }

    /// The answer, with its request's id in the body. Logged here when it is the server's fault, and nowhere else.
    pub(crate) fn respond(self, id: RequestId) -> Response {
        let Self { status, code, detail, field, header } = self;
        let problem = Problem { code: code.to_owned(), title: title(code).to_owned(), status, detail, field, request_id: id.to_string() };
        let json = serde_json::to_vec(&problem).expect("a problem is a map of strings and a number");
        let response = Response::new(status)
            .with_header("Content-Type", "application/problem+json")
            .with_header("Cache-Control", "no-store")
            .with_body(json);
        match header {
            Some((name, value)) => response.with_header(name, value),
            None => response,
        }
    }
}

impl From<&AuthFailure> for Fault {
    fn from(failure: &AuthFailure) -> Self {
        match failure {
            AuthFailure::Unauthenticated(why) => Self::new(401, "unauthenticated", why.as_str()).with_header("WWW-Authenticate", "Bearer"),
            AuthFailure::RateLimited { retry_after_seconds } => {
                let detail = format!("too many failed proofs of identity from your address; try again in {retry_after_seconds} s");
                Self::new(429, "rate_limited", detail).with_header("Retry-After", retry_after_seconds)
            }
        }
    }
}

impl Fault {
    /// How the audit log calls it, for what never reached the engine.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.status {
            401 => Outcome::Unauthenticated,
            403 => Outcome::Denied,
            404 => Outcome::NotFound,
            429 => Outcome::RateLimited,
            500.. => Outcome::Failed,
            _ => Outcome::Invalid,
        }
    }
}

fn title(code: &str) -> &'static str {
    match code {
        "invalid" => "the request breaks a rule",
        "unauthenticated" => "who you are is not proven",
        "denied" => "you may not",
        "version_unusable" => "the version is not used any more",
        "used_not_read" => "this key is used, not read",
        "not_exportable" => "this key's material never leaves",
        "expired" => "the version's lifetime has ended",
        "needs_approval" => "others must agree",
        "approval" => "the approval is not for this",
        "not_found" => "not found",
        "deleted" => "deleted",
        "method_not_allowed" => "wrong method",
        "conflict" => "conflict with the present state",
        "too_large" => "too large",
        "ask_again" => "not in this answer",
        "rate_limited" => "too many requests",
        "unavailable" => "not now",
        "storage_full" => "no space left",
        "unrecorded" => "done, and not recorded yet",
        _ => "internal error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claviger_domain::{Capability, Revision};

    #[test]
    fn every_error_has_its_status_and_code() {
        let text = || "x".to_owned();
        let table = [
            (Error::NotFound(text()), 404, "not_found"),
            (Error::Denied(Refusal::Unseen), 404, "not_found"),
            (Error::NoVersion { id: text(), version: text() }, 404, "not_found"),
            (Error::Deleted { id: text(), revision: Revision { epoch: 1, number: 7 } }, 410, "deleted"),
            (Error::Denied(Refusal::Lacks(Capability::Read)), 403, "denied"),
            (Error::Denied(Refusal::Create), 403, "denied"),
            (Error::Denied(Refusal::Expired), 403, "expired"),
            (Error::Conflict(Conflict::Exists), 409, "conflict"),
            (Error::Conflict(Conflict::Changed), 409, "conflict"),
            (Error::Version(VersionError::NotOnePrimary(0)), 409, "conflict"),
            (Error::Invalid { field: "data", rule: text() }, 400, "invalid"),
            (Error::AnswerTooLarge { max: 1 }, 413, "too_large"),
            (Error::AnswerFull, 413, "ask_again"),
            (Error::Damaged { id: text(), why: text() }, 500, "internal"),
            (Error::Unavailable(text()), 503, "unavailable"),
            (Error::Unrecorded { revision: Revision { epoch: 1, number: 7 }, why: text() }, 500, "unrecorded"),
            (Error::Policy(text()), 503, "unavailable"),
            (Error::Unseen(Box::new(Error::Policy(text()))), 404, "not_found"),
            (Error::Full(text()), 507, "storage_full"),
            (Error::RateLimited, 429, "rate_limited"),
            (Error::Internal(text()), 500, "internal"),
        ];
        for (error, status, code) in table {
            let fault = Fault::of(&error, false);
            assert_eq!((fault.status, fault.code), (status, code), "{error:?}");
            assert_eq!(fault.respond(RequestId(1)).status, status);
        }
        assert_eq!(Fault::of(&Error::Conflict(Conflict::Changed), true).status, 412);
        assert_eq!(Fault::of(&Error::Conflict(Conflict::Exists), true).status, 409);
    }

    #[test]
    fn unseen_and_missing_are_one_answer_and_internal_texts_stay_inside() {
        let missing = Fault::of(&Error::NotFound("key `a`".into()), false);
        assert_eq!(missing, Fault::of(&Error::Denied(Refusal::Unseen), false));
        assert!(!Fault::of(&Error::Internal("row 7 is odd".into()), false).detail.contains("row 7"));
    }
}
