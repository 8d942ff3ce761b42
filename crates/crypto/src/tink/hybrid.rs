//! ECIES over P-256: `[prefix][ephemeral point, uncompressed 65][nonce 12][ciphertext][tag 16]`, the AES-128-GCM key being
//! HKDF-SHA-256 of the point and the shared secret.

use super::proto::{self, Writer};
use super::set::{Opened, Set};
use super::{Key, Keyset, TinkError, aead, ec, hkdf};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use claviger_domain::SecretBytes;
use zeroize::Zeroizing;

pub(super) const PRIVATE: &str = "type.googleapis.com/google.crypto.tink.EciesAeadHkdfPrivateKey";
const PUBLIC: &str = "type.googleapis.com/google.crypto.tink.EciesAeadHkdfPublicKey";

/// EcPointFormat UNCOMPRESSED of common.proto.
const UNCOMPRESSED: u32 = 1;
/// OutputPrefixType TINK, which the template of the inner cipher carries and which has no effect.
const TINK: u32 = 1;
const AES_KEY: usize = 16;

/// Encryption to a public key.
pub struct HybridEncrypt(Set<Recipient>);

/// Decryption of what was encrypted to the public key.
pub struct HybridDecrypt(Set<Holder>);

struct Recipient {
    point: [u8; ec::POINT],
    salt: Vec<u8>,
}

struct Holder {
    private: PrivateKey,
    salt: Vec<u8>,
}

impl HybridEncrypt {
    /// Of a keyset of public or private keys.
    ///
    /// # Errors
    /// [`TinkError::Unsupported`] or [`TinkError::BadKey`], which name the key; [`TinkError::PrimaryNotEnabled`].
    pub fn new(keyset: &Keyset) -> Result<Self, TinkError> {
        Set::new(keyset, recipient).map(Self)
    }

    /// Encrypts to the primary key; `context` must be the same at decryption.
    ///
    /// # Errors
    /// [`TinkError::TooLong`] beyond 64 GiB, [`TinkError::BadKey`] where the key's point is not on the curve.
    pub fn encrypt(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>, TinkError> {
        let primary = self.0.primary();
        let ephemeral = PrivateKey::generate(&ECDH_P256)?;
        let public = ephemeral.compute_public_key()?;
        let recipient = &primary.primitive;
        let off_curve = TinkError::BadKey { id: primary.id, what: "its point is not on the curve" };
        let key = shared_key(&ephemeral, &recipient.point, public.as_ref(), &recipient.salt, context).ok_or(off_curve)?;
        let key = aead::aes_gcm(&key).ok_or(TinkError::Crypto)?;
        aead::seal(&key, &[&primary.prefix, public.as_ref()].concat(), plain, &[])
    }
}

impl HybridDecrypt {
    /// Of a keyset of private keys.
    ///
    /// # Errors
    /// As [`HybridEncrypt::new`].
    pub fn new(keyset: &Keyset) -> Result<Self, TinkError> {
        Set::new(keyset, holder).map(Self)
    }

