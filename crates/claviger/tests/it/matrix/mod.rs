//! The authorization matrix: callers × grants × routes of both surfaces, through the real server, against an oracle of
//! its own ([`oracle`]), and the table of who may do what that is committed as `docs/who-may-do-what.md`.
//!
//! Nothing here asks the code under test what is right; it is only asked to say, over the wire, what it does.

mod escalation;
mod oracle;
mod people;
mod routes;
mod situations;
mod stage;
pub(crate) mod table;
mod wide;

use claviger_testkit::TestServer;
use oracle::Verdict;
use people::{PROVEN, Person, UNPROVEN, Voice};
use routes::{Row, anywhere};
use situations::Situation;
use std::collections::{BTreeMap, BTreeSet};

/// What came of each cell: by situation, caller and row.
type Cells = BTreeMap<(String, &'static str, String), Verdict>;

/// One caller's way through all situations and routes.
struct Walk<'a> {
    person: &'a Person,
    voice: Voice,
    admin: Voice,
    cells: Cells,
    failures: Vec<String>,
}

impl Walk<'_> {
    fn through(&mut self, situations: &[Situation]) {
        for (number, situation) in situations.iter().enumerate() {
            let mut place = situation.place(number, self.person, &mut self.admin);
            situation.make_used_keys(&mut place, &mut self.admin);
            for row in routes::all().filter(|r| r.each) {
                let cannot_be_created = row.need == oracle::Need::KnoxCreation && situation.delimiter == '/';
                if !cannot_be_created {
                    self.cell(situation, &mut place, row);
                }
            }
        }
    }

    fn cell(&mut self, situation: &Situation, place: &mut routes::Place, row: &Row) {
        let facts = situation.facts();
        let expected = facts.expected(row.need, self.person);
        let will_do = expected == Verdict::Allowed;
        if let Some(version) = will_do.then(|| situation.make_ready(row.care, place, &mut self.admin)).flatten() {
            place.version = version;
        }
        if row.what == "create" {
            // Both surfaces create here.
            place.fresh.push(if row.is_knox() { 'K' } else { 'N' });
        }
        let answer = self.voice.ask(&(row.ask)(place));
        let missing = || {
            let nowhere =
                routes::Place { id: format!("{}0", place.id), himself: place.himself.clone(), acl: place.acl.clone(), ..anywhere() };
            self.voice.ask(&(row.ask)(&nowhere))
        };
        let found = stage::verdict(row, place, &answer, missing);
        if will_do && found == Ok(Verdict::Allowed) {
            situation.put_right(row.care, place, &mut self.admin);
        }
        let name = || format!("{} | {} | {}", situation.name, self.person.name, row.title());
        if found != Ok(expected) {
            self.failures.push(format!("{}: expected {expected:?}, got {found:?}", name()));
        }
        let told = stage::allowed_in(&answer.json()).filter(|_| row.what != "explain another" && row.what != "create");
        // An explanation is about one identity.
        let about = if row.what == "explain oneself" { Person { is: &self.person.is[..1], ..*self.person } } else { *self.person };
        let rights: Vec<_> = facts.rights(&about).into_iter().map(str::to_owned).collect();
        if told.as_ref().is_some_and(|told| *told != rights) {
            self.failures.push(format!("{}: expected to be told {rights:?}, was told {told:?}", name()));
        }
        if let Ok(verdict) = found {
            self.cells.insert((situation.name.clone(), self.person.name, row.title()), verdict);
        }
    }
}

fn walk(server: &TestServer, situations: &[Situation]) -> (Cells, Vec<String>) {
    let one = |person| {
        let mut walk =
            Walk { person, voice: Voice::of(person, server), admin: Voice::admin(server), cells: Cells::new(), failures: Vec::new() };
        walk.through(situations);
        (walk.cells, walk.failures)
    };
    std::thread::scope(|scope| {
        let walks: Vec<_> = PROVEN.iter().map(|person| scope.spawn(move || one(person))).collect();
        let done = walks.into_iter().map(|w| w.join().unwrap());
        done.fold((Cells::new(), Vec::new()), |(mut cells, mut failures), (more, failed)| {
            cells.extend(more);
            failures.extend(failed);
            (cells, failures)
        })
    })
}

/// Fails with the first of `failures`, and says how many there are.
fn none_of(failures: &[String]) {
    let shown = failures.iter().take(60).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} cells are wrong:\n{shown}", failures.len());
}

#[test]
fn everyone_may_do_on_every_route_what_the_rules_say_and_nothing_else() {
    let server = stage::server();
    let mut admin = Voice::admin(&server);
    stage::set_up_everything(&mut admin);
    let situations = situations::all();
    for (number, situation) in situations.iter().enumerate() {
        situation.set_up(number, &mut admin);
    }
    let (cells, failures) = walk(&server, &situations);
    none_of(&failures);
    table::check("matrix", &table::matrix(&cells));
}

#[test]
fn every_native_route_has_a_row() {
    let server = stage::server();
    let described = server.client().unwrap().request("GET", "/api/v1/openapi.json", &[], b"").unwrap().json();
    let (rows, routes) = routes::native_routes(&described);
    assert_eq!(rows, routes);
}

#[test]
fn every_route_refuses_who_proves_nothing_whatever_is_there() {
    let server = stage::server();
    let mut admin = Voice::admin(&server);
    stage::set_up_everything(&mut admin);
    // Whoever is believed to be one of these may do everything.
    let everyone = ["user:alice", "machine_prefix:dev-", "service_prefix:spiffe://dev.claviger/"];
    let on_key = everyone.map(|to| situations::entry(to, oracle::ADMIN)).to_vec();
    let situation = Situation { on_prefix: on_key.clone(), on_key, any_user_creates: true, ..situations::all().remove(0) };
    situation.set_up(0, &mut admin);
    let mut place = situation.place(0, &people::ALICE, &mut admin);
    situation.make_used_keys(&mut place, &mut admin);
    let mut failures = Vec::new();
    for person in &UNPROVEN {
        for row in routes::all() {
            let mut voice = Voice::of(person, &server);
            let answer = voice.ask(&(row.ask)(&place));
            let missing = voice.ask(&(row.ask)(&anywhere()));
            let expected = situation.facts().expected(row.need, person);
            let found = stage::verdict(row, &place, &answer, || missing.clone());
            let same = stage::without_request(&answer) == stage::without_request(&missing);
            if found != Ok(expected) || !same {
                failures.push(format!(
                    "{} | {}: expected {expected:?}, got {found:?}, the same for a missing key: {same}",
                    person.name,
                    row.title()
                ));
            }
        }
    }
    none_of(&failures);
    assert_eq!(
        admin.must(&people::Asked::new("GET", format!("/api/v1/keys/{}/-/versions", place.id)))["versions"].as_array().unwrap().len(),
        1
    );
    let refused: BTreeSet<_> = routes::all().filter(|r| r.need != oracle::Need::Nothing).map(Row::title).collect();
    table::check("unproven", &table::unproven(&refused));
}
