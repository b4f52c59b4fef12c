//! Lines that come and go, and scans: what else is done under the table's lock.
//!
//! ```text
//!   stripe of a scan       0 to 2        3 to 5        6 to 8          9 to 11 ...
//!                          ways of       ways of       ways of         ways of
//!                          4 KiB         2 MiB         1 GiB           4 KiB
//!                          slots 0 to 63 of each                       slots 64 to 127 ...
//! ```
//!
//! Growth adds slots at the end, and carries lines up; what goes down is noted. So a pass over the
//! stripes in ascending order, with what was noted meanwhile, shows every line.

use super::kick::Spot;
use super::resize::{SLOTS, Want};
use super::way::{FIRST, Way};
use super::{Locked, Ways};
use crate::line::{ENTRIES, Tag};
use core::sync::atomic::Ordering;
use vellum_core::Memory;
use vellum_global::Lowest;
use vellum_global::stripes::Held;

/// The stripe of a slot, among those of its size: as stripes ascend, these do.
pub(super) const fn stripe<const WAYS: usize>(spot: Spot) -> u64 {
    spot.slot / FIRST * WAYS as u64 + spot.way as u64
}

impl<'t, M: Memory, const WAYS: usize> Locked<'t, M, WAYS> {
    /// Takes the stripe of the tag that a line is to be made for; the table's lock knows of it.
    pub(super) fn hold_own(&mut self, tag: Tag) -> Held<'t, M> {
        self.own = Some(self.table.stripe_of(tag));
        self.table.hold(tag)
    }

    /// Takes the stripe of a tag, unless it is held already.
    pub(super) fn hold(&self, tag: Tag) -> Option<Held<'t, M>> {
        (self.own != Some(self.table.stripe_of(tag))).then(|| self.table.hold(tag))
    }

    /// Makes a line for a tag that has none, with one entry.
    pub(super) fn insert(
        &self,
        ways: &Ways<WAYS>,
        tag: Tag,
        slot: usize,
        raw: u64,
    ) -> Result<(), Want> {
        let spot = self.vacate(ways, tag)?;
        let way = ways.way(spot).ok_or(Want::Room)?;
        {
            let _held = self.hold(tag);
            way.line(&self.table.memory, spot.slot, |line| {
                line.claim(tag);
                line.set_entry(slot, raw);
            });
        }
        way.count(1);
        self.table.entries.fetch_add(1, Ordering::Relaxed);
        self.table.counts.inserted.add(1);
        self.filled(way);
        Ok(())
    }

    /// Removes the line of a tag if it is there and has no entries.
    pub(super) fn remove(&self, ways: &Ways<WAYS>, tag: Tag) {
        let Some(spot) = self.table.find(ways, tag) else { return };
        let Some(way) = ways.way(spot) else { return };
        {
            let _held = self.hold(tag);
            let empty = way.line(&self.table.memory, spot.slot, |line| {
                let empty = line.count() == 0;
                if empty {
                    line.clear();
                }
                empty
            });
            if !empty {
                return;
            }
        }
        way.count(-1);
        self.emptied(way);
        self.step(ways, SLOTS);
    }

    /// Offers the entries of a line that is there, under its stripe: who changes one of them, or gives
    /// an empty line one, holds that and nothing else.
    fn offer(&self, ways: &Ways<WAYS>, spot: Spot, found: &mut Lowest) {
        let (Some(way), Some(tag)) = (ways.way(spot), self.tag_at(ways, spot)) else { return };
        let _held = self.hold(tag);
        way.line(&self.table.memory, spot.slot, |line| {
            (0..ENTRIES).for_each(|slot| found.offer(tag.key(slot), line.entry(slot)));
        });
    }

    /// Offers the entries of a stripe.
    pub(super) fn offer_stripe(&self, stripe: u64, found: &mut Lowest) {
        let (stripe, way) = (stripe / WAYS as u64, (stripe % WAYS as u64) as usize);
        let sizes = &self.table.sizes;
        let class = (stripe % sizes.len() as u64) as usize;
        let Some(ways) = sizes.get(class) else { return };
        let first = stripe / sizes.len() as u64 * FIRST;
        let n = ways.each.get(way).map_or(0, Way::slots);
        for slot in first..n.min(first + FIRST) {
            self.offer(ways, Spot { way, slot }, found);
        }
    }

    /// Offers what came down since `mark`; `false` if that is not all known.
    pub(super) fn offer_moved(&self, mark: u64, found: &mut Lowest) -> bool {
        let Some(tags) = self.table.moves.since(mark) else { return false };
        for tag in tags {
            let ways = self.table.ways(tag.size());
            if let Some(spot) = self.table.find(ways, tag) {
                self.offer(ways, spot, found);
            }
        }
        true
    }
}
