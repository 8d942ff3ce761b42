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
//! - No reader can hold up the others: each has a share of the connections and all those whom no rule names have a small one together, what he does not take
//!   is cut off, and so is a connection on which nothing comes.

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
use tokio::time::Instant;
use zeroize::{Zeroize, Zeroizing};

/// Connections in all, of one user, and of all users together whom no rule names and who administer nothing: less where the process may have fewer descriptors.
const MOST_CONNECTIONS: usize = 4096;
const MOST_OF_USER: usize = 512;
const MOST_OF_STRANGERS: usize = 256;
/// More than all, for administrators: somebody must be able to ask what is the matter.
const SPARE: usize = 8;
/// Descriptors of the rest: cache, logs, the connection to the server, Knox's folder.
const OTHER_FILES: usize = 96;
/// How long a connection may be idle, and how long a request may take to come.
const IDLE: Duration = Duration::from_secs(120);
const SLOWEST_HEAD: Duration = Duration::from_secs(10);
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
    room: Room,
    open: Cell<usize>,
    strangers: Cell<usize>,
    open_of: RefCell<HashMap<u32, usize>>,
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    all: usize,
    of_user: usize,
    of_strangers: usize,
}

impl Room {
    /// What so many descriptors allow.
    fn within(files: usize) -> Self {
        let all = files.saturating_sub(OTHER_FILES + SPARE).clamp(SPARE, MOST_CONNECTIONS);
        Self { all, of_user: (all / 4).clamp(1, MOST_OF_USER), of_strangers: (all / 8).clamp(1, MOST_OF_STRANGERS) }
    }

    /// What this process may have, which is first raised to what it may raise it to.
    fn of_process() -> Self {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        // Where it is not raised it stays as it was.
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        let files = if raised.is_ok() { maximum } else { current };
        Self::within(files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX)))
    }
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
        let shared = Rc::new(Shared::new(table, status, admins, reads, Room::of_process()));
        let local = tokio::task::LocalSet::new();
        local.spawn_local(sum_reads(shared.clone()));
        local.block_on(&runtime, accept(listener, shared));
    };
    std::thread::Builder::new().name("serve".to_owned()).stack_size(256 << 10).spawn(serve).map(drop)
}

impl Shared {
    fn new(table: Arc<Table>, status: Arc<Status>, admins: Vec<u32>, reads: Reads, room: Room) -> Self {
        let reads = RefCell::new(reads);
        Self { table, status, admins, reads, room, open: Cell::default(), strangers: Cell::default(), open_of: RefCell::default() }
    }

    fn is_admin(&self, user: u32) -> bool {
        let me = rustix::process::geteuid().as_raw();
        user == 0 || user == me || self.admins.contains(&user)
    }
}

async fn sum_reads(shared: Rc<Shared>) {
    loop {
        tokio::time::sleep(crate::reads::SUM).await;
        shared.reads.borrow_mut().sum();
    }
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
                    && let Some(place) = Place::take(&shared, &peer)
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
    is_stranger: bool,
}

impl Place {
    fn take(shared: &Rc<Shared>, peer: &Peer) -> Option<Self> {
        let Shared { room, open, strangers, .. } = &**shared;
        let (user, is_admin) = (peer.user, shared.is_admin(peer.user));
        let is_stranger = !is_admin && !shared.table.names(user, &peer.groups);
        let spare = if is_admin { SPARE } else { 0 };
        let mut open_of = shared.open_of.borrow_mut();
        let of_user = open_of.get(&user).copied().unwrap_or(0);
        let is_full = open.get() >= room.all + spare || of_user >= room.of_user || (is_stranger && strangers.get() >= room.of_strangers);
        if is_full {
            return None;
        }
        open_of.insert(user, of_user + 1);
        open.set(open.get() + 1);
        strangers.set(strangers.get() + usize::from(is_stranger));
        Some(Self { shared: shared.clone(), user, is_stranger })
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
        self.shared.strangers.set(self.shared.strangers.get() - usize::from(self.is_stranger));
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
        let mut head_ends = None;
        loop {
            let next = self.answer_all(&mut input, &mut out).await;
            let has_sent = tokio::time::timeout(SLOWEST, self.stream.write_all(&out)).await;
            // Wiped whole, and a large buffer is not kept for an idle connection.
            out.zeroize();
            out.shrink_to(4096);
            if !matches!(has_sent, Ok(Ok(()))) || next == Next::Close {
                return;
            }
            if next == Next::Read && !self.has_read(&mut input, &mut head_ends).await {
                return;
            }
        }
    }

