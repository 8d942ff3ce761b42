//! `GET /watch`: changes as server-sent events.
//!
//! # Guarantees
//! - Every change in the scope after the revision of `ready` is told, in order, or the stream says `compacted` and ends.
//! - A line `id:` is a revision from which nothing is missed; where one change has several events, only the last has it.
//! - What is told was judged by the rights at the moment of telling.
//! - With each heartbeat the caller's credential is examined again; one that has expired ends the stream.
//!
//! # Assumptions
//! The transport drops a stream whose client is gone or does not read; who falls behind is cut off by the feed.

use super::{Answer, Ask, FieldError, Native, NativeParts, SURFACE};
use crate::callers::AuthFailure;
use crate::http::{Connection, Response};
use bytes::Bytes;
use claviger_domain::audit::{Action, Outcome, Record};
use claviger_domain::{Caller, KeyId, Prefix, Revision, SecretBytes};
use claviger_engine::{Event, Subscription, Told, WatchScope};
use claviger_wire::native::WatchEvent;
use futures::{FutureExt, Stream, stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Single keys that one stream follows at most.
const IDS: usize = 10_000;
/// Prefixes that one stream follows at most.
const PREFIXES: usize = 1000;

/// A stream's state between two events. There may be ten thousand of these: everything large in it is shared.
struct Follower {
    parts: Arc<NativeParts>,
    subscription: Subscription,
    caller: Caller,
    connection: Arc<Connection>,
    /// What the caller showed, to be examined again.
    credential: Option<SecretBytes>,
    heartbeat: Duration,
    next_beat: Instant,
    /// The last revision told of, for heartbeats between an event's commit and its telling.
    told: Revision,
    /// Sent before anything else.
    first: Bytes,
    ended: bool,
}

impl Native {
    pub(crate) async fn watch(&self, ask: &Ask<'_>) -> Answer {
        let (scope, since) = wanted(ask)?;
        let heartbeat = Duration::from_secs(ask.query.number("heartbeat", 1, 300)?.unwrap_or(15));
        let subscription = self.engine().watch(ask.caller, SURFACE, scope, since).await?;
        let mut follower = Follower {
            parts: self.parts.clone(),
            caller: ask.caller.clone(),
            connection: ask.connection.clone(),
            credential: ask.head.headers.get("authorization").map(|value| SecretBytes::new(value.to_vec())),
            heartbeat,
            next_beat: Instant::now() + heartbeat,
            told: since.unwrap_or(subscription.started()),
            first: Bytes::new(),
            ended: false,
            subscription,
        };
        follower.first = follower.begin(since);
        let response = Response::new(200).with_header("Content-Type", "text/event-stream").with_header("Cache-Control", "no-store");
        Ok(response.with_stream(follow(follower)))
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
    fn begin(&mut self, since: Option<Revision>) -> Bytes {
        let mut out = Vec::with_capacity(96);
        let waiting = self.subscription.next().now_or_never();
        if matches!(waiting, Some(None)) {
            return self.compacted();
        }
        if since.is_none() {
            self.push_gone(&mut out);
        }
        push(&mut out, "ready", &at(self.told), Some(self.told));
        if let Some(Some(event)) = waiting {
            self.push_event(&mut out, &event);
        }
        out.into()
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
            // A stream that always has events must beat too.
            if Instant::now() >= self.next_beat {
                return self.beat().await;
            }
            let event = tokio::select! {
                biased;
                event = self.subscription.next() => event,
                () = tokio::time::sleep_until(self.next_beat) => continue,
                () = self.parts.shutdown.wait() => return None,
            };
            let Some(event) = event else { return Some(self.compacted()) };
            let mut out = Vec::new();
            self.push_event(&mut out, &event);
            if !out.is_empty() {
                return Some(out.into());
            }
        }
    }

    fn compacted(&mut self) -> Bytes {
        self.ended = true;
        let revision = self.parts.engine.revision();
        let mut out = Vec::with_capacity(96);
        push(&mut out, "compacted", &at(revision), Some(revision));
        out.into()
    }

    async fn beat(&mut self) -> Option<Bytes> {
        self.next_beat = Instant::now() + self.heartbeat;
        if !self.still_proven().await {
            return None;
        }
        let revision = self.subscription.caught_up().unwrap_or(self.told);
        let mut out = Vec::with_capacity(96);
        push(&mut out, "heartbeat", &at(revision), Some(revision));
        Some(out.into())
    }

    /// Examines the credential again. Certificates expire and roots change while a stream is open.
    async fn still_proven(&mut self) -> bool {
        let header = self.credential.as_ref().map(SecretBytes::expose);
        let why = match self.parts.callers.native(&self.connection, header, self.caller.request_id) {
            Ok(caller) => {
                self.caller = caller;
                return true;
            }
            // Others behind the same address failed too often: that says nothing about this caller.
            Err(AuthFailure::RateLimited { .. }) => return true,
            Err(AuthFailure::Unauthenticated(why)) => why,
        };
        let reason = format!("the stream ends: {why}");
        let bare = Record::new(self.parts.clock.now(), self.caller.request_id, SURFACE, Action::Watch, Outcome::Unauthenticated);
        let record = Record { caller: Some(&self.caller), address: self.caller.address, reason: &reason, ..bare };
        if let Err(error) = self.parts.engine.note(&record).await {
            tracing::error!(%error, "recording the end of a stream");
        }
        false
    }

    fn push_event(&mut self, out: &mut Vec<u8>, event: &Event) {
        self.told = event.revision;
        let told = self.parts.engine.told(&self.caller, &self.subscription, event);
        let count = told.len();
        for (i, told) in told.into_iter().enumerate() {
            let (kind, body) = described(told);
            // Who resumes in the middle of one change's events must be given all of them again.
            push(out, kind, &body, (i + 1 == count).then_some(event.revision));
        }
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
