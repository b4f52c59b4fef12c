//! Every format under the checker of flushes, which sees the table as hardware does.

use vellum_core::{
    Attr, Entry, Gather as _, OutOfFrames, PageTable as _, PhysAddr, PhysMap, Ref, Run, Scope,
    Span, VirtAddr,
};
use vellum_radix::format::{Decoded, RiscV, Sv32, X86, base_shift, node_order};
use vellum_radix::{AArch64, Flat, Format, LoongArch64, Radix, X86_64};
use vellum_testkit::checker::{Checker, Hardware};
use vellum_testkit::suite::flushes;
use vellum_testkit::{Arena, Design};

#[path = "flushes/cases.rs"]
mod cases;

/// A table of format `F`, and a walker of its own beside it.
struct Seen<F>(F);

impl<F: Format> Design for Seen<F> {
    type Shared<'a> = &'a Arena;
    type Table<'s> = Radix<F, &'s Arena>;

    /// Room for two roots, and as much again; below a root, for as many nodes whatever their size.
    const FRAMES: usize = {
        let lowest = F::LEVELS.len() - 1;
        let order = if lowest > 0 { node_order::<F>(lowest) } else { 0 };
        max((1 << 12) << order, 4 << node_order::<F>(0))
    };

    fn shared(arena: &Arena) -> Result<&Arena, OutOfFrames> {
        Ok(arena)
    }

    fn table<'s>(arena: &'s &Arena, _: u16) -> Result<Self::Table<'s>, OutOfFrames> {
        Radix::new(*arena)
    }

    fn hardware<'s>(arena: &'s &Arena, table: &Radix<F, &'s Arena>) -> Option<Hardware<'s>> {
        let root = table.root();
        Some(Box::new(move |va, sink| walk::<F>(arena, root, va, sink)))
    }

    fn encodes(attr: Attr) -> bool {
        F::encode(Entry::Leaf(PhysAddr::new(0), attr), base_shift::<F>()).is_ok()
    }

    /// Leaves out one thing after the other until the format has the rest, perhaps with the right to
    /// execute, where that cannot be refused.
    fn portable(attr: Attr) -> Attr {
        let [a, b, c] = Attr::SOFT;
        let mut left = attr;
        for less in [Attr::KEY_MASK, a | b | c, Attr::MEMORY_MASK, Attr::GLOBAL, Attr::STATUS] {
            for attr in [left, left | Attr::EXEC] {
                if Self::encodes(attr) {
                    return attr;
                }
            }
            left = left - less;
        }
        left
    }

    fn absence(page: u8) -> Option<Scope> {
        F::fresh(page)
    }

    fn breaks() -> bool {
        F::BREAKS
    }
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// Walks as hardware would: nothing of the table is known but its root. What a link withholds, no
/// leaf below it grants.
fn walk<F: Format>(arena: &Arena, root: PhysAddr, va: VirtAddr, sink: &mut dyn FnMut(Ref)) -> Span {
    let (mut node, mut depth) = (root, 0);
    let all = Attr::RWX | Attr::USER;
    let mut rights = all;
    loop {
        let level = F::LEVELS[depth];
        let index = va.as_u64() >> level.shift & ((1 << level.bits) - 1);
        let pa = node.wrapping_add(index << F::ENTRY_SHIFT);
        sink(Ref { pa, bytes: 1 << F::ENTRY_SHIFT, span: level.shift, parallel: false });
        // SAFETY: an entry of a node that the table links, by one thread, aligned to its size.
        let raw = arena.with(pa, |p| unsafe {
            if F::ENTRY_SHIFT == 3 {
                p.cast::<u64>().read()
            } else {
                u64::from(p.cast::<u32>().read())
            }
        });
        let mut page = level.shift;
        if level.group > 0 && F::is_grouped(raw, page) {
            page = level.group_shift();
        }
        match F::decode(raw, page) {
            Decoded::Table(next) => {
                rights = rights & F::table_rights(raw, page);
                (node, depth) = (next, depth + 1);
            }
            Decoded::Entry(entry) => {
                let entry = match entry {
                    _ if F::is_broken(raw) => Entry::Hole,
                    Entry::Leaf(pa, attr) => Entry::Leaf(pa, attr - (all - rights)),
                    entry => entry,
                };
                return Span { va: va.align_down(page), len: 1 << page, entry };
            }
        }
    }
}

