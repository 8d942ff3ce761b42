//! Opening one-time links: the page, its script, and the one request that gives the ciphertext and uses a view up.
//!
//! Making, listing and taking back are what keys have anyway: a share is a key below `shares/` (`claviger_wire::share`).

use super::request::{self, Query, authorization};
use super::{FieldError, Native, Route, SURFACE, answer};
use crate::http::{Request, RequestBody, Response};
use crate::native::problem::Fault;
use claviger_domain::audit::Outcome;
use claviger_domain::{Caller, KeyId, RequestId, SecretBytes};
use claviger_engine::{Error, ShareRule};
use claviger_wire::native::{OpenShare, OpenedShare, decode_base64, push_base64};
use claviger_wire::share::{PREFIX, VIEWS, redeem};

/// Who may open shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Nobody: shares are off.
    #[default]
    Off,
    /// Who has proven who he is.
    Proven,
    /// Anybody who has the link.
    Anybody,
}

/// What makes a key a share.
pub(crate) const RULE: ShareRule = ShareRule { prefix: PREFIX, views: VIEWS };

/// Nothing but the page's own script, which talks to this server alone.
const POLICY: &str =
    "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl Native {
    /// The page or its script: the same for every link, since what tells links apart is never sent.
    pub(crate) async fn share_page(&self, route: &Route, request: &Request, id: RequestId) -> Result<Response, Fault> {
        let Request { head, connection, .. } = request;
        self.parts.callers.anonymous(connection).map_err(|limited| Fault::from(&limited))?;
        if self.parts.sharing != Sharing::Anybody {
            self.note_request(head, connection, id, None, Outcome::NotFound, "shares are not open to anybody").await?;
            return Err(Fault::no_route());
        }
        if let Err(error) = Query::parse(head.query.as_deref(), route.query) {
            self.note_request(head, connection, id, None, Outcome::Invalid, "no parameters are taken").await?;
            return Err(Fault::invalid(error));
        }
        self.note_request(head, connection, id, None, Outcome::Ok, "").await?;
        let (kind, text) = match route.pattern {
            "/share.js" => ("text/javascript; charset=utf-8", include_str!("share.js")),
            _ => ("text/html; charset=utf-8", include_str!("share.html")),
        };
        let response = Response::new(200).with_header("Content-Type", kind).with_header("Cache-Control", "no-store");
        let response = response.with_header("Content-Security-Policy", POLICY).with_header("Referrer-Policy", "no-referrer");
        Ok(response.with_header("X-Content-Type-Options", "nosniff").with_body(text))
    }

    /// Gives the ciphertext of a share to who shows its token.
    pub(crate) async fn open_share(&self, route: &Route, request: &Request, id: RequestId) -> Result<Response, Fault> {
        let Request { head, connection, body } = request;
        let caller = self.opener(request, id).await?;
        let RequestBody::Complete(body) = body else {
            return Err(self.refuse(head, connection, &caller, "the body is too large", Fault::too_large(self.limit(route))).await);
        };
        let read = || {
            Query::parse(head.query.as_deref(), route.query)?;
            let OpenShare { id, token } = request::json(&head.headers, body)?;
            let key = KeyId::parse(&format!("{PREFIX}{id}")).map_err(|e| FieldError::new("id", e))?;
            Ok((key, decode_base64(token.as_bytes(), "token")?))
        };
        let (key, token) = match read() {
            Ok(read) => read,
            Err(error) => return Err(self.invalid(head, connection, &caller, error).await),
        };
        let redeemed = |value: &SecretBytes| redeem(value.expose(), &token).map(|sealed| SecretBytes::new(sealed.to_vec()));
        match self.engine().open_share(&caller, SURFACE, RULE, &key, redeemed).await {
            Ok(opened) => {
                let mut data = Vec::new();
                push_base64(&mut data, opened.data.expose());
                let data = String::from_utf8(data).map_err(|e| Fault::of(&Error::Internal(e.to_string()), false))?;
                Ok(answer(200, &OpenedShare { data, views_left: opened.left }))
            }
            Err(error) => {
                if matches!(error, Error::NotFound(_))
                    && let Some(pause) = self.parts.callers.refused(&caller)
                {
                    Box::pin(tokio::time::sleep(pause)).await;
                }
                Err(Fault::of(&error, false))
            }
        }
    }

    /// Who opens: a proven caller, or anybody where the configuration has it so and no credential is shown.
    async fn opener(&self, request: &Request, id: RequestId) -> Result<Caller, Fault> {
        let Request { head, connection, .. } = request;
        if self.parts.sharing == Sharing::Off {
            self.parts.callers.anonymous(connection).map_err(|limited| Fault::from(&limited))?;
            self.note_request(head, connection, id, None, Outcome::NotFound, "shares are off").await?;
            return Err(Fault::no_route());
        }
        let header = match authorization(&head.headers) {
            Ok(header) => header,
            Err(error) => return Err(self.two_credentials(error, head, connection, id).await),
        };
        if header.is_none() && self.parts.sharing == Sharing::Anybody {
            self.parts.callers.anonymous(connection).map_err(|limited| Fault::from(&limited))?;
            return Ok(Caller::anonymous(id, Some(connection.peer.ip())));
        }
        match self.parts.callers.native(connection, header, id) {
            Ok(caller) => Ok(caller),
            Err(failure) => Err(self.unproven(&failure, head, connection, id).await),
        }
    }
}
