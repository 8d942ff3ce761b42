//! The Unix socket that programs read from.
//!
//! ```text
//! GET    /v1/secrets/ID        the primary version's value as it is
//! GET    /v1/secrets/ID?all    JSON: primary and active versions, as the server's native API has them
//! GET    /v1/status            how the agent fares; key names only for administrators
//! GET    /v1/registered        administrators: the registered keys
//! PUT    /v1/registered/ID     administrators: registers a key on the agent's own list
//! DELETE /v1/registered/ID     administrators: takes it off
//! ```
//!
//! Administrators are root, the agent's own user, and those of `node.admins`.
//!
//! # Guarantees
//! - Who may read is decided by the kernel's word on the peer (`peer`), for each read anew by the rules.
//! - No reader can hold up the others: each has a share of the connections, and what he does not take is cut off.

mod answer;
mod peer;
pub(crate) mod request;

pub use peer::Peer;

use crate::reads::Reads;
use crate::status::Status;
use crate::table::{Reading, Table};
use answer::{Out, Refusal};
use claviger_domain::KeyId;
use request::{Bad, MOST_HEAD, Request};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use zeroize::{Zeroize, Zeroizing};

/// Connections in all, and of one user.
const MOST_CONNECTIONS: usize = 4096;
const MOST_OF_USER: usize = 512;
/// How long a reader may take to take an answer.
const SLOWEST: Duration = Duration::from_secs(30);
/// Answers are sent when so much has gathered, even if more requests wait.
const ENOUGH: usize = 64 << 10;

/// What all connections share; they are on one thread.
struct Shared {
    table: Arc<Table>,
    status: Arc<Status>,
    admins: Vec<u32>,
    reads: RefCell<Reads>,
    open: Cell<usize>,
    open_of: RefCell<HashMap<u32, usize>>,
}

/// Takes the socket's place, unless another agent answers there.
///
/// # Errors
/// Another agent has it, or the system refuses.
pub fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let said = format!("another agent answers on {}: stop it, or give this one another socket in node.socket", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, said));
    }
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()));
    if is_socket {
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    // Everyone may connect; who may read what is decided for each secret.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves, on a thread with a runtime of its own, so that no disk, network or parser of the rest holds a read up.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(
    listener: std::os::unix::net::UnixListener,
    table: Arc<Table>,
    status: Arc<Status>,
    admins: Vec<u32>,
    reads: Reads,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || {
        let shared = Shared { table, status, admins, reads: RefCell::new(reads), open: Cell::default(), open_of: RefCell::default() };
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, accept(listener, Rc::new(shared)));
    };
    std::thread::Builder::new().name("serve".to_owned()).stack_size(256 << 10).spawn(serve).map(drop)
}

async fn accept(listener: std::os::unix::net::UnixListener, shared: Rc<Shared>) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the socket cannot be served"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Ok(peer) = Peer::of(&stream)
                    && let Some(place) = Place::take(&shared, peer.user)
                {
                    tokio::task::spawn_local(Connection { stream, peer, place }.run());
                }
            }
            // Out of descriptors, most likely: the ones that are open will end.
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// One of the connections that may be open; dropping it makes room.
struct Place {
    shared: Rc<Shared>,
    user: u32,
}

impl Place {
    fn take(shared: &Rc<Shared>, user: u32) -> Option<Self> {
        let mut open_of = shared.open_of.borrow_mut();
        let of_user = open_of.entry(user).or_default();
        if *of_user >= MOST_OF_USER || shared.open.get() >= MOST_CONNECTIONS {
            return None;
        }
        *of_user += 1;
        shared.open.set(shared.open.get() + 1);
        Some(Self { shared: shared.clone(), user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open_of = self.shared.open_of.borrow_mut();
        if let Some(of_user) = open_of.get_mut(&self.user) {
            *of_user -= 1;
            if *of_user == 0 {
                open_of.remove(&self.user);
            }
        }
        self.shared.open.set(self.shared.open.get() - 1);
    }
}

struct Connection {
    stream: UnixStream,
    peer: Peer,
    place: Place,
}

/// What follows the answers that were made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Read,
    More,
    Close,
}

impl Connection {
    async fn run(mut self) {
        let mut input = Vec::with_capacity(1024);
        let mut out: Out = Zeroizing::new(Vec::with_capacity(1024));
        loop {
            let next = self.answer_all(&mut input, &mut out).await;
            let has_sent = tokio::time::timeout(SLOWEST, self.stream.write_all(&out)).await;
            // Wiped whole, and a large buffer is not kept for an idle connection.
            out.zeroize();
            out.shrink_to(4096);
            if !matches!(has_sent, Ok(Ok(()))) || next == Next::Close {
                return;
            }
            if next == Next::Read && !matches!(self.stream.read_buf(&mut input).await, Ok(1..)) {
                return;
            }
        }
    }

    /// Answers the whole requests in `input`.
    async fn answer_all(&self, input: &mut Vec<u8>, out: &mut Out) -> Next {
        let mut taken = 0;
        let next = loop {
            let (request, length) = match request::parse(&input[taken..]) {
                Ok(Some(parsed)) => parsed,
                Ok(None) => break Next::Read,
                Err(bad) => {
                    answer::refusal(out, &malformed(bad));
                    break Next::Close;
                }
            };
            self.answer(&request, out).await;
            let keeps_alive = request.keeps_alive;
            taken += length;
            match () {
                () if !keeps_alive => break Next::Close,
                () if out.len() >= ENOUGH => break Next::More,
                () => {}
            }
        };
        input.drain(..taken);
        input.shrink_to(MOST_HEAD);
        next
    }

