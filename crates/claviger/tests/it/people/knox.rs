//! Knox's `0u`: tokens of a GitHub-compatible service, and sessions.

use super::Site;
use super::provider::Provider;
use claviger_testkit::Answer;

/// A token as `knox login` gets it: the password grant (contract knox §11).
fn password_grant(provider: &Provider, user: &str) -> String {
    let form = format!("grant_type=password&client_id=knox&username={user}&password=correct%20horse");
    let answer = provider.ask("POST", "/token", &[("Content-Type", "application/x-www-form-urlencoded")], form.as_bytes());
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

fn section(provider: &Provider, more: &str) -> String {
    format!("[auth.github]\nbase_url = \"{}\"\nca = \"{}\"\n{more}\n", provider.issuer, provider.ca().display())
}

impl Site {
    fn knox(&self, method: &str, target: &str, credential: &str, body: &str) -> Answer {
        let headers = [("Authorization", credential), ("Content-Type", "application/x-www-form-urlencoded")];
        self.server.client().unwrap().request(method, target, &headers, body.as_bytes()).unwrap()
    }
}

#[test]
fn a_token_of_the_password_grant_is_its_user_with_all_organisations() {
    let mut provider = Provider::start();
    let many: Vec<_> = (0..150).map(|n| format!("org{n}")).collect();
    provider.set_groups("alice", &many.join(","));
    let site = Site::of(&section(&provider, ""));
    let token = password_grant(&provider, "alice");
    let credential = format!("0u{token}");
    // A body that is only taken of somebody who is proven by his head.
    let large = "QUJD".repeat(10_000);
    let form = format!("id=k:1&data={large}&acl=%5B%7B%22type%22:%22UserGroup%22,%22id%22:%22org149%22,%22access%22:%22Read%22%7D%5D");
    let created = site.knox("POST", "/v0/keys/", &credential, &form);
    assert_eq!(created.status, 200, "{}", created.text());
    let bob = format!("0u{}", password_grant(&provider, "bob"));
    assert_eq!(site.knox("GET", "/v0/keys/k:1/", &bob, "").json()["message"], "Principal bob not authorized to read k:1");
    provider.set_groups("carol", "org149");
    let carol = format!("0u{}", password_grant(&provider, "carol"));
    assert_eq!(site.knox("GET", "/v0/keys/k:1/", &carol, "").status, 200, "by an organisation that stood on a page of its own");

    let wrong = site.knox("GET", "/v0/keys/", "0uwrong", "");
    assert_eq!((wrong.status, wrong.json()["code"].as_i64()), (401, Some(5)));
    assert_eq!(wrong.json()["message"], "API request returned status: 401 Unauthorized");
    provider.stop();
    assert_eq!(site.knox("GET", "/v0/keys/", &credential, "").status, 200, "what was said a moment ago holds");
    let dave = site.knox("GET", "/v0/keys/", "0uanother", "");
    assert!(dave.status == 401 && dave.json()["message"].as_str().unwrap().contains("could not say whose it is"), "{}", dave.text());
    assert!(!site.server.log().contains(&token));
}

#[test]
fn wrong_tokens_are_limited_and_an_outage_is_no_wrong_token() {
    let mut provider = Provider::start();
    let config = section(&provider, "") + "[auth]\nfailures_burst = 3\nfailures_per_second = 1\n";
    let site = Site::of(&config);
    let texts: Vec<_> = (0..6).map(|n| site.knox("GET", "/v0/keys/", &format!("0uwrong{n}"), "").json()["message"].to_string()).collect();
    assert!(texts[0].contains("401 Unauthorized") && texts[5].contains("too many failed"), "{texts:?}");
    provider.stop();
    let config = section(&provider, "") + "[auth]\nfailures_burst = 3\nfailures_per_second = 1\n";
    let site = Site::of(&config);
    for n in 0..6 {
        let text = site.knox("GET", "/v0/keys/", &format!("0utoken{n}"), "").json()["message"].to_string();
        assert!(text.contains("could not say"), "{text}");
    }
}

#[test]
fn a_session_is_a_users_credential_for_knox_too_and_is_shown_to_nobody_else() {
    let provider = Provider::start();
    let config = provider.section("corp", "") + &section(&provider, "user_prefix = \"github:\"\ngroups_prefix = \"github:\"");
    let site = Site::of(&config);
    site.log_in(&provider, "alice");
    let credential = format!("0u{}", site.kept()["token"].as_str().unwrap());
    assert_eq!(site.knox("POST", "/v0/keys/", &credential, "id=k:2&data=QUJD").status, 200);
    let by_github = format!("0u{}", password_grant(&provider, "alice"));
    let refused = site.knox("GET", "/v0/keys/k:2/", &by_github, "");
    assert_eq!(refused.json()["message"], "Principal github:alice not authorized to read k:2", "another source's alice");
    assert_eq!(site.run(&["logout"]).0, 0);
    let over = site.knox("GET", "/v0/keys/", &credential, "");
    assert!(over.status == 401 && over.json()["message"].as_str().unwrap().contains("no such session"), "{}", over.text());
}

#[test]
fn knoxs_commands_go_on_with_the_login_of_claviger_where_nothing_else_says_who_asks() {
    let provider = Provider::start();
    let mut site = Site::at(&provider);
    let knox = |site: &Site, arguments: &[&str]| site.run(&[&["knox"], arguments].concat());
    let (code, _, err) = knox(&site, &["keys"]);
    assert!(code != 0 && !err.is_empty(), "{err}");
    site.log_in(&provider, "alice");
    let (code, out, err) = knox(&site, &["keys"]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    let mut create = site.claviger(&["knox", "create", "app:pw"]);
    let mut child = create.stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"s3cret").unwrap();
    let (code, _, err) = super::said(child.wait_with_output().unwrap());
    assert_eq!(code, 0, "{err}");
    assert_eq!(knox(&site, &["get", "app:pw"]).1.trim(), "s3cret");
    // A session with little left is renewed, and one that was ended is none.
    site.restart();
    let short = std::fs::read_to_string(site.file()).unwrap().replace(site.kept()["expires"].as_str().unwrap(), "2020-01-01T00:00:00Z");
    std::fs::write(site.file(), short).unwrap();
    assert_eq!(knox(&site, &["get", "app:pw"]).1.trim(), "s3cret");
    assert_eq!(site.run(&["logout"]).0, 0);
    let (code, out, _) = knox(&site, &["get", "app:pw"]);
    assert!(code != 0 && out.is_empty());
}
