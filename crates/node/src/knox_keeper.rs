//! Keeping Knox's folder in step with the table: what Knox's daemon does every ten minutes, by push.
//!
//! # Guarantees
//! - A registration, or a touch of the list, is acted on at once, and every ten minutes whatever happens.
//! - What is explicitly gone leaves the folder at once, whoever holds the lock.
//! - Nothing else removes a registered key's file: no outage, no refusal, no age. A file cannot refuse its reader, so `max_offline` does not
//!   reach here.
//! - Who holds the lock for longer than ten seconds holds up registrations, and no longer the values of what is registered.
//!
//! Knox's own daemon may keep the same folder: both write whole files, and take the same lock.

use crate::config::KnoxConfig;
use crate::entry::EntryVersion;
use crate::knox_folder::{CachedKey, FolderError, KnoxFolder, LOCK_LIMIT, Registrations, Unregistering};
use crate::table::{Held, Table};
use claviger_crypto::tink::Keyset;
use claviger_domain::{KeyId, Revision, SecretBytes, Timestamp, VersionState};
use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(600);
/// While something is wrong with the folder.
const EVERY_WHEN_WRONG: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The folder while it can be used.
type Place = Arc<Mutex<Option<Arc<KnoxFolder>>>>;

/// Knox's folder of one agent. It may be unusable for a while: where everyone may write, anyone can lay snares, which must not keep the agent
/// from its other work.
pub(crate) struct Keeper {
    config: KnoxConfig,
    place: Place,
    table: Arc<Table>,
    changes: Arc<OwnedFd>,
    list_moved: Arc<Notify>,
    rule: Unregistering,
    /// What the files have, as far as this process wrote them.
    written: BTreeMap<KeyId, Revision>,
    begun: Instant,
}

/// What one turn found.
struct Turn {
    rule: Unregistering,
    written: BTreeMap<KeyId, Revision>,
    look_again: Option<Duration>,
    problem: Option<String>,
}

impl Keeper {
    /// Takes what is registered as far as it can be read; listens to changes from now on.
    ///
    /// # Errors
    /// The system gives no thread, or nothing to listen with.
    pub(crate) fn new(config: KnoxConfig, table: Arc<Table>) -> std::io::Result<Self> {
        let changes = Arc::new(inotify::init(CreateFlags::CLOEXEC)?);
        let list_moved = Arc::new(Notify::new());
        let (heard, told) = (changes.clone(), list_moved.clone());
        std::thread::Builder::new().name("knox-list".to_owned()).stack_size(64 << 10).spawn(move || listen(&heard, &told))?;
        table.set_knox_registered(known(&config, &table));
        let (rule, written) = (Unregistering::default(), BTreeMap::new());
        Ok(Self { config, place: Place::default(), table, changes, list_moved, rule, written, begun: Instant::now() })
    }

    /// Keeps it, for ever.
    pub(crate) async fn run(mut self) {
        tokio::task::spawn(remove_gone(self.place.clone(), self.table.clone()));
        let mut held = self.table.held_moved.subscribe();
        let mut is_whole = true;
        loop {
            held.mark_unchanged();
            let (look_again, problem) = self.turn(is_whole).await;
            let longest = if problem.is_some() { EVERY_WHEN_WRONG } else { EVERY };
            self.table.health(|health| health.knox = problem);
            let wait = look_again.map_or(longest, |at| at.saturating_sub(self.begun.elapsed()).min(longest));
            tokio::select! {
                () = self.list_moved.notified() => is_whole = true,
                () = tokio::time::sleep(wait) => is_whole = true,
                _ = held.changed() => is_whole = false,
            }
        }
    }

    /// One turn under the lock, or without it when somebody holds on to it. Gives when to look again, and what is wrong.
    async fn turn(&mut self, is_whole: bool) -> (Option<Duration>, Option<String>) {
        let folder = match self.folder() {
            Ok(folder) => folder,
            Err(error) => return (None, Some(error.to_string())),
        };
        let list = lock(&folder).await;
        let lock_problem = match &list {
            Ok(_) => None,
            Err(error) => Some(format!("{error}; registrations wait, values are kept up to date")),
        };
        let (table, now) = (self.table.clone(), self.begun.elapsed());
        let (rule, written) = (std::mem::take(&mut self.rule), std::mem::take(&mut self.written));
        let work = move || take_turn(&folder, &table, list.ok(), rule, written, now, is_whole);
        let Turn { rule, written, look_again, problem } = match tokio::task::spawn_blocking(work).await {
            Ok(turn) => turn,
            Err(error) => {
                Turn { rule: Unregistering::default(), written: BTreeMap::new(), look_again: None, problem: Some(error.to_string()) }
            }
        };
        (self.rule, self.written) = (rule, written);
        (look_again, lock_problem.or(problem))
    }

