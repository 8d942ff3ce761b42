//! Fingerprints of values, for who looks for them in files. They take the right to read, and are recorded as a reading of their own kind.

use super::data::ids_of;
use super::problem::{Fault, Stop};
use super::{Answer, Ask, Native, SURFACE, answer};
use claviger_crypto::random;
use claviger_engine::{Error, ReadKey};
use claviger_wire::fingerprint::{FingerprintKey, Named};
use claviger_wire::native::{
    AskFingerprints, FieldError, Fingerprint, FingerprintItem, Fingerprints, NotFingerprinted, decode_base64, push_base64,
};
use zeroize::Zeroizing;

impl Native {
    /// Fingerprints of many keys' data, each key with its own result.
    pub(crate) async fn fingerprint(&self, ask: &Ask<'_>) -> Answer {
        let AskFingerprints { ids, session } = ask.json()?;
        ids_of(&ids)?;
        let session = session.map_or_else(|| Ok(random()), |text| parse_session(&text))?;
        let results = self.engine().read_to_fingerprint(ask.caller, SURFACE, &ids).await?;
        let refused = results.iter().filter(|r| matches!(r, Err(Error::Denied(_) | Error::NotFound(_)))).count();
        if let Some(pause) = self.parts.callers.refused_for(ask.caller, refused) {
            tokio::time::sleep(pause).await;
        }
        let key = FingerprintKey::of_session(&self.fingerprint_secret, &session, ask.caller.name());
        // Sums over megabytes: not on a thread that answers others.
        let made = tokio::task::spawn_blocking(move || {
            let items = ids.into_iter().zip(results).map(|(id, result)| item(&key, id, result)).collect();
            Fingerprints { session: base64(&session), key: base64(key.bytes()), items }
        });
        let body = made.await.map_err(|e| Stop::Engine(Error::Internal(format!("fingerprinting: {e}"))))?;
        Ok(answer(200, &body))
    }
}

/// A secret of this process.
pub(super) fn secret() -> Zeroizing<[u8; 32]> {
    Zeroizing::new(random())
}

fn base64(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(44);
    push_base64(&mut text, bytes);
    String::from_utf8(text).expect("base64 is ASCII")
}

fn parse_session(text: &str) -> Result<[u8; 16], FieldError> {
    let bytes = decode_base64(text.as_bytes(), "session")?;
    bytes.try_into().map_err(|_| FieldError::new("session", "must be the `session` of an earlier answer"))
}

fn item(key: &FingerprintKey, id: String, result: Result<ReadKey, Error>) -> FingerprintItem {
    let (mut prints, mut left_out) = (Vec::new(), Vec::new());
    let error = match result {
        Err(error) => Some(Fault::of(&error, false).code().to_owned()),
        Ok(read) => {
            for (version, data) in &read.versions {
                let version = version.id.to_string();
                let found = key.prints(data.expose());
                prints.extend(found.made.into_iter().map(|named| shown(&version, named)));
                let why = |(part, why): (String, claviger_wire::fingerprint::LeftOut)| (part, why.name().to_owned());
                left_out.extend(found.left_out.into_iter().map(why).map(|(part, why)| NotFingerprinted {
                    version: version.clone(),
                    part,
                    why,
                }));
            }
            None
        }
    };
    FingerprintItem { id, error, prints, left_out }
}

fn shown(version: &str, named: Named) -> Fingerprint {
    let Named { part, form, print } = named;
    Fingerprint {
        version: version.to_owned(),
        part,
        form: form.to_owned(),
        length: print.length,
        head: print.head,
        tail: print.tail,
        mac: base64(&print.mac),
    }
}
