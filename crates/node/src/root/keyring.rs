//! The cache's key in the kernel's keyring of the agent's user. It is in no file, and gone when the machine goes down.

use super::{Kept, Unfound};
use claviger_crypto::{LocalKey, random};
use claviger_domain::SecretBytes;
use linux_keyutils::{KeyError, KeyRing, KeyRingIdentifier};
use zeroize::Zeroize;

pub(super) const PROMISE: &str = "the cache's key is in the kernel's keyring of the agent's user: a stolen disk or backup stays closed, and a reboot \
     closes the cache for good, so that secrets are fetched anew after it; whoever is root here, or runs as the agent's user, reads every cached secret";

/// Makes a key under a name of its own.
pub(super) fn make() -> Result<Kept, String> {
    let name = format!("claviger-node:{:032x}", u128::from_be_bytes(random()));
    let key = LocalKey::generate();
    let ring = user_ring()?;
    ring.add_key(name.as_str(), key.expose()).map_err(said)?;
    let kept = Kept { key, note: name.into_bytes() };
    // Some sandboxes take a key and never show it again.
    match find(&kept.note) {
        Ok(found) if found.expose() == kept.key.expose() => Ok(kept),
        Ok(_) => Err("it gives back another key".to_owned()),
        Err(unfound) => Err(unfound.why()),
    }
}

/// What the keyring does not have it will not have again; whatever else it says may pass.
pub(super) fn find(note: &[u8]) -> Result<SecretBytes, Unfound> {
    let name = std::str::from_utf8(note).map_err(|_| Unfound::Gone("its name is damaged".to_owned()))?;
    let missing = |e: KeyError| match e {
        KeyError::KeyDoesNotExist => Unfound::Gone("the kernel's keyring no longer has its key, as after a reboot".to_owned()),
        KeyError::KeyExpired | KeyError::KeyRevoked => Unfound::Gone(said(e)),
        other => Unfound::NotNow(said(other)),
    };
    let key = user_ring().map_err(Unfound::NotNow)?.search(name).map_err(missing)?;
    let mut bytes = [0; 64];
    let length = key.read(&mut bytes).map_err(missing)?;
    let secret = bytes.get(..length).map(|bytes| SecretBytes::new(bytes.to_vec()));
    bytes.zeroize();
    secret.ok_or_else(|| Unfound::Gone("its key has a wrong length".to_owned()))
}

/// The user's keyring, reachable from this session: a service may have a session of its own that does not lead there.
fn user_ring() -> Result<KeyRing, String> {
    let ring = KeyRing::from_special_id(KeyRingIdentifier::User, true).map_err(said)?;
    if let Ok(session) = KeyRing::from_special_id(KeyRingIdentifier::Session, true) {
        // Without the link the key may still be readable; if not, reading says so.
        let _ = session.link_keyring(KeyRing::from_special_id(KeyRingIdentifier::User, true).map_err(said)?);
    }
    Ok(ring)
}

fn said(error: KeyError) -> String {
    format!("the kernel's keyring: {error:?}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_is_found_again_by_its_note_and_no_other() {
        let kept = make().unwrap();
        assert_eq!(find(&kept.note).unwrap().expose(), kept.key.expose());
        assert_eq!(kept.key.len(), 32);
        let unfound = find(b"claviger-node:nothing").unwrap_err();
        assert!(matches!(&unfound, Unfound::Gone(why) if why.contains("reboot")), "{unfound:?}");
        let ring = user_ring().unwrap();
        let key = ring.search(std::str::from_utf8(&kept.note).unwrap()).unwrap();
        key.invalidate().unwrap();
    }
}
