//! What size does: the cost of a page from 1 MiB to 64 GiB.
//!
//! ```text
//!   size      1 MiB   64 MiB   1 GiB   8 GiB   64 GiB        flat = the same figure five times
//!   tables    256     16       1       1       1             each with a range of that size
//!   look-ups  all pages, in order; of the largest two, those of the first 4 GiB
//! ```
//!
//! What is small is measured over many tables, each new to the caches, since one alone would be
//! over before a clock could tell.

use super::acts;
use super::ram;
use super::rows::{GIB, Meter};
use super::table::{PAGE, Table};
use core::hint::black_box;

/// The sizes, and their names.
pub const SIZES: [(u64, &str); 5] = [
    (1 << 20, "1 MiB"),
    (64 << 20, "64 MiB"),
    (GIB, "1 GiB"),
    (8 * GIB, "8 GiB"),
    (64 * GIB, "64 GiB"),
];

/// The heads of the columns: what is done, at each of [`SIZES`].
pub const TITLES: [[&str; 5]; 3] = [
    ["map, 1 MiB", "map, 64 MiB", "map, 1 GiB", "map, 8 GiB", "map, 64 GiB"],
    [
        "translate, 1 MiB",
        "translate, 64 MiB",
        "translate, 1 GiB",
        "translate, 8 GiB",
        "translate, 64 GiB",
    ],
    ["unmap, 1 MiB", "unmap, 64 MiB", "unmap, 1 GiB", "unmap, 8 GiB", "unmap, 64 GiB"],
];

/// Maps, translates and unmaps ranges of `size` bytes, measuring each by itself; for how many pages
/// each measurement is.
///
/// # Panics
///
/// When the contender fails, or keeps frames.
pub fn turn<T: Table>(size: u64, meter: Meter<'_>) -> [u64; 3] {
    let count = (GIB / size).clamp(1, 256);
    let (size, seen) = black_box((size, size.min(4 * GIB)));
    let mut tables: Vec<T> = (0..count).map(|_| T::new()).collect();
    let mut done = true;
    meter(&mut || done &= tables.iter_mut().all(|table| acts::map(black_box(table), size)));
    meter(&mut || done &= tables.iter().all(|table| acts::look_up(table, seen)));
    meter(&mut || done &= tables.iter_mut().all(|table| acts::unmap(black_box(table), size)));
    assert!(done, "{} failed with {size} bytes", T::NAME);
    tables.into_iter().for_each(T::retire);
    ram::rewind();
    [count * size, count * seen, count * size].map(|bytes| bytes / PAGE)
}