/// What only these tables can do, in the middle of a space of 2 MiB leaves: each change by itself, and
/// each with the gather of the one before still open.
fn structure_changes_miss_no_flush<F: Format>() {
    let (large, len) = (VirtAddr::new(1 << 23), 1u64 << 21);
    let frames = PhysAddr::new(1 << 23);
    let pages = [0, 1, 255, 256, 510, 511].map(|n| large.wrapping_add(n << 12));
    for at_once in [true, false] {
        let arena = Arena::new(Seen::<F>::FRAMES);
        let shared = &arena;
        let mut table = Seen::<F>::table(&shared, 1).expect("room");
        let checker = Checker::new(&table, &arena, &pages)
            .with_hardware(Seen::<F>::hardware(&shared, &table))
            .with_absence(Seen::<F>::absence)
            .with_breaks(F::BREAKS);
        let mut gather = checker.gather::<_, 4>(|_| {});
        for step in 0..7 {
            match step {
                0 => table
                    .map(Run::new(large, frames, len, Attr::RW).with_leaves_up_to(21), &mut gather),
                1 => table.split(large, 12, &mut gather).map_err(Into::into),
                2 => table.collapse(large, 21, &mut gather).map_err(Into::into),
                3 => table.unmap(large.wrapping_add(1 << 12), 1 << 12, &mut gather),
                4 => table.unmap(large, len, &mut gather),
                5 => {
                    let mut frames = (0..512).map(|n| frames.wrapping_add((1 << 22) + (n << 12)));
                    let mapped = table.map_frames(large, len, Attr::RW, &mut frames, &mut gather);
                    mapped.map(|mapped| assert_eq!(mapped, len))
                }
                _ => table.collapse(large, 21, &mut gather).map_err(Into::into),
            }
            .unwrap_or_else(|e| panic!("step {step}: {e}"));
            assert_eq!(checker.check(&table), Ok(()), "after step {step}");
            if at_once {
                gather.drain();
                assert_eq!(checker.check(&table), Ok(()), "step {step}, flushed");
            }
        }
        checker.unload();
        table.retire(&mut gather);
        assert_eq!(checker.check_unloaded(), Ok(()));
        gather.finish();
        assert_eq!(checker.finish(), Ok(()));
        assert_eq!(arena.frames_in_use(), 0);
    }
}

#[test]
fn split_and_collapse_miss_no_flush() {
    structure_changes_miss_no_flush::<X86_64<4>>();
    structure_changes_miss_no_flush::<X86_64<5>>();
    structure_changes_miss_no_flush::<AArch64<12, 48>>();
    structure_changes_miss_no_flush::<RiscV<3>>();
    structure_changes_miss_no_flush::<LoongArch64<12>>();
}

#[test]
fn larger_granules_miss_no_flush() {
    flushes::no_flush_is_missed::<Seen<AArch64<14, 48>>>();
    flushes::no_flush_is_missed::<Seen<AArch64<16, 48>>>();
}

/// The properties of the suite that the checker drives, for one format.
macro_rules! flushes {
    ($module:ident: $format:ty) => {
        mod $module {
            use super::*;

            #[test]
            fn no_flush_is_missed() {
                flushes::no_flush_is_missed::<Seen<$format>>();
            }

            #[test]
            #[cfg_attr(
                miri,
                ignore = "the random ones pass the same code in a fraction of the time"
            )]
            fn every_spoilt_flush_is_noticed() {
                flushes::every_spoilt_flush_is_noticed::<Seen<$format>>();
            }
        }
    };
}

flushes!(radix4: X86_64<4>);
flushes!(radix5: X86_64<5>);
flushes!(flat24: Flat<24>);
flushes!(x86: X86);
flushes!(aarch64_4k: AArch64<12, 48>);
flushes!(loongarch64: LoongArch64<12>);
flushes!(sv32: Sv32);
flushes!(sv39: RiscV<3>);
