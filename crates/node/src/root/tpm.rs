//! The cache's key sealed by the machine's TPM 2.0: the few commands that this takes, spoken to the kernel's resource manager (`/dev/tpmrm0`).
//!
//! A storage key is derived from the owner hierarchy's seed each time (the TCG's template for ECC P-256); under it the cache's key is sealed as data. What lies on disk
//! is a blob that only this TPM opens. Numbers are those of the TPM 2.0 Library, part 2 (structures) and part 3 (commands).
//!
//! What it deliberately does not do: no policy on boot measurements (an update of the system would close the cache), and no encryption of the parameters on the
//! way to the chip (who can listen to its bus has the machine open).

use super::{Kept, Unfound};
use claviger_crypto::LocalKey;
use claviger_domain::SecretBytes;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// The kernel's resource manager: what is loaded goes when it is closed.
pub(super) const DEVICE: &str = "/dev/tpmrm0";
pub(super) const PROMISE: &str = "the cache's key is sealed by this machine's TPM: a stolen disk or backup stays closed, through reboots too; whoever is root here, or runs as the agent's \
     user, reads every cached secret";

const SESSIONS: u16 = 0x8002;
const NO_SESSIONS: u16 = 0x8001;
const CREATE_PRIMARY: u32 = 0x131;
const CREATE: u32 = 0x153;
const LOAD: u32 = 0x157;
const UNSEAL: u32 = 0x15e;
const FLUSH_CONTEXT: u32 = 0x165;
const OWNER: u32 = 0x4000_0001;
/// Authorization by a password, here the empty one.
const PASSWORD: u32 = 0x4000_0009;
const ECC: u16 = 0x0023;
const KEYED_HASH: u16 = 0x0008;
const SHA256: u16 = 0x000b;
const AES: u16 = 0x0006;
const CFB: u16 = 0x0043;
const NULL: u16 = 0x0010;
const P256: u16 = 0x0003;
/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt.
const STORAGE_KEY: u32 = 0x0003_0472;
/// fixedTPM, fixedParent, userWithAuth, noDA.
const SEALED_DATA: u32 = 0x0000_0452;
/// The TPM is busy: testing itself, or doing something that must not be interrupted.
const BUSY: [u32; 3] = [0x922, 0x908, 0x90a];
/// This bit is in each code that is about what the TPM was given ("format one"); the others are about its own state.
const OF_WHAT_IT_WAS_GIVEN: u32 = 0x80;
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);
/// What a TPM takes for its slowest command, many times.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer of a TPM.
const MOST: usize = 4096;
const HEADER: usize = 10;

/// Why a TPM did not do something.
struct Fault {
    why: String,
    /// Its code, where it refused.
    code: Option<u32>,
}

type Result<T> = std::result::Result<T, Fault>;

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self { why, code: None }
    }
}

pub(super) fn make(path: Option<&Path>) -> std::result::Result<Kept, String> {
    let key = LocalKey::generate();
    let note = sealed_by(path, &key).map_err(|fault| fault.why)?;
    let kept = Kept { key, note };
    // What cannot be unsealed must not become the cache's only key.
    match find(path, &kept.note) {
        Ok(found) if found.expose() == kept.key.expose() => Ok(kept),
        Ok(_) => Err("it gives back another key".to_owned()),
        Err(unfound) => Err(unfound.why()),
    }
}

/// A software TPM speaks with one at a time: when this is done it can be spoken to again.
fn sealed_by(path: Option<&Path>, key: &SecretBytes) -> Result<Vec<u8>> {
    let mut tpm = Tpm::open(path)?;
    let parent = tpm.create_primary()?;
    let note = tpm.seal(parent, key);
    tpm.flush(parent);
    note
}

/// A TPM that is not there, busy, locked or without room may do it later. One that knows nothing of the sealed key never will: it is another one, or was cleared.
pub(super) fn find(path: Option<&Path>, note: &[u8]) -> std::result::Result<SecretBytes, Unfound> {
    let not_now = |fault: Fault| Unfound::NotNow(fault.why);
    let blobs = blobs(note).map_err(|fault| Unfound::Gone(fault.why))?;
    let mut tpm = Tpm::open(path).map_err(not_now)?;
    let parent = tpm.create_primary().map_err(not_now)?;
    let key = match tpm.load(parent, blobs) {
        Ok(item) => {
            let key = tpm.unseal(item);
            tpm.flush(item);
            key.map_err(not_now)
        }
        Err(Fault { why, code: Some(code) }) if code & OF_WHAT_IT_WAS_GIVEN != 0 => Err(Unfound::Gone(why)),
        Err(fault) => Err(not_now(fault)),
    };
    tpm.flush(parent);
    key
}

/// The private and the public blob of a note.
fn blobs(note: &[u8]) -> Result<(&[u8], &[u8])> {
    let mut blobs = Answer(note);
    Ok((blobs.sized()?.1, blobs.sized()?.1))
}

/// A TPM: a character device, or the socket of a software TPM.
trait Channel: Read + Write {}
impl<T: Read + Write> Channel for T {}

struct Tpm {
    path: PathBuf,
    channel: Box<dyn Channel>,
}

