//! One method for each route of `/api/v1`, in the order in which the API's description has them.
//!
//! Every method's errors are [`Error`]; where the server refused, [`Error::code`] says why.

use crate::request::{Request, Target};
use crate::secret::{Secret, SecretItem, encode};
use crate::{Client, Error};
use claviger_domain::{ApprovalId, KeyId, Prefix, Principal, Revision, SecretBytes, VersionId};
use claviger_wire::native as wire;
use serde::de::DeserializeOwned;
use zeroize::Zeroize;

type Answered<T> = Result<T, Error>;

/// Which keys to list.
#[derive(Debug, Clone, Default)]
pub struct KeysQuery {
    /// Ids that start with this text; any text will do.
    pub prefix: Option<String>,
    /// Labels that a key must have, each `NAME=VALUE`.
    pub labels: Vec<String>,
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// Keys per page, 1 to 1,000.
    pub limit: Option<u32>,
}

/// Which versions to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Which {
    /// Primary and active ones.
    #[default]
    Live,
    /// The primary one.
    Primary,
    /// Inactive ones too.
    All,
    /// One, by its id.
    Version(VersionId),
}

/// The answer to a bulk read.
#[derive(Debug)]
pub struct BulkRead {
    /// One item per id, in the order of the request.
    pub items: Vec<SecretItem>,
    /// The revision that the values show at least: where a watch goes on from without a gap.
    pub revision: Option<Revision>,
}

/// Whose reach to list.
#[derive(Debug, Clone)]
pub struct ReachQuery {
    /// Whose.
    pub principal: Principal,
    /// The groups to take a user for a member of.
    pub groups: Vec<String>,
    /// Only keys below it.
    pub prefix: Option<String>,
    /// Where the last page ended.
    pub cursor: Option<String>,
}

/// Which audit records to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// About this key.
    pub key: Option<String>,
    /// By this principal, `TYPE:ID`.
    pub principal: Option<String>,
    /// With this action.
    pub action: Option<String>,
    /// With this outcome.
    pub outcome: Option<String>,
    /// Not before this RFC 3339 time.
    pub since: Option<String>,
    /// Only records before this index.
    pub before: Option<String>,
    /// Records per page.
    pub limit: Option<u32>,
}

/// What carrying out a request gave.
#[derive(Debug)]
pub enum Ran {
    /// A change.
    Changed(wire::Changed),
    /// Data.
    Read(Secret),
    /// The material of a key that is used.
    Exported(wire::ExportedKey),
    /// A new barrier key.
    Rotated(wire::SealStatus),
}

/// Whether a key of a bulk read is left for another request.
fn did_not_fit(item: &SecretItem) -> bool {
    item.outcome.as_ref().is_err_and(|code| code == "ask_again")
}

impl Client {
    /// How people log in, and a nonce for one login.
    pub async fn login_methods(&self) -> Answered<wire::LoginMethods> {
        self.get("/api/v1/login".to_owned()).await
    }

    /// Opens a session by an ID token, or renews one. It is not repeated once it may have arrived: a token is taken once.
    pub async fn open_session(&self, wanted: &wire::CreateSession) -> Answered<wire::SessionInfo> {
        self.call(Request::new("POST", "/api/v1/session").json(wanted)).await?.json()
    }

    /// Ends the login of the session by which one is here.
    pub async fn end_session(&self) -> Answered<wire::Done> {
        self.call(Request::new("DELETE", "/api/v1/session")).await?.json()
    }

    /// The keys on which the caller has some right, a page at a time.
    pub async fn keys(&self, query: &KeysQuery) -> Answered<wire::KeyPage> {
        let limit = query.limit.map(|n| n.to_string());
        let target = Target::new("/api/v1/keys").with_some("prefix", query.prefix.as_deref()).with_each("label", &query.labels);
        let target = target.with_some("cursor", query.cursor.as_deref()).with_some("limit", limit.as_deref());
        self.get(target.build()).await
    }

    /// Makes a key; `request.data` is filled in from `data`, which only secrets have.
    pub async fn create(&self, mut request: wire::CreateKey, data: Option<&SecretBytes>) -> Answered<wire::KeyInfo> {
        request.data = data.map(encode);
        let call = Request::new("POST", "/api/v1/keys").json(&request);
        request.data.zeroize();
        self.call(call).await?.json()
    }

