//! Taking large leaves apart where a range ends in the middle of one.
//!
//! ```text
//!   range                  |------------------------------|
//!   before      [      1 GiB           ][  2 MiB  ][  2 MiB  ][ ...
//!   after       [2M][2M]..[4K.. ..][2M] [  2 MiB  ][4K.. ..  ][ ...
//! ```
//!
//! # Invariants
//!
//! - A leaf is split whole or, without memory for that, not at all; what translates stays the same.
//! - A flush of all of it is owed from then on, so that no CPU translates by a leaf of another size
//!   than the table has.

use super::Space;
use super::step::decode;
use crate::{Key, Keys, Refused, Size, Store};
use core::convert::Infallible;
use vellum_core::{Entry, Flush, Gather, OutOfFrames, PAGE_SHIFT, pte};

impl<'t, S: Store> Space<'t, S> {
    /// Splits every leaf that has a page in the range and one outside of it: at most two of each
    /// size.
    pub(super) fn split_around<G: Gather<Infallible>>(
        &self,
        keys: Keys,
        stock: &mut S::Stock<'t>,
        gather: &mut G,
    ) -> Result<(), OutOfFrames> {
        // The largest first: what it leaves may reach out as well.
        for size in [Size::Huge, Size::Large] {
            for edge in [keys.first(), keys.last()] {
                let key = edge.sized(size);
                let inside = Keys::parts(key, Size::Base);
                let whole = keys.contains(inside.first()) && keys.contains(inside.last());
                if whole || !self.has(size) {
                    continue;
                }
                let raw = self.table.walk(key, &mut ());
                if let Entry::Leaf(_, attr) = decode(raw, size) {
                    self.split(key, raw, stock)?;
                    // In pages: what an invalidation of one address reaches goes, in a tree that
                    // is filled from here, by the size that the tree says now.
                    gather.stale(Flush::new(key.va(), size.bytes(), PAGE_SHIFT, attr));
                }
            }
        }
        Ok(())
    }

    /// Puts leaves of the next smaller size in the place of a large one.
    fn split(&self, key: Key, raw: u64, stock: &mut S::Stock<'t>) -> Result<(), OutOfFrames> {
        let size = key.size().below(S::LEAVES);
        // Whatever one size has an encoding for, another has.
        let Ok(first) = pte::encode(decode(raw, key.size()), size.page()) else { return Ok(()) };
        let parts = Keys::parts(key, size);
        for (part, offset) in parts.iter().zip((0..).step_by(size.bytes() as usize)) {
            if let Err(out) = self.put(part, first + offset, stock) {
                for made in parts.before(part).into_iter().flat_map(Keys::iter) {
                    self.change(made, stock, |_| 0);
                }
                return Err(out);
            }
        }
        self.change(key, stock, |_| 0);
        Ok(())
    }

    /// Makes an entry where there is none.
    fn put(&self, key: Key, raw: u64, stock: &mut S::Stock<'t>) -> Result<(), OutOfFrames> {
        loop {
            match self.update(key, stock, |_| Ok::<_, Infallible>(raw), || Ok(())) {
                Ok(_) => return Ok(()),
                Err(Refused::Need(need)) => self.table.refill(stock, need)?,
                Err(Refused::By(never)) => match never {},
            }
        }
    }
}
