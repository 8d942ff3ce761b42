//! The main job in one breath: a secret is created, read by who may, refused to who may not, and the log is whole.

use crate::{server, server_with};

#[test]
fn a_secret_is_created_read_and_refused() {
    let server = server();
    let acl = r#"[{"type":"Machine","id":"dev-machine","access":"Read"}]"#;
    let created =
        server.client().unwrap().knox("POST", "/v0/keys/", &server.admin(), &[("id", "a:b"), ("data", "aGk="), ("acl", acl)]).unwrap();
    assert_eq!(created.status, 200, "{}", created.text());
    let mut machine = server.machine().unwrap();
    let read = machine.knox("GET", "/v0/keys/a:b/", "0tdev-machine", &[]).unwrap();
    assert_eq!(read.json()["data"]["versions"][0]["data"], "aGk=");
    let refused = machine.knox("DELETE", "/v0/keys/a:b/", "0tdev-machine", &[]).unwrap();
    assert_eq!((refused.status, refused.json()["code"].as_i64()), (403, Some(6)));
}

#[test]
fn a_server_that_is_stopped_and_started_has_everything() {
    let mut server = server_with("[[dev.user]]\nname = \"bob\"\ngroups = [\"ops\"]\ntoken = \"bob-token\"\n");
    let created = server.client().unwrap().knox("POST", "/v0/keys/", "0ubob-token", &[("id", "k"), ("data", "aGk=")]).unwrap();
    assert_eq!(created.status, 200, "{}", created.text());
    server.terminate().unwrap();
    server.restart().unwrap();
    let read = server.client().unwrap().knox("GET", "/v0/keys/k/", "0ubob-token", &[]).unwrap();
    assert_eq!(read.json()["data"]["versions"][0]["data"], "aGk=");
}
