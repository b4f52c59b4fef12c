//! Records what an operation does to table memory: which lines it reaches, and which it changes.
//!
//! ```text
//!   record      with(pa)                                    recorded
//!     |         first time in a frame: keep a copy of it      |
//!     v         every time: note the line of pa               v
//!   -----------------------------------------------------------------> compare copies with now
//!               alloc: fill the block with a pattern, which is its frames' copy; free: count
//! ```
//!
//! Every access of a table goes through `PhysMap::with`, whose pointer is good for one frame. So a
//! copy of each frame, taken when it is first reached, is a snapshot of all that can change.
//!
//! What a table zeroes shows, too: a block that is taken meanwhile does not come zeroed, as no block
//! does that was in use before.
//!
//! What it cannot see: a line that was written with what it held before (a lock taken and given
//! back, a zero over a zero), and lines that are only read through the pointer to another line of
//! the same frame, as a radix node's neighbouring entries are. The counts are bounds from below.
//!
//! # Invariants
//!
//! - A frame's copy is older than every pointer to it that was handed out since `start`.
//! - The pattern is in a block before its taker has it, and stays until somebody writes: lines that are
//!   zeroed only by a later call count there.
//! - `touched` of a frame has the bit of every line that `with` was asked for.

use crate::cache::LINE_SHIFT;
use core::cell::{Cell, RefCell};
use core::ops::Add;
use core::ptr::NonNull;
use std::collections::HashMap;
use vellum_core::{PAGE_SHIFT, PAGE_SIZE};

const LINES: usize = (PAGE_SIZE >> LINE_SHIFT) as usize;
const LINE: usize = 1 << LINE_SHIFT;

/// What every byte of a block holds that is taken: no table's entry looks like it.
const PATTERN: u8 = 0xa5;

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

    /// So many frames from `offset` behind `base` are about to be given to a table.
    #[cold]
    pub(super) fn taken(&self, base: NonNull<u8>, offset: u64, frames: u64) {
        self.count(|counts| counts.frames_taken += frames);
        for number in (offset >> PAGE_SHIFT..).take(frames as usize) {
            if let Some(earlier) = self.frames.borrow_mut().remove(&number) {
                self.count(|counts| earlier.compare(base, number, counts));
            }
            fill(base, number);
            let before = vec![PATTERN; PAGE_SIZE as usize].into_boxed_slice();
            self.frames.borrow_mut().insert(number, Frame { before, touched: 0 });
        }
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
            frame.compare(base, number, &mut changes);
        }
        changes
    }
}

impl Frame {
    /// Adds how it differs now.
    fn compare(&self, base: NonNull<u8>, number: u64, changes: &mut Changes) {
        let now = copy(base, number);
        let lines = self.before.chunks_exact(LINE).zip(now.chunks_exact(LINE)).enumerate();
        let differ = lines.filter(|(_, (a, b))| a != b);
        let written = differ.fold(0u64, |bits, (line, _)| bits | 1 << line);
        changes.lines_written += u64::from(written.count_ones());
        changes.lines_touched += u64::from((written | self.touched).count_ones());
    }
}

/// Fills frame `number` behind `base`, which is a frame of the allocation that nobody uses.
fn fill(base: NonNull<u8>, number: u64) {
    // SAFETY: the frame was just taken from the allocator, whose frames are within the allocation that
    // `base` is derived from; its taker does not have it yet, so nobody else reads or writes it.
    #[allow(unsafe_code, reason = "fills simulated memory")]
    unsafe {
        base.add((number << PAGE_SHIFT) as usize).write_bytes(PATTERN, PAGE_SIZE as usize);
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
            write(ram, more, 0); // a zero over the pattern
            write(ram, more.wrapping_add(3 * PAGE_SIZE), 9);
            // SAFETY: just allocated with this order.
            #[allow(unsafe_code, reason = "the test gives its block back")]
            unsafe {
                FrameSource::free(&ram, more, 2);
            }
            let changes = ram.recorded();
            let expected = Changes {
                lines_written: 3,
                lines_touched: 5,
                accesses: 7,
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

    #[test]
    fn a_line_is_counted_in_the_call_that_zeroes_it() {
        with_ram(1, 1, |ram, _| {
            ram.record();
            let block = ram.alloc(1).unwrap();
            (0..64).for_each(|line| write(ram, block.wrapping_add(line * 64), 0));
            assert_eq!(ram.recorded().lines_written, 64, "the second frame is as it came");
            ram.record();
            write(ram, block.wrapping_add(PAGE_SIZE + 64), 0);
            write(ram, block, 0);
            assert_eq!(ram.recorded().lines_written, 1);
            ram.record();
            // Taken, written, given back, and taken again within one call: written twice.
            for _ in 0..2 {
                let frame = ram.alloc(0).unwrap();
                write(ram, frame, 0);
                // SAFETY: just allocated with this order.
                #[allow(unsafe_code, reason = "the test gives its frame back")]
                unsafe {
                    FrameSource::free(&ram, frame, 0);
                }
            }
            assert_eq!(ram.recorded().lines_written, 2);
        })
        .unwrap();
    }
}
