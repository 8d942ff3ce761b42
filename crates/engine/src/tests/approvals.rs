//! Requests for approval in time, at their bounds, and beside damaged rows.

use super::*;
use crate::{ApprovalProblem, PrefixEdit, ShownApproval, Verdict};
use claviger_domain::{Approval, ApprovalId, ApprovalRule, Approving, Ended, Guarded, GuardedSet, Rules, VoteError};

pub(super) fn rules(operations: &[Guarded], approver: &str) -> Rules {
    let rule = ApprovalRule {
        operations: GuardedSet::of(operations.iter().copied()),
        needed: 1,
        approvers: Arc::from([approver.parse().unwrap()]),
        expires_after: 60,
    };
    Rules::new(vec![rule]).unwrap()
}

async fn ask(site: &Site, by: &Caller, id: &str) -> Result<Approval, Error> {
    match site.engine.delete(&by.clone().approving(Approving::Ask("it is old".into())), "test", id, Precondition::Any).await {
        Err(Error::Asked(shown)) => Ok(shown.approval),
        Err(error) => Err(error),
        Ok(_) => panic!("deleted"),
    }
}

pub(super) async fn approve(site: &Site, by: &Caller, approval: &Approval) -> Result<(), Error> {
    let hash = claviger_crypto::deed_hash(&approval.deed, approval.standing);
    site.engine.decide(by, "test", approval.id, &hash, Verdict::Approve, "").await.map(drop)
}

async fn ruled_site() -> Site {
    let site = Site::new().await;
    site.create(&user("root"), "db", "s3cret", &[]).await.unwrap();
    site.engine.change_rules(&user("root"), "test", "db", &rules(&[Guarded::Delete], "user:bob"), Precondition::Any).await.unwrap();
    site
}

#[tokio::test]
async fn what_has_run_out_is_not_carried_out_and_is_written_down_once() {
    let site = ruled_site().await;
    let (root, bob) = (user("root"), user("bob"));
    let asked = ask(&site, &root, "db").await.unwrap();
    approve(&site, &bob, &asked).await.unwrap();
    site.clock.advance(60);
    let ran = site.engine.run_approval(&root, "test", asked.id).await;
    assert!(matches!(ran, Err(Error::Approval(ApprovalProblem::Ended(Ended::Expired)))));
    for _ in 0..2 {
        site.engine.sweep_approvals().await.unwrap();
    }
    let expired = site.log.lines.lock().iter().filter(|l| l.contains("expire_approval")).count();
    assert_eq!(expired, 1);
    // The next start knows it, too.
    let restarted = site.restart().await.unwrap();
    assert!(restarted.report.digest_matches);
    let shown = restarted.engine.approval(&root, "test", asked.id).await.unwrap();
    assert_eq!(shown.state, "expired");
}

#[tokio::test]
async fn requests_are_bounded_and_the_oldest_that_ended_are_forgotten() {
    let site = Site::new().await;
    let root = user("root");
    site.create(&root, "db", "s3cret", &[]).await.unwrap();
    let long = ApprovalRule { expires_after: claviger_domain::LONGEST, ..rules(&[Guarded::Delete], "user:bob").all()[0].clone() };
    site.engine.change_rules(&root, "test", "db", &Rules::new(vec![long]).unwrap(), Precondition::Any).await.unwrap();
    for _ in 0..64 {
        ask(&site, &root, "db").await.unwrap();
    }
    assert!(matches!(ask(&site, &root, "db").await, Err(Error::Approval(ApprovalProblem::TooMany(..)))));
    let mut first = None;
    let waiting = site.engine.approvals(&root, "test", false).await.unwrap();
    let mut ids: std::collections::VecDeque<_> = waiting.iter().map(|w| w.approval.id).collect();
    for _ in 0..1030 {
        let id = ids.pop_front().unwrap();
        site.engine.withdraw(&root, "test", id, "").await.unwrap();
        // The first one that ended is told by its time; nobody asks more often than he may.
        first.get_or_insert(id);
        site.clock.advance(20);
        ids.push_back(ask(&site, &root, "db").await.unwrap().id);
    }
    site.engine.sweep_approvals().await.unwrap();
    let kept = site.engine.approvals(&root, "test", true).await.unwrap();
    assert_eq!(kept.iter().filter(|a| a.approval.end.is_some()).count(), 1024);
    assert!(kept.iter().all(|a| Some(a.approval.id) != first));
    assert!(site.restart().await.unwrap().report.digest_matches, "the sums are right after rows went");
}

