//! Every scenario of `tests/data/knox` is played; `CLAVIGER_UPDATE=1` rewrites the answers that differ.

use super::scenario::Scenario;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/knox")
}

fn play(name: &str) {
    let report = Scenario::read(&folder().join(name)).play();
    assert!(report.is_empty(), "\n{report}");
}

macro_rules! scenarios {
    ($($test:ident: $file:literal,)*) => {
        $(#[test] fn $test() { play($file); })*

        #[test]
        fn every_scenario_file_is_played() {
            let mut files: Vec<String> = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).filter(|n| n.ends_with(".txt")).collect();
            let mut played = vec![$($file.to_owned()),*];
            files.sort();
            played.sort();
            assert_eq!(files, played);
        }
    };
}

scenarios! {
    routing_is_as_the_contract_says: "routing.txt",
    bodies_and_envelopes_are_as_the_contract_says: "envelope.txt",
    list_and_poll_are_as_the_contract_says: "list.txt",
    create_is_as_the_contract_says: "create.txt",
    read_is_as_the_contract_says: "read.txt",
    delete_is_as_the_contract_says: "delete.txt",
    access_is_as_the_contract_says: "access.txt",
    versions_are_as_the_contract_says: "versions.txt",
    authentication_is_as_the_contract_says: "authentication.txt",
    authorization_is_as_the_contract_says: "authorization.txt",
    service_creators_are_as_the_contract_says: "service_creators.txt",
    the_reference_strictness_is_as_the_contract_says: "strictness_reference.txt",
    lists_can_be_limited_to_what_is_readable: "list_readable_only.txt",
    the_last_administrator_can_be_kept: "keep_last_admin.txt",
    service_prefixes_can_need_a_longer_path: "min_service_path.txt",
    a_site_has_rules_of_its_own_for_principals: "principal_rules.txt",
    a_site_adds_header_fields_to_routed_answers: "response_headers.txt",
    new_keys_get_the_default_grants: "default_grants.txt",
    machine_names_can_be_folded_and_wildcards_refused: "machine_names.txt",
}
