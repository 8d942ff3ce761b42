//! A program does not outlive a `run` that was killed: it would go on with secrets that nobody renews or takes away.
//!
//! # Assumptions
//! The kernel sends the signal when the *thread* that forked ends. Ours is the one of `main`, on which the whole of `run`
//! lives: its runtime has no other threads.

#![allow(unsafe_code)]

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the kernel send TERM to the program when this thread is gone, however it went.
pub(super) fn never(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe things may be done. It
    // makes two system calls, and neither allocates, locks nor panics; what it captures is a plain number.
    unsafe {
        command.pre_exec(move || die_with(parent));
    }
}

fn die_with(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // Killed before that call, it will never be noticed: then the program is not to begin. In a namespace of our own a
    // parent that is gone has no number at all.
    match getppid() == Some(parent) {
        true => Ok(()),
        false => Err(io::Error::from(io::ErrorKind::Interrupted)),
    }
}
