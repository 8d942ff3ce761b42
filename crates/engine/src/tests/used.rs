//! Keys that are used, not read.

use super::*;
use claviger_crypto::{ImportTarget, PublicKey, wrap_for_import};

fn used_key(id: &str, kind: KeyKind, policy: KeyPolicy) -> NewKey {
    NewKey { kind, policy, first: generated(), ..new_key(id, "", &[]) }
}

fn generated() -> NewVersion {
    NewVersion { material: Material::Generated, expires: None }
}

pub(super) async fn made(site: &Site, by: &Caller, id: &str, kind: KeyKind) -> VersionId {
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

fn using<'a>(caller: &'a Caller, id: &'a str) -> Using<'a> {
    Using { caller, surface: "test", id }
}

fn plain(text: &str, aad: &str) -> Plain {
    Plain { plain: SecretBytes::new(text.as_bytes().to_vec()), aad: aad.as_bytes().to_vec() }
}

fn cipher(sealed: &[u8], aad: &str) -> Cipher {
    Cipher { sealed: sealed.to_vec(), aad: aad.as_bytes().to_vec(), version: None }
}

impl Site {
    async fn encrypt(&self, by: &Caller, id: &str, text: &str) -> (VersionId, Vec<u8>) {
        let done = self.engine.encrypt(&using(by, id), &[plain(text, "a")]).await.unwrap().remove(0).unwrap();
        (done.version, done.value)
    }

    async fn decrypt(&self, by: &Caller, id: &str, sealed: &[u8]) -> Result<String, Error> {
        let done = self.engine.decrypt(&using(by, id), &[cipher(sealed, "a")]).await?.remove(0)?;
        Ok(String::from_utf8(done.value.expose().to_vec()).unwrap())
    }

    async fn turn_to(&self, by: &Caller, id: &str, version: VersionId, to: Transition) {
        self.engine.transition(by, "test", id, version, to, Precondition::Any).await.unwrap();
    }

    async fn generate(&self, by: &Caller, id: &str) -> VersionId {
        self.engine.add_version(by, "test", id, &generated(), false, Precondition::Any).await.unwrap().version.unwrap()
    }
}

#[tokio::test]
async fn the_primary_encrypts_the_active_decrypt_and_the_others_are_refused_by_name() {
    let site = Site::new().await;
    let alice = user("alice");
    let first = made(&site, &alice, "aes", KeyKind::Aes256Gcm).await;
    let (by, old) = site.encrypt(&alice, "aes", "hunter2").await;
    assert_eq!(by, first);
    let second = site.generate(&alice, "aes").await;
    assert_eq!(site.encrypt(&alice, "aes", "x").await.0, first, "an active version does not encrypt");
    site.turn_to(&alice, "aes", second, Transition::Promote).await;
    let (by, new) = site.encrypt(&alice, "aes", "newer").await;
    assert_eq!((by, site.decrypt(&alice, "aes", &old).await), (second, Ok("hunter2".to_owned())));

    let moved = site.engine.rewrap(&using(&alice, "aes"), &[cipher(&old, "a")]).await.unwrap().remove(0).unwrap();
    assert_eq!((moved.version, moved.before), (second, Some(first)));
    assert_eq!(*site.log.versions.lock(), [first, second], "the record names what opened it, too");
    site.turn_to(&alice, "aes", first, Transition::Deactivate).await;
    let refused = |why: Unusable| Err(Error::Unusable(why));
    assert_eq!(site.decrypt(&alice, "aes", &old).await, refused(Unusable::Inactive(first)));
    let rewrapped = site.engine.rewrap(&using(&alice, "aes"), &[cipher(&old, "a")]).await.unwrap().remove(0);
    assert_eq!(rewrapped.map(drop), Err(Error::Unusable(Unusable::Inactive(first))));
    assert_eq!(site.decrypt(&alice, "aes", &moved.value).await, Ok("hunter2".to_owned()));
    site.turn_to(&alice, "aes", first, Transition::Reactivate).await;
    assert_eq!(site.decrypt(&alice, "aes", &old).await, Ok("hunter2".to_owned()));

    let minimum = |old: &KeyMeta| Ok(KeyMeta { policy: KeyPolicy { min_version: Some(second), ..old.policy.clone() }, ..old.clone() });
    site.engine.change_meta(&alice, "test", "aes", Precondition::Any, minimum).await.unwrap();
    assert_eq!(site.decrypt(&alice, "aes", &old).await, refused(Unusable::BelowMinimum { version: first, minimum: second }));
    site.turn_to(&alice, "aes", first, Transition::Deactivate).await;
    site.turn_to(&alice, "aes", first, Transition::Destroy).await;
    assert_eq!(site.decrypt(&alice, "aes", &old).await, refused(Unusable::Destroyed(first)));
    assert_eq!(site.decrypt(&alice, "aes", &new).await, Ok("newer".to_owned()));
}

#[tokio::test]
async fn ciphertexts_of_other_keys_of_deleted_ones_and_of_elsewhere_are_refused_by_name() {
    let (site, elsewhere) = (Site::new().await, Site::new().await);
    let alice = user("alice");
    for id in ["aes", "other"] {
        made(&site, &alice, id, KeyKind::Aes256Gcm).await;
    }
    made(&elsewhere, &alice, "aes", KeyKind::Aes256Gcm).await;
    let why = |r: Result<String, Error>| match r.unwrap_err() {
        Error::Invalid { field: "ciphertext", rule } => rule,
        other => panic!("{other}"),
    };
    let (_, of_other) = site.encrypt(&alice, "other", "x").await;
    assert!(why(site.decrypt(&alice, "aes", &of_other).await).contains("a key of another name"));
    let (_, foreign) = elsewhere.encrypt(&alice, "aes", "x").await;
    let elsewhere = why(site.decrypt(&alice, "aes", &foreign).await);
    assert!(elsewhere.contains("one of another Claviger"));
    let (_, mine) = site.encrypt(&alice, "aes", "x").await;
    assert!(why(site.decrypt(&alice, "aes", &mine[..50]).await).contains("too short"));
    assert!(why(site.decrypt(&alice, "aes", b"{}").await).contains("no ciphertext of a key of this kind"));
    site.delete(&alice, "aes").await;
    made(&site, &alice, "aes", KeyKind::Aes256Gcm).await;
    assert!(why(site.decrypt(&alice, "aes", &mine).await).contains("an earlier key of this name, which was deleted"));
    // What is said of the other does not depend on what was deleted here, and a stranger is told nothing of either.
    assert_eq!(why(site.decrypt(&alice, "aes", &foreign).await), elsewhere);
    for sealed in [&mine, &foreign] {
        assert_eq!(site.decrypt(&user("eve"), "aes", sealed).await, Err(Error::Denied(Refusal::Unseen)));
    }
    let site = Site { engine: site.restart().await.unwrap().engine, ..site };
    assert!(why(site.decrypt(&alice, "aes", &mine).await).contains("which was deleted"));
}

#[tokio::test]
async fn an_rsa_ciphertext_names_its_version_and_a_bare_one_is_tried_with_those_in_use() {
    use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
    let site = Site::new().await;
    let alice = user("alice");
    let policy = KeyPolicy { rsa_bits: Some(2048), ..KeyPolicy::default() };
    let first = site.engine.create(&alice, "test", used_key("rsa", KeyKind::Rsa, policy)).await.unwrap().version.unwrap();
    let (_, public) = site.engine.public_keys(&using(&alice, "rsa")).await.unwrap();
    let PublicKey::Single { der, .. } = &public[0].public else { panic!() };
    let theirs = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(der).unwrap()).unwrap();
    let mut bare = vec![0; 256];
    theirs.encrypt(&OAEP_SHA256_MGF1SHA256, b"theirs", &mut bare, Some(b"a")).unwrap();
    let (by, old) = site.encrypt(&alice, "rsa", "ours").await;
    assert_eq!(by, first);

    let second = site.generate(&alice, "rsa").await;
    site.turn_to(&alice, "rsa", second, Transition::Promote).await;
    assert_eq!(site.decrypt(&alice, "rsa", &old).await.unwrap(), "ours");
    assert_eq!(site.decrypt(&alice, "rsa", &bare).await.unwrap(), "theirs");
    let moved = site.engine.rewrap(&using(&alice, "rsa"), &[cipher(&bare, "a")]).await.unwrap().remove(0).unwrap();
    assert_eq!((moved.version, moved.before), (second, Some(first)));
    let told = async |version| {
        let item = Cipher { version: Some(version), ..cipher(&bare, "a") };
        site.engine.decrypt(&using(&alice, "rsa"), &[item]).await.unwrap().remove(0).map(|done| done.value.expose().to_vec())
    };
    assert_eq!(told(first).await.unwrap(), b"theirs");
    assert!(matches!(told(second).await, Err(Error::Invalid { field: "ciphertext", .. })));

    site.turn_to(&alice, "rsa", first, Transition::Deactivate).await;
    assert_eq!(site.decrypt(&alice, "rsa", &old).await, Err(Error::Unusable(Unusable::Inactive(first))));
    assert_eq!(told(first).await.unwrap_err(), Error::Unusable(Unusable::Inactive(first)));
    assert_eq!(site.decrypt(&alice, "rsa", &moved.value).await.unwrap(), "theirs");
    let long = Plain { plain: SecretBytes::new(vec![7; 191]), aad: Vec::new() };
    let refused = site.engine.encrypt(&using(&alice, "rsa"), &[long]).await.unwrap().remove(0).map(drop).unwrap_err();
    assert!(matches!(&refused, Error::Invalid { field: "plaintext", rule } if rule.contains("at most 190 bytes")), "{refused}");
}

