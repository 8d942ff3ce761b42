//! The table of routes: what dispatches requests is also what the OpenAPI document is made of.

use crate::http::Method;
use claviger_domain::Capability;

/// Where the API lies.
pub(crate) const BASE: &str = "/api/v1";

/// One route of the API.
#[derive(Debug)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path below `/api/v1`; `{id}` may contain slashes, `{vid}` may not.
    pub pattern: &'static str,
    /// What it does.
    pub operation: Operation,
    /// In a sentence.
    pub summary: &'static str,
    /// What the caller must be allowed.
    pub needs: Needs,
    /// The query parameters that it takes; any other is refused.
    pub query: &'static [Param],
    /// The name of the body's schema; without one there may be no body.
    pub request: Option<&'static str>,
    /// The status of success.
    pub status: u16,
    /// The name of the answer's schema.
    pub answer: &'static str,
    /// Whether `If-Match` is taken.
    pub conditional: bool,
}

impl Route {
    /// Whether a request here may ask for approval or name one: what rules can guard, what looks before it (a command does both
    /// under one head), and what refuses it with better words.
    pub(crate) fn takes_approval(&self) -> bool {
        use Operation as O;
        let guarded = matches!(
            self.operation,
            O::DeleteKey
                | O::SetState
                | O::ReplaceAcl
                | O::EditAcl
                | O::ReplacePrefix
                | O::DeletePrefix
                | O::ReplaceRules
                | O::ReplacePrefixRules
                | O::RotateSeal
                | O::Export
                | O::AddVersion
        );
        guarded || self.method == Method::Get
    }
}

/// What a caller needs for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Not even an identity.
    Nothing,
    /// Any proven identity; the answer holds what it may see.
    Identity,
    /// Any right on the key.
    AnyRight,
    /// This right on the key.
    OnKey(Capability),
    /// `verify` or `sign` on the key.
    Verification,
    /// This right on a prefix of the new key's id, or the rule that any user may create there.
    Creation,
    /// `admin` on the prefix or a shorter one.
    PrefixAdmin,
    /// `admin` on the empty prefix: on everything.
    RootAdmin,
    /// To have asked for the approval, to be an approver by a rule in force, or to administer its target.
    Concerned,
}

/// A query parameter.
#[derive(Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub summary: &'static str,
    /// Whether it must be given.
    pub required: bool,
    /// Whether it may be given more than once.
    pub repeated: bool,
}

impl Param {
    pub(crate) const fn once(name: &'static str, summary: &'static str) -> Self {
        Self { name, summary, required: false, repeated: false }
    }

    pub(crate) const fn many(name: &'static str, summary: &'static str) -> Self {
        Self { name, summary, required: false, repeated: true }
    }

    pub(crate) const fn needed(name: &'static str, summary: &'static str) -> Self {
        Self { name, summary, required: true, repeated: false }
    }
}

/// What a route does; the name of the variant is the operation's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // Each is described by its route's summary.
pub enum Operation {
    ListKeys,
    CreateKey,
    ShowKey,
    UpdateKey,
    DeleteKey,
    ReadData,
    Encrypt,
    Decrypt,
    Rewrap,
    DataKeys,
    Sign,
    Hmac,
    Verify,
    ShowPublic,
    Export,
    ShowImportKey,
    ListVersions,
    AddVersion,
    SetState,
    ShowAcl,
    ReplaceAcl,
    EditAcl,
    Explain,
    History,
    ReadMany,
    Fingerprint,
    ListPrefixes,
    ShowPrefix,
    ReplacePrefix,
    DeletePrefix,
    Reach,
    Watch,
    QueryAudit,
    ShowStatus,
    RotateSeal,
    WhoAmI,
    LoginMethods,
    CreateSession,
    EndSession,
    ShowRules,
    ReplaceRules,
    ReplacePrefixRules,
    ListApprovals,
    ShowApproval,
    Approve,
    Reject,
    Withdraw,
    RunApproval,
    SharePage,
    ShareScript,
    OpenShare,
    Describe,
}

