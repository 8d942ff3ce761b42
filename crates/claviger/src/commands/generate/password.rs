//! `claviger generate password`: random characters by a policy.
//!
//! A password is drawn whole and thrown away until it keeps the policy, so that every password that keeps it is as likely as any
//! other. Putting required characters in first and shuffling would not do that.

use super::{Into, Made, text_of};
use crate::failure::Failure;
use crate::random::Random;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Characters of a password at most.
const LONGEST: usize = 1024;
/// Policies that fewer than one password in this many keeps are refused: they are a slip, and drawing would take long.
const RAREST: f64 = 1e-6;
/// Letters and digits that are taken for each other.
const SIMILAR: &str = "O0oQIl1|S5Z2B8";
/// Symbols unless others are given: those that shells, URLs and configuration files mind least come first.
const SYMBOLS: &str = "-_.~!@#%^&*()+=[]{}:;,?/<>|$";

/// A password of random characters, by a policy.
///
/// The policy comes from these options, or from a TOML file with the same names, where options say otherwise than the file:
///
///   length = 24
///   classes = ["lower", "upper", "digit", "symbol"]
///   symbols = "-_.!"
///   exclude = "O0Il1"
///   min = { digit = 2, symbol = 1 }
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Options {
    /// Characters; 24 unless the policy says otherwise.
    #[arg(long, value_name = "N")]
    length: Option<usize>,
    /// What it is made of; lower, upper and digit unless the policy says otherwise.
    #[arg(long, value_delimiter = ',', value_name = "CLASS,…")]
    classes: Vec<Class>,
    /// At least so many of a class, such as digit=2; may be repeated.
    #[arg(long = "min", value_name = "CLASS=N", value_parser = minimum)]
    min: Vec<(Class, usize)>,
    /// The symbols to choose from.
    #[arg(long, value_name = "CHARS", allow_hyphen_values = true)]
    symbols: Option<String>,
    /// Characters that it must not have.
    #[arg(long, value_name = "CHARS", allow_hyphen_values = true)]
    exclude: Option<String>,
    /// Leave out what is easily taken for something else, such as O and 0.
    #[arg(long)]
    no_similar: bool,
    /// A TOML file with the policy.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    pub(super) to: Into,
}

/// A kind of character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Class {
    Lower,
    Upper,
    Digit,
    Symbol,
}

/// A policy as its file has it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    length: Option<usize>,
    classes: Option<Vec<Class>>,
    #[serde(default)]
    min: BTreeMap<Class, usize>,
    symbols: Option<String>,
    #[serde(default)]
    exclude: String,
    #[serde(default)]
    no_similar: bool,
}

/// A policy that can be kept: how long, and of which characters how many at least.
#[derive(Debug, PartialEq, Eq)]
struct Policy {
    length: usize,
    classes: Vec<Characters>,
}

#[derive(Debug, PartialEq, Eq)]
struct Characters {
    set: Vec<char>,
    min: usize,
}

impl Options {
    pub(super) fn make(&self) -> Result<Made, Failure> {
        let file = self.file()?;
        self.resolve(file)?.draw()
    }

    fn file(&self) -> Result<File, Failure> {
        let Some(path) = &self.policy else { return Ok(File::default()) };
        let text = std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("--policy: cannot read {}: {e}", path.display())))?;
        toml::from_str(&text).map_err(|e| Failure::usage(format!("--policy: {}: {e}", path.display())))
    }

    fn resolve(&self, file: File) -> Result<Policy, Failure> {
        let length = self.length.or(file.length).unwrap_or(24);
        let mut min = file.min;
        min.extend(self.min.iter().copied());
        let named = if self.classes.is_empty() { file.classes } else { Some(self.classes.clone()) };
        let classes = named.unwrap_or_else(|| vec![Class::Lower, Class::Upper, Class::Digit]);
        // What must be there may be there.
        let classes: BTreeSet<Class> = classes.into_iter().chain(min.iter().filter(|(_, n)| **n > 0).map(|(c, _)| *c)).collect();
        let symbols = self.symbols.clone().or(file.symbols).unwrap_or_else(|| SYMBOLS.to_owned());
        let mut exclude = self.exclude.clone().unwrap_or(file.exclude);
        if self.no_similar || file.no_similar {
            exclude.push_str(SIMILAR);
        }
        Policy::new(length, &classes, &min, &symbols, &exclude).map_err(|why| Failure::usage(format!("this policy cannot be kept: {why}")))
    }
}

