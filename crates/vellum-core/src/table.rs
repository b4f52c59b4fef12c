//! The design-neutral page table.
//!
//! ```text
//!              &mut self: ranges, structure                &self: one leaf, in parallel
//!              map  unmap  protect  share                  replace  harvest  touch  visit  walk
//!                |                                            |
//!                |   takes memory itself, between steps       |  takes none: Need -> refill -> retry
//!                v                                            v
//!            RangeError { cause, done }                   ReplaceError
//! ```
//!
//! Ranges are the primitive of change, and one compare-and-set, [`replace`](PageTable::replace),
//! is what faults use. Nothing here says level, bucket or anchor, so that radix, hashed and
//! inverted tables fit, and a global table too: there the implementor is a handle (table, address
//! space).
//!
//! # Invariants, of every implementation
//!
//! - The table stores its [`Memory`](crate::Memory); no operation takes another.
//! - A range operation changes exactly `[va, va + done)`; a conflict is found before the first
//!   store to the node that it lies in, and nothing is leaked.
//! - `&self` changes one leaf and never frees a part of the structure.
//! - What keeps its frame keeps its accessed, dirty and software bits, unless the change names them.
//! - A length of 0 is a range without pages: `Ok`, if its address could have one.
//! - No callback or sink may call the table.
//!
//! # Lock order
//!
//! A design's own locks are innermost: under them nobody allocates, drains a gather or calls out,
//! but for `Gather::{room, leaf, soft, stale}`.

use crate::{
    Attr, Canonical, Cause, Change, Entry, Gather, Need, OutOfFrames, PhysAddr, RangeError, Reap,
    ReplaceError, Run, Span, VirtAddr, Walk,
};
use core::ops::ControlFlow;

/// A page table of any design. See the [module](self) for what all of them promise.
///
/// Mapping is safe (docs/adr/0006): a table is data until somebody loads its root, and that step is
/// `unsafe` wherever it is taken.
pub trait PageTable: Walk {
    /// Memory set aside for [`replace`](Self::replace). Dropping it gives the memory back.
    type Stock;

    /// A part of the structure, unlinked whole; [`core::convert::Infallible`] where a design
    /// unlinks single entries only.
    type Detached: Reap;

    /// The leaf sizes: bit `n` is set where a leaf of 2<sup>n</sup> bytes exists.
    const LEAVES: u64;

    /// Those of [`LEAVES`](Self::LEAVES) that are one entry, so that [`replace`](Self::replace) can
    /// exchange them. A leaf of several entries (Arm's contiguous hint) takes `&mut self` to change.
    const REPLACEABLE: u64 = Self::LEAVES;

    /// How many bytes the parts translate that [`move_parts`](Self::move_parts) moves; 0 if it moves none.
    const PART: u64 = 0;

    /// How many bits of a [`Soft`](crate::Soft) value an entry can hold.
    const SOFT_BITS: u8;

    /// Which virtual addresses the table translates.
    fn canonical(&self) -> Canonical;

    /// Bytes of memory that the table takes now, its own frames rounded up; of a global design, the
    /// whole table, whoever uses it.
    fn table_bytes(&self) -> u64;

    /// An empty stock.
    fn stock(&self) -> Self::Stock;

    /// Adds to `stock` what `need` asks for; the fault path's only allocation, under no lock. A
    /// stock of another memory's table is emptied first, there; until then it counts as empty.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; what the stock has got by then stays in it.
    fn refill(&self, stock: &mut Self::Stock, need: Need) -> Result<(), OutOfFrames>;

    /// Replaces the one entry of `len` bytes at `va` by `new`, if it is `expect` now.
    ///
    /// Accessed and dirty are left out of the comparison; where `new` keeps the frame, they are
    /// what they were and what `new` has besides. An old frame that goes, or an old soft entry,
    /// goes into the gather.
    ///
    /// With break-before-make (Arm), what other gathers took from the page has to have been flushed
    /// before.
    ///
    /// # Errors
    ///
    /// See [`ReplaceError`]; nothing visible has changed with any of them. `Changed` with what was
    /// expected says that somebody is in the middle of replacing it, and is to be taken as any other.
    fn replace<G: Gather<Self::Detached>>(
        &self,
        va: VirtAddr,
        len: u64,
        expect: Entry,
        new: Entry,
        stock: &mut Self::Stock,
        gather: &mut G,
    ) -> Result<(), ReplaceError>;

