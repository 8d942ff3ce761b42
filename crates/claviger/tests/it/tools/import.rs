//! `claviger import`.

use super::{file, shown};
use crate::command_line::{as_machine, command, done, finish, with_input};
use crate::server;
use claviger_testkit::TestServer;
use serde_json::Value;
use std::io::Write;

/// The exit code, and each key with what became of it.
fn import(server: &TestServer, arguments: &[&str]) -> (i32, Vec<String>) {
    let (code, out, err) = finish(command(server, &[&["import", "--json"], arguments].concat()), "");
    let found: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out} {err}"));
    let text = |row: &Value| format!("{} {}", row["key"].as_str().unwrap(), row["what"].as_str().unwrap());
    (code, found["keys"].as_array().unwrap().iter().map(text).collect())
}

#[test]
fn a_dotenv_file_is_shown_imported_and_imported_again_without_a_change() {
    let server = server();
    let path = file(&server, ".env", "USER=alice\nexport PASSWORD='hunter2-sentinel'\nEMPTY=\n");
    let arguments = ["dotenv", shown(&path), "--prefix", "shop/"];
    let (code, rows) = import(&server, &[&arguments[..], &["--dry-run"]].concat());
    assert_eq!((code, rows), (8, vec!["shop/USER create".into(), "shop/PASSWORD create".into(), "shop/EMPTY refuse".into()]));
    assert_eq!(done(&server, &["ls"]).lines().count(), 1, "a dry run changes nothing");

    let (code, out, err) = finish(command(&server, &[&["import"], &arguments[..]].concat()), "");
    assert_eq!(code, 8, "{err}");
    let expected = "KEY            DONE     WHY\nshop/USER      created\nshop/PASSWORD  created\nshop/EMPTY     refused  it is empty\n";
    assert_eq!(out, expected);
    assert_eq!(done(&server, &["get", "shop/PASSWORD"]), "hunter2-sentinel");
    let revision = || done(&server, &["info", "shop/PASSWORD", "--json"]);
    let before = revision();
    let (_, rows) = import(&server, &arguments);
    assert_eq!(rows, ["shop/USER left", "shop/PASSWORD left", "shop/EMPTY refused"]);
    assert_eq!(revision(), before);

    file(&server, ".env", "USER=alice\nPASSWORD=hunter3\n");
    let rule = |rule: &[&str]| import(&server, &[&arguments[..], rule].concat());
    assert_eq!(rule(&[]), (6, vec!["shop/USER left".into(), "shop/PASSWORD refused".into()]));
    assert_eq!(rule(&["--existing", "leave"]), (0, vec!["shop/USER left".into(), "shop/PASSWORD left".into()]));
    assert_eq!(revision(), before);
    assert_eq!(rule(&["--existing", "update", "--no-promote"]).1, ["shop/USER left", "shop/PASSWORD changed"]);
    assert_eq!(rule(&["--existing", "update", "--no-promote"]).1, ["shop/USER left", "shop/PASSWORD left"], "once is enough");
    assert_eq!(done(&server, &["get", "shop/PASSWORD"]), "hunter2-sentinel");
    assert_eq!(rule(&["--existing", "update"]), (0, vec!["shop/USER left".into(), "shop/PASSWORD changed".into()]));
    assert_eq!(done(&server, &["get", "shop/PASSWORD"]), "hunter3");
    assert!(!server.log().contains("hunter2-sentinel"));
}

