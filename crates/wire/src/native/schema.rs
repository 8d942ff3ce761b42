//! The native API's types as JSON schemas, for its OpenAPI document.

use super::*;
use serde_json::Value;
use utoipa::{PartialSchema, ToSchema};

/// All types of the API by name, each as a JSON schema of the dialect that OpenAPI 3.1 uses.
#[must_use]
pub fn schemas() -> BTreeMap<String, Value> {
    fn named<T: ToSchema + PartialSchema>() -> (String, Value) {
        (T::name().into_owned(), serde_json::to_value(T::schema()).expect("a schema is a tree of maps with string keys"))
    }
    BTreeMap::from([
        named::<AclBody>(),
        named::<AddVersion>(),
        named::<AskFingerprints>(),
        named::<ApprovalInfo>(),
        named::<ApprovalList>(),
        named::<AuditItem>(),
        named::<AuditPage>(),
        named::<BulkAnswer>(),
        named::<BulkItem>(),
        named::<BulkRead>(),
        named::<Changed>(),
        named::<CreateKey>(),
        named::<CreateSession>(),
        named::<Done>(),
        named::<Decision>(),
        named::<EndInfo>(),
        named::<Explanation>(),
        named::<Fingerprint>(),
        named::<FingerprintItem>(),
        named::<Fingerprints>(),
        named::<GrantEntry>(),
        named::<History>(),
        named::<HistoryEntry>(),
        named::<IdentityInfo>(),
        named::<KeyData>(),
        named::<KeyInfo>(),
        named::<KeyPage>(),
        named::<KeyPolicy>(),
        named::<LoginIssuer>(),
        named::<LoginMethods>(),
        named::<NotFingerprinted>(),
        named::<OpenShare>(),
        named::<OpenedShare>(),
        named::<PlacedRule>(),
        named::<PrefixInfo>(),
        named::<PrefixList>(),
        named::<Problem>(),
        named::<Reach>(),
        named::<ReachedKey>(),
        named::<RightSource>(),
        named::<RuleEntry>(),
        named::<RuleList>(),
        named::<RuleState>(),
        named::<RulesBody>(),
        named::<RunAnswer>(),
        named::<SealStatus>(),
        named::<Finding>(),
        named::<SessionInfo>(),
        named::<SetState>(),
        named::<Status>(),
        named::<UpdateKey>(),
        named::<VersionData>(),
        named::<VersionInfo>(),
        named::<VersionList>(),
        named::<VoteInfo>(),
        named::<WatchEvent>(),
        named::<WhoAmI>(),
    ])
}
