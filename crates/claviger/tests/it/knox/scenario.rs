//! Scenario files: a sequence of requests to one server, each with the answer that the contract wants.
//!
//! ```text
//! % [knox]                         a line of the server's configuration, added to the common one
//! id dave = host1 | 0thost1.x.com  an identity: certificate, `Authorization` value
//! # §4.2 step 2                    a comment
//! > dave POST /v0/keys/            identity, method, target; `\xNN`, `\r`, `\n`, `\t`, `\\` stand for bytes
//! > Accept: x                      a header field; `> Content-Type: -` sends none
//! > body id=k&data=aGk=            the body; a form unless a content type is given
//! < 200 {{v1}}                     success: the bytes of `data`; or
//! < 400/9 "Missing parameter 'id'" failure: status, code, and the bytes of `message` with their quotes; or
//! < HTTP 301                       any other answer in full: status, fields but `Date` and `Content-Length`, body
//! < Location: /v0/keys/
//! < body x
//! ```
//!
//! The first two forms of answer stand for exactly these bytes, with the headers of [`JSON_HEADERS`] and no other (a
//! line `< Connection: close` adds one): `{"status":"ok","code":0,"host":HOST,"ts":TS,"message":"","data":DATA}` and a
//! newline, and `{"status":"error","code":CODE,"host":HOST,"ts":TS,"message":MESSAGE,"data":null}` and a newline.
//!
//! Placeholders: `{{h…}}` a hash and others, such as `{{v1}}` and `{{t1}}`, a number; they keep their value from then on,
//! in requests too. `{{ts}}` any time; `{{host}}` the server's name; `{{repeat:TEXT:N}}` what it says.

use super::credentials::Certificates;
use claviger_testkit::{Answer, Client, TestServer};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The headers of every routed answer.
const JSON_HEADERS: [(&str, &str); 3] =
    [("Cache-Control", "no-store"), ("Content-Type", "application/json"), ("X-Content-Type-Options", "nosniff")];

/// Identities that every scenario has: name, certificate, `Authorization`.
const IDENTITIES: [(&str, &str, &str); 6] = [
    ("anonymous", "none", ""),
    ("alice", "none", "0ualice-token"),
    ("bob", "none", "0ubob-token"),
    ("carol", "none", "0ucarol-token"),
    ("machine", "machine", "0tdev-machine"),
    ("service", "service", "0sx"),
];

/// A scenario file, read.
pub(crate) struct Scenario {
    path: PathBuf,
    config: String,
    identities: HashMap<String, Identity>,
    lines: Vec<Line>,
}

#[derive(Clone)]
struct Identity {
    certificate: String,
    authorization: String,
}

enum Line {
    Other(String),
    Exchange(Exchange),
}

/// One request and its answer.
struct Exchange {
    number: usize,
    request: Vec<String>,
    expected: Vec<String>,
}

/// One scenario being played.
struct Play {
    server: TestServer,
    certificates: Certificates,
    connections: HashMap<String, Client>,
    values: HashMap<String, String>,
    host: String,
}

