//! What makes a login happen once: nonces that this server gave out, tokens that were shown, and tickets by which a login
//! is renewed.
//!
//! # Guarantees
//! - A nonce is accepted once, within ten minutes, and only by the process that gave it out: its key is in that process's
//!   memory alone. So an ID token that was used here, or that is meant for another server of the same client, logs nobody in.
//! - A token is accepted once. One without a nonce of ours must also have been issued after this process began, since what an
//!   earlier one accepted is not known.
//! - A ticket names issuer, subject and time of a login. Its key comes from the store's barrier, so that a restart ends every
//!   session and no login.

use crate::oidc::{FRESH, digest16, seconds};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_domain::{SecretBytes, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;
use thiserror::Error;

/// Seconds that a person has for a login.
pub const LOGIN_TIME: Duration = Duration::from_secs(600);
/// Nonces and tokens that are remembered at most. Beyond that logins are refused: forgetting would let one in twice.
const MOST_REMEMBERED: usize = 200_000;
/// In front of what is authenticated as a nonce or ticket, so that neither can stand for the other or anything else.
const NONCE: &[u8] = b"claviger login nonce 1\0";
const TICKET: &[u8] = b"claviger login ticket 1\0";

/// Why a login is not the first, or not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OnceError {
    /// The nonce was not given out by this process, or too long ago.
    #[error("the token's nonce was not given out by this server lately: begin the login again")]
    Nonce,
    /// It was shown before.
    #[error("the token was used before: begin the login again")]
    Replayed,
    /// It was issued before the server started.
    #[error("the token was issued before this server started: get a new one")]
    BeforeStart,
    /// Too many logins of the last minutes are remembered.
    #[error("too many logins at once: try again in a few minutes")]
    Full,
    /// The ticket is not of this store, or malformed.
    #[error("the login that is to be renewed is not one of this server's: log in again")]
    Ticket,
}

/// The login that a ticket stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// The issuer, as the configuration calls it, and its identifier.
    pub issuer: (String, String),
    /// Whom it means.
    pub subject: String,
    /// When he logged in: nanoseconds since 1970.
    pub at: i64,
    /// The login, as ended ones are remembered.
    pub login: String,
    /// Digest of the login's nonce; zeros when it had none.
    pub nonce: [u8; 16],
}

/// Gives out nonces, and remembers what was used.
pub struct Logins {
    key: hmac::Key,
    tickets: hmac::Key,
    started: Timestamp,
    /// What was used, and until when it must be known.
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    until: HashMap<[u8; 16], Timestamp>,
    swept: Option<Timestamp>,
}

