//! Flags of which the difference to Linux's behaviour cannot be seen from a process, or not at will.

use vellum_core::{PAGE_SIZE, VirtAddr};
use vellum_fault::Engine;
use vellum_fault::host::designs::mmu;
use vellum_fault::host::{HostSystem, MemoryFiles, Ram};
use vellum_radix::{Radix, X86_64};
use vellum_space::abi::{madv, map, msync, prot};
use vellum_space::{AddressSpace, Errno, FileMap, Layout, Limits, Overcommit, Rules};

type Table<'r> = Radix<X86_64<4>, &'r Ram>;
type Space<'e, 'r> = AddressSpace<'e, HostSystem<'r, Table<'r>>, spin::RwLock<()>>;

const RW: u64 = prot::READ | prot::WRITE;
const ANON: u64 = map::PRIVATE | map::ANONYMOUS;
const BASE: u64 = 0x7000_0000_0000;

fn run(rules: &Rules, test: impl for<'e, 'r> FnOnce(&Space<'e, 'r>, &'e MemoryFiles)) {
    let ram = Ram::new(1 << 10);
    let engine = Engine::new(HostSystem::new(&ram), 0).unwrap();
    let mmu = mmu(&engine, Table::new(&ram).unwrap());
    let space = Space::new(mmu, rules, Layout::default(), Limits::default());
    test(&space, vellum_fault::System::files(engine.system()));
}

#[test]
fn msync_writes_back_now_and_not_later() {
    run(&Rules::new(1 << 10), |space, files| {
        let file = files.create(&[7; PAGE_SIZE as usize]);
        let from = FileMap { file, descriptor: 3, offset: 0, readable: true, writable: true };
        space.mmap(BASE, PAGE_SIZE, RW, map::SHARED | map::FIXED, Some(from)).unwrap();
        space.write(VirtAddr::new(BASE + 1), &[9]).unwrap();
        for flags in [msync::ASYNC, msync::INVALIDATE, 0] {
            assert_eq!(space.msync(BASE, PAGE_SIZE, flags), Ok(()));
            assert_eq!(files.stored(file)[..2], [7, 7], "flags {flags}");
        }
        files.set_broken(file, true);
        assert_eq!(space.msync(BASE, PAGE_SIZE, msync::SYNC), Err(Errno::Eio));
        files.set_broken(file, false);
        assert_eq!(space.msync(BASE, PAGE_SIZE, msync::SYNC), Ok(()));
        assert_eq!(files.stored(file)[..2], [7, 9]);
    });
}

#[test]
fn what_is_promised_is_bounded() {
    let pages = |count: u64| count * PAGE_SIZE;
    let mut strict = Rules::new(100);
    (strict.overcommit, strict.commit_limit) = (Overcommit::Never, 10);
    run(&strict, |space, _| {
        let all = |flags, prot, count| space.mmap(0, pages(count), prot, flags, None);
        assert_eq!(all(ANON, RW, 11), Err(Errno::Enomem));
        assert_eq!(all(ANON | map::NORESERVE, RW, 11), Err(Errno::Enomem), "it is not asked for");
        let at = all(ANON, RW, 10).unwrap();
        assert_eq!(all(ANON, RW, 1), Err(Errno::Enomem));
        let readable = all(ANON, prot::READ, 50).unwrap();
        assert_eq!(space.mprotect(readable, pages(1), RW), Err(Errno::Enomem));
        space.munmap(at, pages(1)).unwrap();
        assert_eq!(space.mprotect(readable, pages(1), RW), Ok(()));
    });
    assert_eq!(strict.committed(), 0);
    let usual = Rules::new(100);
    run(&usual, |space, _| {
        assert_eq!(space.mmap(0, pages(101), RW, ANON, None), Err(Errno::Enomem));
        assert!(space.mmap(0, pages(101), RW, ANON | map::NORESERVE, None).is_ok());
        assert!((0..3).all(|_| space.mmap(0, pages(100), RW, ANON, None).is_ok()));
    });
    let mut none = Rules::new(100);
    none.overcommit = Overcommit::Always;
    run(&none, |space, _| assert!(space.mmap(0, pages(1 << 20), RW, ANON, None).is_ok()));
}

#[test]
fn advice_that_needs_failing_frames_is_unknown() {
    run(&Rules::new(1 << 10), |space, _| {
        space.mmap(BASE, PAGE_SIZE, RW, ANON | map::FIXED, None).unwrap();
        for advice in [madv::HWPOISON, madv::SOFT_OFFLINE, 5, 104, u64::MAX] {
            assert_eq!(space.madvise(BASE, PAGE_SIZE, advice), Err(Errno::Einval), "{advice}");
        }
    });
}

#[test]
fn large_private_memory_begins_where_large_leaves_fit() {
    const LARGE: u64 = 1 << 21;
    run(&Rules::new(1 << 20), |space, _| {
        let top = Layout::default().mmap_top;
        let small = space.mmap(0, PAGE_SIZE, RW, ANON, None).unwrap();
        assert_eq!(small, top - PAGE_SIZE);
        let large = space.mmap(0, 2 * LARGE, RW, ANON, None).unwrap();
        assert_eq!(large, (small - 2 * LARGE) & !(LARGE - 1));
        // What is not whole, what is shared, and what was asked for elsewhere is not.
        let ragged = space.mmap(0, 2 * LARGE + PAGE_SIZE, RW, ANON, None).unwrap();
        assert_eq!(ragged, large - 2 * LARGE - PAGE_SIZE);
        let shared = map::SHARED | map::ANONYMOUS;
        let shared = space.mmap(0, LARGE, RW, shared, None).unwrap();
        assert_eq!(shared, ragged - LARGE);
        let asked = space.mmap(BASE + PAGE_SIZE, LARGE, RW, ANON, None).unwrap();
        assert_eq!(asked, BASE + PAGE_SIZE);
    });
}

#[test]
fn low_memory_is_found_from_below_and_takes_hints() {
    run(&Rules::new(1 << 20), |space, _| {
        let low = ANON | map::BIT32;
        assert_eq!(space.mmap(0, PAGE_SIZE, RW, low, None), Ok(1 << 30));
        assert_eq!(space.mmap(0, PAGE_SIZE, RW, low, None), Ok((1 << 30) + PAGE_SIZE));
        assert_eq!(space.mmap(0x2000_0000, PAGE_SIZE, RW, low, None), Ok(0x2000_0000));
        assert_eq!(space.mmap(1 << 31, PAGE_SIZE, RW, low, None), Ok((1 << 30) + 2 * PAGE_SIZE));
        assert_eq!(space.mmap(0, 1 << 31, RW, low, None), Err(Errno::Enomem));
        let high = space.mmap(0x2000_1000, PAGE_SIZE, RW, ANON | map::ABOVE4G, None);
        assert_eq!(high, Ok(0x2000_1000), "a hint is a hint");
    });
}

#[test]
fn a_search_that_meets_a_guard_gap_goes_on_below_all_of_it() {
    run(&Rules::new(1 << 20), |space, _| {
        let gap = Rules::new(1).stack_guard_gap;
        let top = Layout::default().mmap_top;
        let stack = top - PAGE_SIZE;
        let fixed =
            |at, flags| space.mmap(at, PAGE_SIZE, RW, ANON | map::FIXED | flags, None).unwrap();
        fixed(stack, map::GROWSDOWN);
        // In the gap; between it and the gap's lower end there is room, which Linux does not look at.
        fixed(stack - gap / 2, 0);
        assert_eq!(space.mmap(0, PAGE_SIZE, RW, ANON, None), Ok(stack - gap - PAGE_SIZE));
        // What does not fit in front of the stack does not meet its gap, and may lie in it.
        assert_eq!(space.mmap(0, gap / 2, RW, ANON, None), Ok(stack - gap));
    });
}
