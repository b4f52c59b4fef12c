//! Memory and files for models under loom: those of this crate, and of the crates above.
//!
//! ```text
//!   frame   owner's cell    who has it for himself writes it, who has a share reads it: loom sees it
//!                           if one of them does not come after the other
//!           word            what programs load and store, copies copy, and files are read into
//!           bytes           of the host; the first word says which frame they are
//! ```
//!
//! # Invariants
//!
//! - A frame whose bit in `free` is clear belongs to whoever cleared it.

use crate::files::{FileError, FileId, Files};
use crate::page::{PageInfo, Pages};
use crate::sync::AtomicU64;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64 as Unseen;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU64 as Exchanged;
use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;
use vellum_core::{
    FrameBytes, FrameSource, Memory, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, PhysAddr, PhysMap,
};

/// Where memory begins: no frame is at 0, and blocks of up to 16 frames are aligned.
pub const ORIGIN: u64 = 16 << PAGE_SHIFT;
/// The words of a frame's bytes.
const WORDS: usize = 512;
/// How many bytes behind the first word are cleared and copied.
const COPIED: usize = 56;

struct Frame {
    owned: UnsafeCell<()>,
    word: Exchanged,
    bytes: Box<core::cell::UnsafeCell<[u64; WORDS]>>,
    info: PageInfo,
}

struct Inner {
    free: Exchanged,
    /// The same, for a look that is no step.
    guess: Unseen,
    frames: Vec<Frame>,
}

/// A few frames; a clone is the same memory.
#[derive(Clone)]
pub struct Ram(Arc<Inner>);

// SAFETY: cells are loom's, which tells of accesses that are not ordered; bytes of the host are used by
// those who have the frame, and through atomics.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Ram {
    /// Memory of up to 63 frames.
    #[must_use]
    pub fn new(frames: u32) -> Self {
        let frame = |_| Frame {
            owned: UnsafeCell::new(()),
            word: Exchanged::new(0),
            bytes: Box::new(core::cell::UnsafeCell::new([0; WORDS])),
            info: PageInfo::new(),
        };
        let all = (1 << frames) - 1;
        let (free, guess) = (Exchanged::new(all), Unseen::new(all));
        Self(Arc::new(Inner { free, guess, frames: (0..frames).map(frame).collect() }))
    }

    fn frame(&self, pa: PhysAddr) -> Option<&Frame> {
        let number = pa.as_u64().checked_sub(ORIGIN)? >> PAGE_SHIFT;
        self.0.frames.get(usize::try_from(number).ok()?)
    }

    fn known(&self, pa: PhysAddr) -> &Frame {
        self.frame(pa).expect("an address in this memory")
    }

    /// How many frames are free.
    #[must_use]
    pub fn count_free(&self) -> u32 {
        self.0.guess.load(Relaxed).count_ones()
    }

    /// The word of a frame, for who has a share in it.
    #[must_use]
    pub fn load(&self, pa: PhysAddr) -> u64 {
        let frame = self.known(pa);
        frame.owned.with(|_| ());
        frame.word.fetch_add(0, Relaxed)
    }

    /// Adds to the word of a frame, for who has a share in it: what a program's store is here, since of
    /// two of them both are to be seen.
    pub fn add(&self, pa: PhysAddr, value: u64) {
        let frame = self.known(pa);
        frame.owned.with(|_| ());
        frame.word.fetch_add(value, Relaxed);
    }

    /// Sets the word of a frame, for who has it for himself.
    pub fn fill(&self, pa: PhysAddr, value: u64) {
        let frame = self.known(pa);
        frame.owned.with_mut(|_| ());
        frame.word.swap(value, Relaxed);
    }

    fn put_back(&self, frames: u64) {
        let before = self.0.free.fetch_or(frames, Release);
        self.0.guess.fetch_or(frames, Relaxed);
        assert_eq!(before & frames, 0, "a frame was freed twice");
    }

    /// The frame that these bytes are.
    #[must_use]
    pub fn frame_of(bytes: FrameBytes<'_>) -> PhysAddr {
        let mut number = [0; 8];
        bytes.read(0, &mut number);
        PhysAddr::new(u64::from_ne_bytes(number))
    }
}

impl PartialEq for Ram {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Ram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ram")
    }
}

// SAFETY: each frame has bytes of its own, which live as long as the memory.
unsafe impl PhysMap for Ram {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        let frame = self.known(pa);
        frame.owned.with(|_| ());
        let offset = (pa.as_u64() % PAGE_SIZE) as usize;
        // SAFETY: within the 4 KiB.
        f(unsafe { NonNull::new_unchecked(frame.bytes.get()).cast::<u8>().add(offset) })
    }
}

