//! Where the operations take place: a few areas, cut where leaves and nodes of every size begin.
//!
//! ```text
//!   small     | p | p | p | p | p | p |     pages: at the start, across a node's end, at the end
//!   large     |p|      |p|p|      |p|       two leaves of a larger size, cut a page before and
//!              ^ cuts   ^ ^       ^         after their bounds, and where smaller leaves end
//! ```
//!
//! Ranges go from cut to cut, so all pages between two cuts are treated alike; the first and the
//! last of them are the points where the checker looks.
//!
//! Every mapping gets frames of its own, but for shared ones; so a frame that was delivered is mapped
//! nowhere in the space that it came from.

use super::super::{Design, halves};
use crate::Arena;
use crate::checker::{Checker, Missed, Watch};
use core::cell::Cell;
use proptest::prelude::*;
use vellum_core::{Attr, Change, Entry, Gather as _, PageTable, PhysAddr, Run, Soft, VirtAddr};

/// How much a gather holds: little, so that operations have to drain it.
const ROOM: usize = 3;

/// A stretch between two cuts of an area; all three are taken modulo what there is, and negative
/// ones count from the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) area: usize,
    pub(super) from: isize,
    pub(super) to: isize,
}

/// What a replace installs; attributes by their number in [`Stage::attr`].
#[derive(Clone, Copy, Debug)]
pub(super) enum New {
    Hole,
    Soft,
    Frame(usize),
    Same(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// With the area's own leaves where they fit; where the flag is off, with the next smaller.
    Map(Place, usize, bool),
    Unmap(Place),
    Protect(Place, Change),
    /// Of the leaf, or the page, where the place begins.
    Replace(Place, New),
    Harvest(Place, Attr),
    Touch(Place, Attr),
    /// Of this space with the other one.
    Share(Place),
    Drain,
    /// The gather ends, and another begins.
    Finish,
}

impl Op {
    /// Whether it may make something valid that was not.
    const fn makes_entries(&self) -> bool {
        matches!(self, Self::Map(..) | Self::Protect(..) | Self::Replace(..) | Self::Share(_))
    }
}

/// An operation on one of two spaces, with one of its two gathers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) space: usize,
    pub(super) gather: usize,
    pub(super) op: Op,
}

fn places() -> impl Strategy<Value = Place> {
    (0usize..6, 0isize..16, 0isize..16).prop_map(|(area, from, to)| Place { area, from, to })
}

/// Random steps.
pub(super) fn steps() -> impl Strategy<Value = Step> {
    let attr = || 0usize..16;
    let status = || prop::sample::select(vec![Attr::ACCESSED, Attr::DIRTY, Attr::STATUS]);
    let new = prop_oneof![
        Just(New::Hole),
        Just(New::Soft),
        attr().prop_map(New::Frame),
        attr().prop_map(New::Same),
    ];
    let change = prop::sample::select(vec![
        Change::clearing(Attr::WRITE),
        Change::setting(Attr::WRITE),
        Change::clearing(Attr::STATUS),
        Change::setting(Attr::USER),
        Change::clearing(Attr::GLOBAL),
        Change::to(Attr::NONE, Attr::RWX),
        Change::to(Attr::RX, Attr::RWX),
    ]);
    let op = prop_oneof![
        6 => (places(), attr(), prop::bool::weighted(0.7)).prop_map(|(p, a, l)| Op::Map(p, a, l)),
        3 => places().prop_map(Op::Unmap),
        3 => (places(), change).prop_map(|(p, c)| Op::Protect(p, c)),
        4 => (places(), new).prop_map(|(p, n)| Op::Replace(p, n)),
        2 => (places(), status()).prop_map(|(p, s)| Op::Harvest(p, s)),
        1 => (places(), status()).prop_map(|(p, s)| Op::Touch(p, s)),
        1 => places().prop_map(Op::Share),
        2 => Just(Op::Drain),
        1 => Just(Op::Finish),
    ];
    (0usize..2, 0usize..2, op).prop_map(|(space, gather, op)| Step { space, gather, op })
}

struct Area {
    va: VirtAddr,
    /// Offsets from there, ascending; the last is the area's length.
    cuts: Vec<u64>,
    /// log2 of its own leaves, and of the next smaller.
    align: u8,
    below: u8,
}

/// Areas, attributes and frames for one design.
pub(super) struct Stage {
    areas: Vec<Area>,
    points: Vec<VirtAddr>,
    attrs: Vec<Attr>,
    base: u8,
    /// What one gather took has to be flushed before another makes something of it.
    breaks: bool,
    frames: Cell<PhysAddr>,
}

