//! Kubernetes Secrets as manifests: one, several documents, or a List; in YAML, which JSON is part of.

use super::{Entry, MOST_BYTES, Read, Refused, bounded, text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_domain::SecretBytes;
use serde::Deserialize;
use std::collections::BTreeMap;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What of a manifest matters; the rest is the cluster's own.
#[derive(Deserialize)]
struct Manifest {
    kind: Option<String>,
    metadata: Option<Metadata>,
    data: Option<BTreeMap<String, Text>>,
    #[serde(rename = "stringData")]
    string_data: Option<BTreeMap<String, Text>>,
    items: Option<Vec<Manifest>>,
}

#[derive(Deserialize)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
}

/// Text that is wiped.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
struct Text(String);

pub(crate) fn read(bytes: &[u8]) -> Read {
    let text = text(bytes)?;
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(MOST_BYTES as usize),
            max_depth: 32,
            max_documents: 10_000,
            max_nodes: 1_000_000,
            max_total_scalar_bytes: MOST_BYTES as usize,
            max_aliases: 1_000,
        },
        // What an alias repeats is in no other bound. An event repeats no more than the whole text, so together they repeat no more
        // than a file may have.
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MOST_BYTES as usize / text.len().max(1) },
        // A snippet of the file beside an error would show values.
        with_snippet: false,
        no_schema: false,
        strict_booleans: true,
    };
    let manifests: Vec<Manifest> = serde_saphyr::from_multiple_with_options(text, options).map_err(|e| place(&e))?;
    let mut entries = Vec::new();
    for (nth, manifest) in manifests.iter().enumerate() {
        take(manifest, &format!("document {}", nth + 1), true, &mut entries)?;
    }
    bounded(entries)
}

/// Where it is wrong; the parser's own words may repeat what stands there.
fn place(error: &serde_saphyr::Error) -> Refused {
    match error.location() {
        Some(at) => Refused::new(format!("line {}, column {}: no YAML, or not what a Secret has there", at.line(), at.column())),
        None => Refused::new("it is no YAML, or not what a Secret is"),
    }
}

fn take(manifest: &Manifest, place: &str, may_list: bool, entries: &mut Vec<Entry>) -> Result<(), Refused> {
    match manifest.kind.as_deref() {
        Some("Secret") => secret(manifest, place, entries),
        Some("List" | "SecretList") if may_list => {
            let items = manifest.items.as_deref().unwrap_or_default();
            items.iter().enumerate().try_for_each(|(nth, item)| take(item, &format!("{place}, item {}", nth + 1), false, entries))
        }
        Some(_) => Err(Refused::new(format!("{place} is of another kind than Secret or List"))),
        None => Err(Refused::new(format!("{place} has no kind"))),
    }
}

/// `stringData` stands above `data`, as the API server has it.
fn secret(manifest: &Manifest, place: &str, entries: &mut Vec<Entry>) -> Result<(), Refused> {
    let metadata = manifest.metadata.as_ref();
    let name = metadata.and_then(|m| m.name.as_deref()).ok_or_else(|| Refused::new(format!("{place} has no metadata.name")))?;
    let namespace = metadata.and_then(|m| m.namespace.as_deref());
    let mut values = BTreeMap::new();
    for (field, Text(encoded)) in manifest.data.iter().flatten() {
        let decoded = STANDARD.decode(Zeroizing::new(encoded.split_ascii_whitespace().collect::<String>()).as_bytes());
        let decoded = decoded.map_err(|_| Refused::new(format!("{place}: data of a field of Secret {name} is no base64")))?;
        values.insert(field.as_str(), SecretBytes::new(decoded));
    }
    for (field, Text(text)) in manifest.string_data.iter().flatten() {
        values.insert(field, SecretBytes::new(text.as_bytes().to_vec()));
    }
    let path = |field| namespace.into_iter().chain([name, field]).collect::<Vec<_>>();
    entries.extend(values.into_iter().map(|(field, value)| Entry::new(&path(field), Ok(value))));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::fuzz::shown;
    use super::*;

    #[test]
    fn secrets_documents_and_lists_are_read() {
        let yaml = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: shop, labels: {a: b}}\ntype: Opaque\ndata:\n  pw: aHVudGVyMg==\n  long: |\n    aHVu\n    dGVyMg==\nstringData:\n  user: 'alice'\n  pw: plain\n---\nkind: Secret\nmetadata:\n  name: x\nstringData: {a: \"1\"}\n";
        assert_eq!(shown(&read(yaml.as_bytes()).unwrap()), ["shop/db/long=hunter2", "shop/db/pw=plain", "shop/db/user=alice", "x/a=1"]);
        let json = br#"{"kind": "List", "items": [{"kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "eA=="}}]}"#;
        assert_eq!(shown(&read(json).unwrap()), ["a/k=x"]);
        assert_eq!(shown(&read(b"kind: Secret\nmetadata: {name: none}\n").unwrap()), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_secret_is_refused_without_its_text() {
        for (yaml, why) in [
            ("kind: ConfigMap\nmetadata: {name: hunter2}\n", "document 1 is of another kind"),
            ("kind: List\nitems: [{kind: List}]\n", "document 1, item 1 is of another kind"),
            ("metadata: {name: hunter2}\n", "no kind"),
            ("kind: Secret\nstringData: {a: hunter2}\n", "metadata.name"),
            ("kind: Secret\nmetadata: {name: a}\ndata: {pw: hunter2!}\n", "no base64"),
            ("kind: Secret\nmetadata: {name: a}\nstringData: {pw: hunter2, pw: hunter2}\n", "line 3"),
            ("kind: Secret\nmetadata: {name: a}\nstringData: [hunter2]\n", "line 3"),
            ("kind: Secret\nmetadata: {name: a}\nstringData: {pw: \"hunter2\n", "line "),
            ("kind: Secret\nmetadata: {name: a}\nstringData: {pw: {hunter2: hunter2}}\n", "line 3"),
            ("- hunter2\n", "line 1"),
        ] {
            let error = read(yaml.as_bytes()).unwrap_err().0;
            assert!(error.contains(why) && !error.contains("hunter2"), "{yaml}: {error}");
        }
    }

    #[test]
    fn aliases_do_not_multiply() {
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned()
            + &(b'b'..=b'i')
                .map(|c| format!("{0}: &{0} [{1}]\n", char::from(c), vec![format!("*{}", char::from(c - 1)); 9].join(",")))
                .collect::<String>()
            + "kind: Secret\n";
        assert!(read(bomb.as_bytes()).is_err());
    }

    #[test]
    fn aliases_of_something_long_do_not_fill_the_memory() {
        let repeated = |times: usize, long: usize| {
            let aliases: String = (0..times).map(|n| format!("  f{n}: *a\n")).collect();
            format!("kind: Secret\nmetadata: {{name: x}}\nstringData:\n  a: &a {}\n{aliases}", "x".repeat(long))
        };
        // 80 MiB from one.
        assert!(read(repeated(80, 1 << 20).as_bytes()).is_err());
        let entries = read(repeated(80, 100).as_bytes()).unwrap();
        assert_eq!(entries.len(), 81);
    }
}
