//! `claviger approval`: requests for the approval of others, and the rules that demand it.

use crate::cli::{Cli, Global, Session};
use crate::commands::{get, seal, states::show_change};
use crate::failure::{Code, Failure};
use crate::output::{self, Table};
use crate::{ask, parse};
use clap::{Args, Parser, Subcommand};
use claviger_client::Ran;
use claviger_domain::{ApprovalId, KeyId, Prefix};
use claviger_wire::native::{ApprovalInfo, Decision, RuleEntry, RulesBody};
use std::ffi::OsString;
use zeroize::Zeroizing;

/// The commands of `approval`.
#[derive(Subcommand)]
pub(crate) enum Approval {
    /// Ask for approval of a command: `approval ask --reason WHY -- delete KEY` is `delete KEY --ask WHY`.
    Ask(Ask),
    /// List the requests that wait: those you made, may decide, or whose target you administer.
    #[command(visible_alias = "ls")]
    List(List),
    /// Show a request and what it would change in what stands now.
    Show(One),
    /// Agree to a request, after it was shown.
    Approve(Decide),
    /// Reject a request, which ends it.
    Reject(Decide),
    /// Take back a request that you made.
    Withdraw(Decide),
    /// Carry out your request, exactly as it was approved, once.
    Run(One),
    /// Show the rules that reach a key, or stand on a prefix.
    Rules(Rules),
    /// Demand approval of operations on a key, or on all keys below a prefix: adds a rule.
    Require(Require),
    /// Remove a rule by its number in `approval rules`. The rule itself must agree.
    Unrequire(Unrequire),
}

/// Options of `approval ask`.
#[derive(Args)]
pub(crate) struct Ask {
    /// Why. It is recorded, and shown to who decides.
    #[arg(long, value_parser = parse::reason)]
    reason: String,
    /// The command, as it is written after `claviger`. Options of the connection stand before `approval`.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Options of `approval list`.
#[derive(Args)]
pub(crate) struct List {
    /// Those that are over, too.
    #[arg(long)]
    all: bool,
}

/// One request.
#[derive(Args)]
pub(crate) struct One {
    /// Its id.
    #[arg(value_parser = parse::approval_id)]
    id: ApprovalId,
}

/// Options of what is said about a request.
#[derive(Args)]
pub(crate) struct Decide {
    /// Its id.
    #[arg(value_parser = parse::approval_id)]
    id: ApprovalId,
    /// What there is to say about it. It is recorded.
    #[arg(long, default_value = "")]
    comment: String,
    /// Only if its hash is this: what you looked at elsewhere.
    #[arg(long)]
    hash: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// A key, or a prefix.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Place {
    /// The key.
    #[arg(value_parser = parse::key_id)]
    key: Option<KeyId>,
    /// All keys below this prefix; '' is the prefix of all keys.
    #[arg(long, value_parser = parse::prefix)]
    prefix: Option<Prefix>,
}

/// Options of `approval rules`.
#[derive(Args)]
pub(crate) struct Rules {
    #[command(flatten)]
    place: Place,
}

/// Options of `approval require`.
#[derive(Args)]
pub(crate) struct Require {
    #[command(flatten)]
    place: Place,
    /// Which operations: read, destroy, delete, grant, promote, export, root (on the prefix '' only).
    #[arg(long, required = true, value_delimiter = ',')]
    operations: Vec<String>,
    /// How many different people must agree.
    #[arg(long, default_value_t = 1)]
    needed: u8,
    /// Who may: user:NAME or user_group:NAME; may be repeated.
    #[arg(long = "approver", required = true)]
    approvers: Vec<String>,
    /// How long a request can be carried out, 1m to 30d.
    #[arg(long, value_name = "DURATION", value_parser = parse::lifetime, default_value = "1d")]
    expires_after: u32,
}

/// Options of `approval unrequire`.
#[derive(Args)]
pub(crate) struct Unrequire {
    #[command(flatten)]
    place: Place,
    /// The rule's number.
    #[arg(long)]
    rule: usize,
}

impl Ask {
    /// The command that approval is asked of.
    pub(crate) fn command(self, mut global: Global) -> Result<Cli, Failure> {
        let words = std::iter::once(OsString::from("claviger")).chain(self.command);
        let mut cli = Cli::try_parse_from(words).map_err(|e| Failure::arguments(&e))?;
        global.ask = Some(self.reason);
        cli.global = global;
        Ok(cli)
    }
}

impl Approval {
    pub(crate) async fn run(self, session: &Session) -> Result<u8, Failure> {
        match self {
            Self::Ask(_) => Err(Failure::usage("`approval ask` takes a command")),
            Self::List(c) => c.run(session).await,
            Self::Show(c) => show(session, &fetch(session, c.id).await?),
            Self::Approve(c) => c.run(session, "approve").await,
            Self::Reject(c) => c.run(session, "reject").await,
            Self::Withdraw(c) => c.run(session, "withdraw").await,
            Self::Run(c) => carry_out(session, c.id).await,
            Self::Rules(c) => c.run(session).await,
            Self::Require(c) => c.run(session).await,
            Self::Unrequire(c) => c.run(session).await,
        }
    }
}

impl List {
    async fn run(self, session: &Session) -> Result<u8, Failure> {
        let list = session.client.approvals(self.all).await.map_err(|e| Failure::client(e, None))?;
        if session.json {
            return output::json(&list).map(|()| 0);
        }
        let mut table = Table::new(&["ID", "STATE", "ASKED BY", "WHAT", "EXPIRES", "WHY"]);
        for a in &list.approvals {
            table.row([&a.id, &a.state, &a.requester, &a.summary, &a.expires, &a.reason]);
        }
        table.print()?;
        Ok(0)
    }
}

impl Decide {
    async fn run(self, session: &Session, what: &str) -> Result<u8, Failure> {
        let Self { id, comment, hash, yes } = self;
        let hash = match hash {
            Some(hash) => hash,
            None => {
                let shown = fetch(session, id).await?;
                if !session.json {
                    lines(&describe(&shown))?;
                }
                ask::confirm(&format!("{} this?", sentence(what)), yes)?;
                shown.hash
            }
        };
        let decided = session.client.decide(id, what, &Decision { hash, comment }).await;
        show(session, &decided.map_err(|e| failure(e, id))?)
    }
}

fn sentence(what: &str) -> &'static str {
    match what {
        "approve" => "Approve",
        "reject" => "Reject",
        _ => "Withdraw",
    }
}

