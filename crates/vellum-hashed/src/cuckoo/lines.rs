//! Lines that come and go, and scans: what else is done under the table's lock.
//!
//! ```text
//!   stripe of a scan       0        1        2         3        4        5
//!                          way 0    way 1    way 2     way 0    way 1    way 2
//!                          slots 0 to 63     ...       slots 64 to 127   ...
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

/// The stripe of a slot, in the order of scans.
pub(super) const fn stripe<const WAYS: usize>(spot: Spot) -> u64 {
    spot.slot / FIRST * WAYS as u64 + spot.way as u64
}

impl<M: Memory, const WAYS: usize> Locked<'_, M, WAYS> {
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
            let _held = self.table.hold(tag);
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
            let _held = self.table.hold(tag);
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

    /// Offers the entries of a line that is there.
    fn offer(&self, ways: &Ways<WAYS>, spot: Spot, found: &mut Lowest) {
        let Some(way) = ways.way(spot) else { return };
        way.line(&self.table.memory, spot.slot, |line| {
            if let Some(tag) = line.tag() {
                (0..ENTRIES).for_each(|slot| found.offer(tag.key(slot), line.entry(slot)));
            }
        });
    }

    /// Offers the entries of a stripe.
    pub(super) fn offer_stripe(&self, stripe: u64, found: &mut Lowest) {
        let [ways] = &self.table.sizes;
        let way = (stripe % WAYS as u64) as usize;
        let first = stripe / WAYS as u64 * FIRST;
        let n = ways.each.get(way).map_or(0, Way::slots);
        for slot in first..n.min(first + FIRST) {
            self.offer(ways, Spot { way, slot }, found);
        }
    }

    /// Offers what came down since `mark`; `false` if that is not all known.
    pub(super) fn offer_moved(&self, mark: u64, found: &mut Lowest) -> bool {
        let Some(tags) = self.table.moves.since(mark) else { return false };
        for tag in tags {
            let ways = self.table.ways(tag.key(0));
            if let Some(spot) = self.table.find(ways, tag) {
                self.offer(ways, spot, found);
            }
        }
        true
    }
}
