//! Ours on a table that some CPU may be using: no peer says what it does there.
//!
//! ```text
//!   quiet       accessed and dirty are set: hardware writes nothing more, plain stores do
//!   not quiet   they are not: what narrows an entry must be a locked operation
//! ```
//!
//! The peers store plainly over whatever hardware may have written meanwhile, so their figures of
//! the other section are theirs here. A flush does nothing, in this section as in the others.

use super::ours::{DATA_ATTR, Inner, Live as Gather, change, direct, frames, live, run};
use super::ram::{self, Ram};
use super::rows::{Amounts, Meter, PA, VA};
use super::table::PAGE;
use core::hint::black_box;
use vellum_core::{Attr, Change, Entry, Gone, PageTable, PhysAddr, Run, VirtAddr};

/// How often rights are taken and given back in one turn.
const PASSES: u64 = 8;

/// Bytes that a lowest node maps.
const NODE: u64 = 2 << 20;

/// Bytes that are unmapped at a time where tables are to stay.
const PIECE: u64 = 1 << 20;

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// 1 GiB in one call, nothing there.
    Map,
    /// A call for each page.
    Each,
    /// Change rights of quiet pages.
    Quiet,
    /// Change rights of pages that hardware may write to.
    Noisy,
    /// Whole tables.
    Unmap,
    /// The first half of each table, quiet.
    Half,
    /// The same; no frame follows the one before it.
    HalfPages,
    /// Put in through `&self`, one page a call.
    Install,
    /// Taken out through `&self`, one page a call.
    Remove,
    /// Shared, copy on write; frames follow each other.
    ForkRun,
    /// Shared, copy on write; no frame follows the one before it.
    ForkPages,
    /// As the one before it, by whole nodes.
    ForkNodes,
}

impl Live {
    /// In the order of the report.
    pub const ALL: [Self; 12] = [
        Self::Map,
        Self::Each,
        Self::Quiet,
        Self::Noisy,
        Self::Unmap,
        Self::Half,
        Self::HalfPages,
        Self::Install,
        Self::Remove,
        Self::ForkRun,
        Self::ForkPages,
        Self::ForkNodes,
    ];

    /// The head of its column.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Map => "live: map 1 GiB",
            Self::Each => "live: map each",
            Self::Quiet => "live: protect, quiet",
            Self::Noisy => "live: protect, not quiet",
            Self::Unmap => "live: unmap 1 GiB",
            Self::Half => "live: unmap halves",
            Self::HalfPages => "live: unmap halves, pages",
            Self::Install => "live: replace hole",
            Self::Remove => "live: replace leaf",
            Self::ForkRun => "live: fork, a run",
            Self::ForkPages => "live: fork, pages",
            Self::ForkNodes => "live: fork, nodes",
        }
    }

    /// One turn; how many pages what was measured is for.
    ///
    /// # Panics
    ///
    /// When the table fails, or keeps frames.
    pub fn turn(self, amounts: &Amounts, meter: Meter<'_>) -> u64 {
        let mut table = Inner::new(Ram).expect("a frame for the root");
        let mut child = Inner::new(Ram).expect("a frame for the root");
        let len = amounts.dense;
        assert!(self.prepare(&mut table, amounts), "could not make ready for {self:?}");
        meter(&mut || {
            let done = self.act(black_box(&mut table), &mut child, amounts);
            assert!(done, "failed in {self:?}");
        });
        table.retire(&mut direct(|_| {}));
        child.retire(&mut direct(|_| {}));
        ram::rewind();
        match self {
            Self::Quiet | Self::Noisy => PASSES * amounts.protect / PAGE,
            Self::Half | Self::HalfPages => len / PAGE / 2,
            Self::ForkRun | Self::ForkPages | Self::ForkNodes => amounts.protect / PAGE,
            _ => len / PAGE,
        }
    }

    fn prepare(self, table: &mut Inner, amounts: &Amounts) -> bool {
        let gather = &mut direct(|_| {});
        match self {
            Self::Map | Self::Each | Self::Install => true,
            Self::Quiet | Self::ForkRun => {
                table.map(quiet(VA, PA, amounts.protect), gather).is_ok()
            }
            Self::Noisy => table.map(run(VA, PA, amounts.protect), gather).is_ok(),
            Self::Unmap | Self::Half | Self::Remove => {
                table.map(quiet(VA, PA, amounts.dense), gather).is_ok()
            }
            Self::HalfPages => map_backwards(table, amounts.dense),
            Self::ForkPages | Self::ForkNodes => map_backwards(table, amounts.protect),
        }
    }

    fn act(self, table: &mut Inner, child: &mut Inner, amounts: &Amounts) -> bool {
        let dense = black_box(amounts.dense);
        let mut bytes = 0;
        let mut count = |pa, len| {
            black_box(pa);
            bytes += len;
        };
        let mut gather = live(frames(&mut count));
        let protect = black_box(amounts.protect);
        let done = match self {
            Self::Map => map(table, dense, &mut gather),
            Self::Each => map_each(table, dense, &mut gather),
            Self::Quiet | Self::Noisy => protect_often(table, protect, &mut gather),
            Self::Unmap => unmap(table, dense, &mut gather),
            Self::Half | Self::HalfPages => unmap_halves(table, dense, &mut gather),
            Self::Install | Self::Remove => {
                replace_each(table, dense, self == Self::Install, &mut gather)
            }
            Self::ForkRun | Self::ForkPages => fork(table, child, protect, &mut gather),
            Self::ForkNodes => fork_nodes(table, child, protect, &mut gather),
        };
        gather.finish();
        let gone = match self {
            Self::Unmap | Self::Remove => dense,
            Self::Half | Self::HalfPages => dense / 2,
            _ => 0,
        };
        done && bytes == gone
    }
}

