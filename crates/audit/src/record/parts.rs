//! A record that is longer than an entry of the log may be, as several entries.
//!
//! # Guarantees
//! Every subject and every grant of the record stands in exactly one part, in order; what is not a list, and a single
//! subject, stands in each. So each part is found by whatever the record is found by, and those with one request id and
//! `part.n` from 1 to `part.of` are the record. No part is longer than [`MAX_ENTRY`], whoever is told of: the texts of a
//! record are cut (see [`super`]), so that one item beside the rest always fits.

use super::{Share, write};
use crate::frame::MAX_ENTRY;
use claviger_domain::Grant;
use claviger_domain::audit::{Record, Subject};

/// Versions of one subject in one item: a key may have more of them than an entry holds.
const VERSIONS: usize = 500;
/// Bytes that the names of lists and the part's numbers may take.
const NAMES: usize = 128;

/// The entries of a record, one after the other.
#[must_use]
pub(crate) fn encode_parts(record: &Record<'_>) -> Vec<Vec<u8>> {
    let subjects: Vec<_> = record.subjects.iter().flat_map(with_fewer_versions).collect();
    let shares = split(record, &subjects);
    let of = shares.len();
    let numbered = |(i, share)| Share { part: (of > 1).then_some((i + 1, of)), ..share };
    shares.into_iter().enumerate().map(numbered).map(|share| write(record, &share)).collect()
}

fn with_fewer_versions<'a>(subject: &Subject<'a>) -> impl Iterator<Item = Subject<'a>> {
    let key = subject.key;
    let chunks = subject.versions.chunks(VERSIONS).map(move |versions| Subject { key, versions });
    chunks.chain(subject.versions.is_empty().then_some(*subject))
}

fn split<'r>(record: &Record<'r>, subjects: &'r [Subject<'r>]) -> Vec<Share<'r>> {
    let (in_each, mut subjects) = if subjects.len() == 1 { (subjects, &[][..]) } else { (&[][..], subjects) };
    let none = Share { subjects: in_each, old: &[], new: &[], part: None };
    let room = MAX_ENTRY.saturating_sub(write(record, &none).len() + NAMES);
    let Share { mut old, mut new, .. } = Share::whole(record);
    let mut shares = Vec::new();
    while shares.is_empty() || !(subjects.is_empty() && old.is_empty() && new.is_empty()) {
        let mut part = Part { room, used: 0 };
        let mine = part.take(&mut subjects, |s| super::length(|out| out.subject(s)));
        let grant = |g: &Grant| super::length(|out| out.grant(g));
        let share = Share { subjects: mine, old: part.take(&mut old, grant), new: part.take(&mut new, grant), part: None };
        shares.push(if in_each.is_empty() { share } else { Share { subjects: in_each, ..share } });
    }
    shares
}

/// A part being filled.
struct Part {
    room: usize,
    used: usize,
}

