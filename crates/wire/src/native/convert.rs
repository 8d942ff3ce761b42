//! Between the native API's JSON and the domain, by hand, so that neither can change the other by accident.

use super::{GrantEntry, KeyInfo, KeyPolicy, PrefixInfo, VersionInfo};
use ::base64::Engine as _;
use ::base64::engine::general_purpose::STANDARD;
use claviger_domain::{
    Acl, AclTooLong, Capabilities, Capability, Generation, Grant, Incarnation, KeyKind, KeyMeta, MAX_GRANTS, PrefixGrant, Preset,
    Principal, Revision, Timestamp, Version,
};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A member of the request breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {rule}")]
pub struct FieldError {
    /// Which member.
    pub field: String,
    /// Which rule, and what to do.
    pub rule: String,
}

impl FieldError {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, rule: impl ToString) -> Self {
        Self { field: field.into(), rule: rule.to_string() }
    }
}

/// The set of these names.
///
/// # Errors
/// [`FieldError`] with the unknown name.
pub fn capabilities_from_names(names: &[String], field: &str) -> Result<Capabilities, FieldError> {
    let one = |name: &String| {
        let all = || Capability::ALL.map(Capability::name).join(", ");
        Capability::from_name(name).ok_or_else(|| FieldError::new(field, format!("`{name}` is no capability; there are {}", all())))
    };
    Ok(Capabilities::of(names.iter().map(one).collect::<Result<Vec<_>, _>>()?))
}

fn preset(name: &str, field: &str) -> Result<Capabilities, FieldError> {
    Ok(match name {
        "none" => Preset::None,
        "read" => Preset::Read,
        "write" => Preset::Write,
        "admin" => Preset::Admin,
        _ => return Err(FieldError::new(field, format!("`{name}` is no preset; there are none, read, write, admin"))),
    }
    .capabilities())
}

/// One entry as principal and set; the set may be empty.
///
/// # Errors
/// [`FieldError`] names the member and the rule.
pub fn principal_entry(entry: &GrantEntry, field: &str) -> Result<(Principal, Capabilities), FieldError> {
    let principal: Principal = entry.principal.parse().map_err(|e| FieldError::new(format!("{field}.principal"), e))?;
    let capabilities = match (&entry.capabilities, &entry.preset) {
        (Some(names), None) => capabilities_from_names(names, &format!("{field}.capabilities"))?,
        (None, Some(name)) => preset(name, &format!("{field}.preset"))?,
        _ => return Err(FieldError::new(field, "give either `capabilities` or `preset`")),
    };
    Ok((principal, capabilities))
}

/// A whole list of grants.
///
/// # Errors
/// [`FieldError`] names the entry and the rule.
pub fn parse_acl(entries: &[GrantEntry], field: &str) -> Result<Acl, FieldError> {
    let one = |(i, entry): (usize, &GrantEntry)| {
        let (principal, capabilities) = principal_entry(entry, &format!("{field}[{i}]"))?;
        Ok(Grant { principal, capabilities })
    };
    let grants = entries.iter().enumerate().map(one).collect::<Result<Vec<_>, FieldError>>()?;
    let too_many = (grants.len() > MAX_GRANTS).then_some(AclTooLong::Grants(grants.len()));
    // Before anything whose time grows with the square of their number.
    too_many.map_or(Ok(()), Err).map_err(|e| FieldError::new(field, e))?;
    let acl = Acl::new(grants).map_err(|e| FieldError::new(field, e))?;
    acl.check_length().map_err(|e| FieldError::new(field, e))?;
    Ok(acl)
}

/// The grants of an ACL as JSON entries; a set that a preset says exactly is written with its preset too.
#[must_use]
pub fn acl_entries(acl: &Acl) -> Vec<GrantEntry> {
    acl.grants()
        .iter()
        .map(|g| GrantEntry { principal: g.principal.to_string(), capabilities: Some(names(g.capabilities)), preset: None })
        .collect()
}

/// The names of a set's members.
#[must_use]
pub fn names(set: Capabilities) -> Vec<String> {
    set.iter().map(|c| c.name().to_owned()).collect()
}