    /// The folder, opened anew when it is another one than before.
    fn folder(&mut self) -> Result<Arc<KnoxFolder>, FolderError> {
        let mut place = self.place.lock();
        if let Some(folder) = place.as_ref().filter(|folder| folder.is_still_there()) {
            return Ok(folder.clone());
        }
        *place = None;
        self.written.clear();
        let folder = Arc::new(KnoxFolder::keep(&self.config.folder, self.config.modes)?);
        // The folder and not the list: so a list that is replaced is heard of too.
        let what =
            WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        if let Err(error) = inotify::add_watch(&*self.changes, folder.path(), what) {
            tracing::warn!(%error, "changes of Knox's list are seen every ten minutes only");
        }
        *place = Some(folder.clone());
        Ok(folder)
    }
}

async fn lock(folder: &KnoxFolder) -> Result<Registrations, FolderError> {
    let begun = Instant::now();
    loop {
        match folder.try_lock()? {
            Some(list) => return Ok(list),
            None if begun.elapsed() >= LOCK_LIMIT => return Err(folder.locked()),
            None => tokio::time::sleep(LOCK_PAUSE).await,
        }
    }
}

/// What may be registered, before the first look by the rule: what the list says, and what was registered when this or another keeper
/// last looked. Neither an emptied list nor one that cannot be read must unregister it.
fn known(config: &KnoxConfig, table: &Table) -> BTreeSet<KeyId> {
    let read = || -> Result<BTreeSet<KeyId>, FolderError> {
        let folder = KnoxFolder::open(&config.folder)?;
        let mut known: BTreeSet<KeyId> = folder.cached_ids()?.into_iter().collect();
        if let Some(list) = folder.try_lock()? {
            known.extend(list.read()?.ids);
        }
        Ok(known)
    };
    // What is wrong is said by the first turn.
    let mut known = read().unwrap_or_default();
    // What is cached and on no other list was on this one.
    let held = table.all().into_iter().map(|held| held.entry.id.clone());
    known.extend(held.filter(|id| id.is_knox() && table.registered_by(id).is_empty()));
    known
}

/// Tells of each change of the list, for ever.
fn listen(changes: &OwnedFd, list_moved: &Notify) {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let mut reader = Reader::new(changes, &mut buffer);
    loop {
        match reader.next() {
            Ok(event) => {
                let is_list = event.file_name().is_some_and(|name| name.to_bytes() == b".registered");
                if is_list || event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                    list_moved.notify_one();
                }
            }
            Err(Errno::INTR) => {}
            // The turn every ten minutes is left.
            Err(error) => return tracing::warn!(%error, "changes of Knox's list are heard no more"),
        }
    }
}

/// Removes what is explicitly gone as soon as the table says so.
async fn remove_gone(place: Place, table: Arc<Table>) {
    let mut held = table.held_moved.subscribe();
    let mut done = BTreeMap::new();
    loop {
        held.mark_unchanged();
        let gone = table.health(|health| health.gone.clone());
        done.retain(|id, _| gone.contains_key(id));
        for (id, (_, revision)) in gone.into_iter().filter(|(id, _)| id.is_knox() && table.get(id).is_none()) {
            if done.get(&id) == Some(&revision) {
                continue;
            }
            // Where there is no usable folder, the turn that finds one again does it.
            let Some(folder) = place.lock().clone() else { continue };
            match folder.remove_key(&id) {
                Ok(_) => drop(done.insert(id, revision)),
                Err(error) => tracing::error!(key.id = %id, %error, "a key that is gone stays in Knox's folder"),
            }
        }
        if held.changed().await.is_err() {
            return;
        }
    }
}

