//! Records what an operation does to table memory: which lines it reaches, and which it changes.
//!
//! ```text
//!   record      with(pa)                                    recorded
//!     |         first time in a frame: keep a copy of it      |
//!     v         every time: note the line of pa               v
//!   -----------------------------------------------------------------> compare copies with now
//!               alloc, free: count frames
//! ```
//!
//! Every access of a table goes through `PhysMap::with`, whose pointer is good for one frame. So a
//! copy of each frame, taken when it is first reached, is a snapshot of all that can change.
//!
//! What it cannot see: a line that was written with what it held before (a lock taken and given
//! back, a zero over a zero), and lines that are only read through the pointer to another line of
//! the same frame, as a radix node's neighbouring entries are. The counts are bounds from below.
//!
//! # Invariants
//!
//! - A frame's copy is older than every pointer to it that was handed out since `start`.
//! - `touched` of a frame has the bit of every line that `with` was asked for.

use crate::cache::LINE_SHIFT;
use core::cell::{Cell, RefCell};
use core::ops::Add;
use core::ptr::NonNull;
use std::collections::HashMap;
use vellum_core::{PAGE_SHIFT, PAGE_SIZE};

const LINES: usize = (PAGE_SIZE >> LINE_SHIFT) as usize;
const LINE: usize = 1 << LINE_SHIFT;

/// What an operation did to table memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Lines of 64 bytes whose content is another now.
    pub lines_written: u64,
    /// Lines that were reached or are another now.
    pub lines_touched: u64,
    /// How often memory was reached.
    pub accesses: u64,
    /// Frames that were taken for tables.
    pub frames_taken: u64,
    /// Frames that were given back.
    pub frames_given: u64,
}

impl Add for Changes {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            lines_written: self.lines_written + more.lines_written,
            lines_touched: self.lines_touched + more.lines_touched,
            accesses: self.accesses + more.accesses,
            frames_taken: self.frames_taken + more.frames_taken,
            frames_given: self.frames_given + more.frames_given,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Recorder {
    on: Cell<bool>,
    counts: Cell<Changes>,
    frames: RefCell<HashMap<u64, Frame>>,
}

/// A frame as it was.
#[derive(Debug)]
struct Frame {
    before: Box<[u8]>,
    touched: u64,
}

impl Recorder {
    pub(super) fn start(&self) {
        self.counts.set(Changes::default());
        self.frames.borrow_mut().clear();
        self.on.set(true);
    }

    #[inline]
    pub(super) const fn is_on(&self) -> bool {
        self.on.get()
    }

    /// Somebody is about to use a pointer to the byte `offset` behind `base`, in the frame there.
    #[cold]
    pub(super) fn reached(&self, base: NonNull<u8>, offset: u64) {
        self.count(|counts| counts.accesses += 1);
        let number = offset >> PAGE_SHIFT;
        let mut frames = self.frames.borrow_mut();
        let frame = frames
            .entry(number)
            .or_insert_with(|| Frame { before: copy(base, number), touched: 0 });
        frame.touched |= 1 << ((offset >> LINE_SHIFT) as usize % LINES);
    }

    pub(super) fn taken(&self, frames: u64) {
        self.count(|counts| counts.frames_taken += frames);
    }

    pub(super) fn given(&self, frames: u64) {
        self.count(|counts| counts.frames_given += frames);
    }

    fn count(&self, add: impl FnOnce(&mut Changes)) {
        let mut counts = self.counts.get();
        add(&mut counts);
        self.counts.set(counts);
    }

    pub(super) fn finish(&self, base: NonNull<u8>) -> Changes {
        self.on.set(false);
        let mut changes = self.counts.get();
        for (&number, frame) in &*self.frames.borrow() {
            let now = copy(base, number);
            let lines = frame.before.chunks_exact(LINE).zip(now.chunks_exact(LINE)).enumerate();
            let differ = lines.filter(|(_, (a, b))| a != b);
            let written = differ.fold(0u64, |bits, (line, _)| bits | 1 << line);
            changes.lines_written += u64::from(written.count_ones());
            changes.lines_touched += u64::from((written | frame.touched).count_ones());
        }
        changes
    }
}

/// The bytes of frame `number` behind `base`, which is a frame of the allocation.
fn copy(base: NonNull<u8>, number: u64) -> Box<[u8]> {
    let mut bytes = vec![0; PAGE_SIZE as usize];
    // SAFETY: `with` asks for offsets that it has checked, so the frame is within the allocation
    // that `base` is derived from; the vector is a frame long, and no part of it. Nobody writes
    // meanwhile: the memory is used by this one thread (a `Cell` keeps it from others).
    #[allow(unsafe_code, reason = "copies simulated memory")]
    unsafe {
        let frame = base.add((number << PAGE_SHIFT) as usize);
        frame.copy_to_nonoverlapping(NonNull::from(&mut *bytes).cast(), bytes.len());
    }
    bytes.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use crate::ram::{Changes, TableRam, with_ram};
    use vellum_core::{FrameSource, PAGE_SIZE, PhysAddr, PhysMap};

    fn write(ram: &TableRam<'_>, pa: PhysAddr, value: u64) {
        // SAFETY: eight aligned bytes of a frame that the test has allocated.
        #[allow(unsafe_code, reason = "the test writes to simulated RAM")]
        ram.with(pa, |p| unsafe { p.cast::<u64>().write(value) });
    }

    #[test]
    fn lines_that_change_are_told_from_lines_that_are_reached() {
        with_ram(1, 1, |ram, _| {
            let frame = ram.alloc(1).unwrap();
            write(ram, frame, 7);
            ram.record();
            write(ram, frame, 7); // the same again
            write(ram, frame.wrapping_add(64), 1);
            write(ram, frame.wrapping_add(72), 1); // the same line
            write(ram, frame.wrapping_add(PAGE_SIZE), 5);
            write(ram, frame.wrapping_add(PAGE_SIZE), 0); // and back
            let more = ram.alloc(2).unwrap();
            // SAFETY: just allocated with this order.
            #[allow(unsafe_code, reason = "the test gives its block back")]
            unsafe {
                FrameSource::free(&ram, more, 2);
            }
            let changes = ram.recorded();
            let expected = Changes {
                lines_written: 1,
                lines_touched: 3,
                accesses: 5,
                frames_taken: 4,
                frames_given: 4,
            };
            assert_eq!(changes, expected);
            write(ram, frame, 8); // not recorded
            ram.record();
            assert_eq!(ram.recorded(), Changes::default());
        })
        .unwrap();
    }
}
