//! Entries that come, change and go, in a pair whose stripe is held.
//!
//! ```text
//!   comes     a free slot of the primary group, of the secondary one
//!             none: where a victim is, which goes to the chain; or to the chain itself
//!   changes   in its slot; out of the chain, by changing places with a victim
//!   goes      the first of the chain takes its slot
//! ```

use super::entry::{BOLTED, encode, is_valid};
use super::table::{Found, SLOTS, Slot, Table, slots};
use super::virt::Virtual;
use super::{GROWTH, Htab, NODE, Stock};
use core::sync::atomic::Ordering;
use vellum_core::{Memory, Need, PhysAddr};
use vellum_global::{Key, Node};

impl<M: Memory> Htab<M> {
    /// The slot that a valid entry of `page` takes when none is free.
    fn victim(&self, table: &Table<'_, M>, page: Virtual) -> Option<Slot> {
        let [primary, secondary] = table.groups_of(page.hash());
        let turn = (self.count_evictions() + self.count_reloads()) % SLOTS;
        let both = || slots(primary).chain(slots(secondary));
        let in_turns = slots(primary).cycle().skip(turn as usize).take(SLOTS as usize);
        both()
            .find(|&slot| !is_valid(table.v(slot)))
            .or_else(|| in_turns.chain(slots(secondary)).find(|&slot| table.v(slot) & BOLTED == 0))
    }

    /// Puts `page` where a victim is; the victim goes into `node`, which keeps its place in a chain.
    fn displace<'t>(
        &'t self,
        table: &Table<'t, M>,
        (page, raw): (Virtual, u64),
        node: &Node<'t, M>,
        next: u64,
    ) -> bool {
        if !is_valid(encode(raw).0) {
            return false;
        }
        let Some(slot) = self.victim(table, page) else { return false };
        let (out, old) = table.entry(slot);
        let Some(key) = out.key() else { return false };
        node.fill(key, next, old);
        table.put(slot, page, raw);
        true
    }

    /// Adds an entry to a pair whose stripe is held.
    pub(super) fn insert<'t>(
        &'t self,
        table: &Table<'t, M>,
        (page, key): (Virtual, Key),
        raw: u64,
        stock: &mut Stock<'t, M>,
    ) -> Result<(), Need> {
        let grows = self.wants_to_grow();
        let ours = core::ptr::eq(stock.table, self);
        if grows && !(ours && stock.credit > 0) {
            return Err(GROWTH);
        }
        if let Some(slot) = table.free_slot(page) {
            table.put(slot, page, raw);
        } else {
            let at = stock.nodes.take(&self.pool).ok_or(NODE)?;
            // SAFETY: a node of our pool, which the stock had alone.
            let node = unsafe { Node::new(&self.memory, at) };
            let pair = table.pair(page);
            if self.displace(table, (page, raw), &node, table.head(pair)) {
                table.set_head(pair, at.as_u64());
                self.evictions.fetch_add(1, Ordering::Relaxed);
            } else {
                table.push(&node, (page, key), raw);
            }
            self.overflow.fetch_add(1, Ordering::Relaxed);
        }
        stock.credit -= u32::from(grows);
        self.entries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Frees a slot, or gives it to the first of the chain, whose node is returned.
    fn vacate<'t>(&'t self, table: &Table<'t, M>, slot: Slot, pair: u64) -> Option<PhysAddr> {
        table.set(slot, 0, 0);
        // SAFETY: the stripe is held.
        let node = unsafe { table.follow(table.head(pair)) }?;
        table.set_head(pair, node.next());
        if let Some(key) = Key::from_tag(node.tag()) {
            table.put(slot, Virtual::of(key), node.raw());
        }
        self.overflow.fetch_sub(1, Ordering::Relaxed);
        Some(node.at())
    }

    /// Replaces or removes an entry that was found; a node that it leaves.
    pub(super) fn change<'t>(
        &'t self,
        table: &Table<'t, M>,
        found: &Found<'t, M>,
        page: Virtual,
        new: u64,
    ) -> Option<PhysAddr> {
        match found {
            Found::Slot(slot) if new == 0 => self.vacate(table, *slot, table.pair(page)),
            Found::Slot(slot) => {
                table.put(*slot, page, new);
                None
            }
            Found::Node(node, before) if new == 0 => {
                match before {
                    Some(before) => before.set_next(node.next()),
                    None => table.set_head(table.pair(page), node.next()),
                }
                self.overflow.fetch_sub(1, Ordering::Relaxed);
                Some(node.at())
            }
            Found::Node(node, _) => {
                if self.displace(table, (page, new), node, node.next()) {
                    self.reloads.fetch_add(1, Ordering::Relaxed);
                } else {
                    node.set_raw(new);
                }
                None
            }
        }
    }
}
