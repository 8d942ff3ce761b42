//! `GET /watch`: changes as server-sent events.
//!
//! # Guarantees
//! - Every change in the scope after the revision of `ready` is told, in order, or the stream says `compacted` and ends.
//! - A line `id:` is a revision from which nothing is missed; where one change has several events, only the last has it.
//! - What is told of a change was judged by the rights just before and after it.
//! - Who was cut off, or names a revision that is no longer known, is told `deleted` and `revoked` of what he lost in
//!   between, before `compacted`.
//! - Nothing is told on a credential that does not stand: it is examined again with each heartbeat, when roots change and
//!   when a certificate in its path ends; a refusal ends the stream ▲.
//!
//! # Assumptions
//! The transport drops a stream whose client is gone or does not read; who falls behind is cut off by the feed.

use super::{Answer, Ask, Fault, FieldError, Native, NativeParts, SURFACE};
use crate::callers::Standing;
use crate::http::{Connection, Response};
use bytes::Bytes;
use claviger_domain::audit::{Action, Outcome, Record};
use claviger_domain::{Caller, Identity, KeyId, Prefix, Principal, Revision, SecretBytes};
use claviger_engine::{Subscription, Telling, Told, WatchScope};
use claviger_wire::native::WatchEvent;
use futures::{FutureExt, Stream, stream};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Single keys that one stream follows at most.
const IDS: usize = 10_000;
/// Prefixes that one stream follows at most.
const PREFIXES: usize = 1000;

/// How many streams each identity has open.
#[derive(Default)]
pub(crate) struct OpenWatches(Mutex<HashMap<Principal, usize>>);

/// One of them; dropping it makes room for another.
struct OpenWatch {
    all: Arc<OpenWatches>,
    whose: Principal,
}

impl OpenWatches {
    fn open(self: &Arc<Self>, whose: Principal, most: usize) -> Option<OpenWatch> {
        let mut counts = self.0.lock();
        let count = counts.entry(whose.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(OpenWatch { all: self.clone(), whose })
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock();
        let left = counts.get_mut(&self.whose).map(|count| {
            *count -= 1;
            *count
        });
        if left == Some(0) {
            counts.remove(&self.whose);
        }
    }
}

/// A stream's state between two events. There may be ten thousand of these: everything large in it is shared.
struct Follower {
    parts: Arc<NativeParts>,
    subscription: Subscription,
    caller: Caller,
    connection: Arc<Connection>,
    _open: OpenWatch,
    /// What the caller showed, to be examined again.
    credential: Option<SecretBytes>,
    /// How long what he has proven stands without another look.
    standing: Standing,
    heartbeat: Duration,
    next_beat: Instant,
    /// The last revision told of, for heartbeats between an event's commit and its telling.
    told: Revision,
    /// Sent before anything else.
    first: Bytes,
    /// What is being told.
    telling: Option<Telling>,
    ended: bool,
}

impl Native {
    pub(crate) async fn watch(&self, ask: &Ask<'_>) -> Answer {
        let (scope, since) = wanted(ask)?;
        let heartbeat = Duration::from_secs(ask.query.number("heartbeat", 1, 300)?.unwrap_or(15));
        let open = self.open_watch(ask).await?;
        let credential = ask.head.headers.get("authorization").map(|value| SecretBytes::new(value.to_vec()));
        let header = credential.as_ref().map(SecretBytes::expose);
        // Roots may have changed since the request was let in.
        let (caller, standing) = match self.parts.callers.examine_again(ask.connection, header, ask.caller.request_id) {
            Ok(proven) => proven,
            Err(failure) => return Err(self.unproven(&failure, ask.head, ask.connection, ask.caller.request_id).await.into()),
        };
        let subscription = self.engine().watch(ask.caller, SURFACE, scope, since).await?;
        let mut follower = Follower {
            parts: self.parts.clone(),
            caller,
            connection: ask.connection.clone(),
            _open: open,
            credential,
            standing,
            heartbeat,
            next_beat: Instant::now() + heartbeat,
            told: since.unwrap_or(subscription.started()),
            first: Bytes::new(),
            telling: None,
            ended: false,
            subscription,
        };
        follower.begin(since);
        let response = Response::new(200).with_header("Content-Type", "text/event-stream").with_header("Cache-Control", "no-store");
        Ok(response.with_stream(follow(follower)))
    }

