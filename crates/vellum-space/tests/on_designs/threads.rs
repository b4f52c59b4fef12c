//! Several CPUs in one space, and in a parent and its child.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Barrier;
use std::thread;
use vellum_core::{PAGE_SIZE, PageTable, VirtAddr};
use vellum_fault::host::designs::{Design, mmu};
use vellum_fault::host::{HostSystem, Ram};
use vellum_fault::{Access, Engine, FaultError, Mmu, RssKind};
use vellum_space::abi::{map, prot};
use vellum_space::{AddressSpace, Layout, Limits, Rules};

type Space<'e, 'r, T> = AddressSpace<'e, HostSystem<'r, T>, spin::RwLock<()>>;
type Spare<'e, 'r, T> = Vec<Mmu<'e, HostSystem<'r, T>>>;

const RW: u64 = prot::READ | prot::WRITE;
const ANON: u64 = map::PRIVATE | map::ANONYMOUS;
const ROUNDS: usize = 60;

fn run<D: Design>(
    test: impl for<'e, 'r> FnOnce(&Space<'e, 'r, D::Table<'r>>, Spare<'e, 'r, D::Table<'r>>),
) {
    let ram = Ram::new(1 << 13);
    let before = ram.frames_in_use();
    {
        let shared = D::shared(&ram).unwrap();
        let rules = Rules::new(ram.count_frames());
        let engine = Engine::new(HostSystem::new(&ram), 0).unwrap();
        let mut mmus: Vec<_> =
            (0..16).map(|n| mmu(&engine, D::table(&shared, n + 1).unwrap())).collect();
        let one = mmus.pop().unwrap();
        let space = AddressSpace::new(one, &rules, Layout::default(), Limits::default());
        test(&space, mmus);
        drop(space);
        assert_eq!(rules.committed(), 0);
    }
    assert_eq!(ram.frames_in_use(), before, "every frame is back");
}

fn at(base: u64, page: u64) -> VirtAddr {
    VirtAddr::new(base + page * PAGE_SIZE)
}

/// Both touch every page, in opposite order, so that they meet.
fn two_cpus_fault_one_page_once<'e, 'r, T: PageTable + Send + Sync>(
    space: &Space<'e, 'r, T>,
    _: Spare<'e, 'r, T>,
) {
    const PAGES: u64 = 512;
    let base = space.mmap(0, PAGES * PAGE_SIZE, RW, ANON, None).unwrap();
    let start = Barrier::new(2);
    thread::scope(|scope| {
        for cpu in 0..2u64 {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                for i in 0..PAGES {
                    let page = if cpu == 0 { i } else { PAGES - 1 - i };
                    space.fault(at(base, page), Access::Write).unwrap();
                    let va = VirtAddr::new(at(base, page).as_u64() + cpu * 8);
                    space.write(va, &[cpu as u8 + 1]).unwrap();
                }
            });
        }
    });
    for page in 0..PAGES {
        let mut bytes = [0; 9];
        space.read(at(base, page), &mut bytes).unwrap();
        assert_eq!((bytes[0], bytes[8]), (1, 2), "a store to page {page} was lost");
    }
    assert_eq!(space.with_mmu(|mmu| mmu.rss().pages(RssKind::Anon)), PAGES);
}

/// StarryOS PR 91: two CPUs break the sharing of one page at the same time.
fn no_store_is_lost_when_two_cpus_copy_one_page<'e, 'r, T: PageTable + Send + Sync>(
    space: &Space<'e, 'r, T>,
    mut spare: Spare<'e, 'r, T>,
) {
    const PAGES: u64 = 32;
    let base = space.mmap(0, PAGES * PAGE_SIZE, RW, ANON, None).unwrap();
    for round in 0..8u8 {
        for page in 0..PAGES {
            space.write(at(base, page), &[round; 24]).unwrap();
        }
        let child = space.fork(spare.pop().unwrap()).unwrap();
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for cpu in 0..4u64 {
                let (start, child) = (&start, &child);
                scope.spawn(move || {
                    let space = if cpu < 2 { space } else { child };
                    start.wait();
                    for page in 0..PAGES {
                        let va = VirtAddr::new(at(base, page).as_u64() + cpu % 2 * 8);
                        space.write(va, &[100 + cpu as u8]).unwrap();
                    }
                });
            }
        });
        for (one, first) in [(space, 100), (&child, 102)] {
            for page in 0..PAGES {
                let mut bytes = [0; 24];
                one.read(at(base, page), &mut bytes).unwrap();
                assert_eq!((bytes[0], bytes[8], bytes[16]), (first, first + 1, round));
            }
        }
    }
}

