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

use crate::entry::EntryVersion;
use crate::knox_folder::{CachedKey, FolderError, KnoxFolder, LOCK_LIMIT, Registrations, Unregistering};
use crate::table::{Held, Table};
use claviger_crypto::tink::Keyset;
use claviger_domain::{KeyId, Revision, SecretBytes, Timestamp, VersionState};
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
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Knox's folder of one agent.
pub(crate) struct Keeper {
    folder: Arc<KnoxFolder>,
    table: Arc<Table>,
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
    /// Watches the folder's list, and takes what it says now.
    ///
    /// # Errors
    /// The folder cannot be watched or its list not be read.
    pub(crate) fn new(folder: KnoxFolder, table: Arc<Table>) -> std::io::Result<Self> {
        let changes = inotify::init(CreateFlags::CLOEXEC)?;
        // The folder and not the file: so a list that is replaced is heard of too.
        let what =
            WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        inotify::add_watch(&changes, folder.path(), what)?;
        let list_moved = Arc::new(Notify::new());
        let told = list_moved.clone();
        std::thread::Builder::new().name("knox-list".to_owned()).stack_size(64 << 10).spawn(move || listen(&changes, &told))?;
        let found = known(&folder, &table).map_err(std::io::Error::other)?;
        table.set_knox_registered(found);
        Ok(Self {
            folder: Arc::new(folder),
            table,
            list_moved,
            rule: Unregistering::default(),
            written: BTreeMap::new(),
            begun: Instant::now(),
        })
    }

    /// Keeps it, for ever.
    pub(crate) async fn run(mut self) {
        tokio::task::spawn(remove_gone(self.folder.clone(), self.table.clone()));
        let mut held = self.table.held_moved.subscribe();
        let mut is_whole = true;
        loop {
            held.mark_unchanged();
            let look_again = self.turn(is_whole).await;
            let wait = look_again.map_or(EVERY, |at| at.saturating_sub(self.begun.elapsed()).min(EVERY));
            tokio::select! {
                () = self.list_moved.notified() => is_whole = true,
                () = tokio::time::sleep(wait) => is_whole = true,
                _ = held.changed() => is_whole = false,
            }
        }
    }

    /// One turn under the lock, or without it when somebody holds on to it.
    async fn turn(&mut self, is_whole: bool) -> Option<Duration> {
        let list = self.lock().await;
        let lock_problem = match &list {
            Ok(_) => None,
            Err(error) => Some(format!("{error}; registrations wait, values are kept up to date")),
        };
        let (folder, table, now) = (self.folder.clone(), self.table.clone(), self.begun.elapsed());
        let (rule, written) = (std::mem::take(&mut self.rule), std::mem::take(&mut self.written));
        let work = move || take_turn(&folder, &table, list.ok(), rule, written, now, is_whole);
        let Turn { rule, written, look_again, problem } = match tokio::task::spawn_blocking(work).await {
            Ok(turn) => turn,
            Err(error) => {
                Turn { rule: Unregistering::default(), written: BTreeMap::new(), look_again: None, problem: Some(error.to_string()) }
            }
        };
        (self.rule, self.written) = (rule, written);
        self.table.health(|health| health.knox = lock_problem.or(problem));
        look_again
    }

    async fn lock(&self) -> Result<Registrations, FolderError> {
        let begun = Instant::now();
        loop {
            match self.folder.try_lock()? {
                Some(list) => return Ok(list),
                None if begun.elapsed() >= LOCK_LIMIT => return Err(self.folder.locked()),
                None => tokio::time::sleep(LOCK_PAUSE).await,
            }
        }
    }
}

/// What may be registered, before the first look by the rule: what the list says, and what was registered when this or another keeper
/// last looked. An emptied list must not unregister it.
fn known(folder: &KnoxFolder, table: &Table) -> Result<BTreeSet<KeyId>, FolderError> {
    let mut known: BTreeSet<KeyId> = folder.cached_ids()?.into_iter().collect();
    if let Some(list) = folder.try_lock()? {
        known.extend(list.read()?.ids);
    }
    // What is cached and on no other list was on this one.
    let held = table.all().into_iter().map(|held| held.entry.id.clone());
    known.extend(held.filter(|id| id.is_knox() && table.registered_by(id).is_empty()));
    Ok(known)
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
async fn remove_gone(folder: Arc<KnoxFolder>, table: Arc<Table>) {
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
    table.set_knox_registered(listed.ids.iter().cloned().chain(stays).collect());
    Ok((verdict.look_again, verdict.doubt.map(crate::knox_folder::Doubt::said)))
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
