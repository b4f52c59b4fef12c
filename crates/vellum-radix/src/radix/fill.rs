//! Filling holes of one lowest node, by any number of threads beside hardware.
//!
//! ```text
//!   frames         [ a b . c d ]          one descent, then an entry each:
//!   lowest node    [ . . . L . ]          count up, compare-and-set of a hole; count down if somebody
//!   afterwards     [ a b . L d ]          was faster
//! ```
//!
//! # Invariants
//!
//! - A node's count goes up before its entry is filled, as in replace.rs.

use super::change::settle_breaks;
use super::node::index;
use super::replace::settle;
use super::{Detached, Radix};
use crate::format::{Decoded, Format};
use vellum_core::{Attr, Entry, Gather, Memory, PhysAddr, VirtAddr, fill_one_by_one};

impl<F: Format, M: Memory> Radix<F, M> {
    pub(super) fn fill_some<G: Gather<Detached<F, M>>>(
        &self,
        va: VirtAddr,
        frames: &[Option<PhysAddr>],
        attr: Attr,
        gather: &mut G,
    ) -> u64 {
        let last = const { F::LEVELS.len() - 1 };
        let level = F::LEVELS[last];
        let (first, count) = (index(va, level), u64::try_from(frames.len()).unwrap_or(64).min(64));
        let len = count << level.shift;
        if last == 0 || first + count > 1 << level.bits {
            // More nodes than one.
            return fill_one_by_one(self, va, frames, attr, gather);
        }
        if self.check_own(va, len).is_err() || self.check_policy((va, len), attr).is_err() {
            return 0;
        }
        let Some((place, pa)) = self.lowest(va) else {
            // A node has to be made, which is done with the first.
            return fill_one_by_one(self, va, frames, attr, gather);
        };
        if Self::is_shared(last - 1, place.link.slot.load()) {
            return 0;
        }
        settle_breaks::<F, M, G>(gather);
        self.note(va, attr);
        let (node, link, mut put) = (self.node(pa), place.link, 0);
        for (i, frame) in (0..count).zip(frames) {
            let Some(frame) = *frame else { continue };
            let new = Entry::Leaf(frame, attr);
            let slot = node.slot(first + i);
            let is_hole =
                matches!(F::decode(slot.load(), level.shift), Decoded::Entry(Entry::Hole));
            let Ok(raw) = F::encode(new, level.shift) else { continue };
            if !is_hole || !link.fetch_add() {
                continue;
            }
            if slot.compare_exchange(0, raw).is_err() {
                link.fetch_sub();
                continue;
            }
            let page = va.wrapping_add(i << level.shift);
            settle::<F, _, G>((page, level), Entry::Hole, new, gather);
            put |= 1 << i;
        }
        put
    }
}
