//! Routes on prefix grants.

use super::{Answer, Ask, Native, SURFACE, answer, quoted};
use claviger_domain::{Generation, Incarnation, Prefix, Revision};
use claviger_wire::native::{Changed, FieldError, PrefixInfo, PrefixList, etag_of, parse_acl, prefix_info};

impl Native {
    pub(crate) async fn list_prefixes(&self, ask: &Ask<'_>) -> Answer {
        let revision = self.engine().revision();
        let grants = self.engine().prefixes(ask.caller, SURFACE).await?;
        let body = PrefixList { prefixes: grants.iter().map(|g| prefix_info(g)).collect() };
        Ok(answer(200, &body).with_header("Claviger-Revision", revision.to_string()))
    }

    pub(crate) async fn show_prefix(&self, ask: &Ask<'_>) -> Answer {
        let revision = self.engine().revision();
        let grant = self.engine().prefix(ask.caller, SURFACE, &prefix(ask)?).await?;
        let body = prefix_info(&grant);
        let response = answer(200, &body).with_header("ETag", quoted(body.etag.as_deref().unwrap_or_default()));
        Ok(response.with_header("Claviger-Revision", revision.to_string()))
    }

    pub(crate) async fn replace_prefix(&self, ask: &Ask<'_>) -> Answer {
        let prefix = prefix(ask)?;
        let PrefixInfo { prefix: named, grants, any_user_creates, rules: _, etag: _ } = ask.json()?;
        if named != prefix.as_str() {
            return Err(FieldError::new("prefix", "the body names another prefix than the query").into());
        }
        let new = Some((parse_acl(&grants, "grants")?, any_user_creates));
        let (revision, standing) = self.engine().change_prefix(ask.caller, SURFACE, &prefix, new, ask.precondition).await?;
        Ok(changed(revision, standing))
    }

    pub(crate) async fn delete_prefix(&self, ask: &Ask<'_>) -> Answer {
        let (revision, _) = self.engine().change_prefix(ask.caller, SURFACE, &prefix(ask)?, None, ask.precondition).await?;
        Ok(changed(revision, None))
    }
}

pub(super) fn prefix(ask: &Ask<'_>) -> Result<Prefix, FieldError> {
    Prefix::parse(ask.query.one("prefix").unwrap_or_default()).map_err(|e| FieldError::new("prefix", e))
}

pub(super) fn changed(revision: Revision, standing: Option<(Incarnation, Generation)>) -> crate::http::Response {
    let etag = standing.map(|(incarnation, generation)| etag_of(incarnation, generation));
    let header = etag.as_deref().map(quoted);
    let response = answer(200, &Changed { etag, revision: revision.to_string(), version: None });
    match header {
        Some(etag) => response.with_header("ETag", etag),
        None => response,
    }
}
