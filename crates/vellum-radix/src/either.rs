//! One of two tables, chosen at run time: 4 levels or 5, as the processor at hand has them.
//!
//! ```text
//!   Either<Four, Five>        one branch on entry to an operation; everything below it is the
//!     Left(Four)  --> map     code of one format, compiled for it
//!     Right(Five) --> map
//!
//!   gather of the whole  <-- detach(Left(part)) --  Wrapped  <-- detach(part) --  map of Four
//! ```
//!
//! What both have is what it offers: [`PageTable::LEAVES`] are those of both, and a soft value fits
//! either. Which addresses it translates is asked of the table that there is. Three formats are an
//! `Either` in an `Either`.
//!
//! # Invariants
//!
//! - A stock of the other variant counts as empty until [`PageTable::refill`] makes it one of this.

use crate::format::{RVA23, RiscV, X86_64};
use crate::radix::Radix;
use core::ops::ControlFlow;
use vellum_core::{
    Attr, Canonical, Cause, Change, Entry, Flush, Gather, Given, Gone, Linked, Memory, Need,
    OutOfFrames, PageTable, PhysAddr, RangeError, Reap, ReplaceError, Run, Scope, Sink, Soft, Span,
    VirtAddr, Walk, share_entries,
};

/// One of two; as a table, one that holds what both can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first.
    Left(A),
    /// The second.
    Right(B),
}

/// x86-64 with 4 or 5 levels.
///
/// ```
/// use vellum_core::{Canonical, PageTable};
/// use vellum_radix::X86Any;
/// use vellum_testkit::Arena;
///
/// let arena = Arena::new(16);
/// let has_la57 = true; // CPUID.(EAX=07H, ECX=0):ECX[16]
/// let table = if has_la57 { X86Any::five(&arena) } else { X86Any::four(&arena) }?;
/// assert_eq!(table.canonical(), Canonical::signed(57));
/// # // SAFETY: no CPU has loaded this table.
/// # table.retire(&mut unsafe { vellum_core::Direct::new(|_| {}) });
/// # Ok::<(), vellum_core::OutOfFrames>(())
/// ```
pub type X86Any<M> = Either<Radix<X86_64<4>, M>, Radix<X86_64<5>, M>>;

/// RISC-V with 3, 4 or 5 levels: Sv39, Sv48 or Sv57.
pub type RiscVAny<M, const EXTENSIONS: u8 = RVA23> = Either<
    Radix<RiscV<3, EXTENSIONS>, M>,
    Either<Radix<RiscV<4, EXTENSIONS>, M>, Radix<RiscV<5, EXTENSIONS>, M>>,
>;

/// Calls an operation without a gather of the table that there is.
macro_rules! ask {
    ($self:expr, $table:ident => $call:expr) => {
        match $self {
            Self::Left($table) => $call,
            Self::Right($table) => $call,
        }
    };
}

/// Calls an operation of the table that there is, with its gather.
macro_rules! forward {
    ($self:expr, $gather:ident, $table:ident => $call:expr) => {
        match $self {
            Self::Left($table) => {
                let $gather = &mut Wrapped::new($gather, Either::Left);
                $call
            }
            Self::Right($table) => {
                let $gather = &mut Wrapped::new($gather, Either::Right);
                $call
            }
        }
    };
}

/// Calls an operation on two tables that are of one variant, each with its gather; or else on both as
/// they are.
macro_rules! both {
    (($one:expr, $two:expr), ($g:ident, $h:ident), ($table:ident, $child:ident) => $same:expr, $mixed:expr) => {
        match ($one, $two) {
            (Self::Left($table), Self::Left(child)) => {
                let $g = &mut Wrapped::new($g, Either::Left);
                let $child = (child, &mut Wrapped::new($h, Either::Left));
                $same
            }
            (Self::Right($table), Self::Right(child)) => {
                let $g = &mut Wrapped::new($g, Either::Right);
                let $child = (child, &mut Wrapped::new($h, Either::Right));
                $same
            }
            ($table, child) => {
                let $child = (child, $h);
                $mixed
            }
        }
    };
}

