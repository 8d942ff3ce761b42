//! The local log of reads: who on this machine read what.
//!
//! One JSON line for the first read of a key by a user and process, and one more when that goes on in a later minute, with the number of
//! reads since the line before; refusals likewise. Two files, the newer one up to 8 MiB. Who brings about more lines than anybody needs, by ever new processes or
//! names of keys, gets no more of his own, so that he does not drive the others' out: within a minute one line has the number of his reads.
//!
//! # Promised, and not
//! A line is handed over before the answer leaves, and written within moments. It is not synced, and it does not hold the answer up: a
//! crash of the machine may lose the last lines, and a full disk loses lines, which `status` counts. The server's own audit log has, durably, what this machine
//! fetched.

use crate::serve::Peer;
use claviger_domain::{KeyId, Timestamp};
use claviger_wire::native::unix_to_rfc3339;
use serde::Serialize;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::table::Table;
use std::sync::atomic::Ordering;

/// For so long further reads of the same are counted, not written.
const WINDOW: Duration = Duration::from_secs(60);
/// Readers that are remembered. Beyond it lines come more often, never less.
const MOST: usize = 4096;
const MOST_BYTES: u64 = 8 << 20;
const WAITING: usize = 1024;
/// Lines of one user at once: all keys of a machine, for some programs.
const LINES: u32 = 4096;
/// Lines of all users at once. Who has a range of users, as containers do, is bounded too.
const LINES_OF_ALL: u32 = 16_384;
/// Further lines each second, of one user and of all.
const EACH_SECOND: u32 = 1;
const EACH_SECOND_OF_ALL: u32 = 8;
/// Users that are counted one by one.
const MOST_USERS: usize = 1024;
/// How often those who had too many lines get the one that says so.
pub(crate) const SUM: Duration = Duration::from_secs(60);

/// One line.
#[derive(Serialize)]
struct Line {
    time: String,
    user: u32,
    /// 0 where it is not known, or several.
    process: i32,
    /// The program's name when the line was made; the process chooses it itself.
    program: String,
    key: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// Reads of the same since the line before.
    reads: u64,
}

#[derive(PartialEq, Eq, Hash)]
struct Reader {
    user: u32,
    process: i32,
    key: String,
    outcome: &'static str,
}

struct Seen {
    since: Instant,
    reads: u64,
}

/// Lines that may still be written, and reads that have none.
struct Budget {
    lines: u32,
    since: Instant,
    summed: u64,
}

impl Budget {
    fn new(lines: u32, now: Instant) -> Self {
        Self { lines, since: now, summed: 0 }
    }

    /// Takes one line, if there is one.
    fn take(&mut self, now: Instant, (most, each_second): (u32, u32)) -> bool {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        self.since += Duration::from_secs(seconds);
        self.lines = self.lines.saturating_add(u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(each_second)).min(most);
        match self.lines.checked_sub(1) {
            Some(left) => {
                self.lines = left;
                true
            }
            None => false,
        }
    }
}

/// Everyone's budget.
struct Budgets {
    of_all: Budget,
    of_user: HashMap<u32, Budget>,
    /// Of users who are too many to be counted one by one.
    of_others: Budget,
}

impl Budgets {
    fn new(now: Instant) -> Self {
        Self { of_all: Budget::new(LINES_OF_ALL, now), of_user: HashMap::new(), of_others: Budget::new(LINES, now) }
    }

    fn of(&mut self, user: u32, now: Instant) -> &mut Budget {
        let is_full = self.of_user.len() >= MOST_USERS && !self.of_user.contains_key(&user);
        if is_full { &mut self.of_others } else { self.of_user.entry(user).or_insert_with(|| Budget::new(LINES, now)) }
    }

    /// Whether a line of this user may be written; if not, his reads are summed.
    fn admits(&mut self, user: u32, reads: u64, now: Instant) -> bool {
        let (one, all) = ((LINES, EACH_SECOND), (LINES_OF_ALL, EACH_SECOND_OF_ALL));
        let of_user = self.of(user, now).take(now, one);
        if of_user && self.of_all.take(now, all) {
            return true;
        }
        self.of(user, now).summed += reads;
        false
    }

    /// Whose reads have no line yet, and how many; nobody's user for those who are not counted one by one. Users who have been quiet are forgotten.
    fn sums(&mut self, now: Instant) -> Vec<(u32, u64)> {
        let of_users = self.of_user.iter_mut().map(|(user, budget)| (*user, std::mem::take(&mut budget.summed)));
        let others = (u32::MAX, std::mem::take(&mut self.of_others.summed));
        let sums = of_users.chain([others]).filter(|(_, reads)| *reads > 0).collect();
        let quiet = Duration::from_secs(u64::from(LINES / EACH_SECOND));
        self.of_user.retain(|_, budget| now.saturating_duration_since(budget.since) < quiet);
        sums
    }
}

/// Where reads are noted. It belongs to the serving thread.
pub struct Reads {
    seen: HashMap<Reader, Seen>,
    budgets: Budgets,
    lines: SyncSender<String>,
    table: Arc<Table>,
}

