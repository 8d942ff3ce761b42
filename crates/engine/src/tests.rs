//! The engine over a store in memory: what callers see, what is recorded, and what happens when a part fails.
#![allow(clippy::unwrap_used)]

use crate::*;
mod approvals;
mod damage;
mod used;

use self::damage::{Fate, Faulty};
use claviger_crypto::{FileRoot, KeyRing};
use claviger_domain::audit::Record;
use claviger_domain::*;
use claviger_ports::{AuditError, AuditSink, LogCheckpoint, Store};
use claviger_testkit::TestClock;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Keeps one line per record, or refuses them all.
#[derive(Default)]
struct Log {
    /// Those that the last record names.
    versions: Mutex<Vec<VersionId>>,
    lines: Mutex<Vec<String>>,
    broken: AtomicBool,
    short: AtomicBool,
}

impl AuditSink for Log {
    fn append(&self, r: &Record<'_>) -> BoxFuture<'static, Result<(), AuditError>> {
        if self.broken.load(Ordering::SeqCst) {
            return Box::pin(async { Err(AuditError::Io("gone".into())) });
        }
        let keys: Vec<_> = r.subjects.iter().map(|s| s.key).collect();
        let who = r.caller.map_or("-", Caller::name);
        let by = r.allowed_by.map(|by| format!(" by {by}")).unwrap_or_default();
        *self.versions.lock() = r.subjects.iter().flat_map(|s| s.versions.to_vec()).collect();
        self.lines.lock().push(format!("{who} {} {} {}{by}", r.action.name(), keys.join(","), r.outcome.name()));
        Box::pin(async { Ok(()) })
    }

    fn checkpoint(&self) -> Option<LogCheckpoint> {
        None
    }

    fn is_short_of_space(&self) -> bool {
        self.short.load(Ordering::SeqCst)
    }
}

struct Site {
    engine: Arc<Engine>,
    log: Arc<Log>,
    clock: Arc<TestClock>,
    store: Arc<Faulty>,
    root: FileRoot,
    _folder: tempfile::TempDir,
}

async fn ring(store: &dyn Store, root: &FileRoot) -> KeyRing {
    KeyRing::open(&store.barriers().await.unwrap(), &[root]).await.unwrap()
}

impl Site {
    async fn with(settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = FileRoot::create(&folder.path().join("root")).unwrap();
        let store = Arc::new(Faulty::default());
        initialise(&*store, &[&root], Timestamp(0)).await.unwrap();
        let (log, clock) = (Arc::new(Log::default()), Arc::new(TestClock::at(1_000)));
        let ring = ring(&*store, &root).await;
        let started = Engine::start(settings, store.clone(), log.clone(), ring, clock.clone()).await.unwrap();
        let site = Self { engine: started.engine, log, clock, store, root, _folder: folder };
        site.grant("", &[("user:root", Preset::Admin.capabilities())], true).await.unwrap();
        site
    }

    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    async fn restart(&self) -> Result<Started, Error> {
        self.restart_with(Settings::default()).await
    }

    async fn restart_with(&self, settings: Settings) -> Result<Started, Error> {
        let ring = ring(&*self.store, &self.root).await;
        Engine::start(settings, self.store.clone(), self.log.clone(), ring, self.clock.clone()).await
    }

    async fn grant(&self, prefix: &str, grants: &[(&str, Capabilities)], any: bool) -> Result<(), Error> {
        let system = Caller::system("test", RequestId(9));
        self.engine
            .change_prefix(&system, "test", &Prefix::parse(prefix).unwrap(), Some((acl(grants), any)), Precondition::Any)
            .await
            .map(drop)
    }

    async fn create(&self, by: &Caller, id: &str, data: &str, grants: &[(&str, Capabilities)]) -> Result<Added, Error> {
        self.engine.create(by, "test", new_key(id, data, grants)).await
    }

    async fn read(&self, by: &Caller, id: &str) -> Result<Vec<String>, Error> {
        self.read_as(by, id, Select::Active).await
    }

    async fn read_as(&self, by: &Caller, id: &str, select: Select) -> Result<Vec<String>, Error> {
        let read = self.engine.read(by, "test", id, select).await?;
        Ok(read.versions.iter().map(|(_, d)| String::from_utf8_lossy(d.expose()).into_owned()).collect())
    }

    async fn add(&self, by: &Caller, id: &str, data: &str) -> VersionId {
        let added = self.engine.add_version(by, "test", id, &version(data), false, Precondition::Any).await.unwrap();
        added.version.unwrap()
    }

    async fn set(&self, by: &Caller, id: &str, who: &str, capabilities: Capabilities) -> Result<Added, Error> {
        let edit = RightsEdit::Set(vec![(who.parse().unwrap(), capabilities)]);
        self.engine.change_rights(by, "test", id, &edit, Precondition::Any, |_, _| Ok(())).await
    }
}

impl Site {
    async fn watch(&self, who: &Caller, ids: &[&str], prefixes: &[&str], since: Option<Revision>) -> Subscription {
        let ids = ids.iter().map(|id| KeyId::parse(id).unwrap()).collect();
        let prefixes = prefixes.iter().map(|p| Prefix::parse(p).unwrap()).collect();
        self.engine.watch(who, "test", WatchScope { ids, prefixes }, since).await.unwrap()
    }

    /// Everything that waits for a follower, as `kind id`.
    async fn told(&self, who: &Caller, subscription: &mut Subscription) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(event) = subscription.next().now_or_never() {
            let mut telling = match event {
                Some(event) => Telling::of(event),
                None => return [all, vec!["cut off".to_owned()]].concat(),
            };
            all.extend(self.tell(who, subscription, &mut telling).await);
        }
        all
    }

