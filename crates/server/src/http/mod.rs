//! The transport: a small, strict HTTP/1.1 server on `httparse`, and HTTP/2 through hyper, behind one request type.
//!
//! HTTP/1 is ours because two things real Knox clients do cannot pass `http::Uri`: raw quotes in the query, and polls
//! with a megabyte of request line (Knox contract §1, traps 1 and 2). Requests are framed exactly as hyper 1.12 frames
//! them, or refused; they are never framed differently, and [`fuzz`] holds the two against each other.
//!
//! Nothing here knows a route, a caller or a key: a [`Service`] is given whole requests and gives back responses.
//!
//! # What is stricter than hyper (refused with `Connection: close`)
//!
//! - `Transfer-Encoding` other than exactly one `chunked`, and any `Transfer-Encoding` beside a `Content-Length`;
//! - HTTP/1.1 without exactly one `Host`, as Go's server does (hyper passes both);
//! - `CONNECT`, authority-form targets, `*` for anything but `OPTIONS`;
//! - trailers with a bare LF.
//!
//! # What is looser than hyper
//!
//! - the target: every byte `httparse` takes (0x21..=0x7e and valid UTF-8 above), kept as it came, of any length within
//!   the limit of the head.

mod budget;
mod call;
mod connection;
mod date;
mod framing;
#[doc(hidden)]
pub mod fuzz;
mod h1;
mod h2;
mod head;
mod limits;
mod refusal;
mod response;
mod shutdown;
mod timer;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

pub use budget::Budget;
pub(crate) use connection::block;
pub use connection::{Connection, TlsFacts};
pub use h1::serve as serve_http1;
pub use h2::serve as serve_http2;
pub use head::{Head, Headers, Method, Version};
pub use limits::Limits;
pub use refusal::Refusal;
pub use response::{BodyStream, HeaderText, Response, ResponseBody};
pub use shutdown::Shutdown;

/// One whole request.
#[derive(Debug)]
pub struct Request {
    /// Request line and header fields.
    pub head: Head,
    /// The body, read to its end before the service is called.
    pub body: RequestBody,
    /// The connection it came on.
    pub connection: Arc<Connection>,
}

/// A request's body.
pub enum RequestBody {
    /// All of it, with transfer coding and trailers removed.
    Complete(Bytes),
    /// It was longer than [`Service::body_limit`] or [`Service::may_send`] allows; none of it is kept.
    TooLarge,
}

impl std::fmt::Debug for RequestBody {
    /// Only the length: bodies hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Complete(bytes) => write!(f, "Complete({} bytes)", bytes.len()),
            Self::TooLarge => f.write_str("TooLarge"),
        }
    }
}

/// What answers requests.
///
/// # Guarantees
///
/// A call is never dropped because the client hung up or reset its stream ▲; it ends by itself or with the process (after
/// the drain time of a shutdown). The body of an answer is dropped then.
///
/// # Assumptions
///
/// On HTTP/1 the future of [`Service::call`] lies inside each connection's task, so its size is paid once per connection.
pub trait Service: Send + Sync + 'static {
    /// The most bytes of body this request may have; asked once, before the body is read.
    fn body_limit(&self, head: &Head) -> usize;

    /// Whether the sender of this head is known to be somebody, so that more than [`Limits::unproven_body`] bytes of body
    /// are kept for him. Asked before such a body is read, and only then; by itself everybody is somebody.
    fn may_send(&self, head: &Head, connection: &Connection) -> impl Future<Output = bool> + Send {
        let _ = (head, connection);
        std::future::ready(true)
    }

    /// Answers one request.
    fn call(&self, request: Request) -> impl Future<Output = Response> + Send;

    /// Builds the answer to what the front refused before there was a request, so that it can be counted and audited.
    /// The front closes the connection (HTTP/1) afterwards. [`Refusal::answer`] is the plain one.
    fn refused(&self, connection: &Connection, why: Refusal) -> Response;

    /// Called once inside each worker's single-threaded runtime before it serves; by itself it does nothing.
    fn worker_started(&self) {}

    /// Hears of a TLS handshake that failed or took too long; by itself it does nothing.
    fn handshake_failed(&self, peer: SocketAddr, error: &io::Error) {
        let _ = (peer, error);
    }

    /// Hears of a connection that was closed because too many are open; by itself it does nothing.
    fn turned_away(&self, peer: SocketAddr) {
        let _ = peer;
    }
}

/// All that the connections of a server share.
pub struct Front<S> {
    /// Answers the requests.
    pub service: Arc<S>,
    /// Sizes and times.
    pub limits: Limits,
    /// Bytes that heads and bodies may hold together.
    pub budget: Arc<Budget>,
    /// Tells connections to end.
    pub shutdown: Shutdown,
}

impl<S: Service> Front<S> {
    /// A front with the budget that `limits` names.
    pub fn new(service: Arc<S>, limits: Limits, shutdown: Shutdown) -> Arc<Self> {
        let budget = Budget::new(limits.buffered_bytes);
        Arc::new(Self { service, limits, budget, shutdown })
    }

    /// The most bytes of body that are kept of this client, who announced so many, or not how many.
    async fn body_limit(&self, head: &Head, announced: Option<u64>, connection: &Connection) -> usize {
        let (limit, unproven) = (self.service.body_limit(head), self.limits.unproven_body);
        let is_small = announced.is_some_and(|length| length <= unproven as u64);
        if is_small || limit <= unproven || Box::pin(self.service.may_send(head, connection)).await { limit } else { unproven }
    }
}
