//! Someone edits the requests and the rules in the database while the server is down.

use super::Stage;
use claviger_testkit::faults::Database;
use serde_json::json;

/// What is done, in SQL, with `old` a copy from before the vote that counts.
const TABLE: &[(&str, &str)] = &[
    ("a request that is gone", "DELETE FROM approvals"),
    ("a vote that is taken back", "INSERT OR REPLACE INTO approvals SELECT * FROM old.approvals"),
    (
        "a used approval that is brought back",
        "UPDATE approvals SET (generation, mac, body) = (SELECT generation, mac, body FROM old.approvals) WHERE id = (SELECT id FROM old.approvals)",
    ),
    ("a request under another id", "UPDATE approvals SET id = id + 1"),
    ("a request of its own twice", "INSERT INTO approvals SELECT id + 1, generation, epoch, revision, mac, body FROM approvals"),
    ("a key's record from before its rule", "INSERT OR REPLACE INTO keys SELECT * FROM old.keys WHERE id = 'team/ruled'"),
    ("a prefix's record from before its rule", "INSERT OR REPLACE INTO \"grants\" SELECT * FROM old.\"grants\" WHERE prefix = 'team/'"),
];

#[test]
fn requests_votes_and_rules_cannot_be_forged_or_rolled_back_in_the_database() {
    for (what, sql) in TABLE {
        let mut s = Stage::new();
        s.key("team/db");
        s.key("team/ruled");
        s.rule("team/db", &["delete"], 1, &["user:bob"]);
        let asked = s.file("alice", "DELETE", "/keys/team/db", None);
        let db = s.server.dir().join("claviger.db");
        let old = s.server.dir().join("old.db");
        s.server.terminate().unwrap();
        std::fs::copy(&db, &old).unwrap();
        s.server.restart().unwrap();
        s.client = s.server.client().unwrap();
        assert_eq!(s.approve("bob", &asked).status, 200);
        s.rule("team/ruled", &["read"], 1, &["user:bob"]);
        let rules = json!({ "rules": [super::rule(&["read"], 1, &["user:bob"])] });
        s.must("alice", "PUT", "/prefix/rules?prefix=team/", Some(rules));
        s.server.terminate().unwrap();
        let mut database = Database::open(&db).unwrap();
        database.execute(&format!("ATTACH '{}' AS old", old.display())).unwrap();
        database.execute(sql).unwrap();
        drop(database);
        let refused = s.server.restart().expect_err(what);
        assert!(format!("{refused:#}").contains("behind Claviger's back"), "{what}: {refused:#}");
    }
}

#[test]
fn a_request_whose_bytes_are_damaged_is_as_if_it_had_never_been_asked() {
    let mut s = Stage::new();
    s.key("team/db");
    s.rule("team/db", &["delete"], 1, &["user:bob"]);
    let asked = s.file("alice", "DELETE", "/keys/team/db", None);
    assert_eq!(s.approve("bob", &asked).status, 200);
    let db = s.server.dir().join("claviger.db");
    s.server.terminate().unwrap();
    Database::open(&db).unwrap().execute("UPDATE approvals SET mac = zeroblob(length(mac))").unwrap();
    s.server.restart().unwrap();
    s.client = s.server.client().unwrap();
    assert_eq!(s.run("alice", &asked.0).status, 404);
    assert!(s.server.log().contains("the request for approval"), "{}", s.server.log());
    assert_eq!(s.ask("alice", "DELETE", "/keys/team/db", &[], None).status, 403, "the rule stands");
}
