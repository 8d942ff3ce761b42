//! Knox's walk through its providers (contract knox §5): which methods a credential selects, and what it makes of them.

use crate::{Attempt, Authenticator, CertificateProof, MachineNames, Rejection, SpiffeRules, TokenTable, Verdict, Verifiers};
use claviger_domain::Proven;
use std::fmt;
use std::sync::Arc;

/// An `Authorization` header as Knox's clients send it, parsed and unproven.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credential<'a> {
    /// The first byte; `0` in all that is known.
    pub version: u8,
    /// The second byte: `u`, `t` or `s`.
    pub kind: u8,
    /// The rest, at least one byte. May be a token, hence secret.
    pub payload: &'a [u8],
}

impl<'a> Credential<'a> {
    /// The credential in a header's value, or `None` when the value has fewer than three bytes.
    #[must_use]
    pub fn parse(header: &'a [u8]) -> Option<Self> {
        match header {
            [version, kind, payload @ ..] if !payload.is_empty() => Some(Self { version: *version, kind: *kind, payload }),
            _ => None,
        }
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}{}, {} bytes)", self.version.escape_ascii(), self.kind.escape_ascii(), self.payload.len())
    }
}

/// One registered provider.
#[derive(Clone)]
pub struct KnoxProvider {
    /// Its name as logged.
    pub name: &'static str,
    /// The version byte that selects it.
    pub version: u8,
    /// The type byte that selects it.
    pub kind: u8,
    /// What it does. The payload is handed to it as claimed name and as token; each method reads its own.
    pub method: Arc<dyn Authenticator>,
}

/// The providers in the order of their registration.
#[derive(Clone)]
pub struct KnoxProviders(Vec<KnoxProvider>);

impl KnoxProviders {
    /// A site's own order.
    #[must_use]
    pub fn new(providers: Vec<KnoxProvider>) -> Self {
        Self(providers)
    }

    /// Knox's own order of what is configured: machine certificates, users' tokens, SVIDs, and SVIDs once more under the
    /// machines' type byte.
    #[must_use]
    pub fn standard(verifiers: &Verifiers, names: MachineNames, tokens: Option<Arc<TokenTable>>, rules: SpiffeRules) -> Self {
        let provider = |name, kind, method| KnoxProvider { name, version: b'0', kind, method };
        let machines = verifiers.machines.is_some().then(|| provider("mtls", b't', Arc::new(names) as Arc<dyn Authenticator>));
        let tokens = tokens.map(|tokens| provider("token", b'u', tokens as Arc<dyn Authenticator>));
        let mut all: Vec<_> = machines.into_iter().chain(tokens).collect();
        if verifiers.services.is_some() {
            all.push(provider("spiffe", b's', Arc::new(rules)));
            all.push(provider("spiffe-fallback", b't', Arc::new(rules)));
        }
        Self(all)
    }