async fn carry_out(session: &Session, id: ApprovalId) -> Result<u8, Failure> {
    match session.client.run_approval(id).await.map_err(|e| failure(e, id))? {
        Ran::Changed(changed) => show_change(session, &changed, &format!("approval {id}: carried out")),
        Ran::Read(secret) => get::print(&secret, session.json, secret.versions.len() > 1).map(|()| 0),
        Ran::Exported(exported) if session.json => output::json(&exported).map(|()| 0),
        Ran::Exported(exported) => {
            let line = Zeroizing::new(exported.material + "\n");
            output::raw(line.as_bytes()).map(|()| 0)
        }
        Ran::Rotated(status) if session.json => output::json(&status).map(|()| 0),
        Ran::Rotated(status) => {
            let mut table = Table::plain();
            seal::rows(&mut table, &status);
            table.print().map(|()| 0)
        }
    }
}

impl Rules {
    async fn run(self, session: &Session) -> Result<u8, Failure> {
        let rules = match (&self.place.key, &self.place.prefix) {
            (Some(key), _) => {
                let list = session.client.rules(key).await.map_err(|e| Failure::client(e, Some(key.as_str())))?;
                list.rules.into_iter().map(|placed| (placed.source, placed.rule)).collect()
            }
            (None, prefix) => {
                own_rules(session, None, prefix.as_ref()).await?.0.into_iter().map(|r| ("prefix".to_owned(), r)).collect::<Vec<_>>()
            }
        };
        if session.json {
            let rules: Vec<_> = rules.iter().map(|(source, rule)| serde_json::json!({ "source": source, "rule": rule })).collect();
            return output::json(&serde_json::json!({ "rules": rules })).map(|()| 0);
        }
        let mut table = Table::new(&["RULE", "FROM", "OPERATIONS", "NEEDED", "APPROVERS", "WITHIN"]);
        for (n, (source, rule)) in rules.iter().enumerate() {
            let RuleEntry { operations, needed, approvers, expires_after } = rule;
            let cells =
                [&n.to_string(), source, &operations.join(","), &needed.to_string(), &approvers.join(" "), &format!("{expires_after} s")];
            table.row(cells.map(String::as_str));
        }
        table.print()?;
        Ok(0)
    }
}

impl Require {
    async fn run(self, session: &Session) -> Result<u8, Failure> {
        let Self { place, operations, needed, approvers, expires_after } = self;
        let rule = RuleEntry { operations, needed, approvers, expires_after };
        edit(session, &place, |rules| {
            rules.push(rule.clone());
            Ok(())
        })
        .await
    }
}