    /// A key without its data.
    pub async fn key(&self, id: &KeyId) -> Answered<wire::KeyInfo> {
        self.get(format!("/api/v1/keys/{id}")).await
    }

    /// Changes a key's metadata.
    pub async fn update(&self, id: &KeyId, change: &wire::UpdateKey, if_match: Option<&str>) -> Answered<wire::Changed> {
        self.change(Request::new("PATCH", format!("/api/v1/keys/{id}")).json(change), if_match).await
    }

    /// Deletes a key.
    pub async fn delete(&self, id: &KeyId, if_match: Option<&str>) -> Answered<wire::Changed> {
        self.change(Request::new("DELETE", format!("/api/v1/keys/{id}")), if_match).await
    }

    /// Reads a key's data, on a server that has seen `min` if that is given.
    pub async fn read(&self, id: &KeyId, which: &Which, min: Option<Revision>) -> Answered<Secret> {
        let target = Target::new(format!("/api/v1/keys/{id}/-/data"));
        let target = match which {
            Which::Live => target,
            Which::Primary => target.with("state", "primary"),
            Which::All => target.with("state", "all"),
            Which::Version(id) => target.with("version", &id.to_string()),
        };
        let answer = self.call(Request::new("GET", target.build()).min_revision(min)).await?;
        answer.json::<wire::KeyData>()?.try_into()
    }

    /// A key's versions without their data.
    pub async fn versions(&self, id: &KeyId) -> Answered<wire::VersionList> {
        self.get(format!("/api/v1/keys/{id}/-/versions")).await
    }

    /// Adds a version, which becomes primary at once if `promote`. `expires` is an RFC 3339 time. Only secrets have `data`.
    pub async fn add_version(
        &self,
        id: &KeyId,
        data: Option<&SecretBytes>,
        expires: Option<String>,
        promote: bool,
        if_match: Option<&str>,
    ) -> Answered<wire::Changed> {
        let mut body = wire::AddVersion { data: data.map(encode), wrapped: None, expires, promote };
        let call = Request::new("POST", format!("/api/v1/keys/{id}/-/versions")).json(&body);
        body.data.zeroize();
        self.change(call, if_match).await
    }

    /// Changes a version's state: `primary`, `inactive`, `active` or `destroyed`.
    pub async fn set_state(&self, id: &KeyId, version: VersionId, state: &str, if_match: Option<&str>) -> Answered<wire::Changed> {
        let body = wire::SetState { state: state.to_owned() };
        self.change(Request::new("PUT", format!("/api/v1/keys/{id}/-/versions/{version}")).json(&body), if_match).await
    }

    /// A key's own rights.
    pub async fn acl(&self, id: &KeyId) -> Answered<wire::AclBody> {
        self.get(format!("/api/v1/keys/{id}/-/acl")).await
    }

    /// Replaces all of a key's rights.
    pub async fn replace_acl(&self, id: &KeyId, acl: &wire::AclBody, if_match: Option<&str>) -> Answered<wire::Changed> {
        self.change(Request::new("PUT", format!("/api/v1/keys/{id}/-/acl")).json(acl), if_match).await
    }

    /// Sets single entries of a key's rights; the preset `none` removes one.
    pub async fn patch_acl(&self, id: &KeyId, acl: &wire::AclBody, if_match: Option<&str>) -> Answered<wire::Changed> {
        self.change(Request::new("PATCH", format!("/api/v1/keys/{id}/-/acl")).json(acl), if_match).await
    }

    /// Why a principal may or may not use a key.
    pub async fn explain(&self, id: &KeyId, principal: &Principal, groups: &[String]) -> Answered<wire::Explanation> {
        let target = Target::new(format!("/api/v1/keys/{id}/-/explain"));
        self.get(target.with("principal", &principal.to_string()).with_each("group", groups).build()).await
    }

    /// Earlier states of a key, newest first.
    pub async fn history(&self, id: &KeyId, limit: Option<u32>) -> Answered<wire::History> {
        let limit = limit.map(|n| n.to_string());
        self.get(Target::new(format!("/api/v1/keys/{id}/-/history")).with_some("limit", limit.as_deref()).build()).await
    }

    /// Reads up to 1,000 keys, on a server that has seen `min` if that is given. What does not fit into one answer is asked
    /// for again.
    pub async fn bulk_read(&self, ids: &[KeyId], min: Option<Revision>) -> Answered<BulkRead> {
        self.bulk_read_all(ids, min, false).await
    }

