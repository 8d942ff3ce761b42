//! Whether a certificate's names allow a host name: the rules of Go's `x509.Certificate.VerifyHostname`, which Knox's
//! servers use (contract knox §5). The common name is not among them.

use std::net::IpAddr;

/// The address that `name` is, if it is one; IPv6 (and IPv4) may stand in brackets.
pub(crate) fn address(name: &str) -> Option<IpAddr> {
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).filter(|n| !n.is_empty()).unwrap_or(name);
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// Whether the DNS name `pattern` of a certificate allows `host`, which is no address.
///
/// Where both are proper host names, a leftmost label `*` stands for any one label and `host` may end with a dot.
/// Otherwise they must be equal but for case.
pub(crate) fn allows(pattern: &str, host: &str) -> bool {
    if is_proper(pattern, true) && is_proper(without_dot(host), false) {
        return labels_match(pattern, without_dot(host));
    }
    let is_root = |n: &str| n.is_empty() || n == ".";
    !is_root(pattern) && pattern.eq_ignore_ascii_case(host)
}

fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

fn labels_match(pattern: &str, host: &str) -> bool {
    let Some(parent) = pattern.strip_prefix("*.") else { return pattern.eq_ignore_ascii_case(host) };
    host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent))
}

fn is_proper(name: &str, is_pattern: bool) -> bool {
    let is_label = |(i, label): (usize, &str)| {
        let is_wildcard = is_pattern && i == 0 && label == "*";
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        is_wildcard || (!label.is_empty() && !label.starts_with('-') && label.bytes().all(legal))
    };
    name != "*" && name.split('.').enumerate().all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_go_matches_them() {
        for (pattern, host, matches) in [
            ("a.x.com", "a.x.com", true),
            ("a.x.com", "A.X.com", true),
            ("A.x.com", "a.x.com", true),
            ("a.x.com", "a.x.com.", true),
            ("a.x.com", "a.x.com..", false),
            ("a.x.com.", "a.x.com.", true),
            ("a.x.com.", "a.x.com", false),
            ("a.x.com", "b.x.com", false),
            ("a.x.com", "x.com", false),
            ("*.x.com", "a.x.com", true),
            ("*.x.com", "a.X.com.", true),
            ("*.x.com", "x.com", false),
            ("*.x.com", ".x.com", false),
            ("*.x.com", "a.b.x.com", false),
            ("*.x.com", "-a.x.com", false),
            ("*.x.com", "*.x.com", true),
            ("a.*.com", "a.x.com", false),
            ("a.*.com", "a.*.com", true),
            ("f*.x.com", "foo.x.com", false),
            ("*", "localhost", false),
            ("*.com", "x.com", true),
            ("under_score.x", "under_score.x", true),
            ("with space", "WITH space", true),
            ("", "", false),
            (".", ".", false),
            ("localhost", "", false),
            ("localhost", "localhost", true),
        ] {
            assert_eq!(allows(pattern, host), matches, "{pattern} {host}");
        }
    }

    #[test]
    fn addresses_may_stand_in_brackets() {
        for (name, is_address) in [
            ("10.0.0.1", true),
            ("[10.0.0.1]", true),
            ("::1", true),
            ("[::1]", true),
            ("::ffff:10.0.0.1", true),
            ("[]", false),
            ("[::1", false),
            ("010.0.0.1", false),
            ("fe80::1%eth0", false),
            ("10.0.0.1.", false),
            ("x.com", false),
        ] {
            assert_eq!(address(name).is_some(), is_address, "{name}");
        }
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
    }
}
