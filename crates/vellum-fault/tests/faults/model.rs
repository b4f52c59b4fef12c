//! Random sequences over three spaces, beside a model that knows nothing of tables: what each page
//! holds, who may do what to it, and what counts as resident.
//!
//! ```text
//!   page   0 .. 24        24 .. 36         36 .. 48
//!          anonymous      private file     shared file     the file's page of both is (page % 12)
//! ```
//!
//! The anonymous pages lie so far apart that their region has three nodes of x86-64's lowest tables, which
//! a fork links whole. What is done to a stretch is done to what lies between, too, where nothing is.

use crate::common::{self, Host, audit, fault, get, put, region};
use proptest::prelude::*;
use vellum_core::{PAGE_SIZE, PageTable, VirtAddr};
use vellum_fault::host::designs::{Design, SystemOf};
use vellum_fault::{
    Access, Backing, Deny, Engine, FaultError, Mmu, Region, Rights, RssKind, Sharing, System,
};

const ANON: u64 = 24;
const FILE: u64 = 12;
const PAGES: u64 = ANON + 2 * FILE;
/// How far apart anonymous pages are, in pages. Miri takes too long for all the markers between.
const APART: u64 = if cfg!(miri) { 1 } else { 64 };

/// Where page `n` is.
fn page(n: u64) -> VirtAddr {
    common::page(n.min(ANON) * APART + n.saturating_sub(ANON))
}

/// A stretch of pages: the first, and how many.
type Stretch = (u64, u64);

#[derive(Clone, Debug)]
enum Op {
    Touch {
        space: usize,
        page: u64,
        access: Access,
        byte: u8,
    },
    Zap(usize, Stretch),
    /// With the guard pages.
    Clear(usize, Stretch),
    Protect(usize, Stretch, Rights),
    Fork {
        from: usize,
        to: usize,
    },
    Move {
        space: usize,
        from: Stretch,
        to: u64,
    },
    Guard(usize, Stretch),
    Unguard(usize, Stretch),
    Out(usize, u64),
    Store(usize),
    Populate(usize, Stretch),
}

/// What one page of one space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    rights: Rights,
    guard: bool,
    /// Of a private page that was written to: what it holds.
    own: Option<u8>,
    /// It shows the file's page.
    file: bool,
}

const EMPTY: Page = Page { rights: Rights::RW, guard: false, own: None, file: false };

#[derive(Debug)]
struct Model {
    spaces: [[Page; PAGES as usize]; 3],
    file: [u8; FILE as usize],
}

fn is_shared(n: u64) -> bool {
    n >= ANON + FILE
}

/// The region of page `n`, as the space that has `page` there sees it.
fn region_of(file: vellum_cache::FileId, n: u64, page: &Page) -> Region {
    let (backing, sharing, first) = match n {
        _ if is_shared(n) => (Backing::File(file), Sharing::Shared, ANON + FILE),
        ANON.. => (Backing::File(file), Sharing::Private, ANON),
        _ => (Backing::Anon, Sharing::Private, 0),
    };
    let pages = if n < ANON { ANON * APART } else { FILE };
    let region = region(backing, sharing, pages);
    Region { start: self::page(first), rights: page.rights, ..region }
}

impl Model {
    fn pages(&mut self, space: usize, (first, count): Stretch) -> &mut [Page] {
        &mut self.spaces[space][first as usize..][..count as usize]
    }

    fn byte(&self, space: usize, n: u64) -> u8 {
        let page = self.spaces[space][n as usize];
        let file = if n < ANON { 0 } else { self.file[(n % FILE) as usize] };
        page.own.unwrap_or(file)
    }

    /// Pages that are in memory or in swap, and that show a file.
    fn resident(&self, space: usize) -> (u64, u64) {
        let pages = &self.spaces[space];
        let own = pages.iter().filter(|page| page.own.is_some()).count();
        (own as u64, pages.iter().filter(|page| page.file).count() as u64)
    }

    fn touched(&mut self, space: usize, n: u64, access: Access, byte: u8) {
        let page = &mut self.spaces[space][n as usize];
        match access {
            Access::Write if is_shared(n) => {
                page.file = true;
                self.file[(n % FILE) as usize] = byte;
            }
            Access::Write => *page = Page { own: Some(byte), file: false, ..*page },
            _ => page.file |= n >= ANON && page.own.is_none(),
        }
    }
}

struct World<'w, 'e, 's, T: PageTable> {
    engine: &'e Engine<Host<'s, T>>,
    spaces: &'w mut [Mmu<'e, Host<'s, T>>; 3],
    file: vellum_cache::FileId,
    model: Model,
}

fn at((first, count): Stretch) -> (VirtAddr, u64) {
    (page(first), page(first + count).as_u64() - page(first).as_u64())
}

