//! Machine names proven by a client certificate (contract knox §5, provider `mtls`).
//!
//! The machine's identity is the name that it claims, and the certificate must allow that name. Common names are ignored.

use crate::certificate::Certificate;
use crate::{Attempt, Authenticator, ChainError, Evidence, Rejection, Roots, Verdict, chain, hostname};
use claviger_domain::{Identity, Timestamp};
use std::net::IpAddr;
use std::sync::Arc;

/// Longest part of a claimed name that is repeated in a refusal.
const SHOWN: usize = 253;

/// Verifies machines' certificates.
#[derive(Debug)]
pub struct MachineCertificates {
    roots: Roots,
}

impl MachineCertificates {
    /// Certificates that lead to `roots` are machines'.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self { roots }
    }

    /// Verifies the presented chain: to a root, at this time, for clients.
    ///
    /// # Errors
    /// [`Rejection::NoCertificate`] or [`Rejection::Chain`].
    pub fn verify(&self, evidence: &Evidence<'_>) -> Result<VerifiedLeaf, Rejection> {
        let valid_until = chain::verify(&self.roots, evidence)?;
        let (leaf, _) = chain::split(evidence)?;
        let names = Certificate::parse(leaf).map_err(|_| ChainError::Malformed)?.names;
        let dns = names.dns.into_iter().map(Box::from).collect();
        Ok(VerifiedLeaf { dns, ip: names.ip, valid_until })
    }
}

/// A verified machine certificate's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedLeaf {
    dns: Vec<Box<str>>,
    ip: Vec<IpAddr>,
    valid_until: Timestamp,
}

impl VerifiedLeaf {
    /// Whether the holder may call itself `name`, by the rules of Go's host name check: case does not matter, a wildcard
    /// stands for the leftmost label, one trailing dot is tolerated, addresses match address names only.
    #[must_use]
    pub fn may_be_called(&self, name: &str) -> bool {
        self.allows(name, WildcardNames::Allowed)
    }

    /// The first DNS name that is one machine's: the name of a machine that claims none.
    #[must_use]
    pub fn own_name(&self) -> Option<&str> {
        self.dns.iter().map(|n| &**n).find(|n| !n.is_empty() && !n.contains('*'))
    }

    /// Every name that the certificate has, wildcards as they stand.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.dns.iter().map(|n| n.to_string()).chain(self.ip.iter().map(IpAddr::to_string))
    }

    /// The last moment at which the chain is good.
    #[must_use]
    pub fn valid_until(&self) -> Timestamp {
        self.valid_until
    }

    fn allows(&self, name: &str, wildcards: WildcardNames) -> bool {
        if let Some(address) = hostname::address(name) {
            return self.ip.contains(&address);
        }
        let counts = |pattern: &str| wildcards == WildcardNames::Allowed || !pattern.contains('*');
        self.dns.iter().any(|pattern| counts(pattern) && hostname::allows(pattern, name))
    }

    fn mismatch(&self, claimed: &str) -> Rejection {
        let names: Vec<String> = match hostname::address(claimed) {
            Some(_) => self.ip.iter().map(IpAddr::to_string).collect(),
            None => self.dns.iter().map(|n| n.to_string()).collect(),
        };
        let claimed = claimed.chars().take(SHOWN).collect::<String>().into_boxed_str();
        match names.len() {
            0 => Rejection::NoName { claimed },
            1..100 => Rejection::OtherName { claimed, valid_for: names.join(", ").into() },
            many => Rejection::OtherName { claimed, valid_for: format!("{many} names").into() },
        }
    }
}

/// How a claimed name becomes the machine's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameCase {
    /// As it was sent, as in Knox: `HOST1` and `host1` are two machines to an ACL.
    #[default]
    AsSent,
    /// In lower case (ASCII), so that entries in lower case reach the machine however it writes itself.
    Folded,
}

/// Whether a certificate for `*.x.com` lets its holder be any `a.x.com`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WildcardNames {
    /// It does, as in Knox.
    #[default]
    Allowed,
    /// Names with a `*` give no identity.
    Refused,
}

/// The method `mtls`: under what name a verified machine goes (contract knox §14, may fix 4). The default is Knox's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MachineNames {
    /// How a name becomes an identity.
    pub case: NameCase,
    /// Whether wildcards count.
    pub wildcard: WildcardNames,
}

