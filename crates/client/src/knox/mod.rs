//! A client of Knox's HTTP API (`/v0`), as Knox's own: for `claviger knox` and for whatever must also work with a real Knox server.
//!
//! Sections (§) are those of the Knox contract. It tries its proofs in order, goes on to the next one when the server knows the caller
//! not or does not let him (codes 5 and 6), and repeats only what was answered with code 1, at most three times in all (§10). A transport
//! that fails is not tried again: whether a change was made is then not known. Success is what the stricter client of 2026 takes for it:
//! status 2xx, `ok` and code 0.
//!
//! What it deliberately does not do: it keeps no cache, reads no environment, and does not interpret a key's data. [`Knox::key`] gives
//! the JSON as it came, in memory that is wiped.

mod error;
mod form;
mod login;

pub use error::KnoxError;
pub use login::{LoginAddress, password_grant};

use crate::buffer::Buffer;
use crate::config::{Address, Config};
use crate::http::Connection;
use crate::{Error, tls};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_domain::SecretBytes;
use claviger_wire::knox::json::{AclField, decode_acl};
use claviger_wire::knox::types::{AccessEntry, VersionStatus, write_acl};
use form::{Form, segment};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// §10: attempts in all, where the server says that it failed inside.
const ATTEMPTS: u32 = 3;
/// §10: between two of them.
const PAUSE: Duration = Duration::from_millis(50);
/// The code of a failure inside the server.
const INTERNAL: i64 = 1;
const UNAUTHENTICATED: i64 = 5;
const UNAUTHORIZED: i64 = 6;

/// Who one says to be: a whole `Authorization` header, such as `0tHOST` (§5).
pub struct Proof {
    /// `user`, `machine` or `service`, for messages.
    pub kind: &'static str,
    /// The header's value.
    pub header: Zeroizing<String>,
}

/// A client of one Knox server.
pub struct Knox {
    address: Address,
    tls: TlsConnector,
    timeout: Duration,
    proofs: Vec<Proof>,
    user_agent: String,
    idle: Mutex<Option<Connection>>,
}

/// The members of an answer that a client looks at (§2).
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    status: String,
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

impl Knox {
    /// A client; nothing is connected yet. Of `config` its address, roots, certificate and timeout count. `version` goes into the
    /// `User-Agent`.
    ///
    /// # Errors
    /// [`Error::Config`] when certificate, key and roots do not fit together.
    pub fn new(config: Config, proofs: Vec<Proof>, version: &str) -> Result<Self, Error> {
        let tls = TlsConnector::from(Arc::new(tls::client_config(&config)?));
        let Config { address, timeout, .. } = config;
        Ok(Self { address, tls, timeout, proofs, user_agent: format!("Knox_Client/{version}"), idle: Mutex::default() })
    }

    /// The ids of all keys; or, with ids and hashes, those of them that exist and have another hash (§4.1).
    ///
    /// # Errors
    /// [`KnoxError`].
    pub async fn keys(&self, polled: &[(&str, &str)]) -> Result<Vec<String>, KnoxError> {
        let query = polled.iter().fold(Form::default(), |form, (id, hash)| form.with(id, hash.as_bytes()));
        let target = format!("/v0/keys/?{}", String::from_utf8_lossy(query.bytes()));
        let ids: Option<Vec<String>> = json(&self.call("GET", &target, None).await?)?;
        Ok(ids.unwrap_or_default())
    }

    /// A key's JSON as the server sends it (§4.3); with no status, its primary and active versions.
    ///
    /// # Errors
    /// [`KnoxError`].
    pub async fn key(&self, id: &str, status: Option<VersionStatus>) -> Result<Zeroizing<Vec<u8>>, KnoxError> {
        let query = status.map(|status| format!("?status=%22{}%22", status.as_str())).unwrap_or_default();
        self.call("GET", &format!("/v0/keys/{}/{query}", segment(id)), None).await
    }

    /// Creates a key; the id of its first version (§4.2).
    ///
    /// # Errors
    /// [`KnoxError`].
    pub async fn create(&self, id: &str, data: &SecretBytes, acl: &[AccessEntry]) -> Result<u64, KnoxError> {
        let form = Form::default().with("acl", &acl_json(acl)?).with("data", encoded(data).as_bytes()).with("id", id.as_bytes());
        json(&self.call("POST", "/v0/keys/", Some(&form)).await?)
    }

