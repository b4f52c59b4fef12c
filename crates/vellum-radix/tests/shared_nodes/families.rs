//! Families of tables that fork, change, and go, at random: what a fork promises, whatever the tables do
//! afterwards.
//!
//! ```text
//!   family of tables  --map unmap write fork unshare harvest retire-->  pages of each, by a model
//!                                                                       references of each frame
//! ```
//!
//! The model knows nothing of nodes. It holds the tables to three things: each sees its own pages; no
//! frame can be written through two of them; references, raised where a node is copied and lowered
//! where a leaf is gone, end at zero.

use super::{BASE, COW, PAGE, PAGES, SOFT, contents, live, va};
use core::cell::RefCell;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use vellum_core::{
    Attr, Cause, Direct, Entry, Gone, PageTable, PhysAddr, RangeError, ReplaceError, Run, Soft,
    Span, VirtAddr, Walk,
};
use vellum_radix::{AArch64, Flattened, Format, LoongArch64, Radix, Walker, X86, X86_64, X86Pae};
use vellum_testkit::Arena;
use vellum_testkit::suite::{Recorder, Recording, config, recording};

type Parts<'a, F> = <Radix<F, &'a Arena> as PageTable>::Detached;

/// The rights of what can be written: with that to execute, where every page has it.
fn writable<F: Format>() -> Attr {
    let rights = Attr::RW | Attr::USER;
    let can_hold = F::encode(Entry::Leaf(PhysAddr::new(0), rights), 12).is_ok();
    if can_hold { rights } else { rights | Attr::EXEC }
}

/// References of frames and of soft values, by what a table's entry says.
type References = BTreeMap<u64, i64>;

fn count(references: &mut References, first: u64, pages: u64, by: i64) {
    for frame in first..first + pages {
        *references.entry(frame).or_default() += by;
    }
}

fn count_span(references: &mut References, span: &Span, by: i64) {
    match span.entry {
        Entry::Leaf(pa, _) => count(references, pa.number().as_u64(), span.len / PAGE, by),
        Entry::Soft(soft) => count(references, SOFT + soft.get(), 1, by),
        Entry::Hole => {}
    }
}

/// A table, and what it should map: frame (or soft value) and the rights that it was mapped with.
struct Space<'a, F: Format> {
    table: Radix<F, &'a Arena>,
    pages: BTreeMap<u64, (u64, Attr)>,
}

struct World<'a, F: Format> {
    arena: &'a Arena,
    spaces: Vec<Space<'a, F>>,
    references: References,
    next_frame: u64,
}

#[derive(Clone, Debug)]
enum Op {
    Map { space: usize, first: u64, pages: u64, write: bool },
    Swap { space: usize, page: u64 },
    Unmap { space: usize, first: u64, pages: u64 },
    ReadOnly { space: usize, first: u64, pages: u64 },
    Write { space: usize, page: u64 },
    Fork { space: usize, first: u64, pages: u64, frames: Option<u64> },
    Unshare { space: usize, first: u64, pages: u64, frames: Option<u64> },
    Harvest { space: usize, first: u64, pages: u64 },
    Retire { space: usize },
}

fn ops() -> impl Strategy<Value = Op> {
    let page =
        prop_oneof![0..PAGES, (0..4u64).prop_map(|n| n * 512), (1..4u64).prop_map(|n| n * 512 - 1)];
    let pages = prop_oneof![1..8u64, Just(512), 500..PAGES];
    let range = (0..8usize, page.clone(), pages)
        .prop_map(|(space, first, pages)| (space, first, pages.min(PAGES - first)));
    let frames = proptest::option::weighted(0.2, 0..6u64);
    prop_oneof![
        4 => (range.clone(), any::<bool>())
            .prop_map(|((space, first, pages), write)| Op::Map { space, first, pages, write }),
        1 => (0..8usize, page.clone()).prop_map(|(space, page)| Op::Swap { space, page }),
        2 => range.clone().prop_map(|(space, first, pages)| Op::Unmap { space, first, pages }),
        1 => range.clone().prop_map(|(space, first, pages)| Op::ReadOnly { space, first, pages }),
        6 => (0..8usize, page).prop_map(|(space, page)| Op::Write { space, page }),
        5 => (range.clone(), frames.clone()).prop_map(|((space, first, pages), frames)| {
            Op::Fork { space, first, pages, frames }
        }),
        2 => (range.clone(), frames).prop_map(|((space, first, pages), frames)| {
            Op::Unshare { space, first, pages, frames }
        }),
        1 => range.prop_map(|(space, first, pages)| Op::Harvest { space, first, pages }),
        2 => (0..8usize).prop_map(|space| Op::Retire { space }),
    ]
}

impl<'a, F: Format> World<'a, F> {
    fn new(arena: &'a Arena) -> Self {
        let mut world =
            Self { arena, spaces: Vec::new(), references: References::new(), next_frame: 0x1000 };
        world.add();
        world
    }

