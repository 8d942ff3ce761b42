//! Where a browser comes back to after a login: one answer, on a port of this machine that was free (RFC 8252 §7.3).
//!
//! # Guarantees
//! - It listens on 127.0.0.1 alone, takes `GET /callback` with the right `state` once, and is closed then.
//! - What else comes is answered and passed over: neither a page in the browser nor another user of this machine can end or
//!   answer a login by guessing.
//! - Its pages are fixed texts: they repeat nothing of a request, load nothing and lead nowhere.

use super::{Attempt, OidcError, told};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroizing;

/// Bytes of a request's head.
const MAX_HEAD: usize = 32 * 1024;
/// How long one browser's connection may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
const PATH: &str = "/callback";

/// The listener.
pub struct Loopback {
    listener: TcpListener,
    port: u16,
}

/// What the provider sent the browser back with.
pub struct Landed {
    pub(super) state: Zeroizing<String>,
    pub(super) iss: Option<String>,
    /// The code, or why there is none.
    pub(super) outcome: Result<Zeroizing<String>, String>,
}

/// What one request wants.
enum Wanted {
    /// An answer to this attempt.
    Landing(Landed),
    /// Anything else, and what it is answered.
    Other(&'static str, &'static str),
}

impl Loopback {
    /// Listens on a free port.
    ///
    /// # Errors
    /// [`OidcError::System`].
    pub async fn listen() -> Result<Self, OidcError> {
        let failed = |e: std::io::Error| OidcError::System(format!("listening on 127.0.0.1: {e}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Self { listener, port })
    }

    /// The redirect URI.
    #[must_use]
    pub fn redirect(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// Waits for this attempt's answer, and closes.
    ///
    /// # Errors
    /// [`OidcError::TimedOut`], or the listener failed.
    pub async fn landed(self, attempt: &Attempt, limit: Duration) -> Result<Landed, OidcError> {
        let wait = async {
            // Browsers open connections ahead and say nothing on them: each waits by itself.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = self.listener.accept() => {
                        let (stream, _) = accepted.map_err(|e| OidcError::System(format!("listening on 127.0.0.1: {e}")))?;
                        let (state, port) = (attempt.state.clone(), self.port);
                        connections.spawn(async move { tokio::time::timeout(PATIENCE, serve(stream, &state, port)).await.ok().flatten() });
                    }
                    // All that end are looked at: what brought nothing must not hide what comes after it.
                    Some(ended) = connections.join_next() => if let Ok(Some(landed)) = ended {
                        return Ok(landed);
                    },
                }
            }
        };
        tokio::time::timeout(limit, wait).await.unwrap_or(Err(OidcError::TimedOut))
    }
}

/// Answers one connection; gives what came, if it was this attempt's.
async fn serve(mut stream: TcpStream, state: &str, port: u16) -> Option<Landed> {
    let mut head = Zeroizing::new(Vec::with_capacity(4096));
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if head.len() > MAX_HEAD || stream.read_buf(&mut *head).await.ok()? == 0 {
            return None;
        }
    }
    let wanted = read(&head, state, port);
    let (status, text) = match &wanted {
        Wanted::Landing(Landed { outcome: Ok(_), .. }) => ("200 OK", "You can close this page. The command line goes on."),
        Wanted::Landing(_) => ("200 OK", "The login was refused. The command line says more; you can close this page."),
        Wanted::Other(status, text) => (*status, *text),
    };
    let page = format!("<!doctype html><meta charset=utf-8><title>Claviger</title><p>{text}</p>\n");
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\nReferrer-Policy: no-referrer\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
    // The browser may be gone; what it brought counts all the same.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    match wanted {
        Wanted::Landing(landed) => Some(landed),
        Wanted::Other(..) => None,
    }
}

fn read(head: &[u8], state: &str, port: u16) -> Wanted {
    let not_ours = Wanted::Other("404 Not Found", "There is nothing here.");
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    if !request.parse(head).is_ok_and(|s| s.is_complete()) || request.method != Some("GET") {
        return not_ours;
    }
    let host = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case("host")).map(|h| h.value);
    let is_asked_by_name = host == Some(format!("127.0.0.1:{port}").as_bytes());
    let target = request.path.unwrap_or_default();
    let Some(query) = target.strip_prefix(PATH).and_then(|rest| rest.strip_prefix('?')).filter(|_| is_asked_by_name) else {
        return not_ours;
    };
    let Some(query) = Query::parse(query) else { return Wanted::Other("400 Bad Request", "This is no answer of a provider.") };
    // Who does not know the state did not begin this login.
    let is_this_ones = query.state.as_ref().is_some_and(|s| equal(s.as_bytes(), state.as_bytes()));
    let Some(state) = query.state.filter(|_| is_this_ones) else {
        return Wanted::Other("400 Bad Request", "This answer belongs to another login. Go back to the command line and begin again.");
    };
    let outcome = match (query.code, query.error) {
        (Some(code), None) => Ok(code),
        (None, Some(error)) => Err(told(&error, query.error_description.as_deref())),
        _ => return Wanted::Other("400 Bad Request", "This is no answer of a provider."),
    };
    Wanted::Landing(Landed { state, iss: query.iss, outcome })
}

/// Whether both are equal, in time that depends on their length alone.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