    async fn tell(&self, who: &Caller, subscription: &Subscription, telling: &mut Telling) -> Vec<String> {
        let mut all = Vec::new();
        while !telling.is_done() {
            all.extend(self.engine.tell(who, subscription.scope(), telling).await.unwrap());
        }
        let words = all.into_iter().map(|t| match t {
            Told::Changed { id, .. } => format!("changed {id}"),
            Told::Deleted { id, .. } => format!("deleted {id}"),
            Told::Revoked { id, .. } => format!("revoked {id}"),
            Told::Compacted { .. } => "compacted".to_owned(),
        });
        words.collect()
    }

    async fn delete(&self, by: &Caller, id: &str) {
        self.engine.delete(by, "test", id, Precondition::Any).await.unwrap();
    }
}

fn user(name: &str) -> Caller {
    let identity = Identity::User { name: name.into(), groups: Arc::from([Arc::from("staff")]) };
    Caller::new(Arc::from([Proven { identity, method: "token" }]), RequestId(7), None).unwrap()
}

fn acl(grants: &[(&str, Capabilities)]) -> Acl {
    grants.iter().fold(Acl::default(), |acl, (p, c)| acl.set(p.parse().unwrap(), *c))
}

fn version(data: &str) -> NewVersion {
    NewVersion { material: Material::Given(SecretBytes::new(data.as_bytes().to_vec())), expires: None }
}

fn new_key(id: &str, data: &str, grants: &[(&str, Capabilities)]) -> NewKey {
    NewKey {
        id: KeyId::parse(id).unwrap(),
        kind: KeyKind::Secret,
        policy: KeyPolicy::default(),
        first: version(data),
        acl: acl(grants),
        owners: Vec::new(),
        description: String::new(),
        labels: Labels::default(),
        separate_duties: false,
        max_lifetime: None,
    }
}

const fn read_only() -> Preset {
    Preset::Read
}

#[tokio::test]
async fn a_rotation_gives_old_and_new_then_only_new() {
    let site = Site::new().await;
    let alice = user("alice");
    let first = site.create(&alice, "db", "old", &[]).await.unwrap().version.unwrap();
    let second = site.add(&alice, "db", "new").await;
    assert_eq!(site.read_as(&alice, "db", Select::Primary).await.unwrap(), ["old"]);
    site.engine.transition(&alice, "test", "db", second, Transition::Promote, Precondition::Any).await.unwrap();
    assert_eq!(site.read(&alice, "db").await.unwrap(), ["old", "new"]);
    site.engine.transition(&alice, "test", "db", first, Transition::Deactivate, Precondition::Any).await.unwrap();
    assert_eq!(site.read(&alice, "db").await.unwrap(), ["new"]);
    assert_eq!(site.read_as(&alice, "db", Select::All).await.unwrap(), ["old", "new"]);
    site.engine.transition(&alice, "test", "db", first, Transition::Reactivate, Precondition::Any).await.unwrap();
    assert_eq!(site.read(&alice, "db").await.unwrap(), ["old", "new"]);
}

#[tokio::test]
async fn a_destroyed_version_is_gone_from_memory_and_store() {
    let site = Site::new().await;
    let alice = user("alice");
    site.create(&alice, "db", "keep", &[]).await.unwrap();
    let doomed = site.add(&alice, "db", "doomed").await;
    for step in [Transition::Deactivate, Transition::Destroy] {
        site.engine.transition(&alice, "test", "db", doomed, step, Precondition::Any).await.unwrap();
    }
    assert!(matches!(site.read_as(&alice, "db", Select::One(doomed)).await, Err(Error::NoVersion { .. })));
    let key = site.engine.inspect(&alice, "test", "db").await.unwrap().entry.meta.key_ref();
    assert_eq!(site.store.version(&key, doomed).await.unwrap(), None);
    assert!(site.restart().await.unwrap().report.digest_matches);
}

#[tokio::test]
async fn an_expired_version_is_never_given_out() {
    let site = Site::new().await;
    let alice = user("alice");
    let mut new = new_key("db", "short-lived", &[]);
    new.max_lifetime = Some(60);
    site.engine.create(&alice, "test", new).await.unwrap();
    assert_eq!(site.read(&alice, "db").await.unwrap(), ["short-lived"]);
    site.clock.advance(60);
    assert_eq!(site.read(&alice, "db").await.unwrap_err(), Error::Denied(Refusal::Expired));
    let fresh = site.add(&alice, "db", "fresh").await;
    site.engine.transition(&alice, "test", "db", fresh, Transition::Promote, Precondition::Any).await.unwrap();
    assert_eq!(site.read(&alice, "db").await.unwrap(), ["fresh"]);
}

#[tokio::test]
async fn a_stranger_learns_nothing_and_a_reader_cannot_write() {
    let site = Site::new().await;
    site.create(&user("alice"), "db", "x", &[("user:bob", read_only().capabilities())]).await.unwrap();
    assert_eq!(site.read(&user("eve"), "db").await.unwrap_err(), Error::Denied(Refusal::Unseen));
    let denied = site.engine.add_version(&user("bob"), "test", "db", &version("y"), false, Precondition::Any).await.unwrap_err();
    assert_eq!(denied, Error::Denied(Refusal::Lacks(Capability::Write)));
    assert_eq!(site.log.lines.lock().last().unwrap(), "bob add_version db denied");
}

#[tokio::test]
async fn a_revoked_grant_is_refused_at_once() {
    let site = Site::new().await;
    site.create(&user("alice"), "db", "x", &[("user:bob", read_only().capabilities())]).await.unwrap();
    assert!(site.read(&user("bob"), "db").await.is_ok());
    site.set(&user("alice"), "db", "user:bob", Capabilities::NONE).await.unwrap();
    assert!(site.read(&user("bob"), "db").await.is_err());
}

