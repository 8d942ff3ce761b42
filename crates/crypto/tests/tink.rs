//! Google's own Tink, from PyPI, reads what we write and writes what we read: every template, both directions, one key and several.
#![allow(clippy::unwrap_used, missing_docs)]

use claviger_crypto::tink::{
    Aead, DeterministicAead, Family, HybridDecrypt, HybridEncrypt, Keyset, Mac, Opened, Signer, StreamingAead, Template, TinkError,
    Verifier,
};
use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

/// The release of Tink that is asked.
const RELEASE: &str = "1.16.1";

/// A Python with Tink, made once in a folder of its own; `None` where there is no Python.
static PYTHON: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    Command::new("python3").arg("--version").output().ok()?;
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-tink-{RELEASE}"));
    let program = home.join("bin/python3");
    // What was interrupted has no mark, and is made again.
    let mark = home.join("complete");
    if !mark.exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home), "is python3-venv installed?");
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"];
        let wheel = format!("tink=={RELEASE}");
        run(Command::new(&program).args(pip).arg(wheel), "PyPI must be reachable once");
        std::fs::write(&mark, "").unwrap();
    }
    Some(program)
});

fn run(command: &mut Command, remedy: &str) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?} failed; {remedy}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Google's Tink in a process of its own.
struct Google {
    child: Child,
    input: ChildStdin,
    output: RefCell<BufReader<ChildStdout>>,
}

impl Google {
    fn start(python: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tink_peer.py");
        let mut child =
            Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output: RefCell::new(output) }
    }

    /// What Tink answers, or why it refuses.
    fn ask(&self, command: &str, arguments: &[&[u8]]) -> Result<Vec<u8>, String> {
        let arguments: Vec<String> = arguments.iter().map(hex::encode).collect();
        self.line(&[&[command.to_owned()], &arguments[..]].concat().join(","))
    }

    fn line(&self, line: &str) -> Result<Vec<u8>, String> {
        writeln!(&self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.borrow_mut().read_line(&mut answer).unwrap();
        let answer = answer.strip_suffix('\n').expect("Tink is still there");
        match answer.strip_prefix("refused: ") {
            Some(why) => Err(why.to_owned()),
            None => Ok(hex::decode(answer).unwrap()),
        }
    }

    fn new_keyset(&self, template: Template) -> Vec<u8> {
        self.line(&format!("new,{}", template.name())).unwrap()
    }
}

