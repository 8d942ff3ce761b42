//! `knox acl` and `knox access`.

use super::flags::Given;
use super::read::told;
use super::settings::Site;
use super::{Command, Trouble, exactly, switch, text};
use crate::output;
use claviger_wire::knox::json::{AclField, decode_acl};
use claviger_wire::knox::types::{AccessEntry, AccessLevel, PrincipalType, write_acl};

pub(super) const ACL: Command = Command {
    usage: "acl [-json] <key_identifier>",
    short: "show who may do what with a key",
    long: "\
Shows a key's access list, one entry in JSON on each line. You must be known to the server; no right on the key is needed.

-json  the whole list as one JSON array, as 'knox access -acl' takes it

See also: knox access",
    flags: &[switch("json")],
    run: Some(acl),
};

pub(super) const ACCESS: Command = Command {
    usage: "access (-acl <file> <key_identifier> | {-n|-r|-w|-a} {-M|-U|-G|-P|-S|-N} <key_identifier> <principal>)",
    short: "change who may do what with a key",
    long: "\
Adds or replaces an entry of a key's access list, or takes it away. It needs the right to administer the key.

-acl FILE  all entries of a JSON array in FILE

One of these says what the principal may:
-n  nothing: its entry is removed. It keeps what another entry gives
-r  read the data
-w  read, add versions and change their states
-a  all that, change the access list and delete the key

One of these says what the principal is:
-M  a machine, by its exact name
-U  a user
-G  a group of users
-P  all machines whose name begins like this
-S  a service, by its exact SPIFFE ID, such as spiffe://example.com/service
-N  all services below a SPIFFE ID that ends with a slash, such as spiffe://example.com/namespace/

See also: knox acl",
    flags: &[
        text("acl"),
        switch("n"),
        switch("r"),
        switch("w"),
        switch("a"),
        switch("M"),
        switch("U"),
        switch("G"),
        switch("P"),
        switch("S"),
        switch("N"),
    ],
    run: Some(access),
};

/// In the order in which Knox looks for them.
const LEVELS: [(&str, AccessLevel); 4] =
    [("n", AccessLevel::None), ("r", AccessLevel::Read), ("w", AccessLevel::Write), ("a", AccessLevel::Admin)];
const KINDS: [(&str, PrincipalType); 6] = [
    ("M", PrincipalType::Machine),
    ("U", PrincipalType::User),
    ("G", PrincipalType::UserGroup),
    ("P", PrincipalType::MachinePrefix),
    ("S", PrincipalType::Service),
    ("N", PrincipalType::ServicePrefix),
];

fn acl(site: &Site, given: &Given) -> Result<(), Trouble> {
    let [id] = exactly("acl", given)?;
    let failed = |e| told("Error getting key ACL: ", &e);
    let entries = site.online(None).map_err(failed)?.wait(async |knox| knox.acl(id).await).map_err(failed)?;
    let json = |entries: &[AccessEntry]| -> Result<String, Trouble> {
        let mut out = Vec::new();
        write_acl(&mut out, entries.iter().map(AccessEntry::as_ref)).map_err(|e| format!("Could not marshal entry: {e}"))?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    };
    if given.has("json") {
        return Ok(output::line(&json(&entries)?)?);
    }
    for entry in entries.chunks(1) {
        let array = json(entry)?;
        output::line(array.trim_start_matches('[').trim_end_matches(']'))?;
    }
    Ok(())
}

fn access(site: &Site, given: &Given) -> Result<(), Trouble> {
    let (id, entries) = match given.text("acl") {
        Some(file) => {
            let [id] = given.arguments.as_slice() else {
                return Err("access takes one argument when used with --acl. See 'knox help access'".into());
            };
            (id, from_file(file)?)
        }
        None => {
            let [id, principal] = exactly("access", given)?;
            (id, vec![entry(given, principal)?])
        }
    };
    let failed = |e| told("Failed to update access: ", &e);
    site.online(None).map_err(failed)?.wait(async |knox| knox.put_access(id, &entries).await).map_err(failed)?;
    Ok(output::line("Successfully updated Access")?)
}

fn from_file(file: &str) -> Result<Vec<AccessEntry>, Trouble> {
    let text = std::fs::read(file).map_err(|e| format!("Could not read acl file: {file}: {e}"))?;
    decode_acl(&text, AclField::PutAccess).map_err(|e| format!("Could not decode access list properly: {e}").into())
}

fn entry(given: &Given, principal: &str) -> Result<AccessEntry, Trouble> {
    fn first<T: Copy>(given: &Given, table: &[(&str, T)]) -> Option<T> {
        table.iter().find(|(flag, _)| given.has(flag)).map(|(_, value)| *value)
    }
    let access = first(given, &LEVELS).ok_or("access requires {-n,-r,-w,-a}. See 'knox help access'")?;
    let kind = first(given, &KINDS).ok_or("access requires {-M|-U|-G|-P|-S|-N}. See 'knox help access'")?;
    Ok(AccessEntry { kind, id: principal.to_owned(), access })
}
