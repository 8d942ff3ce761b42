//! The registration list `.registered`, and when a key counts as unregistered. No file is touched here.
//!
//! The list is replaced in place by every program that changes it, and any of them may be stopped or killed in the middle, or
//! not take the lock. So what is *missing* in one look proves nothing, while what is there counts at once.

use claviger_domain::KeyId;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// How long a key must be missing, in looks under the lock, before its cached copy goes. A writer without the lock needs
/// microseconds from emptying the file to filling it.
pub const SETTLE: Duration = Duration::from_secs(2);

/// What the list says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// The registered keys, each once, in the order of the file.
    pub ids: Vec<KeyId>,
    /// Words that are no id of Knox's: nothing is fetched for them, and a rewrite keeps them.
    pub unusable: Vec<String>,
    /// Why what is missing here may be missing by accident.
    pub doubt: Option<Doubt>,
    /// The last word when nothing ends it: it may have been cut.
    unfinished: Option<String>,
}

/// Why a list is not taken to unregister anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The file has no byte: a writer may have been killed after emptying it.
    Emptied,
    /// It has bytes that no writer of a list writes.
    Garbled,
    /// Its last word is the beginning of a key's id that is missing.
    CutOff,
}

impl Doubt {
    /// In a sentence, with the remedy.
    #[must_use]
    pub const fn said(self) -> &'static str {
        match self {
            Self::Emptied => {
                "the registration file is empty, as after a writer that was killed: cached keys stay until it lists keys again, or has one line break to say that none is wanted"
            }
            Self::Garbled => "the registration file has bytes that belong to no key id: cached keys stay until it is written anew",
            Self::CutOff => "the registration file ends in the middle of a key id: cached keys stay until it is written anew",
        }
    }
}

impl Listed {
    /// Reads a list: ids separated by white space.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut listed = Self::default();
        let mut seen = HashSet::new();
        let garbled = bytes.iter().any(|b| !b.is_ascii_graphic() && !b.is_ascii_whitespace());
        let text = String::from_utf8_lossy(bytes);
        for word in text.split_ascii_whitespace() {
            if !seen.insert(word) {
                continue;
            }
            match KeyId::parse(word) {
                Ok(id) if id.is_knox() => listed.ids.push(id),
                _ => listed.unusable.push(word.to_owned()),
            }
        }
        let is_ended = bytes.last().is_none_or(u8::is_ascii_whitespace);
        listed.unfinished = text.split_ascii_whitespace().next_back().filter(|_| !is_ended).map(str::to_owned);
        listed.doubt = match () {
            () if bytes.is_empty() => Some(Doubt::Emptied),
            () if garbled => Some(Doubt::Garbled),
            () => None,
        };
        listed
    }

    /// The list as a file: one id on each line. A list of nothing is one line break, which every reader takes for an empty list
    /// and nobody for an accident.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let words = self.ids.iter().map(KeyId::as_str).chain(self.unusable.iter().map(String::as_str));
        let mut out: Vec<u8> = words.flat_map(|word| word.bytes().chain([b'\n'])).collect();
        if out.is_empty() {
            out.push(b'\n');
        }
        out
    }

    /// Adds a key; whether it was missing.
    pub fn add(&mut self, id: &KeyId) -> bool {
        let is_new = !self.ids.contains(id);
        if is_new {
            self.ids.push(id.clone());
        }
        is_new
    }

    /// Takes a key off; whether it was there.
    pub fn remove(&mut self, id: &KeyId) -> bool {
        let before = self.ids.len();
        self.ids.retain(|listed| listed != id);
        self.ids.len() < before
    }
}

/// Decides which cached keys are unregistered.
///
/// # Guarantees
/// A key is unregistered only when two looks, [`SETTLE`] apart and with no look between that showed it, both lack it and
/// neither is in [`Doubt`].
#[derive(Debug, Default)]
pub struct Unregistering {
    missing_since: BTreeMap<KeyId, Duration>,
}

/// What one look at the list leads to.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Keys that are unregistered.
    pub unregistered: Vec<KeyId>,
    /// When to look again though nothing happens, on the same clock.
    pub look_again: Option<Duration>,
    /// Why nothing is unregistered.
    pub doubt: Option<Doubt>,
}