impl Stage {
    pub(super) fn new<D: Design>(table: &D::Table<'_>, arena: &Arena) -> Self {
        let leaves = <D::Table<'_> as PageTable>::LEAVES;
        let base = leaves.trailing_zeros() as u8;
        let mut areas = small_areas(table, base);
        areas.extend(large_areas(table, leaves));
        let mut points = Vec::new();
        for Area { va, cuts, .. } in &areas {
            for ends in cuts.windows(2) {
                points.extend([ends[0], ends[1] - (1 << base)].map(|at| va.wrapping_add(at)));
            }
        }
        points.sort_unstable();
        points.dedup();
        let rw = Attr::RW | Attr::STATUS;
        let attrs = [
            rw | Attr::USER,
            Attr::READ,
            rw | Attr::GLOBAL,
            Attr::RX | Attr::USER | Attr::ACCESSED,
            Attr::NONE,
            Attr::RW | Attr::USER,
            Attr::RWX | Attr::GLOBAL,
            Attr::READ | Attr::SOFT[0],
            rw.with_key(3),
        ];
        let attrs = attrs.map(D::portable).to_vec();
        let breaks = D::breaks();
        Self { areas, points, attrs, base, breaks, frames: Cell::new(arena.first().addr()) }
    }

    /// Where the checker is to look.
    pub(super) fn points(&self) -> &[VirtAddr] {
        &self.points
    }

    fn area(&self, place: Place) -> &Area {
        &self.areas[place.area % self.areas.len()]
    }

    fn range(&self, place: Place) -> (VirtAddr, u64) {
        let Area { va, cuts, .. } = self.area(place);
        let [a, b] = [place.from, place.to].map(|cut| cut.rem_euclid(cuts.len() as isize) as usize);
        let (from, to) = if a == b { (0, cuts.len() - 1) } else { (a.min(b), a.max(b)) };
        (va.wrapping_add(cuts[from]), cuts[to] - cuts[from])
    }

    fn attr(&self, n: usize) -> Attr {
        self.attrs[n % self.attrs.len()]
    }

    /// Frames that nobody had before, aligned as `va` is.
    fn fresh_frames(&self, va: VirtAddr, len: u64, align: u8) -> PhysAddr {
        let skew = va.as_u64() & ((1 << align) - 1);
        let first = self.frames.get().align_up(align).expect("far below the end");
        let first = first.wrapping_add(skew);
        self.frames.set(first.wrapping_add(len));
        first
    }

    /// Takes a step. Whether the table did it is its own affair; what it owes is not.
    ///
    /// What may have ceased to be global is flushed at once: another gather, which takes the leaf
    /// away as the table has it now, would not know that an older translation survives its flush.
    /// And with break-before-make, what another gather holds is flushed before a page is made.
    pub(super) fn take<T: PageTable>(&self, step: &Step, spaces: &mut [Space<'_, '_, T>; 2]) {
        let [first, second] = spaces;
        let (space, other) = if step.space == 0 { (first, second) } else { (second, first) };
        if self.breaks && step.op.makes_entries() {
            space.gathers[1 - step.gather].drain();
        }
        if let Op::Share(place) = step.op {
            // A frame that the child gave up may come back to it, and must have come out by then.
            other.gathers.iter_mut().for_each(Watch::drain);
            let (va, len) = self.range(place);
            let change = Change::clearing(Attr::WRITE);
            let (gather, childs) = (&mut space.gathers[step.gather], &mut other.gathers[0]);
            let child = (&mut other.table, childs);
            let _ = space.table.share(va, len, change, gather, child, &mut |_| {});
            return;
        }
        let Space { table, gathers, checker } = space;
        let gather = &mut gathers[step.gather];
        match step.op {
            Op::Map(place, attr, large) => {
                let (va, len) = self.range(place);
                let area = self.area(place);
                let align = if large { area.align } else { area.below };
                let pa = self.fresh_frames(va, len, align);
                let run = Run::new(va, pa, len, self.attr(attr)).with_leaves_up_to(align);
                let _ = table.map(run, gather);
            }
            Op::Unmap(place) => {
                let (va, len) = self.range(place);
                let _ = table.unmap(va, len, gather);
            }
            Op::Protect(place, change) => {
                let (va, len) = self.range(place);
                let _ = table.protect(va, len, change, gather);
                if change.clear.contains(Attr::GLOBAL) {
                    gather.drain();
                }
            }
            Op::Replace(place, new) => {
                self.replace(table, self.range(place).0, new, gather);
                if let New::Same(_) = new {
                    gather.drain();
                }
            }
            Op::Harvest(place, clear) => {
                let (va, len) = self.range(place);
                let _ = table.harvest(va, len, clear, gather, &mut |_| {});
            }
            Op::Touch(place, bits) => {
                table.touch(self.range(place).0, Attr::NONE, bits);
            }
            Op::Drain => gather.drain(),
            Op::Finish => core::mem::replace(gather, checker.gather(|_| {})).finish(),
            Op::Share(_) => {}
        }
    }