const CURSOR: Param = Param::once("cursor", "Where the page before ended: its `next`.");
const LIMIT: Param = Param::once("limit", "Entries at most, 1 to 1000; 100 unless given.");
const PRINCIPAL: Param = Param::needed("principal", "`TYPE:ID`, with TYPE one of user, machine, service.");
const GROUP: Param = Param::many("group", "A group to take the user for a member of.");
const THE_PREFIX: Param = Param::needed("prefix", "The prefix: empty, or ending with `/` or `:`.");

/// A route that reads.
const fn get(pattern: &'static str, operation: Operation, needs: Needs, answer: &'static str, summary: &'static str) -> Route {
    Route { method: Method::Get, pattern, operation, summary, needs, query: &[], request: None, status: 200, answer, conditional: false }
}

/// A route that changes one object.
const fn change(method: Method, pattern: &'static str, operation: Operation, needs: Needs, summary: &'static str) -> Route {
    Route { method, pattern, operation, summary, needs, query: &[], request: None, status: 200, answer: "Changed", conditional: true }
}

/// A route that uses a key.
const fn using(pattern: &'static str, operation: Operation, right: Capability, body: &'static str, summary: &'static str) -> Route {
    let read = get(pattern, operation, OnKey(right), "UseAnswer", summary);
    Route { method: Method::Post, request: Some(body), ..read }
}

use Capability::{Admin, List, Read, Write};
/// A route that decides about a request for approval.
const fn decision(pattern: &'static str, operation: Operation, summary: &'static str) -> Route {
    let read = get(pattern, operation, Needs::Concerned, "ApprovalInfo", summary);
    Route { method: Method::Post, request: Some("Decision"), ..read }
}

use Needs::{AnyRight, Concerned, Creation, Identity, OnKey, PrefixAdmin, RootAdmin};

