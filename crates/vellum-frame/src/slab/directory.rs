//! Where the frames of a slab are, by number.
//!
//! ```text
//!   level 3    512 words ---> level 2    512 words ---> level 1    256 entries of 16 bytes
//!
//!   entry   63                              12 11     9        0
//!   word   | the frame's address              | C |   | first   |    C: closed, its slots are not
//!                                                                    filled yet, or there is no frame
//!   list    63      52 51             26 25              0
//!          | in use   | previous        | next              |        of the list that it is in
//! ```
//!
//! It grows at the top, as a file's block map does: small slabs have one level, and pay one load.
//! Addresses of levels above the first have their words, [`NOTHING`] where there is none yet.
//!
//! # Invariants
//!
//! - Entries below `len` exist; their frames and those of the levels above belong to the directory.

use vellum_core::{Memory, OutOfFrames, PAGE_SIZE, PhysAddr};

/// No frame has this number.
pub(super) const NO_NUMBER: u32 = (1 << 26) - 1;
/// The low bits of a frame's word.
const LOW: u64 = PAGE_SIZE - 1;
const CLOSED: u64 = 1 << 11;
/// In a level above the first: nothing is below.
const NOTHING: u64 = u64::MAX;
/// log2 of the entries of the first level, and of the words of each above.
const ENTRY_BITS: u32 = 8;
const WORD_BITS: u32 = 9;

/// What is known of one frame.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) word: u64,
    list: u64,
}

impl Entry {
    /// No slot is free.
    pub(super) const NO_SLOT: u16 = (1 << 10) - 1;

    /// A frame whose slots are not filled yet, in no list.
    pub(super) const fn new(frame: PhysAddr) -> Self {
        Self { word: frame.as_u64() | CLOSED, list: NO_NUMBER as u64 }
    }

    /// A number without a frame; `next` is one more, or none.
    pub(super) const fn vacant(next: u32) -> Self {
        Self { word: NOTHING, list: next as u64 }
    }

    pub(super) const fn is_vacant(&self) -> bool {
        self.word == NOTHING
    }

    #[inline(always)]
    pub(super) const fn closed(word: u64) -> bool {
        word & CLOSED != 0
    }

    #[inline(always)]
    pub(super) const fn frame(word: u64) -> PhysAddr {
        PhysAddr::new(word & !LOW)
    }

    pub(super) const fn is_closed(&self) -> bool {
        Self::closed(self.word)
    }

    /// All slots are filled, and free from the first on.
    pub(super) const fn open(&mut self) {
        self.word &= !LOW;
    }

    pub(super) const fn first_free(&self) -> u16 {
        (self.word & Self::NO_SLOT as u64) as u16
    }

    pub(super) const fn set_first_free(&mut self, slot: u16) {
        self.word = self.word & !(Self::NO_SLOT as u64) | slot as u64;
    }

    /// Slots in use.
    pub(super) const fn used(&self) -> u32 {
        (self.list >> 52) as u32
    }

    pub(super) const fn set_used(&mut self, used: u32) {
        self.list = self.list << 12 >> 12 | (used as u64) << 52;
    }

    pub(super) const fn next(&self) -> u32 {
        self.list as u32 & NO_NUMBER
    }

    pub(super) const fn prev(&self) -> u32 {
        (self.list >> 26) as u32 & NO_NUMBER
    }

    pub(super) const fn link(&mut self, prev: u32, next: u32) {
        self.list = self.list >> 52 << 52 | (prev as u64) << 26 | next as u64;
    }
}

/// The entries of a slab's frames.
pub(super) struct Directory<M: Memory> {
    memory: M,
    /// The frame of the highest level, if there are levels.
    root: PhysAddr,
    levels: u32,
    /// Entries that exist.
    len: u32,
    /// Frames of all levels.
    frames: u32,
}

impl<M: Memory> Directory<M> {
    pub(super) const fn new(memory: M) -> Self {
        Self { memory, root: PhysAddr::new(0), levels: 0, len: 0, frames: 0 }
    }

    pub(super) const fn memory(&self) -> &M {
        &self.memory
    }

    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    pub(super) const fn frames(&self) -> u32 {
        self.frames
    }

    /// The word of an entry, if there is such an entry.
    #[inline(always)]
    pub(super) fn word(&self, number: u32) -> Option<u64> {
        // SAFETY: `place` leads to words of the directory's own frames.
        self.place(number).map(|at| unsafe { load(&self.memory, at) })
    }

    pub(super) fn entry(&self, number: u32) -> Option<Entry> {
        let at = self.place(number)?;
        // SAFETY: as in `word`; an entry has two words.
        let [word, list] = [at, at.wrapping_add(8)].map(|at| unsafe { load(&self.memory, at) });
        Some(Entry { word, list })
    }