impl Unregistering {
    /// Takes one look, made under the lock at `now` of a clock that never goes back; `cached` are the keys that the folder has.
    pub fn look(&mut self, listed: &Listed, cached: &[KeyId], now: Duration) -> Verdict {
        let is_listed: HashSet<&KeyId> = listed.ids.iter().collect();
        let missing: Vec<&KeyId> = cached.iter().filter(|id| !is_listed.contains(id)).collect();
        let cut = |word: &String| missing.iter().any(|id| id.as_str().len() > word.len() && id.as_str().starts_with(word.as_str()));
        let cut_off = listed.unfinished.as_ref().is_some_and(cut).then_some(Doubt::CutOff);
        if let Some(doubt) = listed.doubt.or(cut_off) {
            self.missing_since.clear();
            let nothing_at_stake = missing.is_empty();
            return Verdict { doubt: Some(doubt).filter(|_| !nothing_at_stake), ..Verdict::default() };
        }
        self.missing_since.retain(|id, _| missing.contains(&id));
        for id in missing {
            self.missing_since.entry(id.clone()).or_insert(now);
        }
        let is_due = |since: &Duration| now >= *since + SETTLE;
        let unregistered: Vec<KeyId> = self.missing_since.iter().filter(|(_, since)| is_due(since)).map(|(id, _)| id.clone()).collect();
        self.missing_since.retain(|_, since| !is_due(since));
        let look_again = self.missing_since.values().min().map(|since| *since + SETTLE);
        Verdict { unregistered, look_again, doubt: None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(text: &str) -> KeyId {
        KeyId::parse(text).unwrap()
    }

    fn ids(texts: &[&str]) -> Vec<KeyId> {
        texts.iter().copied().map(id).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn ids_are_separated_by_any_white_space_and_count_once() {
        let listed = Listed::parse(b"b a\n\ta\r\nteam/db  c:d\n");
        assert_eq!(listed.ids, ids(&["b", "a", "c:d"]));
        assert_eq!(listed.unusable, ["team/db"]);
        assert_eq!(listed.to_bytes(), b"b\na\nc:d\nteam/db\n");
        assert_eq!(Listed::parse(&Listed::default().to_bytes()).doubt, None);
    }

    #[test]
    fn a_key_is_unregistered_by_the_second_look() {
        let mut rule = Unregistering::default();
        let (listed, cached) = (Listed::parse(b"a\n"), ids(&["a", "b"]));
        let first = rule.look(&listed, &cached, at(10));
        assert_eq!((first.unregistered, first.look_again), (vec![], Some(at(12))));
        let early = rule.look(&listed, &cached, at(11));
        assert_eq!((early.unregistered, early.look_again), (vec![], Some(at(12))));
        assert_eq!(rule.look(&listed, &cached, at(12)).unregistered, ids(&["b"]));
    }

    #[test]
    fn a_key_that_shows_again_starts_anew() {
        let mut rule = Unregistering::default();
        let cached = ids(&["a", "b"]);
        rule.look(&Listed::parse(b"a\n"), &cached, at(0));
        rule.look(&Listed::parse(b"a\nb\n"), &cached, at(1));
        assert_eq!(rule.look(&Listed::parse(b"a\n"), &cached, at(5)).unregistered, vec![]);
    }

    #[test]
    fn an_emptied_garbled_or_cut_file_unregisters_nothing_however_long_it_lasts() {
        let cached = ids(&["alpha", "beta"]);
        for (file, doubt) in
            [(&b""[..], Doubt::Emptied), (b"alpha\n\0\0\0\0", Doubt::Garbled), (b"alpha\nbe", Doubt::CutOff), (b"al", Doubt::CutOff)]
        {
            let mut rule = Unregistering::default();
            for second in [0, 10, 100_000] {
                let verdict = rule.look(&Listed::parse(file), &cached, at(second));
                assert_eq!((verdict.unregistered, verdict.doubt), (vec![], Some(doubt)), "{file:?}");
            }
        }
        let verdict = Unregistering::default().look(&Listed::parse(b""), &[], at(0));
        assert_eq!(verdict, Verdict::default(), "nothing is at stake");
    }

    #[test]
    fn a_doubt_between_two_looks_starts_anew() {
        let mut rule = Unregistering::default();
        let cached = ids(&["a", "b"]);
        rule.look(&Listed::parse(b"a\n"), &cached, at(0));
        rule.look(&Listed::parse(b""), &cached, at(1));
        assert_eq!(rule.look(&Listed::parse(b"a\n"), &cached, at(9)).unregistered, vec![]);
    }

    #[test]
    fn an_empty_list_that_is_meant_unregisters_all() {
        let mut rule = Unregistering::default();
        let cached = ids(&["a", "b"]);
        rule.look(&Listed::parse(b"\n"), &cached, at(0));
        assert_eq!(rule.look(&Listed::parse(b"\n"), &cached, at(2)).unregistered, cached);
    }

    #[test]
    fn a_last_word_without_a_line_break_is_taken_when_no_key_would_fit_it() {
        let mut rule = Unregistering::default();
        let cached = ids(&["a", "b"]);
        rule.look(&Listed::parse(b"a"), &cached, at(0));
        assert_eq!(rule.look(&Listed::parse(b"a"), &cached, at(2)).unregistered, ids(&["b"]));
    }
}