#[tokio::test]
async fn former_readers_of_a_deleted_key_are_told_and_strangers_are_not() {
    let site = Site::new().await;
    site.create(&user("alice"), "db", "x", &[("user:bob", read_only().capabilities())]).await.unwrap();
    site.engine.delete(&user("alice"), "test", "db", Precondition::Any).await.unwrap();
    assert!(matches!(site.read(&user("bob"), "db").await, Err(Error::Deleted { .. })));
    assert!(matches!(site.read(&user("eve"), "db").await, Err(Error::NotFound(_))));
    site.create(&user("eve"), "db", "hers", &[]).await.unwrap();
    assert_eq!(site.read(&user("bob"), "db").await.unwrap_err(), Error::Denied(Refusal::Unseen));
    assert!(site.restart().await.unwrap().report.digest_matches);
}

#[tokio::test]
async fn who_administers_a_key_of_separate_duties_can_neither_read_it_nor_let_himself() {
    let site = Site::new().await;
    let alice = user("alice");
    let mut new = new_key("db", "x", &[("user:bob", Capabilities::of([Capability::Read]))]);
    new.separate_duties = true;
    site.engine.create(&alice, "test", new).await.unwrap();
    assert!(site.read(&alice, "db").await.is_err());
    assert!(site.read(&user("root"), "db").await.is_err());
    assert!(site.read(&user("bob"), "db").await.is_ok());
    for me in ["user:alice", "user_group:staff"] {
        let refused = site.set(&alice, "db", me, Capabilities::of([Capability::Read])).await.unwrap_err();
        assert!(matches!(refused, Error::Denied(Refusal::Rights(RightsError::SelfGrant(_)))), "{me}");
    }
    assert!(site.set(&alice, "db", "user:carol", Capabilities::of([Capability::Read])).await.is_ok());
    let undo =
        site.engine.change_meta(&alice, "test", "db", Precondition::Any, |m| Ok(KeyMeta { separate_duties: false, ..m.clone() })).await;
    assert!(matches!(undo, Err(Error::Invalid { field: "separate_duties", .. })));
}

#[tokio::test]
async fn default_grants_that_administer_use_nothing_of_a_key_of_separate_duties() {
    let default = |who: &str, preset: Preset| Grant { principal: who.parse().unwrap(), capabilities: preset.capabilities() };
    let default_grants = vec![default("user_group:staff", Preset::Admin), default("user:backup", Preset::Read)];
    let site = Site::with(Settings { default_grants, ..Settings::default() }).await;
    let separate = |id: &str, separate_duties| NewKey { separate_duties, ..new_key(id, "x", &[]) };
    let rights = |meta: &KeyMeta| meta.acl.grants().iter().map(|g| (g.principal.to_string(), g.capabilities.to_string())).collect();
    // Alice is of the staff herself.
    let made = site.engine.create(&user("alice"), "test", separate("apart", true)).await.unwrap();
    let found: Vec<_> = rights(&made.meta);
    let expected =
        [("user:alice", "list,admin"), ("user_group:staff", "list,admin"), ("user:backup", "list,read,encrypt,decrypt,sign,verify")];
    assert_eq!(found, expected.map(|(who, what)| (who.to_owned(), what.to_owned())));
    let plain = site.engine.create(&user("alice"), "test", separate("plain", false)).await.unwrap();
    assert_eq!(plain.meta.acl.entry(&"user_group:staff".parse().unwrap()), Preset::Admin.capabilities());
}

#[tokio::test]
async fn nobody_raises_his_own_rights_on_a_prefix() {
    let site = Site::new().await;
    site.grant("team/", &[("user:lead", Capabilities::of([Capability::List, Capability::Admin]))], false).await.unwrap();
    let team = Prefix::parse("team/").unwrap();
    let more = acl(&[("user:lead", Preset::Admin.capabilities())]);
    let refused = site.engine.change_prefix(&user("lead"), "test", &team, Some((more, false)), Precondition::Any).await.unwrap_err();
    assert!(matches!(refused, Error::Denied(Refusal::Rights(_))));
    let elsewhere = Prefix::parse("other/").unwrap();
    let refused =
        site.engine.change_prefix(&user("lead"), "test", &elsewhere, Some((Acl::default(), true)), Precondition::Any).await.unwrap_err();
    assert_eq!(refused, Error::Denied(Refusal::Lacks(Capability::Admin)));
}

#[tokio::test]
async fn a_prefix_that_was_removed_and_granted_anew_has_another_etag() {
    let site = Site::new().await;
    let (root, team) = (user("root"), Prefix::parse("team/").unwrap());
    let new = || Some((acl(&[("user:bob", read_only().capabilities())]), false));
    let (_, first) = site.engine.change_prefix(&root, "test", &team, new(), Precondition::Any).await.unwrap();
    let Some((incarnation, generation)) = first else { panic!("nothing stands") };
    let (_, nothing) = site.engine.change_prefix(&root, "test", &team, None, Precondition::Is(incarnation, generation)).await.unwrap();
    assert_eq!(nothing, None);
    let (_, second) = site.engine.change_prefix(&root, "test", &team, new(), Precondition::Any).await.unwrap();
    assert_eq!(second.unwrap().1, generation);
    let stale = site.engine.change_prefix(&root, "test", &team, new(), Precondition::Is(incarnation, generation)).await;
    assert_eq!(stale.unwrap_err(), Error::Conflict(Conflict::Changed));
    let (again, generation) = second.unwrap();
    let (_, third) = site.engine.change_prefix(&root, "test", &team, new(), Precondition::Is(again, generation)).await.unwrap();
    assert_eq!(third, Some((again, generation.next())));
    assert!(site.restart().await.unwrap().report.digest_matches);
}