/// A site with the key `team/db`, whose reading a rule of `team/` guards, and what it reads at its next start: a row of `team/` that does not
/// authenticate.
async fn site_with_damaged_rules() -> Site {
    let site = Site::new().await;
    let (root, team) = (user("root"), Prefix::parse("team/").unwrap());
    site.create(&root, "team/db", "s3cret", &[]).await.unwrap();
    let guard = PrefixEdit::Rules(rules(&[Guarded::Read], "user:bob"));
    site.engine.change_prefix(&root, "test", &team, guard, Precondition::Any).await.unwrap();
    assert!(matches!(site.read(&root, "team/db").await, Err(Error::NeedsApproval(_))));
    site.store.alter(move |row| match row {
        claviger_ports::Loaded::Grant(mut row, at) if row.prefix == team => {
            row.mac[9] ^= 1;
            claviger_ports::Loaded::Grant(row, at)
        }
        other => other,
    });
    site
}

#[tokio::test]
async fn a_rule_that_nobody_can_check_any_more_still_guards() {
    let (site, root) = (site_with_damaged_rules().await, user("root"));
    let restarted = site.restart().await.unwrap();
    assert_eq!(restarted.report.damaged_others.len(), 1);
    let read = restarted.engine.read(&root, "test", "team/db", Select::Active).await;
    assert!(matches!(read, Err(Error::NeedsApproval(_))));
}

