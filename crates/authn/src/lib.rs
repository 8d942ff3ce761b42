//! Who is calling: one file per method of proof.
//!
//! What the peer shows is [`Evidence`], which proves nothing yet. [`Verifiers::examine`] checks it once per connection
//! and gives a [`CertificateProof`]; an [`Authenticator`] turns that, and what a request adds, into an
//! [`Identity`].
//!
//! This crate does no I/O, reads no clock, and knows neither HTTP nor what a caller may do. That the peer holds the key of
//! the certificate that it shows is checked in the TLS handshake, not here.

mod break_glass;
mod certificate;
mod chain;
mod denials;
mod der;
pub mod fuzz;
pub mod github;
mod hostname;
mod jwks;
mod jwt;
#[cfg(test)]
mod jwt_testing;
mod knox;
mod login;
mod mtls;
mod names;
mod oidc;
#[cfg(test)]
mod oidc_tests;
mod proof;
mod rejection;
mod roots;
mod sessions;
mod spiffe_x509;
#[cfg(test)]
mod testing;
mod token;

pub use break_glass::{BREAK_GLASS_GROUP, BreakGlass};
pub use denials::{DenialLimits, Denials, RateLimited};
pub use jwks::{KeySet, KeySetError, MAX_SET};
pub use jwt::{Algorithm, Claims, JwtError, MAX_TOKEN, Unverified};
pub use knox::{Credential, KnoxProvider, KnoxProviders};
pub use login::{LOGIN_TIME, Logins, OnceError, Ticket, nonce_digest};
pub use mtls::{MachineCertificates, MachineNames, NameCase, VerifiedLeaf, WildcardNames};
pub use names::{NameError, Names, PrefixError, Prefixes, RESERVED};
pub use oidc::{ClaimPath, FRESH, OidcError, OidcLogin, OidcRules, Purpose};
pub use proof::{CertificateProof, Verifiers};
pub use rejection::{ChainError, Rejection};
pub use roots::{Roots, RootsError};
pub use sessions::{Session, Sessions, SessionsFull};
pub use spiffe_x509::{SpiffeRules, TrustBundles, VerifiedSvid};
pub use token::{StaticUser, TokenError, TokenTable};

use claviger_domain::{Identity, Proven, Timestamp};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Duration;

/// How far the clocks of an issuer and of this server may be configured to disagree.
pub const MAX_SKEW: Duration = Duration::from_secs(300);

/// What a peer presented in its handshake, unverified.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The certificates in the order they came: the leaf, then what may help to reach a root. Empty when there was none.
    pub certificates: &'a [CertificateDer<'static>],
    /// The present moment.
    pub now: Timestamp,
}

/// What one method makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<T = Identity> {
    /// The caller did not try this method.
    NotPresented,
    /// He did, and this is who he is.
    Verified(T),
    /// He did, and it proves nothing.
    Rejected(Rejection),
}

/// One request's proofs: what the connection proved, and what came with the request itself.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// What the connection's certificate proves.
    pub certificate: &'a CertificateProof,
    /// The machine name that the caller claims, if he claims one. Not yet known to be text.
    pub claimed_name: Option<&'a [u8]>,
    /// A bearer token. Secret.
    pub token: Option<&'a [u8]>,
}

/// A method of proof (a seam: DESIGN §3).
///
/// # Guarantees
/// `Verified` is given only for what was proven; an attempt that lacks the method's means is `NotPresented`.
pub trait Authenticator: Send + Sync {
    /// The method's name, as logged.
    fn method(&self) -> &'static str;