#[tokio::test]
async fn wrapped_material_that_is_sent_again_is_no_second_version_nor_a_destroyed_one_come_back() {
    let site = Site::new().await;
    let alice = user("alice");
    let id = KeyId::parse("mac").unwrap();
    made(&site, &alice, "mac", KeyKind::Hmac).await;
    let statement = site.engine.import_key(&alice, "test").await.unwrap().statement;
    let target = ImportTarget { id: &id, kind: KeyKind::Hmac, exportable: false };
    let wrapped = wrap_for_import(&statement, &target, &SecretBytes::new(vec![9; 32])).unwrap();
    let send = async || {
        let new = NewVersion { material: Material::Wrapped(wrapped.clone()), expires: None };
        site.engine.add_version(&alice, "test", "mac", &new, false, Precondition::Any).await
    };
    let version = send().await.unwrap().version.unwrap();
    for (to, state) in [(None, "active"), (Some(Transition::Deactivate), "inactive"), (Some(Transition::Destroy), "destroyed")] {
        if let Some(to) = to {
            site.turn_to(&alice, "mac", version, to).await;
        }
        let Err(Error::Invalid { field: "wrapped", rule }) = send().await else { panic!("{state}") };
        assert!(rule.contains(&format!("version {version}")) && rule.contains(state), "{rule}");
    }
    // A key that is made anew takes it, as it takes what was never sent.
    site.delete(&alice, "mac").await;
    let first = NewVersion { material: Material::Wrapped(wrapped.clone()), expires: None };
    let anew = NewKey { first, ..used_key("mac", KeyKind::Hmac, KeyPolicy::default()) };
    assert_eq!(site.engine.create(&alice, "test", anew).await.unwrap().version, Some(version));
}

