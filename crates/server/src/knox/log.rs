//! Knox's own access log (contract knox §8), for sites whose tools read it. Claviger's audit log is another, fuller one.

use super::Knox;
use crate::http::{Connection, Head};
use claviger_audit::LineSink;
use claviger_domain::{Caller, RequestId};
use claviger_wire::knox::audit_line::{self, AuditLine, Tls};
use claviger_wire::knox::envelope::Code;
use claviger_wire::knox::form::{self, Body, Poll};
use claviger_wire::knox::route::Routed;
use std::sync::Arc;

/// Where the lines go, and what each says of the server.
pub struct KnoxLog {
    sink: Arc<LineSink>,
    service: String,
    host: String,
}

impl KnoxLog {
    /// A log to `sink`.
    pub fn new(sink: Arc<LineSink>, service: String, host: String) -> Self {
        Self { sink, service, host }
    }
}

impl Knox {
    /// Writes the line of a routed request, if a log is kept.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn logged(
        &self,
        id: RequestId,
        head: &Head,
        body: Body<'_>,
        connection: &Connection,
        routed: &Routed<'_>,
        caller: Option<&Caller>,
        code: Code,
        message: &[u8],
    ) {
        let Some(log) = &self.log else { return };
        let method = String::from_utf8_lossy(head.method_name());
        let path = claviger_wire::knox::route::decoded_path(&method, &head.path).unwrap_or_default();
        let fields = parameters(head, body, routed);
        let parameters: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_ref())).collect();
        let asked = match (routed, form::poll(head.query.as_deref())) {
            (Routed::List, Poll::Changed(asked)) => Some(asked),
            (Routed::List, Poll::All) => Some(std::collections::HashMap::new()),
            _ => None,
        };
        let pairs: Option<Vec<_>> = asked.as_ref().map(|a| a.iter().map(|(k, v)| (k.as_ref(), v.as_ref())).collect());
        let proven = caller.map(Caller::proven).unwrap_or_default();
        let names: Vec<_> = proven.iter().map(|p| p.identity.id()).collect();
        let kinds: Vec<_> = proven.iter().map(|p| (p.method, p.identity.type_name())).collect();
        let peer = connection.peer.to_string();
        let id = line_id(id);
        let tls = connection.tls.as_ref();
        let line = AuditLine {
            id: &id,
            timestamp: self.clock.now().0,
            service: &log.service,
            host: &log.host,
            version: env!("CARGO_PKG_VERSION"),
            code,
            request: audit_line::Request {
                method: &method,
                path: &path,
                parameters: (!matches!(routed, Routed::NotFound)).then_some(&parameters),
                parsed_query: pairs.as_deref(),
                principal: names.first().copied().unwrap_or_default(),
                fallback_principals: caller.is_some().then_some(&names),
                auth_type: &audit_line::auth_type(&kinds),
                remote_addr: &peer,
                tls: tls.map_or_else(Tls::default, |t| Tls {
                    server: t.server_name.as_deref().unwrap_or_default(),
                    cipher: t.cipher_suite,
                    version: t.version,
                    resumed: t.resumed,
                    unique: None,
                }),
            },
            message,
            user_agent: head.headers.get("user-agent").unwrap_or_default(),
        };
        let mut out = Vec::with_capacity(768);
        line.write(&mut out);
        // The sink ends lines itself.
        log.sink.line(out.trim_ascii_end());
    }
}

/// The declared fields that were found; `data` is scrubbed by the line itself.
fn parameters<'a>(head: &'a Head, body: Body<'a>, routed: &'a Routed<'_>) -> Vec<(&'static str, std::borrow::Cow<'a, [u8]>)> {
    let form = |names: &[&'static str]| {
        let content_type = head.headers.get("content-type");
        let found = |name: &&'static str| {
            let [value] = form::fields(content_type, head.query.as_deref(), body, [*name]);
            Some((*name, value?))
        };
        names.iter().filter_map(found).collect::<Vec<_>>()
    };
    let mut all = match routed {
        Routed::Create => form(&["id", "data", "acl"]),
        Routed::PutAccess { .. } => form(&["access", "acl"]),
        Routed::AddVersion { .. } => form(&["data"]),
        Routed::UpdateVersion { .. } => form(&["status"]),
        Routed::Read { .. } => form::query_value(head.query.as_deref(), "status").map(|v| ("status", v)).into_iter().collect(),
        // Found even when it is empty.
        Routed::List => vec![("queryString", std::borrow::Cow::Borrowed(head.query.as_deref().unwrap_or_default()))],
        _ => Vec::new(),
    };
    match routed {
        Routed::Read { key } | Routed::Delete { key } | Routed::Acl { key } | Routed::PutAccess { key } | Routed::AddVersion { key } => {
            all.push(("keyID", std::borrow::Cow::Borrowed(key)));
        }
        Routed::UpdateVersion { key, version } => {
            all.push(("keyID", std::borrow::Cow::Borrowed(key)));
            all.push(("versionID", std::borrow::Cow::Borrowed(version)));
        }
        _ => {}
    }
    all
}

/// Twenty alphanumeric characters that name the request as the audit log does: its number in base 36, cut to the end.
fn line_id(id: RequestId) -> String {
    let mut rest = id.0;
    let digit = |_| {
        let d = u8::try_from(rest % 36).unwrap_or(0);
        rest /= 36;
        char::from(if d < 10 { b'0' + d } else { b'a' + d - 10 })
    };
    let digits: Vec<char> = (0..20).map(digit).collect();
    digits.into_iter().rev().collect()
}