impl Scenario {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let identity = |certificate: &str, authorization: &str| Identity {
            certificate: certificate.to_owned(),
            authorization: authorization.to_owned(),
        };
        let identities = IDENTITIES.iter().map(|(name, c, a)| ((*name).to_owned(), identity(c, a))).collect();
        let mut scenario = Self { path: path.to_owned(), config: String::new(), identities, lines: Vec::new() };
        for (n, line) in text.lines().enumerate() {
            if let Some(request) = line.strip_prefix("> ") {
                scenario.request_line(n + 1, request);
                continue;
            }
            if let Some(expected) = line.strip_prefix("< ") {
                let Some(Line::Exchange(exchange)) = scenario.lines.last_mut() else {
                    panic!("{}:{}: an answer without request", path.display(), n + 1)
                };
                exchange.expected.push(expected.to_owned());
                continue;
            }
            if let Some(config) = line.strip_prefix("% ") {
                scenario.config.push_str(config);
                scenario.config.push('\n');
            } else if let Some((name, rest)) = line.strip_prefix("id ").and_then(|l| l.split_once(" = ")) {
                let (certificate, authorization) = rest.split_once(" |").unwrap_or((rest, ""));
                scenario.identities.insert(name.to_owned(), identity(certificate, authorization.trim_start()));
            } else {
                assert!(line.is_empty() || line.starts_with('#'), "{}:{}: {line:?} is no line of a scenario", path.display(), n + 1);
            }
            scenario.lines.push(Line::Other(line.to_owned()));
        }
        scenario
    }

    fn request_line(&mut self, number: usize, line: &str) {
        match self.lines.last_mut() {
            Some(Line::Exchange(exchange)) if exchange.expected.is_empty() => exchange.request.push(line.to_owned()),
            _ => self.lines.push(Line::Exchange(Exchange { number, request: vec![line.to_owned()], expected: Vec::new() })),
        }
    }

    /// Plays all exchanges. Gives what differs, as text; empty when nothing does. With `CLAVIGER_UPDATE` set the file's
    /// answers are rewritten instead: read the difference against the contract before committing it.
    pub(crate) fn play(&mut self) -> String {
        let server = super::server(&self.config);
        let mut play = Play {
            certificates: Certificates::new(&server),
            server,
            connections: HashMap::new(),
            values: HashMap::new(),
            host: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned(),
        };
        let mut report = String::new();
        for line in &mut self.lines {
            let Line::Exchange(exchange) = line else { continue };
            let answer = play.exchange(&self.identities, &exchange.request);
            let in_full = exchange.expected.first().is_some_and(|e| e.starts_with("HTTP "));
            let actual = play.shown(&answer, in_full);
            if !play.matches(&exchange.expected, &actual) {
                let actual = play.with_placeholders(&actual);
                let place = format!("{}:{}", self.path.display(), exchange.number);
                write!(
                    report,
                    "{place}\n{}{}{}\n",
                    marked("> ", &exchange.request),
                    marked("- < ", &exchange.expected),
                    marked("+ < ", &actual)
                )
                .unwrap();
                exchange.expected = actual;
            }
        }
        if report.is_empty() || std::env::var_os("CLAVIGER_UPDATE").is_none() {
            return report;
        }
        std::fs::write(&self.path, self.text()).unwrap();
        String::new()
    }

    fn text(&self) -> String {
        let line = |line: &Line| match line {
            Line::Other(text) => format!("{text}\n"),
            Line::Exchange(e) => format!("{}{}", marked("> ", &e.request), marked("< ", &e.expected)),
        };
        self.lines.iter().map(line).collect()
    }
}

fn marked(mark: &str, lines: &[String]) -> String {
    lines.iter().map(|l| format!("{mark}{l}\n")).collect()
}

impl Play {
    fn exchange(&mut self, identities: &HashMap<String, Identity>, lines: &[String]) -> Answer {
        let lines: Vec<Vec<u8>> = lines.iter().map(|l| unescape(&self.filled(l))).collect();
        let mut words = lines[0].splitn(3, |b| *b == b' ');
        let mut word = || String::from_utf8(words.next().expect("a request line has three words").to_vec()).unwrap();
        let (name, method) = (word(), word());
        let target = words.next().expect("a request line has three words").to_vec();
        let identity = identities.get(&name).unwrap_or_else(|| panic!("there is no identity `{name}`")).clone();
        let bytes = request(&method, &target, &identity.authorization, &lines[1..]);
        let mut client = match self.connections.remove(&identity.certificate) {
            Some(open) => open,
            None => self.certificates.connect(&self.server, &identity.certificate).unwrap(),
        };
        client.send(&bytes).unwrap();
        let answer = client
            .answer(method == "HEAD")
            .unwrap_or_else(|e| panic!("no answer to {:?}: {e:#}\n{}", String::from_utf8_lossy(&bytes), self.server.log()));
        if answer.header("connection") != Some("close") {
            self.connections.insert(identity.certificate, client);
        }
        answer
    }

