//! The watch stream.

use super::*;
use crate::http::BodyStream;
use futures::StreamExt;
use std::time::Duration;

/// An event as it came: kind, revision to resume from, data.
#[derive(Debug)]
pub(super) struct Told {
    kind: String,
    resume: Option<String>,
    data: Value,
}

pub(super) struct Stream {
    bytes: BodyStream,
    held: std::collections::VecDeque<Told>,
}

impl Stream {
    async fn open(world: &World, token: &str, query: &str) -> Self {
        Self::of(world.send(token, "GET", &format!("/watch?{query}"), &[], b"").await)
    }

    pub(super) fn of(response: Response) -> Self {
        assert_eq!(response.status, 200);
        assert_eq!(response.header("Content-Type"), Some(&b"text/event-stream"[..]));
        let ResponseBody::Stream(bytes) = response.body else { panic!("no stream") };
        Self { bytes, held: Default::default() }
    }

    pub(super) async fn next(&mut self) -> Option<Told> {
        while self.held.is_empty() {
            let bytes = self.bytes.next().await?;
            let text = std::str::from_utf8(&bytes).unwrap();
            assert!(text.ends_with("\n\n"));
            self.held.extend(text.split_terminator("\n\n").map(parse));
        }
        self.held.pop_front()
    }

    /// The next event as `kind id`.
    pub(super) async fn told(&mut self) -> String {
        let told = self.next().await.expect("the stream goes on");
        format!("{} {}", told.kind, told.data["id"].as_str().unwrap_or_default()).trim_end().to_owned()
    }

    /// Nothing is waiting.
    async fn silent(&mut self) -> bool {
        self.held.is_empty() && tokio::time::timeout(Duration::from_millis(1), self.bytes.next()).await.is_err()
    }
}

fn parse(frame: &str) -> Told {
    let field = |name: &str| frame.lines().find_map(|l| l.strip_prefix(name)).map(str::to_owned);
    Told { kind: field("event: ").unwrap(), resume: field("id: "), data: serde_json::from_str(&field("data: ").unwrap()).unwrap() }
}

const READER: &str = r#"{"grants":[{"principal":"user:bob","preset":"read"}]}"#;
const NO_READER: &str = r#"{"grants":[{"principal":"user:bob","preset":"none"}]}"#;

async fn world() -> World {
    let world = World::new().await;
    for id in ["team/a", "team/b", "team/hidden"] {
        world.create(id, "x").await;
    }
    for id in ["team/a", "team/b"] {
        world.must(200, ALICE, "PATCH", &format!("/keys/{id}/-/acl"), READER).await;
    }
    world
}

