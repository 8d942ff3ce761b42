//! Checksums, and a signature over them that OpenSSH's `ssh-keygen` makes and verifies.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};

use super::archive::{files_of, name_of};
use crate::shell;

/// The file with the checksums, in the form of `sha256sum`.
pub(super) const CHECKSUMS: &str = "SHA256SUMS";
/// What the signature is for (`ssh-keygen -n`).
pub(super) const NAMESPACE: &str = "claviger-release";

/// Writes the checksums of all files in the folder.
pub(super) fn checksums(out: &Path) -> anyhow::Result<()> {
    let mut list = String::new();
    for path in files_of(out)? {
        let digest = Sha256::digest(fs::read(&path)?);
        writeln!(list, "{}  {}", hex(&digest), name_of(&path))?;
    }
    fs::write(out.join(CHECKSUMS), list)?;
    Ok(())
}

/// Signs them: `SHA256SUMS.sig`.
///
/// # Errors
/// The key is not one, or `ssh-keygen` is not there.
pub(super) fn sign(out: &Path, key: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("ssh-keygen");
    command.args(["-Y", "sign", "-q", "-n", NAMESPACE, "-f"]).arg(key).stdin(File::open(out.join(CHECKSUMS))?);
    let output = command.output().context("starting ssh-keygen")?;
    ensure!(output.status.success(), "signing with {}: {}", key.display(), String::from_utf8_lossy(&output.stderr).trim());
    fs::write(out.join(format!("{CHECKSUMS}.sig")), output.stdout)?;
    Ok(())
}

/// Verifies signature and checksums as a user would.
pub(super) fn verify(out: &Path, public_key: &str) -> anyhow::Result<()> {
    let allowed = tempfile::NamedTempFile::new()?;
    fs::write(allowed.path(), format!("release namespaces=\"{NAMESPACE}\" {public_key}"))?;
    let mut command = Command::new("ssh-keygen");
    command.current_dir(out).args(["-Y", "verify", "-q", "-n", NAMESPACE, "-I", "release", "-s", &format!("{CHECKSUMS}.sig"), "-f"]);
    shell::run(command.arg(allowed.path()).stdin(File::open(out.join(CHECKSUMS))?))?;
    shell::run(Command::new("sha256sum").current_dir(out).args(["--check", "--strict", "--quiet", CHECKSUMS]))
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
