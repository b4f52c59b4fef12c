//! The obligation that a change to a live table leaves behind, and the mode of the change.
//!
//! ```text
//!  table op                 Gather                              after the flush
//!  --------                 ------                              ---------------
//!  clear a leaf   --leaf--> [run][run][soft][table]...  drain   Gone::Run  -> frame may be freed
//!  clear a subtree-detach->  and the Flushes that     --------> Gone::Soft -> slot may be freed
//!  narrow a leaf  --stale->  cover them all                     reap table -> Gone..., tables freed
//! ```
//!
//! Between the store that unlinks a frame and the flush, some CPU may still reach the frame
//! through its TLB. So what a table lets go goes INTO the gather, and comes out to the sink only
//! after [`Invalidate::flush`] has returned. A gather that is forgotten leaks; it cannot hand out
//! a frame that is still in use.
//!
//! The gather is also the mode (docs/adr/0002): [`Batch`] is for tables that some CPU may be using
//! now, [`Direct`] for tables that none can reach, where plain stores do and nothing is flushed.
//!
//! # Invariants
//!
//! - Items leave the gather only after a flush that covers them.
//! - `drain` is never called while a table lock is held.

use crate::{Gone, Run, Soft, VirtAddr};
use flush::Owed;

mod flush;

pub use flush::{Flush, RANGES, Scope};

/// Makes every CPU forget translations of one address space. It knows that space's tag and CPUs.
///
/// # Safety
///
/// When `flush` returns, no CPU uses a translation of an address that one of the ranges covers
/// (with [`Scope::Tables`]: nor an interior entry that leads to one) that it cached before the
/// call, and every store through such a translation has become visible. A range that is
/// [`global`](Flush::global) loses its global translations as well; one with [`Scope::Fresh`] loses
/// only absence, where the processor caches that. A translation of a leaf larger than the
/// [`page`](Flush::page) of the range that covers it goes as well.
#[allow(unsafe_code, reason = "declares the contract of an unsafe trait")]
pub unsafe trait Invalidate {
    /// Flushes the ranges, on every CPU that may hold such translations, and waits until it is
    /// done: one round of interrupts for all of them.
    fn flush(&self, flushes: &[Flush]);
}

// SAFETY: forwards to `T`, which keeps the contract.
#[allow(unsafe_code, reason = "implements an unsafe trait by forwarding")]
unsafe impl<T: Invalidate + ?Sized> Invalidate for &T {
    fn flush(&self, flushes: &[Flush]) {
        T::flush(self, flushes);
    }
}

/// A part of a table that was unlinked whole.
///
/// Its entries keep their final accessed and dirty until the flush; only then are they read, and
/// the memory of the tables given back.
pub trait Reap {
    /// Reports everything that was mapped, in ascending order, and frees the tables themselves.
    fn reap(self, sink: &mut impl FnMut(Gone));

    /// Frees the tables alone; a design that can spares itself the look at what was mapped.
    fn discard(self)
    where
        Self: Sized,
    {
        self.reap(&mut |_| {});
    }
}

/// Receives what has left a table: a closure, or [`Nobody`].
pub trait Receive {
    /// Whether anybody listens.
    const LISTENS: bool = true;

    /// Takes it.
    fn receive(&mut self, gone: Gone);

    /// Takes all of a part that was unlinked whole.
    fn receive_part(&mut self, part: impl Reap)
    where
        Self: Sized,
    {
        if Self::LISTENS {
            part.reap(&mut |gone| self.receive(gone));
        } else {
            part.discard();
        }
    }
}

impl<S: FnMut(Gone)> Receive for S {
    #[inline]
    fn receive(&mut self, gone: Gone) {
        self(gone);
    }
}

/// Hears of nothing: for ranges whose frames nobody owns, of device memory or a direct map. Then a
/// table of pages goes without a look at its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nobody;

impl Receive for Nobody {
    const LISTENS: bool = false;

    #[inline]
    fn receive(&mut self, _: Gone) {}
}

/// For designs that unlink nothing but single entries.
impl Reap for core::convert::Infallible {
    fn reap(self, _: &mut impl FnMut(Gone)) {
        match self {}
    }
}

/// Collects what a table operation unlinks or narrows.
///
/// Several gathers of one space may be open at a time. What one of them still owes is no other's
/// business, with one exception: whoever takes [`GLOBAL`](crate::Attr::GLOBAL) from a mapping drains
/// before another gather may unmap it, since that one would flush for one space only.
///
/// # Safety
///
/// Items given to [`leaf`](Self::leaf), [`soft`](Self::soft) and [`detach`](Self::detach) reach
/// their receiver only after every translation of their range that a CPU could have cached is
/// gone; and [`LIVE`](Self::LIVE) is `false` only where no CPU can walk the table for as long as
/// the gather exists.
#[allow(unsafe_code, reason = "declares the contract of an unsafe trait")]
pub unsafe trait Gather<D> {
    /// Whether hardware may be walking the table now: entries then change by atomic
    /// read-modify-write, unless hardware will write nothing more to them.
    const LIVE: bool;

