//! The native API's JSON (`/api/v1`). Unknown and duplicate members are refused; ids of versions and revisions are
//! strings, since they pass 2^53.
//!
//! Conversions to and from the domain are written by hand in `convert`; nothing here knows HTTP.

mod approvals;
mod convert;
mod labels;
mod schema;
mod uses;

pub use schema::schemas;
pub use uses::{
    DataKeyItem, Decrypt, DecryptItem, Encrypt, EncryptItem, ExportedKey, Hmac, HmacItem, ImportKey, MakeDataKeys, PublicKeys,
    PublicVersion, Sign, SignItem, UseAnswer, Verify, VerifyItem,
};

pub use approvals::{
    ApprovalInfo, ApprovalList, ApprovalParts, Decision, EndInfo, PlacedRule, RuleEntry, RuleList, RuleState, RulesBody, RunAnswer,
    VoteInfo, approval_info, parse_hash, parse_rules, rule_entries, rule_entry,
};
pub use convert::{
    FieldError, acl_entries, capabilities_from_names, decode_base64, etag, etag_of, key_info, kind_and_policy, names, parse_acl,
    prefix_info, principal_entry, push_base64, rfc3339_to_unix, unix_to_rfc3339, version_info,
};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use utoipa::ToSchema;
use zeroize::Zeroize;

/// A grant: who may do what. In requests either `capabilities` or `preset` is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantEntry {
    /// `TYPE:ID`, with TYPE one of user, user_group, machine, machine_prefix, service, service_prefix.
    pub principal: String,
    /// Any of list, read, encrypt, decrypt, sign, verify, write, admin, and on prefixes create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// read, write or admin: each covers those before it. `none` removes the entry in a PATCH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
}

/// How a key that is used, not read, may be used. All but the minimum version is fixed when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyPolicy {
    /// Whether its material may leave, by an explicit export.
    #[serde(default)]
    pub exportable: bool,
    /// Whether the same plaintext with the same associated data always gives the same ciphertext; `aes256-gcm` only.
    #[serde(default)]
    pub convergent: bool,
    /// Decimal id of the oldest version that is still used; not given when a key is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<String>,
    /// 2048, 3072 (unless given) or 4096; `rsa` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rsa_bits: Option<u16>,
    /// The template of a `tink` key's versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

/// A request that makes a key.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// The key's id.
    pub id: String,
    /// `secret` unless given, or one that is used and not read: aes256-gcm, hmac, ecdsa-p256, ecdsa-p384, ed25519, rsa, tink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// How it may be used; not for a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<KeyPolicy>,
    /// The first version's data, base64 with padding: of a secret. That of other kinds is made inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Material that was made elsewhere, wrapped to the public key of `/import-key`, base64; not for a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped: Option<String>,
    /// Further grants; the creator becomes administrator in any case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acl: Vec<GrantEntry>,
    /// What the key is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// For finding it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "labels::each_once")]
    pub labels: BTreeMap<String, String>,
    /// Managing and using are different people's.
    #[serde(default)]
    pub separate_duties: bool,
    /// Seconds after which any version stops being given out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime: Option<u32>,
    /// RFC 3339 time from which on the first version is no longer given out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

impl fmt::Debug for CreateKey {
    /// Only the id: the data is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A request that changes a key's metadata; what is absent stays.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateKey {
    /// New description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// New labels, replacing all.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "labels::each_once_or_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// New hard lifetime in seconds; 0 removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime: Option<u32>,
    /// `true` separates duties, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separate_duties: Option<bool>,
    /// Decimal id of the oldest version that is still used; `none` removes the minimum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<String>,
}

/// A request that adds a version.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddVersion {
    /// A secret's data, base64 with padding. That of other kinds is made inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Material that was made elsewhere, wrapped to the public key of `/import-key`, base64; not for a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped: Option<String>,
    /// RFC 3339 time from which on it is no longer given out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Whether it becomes primary in the same change.
    #[serde(default)]
    pub promote: bool,
}

impl fmt::Debug for AddVersion {
    /// Without the data, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddVersion").field("expires", &self.expires).field("promote", &self.promote).finish_non_exhaustive()
    }
}

/// A request that changes a version's state: `primary` promotes, `inactive` deactivates, `active` reactivates,
/// `destroyed` erases its data key for ever.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetState {
    /// primary, active, inactive or destroyed.
    pub state: String,
}