// SAFETY: a block's bits were set, and were cleared in one step.
unsafe impl FrameSource for Ram {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        let count = 1u32 << order;
        let block = (1u64 << count) - 1;
        let at = loop {
            let free = self.0.guess.load(Relaxed);
            let fits = |at: &u32| free >> at & block == block;
            let at = (0..64 - count).step_by(count as usize).find(fits);
            let at = at.ok_or(OutOfFrames { order })?;
            let before = self.0.free.fetch_and(!(block << at), Acquire);
            self.0.guess.fetch_and(!(block << at), Relaxed);
            if before >> at & block == block {
                break at;
            }
            // Somebody was faster with some of them; the others stay free.
            self.put_back(before & block << at);
        };
        for frame in at..at + count {
            let pa = PhysAddr::new(ORIGIN + (u64::from(frame) << PAGE_SHIFT));
            let frame = self.known(pa);
            frame.owned.with_mut(|_| ());
            // SAFETY: the first word of a frame that nobody has but this call.
            unsafe { frame.bytes.get().cast::<u64>().write(pa.as_u64()) }
        }
        Ok(PhysAddr::new(ORIGIN + (u64::from(at) << PAGE_SHIFT)))
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        let count = 1u32 << order;
        let at = (pa.as_u64() - ORIGIN) >> PAGE_SHIFT;
        for frame in 0..count {
            self.known(pa.wrapping_add(u64::from(frame) << PAGE_SHIFT)).owned.with_mut(|_| ());
        }
        self.put_back(((1u64 << count) - 1) << at);
    }
}

// SAFETY: a clone is the same memory, and equality is identity.
unsafe impl Memory for Ram {}

// SAFETY: each frame has its record.
unsafe impl Pages for Ram {
    type Memory = Self;

    fn memory(&self) -> &Self {
        self
    }

    fn info(&self, pa: PhysAddr) -> Option<&PageInfo> {
        self.frame(pa).map(|frame| &frame.info)
    }

    fn each_info(&self, f: &mut impl FnMut(&PageInfo)) {
        self.0.frames.iter().for_each(|frame| f(&frame.info));
    }

    unsafe fn clear(&self, pa: PhysAddr) {
        self.fill(pa, 0);
        self.with(pa.wrapping_add(8), |to| {
            // SAFETY: within the frame, which the caller has for himself.
            unsafe { to.write_bytes(0, COPIED) }
        });
    }

    unsafe fn copy(&self, to: PhysAddr, from: PhysAddr) {
        self.fill(to, self.load(from));
        let mut bytes = [0; COPIED];
        self.with(from.wrapping_add(8), |from| {
            // SAFETY: within the frame, of which the caller has a share; threads of loom's take turns.
            bytes = unsafe { from.cast().read() };
        });
        self.with(to.wrapping_add(8), |to| {
            // SAFETY: within the frame, which the caller has for himself.
            unsafe { to.cast().write(bytes) }
        });
    }
}

/// Files of one length, each page of which has a word; up to 4 pages of files 0 to 3.
#[derive(Debug)]
pub struct Disk {
    ram: Ram,
    len: AtomicU64,
    words: [AtomicU64; 16],
    reads: AtomicU64,
}

impl Disk {
    /// Files of `len` bytes, of which page `i` of file `f` has the word `f * 10 + i + 1`.
    #[must_use]
    pub fn new(ram: &Ram, len: u64) -> Self {
        let words = core::array::from_fn(|i| AtomicU64::new(i as u64 / 4 * 10 + i as u64 % 4 + 1));
        Self { ram: ram.clone(), len: AtomicU64::new(len), words, reads: AtomicU64::new(0) }
    }

    /// Makes all files this long.
    pub fn resize(&self, len: u64) {
        self.len.store(len, Relaxed);
    }

    /// How often a page was read.
    pub fn count_reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// The word of a page, as it is stored.
    #[must_use]
    pub fn word(&self, file: FileId, index: u64) -> u64 {
        self.cell(file, index).load(SeqCst)
    }

    fn cell(&self, file: FileId, index: u64) -> &AtomicU64 {
        &self.words[(file.0 * 4 + index) as usize]
    }
}

impl Files for Disk {
    fn len_bytes(&self, _: FileId) -> u64 {
        self.len.load(Relaxed)
    }

    /// Behind the first word the bytes say whether the file was longer when this began.
    fn read(&self, file: FileId, index: u64, to: FrameBytes<'_>) -> Result<(), FileError> {
        self.reads.fetch_add(1, Relaxed);
        let rest = self.len_bytes(file).saturating_sub(index * PAGE_SIZE);
        to.write(16, &[u8::from(rest > 16)]);
        self.ram.fill(Ram::frame_of(to), self.cell(file, index).load(Acquire));
        Ok(())
    }

    fn write(&self, file: FileId, index: u64, from: FrameBytes<'_>) -> Result<(), FileError> {
        let word = self.ram.load(Ram::frame_of(from));
        self.cell(file, index).store(word, Release);
        Ok(())
    }
}