    /// How many more items fit before a [`drain`](Self::drain). May be asked under a table lock.
    fn room(&self) -> usize;

    /// Flushes, and delivers everything held. Never under a table lock.
    fn drain(&mut self);

    /// The widest scope of what is owed now: `None` where a drain would flush nothing. A format with
    /// break-before-make asks, since no page may be made while its old translation is owed a flush.
    fn owed(&self) -> Option<Scope> {
        Some(Scope::Tables)
    }

    /// Takes a run of leaves that was unlinked. Needs room for one item.
    fn leaf(&mut self, run: Run);

    /// Takes a soft entry that was removed from the page at `va`. Needs room for one item.
    fn soft(&mut self, va: VirtAddr, soft: Soft);

    /// Notes that translations are wrong now, though nothing was unlinked.
    fn stale(&mut self, flush: Flush);

    /// Takes a part of the table that was unlinked whole, with the flush that it needs: of all that
    /// it translates, with [`Scope::Tables`]. Needs room for one item.
    fn detach(&mut self, flush: Flush, part: D);
}

enum Held<D> {
    Gone(Gone),
    Part(D),
}

/// The gather of a live table: holds up to `N` items, flushes through `I`, delivers to `S`.
///
/// ```
/// use vellum_core::{Batch, Flush, Gather, Gone, Invalidate, PhysAddr, Attr, Run, VirtAddr};
///
/// struct OneCpu;
/// // SAFETY: the example has no CPU that could cache anything.
/// unsafe impl Invalidate for OneCpu {
///     fn flush(&self, flushes: &[Flush]) {
///         assert!(flushes[0].covers(VirtAddr::new(0x1000)));
///     }
/// }
///
/// let mut freed = 0;
/// // SAFETY: there is one space, and `OneCpu` flushes it.
/// let mut gather: Batch<_, _, core::convert::Infallible, 8> =
///     unsafe { Batch::new(OneCpu, |gone| if let Gone::Run(run) = gone { freed += run.len }) };
/// gather.leaf(Run::new(VirtAddr::new(0x1000), PhysAddr::new(0x7000), 0x1000, Attr::RW));
/// gather.leaf(Run::new(VirtAddr::new(0x2000), PhysAddr::new(0x8000), 0x1000, Attr::RW));
/// gather.finish(); // one flush, then one run of two pages
/// assert_eq!(freed, 0x2000);
/// ```
///
/// # Panics
///
/// Dropping one that still owes a flush leaks what it holds, and panics where debug assertions
/// are on. So does giving it an item that it has no room for.
#[must_use = "what a table lets go comes back only through `finish`"]
pub struct Batch<I: Invalidate, S: Receive, D: Reap, const N: usize> {
    invalidate: I,
    sink: S,
    held: [Option<Held<D>>; N],
    len: usize,
    owed: Owed,
}

impl<I: Invalidate, S: FnMut(Gone), D: Reap, const N: usize> Batch<I, S, D, N> {
    /// An empty gather. `N` of 0 does not compile.
    ///
    /// # Safety
    ///
    /// For as long as it exists, it is used only with tables whose translations `invalidate`
    /// flushes: with one address space's, or with several that the same flush reaches. (With
    /// another table, nodes and frames would come back unflushed.)
    #[allow(unsafe_code, reason = "what comes out is trusted to be out of every TLB")]
    #[inline(always)]
    pub unsafe fn new(invalidate: I, sink: S) -> Self {
        Self::empty(invalidate, sink)
    }
}

impl<I: Invalidate, D: Reap, const N: usize> Batch<I, Nobody, D, N> {
    /// An empty gather that flushes, and tells nobody what is gone. `N` of 0 does not compile.
    ///
    /// # Safety
    ///
    /// As of [`new`](Batch::new).
    #[allow(unsafe_code, reason = "what it frees is trusted to be out of every TLB")]
    pub unsafe fn discarding(invalidate: I) -> Self {
        Self::empty(invalidate, Nobody)
    }
}

impl<I: Invalidate, S: Receive, D: Reap, const N: usize> Batch<I, S, D, N> {
    #[inline(always)]
    fn empty(invalidate: I, sink: S) -> Self {
        const { assert!(N > 0, "a gather that holds nothing can unlink nothing") };
        // Not a constant, which would be copied with all that is not in it.
        let held = core::array::from_fn(|_| None);
        Self { invalidate, sink, held, len: 0, owed: Owed::NOTHING }
    }

    /// Flushes what is owed, delivers what is held, and ends.
    #[inline(always)]
    pub fn finish(mut self) {
        self.settle();
    }

    /// Most faults only add, and owe nothing.
    #[inline(always)]
    fn settle(&mut self) {
        if self.len > 0 || !self.owed.is_nothing() {
            self.deliver();
        }
    }

