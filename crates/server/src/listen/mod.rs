//! Sockets, threads and TLS around [`crate::http`]: binding, accepting, handshakes, limits on connections, and the end.
//!
//! Every worker is a thread with a single-threaded runtime and sockets of its own; the kernel spreads connections over
//! them (SO_REUSEPORT), and a connection stays on its thread. What a connection says is not looked at here.

mod admission;
mod rinse;
mod stack;
mod tls;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::http::{Connection, Front, Limits, Service, Shutdown, TlsFacts, serve_http1, serve_http2};
use admission::{Admission, Pass};
use rinse::Rinsed;

pub use tls::{Identity, Protocols, TlsError, TlsHandle};

/// Connections that the kernel holds ready for each socket.
const BACKLOG: i32 = 4096;
/// How long accepting rests after an error such as too many open files, which would else be met again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a worker that is ending looks whether its connections have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// Where and how to listen.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// The name by which requests, logs and metrics tell where they came in.
    pub name: Arc<str>,
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Whether connections are encrypted.
    pub security: Security,
}

/// Whether connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// TLS.
    Tls,
    /// Not at all: for addresses that do not leave the machine, and for metrics.
    Plain,
}

/// A bound address with a socket for each worker.
#[derive(Debug)]
pub struct Listener {
    name: Arc<str>,
    security: Security,
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The operator's address cannot be had.
    #[error("listening on {address} for `{name}`: {source}")]
    Bind {
        /// The listener.
        name: Arc<str>,
        /// Its address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A listener needs TLS and the server has no certificate.
    #[error("listener `{0}` needs a server certificate and key")]
    NoTls(Arc<str>),
    /// The system refused a thread or a runtime.
    #[error("starting a worker thread: {0}")]
    Worker(#[source] io::Error),
}

impl Listener {
    /// Binds an address for a number of workers.
    ///
    /// # Errors
    ///
    /// [`ListenError::Bind`], also when another process listens there and would share its connections.
    pub fn bind(config: &ListenerConfig, workers: usize) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Bind { name: config.name.clone(), address: config.address, source };
        let mut address = config.address;
        if address.port() != 0 {
            // With SO_REUSEPORT a second server on the same address would go unnoticed and take half of the
            // connections; without it the system refuses.
            socket(address, Sharing::Alone).map_err(failed)?;
        }
        let mut sockets = Vec::new();
        for _ in 0..workers.max(1) {
            let socket = socket(address, Sharing::AmongWorkers).map_err(failed)?;
            address = socket.local_addr().map_err(failed)?;
            sockets.push(socket);
        }
        Ok(Self { name: config.name.clone(), security: config.security, address, sockets })
    }

    /// The address it is bound to, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    AmongWorkers,
}

fn socket(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == Sharing::AmongWorkers)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A running server.
#[derive(Debug)]
pub struct Serving {
    threads: Vec<JoinHandle<()>>,
    admission: Arc<Admission>,
}

impl Serving {
    /// Open connections, handshakes included.
    pub fn connections(&self) -> usize {
        self.admission.open()
    }

    /// Blocks until all workers have ended: after a shutdown, at most the drain time later.
    pub fn join(self) {
        for thread in self.threads {
            // A worker that panicked has ended too, and has said so on its own.
            let _ = thread.join();
        }
    }
}

/// Serves the listeners' connections, on one thread for each of their sockets, until `shutdown`.
///
/// # Guarantees
///
/// When this returns, connections are accepted. After `shutdown` starts: nothing more is accepted, idle connections
/// are closed, requests in flight are answered with `Connection: close` (HTTP/2: GOAWAY), streams end, and what is
/// left after [`Limits::drain_time`] is dropped.
///
/// # Errors
///
/// [`ListenError::NoTls`] and [`ListenError::Worker`]; nothing is served then, and `shutdown` may have been started.
pub fn serve<S: Service>(
    listeners: Vec<Listener>,
    tls: Option<TlsHandle>,
    service: Arc<S>,
    limits: Limits,
    shutdown: Shutdown,
) -> Result<Serving, ListenError> {
    let admission = Admission::new(limits.connections, limits.connections_per_address);
    let signal = shutdown.clone();
    let front = Front::new(service, limits, shutdown);
    let mut workers: Vec<Worker<S>> = Vec::new();
    for listener in listeners {
        let tls = match listener.security {
            Security::Plain => None,
            Security::Tls => Some(tls.clone().ok_or_else(|| ListenError::NoTls(listener.name.clone()))?),
        };
        for (index, socket) in listener.sockets.into_iter().enumerate() {
            if workers.len() == index {
                workers.push(Worker::new(front.clone(), admission.clone())?);
            }
            workers[index].listen(socket, listener.name.clone(), tls.clone())?;
        }
    }
    let mut threads = Vec::new();
    for (index, worker) in workers.into_iter().enumerate() {
        let builder = std::thread::Builder::new().name(format!("http-{index}"));
        match builder.spawn(move || worker.run()) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                // Those that already run must not serve alone.
                signal.start();
                return Err(ListenError::Worker(error));
            }
        }
    }
    Ok(Serving { threads, admission })
}