    async fn open_watch(&self, ask: &Ask<'_>) -> Result<OpenWatch, Fault> {
        let most = self.parts.watches_per_identity;
        let whose = ask.caller.default_identity().map(Identity::principal);
        if let Some(open) = whose.and_then(|whose| self.open_watches.open(whose, most)) {
            return Ok(open);
        }
        let fault = Fault::too_many_streams(most);
        Err(self.refuse(ask.head, ask.connection, ask.caller, "this identity has too many streams open", fault).await)
    }
}

fn wanted(ask: &Ask<'_>) -> Result<(WatchScope, Option<Revision>), FieldError> {
    let ids = ask.query.all("id").map(KeyId::parse).collect::<Result<Vec<_>, _>>();
    let prefixes = ask.query.all("prefix").map(Prefix::parse).collect::<Result<Vec<_>, _>>();
    let mut scope =
        WatchScope { ids: ids.map_err(|e| FieldError::new("id", e))?, prefixes: prefixes.map_err(|e| FieldError::new("prefix", e))? };
    scope.ids.sort_unstable();
    scope.ids.dedup();
    scope.prefixes.sort_unstable();
    scope.prefixes.dedup();
    if scope.ids.is_empty() && scope.prefixes.is_empty() {
        return Err(FieldError::new("id", "give at least one id or prefix to follow"));
    }
    if scope.ids.len() > IDS {
        return Err(FieldError::new("id", format!("one stream follows at most {IDS} ids; open another, or follow a prefix")));
    }
    if scope.prefixes.len() > PREFIXES {
        return Err(FieldError::new("prefix", format!("one stream follows at most {PREFIXES} prefixes")));
    }
    let bad = || FieldError::new("since", "must be a revision such as 1.42");
    let since = ask.query.one("since").map(|text| Revision::parse(text).ok_or_else(bad)).transpose()?;
    Ok((scope, since))
}

fn follow(follower: Follower) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(follower, |mut follower| async move {
        let bytes = follower.step().await?;
        Some((bytes, follower))
    })
}

impl Follower {
    /// What comes first: which of the keys are gone, and that the stream is live; or that it cannot be.
    fn begin(&mut self, since: Option<Revision>) {
        let waiting = match self.subscription.next().now_or_never() {
            Some(None) => return self.cut_off(),
            Some(Some(event)) => Some(event),
            None => None,
        };
        let mut out = Vec::with_capacity(96);
        if since.is_none() {
            self.push_gone(&mut out);
        }
        push(&mut out, "ready", &at(self.told), Some(self.told));
        self.first = out.into();
        self.telling = waiting.map(Telling::of);
    }

    /// Keys that were deleted before the stream began, and that the caller could see. Who names the revision that he
    /// has seen was told, or is told by the events since.
    fn push_gone(&self, out: &mut Vec<u8>) {
        for id in &self.subscription.scope().ids {
            let deleted = self.parts.engine.deleted_at(&self.caller, id).filter(|r| *r <= self.subscription.started());
            if let Some(revision) = deleted {
                push(out, "deleted", &WatchEvent { id: Some(id.to_string()), ..at(revision) }, None);
            }
        }
    }

    /// The next bytes of the stream; none when it ends.
    async fn step(&mut self) -> Option<Bytes> {
        if !self.first.is_empty() {
            return Some(std::mem::take(&mut self.first));
        }
        loop {
            if self.ended || self.parts.shutdown.started() {
                return None;
            }
            // Begun before the look at the credential, so that no change of roots comes between the look and the wait.
            let callers = self.parts.callers.clone();
            let roots_changed = callers.roots_changed();
            if !self.parts.callers.stands(&self.standing) && !self.still_proven().await {
                return None;
            }
            // A stream that always has events must beat too.
            if Instant::now() >= self.next_beat {
                return self.beat().await;
            }
            if let Some(telling) = self.telling.take() {
                match self.tell(telling).await? {
                    nothing if nothing.is_empty() => tokio::task::yield_now().await,
                    bytes => return Some(bytes),
                }
                continue;
            }
            let next_look = self.next_look();
            tokio::select! {
                biased;
                event = self.subscription.next() => match event {
                    Some(event) => self.telling = Some(Telling::of(event)),
                    None => self.cut_off(),
                },
                () = tokio::time::sleep_until(next_look) => {}
                () = roots_changed => {}
                () = self.parts.shutdown.wait() => return None,
            }
        }
    }