impl Logins {
    /// Nothing used yet. `seed` is the barrier's for tickets.
    #[must_use]
    pub fn new(seed: &SecretBytes, now: Timestamp) -> Self {
        let tickets = hmac::Key::new(hmac::HMAC_SHA256, seed.expose());
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()), tickets, started: now, used: Mutex::default() }
    }

    /// A nonce for one login that begins now.
    #[must_use]
    pub fn nonce(&self, now: Timestamp) -> String {
        let bare = [&now.0.to_be_bytes()[..], &random::<16>()].concat();
        URL_SAFE_NO_PAD.encode([&bare[..], &tag(&self.key, NONCE, &bare)].concat())
    }

    /// Uses up a login's token, which is known again by what is `signed` of it, with its nonce. `issued` is its `iat`.
    ///
    /// # Errors
    /// [`OnceError`]; nothing is used up then.
    pub fn spend(&self, signed: &[u8], nonce: Option<&str>, issued: Timestamp, now: Timestamp) -> Result<(), OnceError> {
        let mut marks = vec![digest16(signed)];
        let until = match nonce {
            Some(nonce) => {
                let given_out = self.opened(nonce, now).ok_or(OnceError::Nonce)?;
                marks.push(digest16(nonce.as_bytes()));
                given_out.plus_seconds(seconds(LOGIN_TIME) + 1)
            }
            None => self.began_after(issued)?,
        };
        self.remember(&marks, until.max(kept_for(issued)), now)
    }

    /// Uses up the token of a renewal, by what is `signed` of it.
    ///
    /// # Errors
    /// As [`Logins::spend`].
    pub fn spend_renewal(&self, signed: &[u8], issued: Timestamp, now: Timestamp) -> Result<(), OnceError> {
        let until = self.began_after(issued)?;
        self.remember(&[digest16(signed)], until, now)
    }

    /// Seals a ticket.
    #[must_use]
    pub fn seal(&self, ticket: &Ticket) -> String {
        let bare = serde_json::to_vec(ticket).expect("a ticket is a map of texts and numbers");
        format!("{}.{}", URL_SAFE_NO_PAD.encode(&bare), URL_SAFE_NO_PAD.encode(tag(&self.tickets, TICKET, &bare)))
    }

    /// The login that a ticket stands for.
    ///
    /// # Errors
    /// [`OnceError::Ticket`]: it is not one of this store's.
    pub fn open(&self, ticket: &str) -> Result<Ticket, OnceError> {
        let (bare, mac) = ticket.split_once('.').ok_or(OnceError::Ticket)?;
        let decode = |text| URL_SAFE_NO_PAD.decode(text).map_err(|_| OnceError::Ticket);
        let (bare, mac) = (decode(bare)?, decode(mac)?);
        verify(&self.tickets, TICKET, &bare, &mac).ok_or(OnceError::Ticket)?;
        serde_json::from_slice(&bare).map_err(|_| OnceError::Ticket)
    }

    /// When this process gave out the nonce, if it did, and not too long ago.
    fn opened(&self, nonce: &str, now: Timestamp) -> Option<Timestamp> {
        let bytes = URL_SAFE_NO_PAD.decode(nonce).ok().filter(|b| b.len() == 8 + 16 + 16)?;
        let (bare, mac) = bytes.split_at(24);
        verify(&self.key, NONCE, bare, mac)?;
        let at = Timestamp(i64::from_be_bytes(bare[..8].try_into().ok()?));
        (at <= now && now <= at.plus_seconds(seconds(LOGIN_TIME))).then_some(at)
    }

    /// A token without our nonce must be younger than this process. Its time is in whole seconds.
    fn began_after(&self, issued: Timestamp) -> Result<Timestamp, OnceError> {
        const SECOND: i64 = 1_000_000_000;
        let began = self.started.0 - self.started.0.rem_euclid(SECOND);
        if issued.0 < began { Err(OnceError::BeforeStart) } else { Ok(kept_for(issued)) }
    }

    fn remember(&self, marks: &[[u8; 16]], until: Timestamp, now: Timestamp) -> Result<(), OnceError> {
        let mut used = self.used.lock();
        let is_time = used.swept.is_none_or(|at| now > at.plus_seconds(60) || now < at);
        if is_time || used.until.len() >= MOST_REMEMBERED {
            used.until.retain(|_, until| *until >= now);
            used.swept = Some(now);
        }
        if marks.iter().any(|mark| used.until.contains_key(mark)) {
            return Err(OnceError::Replayed);
        }
        if used.until.len() >= MOST_REMEMBERED {
            return Err(OnceError::Full);
        }
        used.until.extend(marks.iter().map(|mark| (*mark, until)));
        Ok(())
    }
}

/// The digest of a login's nonce, for its ticket.
#[must_use]
pub fn nonce_digest(nonce: Option<&str>) -> [u8; 16] {
    nonce.map_or([0; 16], |n| digest16(n.as_bytes()))
}

/// As long as a token that was issued then could still be fresh, with the largest skew there may be.
fn kept_for(issued: Timestamp) -> Timestamp {
    issued.plus_seconds(seconds(FRESH) + seconds(crate::MAX_SKEW) + 1)
}

fn tag(key: &hmac::Key, purpose: &[u8], bare: &[u8]) -> [u8; 16] {
    // The purpose is fixed and ends with a zero byte, so that the two cannot run into each other.
    let tag = hmac::sign(key, &[purpose, bare].concat());
    tag.as_ref()[..16].try_into().expect("HMAC-SHA-256 has 32 bytes")
}

