//! Giving back the pages of the program's own instructions that starting and fetching have brought in.
//!
//! An agent that has its secrets needs little of its program. Locking memory keeps all of what it ever ran resident: of 15 MB with 1,000 secrets 11 MB were
//! the program's file. Instructions are no secret and are read from the file again when they run again, so they need no lock.
#![allow(unsafe_code)]

use rustix::mm::{Advice, madvise, munlock};
use std::ffi::c_void;

/// Gives back what is not running; what cannot be given back stays.
pub(crate) fn give_back() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, length) in maps.lines().filter_map(instructions) {
        let start: *mut c_void = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range is a mapping of this process that is executable and not writable, of a file. Nobody has written to it, so its pages are the
        // file's (a program's instructions take no relocations on this platform): after the advice the next use reads the same bytes from there. A
        // mapping that has gone meanwhile is an error, not a hazard; instructions are mapped and unmapped by nobody here.
        unsafe {
            let _ = munlock(start, length);
            let _ = madvise(start, length, Advice::LinuxDontNeed);
        }
    }
}

/// Start and length of a mapping of a file's instructions (proc_pid_maps(5)).
fn instructions(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let is_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
    if rights != "r-xp" || !is_file {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_instructions_of_files_are_given_back() {
        let found = |line| instructions(line);
        assert_eq!(found("1000-3000 r-xp 00001000 fe:00 4711   /usr/bin/claviger"), Some((0x1000, 0x2000)));
        for other in [
            "1000-3000 r--p 00000000 fe:00 4711   /usr/bin/claviger",
            "1000-3000 rw-p 00000000 fe:00 4711   /usr/bin/claviger",
            "1000-3000 rwxp 00000000 fe:00 4711   /usr/bin/claviger",
            "1000-3000 rw-p 00000000 00:00 0      [heap]",
            "1000-3000 r-xp 00000000 00:00 0      [vdso]",
            "1000-3000 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(found(other), None, "{other}");
        }
    }

    /// KiB of this mapping that are in memory and locked there (proc_pid_smaps(5)).
    fn kept(start: usize) -> (u64, u64) {
        let all = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let from = all.lines().skip_while(|line| !line.starts_with(&format!("{start:x}-"))).skip(1);
        let number = |name: &str| from.clone().find_map(|l| l.strip_prefix(name)?.trim_end_matches("kB").trim().parse().ok()).unwrap();
        (number("Rss:"), number("Locked:"))
    }

    #[test]
    fn pages_of_the_program_that_do_not_run_leave_memory_and_the_program_goes_on() {
        let here = give_back as fn() as usize;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let own = maps.lines().filter_map(instructions).find(|(start, length)| (*start..start + length).contains(&here));
        let (start, length) = own.expect("this function's own instructions are a mapping of a file");
        // Brings all of it in, as locked memory would have it.
        let bytes: *const u8 = std::ptr::with_exposed_provenance(start);
        let sum = |at: usize| {
            // SAFETY: the address is within a readable mapping of this process that nobody unmaps.
            u64::from(unsafe { bytes.add(at).read_volatile() })
        };
        let before = (0..length).step_by(4096).map(sum).sum::<u64>();
        let (whole, _) = kept(start);
        // As all memory of the agent is; what is locked cannot be given back. Where nothing may be locked, nothing is.
        let page = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the page is within a mapping of this process that nobody unmaps; locking changes none of its bytes.
        let _ = unsafe { rustix::mm::mlock(page, 4096) };
        give_back();
        let (left, locked) = kept(start);
        // Other tests of this program run meanwhile, and the kernel maps some pages around each that runs.
        assert!(left < whole / 2 && locked == 0, "{left} of {whole} KiB are left, {locked} locked");
        assert_eq!((0..length).step_by(4096).map(sum).sum::<u64>(), before, "the same instructions come back");
    }
}
