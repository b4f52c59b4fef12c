//! What can be done with a design: the seam between experiments and designs.
//!
//! ```text
//!   Design::measure(experiment)
//!      |  memory for count_pages, table(s)
//!      v
//!   Experiment::run(scene, make)      make(n) -> the n-th address space, as a PageTable
//!      |
//!      v
//!   Out, or DesignError: unsupported (a row that says so), or a failure
//! ```
//!
//! An experiment is written once over [`PageTable`]; a design says once how its address spaces are
//! made. Neither knows the others.
//!
//! # Invariants
//!
//! - `make(n)` gives an address space of its own for each `n`; after it was retired, `n` is free again.

use crate::designs::structure::{StructureReport, Watched};
use crate::ram::{DataFrames, HUGE_SHIFT, RamError, TableRam};
use crate::replay::ReplayError;
use core::fmt;
use vellum_core::{
    Attr, Batch, Entry, Flush, Gone, Invalidate, OutOfFrames, PAGE_SIZE, PageTable, VirtAddr, Vpn,
};

/// What leaves are installed with.
pub const ATTR: Attr = Attr::from_bits(Attr::RWX.bits() | Attr::USER.bits() | Attr::STATUS.bits());

/// What every experiment finds: simulated memory.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a, 'r, 'd> {
    /// The memory of tables.
    pub ram: &'a TableRam<'r>,
    /// The frames of data.
    pub data: &'a DataFrames<'d>,
    /// The table that all spaces are in, if they are in one.
    pub global: Option<&'a Watched<'a>>,
}

impl Scene<'_, '_, '_> {
    /// How the table of all spaces is filled.
    #[must_use]
    pub fn structure(&self) -> Option<StructureReport> {
        self.global.map(Watched::structure)
    }
}

/// Something to do with the address spaces of a design.
pub trait Experiment {
    /// What comes of it.
    type Out;

    /// For how many pages there has to be memory for tables.
    fn count_pages(&self) -> u64;

    /// How many frames of data there are.
    fn count_frames(&self) -> u64 {
        self.count_pages()
    }

    /// The highest page that is mapped.
    fn highest(&self) -> Vpn;

    /// Does it; `make` makes address spaces.
    ///
    /// # Errors
    ///
    /// [`DesignError`].
    fn run<T: PageTable>(
        &self,
        scene: Scene<'_, '_, '_>,
        make: &mut dyn FnMut(u16) -> Result<T, ReplayError>,
    ) -> Result<Self::Out, DesignError>;
}

/// An experiment did not take place on a design.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DesignError {
    /// The design cannot do it.
    Unsupported {
        /// Why.
        reason: String,
        /// What its table would take, all in one block, if that is known.
        bytes: Option<u64>,
    },
    /// It failed.
    Failed(ReplayError),
}

impl DesignError {
    /// The design cannot do it, for this reason.
    pub fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported { reason: reason.into(), bytes: None }
    }
}

impl fmt::Display for DesignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported { reason, .. } => f.write_str(reason),
            Self::Failed(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for DesignError {}

impl From<ReplayError> for DesignError {
    fn from(e: ReplayError) -> Self {
        Self::Failed(e)
    }
}

impl From<OutOfFrames> for DesignError {
    fn from(e: OutOfFrames) -> Self {
        Self::Failed(e.into())
    }
}

impl From<RamError> for DesignError {
    fn from(e: RamError) -> Self {
        Self::Failed(e.into())
    }
}

impl From<OutOfFrames> for ReplayError {
    fn from(e: OutOfFrames) -> Self {
        Self::OutOfFrames(e)
    }
}

impl From<RamError> for ReplayError {
    fn from(e: RamError) -> Self {
        Self::Ram(e)
    }
}

/// Nobody to flush: see the SAFETY comment.
#[derive(Clone, Copy, Debug)]
pub struct NoCpu;

// SAFETY: no processor walks these tables. The simulated one remembers page numbers, through which
// no byte is ever reached.
#[allow(unsafe_code, reason = "implements an unsafe trait for tables that no CPU uses")]
unsafe impl Invalidate for NoCpu {
    fn flush(&self, _: &[Flush]) {}
}

/// Does `f` with the gather of a live table, and throws away what comes out of it: data frames are
/// addresses alone, which nobody reuses.
pub fn gathered<T: PageTable, R>(f: impl FnOnce(&mut Live<T>) -> R) -> R {
    gathered_into::<T, fn(Gone), R>(|_| {}, f)
}

/// The same with a sink for what comes out.
pub fn gathered_into<T: PageTable, S: FnMut(Gone), R>(
    sink: S,
    f: impl FnOnce(&mut Live<T, S>) -> R,
) -> R {
    // SAFETY: no CPU walks simulated tables; what stands for one walks them in this thread, and
    // its TLB serves no access.
    #[allow(unsafe_code, reason = "says that no CPU has the table")]
    let mut gather: Live<T, S> = unsafe { Batch::new(NoCpu, sink) };
    let done = f(&mut gather);
    gather.finish();
    done
}

/// The gather of [`gathered`].
pub type Live<T, S = fn(Gone)> = Batch<NoCpu, S, <T as PageTable>::Detached, 32>;

/// Makes a page of a hole, as a fault does.
///
/// # Errors
///
/// [`ReplayError::Install`], or that the table's memory is exhausted.
pub fn install<T: PageTable>(
    table: &T,
    va: VirtAddr,
    leaf: Entry,
    stock: &mut T::Stock,
) -> Result<(), ReplayError> {
    exchange(table, va, Entry::Hole, leaf, stock)
}

/// Replaces what the page holds, as a fault does.
///
/// # Errors
///
/// As [`install`].
pub fn exchange<T: PageTable>(
    table: &T,
    va: VirtAddr,
    expect: Entry,
    new: Entry,
    stock: &mut T::Stock,
) -> Result<(), ReplayError> {
    use vellum_core::{Cause, ReplaceError};
    let done = gathered::<T, _>(|gather| {
        table.replace_refilling(va, PAGE_SIZE, expect, new, stock, gather)
    });
    done.map_err(|e| match e {
        ReplaceError::Invalid(Cause::OutOfFrames(e)) => ReplayError::OutOfFrames(e),
        e => ReplayError::Install(va, e),
    })
}

/// Whether the design has leaves of 2 MiB.
#[must_use]
pub const fn has_huge<T: PageTable>() -> bool {
    T::LEAVES >> HUGE_SHIFT & 1 != 0
}

/// splitmix64 (Steele, Lea, Flood, OOPSLA 2014): the numbers that everything random here is made of.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one.
    #[allow(clippy::should_implement_trait, reason = "it has no end, so there is no Option")]
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// One below `n`, which is at least 1; as even as 64 bits multiplied by `n` are.
    pub const fn below(&mut self, n: u64) -> u64 {
        ((self.next() as u128 * n as u128) >> 64) as u64
    }

    /// Puts the items into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}