fn verify(key: &hmac::Key, purpose: &[u8], bare: &[u8], mac: &[u8]) -> Option<()> {
    aws_lc_rs::constant_time::verify_slices_are_equal(&tag(key, purpose, bare), mac).ok()
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const T: Timestamp = Timestamp(1_800_000_000_500_000_000);
    const SECOND: Timestamp = Timestamp(1_800_000_000_000_000_000);

    fn logins(seed: u8) -> Logins {
        Logins::new(&SecretBytes::new(vec![seed; 32]), T)
    }

    fn ticket() -> Ticket {
        let issuer = ("corp".to_owned(), "https://idp".to_owned());
        Ticket { issuer, subject: "s".into(), at: T.0, login: "1f".into(), nonce: nonce_digest(Some("n")) }
    }

    #[test]
    fn a_nonce_logs_in_once_and_for_ten_minutes_and_at_the_server_that_gave_it_out() {
        let (here, there) = (logins(1), logins(1));
        let nonce = here.nonce(T);
        assert_eq!(there.spend(b"token", Some(&nonce), SECOND, T), Err(OnceError::Nonce));
        assert_eq!(here.spend(b"token", Some("made-up"), SECOND, T), Err(OnceError::Nonce));
        assert_eq!(here.spend(b"token", Some(&nonce), SECOND, T.plus_seconds(601)), Err(OnceError::Nonce));
        assert_eq!(here.spend(b"token", Some(&nonce), SECOND, T.plus_seconds(-1)), Err(OnceError::Nonce), "from the future");
        assert_eq!(here.spend(b"token", Some(&nonce), SECOND, T.plus_seconds(600)), Ok(()));
        assert_eq!(here.spend(b"another", Some(&nonce), SECOND, T.plus_seconds(600)), Err(OnceError::Replayed));
        let other = here.nonce(T);
        assert_eq!(here.spend(b"token", Some(&other), SECOND, T), Err(OnceError::Replayed), "the same token");
        for place in 0..nonce.len() {
            let mut changed = other.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(here.spend(b"third", Some(&changed), SECOND, T), Err(OnceError::Nonce), "{place}");
        }
    }

    #[test]
    fn a_token_without_a_nonce_counts_once_and_only_if_this_process_was_there_when_it_was_issued() {
        let here = logins(1);
        assert_eq!(here.spend(b"a", None, SECOND, T), Ok(()));
        assert_eq!(here.spend(b"a", None, SECOND, T), Err(OnceError::Replayed));
        assert_eq!(here.spend_renewal(b"a", SECOND, T), Err(OnceError::Replayed));
        assert_eq!(here.spend(b"b", None, SECOND.plus_seconds(-1), T), Err(OnceError::BeforeStart));
        assert_eq!(here.spend_renewal(b"b", SECOND.plus_seconds(-1), T), Err(OnceError::BeforeStart));
        assert_eq!(here.spend_renewal(b"b", SECOND, T), Ok(()));
    }

    #[test]
    fn what_was_used_is_forgotten_only_when_it_could_not_be_used_again() {
        let here = logins(1);
        here.spend(b"a", None, SECOND, T).unwrap();
        let last = T.plus_seconds(seconds(FRESH) + seconds(crate::MAX_SKEW));
        here.spend(b"b", None, last, last).unwrap();
        assert_eq!(here.spend(b"a", None, SECOND, last), Err(OnceError::Replayed));
        let later = last.plus_seconds(3600);
        here.spend(b"c", None, later, later).unwrap();
        assert_eq!(here.used.lock().until.len(), 1);
    }

    #[test]
    fn tickets_outlive_the_process_and_open_for_no_other_store() {
        let sealed = logins(1).seal(&ticket());
        assert_eq!(logins(1).open(&sealed), Ok(ticket()));
        assert_eq!(logins(2).open(&sealed), Err(OnceError::Ticket));
        let forged = logins(2).seal(&Ticket { subject: "t".into(), ..ticket() });
        let spliced = format!("{}.{}", forged.split_once('.').unwrap().0, sealed.split_once('.').unwrap().1);
        for bad in ["", ".", "a.b", &spliced, &sealed[1..], &format!("{sealed}.x"), &sealed.replace('.', "")] {
            assert_eq!(logins(1).open(bad), Err(OnceError::Ticket), "{bad}");
        }
    }
}
