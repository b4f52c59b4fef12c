//! The rows that every contender runs: what is made ready, and what is measured.
//!
//! ```text
//!             made ready                       measured, for each page
//!   map       an empty table                   1 GiB in one call
//!   again     + tables of the lowest level     the same
//!   each      an empty table                   the same pages, a call each
//!   scatter   an empty table                   64K pages in 47 bits, a call each
//!   seq       1 GiB                            translate in order
//!   random    1 GiB                            translate in no order
//!   sparse    scatter                          translate in another order
//!   protect   64 MiB                           read-only, writable, ... 8 times
//!   unmap     1 GiB                            in one call; frames summed up
//!   shuffled  1 GiB, no two frames in order    the same
//!   free      1 GiB                            the same, and tables are given back
//!   blind     1 GiB                            the same, without the frames
//!   large     an empty table                   256 times 1 GiB by 2 MiB leaves; for each leaf
//! ```
//!
//! A turn builds its table from nothing, measures once, gives everything back, and rewinds the
//! frames. So each contender has the same frames at the same places of the same caches, whoever had
//! its turn before.
//!
//! # Invariants
//!
//! - The compiler knows neither the table nor its address at a look-up: the table goes through a
//!   black box at each, or loads of upper levels would be hoisted out of the loop.
//! - Every result is used: summed up, or through a black box.

use super::acts;
use super::ram::{self, DATA};
use super::table::{PAGE, Table};
use crate::random::Random;
use core::hint::black_box;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Where dense ranges begin: on a border of 1 GiB.
pub const VA: u64 = 1 << 38;

/// Where their frames begin: on a border of 2 MiB, but not of 1 GiB, so that no leaf gets larger.
pub const PA: u64 = DATA + (1 << 21);

/// Bytes of the ranges of most rows.
pub const GIB: u64 = 1 << 30;

/// How often rights are taken and given back in one turn.
const PASSES: u64 = 8;

/// Takes the time, or counts, of what it is given, and calls it once.
pub type Meter<'m> = &'m mut dyn FnMut(&mut dyn FnMut());

/// How much a turn does.
#[derive(Clone, Debug)]
pub struct Amounts {
    /// Bytes of a dense range, a multiple of 2 MiB.
    pub dense: u64,
    /// Bytes of which rights are changed.
    pub protect: u64,
    /// Ranges of 1 GiB with large leaves.
    pub large: u64,
    /// Pages of (random), in `dense`.
    pub random: Rc<[u64]>,
    /// Frames of (shuffled): those of `dense`, in no order.
    pub shuffled: Rc<[u64]>,
    /// Pages of (scatter), in no order.
    pub scattered: Rc<[u64]>,
    /// The same in another order.
    pub sparse: Rc<[u64]>,
}

impl Amounts {
    /// As the rows say.
    #[must_use]
    pub fn usual() -> Self {
        Self::new(GIB, 64 << 20, 256, 1 << 16)
    }

    /// Enough for counting instructions, which do not vary, and to see that everything works.
    #[must_use]
    pub fn small() -> Self {
        Self::new(32 << 20, 8 << 20, 2, 1 << 11)
    }

    /// `scattered` pages anywhere, and the others as the fields say.
    #[must_use]
    pub fn new(dense: u64, protect: u64, large: u64, scattered: usize) -> Self {
        let mut random = Random::new(0x1a);
        let pages = (dense / PAGE) as usize;
        let order = (0..pages).map(|_| VA + random.below(pages) as u64 * PAGE).collect();
        let mut shuffled: Vec<_> = (PA..PA + dense).step_by(PAGE as usize).collect();
        random.shuffle(&mut shuffled);
        let mut set = BTreeSet::new();
        while set.len() < scattered {
            set.insert(random.bits() >> 17 & !(PAGE - 1));
        }
        let mut scattered: Vec<_> = set.into_iter().collect();
        random.shuffle(&mut scattered);
        let mut sparse = scattered.clone();
        random.shuffle(&mut sparse);
        let (shuffled, scattered, sparse) = (shuffled.into(), scattered.into(), sparse.into());
        Self { dense, protect, large, random: order, shuffled, scattered, sparse }
    }
}

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// One call, nothing there.
    Map,
    /// One call, tables there.
    Again,
    /// A call for each page.
    Each,
    /// A call for each page, anywhere.
    Scatter,
    /// Look up in order.
    Seq,
    /// Look up in no order.
    Random,
    /// Look up anywhere.
    Sparse,
    /// Change rights.
    Protect,
    /// Unmap, frames handed back.
    Unmap,
    /// Unmap, frames handed back that are in no order.
    Shuffled,
    /// Unmap, tables given back as well.
    Free,
    /// Unmap without a word.
    Blind,
    /// Map by 2 MiB leaves.
    Large,
}