impl<T: PageTable> World<'_, '_, '_, T> {
    fn touch(&mut self, space: usize, n: u64, access: Access, byte: u8) {
        let known = self.model.spaces[space][n as usize];
        let region = region_of(self.file, n, &known);
        let done = fault(&mut self.spaces[space], &region, page(n), access);
        if !access.is_allowed_by(known.rights) {
            assert_eq!(done, Err(FaultError::Deny(Deny::Forbidden(page(n)))));
        } else if known.guard {
            assert_eq!(done, Err(FaultError::Deny(Deny::Unmapped(page(n)))));
        } else {
            done.unwrap();
            if access == Access::Write {
                put(&self.spaces[space], page(n), byte);
            }
            self.model.touched(space, n, access, byte);
            assert_eq!(get(&self.spaces[space], page(n)), self.model.byte(space, n));
        }
    }

    fn zap(&mut self, space: usize, stretch: Stretch, guards: bool) {
        let ((va, len), mmu) = (at(stretch), &mut self.spaces[space]);
        if guards { mmu.zap(va, len) } else { mmu.zap_pages(va, len) }.unwrap();
        for page in self.model.pages(space, stretch) {
            *page = Page { rights: page.rights, guard: page.guard && !guards, ..EMPTY };
        }
    }

    /// By the borders of regions, since a space has one call for each.
    fn by_sharing((first, count): Stretch) -> impl Iterator<Item = (Stretch, Sharing)> {
        let [anon, file] = [ANON, ANON + FILE].map(|n| n.clamp(first, first + count));
        let parts = [
            ((first, anon - first), Sharing::Private),
            ((anon, file - anon), Sharing::Private),
            ((file, first + count - file), Sharing::Shared),
        ];
        parts.into_iter().filter(|((_, count), _)| *count > 0)
    }

    fn fork(&mut self, from: usize, to: usize) {
        self.zap(to, (0, PAGES), true);
        let [a, b, c] = &mut *self.spaces;
        let (parent, child) = match (from, to) {
            (0, 1) => (a, b),
            (0, _) => (a, c),
            (1, 0) => (b, a),
            (1, _) => (b, c),
            (_, 0) => (c, a),
            _ => (c, b),
        };
        for (stretch, sharing) in Self::by_sharing((0, PAGES)) {
            let region = region_of(self.file, stretch.0, &EMPTY);
            assert_eq!(((region.start, region.len), region.sharing), (at(stretch), sharing));
            parent.copy_to(child, &region).unwrap();
        }
        self.model.spaces[to] = self.model.spaces[from];
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Touch { space, page, access, byte } => self.touch(space, page, access, byte),
            Op::Zap(space, stretch) => self.zap(space, stretch, false),
            Op::Clear(space, stretch) => self.zap(space, stretch, true),
            Op::Protect(space, stretch, rights) => {
                for (part, sharing) in Self::by_sharing(stretch) {
                    let (va, len) = at(part);
                    self.spaces[space].protect(va, len, rights, sharing).unwrap();
                }
                self.model.pages(space, stretch).iter_mut().for_each(|page| page.rights = rights);
            }
            Op::Fork { from, to } => self.fork(from, to),
            Op::Move { space, from, to } => {
                self.zap(space, (to, from.1), true);
                let (va, len) = at(from);
                self.spaces[space].relocate(va, page(to), len).unwrap();
                let moved = self.model.pages(space, from).to_vec();
                self.model.pages(space, (to, from.1)).copy_from_slice(&moved);
                for page in self.model.pages(space, from) {
                    *page = Page { rights: page.rights, ..EMPTY };
                }
            }
            Op::Guard(space, stretch) => {
                let (va, len) = at(stretch);
                self.spaces[space].guard(va, len).unwrap();
                for page in self.model.pages(space, stretch) {
                    *page = Page { rights: page.rights, guard: true, ..EMPTY };
                }
            }
            Op::Unguard(space, stretch) => {
                let (va, len) = at(stretch);
                self.spaces[space].unguard(va, len).unwrap();
                self.model.pages(space, stretch).iter_mut().for_each(|page| page.guard = false);
            }
            Op::Out(space, n) => {
                let swap = self.engine.system().swap();
                let went = self.spaces[space].page_out(page(n), |bytes| Some(swap.store(bytes)));
                assert!(!went.unwrap() || self.model.spaces[space][n as usize].own.is_some());
            }
            Op::Store(space) => {
                let (files, all) = (self.engine.system().files(), at((ANON + FILE, FILE)));
                self.spaces[space].clean(all.0, all.1).unwrap();
                self.engine.cache().write_back(files, self.file, 0..FILE).unwrap();
                self.engine.cache().drop_clean(files, self.file, 0..FILE);
            }
            Op::Populate(space, (first, count)) => self.populate(space, first, count),
        }
    }

    /// Within the region and the rights of the first page.
    fn populate(&mut self, space: usize, first: u64, count: u64) {
        let known = self.model.spaces[space][first as usize];
        let region = region_of(self.file, first, &known);
        let here = |n: &u64| region.covers(page(*n), PAGE_SIZE);
        let pages: Vec<_> = (first..first + count).take_while(here).collect();
        let (mut va, len) = at((first, pages.len() as u64));
        let (mmu, end) = (&mut self.spaces[space], va.wrapping_add(len));
        let done = loop {
            let rest = end.as_u64() - va.as_u64();
            match mmu.populate(&region, va, rest, Access::Read) {
                Err((at, FaultError::Exclusive)) => {
                    mmu.fault_exclusive(&region, at, Access::Read).unwrap();
                    va = at;
                }
                done => break done,
            }
        };
        for n in pages {
            let there = self.model.spaces[space][n as usize];
            if there.guard || known.rights == Rights::NONE {
                assert_eq!(done.map_err(|(at, _)| at), Err(page(n)));
                return;
            }
            self.model.touched(space, n, Access::Read, 0);
        }
        assert_eq!(done, Ok(()));
    }

    fn check(&self) {
        audit(self.engine, &self.spaces.each_ref());
        for (space, mmu) in self.spaces.iter().enumerate() {
            let rss = mmu.rss();
            let own = rss.pages(RssKind::Anon) + rss.pages(RssKind::Swap);
            assert_eq!((own, rss.pages(RssKind::File)), self.model.resident(space));
        }
    }

    /// Everything that can be read, is read.
    fn read_all(&mut self) {
        for space in 0..3 {
            for n in 0..PAGES {
                self.touch(space, n, Access::Read, 0);
            }
        }
        self.check();
    }
}

