//! Routes that use keys. A body has one or many items; an answer has what came of each.
//!
//! Plaintexts are decoded out of the request's own buffer into memory that is wiped, and encoded into one buffer of the right size.

use super::problem::{Fault, Stop};
use super::request::version_id;
use super::{Answer, Ask, Native, SURFACE, answer, json_answer};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_crypto::{Form, Hash, Padding, PublicKey, Scheme};
use claviger_domain::{SecretBytes, VersionId};
use claviger_engine::{Check, Cipher, DataKey, Document, Done, Each, Error, Exported, Plain, Proof, Using};
use claviger_wire::native::{
    DataKeyItem, Decrypt, DecryptItem, Encrypt, EncryptItem, FieldError, Hmac, ImportKey, MakeDataKeys, PublicKeys, PublicVersion, Sign,
    SignItem, Verify, VerifyItem, decode_base64, push_base64,
};
use std::collections::BTreeMap;

/// Items of one request at most.
const MANY: usize = 1000;

type Checked<T> = Result<T, FieldError>;

impl Native {
    pub(crate) async fn encrypt(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let Encrypt { items } = ask.json()?;
        let items = each(items, |item, i| {
            let EncryptItem { plaintext, aad } = item;
            Ok(Plain { plain: secret(&plaintext, i, "plaintext")?, aad: optional(aad, i, "aad")? })
        })?;
        let ends = self.engine().encrypt(&using(ask, id.as_str()), &items).await?;
        results(&ends, |out, sealed| push(out, "ciphertext", sealed))
    }

    pub(crate) async fn rewrap(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let items = ciphers(ask)?;
        let ends = self.engine().rewrap(&using(ask, id.as_str()), &items).await?;
        results(&ends, |out, sealed| push(out, "ciphertext", sealed))
    }

    pub(crate) async fn decrypt(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let items = ciphers(ask)?;
        let ends = self.engine().decrypt(&using(ask, id.as_str()), &items).await?;
        results(&ends, |out, plain: &SecretBytes| push(out, "plaintext", plain.expose()))
    }

    pub(crate) async fn data_keys(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let MakeDataKeys { items, wrapped_only } = ask.json()?;
        let items = each(items, |DataKeyItem { bytes, aad }, i| match bytes.unwrap_or(32) {
            bytes @ (16 | 32 | 64) => Ok(DataKey { bytes: usize::from(bytes), aad: optional(aad, i, "aad")? }),
            _ => Err(FieldError::new(format!("items[{i}].bytes"), "must be 16, 32 or 64")),
        })?;
        let ends = self.engine().data_keys(&using(ask, id.as_str()), &items).await?;
        results(&ends, |out, (plain, sealed): &(SecretBytes, Vec<u8>)| {
            push(out, "ciphertext", sealed);
            if !wrapped_only {
                push(out, "plaintext", plain.expose());
            }
        })
    }

    pub(crate) async fn sign(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let Sign { items, hash, padding, form } = ask.json()?;
        let scheme = scheme(hash.as_deref(), padding.as_deref(), form.as_deref())?;
        let items = each(items, |SignItem { message, digest }, i| document(message, digest, i))?;
        let ends = self.engine().sign(&using(ask, id.as_str()), &scheme, &items).await?;
        results(&ends, |out, signature| push(out, "signature", signature))
    }

    pub(crate) async fn hmac(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let Hmac { items, hash } = ask.json()?;
        let Scheme { hash, .. } = scheme(hash.as_deref(), None, None)?;
        let items = each(items, |item, i| bytes(&item.message, i, "message"))?;
        let ends = self.engine().hmac(&using(ask, id.as_str()), hash, &items).await?;
        results(&ends, |out, code| push(out, "signature", code))
    }

    pub(crate) async fn verify(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let Verify { items, hash, padding, form } = ask.json()?;
        let scheme = scheme(hash.as_deref(), padding.as_deref(), form.as_deref())?;
        let items = each(items, |item, i| {
            let VerifyItem { message, digest, signature, version } = item;
            let proof = bytes(&signature, i, "signature")?;
            Ok(Proof { document: document(message, digest, i)?, proof, version: version_of(version.as_deref(), i)? })
        })?;
        let ends = self.engine().verify(&using(ask, id.as_str()), &scheme, &items).await?;
        let mut json = open(&ends);
        let one = |out: &mut Vec<u8>, done: &Done<Check>| {
            if let Some(version) = done.value.holds_for {
                push_version(out, version);
            }
            out.extend_from_slice(if done.value.holds_for.is_some() { b"\"valid\":true" } else { b"\"valid\":false" });
        };
        push_all(&mut json, &ends, one)?;
        Ok(json_answer(200, json))
    }

