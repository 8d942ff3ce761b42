//! `claviger generate passphrase`: words to be typed by people.
//!
//! Unless there is a list of words the words are proquints (D. S. Wilkerson, arXiv:0901.4016): five letters, consonant and vowel in
//! turn, 16 bits each. They need no dictionary, and can be read out over a telephone.

use super::{Into, Made};
use crate::failure::Failure;
use crate::random::Random;
use clap::Args;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
const VOWELS: &[u8; 4] = b"aiou";

/// Pronounceable words, for people who have to type it.
#[derive(Args)]
pub(crate) struct Options {
    /// How many words. A proquint has 16 bits; of a list of N words each has log2 N.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=128))]
    words: u32,
    /// What stands between them.
    #[arg(long, default_value = "-", allow_hyphen_values = true)]
    separator: String,
    /// A file with a word on each line to choose from, instead of pronounceable words. Words that stand twice count once.
    #[arg(long, value_name = "FILE")]
    wordlist: Option<PathBuf>,
    #[command(flatten)]
    pub(super) to: Into,
}

impl Options {
    pub(super) fn make(&self) -> Result<Made, Failure> {
        let list = self.wordlist.as_deref().map(read_list).transpose()?;
        let choices = list.as_ref().map_or(1 << 16, Vec::len);
        let n = u32::try_from(choices).map_err(|_| Failure::usage("--wordlist: it has too many words"))?;
        let mut random = Random::new();
        let longest = list.iter().flatten().map(String::len).max().unwrap_or(5);
        let mut phrase = Zeroizing::new(String::with_capacity((longest + self.separator.len()) * self.words as usize));
        for nth in 0..self.words {
            if nth > 0 {
                phrase.push_str(&self.separator);
            }
            let chosen = random.below(n)?;
            match &list {
                Some(list) => phrase.push_str(&list[chosen as usize]),
                None => proquint(chosen).for_each(|letter| phrase.push(letter)),
            }
        }
        Ok(Made::text(phrase, f64::from(n).log2() * f64::from(self.words)))
    }
}

/// The word of a number of 16 bits.
fn proquint(number: u32) -> impl Iterator<Item = char> {
    let consonant = move |shift: u32| char::from(CONSONANTS[(number >> shift & 15) as usize]);
    let vowel = move |shift: u32| char::from(VOWELS[(number >> shift & 3) as usize]);
    [consonant(12), vowel(10), consonant(6), vowel(4), consonant(0)].into_iter()
}

fn read_list(path: &Path) -> Result<Vec<String>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("--wordlist: cannot read {shown}: {e}")))?;
    let words: BTreeSet<&str> = text.lines().map(str::trim).filter(|word| !word.is_empty()).collect();
    match words.len() {
        0 | 1 => Err(Failure::usage(format!("--wordlist: {shown} has no two words to choose from"))),
        _ => Ok(words.into_iter().map(str::to_owned).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_proquints() {
        // The paper's examples: 127.0.0.1 is lusab-babad, 63.84.220.193 is gutih-tugad.
        let table = [(0x7f00, "lusab"), (0x0001, "babad"), (0x3f54, "gutih"), (0xdcc1, "tugad")];
        for (number, word) in table {
            assert_eq!(proquint(number).collect::<String>(), word);
        }
        let all: BTreeSet<String> = (0..1 << 16).map(|n| proquint(n).collect()).collect();
        assert_eq!(all.len(), 1 << 16);
    }
}