    /// Adds a version; its id (§4.7).
    ///
    /// # Errors
    /// [`KnoxError`].
    pub async fn add(&self, id: &str, data: &SecretBytes) -> Result<u64, KnoxError> {
        let form = Form::default().with("data", encoded(data).as_bytes());
        json(&self.call("POST", &format!("/v0/keys/{}/versions/", segment(id)), Some(&form)).await?)
    }

    /// Changes a version's status (§4.8).
    ///
    /// # Errors
    /// [`KnoxError`].
    pub async fn update(&self, id: &str, version: &str, status: VersionStatus) -> Result<(), KnoxError> {
        let form = Form::default().with("status", format!("\"{}\"", status.as_str()).as_bytes());
        let target = format!("/v0/keys/{}/versions/{}/", segment(id), segment(version));
        self.call("PUT", &target, Some(&form)).await.map(drop)
    }

    /// Deletes a key (§4.4).
    ///
    /// # Errors
    /// [`KnoxError`].
    pub async fn delete(&self, id: &str) -> Result<(), KnoxError> {
        self.call("DELETE", &format!("/v0/keys/{}/", segment(id)), None).await.map(drop)
    }

    /// A key's ACL (§4.5).
    ///
    /// # Errors
    /// [`KnoxError`].
    pub async fn acl(&self, id: &str) -> Result<Vec<AccessEntry>, KnoxError> {
        let data = self.call("GET", &format!("/v0/keys/{}/access/", segment(id)), None).await?;
        decode_acl(&data, AclField::PutAccess).map_err(|e| KnoxError::Malformed(format!("its ACL: {e}")))
    }

    /// Adds, replaces and, with access `None`, removes entries of a key's ACL (§4.6).
    ///
    /// # Errors
    /// [`KnoxError`].
    pub async fn put_access(&self, id: &str, entries: &[AccessEntry]) -> Result<(), KnoxError> {
        let form = Form::default().with("acl", &acl_json(entries)?);
        self.call("PUT", &format!("/v0/keys/{}/access/", segment(id)), Some(&form)).await.map(drop)
    }

    /// Asks with each proof in turn; the answer's `data`.
    async fn call(&self, method: &str, target: &str, form: Option<&Form>) -> Result<Zeroizing<Vec<u8>>, KnoxError> {
        let mut said = None;
        for proof in &self.proofs {
            match self.repeat(method, target, form, proof).await {
                Err(KnoxError::Refused { code: UNAUTHENTICATED | UNAUTHORIZED, message }) => said = Some(message),
                other => return other,
            }
        }
        let kinds = self.proofs.iter().map(|proof| proof.kind).collect();
        Err(said.map_or(KnoxError::NoProof, |said| KnoxError::NotAllowed { kinds, said }))
    }

    async fn repeat(&self, method: &str, target: &str, form: Option<&Form>, proof: &Proof) -> Result<Zeroizing<Vec<u8>>, KnoxError> {
        let mut attempt = 1;
        loop {
            match self.once(&self.encode(method, target, form, proof)).await {
                Err(KnoxError::Refused { code: INTERNAL, .. }) if attempt < ATTEMPTS => tokio::time::sleep(PAUSE).await,
                other => return other,
            }
            attempt += 1;
        }
    }

