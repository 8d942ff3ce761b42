//! `knox register` and `knox unregister`: the list of what the daemon or the node agent keeps in the cache folder.

use super::flags::Given;
use super::read::from_server;
use super::settings::Site;
use super::{Command, Trouble, log, switch, text};
use crate::output;
use claviger_domain::KeyId;
use claviger_node::knox_folder::{BadKey, CachedKey, FolderError, KnoxFolder, Listed, Registrations};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks for a key that was just registered.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub(super) const REGISTER: Command = Command {
    usage: "register [-r] [-k identifier] [-f identifier_file] [-g] [-t timeout]",
    short: "have the daemon keep keys in the cache",
    long: "\
Registers keys: the daemon ('knox daemon' or 'claviger node') fetches them, and keeps the cached copies up to date. This changes
only the list; whether the machine may read a key shows when the daemon asks for it.

-k KEY      this key
-f FILE     the keys whose identifiers stand in FILE, with white space between them. Not used where there is -k
-r          instead of those that are registered now; alone, no key stays registered
-g          with -k: wait until the key is cached, and print it as JSON
-t TIMEOUT  how long -g waits, such as 5s or 500ms; a number alone is seconds. The default is 5s

See also: knox unregister, knox daemon",
    flags: &[switch("r"), text("k"), text("f"), switch("g"), text("t")],
    run: Some(register),
};

pub(super) const UNREGISTER: Command = Command {
    usage: "unregister <key_identifier>",
    short: "have the daemon drop a key from the cache",
    long: "\
Takes a key off the list; the daemon then removes the cached copy.

See also: knox register",
    flags: &[],
    run: Some(unregister),
};

fn register(site: &Site, given: &Given) -> Result<(), Trouble> {
    let timeout = match given.text("t") {
        None => Duration::from_secs(5),
        Some(text) => timeout(text).ok_or_else(|| format!("Invalid value for timeout flag: time: invalid duration {text:?}"))?,
    };
    let Some(path) = site.folder() else { return without_cache(site, given) };
    let wanted = match (given.text("k"), given.text("f")) {
        (None, None) if given.has("r") => Vec::new(),
        (None, None) => return Err("You must include a key or key file to register. see 'knox help register'".into()),
        (Some(id), _) => vec![id.to_owned()],
        (None, Some(file)) => words_of(file)?,
    };
    if given.has("g") && given.text("k").is_none() {
        return Err("register -g waits for one key: name it with -k. Nothing was registered".into());
    }
    let ids = wanted.iter().map(|word| key_id(word)).collect::<Result<Vec<_>, _>>()?;
    let shown = format!("[{}]", wanted.join(" "));
    change(&path, |listed| {
        if given.has("r") {
            *listed = Listed::default();
        }
        // Counted whole: each must be added, also where an earlier one was there.
        ids.iter().filter(|id| listed.add(id)).count() > 0 || given.has("r")
    })
    .map_err(|e| match e {
        Changing::Lock(e) => format!("There was an error obtaining file lock: {e}"),
        Changing::List(e) if ids.is_empty() => format!("Failed to unregister all keys: {e}"),
        Changing::List(e) => format!("There was an error registering keys {shown}: {e}"),
    })?;
    match (ids.first(), given.has("g")) {
        (Some(id), true) => print_when_cached(&path, id, timeout),
        (None, _) => {
            log("Successfully unregistered all keys.");
            Ok(())
        }
        (Some(_), false) => {
            log(&format!(
                "Successfully registered keys {shown}. The daemon process fetches them and keeps them up to date; its log says how it went."
            ));
            Ok(())
        }
    }
}

fn unregister(site: &Site, given: &Given) -> Result<(), Trouble> {
    let [word] = given.arguments.as_slice() else {
        return Err("You must include a key ID to deregister. See 'knox help unregister'".into());
    };
    let path = site.folder().ok_or("Error removing the key: there is no cache (KNOX_NO_CACHE is set)")?;
    change(&path, |listed| {
        let words = listed.unusable.len();
        listed.unusable.retain(|listed| listed != word);
        let was_unusable = listed.unusable.len() < words;
        KeyId::parse(word).is_ok_and(|id| listed.remove(&id)) || was_unusable
    })
    .map_err(|e| match e {
        Changing::Lock(e) => format!("Error locking the register file: {e}"),
        Changing::List(e) => format!("Error removing the key: {e}"),
    })?;
    Ok(output::line("Unregistered key successfully")?)
}

/// Which step of a change of the list failed.
enum Changing {
    Lock(FolderError),
    List(FolderError),
}

