//! A page table of a few slots, made of loom's atomics.
//!
//! ```text
//!    63        49 48       32 31              2  1 0
//!   +------------+-----------+----------------+-----+
//!   | 0          | attr      | frame          | 01  |   leaf
//!   | value                                   | 10  |   soft
//!   | 0                                       | 00  |   hole
//!   +------------+-----------+----------------+-----+
//! ```

use core::convert::Infallible;
use core::ops::ControlFlow;
use core::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::Arc;
use vellum_core::{
    Attr, Canonical, Cause, Change, Entry, Flush, Gather, Need, OutOfFrames, PAGE_SHIFT, PAGE_SIZE,
    PageTable, PhysAddr, RangeError, ReplaceError, Run, Sink, Soft, Span, VirtAddr, Walk,
};
use vellum_frame::sync::AtomicU64;

/// Pages that a table has room for.
pub const SLOTS: usize = 4;

/// Where they are.
pub const BASE: VirtAddr = VirtAddr::new(0x7000_0000_0000);

const CANONICAL: Canonical = Canonical::unsigned(47);

/// The table of one space; everything outside of its slots is a hole.
#[derive(Debug, Default)]
pub struct Table(Arc<[AtomicU64; SLOTS]>);

fn encode(entry: Entry) -> u64 {
    match entry {
        Entry::Hole => 0,
        Entry::Leaf(pa, attr) => {
            u64::from(attr.bits()) << 32 | pa.as_u64() >> PAGE_SHIFT << 2 | 0b01
        }
        Entry::Soft(soft) => soft.get() << 2 | 0b10,
    }
}

fn decode(word: u64) -> Entry {
    match word & 0b11 {
        0b01 => {
            let pa = PhysAddr::new((word & 0xffff_ffff) >> 2 << PAGE_SHIFT);
            Entry::Leaf(pa, Attr::from_bits((word >> 32) as u32))
        }
        0b10 => Soft::new(word >> 2).map_or(Entry::Hole, Entry::Soft),
        _ => Entry::Hole,
    }
}

const fn page(n: usize) -> VirtAddr {
    BASE.wrapping_add(n as u64 * PAGE_SIZE)
}

impl Table {
    /// The slots of a range, with the address of each.
    fn slots(&self, va: VirtAddr, len: u64) -> impl Iterator<Item = (VirtAddr, &AtomicU64)> {
        let last = va.wrapping_add(len.saturating_sub(1));
        self.0
            .iter()
            .enumerate()
            .map(|(n, slot)| (page(n), slot))
            .filter(move |(at, _)| len > 0 && *at >= va && *at <= last)
    }

    fn slot(&self, va: VirtAddr) -> Option<&AtomicU64> {
        self.slots(va.align_down(PAGE_SHIFT), PAGE_SIZE).next().map(|(_, slot)| slot)
    }

    /// Changes a slot as `f` says, until nobody else does meanwhile; what was there.
    fn change<E>(slot: &AtomicU64, f: impl Fn(Entry) -> Result<Entry, E>) -> Result<Entry, E> {
        let mut word = slot.load(Acquire);
        loop {
            let new = f(decode(word))?;
            match slot.compare_exchange(word, encode(new), AcqRel, Acquire) {
                Ok(_) => return Ok(decode(word)),
                Err(now) => word = now,
            }
        }
    }
}

/// Tells the gather what became of an entry.
fn tell<G: Gather<Infallible>>(gather: &mut G, va: VirtAddr, old: Entry, new: Entry) {
    match (old, new) {
        (Entry::Leaf(pa, was), Entry::Leaf(now, is)) if pa == now && !was.narrows_to(is) => {}
        (Entry::Leaf(pa, was), Entry::Leaf(now, _)) if pa == now => {
            gather.stale(Flush::new(va, PAGE_SIZE, PAGE_SHIFT, was));
        }
        (Entry::Leaf(pa, was), _) => gather.leaf(Run::new(va, pa, PAGE_SIZE, was)),
        (Entry::Soft(soft), new) if new != old => gather.soft(va, soft),
        _ => {}
    }
}

fn make_room<G: Gather<Infallible>>(gather: &mut G) {
    if gather.room() == 0 {
        gather.drain();
    }
}

impl Walk for Table {
    fn walk<S: Sink>(&self, va: VirtAddr, _: &mut S) -> Result<Span, Cause> {
        CANONICAL.check(va.align_down(PAGE_SHIFT), PAGE_SIZE, PAGE_SHIFT)?;
        let entry = self.slot(va).map_or(Entry::Hole, |slot| decode(slot.load(Acquire)));
        Ok(Span { va: va.align_down(PAGE_SHIFT), len: PAGE_SIZE, entry })
    }

