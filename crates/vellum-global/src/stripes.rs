//! Sequence locks: who writes holds one, who reads takes none and looks whether it moved.
//!
//! ```text
//!   a frame of versions                 writer                        reader
//!  +-----+-----+-----+- - -+-----+      v: even -> odd, by CAS        v, once it is even
//!  | 0   | 1   | 2   |     | 511 |      --- fence (Release)           data words
//!  +-----+-----+-----+- - -+-----+      data words                    --- fence (Acquire)
//!     ^                                 v: odd -> the next even       v again: if it moved,
//!     n mod 512                                                       once more from the top
//! ```
//!
//! A look-up that locks writes to a line that every CPU wants to read. Here it only reads: the
//! version before, the table's words, the version after. There are as many versions whatever the
//! table's size, so that nothing has to grow; a design says by a number (of a line, of a group, a
//! hash) which one it means, and two places of the table that share one only disturb each other.
//!
//! # Why a read that saw half of a change is always noticed
//!
//! The data words are atomics, loaded and stored with `Relaxed`, so a race is no undefined behaviour
//! and every load gives some value that was stored. Let a reader see version e before and after.
//!
//! - *Nothing older than e.* The first load of the version is `Acquire` and reads what a writer
//!   stored with `Release` when it was done (or the zeros of the start, which whoever shares the
//!   table has seen). Everything that writers up to it stored happens before, so no load of the
//!   reader gives a value that one of them replaced.
//! - *Nothing newer than e.* Suppose some load gave a value that a writer stored after e. That writer
//!   had made the version odd, and then come to its `Release` fence, before that store; the reader
//!   comes to its `Acquire` fence after that load. So the fences synchronize, the odd version
//!   happens before the reader's second load, and that cannot give e any more.
//!
//! Both together: every word is as it was while the version was e.
//!
//! # Invariants
//!
//! - Words that a stripe covers are stored by its holder alone, through [`word`](crate::word).
//! - What a reader does between its two loads ends whatever it reads, touches only memory that
//!   stays with the table while it is shared, and has no effect until the version is confirmed.
//! - A version only rises, by 2 for each change.
//!
//! # Lock order
//!
//! Several stripes are taken by [`hold_all`](Stripes::hold_all), in ascending order; nobody who
//! holds one takes another.
//!
//! Source: H.-J. Boehm, "Can Seqlocks Get Along with Programming Language Memory Models?", MSPC 2012.

use crate::word::{alloc_zeroed, with_word};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use vellum_core::{Memory, OutOfFrames, PhysAddr, order_bytes};

const WORD: u64 = 8;
/// In a version: somebody is writing.
const ODD: u64 = 1;

/// An array of sequence locks in frames of `M`, which dropping it gives back.
pub struct Stripes<M: Memory> {
    memory: M,
    at: PhysAddr,
    order: u8,
    /// Their number less 1; a power of two less 1.
    mask: u64,
}

/// One of the locks of a [`Stripes`], by its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stripe(u64);

/// What a stripe's version was when a read began.
#[must_use = "what was read is worth nothing until the version is confirmed"]
pub struct Version<'s, M: Memory> {
    stripes: &'s Stripes<M>,
    /// Where the version is, so that it need not be found again.
    at: PhysAddr,
    even: u64,
}

/// A stripe, held for writing; dropping it gives it back.
#[must_use = "the stripe is held until this is dropped"]
pub struct Held<'s, M: Memory> {
    stripes: &'s Stripes<M>,
    at: PhysAddr,
    odd: u64,
}

impl<M: Memory> Stripes<M> {
    /// 512 of them, in one frame.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`].
    pub fn new(memory: M) -> Result<Self, OutOfFrames> {
        Self::with_order(memory, 0)
    }

    /// 512 times 2<sup>`order`</sup> of them, in a block of that order.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`].
    pub fn with_order(memory: M, order: u8) -> Result<Self, OutOfFrames> {
        let at = alloc_zeroed(&memory, order)?;
        Ok(Self { memory, at, order, mask: order_bytes(order) / WORD - 1 })
    }

    /// How many there are; a power of two.
    pub const fn count(&self) -> u64 {
        self.mask + 1
    }

