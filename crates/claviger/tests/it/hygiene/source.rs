//! A rule over the source: no type prints a secret by a derived `Debug`.

use std::path::Path;

/// What is named like a secret and is none: the data of a watch's events are ids and revisions.
const HARMLESS: [&str; 1] = ["Frame.data: String,"];

/// Field names that hold secrets when their type is text or bytes.
const SECRET_FIELDS: [&str; 7] = ["data", "secret", "secrets", "token", "password", "plaintext", "seed"];

#[test]
fn no_type_with_a_secret_field_derives_debug() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut looked_at = 0;
    let mut found = Vec::new();
    for path in super::files(crates) {
        let is_source = path.extension().is_some_and(|e| e == "rs") && path.components().any(|c| c.as_os_str() == "src");
        if !is_source {
            continue;
        }
        looked_at += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        found.extend(offenders(&text).filter(|what| !HARMLESS.contains(&what.as_str())).map(|what| format!("{}: {what}", path.display())));
    }
    assert!(looked_at > 100, "{looked_at}");
    assert!(found.is_empty(), "these would print a secret; use SecretBytes or write Debug by hand:\n{}", found.join("\n"));
}

/// Types of a source text that derive `Debug` and have such a field.
fn offenders(text: &str) -> impl Iterator<Item = String> {
    let derived = text.split("#[derive(").skip(1).filter(|after| after.split(')').next().unwrap_or_default().contains("Debug"));
    derived.flat_map(|after| {
        let item = after.split("\n}").next().unwrap_or_default();
        let name = item.split("struct ").nth(1).or(item.split("enum ").nth(1)).unwrap_or_default();
        let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
        let fields = item
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(before, kind)| (before.rsplit(' ').next().unwrap_or_default(), kind));
        let secret = fields.filter(|(field, kind)| SECRET_FIELDS.contains(field) && is_plain(kind));
        secret.map(|(field, kind)| format!("{name}.{field}: {kind}")).collect::<Vec<_>>()
    })
}

/// Types whose own `Debug` shows all that they hold.
fn is_plain(kind: &str) -> bool {
    ["String", "Vec<u8>", "Bytes", "Box<[u8]>", "[u8", "&str", "&[u8]", "&'a str", "&'a [u8]", "Zeroizing", "Cow<"]
        .iter()
        .any(|plain| kind.trim_start_matches("Option<").trim_start_matches("Vec<Vec").starts_with(plain))
}

#[test]
fn the_rule_sees_what_it_is_for() {
    let bad = "#[derive(Clone, Debug)]\npub struct A {\n    /// Text.\n    pub data: String,\n}\n";
    assert_eq!(offenders(bad).collect::<Vec<_>>(), ["A.data: String,"]);
    let hidden = "#[derive(Debug)]\npub(super) struct A {\n    pub(super) token: Option<String>,\n}\n";
    assert_eq!(offenders(hidden).collect::<Vec<_>>(), ["A.token: Option<String>,"]);
    let good = "#[derive(Debug)]\npub struct A {\n    pub data: SecretBytes,\n}\n#[derive(Clone)]\nstruct B {\n    data: String,\n}\n";
    assert_eq!(offenders(good).count(), 0);
}

/// An error that carries a secret, where nobody expected an error.
fn refused(secret: claviger_domain::SecretBytes) {
    let result: Result<(), _> = if secret.is_empty() { Ok(()) } else { Err(secret) };
    result.unwrap();
}

#[test]
fn a_panic_with_a_secret_in_hand_does_not_tell_it() {
    let secret = || claviger_domain::SecretBytes::new(b"hunter2 and more".to_vec());
    let results: [fn(claviger_domain::SecretBytes); 3] =
        [|secret| panic!("{secret:?}"), refused, |secret| assert_eq!(format!("{secret:#?}"), "")];
    for result in results {
        let payload = std::panic::catch_unwind(|| result(secret())).unwrap_err();
        let said = payload.downcast::<String>().unwrap();
        assert!(said.contains("SecretBytes(16 bytes)") && !said.contains("hunter2") && !said.contains("104, 117"), "{said}");
    }
}
