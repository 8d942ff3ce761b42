//! `Keyset`, `Keyset.Key` and `KeyData` of tink.proto.

use super::TinkError;
use super::proto::{self, Writer};
use super::template::Family;
use super::{aead, daead, hybrid, mac, saead, signature};
use claviger_domain::SecretBytes;

/// Keys of one purpose, one of them primary: it encrypts and signs, the enabled ones decrypt and verify.
#[derive(Debug)]
pub struct Keyset {
    primary: u32,
    keys: Vec<Key>,
}

/// One key of a keyset.
#[derive(Debug)]
pub struct Key {
    /// Which kind, such as `type.googleapis.com/google.crypto.tink.AesGcmKey`.
    pub(super) type_url: String,
    /// The kind's own message.
    pub(super) value: SecretBytes,
    pub(super) material: Material,
    pub(super) status: Status,
    pub(super) id: u32,
    pub(super) prefix: OutputPrefix,
}

/// What the value of a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Material {
    /// Not said.
    Unknown,
    /// A secret key.
    Symmetric,
    /// A private key with its public one.
    AsymmetricPrivate,
    /// A public key: nothing secret.
    AsymmetricPublic,
    /// The key is elsewhere.
    Remote,
}

/// Whether a key may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Yes.
    Enabled,
    /// No.
    Disabled,
    /// No, and its material is gone.
    Destroyed,
}

/// What stands before what a key makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputPrefix {
    /// `01` and the key's id in four bytes, big endian.
    Tink,
    /// `00` and the key's id; MACs and signatures are over the message and a zero byte.
    Legacy,
    /// Nothing.
    Raw,
    /// `00` and the key's id.
    Crunchy,
}

