//! 1Password's exports: 1PUX, a zip archive with `export.data` in it, and CSV.
//!
//! Titles are prose, so they become names by putting a `-` in place of what a key id cannot have.

use super::{Entry, MOST_BYTES, Read, Refused, bounded, text};
use claviger_domain::SecretBytes;
use claviger_wire::parts::json::{Json, parse};
use std::io::{Cursor, Read as _};
use zeroize::Zeroizing;

/// Files in an archive at most.
const MOST_FILES: usize = 100_000;

pub(crate) fn read(bytes: &[u8]) -> Read {
    match bytes.starts_with(b"PK\x03\x04") {
        true => read_1pux(bytes),
        false => read_csv(bytes),
    }
}

fn read_1pux(bytes: &[u8]) -> Read {
    let data = unpack(bytes, MOST_BYTES)?;
    let json = parse(text(&data)?).map_err(|e| Refused::new(format!("export.data: {e}")))?;
    let accounts = list(&json, "accounts").ok_or_else(|| Refused::new("export.data: it has no accounts"))?;
    let mut entries = Vec::new();
    for vault in accounts.iter().flat_map(|account| list(account, "vaults").unwrap_or_default()) {
        let vault_name = vault.member("attrs").and_then(|a| a.member("name")).and_then(Json::as_str).unwrap_or_default();
        for item in list(vault, "items").unwrap_or_default() {
            take(&slug(vault_name, "vault"), item, &mut entries);
        }
    }
    bounded(entries)
}

/// `export.data` of the archive. What it says of its own size is not believed.
fn unpack(bytes: &[u8], most: u64) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let bad = |_| Refused::new("the archive is damaged, encrypted, or has no export.data");
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(bad)?;
    if archive.len() > MOST_FILES {
        return Err(Refused::new("the archive has too many files"));
    }
    let file = archive.by_name("export.data").map_err(bad)?;
    let mut data = Zeroizing::new(Vec::with_capacity(1 << 20));
    let read = file.take(most + 1).read_to_end(&mut data);
    match read.map_err(|_| Refused::new("the archive is damaged: export.data cannot be unpacked"))? as u64 > most {
        true => Err(Refused::new("export.data is larger than anything that is read here")),
        false => Ok(data),
    }
}

fn list<'j, 'a>(json: &'j Json<'a>, name: &str) -> Option<&'j [Json<'a>]> {
    json.member(name).and_then(Json::items)
}

fn member<'j>(json: &'j Json<'_>, name: &str) -> &'j str {
    json.member(name).and_then(Json::as_str).unwrap_or_default()
}

/// One item: the fields of its login form, its password, notes, and the fields of its sections.
fn take(vault: &str, item: &Json<'_>, entries: &mut Vec<Entry>) {
    let (Some(overview), Some(details)) = (item.member("overview"), item.member("details")) else { return };
    let title = slug(member(overview, "title"), member(item, "uuid"));
    let is_archived = member(item, "state") == "archived";
    let mut put = |path: &[&str], value: Result<SecretBytes, &'static str>| {
        let value = if is_archived { Err("the item is archived") } else { value };
        let path: Vec<&str> = [vault, &title].into_iter().chain(path.iter().copied()).collect();
        entries.push(Entry { description: member(overview, "url").to_owned(), ..Entry::new(&path, value) });
    };
    for field in list(details, "loginFields").unwrap_or_default() {
        let designation = member(field, "designation");
        let is_hidden = member(field, "fieldType") == "P";
        let name = if designation.is_empty() && is_hidden { slug(member(field, "name"), "field") } else { slug(designation, "") };
        let value = member(field, "value");
        if !name.is_empty() && !value.is_empty() {
            put(&[&name], Ok(secret(value)));
        }
    }
    for (name, member_name) in [("password", "password"), ("notes", "notesPlain")] {
        let value = member(details, member_name);
        if !value.is_empty() {
            put(&[name], Ok(secret(value)));
        }
    }
    for section in list(details, "sections").unwrap_or_default() {
        let heading = slug(member(section, "title"), "");
        for field in list(section, "fields").unwrap_or_default() {
            let name = slug(member(field, "title"), member(field, "id"));
            let path: Vec<&str> = [heading.as_str(), &name].into_iter().filter(|s| !s.is_empty()).collect();
            if let Some(value) = section_value(field) {
                put(&path, value);
            }
        }
    }
}