    /// Decrypts with whichever enabled key it was encrypted to.
    ///
    /// # Errors
    /// [`TinkError::NotAuthentic`].
    pub fn decrypt(&self, ciphertext: &[u8], context: &[u8]) -> Result<Opened, TinkError> {
        let (key_id, plain) = self.0.find(ciphertext, |entry, bytes| entry.primitive.open(bytes, context))?;
        Ok(Opened { key_id, plain })
    }
}

impl Holder {
    fn open(&self, bytes: &[u8], context: &[u8]) -> Option<SecretBytes> {
        let (point, sealed) = bytes.split_first_chunk::<{ ec::POINT }>()?;
        // Only the uncompressed form: AWS-LC would take others of this length too, and there must be one ciphertext only.
        ec::coordinates(point)?;
        let key = shared_key(&self.private, point, point, &self.salt, context)?;
        aead::open(&aead::aes_gcm(&key)?, sealed, &[])
    }
}

/// HKDF of `ephemeral` and the secret that `private` and `peer` share. AWS-LC refuses points that are not on the curve.
fn shared_key(private: &PrivateKey, peer: &[u8], ephemeral: &[u8], salt: &[u8], context: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let derive = |secret: &[u8]| {
        let input = Zeroizing::new([ephemeral, secret].concat());
        hkdf::sha256(&input, salt, context, AES_KEY).map_err(drop)
    };
    agree(private, UnparsedPublicKey::new(&ECDH_P256, peer), (), derive).ok()
}

fn recipient(key: &Key) -> Result<Recipient, TinkError> {
    match key.type_url.as_str() {
        PRIVATE => public(key, private(key)?.0),
        PUBLIC => public(key, key.value.expose()),
        _ => Err(key.wrong_type("hybrid encryption")),
    }
}

fn holder(key: &Key) -> Result<Holder, TinkError> {
    if key.type_url != PRIVATE {
        return Err(key.wrong_type("hybrid decryption"));
    }
    let (message, number) = private(key)?;
    let Recipient { point, salt } = public(key, message)?;
    let number = ec::fixed(number).ok_or_else(|| key.bad("its private key has more than 32 bytes"))?;
    let private = PrivateKey::from_private_key(&ECDH_P256, &*number).map_err(|_| key.bad("its private key is none of P-256"))?;
    match private.compute_public_key()?.as_ref() == point {
        true => Ok(Holder { private, salt }),
        false => Err(key.bad("its private and public key do not fit together")),
    }
}

/// The public half of a private key, as a key of its own.
pub(super) fn public_key(key: &Key) -> Result<Key, TinkError> {
    Ok(key.public_half(PUBLIC, private(key)?.0))
}

/// Reads EciesAeadHkdfPrivateKey { version = 1, public_key = 2, key_value = 3 }: the public message, the private number.
fn private(key: &Key) -> Result<(&[u8], &[u8]), TinkError> {
    key.two_fields()
}

/// Reads EciesAeadHkdfPublicKey { version = 1, params = 2, x = 3, y = 4 }.
fn public(key: &Key, message: &[u8]) -> Result<Recipient, TinkError> {
    let [parameters, x, y] = key.p256_public(message)?;
    let salt = check_params(key, parameters)?.to_vec();
    let point = ec::point(x, y).ok_or_else(|| key.bad("its point is none of P-256"))?;
    Ok(Recipient { point, salt })
}

/// Reads EciesAeadHkdfParams { kem_params = 1, dem_params = 2 { aead_dem = 2… }, ec_point_format = 3 }; gives HKDF's salt.
fn check_params<'a>(key: &Key, parameters: &'a [u8]) -> Result<&'a [u8], TinkError> {
    let (mut kem, mut dem, mut format) = (&[][..], &[][..], 0);
    proto::read(parameters, None, |field, value| match field {
        1 => value.bytes().map(|it| kem = it),
        2 => value.bytes().map(|it| dem = it),
        3 => value.number().map(|it| format = it),
        _ => Err(proto::UNKNOWN),
    })?;
    let (mut curve, mut hash, mut salt) = (0, 0, &[][..]);
    proto::read(kem, None, |field, value| match field {
        1 => value.number().map(|it| curve = it),
        2 => value.number().map(|it| hash = it),
        11 => value.bytes().map(|it| salt = it),
        _ => Err(proto::UNKNOWN),
    })?;
    let is_known = (curve, hash, format) == (ec::NIST_P256, ec::SHA256, UNCOMPRESSED) && is_aes128_gcm(dem)?;
    let what = "ECIES other than over P-256 with HKDF-SHA-256, uncompressed points and AES-128-GCM";
    if is_known { Ok(salt) } else { Err(key.unsupported(what)) }
}

/// Whether EciesAeadDemParams { aead_dem = 2: KeyTemplate { type_url = 1, value = 2, output_prefix_type = 3 } } names
/// AesGcmKeyFormat { key_size = 2, version = 3 } of 16 bytes.
fn is_aes128_gcm(dem: &[u8]) -> Result<bool, TinkError> {
    let mut template = &[][..];
    proto::read(dem, None, |field, value| match field {
        2 => value.bytes().map(|it| template = it),
        _ => Err(proto::UNKNOWN),
    })?;
    let (mut type_url, mut format) = ("", &[][..]);
    proto::read(template, None, |field, value| match field {
        1 => value.text().map(|it| type_url = it),
        2 => value.bytes().map(|it| format = it),
        // The inner cipher never writes a prefix, whatever its template says.
        3 => value.number().map(drop),
        _ => Err(proto::UNKNOWN),
    })?;
    let (mut size, mut version) = (0, 0);
    if type_url == aead::TYPE_URL {
        proto::read(format, None, |field, value| match field {
            2 => value.number().map(|it| size = it),
            3 => value.number().map(|it| version = it),
            _ => Err(proto::UNKNOWN),
        })?;
    }
    Ok(type_url == aead::TYPE_URL && (size as usize, version) == (AES_KEY, 0))
}

pub(super) fn new_key() -> Result<Zeroizing<Vec<u8>>, TinkError> {
    let pair = PrivateKey::generate(&ECDH_P256)?;
    let private: EcPrivateKeyBin<'_> = pair.as_be_bytes()?;
    let public = pair.compute_public_key()?;
    let (x, y) = ec::coordinates(public.as_ref()).ok_or(TinkError::Crypto)?;
    let public = Writer::with_capacity(192).message(2, &params()).bytes(3, x).bytes(4, y).done();
    Ok(Writer::with_capacity(288).message(2, &public).bytes(3, private.as_ref()).done())
}

fn params() -> Zeroizing<Vec<u8>> {
    let format = Writer::with_capacity(8).number(2, AES_KEY as u32).done();
    let template = Writer::with_capacity(80).bytes(1, aead::TYPE_URL.as_bytes()).message(2, &format).number(3, TINK).done();
    let dem = Writer::with_capacity(80).message(2, &template).done();
    let kem = Writer::with_capacity(8).number(1, ec::NIST_P256).number(2, ec::SHA256).done();
    Writer::with_capacity(96).message(1, &kem).message(2, &dem).number(3, UNCOMPRESSED).done()
}