/// One version without its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionInfo {
    /// Decimal id.
    pub id: String,
    /// primary, active, inactive or destroyed.
    pub state: String,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339; from then on it is not given out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// A key without its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyInfo {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// How it may be used; absent for a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<KeyPolicy>,
    /// What `If-Match` compares.
    pub etag: String,
    /// The revision of its last change.
    pub revision: String,
    /// In words.
    pub description: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether duties are separate.
    pub separate_duties: bool,
    /// Hard lifetime of versions in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime: Option<u32>,
    /// RFC 3339.
    pub created: String,
    /// The creator.
    pub created_by: String,
    /// All versions, oldest first.
    pub versions: Vec<VersionInfo>,
    /// What the caller may do with it.
    pub allowed: Vec<String>,
}

/// A version with its data.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct VersionData {
    /// Decimal id.
    pub id: String,
    /// primary, active or inactive.
    pub state: String,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Base64 with padding.
    pub data: String,
}

/// A key's data.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct KeyData {
    /// Its id.
    pub id: String,
    /// What `If-Match` compares.
    pub etag: String,
    /// The revision of its last change.
    pub revision: String,
    /// The versions asked for, oldest first; by default primary and active ones.
    pub versions: Vec<VersionData>,
    /// Knox's hash over all versions of the key, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// What came of one item of a use: what was asked for, or `error`.
#[derive(Default, Serialize, Deserialize, ToSchema)]
pub struct ResultItem {
    /// Decimal id of the version that did it; of a check the one that it holds for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plaintext: Option<String>,
    /// Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ciphertext: Option<String>,
    /// Base64 of a signature or message authentication code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Whether a signature is one of the message by this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<bool>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ItemError>,
}

/// Why one item of a use was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ItemError {
    /// A problem's code.
    pub code: String,
    /// What is wrong and what to do.
    pub detail: String,
    /// The member that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// A request for many keys' data.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkRead {
    /// 1 to 1,000 ids.
    pub ids: Vec<String>,
    /// Whether to give Knox's version hash with each key, for caches that Knox's clients share.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub knox_hash: bool,
}

/// One key of a bulk read: `data` or `error`.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct BulkItem {
    /// The id asked for.
    pub id: String,
    /// Its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<KeyData>,
    /// A problem's code when it was not given; `ask_again` when it did not fit into this answer: ask for these once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With the code `deleted`: the deletion's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// The answer to a bulk read, in the order of the request.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct BulkAnswer {
    /// One item per id.
    pub items: Vec<BulkItem>,
}

/// A request for fingerprints of keys' values, by which they are found in files.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AskFingerprints {
    /// 1 to 1,000 ids.
    pub ids: Vec<String>,
    /// The `session` of an earlier answer, so that the key stays the same; a new one unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// Fingerprints and the key that they were made with.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Fingerprints {
    /// Names the key for further requests: 16 bytes in base64.
    pub session: String,
    /// The key: 32 bytes in base64. It is the same for one session and caller until the server restarts.
    pub key: String,
    /// One per id, in the order of the request.
    pub items: Vec<FingerprintItem>,
}

/// One key's fingerprints, or why there are none.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct FingerprintItem {
    /// The id asked for.
    pub id: String,
    /// A problem's code when it may not be read, or does not fit into this answer (`ask_again`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The fingerprints of all versions that are not destroyed.
    pub prints: Vec<Fingerprint>,
    /// What has none.
    pub left_out: Vec<NotFingerprinted>,
}

/// One fingerprint.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Fingerprint {
    /// Decimal id.
    pub version: String,
    /// Empty for the whole value; a JSON pointer, a dotenv name, or `line N`.
    pub part: String,
    /// raw, base64, base64url, hex, HEX, url or json.
    pub form: String,
    /// Bytes in this form.
    pub length: u32,
    /// 20 bits of the first eight bytes.
    pub head: u32,
    /// 12 bits of the last eight bytes.
    pub tail: u32,
    /// 16 bytes of an HMAC-SHA-256, in base64.
    pub mac: String,
}

/// What has no fingerprint.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct NotFingerprinted {
    /// Decimal id.
    pub version: String,
    /// As in a fingerprint.
    pub part: String,
    /// too_short, low_entropy, too_long, or too_many.
    pub why: String,
}