#[tokio::test]
async fn who_only_uses_a_key_follows_its_versions_and_is_told_when_the_use_is_taken_from_him() {
    let site = Site::new().await;
    let alice = user("alice");
    let names = ["encrypter", "by-prefix", "away", "lister", "eve"];
    let acl = [("encrypter", Capability::Encrypt), ("away", Capability::Verify), ("lister", Capability::List)];
    let acl = acl.iter().fold(Acl::default(), |acl, (name, right)| acl.set(Principal::User((*name).into()), Capabilities::of([*right])));
    let by_prefix = [("user:by-prefix", Capabilities::of([Capability::Decrypt]))];
    site.grant("team/", &by_prefix, false).await.unwrap();
    for id in ["team/k", "team/gone"] {
        site.engine
            .create(&alice, "test", NewKey { acl: acl.clone(), ..used_key(id, KeyKind::Aes256Gcm, KeyPolicy::default()) })
            .await
            .unwrap();
    }
    let since = site.engine.revision();
    let mut followers = Vec::new();
    for name in names {
        followers.push((user(name), site.watch(&user(name), &["team/k", "team/gone"], &[], None).await));
    }
    let mut told = async |wanted: [&[&str]; 5]| {
        for ((who, follower), wanted) in followers.iter_mut().zip(wanted) {
            assert_eq!(site.told(who, follower).await, wanted, "{}", who.name());
        }
    };
    let second = site.generate(&alice, "team/k").await;
    site.turn_to(&alice, "team/k", second, Transition::Promote).await;
    let twice: &[&str] = &["changed team/k", "changed team/k"];
    told([twice, twice, twice, twice, &[]]).await;
    site.set(&alice, "team/k", "user:encrypter", Capabilities::of([Capability::List])).await.unwrap();
    let changed: &[&str] = &["changed team/k"];
    told([&["revoked team/k"], changed, changed, changed, &[]]).await;
    site.grant("team/", &[], false).await.unwrap();
    told([&[], &["revoked team/gone", "revoked team/k"], &[], &[], &[]]).await;
    site.set(&alice, "team/k", "user:away", Capabilities::NONE).await.unwrap();
    site.delete(&alice, "team/gone").await;
    told([&["changed team/k", "deleted team/gone"], &[], &["revoked team/k", "deleted team/gone"], changed, &[]]).await;

    // Who was away for longer than is remembered is told the same.
    let site = Site { engine: site.restart().await.unwrap().engine, ..site };
    let away = user("away");
    let follower = site.watch(&away, &["team/k", "team/gone"], &[], Some(since)).await;
    let mut gap = site.engine.telling_of_gap(follower.scope(), Some(since));
    let mut told = site.tell(&away, &follower, &mut gap).await;
    told.sort_unstable();
    assert_eq!(told, ["compacted", "deleted team/gone", "revoked team/k"]);
}