impl Reads {
    /// A log in the file at `path`; its writer is a thread of its own.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path, table: Arc<Table>) -> std::io::Result<Self> {
        let file = open(path)?;
        let (lines, waiting) = sync_channel(WAITING);
        let writer = Writer { path: path.to_owned(), file, table: table.clone() };
        std::thread::Builder::new().name("reads-log".to_owned()).stack_size(64 << 10).spawn(move || writer.run(&waiting))?;
        Ok(Self { seen: HashMap::new(), budgets: Budgets::new(Instant::now()), lines, table })
    }

    /// Notes a read.
    pub fn note(&mut self, peer: &Peer, key: &str, outcome: &'static str, version: Option<u64>) {
        self.note_at(peer, key, outcome, version, Instant::now());
    }

    fn note_at(&mut self, peer: &Peer, key: &str, outcome: &'static str, version: Option<u64>, now: Instant) {
        // What is no id is not repeated into a log.
        let key = KeyId::parse(key).map_or_else(|_| "(no key id)".to_owned(), |id| id.to_string());
        let reader = Reader { user: peer.user, process: peer.process, key, outcome };
        let reads = match self.seen.get_mut(&reader) {
            Some(seen) if now.duration_since(seen.since) < WINDOW => {
                seen.reads += 1;
                return;
            }
            Some(seen) => {
                seen.since = now;
                std::mem::take(&mut seen.reads) + 1
            }
            None => 1,
        };
        if !self.budgets.admits(peer.user, reads, now) {
            self.table.counters.summed.fetch_add(reads, Ordering::Relaxed);
            return;
        }
        self.write(&reader, version, reads);
        if self.seen.len() >= MOST {
            self.forget(now);
        }
        self.seen.entry(reader).or_insert(Seen { since: now, reads: 0 });
    }

    /// Writes the lines of those who had too many. To be called every [`SUM`].
    pub(crate) fn sum(&mut self) {
        self.sum_at(Instant::now());
    }

    fn sum_at(&mut self, now: Instant) {
        for (user, reads) in self.budgets.sums(now) {
            let reader = Reader { user, process: 0, key: "(several)".to_owned(), outcome: "too_many_lines" };
            self.write(&reader, None, reads);
        }
    }

    fn forget(&mut self, now: Instant) {
        self.seen.retain(|_, seen| now.duration_since(seen.since) < WINDOW);
        if self.seen.len() >= MOST {
            self.seen.clear();
        }
    }

    fn write(&self, reader: &Reader, version: Option<u64>, reads: u64) {
        let Reader { user, process, key, outcome } = reader;
        let program =
            if *process > 0 { std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default() } else { String::new() };
        let time = unix_to_rfc3339(Timestamp(self.table.times.wall().0));
        let line = Line {
            time,
            user: *user,
            process: *process,
            program: program.trim_end().to_owned(),
            key: key.clone(),
            outcome,
            version,
            reads,
        };
        let line = serde_json::to_string(&line).expect("a line is a map of text and numbers");
        if self.lines.try_send(line).is_err() {
            self.table.counters.unlogged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    table: Arc<Table>,
}

impl Writer {
    fn run(mut self, lines: &Receiver<String>) {
        for line in lines {
            if self.write(&line).is_err() {
                self.table.counters.unlogged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn write(&mut self, line: &str) -> std::io::Result<()> {
        if self.file.metadata()?.len() > MOST_BYTES {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            std::fs::rename(&self.path, older)?;
            self.file = open(&self.path)?;
        }
        self.file.write_all(format!("{line}\n").as_bytes())
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    OpenOptions::new().create(true).append(true).mode(0o640).custom_flags(no_follow).open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::policy::Policy;
    use crate::times::tests::TestTimes;

    fn lines(waiting: &Receiver<String>) -> Vec<(u64, String, u64)> {
        let read = |line: String| -> serde_json::Value { serde_json::from_str(&line).unwrap() };
        let all = waiting.try_iter().map(read);
        all.map(|l| (l["user"].as_u64().unwrap(), l["outcome"].as_str().unwrap().to_owned(), l["reads"].as_u64().unwrap())).collect()
    }

    #[test]
    fn a_flood_of_one_user_costs_him_his_lines_and_nobody_elses_and_its_number_is_told() {
        let table = Arc::new(Table::new(Policy::default(), Duration::ZERO, Arc::new(TestTimes::new())));
        let (sender, waiting) = sync_channel(100_000);
        let begun = Instant::now();
        let mut reads = Reads { seen: HashMap::new(), budgets: Budgets::new(begun), lines: sender, table: table.clone() };
        let peer = |user| Peer { user, groups: Vec::new(), process: 0 };
        for i in 0..10_000 {
            reads.note_at(&peer(66), &format!("made-up-{i}"), "not_found", None, begun);
        }
        reads.note_at(&peer(10), "shop/pw", "given", Some(1), begun);
        let written = lines(&waiting);
        assert_eq!(written.iter().filter(|line| line.0 == 66).count(), LINES as usize);
        assert_eq!(written.last().unwrap(), &(10, "given".to_owned(), 1));
        reads.sum_at(begun);
        assert_eq!(lines(&waiting), [(66, "too_many_lines".to_owned(), 10_000 - u64::from(LINES))]);
        assert_eq!(table.counters.summed.load(Ordering::Relaxed), 10_000 - u64::from(LINES));
        reads.sum_at(begun);
        assert!(lines(&waiting).is_empty(), "once");
        // After a while he has some again; one line for each second.
        let later = begun + Duration::from_secs(5);
        for i in 0..9 {
            reads.note_at(&peer(66), &format!("later-{i}"), "not_found", None, later);
        }
        assert_eq!(lines(&waiting).len(), 5);
    }

    #[test]
    fn a_range_of_users_has_no_more_lines_than_all_may_have_and_takes_no_more_memory() {
        let begun = Instant::now();
        let mut budgets = Budgets::new(begun);
        let written = (100_000..200_000).filter(|user| budgets.admits(*user, 1, begun)).count();
        assert!(written <= LINES_OF_ALL as usize && budgets.of_user.len() <= MOST_USERS, "{written}");
        let summed: u64 = budgets.sums(begun).into_iter().map(|(_, reads)| reads).sum();
        assert_eq!(summed as usize + written, 100_000);
        budgets.sums(begun + Duration::from_secs(100_000));
        assert!(budgets.of_user.is_empty());
    }
}
