//! Versions of a key and the one rule about them: exactly one is primary ▲.

use crate::Timestamp;
use std::fmt;
use thiserror::Error;

/// Names one version: a random integer from 1 to 2^63 − 1, never used twice in a key (contract knox §3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct VersionId(u64);

impl VersionId {
    /// Makes a version id of `raw`, which must lie in 1..=2^63−1.
    #[must_use]
    pub fn new(raw: u64) -> Option<Self> {
        (raw != 0 && raw <= i64::MAX as u64).then_some(Self(raw))
    }

    /// The integer.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a version is for at present (DESIGN §1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VersionState {
    /// The one that is given out, signs, or encrypts.
    Primary,
    /// Also given out; verifies and decrypts.
    Active,
    /// Not given out; kept for rollback.
    Inactive,
    /// Its data key is erased; the record stays.
    Destroyed,
}

impl VersionState {
    /// The lower-case name used in the native API, the audit log and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Destroyed => "destroyed",
        }
    }
}

/// Which versions a reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Select {
    /// The primary one.
    Primary,
    /// Primary and active ones.
    Active,
    /// All that are not destroyed.
    All,
    /// Just this one, whatever its state.
    One(VersionId),
}

/// One version's record; its data is kept apart, sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// Its name.
    pub id: VersionId,
    /// What it is for.
    pub state: VersionState,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is no longer given out, whatever its state.
    pub expires: Option<Timestamp>,
}

/// A change of one version's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transition {
    /// Active → primary; the old primary becomes active.
    Promote,
    /// Active → inactive.
    Deactivate,
    /// Inactive → active.
    Reactivate,
    /// Inactive → destroyed, for ever.
    Destroy,
}

/// Why a list of versions, or a change of it, is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VersionError {
    /// Not exactly one version is primary.
    #[error("a key has exactly one primary version, not {0}")]
    NotOnePrimary(usize),
    /// Two versions with one id.
    #[error("version {0} stands twice")]
    Duplicate(VersionId),
    /// No version of this id.
    #[error("there is no version {0}")]
    Unknown(VersionId),
    /// The version's state does not allow the change.
    #[error("version {id} is {}; only {} can be {wanted}", from.name(), needed.name())]
    WrongState {
        /// The version.
        id: VersionId,
        /// Its state now.
        from: VersionState,
        /// The state that the change starts from.
        needed: VersionState,
        /// What was to be done, as a participle.
        wanted: &'static str,
    },
}

/// The versions of one key in the order they were added. Exactly one is primary, ids are unique ▲.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Versions(Vec<Version>);

impl Versions {
    /// The only constructor.
    ///
    /// # Errors
    /// [`VersionError::NotOnePrimary`] or [`VersionError::Duplicate`].
    pub fn new(versions: Vec<Version>) -> Result<Self, VersionError> {
        let primaries = versions.iter().filter(|v| v.state == VersionState::Primary).count();
        if primaries != 1 {
            return Err(VersionError::NotOnePrimary(primaries));
        }
        let mut ids: Vec<_> = versions.iter().map(|v| v.id).collect();
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(VersionError::Duplicate(pair[0])),
            None => Ok(Self(versions)),
        }
    }

    /// The version that is given out.
    #[must_use]
    pub fn primary(&self) -> &Version {
        self.0.iter().find(|v| v.state == VersionState::Primary).expect("the constructor guarantees one primary")
    }

    /// The version of this id.
    #[must_use]
    pub fn find(&self, id: VersionId) -> Option<&Version> {
        self.0.iter().find(|v| v.id == id)
    }

    /// All versions, oldest first.
    pub fn iter(&self) -> std::slice::Iter<'_, Version> {
        self.0.iter()
    }

    /// How many there are, destroyed ones included.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many are not destroyed.
    #[must_use]
    pub fn living(&self) -> usize {
        self.0.iter().filter(|v| v.state != VersionState::Destroyed).count()
    }

    /// These versions without the oldest destroyed ones, so that at most `kept` of those are left: of what is destroyed nothing
    /// but the record is there, and a key that rotates for ever must not grow for ever. `except` always stays.
    #[must_use]
    pub fn forget_destroyed(&self, kept: usize, except: Option<VersionId>) -> Self {
        let mut surplus = (self.len() - self.living()).saturating_sub(kept);
        let stays = |v: &&Version| {
            let goes = v.state == VersionState::Destroyed && surplus > 0 && Some(v.id) != except;
            surplus -= usize::from(goes);
            !goes
        };
        Self(self.0.iter().filter(stays).copied().collect())
    }

    /// These versions and one more, which is active.
    ///
    /// # Errors
    /// [`VersionError::Duplicate`] when the id is taken.
    pub fn add(&self, id: VersionId, created: Timestamp, expires: Option<Timestamp>) -> Result<Self, VersionError> {
        let mut all = self.0.clone();
        all.push(Version { id, state: VersionState::Active, created, expires });
        Self::new(all)
    }

    /// These versions after `transition` of version `id`.
    ///
    /// # Errors
    /// [`VersionError::Unknown`] or [`VersionError::WrongState`].
    pub fn apply(&self, id: VersionId, transition: Transition) -> Result<Self, VersionError> {
        use VersionState::{Active, Destroyed, Inactive, Primary};
        let (needed, to, wanted) = match transition {
            Transition::Promote => (Active, Primary, "promoted"),
            Transition::Deactivate => (Active, Inactive, "deactivated"),
            Transition::Reactivate => (Inactive, Active, "reactivated"),
            Transition::Destroy => (Inactive, Destroyed, "destroyed"),
        };
        let from = self.find(id).ok_or(VersionError::Unknown(id))?.state;
        if from != needed {
            return Err(VersionError::WrongState { id, from, needed, wanted });
        }
        let changed = self.0.iter().map(|v| match v {
            v if v.id == id => Version { state: to, ..*v },
            v if to == Primary && v.state == Primary => Version { state: Active, ..*v },
            v => *v,
        });
        Self::new(changed.collect())
    }
}

