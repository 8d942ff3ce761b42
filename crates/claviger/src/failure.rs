//! How commands fail: an exit code, a sentence that says what failed and whose fault it is, and the next step.

use claviger_client::{ConfigError, Error};
use claviger_wire::native::ApprovalInfo;
use std::process::ExitCode;

/// What to do where something is not there, or not for this caller to know.
pub(crate) const NOT_FOUND: &str = "`claviger ls` lists the keys you may see; on others you have no right at all, or they do not exist";

/// The exit codes, as `--help` shows them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  something else failed, or a check found something
  2  the command line or the settings are wrong
  3  not found, not visible to you, deleted, or expired
  4  denied
  5  not authenticated
  6  conflict: it exists already, or somebody else was first
  7  the server is not reachable, or cannot do it now
  8  the server refused the input as invalid
`claviger run` exits with its program's code, with 128 + N when signal N ended it,
and with 126 or 127 when it cannot be run or found.";

/// Why a command failed, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Other = 1,
    Usage = 2,
    NotFound = 3,
    Denied = 4,
    Unauthenticated = 5,
    Conflict = 6,
    Unavailable = 7,
    Invalid = 8,
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    what: String,
    next: Option<String>,
    request_id: Option<String>,
    /// The reader of standard output went away: nobody wants to hear more.
    quiet: bool,
    /// It is no failure at all: approval was asked for, as the command line said.
    asked: Option<Box<ApprovalInfo>>,
}

impl Failure {
    /// A failure of this kind.
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), next: None, request_id: None, quiet: false, asked: None }
    }

    /// The command line is wrong.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Code::Usage, what)
    }

    /// The command line is not understood.
    pub(crate) fn arguments(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let (what, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
        let what = what.strip_prefix("error: ").unwrap_or(what).split_whitespace().collect::<Vec<_>>().join(" ");
        let usage = rest.lines().find_map(|line| line.strip_prefix("Usage: "));
        let next = usage.map_or_else(|| "try --help".to_owned(), |usage| format!("the usage is `{usage}`; --help says more"));
        Self::usage(what).next(next)
    }

    /// What was given breaks a rule.
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::new(Code::Invalid, what)
    }

    /// Anything that has no code of its own.
    pub(crate) fn other(what: impl Into<String>) -> Self {
        Self::new(Code::Other, what)
    }

    /// With what to do about it.
    pub(crate) fn next(mut self, step: impl Into<String>) -> Self {
        self.next = Some(step.into());
        self
    }

    /// With this code if it has none of its own, for commands that mean something else by 1.
    pub(crate) fn instead_of_other(mut self, code: Code) -> Self {
        if self.code == Code::Other {
            self.code = code;
        }
        self
    }

    /// With one more thing to do about it.
    pub(crate) fn also(mut self, step: impl Into<String>) -> Self {
        self.next = Some(self.next.map_or_else(String::new, |before| format!("{before}; ")) + &step.into());
        self
    }

    /// Writing to standard output failed.
    pub(crate) fn output(error: &std::io::Error) -> Self {
        let quiet = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { quiet, ..Self::other(format!("writing to standard output: {error}")) }
    }

    /// The exit code of a command that has come to a verdict and shown it: it stands even where nobody read it to the end, as
    /// with `| head`.
    pub(crate) fn verdict(code: u8, shown: Result<(), Self>) -> Result<u8, Self> {
        match shown {
            Err(failure) if !failure.quiet => Err(failure),
            _ => Ok(code),
        }
    }

    /// A failed request; `key` is the key that it was about.
    pub(crate) fn client(error: Error, key: Option<&str>) -> Self {
        let code = code_of(&error);
        let mut failure = Self::new(code, error.to_string());
        failure.next = next_step(&error, code, key);
        if let Error::Asked(asked) = error {
            return Self { asked: Some(asked), ..failure };
        }
        if let Error::Refused { problem, .. } = &error {
            failure.request_id = Some(problem.request_id.clone());
            if let Some(field) = &problem.field {
                failure.what = format!("{field}: {}", failure.what);
            }
        }
        failure
    }

    /// What failed, in one sentence.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// Says it on standard error, and gives the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if self.quiet {
            return ExitCode::SUCCESS;
        }
        if let Some(asked) = &self.asked {
            return match crate::commands::approval::show_asked(asked, json) {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => failure.report(json),
            };
        }
        match json {
            true => eprintln!("{}", self.to_json()),
            false => eprintln!("{}", crate::output::clean_lines(&self.to_text())),
        }
        ExitCode::from(self.code as u8)
    }

    fn to_text(&self) -> String {
        let mut text = format!("claviger: {}", self.what);
        if let Some(next) = &self.next {
            text.push_str(&format!("\n  next: {next}"));
        }
        if let Some(id) = &self.request_id {
            text.push_str(&format!("\n  request: {id}"));
        }
        text
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "error": { "code": self.code.name(), "message": self.what, "next": self.next, "request_id": self.request_id } })
    }
}

impl Code {
    fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Unauthenticated => "unauthenticated",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
        }
    }
}

fn code_of(error: &Error) -> Code {
    match error {
        Error::Config(_) => Code::Usage,
        Error::Connect { .. } | Error::Broken { .. } | Error::Timeout { .. } => Code::Unavailable,
        Error::SessionOver(_) => Code::Unauthenticated,
        Error::Refused { problem, .. } => code_of_problem(&problem.code),
        _ => Code::Other,
    }
}

