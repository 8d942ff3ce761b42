//! What the agent says of itself: for people, monitors and the command `claviger node status`.

use crate::root::RootReport;
use crate::table::{Counters, Health, Table};
use crate::times::Age;
use claviger_domain::Timestamp;
use claviger_wire::native::unix_to_rfc3339;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Makes the report.
pub struct Status {
    table: Arc<Table>,
    root: Mutex<RootReport>,
    /// Whether memory is locked, in a sentence.
    memory: String,
    started: Timestamp,
    /// What everyone may see, and when it was made.
    public: Mutex<Option<(Duration, Arc<Report>)>>,
}

/// For so long what everyone may see is not made anew.
const PUBLIC: Duration = Duration::from_millis(100);

/// The report, as JSON on the socket.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Program version.
    pub version: String,
    /// Whether changes are being followed.
    pub live: bool,
    /// The server that was tried last.
    pub server: String,
    /// Since when it is not followed, by the machine's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline_since: Option<String>,
    /// Seconds since the server was last heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_contact_seconds: Option<u64>,
    /// After how many seconds without the server nothing is given out.
    pub max_offline_seconds: u64,
    /// What needs somebody now; empty when all is well.
    pub problems: Vec<String>,
    /// What somebody should know.
    pub notes: Vec<String>,
    /// What keeps the cache's key, and what that promises.
    pub root: String,
    /// Its kind.
    pub root_kind: String,
    /// Whether memory is locked.
    pub memory: String,
    /// How many keys are registered.
    pub registered: usize,
    /// How many are held.
    pub cached: usize,
    /// Reads that were given a secret, and that were refused, since the start.
    pub reads: u64,
    /// Refused reads since the start.
    pub reads_refused: u64,
    /// Lines that the log of reads lost.
    pub reads_unlogged: u64,
    /// Reads without a line of their own in it, since one user's were too many; it has their number.
    #[serde(default)]
    pub reads_summed: u64,
    /// When the agent started.
    pub started: String,
    /// The keys; absent for who may not see their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<KeyReport>>,
}

/// One registered key.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyReport {
    /// Its id.
    pub id: String,
    /// `cached`, `doubted` (the server refuses it without saying that it is gone), `missing`, `deleted` or `revoked`.
    pub state: String,
    /// Of what is cached: the revision of its last change; of what is gone: of its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// When its primary version was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The server's code for a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Where it is registered: configuration, agent, knox.
    pub registered_by: Vec<String>,
}

impl Status {
    /// For this agent.
    #[must_use]
    pub fn new(table: Arc<Table>, root: RootReport, memory: String) -> Self {
        let started = table.times.wall();
        Self { table, root: Mutex::new(root), memory, started, public: Mutex::default() }
    }

    /// The cache's key can be had now.
    pub(crate) fn set_root(&self, root: RootReport) {
        *self.root.lock() = root;
    }

    /// The report for everyone. It costs far more than a read and readers wait meanwhile, so it is made ten times a second at most, however often
    /// somebody asks.
    #[must_use]
    pub fn public(&self) -> Arc<Report> {
        let now = self.table.times.since_boot();
        let mut public = self.public.lock();
        if let Some((_, report)) = public.as_ref().filter(|(made, _)| now.saturating_sub(*made) < PUBLIC) {
            return report.clone();
        }
        let report = Arc::new(self.report(false));
        *public = Some((now, report.clone()));
        report
    }