impl Version {
    /// When this version stops being given out: the earlier of its own expiry and the key's hard maximum lifetime.
    #[must_use]
    pub fn end_of_life(&self, max_lifetime_seconds: Option<u32>) -> Option<Timestamp> {
        let hard = max_lifetime_seconds.map(|s| self.created.plus_seconds(i64::from(s)));
        match (self.expires, hard) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use VersionState::*;
    use proptest::prelude::*;

    fn id(n: u64) -> VersionId {
        VersionId::new(n).unwrap()
    }

    fn version(n: u64, state: VersionState) -> Version {
        Version { id: id(n), state, created: Timestamp(0), expires: None }
    }

    #[test]
    fn a_list_without_exactly_one_primary_is_refused() {
        assert_eq!(Versions::new(vec![]), Err(VersionError::NotOnePrimary(0)));
        let two = vec![version(1, Primary), version(2, Primary)];
        assert_eq!(Versions::new(two), Err(VersionError::NotOnePrimary(2)));
        let twice = vec![version(1, Primary), version(1, Active)];
        assert_eq!(Versions::new(twice), Err(VersionError::Duplicate(id(1))));
    }

    #[test]
    fn transitions_follow_the_table() {
        let start = Versions::new(vec![version(1, Primary), version(2, Active), version(3, Inactive), version(4, Destroyed)]).unwrap();
        let allowed = |n, t| start.apply(id(n), t).is_ok();
        use Transition::*;
        for (n, promote, deactivate, reactivate, destroy) in
            [(1, false, false, false, false), (2, true, true, false, false), (3, false, false, true, true), (4, false, false, false, false)]
        {
            assert_eq!(
                [allowed(n, Promote), allowed(n, Deactivate), allowed(n, Reactivate), allowed(n, Destroy)],
                [promote, deactivate, reactivate, destroy],
                "version {n}"
            );
        }
        let promoted = start.apply(id(2), Promote).unwrap();
        assert_eq!(promoted.find(id(1)).unwrap().state, Active);
        assert_eq!(promoted.primary().id, id(2));
        assert_eq!(start.apply(id(9), Promote), Err(VersionError::Unknown(id(9))));
    }

    #[test]
    fn the_earlier_of_expiry_and_lifetime_ends_a_version() {
        let v = Version { expires: Some(Timestamp(5_000_000_000)), ..version(1, Active) };
        assert_eq!(v.end_of_life(Some(3)), Some(Timestamp(3_000_000_000)));
        assert_eq!(v.end_of_life(Some(9)), Some(Timestamp(5_000_000_000)));
        assert_eq!(version(1, Active).end_of_life(None), None);
    }

    proptest! {
        #[test]
        fn whatever_is_done_one_version_stays_primary_and_none_is_lost(steps in prop::collection::vec((0u8..5, 1u64..8), 0..60)) {
            let mut versions = Versions::new(vec![version(1, Primary)]).unwrap();
            for (what, n) in steps {
                let next = match what {
                    0 => versions.add(id(n), Timestamp(0), None),
                    1 => versions.apply(id(n), Transition::Promote),
                    2 => versions.apply(id(n), Transition::Deactivate),
                    3 => versions.apply(id(n), Transition::Reactivate),
                    _ => versions.apply(id(n), Transition::Destroy),
                };
                let Ok(next) = next else { continue };
                prop_assert!(next.len() >= versions.len());
                prop_assert_eq!(next.iter().filter(|v| v.state == Primary).count(), 1);
                for v in versions.iter().filter(|v| v.state == Destroyed) {
                    prop_assert_eq!(next.find(v.id).unwrap().state, Destroyed);
                }
                versions = next;
            }
        }
    }
}
