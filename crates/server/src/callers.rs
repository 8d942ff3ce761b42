//! From a connection and a credential to a [`Caller`]: the methods in force, what each connection has proven, and the
//! limit on failures.
//!
//! # Guarantees
//! - A certificate is verified once per connection, and again when the roots change or something in its path expires ▲.
//! - Only what could be guessed, a token, is not looked at after too many failures from an address. Who shows nothing, or
//!   a certificate, neither is kept out by others' failures nor keeps others out; beyond the limit his failures are only
//!   not told apart and not written down.

use crate::http::Connection;
use crate::people::github::{Github, LookedUp};
use claviger_authn::{
    Attempt, Authenticator, BreakGlass, CertificateProof, Credential, DenialLimits, Denials, Evidence, KnoxProviders, MachineNames,
    Rejection, Session, Sessions, SpiffeRules, TokenTable, Verdict, Verifiers, github, prove,
};
use claviger_domain::{Caller, Clock, Identity, Proven, RequestId, SystemClock, Timestamp};
use parking_lot::RwLock;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Refusals that a proven identity may have in a row. Far more than addresses have failures: a daemon that polls keys it
/// has lost the right to is refused as a matter of course.
const REFUSALS: NonZeroU32 = NonZeroU32::new(300).expect("300 is not zero");
/// After this time one refusal is forgotten.
const REFUSAL_FORGIVEN: Duration = Duration::from_millis(50);
/// Longest time that the answer to one of more is held back.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Longest time that an answer with many of them is.
const LONGEST_PAUSE_FOR_MANY: Duration = Duration::from_secs(5);

/// Logins that an address may begin in a row: a whole office may be behind it.
const LOGINS: NonZeroU32 = NonZeroU32::new(200).expect("200 is not zero");
/// After this time one of them is forgotten.
const LOGIN_FORGIVEN: Duration = Duration::from_millis(100);

/// Why nobody was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthFailure {
    /// No method accepted what was presented; the text may be answered.
    Unauthenticated(String),
    /// Too many failures from there.
    RateLimited {
        /// When to try again.
        retry_after_seconds: u64,
    },
}

impl fmt::Display for AuthFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthenticated(why) => f.write_str(why),
            Self::RateLimited { .. } => f.write_str("too many failures from there"),
        }
    }
}

/// The methods of proof in force.
struct Methods {
    verifiers: Verifiers,
    names: MachineNames,
    tokens: Option<Arc<TokenTable>>,
    knox: KnoxProviders,
}

/// Turns credentials into callers. Shared by all surfaces.
pub struct Callers {
    methods: RwLock<Arc<Methods>>,
    /// Wrong tokens, by address.
    guesses: Denials,
    /// Other requests without a proof, by address.
    unproven: Denials,
    /// Refusals of proven identities, wherever they come from.
    refusals: Denials,
    /// Logins that were begun or failed, by address.
    logins: Denials,
    sessions: Arc<Sessions>,
    github: Option<Arc<Github>>,
    clock: Arc<dyn Clock>,
    /// Wakes streams when other methods are in force.
    replaced: Notify,
    /// Request ids are this random half and a count: unique among servers and restarts.
    instance: u64,
    requests: AtomicU64,
}

/// What a connection has proven, kept for its next request.
struct Known {
    methods: Arc<Methods>,
    proof: CertificateProof,
    knox: Option<Accepted>,
    native: Option<Accepted>,
}

/// For how long a caller is proven without another look: by the same methods, until something in the certificate's path ends.
pub struct Standing {
    methods: Arc<Methods>,
    examined: Timestamp,
    good_until: Timestamp,
    basis: Basis,
}

/// What a caller's proof rests on besides the methods and the connection's certificate.
#[derive(Clone, Default)]
enum Basis {
    /// Nothing.
    #[default]
    Itself,
    /// A session, which may be ended.
    Session(Arc<Session>),
    /// What somebody else said, until then.
    Until(Timestamp),
}

impl Basis {
    fn stands(&self, now: Timestamp) -> bool {
        match self {
            Self::Itself => true,
            Self::Session(session) => session.is_open(now),
            Self::Until(until) => now < *until,
        }
    }

