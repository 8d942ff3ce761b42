//! A site's own policy beside the ACLs: asked only when the ACL says no (contract knox §7).

use crate::keys::permitted;
use crate::start::Engine;
use crate::{Entry, Error, Refusal};
use claviger_domain::{Caller, Capability, ExternalAllow, KeyMeta, Permit, authorize, cap};
use futures::future::BoxFuture;
use std::fmt;
use std::sync::Arc;

/// Times that it is asked about one request, where the key changes meanwhile.
const TRIES: usize = 4;

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
        for _ in 0..TRIES {
            let found = self.memory.read(|t| permitted::<C>(t, caller, id));
            let (Some(policy), Err(refused @ Error::Denied(Refusal::Unseen | Refusal::Lacks(_)))) = (&self.settings.policy, &found) else {
                return found;
            };
            let entry = self.memory.read(|t| t.find_for(caller, id).cloned())?;
            // Where duties are separate nothing goes round the grants ▲.
            if entry.meta.separate_duties || !is_allowed::<C>(policy, caller, &entry, refused).await? {
                return found;
            }
            // It may have taken seconds: what came meanwhile, such as a rule of approval, counts ▲.
            let is_as_asked_about = self.memory.read(|t| t.find_for(caller, id).is_ok_and(|now| Arc::ptr_eq(now, &entry)));
            if is_as_asked_about {
                tracing::info!(key.id = %entry.meta.id, "the access callback allowed {} to {} `{}`", caller.name(), C::CAPABILITY.name(), entry.meta.id);
                let permit = authorize::<C>(caller, &entry.meta, [], Some(&ExternalAllow { by: Arc::from("access callback") }))?;
                return Ok((entry, permit));
            }
        }
        Err(Error::Unavailable("the key changes faster than the access callback answers; nothing was done, try again".to_owned()))
    }
}

/// What the policy says.
async fn is_allowed<C: cap::Kind>(policy: &Policy, caller: &Caller, entry: &Entry, refused: &Error) -> Result<bool, Error> {
    let asked = policy.0.ask(Question { key: &entry.meta, caller, wanted: C::CAPABILITY }).await;
    asked.map_err(|why| match refused {
        Error::Denied(Refusal::Unseen) => Error::Unseen(Box::new(Error::Policy(why))),
        _ => Error::Policy(why),
    })
}
