//! Keeping secrets out of core dumps, debuggers and swap. Called first thing by every process that holds a store's secrets.
//!
//! What it does not do: mark single regions (`MADV_DONTDUMP`, `MADV_WIPEONFORK`). Secrets can be anywhere in the heap, the
//! process as a whole cannot be dumped, and it never forks.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use std::path::Path;

/// The bit of `CAP_IPC_LOCK` in a set of capabilities (linux/capability.h).
const IPC_LOCK: u32 = 14;

/// What [`harden`] could do.
#[derive(Debug, Clone)]
pub struct Hardened {
    /// In a sentence, with the remedy for what could not be had.
    pub said: String,
    /// Whether memory is kept out of swap.
    pub memory_is_locked: bool,
}

/// Makes the process non-dumpable, forbids core files, and locks its memory where the limit allows. What could not be had
/// is told, for `status`; nothing fails for it, since a container may forbid any of these.
///
/// Not for processes that start other programs: those would inherit the limits.
#[must_use]
pub fn harden() -> Hardened {
    let (dumps, memory) = (forbid_dumps(), lock_memory());
    let memory_is_locked = memory.is_ok();
    Hardened { said: format!("{dumps}; {}", memory.unwrap_or_else(|why| why)), memory_is_locked }
}

/// Non-dumpable shuts out core dumps, also those that the kernel would pipe to a program, and debuggers and readers of
/// `/proc/PID/mem` that are not root. The limit is the second wall, should something make the process dumpable again.
fn forbid_dumps() -> &'static str {
    let dumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let cores = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    match (dumpable, cores) {
        (Ok(()), _) => "core dumps are forbidden, and debuggers except root's are shut out",
        (Err(_), Ok(())) => "core files are forbidden, but debuggers of the same user are not shut out",
        (Err(_), Err(_)) => "core dumps and debuggers could not be forbidden",
    }
}

/// Locks what is mapped now and later, each page from when it is first used.
///
/// It is all or nothing: under a limit that counts, locking would succeed while the process is small, and then every
/// larger allocation would fail. So it is tried only where no limit counts.
fn lock_memory() -> Result<String, String> {
    match lock_limit() {
        Some(bytes) => Err(format!(
            "memory is not locked: the limit is {} KiB; set LimitMEMLOCK=infinity or grant CAP_IPC_LOCK, or use encrypted swap or none",
            bytes / 1024
        )),
        None => match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
            Ok(()) => Ok("memory is locked and never swapped".to_owned()),
            Err(error) => Err(format!("memory is not locked: {error}; use encrypted swap or none")),
        },
    }
}

/// The bytes that may be locked; none when there is no limit, it can be lifted, or it does not count for this process.
fn lock_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Memlock);
    limit.current?;
    // The soft limit may be raised up to the hard one by anybody, the hard one with CAP_SYS_RESOURCE.
    let lifted = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
    if lifted.is_ok() || ignores_lock_limit(Path::new("/proc/self")) {
        return None;
    }
    limit.current
}

/// Whether the process has CAP_IPC_LOCK where the kernel looks for it: in the first user namespace. Inside another one the
/// capability is shown and does not count.
fn ignores_lock_limit(process: &Path) -> bool {
    let read = |name: &str| std::fs::read_to_string(process.join(name)).unwrap_or_default();
    let status = read("status");
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    let is_first_namespace = read("uid_map").split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    is_first_namespace && effective.is_some_and(|set| set >> IPC_LOCK & 1 == 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_lock_limit_is_ignored_only_with_the_capability_in_the_first_namespace() {
        let whole = "         0          0 4294967295\n";
        let table = [
            ("Name:\tx\nCapEff:\t0000000000004000\n", whole, true),
            ("CapEff:\t000001ffffffffff\n", whole, true),
            ("CapEff:\t000001ffffffbfff\n", whole, false),
            ("CapEff:\t000001ffffffffff\n", "0 1000 65536\n", false),
            ("CapEff:\tx\n", whole, false),
            ("", "", false),
        ];
        for (status, map, expected) in table {
            let process = tempdir();
            std::fs::write(process.join("status"), status).unwrap();
            std::fs::write(process.join("uid_map"), map).unwrap();
            assert_eq!(ignores_lock_limit(&process), expected, "{status} {map}");
            std::fs::remove_dir_all(process).unwrap();
        }
    }

    fn tempdir() -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("claviger-hygiene-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}
