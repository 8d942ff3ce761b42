//! Overwriting what requests leave on a worker's stack.
//!
//! Code that searches, decodes and copies puts pieces of what it works on into its frames: spilled vector registers, small
//! arrays. Those frames are dead when it returns, and stay as they are until something else is called as deep. A worker
//! polls all its connections from one shallow loop, so a task of its own, now and then, can overwrite all that lies
//! beneath.
//!
//! Values that are built on the stack and then moved into memory that lives long take such pieces with them, in their
//! padding and in the room of enum variants that they are not. So the stack is also overwritten before a connection's
//! own memory is made.

use std::future::poll_fn;
use std::hint::black_box;
use std::pin::pin;
use std::time::Duration;

/// How long pieces may stay.
const EVERY: Duration = Duration::from_secs(1);
/// Deeper than any request goes, and far from the end of a thread's two mebibytes.
const DEPTH: usize = 256 << 10;

/// Overwrites the stack beneath this worker's loop every second. Also where nothing seems to have happened: connections
/// may have come and gone in between, and it costs microseconds.
pub(super) async fn rinse() {
    loop {
        tokio::time::sleep(EVERY).await;
        overwrite();
    }
}

/// A future that is polled on an overwritten stack. For the few polls that make what lives long: this costs microseconds.
pub(super) async fn clean<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        overwrite();
        future.as_mut().poll(cx)
    })
    .await
}

/// Overwrites what lies beneath the caller's frame.
// Not inlined: the array must lie there, not in the frame.
#[inline(never)]
pub(super) fn overwrite() {
    let mut beneath = [0_u8; DEPTH];
    // Makes the compiler believe that the zeros are looked at.
    black_box(&mut beneath);
}
