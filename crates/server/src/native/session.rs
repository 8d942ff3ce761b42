//! Routes by which people log in and out. The first two take no credential: the ID token is one.
//!
//! # Guarantees
//! - No session is given out without its record ▲: who, of which issuer, how proven. Refusals are records too, and a flood of
//!   them from one address is not written down one by one.
//! - Nothing of a token is in an answer, a record or the log.

use super::request::{self, Query};
use super::server::identity;
use super::{Answer, Ask, Fault, FieldError, Native, Route, SURFACE, answer};
use crate::http::{Request, RequestBody, Response};
use crate::people::{Issuer, LoggedIn, LoginError};
use claviger_authn::{OnceError, SessionsFull};
use claviger_domain::audit::{Action, Outcome, Record};
use claviger_domain::{Caller, Proven, RequestId};
use claviger_wire::native::{CreateSession, Done, LoginIssuer, LoginMethods, SessionInfo, unix_to_rfc3339};
use std::sync::Arc;

impl Native {
    pub(crate) async fn login_methods(&self, route: &Route, request: &Request, id: RequestId) -> Result<Response, Fault> {
        let Request { head, connection, .. } = request;
        self.parts.callers.login(connection).map_err(|limited| Fault::from(&limited))?;
        if let Err(error) = Query::parse(head.query.as_deref(), route.query) {
            self.note_request(head, connection, id, None, Outcome::Invalid, "no parameters are taken").await?;
            return Err(Fault::invalid(error));
        }
        self.note_request(head, connection, id, None, Outcome::Ok, "").await?;
        let people = &self.parts.people;
        let issuers = people.issuers().iter().map(published).collect();
        Ok(answer(200, &LoginMethods { issuers, nonce: people.nonce() }))
    }

    pub(crate) async fn create_session(&self, route: &Route, request: &Request, id: RequestId) -> Result<Response, Fault> {
        let Request { head, connection, body } = request;
        let RequestBody::Complete(body) = body else {
            self.parts.callers.login(connection).map_err(|limited| Fault::from(&limited))?;
            self.note_request(head, connection, id, None, Outcome::Invalid, "the body is too large").await?;
            return Err(Fault::too_large(self.limit(route)));
        };
        let read = || {
            Query::parse(head.query.as_deref(), route.query)?;
            request::json::<CreateSession>(&head.headers, body)
        };
        let wanted = match read() {
            Ok(wanted) => wanted,
            Err(error) => {
                self.parts.callers.login(connection).map_err(|limited| Fault::from(&limited))?;
                self.note_request(head, connection, id, None, Outcome::Invalid, "the request breaks a rule").await?;
                return Err(Fault::invalid(error));
            }
        };
        let action = if wanted.ticket.is_some() { Action::RenewSession } else { Action::Login };
        match self.parts.people.open(&wanted.issuer, wanted.id_token.as_bytes(), wanted.ticket.as_deref()).await {
            Ok(opened) => self.hand_out(action, opened, request, id).await,
            Err(why) => {
                self.parts.callers.login(connection).map_err(|limited| Fault::from(&limited))?;
                let fault = refusal(&why);
                let issuer = if why == LoginError::NoIssuer { "an unknown issuer" } else { &wanted.issuer };
                self.note_login(action, request, id, None, fault.outcome(), &format!("{issuer}: {why}")).await?;
                Err(fault)
            }
        }
    }

    /// Records a session, then gives it out.
    async fn hand_out(&self, action: Action, opened: LoggedIn, request: &Request, id: RequestId) -> Result<Response, Fault> {
        let LoggedIn { token, session, ticket, until, subject, groups_left_out } = opened;
        let proven = Proven { identity: session.identity.clone(), method: session.method };
        let shown = identity(&proven);
        let caller = Caller::new(Arc::from([proven]), id, Some(request.connection.peer.ip()));
        let mut reason = format!("subject `{subject}`, until {}", unix_to_rfc3339(session.expires));
        if groups_left_out > 0 {
            reason.push_str(&format!("; {groups_left_out} groups are not this issuer's to name and do not count"));
        }
        if let Err(unkept) = self.note_login(action, request, id, caller.as_ref(), Outcome::Ok, &reason).await {
            session.end();
            return Err(unkept);
        }
        let info = SessionInfo {
            token: token.to_string(),
            expires: unix_to_rfc3339(session.expires),
            ticket,
            renewable_until: unix_to_rfc3339(until),
            identity: shown,
        };
        Ok(answer(201, &info))
    }

    pub(crate) async fn end_session(&self, ask: &Ask<'_>) -> Answer {
        let header = super::authorization(&ask.head.headers)?;
        let Some(session) = self.parts.callers.session(header) else {
            return Err(FieldError::new("authorization", "is no session's token: there is nothing to end").into());
        };
        // First the end, then its record: a log that is full must not keep a session open.
        self.parts.people.end(&session);
        self.parts.callers.sessions_ended();
        self.note(ask, Action::Logout, Outcome::Ok, "").await?;
        Ok(answer(200, &Done { done: true }))
    }

    async fn note_login(
        &self,
        action: Action,
        request: &Request,
        id: RequestId,
        caller: Option<&Caller>,
        outcome: Outcome,
        reason: &str,
    ) -> Result<(), Fault> {
        let bare = Record::new(self.parts.clock.now(), id, SURFACE, action, outcome);
        let record = Record { caller, address: Some(request.connection.peer.ip()), reason, ..bare };
        self.engine().note(&record).await.map_err(|e| Fault::of(&e, false))
    }
}

fn published(issuer: &Issuer) -> LoginIssuer {
    let rules = &issuer.rules;
    LoginIssuer {
        name: rules.name.to_string(),
        issuer: rules.issuer.clone(),
        client_id: rules.client_id.clone(),
        scopes: issuer.scopes.clone(),
        prompt: issuer.prompt.clone(),
        device_flow: rules.device_flow,
        session_total: rules.session_total.as_secs(),
        ca: issuer.ca_pem.clone(),
        loopback_http: issuer.loopback_http,
    }
}

/// What a refused login is answered with.
fn refusal(why: &LoginError) -> Fault {
    match why {
        LoginError::NoIssuer => {
            Fault::invalid(FieldError::new("issuer", "there is no issuer of that name here; GET /api/v1/login lists those that there are"))
        }
        LoginError::Keys(_) => Fault::unavailable(format!("{why}; try again in a moment")),
        LoginError::Full(SessionsFull::All | SessionsFull::OfOne) | LoginError::Once(OnceError::Full) => Fault::busy(why.to_string()),
        LoginError::Token(_) | LoginError::Once(_) | LoginError::Over | LoginError::Full(SessionsFull::Ended) => {
            Fault::unauthenticated(why.to_string())
        }
    }
}
