//! What a grant allows: a set of capabilities, and Knox's four presets.

use std::fmt;

/// One thing that can be allowed on a key or a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u16)]
pub enum Capability {
    /// Know that the key exists; see its metadata.
    List = 1,
    /// Read its data.
    Read = 1 << 1,
    /// Encrypt with it.
    Encrypt = 1 << 2,
    /// Decrypt with it.
    Decrypt = 1 << 3,
    /// Sign with it.
    Sign = 1 << 4,
    /// Verify with it.
    Verify = 1 << 5,
    /// Add versions and change their states.
    Write = 1 << 6,
    /// Change rights and policy; delete the key.
    Admin = 1 << 7,
    /// Create keys (on prefixes only).
    Create = 1 << 8,
}

impl Capability {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 9] =
        [Self::List, Self::Read, Self::Encrypt, Self::Decrypt, Self::Sign, Self::Verify, Self::Write, Self::Admin, Self::Create];

    /// The lower-case name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Sign => "sign",
            Self::Verify => "verify",
            Self::Write => "write",
            Self::Admin => "admin",
            Self::Create => "create",
        }
    }

    /// The capability of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.name() == name)
    }
}

/// A set of capabilities.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Capabilities(u16);

/// Knox's access types as sets (contract knox §3): each covers all below it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Preset {
    /// Nothing.
    None,
    /// List and every use of the key.
    Read,
    /// Read, and write.
    Write,
    /// Everything; on a prefix this includes `create`.
    Admin,
}

impl Preset {
    /// The set that the preset stands for.
    #[must_use]
    pub fn capabilities(self) -> Capabilities {
        use Capability::{Admin, Create, Write};
        match self {
            Self::None => Capabilities::NONE,
            Self::Read => Capabilities::USE.with(Capability::List),
            Self::Write => Self::Read.capabilities().with(Write),
            Self::Admin => Self::Write.capabilities().with(Admin).with(Create),
        }
    }
}

impl Capabilities {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// Every capability that touches or uses the material itself.
    pub const USE: Self = Self(
        Capability::Read as u16
            | Capability::Encrypt as u16
            | Capability::Decrypt as u16
            | Capability::Sign as u16
            | Capability::Verify as u16,
    );

    /// The set of `all`.
    pub fn of(all: impl IntoIterator<Item = Capability>) -> Self {
        all.into_iter().fold(Self::NONE, Self::with)
    }

    /// This set and one more capability.
    #[must_use]
    pub fn with(self, capability: Capability) -> Self {
        Self(self.0 | capability as u16)
    }

    /// What stands in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What stands in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What stands in this set and not in `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether `capability` is in the set.
    #[must_use]
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & capability as u16 != 0
    }

    /// Whether all of `other` is in the set.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members in writing order.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |c| self.contains(*c))
    }

    /// The highest preset whose set this one contains, as Knox's surface shows it. `create` means nothing on a key and
    /// is not asked for.
    #[must_use]
    pub fn highest_preset(self) -> Preset {
        let whole = self.with(Capability::Create);
        [Preset::Admin, Preset::Write, Preset::Read].into_iter().find(|p| whole.covers(p.capabilities())).unwrap_or(Preset::None)
    }

    /// The preset that says exactly what this set says, if one does (`create` aside).
    #[must_use]
    pub fn as_preset(self) -> Option<Preset> {
        let preset = self.highest_preset();
        (preset.capabilities().with(Capability::Create) == self.with(Capability::Create)).then_some(preset)
    }

    /// The set as stored; see [`Capabilities::from_bits`].
    #[must_use]
    pub fn bits(self) -> u16 {
        self.0
    }

    /// The set of these bits, or nothing where a bit is unknown.
    #[must_use]
    pub fn from_bits(bits: u16) -> Option<Self> {
        (bits & !0x1ff == 0).then_some(Self(bits))
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, c) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(c.name())?;
        }
        Ok(())
    }
}

/// Capabilities as types, so that a permit says in its type what it permits.
pub mod cap {
    use super::Capability;

    mod sealed {
        pub trait Sealed {}
    }

    /// A capability as a type. Only this module's types implement it.
    pub trait Kind: sealed::Sealed {
        /// The capability.
        const CAPABILITY: Capability;
    }

    /// The capabilities that allow to verify: whoever may sign may check what he has signed.
    pub trait Verifies: Kind {}
    impl Verifies for Verify {}
    impl Verifies for Sign {}

    macro_rules! kinds {
        ($($(#[$doc:meta])* $name:ident),*) => {$(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy)]
            pub enum $name {}
            impl sealed::Sealed for $name {}
            impl Kind for $name { const CAPABILITY: Capability = Capability::$name; }
        )*};
    }
    kinds!(
        /// See metadata.
        List,
        /// Read data.
        Read,
        /// Encrypt.
        Encrypt,
        /// Decrypt.
        Decrypt,
        /// Sign, and authenticate messages.
        Sign,
        /// Verify.
        Verify,
        /// Add versions, change states.
        Write,
        /// Change rights, delete.
        Admin
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_preset_covers_those_below() {
        let presets = [Preset::None, Preset::Read, Preset::Write, Preset::Admin];
        for pair in presets.windows(2) {
            assert!(pair[1].capabilities().covers(pair[0].capabilities()));
        }
        for preset in presets {
            assert_eq!(preset.capabilities().highest_preset(), preset);
            assert_eq!(preset.capabilities().as_preset(), Some(preset));
        }
    }

    #[test]
    fn an_exact_set_is_shown_as_the_highest_preset_it_contains() {
        let manage = Capabilities::of([Capability::List, Capability::Admin]);
        assert_eq!(manage.highest_preset(), Preset::None);
        assert_eq!(manage.as_preset(), None);
        assert_eq!(manage.to_string(), "list,admin");
    }

    #[test]
    fn unknown_bits_are_refused() {
        assert_eq!(Capabilities::from_bits(0x200), None);
        let all = Capabilities::of(Capability::ALL);
        assert_eq!(Capabilities::from_bits(all.bits()), Some(all));
    }
}