    pub(crate) async fn show_public(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let (entry, versions) = self.engine().public_keys(&using(ask, id.as_str())).await?;
        let keys = versions.iter().map(|v| {
            let (version, state) = (v.version.id.to_string(), v.version.state.name().to_owned());
            match &v.public {
                PublicKey::Single { jwk, .. } => {
                    let members = jwk.members.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
                    let named = [("kty".to_owned(), jwk.kind.to_owned()), ("kid".to_owned(), version.clone())];
                    let jwk: BTreeMap<_, _> = members.chain(named).collect();
                    PublicVersion { version, state, pem: v.public.pem(), jwk: Some(jwk), keyset: None }
                }
                PublicKey::Keyset(bytes) => PublicVersion { version, state, pem: None, jwk: None, keyset: Some(STANDARD.encode(bytes)) },
            }
        });
        let body = PublicKeys { id: id.to_string(), kind: entry.meta.kind.name().to_owned(), keys: keys.collect() };
        Ok(answer(200, &body).with_header("Claviger-Revision", entry.revision.to_string()))
    }

    pub(crate) async fn export(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let version = ask.query.one("version").map(version_id).transpose()?;
        let exported = self.engine().export(&using(ask, id.as_str()), version).await?;
        Ok(json_answer(200, exported_json("", &exported, "")))
    }
}

impl Native {
    pub(crate) async fn show_import_key(&self, ask: &Ask<'_>) -> Answer {
        let key = self.engine().import_key(ask.caller, SURFACE).await?;
        let claviger_crypto::ImportKey { barrier, pem, statement, signature } = key;
        let body = ImportKey { barrier_version: barrier, pem, statement, signature: STANDARD.encode(signature) };
        Ok(answer(200, &body))
    }
}

