//! What is done: each act in a world of its own, made ready first, then measured.
//!
//! ```text
//!   ready        regions, pages, children            not measured
//!   meter(f)     the act, so many times              measured, once
//! ```
//!
//! # Invariants
//!
//! - Each act calls its meter once, and checks what it has done where that could have been nothing.

use super::linux::Cost;
use super::world::{ANON, PLACE, RW, Space, World, place, touch};
use crate::fault::designs::Design;
use crate::fault::ram::{Machine, turn_of};
use vellum_core::{PAGE_SIZE, PageTable, VirtAddr};
use vellum_fault::{Access, Engine, RssKind};
use vellum_space::Rules;
use vellum_space::abi::{madv, map, mremap, prot};

/// Takes the time, or counts, of what it is given, and calls it once.
pub(super) type Meter<'m> = &'m mut dyn FnMut(&mut dyn FnMut());

/// 2 MiB.
const LARGE: u64 = 1 << 21;
/// Pages of 16 MiB.
const SIXTEEN: u64 = 4096;

/// An act; each takes how many times, or pages, it is done for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Clear,
    Write,
    Bulk,
    Read,
    ZeroThenWrite,
    Huge,
    MapUnmap,
    MapTouchUnmap,
    MapUnmapLarge,
    Munmap,
    ProtectWhole,
    ProtectMiddle,
    Protect,
    DontNeedOne,
    DontNeed,
    Move,
    Fork(u64),
    ForkDrop(u64),
    CowCopy,
    CowReuse,
    SharedFile,
    PrivateFile,
    FileRead,
}

use Act::*;

/// A row of the report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) act: Act,
    pub(super) name: &'static str,
    /// How many times it is done, or to how many pages.
    pub(super) count: u64,
    /// Of one time, or one page; for ranges that are given as a whole, of all of it.
    pub(super) cost: Option<Cost>,
    /// What the figure is of: the count, or the whole.
    pub(super) per: u64,
}

const fn row(act: Act, name: &'static str, count: u64, cost: Cost) -> Row {
    Row { act, name, count, cost: Some(cost), per: count }
}

const fn whole(act: Act, name: &'static str, count: u64, cost: Cost) -> Row {
    Row { act, name, count, cost: Some(cost), per: 1 }
}

/// Linux's and ours, ways into the kernel, cleared pages.
const fn of(linux: f64, target: f64, entries: f64, clears: f64) -> Cost {
    Cost::new([linux, target], entries, clears)
}

