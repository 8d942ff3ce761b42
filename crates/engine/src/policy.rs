//! A site's own policy beside the ACLs: asked only when the ACL says no (contract knox §7).

use crate::keys::permitted;
use crate::start::Engine;
use crate::{Conflict, Entry, Error, Refusal};
use claviger_domain::{Caller, Capability, ExternalAllow, KeyMeta, Permit, authorize, cap};
use futures::future::BoxFuture;
use std::fmt;
use std::sync::Arc;

/// What a policy is asked. It never sees key data ▲.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The key.
    pub key: &'a KeyMeta,
    /// Who asks for it.
    pub caller: &'a Caller,
    /// What he wants to do.
    pub wanted: Capability,
}

/// Decides about requests that the ACLs refuse.
pub trait AccessPolicy: Send + Sync {
    /// Whether it may be done all the same; an error refuses with that text.
    fn ask(&self, question: Question<'_>) -> BoxFuture<'static, Result<bool, String>>;
}

/// A policy as a setting.
#[derive(Clone)]
pub struct Policy(pub Arc<dyn AccessPolicy>);

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Policy")
    }
}

impl Engine {
    /// Finds a key for a caller and asks whether he may: the ACLs first, then the site's policy.
    pub(crate) async fn permit<C: cap::Kind>(&self, caller: &Caller, id: &str) -> Result<(Arc<Entry>, Permit<C>), Error> {
        let found = self.memory.read(|t| permitted::<C>(t, caller, id));
        match (&self.settings.policy, found) {
            (Some(Policy(policy)), Err(refused @ Error::Denied(Refusal::Unseen | Refusal::Lacks(_)))) => {
                let entry = self.memory.read(|t| t.find_for(caller, id).cloned())?;
                let seen = (entry.meta.incarnation, entry.meta.generation);
                // Where duties are separate nothing goes round the grants ▲.
                if entry.meta.separate_duties {
                    return Err(refused);
                }
                let asked = policy.ask(Question { key: &entry.meta, caller, wanted: C::CAPABILITY }).await;
                let failed = |why| match &refused {
                    Error::Denied(Refusal::Unseen) => Error::Unseen(Box::new(Error::Policy(why))),
                    _ => Error::Policy(why),
                };
                if !asked.map_err(failed)? {
                    return Err(refused);
                }
                tracing::info!(key.id = %entry.meta.id, "the access callback allowed {} to {} `{}`", caller.name(), C::CAPABILITY.name(), entry.meta.id);
                // It may have taken seconds: what came meanwhile, such as a rule of approval, counts ▲.
                let entry = self.memory.read(|t| t.find_for(caller, id).cloned())?;
                if (entry.meta.incarnation, entry.meta.generation) != seen {
                    return Err(Error::Conflict(Conflict::Changed));
                }
                let permit = authorize::<C>(caller, &entry.meta, [], Some(&ExternalAllow { by: Arc::from("access callback") }))?;
                Ok((entry, permit))
            }
            (_, found) => found,
        }
    }
}