impl<M: Memory> X86Any<M> {
    /// An empty table of 4 levels.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when there is no block for the root.
    pub fn four(mem: M) -> Result<Self, OutOfFrames> {
        Radix::new(mem).map(Self::Left)
    }

    /// An empty table of 5 levels.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when there is no block for the root.
    pub fn five(mem: M) -> Result<Self, OutOfFrames> {
        Radix::new(mem).map(Self::Right)
    }

    /// Where the root node lies: see [`Radix::root`].
    #[must_use]
    pub const fn root(&self) -> PhysAddr {
        match self {
            Self::Left(table) => table.root(),
            Self::Right(table) => table.root(),
        }
    }
}

impl<M: Memory, const EXTENSIONS: u8> RiscVAny<M, EXTENSIONS> {
    /// An empty table of Sv39.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when there is no block for the root.
    pub fn sv39(mem: M) -> Result<Self, OutOfFrames> {
        Radix::new(mem).map(Self::Left)
    }

    /// An empty table of Sv48.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when there is no block for the root.
    pub fn sv48(mem: M) -> Result<Self, OutOfFrames> {
        Radix::new(mem).map(|table| Self::Right(Either::Left(table)))
    }

    /// An empty table of Sv57.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when there is no block for the root.
    pub fn sv57(mem: M) -> Result<Self, OutOfFrames> {
        Radix::new(mem).map(|table| Self::Right(Either::Right(table)))
    }

    /// Where the root node lies: see [`Radix::root`].
    #[must_use]
    pub const fn root(&self) -> PhysAddr {
        match self {
            Self::Left(table) => table.root(),
            Self::Right(Either::Left(table)) => table.root(),
            Self::Right(Either::Right(table)) => table.root(),
        }
    }
}

/// A gather of `E`, for a table whose parts are `D`.
struct Wrapped<'g, G, D, E> {
    gather: &'g mut G,
    wrap: fn(D) -> E,
}

impl<'g, G, D, E> Wrapped<'g, G, D, E> {
    const fn new(gather: &'g mut G, wrap: fn(D) -> E) -> Self {
        Self { gather, wrap }
    }
}

// SAFETY: forwards to `G`, which keeps the contract; a part is delivered when what it is wrapped in is.
#[allow(unsafe_code, reason = "implements an unsafe trait by forwarding")]
unsafe impl<G: Gather<E>, D, E> Gather<D> for Wrapped<'_, G, D, E> {
    const LIVE: bool = G::LIVE;

    #[inline]
    fn room(&self) -> usize {
        self.gather.room()
    }

    fn drain(&mut self) {
        self.gather.drain();
    }

    fn owed(&self) -> Option<Scope> {
        self.gather.owed()
    }

    #[inline]
    fn leaf(&mut self, run: Run) {
        self.gather.leaf(run);
    }

    fn soft(&mut self, va: VirtAddr, soft: Soft) {
        self.gather.soft(va, soft);
    }

    #[inline]
    fn stale(&mut self, flush: Flush) {
        self.gather.stale(flush);
    }

    fn detach(&mut self, flush: Flush, part: D) {
        self.gather.detach(flush, (self.wrap)(part));
    }
}

impl<A: Reap, B: Reap> Reap for Either<A, B> {
    fn reap(self, sink: &mut impl FnMut(Gone)) {
        match self {
            Self::Left(part) => part.reap(sink),
            Self::Right(part) => part.reap(sink),
        }
    }

    fn discard(self) {
        match self {
            Self::Left(part) => part.discard(),
            Self::Right(part) => part.discard(),
        }
    }
}

impl<A: Walk, B: Walk> Walk for Either<A, B> {
    #[inline]
    fn walk<S: Sink>(&self, va: VirtAddr, sink: &mut S) -> Result<Span, Cause> {
        ask!(self, table => table.walk(va, sink))
    }

    #[inline]
    fn translate(&self, va: VirtAddr) -> Option<PhysAddr> {
        ask!(self, table => table.translate(va))
    }

    #[inline]
    fn touch(&self, va: VirtAddr, need: Attr, bits: Attr) -> Entry {
        ask!(self, table => table.touch(va, need, bits))
    }
}