    /// Reads more; false when nothing comes any more, or too slowly.
    async fn has_read(&mut self, input: &mut Vec<u8>, head_ends: &mut Option<Instant>) -> bool {
        let now = Instant::now();
        let limit = match input.is_empty() {
            true => {
                *head_ends = None;
                now + IDLE
            }
            // A head that comes byte by byte has no more time for that.
            false => *head_ends.get_or_insert(now + SLOWEST_HEAD),
        };
        matches!(tokio::time::timeout_at(limit, self.stream.read_buf(input)).await, Ok(Ok(1..)))
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
        self.place.shared.is_admin(self.peer.user)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::{Pattern, Policy, Rule};
    use crate::root::{RootKind, RootReport};
    use crate::times::tests::TestTimes;

    fn shared(room: Room) -> (Rc<Shared>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let rule = Rule { pattern: Pattern::parse("*").unwrap(), users: vec![10, 11, 12, 13, 14], groups: vec![5] };
        let table = Arc::new(Table::new(Policy::new(vec![rule]), Duration::ZERO, Arc::new(TestTimes::new())));
        let status = Arc::new(Status::new(table.clone(), RootReport { kind: RootKind::File, said: String::new() }, String::new()));
        let reads = Reads::open(&dir.path().join("reads.log"), table.clone()).unwrap();
        (Rc::new(Shared::new(table, status, vec![77], reads, room)), dir)
    }

    fn peer(user: u32, groups: &[u32]) -> Peer {
        Peer { user, groups: groups.to_vec(), process: 0 }
    }

    #[test]
    fn nobody_takes_more_connections_than_his_share_and_administrators_always_get_one() {
        let (shared, _dir) = shared(Room { all: 40, of_user: 10, of_strangers: 5 });
        let take = |user, groups: &[u32], most: usize| -> Vec<Place> {
            (0..most).map_while(|_| Place::take(&shared, &peer(user, groups))).collect()
        };
        // Strangers share one room, however many users they are.
        let strangers: Vec<Place> = (1000..1100).filter_map(|user| Place::take(&shared, &peer(user, &[6]))).collect();
        assert_eq!(strangers.len(), 5);
        let readers: Vec<Vec<Place>> = [10, 11, 12].map(|user| take(user, &[], 99)).into();
        assert_eq!(readers.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 10]);
        let of_group = take(2000, &[5], 99);
        assert_eq!(of_group.len(), 5, "as many as are left");
        assert!(Place::take(&shared, &peer(14, &[])).is_none());
        let administrators = take(77, &[], 99);
        assert_eq!(administrators.len(), SPARE);
        drop((strangers, readers, of_group, administrators));
        assert_eq!((shared.open.get(), shared.strangers.get(), shared.open_of.borrow().len()), (0, 0, 0));
        assert_eq!(take(10, &[], 99).len(), 10);
    }

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        for files in [0, 64, 256, 1024, 8192, usize::MAX] {
            let Room { all, of_user, of_strangers } = Room::within(files);
            assert!(all + SPARE + OTHER_FILES <= files.max(2 * SPARE + OTHER_FILES) && of_user < all && of_strangers < all, "{files}");
        }
        assert_eq!(Room::within(8192), Room { all: 4096, of_user: 512, of_strangers: 256 });
    }

    /// Time stands still but for waiting: what ends here ends by its limit.
    #[test]
    fn a_connection_on_which_nothing_comes_or_a_request_only_slowly_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (shared, _dir) = shared(Room::within(8192));
        tokio::task::LocalSet::new().block_on(&runtime, async {
            for (sent, pace, limit) in [("", 0, IDLE), ("GET /v1/sta", 0, SLOWEST_HEAD), ("GET /v1/status HTTP/1.1\r\n", 1, SLOWEST_HEAD)] {
                let (stream, mut client) = UnixStream::pair().unwrap();
                let place = Place::take(&shared, &peer(10, &[])).unwrap();
                let begun = Instant::now();
                let served = tokio::task::spawn_local(Connection { stream, peer: peer(10, &[]), place }.run());
                client.write_all(sent.as_bytes()).await.unwrap();
                while pace > 0 && client.write_all(b"a").await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(pace)).await;
                }
                served.await.unwrap();
                let took = begun.elapsed();
                assert!(took >= limit && took < limit + Duration::from_secs(3), "{sent:?}: {took:?}");
            }
            assert_eq!(shared.open.get(), 0);
        });
    }
}