/// A moment as RFC 3339 in UTC, with nanoseconds where there are some.
#[must_use]
pub fn unix_to_rfc3339(at: Timestamp) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0))
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok())
        .unwrap_or_else(|| at.0.to_string())
}

/// A moment from RFC 3339 text.
///
/// # Errors
/// [`FieldError`] about `field`.
pub fn rfc3339_to_unix(text: &str, field: &str) -> Result<Timestamp, FieldError> {
    let bad = || FieldError::new(field, "must be an RFC 3339 time between the years 1970 and 2262, such as 2027-01-31T12:00:00Z");
    let parsed = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| bad())?;
    let nanos = i64::try_from(parsed.unix_timestamp_nanos()).map_err(|_| bad())?;
    if nanos < 0 { Err(bad()) } else { Ok(Timestamp(nanos)) }
}

/// Data from base64: the standard alphabet, padded, without line breaks and without stray bits. The result is a secret
/// whenever the text is; the error repeats nothing of it.
///
/// # Errors
/// [`FieldError`] about `field`.
pub fn decode_base64(text: &[u8], field: &str) -> Result<Vec<u8>, FieldError> {
    STANDARD
        .decode(text)
        .map_err(|_| FieldError::new(field, "must be base64 of the standard alphabet with padding and without line breaks"))
}

/// Appends `data` as base64 of the standard alphabet with padding.
pub fn push_base64(out: &mut Vec<u8>, data: &[u8]) {
    crate::knox::base64::encode_standard(out, data);
}

/// A version without its data.
#[must_use]
pub fn version_info(version: &Version, max_lifetime: Option<u32>) -> VersionInfo {
    VersionInfo {
        id: version.id.to_string(),
        state: version.state.name().to_owned(),
        created: unix_to_rfc3339(version.created),
        expires: version.end_of_life(max_lifetime).map(unix_to_rfc3339),
    }
}

/// A key without its data, as a caller who may `allowed` sees it.
#[must_use]
pub fn key_info(meta: &KeyMeta, revision: Revision, allowed: Capabilities) -> KeyInfo {
    KeyInfo {
        id: meta.id.to_string(),
        kind: meta.kind.name().to_owned(),
        policy: (!meta.kind.is_read()).then(|| policy_info(&meta.policy)),
        etag: etag(meta),
        revision: revision.to_string(),
        description: meta.description.to_string(),
        labels: meta.labels.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        separate_duties: meta.separate_duties,
        max_lifetime: meta.max_lifetime,
        created: unix_to_rfc3339(meta.created.at),
        created_by: meta.created.by.to_string(),
        versions: meta.versions.iter().map(|v| version_info(v, meta.max_lifetime)).collect(),
        allowed: names(allowed),
    }
}

fn policy_info(policy: &claviger_domain::KeyPolicy) -> KeyPolicy {
    let claviger_domain::KeyPolicy { exportable, convergent, min_version, rsa_bits, template } = policy;
    KeyPolicy {
        exportable: *exportable,
        convergent: *convergent,
        min_version: min_version.map(|v| v.to_string()),
        rsa_bits: *rsa_bits,
        template: template.as_deref().map(str::to_owned),
    }
}

/// A new key's kind and policy; what is not given is as it usually is.
///
/// # Errors
/// [`FieldError`] names the member and the rule.
pub fn kind_and_policy(kind: Option<&str>, policy: Option<KeyPolicy>) -> Result<(KeyKind, claviger_domain::KeyPolicy), FieldError> {
    let names = || KeyKind::ALL.map(KeyKind::name).join(", ");
    let kind = kind.map_or(Some(KeyKind::Secret), KeyKind::from_name);
    let kind = kind.ok_or_else(|| FieldError::new("kind", format!("there are {}", names())))?;
    let KeyPolicy { exportable, convergent, min_version, rsa_bits, template } = policy.unwrap_or_default();
    if min_version.is_some() {
        return Err(FieldError::new("policy.min_version", "a new key has one version, which is its minimum"));
    }
    let rsa_bits = rsa_bits.or((kind == KeyKind::Rsa).then_some(USUAL_RSA_BITS));
    let policy =
        claviger_domain::KeyPolicy { exportable, convergent, min_version: None, rsa_bits, template: template.map(String::into_boxed_str) };
    policy.check(kind).map_err(|e| FieldError::new("policy", e))?;
    Ok((kind, policy))
}