    /// The same with Knox's version hash for each key, for who keeps a cache that Knox's clients share.
    pub async fn bulk_read_hashed(&self, ids: &[KeyId], min: Option<Revision>) -> Answered<BulkRead> {
        self.bulk_read_all(ids, min, true).await
    }

    async fn bulk_read_all(&self, ids: &[KeyId], min: Option<Revision>, knox_hash: bool) -> Answered<BulkRead> {
        let mut read = self.bulk_read_once(ids.iter().map(ToString::to_string).collect(), min, knox_hash).await?;
        loop {
            let left: Vec<usize> = (0..read.items.len()).filter(|i| did_not_fit(&read.items[*i])).collect();
            let again: Vec<_> = left.iter().map(|i| read.items[*i].id.clone()).collect();
            if again.is_empty() {
                return Ok(read);
            }
            // The first answer's revision stays: a watch from there misses nothing of the later ones either.
            let more = self.bulk_read_once(again, min, knox_hash).await?.items;
            // A server gives at least the first key that it is asked for.
            let has_progress = more.first().is_some_and(|item| !did_not_fit(item));
            left.into_iter().zip(more).for_each(|(i, item)| read.items[i] = item);
            if !has_progress {
                return Ok(read);
            }
        }
    }

    async fn bulk_read_once(&self, ids: Vec<String>, min: Option<Revision>, knox_hash: bool) -> Answered<BulkRead> {
        let request = Request { repeatable: true, ..Request::new("POST", "/api/v1/read") };
        let answer = self.call(request.json(&wire::BulkRead { ids, knox_hash }).min_revision(min)).await?;
        let parsed: wire::BulkAnswer = answer.json()?;
        let items = parsed.items.into_iter().map(SecretItem::try_from).collect::<Result<_, _>>()?;
        Ok(BulkRead { items, revision: answer.revision() })
    }

    /// Fingerprints of up to 1,000 keys' values, under the key of an earlier answer's `session` if that is given. What does not fit into
    /// one answer has the error `ask_again`.
    pub async fn fingerprints(&self, ids: &[KeyId], session: Option<&str>) -> Answered<wire::Fingerprints> {
        let body = wire::AskFingerprints { ids: ids.iter().map(ToString::to_string).collect(), session: session.map(str::to_owned) };
        let request = Request { repeatable: true, ..Request::new("POST", "/api/v1/fingerprints") };
        self.call(request.json(&body)).await?.json()
    }

    /// Gives the ciphertext of a share, which uses a view up. `token` is base64.
    pub async fn open_share(&self, id: &str, token: &str) -> Answered<wire::OpenedShare> {
        let body = wire::OpenShare { id: id.to_owned(), token: token.to_owned() };
        self.call(Request::new("POST", "/api/v1/share/open").json(&body)).await?.json()
    }

    /// All prefix grants that the caller may see.
    pub async fn prefixes(&self) -> Answered<wire::PrefixList> {
        self.get("/api/v1/prefixes".to_owned()).await
    }

    /// The grants of one prefix.
    pub async fn prefix(&self, prefix: &Prefix) -> Answered<wire::PrefixInfo> {
        self.get(prefix_target(prefix)).await
    }

    /// Replaces the grants of one prefix.
    pub async fn replace_prefix(&self, prefix: &Prefix, grants: &wire::PrefixInfo, if_match: Option<&str>) -> Answered<wire::Changed> {
        self.change(Request::new("PUT", prefix_target(prefix)).json(grants), if_match).await
    }

    /// Removes the grants of one prefix.
    pub async fn delete_prefix(&self, prefix: &Prefix, if_match: Option<&str>) -> Answered<wire::Changed> {
        self.change(Request::new("DELETE", prefix_target(prefix)), if_match).await
    }

    /// What a principal reaches, a page at a time.
    pub async fn reach(&self, query: &ReachQuery) -> Answered<wire::Reach> {
        let target = Target::new("/api/v1/reach").with("principal", &query.principal.to_string()).with_each("group", &query.groups);
        self.get(target.with_some("prefix", query.prefix.as_deref()).with_some("cursor", query.cursor.as_deref()).build()).await
    }

