//! Memory that looks used before it was, and what calls write to it.

use core::ptr::NonNull;
use std::vec::Vec;
use vellum_core::{FrameSource, Memory, OutOfFrames, PAGE_SIZE, PhysAddr, PhysMap};
use vellum_testkit::Arena;

/// What blocks of [`Stale`] memory hold: every line is in use.
const STALE: u8 = 0xff;

/// An arena whose blocks look as if they had been a table already.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Stale<'a>(pub(crate) &'a Arena);

// SAFETY: the arena's.
unsafe impl PhysMap for Stale<'_> {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        self.0.with(pa, f)
    }
}

// SAFETY: the arena's.
unsafe impl FrameSource for Stale<'_> {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        let block = self.0.alloc(order)?;
        for n in 0..1 << order {
            // SAFETY: a frame of the block, which nobody else knows of yet.
            self.0.with(block.wrapping_add(n * PAGE_SIZE), |p| unsafe {
                p.write_bytes(STALE, PAGE_SIZE as usize);
            });
        }
        Ok(block)
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the caller's.
        unsafe { self.0.free(pa, order) }
    }
}

// SAFETY: one arena is behind both halves, and behind every clone and equal.
unsafe impl Memory for Stale<'_> {}

/// Which lines of [`Stale`] memory calls change. What a block holds when it is handed out is no change.
pub(crate) struct Written<'a> {
    arena: &'a Arena,
    before: Vec<u8>,
}

impl<'a> Written<'a> {
    pub(crate) fn new(arena: &'a Arena) -> Self {
        let bytes = arena.count_frames() * PAGE_SIZE;
        let mut written = Self { arena, before: std::vec![STALE; bytes as usize] };
        written.count();
        written
    }

    /// How many were changed since it was asked before; nothing is given back meanwhile.
    pub(crate) fn count(&mut self) -> usize {
        let (arena, mut count) = (self.arena, 0);
        for (before, n) in self.before.chunks_exact_mut(PAGE_SIZE as usize).zip(0..) {
            let frame = arena.first().addr().wrapping_add(n * PAGE_SIZE);
            if arena.is_in_use(frame) {
                arena.with(frame, |p| {
                    // SAFETY: a frame that is handed out, so its bytes are there and were filled;
                    // the test that asks has no other thread.
                    let now = unsafe { core::slice::from_raw_parts(p.as_ptr(), before.len()) };
                    if now != before {
                        let lines = now.chunks(64).zip(before.chunks(64));
                        count += lines.filter(|(now, before)| now != before).count();
                        before.copy_from_slice(now);
                    }
                });
            }
        }
        count
    }
}