#[tokio::test]
async fn a_right_that_is_revoked_while_a_change_waits_for_its_turn_is_gone() {
    let site = Site::new().await;
    let lead = user("lead");
    site.grant("team/", &[("user:lead", Preset::Admin.capabilities().union(Capabilities::of([Capability::Create])))], false).await.unwrap();
    let prefix = Prefix::parse("team/x/").unwrap();
    let new = Some((acl(&[("user:mate", read_only().capabilities())]), false));
    let (turn, key_turn) = (site.engine.turn("team/x/").await, site.engine.turn("team/key").await);
    let waiting = async { site.engine.change_prefix(&lead, "test", &prefix, new, Precondition::Any).await.map(drop) };
    let creating = async { site.create(&lead, "team/key", "x", &[]).await.map(drop) };
    let revoking = async {
        tokio::task::yield_now().await;
        site.grant("team/", &[], false).await.unwrap();
        // Other users may still create by the rule on the empty prefix; it goes, too.
        site.grant("", &[("user:root", Preset::Admin.capabilities())], false).await.unwrap();
        drop((turn, key_turn));
    };
    let (changed, created, ()) = tokio::join!(waiting, creating, revoking);
    assert_eq!(changed.unwrap_err(), Error::Denied(Refusal::Lacks(Capability::Admin)));
    assert_eq!(created.unwrap_err(), Error::Denied(Refusal::Create));
}

#[tokio::test]
async fn an_etag_lets_only_one_of_two_changes_through() {
    let site = Site::new().await;
    let alice = user("alice");
    let meta = site.create(&alice, "db", "x", &[]).await.unwrap().meta;
    let is = Precondition::Is(meta.incarnation, meta.generation);
    let add = |d| {
        let (engine, alice) = (site.engine.clone(), alice.clone());
        async move { engine.add_version(&alice, "test", "db", &version(d), false, is).await }
    };
    let (a, b) = tokio::join!(add("a"), add("b"));
    assert_eq!([a.is_ok(), b.is_ok()].iter().filter(|ok| **ok).count(), 1);
}

#[tokio::test]
async fn concurrent_writers_of_one_key_all_succeed_and_revisions_are_dense() {
    let site = Site::new().await;
    let alice = user("alice");
    let start = site.create(&alice, "db", "x", &[]).await.unwrap().revision;
    let writers = (0..50).map(|i| {
        let (engine, alice) = (site.engine.clone(), alice.clone());
        tokio::spawn(async move {
            engine.add_version(&alice, "test", "db", &version(&i.to_string()), false, Precondition::Any).await.unwrap().revision.number
        })
    });
    let mut revisions: Vec<_> = futures::future::join_all(writers).await.into_iter().map(Result::unwrap).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (start.number + 1..=start.number + 50).collect::<Vec<_>>());
    assert_eq!(site.read(&alice, "db").await.unwrap().len(), 51);
}

#[tokio::test]
async fn without_a_record_there_is_no_answer() {
    let site = Site::new().await;
    let alice = user("alice");
    site.create(&alice, "db", "x", &[]).await.unwrap();
    site.log.broken.store(true, Ordering::SeqCst);
    assert!(matches!(site.read(&alice, "db").await, Err(Error::Unavailable(_))));
    site.log.broken.store(false, Ordering::SeqCst);
    assert!(site.read(&alice, "db").await.is_ok());
}

#[tokio::test]
async fn a_follower_is_told_of_changes_revocations_and_deletion() {
    let site = Site::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    site.create(&alice, "team/db", "x", &[("user:bob", read_only().capabilities())]).await.unwrap();
    site.grant("team/", &[("user:carol", read_only().capabilities())], false).await.unwrap();
    let scope = WatchScope { ids: vec![KeyId::parse("team/db").unwrap()], prefixes: vec![] };
    let mut follow = Vec::new();
    for who in [&bob, &user("carol"), &user("eve")] {
        follow.push((who.clone(), site.engine.watch(who, "test", scope.clone(), None).await.unwrap(), Vec::new()));
    }
    site.add(&alice, "team/db", "y").await;
    site.set(&alice, "team/db", "user:bob", Capabilities::NONE).await.unwrap();
    site.grant("team/", &[("user:dan", read_only().capabilities())], false).await.unwrap();
    site.engine.delete(&alice, "test", "team/db", Precondition::Any).await.unwrap();
    for (who, subscription, told) in &mut follow {
        told.extend(site.told(who, subscription).await);
    }
    assert_eq!(follow[0].2, ["changed team/db", "revoked team/db"]);
    assert_eq!(follow[1].2, ["changed team/db", "changed team/db", "revoked team/db"]);
    assert_eq!(follow[2].2, [""; 0], "a stranger is told nothing");
}

#[tokio::test]
async fn a_follower_hears_of_a_commit_whose_answer_was_lost_and_then_goes_on() {
    let site = Site::new().await;
    let alice = user("alice");
    site.create(&alice, "db", "x", &[]).await.unwrap();
    let scope = WatchScope { ids: vec![KeyId::parse("db").unwrap()], prefixes: vec![] };
    let before = site.engine.revision();
    site.store.doom(Fate::Stands, true);
    site.add(&alice, "db", "y").await;
    let after = site.engine.revision();
    assert_eq!(after.number, before.number + 1);
    let mut missed = site.engine.watch(&alice, "test", scope.clone(), Some(before)).await.unwrap();
    assert!(missed.next().await.is_none());
    let mut resumed = site.engine.watch(&alice, "test", scope, Some(after)).await.unwrap();
    assert_eq!(resumed.caught_up(), Some(after));
    site.add(&alice, "db", "z").await;
    assert_eq!(resumed.next().await.unwrap().revision.number, after.number + 1);
}