    /// When to beat, or to look at the credential before that.
    fn next_look(&self) -> Instant {
        let left = self.standing.left(self.parts.clock.now());
        Instant::now().checked_add(left).map_or(self.next_beat, |end| end.min(self.next_beat))
    }

    fn cut_off(&mut self) {
        self.telling = Some(self.parts.engine.telling_of_gap(self.subscription.scope(), Some(self.told)));
    }

    /// The next part of what is being told. None ends the stream: what could not be found out must not be passed over.
    async fn tell(&mut self, mut telling: Telling) -> Option<Bytes> {
        let told = match self.parts.engine.tell(&self.caller, self.subscription.scope(), &mut telling).await {
            Ok(told) => told,
            Err(error) => {
                tracing::warn!(%error, "a stream ends, since what it missed could not be found out");
                return None;
            }
        };
        let mut out = Vec::new();
        let last = told.len().saturating_sub(1);
        for (i, told) in told.into_iter().enumerate() {
            let (kind, body) = described(told);
            // Who resumes in the middle of one change's events must be given all of them again.
            let resume = (telling.is_done() && i == last).then_some(telling.revision());
            push(&mut out, kind, &body, resume);
        }
        if telling.is_done() {
            self.told = telling.revision();
            self.ended = telling.is_gap();
        } else {
            self.telling = Some(telling);
        }
        Some(out.into())
    }

    async fn beat(&mut self) -> Option<Bytes> {
        self.next_beat = Instant::now() + self.heartbeat;
        if !self.still_proven().await {
            return None;
        }
        // While a change is being told, nothing after it was, though nothing waits.
        let caught_up = self.subscription.caught_up().filter(|_| self.telling.is_none());
        let revision = caught_up.unwrap_or(self.told);
        let mut out = Vec::with_capacity(96);
        push(&mut out, "heartbeat", &at(revision), Some(revision));
        Some(out.into())
    }

    /// Examines the credential again. Certificates expire and roots change while a stream is open. The limit on failures from
    /// an address has no say: others' failures neither end this stream nor keep it open.
    async fn still_proven(&mut self) -> bool {
        let header = self.credential.as_ref().map(SecretBytes::expose);
        let why = match self.parts.callers.examine_again(&self.connection, header, self.caller.request_id) {
            Ok((caller, standing)) => {
                (self.caller, self.standing) = (caller, standing);
                return true;
            }
            Err(failure) => failure.to_string(),
        };
        let reason = format!("the stream ends: {why}");
        let bare = Record::new(self.parts.clock.now(), self.caller.request_id, SURFACE, Action::Watch, Outcome::Unauthenticated);
        let record = Record { caller: Some(&self.caller), address: self.caller.address, reason: &reason, ..bare };
        if let Err(error) = self.parts.engine.note(&record).await {
            tracing::error!(%error, "recording the end of a stream");
        }
        false
    }
}

fn at(revision: Revision) -> WatchEvent {
    WatchEvent { id: None, revision: revision.to_string(), etag: None, what: None }
}

fn described(told: Told) -> (&'static str, WatchEvent) {
    let of = |id: &KeyId, revision| WatchEvent { id: Some(id.to_string()), ..at(revision) };
    match told {
        Told::Changed { id, revision, etag: (incarnation, generation), what } => {
            let etag = Some(format!("{incarnation:016x}-{generation}"));
            ("changed", WatchEvent { etag, what: Some(what.to_owned()), ..of(&id, revision) })
        }
        Told::Deleted { id, revision } => ("deleted", of(&id, revision)),
        Told::Revoked { id, revision } => ("revoked", of(&id, revision)),
        Told::Compacted { revision } => ("compacted", at(revision)),
    }
}

/// Appends one event. JSON has no line breaks, so it is one line of data.
fn push(out: &mut Vec<u8>, kind: &str, body: &WatchEvent, resume: Option<Revision>) {
    let id = resume.map(|r| format!("id: {r}\n")).unwrap_or_default();
    let data = serde_json::to_string(body).expect("an event is a map of strings");
    out.extend_from_slice(format!("{id}event: {kind}\ndata: {data}\n\n").as_bytes());
}

// Ten thousand streams may be open: what a stream holds beside its ids stays below half a kilobyte.
const _: () = assert!(size_of::<Follower>() <= 512);