    fn replace<T: PageTable>(
        &self,
        table: &T,
        va: VirtAddr,
        new: New,
        gather: &mut Watch<'_, '_, T::Detached, ROOM>,
    ) {
        let there = table.walk(va, &mut ()).expect("a range of the table");
        let (at, len) = match there.entry {
            Entry::Leaf(..) => (there.va, there.len),
            _ => (va, 1 << self.base),
        };
        let new = match (new, there.entry) {
            (New::Hole, _) => Entry::Hole,
            (New::Soft, _) => Entry::Soft(Soft::new(1).expect("1")),
            (New::Same(attr), Entry::Leaf(pa, _)) => Entry::Leaf(pa, self.attr(attr)),
            (New::Frame(attr) | New::Same(attr), _) => {
                let pa = self.fresh_frames(at, len, len.ilog2() as u8);
                Entry::Leaf(pa, self.attr(attr))
            }
        };
        let mut stock = table.stock();
        let _ = table.replace_refilling(at, len, there.entry, new, &mut stock, gather);
    }
}

/// Pages: at the start of the space, across a place where many nodes end, at the end of all.
fn small_areas<T: PageTable>(table: &T, base: u8) -> Vec<Area> {
    let pages = if cfg!(miri) { 4 } else { 8 };
    let len = pages << base;
    let halves = halves(table.canonical());
    let ((low, low_len), (high, high_len)) = (halves[0], halves[halves.len() - 1]);
    let places = [low, low.wrapping_add(low_len / 4 - len / 2), high.wrapping_add(high_len - len)];
    let cuts: Vec<_> = (0..=pages).map(|n| n << base).collect();
    places.map(|va| Area { va, cuts: cuts.clone(), align: base, below: base }).into()
}

/// Two leaves each of the sizes above the smallest, up to 1 GiB.
fn large_areas<T: PageTable>(table: &T, leaves: u64) -> Vec<Area> {
    let (low, low_len) = halves(table.canonical())[0];
    let sizes: Vec<u8> = (0..=30).filter(|n| leaves >> n & 1 == 1).collect();
    let room = low_len / 8;
    let mut areas = Vec::new();
    for (i, &align) in sizes.iter().enumerate().skip(1).filter(|(_, n)| room >> **n >= 4) {
        let size = 1u64 << align;
        let mut cuts = vec![0, size, 2 * size];
        for &small in &sizes[..i] {
            let small = 1 << small;
            cuts.extend([small, size - small, size + small, 2 * size - small]);
        }
        cuts.sort_unstable();
        cuts.dedup();
        // Another place for each size, a multiple of it; not where the small areas are.
        let va = low.wrapping_add(low_len / 2 + room * (i as u64 - 1)).align_down(align);
        areas.push(Area { va, cuts, align, below: sizes[i - 1] });
    }
    areas.truncate(3);
    areas
}

/// One address space: a table, its checker, and two gathers that are open.
pub(super) struct Space<'c, 's, T: PageTable> {
    table: T,
    checker: &'c Checker<'s>,
    gathers: [Watch<'c, 's, T::Detached, ROOM>; 2],
}

impl<'c, 's, T: PageTable> Space<'c, 's, T> {
    pub(super) fn new(table: T, checker: &'c Checker<'s>) -> Self {
        Self { table, checker, gathers: [(); 2].map(|()| checker.gather(|_| {})) }
    }

    pub(super) fn check(&self) -> Result<(), Missed> {
        self.checker.check(&self.table)
    }

    /// Retires the table with one gather while the other still holds something, and finishes both.
    pub(super) fn retire(self) -> Result<(), Missed> {
        let Self { table, checker, gathers: [mut first, second] } = self;
        checker.unload();
        table.retire(&mut first);
        let owed = checker.check_unloaded();
        first.finish();
        // What a space was given up with is flushed whole, whatever others hold.
        let left = checker.finish();
        second.finish();
        owed.and(left).and(checker.finish())
    }
}
