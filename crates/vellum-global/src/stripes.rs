//! An array of sequence locks, chosen by a number.
//!
//! ```text
//!   a frame of versions
//!  +-----+-----+-----+- - -+-----+
//!  | 0   | 1   | 2   |     | 511 |      each a [`Sequence`], of whatever has n mod 512
//!  +-----+-----+-----+- - -+-----+
//! ```
//!
//! There are as many versions whatever the table's size, so that nothing has to grow; a design says
//! by a number (of a line, of a group, a hash) which one it means, and two places of the table that
//! share one only disturb each other. What a version protects, and why a read that saw half of a
//! change is always noticed, is in [`sequence`](crate::sequence).
//!
//! # Lock order
//!
//! Several stripes are taken by [`hold_all`](Stripes::hold_all), in ascending order; nobody who
//! holds one takes another.

use crate::Sequence;
use crate::word::alloc_zeroed;
use core::fmt;
use vellum_core::{Memory, OutOfFrames, PhysAddr, order_bytes};

pub use crate::sequence::{Held, Version};

const WORD: u64 = 8;

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

    /// The lock of a stripe, whoever made that.
    #[inline]
    pub const fn sequence(&self, stripe: Stripe) -> Sequence<'_, M> {
        let at = self.at.wrapping_add((stripe.0 & self.mask) * WORD);
        // SAFETY: the mask keeps the word within the block, which is ours until `drop`, and this
        // borrows `self`; nothing but its locks touches it.
        unsafe { Sequence::new(&self.memory, at) }
    }

    /// Takes a stripe for writing, spinning until it is free. Never from within a read.
    #[inline]
    pub fn hold(&self, stripe: Stripe) -> Held<'_, M> {
        self.sequence(stripe).hold()
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
        self.sequence(stripe).begin()
    }

    /// [`Version::is_current`].
    #[inline]
    #[must_use]
    pub fn is_current(&self, version: Version<'_, M>) -> bool {
        version.is_current()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::ODD;
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
        assert!(version.hold_if_current().is_none());
        let word = || {
            // SAFETY: the stripe's own word.
            unsafe { load(&yard.arena, yard.stripes.at.wrapping_add(3 * WORD)) }
        };
        assert_eq!(word() & ODD, ODD, "it is held");
        drop(held);
        assert!(version.hold_if_current().is_none(), "somebody has written since");
        assert!(!yard.stripes.is_current(version));
        assert!(yard.stripes.begin(stripe).hold_if_current().is_some());
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
        let held = first.hold_if_current();
        assert!(held.is_some() && second.hold_if_current().is_none());
        drop(held);
        assert!(second.hold_if_current().is_none(), "a version comes once");
        let now = yard.stripes.begin(stripe);
        drop(yard.stripes.hold(yard.stripes.of(2)));
        assert!(now.hold_if_current().is_some());
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
        assert_eq!(
            std::format!("{version:?}"),
            std::format!(
                "Version({} at {})",
                2 * threads * rounds,
                yard.stripes.at.wrapping_add(5 * WORD)
            )
        );
    }
}
