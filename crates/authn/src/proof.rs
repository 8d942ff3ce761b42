//! What a connection's certificate proves, found out once and kept for the connection's requests.

use crate::{ChainError, SpiffeRules};
use crate::{Evidence, MachineCertificates, Rejection, TrustBundles, VerifiedLeaf, VerifiedSvid};
use claviger_domain::{Identity, Timestamp};

/// How long the refusal of a certificate whose time has not come is kept, in seconds: checking costs.
const REFUSAL_KEPT: i64 = 10;

/// Everything that certificates are verified with. Replaced as a whole when a file of roots changes.
#[derive(Debug)]
pub struct Verifiers {
    /// Machines' certificates; `None` when the method is not configured.
    pub machines: Option<MachineCertificates>,
    /// Workloads' certificates; `None` when the method is not configured.
    pub services: Option<TrustBundles>,
    /// Emergency certificates; `None` when there are none.
    pub break_glass: Option<MachineCertificates>,
    /// Another number for every set of roots: what an older set proved does not count any more.
    pub generation: u64,
}

/// What one certificate proves to one set of verifiers.
#[derive(Debug, Clone)]
pub struct CertificateProof {
    /// As a machine's. [`Rejection::NoProvider`] when machines are not configured.
    pub machine: Result<VerifiedLeaf, Rejection>,
    /// As a workload's. [`Rejection::NoProvider`] when workloads are not configured.
    pub service: Result<VerifiedSvid, Rejection>,
    /// As an emergency certificate, where it is one.
    pub break_glass: Option<VerifiedLeaf>,
    generation: u64,
    examined: Timestamp,
    good_until: Timestamp,
}

impl Verifiers {
    /// Verifies what the peer presented, by every method. Never fails: each method has its own answer.
    #[must_use]
    pub fn examine(&self, evidence: &Evidence<'_>) -> CertificateProof {
        let machine = self.machines.as_ref().map_or(Err(Rejection::NoProvider), |m| m.verify(evidence));
        let service = self.services.as_ref().map_or(Err(Rejection::NoProvider), |s| s.verify(evidence));
        let service = service.map_err(|why| self.first_failure(why, &machine, evidence));
        let break_glass = self.break_glass.as_ref().and_then(|b| b.verify(evidence).ok());
        let until = break_glass.as_ref().map_or(Timestamp(i64::MAX), VerifiedLeaf::valid_until);
        let good_until = good_until(&machine, &service, evidence).min(until);
        CertificateProof { machine, service, break_glass, generation: self.generation, examined: evidence.now, good_until }
    }

    /// Knox verifies the chain before it looks for a SPIFFE ID. We need the ID to choose the bundle, and so, for the text
    /// of the refusal only, look whether anyone at all vouches for a certificate that lacks one.
    fn first_failure(&self, why: Rejection, machine: &Result<VerifiedLeaf, Rejection>, evidence: &Evidence<'_>) -> Rejection {
        let lacks_id = matches!(why, Rejection::NoSpiffeId | Rejection::ManySpiffeIds | Rejection::NotSpiffe | Rejection::NoPath);
        let vouched_for = || machine.is_ok() || self.services.as_ref().is_some_and(|s| s.any_vouches(evidence));
        match machine {
            _ if !lacks_id || vouched_for() => why,
            Err(bad_chain @ Rejection::Chain(_)) => bad_chain.clone(),
            _ => crate::ChainError::UnknownAuthority.into(),
        }
    }
}

fn good_until<'a>(
    machine: &'a Result<VerifiedLeaf, Rejection>,
    service: &'a Result<VerifiedSvid, Rejection>,
    evidence: &Evidence<'_>,
) -> Timestamp {
    let kept = |why: &Rejection| match why {
        Rejection::Chain(ChainError::NotYetValid) => evidence.now.plus_seconds(REFUSAL_KEPT),
        // By the same roots it stays refused: a machine's certificate does not become a workload's.
        _ => Timestamp(i64::MAX),
    };
    let machine = machine.as_ref().map_or_else(kept, VerifiedLeaf::valid_until);
    machine.min(service.as_ref().map_or_else(kept, VerifiedSvid::valid_until))
}

impl CertificateProof {
    /// Everyone whom the certificate's holder can say he is. A machine's name may be a wildcard.
    #[must_use]
    pub fn all_identities(&self) -> Vec<Identity> {
        let machines = self.machine.iter().flat_map(VerifiedLeaf::names).map(|name| Identity::Machine { name: name.into() });
        let services = self.service.iter().filter_map(|svid| svid.id(SpiffeRules::KnoxLenient).ok()).map(|id| Identity::Service { id });
        machines.chain(services).collect()
    }

    /// Whether this proof still counts: the roots are the same and no certificate of the path has expired. If not, the
    /// evidence must be examined again.
    #[must_use]
    pub fn is_current(&self, verifiers: &Verifiers, now: Timestamp) -> bool {
        self.generation == verifiers.generation && self.examined <= now && now <= self.good_until
    }

    /// The last moment at which this proof counts, if the roots stay the same.
    #[must_use]
    pub fn good_until(&self) -> Timestamp {
        self.good_until
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{Authority, NOW, at, evidence};

    fn machines_of(ca: &Authority, generation: u64) -> Verifiers {
        Verifiers { machines: Some(MachineCertificates::new(ca.roots())), services: None, break_glass: None, generation }
    }

    #[test]
    fn a_proof_counts_until_the_roots_change_or_a_certificate_expires() {
        let ca = Authority::root("ca");
        let verifiers = machines_of(&ca, 1);
        let proof = verifiers.examine(&evidence(&ca.leaf(&["a"], &|p| p.not_after = at(60))));
        assert!(proof.machine.is_ok());
        assert!(proof.is_current(&verifiers, NOW));
        assert!(proof.is_current(&verifiers, NOW.plus_seconds(60)));
        assert!(!proof.is_current(&verifiers, NOW.plus_seconds(61)));
        assert!(!proof.is_current(&verifiers, NOW.plus_seconds(-1)), "the clock was set back");
        assert!(!proof.is_current(&machines_of(&ca, 2), NOW));
    }

    #[test]
    fn a_refusal_is_looked_at_again_and_the_lack_of_a_certificate_is_not() {
        let ca = Authority::root("ca");
        let verifiers = machines_of(&ca, 1);
        let early = verifiers.examine(&evidence(&ca.leaf(&["a"], &|p| p.not_before = at(5))));
        assert!(early.machine.is_err());
        assert!(early.is_current(&verifiers, NOW.plus_seconds(REFUSAL_KEPT)));
        assert!(!early.is_current(&verifiers, NOW.plus_seconds(REFUSAL_KEPT + 1)));
        assert!(verifiers.examine(&evidence(&[])).is_current(&verifiers, NOW.plus_seconds(1_000_000)));
    }
}