#[tokio::test]
async fn who_was_away_while_his_prefix_grant_was_taken_and_the_key_deleted_is_told() {
    let site = Site::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    site.create(&alice, "a/k", "x", &[]).await.unwrap();
    site.create(&alice, "a/twice", "x", &[]).await.unwrap();
    site.grant("a/", &[("user:bob", read_only().capabilities())], false).await.unwrap();
    let since = site.engine.revision();
    let mut live = [site.watch(&bob, &["a/k", "a/twice"], &[], None).await, site.watch(&bob, &[], &["a/"], None).await];
    site.grant("a/", &[], false).await.unwrap();
    site.delete(&alice, "a/k").await;
    site.delete(&alice, "a/twice").await;
    site.create(&alice, "a/twice", "y", &[]).await.unwrap();
    site.delete(&alice, "a/twice").await;
    let mut back = [site.watch(&bob, &["a/k", "a/twice"], &[], Some(since)).await, site.watch(&bob, &[], &[""], Some(since)).await];
    for follower in live.iter_mut().chain(&mut back) {
        assert_eq!(site.told(&bob, follower).await, ["revoked a/k", "revoked a/twice"]);
    }
    let mut stranger = site.watch(&user("eve"), &["a/k"], &["a/"], Some(since)).await;
    assert_eq!(site.told(&user("eve"), &mut stranger).await, [""; 0]);
}

#[tokio::test]
async fn a_key_made_after_his_grant_was_taken_stays_unknown_to_who_was_away() {
    let site = Site::new().await;
    let bob = user("bob");
    site.grant("a/", &[("user:bob", read_only().capabilities())], false).await.unwrap();
    let since = site.engine.revision();
    site.grant("a/", &[], false).await.unwrap();
    site.create(&user("alice"), "a/later", "x", &[]).await.unwrap();
    site.create(&user("alice"), "a/brief", "x", &[]).await.unwrap();
    site.delete(&user("alice"), "a/brief").await;
    let mut back = site.watch(&bob, &["a/later"], &["a/"], Some(since)).await;
    assert_eq!(site.told(&bob, &mut back).await, [""; 0]);
}

#[tokio::test]
async fn former_readers_by_a_prefix_are_told_of_a_deletion_and_strangers_are_not() {
    let site = Site::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let create_only = Capabilities::of([Capability::Create]);
    site.grant("a/", &[("user:bob", read_only().capabilities()), ("user:carol", create_only)], false).await.unwrap();
    site.create(&alice, "a/gone", "x", &[]).await.unwrap();
    site.delete(&alice, "a/gone").await;
    site.grant("a/", &[("user:eve", read_only().capabilities())], false).await.unwrap();
    let id = KeyId::parse("a/gone").unwrap();
    assert!(matches!(site.read(&bob, "a/gone").await, Err(Error::Deleted { .. })));
    assert!(site.engine.deleted_at(&bob, &id).is_some());
    for other in ["carol", "eve"] {
        assert!(matches!(site.read(&user(other), "a/gone").await, Err(Error::NotFound(_))), "{other}");
    }
    let restarted = site.restart().await.unwrap();
    assert!(restarted.report.digest_matches);
    assert!(matches!(restarted.engine.read(&bob, "test", "a/gone", Select::Active).await, Err(Error::Deleted { .. })));
}

#[tokio::test]
async fn who_gains_rights_by_a_prefix_is_told_of_the_keys_below_it() {
    let site = Site::new().await;
    let bob = user("bob");
    site.create(&user("alice"), "a/one", "x", &[]).await.unwrap();
    site.create(&user("alice"), "a/two", "x", &[("user:bob", read_only().capabilities())]).await.unwrap();
    let mut by_id = site.watch(&bob, &["a/one", "b"], &[], None).await;
    let mut by_prefix = site.watch(&bob, &["a/one"], &["a/", "a/o/"], None).await;
    site.grant("a/", &[("user:bob", read_only().capabilities())], false).await.unwrap();
    assert_eq!(site.told(&bob, &mut by_id).await, ["changed a/one"]);
    assert_eq!(site.told(&bob, &mut by_prefix).await, ["changed a/one"], "what he could do before is no gain");
    site.grant("a/", &[("user:bob", read_only().capabilities()), ("user:carol", read_only().capabilities())], false).await.unwrap();
    assert_eq!(site.told(&bob, &mut by_prefix).await, [""; 0], "a grant to others is not his");
}

#[tokio::test]
async fn a_change_of_a_wide_prefix_is_told_in_steps_and_of_every_key_once() {
    let site = Site::new().await;
    let bob = user("bob");
    for i in 0..2_500 {
        site.create(&user("alice"), &format!("a/{i:04}"), "x", &[]).await.unwrap();
    }
    let mut follower = site.watch(&bob, &["a/0007"], &["a/"], None).await;
    site.grant("", &[("user:bob", read_only().capabilities()), ("user:root", Preset::Admin.capabilities())], true).await.unwrap();
    let mut telling = Telling::of(follower.next().await.unwrap());
    let mut steps = Vec::new();
    while !telling.is_done() {
        steps.push(site.engine.tell(&bob, follower.scope(), &mut telling).await.unwrap().len());
    }
    assert!(steps.len() >= 3 && steps.iter().all(|n| *n <= 1000), "{steps:?}");
    assert_eq!(steps.iter().sum::<usize>(), 2_500);
}