/// What comes of an access is what was stored, or a signal; never somebody else's page.
fn an_access_beside_unmapping_sees_its_own_page_or_none<'e, 'r, T: PageTable + Send + Sync>(
    space: &Space<'e, 'r, T>,
    _: Spare<'e, 'r, T>,
) {
    let base = space.mmap(0, 8 * PAGE_SIZE, RW, ANON, None).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for cpu in 1..3u8 {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    for page in 0..8 {
                        let va = VirtAddr::new(at(base, page).as_u64() + u64::from(cpu) * 64);
                        let wrote = space.write(va, &[cpu * 10 + page as u8]);
                        let mut byte = [0];
                        let read = space.read(va, &mut byte);
                        if wrote.is_ok() && read.is_ok() {
                            // Ours, or zero: unmapped and mapped again in between.
                            assert!(byte[0] == 0 || byte[0] == cpu * 10 + page as u8);
                        }
                        for result in [wrote, read] {
                            let refused = result.err().map(|e| e.error);
                            assert!(
                                matches!(refused, None | Some(FaultError::Deny(_))),
                                "{refused:?}"
                            );
                        }
                    }
                }
            });
        }
        for round in 0..ROUNDS as u64 {
            let page = round % 7;
            space.munmap(at(base, page).as_u64(), 2 * PAGE_SIZE).unwrap();
            let flags = ANON | map::FIXED;
            space.mmap(at(base, page).as_u64(), 2 * PAGE_SIZE, RW, flags, None).unwrap();
            space.mprotect(base, 8 * PAGE_SIZE, prot::READ).unwrap();
            space.mprotect(base, 8 * PAGE_SIZE, RW).unwrap();
        }
        done.store(true, Relaxed);
    });
}

/// One CPU writes a number to two pages, the second after the first, while the other forks: no child
/// has seen a later second page.
fn a_child_sees_one_moment<'e, 'r, T: PageTable + Send + Sync>(
    space: &Space<'e, 'r, T>,
    spare: Spare<'e, 'r, T>,
) {
    let base = space.mmap(0, 2 * PAGE_SIZE, RW, ANON, None).unwrap();
    let done = AtomicBool::new(false);
    let word = |space: &Space<'_, '_, T>, page| {
        let mut bytes = [0; 8];
        space.read(at(base, page), &mut bytes).unwrap();
        u64::from_ne_bytes(bytes)
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0u64;
            while !done.load(Relaxed) {
                n += 1;
                space.write(at(base, 0), &n.to_ne_bytes()).unwrap();
                space.write(at(base, 1), &n.to_ne_bytes()).unwrap();
            }
        });
        for mmu in spare {
            let child = space.fork(mmu).unwrap();
            let (first, second) = (word(&child, 0), word(&child, 1));
            assert!(first == second || first == second + 1, "{first} and {second}");
            thread::yield_now();
            assert_eq!((word(&child, 0), word(&child, 1)), (first, second), "it is the child's");
        }
        done.store(true, Relaxed);
    });
}

macro_rules! design {
    ($name:ident, $design:ty) => {
        design!($name, $design:
            two_cpus_fault_one_page_once,
            no_store_is_lost_when_two_cpus_copy_one_page,
            an_access_beside_unmapping_sees_its_own_page_or_none,
            a_child_sees_one_moment,
        );
    };
    ($name:ident, $design:ty: $($test:ident),* $(,)?) => {
        mod $name { $(
            #[test]
            fn $test() {
                super::run::<$design>(|space, spare| super::$test(space, spare));
            }
        )* }
    };
}
vellum_fault::for_each_design!(design);