/// The parameters of an authorization response (RFC 6749 §4.1.2, RFC 9207 §2).
#[derive(Default)]
struct Query {
    state: Option<Zeroizing<String>>,
    code: Option<Zeroizing<String>>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Query {
    /// None when one is there twice (RFC 6749 §3.1) or is no text.
    fn parse(query: &str) -> Option<Self> {
        let mut all = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            let once = |place: &mut Option<String>, value: Zeroizing<String>| place.replace(value.to_string()).is_none();
            let is_first = match name {
                "state" => all.state.replace(value).is_none(),
                "code" => all.code.replace(value).is_none(),
                "iss" => once(&mut all.iss, value),
                "error" => once(&mut all.error, value),
                "error_description" => once(&mut all.error_description, value),
                // Extensions are to be ignored.
                _ => true,
            };
            if !is_first {
                return None;
            }
        }
        Some(all)
    }
}

/// Percent-decodes a form's value.
fn decode(text: &str) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        match first {
            b'%' => {
                let (digits, more) = rest.split_at_checked(2)?;
                let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| is_hex)?, 16).ok()?);
                rest = more;
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()))
}

/// For fuzzing: reads bytes as a browser's request.
pub(crate) fn fuzz(head: &[u8]) {
    let found = matches!(read(head, "the state of this login, which nobody knows", 1), Wanted::Landing(_));
    assert!(!found || head.windows(5).any(|w| w == b"state"), "an answer without a state");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ask(target: &str, host: &str) -> Result<Landed, &'static str> {
        match read(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), "s1", 7) {
            Wanted::Landing(landed) => Ok(landed),
            Wanted::Other(status, _) => Err(status),
        }
    }

    #[test]
    fn only_the_answer_of_this_login_is_taken() {
        let landed = ask("/callback?code=c%2F1&state=s1&iss=https%3A%2F%2Fidp&session_state=x", "127.0.0.1:7").ok().unwrap();
        assert_eq!((landed.outcome.unwrap().as_str(), landed.iss.as_deref()), ("c/1", Some("https://idp")));
        let refused = ask("/callback?error=access_denied&error_description=no+way%0a&state=s1", "127.0.0.1:7").ok().unwrap();
        assert_eq!(refused.outcome.unwrap_err(), "access_denied: no way");
        for (target, host) in [
            ("/callback?code=c&state=s2", "127.0.0.1:7"),
            ("/callback?code=c&state=", "127.0.0.1:7"),
            ("/callback?code=c", "127.0.0.1:7"),
            ("/callback?code=c&state=s1&state=s1", "127.0.0.1:7"),
            ("/callback?code=c&code=d&state=s1", "127.0.0.1:7"),
            ("/callback?code=c&error=e&state=s1", "127.0.0.1:7"),
            ("/callback?state=s1", "127.0.0.1:7"),
            ("/callback?code=%ff&state=s1", "127.0.0.1:7"),
            ("/callback?code=%+1&state=s1", "127.0.0.1:7"),
            ("/callback", "127.0.0.1:7"),
            ("/callback/?code=c&state=s1", "127.0.0.1:7"),
            ("/favicon.ico", "127.0.0.1:7"),
            ("/?next=https://evil.example&code=c&state=s1", "127.0.0.1:7"),
            ("/callback?code=c&state=s1", "evil.example:7"),
            ("/callback?code=c&state=s1", "localhost:7"),
        ] {
            assert!(ask(target, host).is_err(), "{target} {host}");
        }
        assert!(matches!(read(b"POST /callback?code=c&state=s1 HTTP/1.1\r\nHost: 127.0.0.1:7\r\n\r\n", "s1", 7), Wanted::Other(..)));
    }

    /// Sends a request as a browser does; gives the whole answer.
    async fn browse(url: &str, target: &str) -> String {
        let host = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let mut stream = TcpStream::connect(host).await.unwrap();
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_answers_what_else_comes_then_takes_one_answer_and_is_closed() {
        let loopback = Loopback::listen().await.unwrap();
        let url = loopback.redirect();
        let provider = super::super::tests::provider(serde_json::json!({}));
        let attempt = provider.attempt(url.clone(), "n").unwrap();
        let state = attempt.state.to_string();
        let browser = tokio::spawn(async move {
            let silent = TcpStream::connect(url.strip_prefix("http://").unwrap().split('/').next().unwrap()).await.unwrap();
            assert!(browse(&url, "/favicon.ico").await.starts_with("HTTP/1.1 404"));
            let guessed = browse(&url, "/callback?code=evil&state=guess&next=https://evil.example/<script>").await;
            assert!(guessed.starts_with("HTTP/1.1 400") && !guessed.contains("evil") && !guessed.contains("Location"), "{guessed}");
            let right = browse(&url, &format!("/callback?code=good&state={state}")).await;
            assert!(right.starts_with("HTTP/1.1 200") && right.contains("default-src 'none'") && !right.contains("good"), "{right}");
            drop(silent);
            url
        });
        let landed = loopback.landed(&attempt, Duration::from_secs(20)).await.unwrap();
        assert_eq!(landed.outcome.unwrap().as_str(), "good");
        let url = browser.await.unwrap();
        assert!(TcpStream::connect(url.strip_prefix("http://").unwrap().split('/').next().unwrap()).await.is_err(), "it is closed");
    }

    #[tokio::test]
    async fn who_does_not_come_is_not_waited_for_for_ever() {
        let loopback = Loopback::listen().await.unwrap();
        let attempt = super::super::tests::provider(serde_json::json!({})).attempt(loopback.redirect(), "n").unwrap();
        assert!(matches!(loopback.landed(&attempt, Duration::from_millis(20)).await, Err(OidcError::TimedOut)));
    }
}