#[tokio::test]
async fn an_approval_whose_commit_failed_is_not_used() {
    let site = ruled_site().await;
    let (root, bob) = (user("root"), user("bob"));
    let asked = ask(&site, &root, "db").await.unwrap();
    approve(&site, &bob, &asked).await.unwrap();
    site.store.doom(Fate::Falls, true);
    assert!(site.engine.run_approval(&root, "test", asked.id).await.is_err());
    assert_eq!(site.engine.approval(&root, "test", asked.id).await.unwrap().state, "approved");
    assert!(site.engine.run_approval(&root, "test", asked.id).await.is_ok());
    assert!(matches!(site.engine.approval(&bob, "test", ApprovalId(asked.id.0 ^ 1)).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn grants_that_replace_damaged_ones_do_not_take_the_rules_away() {
    let (site, root) = (site_with_damaged_rules().await, user("root"));
    let team = Prefix::parse("team/").unwrap();
    let restarted = site.restart().await.unwrap();
    let granted = PrefixEdit::Grants(Some((acl(&[("user:eve", Preset::Read.capabilities())]), false)));
    restarted.engine.change_prefix(&root, "test", &team, granted, Precondition::Any).await.unwrap();
    let read = restarted.engine.read(&root, "test", "team/db", Select::Active).await;
    assert!(matches!(read, Err(Error::NeedsApproval(_))));
    let gone = restarted.engine.change_prefix(&root, "test", &team, PrefixEdit::Rules(Rules::default()), Precondition::Any).await;
    assert!(matches!(gone, Err(Error::NeedsApproval(_))));
}

#[tokio::test]
async fn a_rule_that_gives_less_time_now_ends_what_was_asked_before_it() {
    let site = Site::new().await;
    let (root, bob) = (user("root"), user("bob"));
    site.create(&root, "team/db", "s3cret", &[]).await.unwrap();
    let long = Rules::new(vec![ApprovalRule { expires_after: 3600, ..rules(&[Guarded::Delete], "user:bob").all()[0].clone() }]).unwrap();
    site.engine.change_rules(&root, "test", "team/db", &long, Precondition::Any).await.unwrap();
    let (asked, undecided) = (ask(&site, &root, "team/db").await.unwrap(), ask(&site, &root, "team/db").await.unwrap());
    approve(&site, &bob, &asked).await.unwrap();
    let minute = PrefixEdit::Rules(rules(&[Guarded::Delete], "user:bob"));
    site.engine.change_prefix(&root, "test", &Prefix::parse("team/").unwrap(), minute, Precondition::Any).await.unwrap();
    site.clock.advance(59);
    let shown = site.engine.approval(&root, "test", asked.id).await.unwrap();
    assert_eq!((shown.state, shown.approval.expires), ("approved", Timestamp(asked.asked.0 + 60_000_000_000)));
    site.clock.advance(1);
    assert_eq!(site.engine.approval(&root, "test", asked.id).await.unwrap().state, "expired");
    let ran = site.engine.run_approval(&root, "test", asked.id).await;
    assert!(matches!(ran, Err(Error::Approval(ApprovalProblem::Ended(Ended::Expired)))));
    let late = approve(&site, &bob, &undecided).await;
    assert!(matches!(late, Err(Error::Approval(ApprovalProblem::Vote(VoteError::Ended(Ended::Expired))))));
}

#[tokio::test]
async fn a_vote_of_one_whose_names_the_requester_turns_out_to_have_is_his_own() {
    let site = ruled_site().await;
    let (root, bob) = (user("root"), user("bob"));
    let asked = ask(&site, &root, "db").await.unwrap();
    let on_the_host = |caller: Caller| caller.with_other_names(Arc::from([Identity::Machine { name: "host1".into() }]));
    approve(&site, &on_the_host(bob.clone()), &asked).await.unwrap();
    let ran = site.engine.run_approval(&on_the_host(root.clone()), "test", asked.id).await;
    assert!(matches!(ran, Err(Error::Approval(ApprovalProblem::Wanting(_)))));
    assert!(site.engine.run_approval(&root, "test", asked.id).await.is_ok());
}

#[tokio::test]
async fn who_has_no_right_any_more_is_not_shown_the_key_by_his_old_request() {
    let site = Site::new().await;
    let (root, eve, bob) = (user("root"), user("eve"), user("bob"));
    site.create(&root, "db", "s3cret", &[("user:eve", Preset::Admin.capabilities())]).await.unwrap();
    site.engine.change_rules(&root, "test", "db", &rules(&[Guarded::Delete], "user:bob"), Precondition::Any).await.unwrap();
    let asked = ask(&site, &eve, "db").await.unwrap();
    let told = |shown: ShownApproval| (shown.changes.join("\n"), shown.rules.len());
    let before = told(site.engine.approval(&eve, "test", asked.id).await.unwrap());
    assert!(before.0.contains("user:root") && before.1 == 1, "{before:?}");
    site.set(&root, "db", "user:eve", Capabilities::NONE).await.unwrap();
    site.set(&root, "db", "user:carol", Preset::Read.capabilities()).await.unwrap();
    assert_eq!(told(site.engine.approval(&eve, "test", asked.id).await.unwrap()), (String::new(), 0));
    let listed = site.engine.approvals(&eve, "test", false).await.unwrap().remove(0);
    assert_eq!(told(listed), (String::new(), 0));
    for who in [&root, &bob] {
        assert!(told(site.engine.approval(who, "test", asked.id).await.unwrap()).0.contains("user:carol"));
    }
    let withdrawn = site.engine.withdraw(&eve, "test", asked.id, "").await.unwrap();
    assert_eq!(told(withdrawn), (String::new(), 0));
}

#[tokio::test]
async fn of_a_store_that_was_changed_behind_claviger_no_request_is_carried_out() {
    let site = ruled_site().await;
    let (root, bob) = (user("root"), user("bob"));
    let (asked, ended) = (ask(&site, &root, "db").await.unwrap(), ask(&site, &root, "db").await.unwrap());
    approve(&site, &bob, &asked).await.unwrap();
    site.engine.withdraw(&root, "test", ended.id, "").await.unwrap();
    site.create(&root, "lost", "x", &[]).await.unwrap();
    site.store.lose(|row| matches!(row, claviger_ports::Loaded::Key(row, _) if row.id.as_str() == "lost"));
    assert!(site.restart().await.is_err());
    let accepting = Settings { accept_tampering: true, ..Settings::default() };
    let saved = site.restart_with(accepting).await.unwrap().engine;
    let next = site.restart().await.unwrap();
    assert!(next.report.digest_matches, "{:?}", next.report);
    for engine in [saved, next.engine] {
        assert_eq!(engine.approval(&root, "test", asked.id).await.unwrap().state, "void");
        assert_eq!(engine.approval(&root, "test", ended.id).await.unwrap().state, "withdrawn");
        assert!(matches!(engine.run_approval(&root, "test", asked.id).await, Err(Error::Approval(ApprovalProblem::Ended(_)))));
        assert!(engine.read(&root, "test", "db", Select::Active).await.is_ok());
    }
    let named = format!("- accept_tampering approval {} ok", asked.id);
    assert_eq!(site.log.lines.lock().iter().filter(|line| **line == named).count(), 1);
}

#[tokio::test]
async fn who_asks_and_takes_back_without_end_is_stopped() {
    let site = ruled_site().await;
    let root = user("root");
    for _ in 0..256 {
        let asked = ask(&site, &root, "db").await.unwrap();
        site.engine.withdraw(&root, "test", asked.id, "").await.unwrap();
    }
    assert!(matches!(ask(&site, &root, "db").await, Err(Error::Approval(ApprovalProblem::TooOften(256)))));
    // Under none of the names that his certificate allows either; others are not held up by him, and he is not for ever.
    let by_certificate = |name: &str| {
        let proven = Proven { identity: Identity::Machine { name: name.into() }, method: "mtls" };
        let caller = Caller::new(Arc::from([proven]), RequestId(7), None).unwrap();
        caller.with_other_names(Arc::from([Identity::Machine { name: "*.example.com".into() }]))
    };
    site.set(&root, "db", "machine_prefix:m", Preset::Admin.capabilities()).await.unwrap();
    for n in 0..64 {
        ask(&site, &by_certificate(&format!("m{n}.example.com")), "db").await.unwrap();
    }
    let one_more = ask(&site, &by_certificate("more.example.com"), "db").await;
    assert!(matches!(one_more, Err(Error::Approval(ApprovalProblem::TooMany("you have", 64)))));
    let other = user("other");
    site.set(&root, "db", "user:other", Preset::Admin.capabilities()).await.unwrap();
    ask(&site, &other, "db").await.unwrap();
    site.clock.advance(3600);
    ask(&site, &root, "db").await.unwrap();
}

#[tokio::test]
async fn imported_material_is_not_promoted_as_it_comes_where_promoting_is_guarded() {
    let site = Site::new().await;
    let root = user("root");
    let id = KeyId::parse("mac").unwrap();
    used::made(&site, &root, "mac", KeyKind::Hmac).await;
    site.engine.change_rules(&root, "test", "mac", &rules(&[Guarded::Promote], "user:bob"), Precondition::Any).await.unwrap();
    let statement = site.engine.import_key(&root, "test").await.unwrap().statement;
    let target = claviger_crypto::ImportTarget { id: &id, kind: KeyKind::Hmac, exportable: false };
    let wrapped = claviger_crypto::wrap_for_import(&statement, &target, &SecretBytes::new(vec![9; 32])).unwrap();
    let new = NewVersion { material: Material::Wrapped(wrapped), expires: None };
    for caller in [root.clone(), root.clone().approving(Approving::Ask("now".into()))] {
        let refused = site.engine.add_version(&caller, "test", "mac", &new, true, Precondition::Any).await;
        // As any other data: nobody can agree to what he does not see.
        assert!(matches!(refused, Err(Error::Invalid { field: "promote", .. })), "{:?}", refused.map(|a| a.version));
    }
    assert!(site.engine.approvals(&root, "test", true).await.unwrap().is_empty());
    site.engine.add_version(&root, "test", "mac", &new, false, Precondition::Any).await.unwrap();
}

#[test]
fn a_reason_cannot_turn_around_what_is_shown() {
    for bad in ["a\u{202e}b", "a\u{2066}b", "a\u{200b}b", "a\u{2028}b", "a\u{feff}", "a\nb", "\u{e0041}"] {
        assert!(!claviger_domain::is_reason(bad), "{bad:?}");
    }
    for good in ["Störung 4711", "مشکل", "می\u{200c}خواهم", "👍"] {
        assert!(claviger_domain::is_reason(good), "{good:?}");
    }
}

#[tokio::test]
async fn a_rule_that_comes_while_a_policy_is_asked_counts() {
    struct Slow(Arc<tokio::sync::Notify>, Arc<tokio::sync::Notify>);
    impl AccessPolicy for Slow {
        fn ask(&self, _: Question<'_>) -> BoxFuture<'static, Result<bool, String>> {
            let (asked, answer) = (self.0.clone(), self.1.clone());
            Box::pin(async move {
                asked.notify_one();
                answer.notified().await;
                Ok(true)
            })
        }
    }
    let (asked, answer) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let policy = Some(Policy(Arc::new(Slow(asked.clone(), answer.clone()))));
    let site = Site::with(Settings { policy, ..Settings::default() }).await;
    let root = user("root");
    site.create(&root, "db", "s3cret", &[]).await.unwrap();
    let engine = site.engine.clone();
    let read = tokio::spawn(async move { engine.read(&user("friend"), "test", "db", Select::Active).await.map(drop) });
    asked.notified().await;
    site.engine.change_rules(&root, "test", "db", &rules(&[Guarded::Read], "user:bob"), Precondition::Any).await.unwrap();
    answer.notify_one();
    // It is asked again about the key as it is.
    asked.notified().await;
    answer.notify_one();
    assert!(matches!(read.await.unwrap(), Err(Error::NeedsApproval(_))));
}

#[tokio::test]
async fn a_key_is_not_deleted_past_its_rule_by_being_labelled_as_a_share() {
    let site = Site::new().await;
    let root = user("root");
    let share = ShareRule { prefix: "share/", views: "views" };
    for id in ["share/ruled", "share/free"] {
        site.create(&root, id, "s3cret", &[]).await.unwrap();
    }
    site.engine.change_rules(&root, "test", "share/ruled", &rules(&[Guarded::Delete], "user:bob"), Precondition::Any).await.unwrap();
    let labelled = |meta: &KeyMeta| {
        let labels = Labels::new([("views".to_owned(), "1".to_owned())]).unwrap();
        Ok(KeyMeta { labels, max_lifetime: Some(1), ..meta.clone() })
    };
    for id in ["share/ruled", "share/free"] {
        site.engine.change_meta(&root, "test", id, Precondition::Any, labelled).await.unwrap();
    }
    let ruled = KeyId::parse("share/ruled").unwrap();
    let opened = site.engine.open_share(&root, "test", share, &ruled, |_| Some(SecretBytes::new(vec![1])));
    assert!(matches!(opened.await.err(), Some(Error::Invalid { field: "id", .. })));
    site.clock.advance(10);
    assert_eq!(site.engine.expire_shares(share, RequestId(3)).await.unwrap(), 1);
    assert!(site.engine.rights(&root, "test", "share/ruled", Disclosure::Permitted).await.is_ok());
}