    /// Bytes of memory that they take.
    pub const fn table_bytes(&self) -> u64 {
        order_bytes(self.order)
    }

    /// The one for the number `n`, of whatever the design counts: `n` modulo their number.
    #[inline]
    pub const fn of(&self, n: u64) -> Stripe {
        Stripe(n & self.mask)
    }

    /// Takes a stripe for writing, spinning until it is free. Never from within a read.
    #[inline]
    pub fn hold(&self, stripe: Stripe) -> Held<'_, M> {
        let at = self.address(stripe);
        let odd = self.with(at, acquire);
        // With it, whoever sees a store of the holder sees the odd version too.
        fence(Ordering::Release);
        Held { stripes: self, at, odd }
    }

    /// Takes a stripe for writing if nobody has since the version was begun; waits for nobody.
    ///
    /// For who writes down what it has learnt elsewhere meanwhile, and must not if that may have
    /// changed.
    #[inline]
    pub fn hold_if_current<'s>(&'s self, version: Version<'s, M>) -> Option<Held<'s, M>> {
        let (stripes, at, even, odd) =
            (version.stripes, version.at, version.even, version.even | ODD);
        let taken = stripes.with(at, |word| {
            word.compare_exchange(even, odd, Ordering::Acquire, Ordering::Relaxed)
        });
        fence(Ordering::Release);
        // Made only then: dropping one gives back what somebody else may hold.
        taken.is_ok().then(|| Held { stripes, at, odd })
    }

    /// Takes several stripes for writing, each once and in ascending order, so that nobody who does
    /// the same waits for ever.
    pub fn hold_all<const N: usize>(&self, mut stripes: [Stripe; N]) -> [Option<Held<'_, M>>; N] {
        stripes.sort_unstable();
        let mut last = None;
        stripes.map(|stripe| (last.replace(stripe) != Some(stripe)).then(|| self.hold(stripe)))
    }

    /// Calls `f` until the stripe did not move meanwhile; what it returned then.
    ///
    /// In between `f` may see words that do not belong together: see the [module](self) for what it
    /// may do. The holder of a stripe must not read it this way: it would wait for itself.
    #[inline]
    pub fn read<R>(&self, stripe: Stripe, f: impl FnMut() -> R) -> R {
        self.read_all([stripe], f)
    }

    /// [`read`](Self::read) of what several stripes cover.
    #[inline]
    pub fn read_all<R, const N: usize>(&self, stripes: [Stripe; N], mut f: impl FnMut() -> R) -> R {
        loop {
            let versions = stripes.map(|stripe| self.begin(stripe));
            let read = f();
            if versions.iter().all(Version::is_current) {
                return read;
            }
        }
    }

    /// The version of a stripe, once nobody writes: for reads whose stripes are not known before.
    #[inline]
    pub fn begin(&self, stripe: Stripe) -> Version<'_, M> {
        let at = self.address(stripe);
        let even = self.with(at, |word| word.load(Ordering::Acquire));
        let even = if even & ODD == 0 { even } else { self.await_even(at) };
        Version { stripes: self, at, even }
    }

    #[cold]
    fn await_even(&self, at: PhysAddr) -> u64 {
        loop {
            core::hint::spin_loop();
            let version = self.with(at, |word| word.load(Ordering::Acquire));
            if version & ODD == 0 {
                return version;
            }
        }
    }

    /// [`Version::is_current`].
    #[inline]
    #[must_use]
    pub fn is_current(&self, version: Version<'_, M>) -> bool {
        version.is_current()
    }

    /// Where the version of a stripe is, whoever made that.
    #[inline]
    const fn address(&self, stripe: Stripe) -> PhysAddr {
        self.at.wrapping_add((stripe.0 & self.mask) * WORD)
    }

    /// Calls `f` with a version; `at` is what [`address`](Self::address) said.
    #[inline]
    fn with<R>(&self, at: PhysAddr, f: impl FnOnce(&AtomicU64) -> R) -> R {
        // SAFETY: the mask has kept the word within the block, which is ours until `drop`; nothing
        // else touches it.
        unsafe { with_word(&self.memory, at, f) }
    }
}

