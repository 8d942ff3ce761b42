//! What is about no single key: lists, bulk reads, watches, reach, and the server's own routes, each compared with what
//! the oracle says about every key of every situation.

use super::oracle::{self, Entry, Facts, Need, Verdict};
use super::people::{Asked, BOTH, PROVEN, Person, ROOT, Voice};
use super::routes::{self, SECRET};
use super::{none_of, situations, stage, table};
use claviger_testkit::TestServer;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What the stage has: each key with its facts, each prefix with its list, and the revision before all of it.
struct Scene {
    keys: BTreeMap<String, Facts>,
    prefixes: Vec<(String, Vec<Entry>)>,
    /// Who lost the right to read which key.
    lost: BTreeMap<String, &'static str>,
    since: String,
}

impl Scene {
    fn on(server: &TestServer) -> Self {
        let mut admin = Voice::admin(server);
        let mut scene =
            Self { keys: BTreeMap::new(), prefixes: stage::set_up_everything(&mut admin), lost: BTreeMap::new(), since: String::new() };
        scene.since = admin.must(&Asked::new("GET", "/api/v1/status"))["revision"].as_str().unwrap().to_owned();
        for (number, situation) in situations::all().iter().enumerate() {
            scene.prefixes.extend(situation.set_up(number, &mut admin));
            let place = situation.place(number, &PROVEN[0], &mut admin);
            scene.prefixes.push((place.prefix, vec![situations::entry("user:keeper", &["list"])]));
            scene.keys.insert(place.id.clone(), situation.facts());
            if let Some(who) = situation.formerly {
                scene.lost.insert(place.id, who);
            }
        }
        scene
    }

    /// Each key that somebody has a right on, and his rights.
    fn seen_by(&self, person: &Person) -> BTreeMap<String, Vec<String>> {
        let seen = |(id, facts): (&String, &Facts)| {
            let rights: Vec<_> = facts.rights(person).into_iter().map(str::to_owned).collect();
            (!rights.is_empty()).then(|| (id.clone(), rights))
        };
        self.keys.iter().filter_map(seen).collect()
    }

    fn prefixes_of(&self, person: &Person) -> BTreeSet<String> {
        let administers = |prefix: &String| {
            let above = self.prefixes.iter().filter(|(p, _)| prefix.starts_with(p.as_str()));
            above.flat_map(|(_, list)| list).any(|e| oracle::is_about(e, person) && e.rights.contains(&"admin"))
        };
        self.prefixes.iter().map(|(prefix, _)| prefix).filter(|p| administers(p)).cloned().collect()
    }

    fn knox_ids(&self) -> BTreeSet<String> {
        self.keys.iter().filter(|(_, facts)| facts.knox_can_name_it).map(|(id, _)| id.clone()).collect()
    }
}

/// Pages of keys as a map of ids and rights.
fn paged(voice: &mut Voice, first: &str) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    let mut target = first.to_owned();
    loop {
        let page = voice.must(&Asked::new("GET", &*target));
        for key in page["keys"].as_array().unwrap() {
            all.insert(key["id"].as_str().unwrap().to_owned(), stage::allowed_in(key).unwrap());
        }
        let Some(next) = page["next"].as_str() else { return all };
        target = format!("{first}&cursor={next}");
    }
}

