//! The requests of a run: built once when they never differ, from a template when each is unique.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;

/// Stands for the number of the request in a target or body.
const NUMBER: &str = "{n}";

/// What is sent.
#[derive(Args, Clone)]
pub(crate) struct What {
    /// Request method.
    #[arg(long, default_value = "GET")]
    pub(crate) method: String,
    /// Request target; `{n}` becomes a number that no other request of the run has.
    #[arg(long, default_value = "/")]
    pub(crate) target: String,
    /// File of request targets, one a line, used in turn instead of `--target`.
    #[arg(long)]
    pub(crate) targets: Option<PathBuf>,
    /// Body; `{n}` as in `--target`.
    #[arg(long)]
    pub(crate) body: Option<String>,
}

/// All requests of a run.
pub(crate) struct Requests {
    shapes: Vec<Shape>,
}

enum Shape {
    Fixed(Vec<u8>),
    Numbered {
        /// Method, and headers that never change.
        method: String,
        target: String,
        headers: String,
        body: String,
    },
}

impl Requests {
    /// Builds the requests; `authority` is the value of the Host header.
    ///
    /// # Errors
    /// An unreadable or empty list of targets.
    pub(crate) fn new(what: &What, authority: &str, headers: &[String]) -> anyhow::Result<Self> {
        let mut lines = format!("Host: {authority}\r\n");
        for header in headers {
            lines.push_str(header.trim());
            lines.push_str("\r\n");
        }
        let targets = match &what.targets {
            Some(path) => read_targets(path)?,
            None => vec![what.target.clone()],
        };
        let body = what.body.as_deref().unwrap_or_default();
        let shapes = targets.into_iter().map(|target| Shape::new(&what.method, target, &lines, body)).collect();
        Ok(Self { shapes })
    }

    /// Writes request `number` to `output`, replacing what was there.
    pub(crate) fn write(&self, number: u64, output: &mut Vec<u8>) {
        output.clear();
        let count = self.shapes.len() as u64;
        // `new` makes at least one shape, and the remainder is below their count.
        let shape = &self.shapes[usize::try_from(number % count).unwrap_or_default()];
        match shape {
            Shape::Fixed(bytes) => output.extend_from_slice(bytes),
            Shape::Numbered { method, target, headers, body } => {
                let number = number.to_string();
                let target = target.replace(NUMBER, &number);
                let body = body.replace(NUMBER, &number);
                output.extend_from_slice(&assemble(method, &target, headers, &body));
            }
        }
    }
}

impl Shape {
    fn new(method: &str, target: String, headers: &str, body: &str) -> Self {
        if !target.contains(NUMBER) && !body.contains(NUMBER) {
            return Self::Fixed(assemble(method, &target, headers, body));
        }
        Self::Numbered { method: method.to_owned(), target, headers: headers.to_owned(), body: body.to_owned() }
    }
}

fn assemble(method: &str, target: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = match (method, body.len()) {
        ("GET" | "HEAD", 0) => String::new(),
        (_, length) => format!("Content-Length: {length}\r\n"),
    };
    format!("{method} {target} HTTP/1.1\r\n{headers}{length}\r\n{body}").into_bytes()
}

fn read_targets(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading targets from `{}`", path.display()))?;
    let targets: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    ensure!(!targets.is_empty(), "`{}` lists no target", path.display());
    Ok(targets)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn what(target: &str, body: Option<&str>) -> What {
        What {
            method: if body.is_some() { "POST" } else { "GET" }.to_owned(),
            target: target.to_owned(),
            targets: None,
            body: body.map(str::to_owned),
        }
    }

    fn text(requests: &Requests, number: u64) -> String {
        let mut output = b"what was there before".to_vec();
        requests.write(number, &mut output);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn a_request_carries_host_and_headers() {
        let headers = ["Authorization: 0tbench".to_owned()];
        let requests = Requests::new(&what("/v0/keys/a/", None), "localhost:1", &headers).unwrap();
        assert_eq!(text(&requests, 7), "GET /v0/keys/a/ HTTP/1.1\r\nHost: localhost:1\r\nAuthorization: 0tbench\r\n\r\n");
    }

    #[test]
    fn numbered_bodies_are_unique_and_their_length_is_right() {
        let requests = Requests::new(&what("/k{n}", Some("data={n}")), "h:1", &[]).unwrap();
        assert_eq!(text(&requests, 1234), "POST /k1234 HTTP/1.1\r\nHost: h:1\r\nContent-Length: 9\r\n\r\ndata=1234");
    }

    #[test]
    fn targets_from_a_file_are_used_in_turn() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("targets");
        std::fs::write(&file, "/a\n\n/b\n").unwrap();
        let mut what = what("/unused", None);
        what.targets = Some(file.clone());
        let requests = Requests::new(&what, "h:1", &[]).unwrap();
        assert!(text(&requests, 0).starts_with("GET /a "));
        assert!(text(&requests, 1).starts_with("GET /b "));
        assert!(text(&requests, 2).starts_with("GET /a "));
        std::fs::write(&file, "\n").unwrap();
        assert!(Requests::new(&what, "h:1", &[]).is_err());
    }
}
