//! The map beside a sorted vector, and its own invariants after every step.

mod memory;
mod model;
mod properties;
mod shapes;

use super::{PageRange, VmaMap};
use vellum_core::{VirtAddr, Vpn};

/// From page `first` up to page `end`.
fn pages(first: u64, end: u64) -> PageRange {
    PageRange::pages(Vpn::new(first).unwrap(), end - first).unwrap()
}

/// The address of a page.
fn va(page: u64) -> VirtAddr {
    Vpn::new(page).unwrap().addr()
}

/// Under Miri fewer of everything.
const fn scaled(n: u64) -> u64 {
    if cfg!(miri) { n / 24 } else { n }
}