impl MachineNames {
    fn identity(&self, leaf: &VerifiedLeaf, claimed: Option<&[u8]>) -> Result<Identity, Rejection> {
        let name = match claimed {
            // A name that is no text can match no certificate; it is made text to be refused in words.
            Some(claimed) => String::from_utf8_lossy(claimed),
            None => leaf.own_name().ok_or(Rejection::NoOwnName)?.into(),
        };
        if !leaf.allows(&name, self.wildcard) {
            return Err(leaf.mismatch(&name));
        }
        let name: Arc<str> = match self.case {
            NameCase::AsSent => name.as_ref().into(),
            NameCase::Folded => name.to_ascii_lowercase().into(),
        };
        Ok(Identity::Machine { name })
    }
}

impl Authenticator for MachineNames {
    fn method(&self) -> &'static str {
        "mtls"
    }

    fn authenticate(&self, attempt: &Attempt<'_>) -> Verdict {
        match &attempt.certificate.machine {
            Err(Rejection::NoCertificate | Rejection::NoProvider) => Verdict::NotPresented,
            Err(why) => Verdict::Rejected(why.clone()),
            Ok(leaf) => self.identity(leaf, attempt.claimed_name).map_or_else(Verdict::Rejected, Verdict::Verified),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{Authority, evidence};
    use claviger_domain::{Acl, Caller, Capabilities, Capability, Principal, Proven, RequestId, check_rights_change};
    use proptest::prelude::*;

    fn verified(names: &[&str]) -> VerifiedLeaf {
        let ca = Authority::root("ca");
        MachineCertificates::new(ca.roots()).verify(&evidence(&ca.leaf(names, &|_| {}))).unwrap()
    }

    #[test]
    fn the_certificate_decides_under_which_names_a_machine_may_go() {
        let leaf = verified(&["host1.x.com", "*.w.com", "10.0.0.1", "::1", "UPPER.x.com"]);
        for (name, may) in [
            ("host1.x.com", true),
            ("HOST1.X.COM", true),
            ("upper.x.com", true),
            ("host1.x.com.", true),
            ("host2.x.com", false),
            ("any.w.com", true),
            ("a.any.w.com", false),
            ("w.com", false),
            ("10.0.0.1", true),
            ("[10.0.0.1]", true),
            ("::ffff:10.0.0.1", true),
            ("10.0.0.2", false),
            ("::1", true),
            ("[::1]", true),
            ("[0:0:0:0:0:0:0:1]", true),
            ("[::2]", false),
            ("common-name.x.com", false),
            ("", false),
            (".", false),
        ] {
            assert_eq!(leaf.may_be_called(name), may, "{name}");
        }
    }

    #[test]
    fn an_address_written_as_a_dns_name_is_no_address() {
        assert!(!VerifiedLeaf { dns: vec!["10.0.0.1".into()], ip: vec![], valid_until: Timestamp(0) }.may_be_called("10.0.0.1"));
        assert!(!VerifiedLeaf { dns: vec!["*.0.0.1".into()], ip: vec![], valid_until: Timestamp(0) }.may_be_called("10.0.0.1"));
    }

    #[test]
    fn settings_decide_how_the_claimed_name_becomes_an_identity() {
        let leaf = verified(&["*.w.com", "host1.x.com"]);
        let identity = |case, wildcard, claimed: Option<&str>| {
            MachineNames { case, wildcard }.identity(&leaf, claimed.map(str::as_bytes)).map(|i| i.id().to_owned())
        };
        use {NameCase::*, WildcardNames::*};
        assert_eq!(identity(AsSent, Allowed, Some("HOST1.x.com.")).unwrap(), "HOST1.x.com.");
        assert_eq!(identity(Folded, Allowed, Some("HOST1.x.com")).unwrap(), "host1.x.com");
        assert_eq!(identity(AsSent, Allowed, Some("any.w.com")).unwrap(), "any.w.com");
        assert_eq!(identity(AsSent, Refused, Some("host1.x.com")).unwrap(), "host1.x.com");
        assert!(identity(AsSent, Refused, Some("any.w.com")).is_err());
        assert!(identity(AsSent, Refused, Some("*.w.com")).is_err());
        assert_eq!(identity(AsSent, Allowed, None).unwrap(), "host1.x.com");
    }

    #[test]
    fn refusals_say_what_the_certificate_is_good_for() {
        let refuse =
            |names: &[&str], claimed: &[u8]| MachineNames::default().identity(&verified(names), Some(claimed)).unwrap_err().to_string();
        assert_eq!(refuse(&["a.x", "b.x"], b"c.x"), "x509: certificate is valid for a.x, b.x, not c.x");
        assert_eq!(refuse(&["a.x", "10.0.0.1"], b"10.0.0.2"), "x509: certificate is valid for 10.0.0.1, not 10.0.0.2");
        assert_eq!(refuse(&["10.0.0.1"], b"c.x"), "x509: certificate is not valid for any names, but wanted to match c.x");
        assert!(refuse(&["a.x"], &[b'y'; 100_000]).len() < 400);
        assert!(refuse(&["a.x"], b"\xff").contains('\u{fffd}'));
        assert_eq!(MachineNames::default().identity(&verified(&["*.x"]), None), Err(Rejection::NoOwnName));
    }

    /// A caller by a certificate of these names, as the server makes one: every name of the certificate is himself.
    fn holder(leaf: &VerifiedLeaf) -> Caller {
        let all: Vec<_> = leaf.names().map(|name| Identity::Machine { name: name.into() }).collect();
        let proven = Proven { identity: all[0].clone(), method: "mtls" };
        Caller::new(Arc::from([proven]), RequestId(1), None).unwrap().with_other_names(all.into())
    }

    fn is_self_grant(caller: &Caller, to: &Principal) -> bool {
        let new = Acl::default().set(to.clone(), Capabilities::of([Capability::Read]));
        check_rights_change(caller, &Acl::default(), &new).is_err()
    }

    #[test]
    fn a_prefix_of_a_bracketed_address_is_the_address() {
        for (ip, spelling) in [("::1", "[::1]"), ("10.0.0.1", "[10.0.0.1]")] {
            let leaf = VerifiedLeaf { dns: vec![], ip: vec![ip.parse().unwrap()], valid_until: Timestamp(0) };
            assert!(leaf.may_be_called(spelling));
            for end in 1..=spelling.len() {
                let prefix = Principal::MachinePrefix(spelling[..end].into());
                assert!(is_self_grant(&holder(&leaf), &prefix), "{prefix}");
            }
        }
    }

    fn address_spelling(ip: IpAddr) -> impl Strategy<Value = String> {
        let groups = |ip: std::net::Ipv6Addr| ip.segments().map(|g| format!("{g:04X}")).join(":");
        let v6 = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let plain = vec![ip.to_string(), v6.to_string(), groups(v6), v6.to_string().to_uppercase()];
        (prop::sample::select(plain), any::<bool>()).prop_map(|(s, bracketed)| if bracketed { format!("[{s}]") } else { s })
    }

    /// A certificate's DNS name and something to claim by it; some of it is nonsense, and `may_be_called` says so.
    fn dns_and_claim() -> impl Strategy<Value = (VerifiedLeaf, String)> {
        let pattern = "(\\*\\.|\\*)?[aAxX_*.\\-]{0,6}";
        let claim = prop_oneof![Just(None), "[aX*.]{1,4}".prop_map(Some)];
        (pattern, claim, any::<bool>(), any::<bool>()).prop_map(|(pattern, label, upper, dot)| {
            let name = match label {
                Some(label) => pattern.replacen('*', &label, 1),
                None => pattern.clone(),
            };
            let name = if upper { name.to_ascii_uppercase() } else { name };
            let leaf = VerifiedLeaf { dns: vec![pattern.into()], ip: vec![], valid_until: Timestamp(0) };
            (leaf, if dot { name + "." } else { name })
        })
    }

    fn address_and_claim() -> impl Strategy<Value = (VerifiedLeaf, String)> {
        let ip =
            prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u16; 8]>().prop_map(IpAddr::from), Just("::1".parse().unwrap())];
        ip.prop_flat_map(|ip| {
            let leaf = VerifiedLeaf { dns: vec![], ip: vec![ip], valid_until: Timestamp(0) };
            (Just(leaf), address_spelling(ip))
        })
    }

    proptest! {
        #[test]
        fn whatever_a_certificate_may_be_called_is_its_holder_to_separate_duties(
            (leaf, claim) in prop_oneof![dns_and_claim(), address_and_claim()],
        ) {
            if !leaf.may_be_called(&claim) {
                return Ok(());
            }
            let caller = holder(&leaf);
            prop_assert!(is_self_grant(&caller, &Principal::Machine(claim.as_str().into())), "machine:{claim}");
            for end in 1..=claim.len() {
                prop_assert!(is_self_grant(&caller, &Principal::MachinePrefix(claim[..end].into())), "machine_prefix:{}", &claim[..end]);
            }
        }
    }
}