/// All rows. The first is how much of the others is clearing.
pub(super) const ROWS: [Row; 27] = [
    Row { act: Clear, name: "clear a page", count: 256, cost: None, per: 256 },
    row(Write, "anonymous write", 256, of(3129.0, 1300.0, 1.0, 1.0)),
    row(Bulk, "anonymous write, bulk mean", SIXTEEN, of(3552.0, 1400.0, 1.0, 1.0)),
    row(Read, "anonymous read", 256, of(1463.0, 500.0, 1.0, 0.0)),
    row(ZeroThenWrite, "zero page, then write", 256, of(3498.0, 1500.0, 1.0, 1.0)),
    row(Huge, "2 MiB fault", 16, of(282_776.0, 264_000.0, 1.0, 512.0)),
    row(MapUnmap, "mmap+munmap 1 page", 256, of(8377.0, 1500.0, 2.0, 0.0)),
    row(MapTouchUnmap, "the same, touched", 256, of(14994.0, 3500.0, 3.0, 1.0)),
    row(MapUnmapLarge, "mmap+munmap 16 MiB", 256, of(8966.0, 1500.0, 2.0, 0.0)),
    row(Munmap, "munmap 16 MiB touched, a page", SIXTEEN, of(1025.0, 150.0, 0.0, 0.0)),
    row(ProtectWhole, "mprotect 1 page", 256, of(2929.0, 800.0, 1.0, 0.0)),
    row(ProtectMiddle, "mprotect split and merge", 256, of(6332.0, 1500.0, 2.0, 0.0)),
    row(Protect, "mprotect 16 MiB, a page", SIXTEEN, of(145.0, 30.0, 0.0, 0.0)),
    row(DontNeedOne, "DONTNEED 1 page", 64, of(3421.0, 900.0, 1.0, 0.0)),
    whole(DontNeed, "DONTNEED 16 MiB", SIXTEEN, of(4.18e6, 0.6e6, 1.0, 0.0)),
    whole(Move, "mremap, move 16 MiB", SIXTEEN, of(19008.0, 9000.0, 1.0, 0.0)),
    row(Fork(1), "fork of 1 page", 16, of(50e3, 10e3, 1.0, 0.0)),
    row(Fork(256), "fork of 1 MiB", 16, of(90e3, 15e3, 1.0, 0.0)),
    row(Fork(16384), "fork of 64 MiB", 1, of(4.2e6, 0.2e6, 1.0, 0.0)),
    row(ForkDrop(1), "fork and drop, 1 page", 16, of(100e3, 25e3, 3.0, 0.0)),
    row(ForkDrop(256), "fork and drop, 1 MiB", 16, of(202e3, 50e3, 3.0, 0.0)),
    row(ForkDrop(16384), "fork and drop, 64 MiB", 1, of(6.73e6, 1.5e6, 3.0, 0.0)),
    row(CowCopy, "COW copy", 256, of(4598.0, 1700.0, 1.0, 0.0)),
    row(CowReuse, "COW reuse", 256, of(1531.0, 500.0, 1.0, 0.0)),
    row(SharedFile, "shared file write", 256, of(2410.0, 900.0, 1.0, 0.0)),
    row(PrivateFile, "private file write", 256, of(4685.0, 1700.0, 1.0, 0.0)),
    // One way into the kernel for 16 pages.
    row(FileRead, "file read, a page", 256, of(537.0, 250.0, 1.0 / 16.0, 0.0)),
];

/// Those that are done to different numbers of pages, to see whether a page costs the same.
pub(super) const FLAT: [Row; 6] = [
    flat(Bulk, "anonymous write"),
    flat(Munmap, "munmap"),
    flat(Protect, "mprotect"),
    flat(DontNeed, "DONTNEED"),
    flat(Move, "mremap, moved"),
    flat(Fork(0), "fork"),
];

const fn flat(act: Act, name: &'static str) -> Row {
    Row { act, name, count: 0, cost: None, per: 0 }
}

/// The row of this number: those of the report, then those that are flat.
pub(super) fn numbered(number: usize) -> Option<Row> {
    ROWS.into_iter().chain(FLAT).nth(number)
}

/// Does an act `n` times, or to `n` pages; the meter is called once, for that alone. False where the
/// design cannot do it, and has done something else.
pub(super) fn run<D: Design>(act: Act, n: u64, meter: Meter<'_>) -> bool {
    with_world::<D, _>(|world| act_in(world, (act, n), meter))
}

/// Calls `f` with a world, and a space in it.
pub(super) fn with_world<D: Design, R>(f: impl FnOnce(&World<'_, '_, D>) -> R) -> R {
    let _turn = turn_of();
    let shared = D::shared().expect("RAM is large enough");
    let engine = Engine::new(Machine::new(), 3).expect("RAM is large enough");
    let rules = Rules::new(1 << 21);
    f(&World::new(&engine, &shared, &rules))
}

fn act_in<D: Design>(world: &World<'_, '_, D>, (act, n): (Act, u64), meter: Meter<'_>) -> bool {
    let space = &world.space;
    match act {
        Clear => clear(world, n, meter),
        Write | Read | ZeroThenWrite => faults(space, (act, n), meter),
        Bulk => {
            place(space, PLACE, n * PAGE_SIZE, RW);
            meter(&mut || touch(space, PLACE, n * PAGE_SIZE, (1, Access::Write)));
            assert_eq!(anon(space), n);
        }
        Huge => return huge(space, n, meter),
        MapUnmap | MapTouchUnmap | MapUnmapLarge => maps(space, (act, n), meter),
        ProtectWhole | ProtectMiddle | DontNeedOne => small(space, (act, n), meter),
        Munmap | Protect | DontNeed | Move => ranges(space, (act, n), meter),
        Fork(pages) | ForkDrop(pages) => {
            // Flat rows say by `n` how many pages, and fork once.
            let (pages, times) = if pages == 0 { (n, 1) } else { (pages, n) };
            forks(world, (act, pages, times), meter);
        }
        CowCopy | CowReuse => cow(world, (act, n), meter),
        SharedFile | PrivateFile | FileRead => files(world, (act, n), meter),
    }
    true
}

