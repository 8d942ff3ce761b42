//! How old what is cached may be, measured so that a clock that jumps fools nobody.
//!
//! Within one boot of the machine only the boot clock counts, which nobody can set and which goes on in suspend. Across boots the
//! wall clock is compared with the *server's* time at the last contact, and with the time that was already counted; the larger age
//! counts. A wall clock that shows a time before the last contact proves nothing, and then nothing is given out until the server
//! answers: otherwise whoever can set the clock and reboot could use a copy for ever.

use crate::entry::{NoEntry, Reader, Writer};
use claviger_domain::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use zeroize::Zeroizing;

/// By how much the clocks of server and machine may differ.
const TOLERANCE: Duration = Duration::from_secs(300);

/// The machine's clocks. Tests set them.
pub trait Times: Send + Sync {
    /// Time since boot, suspend included. It never goes back.
    fn since_boot(&self) -> Duration;
    /// What the wall clock shows, right or wrong.
    fn wall(&self) -> Timestamp;
    /// Names this boot.
    fn boot(&self) -> [u8; 16];
}

/// The machine's own.
#[derive(Debug, Clone, Copy)]
pub struct MachineTimes {
    boot: [u8; 16],
}

impl MachineTimes {
    /// Reads the boot's name; without one each start of the agent counts as a boot of its own, which is the stricter way.
    #[must_use]
    pub fn new() -> Self {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let boot = u128::from_str_radix(&digits, 16).unwrap_or_else(|_| u128::from_be_bytes(claviger_crypto::random()));
        Self { boot: boot.to_be_bytes() }
    }
}

impl Default for MachineTimes {
    fn default() -> Self {
        Self::new()
    }
}

impl Times for MachineTimes {
    fn since_boot(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    fn wall(&self) -> Timestamp {
        let now = clock_gettime(ClockId::Realtime);
        Timestamp(now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec))
    }

    fn boot(&self) -> [u8; 16] {
        self.boot
    }
}

/// The last contact with the server, and what is known of the time since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// The server's time at the contact.
    server: Timestamp,
    boot: [u8; 16],
    /// The boot clock when `age` was counted.
    counted_at: Duration,
    /// Time since the contact up to then.
    age: Duration,
    /// The wall clock shows a time that cannot be.
    clock_is_wrong: bool,
}

/// How long ago the last contact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// So long.
    Known(Duration),
    /// The clock shows a time before the contact; at least so long.
    Unknown(Duration),
}

impl Contact {
    /// A contact just now, at which the server's clock showed `server`.
    #[must_use]
    pub fn now(server: Timestamp, times: &dyn Times) -> Self {
        Self { server, boot: times.boot(), counted_at: times.since_boot(), age: Duration::ZERO, clock_is_wrong: false }
    }

    /// The same contact as this boot of the machine sees it.
    #[must_use]
    pub fn brought_forward(self, times: &dyn Times) -> Self {
        let (boot, counted_at) = (times.boot(), times.since_boot());
        if boot == self.boot {
            let passed = counted_at.saturating_sub(self.counted_at);
            return Self { counted_at, age: self.age.saturating_add(passed), ..self };
        }
        let counted = self.age.saturating_add(counted_at);
        let by_wall = times.wall().0.saturating_sub(self.server.0);
        let is_before_contact = by_wall < -nanos(TOLERANCE);
        let by_wall = Duration::from_nanos(u64::try_from(by_wall).unwrap_or(0));
        Self { boot, counted_at, age: counted.max(by_wall), clock_is_wrong: self.clock_is_wrong || is_before_contact, ..self }
    }

    /// How long ago it was.
    #[must_use]
    pub fn age(&self, times: &dyn Times) -> Age {
        let age = self.brought_forward(times).age;
        if self.clock_is_wrong { Age::Unknown(age) } else { Age::Known(age) }
    }

    /// The server's time now, as far as it is known: never earlier than what was certain.
    #[must_use]
    pub fn server_time(&self, times: &dyn Times) -> Timestamp {
        Timestamp(self.server.0.saturating_add(nanos(self.brought_forward(times).age)))
    }

