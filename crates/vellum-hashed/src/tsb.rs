//! A translation storage buffer: a direct-mapped cache of leaves in memory, before any page table.
//!
//! ```text
//!   va --> page number mod entries --> +--------------------+
//!                                      | page | raw leaf    |  the same page: done, 16 bytes read
//!                                      +--------------------+
//!                                         | another or none
//!                                         v
//!                                      the table behind; what it says is written here
//! ```
//!
//! UltraSPARC's MMU knows no page table: a miss traps to a handler of a dozen instructions that looks
//! here, in an array which software fills as it likes. A design whose walk is long gets a short one
//! for what was walked lately, and keeps everything else.
//!
//! # What is kept here
//!
//! Leaves of the smallest size, each as it is in the table with its accessed and dirty. Larger ones
//! are not: their walk is shorter, the TLB reaches further with them, and so every operation changes
//! here just the pages that it names. Soft entries and holes are not either, so that nothing that
//! is installed where nothing was has to be looked for.
//!
//! # Why it agrees with the table behind
//!
//! The adapter owns the table, so nobody changes that but through here. ([`Tsb::table`] is to look
//! at. Nor may an MMU that sets
//! accessed and dirty by itself: who has one that walks the table behind needs no buffer.)
//!
//! ```text
//!   what takes a leaf away        the gather is told, and forgets first      unmap, replace, retire
//!   what narrows one              the same; and the range once more after    protect, harvest, share
//!   what only widens one          the range after                            protect, replace
//!   accessed, dirty               the page after                             touch
//!   what makes one                nothing: there was none here               map, replace
//! ```
//!
//! To forget *after* the change is what counts (see `tsb/buffer.rs`); by the gather it is forgotten
//! before the frame can be delivered. Between change and forgetting, a look-up may answer what was
//! true before the change, as a TLB may until it is flushed.
//!
//! # Invariants
//!
//! - When a change has returned, no look-up that begins later answers what was true before it.
//! - Nothing is delivered by a gather while the buffer has it.
//!
//! # Lock order
//!
//! The table's, then a stripe of the buffer.
//!
//! Source: Sun Microsystems, "UltraSPARC Architecture 2007", 14 "Memory Management"; D. L. Weaver, T.
//! Germond (eds.), "The SPARC Architecture Manual, Version 9", 1994.

use buffer::TsbBuffer as Buffer;
use core::fmt;
use core::ops::ControlFlow;
use forgetting::Forgetting;
use vellum_core::{
    Attr, Canonical, Cause, Change, Entry, Gather, Memory, Need, OutOfFrames, PageTable,
    RangeError, Ref, ReplaceError, Run, Sink, Span, VirtAddr, Walk, pte,
};

mod buffer;
mod forgetting;

pub use buffer::TsbBuffer;

/// A page table with a buffer of translations before it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// use vellum_core::{Attr, Direct, PageTable, PhysAddr, Run, VirtAddr, Walk};
/// use vellum_hashed::{Asid, Chained, Tsb, TsbBuffer};
/// use vellum_testkit::Arena;
///
/// let arena = Arena::new(64);
/// let table = Chained::new(&arena)?;
/// let mut space = Tsb::new(table.space(Asid::new(1).unwrap())?, TsbBuffer::new(&arena, 0)?);
/// // SAFETY: no CPU of this example knows of the table.
/// let mut gather = unsafe { Direct::new(|_| {}) };
/// let page = Run::new(VirtAddr::new(0x5000), PhysAddr::new(0x9000), 0x1000, Attr::RW);
/// space.map(page, &mut gather)?;
///
/// let mut bytes = 0;
/// space.walk(page.va, &mut ())?;
/// space.walk(page.va, &mut |r: vellum_core::Ref| bytes += r.bytes)?;
/// assert_eq!((bytes, space.buffer().hits(), space.buffer().misses()), (16, 1, 1));
/// space.retire(&mut gather);
/// # Ok(())
/// # }
/// ```
pub struct Tsb<T, M: Memory> {
    table: T,
    buffer: Buffer<M>,
}

impl<T: PageTable, M: Memory> Tsb<T, M> {
    /// log2 of the smallest leaf's bytes.
    const PAGE: u8 = T::LEAVES.trailing_zeros() as u8;

    /// `table`, with `buffer` before it. One that held entries of another table has lost them when
    /// that was retired or taken out.
    pub const fn new(table: T, buffer: TsbBuffer<M>) -> Self {
        Self { table, buffer }
    }

    /// The buffer, for what it has counted.
    pub const fn buffer(&self) -> &TsbBuffer<M> {
        &self.buffer
    }

    /// The table behind, to be looked at. What is changed through this reference the buffer does not
    /// learn of: look-ups then answer what was true before.
    pub const fn table(&self) -> &T {
        &self.table
    }

    /// The table alone; the buffer's memory is given back.
    pub fn into_table(self) -> T {
        self.table
    }

    /// A gather for changes by `&mut self`, when nobody looks anything up.
    const fn alone<'g, G>(buffer: &'g Buffer<M>, gather: &'g mut G) -> Forgetting<'g, M, G> {
        Forgetting { buffer, gather, page: Self::PAGE, alone: true }
    }

    /// A gather for changes by `&self`.
    const fn beside_others<'g, G>(&'g self, gather: &'g mut G) -> Forgetting<'g, M, G> {
        Forgetting { buffer: &self.buffer, gather, page: Self::PAGE, alone: false }
    }