/// Exported material as JSON, in a buffer of the right size, between what stands before and behind it.
pub(crate) fn exported_json(before: &str, exported: &Exported, behind: &str) -> Vec<u8> {
    let Exported { entry, version, material } = exported;
    // Ids and kinds need no escaping.
    let (id, kind) = (&entry.meta.id, entry.meta.kind.name());
    let start = format!(r#"{before}{{"id":"{id}","kind":"{kind}","version":"{}","material":""#, version.id);
    let mut json = Vec::with_capacity(start.len() + 2 + behind.len() + material.len().div_ceil(3) * 4);
    json.extend_from_slice(start.as_bytes());
    push_base64(&mut json, material.expose());
    json.extend_from_slice(b"\"}");
    json.extend_from_slice(behind.as_bytes());
    json
}

fn using<'a>(ask: &Ask<'a>, id: &'a str) -> Using<'a> {
    Using { caller: ask.caller, surface: SURFACE, id }
}

/// Each item, checked; errors name its place.
fn each<I, T>(items: Vec<I>, check: impl Fn(I, usize) -> Checked<T>) -> Checked<Vec<T>> {
    if !(1..=MANY).contains(&items.len()) {
        return Err(FieldError::new("items", format!("must be 1 to {MANY} items, not {}", items.len())));
    }
    items.into_iter().enumerate().map(|(i, item)| check(item, i)).collect()
}

fn bytes(text: &str, item: usize, field: &str) -> Checked<Vec<u8>> {
    decode_base64(text.as_bytes(), field).map_err(|e| FieldError::new(format!("items[{item}].{field}"), e.rule))
}

fn secret(text: &str, item: usize, field: &str) -> Checked<SecretBytes> {
    bytes(text, item, field).map(SecretBytes::new)
}

fn optional(text: Option<String>, item: usize, field: &str) -> Checked<Vec<u8>> {
    text.map_or(Ok(Vec::new()), |text| bytes(&text, item, field))
}

fn version_of(text: Option<&str>, item: usize) -> Checked<Option<VersionId>> {
    let at = |e: FieldError| FieldError::new(format!("items[{item}].version"), e.rule);
    text.map(|text| version_id(text).map_err(at)).transpose()
}

fn ciphers(ask: &Ask<'_>) -> Checked<Vec<Cipher>> {
    let Decrypt { items } = ask.json()?;
    each(items, |item, i| {
        let DecryptItem { ciphertext, aad, version } = item;
        let sealed = bytes(&ciphertext, i, "ciphertext")?;
        Ok(Cipher { sealed, aad: optional(aad, i, "aad")?, version: version_of(version.as_deref(), i)? })
    })
}

fn document(message: Option<String>, digest: Option<String>, item: usize) -> Checked<Document> {
    match (message, digest) {
        (Some(message), None) => Ok(Document { message: bytes(&message, item, "message")?, is_digest: false }),
        (None, Some(digest)) => Ok(Document { message: bytes(&digest, item, "digest")?, is_digest: true }),
        _ => Err(FieldError::new(format!("items[{item}]"), "give either `message` or `digest`")),
    }
}

fn scheme(hash: Option<&str>, padding: Option<&str>, form: Option<&str>) -> Checked<Scheme> {
    let named = |hash: &str| Hash::from_name(hash).ok_or_else(|| FieldError::new("hash", "must be sha-256, sha-384 or sha-512"));
    let padded = |padding: &str| Padding::from_name(padding).ok_or_else(|| FieldError::new("padding", "must be pss or pkcs1v15"));
    let formed = |form: &str| Form::from_name(form).ok_or_else(|| FieldError::new("form", "must be der or raw"));
    Ok(Scheme { hash: hash.map(named).transpose()?, padding: padding.map(padded).transpose()?, form: form.map(formed).transpose()? })
}

/// The answer with what came of each item; of one item alone, its problem.
fn results<T: Measured>(ends: &Each<T>, one: impl Fn(&mut Vec<u8>, &T)) -> Answer {
    let mut json = open(ends);
    push_all(&mut json, ends, |out, done| {
        push_version(out, done.version);
        one(out, &done.value);
        // Each member is followed by a comma.
        out.pop();
    })?;
    Ok(json_answer(200, json))
}

/// How many bytes a result has.
trait Measured {
    fn bytes(&self) -> usize;
}

impl Measured for Vec<u8> {
    fn bytes(&self) -> usize {
        self.len()
    }
}

impl Measured for SecretBytes {
    fn bytes(&self) -> usize {
        self.len()
    }
}

impl Measured for (SecretBytes, Vec<u8>) {
    fn bytes(&self) -> usize {
        self.0.len() + self.1.len()
    }
}

impl Measured for Check {
    fn bytes(&self) -> usize {
        0
    }
}

/// A buffer with room for all results, so that no half of a plaintext is left behind by a growing one.
fn open<T: Measured>(ends: &Each<T>) -> Vec<u8> {
    let room = |end: &Result<Done<T>, Error>| match end {
        Ok(done) => 128 + done.value.bytes().div_ceil(3) * 4,
        Err(_) => 512,
    };
    Vec::with_capacity(16 + ends.iter().map(room).sum::<usize>())
}

fn push_all<T>(json: &mut Vec<u8>, ends: &Each<T>, one: impl Fn(&mut Vec<u8>, &Done<T>)) -> Result<(), Stop> {
    json.extend_from_slice(b"{\"items\":[");
    for (i, end) in ends.iter().enumerate() {
        if i > 0 {
            json.push(b',');
        }
        json.push(b'{');
        match end {
            Ok(done) => one(json, done),
            Err(error) if ends.len() == 1 => return Err(error.clone().into()),
            Err(error) => {
                json.extend_from_slice(b"\"error\":");
                serde_json::to_writer(&mut *json, &Fault::of(error, false).into_item()).expect("three strings");
            }
        }
        json.push(b'}');
    }
    json.extend_from_slice(b"]}");
    Ok(())
}

fn push_version(json: &mut Vec<u8>, version: VersionId) {
    json.extend_from_slice(b"\"version\":\"");
    json.extend_from_slice(itoa::Buffer::new().format(version.get()).as_bytes());
    json.extend_from_slice(b"\",");
}

fn push(json: &mut Vec<u8>, name: &str, data: &[u8]) {
    json.push(b'"');
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\":\"");
    push_base64(json, data);
    json.extend_from_slice(b"\",");
}