/// A request to open a share.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenShare {
    /// The share's id, as the link has it.
    pub id: String,
    /// The token that is derived of the link's key, in base64.
    pub token: String,
}

/// A share's ciphertext; a view was used up.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct OpenedShare {
    /// AES-256-GCM's ciphertext and tag in base64; what opens it is derived of the link's key.
    pub data: String,
    /// Views that are left.
    pub views_left: u32,
}

/// A page of keys.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyPage {
    /// In order of their ids.
    pub keys: Vec<KeyInfo>,
    /// Give this back as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The revision that the page shows at least.
    pub revision: String,
}

/// A list of versions.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct VersionList {
    /// Oldest first.
    pub versions: Vec<VersionInfo>,
}

/// A key's or a prefix's rights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AclBody {
    /// In the order in which they were granted.
    pub grants: Vec<GrantEntry>,
}

/// What a change did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// The key after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The change's revision.
    pub revision: String,
    /// The version concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Where a right comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RightSource {
    /// `key`, or `prefix:` and the prefix.
    pub source: String,
    /// The entry's principal.
    pub principal: String,
    /// What the entry grants.
    pub grants: Vec<String>,
    /// What of it counts on this key (separate duties may take some away).
    pub counts: Vec<String>,
}

/// Why a principal may or may not.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The key.
    pub id: String,
    /// Whom it is about.
    pub principal: String,
    /// All that he may.
    pub allowed: Vec<String>,
    /// Each grant that reaches him.
    pub because: Vec<RightSource>,
}

/// Rights below a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefixInfo {
    /// Empty, or ending with `/` or `:`.
    pub prefix: String,
    /// Who may do what there.
    pub grants: Vec<GrantEntry>,
    /// Whether any authenticated user may create keys there.
    #[serde(default)]
    pub any_user_creates: bool,
    /// Its rules of approval; not used in requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleEntry>,
    /// What `If-Match` compares; not used in requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// All prefix grants that the caller may see.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PrefixList {
    /// In order.
    pub prefixes: Vec<PrefixInfo>,
}

/// An earlier state of a key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct HistoryEntry {
    /// The generation's ETag.
    pub etag: String,
    /// The revision that replaced it.
    pub replaced_at: String,
    /// Versions as they were.
    pub versions: Vec<VersionInfo>,
    /// Rights as they were.
    pub grants: Vec<GrantEntry>,
}

/// Earlier states, newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The states.
    pub entries: Vec<HistoryEntry>,
}

/// One key that a principal reaches.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReachedKey {
    /// The key.
    pub id: String,
    /// What the principal may do with it.
    pub allowed: Vec<String>,
}

/// What a principal reaches.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Reach {
    /// The principal.
    pub principal: String,
    /// In order of ids.
    pub keys: Vec<ReachedKey>,
    /// Give this back as `cursor` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One identity of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IdentityInfo {
    /// user, machine or service.
    pub r#type: String,
    /// Its name.
    pub id: String,
    /// A user's groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// How it was proven.
    pub method: String,
}

/// Who the server takes the caller for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WhoAmI {
    /// All identities, the default one first.
    pub identities: Vec<IdentityInfo>,
    /// RFC 3339; when the session ends by which the caller is here, if he is by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_expires: Option<String>,
}

/// How people can log in, and what one login needs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LoginMethods {
    /// The issuers whose ID tokens are taken.
    pub issuers: Vec<LoginIssuer>,
    /// The nonce to ask the issuer for. It is good for one login, for ten minutes.
    pub nonce: String,
}

/// One OpenID issuer, as a public client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginIssuer {
    /// What the server calls it.
    pub name: String,
    /// Its identifier, from which its metadata are found.
    pub issuer: String,
    /// What it calls this client.
    pub client_id: String,
    /// What to ask for.
    pub scopes: Vec<String>,
    /// What the provider shall ask the person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Whether the device flow is taken.
    pub device_flow: bool,
    /// Seconds after which a login is over, whatever is renewed.
    pub session_total: u64,
    /// PEM text of the roots of its TLS certificates; those of the public web when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Whether it may be plain HTTP on the own machine.
    #[serde(default)]
    pub loopback_http: bool,
}

/// A request that opens a session, or renews one.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// The issuer, by its name here.
    pub issuer: String,
    /// An ID token that it issued for this login, or for its renewal. It is taken once.
    pub id_token: String,
    /// The ticket of the login that is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}

