//! Objects of one type in frames, named by a small number.
//!
//! ```text
//!   index  | frame's number in the slab | slot |        u32; the slot has as many bits as it needs
//!                      |                   |
//!   directory  [ frame 0 | frame 1 | ... ] |            no load, one, or two (see `directory`)
//!                      |                   |
//!   frame      | slot 0 | slot 1 | ... | slot n | rest |
//!              | value, link |       never used |         link: next free slot, or "in use"
//!
//!   partial -->  frames with some slots in use and some free       insertions take from here first,
//!   empty   -->  frames with none in use                           then from here
//!   vacant  -->  numbers without a frame                           a new frame takes one of these
//! ```
//!
//! What is handed out is a number, not an address, and what it names can be asked for without trust:
//! a number that was never handed out names nothing, and one whose object was removed names what lies
//! in its slot since. That is what lets a tree with `forbid(unsafe_code)` link its nodes. Objects are
//! `Copy`, so a slot that was used once holds a value for good, and one count for each frame tells
//! those that may be read.
//!
//! A memory's pointers are good within one closure (`PhysMap::with`), so objects are reached in
//! closures: [`with`](Slab::with) through `&self`, by as many at once as like to,
//! [`with_mut`](Slab::with_mut) and [`with_pair`](Slab::with_pair) through `&mut self`.
//!
//! # Invariants
//!
//! - The slots of a frame below its count of filled ones hold a valid `Slot`.
//! - Free slots of all frames, filled or not, are counted in `free`; a frame is in the list that its
//!   count of slots in use says, a full one in none.
//! - `free` is at least `kept`, the slots that were reserved and not taken since.
//!
//! Source: J. Bonwick, "The Slab Allocator: An Object-Caching Kernel Memory Allocator", USENIX 1994,
//! for frames by how full they are; the directory and the numbers are ours.

use core::fmt;
use core::marker::PhantomData;
use vellum_core::{Memory, OutOfFrames, PAGE_SIZE, PhysAddr};

mod directory;
use directory::{Directory, Entry, NO_NUMBER};

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

/// An object and its place in the list of free slots.
#[derive(Clone, Copy)]
struct Slot<T> {
    value: T,
    /// [`USED`], or the next free slot of the frame, or [`Entry::NO_SLOT`].
    link: u16,
}

const USED: u16 = u16::MAX;
/// More slots than that a frame is not divided into.
const MOST_SLOTS: usize = 512;

/// Objects of type `T` in frames of `M`.
///
/// ```
/// use vellum_frame::slab::Slab;
/// use vellum_testkit::Arena;
///
/// let arena = Arena::new(16);
/// let mut points = Slab::new(&arena);
/// points.reserve(2)?; // two insertions will find room, whatever else runs out of memory
/// let a = points.insert([1, 2])?;
/// let b = points.insert([3, 4])?;
/// points.with_mut(a, |point| point[0] = 9);
/// assert_eq!(points.with(a, |point| point[0]), Some(9));
/// assert_eq!(points.remove(b), Some([3, 4]));
/// drop(points);
/// assert_eq!(arena.frames_in_use(), 0);
/// # Ok::<(), vellum_core::OutOfFrames>(())
/// ```
pub struct Slab<T: Copy, M: Memory> {
    directory: Directory<M>,
    /// Objects.
    len: u32,
    /// Slots without one.
    free: u32,
    /// Of those, how many are promised to insertions to come.
    kept: u32,
    /// Frames with slots, and how many of them have no object.
    frames: u32,
    empty_frames: u32,
    partial: u32,
    empty: u32,
    vacant: u32,
    objects: PhantomData<T>,
}