    async fn answer(&self, request: &Request<'_>, out: &mut Out) {
        let shared = &self.place.shared;
        let path = request.path;
        if let Some(id) = path.strip_prefix("/v1/secrets/") {
            return self.read(id, request, out);
        }
        match (request.method, path) {
            ("GET", "/v1/status") if self.is_admin() => answer::json(out, 200, &shared.status.report(true)),
            ("GET", "/v1/status") => answer::json(out, 200, &*shared.status.public()),
            (_, "/v1/status" | "/v1/registered") if request.method != "GET" => answer::refusal(out, &wrong_method("GET")),
            ("GET", "/v1/registered") if self.is_admin() => {
                let ids: Vec<_> = shared.table.registered().iter().map(KeyId::to_string).collect();
                answer::json(out, 200, &ids);
            }
            (method, _) => match path.strip_prefix("/v1/registered/") {
                Some(id) if self.is_admin() => self.register(method, id, out).await,
                Some(_) => answer::refusal(out, &not_admin()),
                None if path == "/v1/registered" => answer::refusal(out, &not_admin()),
                None => answer::refusal(out, &Refusal(404, "not_found", "there is no such path; secrets are at /v1/secrets/ID".to_owned())),
            },
        }
    }

    fn is_admin(&self) -> bool {
        let me = rustix::process::geteuid().as_raw();
        self.peer.user == 0 || self.peer.user == me || self.place.shared.admins.contains(&self.peer.user)
    }

    fn read(&self, id: &str, request: &Request<'_>, out: &mut Out) {
        let table = &self.place.shared.table;
        if request.method != "GET" {
            return answer::refusal(out, &wrong_method("GET"));
        }
        let reading = table.read(id, self.peer.user, &self.peer.groups);
        let verdict = match &reading {
            Reading::Here { held, now, .. } => match held.entry.primary_at(*now) {
                Some(primary) => Ok((held, now, primary)),
                None if request.query == "all" && held.entry.live_at(*now).next().is_some() => {
                    self.note(id, "given", None);
                    return answer::versions(out, held, *now, offline(&reading));
                }
                None => Err(("expired", Refusal(503, "expired", format!("the primary version of `{id}` has expired; rotate the secret")))),
            },
            Reading::TooOld(age) => Err(("too_old", too_old(id, *age, table.max_offline()))),
            Reading::ClockIsWrong => Err(("clock", clock_is_wrong())),
            Reading::NotHere => Err(("not_found", Refusal::not_found())),
        };
        match verdict {
            Ok((held, now, primary)) => {
                self.note(id, "given", Some(primary.id));
                match request.query {
                    "all" => answer::versions(out, held, *now, offline(&reading)),
                    _ => answer::value(out, held, primary, offline(&reading)),
                }
            }
            Err((outcome, refusal)) => {
                self.note(id, outcome, None);
                answer::refusal(out, &refusal);
            }
        }
    }

    fn note(&self, id: &str, outcome: &'static str, version: Option<u64>) {
        self.place.shared.table.count(outcome == "given");
        self.place.shared.reads.borrow_mut().note(&self.peer, id, outcome, version);
    }

    async fn register(&self, method: &str, id: &str, out: &mut Out) {
        let wanted = match method {
            "PUT" => true,
            "DELETE" => false,
            _ => return answer::refusal(out, &wrong_method("PUT and DELETE")),
        };
        let id = match KeyId::parse(id) {
            Ok(id) => id,
            Err(error) => return answer::refusal(out, &Refusal(400, "invalid", error.to_string())),
        };
        let table = &self.place.shared.table;
        let saved = table.change_own(&id, wanted);
        match saved.await {
            Ok(Ok(())) => answer::json(out, 200, &serde_json::json!({ "id": id.to_string(), "registered_by": table.registered_by(&id) })),
            Ok(Err(why)) => answer::refusal(out, &Refusal(503, "unavailable", format!("the list could not be written: {why}"))),
            Err(_) => answer::refusal(out, &Refusal(503, "unavailable", "the agent is stopping".to_owned())),
        }
    }
}

fn offline(reading: &Reading) -> Option<Duration> {
    match reading {
        Reading::Here { offline, .. } => *offline,
        _ => None,
    }
}

fn malformed(bad: Bad) -> Refusal {
    match bad {
        Bad::Syntax => Refusal(400, "invalid", "this is no HTTP/1.1 request".to_owned()),
        Bad::TooLong => Refusal(431, "too_large", format!("a request's head has at most {MOST_HEAD} bytes")),
        Bad::Body => Refusal(413, "too_large", "no request here has a body".to_owned()),
    }
}

fn wrong_method(allowed: &str) -> Refusal {
    Refusal(405, "method_not_allowed", format!("this path takes {allowed}"))
}

fn not_admin() -> Refusal {
    Refusal(403, "denied", "only root, the agent's own user and those of node.admins may see and change what is registered".to_owned())
}

fn too_old(id: &str, age: Duration, limit: Duration) -> Refusal {
    let since = if age == Duration::MAX {
        "was never confirmed by the server".to_owned()
    } else {
        format!("was last confirmed by the server {} s ago", age.as_secs())
    };
    Refusal(
        503,
        "offline_too_long",
        format!(
            "the copy of `{id}` {since}, and is given out for {} s (node.max_offline); `claviger node status` says why",
            limit.as_secs()
        ),
    )
}

fn clock_is_wrong() -> Refusal {
    let said = "this machine's clock shows a time before the last contact with the server, so that nobody can say how old the copy is: set the clock and restart the agent, or bring the server back";
    Refusal(503, "clock_is_wrong", said.to_owned())
}