/// A section's field; nothing where it was left empty.
fn section_value(field: &Json<'_>) -> Option<Result<SecretBytes, &'static str>> {
    let Some(Json::Object(members)) = field.member("value") else { return Some(Err("its value has another form than 1PUX has")) };
    let (kind, value) = members.first()?;
    let inner = match kind.as_str() {
        "concealed" | "string" | "totp" | "url" | "phone" | "menu" | "gender" | "creditCardNumber" | "creditCardType" => value.as_str(),
        "email" => value.as_str().or_else(|| value.member("email_address").and_then(Json::as_str)),
        "sshKey" => value.member("privateKey").and_then(Json::as_str),
        "date" | "monthYear" => value.scalar().filter(|text| *text != "null"),
        _ => return Some(Err("a field of this kind is no text; put it in by hand")),
    };
    inner.filter(|text| !text.is_empty()).map(|text| Ok(secret(text)))
}

fn secret(text: &str) -> SecretBytes {
    SecretBytes::new(text.as_bytes().to_vec())
}

/// The columns that matter, by their headings.
const COLUMNS: [(&str, &str); 4] = [("username", "username"), ("password", "password"), ("otpauth", "otp"), ("notes", "notes")];

fn read_csv(bytes: &[u8]) -> Read {
    let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(text(bytes)?.as_bytes());
    let headings = reader.headers().map_err(|e| place(&e))?.clone();
    let column = |name: &str| headings.iter().position(|heading| heading.eq_ignore_ascii_case(name));
    let (Some(title), Some(_)) = (column("title"), column("password")) else {
        return Err(Refused::new("it is neither 1PUX nor CSV with the headings Title and Password"));
    };
    let mut entries = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|e| place(&e))?;
        let cell = |at: usize| row.get(at).unwrap_or_default();
        let is_archived = column("archived").is_some_and(|at| cell(at).eq_ignore_ascii_case("true"));
        let title = slug(cell(title), "item");
        let description = column("url").map(cell).unwrap_or_default();
        for (heading, name) in COLUMNS {
            let text = column(heading).map(cell).unwrap_or_default();
            if !text.is_empty() {
                let value = if is_archived { Err("the item is archived") } else { Ok(secret(text)) };
                entries.push(Entry { description: description.to_owned(), ..Entry::new(&[&title, name], value) });
            }
        }
    }
    bounded(entries)
}

fn place(error: &csv::Error) -> Refused {
    match error.position() {
        Some(at) => Refused::new(format!("line {}: the row is no CSV, or has more or fewer cells than the first", at.line())),
        None => Refused::new("it is no CSV"),
    }
}

/// A segment of a key id made of a title, or of `otherwise` where nothing is left of it.
fn slug(title: &str, otherwise: &str) -> String {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let words: Vec<&str> = title.split(|c| !is_legal(c)).filter(|word| !word.is_empty()).collect();
    match words.join("-") {
        name if name.is_empty() || name.chars().all(|c| c == '.') => otherwise.to_owned(),
        name => name,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::fuzz::{archive, shown};
    use super::*;

    const DATA: &str = r#"{"accounts": [{"attrs": {}, "vaults": [{"attrs": {"name": "Team Ops"}, "items": [
        {"uuid": "u1", "state": "active", "overview": {"title": "Mail & more", "url": "https://mail.example"}, "details": {
            "loginFields": [{"designation": "username", "value": "alice", "fieldType": "T", "name": "email"},
                {"designation": "password", "value": "pw1", "fieldType": "P"}, {"name": "remember", "value": "x", "fieldType": "C"}],
            "notesPlain": "a note",
            "sections": [{"title": "", "fields": [{"title": "", "id": "TOTP", "value": {"totp": "otpauth://x"}}, {"title": "pin", "value": {"concealed": ""}}]},
                {"title": "Recovery", "fields": [{"title": "code", "value": {"concealed": "rc"}}, {"title": "where", "value": {"address": {"city": "x"}}}]}]}},
        {"uuid": "u2", "state": "archived", "overview": {"title": "…"}, "details": {"password": "old"}}]}]}]}"#;

    #[test]
    fn an_archive_is_read_item_by_item() {
        let found = read(&archive("export.data", DATA.as_bytes())).unwrap();
        assert_eq!(
            shown(&found),
            [
                "Team-Ops/Mail-more/username=alice",
                "Team-Ops/Mail-more/password=pw1",
                "Team-Ops/Mail-more/notes=a note",
                "Team-Ops/Mail-more/TOTP=otpauth://x",
                "Team-Ops/Mail-more/Recovery/code=rc",
                "Team-Ops/Mail-more/Recovery/where!",
                "Team-Ops/u2/password!",
            ]
        );
        assert_eq!(found[0].description, "https://mail.example");
    }

    #[test]
    fn archives_that_are_damaged_or_too_large_are_refused() {
        assert!(read(&archive("other", b"{}")).unwrap_err().0.contains("no export.data"));
        let good = archive("export.data", DATA.as_bytes());
        assert!(read(&good[..good.len() / 2]).is_err());
        let bomb = archive("export.data", &[b' '; 4096]);
        assert!(bomb.len() < 1024 && unpack(&bomb, 4096).is_ok());
        assert!(unpack(&bomb, 4095).unwrap_err().0.contains("larger"));
    }

    #[test]
    fn tables_are_read_by_their_headings() {
        let table = "Title,Url,Username,Password,OTPAuth,Favorite,Archived,Tags,Notes\nMail,https://m,alice,\"p,w\",,false,false,,\nOld,,bob,x,,false,true,,n\n";
        assert_eq!(
            shown(&read(table.as_bytes()).unwrap()),
            ["Mail/username=alice", "Mail/password=p,w", "Old/username!", "Old/password!", "Old/notes!"]
        );
        let ragged = read(b"Title,Password\na,b,hunter2\n").unwrap_err().0;
        assert!(ragged.starts_with("line 2: ") && !ragged.contains("hunter2"), "{ragged}");
        assert!(read(b"user,pass\na,b\n").unwrap_err().0.contains("Title and Password"));
    }
}