impl<T: Copy, M: Memory> Slab<T, M> {
    const SIZE: usize = size_of::<Slot<T>>();
    /// Slots of a frame.
    const SLOTS: usize = {
        let slots = PAGE_SIZE as usize / Self::SIZE;
        assert!(slots > 0 && align_of::<Slot<T>>() <= PAGE_SIZE as usize, "larger than a frame");
        if slots > MOST_SLOTS { MOST_SLOTS } else { slots }
    };
    /// Bits of an index that say which slot.
    const SLOT_BITS: u32 = Self::SLOTS.next_power_of_two().trailing_zeros();
    /// Numbers of frames are below this.
    const MOST_FRAMES: u32 = {
        let by_index = 1u64 << (32 - Self::SLOT_BITS);
        if by_index < NO_NUMBER as u64 { by_index as u32 } else { NO_NUMBER }
    };

    /// One without objects and without frames.
    #[must_use]
    pub const fn new(memory: M) -> Self {
        Self {
            directory: Directory::new(memory),
            len: 0,
            free: 0,
            kept: 0,
            frames: 0,
            empty_frames: 0,
            partial: NO_NUMBER,
            empty: NO_NUMBER,
            vacant: NO_NUMBER,
            objects: PhantomData,
        }
    }

    /// How many objects there are.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all frames that it holds, the directory's among them.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        (self.frames as u64 + self.directory.frames() as u64) * PAGE_SIZE
    }

    /// The memory that its frames come from.
    #[must_use]
    pub const fn memory(&self) -> &M {
        self.directory.memory()
    }

    /// Sees to it that the next `n` insertions find room, also if there are removals among them; what
    /// is promised already counts. O(frames that this takes).
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when the memory has too little, or the slab has as many frames as it can
    /// tell apart (2<sup>22</sup>, 16 GiB); no object has changed, and what was taken meanwhile has been given back.
    pub fn reserve(&mut self, n: u32) -> Result<(), OutOfFrames> {
        while self.free < n {
            if let Err(out) = self.grow() {
                self.trim();
                return Err(out);
            }
        }
        self.kept = self.kept.max(n);
        Ok(())
    }

    /// Takes back what was promised by [`reserve`](Self::reserve), and gives back empty frames but for
    /// one; O(those).
    pub fn release(&mut self) {
        self.kept = 0;
        self.trim();
    }

    /// Gives back all memory that no object needs: O(frames given back).
    pub fn shrink(&mut self) {
        self.kept = 0;
        while self.empty_frames > 0 {
            self.drop_empty();
        }
        if self.frames == 0 {
            self.directory.clear();
            self.vacant = NO_NUMBER;
        }
    }

    /// Puts an object in; its index, which is below 2<sup>32</sup> and names it until it is removed.
    /// O(1).
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`], never after [`reserve`](Self::reserve).
    pub fn insert(&mut self, value: T) -> Result<u32, OutOfFrames> {
        if self.free == 0 {
            self.grow()?;
        }
        let number = if self.partial == NO_NUMBER { self.empty } else { self.partial };
        // There is a free slot, so one of the lists has a frame, and that frame one.
        let mut entry = self.directory.entry(number).ok_or(OutOfFrames { order: 0 })?;
        self.unlist(number, &entry);
        let (slot, next) = self.fill(&mut entry, value);
        entry.set_used(entry.used() + 1, next);
        self.list(number, &mut entry);
        self.directory.set(number, entry);
        self.len += 1;
        self.free -= 1;
        self.kept = self.kept.saturating_sub(1);
        Ok(number << Self::SLOT_BITS | slot)
    }

    /// Puts a value into a free slot of a frame that has one: which slot, and what is the first free
    /// one then.
    fn fill(&self, entry: &mut Entry, value: T) -> (u32, u32) {
        let used = Slot { value, link: USED };
        let free = entry.first_free();
        if free != Entry::NO_SLOT {
            let at = entry.frame().wrapping_add(u64::from(free) * Self::SIZE as u64);
            let next = self.directory.memory().with(at, |p| {
                // SAFETY: a slot in the list of free ones is filled, so it can be replaced as in `reach`;
                // `self` is borrowed alone by `insert`, so nobody else has a reference to it.
                unsafe { p.cast::<Slot<T>>().replace(used).link }
            });
            return (free, next.into());
        }
        let slot = entry.filled();
        let at = entry.frame().wrapping_add(u64::from(slot) * Self::SIZE as u64);
        self.directory.memory().with(at, |p| {
            // SAFETY: the frame is ours, and no reference leads to a slot that is not filled. The list
            // is empty and a slot is free, so this one is below `SLOTS`: `SLOTS` slots of `SIZE` bytes
            // fit a frame, aligned as their size is a multiple of the alignment and the frame's is larger.
            unsafe { p.cast::<Slot<T>>().write(used) }
        });
        entry.fill_one();
        (slot, Entry::NO_SLOT)
    }

    /// Takes an object out; `None` if there is none of this index. O(1).
    ///
    /// A frame without objects goes back if there is another one, and no promise needs it.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let number = index >> Self::SLOT_BITS;
        let mut entry = self.directory.entry(number)?;
        let slot = index & ((1 << Self::SLOT_BITS) - 1);
        // Ten bits.
        let next = entry.first_free() as u16;
        let value = self.reach(index, |place| {
            if place.link != USED {
                return None;
            }
            place.link = next;
            Some(place.value)
        })??;
        self.unlist(number, &entry);
        entry.set_used(entry.used() - 1, slot);
        self.list(number, &mut entry);
        self.directory.set(number, entry);
        self.len -= 1;
        self.free += 1;
        if entry.used() == 0 {
            self.trim();
        }
        Some(value)
    }

    /// Calls `f` with the object of this index; `None` if no object ever had it.
    ///
    /// Takes a shift, the loads of the directory (none for one frame, one up to 256 of them, two up to
    /// 131,072), a comparison, and an add.
    #[inline(always)]
    pub fn with<R>(&self, index: u32, f: impl FnOnce(&T) -> R) -> Option<R> {
        let at = self.at(index)?;
        Some(self.directory.memory().with(at, |p| {
            // SAFETY: `at` gives the place of a slot that is filled in a frame that this slab took, so a
            // valid `Slot<T>` lies there, aligned, wholly within the frame, and the pointer is
            // valid for it. It is written through `&mut self` alone, which cannot be had while
            // `self` is borrowed here; nobody else knows of the frame.
            f(unsafe { &p.cast::<Slot<T>>().as_ref().value })
        }))
    }

    /// Calls `f` with the object of this index, to change it; `None` as for [`with`](Self::with).
    #[inline(always)]
    pub fn with_mut<R>(&mut self, index: u32, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.reach(index, |slot| f(&mut slot.value))
    }

    /// Calls `f` with two objects; `None` if the indices are the same, or no object had one of them.
    pub fn with_pair<R>(
        &mut self,
        a: u32,
        b: u32,
        f: impl FnOnce(&mut T, &mut T) -> R,
    ) -> Option<R> {
        let (first, second) = (self.at(a)?, self.at(b)?);
        if a == b {
            return None;
        }
        let memory = self.directory.memory();
        Some(memory.with(first, |p| {
            memory.with(second, |q| {
                // SAFETY: as in `reach`, twice; the indices differ, so the slots do not overlap.
                let (a, b) =
                    unsafe { (p.cast::<Slot<T>>().as_mut(), q.cast::<Slot<T>>().as_mut()) };
                f(&mut a.value, &mut b.value)
            })
        }))
    }

    #[inline(always)]
    fn reach<R>(&mut self, index: u32, f: impl FnOnce(&mut Slot<T>) -> R) -> Option<R> {
        let at = self.at(index)?;
        Some(self.directory.memory().with(at, |p| {
            // SAFETY: as in `with`: a valid slot, aligned, in a frame of ours; and `self` is borrowed alone, so there is no other reference to anything in it.
            f(unsafe { p.cast::<Slot<T>>().as_mut() })
        }))
    }

    /// Where the slot of this index is, if it is filled.
    #[inline(always)]
    fn at(&self, index: u32) -> Option<PhysAddr> {
        let slot = index & ((1 << Self::SLOT_BITS) - 1);
        let word = self.directory.word(index >> Self::SLOT_BITS)?;
        Entry::filled_slot(word, slot, Self::SIZE as u64)
    }

    /// Takes a frame, and a number for it.
    fn grow(&mut self) -> Result<(), OutOfFrames> {
        let out = OutOfFrames { order: 0 };
        let number = if self.vacant == NO_NUMBER { self.directory.len() } else { self.vacant };
        if number >= Self::MOST_FRAMES {
            return Err(out);
        }
        if self.vacant == NO_NUMBER {
            self.directory.extend()?;
            self.vacant = number;
        }
        let vacant = self.directory.entry(number).ok_or(out)?;
        let frame = self.directory.memory().alloc(0)?;
        self.vacant = vacant.next();
        let mut entry = Entry::new(frame);
        self.list(number, &mut entry);
        self.directory.set(number, entry);
        self.frames += 1;
        self.free += Self::SLOTS as u32;
        Ok(())
    }

    /// Gives back empty frames that no promise needs, but for one.
    fn trim(&mut self) {
        while self.empty_frames > 1 && self.free - Self::SLOTS as u32 >= self.kept {
            self.drop_empty();
        }
    }

    /// Gives back the first frame in the list of empty ones.
    fn drop_empty(&mut self) {
        let number = self.empty;
        let Some(entry) = self.directory.entry(number) else { return };
        self.unlist(number, &entry);
        self.directory.set(number, Entry::vacant(self.vacant));
        self.vacant = number;
        self.frames -= 1;
        self.free -= Self::SLOTS as u32;
        // SAFETY: `grow` took it with this order; its entry is vacant now, so nothing leads there.
        unsafe { self.directory.memory().free(entry.frame(), 0) };
    }

    /// The list for a frame of so many objects; a full one is in none.
    fn list_of(&mut self, used: u32) -> Option<&mut u32> {
        match used as usize {
            0 => Some(&mut self.empty),
            used if used < Self::SLOTS => Some(&mut self.partial),
            _ => None,
        }
    }

    /// Puts a frame in front of the list that its count says; its entry is stored by the caller.
    fn list(&mut self, number: u32, entry: &mut Entry) {
        self.empty_frames += u32::from(entry.used() == 0);
        let Some(head) = self.list_of(entry.used()) else { return };
        let next = core::mem::replace(head, number);
        entry.link(NO_NUMBER, next);
        self.directory.change(next, |after| after.link(number, after.next()));
    }

    /// Takes a frame out of the list that its count says.
    fn unlist(&mut self, number: u32, entry: &Entry) {
        self.empty_frames -= u32::from(entry.used() == 0);
        let (prev, next) = (entry.prev(), entry.next());
        match self.list_of(entry.used()) {
            None => return,
            Some(head) if *head == number => *head = next,
            Some(_) => self.directory.change(prev, |before| before.link(before.prev(), next)),
        }
        self.directory.change(next, |after| after.link(prev, after.next()));
    }
}

impl<T: Copy, M: Memory> Drop for Slab<T, M> {
    fn drop(&mut self) {
        for number in 0..self.directory.len() {
            let Some(entry) = self.directory.entry(number).filter(|entry| !entry.is_vacant())
            else {
                continue;
            };
            // SAFETY: `grow` took it with this order, and only `drop_empty` gives one back, which
            // leaves the entry vacant; the slab is reached by nobody any more.
            unsafe { self.directory.memory().free(entry.frame(), 0) };
        }
        self.directory.clear();
    }
}

impl<T: Copy, M: Memory> fmt::Debug for Slab<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { len, free, kept, frames, .. } = self;
        write!(f, "Slab({len} objects of {} bytes in {frames} frames, ", Self::SIZE)?;
        write!(f, "{free} more fit, {kept} promised)")
    }
}