    /// The bytes that are sealed on disk.
    #[must_use]
    pub fn to_bytes(self) -> Zeroizing<Vec<u8>> {
        let mut out = Writer(Zeroizing::new(Vec::with_capacity(64)));
        out.bytes(&self.server.0.to_be_bytes());
        out.bytes(&self.boot);
        for time in [self.counted_at, self.age] {
            out.bytes(&nanos(time).to_be_bytes());
        }
        out.bytes(&[u8::from(self.clock_is_wrong)]);
        out.0
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`NoEntry`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoEntry> {
        let mut from = Reader(bytes);
        let (server, boot) = (from.time()?, from.array()?);
        let mut duration = || -> Result<Duration, NoEntry> { Ok(Duration::from_nanos(u64::from_be_bytes(from.array()?))) };
        let (counted_at, age) = (duration()?, duration()?);
        let clock_is_wrong = from.array()? != [0];
        if from.0.is_empty() { Ok(Self { server, boot, counted_at, age, clock_is_wrong }) } else { Err(NoEntry) }
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Mutex;

    /// Clocks that stand still until they are moved.
    pub(crate) struct TestTimes(pub(crate) Mutex<(Duration, Timestamp, u8)>);

    impl TestTimes {
        pub(crate) fn new() -> Self {
            Self(Mutex::new((Duration::from_secs(1000), Timestamp(0).plus_seconds(2_000_000_000), 1)))
        }

        /// Time passes as it should.
        pub(crate) fn pass(&self, seconds: u64) {
            let mut now = self.0.lock().unwrap();
            now.0 += Duration::from_secs(seconds);
            now.1 = now.1.plus_seconds(seconds.cast_signed());
        }

        /// Somebody sets the wall clock.
        pub(crate) fn set_wall(&self, by: i64) {
            let mut now = self.0.lock().unwrap();
            now.1 = now.1.plus_seconds(by);
        }

        /// The machine boots, after it was off for so long.
        pub(crate) fn reboot(&self, off: u64) {
            let mut now = self.0.lock().unwrap();
            *now = (Duration::from_secs(10), now.1.plus_seconds(off.cast_signed()), now.2 + 1);
        }
    }

    impl Times for TestTimes {
        fn since_boot(&self) -> Duration {
            self.0.lock().unwrap().0
        }

        fn wall(&self) -> Timestamp {
            self.0.lock().unwrap().1
        }

        fn boot(&self) -> [u8; 16] {
            [self.0.lock().unwrap().2; 16]
        }
    }

    fn secs(seconds: u64) -> Age {
        Age::Known(Duration::from_secs(seconds))
    }

    #[test]
    fn within_one_boot_no_jump_of_the_wall_clock_counts() {
        let times = TestTimes::new();
        let contact = Contact::now(times.wall(), &times);
        times.pass(60);
        for jump in [-86_400 * 400, 86_400 * 4000] {
            times.set_wall(jump);
            assert_eq!(contact.age(&times), secs(60), "{jump}");
        }
        assert_eq!(contact.server_time(&times), contact.server.plus_seconds(60));
    }

    #[test]
    fn across_a_boot_the_time_that_the_machine_was_off_counts() {
        let times = TestTimes::new();
        let contact = Contact::now(times.wall(), &times);
        times.pass(100);
        let saved = Contact::from_bytes(&contact.brought_forward(&times).to_bytes()).unwrap();
        times.reboot(3600);
        assert_eq!(saved.brought_forward(&times).age(&times), secs(3700));
    }

    #[test]
    fn a_clock_set_back_over_boots_never_makes_the_copy_younger() {
        let times = TestTimes::new();
        let mut saved = Contact::now(times.wall(), &times);
        for round in 1..=5 {
            times.pass(1000);
            saved = saved.brought_forward(&times);
            times.reboot(0);
            times.set_wall(-1000);
            saved = saved.brought_forward(&times);
            assert_eq!(saved.age(&times), secs(round * 1010), "round {round}");
        }
    }

    #[test]
    fn a_clock_before_the_last_contact_is_told_and_stays_told_until_the_next_one() {
        let times = TestTimes::new();
        let saved = Contact::now(times.wall(), &times);
        times.reboot(0);
        times.set_wall(-86_400);
        let forward = saved.brought_forward(&times);
        assert_eq!(forward.age(&times), Age::Unknown(Duration::from_secs(10)));
        times.set_wall(86_400);
        assert!(matches!(forward.age(&times), Age::Unknown(_)));
        assert_eq!(Contact::now(times.wall(), &times).age(&times), secs(0));
    }

    #[test]
    fn a_machine_whose_clock_was_wrong_at_the_contact_is_not_punished_for_it() {
        let times = TestTimes::new();
        let right = times.wall();
        times.set_wall(-86_400 * 3650);
        let saved = Contact::now(right, &times);
        times.reboot(0);
        times.set_wall(86_400 * 3650 + 30);
        assert_eq!(saved.brought_forward(&times).age(&times), secs(30));
    }
}
