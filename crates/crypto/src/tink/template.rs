//! The templates that Knox knows: what a new key is, and which ids may have it.

use super::keyset::{Key, Keyset, Material, OutputPrefix, Status};
use super::{TinkError, aead, daead, hybrid, mac, saead, signature};
use crate::random;
use claviger_domain::SecretBytes;
use zeroize::Zeroizing;

/// What a new key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Template {
    /// AES-128-GCM.
    AeadAes128Gcm,
    /// AES-256-GCM.
    AeadAes256Gcm,
    /// AES-SIV (RFC 5297) with a key of 64 bytes.
    DaeadAes256Siv,
    /// ECDSA over P-256 with SHA-256, signatures in DER.
    DsigEcdsaP256,
    /// Ed25519.
    DsigEd25519,
    /// ECIES over P-256 with HKDF-SHA-256 and AES-128-GCM.
    HybridEciesP256,
    /// HMAC-SHA-512, tags of 32 bytes.
    MacHmacSha512,
    /// AES-128-GCM in segments of 1 MiB.
    SaeadAes128Gcm1Mb,
    /// AES-128-GCM in segments of 4 KiB.
    SaeadAes128Gcm4Kb,
}

/// What keys are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Encryption with associated data.
    Aead,
    /// Message authentication codes.
    Mac,
    /// Signatures.
    Signature,
    /// Encryption to a public key.
    Hybrid,
    /// Encryption of which equal input gives equal output.
    DeterministicAead,
    /// Encryption of streams.
    StreamingAead,
}

impl Family {
    /// How ids of keys of this family begin in Knox.
    #[must_use]
    pub fn id_prefix(self) -> &'static str {
        match self {
            Self::Aead => "tink:aead:",
            Self::Mac => "tink:mac:",
            Self::Signature => "tink:dsig:",
            Self::Hybrid => "tink:hybrid:",
            Self::DeterministicAead => "tink:daead:",
            Self::StreamingAead => "tink:saead:",
        }
    }
}

/// The family that the key id stands for; `None` where it is no id of a Tink key.
#[must_use]
pub fn family_of_id(id: &str) -> Option<Family> {
    Template::ALL.iter().map(|template| template.family()).find(|family| id.starts_with(family.id_prefix()))
}

impl Template {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 9] = [
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
        Self::DaeadAes256Siv,
        Self::DsigEcdsaP256,
        Self::DsigEd25519,
        Self::HybridEciesP256,
        Self::MacHmacSha512,
        Self::SaeadAes128Gcm1Mb,
        Self::SaeadAes128Gcm4Kb,
    ];

    /// Its name in Knox.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AeadAes128Gcm => "TINK_AEAD_AES128_GCM",
            Self::AeadAes256Gcm => "TINK_AEAD_AES256_GCM",
            Self::DaeadAes256Siv => "TINK_DAEAD_AES256_SIV",
            Self::DsigEcdsaP256 => "TINK_DSIG_ECDSA_P256",
            Self::DsigEd25519 => "TINK_DSIG_ED25519",
            Self::HybridEciesP256 => "TINK_HYBRID_ECIES_P256_HKDF_HMAC_SHA256_AES128_GCM",
            Self::MacHmacSha512 => "TINK_MAC_HMAC_SHA512_256BITTAG",
            Self::SaeadAes128Gcm1Mb => "TINK_SAEAD_AES128_GCM_HKDF_1MB",
            Self::SaeadAes128Gcm4Kb => "TINK_SAEAD_AES128_GCM_HKDF_4KB",
        }
    }

    /// The template of this name; case counts.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|template| template.name() == name)
    }

    /// What its keys are for.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => Family::Aead,
            Self::DaeadAes256Siv => Family::DeterministicAead,
            Self::DsigEcdsaP256 | Self::DsigEd25519 => Family::Signature,
            Self::HybridEciesP256 => Family::Hybrid,
            Self::MacHmacSha512 => Family::Mac,
            Self::SaeadAes128Gcm1Mb | Self::SaeadAes128Gcm4Kb => Family::StreamingAead,
        }
    }

    /// A keyset of one new key, with a random id of 32 bits that is not in `taken` and not zero.
    ///
    /// # Errors
    /// [`TinkError::Crypto`] when AWS-LC fails.
    pub fn generate(self, taken: &[u32]) -> Result<Keyset, TinkError> {
        let mut id = 0;
        while id == 0 || taken.contains(&id) {
            id = u32::from_be_bytes(random());
        }
        let (type_url, material, mut value) = self.new_key()?;
        let prefix = match self.family() {
            Family::StreamingAead => OutputPrefix::Raw,
            _ => OutputPrefix::Tink,
        };
        let value = SecretBytes::new(std::mem::take(&mut *value));
        Keyset::new(id, vec![Key { type_url: type_url.to_owned(), value, material, status: Status::Enabled, id, prefix }])
    }

    /// Whether a keyset's one key is of this template's kind and length, with its parameters. What stands before what the key makes
    /// may differ.
    #[must_use]
    pub fn could_have_made(self, keyset: &Keyset) -> bool {
        let ([key], Ok((type_url, material, like))) = (keyset.keys(), self.new_key()) else { return false };
        // The key's own bytes come last, and parameters before them. Kinds with a public half are read with one set of them only.
        let parameters = |value: &[u8]| value[..value.len().saturating_sub(self.secret_len())].to_vec();
        let value = key.value.expose();
        let is_alike = material != Material::Symmetric || (value.len() == like.len() && parameters(value) == parameters(&like));
        key.type_url == type_url && key.material == material && is_alike
    }

    /// Bytes of a symmetric key.
    fn secret_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::SaeadAes128Gcm1Mb | Self::SaeadAes128Gcm4Kb => 16,
            Self::AeadAes256Gcm => 32,
            Self::DaeadAes256Siv | Self::MacHmacSha512 => 64,
            Self::DsigEcdsaP256 | Self::DsigEd25519 | Self::HybridEciesP256 => 0,
        }
    }

    fn new_key(self) -> Result<(&'static str, Material, Zeroizing<Vec<u8>>), TinkError> {
        use Material::{AsymmetricPrivate, Symmetric};
        Ok(match self {
            Self::AeadAes128Gcm => (aead::TYPE_URL, Symmetric, aead::new_key(16)),
            Self::AeadAes256Gcm => (aead::TYPE_URL, Symmetric, aead::new_key(32)),
            Self::DaeadAes256Siv => (daead::TYPE_URL, Symmetric, daead::new_key()),
            Self::DsigEcdsaP256 => (signature::ECDSA_PRIVATE, AsymmetricPrivate, signature::new_ecdsa_key()?),
            Self::DsigEd25519 => (signature::ED25519_PRIVATE, AsymmetricPrivate, signature::new_ed25519_key()?),
            Self::HybridEciesP256 => (hybrid::PRIVATE, AsymmetricPrivate, hybrid::new_key()?),
            Self::MacHmacSha512 => (mac::TYPE_URL, Symmetric, mac::new_key()),
            Self::SaeadAes128Gcm1Mb => (saead::TYPE_URL, Symmetric, saead::new_key(1 << 20)),
            Self::SaeadAes128Gcm4Kb => (saead::TYPE_URL, Symmetric, saead::new_key(1 << 12)),
        })
    }
}

/// Random bytes for a key, written where they are wiped.
pub(super) fn random_bytes(length: usize) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; length]);
    aws_lc_rs::rand::fill(&mut bytes).expect("AWS-LC aborts when the operating system gives no entropy");
    bytes
}
