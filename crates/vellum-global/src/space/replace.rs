//! The compare-and-set of one leaf, and how leaves of different sizes are kept from overlapping.
//!
//! ```text
//!    check, encode `new`        nothing taken yet
//!    +-- stripe -------------+
//!    | now == expect ?       |  else Changed(now)
//!    | a node for a new leaf |  else Need
//!    | store                 |
//!    +-----------------------+
//!    old -> gather              by now nobody else can reach it through the table
//! ```
//!
//! A leaf that takes the place of another, or goes, overlaps nothing that it did not overlap before.
//! One that comes must find nothing of another size where it will be, and nothing may come there
//! meanwhile, under another key and so under another stripe. For that:
//!
//! ```text
//!   a page of 4 KiB comes, fast          a large leaf comes
//!
//!   stripe of the page                   count of its size + 1        (announced)
//!     count of 4 KiB + 1                 region locks
//!     are there large ones? ---yes-->      are there pages of 4 KiB?   no: skip the next line
//!     no: store            slow,           look at each page of it, under its stripe
//!                          as on the       is there a leaf of another large size?
//!                          right, with     none: compare-and-set under its own stripe
//!                          one region    count of its size - 1
//! ```
//!
//! *Slow against slow and large*: a page locks the region of 2 MiB that it lies in, a leaf of 2 MiB
//! the same one, a leaf of 1 GiB all of them. Two leaves that overlap lock a region in common, so
//! what comes later sees what came earlier.
//!
//! *Fast against large.* Both counts go up before the other one is read, all of it sequentially
//! consistent: so the page sees the announcement and goes the slow way, or the large leaf sees the
//! page's count and looks at every page. It does so under the stripe that the page is stored under.
//! If its look at that page is the later one, it sees the page. If the page's update is the later
//! one, what was done before the look has happened before it ([`Store`]'s promise), the announcement
//! too, and the page goes the slow way: a contradiction.
//!
//! *A count of 0 read by a page later on* means that the large leaf was not made, or is gone again:
//! its own entry was counted before the announcement was taken back, and is taken off the count only
//! when the entry is gone, which has happened before whoever reads that count (Acquire).
//!
//! So a page that comes pays for large leaves with two loads where there are none, and with a lock
//! of its space and a look-up where there are. A leaf of 2 MiB costs 512 look-ups or fewer (by
//! blocks), one of 1 GiB 2^18, or a pass over the table if that has fewer entries, and only where the
//! space has pages of 4 KiB; meanwhile others that want to put something into these regions wait.

use super::Space;
use super::step::{Settle, Step, decode};
use crate::key::CANONICAL;
use crate::{Key, Keys, Refused, Size, Store, lock};
use core::convert::Infallible;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{Cause, Entry, Gather, ReplaceError, VirtAddr, pte};

/// A compare-and-set of raw entries of one size.
#[derive(Clone, Copy)]
struct Swap {
    size: Size,
    expect: Entry,
    new: Entry,
    raw: u64,
}

impl Swap {
    fn comes_as_page(self) -> bool {
        self.size == Size::Base && self.expect == Entry::Hole && self.raw != 0
    }

    /// What the raw entry `old` becomes; what it is, if that was not expected.
    fn apply(self, old: u64) -> Result<u64, Entry> {
        let now = decode(old, self.size);
        if !now.same_but_status(self.expect) {
            return Err(now);
        }
        Ok(match (now, self.new) {
            (Entry::Leaf(a, _), Entry::Leaf(b, _)) if a == b => {
                self.raw | old & (pte::ACCESSED | pte::DIRTY)
            }
            _ => self.raw,
        })
    }
}

/// Why the fast way was not taken to its end.
enum Turned {
    Changed(Entry),
    /// Nothing is there, and there may be leaves of other sizes.
    Slow,
}

impl<'t, S: Store> Space<'t, S> {
    pub(super) fn replace_leaf<G: Gather<Infallible>>(
        &self,
        va: VirtAddr,
        len: u64,
        (expect, new): (Entry, Entry),
        stock: &mut S::Stock<'t>,
        gather: &mut G,
    ) -> Result<(), ReplaceError> {
        let Some(size) = Size::of_len(len).filter(|size| size.is_in(S::LEAVES)) else {
            let page = u8::try_from(len.checked_ilog2().unwrap_or(0)).unwrap_or(0);
            return Err(Cause::NoLeaf { page }.into());
        };
        CANONICAL.check(va, len, size.page())?;
        match new {
            Entry::Soft(_) if size != Size::Base => {
                return Err(Cause::NoLeaf { page: size.page() }.into());
            }
            Entry::Soft(soft) if soft.get() >> S::SOFT_BITS != 0 => {
                return Err(Cause::SoftTooWide(soft.get()).into());
            }
            _ => {}
        }
        let raw = pte::encode(new, size.page())?;
        let swap = Swap { size, expect, new, raw };
        let key = self.key(va, size);
        let step = match self.swap_fast(key, swap, stock) {
            Err(Refused::By(Turned::Slow)) => self.swap_slow(key, swap, stock)?,
            Ok(step) => step,
            Err(Refused::By(Turned::Changed(now))) => return Err(ReplaceError::Changed(now)),
            Err(Refused::Need(need)) => return Err(ReplaceError::Need(need)),
        };
        let mut settle = Settle::new(gather);
        settle.step(key, step);
        settle.end();
        Ok(())
    }

