//! The grants under which every route is tried: each right and preset to each type of principal, on keys and on
//! prefixes, near misses, and separate duties.

use super::oracle::{ADMIN, EVERY, Entry, Facts, READ, WRITE};
use super::people::SERVICE;

/// One state of the grants.
#[derive(Clone)]
pub(super) struct Situation {
    pub(super) name: String,
    /// What the ids' parts are separated by.
    pub(super) delimiter: char,
    /// The key's own list, besides the administrator's entry.
    pub(super) on_key: Vec<Entry>,
    /// The list of the prefix right above the keys.
    pub(super) on_prefix: Vec<Entry>,
    /// Lists of prefixes that only look as if they covered the keys: what stands after the common part, and the list.
    pub(super) elsewhere: Vec<(&'static str, Entry)>,
    pub(super) any_user_creates: bool,
    pub(super) separate: bool,
    /// Who had READ on each key and lost it.
    pub(super) formerly: Option<&'static str>,
}

pub(super) fn entry(to: &str, rights: &[&'static str]) -> Entry {
    Entry { to: to.to_owned(), rights: rights.to_vec() }
}

/// A grant to each type of principal, each of which reaches one of the callers.
pub(super) const TYPES: [&str; 6] = [
    "user:alice",
    "user_group:ops",
    "machine:dev-machine",
    "machine_prefix:dev-ma",
    "service:spiffe://dev.claviger/service",
    "service_prefix:spiffe://dev.claviger/",
];

/// Entries that reach none of those whom they resemble. (Some reach someone else: that is the oracle's to know.)
pub(super) const NEAR_MISSES: [&str; 22] = [
    "user:Alice",
    "user:alic",
    "user:alice2",
    "user:dev-machine",
    "user:ops",
    "user_group:alice",
    "user_group:Ops",
    "user_group:op",
    "user_group:dev-machine",
    "machine:alice",
    "machine:Dev-Machine",
    "machine:dev-machin",
    "machine:dev-",
    "machine_prefix:dev-machine2",
    "machine_prefix:ev-machine",
    "machine_prefix:DEV-",
    "machine_prefix:alice",
    "service:spiffe://dev.claviger/Service",
    "service:spiffe://dev.claviger/servic",
    "service:spiffe://dev.claviger/service/x",
    "service_prefix:spiffe://dev.claviger/service/",
    "service_prefix:spiffe://dev.claviger2/",
];

/// Sets of rights by their names: nothing, each one alone, and the presets.
pub(super) fn sets() -> Vec<(String, Vec<&'static str>)> {
    let alone = EVERY.iter().map(|right| ((*right).to_owned(), vec![*right]));
    let presets = [("READ", READ), ("WRITE", WRITE), ("ADMIN", ADMIN)].map(|(name, set)| (name.to_owned(), set.to_vec()));
    alone.chain(presets).collect()
}

fn plain(name: impl Into<String>) -> Situation {
    Situation {
        name: name.into(),
        delimiter: ':',
        on_key: Vec::new(),
        on_prefix: Vec::new(),
        elsewhere: Vec::new(),
        any_user_creates: false,
        separate: false,
        formerly: None,
    }
}

/// All of them.
pub(super) fn all() -> Vec<Situation> {
    let mut all = vec![plain("no grant"), Situation { formerly: Some("user:alice"), ..plain("READ until it was taken away") }];
    all.extend(on_keys());
    all.extend(on_prefixes());
    all.extend(near_misses());
    all.extend(separate_duties());
    all
}

/// Each set to each type of principal on the key itself.
fn on_keys() -> impl Iterator<Item = Situation> {
    let of_type = |to: &'static str| {
        sets().into_iter().map(move |(name, rights)| Situation { on_key: vec![entry(to, &rights)], ..plain(format!("key: {to} {name}")) })
    };
    TYPES.into_iter().flat_map(of_type)
}

/// Each set to a user on the prefix, presets to the other types, and the rule that any user may create.
fn on_prefixes() -> Vec<Situation> {
    let on_prefix = |to: &str, name: &str, rights: &[&'static str]| Situation {
        on_prefix: vec![entry(to, rights)],
        ..plain(format!("prefix: {to} {name}"))
    };
    let mut all: Vec<_> = sets().iter().map(|(name, rights)| on_prefix("user:alice", name, rights)).collect();
    for to in &TYPES[1..] {
        all.push(on_prefix(to, "READ", READ));
        all.push(on_prefix(to, "create", &["create"]));
        all.push(on_prefix(to, "ADMIN", ADMIN));
    }
    all.push(Situation { any_user_creates: true, ..plain("prefix: any user may create") });
    for (name, rights) in [("READ", READ), ("ADMIN", ADMIN)] {
        let base = plain(format!("prefix with a slash: user:alice {name}"));
        all.push(Situation { delimiter: '/', on_prefix: vec![entry("user:alice", rights)], ..base });
    }
    all.push(Situation {
        on_key: vec![entry("user_group:night", &["write"]), entry("user:carol", &["list"])],
        on_prefix: vec![
            entry("user_group:ops", &["read"]),
            entry("machine:dev-both", &["list"]),
            entry("service:spiffe://dev.claviger/both", &["read"]),
        ],
        ..plain("rights of one caller from many entries")
    });
    all
}

fn near_misses() -> Vec<Situation> {
    let mut all: Vec<_> =
        NEAR_MISSES.iter().map(|to| Situation { on_key: vec![entry(to, ADMIN)], ..plain(format!("near miss: {to} ADMIN")) }).collect();
    for (tail, what) in [("key:", "longer than the id"), ("0:", "with one more character"), ("0/", "with another delimiter")] {
        all.push(Situation {
            elsewhere: vec![(tail, entry("user:alice", ADMIN))],
            ..plain(format!("near miss: user:alice ADMIN of a prefix {what}"))
        });
    }
    all
}

/// Who manages and who uses, each from the key and from above.
fn separate_duties() -> Vec<Situation> {
    let manage = &["list", "admin"];
    let duties = |name: &str, on_key: Vec<Entry>, on_prefix: Vec<Entry>| Situation {
        on_key,
        on_prefix,
        separate: true,
        ..plain(format!("separate duties: {name}"))
    };
    vec![
        duties("no grant", vec![], vec![]),
        duties("key: user:alice list,admin", vec![entry("user:alice", manage)], vec![]),
        duties("key: user:alice admin", vec![entry("user:alice", &["admin"])], vec![]),
        duties("key: user:alice write,admin", vec![entry("user:alice", &["write", "admin"])], vec![]),
        duties("key: user:alice READ", vec![entry("user:alice", READ)], vec![]),
        duties("key: user:alice WRITE", vec![entry("user:alice", WRITE)], vec![]),
        duties("key: user:alice read", vec![entry("user:alice", &["read"])], vec![]),
        duties("key: user:alice encrypt", vec![entry("user:alice", &["encrypt"])], vec![]),
        duties("prefix: user:alice ADMIN", vec![], vec![entry("user:alice", ADMIN)]),
        duties("prefix: user:alice read,admin", vec![], vec![entry("user:alice", &["read", "admin"])]),
        duties("prefix: user:alice READ", vec![], vec![entry("user:alice", READ)]),
        duties("prefix: user:alice WRITE", vec![], vec![entry("user:alice", WRITE)]),
        duties(
            "prefix: user:carol admin and user_group:ops READ",
            vec![],
            vec![entry("user:carol", &["admin"]), entry("user_group:ops", READ)],
        ),
        duties("prefix: user:alice ADMIN, key: user:alice read", vec![entry("user:alice", &["read"])], vec![entry("user:alice", ADMIN)]),
        duties("prefix: user:root READ", vec![], vec![entry("user:root", READ)]),
        duties(
            "key: machine list,admin, its prefix READ",
            vec![entry("machine:dev-machine", manage)],
            vec![entry("machine_prefix:dev-", READ)],
        ),
        duties(
            "key: user:alice list,admin, prefix: user:alice READ,create",
            vec![entry("user:alice", manage)],
            vec![entry("user:alice", &["list", "read", "create"])],
        ),
        duties(
            "key: user:carol list,admin and user_group:ops READ",
            vec![entry("user:carol", manage), entry("user_group:ops", READ)],
            vec![],
        ),
        duties("prefix: user:lead READ", vec![], vec![entry("user:lead", READ)]),
        duties("key: service READ", vec![entry(&format!("service:{SERVICE}"), READ)], vec![]),
    ]
}

impl Situation {
    /// The facts of any key in it.
    pub(super) fn facts(&self) -> Facts {
        Facts {
            on_key: self.on_key.clone(),
            on_prefixes: vec![vec![entry("user:lead", ADMIN)], self.on_prefix.clone()],
            on_everything: vec![entry("user:root", ADMIN)],
            any_user_creates: self.any_user_creates,
            separate: self.separate,
            knox_can_name_it: self.delimiter == ':',
        }
    }
}
