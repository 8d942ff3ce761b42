//! A server's own counters, read over plain HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The address of health and metrics.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    authority: String,
}

/// The counters that the bench looks at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    /// fdatasync calls of the audit log.
    pub(super) audit_fsyncs: u64,
    /// Transactions of the store; each is one fsync of its log.
    pub(super) store_commits: u64,
}

impl Metrics {
    /// The metrics at an `http://` address.
    pub(super) fn at(url: &str) -> anyhow::Result<Self> {
        let authority = url.strip_prefix("http://").with_context(|| format!("`{url}` does not begin with http://"))?;
        Ok(Self { authority: authority.trim_end_matches('/').to_owned() })
    }

    /// The counters now.
    pub(super) fn read(&self) -> anyhow::Result<Counters> {
        let text = self.get("/metrics")?;
        let counter = |name: &str| value(&text, name).with_context(|| format!("the metrics have no `{name}`"));
        Ok(Counters { audit_fsyncs: counter("claviger_audit_fsyncs_total")?, store_commits: counter("claviger_store_commits_total")? })
    }

    /// The body of an answer.
    ///
    /// # Errors
    /// Any status but 200.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.authority)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.authority)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "`{path}` was answered with {}", head.lines().next().unwrap_or_default());
        Ok(body.to_owned())
    }
}

/// The value of a counter without labels.
fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let text = "# TYPE a_b counter\na_b_total 7\na_b_total_more 8\n# EOF\n";
        assert_eq!(value(text, "a_b_total"), Some(7));
        assert_eq!(value(text, "a_b"), None);
    }
}