impl<M: Memory> Version<'_, M> {
    /// Whether nobody has written since: what was read after [`begin`](Stripes::begin) and before
    /// this belongs together.
    #[inline]
    #[must_use]
    pub fn is_current(&self) -> bool {
        // Without it the loads before could be of a later time than the one below.
        fence(Ordering::Acquire);
        self.stripes.with(self.at, |word| word.load(Ordering::Relaxed)) == self.even
    }
}

impl<M: Memory> Clone for Version<'_, M> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Memory> Copy for Version<'_, M> {}

/// Makes an even version odd; the odd one.
fn acquire(word: &AtomicU64) -> u64 {
    loop {
        // Wait on a plain read, which leaves the line shared.
        let version = word.load(Ordering::Relaxed);
        if version & ODD == 0 {
            let odd = version | ODD;
            // Acquire: what the last holder did has happened.
            let taken =
                word.compare_exchange_weak(version, odd, Ordering::Acquire, Ordering::Relaxed);
            if taken.is_ok() {
                return odd;
            }
        }
        core::hint::spin_loop();
    }
}

impl<M: Memory> Drop for Held<'_, M> {
    #[inline]
    fn drop(&mut self) {
        let even = self.odd.wrapping_add(1);
        self.stripes.with(self.at, |word| word.store(even, Ordering::Release));
    }
}

impl<M: Memory> Drop for Stripes<M> {
    fn drop(&mut self) {
        // SAFETY: allocated in `with_order`; every guard and reader borrows `self`, so none is left.
        unsafe { self.memory.free(self.at, self.order) };
    }
}

impl<M: Memory> fmt::Debug for Stripes<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stripes({} at {})", self.count(), self.at)
    }
}

impl<M: Memory> fmt::Debug for Held<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", self.at)
    }
}