    /// Tries every provider that the credential selects and collects all that succeed; the first is the default identity.
    ///
    /// # Errors
    /// The last failing provider's rejection, or [`Rejection::NoProvider`] when none was selected.
    pub fn authenticate(&self, credential: Option<Credential<'_>>, proof: &CertificateProof) -> Result<Arc<[Proven]>, Rejection> {
        let Some(Credential { version, kind, payload }) = credential else { return Err(Rejection::NoProvider) };
        let attempt = Attempt { certificate: proof, claimed_name: Some(payload), token: Some(payload) };
        let mut proven = Vec::new();
        let mut last = Rejection::NoProvider;
        for provider in self.0.iter().filter(|p| p.version == version && p.kind == kind) {
            match provider.method.authenticate(&attempt) {
                Verdict::Verified(identity) => proven.push(Proven { identity, method: provider.name }),
                Verdict::Rejected(why) => last = why,
                // The payload is always there, so only a certificate can be missing.
                Verdict::NotPresented => last = Rejection::NoCertificate,
            }
        }
        if proven.is_empty() { Err(last) } else { Ok(proven.into()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{Authority, at, evidence};
    use crate::{MachineCertificates, StaticUser, TrustBundles};
    use claviger_domain::TrustDomain;
    use rustls_pki_types::CertificateDer;
    use std::collections::BTreeMap;

    struct Site {
        ca: Authority,
        verifiers: Verifiers,
        providers: KnoxProviders,
    }

    fn site() -> Site {
        let ca = Authority::root("ca");
        let bundles = BTreeMap::from([(TrustDomain::parse("dom").unwrap(), ca.roots())]);
        let verifiers = Verifiers {
            machines: Some(MachineCertificates::new(ca.roots())),
            services: Some(TrustBundles::new(bundles)),
            break_glass: None,
            generation: 1,
        };
        let alice = StaticUser { name: "alice".into(), groups: vec![], token: b"tok".to_vec().into() };
        let tokens = Some(Arc::new(TokenTable::new(vec![alice]).unwrap()));
        let providers = KnoxProviders::standard(&verifiers, MachineNames::default(), tokens, SpiffeRules::KnoxLenient);
        Site { ca, verifiers, providers }
    }

    impl Site {
        fn ask(&self, header: &[u8], chain: &[CertificateDer<'static>]) -> Result<String, String> {
            let proof = self.verifiers.examine(&evidence(chain));
            let shown = |p: &Proven| format!("{}={}", p.method, p.identity.id());
            match self.providers.authenticate(Credential::parse(header), &proof) {
                Ok(proven) => Ok(proven.iter().map(shown).collect::<Vec<_>>().join(" ")),
                Err(why) => Err(why.to_string()),
            }
        }
    }

    #[test]
    fn the_walk_collects_all_that_succeed_and_tells_the_last_failure() {
        let site = site();
        let host = site.ca.leaf(&["host1.x.com"], &|_| {});
        let both = site.ca.leaf(&["host1.x.com", "spiffe://dom/a"], &|_| {});
        let svid = site.ca.leaf(&["spiffe://dom/a"], &|_| {});
        let none = vec![];
        let no_provider = Err("No matching authentication providers found");
        let no_certificate = Err("auth: No peer certs configured");
        let no_id = Err("auth: no spiffe identity in certificate");
        for (header, chain, expected) in [
            ("0thost1.x.com", &host, Ok("mtls=host1.x.com")),
            ("0tHOST1.x.com", &host, Ok("mtls=HOST1.x.com")),
            ("0thost2.x.com", &host, no_id),
            ("0thost1.x.com", &both, Ok("mtls=host1.x.com spiffe-fallback=spiffe://dom/a")),
            ("0thost2.x.com", &both, Ok("spiffe-fallback=spiffe://dom/a")),
            ("0tanything", &svid, Ok("spiffe-fallback=spiffe://dom/a")),
            ("0thost1.x.com", &none, no_certificate),
            ("0sx", &svid, Ok("spiffe=spiffe://dom/a")),
            ("0s\u{e9}", &both, Ok("spiffe=spiffe://dom/a")),
            ("0sx", &host, no_id),
            ("0sx", &none, no_certificate),
            ("0utok", &none, Ok("token=alice")),
            ("0utok", &both, Ok("token=alice")),
            ("0uwrong", &both, Err("auth: unknown token")),
            ("0mx", &both, no_provider),
            ("1thost1.x.com", &both, no_provider),
            ("0T host1", &both, no_provider),
            ("0s", &svid, no_provider),
            ("0t", &host, no_provider),
            ("0u", &host, no_provider),
            ("", &both, no_provider),
        ] {
            assert_eq!(site.ask(header.as_bytes(), chain), expected.map(str::to_owned).map_err(str::to_owned), "{header}");
        }
    }

    #[test]
    fn a_bad_certificate_is_told_before_what_it_lacks() {
        let site = site();
        let [expired, foreign] = [
            ("certificate has expired or is not yet valid: it has expired", site.ca.leaf(&["h"], &|p| p.not_after = at(-1))),
            ("certificate signed by unknown authority", Authority::root("other").leaf(&["h"], &|_| {})),
        ];
        for (text, chain) in [expired, foreign] {
            for header in [&b"0th"[..], b"0sx"] {
                assert_eq!(site.ask(header, &chain), Err(format!("auth: failed to verify client's certificate: x509: {text}")));
            }
        }
        let two = site.ca.leaf(&["spiffe://dom/a", "spiffe://dom/b"], &|_| {});
        assert_eq!(site.ask(b"0sx", &two), Err("auth: more than one service identity specified in certificate".into()));
        let garbage = [CertificateDer::from(vec![1, 2, 3])];
        assert_eq!(site.ask(b"0sx", &garbage), Err("auth: failed to verify client's certificate: x509: malformed certificate".into()));
        assert_eq!(site.ask(b"0utok", &garbage), Ok("token=alice".into()), "a stale certificate does not spoil a token");
    }

    #[test]
    fn what_is_not_configured_is_not_registered() {
        let mut site = site();
        site.verifiers.services = None;
        site.providers = KnoxProviders::standard(&site.verifiers, MachineNames::default(), None, SpiffeRules::KnoxLenient);
        let both = site.ca.leaf(&["h", "spiffe://dom/a"], &|_| {});
        assert_eq!(site.ask(b"0th", &both), Ok("mtls=h".into()));
        assert_eq!(site.ask(b"0tg", &both), Err("x509: certificate is valid for h, not g".into()));
        for header in [&b"0sx"[..], b"0utok"] {
            assert_eq!(site.ask(header, &both), Err("No matching authentication providers found".into()));
        }
    }

    #[test]
    fn a_header_is_two_bytes_and_a_payload_and_too_short_or_foreign_ones_match_nothing() {
        assert_eq!(Credential::parse(b"0thost.example").unwrap().payload, b"host.example");
        assert_eq!(Credential::parse(b"0u\xff").unwrap().kind, b'u');
        for short in [&b""[..], b"0", b"0u"] {
            assert!(Credential::parse(short).is_none());
        }
        let site = site();
        let both = site.ca.leaf(&["h", "spiffe://dom/a"], &|_| {});
        for foreign in [&b"1uTOKEN"[..], b"0mhost", b"Bearer x"] {
            assert_eq!(site.ask(foreign, &both), Err("No matching authentication providers found".into()));
        }
    }

    #[test]
    fn nothing_shows_a_payload() {
        assert_eq!(format!("{:?}", Credential::parse(b"0uhunter2").unwrap()), "Credential(0u, 7 bytes)");
    }
}