    /// The last moment at which it can stand.
    fn good_until(&self) -> Timestamp {
        match self {
            Self::Itself => Timestamp(i64::MAX),
            Self::Session(session) => Timestamp(session.expires.0.saturating_sub(1)),
            Self::Until(until) => Timestamp(until.0.saturating_sub(1)),
        }
    }
}

impl Standing {
    /// The time until it must be looked at again, if no roots change before.
    pub fn left(&self, now: Timestamp) -> Duration {
        let nanos = self.good_until.0.saturating_sub(now.0).saturating_add(1);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

/// A credential that was accepted on this connection, and whom it proved.
#[derive(Clone)]
struct Accepted {
    header: Option<Box<[u8]>>,
    proven: Arc<[Proven]>,
    basis: Basis,
    /// Everyone whom the connection's certificate proves as well.
    also: Arc<[Identity]>,
}

impl Known {
    fn accepted(&self, rules: Rules) -> Option<&Accepted> {
        match rules {
            Rules::Knox => self.knox.as_ref(),
            Rules::Native => self.native.as_ref(),
        }
    }
}

impl Accepted {
    fn clone_without_header(&self) -> Self {
        Self { header: None, proven: self.proven.clone(), basis: self.basis.clone(), also: self.also.clone() }
    }

    fn fits(&self, header: Option<&[u8]>) -> bool {
        self.header.as_deref() == header
    }

    fn caller(self, connection: &Connection, id: RequestId) -> Result<Caller, Rejection> {
        let caller = Caller::new(self.proven, id, Some(connection.peer.ip())).ok_or(Rejection::NoProvider)?;
        Ok(caller.with_other_names(self.also))
    }
}

/// What a proof starts from.
struct Ground {
    methods: Arc<Methods>,
    known: Option<Arc<Known>>,
    /// Whether this very credential was accepted on this connection, by methods that are no longer in force.
    stood_before: bool,
}

/// Which surface's rules a credential follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    Knox,
    Native,
}

impl Rules {
    /// The token in a header.
    fn token(self, header: Option<&[u8]>) -> Option<&[u8]> {
        match self {
            Self::Knox => header.and_then(Credential::parse).filter(|c| c.version == b'0' && c.kind == b'u').map(|c| c.payload),
            Self::Native => header?.strip_prefix(b"Bearer "),
        }
    }

    /// Whether a header holds something that who tries often enough could hit upon. A name is nothing of the kind: the
    /// certificate proves it; nor is a session's token, which is random and long.
    fn is_guessable(self, header: Option<&[u8]>) -> bool {
        self.token(header).is_some_and(|token| !Sessions::is_token(token))
    }
}

impl Methods {
    fn new(verifiers: Verifiers, names: MachineNames, tokens: Option<Arc<TokenTable>>) -> Arc<Self> {
        let knox = KnoxProviders::standard(&verifiers, names, tokens.clone(), SpiffeRules::KnoxLenient);
        Arc::new(Self { verifiers, names, tokens, knox })
    }

    fn prove_knox(&self, header: Option<&[u8]>, proof: &CertificateProof) -> Result<Arc<[Proven]>, Rejection> {
        self.knox.authenticate(header.and_then(Credential::parse), proof)
    }

    /// `Bearer TOKEN`, `Machine NAME`, or a client certificate alone.
    fn prove_native(&self, header: Option<&[u8]>, proof: &CertificateProof) -> Result<Arc<[Proven]>, Rejection> {
        let token = header.and_then(|h| h.strip_prefix(b"Bearer "));
        let claimed_name = header.and_then(|h| h.strip_prefix(b"Machine "));
        let understood = header.is_none() || token.is_some() || claimed_name.is_some();
        if !understood {
            return Err(Rejection::NoProvider);
        }
        let attempt = Attempt { certificate: proof, claimed_name, token };
        let mut methods: Vec<&dyn Authenticator> = Vec::with_capacity(4);
        if let Some(tokens) = self.tokens.as_deref().filter(|_| token.is_some()) {
            methods.push(tokens);
        } else if token.is_none() {
            methods.push(&BreakGlass);
            methods.push(&SpiffeRules::Strict);
            if self.verifiers.machines.is_some() {
                methods.push(&self.names);
            }
        }
        match prove(&methods, &attempt) {
            Verdict::Verified(proven) => self.with_its_claim(proven, &attempt),
            Verdict::Rejected(why) => Err(why),
            Verdict::NotPresented => Err(Rejection::NoProvider),
        }
    }