impl Unrequire {
    async fn run(self, session: &Session) -> Result<u8, Failure> {
        edit(session, &self.place, |rules| match self.rule < rules.len() {
            true => {
                rules.remove(self.rule);
                Ok(())
            }
            false => Err(Failure::usage(format!("there is no own rule {}; `claviger approval rules` numbers them", self.rule))),
        })
        .await
    }
}

/// The own rules of a key or prefix, and the ETag that they were read at; a key's come first in the list of all that reach it.
async fn own_rules(session: &Session, key: Option<&KeyId>, prefix: Option<&Prefix>) -> Result<(Vec<RuleEntry>, Option<String>), Failure> {
    let failed = |e| Failure::client(e, key.map(KeyId::as_str));
    match (key, prefix) {
        (Some(key), _) => {
            let etag = session.client.key(key).await.map_err(failed)?.etag;
            let list = session.client.rules(key).await.map_err(failed)?;
            let own = list.rules.into_iter().filter(|placed| placed.source == "key").map(|placed| placed.rule);
            Ok((own.collect(), Some(etag)))
        }
        (None, Some(prefix)) => match session.client.prefix(prefix).await.map_err(failed) {
            Ok(info) => Ok((info.rules, info.etag)),
            Err(failure) if failure.code == Code::NotFound => Ok((Vec::new(), None)),
            Err(failure) => Err(failure),
        },
        (None, None) => Err(Failure::usage("give a KEY or --prefix")),
    }
}

async fn edit(session: &Session, place: &Place, change: impl FnOnce(&mut Vec<RuleEntry>) -> Result<(), Failure>) -> Result<u8, Failure> {
    let (mut rules, etag) = own_rules(session, place.key.as_ref(), place.prefix.as_ref()).await?;
    change(&mut rules)?;
    let body = RulesBody { rules };
    let (done, name) = match (&place.key, &place.prefix) {
        (Some(key), _) => (session.client.replace_rules(key, &body, etag.as_deref()).await, key.to_string()),
        (None, Some(prefix)) => (session.client.replace_prefix_rules(prefix, &body, etag.as_deref()).await, format!("prefix `{prefix}`")),
        (None, None) => return Err(Failure::usage("give a KEY or --prefix")),
    };
    let changed = done.map_err(|e| Failure::client(e, place.key.as_ref().map(KeyId::as_str)))?;
    show_change(session, &changed, &format!("{name}: {} rules of approval", body.rules.len()))
}

async fn fetch(session: &Session, id: ApprovalId) -> Result<ApprovalInfo, Failure> {
    session.client.approval(id).await.map_err(|e| failure(e, id))
}

fn failure(error: claviger_client::Error, id: ApprovalId) -> Failure {
    let failure = Failure::client(error, None);
    match failure.code {
        Code::NotFound => failure.next("`claviger approval list --all` lists the requests that you may see"),
        Code::Denied | Code::Conflict => failure.next(format!("`claviger approval show {id}` says where it stands")),
        _ => failure,
    }
}

fn show(session: &Session, approval: &ApprovalInfo) -> Result<u8, Failure> {
    match session.json {
        true => output::json(approval)?,
        false => lines(&describe(approval))?,
    }
    Ok(0)
}

/// Says that approval was asked for.
pub(crate) fn show_asked(approval: &ApprovalInfo, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(approval);
    }
    let next = format!("next: when it is approved, `claviger approval run {}`; nothing is changed before", approval.id);
    lines(&format!("{}\n{next}", describe(approval)))
}

fn describe(a: &ApprovalInfo) -> String {
    let mut lines = vec![
        format!("approval {} ({})", a.id, a.state),
        format!("  {} asks to {}", a.requester, a.summary),
        format!("  why: {}", a.reason),
    ];
    lines.extend(a.changes.iter().map(|change| format!("    {change}")));
    for state in &a.rules {
        let RuleEntry { operations, needed, approvers, .. } = &state.rule;
        lines.push(format!("  needs {needed} of {} ({}): {} given", approvers.join(", "), operations.join(","), state.given));
    }
    for vote in &a.votes {
        lines.push(format!("  approved by {} at {}{}", vote.by, vote.at, quoted(&vote.comment)));
    }
    match &a.end {
        Some(end) => lines.push(format!("  {} by {} at {}{}", end.how, end.by, end.at, quoted(&end.comment))),
        None => lines.push(format!("  expires {}", a.expires)),
    }
    lines.push(format!("  hash {}", a.hash));
    lines.join("\n")
}

fn lines(text: &str) -> Result<(), Failure> {
    text.lines().try_for_each(output::line)
}

fn quoted(comment: &str) -> String {
    if comment.is_empty() { String::new() } else { format!(": {comment}") }
}
