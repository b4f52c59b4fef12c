//! The designs, through the `Store` seam: what lies below every `PageTable` of a global design.
//!
//! ```text
//!   insert   update(key, stock, 0 -> raw), refill and again when the stock lacks something
//!   look up  walk(key, a sink that hears nothing)
//!   delete   update(key, stock, raw -> 0)
//! ```
//!
//! That is what a map does: a range, attributes, flushes and leaves of several sizes are the space's
//! above it. Every call is through `&self`, and safe beside other CPUs, which is a part of its price.

use super::map::{Map, Page, entry};
use super::ram::{DATA, Ram};
use core::convert::Infallible;
use core::hint::black_box;
use vellum_core::{OutOfFrames, PhysAddr, Ref};
use vellum_global::{Key, Refused, Store};
use vellum_hashed::{Chained, Clustered6, Clustered16, Cuckoo, Htab, Line8};
use vellum_inverted::Inverted;

/// One of the designs.
#[derive(Debug)]
pub struct Ours<S>(S);

/// How one begins.
pub trait Make: Store + Sized {
    /// As the tables of the report call it.
    const NAME: &'static str;

    /// An empty one.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`].
    fn make(pages: usize) -> Result<Self, OutOfFrames>;
}

/// Those that grow from next to nothing.
macro_rules! growing {
    ($($design:ty: $name:literal,)*) => {$(
        impl Make for $design {
            const NAME: &'static str = $name;

            fn make(_: usize) -> Result<Self, OutOfFrames> {
                Self::new(Ram)
            }
        }
    )*};
}

growing! {
    Chained<Ram>: "chained",
    Clustered16<Ram>: "clustered16",
    Clustered6<Ram>: "clustered6",
    Line8<Ram>: "line8",
    Line8<Ram, true>: "line8, robin hood",
    Htab<Ram>: "htab",
    Cuckoo<Ram>: "cuckoo",
}

/// Its size is that of the memory whose frames it maps.
impl Make for Inverted<Ram> {
    const NAME: &'static str = "inverted";

    fn make(pages: usize) -> Result<Self, OutOfFrames> {
        Self::new(Ram, PhysAddr::new(DATA).number(), pages as u64)
    }
}

#[inline(always)]
fn key(page: Page) -> Key {
    Key::new(page.asid(), page.va())
}

/// Puts an entry in, or takes one out with 0; the one before.
#[inline(always)]
fn put<'t, S: Store>(table: &'t S, page: Page, stock: &mut S::Stock<'t>, raw: u64) -> u64 {
    loop {
        match table.update(key(page), stock, |_| Ok::<u64, Infallible>(raw)) {
            Ok(old) => return old,
            Err(Refused::Need(need)) => table.refill(stock, need).expect("memory for the table"),
            Err(Refused::By(never)) => match never {},
        }
    }
}

impl<S: Make> Map for Ours<S> {
    const NAME: &'static str = S::NAME;

    fn new(pages: usize) -> Self {
        Self(S::make(pages).expect("memory for an empty table"))
    }

    #[inline(never)]
    fn insert(&mut self, pages: &[Page]) -> u64 {
        let mut stock = self.0.stock();
        let mut new = 0;
        for (n, &page) in (0..).zip(pages) {
            new += u64::from(put(black_box(&self.0), page, &mut stock, entry(n)) == 0);
        }
        new
    }

    #[inline(never)]
    fn look_up(&self, pages: &[Page]) -> u64 {
        let found = pages.iter().map(|&page| black_box(&self.0).walk(key(page), &mut ()));
        found.fold(0, u64::wrapping_add)
    }

    #[inline(never)]
    fn delete(&mut self, pages: &[Page]) -> u64 {
        let mut stock = self.0.stock();
        let gone = pages.iter().map(|&page| put(black_box(&self.0), page, &mut stock, 0));
        gone.fold(0, u64::wrapping_add)
    }

    fn lines(&self, pages: &[Page]) -> Option<u64> {
        let mut count = 0;
        for &page in pages {
            let mut lines = Vec::new();
            let mut read = |r: Ref| {
                let (first, last) = (r.pa.as_u64(), r.pa.as_u64() + u64::from(r.bytes) - 1);
                lines.extend(first / 64..=last / 64);
            };
            self.0.walk(key(page), &mut read);
            lines.sort_unstable();
            lines.dedup();
            count += lines.len() as u64;
        }
        Some(count)
    }
}
