//! Memory that is worth keeping: no garbage in a snapshot.
//!
//! While a component is prepared, freed memory is overwritten with zeros, and so is the stack at the end. Zeros
//! are not stored by `wafer bake`, whatever lies between two weights; and nothing that was only passing through
//! (a file's date, a buffer) can make two snapshots of one model differ. At other times this is the system's
//! allocator with one comparison in front of `free`.
#![allow(unsafe_code, reason = "a global allocator is unsafe by definition, and a stack has no safe bounds")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

#[global_allocator]
static ALLOCATOR: Tidy = Tidy;

/// Whether a snapshot is being prepared.
static PREPARING: AtomicBool = AtomicBool::new(false);

/// Runs `work` and leaves nothing behind but what it keeps.
pub(super) fn tidily<T>(work: impl FnOnce() -> T) -> T {
    PREPARING.store(true, Ordering::Relaxed);
    let result = apart(work);
    wipe_stack();
    PREPARING.store(false, Ordering::Relaxed);
    result
}

/// Overwrites what returned functions left on the stack, if a snapshot is being prepared. Objects are copied with
/// their padding and the unused parts of their variants, so what lies on the stack can get into the heap: nothing may
/// lie there that is not the same every time, such as the times of a file after it was looked at.
pub(crate) fn forget() {
    if PREPARING.load(Ordering::Relaxed) {
        wipe_stack();
    }
}

/// Calls `work` in a frame of its own, below this one, where it will be wiped.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

struct Tidy;

// SAFETY: everything is done by the system's allocator; a block is overwritten only while it is ours, between
// its caller's last use and its release.
unsafe impl GlobalAlloc for Tidy {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to this function's contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above; the block has `layout.size()` bytes until it is released.
        unsafe {
            if PREPARING.load(Ordering::Relaxed) {
                ptr::write_bytes(block, 0, layout.size());
                // Otherwise the compiler sees that a block is written to that is released, and does not write.
                black_box(block);
            }
            System.dealloc(block, layout);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !PREPARING.load(Ordering::Relaxed) {
            // SAFETY: as above.
            return unsafe { System.realloc(block, layout, size) };
        }
        // The system's may move a block, and would leave its old place as it is.
        // SAFETY: the caller says that `size` is a valid size for this alignment; old and new block are two
        // blocks, each at least as long as what is copied.
        unsafe {
            let moved = System.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

unsafe extern "C" {
    /// Where the stack, which grows downwards, ends: the linker defines the symbol, only its address means
    /// something.
    static __stack_low: u8;
}

/// Overwrites the part of the stack that returned functions used.
#[inline(never)]
fn wipe_stack() {
    /// Frames begin at a multiple of this, bytes.
    const ALIGNMENT: usize = 16;
    let here = black_box(0_u8);
    let frame = &raw const here as usize / ALIGNMENT * ALIGNMENT;
    let low = &raw const __stack_low;
    let used = frame.saturating_sub(low as usize);
    // SAFETY: from the stack's end up to this frame nobody owns anything: functions that returned have no
    // variables any more, and none is called from here.
    unsafe { ptr::write_bytes(low.cast_mut(), 0, used) };
    black_box(low);
}
