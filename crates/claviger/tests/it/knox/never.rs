//! "Keep" and "never do" of the contract's §14, a test each. What scenarios show in passing is said here on purpose.

use super::{create, server, verdict};
use claviger_testkit::{Answer, Client, TestServer};
use std::collections::HashSet;

/// Sentences that make daemons delete a key from their host's list (§2).
const FORBIDDEN: [&str; 3] = ["User or machine not authorized", "Key identifer does not exist", "Key identifier does not exist"];

fn alice(client: &mut Client, method: &str, target: &str, form: &[(&str, &str)]) -> Answer {
    client.knox(method, target, "0ualice-token", form).unwrap()
}

/// One request for every code that the surface can be brought to answer.
fn every_code(server: &TestServer) -> Vec<Answer> {
    let version = create(server, "k", "YQ==", "[]");
    let mut client = server.client().unwrap();
    let mut ask =
        |authorization: &str, method: &str, target: &str, form: &[(&str, &str)]| client.knox(method, target, authorization, form).unwrap();
    vec![
        ask("0ualice-token", "GET", "/v0/keys/", &[]),
        ask("0ualice-token", "POST", "/v0/keys/", &[("id", "n"), ("data", "YQ=="), ("acl", "[null]")]),
        ask("0ualice-token", "POST", "/v0/keys/", &[("id", "k"), ("data", "YQ==")]),
        ask("0ualice-token", "PUT", "/v0/keys/k/versions/1/", &[("status", "\"Primary\"")]),
        ask("0ualice-token", "GET", "/v0/keys/none/", &[]),
        ask("0uwrong", "GET", "/v0/keys/", &[]),
        ask("0ubob-token", "GET", "/v0/keys/k/", &[]),
        ask("0ualice-token", "GET", "/v0/other", &[]),
        ask("0ualice-token", "POST", "/v0/keys/", &[("data", "YQ==")]),
        ask("0ualice-token", "POST", "/v0/keys/", &[("id", "n")]),
        ask("0ualice-token", "PUT", &format!("/v0/keys/k/versions/{version}/"), &[("status", "x")]),
        ask("0ualice-token", "POST", "/v0/keys/", &[("id", "a-b"), ("data", "YQ==")]),
        ask("0ualice-token", "PUT", "/v0/keys/k/access/", &[("acl", r#"[{"type":"User","id":"","access":"Read"}]"#)]),
    ]
}

/// Keep 1 and never 5: the pairs of §2, and six members in every answer.
#[test]
fn keep_1_every_answer_has_six_members_and_a_pair_of_the_table() {
    let server = server("[knox]\nstrictness = \"reference\"\n");
    let answers = every_code(&server);
    let pairs: Vec<_> = answers.iter().map(verdict).collect();
    let expected = [
        (200, 0),
        (500, 1),
        (400, 2),
        (404, 3),
        (404, 4),
        (401, 5),
        (403, 6),
        (404, 8),
        (400, 9),
        (400, 10),
        (400, 11),
        (400, 12),
        (400, 13),
    ];
    assert_eq!(pairs, expected);
    for answer in answers {
        let text = answer.text();
        let json = answer.json();
        assert!(text.ends_with("}\n") && text.starts_with(r#"{"status":""#), "{text}");
        let names: Vec<_> = json.as_object().unwrap().keys().cloned().collect::<HashSet<_>>().into_iter().collect();
        assert_eq!(names.len(), 6, "{text}");
        assert_eq!(json["status"] == "ok", answer.status == 200 && json["code"] == 0, "{text}");
        assert!(json["ts"].is_i64() && json["host"].is_string() && json["message"].is_string(), "{text}");
    }
}

/// Keep 2: `acl` empty and not null, insertion order, zeros in the hash, numbers as numbers. The hash is computed here
/// anew by §3.
#[test]
fn keep_2_versions_come_in_insertion_order_with_the_hash_of_all() {
    let server = server("");
    let mut client = server.client().unwrap();
    create(&server, "k", "YQ==", "[]");
    for _ in 0..8 {
        alice(&mut client, "POST", "/v0/keys/k/versions/", &[("data", "YQ==")]);
    }
    let all = |client: &mut Client| alice(client, "GET", "/v0/keys/k/?status=\"Inactive\"", &[]).json()["data"].clone();
    let ids: Vec<String> = all(&mut client)["versions"].as_array().unwrap().iter().map(|v| v["id"].to_string()).collect();
    for (id, status) in [(&ids[3], "\"Inactive\""), (&ids[5], "\"Inactive\""), (&ids[7], "\"Primary\"")] {
        assert_eq!(alice(&mut client, "PUT", &format!("/v0/keys/k/versions/{id}/"), &[("status", status)]).status, 200);
    }
    let key = all(&mut client);
    let after: Vec<String> = key["versions"].as_array().unwrap().iter().map(|v| v["id"].to_string()).collect();
    assert_eq!(after, ids, "insertion order, whatever the status");
    assert_eq!(key["acl"], serde_json::json!([]));
    assert_eq!(key["hash"], hash(&key["versions"]));
    let partial = alice(&mut client, "GET", "/v0/keys/k/?status=\"Primary\"", &[]).json()["data"].clone();
    assert_eq!((partial["versions"].as_array().unwrap().len(), &partial["hash"]), (1, &key["hash"]));
}

/// §3's hash of shown versions: ids of primary and active ones by rank and number, little-endian, then eight zero
/// bytes for each inactive one.
fn hash(versions: &serde_json::Value) -> String {
    let rank = |status: &serde_json::Value| ["Primary", "Active", "Inactive"].iter().position(|s| status == s).unwrap();
    let mut sorted: Vec<(usize, u64)> =
        versions.as_array().unwrap().iter().map(|v| (rank(&v["status"]), v["id"].as_u64().unwrap())).collect();
    sorted.sort_unstable();
    let bytes: Vec<u8> = sorted.iter().flat_map(|(rank, id)| if *rank == 2 { [0; 8] } else { id.to_le_bytes() }).collect();
    sha256(&bytes)
}

/// The system's own SHA-256: not the one under test.
fn sha256(bytes: &[u8]) -> String {
    use std::io::Write as _;
    let mut child =
        std::process::Command::new("sha256sum").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()[..64].to_owned()
}

/// The vectors of §15, so that the test's own hash is right too.
#[test]
fn the_hash_of_these_tests_gives_the_contracts_vectors() {
    let version = |id: u64, status: &str| serde_json::json!({"id": id, "status": status});
    assert_eq!(hash(&serde_json::json!([version(1, "Primary")])), "7c9fa136d4413fa6173637e883b6998d32e1d675f88cddff9dcbcf331820f4b8");
    let three = serde_json::json!([version(3, "Inactive"), version(1, "Primary"), version(2, "Active")]);
    assert_eq!(hash(&three), "e92b80d2ee5ab0f63d286728dc9849450b7cf439c2c2718d3bac632a510fd50c");
    let four = serde_json::json!([
        version(9_000_000_000_000_000_001, "Primary"),
        version(5, "Active"),
        version(4, "Inactive"),
        version(3, "Active")
    ]);
    assert_eq!(hash(&four), "fd4fc49bd03e9875a4ab9902f2ec754c48cb0cd24be3fc8d2f5403d094bc63b4");
}

/// Keep 3: 404 before 403; 10 against 11 and 9 against 12; ACLs for everyone who is authenticated.
#[test]
fn keep_3_the_order_of_checks_is_knoxs() {
    let server = server("");
    create(&server, "k", "YQ==", "[]");
    let mut client = server.client().unwrap();
    let mut bob = |method: &str, target: &str, form: &[(&str, &str)]| verdict(&client.knox(method, target, "0ubob-token", form).unwrap());
    assert_eq!((bob("GET", "/v0/keys/x/", &[]), bob("GET", "/v0/keys/k/", &[])), ((404, 4), (403, 6)));
    assert_eq!((bob("DELETE", "/v0/keys/x/", &[]), bob("DELETE", "/v0/keys/k/", &[])), ((404, 4), (403, 6)));
    assert_eq!((bob("POST", "/v0/keys/", &[("id", "n")]), bob("POST", "/v0/keys/k/versions/", &[])), ((400, 10), (400, 11)));
    assert_eq!((bob("POST", "/v0/keys/", &[]), bob("POST", "/v0/keys/", &[("id", "a-b"), ("data", "YQ==")])), ((400, 9), (400, 12)));
    assert_eq!(bob("GET", "/v0/keys/k/access/", &[]), (200, 0));
}

/// Keep 4, bettered: racing writers all succeed, so no client sees code 1.
#[test]
fn keep_4_lost_races_are_tried_again_inside() {
    let server = server("");
    create(&server, "k", "YQ==", "[]");
    let answers: Vec<(u16, i64)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.client().unwrap();
                    (0..10).map(|_| verdict(&alice(&mut client, "POST", "/v0/keys/k/versions/", &[("data", "YQ==")]))).collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|a| *a == (200, 0)), "{answers:?}");
    let key = alice(&mut server.client().unwrap(), "GET", "/v0/keys/k/", &[]).json();
    assert_eq!(key["data"]["versions"].as_array().unwrap().len(), 81);
}

/// Keep 5 and 6 are in `authentication.txt`, `list.txt` and `envelope.txt`; here they are pinned once more in short.
#[test]
fn keep_5_and_6_fallback_first_values_and_listing_all() {
    let server = server("");
    create(&server, "k", "YQ==", r#"[{"type":"Service","id":"spiffe://dev.claviger/both","access":"Read"}]"#);
    let mut both = super::connect(&server, "both");
    assert_eq!(verdict(&both.knox("GET", "/v0/keys/k/", "0thost1.x.com", &[]).unwrap()), (200, 0));
    assert_eq!(verdict(&both.knox("GET", "/v0/keys/k/", "0tother", &[]).unwrap()), (200, 0));
    let refused = both.knox("DELETE", "/v0/keys/k/", "0thost1.x.com", &[]).unwrap();
    assert_eq!(refused.json()["message"], "Principal host1.x.com not authorized to delete k");
    let mut client = server.client().unwrap();
    assert_eq!(alice(&mut client, "GET", "/v0/keys/?%zz", &[]).json()["data"], serde_json::json!(["k"]));
    assert_eq!(alice(&mut client, "GET", "/v0/keys/?k=x&k=", &[]).json()["data"], serde_json::json!(["k"]));
}

/// Never 1: not even when a caller plants the sentence in an id that the message repeats.
#[test]
fn never_1_no_message_has_a_sentence_that_makes_daemons_forget_a_key() {
    let server = server("");
    let mut answers = every_code(&server);
    let mut client = server.client().unwrap();
    for phrase in FORBIDDEN {
        let encoded = phrase.replace(' ', "%20");
        answers.push(alice(&mut client, "GET", &format!("/v0/keys/{encoded}/"), &[]));
        answers.push(alice(&mut client, "DELETE", &format!("/v0/keys/{encoded}/"), &[]));
        answers.push(alice(&mut client, "GET", &format!("/v0/keys/{encoded}/access/"), &[]));
        answers.push(alice(&mut client, "PUT", &format!("/v0/keys/k/versions/{encoded}/"), &[("status", "\"Primary\"")]));
        answers.push(alice(&mut client, "POST", "/v0/keys/", &[("id", phrase), ("data", "YQ==")]));
    }
    for answer in answers {
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(FORBIDDEN.iter().all(|f| !message.contains(f)), "{message}");
    }
}

/// Never 2: the daemon caches everything that a poll names.
#[test]
fn never_2_a_poll_names_no_id_that_was_not_asked_for() {
    let server = server("");
    for id in ["k1", "k2", "k3"] {
        create(&server, id, "YQ==", "[]");
    }
    let mut client = server.client().unwrap();
    for (query, expected) in
        [("k2=", vec!["k2"]), ("k2=&%zz", vec!["k2"]), ("x=", vec![]), ("=", vec![]), ("K1=", vec![]), ("k1%00=", vec![])]
    {
        assert_eq!(alice(&mut client, "GET", &format!("/v0/keys/?{query}"), &[]).json()["data"], serde_json::json!(expected), "{query}");
    }
    // Go's newer default drops all pairs beyond 10,000, and a poll then lists everything.
    let many: String = (0..10_050).map(|n| format!("n{n}=&")).collect::<String>() + "k3=";
    assert_eq!(alice(&mut client, "GET", &format!("/v0/keys/?{many}"), &[]).json()["data"], serde_json::json!(["k3"]));
}

/// Never 3: whatever a routed request is refused for, its answer is JSON.
#[test]
fn never_3_every_routed_error_is_json() {
    let server = server("");
    for answer in every_code(&server) {
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.json().is_object(), "{}", answer.text());
    }
}

/// Never 3, under a flood: an address with too many failures is told so in JSON, with the code that failures have.
#[test]
fn never_3_too_many_failures_are_told_in_json() {
    let server = crate::server_with("[auth]\nfailures_burst = 3\n");
    let mut client = server.client().unwrap();
    let answers: Vec<_> = (0..6).map(|_| client.knox("GET", "/v0/keys/", "0uwrong", &[]).unwrap()).collect();
    assert!(answers.iter().all(|a| verdict(a) == (401, 5)), "{answers:?}");
    assert_eq!(answers[0].json()["message"], "auth: unknown token");
    let last = answers[5].json()["message"].as_str().unwrap().to_owned();
    assert!(last.starts_with("too many failed authentications from your address; try again in "), "{last}");
}

/// Never 4: a connection without a client certificate is as good as another.
#[test]
fn never_4_no_client_certificate_is_required() {
    let server = server("");
    create(&server, "k", "YQ==", "[]");
    assert_eq!(verdict(&alice(&mut server.client().unwrap(), "GET", "/v0/keys/k/", &[])), (200, 0));
    assert_eq!(verdict(&alice(&mut super::connect(&server, "foreign"), "GET", "/v0/keys/k/", &[])), (200, 0));
}

/// Never 5: no `acl: null`, also for a key without entries, and `data` is there when it is null.
#[test]
fn never_5_nothing_is_null_that_clients_need() {
    let server = server("");
    create(&server, "k", "YQ==", "[]");
    let mut client = server.client().unwrap();
    let emptied = alice(&mut client, "PUT", "/v0/keys/k/access/", &[("acl", r#"[{"type":"User","id":"alice","access":"None"}]"#)]);
    assert!(emptied.text().contains(r#""message":"","data":null}"#), "{}", emptied.text());
    let acl = alice(&mut client, "GET", "/v0/keys/k/access/", &[]);
    assert!(acl.text().ends_with("\"data\":[]}\n"), "{}", acl.text());
    create(&server, "k2", "YQ==", "[]");
    assert!(alice(&mut client, "GET", "/v0/keys/k2/", &[]).text().contains(r#""acl":[],"versions":[{"#));
}

/// Never 6: version ids fit 63 bits and are not used again, not even after a key was deleted and made anew.
#[test]
fn never_6_version_ids_fit_63_bits_and_are_not_reused() {
    let server = server("");
    let mut client = server.client().unwrap();
    let mut ids = HashSet::new();
    for _ in 0..15 {
        let first = create(&server, "k", "YQ==", "[]");
        let second = alice(&mut client, "POST", "/v0/keys/k/versions/", &[("data", "YQ==")]).json()["data"].to_string();
        for id in [first, second] {
            assert!(id.parse::<i64>().is_ok_and(|n| n >= 0), "{id}");
            assert!(ids.insert(id.clone()), "{id} came twice");
        }
        assert_eq!(alice(&mut client, "DELETE", "/v0/keys/k/", &[]).status, 200);
    }
}
