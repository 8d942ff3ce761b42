//! `claviger audit export`: records as JSON lines, one `{"index":…,"record":…}` each, straight from the files.

use super::verify::unreadable;
use crate::failure::Failure;
use clap::Args;
use claviger_audit::Reader;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

/// Options of `audit export`.
#[derive(Args)]
pub(crate) struct Export {
    /// The log's folder; a standby folder may follow.
    #[arg(value_name = "DIR", required = true, num_args = 1..=2)]
    dirs: Vec<PathBuf>,
    /// The first record's index.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// The index before which to end.
    #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
}

impl Export {
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let reader = Reader::open(&self.dirs).map_err(|e| unreadable(&e))?;
        let mut out = BufWriter::new(io::stdout().lock());
        for entry in reader.entries(self.from) {
            let (index, record) = entry.map_err(|e| unreadable(&e))?;
            if index >= self.to {
                break;
            }
            // A record is one JSON object without a line break: it goes out as it was hashed.
            let line = [format!("{{\"index\":{index},\"record\":").as_bytes(), &record, b"}\n"].concat();
            out.write_all(&line).map_err(|e| Failure::output(&e))?;
        }
        out.flush().map_err(|e| Failure::output(&e))?;
        Ok(0)
    }
}