#[tokio::test]
async fn after_a_gap_deleted_and_revoked_keys_are_told_and_nothing_that_was_never_seen() {
    let site = Site::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let read = read_only().capabilities();
    site.grant("team/", &[("user:bob", read)], false).await.unwrap();
    for id in ["db", "kept", "team/gone", "theirs"] {
        site.create(&alice, id, "x", &[("user:bob", read)]).await.unwrap();
    }
    for id in ["hidden", "hidden-gone"] {
        site.create(&alice, id, "x", &[]).await.unwrap();
    }
    let since = site.engine.revision();
    site.set(&alice, "db", "user:bob", Capabilities::NONE).await.unwrap();
    site.add(&alice, "db", "y").await;
    site.add(&alice, "hidden", "y").await;
    for id in ["team/gone", "theirs", "hidden-gone"] {
        site.delete(&alice, id).await;
    }
    site.create(&user("eve"), "theirs", "hers", &[]).await.unwrap();
    let ids = ["db", "kept", "theirs", "hidden", "hidden-gone", "never"];
    let engine = site.restart().await.unwrap().engine;
    let site = Site { engine, ..site };
    let mut follower = site.watch(&bob, &ids, &["team/"], Some(since)).await;
    assert_eq!(site.told(&bob, &mut follower).await, ["cut off"]);
    let gap = async |since| site.tell(&bob, &follower, &mut site.engine.telling_of_gap(follower.scope(), since)).await;
    let expected = ["deleted theirs", "deleted team/gone", "revoked db", "compacted"];
    assert_eq!(gap(Some(since)).await, expected);
    assert_eq!(gap(Some(Revision { epoch: 7, number: 1 })).await, expected, "a revision of another store");
    assert_eq!(gap(Some(site.engine.revision())).await, ["compacted"], "who has seen it all is told nothing again");
}

#[tokio::test]
async fn after_a_gap_a_prefix_grant_that_was_taken_is_told_while_it_is_remembered() {
    let site = Site::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let read = read_only().capabilities();
    for prefix in ["a/", "b/"] {
        site.grant(prefix, &[("user:bob", read)], false).await.unwrap();
        site.create(&alice, &format!("{prefix}k"), "x", &[]).await.unwrap();
    }
    let since = site.engine.revision();
    for prefix in ["a/", "b/"] {
        site.grant(prefix, &[], false).await.unwrap();
    }
    site.set(&alice, "b/k", "user:bob", read).await.unwrap();
    let follower = site.watch(&bob, &["a/k", "b/k"], &[], None).await;
    let mut gap = site.engine.telling_of_gap(follower.scope(), Some(since));
    assert_eq!(site.tell(&bob, &follower, &mut gap).await, ["revoked a/k", "compacted"], "what he can read again is not taken");
}

