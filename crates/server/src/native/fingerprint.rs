//! Fingerprints of values, for who looks for them in files. They take the right to read, and are recorded as a reading of their own kind.

use super::data::ids_of;
use super::problem::{Fault, Stop};
use super::{Answer, Ask, Native, SURFACE, answer};
use claviger_crypto::random;
use claviger_engine::{Error, ReadKey};
use claviger_wire::fingerprint::{FingerprintKey, LeftOut, Named, Prints};
use claviger_wire::native::{
    AskFingerprints, FieldError, Fingerprint, FingerprintItem, Fingerprints, NotFingerprinted, decode_base64, push_base64,
};
use zeroize::Zeroizing;

/// About how many bytes of memory one answer may have: of 3 KiB of short lines more than a megabyte of prints is made. The keys beyond
/// that are to be asked for again; of a single key that passes it further versions are left out, and named.
const MOST_PRINTED: usize = 32 << 20;
/// About what a print takes beside its names, until it is sent.
const PRINT: usize = 512;

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
            let mut room = MOST_PRINTED;
            let items = ids.into_iter().zip(results).map(|(id, result)| item(&key, id, result, &mut room)).collect();
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

fn item(key: &FingerprintKey, id: String, result: Result<ReadKey, Error>, room: &mut usize) -> FingerprintItem {
    let printed = result.and_then(|read| {
        let versions = read.versions.iter().map(|(version, data)| (version.id.to_string(), data.expose()));
        print_versions(key, versions, room).ok_or(Error::AnswerFull)
    });
    let (error, (prints, left_out)) = match printed {
        Ok(printed) => (None, printed),
        Err(error) => (Some(Fault::of(&error, false).code().to_owned()), (Vec::new(), Vec::new())),
    };
    FingerprintItem { id, error, prints, left_out }
}

type Printed = (Vec<Fingerprint>, Vec<NotFingerprinted>);

/// Fingerprints one key's versions; nothing where they do not fit beside what the answer has already.
fn print_versions<'v>(key: &FingerprintKey, versions: impl Iterator<Item = (String, &'v [u8])>, room: &mut usize) -> Option<Printed> {
    let is_first = *room == MOST_PRINTED;
    let (mut prints, mut left_out) = (Vec::new(), Vec::new());
    for (version, data) in versions {
        // Of one key alone the answer must have something, or asking again would never end.
        let fits = if *room == 0 { None } else { Some(key.prints(data)).filter(|found| take_room(room, found)) };
        let found = match fits {
            Some(found) => found,
            None if is_first => Prints { left_out: vec![(String::new(), LeftOut::TooMany)], ..Prints::default() },
            None => return None,
        };
        prints.extend(found.made.into_iter().map(|named| shown(&version, named)));
        let not = |(part, why): (String, LeftOut)| NotFingerprinted { version: version.clone(), part, why: why.name().to_owned() };
        left_out.extend(found.left_out.into_iter().map(not));
    }
    Some((prints, left_out))
}

/// Takes what these prints need; none is left once some did not fit.
fn take_room(room: &mut usize, found: &Prints) -> bool {
    let names = found.made.iter().map(|named| &named.part).chain(found.left_out.iter().map(|(part, _)| part));
    let needed = names.map(|name| PRINT + 2 * name.len()).sum();
    let left = room.checked_sub(needed);
    *room = left.unwrap_or(0);
    left.is_some()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_is_bounded_however_many_prints_values_have() {
        let key = FingerprintKey::new([5; 32]);
        let value: String = (0..256).map(|n| format!("N{n}=x{n:03}Y-z{n:03}Q\n")).collect();
        let versions = |n: usize| (0..n).map(|v| (v.to_string(), value.as_bytes()));
        let mut room = MOST_PRINTED;
        let (one, _) = print_versions(&key, versions(1), &mut room).unwrap();
        assert!(one.len() > 1000, "{}", one.len());
        let mut keys = 1;
        while print_versions(&key, versions(1), &mut room).is_some() {
            keys += 1;
        }
        assert!((2..200).contains(&keys) && room == 0, "{keys}");
        assert!(print_versions(&key, versions(1), &mut room).is_none(), "the rest is asked for again");

        let mut room = MOST_PRINTED;
        let (prints, left_out) = print_versions(&key, versions(200), &mut room).unwrap();
        assert!(prints.len() * PRINT <= MOST_PRINTED && prints.len() >= one.len());
        assert!(left_out.iter().any(|l| (l.version.as_str(), l.part.as_str(), l.why.as_str()) == ("199", "", "too_many")));
    }
}