impl Part {
    /// Takes what fits off the front of a list; at least one item goes into each part. Once a list is not taken to its
    /// end the part is full.
    fn take<'r, T>(&mut self, list: &mut &'r [T], length: impl Fn(&T) -> usize) -> &'r [T] {
        let mut count = 0;
        for item in *list {
            let after = self.used + length(item) + 1;
            if after > self.room && self.used > 0 {
                self.room = 0;
                break;
            }
            self.used = after;
            count += 1;
        }
        let (taken, rest) = list.split_at(count);
        *list = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use claviger_domain::audit::{Action, Outcome, RightsChange};
    use claviger_domain::{Acl, Caller, Identity, MAX_PRINCIPAL, Preset, Principal, Proven, RequestId, Timestamp, VersionId};
    use serde_json::Value;
    use std::sync::Arc;

    fn bare() -> Record<'static> {
        Record::new(Timestamp(0), RequestId(7), "test", Action::Poll, Outcome::Ok)
    }

    fn acl(count: usize, id: impl Fn(usize) -> String) -> Acl {
        let grants = (0..count)
            .map(|n| Grant { principal: Principal::unchecked("machine", &id(n)).unwrap(), capabilities: Preset::Admin.capabilities() });
        Acl::new(grants.collect()).unwrap()
    }

    /// The parts as JSON; each fits an entry and says which of how many it is.
    fn parts(record: &Record<'_>) -> Vec<Value> {
        let parts = encode_parts(record);
        assert!(parts.iter().all(|p| p.len() <= MAX_ENTRY), "{:?}", parts.iter().map(Vec::len).collect::<Vec<_>>());
        let parts: Vec<Value> = parts.iter().map(|p| serde_json::from_slice(p).unwrap()).collect();
        for (i, part) in parts.iter().enumerate() {
            assert_eq!((&part["part"]["n"], &part["part"]["of"]), (&(i + 1).into(), &parts.len().into()));
            assert_eq!(part["request"], "00000000000000000000000000000007");
        }
        parts
    }

    /// What the parts' lists have in all.
    fn joined(parts: &[Value], list: impl Fn(&Value) -> &Value) -> Vec<Value> {
        parts.iter().flat_map(|p| list(p).as_array().unwrap()).cloned().collect()
    }

    #[test]
    fn fourteen_thousand_keys_stand_in_several_parts_each_once_and_in_order() {
        let ids: Vec<_> = (0..14_000).map(|n| format!("svc:{n:031}")).collect();
        let subjects: Vec<_> = ids.iter().map(|key| Subject { key, versions: &[] }).collect();
        let parts = parts(&Record { subjects: &subjects, ..bare() });
        assert!((13..20).contains(&parts.len()), "{}", parts.len());
        let found = joined(&parts, |p| &p["keys"]);
        assert_eq!(found.iter().map(|k| k["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    }

    #[test]
    fn a_change_of_many_grants_names_its_key_in_each_part() {
        let (old, new) = (acl(4000, |n| format!("old-{n}.example.com")), acl(3000, |n| format!("new-{n}.example.com")));
        let rights = Some(RightsChange { old: &old, new: &new });
        let parts = parts(&Record { subjects: &[Subject { key: "svc:db", versions: &[] }], rights, ..bare() });
        assert!(parts.iter().all(|p| p["keys"][0]["id"] == "svc:db" && p["keys"][1].is_null()));
        let (olds, news) = (joined(&parts, |p| &p["rights"]["old"]), joined(&parts, |p| &p["rights"]["new"]));
        assert_eq!((olds.len(), news.len()), (4000, 3000));
        assert_eq!(olds[3999]["principal"], "machine:old-3999.example.com");
        assert_eq!(news[2999]["principal"], "machine:new-2999.example.com");
    }

    #[test]
    fn a_key_with_more_versions_than_an_entry_holds_is_recorded_with_all_of_them() {
        let versions: Vec<_> = (1..=10_000).map(|n| VersionId::new(9_000_000_000_000_000_000 + n).unwrap()).collect();
        let parts = parts(&Record { subjects: &[Subject { key: "svc:db", versions: &versions }], ..bare() });
        let found = joined(&parts, |p| &p["keys"]);
        assert!(found.iter().all(|k| k["id"] == "svc:db"));
        assert_eq!(found.iter().flat_map(|k| k["versions"].as_array().unwrap()).count(), versions.len());
    }

    #[test]
    fn the_longest_names_that_can_be_make_no_part_too_long() {
        let worst = "\u{1}".repeat(100_000);
        let groups: Arc<[Arc<str>]> = (0..10_000).map(|n| Arc::from(format!("{n}{worst}").as_str())).take(3).collect();
        let user = Identity::User { name: worst.as_str().into(), groups };
        let service = Identity::Service { id: worst.as_str().into() };
        let proven = [user, service].map(|identity| Proven { identity, method: "spiffe-fallback" });
        let caller = Caller::new(Arc::from(proven), RequestId(7), None).unwrap();
        let long = acl(100, |n| format!("{n:04}{}", "\u{1}".repeat(MAX_PRINCIPAL - 4)));
        let rights = Some(RightsChange { old: &long, new: &long });
        let subjects = [Subject { key: &worst, versions: &[] }];
        let record = Record { caller: Some(&caller), subjects: &subjects, reason: &worst, rights, ..bare() };
        let parts = parts(&record);
        assert_eq!(joined(&parts, |p| &p["rights"]["new"]).len(), 100);
        let reason = parts[0]["reason"].as_str().unwrap();
        assert!(reason.len() < 1100 && reason.ends_with('…'), "{}", reason.len());
    }
}