/// Changes the list under its lock; a list in which `edit` changes nothing is not written.
fn change(path: &Path, edit: impl FnOnce(&mut Listed) -> bool) -> Result<(), Changing> {
    let mut locked: Registrations = KnoxFolder::open(path).and_then(|folder| folder.lock()).map_err(Changing::Lock)?;
    let mut listed = locked.read().map_err(Changing::List)?;
    match edit(&mut listed) {
        true => locked.write(&listed).map_err(Changing::List),
        false => Ok(()),
    }
}

/// Prints a key's JSON as soon as it is cached.
fn print_when_cached(path: &Path, id: &KeyId, timeout: Duration) -> Result<(), Trouble> {
    let begun = Instant::now();
    loop {
        let why = match look(path, id) {
            Ok((key, file)) => return Ok(output::raw(&key.to_json(Some(&file)))?),
            Err(why) => why,
        };
        if begun.elapsed() >= timeout {
            let timeout = shown(timeout);
            return Err(format!(
                "Error getting key from daemon (hit timeout after {timeout} seconds); check knox logs for details (most recent error: {why})"
            )
            .into());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The cached key and its file, or why there is none, as Go says it.
fn look(path: &Path, id: &KeyId) -> Result<(CachedKey, String), String> {
    let folder = KnoxFolder::open(path).map_err(|e| e.to_string())?;
    let file = folder.key_path(id.as_str()).display().to_string();
    match folder.read_key(id) {
        Ok(Some(key)) => Ok((key, file)),
        Ok(None) => Err(format!("open {file}: no such file or directory")),
        Err(FolderError::Damaged { problem: BadKey::Incomplete, .. }) => Err("invalid key content for the cached key".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Where there is no cache: as in 2026 the key is fetched at once if it is wished, and otherwise, as in 2025, that is all that is said.
fn without_cache(site: &Site, given: &Given) -> Result<(), Trouble> {
    match given.text("k").filter(|_| given.has("g")) {
        Some(id) => Ok(output::raw(&from_server(site, id, None)?.to_json(None))?),
        None => Ok(output::line("Cannot Register in No Cache mode")?),
    }
}

fn words_of(file: &str) -> Result<Vec<String>, Trouble> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("There was an error reading input key file {file}: {e}"))?;
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    // As the list of nothing it would drop every cached key with -r; said alone, that means it.
    if words.is_empty() { Err(format!("There was an error reading input key file {file}: it names no key").into()) } else { Ok(words) }
}

fn key_id(word: &str) -> Result<KeyId, Trouble> {
    let refused = || format!("There was an error registering keys [{word}]: no key of Knox has this identifier. Nothing was registered");
    KeyId::parse(word).ok().filter(KeyId::is_knox).ok_or_else(|| refused().into())
}

/// A number of seconds, or a duration as Go writes it.
fn timeout(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    }
    if text == "-0" || text == "+0" {
        return Some(Duration::ZERO);
    }
    let (is_negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, seconds) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        total += number * seconds;
        rest = &rest[unit.len()..];
    }
    let is_a_duration = !text.is_empty() && text != "-" && text != "+";
    let total = if is_negative { 0.0 } else { total };
    is_a_duration.then(|| Duration::try_from_secs_f64(total).ok()).flatten()
}

/// Longer names first, so that `m` is not taken for the beginning of `ms`.
const UNITS: [(&str, f64); 8] =
    [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// A duration as Go writes it: `1.5s`, `500ms`, `2m0s`.
fn shown(duration: Duration) -> String {
    let part = |nanos: u128, unit: u128, name: &str| {
        let (whole, rest) = (nanos / unit, nanos % unit);
        let width = unit.to_string().len() - 1;
        let fraction = format!("{rest:0width$}");
        match rest {
            0 => format!("{whole}{name}"),
            _ => format!("{whole}.{}{name}", fraction.trim_end_matches('0')),
        }
    };
    match duration.as_nanos() {
        0 => "0s".to_owned(),
        nanos @ 1..1_000 => format!("{nanos}ns"),
        nanos @ 1_000..1_000_000 => part(nanos, 1_000, "µs"),
        nanos @ 1_000_000..1_000_000_000 => part(nanos, 1_000_000, "ms"),
        nanos => {
            let minutes = duration.as_secs() / 60;
            let seconds = part(nanos % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_seconds_or_durations_of_go() {
        for (text, wanted) in [
            ("5", "5s"),
            ("1s", "1s"),
            ("500ms", "500ms"),
            ("1.5s", "1.5s"),
            ("2m", "2m0s"),
            ("1h2m3.5s", "1h2m3.5s"),
            ("90m", "1h30m0s"),
            ("100us", "100µs"),
            ("3ns", "3ns"),
            ("0", "0s"),
            ("-3", "0s"),
            ("-3s", "0s"),
        ] {
            assert_eq!(timeout(text).map(shown).as_deref(), Some(wanted), "{text}");
        }
        for bad in ["", "s", "5x", "5 s", "1s2", ".s", "-", "ms5", "1e400h"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }
}
