//! Asking an agent on this machine, for the commands: one request on one connection, without a runtime.

use claviger_wire::native::Problem;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use zeroize::Zeroizing;

/// An agent writes its answers at once; only a registration waits for a disk.
const LIMIT: Duration = Duration::from_secs(30);
/// More than the largest secret in base64.
const MOST: u64 = 256 << 20;

/// An agent at a socket.
#[derive(Debug, Clone)]
pub struct LocalAgent {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum LocalError {
    /// Nobody listens there.
    #[error("no agent answers on {}: {source}", socket.display())]
    NotThere {
        /// The socket.
        socket: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// What answers is no agent.
    #[error("what answers on {} is no node agent", .0.display())]
    NoAgent(PathBuf),
    /// The agent refused.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
}

/// A successful answer.
pub struct LocalAnswer {
    headers: Vec<(String, String)>,
    /// Its body, which may be a secret.
    pub body: Zeroizing<Vec<u8>>,
}

impl LocalAnswer {
    /// A header by its name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl LocalAgent {
    /// The agent at `socket`; nothing is connected yet.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn ask(&self, method: &str, path: &str) -> Result<LocalAnswer, LocalError> {
        let not_there = |source| LocalError::NotThere { socket: self.socket.clone(), source };
        let mut stream = UnixStream::connect(&self.socket).map_err(not_there)?;
        stream.set_read_timeout(Some(LIMIT)).map_err(not_there)?;
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").map_err(not_there)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(16 << 10));
        stream.take(MOST).read_to_end(&mut bytes).map_err(not_there)?;
        let (status, answer) = parse(&bytes).ok_or_else(|| LocalError::NoAgent(self.socket.clone()))?;
        if (200..300).contains(&status) {
            return Ok(answer);
        }
        let problem = serde_json::from_slice(&answer.body).map_err(|_| LocalError::NoAgent(self.socket.clone()))?;
        Err(LocalError::Refused(Box::new(problem)))
    }
}

fn parse(bytes: &[u8]) -> Option<(u16, LocalAnswer)> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else { return None };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers: Vec<_> = head.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect();
    let body = Zeroizing::new(bytes[length..].to_vec());
    let answer = LocalAnswer { headers, body };
    // A value that was cut off must not pass for one.
    let is_whole = answer.header("content-length")?.parse() == Ok(answer.body.len());
    is_whole.then_some((head.code?, answer))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_cut_off_answer_is_none() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nClaviger-Version: 5\r\n\r\nhunter2";
        let (status, answer) = parse(whole).unwrap();
        assert_eq!((status, &answer.body[..], answer.header("claviger-version")), (200, &b"hunter2"[..], Some("5")));
        for end in 0..whole.len() {
            assert!(parse(&whole[..end]).is_none(), "{end}");
        }
    }
}