/// All routes of the API.
pub const ROUTES: &[Route] = &[
    Route {
        query: &[
            Param::once("prefix", "Only ids that start with this text."),
            Param::many("label", "Only keys with this label, `NAME=VALUE`; may be repeated."),
            CURSOR,
            LIMIT,
        ],
        ..get("/keys", Operation::ListKeys, Identity, "KeyPage", "List the keys on which you have any right.")
    },
    Route {
        request: Some("CreateKey"),
        status: 201,
        answer: "KeyInfo",
        conditional: false,
        ..change(Method::Post, "/keys", Operation::CreateKey, Creation, "Create a key; you become its administrator.")
    },
    get("/keys/{id}", Operation::ShowKey, AnyRight, "KeyInfo", "Show a key without its data."),
    Route {
        request: Some("UpdateKey"),
        ..change(Method::Patch, "/keys/{id}", Operation::UpdateKey, OnKey(Admin), "Change a key's description, labels or policy.")
    },
    change(Method::Delete, "/keys/{id}", Operation::DeleteKey, OnKey(Admin), "Delete a key; its former readers are told."),
    Route {
        query: &[
            Param::once("version", "Just this version, whatever its state."),
            Param::once("state", "`primary`, `active` (primary and active ones; the default) or `all`."),
        ],
        ..get("/keys/{id}/-/data", Operation::ReadData, OnKey(Read), "KeyData", "Read a key's data.")
    },
    using("/keys/{id}/-/encrypt", Operation::Encrypt, Capability::Encrypt, "Encrypt", "Encrypt with a key's primary version."),
    using(
        "/keys/{id}/-/decrypt",
        Operation::Decrypt,
        Capability::Decrypt,
        "Decrypt",
        "Decrypt with the version that each ciphertext names.",
    ),
    using("/keys/{id}/-/rewrap", Operation::Rewrap, Capability::Encrypt, "Decrypt", "Move ciphertexts to a key's primary version, unseen."),
    using("/keys/{id}/-/data-key", Operation::DataKeys, Capability::Encrypt, "MakeDataKeys", "Make data keys, wrapped with a key."),
    using("/keys/{id}/-/sign", Operation::Sign, Capability::Sign, "Sign", "Sign with a key's primary version."),
    using(
        "/keys/{id}/-/hmac",
        Operation::Hmac,
        Capability::Sign,
        "Hmac",
        "Make message authentication codes with a key's primary version.",
    ),
    Route {
        needs: Needs::Verification,
        ..using("/keys/{id}/-/verify", Operation::Verify, Capability::Verify, "Verify", "Check signatures or message authentication codes.")
    },
    get("/keys/{id}/-/public", Operation::ShowPublic, AnyRight, "PublicKeys", "Show the public halves of a key's live versions."),
    Route {
        method: Method::Post,
        query: &[Param::once("version", "This version; the primary one unless given.")],
        ..get(
            "/keys/{id}/-/export",
            Operation::Export,
            OnKey(Read),
            "ExportedKey",
            "Export the material of a key that was made exportable.",
        )
    },
    get("/import-key", Operation::ShowImportKey, Identity, "ImportKey", "Show the public key that material to be imported is wrapped to."),
    get("/keys/{id}/-/versions", Operation::ListVersions, AnyRight, "VersionList", "List a key's versions without their data."),
    Route {
        request: Some("AddVersion"),
        status: 201,
        ..change(Method::Post, "/keys/{id}/-/versions", Operation::AddVersion, OnKey(Write), "Add a version, and promote it if asked to.")
    },
    Route {
        request: Some("SetState"),
        ..change(
            Method::Put,
            "/keys/{id}/-/versions/{vid}",
            Operation::SetState,
            OnKey(Write),
            "Promote, deactivate, reactivate or destroy a version; destroying takes `admin`.",
        )
    },
    get("/keys/{id}/-/acl", Operation::ShowAcl, OnKey(List), "AclBody", "Show a key's own rights."),
    Route {
        request: Some("AclBody"),
        ..change(Method::Put, "/keys/{id}/-/acl", Operation::ReplaceAcl, OnKey(Admin), "Replace all of a key's rights.")
    },
    Route {
        request: Some("AclBody"),
        ..change(
            Method::Patch,
            "/keys/{id}/-/acl",
            Operation::EditAcl,
            OnKey(Admin),
            "Set single entries of a key's rights; the preset `none` or no capabilities remove one.",
        )
    },
    Route {
        query: &[PRINCIPAL, GROUP],
        ..get(
            "/keys/{id}/-/explain",
            Operation::Explain,
            OnKey(List),
            "Explanation",
            "Explain why a principal may do what; asking about others takes `admin`.",
        )
    },
    Route {
        query: &[Param::once("limit", "Entries at most, 1 to 64, which is also the default.")],
        ..get("/keys/{id}/-/history", Operation::History, OnKey(Admin), "History", "Show a key's earlier states, newest first.")
    },
    Route {
        method: Method::Post,
        request: Some("BulkRead"),
        ..get("/read", Operation::ReadMany, Identity, "BulkAnswer", "Read up to 1,000 keys' data; each has its own result.")
    },
    Route {
        method: Method::Post,
        request: Some("AskFingerprints"),
        ..get(
            "/fingerprints",
            Operation::Fingerprint,
            Identity,
            "Fingerprints",
            "Give keyed fingerprints of up to 1,000 keys' data, by which it is found in files; takes `read` on each.",
        )
    },
    get("/prefixes", Operation::ListPrefixes, Identity, "PrefixList", "List the prefix grants that you administer."),
    Route { query: &[THE_PREFIX], ..get("/prefix", Operation::ShowPrefix, PrefixAdmin, "PrefixInfo", "Show the rights on a prefix.") },
    Route {
        query: &[THE_PREFIX],
        request: Some("PrefixInfo"),
        ..change(Method::Put, "/prefix", Operation::ReplacePrefix, PrefixAdmin, "Replace the rights on a prefix.")
    },
    Route {
        query: &[THE_PREFIX],
        ..change(Method::Delete, "/prefix", Operation::DeletePrefix, PrefixAdmin, "Remove the rights on a prefix.")
    },
    Route {
        query: &[PRINCIPAL, GROUP, Param::once("prefix", "Only keys below it; all keys unless given."), CURSOR, LIMIT],
        ..get("/reach", Operation::Reach, PrefixAdmin, "Reach", "List what a principal reaches.")
    },
    Route {
        query: &[
            Param::many("id", "A key to follow; up to 10,000."),
            Param::many("prefix", "A prefix below which to follow all keys."),
            Param::once("since", "Changes after this revision; from now on unless given."),
            Param::once("heartbeat", "Seconds between heartbeats, 1 to 300; 15 unless given."),
        ],
        ..get(
            "/watch",
            Operation::Watch,
            Identity,
            "WatchEvent",
            "Follow changes as server-sent events. A line `id:` is a revision from which nothing is missed.",
        )
    },
    Route {
        query: &[
            Param::once("key", "About this key, or this prefix with a `*` behind it."),
            Param::once("principal", "By this principal, `TYPE:ID`."),
            Param::once("action", "With this action, such as `read`."),
            Param::once("outcome", "With this outcome: ok, unauthenticated, denied, not_found, conflict, invalid, rate_limited, failed."),
            Param::once("since", "Not before this RFC 3339 time."),
            Param::once("before", "Only records before this index: the `next` of the page before."),
            LIMIT,
        ],
        ..get("/audit", Operation::QueryAudit, RootAdmin, "AuditPage", "Search the audit log, newest first.")
    },
    get("/status", Operation::ShowStatus, RootAdmin, "Status", "Show the server's state."),
    Route { method: Method::Post, ..get("/seal/rotate", Operation::RotateSeal, RootAdmin, "SealStatus", "Rotate the barrier key.") },
    get("/whoami", Operation::WhoAmI, Identity, "WhoAmI", "Say whom the server takes you for."),
    get("/login", Operation::LoginMethods, Needs::Nothing, "LoginMethods", "List how people log in, and begin a login."),
    Route {
        request: Some("CreateSession"),
        status: 201,
        answer: "SessionInfo",
        conditional: false,
        ..change(Method::Post, "/session", Operation::CreateSession, Needs::Nothing, "Open a session by an ID token, or renew one.")
    },
    Route {
        answer: "Done",
        conditional: false,
        ..change(
            Method::Delete,
            "/session",
            Operation::EndSession,
            Identity,
            "End the login of your session, and all sessions of that login.",
        )
    },
    get("/keys/{id}/-/rules", Operation::ShowRules, OnKey(List), "RuleList", "Show the rules of approval that reach a key."),
    Route {
        request: Some("RulesBody"),
        ..change(
            Method::Put,
            "/keys/{id}/-/rules",
            Operation::ReplaceRules,
            OnKey(Admin),
            "Replace a key's own rules of approval; those that it has must agree.",
        )
    },
    Route {
        query: &[THE_PREFIX],
        request: Some("RulesBody"),
        ..change(
            Method::Put,
            "/prefix/rules",
            Operation::ReplacePrefixRules,
            PrefixAdmin,
            "Replace the rules of approval on a prefix; those that it has must agree.",
        )
    },
    Route {
        query: &[Param::once("state", "`waiting` (the default) or `all`.")],
        ..get(
            "/approvals",
            Operation::ListApprovals,
            Identity,
            "ApprovalList",
            "List the requests for approval that you made, may decide, or whose target you administer.",
        )
    },
    get("/approvals/{id}", Operation::ShowApproval, Concerned, "ApprovalInfo", "Show a request for approval and what it would change."),
    decision("/approvals/{id}/-/approve", Operation::Approve, "Agree to a request."),
    decision("/approvals/{id}/-/reject", Operation::Reject, "Reject a request, which ends it."),
    decision("/approvals/{id}/-/withdraw", Operation::Withdraw, "Take back a request that you made."),
    Route {
        method: Method::Post,
        ..get(
            "/approvals/{id}/-/run",
            Operation::RunApproval,
            Concerned,
            "RunAnswer",
            "Carry out your request, exactly as it was approved, once.",
        )
    },
    get(
        "/share",
        Operation::SharePage,
        Needs::Nothing,
        "object",
        "The page (HTML) that opens one-time links, where shares are open to anybody.",
    ),
    get("/share.js", Operation::ShareScript, Needs::Nothing, "object", "The page's script."),
    Route {
        method: Method::Post,
        request: Some("OpenShare"),
        ..get(
            "/share/open",
            Operation::OpenShare,
            Needs::Nothing,
            "OpenedShare",
            "Give a share's ciphertext to who shows its token, and use a view up. Needs a proven identity unless shares are open to anybody.",
        )
    },
    get("/openapi.json", Operation::Describe, Needs::Nothing, "object", "This document."),
];

