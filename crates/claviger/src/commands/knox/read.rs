//! `knox keys`, `knox get` and `knox versions`.

use super::flags::Given;
use super::settings::Site;
use super::{Command, Trouble, exactly, switch, text, tink};
use crate::output;
use claviger_client::knox::KnoxError;
use claviger_domain::KeyId;
use claviger_node::knox_folder::{CachedKey, KnoxFolder};
use claviger_wire::knox::types::VersionStatus;
use std::collections::BTreeSet;

pub(super) const KEYS: Command = Command {
    usage: "keys [<key_identifier> ...]",
    short: "list key identifiers",
    long: "\
Lists the identifiers of all keys; with identifiers given, those of them that exist.

You must be known to the server; no right on the keys is needed.

See also: knox get, knox acl",
    flags: &[],
    run: Some(keys),
};

pub(super) const GET: Command = Command {
    usage: "get [-v key_version] [-n] [-j] [-a] [--tink-keyset] [--tink-keyset-info] <key_identifier>",
    short: "print a key's data",
    long: "\
Prints the data of a key's primary version as it is, without a line break. It is taken from the cache if it is there, else from
the server. It needs the right to read.

-v VERSION          this version instead of the primary one
-n                  ask the server, even if the key is cached
-j                  the key as JSON, with its primary and active versions
-a                  all versions, inactive ones too; asks the server. For -v and -j
--tink-keyset       for keys whose identifier begins with tink: one Tink keyset of the primary and active versions
--tink-keyset-info  the same without key material, as JSON

See also: knox versions, knox register",
    flags: &[switch("a"), switch("j"), switch("n"), text("v"), switch("tink-keyset"), switch("tink-keyset-info")],
    run: Some(get),
};

pub(super) const VERSIONS: Command = Command {
    usage: "versions [-s state] [-v] <key_identifier>",
    short: "list the versions of a key",
    long: "\
Lists the ids of a key's versions, oldest first. It needs the right to read, and always asks the server.

-s STATE  primary, active (primary and active ones; the default) or inactive (all)
-v        with each version's state

See also: knox get, knox promote",
    flags: &[text("s"), switch("v")],
    run: Some(versions),
};

fn keys(site: &Site, given: &Given) -> Result<(), Trouble> {
    let failed = |e: KnoxError| told("Error getting keys: ", &e);
    let asked: BTreeSet<&str> = given.arguments.iter().map(String::as_str).collect();
    let polled: Vec<_> = asked.into_iter().map(|id| (id, "NONE")).collect();
    let ids = site.online(None).map_err(failed)?.wait(async |knox| knox.keys(&polled).await).map_err(failed)?;
    ids.iter().try_for_each(|id| output::line(id))?;
    Ok(())
}

fn get(site: &Site, given: &Given) -> Result<(), Trouble> {
    let [id] = exactly("get", given)?;
    if given.has("tink-keyset") {
        tink::check_id(id)?;
        let keyset = tink::merged(&some_key(site, given, id, None)?.0)?.encode();
        return Ok(output::raw(keyset.expose())?);
    }
    if given.has("tink-keyset-info") {
        tink::check_id(id)?;
        return Ok(output::raw(format!("{}\n", tink::info(&some_key(site, given, id, None)?.0)?).as_bytes())?);
    }
    let (key, path) = some_key(site, given, id, given.has("a").then_some(VersionStatus::Inactive))?;
    if given.has("j") {
        return Ok(output::raw(&key.to_json(path.as_deref()))?);
    }
    let version = match given.text("v") {
        None => key.primary().ok_or("Error getting key: it has no primary version that is given out")?,
        Some(wanted) => key.versions.iter().find(|version| version.id.to_string() == wanted).ok_or("Key version not found.")?,
    };
    Ok(output::raw(version.data.expose())?)
}

fn versions(site: &Site, given: &Given) -> Result<(), Trouble> {
    let [id] = exactly("versions", given)?;
    let state = given.text("s").unwrap_or("active").to_ascii_lowercase();
    let status = match state.as_str() {
        "active" => VersionStatus::Active,
        "inactive" => VersionStatus::Inactive,
        // As in Knox, where what is not known means primary too.
        _ => VersionStatus::Primary,
    };
    for version in from_server(site, id, Some(status))?.versions {
        match given.has("v") {
            true => output::line(&format!("{} \"{}\"", version.id, version.status))?,
            false => output::line(&version.id.to_string())?,
        }
    }
    Ok(())
}

/// A key, and the file it was taken from: from the cache, if that is wished and has it, else from the server.
fn some_key(site: &Site, given: &Given, id: &str, status: Option<VersionStatus>) -> Result<(CachedKey, Option<String>), Trouble> {
    let may_be_cached = !given.has("n") && status.is_none();
    match site.folder().filter(|_| may_be_cached).and_then(|folder| cached(&folder, id)) {
        Some((key, path)) => Ok((key, Some(path))),
        None => Ok((from_server(site, id, status)?, None)),
    }
}

/// A cached key and its file. What is damaged or not to be trusted is as good as missing: the server has it.
fn cached(folder: &std::path::Path, id: &str) -> Option<(CachedKey, String)> {
    let folder = KnoxFolder::open(folder).ok()?;
    let id = KeyId::parse(id).ok()?;
    let key = folder.read_key(&id).ok()??;
    Some((key, folder.key_path(id.as_str()).display().to_string()))
}

/// A key from the server.
pub(super) fn from_server(site: &Site, id: &str, status: Option<VersionStatus>) -> Result<CachedKey, Trouble> {
    let failed = |e: KnoxError| told("Error getting key: ", &e);
    let json = site.online(None).map_err(failed)?.wait(async |knox| knox.key(id, status).await).map_err(failed)?;
    CachedKey::parse(&json).map_err(|_| "Error getting key: invalid key content for the remote key".into())
}

/// A failed call in Knox's words. Knox drops what the server said to a caller who may not; here it follows on a line of its own.
pub(super) fn told(prefix: &str, error: &KnoxError) -> Trouble {
    match error {
        KnoxError::NotAllowed { said, .. } if !said.is_empty() => format!("{prefix}{error}\nthe server said: {said}").into(),
        _ => format!("{prefix}{error}").into(),
    }
}