    /// A name that is claimed must be proven. Were it only left out, who has two identities could hide one behind a wrong
    /// name, and grant to that one what he may not grant to himself.
    fn with_its_claim(&self, proven: Arc<[Proven]>, attempt: &Attempt<'_>) -> Result<Arc<[Proven]>, Rejection> {
        let is_claim_proven = attempt.claimed_name.is_none() || proven.iter().any(|p| p.method == self.names.method());
        match is_claim_proven {
            true => Ok(proven),
            false => match self.names.authenticate(attempt) {
                Verdict::Rejected(why) => Err(why),
                Verdict::Verified(_) | Verdict::NotPresented => Ok(proven),
            },
        }
    }
}

impl Callers {
    /// Callers by these verifiers, machine names and tokens.
    pub fn new(
        verifiers: Verifiers,
        names: MachineNames,
        tokens: Option<Arc<TokenTable>>,
        limits: DenialLimits,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            methods: RwLock::new(Methods::new(verifiers, names, tokens)),
            guesses: Denials::new(limits),
            unproven: Denials::new(limits),
            refusals: Denials::new(DenialLimits { burst: REFUSALS.max(limits.burst), forgive_one_after: REFUSAL_FORGIVEN, ..limits }),
            logins: Denials::new(DenialLimits { burst: LOGINS.max(limits.burst), forgive_one_after: LOGIN_FORGIVEN, ..limits }),
            sessions: Arc::default(),
            github: None,
            clock,
            replaced: Notify::new(),
            instance: u64::from_be_bytes(claviger_crypto::random()),
            requests: AtomicU64::new(0),
        }
    }

    /// With people's sessions, and the service that knows the tokens of Knox's `0u`.
    #[must_use]
    pub(crate) fn with_people(self, sessions: Arc<Sessions>, github: Option<Arc<Github>>) -> Self {
        Self { sessions, github, ..self }
    }

    /// Callers by tokens alone.
    pub fn with_tokens(tokens: TokenTable) -> Self {
        Self::with_tokens_at(tokens, Arc::new(SystemClock))
    }

    /// The same by another clock.
    pub(crate) fn with_tokens_at(tokens: TokenTable, clock: Arc<dyn Clock>) -> Self {
        let verifiers = Verifiers { machines: None, services: None, break_glass: None, generation: 0 };
        Self::new(verifiers, MachineNames::default(), Some(Arc::new(tokens)), DenialLimits::default(), clock)
    }

    /// Puts new roots in force. What connections have proven by the old ones no longer counts.
    pub fn replace_verifiers(&self, verifiers: Verifiers) {
        let mut methods = self.methods.write();
        *methods = Methods::new(verifiers, methods.names, methods.tokens.clone());
        drop(methods);
        self.replaced.notify_waiters();
    }

    /// Wakes streams after sessions were ended, so that they look at theirs.
    pub(crate) fn sessions_ended(&self) {
        self.replaced.notify_waiters();
    }

    /// The session of a native request's credential, where it is one.
    pub(crate) fn session(&self, authorization: Option<&[u8]>) -> Option<Arc<Session>> {
        self.sessions.find(Rules::Native.token(authorization)?, self.clock.now())
    }

