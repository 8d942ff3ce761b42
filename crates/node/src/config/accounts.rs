//! Users and groups by name, from the machine's account files. Accounts that only a directory service knows must be given by number: the agent
//! decides about secrets and asks no network who somebody is.

use super::ConfigError;
use super::raw::Account;
use std::collections::HashMap;

/// Names and their numbers.
#[derive(Debug, Default)]
pub struct Accounts {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Accounts {
    /// Those of `/etc/passwd` and `/etc/group`.
    #[must_use]
    pub fn of_machine() -> Self {
        let read = |path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        Self::parse(&read("/etc/passwd"), &read("/etc/group"))
    }

    /// Those of files of this form, `NAME:PASSWORD:NUMBER:…`.
    #[must_use]
    pub fn parse(users: &str, groups: &str) -> Self {
        fn numbers(text: &str) -> HashMap<String, u32> {
            let number = |line: &str| {
                let mut fields = line.split(':');
                let name = fields.next()?.to_owned();
                Some((name, fields.nth(1)?.parse().ok()?))
            };
            text.lines().filter_map(number).collect()
        }
        Self { users: numbers(users), groups: numbers(groups) }
    }

    pub(super) fn user(&self, account: &Account, place: &str) -> Result<u32, ConfigError> {
        number(&self.users, account, place, "user", "/etc/passwd")
    }

    pub(super) fn group(&self, account: &Account, place: &str) -> Result<u32, ConfigError> {
        number(&self.groups, account, place, "group", "/etc/group")
    }
}

fn number(known: &HashMap<String, u32>, account: &Account, place: &str, what: &str, file: &str) -> Result<u32, ConfigError> {
    match account {
        Account::Number(number) => Ok(*number),
        Account::Name(name) => known.get(name).copied().ok_or_else(|| ConfigError {
            place: place.to_owned(),
            problem: format!(
                "there is no {what} `{name}` in {file}; make it, or give its number (accounts of a directory service go by number)"
            ),
        }),
    }
}
