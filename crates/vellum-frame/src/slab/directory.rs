//! Where the frames of a slab are, by number.
//!
//! ```text
//!   level 3    512 words ---> level 2    512 words ---> level 1    256 entries of 16 bytes
//!                                                       level 0    one entry, in the slab itself
//!
//!   entry   63                                    12 11         9           0
//!   word   | the frame's address                    | V |      | filled       |     V: no frame has
//!                                                                                   this number
//!   list    63      54 53       44 43             22 21                     0
//!          | in use   | first free | previous       | next                    |
//! ```
//!
//! It grows at the top, as a file's block map does: one frame needs no directory, and up to 256 of them
//! one load. Slots below `filled` hold a value; the others have never been used, and lie behind them.
//! The free ones of those that are filled are a list from `first free` on.
//!
//! # Invariants
//!
//! - Entries below `len` exist; the frames of the levels belong to the directory, and words above the
//!   first level are [`NOTHING`] where there is no frame below.

use vellum_core::{Memory, OutOfFrames, PAGE_SIZE, PhysAddr};

/// No frame has this number.
pub(super) const NO_NUMBER: u32 = (1 << NUMBER_BITS) - 1;
const NUMBER_BITS: u32 = 22;
const SLOT_BITS: u32 = 10;
/// The low bits of a frame's word.
const LOW: u64 = PAGE_SIZE - 1;
const FILLED: u64 = (1 << SLOT_BITS) - 1;
const VACANT: u64 = 1 << 11;
/// In a level above the first: nothing is below.
const NOTHING: u64 = u64::MAX;
/// log2 of the entries of the first level, and of the words of each above.
const ENTRY_BITS: u32 = 8;
const WORD_BITS: u32 = 9;

/// What is known of one frame.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    word: u64,
    list: u64,
}

impl Entry {
    /// No slot is free.
    pub(super) const NO_SLOT: u32 = (1 << SLOT_BITS) - 1;

    /// A frame of which no slot is filled, in no list.
    pub(super) const fn new(frame: PhysAddr) -> Self {
        let list = (Self::NO_SLOT as u64) << (2 * NUMBER_BITS) | NO_NUMBER as u64;
        Self { word: frame.as_u64(), list }
    }

    /// A number without a frame; `next` is one more, or none.
    pub(super) const fn vacant(next: u32) -> Self {
        Self { word: VACANT, list: next as u64 }
    }

    pub(super) const fn is_vacant(&self) -> bool {
        self.word & VACANT != 0
    }

    pub(super) const fn frame(&self) -> PhysAddr {
        PhysAddr::new(self.word & !LOW)
    }

    /// The place of a slot of so many bytes, if it is filled, of the frame of this word.
    #[inline(always)]
    pub(super) const fn filled_slot(word: u64, slot: u32, size: u64) -> Option<PhysAddr> {
        if (slot as u64) < word & FILLED {
            Some(PhysAddr::new((word & !LOW) + slot as u64 * size))
        } else {
            None
        }
    }

    /// How many slots are filled.
    pub(super) const fn filled(&self) -> u32 {
        (self.word & FILLED) as u32
    }

    /// One more is.
    pub(super) const fn fill_one(&mut self) {
        self.word += 1;
    }

    pub(super) const fn first_free(&self) -> u32 {
        (self.list >> (2 * NUMBER_BITS)) as u32 & Self::NO_SLOT
    }

    /// Slots in use.
    pub(super) const fn used(&self) -> u32 {
        (self.list >> (2 * NUMBER_BITS + SLOT_BITS)) as u32
    }

    pub(super) const fn set_used(&mut self, used: u32, first_free: u32) {
        let slots = (used as u64) << SLOT_BITS | first_free as u64;
        self.list = self.list & ((1 << (2 * NUMBER_BITS)) - 1) | slots << (2 * NUMBER_BITS);
    }

    pub(super) const fn next(&self) -> u32 {
        self.list as u32 & NO_NUMBER
    }

