//! Break-glass: an administrator's certificate for an hour, made on the machine that holds the root, when nobody else can
//! administer any more.
//!
//! The authority that signs it is derived from the barrier, so a running server knows it without being told. Making one
//! leaves a note that the server turns into an audit record; using one is in every record of its requests.

use crate::command::Emergency;
use crate::dev::lifetime;
use crate::private_file::{folder, write};
use anyhow::{Context, Result};
use claviger_crypto::KeyRing;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// How long an emergency certificate lives.
const SECONDS: i64 = 3600;
/// An Ed25519 private key in PKCS#8 (RFC 8410 §7) is this and then the seed.
const PKCS8_ED25519: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The authority that a store's barrier stands for.
pub(crate) struct EmergencyAuthority {
    params: CertificateParams,
    key: KeyPair,
}

/// What making a certificate leaves behind for the audit log.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Note {
    /// The certificate's name.
    pub(crate) name: String,
    /// Why it was made.
    pub(crate) reason: String,
    /// Who ran the command, as the kernel says.
    pub(crate) by: String,
}

impl Note {
    /// The note in a file's bytes, where they are one.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

impl EmergencyAuthority {
    pub(crate) fn of(ring: &KeyRing) -> Result<Self> {
        let seed = ring.break_glass_seed();
        let der = Zeroizing::new([&PKCS8_ED25519[..], seed.expose()].concat());
        let der = rustls_pki_types::PrivatePkcs8KeyDer::from(&der[..]);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).context("the emergency authority's key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Claviger break-glass authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self { params, key })
    }

    /// Its certificate in PEM, for verifying. A new one each time, with the same name and key.
    pub(crate) fn root_pem(&self) -> Result<String> {
        let mut params = self.params.clone();
        lifetime(&mut params, 20 * 365 * 86_400);
        Ok(params.self_signed(&self.key)?.pem())
    }

    /// A certificate for `name`, and its key, in PEM.
    fn issue(self, name: &str) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        lifetime(&mut params, SECONDS);
        let issuer = Issuer::new(self.params, self.key);
        Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
    }

    /// Makes a certificate in `out` and leaves its note in `notes`. The note comes first: no certificate without one.
    pub(crate) fn make(self, reason: &str, notes: &Path, out: &Path) -> Result<Emergency> {
        let serial: [u8; 6] = claviger_crypto::random();
        let serial: String = serial.iter().map(|b| format!("{b:02x}")).collect();
        let name = format!("{serial}.break-glass.claviger");
        let note = Note { name, reason: reason.to_owned(), by: whose_process() };
        folder(notes)?;
        folder(out)?;
        write(&notes.join(format!("{serial}.json")), &serde_json::to_vec(&note)?)?;
        let (pem, private_key) = self.issue(&note.name)?;
        let (certificate, key) = (out.join("break-glass.pem"), out.join("break-glass.key"));
        write(&certificate, pem.as_bytes())?;
        write(&key, private_key.as_bytes())?;
        Ok(Emergency { name: note.name, certificate, key, valid_seconds: SECONDS })
    }
}

/// The notes that wait, with their files. What is no note, or not one yet, is left where it is.
pub(crate) fn waiting(notes: &Path) -> Vec<(PathBuf, Note)> {
    let files = std::fs::read_dir(notes).into_iter().flatten().filter_map(Result::ok).map(|f| f.path());
    let files = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
    files.filter_map(|path| Some((path.clone(), Note::read(&std::fs::read(&path).ok()?)?))).collect()
}

/// Who runs this process: its user, and who logged in, which outlives `su` and `sudo`. Of the kernel, since environment
/// variables such as `SUDO_USER` say what their setter likes.
fn whose_process() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    // All ones: nobody logged in, such as for a service.
    let login = read("/proc/self/loginuid").trim().parse().ok().filter(|uid| *uid != u32::MAX);
    let process = user(rustix::process::getuid().as_raw(), &read("/etc/passwd"));
    match login {
        Some(login) => format!("{process}, logged in as {}", user(login, &read("/etc/passwd"))),
        None => process,
    }
}

/// A user with the name that `passwd` has for it.
fn user(uid: u32, passwd: &str) -> String {
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| format!("uid {uid}"), |name| format!("uid {uid} ({name})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_their_number_and_a_name_where_there_is_one() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\nbroken\n";
        assert_eq!(
            (user(0, passwd), user(1000, passwd), user(7, passwd)),
            ("uid 0 (root)".into(), "uid 1000 (alice)".into(), "uid 7".into())
        );
    }

    #[test]
    fn who_runs_a_process_is_not_taken_from_the_environment() {
        let said = whose_process();
        assert!(said.contains(&format!("uid {}", rustix::process::getuid().as_raw())), "{said}");
    }
}