    async fn once(&self, request: &Buffer) -> Result<Zeroizing<Vec<u8>>, KnoxError> {
        let mut connection = match self.idle_connection().await {
            Some(connection) => connection,
            None => Connection::open(&self.address, &self.tls).await?,
        };
        let answered = async {
            connection.send(request).await?;
            let (head, mut body) = connection.head().await?;
            let whole = connection.whole(&mut body).await?;
            let reusable = connection.reusable(&head, &body);
            Ok::<_, Error>((head.status, whole, reusable))
        };
        let limit = || Error::Timeout { address: self.address.to_string(), limit: self.timeout };
        let (status, body, reusable) = tokio::time::timeout(self.timeout, answered).await.map_err(|_| limit())??;
        if reusable {
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
        data_of(status, body.bytes())
    }

    /// The kept connection, if the server has not closed it meanwhile.
    async fn idle_connection(&self) -> Option<Connection> {
        let mut connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        connection.is_quiet().await.then_some(connection)
    }

    /// Head and body on the wire.
    fn encode(&self, method: &str, target: &str, form: Option<&Form>, proof: &Proof) -> Buffer {
        let body = form.map_or(&[][..], Form::bytes);
        let mut wire = Buffer::with_capacity(512 + target.len() + body.len());
        let host = self.address.to_string();
        let mut put = |parts: &[&str]| parts.iter().for_each(|part| wire.push(part.as_bytes()));
        put(&[method, " ", target, " HTTP/1.1\r\nHost: ", &host, "\r\nUser-Agent: ", &self.user_agent]);
        put(&["\r\nAuthorization: ", &proof.header, "\r\n"]);
        if form.is_some() {
            put(&["Content-Type: application/x-www-form-urlencoded\r\n"]);
        }
        if method != "GET" {
            put(&["Content-Length: ", &body.len().to_string(), "\r\n"]);
        }
        put(&["\r\n"]);
        wire.push(body);
        wire
    }
}

/// What an answer carries, or why it is none. No word of what is not understood is repeated: it may be a secret.
pub(crate) fn data_of(status: u16, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, KnoxError> {
    let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(|_| KnoxError::NoKnox { status })?;
    let is_success = (200..300).contains(&status) && envelope.status == "ok" && envelope.code == 0;
    match (is_success, envelope.status.as_str()) {
        (true, _) => Ok(Zeroizing::new(envelope.data.map_or("null", RawValue::get).as_bytes().to_vec())),
        (false, "error") if envelope.message.is_empty() => {
            let message = format!("the server refused with code {} and no explanation", envelope.code);
            Err(KnoxError::Refused { code: envelope.code, message })
        }
        (false, "error") => Err(KnoxError::Refused { code: envelope.code, message: envelope.message }),
        (false, _) => Err(KnoxError::NoKnox { status }),
    }
}

fn json<T: serde::de::DeserializeOwned>(data: &[u8]) -> Result<T, KnoxError> {
    serde_json::from_slice(data).map_err(|e| KnoxError::Malformed(format!("{:?} error in its data", e.classify())))
}

fn acl_json(entries: &[AccessEntry]) -> Result<Vec<u8>, KnoxError> {
    let mut out = Vec::new();
    let written = write_acl(&mut out, entries.iter().map(AccessEntry::as_ref));
    written.map(|()| out).map_err(|e| KnoxError::Entry(e.to_string()))
}

fn encoded(data: &SecretBytes) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(data.expose()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn answer(status: &str, code: i64, data: &str) -> String {
        format!(r#"{{"status":"{status}","code":{code},"host":"h","ts":1,"message":"why","data":{data}}}"#)
    }

    fn read(status: u16, body: &str) -> Result<String, KnoxError> {
        data_of(status, body.as_bytes()).map(|data| String::from_utf8(data.to_vec()).unwrap())
    }

    #[test]
    fn success_needs_status_word_and_code_together() {
        assert_eq!(read(200, &answer("ok", 0, r#"{"id":18446744073709551615}"#)).unwrap(), r#"{"id":18446744073709551615}"#);
        assert_eq!(read(200, &answer("ok", 0, "null")).unwrap(), "null");
        for (status, word, code) in [(500, "ok", 0), (200, "ok", 3), (200, "fine", 0), (302, "ok", 0)] {
            assert!(matches!(read(status, &answer(word, code, "1")), Err(KnoxError::NoKnox { .. })), "{status} {word} {code}");
        }
        assert!(matches!(read(404, &answer("error", 4, "null")), Err(KnoxError::Refused { code: 4, .. })));
    }

    #[test]
    fn what_is_no_answer_is_not_repeated() {
        for body in ["hunter2", "", "<html>", r#"{"status":"ok","#, r#"{"status":3}"#] {
            let refused = read(200, body).unwrap_err().to_string();
            assert!(refused.contains("HTTP status 200") && !refused.contains("hunter2"), "{refused}");
        }
    }
}