impl<A: PageTable, B: PageTable> PageTable for Either<A, B> {
    type Stock = Either<A::Stock, B::Stock>;
    type Detached = Either<A::Detached, B::Detached>;
    const LEAVES: u64 = A::LEAVES & B::LEAVES;
    const REPLACEABLE: u64 = A::REPLACEABLE & B::REPLACEABLE;
    const PART: u64 = if A::PART == B::PART { A::PART } else { 0 };
    const SOFT_BITS: u8 = if A::SOFT_BITS < B::SOFT_BITS { A::SOFT_BITS } else { B::SOFT_BITS };

    fn canonical(&self) -> Canonical {
        ask!(self, table => table.canonical())
    }

    fn table_bytes(&self) -> u64 {
        ask!(self, table => table.table_bytes())
    }

    fn stock(&self) -> Self::Stock {
        match self {
            Self::Left(table) => Either::Left(table.stock()),
            Self::Right(table) => Either::Right(table.stock()),
        }
    }

    fn refill(&self, stock: &mut Self::Stock, need: Need) -> Result<(), OutOfFrames> {
        match (self, &mut *stock) {
            (Self::Left(table), Either::Left(stock)) => table.refill(stock, need),
            (Self::Right(table), Either::Right(stock)) => table.refill(stock, need),
            // Of the other variant: what it holds goes back.
            _ => {
                *stock = self.stock();
                self.refill(stock, need)
            }
        }
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
        match (self, stock) {
            (Self::Left(table), Either::Left(stock)) => {
                let gather = &mut Wrapped::new(gather, Either::Left);
                table.replace(va, len, expect, new, stock, gather)
            }
            (Self::Right(table), Either::Right(stock)) => {
                let gather = &mut Wrapped::new(gather, Either::Right);
                table.replace(va, len, expect, new, stock, gather)
            }
            // Of the other variant: without a stock, and if it takes one, the answer is a need.
            _ => forward!(self, gather, table => {
                table.replace(va, len, expect, new, &mut table.stock(), gather)
            }),
        }
    }

    #[inline]
    fn map<G: Gather<Self::Detached>>(
        &mut self,
        run: Run,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        forward!(self, gather, table => table.map(run, gather))
    }

    fn unmap<G: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        forward!(self, gather, table => table.unmap(va, len, gather))
    }

    fn protect<G: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        change: Change,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        forward!(self, gather, table => table.protect(va, len, change, gather))
    }

    fn visit(
        &self,
        va: VirtAddr,
        len: u64,
        f: &mut impl FnMut(Span) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        ask!(self, table => table.visit(va, len, f))
    }

    fn harvest<G: Gather<Self::Detached>>(
        &self,
        va: VirtAddr,
        len: u64,
        clear: Attr,
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) -> Result<(), Cause> {
        forward!(self, gather, table => table.harvest(va, len, clear, gather, f))
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
        both!(
            (self, child),
            (gather, child_gather),
            (table, child) => table.share(va, len, change, gather, child, f),
            share_entries(table, (va, len), change, gather, child, f)
        )
    }

    fn fork<G: Gather<Self::Detached>, H: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
        (child, child_gather): (&mut Self, &mut H),
        f: &mut impl FnMut(Given),
    ) -> Result<(), RangeError> {
        let change = Change::clearing(Attr::WRITE);
        let mut own = |span| f(Given::Own(span));
        both!(
            (self, child),
            (gather, child_gather),
            (table, child) => table.fork(va, len, gather, child, f),
            share_entries(table, (va, len), change, gather, child, &mut own)
        )
    }

    fn unshare<G: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) -> Result<(), RangeError> {
        forward!(self, gather, table => table.unshare(va, len, gather, f))
    }

    fn next_linked(&self, va: VirtAddr, len: u64) -> Option<Linked> {
        ask!(self, table => table.next_linked(va, len))
    }

    fn move_parts<G: Gather<Self::Detached>>(
        &mut self,
        from: VirtAddr,
        to: VirtAddr,
        len: u64,
        gather: &mut G,
    ) -> Result<bool, Cause> {
        forward!(self, gather, table => table.move_parts(from, to, len, gather))
    }

    fn retire<G: Gather<Self::Detached>>(self, gather: &mut G) {
        forward!(self, gather, table => table.retire(gather));
    }
}

#[cfg(test)]
mod tests;
