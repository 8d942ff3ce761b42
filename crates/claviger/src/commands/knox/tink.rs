//! Tink keys of Knox (contract knox §13): all of it is the client's work; the server sees bytes.

use super::flags::Given;
use super::settings::Site;
use super::{Command, Trouble};
use crate::output;
use claviger_crypto::tink::{Keyset, Template, TinkError, family_of_id};
use claviger_domain::SecretBytes;
use claviger_node::knox_folder::{CachedKey, CachedVersion};
use serde::Serialize;
use std::collections::HashMap;

pub(super) const KEY_TEMPLATES: Command = Command {
    usage: "key-templates",
    short: "list what 'create' and 'add' can make keys by",
    long: "Lists the key templates that 'knox create --key-template' and 'knox add --key-template' take.",
    flags: &[],
    run: Some(key_templates),
};

fn key_templates(_: &Site, _: &Given) -> Result<(), Trouble> {
    output::line("The following tink key templates are supported:")?;
    Template::ALL.iter().try_for_each(|template| output::line(template.name()))?;
    Ok(())
}

/// The template of this name, if keys of this id may have it.
pub(super) fn template(name: &str, id: &str) -> Result<Template, Trouble> {
    let template = Template::by_name(name).ok_or("not supported Tink key template. See 'knox key-templates'")?;
    let prefix = template.family().id_prefix();
    match id.starts_with(prefix) {
        true => Ok(template),
        false => Err(format!("<key_identifier> must have prefix '{prefix}'").into()),
    }
}

/// A new keyset of one key, whose id no version of `key` has.
pub(super) fn generate(template: Template, key: Option<&CachedKey>) -> Result<SecretBytes, Trouble> {
    let taken = key.iter().flat_map(|key| &key.versions).map(|version| Ok(keyset_of(version)?.primary_id()));
    let taken = taken.collect::<Result<Vec<_>, Trouble>>()?;
    let keyset = template.generate(&taken).map_err(|e| format!("cannot get tink keyset handle: {e}"))?;
    Ok(keyset.encode())
}

/// Refuses ids that are not of Tink keys.
pub(super) fn check_id(id: &str) -> Result<(), Trouble> {
    family_of_id(id).map(drop).ok_or_else(|| "this knox identifier is not for tink keyset".into())
}

/// One keyset of all versions; the primary version's key is its primary.
pub(super) fn merged(key: &CachedKey) -> Result<Keyset, Trouble> {
    let parts = key.versions.iter().map(|version| Ok((version.status == "Primary", keyset_of(version)?)));
    let parts = parts.collect::<Result<Vec<_>, Trouble>>()?;
    Keyset::merge(parts).map_err(|e| format!("cannot get tink keyset handle: {e}").into())
}

fn keyset_of(version: &CachedVersion) -> Result<Keyset, Trouble> {
    let told = |e: TinkError| format!("unexpected error reading tink keyset: version {}: {e}", version.id);
    Keyset::parse(version.data.expose()).map_err(|e| told(e).into())
}

/// A keyset without its keys, as `--tink-keyset-info` shows it.
#[derive(Serialize)]
struct Info {
    primary_key_id: u32,
    key_info: Vec<KeyInfo>,
}

#[derive(Serialize)]
struct KeyInfo {
    type_url: String,
    status: &'static str,
    key_id: u32,
    output_prefix_type: &'static str,
    knox_version_id: u64,
}

/// The merged keyset's description, indented.
pub(super) fn info(key: &CachedKey) -> Result<String, Trouble> {
    let keyset = merged(key)?;
    // As in Knox, by the key's id: of two versions with one key the later is named.
    let versions: HashMap<u32, u64> = keyset.keys().iter().zip(&key.versions).map(|(key, version)| (key.id(), version.id)).collect();
    let key_info = keyset.keys().iter().map(|key| KeyInfo {
        type_url: key.type_url().to_owned(),
        status: key.status().name(),
        key_id: key.id(),
        output_prefix_type: key.output_prefix().name(),
        knox_version_id: versions.get(&key.id()).copied().unwrap_or_default(),
    });
    let info = Info { primary_key_id: keyset.primary_id(), key_info: key_info.collect() };
    serde_json::to_string_pretty(&info).map_err(|e| format!("as JSON: {e}").into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(versions: &[(u64, &str, SecretBytes)]) -> CachedKey {
        let version = |(id, status, data): &(u64, &str, SecretBytes)| CachedVersion {
            id: *id,
            data: SecretBytes::new(data.expose().to_vec()),
            status: (*status).to_owned(),
            created: 1,
        };
        CachedKey { id: "tink:mac:k".into(), versions: versions.iter().map(version).collect(), hash: "h".into(), tink_keyset: None }
    }

    #[test]
    fn a_template_fits_the_ids_of_its_purpose_only() {
        assert!(template("TINK_MAC_HMAC_SHA512_256BITTAG", "tink:mac:k").is_ok());
        let said = |name, id| match template(name, id) {
            Err(Trouble::Said(why)) => why,
            _ => panic!("{name} was taken for {id}"),
        };
        assert_eq!(said("TINK_AEAD_AES256_GCM", "tink:mac:k"), "<key_identifier> must have prefix 'tink:aead:'");
        assert_eq!(said("AES", "tink:mac:k"), "not supported Tink key template. See 'knox key-templates'");
    }

    #[test]
    fn the_description_has_everything_but_the_keys() {
        let first = generate(Template::MacHmacSha512, None).unwrap();
        let old = key(&[(1, "Primary", first)]);
        let second = generate(Template::MacHmacSha512, Some(&old)).unwrap();
        let ids = [keyset_of(&old.versions[0]).unwrap().primary_id(), Keyset::parse(second.expose()).unwrap().primary_id()];
        let both =
            key(&[(9_000_000_000_000_000_001, "Active", SecretBytes::new(old.versions[0].data.expose().to_vec())), (2, "Primary", second)]);
        let url = "type.googleapis.com/google.crypto.tink.HmacKey";
        let entry = |id, version: u64| {
            format!(
                "    {{\n      \"type_url\": \"{url}\",\n      \"status\": \"ENABLED\",\n      \"key_id\": {id},\n      \
                 \"output_prefix_type\": \"TINK\",\n      \"knox_version_id\": {version}\n    }}"
            )
        };
        let expected = format!(
            "{{\n  \"primary_key_id\": {},\n  \"key_info\": [\n{},\n{}\n  ]\n}}",
            ids[1],
            entry(ids[0], 9_000_000_000_000_000_001),
            entry(ids[1], 2)
        );
        assert_eq!(info(&both).unwrap(), expected);
        assert!(merged(&key(&[(7, "Primary", SecretBytes::new(b"hunter2".to_vec()))])).is_err());
    }
}