    /// Audit records, newest first, a page at a time.
    pub async fn audit(&self, query: &AuditQuery) -> Answered<wire::AuditPage> {
        let AuditQuery { key, principal, action, outcome, since, before, limit } = query;
        let limit = limit.map(|n| n.to_string());
        let parameters = [
            ("key", key),
            ("principal", principal),
            ("action", action),
            ("outcome", outcome),
            ("since", since),
            ("before", before),
            ("limit", &limit),
        ];
        let target = parameters.into_iter().fold(Target::new("/api/v1/audit"), |t, (name, value)| t.with_some(name, value.as_deref()));
        self.get(target.build()).await
    }

    /// The server's state.
    pub async fn status(&self) -> Answered<wire::Status> {
        self.get("/api/v1/status".to_owned()).await
    }

    /// Rotates the barrier key.
    pub async fn rotate_seal(&self) -> Answered<wire::SealStatus> {
        self.call(Request::new("POST", "/api/v1/seal/rotate")).await?.json()
    }

    /// The rules of approval that reach a key.
    pub async fn rules(&self, id: &KeyId) -> Answered<wire::RuleList> {
        self.get(format!("/api/v1/keys/{id}/-/rules")).await
    }

    /// Replaces a key's own rules of approval.
    pub async fn replace_rules(&self, id: &KeyId, rules: &wire::RulesBody, if_match: Option<&str>) -> Answered<wire::Changed> {
        self.change(Request::new("PUT", format!("/api/v1/keys/{id}/-/rules")).json(rules), if_match).await
    }

    /// Replaces the rules of approval on a prefix.
    pub async fn replace_prefix_rules(&self, prefix: &Prefix, rules: &wire::RulesBody, if_match: Option<&str>) -> Answered<wire::Changed> {
        let target = Target::new("/api/v1/prefix/rules").with("prefix", prefix.as_str()).build();
        self.change(Request::new("PUT", target).json(rules), if_match).await
    }

    /// The requests for approval that the caller may see; those that are over only with `all`.
    pub async fn approvals(&self, all: bool) -> Answered<wire::ApprovalList> {
        let state = all.then_some("all");
        self.get(Target::new("/api/v1/approvals").with_some("state", state).build()).await
    }

    /// One request for approval.
    pub async fn approval(&self, id: ApprovalId) -> Answered<wire::ApprovalInfo> {
        self.get(format!("/api/v1/approvals/{id}")).await
    }

    /// Says something about a request: `approve`, `reject` or `withdraw`.
    pub async fn decide(&self, id: ApprovalId, what: &str, decision: &wire::Decision) -> Answered<wire::ApprovalInfo> {
        self.call(Request::new("POST", format!("/api/v1/approvals/{id}/-/{what}")).json(decision)).await?.json()
    }

    /// Carries out a request of the caller's that was approved.
    pub async fn run_approval(&self, id: ApprovalId) -> Answered<Ran> {
        let answer = self.call(Request::new("POST", format!("/api/v1/approvals/{id}/-/run"))).await?;
        let wire::RunAnswer { changed, data, exported, seal } = answer.json()?;
        match (changed, data, exported, seal) {
            (Some(changed), None, None, None) => Ok(Ran::Changed(changed)),
            (None, Some(data), None, None) => Ok(Ran::Read(data.try_into()?)),
            (None, None, Some(exported), None) => Ok(Ran::Exported(exported)),
            (None, None, None, Some(seal)) => Ok(Ran::Rotated(seal)),
            _ => Err(Error::Malformed("it is none of the things that carrying out can give".to_owned())),
        }
    }

    /// Who the server takes the caller for.
    pub async fn whoami(&self) -> Answered<wire::WhoAmI> {
        self.get("/api/v1/whoami".to_owned()).await
    }

    /// The API's own description (OpenAPI, JSON).
    pub async fn openapi(&self) -> Answered<String> {
        self.call(Request::new("GET", "/api/v1/openapi.json")).await?.text()
    }

    async fn get<T: DeserializeOwned>(&self, target: String) -> Answered<T> {
        self.call(Request::new("GET", target)).await?.json()
    }

    async fn change(&self, request: Request, if_match: Option<&str>) -> Answered<wire::Changed> {
        self.call(request.if_match(if_match)).await?.json()
    }
}

fn prefix_target(prefix: &Prefix) -> String {
    Target::new("/api/v1/prefix").with("prefix", prefix.as_str()).build()
}