impl Policy {
    fn new(length: usize, classes: &BTreeSet<Class>, min: &BTreeMap<Class, usize>, symbols: &str, exclude: &str) -> Result<Self, String> {
        if !(1..=LONGEST).contains(&length) {
            return Err(format!("a password has 1 to {LONGEST} characters, not {length}"));
        }
        let is_symbol = |c: char| c.is_ascii_punctuation();
        if let Some(odd) = symbols.chars().find(|c| !is_symbol(*c)) {
            return Err(format!("{odd:?} is no ASCII symbol"));
        }
        let characters = |class: Class| -> Result<Characters, String> {
            let all: BTreeSet<char> = match class {
                Class::Lower => ('a'..='z').collect(),
                Class::Upper => ('A'..='Z').collect(),
                Class::Digit => ('0'..='9').collect(),
                Class::Symbol => symbols.chars().collect(),
            };
            let set: Vec<char> = all.into_iter().filter(|c| !exclude.contains(*c)).collect();
            if set.is_empty() {
                Err(format!("nothing is left of {class:?}"))
            } else {
                Ok(Characters { set, min: min.get(&class).copied().unwrap_or(0) })
            }
        };
        let classes = classes.iter().map(|class| characters(*class)).collect::<Result<Vec<_>, _>>()?;
        let policy = Self { length, classes };
        let needed: usize = policy.classes.iter().map(|c| c.min).sum();
        if needed > length {
            return Err(format!("it asks for {needed} characters and allows {length}"));
        }
        match policy.share_kept() < RAREST {
            true => Err("fewer than one in a million would keep it; ask for less of single classes, or for more characters".to_owned()),
            false => Ok(policy),
        }
    }

    fn size(&self) -> usize {
        self.classes.iter().map(|c| c.set.len()).sum()
    }

    /// Which share of all passwords of this length and these characters keeps the minima.
    fn share_kept(&self) -> f64 {
        let logs = log_factorials(self.length);
        // share[n]: of n further characters that are of the classes seen so far, those that keep their minima.
        let mut share = vec![0.0; self.length + 1];
        share[0] = 1.0;
        let mut seen = 0.0;
        for Characters { set, min } in &self.classes {
            let size = set.len() as f64;
            let all = seen + size;
            let chance = |n: usize, k: usize| {
                let ways = logs[n] - logs[k] - logs[n - k];
                let power = |base: f64, times: usize| if times == 0 { 0.0 } else { base.ln() * times as f64 };
                (ways + power(size / all, k) + power(seen / all, n - k)).exp()
            };
            share = (0..=self.length).map(|n| (*min..=n).map(|k| chance(n, k) * share[n - k]).sum()).collect();
            seen = all;
        }
        share[self.length]
    }

    /// Bits that it takes to name one of the passwords that keep the policy.
    fn entropy(&self) -> f64 {
        ((self.size() as f64).log2() * self.length as f64 + self.share_kept().log2()).max(0.0)
    }

    fn keeps(&self, password: &str) -> bool {
        self.classes.iter().all(|c| password.chars().filter(|it| c.set.contains(it)).count() >= c.min)
    }

    fn draw(&self) -> Result<Made, Failure> {
        let alphabet: Vec<char> = self.classes.iter().flat_map(|c| c.set.iter().copied()).collect();
        let size = u32::try_from(alphabet.len()).map_err(|_| Failure::other("too many characters"))?;
        let mut random = Random::new();
        loop {
            let drawn: Zeroizing<String> = text_of(self.length, || Ok(alphabet[random.below(size)? as usize]))?;
            if self.keeps(&drawn) {
                return Ok(Made::text(drawn, self.entropy()));
            }
        }
    }
}