/// Looks at the list, removes what is unregistered, writes what changed.
fn take_turn(
    folder: &KnoxFolder,
    table: &Table,
    list: Option<Registrations>,
    mut rule: Unregistering,
    mut written: BTreeMap<KeyId, Revision>,
    now: Duration,
    is_whole: bool,
) -> Turn {
    let (mut problem, mut look_again) = (None, None);
    if let Some(list) = &list {
        match look(folder, table, list, &mut rule, now) {
            Ok((again, doubt)) => {
                look_again = again;
                problem = doubt.map(str::to_owned);
            }
            Err(error) => problem = Some(error.to_string()),
        }
    }
    // Also what went while there was no usable folder.
    for id in table.health(|health| health.gone.keys().cloned().collect::<Vec<_>>()) {
        if id.is_knox()
            && table.get(&id).is_none()
            && let Err(error) = folder.remove_key(&id)
        {
            problem = Some(error.to_string());
        }
    }
    let wanted = table.registered();
    for held in table.all().iter().filter(|held| wanted.contains(&held.entry.id) && held.entry.id.is_knox()) {
        let (id, seen) = (&held.entry.id, held.entry.seen);
        if !is_in_list(table, id) || (!is_whole && written.get(id) == Some(&seen)) {
            continue;
        }
        match write(folder, table, held) {
            Ok(()) => drop(written.insert(id.clone(), seen)),
            Err(error) => problem = Some(error.to_string()),
        }
    }
    drop(list);
    Turn { rule, written, look_again, problem }
}

fn is_in_list(table: &Table, id: &KeyId) -> bool {
    table.registered_by(id).contains(&"knox")
}

/// One look at the list: what it registers counts at once, what it lacks by the rule.
fn look(
    folder: &KnoxFolder,
    table: &Table,
    list: &Registrations,
    rule: &mut Unregistering,
    now: Duration,
) -> Result<(Option<Duration>, Option<&'static str>), FolderError> {
    let listed = list.read()?;
    let mut cached: BTreeSet<KeyId> = folder.cached_ids()?.into_iter().collect();
    // What was registered before and has no file yet must not be forgotten by a doubtful list either.
    cached.extend(table.registered().into_iter().filter(|id| is_in_list(table, id)));
    let cached: Vec<KeyId> = cached.into_iter().collect();
    let verdict = rule.look(&listed, &cached, now);
    for id in &verdict.unregistered {
        folder.remove_key(id)?;
    }
    let stays = cached.into_iter().filter(|id| !verdict.unregistered.contains(id));
    let left_out = table.set_knox_registered(listed.ids.iter().cloned().chain(stays).collect());
    let said =
        (left_out > 0).then_some("the registration file lists more than the 10000 keys that one agent follows: the rest is left out");
    Ok((verdict.look_again, verdict.doubt.map(crate::knox_folder::Doubt::said).or(said)))
}

/// Writes a key's file unless it has just that.
fn write(folder: &KnoxFolder, table: &Table, held: &Held) -> Result<(), FolderError> {
    let id = &held.entry.id;
    let Some(key) = cached_key(held, table) else { return Ok(()) };
    let json = key.to_json(None);
    let has_it = matches!(folder.read_key_file(id), Ok(Some(bytes)) if bytes == json);
    if !has_it {
        folder.write_key(id, &json)?;
    }
    // It may have gone while it was written; then whoever removes what is gone may have been before us.
    if table.get(id).is_none() {
        folder.remove_key(id)?;
    }
    Ok(())
}

/// The file's content; nothing for what Knox's cache cannot have: an expired primary, or a Tink key whose versions are no keysets.
fn cached_key(held: &Held, table: &Table) -> Option<CachedKey> {
    let now = table.now();
    let keyset = match held.entry.id.as_str().starts_with("tink:") {
        true => Some(tink_keyset(held, now)?),
        false => None,
    };
    held.entry.to_knox(now, keyset).filter(|key| key.primary().is_some())
}

/// Tink's keyset of all versions that are given out, each of which has one of its own.
fn tink_keyset(held: &Held, now: Timestamp) -> Option<SecretBytes> {
    let parse = |v: &EntryVersion| Keyset::parse(v.data.expose()).map(|keyset| (v.state == VersionState::Primary, keyset));
    let versions = held.entry.live_at(now).map(parse).collect::<Result<Vec<_>, _>>().ok()?;
    Keyset::merge(versions).ok().map(|keyset| keyset.encode())
}