/// Anonymous pages that are there besides the stack's.
fn anon<T: PageTable>(space: &Space<'_, T>) -> u64 {
    space.with_mmu(|mmu| mmu.rss().pages(RssKind::Anon)) - 1
}

/// Frames are cleared as a fault does it.
fn clear<D: Design>(world: &World<'_, '_, D>, n: u64, meter: Meter<'_>) {
    use vellum_cache::{Page, Pages};
    let system = world.engine.system();
    let page = Page::take(system).expect("RAM is large enough");
    meter(&mut || {
        for _ in 0..n {
            // SAFETY: taken above, and nobody else's.
            unsafe { system.clear(core::hint::black_box(page.pa())) }
        }
    });
}

/// Single faults, in a region that has had its first page, as the table has its nodes.
fn faults<T: PageTable>(space: &Space<'_, T>, (act, n): (Act, u64), meter: Meter<'_>) {
    place(space, PLACE, (n + 1) * PAGE_SIZE, RW);
    touch(space, PLACE + n * PAGE_SIZE, PAGE_SIZE, (1, Access::Write));
    if act == ZeroThenWrite {
        touch(space, PLACE, n * PAGE_SIZE, (1, Access::Read));
    }
    let access = if act == Read { Access::Read } else { Access::Write };
    meter(&mut || touch(space, PLACE, n * PAGE_SIZE, (1, access)));
    assert_eq!(anon(space), if act == Read { 1 } else { n + 1 });
}

fn huge<T: PageTable>(space: &Space<'_, T>, n: u64, meter: Meter<'_>) -> bool {
    place(space, PLACE, n * LARGE, RW);
    space.madvise(PLACE, n * LARGE, madv::HUGEPAGE).expect("advice is taken");
    // The region has a family from now on, and the table its nodes.
    touch(space, PLACE, LARGE, (512, Access::Write));
    space.madvise(PLACE, LARGE, madv::DONTNEED).expect("advice is taken");
    meter(&mut || touch(space, PLACE, n * LARGE, (512, Access::Write)));
    anon(space) == n * (LARGE / PAGE_SIZE)
}

/// A region that comes and goes.
fn maps<T: PageTable>(space: &Space<'_, T>, (act, n): (Act, u64), meter: Meter<'_>) {
    let len = if act == MapUnmapLarge { SIXTEEN * PAGE_SIZE } else { PAGE_SIZE };
    let once = || {
        let at = space.mmap(0, len, RW, ANON, None).expect("there is room");
        if act == MapTouchUnmap {
            touch(space, at, len, (1, Access::Write));
        }
        space.munmap(at, len).expect("it is there");
    };
    once();
    meter(&mut || (0..n).for_each(|_| once()));
    assert_eq!(anon(space), 0);
}

