//! `claviger share`, the request that opens a share, and the page that does so in a browser.

use super::{file, shown};
use crate::command_line::{as_machine, command, done, finish, with_input};
use crate::{server, server_with};
use claviger_testkit::{Answer, TestServer};
use serde_json::Value;
use std::process::{Command, Stdio};

const OPEN: &str = "[share]\nenabled = true\nanonymous = true\n";
const SECRET: &str = "hunter2-sentinel ä";

/// A link's URL and the share's id.
fn share(server: &TestServer, arguments: &[&str], input: &str) -> (String, String) {
    let (code, out, err) = finish(command(server, &[&["share", "--json"], arguments].concat()), input);
    assert_eq!(code, 0, "{err}");
    let made: Value = serde_json::from_str(&out).unwrap();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("url"), text("id"))
}

/// A command of somebody without any credential.
fn as_nobody(server: &TestServer, arguments: &[&str]) -> Command {
    let mut command = command(server, arguments);
    command.env_remove("CLAVIGER_TOKEN");
    command
}

/// A request of somebody without any credential.
fn ask(server: &TestServer, method: &str, target: &str, body: &str) -> Answer {
    let headers: &[(&str, &str)] = if body.is_empty() { &[] } else { &[("Content-Type", "application/json")] };
    server.client().unwrap().request(method, target, headers, body.as_bytes()).unwrap()
}

#[test]
fn a_link_opens_as_often_as_it_says_and_the_server_cannot_read_it() {
    let server = server_with(OPEN);
    with_input(&server, &["put", "db/pw"], SECRET);
    let (url, id) = share(&server, &["db/pw", "--expires", "10m"], "");
    assert!(url.starts_with(&format!("{}/api/v1/share#{id}.", server.env("CLAVIGER_ADDR"))), "{url}");
    let stored = done(&server, &["get", &format!("shares/{id}"), "--json"]);
    assert!(!stored.contains("hunter2") && !stored.contains(url.rsplit('.').next().unwrap()));
    let (code, out, err) = finish(as_nobody(&server, &["share", "open", &url]), "");
    assert_eq!((code, out.as_str()), (0, SECRET), "{err}");
    let (code, out, err) = finish(as_nobody(&server, &["share", "open", &url]), "");
    assert!(code == 3 && out.is_empty() && err.contains("opened already"), "{err}");
    assert_eq!(finish(command(&server, &["get", &format!("shares/{id}")]), "").0, 3, "nothing is left of it");

    let (url, id) = share(&server, &["--views", "3"], SECRET);
    for left in ["2", "1"] {
        let (_, out, _) = finish(as_nobody(&server, &["share", "open", "-", "--json"]), &url);
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["views_left"].to_string(), left);
        assert!(done(&server, &["share", "list"]).contains(&format!("{id}  {left} ")));
    }
    assert_eq!(finish(as_machine(&server, &["share", "open", &url]), "").1, SECRET);
    assert_eq!(finish(as_machine(&server, &["share", "open", &url]), "").0, 3);
    assert!(!done(&server, &["share", "list"]).contains(&id));

    let (url, id) = share(&server, &["-"], SECRET);
    done(&server, &["share", "revoke", &id]);
    assert_eq!(finish(as_nobody(&server, &["share", "open", &url]), "").0, 3);
    let records = done(&server, &["audit", "query", "--json", "--action", "open_share"]);
    let first: Value = serde_json::from_str(records.lines().last().unwrap()).unwrap();
    let record = if first["record"].is_object() { &first["record"] } else { &first };
    assert_eq!(
        (&record["allowed_by"], &record["address"], &record["outcome"]),
        (&"the share's token".into(), &"127.0.0.1".into(), &"ok".into())
    );
    assert_eq!(records.lines().count(), 7, "each opening and each refusal: {records}");
    assert!(!server.log().contains("hunter2") && !records.contains("hunter2"));
}

