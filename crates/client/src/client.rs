//! The client: connections, credentials, retries.

use crate::backoff::Backoff;
use crate::buffer::Buffer;
use crate::config::{Address, Config, Credentials, Renew};
use crate::http::{Body, Connection, Head};
use crate::request::Request;
use crate::{Error, tls};
use claviger_domain::{Approving, Revision};
use claviger_wire::native::Problem;
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// No wait that a server asks for is longer than this within one call; a later call may try again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const IDLE_CONNECTIONS: usize = 4;

/// A client of one server, in one name. Cloning is cheap and shares connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    address: Address,
    tls: TlsConnector,
    authorization: Authorization,
    timeout: Duration,
    attempts: u32,
    approving: Approving,
    idle: Mutex<Vec<Connection>>,
    server_time: Mutex<Option<(SystemTime, Instant)>>,
}

/// What stands in the header of each request.
enum Authorization {
    Nothing,
    Fixed(Zeroizing<String>),
    Session(Arc<dyn Renew>),
}

impl Authorization {
    fn header(&self) -> Option<Zeroizing<String>> {
        match self {
            Self::Nothing => None,
            Self::Fixed(value) => Some(value.clone()),
            Self::Session(session) => Some(Zeroizing::new(format!("Bearer {}", *session.token()))),
        }
    }
}

/// A whole answer.
pub(crate) struct Answer {
    head: Head,
    body: Buffer,
}

impl Client {
    /// A client; nothing is connected yet.
    ///
    /// # Errors
    /// [`Error::Config`] when certificate, key and roots do not fit together.
    pub fn new(config: Config) -> Result<Self, Error> {
        let tls = TlsConnector::from(Arc::new(tls::client_config(&config)?));
        let authorization = match config.credentials {
            Credentials::Token(token) => Authorization::Fixed(Zeroizing::new(format!("Bearer {}", *token))),
            Credentials::Session(session) => Authorization::Session(session),
            Credentials::Certificate { machine: Some(name), .. } => Authorization::Fixed(Zeroizing::new(format!("Machine {name}"))),
            Credentials::Certificate { machine: None, .. } | Credentials::Nothing => Authorization::Nothing,
        };
        let Config { address, timeout, attempts, approving, .. } = config;
        Ok(Self(Arc::new(Inner {
            address,
            tls,
            authorization,
            timeout,
            attempts,
            approving,
            idle: Mutex::default(),
            server_time: Mutex::default(),
        })))
    }

    /// What the server's clock showed in its newest answer (whole seconds), and when that came: for who must not trust his own.
    #[must_use]
    pub fn server_time(&self) -> Option<(SystemTime, Instant)> {
        *self.0.server_time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_time(&self, head: &Head) {
        if let Some(time) = head.header("date").and_then(|text| httpdate::parse_http_date(text).ok()) {
            *self.0.server_time.lock().unwrap_or_else(PoisonError::into_inner) = Some((time, Instant::now()));
        }
    }

    /// The server as an URL begins: `https://HOST:PORT`.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("https://{}", self.0.address)
    }

    /// The server, as messages name it.
    pub(crate) fn address(&self) -> String {
        self.0.address.to_string()
    }

    /// Sends `request`, again if that does no harm and may help, and gives the answer if it is a success.
    pub(crate) async fn call(&self, request: Request) -> Result<Answer, Error> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut attempt = 1;
        let mut is_renewed = false;
        loop {
            let error = match self.attempt(&request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !is_renewed && self.renewed(&error).await? {
                is_renewed = true;
                continue;
            }
            if attempt >= self.0.attempts || !may_repeat(&request, &self.0.approving, &error) {
                return Err(error);
            }
            let asked = error.retry_after().unwrap_or_default().min(LONGEST_WAIT);
            tokio::time::sleep(asked + backoff.next_wait()).await;
            attempt += 1;
        }
    }

    /// Renews the session where the server does not take it any more. Nothing was done by a request that was refused so.
    async fn renewed(&self, error: &Error) -> Result<bool, Error> {
        let Authorization::Session(session) = &self.0.authorization else { return Ok(false) };
        if error.code() != Some("unauthenticated") {
            return Ok(false);
        }
        let refused = session.token();
        session.renew(&refused).await.map(|()| true).map_err(Error::SessionOver)
    }

    /// Opens a stream: a connection of its own, whose body is read as it comes.
    pub(crate) async fn stream(&self, request: &Request) -> Result<(Connection, Body), Error> {
        match self.open_stream(request).await {
            Err(error) if self.renewed(&error).await? => self.open_stream(request).await,
            opened => opened,
        }
    }

