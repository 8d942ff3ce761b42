//! `knox create`, `knox add`, `knox promote`, `knox deactivate`, `knox reactivate` and `knox delete`.

use super::flags::Given;
use super::read::{from_server, told};
use super::settings::Site;
use super::{Command, Trouble, exactly, text, tink};
use crate::output;
use claviger_domain::SecretBytes;
use claviger_wire::knox::types::VersionStatus;
use std::io::Read as _;
use zeroize::Zeroizing;

/// No server takes more; what is longer is not read to its end.
const MOST_DATA: u64 = 64 << 20;

pub(super) const CREATE: Command = Command {
    usage: "create [--key-template template_name] <key_identifier>",
    short: "make a key",
    long: "\
Makes a key. Standard input is the data of its first version, as it is: a line break at its end is kept. You become its
administrator.

--key-template NAME  makes the data instead: a Tink keyset of one new key. 'knox key-templates' lists the names

See also: knox add, knox access",
    flags: &[text("key-template")],
    run: Some(create),
};

pub(super) const ADD: Command = Command {
    usage: "add [--key-template template_name] <key_identifier>",
    short: "add a version to a key",
    long: "\
Adds a version, which is active until it is promoted. Standard input is its data, as it is. It needs the right to write.

--key-template NAME  makes the data instead: a Tink keyset of one new key, with an id that no other version has. It needs the
                     right to read too

See also: knox promote, knox deactivate",
    flags: &[text("key-template")],
    run: Some(add),
};

pub(super) const PROMOTE: Command = Command {
    usage: "promote <key_identifier> <key_version>",
    short: "make an active version the primary one",
    long: "\
Makes an active version the primary one; the one that was primary becomes active. It needs the right to write.

See also: knox deactivate, knox reactivate",
    flags: &[],
    run: Some(|site, given| update(site, given, "promote", VersionStatus::Primary, "Error promoting version: ", "Promoted")),
};

pub(super) const DEACTIVATE: Command = Command {
    usage: "deactivate <key_identifier> <key_version>",
    short: "make an active version inactive",
    long: "\
Makes an active version inactive: it is no longer given out to those who read the key. It needs the right to write.

See also: knox reactivate, knox promote",
    flags: &[],
    run: Some(|site, given| update(site, given, "deactivate", VersionStatus::Inactive, "Error updating version: ", "Deactivated")),
};

pub(super) const REACTIVATE: Command = Command {
    usage: "reactivate <key_identifier> <key_version>",
    short: "make an inactive version active again",
    long: "\
Makes an inactive version active again. It needs the right to write.

See also: knox deactivate, knox promote",
    flags: &[],
    run: Some(|site, given| update(site, given, "reactivate", VersionStatus::Active, "Error reactivating version: ", "Reactivated")),
};

pub(super) const DELETE: Command = Command {
    usage: "delete <key_identifier>",
    short: "delete a key with all its versions",
    long: "\
Deletes a key with all its versions. It needs the right to administer the key, and cannot be taken back.

See also: knox create",
    flags: &[],
    run: Some(delete),
};

fn create(site: &Site, given: &Given) -> Result<(), Trouble> {
    let [id] = exactly("create", given)?;
    let data = match given.text("key-template") {
        Some(name) => tink::generate(tink::template(name, id)?, None)?,
        None => from_standard_input()?,
    };
    // Knox's own says this for both commands.
    let failed = |e| told("Error adding version: ", &e);
    let version = site.online(None).map_err(failed)?.wait(async |knox| knox.create(id, &data, &[]).await).map_err(failed)?;
    Ok(output::line(&format!("Created key with initial version {version}"))?)
}

fn add(site: &Site, given: &Given) -> Result<(), Trouble> {
    let [id] = exactly("add", given)?;
    let data = match given.text("key-template") {
        Some(name) => {
            let template = tink::template(name, id)?;
            tink::generate(template, Some(&from_server(site, id, Some(VersionStatus::Inactive))?))?
        }
        None => from_standard_input()?,
    };
    let failed = |e| told("Error adding version: ", &e);
    let version = site.online(None).map_err(failed)?.wait(async |knox| knox.add(id, &data).await).map_err(failed)?;
    Ok(output::line(&format!("Added key version {version}"))?)
}

fn update(site: &Site, given: &Given, command: &str, status: VersionStatus, prefix: &str, done: &str) -> Result<(), Trouble> {
    let [id, version] = exactly(command, given)?;
    let failed = |e| told(prefix, &e);
    site.online(None).map_err(failed)?.wait(async |knox| knox.update(id, version, status).await).map_err(failed)?;
    Ok(output::line(&format!("{done} {version} successfully."))?)
}

fn delete(site: &Site, given: &Given) -> Result<(), Trouble> {
    let [id] = exactly("delete", given)?;
    let failed = |e| told("Error deleting key: ", &e);
    site.online(None).map_err(failed)?.wait(async |knox| knox.delete(id).await).map_err(failed)?;
    Ok(output::line("Successfully deleted key")?)
}

fn from_standard_input() -> Result<SecretBytes, Trouble> {
    output::line("Reading from stdin...")?;
    let mut data = Zeroizing::new(Vec::with_capacity(64 << 10));
    let read = std::io::stdin().lock().take(MOST_DATA + 1).read_to_end(&mut data);
    match read.map_err(|e| format!("problem reading key data: {e}"))? as u64 {
        0..=MOST_DATA => Ok(SecretBytes::new(std::mem::take(&mut *data))),
        _ => Err("problem reading key data: it has more than 64 MiB".into()),
    }
}