    /// Decides who makes this attempt.
    fn authenticate(&self, attempt: &Attempt<'_>) -> Verdict;
}

/// Tries every method and collects all that succeed, in order; the first is the default identity.
///
/// Where none succeeds the answer is the last rejection, or `NotPresented` when nothing was tried.
pub fn prove(methods: &[&dyn Authenticator], attempt: &Attempt<'_>) -> Verdict<Arc<[Proven]>> {
    let mut proven = Vec::new();
    let mut last = Verdict::NotPresented;
    for method in methods {
        match method.authenticate(attempt) {
            Verdict::Verified(identity) => proven.push(Proven { identity, method: method.method() }),
            Verdict::Rejected(why) => last = Verdict::Rejected(why),
            Verdict::NotPresented => {}
        }
    }
    if proven.is_empty() { last } else { Verdict::Verified(proven.into()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{Authority, evidence};
    use claviger_domain::TrustDomain;
    use std::collections::BTreeMap;

    fn verifiers(ca: &Authority) -> Verifiers {
        let bundles = BTreeMap::from([(TrustDomain::parse("dom").unwrap(), ca.roots())]);
        let machines = Some(MachineCertificates::new(ca.roots()));
        Verifiers { machines, services: Some(TrustBundles::new(bundles)), break_glass: None, generation: 1 }
    }

    fn tokens() -> TokenTable {
        let user = StaticUser { name: "alice".into(), groups: vec![], token: b"tok".to_vec().into() };
        TokenTable::new(vec![user]).unwrap()
    }

    fn ids(verdict: Verdict<Arc<[Proven]>>) -> Vec<String> {
        let Verdict::Verified(proven) = verdict else { panic!("{verdict:?}") };
        proven.iter().map(|p| format!("{}={}", p.method, p.identity.id())).collect()
    }

    /// What every method must do.
    fn contract(method: &dyn Authenticator) {
        let ca = Authority::root("ca");
        let verifiers = verifiers(&ca);
        let nothing = verifiers.examine(&evidence(&[]));
        let foreign = verifiers.examine(&evidence(&Authority::root("ca").leaf(&["h", "spiffe://dom/a"], &|_| {})));
        let off = Verifiers { machines: None, services: None, break_glass: None, generation: 1 };
        let off = off.examine(&evidence(&ca.leaf(&["h", "spiffe://dom/a"], &|_| {})));
        let attempt = |certificate, token| method.authenticate(&Attempt { certificate, claimed_name: Some(b"h"), token });
        assert_eq!(attempt(&nothing, None), Verdict::NotPresented, "{}", method.method());
        assert_eq!(attempt(&off, None), Verdict::NotPresented, "{}", method.method());
        assert!(matches!(attempt(&foreign, Some(b"wrong")), Verdict::Rejected(_)), "{}", method.method());
    }

    #[test]
    fn every_method_keeps_the_contract() {
        contract(&MachineNames::default());
        contract(&SpiffeRules::Strict);
        contract(&SpiffeRules::KnoxLenient);
        contract(&tokens());
    }

    #[test]
    fn all_that_is_proven_is_collected_in_order_and_a_failure_beside_it_does_not_count() {
        let ca = Authority::root("ca");
        let tokens = tokens();
        let methods: [&dyn Authenticator; 3] = [&tokens, &MachineNames::default(), &SpiffeRules::Strict];
        let proof = verifiers(&ca).examine(&evidence(&ca.leaf(&["h", "spiffe://dom/a"], &|_| {})));
        let attempt = Attempt { certificate: &proof, claimed_name: None, token: Some(b"tok") };
        assert_eq!(ids(prove(&methods, &attempt)), ["token=alice", "mtls=h", "spiffe=spiffe://dom/a"]);
        assert_eq!(ids(prove(&methods, &Attempt { token: Some(b"no"), ..attempt })), ["mtls=h", "spiffe=spiffe://dom/a"]);
        let nothing = verifiers(&ca).examine(&evidence(&[]));
        assert_eq!(prove(&methods, &Attempt { certificate: &nothing, token: None, ..attempt }), Verdict::NotPresented);
        let wrong = Attempt { certificate: &nothing, token: Some(b"no"), ..attempt };
        assert_eq!(prove(&methods, &wrong), Verdict::Rejected(Rejection::UnknownToken));
    }
}