impl fmt::Debug for CreateSession {
    /// Without the tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateSession").field("issuer", &self.issuer).field("renews", &self.ticket.is_some()).finish_non_exhaustive()
    }
}

impl Drop for CreateSession {
    fn drop(&mut self) {
        self.id_token.zeroize();
        self.ticket.zeroize();
    }
}

/// A session.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct SessionInfo {
    /// The bearer token. It is shown here and never again.
    pub token: String,
    /// RFC 3339; from then on it does not count.
    pub expires: String,
    /// What renews it, together with a new ID token of the same person.
    pub ticket: String,
    /// RFC 3339; from then on nothing renews it.
    pub renewable_until: String,
    /// Whom it proves.
    pub identity: IdentityInfo,
}

impl fmt::Debug for SessionInfo {
    /// Without the tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo").field("expires", &self.expires).field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// What is answered where there is nothing to say but that it is done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// Always true.
    pub done: bool,
}

/// A page of audit records, each as the log has it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// The records with their index in the log.
    pub records: Vec<AuditItem>,
    /// Give this back as `before` for older ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One audit record.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditItem {
    /// Its place in the log.
    pub index: u64,
    /// The record.
    #[schema(value_type = Object)]
    pub record: serde_json::Value,
}

/// The store's seal.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SealStatus {
    /// The barrier key that new data is wrapped by.
    pub barrier_version: u32,
    /// All barrier keys that can be opened.
    pub barrier_versions: Vec<u32>,
    /// The roots that wrap them.
    pub roots: Vec<String>,
    /// What protects the store, and what that does not promise.
    pub promise: String,
}

/// Something about the server that somebody should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// A stable code: damaged_keys, damaged_rights, tampered, accept_tampering, store_unsettled, audit_disk_full,
    /// audit_standby, audit_failed, sink_lines_dropped, memory_not_locked.
    pub code: String,
    /// What is so, and what to do.
    pub detail: String,
}

/// The server's state.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Program version.
    pub version: String,
    /// The last committed revision.
    pub revision: String,
    /// How many keys are served.
    pub keys: u64,
    /// How many keys are damaged and answer an error.
    pub damaged_keys: u64,
    /// What is not as it should be and needs somebody now; empty when all is well.
    pub problems: Vec<Finding>,
    /// What works and might be better.
    pub warnings: Vec<Finding>,
    /// The seal.
    pub seal: SealStatus,
    /// The audit log: entries and last signed size.
    pub audit_entries: u64,
    /// The last signed checkpoint's size.
    pub audit_signed: u64,
    /// Index of the first entry that is kept; earlier ones were pruned.
    pub audit_first: u64,
    /// After how many days entries are pruned; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_retention_days: Option<u32>,
    /// healthy, disk_full, standby, failed or closed.
    pub audit_state: String,
    /// Bytes held back for the audit log, or left of them.
    pub audit_reserve: u64,
    /// Lines that the other outputs of the audit log did not take.
    pub sink_lines_dropped: u64,
    /// Whether memory that holds secrets is locked, and why not where it is not.
    pub memory: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
}

/// An error answer (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A stable code: not_found, denied, conflict, invalid, unauthenticated, rate_limited, sealed, unavailable,
    /// storage_full, too_large, method_not_allowed, internal, deleted (the caller could read it; its revision is in the
    /// header Claviger-Revision), expired, used_not_read (the key is used, not
    /// read), not_exportable (its material never leaves), version_unusable (inactive, destroyed, below the minimum version or at its lifetime's end), unrecorded (the change is in force at the revision in that header, but its audit
    /// record is not durable yet: do not repeat it).
    pub code: String,
    /// A short, fixed title.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, whose fault it is, and what to do.
    pub detail: String,
    /// The field or parameter that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Names the request in the audit log.
    pub request_id: String,
}

/// An event of the watch stream; the SSE `event` is its kind, the `id` its revision.
///
/// Kinds: `ready` (the stream is live from this revision), `changed`, `deleted`, `revoked` (the caller may no longer read
/// it, or no longer use it at all), `compacted` (the revision asked for is gone; what was deleted or revoked since was told before this, for the rest read
/// everything again), `heartbeat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WatchEvent {
    /// The key; absent in `ready`, `compacted`, `heartbeat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The change's revision.
    pub revision: String,
    /// The key's ETag after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// What was done: create, add_version, promote, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
}