    /// The compare-and-set where nothing comes, or a page of 4 KiB does and there are no others.
    fn swap_fast(
        &self,
        key: Key,
        swap: Swap,
        stock: &mut S::Stock<'t>,
    ) -> Result<Step, Refused<Turned>> {
        let replacing = |old| {
            let swapped = swap.apply(old).map_err(Turned::Changed);
            match swapped {
                // Whether it may come is asked once it is counted.
                Ok(_) if swap.comes_as_page() => swapped,
                _ if old != 0 || swap.size == Size::Base && !self.has_large() => swapped,
                _ => Err(Turned::Slow),
            }
        };
        let alone = || if self.is_base_only() { Ok(()) } else { Err(Turned::Slow) };
        self.update(key, stock, replacing, alone)
    }

    /// Whether there is no large leaf, nor anybody about to put one in.
    fn is_base_only(&self) -> bool {
        [Size::Large, Size::Huge]
            .into_iter()
            .all(|size| !size.is_in(S::LEAVES) || self.count(size).load(Ordering::SeqCst) == 0)
    }

    /// The compare-and-set where other sizes have to be looked at first.
    #[cold]
    fn swap_slow(
        &self,
        key: Key,
        swap: Swap,
        stock: &mut S::Stock<'t>,
    ) -> Result<Step, ReplaceError> {
        let large = (swap.size != Size::Base).then(|| Announced::new(self.count(swap.size)));
        let _held = self.regions.hold(key);
        if self.is_beside_others(key, stock) {
            return Err(ReplaceError::Structure);
        }
        let swapped = self.update(key, stock, |old| swap.apply(old), || Ok(()));
        drop(large);
        swapped.map_err(|refused| match refused {
            Refused::By(now) => ReplaceError::Changed(now),
            Refused::Need(need) => ReplaceError::Need(need),
        })
    }

    /// Whether a leaf of another size covers a page of this one: by whoever holds the key's region,
    /// and has announced a large leaf.
    fn is_beside_others(&self, key: Key, stock: &mut S::Stock<'t>) -> bool {
        Size::ALL.into_iter().any(|size| match size {
            _ if size == key.size() || !size.is_in(S::LEAVES) => false,
            // SeqCst, after the announcement: see above.
            _ if self.count(size).load(Ordering::SeqCst) == 0 => false,
            _ if size > key.size() => self.table.walk(key.sized(size), &mut ()) != 0,
            _ => self.has_part(Keys::parts(key, size), stock),
        })
    }

    /// Whether the range has an entry, looking under the stripe of each page of it: block by block,
    /// or at the whole table if that has fewer entries.
    fn has_part(&self, parts: Keys, stock: &mut S::Stock<'t>) -> bool {
        let block = S::block(parts.size());
        if parts.count() / block > self.table.count_entries() {
            return !self.lowest(parts).held().is_empty();
        }
        parts.blocks(block).any(|part| {
            let mut found = false;
            let count = part.count() as usize;
            self.table.change_block(part.first(), count, stock, &mut |_, raw| {
                found = true;
                raw
            });
            found
        })
    }
}

/// A large leaf that somebody is about to put in, counted as if it were there.
struct Announced<'s>(&'s AtomicU64);

impl<'s> Announced<'s> {
    fn new(count: &'s AtomicU64) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The locks of a space's regions of 2 MiB, of which several share one.
pub(super) struct Regions([AtomicU64; Self::COUNT]);

impl Regions {
    const COUNT: usize = 16;

    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Self::COUNT])
    }

    /// Locks every region that the leaf has a part in.
    fn hold(&self, key: Key) -> Held<'_> {
        let Self(all) = self;
        let locks = if key.size() == Size::Huge {
            all.get(..)
        } else {
            let region = key.sized(Size::Large).number() as usize % Self::COUNT;
            all.get(region..=region)
        };
        // Neither range is beyond the array.
        let locks = locks.unwrap_or(all);
        // Ascending, so that two who want all do not wait for each other.
        for word in locks {
            lock::acquire(word);
        }
        Held(locks)
    }
}

/// Regions that are locked; dropping it unlocks them.
struct Held<'s>(&'s [AtomicU64]);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for word in self.0 {
            lock::release(word, 0);
        }
    }
}