/// ln 0!, ln 1!, … ln n!.
fn log_factorials(n: usize) -> Vec<f64> {
    let mut sum = 0.0;
    std::iter::once(0.0)
        .chain((1..=n).map(|i| {
            sum += (i as f64).ln();
            sum
        }))
        .collect()
}

fn minimum(text: &str) -> Result<(Class, usize), String> {
    let bad = || format!("`{text}` is no minimum; write CLASS=N, such as digit=2");
    let (class, n) = text.split_once('=').ok_or_else(bad)?;
    Ok((Class::from_str(class, false).map_err(|_| bad())?, n.parse().map_err(|_| bad())?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn policy(length: usize, min: &[(Class, usize)], symbols: &str, exclude: &str) -> Result<Policy, String> {
        let classes = min.iter().map(|(c, _)| *c).collect();
        Policy::new(length, &classes, &min.iter().copied().collect(), symbols, exclude)
    }

    #[test]
    fn the_entropy_is_that_of_all_passwords_that_keep_the_policy() {
        let exclude = "cdefghijklmnopqrstuvwxyz3456789";
        let small = policy(6, &[(Class::Lower, 2), (Class::Digit, 1), (Class::Symbol, 1)], "!?", exclude).unwrap();
        let alphabet: Vec<char> = small.classes.iter().flat_map(|c| c.set.iter().copied()).collect();
        assert_eq!(alphabet.len(), 2 + 3 + 2);
        let mut kept = 0_u32;
        for number in 0..7_usize.pow(6) {
            let word: String = (0..6).map(|i| alphabet[number / 7_usize.pow(i) % 7]).collect();
            kept += u32::from(small.keeps(&word));
        }
        assert!((small.entropy() - f64::from(kept).log2()).abs() < 1e-9, "{} {kept}", small.entropy());
        let free = policy(1024, &[(Class::Lower, 0)], "", "").unwrap();
        assert!((free.entropy() - 1024.0 * 26_f64.log2()).abs() < 1e-6);
    }

    #[test]
    fn what_is_drawn_keeps_the_policy() {
        let wanted = policy(12, &[(Class::Lower, 3), (Class::Upper, 1), (Class::Digit, 3), (Class::Symbol, 2)], "!?", "O0Il1").unwrap();
        for _ in 0..50 {
            let made = wanted.draw().unwrap();
            let text = std::str::from_utf8(made.secret.expose()).unwrap();
            assert!(text.len() == 12 && wanted.keeps(text) && !text.contains(['O', '0', 'I', 'l', '1']), "{text}");
        }
    }

    #[test]
    fn passwords_are_drawn_as_often_as_each_other() {
        // Of {a, 0}^2 with at least one digit there are three: 00, 0a, a0.
        let exclude = "bcdefghijklmnopqrstuvwxyz123456789";
        let tiny = policy(2, &[(Class::Lower, 0), (Class::Digit, 1)], "", exclude).unwrap();
        let mut count = BTreeMap::<Vec<u8>, u32>::new();
        for _ in 0..3000 {
            *count.entry(tiny.draw().unwrap().secret.expose().to_vec()).or_default() += 1;
        }
        // 1000 each; seven standard deviations are 181.
        assert!(count.len() == 3 && count.values().all(|n| (800..=1200).contains(n)), "{count:?}");
    }

    #[test]
    fn a_policy_that_cannot_be_kept_is_refused() {
        for (length, min, symbols, exclude, why) in [
            (4, &[(Class::Digit, 5)][..], "", "", "asks for 5"),
            (0, &[(Class::Digit, 0)], "", "", "1 to 1024"),
            (4, &[(Class::Digit, 0)], "", "0123456789", "nothing is left of Digit"),
            (4, &[(Class::Symbol, 0)], "ä", "", "no ASCII symbol"),
            (60, &[(Class::Digit, 59), (Class::Lower, 0)], "", "", "one in a million"),
        ] {
            let error = policy(length, min, symbols, exclude).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(minimum("digit").is_err() && minimum("letters=1").is_err() && minimum("digit=-1").is_err());
    }
}