    #[inline(never)]
    fn deliver(&mut self) {
        if !self.owed.is_nothing() {
            self.invalidate.flush(self.owed.ranges());
            self.owed = Owed::NOTHING;
        }
        for slot in self.held.iter_mut().take(self.len) {
            match slot.take() {
                Some(Held::Gone(gone)) => self.sink.receive(gone),
                Some(Held::Part(part)) => self.sink.receive_part(part),
                None => {}
            }
        }
        self.len = 0;
    }

    fn hold(&mut self, item: Held<D>) {
        debug_assert!(self.len < N, "the table did not ask for room");
        // With debug assertions off, an item without room is leaked: nobody may have it.
        if let Some(slot) = self.held.get_mut(self.len) {
            *slot = Some(item);
            self.len += 1;
        }
    }

    fn last_run(&mut self) -> Option<&mut Run> {
        match self.held.get_mut(self.len.checked_sub(1)?) {
            Some(Some(Held::Gone(Gone::Run(run)))) => Some(run),
            _ => None,
        }
    }
}

// SAFETY: items leave `held` only in `settle`, after the flush of everything that was noted with
// them, which by the contract of `Batch::new` reaches all who could have cached it; LIVE is true.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<I: Invalidate, S: Receive, D: Reap, const N: usize> Gather<D> for Batch<I, S, D, N> {
    const LIVE: bool = true;

    fn room(&self) -> usize {
        N - self.len
    }

    #[inline(always)]
    fn drain(&mut self) {
        self.settle();
    }

    fn owed(&self) -> Option<Scope> {
        self.owed.ranges().iter().map(|flush| flush.scope).max()
    }

    fn leaf(&mut self, run: Run) {
        self.owed.add(Flush::new(run.va, run.len, run.page, run.attr));
        match self.last_run() {
            Some(last) if last.continues_with(&run) => last.len += run.len,
            _ => self.hold(Held::Gone(Gone::Run(run))),
        }
    }

    fn soft(&mut self, va: VirtAddr, soft: Soft) {
        // No TLB holds a soft entry, so this alone owes no flush.
        self.hold(Held::Gone(Gone::Soft(va, soft)));
    }

    fn stale(&mut self, flush: Flush) {
        self.owed.add(flush);
    }

    fn detach(&mut self, flush: Flush, part: D) {
        self.owed.add(flush.with_scope(Scope::Tables));
        self.hold(Held::Part(part));
    }
}

impl<I: Invalidate, S: Receive, D: Reap, const N: usize> Drop for Batch<I, S, D, N> {
    fn drop(&mut self) {
        debug_assert!(
            self.owed.is_nothing() && self.len == 0,
            "a gather was dropped without `finish`: its frames are leaked"
        );
    }
}

impl<I: Invalidate, S: Receive, D: Reap, const N: usize> core::fmt::Debug for Batch<I, S, D, N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Batch").field("held", &self.len).field("owed", &self.owed.ranges()).finish()
    }
}

/// The gather of tables that no CPU can reach: delivers at once, flushes nothing.
pub struct Direct<S> {
    sink: S,
}

impl<S: FnMut(Gone)> Direct<S> {
    /// A gather for exclusive use of tables.
    ///
    /// # Safety
    ///
    /// For as long as it exists, no CPU walks the tables that it is used with, and none holds a
    /// translation or an interior entry of them in its TLB: they were not loaded yet, or were
    /// unloaded and flushed everywhere.
    #[allow(unsafe_code, reason = "the one door to plain stores on visible entries")]
    pub const unsafe fn new(sink: S) -> Self {
        Self { sink }
    }
}

impl Direct<Nobody> {
    /// The same, that tells nobody what is gone.
    ///
    /// # Safety
    ///
    /// As of [`new`](Direct::new).
    #[allow(unsafe_code, reason = "the one door to plain stores on visible entries")]
    pub const unsafe fn discarding() -> Self {
        Self { sink: Nobody }
    }
}

// SAFETY: `Direct::new` demands that no CPU reaches the table, so nothing is cached that could
// outlive the unlinking, and LIVE may be false.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<S: Receive, D: Reap> Gather<D> for Direct<S> {
    const LIVE: bool = false;

    fn room(&self) -> usize {
        usize::MAX
    }

    fn drain(&mut self) {}

    fn owed(&self) -> Option<Scope> {
        None
    }

    fn leaf(&mut self, run: Run) {
        self.sink.receive(Gone::Run(run));
    }

    fn soft(&mut self, va: VirtAddr, soft: Soft) {
        self.sink.receive(Gone::Soft(va, soft));
    }

    fn stale(&mut self, _: Flush) {}

    fn detach(&mut self, _: Flush, part: D) {
        self.sink.receive_part(part);
    }
}

impl<S> core::fmt::Debug for Direct<S> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Direct")
    }
}

#[cfg(test)]
mod tests;