    pub(super) fn set(&mut self, number: u32, entry: Entry) {
        if let Some(at) = self.place(number) {
            // SAFETY: as in `entry`, and `self` is borrowed alone.
            unsafe {
                store(&self.memory, at, entry.word);
                store(&self.memory, at.wrapping_add(8), entry.list);
            }
        }
    }

    /// Changes an entry, if there is one of this number.
    pub(super) fn change(&mut self, number: u32, f: impl FnOnce(&mut Entry)) {
        if let Some(mut entry) = self.entry(number) {
            f(&mut entry);
            self.set(number, entry);
        }
    }

    /// The address of an entry's words.
    #[inline(always)]
    fn place(&self, number: u32) -> Option<PhysAddr> {
        if number >= self.len {
            return None;
        }
        let mut at = self.root;
        for level in (2..=self.levels).rev() {
            let word = at.wrapping_add(Self::word_in(number, level) * 8);
            // SAFETY: a word of a frame of this level, which leads to one of the level below, as the
            // entry exists.
            at = PhysAddr::new(unsafe { load(&self.memory, word) });
        }
        Some(at.wrapping_add((number as u64 % (1 << ENTRY_BITS)) * 16))
    }

    /// Which word of a frame of `level`, 2 or more, leads to the entry `number`.
    #[inline(always)]
    const fn word_in(number: u32, level: u32) -> u64 {
        (number >> (ENTRY_BITS + WORD_BITS * (level - 2))) as u64 % (1 << WORD_BITS)
    }

    /// Adds an entry, vacant, of the number [`len`](Self::len); a failure may leave frames of levels
    /// that the next try finds.
    pub(super) fn extend(&mut self) -> Result<(), OutOfFrames> {
        let number = self.len;
        let room = |levels| 1u64 << (ENTRY_BITS + WORD_BITS * (levels - 1));
        if self.levels == 0 {
            self.root = self.new_frame()?;
            self.levels = 1;
        } else if u64::from(number) >= room(self.levels) {
            let top = self.new_frame()?;
            // SAFETY: the first word of a frame just taken.
            unsafe { store(&self.memory, top, self.root.as_u64()) };
            self.root = top;
            self.levels += 1;
        }
        let mut at = self.root;
        for level in (2..=self.levels).rev() {
            let word = at.wrapping_add(Self::word_in(number, level) * 8);
            // SAFETY: a word of a frame of this level.
            let below = unsafe { load(&self.memory, word) };
            at = PhysAddr::new(below);
            if below == NOTHING {
                at = self.new_frame()?;
                // SAFETY: the same word, of which nobody has a reference.
                unsafe { store(&self.memory, word, at.as_u64()) };
            }
        }
        self.len += 1;
        Ok(())
    }

    /// A frame of ones: no entry of it has a frame, no word leads anywhere.
    fn new_frame(&mut self) -> Result<PhysAddr, OutOfFrames> {
        let frame = self.memory.alloc(0)?;
        // SAFETY: the frame was taken just now, so its bytes are valid, and nobody else's.
        self.memory.with(frame, |p| unsafe { p.write_bytes(u8::MAX, PAGE_SIZE as usize) });
        self.frames += 1;
        Ok(frame)
    }

    /// Gives back the frames of all levels: there are no entries then.
    pub(super) fn clear(&mut self) {
        if self.levels > 0 {
            self.give(self.root, self.levels);
        }
        self.levels = 0;
        self.len = 0;
        self.frames = 0;
    }

    fn give(&self, frame: PhysAddr, level: u32) {
        if level > 1 {
            for word in 0..1 << WORD_BITS {
                // SAFETY: a word of a frame of this level.
                let below = unsafe { load(&self.memory, frame.wrapping_add(word * 8)) };
                if below != NOTHING {
                    self.give(PhysAddr::new(below), level - 1);
                }
            }
        }
        // SAFETY: `new_frame` took it with this order; `clear` forgets all of them.
        unsafe { self.memory.free(frame, 0) };
    }
}

/// The word at `at`.
///
/// # Safety
///
/// `at` is a multiple of 8 in a frame of a directory of this memory, of which nobody has a reference
/// that may be written through.
#[inline(always)]
unsafe fn load<M: Memory>(memory: &M, at: PhysAddr) -> u64 {
    // SAFETY: the pointer is valid for the rest of the frame, 8 bytes at least, and aligned as `at` is;
    // `new_frame` initialised all of it.
    memory.with(at, |p| unsafe { p.cast::<u64>().read() })
}

/// Sets the word at `at`.
///
/// # Safety
///
/// As [`load`], and nobody reads it meanwhile.
unsafe fn store<M: Memory>(memory: &M, at: PhysAddr, word: u64) {
    // SAFETY: as in `load`.
    memory.with(at, |p| unsafe { p.cast::<u64>().write(word) })
}