/// One page of a region that stays.
fn small<T: PageTable>(space: &Space<'_, T>, (act, n): (Act, u64), meter: Meter<'_>) {
    let pages = if act == ProtectMiddle { 3 } else { 1 };
    let at = PLACE + (pages - 1) / 2 * PAGE_SIZE;
    place(space, PLACE, pages.max(n) * PAGE_SIZE, RW);
    let protect = |rights| space.mprotect(at, PAGE_SIZE, rights).expect("it is there");
    match act {
        DontNeedOne => {
            touch(space, PLACE, n * PAGE_SIZE, (1, Access::Write));
            meter(&mut || {
                for n in 0..n {
                    let at = PLACE + n * PAGE_SIZE;
                    space.madvise(at, PAGE_SIZE, madv::DONTNEED).expect("advice is taken");
                }
            });
            assert_eq!(anon(space), 0);
        }
        _ => {
            space.munmap(PLACE + pages * PAGE_SIZE, n * PAGE_SIZE).expect("it is there");
            touch(space, PLACE, pages * PAGE_SIZE, (1, Access::Write));
            let rights = [prot::READ, RW];
            meter(&mut || {
                for n in 0..n as usize {
                    protect(rights[n % 2]);
                    if act == ProtectMiddle {
                        protect(rights[1 - n % 2]);
                    }
                }
            });
        }
    }
}

/// A range whose pages are all there.
fn ranges<T: PageTable>(space: &Space<'_, T>, (act, n): (Act, u64), meter: Meter<'_>) {
    let len = n * PAGE_SIZE;
    place(space, PLACE, len, RW);
    touch(space, PLACE, len, (1, Access::Write));
    let to = PLACE + (1 << 36);
    meter(&mut || match act {
        Munmap => space.munmap(PLACE, len).expect("it is there"),
        Protect => space.mprotect(PLACE, len, prot::READ).expect("it is there"),
        DontNeed => space.madvise(PLACE, len, madv::DONTNEED).expect("advice is taken"),
        _ => {
            let moves = mremap::MAYMOVE | mremap::FIXED;
            assert_eq!(space.mremap(PLACE, len, len, moves, to), Ok(to));
        }
    });
    assert_eq!(anon(space), if matches!(act, Munmap | DontNeed) { 0 } else { n });
}

/// Children of a space of which so many pages are there.
fn forks<D: Design>(
    world: &World<'_, '_, D>,
    (act, pages, times): (Act, u64, u64),
    meter: Meter<'_>,
) {
    let space = &world.space;
    place(space, PLACE, pages * PAGE_SIZE, RW);
    touch(space, PLACE, pages * PAGE_SIZE, (1, Access::Write));
    let keeps = matches!(act, Fork(_));
    let mut children = Vec::with_capacity(times as usize);
    meter(&mut || {
        for _ in 0..times {
            let child = space.fork(world.mmu()).expect("RAM is large enough");
            if keeps {
                children.push(child);
            }
        }
    });
    assert!(children.iter().all(|child| anon(child) == pages));
}

fn cow<D: Design>(world: &World<'_, '_, D>, (act, n): (Act, u64), meter: Meter<'_>) {
    let (space, len) = (&world.space, n * PAGE_SIZE);
    place(space, PLACE, len, RW);
    touch(space, PLACE, len, (1, Access::Write));
    let child = space.fork(world.mmu()).expect("RAM is large enough");
    if act == CowReuse {
        touch(&child, PLACE, len, (1, Access::Write));
    }
    meter(&mut || touch(space, PLACE, len, (1, Access::Write)));
    assert_eq!((anon(space), anon(&child)), (n, n));
}

/// A file that is in the page cache.
fn files<D: Design>(world: &World<'_, '_, D>, (act, n): (Act, u64), meter: Meter<'_>) {
    let (space, len) = (&world.space, n * PAGE_SIZE);
    let file = world.cached_file(len + LARGE);
    let sharing = if act == SharedFile { map::SHARED } else { map::PRIVATE };
    let flags = sharing | map::FIXED;
    let at = space.mmap(PLACE, len + LARGE, RW, flags, Some(file));
    assert_eq!(at, Ok(PLACE), "the place is free");
    // The table has its nodes, and the region its family.
    let first = VirtAddr::new(PLACE + LARGE - PAGE_SIZE);
    space.fault(first, Access::Write).expect("RAM is large enough");
    let (step, access) = if act == FileRead { (16, Access::Read) } else { (1, Access::Write) };
    meter(&mut || touch(space, PLACE, len, (step, access)));
    let resident = space.with_mmu(|mmu| mmu.rss().resident());
    assert_eq!(resident, n + 2);
}