/// As strong as a symmetric key of 128 bits (NIST SP 800-57 part 1 rev. 5, table 2).
const USUAL_RSA_BITS: u16 = 3072;

/// A key's ETag: incarnation and generation, known before the commit.
#[must_use]
pub fn etag(meta: &KeyMeta) -> String {
    etag_of(meta.incarnation, meta.generation)
}

/// An entity tag: which key or prefix grant of this name, and which change of it.
#[must_use]
pub fn etag_of(incarnation: Incarnation, generation: Generation) -> String {
    format!("{:016x}-{}", incarnation.0, generation.0)
}

/// A prefix's grants.
#[must_use]
pub fn prefix_info(grant: &PrefixGrant) -> PrefixInfo {
    PrefixInfo {
        prefix: grant.prefix.to_string(),
        grants: acl_entries(&grant.acl),
        any_user_creates: grant.any_user_creates,
        rules: super::rule_entries(&grant.rules),
        etag: Some(etag_of(grant.incarnation, grant.generation)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(principal: &str, capabilities: Option<&[&str]>, preset: Option<&str>) -> GrantEntry {
        let capabilities = capabilities.map(|c| c.iter().map(|s| (*s).to_owned()).collect());
        GrantEntry { principal: principal.to_owned(), capabilities, preset: preset.map(str::to_owned) }
    }

    #[test]
    fn grants_round_trip() {
        let acl = parse_acl(&[entry("user:a", None, Some("write")), entry("service:spiffe://d/x", Some(&["read"]), None)], "acl").unwrap();
        assert_eq!(parse_acl(&acl_entries(&acl), "acl").unwrap(), acl);
    }

    #[test]
    fn a_bad_entry_is_named() {
        let why = |e| parse_acl(&[entry("user:a", None, Some("read")), e], "acl").unwrap_err().field;
        assert_eq!(why(entry("ghost:a", None, Some("read"))), "acl[1].principal");
        assert_eq!(why(entry("user:b", Some(&["fly"]), None)), "acl[1].capabilities");
        assert_eq!(why(entry("user:b", None, Some("root"))), "acl[1].preset");
        assert_eq!(why(entry("user:b", None, None)), "acl[1]");
        assert_eq!(why(entry("user:a", None, Some("read"))), "acl");
    }

    #[test]
    fn times_round_trip() {
        let at = rfc3339_to_unix("2027-01-31T12:00:00.5Z", "expires").unwrap();
        assert_eq!(unix_to_rfc3339(at), "2027-01-31T12:00:00.5Z");
        for bad in ["", "tomorrow", "1969-12-31T23:59:59Z", "2300-01-01T00:00:00Z"] {
            assert!(rfc3339_to_unix(bad, "expires").is_err(), "{bad}");
        }
    }

    #[test]
    fn base64_is_read_strictly_and_round_trips() {
        let mut text = Vec::new();
        push_base64(&mut text, b"\xff\xfe\x00a");
        assert_eq!(decode_base64(&text, "data").unwrap(), b"\xff\xfe\x00a");
        for bad in ["YQ", "YQ=", "YR==", "YQ==\n", "Y Q=", "_-8=", "YQ==YQ==", "="] {
            assert!(decode_base64(bad.as_bytes(), "data").is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_and_duplicate_members_are_refused() {
        let twice = r#"{"id":"a","data":"","labels":{"x":"1","x":"2"}}"#;
        for bad in
            [r#"{"id":"a","data":"","x":1}"#, r#"{"id":"a","id":"b","data":""}"#, r#"{"data":""}"#, r#"{"id":"a","policy":{"x":1}}"#, twice]
        {
            assert!(serde_json::from_str::<super::super::CreateKey>(bad).is_err(), "{bad}");
        }
    }
}