    /// Maps a run where nothing is, with the largest leaves that `run.page`, the alignment of both
    /// addresses and the design allow; the smallest ones where `run.page`, at least 12, is below those.
    ///
    /// On processors with break-before-make (Arm), what another gather took from this range has to
    /// have been flushed before.
    ///
    /// # Errors
    ///
    /// [`Cause::Mapped`] for a conflict, [`Cause::OutOfFrames`], or a range or attributes that the
    /// table cannot hold.
    fn map<G: Gather<Self::Detached>>(
        &mut self,
        run: Run,
        gather: &mut G,
    ) -> Result<(), RangeError>;

    /// Removes everything in the range, soft entries too; holes are passed over. A leaf that
    /// reaches out of the range is split.
    ///
    /// # Errors
    ///
    /// A range that the table cannot hold, or [`Cause::OutOfFrames`] when a split needs a table.
    fn unmap<G: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
    ) -> Result<(), RangeError>;

    /// Changes the attributes of every leaf in the range; holes and soft entries are passed over.
    /// A leaf that reaches out of the range is split.
    ///
    /// Rights that are only added owe no flush. Where a fault does not drop the translation that
    /// raised it (RISC-V, Arm), the handler that finds the right granted already drops that page on
    /// its own CPU; the same holds for [`replace`](Self::replace), and for status bits that are set.
    ///
    /// # Errors
    ///
    /// As [`unmap`](Self::unmap), and [`Cause::Unencodable`] for a result without an encoding.
    fn protect<G: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        change: Change,
        gather: &mut G,
    ) -> Result<(), RangeError>;

    /// Reports everything in the range that is not a hole, in ascending order, cut to the range,
    /// until `f` breaks. The leaves of one span are of one size, which a walk tells.
    ///
    /// # Errors
    ///
    /// A range that the table cannot hold.
    fn visit(
        &self,
        va: VirtAddr,
        len: u64,
        f: &mut impl FnMut(Span) -> ControlFlow<()>,
    ) -> Result<(), Cause>;

    /// Clears `clear` (of [`Attr::STATUS`]) in every leaf that the range touches, and reports those
    /// that had any of it, with what they had; a leaf that reaches out of the range is cleared
    /// whole and reported cut.
    ///
    /// # Errors
    ///
    /// A range that the table cannot hold.
    fn harvest<G: Gather<Self::Detached>>(
        &self,
        va: VirtAddr,
        len: u64,
        clear: Attr,
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) -> Result<(), Cause>;

    /// Gives the address space up: everything goes into the gather, the structure too, and a flush
    /// of all of it is owed, whatever other gathers of the space still hold.
    fn retire<G: Gather<Self::Detached>>(self, gather: &mut G);

    /// [`replace`](Self::replace), refilling `stock` as often as it is asked to.
    ///
    /// # Errors
    ///
    /// As `replace`, but never [`ReplaceError::Need`]: without memory it is
    /// [`Cause::OutOfFrames`].
    fn replace_refilling<G: Gather<Self::Detached>>(
        &self,
        va: VirtAddr,
        len: u64,
        expect: Entry,
        new: Entry,
        stock: &mut Self::Stock,
        gather: &mut G,
    ) -> Result<(), ReplaceError> {
        // Most often nothing is missing: what a loop would work out beforehand is not worth it then.
        match self.replace(va, len, expect, new, stock, gather) {
            Err(ReplaceError::Need(need)) => {
                refill_and_replace(self, (va, len), (expect, new), need, stock, gather)
            }
            done => done,
        }
    }

    /// Puts leaves of the smallest size where nothing is: page `i` from `va` on gets `frames[i]`, if that is
    /// some; of at most 64 pages. The bits of those that were put.
    ///
    /// Each of them is a [`replace_refilling`](Self::replace_refilling) of a hole: where anything else is in the
    /// way, or memory is lacking, nothing is put. What a fault knows of the neighbours of its page is
    /// mapped with this; a design that finds them all in one descent does better than one by one.
    fn fill_holes<G: Gather<Self::Detached>>(
        &self,
        va: VirtAddr,
        frames: &[Option<PhysAddr>],
        attr: Attr,
        gather: &mut G,
    ) -> u64 {
        fill_one_by_one(self, va, frames, attr, gather)
    }

    /// Gives `child` every entry of the range, with `change` made to the leaves of both: fork.
    ///
    /// The child gets leaves of the parent's size, and has a gather of its own, since what it held
    /// before is flushed elsewhere. `f` is told of exactly what the child was given, as it is now:
    /// that is where reference counts go up. Both tables are borrowed, so nobody faults on them
    /// meanwhile; the child must not run before the parent's gather has been drained, or its
    /// parent could still write what they share.
    ///
    /// Costs one `protect` and one `map` a run; a design that can share structure does better.
    ///
    /// # Errors
    ///
    /// As [`protect`](Self::protect) and [`map`](Self::map) of the child. The child was given
    /// exactly `[va, va + done)`; the change may have been made to more of the parent, at most to
    /// the end of the run in which it stopped.
    fn share<G: Gather<Self::Detached>, H: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        change: Change,
        gather: &mut G,
        (child, child_gather): (&mut Self, &mut H),
        f: &mut impl FnMut(Span),
    ) -> Result<(), RangeError>
    where
        Self: Sized,
    {
        share_entries(self, (va, len), change, gather, (child, child_gather), f)
    }

    /// As [`share`](Self::share) with the right to write taken from both, but that a design may link parts
    /// of its structure in the child as well, instead of copying their entries: a fork of private memory.
    ///
    /// `f` is told of everything that the child was given, as what it was given ([`Given`]). Parts that are
    /// linked can be changed by neither until one [unshares](Self::unshare) them:
    /// whatever would change a piece of one says [`Cause::Shared`]. Given up whole, by `unmap` or `retire`,
    /// a table's link goes alone: entries are reported by the last that has one.
    ///
    /// # Errors
    ///
    /// As of `share`; and [`Cause::Shared`] where an end of the range lies within a part that is linked
    /// already, or such a part cannot be linked once more.
    fn fork<G: Gather<Self::Detached>, H: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
        child: (&mut Self, &mut H),
        f: &mut impl FnMut(Given),
    ) -> Result<(), RangeError>
    where
        Self: Sized,
    {
        let change = Change::clearing(Attr::WRITE);
        self.share(va, len, change, gather, child, &mut |span| f(Given::Own(span)))
    }

    /// Makes every part in the range that other tables link this table's own, so that its entries can be
    /// changed again.
    ///
    /// What others link still is copied, and its leaves lose the right to write: `f` is told of each run
    /// of leaves and each soft entry of a copy before the original can go, which is where
    /// reference counts go up. What nobody else links any more is taken over, with the rights that its
    /// leaves had. Live, it drains the gather.
    ///
    /// # Errors
    ///
    /// A range that the table cannot hold, or [`Cause::OutOfFrames`]: what is before `done` is its own.
    fn unshare<G: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) -> Result<(), RangeError> {
        let _ = (gather, f);
        let page = <Self as PageTable>::LEAVES.trailing_zeros();
        Ok(self.canonical().check(va, len, u8::try_from(page).unwrap_or(u8::MAX))?)
    }

    /// The first part at or behind `va`, within `len` bytes, that is linked as one that other tables may
    /// link; whole, though it may reach out of the range. Of a range that the table can hold.
    fn next_linked(&self, va: VirtAddr, len: u64) -> Option<Linked> {
        let _ = (va, len);
        None
    }

    /// Moves everything in `[from, from + len)` to `to`, part by part, whatever is in them: accessed and
    /// dirty stay with the leaves, linked parts linked, and nothing goes into the gather but flushes. Where
    /// both addresses and the length are multiples of [`PART`](Self::PART), ranges that do not overlap.
    /// `false` if it cannot be done in that way, and nothing has changed.
    ///
    /// # Errors
    ///
    /// [`Cause::Mapped`] if something is at `to` already, [`Cause::OutOfFrames`], or a range that the table
    /// cannot hold; nothing was moved.
    fn move_parts<G: Gather<Self::Detached>>(
        &mut self,
        from: VirtAddr,
        to: VirtAddr,
        len: u64,
        gather: &mut G,
    ) -> Result<bool, Cause> {
        let _ = (from, to, len, gather);
        Ok(false)
    }
}