    /// A line of a request with the values that are known.
    fn filled(&self, line: &str) -> String {
        let mut out = String::new();
        let mut rest = line;
        while let Some((before, name, after)) = placeholder(rest) {
            out.push_str(before);
            match repeated(name) {
                Some(text) => out.push_str(&text),
                None => out.push_str(self.values.get(name).unwrap_or_else(|| panic!("`{name}` has no value yet"))),
            }
            rest = after;
        }
        out + rest
    }

    /// An answer in the notation of scenario files.
    fn shown(&self, answer: &Answer, in_full: bool) -> Vec<String> {
        let mut headers: Vec<_> =
            answer.headers.iter().filter(|(n, _)| !["date", "content-length"].contains(&&*n.to_lowercase())).collect();
        headers.sort();
        let is_json = JSON_HEADERS.iter().all(|(n, v)| headers.iter().any(|(name, value)| name == n && value == v));
        if let Some(short) = self.short(answer).filter(|_| is_json && !in_full) {
            let others = headers.iter().filter(|(name, _)| JSON_HEADERS.iter().all(|(n, _)| n != name));
            return std::iter::once(short).chain(others.map(|(n, v)| format!("{n}: {v}"))).collect();
        }
        let mut lines = vec![format!("HTTP {}", answer.status)];
        lines.extend(headers.iter().map(|(n, v)| format!("{n}: {v}")));
        if !answer.body.is_empty() {
            lines.push(format!("body {}", answer.body.escape_ascii().to_string().replace("\\\"", "\"").replace("\\'", "'")));
        }
        lines
    }

    /// The short form of an envelope, if every byte around its one varying part is as it must be.
    fn short(&self, answer: &Answer) -> Option<String> {
        let text = std::str::from_utf8(&answer.body).ok()?;
        let host = &self.host;
        let after_ts =
            |text: &'_ str| text.find(',').filter(|at| text[..*at].parse::<i64>().is_ok_and(|ts| ts > 1_700_000_000_000_000_000));
        if let Some(rest) = text.strip_prefix(&format!("{{\"status\":\"ok\",\"code\":0,\"host\":\"{host}\",\"ts\":")) {
            let data = rest[after_ts(rest)?..].strip_prefix(",\"message\":\"\",\"data\":")?.strip_suffix("}\n")?;
            return (answer.status == 200).then(|| format!("200 {data}"));
        }
        let rest = text.strip_prefix("{\"status\":\"error\",\"code\":")?;
        let (code, rest) = rest.split_once(',')?;
        let rest = rest.strip_prefix(&format!("\"host\":\"{host}\",\"ts\":"))?;
        let message = rest[after_ts(rest)?..].strip_prefix(",\"message\":")?.strip_suffix(",\"data\":null}\n")?;
        Some(format!("{}/{code} {message}", answer.status))
    }

    /// Whether lines are as expected; what placeholders stood for is remembered.
    fn matches(&mut self, expected: &[String], actual: &[String]) -> bool {
        expected.len() == actual.len() && expected.iter().zip(actual).all(|(e, a)| self.line_matches(e, a))
    }

