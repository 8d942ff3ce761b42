//! `claviger import age`: what `claviger export` wrote, opened with an age identity.

use super::formats::{Entry, MOST_BYTES, bundle};
use super::{File, refused};
use crate::ask;
use crate::failure::Failure;
use age::armor::ArmoredReader;
use age::{DecryptError, Decryptor, Identity, IdentityFile};
use clap::Args;
use std::io::{BufReader, Read};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// An encrypted file and what opens it.
#[derive(Args)]
pub(crate) struct Encrypted {
    #[command(flatten)]
    pub(super) file: File,
    /// A file with age identities (AGE-SECRET-KEY-1…), as age-keygen writes it; may be repeated.
    #[arg(long = "identity", short = 'i', value_name = "FILE", required = true)]
    identities: Vec<PathBuf>,
}

impl Encrypted {
    /// The secrets in the file.
    pub(super) fn open(&self) -> Result<Vec<Entry>, Failure> {
        let identities = self.identities()?;
        let sealed = ask::read_input(&self.file.file)?;
        let plain = self.decrypt(&sealed, &identities)?;
        bundle::read(&plain).map_err(|why| refused(&self.file.file, why))
    }

    fn identities(&self) -> Result<Vec<Box<dyn Identity + Send + Sync>>, Failure> {
        let mut all = Vec::new();
        for path in &self.identities {
            // The library's own words could repeat a line of the file, which is a secret.
            let bad = || {
                Failure::usage(format!("--identity: {} has no age identities (or such that need a passphrase or plugin)", path.display()))
            };
            let text = ask::read_input(path)?;
            let read = IdentityFile::from_buffer(BufReader::new(&**text)).map_err(|_| bad())?;
            all.extend(read.into_identities().map_err(|_| bad())?);
        }
        Ok(all)
    }

    fn decrypt(&self, sealed: &[u8], identities: &[Box<dyn Identity + Send + Sync>]) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let shown = self.file.file.display();
        let failed = |why: &str| Failure::invalid(format!("{shown}: {why}")).next("nothing was imported");
        let wrong = |error: DecryptError| match error {
            DecryptError::NoMatchingKeys => failed("none of these identities opens it"),
            _ => failed("it is no age file, or damaged"),
        };
        let decryptor = Decryptor::new(ArmoredReader::new(sealed)).map_err(wrong)?;
        let reader = decryptor.decrypt(identities.iter().map(|identity| &**identity as &dyn Identity)).map_err(wrong)?;
        let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
        let read = reader.take(MOST_BYTES + 1).read_to_end(&mut plain);
        match read.map_err(|_| failed("it is damaged or cut off"))? as u64 > MOST_BYTES {
            true => Err(failed("it has more than 64 MiB")),
            false => Ok(plain),
        }
    }
}
