//! Emergency certificates: made by whoever can open the barrier, for an hour, when nobody else can administer.
//!
//! They prove a user of one reserved group; what that group may do stands in the grants like any other's.

use crate::{Attempt, Authenticator, Verdict};
use claviger_domain::Identity;
use std::sync::Arc;

/// The group that emergency certificates prove. No other method may prove a group of this name.
pub const BREAK_GLASS_GROUP: &str = "claviger:break-glass";

/// The method; what the certificate is worth was found by [`crate::Verifiers::examine`].
#[derive(Debug, Clone, Copy, Default)]
pub struct BreakGlass;

impl Authenticator for BreakGlass {
    fn method(&self) -> &'static str {
        claviger_domain::BREAK_GLASS
    }

    fn authenticate(&self, attempt: &Attempt<'_>) -> Verdict {
        match &attempt.certificate.break_glass {
            Some(leaf) => {
                let name = Arc::from(leaf.own_name().unwrap_or("break-glass"));
                Verdict::Verified(Identity::User { name, groups: Arc::from([Arc::from(BREAK_GLASS_GROUP)]) })
            }
            None => Verdict::NotPresented,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{Authority, evidence};
    use crate::{MachineCertificates, Verifiers};

    #[test]
    fn only_the_emergency_authoritys_certificates_break_the_glass() {
        let (machines, emergency) = (Authority::root("machines"), Authority::root("emergency"));
        let verifiers = Verifiers {
            machines: Some(MachineCertificates::new(machines.roots())),
            services: None,
            break_glass: Some(MachineCertificates::new(emergency.roots())),
            generation: 1,
        };
        let verdict = |ca: &Authority| {
            let proof = verifiers.examine(&evidence(&ca.leaf(&["x.break-glass"], &|_| {})));
            let attempt = Attempt { certificate: &proof, claimed_name: None, token: None };
            BreakGlass.authenticate(&attempt)
        };
        assert_eq!(verdict(&machines), Verdict::NotPresented);
        let Verdict::Verified(Identity::User { name, groups }) = verdict(&emergency) else { panic!("not a user") };
        assert_eq!((&*name, &*groups[0]), ("x.break-glass", BREAK_GLASS_GROUP));
    }
}
