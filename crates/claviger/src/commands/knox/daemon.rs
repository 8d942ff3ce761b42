//! `knox daemon`: keeps registered keys in the cache folder (contract knox §12), by Knox's own API.
//!
//! It asks at its start, whenever the registration list is touched, and every ten minutes; and, where the server has the native API too and this machine proves
//! itself by a certificate, when the stream of changes there tells of something. The stream is a reason to ask and nothing else: what lands in the folder, and what
//! goes from it, is what `/v0` says, as with Knox's server, which has no stream. This is for the service files of a Knox that is being replaced, and for Knox
//! servers; `claviger node` does more.
//!
//! # Guarantees
//! - A cached copy is only removed when its key is no longer registered, by the rule of `knox_folder::Unregistering`. An outage, a refusal and
//!   even a deleted key leave it, as in Knox: `/v0` cannot tell a deleted key from one that is hidden.
//! - No network is waited for under the list's lock.

use super::flags::Given;
use super::settings::{Online, Site};
use super::{Command, Trouble, log, tink};
use claviger_client::{Client, Event, Watch, WatchRequest};
use claviger_crypto::tink::family_of_id;
use claviger_domain::{KeyId, SecretBytes};
use claviger_node::knox_folder::{CachedKey, KnoxFolder, Unregistering};
use rustix::fs::inotify;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// Between two updates when nothing happens, as in Knox.
const REFRESH: Duration = Duration::from_secs(600);
/// Up to this much is added, so that a fleet that was started together parts; Knox's ten milliseconds would not do it.
const JITTER: Duration = Duration::from_secs(30);

/// Keys that a server follows in one stream.
const MOST_FOLLOWED: usize = 10_000;

pub(super) const COMMAND: Command = Command {
    usage: "daemon",
    short: "keep registered keys in the cache",
    long: "\
Keeps the registered keys in the cache folder up to date, until it is ended by SIGTERM or SIGINT. It asks the server at its start,
whenever the list of registered keys is touched, and every ten minutes; with a certificate it also hears from a Claviger server when
something has changed.

'claviger node' keeps the same folder, and takes off what is revoked or deleted.

See also: knox register, knox unregister",
    flags: &[],
    run: Some(daemon),
};

/// What the daemon works with.
struct Daemon {
    folder: KnoxFolder,
    online: Online,
    rule: Unregistering,
    begun: Instant,
    registered: Vec<KeyId>,
    pushes: Pushes,
}

fn daemon(site: &Site, _: &Given) -> Result<(), Trouble> {
    let path = site.folder().ok_or("there is no cache to keep (KNOX_NO_CACHE is set)")?;
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let folder = KnoxFolder::keep(&path, site.modes()?).map_err(|e| format!("Failed to initialize {}: {e}", path.display()))?;
    let online = site.online(Some(&machine)).map_err(|e| e.to_string())?;
    let pushes = Pushes { client: site.native(), watch: None, followed: Vec::new(), not_before: Instant::now() };
    let (rule, registered) = (Unregistering::default(), Vec::new());
    let mut daemon = Daemon { folder, online, rule, begun: Instant::now(), registered, pushes };
    daemon.run()
}

impl Daemon {
    fn run(&mut self) -> Result<(), Trouble> {
        let list = Watched::start().map_err(|e| format!("Unable to watch files: {e}"))?;
        let mut ends = self.online.wait(async |_| Ends::new()).map_err(|e| format!("Unable to hear signals: {e}"))?;
        loop {
            // Before the list is read, or a change between would be missed; again each time, since the file may be another one now.
            if let Err(error) = list.watch(&self.folder.list_path()) {
                log(&format!("Unable to watch the register file: {error}"));
            }
            log("Daemon updating all registered keys");
            let begun = Instant::now();
            let look_again = self.update().unwrap_or_else(|why| {
                log(&format!("Failed to update keys: {why}"));
                None
            });
            log(&format!("Update of keys completed after {} ms", begun.elapsed().as_millis()));
            let until = look_again.map_or_else(|| REFRESH + jitter(), |at| at.saturating_sub(self.begun.elapsed()));
            let Self { online, registered, pushes, .. } = self;
            if online.wait(async |_| wait(&list, &mut ends, pushes, registered, until).await) {
                return Ok(());
            }
        }
    }

    /// One round; when to look again though nothing happens.
    fn update(&mut self) -> Result<Option<Duration>, String> {
        let listed = self.folder.lock().and_then(|list| list.read()).map_err(|e| e.to_string())?;
        let cached = self.folder.cached_ids().map_err(|e| e.to_string())?;
        let verdict = self.rule.look(&listed, &cached, self.begun.elapsed());
        for id in &verdict.unregistered {
            match self.folder.remove_key(id) {
                Ok(_) => log(&format!("Removed key {id}, which is not registered")),
                Err(error) => log(&format!("error removing key {id}: {error}")),
            }
        }
        verdict.doubt.iter().for_each(|doubt| log(doubt.said()));
        self.registered.clone_from(&listed.ids);
        if !listed.ids.is_empty() {
            self.refresh(&listed.ids)?;
        }
        Ok(verdict.look_again)
    }