    fn add(&mut self) -> usize {
        let table = Radix::new(self.arena).expect("room for a root");
        self.spaces.push(Space { table, pages: BTreeMap::new() });
        self.spaces.len() - 1
    }

    /// Runs an operation of one table, live; what goes lowers references.
    fn with<R>(
        &mut self,
        space: usize,
        op: impl FnOnce(
            &mut Radix<F, &'a Arena>,
            &mut Recording<'_, Parts<'a, F>>,
            &mut dyn FnMut(Span),
        ) -> R,
    ) -> R {
        let recorder = Recorder::default();
        let references = RefCell::new(&mut self.references);
        let table = &mut self.spaces[space].table;
        let result = recording(&recorder, |g| {
            op(table, g, &mut |span| count_span(&mut references.borrow_mut(), &span, 1))
        });
        for gone in recorder.take_gone() {
            let references = &mut references.borrow_mut();
            match gone {
                Gone::Run(run) => count(references, run.pa.number().as_u64(), run.len / PAGE, -1),
                Gone::Soft(_, soft) => count(references, SOFT + soft.get(), 1, -1),
            }
        }
        result
    }

    /// Repeats a range operation that meets shared nodes, after making those its own.
    fn insist(
        &mut self,
        space: usize,
        (first, pages): (u64, u64),
        mut op: impl FnMut(
            &mut Radix<F, &'a Arena>,
            (VirtAddr, u64),
            &mut Recording<'_, Parts<'a, F>>,
        ) -> Result<(), RangeError>,
    ) -> Result<(), RangeError> {
        let (mut at, end) = (first, first + pages);
        loop {
            let rest = (va(at), (end - at) * PAGE);
            match self.with(space, |table, g, _| op(table, rest, g)) {
                Err(RangeError { cause: Cause::Shared(shared), done }) => {
                    at += done / PAGE;
                    assert!(shared >= va(at) && shared < va(end), "{shared} after {at}");
                    self.with(space, |table, g, told| {
                        table.unshare(shared, PAGE, g, &mut |s| told(s))
                    })
                    .expect("room for a node");
                }
                done => {
                    return done
                        .map_err(|e| RangeError { done: (at - first) * PAGE + e.done, ..e });
                }
            }
        }
    }

    fn apply(&mut self, op: &Op) {
        let count_spaces = self.spaces.len();
        let of = |space: usize| space % count_spaces;
        match *op {
            Op::Map { space, first, pages, write } => self.map(of(space), (first, pages), write),
            Op::Swap { space, page } => self.swap(of(space), page),
            Op::Unmap { space, first, pages } => {
                let space = of(space);
                let unmapped =
                    self.insist(space, (first, pages), |t, (va, len), g| t.unmap(va, len, g));
                assert_eq!(unmapped, Ok(()));
                self.spaces[space].pages.retain(|page, _| !(first..first + pages).contains(page));
            }
            Op::ReadOnly { space, first, pages } => {
                let space = of(space);
                let protected = self
                    .insist(space, (first, pages), |t, (va, len), g| t.protect(va, len, COW, g));
                assert_eq!(protected, Ok(()));
                for (_, (_, attr)) in self.spaces[space].pages.range_mut(first..first + pages) {
                    *attr = *attr - Attr::WRITE;
                }
            }
            Op::Write { space, page } => self.write(of(space), page),
            Op::Fork { space, first, pages, frames } if count_spaces < 5 => {
                self.fork(of(space), (first, pages), frames);
            }
            Op::Fork { .. } => {}
            Op::Unshare { space, first, pages, frames } => {
                self.arena.limit_allocations(frames);
                let unshared = self.with(of(space), |table, g, told| {
                    table.unshare(va(first), pages * PAGE, g, &mut |span| told(span))
                });
                self.arena.limit_allocations(None);
                if let Err(e) = unshared {
                    assert!(matches!(e.cause, Cause::OutOfFrames(_)) && frames.is_some(), "{e}");
                    assert!(e.done < pages * PAGE);
                }
            }
            Op::Harvest { space, first, pages } => self.harvest(of(space), (first, pages)),
            Op::Retire { space } => self.retire(of(space)),
        }
    }

    fn map(&mut self, space: usize, (first, pages): (u64, u64), write: bool) {
        let frame = self.next_frame;
        let attr = if write { writable::<F>() } else { writable::<F>() - Attr::WRITE };
        let mapped = self.insist(space, (first, pages), |table, (va, len), g| {
            let pa = PhysAddr::new(frame * PAGE + (va.as_u64() - BASE - first * PAGE));
            table.map(Run::new(va, pa, len, attr), g)
        });
        let done = match mapped {
            Ok(()) => pages,
            Err(RangeError { cause: Cause::Mapped(_), done }) => done / PAGE,
            Err(e) => panic!("{e}"),
        };
        self.next_frame += pages;
        count(&mut self.references, frame, done, 1);
        for i in 0..done {
            let before = self.spaces[space].pages.insert(first + i, (frame + i, attr));
            assert_eq!(before, None, "page {} was mapped", first + i);
        }
        let rest = self.spaces[space].pages.range(first + done..first + pages);
        assert_eq!(done < pages, rest.count() > 0, "what stopped a map is there");
    }