    fn touch(&self, va: VirtAddr, need: Attr, bits: Attr) -> Entry {
        let Some(slot) = self.slot(va) else { return Entry::Hole };
        let set = Self::change(slot, |entry| match entry {
            Entry::Leaf(pa, attr) if attr.contains(need) => Ok(Entry::Leaf(pa, attr | bits)),
            other => Err(other),
        });
        set.unwrap_or_else(|other| other)
    }
}

impl PageTable for Table {
    type Stock = ();
    type Detached = Infallible;

    const LEAVES: u64 = PAGE_SIZE;
    const SOFT_BITS: u8 = 62;

    fn canonical(&self) -> Canonical {
        CANONICAL
    }

    fn table_bytes(&self) -> u64 {
        0
    }

    fn stock(&self) {}

    fn refill(&self, (): &mut (), _: Need) -> Result<(), OutOfFrames> {
        Ok(())
    }

    fn replace<G: Gather<Infallible>>(
        &self,
        va: VirtAddr,
        len: u64,
        expect: Entry,
        new: Entry,
        (): &mut (),
        gather: &mut G,
    ) -> Result<(), ReplaceError> {
        make_room(gather);
        let slot = self.slot(va).filter(|_| len == PAGE_SIZE).ok_or(ReplaceError::Structure)?;
        let kept = |old: Entry| match (old, new) {
            (Entry::Leaf(pa, was), Entry::Leaf(now, attr)) if pa == now => {
                Entry::Leaf(pa, attr | (was & Attr::STATUS))
            }
            _ => new,
        };
        let old = Self::change(slot, |now| {
            if now.same_but_status(expect) {
                Ok(kept(now))
            } else {
                Err(ReplaceError::Changed(now))
            }
        })?;
        tell(gather, va, old, kept(old));
        Ok(())
    }

    fn map<G: Gather<Infallible>>(&mut self, run: Run, _: &mut G) -> Result<(), RangeError> {
        let mut done = 0;
        for (va, slot) in self.slots(run.va, run.len) {
            let leaf = Entry::Leaf(run.pa.wrapping_add(done), run.attr);
            Self::change(slot, |now| match now {
                Entry::Hole => Ok(leaf),
                entry => Err(Cause::Mapped(Span { va, len: PAGE_SIZE, entry })),
            })
            .map_err(|cause| RangeError { cause, done })?;
            done += PAGE_SIZE;
        }
        Ok(())
    }

    fn unmap<G: Gather<Infallible>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        for (va, slot) in self.slots(va, len) {
            make_room(gather);
            tell(gather, va, decode(slot.fetch_and(0, AcqRel)), Entry::Hole);
        }
        Ok(())
    }

    fn protect<G: Gather<Infallible>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        change: Change,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        for (va, slot) in self.slots(va, len) {
            let Ok(old) = Self::change::<Infallible>(slot, |now| Ok(now.changed(change)));
            tell(gather, va, old, old.changed(change));
        }
        Ok(())
    }

    fn visit(
        &self,
        va: VirtAddr,
        len: u64,
        f: &mut impl FnMut(Span) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        for (va, slot) in self.slots(va, len) {
            let entry = decode(slot.load(Acquire));
            if entry != Entry::Hole && f(Span { va, len: PAGE_SIZE, entry }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn harvest<G: Gather<Infallible>>(
        &self,
        va: VirtAddr,
        len: u64,
        clear: Attr,
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) -> Result<(), Cause> {
        for (va, slot) in self.slots(va, len) {
            let cleared = Self::change(slot, |now| match now {
                Entry::Leaf(pa, attr) if attr.intersects(clear) => {
                    Ok(Entry::Leaf(pa, attr - clear))
                }
                _ => Err(()),
            });
            if let Ok(entry) = cleared {
                tell(gather, va, entry, entry.changed(Change::clearing(clear)));
                f(Span { va, len: PAGE_SIZE, entry });
            }
        }
        Ok(())
    }

    fn retire<G: Gather<Infallible>>(mut self, gather: &mut G) {
        gather.stale(Flush::tables(BASE, SLOTS as u64 * PAGE_SIZE, false));
        // It has no way to fail.
        let _unmapped = self.unmap(BASE, SLOTS as u64 * PAGE_SIZE, gather);
    }
}
