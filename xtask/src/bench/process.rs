//! What `/proc` says of processes that are measured, CPU time and memory, and of the machine they run on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Ticks per second of the times in `/proc/PID/stat`; the kernel's ABI fixes it on Linux.
const TICKS: f64 = 100.0;

/// Lets this process and those that it starts open as many files as the hard limit allows; returns how many.
pub(super) fn raise_open_files() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(_) => current.unwrap_or(u64::MAX),
    }
}

/// CPU time of all threads of a process so far, user and system.
pub(super) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading `{path}`"))?;
    parse_cpu_time(&text).with_context(|| format!("understanding `{path}`"))
}

/// Fields 14 and 15 of proc(5); the name in field 2 may hold spaces and parentheses.
fn parse_cpu_time(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Duration::try_from_secs_f64((user + system) / TICKS).ok()
}

/// Resident memory of a process, in bytes.
pub(super) fn resident(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("reading `{path}`"))?;
    field(&text, "VmRSS:")
        .and_then(|value| value.strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .with_context(|| format!("`{path}` has no VmRSS"))
}

/// Cores, processor, memory, kernel and what else runs, in one line.
pub(super) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(Path::new(path)).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let model = field(&cpu, "model name").map_or("unknown processor", |it| it.trim_start_matches([':', ' ', '\t']));
    let memory = field(&memory, "MemTotal:")
        .and_then(|value| value.strip_suffix(" kB")?.trim().parse::<f64>().ok())
        .map_or(0.0, |kib| kib / 1_048_576.0);
    let kernel = read("/proc/sys/kernel/osrelease");
    // Above about a half before the bench begins, requests per second are those of a busy machine.
    let busy = read("/proc/loadavg");
    let busy = busy.split_whitespace().next().unwrap_or("unknown");
    format!("{cores} cores ({model}), {memory:.1} GiB, Linux {}, load average {busy}", kernel.trim())
}

/// The rest of the first line that begins with `name`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line[name.len()..].trim())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 3";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_millis(1750)));
        assert_eq!(parse_cpu_time("nonsense"), None);
    }

    #[test]
    fn this_process_has_memory_and_cpu_time() {
        assert!(resident(std::process::id()).unwrap() > 100_000);
        assert!(cpu_time(std::process::id()).is_ok());
        assert!(machine().contains("Linux"));
    }
}