/// Enumerators and their numbers and names in tink.proto.
macro_rules! enumerators {
    ($type:ty, $what:literal, $($variant:ident = $number:literal $name:literal),*) => {
        impl $type {
            fn from_number(number: u32) -> Result<Self, TinkError> {
                match number {
                    $($number => Ok(Self::$variant),)*
                    _ => Err(TinkError::Malformed(concat!("an unknown ", $what))),
                }
            }

            fn number(self) -> u32 {
                match self { $(Self::$variant => $number,)* }
            }

            /// Its name in tink.proto.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

enumerators!(Material, "kind of key material",
    Unknown = 0 "UNKNOWN_KEYMATERIAL", Symmetric = 1 "SYMMETRIC", AsymmetricPrivate = 2 "ASYMMETRIC_PRIVATE",
    AsymmetricPublic = 3 "ASYMMETRIC_PUBLIC", Remote = 4 "REMOTE");
enumerators!(Status, "status of a key", Enabled = 1 "ENABLED", Disabled = 2 "DISABLED", Destroyed = 3 "DESTROYED");
enumerators!(OutputPrefix, "output prefix", Tink = 1 "TINK", Legacy = 2 "LEGACY", Raw = 3 "RAW", Crunchy = 4 "CRUNCHY");

impl Keyset {
    /// Reads a keyset in Tink's binary form, without encryption around it.
    ///
    /// # Errors
    /// [`TinkError::Malformed`], [`TinkError::NoPrimary`] or [`TinkError::TwoPrimaries`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TinkError> {
        let (mut primary, mut keys) = (0, Vec::new());
        proto::read(bytes, Some(2), |field, value| match field {
            1 => value.number().map(|it| primary = it),
            2 => Key::parse(value.bytes()?).map(|it| keys.push(it)),
            _ => Err(proto::UNKNOWN),
        })?;
        if keys.is_empty() {
            return Err(TinkError::Malformed("it has no key"));
        }
        Self::new(primary, keys)
    }

    pub(super) fn new(primary: u32, keys: Vec<Key>) -> Result<Self, TinkError> {
        match keys.iter().filter(|key| key.id == primary).count() {
            0 => Err(TinkError::NoPrimary(primary)),
            1 => Ok(Self { primary, keys }),
            _ => Err(TinkError::TwoPrimaries(primary)),
        }
    }

    /// The keyset in Tink's binary form, as Tink's libraries write it.
    #[must_use]
    pub fn encode(&self) -> SecretBytes {
        let Self { primary, keys } = self;
        let room = keys.iter().map(Key::room).sum::<usize>() + 16;
        let start = Writer::with_capacity(room).number(1, *primary);
        let mut done = keys.iter().fold(start, |keyset, key| keyset.message(2, &key.encode())).done();
        SecretBytes::new(std::mem::take(&mut *done))
    }

    /// One keyset of the first key of each version's keyset, in their order; the primary one is that of the version for
    /// which the flag is set.
    ///
    /// # Errors
    /// [`TinkError::NotOnePrimaryVersion`], or [`TinkError::TwoPrimaries`] where another version has the same key again.
    pub fn merge(versions: impl IntoIterator<Item = (bool, Self)>) -> Result<Self, TinkError> {
        let (mut primary, mut keys) = (None, Vec::new());
        for (is_primary, version) in versions {
            let first = version.keys.into_iter().next().ok_or(TinkError::Malformed("it has no key"))?;
            if is_primary && primary.replace(first.id).is_some() {
                return Err(TinkError::NotOnePrimaryVersion);
            }
            keys.push(first);
        }
        Self::new(primary.ok_or(TinkError::NotOnePrimaryVersion)?, keys)
    }

    /// The id of the primary key.
    #[must_use]
    pub fn primary_id(&self) -> u32 {
        self.primary
    }

    /// All keys, in their order.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// What the keyset is for, judged by its primary key; `None` where no template makes such keys.
    #[must_use]
    pub fn family(&self) -> Option<Family> {
        let primary = self.keys.iter().find(|key| key.id == self.primary)?;
        match primary.type_url.as_str() {
            aead::TYPE_URL => Some(Family::Aead),
            mac::TYPE_URL => Some(Family::Mac),
            signature::ECDSA_PRIVATE | signature::ED25519_PRIVATE => Some(Family::Signature),
            hybrid::PRIVATE => Some(Family::Hybrid),
            daead::TYPE_URL => Some(Family::DeterministicAead),
            saead::TYPE_URL => Some(Family::StreamingAead),
            _ => None,
        }
    }

    /// The public half of a keyset for signatures or hybrid encryption: ids, states and prefixes stay.
    ///
    /// # Errors
    /// [`TinkError::Unsupported`] where a key has no public half.
    pub fn public(&self) -> Result<Self, TinkError> {
        let public = |key: &Key| match key.type_url.as_str() {
            signature::ECDSA_PRIVATE | signature::ED25519_PRIVATE => signature::public_key(key),
            hybrid::PRIVATE => hybrid::public_key(key),
            _ => Err(key.unsupported("it is no private key of signatures or hybrid encryption")),
        };
        Self::new(self.primary, self.keys.iter().map(public).collect::<Result<_, _>>()?)
    }
}

impl Key {
    fn parse(bytes: &[u8]) -> Result<Self, TinkError> {
        let (mut data, mut status, mut id, mut prefix) = (None, 0, 0, 0);
        proto::read(bytes, None, |field, value| match field {
            1 => value.bytes().map(|it| data = Some(it)),
            2 => value.number().map(|it| status = it),
            3 => value.number().map(|it| id = it),
            4 => value.number().map(|it| prefix = it),
            _ => Err(proto::UNKNOWN),
        })?;
        let data = data.ok_or(TinkError::Malformed("a key without data"))?;
        let (type_url, value, material) = parse_data(data)?;
        let (status, prefix) = (Status::from_number(status)?, OutputPrefix::from_number(prefix)?);
        Ok(Self { type_url, value, material, status, id, prefix })
    }

    fn encode(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let Self { type_url, value, material, status, id, prefix } = self;
        let data =
            Writer::with_capacity(self.room()).bytes(1, type_url.as_bytes()).bytes(2, value.expose()).number(3, material.number()).done();
        Writer::with_capacity(self.room()).message(1, &data).number(2, status.number()).number(3, *id).number(4, prefix.number()).done()
    }

    /// At least the length of its encoding.
    fn room(&self) -> usize {
        self.type_url.len() + self.value.len() + 64
    }

    /// Its id, of 32 bits.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Which kind of key it is.
    #[must_use]
    pub fn type_url(&self) -> &str {
        &self.type_url
    }

    /// Whether it may be used.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// What stands before what it makes.
    #[must_use]
    pub fn output_prefix(&self) -> OutputPrefix {
        self.prefix
    }

    /// What its value is.
    #[must_use]
    pub fn material(&self) -> Material {
        self.material
    }

    pub(super) fn unsupported(&self, what: impl Into<String>) -> TinkError {
        TinkError::Unsupported { id: self.id, what: what.into() }
    }

    pub(super) fn bad(&self, what: &'static str) -> TinkError {
        TinkError::BadKey { id: self.id, what }
    }

    /// Reads the key's message where it has the layout that most have: version = 1 and two fields of bytes, 2 and 3.
    pub(super) fn two_fields(&self) -> Result<(&[u8], &[u8]), TinkError> {
        let (mut version, mut second, mut third) = (0, &[][..], &[][..]);
        proto::read(self.value.expose(), None, |field, value| match field {
            1 => value.number().map(|it| version = it),
            2 => value.bytes().map(|it| second = it),
            3 => value.bytes().map(|it| third = it),
            _ => Err(proto::UNKNOWN),
        })?;
        self.version(version)?;
        Ok((second, third))
    }

    /// Reads the message of a public key on P-256: version = 1, params = 2, x = 3, y = 4. Gives parameters and coordinates, unchecked.
    pub(super) fn p256_public<'m>(&self, message: &'m [u8]) -> Result<[&'m [u8]; 3], TinkError> {
        let (mut version, mut params, mut x, mut y) = (0, &[][..], &[][..], &[][..]);
        proto::read(message, None, |field, value| match field {
            1 => value.number().map(|it| version = it),
            2 => value.bytes().map(|it| params = it),
            3 => value.bytes().map(|it| x = it),
            4 => value.bytes().map(|it| y = it),
            _ => Err(proto::UNKNOWN),
        })?;
        self.version(version)?;
        Ok([params, x, y])
    }

    /// The public half, a key of this type with this message, as a key of its own.
    pub(super) fn public_half(&self, type_url: &str, message: &[u8]) -> Self {
        Self {
            type_url: type_url.to_owned(),
            value: SecretBytes::new(message.to_vec()),
            material: Material::AsymmetricPublic,
            status: self.status,
            id: self.id,
            prefix: self.prefix,
        }
    }

    /// Checks that a message of the key has version 0, the only one there is.
    pub(super) fn version(&self, version: u32) -> Result<(), TinkError> {
        if version == 0 { Ok(()) } else { Err(self.unsupported(format!("version {version} of its message"))) }
    }

    /// For a type URL that the asked-for primitive does not have.
    pub(super) fn wrong_type(&self, wanted: &str) -> TinkError {
        let name = self.type_url.rsplit('.').next().unwrap_or_default();
        // The name comes from outside.
        let shown: String = name.chars().filter(char::is_ascii_alphanumeric).take(60).collect();
        self.unsupported(format!("a `{shown}` is no key for {wanted}"))
    }
}

fn parse_data(bytes: &[u8]) -> Result<(String, SecretBytes, Material), TinkError> {
    let (mut type_url, mut content, mut material) = ("", &[][..], 0);
    proto::read(bytes, None, |field, value| match field {
        1 => value.text().map(|it| type_url = it),
        2 => value.bytes().map(|it| content = it),
        3 => value.number().map(|it| material = it),
        _ => Err(proto::UNKNOWN),
    })?;
    if type_url.is_empty() {
        return Err(TinkError::Malformed("a key that does not say its kind"));
    }
    Ok((type_url.to_owned(), SecretBytes::new(content.to_vec()), Material::from_number(material)?))
}
