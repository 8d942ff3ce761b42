//! Keys that are used, not read.

use super::*;

fn used_key(id: &str, kind: KeyKind, policy: KeyPolicy) -> NewKey {
    NewKey { kind, policy, first: generated(), ..new_key(id, "", &[]) }
}

fn generated() -> NewVersion {
    NewVersion { material: Material::Generated, expires: None }
}

async fn made(site: &Site, by: &Caller, id: &str, kind: KeyKind) -> VersionId {
    site.engine.create(by, "test", used_key(id, kind, KeyPolicy::default())).await.unwrap().version.unwrap()
}

#[tokio::test]
async fn a_key_that_is_used_is_never_read() {
    let site = Site::new().await;
    let alice = user("alice");
    made(&site, &alice, "aes", KeyKind::Aes256Gcm).await;
    let refused = |r: Result<ReadKey, Error>| r.map(drop).unwrap_err();
    for select in [Select::Primary, Select::Active, Select::All] {
        let error = refused(site.engine.read(&alice, "test", "aes", select).await);
        assert_eq!(error, Error::Denied(Refusal::UsedNotRead(KeyKind::Aes256Gcm)));
    }
    let mut many = site.engine.bulk_read(&alice, "test", &["aes".to_owned()]).await.unwrap();
    assert_eq!(refused(many.remove(0)), Error::Denied(Refusal::UsedNotRead(KeyKind::Aes256Gcm)));
    assert_eq!(refused(site.engine.read(&user("bob"), "test", "aes", Select::Primary).await), Error::Denied(Refusal::Unseen));
}

#[tokio::test]
async fn the_material_of_a_used_key_is_made_inside_and_that_of_a_secret_is_given() {
    let site = Site::new().await;
    let alice = user("alice");
    let field = |error: Error| match error {
        Error::Invalid { field, .. } => field,
        other => panic!("{other}"),
    };
    let given = NewKey { kind: KeyKind::Hmac, ..new_key("a", "mine", &[]) };
    assert_eq!(field(site.engine.create(&alice, "test", given).await.unwrap_err()), "data");
    let nothing = used_key("a", KeyKind::Secret, KeyPolicy::default());
    assert_eq!(field(site.engine.create(&alice, "test", nothing).await.unwrap_err()), "data");
    let policy = KeyPolicy { convergent: true, ..KeyPolicy::default() };
    assert_eq!(field(site.engine.create(&alice, "test", used_key("a", KeyKind::Hmac, policy)).await.unwrap_err()), "convergent");

    made(&site, &alice, "mac", KeyKind::Hmac).await;
    let add = |new| async move { site.engine.add_version(&user("alice"), "test", "mac", &new, false, Precondition::Any).await };
    let second = add(generated()).await.unwrap();
    assert_eq!(second.meta.versions.len(), 2);
    let site = Site::new().await;
    site.create(&alice, "secret", "x", &[]).await.unwrap();
    let add = site.engine.add_version(&alice, "test", "secret", &generated(), false, Precondition::Any).await;
    assert_eq!(field(add.unwrap_err()), "data");
}

#[tokio::test]
async fn a_policy_is_fixed_but_for_its_minimum_version_which_is_never_newer_than_the_primary_one() {
    let site = Site::new().await;
    let alice = user("alice");
    let first = made(&site, &alice, "aes", KeyKind::Aes256Gcm).await;
    let second = site.engine.add_version(&alice, "test", "aes", &generated(), false, Precondition::Any).await.unwrap().version.unwrap();
    let set = |policy: KeyPolicy| {
        let (engine, alice) = (&site.engine, user("alice"));
        async move {
            let change = |old: &KeyMeta| Ok(KeyMeta { policy: policy.clone(), kind: KeyKind::Secret, ..old.clone() });
            engine.change_meta(&alice, "test", "aes", Precondition::Any, change).await
        }
    };
    let minimum = |version| KeyPolicy { min_version: Some(version), ..KeyPolicy::default() };
    assert!(matches!(set(minimum(second)).await, Err(Error::Invalid { field: "min_version", .. })));
    assert!(matches!(set(minimum(VersionId::new(1).unwrap())).await, Err(Error::Invalid { field: "min_version", .. })));
    site.engine.transition(&alice, "test", "aes", second, Transition::Promote, Precondition::Any).await.unwrap();
    let exportable = KeyPolicy { exportable: true, convergent: true, ..minimum(second) };
    let meta = set(exportable).await.unwrap().meta;
    assert_eq!((meta.kind, meta.policy.clone()), (KeyKind::Aes256Gcm, minimum(second)));
    assert!(meta.is_below_minimum(first) && !meta.is_below_minimum(second));
    let back = site.engine.transition(&alice, "test", "aes", first, Transition::Promote, Precondition::Any).await;
    assert!(matches!(back, Err(Error::Invalid { field: "min_version", .. })), "{back:?}");
    assert_eq!(set(KeyPolicy::default()).await.unwrap().meta.policy, KeyPolicy::default());
}