#[tokio::test]
async fn each_use_takes_its_own_right() {
    let site = Site::new().await;
    let alice = user("alice");
    let rights = [
        ("encrypter", Capability::Encrypt),
        ("decrypter", Capability::Decrypt),
        ("signer", Capability::Sign),
        ("verifier", Capability::Verify),
        ("reader", Capability::Read),
        ("lister", Capability::List),
    ];
    let acl = rights.iter().fold(Acl::default(), |acl, (name, right)| acl.set(Principal::User((*name).into()), Capabilities::of([*right])));
    for (id, kind) in [("aes", KeyKind::Aes256Gcm), ("mac", KeyKind::Hmac)] {
        site.engine.create(&alice, "test", NewKey { acl: acl.clone(), ..used_key(id, kind, KeyPolicy::default()) }).await.unwrap();
    }
    let (_, sealed) = site.encrypt(&alice, "aes", "x").await;
    let code = site.engine.hmac(&using(&alice, "mac"), None, &[b"m".to_vec()]).await.unwrap().remove(0).unwrap().value;
    for (name, right) in rights {
        let who = user(name);
        let (aes, mac) = (using(&who, "aes"), using(&who, "mac"));
        let proof = Proof { document: Document { message: b"m".to_vec(), is_digest: false }, proof: code.clone(), version: None };
        let done = [
            ("encrypt", site.engine.encrypt(&aes, &[plain("x", "a")]).await.is_ok()),
            ("decrypt", site.engine.decrypt(&aes, &[cipher(&sealed, "a")]).await.is_ok()),
            ("rewrap", site.engine.rewrap(&aes, &[cipher(&sealed, "a")]).await.is_ok()),
            ("data key", site.engine.data_keys(&aes, &[DataKey { bytes: 32, aad: Vec::new() }]).await.is_ok()),
            ("hmac", site.engine.hmac(&mac, None, &[b"m".to_vec()]).await.is_ok()),
            ("verify", site.engine.verify(&mac, &Default::default(), &[proof]).await.is_ok()),
        ];
        let may: Vec<_> = done.iter().filter(|(_, done)| *done).map(|(what, _)| *what).collect();
        let wanted: &[&str] = match right {
            Capability::Encrypt => &["encrypt", "rewrap", "data key"],
            Capability::Decrypt => &["decrypt"],
            Capability::Sign => &["hmac", "verify"],
            Capability::Verify => &["verify"],
            _ => &[],
        };
        assert_eq!(may, wanted, "{name}");
    }
    let stranger = site.engine.encrypt(&using(&user("bob"), "aes"), &[plain("x", "a")]).await.map(drop);
    assert_eq!(stranger, Err(Error::Denied(Refusal::Unseen)));
}

#[tokio::test]
async fn who_manages_a_key_of_separate_duties_uses_nothing_of_it() {
    let site = Site::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let acl = acl(&[("user:bob", Capabilities::of([Capability::Encrypt]))]);
    let new = NewKey { acl, separate_duties: true, ..used_key("aes", KeyKind::Aes256Gcm, KeyPolicy::default()) };
    site.engine.create(&alice, "test", new).await.unwrap();
    let denied = site.engine.encrypt(&using(&alice, "aes"), &[plain("x", "a")]).await.map(drop);
    assert_eq!(denied, Err(Error::Denied(Refusal::Lacks(Capability::Encrypt))));
    assert!(site.engine.encrypt(&using(&bob, "aes"), &[plain("x", "a")]).await.is_ok());
}

