//! `claviger audit prove`: the proof that one record is in the signed log (RFC 6962 §2.1.1), to be checked by others.

use super::verify::{LogFolders, unreadable};
use crate::failure::{Code, Failure};
use crate::output;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use claviger_audit::{Hash, Reader, SignedCheckpoint, merkle};
use serde::Serialize;

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
#[derive(Serialize)]
struct Proof {
    index: u64,
    size: u64,
    /// The record's bytes, base64.
    entry: String,
    /// From the leaf up, base64.
    path: Vec<String>,
    /// The signed tree head.
    checkpoint: String,
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