    pub(super) const fn prev(&self) -> u32 {
        (self.list >> NUMBER_BITS) as u32 & NO_NUMBER
    }

    pub(super) const fn link(&mut self, prev: u32, next: u32) {
        let slots = self.list >> (2 * NUMBER_BITS) << (2 * NUMBER_BITS);
        self.list = slots | (prev as u64) << NUMBER_BITS | next as u64;
    }
}

/// The entries of a slab's frames.
pub(super) struct Directory<M: Memory> {
    memory: M,
    /// The only entry there is, without levels.
    only: Entry,
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
        let only = Entry::vacant(NO_NUMBER);
        Self { memory, only, root: PhysAddr::new(0), levels: 0, len: 0, frames: 0 }
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
        if number >= self.len {
            return None;
        }
        if self.levels == 0 {
            return Some(self.only.word);
        }
        // SAFETY: `place` leads to the words of an entry that exists.
        Some(unsafe { load(&self.memory, self.place(number)) })
    }

    pub(super) fn entry(&self, number: u32) -> Option<Entry> {
        if number >= self.len {
            return None;
        }
        if self.levels == 0 {
            return Some(self.only);
        }
        let at = self.place(number);
        // SAFETY: as in `word`; an entry has two words.
        let [word, list] = [at, at.wrapping_add(8)].map(|at| unsafe { load(&self.memory, at) });
        Some(Entry { word, list })
    }

    /// Sets an entry, if there is one of this number.
    pub(super) fn set(&mut self, number: u32, entry: Entry) {
        if number >= self.len {
            return;
        }
        if self.levels == 0 {
            self.only = entry;
            return;
        }
        let at = self.place(number);
        // SAFETY: as in `entry`, and `self` is borrowed alone.
        unsafe {
            store(&self.memory, at, entry.word);
            store(&self.memory, at.wrapping_add(8), entry.list);
        }
    }

    /// Changes an entry, if there is one of this number.
    pub(super) fn change(&mut self, number: u32, f: impl FnOnce(&mut Entry)) {
        if let Some(mut entry) = self.entry(number) {
            f(&mut entry);
            self.set(number, entry);
        }
    }

    /// The address of the words of an entry that exists, where there are levels.
    #[inline(always)]
    fn place(&self, number: u32) -> PhysAddr {
        let first = match self.levels {
            1 => self.root,
            2 => self.below(self.root, number, 2),
            _ => self.first_level(number),
        };
        first.wrapping_add((number as u64 % (1 << ENTRY_BITS)) * 16)
    }

    /// The frame of the first level that has an entry which exists.
    #[cold]
    fn first_level(&self, number: u32) -> PhysAddr {
        let levels = (2..=self.levels).rev();
        levels.fold(self.root, |at, level| self.below(at, number, level))
    }

    /// The frame that a frame of `level`, 2 or more, leads to for an entry that exists.
    #[inline(always)]
    fn below(&self, at: PhysAddr, number: u32, level: u32) -> PhysAddr {
        let word = at.wrapping_add(Self::word_in(number, level) * 8);
        // SAFETY: a word of a frame of this level, which leads to one of the level below, as the entry
        // exists.
        PhysAddr::new(unsafe { load(&self.memory, word) })
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
        if self.levels == 0 && number > 0 {
            let first = self.new_frame()?;
            let only = self.only;
            (self.root, self.levels) = (first, 1);
            self.set(0, only);
        } else if self.levels > 0 && u64::from(number) >= room(self.levels) {
            let top = self.new_frame()?;
            // SAFETY: the first word of a frame just taken.
            unsafe { store(&self.memory, top, self.root.as_u64()) };
            (self.root, self.levels) = (top, self.levels + 1);
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
        self.set(number, Entry::vacant(NO_NUMBER));
        Ok(())
    }

    /// A frame of [`NOTHING`]; entries are written as they come to exist.
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
/// `at` is a multiple of 8 in a frame of a directory of this memory, of which nobody has a reference.
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