#[tokio::test]
async fn a_batch_has_one_record_and_each_item_its_own_end() {
    let site = Site::new().await;
    let alice = user("alice");
    made(&site, &alice, "aes", KeyKind::Aes256Gcm).await;
    let (_, sealed) = site.encrypt(&alice, "aes", "x").await;
    site.log.lines.lock().clear();
    let items = [cipher(&sealed, "a"), cipher(b"nothing", "a"), cipher(&sealed, "b")];
    let ends = site.engine.decrypt(&using(&alice, "aes"), &items).await.unwrap();
    assert_eq!(ends.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(*site.log.lines.lock(), ["alice decrypt aes ok"]);
    site.log.lines.lock().clear();
    let ends = site.engine.decrypt(&using(&alice, "aes"), &items[1..]).await.unwrap();
    assert!(ends.iter().all(Result::is_err));
    assert_eq!(*site.log.lines.lock(), ["alice decrypt aes invalid"]);
    site.log.broken.store(true, Ordering::SeqCst);
    assert!(matches!(site.engine.decrypt(&using(&alice, "aes"), &items).await, Err(Error::Unavailable(_))), "no record, no plaintext");
}

#[tokio::test]
async fn signatures_hold_after_a_rotation_until_their_version_is_deactivated() {
    let site = Site::new().await;
    let alice = user("alice");
    for (id, kind) in [("p256", KeyKind::EcdsaP256), ("ed", KeyKind::Ed25519)] {
        let first = made(&site, &alice, id, kind).await;
        let document = || Document { message: b"m".to_vec(), is_digest: false };
        let signed = site.engine.sign(&using(&alice, id), &Default::default(), &[document()]).await.unwrap().remove(0).unwrap();
        let second = site.generate(&alice, id).await;
        site.turn_to(&alice, id, second, Transition::Promote).await;
        let check = |version| {
            let proof = Proof { document: document(), proof: signed.value.clone(), version };
            let (engine, alice) = (&site.engine, alice.clone());
            async move { engine.verify(&using(&alice, id), &Default::default(), &[proof]).await.unwrap().remove(0).map(|d| d.value.holds_for) }
        };
        assert_eq!(check(None).await, Ok(Some(first)));
        assert_eq!(check(Some(second)).await, Ok(None));
        let (_, public) = site.engine.public_keys(&using(&alice, id)).await.unwrap();
        assert_eq!(public.len(), 2);
        site.turn_to(&alice, id, first, Transition::Deactivate).await;
        assert_eq!(check(None).await, Ok(None));
        assert_eq!(check(Some(first)).await, Err(Error::Unusable(Unusable::Inactive(first))));
    }
}

#[tokio::test]
async fn a_tink_key_says_which_of_its_versions_made_what_it_does_not_decrypt() {
    let site = Site::new().await;
    let alice = user("alice");
    let policy = KeyPolicy { template: Some("TINK_AEAD_AES256_GCM".into()), ..KeyPolicy::default() };
    let first = site.engine.create(&alice, "test", used_key("tink", KeyKind::Tink, policy)).await.unwrap().version.unwrap();
    let (_, old) = site.encrypt(&alice, "tink", "x").await;
    let second = site.generate(&alice, "tink").await;
    site.turn_to(&alice, "tink", second, Transition::Promote).await;
    assert_eq!(site.decrypt(&alice, "tink", &old).await.unwrap(), "x");
    site.turn_to(&alice, "tink", first, Transition::Deactivate).await;
    assert_eq!(site.decrypt(&alice, "tink", &old).await, Err(Error::Unusable(Unusable::Inactive(first))));
    let unknown = KeyPolicy { template: Some("TINK".into()), ..KeyPolicy::default() };
    let refused = site.engine.create(&alice, "test", used_key("t", KeyKind::Tink, unknown)).await;
    assert!(matches!(refused, Err(Error::Invalid { field: "template", .. })));
}

#[tokio::test]
async fn only_what_was_made_exportable_leaves_and_only_to_who_may_read() {
    let site = Site::new().await;
    let (alice, bob) = (user("alice"), user("bob"));
    let acl = acl(&[("user:bob", Capabilities::of([Capability::List, Capability::Encrypt]))]);
    for (id, exportable) in [("out", true), ("in", false)] {
        let policy = KeyPolicy { exportable, ..KeyPolicy::default() };
        let new = NewKey { acl: acl.clone(), ..used_key(id, KeyKind::Aes256Gcm, policy) };
        site.engine.create(&alice, "test", new).await.unwrap();
    }
    assert_eq!(site.engine.export(&using(&alice, "out"), None).await.unwrap().material.len(), 32);
    let why = |r: Result<_, Error>| r.map(|_: Exported| ()).unwrap_err();
    assert_eq!(why(site.engine.export(&using(&alice, "in"), None).await), Error::Denied(Refusal::NotExportable));
    assert_eq!(why(site.engine.export(&using(&bob, "out"), None).await), Error::Denied(Refusal::Lacks(Capability::Read)));
    assert!(matches!(site.engine.read(&alice, "test", "out", Select::Primary).await, Err(Error::Denied(Refusal::UsedNotRead(_)))));
}

#[tokio::test]
async fn open_material_goes_with_its_version_and_its_key() {
    let site = Site::new().await;
    let alice = user("alice");
    let first = made(&site, &alice, "aes", KeyKind::Aes256Gcm).await;
    site.encrypt(&alice, "aes", "x").await;
    let key = site.engine.inspect(&alice, "test", "aes").await.unwrap().entry.meta.key_ref();
    assert!(site.engine.open_keys.find(&key, first).is_some());
    let second = site.generate(&alice, "aes").await;
    site.turn_to(&alice, "aes", second, Transition::Promote).await;
    site.turn_to(&alice, "aes", first, Transition::Deactivate).await;
    site.turn_to(&alice, "aes", first, Transition::Destroy).await;
    assert!(site.engine.open_keys.find(&key, first).is_none());
    site.encrypt(&alice, "aes", "x").await;
    assert!(site.engine.open_keys.find(&key, second).is_some());
    site.delete(&alice, "aes").await;
    assert!(site.engine.open_keys.find(&key, second).is_none());
}

#[tokio::test]
async fn a_secret_is_not_used_and_a_version_past_its_lifetime_neither() {
    let site = Site::new().await;
    let alice = user("alice");
    site.create(&alice, "secret", "x", &[]).await.unwrap();
    let refused = site.engine.encrypt(&using(&alice, "secret"), &[plain("x", "a")]).await.map(drop);
    assert!(matches!(refused, Err(Error::Invalid { field: "kind", .. })));
    let new = NewKey { max_lifetime: Some(60), ..used_key("aes", KeyKind::Aes256Gcm, KeyPolicy::default()) };
    let first = site.engine.create(&alice, "test", new).await.unwrap().version.unwrap();
    let (_, sealed) = site.encrypt(&alice, "aes", "x").await;
    site.clock.advance(61);
    assert_eq!(site.decrypt(&alice, "aes", &sealed).await, Err(Error::Unusable(Unusable::Expired(first))));
}

#[tokio::test]
async fn a_rule_about_export_or_reading_guards_an_export() {
    for guarded in [Guarded::Export, Guarded::Read] {
        let site = Site::new().await;
        let (alice, bob) = (user("alice"), user("bob"));
        let policy = KeyPolicy { exportable: true, ..KeyPolicy::default() };
        site.engine.create(&alice, "test", used_key("aes", KeyKind::Aes256Gcm, policy)).await.unwrap();
        let rules = super::approvals::rules(&[guarded], "user:bob");
        site.engine.change_rules(&alice, "test", "aes", &rules, Precondition::Any).await.unwrap();
        let refused = |r: Result<Exported, Error>| r.map(|_| ()).unwrap_err();
        let plain = refused(site.engine.export(&using(&alice, "aes"), None).await);
        assert!(matches!(plain, Error::NeedsApproval { .. }), "{plain}");
        let asking = alice.clone().approving(Approving::Ask("moving".into()));
        let Error::Asked(shown) = refused(site.engine.export(&using(&asking, "aes"), None).await) else { panic!() };
        let asked = shown.approval;
        super::approvals::approve(&site, &bob, &asked).await.unwrap();
        let Ok(Ran::Exported(exported)) = site.engine.run_approval(&alice, "test", asked.id).await else { panic!() };
        assert_eq!(exported.material.len(), 32);
        // Used once, and no use of the key needs it.
        assert!(site.engine.run_approval(&alice, "test", asked.id).await.is_err());
        site.encrypt(&alice, "aes", "x").await;
    }
}