/// The parts of a command, in the order in which they are sent.
struct Command {
    code: u32,
    handle: u32,
    parameters: Zeroizing<Vec<u8>>,
}

impl Command {
    fn new(code: u32, handle: u32) -> Self {
        Self { code, handle, parameters: Zeroizing::new(Vec::with_capacity(256)) }
    }

    /// Appends a sized buffer (TPM2B).
    fn sized(mut self, bytes: &[u8]) -> Self {
        self.parameters.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.parameters.extend_from_slice(bytes);
        self
    }

    /// Appends an empty selection of registers (TPML_PCR_SELECTION).
    fn no_registers(mut self) -> Self {
        self.parameters.extend_from_slice(&0_u32.to_be_bytes());
        self
    }

    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let flush = self.code == FLUSH_CONTEXT;
        let mut body = Zeroizing::new(Vec::with_capacity(64 + self.parameters.len()));
        body.extend_from_slice(&self.handle.to_be_bytes());
        if !flush {
            // One authorization of nine bytes: the empty password, without nonce and attributes.
            body.extend_from_slice(&9_u32.to_be_bytes());
            body.extend_from_slice(&PASSWORD.to_be_bytes());
            body.extend_from_slice(&[0; 5]);
        }
        body.extend_from_slice(&self.parameters);
        let mut out = Zeroizing::new(Vec::with_capacity(HEADER + body.len()));
        out.extend_from_slice(&if flush { NO_SESSIONS } else { SESSIONS }.to_be_bytes());
        out.extend_from_slice(&u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&self.code.to_be_bytes());
        out.extend_from_slice(&body);
        out
    }
}

/// The parts of an answer, taken one after the other.
struct Answer<'b>(&'b [u8]);

impl<'b> Answer<'b> {
    fn number(&mut self) -> Result<u32> {
        let (first, rest) = self.0.split_first_chunk().ok_or_else(cut)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*first))
    }

    /// A sized buffer with its size, and without.
    fn sized(&mut self) -> Result<(&'b [u8], &'b [u8])> {
        let size = self.0.first_chunk().map(|size| usize::from(u16::from_be_bytes(*size))).ok_or_else(cut)?;
        let (whole, rest) = self.0.split_at_checked(2 + size).ok_or_else(cut)?;
        self.0 = rest;
        Ok((whole, &whole[2..]))
    }
}

fn cut() -> Fault {
    "its answer is cut off".to_owned().into()
}

impl Tpm {
    fn open(path: Option<&Path>) -> Result<Self> {
        let path = path.unwrap_or(Path::new(DEVICE)).to_owned();
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        let is_socket = std::fs::metadata(&path).map_err(failed)?.file_type().is_socket();
        let channel: Box<dyn Channel> = match is_socket {
            true => Box::new(connect(&path).map_err(failed)?),
            false => Box::new(OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?),
        };
        Ok(Self { path, channel })
    }

    /// Sends a command, again while the TPM is busy; gives what follows the answer's header.
    fn send(&mut self, command: &Command) -> Result<Zeroizing<Vec<u8>>> {
        let bytes = command.to_bytes();
        for _ in 0..ATTEMPTS {
            let failed = |e: std::io::Error| format!("{}: {e}", self.path.display());
            self.channel.write_all(&bytes).map_err(failed)?;
            let answer = read_answer(&mut self.channel).map_err(failed)?;
            let code = Answer(answer.get(6..HEADER).ok_or_else(cut)?).number()?;
            match code {
                0 => return Ok(Zeroizing::new(answer[HEADER..].to_vec())),
                busy if BUSY.contains(&busy) => std::thread::sleep(PAUSE),
                code => {
                    let why = format!("{} refuses command 0x{:x} with 0x{code:x}", self.path.display(), command.code);
                    return Err(Fault { why, code: Some(code) });
                }
            }
        }
        Err(format!("{} stays busy", self.path.display()).into())
    }

    fn create_primary(&mut self) -> Result<u32> {
        let command = Command::new(CREATE_PRIMARY, OWNER).sized(&sensitive(&[])).sized(&storage_key()).sized(&[]).no_registers();
        Answer(&self.send(&command)?).number()
    }

    /// The two blobs that [`Tpm::load`] takes, one after the other.
    fn seal(&mut self, parent: u32, key: &SecretBytes) -> Result<Vec<u8>> {
        let command = Command::new(CREATE, parent).sized(&sensitive(key.expose())).sized(&sealed_data()).sized(&[]).no_registers();
        let answer = self.send(&command)?;
        let mut answer = Answer(&answer);
        answer.number()?;
        let ((private, _), (public, _)) = (answer.sized()?, answer.sized()?);
        Ok([private, public].concat())
    }

    fn load(&mut self, parent: u32, (private, public): (&[u8], &[u8])) -> Result<u32> {
        Answer(&self.send(&Command::new(LOAD, parent).sized(private).sized(public))?).number()
    }

    fn unseal(&mut self, item: u32) -> Result<SecretBytes> {
        let answer = self.send(&Command::new(UNSEAL, item))?;
        let mut answer = Answer(&answer);
        answer.number()?;
        Ok(SecretBytes::new(answer.sized()?.1.to_vec()))
    }

