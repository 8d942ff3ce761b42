//! What stands on the command line, parsed once into the domain's types.

use claviger_domain::{ApprovalId, Capabilities, Capability, KeyId, KeyKind, Prefix, Principal, Revision, Timestamp, VersionId};
use claviger_wire::native::{GrantEntry, names, rfc3339_to_unix, unix_to_rfc3339};
use std::time::Duration;

/// A key id.
pub(crate) fn key_id(text: &str) -> Result<KeyId, String> {
    KeyId::parse(text).map_err(|e| e.to_string())
}

/// A prefix on which rights can be granted.
pub(crate) fn prefix(text: &str) -> Result<Prefix, String> {
    Prefix::parse(text).map_err(|e| e.to_string())
}

/// A principal, `TYPE:ID`.
pub(crate) fn principal(text: &str) -> Result<Principal, String> {
    text.parse().map_err(|e: claviger_domain::PrincipalError| e.to_string())
}

/// A version's id.
pub(crate) fn version_id(text: &str) -> Result<VersionId, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let parsed = text.parse().ok().filter(|_| digits).and_then(VersionId::new);
    parsed.ok_or_else(|| "a version is a number, as `claviger versions` lists them".to_owned())
}

/// A key's kind.
pub(crate) fn kind(text: &str) -> Result<KeyKind, String> {
    let names = || KeyKind::ALL.map(KeyKind::name).join(", ");
    KeyKind::from_name(text).ok_or_else(|| format!("there are {}", names()))
}

/// A revision, `EPOCH.NUMBER`.
pub(crate) fn revision(text: &str) -> Result<Revision, String> {
    Revision::parse(text).ok_or_else(|| "a revision looks like 1.7".to_owned())
}

/// A duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`, `w`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no duration; write a number and a unit, such as 90d, 12h, 30m, 45s or 500ms");
    let (number, unit) = text.split_at(text.bytes().position(|b| !b.is_ascii_digit()).ok_or_else(bad)?);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(bad)
}

/// A reason or comment.
pub(crate) fn reason(text: &str) -> Result<String, String> {
    match !text.is_empty() && claviger_domain::is_reason(text) {
        true => Ok(text.to_owned()),
        false => Err("a reason has 1 to 1024 bytes and no control characters".to_owned()),
    }
}

/// An approval's id.
pub(crate) fn approval_id(text: &str) -> Result<ApprovalId, String> {
    ApprovalId::parse(text).ok_or_else(|| format!("`{text}` is no approval's id, which has 16 hexadecimal digits"))
}

/// A lifetime in whole seconds, at least one.
pub(crate) fn lifetime(text: &str) -> Result<u32, String> {
    let seconds = duration(text)?.as_secs();
    let too_long = || format!("`{text}` is longer than 136 years");
    match u32::try_from(seconds).map_err(|_| too_long())? {
        0 => Err("a lifetime is at least one second".to_owned()),
        seconds => Ok(seconds),
    }
}

/// A moment: RFC 3339, or a duration from `now` into the future.
pub(crate) fn moment(text: &str, now: Timestamp) -> Result<String, String> {
    at(text, now, 1)
}

/// A moment: RFC 3339, or a duration from `now` into the past.
pub(crate) fn past_moment(text: &str, now: Timestamp) -> Result<String, String> {
    at(text, now, -1)
}

fn at(text: &str, now: Timestamp, direction: i64) -> Result<String, String> {
    if let Ok(distance) = duration(text) {
        let seconds = i64::try_from(distance.as_secs()).unwrap_or(i64::MAX);
        return Ok(unix_to_rfc3339(now.plus_seconds(seconds.saturating_mul(direction))));
    }
    let parsed = rfc3339_to_unix(text, "time")
        .map_err(|_| format!("`{text}` is neither a time such as 2027-01-31T12:00:00Z nor a duration such as 90d"))?;
    Ok(unix_to_rfc3339(parsed))
}

/// A label, `NAME=VALUE`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is no label; write NAME=VALUE")),
    }
}

/// A grant, `TYPE:ID=RIGHTS`; see `rights`. The last `=` separates, since an id may contain one.
pub(crate) fn grant(text: &str) -> Result<GrantEntry, String> {
    let (who, what) =
        text.rsplit_once('=').ok_or_else(|| format!("`{text}` is no grant; write TYPE:ID=RIGHTS, such as user:alice=read"))?;
    grant_of(&principal(who)?, what)
}

/// A principal with rights: a preset (read, write, admin), or an exact set of capabilities: several with commas, or one
/// behind `only:`.
pub(crate) fn grant_of(principal: &Principal, rights: &str) -> Result<GrantEntry, String> {
    let entry = |capabilities, preset| GrantEntry { principal: principal.to_string(), capabilities, preset };
    if matches!(rights, "read" | "write" | "admin") {
        return Ok(entry(None, Some(rights.to_owned())));
    }
    let list = rights.strip_prefix("only:").unwrap_or(rights);
    let set = list.split(',').map(capability).collect::<Result<Vec<_>, _>>()?;
    Ok(entry(Some(names(Capabilities::of(set))), None))
}

fn capability(name: &str) -> Result<Capability, String> {
    let all = || Capability::ALL.map(Capability::name).join(", ");
    Capability::from_name(name)
        .ok_or_else(|| format!("`{name}` is no right; there are the presets read, write, admin and the capabilities {}", all()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, seconds) in [("90d", 7_776_000), ("12h", 43_200), ("30m", 1800), ("45s", 45), ("2w", 1_209_600), ("0s", 0)] {
            assert_eq!(duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        for bad in ["", "5", "d", "-1d", "1.5h", "1 d", "1y", "99999999999999999999d", "9999999999999999w"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(lifetime("500ms").is_err() && lifetime("9000w").is_err() && lifetime("90d").unwrap() == 7_776_000);
    }

    #[test]
    fn moments_are_times_or_distances() {
        let now = Timestamp(1_000_000_000_000_000_000);
        assert_eq!(moment("1d", now).unwrap(), "2001-09-10T01:46:40Z");
        assert_eq!(past_moment("1d", now).unwrap(), "2001-09-08T01:46:40Z");
        assert_eq!(moment("2027-01-31T12:00:00Z", now).unwrap(), "2027-01-31T12:00:00Z");
        assert!(moment("tomorrow", now).is_err());
    }

    #[test]
    fn grants_are_presets_or_exact_sets() {
        let entry = |text: &str| grant(text).map(|g| (g.principal, g.preset, g.capabilities));
        let texts = |names: &[&str]| Some(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert_eq!(entry("user:alice=write").unwrap(), ("user:alice".into(), Some("write".into()), None));
        assert_eq!(entry("user:a=b=list,read").unwrap(), ("user:a=b".into(), None, texts(&["list", "read"])));
        assert_eq!(entry("service:spiffe://d/x=only:read").unwrap(), ("service:spiffe://d/x".into(), None, texts(&["read"])));
        for bad in ["user:alice", "alice=read", "user:alice=", "user:alice=fly", "user:alice=list,", "service:web=read", "user:=read"] {
            assert!(entry(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_and_versions_are_checked() {
        assert_eq!(label("env=prod=1").unwrap(), ("env".into(), "prod=1".into()));
        assert!(label("env").is_err() && label("=x").is_err());
        assert!(version_id("7").is_ok());
        for bad in ["", "0", "+7", "x", "9223372036854775808"] {
            assert!(version_id(bad).is_err(), "{bad}");
        }
    }
}
