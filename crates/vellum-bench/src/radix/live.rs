//! Ours on a table that some CPU may be using: no peer says what it does there.
//!
//! ```text
//!   quiet       accessed and dirty are set: hardware writes nothing more, plain stores do
//!   not quiet   they are not: what narrows an entry must be a locked operation
//! ```
//!
//! The peers store plainly over whatever hardware may have written meanwhile, so their figures of
//! the other section are theirs here. A flush does nothing, in this section as in the others.

use super::ours::{DATA_ATTR, Inner, change, direct, frames, live, run};
use super::ram::{self, Ram};
use super::rows::{Amounts, Meter, PA, VA};
use super::table::PAGE;
use core::hint::black_box;
use vellum_core::{Attr, Change, Entry, PageTable, PhysAddr, Run, VirtAddr};

/// How often rights are taken and given back in one turn.
const PASSES: u64 = 8;

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
}

impl Live {
    /// In the order of the report.
    pub const ALL: [Self; 11] = [
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
            Self::ForkRun | Self::ForkPages => amounts.protect / PAGE,
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
            Self::ForkPages => map_backwards(table, amounts.protect),
        }
    }

    fn act(self, table: &mut Inner, child: &mut Inner, amounts: &Amounts) -> bool {
        let (va, dense) = (VirtAddr::new(VA), black_box(amounts.dense));
        let mut bytes = 0;
        let mut count = |pa, len| {
            black_box(pa);
            bytes += len;
        };
        let mut gather = live(frames(&mut count));
        let pages = || (0..dense).step_by(PAGE as usize).map(|at| (VA + at, PA + at));
        let done = match self {
            Self::Map => table.map(run(VA, PA, dense), &mut gather).is_ok(),
            Self::Each => pages().all(|(va, pa)| table.map(run(va, pa, PAGE), &mut gather).is_ok()),
            Self::Quiet | Self::Noisy => (0..PASSES).all(|pass| {
                let change = change(pass % 2 == 1);
                table.protect(va, amounts.protect, change, &mut gather).is_ok()
            }),
            Self::Unmap => table.unmap(va, dense, &mut gather).is_ok(),
            Self::Half | Self::HalfPages => (0..dense / (2 * PIECE)).all(|n| {
                let va = VirtAddr::new(VA + n * 2 * PIECE);
                table.unmap(va, PIECE, &mut gather).is_ok()
            }),
            Self::Install | Self::Remove => {
                let mut stock = table.stock();
                pages().all(|(va, pa)| {
                    let leaf = Entry::Leaf(PhysAddr::new(pa), DATA_ATTR);
                    let (expect, new) = match self {
                        Self::Install => (Entry::Hole, leaf),
                        _ => (leaf, Entry::Hole),
                    };
                    let va = VirtAddr::new(va);
                    black_box(&*table)
                        .replace_refilling(va, PAGE, expect, new, &mut stock, &mut gather)
                        .is_ok()
                })
            }
            Self::ForkRun | Self::ForkPages => {
                let (len, change) = (black_box(amounts.protect), Change::clearing(Attr::WRITE));
                let mut own = direct(|_| {});
                let mut given = 0;
                let shared =
                    table.share(va, len, change, &mut gather, (child, &mut own), &mut |span| {
                        given += span.len;
                    });
                shared.is_ok() && given == len
            }
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