/// One thread's runtime and listeners, before it runs.
struct Worker<S> {
    runtime: Runtime,
    front: Arc<Front<S>>,
    admission: Arc<Admission>,
    open: Arc<AtomicUsize>,
}

impl<S: Service> Worker<S> {
    fn new(front: Arc<Front<S>>, admission: Arc<Admission>) -> Result<Self, ListenError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ListenError::Worker)?;
        Ok(Self { runtime, front, admission, open: Arc::default() })
    }

    fn listen(&self, socket: TcpListener, name: Arc<str>, tls: Option<TlsHandle>) -> Result<(), ListenError> {
        let _entered = self.runtime.enter();
        let socket = tokio::net::TcpListener::from_std(socket).map_err(ListenError::Worker)?;
        let door = Door { name, tls, front: self.front.clone(), admission: self.admission.clone(), open: self.open.clone() };
        self.runtime.spawn(door.accept(socket));
        Ok(())
    }

    fn run(self) {
        let Self { runtime, front, open, .. } = self;
        runtime.block_on(async {
            front.service.worker_started();
            tokio::spawn(stack::rinse());
            front.shutdown.wait().await;
            let deadline = Instant::now() + front.limits.drain_time;
            while open.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
                sleep(DRAIN_LOOK).await;
            }
        });
        // Dropping the runtime drops what has not ended in time.
    }
}

/// What one accepting socket needs.
struct Door<S> {
    name: Arc<str>,
    tls: Option<TlsHandle>,
    front: Arc<Front<S>>,
    admission: Arc<Admission>,
    open: Arc<AtomicUsize>,
}

impl<S: Service> Door<S> {
    async fn accept(self, socket: tokio::net::TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = self.front.shutdown.wait() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                // The client was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(listener = %self.name, %error, "accepting a connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let Some(pass) = self.admission.admit(peer.ip()) else {
            self.front.service.turned_away(peer);
            return;
        };
        // Only a connection that is already broken refuses this; that shows soon enough.
        let _ = stream.set_nodelay(true);
        let open = Open::new(&self.open, pass);
        let (name, tls, front) = (self.name.clone(), self.tls.clone(), self.front.clone());
        stack::overwrite();
        tokio::spawn(async move {
            match tls {
                None => serve_http1(stream, open.connection(peer, name, None), front).await,
                // Boxed, so that no connection carries the space for its handshake or for the other protocol.
                Some(tls) => {
                    let stream = Box::pin(stack::clean(handshake(stream, peer, &tls, &front))).await;
                    if let Some(stream) = stream {
                        serve_tls(stream, peer, name, front, open).await;
                    }
                }
            }
        });
    }
}

/// Counts a connection for its worker and holds its pass.
struct Open {
    count: Arc<AtomicUsize>,
    _pass: Pass,
}

impl Open {
    fn new(count: &Arc<AtomicUsize>, pass: Pass) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self { count: count.clone(), _pass: pass }
    }

    /// The connection that this counts, for as long as anybody knows of it: a request that goes on after its client has
    /// left is waited for when the server ends, and keeps another connection out.
    fn connection(self, peer: SocketAddr, listener: Arc<str>, tls: Option<TlsFacts>) -> Arc<Connection> {
        let connection = Connection::new(peer, listener, tls);
        connection.keep(Arc::new(self));
        connection
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn handshake<S: Service>(
    stream: TcpStream,
    peer: SocketAddr,
    tls: &TlsHandle,
    front: &Front<S>,
) -> Option<Box<TlsStream<Rinsed<TcpStream>>>> {
    let accepting = timeout(front.limits.handshake_time, TlsAcceptor::from(tls.current()).accept(Rinsed::new(stream)));
    let error = tokio::select! {
        accepted = accepting => match accepted {
            Ok(Ok(stream)) => return Some(Box::new(stream)),
            Ok(Err(error)) => error,
            Err(_) => io::Error::from(io::ErrorKind::TimedOut),
        },
        () = front.shutdown.wait() => return None,
    };
    front.service.handshake_failed(peer, &error);
    None
}

async fn serve_tls<S: Service>(
    stream: Box<TlsStream<Rinsed<TcpStream>>>,
    peer: SocketAddr,
    name: Arc<str>,
    front: Arc<Front<S>>,
    open: Open,
) {
    let facts = tls::facts(stream.get_ref().1);
    stack::overwrite();
    let is_http2 = facts.alpn.as_deref() == Some(b"h2");
    let connection = open.connection(peer, name, Some(facts));
    if is_http2 {
        Box::pin(serve_http2(stream, connection, front)).await;
    } else {
        serve_http1(stream, connection, front).await;
    }
}

#[cfg(test)]
mod tests;
