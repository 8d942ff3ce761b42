//! Issuers' keys as they are fetched, kept and lost; and users whom a GitHub-compatible service knows.
#![allow(clippy::unwrap_used)]

use super::keys::{IssuerKeys, KeysError};
use super::testing::Provider;
use crate::outbound::Outbound;
use claviger_domain::{Clock, Identity, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

impl Hand {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_800_000_000_000_000_000)))
    }

    fn forward(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }
}

fn keys(provider: &Provider, clock: &Arc<Hand>) -> IssuerKeys {
    let outbound = Outbound::new(None, Duration::from_secs(5), true).unwrap();
    IssuerKeys::new(provider.url.clone(), outbound, clock.clone())
}

#[tokio::test]
async fn unknown_key_names_do_not_make_us_ask_more_than_once_in_ten_seconds() {
    let (provider, clock) = (Provider::start().await, Hand::new());
    let keys = keys(&provider, &clock);
    keys.for_token(Some("one")).await.unwrap();
    assert_eq!(provider.asked(), 2, "metadata and keys");
    for n in 0..100 {
        assert!(!keys.for_token(Some(&format!("made-up-{n}"))).await.unwrap().knows(Some("made-up")));
        keys.for_token(Some("one")).await.unwrap();
    }
    assert_eq!(provider.asked(), 2);
    clock.forward(10);
    let all = (0..20).map(|n| format!("flood-{n}")).collect::<Vec<_>>();
    futures::future::join_all(all.iter().map(|kid| keys.for_token(Some(kid)))).await;
    assert_eq!(provider.asked(), 4, "once for all of them");
}

#[tokio::test]
async fn a_new_key_is_found_by_its_name_and_an_old_one_counts_no_longer_than_the_issuer_says() {
    let (provider, clock) = (Provider::start().await, Hand::new());
    let keys = keys(&provider, &clock);
    keys.for_token(Some("one")).await.unwrap();
    provider.rotate("two", true);
    clock.forward(11);
    let found = keys.for_token(Some("two")).await.unwrap();
    assert!(found.knows(Some("one")) && found.knows(Some("two")));
    provider.rotate("three", false);
    clock.forward(11);
    assert!(keys.for_token(Some("two")).await.unwrap().knows(Some("two")), "nobody has asked yet");
    let found = keys.for_token(Some("three")).await.unwrap();
    assert!(!found.knows(Some("one")) && !found.knows(Some("two")));
    provider.rotate("four", false);
    clock.forward(600);
    assert!(!keys.for_token(Some("three")).await.unwrap().knows(Some("three")), "after ten minutes it is asked in any case");
}

#[tokio::test]
async fn while_the_issuer_is_down_its_known_keys_go_on_for_an_hour_and_no_longer() {
    let (provider, clock) = (Provider::start().await, Hand::new());
    let keys = keys(&provider, &clock);
    provider.set_down(true);
    assert!(matches!(keys.for_token(Some("one")).await, Err(KeysError::Outbound(_))));
    assert_eq!(keys.for_token(Some("one")).await, Err(KeysError::JustTried), "it is not asked for every token");
    provider.set_down(false);
    clock.forward(10);
    keys.for_token(Some("one")).await.unwrap();
    provider.set_down(true);
    for minutes in [11, 20, 25] {
        clock.forward(60 * minutes);
        assert!(keys.for_token(Some("one")).await.unwrap().knows(Some("one")), "{minutes}");
    }
    clock.forward(60 * 5);
    assert!(keys.for_token(Some("one")).await.is_err());
    provider.set_down(false);
    clock.forward(10);
    keys.for_token(Some("one")).await.unwrap();
}

#[tokio::test]
async fn metadata_of_another_issuer_bring_no_keys() {
    let (provider, clock) = (Provider::start().await, Hand::new());
    provider.claim_to_be("https://evil.example");
    assert_eq!(keys(&provider, &clock).for_token(Some("one")).await, Err(KeysError::OtherIssuer));
}

const ORGS: &str = "/user/orgs?per_page=100";

#[tokio::test]
async fn a_token_is_its_users_with_the_organisations_of_all_pages_and_is_asked_for_once_a_minute() {
    let (provider, clock) = (Provider::start().await, Hand::new());
    provider.answer_github("/user", "tok", 200, r#"{"login":"alice"}"#);
    provider.answer_github(ORGS, "tok", 200, r#"[{"login":"ops"}]"#);
    provider.answer_github(&format!("{ORGS}&page=2"), "tok", 200, r#"[{"login":"dev"}]"#);
    let github = provider.github("gh:", 60, clock.clone());
    let expected = Identity::User { name: "gh:alice".into(), groups: ["gh:ops", "gh:dev"].map(Into::into).into() };
    for _ in 0..3 {
        assert_eq!(github.look_up(b"tok").await.verdict, Ok(expected.clone()));
    }
    assert_eq!(provider.asked(), 3);
    provider.answer_github(ORGS, "tok", 200, "[]");
    clock.forward(60);
    let Ok(Identity::User { groups, .. }) = github.look_up(b"tok").await.verdict else { panic!("refused") };
    assert_eq!(groups.len(), 1, "the second page is still there: {groups:?}");
}

#[tokio::test]
async fn failures_of_a_look_up_have_knoxs_words_and_only_refusals_are_remembered() {
    let (provider, clock) = (Provider::start().await, Hand::new());
    let github = provider.github("gh:", 60, clock.clone());
    let text = |found: super::github::LookedUp| found.verdict.unwrap_err().to_string();
    provider.answer_github("/user", "bad", 401, "{}");
    for _ in 0..3 {
        let found = github.look_up(b"bad").await;
        assert!(!found.is_outage());
        assert_eq!(text(found), "API request returned status: 401 Unauthorized");
    }
    assert_eq!(provider.asked(), 1);
    provider.answer_github("/user", "limited", 403, "{}");
    for _ in 0..2 {
        let found = github.look_up(b"limited").await;
        assert!(found.is_outage());
        assert_eq!(text(found), "API request returned status: 403 Forbidden");
    }
    assert_eq!(provider.asked(), 3, "each time");
    provider.answer_github("/user", "odd", 200, "[]");
    assert!(text(github.look_up(b"odd").await).contains("names no user"));
    provider.set_down(true);
    let found = github.look_up(b"tok").await;
    assert!(found.is_outage());
    assert!(text(found).contains("could not say whose it is"));
}
