//! Sessions of people: random tokens, known by their digests in this process's memory and nowhere else.
//!
//! # Guarantees
//! - A session counts until it expires, until its login is ended, or until the process ends ▲.
//! - Only digests are kept. Nothing shows a token.
//! - Memory is bounded: so many sessions in all and of one person, and no more.

use crate::login::random;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_domain::{Identity, Timestamp};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use thiserror::Error;
use zeroize::Zeroizing;

/// Each session's token begins so: it is never taken for anything else, or shown to anybody else.
const MARK: &str = "cvs_";
/// The token's length: the mark and 32 bytes in base64url.
const LENGTH: usize = MARK.len() + 43;
/// Sessions in all.
const MOST: usize = 100_000;
/// Sessions of one person.
const MOST_OF_ONE: usize = 200;

type Digest = [u8; 32];

/// One session.
#[derive(Debug)]
pub struct Session {
    /// Who.
    pub identity: Identity,
    /// `oidc:NAME`.
    pub method: &'static str,
    /// From then on it does not count.
    pub expires: Timestamp,
    /// The login that it came from.
    pub login: Box<str>,
    ended: AtomicBool,
}

/// Why no session is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SessionsFull {
    /// In all.
    #[error("the server has as many sessions as it can keep: try again in some minutes")]
    All,
    /// Of this person.
    #[error("you have 200 sessions open: log out of some, or wait until they expire")]
    OfOne,
    /// The login was ended meanwhile.
    #[error("the login was ended: log in again")]
    Ended,
}

/// All sessions.
#[derive(Default)]
pub struct Sessions(RwLock<Table>);

#[derive(Default)]
struct Table {
    open: HashMap<Digest, Arc<Session>>,
    /// Logins that were ended, and until when they could be renewed otherwise.
    ended: HashMap<Box<str>, Timestamp>,
}

impl Session {
    /// Whether it counts.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        now < self.expires && !self.ended.load(Ordering::Acquire)
    }

    /// Ends this one session, and not its login.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

impl Sessions {
    /// Whether this text is of a session token's form; then it is nothing else.
    #[must_use]
    pub fn is_token(text: &[u8]) -> bool {
        text.len() == LENGTH && text.starts_with(MARK.as_bytes())
    }

    /// Opens a session; the token is given out here and never again.
    ///
    /// # Errors
    /// [`SessionsFull`].
    pub fn open(
        &self,
        identity: Identity,
        method: &'static str,
        login: &str,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<(Zeroizing<String>, Arc<Session>), SessionsFull> {
        let mut table = self.0.write();
        table.sweep(now);
        if table.ended.contains_key(login) {
            return Err(SessionsFull::Ended);
        }
        let of_one = || table.open.values().filter(|s| s.identity.id() == identity.id()).count();
        if table.open.len() >= MOST {
            return Err(SessionsFull::All);
        }
        if table.open.len() >= MOST_OF_ONE && of_one() >= MOST_OF_ONE {
            return Err(SessionsFull::OfOne);
        }
        let token = Zeroizing::new(format!("{MARK}{}", URL_SAFE_NO_PAD.encode(random::<32>())));
        let session = Arc::new(Session { identity, method, expires, login: login.into(), ended: AtomicBool::new(false) });
        table.open.insert(digest_of(token.as_bytes()), session.clone());
        Ok((token, session))
    }

    /// The session of this token, if it counts.
    #[must_use]
    pub fn find(&self, token: &[u8], now: Timestamp) -> Option<Arc<Session>> {
        let digest = Self::is_token(token).then(|| digest_of(token))?;
        self.0.read().open.get(&digest).filter(|s| s.is_open(now)).cloned()
    }

    /// Ends a login: all its sessions now, and every renewal until `until`.
    pub fn end(&self, login: &str, until: Timestamp) {
        let mut table = self.0.write();
        table.open.retain(|_, session| {
            let is_its = &*session.login == login;
            if is_its {
                session.ended.store(true, Ordering::Release);
            }
            !is_its
        });
        table.ended.insert(login.into(), until);
    }

    /// Whether the login was ended.
    #[must_use]
    pub fn is_ended(&self, login: &str) -> bool {
        self.0.read().ended.contains_key(login)
    }
}

impl Table {
    /// Lets go what does not count any more. It is cheap beside a login's signature until there are tens of thousands.
    fn sweep(&mut self, now: Timestamp) {
        self.open.retain(|_, session| session.is_open(now));
        self.ended.retain(|_, until| *until >= now);
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sessions({} open)", self.0.read().open.len())
    }
}

fn digest_of(token: &[u8]) -> Digest {
    digest::digest(&digest::SHA256, token).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const T: Timestamp = Timestamp(1_800_000_000_000_000_000);

    fn open(sessions: &Sessions, name: &str, login: &str) -> Result<Zeroizing<String>, SessionsFull> {
        let identity = Identity::User { name: name.into(), groups: Arc::from([]) };
        sessions.open(identity, "oidc:corp", login, T.plus_seconds(900), T).map(|(token, _)| token)
    }

    #[test]
    fn a_session_counts_until_it_expires_and_nothing_near_its_token_does() {
        let sessions = Sessions::default();
        let token = open(&sessions, "alice", "1").unwrap();
        assert!(Sessions::is_token(token.as_bytes()));
        assert_eq!(sessions.find(token.as_bytes(), T).unwrap().identity.id(), "alice");
        assert!(sessions.find(token.as_bytes(), T.plus_seconds(899)).is_some());
        assert!(sessions.find(token.as_bytes(), T.plus_seconds(900)).is_none());
        for wrong in [&token[1..], &token[..46], &format!("{}A", &token[..46]), "", "cvs_"] {
            assert!(wrong == &**token || sessions.find(wrong.as_bytes(), T).is_none(), "{wrong}");
        }
        assert_eq!(format!("{sessions:?}"), "Sessions(1 open)");
    }

    #[test]
    fn ending_a_login_ends_its_sessions_and_their_renewal_and_no_others() {
        let sessions = Sessions::default();
        let (first, renewed, other) = (open(&sessions, "a", "1"), open(&sessions, "a", "1"), open(&sessions, "a", "2"));
        let kept = sessions.find(first.as_ref().unwrap().as_bytes(), T).unwrap();
        sessions.end("1", T.plus_seconds(3600));
        assert!(!kept.is_open(T), "also for who holds it already");
        for token in [first, renewed] {
            assert!(sessions.find(token.unwrap().as_bytes(), T).is_none());
        }
        assert!(sessions.find(other.unwrap().as_bytes(), T).is_some());
        assert_eq!(open(&sessions, "a", "1").unwrap_err(), SessionsFull::Ended);
        assert!(sessions.is_ended("1") && !sessions.is_ended("2"));
    }

    #[test]
    fn one_person_can_open_only_so_many() {
        let sessions = Sessions::default();
        for n in 0..MOST_OF_ONE {
            open(&sessions, "alice", &n.to_string()).unwrap();
        }
        assert_eq!(open(&sessions, "alice", "x").unwrap_err(), SessionsFull::OfOne);
        open(&sessions, "bob", "x").unwrap();
    }
}
