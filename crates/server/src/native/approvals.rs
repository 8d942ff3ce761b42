//! Routes on approvals: rules, requests, decisions, and carrying out.

use super::data::push_key;
use super::keys::changed;
use super::request::single;
use super::uses::exported_json;
use super::{Answer, Ask, Native, SURFACE, answer, json_answer, quoted};
use crate::http::{Headers, Response};
use claviger_domain::{ApprovalId, Approving, MAX_REASON, Prefix, Revision, is_reason};
use claviger_engine::{PrefixEdit, Ran, ReadKey, ShownApproval, Verdict};
use claviger_wire::native::{
    ApprovalInfo, ApprovalList, ApprovalParts, Changed, Decision, FieldError, PlacedRule, RuleList, RulesBody, RunAnswer, approval_info,
    etag, parse_hash, parse_rules, rule_entry,
};
use std::sync::Arc;

/// What a request's head says about approvals.
pub(crate) fn approving(headers: &Headers) -> Result<Approving, FieldError> {
    const ASK: &str = "claviger-ask";
    const WITH: &str = "claviger-approval";
    match (single(headers, ASK, ASK)?, single(headers, WITH, WITH)?) {
        (None, None) => Ok(Approving::Plain),
        (Some(_), Some(_)) => Err(FieldError::new(ASK, "ask for an approval or use one, not both")),
        (Some(reason), None) if reason.is_empty() || !is_reason(reason) => {
            Err(FieldError::new(ASK, format!("must be a reason of 1 to {MAX_REASON} bytes without control characters")))
        }
        (Some(reason), None) => Ok(Approving::Ask(Arc::from(reason))),
        (None, Some(id)) => match ApprovalId::parse(id) {
            Some(id) => Ok(Approving::With(id)),
            None => Err(FieldError::new(WITH, "must be an approval's id, 16 hexadecimal digits")),
        },
    }
}

/// A request for approval as JSON.
pub(crate) fn info(shown: &ShownApproval) -> ApprovalInfo {
    let ShownApproval { approval, hash, rules, state, changes, revision } = shown;
    approval_info(&ApprovalParts { approval, hash, rules, state, changes, revision: *revision })
}

/// The answer to a request that asked for approval instead of doing something.
pub(crate) fn asked(shown: &ShownApproval) -> Response {
    shown_answer(202, shown)
}

fn shown_answer(status: u16, shown: &ShownApproval) -> Response {
    answer(status, &info(shown)).with_header("Claviger-Revision", shown.revision.to_string())
}

impl Native {
    pub(crate) async fn list_approvals(&self, ask: &Ask<'_>) -> Answer {
        let all = match ask.query.one("state") {
            None | Some("waiting") => false,
            Some("all") => true,
            Some(_) => return Err(FieldError::new("state", "must be waiting or all").into()),
        };
        let approvals = self.engine().approvals(ask.caller, SURFACE, all).await?;
        Ok(answer(200, &ApprovalList { approvals: approvals.iter().map(info).collect() }))
    }

    pub(crate) async fn show_approval(&self, ask: &Ask<'_>) -> Answer {
        Ok(shown_answer(200, &self.engine().approval(ask.caller, SURFACE, id(ask)?).await?))
    }

    pub(crate) async fn decide(&self, ask: &Ask<'_>, verdict: Verdict) -> Answer {
        let id = id(ask)?;
        let Decision { hash, comment } = ask.json()?;
        let hash = parse_hash(&hash)?;
        Ok(shown_answer(200, &self.engine().decide(ask.caller, SURFACE, id, &hash, verdict, &comment).await?))
    }

    pub(crate) async fn withdraw(&self, ask: &Ask<'_>) -> Answer {
        let id = id(ask)?;
        let Decision { hash: _, comment } = ask.json()?;
        Ok(shown_answer(200, &self.engine().withdraw(ask.caller, SURFACE, id, &comment).await?))
    }

    /// Carries out what was approved, as it was asked for.
    pub(crate) async fn run_approval(&self, ask: &Ask<'_>) -> Answer {
        let id = id(ask)?;
        let seen = self.engine().revision();
        match Box::pin(self.engine().run_approval(ask.caller, SURFACE, id)).await? {
            Ran::Read(read) => Ok(ran_read(&read, seen)),
            Ran::Exported(exported) => Ok(json_answer(200, exported_json("{\"exported\":", &exported, "}"))),
            Ran::Changed(revision) => {
                let changed = Changed { etag: None, revision: revision.to_string(), version: None };
                Ok(answer(200, &RunAnswer { changed: Some(changed), ..RunAnswer::default() }))
            }
            Ran::Rotate => {
                let caller = ask.caller.clone().approving(Approving::With(id));
                let seal = self.rotated(ask, &caller).await?;
                Ok(answer(200, &RunAnswer { seal: Some(seal), ..RunAnswer::default() }))
            }
        }
    }

    pub(crate) async fn show_rules(&self, ask: &Ask<'_>) -> Answer {
        let (entry, rules) = self.engine().rules(ask.caller, SURFACE, ask.key()?.as_str()).await?;
        let source = |prefix: Option<Prefix>| prefix.map_or_else(|| "key".to_owned(), |p| format!("prefix:{p}"));
        let rules = rules.into_iter().map(|(prefix, rule)| PlacedRule { source: source(prefix), rule: rule_entry(&rule) }).collect();
        Ok(super::keys::seen(answer(200, &RuleList { rules }), &etag(&entry.meta), entry.revision))
    }

    pub(crate) async fn replace_rules(&self, ask: &Ask<'_>) -> Answer {
        let id = ask.key()?;
        let RulesBody { rules } = ask.json()?;
        let added = self.engine().change_rules(ask.caller, SURFACE, id.as_str(), &parse_rules(&rules)?, ask.precondition).await?;
        Ok(changed(200, &added))
    }

    pub(crate) async fn replace_prefix_rules(&self, ask: &Ask<'_>) -> Answer {
        let prefix = super::prefixes::prefix(ask)?;
        let RulesBody { rules } = ask.json()?;
        let edit = PrefixEdit::Rules(parse_rules(&rules)?);
        let (revision, standing) = self.engine().change_prefix(ask.caller, SURFACE, &prefix, edit, ask.precondition).await?;
        Ok(super::prefixes::changed(revision, standing))
    }
}

fn ran_read(read: &ReadKey, seen: Revision) -> Response {
    let etag = etag(&read.entry.meta);
    let room = super::data::size(read) + 16;
    let mut json = Vec::with_capacity(room);
    json.extend_from_slice(b"{\"data\":");
    push_key(&mut json, read, &etag, false);
    json.push(b'}');
    debug_assert!(json.len() <= room, "{} bytes in room for {room}", json.len());
    json_answer(200, json).with_header("ETag", quoted(&etag)).with_header("Claviger-Revision", seen.to_string())
}

fn id(ask: &Ask<'_>) -> Result<ApprovalId, FieldError> {
    ApprovalId::parse(ask.caught.id).ok_or_else(|| FieldError::new("id", "must be an approval's id, 16 hexadecimal digits"))
}