/// A run of pages to which hardware will write nothing more.
fn quiet(va: u64, pa: u64, len: u64) -> Run {
    Run { attr: DATA_ATTR | Attr::STATUS, ..run(va, pa, len) }
}

/// Maps quiet pages to frames in descending order, so that no two make a run.
fn map_backwards(table: &mut Inner, len: u64) -> bool {
    let gather = &mut direct(|_| {});
    (0..len).step_by(PAGE as usize).all(|at| {
        let page = quiet(VA + at, PA + len - at, PAGE);
        table.map(page, gather).is_ok()
    })
}

// What is measured, one function each, as in `acts`.

#[inline(never)]
fn map<S: FnMut(Gone)>(table: &mut Inner, len: u64, gather: &mut Gather<S>) -> bool {
    table.map(run(VA, PA, len), gather).is_ok()
}

#[inline(never)]
fn map_each<S: FnMut(Gone)>(table: &mut Inner, len: u64, gather: &mut Gather<S>) -> bool {
    let mut pages = (0..len).step_by(PAGE as usize);
    pages.all(|at| table.map(run(VA + at, PA + at, PAGE), gather).is_ok())
}

#[inline(never)]
fn protect_often<S: FnMut(Gone)>(table: &mut Inner, len: u64, gather: &mut Gather<S>) -> bool {
    (0..PASSES).all(|pass| {
        let change = change(pass % 2 == 1);
        black_box(&mut *table).protect(VirtAddr::new(VA), len, change, gather).is_ok()
    })
}

#[inline(never)]
fn unmap<S: FnMut(Gone)>(table: &mut Inner, len: u64, gather: &mut Gather<S>) -> bool {
    table.unmap(VirtAddr::new(VA), len, gather).is_ok()
}

#[inline(never)]
fn unmap_halves<S: FnMut(Gone)>(table: &mut Inner, len: u64, gather: &mut Gather<S>) -> bool {
    let mut pieces = (VA..VA + len).step_by(2 * PIECE as usize);
    pieces.all(|va| table.unmap(VirtAddr::new(va), PIECE, gather).is_ok())
}

/// Puts leaves into holes, or holes in the place of leaves.
#[inline(never)]
fn replace_each<S: FnMut(Gone)>(
    table: &Inner,
    len: u64,
    install: bool,
    gather: &mut Gather<S>,
) -> bool {
    let mut stock = table.stock();
    (0..len).step_by(PAGE as usize).all(|at| {
        let leaf = Entry::Leaf(PhysAddr::new(PA + at), DATA_ATTR);
        let (expect, new) = if install { (Entry::Hole, leaf) } else { (leaf, Entry::Hole) };
        let (table, va) = (black_box(table), VirtAddr::new(VA + at));
        table.replace_refilling(va, PAGE, expect, new, &mut stock, gather).is_ok()
    })
}

#[inline(never)]
fn fork<S: FnMut(Gone)>(
    table: &mut Inner,
    child: &mut Inner,
    len: u64,
    gather: &mut Gather<S>,
) -> bool {
    let (va, change) = (VirtAddr::new(VA), Change::clearing(Attr::WRITE));
    let mut own = direct(|_| {});
    let mut given = 0;
    let shared =
        table.share(va, len, change, gather, (child, &mut own), &mut |span| given += span.len);
    shared.is_ok() && given == len
}

#[inline(never)]
fn fork_nodes<S: FnMut(Gone)>(
    table: &mut Inner,
    child: &mut Inner,
    len: u64,
    gather: &mut Gather<S>,
) -> bool {
    let mut own = direct(|_| {});
    let mut given = 0;
    let child = (child, &mut own);
    let shared =
        table.share_nodes(VirtAddr::new(VA), len, gather, child, &mut |span| given += span.len);
    // What is not a whole node is given entry by entry.
    shared.is_ok() && given == len % NODE
}