#[tokio::test]
async fn a_policy_is_asked_only_when_the_acl_says_no() {
    struct Friend(Arc<Mutex<u32>>);
    impl AccessPolicy for Friend {
        fn ask(&self, question: Question<'_>) -> BoxFuture<'static, Result<bool, String>> {
            *self.0.lock() += 1;
            let allow = question.caller.name() == "friend" && question.wanted == Capability::Read;
            Box::pin(async move { Ok(allow) })
        }
    }
    let asked = Arc::new(Mutex::new(0));
    let settings = Settings { policy: Some(Policy(Arc::new(Friend(asked.clone())))), ..Settings::default() };
    let site = Site::with(settings).await;
    site.create(&user("alice"), "db", "x", &[]).await.unwrap();
    assert!(site.read(&user("alice"), "db").await.is_ok());
    assert_eq!(*asked.lock(), 0);
    assert!(site.read(&user("friend"), "db").await.is_ok());
    assert!(site.read(&user("eve"), "db").await.is_err());
    assert_eq!(*asked.lock(), 2);
    let lines = site.log.lines.lock();
    assert_eq!(lines[lines.len() - 3..], ["alice read db ok", "friend read db ok by access callback", "eve read db denied"]);
}

#[tokio::test]
async fn a_bulk_read_records_what_was_given_and_what_was_refused_apart() {
    struct Friend;
    impl AccessPolicy for Friend {
        fn ask(&self, question: Question<'_>) -> BoxFuture<'static, Result<bool, String>> {
            let allow = question.key.id.as_str().starts_with("open");
            Box::pin(async move { Ok(allow) })
        }
    }
    let site = Site::with(Settings { policy: Some(Policy(Arc::new(Friend))), ..Settings::default() }).await;
    let (alice, bob) = (user("alice"), user("bob"));
    for id in ["secret1", "secret2", "open"] {
        site.create(&alice, id, "x", &[]).await.unwrap();
    }
    site.create(&alice, "shared", "x", &[("user:bob", read_only().capabilities())]).await.unwrap();
    site.log.lines.lock().clear();
    let ids = ["secret1", "shared", "missing", "open", "secret2"].map(str::to_owned);
    let answers = site.engine.bulk_read(&bob, "test", &ids).await.unwrap();
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false, true, false]);
    let expected = [
        "bob bulk_read secret1,secret2 denied",
        "bob bulk_read shared ok",
        "bob bulk_read missing not_found",
        "bob bulk_read open ok by access callback",
    ];
    assert_eq!(*site.log.lines.lock(), expected);
    site.log.broken.store(true, Ordering::SeqCst);
    assert!(matches!(site.engine.bulk_read(&bob, "test", &ids).await, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn a_list_of_rights_that_is_too_long_is_refused_and_not_in_force() {
    let site = Site::new().await;
    let alice = user("alice");
    site.create(&alice, "db", "x", &[]).await.unwrap();
    let before = site.engine.revision();
    let long = Principal::unchecked("machine", &"m".repeat(100_000)).unwrap();
    let one = RightsEdit::Set(vec![(long.clone(), read_only().capabilities())]);
    let many = (0..5000).map(|n| (format!("user:u{n}").parse().unwrap(), read_only().capabilities())).collect();
    for (edit, field) in [(&one, "principal"), (&RightsEdit::Set(many), "grants")] {
        let changed = site.engine.change_rights(&alice, "test", "db", edit, Precondition::Any, |_, _| Ok(())).await;
        assert!(matches!(&changed, Err(Error::Invalid { field: f, .. }) if *f == field), "{changed:?}");
    }
    let new = NewKey { acl: Acl::default().set(long, read_only().capabilities()), ..new_key("other", "x", &[]) };
    assert!(matches!(site.engine.create(&alice, "test", new).await, Err(Error::Invalid { field: "principal", .. })));
    assert_eq!(site.engine.revision(), before);
}

#[tokio::test]
async fn a_rotated_barrier_opens_what_was_sealed_before_and_after() {
    let site = Site::new().await;
    let alice = user("alice");
    site.create(&alice, "old", "before", &[]).await.unwrap();
    site.engine.rotate_barrier(&[&site.root]).await.unwrap();
    site.create(&alice, "new", "after", &[]).await.unwrap();
    let restarted = site.restart().await.unwrap();
    assert!(restarted.report.digest_matches);
    assert_eq!(restarted.engine.barrier_versions(), (2, vec![1, 2]));
    for id in ["old", "new"] {
        assert!(restarted.engine.read(&alice, "test", id, Select::Active).await.is_ok());
    }
}

#[tokio::test]
async fn rows_sealed_before_a_rotation_are_changed_and_deleted_without_breaking_the_sums() {
    let site = Site::new().await;
    let alice = user("alice");
    for id in ["changed", "gone"] {
        site.create(&alice, id, "x", &[]).await.unwrap();
    }
    let doomed = site.add(&alice, "changed", "doomed").await;
    site.engine.transition(&alice, "test", "changed", doomed, Transition::Deactivate, Precondition::Any).await.unwrap();
    for prefix in ["changed/", "gone/"] {
        site.grant(prefix, &[("user:bob", read_only().capabilities())], false).await.unwrap();
    }
    site.create(&alice, "again", "x", &[]).await.unwrap();
    site.engine.delete(&alice, "test", "again", Precondition::Any).await.unwrap();
    for _ in 0..2 {
        site.engine.rotate_barrier(&[&site.root]).await.unwrap();
        let restarted = site.restart().await.unwrap();
        assert!(restarted.report.digest_matches);
    }
    site.grant("changed/", &[("user:carol", read_only().capabilities())], false).await.unwrap();
    let system = Caller::system("test", RequestId(9));
    site.engine.change_prefix(&system, "test", &Prefix::parse("gone/").unwrap(), None, Precondition::Any).await.unwrap();
    site.engine.transition(&alice, "test", "changed", doomed, Transition::Destroy, Precondition::Any).await.unwrap();
    site.engine.delete(&alice, "test", "gone", Precondition::Any).await.unwrap();
    site.create(&alice, "again", "y", &[]).await.unwrap();
    site.engine.delete(&alice, "test", "again", Precondition::Any).await.unwrap();
    let report = site.restart().await.unwrap().report;
    assert!(report.digest_matches && !report.tampered, "{report:?}");
}

#[tokio::test]
async fn a_list_shows_what_the_caller_has_a_right_on_page_by_page() {
    let site = Site::new().await;
    for i in 0..25 {
        let grants: &[(&str, Capabilities)] = if i % 2 == 0 { &[("user:bob", Preset::Read.capabilities())] } else { &[] };
        site.create(&user("alice"), &format!("k/{i:02}"), "x", grants).await.unwrap();
    }
    let mut pattern = Pattern { prefix: "k/".into(), ..Pattern::default() };
    let mut seen = Vec::new();
    loop {
        let page = site.engine.list(&user("bob"), "test", &pattern, 5).await.unwrap();
        seen.extend(page.keys.iter().map(|k| k.entry.meta.id.to_string()));
        pattern.after = page.next;
        if pattern.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).step_by(2).map(|i| format!("k/{i:02}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn all_ids_and_a_poll_are_gathered_in_steps_and_whole() {
    let site = Site::new().await;
    let ids: Vec<_> = (0..2_001).map(|i| format!("k/{i:04}")).collect();
    for id in &ids {
        site.create(&user("alice"), id, "x", &[]).await.unwrap();
    }
    let (alice, bob) = (user("alice"), user("bob"));
    let list = async |who, disclosure| site.engine.list_ids(who, "test", disclosure, |_| true).await.unwrap();
    for (who, disclosure, whole) in
        [(&alice, Disclosure::Permitted, true), (&bob, Disclosure::Everyone, true), (&bob, Disclosure::Permitted, false)]
    {
        let expected = if whole { ids.clone() } else { Vec::new() };
        assert_eq!(list(who, disclosure).await.iter().map(KeyId::to_string).collect::<Vec<_>>(), expected);
        let asked = ids.iter().map(|id| (id.as_str(), &b"old"[..])).chain([("none", &b""[..])]);
        let polled = site.engine.poll(who, "test", disclosure, asked, |_, value| value == b"old").await.unwrap();
        assert_eq!(polled.len(), expected.len());
    }
}

#[tokio::test]
async fn a_value_or_a_key_beyond_the_limits_is_refused_and_changes_nothing() {
    let site = Site::with(Settings { max_value: 4, max_versions: 2, ..Settings::default() }).await;
    let alice = user("alice");
    assert!(matches!(site.create(&alice, "db", "12345", &[]).await, Err(Error::Invalid { field: "data", .. })));
    site.create(&alice, "db", "1234", &[]).await.unwrap();
    site.add(&alice, "db", "x").await;
    let third = site.engine.add_version(&alice, "test", "db", &version("y"), false, Precondition::Any).await;
    assert!(matches!(third, Err(Error::Invalid { field: "versions", .. })));
    assert_eq!(site.engine.key_count(), 1);
}

#[tokio::test]
async fn an_answer_has_no_more_bytes_than_the_limit_and_what_does_not_fit_can_be_asked_for_again() {
    let site = Site::with(Settings { max_value: 10, max_answer: 25, inline_limit: 8, ..Settings::default() }).await;
    let alice = user("alice");
    for id in ["a", "b", "c", "d"] {
        site.create(&alice, id, "0123456789", &[]).await.unwrap();
    }
    let bulk = async |ids: &[&str]| {
        let ids: Vec<_> = ids.iter().map(|id| (*id).to_owned()).collect();
        let answers = site.engine.bulk_read(&alice, "test", &ids).await.unwrap();
        answers.into_iter().map(|a| a.err()).collect::<Vec<_>>()
    };
    let missing = || Some(Error::NotFound("key `x`".to_owned()));
    assert_eq!(
        bulk(&["a", "b", "x", "c", "x", "d"]).await,
        [None, None, missing(), Some(Error::AnswerFull), missing(), Some(Error::AnswerFull)]
    );
    assert_eq!(bulk(&["c", "d"]).await, [None, None]);
    site.add(&alice, "c", "0123456789").await;
    assert_eq!(site.read(&alice, "c").await.unwrap().len(), 2);
    site.add(&alice, "c", "0123456789").await;
    assert_eq!(site.read(&alice, "c").await, Err(Error::AnswerTooLarge { max: 25 }));
    assert_eq!(bulk(&["a", "c"]).await, [None, Some(Error::AnswerFull)]);
    assert_eq!(bulk(&["c", "a"]).await, [Some(Error::AnswerTooLarge { max: 25 }), None]);
    assert_eq!(site.read_as(&alice, "c", Select::Primary).await.unwrap(), ["0123456789"]);
}

#[tokio::test]
async fn a_key_that_rotates_for_ever_neither_ends_nor_grows() {
    let site = Site::with(Settings { max_versions: 2, ..Settings::default() }).await;
    let alice = user("alice");
    let mut old = site.create(&alice, "db", "0", &[]).await.unwrap().version.unwrap();
    for round in 1..100 {
        let new = site.add(&alice, "db", &round.to_string()).await;
        let full = site.engine.add_version(&alice, "test", "db", &version("x"), false, Precondition::Any).await;
        assert!(matches!(full, Err(Error::Invalid { field: "versions", .. })));
        for (id, step) in [(new, Transition::Promote), (old, Transition::Deactivate), (old, Transition::Destroy)] {
            site.engine.transition(&alice, "test", "db", id, step, Precondition::Any).await.unwrap();
        }
        old = new;
    }
    assert_eq!(site.read(&alice, "db").await.unwrap(), ["99"]);
    let restarted = site.restart().await.unwrap();
    assert!(restarted.report.digest_matches);
    let versions = restarted.engine.inspect(&alice, "test", "db").await.unwrap().entry.meta.versions.clone();
    assert_eq!((versions.living(), versions.len()), (1, 66));
}

#[tokio::test]
async fn large_data_is_read_from_the_store() {
    let site = Site::with(Settings { inline_limit: 8, ..Settings::default() }).await;
    let alice = user("alice");
    let long = "x".repeat(5000);
    site.create(&alice, "db", &long, &[]).await.unwrap();
    assert_eq!(site.read(&alice, "db").await.unwrap(), [long]);
}

#[tokio::test]
async fn an_edit_reads_no_large_data_except_of_a_version_that_becomes_active_again() {
    let site = Site::with(Settings { inline_limit: 8, ..Settings::default() }).await;
    let alice = user("alice");
    let long = "x".repeat(5000);
    site.create(&alice, "db", &long, &[]).await.unwrap();
    let second = site.add(&alice, "db", &long).await;
    site.set(&alice, "db", "user:bob", read_only().capabilities()).await.unwrap();
    site.engine.transition(&alice, "test", "db", second, Transition::Deactivate, Precondition::Any).await.unwrap();
    assert_eq!(site.store.versions_read.load(Ordering::SeqCst), 0);
    site.engine.transition(&alice, "test", "db", second, Transition::Reactivate, Precondition::Any).await.unwrap();
    assert_eq!(site.store.versions_read.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_is_left_of_the_audit_logs_space_is_for_reads() {
    let site = Site::new().await;
    let alice = user("alice");
    site.create(&alice, "db", "old", &[]).await.unwrap();
    site.log.short.store(true, Ordering::SeqCst);
    assert!(matches!(site.create(&alice, "other", "x", &[]).await, Err(Error::Full(_))));
    assert_eq!(site.read(&alice, "db").await.unwrap(), ["old"]);
    site.log.short.store(false, Ordering::SeqCst);
    site.create(&alice, "other", "x", &[]).await.unwrap();
}

#[tokio::test]
async fn a_change_without_its_record_is_recorded_once_by_request_and_not_before_its_time() {
    let site = Site::new().await;
    site.log.broken.store(true, Ordering::SeqCst);
    let revision = site.engine.revision().next();
    assert!(matches!(site.create(&user("alice"), "db", "old", &[]).await, Err(Error::Unrecorded { revision: at, .. }) if at == revision));
    assert_eq!(site.engine.revision(), revision, "it is in force as the error says");
    site.log.broken.store(false, Ordering::SeqCst);
    let beginning = Revision::default();
    let (grant, create) = (RequestId(9), RequestId(7));
    let reconcile = async |known: &[RequestId], after, since| {
        site.engine.reconcile(&known.iter().copied().collect(), after, Timestamp(since)).await.unwrap()
    };
    assert_eq!(reconcile(&[grant, create], beginning, 0).await, 0);
    assert_eq!(reconcile(&[grant], beginning, i64::MAX).await, 0);
    assert_eq!(reconcile(&[], site.engine.revision(), 0).await, 0);
    assert_eq!(reconcile(&[grant], beginning, 0).await, 1);
    assert_eq!(site.log.lines.lock().last().unwrap(), "- reconcile db ok");
}