    /// Swaps a page out, as reclaim would, or puts a soft entry into a hole.
    fn swap(&mut self, space: usize, page: u64) {
        let expect = self.spaces[space].table.walk(va(page), &mut ()).expect("canonical").entry;
        let soft = self.next_frame;
        self.next_frame += 1;
        if self.replace(space, page, expect, Entry::Soft(Soft::new(soft).expect("not 0"))) {
            count(&mut self.references, SOFT + soft, 1, 1);
            self.spaces[space].pages.insert(page, (SOFT + soft, Attr::NONE));
        }
    }

    /// Replaces a page as a fault handler does: what is shared is made its own first, and looked at
    /// again. `false`: it was not what was expected any more.
    fn replace(&mut self, space: usize, page: u64, expect: Entry, new: Entry) -> bool {
        for _ in 0..2 {
            let replaced = self.with(space, |table, g, _| {
                table.replace_refilling(va(page), PAGE, expect, new, &mut table.stock(), g)
            });
            match replaced {
                Ok(()) => return true,
                Err(ReplaceError::Invalid(Cause::Shared(_))) => {
                    self.with(space, |table, g, told| {
                        table.unshare(va(page), PAGE, g, &mut |span| told(span))
                    })
                    .expect("room for a node");
                }
                Err(ReplaceError::Changed(now)) => {
                    // Its own now, and with the right to write again.
                    assert!(matches!((now, expect), (Entry::Leaf(..), Entry::Leaf(..))));
                    return false;
                }
                Err(e) => panic!("{e}"),
            }
        }
        panic!("a node stayed shared after it was unshared");
    }

    /// A write to a page, as processor and fault handler make it.
    fn write(&mut self, space: usize, page: u64) {
        let Some(&(frame, attr)) = self.spaces[space].pages.get(&page) else { return };
        if frame >= SOFT || !attr.contains(Attr::WRITE) {
            return;
        }
        for _ in 0..4 {
            let need = Attr::WRITE | Attr::USER;
            let touched = self.spaces[space].table.touch(va(page), need, Attr::STATUS);
            let Entry::Leaf(pa, rights) = touched else { panic!("page {page} is {touched:?}") };
            assert_eq!(pa.number().as_u64(), frame, "page {page}");
            if rights.contains(need) {
                let others = self.spaces.iter().enumerate().filter(|&(i, _)| i != space);
                for (i, other) in others {
                    let sees = other.pages.values().any(|&(seen, _)| seen == frame);
                    assert!(!sees, "{space} writes to frame {frame:#x}, which {i} sees");
                }
                return;
            }
            let copy = self.next_frame;
            self.next_frame += 1;
            let new = Entry::Leaf(PhysAddr::new(copy * PAGE), writable::<F>());
            if self.replace(space, page, Entry::Leaf(pa, rights), new) {
                count(&mut self.references, copy, 1, 1);
                self.spaces[space].pages.insert(page, (copy, attr));
                return;
            }
        }
        panic!("page {page} cannot be written");
    }

    fn fork(&mut self, space: usize, (first, pages): (u64, u64), frames: Option<u64>) {
        // The ends may lie in nodes that are shared already.
        for end in [first, first + pages - 1] {
            self.with(space, |table, g, told| table.unshare(va(end), PAGE, g, &mut |s| told(s)))
                .expect("room for a node");
        }
        let mut child: Radix<F, &Arena> = Radix::new(self.arena).expect("room for a root");
        self.arena.limit_allocations(frames);
        let shared = self.with(space, |table, g, told| {
            // SAFETY: nothing walks the child yet.
            let mut direct = unsafe { Direct::new(|gone| panic!("{gone:?} of the child's")) };
            let pair = (&mut child, &mut direct);
            table.share_nodes(va(first), pages * PAGE, g, pair, &mut |span| told(span))
        });
        self.arena.limit_allocations(None);
        let done = match shared {
            Ok(()) => pages,
            Err(RangeError { cause: Cause::OutOfFrames(_), done }) => done / PAGE,
            Err(e) => panic!("{e}"),
        };
        let given = self.spaces[space].pages.range(first..first + done);
        let pages = given.map(|(&page, &what)| (page, what)).collect();
        self.spaces.push(Space { table: child, pages });
    }