    fn forget(&self, va: VirtAddr, len: u64, alone: bool) {
        if let Some(last) = len.checked_sub(1) {
            self.buffer.forget(va..=va.wrapping_add(last), Self::PAGE, alone);
        }
    }

    /// The raw leaf that the buffer may keep of what a walk has found.
    fn keeps(span: Span) -> Option<u64> {
        let smallest = matches!(span.entry, Entry::Leaf(..)) && span.len == 1 << Self::PAGE;
        // Attributes that another format has and this one has not are not kept.
        if smallest { pte::encode(span.entry, Self::PAGE).ok() } else { None }
    }
}

impl<T: PageTable, M: Memory> Walk for Tsb<T, M> {
    /// Reports the 16 bytes that it reads of the buffer. Where they were of no use, this comes last,
    /// after what the table's walk reads: it is the one reference that no walk cache saves.
    fn walk<S: Sink>(&self, va: VirtAddr, sink: &mut S) -> Result<Span, Cause> {
        if !self.table.canonical().contains(va) {
            return Err(Cause::NonCanonical(va));
        }
        let page = va.align_down(Self::PAGE);
        match self.buffer.look_up(page, Self::PAGE) {
            Ok(raw) => {
                sink.reference(self.buffer.reference(page, Self::PAGE, Self::PAGE));
                Ok(Span { va: page, len: 1 << Self::PAGE, entry: pte::decode(raw, Self::PAGE) })
            }
            Err(version) => {
                let mut last = Self::PAGE;
                let span = self.table.walk(va, &mut |r: Ref| {
                    last = r.span;
                    sink.reference(r);
                })?;
                // Of the same span: whoever takes what comes before a smaller one for a link
                // takes nothing for a link that leads here.
                sink.reference(self.buffer.reference(page, Self::PAGE, last));
                if let Some(raw) = Self::keeps(span) {
                    self.buffer.fill(version, page, Self::PAGE, raw);
                }
                Ok(span)
            }
        }
    }

    fn touch(&self, va: VirtAddr, need: Attr, bits: Attr) -> Entry {
        let old = self.table.touch(va, need, bits);
        if matches!(old, Entry::Leaf(_, attr) if attr.contains(need) && !attr.contains(bits)) {
            self.forget(va.align_down(Self::PAGE), 1, false);
        }
        old
    }
}

impl<T: PageTable, M: Memory> PageTable for Tsb<T, M> {
    type Stock = T::Stock;
    type Detached = T::Detached;

    const LEAVES: u64 = T::LEAVES;
    const REPLACEABLE: u64 = T::REPLACEABLE;
    const SOFT_BITS: u8 = T::SOFT_BITS;

    fn canonical(&self) -> Canonical {
        self.table.canonical()
    }

    fn table_bytes(&self) -> u64 {
        self.table.table_bytes() + self.buffer.table_bytes()
    }

    fn stock(&self) -> Self::Stock {
        self.table.stock()
    }

    fn refill(&self, stock: &mut Self::Stock, need: Need) -> Result<(), OutOfFrames> {
        self.table.refill(stock, need)
    }

    fn replace<G: Gather<Self::Detached>>(
        &self,
        va: VirtAddr,
        len: u64,
        expect: Entry,
        new: Entry,
        stock: &mut Self::Stock,
        gather: &mut G,
    ) -> Result<(), ReplaceError> {
        self.table.replace(va, len, expect, new, stock, &mut self.beside_others(gather))?;
        if matches!(expect, Entry::Leaf(..)) {
            self.forget(va, len, false);
        }
        Ok(())
    }

    fn map<G: Gather<Self::Detached>>(
        &mut self,
        run: Run,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        self.table.map(run, &mut Self::alone(&self.buffer, gather))
    }

    fn unmap<G: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        self.table.unmap(va, len, &mut Self::alone(&self.buffer, gather))
    }

    fn protect<G: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        change: Change,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        let done = self.table.protect(va, len, change, &mut Self::alone(&self.buffer, gather));
        self.forget(va, len, true);
        done
    }

    fn visit(
        &self,
        va: VirtAddr,
        len: u64,
        f: &mut impl FnMut(Span) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        self.table.visit(va, len, f)
    }

    fn harvest<G: Gather<Self::Detached>>(
        &self,
        va: VirtAddr,
        len: u64,
        clear: Attr,
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) -> Result<(), Cause> {
        self.table.harvest(va, len, clear, &mut self.beside_others(gather), f)?;
        self.forget(va, len, false);
        Ok(())
    }

    /// The buffer's memory goes back when this returns: nobody reads it but look-ups, which borrow
    /// `self`.
    fn retire<G: Gather<Self::Detached>>(self, gather: &mut G) {
        self.table.retire(gather);
    }

    fn share<G: Gather<Self::Detached>, H: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        change: Change,
        gather: &mut G,
        (child, child_gather): (&mut Self, &mut H),
        f: &mut impl FnMut(Span),
    ) -> Result<(), RangeError> {
        let done = self.table.share(
            va,
            len,
            change,
            &mut Self::alone(&self.buffer, gather),
            (&mut child.table, &mut Self::alone(&child.buffer, child_gather)),
            f,
        );
        self.forget(va, len, true);
        done
    }
}

impl<T: PageTable + fmt::Debug, M: Memory> fmt::Debug for Tsb<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tsb").field("table", &self.table).field("buffer", &self.buffer).finish()
    }
}

#[cfg(test)]
mod tests;