fn listed(json: &Value) -> BTreeSet<String> {
    json["data"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

fn bulk(voice: &mut Voice, scene: &Scene, person: &Person, wrong: &mut Vec<String>) {
    let mut ids: Vec<_> = scene.keys.keys().cloned().collect();
    ids.push("m:0:alice:missing".to_owned());
    let answer = voice.must(&Asked::json("POST", "/api/v1/read", json!({ "ids": ids })));
    for (id, item) in ids.iter().zip(answer["items"].as_array().unwrap()) {
        let found = match item["error"].as_str() {
            None if item["data"]["versions"][0]["data"] == SECRET => Verdict::Allowed,
            Some("denied") => Verdict::Denied,
            Some("not_found") if item.as_object().unwrap().len() == 2 => Verdict::Hidden,
            _ => panic!("{item}"),
        };
        let expected = scene.keys.get(id).map_or(Verdict::Hidden, |facts| facts.expected(Need::Right("read"), person));
        if found != expected {
            wrong.push(format!("{} reads {id} with many: expected {expected:?}, got {found:?}", person.name));
        }
    }
}

/// The last kind of event that a stream told about each key.
fn told(stream: &str) -> BTreeMap<String, String> {
    let mut last = BTreeMap::new();
    for event in stream.split("\n\n") {
        let line = |name: &str| event.lines().find_map(|l| l.strip_prefix(name));
        let (Some(kind), Some(data)) = (line("event: "), line("data: ")) else { continue };
        if let Some(id) = serde_json::from_str::<Value>(data).unwrap()["id"].as_str() {
            last.insert(id.to_owned(), kind.to_owned());
        }
    }
    last
}

fn watched(scene: &Scene, person: &Person, server: &TestServer) -> BTreeMap<String, String> {
    let target = format!("/api/v1/watch?prefix=&since={}&heartbeat=1", scene.since);
    told(&Voice::of(person, server).follow(&target, |text| text.contains("event: heartbeat") || text.contains("event: compacted")))
}

fn compare<T: PartialEq + std::fmt::Debug>(what: &str, person: &Person, is: T, should: T, wrong: &mut Vec<String>) {
    if is != should {
        wrong.push(format!("{} {what}: expected {should:?}\n  got {is:?}", person.name));
    }
}

fn lists(scene: &Scene, person: &Person, server: &TestServer) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut voice = Voice::of(person, server);
    compare("lists keys", person, paged(&mut voice, "/api/v1/keys?limit=20"), scene.seen_by(person), &mut wrong);
    bulk(&mut voice, scene, person, &mut wrong);
    let prefixes = voice.must(&Asked::new("GET", "/api/v1/prefixes"));
    let prefixes: BTreeSet<_> = prefixes["prefixes"].as_array().unwrap().iter().map(|p| p["prefix"].as_str().unwrap().to_owned()).collect();
    compare("lists prefixes", person, prefixes, scene.prefixes_of(person), &mut wrong);
    compare("lists ids by Knox", person, listed(&voice.must(&Asked::new("GET", "/v0/keys/"))), scene.knox_ids(), &mut wrong);
    let all = scene.keys.keys().map(|id| format!("{id}=x")).collect::<Vec<_>>().join("&");
    compare("polls ids by Knox", person, listed(&voice.must(&Asked::new("GET", format!("/v0/keys/?{all}")))), scene.knox_ids(), &mut wrong);
    let mut events: BTreeMap<_, _> = scene.seen_by(person).into_keys().map(|id| (id, "changed".to_owned())).collect();
    let lost = scene.lost.iter().filter(|(id, who)| !events.contains_key(*id) && oracle::is_about(&situations::entry(who, &[]), person));
    events.extend(lost.map(|(id, _)| (id.clone(), "revoked".to_owned())).collect::<Vec<_>>());
    compare("is told", person, watched(scene, person, server), events, &mut wrong);
    // A question about reach names one identity.
    let one = Person { is: &person.is[..1], ..*person };
    let target = format!("/api/v1/reach?{}&limit=50", stage::himself(&one));
    compare("reaches", &one, paged(&mut Voice::of(&ROOT, server), &target), scene.seen_by(&one), &mut wrong);
    wrong
}

#[test]
fn lists_and_streams_and_the_servers_own_routes_tell_each_caller_what_he_may_know() {
    let server = stage::server();
    let scene = Scene::on(&server);
    let mut wrong: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> = PROVEN.iter().map(|person| scope.spawn(|| lists(&scene, person, &server))).collect();
        all.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    let facts = situations::all()[0].facts();
    let mut rows = Vec::new();
    for row in routes::all().filter(|r| !r.each) {
        let mut signs = Vec::new();
        for person in &PROVEN {
            let expected = facts.expected(row.need, person);
            // Streams have been followed above.
            let found = match row.what {
                "watch" => Ok(Verdict::Allowed),
                _ => {
                    let answer = Voice::of(person, &server).ask(&(row.ask)(&routes::anywhere()));
                    stage::verdict(row, &routes::anywhere(), &answer, || answer.clone())
                }
            };
            if found != Ok(expected) {
                wrong.push(format!("{} {}: expected {expected:?}, got {found:?}", person.name, row.title()));
            }
            signs.push(expected.sign().to_owned());
        }
        rows.push((row.title(), row.need, signs));
    }
    none_of(&wrong);
    assert!(BOTH.is.len() == 2 && scene.keys.len() > 100);
    table::check("once", &table::once(&rows));
}