    async fn open_stream(&self, request: &Request) -> Result<(Connection, Body), Error> {
        let mut connection = self.connect().await?;
        let opened = async {
            connection.send(&self.encode(request)).await?;
            let (head, mut body) = connection.head().await?;
            self.note_time(&head);
            if head.status == 200 {
                return Ok(body);
            }
            let body = connection.whole(&mut body).await?;
            Err(refusal(&head, &body))
        };
        let body = self.within_limit(opened).await?;
        Ok((connection, body))
    }

    async fn attempt(&self, request: &Request) -> Result<Answer, Error> {
        let mut connection = match self.idle_connection().await {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let answered = async {
            connection.send(&self.encode(request)).await?;
            let (head, mut body) = connection.head().await?;
            self.note_time(&head);
            let whole = connection.whole(&mut body).await?;
            let reusable = connection.reusable(&head, &body);
            Ok((Answer { head, body: whole }, reusable))
        };
        let (answer, reusable) = self.within_limit(answered).await?;
        if reusable {
            self.keep(connection);
        }
        match answer.head.status {
            202 => Err(Error::Asked(answer.json()?)),
            200..=299 => Ok(answer),
            _ => Err(refusal(&answer.head, &answer.body)),
        }
    }

    async fn within_limit<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match tokio::time::timeout(self.0.timeout, work).await {
            Ok(done) => done,
            Err(_) => Err(Error::Timeout { address: self.0.address.to_string(), limit: self.0.timeout }),
        }
    }

    async fn connect(&self) -> Result<Connection, Error> {
        Connection::open(&self.0.address, &self.0.tls).await
    }

    /// A kept connection that the server has not closed meanwhile: a change must not fail for a stale one.
    async fn idle_connection(&self) -> Option<Connection> {
        loop {
            let mut connection = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if connection.is_quiet().await {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(connection);
        }
    }

    fn encode(&self, request: &Request) -> Buffer {
        let authorization = self.0.authorization.header();
        request.encode(&self.0.address.to_string(), authorization.as_ref().map(|value| value.as_str()), &self.0.approving)
    }
}

impl Answer {
    /// The body as `T`.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        parse_json(self.body.bytes())
    }

    /// The revision that the answer shows at least.
    pub(crate) fn revision(&self) -> Option<Revision> {
        self.head.header("claviger-revision").and_then(Revision::parse)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> Result<String, Error> {
        let malformed = |_| Error::Malformed("its text is not UTF-8".to_owned());
        std::str::from_utf8(self.body.bytes()).map(str::to_owned).map_err(malformed)
    }
}

/// The parser's own message may quote what it read, which may be a secret: only place and kind are told.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let told =
        |e: serde_json::Error| Error::Malformed(format!("{:?} error in its JSON, line {} column {}", e.classify(), e.line(), e.column()));
    serde_json::from_slice(bytes).map_err(told)
}

/// Whether another attempt does no harm and may help. What asks for approval or uses one up is done once.
fn may_repeat(request: &Request, approving: &Approving, error: &Error) -> bool {
    let never_reached = matches!(error, Error::Connect { .. });
    let turned_away = error.code() == Some("rate_limited");
    never_reached || turned_away || (request.repeatable && *approving == Approving::Plain && error.is_transient())
}

pub(crate) fn refusal(head: &Head, body: &Buffer) -> Error {
    let retry_after = head.header("retry-after").and_then(|v| v.parse().ok()).map(Duration::from_secs);
    let problem = serde_json::from_slice::<Problem>(body.bytes()).unwrap_or_else(|_| Problem {
        code: code_of(head.status).to_owned(),
        title: String::new(),
        status: head.status,
        detail: format!("the answer has status {} and no explanation; is CLAVIGER_ADDR the address of a Claviger server?", head.status),
        field: None,
        request_id: head.header("claviger-request-id").unwrap_or("unknown").to_owned(),
    });
    Error::Refused { problem: Box::new(problem), retry_after }
}

/// The code that a status stands for where something in between, such as a proxy, answered.
fn code_of(status: u16) -> &'static str {
    match status {
        401 => "unauthenticated",
        403 => "denied",
        404 => "not_found",
        409 | 412 => "conflict",
        413 => "too_large",
        429 => "rate_limited",
        502..=504 => "unavailable",
        400..=499 => "invalid",
        _ => "internal",
    }
}
