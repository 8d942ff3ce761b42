//! Following changes: a stream of events that reconnects by itself and loses nothing.
//!
//! # Guarantees
//! - After a break the stream goes on from the last revision seen; what the server no longer has is told as
//!   [`Event::Compacted`], never passed over in silence.
//! - Nothing is told of a server that shows less than was told before, one of several that is behind or an old copy: it counts as lost.
//! - A connection on which nothing comes, not even heartbeats, is given up after two and a half of their intervals.
//! - Reconnections have full jitter, and wait at least as long as the server asks. A server that takes the watch and breaks
//!   it again and again is tried ever more slowly.
//!
//! # Assumptions
//! Whoever holds a [`Watch`] takes its events; one who does not is in time cut off by the server, and then resumes.

use crate::backoff::Backoff;
use crate::buffer::Buffer;
use crate::http::{Body, Connection};
use crate::request::{Request, Target};
use crate::secret::parse_revision;
use crate::sse::{Frame, Parser};
use crate::{Client, Error, client::parse_json};
use claviger_domain::{KeyId, Prefix, Revision};
use claviger_wire::native::WatchEvent;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What to follow.
#[derive(Debug, Clone)]
pub struct WatchRequest {
    /// Single keys.
    pub ids: Vec<KeyId>,
    /// All keys below these prefixes.
    pub prefixes: Vec<Prefix>,
    /// Changes after this revision; without it, from now on.
    pub since: Option<Revision>,
    /// How often the server shows that it lives; at least one second.
    pub heartbeat: Duration,
    /// Whether to be told of each sign of life, as [`Event::Alive`].
    pub signs_of_life: bool,
}

/// What a watch tells.
#[derive(Debug)]
pub enum Event {
    /// The stream is live; all changes after this revision will come.
    Ready {
        /// Where it starts.
        revision: Revision,
    },
    /// A key was made or changed.
    Changed(Change),
    /// A key was deleted.
    Deleted(Change),
    /// The caller may no longer read a key.
    Revoked(Change),
    /// Changes were missed for ever: read everything again. The stream goes on.
    Compacted {
        /// From where it goes on.
        revision: Revision,
    },
    /// The server lives, and everything up to this revision was told. Only where it was asked for.
    Alive {
        /// What was reached.
        revision: Revision,
    },
    /// The stream broke or could not be opened; it will be tried again. Nothing that is known became untrue by this.
    Lost {
        /// Why. When it is not [transient](Error::is_transient), trying again may well be in vain.
        error: Error,
        /// When.
        retry_in: Duration,
    },
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key's id.
    pub id: String,
    /// The change's revision.
    pub revision: Revision,
    /// The key's ETag after it.
    pub etag: Option<String>,
    /// What was done: create, add_version, promote, …
    pub what: Option<String>,
}

/// A running watch; dropping it closes the connection.
pub struct Watch {
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Default for WatchRequest {
    fn default() -> Self {
        Self { ids: Vec::new(), prefixes: Vec::new(), since: None, heartbeat: Duration::from_secs(15), signs_of_life: false }
    }
}

impl Client {
    /// Starts to follow changes, on a connection of its own. Must be called within a Tokio runtime.
    #[must_use]
    pub fn watch(&self, request: WatchRequest) -> Watch {
        let (sender, events) = mpsc::channel(64);
        let task = tokio::spawn(Follower::new(self.clone(), request, sender).run());
        Watch { events, task }
    }
}

impl Watch {
    /// The next event. May be cancelled without losing one.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // The task ends only when this receiver is gone, unless it panicked.
            None => std::future::pending().await,
        }
    }

    /// An event that is already there.
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task behind a [`Watch`].
struct Follower {
    client: Client,
    request: WatchRequest,
    events: mpsc::Sender<Event>,
    backoff: Backoff,
}

/// Nobody listens any more.
struct Gone;

impl Follower {
    fn new(client: Client, request: WatchRequest, events: mpsc::Sender<Event>) -> Self {
        let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        Self { client, request, events, backoff }
    }

    async fn run(mut self) {
        loop {
            let error = match self.follow_once().await {
                Ok(Gone) => return,
                Err(error) => error,
            };
            let retry_in = error.retry_after().unwrap_or_default() + self.backoff.next_wait();
            if self.events.send(Event::Lost { error, retry_in }).await.is_err() {
                return;
            }
            tokio::time::sleep(retry_in).await;
        }
    }