    /// Waits for other roots, and for ended sessions; also for those that come between this call and the first poll.
    pub fn roots_changed(&self) -> Notified<'_> {
        self.replaced.notified()
    }

    /// Whether what was examined still counts. Cheap enough for each event of each stream.
    pub fn stands(&self, standing: &Standing) -> bool {
        let now = self.clock.now();
        let same_methods = Arc::ptr_eq(&standing.methods, &self.methods.read());
        same_methods && standing.examined <= now && now <= standing.good_until && standing.basis.stands(now)
    }

    /// The caller of an open stream, by the native API's rules and the evidence of his own connection. It is neither held up
    /// by failures of others behind the same address nor counted as one of them.
    ///
    /// # Errors
    /// [`AuthFailure`] when he is not proven any more.
    pub fn examine_again(
        &self,
        connection: &Connection,
        authorization: Option<&[u8]>,
        id: RequestId,
    ) -> Result<(Caller, Standing), AuthFailure> {
        let (methods, examined) = (self.methods.read().clone(), self.clock.now());
        let accepted = self
            .standing(connection, authorization, Rules::Native)
            .or_else(|ground| self.prove(connection, ground, authorization, Rules::Native, None));
        let basis = accepted.as_ref().map(|accepted| accepted.basis.clone()).unwrap_or_default();
        let caller = accepted.and_then(|accepted| accepted.caller(connection, id));
        let caller = caller.map_err(|why| AuthFailure::Unauthenticated(why.to_string()))?;
        let good_until = connection.kept::<Known>().map_or(examined, |known| known.proof.good_until()).min(basis.good_until());
        Ok((caller, Standing { methods, examined, good_until, basis }))
    }

    /// The number of the roots in force.
    pub fn generation(&self) -> u64 {
        self.methods.read().verifiers.generation
    }

    /// A new request's name.
    pub fn request_id(&self) -> RequestId {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        RequestId(u128::from(self.instance) << 64 | u128::from(count))
    }

    /// The caller by Knox's rules (contract knox §5).
    ///
    /// # Errors
    /// [`AuthFailure`] when nobody was proven.
    pub async fn knox(&self, connection: &Connection, authorization: Option<&[u8]>, id: RequestId) -> Result<Caller, AuthFailure> {
        let looked_up = self.looked_up(connection, authorization).await;
        self.caller(connection, authorization, id, Rules::Knox, looked_up)
    }

    /// What the service that knows users' tokens says of this one; none where there is no need to ask, or no leave.
    async fn looked_up(&self, connection: &Connection, header: Option<&[u8]>) -> Option<LookedUp> {
        let github = self.github.as_ref()?;
        let token = Rules::Knox.token(header).filter(|token| github::may_be_token(token))?;
        let is_ours = self.methods.read().tokens.as_ref().is_some_and(|tokens| tokens.find(token).is_some());
        let Err(ground) = self.standing(connection, header, Rules::Knox) else { return None };
        let may_guess = ground.stood_before || self.check(&self.guesses, connection).is_ok();
        if is_ours || !may_guess {
            return None;
        }
        drop(ground);
        Some(Box::pin(github.look_up(token)).await)
    }

    /// The caller by the native API's rules.
    ///
    /// # Errors
    /// [`AuthFailure`] when nobody was proven.
    pub fn native(&self, connection: &Connection, authorization: Option<&[u8]>, id: RequestId) -> Result<Caller, AuthFailure> {
        self.caller(connection, authorization, id, Rules::Native, None)
    }

    /// Whether head and certificate prove a caller by Knox's rules, before the body is read. A failure is not counted, since
    /// the request that follows will be, unless somebody else was asked: who goes away before his request is whole must not
    /// make us ask without end.
    pub async fn is_proven_knox(&self, connection: &Connection, authorization: Option<&[u8]>) -> bool {
        let looked_up = self.looked_up(connection, authorization).await;
        if looked_up.as_ref().is_some_and(LookedUp::is_refusal) {
            self.guesses.failed(Some(connection.peer.ip()), None, self.clock.now());
            return false;
        }
        self.is_proven(connection, authorization, Rules::Knox, looked_up)
    }

    /// As [`Callers::is_proven_knox`] by the native API's rules, by which nobody else is asked.
    pub fn is_proven_native(&self, connection: &Connection, authorization: Option<&[u8]>) -> bool {
        self.is_proven(connection, authorization, Rules::Native, None)
    }

    fn is_proven(&self, connection: &Connection, header: Option<&[u8]>, rules: Rules, looked_up: Option<LookedUp>) -> bool {
        match self.standing(connection, header, rules) {
            Ok(_) => true,
            Err(ground) if !ground.stood_before && rules.is_guessable(header) && self.check(&self.guesses, connection).is_err() => false,
            Err(ground) => self.prove(connection, ground, header, rules, looked_up).is_ok(),
        }
    }

    /// Counts a login that is begun, or that failed.
    ///
    /// # Errors
    /// [`AuthFailure::RateLimited`] after too many of them.
    pub(crate) fn login(&self, connection: &Connection) -> Result<(), AuthFailure> {
        self.check(&self.logins, connection)?;
        self.logins.failed(Some(connection.peer.ip()), None, self.clock.now());
        Ok(())
    }

    /// Counts a request that is answered to anybody, as one that proves nothing.
    ///
    /// # Errors
    /// [`AuthFailure::RateLimited`] after too many of them.
    pub fn anonymous(&self, connection: &Connection) -> Result<(), AuthFailure> {
        self.check(&self.unproven, connection)?;
        self.unproven.failed(Some(connection.peer.ip()), None, self.clock.now());
        Ok(())
    }

    fn caller(
        &self,
        connection: &Connection,
        header: Option<&[u8]>,
        id: RequestId,
        rules: Rules,
        looked_up: Option<LookedUp>,
    ) -> Result<Caller, AuthFailure> {
        let ground = match self.standing(connection, header, rules) {
            Ok(accepted) => return accepted.caller(connection, id).map_err(|why| AuthFailure::Unauthenticated(why.to_string())),
            Err(ground) => ground,
        };
        let guessable = rules.is_guessable(header) && !ground.stood_before;
        if guessable {
            self.check(&self.guesses, connection)?;
        }
        let is_outage = looked_up.as_ref().is_some_and(LookedUp::is_outage);
        let proven = self.prove(connection, ground, header, rules, looked_up).and_then(|accepted| accepted.caller(connection, id));
        proven.map_err(|why| match why {
            // That nobody could say whose a token is says nothing of who showed it; and a whole office is told at once that its
            // sessions are over, as after a restart, and renews them.
            why if is_outage || why == Rejection::NoSession => {
                self.login(connection).err().unwrap_or_else(|| AuthFailure::Unauthenticated(why.to_string()))
            }
            why => self.failed(connection, guessable, &why),
        })
    }

    /// Counts a failure, and says what it is.
    fn failed(&self, connection: &Connection, guessable: bool, why: &Rejection) -> AuthFailure {
        if !guessable && let Err(limited) = self.anonymous(connection) {
            return limited;
        }
        if guessable {
            self.guesses.failed(Some(connection.peer.ip()), None, self.clock.now());
        }
        AuthFailure::Unauthenticated(why.to_string())
    }

    fn check(&self, failures: &Denials, connection: &Connection) -> Result<(), AuthFailure> {
        failures
            .check(Some(connection.peer.ip()), None, self.clock.now())
            .map_err(|limited| AuthFailure::RateLimited { retry_after_seconds: limited.retry_after.max(Duration::from_secs(1)).as_secs() })
    }

    /// What this connection has proven before by this header: it stands, whoever else fails from the same address. Else what
    /// is known of the connection, by the methods in force.
    fn standing(&self, connection: &Connection, header: Option<&[u8]>, rules: Rules) -> Result<Accepted, Ground> {
        let methods = self.methods.read().clone();
        let now = self.clock.now();
        let kept = connection.kept::<Known>();
        let is_current = kept.as_ref().is_some_and(|k| Arc::ptr_eq(&k.methods, &methods) && k.proof.is_current(&methods.verifiers, now));
        match (kept.as_ref().and_then(|k| k.accepted(rules)).filter(|a| a.fits(header)), is_current) {
            (Some(accepted), true) if accepted.basis.stands(now) => Ok(accepted.clone_without_header()),
            (accepted, _) => Err(Ground { methods, stood_before: accepted.is_some(), known: kept.filter(|_| is_current) }),
        }
    }

    /// Counts a refusal of a proven caller, and says for how long to hold its answer back: one who tries key after key is
    /// slowed down wherever he comes from, and what he may do he may do at once.
    pub fn refused(&self, caller: &Caller) -> Option<Duration> {
        self.refused_for(caller, 1)
    }

    /// As [`Callers::refused`], for one request that was refused for `count` keys: each counts, or who asks for many at once
    /// would try keys faster than one after the other.
    pub fn refused_for(&self, caller: &Caller, count: usize) -> Option<Duration> {
        let (who, now) = (caller.default_identity(), self.clock.now());
        let longest = LONGEST_PAUSE.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)).min(LONGEST_PAUSE_FOR_MANY);
        let mut pause = Duration::ZERO;
        for _ in 0..count {
            if let Err(limited) = self.refusals.check(None, who, now) {
                pause += limited.retry_after.min(LONGEST_PAUSE);
            }
            self.refusals.failed(None, who, now);
        }
        Some(pause.min(longest)).filter(|pause| !pause.is_zero())
    }

    fn prove(
        &self,
        connection: &Connection,
        ground: Ground,
        header: Option<&[u8]>,
        rules: Rules,
        looked_up: Option<LookedUp>,
    ) -> Result<Accepted, Rejection> {
        let Ground { methods, known, .. } = ground;
        let now = self.clock.now();
        let proof = match &known {
            Some(known) => known.proof.clone(),
            None => methods.verifiers.examine(&Evidence { certificates: connection.peer_certificates(), now }),
        };
        let session = rules.token(header).filter(|token| Sessions::is_token(token)).map(|token| self.sessions.find(token, now));
        let proven = match (session, rules, looked_up) {
            // A session's token is nothing else, and nobody else hears of it.
            (Some(session), ..) => session.ok_or(Rejection::NoSession).map(of_session),
            (None, Rules::Native, _) => methods.prove_native(header, &proof).map(|proven| (proven, Basis::Itself)),
            (None, Rules::Knox, Some(LookedUp { verdict, until, .. })) => verdict.map(|identity| of_github(identity, until)),
            (None, Rules::Knox, None) => methods.prove_knox(header, &proof).map(|proven| (proven, Basis::Itself)),
        };
        let also: Arc<[Identity]> = proof.all_identities().into();
        let accepted = proven.map(|(proven, basis)| Accepted { header: header.map(Into::into), proven, basis, also });
        let kept = accepted.as_ref().ok().cloned();
        let (knox, native) = match (rules, known) {
            (Rules::Knox, known) => (kept, known.and_then(|k| k.native.clone())),
            (Rules::Native, known) => (known.and_then(|k| k.knox.clone()), kept),
        };
        connection.keep(Arc::new(Known { methods, proof, knox, native }));
        accepted
    }
}

