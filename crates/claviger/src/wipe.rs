//! The allocator of this program: what is freed is overwritten first.
//!
//! Secrets pass through memory that nobody thinks of: a string that a parser made, the buffer that a growing vector left
//! behind, the output of a cipher. Wiping each of them where it ends would have to be remembered in every crate, ours and
//! others'; here it is done once for all of them. Types that hold secrets for longer wipe themselves all the same, since
//! libraries must not depend on the program they end up in.
//!
//! # Guarantees
//! - No byte that was written to a Rust heap block is in that block after it was freed, grown, shrunk or moved.
//!
//! # Not promised
//! Memory that is never freed while it is of no more use (buffers that live as long as their connection), stacks and
//! registers, and what C libraries get from `malloc` themselves: the cipher library wipes its own, and SQLite is given
//! ciphertext only.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

/// An allocator that overwrites each block with zeros before it gives it back to `A`.
pub(crate) struct WipeOnFree<A = System>(A);

impl WipeOnFree {
    /// Over the system's allocator.
    pub(crate) const fn system() -> Self {
        Self(System)
    }
}

// SAFETY: every block comes from `A` with the layout it was asked for and goes back to `A` with that layout; `A` itself
// keeps the contract. Nothing here panics, unwinds or allocates by another way.
unsafe impl<A: GlobalAlloc> GlobalAlloc for WipeOnFree<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise that the size is not zero is passed on.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above. Fresh pages of the kernel need no second zeroing, so this is not left to the default.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller promises that `block` was allocated here with `layout` and gives it up: it is valid for
        // `layout.size()` bytes, and nobody looks at them any more.
        unsafe { wipe(block, layout.size()) };
        // SAFETY: the same promise, passed on.
        unsafe { self.0.dealloc(block, layout) };
    }

    /// Always moves. In place, the block's history would depend on the allocator below: glibc and musl may copy, even when
    /// a block shrinks, and free what they copied from without a chance to wipe it.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `new_size`, rounded up to the alignment, does not overflow `isize`, and the
        // alignment is that of a layout.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the caller promises that `new_size` is not zero.
        let new_block = unsafe { self.0.alloc(new_layout) };
        if new_block.is_null() {
            // The old block stays as it was, as the contract wants.
            return new_block;
        }
        // SAFETY: both blocks are valid for the smaller of the sizes, and do not overlap: both are allocated now.
        unsafe { new_block.copy_from_nonoverlapping(block, layout.size().min(new_size)) };
        // SAFETY: the caller promises that `block` was allocated here with `layout`, and it is given up.
        unsafe { self.dealloc(block, layout) };
        new_block
    }
}

/// Overwrites `len` bytes with zeros, also where the compiler can prove that nobody reads them.
///
/// # Safety
/// `start` is valid for writing `len` bytes.
unsafe fn wipe(start: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { start.write_bytes(0, len) };
    keep_writes_to(start);
}

/// Writes right before `free` are dead stores, and compilers drop them. An assembler block that is given the address and
/// may read any memory forces them to happen; it costs no instruction.
#[cfg(not(miri))]
fn keep_writes_to(start: *mut u8) {
    // SAFETY: the block is empty: it touches no memory, no stack, no flags and no register.
    unsafe { std::arch::asm!("/* {0} */", in(reg) start, options(nostack, preserves_flags)) };
}

/// Miri runs no assembler, and drops no stores.
#[cfg(miri)]
fn keep_writes_to(start: *mut u8) {
    std::hint::black_box(start);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// Looks at each block when it comes back: the hook that proves that it was wiped before.
    #[derive(Default)]
    struct Inspector {
        wiped: AtomicUsize,
        dirty: AtomicUsize,
        is_full: AtomicBool,
    }

    // SAFETY: all is the system's, which keeps the contract; null is a permitted answer.
    unsafe impl GlobalAlloc for Inspector {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            if self.is_full.load(Ordering::Relaxed) {
                return std::ptr::null_mut();
            }
            // SAFETY: the caller's promise, passed on.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: the block is allocated with this layout, and `WipeOnFree` has written all of it.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            let counter = if bytes.iter().all(|b| *b == 0) { &self.wiped } else { &self.dirty };
            counter.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the caller's promise, passed on.
            unsafe { System.dealloc(block, layout) };
        }
    }

    fn inspected() -> WipeOnFree<Inspector> {
        WipeOnFree(Inspector::default())
    }

    fn counts(allocator: &WipeOnFree<Inspector>) -> (usize, usize) {
        (allocator.0.wiped.load(Ordering::Relaxed), allocator.0.dirty.load(Ordering::Relaxed))
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("small")
    }

    /// A block full of 0xa5.
    fn filled(allocator: &WipeOnFree<Inspector>, layout: Layout) -> *mut u8 {
        // SAFETY: the sizes of these tests are not zero, and the block is as large as it is written.
        unsafe {
            let block = allocator.alloc(layout);
            assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
            block.write_bytes(0xa5, layout.size());
            block
        }
    }

    #[test]
    fn freed_memory_is_zero_when_the_system_gets_it_back() {
        let allocator = inspected();
        for (nth, (size, align)) in [(1, 1), (7, 1), (24, 8), (4096, 16), (100_000, 64)].into_iter().enumerate() {
            let layout = layout(size, align);
            let block = filled(&allocator, layout);
            // SAFETY: allocated just above with this layout.
            unsafe { allocator.dealloc(block, layout) };
            assert_eq!(counts(&allocator), (nth + 1, 0), "{size} bytes");
        }
    }

    #[test]
    fn a_block_that_grows_or_shrinks_leaves_no_copy_behind() {
        let allocator = inspected();
        for (old, new, align) in [(16, 4096, 1), (4096, 16, 1), (100, 99, 4), (64, 64, 64), (10, 200_000, 32)] {
            let before = counts(&allocator).0;
            let block = filled(&allocator, layout(old, align));
            // SAFETY: allocated just above with this layout, and given up; the new one is read in its bounds, of which the
            // first `kept` bytes were copied.
            unsafe {
                let moved = allocator.realloc(block, layout(old, align), new);
                assert!(moved.addr().is_multiple_of(align));
                let kept = std::slice::from_raw_parts(moved, old.min(new));
                assert!(kept.iter().all(|b| *b == 0xa5), "{old} to {new}");
                assert_eq!(counts(&allocator), (before + 1, 0), "{old} to {new}");
                allocator.dealloc(moved, layout(new, align));
            }
            assert_eq!(counts(&allocator), (before + 2, 0), "{old} to {new}");
        }
    }

    #[test]
    fn when_there_is_no_memory_a_block_stays_as_it_was() {
        let allocator = inspected();
        let block = filled(&allocator, layout(32, 8));
        allocator.0.is_full.store(true, Ordering::Relaxed);
        // SAFETY: allocated just above; a failed `realloc` leaves it allocated.
        unsafe {
            assert!(allocator.realloc(block, layout(32, 8), 64).is_null());
            assert!(std::slice::from_raw_parts(block, 32).iter().all(|b| *b == 0xa5));
            allocator.dealloc(block, layout(32, 8));
        }
        assert_eq!(counts(&allocator), (1, 0));
    }

    #[test]
    fn zeroed_memory_is_zero() {
        let allocator = inspected();
        // SAFETY: allocated with this layout, read in its bounds, and given back with it.
        unsafe {
            let block = allocator.alloc_zeroed(layout(1000, 8));
            assert!(std::slice::from_raw_parts(block, 1000).iter().all(|b| *b == 0));
            allocator.dealloc(block, layout(1000, 8));
        }
    }
}