    /// One connection, from opening to its break.
    async fn follow_once(&mut self) -> Result<Gone, Error> {
        let (mut connection, mut body) = self.client.stream(&target(&self.request)).await?;
        let mut parser = Parser::default();
        let mut opening = Opening { told: self.request.since, held: Vec::new() };
        loop {
            let bytes = self.read(&mut connection, &mut body).await?;
            let frames = parser.push(bytes.bytes()).map_err(|_| Error::Malformed("the watch is no stream of events".to_owned()))?;
            for frame in frames {
                let told = event(&frame)?.map(|event| opening.take(event)).transpose();
                let told = told.map_err(|(shows, told)| Error::Behind { address: self.client.address(), shows, told })?;
                for event in told.into_iter().flatten() {
                    let is_wanted = self.request.signs_of_life || !matches!(event, Event::Alive { .. });
                    if is_wanted && self.events.send(event).await.is_err() {
                        return Ok(Gone);
                    }
                }
                self.request.since = resume_point(&frame)?.or(self.request.since);
            }
        }
    }

    async fn read(&self, connection: &mut Connection, body: &mut Body) -> Result<Buffer, Error> {
        let mut bytes = Buffer::with_capacity(0);
        let limit = self.request.heartbeat.max(Duration::from_secs(1)).mul_f32(2.5);
        match tokio::time::timeout(limit, connection.more(body, &mut bytes)).await {
            Ok(Ok(true)) => Ok(bytes),
            Ok(Ok(false)) => Err(self.silence("the server ended the watch")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.silence("no heartbeat came")),
        }
    }

    fn silence(&self, reason: &str) -> Error {
        Error::Broken { address: self.client.address(), reason: reason.to_owned() }
    }
}

/// The beginning of a connection, until the server has said how far it is.
///
/// A server that does not know what was told before tells first which keys are gone, also by changes of long ago. Whether that counts shows
/// only then: a server that was restored is right in it, one that is behind is not.
struct Opening {
    /// What was told before; none once the server has shown as much.
    told: Option<Revision>,
    /// What it said of the time before that.
    held: Vec<Event>,
}

impl Opening {
    /// What may be told now that this came.
    ///
    /// # Errors
    /// What the server shows, and what was told before, when that is more.
    fn take(&mut self, event: Event) -> Result<Vec<Event>, (Revision, Revision)> {
        let Some(told) = self.told else { return Ok(vec![event]) };
        match &event {
            Event::Ready { revision } | Event::Compacted { revision } | Event::Alive { revision } => {
                if *revision < told {
                    return Err((*revision, told));
                }
                self.told = None;
                let mut all = std::mem::take(&mut self.held);
                all.push(event);
                Ok(all)
            }
            Event::Deleted(change) | Event::Revoked(change) if change.revision <= told => {
                self.held.push(event);
                Ok(Vec::new())
            }
            _ => Ok(vec![event]),
        }
    }
}

fn target(request: &WatchRequest) -> Request {
    let ids: Vec<_> = request.ids.iter().map(KeyId::as_str).collect();
    let prefixes: Vec<_> = request.prefixes.iter().map(Prefix::as_str).collect();
    let heartbeat = request.heartbeat.as_secs().max(1).to_string();
    let since = request.since.map(|r| r.to_string());
    let target = Target::new("/api/v1/watch").with_each("id", &ids).with_each("prefix", &prefixes);
    let target = target.with_some("since", since.as_deref()).with("heartbeat", &heartbeat).build();
    Request { accept: "text/event-stream", ..Request::new("GET", target) }
}

/// Where to go on after a break, once this frame has been handed on. The server gives an `id` only to the last event of a
/// change and to heartbeats, so that a break among the events of one change loses none of them.
pub(crate) fn resume_point(frame: &Frame) -> Result<Option<Revision>, Error> {
    match (frame.id.as_str(), frame.event.as_str()) {
        ("", "ready" | "compacted") => parse_revision(&parse_json::<WatchEvent>(frame.data.as_bytes())?.revision).map(Some),
        ("", _) => Ok(None),
        (id, _) => parse_revision(id).map(Some),
    }
}

