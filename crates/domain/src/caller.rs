//! The caller of one request. Nothing in the engine runs without one.

use crate::{Approving, Identity};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// One request's name in logs, the audit log and the change table. Unique, not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// An identity and the method by which it was proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proven {
    /// Who.
    pub identity: Identity,
    /// The method's name, as logged: `mtls`, `spiffe`, `token`, ….
    pub method: &'static str,
}

/// The method by which an emergency certificate proves its holder.
pub const BREAK_GLASS: &str = "break_glass";

/// Who asks, how that was proven, and where from.
#[derive(Clone, Debug)]
pub struct Caller {
    proven: Arc<[Proven]>,
    also: Option<Arc<[Identity]>>,
    system: Option<&'static str>,
    approving: Approving,
    /// The request.
    pub request_id: RequestId,
    /// The peer's address.
    pub address: Option<IpAddr>,
}

impl Caller {
    /// A caller with at least one proven identity; the first is the default one. `None` when there is none.
    #[must_use]
    pub fn new(proven: Arc<[Proven]>, request_id: RequestId, address: Option<IpAddr>) -> Option<Self> {
        (!proven.is_empty()).then_some(Self { proven, also: None, system: None, approving: Approving::Plain, request_id, address })
    }

    /// Claviger itself, for background work. It may change keys and rights, and never read data.
    #[must_use]
    pub fn system(reason: &'static str, request_id: RequestId) -> Self {
        Self { proven: Arc::from([]), also: None, system: Some(reason), approving: Approving::Plain, request_id, address: None }
    }

    /// Somebody who has proven nothing. No grant reaches him; he acts only by another's word for one thing, such as a share's token.
    #[must_use]
    pub fn anonymous(request_id: RequestId, address: Option<IpAddr>) -> Self {
        Self { proven: Arc::from([]), also: None, system: None, approving: Approving::Plain, request_id, address }
    }

    /// The same caller with the identities that his certificate proves as well, and that he could go by in another request.
    /// They give him no rights now; they count where nobody may grant to himself. A machine's name may be a wildcard.
    #[must_use]
    pub fn with_other_names(self, also: Arc<[Identity]>) -> Self {
        Self { also: Some(also), ..self }
    }

    /// The same caller in a request that asks for an approval or rests on one.
    #[must_use]
    pub fn approving(self, approving: Approving) -> Self {
        Self { approving, ..self }
    }

    /// What the request says about approvals.
    #[must_use]
    pub fn approval(&self) -> &Approving {
        &self.approving
    }

    /// Whether an emergency certificate proved him: then approvals are bypassed, loudly.
    #[must_use]
    pub fn breaks_glass(&self) -> bool {
        self.proven.iter().any(|p| p.method == BREAK_GLASS)
    }

    /// Everyone whom this caller is, or could say he is in another request.
    pub(crate) fn all_his_names(&self) -> impl Iterator<Item = &Identity> {
        self.identities().chain(self.also.iter().flat_map(|also| also.iter()))
    }

    /// All identities, the default one first. Empty for the system.
    #[must_use]
    pub fn proven(&self) -> &[Proven] {
        &self.proven
    }

    /// The identities without their methods.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.proven.iter().map(|p| &p.identity)
    }

    /// The default identity; none for the system.
    #[must_use]
    pub fn default_identity(&self) -> Option<&Identity> {
        self.proven.first().map(|p| &p.identity)
    }

    /// Why Claviger itself acts, if it does.
    #[must_use]
    pub fn system_reason(&self) -> Option<&'static str> {
        self.system
    }

    /// The name for messages and the change table: the default identity's, `claviger`, or `anonymous`.
    #[must_use]
    pub fn name(&self) -> &str {
        let nobody = if self.system.is_some() { "claviger" } else { "anonymous" };
        self.default_identity().map_or(nobody, Identity::id)
    }
}
