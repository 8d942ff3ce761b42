//! `claviger audit prove`: the proof that one record is in the signed log (RFC 6962 §2.1.1), to be checked by others, who
//! need nothing but the log's public key for it: `claviger audit verify --proof`.

use super::verify::{LogFolders, unreadable};
use crate::failure::{Code, Failure};
use crate::output;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use claviger_audit::{Hash, Reader, SignedCheckpoint, VerifierKey, merkle};
use serde::{Deserialize, Serialize};

/// Options of `audit prove`.
#[derive(Args)]
pub(crate) struct Prove {
    /// The record's index in the log.
    #[arg(long, value_name = "INDEX")]
    index: u64,
    #[command(flatten)]
    log: LogFolders,
}

/// A proof: all that is needed to check it but the public key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Proof {
    /// Where the record stands.
    pub(super) index: u64,
    /// How many records the signed tree has.
    pub(super) size: u64,
    /// The record's bytes, base64.
    entry: String,
    /// From the leaf up, base64.
    path: Vec<String>,
    /// The signed tree head.
    checkpoint: String,
}

impl Proof {
    /// The record, if the holder of `key`'s private half has signed for just this one at this place.
    pub(super) fn check(&self, key: &VerifierKey) -> Result<Vec<u8>, String> {
        let Self { index, size, entry, path, checkpoint } = self;
        let decode = |text: &String| STANDARD.decode(text).map_err(|_| "the proof is not whole: it has bad base64".to_owned());
        let head = key.open(checkpoint).map_err(|e| format!("its checkpoint: {e}"))?.head();
        if head.size != *size {
            return Err(format!("its checkpoint is of {} records, not of {size}", head.size));
        }
        let hash = |text: &String| decode(text)?.try_into().map_err(|_| "the proof is not whole: a hash has 32 bytes".to_owned());
        let path = path.iter().map(hash).collect::<Result<Vec<Hash>, String>>()?;
        let entry = decode(entry)?;
        match merkle::verify_inclusion(&merkle::leaf_hash(&entry), *index, *size, &path, &head.root) {
            true => Ok(entry),
            false => Err(format!("the record is not the one that was signed for as record {index}")),
        }
    }
}

impl Prove {
    /// The proof is JSON in any case.
    pub(crate) fn run(self, _json: bool) -> Result<u8, Failure> {
        let key = self.log.key()?;
        let mut reader = Reader::open(&self.log.dirs).map_err(|e| unreadable(&e))?;
        let checkpoint = reader.checkpoint(&key).map_err(|e| unreadable(&e))?;
        let checkpoint = checkpoint.filter(|c| c.head().size > self.index).ok_or_else(|| not_signed(self.index))?;
        output::json(&proof(&mut reader, self.index, &checkpoint)?)?;
        Ok(0)
    }
}

fn not_signed(index: u64) -> Failure {
    Failure::new(Code::NotFound, format!("no signed checkpoint covers record {index}"))
        .next("the server signs new records within seconds; try again then")
}

fn proof(reader: &mut Reader, index: u64, checkpoint: &SignedCheckpoint) -> Result<Proof, Failure> {
    let head = checkpoint.head();
    let entry = reader.entry(index).map_err(|e| unreadable(&e))?;
    let path = reader.prove_inclusion(index, head.size).map_err(|e| unreadable(&e))?;
    if !merkle::verify_inclusion(&merkle::leaf_hash(&entry), index, head.size, &path, &head.root) {
        return Err(
            Failure::other(format!("record {index} is not the one that was signed for")).next("run `claviger audit verify` on this folder")
        );
    }
    let base64 = |hash: &Hash| STANDARD.encode(hash);
    Ok(Proof {
        index,
        size: head.size,
        entry: STANDARD.encode(&entry),
        path: path.iter().map(base64).collect(),
        checkpoint: checkpoint.note().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use claviger_audit::{AuditLog, LogConfig, LogKey};

    const NAME: &str = "claviger.test/audit/1";

    /// A proof of record 5 of 9, and the key that it is checked by.
    fn proven() -> (Proof, VerifierKey) {
        let dir = tempfile::tempdir().unwrap();
        let key = LogKey::from_seed(NAME, &[3; 32]).unwrap();
        let verifier = key.verifier().clone();
        let log = AuditLog::open(LogConfig { reserve: 0, ..LogConfig::new(dir.path()) }, key, None).unwrap();
        for n in 0..9 {
            log.append_blocking(format!("{{\"n\":{n}}}")).unwrap();
        }
        log.close();
        let mut reader = Reader::open(&[dir.path()]).unwrap();
        let checkpoint = reader.checkpoint(&verifier).unwrap().unwrap();
        (proof(&mut reader, 5, &checkpoint).unwrap_or_else(|_| panic!("no proof")), verifier)
    }

    #[test]
    fn a_proof_is_checked_with_the_public_key_alone_and_nothing_in_it_can_be_changed() {
        let (proof, key) = proven();
        let written: Proof = serde_json::from_str(&serde_json::to_string(&proof).unwrap()).unwrap();
        assert_eq!(written.check(&key).unwrap(), b"{\"n\":5}");
        let other_entry = STANDARD.encode("{\"n\":6}");
        let mut other_path = proof.path.clone();
        other_path[0] = STANDARD.encode([0; 32]);
        let forgeries = [
            Proof { index: 6, ..proof.clone() },
            Proof { size: 10, ..proof.clone() },
            Proof { entry: other_entry, ..proof.clone() },
            Proof { entry: "?".to_owned(), ..proof.clone() },
            Proof { path: other_path, ..proof.clone() },
            Proof { path: vec![STANDARD.encode([0; 31])], ..proof.clone() },
            Proof { path: Vec::new(), ..proof.clone() },
            Proof { checkpoint: proof.checkpoint.replace("\n9\n", "\n8\n"), size: 8, ..proof.clone() },
        ];
        for forgery in forgeries {
            assert!(forgery.check(&key).is_err(), "{forgery:?}");
        }
        let other_key = LogKey::from_seed(NAME, &[4; 32]).unwrap();
        assert!(proof.check(other_key.verifier()).is_err());
    }
}
