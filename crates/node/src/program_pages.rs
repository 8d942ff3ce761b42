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

    #[test]
    fn the_program_goes_on_after_its_pages_are_given_back() {
        let resident = || std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let before = resident();
        for _ in 0..3 {
            give_back();
        }
        assert!(!before.is_empty() && !resident().is_empty());
    }
}