#[test]
fn a_file_that_is_not_what_it_should_be_changes_nothing() {
    let server = server();
    for (format, content, place) in [
        ("dotenv", "A=1\nB=$(hunter2)\n", "line 2"),
        ("json", r#"{"a": 1, "a": "hunter2"}"#, "twice"),
        ("kubernetes", "kind: Secret\nmetadata: {name: a}\ndata: {pw: hunter2!}\n", "no base64"),
        ("1password", "Title,Password\nhunter2\n", "line 2"),
        ("1password", "PK\u{3}\u{4}hunter2", "archive"),
        ("vault", "[\"hunter2\"]", "no JSON object"),
    ] {
        let path = file(&server, "input", content);
        let (code, out, err) = finish(command(&server, &["import", format, shown(&path)]), "");
        assert!(code == 8 && out.is_empty() && err.contains(place) && !err.contains("hunter2"), "{format}: {code} {out} {err}");
    }
    assert_eq!(finish(command(&server, &["import", "json", "/nowhere"]), "").0, 2);
    assert_eq!(finish(command(&server, &["import", "json", "-", "--prefix", "no-delimiter"]), "{}").0, 2);
    assert_eq!(done(&server, &["ls"]).lines().count(), 1);
}

#[test]
fn every_tools_file_becomes_keys() {
    let server = server();
    let tree = file(&server, "tree.json", r#"{"db": {"user": "a", "port": 5432}, "list": [1]}"#);
    assert_eq!(
        import(&server, &["json", shown(&tree), "--prefix", "j/"]),
        (8, vec!["j/db/user created".into(), "j/db/port created".into(), "j/list refused".into()])
    );
    assert_eq!(done(&server, &["get", "j/db/port"]), "5432");

    let secret = "kind: List\nitems:\n- kind: Secret\n  metadata: {name: db, namespace: shop}\n  data: {tls.key: AAEC/w==}\n  stringData: {user: bob}\n";
    let secret = file(&server, "secret.yaml", secret);
    assert_eq!(
        import(&server, &["kubernetes", shown(&secret), "--prefix", "k8s/"]),
        (0, vec!["k8s/shop/db/tls.key created".into(), "k8s/shop/db/user created".into()])
    );
    let out = server.dir().join("bytes");
    done(&server, &["get", "k8s/shop/db/tls.key", "--output", shown(&out)]);
    assert_eq!(std::fs::read(out).unwrap(), [0, 1, 2, 255]);

    let vault = file(&server, "vault.json", r#"{"request_id": "r", "data": {"data": {"pw": "v2"}, "metadata": {"version": 1}}}"#);
    assert_eq!(import(&server, &["vault", shown(&vault), "--prefix", "v/"]), (0, vec!["v/pw created".into()]));

    let table = "Title,Url,Username,Password,OTPAuth,Favorite,Archived,Tags,Notes\nMy Mail,https://m,alice,p w,,false,false,,\n";
    let table = file(&server, "1p.csv", table);
    assert_eq!(
        import(&server, &["1password", shown(&table), "--prefix", "team/"]),
        (0, vec!["team/My-Mail/username created".into(), "team/My-Mail/password created".into()])
    );
    assert_eq!(done(&server, &["get", "team/My-Mail/password"]), "p w");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(server.dir().join("x.1pux")).unwrap());
    archive.start_file("export.data", zip::write::SimpleFileOptions::default()).unwrap();
    let data = r#"{"accounts": [{"vaults": [{"attrs": {"name": "Ops"}, "items": [{"uuid": "u", "overview": {"title": "Box"}, "details": {"password": "boxed"}}]}]}]}"#;
    archive.write_all(data.as_bytes()).unwrap();
    archive.finish().unwrap();
    assert_eq!(import(&server, &["1password", shown(&server.dir().join("x.1pux"))]), (0, vec!["Ops/Box/password created".into()]));
    assert_eq!(done(&server, &["get", "Ops/Box/password"]), "boxed");
}

#[test]
fn each_key_has_its_own_result_and_what_one_may_not_is_refused() {
    let server = server();
    with_input(&server, &["create", "apps/seen", "--acl", "machine:dev-machine=list,read"], "old");
    with_input(&server, &["create", "apps/listed", "--acl", "machine:dev-machine=only:list"], "old");
    with_input(&server, &["create", "apps/hidden"], "old");
    done(&server, &["acl", "grant", "--prefix", "apps/", "machine:dev-machine", "only:create"]);
    let path = file(&server, ".env", "seen=new\nlisted=new\nhidden=new\nfresh=new\n");
    let arguments = ["import", "dotenv", shown(&path), "--prefix", "apps/", "--existing", "update", "--json"];
    let rows = |arguments: &[&str]| {
        let (code, out, _) = finish(as_machine(&server, arguments), "");
        let found: Value = serde_json::from_str(&out).unwrap();
        (code, found["keys"].as_array().unwrap().iter().map(|r| r["what"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(rows(&[&arguments[..], &["--dry-run"]].concat()), (4, ["refuse", "refuse", "create", "create"].map(str::to_owned).to_vec()));
    assert_eq!(rows(&arguments), (4, ["refused", "refused", "failed", "created"].map(str::to_owned).to_vec()));
    assert_eq!(done(&server, &["get", "apps/hidden"]), "old");
    assert_eq!(rows(&arguments).1[3], "left");
}

#[test]
fn an_import_that_lost_its_server_is_repeated() {
    let mut server = server();
    let path = file(&server, ".env", "A=1\nB=2\n");
    let address = server.env("CLAVIGER_ADDR").to_owned();
    let unfinished = command(&server, &["import", "dotenv", shown(&path), "--addr", &address]);
    server.kill();
    let (code, out, err) = finish(unfinished, "");
    assert!(code == 7 && out.is_empty() && err.contains("next:"), "{code} {out} {err}");
    server.restart().unwrap();
    assert_eq!(import(&server, &["dotenv", shown(&path)]), (0, vec!["A created".into(), "B created".into()]));
}