fn of_session(session: Arc<Session>) -> (Arc<[Proven]>, Basis) {
    let proven = Proven { identity: session.identity.clone(), method: session.method };
    (Arc::from([proven]), Basis::Session(session))
}

fn of_github(identity: Identity, until: Timestamp) -> (Arc<[Proven]>, Basis) {
    (Arc::from([Proven { identity, method: "github" }]), Basis::Until(until))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use claviger_authn::StaticUser;

    fn callers() -> Callers {
        let alice = StaticUser { name: "alice".into(), groups: vec![], token: b"tok".to_vec().into() };
        Callers::with_tokens(TokenTable::new(vec![alice]).unwrap())
    }

    /// A new connection from the one address of all tests.
    fn connection() -> Arc<Connection> {
        Connection::new(([10, 0, 0, 1], 1).into(), "test".into(), None)
    }

    fn verdict(result: Result<Caller, AuthFailure>) -> &'static str {
        match result {
            Ok(_) => "proven",
            Err(AuthFailure::Unauthenticated(_)) => "unproven",
            Err(AuthFailure::RateLimited { .. }) => "limited",
        }
    }

    fn no_roots(generation: u64) -> Verifiers {
        Verifiers { machines: None, services: None, break_glass: None, generation }
    }

    const RIGHT: Option<&[u8]> = Some(b"Bearer tok");
    const WRONG: Option<&[u8]> = Some(b"Bearer wrong");

    #[tokio::test]
    async fn who_shows_nothing_or_a_name_locks_nobody_behind_his_address_out() {
        let callers = callers();
        for header in [None, Some(&b"Machine host"[..]), None] {
            for _ in 0..25 {
                assert_ne!(verdict(callers.native(&connection(), header, RequestId(0))), "proven");
                assert_ne!(verdict(callers.knox(&connection(), header.and(Some(b"0thost")), RequestId(0)).await), "proven");
            }
        }
        assert_eq!(verdict(callers.native(&connection(), None, RequestId(0))), "limited", "so as not to fill the log");
        assert_eq!(verdict(callers.native(&connection(), RIGHT, RequestId(0))), "proven");
        assert_eq!(verdict(callers.knox(&connection(), Some(b"0utok"), RequestId(0)).await), "proven");
    }

    #[test]
    fn tokens_are_not_looked_at_after_too_many_wrong_ones() {
        let callers = callers();
        let before = connection();
        assert_eq!(verdict(callers.native(&before, RIGHT, RequestId(0))), "proven");
        for _ in 0..25 {
            callers.native(&connection(), WRONG, RequestId(0)).unwrap_err();
        }
        assert_eq!(verdict(callers.native(&connection(), RIGHT, RequestId(0))), "limited");
        assert!(!callers.is_proven_native(&connection(), RIGHT));
        assert_eq!(verdict(callers.native(&connection(), None, RequestId(0))), "unproven", "another matter");
        assert_eq!(verdict(callers.native(&before, RIGHT, RequestId(0))), "proven", "it was before");
    }

    #[test]
    fn new_roots_do_not_put_proven_connections_under_the_limit_of_their_address() {
        let callers = callers();
        let (asking, streaming) = (connection(), connection());
        for connection in [&asking, &streaming] {
            assert_eq!(verdict(callers.native(connection, RIGHT, RequestId(0))), "proven");
        }
        for _ in 0..25 {
            callers.native(&connection(), WRONG, RequestId(0)).unwrap_err();
        }
        callers.replace_verifiers(no_roots(1));
        assert_eq!(verdict(callers.native(&asking, RIGHT, RequestId(0))), "proven");
        assert_eq!(verdict(callers.native(&asking, WRONG, RequestId(0))), "limited", "another token is a guess");
        assert_eq!(verdict(callers.examine_again(&streaming, RIGHT, RequestId(0)).map(|(caller, _)| caller)), "proven");
        assert_eq!(verdict(callers.examine_again(&streaming, WRONG, RequestId(0)).map(|(caller, _)| caller)), "unproven", "never limited");
    }

    #[tokio::test]
    async fn a_look_before_the_body_counts_no_failure() {
        let callers = callers();
        for _ in 0..100 {
            assert!(!callers.is_proven_native(&connection(), WRONG));
            assert!(!callers.is_proven_knox(&connection(), Some(b"0uwrong")).await);
        }
        assert!(callers.is_proven_native(&connection(), RIGHT));
        assert!(callers.is_proven_knox(&connection(), Some(b"0utok")).await);
    }

    #[tokio::test]
    async fn who_sends_no_body_after_wrong_tokens_cannot_make_us_ask_others_without_end() {
        let service = crate::people::testing::Provider::start().await;
        let clock = Arc::new(SystemClock);
        let limits = DenialLimits { forgive_one_after: Duration::from_secs(3600), ..DenialLimits::default() };
        let callers = Callers::new(no_roots(0), MachineNames::default(), None, limits, clock.clone());
        let callers = callers.with_people(Arc::default(), Some(Arc::new(service.github("", 60, clock))));
        for n in 0..100 {
            let header = format!("0uwrong{n}");
            assert!(!callers.is_proven_knox(&connection(), Some(header.as_bytes())).await);
        }
        assert_eq!(service.asked(), 20, "as often as an address may fail");
        assert_eq!(verdict(callers.native(&connection(), None, RequestId(0))), "unproven", "another matter");
    }
}