#[tokio::test]
async fn a_follower_is_told_of_changes_deletions_and_revocations_and_of_nothing_else() {
    let world = world().await;
    let mut stream = Stream::open(&world, BOB, "id=team/a&prefix=team/&id=team/hidden").await;
    let ready = stream.next().await.unwrap();
    assert_eq!((ready.kind.as_str(), ready.data["revision"].as_str()), ("ready", Some(world.engine.revision().to_string().as_str())));
    assert_eq!(ready.resume.as_deref(), ready.data["revision"].as_str());

    let changed = world.must(201, ALICE, "POST", "/keys/team/a/-/versions", r#"{"data":"eA=="}"#).await.json();
    let told = stream.next().await.unwrap();
    assert_eq!((told.kind.as_str(), &told.data["id"], &told.data["what"]), ("changed", &"team/a".into(), &"add_version".into()));
    assert_eq!((&told.data["etag"], &told.data["revision"]), (&changed["etag"], &changed["revision"]));
    assert_eq!(told.resume.as_deref(), changed["revision"].as_str());

    world.must(201, ALICE, "POST", "/keys/team/hidden/-/versions", r#"{"data":"eA=="}"#).await;
    assert!(stream.silent().await, "an unseen key is not told of");
    world.must(200, ALICE, "PATCH", "/keys/team/a/-/acl", NO_READER).await;
    assert_eq!(stream.told().await, "revoked team/a");
    world.must(201, ALICE, "POST", "/keys/team/a/-/versions", r#"{"data":"eA=="}"#).await;
    assert!(stream.silent().await, "after a revocation nothing more is told");
    world.must(200, ALICE, "PATCH", "/keys/team/a/-/acl", READER).await;
    assert_eq!(stream.told().await, "changed team/a");
    world.must(200, ALICE, "DELETE", "/keys/team/b", "").await;
    assert_eq!(stream.told().await, "deleted team/b");
    world.must(200, ALICE, "DELETE", "/keys/team/hidden", "").await;
    assert!(stream.silent().await);
}

#[tokio::test]
async fn taking_a_prefix_grant_away_revokes_all_that_it_gave() {
    let world = world().await;
    world.create("team/sub/x", "x").await;
    world.create("team/sub/y", "y").await;
    world.grant("team/sub/", "user:nobody", Preset::Read).await;
    let mut by_prefix = Stream::open(&world, NOBODY, "prefix=team/").await;
    let mut by_id = Stream::open(&world, NOBODY, "id=team/sub/y&id=team/a").await;
    assert_eq!((by_prefix.told().await, by_id.told().await), ("ready".to_owned(), "ready".to_owned()));
    world.grant("team/sub/", "user:carol", Preset::Read).await;
    let (first, second) = (by_prefix.next().await.unwrap(), by_prefix.next().await.unwrap());
    assert_eq!((first.kind.as_str(), &first.data["id"], first.resume), ("revoked", &"team/sub/x".into(), None));
    assert_eq!((second.kind.as_str(), &second.data["id"]), ("revoked", &"team/sub/y".into()));
    assert_eq!(second.resume, Some(world.engine.revision().to_string()), "only the last of one change's events may be resumed from");
    assert_eq!(by_id.told().await, "revoked team/sub/y");
    assert!(by_id.silent().await && by_prefix.silent().await);
}

#[tokio::test]
async fn who_comes_back_gets_what_he_missed() {
    let world = world().await;
    let since = world.engine.revision();
    world.must(201, ALICE, "POST", "/keys/team/a/-/versions", r#"{"data":"eA=="}"#).await;
    world.must(200, ALICE, "PATCH", "/keys/team/b/-/acl", NO_READER).await;
    world.must(200, ALICE, "DELETE", "/keys/team/a", "").await;
    let mut stream = Stream::open(&world, BOB, &format!("id=team/a&id=team/b&since={since}")).await;
    let ready = stream.next().await.unwrap();
    assert_eq!(ready.resume, Some(since.to_string()), "a break before the events must not lose them");
    let told = [stream.told().await, stream.told().await, stream.told().await];
    assert_eq!(told[1..], ["revoked team/b", "deleted team/a"]);
    assert!(stream.silent().await);
}

#[tokio::test]
async fn what_is_already_gone_is_told_at_once_to_those_who_could_see_it() {
    let world = world().await;
    let deleted = world.must(200, ALICE, "DELETE", "/keys/team/a", "").await.json()["revision"].as_str().unwrap().to_owned();
    let mut bob = Stream::open(&world, BOB, "id=team/a&id=team/b&id=team/never").await;
    let told = bob.next().await.unwrap();
    assert_eq!(
        (told.kind.as_str(), told.data["id"].as_str(), told.data["revision"].as_str()),
        ("deleted", Some("team/a"), Some(deleted.as_str()))
    );
    assert_eq!(told.resume, None);
    assert_eq!(bob.told().await, "ready");
    assert!(bob.silent().await);
    let mut nobody = Stream::open(&world, NOBODY, "id=team/a&id=team/b&id=team/never").await;
    assert_eq!(nobody.told().await, "ready");
    assert!(nobody.silent().await);
    let mut back = Stream::open(&world, BOB, &format!("id=team/a&since={}", world.engine.revision())).await;
    assert_eq!(back.told().await, "ready");
    assert!(back.silent().await, "who has seen the deletion is not told again");
}

#[tokio::test]
async fn a_revision_that_is_not_known_and_a_follower_that_falls_behind_are_compacted_and_end() {
    let world = world().await;
    let now = world.engine.revision();
    let (future, of_another_copy) = (claviger_domain::Revision { number: 999, ..now }, now.in_epoch(now.epoch + 1));
    for since in [future.to_string(), of_another_copy.to_string(), "1.999".into(), "7.1".into(), "0.0".into()] {
        let mut stream = Stream::open(&world, BOB, &format!("id=team/a&since={since}")).await;
        assert_eq!(stream.told().await, "compacted", "{since}");
        assert!(stream.next().await.is_none());
    }
    let mut slow = Stream::open(&world, BOB, "prefix=team/").await;
    for i in 0..=4096 {
        world.must(200, ALICE, "PATCH", "/keys/team/a", &format!(r#"{{"description":"{i}"}}"#)).await;
    }
    assert_eq!(slow.told().await, "ready");
    let told = slow.next().await.unwrap();
    assert_eq!((told.kind.as_str(), told.resume), ("compacted", Some(world.engine.revision().to_string())));
    assert!(slow.next().await.is_none());
}

#[tokio::test]
async fn what_was_deleted_or_revoked_in_a_gap_is_told_before_the_stream_ends() {
    let world = world().await;
    let mut slow = Stream::open(&world, BOB, "id=team/a&id=team/b&id=team/hidden").await;
    world.must(200, ALICE, "PATCH", "/keys/team/a/-/acl", NO_READER).await;
    world.must(200, ALICE, "DELETE", "/keys/team/b", "").await;
    for i in 0..=4096 {
        world.must(200, ALICE, "PATCH", "/keys/team/hidden", &format!(r#"{{"description":"{i}"}}"#)).await;
    }
    let mut back = Stream::open(&world, BOB, "prefix=team/&since=7.1").await;
    for expected in ["ready", "revoked team/a", "deleted team/b", "compacted"] {
        assert_eq!(slow.told().await, expected);
    }
    assert_eq!(back.told().await, "deleted team/b");
    let last = back.next().await.unwrap();
    assert_eq!((last.kind.as_str(), last.resume), ("compacted", Some(world.engine.revision().to_string())));
    assert!(slow.next().await.is_none() && back.next().await.is_none());
}

#[tokio::test]
async fn one_identity_has_so_many_streams_open_and_others_have_theirs() {
    let world = world().await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(Stream::open(&world, BOB, "id=team/a").await);
    }
    let refused = world.get(BOB, "/watch?id=team/a").await;
    assert_eq!((refused.problem().as_str(), refused.response.header("Retry-After")), ("429 rate_limited", Some(&b"30"[..])));
    assert_eq!(world.records().last().map(|r| r.outcome), Some("rate_limited"));
    let _other = Stream::open(&world, ALICE, "id=team/a").await;
    open.pop();
    let _again = Stream::open(&world, BOB, "id=team/a").await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_beats_and_each_beat_can_be_resumed_from() {
    let world = world().await;
    let mut usual = Stream::open(&world, BOB, "id=team/a").await;
    let mut often = Stream::open(&world, BOB, "id=team/a&heartbeat=1").await;
    assert_eq!((usual.told().await, often.told().await), ("ready".to_owned(), "ready".to_owned()));
    let begun = tokio::time::Instant::now();
    assert_eq!(often.told().await, "heartbeat");
    assert_eq!(begun.elapsed().as_secs(), 1);
    // A change that this caller is not told of moves the resumption on all the same.
    world.must(201, ALICE, "POST", "/keys/team/hidden/-/versions", r#"{"data":"eA=="}"#).await;
    let beat = usual.next().await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 15);
    assert_eq!((beat.kind.as_str(), beat.resume), ("heartbeat", Some(world.engine.revision().to_string())));
    assert_eq!(usual.told().await, "heartbeat");
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_busy_stream_beats_too() {
    let world = world().await;
    let mut stream = Stream::open(&world, BOB, "id=team/a&heartbeat=1").await;
    assert_eq!(stream.told().await, "ready");
    world.must(200, ALICE, "PATCH", "/keys/team/a", r#"{"description":"1"}"#).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(stream.told().await, "heartbeat");
    assert_eq!(stream.told().await, "changed team/a");
}

#[tokio::test]
async fn streams_end_with_the_server_and_leave_nothing_behind() {
    let world = world().await;
    let mut idle = Stream::open(&world, BOB, "id=team/a").await;
    assert_eq!(idle.told().await, "ready");
    let dropped = Stream::open(&world, BOB, "id=team/a").await;
    assert_eq!(world.engine.followers(), 2);
    drop(dropped);
    assert_eq!(world.engine.followers(), 1);
    let (ended, ()) = tokio::join!(idle.next(), async {
        tokio::task::yield_now().await;
        world.shutdown.start();
    });
    assert!(ended.is_none());
    drop(idle);
    assert_eq!(world.engine.followers(), 0);
}

#[tokio::test]
async fn a_stream_follows_ten_thousand_ids_and_no_more() {
    let world = world().await;
    let ids = |n: usize| (0..n).map(|i| format!("id=team/k{i}")).collect::<Vec<_>>().join("&");
    let mut stream = Stream::open(&world, ALICE, &ids(10_000)).await;
    assert_eq!(stream.told().await, "ready");
    world.create("team/k9999", "x").await;
    assert_eq!(stream.told().await, "changed team/k9999");
    assert_eq!(world.get(ALICE, &format!("/watch?{}", ids(10_001))).await.problem(), "400 invalid id");
}