    /// Makes room again. The resource manager does it when the device is closed; a bare TPM has only a few places.
    fn flush(&mut self, handle: u32) {
        // What stays loaded costs a place and no secret.
        let _ = self.send(&Command::new(FLUSH_CONTEXT, handle));
    }
}

fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One answer. A device gives it in one read; a socket may give it in pieces.
fn read_answer(channel: &mut dyn Channel) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(vec![0; MOST]);
    let mut read = 0;
    loop {
        let size = out.get(2..6).filter(|_| read >= HEADER).and_then(|s| s.try_into().ok()).map(u32::from_be_bytes);
        if size.is_some_and(|size| read >= size as usize || size as usize > MOST) {
            out.truncate(read);
            return Ok(out);
        }
        match channel.read(&mut out[read..])? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => read += n,
        }
    }
}

/// TPMS_SENSITIVE_CREATE: no password, and the data.
fn sensitive(data: &[u8]) -> Zeroizing<Vec<u8>> {
    let size = u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes();
    Zeroizing::new([&[0, 0][..], &size, data].concat())
}

/// TPMT_PUBLIC of a storage key: ECC P-256, AES-128 in CFB for its children.
fn storage_key() -> Vec<u8> {
    let mut out = public(ECC, STORAGE_KEY);
    for number in [AES, 128, CFB, NULL, P256, NULL, 0, 0] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out
}

/// TPMT_PUBLIC of sealed data.
fn sealed_data() -> Vec<u8> {
    let mut out = public(KEYED_HASH, SEALED_DATA);
    for number in [NULL, 0] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out
}

/// Kind, hash for names, attributes, no policy.
fn public(kind: u16, attributes: u32) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &SHA256.to_be_bytes(), &attributes.to_be_bytes(), &[0, 0]].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::{Child, Stdio};

    /// A software TPM with a state of its own.
    struct SoftwareTpm {
        child: Child,
        folder: tempfile::TempDir,
    }

    impl SoftwareTpm {
        fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let child = Self::spawn(folder.path());
            let tpm = Self { child, folder };
            tpm.wait();
            tpm
        }

        fn spawn(folder: &Path) -> Child {
            let at = folder.display();
            std::process::Command::new("swtpm")
                .args(["socket", "--tpm2", "--tpmstate", &format!("dir={at}"), "--server", &format!("type=unixio,path={at}/tpm")])
                .args(["--flags", "not-need-init,startup-clear"])
                .stdout(Stdio::null())
                .spawn()
                .expect("`cargo xtask setup` installs swtpm")
        }

        fn wait(&self) {
            while !self.socket().exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }

        fn socket(&self) -> PathBuf {
            self.folder.path().join("tpm")
        }

        fn kill(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }

        /// Power off and on.
        fn restart(&mut self) {
            self.kill();
            let _ = std::fs::remove_file(self.socket());
            self.child = Self::spawn(self.folder.path());
            self.wait();
        }
    }

    impl Drop for SoftwareTpm {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn what_a_tpm_sealed_it_opens_after_a_restart_and_no_other_tpm_does() {
        let (mut one, other) = (SoftwareTpm::start(), SoftwareTpm::start());
        let kept = make(Some(&one.socket())).unwrap();
        assert_eq!(kept.key.len(), 32);
        let holds_key = kept.note.windows(32).any(|bytes| bytes == kept.key.expose());
        assert!(!holds_key, "the note is sealed");
        one.restart();
        for _ in 0..5 {
            // More often than there are places for loaded keys: they are given back.
            assert_eq!(find(Some(&one.socket()), &kept.note).unwrap().expose(), kept.key.expose());
        }
        let unfound = find(Some(&other.socket()), &kept.note).unwrap_err();
        assert!(matches!(&unfound, Unfound::Gone(why) if why.contains("refuses command 0x157")), "{unfound:?}");
        let mut changed = kept.note.clone();
        changed[20] ^= 1;
        assert!(matches!(find(Some(&one.socket()), &changed), Err(Unfound::Gone(_))));
        // A machine whose TPM is not there yet, or does not answer, may have it in a moment.
        one.kill();
        let unfound = find(Some(&one.socket()), &kept.note).unwrap_err();
        assert!(matches!(&unfound, Unfound::NotNow(_)), "{unfound:?}");
        one.restart();
        assert!(find(Some(&one.socket()), &kept.note).is_ok());
    }

    #[test]
    fn a_machine_without_a_tpm_says_so() {
        let why = make(Some(Path::new("/nowhere/tpm"))).err().unwrap();
        assert!(why.contains("/nowhere/tpm") && why.contains("No such file"), "{why}");
    }

    #[test]
    fn notes_that_are_cut_off_are_refused_before_the_tpm_is_asked() {
        for note in [&[][..], &[0], &[0, 5, 1, 2], &[0, 0, 0, 9, 1]] {
            assert!(matches!(find(Some(Path::new("/nowhere/tpm")), note), Err(Unfound::Gone(_))), "{note:?}");
        }
    }
}