/// What a path's pattern caught.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Caught<'p> {
    /// `{id}`, unchecked.
    pub(crate) id: &'p str,
    /// `{vid}`, unchecked.
    pub(crate) version: &'p str,
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Routed<'p> {
    /// To this route.
    To(&'static Route, Caught<'p>),
    /// The path has routes for these methods only.
    OtherMethods(String),
    /// Nowhere.
    Nowhere,
}

/// Finds a request's route.
pub(crate) fn route(method: Method, path: &str) -> Routed<'_> {
    let Some(path) = path.strip_prefix(BASE) else { return Routed::Nowhere };
    let mut others: Vec<&str> = Vec::new();
    for route in ROUTES {
        let Some(caught) = matches(route.pattern, path) else { continue };
        if route.method == method {
            return Routed::To(route, caught);
        }
        others.push(method_name(route.method));
    }
    if others.is_empty() { Routed::Nowhere } else { Routed::OtherMethods(others.join(", ")) }
}

fn matches<'p>(pattern: &str, path: &'p str) -> Option<Caught<'p>> {
    // By single characters: searching each pattern for a word would be the dearest part of finding a route.
    let Some((start, tail)) = pattern.split_once('{') else {
        return (pattern == path).then_some(Caught::default());
    };
    let rest = path.strip_prefix(start)?;
    let tail = tail.strip_prefix("id}")?;
    // No id has a segment `-`: what follows the first one is the sub-resource.
    let (id, sub) = rest.find("/-/").map_or((rest, ""), |at| rest.split_at(at));
    match tail.split_once('{') {
        None => (sub == tail).then_some(Caught { id, version: "" }),
        Some((start, _)) => {
            let version = sub.strip_prefix(start)?;
            (!version.contains('/')).then_some(Caught { id, version })
        }
    }
}