    /// Asks which registered keys differ from their cached copies, and fetches those.
    fn refresh(&self, registered: &[KeyId]) -> Result<(), String> {
        let hash = |id: &KeyId| self.folder.read_key(id).ok().flatten().map(|key| key.hash).unwrap_or_default();
        let hashes: Vec<String> = registered.iter().map(hash).collect();
        let polled: Vec<_> = registered.iter().map(KeyId::as_str).zip(hashes.iter().map(String::as_str)).collect();
        let changed = self.online.wait(async |knox| knox.keys(&polled).await).map_err(|e| e.to_string())?;
        for id in registered.iter().filter(|id| changed.iter().any(|changed| changed == id.as_str())) {
            match self.fetch(id) {
                Ok(()) => log(&format!("Updated key {id}")),
                Err(why) => log(&format!("error processing key: Error getting key {id}: {why}")),
            }
        }
        let is_missing = |(id, hash): &(&KeyId, &String)| hash.is_empty() && !changed.iter().any(|changed| changed == id.as_str());
        let missing: Vec<_> = registered.iter().zip(&hashes).filter(is_missing).map(|(id, _)| id.as_str()).collect();
        if !missing.is_empty() {
            log(&format!("Keys not found on server: [{}]", missing.join(" ")));
        }
        Ok(())
    }

    fn fetch(&self, id: &KeyId) -> Result<(), String> {
        let json = self.online.wait(async |knox| knox.key(id.as_str(), None).await).map_err(|e| e.to_string())?;
        let mut key = CachedKey::parse(&json).map_err(|_| "invalid key content for the remote key")?;
        if key.id != id.as_str() {
            return Err("the server answered with another key".to_owned());
        }
        key.tink_keyset = keyset(&key)?;
        self.folder.write_key(id, &key.to_json(None)).map_err(|e| e.to_string())
    }
}

/// The combined keyset of a Tink key. One whose data is no keyset is not cached, as in Knox.
fn keyset(key: &CachedKey) -> Result<Option<SecretBytes>, String> {
    match family_of_id(&key.id) {
        None => Ok(None),
        Some(_) => match tink::merged(key) {
            Ok(keyset) => Ok(Some(keyset.encode())),
            Err(Trouble::Said(why)) => Err(why),
            Err(Trouble::Output(_)) => Err("its keyset cannot be merged".to_owned()),
        },
    }
}

/// Tells of changes of the registration list. A thread waits for them: it holds nothing and ends with the process.
struct Watched {
    inotify: Arc<OwnedFd>,
    touched: Arc<Notify>,
}

impl Watched {
    fn start() -> std::io::Result<Self> {
        let watched = Self { inotify: Arc::new(inotify::init(inotify::CreateFlags::CLOEXEC)?), touched: Arc::default() };
        let (inotify, touched) = (watched.inotify.clone(), watched.touched.clone());
        std::thread::Builder::new().name("knox-list".to_owned()).spawn(move || {
            // What the events say does not matter.
            let mut buffer = [0; 4096];
            while rustix::io::retry_on_intr(|| rustix::io::read(&inotify, &mut buffer)).is_ok() {
                touched.notify_one();
            }
        })?;
        Ok(watched)
    }

    fn watch(&self, list: &Path) -> std::io::Result<()> {
        use inotify::WatchFlags as On;
        inotify::add_watch(&self.inotify, list, On::MODIFY | On::ATTRIB | On::MOVE_SELF | On::DELETE_SELF)?;
        Ok(())
    }
}

/// The signals that end the daemon.
struct Ends(Signal, Signal);

impl Ends {
    fn new() -> std::io::Result<Self> {
        Ok(Self(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    }
}

/// The server's stream of changes, where it has one.
struct Pushes {
    /// Nothing where this machine has no certificate.
    client: Option<Client>,
    watch: Option<Watch>,
    followed: Vec<KeyId>,
    /// A server that has no stream, or refuses it, is not asked for one before.
    not_before: Instant,
}

impl Pushes {
    /// Follows these keys, if they are not followed already.
    fn follow(&mut self, registered: &[KeyId]) {
        let Some(client) = &self.client else { return };
        if registered.is_empty() || registered.len() > MOST_FOLLOWED || Instant::now() < self.not_before {
            self.watch = None;
            return;
        }
        if self.watch.is_none() || self.followed != registered {
            self.watch = Some(client.watch(WatchRequest { ids: registered.to_vec(), ..WatchRequest::default() }));
            self.followed = registered.to_vec();
        }
    }

    /// Waits until there is a reason to ask: a change, or that the stream begins, before which there may have been one.
    async fn news(&mut self) {
        while let Some(watch) = &mut self.watch {
            match watch.next().await {
                Event::Ready { .. } | Event::Changed(_) | Event::Deleted(_) | Event::Revoked(_) | Event::Compacted { .. } => {
                    // What came together is one reason.
                    while watch.try_next().is_some() {}
                    return;
                }
                Event::Alive { .. } => {}
                Event::Lost { error, .. } if error.is_transient() => {}
                Event::Lost { .. } => {
                    self.watch = None;
                    self.not_before = Instant::now() + REFRESH;
                }
            }
        }
        std::future::pending().await
    }
}

/// Waits for a change of the list, news of the server, the time, or the end, which is true.
async fn wait(list: &Watched, ends: &mut Ends, pushes: &mut Pushes, registered: &[KeyId], until: Duration) -> bool {
    pushes.follow(registered);
    tokio::select! {
        () = list.touched.notified() => false,
        () = pushes.news() => false,
        () = tokio::time::sleep(until) => false,
        _ = ends.0.recv() => true,
        _ = ends.1.recv() => true,
    }
}

/// Where no randomness is to be had, machines only come a little closer together.
fn jitter() -> Duration {
    let mut random = [0; 4];
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    JITTER.mul_f64(f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX))
}