/// What [`PageTable::fork`] gave the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// Entries of its own: what they name is named once more.
    Own(Span),
    /// Entries of a part that parent and child both link: what they name is named as often as before.
    Linked(Span),
}

/// A part of a table that other tables may link, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The first address that it translates.
    pub va: VirtAddr,
    /// How many bytes it translates.
    pub len: u64,
    /// How many other tables link it now; with 0 it waits to be taken over.
    pub others: u32,
}

/// Goes on with a replacement that lacks `need`, until it lacks nothing any more.
#[cold]
fn refill_and_replace<T: PageTable + ?Sized, G: Gather<T::Detached>>(
    table: &T,
    (va, len): (VirtAddr, u64),
    (expect, new): (Entry, Entry),
    mut need: Need,
    stock: &mut T::Stock,
    gather: &mut G,
) -> Result<(), ReplaceError> {
    loop {
        table.refill(stock, need).map_err(Cause::OutOfFrames)?;
        match table.replace(va, len, expect, new, stock, gather) {
            Err(ReplaceError::Need(more)) => need = more,
            done => return done,
        }
    }
}

/// What [`PageTable::fill_holes`] does where a design does not do better.
pub fn fill_one_by_one<T: PageTable + ?Sized, G: Gather<T::Detached>>(
    table: &T,
    va: VirtAddr,
    frames: &[Option<PhysAddr>],
    attr: Attr,
    gather: &mut G,
) -> u64 {
    let page = 1u64 << T::LEAVES.trailing_zeros();
    let mut stock = table.stock();
    let mut put = 0;
    for (i, frame) in (0..u64::BITS).zip(frames) {
        let Some(frame) = *frame else { continue };
        let va = va.wrapping_add(u64::from(i) * page);
        let leaf = Entry::Leaf(frame, attr);
        match table.replace_refilling(va, page, Entry::Hole, leaf, &mut stock, gather) {
            Ok(()) => put |= 1 << i,
            Err(ReplaceError::Invalid(Cause::OutOfFrames(_))) => break,
            Err(_) => {}
        }
    }
    put
}

