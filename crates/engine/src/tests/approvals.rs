//! Requests for approval in time, at their bounds, and beside damaged rows.

use super::*;
use crate::{ApprovalProblem, PrefixEdit, Verdict};
use claviger_domain::{Approval, ApprovalId, ApprovalRule, Approving, Ended, Guarded, GuardedSet, Rules};

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
    let site = ruled_site().await;
    let root = user("root");
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
        // The first one that ended is told by its time.
        if first.replace(first.unwrap_or(id)).is_none() {
            site.clock.advance(1);
        }
        ids.push_back(ask(&site, &root, "db").await.unwrap().id);
    }
    site.engine.sweep_approvals().await.unwrap();
    let kept = site.engine.approvals(&root, "test", true).await.unwrap();
    assert_eq!(kept.iter().filter(|a| a.approval.end.is_some()).count(), 1024);
    assert!(kept.iter().all(|a| Some(a.approval.id) != first));
    assert!(site.restart().await.unwrap().report.digest_matches, "the sums are right after rows went");
}

#[tokio::test]
async fn a_rule_that_nobody_can_check_any_more_still_guards() {
    let site = Site::new().await;
    let team = Prefix::parse("team/").unwrap();
    let root = user("root");
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
