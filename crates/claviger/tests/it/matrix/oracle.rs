//! What should be: the rules of DESIGN §§3 and 5 and of the Knox contract §6 once more, in plain terms.
//!
//! Names are text and rights are sets of words here, on purpose: nothing is taken from the code under test, so that the
//! two can only agree by both being right.

use super::people::{Me, Person};
use std::collections::BTreeSet;

/// Rights by their names.
pub(super) type Rights = BTreeSet<&'static str>;

/// Every right on a key, and `create`, which means something on prefixes only.
pub(super) const EVERY: [&str; 9] = ["list", "read", "encrypt", "decrypt", "sign", "verify", "write", "admin", "create"];
/// Touching or using the material itself.
const USES: [&str; 5] = ["read", "encrypt", "decrypt", "sign", "verify"];
/// Knox's three, each covering those before it.
pub(super) const READ: &[&str] = &["list", "read", "encrypt", "decrypt", "sign", "verify"];
pub(super) const WRITE: &[&str] = &["list", "read", "encrypt", "decrypt", "sign", "verify", "write"];
pub(super) const ADMIN: &[&str] = &["list", "read", "encrypt", "decrypt", "sign", "verify", "write", "admin", "create"];

/// One entry of a list of rights.
#[derive(Clone)]
pub(super) struct Entry {
    /// `TYPE:ID`.
    pub(super) to: String,
    pub(super) rights: Vec<&'static str>,
}

/// Everything about a key that matters for who may do what with it.
#[derive(Clone)]
pub(super) struct Facts {
    /// The key's own list.
    pub(super) on_key: Vec<Entry>,
    /// The lists of the prefixes that its id starts with, each by itself.
    pub(super) on_prefixes: Vec<Vec<Entry>>,
    /// The list of the empty prefix.
    pub(super) on_everything: Vec<Entry>,
    /// Whether any user may create keys there.
    pub(super) any_user_creates: bool,
    /// Whether managing and using it are different people's.
    pub(super) separate: bool,
    /// Whether Knox's clients can name it.
    pub(super) knox_can_name_it: bool,
}

/// What a route asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// Not even a credential.
    Nothing,
    /// A proven identity.
    Identity,
    /// Any right on the key; it is told of by itself.
    AnyRight,
    /// The same, for a list that leaves out what one may not know of.
    Shown,
    /// This right on the key.
    Right(&'static str),
    /// One of these rights on the key.
    AnyOf(&'static str, &'static str),
    /// To make a key.
    Creation,
    /// `admin` on the prefix or a shorter one.
    PrefixAdmin,
    /// `admin` on the empty prefix.
    RootAdmin,
    /// To have to do with an approval; nobody has with one that is not there.
    Concerned,
    /// Knox: a proven identity and a key that is there.
    KnoxAnyone,
    /// Knox: this right.
    KnoxRight(&'static str),
    /// Knox: `admin`, and a list that Knox can express.
    KnoxAccess,
    /// Knox: to make a key.
    KnoxCreation,
}

/// What comes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(super) enum Verdict {
    Allowed,
    /// 401
    Unproven,
    /// 403
    Denied,
    /// The very answer that a missing key gets.
    Hidden,
    /// Knox's 404 for a key that is not there, or that Knox cannot name.
    NoKey,
    /// Knox's refusal to edit a list that it cannot express.
    Inexpressible,
}

impl Verdict {
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Allowed => "yes",
            Self::Unproven => "401",
            Self::Denied => "403",
            Self::Hidden => "unseen",
            Self::NoKey => "404",
            Self::Inexpressible => "400",
        }
    }
}

/// Whether an entry is about somebody. Comparison is exact; a type is never about another kind of identity.
pub(super) fn is_about(entry: &Entry, person: &Person) -> bool {
    let Some((kind, id)) = entry.to.split_once(':') else { panic!("{} is no TYPE:ID", entry.to) };
    person.is.iter().any(|me| match me {
        Me::User(name, groups) => (kind == "user" && id == *name) || (kind == "user_group" && groups.contains(&id)),
        Me::Machine(name) => (kind == "machine" && id == *name) || (kind == "machine_prefix" && name.starts_with(id)),
        Me::Service(name) => (kind == "service" && id == *name) || (kind == "service_prefix" && name.starts_with(id)),
    })
}

/// What a list gives somebody.
fn given(list: &[Entry], person: &Person) -> Rights {
    list.iter().filter(|e| is_about(e, person)).flat_map(|e| e.rights.iter().copied()).collect()
}

impl Facts {
    /// All that somebody may do with the key.
    pub(super) fn rights(&self, person: &Person) -> Rights {
        let mut all = given(&self.on_key, person);
        for list in self.on_prefixes.iter().chain([&self.on_everything]) {
            all.extend(given(list, person));
        }
        // Wherever each comes from.
        if self.separate && all.contains("admin") {
            all.retain(|right| !USES.contains(right));
        }
        // To be allowed to create others says nothing about this one.
        all.remove("create");
        all
    }

    fn on_prefix(&self, person: &Person, right: &str) -> bool {
        self.on_prefixes.iter().chain([&self.on_everything]).any(|list| given(list, person).contains(right))
    }

    pub(super) fn may_create(&self, person: &Person) -> bool {
        let is_user = person.is.iter().any(|me| matches!(me, Me::User(..)));
        (self.any_user_creates && is_user) || self.on_prefix(person, "create")
    }

    pub(super) fn administers_prefix(&self, person: &Person) -> bool {
        self.on_prefix(person, "admin")
    }

    /// Whether each entry says exactly what one of Knox's three says.
    fn knox_can_express_it(&self) -> bool {
        let plain = |rights: &[&'static str]| rights.iter().copied().filter(|r| *r != "create").collect::<Rights>();
        let known = [&[] as &[&str], READ, WRITE, ADMIN];
        !self.separate && self.on_key.iter().all(|e| known.iter().any(|k| plain(k) == plain(&e.rights)))
    }

    /// What should come of a request.
    pub(super) fn expected(&self, need: Need, person: &Person) -> Verdict {
        use Verdict::{Allowed, Denied, Hidden, Inexpressible, NoKey, Unproven};
        if need == Need::Nothing {
            return Allowed;
        }
        if person.is.is_empty() {
            return Unproven;
        }
        let rights = self.rights(person);
        let if_so = |so: bool| if so { Allowed } else { Denied };
        match need {
            Need::Nothing | Need::Identity => Allowed,
            Need::Concerned => Hidden,
            Need::AnyRight | Need::Shown | Need::Right(_) | Need::AnyOf(..) if rights.is_empty() => Hidden,
            Need::AnyRight | Need::Shown => Allowed,
            Need::Right(right) => if_so(rights.contains(right)),
            Need::AnyOf(one, other) => if_so(rights.contains(one) || rights.contains(other)),
            Need::Creation => if_so(self.may_create(person)),
            Need::PrefixAdmin => if_so(self.administers_prefix(person)),
            Need::RootAdmin => if_so(given(&self.on_everything, person).contains("admin")),
            Need::KnoxAnyone | Need::KnoxRight(_) | Need::KnoxAccess if !self.knox_can_name_it => NoKey,
            Need::KnoxAnyone => Allowed,
            Need::KnoxRight(right) => if_so(rights.contains(right)),
            Need::KnoxAccess if !rights.contains("admin") => Denied,
            Need::KnoxAccess if !self.knox_can_express_it() => Inexpressible,
            Need::KnoxAccess => Allowed,
            Need::KnoxCreation => if_so(matches!(person.is[0], Me::User(..)) && self.may_create(person)),
        }
    }
}
