//! Routes on who may do what: a key's own rights, why someone may, what someone reaches.

use super::keys::{changed, cursor, limit, seen};
use super::{Answer, Ask, Native, Operation, SURFACE, answer};
use claviger_domain::{Caller, Capabilities, Identity, Prefix, Principal};
use claviger_engine::{Disclosure, Engine, Pattern, RightsEdit};
use claviger_wire::native::{
    AclBody, Explanation, FieldError, Reach, ReachedKey, RightSource, acl_entries, etag, names, parse_acl, principal_entry,
};
use std::collections::HashSet;
use std::sync::Arc;

impl Native {
    pub(crate) async fn show_acl(&self, ask: &Ask<'_>) -> Answer {
        let entry = self.engine().rights(ask.caller, SURFACE, ask.key()?.as_str(), Disclosure::Permitted).await?;
        let body = AclBody { grants: acl_entries(&entry.meta.acl) };
        Ok(seen(answer(200, &body), &etag(&entry.meta), entry.revision))
    }

    pub(crate) async fn change_acl(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let body = ask.json()?;
        let edit = if ask.route.operation == Operation::EditAcl {
            entries(&body)?
        } else {
            RightsEdit::Replace(parse_acl(&body.grants, "grants")?)
        };
        let added = self.engine().change_rights(ask.caller, SURFACE, id.as_str(), &edit, ask.precondition, |_, _| Ok(())).await?;
        Ok(changed(200, &added))
    }

    pub(crate) async fn explain(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let (principal, subject) = subject(ask)?;
        let because = self.engine().explain(ask.caller, SURFACE, id.as_str(), &subject).await?;
        let allowed = because.iter().fold(Capabilities::NONE, |sum, (_, _, counts)| sum.union(*counts));
        let source = |(prefix, grant, counts): &(Option<Prefix>, claviger_domain::Grant, Capabilities)| RightSource {
            source: prefix.as_ref().map_or_else(|| "key".to_owned(), |p| format!("prefix:{p}")),
            principal: grant.principal.to_string(),
            grants: names(grant.capabilities),
            counts: names(*counts),
        };
        let because = because.iter().map(source).collect();
        Ok(answer(200, &Explanation { id: id.to_string(), principal, allowed: names(allowed), because }))
    }

    pub(crate) async fn reach(&self, ask: &Ask<'_>) -> Answer {
        let (principal, subject) = subject(ask)?;
        let prefix = Prefix::parse(ask.query.one("prefix").unwrap_or_default()).map_err(|e| FieldError::new("prefix", e))?;
        let pattern = Pattern { prefix: prefix.as_str().to_owned(), labels: Vec::new(), after: cursor(ask)? };
        let limit = limit(ask, 100, 1000)?;
        let page = self.engine().reach(ask.caller, SURFACE, &prefix, &pattern, &subject, limit).await?;
        let keys = page.keys.iter().map(|l| ReachedKey { id: l.entry.meta.id.to_string(), allowed: names(l.allowed) }).collect();
        let body = Reach { principal, keys, next: page.next.map(|id| id.to_string()) };
        Ok(answer(200, &body).with_header("Claviger-Revision", page.revision.to_string()))
    }
}

fn entries(body: &AclBody) -> Result<RightsEdit, FieldError> {
    let mut seen = HashSet::new();
    let one = |(i, entry)| {
        let (principal, capabilities) = principal_entry(entry, &format!("grants[{i}]"))?;
        match seen.insert(principal.clone()) {
            true => Ok((principal, capabilities)),
            false => Err(FieldError::new(format!("grants[{i}].principal"), "stands twice")),
        }
    };
    body.grants.iter().enumerate().map(one).collect::<Result<_, _>>().map(RightsEdit::Set)
}

/// Whom a question is about, as asked and as a caller who never acts.
fn subject(ask: &Ask<'_>) -> Result<(String, Caller), FieldError> {
    let text = ask.query.one("principal").unwrap_or_default();
    let principal: Principal = text.parse().map_err(|e| FieldError::new("principal", e))?;
    let groups: Arc<[Arc<str>]> = ask.query.all("group").map(Arc::from).collect();
    let has_groups = !groups.is_empty();
    let identity = match principal {
        Principal::User(name) => return Ok((text.to_owned(), Engine::hypothetical(Identity::User { name, groups }))),
        Principal::Machine(name) => Identity::Machine { name },
        Principal::Service(id) => Identity::Service { id },
        _ => {
            return Err(FieldError::new(
                "principal",
                "must be one user, machine or service; to ask about a group, name a user and the group",
            ));
        }
    };
    if has_groups {
        return Err(FieldError::new("group", "only users are in groups"));
    }
    Ok((text.to_owned(), Engine::hypothetical(identity)))
}
