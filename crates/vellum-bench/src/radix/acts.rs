//! What is measured, one function each.
//!
//! ```text
//!   Row::act, flat::turn  -->  acts::map::<T>  -->  T::map, inlined as far as the compiler cares to
//! ```
//!
//! None of these functions is inlined into its caller: a loop then gets the same code whatever else
//! its caller does, and a library's calls compete for inlining with nothing but each other. (Inside
//! one large function some contender's innermost call was left out of line in one row and not in the
//! next, at twice the cost.)

use super::rows::{GIB, PA, VA};
use super::table::{PAGE, Table};
use core::hint::black_box;

/// Maps a range in one call.
#[inline(never)]
pub(super) fn map<T: Table>(table: &mut T, len: u64) -> bool {
    table.map(VA, PA, len)
}

/// Maps a range, a call for each page.
#[inline(never)]
pub(super) fn map_each<T: Table>(table: &mut T, len: u64) -> bool {
    table.map_each((0..len).step_by(PAGE as usize).map(|at| (VA + at, PA + at)))
}

/// Maps pages anywhere to frames that follow each other, a call for each.
#[inline(never)]
pub(super) fn map_scattered<T: Table>(table: &mut T, pages: &[u64]) -> bool {
    table.map_each(pages.iter().copied().zip((PA..).step_by(PAGE as usize)))
}

/// Maps `count` ranges of 1 GiB with large leaves.
#[inline(never)]
pub(super) fn map_large<T: Table>(table: &mut T, count: u64) -> bool {
    (0..count).all(|n| black_box(&mut *table).map_large(VA + n * GIB, PA + n * GIB, GIB))
}

/// Translates each page of a range; whether all are mapped.
#[inline(never)]
pub(super) fn look_up<T: Table>(table: &T, len: u64) -> bool {
    look_up_all(table, (VA..VA + len).step_by(PAGE as usize))
}

/// Translates these pages; whether all are mapped.
#[inline(never)]
pub(super) fn look_up_list<T: Table>(table: &T, pages: &[u64]) -> bool {
    look_up_all(table, pages.iter().copied())
}

#[inline(always)]
fn look_up_all<T: Table>(table: &T, pages: impl Iterator<Item = u64>) -> bool {
    let mut missing = 0;
    for va in pages {
        let found = black_box(table).translate(va);
        missing += u64::from(black_box(found.unwrap_or(0)) == 0);
    }
    missing == 0
}

/// Takes rights and gives them back, `passes` times in all.
#[inline(never)]
pub(super) fn protect<T: Table>(table: &mut T, len: u64, passes: u64) -> bool {
    (0..passes).all(|pass| black_box(&mut *table).protect(VA, PA, len, pass % 2 == 1))
}

/// Unmaps a range, and adds up its frames.
#[inline(never)]
pub(super) fn unmap<T: Table>(table: &mut T, len: u64) -> bool {
    let mut frames = Frames::default();
    table.unmap(VA, len, &mut |pa, len| frames.add(pa, len)) && frames.are(len)
}

/// The same, and gives back the tables.
#[inline(never)]
pub(super) fn unmap_free<T: Table>(table: &mut T, len: u64) -> bool {
    let mut frames = Frames::default();
    table.unmap_free(VA, len, &mut |pa, len| frames.add(pa, len)) && frames.are(len)
}

/// Unmaps a range, without its frames.
#[inline(never)]
pub(super) fn unmap_blind<T: Table>(table: &mut T, len: u64) -> bool {
    table.unmap_blind(VA, len)
}

/// What becomes of frames that were handed back: as little as can be, but something.
#[derive(Default)]
struct Frames {
    sum: u64,
    bytes: u64,
}

impl Frames {
    #[inline(always)]
    fn add(&mut self, pa: u64, len: u64) {
        self.sum = self.sum.wrapping_add(pa);
        self.bytes += len;
    }

    fn are(self, len: u64) -> bool {
        black_box(self.sum);
        self.bytes == len
    }
}