    /// The report; with the keys for who may see their names.
    #[must_use]
    pub fn report(&self, with_keys: bool) -> Report {
        let health = self.table.health(|health| health.clone());
        let registered = self.table.registered();
        let cached = self.table.all().len();
        let age = self.table.contact().map(|contact| contact.age(&*self.table.times));
        let counters = &self.table.counters;
        let unlogged = counters.unlogged.load(Ordering::Relaxed);
        let root = self.root.lock().clone();
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            live: health.is_live,
            server: health.endpoint.clone(),
            offline_since: health.offline_since.map(unix_to_rfc3339),
            last_contact_seconds: age.map(|age| match age {
                Age::Known(age) | Age::Unknown(age) => age.as_secs(),
            }),
            max_offline_seconds: self.table.max_offline().as_secs(),
            problems: self.problems(&health, age, registered.len(), with_keys),
            notes: notes(&health, counters, with_keys),
            root: root.said,
            root_kind: root.kind.name().to_owned(),
            memory: self.memory.clone(),
            registered: registered.len(),
            cached,
            reads: counters.given.load(Ordering::Relaxed),
            reads_refused: counters.refused.load(Ordering::Relaxed),
            reads_unlogged: unlogged,
            reads_summed: counters.summed.load(Ordering::Relaxed),
            started: unix_to_rfc3339(self.started),
            keys: with_keys.then(|| registered.iter().map(|id| self.key(id, &health)).collect()),
        }
    }

    fn key(&self, id: &claviger_domain::KeyId, health: &Health) -> KeyReport {
        let held = self.table.get(id);
        let gone = health.gone.get(id);
        let refused = health.refused.get(id).cloned();
        let state = match (&held, gone) {
            (Some(held), _) if held.doubted.is_some() => "doubted",
            (Some(_), _) => "cached",
            (None, Some((how, _))) => how.name(),
            (None, None) => "missing",
        };
        let revision = held.as_ref().map(|held| held.entry.revision).or(gone.map(|(_, revision)| *revision));
        let primary = held.as_ref().and_then(|held| held.entry.primary_at(Timestamp(i64::MIN)).map(|version| version.created));
        KeyReport {
            id: id.to_string(),
            state: state.to_owned(),
            revision: revision.map(|revision| revision.to_string()),
            since: primary.map(unix_to_rfc3339),
            refused,
            registered_by: self.table.registered_by(id).into_iter().map(str::to_owned).collect(),
        }
    }

    fn problems(&self, health: &Health, age: Option<Age>, registered: usize, with_keys: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let limit = self.table.max_offline();
        match age {
            Some(Age::Unknown(_)) => problems.push(
                "the machine's clock shows a time before the last contact with the server: nothing is given out until the server answers, or the clock is \
                 set and the agent restarted"
                    .to_owned(),
            ),
            Some(Age::Known(age)) if age > limit => {
                problems.push(format!("the server was last heard {} s ago, longer than max_offline ({} s): nothing is given out", age.as_secs(), limit.as_secs()));
            }
            None if registered > 0 && !health.is_live => problems.push("the server has not answered yet: nothing is given out".to_owned()),
            _ => {}
        }
        if let Some(error) = health.error.as_ref().filter(|_| !health.is_live && registered > 0) {
            problems.push(format!("changes are not followed: {error}"));
        }
        if let Some(why) = &health.root {
            problems.push(format!(
                "the cache is left as it is, since its key cannot be had now; it is looked for again at least every 30 s, and what the server tells is held in \
                 memory only: {why}"
            ));
        }
        if let Some(why) = &health.disk {
            problems.push(format!("the cache cannot be written, so a restart would lose what changed: {why}"));
        }
        if let Some(why) = &health.knox {
            problems.push(format!("Knox's folder: {why}"));
        }
        if !health.refused.is_empty() {
            let names: Vec<_> = health.refused.iter().map(|(id, code)| format!("`{id}` ({code})")).take(20).collect();
            let names = if with_keys { format!(": {}", names.join(", ")) } else { String::new() };
            problems.push(format!("the server refuses {} of the registered keys{names}", health.refused.len()));
        }
        problems
    }
}

fn notes(health: &Health, counters: &Counters, with_keys: bool) -> Vec<String> {
    let (unlogged, summed) = (counters.unlogged.load(Ordering::Relaxed), counters.summed.load(Ordering::Relaxed));
    let mut notes = if with_keys { health.findings.clone() } else { Vec::new() };
    if let Some(error) = health.error.as_ref().filter(|_| health.is_live) {
        notes.push(format!("the last read failed and is tried again: {error}"));
    }
    if unlogged > 0 {
        notes.push(format!("{unlogged} lines of the log of reads were lost"));
    }
    if summed > 0 {
        notes.push(format!(
            "{summed} reads have no line of their own in the log of reads, since one user's were too many: it has their number"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::root::RootKind;
    use crate::times::tests::TestTimes;

    #[test]
    fn whoever_asks_for_the_status_again_and_again_does_not_have_it_made_each_time() {
        let times = Arc::new(TestTimes::new());
        let table = Arc::new(Table::new(Policy::default(), Duration::ZERO, times.clone()));
        let status = Status::new(table, RootReport { kind: RootKind::File, said: String::new() }, String::new());
        let first = status.public();
        assert!(first.keys.is_none() && Arc::ptr_eq(&first, &status.public()));
        times.pass(1);
        assert!(!Arc::ptr_eq(&first, &status.public()));
    }
}