impl Row {
    /// In the order of the report.
    pub const ALL: [Self; 13] = [
        Self::Map,
        Self::Again,
        Self::Each,
        Self::Scatter,
        Self::Seq,
        Self::Random,
        Self::Sparse,
        Self::Protect,
        Self::Unmap,
        Self::Shuffled,
        Self::Free,
        Self::Blind,
        Self::Large,
    ];

    /// What `--only` takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Again => "again",
            Self::Each => "each",
            Self::Scatter => "scatter",
            Self::Seq => "seq",
            Self::Random => "random",
            Self::Sparse => "sparse",
            Self::Protect => "protect",
            Self::Unmap => "unmap",
            Self::Shuffled => "shuffled",
            Self::Free => "free",
            Self::Blind => "blind",
            Self::Large => "large",
        }
    }

    /// The head of its column.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Map => "map: 1 GiB",
            Self::Again => "again: 1 GiB",
            Self::Each => "each: 1 GiB",
            Self::Scatter => "scatter: 64K",
            Self::Seq => "seq",
            Self::Random => "random: 1 GiB",
            Self::Sparse => "sparse: 64K",
            Self::Protect => "protect: 64 MiB",
            Self::Unmap => "unmap: 1 GiB",
            Self::Shuffled => "shuffled: 1 GiB",
            Self::Free => "free: 1 GiB",
            Self::Blind => "blind: 1 GiB",
            Self::Large => "large: 2 MiB",
        }
    }

    /// What its figure is for.
    #[must_use]
    pub const fn per(self) -> &'static str {
        match self {
            Self::Large => "leaf",
            _ => "page",
        }
    }

    /// One turn of a contender; how many pages (or leaves) what was measured is for.
    ///
    /// # Panics
    ///
    /// When the contender fails, or keeps frames.
    pub fn turn<T: Table>(self, amounts: &Amounts, meter: Meter<'_>) -> u64 {
        let mut table = T::new();
        self.prepare(amounts, &mut table);
        meter(&mut || self.act(amounts, black_box(&mut table)));
        table.retire();
        ram::rewind();
        match self {
            Self::Scatter | Self::Sparse => amounts.scattered.len() as u64,
            Self::Protect => PASSES * amounts.protect / PAGE,
            Self::Large => amounts.large * 512,
            _ => amounts.dense / PAGE,
        }
    }

    fn prepare<T: Table>(self, amounts: &Amounts, table: &mut T) {
        let done = match self {
            Self::Map | Self::Each | Self::Scatter | Self::Large => true,
            Self::Again => table.make_room(VA, amounts.dense),
            Self::Protect => table.map(VA, PA, amounts.protect),
            Self::Shuffled => {
                let pages = (VA..).step_by(PAGE as usize).zip(amounts.shuffled.iter().copied());
                table.map_each(pages)
            }
            Self::Sparse => acts::map_scattered(table, &amounts.scattered),
            Self::Seq | Self::Random | Self::Unmap | Self::Free | Self::Blind => {
                table.map(VA, PA, amounts.dense)
            }
        };
        assert!(done, "{} could not make ready for {self:?}", T::NAME);
    }

    fn act<T: Table>(self, amounts: &Amounts, table: &mut T) {
        let dense = black_box(amounts.dense);
        let done = match self {
            Self::Map | Self::Again => acts::map(table, dense),
            Self::Each => acts::map_each(table, dense),
            Self::Scatter => acts::map_scattered(table, &amounts.scattered),
            Self::Seq => acts::look_up(table, dense),
            Self::Random => acts::look_up_list(table, &amounts.random),
            Self::Sparse => acts::look_up_list(table, &amounts.sparse),
            Self::Protect => acts::protect(table, black_box(amounts.protect), PASSES),
            Self::Unmap | Self::Shuffled => acts::unmap(table, dense),
            Self::Free => acts::unmap_free(table, dense),
            Self::Blind => acts::unmap_blind(table, dense),
            Self::Large => acts::map_large(table, amounts.large),
        };
        assert!(done, "{} failed in {self:?}", T::NAME);
    }
}