impl Drop for Google {
    fn drop(&mut self) {
        // It ends with its input, or has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn encrypt(family: Family, keyset: &Keyset, plain: &[u8], data: &[u8]) -> Result<Vec<u8>, TinkError> {
    match family {
        Family::Aead => Aead::new(keyset)?.encrypt(plain, data),
        Family::DeterministicAead => DeterministicAead::new(keyset)?.encrypt(plain, data),
        Family::Hybrid => HybridEncrypt::new(keyset)?.encrypt(plain, data),
        Family::StreamingAead => StreamingAead::new(keyset)?.encrypt(plain, data),
        Family::Mac | Family::Signature => unreachable!("it does not encrypt"),
    }
}

fn decrypt(family: Family, keyset: &Keyset, made: &[u8], data: &[u8]) -> Result<Opened, TinkError> {
    match family {
        Family::Aead => Aead::new(keyset)?.decrypt(made, data),
        Family::DeterministicAead => DeterministicAead::new(keyset)?.decrypt(made, data),
        Family::Hybrid => HybridDecrypt::new(keyset)?.decrypt(made, data),
        Family::StreamingAead => StreamingAead::new(keyset)?.decrypt(made, data),
        Family::Mac | Family::Signature => unreachable!("it does not encrypt"),
    }
}

fn sign(family: Family, keyset: &Keyset, message: &[u8]) -> Vec<u8> {
    match family {
        Family::Mac => Mac::new(keyset).unwrap().compute(message),
        _ => Signer::new(keyset).unwrap().sign(message).unwrap(),
    }
}

fn verify(family: Family, keyset: &Keyset, made: &[u8], message: &[u8]) -> Result<u32, TinkError> {
    match family {
        Family::Mac => Mac::new(keyset).unwrap().verify(made, message),
        _ => Verifier::new(keyset).unwrap().verify(made, message),
    }
}

/// What a keyset gives to those who encrypt or verify: its public half where there is one.
fn outer_half(family: Family, keyset: &Keyset) -> Vec<u8> {
    match family {
        Family::Hybrid | Family::Signature => keyset.public().unwrap().encode().expose().to_vec(),
        _ => keyset.encode().expose().to_vec(),
    }
}

/// Both sides use `keyset`, and each reads what the other made.
fn both_agree(google: &Google, family: Family, bytes: &[u8]) {
    let keyset = Keyset::parse(bytes).unwrap();
    assert_eq!(keyset.encode().expose(), bytes, "written as Tink writes");
    let prefix = family.id_prefix();
    let ask = |what: &str, arguments: &[&[u8]]| google.ask(&format!("{what} {prefix}"), arguments);
    let outer = outer_half(family, &keyset);
    for message in [&b""[..], b"hunter2", &[9; 9000]] {
        if matches!(family, Family::Mac | Family::Signature) {
            let theirs = ask("sign", &[bytes, message]).unwrap();
            assert_eq!(verify(family, &keyset, &theirs, message), Ok(keyset.primary_id()));
            let ours = sign(family, &keyset, message);
            ask("verify", &[&outer, &ours, message]).unwrap();
            assert!(ask("verify", &[&outer, &ours, b"another message"]).is_err());
            continue;
        }
        let theirs = ask("encrypt", &[&outer, message, b"about"]).unwrap();
        let opened = decrypt(family, &keyset, &theirs, b"about").unwrap();
        assert_eq!((opened.plain.expose(), opened.key_id), (message, keyset.primary_id()));
        let public = Keyset::parse(&outer).unwrap();
        let ours = encrypt(family, &public, message, b"about").unwrap();
        assert_eq!(ask("decrypt", &[bytes, &ours, b"about"]).unwrap(), message);
        assert!(ask("decrypt", &[bytes, &ours, b"other"]).is_err());
        if family == Family::DeterministicAead {
            assert_eq!(ours, theirs, "equal input gives equal output");
        }
    }
}

/// The same keyset as Tink's own description of it says.
fn info(keyset: &Keyset) -> String {
    let keys = keyset
        .keys()
        .iter()
        .map(|key| format!("('{}', '{}', {}, '{}')", key.type_url(), key.status().name(), key.id(), key.output_prefix().name()));
    format!("({}, [{}])", keyset.primary_id(), keys.collect::<Vec<_>>().join(", "))
}

#[test]
fn googles_tink_reads_what_we_write_and_writes_what_we_read() {
    let Some(python) = PYTHON.as_deref() else {
        eprintln!("skipped: there is no `python3` on the path, so Google's Tink was not asked");
        return;
    };
    let google = Google::start(python);
    for template in Template::ALL {
        let family = template.family();
        // Theirs, ours, and a key after two rotations: one version made by each, the primary in the middle.
        let theirs = google.new_keyset(template);
        both_agree(&google, family, &theirs);
        let ours = template.generate(&[]).unwrap();
        both_agree(&google, family, ours.encode().expose());

        let old = Keyset::parse(&theirs).unwrap();
        let (old_id, newest) = (old.primary_id(), template.generate(&[ours.primary_id(), old.primary_id()]).unwrap());
        let merged = Keyset::merge([(false, old), (true, ours), (false, newest)]).unwrap();
        both_agree(&google, family, merged.encode().expose());
        let said = google.ask("info", &[merged.encode().expose()]).unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), info(&merged));

        // What was made before the rotations is still good, on both sides.
        let old = Keyset::parse(&theirs).unwrap();
        let merged_bytes = merged.encode();
        if matches!(family, Family::Mac | Family::Signature) {
            let before = google.ask(&format!("sign {}", family.id_prefix()), &[&theirs, b"before"]).unwrap();
            assert_eq!(verify(family, &merged, &before, b"before"), Ok(old_id));
            let before = sign(family, &old, b"before");
            let outer = outer_half(family, &merged);
            google.ask(&format!("verify {}", family.id_prefix()), &[&outer, &before, b"before"]).unwrap();
        } else {
            let before = google.ask(&format!("encrypt {}", family.id_prefix()), &[&outer_half(family, &old), b"before", b""]).unwrap();
            assert_eq!(decrypt(family, &merged, &before, b"").unwrap().key_id, old_id);
            let before = encrypt(family, &old, b"before", b"").unwrap();
            let opened = google.ask(&format!("decrypt {}", family.id_prefix()), &[merged_bytes.expose(), &before, b""]);
            assert_eq!(opened.unwrap(), b"before");
        }
    }
}

#[test]
fn streams_of_several_megabytes_pass_in_both_directions() {
    let Some(python) = PYTHON.as_deref() else {
        eprintln!("skipped: there is no `python3` on the path, so Google's Tink was not asked");
        return;
    };
    let google = Google::start(python);
    let plain: Vec<u8> = (0..2_500_000_u32).map(|n| (n % 251) as u8).collect();
    for template in [Template::SaeadAes128Gcm1Mb, Template::SaeadAes128Gcm4Kb] {
        let keyset = template.generate(&[]).unwrap();
        let bytes = keyset.encode();
        let theirs = google.ask("encrypt tink:saead:", &[bytes.expose(), &plain, b"about"]).unwrap();
        assert_eq!(decrypt(Family::StreamingAead, &keyset, &theirs, b"about").unwrap().plain.expose(), plain);
        let ours = encrypt(Family::StreamingAead, &keyset, &plain, b"about").unwrap();
        assert_eq!(google.ask("decrypt tink:saead:", &[bytes.expose(), &ours, b"about"]).unwrap(), plain);
        assert_eq!(ours.len(), theirs.len());
    }
}