#[test]
fn of_many_who_open_at_once_one_gets_it() {
    let server = server_with(OPEN);
    let (url, _) = share(&server, &["--views", "2"], SECRET);
    let open = || as_nobody(&server, &["share", "open", &url]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let children: Vec<_> = (0..8).map(|_| open()).collect();
    let answers: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let opened = answers.iter().filter(|output| output.status.success() && output.stdout == SECRET.as_bytes()).count();
    assert_eq!((opened, answers.iter().filter(|output| output.status.code() == Some(3)).count()), (2, 6));
}

#[test]
fn what_was_opened_stays_opened_over_a_crash() {
    let mut server = server_with(OPEN);
    let (used, _) = share(&server, &[], SECRET);
    let (fresh, _) = share(&server, &[], SECRET);
    let fragment = |url: &str| url.split_once('#').unwrap().1.to_owned();
    assert_eq!(finish(as_nobody(&server, &["share", "open", &used]), "").1, SECRET);
    server.kill();
    server.restart().unwrap();
    let link = |url: &str| format!("{}/api/v1/share#{}", server.env("CLAVIGER_ADDR"), fragment(url));
    assert_eq!(finish(as_nobody(&server, &["share", "open", &link(&used)]), "").0, 3);
    assert_eq!(finish(as_nobody(&server, &["share", "open", &link(&fresh)]), "").1, SECRET);
}

#[test]
fn neither_a_wrong_token_nor_an_id_nor_a_look_uses_a_view_up() {
    let server = server_with(OPEN);
    let (url, id) = share(&server, &[], SECRET);
    let wrong = format!(r#"{{"id":"{id}","token":"{}"}}"#, "A".repeat(43) + "=");
    let never = wrong.replace(&id, &"0".repeat(32));
    let told = |body: &str| {
        let answer = ask(&server, "POST", "/api/v1/share/open", body);
        (answer.status, answer.json()["code"].clone(), answer.json()["detail"].clone())
    };
    assert_eq!(told(&wrong), told(&never), "a wrong token looks like no share");
    assert_eq!(told(&wrong).0, 404);
    for body in ["", "{}", r#"{"id":"../x","token":""}"#, r#"{"id":"a","token":"!"}"#] {
        assert_eq!(ask(&server, "POST", "/api/v1/share/open", body).status, 400, "{body}");
    }
    // A key that is no share is not opened, whatever is shown.
    with_input(&server, &["put", "shares/plain"], "x");
    assert_eq!(told(&wrong.replace(&id, "plain")).0, 404);
    for target in ["/api/v1/share", "/api/v1/share.js"] {
        assert_eq!(ask(&server, "GET", target, "").status, 200);
    }
    assert_eq!(finish(as_nobody(&server, &["share", "open", &url]), "").1, SECRET);
}

#[test]
fn shares_are_off_unless_configured_and_closed_to_nobodies_unless_configured() {
    let off = server();
    let (url, _) = share(&off, &[], SECRET);
    assert_eq!(finish(command(&off, &["share", "open", &url]), "").0, 3);
    assert_eq!(ask(&off, "GET", "/api/v1/share", "").status, 404);
    assert_eq!(ask(&off, "POST", "/api/v1/share/open", r#"{"id":"a","token":""}"#).status, 404);

    let proven = server_with("[share]\nenabled = true\n");
    let (url, _) = share(&proven, &[], SECRET);
    assert_eq!(finish(as_nobody(&proven, &["share", "open", &url]), "").0, 5);
    assert_eq!(ask(&proven, "GET", "/api/v1/share", "").status, 404);
    let (code, _, err) = finish(as_machine(&proven, &["share"]), SECRET);
    assert!(code == 4 && err.contains("shares/"), "not everybody makes shares: {err}");
    assert_eq!(finish(as_machine(&proven, &["share", "open", &url]), "").1, SECRET);
    let other = url.replace("127.0.0.1", "127.0.0.2");
    let (code, _, err) = finish(as_machine(&proven, &["share", "open", &other]), "");
    assert!(code == 2 && err.contains("another server"), "{err}");
}

#[test]
fn an_expired_share_opens_nothing_and_is_deleted() {
    let mut server = server_with(OPEN);
    let (url, id) = share(&server, &["--expires", "4s"], SECRET);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    // The clock is the server's own: ask for what the end of a version shows anyhow, which uses nothing up.
    while finish(command(&server, &["get", &format!("shares/{id}"), "--json"]), "").0 == 0 {
        assert!(std::time::Instant::now() < deadline, "it does not expire");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(finish(as_nobody(&server, &["share", "open", &url]), "").0, 3);
    // A start looks for expired ones first.
    server.terminate().unwrap();
    server.restart().unwrap();
    while done(&server, &["ls"]).contains(&id) {
        assert!(std::time::Instant::now() < deadline, "it is not deleted");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let records = done(&server, &["audit", "query", "--json", "--action", "delete"]);
    assert!(records.contains("a share expired") && records.contains(&id), "{records}");
}

/// Runs the page's own script under Node with its WebCrypto, and real requests over TLS.
const BROWSER: &str = r#"
const [, , script, ca, url] = process.argv;
const fs = require("fs"), https = require("https"), { webcrypto } = require("crypto");
const openShare = new Function(fs.readFileSync(script, "utf8") + "; return openShare;")();
const { origin, hash } = new URL(url);
const ask = (body) => new Promise((resolve, reject) => {
  const options = { method: "POST", ca: fs.readFileSync(ca), headers: { "Content-Type": "application/json" } };
  const request = https.request(origin + "/api/v1/share/open", options, (answer) => {
    let text = "";
    answer.on("data", (piece) => (text += piece));
    answer.on("end", () => (answer.statusCode === 200 ? resolve(JSON.parse(text)) : reject(new Error("status " + answer.statusCode))));
  });
  request.on("error", reject);
  request.end(JSON.stringify(body));
});
openShare(hash.slice(1), webcrypto, ask).then(
  ({ secret, views_left }) => process.stdout.write(Buffer.concat([Buffer.from(views_left + " "), Buffer.from(secret)])),
  (error) => { process.stderr.write(error.message); process.exitCode = 1; });
"#;

#[test]
fn the_page_opens_a_link_in_a_browsers_own_cryptography_and_loads_nothing_else() {
    let server = server_with(OPEN);
    let page = ask(&server, "GET", "/api/v1/share", "");
    let policy = page.header("Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; connect-src 'self';") && policy.contains("frame-ancestors 'none'"));
    assert_eq!((page.header("Cache-Control"), page.header("Referrer-Policy")), (Some("no-store"), Some("no-referrer")));
    let html = page.text();
    let loaded: Vec<_> = html.match_indices("src=").chain(html.match_indices("href=")).collect();
    assert!(loaded.len() == 1 && html.contains(r#"<script src="/api/v1/share.js" defer></script>"#), "{html}");
    let served = ask(&server, "GET", "/api/v1/share.js", "");
    assert_eq!(served.header("Content-Type"), Some("text/javascript; charset=utf-8"));

    let (script, browser) = (file(&server, "share.js", served.text()), file(&server, "browser.js", BROWSER));
    let (url, id) = share(&server, &["--views", "2"], SECRET);
    let open = |url: &str| {
        let output = Command::new("node").args([shown(&browser), shown(&script), server.env("CLAVIGER_CA"), url]).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(open(&url), (true, format!("1 {SECRET}"), String::new()));
    let (is_open, _, why) = open(&url[..url.len() - 1]);
    assert!(!is_open && why.contains("not whole"), "half a link uses nothing up: {why}");
    assert_eq!(open(&url).1, format!("0 {SECRET}"));
    assert!(open(&url).2.contains("404"), "{id}");
}

#[test]
fn a_rule_of_approval_is_not_gone_round_by_a_link_or_by_fingerprints() {
    let server = server_with(OPEN);
    with_input(&server, &["put", "shares/plain"], "k3J9x0Qz-7LmP2");
    let (url, id) = share(&server, &[], SECRET);
    let rule = r#"{"rules":[{"operations":["read"],"needed":1,"approvers":["user:alice"]}]}"#;
    let authorization = server.bearer();
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
    let mut client = server.client().unwrap();
    let answer = client.request("PUT", "/api/v1/prefix/rules?prefix=shares/", &headers, rule.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (code, out, err) = finish(as_nobody(&server, &["share", "open", &url]), "");
    assert!(code == 8 && out.is_empty() && err.contains("needs approval"), "{code} {err}");
    assert!(done(&server, &["share", "list"]).contains(&format!("{id}  1 ")), "nothing was used up");
    let ask = r#"{"ids":["shares/plain"]}"#;
    let answer = client.request("POST", "/api/v1/fingerprints", &headers, ask.as_bytes()).unwrap();
    let item = &answer.json()["items"][0];
    assert!(item["error"].is_string() && item["prints"] == serde_json::json!([]), "{item}");
}