    fn line_matches(&mut self, expected: &str, actual: &str) -> bool {
        let (mut expected, mut actual) = (expected, actual);
        while let Some((before, name, after)) = placeholder(expected) {
            let Some(rest) = actual.strip_prefix(before) else { return false };
            let belongs = |c: char| if name.starts_with('h') && name != "host" { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
            let value = match (name, self.values.get(name)) {
                (name, _) if name.starts_with("repeat:") => repeated(name).unwrap_or_default(),
                ("host", _) => self.host.clone(),
                (_, Some(known)) => known.clone(),
                (_, None) => rest[..rest.find(|c| !belongs(c)).unwrap_or(rest.len())].to_owned(),
            };
            let Some(rest) = rest.strip_prefix(value.as_str()).filter(|_| !value.is_empty()) else { return false };
            if !(name == "host" || name == "ts" || name.starts_with("repeat:")) {
                self.values.insert(name.to_owned(), value);
            }
            (expected, actual) = (after, rest);
        }
        expected == actual
    }

    /// Lines for the file: known values by their names, new ids and hashes by new names, times and the host by theirs.
    fn with_placeholders(&mut self, lines: &[String]) -> Vec<String> {
        lines.iter().map(|line| self.named(line)).collect()
    }

    fn named(&mut self, line: &str) -> String {
        let mut line = line.to_owned();
        for (before, kind, digits) in [("\"hash\":\"", 'h', 64), ("\"id\":", 'v', 10), ("200 ", 'v', 10)] {
            let values: Vec<String> =
                line.split(before).skip(1).map(|rest| rest.chars().take_while(char::is_ascii_hexdigit).collect()).collect();
            for value in values.into_iter().filter(|v| v.len() >= digits) {
                if self.values.values().all(|known| *known != value) {
                    let free = (1..).map(|n| format!("{kind}{n}")).find(|name| !self.values.contains_key(name));
                    self.values.insert(free.expect("numbers do not end"), value);
                }
            }
        }
        for (name, value) in &self.values {
            line = line.replace(value.as_str(), &format!("{{{{{name}}}}}"));
        }
        let host = format!("\"host\":\"{}\"", self.host);
        let mut parts = line.split("\"ts\":").map(str::to_owned);
        let first = parts.next().unwrap_or_default();
        let rest: String = parts
            .map(|p| {
                if p.starts_with("{{") {
                    format!("\"ts\":{p}")
                } else {
                    format!("\"ts\":{{{{ts}}}}{}", p.trim_start_matches(|c: char| c.is_ascii_digit()))
                }
            })
            .collect();
        (first + &rest).replace(&host, "\"host\":\"{{host}}\"")
    }
}

/// The first `{{name}}` of a text: what stands before it, its name, what stands after it.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("{{")?;
    let (name, after) = rest.split_once("}}")?;
    Some((before, name, after))
}

/// What `{{repeat:TEXT:N}}` stands for.
fn repeated(name: &str) -> Option<String> {
    let (text, count) = name.strip_prefix("repeat:")?.rsplit_once(':')?;
    Some(text.repeat(count.parse().ok()?))
}

/// A request's bytes from the lines after its first.
fn request(method: &str, target: &[u8], authorization: &str, lines: &[Vec<u8>]) -> Vec<u8> {
    let body = lines.iter().find_map(|l| l.strip_prefix(b"body "));
    let fields: Vec<_> = lines.iter().filter(|l| !l.starts_with(b"body ")).collect();
    let mut bytes = [method.as_bytes(), b" ", target, b" HTTP/1.1\r\nHost: localhost\r\n"].concat();
    if !authorization.is_empty() {
        bytes.extend_from_slice(format!("Authorization: {authorization}\r\n").as_bytes());
    }
    if body.is_some() && !fields.iter().any(|f| f.starts_with(b"Content-Type:")) {
        bytes.extend_from_slice(b"Content-Type: application/x-www-form-urlencoded\r\n");
    }
    for field in fields.into_iter().filter(|f| f.as_slice() != b"Content-Type: -") {
        bytes.extend_from_slice(field);
        bytes.extend_from_slice(b"\r\n");
    }
    if body.is_some() || matches!(method, "POST" | "PUT" | "PATCH") {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.map_or(0, <[u8]>::len)).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body.unwrap_or_default());
    bytes
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'r') => out.push(b'\r'),
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'x') => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                out.push(u8::from_str_radix(&digits, 16).unwrap());
            }
            other => out.push(other.expect("a backslash stands before something")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_written_as_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.txt");
        let text = "% [knox]\nid x = host1 | 0tx\n\n# c\n> x GET /\n> A: b\n< 404/8 \"\"\n> x GET /\n< HTTP 405\n";
        std::fs::write(&path, text).unwrap();
        assert_eq!(Scenario::read(&path).text(), text);
    }

    #[test]
    fn escapes_stand_for_bytes() {
        assert_eq!(unescape("a\\r\\n\\x00\\\\\\t"), b"a\r\n\0\\\t");
    }
}