/// A method as it is written.
pub(crate) fn method_name(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Patch => "PATCH",
        Method::Options => "OPTIONS",
        Method::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: Method, path: &str) -> String {
        match route(method, path) {
            Routed::To(route, caught) => format!("{:?} {} {}", route.operation, caught.id, caught.version).trim_end().to_owned(),
            Routed::OtherMethods(others) => others,
            Routed::Nowhere => "nowhere".to_owned(),
        }
    }

    #[test]
    fn ids_with_slashes_end_at_the_dash_segment() {
        let table = [
            (Method::Get, "/api/v1/keys", "ListKeys"),
            (Method::Get, "/api/v1/keys/a/b:c", "ShowKey a/b:c"),
            (Method::Get, "/api/v1/keys/a/b/-/data", "ReadData a/b"),
            (Method::Get, "/api/v1/keys/a/data", "ShowKey a/data"),
            (Method::Put, "/api/v1/keys/a/-/versions/12", "SetState a 12"),
            (Method::Put, "/api/v1/keys/a/-/versions/1/2", "nowhere"),
            (Method::Get, "/api/v1/keys/a/-/versions/12", "PUT"),
            (Method::Delete, "/api/v1/keys/a/-/acl", "GET, PUT, PATCH"),
            (Method::Get, "/api/v1/keys/a/-/data/-/data", "nowhere"),
            (Method::Get, "/api/v1/keys/a/-/nothing", "nowhere"),
            (Method::Get, "/api/v1/keyss", "nowhere"),
            (Method::Get, "/api/v2/keys", "nowhere"),
            (Method::Get, "/api/v1", "nowhere"),
            (Method::Head, "/api/v1/keys", "GET, POST"),
        ];
        for (method, path, expected) in table {
            assert_eq!(found(method, path), expected, "{method:?} {path}");
        }
    }

    #[test]
    fn every_operation_has_one_route() {
        let mut seen = std::collections::HashSet::new();
        assert!(ROUTES.iter().all(|r| seen.insert(r.operation)));
        assert_eq!(seen.len(), Operation::Describe as usize + 1);
    }
}