impl<M: Memory> fmt::Debug for Version<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({} at {})", self.even, self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::{load, store};
    use std::thread;
    use vellum_core::FrameSource;
    use vellum_testkit::Arena;

    /// A frame of data words beside the stripes.
    struct Yard<'a> {
        arena: &'a Arena,
        stripes: Stripes<&'a Arena>,
        frame: PhysAddr,
    }

    impl<'a> Yard<'a> {
        fn new(arena: &'a Arena) -> Self {
            let frame = alloc_zeroed(&arena, 0).unwrap();
            Self { arena, stripes: Stripes::new(arena).unwrap(), frame }
        }

        fn get(&self, n: u64) -> u64 {
            // SAFETY: a word of the frame, which is the yard's, and is touched here only.
            unsafe { load(&self.arena, self.frame.wrapping_add(n * WORD)) }
        }

        fn set(&self, n: u64, value: u64) {
            // SAFETY: as above.
            unsafe { store(&self.arena, self.frame.wrapping_add(n * WORD), value) }
        }
    }

    impl Drop for Yard<'_> {
        fn drop(&mut self) {
            // SAFETY: allocated in `new`; nobody else knows of it.
            unsafe { self.arena.free(self.frame, 0) };
        }
    }

    #[test]
    fn numbers_go_round_and_frames_come_back() {
        let arena = Arena::new(4);
        let stripes = Stripes::with_order(&arena, 1).unwrap();
        assert_eq!((stripes.count(), stripes.table_bytes()), (1024, 8192));
        assert_eq!((stripes.of(1023), stripes.of(1024)), (Stripe(1023), stripes.of(0)));
        drop(stripes);
        assert_eq!(arena.frames_in_use(), 0);
    }

    #[test]
    fn a_read_that_was_written_into_is_taken_again() {
        let arena = Arena::new(4);
        let yard = Yard::new(&arena);
        let stripe = yard.stripes.of(7);
        let mut tries = 0;
        let seen = yard.stripes.read(stripe, || {
            tries += 1;
            let first = yard.get(0);
            if tries < 3 {
                let _held = yard.stripes.hold(stripe);
                yard.set(0, tries);
                yard.set(1, tries);
            }
            (first, yard.get(1))
        });
        assert_eq!((seen, tries), ((2, 2), 3));
    }

    #[test]
    fn a_hold_that_comes_too_late_takes_nothing_from_who_holds() {
        let arena = Arena::new(4);
        let yard = Yard::new(&arena);
        let stripe = yard.stripes.of(3);
        let version = yard.stripes.begin(stripe);
        let held = yard.stripes.hold(stripe);
        assert!(yard.stripes.hold_if_current(version).is_none());
        let word = |s: &Stripes<_>| s.with(s.address(stripe), |word| word.load(Ordering::Relaxed));
        assert_eq!(word(&yard.stripes) & ODD, ODD, "it is held");
        drop(held);
        assert!(yard.stripes.hold_if_current(version).is_none(), "somebody has written since");
        assert!(!yard.stripes.is_current(version));
        assert!(yard.stripes.hold_if_current(yard.stripes.begin(stripe)).is_some());
    }

    #[test]
    fn a_write_to_another_stripe_disturbs_nobody() {
        let arena = Arena::new(4);
        let yard = Yard::new(&arena);
        let version = yard.stripes.begin(yard.stripes.of(1));
        drop(yard.stripes.hold(yard.stripes.of(2)));
        assert!(yard.stripes.is_current(version));
        drop(yard.stripes.hold(yard.stripes.of(1)));
        assert!(!yard.stripes.is_current(version));
    }

    #[test]
    fn who_has_been_overtaken_does_not_write() {
        let arena = Arena::new(4);
        let yard = Yard::new(&arena);
        let stripe = yard.stripes.of(1);
        let (first, second) = (yard.stripes.begin(stripe), yard.stripes.begin(stripe));
        let held = yard.stripes.hold_if_current(first);
        assert!(held.is_some() && yard.stripes.hold_if_current(second).is_none());
        drop(held);
        assert!(yard.stripes.hold_if_current(second).is_none(), "a version comes once");
        let now = yard.stripes.begin(stripe);
        drop(yard.stripes.hold(yard.stripes.of(2)));
        assert!(yard.stripes.hold_if_current(now).is_some());
    }

    /// Writers keep two words equal and raise them; readers see neither a pair that is not, nor one
    /// older than what they saw before. Under Miri (many seeds), whose loads may give any value that
    /// the memory model allows, this fails without either fence.
    #[test]
    fn nobody_sees_half_of_a_change() {
        let (readers, rounds) = if cfg!(miri) { (2, 5) } else { (3, 20_000) };
        let arena = Arena::new(4);
        let yard = Yard::new(&arena);
        let stripes = [yard.stripes.of(3), yard.stripes.of(4)];
        thread::scope(|scope| {
            let writers: std::vec::Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..rounds {
                            let _held = yard.stripes.hold(stripes[0]);
                            let next = yard.get(0) + 1;
                            yard.set(0, next);
                            yard.set(100, next);
                        }
                    })
                })
                .collect();
            for _ in 0..readers {
                scope.spawn(|| {
                    let mut last = 0;
                    for _ in 0..rounds {
                        let (a, b) =
                            yard.stripes.read_all(stripes, || (yard.get(100), yard.get(0)));
                        assert_eq!(a, b);
                        assert!(a >= last, "{a} after {last}");
                        last = a;
                    }
                });
            }
            for writer in writers {
                writer.join().unwrap();
            }
            let seen = yard.stripes.read(stripes[0], || (yard.get(0), yard.get(100)));
            assert_eq!(seen, (2 * rounds, 2 * rounds), "two were inside at a time");
        });
    }

    #[test]
    fn several_are_taken_once_each_and_by_nobody_else() {
        let (threads, rounds) = if cfg!(miri) { (2, 8) } else { (4, 3_000) };
        let arena = Arena::new(4);
        let yard = Yard::new(&arena);
        let of = |n| yard.stripes.of(n);
        thread::scope(|scope| {
            for me in 0..threads {
                let yard = &yard;
                scope.spawn(move || {
                    for round in 0..rounds {
                        // In different orders, and with one twice.
                        let (a, b) = if (me + round) % 2 == 0 { (5, 9) } else { (9, 5) };
                        let held = yard.stripes.hold_all([of(a), of(b), of(a)]);
                        assert_eq!(held.iter().flatten().count(), 2);
                        yard.set(0, yard.get(0) + 1);
                    }
                });
            }
        });
        assert_eq!(yard.get(0), threads * rounds);
        let version = yard.stripes.begin(of(5));
        assert_eq!(version.even, 2 * threads * rounds);
    }
}