/// What [`PageTable::share`] does where a design does not do better: entry by entry, through the
/// other operations.
///
/// # Errors
///
/// As of [`PageTable::share`].
pub fn share_entries<T: PageTable, G: Gather<T::Detached>, H: Gather<T::Detached>>(
    parent: &mut T,
    (va, len): (VirtAddr, u64),
    change: Change,
    gather: &mut G,
    (child, child_gather): (&mut T, &mut H),
    f: &mut impl FnMut(Span),
) -> Result<(), RangeError> {
    let mut done = 0;
    loop {
        let rest = (va.wrapping_add(done), len - done);
        let chunk = Chunk::read(parent, rest).map_err(|cause| RangeError { cause, done })?;
        for span in chunk.spans.into_iter().flatten() {
            let start = span.va.as_u64().wrapping_sub(va.as_u64());
            let shared = share_span(parent, span, change, gather, (child, child_gather));
            let given = match shared {
                Ok(()) => span.len,
                Err(e) => e.done,
            };
            if given > 0 {
                let entry = span.entry.changed(change);
                f(Span { len: given, entry, ..span });
            }
            shared.map_err(|e| RangeError { cause: e.cause, done: start + e.done })?;
            done = start + span.len;
        }
        if !chunk.full || done >= len {
            return Ok(());
        }
    }
}

/// Spans that [`share_entries`] reads at a time, since a visit may not call the table.
struct Chunk {
    spans: [Option<Span>; 32],
    /// There may be more.
    full: bool,
}

impl Chunk {
    fn read<T: PageTable>(table: &T, (va, len): (VirtAddr, u64)) -> Result<Self, Cause> {
        let mut chunk = Self { spans: [None; 32], full: false };
        let mut slots = chunk.spans.iter_mut();
        table.visit(va, len, &mut |span| match slots.next() {
            Some(slot) => {
                *slot = Some(span);
                ControlFlow::Continue(())
            }
            None => {
                chunk.full = true;
                ControlFlow::Break(())
            }
        })?;
        Ok(chunk)
    }
}

/// Gives the child one span of the parent's; `done` is how much of it.
fn share_span<T: PageTable, G: Gather<T::Detached>, H: Gather<T::Detached>>(
    parent: &mut T,
    span: Span,
    change: Change,
    gather: &mut G,
    (child, child_gather): (&mut T, &mut H),
) -> Result<(), RangeError> {
    match span.entry {
        Entry::Hole => Ok(()),
        Entry::Soft(_) => {
            let mut stock = child.stock();
            let new = span.entry;
            let installed = child.replace_refilling(
                span.va,
                span.len,
                Entry::Hole,
                new,
                &mut stock,
                child_gather,
            );
            installed.map_err(|e| match e {
                ReplaceError::Invalid(cause) => cause.into(),
                // Something is there, of this size or of another.
                _ => match child.walk(span.va, &mut ()) {
                    Ok(there) => Cause::Mapped(there).into(),
                    Err(cause) => cause.into(),
                },
            })
        }
        Entry::Leaf(pa, attr) => {
            let leaf = parent.walk(span.va, &mut ())?.len;
            let page = leaf.checked_ilog2().and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
            // Of a span that could not be changed to its end, nothing is shared.
            parent
                .protect(span.va, span.len, change, gather)
                .map_err(|e| RangeError { done: 0, ..e })?;
            let run = Run::new(span.va, pa, span.len, change.apply(attr));
            child.map(run.with_leaves_up_to(page), child_gather)
        }
    }
}