/// The event of a frame; nothing for kinds of later servers, and for heartbeats that name no revision.
pub(crate) fn event(frame: &Frame) -> Result<Option<Event>, Error> {
    let kind = frame.event.as_str();
    if kind == "heartbeat" {
        return Ok(Revision::parse(&frame.id).map(|revision| Event::Alive { revision }));
    }
    if !matches!(kind, "ready" | "changed" | "deleted" | "revoked" | "compacted") {
        return Ok(None);
    }
    let wire: WatchEvent = parse_json(frame.data.as_bytes())?;
    let revision = parse_revision(&wire.revision)?;
    let event = match (kind, wire.id) {
        ("ready", _) => Event::Ready { revision },
        ("compacted", _) => Event::Compacted { revision },
        (_, None) => return Err(Error::Malformed(format!("an event `{kind}` without a key"))),
        (_, Some(id)) => {
            let change = Change { id, revision, etag: wire.etag, what: wire.what };
            match kind {
                "changed" => Event::Changed(change),
                "deleted" => Event::Deleted(change),
                _ => Event::Revoked(change),
            }
        }
    };
    Ok(Some(event))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frame(kind: &str, id: &str, data: &str) -> Frame {
        Frame { event: kind.to_owned(), id: id.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn frames_become_events() {
        let read = |kind: &str, data: &str| event(&frame(kind, "", data));
        let changed = read("changed", r#"{"id":"db/pw","revision":"1.7","what":"promote"}"#).unwrap().unwrap();
        assert!(matches!(changed, Event::Changed(c) if c.id == "db/pw" && c.what.as_deref() == Some("promote")));
        assert!(matches!(read("compacted", r#"{"revision":"1.9"}"#).unwrap(), Some(Event::Compacted { .. })));
        assert!(read("heartbeat", "").unwrap().is_none());
        let beat = event(&frame("heartbeat", "1.7", r#"{"revision":"1.7"}"#)).unwrap();
        assert!(matches!(beat, Some(Event::Alive { revision }) if revision.number == 7));
        assert!(read("of-the-future", "?").unwrap().is_none());
        assert!(read("changed", r#"{"revision":"1.7"}"#).is_err());
        assert!(read("changed", r#"{"id":"a","revision":"7"}"#).is_err());
    }

    #[test]
    fn what_a_server_says_of_the_past_counts_once_it_has_shown_that_it_is_not_behind() {
        let of = |epoch, number| Revision { epoch, number };
        let change = |revision| Change { id: "a".to_owned(), revision, etag: None, what: None };
        let told = |events: &[Event]| {
            events.iter().map(|event| format!("{event:?}").split([' ', '(']).next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let mut restored = Opening { told: Some(of(1, 100)), held: Vec::new() };
        assert!(restored.take(Event::Deleted(change(of(1, 60)))).unwrap().is_empty());
        assert!(restored.take(Event::Revoked(change(of(1, 100)))).unwrap().is_empty());
        assert_eq!(told(&restored.take(Event::Revoked(change(of(2, 81)))).unwrap()), ["Revoked"], "what is new is told at once");
        let all = restored.take(Event::Compacted { revision: of(2, 90) }).unwrap();
        assert_eq!(told(&all), ["Deleted", "Revoked", "Compacted"]);
        assert_eq!(told(&restored.take(Event::Deleted(change(of(1, 60)))).unwrap()), ["Deleted"], "only the beginning is doubted");
        for shows in [of(1, 99), of(0, 500)] {
            let mut behind = Opening { told: Some(of(1, 100)), held: Vec::new() };
            assert!(behind.take(Event::Deleted(change(of(1, 60)))).unwrap().is_empty());
            assert_eq!(behind.take(Event::Compacted { revision: shows }).unwrap_err(), (shows, of(1, 100)));
        }
        let mut first = Opening { told: None, held: Vec::new() };
        assert_eq!(told(&first.take(Event::Deleted(change(of(1, 60)))).unwrap()), ["Deleted"]);
    }

    #[test]
    fn a_break_within_one_change_loses_none_of_its_events() {
        let point = |kind: &str, id: &str, data: &str| resume_point(&frame(kind, id, data)).unwrap().map(|r| r.to_string());
        assert_eq!(point("revoked", "", r#"{"id":"a","revision":"1.7"}"#), None);
        assert_eq!(point("revoked", "1.7", r#"{"id":"b","revision":"1.7"}"#).as_deref(), Some("1.7"));
        assert_eq!(point("heartbeat", "1.9", "").as_deref(), Some("1.9"));
        assert_eq!(point("ready", "", r#"{"revision":"1.5"}"#).as_deref(), Some("1.5"));
    }

    #[test]
    fn the_target_names_all_that_is_followed() {
        let request = WatchRequest {
            ids: vec![KeyId::parse("a/b").unwrap()],
            prefixes: vec![Prefix::parse("team/").unwrap()],
            since: Revision::parse("1.5"),
            ..WatchRequest::default()
        };
        assert_eq!(target(&request).target, "/api/v1/watch?id=a/b&prefix=team/&since=1.5&heartbeat=15");
    }
}