    fn harvest(&mut self, space: usize, (first, pages): (u64, u64)) {
        let mut told = Vec::new();
        self.with(space, |table, g, _| {
            table.harvest(va(first), pages * PAGE, Attr::ACCESSED, g, &mut |span| told.push(span))
        })
        .expect("a good range");
        for span in told {
            let page = (span.va.as_u64() - BASE) / PAGE;
            let Entry::Leaf(pa, _) = span.entry else { panic!("{span:?}") };
            assert_eq!(self.spaces[space].pages[&page].0, pa.number().as_u64());
            let now = self.spaces[space].table.walk(span.va, &mut ()).expect("canonical").entry;
            let Entry::Leaf(_, now) = now else { panic!("{now:?}") };
            assert!(!now.contains(Attr::ACCESSED));
        }
    }

    fn retire(&mut self, space: usize) {
        let Space { table, .. } = self.spaces.swap_remove(space);
        let recorder = Recorder::default();
        recording(&recorder, |g| table.retire(g));
        for gone in recorder.take_gone() {
            match gone {
                Gone::Run(run) => {
                    count(&mut self.references, run.pa.number().as_u64(), run.len / PAGE, -1);
                }
                Gone::Soft(_, soft) => count(&mut self.references, SOFT + soft.get(), 1, -1),
            }
        }
        if self.spaces.is_empty() {
            self.add();
        }
    }

    /// Every table shows its own pages, and no frame is without a reference, or with one too many.
    fn check(&mut self) {
        let mut seen = BTreeSet::new();
        for space in &self.spaces {
            let pages = contents(&space.table);
            let frames: BTreeMap<u64, u64> =
                pages.iter().map(|(&p, &(frame, _))| (p, frame)).collect();
            let model: BTreeMap<u64, u64> =
                space.pages.iter().map(|(&p, &(frame, _))| (p, frame)).collect();
            assert_eq!(frames, model);
            for (page, (_, attr)) in &pages {
                let own = space.pages[page].1;
                assert!(own.contains(*attr & Attr::RWX), "page {page} has more than it was given");
                assert!((*attr | Attr::WRITE).contains(own & Attr::RWX), "page {page} lost more");
            }
            check_walker(self.arena, &space.table, &pages);
            seen.extend(frames.into_values());
        }
        self.references.retain(|_, n| *n != 0);
        assert!(self.references.values().all(|&n| n > 0), "{:x?}", self.references);
        assert_eq!(self.references.keys().copied().collect::<BTreeSet<_>>(), seen);
    }
}

/// A walker that knows nothing of sharing, and multiplies the rights of all levels as hardware does,
/// finds the same.
fn check_walker<F: Format>(
    arena: &Arena,
    table: &Radix<F, &Arena>,
    pages: &BTreeMap<u64, (u64, Attr)>,
) {
    // SAFETY: the arena is memory wherever it says that a frame is in use.
    let walker = unsafe { Walker::<F, _, _>::new(table.root(), arena, |pa| arena.is_in_use(pa)) };
    for (&page, &(frame, attr)) in pages.iter().filter(|(_, (frame, _))| *frame < SOFT) {
        let found = walker.translate(va(page)).expect("a good table");
        let (pa, rights) = found.expect("a page is there");
        assert_eq!((pa.number().as_u64(), rights & Attr::RWX), (frame, attr & Attr::RWX));
    }
}

fn families_agree<F: Format>() {
    let frames = if F::LEVELS[0].bits > 10 { 1 << 13 } else { 1 << 10 };
    proptest!(config(96), |(ops in proptest::collection::vec(ops(), 1..24))| {
        let arena = Arena::new(frames);
        let mut world = World::<F>::new(&arena);
        for op in &ops {
            world.apply(op);
            world.check();
        }
        while world.spaces.iter().any(|space| !space.pages.is_empty()) {
            world.retire(0);
            world.check();
        }
        world.spaces.drain(..).for_each(|space| live(|g| space.table.retire(g)));
        world.references.retain(|_, n| *n != 0);
        prop_assert_eq!(world.references.len(), 0, "references are left");
        prop_assert_eq!(arena.frames_in_use(), 0);
    });
}

#[test]
fn families_of_four_levels_agree() {
    families_agree::<X86_64<4>>();
}

#[test]
fn families_of_five_levels_agree() {
    families_agree::<X86_64<5>>();
}

#[test]
fn families_of_two_levels_agree() {
    families_agree::<X86>();
}

#[test]
fn families_with_physical_address_extension_agree() {
    families_agree::<X86Pae>();
}

#[test]
fn families_with_break_before_make_agree() {
    families_agree::<AArch64<12, 48>>();
}

#[test]
fn families_without_read_only_links_agree() {
    families_agree::<LoongArch64<12>>();
}

#[test]
fn families_of_flattened_tables_agree() {
    families_agree::<Flattened<true, false>>();
}