/// The exit code of a problem's code, or of an item's in a bulk read.
pub(crate) fn code_of_problem(code: &str) -> Code {
    match code {
        "not_found" | "deleted" | "expired" => Code::NotFound,
        "denied" | "needs_approval" | "used_not_read" | "not_exportable" => Code::Denied,
        "approval" => Code::Conflict,
        "unauthenticated" => Code::Unauthenticated,
        "conflict" => Code::Conflict,
        "rate_limited" | "sealed" | "unavailable" | "storage_full" => Code::Unavailable,
        "invalid" | "version_unusable" | "too_large" | "method_not_allowed" => Code::Invalid,
        _ => Code::Other,
    }
}

fn next_step(error: &Error, code: Code, key: Option<&str>) -> Option<String> {
    let key = key.unwrap_or("KEY");
    Some(match (error, code) {
        (Error::Config(ConfigError::Missing { .. }), _) => {
            "set CLAVIGER_ADDR and CLAVIGER_CA, and CLAVIGER_TOKEN or CLAVIGER_CERT with CLAVIGER_KEY; a development server writes them to DIR/dev.env"
                .to_owned()
        }
        (Error::Config(_), _) => "settings come from the CLAVIGER_ variables, and options pass them by; `claviger --help` lists both".to_owned(),
        (Error::Tls { .. }, _) => "check that CLAVIGER_CA is the CA of this server and that CLAVIGER_ADDR has the name in its certificate".to_owned(),
        (Error::Connect { .. }, _) => "check CLAVIGER_ADDR, and that the server runs there".to_owned(),
        (Error::Broken { .. } | Error::Timeout { .. }, _) => {
            format!("a read can simply be repeated; a change may have been made: look with `claviger info {key}` before you repeat it")
        }
        (Error::SessionOver(_), _) => "`claviger login` begins a new one".to_owned(),
        _ if error.code() == Some("needs_approval") => {
            "repeat the command with `--ask REASON` to ask for approval; `claviger approval list` shows what waits".to_owned()
        }
        _ if error.code() == Some("approval") => "`claviger approval list --all` shows what became of it; ask anew with `--ask REASON`".to_owned(),
        (_, Code::Unauthenticated) => {
            "run `claviger login`, or set CLAVIGER_TOKEN, or CLAVIGER_CERT and CLAVIGER_KEY, to what this server accepts".to_owned()
        }
        _ if error.code() == Some("used_not_read") => {
            format!("`claviger encrypt`, `decrypt`, `sign`, `hmac` and `verify` use it; `claviger info {key}` says what it is")
        }
        _ if error.code() == Some("not_exportable") => {
            format!("`claviger add {key} --generate` and `claviger promote` replace it; a key that others are to have is made with --exportable")
        }
        (_, Code::Denied) => format!("`claviger whoami` says who you are; `claviger acl explain {key} TYPE:ID` says why, and a key's administrator can grant more"),
        _ if error.code() == Some("expired") => {
            format!("`claviger versions {key}` says which versions expired; add one with `claviger add {key} --promote`")
        }
        _ if error.code() == Some("deleted") => "whoever may create keys there can make it again".to_owned(),
        // The server says this only to those who may see the key.
        (Error::Refused { problem, .. }, Code::NotFound) if problem.detail.starts_with("there is no version") => {
            format!("`claviger versions {key}` lists those that there are")
        }
        (_, Code::NotFound) => NOT_FOUND.to_owned(),
        (_, Code::Conflict) => format!("look at what it is now with `claviger info {key}`, then decide"),
        (_, Code::Unavailable) => "try again in a moment; `claviger status` or the server's log says more".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use claviger_wire::native::Problem;

    fn refused(code: &str, status: u16) -> Error {
        let problem = Problem {
            code: code.to_owned(),
            title: String::new(),
            status,
            detail: "no".to_owned(),
            field: Some("acl[0]".to_owned()),
            request_id: "r1".to_owned(),
        };
        Error::Refused { problem: Box::new(problem), retry_after: None }
    }

    #[test]
    fn a_verdict_stands_although_nobody_read_it() {
        let failed = |kind: std::io::ErrorKind| Err(Failure::output(&kind.into()));
        assert_eq!(Failure::verdict(1, failed(std::io::ErrorKind::BrokenPipe)).unwrap(), 1);
        assert_eq!(Failure::verdict(1, Ok(())).unwrap(), 1);
        assert!(Failure::verdict(0, failed(std::io::ErrorKind::StorageFull)).is_err());
    }

    #[test]
    fn every_problem_has_its_exit_code() {
        let table = [
            ("not_found", 3),
            ("deleted", 3),
            ("expired", 3),
            ("denied", 4),
            ("needs_approval", 4),
            ("approval", 6),
            ("unauthenticated", 5),
            ("conflict", 6),
            ("unavailable", 7),
            ("sealed", 7),
            ("storage_full", 7),
            ("rate_limited", 7),
            ("invalid", 8),
            ("too_large", 8),
            ("method_not_allowed", 8),
            ("internal", 1),
            ("of-the-future", 1),
        ];
        for (code, exit) in table {
            assert_eq!(Failure::client(refused(code, 400), None).code as u8, exit, "{code}");
        }
        let connect = Error::Connect { address: "h:1".into(), reason: "refused".into() };
        assert_eq!(Failure::client(connect, None).code, Code::Unavailable);
        assert_eq!(Failure::client(ConfigError::TwoCredentials.into(), None).code, Code::Usage);
    }

    #[test]
    fn a_failure_says_what_whose_and_the_next_step() {
        let failure = Failure::client(refused("denied", 403), Some("db/pw"));
        let text = failure.to_text();
        assert!(text.starts_with("claviger: acl[0]: no\n  next: ") && text.contains("acl explain db/pw") && text.ends_with("request: r1"));
        assert_eq!(failure.to_json()["error"]["code"], "denied");
    }
}