fn stretch() -> impl Strategy<Value = Stretch> {
    (0..PAGES, 1..PAGES).prop_map(|(first, count)| (first, count.min(PAGES - first)))
}

fn op() -> impl Strategy<Value = Op> {
    let access = prop_oneof![
        Just(Access::Read),
        Just(Access::Write),
        Just(Access::Write),
        Just(Access::Execute)
    ];
    let rights = (0..8u8).prop_map(Rights::from_bits);
    let space = 0..3usize;
    prop_oneof![
        12 => (space.clone(), 0..PAGES, access, 1..255u8)
            .prop_map(|(space, page, access, byte)| Op::Touch { space, page, access, byte }),
        1 => (space.clone(), stretch()).prop_map(|(s, r)| Op::Zap(s, r)),
        1 => (space.clone(), stretch()).prop_map(|(s, r)| Op::Clear(s, r)),
        2 => (space.clone(), stretch(), rights).prop_map(|(s, r, rights)| Op::Protect(s, r, rights)),
        2 => (space.clone(), 1..3usize).prop_map(|(from, by)| Op::Fork { from, to: (from + by) % 3 }),
        2 => (space.clone(), 1..=ANON / 2, 0..ANON, 0..ANON, any::<bool>()).prop_map(
            |(space, count, a, b, turned)| {
                // The one in the lower half, the other in the upper.
                let half = ANON / 2;
                let (low, high) = (a % (half - count + 1), half + b % (half - count + 1));
                let (from, to) = if turned { (high, low) } else { (low, high) };
                Op::Move { space, from: (from, count), to }
            }
        ),
        1 => (space.clone(), stretch()).prop_map(|(s, r)| Op::Guard(s, r)),
        1 => (space.clone(), stretch()).prop_map(|(s, r)| Op::Unguard(s, r)),
        2 => (space.clone(), 0..PAGES).prop_map(|(s, n)| Op::Out(s, n)),
        1 => space.clone().prop_map(Op::Store),
        1 => (space, stretch()).prop_map(|(s, r)| Op::Populate(s, r)),
    ]
}

fn follow<'e, 's, D: Design>(
    engine: &'e Engine<SystemOf<'s, D>>,
    mut spaces: [Mmu<'e, SystemOf<'s, D>>; 3],
    ops: &[Op],
) {
    let file: Vec<u8> = (0..FILE).flat_map(|n| [100 + n as u8; PAGE_SIZE as usize]).collect();
    let number = engine.system().files().create(&file);
    let bytes = core::array::from_fn(|n| 100 + n as u8);
    let model = Model { spaces: [[EMPTY; PAGES as usize]; 3], file: bytes };
    let mut world = World { engine, spaces: &mut spaces, file: number, model };
    for op in ops {
        world.apply(op);
        world.check();
    }
    world.read_all();
}

macro_rules! design {
    ($name:ident, $design:ty) => {
        mod $name {
            use super::*;

            /// Guards that were there leave a node without a page, which a fork links.
            #[test]
            fn a_part_that_had_guards_alone_is_read_after_a_fork() {
                let ops = [
                    Op::Guard(0, (16, 8)),
                    Op::Move { space: 0, from: (0, 7), to: 16 },
                    Op::Unguard(0, (0, 24)),
                    Op::Fork { from: 0, to: 1 },
                ];
                common::run::<$design>(|engine, spaces| follow::<$design>(engine, spaces, &ops));
            }

            proptest! {
                #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

                #[test]
                fn random_sequences_do_what_a_model_does(ops in prop::collection::vec(op(), 1..60)) {
                    common::run::<$design>(|engine, spaces| follow::<$design>(engine, spaces, &ops));
                }
            }
        }
    };
}
vellum_fault::for_each_design!(design);
